"""Limits that a plan has to keep to: a budget, a bound on differences between groups, a floor for one.

Each says what it asks of the posterior means, in rows for :mod:`bdtr.decisions.allocation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bdtr.backward.fitted import Fit
from bdtr.data.grouping import By, grouping
from bdtr.decisions.allocation import Rows
from bdtr.results.arguments import finite, is_real, mapping, one_of
from bdtr.results.errors import ArgumentError
from bdtr.results.labels import label_text

__all__ = ["Budget", "Floor", "Gap", "Limit", "Options", "action_code", "costs_of", "everyone_may"]

_OF = ("value", "benefit", "rate")


@dataclass(frozen=True)
class Options:
    """What there is to choose from: ``mean`` payoffs (unit, action) and ``feasible`` actions of these
    ``units``, and the ``actions`` of the ``stage`` (0 = first); ``sign`` is -1 where lower is better."""

    units: np.ndarray
    mean: np.ndarray
    feasible: np.ndarray
    actions: tuple[str, ...]
    sign: float
    stage: int = 0

    def step(self, part: np.ndarray) -> np.ndarray:
        """How much each unit can change a sum over units of this part of each action (unit)."""
        most = np.where(self.feasible, part, -np.inf).max(axis=1)
        return most - np.where(self.feasible, part, np.inf).min(axis=1)


@dataclass(frozen=True)
class Budget:
    """The mean cost of a unit is at most ``limit``, in all or in each group.

    ``costs`` per action, those left out cost nothing: ``Budget({"small": 1}, 0.3)`` allows small classes
    for 30 % of the units. ``by`` as in :func:`bdtr.data.grouping.grouping`: ``by="site"`` holds every site to
    the limit.
    """

    costs: Mapping[str, float]
    limit: float
    by: By = None

    def __post_init__(self):
        mapping("Budget: costs", self.costs, "actions to their costs")
        for action, cost in self.costs.items():
            finite(f"Budget: costs[{action!r}]", cost)
        finite("Budget: limit", self.limit)

    def __str__(self) -> str:
        costs = ", ".join(f"{label_text(a)} {c:g}" for a, c in self.costs.items())
        return f"mean cost ({costs}) at most {self.limit:g}{_of_each(self.by)}"

    def rows(self, fit: Fit, options: Options) -> Rows:
        """Mean cost of each group."""
        group, labels = _groups(fit, self.by, options)
        count = len(labels)
        cost = np.broadcast_to(costs_of(self.costs, options.actions, "Budget"), options.mean.shape)
        share = cost / np.bincount(group[group >= 0], minlength=count)[group][:, None]
        return Rows.of(share, group, np.full(count, float(self.limit)))

    def shown(self, number: float, options: Options) -> float:
        """A number of a row as a reader expects it."""
        return number

    def window(self, options: Options) -> float:
        """Change of the limit over which the shadow price is taken: 1 % of the units by the dearest."""
        return 0.01 * float(np.abs(costs_of(self.costs, options.actions, "Budget")).max())


@dataclass(frozen=True)
class Gap:
    """Means of any two groups differ by at most ``bound``.

    ``of``: ``"value"``, the mean payoff; ``"benefit"``, what the plan adds to it against the action
    ``reference`` for all; ``"rate"``, the share of units with ``action``. With ``against``, the label of a
    group, only what the others are ahead of this group counts. The bound holds to within what one unit
    can change.
    """

    by: By
    bound: float
    of: str = "value"
    reference: object = None
    action: object = None
    against: object = None

    def __post_init__(self):
        one_of("Gap: of", self.of, _OF)
        if not is_real(self.bound) or not self.bound >= 0:
            raise ArgumentError(f"Gap: bound={self.bound!r}: must be 0 or more.")
        if (self.of == "rate") != (self.action is not None):
            raise ArgumentError("Gap: name an action with of='rate', and with it alone.")
        if self.reference is not None and self.of != "benefit":
            raise ArgumentError("Gap: a reference goes with of='benefit' alone.")

    def __str__(self) -> str:
        what = {"value": "values", "benefit": "benefits", "rate": f"rates of {self.action}"}
        who = f"of other groups ahead of {self.against}" if self.against is not None else "apart"
        return f"{what[self.of]}{_of_each(self.by)} at most {self.bound:g} {who}"

    def rows(self, fit: Fit, options: Options) -> Rows:
        """A row for every ordered pair of groups: the mean of one minus that of the other."""
        group, labels = _groups(fit, self.by, options)
        count = len(labels)
        part = self._part(options) / np.bincount(group[group >= 0], minlength=count)[group][:, None]
        part = np.where(options.feasible, part, 0.0)
        means, step = Rows.of(part, group, np.zeros(count)).matrix, np.zeros(count)
        np.maximum.at(step, group[group >= 0], options.step(part)[group >= 0])
        pairs = [(g, h) for g in range(count) for h in range(count) if g != h]
        if self.against is not None:
            at = _group_code(labels, self.against, "Gap(against")
            ahead = 1 if self.of == "rate" or options.sign > 0 else 0
            pairs = [(g, h) for g, h in pairs if (g, h)[ahead] == at]
        ups, downs = (list(one) for one in zip(*pairs, strict=True)) if pairs else ([], [])
        limits = np.full(len(pairs), float(self.bound))
        return Rows(means[ups] - means[downs], limits, np.maximum(step[ups], step[downs]))

    def _part(self, options: Options) -> np.ndarray:
        if self.of == "rate":
            only = np.zeros(len(options.actions))
            only[action_code(self.action, options.actions, "Gap(action")] = 1.0
            return np.broadcast_to(only, options.mean.shape)
        if self.of == "value":
            return options.mean
        base = 0
        if self.reference is not None:
            base = action_code(self.reference, options.actions, "Gap(reference")
        everyone_may(options.feasible, options.actions, base, "Gap(reference")
        return options.mean - options.mean[:, [base]]

    def shown(self, number: float, options: Options) -> float:
        """A number of a row as a reader expects it."""
        return number

    def window(self, options: Options) -> float:
        """Change of the bound over which the shadow price is taken."""
        return 0.01 if self.of == "rate" else 0.01 * _spread(options)


@dataclass(frozen=True)
class Floor:
    """The mean payoff of a group is no worse than ``than``, to within what one unit can change.

    ``than`` is a number in units of the outcome; the label of an action, as text, that all of the group would
    have; or ``"recommended"``: the group's mean payoff at the best action of each unit.
    """

    by: By
    group: object
    than: object

    def __str__(self) -> str:
        under = "under " if isinstance(self.than, str) else ""
        return f"value of {self.group}{_of_each(self.by)} no worse than {under}{self.than}"

    def rows(self, fit: Fit, options: Options) -> Rows:
        """Minus the mean payoff of the group."""
        group, labels = _groups(fit, self.by, options)
        at = _group_code(labels, self.group, "Floor(group")
        mine = group == at
        worth = options.sign * options.mean
        row = np.where(mine, 0, -1)
        limit = self._least(options, mine)
        step = options.step(worth)[mine].max() / mine.sum()
        part = np.where(options.feasible, -worth, 0.0) / mine.sum()
        return Rows.of(part, row, np.array([-limit]), np.array([step]))

    def _least(self, options: Options, mine: np.ndarray) -> float:
        worth = options.sign * options.mean[mine]
        if is_real(self.than):
            return options.sign * float(self.than)
        if self.than == "recommended":
            return float(np.where(options.feasible[mine], worth, -np.inf).max(axis=1).mean())
        action = action_code(self.than, options.actions, "Floor(than")
        everyone_may(options.feasible[mine], options.actions, action, "Floor(than")
        return float(worth[:, action].mean())

    def shown(self, number: float, options: Options) -> float:
        """A number of a row as a reader expects it: a mean payoff."""
        return -options.sign * number

    def window(self, options: Options) -> float:
        """Change of the floor over which the shadow price is taken."""
        return 0.01 * _spread(options)


type Limit = Budget | Gap | Floor


def costs_of(costs: Mapping, actions: tuple[str, ...], where: str) -> np.ndarray:
    """Cost of each action, nothing for those that are not named."""
    mapping(where, costs, "actions to their costs")
    out = np.zeros(len(actions))
    for action, cost in costs.items():
        finite(f"{where}[{action!r}]", cost)
        out[action_code(action, actions, f"{where}(costs")] = cost
    return out


def action_code(action: object, actions: tuple[str, ...], where: str) -> int:
    """Code of an action of the stage."""
    if label_text(action) not in actions:
        raise ArgumentError(f"{where}={action!r}): the actions of the stage are {list(actions)}.")
    return actions.index(label_text(action))


def everyone_may(feasible: np.ndarray, actions: tuple[str, ...], action: int, where: str) -> None:
    """An error unless the action is feasible for all of these units (unit, action)."""
    can = feasible[:, action]
    if not can.all():
        raise ArgumentError(
            f"{where}={actions[action]!r}): the action is not feasible for {(~can).sum():,} of "
            f"{can.size:,} units. Name one that is."
        )


def _spread(options: Options) -> float:
    """SD of the payoffs that units can have."""
    return float(options.mean[options.feasible].std())


def _of_each(by: By) -> str:
    if by is None:
        return ""
    if isinstance(by, str):
        return f" by {by}"
    return f" by {' and '.join(by)}" if isinstance(by, tuple) else " by group"


def _groups(fit: Fit, by: By, options: Options) -> tuple[np.ndarray, list[str]]:
    """Group of each unit, -1 for none, and the labels of the groups."""
    found = grouping(fit.require_data("groups of units"), by, options.stage)
    code = found.code[options.units]
    present = np.unique(code[code >= 0])
    if not present.size:
        raise ArgumentError("by: no unit has a group.")
    found.check_few(len(present))
    place = np.full(code.max(initial=0) + 2, -1)
    place[present] = np.arange(len(present))
    return np.where(code >= 0, place[code], -1), [str(x) for x in found.labels[present]]


def _group_code(labels: list[str], label: object, where: str) -> int:
    if label_text(label) not in labels:
        raise ArgumentError(
            f"{where}={label!r}): the groups are {', '.join(map(repr, labels[:20]))}."
        )
    return labels.index(label_text(label))
