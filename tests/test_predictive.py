"""Posterior predictive checks: fair where the model is right, alarmed where it is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulate import TwoStage

import bdtr
from bdtr.checks.predictive import predictive_checks


def fitted(trial, frame):
    return bdtr.fit(
        trial, frame, sampler="direct", draws=125, propagated=500, random_seed=2, progress=False
    )


@pytest.fixture(scope="module")
def right():
    return predictive_checks(fitted(TwoStage.trial(), TwoStage(sites=30, per_site=30).draw(1)))


def test_a_right_model_is_not_accused(right):
    # Eight statistics a stage: none in the outer per cent but for one in eight trials or so.
    assert right.table["p"].between(0.005, 0.995).all()
    assert set(right.table.index.get_level_values("stage")) == {"a1", "a2"}
    inside = right.sites["observed"].between(right.sites["lower"], right.sites["upper"])
    assert inside.mean() > 0.95  # site effects have seen these means
    assert (right.sites.groupby("stage")["units"].sum() == 900).all()


def test_histograms_hold_all_responses(right):
    for _, own in right.histograms.groupby("stage"):
        assert own["observed"].sum() == pytest.approx(1.0)
        assert own["mean"].sum() == pytest.approx(1.0, abs=0.01)
        assert (own["lower"] <= own["upper"]).all()
    assert "draws" in right.caption


def test_a_skewed_outcome_is_seen():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"a": rng.integers(0, 2, 500)})
    frame["y"] = rng.exponential(size=500)
    trial = bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula="a")], outcome="y")
    table = predictive_checks(fitted(trial, frame)).table.loc["a"]
    assert table.loc["skewness", "p"] < 0.005
    assert table.loc["skewness", "observed"] == pytest.approx(
        pd.Series(frame["y"]).skew(), abs=0.02
    )
    assert table.loc["5 % quantile", "p"] < 0.005
    # The mean and the SD are parameters of the model.
    assert table.loc["mean", "p"] == pytest.approx(0.5, abs=0.15)
    assert table.loc["mean of 1", "observed"] == pytest.approx(
        frame.loc[frame["a"] == 1, "y"].mean()
    )


def test_each_action_has_its_own_spread_at_earlier_stages():
    """The later blip depends on A1's mediator: stage values of A1 = 1 vary more."""
    rng = np.random.default_rng(2)
    n = 2000
    a1, a2 = rng.integers(0, 2, (2, n))
    m = rng.normal(size=n) * (1 + 2 * a1)
    frame = pd.DataFrame({"a1": a1, "m": m, "a2": a2, "y": m + a2 + 0.3 * rng.normal(size=n)})
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="a1"),
        bdtr.Stage("a2", actions=[0, 1], formula="a1 + m + a2"),
    ]
    fit = fitted(bdtr.Trial(stages, outcome="y"), frame)
    sigma = fit.posterior(0)["sigma"].mean(("chain", "draw")).to_numpy()
    assert sigma[1] > 2.5 * sigma[0]
    row = predictive_checks(fit).table.loc[("a1", "SD")]
    assert row["lower"] < row["observed"] < row["upper"]
