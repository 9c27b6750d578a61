"""Simulation-based calibration of NUTS on the marginal density."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.stats as st
import xarray as xr

import bdtr
from bdtr.stages.refits import Refits, refits
from bdtr.trial.priors import HalfNormal, Normal

SIMULATIONS, RANKED, THIN = 400, 39, 5


def test_ranks_of_the_truth_are_uniform():
    """Truths drawn from the prior rank uniformly among posterior draws (Talts et al. 2018).

    The log-likelihood is ranked too: it notices draws that ignore part of the data (Modrak et al. 2023).
    """
    rng = np.random.default_rng(4)
    site = np.repeat(np.arange(8), 10)
    frame = pd.DataFrame({"site": [f"s{i}" for i in site], "x": rng.normal(size=80)})
    frame["a"] = rng.integers(0, 2, 80)
    frame["now"] = [f"c{2 * s + a}" for s, a in zip(site, frame["a"], strict=True)]
    sd = HalfNormal(0.7)
    stage = bdtr.Stage(
        "a",
        actions=[0, 1],
        formula="x + a + (1 + a | site)",
        delivered_in="now",
        site_means=False,
        priors={"Intercept": Normal(0, 1), "x": Normal(0, 1), "a[1]": Normal(0, 1),
                "sd(site)": sd, "sd(now)": sd, "sigma": HalfNormal(1)},
    )  # fmt: skip
    trial = bdtr.Trial([stage], outcome="y", site="site")
    fit = bdtr.fit(
        trial, frame.assign(y=rng.normal(size=80)), sampler="direct", draws=250, random_seed=1,
        progress=False,
    )  # fmt: skip
    fit.add_groups("prior", "prior_predictive")
    truth = fit.tree["stage_1/prior"].to_dataset().isel(chain=0, draw=slice(SIMULATIONS))
    y = fit.tree["stage_1/prior_predictive"]["y"].isel(chain=0, draw=slice(SIMULATIONS)).to_numpy()
    model = fit.model(0)
    what = Refits(model, "marginal", draws=RANKED * THIN, tune=300)
    ranks = []
    for i, posterior in enumerate(refits(what, y.T, np.random.SeedSequence(6))):
        kept = posterior.isel(chain=0, draw=slice(THIN - 1, None, THIN))
        among, one = _quantities(model, kept, y[i]), _quantities(model, truth.isel(draw=[i]), y[i])
        ranks.append((among < one).sum(axis=0))
    table = np.array(ranks)
    assert table.shape[1] == 3 + 5 + 1 + 4 + 1
    for q in range(table.shape[1]):
        counts = np.bincount(table[:, q] // 4, minlength=10)
        assert st.chisquare(counts).pvalue > 1e-4, q


def _quantities(model, draws: xr.Dataset, y: np.ndarray) -> np.ndarray:
    """Scalars of each draw: coefficients, SDs, the correlation, effects of a site, log-likelihood."""
    flat = {
        name: draws[name].to_numpy().reshape(draws.sizes["draw"], -1) for name in draws.data_vars
    }
    b = flat["b"] @ model.design.measure.back.T  # of columns as measured
    eta = b @ model.rows.x.T
    for group, z, codes in zip(model.design.groups, model.rows.z, model.rows.codes, strict=True):
        u = flat[f"u_{group.name}"].reshape(len(b), len(group.levels), len(group.terms))
        eta += np.einsum("dnt,nt->dn", (u @ group.measure.back.T)[:, codes], z)
    sigma = flat["sigma"][:, model.rows.stratum]  # of each action
    log_likelihood = st.norm(eta, sigma).logpdf(y).sum(axis=1)
    return np.column_stack(
        [flat["b"], flat["sd_site"], flat["sd_now"], flat["sigma"], flat["cor_site"][:, 1],
         flat["u_site"][:, :4], log_likelihood]
    )  # fmt: skip
