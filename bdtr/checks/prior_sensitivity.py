"""How much recommendations and values owe to the width of the priors: refits with wider and narrower ones.

All normal priors of coefficients and all priors of standard deviations between groups are made wider by
a factor; those of residual SDs and correlations stay. Every refit has the same random numbers, so that what
differs is the priors (a check of decisions, which power scaling of the likelihood does not give).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.fitted import Fit
from bdtr.backward.fitting import fit_checked, fit_completed
from bdtr.backward.induction import best_mean
from bdtr.backward.passes import backward_pass
from bdtr.backward.regimes import Regime, recommended, regime_list
from bdtr.data.completed import Completed
from bdtr.results.arguments import a_fit, number_list, probability
from bdtr.results.captions import Shown
from bdtr.results.diagnostics import State, worst
from bdtr.results.errors import ArgumentError
from bdtr.results.estimates import kind_of
from bdtr.results.progress import progress_bar
from bdtr.results.threads import side_by_side
from bdtr.stages.settings import Settings
from bdtr.values.learned_rules import few_draws, quick_settings
from bdtr.values.valuation import value

__all__ = ["PriorWidths", "prior_widths"]


@dataclass(frozen=True, repr=False)
class PriorWidths(Shown):
    """Values and recommendations under priors of other widths.

    ``table`` by ``width`` and ``regime``: mean, SD and interval of the value; ``changed`` by ``width`` and
    ``stage``: share of units whose recommended action is another one than under the fit's priors.
    """

    table: pd.DataFrame
    changed: pd.DataFrame
    propagated: int
    interval: float
    state: State

    _tables: ClassVar[tuple[str, ...]] = ("table", "changed")

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return (
            f"{self.state}. Refits with priors of coefficients and of SDs between groups made wider "
            f"by a factor (1: as fitted), {self.propagated} propagated draws; population: sample; "
            f"{kind_of(self.interval)}s."
        )


def prior_widths(
    fit: Fit,
    *regimes: Regime,
    factors: Sequence[float] = (0.5, 2.0),
    propagated: int | None = None,
    interval: float = 0.95,
    progress: bool = False,
) -> PriorWidths:
    """Refit with wider and narrower priors and see what changes.

    Parameters
    ----------
    fit
        A fitted trial with its data, all of its stages made by formulas.
    *regimes
        Regimes whose values are followed; left out: the recommended one.
    factors
        Factors of the widths; 1 is always among them.
    propagated
        Propagated draws of each refit, a divisor of the fit's own and a multiple of its chains (times its
        imputations); left out: at most 200 of them where that may be.
    interval
        Probability of the equal-tailed intervals.
    progress
        Whether to show progress.

    Returns
    -------
    PriorWidths
        In units of the outcome.

    Raises
    ------
    ValueError
        If a factor is not above 0, or a stage has a model of your own.

    Examples
    --------
    >>> found = bdtr.checks.prior_widths(fit)
    >>> list(found.table)
    ['mean', 'sd', 'lower', 'upper']
    """
    a_fit(fit)
    probability("interval", interval)
    fit.require_data("refits with other priors")
    factors = number_list("factors", factors)
    if not factors or min(factors) <= 0:
        raise ArgumentError(f"factors={factors!r}: name one or more, each above 0.")
    if any(stage.model is not None for stage in fit.trial.stages):
        raise ArgumentError(
            "prior_widths: a model of your own has priors that only you can change."
        )
    propagated = few_draws(fit.settings) if propagated is None else propagated
    settings = quick_settings(fit, propagated)
    widths = [1.0, *(f for f in dict.fromkeys(factors) if f != 1.0)]
    chosen = regime_list(regimes) or [recommended()]

    def refitted(width: float) -> tuple[pd.DataFrame, list[np.ndarray], State]:
        own = _with_width(fit, replace(settings, prior_width=width * fit.settings.prior_width))
        table = value(own, *chosen, interval=interval).table[["mean", "sd", "lower", "upper"]]
        return table, [_best(own, k) for k in range(own.stages)], own.state

    def done(jobs: int) -> None:
        if report:
            report(jobs, len(widths))

    with progress_bar(progress, "sensitivity to priors") as report:
        found = side_by_side(refitted, widths, settings.sampler != "direct", done)
    tables = {width: one[0] for width, one in zip(widths, found, strict=True)}
    first = found[0][1]
    changed = {
        width: [float(np.mean(one != base)) for one, base in zip(best, first, strict=True)]
        for width, (_, best, _) in zip(widths, found, strict=True)
    }
    states = [state for _, _, state in found]
    order = sorted(widths)
    table = pd.concat({w: tables[w] for w in order}, names=["width"])
    names = [d.action for d in fit.designs]
    moved = pd.DataFrame({w: changed[w] for w in order}, index=pd.Index(names, name="stage")).T
    return PriorWidths(
        table, moved.rename_axis("width"), propagated, interval, worst([fit.state, *states])
    )


def _with_width(fit: Fit, settings: Settings) -> Fit:
    """The fit again, to the same data or completed data sets."""
    data = fit.require_data("refits with other priors")
    if not fit.parts:
        return fit_checked(data, settings)
    every = tuple(fit.completed("refits with other priors"))
    return fit_completed(Completed(every, data), settings, xr.Dataset())


def _best(fit: Fit, k: int) -> np.ndarray:
    """Recommended action of every unit with a choice at a stage."""
    data = fit.require_data("refits with other priors")
    stage = data.stages[k]
    units = np.flatnonzero(stage.choosing)
    done, parts = backward_pass(fit), [np.zeros(0, dtype=np.int64)]
    for block in done.blocks(units):
        q = done.q_values(k, block)
        parts.append(best_mean(q, stage.feasible[block], fit.trial.higher_is_better))
    return np.concatenate(parts)
