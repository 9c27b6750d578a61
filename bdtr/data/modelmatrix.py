"""The columns that one right-hand side makes of a frame, for the action taken and for any other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Any, cast

import numpy as np
import pandas as pd
from formulaic import Formula as Terms, ModelSpec

from bdtr.results.errors import BdtrError
from bdtr.trial.formula import TRANSFORMS, Formula, names_in

__all__ = ["Columns", "DesignError", "terms_of"]

_CONTEXT = {"sqrt": np.sqrt}  # the other transforms are formulaic's own
_MOST = 5_000  # columns that one formula may make
_CONSTANT = "Intercept"  # name of the column of ones; a covariate of that name is put in backticks


class DesignError(BdtrError, ValueError):
    """Columns from which the coefficients cannot be told apart."""


@lru_cache(256)  # asked for by each part of a design, and by the fit of each fold
def terms_of(text: str) -> tuple[frozenset[str], ...]:
    """Terms of a right-hand side as sets of factors; the intercept is the empty set.

    Every text that formulaic sees is held against the grammar here or in :class:`Columns`, wherever it
    comes from: formulaic evaluates it.
    """
    Formula.parse(text)
    make: Any = Terms
    return tuple(frozenset(str(f) for f in term.factors) - {"1"} for term in make(text))


class Columns:
    """The columns of one right-hand side, with the state of its transforms as learned at the fit."""

    def __init__(self, text: str, state: Mapping[str, Any], example: pd.DataFrame):
        read = Formula.parse(text)
        if read.groups:
            raise DesignError(f"{text!r}: has group terms, which are columns of their own.")
        read.check_columns(example.columns, "columns")
        self.text = text
        labels = {
            str(c): list(example[c].cat.categories)
            for c in example
            if example[c].dtype == "category"
        }
        self._few_enough(labels)
        spec = ModelSpec.from_spec(
            text, na_action="ignore", output="numpy", transform_state=dict(state)
        )
        matrix = self._made(spec, example)
        used = names_in(text)
        # One row that makes the columns again on load: levels come from the coding.
        self.example: dict[str, float | None] = {
            name: None if example[name].dtype == "category" else float(example[name].mean())
            for name in example.columns
            if name in used
        }
        self._spec = cast(ModelSpec, matrix.model_spec)
        self.parts: tuple[tuple[str, ...], ...] = tuple(self._parts(labels))
        self.names: tuple[str, ...] = tuple(":".join(p) or _CONSTANT for p in self.parts)
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise DesignError(
                f"The formula {text!r} makes several columns called {', '.join(sorted(twice))}: "
                "rename a label."
            )

    def _few_enough(self, labels: Mapping[str, Sequence[str]]) -> None:
        """Raise before more columns are made than any data can tell apart."""

        def most(factor: str) -> int:
            return len(labels[factor]) if factor in labels else _width(factor)

        count = sum(prod(map(most, term)) for term in terms_of(self.text))
        if count > _MOST:
            raise DesignError(
                f"The formula {self.text!r} makes {count:,} columns; at most {_MOST:,} are made. Leave out "
                "products of columns with many labels, or write them as group terms."
            )

    def _parts(self, labels: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
        """The columns that each column is a product of, none for the constant.

        "Intercept" is the name of the constant alone; a covariate of that name is put in backticks.
        """
        for column, own in labels.items():
            twice = [x for x in own if str(x).startswith("T.") and str(x)[2:] in own]
            if twice and column in names_in(self.text):
                raise DesignError(
                    f"The labels {twice[0]!r} and {twice[0][2:]!r} of {column!r} give columns one name."
                )
        names = [str(name) for name in self._spec.column_names]
        found: list[tuple[str, ...]] = [()] * len(names)
        for term, positions in self._spec.term_indices.items():
            factors = [str(f) for f in term.factors if str(f) != "1"]
            for i in positions if term.degree else ():
                parts = _split(names[i], factors, labels) or [names[i]]
                found[i] = tuple(f"`{p}`" if p == _CONSTANT else p for p in parts)
        return found

    def _made(self, spec: Any, frame: pd.DataFrame) -> Any:
        """The columns of a frame, or an error in which formulaic's own is the reason."""
        try:
            with np.errstate(all="ignore"):  # what is not finite is an error further on
                return spec.get_model_matrix(frame, context=_CONTEXT)
        except Exception as error:  # formulaic's, and those of all that it calls
            reason = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split("[", 1)[-1].rstrip("]")
            reason = " ".join(reason.split()) or type(error).__name__
            raise DesignError(
                f"The formula {self.text!r} cannot be computed for these units: {reason[:300]} A transform "
                "such as bs() is defined only over the range of the units of the fit."
            ) from None

    @property
    def state(self) -> dict[str, Any]:
        """State of the transforms (centres, scales, knots), plain numbers."""
        return _plain(self._spec.transform_state)

    @property
    def main_effects(self) -> tuple[int, ...]:
        """Positions of the columns that belong to one variable alone."""
        found = [i for t, at in self._spec.term_indices.items() for i in at if t.degree == 1]
        return tuple(i for i in found if self.names[i] != _CONSTANT)

    @property
    def term(self) -> list[int]:
        """Number of the term of each column."""
        out = [0] * len(self.names)
        for number, positions in enumerate(self._spec.term_indices.values()):
            for i in positions:
                out[i] = number
        return out

    @property
    def factors(self) -> list[frozenset[str]]:
        """Factors of the term of each column, as written: none for the intercept."""
        out = [frozenset[str]()] * len(self.names)
        for term, positions in self._spec.term_indices.items():
            for i in positions:
                out[i] = frozenset(str(f) for f in term.factors) - {"1"}
        return out

    @property
    def variables(self) -> list[frozenset[str]]:
        """Columns of the frame that each column is made from."""
        return [
            frozenset(v for f in factors for v in names_in(f) if v in self.example)
            for factors in self.factors
        ]

    def involves(self, variable: str) -> list[bool]:
        """Whether each column is made from a variable."""
        return [variable in own for own in self.variables]

    def matrix(self, frame: pd.DataFrame) -> np.ndarray:
        """Row x column values."""
        if self.names == (_CONSTANT,):
            return np.ones((len(frame), 1))
        values = self._made(self._spec, frame)
        out = np.ascontiguousarray(values, dtype=float)
        if not np.isfinite(out).all():
            bad = [
                n for n, ok in zip(self.names, np.isfinite(out).all(axis=0), strict=True) if not ok
            ]
            raise DesignError(
                f"The columns {', '.join(bad)} of the formula {self.text!r} are not finite for some "
                f"units: check the range that {', '.join(TRANSFORMS)} allow."
            )
        return out


def _plain(state: Any) -> Any:
    if isinstance(state, Mapping):
        return {key: _plain(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [_plain(value) for value in state]
    if isinstance(state, np.generic):
        return state.item()
    return state


def _width(factor: str) -> int:
    """Most columns that a factor can make: of a transform its largest number, which is df or degree."""
    if not factor.startswith(("bs(", "poly(")):
        return 1
    return max([4, *(int(n) for n in re.findall(r"\b\d{1,3}\b", factor))])


def _split(
    name: str, factors: Sequence[str], labels: Mapping[str, Sequence[str]]
) -> list[str] | None:
    """Name of a product as the names of what it is made of; labels may hold any mark.

    ``a[T.x:y]:z`` of the factors a and z is ``a[x:y]`` and ``z``.
    """
    if not factors:
        return None
    first, rest = factors[0], factors[1:]
    if first in labels:
        heads = [
            (f"{first}[{mark}{v}]", f"{first}[{v}]") for mark in ("T.", "") for v in labels[first]
        ]
    else:
        own = re.match(re.escape(first) + r"(\[\w+\])?", name)
        heads = [(own[0], own[0])] if own else []
    for head, part in heads:
        if not rest and name == head:
            return [part]
        if rest and name.startswith(f"{head}:"):
            others = _split(name[len(head) + 1 :], rest, labels)
            if others is not None:
                return [part, *others]
    return None
