"""The table of outcome families: likelihoods, means, draws, and what a trial says of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit

import bdtr
from bdtr.data.check import check
from bdtr.data.contents import DataError
from bdtr.trial.families import FAMILIES
from bdtr.trial.payoff import Payoff
from bdtr.trial.protocol import protocol_from_text, protocol_to_text
from bdtr.trial.trial import TrialError

ETA = np.array([[-1.2, 0.3], [0.4, 0.1], [0.9, -0.5]])
SIGMA = np.array([0.7, 1.3])
NU = np.array([3.0, 8.0])
THRESHOLD = np.array([[0.8, 1.1], [1.5, 2.4]])
M = np.array([[4.0], [1.0], [9.0]])
Y = {
    "gaussian": [[0.3], [-1.0], [2.0]],
    "student_t": [[0.3], [-1.0], [12.0]],
    "bernoulli": [[0.0], [1.0], [1.0]],
    "binomial": [[1.0], [0.0], [9.0]],
    "beta_binomial": [[1.0], [0.0], [9.0]],
    "beta": [[0.1], [0.5], [0.9]],
    "poisson": [[0.0], [2.0], [7.0]],
    "negative_binomial": [[0.0], [2.0], [7.0]],
    "gamma": [[0.2], [1.7], [3.0]],
    "ordinal": [[0.0], [2.0], [3.0]],
    "lognormal": [[0.2], [1.7], [3.0]],
    "weibull": [[0.2], [1.7], [3.0]],
    "censored": [[-1.0], [0.4], [1.5]],
}
SCORES = {"ordinal": (0.0, 0.2, 0.7, 1.0), "censored": (-1.0, 1.5)}
EVENT, ENDS = np.array([[1.0], [0.0], [1.0]]), np.array([[-1.0], [0.0], [1.0]])
COMPANION = {"lognormal": EVENT, "weibull": EVENT, "censored": ENDS}


def payoff_of(family):
    scores = SCORES.get(family, ())
    return Payoff(FAMILIES[family], scores, (scores[0], scores[-1]) if scores else None)


def shape_of(family):
    known = {"sigma": SIGMA, "sigma, nu": (SIGMA, NU), "threshold": THRESHOLD, "": None}
    return known[FAMILIES[family].shape]


def changed(shape, by):
    """A shape each of whose parts is changed."""
    return (
        None if shape is None else tuple(map(by, shape)) if isinstance(shape, tuple) else by(shape)
    )


def by_scipy(family):
    """Log likelihoods by scipy's distributions."""
    y, mean = np.array(Y[family]), np.exp(ETA)
    size, m = 1 / SIGMA**2, COMPANION.get(family, M)

    def halves(dist, tail):
        return np.where(m == 1, dist.logpdf(y), tail)

    times = {
        "lognormal": stats.lognorm(SIGMA, scale=mean),
        "weibull": stats.weibull_min(1 / SIGMA, scale=mean),
    }
    if family in times:
        return halves(times[family], times[family].logsf(y))
    if family == "censored":
        normal = stats.norm(ETA, SIGMA)
        return np.where(
            m == 0, normal.logpdf(y), np.where(m > 0, normal.logsf(y), normal.logcdf(y))
        )
    if family == "ordinal":
        ends = [np.ones_like(ETA), expit(ETA), *(expit(ETA - t) for t in THRESHOLD), 0 * ETA]
        j = y.astype(int)[:, 0]
        rows = np.arange(3)
        return np.log(np.array(ends)[j, rows] - np.array(ends)[j + 1, rows])
    return {
        "gaussian": lambda: stats.norm.logpdf(y, ETA, SIGMA),
        "student_t": lambda: stats.t.logpdf(y, NU, ETA, SIGMA),
        "bernoulli": lambda: stats.bernoulli.logpmf(y, expit(ETA)),
        "binomial": lambda: stats.binom.logpmf(y, M, expit(ETA)),
        "beta_binomial": lambda: stats.betabinom.logpmf(
            y, M, expit(ETA) * size, expit(-ETA) * size
        ),
        "beta": lambda: stats.beta.logpdf(y, expit(ETA) * size, expit(-ETA) * size),
        "poisson": lambda: stats.poisson.logpmf(y, M * mean),
        "negative_binomial": lambda: stats.nbinom.logpmf(y, size, size / (size + M * mean)),
        "gamma": lambda: stats.gamma.logpdf(y, size, scale=mean / size),
    }[family]()


@pytest.mark.parametrize("family", FAMILIES)
def test_log_likelihood(family):
    """Those of scipy's distributions."""
    m = COMPANION.get(family, M)
    found = FAMILIES[family].log_likelihood(np.array(Y[family]), m, ETA, shape_of(family))
    assert np.allclose(found, by_scipy(family), rtol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_pymc_has_the_same_likelihood(family):
    """The oracle's model of each family: its log density at one draw."""
    import pymc as pm

    shape = shape_of(family)
    one = changed(shape, lambda part: np.ascontiguousarray(part[..., 0]))
    with pm.Model(coords={"row": range(3)}) as model:
        observed = np.array(Y[family])[:, 0]
        observed = observed.astype(int) if family == "ordinal" else observed
        eta = np.ascontiguousarray(ETA[:, 0])
        m = COMPANION.get(family, M)[:, 0]
        FAMILIES[family].likelihood(pm, "y", eta, one, observed, m, "row")
    found = model.compile_logp(sum=False)({})[0]
    assert np.allclose(found, by_scipy(family)[:, 0], rtol=1e-8)


@pytest.mark.parametrize("family", FAMILIES)
def test_mean_is_that_of_draws(family):
    """Of 200,000 draws, within four Monte-Carlo standard errors."""
    payoff = payoff_of(family)
    count = 200_000
    shape = shape_of(family)
    wide = changed(shape, lambda part: np.repeat(part, count, axis=-1))
    drawn = payoff.draw(np.random.default_rng(1), np.repeat(ETA, count, axis=1), wide, M)
    drawn = drawn.reshape(3, 2, count)
    error = drawn.std(axis=2) / np.sqrt(count)
    assert (np.abs(drawn.mean(axis=2) - payoff.mean(ETA, shape)) < 4 * error).all()
    if payoff.bounds is not None:
        low, high = payoff.bounds
        assert (drawn >= low).all() and (drawn <= high).all()


def frame(**columns):
    """Eight units with an outcome."""
    base = {"x": np.arange(8.0), "a": [0, 1] * 4, "y": [0, 1, 2, 1, 0, 2, 1, 2]}
    return pd.DataFrame({**base, **columns})


def trial(family, **more):
    stage = bdtr.Stage("a", actions=[0, 1], formula="x + a")
    return bdtr.Trial([stage], outcome="y", family=family, **more)


@pytest.mark.parametrize(
    ("family", "more", "says"),
    [
        ("gaussian", {"trials": "m"}, "belongs to family='binomial' or 'beta_binomial'"),
        ("bernoulli", {"exposure": "m"}, "belongs to family='poisson' or 'negative_binomial'"),
        ("binomial", {}, "name the column with the number of trials"),
        ("beta_binomial", {}, "name the column with the number of trials"),
        ("poisson", {"utility": {"a": 1, "b": 2}}, "is for family='ordinal'"),
        ("ordinal", {"utility": {"a": 1}}, "must map each category"),
        ("ordinal", {"utility": {"a": 1, "b": "c"}}, "give a number"),
        ("ordinal", {"utility": {"a": 1, "b": float("nan")}}, "give a number"),
        ("ordinal", {"utility": {"a": 1, "b": 1.0}}, "not all be worth the same"),
        ("ordinal", {"utility": {1: 0, "1": 1}}, "must differ"),
        ("binomial", {"trials": "y"}, "a column has one role"),
        ("gamma", {"event": "m"}, "belongs to family='lognormal' or 'weibull'"),
        ("gaussian", {"horizon": 3}, "belongs to family='lognormal' or 'weibull'"),
        ("weibull", {"horizon": 0}, "give a time above 0"),
        ("weibull", {"survival_at": "12"}, "give a time above 0"),
        ("weibull", {"survival_at": 12, "horizon": 3}, "one of the two"),
        ("weibull", {"floor": 1}, "belongs to family='censored'"),
        ("censored", {}, "lowest score, floor"),
        ("censored", {"floor": 2, "ceiling": 1}, "must be the lower one"),
        ("censored", {"floor": float("nan")}, "give a number"),
    ],
)
def test_trials_that_contradict_themselves(family, more, says):
    with pytest.raises(TrialError, match=says):
        trial(family, **more)


@pytest.mark.parametrize(
    ("family", "more", "columns", "says"),
    [
        ("binomial", {"trials": "m"}, {"m": [1] * 8}, r"2 of 1 in the first"),
        ("binomial", {"trials": "m"}, {"m": [0] + [3] * 7}, "whole numbers from 1 on"),
        ("binomial", {"trials": "m"}, {"m": [2.5] + [3] * 7}, "whole numbers from 1 on"),
        ("binomial", {"trials": "m"}, {"m": [np.nan] + [3] * 7}, "'m' is missing in"),
        ("binomial", {"trials": "m"}, {"m": [3] * 8, "y": [0.5] + [1] * 7}, "number of trials"),
        ("poisson", {}, {"y": [-1] + [2] * 7}, "whole numbers from 0 on"),
        ("negative_binomial", {}, {"y": [1.5] + [2] * 7}, "whole numbers from 0 on"),
        ("poisson", {"exposure": "m"}, {"m": [0.0] + [2] * 7}, "exposures are above 0"),
        ("poisson", {"exposure": "m"}, {"m": [-1.0] + [2] * 7}, "exposures are above 0"),
        ("gamma", {}, {}, "numbers above 0"),
        ("ordinal", {}, {"y": list("abcabcab")}, "say what each category is worth"),
        ("ordinal", {"utility": {"a": 0, "b": 1}}, {"y": list("abcabcab")}, "known are 'a', 'b'"),
        ("ordinal", {}, {"y": [1.0] * 8}, "does not vary"),
        ("ordinal", {}, {"y": [None] * 8}, "does not vary|no value|missing"),
        (
            "ordinal",
            {},
            {"y": list(range(40)), "x": 1.0 * np.arange(40), "a": [0, 1] * 20},
            "40 distinct",
        ),
        ("bernoulli", {}, {}, "takes 0 and 1"),
        ("weibull", {}, {}, "numbers above 0"),
        (
            "weibull",
            {"event": "m"},
            {"y": [1.0] * 7 + [2], "m": [2] + [1] * 7},
            "an event is 1 where",
        ),
        (
            "weibull",
            {"event": "m"},
            {"y": [1.0] * 7 + [2], "m": [np.nan] + [1] * 7},
            "'m' is missing",
        ),
        ("lognormal", {"event": "m"}, {"y": [1.0] * 7 + [2], "m": [0] * 8}, "has no event"),
        ("lognormal", {"event": "m"}, {"y": [1.0] * 7 + [2], "m": ["yes"] * 8}, "'m'"),
        ("beta", {}, {"y": [0.0, 0.5] * 4}, "between 0 and 1"),
        ("beta_binomial", {"trials": "m"}, {"m": [1] * 8}, r"2 of 1 in the first"),
        ("censored", {"floor": 1}, {}, "outside floor and ceiling"),
        ("censored", {"ceiling": 1.5}, {}, "outside floor and ceiling"),
        ("censored", {"floor": 0, "ceiling": 1}, {"y": [0, 1] * 4}, "no score between"),
    ],
)
def test_outcomes_that_cannot_be(family, more, columns, says):
    data = pd.DataFrame(
        {**(frame().to_dict("list") if len(columns.get("x", [])) == 0 else {}), **columns}
    )
    with pytest.raises((DataError, TrialError), match=says):
        check(trial(family, **more), data)


def test_payoffs():
    """Shares, rates and scores; missing outcomes stay missing."""
    shares = check(trial("binomial", trials="m"), frame(m=[4] * 8))
    assert np.array_equal(shares.payoff, frame()["y"] / 4)
    rates = check(trial("poisson", exposure="m"), frame(m=[0.5] * 8))
    assert np.array_equal(rates.payoff, frame()["y"] / 0.5)
    labels = np.array(["none", "some", "full"])[frame()["y"]]
    worth = {"none": 0, "some": 0.25, "full": 1}
    scores = check(trial("ordinal", utility=worth), frame(y=labels))
    assert np.array_equal(scores.payoff, np.array([0, 0.25, 1])[frame()["y"]])
    assert np.array_equal(scores.recorded, frame()["y"])
    numbers = check(trial("ordinal"), frame(y=2.5 * frame()["y"]))
    assert numbers.trial.utility == {"0": 0.0, "2.5": 2.5, "5": 5.0}
    gap = check(trial("ordinal"), frame(y=[np.nan, *frame()["y"][1:]]), missing="exclude")
    assert np.isnan(gap.outcome[0]) and len(gap.payoff) == 7


def test_a_trial_of_each_family_is_written_and_read():
    """To dictionaries and TOML and back."""
    for family, more in (
        ("binomial", {"trials": "m"}),
        ("negative_binomial", {"exposure": "t"}),
        ("ordinal", {"utility": {"low": 0, "high": 1.5}}),
    ):
        made = trial(family, **more)
        assert bdtr.Trial.from_dict(made.to_dict()) == made


def test_the_order_of_categories_survives_a_file():
    worth = {"none": 0, "some of it": 0.25, "all": 1, "more": 0.9}
    text = protocol_to_text(trial("ordinal", utility=worth))
    assert list(protocol_from_text(text).trial.utility or {}) == list(worth)


def test_a_fit_of_counts_is_saved_and_loaded(tmp_path):
    """Values, groups and a report's words of a negative binomial outcome in clinics."""
    rng = np.random.default_rng(4)
    clinic, a = rng.integers(0, 8, 200), rng.integers(0, 2, 200)
    months = rng.integers(1, 5, 200)
    mean = months * np.exp(0.3 - 0.4 * a + rng.normal(0, 0.4, 8)[clinic])
    data = pd.DataFrame({"a": a, "clinic": clinic.astype(str), "months": months})
    data["y"] = rng.poisson(mean * rng.gamma(2, 0.5, 200))
    stage = bdtr.Stage("a", actions=[0, 1], formula="a + (1 | clinic)", site_means=False)
    made = bdtr.Trial(
        [stage], outcome="y", site="clinic", family="negative_binomial", exposure="months",
        higher_is_better=False,
    )  # fmt: skip
    fit = bdtr.fit(made, data, sampler="direct", draws=250, random_seed=1, progress=False)
    assert fit.state.level == "ok", fit.state.reasons
    rules = bdtr.static(a=0), bdtr.static(a=1)
    found = bdtr.value(fit, *rules).table["mean"]
    assert np.allclose(found, np.exp([0.3, -0.1]), rtol=0.35) and found.iloc[0] > found.iloc[1]
    fit.save(tmp_path / "fit.nc")
    again = bdtr.load(tmp_path / "fit.nc")
    assert again.trial == fit.trial
    assert np.array_equal(bdtr.value(again, *rules).table["mean"], found)
    node = fit.add_groups()
    logs = node["log_likelihood"].to_dataset()["y"]
    replicated = node["posterior_predictive"].to_dataset()["y"]
    assert np.isfinite(logs).all() and float(replicated.min()) >= 0
    assert float(replicated.mean()) == pytest.approx((data["y"] / months).mean(), rel=0.1)
    checks = bdtr.checks.predictive_checks(fit)
    assert not checks.table.empty


@pytest.mark.parametrize("family", FAMILIES)
def test_means_are_taken_back_to_the_linear_predictor(family):
    """The inverse of the mean where that depends on nothing else; else in its order; finite at the bounds."""
    payoff = payoff_of(family)
    mean = payoff.mean(ETA, shape_of(family))
    back = payoff.linear(mean)
    if family == "ordinal" or FAMILIES[family].mean_takes_sigma:
        assert (np.argsort(back, axis=None) == np.argsort(mean, axis=None)).all()
    else:
        assert np.allclose(back, ETA)
    assert np.isfinite(payoff.linear(np.array([0.0, 1.0]))).all()


@pytest.mark.parametrize("sampler", ["direct", "plain"])
def test_two_categories_are_a_yes_no_outcome(sampler):
    """No threshold is left to estimate: means are those of the Bernoulli model, times the worth."""
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"x": rng.normal(size=300), "a": rng.integers(0, 2, 300)})
    data["y"] = (rng.random(300) < expit(-0.3 + 0.5 * data["x"] + 0.6 * data["a"])).astype(int)
    given = {"sampler": sampler, "draws": 500, "random_seed": 1, "progress": False}
    plain = bdtr.fit(trial("bernoulli"), data, **given)
    labels = data.assign(y=np.array(["no", "yes"])[data["y"]])
    two = bdtr.fit(trial("ordinal", utility={"no": 0, "yes": 10}), labels, **given)
    rules = bdtr.static(a=0), bdtr.static(a=1)
    means, right = (bdtr.value(f, *rules).table["mean"] for f in (two, plain))
    assert np.allclose(means, 10 * right, rtol=0.01 if sampler == "plain" else 1e-9)
    logs = (f.add_groups("log_likelihood")["log_likelihood"]["y"] for f in (two, plain))
    assert np.allclose(*(one.mean(("chain", "draw")) for one in logs), atol=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_draws_where_priors_put_means_that_no_data_have(family):
    """No error, and no number that is none."""
    payoff = payoff_of(family)
    eta = np.array([[-800.0, -50.0], [50.0, 90.0], [800.0, 2000.0]])
    with np.errstate(over="ignore"):
        drawn = payoff.draw(np.random.default_rng(1), eta, shape_of(family), M)
    assert drawn.shape == eta.shape and not np.isnan(drawn).any()
