"""The marginal density at eight places at once: those of one response, or of eight responses.

The elimination of :mod:`bdtr.engine.density.elimination` and the density of :mod:`bdtr.engine.density.marginal`,
with the numbers of eight places side by side (see :mod:`bdtr.engine.compiled.lanes`). Rows that have been
eliminated are not kept: draws and gradients need them, proposals do not. Where effects cross sites, one place is
looked at after another, as most of the work is then a factorisation of their border, which is large.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, types

from bdtr.engine.compiled.kernels import caller, exported, kernel, loader
from bdtr.engine.compiled.lanes import (
    LANES,
    all_zero,
    every,
    every_at,
    largest,
    load,
    room_for,
    root,
    store,
)
from bdtr.engine.density.elimination import eliminate, relative_factors, stratum_weights
from bdtr.engine.density.marginal import log_determinant_of_errors, log_prior, reduced_density
from bdtr.engine.system import PRIORS, SYSTEM, Priors, Response, System, make_room

__all__ = ["densities"]

_CHECKED, _TOO_LARGE = (
    8,
    1e100,
)  # pivots after which a determinant is looked at, lest the next ones overflow it


class _Question(NamedTuple):
    phi: np.ndarray
    which: np.ndarray
    s: System
    priors: Priors
    zty: np.ndarray
    hty: np.ndarray
    yty: np.ndarray
    out: np.ndarray


_MATRIX, _CUBE = types.float64[:, ::1], types.float64[:, :, ::1]
_QUESTION = types.NamedTuple(
    (_MATRIX, types.int64[::1], SYSTEM, PRIORS, _CUBE, _CUBE, _MATRIX, types.float64[::1]),
    _Question,
)
_load = loader(_QUESTION)
_call = caller("bdtr_densities", _QUESTION)


@kernel
def densities(phi, which, s, priors, zty, hty, yty, out):
    """Log densities of eight phi (lane, phi), each given one of the responses."""
    _call(_Question(phi, which, s, priors, zty, hty, yty, out))


@exported("bdtr_densities")
def _densities(address):
    q = _load(address)
    if q.s.border > 0:
        _one_by_one(q.phi, q.which, q.s, q.priors, q.zty, q.hty, q.yty, q.out)
        return 0.0
    s, out, p = q.s, q.out, q.s.precision.size
    weights, factors = _by_lane(q.phi, s)
    zty, reduced = _mixed(q.which, weights, s, q.zty, q.hty, q.yty)
    _eliminate_blocks(
        factors, weights, s.blocks.ravel(), s.used, p, s.terms, s.start, s.block_groups, s.group_start,
        s.group_factor, s.block_start, zty, reduced, out,
    )  # fmt: skip
    _eliminate_common(q.phi, s.precision, reduced, out)
    for lane in range(LANES):
        phi = q.phi[lane]
        value = (
            out[lane] + log_determinant_of_errors(phi, s) + log_prior(phi, s.rows.size, q.priors)
        )
        out[lane] = value if value > -np.inf else -np.inf  # no number: nowhere
    return 0.0


@kernel
def _one_by_one(phi, which, s, priors, zty, hty, yty, out):
    room, p = make_room(s), s.precision.size
    reduced = np.empty((p + 1, p + 1))
    for lane in range(LANES):
        r = which[lane]
        logdet = eliminate(phi[lane], s, Response(zty[r], hty[r], yty[r]), reduced, room)
        out[lane] = reduced_density(phi[lane], logdet, reduced, s, priors, room.small)


@kernel
def _by_lane(phi, s):
    """Weights of strata (stratum, lane) and factors of levels (factor, term, term, lane), flat."""
    strata = s.rows.size
    largest_level = 1
    for f in range(s.terms.size):
        largest_level = max(largest_level, s.terms[f])
    weights, factors = room_for(strata), room_for(s.terms.size * largest_level**2)
    by_stratum = weights.reshape(strata, LANES)
    by_term = factors.reshape(s.terms.size, largest_level, largest_level, LANES)
    for lane in range(LANES):
        by_stratum[:, lane] = stratum_weights(phi[lane], strata)
        by_term[:, :, :, lane] = relative_factors(phi[lane], s.terms, s.correlated)
    return weights, factors


@kernel
def _mixed(which, weights, s, zty, hty, yty):
    """Z'y (position, lane) and the upper triangle of [X'X X'y; . y'y], over all strata, flat."""
    strata, p, inner = s.rows.size, s.hth.shape[1], zty.shape[2]
    own, full = room_for(inner), room_for((p + 1) ** 2)
    own[:] = 0.0
    full[:] = 0.0
    by_position, by_place = own.reshape(inner, LANES), full.reshape(p + 1, p + 1, LANES)
    for a in range(strata):
        for lane in range(LANES):
            w, r = weights[a * LANES + lane], which[lane]
            for i in range(inner):
                by_position[i, lane] += w * zty[r, a, i]
            for i in range(p):
                by_place[i, p, lane] += w * hty[r, a, i]
            by_place[p, p, lane] += w * yty[r, a]
        w = load(weights, a * LANES)
        for i in range(p):
            for c in range(i, p):
                at = (i * (p + 1) + c) * LANES
                store(full, at, load(full, at) + w * every(s.hth[a, i, c]))
    return own, full


@kernel
def _eliminate_blocks(factors, weights, blocks, used, p, terms, start, block_groups, group_start,
                      group_factor, block_start, zty, full, logdet):  # fmt: skip
    """Take what all blocks explain from full; write log determinants.

    A level is multiplied by its T just before it is eliminated, as in the scalar kernel.
    """
    most, strata = 1, used.shape[0]
    for j in range(start.size - 1):
        most = max(most, start[j + 1] - start[j])
    work = room_for(most * (most + p + 1))
    longest = np.int64(round((factors.size / (LANES * max(terms.size, 1))) ** 0.5))
    logdet[:] = 0.0
    determinant = every(1.0)
    for j in range(start.size - 1):
        first = start[j]
        m = start[j + 1] - first
        cells = m + p
        width = cells + 1
        _fill(
            first, m, cells, block_start[j], blocks.size // strata, blocks, used, weights, zty, work
        )
        for g in range(block_groups[j], block_groups[j + 1]):
            f = group_factor[g]
            q = terms[f]
            at = group_start[g] - first
            if q > 1:
                _turn_level(factors, f * longest * longest, longest, at, q, width, work)
            for k in range(at, at + q):
                row = k * width
                pivot = load(work, (row + k) * LANES)
                t = every(1.0)
                if q == 1:
                    t = load(factors, f * longest * longest * LANES)
                    pivot = every(1.0) + t * t * pivot
                scale = t / root(pivot)
                share = scale * scale
                determinant = determinant * pivot
                for i in range(k + 1, m):
                    c = load(work, (row + i) * LANES)
                    if all_zero(c):
                        continue
                    c = c * share
                    for u in range(i, width):
                        into = (i * width + u) * LANES
                        store(work, into, load(work, into) - c * load(work, (row + u) * LANES))
                for u in range(m, width):
                    store(work, (row + u) * LANES, scale * load(work, (row + u) * LANES))
                if k % _CHECKED == 0 and not largest(determinant) < _TOO_LARGE:
                    _add_logs(determinant, logdet)
                    determinant = every(1.0)
        _take(m, width, p + 1, work, full)
    _add_logs(determinant, logdet)


@njit(inline="always")
def _fill(first, m, cells, at_block, positions, blocks, used, weights, zty, work):
    """The rows of a block, over all strata, with Z'y beside them."""
    for row in range(m):
        into = row * (cells + 1)
        source = at_block + row * cells
        empty = True
        for a in range(used.shape[0]):
            if not used[a, first + row]:
                continue
            w = load(weights, a * LANES)
            for c in range(row, cells):
                at = (into + c) * LANES
                value = w * every_at(blocks, a * positions + source + c)
                store(work, at, value if empty else load(work, at) + value)
            empty = False
        if empty:
            for c in range(row, cells):
                store(work, (into + c) * LANES, every(0.0))
        store(work, (into + cells) * LANES, load(zty, (first + row) * LANES))


@njit(inline="always")
def _turn_level(factors, own, longest, at, q, width, work):
    """T'AT + I for the rows of a level that is next to be eliminated, and T' times the rest of them."""
    for a in range(q):  # what has been eliminated has changed the upper triangle alone
        for b in range(a):
            value = load(work, ((at + b) * width + at + a) * LANES)
            store(work, ((at + a) * width + at + b) * LANES, value)
    for a in range(q):  # ascending: row a only needs rows >= a
        for c in range(at, width):
            value = load(factors, (own + a * longest + a) * LANES) * load(
                work, ((at + a) * width + c) * LANES
            )
            for b in range(a + 1, q):
                t = load(factors, (own + b * longest + a) * LANES)
                value = value + t * load(work, ((at + b) * width + c) * LANES)
            store(work, ((at + a) * width + c) * LANES, value)
    for r in range(q):  # the same from the right; ascending: column a only needs columns >= a
        for a in range(r, q):
            value = every(1.0 if a == r else 0.0)
            for b in range(a, q):
                t = load(factors, (own + b * longest + a) * LANES)
                value = value + t * load(work, ((at + r) * width + at + b) * LANES)
            store(work, ((at + r) * width + at + a) * LANES, value)


@njit(inline="always")
def _take(m, width, columns, work, full):
    """Take the outer products of a block's eliminated rows from the columns that are left.

    Two rows and four columns at a time, so that what is loaded is used more than once; what is written below
    the diagonal is not looked at.
    """
    i = 0
    while i < columns:
        pair = 1 if i + 1 < columns else 0
        c = i
        while c < columns:
            if c + 3 < columns:
                _take_four(m, width, columns, i, i + pair, c, work, full)
                c += 4
            else:
                _take_one(m, width, columns, i, i + pair, c, work, full)
                c += 1
        i += 2


@njit(inline="always")
def _take_four(m, width, columns, i, j, c, work, full):
    at, below = (i * columns + c) * LANES, (j * columns + c) * LANES
    a0, a1 = load(full, at), load(full, at + LANES)
    a2, a3 = load(full, at + 2 * LANES), load(full, at + 3 * LANES)
    b0, b1 = load(full, below), load(full, below + LANES)
    b2, b3 = load(full, below + 2 * LANES), load(full, below + 3 * LANES)
    for k in range(m):
        row = k * width + m
        f, g = load(work, (row + i) * LANES), load(work, (row + j) * LANES)
        there = (row + c) * LANES
        x0, x1 = load(work, there), load(work, there + LANES)
        x2, x3 = load(work, there + 2 * LANES), load(work, there + 3 * LANES)
        a0, a1, a2, a3 = a0 - f * x0, a1 - f * x1, a2 - f * x2, a3 - f * x3
        b0, b1, b2, b3 = b0 - g * x0, b1 - g * x1, b2 - g * x2, b3 - g * x3
    store(full, below, b0)
    store(full, below + LANES, b1)
    store(full, below + 2 * LANES, b2)
    store(full, below + 3 * LANES, b3)
    store(full, at, a0)
    store(full, at + LANES, a1)
    store(full, at + 2 * LANES, a2)
    store(full, at + 3 * LANES, a3)


@njit(inline="always")
def _take_one(m, width, columns, i, j, c, work, full):
    at, below = (i * columns + c) * LANES, (j * columns + c) * LANES
    a, b = load(full, at), load(full, below)
    for k in range(m):
        row = k * width + m
        x = load(work, (row + c) * LANES)
        a, b = a - load(work, (row + i) * LANES) * x, b - load(work, (row + j) * LANES) * x
    store(full, below, b)
    store(full, at, a)


@kernel
def _add_logs(determinant, logdet):
    numbers = room_for(1)
    store(numbers, 0, determinant)
    for lane in range(LANES):
        logdet[lane] += np.log(numbers[lane])


@kernel
def _eliminate_common(phi, precision, full, out):
    """From log|A| in out to the density without the part of errors and priors."""
    p = precision.size
    wide = p + 1
    scale, pivots = room_for(1), room_for(p)
    for lane in range(LANES):
        scale[lane] = np.exp(-2.0 * phi[lane, 0])
    inverse, fit = load(scale, 0), every(0.0)
    for i in range(p):
        for c in range(i, wide):
            at = (i * wide + c) * LANES
            value = inverse * load(full, at)
            store(full, at, value + every(precision[i]) if c == i else value)
    for k in range(p):
        pivot = load(full, (k * wide + k) * LANES)
        store(pivots, k * LANES, pivot)
        last = load(full, (k * wide + p) * LANES)
        fit = fit + last * last / pivot
        for i in range(k + 1, p):
            c = load(full, (k * wide + i) * LANES) / pivot
            for t in range(i, wide):
                at = (i * wide + t) * LANES
                store(full, at, load(full, at) - c * load(full, (k * wide + t) * LANES))
    squares = room_for(1)
    store(squares, 0, inverse * load(full, (p * wide + p) * LANES) - fit)
    for lane in range(LANES):
        logdet = out[lane]
        for k in range(p):
            pivot = pivots[k * LANES + lane]
            logdet += np.log(pivot / precision[k]) if pivot > 0.0 else np.inf
        out[lane] = -0.5 * (logdet + squares[lane])
