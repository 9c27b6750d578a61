r"""Treatment that reaches whole groups: factors within whose levels an action hardly ever varies.

An action is taken to reach whole levels of a factor where 85 % of the members of each, in 95 % of the
levels, have one action, and chance does not make it so. With levels of k_l members and actions of shares p_a,
the chance that a level does is q_l = sum_a P(Bin(k_l, p_a) >= .85 k_l); the chance that a share s of m levels
or more does is at most exp{-m KL(s || mean q)} (Hoeffding 1956, Ann. Math. Statist. 27(3), and Chernoff). So
a few coarse levels are passed over, such as eight districts of two schools. Members are units, or the
levels of a factor that the model knows already and within which the action does not vary: what is then
coarser, such as districts above schools, has to hold one action in more districts than schools treated one by
one would.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import bdtrc

from bdtr.data.modelmatrix import terms_of
from bdtr.trial.trial import Trial

if TYPE_CHECKING:
    from bdtr.data.trialdata import StageData

__all__ = ["DesignWarning", "shared_clusters", "treated_together", "unknown_clusters"]

_ALIKE = 0.95  # share of levels with one action; data may merge or split a few clusters
_MAJORITY = 0.85  # share of a level's members with its action; a few cross over
_CLEARLY = 2 / 3  # levels of a column against those of another that it is coarser than
_LEAST_LEVELS = 4  # fewer are a coarse covariate
_CHANCE = math.log(1e4)
_KNOWN_FOR = 0.5  # share of units whose level is known


class DesignWarning(UserWarning):
    """Something in the data that the model of a stage should probably know."""


@dataclass(frozen=True)
class _Found:
    """A column that the action hardly ever varies in: its place in ``order``, whether its ids count within
    sites, and its level by unit."""

    order: tuple[int, ...]
    name: str
    nested: bool
    codes: np.ndarray

    @property
    def levels(self) -> int:
        return int(self.codes.max()) + 1


def unknown_clusters(
    trial: Trial, stages: Sequence[StageData], frame: pd.DataFrame, numbers: Collection[str] = ()
) -> tuple[str, ...]:
    """Columns within whose levels an action hardly ever varies and whose effects the stage model lacks.

    The site column is one of them where the formula has no intercept by site, and so are ids that count
    within sites. What is nested in a factor that the model knows and that is treated as a whole needs no
    term; what is coarser does. Of several such columns the coarsest is named, and of those that are all but
    one to one the site, else text, else ids that run through, else other numbers and dates.

    Parameters
    ----------
    trial, stages
        The trial and who takes part in its stages.
    frame
        The user's data, columns that the trial does not use among them.
    numbers
        Columns that enter formulas as numbers.

    Returns
    -------
    tuple of str
        What is said, one text for each stage.
    """
    notes, actions = [], np.column_stack([stage.action for stage in stages])
    for stage in stages:
        found = _coarsest(_constant_columns(trial, stage, actions, frame, numbers))
        if not found:
            continue
        notes.append(_remedy(trial, stage, found[0], [x.name for x in found[1:4]]))
        warnings.warn(notes[-1], DesignWarning, stacklevel=4)
    return tuple(notes)


def treated_together(
    stage: StageData, frame: pd.DataFrame, numbers: Collection[str] = ()
) -> np.ndarray | None:
    """Level of the coarsest factor of the stage's model within which the action hardly ever varies.

    Parameters
    ----------
    stage
        Who takes part.
    frame
        The data.
    numbers
        Columns that enter formulas as numbers.

    Returns
    -------
    ndarray or None
        Codes over all units, -1 for those who choose no action or whose level is missing; None where
        units are treated one by one.
    """
    rows = _choosing(stage)
    if not rows.any():
        return None
    known = _known(_factors(stage, numbers), frame, rows, stage.action[rows])
    if not known:
        return None
    out = np.full(len(rows), -1)
    out[rows] = min(known, key=lambda codes: int(codes.max()))
    return out


def _constant_columns(
    trial: Trial,
    stage: StageData,
    actions: np.ndarray,
    frame: pd.DataFrame,
    numbers: Collection[str],
) -> list[_Found]:
    rows = _choosing(stage)
    if not rows.any():
        return []
    action, factors = stage.action[rows], _factors(stage, numbers)
    known = _known(factors, frame, rows, action)
    skip = {trial.unit, trial.outcome, *(n for s in trial.stages for n in (s.action, s.reward))}
    if not stage.by_formula:
        skip |= set(stage.formula.columns)
    out = []
    for at, name in enumerate(frame.columns):
        if name in skip or not _may_be_cluster(frame[name]):
            continue
        try:
            alone = _codes(frame, (name,), rows)
        except (TypeError, NotImplementedError):
            continue  # values that cannot be told apart, such as lists
        if _recodes(alone, actions[rows]) or _is_dose(frame[name], alone, action):
            continue
        ways = [] if (name,) in factors else [(alone, False)]
        if trial.site is not None and name != trial.site:
            joined = _codes(frame, (trial.site, name), rows)
            if joined.max() > alone.max():
                ways.append((joined, True))
        for codes, nested in ways:
            if _alike(codes, action) and not any(_explains(f, codes, action) for f in known):
                order = (name != trial.site, _kind(frame[name]), nested, at)
                out.append(_Found(tuple(map(int, order)), str(name), nested, codes))
                break
    return out


def _kind(column: pd.Series) -> int:
    """How likely values are ids: text and categories (0), numbers that run through, other numbers, dates."""
    if pd.api.types.is_bool_dtype(column.dtype):
        return 0
    if pd.api.types.is_numeric_dtype(column.dtype):
        values = column.dropna().unique().astype(float)
        return 1 if values.size and np.ptp(values) + 1 == values.size else 2
    return 3 if pd.api.types.is_datetime64_any_dtype(column.dtype) else 0


def _coarsest(found: list[_Found]) -> list[_Found]:
    """Without columns that are parts of a clearly coarser one; the rest in their order."""
    kept = [
        one
        for one in found
        if not any(
            other.levels <= _CLEARLY * one.levels and _nested(one.codes, other.codes)
            for other in found
        )
    ]
    return sorted(kept, key=lambda x: x.order)


def _nested(parts: np.ndarray, whole: np.ndarray) -> bool:
    """Whether nearly each level of one column lies within a single level of another."""
    seen = (parts >= 0) & (whole >= 0)
    wholes = pd.Series(whole[seen]).groupby(parts[seen]).nunique()
    return bool(len(wholes)) and bool((wholes == 1).mean() >= _ALIKE)


def _is_dose(column: pd.Series, codes: np.ndarray, action: np.ndarray) -> bool:
    """Whether a number is what an action gave, such as sessions: 0, or another value, for nearly all of an
    arm."""
    if not pd.api.types.is_numeric_dtype(column.dtype) or codes.max() < 1:
        return False
    seen = codes >= 0
    table = _counts(codes[seen], action[seen], int(codes.max()) + 1, int(action.max()) + 1)
    return bool((table.max(axis=0) >= 0.9 * np.maximum(table.sum(axis=0), 1)).any())


def _remedy(trial: Trial, stage: StageData, found: _Found, others: Sequence[str]) -> str:
    """What is wrong and which term of this trial's models mends it."""
    action, name, nested = stage.stage.action, found.name, found.nested
    only = " otherwise than as a number" if name in stage.formula.model_columns else ""
    also = f" (and of {', '.join(map(repr, others))})" if others else ""
    where = f" of each {trial.site!r}" if nested else ""
    text = (
        f"stage {action}: {action} hardly ever varies within the levels of {name!r}{where}{also}, "
        f"which the model "
        f"does not know{only}: treatment reached whole groups, whose own effects are taken for effects of "
        f"{action}, and intervals are too narrow. "
    )
    if name == trial.site:
        return text + f"Add (1 | {name}) to the formula of Stage({action!r})."
    unique = ""
    if nested:
        joined = _joined(trial.site, name)
        unique = f", with ids of their own: data[{name!r}] = {joined}"
    if stage.stage.delivered_in is None and stage.by_formula:
        return (
            text
            + f'If {name!r} is the class, teacher or wave of delivery, say delivered_in="{name}"{unique}; if '
            f"it was there before, such as a clinic, add (1 | {name}) to the formula of Stage({action!r})."
        )
    return text + f"Add (1 | {name}) to the formula of Stage({action!r}){unique}."


def _joined(site: str | None, name: str) -> str:
    return f"data[{site!r}].astype(str) + ':' + data[{name!r}].astype(str)"


def _may_be_cluster(column: pd.Series) -> bool:
    """Whether values can be labels: whole numbers, and all that is no number."""
    if pd.api.types.is_float_dtype(column.dtype):
        values = column.dropna().to_numpy()
        return len(values) > 0 and bool(np.all(values == np.round(values)))
    return True


def _choosing(stage: StageData) -> np.ndarray:
    """Units of the fit who have a choice: where one action alone is feasible nobody assigned it."""
    return stage.fitted & stage.choosing & ~stage.outside


def _factors(stage: StageData, numbers: Collection[str]) -> list[tuple[str, ...]]:
    """Factors whose levels have effects of their own in the stage's model: group terms with an intercept,
    and text or categories that enter as such."""
    grouped = [g.factor for g in stage.formula.groups if frozenset() in terms_of(g.expression)]
    entered = [
        tuple(term) for term in terms_of(stage.formula.common)
        if term <= set(stage.formula.model_columns) - {stage.stage.action, *numbers} and len(term) == 1
    ]  # fmt: skip
    return [*grouped, *entered]


def _known(
    factors: Sequence[tuple[str, ...]], frame: pd.DataFrame, rows: np.ndarray, action: np.ndarray
) -> list[np.ndarray]:
    """Levels, by row, of the factors within which the action hardly ever varies."""
    every = [_codes(frame, factor, rows) for factor in factors]
    return [codes for codes in every if _alike(codes, action)]


def _codes(frame: pd.DataFrame, factor: Sequence[str], rows: np.ndarray) -> np.ndarray:
    """Level of each of these rows, numbered from 0 without gaps; -1 where a part of it is missing."""
    codes = pd.factorize(frame[factor[0]][rows])[0]
    for name in factor[1:]:
        own = pd.factorize(frame[name][rows])[0]
        seen = (codes >= 0) & (own >= 0)
        both = codes[seen] * (own.max(initial=0) + 1) + own[seen]
        codes = np.full(len(codes), -1)
        codes[seen] = pd.factorize(both)[0]
    return codes


def _counts(codes: np.ndarray, action: np.ndarray, levels: int, arms: int) -> np.ndarray:
    """How many members of each level have each action."""
    return np.bincount(codes * arms + action, minlength=levels * arms).reshape(levels, arms)


def _alike(codes: np.ndarray, action: np.ndarray, members: np.ndarray | None = None) -> bool:
    """Whether levels hold one action each, more of them than chance would make so.

    ``members`` are what takes an action as one, units if left out.
    """
    seen = codes >= 0
    if members is not None:
        seen &= members >= 0
        _, first = np.unique(np.stack([codes, members])[:, seen], axis=1, return_index=True)
        at = np.flatnonzero(seen)[first]
    else:
        at = np.flatnonzero(seen)
    if seen.mean() < _KNOWN_FOR or not at.size:
        return False
    counts = _counts(codes[at], action[at], int(codes.max()) + 1, int(action.max()) + 1)
    size = counts.sum(axis=1)
    counts = counts[size >= 2]
    if len(counts) < _LEAST_LEVELS:
        return False
    size = counts.sum(axis=1)
    least = np.ceil(_MAJORITY * size - 1e-9)
    held = float((counts.max(axis=1) >= least).mean())
    if held < _ALIKE:
        return False
    shares = np.bincount(action[at], minlength=counts.shape[1]) / at.size
    by_chance = bdtrc(least[:, None] - 1, size[:, None], shares[None]).sum(axis=1)
    chance = float(np.clip(by_chance, 1e-300, 1.0).mean())
    return held > chance and len(counts) * _divergence(held, chance) > _CHANCE


def _divergence(p: float, q: float) -> float:
    """Kullback-Leibler divergence of a coin of probability p from one of q."""
    one = p * math.log(p / q)
    return one if p == 1.0 else one + (1 - p) * math.log((1 - p) / (1 - q))


def _explains(known: np.ndarray, codes: np.ndarray, action: np.ndarray) -> bool:
    """Whether an action is constant in levels because they are parts or unions of known levels."""
    if codes.max() >= known.max() and _nested(codes, known):
        return True  # what is nested in what was treated as a whole
    return not _alike(codes, action, known)


def _recodes(codes: np.ndarray, actions: np.ndarray) -> bool:
    """Whether levels are names of actions or of paths through the trial: one for each.

    ``actions`` are codes by unit and stage, -1 where none was taken.
    """
    count = int(codes.max()) + 1
    if count > np.prod(actions.max(axis=0) + 2):
        return False
    paths, seen = [np.zeros(count, dtype=np.int64)], codes >= 0
    for own in actions.T:
        acted, path = seen & (own >= 0), np.full(count, -1)
        path[codes[acted]] = own[acted]
        if (path[codes[acted]] == own[acted]).all():  # else levels say nothing of this stage
            paths.append(path)
    return len(np.unique(paths, axis=1).T) == count


def shared_clusters(
    trial: Trial, stages: Sequence[StageData], frame: pd.DataFrame
) -> tuple[str, ...]:
    """Delivery clusters whose labels occur at several sites, as ids do that count within a site."""
    notes = []
    for stage in stages:
        name = stage.stage.delivered_in
        if name is None or trial.site is None:
            continue
        rows = frame.loc[stage.fitted, [name, trial.site]].astype(object)
        sites = rows.groupby(name)[trial.site].nunique()
        # A few labels may be merged by mistake; ids that count within a site are shared by most.
        if (sites > 1).mean() > 0.5:
            notes.append(
                f"most labels of {name!r} occur at several sites (stage {stage.stage.action}), and "
                "each is taken for one cluster across sites. If the labels count within a site, make "
                f"them unique first: data[{name!r}] = {_joined(trial.site, name)}."
            )
            warnings.warn(notes[-1], DesignWarning, stacklevel=4)
    return tuple(notes)
