"""Missing not at random: what is missing is shifted from what was observed for people alike.

The pattern-mixture model with shifts delta (Little 1993, JASA 88(421); Carpenter and Kenward 2013, Multiple
Imputation and its Application, ch. 10): a missing value is what it would be if missing at random, plus delta.
A shift of the outcome also moves what is expected for those who left: it is a reward, at the stage of the
last action that they took.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bdtr.data.contents import DataError
from bdtr.data.imputation.variables import Variable
from bdtr.results.arguments import is_real
from bdtr.results.labels import label_text
from bdtr.trial.trial import Trial

__all__ = ["check_shifts", "last_taken", "rewards_of_those_who_left", "shift_of"]

_UNBOUNDED = ("gaussian", "student_t")


def check_shifts(
    given: Mapping[str, Any], found: Sequence[Variable], trial: Trial, lost: bool = False
) -> None:
    """Raise where a shift is for something that is not missing, or is no number.

    Parameters
    ----------
    given
        Shifts by variable.
    found
        Variables of the history with missing values, and the outcome.
    trial
        The trial.
    lost
        Whether anybody has no outcome: who left before the last decision has none that is drawn.
    """
    known = {
        one.name: one for one in found if one.missing.any() or (lost and one.name == trial.outcome)
    }
    for name in given:
        if name not in known:
            raise DataError(
                f"delta={{{name!r}: ..}}: no value of it is missing that the trial needs. Variables with "
                f"missing values: {', '.join(map(repr, known)) or 'none'}."
            )
        one = known[name]
        numbers = one.kind == "number" or all(is_real(v) for v in one.levels)
        if not numbers or len(one.levels) == 2:
            raise DataError(
                f"delta={{{name!r}: ..}}: {name!r} holds labels, or yes and no; a shift is added to numbers."
            )
        if name == trial.outcome and trial.family not in _UNBOUNDED:
            raise DataError(
                f"delta={{{name!r}: ..}}: outcomes of family={trial.family!r} have bounds, which a shift "
                "would cross. Shifts of the outcome are for family='gaussian' or 'student_t'."
            )


def last_taken(trial: Trial, coded: pd.DataFrame, before: int) -> np.ndarray:
    """Stage of the last action that each unit took before a stage (from 0), -1 where there is none."""
    out = np.full(len(coded), -1)
    for k, stage in enumerate(trial.stages[:before]):
        out[coded[stage.action].notna().to_numpy()] = k
    return out


def shift_of(given: Any, name: str, trial: Trial, coded: pd.DataFrame, before: int) -> np.ndarray:
    """The shift of a variable for each unit.

    Parameters
    ----------
    given
        A number, for all; or numbers by the label of the last action taken before; or these by the action
        column of its stage.
    name
        The variable.
    trial, coded
        The trial and its coded columns.
    before
        Stage (from 0) before which the variable is measured; of the outcome the number of stages.
    """
    if is_real(given):
        return np.full(len(coded), float(given))
    names = [s.action for s in trial.stages[:before]]
    by_stage = isinstance(given, Mapping) and all(isinstance(v, Mapping) for v in given.values())
    tables = dict(given) if by_stage else dict.fromkeys(names, given)
    unknown = set(_labels(given if by_stage else {"": given}, given, name))
    out, last = np.zeros(len(coded)), last_taken(trial, coded, before)
    for k, stage in enumerate(trial.stages[:before]):
        labels = coded[stage.action].astype(object).to_numpy()
        for label, value in tables.get(stage.action, {}).items():
            text = label_text(label)
            if text in (stage.actions or ()):
                unknown.discard((stage.action if by_stage else "", text))
                out[(last == k) & (labels == text)] = float(value)
    if unknown or not names:
        stage, label = next(iter(unknown), ("", ""))
        at = f" of {stage!r}" if stage else ""
        raise DataError(
            f"delta={{{name!r}: ..}}: {label!r} is no action{at} before {name!r} is measured. Stages before "
            f"it: {', '.join(map(repr, names)) or 'none; give a number'}."
        )
    return out


def _labels(tables: Mapping[str, Any], given: Any, name: str) -> list[tuple[str, str]]:
    """Stage (nothing where they are for all) and label of each number, or an error."""
    found = []
    for stage, table in tables.items():
        if not isinstance(table, Mapping) or not all(is_real(v) for v in table.values()):
            raise DataError(
                f"delta={{{name!r}: {given!r}}}: give a number, or numbers by the label of the last action "
                "taken, {'app': -0.2}, or these by stage, {'a1': {'app': -0.2}}."
            )
        found += [(stage, label_text(label)) for label in table]
    return found


def rewards_of_those_who_left(
    trial: Trial, coded: pd.DataFrame, shift: np.ndarray, left: np.ndarray
) -> np.ndarray:
    """The shift of the outcome as a reward (stage, unit) of those whose outcome is not drawn."""
    last = last_taken(trial, coded, len(trial.stages))
    stages = np.arange(len(trial.stages))[:, None]
    return np.where((last == stages) & left, shift, 0.0)
