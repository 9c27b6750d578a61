"""Data at the edge of what a multilevel model can be fitted to: the answer is right or the error clear."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import bdtr
from bdtr.data.clusters import DesignWarning
from bdtr.data.contents import DataError
from bdtr.data.modelmatrix import DesignError
from bdtr.trial.priors import HalfNormal, Normal


def fit(frame, formula, **stage):
    own = {"site_means": False, **stage}
    trial = bdtr.Trial(
        [bdtr.Stage("a", actions=[0, 1], formula=formula, **own)], outcome="y", site="site"
    )
    return bdtr.fit(trial, frame, sampler="direct", draws=500, random_seed=2, progress=False)


def rows(sites, per, seed=1, effect=0.4):
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(sites), per)
    a, x = rng.integers(0, 2, site.size), rng.normal(size=site.size)
    y = 1 + effect * a + 0.5 * x + 0.5 * rng.normal(size=sites)[site] + rng.normal(size=site.size)
    return pd.DataFrame({"site": [f"s{i}" for i in site], "a": a, "x": x, "y": y})


def mean_sd(fitted, term):
    b = fitted.posterior(0)["b"].sel(term=term)
    return float(b.mean()), float(b.std())


def least_squares(x, y):
    b = np.linalg.solve(x.T @ x, x.T @ y)
    rest = y - x @ b
    variance = rest @ rest / (len(y) - len(b)) * np.linalg.inv(x.T @ x)
    return b, np.sqrt(np.diag(variance))


def contrast_of_least_squares(fitted, frame):
    """The blip is that of least squares; all coefficients and their standard errors."""
    x = np.c_[np.ones(len(frame)), frame[["x", "a"]]]
    b, se = least_squares(x, frame["y"].to_numpy())
    mean, sd = mean_sd(fitted, "a[1]")
    assert mean == pytest.approx(b[2], abs=0.15 * se[2])
    assert sd == pytest.approx(se[2], rel=0.1)
    return b, se


def test_a_single_site():
    """Its effect cannot be told from the intercept; the contrast is that of least squares."""
    frame = rows(1, 80)
    fitted = fit(frame, "x + a + (1 | site)")
    _, se = contrast_of_least_squares(fitted, frame)
    # The intercept is no longer known: the site's effect may be anything that its prior allows.
    assert mean_sd(fitted, "Intercept")[1] > 2 * se[0]


def test_sites_with_one_unit():
    """Their SD is known only together with that of units: an error that says so."""
    with pytest.raises(DataError, match="one row each.*cannot be told apart from the residuals"):
        fit(rows(120, 1), "x + a + (1 | site)")


def test_an_action_that_a_site_never_took():
    """Such a site's blip comes from the others: its posterior is the population's."""
    frame = rows(20, 12)
    blip = np.random.default_rng(7).normal(0, 0.8, 20)
    frame["y"] += blip[frame["site"].str[1:].astype(int)] * frame["a"]
    untreated = frame["site"] == "s3"
    frame.loc[untreated, "y"] -= (0.4 + blip[3]) * frame["a"]
    frame.loc[untreated, "a"] = 0
    draws = fit(frame, "x + a + (1 + a | site)").posterior(0)
    u = draws["u_site"].sel(site_term="a[1]")
    sd = draws["sd_site"].sel(site_term="a[1]")
    # Correlated with its intercept, so a little narrower than the population.
    width = float(u.sel(site="s3").std()) / float(np.sqrt((sd**2).mean()))
    assert 0.75 < width <= 1.1
    others = [float(u.sel(site=s).std()) for s in u["site"].to_numpy() if s != "s3"]
    assert float(u.sel(site="s3").std()) > np.quantile(others, 0.9)  # one site has one treated unit


def test_a_site_effect_that_is_not_there():
    frame = rows(30, 10)
    frame["y"] -= frame.groupby("site")["y"].transform("mean")
    sd = fit(frame, "x + a + (1 | site)").posterior(0)["sd_site"]
    assert float(sd.median()) < 0.12
    assert float((sd < 0.02).mean()) > 0.05  # the mass reaches zero


def test_weights_are_numbers_of_units():
    """Units that are means of others have the posterior of these others' coefficients."""
    rng = np.random.default_rng(5)
    counts = rng.integers(1, 6, 150)
    a = rng.integers(0, 2, 150)
    each = [0.4 * a[i] + rng.normal(size=counts[i]) for i in range(150)]
    priors = {"Intercept": Normal(0, 5), "a[1]": Normal(0, 5), "sigma": HalfNormal(2)}
    site = {"site": "s0"}
    means = pd.DataFrame({"a": a, "y": [e.mean() for e in each], "n": counts, **site})
    long = pd.DataFrame({"a": np.repeat(a, counts), "y": np.concatenate(each), **site})
    weighted = fit(means, "a", weights="n", priors=priors)
    whole = fit(long, "a", priors=priors)
    for term in ("Intercept", "a[1]"):
        mean, sd = mean_sd(weighted, term)
        expected, width = mean_sd(whole, term)
        assert mean == pytest.approx(expected, abs=0.15 * width)
        assert sd == pytest.approx(width, rel=0.25)  # sigma is estimated from other residuals
    # Against weighted least squares exactly.
    x, w = np.c_[np.ones(150), a], np.sqrt(counts)
    b, se = least_squares(x * w[:, None], means["y"].to_numpy() * w)
    assert mean_sd(weighted, "a[1]")[0] == pytest.approx(b[1], abs=0.1 * se[1])
    assert mean_sd(weighted, "a[1]")[1] == pytest.approx(se[1], rel=0.07)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.inf])
def test_weights_must_be_positive(bad):
    frame = rows(5, 10).assign(n=1.0)
    frame.loc[3, "n"] = bad
    with pytest.raises(bdtr.DataError, match="weights|infinite"):
        fit(frame, "x + a", weights="n")


def test_weights_of_a_yes_no_payoff_are_an_error():
    stage = bdtr.Stage("a", actions=[0, 1], formula="a", weights="n")
    with pytest.raises(bdtr.TrialError, match="precisions of a Gaussian payoff"):
        bdtr.Trial([stage], outcome="y", family="bernoulli")


def test_columns_that_are_the_same_are_an_error():
    frame = rows(10, 10)
    frame["twice"] = 2 * frame["x"] + 1
    with pytest.raises(DesignError, match="twice"):
        fit(frame, "x + twice + a + (1 | site)")


def test_a_random_coefficient_that_never_varies_within_its_site():
    """A site-level column as a random slope: confounded with the intercept, right in sum."""
    frame = rows(25, 10)
    frame["rural"] = frame["site"].str[1:].astype(int) % 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DesignWarning)
        fitted = fit(frame, "x + a + rural + (1 + rural || site)")
    b, se = least_squares(np.c_[np.ones(250), frame[["x", "a"]]], frame["y"].to_numpy())
    assert mean_sd(fitted, "a[1]")[0] == pytest.approx(b[2], abs=0.6 * se[2])
    assert np.isfinite(fitted.posterior(0)["u_site"].to_numpy()).all()


def test_a_group_with_one_row_for_each_level():
    """Its SD and the residual SD enter the likelihood as a sum of variances alone."""
    frame = rows(10, 10)
    frame["id"] = [f"p{i}" for i in range(100)]
    with pytest.raises(
        DataError, match="'id' has as many levels as there are units.*the residuals"
    ):
        fit(frame, "x + a + (1 | id)")
