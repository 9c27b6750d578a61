"""Saving and loading: the same answers, further passes, no pickled code, nothing half-written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bdtr
from bdtr.backward import loading, saving
from bdtr.backward.saving import StorageError
from bdtr.results.diagnostics import State
from bdtr.results.errors import ArgumentError
from bdtr.results.files import OutputError


@pytest.fixture(scope="module")
def saved(clinic_fit, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("fits") / "fit.nc")
    clinic_fit.save(path)
    return path


def test_a_loaded_fit_gives_the_same_answers(clinic_fit, clinics, saved):
    loaded = bdtr.load(saved)
    assert loaded.trial == clinic_fit.trial
    assert loaded.settings == clinic_fit.settings
    assert loaded.state == clinic_fit.state
    assert loaded.notes == clinic_fit.notes
    assert loaded.data_hash == clinic_fit.data_hash == loaded.data.hash()
    pd.testing.assert_frame_equal(loaded.flow, clinic_fit.flow)
    pd.testing.assert_frame_equal(loaded.priors, clinic_fit.priors)
    pd.testing.assert_frame_equal(loaded.summary().table, clinic_fit.summary().table)
    ours, theirs = bdtr.recommend(loaded, clinics), bdtr.recommend(clinic_fit, clinics)
    pd.testing.assert_frame_equal(ours.table, theirs.table)


def test_further_passes_after_loading_are_the_same(clinic_fit, saved):
    regime = bdtr.backward.Regime(
        "app, more",
        {"first": "app", "second": {"responder == 1": "keep", "responder == 0": "more"}},
    )
    ours = bdtr.value(bdtr.load(saved), regime).draws
    assert ours.equals(bdtr.value(clinic_fit, regime).draws)


def test_without_data_recommendations_work_and_passes_say_why_not(clinic_fit, clinics, tmp_path):
    path = str(tmp_path / "bare.nc")
    clinic_fit.save(path, data=False)
    loaded = bdtr.load(path)
    ours, theirs = (
        bdtr.recommend(loaded, clinics.head(20)),
        bdtr.recommend(clinic_fit, clinics.head(20)),
    )
    pd.testing.assert_frame_equal(ours.table, theirs.table)
    with pytest.raises(bdtr.FitError, match="Save with data=True"):
        bdtr.value(loaded)
    with xr.open_datatree(path) as tree:
        assert "data" not in tree
        names = {str(n) for node in tree.subtree for n in node.variables}
    assert not names & {"m", "x", "y", "unit", "responder"}


@pytest.mark.parametrize(
    "formula",
    [
        "bs(x, df=4) * a",
        "poly(x, degree=2) * a + log(I(x ** 2 + 1))",
        "scale(x) * a + exp(x) + sqrt(I(x ** 2))",
        "a + center(x) : a",
    ],
)
def test_transforms_keep_what_they_learned(formula, tmp_path):
    from test_data import small

    trial = bdtr.Trial([bdtr.Stage("a", actions=["r", "s"], formula=formula)], outcome="y")
    frame = small(120)
    fit = bdtr.fit(trial, frame, sampler="direct", random_seed=1, progress=False)
    path = str(tmp_path / "fit.nc")
    fit.save(path, data=False)
    some = frame.iloc[3:9]
    pd.testing.assert_frame_equal(
        bdtr.recommend(bdtr.load(path), some).table, bdtr.recommend(fit, some).table
    )


def test_other_files_are_refused(tmp_path):
    path = str(tmp_path / "other.nc")
    xr.Dataset({"x": ("a", [1.0])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(StorageError, match="no fit saved by bdtr"):
        bdtr.load(path)


def test_column_names_may_hold_anything(tmp_path):
    from test_data import small

    frame = small(60).rename(columns={"y": "score/2", "id": "the id"})
    stage = bdtr.Stage("a", actions=["r", "s"], formula="x * a")
    trial = bdtr.Trial([stage], outcome="score/2", unit="the id")
    fit = bdtr.fit(trial, frame, sampler="direct", random_seed=1, progress=False)
    fit.save(str(tmp_path / "fit.nc"))
    assert bdtr.load(str(tmp_path / "fit.nc")).data.hash() == fit.data_hash


@pytest.fixture(scope="module")
def little():
    """Two stages, a site, a transform: a fit whose file is small."""
    rng = np.random.default_rng(1)
    n = 120
    x, (a1, a2) = rng.normal(size=n), rng.integers(0, 2, (2, n))
    site = rng.choice(["here", "there", "elsewhere", "nowhere"], n)
    y = x + 0.3 * a1 + a2 * (0.2 + x) + rng.normal(size=n)
    frame = pd.DataFrame({"x": x, "a1": a1, "a2": a2, "site": site, "y": y})
    stages = [
        bdtr.Stage(
            "a1",
            actions=[0, 1],
            formula="bs(x, df=4) + a1",
            feasible={"x > 0": [0, 1], "x <= 0": [0, 1]},
        ),
        bdtr.Stage("a2", actions=[0, 1], formula="x * a2 + a1 + (1 + a2 | site)"),
    ]
    trial = bdtr.Trial(stages, outcome="y", site="site")
    return bdtr.fit(
        trial, frame, sampler="direct", draws=30, propagated=120, random_seed=1, progress=False
    )


@pytest.fixture
def file(little, tmp_path):
    path = str(tmp_path / "fit.nc")
    little.save(path)
    return path


def leaves(value, at=()):
    """Places of all texts, numbers and truth values in plain JSON."""
    if isinstance(value, (dict, list)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(part, (*at, key))
    else:
        yield at


def other(value):
    if isinstance(value, bool) or value is None:
        return not value
    return value + "x" if isinstance(value, str) else value + 1


def test_every_text_and_number_of_the_header_is_held_against_the_digest(little, file):
    with xr.open_datatree(file, engine="h5netcdf") as opened:
        tree = opened.load().copy()
    text, digest = tree.attrs["bdtr"], tree.attrs["digest"]
    assert saving.digest_of(tree, text) == digest
    header = json.loads(text)
    places = list(leaves(header))
    assert len(places) > 300
    for *way, last in places:
        changed = json.loads(text)
        node = changed
        for key in way:
            node = node[key]
        node[last] = other(node[last])
        assert saving.digest_of(tree, json.dumps(changed)) != digest, (*way, last)


def test_every_array_and_attribute_of_a_file_is_refused_when_changed_or_does_not_matter(
    little, file
):
    places = []
    with h5py.File(file) as held:
        held.visititems(
            lambda name, node: places.append((name, None, isinstance(node, h5py.Dataset)))
        )
        for name in ["/", *(p[0] for p in places)]:
            places += [(name, attribute, False) for attribute in held[name].attrs]
    content = Path(file).read_bytes()
    refused, (whole, _) = 0, loading._opened(file)
    for name, attribute, array in places:
        Path(file).write_bytes(content)
        with h5py.File(file, "r+") as held:
            if not alter(held[name], attribute, array):
                continue
        try:
            tree, text = loading._opened(file)
            same = tree.attrs["digest"] == saving.digest_of(tree, text)
        except StorageError:
            same = False
        if same:  # bookkeeping of the format, which holds nothing of ours
            assert tree.identical(whole), (name, attribute)
            continue
        refused += 1
        if attribute is None or name == "/":  # what anybody would change
            with pytest.raises(StorageError):
                bdtr.load(file)
    assert refused > 30


def alter(node, attribute, array) -> bool:
    """Change one thing in place, if it is a number or a text."""
    if attribute is None:
        if not array or not node.size:
            return False
        at = tuple(s // 2 for s in node.shape)
        old = node[at]
        new = old.decode() + "x" if isinstance(old, bytes) else other(old)
        node[at] = new
        return True
    old = node.attrs[attribute]
    if isinstance(old, (bytes, str)):
        node.attrs[attribute] = (old.decode() if isinstance(old, bytes) else old) + "x"
        return True
    if np.asarray(old).dtype.kind in "if":
        node.attrs[attribute] = old + 1
        return True
    return False


def forged(path, change) -> None:
    """Change a file and make its digest new, as somebody can who knows how."""
    with xr.open_datatree(path, engine="h5netcdf") as opened:
        tree = opened.load().copy()
    text = change(tree, tree.attrs["bdtr"]) or tree.attrs["bdtr"]
    tree.attrs = {}
    tree.attrs = {"bdtr": text, "digest": saving.digest_of(tree, text)}
    Path(path).write_bytes(bytes(tree.to_netcdf(engine="h5netcdf")))


def test_a_forged_file_runs_nothing(file, tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    call = f"I(x * 0 + len(open('{mark}', 'w').name) * 0)"
    for old in ("bs(x, df=4) + a1", "x * a2 + a1", '["text", "1 + a2"', "x > 0"):
        content = Path(file).read_bytes()
        seen = []

        def put(tree, text, old=old, seen=seen):
            new = old.replace("x", call, 1) if "x" in old else '["text", "' + call + '"'
            seen.append(old in text)
            return text.replace(old, new)

        forged(file, put)
        with pytest.raises(StorageError):
            bdtr.load(file)
        assert seen == [True] and not mark.exists()
        Path(file).write_bytes(content)


def test_a_poisoned_object_that_is_saved_runs_nothing(little, tmp_path):
    mark, path = tmp_path / "mark", str(tmp_path / "fit.nc")
    call = f"I(x * 0 + len(open('{mark}', 'w').name) * 0)"
    last = little.designs[1]
    for k, columns in (
        (0, little.designs[0].columns),
        (1, last.columns),
        (1, last.groups[0].columns),
    ):
        old, columns.text = columns.text, f"{call} + x"
        try:
            little.save(path)
        finally:
            columns.text = old
        with pytest.raises(StorageError, match="The formula"):
            bdtr.load(path)
        assert not mark.exists(), k
    for name in ("formula", "among", "eligible"):
        stage = little.trial.stages[0]
        before = getattr(stage, name)
        object.__setattr__(stage, name, call)
        try:
            little.save(path)
        finally:
            object.__setattr__(stage, name, before)
        with pytest.raises(StorageError):
            bdtr.load(path)
        assert not mark.exists()


def test_the_state_is_that_of_the_draws_whatever_the_file_says(little, tmp_path):
    path = str(tmp_path / "fit.nc")

    replace(little, state=State("refused", ("made up",))).save(path)
    assert bdtr.load(path).state == little.state
    few = bdtr.fit(
        little.trial,
        little.data.named,
        sampler="direct",
        draws=30,
        propagated=40,
        random_seed=1,
        progress=False,
    )
    assert few.state.level == "refused"
    replace(few, state=State()).save(path)
    assert bdtr.load(path).state == few.state
    nothing = little.tree.copy(deep=True)
    nothing["stage_1/posterior/b"][:, 0] = np.nan
    for data in (True, False):
        replace(little, tree=nothing, state=State()).save(path, data=data)
        found = bdtr.load(path)
        assert found.state.level == "refused"
        assert "missing or not finite" in str(found.state)


def test_draws_that_are_not_numbers_never_recommend(little):
    nothing = little.tree.copy(deep=True)
    nothing["stage_2/posterior/b"][:, 0] = np.nan
    broken = replace(little, tree=nothing, state=State(), q_draws={})
    frame = little.data.named.head(5)
    for more in ({}, {"override": "to see"}):
        with pytest.raises(bdtr.FitError, match="not finite"):
            bdtr.recommend(broken, frame, **more)


def test_broken_files_and_other_paths_say_what_is_wrong(little, file, tmp_path):
    content = Path(file).read_bytes()
    (tmp_path / "cut.nc").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.nc").write_text("hello")
    (tmp_path / "empty.nc").write_text("")
    for name, message in [
        ("cut.nc", "cannot be read"),
        ("text.nc", "cannot be read"),
        ("empty.nc", "cannot be read"),
        ("absent.nc", "no such file"),
        (".", "is a folder"),
    ]:
        with pytest.raises(StorageError, match=message) as found:
            bdtr.load(tmp_path / name)
        assert "\n" not in str(found.value)
    with pytest.raises(StorageError, match="must name a file"):
        bdtr.load(3)
    forged(file, lambda tree, text: text.replace('["format", 9]', '["format", 5]'))
    with pytest.raises(StorageError, match="has format 5; this bdtr reads 9"):
        bdtr.load(file)
    (tmp_path / "notes.dat").write_text("my notes")
    xr.Dataset({"mine": ("t", [1.0])}).to_netcdf(tmp_path / "mine.nc", engine="h5netcdf")
    (tmp_path / "later.nc").symlink_to(tmp_path / "later.csv")
    (tmp_path / "loop.nc").symlink_to(tmp_path / "loop.nc")
    for name, message in [
        (".", "is a folder"),
        ("people.csv", "a fit is a netCDF file; call it people.nc"),
        ("notes.dat", "holds something else"),
        ("no/fit.nc", "does not exist"),
        ("mine.nc", "holds something else"),
        ("later.nc", "a fit is a netCDF file"),
        ("loop.nc", "no ordinary file"),
        ("x" * 300 + ".nc", "cannot be written"),
    ]:
        with pytest.raises(OutputError, match=message):
            little.save(tmp_path / name)
    with pytest.raises(ArgumentError, match="True or False"):
        little.save(tmp_path / "fit.nc", data="no")
    little.save(tmp_path / "empty.nc")  # as files are that tempfile makes


def test_what_a_forged_header_may_not_hold(little, file):
    content = Path(file).read_bytes()
    for change in (
        ('["versions", {"pairs": [["bdtr", "', '["versions", {"pairs": [["bdtr", 3], ["x", "'),
        ('["random_seed", 1]', '["random_seed", "abc"]'),
        ('["chains", 4]', '["chains", true]'),
        ('["actions", ["0", "1"]]', '["actions", ["1", "0"]]'),
        ('["notes", [', '["notes", [3, '),
        (r"\"step\"", r"\"stop\""),
    ):
        seen = []

        def put(tree, text, change=change, seen=seen):
            seen.append(change[0] in text)
            return text.replace(*change, 1)

        forged(file, put)
        assert seen == [True], change
        with pytest.raises(StorageError):
            bdtr.load(file)
        Path(file).write_bytes(content)


def test_groups_linked_in_a_circle_are_refused(file):
    with h5py.File(file, "r+") as held:
        held["circle"] = held["/"]
    with pytest.raises(StorageError, match="in a circle"):
        bdtr.load(file)
    with h5py.File(file, "r+") as held:
        del held["circle"]
        held["away"] = h5py.ExternalLink("/etc/passwd", "/")
    with pytest.raises(StorageError, match="links to elsewhere"):
        bdtr.load(file)


def test_a_variable_made_a_coordinate_is_a_change(file):
    """It left the summary, or the value at a new site, and with it the reason of the gate's verdict."""
    with h5py.File(file, "r+") as held:
        group = held["stage_2/posterior"]
        group.attrs["coordinates"] = next(name for name in group if name.startswith("sigma"))
    with pytest.raises(StorageError, match="was changed or damaged"):
        bdtr.load(file)
