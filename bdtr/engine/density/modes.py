"""Modes of the marginal density of many responses, and how it falls off there.

Each response is climbed by BFGS from a common start; the curvature at the top comes from differences of the
gradient.
"""

from __future__ import annotations

import numpy as np

from bdtr.engine.compiled.kernels import kernel
from bdtr.engine.density.gradient import density_and_gradient
from bdtr.engine.system import Priors, Response, Targets, make_room
from bdtr.results.threads import spread

__all__ = ["find_peaks", "scores"]

_ITERATIONS = 80


def find_peaks(
    start: np.ndarray, scale: np.ndarray, targets: Targets
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Modes, from a start with a guess of the scale there, and the curvature at them.

    Parameters
    ----------
    start, scale
        Where the climbs start.
    targets
        The densities.

    Returns
    -------
    mode : numpy.ndarray
        (response, phi), SDs positive.
    root : numpy.ndarray
        Cholesky factor of the inverse of minus the Hessian there (response, phi, phi).
    found : numpy.ndarray
        Whether the climb of each response has reached a mode.
    """
    count, size = targets.count, start.size
    mode, found = np.tile(start, (count, 1)), np.zeros(count, dtype=np.bool_)
    unit, curvature = np.ones((count, size)), np.zeros((count, size, size))
    spread(_climbs, count, mode, found, unit, curvature, scale, *_smooth(targets))
    known = np.isfinite(curvature).all(axis=(1, 2))
    curvature[~known] = np.eye(size)
    values, vectors = np.linalg.eigh(0.5 * (curvature + np.swapaxes(curvature, 1, 2)))
    # A flat top says little about its width: no wider than some times what the climb has seen. Nor is one
    # so sharp that rounding would decide about the rest.
    values = np.clip(values, 0.05, 1e8)
    covariance = (vectors / values[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    return mode, unit[:, :, None] * np.linalg.cholesky(covariance), found & known


def scores(phi: np.ndarray, targets: Targets) -> np.ndarray:
    """Gradient of each response's log density at a place of its own (response x phi)."""
    out = np.empty_like(phi)
    spread(_scores, len(phi), np.ascontiguousarray(phi), *_smooth(targets), out)
    return out


def _smooth(targets: Targets) -> Targets:
    """Half-normal priors in place of exponential ones, whose folded density has a kink at zero.

    Only proposals are made from these; weights take the priors as they are.
    """
    priors = targets.priors
    sd = priors.sd.copy()
    kinked = sd[:, 0] == 2.0
    sd[kinked, 0], sd[kinked, 1] = 0.0, np.sqrt(np.pi / 2.0) * sd[kinked, 1]  # the same mean
    return targets._replace(priors=Priors(sd, priors.alpha))


@kernel
def _scores(first, last, phi, own, priors, zty, hty, yty, out):
    p = own.precision.size
    reduced, room = np.empty((p + 1, p + 1)), make_room(own)
    for s in range(first, last):
        y = Response(zty[s], hty[s], yty[s])
        out[s] = density_and_gradient(phi[s], own, priors, y, reduced, room)[1]


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
            most = max(1.0, phi[i]) if 1 <= i <= sds else 1.0
            unit[s, i] = min(max(np.sqrt(abs(inverse[i, i])), 1e-4), most)
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
    size, sds = phi.size, priors.sd.shape[0] - 1
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
            far = max(1.0, abs(phi[i])) if 1 <= i <= sds else 1.0
            longest = max(longest, abs(step[i]) / far)
        if longest > 1.0:  # on the scale of logarithms and ratios 1 is far; of SDs, their own size
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
