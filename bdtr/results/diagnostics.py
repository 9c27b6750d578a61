"""Limits of convergence, and the states that follow from them.

A state has two lines. *Sampling*: whether the draws say what the posterior is. A quantity fails where
its Monte-Carlo error is too large against its posterior SD, 1 / sqrt(ESS), beyond what chance explains at
the number of draws there is, or where chains differ (R-hat). *Model*: whether the posterior says what the
data are; checks of the model can bring a caution.

Levels: ``ok``; ``caution`` with reasons (a free parameter with R-hat > 1.01 or ESS < 400, divergences,
doubts about the model); ``refused`` (draws missing or not finite, fewer than 100 of them, R-hat > 1.01 or
ESS < 200 on a decision quantity, an action without support in the data). With fewer draws the limit of
R-hat is that of :func:`rhat_limit`, that of the ESS that of :func:`least_ess`. The gate fails closed:
what cannot be computed does not pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import betainccinv

from bdtr.results.chains import measures

__all__ = [
    "State",
    "convergence",
    "doubt",
    "enough",
    "gate_decisions",
    "gate_parameters",
    "least_ess",
    "worst",
]

_RHAT, _ESS_PARAMETER, _ESS_DECISION = 1.01, 400, 200
_SHARE, _SHARE_PER_DRAW = 0.2, 6e-4  # of few draws, that have to be effective
_TOO_FEW = 100  # draws from which nothing can be said about convergence
_LEVELS = ("ok", "caution", "refused")


@dataclass(frozen=True)
class State:
    """Whether results can be relied on: a level and reasons for ``sampling`` and for the ``model``;
    ``missing`` says, whatever the level, how many units the model stands in for."""

    sampling: str = "ok"
    sampling_reasons: tuple[str, ...] = ()
    model: str = "ok"
    model_reasons: tuple[str, ...] = ()
    missing: str = ""

    @property
    def level(self) -> str:
        """The worse of the two levels."""
        return max(self.sampling, self.model, key=_LEVELS.index)

    @property
    def reasons(self) -> tuple[str, ...]:
        """All reasons, those of sampling first."""
        return (*self.sampling_reasons, *self.model_reasons)

    @property
    def lines(self) -> tuple[str, str]:
        """The two lines in words."""
        return (
            _line("sampling", self.sampling, self.sampling_reasons),
            _line("model", self.model, self.model_reasons, self.missing),
        )

    def __str__(self) -> str:
        said = self.reasons or self.missing
        return f"state: {self.level}" + (f" ({'. '.join(self.lines)})" if said else "")


def _line(what: str, level: str, reasons: Sequence[str], missing: str = "") -> str:
    said = [*reasons, *([missing] if missing else [])]
    return f"{what} {level}" + (f": {'; '.join(said)}" if said else "")


def doubt(*reasons: str) -> State:
    """A caution about the model, or ok where there are no reasons."""
    return State(model="caution" if reasons else "ok", model_reasons=tuple(reasons))


def worst(states: Iterable[State]) -> State:
    """The worst of several states, with all their reasons."""
    states = list(states)

    def highest(levels: Iterable[str]) -> str:
        return max(levels, key=_LEVELS.index, default="ok")

    def every(reasons: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(r for some in reasons for r in some))

    return State(
        highest(s.sampling for s in states),
        every(s.sampling_reasons for s in states),
        highest(s.model for s in states),
        every(s.model_reasons for s in states),
        next((s.missing for s in states if s.missing), ""),
    )


def least_ess(draws: int, wanted: float) -> float:
    """Effective draws below which a quantity fails.

    The number that is wanted, or, where there are few draws, the share of them that independent draws
    fall short of about once in 20,000 quantities: a fifth, or .0006 of each draw below 333 (one to eight
    chains, simulated). Draws of autocorrelation .9 have an effective share of .05.
    """
    return min(wanted, _SHARE * draws, _SHARE_PER_DRAW * draws**2)


def enough(draws: int) -> State:
    """Refused where there are too few draws to tell."""
    if draws >= _TOO_FEW:
        return State()
    return State(
        "refused",
        (
            f"{draws:,} propagated draw{'s' if draws != 1 else ''}: too few to say whether chains agree; "
            f"raise propagated= to {_TOO_FEW} or more",
        ),
    )


def rhat_limit(chains: int, draws: int) -> float:
    """R-hat above which chains are said to differ.

    1.01 (Vehtari et al. 2021), or, for short chains, what one R-hat of independent draws exceeds once in a
    million, as a fit has hundreds of quantities and a report ten fits: with m split chains of n draws
    R-hat^2 is (n - 1)/n + F/n, and F has about an F distribution with m - 1 and m (n - 1) degrees of freedom.
    That is 1.02 for four chains of 250 and 1.1 for four of 50, which can show little. Four chains of 250
    independent draws exceed 1.01 about once in 550 quantities.
    """
    m, n = 2 * chains, max(draws // 2, 2)
    free = m - 1, m * (n - 1)
    share = float(betainccinv(free[0] / 2, free[1] / 2, 1e-6))
    f = free[1] * share / (free[0] * (1 - share))
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
        constant = ~broken & (spread <= 1e-13 * size)
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
    draws: int,
    divergences: int = 0,
    remedy: str = "",
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
    draws
        Number of draws, of all chains.
    divergences
        Number of divergent transitions.
    remedy
        What to do about too few effective draws.
    """
    free = table[~table["constant"]]
    ess = free[["ess_bulk", "ess_tail"]].min(axis=1)
    # "not (x <= limit)": NaN does not pass.
    mixing, few = free[~(free["r_hat"] <= limit)], free[~(ess >= least_ess(draws, _ESS_PARAMETER))]
    reasons = []
    if len(mixing):
        reasons.append(f"{stage}: R-hat {_range(mixing['r_hat'])} for {_names(mixing.index)}")
    if len(few):
        reasons.append(
            f"{stage}: ESS down to {ess[few.index].min():.0f} of {draws:,} draws for {_names(few.index)}"
        )
    if divergences:
        reasons.append(f"{stage}: {divergences} divergent transitions")
    if reasons and remedy:
        reasons[-1] += f"; {remedy}"
    return State("caution" if reasons else "ok", tuple(reasons))


def gate_decisions(
    quantities: xr.Dataset, limit: float, remedy: str = "raise propagated="
) -> State:
    """State that follows from decision quantities: contrasts, values, Q differences."""
    values = np.concatenate([v.to_numpy().ravel() for v in quantities.data_vars.values()] or [[]])
    if not np.isfinite(values).all():
        return State("refused", ("draws of a decision quantity are missing or not finite",))
    draws = quantities.sizes.get("chain", 1) * quantities.sizes.get("draw", 1)
    table = convergence(quantities)
    table = table[~table["constant"]]
    ess = table[["ess_bulk", "ess_tail"]].min(axis=1)
    mixing, few = (
        table[~(table["r_hat"] <= limit)],
        table[~(ess >= least_ess(draws, _ESS_DECISION))],
    )
    reasons = []
    if len(mixing):
        reasons.append(f"R-hat {_range(mixing['r_hat'])} on {_names(mixing.index)}")
    if len(few):
        reasons.append(
            f"ESS down to {ess[few.index].min():.0f} of {draws:,} draws on {_names(few.index)}"
        )
    if reasons and remedy:
        reasons[-1] += f"; {remedy}"
    return State("refused" if reasons else "ok", tuple(reasons))


def _range(values: pd.Series) -> str:
    return f"up to {values.max():.3f}" if values.notna().all() else "not computable"


def _names(index: pd.Index) -> str:
    names = [str(n) for n in index]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
