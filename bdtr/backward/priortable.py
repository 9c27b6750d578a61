"""The priors of a fit as a table, and what they together say of coefficients as written."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bdtr.backward.fitted import Fit
from bdtr.backward.passes import stage_model
from bdtr.stages.outcome import OutcomeModel
from bdtr.trial.priors import PRIOR_COLUMNS, Normal
from bdtr.trial.states import states_of

__all__ = ["prior_table_of"]


def prior_table_of(fitted: Fit) -> pd.DataFrame:
    """Priors of all stages; of one that is computed, those of the models of its states."""
    rows = []
    for k, design in enumerate(fitted.designs):
        for name in states_of(fitted.trial, k):
            own = fitted.states[name].prior_table.itertuples(index=False)
            rows += [(design.action, f"{name}: {row[1]}", *row[2:]) for row in own]
        if states_of(fitted.trial, k):
            continue
        model, terms = stage_model(fitted, k), {g.name: g.terms for g in design.groups}
        terms |= {s.name: s.curves for s in design.smooths}
        if not isinstance(model, OutcomeModel):
            rows.append(
                (design.action, "all", f"those of {getattr(model, 'name', '')}", "yours", "")
            )
            continue
        written = _as_written(model)
        rows += [
            (design.action, *row, written.get(row[0], ""))
            for row in model.priors.table(design.terms, terms)
        ]
    return pd.DataFrame(rows, columns=list(PRIOR_COLUMNS))


def _as_written(model: OutcomeModel) -> dict[str, str]:
    """What the priors together say of each coefficient as it stands in the formula.

    With b = turn d for independent d of the columns as measured: mean turn m, variance (turn^2) s^2.
    """
    measure, priors = model.design.measure, model.priors.coefficients
    mean = measure.turn @ (np.array([p.mu for p in priors]) * measure.scale)
    variance = np.square(measure.turn) @ np.square([p.sigma for p in priors] * measure.scale)
    return {
        term: Normal(m, v**0.5).short
        for term, m, v in zip(model.design.terms, mean, variance, strict=True)
    }
