r"""The marginal density of standard deviations and correlations, coefficients integrated out.

Model of a response, with coefficients b ~ N(0, D) and group effects u = sigma T v, v ~ N(0, I):

    y = X b + sigma Z T v + e,    e_i ~ N(0, sigma_a^2 / w_i) for a row of stratum a, known weight w_i.

T is block diagonal, one lower-triangular factor per level: relative SDs times the Cholesky factor of
the correlation matrix. Strata have SDs sigma_a = sigma exp(rho_a), rho_0 = 0. With all products taken
with the weights W = diag(w_i exp(-2 rho_a)), A = T'Z'WZT + I and the Schur complement of v

    S0 = X'WX - X'WZT A^-1 T'Z'WX,  r0 = X'Wy - X'WZT A^-1 T'Z'Wy,  q0 = y'Wy - y'WZT A^-1 T'Z'Wy,

the coefficients have precision S = S0 / sigma^2 + D^-1 and

    log p(y | sigma, T) = -n/2 log(2 pi sigma^2) + 1/2 log|W| - 1/2 log|A| - 1/2 log|D| - 1/2 log|S|
                          - 1/2 (q0 / sigma^2 - r0' S^-1 r0 / sigma^4).

This is the elimination of lme4 and MixedModels.jl (Bates, Maechler, Bolker and Walker 2015, J. Stat.
Softw. 67(1), section 3), with a normal prior of the common coefficients. Blocks go first, then the
border (see :mod:`bdtr.engine.layout`). S0, r0, q0 do not depend on sigma, so the residual SD is
updated at the cost of one small Cholesky factorisation.

Parameters are phi = (log sigma, relative SDs on the whole line and folded at zero, atanh of the
canonical partial correlations of Lewandowski, Kurowicka and Joe 2009, J. Multivar. Anal. 100, then
rho_a of the strata but the first). The density below is with respect to phi and includes the priors
and the Jacobian of phi.
"""

from __future__ import annotations

import math

import numpy as np

from bdtr.engine.compiled.kernels import kernel
from bdtr.engine.crossproducts import CrossProducts, Responses
from bdtr.engine.density.elimination import eliminate
from bdtr.engine.parameters import Parameters
from bdtr.engine.system import Priors, make_room, response, system

__all__ = ["log_density", "log_determinant_of_errors", "log_prior", "reduced_density"]

_LOG_2PI = float(np.log(2.0 * np.pi))


def log_density(
    phi: np.ndarray,
    products: CrossProducts,
    responses: Responses,
    which: int,
    params: Parameters,
) -> float:
    """Log density of phi for one response, all constants of the likelihood included.

    Parameters
    ----------
    phi
        Log residual SD, relative SDs, atanh partial correlations, log ratios of residual SDs.
    products
        Cross-products of the columns.
    responses, which
        Cross-products with the responses, shifted to zero prior means, and which of them.
    params
        Meaning and priors of phi.

    Returns
    -------
    float
    """
    own = system(products, params)
    room, p = make_room(own), params.precision.size
    reduced = np.empty((p + 1, p + 1))
    logdet = eliminate(phi, own, response(responses, which), reduced, room)
    priors = Priors(params.sd_prior, params.alpha)
    return reduced_density(phi, logdet, reduced, own, priors, room.small)


@kernel
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


@kernel
def log_partial_prior(z, alpha):
    """Log density of the atanh of a partial correlation that is Beta(alpha, alpha) on (-1, 1), normalised."""
    z = abs(z)
    log_sech2 = 2.0 * (np.log(2.0) - z - np.log1p(np.exp(-2.0 * z)))
    return alpha * log_sech2 - _log_beta(alpha)


@kernel
def log_prior(phi, strata, priors):
    """Log prior density of phi, its Jacobian included."""
    log_sigma = phi[0]
    sigma = np.exp(log_sigma)
    out = log_sd_prior(sigma, priors.sd[0]) + log_sigma
    sds = priors.sd.shape[0] - 1
    for i in range(sds):
        # Folded at zero: half of the density on either side of 0.
        out += log_sd_prior(sigma * abs(phi[1 + i]), priors.sd[1 + i]) + log_sigma - np.log(2.0)
    for i in range(priors.alpha.size):
        out += log_partial_prior(phi[1 + sds + i], priors.alpha[i])
    for a in range(1, strata):
        ratio = phi[phi.size - strata + a]
        own = sigma * np.exp(ratio)
        out += log_sd_prior(own, priors.sd[0]) + log_sigma + ratio
    return out


@kernel
def log_determinant_of_errors(phi, s):
    """-1/2 log|2 pi V| of the errors e."""
    strata = s.rows.size
    out = 0.5 * s.log_weight
    for a in range(strata):
        ratio = phi[phi.size - strata + a] if a > 0 else 0.0
        out -= s.rows[a] * (0.5 * _LOG_2PI + phi[0] + ratio)
    return out


@kernel
def reduced_density(phi, logdet, reduced, s, priors, small):
    """Log density of phi from the eliminated system; small is left upper triangular for draws."""
    p = s.precision.size
    inverse = np.exp(-2.0 * phi[0])
    for i in range(p):
        for c in range(i, p + 1):
            small[i, c] = reduced[i, c] * inverse
        small[i, i] += s.precision[i]
    fit = 0.0
    logdet_s = 0.0
    for k in range(p):
        pivot = small[k, k]
        if not pivot > 0.0:
            return -np.inf
        logdet_s += np.log(pivot) - np.log(s.precision[k])
        fit += small[k, p] ** 2 / pivot
        for i in range(k + 1, p):
            c = small[k, i] / pivot
            for t in range(i, p + 1):
                small[i, t] -= c * small[k, t]
    out = log_determinant_of_errors(phi, s) - 0.5 * (logdet + logdet_s)
    out -= 0.5 * (reduced[p, p] * inverse - fit)
    return out + log_prior(phi, s.rows.size, priors)


@kernel
def _log_beta(alpha):
    """Normalising constant of (1 - c^2)^(alpha - 1) on (-1, 1)."""
    return (2.0 * alpha - 1.0) * np.log(2.0) + 2.0 * math.lgamma(alpha) - math.lgamma(2.0 * alpha)
