"""Calibration, rootograms and survival curves: right models inside their bands, wrong ones outside."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bdtr
from bdtr.checks.curves import OutcomeCurves, has_curves, outcome_curves


def fit_of(family, make, formula="x + a", n=600, **more):
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"a": rng.integers(0, 2, n), "x": rng.normal(size=n)})
    made = make(rng, data)
    for name, values in (made if isinstance(made, dict) else {"y": made}).items():
        data[name] = values
    trial = bdtr.Trial(
        [bdtr.Stage("a", actions=[0, 1], formula=formula)], outcome="y", family=family, **more
    )
    return bdtr.fit(trial, data, sampler="direct", draws=200, random_seed=1, progress=False)


def expit(x):
    return 1 / (1 + np.exp(-x))


def risky(rng, d):
    return (rng.random(len(d)) < expit(-0.3 + d["x"] + 0.5 * d["a"])) * 1


def timed(rng, d):
    time = np.exp(1 + 0.4 * d["x"] + 0.5 * d["a"]) * rng.exponential(size=len(d)) ** 0.7
    stop = rng.uniform(1, 8, len(d))
    return {"y": np.minimum(time, stop), "event": (time <= stop) * 1}


CASES = {
    "calibration": ("bernoulli", risky, {}),
    "rootogram": ("poisson", lambda rng, d: rng.poisson(np.exp(0.5 + 0.3 * d["x"])), {}),
    "categories": (
        "ordinal",
        lambda rng, d: np.digitize(d["x"] + rng.logistic(size=len(d)), [-1, 1]),
        {},
    ),
    "survival": ("weibull", timed, {"event": "event", "horizon": 5}),
}


@pytest.mark.parametrize("kind", CASES)
def test_right_models_lie_inside(kind):
    """At most a tenth of the places outside 95 % intervals, and what is seen adds up."""
    family, make, more = CASES[kind]
    fit = fit_of(family, make, **more)
    found = outcome_curves(fit)
    assert found.kind == kind
    table = found.table
    outside = (table["observed"] < table["lower"]) | (table["observed"] > table["upper"])
    assert outside.mean() <= 0.15
    if kind in ("rootogram", "categories"):
        assert table["observed"].sum() == 600
    if kind == "survival":
        assert set(table.index) == {"0", "1"} and table["x"].max() == pytest.approx(5)
    figure = bdtr.plots.outcome_plot(found, "months")
    assert "outside" in figure.get_label() and found.caption in repr(found)


def test_a_missing_curve_is_seen():
    """A probability that is quadratic in x: tenths in the middle are off."""
    fit = fit_of(
        "bernoulli", lambda rng, d: (rng.random(len(d)) < expit(1.5 * d["x"] ** 2 - 2)) * 1, n=1500
    )
    table = outcome_curves(fit).table
    assert ((table["observed"] < table["lower"]) | (table["observed"] > table["upper"])).sum() >= 3


def test_zeros_in_excess_are_seen():
    def zeros(rng, d):
        return rng.poisson(4, len(d)) * (rng.random(len(d)) < 0.7)

    table = outcome_curves(fit_of("poisson", zeros)).table
    assert table["observed"].iloc[0] > table["upper"].iloc[0]


def test_survival_is_that_of_kaplan_and_meier():
    """Without censoring, shares of longer times."""
    fit = fit_of("weibull", lambda rng, d: rng.exponential(2, len(d)) + 0.01)
    table = outcome_curves(fit).table.loc["1"]
    y = fit.data.recorded[fit.data.frame["a"].astype(str).to_numpy() == "1"]
    assert np.allclose(table["observed"], [(y > t).mean() for t in table["x"]])


def test_outcomes_without_a_picture():
    fit = fit_of("gaussian", lambda rng, d: rng.normal(size=len(d)))
    assert not has_curves(fit)
    with pytest.raises(ValueError, match="predictive_checks"):
        outcome_curves(fit)
    with pytest.raises(ValueError, match="outcome_curves"):
        bdtr.plots.outcome_plot(pd.DataFrame())


def test_a_rare_count_is_drawn():
    """Few replications have a unit with it: the mean is above the upper end of the interval."""
    table = pd.DataFrame(
        {"x": [0, 1, 9], "observed": [40, 9, 1], "mean": [41.0, 8.0, 0.02], "lower": [35, 4, 0],
         "upper": [46, 13, 0]}
    )  # fmt: skip
    figure = bdtr.plots.outcome_plot(OutcomeCurves("rootogram", table, 50, 200, 0.95))
    assert len(figure.axes[0].collections) == 1
