"""The outcome as its family takes it: valid values, trials and exposure, categories, observed payoffs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from bdtr.data.coding import label_series, with_columns
from bdtr.data.contents import DataError, is_number, rows_of, some
from bdtr.results.labels import label_text
from bdtr.trial.amount import Amount, AmountError
from bdtr.trial.families import FAMILIES
from bdtr.trial.trial import Trial
from bdtr.trial.worth import Utility

__all__ = [
    "follow_up",
    "outcomes",
    "pseudo_observations",
    "risk_sets",
    "with_categories",
    "with_payoff",
]

_MOST_CATEGORIES = 30
_CENSORED = 0.05  # share of censored times from which on a mean without a horizon is doubted
_CELLS = 2_000_000  # numbers in memory at once


def with_payoff(trial: Trial, frame: pd.DataFrame) -> pd.DataFrame:
    """The data with the payoff as a column, where it is said as arithmetic of columns."""
    if trial.outcome is None or trial.outcome in frame.columns:
        return frame
    try:
        amount = Amount(trial.outcome)
    except AmountError as error:
        if any(mark in trial.outcome for mark in "+*/("):
            raise DataError(f"Outcome {error}") from None
        return frame  # the name of a column that is absent
    if amount.columns == (trial.outcome,):
        return frame
    try:
        return with_columns(frame, {trial.outcome: amount.evaluate(frame)})
    except AmountError as error:
        raise DataError(f"Outcome {error}") from None


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
        NaN where it is missing; of times that are censored, pseudo-observations.

    Raises
    ------
    DataError
        If an outcome cannot occur in the family, or a companion is missing or out of range.
    """
    if trial.outcome is None:
        return None, None, np.zeros(len(coded))
    payoff, column = trial.payoff, coded[trial.outcome]
    family = payoff.family
    y = (
        (np.where(column.isna(), np.nan, column.cat.codes))
        if trial.categories
        else column.to_numpy(float)
    )
    m = _companion(trial, coded, y)
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
    if payoff.worth is not None:
        return y, m, _worths(trial, payoff.worth, y, m if trial.event else None)
    if trial.categories:
        scores = np.array(list(trial.categories.values()))
        return y, m, np.where(np.isnan(y), np.nan, scores[np.nan_to_num(y).astype(int)])
    if family.companion == "event":
        return y, m, _payoffs_of_times(trial, y, m)
    return y, m, y if family.name == "censored" else y / m


def _worths(trial: Trial, worth: Utility, y: np.ndarray, event: np.ndarray | None) -> np.ndarray:
    """The payoff of each outcome, where it is a function of it; pseudo-observations where a time is
    censored."""
    known = ~np.isnan(y)
    out = np.full(len(y), np.nan)
    found = np.asarray(worth(y[known]), dtype=float)
    if found.shape != y[known].shape:
        raise DataError(
            f"utility: took {known.sum()} outcomes and gave an array of shape {found.shape}; it has to give "
            "a number for each."
        )
    if not np.isfinite(found).all():
        bad = np.flatnonzero(known)[~np.isfinite(found)]
        raise DataError(
            f"utility: is no finite number for {trial.outcome} = {some(y[bad])}. Change it there, or the "
            "data."
        )
    if event is not None:
        found = pseudo_observations(y[known], event[known] == 1, worth=worth)
    out[known] = found
    return out


def _companion(trial: Trial, coded: pd.DataFrame, y: np.ndarray) -> np.ndarray:
    """Trials, exposure or event of each unit; which end of the scale a score is at; else 1."""
    known = ~np.isnan(y)
    if trial.family == "censored":
        return _ends(trial, y)
    name = trial.companion
    if name is None:
        return np.ones(len(coded))
    m = coded[name].to_numpy(dtype=float, na_value=np.nan)
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
    if trial.event:
        wrong = known & (m != 0) & (m != 1)
        what = "an event is 1 where the time ended in it, and 0 where it was longer"
    if wrong.any():
        raise DataError(f"Column {name!r} holds {some(m[wrong])} in {rows_of(wrong)}; {what}.")
    if trial.event and not (m[known] == 1).any():
        raise DataError(f"Column {name!r} has no event: nothing can be learned about times.")
    return np.where(np.isnan(m), 1.0, m)


def _ends(trial: Trial, y: np.ndarray) -> np.ndarray:
    """1 for scores at the ceiling, -1 for those at the floor, else 0."""
    low = -np.inf if trial.floor is None else trial.floor
    high = np.inf if trial.ceiling is None else trial.ceiling
    outside = (y < low) | (y > high)
    if outside.any():
        raise DataError(
            f"Outcome {trial.outcome!r} holds {some(y[outside])} in {rows_of(outside)}, outside floor and "
            f"ceiling ({low:g} to {high:g}). Correct these, or say what the lowest and highest scores are."
        )
    ends = (y >= high) * 1.0 - (y <= low)
    if (ends[~np.isnan(y)] != 0).all():
        raise DataError(f"Outcome {trial.outcome!r} has no score between floor and ceiling.")
    return ends


def _payoffs_of_times(trial: Trial, y: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Times, times until the horizon, or whether there was no event by a time; of those that are known by
    halves, pseudo-observations."""
    known = ~np.isnan(y)
    until = trial.horizon if trial.survival_at is None else trial.survival_at
    until = np.inf if until is None else until
    out = np.full(len(y), np.nan)
    out[known] = pseudo_observations(
        y[known], event[known] == 1, until, trial.survival_at is not None
    )
    return out


def follow_up(trial: Trial, time: np.ndarray | None, event: np.ndarray | None) -> tuple[str, ...]:
    """What mean times rest on where nobody was followed so far.

    Parameters
    ----------
    trial
        The trial.
    time, event
        Outcome and companion of each unit, from :func:`outcomes`.

    Returns
    -------
    tuple of str
        A reason to doubt the model, or none.
    """
    if FAMILIES[trial.family].companion != "event" or time is None or event is None:
        return ()
    known = ~np.isnan(time)
    longest = float(time[known].max(initial=0.0))
    name, until = "horizon", trial.horizon
    if trial.survival_at is not None:
        name, until = "survival_at", trial.survival_at
    if until is not None and until > longest:
        return (
            f"{name}={until:g} lies beyond the longest time in the data ({longest:g}): what comes in between "
            f"is known by the {trial.family} distribution alone. Choose a time within the follow-up.",
        )
    censored = float((event[known] == 0).mean())
    worth = trial.payoff.worth
    if worth is not None and _level_beyond(worth, longest):
        return ()
    if until is None and censored > _CENSORED:
        return (
            f"{100 * censored:.0f} % of the times are censored, so that mean times rest on the tail of the "
            f"{trial.family} distribution. Say horizon=.., a time within the follow-up.",
        )
    return ()


def _level_beyond(worth: Utility, longest: float) -> bool:
    """Whether a payoff is the same for all times beyond the follow-up."""
    values = np.asarray(worth(longest * np.array([1.0, 1.5, 3.0, 10.0, 100.0])), dtype=float)
    return bool((values == values[0]).all())


def risk_sets(time: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct times, events at each, and how many units were at risk."""
    points, place = np.unique(time, return_inverse=True)
    gone = np.cumsum(np.bincount(place)) - np.bincount(place)
    return points, np.bincount(place, event).astype(float), (len(time) - gone).astype(float)


def pseudo_observations(
    time: np.ndarray,
    event: np.ndarray,
    until: float = np.inf,
    survival: bool = False,
    worth: Utility | None = None,
) -> np.ndarray:
    """What each unit adds to the estimate of a mean time or of a probability of no event.

    n theta - (n - 1) theta_(-i) for the restricted mean, or the survival function, by Kaplan and Meier's
    estimate with and without unit i (Andersen, Klein and Rosthoj 2003, Biometrika 90(1)): the time until
    ``until`` itself, or whether there was no event by then, where nobody is censored before. For figures
    beside the model; the model takes times as they were recorded.

    Parameters
    ----------
    time, event
        Times above 0, and which of them ended in the event.
    until
        Horizon; at most the longest time is used.
    survival
        Whether the probability of no event by ``until`` is asked for.
    worth
        Function of the time whose mean is asked for in place of the time's.
    """
    end = min(until, float(time.max()))
    value = worth or np.asarray
    # Censored at the very end, as at the close of a trial, is no event by then.
    seen = (
        ((time > end) | ((time == end) & ~event)) * 1.0
        if survival
        else np.asarray(value(np.minimum(time, end)), float)
    )
    if (event | (time >= end)).all():
        return seen
    n, (points, deaths, at_risk) = len(time), risk_sets(time, event)
    place = np.searchsorted(points, time)
    widths = np.diff(np.concatenate([[0.0], value(np.minimum(points, end))]))
    inside = points <= end

    def estimate(d: np.ndarray, r: np.ndarray) -> np.ndarray:
        """Of death and risk sets (.., point)."""
        steps = np.where(inside & (r > 0), 1.0 - d / np.maximum(r, 1.0), 1.0)
        curve = np.cumprod(steps, axis=-1)
        if survival:
            return curve[..., -1]
        before = np.concatenate([np.ones_like(curve[..., :1]), curve[..., :-1]], axis=-1)
        return (before * widths).sum(axis=-1)

    theta = estimate(deaths, at_risk)
    out, size = np.empty(n), max(1, _CELLS // len(points))
    for first in range(0, n, size):
        units = slice(first, min(first + size, n))
        own = place[units][:, None]
        at = np.arange(len(points))[None]
        d = deaths - ((at == own) & event[units, None])
        without = estimate(d, at_risk - (at <= own) * 1.0)
        out[units] = n * theta - (n - 1) * without
    return out
