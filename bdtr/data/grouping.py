"""Groups of units: by site, by a column, by several columns crossed, or by labels of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from bdtr.data.coding import label_series
from bdtr.data.history import not_yet_known
from bdtr.data.stagecolumns import site_codes
from bdtr.data.trialdata import TrialData
from bdtr.results.errors import ArgumentError
from bdtr.trial.alignment import aligned

__all__ = ["By", "Grouping", "grouping"]

_MOST_GROUPS = 50

# A column, "site", a tuple of columns, labels of all rows, or None for all units together.
type By = str | tuple[str, ...] | Sequence | None


@dataclass(frozen=True)
class Grouping:
    """Groups of all rows of the data: ``code`` of each, -1 for none, their labels, the name of their dim
    (none: all units are one group)."""

    code: np.ndarray
    labels: np.ndarray
    dim: str | None

    def of(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Group of each of these units, and the labels of the groups that have any."""
        present, code = np.unique(self.code[units], return_inverse=True)
        self.check_few(len(present))
        return code, self.labels[present]

    def check_few(self, count: int) -> None:
        """Raise where so many groups are too many, sites apart."""
        if self.dim == "group" and count > _MOST_GROUPS:
            raise ArgumentError(
                f"by: {count:,} different values, at most {_MOST_GROUPS} are allowed. Cut the "
                "column into groups first, for example by pandas.cut, and pass these."
            )


def grouping(data: TrialData, by: By, k: int = 0) -> Grouping:
    """Groups of the rows of the data.

    Parameters
    ----------
    data
        The data of a trial.
    by
        ``"site"`` or the site column; the name of a column of the trial, or a tuple of several, crossed;
        labels of all rows of the data, a series of pandas by its index; or None for one group of all.
    k
        Stage (0 = first) when whose action is chosen a named column has to be known.

    Returns
    -------
    Grouping
        Groups in the order of categories or numbers; other labels sorted. Rows with a missing label are
        in no group.

    Raises
    ------
    ValueError
        If there is no such column, or not a label for each row.
    """
    if by is None:
        return Grouping(np.zeros(len(data), dtype=np.int64), np.array(["all"], dtype=object), None)
    if isinstance(by, str) and by in ("site", data.trial.site):
        if data.trial.site is None:
            raise ArgumentError("by='site': the trial names no site column.")
        codes = site_codes(data.frame, data.trial.site, data.site_levels)
        return Grouping(codes, data.site_levels, "site")
    if isinstance(by, tuple):
        return _crossed(data, by, k)
    code, labels = _coded(_column(data, by, k))
    return Grouping(code, labels, "group")


def _crossed(data: TrialData, names: tuple[str, ...], k: int) -> Grouping:
    """Every combination of the labels of several columns."""
    if len(set(names)) != len(names) or not names:
        raise ArgumentError(
            f"by={names!r}: name different columns, for example ('female', 'lunch')."
        )
    parts = [_coded(_column(data, name, k)) for name in names]
    shape = tuple(len(labels) for _, labels in parts)
    codes = np.stack([code for code, _ in parts])
    joined = np.ravel_multi_index(tuple(np.maximum(codes, 0)), shape)
    texts = [
        ", ".join(f"{name} {label}" for name, label in zip(names, combination, strict=True))
        for combination in product(*(labels for _, labels in parts))
    ]
    if len(set(texts)) < len(texts):
        raise ArgumentError(
            f"by={names!r}: two groups would have one name. Rename labels that hold ', '."
        )
    code = np.where((codes >= 0).all(axis=0), joined, -1)
    return Grouping(code, np.array(texts, dtype=object), "group")


def _coded(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Code of each row, -1 where it is missing, and the labels in order."""
    own = label_series(column)
    order = pd.Index(_order(column, own.dropna().unique()))
    if order.has_duplicates:
        raise ArgumentError("by: two labels are the same as text, such as 1 and '1'.")
    return order.get_indexer(pd.Index(own)), order.to_numpy(dtype=object)


def _column(data: TrialData, by: Any, k: int) -> pd.Series:
    """What to group by, a value for each row of the data."""
    if isinstance(by, str):
        by = data.trial.site if by == "site" and data.trial.site else by
        if by not in data.frame.columns:
            raise ArgumentError(
                f"by={by!r}: allowed are 'site', a column that the trial uses "
                f"({', '.join(map(str, data.frame.columns))}), a tuple of columns, or labels of all rows "
                "of the data."
            )
        if by in not_yet_known(data.trial, k):
            raise ArgumentError(
                f"by={by!r}: is not known yet when the action of stage {data.trial.stages[k].action} is "
                "chosen. Group by history, or give labels of all rows if that is what you mean."
            )
        return data.frame[by]
    by = aligned(by, data.index, "by")
    if not _is_list(by):
        raise ArgumentError(
            f"by={by!r}: allowed are 'site', a column, a tuple of columns, or labels of all rows."
        )
    if len(by) != len(data):
        raise ArgumentError(f"by: {len(by):,} labels for {len(data):,} rows of the data.")
    kind = getattr(by, "dtype", None)
    return pd.Series(list(by), dtype=kind if isinstance(kind, pd.CategoricalDtype) else object)


def _is_list(by: Any) -> bool:
    """Whether these are labels in a row."""
    ordered = pd.api.types.is_list_like(by, allow_sets=False) and hasattr(by, "__len__")
    return ordered and getattr(by, "ndim", 1) == 1


def _order(column: pd.Series, labels: Sequence[str]) -> list[str]:
    """Groups in the order of categories; numbers in theirs; other labels sorted."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [x for x in label_series(pd.Series(column.cat.categories)) if x in set(labels)]
    try:
        return sorted(labels, key=float)
    except ValueError:
        return sorted(labels)
