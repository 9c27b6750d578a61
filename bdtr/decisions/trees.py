"""A rule that fits on a card: the best shallow tree over a few covariates, and what it loses.

The tree maximises the posterior mean payoff, the mean over units of E Q(h, leaf action), over all trees of
the given depth with the given cuts; where a unit may not have its leaf's action it has the recommended
feasible one. What it is worth, and what is lost against the full rule, are means within draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.fitted import Fit
from bdtr.backward.passes import backward_pass
from bdtr.data.coding import label_series
from bdtr.data.history import known_columns
from bdtr.decisions.plans import mean_of_codes, payoffs
from bdtr.decisions.tailoring import with_recorded
from bdtr.decisions.treesearch import Nodes, best_tree, leaf_of
from bdtr.results.arguments import a_fit, name_list, probability, whole
from bdtr.results.captions import Shown
from bdtr.results.diagnostics import State, gate_decisions, rhat_limit, worst
from bdtr.results.errors import ArgumentError
from bdtr.results.estimates import estimates, kind_of
from bdtr.trial.rules import ELSE, rule_text

__all__ = ["ShallowTree", "shallow_tree"]

_MOST_CUTS = 63


@dataclass(frozen=True, repr=False)
class ShallowTree(Shown):
    """A shallow tree of one stage.

    ``rule`` is the tree as :func:`bdtr.rule` reads it, ``bdtr.rule(a1=tree.rule, a2=..)``, for stages at
    which all may have each action; ``overruled`` counts the units that may not have that of their leaf,
    ``left_out`` those whose answers to its questions were imputed.
    ``leaves`` has per leaf its condition, action and units. ``draws`` has ``tree``, ``full_rule``,
    ``one_action`` (the best action for all) and what the tree ``loses`` against the full rule and ``gains``
    on one action for all; ``table`` their summaries. ``actions`` says what each unit gets.
    """

    _tables = ("leaves", "table")

    rule: dict[str, str]
    leaves: pd.DataFrame
    draws: xr.Dataset
    table: pd.DataFrame
    actions: pd.DataFrame
    nodes: Nodes
    stage: str
    one_action: str
    units: int
    overruled: int
    cut_short: tuple[str, ...]
    left_out: int
    interval: float
    state: State

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        short = ""
        if self.cut_short:
            short = f" {_MOST_CUTS} cuts at quantiles of {', '.join(self.cut_short)}."
        if self.overruled:
            short += f" {self.overruled:,} units may not have the action of their leaf: the recommended one."
        if self.left_out:
            short += f" {self.left_out:,} units whose answers were imputed left out."
        return (
            f"{self.state}. Tree for stage {self.stage}: {rule_text(self.rule)}. Against the full rule and "
            f"{self.one_action} for all; population: sample ({self.units:,} units with complete history at "
            "the stage); later stages recommended; learned and valued on the same units; "
            f"{kind_of(self.interval)}s.{short}"
        )


def shallow_tree(
    fit: Fit,
    stage: str,
    over: Sequence[str],
    depth: int = 2,
    least: int = 1,
    interval: float = 0.95,
) -> ShallowTree:
    """The best tree of depth 1 to 3 over named covariates, for posterior expected payoff.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    stage
        Action column of a stage.
    over
        Columns known at the stage: numbers are cut between neighbouring values (at 63 quantiles where
        there are more), labels are asked for one at a time.
    depth
        Questions on the longest path: 1, 2 or 3.
    least
        Smallest number of units in a leaf.
    interval
        Probability of the equal-tailed intervals.

    Returns
    -------
    ShallowTree
        In units of the outcome.

    Raises
    ------
    ValueError
        If a column is not known at the stage or has missing values, or depth is something else.

    Notes
    -----
    The search is exact (:mod:`bdtr.decisions.treesearch`).

    Examples
    --------
    >>> found = bdtr.decisions.shallow_tree(fit, "a1", over=["lunch", "age"], depth=1)
    >>> list(found.table)
    ['mean', 'sd', 'lower', 'upper']
    """
    a_fit(fit)
    probability("interval", interval)
    k = fit.stage_index(stage)
    whole("depth", depth, 1, 3)
    data, design, done = fit.require_data("a tree"), fit.designs[k], backward_pass(fit)
    whole("least", least, 1, len(data))
    sign = 1.0 if data.trial.higher_is_better else -1.0
    every = np.flatnonzero(data.stages[k].deciding)
    units = with_recorded(fit, name_list("over", over), every)
    questions = _Questions.of(fit, k, over, units)
    feasible = data.stages[k].feasible[units, : len(design.actions)]
    gain = np.empty((len(units), len(design.actions)))
    for at, q in payoffs(done, k, units):
        gain[at] = sign * q[: gain.shape[1]].mean(axis=2).T
    best = np.where(feasible, gain, -np.inf).argmax(axis=1)
    everyone = np.arange(len(units))
    taken = np.where(feasible, gain, gain[everyone, best][:, None])
    nodes = best_tree(questions.codes, questions.bins, taken, depth, int(least))
    leaf, one = leaf_of(nodes, questions.codes), int(taken.sum(axis=0).argmax())
    wanted = np.stack([nodes.action[leaf], best, np.full(len(units), one)])
    codes = np.where(feasible[everyone, wanted], wanted, best)
    found = mean_of_codes(done, k, units, codes)[:, 0]
    chains = fit.settings.chains
    tree, full, same = (x.reshape(chains, -1) for x in found)
    parts = {"tree": tree, "full_rule": full, "one_action": same,
             "loses": sign * (full - tree), "gains": sign * (tree - same)}  # fmt: skip
    draws = xr.Dataset(
        {name: (("chain", "draw"), values) for name, values in parts.items()},
        coords={"chain": np.arange(chains), "draw": np.arange(tree.shape[1])},
    )
    labels = np.array(design.actions, dtype=object)
    leaves = questions.leaves(nodes, labels, leaf)
    gated = gate_decisions(draws[["tree", "loses"]], rhat_limit(chains, tree.shape[1]))
    return ShallowTree(
        _rule(leaves),
        leaves,
        draws,
        estimates(draws.to_dataarray("quantity").transpose("chain", "draw", "quantity"), interval),
        pd.DataFrame(
            {"unit": data.units[units], "action": labels[codes[0]], "full_rule": labels[best]}
        ),
        nodes,
        stage,
        str(labels[one]),
        len(units),
        int((codes[0] != wanted[0]).sum()),
        questions.cut_short,
        len(every) - len(units),
        interval,
        worst([fit.state, gated]),
    )


def _rule(leaves: pd.DataFrame) -> dict[str, str]:
    """The leaves as conditions, the commonest action for all others."""
    last = leaves.groupby("action", sort=False)["units"].sum().idxmax()
    by_action = leaves[leaves["action"] != last].groupby("action", sort=False)["condition"]
    found = {" or ".join(f"({c})" if " and " in c and len(own) > 1 else c for c in own): str(a)
             for a, own in by_action}  # fmt: skip
    return {**found, ELSE: str(last)}


@dataclass(frozen=True)
class _Questions:
    """Yes-no questions about covariates: ``codes`` (unit, covariate) with ``bins`` codes each, and for each
    covariate its ``names`` of column, yes and no, and the ``values`` asked for, by cut."""

    codes: np.ndarray
    bins: np.ndarray
    names: tuple[tuple[str, str, str], ...]
    values: tuple[tuple[str, ...], ...]
    cut_short: tuple[str, ...]

    @classmethod
    def of(cls, fit: Fit, k: int, over: Sequence[str], units: np.ndarray) -> _Questions:
        data = fit.require_data("a tree")
        known = known_columns(data, k)
        over = name_list("over", over)
        wrong = [name for name in over if name not in known]
        if wrong or not over:
            raise ArgumentError(
                f"over={over!r}: name columns that are known at stage {fit.designs[k].action}: "
                f"{', '.join(map(repr, known))}."
            )
        codes, names, values, short = [], [], [], []
        for name in over:
            column = data.frame[name].iloc[units]
            gone = int(column.isna().sum())
            if gone:
                raise ArgumentError(
                    f"over: {name!r} is missing for {gone:,} of {len(units):,} units."
                )
            if pd.api.types.is_numeric_dtype(column.dtype):
                own, cuts, many = _of_numbers(column.to_numpy(dtype=float))
                short += [name] if many else []
                codes.append(own)
                names.append((name, "<", ">="))
                values.append(cuts)
                continue
            labels = label_series(column)
            for label in sorted(labels.unique()):
                codes.append((labels != label).to_numpy().astype(np.int64))
                names.append((name, "==", "!="))
                values.append((_quoted(name, label),))
        bins = np.array([len(own) + 1 for own in values])
        return cls(np.stack(codes, axis=1), bins, tuple(names), tuple(values), tuple(short))

    def leaves(self, nodes: Nodes, actions: np.ndarray, leaf: np.ndarray) -> pd.DataFrame:
        """Per leaf its condition, action and number of units."""
        rows = []

        def walk(node: int, path: dict[tuple[str, str], list[str]]) -> None:
            j = nodes.feature[node]
            if j < 0:
                text = " and ".join(f"{c} {op} {v}" for (c, op), own in path.items() for v in own)
                rows.append(
                    (text or "all", str(actions[nodes.action[node]]), int((leaf == node).sum()))
                )
                return
            column, yes, no = self.names[j]
            for side, op in ((1, yes), (2, no)):
                own = {**path}
                # A later cut of a number is the tighter one; a label that is named says all.
                before = own.get((column, op), []) if op == "!=" else []
                own[column, op] = [*before, self.values[j][nodes.cut[node]]]
                if op == "==":
                    own.pop((column, "!="), None)
                walk(2 * node + side, own)

        walk(0, {})
        return pd.DataFrame(rows, columns=["condition", "action", "units"])


def _of_numbers(x: np.ndarray) -> tuple[np.ndarray, tuple[str, ...], bool]:
    """Codes of numbers, the cuts, and whether there were too many values for all cuts."""
    values = np.unique(x)
    many = len(values) - 1 > _MOST_CUTS
    if many:
        lower = np.unique(
            np.quantile(x, np.arange(1, _MOST_CUTS + 1) / (_MOST_CUTS + 1), method="lower")
        )
        lower = lower[lower < values[-1]]
    else:
        lower = values[:-1]
    upper = values[np.searchsorted(values, lower, side="right")]
    cuts = np.array([_between(a, b) for a, b in zip(lower, upper, strict=True)])
    return np.searchsorted(cuts, x, side="right"), tuple(f"{c:.15g}" for c in cuts), many


def _quoted(name: str, label: str) -> str:
    """A label as conditions read it."""
    if "'" not in label:
        return f"'{label}'"
    if '"' in label:
        raise ArgumentError(
            f"over: {name!r} has the label {label!r} with both kinds of quotes. Rename it."
        )
    return f'"{label}"'


def _between(lower: float, upper: float) -> float:
    """The number with the fewest digits above ``lower`` and up to ``upper``."""
    middle = lower + (upper - lower) / 2
    for digits in range(1, 17):
        number = float(f"{middle:.{digits}g}")
        if lower < number <= upper:
            return number
    return upper
