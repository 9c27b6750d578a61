"""Effects in the words of each outcome: against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import logit

import bdtr
from bdtr.values.comparison import compare
from bdtr.values.measures import effect_measures


def fit_of(family, y, **more):
    rng = np.random.default_rng(1)
    n = 200
    data = pd.DataFrame({"a": rng.integers(0, 2, n), "x": rng.normal(size=n)})
    data["y"] = y(rng, data)
    trial = bdtr.Trial(
        [bdtr.Stage("a", actions=[0, 1], formula="x + a")], outcome="y", family=family, **more
    )
    return bdtr.fit(trial, data, sampler="direct", draws=100, random_seed=1, progress=False)


def risky(rng, data):
    return (rng.random(len(data)) < 0.3 + 0.2 * data["a"]) * 1


@pytest.fixture(scope="module")
def values():
    fit = fit_of("bernoulli", risky)
    return fit, bdtr.value(fit, bdtr.static(a=0), bdtr.static(a=1))


def test_probabilities(values):
    """Each measure draw by draw, and numbers needed to treat from the limits of the difference."""
    fit, found = values
    measures = effect_measures(fit, found)
    v0, v1 = (found.draws["value"].sel(regime=r, drop=True) for r in "01")
    right = {
        "risk difference": v1 - v0,
        "risk ratio": v1 / v0,
        "odds ratio": v1 * (1 - v0) / (v0 * (1 - v1)),
        "Cox index": xr.apply_ufunc(lambda p, q: (logit(p) - logit(q)) / 1.65, v1, v0),
    }
    assert list(measures.draws) == list(right)
    for name, draws in right.items():
        assert np.allclose(measures.draws[name].sel(regime="1"), draws)
        row = measures.table.loc[("1", name)]
        assert row["mean"] == pytest.approx(float(draws.mean()))
        assert row["lower"] == pytest.approx(float(draws.quantile(0.025)))
    risk, needed = measures.table.loc[("1", "risk difference")], measures.needed.loc["1"]
    assert needed["needed"] == pytest.approx(1 / abs(risk["mean"]))
    assert needed["to"] == "benefit" and needed["interval"] == "benefit throughout"
    assert needed["at_best"] == pytest.approx(1 / risk["upper"])
    assert needed["at_worst"] == pytest.approx(1 / risk["lower"])
    assert "Effects against 0" in measures.caption and "risk ratio" in measures._repr_html_()


def test_the_interval_of_the_number_goes_through_infinity():
    """No effect: from benefit of one number through infinity to harm of another (Altman 1998)."""
    fit = fit_of("bernoulli", lambda rng, d: rng.integers(0, 2, len(d)))
    found = effect_measures(fit, bdtr.value(fit, bdtr.static(a=0), bdtr.static(a=1)))
    risk, needed = found.table.loc[("1", "risk difference")], found.needed.loc["1"]
    assert risk["lower"] < 0 < risk["upper"]
    assert needed["interval"] == "from benefit through infinity to harm"
    assert needed["at_worst"] == pytest.approx(-1 / risk["lower"])


@pytest.mark.parametrize(
    ("family", "y", "more", "names"),
    [
        (
            "poisson",
            lambda rng, d: rng.poisson(2 + d["a"]),
            {},
            ["difference of rates", "ratio of rates"],
        ),
        (
            "gamma",
            lambda rng, d: rng.gamma(2, 1 + d["a"]),
            {},
            ["difference of means", "ratio of means"],
        ),
        (
            "weibull",
            lambda rng, d: rng.exponential(1 + d["a"]),
            {"horizon": 2},
            ["difference of restricted mean times", "ratio of restricted mean times"],
        ),
        (
            "lognormal",
            lambda rng, d: rng.exponential(1 + d["a"]) + 0.1,
            {"survival_at": 1},
            ["risk difference", "risk ratio", "odds ratio", "Cox index"],
        ),
        (
            "ordinal",
            lambda rng, d: rng.integers(0, 3 + d["a"]),
            {},
            ["difference", "share of the range"],
        ),
        (
            "censored",
            lambda rng, d: np.minimum(rng.normal(d["a"]), 1.0),
            {"ceiling": 1},
            ["difference"],
        ),
        ("gaussian", lambda rng, d: rng.normal(d["a"]), {}, ["difference"]),
    ],
)
def test_measures_of_each_outcome(family, y, more, names):
    fit = fit_of(family, y, **more)
    found = bdtr.value(fit, bdtr.static(a=0), bdtr.static(a=1))
    measures = effect_measures(fit, found)
    assert list(measures.draws) == names
    assert measures.table.index.names == ["regime", "measure"]
    assert (len(measures.needed) > 0) == ("risk difference" in names)


def test_by_group(values):
    """A row for each regime, group and measure."""
    fit, _ = values
    group = np.where(fit.data.frame["x"] > 0, "high", "low")
    found = bdtr.value(fit, bdtr.static(a=0), bdtr.static(a=1), by=group)
    measures = effect_measures(fit, found)
    assert measures.table.index.names == ["regime", "group", "measure"]
    assert len(measures.table) == 8 and len(measures.needed) == 2


def test_odds_ratio_scale(values):
    _, found = values
    ratio = compare(found, "0", "odds ratio").draws
    logs = compare(found, "0", "log odds ratio").draws
    assert np.allclose(np.log(ratio), logs)


def test_what_is_no_value(values):
    with pytest.raises(ValueError, match="as bdtr.value makes them"):
        effect_measures(values[0], values[1].draws["value"])
