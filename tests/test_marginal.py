"""The marginal density against scipy's multivariate normal, on small data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.stats as st
from scipy.special import betaln

from bdtr.engine import layout as layout_room
from bdtr.engine.crossproducts import Rows, cross_products, response_products
from bdtr.engine.density.elimination import relative_factors
from bdtr.engine.density.gradient import density_and_gradient, likelihood_and_gradient
from bdtr.engine.density.marginal import log_density
from bdtr.engine.layout import CrossingError, Factor, layout
from bdtr.engine.system import Priors, make_room, response, system
from bdtr.stages.coded_priors import parameters
from bdtr.trial.priors import (
    LKJ,
    Exponential,
    GroupPrior,
    HalfNormal,
    HalfStudentT,
    Normal,
    StagePriors,
)

DENSITY = {
    HalfNormal: lambda p: st.halfnorm(scale=p.sigma),
    Exponential: lambda p: st.expon(scale=p.scale),
}


def _log_sd(prior, sd):
    if isinstance(prior, HalfStudentT):
        return st.t(prior.nu, scale=prior.sigma).logpdf(sd) + np.log(2)
    return DENSITY[type(prior)](prior).logpdf(sd)


def design(kind: str, rows: int = 60, strata: int = 1, weighted: bool = False):
    """Rows, factors and priors of a small multilevel design."""
    kind = kind.removesuffix(", border")
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
    }
    curve = np.random.default_rng(12).normal(size=(rows, 4))
    spline = Factor("s(x)", 4, 1, False, smooth=True)
    own = (spline, curve, np.broadcast_to(np.arange(4), curve.shape), mixed[:1], None)
    parts["smooth"] = [own]
    parts["smooth and classes"] = [own, *parts["classes of two grades"]]
    parts = parts[kind]
    factors = [p[0] for p in parts]
    rows_ = Rows(
        x,
        tuple(p[1] for p in parts),
        tuple(p[2] for p in parts),
        rng.integers(0, strata, rows) if strata > 1 else None,
        strata,
        rng.uniform(0.5, 3.0, rows) if weighted else None,
    )
    priors = StagePriors(
        (Normal(0.4, 2.0), Normal(-0.2, 1.0), Normal(0.0, 3.0)),
        {p[0].name: GroupPrior(p[3], p[4]) for p in parts},
        HalfStudentT(3, 1.0),
        {},
    )
    return rows_, factors, priors


KINDS = [
    "none",
    "intercepts",
    "correlated",
    "uncorrelated",
    "classes of two grades",
    "crossed",
    "smooth",
]
# The split into blocks and border must not matter: the border is forced for some designs.
CASES = [
    *((kind, 1, False) for kind in KINDS),
    ("none", 3, True),
    ("correlated", 2, False),
    ("classes of two grades", 3, True),
    ("smooth and classes", 3, True),
    ("correlated, border", 1, False),
    ("crossed, border", 1, False),
    ("crossed", 3, True),
    ("crossed, border", 3, True),
]


def prepared(kind, strata=1, weighted=False, rows=60):
    """A design with its cross-products and two responses."""
    columns, factors, priors = design(kind, rows, strata, weighted)
    params = parameters(factors, priors, strata)
    with pytest.MonkeyPatch.context() as patch:
        chosen = (0,) if kind.endswith("border") else ()
        if not kind.startswith("smooth"):
            patch.setattr(layout_room, "_candidates", lambda factors: [chosen])
        where = layout(factors, columns.codes)
    assert (where.border.size > 0) == (kind.endswith("border") or kind.startswith("smooth"))
    products = cross_products(columns, where)
    y = np.random.default_rng(5).normal(size=(rows, 2))
    responses = response_products(columns, where, y)
    return columns, factors, priors, params, products, responses, y


@pytest.mark.parametrize("case", CASES, ids=str)
def test_density_agrees_with_the_multivariate_normal(case):
    rows, factors, priors, params, products, responses, y = prepared(*case)
    rng = np.random.default_rng(5)
    responses = responses.without(products, params.mean)
    for s in range(2):
        phi = rng.normal(size=params.size) * 0.6
        got = log_density(phi, products, responses, s, params)
        assert got == pytest.approx(
            _expected(phi, rows, factors, priors, params, y[:, s]), abs=1e-9
        )


@pytest.mark.parametrize("size", [0.0, 1e3])
@pytest.mark.parametrize("case", CASES[-4:], ids=str)
def test_density_at_the_ends_of_the_standard_deviations(case, size):
    """Group effects that are nothing, and such as make pivots whose product would overflow."""
    rows, factors, priors, params, products, responses, y = prepared(*case)
    responses = responses.without(products, params.mean)
    phi = np.random.default_rng(8).normal(size=params.size) * 0.6
    phi[params.group_sds] = size * (1.0 + np.abs(phi[params.group_sds]))
    got = log_density(phi, products, responses, 0, params)
    assert got == pytest.approx(_expected(phi, rows, factors, priors, params, y[:, 0]), rel=1e-7)


def _expected(phi, rows, factors, priors, params, y):
    sigma = np.exp(phi[0])
    ratios = np.concatenate([[0.0], phi[params.ratios]])
    stratum = np.zeros(len(y), dtype=int) if rows.stratum is None else rows.stratum
    weight = np.ones(len(y)) if rows.weight is None else rows.weight
    scale = np.array([c.sigma for c in priors.coefficients])
    covariance = np.diag((sigma * np.exp(ratios[stratum])) ** 2 / weight)
    covariance += (rows.x * scale**2) @ rows.x.T
    roots = relative_factors(phi, params.terms, params.correlated)
    total = sum(_log_sd(priors.sigma, sigma * np.exp(r)) + phi[0] + r for r in ratios)
    at = 1
    for f, (factor, z, codes) in enumerate(zip(factors, rows.z, rows.codes, strict=True)):
        root = sigma * roots[f][: factor.terms, : factor.terms]
        if factor.smooth:
            covariance += root[0, 0] ** 2 * z @ z.T
        else:
            covariance += (z @ root @ root.T @ z.T) * (codes[:, None] == codes[None, :])
        for prior in priors.groups[factor.name].sd:
            total += _log_sd(prior, sigma * abs(phi[at])) + phi[0] - np.log(2)
            at += 1
    c = np.tanh(phi[params.correlations])
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
    assert where.border.size == 0
    assert where.effects == 6 * 3 + 15 + 10


def test_crossed_factors_are_split_into_many_small_blocks_and_a_border():
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 300, 5000), rng.integers(0, 40, 5000)]
    where = layout([Factor("pupil", 300, 1, False), Factor("rater", 40, 2, True)], codes)
    assert where.in_border == (False, True)
    assert (where.blocks, where.border.size) == (300, 80)


def test_level_codes_are_checked_before_any_kernel_sees_them():
    for bad in (-1, 3):
        with pytest.raises(IndexError, match="outside 0..2"):
            layout([Factor("g", 3, 1, False)], [np.array([0, bad])])


def test_strata_are_checked_before_any_kernel_sees_them():
    rows, factors, _ = design("intercepts", strata=2)
    with pytest.raises(IndexError, match=r"stratum is outside 0\.\.0"):
        cross_products(dataclasses.replace(rows, strata=1), layout(factors, rows.codes))


def test_factors_that_cross_too_widely_are_refused_with_a_reason():
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 6000, 90_000), rng.integers(0, 6000, 90_000)]
    with pytest.raises(CrossingError, match=r"a, b cross each other, so that 6,000 effects of a"):
        layout([Factor("a", 6000, 1, False), Factor("b", 6000, 1, False)], codes)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_agrees_with_finite_differences(case):
    _, _, _, params, products, responses, _ = prepared(*case)
    own, y = system(products, params), response(responses)
    priors = Priors(params.sd_prior, params.alpha)
    reduced, room = np.empty((4, 4)), make_room(own)
    rng = np.random.default_rng(5)
    step = 1e-5
    for _ in range(3):
        phi = rng.normal(size=params.size) * 0.6
        _, gradient = density_and_gradient(phi, own, priors, y, reduced, room)
        for i, unit in enumerate(np.eye(phi.size)):
            up, down = (
                density_and_gradient(phi + sign * step * unit, own, priors, y, reduced, room)[0]
                for sign in (1, -1)
            )
            assert gradient[i] == pytest.approx((up - down) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_likelihood_and_log_density_differ_by_the_priors_alone(case):
    _, _, _, params, products, responses, _ = prepared(*case)
    own = system(products, params)
    phi = np.random.default_rng(6).normal(size=params.size) * 0.6
    differences = []
    for s in range(2):
        args = own, response(responses, s), np.empty((4, 4)), make_room(own)
        value, _ = likelihood_and_gradient(phi, *args)
        differences.append(log_density(phi, products, responses, s, params) - value)
    assert differences[0] == pytest.approx(differences[1], abs=1e-9)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_known_terms_are_taken_out_of_the_products_as_out_of_the_rows(case):
    rows, factors, _, _, products, responses, y = prepared(*case)
    rng = np.random.default_rng(7)
    b, u = rng.normal(size=(3, 2)), rng.normal(size=(products.layout.effects, 2))
    rest = y - rows.x @ b
    for f, (factor, z, codes) in enumerate(zip(factors, rows.z, rows.codes, strict=True)):
        at = products.layout.offset[f] + factor.places(codes)
        rest -= np.einsum("iq,iqs->is", z, u[at])
    expected = response_products(rows, products.layout, rest)
    found = responses.without(products, b, u)
    for name in ("zty", "hty", "yty"):
        assert np.allclose(getattr(found, name), getattr(expected, name), atol=1e-9), name


def test_systems_that_cannot_be_factorised_have_no_density():
    """Kernels that are called by name cannot raise: what they find must say so."""
    _, _, _, params, products, responses, _ = prepared("crossed, border")
    own, y = system(products, params), response(responses)
    room, reduced = make_room(own), np.empty((4, 4))
    for size in (1e200, np.inf):
        phi = np.zeros(params.size)
        phi[params.group_sds] = size
        assert not np.isfinite(log_density(phi, products, responses, 0, params))
        value, gradient = likelihood_and_gradient(phi, own, y, reduced, room)
        assert value == -np.inf
        assert np.isnan(gradient).all()
