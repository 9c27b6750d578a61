"""Fits to part of the rows, SDs and correlations kept: closed forms, and agreement with whole fits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulate import TwoStage

import bdtr
from bdtr.backward.passes import backward_passes
from bdtr.backward.policies import named_policy
from bdtr.checks.leaveout import passes_without
from bdtr.stages.posterior import group_covariances, phi_of


@pytest.fixture(scope="module")
def fit():
    return bdtr.fit(
        TwoStage.trial(),
        TwoStage(sites=40, per_site=25).draw(4),
        sampler="direct",
        draws=250,
        propagated=1000,
        random_seed=2,
        progress=False,
    )


@pytest.fixture(scope="module")
def regimes(fit):
    chosen = [bdtr.static(a1=1, a2=1), bdtr.static(a1=0, a2=1)]
    return [named_policy(regime, fit.data) for regime in chosen]


def test_phi_is_that_of_the_labelled_posterior(fit):
    model, posterior = fit.model(1), fit.posterior(1)
    covariance = group_covariances(model, phi_of(model, posterior))[0]
    sd = posterior["sd_site"].to_numpy().reshape(-1, 3)
    cor = posterior["cor_site"].to_numpy().reshape(-1, 3, 3)
    assert covariance == pytest.approx(cor * sd[:, :, None] * sd[:, None, :], abs=1e-8)


def test_with_all_rows_it_is_the_posterior_mean(fit, regimes):
    units = np.arange(len(fit.data))
    means = passes_without(fit, np.ones(len(units), dtype=bool), regimes)
    for mean, whole in zip(means, backward_passes(fit, regimes), strict=True):
        for k in (0, 1):
            draws = whole.continuation(k, units)
            # SE of a mean of 1,000 draws; 32 draws of phi move the shrinkage of a site a little.
            error = draws.std(axis=1) / np.sqrt(1000)
            away = mean.continuation(k, units).mean(axis=1) - draws.mean(axis=1)
            assert np.abs(away).max() < (6 * error + 0.02).max()
            assert abs(away.mean()) < 4 * draws.mean(axis=0).std() / np.sqrt(1000) + 0.003


def test_a_part_by_hand():
    """One stage, no groups: (X'X / s^2 + P)^{-1} (X'y / s^2 + P m) of the rows that are left, for each s."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"x": rng.normal(size=80), "a": rng.integers(0, 2, 80)})
    frame["y"] = frame["x"] + frame["a"] + rng.normal(size=80)
    trial = bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula="x * a")], outcome="y")
    fit = bdtr.fit(
        trial, frame, sampler="direct", draws=50, propagated=200, random_seed=1, progress=False
    )
    keep = np.arange(80) % 4 != 0
    done = passes_without(fit, keep, [named_policy(bdtr.static(a=1), fit.data)])[0]
    model = fit.model(0)
    x = model.rows.x[keep]
    scale = model.design.measure.scale  # columns are divided by it
    prior = np.diag(
        [1 / (c.sigma * s) ** 2 for c, s in zip(model.priors.coefficients, scale, strict=True)]
    )
    mean = np.array([c.mu * s for c, s in zip(model.priors.coefficients, scale, strict=True)])
    pick = np.linspace(0, 199, 64).astype(int)
    arm = fit.data.stages[0].action[keep]
    sigma = fit.posterior(0)["sigma"].to_numpy().reshape(200, 2)[pick]
    treated = fit.designs[0].common(frame.assign(a=fit.data.frame["a"]).assign(a=_one(fit)), None)
    y = frame["y"].to_numpy()[keep]
    for s, found in zip(sigma, done.continuation(0, np.arange(80)).T, strict=True):
        w = 1 / s[arm] ** 2
        b = np.linalg.solve((x.T * w) @ x + prior, x.T @ (w * y) + prior @ mean)
        assert found == pytest.approx(treated @ b, abs=1e-9)


def _one(fit):
    column = fit.data.frame["a"].copy()
    column[:] = column.cat.categories[1]
    return column


def test_sites_that_are_left_out_say_nothing(fit, regimes):
    """Left out, a site has no effect, and what the others say does not depend on its data."""
    site = fit.designs[0].site_codes(fit.data.frame)
    keep = site != 0
    done = passes_without(fit, keep, regimes)[0]
    changed = bdtr.fit(
        TwoStage.trial(),
        fit.data.frame.assign(y=np.where(keep, fit.data.outcome, 50.0)),
        sampler="direct",
        draws=250,
        propagated=1000,
        random_seed=2,
        progress=False,
    )
    changed.tree, changed.models = fit.tree, fit.models
    other = passes_without(changed, keep, regimes)[0]
    units = np.flatnonzero(keep)
    assert other.continuation(0, units) == pytest.approx(done.continuation(0, units), abs=1e-9)


def remission(family, more, n=600):
    """Two stages in 20 clinics: yes or no, or days without."""
    rng = np.random.default_rng(9)
    clinic = np.repeat(np.arange(20), n // 20)
    x, a1, a2 = rng.normal(size=n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    s = 0.5 * x + 0.4 * a1 + rng.normal(size=n)
    eta = -0.4 + 0.5 * x + 0.4 * s + a2 * (0.2 + 0.3 * s) + 0.5 * rng.normal(size=20)[clinic]
    frame = pd.DataFrame(
        {"clinic": [f"c{j:02d}" for j in clinic], "x": x, "a1": a1, "s": s, "a2": a2}
    )
    if family == "bernoulli":
        frame["y"] = (rng.random(n) < 1 / (1 + np.exp(-eta))) * 1
    else:
        frame["y"] = np.exp(eta) * rng.exponential(size=n)
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="x * a1 + (1 + a1 | clinic)"),
        bdtr.Stage("a2", actions=[0, 1], formula="x + a1 + s * a2 + (1 + a2 | clinic)"),
    ]
    trial = bdtr.Trial(stages, outcome="y", site="clinic", family=family, **more)
    return trial, frame


@pytest.mark.parametrize(
    ("family", "more"), [("bernoulli", {}), ("weibull", {"horizon": 2.0}), ("gamma", {})]
)
def test_other_outcomes_than_gaussian(family, more):
    """With all rows near the posterior mean; without a fifth of the clinics it moves as a refit does."""
    trial, frame = remission(family, more)
    given = {
        "sampler": "direct",
        "draws": 500,
        "propagated": 1000,
        "random_seed": 2,
        "progress": False,
    }
    fit = bdtr.fit(trial, frame, **given)
    regimes = [named_policy(bdtr.static(a1=a, a2=a), fit.data) for a in (0, 1)]
    keep = (frame["clinic"] > "c03").to_numpy()
    part = bdtr.fit(trial, frame[keep].reset_index(drop=True), **given)
    own = [named_policy(bdtr.static(a1=a, a2=a), part.data) for a in (0, 1)]
    wholes, parts = backward_passes(fit, regimes), backward_passes(part, own)
    means = passes_without(fit, np.ones(len(frame), dtype=bool), regimes)
    less = passes_without(fit, keep, regimes)
    units, mine = np.flatnonzero(keep), np.arange(int(keep.sum()))
    for whole, refit, mean, left in zip(wholes, parts, means, less, strict=True):
        draws = whole.continuation(0, units).mean(axis=0)
        # A mean of exponentials is above the exponential of the mode: what counts is how it moves.
        assert abs(mean.continuation(0, units).mean() - draws.mean()) < 0.5 * draws.std()
        moved = left.continuation(0, units).mean() - mean.continuation(0, units).mean()
        right = refit.continuation(0, mine).mean() - draws.mean()
        assert moved == pytest.approx(right, abs=0.25 * draws.std())


def test_phi_of_the_engine_is_found_in_the_labelled_posterior():
    """Taken from a posterior and labelled again it gives the same covariances, dispersions and thresholds."""
    from bdtr.stages.laplace import laplace_phi, phi_as_labelled

    trial, frame = remission("gamma", {})
    fit = bdtr.fit(trial, frame, sampler="direct", draws=100, random_seed=2, progress=False)
    model, posterior = fit.model(1), fit.posterior(1)
    full = phi_as_labelled(model, laplace_phi(model, posterior))
    covariance = group_covariances(model, full)[0]
    sd = posterior["sd_clinic"].to_numpy().reshape(-1, covariance.shape[1])
    assert np.allclose(np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)), sd, rtol=1e-6)
    sigma = posterior["sigma"].to_numpy().reshape(len(full), -1)
    assert np.allclose(np.exp(full[:, 0]), sigma[:, 0])
    assert np.allclose(np.exp(full[:, 0] + full[:, -1]), sigma[:, 1])
