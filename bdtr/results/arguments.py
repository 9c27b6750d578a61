"""Checks of arguments that many functions take."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from bdtr.results.errors import ArgumentError, BdtrError
from bdtr.results.labels import label_text

__all__ = [
    "a_fit",
    "a_path",
    "amount",
    "finite",
    "is_real",
    "is_whole",
    "mapping",
    "name_list",
    "number_list",
    "one_of",
    "probability",
    "text",
    "truth",
    "whole",
]


def a_fit(fit: object) -> None:
    """Raise unless this is what bdtr.fit returns."""
    if not hasattr(fit, "require_data") or not hasattr(fit, "designs"):
        raise ArgumentError(
            f"fit: must be a fit, as bdtr.fit returns it, got {type(fit).__name__}."
        )


def a_path(name: str, value: Any) -> Path:
    """The path of a file, or an error where this is none."""
    if not isinstance(value, (str, os.PathLike)):
        raise ArgumentError(f"{name}={value!r}: must name a file.")
    return Path(os.fsdecode(value))


def probability(name: str, value: object) -> None:
    """Raise unless this is a number between 0 and 1, both excluded."""
    if not is_real(value) or not 0 < value < 1:
        raise ArgumentError(f"{name}={value!r}: must lie between 0 and 1.")


def amount(name: str, value: object, unit: str = "the outcome") -> float:
    """A finite number, 0 or more, or an error."""
    if not is_real(value) or not 0 <= value < math.inf:
        raise ArgumentError(f"{name}={value!r}: must be 0 or more, in units of {unit}.")
    return float(value)


def finite(name: str, value: object) -> None:
    """Raise unless this is a finite number."""
    if not is_real(value) or not math.isfinite(value):
        raise ArgumentError(f"{name}={value!r}: must be a finite number.")


def text(name: str, value: object) -> None:
    """Raise unless this is a text."""
    if not isinstance(value, str):
        raise ArgumentError(f"{name}={value!r}: must be a text.")


def truth(name: str, value: object, error: type[BdtrError] = ArgumentError) -> None:
    """Raise unless this is True or False: "no" would count as true."""
    if not isinstance(value, (bool, np.bool_)):
        raise error(f"{name}={value!r}: must be True or False.")


def whole(name: str, value: Any, least: int = 1, most: float = math.inf) -> None:
    """Raise unless this is a whole number within limits."""
    if not is_whole(value) or not least <= value <= most:
        upper = "" if math.isinf(most) else f" and at most {most:,}"
        raise ArgumentError(f"{name}={value!r}: must be a whole number, at least {least}{upper}.")


def one_of(
    name: str,
    value: object,
    allowed: Iterable[str],
    error: type[BdtrError] = ArgumentError,
) -> None:
    """Raise unless this is one of some words."""
    allowed = tuple(allowed)
    if not isinstance(value, str) or value not in allowed:
        raise error(f"{name}={value!r}: allowed are {', '.join(map(repr, allowed))}.")


def mapping(name: str, value: object, words: str) -> None:
    """Raise unless this is a mapping, of what in words, in which no label stands twice, as 1 and "1"."""
    if not isinstance(value, Mapping):
        raise ArgumentError(f"{name}={value!r}: must map {words}.")
    seen: dict[str, object] = {}
    for key in value:
        if seen.setdefault(label_text(key), key) is not key:
            raise ArgumentError(f"{name}: {seen[label_text(key)]!r} and {key!r} are one label.")


def name_list(name: str, value: Any) -> list[str]:
    """Different names of columns, one as a text or several in a list, or an error."""
    given = [value] if isinstance(value, str) else value
    if (
        not isinstance(given, (list, tuple))
        or not all(isinstance(one, str) for one in given)
        or len(set(given)) != len(given)
    ):
        raise ArgumentError(f"{name}={value!r}: must be a column, or a list of different columns.")
    return list(given)


def number_list(name: str, values: Any, least: float = -math.inf) -> list[float]:
    """The numbers of a list or array with one dimension, all finite and at least this, or an error."""
    given = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(given, (list, tuple, range)) or not all(
        is_real(x) and math.isfinite(x) and x >= least for x in given
    ):
        lower = "" if math.isinf(least) else f", each {least:g} or more"
        raise ArgumentError(f"{name}={values!r}: must be a list of numbers{lower}.")
    return list(given)


def is_whole(value: object) -> bool:
    """Whether this is a whole number, True and False apart."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_real(value: object) -> TypeGuard[Any]:
    """Whether this is a number that a float can hold, True and False apart."""
    if not isinstance(value, (numbers.Real, np.integer, np.floating)) or isinstance(value, bool):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True
