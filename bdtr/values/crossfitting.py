r"""What the recommended regime is worth when it is valued on other units than it was learned from.

A rule that was chosen because it looked best looks better than it is on the same data. Cross-fitting
learns a rule without a fold of the data and values it by a posterior given that fold alone; the estimand
is the mean value of the fold rules (compare Chernozhukov et al. 2018, Econom. J. 21(1), on
cross-fitting).

The evaluating model has a *calibration line*: blips b_c(h) of the arms c that were learned without the fold
enter each stage, that of the action taken and, as history, those of all arms,

    Q(h, a) = x(h, a)'beta + sum_c delta_c b_c(h) + gamma b_a(h) + z(h, a)'u,

(compare Chernozhukov, Demirer, Duflo and Fernandez-Val 2018, NBER 24678), beyond what the other columns say.
Without gamma the posterior of a fold, which has few units of each site, shrinks the blip of a site as if the
rule that was learned for that site said nothing of it. Without delta it takes for blips what is due to the
sites: a posterior mean of a site's blip goes with its intercept, as sites with good results under the action
get both.

Errors of folds are correlated, as the units of each teach the rules of the others: where those of fold
f happen to favour an action, f finds it better, and so do the rules of the others, which they then value.
With sign(b) the rule, t = b / SD(b) and K folds the covariance of two errors is 4 phi(t)^2 / (K - 1) of
their variance (Stein's lemma: E[sign(b + noise) noise] twice), so that the variance of the mean is 1 +
E[4 phi(t)^2] times that of independent folds: by .64 where there is no effect, by nothing where rules are
sure. Draws are spread about their mean by its root.

The value in the sample is higher for two reasons: it is optimistic, and its rule was learned from more units.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.fitted import Fit
from bdtr.backward.fitting import fit_checked
from bdtr.backward.induction import Policy
from bdtr.backward.passes import backward_pass
from bdtr.backward.regimes import recommended
from bdtr.data.coding import with_columns
from bdtr.data.contents import DataError
from bdtr.data.modelmatrix import DesignError
from bdtr.data.stagecolumns import learned_columns
from bdtr.data.trialdata import TrialData
from bdtr.engine.compiled.streams import children
from bdtr.results.arguments import a_fit, one_of, probability, whole
from bdtr.results.captions import Shown
from bdtr.results.diagnostics import State, worst
from bdtr.results.errors import ArgumentError
from bdtr.results.estimates import estimates, kind_of
from bdtr.results.progress import progress_bar
from bdtr.results.threads import side_by_side
from bdtr.stages.settings import FitError, Settings
from bdtr.values.learned_rules import few_draws, learn, part_of, quick_settings
from bdtr.values.valuation import mean_payoffs, value

__all__ = ["MOST_DATA_SETS", "CrossFitted", "crossfit"]

_OVER = ("sites", "units")
_LEARNING, _VALUED = 100, 500  # propagated draws that a rule is learned from, and valued by
_LOOKED_AT = 400  # units whose blips say how sure rules are
MOST_DATA_SETS = 5  # completed ones, where values were imputed
_FOLDS, _LEAST = 5, {"sites": 4, "units": 40}  # folds, and how much has to be in each


@dataclass(frozen=True, repr=False)
class CrossFitted(Shown):
    """Cross-fitted values of the recommended regime beside those in the sample.

    ``draws`` has ``value`` and ``in_sample`` with dims ``chain, draw, over``; ``table`` their summaries
    and the ``difference``, by how much the mean in the sample is better: its optimism, and what rules
    lose that are learned from fewer units. ``actions`` holds what each fold's rule recommends to its
    units: ``over, fold, unit, stage, action``, and ``imputation`` where values were imputed. Over ``"sites"``
    folds are whole sites and rules do not know site effects; over ``"units"`` folds are units within sites,
    and rules do.
    """

    draws: xr.Dataset
    table: pd.DataFrame
    actions: pd.DataFrame
    folds: dict[str, int]
    interval: float
    state: State
    left_out: str = ""

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        folds = ", ".join(f"{way}: {n}" for way, n in self.folds.items())
        return (
            f"{self.state}. Value of the recommended regime, mean over the rules of folds ({folds}), each "
            f"valued where it was not learned; population: sample; {kind_of(self.interval)}s. Difference: by "
            "how much the value in the sample is better, which is its optimism and what rules lose that are "
            f"learned from fewer units.{self.left_out}"
        )


def crossfit(
    fit: Fit,
    over: str | None = None,
    folds: int | None = None,
    interval: float = 0.95,
    propagated: int | None = None,
    random_seed: int | None = None,
    progress: bool = False,
) -> CrossFitted:
    """Cross-fitted values of the recommended regime beside its value in the sample.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    over
        ``"sites"``: folds of whole sites, rules without site effects; ``"units"``: folds of units
        within sites, rules with them. Left out: both, or units alone where there are no sites or fewer
        than two for each fold.
    folds
        Number of folds. Each is valued by a fit to its own units. Left out: five, or fewer where folds
        would have less than 40 units, or four sites, each.
    interval
        Probability of the equal-tailed intervals.
    propagated
        Propagated draws of each fit, a divisor of the fit's own number and a multiple of its chains (times
        its imputations); left out: at most 500, as how units happen to fall into folds matters more.
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
    >>> found = bdtr.crossfit(fit, over="units", folds=2)
    >>> found.table.loc["units", "mean"].index.to_list()
    ['in the sample', 'cross-fitted', 'difference']
    """
    a_fit(fit)
    probability("interval", interval)
    if folds is not None:
        whole("folds", folds)
    data = fit.require_data("cross-fitting")
    if fit.trial.states:
        raise FitError(
            "cross-fitting: a rule that is learned without a fold is known for the units of the fold alone, "
            "and stages computed from models of states (states=...) need it for other histories. Fit the "
            "trial without states=."
        )
    ways = _ways(data, over, folds)
    counts = {way: _count(data, way, folds) for way in ways}
    propagated = few_draws(fit.settings, _VALUED) if propagated is None else propagated
    settings = quick_settings(fit, propagated)
    step = fit.settings.propagated // settings.propagated
    seed = fit.settings.stream("cross-fitting", random_seed)
    found, inside, rows, tables, states = [], [], [], [], [fit.state]
    for way, own in zip(ways, children(seed, len(ways)), strict=True):
        draws, actions, state, counts[way] = _of_data_sets(
            fit, settings, way, counts[way], folds is None, own, progress
        )
        regime = recommended(tailored=way == "units")
        learned = value(fit, regime, progress=progress).draws["value"].isel(regime=0, drop=True)
        inside.append(learned.isel(draw=_every(step, learned.sizes["draw"], len(fit.parts))))
        found.append(xr.zeros_like(inside[-1]) + draws.reshape(inside[-1].shape))
        rows.append(_rows(way, learned, found[-1], interval, data.trial.higher_is_better))
        tables.append(actions.assign(over=way))
        states.append(state)
    index = pd.Index(ways, name="over")
    both = {"value": xr.concat(found, index), "in_sample": xr.concat(inside, index)}
    return CrossFitted(
        xr.Dataset({k: v.transpose("chain", "draw", "over") for k, v in both.items()}),
        pd.concat(rows),
        _in_order(pd.concat(tables, ignore_index=True)),
        counts,
        interval,
        worst(states),
        _left_out(data, over, ways, folds or 2) + _data_sets(fit),
    )


def _every(step: int, draws: int, parts: int) -> np.ndarray:
    """Every so manieth draw of a chain, of each completed data set as many."""
    turn = np.arange(draws) // max(parts, 1)
    return np.flatnonzero(turn % step == step - 1)


def _in_order(actions: pd.DataFrame) -> pd.DataFrame:
    columns = ["over", "imputation", "fold", "unit", "stage", "action"]
    return actions[[c for c in columns if c in actions]]


def _data_sets(fit: Fit) -> str:
    if not fit.parts:
        return ""
    return (
        f" Over {min(len(fit.parts), MOST_DATA_SETS)} of {len(fit.parts)} completed data sets, whose imputed "
        "values know all units."
    )


def _of_data_sets(
    fit: Fit,
    settings: Settings,
    way: str,
    count: int,
    fewer: bool,
    seed: np.random.SeedSequence,
    progress: bool,
) -> tuple[np.ndarray, pd.DataFrame, State, int]:
    """Results over folds, draws spread for what these share. Where values were imputed, those of some
    completed data sets in the same folds: draw j of a chain is one given data set j mod their number."""
    alone = replace(fit.settings, imputations=0)
    some = [replace(one, settings=alone) for one in fit.parts[:MOST_DATA_SETS]] or [fit]
    spread = np.sqrt(1.0 + _shared(fit, way))
    draws, tables, states = [], [], []
    for d, one in enumerate(some):
        own, actions, state, count = _in_folds(one, settings, way, count, fewer, seed, progress)
        draws.append(own.mean() + spread * (own - own.mean()))
        tables.append(actions.assign(imputation=d) if fit.parts else actions)
        states.append(state)
    each = np.stack(draws).reshape(len(some), settings.chains, -1)
    turn = np.arange(each.shape[2])
    taken = each[turn % len(some), :, turn].T.ravel()
    return taken, pd.concat(tables), worst(states), count


def _in_folds(
    fit: Fit,
    settings: Settings,
    way: str,
    count: int,
    fewer: bool,
    seed: np.random.SeedSequence,
    progress: bool,
) -> tuple[np.ndarray, pd.DataFrame, State, int]:
    """Results over so many folds, or over fewer where some are too small for the models and that may be."""
    data = fit.require_data("cross-fitting")
    site = fit.designs[0].site_codes(data.frame)
    while True:
        fold = _folds(site, way, count, np.random.default_rng(seed))
        try:
            return *_crossfitted(fit, settings, way, fold, seed, progress), count
        except (DataError, DesignError):
            if not fewer or count == 2:
                raise
            count -= 1


def _shared(fit: Fit, way: str) -> float:
    """E[4 phi(t)^2] of the first decision that is the least sure: what folds have in common through
    their rules."""
    data, done, found = fit.require_data("cross-fitting"), backward_pass(fit), [0.0]
    for k, stage in enumerate(data.stages):
        units = np.flatnonzero(stage.choosing)
        units = units[:: max(1, len(units) // _LOOKED_AT)]
        if not units.size:
            continue
        q = (done.q_values if way == "units" else done.average)(k, units)
        sign = 1.0 if data.trial.higher_is_better else -1.0
        mean = np.where(stage.feasible[units].T, sign * q.mean(axis=2), -np.inf)
        best, second = np.argsort(-mean, axis=0)[:2]
        blip = q[best, np.arange(len(units))] - q[second, np.arange(len(units))]
        t = blip / np.maximum(blip.std(axis=1, keepdims=True), 1e-300)
        found.append(float(np.mean(2 * np.exp(-(t**2)) / np.pi)))
    return max(found)


def _left_out(data: TrialData, over: str | None, ways: Sequence[str], folds: int) -> str:
    if over or data.trial.site is None or "sites" in ways:
        return ""
    return f" Not over sites: {len(data.site_levels)} are too few for {folds} folds."


def _count(data: TrialData, way: str, folds: int | None) -> int:
    """Number of folds: five, if each has enough of what it is made of."""
    if folds is not None:
        return folds
    size = len(data.site_levels) if way == "sites" else len(data)
    return int(np.clip(size // _LEAST[way], 2, _FOLDS))


def _ways(data: TrialData, over: str | None, folds: int | None) -> list[str]:
    if over is not None:
        one_of("over", over, _OVER)
    folds = 2 if folds is None else folds
    sites = 0 if data.trial.site is None else len(data.site_levels)
    if over == "sites" and not sites:
        raise ArgumentError("over='sites': the trial names no site column.")
    enough = {"sites": folds <= sites // 2, "units": folds <= len(data) // 2}
    wanted = [over] if over else [way for way in _OVER if way == "units" or enough[way]]
    for way, count in (("sites", sites), ("units", len(data))):
        if way in wanted and not (folds >= 2 and enough[way]):
            raise ArgumentError(
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
    # Posterior means are all that is wanted of what rules are learned from.
    few = quick_settings(fit, few_draws(fit.settings, _LEARNING))
    # What a fold does not know of a site the others do not know either: it must not average out.
    settings = [replace(base, random_seed=s, common=seeds[0]) for s in seeds[:count]]
    settings += [replace(few, random_seed=s) for s in seeds[count:]]
    in_turn = base.sampler != "direct"  # PyMC compiles and samples in one thread at a time
    steps = 2 * count

    def done(jobs: int) -> None:
        if report:
            report(jobs, steps)

    with _said(way, count):
        parts = [part_of(data, fold == f, fit.settings) for f in range(count)]

    def learned(f: int) -> list[np.ndarray]:
        with _said(way, count):
            return learn(fit, fold != f, parts[f], way == "units", settings[count + f])

    def valued(f: int) -> _Valued:
        with _said(way, count):
            rule = _rule(parts[f], means[f], f)
            own = fit_checked(_with_blips(parts[f], means[f]), settings[f], followed=rule)
        data = own.require_data("cross-fitting")
        units = np.flatnonzero(data.valued)
        value = mean_payoffs([backward_pass(own, rule)], units)[0]
        return _Valued(value, len(units), data, rule, own.state)

    with progress_bar(progress, f"cross-fitting over {way}") as report:
        means = side_by_side(learned, range(count), in_turn, done)
        found = side_by_side(valued, range(count), in_turn, lambda jobs: done(count + jobs))
    tables = [
        _actions(one.data, data.units[fold == f], one.rule.actions).assign(fold=f + 1)
        for f, one in enumerate(found)
    ]
    return (
        np.average([one.value for one in found], axis=0, weights=[one.units for one in found]),
        pd.concat(tables),
        _state_of_folds([one.state for one in found], way),
    )


class _Valued(NamedTuple):
    """A fold: draws of the value of its rule (draw), over how many units, and the state of its fit."""

    value: np.ndarray
    units: int
    data: TrialData
    rule: Policy
    state: State


def _with_blips(part: TrialData, means: Sequence[np.ndarray]) -> TrialData:
    """The data of a fold with the blips that were learned without it (unit, arm), stage by stage."""
    found = {}
    for stage, mean in zip(part.stages, means, strict=True):
        if stage.stage.model is not None:
            continue
        blips = np.nan_to_num(mean - mean[:, :1])
        found |= dict(zip(learned_columns(stage.stage.action, stage.arms), blips.T, strict=True))
    return replace(part, frame=with_columns(part.frame, found))


def _rule(part: TrialData, means: Sequence[np.ndarray], f: int) -> Policy:
    """The rule of a fold: what was best without it, for its units."""
    sign, codes = 1.0 if part.trial.higher_is_better else -1.0, []
    for stage, mean in zip(part.stages, means, strict=True):
        best = np.where(stage.feasible, sign * mean, -np.inf).argmax(axis=1)
        codes.append(np.where(np.isfinite(mean).all(axis=1), best, -1))
    return Policy("regime", f"rule of fold {f + 1}", tuple(codes))


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
    text = f"{len(bad)} of {len(states)} fits over {way} are not ok, such as: {first}"
    return State(level, (text,))


def _actions(data: TrialData, units: np.ndarray, codes: Sequence[np.ndarray]) -> pd.DataFrame:
    tables = []
    for stage, own in zip(data.stages, codes, strict=True):
        known = (own >= 0) & ~stage.outside
        labels = np.array(stage.stage.actions, dtype=object)[own[known]]
        columns = {"unit": units[known], "stage": stage.stage.action, "action": labels}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables)


def _rows(
    way: str,
    learned: xr.DataArray,
    valued: xr.DataArray,
    interval: float,
    higher_is_better: bool,
) -> pd.DataFrame:
    """Summaries of the value in the sample, of the cross-fitted one, and their difference."""
    both = {"in the sample": learned, "cross-fitted": valued}
    parts = {k: estimates(v.expand_dims(over=[way]), interval) for k, v in both.items()}
    apart = parts["in the sample"][["mean"]] - parts["cross-fitted"][["mean"]]
    apart = apart if higher_is_better else -apart
    return pd.concat({**parts, "difference": apart}, names=["value"]).swaplevel()
