r"""A plan: which unit gets which action at one stage, when a board has limits.

With U(q) the utility of a unit's payoffs, the posterior mean unless a measure of risk is named, and
prices in units of the outcome, the plan maximises

    mean over units of U_i(a_i) - price(a_i)     subject to the limits,

which are held by posterior means. It is a plan for the units of the trial at that stage, later stages
recommended. What the plan is worth, and what the limits cost, are means over units within each draw.

The shadow price of a limit is the gain in value from loosening it by one unit: at posterior means the
multiplier of the program; its posterior is that of (V(limit + h) - V(limit)) / h, the plans at both limits
(in shares, so that no unit is split by chance) being chosen at posterior means and valued in each draw.
h is 0.01 (of the dearest cost, of a rate, or of the SD of payoffs).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.fitted import Fit
from bdtr.backward.induction import BackwardPass, Policy
from bdtr.backward.passes import backward_passes
from bdtr.backward.policies import shifted
from bdtr.decisions.allocation import Allocation, AllocationError, Rows, allocate, least_limit
from bdtr.decisions.limits import Budget, Floor, Gap, Limit, Options, costs_of
from bdtr.decisions.risk import Quantile, Utility, WorstMean, outcome_noise, utilities
from bdtr.results.arguments import a_fit, mapping, probability
from bdtr.results.captions import Shown
from bdtr.results.diagnostics import State, gate_decisions, rhat_limit, worst
from bdtr.results.errors import ArgumentError
from bdtr.results.estimates import estimates, kind_of
from bdtr.results.progress import progress_bar
from bdtr.values.populations import Cells, cell_means

__all__ = ["Plan", "mean_of_codes", "payoffs", "plan"]


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """Actions of units at one stage within limits.

    ``draws`` has ``value``, ``without_limits`` and ``cost_of_limits`` with dims ``chain, draw``, and
    ``shadow_price`` with ``limit`` as well; ``table`` their summaries. ``limits`` has per limit what was
    used of it and its shadow price; ``shares`` the share of units with each action; ``actions`` per unit
    the action, the one without limits, and the mean payoff that the limits cost the unit. Payoffs are net of
    prices; ``multiplier`` is in units of the utility, the shadow price in units of the payoff.
    """

    _tables = ("table", "limits", "shares")

    draws: xr.Dataset
    table: pd.DataFrame
    limits: pd.DataFrame
    shares: pd.DataFrame
    actions: pd.DataFrame
    stage: str
    utility: str
    prices: str
    below_bound: float
    interval: float
    state: State
    codes: np.ndarray
    units: np.ndarray
    policy: Policy | None
    price: np.ndarray

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        within = ""
        if len(self.limits):
            within = f" At posterior means at most {max(self.below_bound, 0.0):.1g} below the best possible."
        return (
            f"{self.state}. Plan for stage {self.stage}, by the {self.utility}{self.prices}; population: "
            f"sample ({len(self.units):,} units with complete history at the stage); later stages "
            f"recommended; learned and valued on the same units; {kind_of(self.interval)}s.{within}"
        )


def plan(
    fit: Fit,
    stage: str,
    *limits: Limit,
    utility: Utility = None,
    prices: Mapping[str, Mapping[str, float]] | None = None,
    interval: float = 0.95,
    progress: bool = False,
) -> Plan:
    """The best actions of the trial's units at one stage within limits.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    stage
        Action column of the stage.
    *limits
        :class:`Budget`, :class:`Gap` and :class:`Floor`; none: each unit has the action with the best
        utility, net of prices.
    utility
        :class:`bdtr.decisions.WorstMean` or :class:`bdtr.decisions.Quantile`; left out: the posterior mean.
    prices
        Price of each action in units of the outcome, by stage: ``{"a1": {"small": 0.05}}``. Those of
        later stages are reckoned with in the backward pass; values are then net of them.
    interval
        Probability of the equal-tailed intervals.
    progress
        Whether to show progress.

    Returns
    -------
    Plan
        In units of the outcome; shadow prices in units of the outcome per unit of the limit.

    Raises
    ------
    bdtr.decisions.AllocationError
        If no plan keeps to the limits; the message says how far they would have to be loosened.
    ValueError
        If there is no such stage, action or group.

    Examples
    --------
    >>> few = bdtr.decisions.Budget({"small": 1}, 0.4)
    >>> list(bdtr.decisions.plan(fit, "a1", few).limits)
    ['used', 'allowed', 'multiplier', 'price_mean', 'price_lower', 'price_upper']
    """
    a_fit(fit)
    probability("interval", interval)
    data, k = fit.require_data("a plan"), fit.stage_index(stage)
    design, sign = fit.designs[k], (1.0 if data.trial.higher_is_better else -1.0)
    for limit in limits:
        if not isinstance(limit, (Budget, Gap, Floor)):
            raise ArgumentError(
                f"limits: {limit!r} is no limit; use bdtr.decisions.Budget(...), Gap(...) or Floor(...)."
            )
    if not isinstance(utility, (WorstMean, Quantile, type(None))):
        raise ArgumentError(
            f"utility={utility!r}: must be bdtr.decisions.WorstMean(...), bdtr.decisions.Quantile(...) "
            "or None."
        )
    policy, own_price, text = _prices(fit, k, {} if prices is None else prices)
    (done,) = backward_passes(fit, [policy], progress)
    units = np.flatnonzero(data.stages[k].deciding)
    if utility is not None and utility.of == "outcomes" and policy is not None:
        raise ArgumentError("utility of outcomes: prices of later stages do not go with it.")
    noise = outcome_noise(fit, k) if utility is not None and utility.of == "outcomes" else None
    mean, worth = np.empty((2, len(units), len(design.actions)))
    with progress_bar(progress, f"plan of stage {stage}: payoffs") as report:
        for at, q in payoffs(done, k, units, report):
            q = q[: mean.shape[1]]
            mean[at] = q.mean(axis=2).T
            worth[at] = mean[at] * sign if utility is None else utilities(sign * q, utility, noise)
    mean -= sign * own_price  # worth is that of payoffs; prices are taken from its gain below
    options = Options(
        units, mean, data.stages[k].feasible[units, : mean.shape[1]], tuple(design.actions), sign, k
    )
    gain = (worth - own_price) / len(units)
    problem = _Problem(options, gain, limits, [limit.rows(fit, options) for limit in limits])
    chosen = problem.best()
    codes = np.stack([chosen.action, problem.free])
    with progress_bar(progress, f"plan of stage {stage}: values") as report:
        found = mean_of_codes(done, k, units, codes, report=report)[:, 0]
    found -= sign * own_price[codes].mean(axis=1)[:, None]
    chains = fit.settings.chains
    draws = _draws(found.reshape(2, chains, -1), sign)
    if limits:
        changes = problem.looser(chosen)
        paid = np.array([(one * own_price).sum() / len(units) for one in changes])
        gained = sign * np.stack([_change(done, k, units, one) for one in changes]) - paid[:, None]
        shaped = np.moveaxis(gained.reshape(len(limits), chains, -1), 0, -1)
        draws["shadow_price"] = (("chain", "draw", "limit"), shaped)
        draws = draws.assign_coords(limit=[str(x) for x in limits])
    limit = rhat_limit(chains, draws.sizes["draw"])
    totals = draws[["value", "without_limits", "cost_of_limits"]].to_dataarray("quantity")
    return Plan(
        draws,
        estimates(totals.transpose("chain", "draw", "quantity"), interval),
        problem.table(chosen, draws, interval),
        _shares(options, codes[:2], own_price),
        _actions(data.units[units], options, codes[:2]),
        stage,
        str(utility) if utility else "posterior mean",
        text,
        chosen.bound - chosen.gain,
        interval,
        worst([fit.state, gate_decisions(draws[["value", "cost_of_limits"]], limit)]),
        codes[0],
        units,
        policy,
        own_price,
    )


@dataclass(frozen=True)
class _Problem:
    """What is to be maximised: ``gain`` (unit, action) within limits, each with its rows."""

    options: Options
    gain: np.ndarray
    limits: Sequence[Limit]
    rows: Sequence[Rows]

    @property
    def free(self) -> np.ndarray:
        """The best actions without limits."""
        return allocate(self.gain, self.options.feasible).action

    def best(self, changed: Mapping[int, float] | None = None) -> Allocation:
        """The best assignment, limits changed by so much; an error says which limits are in the way."""
        rows = [
            replace(one, limits=one.limits + (changed or {}).get(i, 0.0))
            for i, one in enumerate(self.rows)
        ]
        every = rows[0].stacked(*rows[1:]) if rows else None
        try:
            return allocate(self.gain, self.options.feasible, every)
        except AllocationError as error:
            raise AllocationError(self._in_the_way()) from error

    def _in_the_way(self) -> str:
        short = [least_limit(self.options.feasible, one) for one in self.rows]
        parts = [
            f"{limit}: must be loosened by {by:.3g} at least"
            for limit, by in zip(self.limits, short, strict=True)
            if by > 1e-9
        ]
        alone = "each can be kept alone, but not all together"
        return f"limits: no plan keeps to them. {'; '.join(parts) or alone}."

    def looser(self, chosen: Allocation) -> list[np.ndarray]:
        """For each limit, how shares (unit, action) change when it is loosened, per unit of the limit."""
        out = []
        for i, limit in enumerate(self.limits):
            change = limit.window(self.options)
            felt = (self._used(i, chosen.action) > self.rows[i].limits - change).any()
            share = self.best({i: change}).share if felt else chosen.share
            out.append((share - chosen.share) / change)
        return out

    def _used(self, i: int, action: np.ndarray) -> np.ndarray:
        """What these actions use of each row of a limit."""
        at = np.arange(len(self.gain)) * self.gain.shape[1] + action
        return np.asarray(self.rows[i].matrix[:, at].sum(axis=1)).ravel()

    def table(self, chosen: Allocation, draws: xr.Dataset, interval: float) -> pd.DataFrame:
        """Per limit what it allows and what is used of it, in its tightest row, and its shadow price."""
        if not self.limits:
            return pd.DataFrame()
        columns = ["used", "allowed", "multiplier", "price_mean", "price_lower", "price_upper"]
        edges = np.cumsum([0, *(len(one.limits) for one in self.rows)])
        price = estimates(draws["shadow_price"], interval)[["mean", "lower", "upper"]].to_numpy()
        out = []
        for i, (limit, one) in enumerate(zip(self.limits, self.rows, strict=True)):
            used = self._used(i, chosen.action)
            tightest = int((used - one.limits).argmax())
            pair = (limit.shown(float(x[tightest]), self.options) for x in (used, one.limits))
            out.append((*pair, chosen.price[edges[i] : edges[i + 1]].sum(), *price[i]))
        names = pd.Index([str(x) for x in self.limits], name="limit")
        return pd.DataFrame(out, columns=columns, index=names)


def _prices(
    fit: Fit, k: int, prices: Mapping[str, Mapping[str, float]]
) -> tuple[Policy | None, np.ndarray, str]:
    """The policy of later stages net of their prices (None: there are none), own prices, in words."""
    mapping("prices", prices, "stages to prices of actions")
    for stage in prices:
        if fit.stage_index(stage) < k:
            raise ArgumentError(f"prices: stage {stage!r} comes before {fit.designs[k].action!r}.")
    by_stage = [
        costs_of(prices.get(d.action, {}), tuple(d.actions), f"prices[{d.action!r}]")
        for d in fit.designs
    ]
    words = "; ".join(
        f"{d.action}: {', '.join(f'{a} {p:g}' for a, p in zip(d.actions, own, strict=True) if p)}"
        for d, own in zip(fit.designs, by_stage, strict=True)
        if own.any()
    )
    policy = None
    if any(own.any() for own in by_stage[k + 1 :]):
        data = fit.require_data("a plan")
        sign = 1.0 if data.trial.higher_is_better else -1.0
        paid = [0.0 * own if j <= k else -sign * own for j, own in enumerate(by_stage)]
        shifts = [(np.repeat(own[:, None], len(data), axis=1), np.ones(1)) for own in paid]
        policy = shifted(fit, Policy(), shifts, f"net of prices ({words})")
    return policy, by_stage[k], f", net of prices ({words})" if words else ""


def payoffs(
    done: BackwardPass, k: int, units: np.ndarray, report=None
) -> Iterator[tuple[slice, np.ndarray]]:
    """Q-values (action, unit, sample) of one block of units after another, and their places."""
    at = 0
    for block in done.blocks(units):
        yield slice(at, at + len(block)), done.q_values(k, block)
        at += len(block)
        if report:
            report(at, len(units))


def mean_of_codes(
    done: BackwardPass,
    k: int,
    units: np.ndarray,
    codes: np.ndarray,
    group: np.ndarray | None = None,
    report=None,
) -> np.ndarray:
    """Mean payoffs when units take these actions at a stage, within each draw.

    Parameters
    ----------
    done
        The backward pass that says what follows.
    k
        Stage, from 0.
    units
        Positions of units.
    codes
        Actions of the units (assignment, unit).
    group
        Groups of the units, from 0; left out: one.
    report
        Called with (units done, units in all).

    Returns
    -------
    numpy.ndarray
        (assignment, group, sample).
    """
    group = np.zeros(len(units), dtype=np.int64) if group is None else group
    cells = Cells.of(group, np.zeros_like(group))
    blocks = (
        [q[own[at], np.arange(q.shape[1])] for own in codes]
        for at, q in payoffs(done, k, units, report)
    )
    sums, mass = cell_means(blocks, cells, done.samples)
    return sums / mass


def _change(done: BackwardPass, k: int, units: np.ndarray, change: np.ndarray) -> np.ndarray:
    """By how much the mean payoff changes with shares of actions (unit, action), in each draw."""
    out, moved = np.zeros(done.samples), np.flatnonzero(np.abs(change).max(axis=1) > 0)
    for at, q in payoffs(done, k, units[moved]):
        out += np.einsum("aus,ua->s", q[: change.shape[1]], change[moved[at]])
    return out / len(units)


def _draws(found: np.ndarray, sign: float) -> xr.Dataset:
    """Draws (assignment, chain, draw) of the plan and without limits."""
    dims = ("chain", "draw")
    return xr.Dataset(
        {
            "value": (dims, found[0]),
            "without_limits": (dims, found[1]),
            "cost_of_limits": (dims, sign * (found[1] - found[0])),
        },
        coords={"chain": np.arange(found.shape[1]), "draw": np.arange(found.shape[2])},
    )


def _shares(options: Options, codes: np.ndarray, price: np.ndarray) -> pd.DataFrame:
    """Share of units with each action, in the plan and without limits, and the mean price."""
    found = [np.bincount(own, minlength=len(options.actions)) / len(own) for own in codes]
    names = pd.Index(["plan", "without limits"], name="shares")
    table = pd.DataFrame(found, columns=list(options.actions), index=names)
    return table.assign(price=price[codes].mean(axis=1)) if price.any() else table


def _actions(labels: np.ndarray, options: Options, codes: np.ndarray) -> pd.DataFrame:
    actions, units = np.array(options.actions, dtype=object), np.arange(len(options.units))
    own, free = (options.mean[units, code] for code in codes)
    return pd.DataFrame(
        {
            "unit": labels,
            "action": actions[codes[0]],
            "without_limits": actions[codes[1]],
            "loss": options.sign * (free - own),
        }
    )
