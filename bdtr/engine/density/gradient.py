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
from numba import types

from bdtr.engine.compiled.kernels import caller, exported, kernel, loader
from bdtr.engine.density.elimination import (
    border_cholesky,
    border_system,
    eliminate,
    relative_factors,
    stratum_weights,
)
from bdtr.engine.density.marginal import log_determinant_of_errors, log_prior
from bdtr.engine.system import RESPONSE, ROOM, SYSTEM, Response, Room, System

__all__ = ["density_and_gradient", "likelihood_and_gradient"]


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
    t_e, t_e_rbar = _blocks_adjoint(factors, s, r_bar, inner, slopes, room)
    for f in range(s.terms.size):  # symmetric: blocks have added to one half
        for b in range(s.terms[f]):
            for c in range(b):
                inner[f, b, c] = inner[f, c, b]
    bars = _solve_transposed(factors, s.terms, inner)
    _to_phi(phi, s.terms, s.correlated, bars, gradient)
    if strata > 1:
        _stratum_adjoint(s, y, r_bar, t_e, t_e_rbar, slopes)
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
        _turn_rows(factors, f, at, at + s.terms[f], 0, rows.shape[1], rows, out)
    return out


@kernel
def _blocks_adjoint(factors, s, r_bar, inner, slopes, room):
    """Add each level's part to inner (upper triangles) and, with several strata, A^-1's part to slopes.

    Returns T E and T E Rbar of all blocks.
    """
    terms, start, block_groups = s.terms, s.start, s.block_groups
    group_start, group_factor, blocks = s.group_start, s.group_factor, s.blocks
    triangle, panel = room.triangle, room.panel
    largest, wide = triangle.shape[1], panel.shape[1]
    inverse, turned = np.empty((largest, largest)), np.empty((largest, largest))
    begins = np.empty(largest, np.int64)  # first column of a row of T R^-1 that is not zero
    e, t_e = np.empty(panel.shape), np.empty(panel.shape)
    for j in range(start.size - 1):
        first = start[j]
        m = start[j + 1] - first
        for g in range(block_groups[j + 1] - 1, block_groups[j] - 1, -1):
            f = group_factor[g]
            at = group_start[g] - first
            last = at + terms[f]
            begins[at:last] = at
            _solve_level(at, last, first, m, triangle, panel, e, t_e, inverse, turned, begins)
            for b in range(at, last):
                for c in range(b, last):
                    total = 0.0
                    for k in range(c, m):
                        total += inverse[b, k] * inverse[c, k]
                    inner[f, b - at, c - at] += total
                inner[f, b - at, b - at] -= 1.0
            _turn_rows(factors, f, first + at, first + last, 0, wide, e, t_e)
            _turn_rows(factors, f, at, last, at, m, inverse, turned)
        if slopes.size > 1:
            cells = m + wide - 1
            _inverse_slopes(m, cells, s.block_start[j], blocks, turned, begins, slopes)
    e_rbar = np.dot(e, r_bar)
    t_e_rbar = np.empty(e.shape)
    for g in range(group_start.size):
        f = group_factor[g]
        at, q = group_start[g], terms[f]
        for b in range(q):
            for c in range(b, q):
                total = 0.0
                for k in range(wide):
                    total += e_rbar[at + b, k] * e[at + c, k]
                inner[f, b, c] -= 2.0 * total
        if slopes.size > 1:
            _turn_rows(factors, f, at, at + q, 0, wide, e_rbar, t_e_rbar)
    return t_e, t_e_rbar


@kernel
def _solve_level(at, last, first, m, triangle, panel, e, t_e, inverse, turned, begins):
    """Rows of E = A^-1 W and of R^-1, R'R = A, for a level of a block, those of later levels known.

    Rows of R beyond their own level take the T E and T R^-1 of other levels (see the elimination). Takes
    whole arrays and makes no parts of them, which would cost more than the arithmetic of a small block.
    """
    wide = panel.shape[1]
    for k in range(last - 1, at - 1, -1):
        for t in range(wide):
            e[first + k, t] = panel[first + k, t]
        for c in range(at, m):
            inverse[k, c] = 0.0
        inverse[k, k] = 1.0
        for i in range(k + 1, last):
            value = triangle[first + k, i]
            for t in range(wide):
                e[first + k, t] -= value * e[first + i, t]
            for c in range(i, m):
                inverse[k, c] -= value * inverse[i, c]
        for i in range(last, m):
            value = triangle[first + k, i]
            if value == 0.0:
                continue
            for t in range(wide):
                e[first + k, t] -= value * t_e[first + i, t]
            for c in range(begins[i], m):
                inverse[k, c] -= value * turned[i, c]
        scale = triangle[first + k, k]
        for t in range(wide):
            e[first + k, t] *= scale
        for c in range(k, m):
            inverse[k, c] *= scale


@kernel
def _turn_rows(factors, f, first, last, begin, end, rows, out):
    """T times the rows of a level, from one column to another."""
    for b in range(last - first):
        t = factors[f, b, b]
        for c in range(begin, end):
            out[first + b, c] = t * rows[first + b, c]
        for a in range(b):
            t = factors[f, b, a]
            for c in range(begin, end):
                out[first + b, c] += t * rows[first + a, c]


@kernel
def _inverse_slopes(m, cells, at_block, blocks, turned, begins, slopes):
    """Minus half of the sum of products of Z'Z of a block with T A^-1 T', for all strata but the first, whose
    weight is 1."""
    for c in range(m):
        for i in range(c + 1):
            at_cell, square = at_block + i * cells + c, np.nan
            for a in range(1, slopes.size):
                value = blocks[a, at_cell]
                if value == 0.0:
                    continue
                if np.isnan(square):
                    square = 0.0
                    for k in range(begins[c], m):
                        square += turned[i, k] * turned[c, k]
                slopes[a] -= (0.5 if i == c else 1.0) * value * square


@kernel
def _stratum_adjoint(s, y, r_bar, t_e, t_e_rbar, slopes):
    """Add the rest of the derivative with respect to the weight of each stratum to slopes.

    With T applied to E and E Rbar, a block's part is the sum over its rows of
    (T E Rbar)_i . (Z'Z T E - 2 Z'[H y])_i.
    """
    wide, hth, hty, yty = s.hth.shape[1], s.hth, y.hty, y.yty
    start, blocks, block_start, used, zty = s.start, s.blocks, s.block_start, s.used, y.zty
    for a in range(1, slopes.size):
        for i in range(wide):
            for c in range(wide):
                slopes[a] += r_bar[i, c] * hth[a, i, c]
            slopes[a] += 2.0 * r_bar[i, wide] * hty[a, i]
        slopes[a] += r_bar[wide, wide] * yty[a]
    row = np.empty(wide + 1)
    for j in range(start.size - 1):
        first = start[j]
        m = start[j + 1] - first
        cells = m + wide
        for a in range(1, slopes.size):
            for i in range(m):
                if not used[a, first + i]:
                    continue
                at = block_start[j] + i * cells
                own = blocks[a, at + m : at + cells]
                for c in range(own.size):
                    row[c] = -2.0 * own[c]
                row[wide] = -2.0 * zty[a, first + i]
                for k in range(m):
                    value = blocks[a, at + k]
                    if value == 0.0:
                        continue
                    other = t_e[first + k]
                    for c in range(row.size):
                        row[c] += value * other[c]
                left, total = t_e_rbar[first + i], 0.0
                for c in range(row.size):
                    total += left[c] * row[c]
                slopes[a] += total


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
def _to_phi(phi, terms, correlated, bars, gradient):
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
def _sd_prior_slope(sd, row):
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
    gradient[0] += 1.0 + sigma * _sd_prior_slope(sigma, priors.sd[0])
    sds = priors.sd.shape[0] - 1
    for i in range(sds):
        sd = sigma * abs(phi[1 + i])
        slope = _sd_prior_slope(sd, priors.sd[1 + i])
        gradient[0] += 1.0 + sd * slope
        gradient[1 + i] += sigma * slope * (1.0 if phi[1 + i] >= 0.0 else -1.0)
    for i in range(priors.alpha.size):
        gradient[1 + sds + i] -= 2.0 * priors.alpha[i] * np.tanh(phi[1 + sds + i])
    for a in range(1, strata):
        at = phi.size - strata + a
        own = sigma * np.exp(phi[at])
        slope = 1.0 + own * _sd_prior_slope(own, priors.sd[0])
        gradient[0] += slope
        gradient[at] += slope
    return value, gradient
