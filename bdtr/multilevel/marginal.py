r"""The marginal density of standard deviations and correlations, coefficients integrated out.

Model of a response, with coefficients b ~ N(0, D) and group effects u = sigma T v, v ~ N(0, I):

    y = X b + sigma Z T v + sigma e,    e ~ N(0, I).

T is block diagonal, one lower-triangular factor per level: relative SDs times the Cholesky factor of
the correlation matrix. With A = T'Z'ZT + I (block diagonal) and the Schur complement of v

    S0 = X'X - X'ZT A^-1 T'Z'X,   r0 = X'y - X'ZT A^-1 T'Z'y,   q0 = y'y - y'ZT A^-1 T'Z'y,

the coefficients have precision S = S0 / sigma^2 + D^-1 and

    log p(y | sigma, T) = -n/2 log(2 pi sigma^2) - 1/2 log|A| - 1/2 log|D| - 1/2 log|S|
                          - 1/2 (q0 / sigma^2 - r0' S^-1 r0 / sigma^4).

This is the elimination of lme4 and MixedModels.jl (Bates, Maechler, Bolker and Walker 2015, J. Stat.
Softw. 67(1), section 3), with a normal prior of the common coefficients. S0, r0, q0 do not depend on
sigma, so the residual SD is updated at the cost of one small Cholesky factorisation.

Parameters are phi = (log sigma, relative SDs on the whole line and folded at zero, atanh of the
canonical partial correlations of Lewandowski, Kurowicka and Joe 2009, J. Multivar. Anal. 100). The
density below is with respect to phi and includes the priors and the Jacobian of phi.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from bdtr.multilevel.crossproducts import CrossProducts, Factor
from bdtr.priors import Exponential, HalfNormal, HalfStudentT, Prior, StagePriors

__all__ = ["Parameters", "log_density", "parameters"]

# "contract" lets products and sums fuse; nothing that changes the order of sums.
_COMPILED = {"cache": True, "error_model": "numpy", "fastmath": {"contract"}}
_LOG_2PI = float(np.log(2.0 * np.pi))
_KIND: Mapping[type[Prior], int] = {HalfNormal: 0, HalfStudentT: 1, Exponential: 2}


@dataclass(frozen=True)
class Parameters:
    """What phi means, and its priors, as arrays for the compiled kernels.

    ``terms`` and ``correlated`` per factor; ``sd_prior`` rows are (kind, parameter, parameter) with
    the residual SD first; ``alpha`` the Beta parameter of each partial correlation;
    ``precision`` the prior precisions of the centred coefficients and ``mean`` their prior means.
    """

    terms: np.ndarray
    correlated: np.ndarray
    sd_prior: np.ndarray
    alpha: np.ndarray
    precision: np.ndarray
    mean: np.ndarray

    @property
    def sds(self) -> int:
        """Number of group SDs."""
        return int(self.terms.sum())

    @property
    def size(self) -> int:
        """Length of phi."""
        return 1 + self.sds + self.alpha.size


def parameters(factors: Sequence[Factor], priors: StagePriors) -> Parameters:
    """Lay out phi for the factors of a stage and code its priors."""
    assert priors.sigma is not None
    sd = [_coded(priors.sigma)]
    alpha = []
    for factor in factors:
        prior = priors.groups[factor.name]
        sd += [_coded(p) for p in prior.sd]
        if factor.correlated:
            assert prior.cor is not None
            q = factor.terms
            # Partial correlations given k earlier terms are Beta(alpha, alpha) on (-1, 1).
            alpha += [prior.cor.eta + (q - 2 - k) / 2 for i in range(1, q) for k in range(i)]
    coefficients = priors.coefficients
    return Parameters(
        np.array([f.terms for f in factors], dtype=np.int64),
        np.array([f.correlated for f in factors], dtype=np.bool_),
        np.array(sd, dtype=float).reshape(-1, 3),
        np.array(alpha, dtype=float),
        np.array([1.0 / c.sigma**2 for c in coefficients]),
        np.array([c.mu for c in coefficients]),
    )


def _coded(prior: Prior) -> tuple[float, float, float]:
    match prior:
        case HalfStudentT(nu, sigma):
            return float(_KIND[HalfStudentT]), nu, sigma
        case HalfNormal(sigma):
            return float(_KIND[HalfNormal]), sigma, 0.0
        case Exponential(scale):
            return float(_KIND[Exponential]), scale, 0.0
    raise TypeError(f"{prior} is no prior of a standard deviation.")


def log_density(
    phi: np.ndarray,
    products: CrossProducts,
    zty: np.ndarray,
    xty: np.ndarray,
    yty: float,
    params: Parameters,
) -> float:
    """Log density of phi for one response, all constants of the likelihood included.

    Parameters
    ----------
    phi
        Log residual SD, relative SDs, atanh partial correlations.
    products
        Cross-products of the columns.
    zty, xty, yty
        Cross-products with the response, shifted to zero prior means.
    params
        Meaning and priors of phi.

    Returns
    -------
    float
    """
    p = xty.size
    reduced = np.empty((p + 1, p + 1))
    work = np.empty(products.work_shape)
    where = products.layout
    logdet = eliminate(
        phi, params.terms, params.correlated, where.start, where.group_start, where.group_factor,
        where.block_groups, products.blocks, products.block_start, products.xtx, zty, xty, yty,
        reduced, work, np.empty((products.layout.start[-1], p + 1)),
    )  # fmt: skip
    small = np.empty((p, p + 1))
    return reduced_density(
        phi,
        logdet,
        reduced,
        products.rows,
        params.sd_prior,
        params.alpha,
        params.precision,
        0.0,
        small,
    )


@njit(**_COMPILED)
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


@njit(**_COMPILED)
def load_block(j, factors, terms, start, group_start, group_factor, block_groups, blocks,
               block_start, zty, p, work):  # fmt: skip
    """Write [T'Z'ZT + I | T'Z'X | T'Z'y] of block j into the first rows of work; its size."""
    first = start[j]
    m = start[j + 1] - first
    cells = m + p
    source = blocks[block_start[j] : block_start[j + 1]].reshape((m, cells))
    for g in range(block_groups[j], block_groups[j + 1]):
        f = group_factor[g]
        q = terms[f]
        row = group_start[g] - first
        for a in range(q):
            into = work[row + a, : cells + 1]
            t = factors[f, a, a]
            own = source[row + a]
            for c in range(cells):
                into[c] = t * own[c]
            value = t * zty[first + row + a]
            for b in range(a + 1, q):
                t = factors[f, b, a]
                other = source[row + b]
                for c in range(cells):
                    into[c] += t * other[c]
                value += t * zty[first + row + b]
            into[cells] = value
    # The same from the right, upper triangle only; ascending: column a only needs columns >= a.
    for g in range(block_groups[j], block_groups[j + 1]):
        f = group_factor[g]
        q = terms[f]
        at = group_start[g] - first
        if q == 1:
            t = factors[f, 0, 0]
            for r in range(at + 1):
                work[r, at] *= t
        else:
            for r in range(at + q):
                for a in range(q):
                    value = 0.0
                    for b in range(a, q):
                        value += factors[f, b, a] * work[r, at + b]
                    work[r, at + a] = value
    for r in range(m):
        work[r, r] += 1.0
    return m


@njit(**_COMPILED)
def triangularise(m, width, work):
    """Eliminate below the diagonal of the first m columns; the determinant of the m x m part."""
    determinant = 1.0
    for k in range(m):
        pivot = work[k, k]
        determinant *= pivot
        for i in range(k + 1, m):
            c = work[k, i]
            if c == 0.0:
                continue
            c /= pivot
            into = work[i, i:width]
            source = work[k, i:width]
            for t in range(into.size):
                into[t] -= c * source[t]
    return determinant


@njit(**_COMPILED)
def eliminate(phi, terms, correlated, start, group_start, group_factor, block_groups, blocks,
              block_start, xtx, zty, xty, yty, reduced, work, panel):  # fmt: skip
    """Write [S0 r0; . q0] (upper triangle) into reduced; return log|A|."""
    p = xty.size
    for i in range(p):
        for c in range(i, p):
            reduced[i, c] = xtx[i, c]
        reduced[i, p] = xty[i]
    reduced[p, p] = yty
    if terms.size == 0:
        return 0.0
    factors = relative_factors(phi, terms, correlated)
    logdet = 0.0
    for j in range(start.size - 1):
        m = load_block(j, factors, terms, start, group_start, group_factor, block_groups, blocks,
                       block_start, zty, p, work)  # fmt: skip
        determinant = triangularise(m, m + p + 1, work)
        if determinant < 1e250:
            logdet += np.log(determinant)
        else:  # the product has overflowed, or is about to
            for k in range(m):
                logdet += np.log(work[k, k])
        for k in range(m):
            root = 1.0 / np.sqrt(work[k, k])
            into = panel[start[j] + k]
            source = work[k, m : m + p + 1]
            for t in range(into.size):
                into[t] = root * source[t]
    # Most of the work: the outer products of all eliminated rows in one matrix product.
    product = np.dot(panel.T, panel)
    for i in range(p + 1):
        for c in range(i, p + 1):
            reduced[i, c] -= product[i, c]
    return logdet


@njit(**_COMPILED)
def log_sd_prior(sd, row):
    """Log density of a standard deviation under the coded prior, normalised."""
    if row[0] == 0.0:
        return 0.5 * np.log(2.0 / np.pi) - np.log(row[1]) - 0.5 * (sd / row[1]) ** 2
    if row[0] == 1.0:
        nu, scale = row[1], row[2]
        constant = (
            np.log(2.0) + math.lgamma((nu + 1.0) / 2.0) - math.lgamma(nu / 2.0)
            - 0.5 * np.log(nu * np.pi) - np.log(scale)
        )  # fmt: skip
        return constant - (nu + 1.0) / 2.0 * np.log1p((sd / scale) ** 2 / nu)
    return -np.log(row[1]) - sd / row[1]


@njit(**_COMPILED)
def reduced_density(phi, logdet, reduced, rows, sd_prior, alpha, precision, floor, small):
    """Log density of phi from the eliminated system; small is left upper triangular for draws."""
    p = precision.size
    log_sigma = phi[0]
    inverse = np.exp(-2.0 * log_sigma)
    for i in range(p):
        for c in range(i, p + 1):
            small[i, c] = reduced[i, c] * inverse
        small[i, i] += precision[i]
    fit = 0.0
    logdet_s = 0.0
    for k in range(p):
        pivot = small[k, k]
        if not pivot > 0.0:
            return -np.inf
        logdet_s += np.log(pivot) - np.log(precision[k])
        fit += small[k, p] ** 2 / pivot
        for i in range(k + 1, p):
            c = small[k, i] / pivot
            for t in range(i, p + 1):
                small[i, t] -= c * small[k, t]
    out = -0.5 * rows * (_LOG_2PI + 2.0 * log_sigma) - 0.5 * (logdet + logdet_s)
    out -= 0.5 * (reduced[p, p] * inverse - fit)
    sigma = np.exp(log_sigma)
    if sigma < floor:
        return -np.inf
    out += log_sd_prior(sigma, sd_prior[0]) + log_sigma
    sds = sd_prior.shape[0] - 1
    for i in range(sds):
        # Folded at zero: half of the density on either side of 0.
        out += log_sd_prior(sigma * abs(phi[1 + i]), sd_prior[1 + i]) + log_sigma - np.log(2.0)
    for i in range(alpha.size):
        z = abs(phi[1 + sds + i])
        log_sech2 = 2.0 * (np.log(2.0) - z - np.log1p(np.exp(-2.0 * z)))
        out += alpha[i] * log_sech2 - _log_beta(alpha[i])
    return out


@njit(**_COMPILED)
def _log_beta(alpha):
    """Normalising constant of (1 - c^2)^(alpha - 1) on (-1, 1)."""
    return (2.0 * alpha - 1.0) * np.log(2.0) + 2.0 * math.lgamma(alpha) - math.lgamma(2.0 * alpha)
