"""Trials and stages that contradict themselves."""

from __future__ import annotations

import numpy as np
import pytest

import bdtr
from bdtr.trial.trial import Trial, TrialError

STAGE = {"actions": ["r", "s"], "formula": "x * a"}


def test_actions_are_labels_in_the_users_order():
    stage = bdtr.Stage("dose", actions=[2, 0, np.int64(1)], formula="dose")
    assert stage.actions == ("2", "0", "1")
    assert bdtr.Stage("dose", actions=[1.0, 0.5], formula="dose").actions == ("1", "0.5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": ["r"]}, "at least two actions"),
        ({"actions": ["r", "r"]}, "repeated labels"),
        ({"actions": "rs"}, "must be a list"),
        ({"formula": ""}, "formula is missing"),
        ({"feasible": {"x == 1": ["t"]}}, "which actions does not have"),
        ({"feasible": {"x = 1": ["r"]}}, "not understood"),
        ({"feasible": {"x == 1": []}}, "non-empty list"),
        ({"feasible": {}}, "feasible is empty"),
        ({"among": "f(x)"}, "among"),
        ({"priors": {"a": 1.0}}, "must be a prior"),
    ],
)
def test_a_stage_says_what_is_wrong(change, message):
    with pytest.raises(TrialError, match=message):
        bdtr.Stage("a", **{**STAGE, **change})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: bdtr.Trial([], outcome="y"), "non-empty list"),
        (lambda s: bdtr.Trial([s, s], outcome="y"), "share an action"),
        (lambda s: bdtr.Trial([s]), "name the outcome"),
        (
            lambda s: bdtr.Trial([s], outcome="y", family="cauchy"),
            "'gaussian', 'student_t', 'bernoulli'",
        ),
        (
            lambda s: bdtr.Trial(
                [bdtr.Stage("a", **STAGE, reward="r")], outcome="y", family="bernoulli"
            ),
            "rewards cannot be added",
        ),
    ],
)
def test_a_trial_says_what_is_wrong(make, message):
    with pytest.raises(TrialError, match=message):
        make(bdtr.Stage("a", **STAGE))


def test_carried_payoffs_and_delivery_clusters_do_not_mix():
    second = bdtr.Stage(
        "b", actions=[0, 1], formula="b", among="r == 0", delivered_in="class", outside="carry"
    )
    with pytest.raises(TrialError, match="brings the class effect along"):
        bdtr.Trial([bdtr.Stage("a", **STAGE), second], outcome="y")


def test_a_trial_survives_plain_text():
    stage = bdtr.Stage(
        "a",
        actions=[0, 1],
        formula="x * a + (1 + a | s)",
        feasible={"x > 0": [0, 1], "x <= 0": [0]},
        priors={"x": bdtr.trial.Normal(0, 0.1), "sd(s)": bdtr.trial.HalfStudentT(3, 0.2)},
    )
    trial = bdtr.Trial([stage], outcome="y", site="s", higher_is_better=False)
    assert Trial.from_dict(trial.to_dict()) == trial
