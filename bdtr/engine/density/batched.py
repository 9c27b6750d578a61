"""Elimination and marginal density at eight places at once: those of one response, or of eight.

The formulas are those of :mod:`bdtr.engine.density.elimination` and :mod:`bdtr.engine.density.marginal`, the
numbers of eight places side by side (see :mod:`bdtr.engine.compiled.lanes`). A border of levels with one
term, as smooth terms have, is eliminated like a block; where it is large, as of effects that cross sites,
most of the work is to factorise it, and one place is looked at after another. So it is where eight times the
rows of the blocks would take too much memory.
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
    minus,
    plus,
    room_for,
    root,
    store,
)
from bdtr.engine.density.elimination import eliminate, relative_factors, stratum_weights
from bdtr.engine.density.marginal import log_determinant_of_errors, log_prior, reduced_density
from bdtr.engine.system import ROOM, SYSTEM, Response, Room, System, make_room, no_room

__all__ = ["BatchRoom", "densities", "eliminate_batch", "make_batch_room", "solve_common"]

# Pivots after which a determinant is looked at, and from where on the next ones could overflow it.
_CHECKED, _TOO_LARGE = 8, 1e100
_MOST_NUMBERS = 1 << 23  # in the rows of a thread
_MOST_BORDER = 80  # effects in the border that are eliminated at eight places at once


class BatchRoom(NamedTuple):
    """Scratch arrays of one thread, flat, lanes last."""

    weights: np.ndarray  # of strata
    factors: np.ndarray  # T of each factor: (factor, term, term)
    longest: int  # terms of a factor, at most
    zty: np.ndarray
    rows: np.ndarray  # blocks with their columns (row, column), eliminated in place
    row_start: (
        np.ndarray
    )  # where the rows of each block begin: all at the same place if none are kept
    full: np.ndarray  # H'H, H'y and y'y, border first: upper triangle of (column, column)
    logdet: np.ndarray  # log|A|
    alone: bool  # one place after another
    one: Room  # for that


class _Elimination(NamedTuple):
    phi: np.ndarray
    which: np.ndarray
    s: System
    zty: np.ndarray
    hty: np.ndarray
    yty: np.ndarray
    room: BatchRoom


_MATRIX, _CUBE = types.float64[:, ::1], types.float64[:, :, ::1]
_FLOATS, _INTS = types.float64[::1], types.int64[::1]
_BATCH_ROOM = types.NamedTuple(
    (_FLOATS, _FLOATS, types.int64, _FLOATS, _FLOATS, _INTS, _FLOATS, _FLOATS, types.boolean, ROOM),
    BatchRoom,
)
_ELIMINATION = types.NamedTuple(
    (_MATRIX, _INTS, SYSTEM, _CUBE, _CUBE, _MATRIX, _BATCH_ROOM), _Elimination
)
_load = loader(_ELIMINATION)
_call = caller("bdtr_eliminate_batch", _ELIMINATION)


@kernel
def make_batch_room(s, keep):
    """Scratch arrays for one thread; with ``keep`` for the eliminated rows of all blocks."""
    blocks, columns, inner = s.start.size - 1, s.hth.shape[1] + 1, s.start[-1]
    row_start = np.zeros(blocks, np.int64)
    total, most, longest = 0, 0, 1
    for j in range(blocks):
        m = s.start[j + 1] - s.start[j]
        if keep:
            row_start[j] = total
        total += m * (m + columns)
        most = max(most, m * (m + columns))
    for f in range(s.terms.size):
        longest = max(longest, s.terms[f])
    alone = s.border > _MOST_BORDER or (total if keep else most) * LANES > _MOST_NUMBERS
    for g in range(s.border_start.size):
        alone = alone or s.terms[s.border_factor[g]] > 1
    if alone:
        total = most = columns = inner = 0
    return BatchRoom(
        room_for(s.rows.size),
        room_for(s.terms.size * longest * longest),
        longest,
        room_for(inner),
        room_for(total if keep else most),
        row_start,
        room_for(columns * columns),
        np.empty(LANES),
        alone,
        make_room(s) if alone else no_room(),
    )


@kernel
def eliminate_batch(phi, which, s, zty, hty, yty, room):
    """Eliminate the blocks of eight phi (lane, phi), each with one of the responses.

    What remains of [X'X X'y; . y'y] then stands in ``room.full`` after the rows of the border, log|A| in
    ``room.logdet``. With R'R = A, row k of R T^-1 as far as it stands beyond its own level (within it, of R)
    is left in place of row k of its block or of the border, with 1 / R_kk on the diagonal.
    """
    _call(_Elimination(phi, which, s, zty, hty, yty, room))


@kernel
def densities(phi, which, s, priors, zty, hty, yty, room, out):
    """Log densities of eight phi (lane, phi), each given one of the responses."""
    if room.alone:
        p = s.precision.size
        reduced = np.empty((p + 1, p + 1))
        for lane in range(LANES):
            r, own = which[lane], phi[lane]
            logdet = eliminate(own, s, Response(zty[r], hty[r], yty[r]), reduced, room.one)
            out[lane] = reduced_density(own, logdet, reduced, s, priors, room.one.small)
        return
    eliminate_batch(phi, which, s, zty, hty, yty, room)
    solve_common(phi, s.precision, s.border, room.full, room.logdet, out)
    for lane in range(LANES):
        own = phi[lane]
        value = out[lane] + log_determinant_of_errors(own, s) + log_prior(own, s.rows.size, priors)
        out[lane] = value if value > -np.inf else -np.inf  # no number: nowhere


@exported("bdtr_eliminate_batch")
def _eliminate(address):
    a = _load(address)
    s, room = a.s, a.room
    wide, strata = s.hth.shape[1], s.rows.size
    by_stratum = room.weights.reshape(strata, LANES)
    by_term = room.factors.reshape(s.terms.size, room.longest, room.longest, LANES)
    for lane in range(LANES):
        by_stratum[:, lane] = stratum_weights(a.phi[lane], strata)
        by_term[:, :, :, lane] = relative_factors(a.phi[lane], s.terms, s.correlated)
    _mix(a.which, room.weights, s, a.zty, a.hty, a.yty, room.zty, room.full)
    _eliminate_blocks(
        room.factors, room.longest, room.weights, s.blocks.ravel(), s.used, wide, s.terms, s.start,
        s.block_groups, s.group_start, s.group_factor, s.block_start, room.zty, room.rows, room.row_start,
        room.full, room.logdet,
    )  # fmt: skip
    _eliminate_border(
        room.factors, room.longest, s.border, s.border_factor, wide + 1, room.full, room.logdet
    )
    return 0.0


@kernel
def _mix(which, weights, s, zty, hty, yty, own, full):
    """Z'y and the upper triangle of [H'H H'y; . y'y], over all strata."""
    strata, p, inner = s.rows.size, s.hth.shape[1], zty.shape[2]
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
                store(full, at, plus(load(full, at), w, every(s.hth[a, i, c])))


@kernel
def _eliminate_blocks(factors, longest, weights, blocks, used, p, terms, start, block_groups, group_start,
                      group_factor, block_start, zty, all_rows, row_start, full, logdet):  # fmt: skip
    """A level is multiplied by its T just before it is eliminated, as rows of later levels do not need it."""
    logdet[:] = 0.0
    determinant = every(1.0)
    positions = blocks.size // used.shape[0]
    for j in range(start.size - 1):
        first = start[j]
        m = start[j + 1] - first
        width = m + p + 1
        rows = all_rows[row_start[j] * LANES : (row_start[j] + m * width) * LANES]
        _fill(first, m, width - 1, block_start[j], positions, blocks, used, weights, zty, rows)
        for g in range(block_groups[j], block_groups[j + 1]):
            f = group_factor[g]
            q, own = terms[f], f * longest * longest
            at = group_start[g] - first
            if q > 1:
                _turn_level(factors, own, longest, at, q, width, rows)
            for k in range(at, at + q):
                row = k * width
                pivot, t = load(rows, (row + k) * LANES), every(1.0)
                if q == 1:
                    t = load(factors, own * LANES)
                    pivot = plus(every(1.0), t * t, pivot)
                inverse_root = every(1.0) / root(pivot)
                scale = t * inverse_root
                share = scale * scale
                determinant = determinant * pivot
                for i in range(k + 1, m):
                    c = load(rows, (row + i) * LANES)
                    if all_zero(c):
                        continue
                    c = c * share
                    for u in range(i, width):
                        into = (i * width + u) * LANES
                        there = load(rows, (row + u) * LANES)
                        store(rows, into, minus(load(rows, into), c, there))
                store(rows, (row + k) * LANES, inverse_root)
                for u in range(k + 1, width):
                    store(rows, (row + u) * LANES, scale * load(rows, (row + u) * LANES))
                if k % _CHECKED == 0 and not largest(determinant) < _TOO_LARGE:
                    _add_logs(determinant, logdet)
                    determinant = every(1.0)
        _take(m, width, p + 1, rows, full)
    _add_logs(determinant, logdet)


@kernel
def _eliminate_border(factors, longest, border, border_factor, columns, full, logdet):
    """Eliminate the border, whose levels have one term each, from what the blocks have left."""
    determinant = every(1.0)
    for k in range(border):
        row = k * columns
        t = load(factors, border_factor[k] * longest * longest * LANES)
        pivot = plus(every(1.0), t * t, load(full, (row + k) * LANES))
        inverse_root = every(1.0) / root(pivot)
        scale = t * inverse_root
        share = scale * scale
        determinant = determinant * pivot
        for i in range(k + 1, columns):
            c = share * load(full, (row + i) * LANES)
            for u in range(i, columns):
                at = (i * columns + u) * LANES
                store(full, at, minus(load(full, at), c, load(full, (row + u) * LANES)))
        store(full, (row + k) * LANES, inverse_root)
        for u in range(k + 1, columns):
            store(full, (row + u) * LANES, scale * load(full, (row + u) * LANES))
        if k % _CHECKED == 0 and not largest(determinant) < _TOO_LARGE:
            _add_logs(determinant, logdet)
            determinant = every(1.0)
    _add_logs(determinant, logdet)


# Small parts of the loop over blocks are written into it: a call costs as much as they do.
@njit(inline="always")
def _fill(first, m, cells, at_block, positions, blocks, used, weights, zty, rows):
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
                own = every_at(blocks, a * positions + source + c)
                store(rows, at, w * own if empty else plus(load(rows, at), w, own))
            empty = False
        if empty:
            for c in range(row, cells):
                store(rows, (into + c) * LANES, every(0.0))
        store(rows, (into + cells) * LANES, load(zty, (first + row) * LANES))


@njit(inline="always")
def _turn_level(factors, own, longest, at, q, width, rows):
    """T'AT + I for the rows of a level that is next to be eliminated, and T' times the rest of them."""
    for a in range(q):  # what has been eliminated has changed the upper triangle alone
        for b in range(a):
            value = load(rows, ((at + b) * width + at + a) * LANES)
            store(rows, ((at + a) * width + at + b) * LANES, value)
    for a in range(q):  # ascending: row a only needs rows >= a
        for c in range(at, width):
            t = load(factors, (own + a * longest + a) * LANES)
            value = t * load(rows, ((at + a) * width + c) * LANES)
            for b in range(a + 1, q):
                t = load(factors, (own + b * longest + a) * LANES)
                value = plus(value, t, load(rows, ((at + b) * width + c) * LANES))
            store(rows, ((at + a) * width + c) * LANES, value)
    for r in range(q):  # the same from the right; ascending: column a only needs columns >= a
        for a in range(r, q):
            value = every(1.0 if a == r else 0.0)
            for b in range(a, q):
                t = load(factors, (own + b * longest + a) * LANES)
                value = plus(value, t, load(rows, ((at + r) * width + at + b) * LANES))
            store(rows, ((at + r) * width + at + a) * LANES, value)


@njit(inline="always")
def _take(m, width, columns, rows, full):
    """Take the outer products of a block's eliminated rows from the columns that are left.

    Two rows and four columns at a time, so that what is loaded is used more than once; what is written below
    the diagonal is not looked at.
    """
    i = 0
    while i < columns:
        j = min(i + 1, columns - 1)
        c = i
        while c < columns:
            if c + 3 < columns:
                _take_four(m, width, columns, i, j, c, rows, full)
                c += 4
            else:
                _take_one(m, width, columns, i, j, c, rows, full)
                c += 1
        i += 2


@njit(inline="always")
def _take_four(m, width, columns, i, j, c, rows, full):
    at, below = (i * columns + c) * LANES, (j * columns + c) * LANES
    a0, a1 = load(full, at), load(full, at + LANES)
    a2, a3 = load(full, at + 2 * LANES), load(full, at + 3 * LANES)
    b0, b1 = load(full, below), load(full, below + LANES)
    b2, b3 = load(full, below + 2 * LANES), load(full, below + 3 * LANES)
    for k in range(m):
        row = k * width + m
        f, g = load(rows, (row + i) * LANES), load(rows, (row + j) * LANES)
        there = (row + c) * LANES
        x0, x1 = load(rows, there), load(rows, there + LANES)
        x2, x3 = load(rows, there + 2 * LANES), load(rows, there + 3 * LANES)
        a0, a1, a2, a3 = minus(a0, f, x0), minus(a1, f, x1), minus(a2, f, x2), minus(a3, f, x3)
        b0, b1, b2, b3 = minus(b0, g, x0), minus(b1, g, x1), minus(b2, g, x2), minus(b3, g, x3)
    store(full, below, b0)
    store(full, below + LANES, b1)
    store(full, below + 2 * LANES, b2)
    store(full, below + 3 * LANES, b3)
    store(full, at, a0)  # last, where the two rows are one
    store(full, at + LANES, a1)
    store(full, at + 2 * LANES, a2)
    store(full, at + 3 * LANES, a3)


@njit(inline="always")
def _take_one(m, width, columns, i, j, c, rows, full):
    at, below = (i * columns + c) * LANES, (j * columns + c) * LANES
    a, b = load(full, at), load(full, below)
    for k in range(m):
        row = k * width + m
        x = load(rows, (row + c) * LANES)
        a = minus(a, load(rows, (row + i) * LANES), x)
        b = minus(b, load(rows, (row + j) * LANES), x)
    store(full, below, b)
    store(full, at, a)


@kernel
def _add_logs(determinant, logdet):
    numbers = room_for(1)
    store(numbers, 0, determinant)
    for lane in range(LANES):
        logdet[lane] += np.log(numbers[lane])


@kernel
def solve_common(phi, precision, border, full, logdet, out):
    """Eliminate the common columns in place; the density but for the part of errors and priors.

    Rows of ``full`` are left as those of :func:`bdtr.engine.density.marginal.reduced_density` are.
    """
    p, side = precision.size, border + precision.size + 1
    corner = border * side + border  # where the common columns begin
    numbers, pivots = room_for(1), room_for(p)
    for lane in range(LANES):
        numbers[lane] = np.exp(-2.0 * phi[lane, 0])
    inverse, fit = load(numbers, 0), every(0.0)
    for i in range(p):
        for c in range(i, p + 1):
            at = (corner + i * side + c) * LANES
            value = inverse * load(full, at)
            store(full, at, value + every(precision[i]) if c == i else value)
    for k in range(p):
        row = corner + k * side
        pivot = load(full, (row + k) * LANES)
        store(pivots, k * LANES, pivot)
        last = load(full, (row + p) * LANES)
        fit = plus(fit, last, last / pivot)
        for i in range(k + 1, p):
            c = load(full, (row + i) * LANES) / pivot
            for t in range(i, p + 1):
                at = (corner + i * side + t) * LANES
                store(full, at, minus(load(full, at), c, load(full, (row + t) * LANES)))
    squares = load(full, (corner + p * side + p) * LANES)
    store(numbers, 0, plus(every(0.0) - fit, inverse, squares))
    for lane in range(LANES):
        value = logdet[lane]
        for k in range(p):
            pivot = pivots[k * LANES + lane]
            value += np.log(pivot / precision[k]) if pivot > 0.0 else np.inf
        out[lane] = -0.5 * (value + numbers[lane])
