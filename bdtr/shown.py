"""How results show themselves: a caption that says what the numbers are, and their tables."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

__all__ = ["Captioned", "as_html", "as_text"]

_FORMAT = "{:.3f}".format


@dataclass(frozen=True)
class Captioned:
    """A table, and in one line what its numbers are."""

    table: pd.DataFrame
    caption: str

    def __repr__(self) -> str:
        return as_text(self.caption, self.table, max_rows=40)

    def _repr_html_(self) -> str:
        return as_html(self.caption, self.table)


def as_text(caption: str, *tables: pd.DataFrame, **options: Any) -> str:
    """Caption and tables as plain text; options are those of ``DataFrame.to_string``."""
    return "\n".join([caption, *(t.to_string(float_format=_FORMAT, **options) for t in tables)])


def as_html(caption: str, *tables: pd.DataFrame, **options: Any) -> str:
    """The same for a notebook, labels escaped; options are those of ``DataFrame.to_html``."""
    shown = (t.to_html(float_format=_FORMAT, escape=True, **options) for t in tables)
    return f"<p>{escape(caption)}</p>{''.join(shown)}"
