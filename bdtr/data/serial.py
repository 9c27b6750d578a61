"""What repeated measures of a unit come to: their mean, slope, last value, area.

A few numbers that answer the question stand for the series (Matthews, Altman, Campbell and Royston 1990, BMJ
300): before a decision they are history, after the last one they are the payoff.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bdtr.data.contents import DataError, is_number
from bdtr.data.frames import as_frame
from bdtr.results.arguments import is_real, is_whole, name_list, text

__all__ = ["serial_measures"]

_OF = ("mean", "slope", "last", "area")
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)$")


def serial_measures(
    frame: Any,
    columns: Sequence[str],
    name: str,
    of: Sequence[str] = _OF,
    times: Sequence[float] | None = None,
    least: int | None = None,
) -> pd.DataFrame:
    r"""Mean, slope, last value and area of some columns of each unit.

    With the recorded values y_t of a unit at times t: the mean of y_t; the least-squares slope
    sum (t - tbar)(y_t - ybar) / sum (t - tbar)^2; the last of them; and the area under straight lines between
    them, sum (y_t + y_t') (t' - t) / 2.

    Parameters
    ----------
    frame
        One row per unit, as :func:`widen` makes it: a data frame of pandas, or one of Polars or Arrow.
    columns
        Columns of one measure, in the order of time.
    name
        What the names of the new columns begin with.
    of
        Which of ``"mean"``, ``"slope"``, ``"last"`` and ``"area"``.
    times
        Times of the columns, rising; left out: the numbers that their names end in.
    least
        Recorded values that a unit needs, others have no measure; left out: all. A slope needs two, an area
        the first and the last.

    Returns
    -------
    pandas.DataFrame
        Columns ``name_mean``, .. with the index of the frame; missing where a unit has too few values.

    Raises
    ------
    DataError
        If a column is absent or holds no numbers, or times are not known or do not rise.

    Examples
    --------
    >>> import pandas as pd
    >>> ratings = pd.DataFrame({"r_1": [1.0, 4.0], "r_2": [2.0, None], "r_3": [6.0, 2.0]})
    >>> serial_measures(ratings, ["r_1", "r_2", "r_3"], "r", least=2)
       r_mean  r_slope  r_last  r_area
    0     3.0      2.5     6.0     5.5
    1     3.0     -1.0     2.0     6.0
    """
    data, asked = as_frame(frame, "frame"), name_list("of", of)
    columns = name_list("columns", columns)
    text("name", name)
    unknown = [one for one in asked if one not in _OF]
    if unknown or not asked:
        raise DataError(f"of={of!r}: name one or more of {', '.join(map(repr, _OF))}.")
    absent = [c for c in columns if c not in data.columns]
    if absent or not columns:
        what = f"frame has no column {absent[0]!r}" if absent else "name one column or more"
        raise DataError(f"columns: {what}. Columns: {', '.join(map(str, data.columns))}.")
    labels = [c for c in columns if not is_number(data[c])]
    if labels:
        raise DataError(f"columns: {labels[0]!r} holds no numbers.")
    if least is not None and (not is_whole(least) or not 1 <= least <= len(columns)):
        raise DataError(f"least={least!r}: must be a whole number from 1 to {len(columns)}.")
    at = _times(columns, times)
    y = np.column_stack([pd.to_numeric(data[c]).to_numpy(float, na_value=np.nan) for c in columns])
    enough = np.isfinite(y).sum(axis=1) >= (len(columns) if least is None else least)
    made = {"mean": _mean, "slope": _slope, "last": _last, "area": _area}
    found = {f"{name}_{one}": np.where(enough, made[one](y, at), np.nan) for one in asked}
    taken = [c for c in found if c in data.columns]
    if taken:
        raise DataError(f"name={name!r}: there is a column {taken[0]!r} already.")
    return pd.DataFrame(found, index=data.index)


def _times(columns: Sequence[str], given: Sequence[float] | None) -> np.ndarray:
    if given is None:
        hits = [_NUMBER.search(c) for c in columns]
        if not all(hits):
            raise DataError(
                f"times: the names {', '.join(map(repr, columns))} do not all end in a number. Give the "
                "times."
            )
        at = np.array([float(hit.group(1)) for hit in hits if hit])
    else:
        fits = isinstance(given, (list, tuple, np.ndarray)) and len(given) == len(columns)
        if not fits or not all(map(is_real, given)):
            raise DataError(
                f"times={given!r}: give a number for each of the {len(columns)} columns."
            )
        at = np.array(given, dtype=float)
    if len(at) > 1 and not (np.isfinite(at).all() and (np.diff(at) > 0).all()):
        raise DataError(f"times: must rise from column to column, got {at.tolist()}.")
    return at


def _mean(y: np.ndarray, at: np.ndarray) -> np.ndarray:
    known = np.isfinite(y)
    return np.where(known, y, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def _slope(y: np.ndarray, at: np.ndarray) -> np.ndarray:
    known = np.isfinite(y)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    away = np.where(known, at - (known * at).sum(axis=1, keepdims=True) / count, 0.0)
    square, product = np.square(away).sum(axis=1), (away * np.nan_to_num(y)).sum(axis=1)
    return product / np.where(square > 0, square, np.nan)


def _last(y: np.ndarray, at: np.ndarray) -> np.ndarray:
    last = y.shape[1] - 1 - np.isfinite(y)[:, ::-1].argmax(axis=1)
    return y[np.arange(len(y)), last]


def _area(y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Of lines between recorded values; none where the first or the last is not recorded."""
    filled = (
        pd.DataFrame(y.T, index=at).interpolate(method="index", limit_area="inside").to_numpy().T
    )
    return ((filled[:, 1:] + filled[:, :-1]) / 2 * np.diff(at)).sum(axis=1)
