"""Treatment that reaches whole groups: columns within which an action hardly ever varies."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bdtr.trial import Trial

if TYPE_CHECKING:
    from bdtr.data import StageData

__all__ = ["DesignWarning", "shared_clusters", "unknown_clusters"]


class DesignWarning(UserWarning):
    """Something in the data that the model of a stage should probably know."""


def unknown_clusters(
    trial: Trial, stages: Sequence[StageData], frame: pd.DataFrame
) -> tuple[str, ...]:
    """Columns within whose levels an action never varies and that the stage model does not know."""
    notes = []
    for stage in stages:
        known = {*stage.factors, trial.site, trial.unit, trial.outcome}
        known |= {s.action for s in trial.stages}
        for name in frame.columns:
            if name in known or not _may_be_cluster(frame[name]):
                continue
            codes, levels = pd.factorize(frame[name][stage.fitted])
            if _constant_within(codes, stage.action[stage.fitted], len(levels)):
                notes.append(
                    f"{stage.stage.action} hardly ever varies within the levels of {name!r}, which "
                    "the model does not know: treatment reaches whole groups, and their effect may "
                    f"be taken for one of {stage.stage.action} at a site. If {name!r} is the class, "
                    f'teacher or wave of delivery, say delivered_in="{name}".'
                )
                warnings.warn(notes[-1], DesignWarning, stacklevel=4)
    return tuple(notes)


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
