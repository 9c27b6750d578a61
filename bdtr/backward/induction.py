"""Backward induction, draw by draw: the one backward pass, whatever the stage models are.

Stage K is fitted to the observed payoff. For k = K-1, ..., 1 and each draw s the response of unit i is
R_k,i + V_{k+1,i}^(s), where V is the Q-value of the action that the policy takes at stage k+1 under
draw s of the later stages; one draw of the parameters of stage k given that response completes the
chain of draw s. The policy is `recommended` (the Bayes rule argmax_a mean_s Q, frozen), `optimal` (the
maximum within each draw) or a fixed regime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bdtr.trial.rules import Rule

__all__ = [
    "POLICIES",
    "BackwardPass",
    "Chosen",
    "Decisions",
    "Policy",
    "StageResponses",
    "backward",
    "best_mean",
    "stage_by_stage",
    "stage_value",
    "together",
]

POLICIES = ("recommended", "untailored", "optimal")
_CELLS = 250_000  # Q-values in memory at once: they stay in the processor's cache

type QValues = Callable[[int, np.ndarray], np.ndarray]
type Chosen = Callable[[int, np.ndarray, str], np.ndarray]


@dataclass(frozen=True)
class Decisions:
    """The decision problem of the units: arrays over units, one entry a stage.

    ``among`` (a decision is due), ``feasible`` (unit x action), ``reward``; ``payoff`` is the final
    outcome. ``higher_is_better`` says which way a payoff is better.
    """

    among: Sequence[np.ndarray]
    feasible: Sequence[np.ndarray]
    reward: Sequence[np.ndarray]
    payoff: np.ndarray
    higher_is_better: bool

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.among)


@dataclass(frozen=True)
class Policy:
    """What later stages will do.

    ``kind`` is ``"recommended"``, ``"untailored"`` (recommended on average over sites, as at a site that
    is not known), ``"optimal"`` or ``"regime"``; for a regime ``actions`` holds per
    stage the action code of each unit, -1 where its action is not feasible and the recommended one is
    taken, and ``off_path`` which units had left its path before the stage; ``in_parts`` are the same in each
    completed data set, where values were imputed. ``shifts`` holds per stage
    what is added to the Q-values, (action, unit) in units of the payoff, times a number for each draw:
    the policy weighs actions by the sum, and it is what they are worth (net of prices, or of
    confounding). ``rules`` are those of a regime, for histories that are no unit's.
    """

    kind: str = "recommended"
    name: str = "recommended"
    actions: Sequence[np.ndarray] = field(default_factory=tuple)
    off_path: Sequence[np.ndarray] = field(default_factory=tuple)
    in_parts: Sequence[Policy] = field(default_factory=tuple)
    shifts: Sequence[tuple[np.ndarray, np.ndarray]] = field(default_factory=tuple)
    rules: Mapping[str, Rule] = field(default_factory=dict)


def stage_value(
    q: np.ndarray,
    feasible: np.ndarray,
    kind: str,
    fixed: np.ndarray | None = None,
    higher_is_better: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Value of the action that a policy takes, in each draw.

    Parameters
    ----------
    q
        Q-values (action, unit, sample).
    feasible
        Feasible actions (unit, action).
    kind
        ``"recommended"``: the action with the best posterior mean, the same in every draw;
        ``"optimal"``: the best action within each draw; ``"regime"``: ``fixed``, where it is not -1.
    fixed
        Action codes of a regime (unit).
    higher_is_better
        Whether a larger value is better.

    Returns
    -------
    value : numpy.ndarray
        (unit, sample).
    action : numpy.ndarray
        (unit) code of the recommended (or fixed) action.
    """
    sign = 1.0 if higher_is_better else -1.0
    action = best_mean(q, feasible, higher_is_better)
    if kind == "optimal":
        best = np.full(q.shape[1:], -np.inf)
        for a in range(q.shape[0]):
            rows = feasible[:, a]
            best[rows] = np.maximum(best[rows], sign * q[a, rows])
        return sign * best, action
    if kind == "regime" and fixed is not None:
        action = np.where(fixed >= 0, fixed, action)
    return q[action, np.arange(q.shape[1])], action


def best_mean(q: np.ndarray, feasible: np.ndarray, higher_is_better: bool = True) -> np.ndarray:
    """Code of the feasible action with the best posterior mean (unit), of Q-values (action, unit, sample)."""
    sign = 1.0 if higher_is_better else -1.0
    return np.where(feasible.T, sign * q.mean(axis=2), -np.inf).argmax(axis=0)


@dataclass(frozen=True)
class BackwardPass:
    """Q-functions of all stages drawn under one policy, and what follows from them.

    ``average`` are the Q-values on average over sites, by which an untailored policy chooses. ``chosen`` says
    what is recommended (stage, units, kind of the policy) where that does not follow from these draws alone:
    they are part of a posterior.
    """

    decisions: Decisions
    policy: Policy
    q_values: QValues
    average: QValues
    samples: int
    chosen: Chosen | None = None

    def continuation(self, k: int, units: np.ndarray) -> np.ndarray:
        """Expected payoff from stage k on when the policy is followed.

        Parameters
        ----------
        k
            Stage, from 0; the number of stages gives the observed payoff.
        units
            Positions of units.

        Returns
        -------
        numpy.ndarray
            (unit, sample).
        """
        d = self.decisions
        if k == d.stages:
            return np.broadcast_to(d.payoff[units, None], (len(units), self.samples))
        out = np.empty((len(units), self.samples))
        inside = d.among[k][units]
        outside = units[~inside]
        if outside.size:
            out[~inside] = d.reward[k][outside, None] + self.continuation(k + 1, outside)
        due = units[inside]
        if due.size:
            out[inside] = self._value(k, due)[0]
        return out

    def _value(self, k: int, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d, kind, feasible = self.decisions, self.policy.kind, self.decisions.feasible[k][units]
        fixed = self.policy.actions[k][units] if kind == "regime" else None
        if self.chosen is not None and kind != "optimal":
            found = self.chosen(k, units, kind)
            fixed = found if fixed is None else np.where(fixed >= 0, fixed, found)
            kind = "regime"
        elif kind == "untailored":
            average = self._shifted(self.average(k, units), k, units)
            kind, fixed = "regime", best_mean(average, feasible, d.higher_is_better)
        q = self._shifted(self.q_values(k, units), k, units)
        return stage_value(q, feasible, kind, fixed, d.higher_is_better)

    def _shifted(self, q: np.ndarray, k: int, units: np.ndarray) -> np.ndarray:
        if not self.policy.shifts:
            return q
        amount, size = self.policy.shifts[k]
        return q + amount[:, units, None] * size

    def blocks(self, units: np.ndarray) -> Iterator[np.ndarray]:
        """Blocks of units whose Q-values fit in memory."""
        most = max(f.shape[1] for f in self.decisions.feasible)
        size = max(1, _CELLS // max(1, self.samples * (most + 1)))
        for at in range(0, len(units), size):
            yield units[at : at + size]

    def responses(self, k: int, units: np.ndarray) -> StageResponses:
        """Responses of stage k, R_k + V_{k+1}, made block by block each time they are gone through."""
        return StageResponses(self, k, units)


@dataclass(frozen=True)
class StageResponses:
    """Responses of one stage: iterate for (places among the units, values (unit, sample))."""

    done: BackwardPass
    k: int
    units: np.ndarray

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]:
        at = 0
        for block in self.done.blocks(self.units):
            reward = self.done.decisions.reward[self.k][block, None]
            yield slice(at, at + len(block)), reward + self.done.continuation(self.k + 1, block)
            at += len(block)


def backward[Draws](
    decisions: Decisions,
    policies: Sequence[Policy],
    last: Draws,
    fitted: Sequence[np.ndarray],
    draw_stage: Callable[[int, list[StageResponses], list[Draws]], list[Draws]],
    q_values: Callable[[int, Draws, np.ndarray, str], np.ndarray],
    samples: int,
) -> list[list[Draws]]:
    """Draw the parameters of every stage under one or more policies, the last stage's being given.

    Parameters
    ----------
    decisions
        The decision problem.
    policies
        What later stages do; all are drawn together, stage by stage.
    last
        Draws of the last stage, fitted to the observed payoff: the same under all policies.
    fitted
        Per stage the positions of the units in its fit.
    draw_stage
        ``draw_stage(k, responses, later)``: one posterior draw of stage k per propagated response,
        for each policy; ``later`` are the draws of stage k + 1.
    q_values
        ``q_values(k, draws, units, sites)``: (action, unit, sample), at the sites that they have
        (``"observed"``) or on average over sites (``"average"``).
    samples
        Number of propagated draws.

    Returns
    -------
    list
        Per policy the draws of the stages, first stage first.
    """
    stages = decisions.stages
    draws: list[dict[int, Draws]] = [{stages - 1: last} for _ in policies]
    steps = stage_by_stage(decisions, policies, draws, fitted, draw_stage, q_values, samples)
    for _ in steps:
        pass
    return [[own[k] for k in range(stages)] for own in draws]


def stage_by_stage[Draws](
    decisions: Decisions,
    policies: Sequence[Policy],
    draws: Sequence[dict[int, Draws]],
    fitted: Sequence[np.ndarray],
    draw_stage: Callable[[int, list[StageResponses], list[Draws]], list[Draws]],
    q_values: Callable[[int, Draws, np.ndarray, str], np.ndarray],
    samples: int,
    chosen: Sequence[Chosen | None] | None = None,
) -> Iterator[int]:
    """The steps of :func:`backward`, each a stage whose draws are then in ``draws`` (policy, stage).

    Several data sets are drawn in lockstep: what is recommended at a stage (``chosen``, for each policy) may
    then depend on the draws of all of them.
    """

    def q_of(own: dict[int, Draws], sites: str) -> QValues:
        return lambda k, units: q_values(k, own[k], units, sites)

    choices = chosen or [None] * len(policies)
    done = [
        BackwardPass(
            decisions, policy, q_of(own, "observed"), q_of(own, "average"), samples, choice
        )
        for policy, own, choice in zip(policies, draws, choices, strict=True)
    ]
    for k in reversed(range(decisions.stages - 1)):
        responses = [one.responses(k, fitted[k]) for one in done]
        found = draw_stage(k, responses, [own[k + 1] for own in draws])
        for own, drawn in zip(draws, found, strict=True):
            own[k] = drawn
        yield k


def together(
    responses: Sequence[StageResponses],
) -> Iterator[tuple[slice, list[np.ndarray]]]:
    """Responses under several policies, block by block: places among the units, one array each."""
    for parts in zip(*responses, strict=True):
        yield parts[0][0], [values for _, values in parts]
