"""What all errors of bdtr have in common."""

from __future__ import annotations

__all__ = ["ArgumentError", "BdtrError"]


class BdtrError(Exception):
    """Input that cannot be used: its message says what, what is allowed, and how to mend it."""


class ArgumentError(BdtrError, ValueError):
    """An argument outside what is allowed."""
