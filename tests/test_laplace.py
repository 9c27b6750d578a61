"""Laplace's marginal density of other outcomes than Gaussian, its gradient, and the integrals of blocks."""

from __future__ import annotations

import numpy as np
import pytest
from outcome_models import LAYOUTS, case, start
from scipy.optimize import minimize

from bdtr.engine.compiled.kernels import link
from bdtr.engine.compiled.streams import seeded
from bdtr.engine.crossproducts import Rows
from bdtr.engine.density.elimination import relative_factors
from bdtr.engine.laplace.cells import Outcome, cells
from bdtr.engine.laplace.climb import common_predictor, make_room
from bdtr.engine.laplace.density import laplace, log_density, log_prior, set_up, shape_at
from bdtr.engine.laplace.forms import BETA, SHARES, curves, positive_bend, values
from bdtr.engine.laplace.gradient import value_and_gradient
from bdtr.engine.laplace.likelihoods import CODES, FOLDED, FORMS, log_rising, prepare
from bdtr.engine.laplace.sites import integrate_sites, make_site_room
from bdtr.engine.layout import layout
from bdtr.trial.families import FAMILIES

NAMED = {f.engine: f for f in FAMILIES.values() if f.engine and f.name != "bernoulli"}


def somewhere(posterior, seed=2):
    """A phi that is not special."""
    return np.random.default_rng(seed).normal(0.5, 0.2, posterior.size)


def log_joint(one, family, phi, w):
    """log p(y, v, b | phi) by plain numpy, v and b side by side in w, for factors without correlations."""
    posterior, where = one.posterior, one.where
    effects, at = w[: where.effects].copy(), 0
    for sd, factor in zip(np.abs(phi), where.factors, strict=False):
        effects[at : at + factor.levels] *= sd
        at += factor.levels
    b = w[where.effects :]
    shape = phi[shape_at(posterior) :]
    if family == "ordinal":
        shape = np.cumsum(np.exp(shape))[:, None]
    elif len(shape):
        sigma = np.abs(shape) if FOLDED[CODES[family]] else np.exp(shape)
        shape = sigma[one.rows.stratum]
    if family == "student_t":
        shape = shape, 1.0 + sigma[-1]
    eta = one.predictor(b, effects)
    value = NAMED[family].log_likelihood(one.y, one.m, eta, shape).sum()
    value -= 0.5 * (w[: where.effects] ** 2).sum()
    return value - 0.5 * (posterior.precision * (b - posterior.mean) ** 2).sum()


@pytest.mark.parametrize("family", CODES)
@pytest.mark.parametrize("kind", LAYOUTS)
def test_gradient(family, kind):
    """Central differences of the density agree to 1e-6."""
    posterior = case(family, **LAYOUTS[kind]).posterior
    phi = somewhere(posterior)
    value, gradient = value_and_gradient(phi, posterior)
    assert value == pytest.approx(log_density(phi, posterior), abs=1e-9)
    apart = 1e-5 * np.eye(posterior.size)
    numbers = [
        (log_density(phi + h, posterior) - log_density(phi - h, posterior)) / 2e-5 for h in apart
    ]
    assert np.allclose(gradient, numbers, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [{}, {"bends": 3}], ids=["sites", "smooth"])
@pytest.mark.parametrize("family", NAMED)
def test_density_is_laplaces(family, kind):
    """The mode and the determinant of a numerical Hessian of the joint density, by plain numpy.

    Constants that depend on nothing but the data differ: differences between two places are compared.
    """
    one = case(family, slopes=1, sites=3, n=60, **kind)
    posterior = one.posterior

    def by_numpy(phi):
        size = one.where.effects + 4
        found = minimize(lambda w: -log_joint(one, family, phi, w), np.zeros(size), tol=1e-12)
        step, bent = 1e-3, np.empty((size, size))
        for i in range(size):
            for j in range(size):
                ways = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
                moved = [
                    found.x + step * (s * np.eye(size)[i] + t * np.eye(size)[j]) for s, t in ways
                ]
                a, b, c, d = (log_joint(one, family, phi, w) for w in moved)
                bent[i, j] = -(a - b - c + d) / (4 * step**2)
        return -found.fun - 0.5 * np.linalg.slogdet(bent)[1] + log_prior(phi, posterior)

    here, there = somewhere(posterior, 1), somewhere(posterior, 4)
    right = by_numpy(here) - by_numpy(there)
    found = log_density(here, posterior) - log_density(there, posterior)
    assert found == pytest.approx(right, abs=2e-4)


@pytest.mark.parametrize("family", ["binomial", "negative_binomial", "ordinal"])
def test_integrals_of_sites(family):
    """Estimates are unbiased: their mean is the integral by Gauss-Hermite quadrature, which 40 and 60 nodes
    give alike to 1e-8; Laplace's approximation is not far."""
    one = case(family, slopes=1, sites=6, n=60)
    posterior, phi, c = one.posterior, somewhere(one.posterior), np.array([-0.3, 0.5, 0.2, -0.1])
    own = posterior.cells
    room, site = make_room(own), make_site_room(own)
    rest = set_up(phi, posterior, room)
    rng = seeded(np.uint64(7), 0)
    estimates = []
    for _ in range(4000):
        site.v[:] = 0.0
        estimate, laplace = integrate_sites(own, FORMS[own.family], c, 2, rng, room, site)
        estimates.append(estimate)

    def quadrature(nodes):
        x, weights = np.polynomial.hermite_e.hermegauss(nodes)
        total = 0.0
        for level in range(6):
            logs = []
            for v in x:
                u = np.zeros(6)
                u[level] = v
                w = np.concatenate([u, c])
                mine = one.rows.codes[0] == level
                logs.append(_log_likelihood_of(one, family, phi, w, mine))
            top = max(logs)
            total += top + np.log(weights @ np.exp(np.array(logs) - top) / weights.sum())
        return total

    # The engine leaves out what eta and dispersions do not change.
    nothing = np.concatenate([np.zeros(6), c])
    every = np.ones(len(one.y), bool)
    plain = _log_likelihood_of(one, family, phi, nothing, every)
    site.v[:] = 0.0
    room.eta[:] = 0.0
    predictor = np.zeros(own.count.size)
    predictor[:] = own.x @ c
    values(FORMS[own.family], predictor, (room.a, room.b, room.c, room.d), room.value)
    left_out = plain - (room.value.sum() + rest)
    exact = quadrature(60)
    assert quadrature(40) == pytest.approx(exact, abs=1e-8)
    ratio = np.exp(np.array(estimates) + rest + left_out - exact)
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / np.sqrt(len(ratio))
    assert ratio.std() < 0.2
    assert laplace + rest + left_out == pytest.approx(exact, abs=0.3)


def _log_likelihood_of(one, family, phi, w, mine):
    shape = phi[shape_at(one.posterior) :]
    if family == "ordinal":
        shape = np.cumsum(np.exp(shape))[:, None]
    elif len(shape):
        shape = np.abs(shape)[one.rows.stratum][mine]
    u = w[: one.where.effects] * abs(phi[0])
    eta = one.predictor(w[one.where.effects :], u)[mine]
    return NAMED[family].log_likelihood(one.y[mine], one.m[mine], eta, shape).sum()


@pytest.mark.parametrize("family", ["binomial", "poisson", "ordinal"])
def test_cells_lose_nothing(family):
    """Rows that agree are one cell; the density is that of rows that are kept apart."""
    one = case(family, n=400)
    coarse = np.column_stack([one.rows.x[:, :2], (one.rows.x[:, 2:] > 0) * 1.0])
    rows = Rows(coarse, (coarse[:, :2].copy(),), one.rows.codes, one.rows.stratum, 2)
    outcome = Outcome(CODES[family], one.y, one.m)
    few = cells(rows, one.where, outcome)
    assert (few.count > 0).sum() < 300
    # A column that is all but constant keeps them apart.
    apart = coarse + np.column_stack([np.zeros((400, 3)), 1e-13 * np.arange(400)])
    many = cells(Rows(apart, *(rows.z, rows.codes, rows.stratum, 2)), one.where, outcome)
    assert (many.count > 0).sum() == 400
    a, b = one.posterior._replace(cells=few), one.posterior._replace(cells=many)
    here, there = somewhere(a, 1), somewhere(a, 2)
    assert log_density(here, a) - log_density(there, a) == pytest.approx(
        log_density(here, b) - log_density(there, b), abs=1e-8
    )


def test_factors_that_cross_are_eliminated_together():
    """Raters that see all sites: the density does not depend on which factor is in the border."""
    one = case("binomial", slopes=1, raters=4)
    assert one.where.border.size > 0
    swapped = layout(one.where.factors[::-1], one.rows.codes[::-1])
    rows = Rows(one.rows.x, one.rows.z[::-1], one.rows.codes[::-1], one.rows.stratum, 2)
    other = one.posterior._replace(
        cells=cells(rows, swapped, Outcome(CODES["binomial"], one.y, one.m)),
    )
    phi = np.array([0.4, 0.7])
    assert log_density(phi, one.posterior) == pytest.approx(log_density(phi[::-1], other), abs=1e-9)


def test_sds_are_folded_at_zero():
    """The density is the same on either side, and at zero that without the effects."""
    posterior = case("negative_binomial").posterior
    phi = somewhere(posterior)
    for i in np.flatnonzero(posterior.sides):
        folded = phi.copy()
        folded[i] *= -1
        if i < 2:  # the correlation changes sign with one of its SDs: here they are taken as sizes
            assert log_density(folded, posterior) == pytest.approx(
                log_density(phi, posterior), abs=1e-9
            )
    assert np.isfinite(log_density(np.zeros(posterior.size), posterior))
    relative = relative_factors(np.r_[0.0, -phi], posterior.terms, posterior.correlated)
    assert (np.diagonal(relative, axis1=1, axis2=2) >= 0).all()


def test_rising_factorials():
    """log(Gamma(y + size) / Gamma(size) / size^y) for small and huge sizes, by sums of logarithms."""
    for y in (0, 1, 7, 60, 900):
        for size in (0.3, 20.0, 1e5, 1e9):
            right = np.log1p(np.arange(y) / size).sum()
            assert log_rising(float(y), size) == pytest.approx(right, rel=1e-8, abs=1e-8)


def test_separation_has_a_mode():
    """All successes in one arm, none in the other: the prior holds coefficients."""
    one = case("binomial", slopes=1)
    y = np.where(one.rows.stratum == 1, one.m, 0.0)
    posterior = one.posterior._replace(
        cells=cells(one.rows, one.where, Outcome(CODES["binomial"], y, one.m))
    )
    value, gradient = value_and_gradient(start(posterior), posterior)
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("family", ["weibull", "gamma"])
def test_times_far_from_one(family):
    """A dispersion of .005, and times whose powers are nothing to all digits."""
    link("laplace_")
    y, shape = np.array([0.005, 0.0049, 3e3, 2e9] * 4), np.array([np.log(0.005)])
    m, zero = np.array([1.0, 0.0] * 8), np.zeros(16, np.int64)
    rows, rest, out = np.zeros((4, 16)), np.zeros(1), np.empty(16)
    rows = tuple(rows)
    prepare(CODES[family], y, m, np.ones(16), zero, shape, rows, rest)
    for eta in (np.log(y), np.log(y) + 0.003, np.log(y) - 0.003):
        values(FORMS[CODES[family]], eta, rows, out)
        right = FAMILIES[family].log_likelihood(y, m, eta, np.exp(shape[0])).sum()
        left_out = (np.log(y) * (m if family == "weibull" else 1.0)).sum()
        assert out.sum() + rest[0] - left_out == pytest.approx(right, rel=1e-9)


@pytest.mark.parametrize(("family", "start"), [("beta_binomial", 9), ("student_t", 9)])
def test_climbs_from_ground_that_is_bent_upwards(family, start):
    """From far away the climb ends where it ends from zero, though the Hessian there has the wrong sign."""
    one = case(family, slopes=1)
    link("laplace_")
    posterior, room = one.posterior, make_room(one.posterior.cells)
    phi = somewhere(posterior)
    near, mode = laplace(phi, posterior, room, 1e-14), room.w.copy()
    room.w[:] = 0.0
    room.w[-4] = start  # the constant
    common_predictor(posterior.cells, room.zt, room.w[posterior.cells.first.size :], room.eta)
    form, rows = FORMS[posterior.cells.family], (room.a, room.b, room.c, room.d)
    curves(form, room.eta, rows, room.value, room.slope, room.bend)
    assert room.bend.sum() < 0
    assert laplace(phi, posterior, room, 1e-14) == pytest.approx(near, abs=1e-8)
    assert np.allclose(room.w, mode, atol=1e-6)


@pytest.mark.parametrize("form", [SHARES, BETA])
def test_curvatures_of_fisher_scoring(form):
    """Means over outcomes of the curvature, within four standard errors."""
    rng, count = np.random.default_rng(2), 80_000
    eta, size, trials = np.full(count, 1.7), np.full(count, 3.0), 12
    p = 1 / (1 + np.exp(-1.7))
    y = rng.beta(size * p, size * (1 - p))
    hits = rng.binomial(trials, y)
    a, b = (np.log(y), np.log1p(-y)) if form == BETA else (hits * 1.0, trials - hits * 1.0)
    rows = a, b, size, np.ones(count)
    out, slope, bend, positive = np.empty((4, count))
    curves(form, eta, rows, out, slope, bend)
    positive_bend(form, eta, rows, 0, count, positive)
    apart = bend - positive
    assert (positive > 0).all() and (bend < 0).any()
    assert abs(apart.mean()) < 4 * apart.std() / np.sqrt(count)
