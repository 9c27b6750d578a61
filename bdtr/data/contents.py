"""What a column holds: numbers, labels, or what is neither and how to convert it."""

from __future__ import annotations

import datetime
import decimal
import fractions
import numbers
import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from bdtr.results.errors import BdtrError
from bdtr.results.labels import look_alike

__all__ = [
    "DataError",
    "clear_labels",
    "computable",
    "is_number",
    "no_nul",
    "no_numbers",
    "raise_unusable",
    "rows_of",
    "scalars_alone",
    "some",
]

_LARGEST = 1e80  # the square and its sums are far from the largest number there is
_FARTHEST = 1e9  # SDs from 0: rounding of the numbers themselves is 1e-7 SDs
_SHOW = 5  # rows or labels named in a message
_PLAIN = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)")
# A number as people write it: with a decimal comma, separators, a percent sign, a currency, a unit.
_NUMBER = re.compile(
    r"[(~<>≈]?[-+]?[$£€]?\s*(\d+([.,]\d*)?|\d{1,3}([ ,.'_]\d{3})+([.,]\d+)?|[.,]\d+)([eE][-+]?\d+)?"
    r"\s*([%$£€)]|[^\W\d_]{1,8}|)"
)
_MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATE = re.compile(
    r"(\d{4}[-/.](\d{1,2}|w\d{1,2})([-/.]\d{1,2})?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}"
    rf"|\d{{1,2}}[ -]{_MONTH}[ -]\d{{2,4}}|{_MONTH} \d{{1,2}},? \d{{2,4}})([T ].*)?"
    r"|\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[ap]m)?|-?\d+ days?.*",
    re.IGNORECASE,
)
# Entries that stand for a missing value in other programs; in labels "NA" and "None" may be names.
_CODES = {
    ".",
    "",
    "-",
    "--",
    "?",
    "nan",
    "na",
    "n/a",
    "#n/a",
    "null",
    "none",
    "<na>",
    "missing",
    "unknown",
}
_NO_LABEL = {".", "", "nan", "#n/a", "n/a", "null", "<na>"}
_MANY = 15  # numbers among labels, from which on they are numbers with odd entries
_FEW = 6  # labels such as 1A or 1:10, up to which they are taken for labels
# What the levels of a grouping factor may be.
_SCALARS = (
    str,
    numbers.Number,
    np.generic,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    pd.Period,
)


class DataError(BdtrError, ValueError):
    """Data that do not fit the trial."""


def is_number(column: pd.Series) -> bool:
    """Whether a column holds numbers or truth values alone, if as objects that mixed assignment leaves."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return False
    if column.dtype != object:
        real = pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(
            column.dtype
        )
        return real and not (pd.api.types.is_complex_dtype(column.dtype) or _decimal(column.dtype))
    kinds = {type(v) for v in column.dropna()}
    odd = (np.complexfloating, np.timedelta64)
    return bool(kinds) and all(
        issubclass(k, (int, float, np.number, np.bool_)) and not issubclass(k, odd) for k in kinds
    )


def _decimal(dtype: object) -> bool:
    return isinstance(dtype, pd.ArrowDtype) and dtype.type is decimal.Decimal


def raise_unusable(column: pd.Series, name: str) -> None:
    """Raise where a column holds neither numbers nor labels: dates, durations, Decimals, lists, .."""
    if pd.api.types.is_complex_dtype(column.dtype):
        what, mend = "complex numbers", "take their real part, or their size"
    else:
        kinds = _types(column)
        found = next(
            (words for kind in kinds for types, *words in _KINDS if issubclass(kind, types)), None
        )
        if found is None:
            odd = [
                k for k in kinds if not issubclass(k, (str, bool, np.bool_, int, float, np.number))
            ]
            if not odd:
                return
            found = [
                f"objects of {odd[0].__module__}.{odd[0].__qualname__}",
                "turn them into numbers or labels",
            ]
        what, mend = found
    where = f"data[{name!r}]"
    raise DataError(
        f"Column {name!r} holds {what}, which are neither numbers nor labels: {mend.format(where)}."
    )


def _types(column: pd.Series) -> set[type]:
    """Types of the values of a column, dates and durations by its own: they may be beyond those of Python."""
    if column.dtype == "str":
        return {str}
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "mM":
        return {column.dtype.type}
    return {type(v) for v in column.dropna()}


_KINDS: tuple[tuple[type | tuple[type, ...], str, str], ...] = (
    (
        (pd.Timedelta, np.timedelta64, datetime.timedelta),
        "durations",
        "count them, for example in days by pandas.to_timedelta({0}) / pandas.Timedelta(days=1)",
    ),
    (
        (pd.Timestamp, np.datetime64, datetime.date),
        "dates",
        "count days by (pandas.to_datetime({0}) - pandas.to_datetime({0}).min()).dt.days",
    ),
    (pd.Period, "periods", "number them by {0}.astype('category').cat.codes"),
    (datetime.time, "times of day", "turn them into numbers, such as hours"),
    (
        (decimal.Decimal, fractions.Fraction),
        "Decimals or fractions",
        "convert them by {0}.astype(float)",
    ),
    ((complex, np.complexfloating), "complex numbers", "take their real part, or their size"),
    (pd.Interval, "intervals", "make them labels by {0}.astype('category')"),
    ((bytes, bytearray), "bytes", "decode them by {0}.str.decode('utf-8')"),
    (
        (list, tuple, dict, set, frozenset, np.ndarray),
        "lists or other collections",
        "give each of their parts a column",
    ),
)


def no_numbers(labels: Sequence[str], column: pd.Series, name: str) -> None:
    """Raise where labels are numbers or dates kept as text, if with a code for a missing value among them."""
    where = f"data[{name!r}]"
    for pattern, what in ((_NUMBER, "numbers"), (_DATE, "dates")):
        hits = [x for x in labels if pattern.fullmatch(_tidy(x))]
        plain = [x for x in hits if _PLAIN.fullmatch(x.strip())]
        if what == "numbers" and len(plain) < len(hits) and not _alike(hits):
            hits = plain
        others = [x for x in labels if x not in hits]
        codes = [x for x in others if x.strip().lower() in _CODES]
        few = len(hits) <= _FEW and len(plain) < len(hits)
        several = len(codes) < len(others) and (len(hits) <= _MANY or len(others) > len(hits))
        if not hits or few or several:
            continue
        odd = ""
        if others:
            many = int(column.isin(others).sum())
            why = ", a code for a missing value" if len(codes) == len(others) else ""
            odd = f", and {some(others)} in {many:,} rows{why}"
        mend = f"pandas.to_numeric({where}" + (", errors='coerce')" if others else ")")
        if what == "dates":
            mend = f"pandas.to_datetime({where}, ..), and count days"
        elif len(plain) < len(hits):
            mend = (
                f"pandas.to_numeric once {where}.str.replace(..) has left digits and a point alone"
            )
        raise DataError(
            f"Column {name!r} holds {what} kept as text, such as {hits[0]!r}{odd}. Convert it by {mend}; "
            f"if they are labels, by {where}.astype('category')."
        )


def _tidy(label: str) -> str:
    """A label with the minus and the blanks of typographers as those of a keyboard."""
    return re.sub(r"\s", " ", label.strip()).replace("\u2212", "-")


def _alike(labels: Sequence[str]) -> bool:
    """Whether what is no digit is the same in all of them: a unit, a currency, a separator."""
    return len({re.sub(r"[\d.,\s'_+-]", "", _tidy(x)) for x in labels}) == 1


def scalars_alone(column: pd.Series, name: str) -> None:
    """Raise where the values of a grouping factor are lists, functions or other objects."""
    if isinstance(column.dtype, pd.ArrowDtype):
        nested = str(column.dtype).startswith(("list", "large_list", "struct", "map", "fixed_size"))
        found = str(column.dtype) if nested else ""
    else:
        kinds = {type(v) for v in column.dropna()} if column.dtype == object else set()
        found = ", ".join(sorted(t.__name__ for t in kinds if not issubclass(t, _SCALARS)))
    if found:
        raise DataError(
            f"Column {name!r} holds {found}; the levels of a grouping factor are text or numbers."
        )


def clear_labels(labels: Sequence[str], name: str, modelled: bool = True) -> None:
    """Raise where a label is a code for a missing value, or two labels look the same."""
    no_nul(labels, name)
    if twins := look_alike(labels):
        one, other = twins
        raise DataError(
            f"Column {name!r} holds the labels {one!a} and {other!a}, which look the same. Make them "
            f"one by data[{name!r}].str.strip().str.normalize('NFC'), or give one of them another name."
        )
    codes = [x for x in labels if x.strip().lower() in (_NO_LABEL if modelled else {"", "."})]
    if codes:
        raise DataError(
            f"Column {name!r} holds the label {some(codes)}, which often stands for a missing value. Make "
            f"it missing by data[{name!r}].replace({codes[0]!r}, None), or give the label another name."
        )


def computable(values: np.ndarray, name: str) -> None:
    """Raise where numbers are too large, too small or too far from 0 for sums of their squares."""
    size = np.abs(values[~np.isnan(values)])
    size = size[size > 0]
    if not size.size:
        return
    if size.max() > _LARGEST or size.max() < 1 / _LARGEST:
        raise DataError(
            f"Column {name!r} holds numbers as {'large' if size.max() > 1 else 'small'} as {size.max():.3g}, "
            "which cannot be computed with. Choose another unit."
        )
    spread = float(np.nanstd(values)) if size.max() > size.min() else 0.0
    if 0 < spread < np.abs(np.nanmean(values)) / _FARTHEST:
        raise DataError(
            f"Column {name!r} lies about {np.nanmean(values):.3g} with an SD of {spread:.3g}, so that "
            f"rounding takes what tells its values apart. Subtract a number, such as data[{name!r}].mean()."
        )


def no_nul(labels: Iterable[str], name: str) -> None:
    """Raise where a label holds the character NUL, which no file can keep."""
    odd = [x for x in labels if "\0" in x]
    if odd:
        raise DataError(
            f"Column {name!r} holds the label {odd[0]!r} with the character NUL in it. Take it out by "
            f"data[{name!r}].str.replace(chr(0), '')."
        )


def some(values) -> str:
    """The first few of some values, and how many more there are."""
    values = [f"{v!r}" if isinstance(v, str) else f"{v}" for v in list(values)]
    more = f" and {len(values) - _SHOW:,} more" if len(values) > _SHOW else ""
    return ", ".join(values[:_SHOW]) + more


def rows_of(mask) -> str:
    """How many rows a mask holds, and the first few of them."""
    rows = np.flatnonzero(np.asarray(mask))
    return f"{len(rows):,} rows (row {some(rows)}, counted from 0)"
