"""Gaps of a data frame filled: at the start with recorded values, at the end with drawn ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from bdtr.data.check import as_recorded
from bdtr.data.coding import label_series, with_columns
from bdtr.data.history import conditions
from bdtr.data.imputation.values import Values
from bdtr.data.imputation.variables import Variable
from bdtr.data.no_decision import has_decision
from bdtr.data.trialdata import TrialData
from bdtr.trial.trial import Trial

__all__ = ["begun", "filled", "started", "with_meaning"]


def started(
    trial: Trial,
    frame: pd.DataFrame,
    coded: pd.DataFrame,
    found: Sequence[Variable],
    rng: np.random.Generator,
) -> pd.DataFrame:
    """The data with a recorded value, at random, in each gap - but where it would say whether somebody whose
    action is known had a decision."""
    out = frame.copy()
    for one in found:
        gap = one.missing.copy()
        for stage in trial.stages:
            if any(one.name in condition.columns for condition in conditions(stage)):
                gap &= ~coded[stage.action].notna().to_numpy()
        if not gap.any():
            continue
        known = np.flatnonzero(one.needed & ~one.missing)
        column = out[one.name].astype(object)
        taken = rng.choice(known, int(gap.sum()))
        column.iloc[np.flatnonzero(gap)] = frame[one.name].iloc[taken].to_numpy(dtype=object)
        out[one.name] = _like(column, frame[one.name])
    return out


def begun(
    data: TrialData, coded: pd.DataFrame, found: Sequence[Variable], rng: np.random.Generator
) -> TrialData:
    """The data with columns after the last decision, and a recorded value, at random, in each gap of these
    and of the outcome."""
    changed = {}
    for one in found:
        if one.stage < len(data.stages):
            continue
        column = coded[one.name].copy()
        known, gap = np.flatnonzero(one.needed & ~one.missing), np.flatnonzero(one.missing)
        column.iloc[gap] = column.iloc[rng.choice(known, len(gap))].to_numpy()
        changed[one.name] = column
    return replace(data, frame=with_columns(data.frame, changed)) if changed else data


def filled(
    frame: pd.DataFrame,
    found: Sequence[Variable],
    values: Values,
    shifts: Mapping[str, np.ndarray],
    d: int,
) -> pd.DataFrame:
    """The user's frame with the values of one data set in its gaps, shifted where that is asked for."""
    out = frame.copy()
    for one in found:
        units = np.flatnonzero(one.missing)
        drawn = values.held[one.name][d, units]
        column = out[one.name].astype(object)
        if one.name in values.labels:
            names = label_series(frame[one.name])
            known = dict(zip(names.dropna(), frame[one.name].dropna(), strict=True))
            column.iloc[units] = [known[values.labels[one.name][int(c)]] for c in drawn]
        else:
            column.iloc[units] = drawn + (shifts[one.name][units] if one.name in shifts else 0.0)
        out[one.name] = _like(column, frame[one.name])
    return out


def with_meaning(trial: Trial, frame: pd.DataFrame, found: Sequence[Variable]) -> pd.DataFrame:
    """The data without values that were filled in for those who, by other such values, have no decision,
    where a variable is measured among those alone who have one."""
    some = [one for one in found if one.not_outside]
    if not some:
        return frame
    coded, out = as_recorded(trial, frame)[-1], frame.copy()
    for one in some:
        for k in one.not_outside:
            outside = has_decision(trial.stages[k], coded) == 0
            out[one.name] = out[one.name].mask(outside & one.missing)
    return out


def _like(column: pd.Series, model: pd.Series) -> pd.Series:
    """A column of the kind that another one is; of whole numbers and truth values numbers."""
    if isinstance(model.dtype, pd.CategoricalDtype):
        return column.astype(model.dtype)
    if pd.api.types.is_numeric_dtype(model):
        return pd.to_numeric(column).astype(float)
    return column.astype(model.dtype) if column.dtype == object else column
