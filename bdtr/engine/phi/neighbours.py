r"""Draws of phi for responses that are much like others for which phi has been drawn.

Under a further policy each response of a stage changes a little. A draw phi_s from the posterior of the
response before is then nearly one from that of the response now, once it is moved along:

- m(y) + a + A g(y), with the score g, is near the posterior mean of response y, as in
  :mod:`bdtr.engine.phi.proposal_places`. Here a, A and the scale of what is left come from a regression of
  the known draws on the scores of the responses that they were drawn for: no proposal is needed.
- A chain for response s starts at phi_s + m(y'_s) - m(y_s) and takes R independence Metropolis steps with t
  proposals at m(y'_s). If no weight is above w* in units of their mean, it is then within (1 - 1/w*)^R of its
  target, from any start, one that was made with the same random numbers included: chains from two starts that
  see the same proposals are one from the first that both take (:mod:`bdtr.engine.phi.independence`). With R =
  6 w* that is .25 %, of the distance of a start that is near. Here R is six times the average of w* over
  responses, so that a response with a larger one keeps somewhat more of its start.

The last steps of these chains use the random numbers of the last steps of the chains before, where these came
from learned places, as nearly all do: draws under several policies are alike where their posteriors are.
Weights are judged on proposals of some responses that no chain takes; where they are not good, nothing is
drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bdtr.engine.crossproducts import chunks, evenly
from bdtr.engine.phi.importance_weights import effective, khat_limit
from bdtr.engine.phi.independence import (
    LEAST_JUDGED,
    last_states,
    longest_stay,
    tail_shape,
)
from bdtr.engine.phi.proposal_places import Gains, gained, gains_of_draws
from bdtr.engine.phi.proposals import proposals, weights_at
from bdtr.engine.system import Targets

__all__ = ["Alike", "Neighbours", "draw_alike", "neighbours"]

type TargetsOf = Callable[[np.ndarray], Targets]  # given some of the responses

_LEARNERS = 256  # draws from which gains are learned, spread over all
_PER_PART = 12  # learners for each part of phi
_JUDGED = 24  # responses whose proposals are judged
# Steps of a chain: at least, and for each step that one stays, on average, where it is best; the most of
# these.
_LEAST_STEPS, _STAYS, _MOST_STAY = 12, 6, 12.0


class Neighbours(NamedTuple):
    """Draws of phi (response, phi) that are known, and where their posteriors lie."""

    phi: np.ndarray
    centre: np.ndarray
    gains: Gains


def neighbours(phi: np.ndarray, targets: TargetsOf) -> Neighbours | None:
    """What known draws teach about responses like theirs; None where there are too few.

    Parameters
    ----------
    phi
        One draw from the posterior of each response (response, phi), SDs positive.
    targets
        The densities given some of the responses.

    Returns
    -------
    Neighbours or None
    """
    count, size = phi.shape
    if count < max(_PER_PART * size, 4 * _JUDGED):
        return None
    learners = evenly(np.arange(count), max(_LEARNERS, _PER_PART * size))
    gains = gains_of_draws(phi[learners], targets(learners))
    centre = [gained(gains, targets(at)).centre for at in chunks(np.arange(count))]
    return Neighbours(phi, np.concatenate(centre), gains)


class Alike(NamedTuple):
    """Draws of phi (response, phi), share and k-hat of the judged proposals, steps of each chain."""

    phi: np.ndarray
    share: float
    khat: float
    steps: int


def draw_alike(
    near: Neighbours,
    seeds: np.ndarray,
    targets: TargetsOf,
    progress: Callable[[int, int], None] | None = None,
) -> Alike | None:
    """One draw of phi for each response, the known one of the same number being its neighbour's.

    Parameters
    ----------
    near
        From :func:`neighbours`.
    seeds
        One word for each response: those of the draws that are known.
    targets
        As in :func:`neighbours`.
    progress
        Called with (responses done, responses in all).

    Returns
    -------
    Alike or None
        None where weights are not good enough.
    """
    every = np.arange(len(near.phi))
    judged = evenly(every, _JUDGED)
    some, counts = targets(judged), np.full(judged.size, LEAST_JUDGED)
    weights = proposals(gained(near.gains, some), seeds[judged], 1, counts, some)[1]
    steps, khat = _steps(weights)
    if not steps:
        return None
    out = np.empty_like(near.phi)
    for which in chunks(every):
        one = targets(which)
        places = gained(near.gains, one)
        start = near.phi[which] + places.centre - near.centre[which]
        start[:, one.sds] = np.abs(start[:, one.sds])
        weight = weights_at(start, places, one)
        many = np.full(which.size, steps)
        fresh = proposals(places, seeds[which], 1 + LEAST_JUDGED, many, one)
        if not (np.isfinite(weight) | np.isfinite(fresh[1]).any(axis=1)).all():
            return None
        out[which] = last_states(start, weight, *fresh)
        if progress:
            progress(int(which[-1]) + 1, len(every))
    return Alike(out, float(effective(weights).min()) / LEAST_JUDGED, khat, steps)


def _steps(weights: np.ndarray) -> tuple[int, float]:
    """Steps that chains need by the log weights of judged proposals, none where these are bad, and k-hat."""
    if not np.isfinite(weights.max(axis=1)).all():
        return 0, math.inf
    khat, stay = tail_shape(weights), float(longest_stay(weights).mean())
    if not (khat < khat_limit(weights.size) and stay < _MOST_STAY):
        return 0, khat
    return max(_LEAST_STEPS, math.ceil(_STAYS * stay)), khat
