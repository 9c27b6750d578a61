"""The value if the truth were known: the best action in every draw, which no rule can take.

    V* = mean over units of max_a Q_1(H_i, a), the maximum within each draw.

E max >= max E: the posterior mean of V* lies above the value of every regime by the worth of perfect
information. As an estimate of what the recommended regime is worth it is far too high.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.fitted import Fit
from bdtr.backward.passes import backward_passes
from bdtr.results.arguments import a_fit, amount, probability
from bdtr.results.captions import Shown
from bdtr.results.diagnostics import State
from bdtr.results.estimates import estimates, kind_of
from bdtr.values.valuation import mean_payoffs

if TYPE_CHECKING:
    from bdtr.backward.induction import BackwardPass

__all__ = ["WARNING", "Maximum", "draw_wise_maximum"]

WARNING = (
    "The draw-wise maximum is the value if the truth were known, not that of a rule that can be "
    "followed: it is too high wherever the best action is unsure. Use crossfit() for the value of the "
    "recommended regime."
)


@dataclass(frozen=True, repr=False)
class Maximum(Shown):
    """Draws of the draw-wise maximum and of the recommended regime's value, and how much is unsure.

    ``table`` summarises ``maximum``, ``recommended`` and their difference ``perfect_information``.
    ``unsure`` has per stage the units with a choice and the share of them whose best two actions are
    within the margin of each other, on average over draws.
    """

    _tables = ("table", "unsure")

    draws: xr.Dataset
    table: pd.DataFrame
    unsure: pd.DataFrame
    margin: float
    interval: float
    state: State

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return (
            f"{self.state}. {WARNING} Population: sample; indifference margin {self.margin:g}; "
            f"{kind_of(self.interval)}s."
        )


def draw_wise_maximum(
    fit: Fit, margin: float, interval: float = 0.95, progress: bool = False
) -> Maximum:
    """The draw-wise maximum beside the value of the recommended regime, with its warning.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    margin
        Difference between actions that does not matter, in units of the outcome.
    interval
        Probability of the equal-tailed intervals.
    progress
        Whether to show progress of the backward pass that has to be run.

    Returns
    -------
    Maximum

    Raises
    ------
    ValueError
        If the margin is negative.

    Examples
    --------
    >>> found = bdtr.values.draw_wise_maximum(fit, margin=0.1)
    >>> list(found.table.index)
    ['maximum', 'recommended', 'perfect_information']
    """
    a_fit(fit)
    probability("interval", interval)
    amount("margin", margin)
    data = fit.require_data("the draw-wise maximum")
    units = np.flatnonzero(data.valued)
    best, followed = backward_passes(fit, ["optimal", "recommended"], progress)
    chains = fit.settings.chains
    found = {}
    for name, done in (("maximum", best), ("recommended", followed)):
        values = mean_payoffs([done], units)[0].reshape(chains, -1)
        found[name] = xr.DataArray(values, dims=("chain", "draw"))
    gain = found["maximum"] - found["recommended"]
    found["perfect_information"] = gain if data.trial.higher_is_better else -gain
    draws = xr.Dataset(found).to_dataarray("quantity").transpose("chain", "draw", "quantity")
    return Maximum(
        xr.Dataset(found),
        estimates(draws, interval),
        _unsure(fit, best, margin),
        margin,
        interval,
        fit.state,
    )


def _unsure(fit: Fit, done: BackwardPass, margin: float) -> pd.DataFrame:
    """Per stage, the mean share of units with a choice whose best two actions are within the margin."""
    data = fit.require_data("the draw-wise maximum")
    sign, rows = (1.0 if data.trial.higher_is_better else -1.0), []
    for k, stage in enumerate(data.stages):
        units = np.flatnonzero(stage.history & (stage.feasible.sum(axis=1) > 1))
        close = 0.0
        for block in done.blocks(units):
            q = np.where(
                stage.feasible[block].T[:, :, None], sign * done.q_values(k, block), -np.inf
            )
            second, first = np.partition(q, (-2, -1), axis=0)[-2:]
            close += float((first - second <= margin).mean(axis=1).sum())
        rows.append((stage.stage.action, len(units), close / max(len(units), 1)))
    return pd.DataFrame(rows, columns=["stage", "units", "within_margin"]).set_index("stage")
