"""The outcome as its family takes it: valid values, trials and exposure, categories, observed payoffs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from bdtr.data.coding import label_series
from bdtr.data.contents import DataError, is_number, rows_of, some
from bdtr.results.labels import label_text
from bdtr.trial.families import FAMILIES
from bdtr.trial.trial import Trial

__all__ = ["outcomes", "with_categories"]

_MOST_CATEGORIES = 30


def with_categories(trial: Trial, frame: pd.DataFrame) -> Trial:
    """The trial with the categories of an ordinal outcome filled in: numbers, worth what they are."""
    if trial.family != "ordinal" or trial.utility is not None or trial.outcome is None:
        return trial
    column = frame[trial.outcome]
    if isinstance(column.dtype, pd.CategoricalDtype) or not is_number(column):
        found = list(dict.fromkeys(label_series(column).dropna()))
        raise DataError(
            f"Outcome {trial.outcome!r} holds labels: say what each category is worth, from the lowest to "
            f"the highest, as in Trial(utility={{{found[0]!r}: 0, ..}})."
            if found
            else f"Outcome {trial.outcome!r} has no values."
        )
    values = np.unique(pd.to_numeric(column).dropna().to_numpy(dtype=float))
    if len(values) > _MOST_CATEGORIES:
        raise DataError(
            f"Outcome {trial.outcome!r} has {len(values)} distinct values; the ordinal family takes up to "
            f"{_MOST_CATEGORIES} categories. Merge categories, or use another family."
        )
    if len(values) < 2:
        raise DataError(f"Outcome {trial.outcome!r} does not vary: nothing can be learned from it.")
    return replace(trial, utility={label_text(v): float(v) for v in values})


def outcomes(
    trial: Trial, coded: pd.DataFrame
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray]:
    """Outcome and companion of each unit as the family takes them, and the observed payoff.

    Parameters
    ----------
    trial
        The trial, its categories filled in.
    coded
        Coded columns.

    Returns
    -------
    recorded, companion : numpy.ndarray or None
        None for a Gaussian outcome.
    payoff : numpy.ndarray
        NaN where it is missing.

    Raises
    ------
    DataError
        If an outcome cannot occur in the family, or a companion is missing or out of range.
    """
    if trial.outcome is None:
        return None, None, np.zeros(len(coded))
    family, column = FAMILIES[trial.family], coded[trial.outcome]
    y = (
        (np.where(column.isna(), np.nan, column.cat.codes))
        if trial.utility
        else column.to_numpy(float)
    )
    m = _companion(trial, coded, ~np.isnan(y))
    with np.errstate(invalid="ignore"):
        invalid = ~np.isnan(y) & ~family.valid(y, m)
    if invalid.any():
        shown = f"{some(y[invalid])} in {rows_of(invalid)}"
        if family.companion == "trials" and (y > m).any():
            worst = int(np.flatnonzero(invalid)[0])
            shown += f" ({y[worst]:g} of {m[worst]:g} in the first)"
        raise DataError(
            f"Outcome {trial.outcome!r} holds {shown}; the {family.name} family takes {family.outcomes}."
        )
    if family.closed_form:
        return None, None, y
    if trial.utility:
        scores = np.array(list(trial.utility.values()))
        return y, m, np.where(np.isnan(y), np.nan, scores[np.nan_to_num(y).astype(int)])
    return y, m, y / m


def _companion(trial: Trial, coded: pd.DataFrame, known: np.ndarray) -> np.ndarray:
    """Trials or exposure of each unit, 1 where the family has none."""
    name = trial.companion
    if name is None:
        return np.ones(len(coded))
    m = coded[name].to_numpy(dtype=float)
    missing = known & np.isnan(m)
    if missing.any():
        raise DataError(
            f"Column {name!r} is missing in {rows_of(missing)}, where the outcome {trial.outcome!r} is known."
        )
    wrong = known & ~(m > 0)
    what = "exposures are above 0"
    if trial.trials:
        wrong |= known & ((m < 1) | (np.floor(m) != m))
        what = "numbers of trials are whole numbers from 1 on"
    if wrong.any():
        raise DataError(f"Column {name!r} holds {some(m[wrong])} in {rows_of(wrong)}; {what}.")
    return np.where(np.isnan(m), 1.0, m)
