"""Coefficients and group effects from their exact normal given standard deviations and correlations.

With the triangular systems of :mod:`bdtr.engine.density.elimination` a draw is one back substitution with
standard normal numbers on the right-hand side: common coefficients first, then the border, then blocks. Eight
draws are made at a time where the border is small.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from bdtr.engine.compiled.kernels import kernel
from bdtr.engine.compiled.lanes import LANES, every, load, minus, plus, room_for, root, store
from bdtr.engine.crossproducts import CrossProducts, Responses
from bdtr.engine.density.batched import eliminate_batch, make_batch_room, solve_common
from bdtr.engine.density.elimination import (
    border_cholesky,
    border_system,
    eliminate,
    relative_factors,
)
from bdtr.engine.density.marginal import reduced_density
from bdtr.engine.layout import Layout
from bdtr.engine.parameters import Parameters
from bdtr.engine.system import Priors, Response, System, system
from bdtr.results.threads import spread

__all__ = ["empty_levels", "exact_draws", "solve"]

_NUMBERS = 4_000_000  # standard normal numbers in memory at once


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
        Cross-products, the responses shifted to zero prior means, and the layout of phi.
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
    coefficients = np.empty((count, p))
    effects = np.empty((count, where.effects))
    own, priors = system(products, params), Priors(params.sd_prior, params.alpha)
    empty_at, empty_factor = empty_levels(where)
    size = max(1, _NUMBERS // (p + where.effects))
    for at in range(0, count, size):
        part = slice(at, min(at + size, count))
        shape = (part.stop - at, p + where.effects)
        noise = rng.standard_normal(shape)
        rows, inverse = np.unique(which[part], return_inverse=True)
        zty, hty, yty = responses.each(rows)
        spread(
            _draw, -(-len(inverse) // LANES), phi[part], inverse, noise, own, priors, zty, hty, yty,
            where.inner.target, where.border.target, empty_at, empty_factor, coefficients[part],
            effects[part],
        )  # fmt: skip
    return coefficients + params.mean, effects


def solve(
    phi: np.ndarray,
    own: System,
    zty: np.ndarray,
    hty: np.ndarray,
    yty: np.ndarray,
    params: Parameters,
    where: Layout,
) -> tuple[np.ndarray, np.ndarray]:
    """Means of coefficients (response x term) and group effects (response x effect) given phi.

    Parameters
    ----------
    phi
        (response x phi).
    own
        Cross-products as the kernels take them.
    zty, hty, yty
        Cross-products with the responses (response, stratum, ...).
    params, where
        Layout of phi and of the effects.

    Returns
    -------
    coefficients, effects : numpy.ndarray
        Levels without rows have zero.
    """
    count, p = len(phi), params.precision.size
    coefficients, effects = np.empty((count, p)), np.zeros((count, where.effects))
    none = np.zeros(0, dtype=np.int64)
    priors = Priors(params.sd_prior, params.alpha)
    spread(
        _draw, -(-count // LANES), phi, np.arange(count), np.zeros((count, p + where.effects)), own, priors,
        zty, hty, yty, where.inner.target, where.border.target, none, none, coefficients, effects,
    )  # fmt: skip
    return coefficients, effects


def empty_levels(where: Layout) -> tuple[np.ndarray, np.ndarray]:
    """First place and factor of each level without rows."""
    places, factors = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for i, (factor, position) in enumerate(zip(where.factors, where.position, strict=True)):
        levels = np.flatnonzero(position < 0)
        places.append(where.offset[i] + levels * factor.terms)
        factors.append(np.full(levels.size, i))
    return np.concatenate(places).astype(np.int64), np.concatenate(factors).astype(np.int64)


@kernel
def _draw(first, last, phi, which, noise, own, priors, zty, hty, yty, target, border_target, empty_at,
          empty_factor, coefficients, effects):  # fmt: skip
    """Groups first to last of eight draws."""
    room = make_batch_room(own, True)
    if room.alone:
        for d in range(first * LANES, min(last * LANES, len(phi))):
            y = Response(zty[which[d]], hty[which[d]], yty[which[d]])
            _draw_one(phi[d], noise[d], own, priors, y, target, border_target, empty_at, empty_factor,
                      room.one, coefficients[d], effects[d])  # fmt: skip
        return
    p, border, size = own.precision.size, own.border, phi.shape[1]
    side = border + p + 1
    draws, rows = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    some = np.empty((LANES, size))
    h, numbers, ignored = room_for(border + p), room_for(2), np.empty(LANES)
    for group in range(first, last):
        for lane in range(LANES):
            draws[lane] = min(group * LANES + lane, len(phi) - 1)
            rows[lane] = which[draws[lane]]
            some[lane] = phi[draws[lane]]
            numbers[LANES + lane] = np.exp(some[lane, 0])
        eliminate_batch(some, rows, own, zty, hty, yty, room)
        solve_common(some, own.precision, border, room.full, room.logdet, ignored)
        for k in range(p - 1, -1, -1):
            row = (border + k) * side + border
            pivot = load(room.full, (row + k) * LANES)
            value = load(room.full, (row + p) * LANES)
            value = plus(value, _gathered(noise, draws, k, numbers), root(pivot))
            for i in range(k + 1, p):
                value = minus(
                    value, load(room.full, (row + i) * LANES), load(h, (border + i) * LANES)
                )
            store(h, (border + k) * LANES, value / pivot)
            _scattered(value / pivot, draws, k, numbers, coefficients)
        sigma = load(numbers, LANES)
        _draw_border_batch(
            room.factors, room.longest, border, own.border_factor, room.full, side, sigma, noise, draws, p,
            border_target, h, numbers, effects,
        )  # fmt: skip
        _draw_batch(
            room.factors, room.longest, own.terms, own.start, own.block_groups, own.group_start,
            own.group_factor, room.rows, room.row_start, sigma, noise, draws, target, h, numbers, effects,
        )  # fmt: skip
        for e in range(empty_at.size):
            f, at = empty_factor[e], empty_at[e]
            for a in range(own.terms[f]):
                value = every(0.0)
                for c in range(a + 1):
                    t = load(room.factors, ((f * room.longest + a) * room.longest + c) * LANES)
                    value = plus(value, t, _gathered(noise, draws, p + at + c, numbers))
                _scattered(sigma * value, draws, at + a, numbers, effects)


@njit(inline="always")
def _gathered(numbers, draws, column, between):
    """One column of an array, of eight draws."""
    for lane in range(LANES):
        between[lane] = numbers[draws[lane], column]
    return load(between, 0)


@njit(inline="always")
def _scattered(value, draws, column, between, out):
    """Write one column of eight draws."""
    store(between, 0, value)
    for lane in range(LANES):
        out[draws[lane], column] = between[lane]


@kernel
def _draw_border_batch(factors, longest, border, border_factor, full, side, sigma, noise, draws, p, target,
                       h, between, effects):  # fmt: skip
    """As :func:`_draw_border`, for eight draws at once and levels with one term."""
    for k in range(border - 1, -1, -1):
        row = k * side
        value = load(full, (row + side - 1) * LANES)
        for i in range(k + 1, side - 1):
            value = minus(value, load(full, (row + i) * LANES), load(h, i * LANES))
        value = value / sigma + _gathered(noise, draws, p + target[k], between)
        t = load(factors, border_factor[k] * longest * longest * LANES)
        own = sigma * t * load(full, (row + k) * LANES) * value
        store(h, k * LANES, own)
        _scattered(own, draws, target[k], between, effects)


@kernel
def _draw_batch(factors, longest, terms, start, block_groups, group_start, group_factor, all_rows, row_start,
                sigma, noise, draws, target, h, between, effects):  # fmt: skip
    """As :func:`_draw_blocks`, for eight draws at once."""
    wide, p = h.size // LANES, noise.shape[1] - effects.shape[1]
    most = 1
    for j in range(start.size - 1):
        most = max(most, start[j + 1] - start[j])
    v, u = room_for(most), room_for(most)
    for j in range(start.size - 1):
        first = start[j]
        m = start[j + 1] - first
        width = m + wide + 1
        rows = all_rows[row_start[j] * LANES : (row_start[j] + m * width) * LANES]
        for g in range(block_groups[j + 1] - 1, block_groups[j] - 1, -1):
            f = group_factor[g]
            at, last = group_start[g] - first, group_start[g] - first + terms[f]
            for k in range(last - 1, at - 1, -1):
                row = k * width
                value = load(rows, (row + width - 1) * LANES)
                for i in range(wide):
                    value = minus(value, load(rows, (row + m + i) * LANES), load(h, i * LANES))
                column = p + target[first + k]
                value = value / sigma + _gathered(noise, draws, column, between)
                for i in range(k + 1, last):
                    value = minus(value, load(rows, (row + i) * LANES), load(v, i * LANES))
                for i in range(last, m):
                    value = minus(value, load(rows, (row + i) * LANES), load(u, i * LANES))
                store(v, k * LANES, load(rows, (row + k) * LANES) * value)
            for a in range(at, last):
                value = every(0.0)
                for c in range(at, a + 1):
                    t = load(factors, ((f * longest + a - at) * longest + c - at) * LANES)
                    value = plus(value, t, load(v, c * LANES))
                store(u, a * LANES, value)
                _scattered(sigma * value, draws, target[first + a], between, effects)


@kernel
def _draw_one(phi, noise, s, priors, y, target, border_target, empty_at, empty_factor, room,
              coefficients, effects):  # fmt: skip
    p, border = s.precision.size, s.border
    reduced = np.empty((p + 1, p + 1))
    sigma = np.exp(phi[0])
    logdet = eliminate(phi, s, y, reduced, room)
    reduced_density(phi, logdet, reduced, s, priors, room.small)
    h = np.empty(border + p)  # border effects u, then common coefficients b
    small = room.small
    for k in range(p - 1, -1, -1):
        value = small[k, p] + np.sqrt(small[k, k]) * noise[k]
        for i in range(k + 1, p):
            value -= small[k, i] * h[border + i]
        h[border + k] = value / small[k, k]
    for k in range(p):
        coefficients[k] = h[border + k]
    factors = relative_factors(phi, s.terms, s.correlated)
    if border > 0:
        _draw_border(factors, s, room.full, sigma, noise[p:], border_target, h, effects)
    _draw_blocks(factors, s.terms, s.start, s.block_groups, s.group_start, s.group_factor, room.triangle,
                 room.panel, sigma, noise[p:], target, h, effects)  # fmt: skip
    for e in range(empty_at.size):
        f = empty_factor[e]
        at = empty_at[e]
        for a in range(s.terms[f]):
            value = 0.0
            for c in range(a + 1):
                value += factors[f, a, c] * noise[p + at + c]
            effects[at + a] = sigma * value


@kernel
def _draw_blocks(factors, terms, start, block_groups, group_start, group_factor, triangle, panel, sigma,
                 noise, target, h, effects):  # fmt: skip
    """Effects of the blocks given all others: R v = [what is left of y] / sigma + z, levels last to first.

    Rows of R beyond their own level take the T v of other levels (see the elimination).
    """
    wide, largest = h.size, triangle.shape[1]
    v, u = np.empty(largest), np.empty(largest)
    for j in range(start.size - 1):
        first = start[j]
        m = start[j + 1] - first
        for g in range(block_groups[j + 1] - 1, block_groups[j] - 1, -1):
            f = group_factor[g]
            at, last = group_start[g] - first, group_start[g] - first + terms[f]
            for k in range(last - 1, at - 1, -1):
                row, beyond = triangle[first + k], panel[first + k]
                value = beyond[wide]
                for i in range(wide):
                    value -= beyond[i] * h[i]
                value = value / sigma + noise[target[first + k]]
                for i in range(k + 1, last):
                    value -= row[i] * v[i]
                for i in range(last, m):
                    value -= row[i] * u[i]
                v[k] = row[k] * value
            for a in range(at, last):
                u[a] = 0.0
                for c in range(at, a + 1):
                    u[a] += factors[f, a - at, c - at] * v[c]
                effects[target[first + a]] = sigma * u[a]


@kernel
def _draw_border(factors, s, full, sigma, noise, target, h, effects):
    """Effects of the border given the common coefficients: (L L') v = W (y - X b) / sigma + L z."""
    border = s.border
    wide = h.size
    root = border_cholesky(border_system(factors, s, full), border)
    v = np.empty(border)
    for k in range(border):
        value = root[wide, k]
        for i in range(border, wide):
            value -= root[i, k] * h[i]
        v[k] = value / sigma + noise[target[k]]
    for k in range(border - 1, -1, -1):
        value = v[k]
        for i in range(k + 1, border):
            value -= root[i, k] * v[i]
        v[k] = value / root[k, k]
    for g in range(s.border_start.size):
        f = s.border_factor[g]
        at = s.border_start[g]
        for a in range(s.terms[f]):
            value = 0.0
            for c in range(a + 1):
                value += factors[f, a, c] * v[at + c]
            h[at + a] = sigma * value
            effects[target[at + a]] = sigma * value
