"""The columns that one right-hand side makes of a frame, for the action taken and for any other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd
from formulaic import ModelSpec
from formulaic.errors import FactorEvaluationError

from bdtr.formula import TRANSFORMS, names_in

__all__ = ["Columns", "DesignError", "term_columns"]

_CONTEXT = {"sqrt": np.sqrt}  # the other transforms are formulaic's own


class DesignError(ValueError):
    """Columns from which the coefficients cannot be told apart."""


class Columns:
    """The columns of one right-hand side, with the state of its transforms as learned at the fit."""

    def __init__(self, text: str, state: Mapping[str, Any], example: pd.DataFrame):
        spec = ModelSpec.from_spec(
            text, na_action="ignore", output="numpy", transform_state=dict(state)
        )
        matrix = spec.get_model_matrix(example, context=_CONTEXT)
        self.text = text
        used = names_in(text)
        # One row that makes the columns again on load: levels come from the coding.
        self.example: dict[str, float | None] = {
            name: None if example[name].dtype == "category" else float(example[name].mean())
            for name in example.columns
            if name in used
        }
        self._spec = cast(ModelSpec, matrix.model_spec)
        names = [str(name).replace("[T.", "[") for name in self._spec.column_names]
        self.names: tuple[str, ...] = tuple(names)

    @property
    def state(self) -> dict[str, Any]:
        """State of the transforms (centres, scales, knots), plain numbers."""
        return _plain(self._spec.transform_state)

    @property
    def main_effects(self) -> tuple[int, ...]:
        """Positions of the columns that belong to one variable alone."""
        found = [i for t, at in self._spec.term_indices.items() for i in at if t.degree == 1]
        return tuple(i for i in found if self.names[i] != "Intercept")

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
        if self.names == ("Intercept",):
            return np.ones((len(frame), 1))
        try:
            values = self._spec.get_model_matrix(frame, context=_CONTEXT)
        except FactorEvaluationError as error:
            reason = str(error).split("[", 1)[-1].rstrip("]")
            raise DesignError(
                f"The formula {self.text!r} cannot be computed for some units: {reason} A transform "
                "such as bs() is defined only over the range of the units of the fit."
            ) from None
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


def term_columns(term: str) -> list[str]:
    """Columns of a term: "a1[small]:lunch" is of a1 and lunch."""
    return [part.split("[")[0] for part in term.split(":")]
