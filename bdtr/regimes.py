"""Regimes: a rule per stage, as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bdtr.condition import Condition
from bdtr.data import StageData, TrialData
from bdtr.induction import Policy
from bdtr.labels import label_text

__all__ = ["Regime", "RegimeError", "embedded", "recommended", "static"]


class RegimeError(ValueError):
    """A regime that names no action, or one that is not feasible on its own path."""


@dataclass(frozen=True)
class Regime:
    """A rule per stage: an action, or an action for each feasible-set condition; none: recommended.

    ``rules`` maps the action column of each stage to an action label or to a mapping from a condition
    of ``Stage.feasible`` to a label. Without rules the regime is the recommended one.
    """

    name: str
    rules: Mapping[str, str | Mapping[str, str]]

    @property
    def is_recommended(self) -> bool:
        """Whether this is the recommended regime."""
        return not self.rules


def recommended(fit: object = None) -> Regime:
    """The regime that takes the recommended action at every stage.

    Parameters
    ----------
    fit
        Accepted so that ``recommended(fit)`` reads well; the regime is the same for every fit.

    Returns
    -------
    Regime
    """
    return Regime("recommended", {})


def static(name: str | None = None, **actions: object) -> Regime:
    """The same action for everyone at each stage.

    Parameters
    ----------
    name
        Name in tables; left out: the actions joined.
    **actions
        An action for each stage, by action column.

    Returns
    -------
    Regime

    Examples
    --------
    >>> static(a1="small", a2="small").name
    'small, small'
    """
    if not actions:
        raise RegimeError("static(): name an action for each stage, for example a1='small'.")
    labels = {stage: label_text(action) for stage, action in actions.items()}
    return Regime(name or ", ".join(labels.values()), labels)


def embedded(data: TrialData) -> list[Regime]:
    """All regimes embedded in a trial, from its actions and feasible sets.

    A regime takes one action at each stage for each feasible-set condition that can be met on its
    path, as seen in the data.

    Parameters
    ----------
    data
        Checked data, or a fit (its data are used).

    Returns
    -------
    list of Regime
    """
    data = getattr(data, "data", data)
    if data is None:
        raise RegimeError("embedded(): this fit was saved without data; name the regimes instead.")
    everyone = np.ones(len(data), dtype=bool)
    return [
        Regime("; ".join(_text(r) for r in rules.values()), rules)
        for rules in _paths(data, 0, everyone)
    ]


def _text(rule: str | Mapping[str, str]) -> str:
    if isinstance(rule, str):
        return rule
    parts = list(dict.fromkeys(rule.values()))
    if len(parts) == 1:
        return parts[0]
    return ", ".join(f"{action} if {condition}" for condition, action in rule.items())


def _paths(data: TrialData, k: int, path: np.ndarray) -> Iterator[dict]:
    if k == len(data.stages):
        yield {}
        return
    stage = data.stages[k]
    for rule in _stage_rules(stage, data.frame, path & stage.history):
        followed = path & (stage.action == _codes(stage, rule, data.frame))
        followed |= path & ~stage.among
        for rest in _paths(data, k + 1, followed):
            yield {stage.stage.action: rule, **rest}


def _stage_rules(stage: StageData, frame: pd.DataFrame, path: np.ndarray) -> Iterator:
    if stage.stage.feasible is None:
        yield from stage.stage.actions or ()
        return
    met = [c for c in stage.stage.feasible if (Condition(c).evaluate(frame)[path] == 1).any()]
    yield from _choices(stage.stage.feasible, met)


def _choices(feasible: Mapping[str, Sequence[str]], conditions: Sequence[str]) -> Iterator[dict]:
    if not conditions:
        yield {}
        return
    for action in feasible[conditions[0]]:
        for rest in _choices(feasible, conditions[1:]):
            yield {conditions[0]: action, **rest}


def _codes(stage: StageData, rule: str | Mapping[str, str], frame: pd.DataFrame) -> np.ndarray:
    """Action code of the rule for each unit, -1 where it says nothing."""
    actions = list(stage.stage.actions or ())
    where = f"stage {stage.stage.action}"
    pairs = {None: rule} if isinstance(rule, str) else rule
    out = np.full(len(frame), -1, dtype=np.int64)
    for condition, action in pairs.items():
        if action not in actions:
            raise RegimeError(f"{where}: {action!r} is no action; allowed are {actions}.")
        if condition is None:
            out[:] = actions.index(action)
        else:
            out[Condition(condition).evaluate(frame) == 1] = actions.index(action)
    return out


def policy(regime: Regime, data: TrialData) -> Policy:
    """The regime as action codes of each unit and stage.

    A unit is on the regime's path at a stage while its earlier actions are those of the regime; off
    it, the recommended feasible action is taken.

    Parameters
    ----------
    regime
        The regime.
    data
        Checked data.

    Returns
    -------
    Policy

    Raises
    ------
    RegimeError
        If a stage is missing or an action is not feasible on the regime's own path.
    """
    if regime.is_recommended:
        return Policy()
    stages = [s.stage.action for s in data.stages]
    wrong = [name for name in regime.rules if name not in stages]
    gaps = [name for name in stages if name not in regime.rules]
    if wrong or gaps:
        raise RegimeError(
            f"regime {regime.name!r}: it must name an action for each stage "
            f"({', '.join(stages)}); it names {', '.join(regime.rules)}."
        )
    path = np.ones(len(data), dtype=bool)
    codes = []
    for stage in data.stages:
        wanted = _codes(stage, regime.rules[stage.stage.action], data.frame)
        due = path & stage.history
        allowed = stage.feasible[np.arange(len(data)), np.maximum(wanted, 0)] & (wanted >= 0)
        bad = due & ~allowed
        if bad.any():
            raise RegimeError(
                f"regime {regime.name!r} is not feasible at stage {stage.stage.action} for "
                f"{int(bad.sum()):,} units on its own path, such as unit "
                f"{', '.join(map(repr, data.units[bad][:5]))}."
            )
        codes.append(np.where(path & allowed, wanted, -1))
        path = path & (~stage.among | (stage.action == wanted))
    return Policy("regime", regime.name, tuple(codes))
