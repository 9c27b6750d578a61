"""Coefficients and group effects at their posterior mode given phi."""

from __future__ import annotations

import numpy as np

from bdtr.engine.compiled.kernels import kernel, link
from bdtr.engine.density.elimination import factors_of_each
from bdtr.engine.laplace.climb import make_room
from bdtr.engine.laplace.density import Posterior, laplace
from bdtr.engine.layout import Layout
from bdtr.results.threads import spread

__all__ = ["modes_given", "turned_effects"]

_TIGHT = 1e-8  # Newton decrement at which climbs end


def modes_given(
    posterior: Posterior, where: Layout, phi: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Modes of coefficients and group effects given each phi.

    Parameters
    ----------
    posterior, where
        Model and data, and the layout of group effects.
    phi
        SDs, atanh partial correlations, dispersions or gaps (draw x phi).

    Returns
    -------
    coefficients, effects : numpy.ndarray
        (draw x term), (draw x effect); levels without rows have zero, draws without a mode NaN.
    """
    link("laplace_")
    inner, border = posterior.cells.first.size, posterior.cells.border
    w = np.empty((len(phi), inner + posterior.fixed))
    spread(_climb_each, len(phi), np.ascontiguousarray(phi), posterior, w)
    v = np.zeros((len(phi), where.effects))
    v[:, where.inner.target] = w[:, :inner]
    v[:, where.border.target] = w[:, inner : inner + border]
    return w[:, inner + border :], turned_effects(posterior, where, phi, v)


def turned_effects(
    posterior: Posterior, where: Layout, phi: np.ndarray, v: np.ndarray
) -> np.ndarray:
    """Effects u = T v of all levels (draw x effect)."""
    if not where.factors:
        return v
    relative = np.hstack([np.zeros((len(phi), 1)), phi])  # to a residual SD of 1
    roots = factors_of_each(relative, posterior.terms, posterior.correlated)
    out = np.empty_like(v)
    for f, factor in enumerate(where.factors):
        q, own = factor.terms, slice(where.offset[f], where.offset[f + 1])
        by_level = v[:, own].reshape(len(phi), factor.levels, q)
        out[:, own] = (by_level @ np.swapaxes(roots[:, f, :q, :q], 1, 2)).reshape(len(phi), -1)
    return out


@kernel
def _climb_each(first, last, phi, posterior, w):
    room = make_room(posterior.cells)
    for s in range(first, last):
        found = laplace(phi[s], posterior, room, _TIGHT)
        w[s] = room.w
        if not np.isfinite(found):
            w[s] = np.nan
