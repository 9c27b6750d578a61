"""Values of regimes, as results: draws and a table."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import xarray as xr

from bdtr.results.captions import Shown
from bdtr.results.diagnostics import State
from bdtr.results.estimates import kind_of

__all__ = ["Values"]


@dataclass(frozen=True, repr=False)
class Values(Shown):
    """Values of regimes: draws with dims ``chain, draw, regime`` (and ``site`` or ``group``), a table.

    ``table`` has ``mean, sd, lower, upper``, the probability ``p_best`` that a regime is the best of those
    that were named in advance (none for learned ones, and none where there is one alone). Of the units shown,
    ``off_path`` had left the regime's path before the last stage, and ``cannot_follow`` may not take its
    action at some stage: the recommended one is taken there in its place. Where values were imputed, ``fmi``
    is the fraction of missing information. ``learned`` names the regimes that were learned from the same
    data. ``contrasts`` are differences from the first regime; other references and scales are for
    :func:`bdtr.compare`.
    """

    draws: xr.Dataset
    table: pd.DataFrame
    population: str
    interval: float
    policy: str
    state: State
    higher_is_better: bool
    learned: tuple[str, ...]
    contrasts: pd.DataFrame

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return (
            f"{self.state}. Mean payoff; population: {self.population}; later stages: {self.policy}; "
            f"{kind_of(self.interval)}s."
        )
