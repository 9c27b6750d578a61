"""Convergence and support: the gate that every fit passes before anything is recommended from it.

States: ``ok``; ``caution`` with reasons (a free parameter with R-hat > 1.01 or ESS < 400, divergences);
``refused`` (draws missing or not finite, R-hat > 1.01 or ESS < 200 on a decision quantity, an action
without support in the data). For short chains the limit of R-hat is that of :func:`rhat_limit`. The gate
fails closed: what cannot be computed does not pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from bdtr.chains import measures

__all__ = ["State", "convergence", "gate_decisions", "gate_parameters", "worst"]

_RHAT, _ESS_PARAMETER, _ESS_DECISION = 1.01, 400, 200
_LEVELS = ("ok", "caution", "refused")


@dataclass(frozen=True)
class State:
    """Whether results can be relied on: ``level`` and the reasons for it."""

    level: str = "ok"
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"state: {self.level}" + (f" ({'; '.join(self.reasons)})" if self.reasons else "")


def worst(states: Iterable[State]) -> State:
    """The worst of several states, with all their reasons."""
    states = list(states)
    level = max((s.level for s in states), key=_LEVELS.index, default="ok")
    return State(level, tuple(dict.fromkeys(r for s in states for r in s.reasons)))


def rhat_limit(chains: int, draws: int) -> float:
    """R-hat above which chains are said to differ.

    1.01 (Vehtari et al. 2021), or, for short chains, what one R-hat of independent draws exceeds once in a
    million, as a fit has hundreds of quantities and a report ten fits: with m split chains of n draws
    R-hat^2 is (n - 1)/n + F/n, and F has about an F distribution with m - 1 and m (n - 1) degrees of freedom.
    That is 1.02 for four chains of 250 and 1.1 for four of 50, which can show little. Four chains of 250
    independent draws exceed 1.01 about once in 550 quantities.
    """
    m, n = 2 * chains, max(draws // 2, 2)
    f = stats.f.isf(1e-6, m - 1, m * (n - 1))
    return max(_RHAT, float(np.sqrt((n - 1) / n + f / n)))


def convergence(posterior: xr.Dataset) -> pd.DataFrame:
    """R-hat (rank-normalised split) and bulk and tail ESS of every scalar in a dataset.

    Parameters
    ----------
    posterior
        Variables with dims ``chain, draw``.

    Returns
    -------
    pandas.DataFrame
        One row per scalar: ``r_hat, ess_bulk, ess_tail``, and ``constant`` for scalars that do not
        vary at all, such as the diagonal of a correlation matrix.
    """
    rows = []
    for name, values in posterior.data_vars.items():
        inner = [d for d in values.dims if d not in ("chain", "draw")]
        array = values.transpose(*inner, "chain", "draw").to_numpy()
        array = np.ascontiguousarray(array, dtype=float).reshape(-1, *array.shape[-2:])
        broken = ~np.isfinite(array).all(axis=(1, 2))
        sound = np.where(broken[:, None, None], 0.0, array)
        named = zip(("r_hat", "ess_bulk", "ess_tail"), measures(sound), strict=True)
        table = {m: np.where(broken, np.nan, column) for m, column in named}
        # Constant to rounding, as the diagonal of a correlation matrix is.
        spread, size = np.ptp(sound, axis=(1, 2)), np.abs(sound).max(axis=(1, 2))
        constant = ~broken & (spread <= 1e-9 * size)
        labels = _labels(str(name), values, inner)
        rows.append(pd.DataFrame({**table, "constant": constant}, index=labels))
    return pd.concat(rows)


def _labels(name: str, values: xr.DataArray, inner: Sequence) -> list[str]:
    if not inner:
        return [name]
    labels = [""]
    for dim in inner:
        coordinate = (
            values.coords[dim].to_numpy() if dim in values.coords else range(values.sizes[dim])
        )
        labels = [f"{a}, {b}" if a else f"{b}" for a in labels for b in coordinate]
    return [f"{name}[{label}]" for label in labels]


def gate_parameters(
    stage: str,
    table: pd.DataFrame,
    limit: float,
    divergences: int = 0,
    least: float = _ESS_PARAMETER,
) -> State:
    """State that follows from the convergence of a stage's free parameters.

    Parameters
    ----------
    stage
        Name for the reasons.
    table
        From :func:`convergence`.
    limit
        R-hat limit.
    divergences
        Number of divergent transitions.
    least
        Smallest effective number of draws.
    """
    free = table[~table["constant"]]
    ess = free[["ess_bulk", "ess_tail"]].min(axis=1)
    # "not (x <= limit)": NaN does not pass.
    mixing, few = free[~(free["r_hat"] <= limit)], free[~(ess >= least)]
    reasons = []
    if len(mixing):
        reasons.append(f"{stage}: R-hat {_range(mixing['r_hat'])} for {_names(mixing.index)}")
    if len(few):
        reasons.append(f"{stage}: ESS down to {ess[few.index].min():.0f} for {_names(few.index)}")
    if divergences:
        reasons.append(f"{stage}: {divergences} divergent transitions")
    return State("caution" if reasons else "ok", tuple(reasons))


def gate_decisions(quantities: xr.Dataset, limit: float, least: float = _ESS_DECISION) -> State:
    """State that follows from decision quantities: contrasts, values, Q differences."""
    values = np.concatenate([v.to_numpy().ravel() for v in quantities.data_vars.values()] or [[]])
    if not np.isfinite(values).all():
        return State("refused", ("draws of a decision quantity are missing or not finite",))
    table = convergence(quantities)
    table = table[~table["constant"]]
    ess = table[["ess_bulk", "ess_tail"]].min(axis=1)
    mixing, few = table[~(table["r_hat"] <= limit)], table[~(ess >= least)]
    reasons = []
    if len(mixing):
        reasons.append(f"R-hat {_range(mixing['r_hat'])} on {_names(mixing.index)}")
    if len(few):
        reasons.append(f"ESS down to {ess[few.index].min():.0f} on {_names(few.index)}")
    return State("refused" if reasons else "ok", tuple(reasons))


def _range(values: pd.Series) -> str:
    return f"up to {values.max():.3f}" if values.notna().all() else "not computable"


def _names(index: pd.Index) -> str:
    names = [str(n) for n in index]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
