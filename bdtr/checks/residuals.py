"""Residuals along the history: where a stage's formula misses how the payoff goes with a variable."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bdtr.backward.drawnmodels import drawn_models
from bdtr.backward.fitted import Fit
from bdtr.backward.passes import mean_response
from bdtr.backward.residuals import binned_history, residuals
from bdtr.results.arguments import a_fit
from bdtr.results.captions import Captioned

__all__ = ["residuals_along"]

_COLUMNS = ["stage", "variable", "action", "bin", "at", "units", "mean", "error"]


def residuals_along(fit: Fit) -> Captioned:
    r"""Mean residuals of each action by bins of each variable of the history.

    Residuals are those of the mean response (before the last stage the mean over draws of the stage value)
    given group effects, in SDs of the response. With r_i those of the n units with an action in a bin, the
    mean is that of the r_i and its error sqrt(sum r_i^2 / n) / sqrt(n). Differences between actions that go
    with a variable are effects that the formula misses; they are judged by the state of the fit
    (:mod:`bdtr.backward.residuals`).

    Parameters
    ----------
    fit
        A fitted trial with its data.

    Returns
    -------
    Captioned
        Table by ``stage, variable, action, bin`` (fifths of its values, or its labels): ``at``, the mean
        value of the bin or its label; ``units``; ``mean`` and ``error`` in SDs of the response. Stages with
        a model of one's own have no rows; those that are computed have rows for each state (``state y``).
        Where values were imputed, those of the first completed data set.

    Examples
    --------
    >>> found = bdtr.checks.residuals_along(fit)
    >>> list(found.table)
    ['at', 'units', 'mean', 'error']
    """
    a_fit(fit)
    one, rows = (fit.parts[0] if fit.parts else fit), []
    one.require_data("residuals")
    for label, owner, k in drawn_models(one):
        own = residuals(owner, k)
        if own is None:
            continue
        data, design = owner.require_data("residuals"), owner.designs[k]
        stage = data.stages[k]
        own = own / max(float(mean_response(owner, k).std()), 1e-300)
        frame, arm = data.frame[stage.fitted], stage.action[stage.fitted]
        for name, bins in binned_history(owner, k):
            if bins.max(initial=-1) < 1:
                continue
            for a, action in enumerate(design.actions):
                for b in range(int(bins.max()) + 1):
                    here = (arm == a) & (bins == b)
                    n = int(here.sum())
                    if n:
                        error = float(np.sqrt(np.square(own[here]).mean() / n))
                        at = _place(frame[name][here])
                        rows.append((label, name, action, b, at, n, own[here].mean(), error))
    table = pd.DataFrame(rows, columns=_COLUMNS).set_index(_COLUMNS[:4])
    return Captioned(
        table,
        "Mean residuals, in SDs of the response, of units with each action in bins of each variable (fifths, "
        "or labels). Under the model they are zero but for chance.",
    )


def _place(values: pd.Series) -> float | str:
    """Mean of the numbers of a bin, or its label."""
    if pd.api.types.is_numeric_dtype(values.dtype):
        return float(values.mean())
    return str(values.iloc[0])
