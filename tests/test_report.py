"""The report: its numbers, its words, what it hides, and the command that writes it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import bdtr
from bdtr.cli import app
from bdtr.results.diagnostics import State
from bdtr.trial.protocol import TEXTS


@pytest.fixture(scope="module")
def written(clinic_fit, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "x.html"
    rules = {
        "first": "app if x > 0 else talk",
        "second": {"responder == 1": "keep", "else": "more"},
    }
    listen = bdtr.rule("nobody's <b>idea</b>", **rules)
    bdtr.report(
        clinic_fit, path, title="A <study>", command="make it", regimes=[listen], margin=0.1,
        texts={"goal": "To know <i>it</i>."},
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def page(written):
    return written.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def contents(written):
    return json.loads(written.with_suffix(".json").read_text(encoding="utf-8"))


def blocks_of(contents):
    def walk(blocks):
        for block in blocks:
            yield block
            yield from walk(block.get("blocks", []))

    for part in contents["parts"]:
        yield from walk(part["blocks"])


def words_of(page):
    body = page[page.index("<body>") :]
    return unescape(re.sub(r"<[^>]+>", " ", body))


def test_the_page_needs_no_network(page):
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:|#)", page)
    assert "<script" not in page
    assert "@import" not in page


def test_every_number_of_the_page_is_in_the_json(page, contents):
    """Digits of the page are those of a number in the file at some number of decimals, or in its words."""
    known = set(re.findall(r"\d+(?:\.\d+)?", json.dumps(contents).replace(",", "")))
    for block in blocks_of(contents):
        for row in block.get("rows", []):
            for value in row:
                if isinstance(value, (int, float)):
                    known |= {f"{abs(value):.{d}f}" for d in range(5)}
    found = re.findall(r"\d+(?:\.\d+)?", words_of(page).replace(",", ""))
    assert len(found) > 500
    assert [n for n in found if n not in known] == []


def test_labels_are_escaped(page):
    assert "A &lt;study&gt;" in page
    assert "To know &lt;i&gt;it&lt;/i&gt;." in page
    for tag in ("<study>", "Clinic <A>", "<b>idea", "<i>it"):
        assert tag not in page


def test_every_figure_is_there_and_has_words(page, contents):
    figures = [b for b in blocks_of(contents) if b["kind"] == "figure"]
    names = {b["name"].split()[0] for b in figures}
    assert {"values", "flow", "balance", "overlap", "predictive", "certainty", "regret"} <= names
    assert {"sites", "shrinkage"} <= names
    alts = [unescape(a) for a in re.findall(r'<img src="data:image/svg[^"]+" alt="([^"]+)"', page)]
    assert alts == [b["alt"] for b in figures]


def test_the_page_holds_what_the_functions_say(page, contents, clinic_fit):
    values = next(b for b in blocks_of(contents) if b.get("columns", [""])[0] == "regime")
    table = bdtr.value(clinic_fit).table
    for row in values["rows"]:
        if row[0] in table.index:
            assert row[1:5] == pytest.approx(list(table.loc[row[0]][:4]), abs=0.02)
    flow = next(b for b in blocks_of(contents) if b.get("columns", [])[:2] == ["stage", "step"])
    assert [r[2] for r in flow["rows"]] == list(clinic_fit.flow["units"])
    for text in (
        "State: ok",
        "95 % equal-tailed",
        clinic_fit.data_hash,
        "make it",
        "Sequential exchangeability",
        "sample (480 units",
        clinic_fit.versions["pymc"],
        "optimistic",
        "cross-fitted",
        "Second opinion",
        "Improvement index",
    ):
        assert text in words_of(page), text


def test_texts_of_the_authors_fill_the_checklist(page, contents):
    part = next(p for p in contents["parts"] if p["name"] == "checklist")
    status = {row[0]: row[2] for row in part["blocks"][-1]["rows"]}
    assert status["goal, and why Bayesian"] == "filled by the authors"
    assert status["success criteria"] == "the authors must write this"
    assert status["posterior predictive checks"].startswith("filled: ")
    assert words_of(page).count("To be written by the authors") == len(TEXTS) - 1


def test_small_sites_are_not_shown(clinic_fit, tmp_path):
    units = clinic_fit.data.frame["clinic"].value_counts()
    few = int(units.max()) + 1
    path = bdtr.report(clinic_fit, tmp_path / "x.html", min_cell=few, thorough=False)
    contents = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    part = next(p for p in contents["parts"] if p["name"] == "sites")
    shown = json.dumps(part)
    assert f"sites with fewer than {few} units are not shown" in shown
    labels = [str(s) for s in clinic_fit.data.site_levels]
    rows = [r for b in blocks_of({"parts": [part]}) for r in b.get("rows", [])]
    assert not [r for r in rows if r[0] in labels]


def test_a_refused_fit_is_reported_without_recommendations(clinic_fit, tmp_path):
    refused = replace(clinic_fit, state=State("refused", ("R-hat up to 1.2 on value",)))
    path = bdtr.report(refused, tmp_path / "r.html", thorough=False)
    text = path.read_text(encoding="utf-8")
    assert "State: refused" in text
    assert "No action is recommended in this state." in text
    assert "How sure the recommendations are" not in text
    path = bdtr.report(refused, tmp_path / "r.html", override="to show", thorough=False)
    text = path.read_text(encoding="utf-8")
    assert "Recommendations are shown all the same: to show" in text
    assert "How sure the recommendations are" in text


def test_the_report_as_pdf(clinic_fit, tmp_path):
    pytest.importorskip("typst")
    title = "#panic(1) $x$ *bold* \\ <b>"  # text, not markup
    path = bdtr.report(clinic_fit, tmp_path / "x.html", title=title, pdf=True, thorough=False)
    assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".html", ".json", ".pdf"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": {"gaol": "x"}}, "'gaol' is not known; allowed are goal"),
        ({"min_cell": 0}, "min_cell=0: must be a whole number, at least 1"),
        ({"over": {"third": ["x"]}}, "stages of over='third'"),
        ({"reference": "nobody"}, "reference='nobody': the regimes are 'recommended'"),
    ],
)
def test_wrong_choices_are_said_before_work(clinic_fit, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        bdtr.report(clinic_fit, tmp_path / "x.html", **arguments)
    with pytest.raises(ValueError, match="must end in .html"):
        bdtr.report(clinic_fit, tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_page_and_its_numbers(tmp_path):
    path = tmp_path / "star.html"
    arguments = [
        "report",
        "star",
        "-o",
        str(path),
        "--sampler",
        "direct",
        "--draws",
        "100",
        "--quick",
        "-q",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "state:" in result.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["star.html", "star.json"]
    text = path.read_text(encoding="utf-8")
    for count in ("6,325", "1,809", "188", "320"):
        assert f"<td>{count}</td>" in text
    assert "bdtr report star -o star.html --seed 2026 --draws 100 --sampler direct --quick" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "moon", "-o", "x.html"], "allowed are star"),
        (["report", "star", "-o", "/nowhere/x.html"], "does not exist"),
        (["report", "star"], "--output"),
        (["report", "star", "-o", "x.html", "-p", "a=1"], "-p is for notebooks"),
        (
            ["report", "n.ipynb", "-o", "x.html", "--seed", "1"],
            "a notebook takes its parameters by -p",
        ),
    ],
)
def test_wrong_arguments_are_said(arguments, message):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in re.sub(r"[\s│]+", " ", result.output)


def test_words_follow_an_outcome_whose_lower_values_are_better(tmp_path):
    """Always 1 lowers y by .56: it is not worth -.56 "more", the worst regime is not the largest first, and
    a probability below 1 does not read 1.00."""
    rng = np.random.default_rng(2)
    n = 300
    x, a1, a2 = rng.normal(size=n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    y = 10 + x - 0.45 * a1 - 0.1 * a2 + rng.normal(size=n)
    frame = pd.DataFrame({"x": x, "a1": a1, "a2": a2, "y": y})
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="x + a1"),
        bdtr.Stage("a2", actions=[0, 1], formula="x + a1 + a2"),
    ]
    trial = bdtr.Trial(stages, outcome="y", higher_is_better=False)
    fit = bdtr.fit(trial, frame, sampler="direct", draws=250, random_seed=1, progress=False)
    path = bdtr.report(fit, tmp_path / "page.html", thorough=False, title="Lower is better")
    page = re.sub(r"<(style|script).*?</\1>", " ", path.read_text(encoding="utf-8"), flags=re.S)
    words = " ".join(words_of(page).split())
    found = re.search(r"Against \u201c0; 0\u201d its mean payoff is lower by (0\.\d+)", words)
    assert found and float(found[1]) == pytest.approx(0.56, abs=0.05)
    assert not re.search(r"it is worth [-\u2212][^)]*\) more", words)
    values = bdtr.value(fit, bdtr.static(a1=0, a2=0), bdtr.static(a1=1, a2=1)).draws["value"]
    if float((values.isel(regime=1) < values.isel(regime=0)).mean()) < 1:
        assert not re.search(r"probability 1\.00\b", words)
    for text in re.findall(r'alt="([^"]*largest mean[^"]*)"', page):
        assert not re.search(r"largest mean[^.]*0; 0|0; 0[^.]*largest mean", text)
