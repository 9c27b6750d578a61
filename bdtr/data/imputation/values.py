"""Values of variables in several completed data sets, and the columns that formulas make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bdtr.data.coding import Coding
from bdtr.data.modelmatrix import Columns

__all__ = ["MadeColumns", "Values"]


@dataclass(frozen=True)
class Values:
    """Variables of all units: numbers, or codes of labels (-1: none). Those with missing values differ
    between data sets (data set, unit); others are the same in all (1, unit)."""

    sets: int
    held: dict[str, np.ndarray]
    labels: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        coding: Coding,
        incomplete: Sequence[str],
        texts: Mapping[str, tuple[str, ...]],
        sets: int,
    ) -> Values:
        """From a coded frame, every data set alike; ``texts`` are labels of columns that conditions alone
        use."""
        held, labels = {}, {}
        for name in frame.columns:
            if name in coding.labels and name not in texts:
                continue
            column = frame[name]
            if name in texts:
                column = pd.Series(pd.Categorical(column, categories=list(texts[name])))
            if isinstance(column.dtype, pd.CategoricalDtype):
                labels[name] = tuple(column.cat.categories)
                own = column.cat.codes.to_numpy().astype(float)
            else:
                own = column.to_numpy(dtype=float)
            held[name] = np.tile(own, (sets if name in incomplete else 1, 1))
        return cls(sets, held, labels)

    @property
    def units(self) -> int:
        """Number of units."""
        return next(iter(self.held.values())).shape[1]

    def at(self, name: str, rows: np.ndarray, instead: Mapping[str, np.ndarray]) -> np.ndarray:
        """Values (data set or 1, row) of a variable, or those that stand in for it."""
        return instead[name] if name in instead else self.held[name][:, rows]

    def frame(
        self, names: Sequence[str], rows: np.ndarray, instead: Mapping[str, np.ndarray]
    ) -> pd.DataFrame:
        """The rows of all data sets, one after another, as a coded frame."""
        out = {}
        for name in names:
            own = np.broadcast_to(self.at(name, rows, instead), (self.sets, len(rows))).ravel()
            if name in self.labels:
                codes = own.astype(np.int64)
                kind = pd.CategoricalDtype(list(self.labels[name]))
                out[name] = pd.Categorical.from_codes(codes, dtype=kind)
            else:
                out[name] = own
        return pd.DataFrame(out, index=pd.RangeIndex(self.sets * len(rows)))


class MadeColumns:
    """Columns of a formula, by products of numbers and labels where that is all they are.

    Parameters
    ----------
    columns
        Columns with the state of their transforms.
    keep
        Which of them.
    values
        Variables at the start.
    rows
        Units that the formula can be computed for.
    """

    def __init__(self, columns: Columns, keep: Sequence[int], values: Values, rows: np.ndarray):
        self.columns, self.keep = columns, list(keep)
        self.names = [columns.names[i] for i in keep]
        self.used = [n for n in columns.example if n in values.held]
        self.plan = self._planned(values, rows)

    def _planned(
        self, values: Values, rows: np.ndarray
    ) -> list[list[tuple[str, int] | np.ndarray]] | None:
        """What each column is the product of: numbers, labels, and transforms of what is complete, which stay
        as they are; nothing where there is another one."""
        columns, out = self.columns, []
        moving = {n for n, own in values.held.items() if len(own) > 1}
        alone = {parts[0]: i for i, parts in enumerate(columns.parts) if len(parts) == 1}
        kept: list[np.ndarray] = []

        def fixed(part: str) -> np.ndarray | None:
            at = alone.get(part)
            if at is None or columns.variables[at] & moving:
                return None
            if not kept:
                made = columns.matrix(values.frame(self.used, rows, {})[: len(rows)])
                kept.append(np.full((values.units, made.shape[1]), np.nan))
                kept[0][rows] = made
            return kept[0][:, at]

        for i in self.keep:
            own = []
            for part in columns.parts[i]:
                found = _plain(part, values)
                found = fixed(part) if found is None else found
                if found is None:
                    return None
                own.append(found)
            out.append(own)
        return out

    def matrix(
        self, values: Values, rows: np.ndarray, instead: Mapping[str, np.ndarray] | None = None
    ) -> np.ndarray:
        """Columns (data set, row, column), variables in ``instead`` having other values (data set, row)."""
        instead = instead or {}
        if self.plan is None:
            made = self.columns.matrix(values.frame(self.used, rows, instead))[:, self.keep]
            return made.reshape(values.sets, len(rows), -1)
        out = np.ones((values.sets, len(rows), len(self.keep)))
        for i, own in enumerate(self.plan):
            for part in own:
                if isinstance(part, np.ndarray):
                    out[:, :, i] *= part[rows]
                    continue
                name, code = part
                value = values.at(name, rows, instead)
                out[:, :, i] *= value if code < 0 else value == code
        return out

    def involves(self, name: str) -> bool:
        """Whether a variable is in them."""
        return any(name in self.columns.variables[i] for i in self.keep)


def _plain(part: str, values: Values) -> tuple[str, int] | None:
    """A number as (name, -1), a label as (name, code); nothing for transforms."""
    name = part.strip("`")
    if name in values.held and name not in values.labels:
        return name, -1
    for name, labels in values.labels.items():
        for quoted in (name, f"`{name}`"):
            if part.startswith(f"{quoted}[") and part.endswith("]"):
                label = part[len(quoted) + 1 : -1]
                if label in labels:
                    return name, labels.index(label)
    return None
