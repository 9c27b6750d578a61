"""Whether Q-values keep to the bounds of the payoff, as those of a straight line need not."""

from __future__ import annotations

import numpy as np

from bdtr.backward.fitrecord import FitRecord
from bdtr.backward.passes import backward_pass

__all__ = ["bounds", "outside_bounds"]

_UNITS = 400  # whose Q-values are looked at
_SHARE = 0.005  # of draws outside, from which on it is said


def outside_bounds(fit: FitRecord, values: np.ndarray, what: str) -> list[str]:
    """A reason where draws of a mean payoff leave the bounds of the payoff.

    Parameters
    ----------
    fit
        A fitted trial.
    values
        Draws, sample last; NaN where there are none.
    what
        What they are, for the reason.
    """
    limits = fit.trial.payoff.bounds
    if limits is None:
        return []
    low, high = limits
    known = values[np.isfinite(values).all(axis=-1)]
    if not known.size:
        return []
    share = ((known < low) | (known > high)).mean()
    mean = known.mean(axis=-1)
    beyond = ((mean < low) | (mean > high)).mean()
    if share <= _SHARE and beyond == 0:
        return []
    return [
        f"{what}: {100 * share:.2g} % of the draws and {100 * beyond:.2g} % of the means lie "
        f"outside the bounds of "
        f"the payoff, {low:g} to {high:g} (from {known.min():.2g} to {known.max():.2g})"
    ]


def bounds(fit: FitRecord) -> list[str]:
    """Stages whose Q-values leave the bounds of the payoff, and in what share."""
    if fit.trial.payoff.bounds is None:
        return []
    data, done, found = fit.require_data("checks of the model"), backward_pass(fit), []
    for k, stage in enumerate(data.stages):
        units = np.flatnonzero(stage.history)
        units = units[:: max(1, len(units) // _UNITS)]
        q = done.q_values(k, units)
        allowed = stage.feasible[units].T
        found += outside_bounds(fit, q[allowed], f"stage {stage.stage.action}, Q-values")
    return found
