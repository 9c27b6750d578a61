"""What is written in formulas of R, brms, mgcv, patsy or formulaic, and how it is written here."""

from __future__ import annotations

import keyword
import re

__all__ = ["how_here"]

_NAME = r"[^\W\d]\w*"
_HOW: tuple[tuple[str, str], ...] = (
    (r"\)\s*(\^|\*\*)", "Crossed columns are written out: (x + z)^2 is x * z."),
    (r"\^|\*\*", "A square is I(x**2)."),
    (
        r"\b(as\.)?(factor|ordered)\(|\bC\(",
        "A column of text is a factor as it is; of numbers, make it one in the data: "
        "data['x'].astype('category').",
    ),
    (r"\boffset\(", "There are no offsets; off a Gaussian outcome, take the column in the data."),
    (
        r"\b(ns|t2|te|ti|cr|cc|cs|gp)\(",
        "Smooth terms are s(x), s(x, by=a) or s(x, z); splines bs(x, df=4).",
    ),
    (r"\bnp\.", "Transforms have no prefix: log(x)."),
    (
        r"`|\bQ\(|\$|@|['\"]",
        "A column is a plain word: rename it by data.rename(columns={'my col': 'my_col'}).",
    ),
    (r"%in%", "x %in% y is x:y."),
    (
        r"[<>=!&{]|\b(cut|ifelse|where|mo|pow|abs|round)\(",
        "Make such a column in the data, and name it here.",
    ),
    (
        r"\w\.[^\W\d]",
        "A column with a point in its name must be renamed, such as my.col to my_col.",
    ),
    (r"/", "Nested columns are written out: a/b is a + a:b."),
    (
        rf"\b{_NAME}[ \t]+{_NAME}",
        "A column with a blank in its name must be renamed, such as my_col.",
    ),
)


def how_here(text: str) -> str:
    """How to write in bdtr what a formula of another package means; empty where nothing is known.

    Examples
    --------
    >>> how_here("x + I(z^2)")
    'A square is I(x**2).'
    """
    for pattern, words in _HOW:
        if re.search(pattern, text):
            return words
    for name in re.findall(rf"\b{_NAME}\b", text):
        if keyword.iskeyword(name):
            return (
                f"{name!r} is a word of Python: rename the column by "
                f"data.rename(columns={{{name!r}: {name + '_'!r}}})."
            )
    return ""
