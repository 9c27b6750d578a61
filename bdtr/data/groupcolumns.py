"""A grouping factor of a stage: the columns whose coefficients vary between its levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bdtr.data.coding import label_series
from bdtr.data.margins import Measure
from bdtr.data.modelmatrix import Columns, DesignError

__all__ = [
    "GroupDesign",
    "check_zeros",
    "factor_labels",
    "fixed_terms",
    "group_scale",
    "note_zeros",
]

_LOST = 0.02  # bound on the share of a variance that rounding takes; a tenth of that in fact


@dataclass(frozen=True)
class GroupDesign:
    """A grouping factor of a stage: its columns, its levels, and its part in the Q-function.

    ``role`` is ``"site"``, ``"history"`` (known when the action is chosen) or ``"delivery"`` (formed
    with the action, so integrated out of the Q-function). ``measure`` says how the engines see its columns.
    """

    factor: tuple[str, ...]
    columns: Columns
    keep: tuple[int, ...]
    correlated: bool
    role: str
    levels: np.ndarray
    measure: Measure

    @property
    def name(self) -> str:
        """The factor as in the formula."""
        return ":".join(self.factor)

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the coefficients that vary between levels."""
        return tuple(self.columns.names[i] for i in self.keep)

    def matrix(self, frame: pd.DataFrame) -> np.ndarray:
        """Row x term values, as written."""
        return self.columns.matrix(frame)[:, list(self.keep)]

    def measured(self, frame: pd.DataFrame) -> np.ndarray:
        """Row x term values, as the engines take them."""
        return self.matrix(frame) @ self.measure.turn

    def labels(self, frame: pd.DataFrame) -> np.ndarray:
        """Label of each row's level."""
        return factor_labels(frame, self.factor)

    def codes(self, frame: pd.DataFrame) -> np.ndarray:
        """Position of each row's level, -1 for levels the fit has not seen or missing ones."""
        return pd.Index(self.levels).get_indexer(pd.Index(self.labels(frame)))


def factor_labels(frame: pd.DataFrame, factor: Sequence[str]) -> np.ndarray:
    r"""Labels of a (combined) factor; missing where any part is missing.

    Parts are joined by ``:``; one that stands in a label is written ``\:``, so that school a, class b:c is
    another level than school a:b, class c.
    """
    parts = [label_series(frame[name]).astype(object) for name in factor]
    if len(parts) > 1:
        parts = [_escaped(part) for part in parts]
    labels = parts[0]
    for part in parts[1:]:
        labels = labels + ":" + part
    return labels.where(labels.notna(), None).to_numpy(dtype=object)


def _escaped(labels: pd.Series) -> pd.Series:
    return labels.str.replace("\\", "\\\\", regex=False).str.replace(":", "\\:", regex=False)


def fixed_terms(priors: Mapping[str, Any], factor: str, names: Sequence[str]) -> list[int]:
    """Terms whose SDs have priors of the user's, which are for the term as written."""
    return [
        i
        for i, n in enumerate(names)
        if f"sd({factor})" in priors or f"sd({factor})[{n}]" in priors
    ]


def group_scale(
    columns: Columns, keep: Sequence[int], matrix: np.ndarray, left: np.ndarray
) -> np.ndarray:
    """Scale of each group term: its range where it has two values, else its SD, of products the product.

    All of these are the same wherever a variable has its zero.
    """
    names = [columns.names[i] for i in keep]
    out = np.ones(len(names))
    for i in range(len(names)):
        parts = columns.parts[keep[i]]
        if len(parts) > 1 and all(p in names for p in parts):
            out[i] = np.prod([out[names.index(p)] for p in parts])
            continue
        values = np.unique(matrix[:, i])
        own = np.ptp(values) if values.size == 2 else np.std(left[:, i])
        size = np.abs(matrix[:, i]).max(initial=0.0)
        out[i] = own if own > 1e-10 * size else (size or 1.0)
    return out


def check_zeros(measure: Measure, names: Sequence[str], factor: str, where: str) -> None:
    r"""Raise where the covariance between terms as written cannot hold that of the terms as measured.

    With T = ``turn`` and B = ``back``, C = T M T' is stored and M = B C B' is read from it. For M = I its
    diagonal is read to within eps times the sum of squares of the rows of \|B\| \|T\|, where eps is the
    precision of a floating-point number.

    Raises
    ------
    DesignError
        Where that is more than 2 %, as for squares of Julian days.
    """
    grown = np.abs(measure.back) @ np.abs(measure.turn)
    lost = np.finfo(float).eps * np.square(grown).sum(axis=1)
    if (lost > _LOST).any():
        far = ", ".join(n for n in names if n != "Intercept")
        raise DesignError(
            f"{where}: the zero of {far} lies so far from the data that the SDs and correlations of "
            f"({' + '.join(names)} | {factor}) are lost to rounding. Centre the column in the data, such as "
            "data['x'] - data['x'].mean(), and use that in the formula."
        )


def note_zeros(groups: Sequence[GroupDesign], rows: pd.DataFrame, where: str) -> list[str]:
    """Slopes without correlation whose variable has its zero outside the data."""
    out = []
    for g in groups:
        if g.correlated or len(g.terms) < 2:
            continue
        values = g.matrix(rows)
        low, high = values.min(axis=0), values.max(axis=0)
        far = [n for n, a, b in zip(g.terms, low, high, strict=True) if (a > 0 or b < 0) and a != b]
        if far:
            out.append(
                f"{where}: the zero of {', '.join(far)} lies outside the data, and without correlations "
                f"(|| {g.name}) the model of group effects depends on where it is. Centre the column, or "
                "write | for ||."
            )
    return out
