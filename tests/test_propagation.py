"""Propagated draws: carried effects, a residual SD per action, policies drawn together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats as st
from simulate import TwoStage

import bdtr
from bdtr.backward.carried_effects import carried_terms, joined_law
from bdtr.backward.regimes import Regime
from bdtr.data.check import check
from bdtr.data.stagecolumns import stage_design
from bdtr.engine.coefficients.joint_draws import (
    Shared,
    Streams,
    stream_correlations,
    stream_roots,
)
from bdtr.engine.crossproducts import Rows, cross_products, response_products
from bdtr.engine.direct import draw_each, draw_posterior
from bdtr.engine.layout import Factor, layout
from bdtr.stages.coded_priors import parameters
from bdtr.trial.priors import LKJ, GroupPrior, HalfNormal, HalfStudentT, Normal, StagePriors


def two_responses(draws: int = 400, sites: int = 30, per: int = 30):
    """Two responses with correlated residuals and site effects, each with new noise in every draw."""
    rng = np.random.default_rng(4)
    n, site = sites * per, np.repeat(np.arange(sites), per)
    a = rng.integers(0, 2, n)
    x = np.c_[np.ones(n), rng.normal(size=n), a]
    z = np.c_[np.ones(n), a]
    u = 0.4 * rng.normal(size=(2, sites, 2))
    u[1] = 0.9 * u[0] + 0.3 * u[1]
    noise = rng.normal(size=(2, n))
    noise[1] = 0.8 * noise[0] + 0.6 * noise[1]
    mean = [x @ b for b in ([0.5, 1.0, 0.3], [0.2, 0.8, 0.5])]
    y = [
        (m + (z * e[site]).sum(axis=1) + r)[:, None] + 0.05 * rng.normal(size=(n, draws))
        for m, e, r in zip(mean, u, noise, strict=True)
    ]
    factors = [Factor("site", sites, 2, True)]
    sd = (HalfNormal(1.0),) * 2
    priors = StagePriors(
        (Normal(0, 5),) * 3, {"site": GroupPrior(sd, LKJ(1.0))}, HalfStudentT(3, 1.0), {}
    )
    rows = Rows(x, (z,), (site,))
    where = layout(factors, rows.codes)
    products = cross_products(rows, where)
    found = [response_products(rows, where, one) for one in y]
    crossed = np.zeros((2, 2, 1, draws))
    crossed[0, 1, 0] = crossed[1, 0, 0] = (y[0] * y[1]).sum(axis=0)
    difference = response_products(rows, where, y[1] - y[0])
    return products, found, difference, crossed, parameters(factors, priors)


def test_contrasts_of_policies_drawn_together_spread_as_the_fit_of_their_difference():
    """The difference of two responses has a posterior of its own; separate draws are far wider."""
    products, found, difference, crossed, params = two_responses()
    seed = np.random.SeedSequence(1)
    first = draw_each(products, found[0], params, seed)
    floors = [1e-4, 1e-4]
    both = stream_correlations(products, found, crossed, params, first.phi, floors)
    assert np.mean(both[0][:, 0, 1]) == pytest.approx(0.8, abs=0.03)
    assert np.mean(both[1][:, 0, 1]) == pytest.approx(0.95, abs=0.05)
    streams = Streams(*(stream_roots(r)[:, 1] for r in both))
    second = draw_each(products, found[1], params, seed, shared=Shared(streams))
    alone = draw_each(products, found[1], params, np.random.SeedSequence(2))
    expected = draw_each(products, difference, params, np.random.SeedSequence(3))
    together = second.coefficients - first.coefficients
    apart = alone.coefficients - first.coefficients
    sd = expected.coefficients.std(axis=0)
    # 400 draws: an SD is known to 3.5 %.
    assert np.allclose(together.std(axis=0), sd, rtol=0.15)
    assert np.all(apart.std(axis=0) > 1.4 * sd)
    assert np.allclose(together.mean(axis=0), expected.coefficients.mean(axis=0), atol=0.25 * sd)
    # What is drawn together with others is still drawn from its own posterior.
    for i in range(3):
        assert st.ks_2samp(second.coefficients[:, i], alone.coefficients[:, i]).pvalue > 1e-3


def test_known_effects_are_carried_where_both_stages_have_the_column(clinic_fit):
    fitted = bdtr.fit(
        TwoStage.trial(), TwoStage(10, 20).draw(1), sampler="direct", draws=250, random_seed=1,
        progress=False,
    )  # fmt: skip
    carried = carried_terms(fitted.data, fitted.designs[0], fitted.designs[1])
    assert np.argwhere(carried.maps["site"]).tolist() == [[0, 0], [1, 1]]
    first = fitted.tree["stage_1/posterior"].to_dataset()
    second = fitted.posterior(1)
    # Carried effects and what a2 adds to a site are independent here: SDs add up, on average.
    assert float(first["sd_site"][..., 0].mean()) > float(second["sd_site"][..., 0].mean())
    carried = carried_terms(clinic_fit.data, clinic_fit.designs[0], clinic_fit.designs[1])
    assert set(carried.maps) == {"clinic"}
    assert np.argwhere(carried.maps["clinic"]).tolist() == [[0, 0], [1, 3]]


def test_feasible_sets_can_make_a_later_column_one_of_this_stage(star):
    """In STAR a2 = small exactly where a1 = small, whatever else is chosen."""
    data = check(bdtr.datasets.star_trial(), star, "exclude", "exclude")
    designs = [stage_design(data, k) for k in range(2)]
    pairs = np.argwhere(carried_terms(data, *designs).maps["school"])
    terms = [(designs[0].groups[0].terms[i], designs[1].groups[0].terms[j]) for i, j in pairs]
    assert terms == [
        ("Intercept", "Intercept"),
        ("a1[small]", "a2[small]"),
        ("a1[aide]", "a1[aide]"),
    ]


def test_nothing_is_carried_where_payoffs_pass_a_stage_by():
    rng = np.random.default_rng(0)
    n = 400
    frame = pd.DataFrame(
        {
            "site": [f"s{i % 8}" for i in range(n)],
            "a": rng.integers(0, 2, n),
            "r": rng.integers(0, 2, n),
            "b": rng.integers(0, 2, n),
            "y": rng.normal(size=n),
        }
    )
    frame["b"] = frame["b"].where(frame["r"] == 0)
    stages = [
        bdtr.Stage("a", actions=[0, 1], formula="a + (1 | site)"),
        bdtr.Stage(
            "b", actions=[0, 1], formula="a + b + (1 | site)", among="r == 0", outside="carry"
        ),
    ]
    trial = bdtr.Trial(stages, outcome="y", site="site")
    fitted = bdtr.fit(trial, frame, sampler="direct", random_seed=1, progress=False)
    assert carried_terms(fitted.data, *fitted.designs).maps == {}


def test_each_action_of_a_propagated_stage_has_a_residual_sd():
    """Stage values spread twice as much in one arm; one common SD would be wrong in both."""
    rng = np.random.default_rng(3)
    n = 3000
    a = (rng.random(n) < 0.2).astype(int)
    m = rng.normal(size=n) * np.where(a == 1, 2.0, 1.0)
    b = rng.integers(0, 2, n)
    y = m + 0.5 * b + 0.2 * rng.normal(size=n)
    frame = pd.DataFrame({"a": a, "m": m, "b": b, "y": y})
    stages = [
        bdtr.Stage("a", actions=[0, 1], formula="a"),
        bdtr.Stage("b", actions=[0, 1], formula="a + m + b"),
    ]
    fitted = bdtr.fit(
        bdtr.Trial(stages, outcome="y"), frame, sampler="direct", random_seed=1, progress=False
    )
    sigma = fitted.tree["stage_1/posterior"].to_dataset()["sigma"]
    assert sigma.dims == ("chain", "draw", "action")
    assert sigma.mean(("chain", "draw")).to_numpy() == pytest.approx([1.0, 2.0], rel=0.06)
    blip = fitted.tree["stage_1/posterior"].to_dataset()["b"].sel(term="a[1]")
    assert float(blip.std()) == pytest.approx(np.sqrt(1 / (0.8 * n) + 4 / (0.2 * n)), rel=0.1)


def test_known_weights_are_those_of_rows_repeated():
    """A mean of w units with weight w has the likelihood of w equal rows, but for their residuals."""
    rng = np.random.default_rng(5)
    sites, per = 15, 12
    site = np.repeat(np.arange(sites), per)
    weight = rng.integers(1, 6, sites * per).astype(float)
    x = np.c_[np.ones(sites * per), rng.normal(size=sites * per)]
    y = x @ [0.3, 0.5] + 0.5 * rng.normal(size=sites)[site]
    y += rng.normal(size=sites * per) / np.sqrt(weight)
    factors = [Factor("site", sites, 1, False)]
    priors = StagePriors(
        (Normal(0, 5),) * 2, {"site": GroupPrior((HalfNormal(1.0),), None)}, HalfNormal(2.0), {}
    )
    rows = Rows(x, (np.ones((len(y), 1)),), (site,), weight=weight)
    where = layout(factors, rows.codes)
    drawn = draw_posterior(
        cross_products(rows, where), response_products(rows, where, y[:, None]),
        parameters(factors, priors), 4, 1000, np.random.SeedSequence(1),
    )  # fmt: skip
    # Generalised least squares at the posterior medians of the SDs.
    sigma = np.exp(np.median(drawn.phi[:, 0]))
    tau = sigma * np.median(np.abs(drawn.phi[:, 1]))
    v = np.diag(sigma**2 / weight) + tau**2 * (site[:, None] == site[None, :])
    inverse = np.linalg.inv(x.T @ np.linalg.solve(v, x))
    centre = inverse @ x.T @ np.linalg.solve(v, y)
    assert sigma == pytest.approx(1.0, abs=0.25)
    assert np.allclose(
        drawn.coefficients.mean(axis=0), centre, atol=0.15 * np.sqrt(np.diag(inverse))
    )
    assert np.allclose(drawn.coefficients.std(axis=0), np.sqrt(np.diag(inverse)), rtol=0.1)


def test_passes_that_do_the_same_have_the_same_draws(clinic_fit):
    rules = {"first": "app", "second": {"responder == 1": "keep", "responder == 0": "more"}}
    values = bdtr.value(clinic_fit, Regime("one", rules), Regime("two", rules))
    assert float(abs(values.draws["value"].diff("regime")).max()) == 0.0


def test_known_effects_and_the_rest_keep_their_correlation():
    """20,000 sites with r = B u + e: the law of u + r is that of the sites, at a new one as well."""
    rng = np.random.default_rng(2)
    sites, samples = 20_000, 3
    u = rng.normal(size=(sites, 2)) @ np.array([[0.6, 0.1], [0.0, 0.3]])
    r = u @ np.array([[-0.7, 0.2], [0.4, 0.5]]) + 0.3 * rng.normal(size=(sites, 2))
    both = [np.broadcast_to(x, (samples, sites, 2)) for x in (u, r)]
    cov_u, cov_r, expected = (np.cov(x.T) for x in (u, r, u + r))
    known_new = np.broadcast_to(np.array([[0.5], [-0.2]]), (2, samples))
    covariance, root, new = joined_law(
        *both, np.broadcast_to(cov_u, (samples, 2, 2)),
        np.broadcast_to(np.linalg.cholesky(cov_r), (samples, 2, 2)), known_new,
    )  # fmt: skip
    assert np.allclose(covariance, expected, atol=0.01)
    slope = np.cov(np.hstack([u, r]).T)[2:, :2] @ np.linalg.inv(cov_u)
    assert np.allclose(new, known_new + slope @ known_new, atol=0.01)
    assert np.allclose(root @ np.swapaxes(root, 1, 2), 0.09 * np.eye(2), atol=0.01)


def test_with_few_sites_known_effects_and_the_rest_are_apart():
    rng = np.random.default_rng(3)
    u, r = rng.normal(size=(2, 4, 6, 2))
    cov, root = np.broadcast_to(np.eye(2), (4, 2, 2)), np.broadcast_to(2 * np.eye(2), (4, 2, 2))
    covariance, left, new = joined_law(u, r, cov, root, np.ones((2, 4)))
    assert np.allclose(covariance, 5 * np.eye(2))
    assert left is root
    assert np.array_equal(new, np.ones((2, 4)))
