"""How results show themselves: a caption that says what the numbers are, and their tables."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

__all__ = ["Captioned", "Shown", "as_html"]

_FORMAT = "{:.3f}".format
_MOST_ROWS = 40


class Shown:
    """A result with a ``caption``, one line that says what its numbers are, and tables.

    ``_tables`` names the attributes that are shown, in order; empty tables are not.
    """

    _tables: ClassVar[tuple[str, ...]] = ("table",)

    if TYPE_CHECKING:

        @property
        def caption(self) -> str:
            """What the numbers are, in one line."""
            ...

    def __repr__(self) -> str:
        return "\n".join([self.caption, *(_text(table) for table in self._shown())])

    def _repr_html_(self) -> str:
        return as_html(self.caption, *self._shown())

    def _shown(self) -> list[pd.DataFrame]:
        return [table for name in self._tables if len(table := getattr(self, name))]


@dataclass(frozen=True, repr=False)
class Captioned(Shown):
    """A table, and in one line what its numbers are."""

    table: pd.DataFrame
    caption: str


def _text(table: pd.DataFrame) -> str:
    return table.to_string(float_format=_FORMAT, na_rep="", max_rows=_MOST_ROWS)


def as_html(caption: str, *tables: pd.DataFrame, index: bool = True) -> str:
    """Caption and tables for a notebook, labels escaped."""
    shown = (
        t.to_html(float_format=_FORMAT, escape=True, na_rep="", max_rows=_MOST_ROWS, index=index)
        for t in tables
    )
    return f"<p>{escape(caption)}</p>{''.join(shown)}"
