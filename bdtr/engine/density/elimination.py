"""Elimination of group effects from a stage's linear system, given standard deviations and correlations.

Per site a block of group effects goes first, then the border of those that cross sites (see
:mod:`bdtr.engine.layout`); what is left concerns the common coefficients alone. The formulas are those of
:mod:`bdtr.engine.density.marginal`, which makes a density of what is left.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, types

from bdtr.engine.compiled.kernels import caller, exported, kernel, loader
from bdtr.engine.compiled.lanes import LANES, every, load, minus, padded, plus, store
from bdtr.engine.system import RESPONSE, ROOM, SYSTEM, Response, Room, System

__all__ = [
    "border_cholesky",
    "border_system",
    "eliminate",
    "relative_factors",
    "stratum_weights",
]


@kernel
def stratum_weights(phi, strata):
    """Weights exp(-2 rho_a) of the strata."""
    out = np.ones(strata)
    for a in range(1, strata):
        out[a] = np.exp(-2.0 * phi[phi.size - strata + a])
    return out


@kernel
def relative_factors(phi, terms, correlated):
    """Lower-triangular factor of each grouping factor (factor x term x term), relative to sigma."""
    count = terms.size
    largest = 1
    for f in range(count):
        largest = max(largest, terms[f])
    out = np.zeros((count, largest, largest))
    sd_at = 1
    cor_at = 1 + terms.sum()
    for f in range(count):
        q = terms[f]
        for i in range(q):
            sd = abs(phi[sd_at + i])
            if correlated[f]:
                left = 1.0
                for k in range(i):
                    c = np.tanh(phi[cor_at])
                    cor_at += 1
                    out[f, i, k] = sd * c * np.sqrt(left)
                    left *= 1.0 - c * c
                out[f, i, i] = sd * np.sqrt(left)
            else:
                out[f, i, i] = sd
        sd_at += q
    return out


@kernel
def factors_of_each(phi, terms, correlated):
    """The same for each of many phi (draw x factor x term x term)."""
    first = relative_factors(phi[0], terms, correlated)
    out = np.empty((phi.shape[0], *first.shape))
    for s in range(phi.shape[0]):
        out[s] = relative_factors(phi[s], terms, correlated)
    return out


@kernel
def mix_responses(s, y, weights, room):
    """Sum Z'y over strata into room.zty, H'H, H'y and y'y (upper triangle) into room.full."""
    wide = s.hth.shape[1]
    room.zty[:] = 0.0
    room.full[:] = 0.0
    for a in range(weights.size):
        w = weights[a]
        into, own = room.zty, y.zty[a]
        for i in range(into.size):
            into[i] += w * own[i]
        for i in range(wide):
            row, source = room.full[i, i:wide], s.hth[a, i, i:]
            for c in range(row.size):
                row[c] += w * source[c]
            room.full[i, wide] += w * y.hty[a, i]
        room.full[wide, wide] += w * y.yty[a]


class _Elimination(NamedTuple):
    phi: np.ndarray
    s: System
    y: Response
    reduced: np.ndarray
    room: Room


_ELIMINATION = types.NamedTuple(
    (types.float64[::1], SYSTEM, RESPONSE, types.float64[:, ::1], ROOM), _Elimination
)
_load = loader(_ELIMINATION)
_call = caller("bdtr_eliminate", _ELIMINATION)


@kernel
def eliminate(phi, s, y, reduced, room):
    """Write [S0 r0; . q0] (upper triangle) into reduced; return log|A|."""
    return _call(_Elimination(phi, s, y, reduced, room))


@exported("bdtr_eliminate")
def _eliminate(address):
    a = _load(address)
    phi, s, y, reduced, room = a.phi, a.s, a.y, a.reduced, a.room
    weights = stratum_weights(phi, s.rows.size)
    factors = relative_factors(phi, s.terms, s.correlated)
    wide = s.hth.shape[1]
    mix_responses(s, y, weights, room)
    panel, full = room.panel, room.full
    logdet = _eliminate_blocks(
        factors, weights, s.blocks.ravel(), s.used, wide, s.terms, s.start, s.block_groups, s.group_start,
        s.group_factor, s.block_start, room.zty, room.rows, room.triangle.ravel(), room.triangle.shape[1],
        panel.ravel(), panel.shape[1],
    )  # fmt: skip
    if panel.shape[0] > 0:
        # Most of the work: the outer products of all eliminated rows in one matrix product.
        product = np.dot(panel.T, panel)
        for i in range(wide + 1):
            for c in range(i, wide + 1):
                full[i, c] -= product[i, c]
    if s.border > 0:
        return logdet + eliminate_border(factors, s, full, reduced)
    for i in range(wide + 1):
        for c in range(i, wide + 1):
            reduced[i, c] = full[i, c]
    return logdet


@kernel
def _eliminate_blocks(factors, weights, blocks, used, wide, terms, start, block_groups, group_start,
                      group_factor, block_start, zty, rows, triangle, side, panel, across):  # fmt: skip
    """Write the eliminated rows of all blocks into triangle and panel; log determinant.

    Outer products of earlier rows are taken from a level when its turn comes, and it is multiplied by its
    T just before it is eliminated, as rows of other levels do not need it: with one term t the pivot is
    1 + t^2 a.

    With R'R = A, row k of R T^-1 as far as it stands beyond its own level (within it, of R) is kept:
    columns of its block in triangle, with 1 / R_kk on the diagonal, all others in panel. Takes flat arrays
    and not the system: fields of a tuple are counted references, which cost more than the arithmetic of a
    small block. Rows begin and end with whole vectors; what these hold beside the row is not looked at.
    """
    logdet, determinant, positions = 0.0, 1.0, blocks.size // used.shape[0]
    others, whole = np.empty(side, np.int64), (wide + 1) // LANES * LANES
    for j in range(start.size - 1):
        first = start[j]
        m = start[j + 1] - first
        cells = m + wide
        width = padded(cells + 1)
        _fill(first, m, cells, width, block_start[j], positions, blocks, used, weights, zty, rows)
        for g in range(block_groups[j], block_groups[j + 1]):
            f = group_factor[g]
            q = terms[f]
            at = group_start[g] - first
            _take_earlier(at, q, width, rows, others)
            t = 1.0
            if q > 1:
                _turn_level(factors, f, at, q, width, rows)
            else:
                t = factors[f, 0, 0]
            for k in range(at, at + q):
                row = k * width
                pivot = rows[row + k] if q > 1 else 1.0 + t * t * rows[row + k]
                share = t * t / pivot
                determinant *= pivot
                for i in range(k + 1, at + q):
                    c, into = share * rows[row + i], (i - k) * width
                    for u in range(row + i // LANES * LANES, row + width, LANES):
                        store(rows, into + u, minus(load(rows, into + u), every(c), load(rows, u)))
                inverse_root = 1.0 / np.sqrt(pivot)
                root = every(t * inverse_root)
                for u in range(row + k // LANES * LANES, row + width, LANES):
                    store(rows, u, root * load(rows, u))
                own = (first + k) * side
                for u in range(k // LANES * LANES, m, LANES):
                    store(triangle, own + u, load(rows, row + u))
                triangle[own + k] = inverse_root
                own = (first + k) * across
                for u in range(0, whole, LANES):
                    store(panel, own + u, load(rows, row + m + u))
                for u in range(whole, wide + 1):
                    panel[own + u] = rows[row + m + u]
                if not determinant < 1e150:  # before the next pivots can overflow it
                    logdet += np.log(determinant)
                    determinant = 1.0
    return logdet + np.log(determinant)


@njit(inline="always")
def _fill(first, m, cells, width, at_block, positions, blocks, used, weights, zty, rows):
    """The rows of a block, over all strata, with Z'y beside them."""
    for i in range(m):
        into, source = i * width, at_block + i * cells
        begin, whole = i // LANES * LANES, cells // LANES * LANES
        for c in range(begin, whole, LANES):
            value = load(blocks, source + c)
            for a in range(1, weights.size):
                if used[a, first + i]:
                    there = load(blocks, a * positions + source + c)
                    value = plus(value, every(weights[a]), there)
            store(rows, into + c, value)
        for c in range(whole, cells):
            value = blocks[source + c]
            for a in range(1, weights.size):
                value += weights[a] * blocks[a * positions + source + c]
            rows[into + c] = value
        rows[into + cells] = zty[first + i]


@njit(inline="always")
def _take_earlier(at, q, width, rows, others):
    """Take the outer products of all earlier rows of the block from those of a level."""
    for i in range(at, at + q):
        count = 0
        for n in range(at):
            if rows[n * width + i] != 0.0:
                others[count] = n * width
                count += 1
        if count == 0:
            continue
        row = i * width
        for u in range(i // LANES * LANES, width, LANES):
            value = load(rows, row + u)
            for n in range(count):
                value = minus(value, every(rows[others[n] + i]), load(rows, others[n] + u))
            store(rows, row + u, value)


@njit(inline="always")
def _turn_level(factors, f, at, q, width, rows):
    """T'AT + I for the rows of a level that is next to be eliminated, and T' times the rest of them."""
    for a in range(q):  # what has been eliminated has changed the upper triangle alone
        for b in range(a):
            rows[(at + a) * width + at + b] = rows[(at + b) * width + at + a]
    for a in range(q):  # ascending: row a only needs rows >= a
        into = (at + a) * width
        for c in range(at // LANES * LANES, width, LANES):
            value = every(factors[f, a, a]) * load(rows, into + c)
            for b in range(a + 1, q):
                there = load(rows, into + (b - a) * width + c)
                value = plus(value, every(factors[f, b, a]), there)
            store(rows, into + c, value)
    for r in range(q):  # the same from the right; ascending: column a only needs columns >= a
        row = (at + r) * width + at
        for a in range(r, q):
            value = 0.0
            for b in range(a, q):
                value += factors[f, b, a] * rows[row + b]
            rows[row + a] = value
        rows[row + r] += 1.0


@kernel
def border_system(factors, s, full):
    """Symmetric [T'GT + I, T'H; H'T, K] of the border from the upper triangle of [G, H; ., K]."""
    size = full.shape[0]
    out = np.empty((size, size))
    for i in range(size):
        for c in range(i, size):
            out[i, c] = full[i, c]
            out[c, i] = full[i, c]
    for g in range(s.border_start.size):
        f = s.border_factor[g]
        at = s.border_start[g]
        for a in range(s.terms[f]):  # ascending: row a only needs rows >= a
            into = out[at + a]
            t = factors[f, a, a]
            for c in range(size):
                into[c] *= t
            for b in range(a + 1, s.terms[f]):
                t = factors[f, b, a]
                other = out[at + b]
                for c in range(size):
                    into[c] += t * other[c]
    for g in range(s.border_start.size):
        f = s.border_factor[g]
        at = s.border_start[g]
        for r in range(size):
            for a in range(s.terms[f]):
                value = 0.0
                for b in range(a, s.terms[f]):
                    value += factors[f, b, a] * out[r, at + b]
                out[r, at + a] = value
    for i in range(s.border):
        out[i, i] += 1.0
    return out


@kernel
def border_cholesky(joined, border):
    """Lower Cholesky factor of the border system; below the border it holds W'L'^-1."""
    size = joined.shape[0]
    # What stands in the last corner does not change the rows above; it must only be large enough.
    lift = 1.0
    for i in range(border, size):
        lift += abs(joined[i, i])
    own = joined.copy()
    for i in range(border, size):
        own[i, i] += lift
    # Kernels that are called by name cannot raise.
    try:
        root = np.linalg.cholesky(own)
    except Exception:
        root = np.full_like(own, np.nan)
    return root


@kernel
def eliminate_border(factors, s, full, reduced):
    """Eliminate the border: write what is left for the common columns; log determinant."""
    border = s.border
    joined = border_system(factors, s, full)
    root = border_cholesky(joined, border)
    half = np.ascontiguousarray(root[border:, :border])
    product = np.dot(half, half.T)
    for i in range(product.shape[0]):
        for c in range(i, product.shape[0]):
            reduced[i, c] = joined[border + i, border + c] - product[i, c]
    logdet = 0.0
    for k in range(border):
        logdet += np.log(root[k, k])
    return 2.0 * logdet
