"""The data of a trial once they are checked, and who takes part in each of its stages."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from bdtr.data.coding import (
    Coding,
    label_series,
    with_columns,
)
from bdtr.data.no_decision import (
    arms_of,
)
from bdtr.trial.formula import Formula
from bdtr.trial.trial import Stage, Trial

__all__ = ["StageData", "TrialData"]


@dataclass(frozen=True)
class StageData:
    """Who takes part in one stage.

    Arrays over all units: ``action`` codes (-1: none), ``feasible`` (unit x arm), ``among`` (a decision
    is due, or the unit is in the arm of those without one), ``outside`` (in that arm), ``history`` (all
    that the Q-function needs is known), ``fitted`` (row of the fit).
    """

    stage: Stage
    formula: Formula
    action: np.ndarray
    feasible: np.ndarray
    among: np.ndarray
    history: np.ndarray
    fitted: np.ndarray
    reward: np.ndarray
    outside: np.ndarray
    weight: np.ndarray | None = None  # known precision weights, None for 1
    by_formula: bool = True  # its model is the one that its formula makes

    @property
    def arms(self) -> tuple[str, ...]:
        """The actions, and the arm without a decision where there is one; the order of codes."""
        return arms_of(self.stage)

    @property
    def took(self) -> np.ndarray:
        """Units with a complete history that took a feasible action, whether they are in the fit or not."""
        rows = np.arange(len(self.action))
        allowed = self.feasible[rows, np.maximum(self.action, 0)]
        return self.history & self.among & (self.action >= 0) & allowed

    @property
    def deciding(self) -> np.ndarray:
        """Units with a complete history who have a decision, if among one feasible action."""
        return self.history & self.among & ~self.outside

    @property
    def choosing(self) -> np.ndarray:
        """Units with a complete history who have a decision between two feasible actions or more."""
        return self.history & self.among & (self.feasible.sum(axis=1) > 1)


@dataclass(frozen=True)
class TrialData:
    """The data of a trial after the one check: nothing later checks them again."""

    trial: Trial
    frame: pd.DataFrame
    coding: Coding
    units: np.ndarray
    outcome: np.ndarray  # observed payoff
    stages: tuple[StageData, ...]
    flow: pd.DataFrame
    notes: tuple[str, ...]
    valued: np.ndarray  # units whose expected payoff from stage 1 on can be computed
    doubts: tuple[str, ...] = ()  # about how treatment reached them
    recorded: np.ndarray | None = None  # the outcome as its family takes it, beside ``outcome``
    companion: np.ndarray | None = None  # its trials or exposure
    index: pd.Index | None = None  # that of the frame as the user gave it; not kept in a saved fit

    def __len__(self) -> int:
        return len(self.units)

    @cached_property
    def site_levels(self) -> np.ndarray:
        """The site index: every site in the data, numbers in their order, other labels sorted."""
        if self.trial.site is None:
            return np.zeros(1, dtype=object)
        labels = label_series(self.frame[self.trial.site]).dropna().unique()
        numeric = all(label.isascii() and label.isdigit() for label in labels)
        ordered = sorted(labels, key=(lambda x: (int(x), x)) if numeric else None)
        return np.array(ordered, dtype=object)

    @property
    def named(self) -> pd.DataFrame:
        """The columns that the trial uses, the units' names among them if it has some."""
        if not self.trial.unit:
            return self.frame
        return with_columns(self.frame, {self.trial.unit: self.units})

    @property
    def outcome_known(self) -> np.ndarray:
        """Units whose outcome and last reward were recorded."""
        names = (self.trial.outcome, self.trial.companion, self.trial.stages[-1].reward)
        return self.frame[[n for n in names if n]].notna().all(axis=1).to_numpy()

    def imputed(self, k: int) -> dict[str, np.ndarray]:
        """Units in the fit of a stage whose value was imputed, by variable of its model. Grouping factors are
        none: units without a decision have no class of it."""
        stage = self.stages[k]
        found = {
            name: stage.fitted & self.frame[name].isna().to_numpy()
            for name in stage.formula.model_columns
        }
        return {name: gap for name, gap in found.items() if gap.any()}

    @property
    def payoff(self) -> np.ndarray:
        """Observed payoff of the units in the fit of the last stage."""
        last = self.stages[-1]
        return (self.outcome + last.reward)[last.fitted]

    def hash(self) -> str:
        """SHA-256 of the columns the trial uses, the first 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for name in self.frame.columns:
            digest.update(name.encode())
            digest.update(pd.util.hash_pandas_object(self.frame[name], index=False).to_numpy())
        return digest.hexdigest()[:16]
