"""How the columns of a data frame are coded: labels in their order, numbers, and what is neither."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bdtr.errors import BdtrError
from bdtr.labels import label_text

__all__ = ["Coding", "DataError", "label_series", "level_order", "number_series", "rows_of", "some"]

_SHOW = 5  # rows or labels named in a message


class DataError(BdtrError, ValueError):
    """Data that do not fit the trial."""


@dataclass(frozen=True)
class Coding:
    """How columns are coded: the labels of text and categories in their order; the rest are numbers.

    The same coding serves the fit, counterfactual actions and new data, so an unseen label is an
    error and never the reference. ``labels`` are the columns kept as text: grouping factors, and
    text that only conditions use.
    """

    levels: Mapping[str, tuple[str, ...]]
    numbers: tuple[str, ...]
    labels: tuple[str, ...]

    def code(self, frame: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
        """Columns of a frame as categories with known labels, numbers, and factor labels as text.

        Parameters
        ----------
        frame
            Data with the columns.
        columns
            The columns to code.

        Returns
        -------
        pandas.DataFrame
            Coded columns, missing values kept as missing.

        Raises
        ------
        DataError
            If a label is unknown or a number is infinite or text.
        """
        coded = {}
        for name in columns:
            if name in self.levels:
                coded[name] = _categories(frame[name], self.levels[name], name)
            elif name in self.labels:
                coded[name] = label_series(frame[name])
            else:
                coded[name] = number_series(frame[name], name)
        return pd.DataFrame(coded, index=pd.RangeIndex(len(frame)))


def level_order(column: pd.Series, name: str) -> tuple[str, ...] | None:
    """Labels of a text or categorical column in order, or None for numbers."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        present = set(column.dropna().unique())
        return tuple(label_text(c) for c in column.cat.categories if c in present)
    if pd.api.types.is_numeric_dtype(column.dtype) or _holds_numbers(column):
        return None
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        raise DataError(f"Column {name!r} holds dates: turn them into numbers, such as days.")
    return tuple(sorted({label_text(v) for v in column.dropna()}))


def _categories(column: pd.Series, levels: tuple[str, ...], name: str) -> pd.Series:
    labels = label_series(column)
    unknown = labels.notna() & ~labels.isin(levels)
    if unknown.any():
        raise DataError(
            f"Column {name!r} holds {some(labels[unknown].unique())}, in {rows_of(unknown)}; known "
            f"are {', '.join(map(repr, levels))}. Correct the label, or add it where the trial or "
            "the fit lists them."
        )
    return pd.Series(pd.Categorical(labels, categories=list(levels)))


def _holds_numbers(column: pd.Series) -> bool:
    """Whether a column of type object, as mixed assignment leaves it, holds numbers alone."""
    if column.dtype != object:
        return False
    values = column.dropna()
    return len(values) > 0 and all(
        isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in values
    )


def label_series(column: pd.Series) -> pd.Series:
    """Labels as text, missing values kept."""
    if column.dtype == "str":
        return column.reset_index(drop=True)
    values = column.astype(object).to_numpy()
    labels = [None if pd.isna(v) else label_text(v) for v in values]
    return pd.Series(labels, dtype="str")


def number_series(column: pd.Series, name: str) -> pd.Series:
    """Numbers as floats, missing values kept; text and infinite values are errors."""
    if _holds_numbers(column):
        column = pd.to_numeric(column)
    if not pd.api.types.is_numeric_dtype(column.dtype):
        raise DataError(
            f"Column {name!r} must hold numbers, but its type is {column.dtype}. Convert it first, "
            "for example with pandas.to_numeric."
        )
    values = column.to_numpy(dtype=float, na_value=np.nan)
    infinite = np.isinf(values)
    if infinite.any():
        raise DataError(
            f"Column {name!r} is infinite in {rows_of(infinite)}. Correct the value, or set it to "
            "missing."
        )
    return pd.Series(values)


def some(values) -> str:
    """The first few of some values, and how many more there are."""
    values = [f"{v!r}" if isinstance(v, str) else f"{v}" for v in list(values)]
    more = f" and {len(values) - _SHOW:,} more" if len(values) > _SHOW else ""
    return ", ".join(values[:_SHOW]) + more


def rows_of(mask) -> str:
    """How many rows a mask holds, and the first few of them."""
    rows = np.flatnonzero(np.asarray(mask))
    return f"{len(rows):,} rows (row {some(rows)}, counted from 0)"
