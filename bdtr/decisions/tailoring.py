"""Decisions as a function of history: P(optimal) over one or two variables, and blips against one.

They show what a rule tailors to: a flat picture says that everybody can have the same action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.fitted import Fit
from bdtr.backward.passes import backward_pass
from bdtr.data.coding import label_series, with_columns
from bdtr.data.history import known_columns
from bdtr.decisions.optimality import summarise_actions
from bdtr.results.arguments import a_fit, name_list, one_of, probability, whole
from bdtr.results.captions import Captioned, Shown
from bdtr.results.errors import ArgumentError
from bdtr.results.estimates import estimates, kind_of
from bdtr.stages.pooled import interleaved

__all__ = ["Blips", "blips_along", "over_history", "tailoring_columns", "with_recorded"]

_MOST_UNITS = 1000  # whose blips are averaged


def tailoring_columns(fit: Fit, stage: str) -> tuple[str, ...]:
    """History that a stage's formula lets interact with the action, in its order.

    Parameters
    ----------
    fit
        A fitted trial.
    stage
        Action column of the stage.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> bdtr.decisions.tailoring_columns(fit, "a2")
    ('y_k',)
    """
    a_fit(fit)
    design = fit.designs[fit.stage_index(stage)]
    with_action = frozenset().union(*(v for v in design.variables if design.action in v))
    return tuple(c for c in design.history if c in with_action)


def over_history(
    fit: Fit,
    stage: str,
    over: str | Sequence[str],
    bins: int = 8,
    sites: str = "observed",
) -> Captioned:
    """P(optimal) of each action, averaged over the units in cells of one or two history variables.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    stage
        Action column of the stage.
    over
        One or two columns of its history. Numbers with more than ``bins`` values are cut into so many
        groups of equal size.
    bins
        Groups of a number.
    sites
        ``"observed"``, or ``"average"`` for the rule without site effects.

    Returns
    -------
    Captioned
        Table by the variables (interval or label) and ``action``: the number of ``units`` with two or
        more feasible actions, ``p_optimal`` (mean over those who could take the action),
        ``recommended`` (share of units) and ``regret`` (mean expected regret of the recommended
        action, in units of the outcome). Cells without units are absent.

    Raises
    ------
    ValueError
        If a column is no history of the stage.

    Examples
    --------
    >>> found = bdtr.decisions.over_history(fit, "a2", ["y_k", "lunch"])
    >>> list(found.table)
    ['units', 'p_optimal', 'recommended', 'regret']
    """
    a_fit(fit)
    whole("bins", bins, 2)
    one_of("sites", sites, ("observed", "average"))
    k = fit.stage_index(stage)
    names = name_list("over", over)
    if not 1 <= len(names) <= 2:
        raise ArgumentError(f"over={over!r}: name one or two columns.")
    data = fit.require_data("recommendations over history")
    state = data.stages[k]
    every = np.flatnonzero(state.choosing)
    units = with_recorded(fit, names, every)
    cells, labels = zip(*(_cells(fit, k, name, units, bins) for name in names), strict=True)
    shape = tuple(len(one) for one in labels)
    cell = np.asarray(np.ravel_multi_index(cells, shape))
    actions = list(fit.designs[k].actions)
    hit, able, chosen, lost = (np.zeros((len(actions), int(np.prod(shape)))) for _ in range(4))
    done, at = backward_pass(fit), 0
    values = done.q_values if sites == "observed" else done.average
    for block in done.blocks(units):
        feasible = state.feasible[block]
        found = summarise_actions(
            values(k, block), feasible, higher_is_better=fit.trial.higher_is_better
        )
        own = cell[at : at + len(block)]
        at += len(block)
        for a in range(len(actions)):
            may, mine = feasible[:, a], found.best == a
            np.add.at(hit[a], own[may], found.p_optimal[a, may])
            np.add.at(able[a], own[may], 1.0)
            np.add.at(chosen[a], own[mine], 1.0)
            np.add.at(lost[a], own[mine], found.regret[a, mine])
    count = np.bincount(cell, minlength=hit.shape[1])
    total = lost.sum(axis=0)
    rows = [
        (
            *where,
            actions[a],
            count[c],
            hit[a, c] / able[a, c],
            chosen[a, c] / count[c],
            total[c] / count[c],
        )
        for c, where in enumerate(product(*labels))
        for a in range(len(actions))
        if able[a, c] > 0
    ]
    own = ["action", "units", "p_optimal", "recommended", "regret"]
    columns = [*(_beside(name, own) for name in names), *own]
    index = columns[: len(names) + 1]
    return Captioned(
        pd.DataFrame(rows, columns=columns).set_index(index),
        f"{fit.state}. Stage {stage}: {len(units):,} units with a choice; P(optimal) of an action "
        "among feasible ones, mean over the units of a cell; later stages recommended."
        + _imputed_left_out(len(every) - len(units)),
    )


def with_recorded(fit: Fit, columns: Sequence[str], units: np.ndarray) -> np.ndarray:
    """Those of some units for whom no value of these columns was imputed; without imputed values all."""
    frame = fit.require_data("recommendations over history").frame
    if not fit.parts:
        return units
    gone = frame[[c for c in columns if c in frame]].iloc[units].isna().any(axis=1).to_numpy()
    return units[~gone]


def _imputed_left_out(count: int) -> str:
    return f" {count:,} units for whom these were imputed left out." if count else ""


def _cells(
    fit: Fit, k: int, name: str, units: np.ndarray, bins: int
) -> tuple[np.ndarray, list[str]]:
    """Cell of each unit along one variable, and the cells' labels in order."""
    data = fit.require_data("recommendations over history")
    allowed = known_columns(data, k)
    if name not in allowed:
        raise ArgumentError(
            f"over: {name!r} is no history of stage {fit.designs[k].action}; allowed are "
            f"{', '.join(map(str, allowed))}."
        )
    column = data.frame[name].iloc[units]
    if pd.api.types.is_numeric_dtype(column):
        x = column.to_numpy(dtype=float)
        if np.isnan(x).any():
            raise ArgumentError(f"over: {name!r} is missing for some units of the stage.")
        if len(np.unique(x)) > bins:
            edges = np.unique(np.quantile(x, np.linspace(0, 1, bins + 1)))
            code = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
            ends = _told_apart(edges)
            return code, [f"{a} to {b}" for a, b in pairwise(ends)]
        values, code = np.unique(x, return_inverse=True)
        return code, _told_apart(values)
    labels = label_series(column)
    labels = labels.fillna("missing" if "missing" not in set(labels) else "(missing)")
    present = sorted(labels.unique())
    return pd.Index(present).get_indexer(pd.Index(labels)), present


def _beside(name: str, own: Sequence[str]) -> str:
    """A column's name beside names that a result has itself."""
    return f"{name} (history)" if name in own else name


def _told_apart(numbers: np.ndarray) -> list[str]:
    """Different numbers as different texts, with three digits where these will do."""
    for digits in range(3, 17):
        texts = [f"{x:.{digits}g}" for x in numbers]
        if len(set(texts)) == len(texts):
            return texts
    return [repr(float(x)) for x in numbers]


@dataclass(frozen=True, repr=False)
class Blips(Shown):
    """Blips of one stage along a tailoring variable.

    ``draws`` over dims ``chain, draw, action`` and the variable; ``table`` with means, intervals and P(best)
    of every action, the reference included; ``seen`` the values of the variable in the data.
    """

    draws: xr.DataArray
    table: pd.DataFrame
    seen: np.ndarray
    stage: str
    variable: str
    reference: str
    about: str
    interval: float

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return (
            f"Stage {self.stage}: what an action adds to the mean payoff against {self.reference}, by "
            f"{self.variable}; {self.about}; {kind_of(self.interval)}s."
        )


def blips_along(
    fit: Fit, stage: str, variable: str, points: int = 25, interval: float = 0.95
) -> Blips:
    """Blips along one numeric history variable, of every action that somebody with a choice could take.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    stage
        Action column of the stage.
    variable
        A number in its history.
    points
        Values between the 1 % and 99 % quantiles of the variable (all of them where there are fewer).
    interval
        Probability of the equal-tailed intervals.

    Returns
    -------
    Blips
        In units of the outcome; averaged over units (a thousand, evenly spaced, of those with a choice)
        with the variable set to each value and all else as it is; against the first of these actions.

    Raises
    ------
    ValueError
        If the variable is no number in the history of the stage.

    Examples
    --------
    >>> found = bdtr.decisions.blips_along(fit, "a2", "y_k")
    >>> list(found.table)
    ['mean', 'sd', 'lower', 'upper', 'p_best']
    """
    a_fit(fit)
    whole("points", points, 2)
    probability("interval", interval)
    k = fit.stage_index(stage)
    data, design = fit.require_data("blips along history"), fit.designs[k]
    allowed = [
        c for c in known_columns(data, k)
        if pd.api.types.is_numeric_dtype(data.frame[c]) and c != data.trial.site
    ]  # fmt: skip
    if not isinstance(variable, str) or variable not in allowed:
        raise ArgumentError(
            f"variable={variable!r}: must be a number in the history of stage {stage}; allowed are "
            f"{', '.join(map(str, allowed)) or 'none'}."
        )
    state = data.stages[k]
    units = np.flatnonzero(state.choosing)
    seen = data.frame[variable].to_numpy(dtype=float)[units]
    seen = seen[~np.isnan(seen)] if fit.parts else seen
    values = np.unique(seen)
    if len(values) > points:
        values = np.linspace(np.quantile(seen, 0.01), np.quantile(seen, 0.99), points)
    some = units[np.linspace(0, len(units) - 1, min(_MOST_UNITS, len(units))).astype(int)]
    able = np.flatnonzero(state.feasible[units].any(axis=0))
    labels = [design.actions[a] for a in able]
    found = np.empty((len(able), len(values), fit.settings.propagated))
    for i, value in enumerate(values):
        found[:, i] = _with_value(fit, k, some, variable, float(value))[able].mean(axis=1)
    blips = found - found[:1]
    chains = fit.settings.chains
    along = _beside(variable, ("action", "chain", "draw", "sample"))
    draws = xr.DataArray(
        blips.reshape(*blips.shape[:2], chains, -1),
        {"action": labels, along: values},
        ("action", along, "chain", "draw"),
    ).transpose("chain", "draw", "action", along)
    table = estimates(draws, interval)
    sign = 1.0 if fit.trial.higher_is_better else -1.0
    best = (sign * found).argmax(axis=0)
    table["p_best"] = np.concatenate([(best == a).mean(axis=1) for a in range(len(found))])
    about = f"mean over {len(some):,} of {len(units):,} units with a choice, all else as it is"
    return Blips(draws, table, seen, stage, along, labels[0], about, interval)


def _with_value(fit: Fit, k: int, units: np.ndarray, variable: str, value: float) -> np.ndarray:
    """Q-values (action, unit, sample) of units of the data with a variable set to one value."""
    if fit.parts:
        each = [_with_value(one, k, units, variable, value) for one in fit.parts]
        return interleaved(each, fit.settings.chains)
    frame = fit.require_data("blips along history").frame.iloc[units]
    changed = with_columns(frame, {variable: np.full(len(units), value)})
    return fit.q_function(k)(changed.reset_index(drop=True))
