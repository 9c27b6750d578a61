"""How the columns of a data frame are coded: labels in their order, numbers, and what is neither."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bdtr.data.contents import (
    DataError,
    clear_labels,
    is_number,
    no_numbers,
    raise_unusable,
    rows_of,
    some,
)
from bdtr.results.labels import label_text

__all__ = [
    "Coding",
    "label_series",
    "level_order",
    "number_series",
    "with_columns",
]


def with_columns(frame: pd.DataFrame, columns: Mapping[str, Any]) -> pd.DataFrame:
    """A frame with columns replaced or added, whatever their names: ``assign`` takes none called ``self``."""
    out = frame.copy(deep=False)
    for name, values in columns.items():
        out[name] = values
    return out


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


def level_order(column: pd.Series, name: str, modelled: bool = True) -> tuple[str, ...] | None:
    """Labels of a text or categorical column in order, or None for numbers.

    Raises
    ------
    DataError
        If it holds neither, or, where it enters a model, numbers kept as text: labels would each have a
        coefficient of their own.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        present = set(column.dropna().unique())
        if modelled:
            _of_one_kind(present, name)
        found = list(dict.fromkeys(label_text(c) for c in column.cat.categories if c in present))
        clear_labels(found, name, modelled)
        return tuple(found)
    if is_number(column):
        return None
    raise_unusable(column, name)
    labels = label_series(column)
    found = sorted(labels.dropna().unique())
    if modelled:
        no_numbers(found, labels, name)
    clear_labels(found, name, modelled)
    return tuple(found)


def _of_one_kind(categories: set, name: str) -> None:
    """Raise where some categories are numbers and others text: values of which Stata or SPSS labels some."""
    numbers = {label_text(c) for c in categories if not isinstance(c, str)}
    text = {label_text(c) for c in categories} - numbers
    if text and numbers:
        raise DataError(
            f"Column {name!r} holds categories that are numbers ({some(sorted(numbers))}) and text "
            f"({some(sorted(text))}). If it is a number of which a file labels some values, read it without "
            "labels, such as pandas.read_stata(.., convert_categoricals=False); if all are labels, make all "
            "of them text."
        )


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


def label_series(column: pd.Series) -> pd.Series:
    """Labels as text, missing values kept."""
    if column.dtype == "str":
        return column.reset_index(drop=True)
    if str(column.dtype).lower() in ("float16", "float32"):  # .1 is not .10000000149011612
        small = column.to_numpy(dtype="float32", na_value=np.nan)
        column = pd.Series([float(str(v)) for v in small], name=column.name)
    values = column.astype(object).to_numpy()
    labels = [None if _absent(v) else label_text(v) for v in values]
    try:
        "".join(label for label in labels if label).encode()
    except UnicodeEncodeError as error:
        odd = next(x for x in labels if x and error.object[error.start] in x)
        raise DataError(
            f"Column {column.name!r} holds {odd!r}, which is no valid text: it was read with the wrong "
            "encoding. Read the data again with the right one."
        ) from None
    return pd.Series(labels, dtype="str")


def _absent(value: Any) -> bool:
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def number_series(column: pd.Series, name: str) -> pd.Series:
    """Numbers as floats, missing values kept; text and infinite values are errors."""
    if not is_number(column):
        raise_unusable(column, name)
        labels = label_series(column)
        no_numbers(sorted(labels.dropna().unique()), labels, name)
        raise DataError(
            f"Column {name!r} must hold numbers, but it holds {some(labels.dropna().unique())}. Convert it "
            "first, for example with pandas.to_numeric."
        )
    if column.dtype == object:
        try:
            column = column.where(column.notna(), np.nan).astype(float)
        except OverflowError:
            raise DataError(
                f"Column {name!r} holds a number that is too large to compute with."
            ) from None
    values = column.to_numpy(dtype=float, na_value=np.nan)
    infinite = np.isinf(values)
    if infinite.any():
        raise DataError(
            f"Column {name!r} is infinite in {rows_of(infinite)}. Correct the value, or set it to "
            "missing."
        )
    return pd.Series(values)
