"""Treatment probabilities: shares by site, known ones, of a regression, feasible sets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulate import TwoStage, clinic_study, clinic_trial

import bdtr
from bdtr.checks.assignment import treatment_probabilities


@pytest.fixture(scope="module")
def fit():
    frame = TwoStage(sites=5, per_site=40).draw(3)
    return bdtr.fit(
        TwoStage.trial(),
        frame,
        sampler="direct",
        draws=100,
        propagated=200,
        random_seed=1,
        progress=False,
    )


def test_shares_of_a_site_are_drawn_to_those_of_all(fit):
    found = treatment_probabilities(fit, 0, "shares")
    frame = fit.data.frame
    overall = frame["a1"].astype(int).mean()
    for site, rows in frame.groupby("site", observed=True):
        own = found[rows.index, 1]
        expected = (rows["a1"].astype(int).sum() + 2 * overall) / (len(rows) + 2)
        assert np.allclose(own, expected), site
    assert np.allclose(found.sum(axis=1), 1)


def test_actions_that_are_not_feasible_have_none():
    trial, frame = clinic_trial(), clinic_study()
    fit = bdtr.fit(
        trial, frame, sampler="direct", draws=100, propagated=200, random_seed=1, progress=False,
        missing="exclude",
    )  # fmt: skip
    stage = fit.data.stages[1]
    for known in ("shares", "model", dict.fromkeys(stage.stage.actions, 1.0)):
        found = treatment_probabilities(fit, 1, known)
        due = stage.history & stage.among
        assert np.isnan(found[~due]).all()
        assert np.allclose(found[due].sum(axis=1), 1)
        assert (found[due][~stage.feasible[due]] == 0).all()
    choices = stage.feasible[due].sum(axis=1)
    assert np.allclose(found[due].max(axis=1), 1 / choices)


def test_sets_of_feasible_actions_have_rates_of_their_own():
    """Two of three actions may be given to some, at other odds than to those who may be given all."""
    rng = np.random.default_rng(2)
    n = 3000
    two = rng.random(n) < 0.5
    drawn = rng.random(n)
    a = np.where(
        two, np.where(drawn < 0.8, "b", "a"), np.array(["a", "b", "c"])[(3 * drawn).astype(int)]
    )
    frame = pd.DataFrame({"two": two * 1, "a": a, "y": rng.normal(size=n)})
    feasible = {"two == 1": ["a", "b"], "two == 0": ["a", "b", "c"]}
    stage = bdtr.Stage("a", actions=["a", "b", "c"], formula="a", feasible=feasible)
    fit = bdtr.fit(
        bdtr.Trial([stage], outcome="y"), frame, sampler="direct", draws=100, propagated=200,
        random_seed=1, progress=False,
    )  # fmt: skip
    found = treatment_probabilities(fit, 0)
    for rows, right in ((two, [0.2, 0.8, 0.0]), (~two, [1 / 3] * 3)):
        assert np.allclose(found[rows], right, atol=0.04)


def test_known_probabilities(fit):
    found = treatment_probabilities(fit, 0, {0: 0.3, 1: 0.7})
    assert np.allclose(found, [0.3, 0.7])
    given = np.tile([1.0, 3.0], (200, 1))
    assert np.allclose(treatment_probabilities(fit, 0, given), [0.25, 0.75])


def test_those_who_leave_after_an_action_took_it():
    """Half took each action; most of those with the second left afterwards."""
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"a": np.tile([0, 1], 500), "y": rng.normal(size=1000)})
    frame.loc[(frame["a"] == 1) & (rng.random(1000) < 0.7), "y"] = np.nan
    trial = bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula="a")], outcome="y")
    fit = bdtr.fit(
        trial, frame, sampler="direct", draws=100, propagated=200, random_seed=1, progress=False,
        missing="exclude",
    )  # fmt: skip
    for known in ("shares", "model"):
        assert np.allclose(treatment_probabilities(fit, 0, known), 0.5, atol=0.01)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({0: 1.0}, r"probabilities\['a1'\]: name all actions \['0', '1'\]"),
        ({0: 0.0, 1: 0.0}, "above 0 for one feasible action"),
        ({0: -0.2, 1: 1.2}, "must be 0 or more"),
        (np.ones((3, 2)), r"must have the shape \(200, 2\)"),
    ],
)
def test_wrong_arguments(fit, known, message):
    with pytest.raises(ValueError, match=message):
        treatment_probabilities(fit, 0, known)
