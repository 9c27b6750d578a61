"""Columns of units under every action, made for many units at a time and kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from bdtr.backward.computed import ComputedQ
from bdtr.backward.fitrecord import FitRecord
from bdtr.stages.pooled import PooledColumns
from bdtr.stages.prediction import unit_columns
from bdtr.stages.stagemodel import own_columns

__all__ = ["columns_of"]

_NODES_OF_A_UNIT = 30  # at which a stage that is computed looks at the next one
_CELLS_KEPT = 30_000_000  # of the columns of units under all actions: 240 MB


def columns_of(fit: FitRecord, k: int, units: np.ndarray, q: Any = None) -> Any:
    """Columns of units of the data at stage k, as its Q-function takes them; those of a stage that is
    computed are of its own Q-function ``q``, as they go by what the policy does later.

    They are made for many units at a time and kept, as they are the same for all draws and policies.
    """
    if fit.parts:
        return PooledColumns(tuple(columns_of(one, k, units) for one in fit.parts))
    data, design = fit.require_data("columns of units"), fit.designs[k]
    computed = isinstance(q, ComputedQ)
    key = (k, q.key) if isinstance(q, ComputedQ) else k
    kept = fit.unit_columns.get(key)
    if kept is None or (kept[1][units] < 0).any():
        columns = len(design.terms) + sum(s.effects for s in design.smooths)
        columns *= _NODES_OF_A_UNIT**q.depth if computed else 1
        window = max(_CELLS_KEPT // (len(design.arms) * columns), len(units))
        stage = data.stages[k]
        known = np.flatnonzero(stage.history | stage.fitted)
        if len(known) > window:
            known = np.union1d(known[known >= units.min()][:window], units)
        place = np.full(len(data), -1)
        place[known] = np.arange(len(known))
        if computed:
            kept = q.columns(data.frame.iloc[known]), place
        else:
            make = unit_columns if fit.trial.stages[k].model is None else own_columns
            kept = make(design, data.frame.iloc[known]), place
        fit.unit_columns[key] = kept
    return kept[0].part(kept[1][units])
