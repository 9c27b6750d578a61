r"""Importance draws from the marginal density: each response its own mode, curvature and weights.

Proposals are multivariate t with 7 degrees of freedom around the mode of phi, scaled by the inverse of
minus the Hessian there. Where SDs are weakly identified the posterior of phi is skew and has heavy tails
in the correlations, so mode and curvature alone miss it; but responses of one stage miss it in the same
way. Its mean and covariance, in units of each response's own scale, are therefore learned from a few
responses (two rounds of importance sampling) and used for all.

SDs are proposed on their own scale and folded at zero: the density of a folded proposal is the sum of
the t densities of its 2^m mirror images, so an SD whose mode is at or near zero needs no other
treatment. Weights are judged by their effective number (sum w)^2 / sum w^2 and by the Pareto shape k-hat
of their tail (Vehtari, Simpson, Gelman, Yao and Gabry 2024, J. Mach. Learn. Res. 25(72); fitted as Zhang
and Stephens 2009, Technometrics 51(3)).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from bdtr.multilevel.gradient import density_and_gradient
from bdtr.multilevel.lanes import LANES, densities, make_lanes
from bdtr.multilevel.marginal import Priors, Response, make_room
from bdtr.multilevel.randomness import children, normal, seeded, uniform

__all__ = [
    "Peak",
    "Shape",
    "effective",
    "find_peak",
    "importance_draws",
    "khat_limit",
    "learn_shape",
    "pareto_k",
    "reshaped",
    "weigh_proposals",
]

_FREEDOM = 7.0
_ENOUGH = 50.0  # effective proposals from which a draw is taken
_FIRST, _MOST = 96, 288  # proposals that are judged; most from which the draw is taken
_ROUNDS, _LEARNERS, _LESSONS = 2, 8, 320  # rounds, responses and proposals to learn the shape from
_WIDENED = 1.4  # variance of the proposals against the learned one: tails cost more than the middle
_ITERATIONS = 80
_MOST_FOLDED = 8  # 256 mirror images
_FAR = 6.0  # SDs from zero at which a mirror image has no density left


class Peak(NamedTuple):
    """Mode of the density and how it falls off: ``root`` is the Cholesky factor of the scale."""

    mode: np.ndarray
    root: np.ndarray
    inverse_root: np.ndarray
    folded: np.ndarray  # places of the SDs that are folded at zero
    sds: int


class Shape(NamedTuple):
    """Where the mass is against the mode and its curvature: shift of the mean, factor of the scale."""

    shift: np.ndarray
    factor: np.ndarray


@njit(cache=True)
def khat_limit(proposals):
    """Largest k-hat at which a sample of weights of this size is trusted (Vehtari et al. 2024)."""
    return min(1.0 - 1.0 / np.log10(proposals), 0.7)


def learn_shape(start, scale, own, priors, responses: list[Response], seed) -> Shape:
    """Mean and covariance of phi in units of its curvature at the mode, over some responses.

    Parameters
    ----------
    start, scale
        Where the climbs start.
    own, priors
        What the kernels take.
    responses
        The responses; of a longer list a few are taken, evenly.
    seed
        A :class:`numpy.random.SeedSequence`.

    Returns
    -------
    Shape
    """
    size = len(start)
    shape = Shape(np.zeros(size), np.eye(size))
    chosen = np.unique(np.linspace(0, len(responses) - 1, _LEARNERS).astype(int))
    peaks = [find_peak(start, scale, own, priors, responses[i]) for i in chosen]
    count = _LESSONS * _LEARNERS // len(chosen)
    for lesson in children(seed, _ROUNDS):
        means, covariances = [], []
        streams = children(lesson, len(chosen))
        for i, (peak, found), stream in zip(chosen, peaks, streams, strict=True):
            if not found:
                continue
            phi, weights = np.empty((count, size)), np.empty(count)
            words = stream.generate_state(count, np.uint64)
            weigh_proposals(reshaped(peak, shape), words, own, priors, responses[i], phi, weights)
            if not np.isfinite(weights).any():
                continue
            w = np.exp(weights - weights.max())
            w = np.minimum(w, np.sort(w)[-5])  # a few huge weights would teach themselves alone
            w /= w.sum()
            z = (phi - peak.mode) @ peak.inverse_root.T
            means.append(w @ z)
            covariances.append((z - means[-1]).T @ ((z - means[-1]) * w[:, None]))
        if not means:
            return Shape(np.zeros(size), np.eye(size))
        # A t distribution has variance freedom / (freedom - 2) times its squared scale.
        scatter = _WIDENED * (1.0 - 2.0 / _FREEDOM) * np.mean(covariances, axis=0)
        factor = np.linalg.cholesky(scatter + 1e-6 * np.eye(size))
        shape = Shape(np.mean(means, axis=0), factor)
    return shape


@njit(cache=True)
def _climb(start, scale, own, priors, y, reduced, room):
    """Maximise the density by BFGS with backtracking: mode, inverse of minus the Hessian, success.

    There is one call of the density in the text, as every call is compiled anew with all it contains.
    """
    size = start.size
    phi, inverse = start.copy(), scale.copy()
    value, gradient = -np.inf, np.zeros(size)
    step, slope, length, tries, moves = np.zeros(size), 0.0, 0.0, 0, 0
    while moves < _ITERATIONS:
        new = phi + length * step
        new_value, new_gradient = density_and_gradient(new, own, priors, y, reduced, room)
        if not new_value >= value + 1e-4 * length * slope:
            tries += 1
            length *= 0.5
            if tries > 25:
                return phi, inverse, moves > 0 and slope < 1e-2
            continue
        if moves > 0:
            change, turn = new - phi, gradient - new_gradient
            product = np.dot(change, turn)
            if product > 1e-12:
                moved = np.dot(inverse, turn)
                factor = (1.0 + np.dot(turn, moved) / product) / product
                cross = np.outer(change, moved) / product
                inverse += np.outer(change, change) * factor - cross - cross.T
        phi, value, gradient = new, new_value, new_gradient
        moves += 1
        step = np.dot(inverse, gradient)
        slope = np.dot(gradient, step)
        if not slope > 0.0:  # lost to rounding: start again from a small multiple of the identity
            inverse = 0.01 * np.eye(size)
            step = 0.01 * gradient
            slope = np.dot(gradient, step)
        if slope < 1e-4:
            return phi, inverse, True
        longest = np.abs(step).max()
        if longest > 1.0:  # phi is on the scale of logarithms and ratios: 1 is far
            step /= longest
            slope /= longest
        length, tries = 1.0, 0
    return phi, inverse, False


@njit(cache=True)
def _smooth(priors):
    """Half-normal priors in place of exponential ones, whose folded density has a kink at zero.

    Only proposals are made from these; weights take the priors as they are.
    """
    sd = priors.sd.copy()
    for i in range(len(sd)):
        if sd[i, 0] == 2.0:
            sd[i, 0], sd[i, 1] = 0.0, np.sqrt(np.pi / 2.0) * sd[i, 1]  # the same mean
    return Priors(sd, priors.alpha, priors.floor)


@njit(cache=True)
def find_peak(start, scale, own, priors, y):
    """Mode from a start with a guess of the scale there, and the curvature at the mode."""
    size, p = start.size, own.precision.size
    reduced, room = np.empty((p + 1, p + 1)), make_room(own)
    priors = _smooth(priors)
    phi, inverse, found = _climb(start, scale, own, priors, y, reduced, room)
    sds = priors.sd.shape[0] - 1
    for i in range(1, 1 + sds):
        phi[i] = abs(phi[i])
    unit = np.empty(size)
    for i in range(size):
        unit[i] = min(max(np.sqrt(abs(inverse[i, i])), 1e-4), 1.0)
    curvature = np.empty((size, size))
    here = np.zeros(size)
    for i in range(-1, size):
        moved = phi.copy()
        if i >= 0:
            moved[i] += 1e-2 * unit[i]
        there = density_and_gradient(moved, own, priors, y, reduced, room)[1]
        if i < 0:
            here = there
            continue
        for k in range(size):
            curvature[i, k] = unit[k] * (here[k] - there[k]) / 1e-2
    curvature = 0.5 * (curvature + curvature.T)
    if not np.isfinite(curvature).all():
        return Peak(phi, np.eye(size), np.eye(size), np.zeros(0, np.int64), sds), False
    values, vectors = np.linalg.eigh(curvature)
    # A flat top says little about its width: no wider than some times what the climb has seen.
    for i in range(size):
        values[i] = max(values[i], 0.05)
    covariance = np.dot(vectors / values, vectors.T)
    for i in range(size):
        for k in range(size):
            covariance[i, k] *= unit[i] * unit[k]
    return _peak(phi, np.linalg.cholesky(covariance), sds), found


@njit(cache=True)
def _peak(mode, root, sds):
    """A peak with the SDs that are near enough to zero to be folded."""
    ratio = np.empty(sds)
    for i in range(sds):
        ratio[i] = mode[1 + i] / np.sqrt((root[1 + i] ** 2).sum())
    order = np.argsort(ratio)
    near = 0
    while near < min(sds, _MOST_FOLDED) and ratio[order[near]] < _FAR:
        near += 1
    inverse_root = np.ascontiguousarray(np.linalg.inv(root))
    return Peak(mode, root, inverse_root, order[:near] + 1, sds)


@njit(cache=True)
def reshaped(peak, shape):
    """The peak moved and turned to a shape."""
    mode = peak.mode + np.dot(peak.root, shape.shift)
    for i in range(1, 1 + peak.sds):
        mode[i] = abs(mode[i])
    return _peak(mode, np.ascontiguousarray(np.dot(peak.root, shape.factor)), peak.sds)


@njit(cache=True)
def _propose(peak, rng, out):
    """A t proposal, folded, written to out; its log density but for a constant.

    Minus infinity for one that lies beyond zero in an SD that is not folded.
    """
    size = out.size
    chi2 = 0.0
    for _ in range(int(_FREEDOM)):
        chi2 += normal(rng) ** 2
    z = np.empty(size)
    for i in range(size):
        z[i] = normal(rng) / np.sqrt(chi2 / _FREEDOM)
    for i in range(size):
        value = peak.mode[i]
        for k in range(i + 1):
            value += peak.root[i, k] * z[k]
        out[i] = value
    for f in peak.folded:
        out[f] = abs(out[f])
    for i in range(1, 1 + peak.sds):
        if out[i] < 0.0:
            return -np.inf
    total = 0.0
    for pattern in range(1 << peak.folded.size):
        distance = 0.0
        for i in range(size):
            z[i] = out[i] - peak.mode[i]
        for b in range(peak.folded.size):
            if pattern >> b & 1:
                f = peak.folded[b]
                z[f] = -out[f] - peak.mode[f]
        for i in range(size):
            value = 0.0
            for k in range(i + 1):
                value += peak.inverse_root[i, k] * z[k]
            distance += value * value
        total += (1.0 + distance / _FREEDOM) ** (-0.5 * (_FREEDOM + size))
    return np.log(total)


@njit(cache=True)
def _weigh(phi, proposed, count, own, priors, y, lanes, weights):
    """Log importance weights of proposals with these log densities."""
    densities(phi, count, own, priors, y, lanes, weights)
    for r in range(count):
        if proposed[r] == -np.inf or not np.isfinite(weights[r]):
            weights[r] = -np.inf
        else:
            weights[r] -= proposed[r]


@njit(cache=True)
def pareto_k(log_weights):
    """k-hat of the largest weights; infinite where it cannot be fitted."""
    count = log_weights.size
    tail = int(min(count // 5, np.ceil(3.0 * np.sqrt(count))))
    if tail < 5:
        return np.inf
    ordered = np.sort(log_weights)
    top = ordered[-1]
    if not np.isfinite(top):
        return np.inf
    x = np.exp(ordered[count - tail :] - top) - np.exp(ordered[count - tail - 1] - top)
    if not x[0] > 0.0:
        x = np.maximum(x, 1e-300)
    grid = 30 + int(np.sqrt(tail))
    quartile = x[int(tail / 4.0 + 0.5) - 1]
    theta, likelihood = np.empty(grid), np.empty(grid)
    for i in range(grid):
        theta[i] = 1.0 / x[-1] + (1.0 - np.sqrt(grid / (i + 0.5))) / (3.0 * quartile)
        k = np.log1p(-theta[i] * x).mean()
        likelihood[i] = tail * (np.log(-theta[i] / k) - k - 1.0)
    weight = np.exp(likelihood - likelihood.max())
    best = (theta * weight).sum() / weight.sum()
    k = np.log1p(-best * x).mean()
    return (tail * k + 5.0) / (tail + 10.0)  # shrunk to 0.5 by ten observations


@njit(cache=True)
def effective(log_weights):
    """Effective number of weights, (sum w)^2 / sum w^2."""
    top = log_weights.max()
    if not np.isfinite(top):
        return 0.0
    w = np.exp(log_weights - top)
    return w.sum() ** 2 / (w * w).sum()


@njit(cache=True, parallel=True)
def importance_draws(start, scale, shape, seeds, own, priors, zty, hty, yty, phi, ess, khat, good,
                     used):  # fmt: skip
    """One importance draw for each response (resampled from its proposals), with its weights' quality.

    A first set of proposals is judged: how many are effective, and k-hat. The draw is taken from a new
    set, large enough for 50 effective ones, or, where that would be too many, from the first, as a start
    for other samplers. It is the proposal with the largest log weight + Gumbel number. Streams depend
    on the seed and on the number of the proposal alone, so responses that are alike draw alike.
    """
    for s in prange(phi.shape[0]):
        y = Response(zty[s], hty[s], yty[s])
        peak, found = find_peak(start, scale, own, priors, y)
        ess[s], khat[s], good[s] = 0.0, np.inf, False
        phi[s] = peak.mode
        if not found:
            continue
        peak = reshaped(peak, shape)
        lanes, weights = make_lanes(own), np.empty(_MOST)
        count, stream = _FIRST, 1
        for chosen in range(2):
            _select(peak, seeds[s], stream, own, priors, y, lanes, weights[:count], phi[s])
            used[s] += count
            if chosen:
                break
            # Fresh proposals are taken next: had those that are judged been used, draws in the
            # tails, which make weights look bad, would be kept less often than they should.
            share = effective(weights[:_FIRST]) / _FIRST
            khat[s] = pareto_k(weights[:_FIRST])
            count = max(_FIRST, LANES * int(np.ceil(_ENOUGH / max(share, 1e-3) / LANES)))
            good[s] = count <= _MOST and khat[s] < khat_limit(_FIRST + count)
            ess[s], stream = share * count, 1 + _FIRST
            if not good[s]:
                break


@njit(cache=True)
def _select(peak, seed, stream, own, priors, y, lanes, weights, phi):
    """Propose and weigh; write the proposal with the largest log weight + Gumbel number to phi."""
    gumbel, proposed = np.empty(LANES), np.empty(LANES)
    out = np.empty((LANES, phi.size))
    best = -np.inf
    for first in range(0, weights.size, LANES):
        for r in range(LANES):
            rng = seeded(seed, stream + first + r)
            gumbel[r] = -np.log(-np.log(uniform(rng)))
            proposed[r] = _propose(peak, rng, out[r])
        batch = weights[first : first + LANES]
        _weigh(out, proposed, LANES, own, priors, y, lanes, batch)
        for r in range(LANES):
            if batch[r] + gumbel[r] > best:
                best = batch[r] + gumbel[r]
                phi[:] = out[r]


@njit(cache=True, parallel=True)
def weigh_proposals(peak, seeds, own, priors, y, phi, weights):
    """Proposals for one response, with their log weights; one seed and one row of phi for each."""
    for part in prange((seeds.size + LANES - 1) // LANES):
        lanes, proposed = make_lanes(own), np.empty(LANES)
        first = part * LANES
        count = min(LANES, seeds.size - first)
        for r in range(count):
            proposed[r] = _propose(peak, seeded(seeds[first + r], 1), phi[first + r])
        rows = phi[first : first + count]
        _weigh(rows, proposed, count, own, priors, y, lanes, weights[first : first + count])
