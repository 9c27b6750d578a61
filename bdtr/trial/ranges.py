"""Bounds of arithmetic whose numbers are known to lie between two ends (Moore 1966, Interval Analysis).

Each operation gives the ends of what it can give: bounds that hold, and that are the closest where no number
stands twice in the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Range"]


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, to which functions of numpy can be applied."""

    low: float
    high: float

    def __array_ufunc__(self, ufunc: Any, method: str, *given: Any, **more: Any) -> Any:
        ends = [g if isinstance(g, Range) else Range(float(g), float(g)) for g in given]
        if ufunc in _RISING:
            return Range(*(_number(ufunc(*side)) for side in _sides(ends)))
        work = _OTHERS.get(ufunc)
        return NotImplemented if work is None else work(*ends)


_RISING = (np.add, np.minimum, np.maximum, np.exp, np.log, np.sqrt)  # in each of what they take


def _sides(ends: list[Range]) -> tuple[list[float], list[float]]:
    return [e.low for e in ends], [e.high for e in ends]


def _number(value: float) -> float:
    """The end that an operation gives; that of the logarithm of less than nothing is infinitely low."""
    return -np.inf if np.isnan(value) else float(value)


def _less(one: Range, other: Range) -> Range:
    return Range(one.low - other.high, one.high - other.low)


def _times(one: Range, other: Range) -> Range:
    ends = [
        0.0 if 0.0 in (a, b) else a * b
        for a in (one.low, one.high)
        for b in (other.low, other.high)
    ]
    return Range(min(ends), max(ends))


def _over(one: Range, other: Range) -> Range:
    if other.low < 0.0 < other.high:
        return Range(-np.inf, np.inf)
    # The reciprocal of an end at 0 is infinite on the side of the other end.
    low = 1.0 / other.high if other.high else -np.inf
    high = 1.0 / other.low if other.low else np.inf
    return _times(one, Range(low, high))


def _size(one: Range) -> Range:
    ends = abs(one.low), abs(one.high)
    return Range(0.0 if one.low <= 0.0 <= one.high else min(ends), max(ends))


_OTHERS = {np.subtract: _less, np.multiply: _times, np.divide: _over, np.absolute: _size}
