"""Payoffs that are functions of the outcome: their means, and trials that have one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats
from scipy.special import expit

import bdtr
from bdtr.data.check import check
from bdtr.data.contents import DataError
from bdtr.trial import protocol_from_text, protocol_to_text
from bdtr.trial.censoring import UNTIL, censored_mean, weibull_mean
from bdtr.trial.trial import TrialError
from bdtr.trial.worth import MeanWorth, WrittenWorth

RNG = np.random.default_rng(0)
SHAPE = np.abs(RNG.normal(0.8, 0.2, (2, 1, 20)))


def below(eta, c):
    """Mean of min(y, c) of a normal y."""
    u = (c - eta) / SHAPE
    return eta * stats.norm.cdf(u) - SHAPE * stats.norm.pdf(u) + c * stats.norm.sf(u)


def late(eta):
    """Mean of max(y - 3, 0) of a Poisson y."""
    mean = np.exp(eta)
    few = sum((3 - k) * stats.poisson.pmf(k, mean) for k in range(3))
    return mean - 3 + few


def share_above(eta, c):
    """Mean of max(y - c, 0) of a beta y."""
    size = 1 / SHAPE**2
    a, b = expit(eta) * size, expit(-eta) * size
    return a / (a + b) * stats.beta.sf(c, a + 1, b) - c * stats.beta.sf(c, a, b)


CASES = {
    ("gaussian", "min(y, 0.7)"): lambda eta: below(eta, 0.7),
    ("gaussian", "exp(y)"): lambda eta: np.exp(eta + SHAPE**2 / 2),
    ("lognormal", "y"): lambda eta: np.exp(eta + SHAPE**2 / 2),
    ("lognormal", "log(y)"): lambda eta: eta + 0 * SHAPE,
    ("weibull", "min(y, 2)"): lambda eta: weibull_mean(eta, SHAPE, (UNTIL, 2.0)),
    ("gamma", "y * y"): lambda eta: np.exp(2 * eta) * (1 + SHAPE**2),
    ("poisson", "max(y - 3, 0)"): late,
    ("negative_binomial", "y * y"): lambda eta: np.exp(eta) + (1 + SHAPE**2) * np.exp(2 * eta),
    ("beta", "y"): lambda eta: expit(eta) + 0 * SHAPE,
    ("beta", "max(y - 0.3, 0)"): lambda eta: share_above(eta, 0.3),
    ("censored", "2 * y"): lambda eta: 2 * censored_mean(eta, SHAPE, ENDS),
}
ENDS = (-0.5, 1.0)


@pytest.mark.parametrize(("family", "text"), CASES)
@pytest.mark.parametrize("units", [40, 700])
def test_mean_payoffs(family, text, units):
    """Closed forms; with many units from a grid. Kinks cost a thousandth of an SD."""
    eta = np.random.default_rng(1).normal(size=(2, units, 20))
    found = MeanWorth(family, WrittenWorth(text))(eta, SHAPE, ENDS)
    right = CASES[family, text](eta)
    assert np.allclose(found, right, rtol=2e-3, atol=1e-3)
    assert np.abs(found - right).mean() < 1e-3 * right.std()


@pytest.mark.parametrize("nu", [1.5, 4.0, 50.0])
def test_mean_payoffs_with_heavy_tails(nu):
    """Mean of min(y, c) by quadrature over the t distribution."""
    eta = np.array([[-1.0], [0.5]])
    shape = np.array([[[0.8]], [[nu]]])  # scale and degrees of freedom
    found = MeanWorth("student_t", WrittenWorth("min(y, 0.7)"))(eta, shape, ())
    for at, value in zip(eta[:, 0], found[:, 0], strict=True):
        right, _ = integrate.quad(
            lambda q, at=at: min(at + 0.8 * stats.t.ppf(q, nu), 0.7), 0, 1, limit=500
        )
        assert value == pytest.approx(right, abs=1e-3)


def test_units_side_by_side_and_one_by_one_agree():
    """The grid is that of the units at hand: a part of them has the same means but for the kink."""
    eta = np.random.default_rng(2).normal(size=(2, 900, 20))
    mean = MeanWorth("gamma", WrittenWorth("min(y, 1)"))
    assert np.allclose(mean(eta, SHAPE, ())[:, 50:90], mean(eta[:, 50:90], SHAPE, ()), atol=1e-3)


def frame(n=500, seed=3):
    rng = np.random.default_rng(seed)
    site, x, a = rng.integers(0, 10, n), rng.normal(size=n), rng.integers(0, 2, n)
    y = 0.5 * x + 0.4 * a + rng.normal(0, 0.3, 10)[site] + rng.normal(0, 1 + a, n)
    return pd.DataFrame({"x": x, "a": a, "site": site, "y": y})


def trial(utility, family="gaussian", **more):
    stage = bdtr.Stage("a", actions=[0, 1], formula="x * a + (1 | site)", site_means=False)
    return bdtr.Trial([stage], outcome="y", site="site", family=family, utility=utility, **more)


GIVEN = {"sampler": "direct", "draws": 500, "random_seed": 1, "progress": False}


def test_scores_that_do_not_count_beyond_a_limit():
    """Action 1 has the higher mean and the wider spread: beyond 1 nothing counts, and it is the worse one."""
    data = frame(4000)
    fit = bdtr.fit(trial("min(y, 1)"), data, **GIVEN)
    plain = bdtr.fit(trial(None), data, **GIVEN)
    both = [bdtr.static(a=0), bdtr.static(a=1)]
    table, other = bdtr.value(fit, *both).table, bdtr.value(plain, *both).table
    # The posterior is that of the Gaussian model; its mean payoff is another one.
    for name in ("b", "sigma"):
        one, two = fit.posterior(0)[name], plain.posterior(0)[name]
        sd = two.std(("chain", "draw"))
        assert (np.abs(one.mean(("chain", "draw")) - two.mean(("chain", "draw"))) < 0.15 * sd).all()
    seen = np.minimum(data["y"], 1).groupby(data["a"]).mean().to_numpy()
    assert np.allclose(table["mean"], seen, atol=0.05)
    assert other["mean"].iloc[1] > other["mean"].iloc[0]
    assert table["mean"].iloc[1] < table["mean"].iloc[0]
    assert np.array_equal(fit.data.payoff, np.minimum(data["y"], 1))


def test_a_text_and_a_function_are_the_same():
    data = frame()
    text = bdtr.fit(trial("min(y, 1)"), data, **GIVEN)
    function = bdtr.fit(trial(lambda y: np.minimum(y, 1)), data, **GIVEN)
    found = [bdtr.value(f, bdtr.static(a=1)).table["mean"].iloc[0] for f in (text, function)]
    assert found[0] == found[1]


def test_a_text_is_saved_and_a_function_is_not(tmp_path):
    data = frame()
    given = trial("min(y, 1)")
    assert protocol_from_text(protocol_to_text(given)).trial == given
    fit = bdtr.fit(given, data, **GIVEN)
    fit.save(tmp_path / "fit.nc")
    again = bdtr.load(tmp_path / "fit.nc")
    assert again.trial == given
    one, two = (bdtr.value(f, bdtr.static(a=1), bdtr.recommended()).table for f in (fit, again))
    pd.testing.assert_frame_equal(one, two)
    own = bdtr.fit(trial(np.tanh), data, **GIVEN)
    with pytest.raises(TrialError, match="cannot hold a function"):
        own.save(tmp_path / "own.nc")


def test_two_stages():
    """Days beyond three are bad: what stage 1 is worth goes by the utility of what follows."""
    rng = np.random.default_rng(5)
    n = 1500
    x = rng.normal(size=n)
    a1, a2 = rng.integers(0, 2, (2, n))
    days = rng.poisson(np.exp(0.8 + 0.3 * x - 0.4 * a1 - 0.3 * a2))
    data = pd.DataFrame({"x": x, "a1": a1, "a2": a2, "days": days})
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="x * a1"),
        bdtr.Stage("a2", actions=[0, 1], formula="x + a1 + a2"),
    ]
    given = bdtr.Trial(stages, outcome="days", family="poisson", utility="-max(days - 3, 0)")
    fit = bdtr.fit(given, data, **GIVEN)
    table = bdtr.value(fit, bdtr.static(a1=0, a2=0), bdtr.static(a1=1, a2=1)).table
    mean = np.exp(0.8 + 0.3 * x[:, None] - np.array([0.0, 0.7]))
    right = -late(np.log(mean)).mean(axis=0)
    assert (np.abs(table["mean"] - right) < 4 * table["sd"]).all()
    assert table["sd"].max() < 0.1
    # Nothing is better than no day beyond three, at stage 1 as well, and nothing is wrong with the fit.
    assert given.payoff.bounds == (-np.inf, 0.0) and fit.payoff(0).scale == "log"
    assert fit.q_function(0)(fit.data.frame).max() < 0.0
    assert str(fit.state).startswith("state: ok"), fit.state


def test_the_time_until_a_horizon_is_a_utility():
    """min(y, h) of censored times is what ``horizon=`` says: the same payoffs, the same values."""
    data = frame()
    rng = np.random.default_rng(6)
    time, stop = np.exp(data["y"]), rng.uniform(0.5, 4, len(data))
    data = data.assign(y=np.minimum(time, stop), event=(time <= stop) * 1)
    found = []
    for more in ({"utility": "min(y, 2)"}, {"utility": None, "horizon": 2.0}):
        fit = bdtr.fit(trial(family="lognormal", event="event", **more), data, **GIVEN)
        found.append((fit.data.payoff, bdtr.value(fit, bdtr.static(a=1)).table["mean"].iloc[0]))
        assert "censored" not in str(fit.state)
    assert np.allclose(found[0][0], found[1][0])
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-3)
    fit = bdtr.fit(trial("y", "lognormal", event="event"), data, **GIVEN)
    assert "tail of the lognormal" in str(fit.state)


def test_families_with_two_parameters_beside_the_mean():
    """A trial whose outcome has wild values: what counts, and its spread, to the end."""
    data = frame()
    rng = np.random.default_rng(7)
    data["y"] += rng.standard_t(2, len(data))
    fit = bdtr.fit(trial("min(y, 1)", "student_t"), data, **GIVEN)
    table = bdtr.value(fit, bdtr.static(a=0), bdtr.static(a=1)).table
    seen = np.minimum(data["y"], 1).groupby(data["a"]).mean().to_numpy()
    assert (np.abs(table["mean"] - seen) < 4 * table["sd"]).all()
    found = bdtr.decisions.sample_information(fit, "a", [10], simulations=200).table
    assert np.isfinite(found.to_numpy(float)).all()


@pytest.mark.parametrize(
    ("utility", "family", "says"),
    [
        ("min(y, 1)", "bernoulli", "functions of the outcome are for"),
        ("min(z, 1)", "gaussian", "names 'z'"),
        ("3", "gaussian", "names no column"),
        ("min(y", "gaussian", "parenthesis is not closed"),
        ("min(y)", "gaussian", "two numbers or more"),
        ("abs(y, 2)", "gaussian", "takes one number"),
        (5, "gaussian", "for family='ordinal'"),
    ],
)
def test_utilities_that_cannot_be(utility, family, says):
    with pytest.raises(TrialError, match=says):
        trial(utility, family)


def test_payoffs_that_are_no_numbers():
    with pytest.raises(DataError, match="no finite number"):
        check(trial("log(y)"), frame())
    with pytest.raises(DataError, match="a number for each"):
        check(trial(lambda y: 1.0), frame())
    with pytest.raises(TrialError, match="what the outcome itself is worth"):
        trial("min(y, 1)", "weibull", horizon=3.0)
