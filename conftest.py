"""What the examples of docstrings start from: a fit to twenty schools of Project STAR."""

from __future__ import annotations

import pytest
from _pytest.doctest import DoctestItem

import bdtr


@pytest.fixture(scope="session")
def twenty_schools():
    """Their pupils, as bundled."""
    pupils = bdtr.datasets.star()
    return pupils[pupils["school"].isin(sorted(pupils["school"].unique())[:20])]


@pytest.fixture(scope="session")
def example_fit(twenty_schools):
    """The bundled trial fitted to them."""
    return bdtr.fit(
        bdtr.datasets.star_trial(), twenty_schools, missing="exclude", off_protocol="exclude",
        sampler="direct", draws=100, propagated=200, random_seed=1, progress=False,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _examples(request, doctest_namespace, tmp_path, monkeypatch):
    """Examples run in an empty folder and know ``bdtr``, ``trial``, ``pupils`` and, if they ask, ``fit``."""
    if not isinstance(request.node, DoctestItem):
        return
    monkeypatch.chdir(tmp_path)
    doctest_namespace["bdtr"] = bdtr
    text = "".join(example.source for example in request.node.dtest.examples)
    if "pupils" in text:
        doctest_namespace["pupils"] = request.getfixturevalue("twenty_schools")
    if "(fit" in text or "fit." in text:
        doctest_namespace["fit"] = request.getfixturevalue("example_fit")
    if "trial" in text:
        doctest_namespace["trial"] = bdtr.datasets.star_trial()
