"""Treatment that reaches whole groups: columns within which an action hardly ever varies."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bdtr.history import conditions
from bdtr.trial import Trial

if TYPE_CHECKING:
    from bdtr.data import StageData

__all__ = ["DesignWarning", "shared_clusters", "unknown_clusters"]


class DesignWarning(UserWarning):
    """Something in the data that the model of a stage should probably know."""


def unknown_clusters(
    trial: Trial, stages: Sequence[StageData], frame: pd.DataFrame
) -> tuple[str, ...]:
    """Columns within whose levels an action never varies and that the stage model does not know.

    The site column is one of them where the formula has no term by site, and so are ids that count
    within sites.
    Of several such columns, as clinics and what is measured of clinics, the one with the fewest levels
    is named:
    whole levels of it were treated alike.
    """
    notes = []
    for stage in stages:
        found = _constant_columns(trial, stage, frame)
        if not found:
            continue
        _, name, nested = min(found)
        others = [n for _, n, _ in sorted(found)[1:4] if n != name]
        notes.append(_remedy(trial, stage, name, nested, others))
        warnings.warn(notes[-1], DesignWarning, stacklevel=4)
    return tuple(notes)


def _constant_columns(
    trial: Trial, stage: StageData, frame: pd.DataFrame
) -> list[tuple[tuple[bool, int], str, bool]]:
    """(numbers last, levels), name, and whether ids count within sites, of the columns that are constant."""
    rows = stage.fitted & ~stage.outside
    known = {*stage.formula.columns, trial.unit, trial.outcome, *(s.action for s in trial.stages)}
    known |= {c for x in conditions(stage.stage) for c in x.columns}
    if trial.site not in stage.factors:
        known.discard(trial.site)
    factors = [pd.factorize(frame[c][rows])[0] for c in stage.factors if c in frame.columns]
    action, out = stage.action[rows], []
    site = None if trial.site is None else pd.factorize(frame[trial.site][rows])[0]
    for name in frame.columns:
        if name in known or not _may_be_cluster(frame[name]):
            continue
        codes, levels = pd.factorize(frame[name][rows])
        ways = [(codes, len(levels), False)]
        if site is not None and name != trial.site:
            joined, both = pd.factorize(
                np.where((codes < 0) | (site < 0), -1, codes * (site.max() + 1) + site)
            )
            joined = np.where(both[joined] < 0, -1, joined) if len(both) else joined
            if len(both) > len(levels):
                ways.append((joined, len(both), True))
        for code, count, nested in ways:
            if any(_within(f, code) for f in factors):
                continue  # what is measured of clusters that the model knows
            if _constant_within(code, action, count):
                numeric = pd.api.types.is_numeric_dtype(frame[name].dtype)
                out.append(((bool(numeric), count), str(name), nested))
                break
    return out


def _within(fine: np.ndarray, coarse: np.ndarray) -> bool:
    """Whether each level of one column has a single level of another."""
    seen = (fine >= 0) & (coarse >= 0)
    pairs = pd.DataFrame({"fine": fine[seen], "coarse": coarse[seen]}).drop_duplicates()
    return bool(seen.any()) and not pairs["fine"].duplicated().any()


def _remedy(trial: Trial, stage: StageData, name: str, nested: bool, others: Sequence[str]) -> str:
    """What is wrong and which term of this trial's models mends it."""
    action = stage.stage.action
    also = f" (and of {', '.join(map(repr, others))})" if others else ""
    where = f" of each {trial.site!r}" if nested else ""
    text = (
        f"stage {action}: {action} hardly ever varies within the levels of {name!r}{where}{also}, "
        f"which the model "
        "does not know: treatment reached whole groups, whose own effects are taken for effects of "
        f"{action}, and intervals are too narrow. "
    )
    if name == trial.site:
        return text + f"Add (1 | {name}) to the formula of Stage({action!r})."
    unique = ""
    if nested:
        joined = f"data[{trial.site!r}] + ':' + data[{name!r}].astype(str)"
        unique = f", with ids of their own: data[{name!r}] = {joined}"
    if stage.stage.delivered_in is None and stage.stage.model is None:
        return (
            text
            + f'If {name!r} is the class, teacher or wave of delivery, say delivered_in="{name}"{unique}; if '
            f"it was there before, such as a clinic, add (1 | {name}) to the formula of Stage({action!r})."
        )
    return text + f"Add (1 | {name}) to the formula of Stage({action!r}){unique}."


def _may_be_cluster(column: pd.Series) -> bool:
    if pd.api.types.is_float_dtype(column.dtype):
        values = column.dropna().to_numpy()
        return len(values) > 0 and bool(np.all(values == np.round(values)))
    return True


def _constant_within(codes: np.ndarray, action: np.ndarray, levels: int) -> bool:
    """Whether actions are constant in 95 % of the levels; data may merge or split a few clusters."""
    seen = codes >= 0
    actions = int(action.max()) + 1
    table = np.zeros((levels, actions), dtype=np.int64)
    np.add.at(table, (codes[seen], action[seen]), 1)
    size = table.sum(axis=1)
    several = size >= 2
    # Fewer levels than this are a recoding of the action or a coarse covariate, not clusters.
    if several.sum() < max(4, 2 * actions) or seen.mean() < 0.5 or size[several].mean() < 3:
        return False
    return bool(((table[several] > 0).sum(axis=1) == 1).mean() >= 0.95)


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
                f"them unique first: data[{name!r}] = data[{trial.site!r}] + ':' + data[{name!r}]."
            )
            warnings.warn(notes[-1], DesignWarning, stacklevel=4)
    return tuple(notes)
