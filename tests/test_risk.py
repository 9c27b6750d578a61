"""Measures of risk against closed forms, and the spread of outcomes against the truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from scipy.stats import norm
from simulate import TwoStage

import bdtr
from bdtr.decisions.outcome_spread import outcome_variance
from bdtr.decisions.plans import plan
from bdtr.decisions.risk import Quantile, WorstMean, outcome_noise, utilities


@given(st.integers(0, 1000), st.integers(2, 60), st.floats(0.01, 0.99))
def test_the_worst_mean_is_that_of_sorted_draws(seed, samples, share):
    q = np.random.default_rng(seed).normal(size=(2, 3, samples))
    steps = np.sort(q, axis=2).repeat(1000, axis=2)  # each draw a thousand times
    count = max(round(share * samples * 1000), 1)
    found = utilities(q, WorstMean(share))
    assert np.allclose(found, steps[:, :, :count].mean(axis=2).T, atol=0.02)


def test_measures_of_normal_draws():
    samples, p = 200_001, 0.1
    z = norm.ppf((np.arange(samples) + 0.5) / samples)
    q = np.array([[1.0 + 2.0 * z]])
    z_p = norm.ppf(p)
    assert utilities(q, None).item() == pytest.approx(1.0)
    assert utilities(q, Quantile(p)).item() == pytest.approx(1 + 2 * z_p, abs=1e-3)
    assert utilities(q, WorstMean(p)).item() == pytest.approx(1 - 2 * norm.pdf(z_p) / p, abs=1e-3)


@pytest.fixture(scope="module")
def fit():
    frame = TwoStage(sites=40, per_site=50, noise=2.0).draw(3)
    trial = TwoStage.trial()
    return bdtr.fit(trial, frame, sampler="direct", draws=250, random_seed=1, progress=False)


def test_the_spread_of_outcomes_is_that_of_the_truth(fit):
    """Given history at stage 2, SD 2; at stage 1 the part of M that is not known adds .5^2."""
    assert np.sqrt(outcome_variance(fit, 1)).mean() == pytest.approx(2.0, rel=0.05)
    assert np.sqrt(outcome_variance(fit, 0)).mean() == pytest.approx(np.sqrt(4 + 0.25), rel=0.05)
    noise = outcome_noise(fit, 0)
    assert noise.shape == (2, 1, 1000)
    assert noise.std() == pytest.approx(np.sqrt(4.25), rel=0.06)
    assert abs(noise.mean()) < 0.1


def test_classes_that_deliver_the_action_spread_outcomes():
    rng = np.random.default_rng(2)
    sites, a = np.repeat(np.arange(40), 40), rng.integers(0, 2, 1600)
    room = (sites * 2 + a) * 2 + rng.integers(0, 2, 1600)
    y = 0.8 * rng.normal(size=160)[room] + rng.normal(size=1600)
    frame = pd.DataFrame(
        {"site": sites.astype(str), "a": a, "room": [f"r{r}" for r in room], "y": y}
    )
    stage = bdtr.Stage("a", actions=[0, 1], formula="a + (1 | site)", delivered_in="room")
    trial = bdtr.Trial([stage], outcome="y", site="site")
    own = bdtr.fit(trial, frame, sampler="direct", draws=250, random_seed=1, progress=False)
    assert np.sqrt(outcome_variance(own, 0)).mean() == pytest.approx(np.sqrt(1.64), rel=0.06)


def test_units_that_skip_a_stage_have_the_spread_of_the_one_after():
    """Nine of ten have no decision at the middle stage; the noise of SD 3 comes at the last."""
    rng = np.random.default_rng(9)
    n = 1500
    a1, a2, a3 = rng.integers(0, 2, (3, n))
    due = rng.random(n) < 0.1
    y = 0.2 * a1 + 0.2 * a3 + 3.0 * rng.normal(size=n)
    frame = pd.DataFrame(
        {"due": due * 1, "a1": a1, "a2": np.where(due, a2, np.nan), "a3": a3, "y": y}
    )
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="a1"),
        bdtr.Stage("a2", actions=[0, 1], formula="a1 + a2", among="due == 1"),
        bdtr.Stage("a3", actions=[0, 1], formula="a1 + a3"),
    ]
    own = bdtr.fit(
        bdtr.Trial(stages, outcome="y"),
        frame,
        sampler="direct",
        draws=250,
        random_seed=1,
        progress=False,
    )
    assert np.sqrt(outcome_variance(own, 0)).mean() == pytest.approx(3.0, rel=0.06)


def test_doubt_about_the_mean_and_spread_of_outcomes_are_told_apart():
    """Action 1 is a little better and known badly (few have it); action 2 is as good and spreads wide."""
    rng = np.random.default_rng(4)
    a = np.repeat([0, 1, 2], [1000, 12, 400])
    y = np.concatenate([rng.normal(0, 1, 1000), rng.normal(0, 1, 12), rng.normal(0, 1, 400)])
    for code, mean in ((0, 0.0), (1, 0.3), (2, 0.1)):  # exact means
        y[a == code] += mean - y[a == code].mean()
    stage = bdtr.Stage("a", actions=[0, 1, 2], formula="a", residual="common")
    trial = bdtr.Trial([stage], outcome="y")
    own = bdtr.fit(
        trial,
        pd.DataFrame({"a": a, "y": y}),
        sampler="direct",
        draws=250,
        random_seed=1,
        progress=False,
    )
    assert set(plan(own, "a").actions["action"]) == {"1"}
    assert set(plan(own, "a", utility=WorstMean(0.1)).actions["action"]) == {"2"}
    # One residual SD: outcomes spread alike, and the doubt about a mean counts little beside them.
    assert set(plan(own, "a", utility=WorstMean(0.1, of="outcomes")).actions["action"]) == {"1"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WorstMean(1.5), "share=1.5"),
        (lambda: Quantile(0.1, of="draws"), "of='draws': allowed are 'parameters', 'outcomes'"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_outcomes_of_yes_and_no_have_no_spread_of_their_own():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"a": rng.integers(0, 2, 200), "y": rng.integers(0, 2, 200)})
    trial = bdtr.Trial(
        [bdtr.Stage("a", actions=[0, 1], formula="a")], outcome="y", family="bernoulli"
    )
    own = bdtr.fit(trial, frame, chains=2, draws=100, tune=100, propagated=100, random_seed=1,
                   progress=False)  # fmt: skip
    with pytest.raises(ValueError, match="this one is not .bernoulli"):
        outcome_noise(own, 0)
