r"""Proposals for phi from multivariate t distributions, with their importance weights.

SDs are proposed on their own scale and folded at zero: the density of a folded proposal is the sum of
the t densities of its 2^m mirror images, so an SD whose mass is at or near zero needs no other
treatment. Weights are judged as :mod:`bdtr.engine.phi.importance_weights` says.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bdtr.engine.compiled.kernels import kernel
from bdtr.engine.compiled.streams import normal, seeded, uniform
from bdtr.engine.density.elimination import eliminate
from bdtr.engine.density.marginal import reduced_density
from bdtr.engine.system import Response, Targets, make_room
from bdtr.results.threads import spread

__all__ = ["FREEDOM", "Ellipses", "ellipses", "proposals", "weights_at"]

FREEDOM = 7.0
_MOST_FOLDED = 8  # 256 mirror images
_BATCH = 32  # proposals of a response that a thread takes at a time
_FAR = 6.0  # SDs from zero at which a mirror image has no density left


class Ellipses(NamedTuple):
    """Where the proposals of each response come from, the response first.

    ``root`` is the Cholesky factor of the scale; ``folded`` marks the SDs that are folded at zero.
    """

    centre: np.ndarray
    root: np.ndarray
    inverse_root: np.ndarray
    folded: np.ndarray

    def of(self, which: np.ndarray) -> Ellipses:
        """Those of some of the responses."""
        return Ellipses(*(field[which] for field in self))


def ellipses(centre: np.ndarray, root: np.ndarray, own: slice) -> Ellipses:
    """Ellipses with these parts of phi, the SDs, folded where they are near zero."""
    centre = centre.copy()
    centre[:, own] = np.abs(centre[:, own])
    folded = np.zeros(centre.shape, dtype=np.bool_)
    ratio = centre[:, own] / np.linalg.norm(root[:, own], axis=2)
    nearest = ratio.argsort(axis=1).argsort(axis=1) < _MOST_FOLDED
    folded[:, own] = (ratio < _FAR) & nearest
    return Ellipses(centre, np.ascontiguousarray(root), np.linalg.inv(root), folded)


def proposals(
    places: Ellipses,
    seeds: np.ndarray,
    stream: int,
    counts: np.ndarray,
    targets: Targets,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Proposals of each response with their log weights.

    Parameters
    ----------
    places
        Where they come from.
    seeds, stream
        One word for each response, and the number of the first proposal's stream.
    counts
        Number of proposals of each response.
    targets
        The densities.

    Returns
    -------
    phi, weights, gumbel : numpy.ndarray
        (response, proposal, phi); log weights, minus infinity beyond the count of a response; and
        Gumbel numbers to choose among proposals with.
    """
    most = int(counts.max(initial=0))
    phi = np.zeros((len(counts), most, places.centre.shape[1]))
    weights, gumbel = np.full(phi.shape[:2], -np.inf), np.zeros(phi.shape[:2])
    spread(
        _weigh, len(counts) * -(-most // _BATCH), places, seeds, stream, counts, *targets,
        phi, weights, gumbel,
    )  # fmt: skip
    return phi, weights, gumbel


def weights_at(phi: np.ndarray, places: Ellipses, targets: Targets) -> np.ndarray:
    """Log weight of one place for each response, as :func:`proposals` would give it; minus infinity where
    there is no density."""
    weights = np.full(len(phi), -np.inf)
    spread(_weigh_given, len(phi), np.ascontiguousarray(phi), places, *targets, weights)
    return weights


@kernel
def _weigh_given(first, last, phi, places, own, priors, zty, hty, yty, weights):
    p, sds = own.precision.size, priors.sd.shape[0] - 1
    reduced, room = np.empty((p + 1, p + 1)), make_room(own)
    folds, z = np.empty(phi.shape[1], np.int64), np.empty(phi.shape[1])
    for s in range(first, last):
        y = Response(zty[s], hty[s], yty[s])
        folded = _folds_of(places.folded[s], folds)
        own_phi = phi[s].copy()
        proposed = _density(
            places.centre[s], places.inverse_root[s], folds[:folded], sds, z, own_phi
        )
        if proposed == -np.inf:
            continue
        logdet = eliminate(own_phi, own, y, reduced, room)
        value = reduced_density(own_phi, logdet, reduced, own, priors, room.small) - proposed
        if np.isfinite(value):
            weights[s] = value


@kernel
def _folds_of(folded, folds):
    """Write the places of the SDs that are folded; how many there are."""
    count = 0
    for i in range(folded.size):
        if folded[i]:
            folds[count] = i
            count += 1
    return count


@kernel
def _weigh(first, last, places, seeds, stream, counts, own, priors, zty, hty, yty, phi, weights,
           gumbel):  # fmt: skip
    """Batches first to last of the proposals, batches of a response after each other."""
    batches, p = -(-phi.shape[1] // _BATCH), own.precision.size
    reduced, room = np.empty((p + 1, p + 1)), make_room(own)
    sds = priors.sd.shape[0] - 1
    folds, z = np.empty(phi.shape[2], np.int64), np.empty(phi.shape[2])
    for task in range(first, last):
        s = task // batches
        at = task % batches * _BATCH
        y = Response(zty[s], hty[s], yty[s])
        centre, root, inverse_root = places.centre[s], places.root[s], places.inverse_root[s]
        folded = _folds_of(places.folded[s], folds)
        for r in range(at, min(at + _BATCH, counts[s])):
            rng = seeded(seeds[s], stream + r)
            gumbel[s, r] = -np.log(-np.log(uniform(rng)))
            own_phi = phi[s, r]
            _draw(centre, root, rng, z, own_phi)
            proposed = _density(centre, inverse_root, folds[:folded], sds, z, own_phi)
            if proposed == -np.inf:
                continue
            logdet = eliminate(own_phi, own, y, reduced, room)
            value = reduced_density(own_phi, logdet, reduced, own, priors, room.small) - proposed
            if np.isfinite(value):
                weights[s, r] = value


@kernel
def _draw(centre, root, rng, z, out):
    """A t proposal, before it is folded."""
    chi2 = 0.0
    for _ in range(int(FREEDOM)):
        chi2 += normal(rng) ** 2
    for i in range(out.size):
        z[i] = normal(rng) / np.sqrt(chi2 / FREEDOM)
    for i in range(out.size):
        value = centre[i]
        for k in range(i + 1):
            value += root[i, k] * z[k]
        out[i] = value


@kernel
def _density(centre, inverse_root, folds, sds, z, out):
    """Fold a proposal; its log density but for a constant.

    Minus infinity for one that lies beyond zero in an SD that is not folded.
    """
    size = out.size
    for i in range(folds.size):
        out[folds[i]] = abs(out[folds[i]])
    for i in range(1, 1 + sds):
        if out[i] < 0.0:
            return -np.inf
    total = 0.0
    for pattern in range(1 << folds.size):
        for i in range(size):
            z[i] = out[i] - centre[i]
        for b in range(folds.size):
            if pattern >> b & 1:
                z[folds[b]] = -out[folds[b]] - centre[folds[b]]
        distance = 0.0
        for i in range(size):
            value = 0.0
            for k in range(i + 1):
                value += inverse_root[i, k] * z[k]
            distance += value * value
        total += (1.0 + distance / FREEDOM) ** (-0.5 * (FREEDOM + size))
    return np.log(total)
