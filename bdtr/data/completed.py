"""Completed data sets held against each other and against the data as they were recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from bdtr.data.check import check, check_again
from bdtr.data.coding import label_series
from bdtr.data.contents import DataError, is_number, rows_of
from bdtr.data.frames import as_frame
from bdtr.data.outcomes import with_payoff
from bdtr.data.trialdata import StageData, TrialData
from bdtr.trial.trial import Trial

__all__ = ["Completed", "completed", "recorded", "with_rewards"]


@dataclass(frozen=True)
class Completed:
    """Data sets in which missing values are filled in.

    Parameters
    ----------
    parts
        Each of them, checked.
    whole
        What was recorded, with who takes part where once values are filled in. Who is in another position
        from one data set to the next (by an imputed value, has a decision or not) has none here.
    """

    parts: tuple[TrialData, ...]
    whole: TrialData


def with_rewards(data: TrialData, more: np.ndarray) -> TrialData:
    """The data with something added to the rewards (stage, unit)."""
    stages = tuple(
        replace(stage, reward=stage.reward + own)
        for stage, own in zip(data.stages, more, strict=True)
    )
    return replace(data, stages=stages)


def completed(
    trial: Trial, data: pd.DataFrame, frames: Sequence[pd.DataFrame], off_protocol: str = "error"
) -> Completed:
    """Hold completed data sets against a trial and against the data.

    Parameters
    ----------
    trial
        The trial.
    data
        One row per unit, values missing.
    frames
        The same rows and columns, missing values filled in; what is still missing is excluded and counted.
    off_protocol
        As in :func:`bdtr.data.check.check`.

    Returns
    -------
    Completed

    Raises
    ------
    DataError
        If a data set has other rows or columns, differs where a value was recorded, lacks a label that others
        have, or has other units in the fit of a stage than the first.
    """
    base = as_frame(data)
    each = [as_frame(frame, f"missing[{d}]") for d, frame in enumerate(frames)]
    for d, frame in enumerate(each):
        _same_rows(base, frame, f"missing[{d}]", trial)
    checked = [check(trial, each[0], "exclude", off_protocol)]
    checked += [
        check_again(trial, frame, "exclude", off_protocol, whole=True) for frame in each[1:]
    ]
    used = [c for c in checked[0].frame.columns if c in with_payoff(trial, base).columns]
    gaps = _gaps(trial, base, each, used)
    for d, one in enumerate(checked[1:], start=1):
        _alike(checked[0], one, d)
    return Completed(tuple(checked), recorded(checked, gaps))


def _same_rows(base: pd.DataFrame, frame: pd.DataFrame, name: str, trial: Trial) -> None:
    if len(frame) != len(base):
        raise DataError(
            f"{name}: has {len(frame):,} rows, and data has {len(base):,}. Give the same rows in the same "
            "order, missing values filled in."
        )
    absent = [c for c in base.columns if c not in frame.columns and c in trial.columns]
    if absent:
        raise DataError(f"{name}: lacks the columns {', '.join(map(repr, absent))}.")


def _gaps(
    trial: Trial, base: pd.DataFrame, frames: Sequence[pd.DataFrame], used: Sequence[str]
) -> pd.DataFrame:
    """Where values were filled in; an error where a recorded one is another."""
    base, out = with_payoff(trial, base), {}
    frames = [with_payoff(trial, frame) for frame in frames]  # once, not for each column
    for name in used:
        known = base[name].notna().to_numpy()
        out[name] = ~known & frames[0][name].notna().to_numpy()
        for d, frame in enumerate(frames):
            wrong = known & ~_equal(base[name], frame[name])
            if wrong.any():
                raise DataError(
                    f"missing[{d}]: column {name!r} differs from data in {rows_of(wrong)}, where a value was "
                    "recorded. Give the same rows in the same order; only missing values may be filled in."
                )
    return pd.DataFrame(out, index=pd.RangeIndex(len(base)))


def _equal(one: pd.Series, other: pd.Series) -> np.ndarray:
    if is_number(one) and is_number(other):
        a, b = (pd.to_numeric(x).to_numpy(float, na_value=np.nan) for x in (one, other))
        return np.isclose(a, b, rtol=1e-9, atol=0)
    return (label_series(one) == label_series(other)).fillna(False).to_numpy(dtype=bool)


def _alike(first: TrialData, other: TrialData, d: int) -> None:
    for name, levels in first.coding.levels.items():
        found = other.coding.levels.get(name)
        if found != levels:
            raise DataError(
                f"missing[{d}]: column {name!r} has the labels {found}, and the first data set {levels}. "
                "Every completed data set must have them all: merge rare labels, or make it categorical."
            )
    for one, stage in zip(first.stages, other.stages, strict=True):
        differs = one.fitted != stage.fitted
        if differs.any():
            raise DataError(
                f"missing[{d}]: {int(differs.sum()):,} units are in the fit of stage {one.stage.action} in "
                f"one completed data set and not in another ({rows_of(differs)}): what was filled in says "
                "whether they had a decision, or whether their action was feasible. Both are known where the "
                "action is: fill them in by hand."
            )


def recorded(parts: Sequence[TrialData], gaps: pd.DataFrame) -> TrialData:
    """The data as they were recorded, from completed data sets and where values were filled in."""
    first = parts[0]
    frame = first.frame.copy()
    for name in gaps.columns:
        if gaps[name].any():
            frame[name] = frame[name].mask(gaps[name].to_numpy())
    stages = tuple(
        _position(stage, [one.stages[k] for one in parts]) for k, stage in enumerate(first.stages)
    )
    outcome = np.mean([one.outcome for one in parts], axis=0)
    valued = np.logical_and.reduce([one.valued for one in parts])
    return replace(
        first,
        frame=frame,
        stages=stages,
        outcome=outcome,
        valued=valued,
        flow=_counted(first, gaps),
    )


def _position(first: StageData, each: Sequence[StageData]) -> StageData:
    """A stage as it is in all data sets; who is not the same in all has no history here."""
    unsure = np.zeros(len(first.action), dtype=bool)
    for one in each:
        unsure |= (one.among != first.among) | (one.feasible != first.feasible).any(axis=1)
        unsure |= one.history != first.history
    return replace(first, among=first.among & ~unsure, history=first.history & ~unsure)


def _counted(first: TrialData, gaps: pd.DataFrame) -> pd.DataFrame:
    """The flow of units with the values that were imputed among those in the fit of each stage."""
    tables = []
    for stage in first.stages:
        own = first.flow[first.flow["stage"] == stage.stage.action]
        last = [first.trial.outcome] if stage is first.stages[-1] else []
        columns = dict.fromkeys((*stage.formula.columns, *last))
        counts = [
            (
                stage.stage.action,
                f"of these {c} imputed",
                int((gaps[c] & stage.fitted).sum()),
                "imputed",
            )
            for c in columns
            if c in gaps and (gaps[c] & stage.fitted).any()
        ]
        tables += [own, pd.DataFrame(counts, columns=first.flow.columns)]
    return pd.concat([t for t in tables if len(t)], ignore_index=True)
