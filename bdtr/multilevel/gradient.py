r"""The marginal log likelihood of phi with its gradient, priors left to the caller.

With S0, r0, q0 of :mod:`bdtr.multilevel.marginal`, S = S0 / sigma^2 + D^-1 and beta = S^-1 r0 / sigma^2,
the derivative with respect to R = [S0 r0; r0' q0] is

    Rbar = -1 / (2 sigma^2) [S^-1 + beta beta'  -beta; -beta'  1],

and a block with A = T'GT + I, W = T'H, G = Z'Z, H = Z'[X y], E = A^-1 W contributes
R -= W'A^-1 W and -1/2 log|A|, hence Abar = E Rbar E' - 1/2 A^-1, Wbar = -2 E Rbar and
Tbar = 2 G T Abar + H Wbar'. With G T = T'^-1 (A - I) and H = T'^-1 W this is

    Tbar = T'^-1 (A^-1 - I - 2 E Rbar E'),

of which only the diagonal block of each level is needed.

With respect to log sigma: -n + tr(S^-1 S0) / sigma^2 + (q0 - 2 r0'beta + beta'S0 beta) / sigma^2.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from bdtr.multilevel.marginal import (
    _COMPILED,
    _LOG_2PI,
    eliminate,
    load_block,
    relative_factors,
    triangularise,
)

__all__ = ["likelihood_and_gradient"]


@njit(**_COMPILED)
def likelihood_and_gradient(phi, terms, correlated, start, group_start, group_factor, block_groups,
                            blocks, block_start, xtx, zty, xty, yty, rows, precision):  # fmt: skip
    """Log likelihood of phi = (log sigma, relative SDs, atanh partial correlations); its gradient."""
    p = xty.size
    gradient = np.zeros(phi.size)
    reduced = np.empty((p + 1, p + 1))
    largest = 1
    for j in range(start.size - 1):
        largest = max(largest, start[j + 1] - start[j])
    work = np.empty((largest, largest + p + 1))
    panel = np.empty((start[-1], p + 1))
    logdet = eliminate(phi, terms, correlated, start, group_start, group_factor, block_groups,
                       blocks, block_start, xtx, zty, xty, yty, reduced, work, panel)  # fmt: skip
    inverse = np.exp(-2.0 * phi[0])
    s0 = np.empty((p, p))
    for i in range(p):
        for c in range(i, p):
            s0[i, c] = reduced[i, c]
            s0[c, i] = reduced[i, c]
    r0 = reduced[:p, p].copy()
    q0 = reduced[p, p]
    s = s0 * inverse + np.diag(precision)
    root = np.linalg.cholesky(s)
    s_inverse = np.linalg.inv(s)
    beta = np.dot(s_inverse, r0) * inverse
    fit = np.dot(r0, beta)
    logdet_s = 2.0 * np.log(np.diag(root)).sum() - np.log(precision).sum()
    value = -0.5 * rows * (_LOG_2PI + 2.0 * phi[0]) - 0.5 * (logdet + logdet_s)
    value -= 0.5 * inverse * (q0 - fit)
    squares = q0 - 2.0 * fit + np.dot(beta, np.dot(s0, beta))
    gradient[0] = -rows + inverse * ((s_inverse * s0).sum() + squares)
    if terms.size == 0:
        return value, gradient

    r_bar = np.empty((p + 1, p + 1))
    r_bar[:p, :p] = s_inverse + np.outer(beta, beta)
    r_bar[:p, p] = -beta
    r_bar[p, :p] = -beta
    r_bar[p, p] = 1.0
    r_bar *= -0.5 * inverse
    factors = relative_factors(phi, terms, correlated)
    inner = np.zeros(factors.shape)  # per factor the sum over levels of A^-1 - I - 2 E Rbar E'
    upper_inverse = np.empty((largest, largest))
    e = panel  # its rows are no longer needed: room for E of all blocks
    for j in range(start.size - 1):
        m = load_block(j, factors, terms, start, group_start, group_factor, block_groups, blocks,
                       block_start, zty, p, work)  # fmt: skip
        width = m + p + 1
        triangularise(m, width, work)
        _solve_block(m, width, work, e[start[j] : start[j] + m], upper_inverse)
        for g in range(block_groups[j], block_groups[j + 1]):
            f = group_factor[g]
            at = group_start[g] - start[j]
            for b in range(terms[f]):
                for c in range(terms[f]):
                    total = 0.0
                    for k in range(at + max(b, c), m):
                        total += upper_inverse[at + b, k] * upper_inverse[at + c, k] * work[k, k]
                    inner[f, b, c] += total
                inner[f, b, b] -= 1.0
    e_rbar = np.dot(e, r_bar)
    for g in range(group_start.size):
        f = group_factor[g]
        at = group_start[g]
        for b in range(terms[f]):
            for c in range(terms[f]):
                total = 0.0
                left, right = e_rbar[at + b], e[at + c]
                for k in range(p + 1):
                    total += left[k] * right[k]
                inner[f, b, c] -= 2.0 * total
    bars = _solve_transposed(factors, terms, inner)
    _to_phi(phi, terms, correlated, bars, gradient)
    return value, gradient


@njit(**_COMPILED)
def _solve_block(m, width, work, e, upper_inverse):
    """From the eliminated rows [U W~]: E = A^-1 W, and the inverse of U, both by substitution."""
    for k in range(m - 1, -1, -1):
        pivot = 1.0 / work[k, k]
        into = e[k]
        source = work[k, m:width]
        for t in range(into.size):
            into[t] = source[t]
        for c in range(k, m):
            upper_inverse[k, c] = 0.0
        upper_inverse[k, k] = 1.0
        for i in range(k + 1, m):
            u = work[k, i]
            if u == 0.0:
                continue
            source = e[i]
            for t in range(into.size):
                into[t] -= u * source[t]
            for c in range(i, m):
                upper_inverse[k, c] -= u * upper_inverse[i, c]
        for t in range(into.size):
            into[t] *= pivot
        for c in range(k, m):
            upper_inverse[k, c] *= pivot


@njit(**_COMPILED)
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


@njit(**_COMPILED)
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
