r"""Where the densities of many responses lie, learned from a few of them.

Responses of one stage have posteriors of phi that are much alike but for where they lie. Where SDs are
weakly identified these are skew, with heavy tails in the correlations, so that mode and curvature miss the
mean and the covariance; but they miss them in the same way for all responses. Both are learned from some
responses, the learners, by adaptive importance sampling (Cappe, Guillin, Marin and Robert 2004, J. Comput.
Graph. Stat. 13(4)):

- a *shape*, the mean and covariance of phi in units of each response's own curvature at its mode;
- *gains*, with which no response but the learners has to be climbed. If g_s is the score of response s at
  a fixed place m, the gradient of its log density, then m + a + A g_s is near its posterior mean, with a and
  A from a regression over learners (Newton's step has the posterior covariance for A). A second step from
  there, with gains of its own, takes up what is not linear.

All this serves to make proposals; what is wrong with it makes weights worse, never the draws.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bdtr.engine.compiled.streams import children
from bdtr.engine.crossproducts import evenly
from bdtr.engine.density.modes import scores
from bdtr.engine.phi.importance_weights import effective
from bdtr.engine.phi.proposals import FREEDOM, Ellipses, ellipses, proposals
from bdtr.engine.system import Targets

__all__ = [
    "Gains",
    "Shape",
    "gained",
    "gains_of_draws",
    "learn_gains",
    "learn_shape",
    "learners",
    "shaped",
]

_WIDENED = 1.6  # variance of the proposals against the learned one: tails cost more than the middle
_ROUNDS = 2  # rounds of importance sampling, each from what the one before has taught
_LESSONS = 2560  # proposals of a round from which the shape is learned, at least,
_PER_PART = 160  # and for each part of phi
_PER_LEARNER = 48, 64  # proposals of a learner in the rounds from which gains are learned
_PER_GAIN = 6  # learners per part of phi
_RIDGE = 0.1  # of the regressions, in units of one learner
_CLIPPED = (
    5  # the largest weights of a learner are cut to this one: few would teach themselves alone
)


class Shape(NamedTuple):
    """Where the mass is against the mode and its curvature: shift of the mean, factor of the scale."""

    shift: np.ndarray
    factor: np.ndarray


class Gains(NamedTuple):
    """Where the mass is from the score: two steps from ``start``, and the root of the scale there.

    ``first`` and ``second`` (1 + phi, phi) are coefficients of an intercept and of the score.
    """

    start: np.ndarray
    first: np.ndarray
    second: np.ndarray
    root: np.ndarray


def learners(which: np.ndarray, size: int) -> np.ndarray | None:
    """Responses to learn the gains of phi of this size from, or None if there are too few to pay."""
    wanted = max(24, _PER_GAIN * size)
    if which.size < 2 * wanted:
        return None
    return evenly(which, wanted)


def learn_shape(
    mode: np.ndarray,
    root: np.ndarray,
    found: np.ndarray,
    targets: Targets,
    seed: np.random.SeedSequence,
) -> Shape:
    """Mean and covariance of phi in units of its curvature at the mode, over these responses.

    Parameters
    ----------
    mode, root, found
        Their modes, from :func:`bdtr.engine.density.modes.find_peaks`.
    targets
        Their densities.
    seed
        Source of randomness.

    Returns
    -------
    Shape
    """
    size = mode.shape[1]
    shape = Shape(np.zeros(size), np.eye(size))
    inverse_root = np.linalg.inv(root)
    counts = np.where(found, max(_LESSONS, _PER_PART * size) // len(found), 0)
    for lesson in children(seed, _ROUNDS):
        seeds = lesson.generate_state(len(found), np.uint64)
        places = shaped(mode, root, shape, targets)
        phi, weights, _ = proposals(places, seeds, 1, counts, targets)
        taught, w = _clipped(weights)
        if not taught.any():
            return Shape(np.zeros(size), np.eye(size))
        away = phi[taught] - mode[taught, None]
        z = away @ np.swapaxes(inverse_root[taught], 1, 2)
        mean = (w[:, :, None] * z).sum(axis=1)
        shape = Shape(mean.mean(axis=0), _scale_root(z - mean[:, None], w))
    return shape


def shaped(mode: np.ndarray, root: np.ndarray, shape: Shape, targets: Targets) -> Ellipses:
    """Modes moved, and their curvature turned, to a shape."""
    return ellipses(mode + root @ shape.shift, root @ shape.factor, targets.sds)


def learn_gains(
    places: Ellipses,
    found: np.ndarray,
    targets: Targets,
    seed: np.random.SeedSequence,
) -> Gains | None:
    """Gains from these responses, or None where too few of them can teach.

    Parameters
    ----------
    places, found
        Where to look for each at first, and whether that is known.
    targets
        Their densities.
    seed
        Source of randomness.

    Returns
    -------
    Gains or None
    """
    size, gains = places.centre.shape[1], None
    for lesson, each in zip(children(seed, len(_PER_LEARNER)), _PER_LEARNER, strict=True):
        seeds = lesson.generate_state(len(found), np.uint64)
        counts = np.where(found, each, 0)
        phi, weights, _ = proposals(places, seeds, 1, counts, targets)
        taught, w = _clipped(weights)
        if taught.sum() < 2 * (size + 1):
            return None
        at = np.flatnonzero(taught)
        means = (w[:, :, None] * phi[at]).sum(axis=1)
        root = _scale_root(phi[at] - means[:, None], w)
        gains = _regressed(phi[at], w, effective(weights[at]), root, targets.of(at))
        places = gained(gains, targets)
    return gains


def gains_of_draws(phi: np.ndarray, targets: Targets) -> Gains:
    """Gains from one draw of the posterior of each response (response, phi)."""
    alike = np.ones((len(phi), 1))
    root = _scale_root((phi - phi.mean(axis=0))[:, None], alike)
    return _regressed(phi[:, None], alike, alike[:, 0], root, targets)


def _regressed(phi, w, weight, root, targets: Targets) -> Gains:
    """Both steps of the gains, and the scale of what is left, from weighted proposals of learners.

    ``root`` is about the scale of phi.
    """
    means = (w[:, :, None] * phi).sum(axis=1)
    none = np.zeros((1 + phi.shape[2], phi.shape[2]))
    gains = Gains(np.average(means, axis=0, weights=weight), none, none, root)
    for step in range(2):
        at = _stepped(gains, step, targets)
        score = _finite_scores(at, targets) @ root  # in SDs of phi
        x = np.column_stack([np.ones(len(score)), score])
        ridge = _RIDGE * weight.mean() * np.eye(x.shape[1])
        gain = np.linalg.solve((x.T * weight) @ x + ridge, (x.T * weight) @ (means - at))
        gain[1:] = root @ gain[1:]
        gains = gains._replace(**{("first", "second")[step]: gain})
    centre = _stepped(gains, 2, targets)
    return gains._replace(root=_scale_root(phi - centre[:, None], w))


def _stepped(gains: Gains, steps: int, targets: Targets) -> np.ndarray:
    """Where the responses are after some steps."""
    at = np.tile(gains.start, (targets.count, 1))
    for gain in (gains.first, gains.second)[:steps]:
        at = at + gain[0] + _finite_scores(at, targets) @ gain[1:]
        at[:, targets.sds] = np.abs(at[:, targets.sds])
    return at


def _finite_scores(at: np.ndarray, targets: Targets) -> np.ndarray:
    return np.nan_to_num(scores(at, targets), posinf=0.0, neginf=0.0)


def gained(gains: Gains, targets: Targets) -> Ellipses:
    """Where responses lie by their scores."""
    centre = _stepped(gains, 2, targets)
    root = np.tile(gains.root, (len(centre), 1, 1))
    return ellipses(centre, root, targets.sds)


def _clipped(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which responses have enough weights, and theirs: the largest cut, made to add up to one."""
    if weights.shape[1] < _CLIPPED:
        return np.zeros(len(weights), dtype=np.bool_), weights[:0]
    cut = np.sort(weights)[:, -_CLIPPED]
    taught = np.isfinite(cut)
    w = np.exp(np.minimum(weights[taught] - cut[taught, None], 0.0))
    return taught, w / w.sum(axis=1, keepdims=True)


def _scale_root(z: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Root of the scale of t proposals with the mean weighted second moment of z.

    z (response, proposal, phi).
    """
    second = (np.swapaxes(z, 1, 2) @ (z * w[:, :, None])).mean(axis=0)
    # A t distribution has variance freedom / (freedom - 2) times its squared scale.
    scatter = _WIDENED * (1.0 - 2.0 / FREEDOM) * second
    return np.linalg.cholesky(scatter + 1e-6 * np.diag(np.diag(second)))
