"""Eight places at once: each as if it were alone."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from test_marginal import CASES, prepared

from bdtr.engine.coefficients.exact import exact_draws, solve
from bdtr.engine.compiled.lanes import LANES
from bdtr.engine.density import batched
from bdtr.engine.density.batched import densities, make_batch_room
from bdtr.engine.density.elimination import relative_factors
from bdtr.engine.density.marginal import log_density
from bdtr.engine.system import Posteriors


def places(params, zero_at: int | None = None) -> np.ndarray:
    phi = np.random.default_rng(3).normal(size=(LANES, params.size)) * 0.6
    if zero_at is not None:
        phi[zero_at, params.group_sds] = 0.0
    return phi


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("which", [[0] * LANES, [0, 1] * (LANES // 2)], ids=["one", "two"])
def test_densities_at_eight_places_are_those_at_each(case, which):
    _, _, _, params, products, responses, _ = prepared(*case)
    posteriors = Posteriors.given(products, responses, params, 0.0)
    targets, out = posteriors.of(np.arange(2)), np.empty(LANES)
    # Effects that are nothing in one lane are something in the others; one phi is nowhere.
    phi = places(params, zero_at=2)
    phi[5, 0] = np.nan
    densities(phi, np.array(which), *targets, make_batch_room(targets.own, False), out)
    expected = [
        log_density(p, products, posteriors.responses, s, params)
        for p, s in zip(phi, which, strict=True)
    ]
    assert out[5] == -np.inf
    keep = np.arange(LANES) != 5
    assert out[keep] == pytest.approx(np.array(expected)[keep], abs=1e-9)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_group_effects_too_large_for_a_determinant(case):
    """Products of pivots that would overflow, in some lanes alone."""
    _, _, _, params, products, responses, _ = prepared(*case)
    posteriors = Posteriors.given(products, responses, params, 0.0)
    targets, out = posteriors.of(np.arange(1)), np.empty(LANES)
    phi, which = places(params), np.zeros(LANES, dtype=np.int64)
    phi[::2, params.group_sds] *= 1e5
    densities(phi, which, *targets, make_batch_room(targets.own, False), out)
    expected = [log_density(p, products, posteriors.responses, 0, params) for p in phi]
    assert np.isfinite(out).all()
    assert out == pytest.approx(expected, rel=1e-6)


def test_blocks_too_large_for_eight_at_once_are_looked_at_one_after_another(monkeypatch):
    """Both ways give the same; the limit is one of memory."""
    *_, params, products, responses, _ = prepared("classes of two grades", 3, True)
    posteriors = Posteriors.given(products, responses, params, 0.0)
    targets, phi, found = posteriors.of(np.arange(1)), places(params), []
    for most in (batched._MOST_NUMBERS, 0):
        monkeypatch.setattr(batched, "_MOST_NUMBERS", most)
        room = njit(batched.make_batch_room.py_func)(targets.own, True)
        assert room.alone == (most == 0)
        out = np.empty(LANES)
        densities(phi, np.zeros(LANES, dtype=np.int64), *targets, room, out)
        found.append(out)
    assert found[0] == pytest.approx(found[1], abs=1e-9)


@pytest.mark.parametrize("count", [1, LANES, LANES + 3])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_means_of_coefficients_and_effects_given_phi(case, count):
    """Against the normal equations of all rows; eleven draws are a batch and a part of one."""
    rows, factors, priors, params, products, responses, y = prepared(*case)
    posteriors = Posteriors.given(products, responses, params, 0.0)
    phi = np.resize(places(params), (count, params.size))
    which = np.arange(count) % 2
    targets, where = posteriors.of(which), products.layout
    b, u = solve(phi, targets.own, targets.zty, targets.hty, targets.yty, params, where)
    for d in range(count):
        columns, precision, weight = _dense(phi[d], rows, factors, priors, params)
        left = y[:, which[d]] - rows.x @ params.mean
        mean = np.linalg.solve(
            columns.T @ (weight[:, None] * columns) + precision, columns.T @ (weight * left)
        )
        assert np.r_[b[d], u[d]] == pytest.approx(mean, abs=1e-8)


def test_draws_given_phi_vary_as_the_normal_equations_say():
    """4,000 draws: each standardised quantity has mean 0 and variance 1 within 4.5 standard errors."""
    rows, factors, priors, params, products, responses, y = prepared(
        "classes of two grades", 3, True
    )
    shifted = responses.without(products, params.mean)
    phi, count = places(params)[0], 4000
    b, u = exact_draws(
        products, shifted, params, np.tile(phi, (count, 1)), np.zeros(count, dtype=np.int64),
        np.random.SeedSequence(4),
    )  # fmt: skip
    columns, precision, weight = _dense(phi, rows, factors, priors, params)
    total = columns.T @ (weight[:, None] * columns) + precision
    left = y[:, 0] - rows.x @ params.mean
    mean = np.linalg.solve(total, columns.T @ (weight * left))
    mean[: len(params.mean)] += params.mean
    z = (np.c_[b, u] - mean) @ np.linalg.cholesky(total)
    assert np.abs(z.mean(axis=0)).max() < 4.5 / np.sqrt(count)
    assert np.abs(z.var(axis=0) - 1).max() < 4.5 * np.sqrt(2 / count)
    among = np.corrcoef(z.T) - np.eye(z.shape[1])
    assert np.abs(among).max() < 5.5 / np.sqrt(count)


def _dense(phi, rows, factors, priors, params):
    """Columns of all coefficients and effects, their prior precision, and weights of rows."""
    sigma = np.exp(phi[0])
    ratios = np.concatenate([[0.0], phi[params.ratios]])
    stratum = np.zeros(len(rows.x), dtype=int) if rows.stratum is None else rows.stratum
    weight = np.ones(len(rows.x)) if rows.weight is None else rows.weight
    columns = [rows.x]
    blocks = [np.diag([1 / p.sigma**2 for p in priors.coefficients])]
    roots = relative_factors(phi, params.terms, params.correlated)
    for f, (factor, z, codes) in enumerate(zip(factors, rows.z, rows.codes, strict=True)):
        root = sigma * roots[f][: factor.terms, : factor.terms]
        for level in range(factor.levels):
            own = z[:, level : level + 1] if factor.smooth else z * (codes == level)[:, None]
            columns.append(own)
            blocks.append(np.linalg.inv(root @ root.T))
    precision = np.zeros((sum(map(len, blocks)),) * 2)
    at = 0
    for block in blocks:
        precision[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    return np.hstack(columns), precision, weight / (sigma * np.exp(ratios[stratum])) ** 2
