"""Slice chains on Laplace's density of phi: for posteriors that no t distribution proposes well.

Univariate slice sampling with stepping out and shrinkage (Neal 2003, Ann. Statist. 31(3)) of each part of phi
in turn; SDs are folded at zero, where the density is smooth. Draws are from Laplace's density; exact weights
correct them afterwards.
"""

from __future__ import annotations

import numpy as np

from bdtr.engine.compiled.kernels import kernel
from bdtr.engine.compiled.streams import seeded, uniform
from bdtr.engine.laplace.climb import make_room
from bdtr.engine.laplace.density import Posterior, laplace, log_prior
from bdtr.results.threads import spread

__all__ = ["slice_draws"]

_NEAR = 1e-6  # Newton decrement at which climbs end
_STEPS_OUT = 8


def slice_draws(
    posterior: Posterior,
    mode: np.ndarray,
    start: np.ndarray,
    width: np.ndarray,
    draws: int,
    thin: int,
    words: np.ndarray,
) -> tuple[np.ndarray, int]:
    """Draws of phi from Laplace's density, SDs not below zero.

    Parameters
    ----------
    posterior
        Model and data.
    mode
        Effects and coefficients that climbs begin at.
    start
        Where each chain begins (chain x phi).
    width
        First intervals of each part of phi.
    draws, thin
        Draws kept of each chain, and sweeps from one to the next.
    words
        Seed of each chain.

    Returns
    -------
    phi : numpy.ndarray
        (chain x draw x phi).
    evaluations : int
    """
    kept = np.empty((len(start), draws, start.shape[1]))
    used = np.zeros(len(start), np.int64)
    spread(_chains, len(start), posterior, mode, start, width, thin, words, kept, used)
    kept[:, :, posterior.sides] = np.abs(kept[:, :, posterior.sides])
    return kept, int(used.sum())


@kernel
def _density(phi, posterior, room):
    return laplace(phi, posterior, room, _NEAR) + log_prior(phi, posterior)


@kernel
def _chains(first, last, posterior, mode, start, width, thin, words, kept, used):
    room = make_room(posterior.cells)
    for s in range(first, last):
        room.w[:] = mode
        phi = start[s].copy()
        density = _density(phi, posterior, room)
        for d in range(kept.shape[1]):
            for t in range(thin):
                for i in range(phi.size):
                    rng = seeded(words[s], (d * thin + t) * phi.size + i)
                    density, evaluations = _update(phi, i, density, width[i], posterior, room, rng)
                    used[s] += evaluations
            kept[s, d] = phi


@kernel
def _update(phi, i, density, width, posterior, room, rng):
    """Draw part i of phi given the rest; its density, and evaluations."""
    level, x0, used = density + np.log(uniform(rng)), phi[i], 0
    left = x0 - width * uniform(rng)
    right = left + width
    steps_left = int(_STEPS_OUT * uniform(rng))
    steps_right = _STEPS_OUT - 1 - steps_left
    for _ in range(steps_left):
        phi[i], used = left, used + 1
        if not _density(phi, posterior, room) > level:
            break
        left -= width
    for _ in range(steps_right):
        phi[i], used = right, used + 1
        if not _density(phi, posterior, room) > level:
            break
        right += width
    while right - left > 1e-14 * (1.0 + abs(x0)):
        phi[i], used = left + uniform(rng) * (right - left), used + 1
        new = _density(phi, posterior, room)
        if new > level:
            return new, used
        if phi[i] < x0:
            left = phi[i]
        else:
            right = phi[i]
    phi[i] = x0  # the slice has shrunk to a point
    return density, used
