"""The columns of a stage's model, for the action taken and for any counterfactual action."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from formulaic import ModelSpec
from formulaic.errors import FactorEvaluationError

from bdtr.coding import Coding, label_series
from bdtr.data import StageData, TrialData
from bdtr.formula import TRANSFORMS, Formula
from bdtr.history import delivered_now
from bdtr.multilevel.layout import Factor

__all__ = ["DesignError", "GroupDesign", "StageDesign", "stage_design", "term_columns"]

_CONTEXT = {"sqrt": np.sqrt}  # the other transforms are formulaic's own
_MIN_SITES_PER_MEAN = 3
_NONE = -1  # code of a level that the fit has not seen


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
        used = _names(text)
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

    def involves(self, variable: str) -> list[bool]:
        """Whether each column is made from a variable."""
        found = [False] * len(self.names)
        for term, positions in self._spec.term_indices.items():
            for i in positions:
                found[i] = variable in {str(v) for factor in term.factors for v in _names(factor)}
        return found

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


def _names(text: object) -> set[str]:
    return set(re.findall(r"[^\W\d]\w*", str(text)))


def _plain(state: Any) -> Any:
    if isinstance(state, Mapping):
        return {key: _plain(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [_plain(value) for value in state]
    if isinstance(state, np.generic):
        return state.item()
    return state


@dataclass(frozen=True)
class GroupDesign:
    """A grouping factor of a stage: its columns, its levels, and its part in the Q-function.

    ``role`` is ``"site"``, ``"history"`` (known when the action is chosen) or ``"delivery"`` (formed
    with the action, so integrated out of the Q-function).
    """

    factor: tuple[str, ...]
    columns: Columns
    keep: tuple[int, ...]
    correlated: bool
    role: str
    levels: np.ndarray

    @property
    def name(self) -> str:
        """The factor as in the formula."""
        return ":".join(self.factor)

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the coefficients that vary between levels."""
        return tuple(self.columns.names[i] for i in self.keep)

    def matrix(self, frame: pd.DataFrame) -> np.ndarray:
        """Row x term values."""
        return self.columns.matrix(frame)[:, list(self.keep)]

    def labels(self, frame: pd.DataFrame) -> np.ndarray:
        """Label of each row's level."""
        return factor_labels(frame, self.factor)

    def codes(self, frame: pd.DataFrame) -> np.ndarray:
        """Position of each row's level, -1 for levels the fit has not seen or missing ones."""
        return pd.Index(self.levels).get_indexer(pd.Index(self.labels(frame)))


def _one_action(actions: Sequence[str], code: int, rows: int) -> Any:
    """A column in which everyone has one action."""
    return pd.Categorical([actions[code]] * rows, categories=list(actions))


def factor_labels(frame: pd.DataFrame, factor: Sequence[str]) -> np.ndarray:
    """Labels of a (combined) factor; missing where any part is missing."""
    first, *rest = [label_series(frame[name]).astype(object) for name in factor]
    labels = first
    for part in rest:
        labels = labels + ":" + part
    return labels.where(labels.notna(), None).to_numpy(dtype=object)


@dataclass(frozen=True)
class StageDesign:
    """All columns of a stage's model.

    ``terms`` names the common columns; the last ones may be site means (Mundlak), each minus its
    average over the rows of the fit. ``centre`` holds the mean of each column over these rows, 0 for
    the intercept.
    """

    index: int
    action: str
    actions: tuple[str, ...]
    formula: Formula
    coding: Coding
    columns: Columns
    keep: tuple[int, ...]
    mean_of: tuple[int, ...]
    site_means: np.ndarray  # site x mean
    centre: np.ndarray
    scale: np.ndarray
    groups: tuple[GroupDesign, ...]
    notes: tuple[str, ...]
    site: str | None
    site_levels: np.ndarray
    has_intercept: bool

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the common columns."""
        names = self.columns.names
        return tuple(names[i] for i in self.keep) + tuple(
            f"site_mean({names[i]})" for i in self.mean_of
        )

    @property
    def factors(self) -> tuple[Factor, ...]:
        """The grouping factors as the exact engine takes them."""
        return tuple(Factor(g.name, len(g.levels), len(g.terms), g.correlated) for g in self.groups)

    @property
    def shift(self) -> np.ndarray:
        """What the intercept moves by when columns are centred: site means stay centred for good."""
        return np.where(np.arange(len(self.centre)) < len(self.keep), self.centre, 0.0)

    @property
    def history(self) -> tuple[str, ...]:
        """Columns that must be known before the Q-function can be computed, the action apart."""
        delivered = {c for g in self.groups if g.role == "delivery" for c in g.factor}
        gone = {self.action, *(delivered - set(self.formula.model_columns))}
        return tuple(c for c in self.formula.columns if c not in gone)

    def acting(self, frame: pd.DataFrame, action: int) -> pd.DataFrame:
        """The same history with everyone given one action."""
        return frame.assign(**{self.action: _one_action(self.actions, action, len(frame))})

    def site_codes(self, frame: pd.DataFrame) -> np.ndarray:
        """Position of each row's site in the site index, -1 for unseen ones; 0 without sites."""
        return _site_codes(frame, self.site, self.site_levels)

    def common(self, frame: pd.DataFrame, site_code: np.ndarray) -> np.ndarray:
        """Common columns, centred; unseen sites (code -1) have the average of the site means."""
        own = self.columns.matrix(frame)[:, list(self.keep)]
        if self.mean_of:
            average = self.centre[len(self.keep) :]
            table = np.vstack([self.site_means, average])
            own = np.hstack([own, table[site_code]])
        return own - self.centre


def stage_design(data: TrialData, k: int) -> StageDesign:
    """The columns of stage k, learned from the rows of its fit.

    Parameters
    ----------
    data
        Checked data.
    k
        Stage, from 0.

    Returns
    -------
    StageDesign

    Raises
    ------
    DesignError
        If columns are exactly collinear for another reason than the feasible sets.
    """
    stage, trial, site_levels = data.stages[k], data.trial, data.site_levels
    rows = data.frame[stage.fitted].reset_index(drop=True)
    columns = Columns(stage.formula.common, {}, rows)
    points = _feasible_points(data, k)
    keep, notes = _kept(columns, columns.matrix(points), stage.stage.action, "")
    groups = []
    for term in stage.formula.groups:
        inner = Columns(term.expression, {}, rows)
        kept, more = _kept(inner, inner.matrix(points), stage.stage.action, f", ({term.name})")
        notes += more
        groups.append(
            GroupDesign(
                term.factor,
                inner,
                kept,
                term.correlated and len(kept) > 1,
                _role(data, k, term.factor),
                _levels(data, term.factor),
            )
        )
    has_intercept = "Intercept" in columns.names
    matrix = columns.matrix(rows)[:, list(keep)]
    if stage.stage.model is not None:
        notes = []  # nothing is fitted with these columns
    else:
        _check_rank(matrix, [columns.names[i] for i in keep], stage, has_intercept)
    mean_of, means, more = _site_means(data, k, columns, keep, groups, site_levels)
    notes += more
    if mean_of:
        codes = _site_codes(rows, trial.site, site_levels)
        both = np.hstack([matrix, means[codes]])
        if np.linalg.matrix_rank(both - both.mean(axis=0)) < both.shape[1] - has_intercept:
            notes.append(
                f"stage {stage.stage.action}: site means are left out, as they are exactly collinear "
                "with the other columns."
            )
            mean_of, means = (), np.zeros((len(site_levels), 0))
        else:
            matrix = both
    centre, scale = matrix.mean(axis=0), matrix.std(axis=0, ddof=1)
    if has_intercept:
        centre[0], scale[0] = 0.0, 1.0
    else:
        centre[: len(keep)] = 0.0  # site means are deviations from their average all the same
    scale = np.where(scale > 1e-12, scale, 1.0)
    return StageDesign(
        k,
        stage.stage.action,
        tuple(stage.stage.actions or ()),
        stage.formula,
        data.coding,
        columns,
        keep,
        mean_of,
        means,
        centre,
        scale,
        tuple(groups),
        tuple(notes),
        trial.site,
        site_levels,
        has_intercept,
    )


def _role(data: TrialData, k: int, factor: tuple[str, ...]) -> str:
    if factor == (data.trial.site,):
        return "site"
    if factor == (delivered_now(data.trial, k),):
        return "delivery"
    return "history"


def _levels(data: TrialData, factor: tuple[str, ...]) -> np.ndarray:
    if factor == (data.trial.site,):
        return data.site_levels
    labels = factor_labels(data.frame, factor)
    return np.array(list(dict.fromkeys(x for x in labels if x is not None)), dtype=object)


def _site_codes(frame: pd.DataFrame, site: str | None, levels: np.ndarray) -> np.ndarray:
    if site is None:
        return np.zeros(len(frame), dtype=np.int64)
    return pd.Index(levels).get_indexer(pd.Index(factor_labels(frame, (site,))))


def _feasible_points(data: TrialData, k: int) -> pd.DataFrame:
    """Every history in the data with every action feasible there: where the model must be defined."""
    stage = data.stages[k]
    use = stage.history | stage.fitted
    frame = data.frame[use].reset_index(drop=True)
    blocks = []
    for code in range(stage.feasible.shape[1]):
        block = frame[stage.feasible[use, code]]
        action = _one_action(stage.stage.actions or (), code, len(block))
        blocks.append(block.assign(**{stage.stage.action: action}))
    return pd.concat(blocks, ignore_index=True)


def _kept(
    columns: Columns, points: np.ndarray, action: str, part: str
) -> tuple[tuple[int, ...], list[str]]:
    """Drop columns that the feasible sets make zero or identical to an earlier one.

    Only the action of the stage is set to what is feasible, so one of the two must be made from it;
    anything else that coincides is for the rank check to report.
    """
    own = columns.involves(action)
    keep: list[int] = []
    notes = []
    for i, name in enumerate(columns.names):
        twin = next(
            (j for j in keep if (own[i] or own[j]) and np.array_equal(points[:, i], points[:, j])),
            None,
        )
        if own[i] and not points[:, i].any():
            why = "no feasible action makes it other than 0"
        elif twin is not None:
            why = f"with the feasible sets it is the same column as {columns.names[twin]}"
        else:
            keep.append(i)
            continue
        notes.append(f"stage {action}{part}: {name} is dropped; {why}.")
    return tuple(keep), notes


def _check_rank(
    matrix: np.ndarray, names: Sequence[str], stage: StageData, intercept: bool
) -> None:
    """Raise if columns are exactly collinear on the rows of the fit, naming them."""
    where = f"Stage({stage.stage.action!r})"
    unsupported = np.flatnonzero(~matrix.any(axis=0))
    counts = np.bincount(stage.action[stage.fitted], minlength=stage.feasible.shape[1])
    # A declared action that nobody took is reported by the gate, which refuses to recommend.
    if unsupported.size and (counts > 0).all():
        raise DesignError(
            f"{where}: no unit in the fit informs {', '.join(names[int(i)] for i in unsupported)}; every "
            "value is 0. Take the term out, or coarsen the column."
        )
    used = [i for i in range(matrix.shape[1]) if i not in unsupported]
    x = matrix[:, used]
    if intercept:  # as in the model, columns are compared about their means
        used, x = used[1:], x[:, 1:] - x[:, 1:].mean(axis=0)
        flat = np.sqrt((x**2).mean(axis=0)) <= 1e-10 * np.abs(matrix[:, used]).max(
            axis=0, initial=0
        )
        if flat.any():
            raise DesignError(
                f"{where}: {', '.join(names[used[i]] for i in np.flatnonzero(flat))} does not vary in "
                "the fit, so it cannot be told apart from the intercept. Take it out of the formula."
            )
    if not used:
        return
    norms = np.sqrt((x**2).mean(axis=0))
    values, vectors = np.linalg.eigh((x / norms).T @ (x / norms) / len(x))
    if values[0] < 1e-10 * values[-1]:
        involved = [names[used[i]] for i in np.flatnonzero(np.abs(vectors[:, 0]) > 1e-3)]
        raise DesignError(
            f"{where}: the columns {', '.join(involved)} are exactly collinear in the data; their "
            "coefficients cannot be told apart. Take one of them out of the formula."
        )


def _site_means(data, k, columns, keep, groups, site_levels):
    """Site means of individual history and of treatment shares (Mundlak 1978)."""
    stage, trial = data.stages[k], data.trial
    none = ((), np.zeros((len(site_levels), 0)), [])
    if not stage.stage.site_means or not any(g.role == "site" for g in groups):
        return none
    rows = data.frame[stage.fitted].reset_index(drop=True)
    x = columns.matrix(rows)
    site = _site_codes(rows, trial.site, site_levels)
    wanted = []
    for i in columns.main_effects:
        if i in keep and _varies_within(x[:, i], site, len(site_levels)):
            wanted.append(i)
    present = np.unique(site).size
    where = f"stage {stage.stage.action}"
    if not wanted:
        return none
    if present < _MIN_SITES_PER_MEAN * len(wanted):
        note = (
            f"{where}: site means are left out, {len(wanted)} of them are too many for {present} "
            f"sites (at least {_MIN_SITES_PER_MEAN} sites for each)."
        )
        return (), none[1], [note]
    counts = np.bincount(site, minlength=len(site_levels))
    means = np.full((len(site_levels), len(wanted)), np.nan)
    for m, i in enumerate(wanted):
        sums = np.bincount(site, weights=x[:, i], minlength=len(site_levels))
        means[counts > 0, m] = sums[counts > 0] / counts[counts > 0]
    notes = []
    if (counts == 0).any():
        means[counts == 0] = x[:, wanted].mean(axis=0)
        notes.append(
            f"{where}: {int((counts == 0).sum())} sites without rows have the average of the site "
            "means, and site effects drawn from their population distribution."
        )
    return tuple(wanted), means, notes


def _varies_within(values: np.ndarray, site: np.ndarray, sites: int) -> bool:
    counts = np.maximum(np.bincount(site, minlength=sites), 1)
    means = np.bincount(site, weights=values, minlength=sites) / counts
    return bool(np.abs(values - means[site]).max() > 1e-9 * max(1.0, np.abs(values).max()))


def term_columns(term: str) -> list[str]:
    """Columns of a term: "a1[small]:lunch" is of a1 and lunch."""
    return [part.split("[")[0] for part in term.split(":")]
