r"""Proposals for phi from multivariate t distributions, with their importance weights.

SDs are proposed on their own scale and folded at zero: the density of a folded proposal is the sum of
the t densities of its 2^m mirror images, so an SD whose mass is at or near zero needs no other
treatment. Weights are judged as :mod:`bdtr.engine.phi.importance_weights` says.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bdtr.engine.compiled.kernels import kernel
from bdtr.engine.compiled.lanes import LANES, every, load, plus, room_for, root, store
from bdtr.engine.compiled.streams import normal, seeded, uniform
from bdtr.engine.density.batched import densities, make_batch_room
from bdtr.engine.system import Targets
from bdtr.results.threads import spread

__all__ = ["FREEDOM", "Ellipses", "ellipses", "proposals", "weights_at"]

FREEDOM = 7
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
    spread(
        _weigh_given, -(-len(phi) // LANES), np.ascontiguousarray(phi), places, *targets, weights
    )
    return weights


@kernel
def _weigh_given(first, last, phi, places, own, priors, zty, hty, yty, weights):
    """Groups first to last of eight places, one for each response."""
    size, sds = phi.shape[1], priors.sd.shape[0] - 1
    some, values, folds = np.empty((LANES, size)), np.empty(LANES), np.empty(size, np.int64)
    which, proposed = np.empty(LANES, np.int64), np.empty(LANES)
    room = make_batch_room(own, False)
    for group in range(first, last):
        at = group * LANES
        for lane in range(LANES):
            s = min(at + lane, len(phi) - 1)
            which[lane] = s
            some[:] = phi[s]
            folded = _folds_of(places.folded[s], folds)
            _log_densities(
                places.centre[s], places.inverse_root[s], folds[:folded], sds, some, values
            )
            proposed[lane] = values[0]
        for lane in range(LANES):
            some[lane] = phi[which[lane]]
        densities(some, which, own, priors, zty, hty, yty, room, values)
        for lane in range(min(LANES, len(phi) - at)):
            if proposed[lane] > -np.inf and np.isfinite(values[lane]):
                weights[at + lane] = values[lane] - proposed[lane]


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
    batches, size, sds = -(-phi.shape[1] // _BATCH), phi.shape[2], priors.sd.shape[0] - 1
    some, z, folds = np.empty((LANES, size)), np.empty(size), np.empty(size, np.int64)
    which, values, proposed = np.empty(LANES, np.int64), np.empty(LANES), np.empty(LANES)
    room = make_batch_room(own, False)
    for task in range(first, last):
        s = task // batches
        at = task % batches * _BATCH
        end = min(at + _BATCH, counts[s])
        which[:] = s
        centre, root, inverse_root = places.centre[s], places.root[s], places.inverse_root[s]
        folded = _folds_of(places.folded[s], folds)
        while at < end:
            count = min(LANES, end - at)
            for lane in range(LANES):
                if lane >= count:  # nobody asks for these
                    some[lane] = some[0]
                    continue
                rng = seeded(seeds[s], stream + at + lane)
                gumbel[s, at + lane] = -np.log(-np.log(uniform(rng)))
                _draw(centre, root, rng, z, some[lane])
            _log_densities(centre, inverse_root, folds[:folded], sds, some, proposed)
            densities(some, which, own, priors, zty, hty, yty, room, values)
            for lane in range(count):
                phi[s, at + lane] = some[lane]
                if proposed[lane] > -np.inf and np.isfinite(values[lane]):
                    weights[s, at + lane] = values[lane] - proposed[lane]
            at += count


@kernel
def _draw(centre, root, rng, z, out):
    """A t proposal, before it is folded."""
    chi2 = 0.0
    for _ in range(FREEDOM):
        chi2 += normal(rng) ** 2
    for i in range(out.size):
        z[i] = normal(rng) / np.sqrt(chi2 / FREEDOM)
    for i in range(out.size):
        value = centre[i]
        for k in range(i + 1):
            value += root[i, k] * z[k]
        out[i] = value


@kernel
def _log_densities(centre, inverse_root, folds, sds, places, out):
    """Fold eight proposals (lane, phi); their log densities but for a constant.

    Minus infinity for one that lies beyond zero in an SD that is not folded.
    """
    size = places.shape[1]
    own, z = room_for(size), room_for(size)
    for lane in range(LANES):
        for i in range(folds.size):
            places[lane, folds[i]] = abs(places[lane, folds[i]])
        for i in range(size):
            own[i * LANES + lane] = places[lane, i]
    total = every(0.0)
    for pattern in range(1 << folds.size):
        for i in range(size):
            store(z, i * LANES, load(own, i * LANES) - every(centre[i]))
        for b in range(folds.size):
            if pattern >> b & 1:
                i = folds[b]
                store(z, i * LANES, every(0.0) - load(own, i * LANES) - every(centre[i]))
        distance = every(0.0)
        for i in range(size):
            value = every(0.0)
            for k in range(i + 1):
                value = plus(value, every(inverse_root[i, k]), load(z, k * LANES))
            distance = plus(distance, value, value)
        base = every(1.0) / root(every(1.0) + distance / every(float(FREEDOM)))
        total = total + _power(base, FREEDOM + size)
    store(z, 0, total)
    for lane in range(LANES):
        out[lane] = np.log(z[lane])
        for i in range(1, 1 + sds):
            if places[lane, i] < 0.0:
                out[lane] = -np.inf


@kernel
def _power(base, exponent):
    out = every(1.0)
    while exponent > 0:
        if exponent & 1:
            out = out * base
        base = base * base
        exponent >>= 1
    return out
