"""The Q-function of a stage that is computed from models of the states that follow it (g-computation).

In each draw

    Q_k(h, a) = E[R_k | h, a] + integral V_{k+1}(h, a, s) p(s | h, a) ds,

V being the value of the action that the policy takes at the next stage (Robins 1986, Mathematical Modelling
7; Murphy 2003, JRSS B 65(2)). Nothing is simulated: each state is gone through at nodes, which all draws have
in common (:mod:`bdtr.backward.statenodes`), and its density under a draw is the weight of a node. Weights add
up to 1 in each draw. What is recommended at a node is the action with the best posterior mean, as for a unit
with that history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from bdtr.backward.induction import Policy
from bdtr.backward.nextstage import NextStage
from bdtr.backward.statenodes import StateNodes
from bdtr.backward.statetree import ComputedColumns, Lines, Tree, first_of
from bdtr.data.coding import with_columns
from bdtr.data.history import delivered_now
from bdtr.data.modelmatrix import DesignError
from bdtr.data.stagecolumns import StageDesign
from bdtr.stages.prediction import QFunction
from bdtr.stages.quadrature import add_expected_lines, best_between
from bdtr.stages.settings import FitError
from bdtr.stages.states import StateQ
from bdtr.trial.states import decides_by, states_of
from bdtr.trial.trial import Trial

__all__ = ["ComputedDraws", "ComputedQ"]

_CELLS = 1_500_000  # numbers of one array in memory at once
_FOR_MEANS = 100  # draws that a mean is taken over


@dataclass(frozen=True)
class ComputedDraws:
    """Draws of a stage that is computed: those of the next one under a policy; those of the states are their
    own."""

    later: Any
    policy: Policy
    samples: int


@dataclass(frozen=True)
class ComputedQ:
    """Mean payoff of every action, by draw, as a ``QFunction`` gives it.

    ``later`` is the Q-function of the next stage under the policy, ``rule`` the one that the policy chooses
    by: on average over sites, where it is not tailored to them.
    """

    trial: Trial
    k: int
    design: StageDesign
    states: tuple[StateQ, ...]
    draws: ComputedDraws
    later: Any
    rule: Any

    def __call__(self, frame: pd.DataFrame) -> np.ndarray:
        """Q-values (action, unit, sample) of units with this coded history."""
        return self.evaluate(self.columns(frame))

    def blind(self, factors: frozenset[str]) -> ComputedQ:
        """The same before the classes of these factors are known."""
        return replace(
            self,
            states=tuple(s.blind(factors) for s in self.states),
            later=_blind(self.later, factors),
            rule=_blind(self.rule, factors),
        )

    def thinned(self, most: int) -> ComputedQ:
        """The same with up to so many of the draws."""
        count = self.draws.samples
        return replace(
            self,
            states=tuple(s.thinned(most) for s in self.states),
            draws=replace(self.draws, samples=len(np.arange(count)[:: -(-count // most)])),
            later=_thinned(self.later, most),
            rule=_thinned(self.rule, most),
        )  # fmt: skip

    def mean(self, columns: ComputedColumns) -> np.ndarray:
        """Means of Q-values over some of the draws (action, unit)."""
        few = self.thinned(_FOR_MEANS)
        return few._evaluated(columns, few.states, few.next.later).mean(axis=2)

    @property
    def key(self) -> tuple[str, str]:
        """What its columns go by, beside units: the policy, and where."""
        return self.draws.policy.name, self.states[0].sites

    @property
    def depth(self) -> int:
        """How many stages in a row are computed."""
        return 1 + (self.later.depth if isinstance(self.later, ComputedQ) else 0)

    @cached_property
    def _unknown(self) -> frozenset[str]:
        """The class that this stage's action forms, which is not known when it is chosen."""
        formed = delivered_now(self.trial, self.k)
        return frozenset([formed] if formed else [])

    @cached_property
    def next(self) -> NextStage:
        """The next stage and the policy there."""
        later = _blind(self.later, self._unknown)
        rule = later if self.rule is self.later else _blind(self.rule, self._unknown)
        sign = 1.0 if self.trial.higher_is_better else -1.0
        stage = self.trial.stages[self.k + 1]
        return NextStage(stage, self.design.action, self.draws.policy, later, rule, sign)

    @cached_property
    def _nodes(self) -> StateNodes:
        name = self.trial.stages[self.k].reward
        if name is None:
            return StateNodes(self.states, None, None, self.next)
        models = self.trial.states or {}
        named = {c for one in states_of(self.trial, self.k) for c in models[one].columns}
        named |= {c for later in self.trial.stages[self.k + 1 :] for c in decides_by(later)}
        if name in named:
            return StateNodes(self.states, None, name, self.next)
        reward = next(s for s in self.states if s.name == name)
        return StateNodes(tuple(s for s in self.states if s is not reward), reward, None, self.next)

    def columns(self, frame: pd.DataFrame) -> ComputedColumns:
        """All of the Q-function of units with this coded history that does not depend on draws."""
        if self.draws.policy.shifts:
            raise FitError(
                f"stage {self.design.action} is computed from models of states (states=...), which does not "
                f"go together with payoffs that are shifted ({self.draws.policy.name}). Fit the trial "
                "without states=."
            )
        names = [self.design.site, *self.design.formula.columns]
        names = [c for c in dict.fromkeys(names) if c in frame and c != self.design.action]
        known = frame[[c for c in names if c not in self._unknown]].reset_index(drop=True)
        none = pd.Series([None] * len(known), dtype="str")
        known = with_columns(known, dict.fromkeys(self._unknown, none))
        taken = [self.design.acting(known, a) for a in range(len(self.design.arms))]
        try:
            closed = self._nodes.closed(taken[0])
            trees = tuple(self._nodes.tree(one, closed) for one in taken)
        except DesignError as error:
            raise FitError(
                f"stage {self.trial.stages[self.k + 1].action} cannot be computed at values that the models "
                f"of {', '.join(s.name for s in self.states)} lead to: {error} Take a family that keeps to "
                "the range of a state (gamma or lognormal above 0), and s(x) or poly(x) for curves."
            ) from None
        return ComputedColumns(trees, len(known))

    def evaluate(self, columns: ComputedColumns) -> np.ndarray:
        """Q-values of units whose columns are at hand (action, unit, sample)."""
        return self._evaluated(columns, self.states, self.next.later)

    def _evaluated(
        self, columns: ComputedColumns, states: Sequence[StateQ], later: Any
    ) -> np.ndarray:
        samples = self.draws.samples
        own: Mapping[str, StateQ] = {s.name: s for s in states}
        out = np.empty((len(columns.trees), columns.units, samples))
        for a, tree in enumerate(columns.trees):
            width = max(1, tree.nodes // max(1, columns.units))
            size = max(1, _CELLS // (samples * width))
            for at in range(0, columns.units, size):
                rows = np.arange(at, min(at + size, columns.units))
                part = tree if len(rows) == columns.units else tree.part(rows)
                out[a, rows] = self._value(part, own, later)
        return out

    def _value(self, tree: Tree, own: Mapping[str, StateQ], later: Any) -> np.ndarray:
        """Mean payoff of one action (unit, sample)."""
        if tree.lines is not None:
            value = self._of_lines(replace(tree.lines, state=own[tree.lines.state.name]), later)
        else:
            value = self._at_nodes(tree, later)
        if tree.reward is not None:
            state, columns, arm, m = tree.reward
            value = value + own[state.name].mean(columns, arm) * m[:, None]
        if tree.earned is not None:
            value = value + tree.earned[:, None]
        total = None
        for level in reversed(tree.levels):
            weight, starts = (
                replace(level, state=own[level.state.name]).weights(),
                first_of(level.row, level.rows),
            )
            if level.quasi or total is not None:
                mass = weight if total is None else weight * total
                total = np.add.reduceat(mass, starts, axis=0)
            weight *= value
            value = np.add.reduceat(weight, starts, axis=0)
        return value if total is None else value / np.maximum(total, 1e-300)

    def _at_nodes(self, tree: Tree, later: Any) -> np.ndarray:
        """Value of the next stage at each node (node, sample)."""
        out = np.empty((tree.nodes, self.draws.samples))
        sign = self.next.sign
        for code in np.unique(tree.code):
            rows = np.flatnonzero(tree.code == code)
            part = tree.columns.part(rows)
            if code >= 0:
                out[rows] = _of_action(later, part, int(code))
                continue
            q = sign * later.evaluate(part)
            best = np.full(q.shape[1:], -np.inf)
            for a in range(len(q)):
                on = tree.feasible[rows, a]
                best[on] = np.maximum(best[on], q[a, on])
            out[rows] = sign * best
        return out

    def _of_lines(self, lines: Lines, later: QFunction) -> np.ndarray:
        """Value of the next stage with the last state integrated out (row, sample)."""
        mean, sd = lines.state.moments(lines.columns, lines.arm)
        one, other = lines.at
        sign = self.next.sign
        row, pieces = lines.pieces.row, lines.pieces
        feasible = lines.feasible.T
        start, end = pieces.low, pieces.high
        every: list[Any] = [None] * len(lines.ends[0].common)
        if self.next.policy.kind == "optimal":
            every = [_at_ends(later, lines, a) for a in range(len(every))]
            low, high = (sign * np.stack([ends[i] for ends in every]) for i in (0, 1))
            slope = (high - low) / (other - one)
            level = low - slope * one
            places = best_between(
                level[:, row], slope[:, row], feasible[..., None], start[:, None], end[:, None]
            )
        else:
            at = [self.next.rule.mean(e) for e in lines.ends]
            rise = (at[1] - at[0]) / (other - one)
            base = at[0] - rise * one
            found = best_between(sign * base[:, row], sign * rise[:, row], feasible, start, end)
            places = []
            for a, (left, right) in enumerate(found):
                said = lines.code >= 0
                left = np.where(said, start, left)
                right = np.where(said, np.where(lines.code == a, end, -np.inf), right)
                places.append((left[:, None], right[:, None]))
        out = np.zeros((len(row), mean.shape[1]))
        for a, (left, right) in enumerate(places):
            if not (right > left).any():
                continue
            start_end = every[a] or _at_ends(later, lines, a)
            add_expected_lines(out, row, start_end, lines.at, mean, sd, left, right)
        if len(row) == len(lines.arm):
            return out
        return np.add.reduceat(out, first_of(row, len(lines.arm)), axis=0)


def _at_ends(later: QFunction, lines: Lines, action: int) -> tuple[np.ndarray, np.ndarray]:
    """Q-values of an action of the next stage at the two numbers that say its lines (row, sample)."""
    return later.of_action(lines.ends[0], action), later.of_action(lines.ends[1], action)


def _blind(q: Any, factors: frozenset[str]) -> Any:
    """A Q-function before the classes of these factors are known; a user's model sees them as missing."""
    return q.blind(factors) if factors and hasattr(q, "blind") else q


def _thinned(q: Any, most: int) -> Any:
    """A Q-function with up to so many of its draws."""
    if isinstance(q, QFunction):
        return replace(q, draws=q.draws.thinned(most))
    if isinstance(q, ComputedQ):
        return q.thinned(most)
    step = -(-q.draws.samples // most)
    posterior = q.draws.posterior.isel(sample=slice(None, None, step))
    return replace(q, draws=replace(q.draws, posterior=posterior))


def _of_action(later: Any, columns: Any, code: int) -> np.ndarray:
    """Q-values of one action (unit, sample)."""
    if isinstance(later, QFunction):
        return later.of_action(columns, code)
    return later.evaluate(columns)[code]
