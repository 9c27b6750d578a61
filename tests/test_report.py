"""The report page and the command that writes it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import bdtr
from bdtr.cli import app
from bdtr.diagnostics import State


@pytest.fixture(scope="module")
def page(clinic_fit, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "x.html"
    bdtr.report(clinic_fit, path, title="A <study>", command="make it")
    return path.read_text(encoding="utf-8")


def test_the_page_needs_no_network(page):
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:|#)", page)
    assert "<script" not in page
    assert "@import" not in page


def test_labels_are_escaped(page):
    assert "A &lt;study&gt;" in page
    assert "<study>" not in page
    assert "Clinic <A>" not in page


def test_the_page_holds_what_the_functions_say(page, clinic_fit):
    table = bdtr.value(clinic_fit).table
    for name, row in table.iterrows():
        cells = [f"{row[c]:.3f}".replace("-", "−") for c in ("mean", "sd", "lower", "upper")]
        assert f"<td>{name}</td><td>" + "</td><td>".join(cells) in page
    for _, row in clinic_fit.flow.iterrows():
        assert f"{row['step']}</td><td>{row['units']:,}</td>" in page
    for text in (
        "State: ok",
        "95 % equal-tailed",
        clinic_fit.data_hash,
        "<td>random seed</td>",
        "make it",
        "Sequential exchangeability",
        "sample (480 units",
        clinic_fit.versions["pymc"],
        "optimistic",
    ):
        assert text in page


def test_a_refused_fit_is_reported_without_recommendations(clinic_fit, tmp_path):
    refused = replace(clinic_fit, state=State("refused", ("R-hat up to 1.2 on value",)))
    text = bdtr.report(refused, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "State: refused" in text
    assert "No action is recommended in this state." in text
    assert "How sure are the recommendations" not in text
    text = bdtr.report(refused, tmp_path / "r.html", override="to show").read_text(encoding="utf-8")
    assert "Recommendations are shown all the same: to show" in text
    assert "How sure are the recommendations" in text


def test_the_command_writes_one_file(tmp_path):
    path = tmp_path / "star.html"
    arguments = ["report", "star", "-o", str(path), "--sampler", "direct", "--draws", "100", "-q"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "state:" in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["star.html"]
    text = path.read_text(encoding="utf-8")
    for count in ("6,325", "1,809", "188", "320"):
        assert f"<td>{count}</td>" in text
    assert "bdtr report star -o star.html --seed 2026 --draws 100 --sampler direct" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "moon", "-o", "x.html"], "allowed are star"),
        (["report", "star", "-o", "/nowhere/x.html"], "does not exist"),
        (["report", "star"], "--output"),
    ],
)
def test_wrong_arguments_are_said(arguments, message):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in re.sub(r"[\s│]+", " ", result.output)
