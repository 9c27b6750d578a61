"""NUTS refits of a compiled model: right by themselves, and the oracle of the direct sampler."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats as st

import bdtr
from bdtr.data.check import check
from bdtr.data.stagecolumns import stage_design
from bdtr.engine.crossproducts import cross_products, response_products
from bdtr.engine.direct import draw_each
from bdtr.engine.layout import layout
from bdtr.stages.outcome import outcome_model, stage_rows
from bdtr.stages.posterior import group_covariances, labelled
from bdtr.stages.refits import Refits, refits

RESPONSES = 200


@pytest.fixture(scope="module")
def study():
    """A stage model with correlated slopes, and responses that differ by noise and site effects."""
    rng = np.random.default_rng(6)
    sites, per = 12, 15
    site = np.repeat(np.arange(sites), per)
    frame = pd.DataFrame({"site": site.astype(str), "x": rng.normal(size=site.size)})
    frame["a"] = rng.integers(0, 2, site.size)
    frame["y"] = rng.normal(size=site.size)
    stage = bdtr.Stage(
        "a",
        actions=[0, 1],
        formula="x + a + (1 + a | site)",
        site_means=False,
        priors={
            "sd(site)": bdtr.trial.HalfNormal(0.7),
            "sigma": bdtr.trial.HalfNormal(1.5),
            "Intercept": bdtr.trial.Normal(0, 2),
        },
    )
    fit = bdtr.fit(
        bdtr.Trial([stage], outcome="y", site="site"), frame, sampler="direct", draws=250,
        random_seed=1, progress=False,
    )  # fmt: skip
    model = fit.model(0)
    u = rng.normal(size=(RESPONSES, sites, 2)) * (0.5, 0.3)
    y = 0.3 * frame["x"].to_numpy() + u[:, site, 0] + (0.4 + u[:, site, 1]) * frame["a"].to_numpy()
    return model, (y + rng.normal(size=y.shape)).T


def test_propagated_draws_rank_uniformly_within_nuts_refits(study):
    """200 responses: each direct draw among the draws of the plain PyMC model for that response."""
    model, y = study
    where = layout(model.factors, model.rows.codes)
    products = cross_products(model.rows, where)
    scaled = (y - model.location) / model.spread
    responses = response_products(model.rows, where, scaled)
    drawn = draw_each(products, responses, model.parameters, np.random.SeedSequence(3))
    b, u = model.coefficients(drawn.coefficients), model.effects(drawn.effects)
    direct = labelled(model, drawn.phi, b, u, group_covariances(model, drawn.phi), 1).isel(chain=0)
    # 399 draws, every eighth of a chain: nearly independent, so that ranks are uniform on 0..49.
    what = Refits(model, "plain", chains=1, draws=392, tune=400)
    ranks: dict[str, list[np.ndarray]] = {}
    for i, posterior in enumerate(refits(what, y, np.random.SeedSequence(4))):
        thinned = posterior.isel(chain=0, draw=slice(None, None, 8))
        for name in ("b", "sd_site", "sigma", "cor_site", "u_site"):
            one = direct[name].isel(draw=i).to_numpy().ravel()
            among = thinned[name].to_numpy().reshape(49, -1)
            ranks.setdefault(name, []).append((among < one).sum(axis=0))
    for name, found in ranks.items():
        table = np.array(found)
        for q in range(table.shape[1]):
            if name == "cor_site" and q != 1:
                continue  # the diagonal, and the same correlation once more
            counts = np.bincount(table[:, q] // 5, minlength=10)
            assert st.chisquare(counts).pvalue > 1e-4, (name, q)


def test_refits_do_not_depend_on_the_number_of_workers(study):
    model, y = study
    what = Refits(model, "marginal", draws=50, tune=100)
    seed = np.random.SeedSequence(5)
    one, two = (list(refits(what, y[:, :3], seed, workers)) for workers in (1, 2))
    assert all(a.identical(b) for a, b in zip(one, two, strict=True))
    assert not one[0].equals(one[1])


def test_bernoulli_refits_have_the_posterior_of_the_cells():
    """A saturated yes/no model refitted to new outcomes: P(Y = 1) by cell against its Beta posterior."""
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"a": np.repeat([0, 1], 150), "y": rng.integers(0, 2, 300)})
    stage = bdtr.Stage("a", actions=[0, 1], formula="a")
    trial = bdtr.Trial([stage], outcome="y", family="bernoulli")
    data = check(trial, frame)
    design = stage_design(data, 0)
    rows = stage_rows(data, design)
    model = outcome_model(data, design, trial.payoff, rows, 0.0, 1.0)
    y = (rng.random((300, 2)) < np.array([[0.3], [0.6]])[frame["a"]]).astype(float)
    for i, posterior in enumerate(
        refits(Refits(model, draws=2000), y, np.random.SeedSequence(1), workers=1)
    ):
        b = posterior["b"].to_numpy().reshape(-1, 2)
        for a in (0, 1):
            p = 1 / (1 + np.exp(-b[:, 0] - a * b[:, 1]))
            successes = y[frame["a"] == a, i].sum()
            expected = st.beta(successes + 1, 151 - successes)
            assert p.mean() == pytest.approx(expected.mean(), abs=0.3 * expected.std())
            assert p.std() == pytest.approx(expected.std(), rel=0.12)


def test_progress_counts_responses(study):
    model, y = study
    seen = []
    what = Refits(model, "marginal", draws=20, tune=50)
    list(
        refits(
            what, y[:, :2], np.random.SeedSequence(5), 1, lambda done, of: seen.append((done, of))
        )
    )
    assert seen == [(1, 2), (2, 2)]
