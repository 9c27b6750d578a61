"""The marginal density against scipy's multivariate normal, on small data."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats as st
from scipy.special import betaln

from bdtr.multilevel.crossproducts import (
    BlockSizeError,
    Columns,
    Factor,
    cross_products,
    layout,
    response_products,
)
from bdtr.multilevel.direct import _system
from bdtr.multilevel.gradient import likelihood_and_gradient
from bdtr.multilevel.marginal import log_density, parameters, relative_factors
from bdtr.priors import LKJ, Exponential, GroupPrior, HalfNormal, HalfStudentT, Normal, StagePriors

DENSITY = {
    HalfNormal: lambda p: st.halfnorm(scale=p.sigma),
    Exponential: lambda p: st.expon(scale=p.scale),
}


def _log_sd(prior, sd):
    if isinstance(prior, HalfStudentT):
        return st.t(prior.nu, scale=prior.sigma).logpdf(sd) + np.log(2)
    return DENSITY[type(prior)](prior).logpdf(sd)


def design(kind: str, rows: int = 60):
    """Rows, factors and priors of a small multilevel design."""
    rng = np.random.default_rng(11)
    x = np.c_[np.ones(rows), rng.normal(size=(rows, 2))]
    site = rng.integers(0, 5, rows)
    one = np.ones((rows, 1))
    slopes = np.c_[np.ones(rows), rng.normal(size=(rows, 2))]
    classes, earlier = site * 3 + rng.integers(0, 3, rows), site * 2 + rng.integers(0, 2, rows)
    mixed = (HalfNormal(1.0), HalfStudentT(3, 0.8), Exponential(0.5))
    parts = {
        "none": [],
        "intercepts": [(Factor("site", 6, 1, False), one, site, mixed[:1], None)],
        "correlated": [(Factor("site", 6, 3, True), slopes, site, mixed, LKJ(1.5))],
        "uncorrelated": [(Factor("site", 6, 3, False), slopes, site, mixed, None)],
        "classes of two grades": [
            (Factor("site", 6, 3, True), slopes, site, mixed, LKJ(2.0)),
            (Factor("class", 15, 1, False), one, classes, mixed[1:2], None),
            (Factor("earlier", 10, 1, False), one, earlier, mixed[2:], None),
        ],
        "crossed": [
            (Factor("site", 6, 2, True), slopes[:, :2], site, mixed[:2], LKJ(1.0)),
            (Factor("rater", 4, 1, False), one, rng.integers(0, 4, rows), mixed[:1], None),
        ],
    }[kind]
    factors = [p[0] for p in parts]
    rows_ = Columns(x, tuple(p[1] for p in parts), tuple(p[2] for p in parts))
    priors = StagePriors(
        (Normal(0.4, 2.0), Normal(-0.2, 1.0), Normal(0.0, 3.0)),
        {p[0].name: GroupPrior(p[3], p[4]) for p in parts},
        HalfStudentT(3, 1.0),
        {},
    )
    return rows_, factors, priors


KINDS = ["none", "intercepts", "correlated", "uncorrelated", "classes of two grades", "crossed"]


@pytest.mark.parametrize("kind", KINDS)
def test_density_agrees_with_the_multivariate_normal(kind):
    rows, factors, priors = design(kind)
    params = parameters(factors, priors)
    rng = np.random.default_rng(5)
    y = rng.normal(size=(len(rows.x), 3))
    where = layout(factors, rows.codes)
    products = cross_products(rows, where)
    responses = response_products(rows, where, y).shifted(products, params.mean)
    for s in range(3):
        phi = rng.normal(size=params.size) * 0.6
        args = responses.zty[:, s].copy(), responses.xty[:, s].copy(), responses.yty[s]
        got = log_density(phi, products, *args, params)
        assert got == pytest.approx(
            _expected(phi, rows, factors, priors, params, y[:, s]), abs=1e-9
        )


def _expected(phi, rows, factors, priors, params, y):
    sigma = np.exp(phi[0])
    scale = np.array([c.sigma for c in priors.coefficients])
    covariance = sigma**2 * np.eye(len(y)) + (rows.x * scale**2) @ rows.x.T
    roots = relative_factors(phi, params.terms, params.correlated)
    total = _log_sd(priors.sigma, sigma) + phi[0]
    at = 1
    for f, (factor, z, codes) in enumerate(zip(factors, rows.z, rows.codes, strict=True)):
        root = sigma * roots[f][: factor.terms, : factor.terms]
        same = codes[:, None] == codes[None, :]
        covariance += (z @ root @ root.T @ z.T) * same
        for prior in priors.groups[factor.name].sd:
            total += _log_sd(prior, sigma * abs(phi[at])) + phi[0] - np.log(2)
            at += 1
    c = np.tanh(phi[at:])
    constants = (2 * params.alpha - 1) * np.log(2) + betaln(params.alpha, params.alpha)
    total += np.sum(params.alpha * np.log1p(-(c**2)) - constants)
    mean = rows.x @ np.array([p.mu for p in priors.coefficients])
    return total + st.multivariate_normal(mean, covariance).logpdf(y)


def test_partial_correlations_under_lkj_have_the_stated_marginals():
    """Each correlation of an LKJ(eta) matrix of size q is Beta(a, a) on (-1, 1), a = eta + q/2 - 1."""
    _, factors, priors = design("correlated")
    params = parameters(factors, priors)
    rng = np.random.default_rng(2)
    draws = 20_000
    z = np.arctanh(2 * rng.beta(params.alpha, params.alpha, size=(draws, 3)) - 1)
    phi = np.hstack([np.zeros((draws, 1)), np.ones((draws, 3)), z])
    roots = np.stack([relative_factors(p, params.terms, params.correlated)[0] for p in phi])
    cor = roots @ np.swapaxes(roots, 1, 2)
    assert np.allclose(np.diagonal(cor, axis1=1, axis2=2), 1)
    a = 1.5 + 3 / 2 - 1
    for i, j in ((1, 0), (2, 0), (2, 1)):
        assert st.kstest((cor[:, i, j] + 1) / 2, st.beta(a, a).cdf).pvalue > 1e-3


def test_blocks_are_sites_with_their_classes():
    rows, factors, _ = design("classes of two grades")
    where = layout(factors, rows.codes)
    assert where.blocks == 5
    assert where.effects == 6 * 3 + 15 + 10
    rows, factors, _ = design("crossed")
    assert layout(factors, rows.codes).blocks == 1


def test_level_codes_are_checked_before_any_kernel_sees_them():
    for bad in (-1, 3):
        with pytest.raises(IndexError, match="outside 0..2"):
            layout([Factor("g", 3, 1, False)], [np.array([0, bad])])


def test_widely_crossed_factors_are_refused_with_a_reason():
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 400, 5000), rng.integers(0, 400, 5000)]
    with pytest.raises(BlockSizeError, match="cross: their levels form one block of 800"):
        layout([Factor("a", 400, 1, False), Factor("b", 400, 1, False)], codes)


def _one_response(products, responses):
    """What the kernels take, for the first response."""
    system = list(_system(products, responses, 0, 1))
    system[9:12] = [part[0] for part in system[9:12]]
    return system


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_agrees_with_finite_differences(kind):
    rows, factors, priors = design(kind)
    params = parameters(factors, priors)
    rng = np.random.default_rng(5)
    where = layout(factors, rows.codes)
    products = cross_products(rows, where)
    y = rng.normal(size=(len(rows.x), 1))
    system = _one_response(products, response_products(rows, where, y))
    step = 1e-5
    for _ in range(3):
        phi = rng.normal(size=params.size) * 0.6
        _, gradient = likelihood_and_gradient(phi, *system, params.precision)
        for i, unit in enumerate(np.eye(phi.size)):
            up, down = (
                likelihood_and_gradient(phi + sign * step * unit, *system, params.precision)[0]
                for sign in (1, -1)
            )
            assert gradient[i] == pytest.approx((up - down) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_likelihood_and_log_density_differ_by_the_priors_alone(kind):
    rows, factors, priors = design(kind)
    params = parameters(factors, priors)
    rng = np.random.default_rng(6)
    where = layout(factors, rows.codes)
    products = cross_products(rows, where)
    phi = rng.normal(size=params.size) * 0.6
    differences = []
    for _ in range(2):
        responses = response_products(rows, where, rng.normal(size=(len(rows.x), 1)))
        system = _one_response(products, responses)
        value, _ = likelihood_and_gradient(phi, *system, params.precision)
        args = responses.zty[:, 0].copy(), responses.xty[:, 0].copy(), responses.yty[0]
        differences.append(log_density(phi, products, *args, params) - value)
    assert differences[0] == pytest.approx(differences[1], abs=1e-9)
