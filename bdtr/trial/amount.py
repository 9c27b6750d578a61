"""Several outcomes in one payoff: arithmetic of columns, parsed here and never evaluated as Python.

    sum     := product (("+" | "-") product)*
    product := factor (("*" | "/") factor)*
    factor  := "-" factor | number | column | "(" sum ")" | function "(" sum ("," sum)* ")"

Functions are min, max (of two or more), abs, exp, log and sqrt.

Columns with other names than letters, digits and underscores stand in backquotes. A missing value in one of
the columns makes the payoff missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd

from bdtr.results.errors import BdtrError, shown
from bdtr.trial.ranges import Range

__all__ = ["Amount", "AmountError"]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
      | (?P<name>[^\W\d]\w*)
      | `(?P<quoted>[^`]+)`
      | (?P<mark>[-+*/(),])
    )""",
    re.VERBOSE,
)
_OF_ONE = {"abs": np.abs, "exp": np.exp, "log": np.log, "sqrt": np.sqrt}
_OF_SEVERAL = {"min": np.minimum, "max": np.maximum}
_DEEPEST, _LONGEST = 50, 5_000

type _Value = Callable[[Any], Any]  # an array, a number or a Range


class AmountError(BdtrError, ValueError):
    """Arithmetic of columns that cannot be read, or that does not fit the data."""


class Amount:
    """Arithmetic of columns, such as ``"score - 0.1 * sessions"``.

    Parameters
    ----------
    text
        In the grammar of this module.

    Raises
    ------
    AmountError
        If the text is outside the grammar.

    Examples
    --------
    >>> import pandas as pd
    >>> Amount("y - 0.5 * n").evaluate(pd.DataFrame({"y": [3.0, 1.0], "n": [2, 0]}))
    array([2., 1.])
    """

    def __init__(self, text: str):
        self.text = text
        self._tokens, self._at, self._depth = _read(text), 0, 0
        self.columns: tuple[str, ...] = ()
        self._value = self._sum()
        if self._at < len(self._tokens):
            raise self._fault(f"{self._tokens[self._at][1]!r} is one too many")

    def evaluate(self, frame: pd.DataFrame) -> np.ndarray:
        """The amount of each row.

        Parameters
        ----------
        frame
            Data with the columns.

        Returns
        -------
        numpy.ndarray
            NaN where a column is missing.

        Raises
        ------
        AmountError
            If a column is absent or holds labels, or an amount is infinite.
        """
        absent = [c for c in self.columns if c not in frame.columns]
        if absent:
            raise AmountError(
                f"{shown(self.text)}: there is no column {absent[0]!r}. Columns: "
                f"{', '.join(map(str, frame.columns))}."
            )
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            found = np.broadcast_to(np.asarray(self._value(frame), float), len(frame)).copy()
        known = np.ones(len(frame), dtype=bool)
        for name in self.columns:
            known &= frame[name].notna().to_numpy()
        found[~known] = np.nan
        if not np.isfinite(found[known]).all():
            row = int(np.flatnonzero(known & ~np.isfinite(found))[0]) + 1
            raise AmountError(f"{shown(self.text)}: row {row} is divided by 0 or too large.")
        return found

    def of(self, values: np.ndarray) -> np.ndarray:
        """The amount where every column has these values (of any shape)."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            found = self._value(dict.fromkeys(self.columns, values))
        return np.broadcast_to(np.asarray(found, float), values.shape)

    def bounds(self, low: float, high: float) -> tuple[float, float]:
        """Bounds of the amount where every column lies between ``low`` and ``high``."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            found = self._value(dict.fromkeys(self.columns, Range(low, high)))
        return (found.low, found.high) if isinstance(found, Range) else (float(found), float(found))

    def _fault(self, why: str) -> AmountError:
        return AmountError(
            f"{shown(self.text)} cannot be read: {why}. Allowed are columns, numbers, + - * /, "
            'parentheses, min, max, abs, exp, log and sqrt, as in "score - 0.1 * sessions"; other names of '
            "columns in backquotes."
        )

    def _accept(self, marks: str) -> str:
        kind, token = self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")
        if kind == "mark" and token in marks:
            self._at += 1
            return token
        return ""

    def _sum(self) -> _Value:
        out = self._product()
        while mark := self._accept("+-"):
            out = _joined(mark, out, self._product())
        return out

    def _product(self) -> _Value:
        out = self._factor()
        while mark := self._accept("*/"):
            out = _joined(mark, out, self._factor())
        return out

    def _factor(self) -> _Value:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._fault("it is nested too deeply")
        if self._accept("-"):
            out = _joined("*", lambda frame: -1.0, self._factor())
        elif self._accept("("):
            out = self._sum()
            if not self._accept(")"):
                raise self._fault("a parenthesis is not closed")
        else:
            out = self._atom()
        self._depth -= 1
        return out

    def _atom(self) -> _Value:
        if self._at == len(self._tokens):
            raise self._fault("it ends too early")
        kind, token = self._tokens[self._at]
        self._at += 1
        if kind == "number":
            number = float(token)
            return lambda frame: number
        if kind == "mark":
            raise self._fault(f"{token!r} stands where a column or number should")
        if token in _OF_ONE | _OF_SEVERAL and self._accept("("):
            return self._called(token)
        self.columns = tuple(dict.fromkeys((*self.columns, token)))
        return lambda frame: self._numbers(frame, token)

    def _called(self, name: str) -> _Value:
        """A function of what stands up to its closing parenthesis."""
        given = [self._sum()]
        while self._accept(","):
            given.append(self._sum())
        if not self._accept(")"):
            raise self._fault("a parenthesis is not closed")
        if name in _OF_ONE:
            if len(given) > 1:
                raise self._fault(f"{name} takes one number")
            work, one = _OF_ONE[name], given[0]
            return lambda frame: work(one(frame))
        if len(given) < 2:
            raise self._fault(f"{name} takes two numbers or more")
        both = _OF_SEVERAL[name]
        return lambda frame: reduce(both, (value(frame) for value in given))

    def _numbers(self, frame: Any, name: str) -> np.ndarray | Range:
        column = frame[name]
        if isinstance(column, np.ndarray | Range):
            return column
        if isinstance(column.dtype, pd.CategoricalDtype):
            raise AmountError(
                f"{shown(self.text)}: column {name!r} holds categories; give numbers."
            )
        try:
            return pd.to_numeric(column).to_numpy(dtype=float, na_value=np.nan)
        except (TypeError, ValueError):
            raise AmountError(
                f"{shown(self.text)}: column {name!r} holds labels; give numbers."
            ) from None


def _joined(mark: str, left: _Value, right: _Value) -> _Value:
    work = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}[mark]
    return lambda frame: work(left(frame), right(frame))


def _read(text: str) -> list[tuple[str, str]]:
    """Kinds and texts of the tokens."""
    if len(text) > _LONGEST:
        raise AmountError(f"{shown(text)} is longer than {_LONGEST:,} characters.")
    out, at, end = [], 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None:
            raise AmountError(
                f"{shown(text)} cannot be read from {shown(text[at:].strip())} on. Allowed are columns, "
                "numbers, + - * /, parentheses and functions; other names of columns in backquotes."
            )
        kind = str(found.lastgroup)
        out.append(("name" if kind == "quoted" else kind, found.group(kind)))
        at = found.end()
    return out
