"""Times until an event and scores between bounds: what payoffs are, against definitions and simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import lognorm, weibull_min

import bdtr
from bdtr.data.check import check
from bdtr.data.outcomes import pseudo_observations
from bdtr.trial.censoring import TIME, UNTIL, WITHOUT, censored_mean
from bdtr.trial.families import FAMILIES
from bdtr.trial.payoff import Payoff

ETA, SIGMA = np.array([[-1.0, 0.2], [1.5, 3.0]]), np.array([[0.3, 1.4], [0.8, 1.0]])
LAWS = {
    "lognormal": lambda eta, s: lognorm(s, scale=np.exp(eta)),
    "weibull": lambda eta, s: weibull_min(1 / s, scale=np.exp(eta)),
}


@pytest.mark.parametrize("family", LAWS)
@pytest.mark.parametrize("kind", [TIME, UNTIL, WITHOUT])
def test_mean_payoffs_of_times(family, kind):
    """Against the moments of scipy's distributions and the integral of their survival functions."""
    h = 2.0
    found = Payoff(FAMILIES[family], (kind, h)).mean(ETA, SIGMA)
    for i in np.ndindex(2, 2):
        law = LAWS[family](ETA[i], SIGMA[i])
        right = {
            TIME: law.mean,
            UNTIL: lambda law=law: quad(law.sf, 0, h)[0],
            WITHOUT: lambda law=law: law.sf(h),
        }[kind]()
        assert found[i] == pytest.approx(right, rel=1e-7)


@pytest.mark.parametrize("family", LAWS)
def test_times_far_from_the_horizon(family):
    """Where nobody gets to it, the mean time; where all do, the horizon; never more, never NaN."""
    eta = np.array([-800.0, -5.0, 30.0, 800.0])
    payoff = Payoff(FAMILIES[family], (UNTIL, 4.0))
    for sigma in (0.01, 0.5, 2.0):
        found = payoff.mean(eta, np.full(4, sigma))
        assert np.isfinite(found).all() and (found >= 0).all() and (found <= 4.0 + 1e-12).all()
        assert found[2] == pytest.approx(4.0, rel=1e-3) and found[3] == pytest.approx(4.0)


def kaplan_meier(time, event, until, survival):
    """By definition, one event time after the other."""
    end, alive, area, before = min(until, time.max()), 1.0, 0.0, 0.0
    for t in np.unique(time):
        if t > end:
            break
        area += alive * (t - before)
        before = t
        alive *= 1 - (event & (time == t)).sum() / (time >= t).sum()
    return alive if survival else area + alive * (end - before)


@pytest.mark.parametrize("survival", [False, True])
@pytest.mark.parametrize("until", [1.5, np.inf])
def test_pseudo_observations(survival, until):
    """n theta less n - 1 times the estimate without the unit; ties among them."""
    rng = np.random.default_rng(3)
    time, event = rng.exponential(size=60).round(1) + 0.1, rng.random(60) < 0.7
    until = min(until, time.max())
    found = pseudo_observations(time, event, until, survival)
    every = np.arange(60)
    whole = 60 * kaplan_meier(time, event, until, survival)
    for i in every:
        # The end of the estimate is that of all times.
        if time[i] == time.max() and (time == time.max()).sum() == 1:
            continue
        rest = kaplan_meier(time[every != i], event[every != i], until, survival)
        assert found[i] == pytest.approx(whole - 59 * rest)


def test_nobody_censored_before_the_horizon():
    time, event = np.array([1.0, 2.0, 5.0, 7.0]), np.array([True, True, False, False])
    assert np.array_equal(pseudo_observations(time, event, 4.0, False), [1, 2, 4, 4])
    assert np.array_equal(pseudo_observations(time, event, 4.0, True), [0, 0, 1, 1])


def test_censored_at_the_close_of_a_trial():
    """No event by then: it was counted as one."""
    time, event = np.array([1.0, 4.0, 4.0, 4.0]), np.array([True, True, False, False])
    assert np.array_equal(pseudo_observations(time, event, 4.0, True), [0, 0, 1, 1])
    assert np.array_equal(pseudo_observations(time, event, 4.0, False), [1, 4, 4, 4])


def relapse(seed=1, n=900, months=24.0):
    """Two stages, 24 clinics, Weibull times with a fifth censored at random."""
    rng = np.random.default_rng(seed)
    clinic = rng.integers(0, 24, n)
    x, a1, a2 = rng.normal(size=n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    s = 0.5 * x + 0.5 * a1 + rng.normal(size=n)
    u = 0.3 * rng.normal(size=24)

    def scale(a, m, b):
        return np.exp(2.2 + 0.3 * x + 0.4 * m + 0.3 * b * m + 0.2 * a + u[clinic])

    time = scale(a1, s, a2) * rng.exponential(size=n) ** 0.8
    stop = rng.uniform(6, 60, n)
    frame = pd.DataFrame(
        {"clinic": [f"c{j:02d}" for j in clinic], "x": x, "a1": a1, "s": s, "a2": a2}
    )
    frame["months"], frame["relapsed"] = np.minimum(time, stop), (time <= stop) * 1
    truth = []
    for a, b in ((0, 0), (1, 1)):
        m = 0.5 * x + 0.5 * a + rng.normal(size=(400, n))
        until = np.minimum(scale(a, m, b) * rng.exponential(size=(400, n)) ** 0.8, months)
        truth.append(until.mean())
    return frame, np.array(truth)


@pytest.fixture(scope="module")
def followed():
    frame, truth = relapse()
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="x * a1 + (1 | clinic)"),
        bdtr.Stage("a2", actions=[0, 1], formula="x + a1 + s * a2 + (1 | clinic)"),
    ]
    trial = bdtr.Trial(
        stages, outcome="months", event="relapsed", horizon=24, family="weibull", site="clinic"
    )
    fit = bdtr.fit(
        trial, frame, sampler="direct", draws=250, propagated=500, random_seed=2, progress=False
    )
    return fit, truth


def test_months_without_relapse_over_two_stages(followed):
    """Values within the posterior of the truth and within the horizon; stage 1 is a share of the horizon."""
    fit, truth = followed
    assert fit.state.level == "ok", fit.state.reasons
    found = bdtr.value(fit, bdtr.static(a1=0, a2=0), bdtr.static(a1=1, a2=1))
    z = (found.table["mean"] - truth) / found.table["sd"]
    assert (np.abs(z) < 3).all()
    assert fit.family(0) == "quasibinomial" and fit.payoff(0).bounds == (0.0, 24.0)
    draws = bdtr.value(fit, bdtr.static(a1=1, a2=1), by="site").draws["value"]
    assert float(draws.min()) > 0 and float(draws.max()) < 24


def test_a_fit_of_times_is_saved_and_loaded(followed, tmp_path):
    fit, _ = followed
    fit.save(tmp_path / "fit.nc")
    again = bdtr.load(tmp_path / "fit.nc")
    assert again.trial == fit.trial
    rule = bdtr.static(a1=1, a2=1)
    one, two = (bdtr.value(f, rule).table["mean"] for f in (again, fit))
    assert np.allclose(one, two)
    checks = bdtr.checks.predictive_checks(fit)
    assert checks.table["p"].between(0.01, 0.99).all()


def test_scores_with_a_ceiling():
    """A quarter of scores at the ceiling: the mean score is right, where a straight line is not."""
    rng = np.random.default_rng(4)
    n = 800
    x, a = rng.normal(size=n), rng.integers(0, 2, n)
    free = 80 + 15 * x + 6 * a + 10 * rng.normal(size=n)
    data = pd.DataFrame({"x": x, "a": a, "y": np.minimum(free, 100.0)})
    trial = bdtr.Trial(
        [bdtr.Stage("a", actions=[0, 1], formula="x * a")], outcome="y", family="censored", ceiling=100
    )  # fmt: skip
    fit = bdtr.fit(trial, data, sampler="direct", draws=500, random_seed=1, progress=False)
    b = fit.posterior(0)["b"].mean(("chain", "draw"))
    assert float(b.sel(term="x")) == pytest.approx(15, abs=2.5)
    assert float(b.sel(term="a[1]")) == pytest.approx(6, abs=3)
    high = np.where(x > 1, "high", "other")
    found = bdtr.value(fit, bdtr.static(a=1), by=high).table
    truth = np.minimum(80 + 15 * x + 6 + 10 * rng.normal(size=(2000, n)), 100).mean(axis=0)
    right = pd.Series(truth).groupby(high).mean()
    own = found.xs("high", level="group")
    assert abs(float(own["mean"].iloc[0]) - right["high"]) < 3 * float(own["sd"].iloc[0])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({}, "times are censored"),
        ({"horizon": 4.0}, None),
        ({"horizon": 9.0}, "horizon=9 lies beyond the longest time in the data"),
        ({"survival_at": 9.0}, "survival_at=9 lies beyond"),
    ],
)
def test_beyond_the_follow_up(more, says):
    """A mean that rests on the tail of a distribution is doubted."""
    rng = np.random.default_rng(6)
    data = pd.DataFrame({"a": rng.integers(0, 2, 100), "y": rng.exponential(3, 100).clip(0.1, 5.0)})
    data["event"] = (data["y"] < 5) * 1
    stage = bdtr.Stage("a", actions=[0, 1], formula="a")
    trial = bdtr.Trial([stage], outcome="y", family="weibull", event="event", **more)
    doubts = check(trial, data).doubts
    assert doubts == () if says is None else says in doubts[0]


def test_new_sites_of_scores_with_a_ceiling():
    """Effects of sites in points are carried to a stage 1 on the logit scale by the slope between the two:
    the spread of new sites is that of the trial (it was four times as wide). Ends are whole numbers."""
    rng = np.random.default_rng(1)
    n, sites, ends = 1000, 40, (0, 80)
    site, x = np.arange(n) % sites, rng.normal(size=n)
    a1, a2 = rng.integers(0, 2, (2, n))
    u = rng.normal(0, 8, sites)
    mean = 60 + 5 * x + 3 * a1 + 4 * a2 + u[site]
    data = pd.DataFrame({"site": site, "x": x, "a1": a1, "a2": a2})
    data["y"] = np.clip(mean + 10 * rng.normal(size=n), *ends)
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="x + a1 + (1 | site)", site_means=False),
        bdtr.Stage("a2", actions=[0, 1], formula="x + a1 + a2 + (1 | site)", site_means=False),
    ]
    trial = bdtr.Trial(
        stages, outcome="y", site="site", family="censored", floor=ends[0], ceiling=ends[1]
    )
    fit = bdtr.fit(trial, data, sampler="direct", draws=1000, random_seed=1, progress=False)
    assert str(fit.state).startswith("state: ok"), fit.state
    table = bdtr.value(fit, bdtr.static(a1=0, a2=0), population="new site").table
    new = 60 + 5 * x[:, None] + rng.normal(0, 8, 4000)
    right = censored_mean(new, 10.0, ends).mean(axis=0)
    error = right.std() / np.sqrt(sites)
    assert abs(table["mean"].iloc[0] - right.mean()) < 3 * error
    # The SD of sites is known within 1 / sqrt(2 * 40), and new sites add that of the mean.
    assert 0.7 < table["sd"].iloc[0] / right.std() < 1.35
