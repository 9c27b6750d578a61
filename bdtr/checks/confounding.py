r"""What an unmeasured confounder would change.

With c_k(h, a) = E[Y(a) | h, A_k = a] - E[Y(a) | h, A_k != a], by how much those who took an action would have
fared better under it than those who did not (Robins, Rotnitzky and Scharfstein 2000, IMA Vol. 116; Brumback,
Hernan, Haneuse and Robins 2004, Stat. Med. 23(5)),

    E[Y(a) | h] = E[Y | h, A_k = a] - c_k(h, a) P(A_k != a | h),

and the right-hand side takes the place of Q_k(h, a) in the backward pass. c is fixed or has a prior; its
draws are paired with those of the posterior.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.fitted import Fit
from bdtr.backward.passes import backward_pass, backward_passes, policy_of
from bdtr.backward.policies import payoff_sd, shifted
from bdtr.backward.regimes import Regime, recommended, regime_list
from bdtr.checks.assignment import Known, by_stage, treatment_probabilities
from bdtr.data.history import known_columns
from bdtr.decisions.limits import action_code
from bdtr.results.arguments import (
    a_fit,
    amount,
    is_real,
    mapping,
    number_list,
    one_of,
    probability,
    whole,
)
from bdtr.results.captions import Shown
from bdtr.results.diagnostics import State, gate_decisions, rhat_limit, worst
from bdtr.results.errors import ArgumentError
from bdtr.results.estimates import estimates, kind_of, with_labels
from bdtr.results.progress import progress_bar
from bdtr.trial.alignment import of_each_row
from bdtr.trial.priors import Normal
from bdtr.values.comparison import ranks
from bdtr.values.valuation import mean_payoffs

if TYPE_CHECKING:
    from bdtr.backward.induction import Policy

__all__ = [
    "Confounded",
    "TippingPoints",
    "confounded",
    "tipping_points",
    "tipping_regime",
]

# c of an action: a number, a normal prior, or a function of the history that returns a number for each row.
type Size = float | Normal | Callable[[pd.DataFrame], object]
type Confounding = Mapping[str, Mapping[object, Size]]

_IN = ("outcome", "sd")


@dataclass(frozen=True, repr=False)
class Confounded(Shown):
    """Values of regimes under an assumed confounder, beside those without.

    ``draws`` has ``value`` and ``unconfounded`` with dims ``chain, draw, regime``; ``table`` mean, SD and
    interval of the value, the mean without, and the probability that the regime is the best of those
    named in advance.
    """

    draws: xr.Dataset
    table: pd.DataFrame
    assumed: str
    interval: float
    state: State

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return (
            f"{self.state}. Mean payoff with confounding {self.assumed}; population: sample; later stages: "
            f"the regime itself; {kind_of(self.interval)}s."
        )


def confounded(
    fit: Fit,
    confounding: Confounding,
    *regimes: Regime,
    scale: str = "outcome",
    probabilities: Mapping[str, Known] | None = None,
    interval: float = 0.95,
    progress: bool = False,
) -> Confounded:
    """Values of regimes if there were an unmeasured confounder of this strength.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    confounding
        c by stage and action, those left out are 0: ``{"a1": {"small": 0.1, "regular": -0.1}}``. A number, a
        normal prior (:class:`bdtr.trial.Normal`), or a function that takes a data frame of the history of
        all units and returns a number for each.
    *regimes
        Regimes; left out: the recommended one, which is learned anew under the confounder.
    scale
        ``"outcome"``: c in units of the outcome; ``"sd"``: in SDs of the observed payoff.
    probabilities
        Of actions, by stage; left out: of a regression on history (:mod:`bdtr.checks.assignment`).
    interval
        Probability of the equal-tailed intervals.
    progress
        Whether to show progress of the backward passes.

    Returns
    -------
    Confounded
        In units of the outcome.

    Raises
    ------
    ValueError
        If there is no such stage or action, a size is no number, or payoffs would change by more than
        100 SDs.

    Examples
    --------
    >>> found = bdtr.checks.confounded(fit, {"a1": {"small": 0.1}}, bdtr.recommended())
    >>> list(found.table)
    ['mean', 'sd', 'lower', 'upper', 'unconfounded']
    """
    a_fit(fit)
    probability("interval", interval)
    data = fit.require_data("values under confounding")
    chosen = regime_list(regimes) or [recommended()]
    shifts, words = _shifts(fit, confounding, scale, probabilities)
    plain = [policy_of(fit, r) for r in chosen]
    policies = [shifted(fit, p, shifts, words) for p in plain]
    units, chains = np.flatnonzero(data.valued), fit.settings.chains
    found = {}
    for name, rules in (("value", policies), ("unconfounded", plain)):
        own = mean_payoffs(backward_passes(fit, rules, progress), units)
        found[name] = with_labels(own, chains, "regime", [r.name for r in chosen])
    draws = xr.Dataset(found)
    table = estimates(draws["value"], interval)
    table["unconfounded"] = estimates(draws["unconfounded"], interval)["mean"]
    named = [r.name for r in chosen if not r.is_recommended]
    if named:
        own = ranks(draws["value"].sel(regime=named), data.trial.higher_is_better)
        table["p_best"] = own.table["p_best"]
    gated = gate_decisions(draws[["value"]], rhat_limit(chains, draws.sizes["draw"]))
    return Confounded(draws, table, words, interval, worst([fit.state, gated]))


def _shifts(
    fit: Fit, confounding: Confounding, scale: str, probabilities: Mapping[str, Known] | None
) -> tuple[tuple[tuple[np.ndarray, np.ndarray], ...], str]:
    """What is added to Q-values at each stage, and the assumption in words."""
    one_of("scale", scale, _IN)
    mapping("confounding", confounding, "stages to sizes of actions")
    for name, sizes in confounding.items():
        fit.stage_index(name)
        mapping(f"confounding[{name!r}]", sizes, "actions to sizes")
    probabilities = by_stage(fit, probabilities)
    unit = payoff_sd(fit) if scale == "sd" else 1.0
    out, words = [], []
    rng = np.random.default_rng(fit.settings.stream("confounding"))
    for k, design in enumerate(fit.designs):
        own = confounding.get(design.action, {})
        amount, size, text = _stage_shift(fit, k, own, unit, probabilities.get(design.action), rng)
        out.append((amount, size))
        words += [f"{design.action}: {text}"] if text else []
    kind = " (in SDs)" if scale == "sd" else ""
    return tuple(out), ("; ".join(words) or "none") + kind


def _stage_shift(
    fit: Fit, k: int, sizes: Mapping, unit: float, known: Known, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, str]:
    """-P(A != a) c by action and unit, times a number for each draw; and in words."""
    data, design = fit.require_data("confounding"), fit.designs[k]
    actions, samples = tuple(design.actions), fit.settings.propagated
    amount, size, words = (
        np.zeros((len(design.arms), len(data))),
        np.ones((len(design.arms), 1, samples)),
        [],
    )
    if not sizes:
        return amount, np.ones(1), ""
    others = 1.0 - np.nan_to_num(treatment_probabilities(fit, k, known), nan=1.0)
    for action, c in sizes.items():
        a = action_code(action, actions, f"confounding[{design.action!r}](")
        amount[a] = -unit * others[:, a]
        if isinstance(c, Normal):
            size[a, 0] = rng.normal(c.mu, c.sigma, samples)
            text = f"Normal({c.mu:g}, {c.sigma:g})"
        elif callable(c):
            who = f"confounding[{design.action!r}]: the function of {action!r}"
            each = [  # completed data sets, where values were imputed
                _sizes(c, one.frame[known_columns(one, k)], amount[a] != 0, who)
                for one in fit.completed("confounding")
            ]
            amount[a] *= np.mean(each, axis=0)
            text = getattr(c, "__name__", "a function")
        elif is_real(c) and np.isfinite(c):
            amount[a] *= float(c)
            text = f"{float(c):g}"
        else:
            raise ArgumentError(
                f"confounding[{design.action!r}]: {c!r} is no size. Give a number, bdtr.trial.Normal(mu, "
                "sigma) or a function of the history."
            )
        words.append(f"{actions[a]} {text}")
    return amount, size, ", ".join(words)


def _sizes(c: Callable, history: pd.DataFrame, needed: np.ndarray, who: str) -> np.ndarray:
    """What a function of the history gives for each row; 0 where it is not needed."""
    values = of_each_row(c, history, who, "a number", dtype=float)
    missing = needed & ~np.isfinite(values)
    if missing.any():
        raise ArgumentError(
            f"{who} returned {values[missing][0]} for {missing.sum():,} rows that have a decision at this "
            f"stage (rows {', '.join(map(str, np.flatnonzero(missing)[:5]))}, ..); it must return a number."
        )
    return np.where(needed, values, 0.0)


@dataclass(frozen=True, repr=False)
class TippingPoints(Shown):
    """How strong a confounder of one stage would have to be to change what is recommended.

    For a pair c(a) = delta and c(b) = -delta, all others 0: those who took a would have fared better under it
    by delta than those who did not, those who took b worse. ``table`` has per pair of actions
    the mean blip of the first against the second, the ``delta`` at which it is zero at posterior means, its
    interval over draws, and the same in SDs of the payoff; ``changed`` the share of units whose recommended
    action would change at given deltas, by whichever pair.
    """

    _tables = ("table", "changed")

    draws: xr.DataArray
    table: pd.DataFrame
    changed: pd.DataFrame
    stage: str
    interval: float
    state: State

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return (
            f"{self.state}. Confounding delta of stage {self.stage} (c = delta for the first action, -delta "
            "for the second) at which their mean blip is zero; population: sample; later stages recommended; "
            f"{kind_of(self.interval)}s."
        )


def tipping_points(
    fit: Fit,
    stage: str,
    sizes: Sequence[float] = (0.05, 0.1, 0.2, 0.3),
    probabilities: Known = None,
    interval: float = 0.95,
) -> TippingPoints:
    r"""Confounding at which the recommendation of a stage tips, for all pairs of actions.

    For units that may take both actions

        delta = mean [Q(a) - Q(b)] / mean [P(A != a) + P(A != b)].

    Parameters
    ----------
    fit
        A fitted trial with its data.
    stage
        Action column of a stage.
    sizes
        Deltas in SDs of the payoff for which changed recommendations are counted.
    probabilities
        Of the actions of this stage; left out: of a regression on history (:mod:`bdtr.checks.assignment`).
    interval
        Probability of the equal-tailed intervals.

    Returns
    -------
    TippingPoints
        ``delta`` in units of the outcome, ``delta_sd`` in SDs of the payoff.

    Raises
    ------
    ValueError
        If there is no such stage.

    Examples
    --------
    >>> found = bdtr.checks.tipping_points(fit, "a1")
    >>> list(found.table)
    ['units', 'blip', 'delta', 'lower', 'upper', 'delta_sd']
    """
    a_fit(fit)
    probability("interval", interval)
    k = fit.stage_index(stage)
    data, design, done = fit.require_data("tipping points"), fit.designs[k], backward_pass(fit)
    actions, own = list(design.actions), data.stages[k]
    sizes = number_list("sizes", sizes, 0)
    sign = 1.0 if data.trial.higher_is_better else -1.0
    others = 1.0 - treatment_probabilities(fit, k, probabilities)
    units = np.flatnonzero(own.history & own.among & (own.feasible.sum(axis=1) > 1))
    pairs = list(combinations(range(len(actions)), 2))
    blips, weights, counts = np.zeros((len(pairs), done.samples)), *np.zeros((2, len(pairs)))
    least = np.full(len(units), np.inf)  # delta at which the recommendation of a unit changes
    at = 0
    for block in done.blocks(units):
        q, free = done.q_values(k, block), own.feasible[block]
        mean = np.where(free.T, sign * q.mean(axis=2), -np.inf)
        best = mean.argmax(axis=0)
        for i, (a, b) in enumerate(pairs):
            both = free[:, a] & free[:, b]
            blips[i] += (q[a, both] - q[b, both]).sum(axis=0)
            weight = others[block, a] + others[block, b]
            weights[i] += weight[both].sum()
            counts[i] += both.sum()
            mine = both & ((best == a) | (best == b))
            apart = np.abs(mean[a, mine] - mean[b, mine]) / weight[mine]
            place = at + np.flatnonzero(mine)
            least[place] = np.minimum(least[place], apart)
        at += len(block)
    names = [f"{actions[a]} - {actions[b]}" for a, b in pairs]
    with np.errstate(invalid="ignore"):
        delta = with_labels(blips / weights[:, None], fit.settings.chains, "pair", names)
        mean_blip = blips.mean(axis=1) / counts
    found = estimates(delta, interval)
    unit = payoff_sd(fit)
    table = pd.DataFrame(
        {
            "units": counts.astype(int),
            "blip": mean_blip,
            "delta": found["mean"],
            "lower": found["lower"],
            "upper": found["upper"],
            "delta_sd": found["mean"] / unit,
        }
    )
    share = [(least < size * unit).mean() if len(units) else np.nan for size in sizes]
    changed = pd.DataFrame({"changed": share}, index=pd.Index(sizes, name="delta_sd"))
    return TippingPoints(delta, table, changed, stage, interval, fit.state)


def tipping_regime(
    fit: Fit,
    stage: str,
    pair: tuple[object, object],
    regimes: Sequence[Regime],
    most: float = 1.0,
    steps: int = 6,
    scale: str = "outcome",
    probabilities: Mapping[str, Known] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Confounding of one stage at which another of several regimes becomes the best.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    stage
        Action column of a stage.
    pair
        Two actions: c is delta for the first, -delta for the second.
    regimes
        Two regimes or more; the best has the best posterior mean value.
    most
        Largest delta that is looked at, either way.
    steps
        Halvings of the interval: delta is found to within ``most / 2**steps``. Each is a backward pass.
    scale, probabilities, progress
        As in :func:`confounded`.

    Returns
    -------
    pandas.DataFrame
        For either direction the ``delta`` (NaN where none up to ``most`` changes the best regime), to
        within ``error``, the best regime without a confounder, and the one beyond delta.

    Raises
    ------
    ValueError
        If fewer than two regimes are given, or ``most`` or ``steps`` is not above 0.
    """
    a_fit(fit)
    regimes = regime_list(regimes)
    if len(regimes) < 2:
        raise ArgumentError("regimes: name two or more.")
    if not amount("most", most):
        raise ArgumentError("most=0: must be above 0.")
    whole("steps", steps, 1, 50)  # doubles tell no more halvings apart
    sign = 1.0 if fit.trial.higher_is_better else -1.0
    data = fit.require_data("tipping points")
    units = np.flatnonzero(data.valued)
    plain = [policy_of(fit, r) for r in regimes]
    actions = tuple(fit.designs[fit.stage_index(stage)].actions)
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ArgumentError(f"pair={pair!r}: must be two actions of {list(actions)}.")
    first, second = (action_code(a, actions, "tipping_regime(pair") for a in pair)
    if first == second:
        raise ArgumentError(f"pair={pair!r}: must be two different actions.")
    sizes: Confounding = {stage: {actions[first]: 1.0, actions[second]: -1.0}}
    # They are proportional to delta; the treatment probabilities in them may have taken a model.
    once, words = _shifts(fit, sizes, scale, probabilities)

    def best(delta: float) -> int:
        shifts = [(delta * amount, size) for amount, size in once]
        policies = [shifted(fit, p, shifts, words) for p in plain]
        return int((sign * mean_payoffs(_passes(fit, policies), units).mean(axis=1)).argmax())

    now, rows = best(0.0), []
    with progress_bar(progress, f"tipping point of stage {stage}") as report:
        for i, way in enumerate((1.0, -1.0)):
            low, high, then = 0.0, way * most, best(way * most)
            if then == now:
                rows.append((np.nan, most / 2**steps, regimes[now].name, ""))
                continue
            for step in range(steps):
                middle = (low + high) / 2
                found = best(middle)
                low, high, then = (middle, high, then) if found == now else (low, middle, found)
                if report:
                    report(i * steps + step + 1, 2 * steps)
            rows.append(((low + high) / 2, most / 2**steps, regimes[now].name, regimes[then].name))
    index = pd.Index(["upwards", "downwards"], name="delta")
    return pd.DataFrame(rows, columns=["delta", "error", "best", "beyond"], index=index)


def _passes(fit: Fit, policies: Sequence[Policy]):
    """Passes that are not kept with the fit: there are many of them."""

    def aside(one: Fit) -> Fit:
        own = tuple(aside(part) for part in one.parts)
        return replace(one, tree=one.tree.copy(), q_draws=dict(one.q_draws), parts=own)

    return backward_passes(aside(fit), policies)
