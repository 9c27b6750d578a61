"""Posterior draws from the marginal density by short slice chains, one response after another.

Univariate slice sampling with stepping out and shrinkage (Neal 2003, Ann. Statist. 31(3)) of
phi = (log residual SD, relative SDs folded at zero, atanh partial correlations), then coefficients and
group effects from their exact normal given phi. A long chain on one response finds where the mass is
and how wide it is; every response then has a chain of its own from there. SDs near zero need no
special care: the density is folded there, not unbounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from bdtr.multilevel.crossproducts import CrossProducts, Responses
from bdtr.multilevel.marginal import (
    Parameters,
    eliminate,
    load_block,
    reduced_density,
    relative_factors,
    triangularise,
)

__all__ = ["DirectDraws", "SliceReport", "draw_each", "draw_posterior", "exact_draws"]

_PILOT_SWEEPS = 300
_LEAST_SWEEPS, _MOST_SWEEPS = 10, 60
_WARM_SWEEPS = 4  # from states drawn for similar responses
_CHUNK = 64  # responses between two reports of progress
_STEPS_OUT = 8


@dataclass(frozen=True)
class SliceReport:
    """How the slice chains were run: sweeps per response, lag-1 correlation per sweep, evaluations."""

    sweeps: int
    correlation: float
    evaluations: float


@dataclass(frozen=True)
class DirectDraws:
    """Draws of the parameters of one stage, first axis the draw.

    ``coefficients`` (draw x term) are those of the centred columns; ``effects`` (draw x effect) are
    the group effects, factor after factor, level-major; ``phi`` is as in the marginal density.
    """

    phi: np.ndarray
    coefficients: np.ndarray
    effects: np.ndarray
    report: SliceReport


def draw_each(
    products: CrossProducts,
    responses: Responses,
    params: Parameters,
    seed: np.random.SeedSequence,
    progress: Callable[[int, int], None] | None = None,
    start: np.ndarray | None = None,
) -> DirectDraws:
    """One posterior draw for each response: a new data set, its own posterior, one draw from it.

    Parameters
    ----------
    products
        Cross-products of the columns.
    responses
        Cross-products with the responses.
    params
        Meaning and priors of phi.
    seed
        Source of randomness; the result does not depend on the number of threads.
    progress
        Called with (responses done, responses in all).
    start
        State of each chain to start from (response x phi), drawn for similar responses: fewer sweeps
        then suffice. Left out: the median of a long chain on the first response.

    Returns
    -------
    DirectDraws
        One draw per response.
    """
    responses = responses.shifted(products, params.mean)
    floor = _floor(products, responses)
    pilot_seed, chain_seed, normal_seed = seed.spawn(3)
    median, width, correlation = _pilot(products, responses, params, floor, pilot_seed)
    sweeps = _sweeps(correlation)
    count = responses.count
    phi = np.tile(median, (count, 1))
    if start is not None:
        phi, sweeps = start.copy(), max(_WARM_SWEEPS, sweeps // 3)
        phi[:, 0] = np.maximum(phi[:, 0], math.log(1.01 * floor))
    seeds = chain_seed.generate_state(count, np.uint64)
    evaluations = np.zeros(count, dtype=np.int64)
    for at in range(0, count, _CHUNK):
        to = min(at + _CHUNK, count)
        kept = np.empty((to - at, 1, phi.shape[1]))
        _chains(
            phi[at:to], width, sweeps, 1, seeds[at:to], *_system(products, responses, at, to),
            *_priors(params, floor), kept, evaluations[at:to],
        )  # fmt: skip
        phi[at:to] = kept[:, 0]
        if progress:
            progress(to, count)
    which = np.arange(count)
    coefficients, effects = exact_draws(products, responses, params, phi, which, normal_seed)
    report = SliceReport(sweeps, correlation, float(evaluations.mean()))
    return DirectDraws(phi, coefficients, effects, report)


def draw_posterior(
    products: CrossProducts,
    response: Responses,
    params: Parameters,
    chains: int,
    draws: int,
    seed: np.random.SeedSequence,
    progress: Callable[[int, int], None] | None = None,
) -> DirectDraws:
    """Draws from the posterior of one response, chain after chain.

    Parameters
    ----------
    products, response, params
        As in :func:`draw_each`; ``response`` holds one response.
    chains, draws
        Number of independent chains and of draws kept from each.
    seed, progress
        As in :func:`draw_each`.

    Returns
    -------
    DirectDraws
        ``chains * draws`` draws, the first chain first.
    """
    response = response.shifted(products, params.mean)
    floor = _floor(products, response)
    pilot_seed, chain_seed, normal_seed = seed.spawn(3)
    median, width, correlation = _pilot(products, response, params, floor, pilot_seed)
    thin = max(1, _sweeps(correlation) // 5)
    kept = np.empty((chains, draws, median.size))
    evaluations = np.zeros(chains, dtype=np.int64)
    state = np.tile(median, (chains, 1))
    seeds = chain_seed.generate_state(chains, np.uint64)
    zty = np.tile(response.zty.T, (chains, 1))
    xty = np.tile(response.xty.T, (chains, 1))
    yty = np.tile(response.yty, chains)
    system = _system(products, Responses(zty.T, xty.T, yty), 0, chains)
    warm = np.empty((chains, 1, median.size))
    _chains(
        state, width, 5 * thin + 20, 1, seeds, *system, *_priors(params, floor), warm, evaluations
    )
    seeds = chain_seed.spawn(1)[0].generate_state(chains, np.uint64)
    _chains(
        warm[:, 0], width, thin, draws, seeds, *system, *_priors(params, floor), kept, evaluations
    )
    if progress:
        progress(chains * draws, chains * draws)
    phi = kept.reshape(chains * draws, -1)
    which = np.zeros(len(phi), dtype=np.int64)
    coefficients, effects = exact_draws(products, response, params, phi, which, normal_seed)
    report = SliceReport(thin, correlation, float(evaluations.sum() / len(phi)))
    return DirectDraws(phi, coefficients, effects, report)


def _sweeps(correlation: float) -> int:
    """Sweeps after which a chain has forgotten all but 1 % of its start."""
    if correlation <= 0.0:
        return _LEAST_SWEEPS
    needed = math.ceil(math.log(0.01) / math.log(min(correlation, 0.99)))
    return min(max(needed, _LEAST_SWEEPS), _MOST_SWEEPS)


def _pilot(products, responses, params, floor, seed) -> tuple[np.ndarray, np.ndarray, float]:
    """Long chain on the first response: median, slice widths, and the slowest lag-1 correlation.

    One response and not the mean of them: a mean response has less residual and group variance than
    any single one, so its posterior lies elsewhere.
    """
    n, p = products.rows, params.precision.size
    first = Responses(responses.zty[:, :1], responses.xty[:, :1], responses.yty[:1])
    start = np.full(params.size, 0.3)
    start[0] = max(
        0.5 * math.log(max(_residual_variance(products, first), 1e-300)), math.log(2 * floor)
    )
    start[1 + params.sds :] = 0.0
    width = np.full(params.size, 0.5)
    width[0] = 2.5 / math.sqrt(2 * max(n - p, 2))
    state, rounds = start[None, :], seed.generate_state(3, np.uint64)
    evaluations = np.zeros(1, dtype=np.int64)
    system, priors = _system(products, first, 0, 1), _priors(params, floor)
    for sweeps, word in zip(
        (_PILOT_SWEEPS // 6, _PILOT_SWEEPS // 6, _PILOT_SWEEPS), rounds, strict=True
    ):
        kept = np.empty((1, sweeps, params.size))
        _chains(state, width, 1, sweeps, np.array([word]), *system, *priors, kept, evaluations)
        path = _folded(kept[0], params)
        late = path[sweeps // 4 :]
        width = np.maximum(2.5 * late.std(axis=0), 1e-6)
        state = np.median(late, axis=0)[None, :]
    centred = late - late.mean(axis=0)
    lag = (centred[1:] * centred[:-1]).sum(axis=0) / np.maximum((centred**2).sum(axis=0), 1e-300)
    return state[0], width, float(lag.max())


def _folded(phi: np.ndarray, params: Parameters) -> np.ndarray:
    out = phi.copy()
    out[..., 1 : 1 + params.sds] = np.abs(out[..., 1 : 1 + params.sds])
    return out


def _residual_variance(products: CrossProducts, first: Responses) -> float:
    """Residual variance of least squares on the common columns: where to start."""
    p = first.xty.shape[0]
    ridge = products.xtx + 1e-8 * np.trace(products.xtx) / max(p, 1) * np.eye(p)
    solved = np.linalg.solve(ridge, first.xty[:, 0])
    return float(first.yty[0] - first.xty[:, 0] @ solved) / max(products.rows - p, 1)


def _system(products: CrossProducts, responses: Responses, at: int, to: int):
    where = products.layout
    terms = np.array([f.terms for f in where.factors], dtype=np.int64)
    correlated = np.array([f.correlated for f in where.factors], dtype=np.bool_)
    return (
        terms, correlated, where.start, where.group_start, where.group_factor, where.block_groups,
        products.blocks, products.block_start, products.xtx,
        np.ascontiguousarray(responses.zty[:, at:to].T),
        np.ascontiguousarray(responses.xty[:, at:to].T),
        np.ascontiguousarray(responses.yty[at:to]), products.rows,
    )  # fmt: skip


def _priors(params: Parameters, floor: float):
    return params.sd_prior, params.alpha, params.precision, floor


def _floor(products: CrossProducts, responses: Responses) -> float:
    """Smallest residual SD that is looked at: 1e-4 of the size of the responses.

    A response that is an exact function of the columns would drive the residual SD to zero and the
    density to infinity; held at the floor it is reproduced to four digits.
    """
    return 1e-4 * math.sqrt(max(float(responses.yty.mean()), 1e-300) / max(products.rows, 1))


@njit(cache=True)
def _uniform(state):
    """Next uniform in (0, 1): splitmix64 (Steele, Lea and Flood 2014), one stream per response."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    x = state[0]
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return (float(x >> np.uint64(11)) + 0.5) / 9007199254740992.0


@njit(cache=True, parallel=True)
def _chains(start_phi, width, thin, draws, seeds, terms, correlated, start, group_start,
            group_factor, block_groups, blocks, block_start, xtx, zty, xty, yty, rows, sd_prior,
            alpha, precision, floor, kept, evaluations):  # fmt: skip
    """Slice chains, one per response; every ``thin`` sweeps a state is kept."""
    count, size = start_phi.shape
    p = precision.size
    largest = 1
    for j in range(start.size - 1):
        largest = max(largest, start[j + 1] - start[j])
    for s in prange(count):
        work = np.empty((largest, largest + p + 1))
        panel = np.empty((start[-1], p + 1))
        small = np.empty((p, p + 1))
        current = np.empty((p + 1, p + 1))
        trial = np.empty((p + 1, p + 1))
        phi = start_phi[s].copy()
        rng = np.empty(1, dtype=np.uint64)
        rng[0] = seeds[s]
        logdet = eliminate(phi, terms, correlated, start, group_start, group_factor, block_groups,
                           blocks, block_start, xtx, zty[s], xty[s], yty[s], current,
                           work, panel)  # fmt: skip
        density = reduced_density(
            phi, logdet, current, rows, sd_prior, alpha, precision, floor, small
        )
        used = 1
        for d in range(draws):
            for _ in range(thin):
                for i in range(size):
                    level = density + np.log(_uniform(rng))
                    x0 = phi[i]
                    left = x0 - width[i] * _uniform(rng)
                    right = left + width[i]
                    # Stepping out to the left, to the right, then shrinkage towards x0.
                    room = int(_STEPS_OUT * _uniform(rng))
                    other = _STEPS_OUT - 1 - room
                    phase = 0
                    while True:
                        if phase == 0:
                            if room <= 0:
                                phase = 1
                                continue
                            x = left
                        elif phase == 1:
                            if other <= 0:
                                phase = 2
                                continue
                            x = right
                        else:
                            x = left + _uniform(rng) * (right - left)
                        phi[i] = x
                        used += 1
                        if i == 0:
                            new_logdet = logdet
                            new = reduced_density(phi, logdet, current, rows, sd_prior, alpha,
                                                  precision, floor, small)  # fmt: skip
                        else:
                            new_logdet = eliminate(phi, terms, correlated, start, group_start,
                                                   group_factor, block_groups, blocks, block_start,
                                                   xtx, zty[s], xty[s], yty[s], trial,
                                                   work, panel)  # fmt: skip
                            new = reduced_density(phi, new_logdet, trial, rows, sd_prior, alpha,
                                                  precision, floor, small)  # fmt: skip
                        if phase == 0:
                            if new > level:
                                left -= width[i]
                                room -= 1
                            else:
                                phase = 1
                        elif phase == 1:
                            if new > level:
                                right += width[i]
                                other -= 1
                            else:
                                phase = 2
                        elif new > level:
                            density = new
                            logdet = new_logdet
                            if i > 0:
                                current, trial = trial, current
                            break
                        else:
                            if x < x0:
                                left = x
                            else:
                                right = x
                            if right - left < 1e-14 * (1.0 + abs(x0)):
                                phi[i] = x0  # the slice has shrunk to a point: stay
                                break
            kept[s, d] = phi
        evaluations[s] += used


def exact_draws(
    products: CrossProducts,
    responses: Responses,
    params: Parameters,
    phi: np.ndarray,
    which: np.ndarray,
    seed: np.random.SeedSequence,
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and group effects from their exact normal given phi.

    Parameters
    ----------
    products, responses, params
        As in :func:`draw_each`, the responses shifted to zero prior means.
    phi
        Draws of phi (draw x phi).
    which
        Position of the response that each draw belongs to.
    seed
        Source of randomness.

    Returns
    -------
    coefficients, effects : numpy.ndarray
        (draw x term) of centred columns, (draw x effect).
    """
    count, p = len(phi), params.precision.size
    where = products.layout
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, p + where.effects))
    coefficients = np.empty((count, p))
    effects = np.empty((count, where.effects))
    system = _system(products, responses, 0, responses.count)
    empty = _empty_levels(where)
    _draw_exact(
        phi, which, noise, *system, *_priors(params, 0.0), where.target, *empty, coefficients,
        effects,
    )  # fmt: skip
    return coefficients + params.mean, effects


def _empty_levels(where) -> tuple[np.ndarray, np.ndarray]:
    """First place and factor of each level without rows."""
    places, factors = [], []
    for i, (factor, position) in enumerate(zip(where.factors, where.position, strict=True)):
        levels = np.flatnonzero(position < 0)
        places.append(where.offset[i] + levels * factor.terms)
        factors.append(np.full(levels.size, i))
    if not places:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    return np.concatenate(places).astype(np.int64), np.concatenate(factors).astype(np.int64)


@njit(cache=True, parallel=True)
def _draw_exact(phi, which, noise, terms, correlated, start, group_start, group_factor,
                block_groups, blocks, block_start, xtx, zty, xty, yty, rows, sd_prior, alpha,
                precision, floor, target, empty_at, empty_factor, coefficients, effects):  # fmt: skip
    p = precision.size
    largest = 1
    for j in range(start.size - 1):
        largest = max(largest, start[j + 1] - start[j])
    for s in prange(phi.shape[0]):
        y = which[s]
        work = np.empty((largest, largest + p + 1))
        panel = np.empty((start[-1], p + 1))
        small = np.empty((p, p + 1))
        reduced = np.empty((p + 1, p + 1))
        v = np.empty(largest)
        sigma = np.exp(phi[s, 0])
        logdet = eliminate(phi[s], terms, correlated, start, group_start, group_factor,
                           block_groups, blocks, block_start, xtx, zty[y], xty[y], yty[y], reduced,
                           work, panel)  # fmt: skip
        reduced_density(phi[s], logdet, reduced, rows, sd_prior, alpha, precision, floor, small)
        b = coefficients[s]
        for k in range(p - 1, -1, -1):
            value = small[k, p] + np.sqrt(small[k, k]) * noise[s, k]
            for i in range(k + 1, p):
                value -= small[k, i] * b[i]
            b[k] = value / small[k, k]
        if terms.size == 0:
            continue
        factors = relative_factors(phi[s], terms, correlated)
        for j in range(start.size - 1):
            first = start[j]
            m = load_block(j, factors, terms, start, group_start, group_factor, block_groups,
                           blocks, block_start, zty[y], p, work)  # fmt: skip
            triangularise(m, m + p + 1, work)
            for k in range(m - 1, -1, -1):
                row = work[k]
                value = row[m + p]
                for i in range(p):
                    value -= row[m + i] * b[i]
                value = value / sigma + np.sqrt(row[k]) * noise[s, p + target[first + k]]
                for i in range(k + 1, m):
                    value -= row[i] * v[i]
                v[k] = value / row[k]
            for g in range(block_groups[j], block_groups[j + 1]):
                f = group_factor[g]
                at = group_start[g]
                for a in range(terms[f]):
                    value = 0.0
                    for c in range(a + 1):
                        value += factors[f, a, c] * v[at - first + c]
                    effects[s, target[at + a]] = sigma * value
        for e in range(empty_at.size):
            f = empty_factor[e]
            at = empty_at[e]
            for a in range(terms[f]):
                value = 0.0
                for c in range(a + 1):
                    value += factors[f, a, c] * noise[s, p + at + c]
                effects[s, at + a] = sigma * value
