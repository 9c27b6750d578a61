"""A data frame held against a trial, once: clear errors, coded columns, and who takes part in what."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd

from bdtr.data.clusters import DesignWarning, shared_clusters, unknown_clusters
from bdtr.data.coding import Coding, label_series, level_order
from bdtr.data.contents import (
    DataError,
    clear_labels,
    computable,
    no_nul,
    rows_of,
    scalars_alone,
    some,
)
from bdtr.data.exclusions import any_of, check_groups, check_support, present
from bdtr.data.flow import raise_faults
from bdtr.data.frames import as_frame
from bdtr.data.history import conditions, stage_formula
from bdtr.data.no_decision import (
    arms_of,
    fill_outside,
    no_action,
    with_arms,
    without_mark,
)
from bdtr.data.outcomes import follow_up, outcomes, with_categories, with_payoff
from bdtr.data.trialdata import TrialData
from bdtr.results.arguments import one_of
from bdtr.results.labels import NEW_SITE
from bdtr.trial.formula import Formula
from bdtr.trial.trial import Trial

__all__ = ["as_recorded", "check", "check_again"]


def check(
    trial: Trial,
    frame: pd.DataFrame,
    missing: str = "error",
    off_protocol: str = "error",
    whole: bool = True,
) -> TrialData:
    """Hold a data frame against a trial.

    Parameters
    ----------
    trial
        The trial.
    frame
        One row per unit: a data frame of pandas, or one of Polars or Arrow.
    missing
        ``"error"``, or ``"exclude"`` to leave units with missing values out of the fit of a stage;
        they are counted in the flow table.
    off_protocol
        ``"error"``, or ``"exclude"`` for units whose action was not feasible; counted as well.
    whole
        Whether these are all data: labels of conditions must occur, groups must have more than one row.

    Returns
    -------
    TrialData

    Raises
    ------
    DataError
        If the data do not fit; the message names the column, the rows, and how to mend it.
    """
    one_of("missing", missing, ("error", "exclude"), DataError)
    one_of("off_protocol", off_protocol, ("error", "exclude"), DataError)
    trial, frame, formulas, coding, coded = as_recorded(trial, frame, whole)
    units = _units(trial, frame)
    recorded, companion, outcome = outcomes(trial, coded)
    _counted_once(trial, coded)
    if whole:
        for name in _computed_with(trial, formulas):
            if name in coding.numbers:
                computable(coded[name].to_numpy(dtype=float), name)
        for stage in trial.stages:
            for condition in conditions(stage):
                condition.check_labels(coded, f"Stage({stage.action!r})")
    no_action(trial, coded, frame, outcome, units)
    trial = with_arms(trial, coded, outcome)
    filled: tuple[str, ...] = ()
    if any(stage.outside == "arm" for stage in trial.stages):
        coding = replace(
            coding, levels={**coding.levels, **{s.action: arms_of(s) for s in trial.stages}}
        )
        coded, filled = fill_outside(trial, formulas, coding, coded)
    trial, notes = _with_earlier_terms(trial, formulas, coded)
    if notes:
        formulas = [stage_formula(trial, k) for k in range(len(trial.stages))]
    stages, flow, faults, valued = present(trial, formulas, coded, outcome, units)
    raise_faults(faults, missing, off_protocol)
    for stage in stages:
        check_support(stage)
        if whole:
            check_groups(stage, coded)
    # Of part of the data nothing is said that was said of all of them.
    doubts = follow_up(trial, recorded, companion) if whole else ()
    doubts += unknown_clusters(trial, stages, frame, coding.numbers) if whole else ()
    assumed = tuple(reversed(faults.assumed)) if whole and missing == "exclude" else ()
    notes = filled + notes + assumed + doubts + shared_clusters(trial, stages, coded)
    return TrialData(
        trial, coded, coding, units, outcome, stages, flow, notes, valued, doubts, recorded, companion,
        frame.index,
    )  # fmt: skip


def as_recorded(
    trial: Trial, frame: pd.DataFrame, whole: bool = True
) -> tuple[Trial, pd.DataFrame, list[Formula], Coding, pd.DataFrame]:
    """The coded columns of a data frame as they were recorded, before anybody is left out.

    Parameters
    ----------
    trial, frame, whole
        As in :func:`check`.

    Returns
    -------
    trial
        Actions and categories filled in.
    frame
        The data, the payoff among them.
    formulas
        Of each stage.
    coding, coded
        How columns are coded, and the coded columns.
    """
    frame = with_payoff(trial, as_frame(frame))
    _columns_present(trial, frame)
    trial = _with_actions(trial, frame)
    trial = with_categories(trial, frame)
    frame = without_mark(trial, frame)
    for name, model in (trial.states or {}).items():
        if absent := [c for c in (name, *model.columns) if c not in frame.columns]:
            raise DataError(
                f"states[{name!r}]: names {', '.join(map(repr, absent))}, which the data do not have. "
                f"Columns: {', '.join(map(str, frame.columns))}."
            )
    formulas = [stage_formula(trial, k) for k in range(len(trial.stages))]
    for k, stage in enumerate(trial.stages):
        formulas[k].check_columns(frame.columns, f"Stage({stage.action!r})")
    coding = _coding(trial, formulas, frame)
    _transformed_are_numbers(trial, formulas, coding)
    if whole:
        _labels_vary(trial, formulas, coding)
    coded = coding.code(frame, _used_columns(trial, formulas))
    if trial.site and (coded[trial.site] == NEW_SITE).any():
        raise DataError(
            f"Site column {trial.site!r} holds {NEW_SITE!r}, which is what bdtr calls a site that was not "
            "in the trial; give the site another name."
        )
    return trial, frame, formulas, coding, coded


def check_again(
    trial: Trial,
    frame: pd.DataFrame,
    missing: str = "error",
    off_protocol: str = "error",
    whole: bool = False,
) -> TrialData:
    """As :func:`check`, for data that were checked, or part of them: warnings were given then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DesignWarning)
        return check(trial, frame, missing, off_protocol, whole)


def _columns_present(trial: Trial, frame: pd.DataFrame) -> None:
    absent = [name for name in trial.columns if name not in frame.columns]
    if absent:
        raise DataError(
            f"data: the trial names the columns {', '.join(map(repr, absent))}, which are absent. "
            f"Columns: {', '.join(map(str, frame.columns))}."
        )


def _with_actions(trial: Trial, frame: pd.DataFrame) -> Trial:
    """Fill in actions from categorical columns, for stages that do not list them."""
    stages = []
    for stage in trial.stages:
        if stage.actions is None:
            dtype = frame[stage.action].dtype
            if not isinstance(dtype, pd.CategoricalDtype):
                raise DataError(
                    f"Stage({stage.action!r}): actions is missing and the column is no pandas "
                    "categorical. List the actions in your order, the reference first."
                )
            stage = stage.with_actions(list(dtype.categories))
        stages.append(stage)
    return replace(trial, stages=tuple(stages))


def _with_earlier_terms(
    trial: Trial, formulas: Sequence[Formula], coded: pd.DataFrame
) -> tuple[Trial, tuple[str, ...]]:
    """Leave out terms of earlier stages that would cost a later one units, as they are missing there."""
    stages, notes = [], []
    for k, (stage, formula) in enumerate(zip(trial.stages, formulas, strict=True)):
        if not trial.by_formula(k):
            stages.append(stage)
            continue
        own = set(Formula.parse(stage.formula).columns)
        new = [c for c in formula.model_columns if c not in own]
        acted = coded[stage.action].notna().to_numpy()
        gaps = {c: acted & coded[c].isna().to_numpy() for c in new}
        gaps = {c: gap for c, gap in gaps.items() if gap.any()}
        if gaps and stage.earlier_terms:
            lost = int(any_of(gaps.values(), len(coded)).sum())
            notes.append(
                f"stage {stage.action}: terms of earlier stages are not added, as "
                f"{', '.join(map(repr, gaps))} is missing for {lost:,} of its units. What they tailor by has "
                "no direct effect in this model."
            )
            stage = replace(stage, earlier_terms=False)
        stages.append(stage)
    return replace(trial, stages=tuple(stages)), tuple(notes)


def _counted_once(trial: Trial, coded: pd.DataFrame) -> None:
    """Raise where two of the outcome and the rewards, which add up to the payoff, hold the same numbers."""
    names = [name for name in (trial.outcome, *(s.reward for s in trial.stages)) if name]
    for one, other in combinations(names, 2):
        a, b = coded[one].to_numpy(dtype=float), coded[other].to_numpy(dtype=float)
        if np.array_equal(a, b, equal_nan=True) and len(np.unique(a[~np.isnan(a)])) > 1:
            raise DataError(
                f"Columns {one!r} and {other!r} hold the same numbers, which would count twice in the "
                "payoff. Leave one out."
            )


def _used_columns(trial: Trial, formulas: Sequence[Formula]) -> list[str]:
    names = [trial.site] if trial.site else []
    for stage, formula in zip(trial.stages, formulas, strict=True):
        names += [stage.action, *formula.columns]
        names += [name for name in (stage.reward, stage.weights) if name]
        for condition in conditions(stage):
            names += condition.columns
    names += [name for name in (trial.outcome, trial.companion) if name]
    return list(dict.fromkeys(names))


def _coding(trial: Trial, formulas: Sequence[Formula], frame: pd.DataFrame) -> Coding:
    for condition in (c for s in trial.stages for c in conditions(s)):
        condition.check_columns(frame.columns)
    factors = {c for f in formulas for g in f.groups for c in g.factor}
    factors |= {trial.site} if trial.site else set()
    in_models = {c for f in formulas for c in f.model_columns}
    levels = {s.action: tuple(s.actions or ()) for s in trial.stages}
    if trial.categories and trial.outcome:
        levels[trial.outcome] = tuple(trial.categories)
    amounts = _amounts(trial)
    numbers, labels = [], []
    for name in _used_columns(trial, formulas):
        if name in levels:
            continue
        if name in amounts:
            numbers.append(name)
        elif name in factors and name not in in_models:
            scalars_alone(frame[name], name)
            clear_labels(label_series(frame[name]).dropna().unique(), name, modelled=False)
            labels.append(name)
        elif (found := level_order(frame[name], name, name in in_models - factors)) is None:
            numbers.append(name)
        elif name in in_models:
            levels[name] = found
        else:
            labels.append(name)  # only conditions use it: any label will do
    return Coding(levels, tuple(numbers), tuple(labels))


def _transformed_are_numbers(trial: Trial, formulas: Sequence[Formula], coding: Coding) -> None:
    for stage, formula in zip(trial.stages, formulas, strict=True):
        labels = [c for c in formula.transformed if c not in coding.numbers]
        if labels:
            raise DataError(
                f"Stage({stage.action!r}): the formula puts {labels[0]!r} into a transform, which "
                "takes numbers, and it holds labels. Name it outside, as in x + x:a."
            )


def _labels_vary(trial: Trial, formulas: Sequence[Formula], coding: Coding) -> None:
    actions = {s.action for s in trial.stages}
    for stage, formula in zip(trial.stages, formulas, strict=True):
        for name in formula.model_columns:
            count = len(coding.levels.get(name, "ab"))
            if count < 2 and name not in actions:
                what = "one label for all units" if count else "no value at all"
                raise DataError(
                    f"Stage({stage.action!r}): the formula names {name!r}, which has {what}: nothing can "
                    "be learned about it. Leave it out."
                )


def _units(trial: Trial, frame: pd.DataFrame) -> np.ndarray:
    if trial.unit is None:
        return np.arange(len(frame)).astype(str).astype(object)
    labels = label_series(frame[trial.unit])
    if labels.isna().any():
        raise DataError(f"Unit column {trial.unit!r} is missing in {rows_of(labels.isna())}.")
    no_nul(labels, trial.unit)
    twice = labels.duplicated(keep=False)
    if twice.any():
        raise DataError(
            f"Unit column {trial.unit!r} holds {some(labels[twice].unique())} more than once, in "
            f"{rows_of(twice)}. bdtr takes one row per unit: reshape long data to wide, or correct "
            "the ids."
        )
    return labels.astype(object).to_numpy()


def _computed_with(trial: Trial, formulas: Sequence[Formula]) -> list[str]:
    """Columns of models and of the payoff."""
    return list(dict.fromkeys([*_amounts(trial), *(c for f in formulas for c in f.model_columns)]))


def _amounts(trial: Trial) -> list[str]:
    """Columns that are numbers by their role: the outcome, rewards, weights."""
    outcome = None if trial.family == "ordinal" else trial.outcome
    names = [outcome, trial.companion]
    names += [n for s in trial.stages for n in (s.reward, s.weights)]
    return [n for n in names if n]
