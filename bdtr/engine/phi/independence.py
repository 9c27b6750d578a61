r"""Independence Metropolis chains, one for each response or some on one, with importance proposals.

A chain at a state with weight w, the mean weight of proposals being 1, moves to a proposal with weight w'
with probability min(1, w'/w) (Tierney 1994, Ann. Statist. 22(4)). If no weight is above w*, then after R
steps the chain is within (1 - 1/w*)^R of its target in total variation, from any start (Mengersen and Tweedie
1996, Ann. Statist. 24(1)); here it starts at a draw by resampling. What is known of w* comes from proposals
that are judged and then serve to start only: had those that were judged been used, draws in the tails, which
make weights look bad, would be kept less often than they should.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bdtr.engine.compiled.streams import children
from bdtr.engine.phi.importance_weights import effective, khat_limit, pareto_k
from bdtr.engine.phi.proposals import Ellipses, proposals
from bdtr.engine.system import Targets

__all__ = [
    "LEAST_JUDGED",
    "Chains",
    "Drawn",
    "Kept",
    "kept_by_chains",
    "last_states",
    "longest_stay",
    "one_draw_each",
    "posterior_chains",
    "tail_shape",
]

LEAST_JUDGED = 48  # proposals of a response that its weights are judged by

_LEAST_STEPS = 24  # of a chain
_STAYS = 4  # steps of a chain for each step that it stays at its best proposal
_ENOUGH = 8.0  # effective number of judged proposals from which a chain is trusted
_MOST_THINNED = 64  # proposals for one draw of a posterior beyond which slice chains are better,
_CHEAP = 25_600  # unless all draws take no more than this: setting up slice chains costs as much
_STUCK = 0.02  # share of a chain's draws, or one, for which it may stay where it stays longest
_STICKY = 0.25  # lag-1 correlation of kept draws of phi; coefficients given phi are independent


class Drawn(NamedTuple):
    """One draw of phi per response, how good its weights are, and the evaluations it took.

    ``share`` is the effective share of the judged proposals of each response, ``khat`` the shape of the tail
    of the weights of all good responses.
    """

    phi: np.ndarray
    share: np.ndarray
    khat: float
    good: np.ndarray
    used: np.ndarray


def one_draw_each(
    places: Ellipses,
    known: np.ndarray,
    judged: int,
    seeds: np.ndarray,
    targets: Targets,
) -> Drawn:
    """The last state of a chain for each response.

    Streams depend on the seed and on the number of the proposal alone, so responses that are alike draw
    alike. Weights are in units of their mean, so those of all responses show one tail.

    Parameters
    ----------
    places
        Where proposals come from.
    known
        Responses for which these places are known.
    judged
        Proposals of each response that are judged.
    seeds
        One word for each response.
    targets
        The densities.

    Returns
    -------
    Drawn
        Responses that are not ``good`` have a draw by resampling, to start other samplers from.
    """
    used = np.where(known, judged, 0)
    phi, weights, gumbel = proposals(places, seeds, 1, used, targets)
    state, weight = places.centre.copy(), np.zeros(len(used))
    some = np.flatnonzero(np.isfinite(weights).any(axis=1))
    if some.size:
        first = (weights[some] + gumbel[some]).argmax(axis=1)
        state[some], weight[some] = phi[some, first], weights[some, first]
    size = effective(weights)
    good, khat = size >= _ENOUGH, math.inf
    if good.any():
        khat = tail_shape(weights[good])
        good &= khat < khat_limit(judged * int(good.sum()))
    at = np.flatnonzero(good)
    if at.size:
        stay = longest_stay(weights[at])
        steps = np.maximum(np.ceil(_STAYS * stay).astype(np.int64), _LEAST_STEPS)
        fresh = proposals(places.of(at), seeds[at], 1 + judged, steps, targets.of(at))
        state[at] = last_states(state[at], weight[at], *fresh)
        used[at] += steps
    return Drawn(state, size / judged, khat, good, used)


def last_states(
    state: np.ndarray, weight: np.ndarray, phi: np.ndarray, weights: np.ndarray, gumbel: np.ndarray
) -> np.ndarray:
    """Last states of chains from a state with this log weight, over their proposals.

    The first proposal comes last: chains with the same seed and fewer steps end with the same random numbers.
    """
    last = _metropolis(weight, weights[:, ::-1], -np.exp(-gumbel[:, ::-1]))[:, -1]
    moved = last >= 0
    out = state.copy()
    out[moved] = phi[moved, weights.shape[1] - 1 - last[moved]]
    return out


def tail_shape(weights: np.ndarray) -> float:
    """Pareto k-hat of the log weights of several responses (last axis), each in units of its own mean."""
    return float(pareto_k(_relative(weights).ravel()))


def _relative(weights: np.ndarray) -> np.ndarray:
    """Log weights in units of their mean along the last axis."""
    top = weights.max(axis=-1, keepdims=True)
    return weights - top - np.log(np.exp(weights - top).mean(axis=-1, keepdims=True))


def _metropolis(weight: np.ndarray, weights: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Places (chain x step) of the proposals where chains stand after each step, -1 for their start.

    ``weight`` is that of the start, ``level`` the logarithm of a uniform number per step.
    """
    at = np.full(len(weight), -1, dtype=np.int64)
    kept = np.empty(weights.shape, dtype=np.int64)
    weight = weight.copy()
    for i in range(weights.shape[1]):
        moves = level[:, i] + weight < weights[:, i]
        weight[moves], at[moves] = weights[moves, i], i
        kept[:, i] = at
    return kept


def longest_stay(weights: np.ndarray) -> np.ndarray:
    """Expected steps that a chain stays at the proposal with the largest weight (last axis)."""
    return np.exp(_relative(weights).max(axis=-1))


class Chains(NamedTuple):
    """Draws of chains on one response (draw, phi), the first chain first, and how they were made."""

    phi: np.ndarray
    share: float
    khat: float
    thin: int


def posterior_chains(
    places: Ellipses,
    one: Targets,
    chains: int,
    draws: int,
    seed: np.random.SeedSequence,
) -> Chains | None:
    """Chains on one response, thinned until neighbours are little alike.

    Parameters
    ----------
    places
        Where proposals come from.
    one
        The density of one response.
    chains, draws
        Number of chains, and of draws kept from each.
    seed
        Source of randomness.

    Returns
    -------
    Chains or None
        None where the weights are not good enough.
    """
    accept_seed, stream_seed = children(seed, 2)
    word = stream_seed.generate_state(1, np.uint64)
    found = np.empty((0, places.centre.shape[1]))

    def propose(first: int, count: int) -> np.ndarray:
        nonlocal found
        phi, weights, _ = proposals(places, word, 1 + first, np.array([count]), one)
        found = np.concatenate([found, phi[0]])
        return weights[0]

    kept = kept_by_chains(propose, chains, draws, np.random.default_rng(accept_seed))
    if kept is None:
        return None
    return Chains(found[kept.which], kept.share, kept.khat, kept.thin)


class Kept(NamedTuple):
    """Numbers of the proposals that chains keep, the first chain first; effective share and k-hat of the
    weights of all, and how many there are for one that is kept."""

    which: np.ndarray
    share: float
    khat: float
    thin: int


def kept_by_chains(
    propose: Callable[[int, int], np.ndarray],
    chains: int,
    draws: int,
    rng: np.random.Generator,
    most: int = _MOST_THINNED,
    cheap: int = _CHEAP,
    stuck: float = _STUCK,
) -> Kept | None:
    """Independence chains over proposals, thinned until neighbours are little alike.

    Parameters
    ----------
    propose
        Makes proposals: takes the number of the first and how many; returns their log weights.
    chains, draws
        Number of chains, and of draws kept from each.
    rng
        Decides on moves.
    most
        Most proposals for one that is kept, unless all are no more than ``cheap``.
    stuck
        Share of a chain's draws, or one, for which it may stay where it stays longest.

    Returns
    -------
    Kept or None
        None where the weights are not good enough.
    """
    count = chains * draws
    weights, thin, wanted = np.empty(0), 0, 1
    while wanted > thin:  # large weights turn up late, and ask for more
        if wanted > max(most, cheap // count):
            return None
        more = propose(count * thin, count * (wanted - thin))
        weights = np.concatenate([weights, more])
        thin, wanted = wanted, _thinning(weights, draws, rng, stuck)
    khat = float(pareto_k(weights))
    if not khat < khat_limit(weights.size):
        return None
    share = float(effective(weights)) / weights.size
    weights = weights.reshape(chains, draws * thin)
    # Each chain starts at a draw by resampling from its first proposals, where it belongs.
    first = weights[:, : min(draws * thin, 100)]
    start = (first + rng.gumbel(size=first.shape)).argmax(axis=1)
    level = np.log(rng.random(weights.shape))
    kept = _metropolis(weights[np.arange(chains), start], weights, level)[:, thin - 1 :: thin]
    kept = np.where(kept < 0, start[:, None], kept)
    which = kept + draws * thin * np.arange(chains)[:, None]
    return Kept(which.ravel(), share, khat, thin)


def _thinning(weights: np.ndarray, draws: int, rng: np.random.Generator, stuck: float) -> int:
    """Proposals for one of the draws of a chain whose kept draws are to be little alike."""
    possible = np.isfinite(weights)  # proposals outside the support have no weight
    if not possible.any():
        return max(_MOST_THINNED, _CHEAP) + 1
    # Neighbours of an independence chain are as correlated as moves are rejected.
    states, proposed = weights[possible], rng.permutation(weights)[possible]
    accepted = np.exp(np.minimum(proposed - states, 0.0))
    share = np.exp(states - states.max())
    rejected = float(np.clip(1.0 - accepted @ share / share.sum(), 1e-9, 0.999))
    stays = math.ceil(longest_stay(weights) / max(stuck * draws, 1.0))
    return max(stays, math.ceil(math.log(_STICKY) / math.log(rejected)))
