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
