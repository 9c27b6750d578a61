"""Who gains: values, treatment rates and benefits by group, and how far groups are apart.

For a plan at one stage, with V_g the mean payoff of group g and B_g = V_g minus the mean it
would have if all of it had the reference action: both are means over units within each draw, later stages
recommended, net of the plan's prices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.fitted import Fit
from bdtr.backward.passes import backward_passes
from bdtr.data.grouping import By, grouping
from bdtr.decisions.limits import action_code, everyone_may
from bdtr.decisions.plans import Plan, mean_of_codes
from bdtr.results.arguments import a_fit, mapping, one_of, probability
from bdtr.results.captions import Shown
from bdtr.results.diagnostics import State, worst
from bdtr.results.errors import ArgumentError
from bdtr.results.estimates import estimates, kind_of, stacked, with_labels

__all__ = ["Frontier", "Groups", "equity_by_group", "equity_frontier"]


@dataclass(frozen=True, repr=False)
class Groups(Shown):
    """How groups fare under a plan.

    ``draws`` has ``value`` and ``benefit`` with dims ``chain, draw, group``. ``table`` has per group the
    number of units, the share of each action, mean and interval of value and benefit, and the probability
    that the group's benefit is the smallest. ``gaps`` has the differences of values and benefits between
    each group and the first one.
    """

    _tables = ("table", "gaps")

    draws: xr.Dataset
    table: pd.DataFrame
    gaps: pd.DataFrame
    stage: str
    reference: str
    left_out: int
    interval: float
    state: State

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        left_out = f"; {self.left_out:,} units without a group left out" if self.left_out else ""
        against = (
            f"against {self.reference} for all" if self.reference else "no action is open to all"
        )
        return (
            f"{self.state}. Groups under the plan for stage {self.stage}; benefit: {against}; "
            f"population: sample{left_out}; later stages recommended; "
            f"{kind_of(self.interval)}s."
        )


def equity_by_group(
    fit: Fit, plan: Plan, by: By, reference: object = None, interval: float = 0.95
) -> Groups:
    """Values, treatment rates and benefits by group under a plan.

    Parameters
    ----------
    fit
        The fitted trial that the plan is from, with its data.
    plan
        From :func:`bdtr.decisions.plan`.
    by
        Groups of units, of sites, or several columns crossed; see :func:`bdtr.data.grouping.grouping`.
    reference
        Action that benefits are against; left out: the first of the stage, or none where it is not
        feasible for all.
    interval
        Probability of the equal-tailed intervals.

    Returns
    -------
    Groups
        In units of the outcome.

    Raises
    ------
    ValueError
        If there is no such column or action, or the reference is not feasible for all.

    Examples
    --------
    >>> found = bdtr.decisions.plan(fit, "a1")
    >>> len(bdtr.decisions.equity_by_group(fit, found, by=("female", "lunch")).table)
    4
    """
    a_fit(fit)
    probability("interval", interval)
    if not isinstance(plan, Plan):
        raise ArgumentError(f"plan={plan!r}: must be a plan, as bdtr.decisions.plan makes it.")
    k = fit.stage_index(plan.stage)
    design, data = fit.designs[k], fit.require_data("groups")
    units, group, labels, kept = _grouped(fit, plan, by)
    actions, feasible, base = (
        tuple(design.actions),
        data.stages[k].feasible[units, : len(design.actions)],
        0,
    )
    if reference is not None:
        base = action_code(reference, actions, "equity_by_group(reference")
    can = feasible[:, base]
    if reference is not None:
        everyone_may(feasible, actions, base, "equity_by_group(reference")
    sign = 1.0 if data.trial.higher_is_better else -1.0
    codes = np.stack([plan.codes[kept], np.full(len(units), base)])[: 2 if can.all() else 1]
    (done,) = backward_passes(fit, [plan.policy])
    found = mean_of_codes(done, k, units, codes, group)
    paid = np.stack([np.bincount(group, plan.price[one]) for one in codes]) / np.bincount(group)
    net = found - sign * paid[:, :, None]
    value, *alone = (with_labels(one, fit.settings.chains, "group", labels) for one in net)
    both = {"value": value} | ({"benefit": value - alone[0]} if alone else {})
    table = pd.DataFrame({"units": np.bincount(group)}, index=pd.Index(labels, name="group"))
    for a, action in enumerate(design.actions):
        hit = np.bincount(group, weights=codes[0] == a)
        table[f"share {action}"] = hit / table["units"]
    for name, one in both.items():
        table[[name, f"{name}_lower", f"{name}_upper"]] = estimates(one, interval)[
            ["mean", "lower", "upper"]
        ]
    if "benefit" in both:
        least = stacked(sign * both["benefit"]).argmin("group").to_numpy()
        table["p_least_benefit"] = np.bincount(least, minlength=len(labels)) / least.size
    return Groups(
        xr.Dataset(both),
        table,
        _gaps(both, labels, sign, interval),
        plan.stage,
        str(design.actions[base]) if can.all() else "",
        int((~kept).sum()),
        interval,
        worst([fit.state, plan.state]),
    )


def _grouped(fit: Fit, plan: Plan, by: By) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    """Units of a plan that have a group, their groups, the labels, and which units of the plan they are."""
    found = grouping(fit.require_data("groups of units"), by, fit.stage_index(plan.stage))
    kept = found.code[plan.units] >= 0
    if not kept.any():
        raise ArgumentError("by: no unit has a group.")
    units = plan.units[kept]
    group, labels = found.of(units)
    return units, group, [str(x) for x in labels], kept


def _gaps(both: dict, labels: Sequence[str], sign: float, interval: float) -> pd.DataFrame:
    """Differences from the first group, and the probability that a group is better off."""
    parts = {}
    for name, one in both.items():
        apart = one.isel(group=slice(1, None)) - one.isel(group=0, drop=True)
        apart = apart.assign_coords(group=[f"{x} minus {labels[0]}" for x in labels[1:]])
        if len(labels) > 1:
            own = estimates(apart, interval)
            own["p_better"] = (stacked(sign * apart) > 0).mean("sample").to_numpy()
            parts[name] = own
    return pd.concat(parts, names=["of"]) if parts else pd.DataFrame()


@dataclass(frozen=True, repr=False)
class Frontier(Shown):
    """Value against disparity of several plans.

    ``draws`` has ``value`` and ``disparity`` with dims ``chain, draw, plan``: the disparity is the largest
    difference between groups of what ``of`` names. ``table`` has their means and intervals.
    """

    draws: xr.Dataset
    table: pd.DataFrame
    of: str
    interval: float
    state: State

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return (
            f"{self.state}. Mean payoff and largest difference between groups in {self.of}; population: "
            f"sample; later stages recommended; {kind_of(self.interval)}s."
        )


def equity_frontier(
    fit: Fit,
    plans: dict[str, Plan],
    by: By,
    of: str = "benefit",
    reference: object = None,
    interval: float = 0.95,
) -> Frontier:
    """Value against disparity for plans under different bounds, with uncertainty.

    Parameters
    ----------
    fit
        The fitted trial that the plans are from, with its data.
    plans
        Plans for one stage by name, for example for several bounds of a :class:`bdtr.decisions.Gap`.
    by
        Groups, as in :func:`equity_by_group`.
    of
        ``"value"`` or ``"benefit"``.
    reference, interval
        As in :func:`equity_by_group`.

    Returns
    -------
    Frontier

    Raises
    ------
    ValueError
        If ``of`` is something else, or no plan is given.

    Notes
    -----
    The disparity of a plan is the difference between the groups that have most and least at posterior
    means, taken within each draw: not the largest difference of each draw, which grows with doubt alone.
    """
    a_fit(fit)
    probability("interval", interval)
    one_of("of", of, ("value", "benefit"))
    mapping("plans", plans, "names to plans")
    if not plans:
        raise ArgumentError("plans: name one plan or more, by name.")
    values, apart, states = [], [], []
    for one in plans.values():
        found = equity_by_group(fit, one, by, reference, interval)
        if of not in found.draws:
            raise ArgumentError(f"of={of!r}: no action is feasible for all. Use of='value'.")
        draws = found.draws[of]
        order = draws.mean(("chain", "draw")).to_numpy().argsort()
        apart.append(draws.isel(group=order[-1], drop=True) - draws.isel(group=order[0], drop=True))
        values.append(one.draws["value"])
        states += [found.state]
    index = pd.Index(list(plans), name="plan")
    draws = xr.Dataset({"value": xr.concat(values, index), "disparity": xr.concat(apart, index)})
    draws = draws.transpose("chain", "draw", "plan")
    table = pd.concat({n: estimates(draws[n], interval) for n in ("value", "disparity")}, axis=1)
    return Frontier(draws, table, of, interval, worst(states))
