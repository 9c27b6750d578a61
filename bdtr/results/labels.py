"""Labels as text: what a user calls an action, a site or a class, whatever its type."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["BESIDE_ACTIONS", "NEW_SITE", "UNCLEAR", "label_text", "look_alike"]

NEW_SITE = "(new site)"  # one that was not in the trial, in tables
BESIDE_ACTIONS = ("all", "no decision", "not in the fit", "price")  # rows and columns of tables
UNCLEAR = "no clear choice"  # in place of an action, in tables


def label_text(value: Any) -> str:
    """A label as text: 1, 1.0 and "1" are one label, and no digit of a long number is lost."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, np.bool_, int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return str(int(number)) if number.is_integer() else repr(number)
    return str(value)


def look_alike(labels: Iterable[str]) -> tuple[str, str] | None:
    """The first two labels that differ in blanks or in how a letter and its accent are written, alone."""
    seen: dict[str, str] = {}
    for label in labels:
        plain = " ".join(unicodedata.normalize("NFC", label).split())
        if seen.setdefault(plain, label) != label:
            return seen[plain], label
    return None
