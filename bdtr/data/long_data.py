"""Long data, one row for each time of a unit, as one row for each unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bdtr.data.contents import DataError, some
from bdtr.data.frames import as_frame
from bdtr.results.labels import label_text

__all__ = ["widen"]

_MOST = 2_000  # columns


def widen(frame: Any, unit: str, time: str, values: Sequence[str] | None = None) -> pd.DataFrame:
    """One row per unit of data that have one row for each time of a unit.

    Parameters
    ----------
    frame
        Long data: a data frame of pandas, or one of Polars or Arrow.
    unit
        Column with the unit's name.
    time
        Column with the time of a row: numbers or labels.
    values
        Columns that differ from time to time. Left out: those that do so for some unit.

    Returns
    -------
    pandas.DataFrame
        Units in the order in which they first appear; columns that are the same at all times of a unit as
        they are, then ``value_time`` for each value and time, times in order, missing where a unit has no
        such row.

    Raises
    ------
    DataError
        If a column is absent, a unit or time is missing, a unit has two rows of one time, or a column that is
        not among ``values`` differs within a unit.

    Examples
    --------
    >>> import pandas as pd
    >>> long = pd.DataFrame({"id": ["a", "a", "b"], "month": [1, 2, 1], "y": [3.0, 4.0, 5.0], "x": [0, 0, 1]})
    >>> widen(long, unit="id", time="month")
      id  x  y_1  y_2
    0  a  0  3.0  4.0
    1  b  1  5.0  NaN
    """
    data = as_frame(frame, "frame").reset_index(drop=True)
    if isinstance(values, str):
        raise DataError(f"values={values!r}: give a list of columns, [{values!r}].")
    wanted = [unit, time, *(values or [])]
    absent = [name for name in wanted if name not in data.columns]
    if absent:
        raise DataError(
            f"frame: has no column {absent[0]!r}. Columns: {', '.join(map(str, data.columns))}."
        )
    if len(set(wanted)) < len(wanted):
        raise DataError("widen: unit, time and values must be different columns.")
    for name in (unit, time):
        if data[name].isna().any():
            raise DataError(
                f"Column {name!r} is missing in {int(data[name].isna().sum()):,} rows. Correct these, or "
                "take them out."
            )
    twice = data.duplicated([unit, time])
    if twice.any():
        raise DataError(
            f"{int(twice.sum()):,} rows repeat a unit and time ({some(data[unit][twice])}). Keep one row for "
            "each, or name times more finely."
        )
    grouped = data.groupby(unit, sort=False, observed=True)
    others = [c for c in data.columns if c not in (unit, time)]
    varying = [c for c in others if (grouped[c].nunique(dropna=False) > 1).any()]
    if values is not None:
        loose = [c for c in varying if c not in values]
        if loose:
            raise DataError(
                f"Columns {', '.join(map(repr, loose))} differ between the rows of a unit. Name them in "
                "values, or take them out."
            )
        varying = list(values)
    times = _in_order(data[time])
    if len(times) * len(varying) > _MOST:
        raise DataError(
            f"widen: {len(varying)} values at {len(times):,} times make more than {_MOST:,} columns. Round "
            "the times, or choose some values."
        )
    fixed = [c for c in others if c not in varying]
    out = grouped[[unit, *fixed]].head(1).set_index(unit, drop=False)
    made: dict[str, pd.Series] = {}
    for name in varying:
        for at in times:
            own = data[data[time] == at].set_index(unit)[name]
            column = f"{name}_{label_text(at)}"
            if column in out.columns or column in made:
                raise DataError(
                    f"widen: there would be two columns {column!r}. Rename one in the data."
                )
            made[column] = own.reindex(out.index)
    wide = pd.concat([out, pd.DataFrame(made, index=out.index)], axis=1)
    return wide.reset_index(drop=True)


def _in_order(column: pd.Series) -> list[Any]:
    """Times in their order: of an ordered categorical its own, of labels as they first appear."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        present = set(column)
        return [c for c in column.cat.categories if c in present]
    found = column.unique()
    return (
        sorted(found) if pd.api.types.is_numeric_dtype(column) else list(np.asarray(found, object))
    )
