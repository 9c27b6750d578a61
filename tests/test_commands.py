"""Every command that the README, the documentation and a new notebook name is run, with few draws."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_notebooks import SMALL
from typer.testing import CliRunner

import bdtr
from bdtr.cli import app
from bdtr.reports.starter import _cells
from bdtr.trial.protocol import Protocol

ROOT = Path(__file__).parent.parent
TRIAL = bdtr.Trial(
    [
        bdtr.Stage("a1", actions=[0, 1], formula="x * a1"),
        bdtr.Stage("a2", actions=[0, 1], formula="a1 + x * a2"),
    ],
    outcome="y",
)


def documented() -> list[str]:
    """Commands in the order in which a reader meets them: the notebook is written before it is run."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    text += "\n".join(cell for _, cell in _cells(Protocol(TRIAL), "None", "A trial", "import bdtr"))
    found = re.findall(r"\bbdtr (?:report|notebook) [^`\n]* -o [^`\s]+", text)
    unique = [c for c in dict.fromkeys(found) if " star " not in c]  # that is run in test_report.py
    return sorted(unique, key=lambda c: not c.startswith("bdtr notebook"))


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with the files that the commands name."""
    folder = tmp_path_factory.mktemp("desk")
    rng = np.random.default_rng(0)
    x, (a1, a2) = rng.normal(size=200), rng.integers(0, 2, (2, 200))
    y = x + 0.5 * a1 + a2 * (0.2 + 0.5 * x) + rng.normal(size=200)
    frame = pd.DataFrame({"x": x, "a1": a1, "a2": a2, "y": y})
    for name in ("people.csv", "pupils.csv"):
        frame.to_csv(folder / name, index=False)
    (folder / "trial.toml").write_text(
        bdtr.trial.protocol_to_text(TRIAL) + '\n[fit]\nsampler = "direct"\n'
    )
    (folder / "notebooks").symlink_to(ROOT / "notebooks")
    return folder


def test_the_documentation_names_commands():
    assert len(documented()) >= 6
    assert {c.split()[1] for c in documented()} == {"report", "notebook"}


@pytest.mark.parametrize("command", documented())
def test_it_runs_as_it_is_written(command, desk, monkeypatch):
    monkeypatch.chdir(desk)
    arguments = shlex.split(command)[1:]
    study, output = arguments[1], Path(arguments[arguments.index("-o") + 1])
    if study == "this.ipynb":
        arguments[1] = study = "trial.ipynb"
    if study == "trial.ipynb" and not Path(study).exists():  # written by the command before
        made = CliRunner().invoke(
            app, shlex.split("notebook trial.toml --data people.csv -o trial.ipynb")
        )
        assert made.exit_code == 0, made.output
    if arguments[0] == "report":
        few = SMALL.get(Path(study).stem, {}) if study.endswith(".py") else {}
        arguments += [word for name, value in few.items() for word in ("-p", f"{name}={value}")]
        arguments += ["-q", *([] if study.endswith((".py", ".ipynb")) else ["--quick"])]
    elif output.exists():
        output.unlink()
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert output.stat().st_size > 0
    if output.suffix == ".html":
        assert output.read_text().rstrip().endswith("</html>")


def test_a_file_may_ask_for_imputation(desk, monkeypatch):
    monkeypatch.chdir(desk)
    frame = pd.read_csv("people.csv")
    frame.loc[::9, "x"] = np.nan
    frame.to_csv("gaps.csv", index=False)
    words = {"missing": "impute", "imputations": 4, "imputation": {"x": "1"}, "sampler": "direct"}
    bdtr.trial.write(Protocol(TRIAL, fit=words), "gaps.toml")
    arguments = "report gaps.toml --data gaps.csv -o gaps.html --draws 100 --quick -q"
    done = CliRunner().invoke(app, shlex.split(arguments))
    assert done.exit_code == 0, done.output
    assert "of units with imputed values" in done.output
    assert "4 completed data sets" in Path("gaps.html").read_text()
    made = CliRunner().invoke(app, shlex.split("notebook gaps.toml --data gaps.csv -o gaps.py"))
    assert made.exit_code == 0 and "imputations=4" in Path("gaps.py").read_text()
