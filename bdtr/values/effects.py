r"""Standardised differences between regimes, as readers of education trials expect them.

With V(d) - V(d0) the difference of two regimes and s^2, t^2 the variances of the payoff within and between
sites, among units with the same actions at stages where all have the same choice (a model of the payoff
without covariates):

    g_within = J (V(d) - V(d0)) / s,     g_total = J (V(d) - V(d0)) / sqrt(s^2 + t^2),
    ICC = t^2 / (s^2 + t^2),             J = 1 - 3 / (4 (n - 2) - 1).

J is the correction of Hedges (1981, J. Educ. Stat. 6(2)). All are posterior draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.fitted import Fit
from bdtr.backward.fitting import fit_checked
from bdtr.data.check import check_again
from bdtr.data.trialdata import TrialData
from bdtr.results.arguments import a_fit, number_list, probability
from bdtr.results.captions import Shown
from bdtr.results.diagnostics import State, gate_decisions, rhat_limit, worst
from bdtr.results.errors import ArgumentError
from bdtr.results.estimates import estimates, kind_of, stacked
from bdtr.stages.pooled import pooled_dataset
from bdtr.trial.trial import Stage, Trial
from bdtr.values.comparison import compare
from bdtr.values.regimevalues import Values

__all__ = ["EffectSizes", "effect_sizes"]


@dataclass(frozen=True, repr=False)
class EffectSizes(Shown):
    """Hedges' g of regimes against a reference, and the intraclass correlation.

    ``draws`` has ``g_within`` and ``g_total`` (dims ``chain, draw, contrast``) and ``icc``; ``table`` their
    summaries and for each threshold the probability that g lies beyond it; ``variances`` those of the SDs
    within and between sites and of the intraclass correlation.
    """

    _tables = ("table", "variances")

    draws: xr.Dataset
    table: pd.DataFrame
    variances: pd.DataFrame
    units: int
    population: str
    interval: float
    state: State

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return (
            f"{self.state}. Hedges' g; population: {self.population}; SDs of the payoff of {self.units:,} "
            f"units given their actions; {kind_of(self.interval)}s."
        )


def effect_sizes(
    fit: Fit,
    values: Values,
    reference: str | None = None,
    thresholds: Sequence[float] = (0.0, 0.05, 0.1, 0.15, 0.2),
    interval: float = 0.95,
) -> EffectSizes:
    """Hedges' g of regimes against one of them, P(g > t), and the intraclass correlation.

    Parameters
    ----------
    fit
        The fitted trial that the values are from, with its data.
    values
        From :func:`bdtr.value`.
    reference
        Name of a regime; left out: the first one.
    thresholds
        Values t for P(g > t); where lower is better P(g < -t).
    interval
        Probability of the equal-tailed intervals.

    Returns
    -------
    EffectSizes

    Raises
    ------
    ValueError
        If the outcome is not continuous.

    Examples
    --------
    >>> values = bdtr.value(fit, bdtr.static(a1="small", a2="small"), bdtr.recommended())
    >>> list(bdtr.values.effect_sizes(fit, values, reference="small, small").table)
    ['mean', 'sd', 'lower', 'upper', 'P(g > 0)', 'P(g > 0.05)', 'P(g > 0.1)', 'P(g > 0.15)', 'P(g > 0.2)']
    """
    a_fit(fit)
    probability("interval", interval)
    if not fit.trial.payoff.gaussian:
        raise ArgumentError(
            f"Hedges' g is for payoffs that are Gaussian outcomes, and this one is not "
            f"({fit.trial.family}). Use bdtr.values.effect_measures(fit, values)."
        )
    thresholds = number_list("thresholds", thresholds)
    within, between, units, state = _variances(fit)
    compared = compare(values, reference, interval=interval)
    difference = compared.draws
    correction = 1 - 3 / (4 * (units - 2) - 1)
    both = {
        "g_within": correction * difference / within,
        "g_total": correction * difference / np.hypot(within, between),
    }
    icc = (between**2 / (within**2 + between**2)).rename("icc")
    table = pd.concat({name: estimates(g, interval) for name, g in both.items()}, names=["size"])
    sign = 1.0 if values.higher_is_better else -1.0
    beyond = {
        f"P(g > {t:g})" if sign > 0 else f"P(g < {0.0 - t:g})": np.concatenate(
            [(sign * stacked(g) > t).mean("sample").to_numpy().ravel() for g in both.values()]
        )
        for t in thresholds
    }
    table = table.assign(**beyond)
    table = table.reorder_levels([*range(1, table.index.nlevels), 0])
    keys = [key if isinstance(key, tuple) else (key,) for key in compared.table.index]
    table = table.loc[[(*key, size) for key in keys for size in both]]
    sds = xr.Dataset({"sd_within": within, "sd_between": between, "icc": icc}).to_dataarray(
        "quantity"
    )
    return EffectSizes(
        xr.Dataset({**both, "icc": icc}),
        table,
        estimates(sds.transpose("chain", "draw", "quantity"), interval),
        units,
        values.population,
        interval,
        worst([values.state, state]),
    )


def _variances(fit: Fit) -> tuple[xr.DataArray, xr.DataArray, int, State]:
    """SDs of the payoff within and between sites among units with the same actions; where values were
    imputed, those of each completed data set for its draws."""
    if fit.parts:
        each = [_variances(one) for one in fit.parts]
        pairs = [xr.Dataset({"within": within, "between": between}) for within, between, *_ in each]
        both = pooled_dataset(pairs)
        limit = rhat_limit(fit.settings.chains, both.sizes["draw"])
        return both["within"], both["between"], each[0][2], gate_decisions(both, limit)
    data = fit.require_data("effect sizes")
    rewards = sum(np.asarray(stage.reward, dtype=float) for stage in data.stages)
    frame = pd.DataFrame({"payoff": data.outcome + rewards, "path": _paths(data)})
    formula = "path"
    if data.trial.site:
        frame["site"] = data.frame[data.trial.site].astype(object).to_numpy()
        formula = "path + (1 | site)"
    frame = frame[np.isfinite(frame["payoff"]) & (frame["path"] != "")]
    site = "site" if data.trial.site else None
    stage = Stage("path", actions=sorted(frame["path"].unique()), formula=formula, site_means=False)
    chains = fit.settings.chains
    settings = replace(
        fit.settings, sampler="direct", draws=fit.settings.propagated // chains,
        random_seed=int(fit.settings.stream("effect sizes").generate_state(1)[0]),
    )  # fmt: skip
    payoffs = check_again(Trial([stage], outcome="payoff", site=site), frame)
    done = fit_checked(payoffs, settings)
    posterior = done.posterior(0)
    within = posterior["sigma"].drop_vars("term", errors="ignore")
    if "action" in within.dims:  # over the units of all paths
        shares = np.bincount(payoffs.stages[0].action[payoffs.stages[0].fitted])
        weight = xr.DataArray(shares / shares.sum(), dims="action")
        within = (weight * within**2).sum("action") ** 0.5
    between = (
        posterior["sd_site"].isel({posterior["sd_site"].dims[-1]: 0}, drop=True)
        if site
        else 0 * within
    )
    return within, between, len(frame), done.state


def _paths(data: TrialData) -> list[str]:
    """The actions that each unit took, joined; empty where one is not known.

    Without those of stages at which history decides who has which choice: units of one such path are
    alike in their history, as responders are, and vary less than all who follow a regime.
    """
    parts = []
    for stage in data.stages:
        if parts and (stage.stage.among or stage.stage.feasible):
            continue
        # Codes, as labels may hold the mark between them or be that of no decision.
        alone = (stage.action < 0) | (stage.action >= len(stage.stage.actions or ()))
        codes = np.where(alone, "-", stage.action.astype(str))
        parts.append(np.where((stage.action < 0) & stage.among, "", codes).astype(object))
    return ["" if "" in path else "; ".join(path) for path in zip(*parts, strict=True)]
