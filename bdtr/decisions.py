"""What Q-values say about a decision: probability of being optimal, expected regret, the best action."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
    allowed = feasible.T[:, :, None]
    better = np.where(allowed, sign * q, -np.inf)
    top = better.max(axis=0)
    winner = better.argmax(axis=0)
    count = q.shape[0]
    p_optimal = np.stack([(winner == a).mean(axis=1) for a in range(count)])
    mean = q.mean(axis=2)
    tail = (1 - interval) / 2
    lower, upper = np.quantile(q, [tail, 1 - tail], axis=2)
    regret = top.mean(axis=1) - sign * mean
    p_within = np.stack([(top - better[a] <= margin).mean(axis=1) for a in range(count)])
    best = np.where(feasible.T, sign * mean, -np.inf).argmax(axis=0)
    gone = ~feasible.T

    def masked(values: np.ndarray) -> np.ndarray:
        return np.where(gone, np.nan, values)

    return ActionSummary(
        best,
        *map(masked, (p_optimal, mean, lower, upper, regret, p_within)),
    )
