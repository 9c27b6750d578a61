"""Units that have no decision at a stage by design, such as responders who are not randomised again.

Nothing may run as if they were lost: leaving depends on the history in between, which the earlier
stage's model does not know, and where being a responder is good, leaving them out makes the best regime
look the worst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from bdtr.data.coding import Coding, label_series, with_columns
from bdtr.data.contents import DataError, some
from bdtr.trial.condition import Condition
from bdtr.trial.formula import Formula
from bdtr.trial.states import computed_stages
from bdtr.trial.trial import Stage, Trial, TrialError

__all__ = [
    "NO_DECISION",
    "arms_of",
    "fill_outside",
    "has_decision",
    "no_action",
    "not_measured",
    "with_arms",
    "without_mark",
]

NO_DECISION = "no decision"  # label of their arm
_MOST_VALUES = 10  # of a column that may tell them apart


def arms_of(stage: Stage) -> tuple[str, ...]:
    """The actions of a stage, and the arm of those without a decision where there is one."""
    own = tuple(stage.actions or ())
    return (*own, NO_DECISION) if stage.outside == "arm" else own


def has_decision(stage: Stage, coded: pd.DataFrame) -> np.ndarray:
    """Whether a decision is due for each unit: 1, 0, or -1 where that is not known."""
    if stage.among is None:
        return np.ones(len(coded), dtype=np.int8)
    return Condition(stage.among).evaluate(coded)


def with_arms(trial: Trial, coded: pd.DataFrame, outcome: np.ndarray) -> Trial:
    """Say for each stage what becomes of those without a decision, where the user has not."""
    stages, computed = [], computed_stages(trial)
    for k, stage in enumerate(trial.stages):
        if stage.among is not None and stage.outside is None:
            lost = np.isnan(_payoff_from(trial, k, coded, outcome)) & (
                has_decision(stage, coded) == 0
            )
            clusters = any(s.delivered_in for s in trial.stages[k:])
            arm = stage.model is None and bool(trial.site or lost.any() or clusters)
            arm |= bool({k, k - 1} & computed)  # what they can expect is computed as well
            stage = replace(stage, outside="arm" if arm else "carry")
        stages.append(stage)
    return replace(trial, stages=tuple(stages))


def _payoff_from(trial: Trial, k: int, coded: pd.DataFrame, outcome: np.ndarray) -> np.ndarray:
    """Observed payoff of each unit from stage k on, missing where any part of it is."""
    rewards = [coded[s.reward].to_numpy() for s in trial.stages[k:] if s.reward]
    return np.sum([outcome, *rewards], axis=0)


def without_mark(trial: Trial, frame: pd.DataFrame) -> pd.DataFrame:
    """Data that were checked before, with the label of the arm taken out again."""
    changed = {}
    for stage in trial.stages:
        if stage.among is None:
            continue
        if NO_DECISION in (stage.actions or ()):
            raise TrialError(
                f"Stage({stage.action!r}): {NO_DECISION!r} is what bdtr calls those outside among=; give "
                "the action another label."
            )
        labels = label_series(frame[stage.action])
        if (labels == NO_DECISION).any():
            changed[stage.action] = labels.mask(labels == NO_DECISION).set_axis(frame.index)
    return with_columns(frame, changed) if changed else frame


def no_action(
    trial: Trial,
    coded: pd.DataFrame,
    frame: pd.DataFrame,
    outcome: np.ndarray,
    units: np.ndarray,
) -> None:
    """Raise where units of a later stage have a payoff and no action: they had no decision, or it was
    not noted.

    Parameters
    ----------
    trial, coded
        The trial and its coded columns.
    frame
        All columns of the user's: one of them may tell these units apart.
    outcome
        Final outcome of each unit.
    units
        Names of the units.
    """
    present = coded[trial.stages[0].action].notna().to_numpy()
    for k, stage in enumerate(trial.stages[1:], start=1):
        due = present & ~np.isnan(_payoff_from(trial, k, coded, outcome))
        due &= has_decision(stage, coded) == 1
        if stage.eligible is not None:
            due &= Condition(stage.eligible).evaluate(coded) == 1
        acted = coded[stage.action].notna().to_numpy()
        without = due & ~acted
        if not without.any():
            continue
        condition = _told_apart(trial, k, frame, without, present & acted)
        said = (
            f"say among={condition!r} in Stage({stage.action!r}), which is true of all others and "
            f"of none of these"
            if condition
            else f"say so with among= in Stage({stage.action!r}): a condition that is true of "
            f"those who had one"
        )
        raise DataError(
            f"Stage({stage.action!r}): {int(without.sum()):,} units have a payoff and no action in "
            f"{stage.action!r} ({some(units[without])}). If they had no decision there by design, "
            f"as responders "
            f"have none, {said}. If their action was not noted, leave them out of this stage with eligible=. "
            "They are not left out in silence, as those who have no decision often fare better or worse."
        )


def _told_apart(
    trial: Trial, k: int, frame: pd.DataFrame, without: np.ndarray, others: np.ndarray
) -> str | None:
    """The condition for a decision, if one column with few values tells these units from the others."""
    unknown = {trial.unit, trial.site, trial.outcome}
    unknown |= {s.action for s in trial.stages[k:]} | {s.reward for s in trial.stages[k:]}
    unknown |= {s.delivered_in for s in trial.stages[k:]}
    found = []
    for name in frame.columns:
        if name in unknown or not str(name).isidentifier():
            continue
        here, there = frame[name][without], frame[name][others]
        if here.isna().any() or there.isna().any():
            continue
        first, second = here.unique(), there.unique()
        if len(first) + len(second) > _MOST_VALUES or set(first) & set(second):
            continue
        if len(second) == 1:
            found.append((len(first), f"{name} == {_value(second[0])}"))
        elif len(first) == 1:
            found.append((len(second), f"{name} != {_value(first[0])}"))
    return min(found)[1] if found else None


def _value(value: object) -> str:
    if isinstance(value, (bool, np.bool_)):
        return repr(int(value))
    if isinstance(value, (int, float, np.number)):
        return f"{value:g}"
    return repr(str(value))


def fill_outside(
    trial: Trial, formulas: Sequence[Formula], coding: Coding, coded: pd.DataFrame
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Give those without a decision their arm, and a value to what is not measured among them.

    A column that is missing for all of them has no meaning there. It is set to one value for all, the mean or
    the first label, which the arm's own coefficient makes up for.

    Parameters
    ----------
    trial
        The trial, with what becomes of them said for each stage.
    formulas
        The formula of each stage.
    coding
        How columns are coded, the arms among the levels.
    coded
        Coded columns.

    Returns
    -------
    coded : pandas.DataFrame
    notes : tuple of str
    """
    notes, changed = [], {}
    for stage, formula in zip(trial.stages, formulas, strict=True):
        if stage.outside != "arm":
            continue
        outside = has_decision(stage, coded) == 0
        labels = label_series(coded[stage.action]).astype(object)
        labels[outside & labels.isna().to_numpy()] = NO_DECISION
        levels = list(coding.levels[stage.action])
        changed[stage.action] = pd.Series(pd.Categorical(labels, categories=levels))
        for name in formula.model_columns:
            if name == stage.action or not outside.any():
                continue
            column = changed.get(name, coded[name])
            if not column[outside].isna().all() or column[~outside].isna().all():
                continue
            if name in coding.levels:
                value: object = column[~outside].mode().iloc[0]
            else:
                value = float(column[~outside].mean())
            changed[name] = column.mask(outside, value)
            notes.append(not_measured(stage, name))
    return with_columns(coded, changed), tuple(notes)


def not_measured(stage: Stage, name: str) -> str:
    """The note on a column that has no meaning for units without a decision and stands at one value there."""
    return (
        f"stage {stage.action}: {name!r} is missing for all units without a decision "
        f"(outside among={stage.among!r}); it has no part in their arm of the model."
    )
