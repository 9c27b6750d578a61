r"""A second opinion on values that does not lean on the shape of the outcome models.

For a regime d, with pi_k the probability of the action taken, rho_k that of being seen on to the next stage,
both given history, and

    w_ik = product over stages j <= k of 1[A_j = d_j, seen] / (pi_j rho_j),

the augmented value adds to the outcome models' value the weighted residuals of those who followed d,

    sum_i v_i [Q_1(H_i, d_1) + sum_k w_ik (R_k + V_{k+1,i} - Q_k(H_ik, d_k))],   V_{K+1} = the payoff,

and is right if the probabilities are, whatever the models (Robins, Rotnitzky and Zhao 1994, JASA 89(427);
Zhang, Tsiatis, Laber and Davidian 2013, Biometrika 100(3)). The weighted value is that of the payoffs of
those who followed d to the end, divided by the sum of their weights. Each draw s has its own Q and its own
v: Bayesian bootstrap over sites (Dirichlet weights over sites), or over units where there are fewer than 10
sites.

The difference of the augmented value from the model's, the mean of the weighted residuals, is judged by
a jackknife: groups of sites (or units) are left out in turn, the outcome models are fitted anew each time
(probabilities and rules are kept; of stages that formulas make SDs and correlations too:
:mod:`bdtr.checks.leaveout`),

    SE^2 = (G - 1)/G sum_g (D_(g) - mean D)^2,    interval D +- t_{G-1} SE.

Its spread over draws would be far too large: the models are fitted to the same residuals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import stdtrit

from bdtr.backward.fitted import Fit
from bdtr.backward.fitting import fit_checked
from bdtr.backward.induction import BackwardPass, Policy
from bdtr.backward.passes import backward_passes
from bdtr.backward.policies import named_policy
from bdtr.backward.regimes import Regime, embedded, regime_list
from bdtr.checks.assignment import WORDS, Known, by_stage, treatment_probabilities
from bdtr.checks.leaveout import made_by_formulas, passes_without
from bdtr.data.contents import DataError
from bdtr.data.modelmatrix import DesignError
from bdtr.data.trialdata import TrialData
from bdtr.engine.compiled.streams import children
from bdtr.results.arguments import a_fit, one_of, probability, whole
from bdtr.results.captions import Shown
from bdtr.results.diagnostics import State, doubt, worst
from bdtr.results.errors import ArgumentError
from bdtr.results.estimates import estimates, kind_of, with_labels
from bdtr.results.progress import progress_bar
from bdtr.stages.pooled import interleaved
from bdtr.stages.propensity import category_probabilities
from bdtr.values.crossfitting import MOST_DATA_SETS, crossfit
from bdtr.values.learned_rules import part_of, quick_settings
from bdtr.values.populations import Cells, cell_means

__all__ = ["Opinion", "second_opinion"]

_MOST_CLUSTERS = 5_000  # units are put into so many batches at random for the bootstrap
_FEW_SITES = 10
_NOTHING = 0.2  # difference, in posterior SDs of the value, that is no disagreement
_DRAWS = 200  # of completed data sets together
_JACKKNIFE_DRAWS = 100  # a chain: posterior means are all that is wanted


@dataclass(frozen=True, repr=False)
class Opinion(Shown):
    """Values by the outcome models, by weights alone, and augmented.

    ``draws`` has ``model``, ``weighted`` and ``augmented`` with dims ``chain, draw, regime``; ``table`` their
    means and intervals, and the ``difference`` of augmented and model by the jackknife (all units of the same
    weight). ``followers`` has per regime the units that followed it to the end, their effective number
    sum(w)^2 / sum(w^2), the largest share of one unit, and whether the opinions ``disagree``: the interval of
    the difference, simultaneous over the regimes of the call (Bonferroni), leaves 0 out, and the difference
    is more than a fifth of the posterior SD of the value.
    """

    _tables = ("table", "followers")

    draws: xr.Dataset
    table: pd.DataFrame
    followers: pd.DataFrame
    about: str
    interval: float
    state: State

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return (
            f"{self.state}. Mean payoff by the outcome models, by weights alone, and augmented; population: "
            f"{self.about}; {kind_of(self.interval)}s."
        )


def second_opinion(
    fit: Fit,
    *regimes: Regime,
    probabilities: Mapping[str, Known] | None = None,
    staying: str = "model",
    interval: float = 0.95,
    groups: int = 20,
    random_seed: int | None = None,
    progress: bool = False,
) -> Opinion:
    """Inverse-probability-weighted and augmented values of regimes beside those of the outcome models.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    *regimes
        Regimes; left out: all embedded in the trial. The recommended regime is cross-fitted: each unit
        has the action of a rule that was learned without its fold, and the name says so.
    probabilities
        Of actions, by stage: known ones; ``"model"``, a multilevel regression on history, which is also what
        is done if they are left out; or ``"shares"``, shares by site, which are wrong where assignment
        depends on history. See :mod:`bdtr.checks.assignment`.
    staying
        Probability of staying and being in the protocol, where some are not: ``"model"``, a multilevel
        logistic regression on history and action, or ``"shares"``, shares by action and site.
    interval
        Probability of the equal-tailed intervals.
    groups
        Groups of sites or units left out in turn by the jackknife, each with a fit to the rest.
    random_seed
        Seed of the bootstrap and the groups; left out: that of the fit.
    progress
        Whether to show progress.

    Returns
    -------
    Opinion
        In units of the outcome.

    Raises
    ------
    ValueError
        If an argument is not allowed, or nobody followed a regime to the end.

    Examples
    --------
    >>> found = bdtr.checks.second_opinion(fit, bdtr.static(a1="small", a2="small"))
    >>> list(found.table)
    ['mean', 'sd', 'lower', 'upper']
    """
    a_fit(fit)
    probability("interval", interval)
    data = fit.require_data("a second opinion")
    one_of("staying", staying, WORDS)
    probabilities = by_stage(fit, probabilities)
    chosen = regime_list(regimes) or embedded(data)
    names = [f"{r.name}, cross-fitted" if r.is_recommended else r.name for r in chosen]
    some = fit.parts[: _data_sets(fit)] or (fit,)
    each = [
        _of_data(one, chosen, names, probabilities, staying, groups, random_seed, progress)
        for one in some
    ]
    return _result(fit, names, each, interval)


def _data_sets(fit: Fit) -> int:
    """Completed data sets that are looked at: some, or as many as it takes for enough draws."""
    if not fit.parts:
        return 0
    return max(MOST_DATA_SETS, -(-_DRAWS // fit.parts[0].settings.propagated))


@dataclass(frozen=True)
class _Found:
    """Draws (regime, kind, sample) given one data set, mean differences (regime) and those without each group
    (regime, group), who followed each regime, and what was resampled."""

    draws: np.ndarray
    difference: np.ndarray
    left_out: np.ndarray
    followers: np.ndarray
    about: str


def _of_data(
    fit: Fit,
    chosen: Sequence[Regime],
    names: Sequence[str],
    probabilities: Mapping[str, Known],
    staying: str,
    groups: int,
    random_seed: int | None,
    progress: bool,
) -> _Found:
    """The opinions of one data set."""
    data = fit.require_data("a second opinion")
    rules = [_crossed(fit, r) if r.is_recommended else named_policy(r, data) for r in chosen]
    chance = _chances(fit, probabilities, staying)
    units = np.flatnonzero(data.valued)
    seed = fit.settings.stream("opinion", random_seed)
    boot_seed, group_seed = children(seed, 2 * fit.stages + 2)[-2:]
    cluster, boot, about = _bootstrap(fit, units, np.random.default_rng(boot_seed))
    group = _groups(fit, groups, np.random.default_rng(group_seed))
    weights = [_weights(data, rule, chance) for rule in rules]
    found, followers, apart = [], [], []
    for name, own, done in zip(names, weights, backward_passes(fit, rules, progress), strict=True):
        if not own[-1][units].any():
            raise ArgumentError(
                f"regime {name!r}: nobody followed it to the end; it has no second opinion."
            )
        draws, residual = _values(done, units, cluster, boot, own)
        found.append(draws)
        apart.append(residual)
        followers.append(_followers(own[-1][units]))
    left_out = _left_out(fit, rules, weights, group, progress)
    return _Found(np.stack(found), np.array(apart), left_out, np.array(followers), about)


def _crossed(fit: Fit, regime: Regime) -> Policy:
    """The rules of folds, each for the units it was not learned from."""
    if fit.trial.states:
        raise ArgumentError(
            "regimes: a second opinion on the recommended regime cross-fits it, which stages that are "
            "computed from models of states (states=...) do not go with. Name regimes, or fit without them."
        )
    data = fit.require_data("a second opinion")
    over = "units" if regime.tailored or data.trial.site is None else "sites"
    own = crossfit(fit, over=over).actions
    place = pd.Index(data.units.astype(object))
    path, codes, off = np.ones(len(data), dtype=bool), [], []
    for stage in data.stages:
        mine = own[own["stage"] == stage.stage.action]
        wanted = np.full(len(data), -1)
        labels = pd.Index(list(stage.stage.actions or ()))
        at = place.get_indexer(pd.Index(mine["unit"].astype(object)))
        wanted[at] = labels.get_indexer(pd.Index(mine["action"]))
        wanted = np.where(stage.outside, len(stage.arms) - 1, wanted)
        codes.append(wanted)
        off.append(stage.history & ~path)
        path = path & (~stage.among | (stage.action == wanted))
    return Policy("regime", f"{regime.name}, cross-fitted over {over}", tuple(codes), tuple(off))


def _chances(fit: Fit, probabilities: Mapping[str, Known], staying: str) -> list[np.ndarray]:
    """Per stage the probability of what each unit of its fit did: its action, and being seen on."""
    data, out = fit.require_data("a second opinion"), []
    seeds = children(fit.settings.stream("opinion"), 2 * len(data.stages))
    for k, stage in enumerate(data.stages):
        chance = np.ones(len(data))
        known = probabilities.get(stage.stage.action)
        action = treatment_probabilities(fit, k, known)
        due = stage.history & stage.among
        took = stage.took
        chance[took] = action[took, stage.action[took]]
        for some, happened, acted, seed in (
            (due, took, False, seeds[2 * k]),
            (took, stage.fitted, True, seeds[2 * k + 1]),
        ):
            if not happened[some].all():
                chance[some] *= _staying(fit, k, some, happened[some], acted, staying, seed)
        out.append(chance)
    return out


def _staying(
    fit: Fit,
    k: int,
    some: np.ndarray,
    happened: np.ndarray,
    acted: bool,
    staying: str,
    seed: np.random.SeedSequence,
) -> np.ndarray:
    """Probability that a unit is seen on, given its history and, where it has acted, its action."""
    data, design = fit.require_data("a second opinion"), fit.designs[k]
    frame = data.frame[some].reset_index(drop=True)
    site = design.site_codes(frame)
    if staying == "shares":
        arm = data.stages[k].action[some] if acted else np.zeros_like(site)
        overall = np.bincount(arm, happened) / np.maximum(np.bincount(arm), 1)
        cell = np.unique(arm * (site.max() + 1) + site, return_inverse=True)[1]
        hit, count = np.bincount(cell, happened), np.bincount(cell)
        return (hit[cell] + 2 * overall[arm]) / (count[cell] + 2)
    x = design.common(frame if acted else design.acting(frame, 0), site)
    possible = np.ones((len(frame), 2), dtype=bool)
    where = site if data.trial.site else None
    found = category_probabilities(x, where, possible, happened.astype(np.int64), seed)
    return found[:, 1]


def _weights(data: TrialData, policy: Policy, chance: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Per stage the weight of each unit of the data: 0 for those who have left the regime's path."""
    weight, out = np.ones(len(data)), []
    for stage, own, wanted in zip(data.stages, chance, policy.actions, strict=True):
        followed = stage.fitted & (stage.action == wanted)
        weight = np.where(stage.among, np.where(followed, weight / own, 0.0), weight)
        out.append(weight)
    return out


def _bootstrap(
    fit: Fit, units: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, str]:
    """Cluster of each unit, a weight for each cluster in each draw, and what they are."""
    data, samples = fit.require_data("a second opinion"), fit.settings.propagated
    if data.trial.site and len(data.site_levels) >= _FEW_SITES:
        cluster = np.unique(fit.designs[0].site_codes(data.frame)[units], return_inverse=True)[1]
        about = f"Bayesian bootstrap over {cluster.max() + 1:,} sites"
    else:
        cluster = rng.permutation(len(units)) % min(len(units), _MOST_CLUSTERS)
        about = "Bayesian bootstrap over units"
    boot = rng.standard_exponential((cluster.max() + 1, samples))
    return cluster, boot, f"{len(units):,} units with complete stage-1 history, {about}"


def _values(
    done: BackwardPass,
    units: np.ndarray,
    cluster: np.ndarray,
    boot: np.ndarray,
    weights: Sequence[np.ndarray],
) -> tuple[np.ndarray, float]:
    """Draws of the model's, the weighted and the augmented value (3, sample), and the mean weighted
    residual, units of the same weight."""
    d, cells = done.decisions, Cells.of(np.zeros(len(units), dtype=np.int64), cluster)
    blocks = (
        [done.continuation(0, block), _residuals(done, block, weights)]
        for block in done.blocks(units)
    )
    sums, mass = cell_means(blocks, cells, done.samples)
    total = (boot * mass).sum(axis=0)
    model, added = ((boot * one).sum(axis=0) / total for one in sums)
    end = weights[-1][units]
    earned = np.sum(d.reward, axis=0) + d.payoff
    payoff = np.where(end > 0, earned[units], 0.0)
    over = np.bincount(cluster, end, len(boot)) @ boot
    weighted = np.bincount(cluster, end * payoff, len(boot)) @ boot / np.maximum(over, 1e-300)
    residual = float(sums[1].sum() / (len(units) * done.samples))
    return np.stack([model, weighted, model + added]), residual


def _residuals(done: BackwardPass, units: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    """Weighted residuals of units, summed over stages (unit, sample)."""
    d, out = done.decisions, np.zeros((len(units), done.samples))
    for k in range(d.stages):
        on = np.flatnonzero((weights[k][units] > 0) & d.among[k][units])
        rows = units[on]
        if rows.size:
            after = d.reward[k][rows, None] + done.continuation(k + 1, rows)
            out[on] += weights[k][rows, None] * (after - done.continuation(k, rows))
    return out


def _mean_residual(done: BackwardPass, units: np.ndarray, weights: Sequence[np.ndarray]) -> float:
    """Posterior mean of the mean weighted residual: the augmented value minus the model's."""
    parts = [_residuals(done, block, weights).mean(axis=1).sum() for block in done.blocks(units)]
    return float(sum(parts) / len(units))


def _groups(fit: Fit, groups: int, rng: np.random.Generator) -> np.ndarray:
    """Group of each unit of the data for the jackknife: whole sites, or units dealt out at random."""
    data = fit.require_data("a second opinion")
    whole("groups", groups, 5, max(5, len(data)))
    many = len(data.site_levels) if data.trial.site else 0
    if many >= _FEW_SITES:
        return (rng.permutation(many) % min(groups, many))[fit.designs[0].site_codes(data.frame)]
    return rng.permutation(len(data)) % groups


def _left_out(
    fit: Fit,
    rules: Sequence[Policy],
    weights: Sequence[Sequence[np.ndarray]],
    group: np.ndarray,
    progress: bool,
) -> np.ndarray:
    """Mean weighted residuals of fits that leave each group out (regime, group)."""
    data, count = fit.require_data("a second opinion"), int(group.max()) + 1
    out = np.empty((len(rules), count))
    with progress_bar(progress, "second opinion: jackknife") as report:
        for g in range(count):
            rows = group != g
            if made_by_formulas(fit):
                passes, mine = passes_without(fit, rows, rules), weights
                units = np.flatnonzero(data.valued & rows)
            else:
                own = _refit(fit, rows, count)
                part = own.require_data("a second opinion")
                policies = [replace(r, actions=tuple(a[rows] for a in r.actions)) for r in rules]
                passes, units = backward_passes(own, policies), np.flatnonzero(part.valued)
                mine = [[w[rows] for w in one] for one in weights]
            for i, done in enumerate(passes):
                out[i, g] = _mean_residual(done, units, mine[i])
            if report:
                report(g + 1, count)
    return out


def _refit(fit: Fit, rows: np.ndarray, count: int) -> Fit:
    """A fit to part of the units, for models whose posterior has no closed form given their SDs."""
    data, settings = fit.require_data("a second opinion"), quick_settings(fit)
    most = min(settings.propagated, _JACKKNIFE_DRAWS * settings.chains)
    settings = replace(settings, propagated=most, draws=most // settings.chains)
    try:
        return fit_checked(part_of(data, rows, fit.settings), settings)
    except (DataError, DesignError) as error:
        raise type(error)(
            f"second_opinion: the jackknife leaves out one of {count} groups, and the rest cannot be "
            f"fitted. {error} Use another seed or another number of groups, or join rare labels."
        ) from None


def _followers(weight: np.ndarray) -> tuple[int, float, float]:
    on = weight[weight > 0]
    return len(on), float(on.sum() ** 2 / (on**2).sum()), float(on.max() / on.sum())


def _result(fit: Fit, names: Sequence[str], each: Sequence[_Found], interval: float) -> Opinion:
    """Tables of the draws given the data, or given several completed data sets."""
    found = interleaved([one.draws for one in each], fit.settings.chains)
    followers, about = np.mean([one.followers for one in each], axis=0), each[0].about
    if fit.parts:
        about += f"; {len(each)} of {len(fit.parts)} completed data sets"
    kinds = zip(("model", "weighted", "augmented"), np.moveaxis(found, 1, 0), strict=True)
    draws = xr.Dataset(
        {kind: with_labels(one, fit.settings.chains, "regime", names) for kind, one in kinds}
    )
    parts = {str(kind): estimates(draws[kind], interval) for kind in draws.data_vars}
    apart = _difference(names, each, interval)
    parts["difference"] = apart
    table = pd.concat(parts, names=["by"]).swaplevel()
    table = table.loc[[(n, kind) for n in names for kind in parts]]
    index = pd.Index(names, name="regime")
    people = pd.DataFrame(
        followers, columns=["followed", "effective", "largest_share"], index=index
    ).astype({"followed": int})
    # Shrinkage alone makes a difference, and where weighted residuals sum to zero nothing spreads it.
    sizes = parts["model"]["sd"].to_numpy()
    seen = apart["mean"].abs().to_numpy() > _NOTHING * sizes
    # One of many regimes differs by chance: of all that are looked at, at once (Bonferroni).
    wide = _difference(names, each, 1 - (1 - interval) / len(names))
    people["disagree"] = seen & ((wide["lower"] > 0) | (wide["upper"] < 0)).to_numpy()
    against = [n for n, flag in zip(names, people["disagree"], strict=True) if flag]
    reasons = tuple(
        f"the second opinion on {n!r} disagrees with the outcome models" for n in against
    )
    return Opinion(draws, table, people, about, interval, worst([fit.state, doubt(*reasons)]))


def _difference(names: Sequence[str], each: Sequence[_Found], interval: float) -> pd.DataFrame:
    """Mean, standard error and interval of the difference by the jackknife; over m completed data sets the
    variance is the mean of theirs and (1 + 1/m) that between their differences (Rubin 1987, ch. 3)."""
    count, within = each[0].left_out.shape[1], []
    for one in each:
        away = one.left_out - one.left_out.mean(axis=1, keepdims=True)
        within.append((count - 1) / count * np.square(away).sum(axis=1))
    variance, own = np.mean(within, axis=0), np.stack([one.difference for one in each])
    if len(each) > 1:
        variance = variance + (1 + 1 / len(each)) * own.var(axis=0, ddof=1)
    mean, error = pd.Series(own.mean(axis=0), list(names)), np.sqrt(variance)
    half = float(stdtrit(count - 1, (1 + interval) / 2)) * error
    return pd.DataFrame({"mean": mean, "sd": error, "lower": mean - half, "upper": mean + half})
