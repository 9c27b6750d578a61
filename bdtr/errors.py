"""What all errors of bdtr have in common."""

from __future__ import annotations

__all__ = ["ArgumentError", "BdtrError", "shown"]


class BdtrError(Exception):
    """Input that cannot be used: its message says what, what is allowed, and how to mend it."""


class ArgumentError(BdtrError, ValueError):
    """An argument outside what is allowed."""


def shown(text: str) -> str:
    """A text of the user's in a message: in quotes, on one line, the beginning of a long one."""
    return repr(text if len(text) <= 200 else f"{text[:197]}...")
