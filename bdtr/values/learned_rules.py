"""Rules learned from part of the data, and the settings of fits to parts of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bdtr.backward.fitted import Fit
from bdtr.backward.fitting import fit_checked
from bdtr.backward.passes import backward_pass
from bdtr.data.check import check_again
from bdtr.data.trialdata import TrialData
from bdtr.results import arguments
from bdtr.results.errors import ArgumentError
from bdtr.stages.settings import Settings, integrates

__all__ = ["few_draws", "learn", "part_of", "quick_settings"]

_LEAST_DRAWS = 100  # fewer say nothing about convergence
_UNITS = 100_000  # whose columns are in memory at once


def few_draws(settings: Settings, most: int = 200) -> int:
    """Propagated draws for parts of the data or other priors: at most so many, if they divide."""
    whole, unit = settings.propagated, settings.chains * settings.shares
    sizes = [n for n in range(unit, most + 1, unit) if whole % n == 0 and n >= _LEAST_DRAWS]
    return max(sizes, default=whole)


def quick_settings(fit: Fit, propagated: int | None = None) -> Settings:
    """Settings of fits to parts of the data or under other priors: the direct sampler where it will do.

    With ``propagated`` below the fit's number, as many draws are propagated; the direct sampler then makes
    twice as many at the last stage, which is all that is asked of it.
    """
    exact = integrates(fit.trial)
    settings = replace(fit.settings, sampler="direct") if exact else fit.settings
    whole, chains = settings.propagated, settings.chains
    count = whole if propagated is None else propagated
    arguments.whole("propagated", count)
    if whole % count or count % (chains * settings.shares):
        of = f" times {settings.shares} completed data sets" if settings.shares > 1 else ""
        raise ArgumentError(
            f"propagated={propagated!r}: must divide the fit's {whole} propagated draws and be a multiple "
            f"of its {chains} chains{of}."
        )
    settings = replace(settings, quick=True)
    if count == whole:
        return settings
    draws = min(settings.draws, 2 * count // chains) if exact else settings.draws
    return replace(settings, propagated=count, draws=draws)


def part_of(data: TrialData, rows: np.ndarray, settings: Settings) -> TrialData:
    """The data of some units, checked on their own; who is left out of completed data is left out here."""
    frame = data.named[rows].reset_index(drop=True)
    missing = "error" if settings.missing == "error" else "exclude"
    part = check_again(data.trial, frame, missing, settings.off_protocol)
    # Rewards may be shifted for some (bdtr.data.imputation.shifts), which their columns do not say.
    stages = tuple(
        replace(own, reward=stage.reward[rows])
        for own, stage in zip(part.stages, data.stages, strict=True)
    )
    return replace(part, stages=stages)


def learn(
    fit: Fit, keep: np.ndarray, part: TrialData, at_sites: bool, settings: Settings
) -> list[np.ndarray]:
    """Mean Q-values of some units by a fit to others, later stages recommended.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    keep
        (unit of the data) whom it is learned from.
    part
        The data of those whose Q-values are wanted.
    at_sites
        Whether the effects of the trial's sites are known, or Q-values are means over sites.
    settings
        Of the fit to the others.

    Returns
    -------
    list of numpy.ndarray
        Per stage (unit, arm) on the scale of the linear predictor; NaN without a complete history.
    """
    data = fit.require_data("learning a rule")
    found = fit_checked(part_of(data, keep, fit.settings), settings)
    out = []
    for k, (design, stage) in enumerate(zip(found.designs, part.stages, strict=True)):
        mean = np.full(stage.feasible.shape, np.nan)
        columns = [c for c in part.frame.columns if c in (*design.history, part.trial.site)]
        coded = design.coding.code(part.frame, columns)
        q_function = found.q_function(k, sites="observed" if at_sites else "average")
        known = np.flatnonzero(stage.history)
        # Columns for many units at a time, as each time costs.
        for first in range(0, len(known), _UNITS):
            units = known[first : first + _UNITS]
            made: Any = q_function.columns(coded.iloc[units])
            for block in backward_pass(found).blocks(np.arange(len(units))):
                mean[units[block]] = q_function.evaluate(made.part(block)).mean(axis=2).T
        own = fit.trial.stages[k].model is not None
        out.append(mean if own else fit.payoff(k).linear(mean))
    return out
