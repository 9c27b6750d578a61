"""What all errors of bdtr have in common."""

from __future__ import annotations

import re

__all__ = ["ArgumentError", "BdtrError", "shown"]

_MOST = 1400  # characters of a message
_UNPRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class BdtrError(Exception):
    """Input that cannot be used: its message says what, what is allowed, and how to mend it.

    The message is one line whatever it quotes, a data frame, say; of a long one the middle is left out.
    """

    def __init__(self, message: object = "") -> None:
        line = " ".join(part.strip() for part in str(message).splitlines())
        line = _UNPRINTED.sub(lambda one: repr(one[0])[1:-1], line)
        super().__init__(line if len(line) <= _MOST else f"{line[:995]} ... {line[-400:]}")


class ArgumentError(BdtrError, ValueError):
    """An argument outside what is allowed."""


def shown(text: str) -> str:
    """A text of the user's in a message: in quotes, on one line, the beginning of a long one."""
    return repr(text if len(text) <= 200 else f"{text[:197]}...")
