r"""Importance draws from the marginal density: each response its own mode, curvature and weights.

Proposals are multivariate t with 7 degrees of freedom around the mode of phi, scaled by the inverse of
minus the Hessian there. Where SDs are weakly identified the posterior of phi is skew and has heavy tails
in the correlations, so mode and curvature alone miss it; but responses of one stage miss it in the same
way. Its mean and covariance, in units of each response's own scale, are therefore learned from a few
responses (two rounds of importance sampling) and used for all.

SDs are proposed on their own scale and folded at zero: the density of a folded proposal is the sum of
the t densities of its 2^m mirror images, so an SD whose mode is at or near zero needs no other
treatment. Weights are judged as :mod:`bdtr.multilevel.weights` says.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bdtr.multilevel.gradient import density_and_gradient
from bdtr.multilevel.linking import kernel
from bdtr.multilevel.marginal import eliminate, reduced_density
from bdtr.multilevel.randomness import children, normal, seeded, uniform
from bdtr.multilevel.system import Priors, Response, System, make_room
from bdtr.multilevel.weights import effective, khat_limit, pareto_k
from bdtr.threads import spread

__all__ = [
    "Drawn",
    "Peaks",
    "Products",
    "Shape",
    "find_peaks",
    "importance_draws",
    "learn_shape",
    "proposals",
    "reshaped",
]

_FREEDOM = 7.0
_ENOUGH = 50.0  # effective proposals from which a draw is taken
_FIRST, _MOST = 96, 288  # proposals that are judged; most from which the draw is taken
_ROUNDS, _LESSONS = 2, 2560  # rounds, and proposals to learn the shape from
_WIDENED = 1.4  # variance of the proposals against the learned one: tails cost more than the middle
_ITERATIONS = 80
_MOST_FOLDED = 8  # 256 mirror images
_BATCH = 32  # proposals of a response that a thread takes at a time
_FAR = 6.0  # SDs from zero at which a mirror image has no density left

# Cross-products with several responses, the response first: Z'y, H'y, y'y.
Products = tuple[np.ndarray, np.ndarray, np.ndarray]


class Peaks(NamedTuple):
    """Mode of each response's density and how it falls off, the response first.

    ``root`` is the Cholesky factor of the scale; ``folded`` marks the SDs that are folded at zero.
    """

    mode: np.ndarray
    root: np.ndarray
    inverse_root: np.ndarray
    folded: np.ndarray


class Shape(NamedTuple):
    """Where the mass is against the mode and its curvature: shift of the mean, factor of the scale."""

    shift: np.ndarray
    factor: np.ndarray


class Drawn(NamedTuple):
    """One draw of phi per response, how good its weights are, and the evaluations it took."""

    phi: np.ndarray
    effective: np.ndarray
    khat: np.ndarray
    good: np.ndarray
    used: np.ndarray


def find_peaks(
    start: np.ndarray, scale: np.ndarray, own: System, priors: Priors, products: Products
) -> tuple[Peaks, np.ndarray]:
    """Modes, from a start with a guess of the scale there, and the curvature at them.

    Parameters
    ----------
    start, scale
        Where the climbs start.
    own, priors, products
        What the kernels take.

    Returns
    -------
    peaks : Peaks
    found : numpy.ndarray
        Whether the climb of each response has reached a mode.
    """
    count, size = len(products[2]), start.size
    mode, found = np.tile(start, (count, 1)), np.zeros(count, dtype=np.bool_)
    unit, curvature = np.ones((count, size)), np.zeros((count, size, size))
    spread(_climbs, count, mode, found, unit, curvature, scale, own, _smooth(priors), *products)
    sds = priors.sd.shape[0] - 1
    known = np.isfinite(curvature).all(axis=(1, 2))
    curvature[~known] = np.eye(size)
    values, vectors = np.linalg.eigh(0.5 * (curvature + np.swapaxes(curvature, 1, 2)))
    # A flat top says little about its width: no wider than some times what the climb has seen.
    covariance = (vectors / np.maximum(values, 0.05)[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    covariance *= unit[:, :, None] * unit[:, None, :]
    return _peaks(mode, np.linalg.cholesky(covariance), sds), found & known


def _smooth(priors: Priors) -> Priors:
    """Half-normal priors in place of exponential ones, whose folded density has a kink at zero.

    Only proposals are made from these; weights take the priors as they are.
    """
    sd = priors.sd.copy()
    kinked = sd[:, 0] == 2.0
    sd[kinked, 0], sd[kinked, 1] = 0.0, np.sqrt(np.pi / 2.0) * sd[kinked, 1]  # the same mean
    return Priors(sd, priors.alpha, priors.floor)


def _peaks(mode: np.ndarray, root: np.ndarray, sds: int) -> Peaks:
    """Peaks with the SDs that are near enough to zero to be folded."""
    folded = np.zeros(mode.shape, dtype=np.bool_)
    own = slice(1, 1 + sds)
    ratio = mode[:, own] / np.linalg.norm(root[:, own], axis=2)
    nearest = ratio.argsort(axis=1).argsort(axis=1) < _MOST_FOLDED
    folded[:, own] = (ratio < _FAR) & nearest
    return Peaks(mode, np.ascontiguousarray(root), np.linalg.inv(root), folded)


def reshaped(peaks: Peaks, shape: Shape, sds: int) -> Peaks:
    """The peaks moved and turned to a shape."""
    mode = peaks.mode + peaks.root @ shape.shift
    mode[:, 1 : 1 + sds] = np.abs(mode[:, 1 : 1 + sds])
    return _peaks(mode, peaks.root @ shape.factor, sds)


def learn_shape(
    start: np.ndarray,
    scale: np.ndarray,
    own: System,
    priors: Priors,
    products: Products,
    seed: np.random.SeedSequence,
) -> Shape:
    """Mean and covariance of phi in units of its curvature at the mode, over these responses.

    Parameters
    ----------
    start, scale
        Where the climbs start.
    own, priors, products
        What the kernels take.
    seed
        Source of randomness.

    Returns
    -------
    Shape
    """
    size, sds = start.size, priors.sd.shape[0] - 1
    none = Shape(np.zeros(size), np.eye(size))
    peaks, found = find_peaks(start, scale, own, priors, products)
    counts = np.where(found, _LESSONS // len(found), 0)
    shape = none
    for lesson in children(seed, _ROUNDS):
        seeds = lesson.generate_state(len(found), np.uint64)
        turned = reshaped(peaks, shape, sds)
        phi, weights, _ = proposals(turned, seeds, 1, counts, own, priors, products)
        taught = np.isfinite(weights).any(axis=1)
        if not taught.any():
            return none
        w = np.exp(weights[taught] - weights[taught].max(axis=1, keepdims=True))
        w = np.minimum(
            w, np.sort(w)[:, -5, None]
        )  # a few huge weights would teach themselves alone
        w /= w.sum(axis=1, keepdims=True)
        away = phi[taught] - peaks.mode[taught, None]
        z = away @ np.swapaxes(peaks.inverse_root[taught], 1, 2)
        mean = (w[:, :, None] * z).sum(axis=1)
        z -= mean[:, None]
        covariance = (np.swapaxes(z, 1, 2) @ (z * w[:, :, None])).mean(axis=0)
        # A t distribution has variance freedom / (freedom - 2) times its squared scale.
        scatter = _WIDENED * (1.0 - 2.0 / _FREEDOM) * covariance
        shape = Shape(mean.mean(axis=0), np.linalg.cholesky(scatter + 1e-6 * np.eye(size)))
    return shape


def importance_draws(
    start: np.ndarray,
    scale: np.ndarray,
    shape: Shape,
    seeds: np.ndarray,
    own: System,
    priors: Priors,
    products: Products,
) -> Drawn:
    """One importance draw for each response (resampled from its proposals), with its weights' quality.

    A first set of proposals is judged: how many are effective, and k-hat. The draw is taken from a new
    set, large enough for 50 effective ones, or, where that would be too many, from the first, as a start
    for other samplers. It is the proposal with the largest log weight + Gumbel number. Streams depend
    on the seed and on the number of the proposal alone, so responses that are alike draw alike.

    Parameters
    ----------
    start, scale, shape
        Where the climbs start, and the shape from :func:`learn_shape`.
    seeds
        One word for each response.
    own, priors, products
        What the kernels take.

    Returns
    -------
    Drawn
    """
    peaks, found = find_peaks(start, scale, own, priors, products)
    phi = peaks.mode.copy()
    peaks = reshaped(peaks, shape, priors.sd.shape[0] - 1)
    used = np.where(found, _FIRST, 0)
    first = proposals(peaks, seeds, 1, used, own, priors, products)
    _select(first, phi, np.arange(len(phi)))
    share, khat = effective(first[1]) / _FIRST, pareto_k(first[1])
    count = np.ceil(_ENOUGH / np.maximum(share, 1e-3)).astype(np.int64)
    count = np.maximum(count, _FIRST)
    good = found & (count <= _MOST) & (khat < khat_limit(_FIRST + count))
    at = np.flatnonzero(good)
    # Fresh proposals: had those that were judged been used, draws in the tails, which make weights
    # look bad, would be kept less often than they should.
    part: Products = (products[0][at], products[1][at], products[2][at])
    these = Peaks(*(field[at] for field in peaks))
    fresh = proposals(these, seeds[at], 1 + _FIRST, count[at], own, priors, part)
    _select(fresh, phi, at)
    used[at] += count[at]
    return Drawn(phi, share * count, khat, good, used)


def _select(made: tuple[np.ndarray, np.ndarray, np.ndarray], phi: np.ndarray, at: np.ndarray):
    """Write the proposal with the largest log weight + Gumbel number of each response to phi."""
    if not made[1].size:
        return
    proposed, weights, gumbel = made
    some = np.isfinite(weights).any(axis=1)
    best = (weights + gumbel).argmax(axis=1)
    phi[at[some]] = proposed[some, best[some]]


def proposals(
    peaks: Peaks,
    seeds: np.ndarray,
    stream: int,
    counts: np.ndarray,
    own: System,
    priors: Priors,
    products: Products,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Proposals of each response with their log weights.

    Parameters
    ----------
    peaks
        Where they come from.
    seeds, stream
        One word for each response, and the number of the first proposal's stream.
    counts
        Number of proposals of each response.
    own, priors, products
        What the kernels take.

    Returns
    -------
    phi, weights, gumbel : numpy.ndarray
        (response, proposal, phi); log weights, minus infinity beyond the count of a response; and
        Gumbel numbers to choose among proposals with.
    """
    most = int(counts.max(initial=0))
    phi = np.zeros((len(counts), most, peaks.mode.shape[1]))
    weights, gumbel = np.full(phi.shape[:2], -np.inf), np.zeros(phi.shape[:2])
    spread(
        _weigh, len(counts) * -(-most // _BATCH), peaks, seeds, stream, counts, own, priors,
        *products, phi, weights, gumbel,
    )  # fmt: skip
    return phi, weights, gumbel


@kernel
def _weigh(first, last, peaks, seeds, stream, counts, own, priors, zty, hty, yty, phi, weights,
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
        mode, root, inverse_root = peaks.mode[s], peaks.root[s], peaks.inverse_root[s]
        folded = 0
        for i in range(mode.size):
            if peaks.folded[s, i]:
                folds[folded] = i
                folded += 1
        for r in range(at, min(at + _BATCH, counts[s])):
            rng = seeded(seeds[s], stream + r)
            gumbel[s, r] = -np.log(-np.log(uniform(rng)))
            own_phi = phi[s, r]
            _draw(mode, root, rng, z, own_phi)
            proposed = _density(mode, inverse_root, folds[:folded], sds, z, own_phi)
            if proposed == -np.inf:
                continue
            logdet = eliminate(own_phi, own, y, reduced, room)
            value = reduced_density(own_phi, logdet, reduced, own, priors, room.small) - proposed
            if np.isfinite(value):
                weights[s, r] = value


@kernel
def _draw(mode, root, rng, z, out):
    """A t proposal, before it is folded."""
    chi2 = 0.0
    for _ in range(int(_FREEDOM)):
        chi2 += normal(rng) ** 2
    for i in range(out.size):
        z[i] = normal(rng) / np.sqrt(chi2 / _FREEDOM)
    for i in range(out.size):
        value = mode[i]
        for k in range(i + 1):
            value += root[i, k] * z[k]
        out[i] = value


@kernel
def _density(mode, inverse_root, folds, sds, z, out):
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
            z[i] = out[i] - mode[i]
        for b in range(folds.size):
            if pattern >> b & 1:
                z[folds[b]] = -out[folds[b]] - mode[folds[b]]
        distance = 0.0
        for i in range(size):
            value = 0.0
            for k in range(i + 1):
                value += inverse_root[i, k] * z[k]
            distance += value * value
        total += (1.0 + distance / _FREEDOM) ** (-0.5 * (_FREEDOM + size))
    return np.log(total)


@kernel
def _climbs(first, last, mode, found, unit, curvature, scale, own, priors, zty, hty, yty):
    """Climb from what stands in mode; there, differences of the gradient in steps of the unit."""
    size, p = mode.shape[1], own.precision.size
    reduced, room = np.empty((p + 1, p + 1)), make_room(own)
    inverse = np.empty((size, size))
    sds = priors.sd.shape[0] - 1
    for s in range(first, last):
        y = Response(zty[s], hty[s], yty[s])
        phi = mode[s]
        for i in range(size):
            for k in range(size):
                inverse[i, k] = scale[i, k]
        found[s] = _climb(phi, inverse, own, priors, y, reduced, room)
        for i in range(1, 1 + sds):
            phi[i] = abs(phi[i])
        for i in range(size):
            unit[s, i] = min(max(np.sqrt(abs(inverse[i, i])), 1e-4), 1.0)
        here = np.zeros(size)
        for i in range(-1, size):
            before = phi[max(i, 0)]
            if i >= 0:
                phi[i] += 1e-2 * unit[s, i]
            there = density_and_gradient(phi, own, priors, y, reduced, room)[1]
            phi[max(i, 0)] = before
            if i < 0:
                here = there
                continue
            for k in range(size):
                curvature[s, i, k] = unit[s, k] * (here[k] - there[k]) / 1e-2


@kernel
def _climb(phi, inverse, own, priors, y, reduced, room):
    """Maximise the density by BFGS with backtracking, in place; whether the top was reached.

    ``inverse`` becomes the inverse of minus the Hessian as the climb has seen it.
    """
    size = phi.size
    value, gradient = -np.inf, np.zeros(size)
    new, step, change, moved = np.empty(size), np.zeros(size), np.empty(size), np.empty(size)
    slope, length, tries, moves = 0.0, 0.0, 0, 0
    while moves < _ITERATIONS:
        for i in range(size):
            new[i] = phi[i] + length * step[i]
        new_value, new_gradient = density_and_gradient(new, own, priors, y, reduced, room)
        if not new_value >= value + 1e-4 * length * slope:
            tries += 1
            length *= 0.5
            if tries > 25:
                return moves > 0 and slope < 1e-2
            continue
        if moves > 0:
            product, turned = 0.0, 0.0
            for i in range(size):
                change[i] = new[i] - phi[i]
                product += change[i] * (gradient[i] - new_gradient[i])
            for i in range(size):
                moved[i] = 0.0
                for k in range(size):
                    moved[i] += inverse[i, k] * (gradient[k] - new_gradient[k])
                turned += moved[i] * (gradient[i] - new_gradient[i])
            if product > 1e-12:
                factor = (1.0 + turned / product) / product
                for i in range(size):
                    for k in range(size):
                        cross = change[i] * moved[k] + moved[i] * change[k]
                        inverse[i, k] += change[i] * change[k] * factor - cross / product
        for i in range(size):
            phi[i] = new[i]
        value, gradient = new_value, new_gradient
        moves += 1
        slope = _direction(inverse, gradient, step)
        if not slope > 0.0:  # lost to rounding: start again from a small multiple of the identity
            for i in range(size):
                for k in range(size):
                    inverse[i, k] = 0.01 if i == k else 0.0
            slope = _direction(inverse, gradient, step)
        if slope < 1e-4:
            return True
        longest = 0.0
        for i in range(size):
            longest = max(longest, abs(step[i]))
        if longest > 1.0:  # phi is on the scale of logarithms and ratios: 1 is far
            for i in range(size):
                step[i] /= longest
            slope /= longest
        length, tries = 1.0, 0
    return False


@kernel
def _direction(inverse, gradient, step):
    """Write the Newton step; the slope along it."""
    slope = 0.0
    for i in range(step.size):
        step[i] = 0.0
        for k in range(step.size):
            step[i] += inverse[i, k] * gradient[k]
        slope += step[i] * gradient[i]
    return slope
