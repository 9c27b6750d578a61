"""The direct sampler against known posteriors."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats as st
from test_marginal import design

from bdtr.engine import direct
from bdtr.engine.crossproducts import Rows, cross_products, response_products
from bdtr.engine.density.elimination import relative_factors
from bdtr.engine.density.marginal import log_density
from bdtr.engine.direct import draw_each, draw_posterior
from bdtr.engine.layout import Factor, layout
from bdtr.stages.coded_priors import parameters
from bdtr.trial.priors import LKJ, GroupPrior, HalfNormal, HalfStudentT, Normal, StagePriors


def _system(rows, factors, priors, y):
    where = layout(factors, rows.codes)
    products = cross_products(rows, where)
    return products, response_products(rows, where, y), parameters(factors, priors, rows.strata)


def test_regression_without_groups_has_the_posterior_of_numerical_integration():
    rng = np.random.default_rng(1)
    n = 40
    x = np.c_[np.ones(n), rng.normal(size=n)]
    y = x @ [0.5, -1.0] + 0.7 * rng.normal(size=n)
    priors = StagePriors((Normal(0, 2), Normal(0, 2)), {}, HalfStudentT(3, 1.0), {})
    system = _system(Rows(x, (), ()), [], priors, y[:, None])
    drawn = draw_posterior(*system, chains=4, draws=2000, seed=np.random.SeedSequence(3))
    products, responses, params = system

    def density(log_sigma):
        phi = np.array([log_sigma])
        return np.exp(log_density(phi, products, responses, 0, params) + 55)

    grid = np.linspace(np.log(0.25), np.log(1.8), 800)
    weight = np.array([density(g) for g in grid])
    weight /= weight.sum()
    assert weight[0] < 1e-6 and weight[-1] < 1e-6
    means, seconds = np.zeros(2), np.zeros((2, 2))
    for g, w in zip(grid, weight, strict=True):
        precision = x.T @ x / np.exp(2 * g) + np.eye(2) / 4
        m = np.linalg.solve(precision, x.T @ y / np.exp(2 * g))
        means += w * m
        seconds += w * (np.linalg.inv(precision) + np.outer(m, m))
    sds = np.sqrt(np.diag(seconds - np.outer(means, means)))
    b = drawn.coefficients
    assert np.all(np.abs(b.mean(axis=0) - means) < 4 * sds / np.sqrt(8000))
    assert np.all(np.abs(b.std(axis=0) / sds - 1) < 4 / np.sqrt(2 * 8000))
    cdf = np.cumsum(weight)
    uniform = np.interp(drawn.phi[::2, 0], grid, cdf)  # thinned to near independence
    assert st.kstest(uniform, "uniform").pvalue > 1e-3


def test_one_sd_near_zero_follows_the_exact_marginal():
    """Balanced one-way layout with no site variance: the posterior of the SD piles up at zero."""
    rng = np.random.default_rng(4)
    sites, per = 12, 8
    codes = np.repeat(np.arange(sites), per)
    y = rng.normal(size=sites * per)
    one = np.ones((sites * per, 1))
    factors = [Factor("g", sites, 1, False)]
    priors = StagePriors(
        (Normal(0, 5),), {"g": GroupPrior((HalfNormal(1.0),), None)}, HalfNormal(1.0), {}
    )
    system = _system(Rows(one, (one,), (codes,)), factors, priors, y[:, None])
    drawn = draw_posterior(*system, chains=4, draws=2000, seed=np.random.SeedSequence(3))
    sd = np.exp(drawn.phi[:, 0]) * np.abs(drawn.phi[:, 1])
    # The same posterior on a grid of (SD, residual SD): y is normal with variances sigma^2 within sites,
    # sigma^2 + 8 tau^2 between them, and 25 n more for the mean.
    tau, sigma = np.linspace(0.0, 1.2, 121)[:, None], np.linspace(0.6, 1.6, 61)
    mean, means = y.mean(), y.reshape(sites, per).mean(axis=1)
    squares = [((y - means[codes]) ** 2).sum(), per * ((means - mean) ** 2).sum(), y.size * mean**2]
    between = sigma**2 + per * tau**2
    variances = [sigma**2 + 0 * tau, between, between + 25.0 * y.size]
    log = st.halfnorm.logpdf(tau) + st.halfnorm.logpdf(sigma)
    for v, square, count in zip(variances, squares, (y.size - sites, sites - 1, 1), strict=True):
        log = log - 0.5 * (count * np.log(v) + square / v)
    tau = tau.ravel()
    weight = np.exp(log - log.max()).sum(axis=1)
    cdf = np.concatenate([[0], np.cumsum((weight[1:] + weight[:-1]) / 2)])
    uniform = np.interp(sd[::4], tau, cdf / cdf[-1])
    assert st.kstest(uniform, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("kind", ["correlated", "classes of two grades"])
def test_one_draw_per_response_is_a_draw_from_each_posterior(kind):
    """With one response many times over, the draws of draw_each are those of a long chain."""
    rows, factors, priors = design(kind)
    rng = np.random.default_rng(8)
    y = rows.x @ [0.5, 1.0, -0.5] + rng.normal(size=5)[rows.codes[0]] + rng.normal(size=len(rows.x))
    many, one = 2000, y[:, None]
    products, response, params = _system(rows, factors, priors, one)
    _, copies, _ = _system(rows, factors, priors, np.repeat(one, many, axis=1))
    short = draw_each(products, copies, params, np.random.SeedSequence(1))
    long = draw_posterior(products, response, params, 4, 2000, np.random.SeedSequence(2))
    sds = 1 + params.sds
    for draws, reference in (
        (np.abs(short.phi[:, :sds]), np.abs(long.phi[:, :sds])),
        (short.phi[:, sds:], long.phi[:, sds:]),
        (short.coefficients, long.coefficients),
        (short.effects, long.effects),
    ):
        for i in range(draws.shape[1]):
            assert st.ks_2samp(draws[:, i], reference[::4, i]).pvalue > 1e-4


def test_effects_of_levels_without_rows_come_from_their_population():
    rows, factors, priors = design("correlated")
    y = np.random.default_rng(0).normal(size=(len(rows.x), 1))
    drawn = draw_posterior(*_system(rows, factors, priors, y), 4, 1000, np.random.SeedSequence(1))
    unseen = drawn.effects.reshape(-1, 6, 3)[:, 5]
    sd = np.exp(drawn.phi[:, :1]) * np.abs(drawn.phi[:, 1:4])
    assert st.kstest((unseen / sd)[:, 0], "norm").pvalue > 1e-3
    assert np.std((unseen / sd)[:, 2]) == pytest.approx(1, abs=4 / np.sqrt(2 * 4000))


def test_simulation_based_calibration():
    """Ranks of what was drawn from the prior are uniform among posterior draws (Talts et al. 2018).

    The log-likelihood is ranked too: it notices draws that ignore part of the data (Modrak et al. 2023).
    """
    rows, factors, _ = design("classes of two grades", rows=80, strata=2)
    sd = HalfNormal(0.7)
    groups = {
        "site": GroupPrior((sd,) * 3, LKJ(1.5)),
        "class": GroupPrior((sd,), None),
        "earlier": GroupPrior((sd,), None),
    }
    priors = StagePriors((Normal(0, 1),) * 3, groups, HalfNormal(1.0), {})
    params = parameters(factors, priors, 2)
    rng = np.random.default_rng(21)
    simulations, inside = 400, 39
    truths, ys = [], []
    for _ in range(simulations):
        sigma, sds = abs(rng.normal(size=2)), abs(rng.normal(size=5)) * 0.7
        partial = np.arctanh(2 * rng.beta(params.alpha, params.alpha) - 1)
        ratio = np.log(sigma[1:] / sigma[0])
        phi = np.concatenate([[np.log(sigma[0])], sds / sigma[0], partial, ratio])
        roots = relative_factors(phi, params.terms, params.correlated)
        b = rng.normal(size=3)
        effects = []
        for f, factor in enumerate(factors):
            u = rng.normal(size=(factor.levels, factor.terms))
            effects.append(sigma[0] * u @ roots[f][: factor.terms, : factor.terms].T)
        truth = (phi[None], b[None], np.concatenate([u.ravel() for u in effects])[None])
        noise = sigma[rows.stratum] * rng.normal(size=len(rows.x))
        y = linear_predictor(rows, factors, truth[1], truth[2])[0] + noise
        truths.append(quantities(rows, factors, params, y[None], *truth))
        ys.append(y)
    products, _, _ = _system(rows, factors, priors, np.zeros((len(rows.x), 1)))
    # Every response many times: one independent draw from its posterior each.
    repeated = np.repeat(np.array(ys), inside, axis=0)
    where = layout(factors, rows.codes)
    drawn = draw_each(
        products, response_products(rows, where, repeated.T), params, np.random.SeedSequence(9)
    )
    flat = quantities(rows, factors, params, repeated, drawn.phi, drawn.coefficients, drawn.effects)
    ranks = (flat.reshape(simulations, inside, -1) < np.array(truths)).sum(axis=1)
    assert ranks.shape[1] == 2 + 5 + 3 + 3 + 4 + 1
    for i in range(ranks.shape[1]):
        counts = np.bincount(ranks[:, i] // 4, minlength=10)
        assert st.chisquare(counts).pvalue > 1e-4, i


def linear_predictor(rows, factors, coefficients, effects):
    """(draw x row)."""
    eta, at = coefficients @ rows.x.T, 0
    for factor, z, codes in zip(factors, rows.z, rows.codes, strict=True):
        size = factor.levels * factor.terms
        u = effects[:, at : at + size].reshape(-1, factor.levels, factor.terms)
        eta = eta + np.einsum("iq,diq->di", z, u[:, codes])
        at += size
    return eta


def quantities(rows, factors, params, y, phi, coefficients, effects):
    """What is ranked (draw x quantity): SDs, correlations, coefficients, some effects, likelihood."""
    sigma = np.exp(phi[:, :1] + np.c_[np.zeros(len(phi)), phi[:, params.ratios]])
    eta = linear_predictor(rows, factors, coefficients, effects)
    likelihood = st.norm(eta, sigma[:, rows.stratum]).logpdf(y).sum(axis=1)
    return np.hstack(
        [
            sigma,
            sigma[:, :1] * np.abs(phi[:, params.group_sds]),
            phi[:, params.correlations],
            coefficients,
            effects[:, :4],
            likelihood[:, None],
        ]
    )


def test_the_same_seed_gives_the_same_draws_on_any_number_of_threads():
    from numba import get_num_threads, set_num_threads

    rows, factors, priors = design("classes of two grades")
    y = np.random.default_rng(0).normal(size=(len(rows.x), 30))
    system = _system(rows, factors, priors, y)
    threads = get_num_threads()
    first = draw_each(*system, np.random.SeedSequence(5))
    try:
        set_num_threads(1)
        second = draw_each(*system, np.random.SeedSequence(5))
    finally:
        set_num_threads(threads)
    other = draw_each(*system, np.random.SeedSequence(6))
    assert np.array_equal(first.effects, second.effects)
    assert np.array_equal(first.phi, second.phi)
    assert not np.array_equal(first.phi, other.phi)


def test_a_response_that_is_exactly_linear_is_reproduced():
    """Stage values that later stages' columns fix exactly have no residual; nothing breaks."""
    rows, factors, priors = design("correlated")
    rng = np.random.default_rng(8)
    y = rows.x @ rng.normal(size=(3, 50)) * 5
    drawn = draw_each(*_system(rows, factors, priors, y), np.random.SeedSequence(1))
    fitted = rows.x @ drawn.coefficients.T
    for t in range(3):
        fitted += rows.z[0][:, t : t + 1] * drawn.effects.reshape(50, 6, 3)[:, rows.codes[0], t].T
    assert np.abs(fitted - y).max() < 2e-3 * np.abs(y).max()


def test_short_slice_chains_are_checked_by_ranks_within_long_ones(monkeypatch):
    """The check passes as it is and fails where chains stay near their start."""
    rows, factors, priors = design("classes of two grades", rows=90, strata=2)
    y = np.random.default_rng(3).normal(size=(90, 40))
    products, responses, params = _system(rows, factors, priors, y)
    monkeypatch.setattr(direct, "_LUCK", 1.1)  # independence chains are never good enough

    def ranks() -> float:
        return draw_each(products, responses, params, np.random.SeedSequence(4)).report.ranks

    assert ranks() > 0.01
    chains = direct.slice_chains

    def stuck(start, width, thin, *rest):
        """Short chains that start two units off and hardly move."""
        if thin < 10:
            return chains(start, width, thin, *rest)
        return chains(start + 2.0, width * 1e-3, 1, *rest)

    monkeypatch.setattr(direct, "slice_chains", stuck)
    assert ranks() < 1e-3
