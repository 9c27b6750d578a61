"""How results show themselves: a caption that says what the numbers are, and their tables."""

from __future__ import annotations

from html import escape
from typing import Any

import pandas as pd

__all__ = ["as_html", "as_text"]

_FORMAT = "{:.3f}".format


def as_text(caption: str, *tables: pd.DataFrame, **options: Any) -> str:
    """Caption and tables as plain text; options are those of ``DataFrame.to_string``."""
    return "\n".join([caption, *(t.to_string(float_format=_FORMAT, **options) for t in tables)])


def as_html(caption: str, *tables: pd.DataFrame, **options: Any) -> str:
    """The same for a notebook, labels escaped; options are those of ``DataFrame.to_html``."""
    shown = (t.to_html(float_format=_FORMAT, escape=True, **options) for t in tables)
    return f"<p>{escape(caption)}</p>{''.join(shown)}"
