"""What a regime is worth: the mean payoff when everyone follows it, as draws and a table.

    V(d) = mean over units of Q_1(H_1, d_1(H_1)),

one number per draw, the later stages' regime being part of Q_1. Averages are taken within draws and
summarised last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.diagnostics import State, gate_decisions, rhat_limit, worst
from bdtr.induction import BackwardPass
from bdtr.regimes import Regime, embedded, recommended

if TYPE_CHECKING:
    from bdtr.fitted import Fit

__all__ = ["Values", "value"]


@dataclass(frozen=True)
class Values:
    """Values of regimes: draws with dims ``chain, draw, regime`` (and ``site``), a table, how made.

    ``contrasts`` compares each regime with the first one named, draw by draw.
    """

    draws: xr.Dataset
    table: pd.DataFrame
    contrasts: pd.DataFrame
    population: str
    interval: float
    policy: str
    state: State

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return (
            f"{self.state}. Mean payoff; population: {self.population}; later stages: {self.policy}; "
            f"{100 * self.interval:g} % equal-tailed intervals."
        )

    def __repr__(self) -> str:
        return f"{self.caption}\n{self.table.to_string(float_format='{:.3f}'.format)}"

    def _repr_html_(self) -> str:
        table = self.table.to_html(float_format="{:.3f}".format, escape=True)
        return f"<p>{escape(self.caption)}</p>{table}"


def value(
    fit: Fit,
    *regimes: Regime | Sequence[Regime],
    by: str | None = None,
    interval: float = 0.95,
    progress: bool = False,
) -> Values:
    """Values of regimes in the sample, overall or by site.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    *regimes
        Regimes; left out: the recommended one and all embedded in the trial. The value of the
        recommended regime is learned and evaluated on the same data, hence optimistic.
    by
        ``"site"`` for a value at each site.
    interval
        Probability of the equal-tailed intervals.
    progress
        Whether to show progress of backward passes that have to be run.

    Returns
    -------
    Values
        Draws with dims ``chain, draw, regime`` (and ``site``), in units of the outcome.

    Raises
    ------
    bdtr.regimes.RegimeError
        If a regime is not feasible on its own path.

    Notes
    -----
    The population is ``sample``: all units with complete stage-1 history, equally weighted. The
    backward passes of all regimes are drawn together, so that contrasts are draws from their joint
    posterior.
    """
    if by not in (None, "site"):
        raise ValueError(f"by={by!r}: allowed are None and 'site'.")
    if not 0 < interval < 1:
        raise ValueError(f"interval={interval!r}: must lie between 0 and 1.")
    data = fit.require_data("values")
    if by == "site" and data.trial.site is None:
        raise ValueError("by='site': the trial names no site column.")
    chosen = _flat(regimes) or [recommended(), *embedded(data)]
    names = [r.name for r in chosen]
    if len(set(names)) != len(names):
        raise ValueError(f"regimes: two have the same name: {names}. Give them names.")
    units = np.flatnonzero(data.valued)
    groups, labels = np.zeros(len(units), dtype=np.int64), np.array(["all"])
    if by == "site":
        labels = fit.designs[0].site_levels
        groups = fit.designs[0].site_codes(data.frame.iloc[units])
        present, groups = np.unique(groups, return_inverse=True)
        labels = labels[present]
    passes = fit.passes(chosen, progress)
    found = np.stack([_means(done, units, groups, len(labels)) for done in passes])
    return _result(fit, found, names, labels, by, interval, len(units))


def _flat(regimes: Sequence[Regime | Sequence[Regime]]) -> list[Regime]:
    out: list[Regime] = []
    for item in regimes:
        out += [item] if isinstance(item, Regime) else list(item)
    wrong = [r for r in out if not isinstance(r, Regime)]
    if wrong:
        raise ValueError(
            f"regimes: {wrong[0]!r} is no regime; use bdtr.static(...), bdtr.recommended(fit) or "
            "bdtr.embedded(fit)."
        )
    return out


def _means(done: BackwardPass, units: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """Mean payoff by group and draw (group, sample), units in blocks."""
    total, at = np.zeros((count, done.samples)), 0
    for block in done.blocks(units):
        np.add.at(total, groups[at : at + len(block)], done.continuation(0, block))
        at += len(block)
    return total / np.bincount(groups, minlength=count)[:, None]


def _result(fit, found, names, labels, by, interval, units) -> Values:
    chains = fit.settings.chains
    shaped = found.reshape(*found.shape[:2], chains, -1)
    array = xr.DataArray(
        np.moveaxis(shaped, (0, 1), (2, 3)),
        dims=("chain", "draw", "regime", "site"),
        coords={
            "chain": np.arange(chains),
            "draw": np.arange(shaped.shape[-1]),
            "regime": names,
            "site": list(labels),
        },
        name="value",
    )
    if by is None:
        array = array.isel(site=0, drop=True)
    index = pd.MultiIndex.from_product([names, labels], names=["regime", "site"])
    table = _summaries(found.reshape(-1, found.shape[-1]), index, interval)
    differences = found[1:] - found[:1]
    index = pd.MultiIndex.from_product(
        [[f"{n} minus {names[0]}" for n in names[1:]], labels], names=["contrast", "site"]
    )
    contrasts = _summaries(differences.reshape(-1, found.shape[-1]), index, interval)
    contrasts["p_above_0"] = (differences > 0).mean(axis=2).ravel()
    if by is None:
        table, contrasts = table.droplevel("site"), contrasts.droplevel("site")
    population = f"sample ({units:,} units with complete stage-1 history, equal weights)"
    policy = "the regime itself"
    against = (array - array.isel(regime=0)).rename("contrast")
    limit = rhat_limit(chains, shaped.shape[-1])
    own = [gate_decisions(part.to_dataset(), limit) for part in (array, against)]
    state = worst([fit.state, *own])
    dataset = array.to_dataset().assign_attrs(
        state=str(state), population=population, policy=policy
    )
    return Values(dataset, table, contrasts, population, interval, policy, state)


def _summaries(draws: np.ndarray, index: pd.MultiIndex, interval: float) -> pd.DataFrame:
    tail = (1 - interval) / 2
    if not len(draws):
        return pd.DataFrame(columns=["mean", "sd", "lower", "upper"], index=index, dtype=float)
    lower, upper = np.quantile(draws, [tail, 1 - tail], axis=1)
    return pd.DataFrame(
        {
            "mean": draws.mean(axis=1),
            "sd": draws.std(axis=1, ddof=1),
            "lower": lower,
            "upper": upper,
        },
        index=index,
    )
