"""The grammar of stage formulas: what lme4 and R make of it, and nothing else.

    formula    := ["-"] item (("+" | "-") item)*
    item       := "0" | "1" | product | group | smooth
    product    := crossed ("*" crossed)*
    crossed    := atom (":" atom)*
    atom       := column | transform | "(" product (("+" | "-") product)* ")"
    group      := "(" formula ("|" | "||") column ((":" | "/") column)* ")"
    smooth     := "s(" column ("," column)* ["," "by" "=" column] ["," "k" "=" number] ")"
    transform  := name "(" arithmetic ["," number] ("," option "=" (number | True | False))* ")"
    arithmetic := + - * / ** of columns, numbers, transforms and parentheses

Formulas are read by formulaic, which evaluates Python. So every text is read here before it gets there, names
no attribute and calls nothing but the transforms; what it costs is limited: so many terms, knots and
parentheses.
"""

from __future__ import annotations

import keyword
import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from bdtr.results.errors import BdtrError, shown
from bdtr.trial.formula_dialects import how_here

__all__ = ["TRANSFORMS", "Formula", "FormulaError", "GroupTerm", "SmoothTerm", "names_in"]

# Options of each transform and the bounds of their values; the first may stand without its name.
_OPTIONS: dict[str, dict[str, tuple[float, float] | None]] = {
    "bs": {
        "df": (1, 100),
        "degree": (0, 10),
        "include_intercept": None,
        "lower_bound": (-math.inf, math.inf),
        "upper_bound": (-math.inf, math.inf),
    },
    "poly": {"degree": (1, 10), "raw": None},
    "log": {},
    "sqrt": {},
    "exp": {},
    "scale": {},
    "center": {},
    "I": {},
}
_WHOLE = ("df", "degree")
TRANSFORMS = tuple(_OPTIONS)
_BASIS = (3, 50)  # k= of a smooth term
_VARIABLES = 4  # of a smooth term
_MOST_TERMS, _DEEPEST, _LONGEST = 500, 50, 2_000  # the last in names, numbers and marks
_LONGEST_TRANSFORM = 400
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)|(?P<name>[^\W\d]\w*)"
    r"|(?P<mark>\|\||\*\*|[-+*:/()|,=~]))"
)
_ALLOWED = (
    "A formula may name columns, use : * + - and 0 or 1, group terms such as (1 + a | school) or "
    "(1 + a || school), smooth terms such as s(x) or s(x, by=a), and the transforms "
    f"{', '.join(TRANSFORMS)} with arithmetic inside."
)
_RENAMED = " A column whose name is no plain word must be renamed first."

type _Token = tuple[str, str]
type _Term = frozenset[str]


def names_in(expression: str) -> set[str]:
    """Names in an expression: columns and transforms."""
    # Not those of options, the df of bs(x, df=4), nor the e of 1e5.
    return set(re.findall(r"(?<!\w)[^\W\d]\w*\b(?!\s*=(?!=))", expression))


class FormulaError(BdtrError, ValueError):
    """A formula outside the grammar, or naming what the data do not have."""


@dataclass(frozen=True)
class GroupTerm:
    """Coefficients that vary between the levels of a grouping factor.

    ``factor`` holds one column, or several whose combinations are the levels (nested factors). Without
    correlations (``||``) no two effects have one, as in brms; lme4 leaves those among the levels of a factor.
    """

    expression: str
    factor: tuple[str, ...]
    correlated: bool

    @property
    def name(self) -> str:
        """The factor as users write it, ``school`` or ``school:classroom``."""
        return ":".join(self.factor)


@dataclass(frozen=True)
class SmoothTerm:
    """A smooth function of one to four variables, one for each label of a column or, where that holds
    numbers, times it.

    Its linear part stands among the common terms of the formula. ``basis`` is the number of its basis
    functions, those of the linear part among them; None: the default.
    """

    variables: tuple[str, ...]
    by: str | None = None
    basis: int | None = None

    @property
    def name(self) -> str:
        """The term as users write it, ``s(x, by=a)``."""
        by = [] if self.by is None else [f"by={self.by}"]
        k = [] if self.basis is None else [f"k={self.basis}"]
        return f"s({', '.join([*self.variables, *by, *k])})"

    @property
    def key(self) -> tuple[frozenset[str], str | None]:
        """What it is a function of: terms with one key stand in for each other."""
        return frozenset(self.variables), self.by

    @property
    def linear(self) -> str:
        """Its linear part, ``x * a``."""
        alone = " + ".join(self.variables)
        if self.by is None:
            return alone
        return f"({alone}) * {self.by}" if len(self.variables) > 1 else f"{alone} * {self.by}"


@dataclass(frozen=True)
class Formula:
    """A parsed stage formula: the common part, the group terms and the smooth terms.

    ``columns`` are all columns in it, ``model_columns`` those whose values enter the model (all
    but pure grouping factors), ``transformed`` those inside transforms, which have to be numbers.

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
    transformed: tuple[str, ...] = ()
    smooths: tuple[SmoothTerm, ...] = ()

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
        reader = _Reader(text)
        common = reader.formula()
        factors = [frozenset(g.factor) for g in reader.groups]
        repeated = {g.name for g in reader.groups if factors.count(frozenset(g.factor)) > 1}
        if repeated:
            raise FormulaError(
                f"The formula {shown(text)} has several group terms for {', '.join(sorted(repeated))}. "
                "Write one term, with || instead of | for effects that are not correlated."
            )
        keys = [s.key for s in reader.smooths]
        twice = [s.name for s in reader.smooths if keys.count(s.key) > 1]
        if twice:
            raise FormulaError(
                f"The formula {shown(text)} has {' and '.join(twice)}: write one of them."
            )
        model_columns = tuple(c for c in reader.seen if c in reader.used)
        every = dict.fromkeys([*model_columns, *(c for g in reader.groups for c in g.factor)])
        transformed = tuple(dict.fromkeys(reader.transformed))
        return cls(
            text, common, tuple(reader.groups), tuple(every), model_columns, transformed,
            tuple(reader.smooths),
        )  # fmt: skip

    def check_columns(self, available: Iterable[str], where: str) -> None:
        """Raise if the formula names a column that the data do not have."""
        available = list(available)
        absent = [name for name in self.columns if name not in available]
        if absent:
            raise FormulaError(
                f"{where}: the formula {shown(self.text)} names {', '.join(map(repr, absent))}, which "
                f"the data do not have. Columns: {', '.join(map(str, available))}."
            )


def _tokens(text: str) -> list[_Token]:
    if not isinstance(text, str):
        raise FormulaError(f"A formula must be text, got {text!r}.")
    found, at, text = [], 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise FormulaError(
                f"The formula {shown(text)} holds {text[at:].strip()[:12]!r}, which is not allowed. "
                f"{how_here(text) or _ALLOWED + _RENAMED}"
            )
        found.append((match.lastgroup, match.group(match.lastgroup)))
        at = match.end()
        if len(found) > _LONGEST:
            raise FormulaError(
                f"The formula {shown(text)} has more than {_LONGEST:,} names, numbers and marks, "
                "which is more than is read."
            )
    if any(value == "~" for _, value in found):
        raise FormulaError(
            f"The formula {shown(text)} has a ~: give the right-hand side only. The left-hand side of "
            "a stage is its payoff, which the trial knows."
        )
    return found


def _join(tokens: Iterable[_Token]) -> str:
    text = " ".join(value for _, value in tokens)
    text = re.sub(r"(\w) \(", r"\1(", text)
    return re.sub(r"\( ", "(", re.sub(r" ([),])", r"\1", text)).replace(" = ", "=")


class _Reader:
    """Recursive descent; terms are sets of factors, each as it is written."""

    def __init__(self, text: str):
        self.tokens = _tokens(text)
        self.text = text
        self.at = 0
        self.depth = 0
        self.groups: list[GroupTerm] = []
        self.smooths: list[SmoothTerm] = []
        self.seen: dict[str, None] = {}  # columns, in the order in which they are named
        self.used: set[str] = set()  # those of the terms that remain
        self.transformed: list[str] = []
        self.made_of: dict[str, tuple[str, ...]] = {}  # columns of each factor

    def fail(self, why: str):
        raise FormulaError(f"The formula {shown(self.text)}{why}")

    @property
    def allowed(self) -> str:
        """How what is meant is written, or else what may be."""
        return how_here(self.text) or _ALLOWED

    def stuck(self):
        kind, value = self.peek()
        if value in ("|", "||"):
            self.fail(" has a bar outside parentheses: write a group term as (1 + a | school).")
        if value in ("**", "/", ",", "="):
            self.fail(f" holds {value!r}. {self.allowed}")
        if value == ")":
            self.fail(" closes a parenthesis it did not open, or one with nothing in it.")
        if kind == "end" and self.depth:
            self.fail(" has an open parenthesis.")
        if kind == "end":
            self.fail(" breaks off. A column, 0, 1 or a group term is due.")
        before = self.tokens[self.at - 1][1] if self.at else None
        where = f" after {before!r}" if before else ""
        self.fail(f" has {value!r}{where}. Columns are joined by : * + or -. {self.allowed}")

    def peek(self) -> _Token:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "the end")

    def take(self) -> _Token:
        token = self.peek()
        self.at += 1
        return token

    def accept(self, *marks: str) -> str | None:
        kind, value = self.peek()
        if kind != "mark" or value not in marks:
            return None
        self.at += 1
        return value

    def expect(self, mark: str) -> None:
        if not self.accept(mark):
            self.stuck()

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > _DEEPEST:
            self.fail(f" is nested more than {_DEEPEST} deep.")

    # Terms -------------------------------------------------------------------------------------------

    def formula(self) -> str:
        """The whole text; the common part of it, as written."""
        terms = {frozenset[str](): None}
        common: list[_Token] = []
        sign = self.accept("+", "-") or "+"
        while True:
            start = self.at
            if self._at_group():
                self._group(sign)
            else:
                if common or sign == "-":
                    common.append(("mark", sign))
                if self._at_smooth():
                    common += self._smooth(terms, sign)
                else:
                    self._item(terms, sign)
                    common += self.tokens[start : self.at]
            following = self.accept("+", "-")
            if following is None:
                break
            sign = following
        if self.peek()[0] != "end":
            self.stuck()
        self._uses(terms)
        return _join(common) or "1"

    def _uses(self, terms: Iterable[_Term]) -> None:
        self.used |= {c for term in terms for factor in term for c in self.made_of[factor]}

    def _sum(self, terms: dict[_Term, None], sign: str, constant: bool = True) -> None:
        """All items up to where no sign follows."""
        following: str | None = sign
        while following is not None:
            self._item(terms, following, constant)
            following = self.accept("+", "-")

    def _item(self, terms: dict[_Term, None], sign: str, constant: bool = True) -> None:
        """Add what stands after a sign to terms, or take it out; ``constant``: 0 and 1 may stand there."""
        kind, value = self.peek()
        if kind == "number" and not constant:
            self.fail(": 0 and 1, for the intercept, stand outside parentheses.")
        if kind == "number":
            self.at += 1
            if value not in ("0", "1"):
                self.fail(
                    f": the number {value} is not allowed outside a transform; only 0 and 1 are, for "
                    "the intercept. Use I(...) for arithmetic."
                )
            if value == "0" and sign == "-":
                self.fail(": write + 1 or - 1 for the intercept, not - 0.")
            if self.peek()[1] in (":", "*"):
                self.fail(f": {value} stands for the intercept and is multiplied by nothing.")
            if (value == "1") == (sign == "+"):
                terms[frozenset()] = None
            else:
                terms.pop(frozenset(), None)
            return
        found = self._product()
        if sign == "+":
            terms.update(dict.fromkeys(found))
        else:
            for term in found:
                if term not in terms:
                    self.fail(f" takes out {':'.join(sorted(term))}, which is not in it.")
                del terms[term]
        if len(terms) > _MOST_TERMS:
            self._too_many()

    def _too_many(self):
        self.fail(f" has more than {_MOST_TERMS} terms, which is more than data can tell apart.")

    def _product(self) -> list[_Term]:
        left = self._crossed()
        while self.accept("*"):
            right = self._crossed()
            left = list(dict.fromkeys([*left, *right, *self._cross(left, right)]))
        return left

    def _crossed(self) -> list[_Term]:
        left = self._atom()
        while self.accept(":"):
            left = self._cross(left, self._atom())
        return left

    def _cross(self, left: list[_Term], right: list[_Term]) -> list[_Term]:
        if len(left) * len(right) > _MOST_TERMS:
            self._too_many()
        return list(dict.fromkeys(a | b for a in left for b in right))

    def _atom(self) -> list[_Term]:
        kind, value = self.peek()
        if kind == "name":
            start = self.at
            self.at += 1
            call = self.peek()[1] == "("
            columns = self._transform(value) if call else (self._column(value),)
            factor = _join(self.tokens[start : self.at])
            self.made_of[factor] = columns
            return [frozenset({factor})]
        if self._at_group():
            before = self.tokens[self.at - 1][1] if self.at else "("
            self.fail(f": a group term is added with +, not {before!r}.")
        if not self.accept("("):
            self.stuck()
        self.deeper()
        terms: dict[_Term, None] = {}
        self._sum(terms, "+", constant=False)
        self.expect(")")
        self.depth -= 1
        return list(terms)

    def _column(self, name: str) -> str:
        if keyword.iskeyword(name) or name.startswith("__") or not name.isidentifier():
            self.fail(f": {name!r} is no column. {self.allowed}")
        if name in TRANSFORMS:
            self.fail(f": {name!r} is the name of a transform. Rename the column.")
        if unicodedata.normalize("NFKC", name) != name:
            self.fail(
                f": the column {name!r} must be renamed first: Python reads it as another name."
            )
        self.seen[name] = None
        return name

    # Group terms -------------------------------------------------------------------------------------

    def _at_group(self) -> bool:
        """Whether a parenthesis begins here that holds a bar of its own."""
        if self.peek()[1] != "(":
            return False
        depth = 0
        for _, value in self.tokens[self.at :]:
            depth += (value == "(") - (value == ")")
            if depth == 0:
                return False
            if depth == 1 and value in ("|", "||"):
                return True
        return False

    def _group(self, sign: str) -> None:
        if sign == "-":
            self.fail(": a group term is added with +, not '-'.")
        start = self.at
        self.at += 1
        self.deeper()
        terms = {frozenset[str](): None}
        first = self.at
        mark = self.accept("+", "-") or "+"
        if self.peek()[1] in ("|", "||"):
            self._bad_group(start)
        self._sum(terms, mark)
        expression = _join(self.tokens[first : self.at])
        if not terms:
            self.fail(f": the group term ({expression} | ...) has no effects that could vary.")
        bar = self.accept("|", "||")
        if bar is None:
            self.stuck()
        form, marks = [], set()
        while True:
            kind, value = self.take()
            if kind != "name":
                self._bad_group(start)
            form.append(value)  # no part of what formulaic reads: any word will do
            mark = self.accept(":", "/")
            if mark is None:
                break
            marks.add(mark)
        if len(marks) > 1 or len(set(form)) < len(form) or not self.accept(")"):
            self._bad_group(start)
        self.depth -= 1
        if self.peek()[1] in (":", "*"):
            self.fail(
                f": a group term is added with + and not multiplied ({self.peek()[1]!r}). Effects that vary "
                "between groups stand inside it, as in (1 + a | school)."
            )
        self._uses(terms)
        factors = (
            [tuple(form[: i + 1]) for i in range(len(form))] if "/" in marks else [tuple(form)]
        )
        self.groups += [GroupTerm(expression, factor, bar == "|") for factor in factors]

    def _bad_group(self, start: int):
        end = next((i for i in range(start, len(self.tokens)) if self.tokens[i][1] == ")"), None)
        inside = _join(self.tokens[start + 1 : end])
        self.fail(
            f": cannot read the group term ({inside}). Write "
            "(1 + a | school), (1 | school:classroom) or (1 | school/classroom)."
        )

    # Smooth terms ------------------------------------------------------------------------------------

    def _at_smooth(self) -> bool:
        here = self.tokens[self.at : self.at + 2]
        return [value for _, value in here] == ["s", "("]

    def _smooth(self, terms: dict[_Term, None], sign: str) -> list[_Token]:
        """Read a smooth term; the tokens of its linear part."""
        if sign == "-":
            self.fail(": a smooth term is added with +, not '-'.")
        self.at += 2
        variables, by, basis = [self._of_smooth()], None, None
        while self.accept(","):
            following = self.tokens[self.at + 1][1] if self.at + 1 < len(self.tokens) else ""
            if following != "=" and by is basis is None and len(variables) < _VARIABLES:
                variables.append(self._of_smooth())
                continue
            option, value = (
                self.take()[1],
                following == "=" and self.tokens[self.at + 1 : self.at + 2],
            )
            if option not in ("by", "k") or not value or (by, basis)[option == "k"] is not None:
                self.fail(
                    ": s(...) takes one to four columns of numbers, by= with a column, and k= with the "
                    "number of basis functions, as in s(x, by=a, k=8)."
                )
            self.at += 1
            if option == "by":
                by = self._of_smooth()
            else:
                basis = self._basis()
        if not self.accept(")"):
            self._no_column(self.peek()[1])
        if len({*variables, by}) < len(variables) + 1:
            self.fail(f": s(...) names {variables[0]!r} twice.")
        if self.peek()[1] in (":", "*"):
            self.fail(": a smooth term is not multiplied; s(x, by=a) is a curve for each action.")
        if basis is not None and basis < len(variables) + 2:
            self.fail(
                f": k= of s({', '.join(variables)}) must be {len(variables) + 2} or more, the constant, the "
                "line and one bend."
            )
        found = SmoothTerm(tuple(variables), by, basis)
        self.smooths.append(found)
        self.transformed += variables
        linear = [frozenset({v}) for v in variables]
        if by is not None:
            linear += [frozenset({by}), *(one | {by} for one in linear)]
        terms.update(dict.fromkeys(linear))
        return _tokens(found.linear)

    def _of_smooth(self) -> str:
        """A column of a smooth term."""
        kind, value = self.take()
        if kind != "name" or self.peek()[1] == "(":
            self._no_column(value if kind != "name" else f"{value}(...)")
        self.made_of[value] = (value,)
        return self._column(value)

    def _no_column(self, what: str):
        self.fail(
            f": s(...) takes columns, as in s(x) or s(x, z), and not {what!r}; compute one in the data."
        )

    def _basis(self) -> int:
        kind, value = self.take()
        low, high = _BASIS
        if kind != "number" or not value.isdigit() or not low <= int(value) <= high:
            self.fail(f": k= of s(...) must be a whole number from {low} to {high}.")
        return int(value)

    # Transforms --------------------------------------------------------------------------------------

    def _transform(self, name: str) -> tuple[str, ...]:
        """Columns of a transform, whose name has been read."""
        if name == "s":
            self.fail(
                ": a smooth term stands by itself, added with +, neither multiplied nor in parentheses; "
                "s(x, by=a) is a curve for each action."
            )
        if name not in _OPTIONS:
            self.fail(f" calls {name}(...), which is not allowed. {self.allowed}")
        start = self.at
        self.expect("(")
        self.deeper()
        before = len(self.transformed)
        self._arithmetic()
        found = tuple(dict.fromkeys(self.transformed[before:]))
        if not found:
            self.fail(f": {name}(...) names no column.")
        options = _OPTIONS[name]
        given: set[str] = set()
        while self.accept(","):
            option = self._option(name, options, given)
            given.add(option)
        self.expect(")")
        if self.at - start > _LONGEST_TRANSFORM:
            self.fail(
                f": {name}(...) holds more than {_LONGEST_TRANSFORM} names, numbers and marks. Compute "
                "such a column in the data."
            )
        self.depth -= 1
        return found

    def _option(self, name: str, options: dict, given: set[str]) -> str:
        kind, value = self.peek()
        if kind == "name" and value not in ("True", "False"):
            self.at += 1
            if not self.accept("="):
                self.fail(f": {name}(...) takes one expression.")
            if value not in options or value in given:
                allowed = f"{', '.join(options)}, once each" if options else "none"
                self.fail(f": {value}= is no option of {name}(...); allowed are {allowed}.")
            option = value
        elif options and not given:
            option = next(iter(options))
        else:
            self.fail(
                f": {name}(...) takes one expression"
                + (" and options by name." if options else ".")
            )
            raise AssertionError
        bounds = options[option]
        if bounds is None:
            if self.take()[1] not in ("True", "False"):
                self.fail(f": {option}= is True or False.")
            return option
        sign = -1.0 if self.accept("-") else 1.0
        kind, value = self.take()
        number = sign * float(value) if kind == "number" else math.nan
        whole = option not in _WHOLE or value.isdigit()
        if not (bounds[0] <= number <= bounds[1]) or math.isinf(number) or not whole:
            low, high = bounds
            span = f"a whole number from {low} to {high}" if option in _WHOLE else "a number"
            self.fail(f": {option}= of {name}(...) must be {span}.")
        return option

    def _arithmetic(self) -> float | None:
        """Value of an expression that is constant, None of one with columns."""
        left = self._arithmetic_product()
        while mark := self.accept("+", "-"):
            right = self._arithmetic_product()
            left = self._constant(mark, left, right)
        return left

    def _arithmetic_product(self) -> float | None:
        left = self._signed()
        while mark := self.accept("*", "/"):
            left = self._constant(mark, left, self._signed())
        return left

    def _signed(self) -> float | None:
        sign = 1.0
        while mark := self.accept("+", "-"):
            sign = -sign if mark == "-" else sign
        value = self._power()
        return value if value is None else sign * value

    def _power(self) -> float | None:
        base = self._operand()
        if not self.accept("**"):
            return base
        self.deeper()
        exponent = self._signed()
        self.depth -= 1
        return self._constant("**", base, exponent)

    def _operand(self) -> float | None:
        kind, value = self.peek()
        if kind == "number":
            self.at += 1
            number = float(value)
            if math.isinf(number) or re.match(r"0\d", value):
                self.fail(f": {value[:20]} is no number.")
            return number
        if kind == "name":
            self.at += 1
            if self.peek()[1] == "(":
                self._transform(value)
            else:
                self.transformed.append(self._column(value))
            return None
        if not self.accept("("):
            self.stuck()
        self.deeper()
        found = self._arithmetic()
        self.expect(")")
        self.depth -= 1
        return found

    def _constant(self, mark: str, left: float | None, right: float | None) -> float | None:
        """Arithmetic with numbers alone, done here so that none is too large to be done at all."""
        if mark == "/" and right == 0:
            self.fail(" divides by 0.")
        if left is None or right is None:
            return None
        try:
            value = {
                "+": lambda: left + right,
                "-": lambda: left - right,
                "*": lambda: left * right,
                "/": lambda: left / right,
                "**": lambda: left**right,
            }[mark]()
        except (OverflowError, ZeroDivisionError):
            value = math.inf
        if isinstance(value, complex) or not math.isfinite(value):
            self.fail(f": {left:g} {mark} {right:g} is no number.")
        return value
