"""A trial as a file: what it says and may not say; writing and reading are inverse."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given, strategies as st
from simulate import clinic_trial
from typer.testing import CliRunner

import bdtr
from bdtr.cli import app
from bdtr.trial.protocol import (
    Protocol,
    ProtocolError,
    protocol_from_text,
    protocol_to_text,
    read,
)

FILE = """
outcome = "y"
unit = "id"
site = "clinic"
higher_is_better = false

[[stages]]
action = "a1"
actions = [0, 1]
formula = "x * a1 + (1 | clinic)"
priors = {"sd(clinic)" = "HalfNormal(0.2)", "x" = "Normal(mu=0, sigma=1)"}

[[stages]]
action = "a2"
actions = ["stop", "go on"]
feasible = {"a1 == 1" = ["stop", "go on"], "a1 != 1" = ["go on"]}
formula = "x + a1 + m * a2"

[fit]
missing = "exclude"
random_seed = 3

[regimes."treat the ill"]
a1 = 1
a2 = "stop if m > 0 else 'go on'"

[report]
title = "A trial"
margin = 0.1

[texts]
goal = "To know."
"""


def test_a_file_says_what_python_says():
    found = protocol_from_text(FILE)
    stages = [
        bdtr.Stage(
            "a1",
            actions=[0, 1],
            formula="x * a1 + (1 | clinic)",
            priors={"sd(clinic)": bdtr.trial.HalfNormal(0.2), "x": bdtr.trial.Normal(0, 1)},
        ),
        bdtr.Stage(
            "a2",
            actions=["stop", "go on"],
            feasible={"a1 == 1": ["stop", "go on"], "a1 != 1": ["go on"]},
            formula="x + a1 + m * a2",
        ),
    ]
    trial = bdtr.Trial(stages, outcome="y", unit="id", site="clinic", higher_is_better=False)
    assert found.trial == trial
    assert found.fit == {"missing": "exclude", "random_seed": 3}
    assert found.regimes == {"treat the ill": {"a1": "1", "a2": "stop if m > 0 else 'go on'"}}
    assert found.report == {"title": "A trial", "margin": 0.1}
    assert found.texts == {"goal": "To know."}
    assert protocol_from_text(protocol_to_text(found)) == found


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('outcome = "y"', 'outcom = "y"', "no 'outcom'.*Did you mean 'outcome'"),
        ('outcome = "y"', "outcome = 3", "outcome must be a text, got 3"),
        ("higher_is_better = false", "higher_is_better = 0", "must be true or false"),
        ("[[stages]]", "[stages]", "is no TOML|table of its own"),
        ("formula", "formulae", r"\[\[stages\]\] 1: there is no 'formulae'.*'formula'"),
        ("HalfNormal(0.2)", "HalfNormal(0.2, 1)", "priors.*HalfNormal takes the numbers sigma"),
        ("HalfNormal(0.2)", "Beta(1)", "'Beta\\(1\\)' is no prior"),
        ("HalfNormal(0.2)", "HalfNormal(-1)", "must be finite and above 0"),
        ("a1 == 1\"", "__import__('os')\"", "feasible"),
        ('missing = "exclude"', 'missing = 1', "missing must be a text"),
        ("random_seed = 3", "random_seed = true", "random_seed must be a whole number"),
        ("stop if m > 0", "stop if m >", r"\[regimes.treat the ill\]: a2"),
        ("a1 = 1\na2", "a3 = 1\na2", "no 'a3'; allowed are a1, a2"),
        ('a2 = "stop if', 'a1 = "stop if', "TOML"),
        ('a1 = 1\n', '', "says nothing about stage a1"),
        ("margin = 0.1", "margin = 'wide'", "margin must be a number"),
        ("goal", "gaol", "Did you mean 'goal'"),
    ],
)  # fmt: skip
def test_errors_say_where_and_what_is_allowed(old, new, message):
    with pytest.raises(ProtocolError, match=re.compile(message, re.DOTALL)):
        protocol_from_text(FILE.replace(old, new), "trial.toml")


def test_a_trial_writes_itself():
    trial = bdtr.datasets.star_trial()
    assert bdtr.trial.protocol_from_text(bdtr.trial.protocol_to_text(trial)).trial == trial
    assert "higher_is_better" not in bdtr.trial.protocol_to_text(
        trial
    )  # defaults go without saying


names = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=8)


@given(names, st.lists(names, min_size=2, max_size=3, unique=True), st.booleans(), names)
def test_any_labels_survive(action, actions, flag, text):
    assume(action != text)
    stage = bdtr.Stage(action, actions=actions, formula="1", site_means=flag)
    protocol = Protocol(
        bdtr.Trial([stage], outcome=text, higher_is_better=flag), texts={"goal": text}
    )
    assert protocol_from_text(protocol_to_text(protocol)) == protocol


def test_models_of_your_own_are_not_written():
    class Own:
        def build(self, history, payoff): ...

        def q(self, posterior, history): ...

    stage = bdtr.Stage("a", actions=[0, 1], formula="a", model=Own())
    with pytest.raises(ProtocolError, match="code cannot be written"):
        bdtr.trial.protocol_to_text(bdtr.Trial([stage], outcome="y"))


def test_an_absent_file(tmp_path):
    with pytest.raises(ProtocolError, match="cannot be read"):
        read(tmp_path / "absent.toml")


def test_a_byte_order_mark_is_no_word(tmp_path):
    (tmp_path / "trial.toml").write_bytes(b"\xef\xbb\xbf" + FILE.encode())
    assert read(tmp_path / "trial.toml").trial.unit == "id"


def test_a_report_from_two_files(clinics, tmp_path):
    """The same fit as in Python: the file's words are the arguments."""
    (tmp_path / "trial.toml").write_text(
        protocol_to_text(Protocol(clinic_trial(), fit={"missing": "exclude"}))
    )
    clinics.to_csv(tmp_path / "units.csv", index=False)
    page = tmp_path / "x.html"
    arguments = ["report", str(tmp_path / "trial.toml"), "--data", str(tmp_path / "units.csv")]
    options = [
        "-o",
        str(page),
        "--sampler",
        "direct",
        "--draws",
        "50",
        "--seed",
        "5",
        "--quick",
        "-q",
    ]
    result = CliRunner().invoke(app, [*arguments, *options])
    assert result.exit_code == 0, result.output
    fit = bdtr.fit(
        clinic_trial(), clinics, missing="exclude", sampler="direct",
        draws=50, propagated=200, random_seed=5, progress=False,
    )  # fmt: skip
    mean = bdtr.value(fit).table["mean"].iloc[0]
    assert f"<td>{mean:.3f}</td>".replace("-", "−") in page.read_text(encoding="utf-8")
    result = CliRunner().invoke(app, [*arguments[:2], "-o", str(page)])
    assert result.exit_code == 2
    assert "--data FILE" in re.sub(r"[\s│]+", " ", result.output)


CHOICES = {
    "an action that there is not": (
        "[regimes.one]\nfirst = 'pill'\nsecond = 'more'",
        "'pill' is no action",
    ),
    "a column of the future": (
        "[regimes.one]\nfirst = 'app if responder == 1 else talk'\nsecond = 'more'",
        "names 'responder'",
    ),
    "a name that is taken": (
        "[regimes.recommended]\nfirst = 'app'\nsecond = 'more'",
        "name of another",
    ),
    "reference": ("[report]\nreference = 'best'", "reference='best': the regimes are"),
    "population": ("[report]\npopulation = 'world'", "population='world'"),
    "a stage": ("[report.over]\nthird = ['x']", "stages of over='third'"),
    "a column": ("[report.over]\nfirst = ['responder']", "over['first']='responder'"),
    "an action planned": ("[report.planned]\nfirst = {app = 1, pill = 1}", "'pill'"),
    "actions left out": ("[report.planned]\nfirst = {app = 1}", "name all actions"),
    "a weight": ("[report.planned]\nfirst = {app = 1, talk = -1}", "0 or more"),
}


@pytest.mark.parametrize("name", CHOICES)
def test_choices_that_do_not_fit_are_said_before_the_fit(name, clinics, tmp_path, monkeypatch):
    def fitted(*_):
        raise AssertionError("fitted")

    text, message = CHOICES[name]
    monkeypatch.setattr("bdtr.backward.fitting.fit_checked", fitted)
    words = Protocol(clinic_trial(), fit={"missing": "exclude"})
    (tmp_path / "trial.toml").write_text(protocol_to_text(words) + "\n" + text, encoding="utf-8")
    clinics.to_csv(tmp_path / "units.csv", index=False)
    arguments = ["report", str(tmp_path / "trial.toml"), "--data", str(tmp_path / "units.csv")]
    result = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "page.html"), "-q"])
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert result.output.count("\n") == 1
