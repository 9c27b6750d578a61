"""The notebook that one begins with: the same trial in Python, and cells that run."""

from __future__ import annotations

import re
from html import unescape

import nbformat
import pytest
from hypothesis import example, given, settings, strategies as st
from simulate import clinic_trial
from typer.testing import CliRunner

import bdtr
from bdtr.cli import app
from bdtr.reports.notebooks import NotebookError, run_notebook
from bdtr.reports.starter import _heading, starter_notebook, trial_code
from bdtr.trial.protocol import Protocol, protocol_to_text

ODD = bdtr.Trial(
    [
        bdtr.Stage(
            "a",
            actions=['say "no"', "it's", "back\\slash"],
            formula="x * a",
            priors={"x": bdtr.trial.Normal(0, 2), "sigma": bdtr.trial.HalfNormal(1)},
            site_means=False,
        )
    ],
    outcome="y",
    higher_is_better=False,
)


@settings(deadline=None)
@given(
    st.text(alphabet=st.sampled_from("ab1 `*_~[]()<>!#$\\\\&;:.-+=|'\"{}^\n\t\u2028"), max_size=30)
)
@example("[click](javascript:alert(1))")
@example("![image](https://example.org/x.png)")
@example("<https://example.org> https://example.org")
@example("$x$ \\(y\\) a_b_c **d** ~~e~~ `f` #")
def test_a_title_is_read_as_it_is(title):
    from nbconvert.filters.markdown import markdown2html

    shown = markdown2html(f"# {_heading(title)}\n\nText.")
    heading = re.match(r"<h1.*?>(.*?)(<a class=\"anchor-link\".*?)?</h1>", shown, re.DOTALL)
    plain = " ".join("".join(c for c in " ".join(title.split()) if c.isprintable()).split())
    assert heading is not None or not plain
    if heading is not None:
        assert "<" not in heading[1]
        assert " ".join(unescape(heading[1]).split()) == plain


@pytest.mark.parametrize("trial", [bdtr.datasets.star_trial(), clinic_trial(), ODD])
def test_the_code_makes_the_trial_again(trial):
    names: dict = {"bdtr": bdtr}
    exec(trial_code(Protocol(trial)), names)
    assert names["trial"] == trial


def test_the_notebook_runs_as_it_is(clinics, tmp_path):
    words = Protocol(
        clinic_trial(), fit={"missing": "exclude"},
        regimes={"listen": {"first": "app if x > 0 else talk", "second": "keep if responder == 1 else more"}},
    )  # fmt: skip
    (tmp_path / "trial.toml").write_text(protocol_to_text(words), encoding="utf-8")
    clinics.to_csv(tmp_path / "units.csv", index=False)
    made = tmp_path / "begin.ipynb"
    arguments = ["notebook", str(tmp_path / "trial.toml"), "--data", str(tmp_path / "units.csv")]
    result = CliRunner().invoke(app, [*arguments, "-o", str(made)])
    assert result.exit_code == 0, result.output
    values = {"draws": 250, "propagated": 1000}
    page, executed = run_notebook(made, tmp_path / "done.html", parameters=values)
    cells = [c for c in nbformat.read(executed, 4).cells if c.cell_type == "code"]
    assert all(c.execution_count for c in cells)
    text = page.read_text(encoding="utf-8")
    for word in ("listen", 'src="data:image/png', 'alt="Values of', "cross-fitted", "(new site)"):
        assert word in text
    again = CliRunner().invoke(app, [*arguments, "-o", str(made)])
    assert again.exit_code == 2
    assert "is there already" in again.output


def test_files_of_other_kinds_are_refused(tmp_path):
    with pytest.raises(NotebookError, match="ends in .ipynb"):
        starter_notebook(tmp_path / "x.txt", Protocol(ODD), "None")
