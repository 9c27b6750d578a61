"""Imputed values beside recorded ones, and whether their chains have settled.

Values that are missing at random may well differ from the recorded ones, as those who have none differ in
what comes before; a difference that this does not explain is a reason to look at the model of the variable
(Abayomi, Gelman and Levy 2008, Appl. Stat. 57(3); van Buuren 2018, Flexible Imputation of Missing Data, 6.6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from bdtr.backward.fitted import Fit
from bdtr.data.coding import label_series
from bdtr.data.imputation.chain import settled
from bdtr.data.no_decision import not_measured
from bdtr.results.arguments import a_fit
from bdtr.results.captions import Shown
from bdtr.results.errors import ArgumentError

__all__ = ["ImputedValues", "imputed_values"]


@dataclass(frozen=True, repr=False)
class ImputedValues(Shown):
    """Recorded and imputed values of each variable.

    ``table`` by ``variable`` (of labels, by variable and label): units whose value was ``recorded`` and was
    ``imputed``, the means and SDs of both (of labels their shares) over all completed data sets, and
    ``r_hat`` of the means over the steps of the chains (NaN for data sets from elsewhere). ``recorded`` has
    the values of each variable, ``imputed`` those of all data sets (data set, unit).
    """

    _tables: ClassVar[tuple[str, ...]] = ("table",)

    table: pd.DataFrame
    recorded: Mapping[str, np.ndarray]
    imputed: Mapping[str, np.ndarray]
    sets: int

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return (
            f"Recorded values and those imputed in {self.sets} data sets; those who have none may differ in "
            "what comes before, so that these may differ as well."
        )


def imputed_values(fit: Fit) -> ImputedValues:
    """Imputed values beside recorded ones.

    Parameters
    ----------
    fit
        A fit with imputed values, and its data.

    Returns
    -------
    ImputedValues

    Raises
    ------
    ValueError
        If no values were imputed.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> data = bdtr.datasets.activity()
    >>> data.loc[::9, "steps0"] = np.nan
    >>> stage = bdtr.Stage("a1", actions=["app", "coach"], formula="steps0 * a1")
    >>> trial = bdtr.Trial([stage], outcome="steps1")
    >>> given = {"sampler": "direct", "draws": 100, "random_seed": 1, "progress": False}
    >>> filled = bdtr.fit(trial, data, missing="impute", imputations=4, **given)
    >>> list(bdtr.checks.imputed_values(filled).table)
    ['recorded', 'imputed', 'mean_recorded', 'mean_imputed', 'sd_recorded', 'sd_imputed', 'r_hat']
    """
    a_fit(fit)
    if not fit.parts:
        raise ArgumentError(
            "imputed_values: no values were imputed in this fit. Fit with missing='impute'."
        )
    whole = fit.require_data("imputed values").frame
    each = [data.frame for data in fit.completed("imputed values")]
    r_hat = _r_hat(fit)
    recorded, imputed, rows = {}, {}, []
    for name in whole.columns:
        aside = _no_meaning(fit, name)
        gap = whole[name].isna().to_numpy() & each[0][name].notna().to_numpy() & ~aside
        if not gap.any():
            continue
        recorded[name] = _values(whole[name][whole[name].notna() & ~aside])
        imputed[name] = np.stack([_values(frame[name][gap]) for frame in each])
        rows += _rows(name, recorded[name], imputed[name], r_hat.get(name, np.nan))
    columns = ["variable", "recorded", "imputed", "mean_recorded", "mean_imputed", "sd_recorded",
               "sd_imputed", "r_hat"]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns).set_index("variable")
    return ImputedValues(table, recorded, imputed, len(each))


def _no_meaning(fit: Fit, name: str) -> np.ndarray:
    """Units without a decision, in some data set, where a column is not measured among these: it stands at
    one value there."""
    data = fit.require_data("imputed values")
    out = np.zeros(len(data), dtype=bool)
    for k, stage in enumerate(data.stages):
        if not_measured(stage.stage, name) in fit.notes:
            out |= np.any([d.stages[k].outside for d in fit.completed("imputed values")], axis=0)
    return out


def _r_hat(fit: Fit) -> dict[str, float]:
    if "imputation" not in fit.tree:
        return {}
    record = fit.tree["imputation"].to_dataset()
    if "mean" not in record:
        return {}
    found = settled(record["mean"].to_numpy())
    return {str(n): float(r) for n, r in zip(record["variable"].values, found, strict=True)}


def _values(column: pd.Series) -> np.ndarray:
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(dtype=float)
    return label_series(column).to_numpy(dtype=object)


def _rows(name: str, recorded: np.ndarray, imputed: np.ndarray, r_hat: float) -> list[tuple]:
    """One row, or one for each label."""
    if recorded.dtype != object:
        pairs = [(name, recorded, imputed)]
    else:
        labels = list(dict.fromkeys(sorted([*recorded, *imputed.ravel()])))
        pairs = [(f"{name}: {x}", recorded == x, imputed == x) for x in labels]
    return [
        (text, len(own), new.shape[1], own.mean(), new.mean(), own.std(), new.std(), r_hat)
        for text, own, new in pairs
    ]
