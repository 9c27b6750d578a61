"""What a report is made of: parts with blocks, all of it plain data that JSON can hold.

The page is filled from nothing else, so that every number on it is in ``report.json``: as a number in a
table, or in the words of a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

__all__ = [
    "Part",
    "ask",
    "code",
    "figure",
    "folded",
    "items",
    "maths",
    "number",
    "percent",
    "probability",
    "table",
    "text",
]

type Block = dict[str, Any]

# Headings of columns that bdtr names; those of the user keep their names.
_HEADINGS = {
    "sd": "SD", "r_hat": "R-hat", "ess_bulk": "bulk ESS", "ess_tail": "tail ESS", "p_best": "P(best)",
    "p_better": "P(better)", "p_optimal": "P(optimal)", "p_value": "p-value", "in_set": "in the set",
    "off_path": "units off path", "cannot_follow": "units that cannot follow",
    "as_written": "coefficient as written", "delta_sd": "delta (SDs)",
    "mean_rank": "mean rank",
    "mean_reference": "mean of reference", "units_reference": "units with reference",
    "largest_share": "largest share", "effective": "effective units",
}  # fmt: skip


@dataclass
class Part:
    """One part of a report: its place in the page, its heading and its blocks."""

    name: str
    title: str
    blocks: list[Block] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """The part as JSON holds it."""
        return {"name": self.name, "title": self.title, "blocks": self.blocks}


def number(x: float, digits: int = 3) -> str:
    """A number in a sentence, with a true minus sign; a dash where there is none."""
    return "–" if not np.isfinite(x) else f"{x:.{digits}f}".replace("-", "−")


def probability(p: float, digits: int = 2) -> str:
    """A probability in a sentence: one that is not 0 or 1 is not written as these."""
    least = 10.0**-digits
    if 0 < p < 1 and (p < least / 2 or p > 1 - least / 2):
        return f"below {least:.{digits}f}" if p < 0.5 else f"> {1 - least:.{digits}f}"
    return number(p, digits)


def percent(share: float) -> str:
    """A share in per cent, without decimals."""
    return f"{100 * share:.0f} %"


def text(words: str, note: bool = False) -> Block:
    """A paragraph; notes are set smaller."""
    return {"kind": "text", "text": words, "note": note}


def items(lines: Sequence[str]) -> Block:
    """A list."""
    return {"kind": "items", "items": list(lines)}


def code(words: str) -> Block:
    """Text as it was written."""
    return {"kind": "code", "text": words}


def maths(label: str, mathml: str) -> Block:
    """An equation in MathML, whose labels have been escaped, and what it says in words."""
    return {"kind": "maths", "label": label, "mathml": mathml}


def figure(name: str, caption: str, alt: str) -> Block:
    """A figure by its name, drawn when the page is filled."""
    return {"kind": "figure", "name": name, "caption": caption, "alt": alt}


def folded(title: str, blocks: Sequence[Block]) -> Block:
    """Blocks that are unfolded by hand, and printed."""
    return {"kind": "folded", "title": title, "blocks": list(blocks)}


def ask(what: str, words: str | None) -> Block:
    """A text that only the authors can write, or its marked place."""
    return {"kind": "ask", "what": what, "text": words}


def table(
    frame: pd.DataFrame, caption: str = "", digits: int = 3, names: dict[str, str] | None = None
) -> Block:
    """A table: the index first, numbers as numbers, missing ones as None.

    Parameters
    ----------
    frame
        The table; its index becomes the first columns.
    caption
        What the numbers are.
    digits
        Decimals that the page shows of numbers that are not whole.
    names
        Headings by column, of the index too.
    """
    index = [n for n in frame.index.names if n is not None]
    whole = frame.reset_index() if index else frame
    given = names or {}
    own = [given.get(str(c), str(c)) for c in whole.columns]
    columns = [c if i < len(index) else _HEADINGS.get(c, c) for i, c in enumerate(own)]
    rows = [[_plain(value) for value in row] for row in whole.itertuples(index=False, name=None)]
    return {
        "kind": "table",
        "caption": caption,
        "columns": columns,
        "rows": rows,
        "labels": len(index) if index else 1,
        "digits": digits,
    }


def _plain(value: object) -> object:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return None if value is None or value is pd.NA else str(value)
