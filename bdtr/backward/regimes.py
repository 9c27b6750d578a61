"""Regimes: a rule per stage, as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bdtr.backward.induction import Policy
from bdtr.data.history import known_columns
from bdtr.data.trialdata import StageData, TrialData
from bdtr.results.arguments import a_fit, is_real, truth
from bdtr.results.errors import BdtrError
from bdtr.results.labels import label_text
from bdtr.trial.condition import Condition
from bdtr.trial.rules import ELSE, Rule, RuleError, action_codes, read_rule, rule_columns, rule_text
from bdtr.trial.trial import Trial

__all__ = ["Regime", "RegimeError", "embedded", "policy", "recommended", "rule", "static"]


class RegimeError(BdtrError, ValueError):
    """A regime that names no action, or one that is not feasible on its own path."""


@dataclass(frozen=True)
class Regime:
    """A rule per stage; none: the recommended regime.

    ``rules`` maps the action column of each stage to an action label, to a mapping from conditions on
    history to labels (the first that holds decides, ``"else"`` stands for all others), or to a function
    that takes a data frame of the history and returns a label for each row. ``tailored`` says whether
    the recommended regime may differ between sites with the same history.
    """

    name: str
    rules: Mapping[str, Rule]
    tailored: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or not isinstance(self.rules, Mapping):
            raise RegimeError(
                f"Regime({self.name!r}, ...): takes a name, and a rule for each stage."
            )
        truth("tailored", self.tailored)
        rules = {
            stage: r if isinstance(r, str) else _read(stage, r) for stage, r in self.rules.items()
        }
        object.__setattr__(self, "rules", {stage: _in_order(r) for stage, r in rules.items()})

    @property
    def is_recommended(self) -> bool:
        """Whether this is the recommended regime."""
        return not self.rules

    def __str__(self) -> str:
        if self.is_recommended:
            where = "" if self.tailored else " on average over sites"
            return f"the recommended action{where} at every stage"
        return "; ".join(f"{stage}: {rule_text(one)}" for stage, one in self.rules.items())


def _in_order(rule: Rule) -> Rule:
    """A rule in which "else", which stands for all others wherever it is written, comes last."""
    if not isinstance(rule, Mapping) or ELSE not in rule:
        return rule
    return {**{c: a for c, a in rule.items() if c != ELSE}, ELSE: rule[ELSE]}


def recommended(fit: object = None, tailored: bool = True) -> Regime:
    """The regime that takes the recommended action at every stage.

    Parameters
    ----------
    fit
        Accepted so that ``recommended(fit)`` reads well; the regime is the same for every fit.
    tailored
        Whether the rule knows the effects of the trial's sites. A new site cannot follow a rule that
        does: without, the action is recommended that is best on average over sites.

    Returns
    -------
    Regime
    """
    if fit is not None:
        a_fit(fit)
    truth("tailored", tailored)
    return Regime("recommended" if tailored else "recommended, untailored", {}, tailored)


def static(name: str | None = None, /, **actions: object) -> Regime:
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
    labels = {stage: _label(f"static({stage}=...)", action) for stage, action in actions.items()}
    return Regime(", ".join(labels.values()) if name is None else name, labels)


def rule(name: str | None = None, /, **rules: Rule) -> Regime:
    """Actions that depend on history.

    Parameters
    ----------
    name
        Name in tables; left out: the rules joined.
    **rules
        For each stage, by action column: an action, a text such as
        ``"aide if y_k < 0 else regular"``, a mapping from conditions to actions, or a function that
        takes a data frame with the coded history of all units and returns an action for each row.

    Returns
    -------
    Regime

    Raises
    ------
    RuleError, bdtr.trial.ConditionError
        If a text is outside the grammar.

    Examples
    --------
    >>> str(rule(a1="regular", a2="aide if y_k < 0 else regular"))
    'a1: regular; a2: aide if y_k < 0 else regular'
    """
    if not rules:
        raise RegimeError("rule(): name a rule for each stage, for example a1='small'.")
    read = {stage: _read(stage, one) for stage, one in rules.items()}
    if name is None:
        name = "; ".join(rule_text(one) for one in read.values())
    return Regime(name, read)


def regime_list(regimes: object) -> list[Regime]:
    """Regimes that a user gave, one by one or in lists, or an error that names the first that is none."""
    out: list[Any] = []
    for item in regimes if isinstance(regimes, (list, tuple)) else [regimes]:
        out += item if isinstance(item, (list, tuple)) else [item]
    for one in out:
        _a_regime(one)
    return out


def _a_regime(one: object) -> None:
    if not isinstance(one, Regime):
        raise RegimeError(
            f"regimes: {one!r} is no regime; use bdtr.static(...), bdtr.rule(...), "
            "bdtr.recommended(fit) or bdtr.embedded(fit)."
        )


def _label(where: str, action: object) -> str:
    if action == "" if isinstance(action, str) else not _is_number(action):
        raise RegimeError(f"{where}: {action!r} is no label of an action.")
    return label_text(action)


def _is_number(action: object) -> bool:
    return isinstance(action, (bool, np.bool_)) or (is_real(action) and bool(np.isfinite(action)))


def _read(stage: str, rule: object) -> Rule:
    if isinstance(rule, str):
        return read_rule(rule)
    if isinstance(rule, Mapping):
        for condition in rule:
            if condition != ELSE:
                Condition(condition)
        if not rule:
            raise RegimeError(f"rule({stage}=...): the mapping is empty.")
        where = f"rule({stage}=...)"
        return {condition: _label(where, action) for condition, action in rule.items()}
    if callable(rule):
        return rule
    if _is_number(rule):
        return label_text(rule)
    raise RegimeError(
        f"rule({stage}=...): {rule!r} is no rule. Give an action, a text such as 'aide if y_k < 0 else "
        "regular', a mapping from conditions to actions, or a function of the history."
    )


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
    if isinstance(data, Trial):
        raise RegimeError(
            "embedded(trial): which regimes are embedded is seen in the data, as feasible sets depend on "
            "history. Pass the fit: bdtr.embedded(fit)."
        )
    data = getattr(data, "data", data)
    if data is None:
        raise RegimeError("embedded(): this fit was saved without data; name the regimes instead.")
    if not isinstance(data, TrialData):
        raise RegimeError(f"embedded(): pass a fit, got {type(data).__name__}.")
    everyone = np.ones(len(data), dtype=bool)
    every = list(_paths(data, 0, everyone))
    names = ["; ".join(_text(r) for r in rules.values()) for rules in every]
    taken = {name for name in names if names.count(name) == 1}
    out = []
    for name, rules in zip(names, every, strict=True):
        # Labels that hold the mark between stages may make one name of two regimes.
        numbered, i = name, 0
        while names.count(name) > 1 and (numbered in taken or not i):
            i += 1
            numbered = f"{name} ({i})"
        taken.add(numbered)
        out.append(Regime(numbered, rules))
    return out


def _text(rule: Rule) -> str:
    """The actions of an embedded rule alone where one will do."""
    if isinstance(rule, Mapping):
        actions = list(dict.fromkeys(rule.values()))
        if len(actions) == 1:
            return actions[0]
        return ", ".join(f"{action} if {condition}" for condition, action in rule.items())
    return rule_text(rule)


def _paths(data: TrialData, k: int, path: np.ndarray) -> Iterator[dict]:
    if k == len(data.stages):
        yield {}
        return
    stage = data.stages[k]
    for rule in _stage_rules(stage, data.frame, path & stage.history & ~stage.outside):
        followed = path & (stage.action == _codes(data, k, rule))
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


def _codes(data: TrialData, k: int, rule: Rule) -> np.ndarray:
    """Action code of a rule of stage k for each unit, -1 where it says nothing."""
    stage, known = data.stages[k], known_columns(data, k)
    where = f"stage {stage.stage.action}"
    wrong = [c for c in rule_columns(rule) if c not in known]
    if wrong:
        raise RegimeError(
            f"{where}: the rule {rule_text(rule)!r} names {', '.join(map(repr, wrong))}. A rule can use what "
            "is known when the action is chosen and is named by a formula or condition of its stage or an "
            f"earlier one: {', '.join(map(repr, known))}. Add the column to the formula."
        )
    history = data.frame[known]
    for text in rule if isinstance(rule, Mapping) else ():
        if text != ELSE:
            Condition(text).check_labels(history, where)
    try:
        codes = action_codes(rule, stage.stage.actions or (), history)
    except RuleError as error:
        raise RegimeError(f"{where}: {error}") from None
    # Those without a decision do what there is for them, whatever the rule says.
    return np.where(stage.outside, len(stage.arms) - 1, codes)


def policy(regime: Regime, data: TrialData) -> Policy:
    """The regime as action codes of each unit and stage.

    Every unit has the regime's own action where that is feasible for it, whether its earlier actions were
    those of the regime or not: Q-functions are then those of one policy. Elsewhere it has the recommended
    feasible action. A unit is on the regime's path while its earlier actions are those of the regime.

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
    _a_regime(regime)
    if regime.is_recommended:
        return Policy() if regime.tailored else Policy("untailored", "untailored")
    stages = [s.stage.action for s in data.stages]
    wrong = [name for name in regime.rules if name not in stages]
    gaps = [name for name in stages if name not in regime.rules]
    if wrong or gaps:
        raise RegimeError(
            f"regime {regime.name!r}: it must name an action for each stage "
            f"({', '.join(stages)}); it names {', '.join(regime.rules)}."
        )
    path = np.ones(len(data), dtype=bool)
    codes, off = [], []
    for k, stage in enumerate(data.stages):
        wanted = _codes(data, k, regime.rules[stage.stage.action])
        due = path & stage.history
        allowed = stage.feasible[np.arange(len(data)), np.maximum(wanted, 0)] & (wanted >= 0)
        bad = due & ~allowed
        if bad.any():
            raise RegimeError(
                f"regime {regime.name!r} is not feasible at stage {stage.stage.action} for "
                f"{int(bad.sum()):,} units on its own path, such as unit "
                f"{', '.join(map(repr, data.units[bad][:5]))}."
                + (" It says nothing for them." if (wanted[bad] < 0).all() else "")
            )
        codes.append(np.where(allowed, wanted, -1))
        off.append(stage.history & ~path)
        path = path & (~stage.among | (stage.action == wanted))
    return Policy("regime", regime.name, tuple(codes), tuple(off), rules=regime.rules)
