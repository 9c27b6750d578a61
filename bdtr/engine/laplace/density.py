r"""Laplace's approximation of the marginal density of phi, coefficients and group effects integrated out.

phi = (SDs of group terms, folded at zero; atanh partial correlations; dispersions, or gaps between
categories, log(nu - 1): see :mod:`bdtr.engine.laplace.likelihoods`). With w-hat the mode of F and H minus its
Hessian (:mod:`bdtr.engine.laplace.climb`),

    log p(y | phi) = F(w-hat) - 1/2 log|H(w-hat)| + 1/2 log|D| + (what phi alone decides) + O(1/n)

(Tierney and Kadane 1986, J. Am. Stat. Assoc. 81(393); Rue, Martino and Chopin 2009, J. R. Stat. Soc. B
71(2)). Next to the mode, where the climb stops with decrement q, F(w-hat) is F(w) + q/2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import types

from bdtr.engine.compiled.kernels import kernel, link
from bdtr.engine.density.elimination import relative_factors
from bdtr.engine.density.marginal import log_partial_prior, log_sd_prior
from bdtr.engine.laplace.cells import CELLS, Cells
from bdtr.engine.laplace.climb import climb, make_room, turned
from bdtr.engine.laplace.likelihoods import FOLDED, FORMS, ORDINAL, STUDENT_T, prepare

__all__ = [
    "POSTERIOR",
    "Posterior",
    "climbed",
    "laplace",
    "log_density",
    "log_prior",
    "parts",
    "set_up",
    "shape_at",
]


class Posterior(NamedTuple):
    """A model and its data as arrays for the kernels.

    ``terms`` and ``correlated`` per grouping factor; ``precision`` and ``mean`` of the normal priors of
    coefficients; ``sd`` rows code the priors of the SDs of group terms, ``shape`` those of what belongs to
    the outcome: dispersions likewise, gaps by mean and SD of their normal logarithm, nu - 1 by shape and rate
    of a gamma distribution; ``alpha`` the Beta parameters of partial correlations.
    """

    cells: Cells
    terms: np.ndarray
    correlated: np.ndarray
    precision: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    alpha: np.ndarray
    shape: np.ndarray

    @property
    def size(self) -> int:
        """Length of phi."""
        return len(self.sd) + self.alpha.size + len(self.shape)

    @property
    def sides(self) -> np.ndarray:
        """Which parts of phi are folded at zero."""
        folded = np.zeros(self.size, np.bool_)
        folded[: len(self.sd)] = True
        if FOLDED[self.cells.family]:
            folded[shape_at(self) :] = True
        return folded

    @property
    def fixed(self) -> int:
        """Number of border effects and coefficients."""
        return self.cells.border + self.precision.size


POSTERIOR = types.NamedTuple(
    (
        CELLS, types.int64[::1], types.boolean[::1], types.float64[::1], types.float64[::1],
        types.float64[:, ::1], types.float64[::1], types.float64[:, ::1],
    ),
    Posterior,
)  # fmt: skip


def log_density(phi: np.ndarray, posterior: Posterior, tolerance: float = 1e-16) -> float:
    """Log density of phi, priors included, with respect to phi.

    Parameters
    ----------
    phi
        SDs, atanh partial correlations, dispersions or gaps.
    posterior
        Model and data.
    tolerance
        Newton decrement at which climbs end.

    Returns
    -------
    float
    """
    link("laplace_")
    return _density(np.asarray(phi, float), posterior, tolerance)


@kernel
def _density(phi, posterior, tolerance):
    return laplace(phi, posterior, make_room(posterior.cells), tolerance) + log_prior(
        phi, posterior
    )


@kernel
def shape_at(posterior):
    """Place in phi of what belongs to the outcome."""
    return posterior.sd.shape[0] + posterior.alpha.size


@kernel
def set_up(phi, posterior, room):
    """Write what rows take at phi and Z T; the part of the log likelihood that phi alone decides."""
    cells = posterior.cells
    rows = (room.a, room.b, room.c, room.d)
    shape = phi[shape_at(posterior) :]
    prepare(cells.family, cells.y, cells.m, cells.count, cells.stratum, shape, rows, room.rest)
    turned(cells, parts(phi, posterior), room.zt)
    return room.rest.sum()


@kernel
def parts(phi, posterior):
    """Lower-triangular factor T of each grouping factor (factor x term x term)."""
    relative = np.zeros(phi.size + 1)  # to a residual SD of 1
    relative[1:] = phi
    return relative_factors(relative, posterior.terms, posterior.correlated)


@kernel
def laplace(phi, posterior, room, tolerance):
    """Log likelihood of phi, climbing from where the room stands; minus infinity where that fails."""
    return set_up(phi, posterior, room) + climbed(posterior, room, tolerance)


@kernel
def climbed(posterior, room, tolerance):
    """Laplace's log likelihood, but for the part that phi alone decides, of rows that are set up.

    A climb that fails, far from where it should end, begins once more from zero.
    """
    value, logdet, decrement = 0.0, np.inf, 0.0
    for _ in range(2):
        value, logdet, decrement = climb(
            posterior.cells, FORMS[posterior.cells.family], posterior.precision, posterior.mean,
            room, tolerance,
        )  # fmt: skip
        if np.isfinite(logdet):
            break
        room.w[:] = 0.0
    if not np.isfinite(logdet):
        return -np.inf
    for precision in posterior.precision:
        logdet -= np.log(precision)
    return value + 0.5 * (decrement - logdet)


@kernel
def log_prior(phi, posterior):
    """Log prior density of phi, with respect to phi."""
    out, at = 0.0, 0
    for i in range(posterior.sd.shape[0]):
        out += log_sd_prior(abs(phi[at]), posterior.sd[i]) - np.log(2.0)
        at += 1
    for alpha in posterior.alpha:
        out += log_partial_prior(phi[at], alpha)
        at += 1
    for i in range(posterior.shape.shape[0]):
        row = posterior.shape[i]
        if posterior.cells.family == ORDINAL:
            out -= 0.5 * (np.log(2.0 * np.pi) + ((phi[at] - row[0]) / row[1]) ** 2) + np.log(row[1])
        elif FOLDED[posterior.cells.family]:
            out += log_sd_prior(abs(phi[at]), row) - np.log(2.0)
        elif posterior.cells.family == STUDENT_T and at == phi.size - 1:
            out += row[0] * (np.log(row[1]) + phi[at]) - row[1] * np.exp(phi[at])
            out -= math.lgamma(row[0])
        else:
            out += log_sd_prior(np.exp(phi[at]), row) + phi[at]
        at += 1
    return out
