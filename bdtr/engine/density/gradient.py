r"""The marginal log likelihood of phi and its priors with their gradients.

With S0, r0, q0 of :mod:`bdtr.engine.density.marginal`, S = S0 / sigma^2 + D^-1 and beta = S^-1 r0 / sigma^2,
the derivative with respect to R = [S0 r0; r0' q0] is

    Rbar = -1 / (2 sigma^2) [S^-1 + beta beta'  -beta; -beta'  1],

and a block with A = T'GT + I, W = T'H, G = Z'Z, H = Z'[X y], E = A^-1 W contributes
R -= W'A^-1 W and -1/2 log|A|, hence

    Abar = E Rbar E' - 1/2 A^-1,  Wbar = -2 E Rbar,  Gbar = T Abar T',  Hbar = T Wbar,
    Tbar = 2 G T Abar + H Wbar' = T'^-1 (A^-1 - I - 2 E Rbar E')

by G T = T'^-1 (A - I) and H = T'^-1 W; of Tbar only the diagonal block of each level is needed. The
border is such a block too, the last one; its Gbar, Hbar and Rbar together are the Rbar of the others.

With respect to log sigma: -n + tr(S^-1 S0) / sigma^2 + (q0 - 2 r0'beta + beta'S0 beta) / sigma^2. With
respect to rho_a: -n_a - 2 exp(-2 rho_a) times the sum over all products of stratum a, each with its
Gbar, Hbar or Rbar.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, types

from bdtr.engine.compiled.kernels import caller, exported, kernel, loader
from bdtr.engine.compiled.lanes import (
    LANES,
    every,
    every_at,
    load,
    minus,
    padded,
    plus,
    room_for,
    store,
    summed,
)
from bdtr.engine.density.elimination import (
    border_cholesky,
    border_system,
    eliminate,
    relative_factors,
    stratum_weights,
)
from bdtr.engine.density.marginal import log_determinant_of_errors, log_prior
from bdtr.engine.system import RESPONSE, ROOM, SYSTEM, Response, Room, System

__all__ = ["density_and_gradient", "likelihood_and_gradient", "sd_prior_slope", "to_phi"]


class _Question(NamedTuple):
    phi: np.ndarray
    s: System
    y: Response
    reduced: np.ndarray
    room: Room
    gradient: np.ndarray


_VECTOR = types.float64[::1]
_QUESTION = types.NamedTuple(
    (_VECTOR, SYSTEM, RESPONSE, types.float64[:, ::1], ROOM, _VECTOR), _Question
)
_load = loader(_QUESTION)
_call = caller("bdtr_likelihood_and_gradient", _QUESTION)


@kernel
def likelihood_and_gradient(phi, s, y, reduced, room):
    """Log likelihood of phi and its gradient."""
    gradient = np.zeros(phi.size)
    value = _call(_Question(phi, s, y, reduced, room, gradient))
    return value, gradient


@exported("bdtr_likelihood_and_gradient")
def _likelihood(address):
    """Log likelihood of phi; writes its gradient."""
    q = _load(address)
    phi, s, y, reduced, room, gradient = q.phi, q.s, q.y, q.reduced, q.room, q.gradient
    p = s.precision.size
    logdet = eliminate(phi, s, y, reduced, room)
    if not np.isfinite(logdet):
        gradient[:] = np.nan
        return -np.inf
    inverse = np.exp(-2.0 * phi[0])
    s0 = np.empty((p, p))
    for i in range(p):
        for c in range(i, p):
            s0[i, c] = reduced[i, c]
            s0[c, i] = reduced[i, c]
    q0 = reduced[p, p]
    s_inverse = s0 * inverse
    for i in range(p):
        s_inverse[i, i] += s.precision[i]
    logdet_s = _invert(s_inverse)
    beta = np.zeros(p)
    fit, squares, traces = 0.0, 0.0, 0.0
    for i in range(p):
        for c in range(p):
            beta[i] += s_inverse[i, c] * reduced[c, p] * inverse
            traces += s_inverse[i, c] * s0[i, c]
        fit += reduced[i, p] * beta[i]
        logdet_s -= np.log(s.precision[i])
    for i in range(p):
        for c in range(p):
            squares += beta[i] * s0[i, c] * beta[c]
    value = log_determinant_of_errors(phi, s) - 0.5 * (logdet + logdet_s)
    value -= 0.5 * inverse * (q0 - fit)
    gradient[0] = -s.rows.sum() + inverse * (traces + q0 - 2.0 * fit + squares)
    strata = s.rows.size
    if s.terms.size == 0 and strata == 1:
        return value

    r_bar = np.empty((p + 1, p + 1))
    scale = -0.5 * inverse
    for i in range(p):
        for c in range(p):
            r_bar[i, c] = scale * (s_inverse[i, c] + beta[i] * beta[c])
        r_bar[i, p] = r_bar[p, i] = -scale * beta[i]
    r_bar[p, p] = scale
    factors = relative_factors(phi, s.terms, s.correlated)
    weights = stratum_weights(phi, strata)
    inner = np.zeros(factors.shape)  # per factor the sum over levels of A^-1 - I - 2 E Rbar E'
    if s.border > 0:
        r_bar = _border_adjoint(factors, s, room.full, r_bar, inner)
    slopes = np.zeros(strata)
    across = room.panel.shape[1]
    wide_bar = np.zeros((across, across))
    wide_bar[: r_bar.shape[0], : r_bar.shape[0]] = r_bar
    _blocks_adjoint(factors, s, y, wide_bar.ravel(), inner, slopes, room)
    for f in range(s.terms.size):  # symmetric: blocks have added to one half
        for b in range(s.terms[f]):
            for c in range(b):
                inner[f, b, c] = inner[f, c, b]
    bars = _solve_transposed(factors, s.terms, inner)
    to_phi(phi, s.terms, s.correlated, bars, gradient)
    if strata > 1:
        _common_slopes(s, y, r_bar, slopes)
        for a in range(1, strata):
            gradient[phi.size - strata + a] = -s.rows[a] - 2.0 * weights[a] * slopes[a]
    return value


@kernel
def _invert(matrix):
    """Replace a positive definite matrix by its inverse; the log determinant.

    Gauss and Jordan, pivots down the diagonal.
    """
    size = matrix.shape[0]
    logdet = 0.0
    for k in range(size):
        logdet += np.log(matrix[k, k])
        pivot = 1.0 / matrix[k, k]
        matrix[k, k] = 1.0
        for c in range(size):
            matrix[k, c] *= pivot
        for i in range(size):
            if i == k:
                continue
            factor = matrix[i, k]
            matrix[i, k] = 0.0
            for c in range(size):
                matrix[i, c] -= factor * matrix[k, c]
    return logdet


@kernel
def _border_adjoint(factors, s, full, r_bar, inner):
    """Rbar of border, common columns and response before the border was eliminated."""
    border = s.border
    joined = border_system(factors, s, full)
    root = border_cholesky(joined, border)
    corner = np.ascontiguousarray(root[:border, :border])
    inverse_root = np.linalg.inv(corner)
    a_inverse = np.dot(inverse_root.T, inverse_root)
    e = np.dot(a_inverse, np.ascontiguousarray(joined[:border, border:]))
    e_rbar = np.dot(e, r_bar)
    middle = np.dot(e_rbar, e.T)
    for g in range(s.border_start.size):
        f = s.border_factor[g]
        at = s.border_start[g]
        for b in range(s.terms[f]):
            for c in range(s.terms[f]):
                inner[f, b, c] += a_inverse[at + b, at + c] - 2.0 * middle[at + b, at + c]
            inner[f, b, b] -= 1.0
    size = full.shape[0]
    out = np.empty((size, size))
    out[border:, border:] = r_bar
    beside = _turned_border(factors, s, -e_rbar)
    out[:border, border:] = beside
    out[border:, :border] = beside.T
    left = _turned_border(factors, s, middle - 0.5 * a_inverse)
    out[:border, :border] = _turned_border(factors, s, np.ascontiguousarray(left.T)).T
    return out


@kernel
def _turned_border(factors, s, rows):
    """T times the rows of all levels of the border."""
    out = np.empty(rows.shape)
    for g in range(s.border_start.size):
        f, at = s.border_factor[g], s.border_start[g]
        for b in range(s.terms[f]):
            out[at + b] = factors[f, b, b] * rows[at + b]
            for a in range(b):
                out[at + b] += factors[f, b, a] * rows[at + a]
    return out


@kernel
def _blocks_adjoint(factors, s, y, r_bar, inner, slopes, room):
    """Add each level's part to inner (upper triangles) and, with several strata, each block's to slopes.

    Rbar is flat, its rows as long as those of the panel. E, T E and their products with Rbar are those of one
    block at a time, as all of them would not stay in the processor's cache.
    """
    terms, start, block_groups = s.terms, s.start, s.block_groups
    group_start, group_factor, blocks, zty = s.group_start, s.group_factor, s.blocks, y.zty
    triangle, panel = room.triangle, room.panel.ravel()
    across, wide = room.panel.shape[1], s.hth.shape[1]
    side = triangle.shape[1]
    inverse, turned = room_for(side * side // LANES), room_for(side * side // LANES)
    long = side * across // LANES
    e, t_e, e_rbar, t_e_rbar = room_for(long), room_for(long), room_for(long), room_for(long)
    others = np.empty(side, np.int64)
    # Where in a row of T R^-1 what is not zero begins, in whole vectors.
    begins = np.empty(side, np.int64)
    for j in range(start.size - 1):
        first = start[j]
        m = start[j + 1] - first
        for g in range(block_groups[j + 1] - 1, block_groups[j] - 1, -1):
            f = group_factor[g]
            at = group_start[g] - first
            last = at + terms[f]
            begin, end = at // LANES * LANES, padded(m)
            begins[at:last] = begin
            _solve_level(at, last, first, m, across, side, triangle, panel, e, t_e, inverse, turned,
                         begins, others)  # fmt: skip
            for b in range(at, last):
                for c in range(b, last):
                    total = _product(inverse, b * side, inverse, c * side, begin, end)
                    inner[f, b - at, c - at] += total
                inner[f, b - at, b - at] -= 1.0
            _turn_rows(factors, f, at, terms[f], across, 0, across, e, t_e)
            _turn_rows(factors, f, at, terms[f], side, begin, end, inverse, turned)
        _times(e, m, r_bar, across, wide + 1, e_rbar)
        for g in range(block_groups[j], block_groups[j + 1]):
            f = group_factor[g]
            at, q = group_start[g] - first, terms[f]
            for b in range(q):
                for c in range(b, q):
                    total = _product(e_rbar, (at + b) * across, e, (at + c) * across, 0, across)
                    inner[f, b, c] -= 2.0 * total
            if slopes.size > 1:
                _turn_rows(factors, f, at, q, across, 0, across, e_rbar, t_e_rbar)
        if slopes.size > 1:
            _block_slopes(first, m, wide, s.block_start[j], across, side, blocks, s.used, zty, turned,
                          begins, t_e, t_e_rbar, slopes)  # fmt: skip


@njit(inline="always")
def _product(left, row, right, other, begin, end):
    """Of two rows that begin at these places, from one column to another."""
    total = every(0.0)
    for t in range(begin, end, LANES):
        total = plus(total, load(left, row + t), load(right, other + t))
    return summed(total)


@kernel
def _times(rows, count, square, across, used, out):
    """Product of so many rows with a square matrix, four rows at a time."""
    k = 0
    while k < count:
        at = k * across
        far = min(3, count - 1 - k) * across
        second, third = min(across, far), min(2 * across, far)
        for t in range(0, across, LANES):
            a, b, c, d = every(0.0), every(0.0), every(0.0), every(0.0)
            for i in range(used):
                x = load(square, i * across + t)
                a = plus(a, every_at(rows, at + i), x)
                b = plus(b, every_at(rows, at + second + i), x)
                c = plus(c, every_at(rows, at + third + i), x)
                d = plus(d, every_at(rows, at + far + i), x)
            store(out, at + t, a)
            store(out, at + second + t, b)
            store(out, at + third + t, c)
            store(out, at + far + t, d)
        k += 4


@kernel
def _solve_level(at, last, first, m, across, side, triangle, panel, e, t_e, inverse, turned,
                 begins, others):  # fmt: skip
    """Rows of E = A^-1 W and of R^-1, R'R = A, for a level of a block, those of later levels known.

    Rows of R beyond their own level take the T E and T R^-1 of other levels (see the elimination). Sums stay
    in registers while their terms are gone through: writing each to memory would make the next one wait.
    """
    begin, end = at // LANES * LANES, padded(m)
    for k in range(last - 1, at - 1, -1):
        count = 0
        for i in range(last, m):
            if triangle[first + k, i] != 0.0:
                others[count] = i
                count += 1
        scale = every(triangle[first + k, k])
        row, eliminated = k * across, (first + k) * across
        for t in range(row, row + across, LANES):
            value = load(panel, t - row + eliminated)
            for i in range(k + 1, last):
                there = load(e, t + (i - k) * across)
                value = minus(value, every(triangle[first + k, i]), there)
            for n in range(count):
                i = others[n]
                there = load(t_e, t + (i - k) * across)
                value = minus(value, every(triangle[first + k, i]), there)
            store(e, t, scale * value)
        own = k * side
        for c in range(begin, end, LANES):
            store(inverse, own + c, every(0.0))
        inverse[own + k] = 1.0
        for c in range(begin, end, LANES):
            value = load(inverse, own + c)
            for i in range(k + 1, last):
                value = minus(value, every(triangle[first + k, i]), load(inverse, i * side + c))
            for n in range(count):
                i = others[n]
                if begins[i] <= c:
                    value = minus(value, every(triangle[first + k, i]), load(turned, i * side + c))
            store(inverse, own + c, scale * value)


@njit(inline="always")
def _turn_rows(factors, f, first, count, across, begin, end, rows, out):
    """T times the rows of a level, each so many numbers long, from one column to another."""
    for b in range(count):
        for t in range(begin, end, LANES):
            value = every(factors[f, b, b]) * load(rows, (first + b) * across + t)
            for a in range(b):
                value = plus(value, every(factors[f, b, a]), load(rows, (first + a) * across + t))
            store(out, (first + b) * across + t, value)


@kernel
def _block_slopes(first, m, wide, at_block, across, side, blocks, used, zty, turned, begins, t_e,
                  t_e_rbar, slopes):  # fmt: skip
    """Add a block's derivative with respect to the weight of each stratum but the first, whose weight is 1.

    With T applied to E, E Rbar and R^-1, it is the sum over products of Z'Z of (T E Rbar)_i . (T E)_k less
    half of (T A^-1 T')_ik, less twice the sum over rows of (T E Rbar)_i . Z'[H y]_i.
    """
    cells, end, whole = m + wide, padded(m), wide // LANES * LANES
    all_blocks, positions = blocks.ravel(), blocks.shape[1]
    sums = room_for(slopes.size)  # of terms that are added up in the end
    sums[:] = 0.0
    for i in range(m):
        row = i * across
        for c in range(i, m):
            at, known, slope = at_block + i * cells + c, False, every(0.0)
            for a in range(1, slopes.size):
                value = blocks[a, at]
                if value == 0.0:
                    continue
                if not known:
                    for k in range(begins[c], end, LANES):
                        slope = minus(slope, load(turned, i * side + k), load(turned, c * side + k))
                    slope = every(0.5) * slope
                    for t in range(0, across, LANES):
                        slope = plus(slope, load(t_e_rbar, row + t), load(t_e, c * across + t))
                    known = True
                weight = every(value if i == c else 2.0 * value)
                store(sums, a * LANES, plus(load(sums, a * LANES), weight, slope))
        for a in range(1, slopes.size):
            if not used[a, first + i]:
                continue
            total, at = t_e_rbar[row + wide] * zty[a, first + i], at_block + i * cells + m
            for t in range(whole, wide):
                total += t_e_rbar[row + t] * blocks[a, at + t]
            slopes[a] -= 2.0 * total
            value, flat = load(sums, a * LANES), a * positions + at
            for t in range(0, whole, LANES):
                twice = every(2.0) * load(t_e_rbar, row + t)
                value = minus(value, twice, load(all_blocks, flat + t))
            store(sums, a * LANES, value)
    for a in range(1, slopes.size):
        slopes[a] += summed(load(sums, a * LANES))


@kernel
def _common_slopes(s, y, r_bar, slopes):
    """Add the same of the products of common columns and response."""
    wide = s.hth.shape[1]
    for a in range(1, slopes.size):
        for i in range(wide):
            for c in range(wide):
                slopes[a] += r_bar[i, c] * s.hth[a, i, c]
            slopes[a] += 2.0 * r_bar[i, wide] * y.hty[a, i]
        slopes[a] += r_bar[wide, wide] * y.yty[a]


@kernel
def _solve_transposed(factors, terms, inner):
    """T'^-1 N for each factor; an SD of exactly zero is taken as the smallest positive one."""
    out = inner.copy()
    for f in range(terms.size):
        q = terms[f]
        for c in range(q):
            for i in range(q - 1, -1, -1):
                value = out[f, i, c]
                for k in range(i + 1, q):
                    value -= factors[f, k, i] * out[f, k, c]
                out[f, i, c] = value / max(factors[f, i, i], 1e-100)
    return out


@kernel
def to_phi(phi, terms, correlated, bars, gradient):
    """Chain the derivative with respect to the factors T to relative SDs and atanh correlations."""
    sd_at = 1
    cor_at = 1 + terms.sum()
    for f in range(terms.size):
        q = terms[f]
        for i in range(q):
            sd = abs(phi[sd_at + i])
            sign = 1.0 if phi[sd_at + i] >= 0.0 else -1.0
            if not correlated[f]:
                gradient[sd_at + i] += sign * bars[f, i, i]
                continue
            # c[i, k] = tanh(z_k) sqrt(left_k), left_{k+1} = left_k (1 - tanh(z_k)^2).
            left = np.ones(i + 1)
            c = np.empty(i)
            for k in range(i):
                c[k] = np.tanh(phi[cor_at + k])
                left[k + 1] = left[k] * (1.0 - c[k] * c[k])
            total = bars[f, i, i] * np.sqrt(left[i])
            for k in range(i):
                total += bars[f, i, k] * c[k] * np.sqrt(left[k])
            gradient[sd_at + i] += sign * total
            left_bar = 0.5 * sd * bars[f, i, i] / np.sqrt(left[i])
            for k in range(i - 1, -1, -1):
                row = sd * bars[f, i, k]
                c_bar = row * np.sqrt(left[k]) - 2.0 * c[k] * left[k] * left_bar
                left_bar = 0.5 * row * c[k] / np.sqrt(left[k]) + left_bar * (1.0 - c[k] * c[k])
                gradient[cor_at + k] += c_bar * (1.0 - c[k] * c[k])
            cor_at += i
        sd_at += q


@kernel
def sd_prior_slope(sd, row):
    """Derivative of the log prior density of a standard deviation."""
    if row[0] == 0.0:
        return -sd / row[1] ** 2
    if row[0] == 1.0:
        nu, scale = row[1], row[2]
        return -(nu + 1.0) * sd / (nu * scale**2 + sd**2)
    return -1.0 / row[1]


@kernel
def density_and_gradient(phi, s, priors, y, reduced, room):
    """Log density of phi, priors included, and its gradient."""
    value, gradient = likelihood_and_gradient(phi, s, y, reduced, room)
    strata = s.rows.size
    value += log_prior(phi, strata, priors)
    sigma = np.exp(phi[0])
    gradient[0] += 1.0 + sigma * sd_prior_slope(sigma, priors.sd[0])
    sds = priors.sd.shape[0] - 1
    for i in range(sds):
        sd = sigma * abs(phi[1 + i])
        slope = sd_prior_slope(sd, priors.sd[1 + i])
        gradient[0] += 1.0 + sd * slope
        gradient[1 + i] += sigma * slope * (1.0 if phi[1 + i] >= 0.0 else -1.0)
    for i in range(priors.alpha.size):
        gradient[1 + sds + i] -= 2.0 * priors.alpha[i] * np.tanh(phi[1 + sds + i])
    for a in range(1, strata):
        at = phi.size - strata + a
        own = sigma * np.exp(phi[at])
        slope = 1.0 + own * sd_prior_slope(own, priors.sd[0])
        gradient[0] += slope
        gradient[at] += slope
    return value, gradient
