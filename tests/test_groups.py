"""Prior, predictive, log-prior and log-likelihood groups: those of the plain PyMC model of the stage."""

from __future__ import annotations

import arviz as az
import numpy as np
import pymc as pm
import pytest
import scipy.stats as st
import xarray as xr

from bdtr.stages.arviz_groups import GROUPS, GroupError, _log_lkj
from bdtr.stages.pymc_models import pymc_model


@pytest.fixture(scope="module")
def stage(clinic_fit):
    return clinic_fit.add_groups()


def test_all_groups_are_there_with_the_variables_of_the_posterior(stage):
    assert set(GROUPS) <= set(stage.children)
    posterior, prior = stage["posterior"].to_dataset(), stage["prior"].to_dataset()
    for name, values in posterior.data_vars.items():
        assert prior[name].dims == values.dims
        assert prior[name].shape[2:] == values.shape[2:]


def test_log_likelihood_is_that_of_the_plain_model(stage, clinic_fit):
    """Computed by PyMC at two of the draws, from centred coefficients and standardised effects."""
    model, response = clinic_fit.model(1), stage["observed_data"]["y"].to_numpy()
    plain = pymc_model(model, response)
    draws = stage["posterior"].to_dataset()
    logp = plain.compile_logp(vars=[plain["y"]], sum=False)
    design = clinic_fit.designs[1]
    for chain, draw in ((0, 3), (2, 77)):
        one = draws.isel(chain=chain, draw=draw)
        b = design.measure.back @ one["b"].to_numpy() - model.location * design.constant
        sigma = one["sigma"].to_numpy() / model.spread
        point = {"b_measured": b / model.spread, "sigma_measured_log__": np.log(sigma)}
        for g in design.groups:
            cor = one[f"cor_{g.name}"].to_numpy() if g.correlated else np.eye(len(g.terms))
            sd, back = one[f"sd_{g.name}"].to_numpy(), g.measure.back / model.spread
            total = back @ (cor * sd[:, None] * sd) @ back.T
            size = np.sqrt(np.diag(total))
            point[f"sd_measured_{g.name}_log__"] = np.log(size)
            root = np.linalg.cholesky(total)
            if g.correlated:
                value = plain.rvs_to_values[plain[f"chol_{g.name}"]]
                forward = plain.rvs_to_transforms[plain[f"chol_{g.name}"]].forward(
                    root / size[:, None]
                )
                point[value.name] = forward.eval()
            u = back @ one[f"u_{g.name}"].to_numpy().T
            point[f"z_{g.name}"] = np.linalg.solve(root, u).T
        (expected,) = logp(point)
        found = stage["log_likelihood"]["y"].isel(chain=chain, draw=draw).to_numpy()
        assert np.allclose(found, expected, atol=1e-7)


def test_pointwise_groups_work_in_arviz(stage):
    result = az.loo(stage)
    assert np.isfinite(result.elpd)
    assert stage["log_likelihood"]["y"].sizes["unit"] == stage["observed_data"]["y"].sizes["unit"]


def test_posterior_predictive_has_the_moments_of_the_payoff(stage):
    y = stage["observed_data"]["y"].to_numpy()
    drawn = stage["posterior_predictive"]["y"].to_numpy().reshape(-1, y.size)
    assert drawn.mean() == pytest.approx(y.mean(), abs=0.1)
    ranks = (drawn < y).mean(axis=0)
    assert st.kstest(ranks, "uniform").statistic < 0.08


def test_prior_draws_are_those_of_pymc(stage, clinic_fit):
    model = clinic_fit.model(1)
    with pymc_model(model, stage["observed_data"]["y"].to_numpy()):
        expected = pm.sample_prior_predictive(1000, random_seed=1)["prior"].to_dataset()
    found = stage["prior"].to_dataset()
    for name in ("sigma", "sd_clinic", "sd_group", "u_clinic", "b", "cor_clinic"):
        one, other = (d[name].to_numpy().reshape(1000, -1) for d in (found, expected))
        for i in range(min(one.shape[1], 8)):
            if np.ptp(one[:, i]) > 1e-6:
                assert st.ks_2samp(one[:, i], other[:, i]).pvalue > 1e-4, (name, i)


def test_log_prior_is_normalised(stage, clinic_fit):
    """Sums of the terms against scipy, and the LKJ density against its integral."""
    priors, posterior = clinic_fit.model(1).priors, stage["posterior"].to_dataset()
    found = stage["log_prior"].to_dataset()
    sigma = st.t(priors.sigma.nu, scale=priors.sigma.sigma)
    expected = sigma.logpdf(posterior["sigma"]) + np.log(2)
    assert np.allclose(found["sigma"], expected)
    one = posterior.isel(chain=1, draw=5)
    cov = one["cor_clinic"].to_numpy() * np.outer(one["sd_clinic"], one["sd_clinic"])
    u = one["u_clinic"].to_numpy()
    expected = st.multivariate_normal(np.zeros(len(cov)), cov).logpdf(u)
    assert np.allclose(found["u_clinic"].isel(chain=1, draw=5), expected, atol=1e-6)
    c = np.linspace(-1, 1, 20001)[1:-1]
    cor = np.stack([np.array([[1, r], [r, 1]]) for r in c])
    assert np.trapezoid(np.exp(_log_lkj(cor, 2.5)), c) == pytest.approx(1, abs=1e-6)
    # Three terms: the mean of density / density of uniform matrices over uniform cubes is the volume.
    rng = np.random.default_rng(0)
    r = rng.uniform(-1, 1, (400_000, 3))
    cor = np.ones((len(r), 3, 3))
    cor[:, [0, 0, 1], [1, 2, 2]] = cor[:, [1, 2, 2], [0, 0, 1]] = r
    valid = np.linalg.eigvalsh(cor)[:, 0] > 1e-9
    total = np.exp(_log_lkj(cor[valid], 1.5)).sum() * 8 / len(r)
    assert total == pytest.approx(1, abs=0.02)


def test_unknown_groups_are_refused(clinic_fit):
    with pytest.raises(GroupError, match="'waic' is not known; allowed are prior"):
        clinic_fit.add_groups("waic")


def test_pointwise_groups_are_not_saved_without_data(clinic_fit, stage, tmp_path):
    path = tmp_path / "x.nc"
    clinic_fit.save(str(path), data=False)
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        held = set(tree["stage_2"].children)
    assert "posterior" in held and not held & {
        "observed_data",
        "log_likelihood",
        "prior_predictive",
    }
