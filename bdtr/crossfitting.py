"""What the recommended regime is worth when it is valued on other units than it was learned from.

A rule that was chosen because it looked best looks better than it is on the same data. Cross-fitting
learns a rule without a fold of the data and values it by a posterior given that fold alone; the estimand
is the mean value of the fold rules (compare Chernozhukov et al. 2018, Econom. J. 21(1), on cross-fitting).
The difference from the value in the sample is the optimism.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.coding import DataError
from bdtr.data import TrialData, check_again
from bdtr.design import DesignError
from bdtr.diagnostics import State, worst
from bdtr.estimates import estimates
from bdtr.fitting import fit_checked
from bdtr.induction import Policy, best_mean
from bdtr.multilevel.randomness import children
from bdtr.progress import progress_bar
from bdtr.regimes import recommended
from bdtr.settings import Settings, integrates
from bdtr.shown import Shown
from bdtr.threads import side_by_side
from bdtr.values import mean_payoffs, value

if TYPE_CHECKING:
    from bdtr.fitted import Fit

__all__ = ["CrossFitted", "crossfit", "part_of", "quick_settings"]

_OVER = ("sites", "units")
_UNITS = 100_000  # whose columns are in memory at once


@dataclass(frozen=True, repr=False)
class CrossFitted(Shown):
    """Cross-fitted values of the recommended regime beside those in the sample.

    ``draws`` has ``value`` and ``in_sample`` with dims ``chain, draw, over``; ``table`` their summaries
    and the ``optimism``, by how much the mean in the sample is better. ``actions`` holds what each fold's
    rule recommends to its units: ``over, fold, unit, stage, action``. Over ``"sites"`` folds are whole sites
    and rules do not know site effects; over ``"units"`` folds are units within sites, and rules do.
    """

    draws: xr.Dataset
    table: pd.DataFrame
    actions: pd.DataFrame
    folds: int
    interval: float
    state: State
    left_out: str = ""

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return (
            f"{self.state}. Value of the recommended regime, mean over the rules of {self.folds} folds, each "
            f"valued where it was not learned; population: sample; {100 * self.interval:g} % equal-tailed "
            f"intervals. Optimism: by how much the value in the sample looks better.{self.left_out}"
        )


def crossfit(
    fit: Fit,
    over: str | None = None,
    folds: int = 2,
    interval: float = 0.95,
    propagated: int | None = None,
    random_seed: int | None = None,
    progress: bool = False,
) -> CrossFitted:
    """Cross-fitted values of the recommended regime, and its optimism in the sample.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    over
        ``"sites"``: folds of whole sites, rules without site effects; ``"units"``: folds of units
        within sites, rules with them. Left out: both, or units alone where there are no sites or fewer
        than two for each fold.
    folds
        Number of folds. Each is valued by a fit to its own units: two folds leave most to each fit.
    interval
        Probability of the equal-tailed intervals.
    propagated
        Propagated draws of each fit, a divisor of the fit's own number and a multiple of its chains; left
        out: as many as the fit.
    random_seed
        Seed of folds and fits; left out: that of the fit.
    progress
        Whether to show progress.

    Returns
    -------
    CrossFitted

    Raises
    ------
    ValueError
        If ``propagated`` does not divide the fit's draws, or there are fewer than two units, or sites where
        they are asked for, for each fold.

    Examples
    --------
    >>> bdtr.crossfit(fit)  # doctest: +SKIP
    """
    data = fit.require_data("cross-fitting")
    ways = _ways(data, over, folds)
    settings = quick_settings(fit, propagated)
    step = fit.settings.propagated // settings.propagated
    seed = fit.settings.stream("cross-fitting", random_seed)
    found, inside, tables, states = [], [], [], [fit.state]
    for way, own in zip(ways, children(seed, len(ways)), strict=True):
        fold = _folds(fit.designs[0].site_codes(data.frame), way, folds, np.random.default_rng(own))
        draws, actions, state = _crossfitted(fit, settings, way, fold, own, progress)
        regime = recommended(tailored=way == "units")
        whole = value(fit, regime, progress=progress).draws["value"].isel(regime=0, drop=True)
        inside.append(whole.isel(draw=slice(step - 1, None, step)))
        found.append(xr.zeros_like(inside[-1]) + draws.reshape(inside[-1].shape))
        tables.append(actions.assign(over=way))
        states.append(state)
    index = pd.Index(ways, name="over")
    both = {"value": xr.concat(found, index), "in_sample": xr.concat(inside, index)}
    return CrossFitted(
        xr.Dataset({k: v.transpose("chain", "draw", "over") for k, v in both.items()}),
        _table(both, interval, data.trial.higher_is_better),
        pd.concat(tables, ignore_index=True)[["over", "fold", "unit", "stage", "action"]],
        folds,
        interval,
        worst(states),
        _left_out(data, over, ways, folds),
    )


def _left_out(data: TrialData, over: str | None, ways: Sequence[str], folds: int) -> str:
    if over or data.trial.site is None or "sites" in ways:
        return ""
    return f" Not over sites: {len(data.site_levels)} are too few for {folds} folds."


def _ways(data: TrialData, over: str | None, folds: int) -> list[str]:
    if over not in (None, *_OVER):
        raise ValueError(f"over={over!r}: allowed are None, 'sites' and 'units'.")
    sites = 0 if data.trial.site is None else len(data.site_levels)
    if over == "sites" and not sites:
        raise ValueError("over='sites': the trial names no site column.")
    enough = {"sites": folds <= sites // 2, "units": folds <= len(data) // 2}
    wanted = [over] if over else [way for way in _OVER if way == "units" or enough[way]]
    for way, count in (("sites", sites), ("units", len(data))):
        if way in wanted and not (folds >= 2 and enough[way]):
            raise ValueError(
                f"folds={folds!r}: must be at least 2 and at most half the number of {way} ({count})."
                + (" With over='units' folds are of units." if way == "sites" else "")
            )
    return wanted


def _folds(site: np.ndarray, over: str, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Fold of each unit: whole sites, or units dealt out within sites."""
    if over == "sites":
        return (rng.permutation(site.max() + 1) % folds)[site]
    order = np.lexsort((rng.random(len(site)), site))
    fold = np.empty(len(site), dtype=np.int64)
    fold[order] = np.arange(len(site)) % folds
    return fold


def _crossfitted(
    fit: Fit,
    base: Settings,
    way: str,
    fold: np.ndarray,
    seed: np.random.SeedSequence,
    progress: bool,
) -> tuple[np.ndarray, pd.DataFrame, State]:
    """Draws of the mean value of the fold rules, what they recommend, and the state of the fits."""
    data = fit.require_data("cross-fitting")
    count = int(fold.max()) + 1
    seeds = [int(s.generate_state(1)[0]) for s in children(seed, 2 * count)]
    settings = [replace(base, random_seed=s) for s in seeds]
    # With two folds one learns from what the other is valued on.
    parts = [fold == f for f in range(count)]
    parts += [fold != f for f in range(count)] if count > 2 else []
    in_turn = base.sampler != "direct"  # PyMC compiles and samples in one thread at a time

    def fitted(part: int) -> Fit:
        with _said(way, count):
            return fit_checked(part_of(data, parts[part], fit.settings), settings[part])

    def learned(f: int) -> Policy:
        own, other = fits[f].require_data("cross-fitting"), 1 - f if count == 2 else count + f
        with _said(way, count):
            codes = _recommended(fits[other], own, "observed" if way == "units" else "average")
        return Policy("regime", f"rule of fold {f + 1}", codes)

    def valued(f: int) -> tuple[np.ndarray, int]:
        units = np.flatnonzero(fits[f].require_data("cross-fitting").valued)
        return mean_payoffs(fits[f].passes([rules[f]]), units)[0], len(units)

    def done(jobs: int) -> None:
        if report:
            report(jobs, len(parts) + count)

    # Step by step, so that no fold reads a fit while another adds to it.
    with progress_bar(progress, f"cross-fitting over {way}") as report:
        fits = side_by_side(fitted, range(len(parts)), in_turn, done)
        rules = side_by_side(learned, range(count), in_turn)
        values = side_by_side(valued, range(count), in_turn, lambda jobs: done(len(parts) + jobs))
    tables = [
        _actions(fits[f].require_data("cross-fitting"), data.units[fold == f], rule.actions).assign(
            fold=f + 1
        )
        for f, rule in enumerate(rules)
    ]
    weights = [weight for _, weight in values]
    return (
        np.average([own for own, _ in values], axis=0, weights=weights),
        pd.concat(tables),
        _state_of_folds([one.state for one in fits], way),
    )


@contextlib.contextmanager
def _said(way: str, folds: int):
    """Say of an error in the data of a fold where it arose."""
    try:
        yield
    except (DataError, DesignError) as error:
        raise type(error)(
            f"crossfit over {way}: with {folds} folds some are too small for the trial's models. {error} "
            "(rows are those of the fold). Use fewer folds, another seed, or join rare labels."
        ) from None


def _state_of_folds(states: Sequence[State], way: str) -> State:
    """The worst state among the fits of folds, with one reason for all of them."""
    bad = [s for s in states if s.level != "ok"]
    if not bad:
        return State()
    level = worst(bad).level
    first = next(s for s in bad if s.level == level).reasons[0]
    return State(
        level, (f"{len(bad)} of {len(states)} fits over {way} are not ok, such as: {first}",)
    )


def quick_settings(fit: Fit, propagated: int | None = None) -> Settings:
    """Settings of fits to parts of the data or under other priors: the direct sampler where it will do.

    With ``propagated`` below the fit's number, as many draws are propagated; the direct sampler then makes
    twice as many at the last stage, which is all that is asked of it.
    """
    exact = integrates(fit.trial)
    settings = replace(fit.settings, sampler="direct") if exact else fit.settings
    whole, chains = settings.propagated, settings.chains
    count = whole if propagated is None else propagated
    if count < 1 or whole % count or count % chains:
        raise ValueError(
            f"propagated={propagated!r}: must divide the fit's {whole} propagated draws and be a multiple "
            f"of its {chains} chains."
        )
    if count == whole:
        return settings
    draws = min(settings.draws, 2 * count // chains) if exact else settings.draws
    return replace(settings, propagated=count, draws=draws, few=True)


def part_of(data: TrialData, rows: np.ndarray, settings: Settings) -> TrialData:
    """The data of some units, checked on their own."""
    frame = data.named[rows].reset_index(drop=True)
    return check_again(data.trial, frame, settings.missing, settings.off_protocol)


def _recommended(learned: Fit, data: TrialData, sites: str) -> list[np.ndarray]:
    """Per stage the action code that a fit recommends to each unit of other data, -1 without history."""
    out = []
    for k, (design, stage) in enumerate(zip(learned.designs, data.stages, strict=True)):
        codes = np.full(len(data), -1, dtype=np.int64)
        columns = [c for c in data.frame.columns if c in (*design.history, data.trial.site)]
        coded = design.coding.code(data.frame, columns)
        q_function = learned.q_function(k, sites=sites)
        known = np.flatnonzero(stage.history)
        for at in range(0, len(known), _UNITS):  # columns for many units at a time: each time costs
            units = known[at : at + _UNITS]
            columns: Any = q_function.columns(coded.iloc[units])
            for block in learned.passed().blocks(np.arange(len(units))):
                q = q_function.evaluate(columns.part(block))
                feasible = stage.feasible[units[block]]
                codes[units[block]] = best_mean(q, feasible, data.trial.higher_is_better)
        out.append(codes)
    return out


def _actions(data: TrialData, units: np.ndarray, codes: Sequence[np.ndarray]) -> pd.DataFrame:
    tables = []
    for stage, own in zip(data.stages, codes, strict=True):
        known = own >= 0
        labels = np.array(stage.stage.actions, dtype=object)[own[known]]
        columns = {"unit": units[known], "stage": stage.stage.action, "action": labels}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables)


def _table(both: Mapping[str, Any], interval: float, higher_is_better: bool) -> pd.DataFrame:
    names = {"in_sample": "in the sample", "value": "cross-fitted"}
    parts = {names[k]: estimates(both[k], interval) for k in names}
    optimism = parts["in the sample"][["mean"]] - parts["cross-fitted"][["mean"]]
    optimism = optimism if higher_is_better else -optimism
    table = pd.concat({**parts, "optimism": optimism}, names=["value"])
    return table.swaplevel().loc[list(both["value"]["over"].to_numpy())]
