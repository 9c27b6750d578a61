"""Conditions on history: a small safe grammar, parsed here and never evaluated as Python.

    condition  := and_part ("or" and_part)*
    and_part   := not_part ("and" not_part)*
    not_part   := "not" not_part | "(" condition ")" | comparison
    comparison := operand ("==" | "!=" | "<" | "<=" | ">" | ">=") operand
                | operand ["not"] "in" "[" literal ("," literal)* "]"
    operand    := column | number | 'text' | "text" | True | False

Missing values follow three-valued logic: a comparison with a missing value is unknown, `unknown and
False` is False, `unknown or True` is True.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bdtr.results.errors import BdtrError, shown
from bdtr.results.labels import label_text

__all__ = ["Condition", "ConditionError"]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
      | (?P<text>'[^']*'|"[^"]*")
      | (?P<compare>==|!=|<=|>=|<|>)
      | (?P<name>[^\W\d]\w*)
      | (?P<mark>[()\[\],])
    )""",
    re.VERBOSE,
)
_COMPARE: dict[str, Callable] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_DEEPEST, _LONGEST = 50, 5_000
_WORDS = {"and", "or", "not", "in"}
_EXACT = 2.0**53
_TRUTH = {"True": 1.0, "False": 0.0}  # as columns of truth values are coded
_HELP = (
    "Allowed are column names, numbers, quoted text, == != < <= > >=, in [..], not in [..], "
    "and, or, not, and parentheses; for example \"responder == 0 and arm in ['A', 'B']\"."
)


class ConditionError(BdtrError, ValueError):
    """A condition that cannot be read, or that does not fit the data."""


@dataclass(frozen=True)
class _Column:
    name: str


@dataclass(frozen=True)
class _Literal:
    value: float | str


@dataclass(frozen=True)
class _Comparison:
    left: _Column | _Literal
    op: str
    right: _Column | _Literal


@dataclass(frozen=True)
class _Membership:
    left: _Column | _Literal
    values: tuple[float | str, ...]
    negated: bool


@dataclass(frozen=True)
class _Not:
    part: _Node


@dataclass(frozen=True)
class _Junction:
    op: str  # "and" | "or"
    parts: tuple[_Node, ...]


type _Node = _Comparison | _Membership | _Not | _Junction


class Condition:
    """A condition on the columns of a data frame, such as ``"a1 != 'small'"``.

    Parameters
    ----------
    text
        The condition in the grammar of this module.

    Raises
    ------
    ConditionError
        If the text is outside the grammar.

    Examples
    --------
    >>> import pandas as pd
    >>> Condition("x > 1 or g in ['a']").evaluate(pd.DataFrame({"x": [0, 2], "g": ["b", "b"]}))
    array([0, 1], dtype=int8)
    """

    def __init__(self, text: str):
        if not isinstance(text, str) or not text.strip():
            raise ConditionError(f"A condition must be a non-empty text, not {text!r}. {_HELP}")
        self.text = text
        self._tree = _Parser(text).parse()
        self.columns: tuple[str, ...] = tuple(dict.fromkeys(_columns(self._tree)))

    @property
    def pairs(self) -> list[set[str]]:
        """Columns that are compared with each other by == or !=."""
        return list(_pairs(self._tree))

    def __repr__(self) -> str:
        return f"Condition({self.text!r})"

    def evaluate(self, frame: pd.DataFrame) -> np.ndarray:
        """Truth of the condition in each row.

        Parameters
        ----------
        frame
            Data with the columns that the condition names.

        Returns
        -------
        numpy.ndarray
            One int8 per row: 1 true, 0 false, -1 unknown because a value is missing.

        Raises
        ------
        ConditionError
            If a column is absent or text is compared with numbers.
        """
        self.check_columns(frame.columns)
        return _truth(self._tree, frame, self.text)

    def check_labels(self, frame: pd.DataFrame, where: str) -> None:
        """Raise if the condition names a label that no row has, or a number by == or in; a number that is
        ruled out, as a code for missing is, need not be there.

        Parameters
        ----------
        frame
            Coded data: text, categories, numbers.
        where
            Where the condition stands, for the message.
        """
        for name, label, wanted in _compared(self._tree):
            if name not in frame.columns:
                continue
            column = frame[name]
            if pd.api.types.is_numeric_dtype(column.dtype):
                self._check_number(label, column, where, wanted)
                continue
            known = _known_labels(column)
            if label_text(label) not in known:
                some = ", ".join(map(repr, known[:10])) + (", .." if len(known) > 10 else "")
                raise ConditionError(
                    f"{where}: the condition {self.text!r} names {label_text(label)!r}, a label "
                    f"that no unit has in "
                    f"{name!r}. Labels there: {some}. Capitals and blanks count; labels are quoted."
                )

    def _check_number(
        self, value: float | str, column: pd.Series, where: str, wanted: bool
    ) -> None:
        number = _as_numbers(np.asarray([value], dtype=object))
        present = np.unique(column.dropna().to_numpy(dtype=float))
        if number is not None and (not wanted or number[0] in present):
            return
        some = ", ".join(map(label_text, present[:10])) + (", .." if len(present) > 10 else "")
        why = (
            f"compares {column.name!r} with {value!r}, but its values are numbers, such as"
            if number is None
            else f"names {number[0]:g}, a value that no unit has in {column.name!r}. Values there:"
        )
        raise ConditionError(f"{where}: the condition {self.text!r} {why} {some}.")

    def check_columns(self, available: Iterable[str]) -> None:
        """Raise if the condition names a column that the data do not have."""
        available = list(available)
        absent = [name for name in self.columns if name not in available]
        if absent:
            raise ConditionError(
                f"The condition {self.text!r} names {', '.join(map(repr, absent))}, which the data "
                f"do not have. Columns: {', '.join(map(str, available))}."
            )


class _Parser:
    def __init__(self, text: str):
        self.text = text
        self.tokens = self._tokens()
        self.at = 0
        self.depth = 0

    def _tokens(self) -> list[tuple[str, str]]:
        found, at, text = [], 0, self.text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                self.fail(f"cannot read {text[at:].strip()[:20]!r}")
            kind = match.lastgroup
            value = match.group(kind)
            if len(found) >= _LONGEST:
                self.fail(f"it has more than {_LONGEST:,} names, values and marks")
            found.append(("word" if kind == "name" and value in _WORDS else kind, value))
            at = match.end()
        return found

    def fail(self, why: str):
        raise ConditionError(f"The condition {shown(self.text)} is not understood: {why}. {_HELP}")

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "the end")

    def take(self) -> tuple[str, str]:
        token = self.peek()
        self.at += 1
        return token

    def accept(self, value: str) -> bool:
        kind, found = self.peek()
        if found == value and kind in ("word", "mark"):
            self.at += 1
            return True
        return False

    def expect(self, value: str) -> None:
        if not self.accept(value):
            self.fail(f"expected {value!r} but found {self.peek()[1]!r}")

    def parse(self) -> _Node:
        tree = self.junction("or")
        if self.peek()[0] != "end":
            self.fail(f"did not expect {self.peek()[1]!r}")
        return tree

    def junction(self, word: str) -> _Node:
        def part() -> _Node:
            return self.junction("and") if word == "or" else self.negation()

        parts = [part()]
        while self.accept(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else _Junction(word, tuple(parts))

    def negation(self) -> _Node:
        negated = False
        while self.accept("not"):
            negated = not negated
        if self.accept("("):
            self.depth += 1
            if self.depth > _DEEPEST:
                self.fail(f"it is nested more than {_DEEPEST} deep")
            tree = self.junction("or")
            self.expect(")")
            self.depth -= 1
        else:
            tree = self.comparison()
        return _Not(tree) if negated else tree

    def comparison(self) -> _Node:
        left = self.operand()
        negated = self.accept("not")
        if self.accept("in"):
            return _Membership(left, self.values(), negated)
        kind, op = self.take()
        if negated or kind != "compare":
            self.fail(f"expected a comparison after {_show(left)}, found {op!r}")
        return _Comparison(left, op, self.operand())

    def operand(self) -> _Column | _Literal:
        kind, value = self.take()
        if kind == "name":
            return _Literal(_TRUTH[value]) if value in _TRUTH else _Column(value)
        if kind == "number":
            number = float(value)
            if math.isinf(number):
                self.fail(f"{value[:20]} is no number")
            return _Literal(number)
        if kind == "text":
            return _Literal(value[1:-1])
        self.fail(f"expected a column, a number or quoted text, found {value!r}")
        raise AssertionError

    def values(self) -> tuple[float | str, ...]:
        self.expect("[")
        found = []
        while True:
            item = self.operand()
            if isinstance(item, _Column):
                self.fail(f"a list holds numbers or quoted text, not the column {item.name!r}")
            else:
                found.append(item.value)
            if not self.accept(","):
                break
        self.expect("]")
        return tuple(found)


def _show(operand: _Column | _Literal) -> str:
    return repr(operand.name if isinstance(operand, _Column) else operand.value)


def _columns(node):
    match node:
        case _Column(name):
            yield name
        case _Comparison(left, _, right):
            yield from _columns(left)
            yield from _columns(right)
        case _Membership(left, _, _):
            yield from _columns(left)
        case _Not(part):
            yield from _columns(part)
        case _Junction(_, parts):
            for part in parts:
                yield from _columns(part)


def _pairs(node: _Node):
    match node:
        case _Not(part):
            yield from _pairs(part)
        case _Junction(_, parts):
            for part in parts:
                yield from _pairs(part)
        case _Comparison(_Column(left), "==" | "!=", _Column(right)):
            yield {left, right}


def _compared(node: _Node, wanted: bool = True):
    """Columns, the labels or numbers that ``==``, ``!=`` and ``in`` compare them with, and whether these are
    wanted and not ruled out."""
    match node:
        case _Comparison(left, op, right) if op in ("==", "!="):
            for one, other in ((left, right), (right, left)):
                if isinstance(one, _Column) and isinstance(other, _Literal):
                    yield one.name, other.value, wanted == (op == "==")
        case _Membership(_Column(name), values, negated):
            for value in values:
                yield name, value, wanted != negated
        case _Not(part):
            yield from _compared(part, not wanted)
        case _Junction(_, parts):
            for part in parts:
                yield from _compared(part, wanted)


def _known_labels(column: pd.Series) -> list[str]:
    """Labels of a text column in order; of categories all that are declared."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [label_text(c) for c in column.cat.categories]
    return sorted({label_text(v) for v in column.dropna().unique()})


def _truth(node: _Node, frame: pd.DataFrame, text: str) -> np.ndarray:
    match node:
        case _Not(part):
            inner = _truth(part, frame, text)
            return np.where(inner < 0, -1, 1 - inner).astype(np.int8)
        case _Junction(op, parts):
            truths = np.stack([_truth(part, frame, text) for part in parts])
            decisive = 0 if op == "and" else 1
            decided = (truths == decisive).any(axis=0)
            unknown = (truths < 0).any(axis=0)
            return np.where(decided, decisive, np.where(unknown, -1, 1 - decisive)).astype(np.int8)
        case _Comparison(left, op, right):
            a, b = _values(left, frame), _values(right, frame)
            a, b = _comparable(a, b, op, text)
            return _known(_COMPARE[op](a, b), a, b, len(frame))
        case _Membership(left, values, negated):
            a = _values(left, frame)
            hit = np.zeros(np.shape(a), dtype=bool)
            for value in values:
                x, y = _comparable(a, np.asarray(value), "==", text)
                hit = hit | (x == y)
            return _known(~hit if negated else hit, a, a, len(frame))
    raise AssertionError(node)


def _values(operand: _Column | _Literal, frame: pd.DataFrame) -> np.ndarray:
    if isinstance(operand, _Literal):
        return np.asarray(operand.value)
    column = frame[operand.name]
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if pd.api.types.is_bool_dtype(column.dtype):
        return column.astype(float).to_numpy()
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy(dtype=float, na_value=np.nan)
    return column.astype(object).to_numpy()


def _is_text(values: np.ndarray) -> bool:
    return values.dtype.kind in "OU"


def _comparable(a: np.ndarray, b: np.ndarray, op: str, text: str):
    if op in ("==", "!="):
        return _equated(a, b, text)
    if _is_text(a) != _is_text(b):
        quoted = any(v.ndim == 0 and _is_text(v) for v in (a, b))
        left, right = (None, None) if quoted else (_as_numbers(a), _as_numbers(b))
        if left is not None and right is not None:
            return left, right
        raise ConditionError(
            f"The condition {text!r} compares text with numbers by {op}. Quote text, and use "
            "numbers only with columns of numbers."
        )
    if _is_text(a):
        raise ConditionError(
            f"The condition {text!r} orders text by {op}; text has only == and != and in [..]."
        )
    return a, b


def _equated(a: np.ndarray, b: np.ndarray, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Both sides of == as numbers, or as labels."""
    for one in (a, b):
        if not _is_text(one) and one.size and np.nanmax(np.abs(one), initial=0.0) >= _EXACT:
            raise ConditionError(
                f"The condition {text!r} compares whole numbers from 2**53 on, which are not exact. Turn the "
                "columns into text (astype(str)), and quote the labels."
            )
    if _is_text(a) == _is_text(b):
        return a, b
    words, numbers = (a, b) if _is_text(a) else (b, a)
    if not numbers.ndim:  # a number that names a label kept as text, such as "1"
        return _as_labels(a), _as_labels(b)
    found = _as_numbers(words)
    labels = {str(v) for v in words.reshape(-1) if not pd.isna(v)}
    if found is None or len({float(v) for v in labels}) < len(labels):
        raise ConditionError(
            f"The condition {text!r} compares text with numbers: {', '.join(map(repr, sorted(labels)[:5]))} "
            "are not one number each. Turn both columns into text, or into numbers."
        )
    return found, numbers


def _as_labels(values: np.ndarray) -> np.ndarray:
    flat = [None if pd.isna(v) else label_text(v) for v in values.astype(object).reshape(-1)]
    return np.array(flat, dtype=object).reshape(values.shape)


def _as_numbers(values: np.ndarray) -> np.ndarray | None:
    """Numbers kept as text, such as the labels of a grouping factor; None if there is other text."""
    try:
        return np.where(pd.isna(values), np.nan, values.astype(object)).astype(float)
    except (TypeError, ValueError):
        return None


def _known(result: np.ndarray, a: np.ndarray, b: np.ndarray, rows: int) -> np.ndarray:
    unknown = np.asarray(pd.isna(a)) | np.asarray(pd.isna(b))
    truth = np.where(unknown, -1, np.asarray(result, dtype=np.int8))
    return np.broadcast_to(truth, (rows,)).astype(np.int8)
