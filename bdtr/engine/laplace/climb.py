r"""The mode of all effects and coefficients given phi, by Newton's method.

With w = (v, c) the effects v of inner positions and the rest c = (border effects, b),

    F(w) = sum_i f_i(eta_i) - 1/2 |v|^2 - 1/2 |c_border|^2 - 1/2 (b - mean)' D (b - mean),
    eta = Z T v + H c,

is concave for most families; where it is bent upwards the step is that of Fisher scoring or of reweighted
least squares. Its Hessian is -[A B; B' C] with A = I + T'Z'WZT block by block, B = T'Z'WH and
C = D + H'WH, W the curvatures of the f_i. A = L L' within its envelope, then B <- L^-1 B and the Schur
complement S = C - B'B, as for Gaussian outcomes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, types

from bdtr.engine.compiled.kernels import caller, exported, kernel, loader
from bdtr.engine.compiled.lanes import LANES, every, load, plus, store, summed
from bdtr.engine.laplace.cells import CELLS, SMOOTH, Cells
from bdtr.engine.laplace.forms import SHARES, curves, positive_bend

__all__ = [
    "ROOM",
    "Room",
    "add_inner",
    "add_to_positions",
    "climb",
    "common_predictor",
    "factor_envelope",
    "inner_precision",
    "make_room",
    "solve_envelope",
    "solve_envelope_transposed",
    "turned",
]

_MOST_STEPS = 400  # far from the mode an exponential gains one step in the exponent after the other
_SLACK = 1e-9  # relative loss of F that rounding may cause


class Room(NamedTuple):
    """Arrays that one evaluation needs, made once for many."""

    eta: np.ndarray
    value: np.ndarray
    slope: np.ndarray
    bend: np.ndarray
    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    d: np.ndarray
    zt: np.ndarray  # Z T (column x cell)
    envelope: np.ndarray
    across: np.ndarray  # B, then L^-1 B (position x rest)
    corner: np.ndarray  # S, then its Cholesky factor
    w: np.ndarray  # where Newton's method stands
    step: np.ndarray
    kept: np.ndarray
    found: np.ndarray  # what a climb ends with: F and decrement
    rest: np.ndarray  # of the log likelihood, by stratum: what phi alone decides


_NUMBERS, _TABLE = types.float64[::1], types.float64[:, ::1]
ROOM = types.NamedTuple((*[_NUMBERS] * 8, _TABLE, _NUMBERS, _TABLE, _TABLE, *[_NUMBERS] * 5), Room)


@kernel
def make_room(cells):
    """Room for the evaluations of one thread."""
    rows, p = cells.x.shape
    inner, rest = cells.first.size, cells.border + p
    return Room(
        np.empty(rows), np.empty(rows), np.empty(rows), np.empty(rows), np.zeros(rows),
        np.zeros(rows), np.zeros(rows), np.zeros(rows), np.empty(cells.z.shape),
        np.empty(cells.entries), np.empty((inner, rest)), np.empty((rest, rest)),
        np.zeros(inner + rest), np.empty(inner + rest), np.empty(inner + rest), np.empty(2),
        np.empty(cells.stratum.max() + 1),
    )  # fmt: skip


@kernel
def turned(cells, factors, zt):
    """zt = Z T, for one lower-triangular T per factor."""
    columns, rows = cells.z.shape
    for s in range(columns):
        zt[s] = 0.0
        for t in range(s, columns):
            if cells.of[t] == cells.of[s] and (s == t or cells.outer[s] != SMOOTH):
                weight = factors[cells.of[s], cells.term[t], cells.term[s]]
                for i in range(rows):
                    zt[s, i] += weight * cells.z[t, i]


@kernel
def common_predictor(cells, zt, c, eta):
    """eta = H c: common columns and border."""
    eta[:] = 0.0
    for j in range(cells.x.shape[1]):
        column, by = cells.xt[j], every(c[cells.border + j])
        for i in range(0, eta.size, LANES):
            store(eta, i, plus(load(eta, i), by, load(column, i)))
    for s in range(zt.shape[0]):
        at, z = cells.at[s], zt[s]
        if cells.outer[s] == SMOOTH:
            by = every(c[at[0]])
            for i in range(0, eta.size, LANES):
                store(eta, i, plus(load(eta, i), by, load(z, i)))
        elif cells.outer[s]:
            for i in range(eta.size):
                eta[i] += z[i] * c[at[i]]


@kernel
def add_inner(cells, zt, v, eta):
    """eta += Z T v."""
    segments = cells.segments
    for s in range(zt.shape[0]):
        if not cells.outer[s]:
            at, z = cells.at[s], zt[s]
            for k in range(segments.size - 1):
                begin, end = segments[k], segments[k + 1]
                by = v[at[begin]]
                for i in range(begin, end):
                    eta[i] += z[i] * by


@njit(inline="always")
def _dot(x, y, begin, end):
    """Of the places begin to end of two vectors."""
    total, i = every(0.0), begin
    while i + LANES <= end:
        total = plus(total, load(x, i), load(y, i))
        i += LANES
    out = summed(total)
    while i < end:
        out += x[i] * y[i]
        i += 1
    return out


@njit(inline="always")
def _times(x, y, out):
    """out = x y, of vectors whose length is a multiple of eight."""
    for i in range(0, x.size, LANES):
        store(out, i, load(x, i) * load(y, i))


@kernel
def inner_precision(cells, zt, bend, weighted, envelope):
    """A = I + T'Z'WZT in its envelope."""
    envelope[:] = 0.0
    place, segments = cells.place, cells.segments
    for i in range(place.size):
        envelope[place[i] + i] = 1.0
    for s in range(zt.shape[0]):
        if cells.outer[s]:
            continue
        _times(bend, zt[s], weighted)
        for t in range(s + 1):
            if cells.outer[t]:
                continue
            other = zt[t]
            for k in range(segments.size - 1):
                begin = segments[k]
                one, two = cells.at[s, begin], cells.at[t, begin]
                row, column = max(one, two), min(one, two)
                value = _dot(weighted, other, begin, segments[k + 1])
                envelope[place[row] + column] += value


@kernel
def add_to_positions(cells, zt, slope, out):
    """out += T'Z'slope."""
    segments = cells.segments
    for s in range(zt.shape[0]):
        if not cells.outer[s]:
            at, z = cells.at[s], zt[s]
            for k in range(segments.size - 1):
                begin = segments[k]
                out[at[begin]] += _dot(z, slope, begin, segments[k + 1])


@kernel
def _across(cells, zt, bend, weighted, across):
    """B = T'Z'WH."""
    across[:] = 0.0
    border, p, segments = cells.border, cells.x.shape[1], cells.segments
    for s in range(zt.shape[0]):
        if cells.outer[s]:
            continue
        at = cells.at[s]
        _times(bend, zt[s], weighted)
        for k in range(segments.size - 1):
            begin, end = segments[k], segments[k + 1]
            row = across[at[begin]]
            for j in range(p):
                row[border + j] += _dot(weighted, cells.xt[j], begin, end)
            if border > 0:
                for t in range(zt.shape[0]):
                    if cells.outer[t] == SMOOTH:
                        row[cells.at[t, 0]] += _dot(weighted, zt[t], begin, end)
                    elif cells.outer[t]:
                        for i in range(begin, end):
                            row[cells.at[t, i]] += weighted[i] * zt[t, i]


@kernel
def _corner(cells, zt, precision, bend, weighted, corner):
    """C = D + H'WH, its lower half."""
    border, p = cells.border, cells.x.shape[1]
    corner[:] = 0.0
    for j in range(p):
        _times(bend, cells.xt[j], weighted)
        for k in range(j + 1):
            corner[border + j, border + k] = _dot(weighted, cells.xt[k], 0, weighted.size)
        corner[border + j, border + j] += precision[j]
    if border == 0:
        return
    for j in range(border):
        corner[j, j] = 1.0
    for s in range(zt.shape[0]):
        if not cells.outer[s]:
            continue
        if cells.outer[s] == SMOOTH:
            _corner_of_smooth(cells, zt, s, bend, weighted, corner)
            continue
        for i in range(bend.size):
            value, one = bend[i] * zt[s, i], cells.at[s, i]
            if value == 0.0:
                continue
            for j in range(p):
                corner[border + j, one] += value * cells.x[i, j]
            for t in range(s + 1):
                if cells.outer[t]:
                    other = cells.at[t, i]
                    corner[max(one, other), min(one, other)] += value * zt[t, i]


@njit(inline="always")
def _corner_of_smooth(cells, zt, s, bend, weighted, corner):
    """The part of a column that stands at one place of the border for all rows, with those before it."""
    border, one = cells.border, cells.at[s, 0]
    _times(bend, zt[s], weighted)
    for j in range(cells.x.shape[1]):
        corner[border + j, one] += _dot(weighted, cells.xt[j], 0, weighted.size)
    for t in range(s + 1):
        if cells.outer[t] == SMOOTH:
            other = cells.at[t, 0]
            value = _dot(weighted, zt[t], 0, weighted.size)
            corner[max(one, other), min(one, other)] += value
        elif cells.outer[t]:
            for i in range(weighted.size):
                other = cells.at[t, i]
                corner[max(one, other), min(one, other)] += weighted[i] * zt[t, i]


# What is called for each block takes arrays and is inlined: handing over all cells costs more than the work.
@njit(inline="always")
def factor_envelope(first, place, envelope, begin, end):
    """Positions begin to end of a matrix in its envelope become those of its Cholesky factor; the log
    determinant."""
    logdet = 0.0
    for i in range(begin, end):
        row = place[i]
        for j in range(first[i], i):
            other = place[j]
            value = envelope[row + j]
            for k in range(max(first[i], first[j]), j):
                value -= envelope[row + k] * envelope[other + k]
            envelope[row + j] = value / envelope[other + j]
        pivot = envelope[row + i]
        for k in range(first[i], i):
            pivot -= envelope[row + k] ** 2
        logdet += np.log(pivot)  # not a number where there is no factor
        envelope[row + i] = np.sqrt(pivot)
    return logdet


@njit(inline="always")
def solve_envelope(first, place, envelope, begin, end, x):
    """x <- L^-1 x for these positions."""
    for i in range(begin, end):
        row, value = place[i], x[i]
        for k in range(first[i], i):
            value -= envelope[row + k] * x[k]
        x[i] = value / envelope[row + i]


@njit(inline="always")
def solve_envelope_transposed(first, place, envelope, begin, end, x):
    """x <- L'^-1 x for these positions."""
    for i in range(end - 1, begin - 1, -1):
        row = place[i]
        x[i] /= envelope[row + i]
        value = x[i]
        for k in range(first[i], i):
            x[k] -= envelope[row + k] * value


@kernel
def _eliminate(cells, room):
    """B <- L^-1 B, then the Cholesky factor of S = C - B'B; log|A| + log|S|."""
    envelope, across, corner = room.envelope, room.across, room.corner
    inner, rest = across.shape
    logdet = factor_envelope(cells.first, cells.place, envelope, 0, inner)
    if not np.isfinite(logdet):
        return np.inf
    for i in range(inner):
        own = across[i]
        for k in range(cells.first[i], i):
            value, other = envelope[cells.place[i] + k], across[k]
            if value != 0.0:
                for j in range(rest):
                    own[j] -= value * other[j]
        scale = 1.0 / envelope[cells.place[i] + i]
        for j in range(rest):
            own[j] *= scale
        for j in range(rest):
            value, into = own[j], corner[j]
            if value != 0.0:
                for k in range(j + 1):
                    into[k] -= value * own[k]
    for j in range(rest):
        row = corner[j]
        for k in range(j):
            value, other = row[k], corner[k]
            for t in range(k):
                value -= row[t] * other[t]
            row[k] = value / other[k]
        pivot = row[j]
        for t in range(j):
            pivot -= row[t] * row[t]
        if not pivot > 0.0:
            return np.inf
        logdet += np.log(pivot)
        row[j] = np.sqrt(pivot)
    return logdet


@kernel
def _gradient(cells, room, precision, mean, w, out):
    """Gradient of F at w."""
    inner, border = cells.first.size, cells.border
    for i in range(inner + border):
        out[i] = -w[i]
    add_to_positions(cells, room.zt, room.slope, out)
    for s in range(room.zt.shape[0]):
        if cells.outer[s]:
            at, z = cells.at[s], room.zt[s]
            for i in range(z.size):
                out[inner + at[i]] += z[i] * room.slope[i]
    for j in range(precision.size):
        k = inner + border + j
        out[k] = _dot(cells.xt[j], room.slope, 0, room.slope.size) - precision[j] * (w[k] - mean[j])


@kernel
def _newton(cells, room, gradient):
    """The Newton step, in place of the gradient; returns its decrement, twice what F can gain."""
    inner, rest = room.across.shape
    solve_envelope(cells.first, cells.place, room.envelope, 0, inner, gradient)
    y, s = gradient[:inner], gradient[inner:]
    decrement = 0.0
    for i in range(inner):
        decrement += y[i] * y[i]
        for j in range(rest):
            s[j] -= room.across[i, j] * y[i]
    for j in range(rest):
        for t in range(j):
            s[j] -= room.corner[j, t] * s[t]
        s[j] /= room.corner[j, j]
        decrement += s[j] * s[j]
    for j in range(rest - 1, -1, -1):
        s[j] /= room.corner[j, j]
        for t in range(j):
            s[t] -= room.corner[j, t] * s[j]
    for i in range(inner):
        for j in range(rest):
            y[i] -= room.across[i, j] * s[j]
    solve_envelope_transposed(cells.first, cells.place, room.envelope, 0, inner, y)
    return decrement


@kernel
def _penalty(cells, precision, mean, w):
    inner, border = cells.first.size, cells.border
    out = 0.0
    for i in range(inner + border):
        out += w[i] * w[i]
    for j in range(precision.size):
        out += precision[j] * (w[inner + border + j] - mean[j]) ** 2
    return 0.5 * out


@kernel
def climb(cells, form, precision, mean, room, tolerance):
    """Newton's method from ``room.w``, until the decrement is below the tolerance.

    Returns F, log|A| + log|S| and the decrement where it ends, at ``room.w``; ``room`` holds the curves and
    factors there, and ``room.step`` the next step. A log determinant that is not finite says that it failed.
    """
    logdet = _call(_Climb(cells, form, precision, mean, room, tolerance))
    return room.found[0], logdet, room.found[1]


class _Climb(NamedTuple):
    cells: Cells
    form: int
    precision: np.ndarray
    mean: np.ndarray
    room: Room
    tolerance: float


_CLIMB = types.NamedTuple((CELLS, types.int64, _NUMBERS, _NUMBERS, ROOM, types.float64), _Climb)
_load = loader(_CLIMB)
_call = caller("laplace_climb", _CLIMB)


@kernel
def _factor(cells, precision, room):
    """Factors of minus the Hessian at the curvatures of the rows; its log determinant."""
    inner_precision(cells, room.zt, room.bend, room.value, room.envelope)
    _across(cells, room.zt, room.bend, room.value, room.across)
    _corner(cells, room.zt, precision, room.bend, room.value, room.corner)
    return _eliminate(cells, room)


@exported("laplace_climb")
def _climb(address):
    q = _load(address)
    cells, form, precision, mean, room = q.cells, q.form, q.precision, q.mean, q.room
    rows = (room.a, room.b, room.c, room.d)
    w, before, inner = room.w, -np.inf, cells.first.size
    room.found[1] = np.inf
    for step in range(_MOST_STEPS):
        common_predictor(cells, room.zt, w[inner:], room.eta)
        add_inner(cells, room.zt, w[:inner], room.eta)
        curves(form, room.eta, rows, room.value, room.slope, room.bend)
        value = room.value.sum() - _penalty(cells, precision, mean, w)
        if step > 0 and not value >= before - _SLACK * (1.0 + abs(before)):
            for i in range(w.size):  # too far: half way back
                room.step[i] *= 0.5
                w[i] = room.kept[i] + room.step[i]
            continue
        room.found[0] = before = value
        logdet = _factor(cells, precision, room)
        upwards = not np.isfinite(logdet)
        if upwards:
            if form < SHARES:
                return np.inf
            positive_bend(form, room.eta, rows, 0, room.eta.size, room.bend)
            logdet = _factor(cells, precision, room)
            if not np.isfinite(logdet):
                return np.inf
        _gradient(cells, room, precision, mean, w, room.step)
        decrement = _newton(cells, room, room.step)
        if decrement < q.tolerance:
            if upwards:
                return np.inf  # a saddle point
            room.found[1] = decrement
            return logdet
        room.kept[:] = w
        w += room.step
    return np.inf
