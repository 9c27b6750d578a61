r"""Unbiased estimates of what group effects integrate to, block by block, and one draw of them.

Given phi and c = (border effects, b), blocks are independent. M draws v = v-hat +- L'^-1 e, e ~ N(0, I),
around the mode of a block, in pairs of opposite sign, estimate its integral

    I = E[exp(sum f_i - 1/2 |v|^2 + 1/2 |e|^2)] / |L|

without bias, whatever M: importance weights with such estimates are exact (Andrieu and Roberts 2009, Ann.
Statist. 37(2); Tran, Scharth, Pitt and Kohn 2013, *Importance sampling squared*), and one of the M, chosen
with probability in proportion to its term, is a draw of v from its posterior given the rest. Pairs cancel
what is skew in a block, the largest part of the error.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from bdtr.engine.compiled.kernels import caller, exported, kernel, loader
from bdtr.engine.compiled.streams import normal, uniform
from bdtr.engine.laplace.cells import CELLS, Cells
from bdtr.engine.laplace.climb import (
    ROOM,
    Room,
    add_inner,
    add_to_positions,
    common_predictor,
    factor_envelope,
    inner_precision,
    solve_envelope,
    solve_envelope_transposed,
)
from bdtr.engine.laplace.forms import SHARES, curves, positive_bend, values

__all__ = ["SiteRoom", "integrate_sites", "make_site_room"]

_MOST_STEPS = 50
_NEAR = 1e-2  # decrement of all blocks together from which on proposals are where they should be


class SiteRoom(NamedTuple):
    """Arrays for the integrals of one evaluation."""

    envelope: np.ndarray
    base: np.ndarray
    moved: np.ndarray
    v: np.ndarray
    kept: np.ndarray
    step: np.ndarray
    noise: np.ndarray
    value: np.ndarray  # of the blocks
    logdet: np.ndarray
    best: np.ndarray
    total: np.ndarray
    chosen: np.ndarray
    laplace: np.ndarray


@kernel
def make_site_room(cells):
    """Room for the integrals of one thread."""
    rows, inner, blocks = cells.count.size, cells.first.size, cells.start.size - 1
    return SiteRoom(
        np.empty(cells.entries), np.empty(rows), np.empty(rows), np.empty(inner), np.empty(inner),
        np.empty(inner), np.empty(inner), np.empty(blocks), np.empty(blocks), np.empty(blocks),
        np.empty(blocks),
        np.empty(inner), np.empty(1),
    )  # fmt: skip


@kernel
def integrate_sites(cells, form, c, pairs, rng, room, site):
    """Logarithms of an unbiased estimate of the likelihood given c, effects integrated out, and of Laplace's
    approximation of it; writes a draw of the effects to ``site.chosen``.

    ``site.v`` is where the climb of all blocks begins; ``room`` holds what rows take, and Z T, and keeps the
    factors of its own climb.
    """
    exact = _call(_Integral(cells, form, c, pairs, rng, room, site))
    return exact, site.laplace[0]


class _Integral(NamedTuple):
    cells: Cells
    form: int
    c: np.ndarray
    pairs: int
    rng: np.ndarray
    room: Room
    site: SiteRoom


_INTEGRAL = types.NamedTuple(
    (
        CELLS, types.int64, types.float64[::1], types.int64, types.uint64[::1], ROOM,
        types.NamedUniTuple(types.float64[::1], len(SiteRoom._fields), SiteRoom),
    ),
    _Integral,
)  # fmt: skip
_load = loader(_INTEGRAL)
_call = caller("laplace_sites", _INTEGRAL)


@exported("laplace_sites")
def _integrate(address):
    q = _load(address)
    cells, form, c, pairs, rng, room, site = (
        q.cells, q.form, q.c, q.pairs, q.rng, q.room, q.site
    )  # fmt: skip
    rows = (room.a, room.b, room.c, room.d)
    site.laplace[0] = -np.inf
    common_predictor(cells, room.zt, c, site.base)
    blocks = cells.start.size - 1
    if blocks == 0:
        values(form, site.base, rows, room.value)
        site.laplace[0] = room.value.sum()
        return site.laplace[0]
    if not _climb_blocks(cells, form, rows, room, site):
        return -np.inf
    site.laplace[0] = site.value.sum() - 0.5 * site.logdet.sum()
    room.eta[:] = site.base
    add_inner(cells, room.zt, site.v, room.eta)
    site.best[:], site.total[:] = -np.inf, 0.0
    for _ in range(pairs):
        for i in range(site.v.size):
            site.noise[i] = normal(rng)
        site.step[:] = site.noise
        solve_envelope_transposed(
            cells.first, cells.place, site.envelope, 0, site.v.size, site.step
        )
        site.moved[:] = 0.0
        add_inner(cells, room.zt, site.step, site.moved)
        for side in range(2):
            sign = 1.0 if side == 0 else -1.0
            for i in range(site.moved.size):
                room.slope[i] = room.eta[i] + sign * site.moved[i]
            values(form, room.slope, rows, room.value)
            _take(cells.rows, cells.start, sign, room.value, rng, site)
    out = 0.0
    for j in range(blocks):
        out += site.best[j] + np.log(site.total[j] / (2 * pairs))
    return out


@kernel
def _take(rows, start, sign, value, rng, site):
    """Add a draw of each block to its estimate, and choose it with the probability that it deserves.

    ``best`` is the largest logarithm so far, ``total`` the sum of all relative to it.
    """
    v, step, noise, best, total = site.v, site.step, site.noise, site.best, site.total
    for j in range(best.size):
        weight = -0.5 * site.logdet[j]
        for i in range(rows[j], rows[j + 1]):
            weight += value[i]
        for i in range(start[j], start[j + 1]):
            moved = v[i] + sign * step[i]
            weight += 0.5 * (noise[i] ** 2 - moved * moved)
        pick = uniform(rng)
        if weight > best[j]:
            total[j] = 1.0 + total[j] * np.exp(best[j] - weight)
            best[j] = weight
            share = 1.0 / total[j]
        else:
            own = np.exp(weight - best[j])
            total[j] += own
            share = own / total[j]
        if pick < share:
            for i in range(start[j], start[j + 1]):
                site.chosen[i] = v[i] + sign * step[i]


@kernel
def _climb_blocks(cells, form, rows, room, site):
    """Newton's method in all blocks side by side from ``site.v``, half steps where one goes too far.

    Ends with modes in ``site.v``, the log integrands there in ``site.value``, log|A| of each in
    ``site.logdet`` and Cholesky factors in ``site.envelope``.
    """
    blocks, v = cells.start.size - 1, site.v
    before, decrement = site.best, site.total
    before[:] = -np.inf
    for _ in range(_MOST_STEPS):
        room.eta[:] = site.base
        add_inner(cells, room.zt, v, room.eta)
        curves(form, room.eta, rows, room.value, room.slope, room.bend)
        inner_precision(cells, room.zt, room.bend, site.moved, site.envelope)
        if form >= SHARES:
            _straighten(cells, form, rows, room, site)
            inner_precision(cells, room.zt, room.bend, site.moved, site.envelope)
        for i in range(v.size):
            site.noise[i] = -v[i]
        add_to_positions(cells, room.zt, room.slope, site.noise)
        left = 0.0
        for j in range(blocks):
            begin, end = cells.start[j], cells.start[j + 1]
            value = 0.0
            for i in range(cells.rows[j], cells.rows[j + 1]):
                value += room.value[i]
            for i in range(begin, end):
                value -= 0.5 * v[i] * v[i]
            if not value >= before[j] - 1e-9 * (1.0 + abs(value)):
                for i in range(begin, end):
                    site.step[i] *= 0.5
                    v[i] = site.kept[i] + site.step[i]
                left = np.inf
                continue
            before[j] = site.value[j] = value
            site.logdet[j] = factor_envelope(cells.first, cells.place, site.envelope, begin, end)
            if not np.isfinite(site.logdet[j]):
                return False
            solve_envelope(cells.first, cells.place, site.envelope, begin, end, site.noise)
            decrement[j] = 0.0
            for i in range(begin, end):
                decrement[j] += site.noise[i] ** 2
            solve_envelope_transposed(
                cells.first, cells.place, site.envelope, begin, end, site.noise
            )
            for i in range(begin, end):
                site.kept[i], site.step[i] = v[i], site.noise[i]
                v[i] += site.noise[i]
            left += decrement[j]
        if left < _NEAR:
            for j in range(blocks):
                site.value[j] += 0.5 * decrement[j]
            return True
    return False


@kernel
def _straighten(cells, form, rows, room, site):
    """Rows of blocks that are bent upwards where they stand take curvatures above 0: proposals are then
    not the best, and weights exact all the same.

    Leaves factors in ``site.envelope``.
    """
    for j in range(cells.start.size - 1):
        begin, end = cells.start[j], cells.start[j + 1]
        found = factor_envelope(cells.first, cells.place, site.envelope, begin, end)
        if not np.isfinite(found):
            positive_bend(form, room.eta, rows, cells.rows[j], cells.rows[j + 1], room.bend)
