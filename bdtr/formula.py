"""The grammar of stage formulas: a whitelist of tokens, and group terms split from the common part.

Formulas are read by formulaic, which evaluates Python. So nothing reaches it that is not made of
column names, ``:``, ``*``, ``+``, ``-``, 0 and 1, and the transforms named here with arithmetic inside.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["TRANSFORMS", "Formula", "FormulaError", "GroupTerm", "names_in"]

TRANSFORMS = ("bs", "poly", "log", "sqrt", "exp", "scale", "center", "I")
_OPTIONS = ("df", "degree", "include_intercept", "lower_bound", "upper_bound", "raw")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+)|(?P<name>[^\W\d]\w*)"
    r"|(?P<mark>\|\||\*\*|[-+*:/()|,=~]))"
)
_ALLOWED = (
    "A formula may name columns, use : * + - and 0 or 1, group terms such as (1 + a | school) or "
    f"(1 + a || school), and the transforms {', '.join(TRANSFORMS)} with arithmetic inside."
)


def names_in(expression: str) -> set[str]:
    """Names in an expression: columns and transforms."""
    return set(re.findall(r"[^\W\d]\w*", expression))


class FormulaError(ValueError):
    """A formula outside the grammar, or naming what the data do not have."""


@dataclass(frozen=True)
class GroupTerm:
    """Coefficients that vary between the levels of a grouping factor.

    ``factor`` holds one column, or several whose combinations are the levels (nested factors).
    """

    expression: str
    factor: tuple[str, ...]
    correlated: bool

    @property
    def name(self) -> str:
        """The factor as users write it, ``school`` or ``school:classroom``."""
        return ":".join(self.factor)


@dataclass(frozen=True)
class Formula:
    """A parsed stage formula: the common part and the group terms.

    ``columns`` are all columns it names, ``model_columns`` those whose values enter the model (all
    but pure grouping factors).

    Examples
    --------
    >>> Formula.parse("x * a + (1 + a | school)").groups[0].factor
    ('school',)
    """

    text: str
    common: str
    groups: tuple[GroupTerm, ...]
    columns: tuple[str, ...]
    model_columns: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Formula:
        """Read a formula.

        Parameters
        ----------
        text
            Right-hand side, such as ``"lunch + y_k * a2 + (1 + a2 | school)"``.

        Returns
        -------
        Formula

        Raises
        ------
        FormulaError
            If the text holds anything outside the grammar.
        """
        tokens = _tokens(text)
        common, groups = _split(tokens, text)
        columns: list[str] = []
        _check_expression(common, text, columns)
        for term in groups:
            _check_expression(_tokens(term.expression), text, columns)
        model_columns = tuple(dict.fromkeys(columns))
        columns += [c for term in groups for c in term.factor]
        names = [g.name for g in groups]
        repeated = {n for n in names if names.count(n) > 1}
        if repeated:
            raise FormulaError(
                f"The formula {text!r} has several group terms for {', '.join(sorted(repeated))}. "
                "Write one term, with || instead of | for effects that are not correlated."
            )
        every = tuple(dict.fromkeys(columns))
        return cls(text, _join(common) or "1", tuple(groups), every, model_columns)

    def check_columns(self, available: Iterable[str], where: str) -> None:
        """Raise if the formula names a column that the data do not have."""
        available = list(available)
        absent = [name for name in self.columns if name not in available]
        if absent:
            raise FormulaError(
                f"{where}: the formula {self.text!r} names {', '.join(map(repr, absent))}, which "
                f"the data do not have. Columns: {', '.join(map(str, available))}."
            )


type _Tokens = list[tuple[str, str]]


def _tokens(text: str) -> _Tokens:
    if not isinstance(text, str):
        raise FormulaError(f"A formula must be text, got {text!r}.")
    found, at, text = [], 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise FormulaError(
                f"The formula {text!r} holds {text[at:].strip()[:12]!r}, which is not allowed. "
                f"{_ALLOWED} A column whose name is no plain word must be renamed first."
            )
        found.append((match.lastgroup, match.group(match.lastgroup)))
        at = match.end()
    if any(value == "~" for _, value in found):
        raise FormulaError(
            f"The formula {text!r} has a ~: give the right-hand side only. The left-hand side of "
            "a stage is its payoff, which the trial knows."
        )
    return found


def _join(tokens: _Tokens) -> str:
    text = " ".join(value for _, value in tokens)
    text = re.sub(r"(\w) \(", r"\1(", text)
    return re.sub(r"\( ", "(", re.sub(r" ([),])", r"\1", text)).replace(" = ", "=")


def _split(tokens: _Tokens, text: str) -> tuple[_Tokens, list[GroupTerm]]:
    """Take the parentheses that hold a bar out of the common part."""
    common: _Tokens = []
    groups: list[GroupTerm] = []
    at = 0
    while at < len(tokens):
        kind, value = tokens[at]
        if value != "(" or (common and common[-1][0] == "name"):
            if value in ("|", "||"):
                raise FormulaError(
                    f"The formula {text!r} has a bar outside parentheses: write a group term as "
                    "(1 + a | school)."
                )
            common.append((kind, value))
            at += 1
            continue
        end = _closing(tokens, at, text)
        inside = tokens[at + 1 : end]
        if not any(v in ("|", "||") for _, v in inside):
            common.extend(tokens[at : end + 1])
        else:
            groups += _group_terms(inside, text)
            if common and common[-1][1] != "+":
                raise FormulaError(
                    f"The formula {text!r}: a group term is added with +, not {common[-1][1]!r}."
                )
            if common:
                common.pop()
            elif end + 1 < len(tokens) and tokens[end + 1][1] == "+":
                end += 1
        at = end + 1
    return common, groups


def _closing(tokens: _Tokens, start: int, text: str) -> int:
    depth = 0
    for at in range(start, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[at][1], 0)
        if depth == 0:
            return at
    raise FormulaError(f"The formula {text!r} has an open parenthesis.")


def _group_terms(inside: _Tokens, text: str) -> list[GroupTerm]:
    bars = [i for i, (_, v) in enumerate(inside) if v in ("|", "||")]
    left, right = inside[: bars[0]], inside[bars[0] + 1 :]
    form = [v for k, v in right if k == "name"]
    marks = [v for k, v in right if k != "name"]
    fits = len(bars) == 1 and left and len(form) == len(marks) + 1
    if not fits or len(set(marks)) > 1 or not set(marks) <= {":", "/"}:
        raise FormulaError(
            f"The formula {text!r}: cannot read the group term ({_join(inside)}). Write "
            "(1 + a | school), (1 | school:classroom) or (1 | school/classroom)."
        )
    expression, correlated = _join(left), inside[bars[0]][1] == "|"
    nested = bool(marks) and marks[0] == "/"
    factors = [tuple(form[: i + 1]) for i in range(len(form))] if nested else [tuple(form)]
    return [GroupTerm(expression, factor, correlated) for factor in factors]


def _check_expression(tokens: _Tokens, text: str, columns: list[str]) -> None:
    """Hold every token against the whitelist and collect the columns it names."""
    calls: list[str] = []  # for each open parenthesis the transform it belongs to, or ""
    for at, (kind, value) in enumerate(tokens):
        before = tokens[at - 1][1] if at else ""
        after = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        inside = any(calls)
        if kind == "name":
            if after == "(":
                if value not in TRANSFORMS:
                    raise FormulaError(
                        f"The formula {text!r} calls {value}(...), which is not allowed. {_ALLOWED}"
                    )
            elif after == "=" or (before == "=" and value in ("True", "False")):
                if not inside or (after == "=" and value not in _OPTIONS):
                    raise FormulaError(
                        f"The formula {text!r}: {value}= is no option; allowed are "
                        f"{', '.join(_OPTIONS)} inside a transform."
                    )
            elif keyword.iskeyword(value) or value.startswith("__"):
                raise FormulaError(f"The formula {text!r}: {value!r} is no column. {_ALLOWED}")
            else:
                columns.append(value)
        elif kind == "number":
            if not inside and value not in ("0", "1"):
                raise FormulaError(
                    f"The formula {text!r}: the number {value} is not allowed outside a transform; "
                    "only 0 and 1 are, for the intercept. Use I(...) for arithmetic."
                )
        elif value == "(":
            calls.append(before if before in TRANSFORMS else "")
        elif value == ")":
            if not calls:
                raise FormulaError(f"The formula {text!r} closes a parenthesis it did not open.")
            calls.pop()
        elif value in ("**", "/", ",", "=") and not inside:
            raise FormulaError(f"The formula {text!r} holds {value!r}. {_ALLOWED}")
    if calls:
        raise FormulaError(f"The formula {text!r} has an open parenthesis.")
