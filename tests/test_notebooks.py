"""Notebooks run with parameters and written as pages; what goes wrong is said, and nothing half-written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from bdtr.cli import app
from bdtr.reports.notebooks import NotebookError, read_parameters, run_notebook
from bdtr.results.files import OutputError

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
# Small draws: the tests look at whether a story runs to its end, the figures are its own.
SMALL = {
    "deciding": {"draws": 50, "propagated": 200},
    "missing": {"draws": 100, "imputations": 4},
    "own_model": {"draws": 500, "propagated": 200},
    "plug_in": {"data_sets": 10, "propagated": 200},
    "pooling": {"draws": 400},
    "quick_start": {"draws": 250, "propagated": 1000},
    "star": {"draws": 100, "propagated": 200},
}
SMALL_NOTEBOOK = """# %% [markdown]
# # A title & <b>
# %% tags=["parameters"]
seed = 1
site = "West"
# %%
print(site, seed + 1)
# %%
if seed == 9:
    raise ValueError("no nine")
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(SMALL_NOTEBOOK, encoding="utf-8")
    return path


def test_a_notebook_is_run_with_its_parameters_and_written_twice(small, tmp_path):
    arguments = ["report", str(small), "-p", "seed=3", "-p", "site=East", "-q"]
    result = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "out.html")])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "East 4" in page
    assert "<title>A title &amp; &lt;b&gt;</title>" in page
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:|#)", page)
    assert "<script" not in page
    done = nbformat.read(tmp_path / "out.ipynb", 4)
    assert done.cells[-2].outputs[0].text == "East 4\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.html", "out.ipynb", "small.py"]


def test_a_cell_that_fails_is_said_and_nothing_is_written(small, tmp_path):
    page = tmp_path / "out.html"
    result = CliRunner().invoke(app, ["report", str(small), "-p", "seed=9", "-o", str(page), "-q"])
    assert result.exit_code == 1
    for text in ("cell 4 failed", 'raise ValueError("no nine")', "ValueError: no nine"):
        assert text in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["small.py"]


@pytest.mark.parametrize(
    ("values", "message"),
    [({"sed": 1}, "no parameter sed; it has seed, site"), ({"seed": 1, "x": 2}, "no parameter x")],
)
def test_unknown_parameters_are_refused_before_a_cell_runs(small, tmp_path, values, message):
    with pytest.raises(NotebookError, match=message):
        run_notebook(small, tmp_path / "out.html", parameters=values)


def test_files_that_are_no_notebooks(tmp_path):
    for name, message in (("x.txt", "ends in .ipynb"), ("x.ipynb", "no such file")):
        with pytest.raises(NotebookError, match=message):
            run_notebook(tmp_path / name, tmp_path / "out.html")
    plain = tmp_path / "plain.py"
    plain.write_text("# %%\nx = 1\n", encoding="utf-8")
    with pytest.raises(NotebookError, match="no cell tagged 'parameters'"):
        run_notebook(plain, tmp_path / "out.html", parameters={"x": 2})
    other = tmp_path / "other.ipynb"
    other.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    with pytest.raises(OutputError, match="would replace"):
        run_notebook(plain, tmp_path / "other.html")


def test_a_notebook_is_not_replaced_by_what_becomes_of_it(small, tmp_path):
    import jupytext

    source = tmp_path / "small.ipynb"
    jupytext.write(jupytext.read(small), source)
    before = source.read_bytes()
    page, executed = run_notebook(source, tmp_path / "small.html")
    assert (page.name, executed.name) == ("small.html", "small-executed.ipynb")
    assert source.read_bytes() == before
    run_notebook(source, page)  # and again, over what was written
    for name in ("small.py", "small.ipynb", "page.txt", "."):
        with pytest.raises(OutputError):
            run_notebook(small, tmp_path / name)


def test_an_executed_notebook_that_somebody_edited_is_not_replaced(small, tmp_path):
    _, executed = run_notebook(small, tmp_path / "page.html")
    run_notebook(small, tmp_path / "page.html")
    held = nbformat.read(executed, 4)
    held.cells[0].source += " of mine"
    nbformat.write(held, executed)
    with pytest.raises(OutputError, match="would replace"):
        run_notebook(small, tmp_path / "page.html")


@pytest.mark.parametrize(
    ("source", "values", "message"),
    [
        ("# %%\nimport os\nos._exit(3)\n", {}, "could not be run"),
        ("# %%\nx = 1\n", {"x": {1, 2}}, "must be numbers, texts"),
        ('# %% tags=["parameters"]\nx = (\n', {"x": 1}, "no Python that can be read"),
    ],
)
def test_notebooks_that_cannot_be_run(source, values, message, tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(source)
    with pytest.raises(NotebookError, match=message):
        run_notebook(path, tmp_path / "page.html", parameters=values)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.py"]


def test_parameters_are_literals_or_text():
    assert read_parameters(["a=[1, 2]", "b= 0.5"]) == {"a": [1, 2], "b": 0.5}
    assert read_parameters(["a=b=c"]) == {"a": "b=c"}
    with pytest.raises(NotebookError, match="-p n=2: n is given twice"):
        read_parameters(["n=1", "n=2"])
    with pytest.raises(NotebookError, match="write name=value"):
        read_parameters(["seed"])


def test_every_notebook_is_run():
    assert set(SMALL) == {path.stem for path in NOTEBOOKS.glob("*.py")}
    assert not list(NOTEBOOKS.glob("*.ipynb"))  # text in git, outputs nowhere


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"deciding"}))  # test_commands.py runs it
def test_the_story_runs_to_its_end(name, tmp_path):
    # The name of the .ipynb finds the text that is kept.
    page, executed = run_notebook(
        NOTEBOOKS / f"{name}.ipynb", tmp_path / f"{name}.html", parameters=SMALL[name]
    )
    cells = [c for c in nbformat.read(executed, 4).cells if c.cell_type == "code"]
    assert not [o for c in cells for o in c.outputs if o.output_type == "error"]
    said = [o.text for c in cells for o in c.outputs if o.get("name") == "stderr"]
    assert all("DesignWarning" in text for text in said)
    assert bool(said) == (name == "pooling")  # which shows what goes wrong without classes
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:|#)", text)


CELL = {
    "cell_type": "code",
    "source": "1 + 1",
    "metadata": {},
    "outputs": [],
    "execution_count": None,
}
OLD = {
    "nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""},
    "worksheets": [{"metadata": {}, "cells": [
        {"cell_type": "code", "input": ["6 * 7"], "language": "python", "metadata": {}, "outputs": []},
        {"cell_type": "heading", "level": 1, "source": ["Old"], "metadata": {}},
    ]}],
}  # fmt: skip


def test_notebooks_of_old_formats_run(tmp_path):
    (tmp_path / "old.ipynb").write_text(json.dumps(OLD))
    page, _ = run_notebook(tmp_path / "old.ipynb", tmp_path / "page.html")
    assert "42" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "content",
    [
        [1, 2], 3, None, {}, {"nbformat": 5, "nbformat_minor": 0, "metadata": {}, "cells": [CELL]},
        {"nbformat": 4, "nbformat_minor": 5, "metadata": {}},
        {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": 3},
        {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code"}]},
        {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [{**CELL, "cell_type": "poem"}]},
        {"nbformat": 4, "nbformat_minor": 4, "metadata": [], "cells": [CELL]},
    ],
)  # fmt: skip
def test_json_that_is_no_notebook(tmp_path, content):
    (tmp_path / "x.ipynb").write_text(json.dumps(content))
    with pytest.raises(NotebookError, match="cannot be read as a notebook"):
        run_notebook(tmp_path / "x.ipynb", tmp_path / "page.html")
