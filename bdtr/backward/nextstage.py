"""What the policy does at the next stage, at histories that are no unit's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bdtr.backward.induction import Policy
from bdtr.data.exclusions import feasible_sets
from bdtr.data.no_decision import arms_of, has_decision
from bdtr.stages.prediction import QFunction, unit_columns
from bdtr.stages.settings import FitError
from bdtr.stages.states import StateQ, columns_at
from bdtr.trial.condition import Condition
from bdtr.trial.rules import ELSE, action_codes, rule_columns
from bdtr.trial.trial import Stage

__all__ = ["NextStage", "columns_of_next"]

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def columns_of_next(q: Any, frame: pd.DataFrame) -> Any:
    """Columns of units for a Q-function, what is known of their sites among them."""
    if isinstance(q, QFunction):
        return unit_columns(q.design, frame, columns_at(q.sites))
    return q.columns(frame)


@dataclass(frozen=True)
class NextStage:
    """The stage that follows the states, and the policy there.

    ``later`` is its Q-function, ``rule`` the one that the policy chooses by; ``before`` the action that the
    states follow; ``sign`` is -1 where a smaller payoff is better.
    """

    stage: Stage
    before: str
    policy: Policy
    later: Any
    rule: Any
    sign: float

    def allowed(self, frame: pd.DataFrame) -> np.ndarray:
        """Feasible actions at the next stage (row, arm), the arm without a decision among them."""
        stage = self.stage
        among = has_decision(stage, frame)
        names = np.array([f"a history that follows stage {self.before}"] * min(len(frame), 1))
        feasible, _ = feasible_sets(stage, frame, among == 1, np.resize(names, len(frame)))
        if stage.outside == "arm":
            outside = among == 0
            feasible = np.c_[feasible & ~outside[:, None], outside]
        return feasible

    def said(self, frame: pd.DataFrame, feasible: np.ndarray) -> np.ndarray:
        """Code of the action that a regime says, -1 where it is not feasible or there is no regime."""
        stage = self.stage
        if self.policy.kind != "regime":
            return np.full(len(frame), -1)
        if stage.action not in self.policy.rules:
            raise FitError(
                f"{self.policy.name}: is known for the units of the data alone, and stage {self.before} is "
                "computed from models of states (states=...), at histories that are no unit's. Fit the trial "
                "without states=."
            )
        rule = self.policy.rules[stage.action]
        if unknown := [c for c in rule_columns(rule) if c not in frame]:
            raise FitError(
                f"{self.policy.name}: goes by {unknown[0]!r} at stage {stage.action}, which stage "
                f"{self.before} and the models of states do not name. Name it in the formula of "
                f"Stage({self.before!r}) and fit again."
            )
        codes = action_codes(rule, stage.actions or (), frame)
        if stage.outside == "arm":
            codes = np.where(feasible[:, -1], len(arms_of(stage)) - 1, codes)
        allowed = feasible[np.arange(len(frame)), np.maximum(codes, 0)] & (codes >= 0)
        return np.where(allowed, codes, -1)

    def turns_with(self, state: StateQ) -> bool:
        """Whether what is feasible, or what a regime says, can change with a state."""
        if callable(self.policy.rules.get(self.stage.action)):
            return True
        return state.name in {c for text in self._conditions for c in Condition(text).columns}

    def numbers_for(self, state: StateQ) -> np.ndarray:
        """Numbers that stand in conditions on a state."""
        texts = [t for t in self._conditions if state.name in Condition(t).columns]
        return np.array(sorted({float(x) for text in texts for x in _NUMBER.findall(text)}))

    @property
    def turns_at(self) -> np.ndarray:
        """Numbers at which conditions may turn, and others between and beyond them."""
        found = {float(x) for text in self._conditions for x in _NUMBER.findall(text)}
        at = np.array(sorted(found))
        if not len(at):
            return at
        return np.unique(
            np.concatenate([at, 0.5 * (at[1:] + at[:-1]), [at[0] - 1.0, at[-1] + 1.0]])
        )

    @property
    def _conditions(self) -> list[str]:
        """Conditions of the stage, and of the regime's rule there."""
        rule = self.policy.rules.get(self.stage.action)
        texts = [self.stage.among, *(self.stage.feasible or {})]
        texts += [text for text in rule if text != ELSE] if isinstance(rule, Mapping) else []
        return [text for text in texts if text]

    def taken(
        self, frame: pd.DataFrame, on_average: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Feasible actions, the code of the one that the policy takes, -1 where that depends on the draw
        (``on_average``: the one with the best mean), and the values (row, arm) that it is the best of, where
        it is recommended."""
        feasible = self.allowed(frame)
        code = self.said(frame, feasible)
        if self.policy.kind == "optimal" and not on_average:
            only = feasible.sum(axis=1) == 1
            return feasible, np.where(only, feasible.argmax(axis=1), code), None
        open_ = code < 0
        if not open_.any():
            return feasible, code, None
        values = self.means(frame)
        best = np.where(feasible, values, -np.inf).argmax(axis=1)
        return feasible, np.where(open_, best, code), values

    def means(self, frame: pd.DataFrame) -> np.ndarray:
        """Posterior means of Q at the next stage (row, arm), a larger one being better."""
        q = self.rule
        columns = columns_of_next(q, frame)
        means = q.mean(columns) if hasattr(q, "mean") else q.evaluate(columns).mean(axis=2)
        return self.sign * means.T

    def signature(self, frame: pd.DataFrame, feasible: np.ndarray | None = None) -> np.ndarray:
        """One number for what is feasible and what a regime says."""
        feasible = self.allowed(frame) if feasible is None else feasible
        bits = feasible @ (1 << np.arange(feasible.shape[1]))
        return bits * (feasible.shape[1] + 1) + self.said(frame, feasible) + 1
