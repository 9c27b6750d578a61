"""Checks of arguments that many functions take."""

from __future__ import annotations

import math
import numbers
from typing import Any, TypeGuard

import numpy as np

from bdtr.errors import ArgumentError

__all__ = ["a_fit", "amount", "is_real", "is_whole", "one_of", "probability", "truth", "whole"]


def a_fit(fit: object) -> None:
    """Raise unless this is what bdtr.fit returns."""
    if not hasattr(fit, "require_data") or not hasattr(fit, "designs"):
        raise ArgumentError(
            f"fit: must be a fit, as bdtr.fit returns it, got {type(fit).__name__}."
        )


def probability(name: str, value: object) -> None:
    """Raise unless this is a number between 0 and 1, both excluded."""
    if not is_real(value) or not 0 < value < 1:
        raise ArgumentError(f"{name}={value!r}: must lie between 0 and 1.")


def amount(name: str, value: object, unit: str = "the outcome") -> None:
    """Raise unless this is a finite number, 0 or more."""
    if not is_real(value) or not 0 <= value < math.inf:
        raise ArgumentError(f"{name}={value!r}: must be 0 or more, in units of {unit}.")


def truth(name: str, value: object) -> None:
    """Raise unless this is True or False: "no" would count as true."""
    if not isinstance(value, (bool, np.bool_)):
        raise ArgumentError(f"{name}={value!r}: must be True or False.")


def whole(name: str, value: Any, least: int = 1, most: float = math.inf) -> None:
    """Raise unless this is a whole number within limits."""
    if not is_whole(value) or not least <= value <= most:
        upper = "" if math.isinf(most) else f" and at most {most:,}"
        raise ArgumentError(f"{name}={value!r}: must be a whole number, at least {least}{upper}.")


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise unless this is one of some words."""
    if not isinstance(value, str) or value not in allowed:
        raise ArgumentError(f"{name}={value!r}: allowed are {', '.join(map(repr, allowed))}.")


def is_whole(value: object) -> bool:
    """Whether this is a whole number, True and False apart."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_real(value: object) -> TypeGuard[Any]:
    """Whether this is a number, True and False apart."""
    return isinstance(value, (numbers.Real, np.integer, np.floating)) and not isinstance(
        value, bool
    )
