"""What Q-values say about a decision: probability of being optimal, expected regret, the best action."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from bdtr.results.threads import spread

__all__ = ["ActionSummary", "summarise_actions"]


@dataclass(frozen=True)
class ActionSummary:
    """Summaries of the actions of each unit (action x unit); NaN where an action is not feasible.

    ``best`` is the recommended action (unit): the feasible one with the best posterior mean.
    """

    best: np.ndarray
    p_optimal: np.ndarray
    mean: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    regret: np.ndarray
    p_within: np.ndarray


def summarise_actions(
    q: np.ndarray,
    feasible: np.ndarray,
    interval: float = 0.95,
    higher_is_better: bool = True,
    margin: float = 0.0,
) -> ActionSummary:
    """Summaries of Q-values, taken within draws first and averaged last.

    Parameters
    ----------
    q
        Q-values (action, unit, sample), in units of the outcome.
    feasible
        Feasible actions (unit, action).
    interval
        Probability of the equal-tailed interval.
    higher_is_better
        Whether a larger value is better.
    margin
        Loss of value that does not matter, in units of the outcome.

    Returns
    -------
    ActionSummary
        P(optimal) is the share of draws in which an action has the best Q-value among the feasible
        ones; expected regret the mean over draws of the best Q-value minus the action's; P(within) the
        share of draws in which this difference is at most the margin.
    """
    sign = 1.0 if higher_is_better else -1.0
    mean = q.mean(axis=2)
    best = np.where(feasible.T, sign * mean, -np.inf).argmax(axis=0)
    found, top = np.full((4, *mean.shape), np.nan), np.empty(q.shape[1])
    spread(_summarise, q.shape[1], q, feasible, sign, margin, (1 - interval) / 2, found, top)
    p_optimal, p_within, lower, upper = found
    mean = np.where(feasible.T, mean, np.nan)
    # Sums in another order may leave a regret of nothing a little below zero.
    regret = np.maximum(top - sign * mean, 0.0)
    return ActionSummary(best, p_optimal, mean, lower, upper, regret, p_within)


@njit(cache=True, nogil=True)
def _summarise(first, last, q, feasible, sign, margin, tail, out, mean_top):
    """P(optimal), P(within) and quantiles of each unit's feasible actions, and the mean of its best."""
    actions, samples = q.shape[0], q.shape[2]
    own, top, winner = np.empty(samples), np.empty(samples), np.empty(samples, dtype=np.int64)
    for i in range(first, last):
        top[:] = -np.inf
        winner[:] = 0
        for a in range(actions):
            if feasible[i, a]:
                _take_better(q[a, i], sign, a, top, winner)
        mean_top[i] = top.mean()
        for a in range(actions):
            if feasible[i, a]:
                won, close = _counts(q[a, i], sign, a, margin, top, winner)
                out[0, a, i], out[1, a, i] = won / samples, close / samples
                own[:] = q[a, i]
                out[2, a, i] = _quantile(own, tail)
                out[3, a, i] = _quantile(own, 1.0 - tail)


@njit(cache=True, nogil=True)
def _take_better(values, sign, action, top, winner):
    for s in range(values.size):
        value = sign * values[s]
        better = value > top[s]
        top[s] = value if better else top[s]
        winner[s] = action if better else winner[s]


@njit(cache=True, nogil=True)
def _counts(values, sign, action, margin, top, winner):
    """Draws in which an action is the best, and in which it is within the margin of the best."""
    won, close = 0, 0
    for s in range(values.size):
        won += winner[s] == action
        close += top[s] - sign * values[s] <= margin
    return won, close


@njit(cache=True, nogil=True)
def _quantile(values, p):
    """Quantile by linear interpolation, as numpy's; the values are put in another order."""
    place = (values.size - 1) * p
    k = int(place)
    _select(values, k)
    below = values[k]
    if k + 1 == values.size:
        return below
    above = values[k + 1 :].min()
    return below + (place - k) * (above - below)


@njit(cache=True, nogil=True)
def _select(x, k):
    """Put the k-th smallest in its place, smaller ones before it, larger ones after (Hoare 1961)."""
    first, last = 0, x.size - 1
    while first < last:
        middle = (first + last) // 2
        # Median of three as the pivot: sorted values are the worst case of the first one.
        if x[middle] < x[first]:
            x[middle], x[first] = x[first], x[middle]
        if x[last] < x[first]:
            x[last], x[first] = x[first], x[last]
        if x[last] < x[middle]:
            x[last], x[middle] = x[middle], x[last]
        pivot, i, j = x[middle], first, last
        while i <= j:
            while x[i] < pivot:
                i += 1
            while pivot < x[j]:
                j -= 1
            if i <= j:
                x[i], x[j] = x[j], x[i]
                i += 1
                j -= 1
        if k <= j:
            last = j
        elif k >= i:
            first = i
        else:
            return
