"""Who is in the fit of each stage, what they may choose, and why others are not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bdtr.data.contents import DataError, some
from bdtr.data.flow import Faults, Steps
from bdtr.data.history import delivered_now
from bdtr.data.no_decision import has_decision
from bdtr.data.trialdata import StageData
from bdtr.trial.condition import Condition
from bdtr.trial.formula import Formula
from bdtr.trial.trial import Stage, Trial

__all__ = ["any_of", "check_groups", "check_support", "feasible_sets", "present"]


def present(
    trial: Trial,
    formulas: Sequence[Formula],
    coded: pd.DataFrame,
    outcome: np.ndarray,
    units: np.ndarray,
) -> tuple[tuple[StageData, ...], pd.DataFrame, Faults, np.ndarray]:
    """Who is in the fit of each stage, from the last to the first; flow counts; faults to raise."""
    stages, flows, faults = [], [], Faults()
    payoff_known = ~np.isnan(outcome)
    for k in reversed(range(len(trial.stages))):
        stage, formula = trial.stages[k], formulas[k]
        reward = np.zeros(len(coded)) if stage.reward is None else coded[stage.reward].to_numpy()
        among = has_decision(stage, coded)
        action = coded[stage.action].cat.codes.to_numpy().astype(np.int64)
        _outside_has_no_action(stage, among, action, units)
        feasible, decided = feasible_sets(stage, coded, among == 1, units)
        outside = (among == 0) & (stage.outside == "arm")
        if stage.outside == "arm":  # who has no decision can only be in that arm
            feasible = np.c_[feasible & ~outside[:, None], outside]
            decided = decided | outside
            among = np.where(outside, np.int8(1), among)
        formed_now = delivered_now(trial, k)
        q_columns = [c for c in formula.columns if c not in (stage.action, formed_now)]
        if trial.site and trial.site not in q_columns:
            q_columns.insert(0, trial.site)
        gaps = {c: coded[c].isna().to_numpy() for c in q_columns}
        for c in set(gaps) - set(formula.model_columns) - {trial.site}:
            gaps[c] = gaps[c] & ~outside  # who has no decision is in no class of it
        history = (among == 1) & decided & ~any_of(gaps.values(), len(coded))
        steps = Steps(stage.action, len(coded))
        steps.drop("no decision here (among)", among == 0)
        last = k == len(trial.stages) - 1
        _carried_payoff_known(trial, stage, among == 0, outcome if last else None, reward, units)
        eligible = np.ones(len(coded), dtype=np.int8)
        if stage.eligible:
            eligible = Condition(stage.eligible).evaluate(coded)
            eligible = np.where(outside & (eligible < 0), np.int8(1), eligible)
            steps.drop(f"not eligible: {stage.eligible}", eligible == 0)
        steps.drop(f"{stage.action} missing", action < 0, "missing")
        steps.drop("eligibility unknown", eligible < 0, "missing")
        steps.drop("decision due unknown (among)", among < 0, "missing")
        steps.drop("feasible set unknown", (among == 1) & ~decided, "missing")
        taken = feasible[np.arange(len(coded)), np.maximum(action, 0)]
        steps.drop(f"{stage.action} not feasible", (action >= 0) & ~taken, "off_protocol")
        if formed_now:
            gaps[formed_now] = coded[formed_now].isna().to_numpy() & ~outside
        for column, gap in gaps.items():
            steps.drop(f"{column} missing", gap, "missing")
        computed = stage.model is None and not trial.by_formula(k)  # its values are no response
        if stage.reward and not computed:
            steps.drop(f"{stage.reward} missing", np.isnan(reward), "missing")
        weight = None
        if stage.weights:
            weight = coded[stage.weights].to_numpy()
            steps.drop(f"{stage.weights} missing", np.isnan(weight), "missing")
        what = f"{trial.outcome} missing" if last else "later stage value unknown"
        if not computed:
            steps.drop(what, ~payoff_known, "missing")
        fitted = steps.left & (among == 1)
        steps.say(f"of these an arm without a decision ({stage.among})", outside)
        _positive(stage, weight, fitted, units)
        faults.add(steps, units)
        faults.assume(steps, action, stage.actions or ())
        flows.append(steps.table())
        stages.append(
            StageData(
                stage,
                formula,
                action,
                feasible,
                among == 1,
                history,
                fitted,
                reward,
                outside,
                weight,
                trial.by_formula(k),
            )
        )
        # What stage k-1 responds to: the predicted value where a decision is due, else the payoff.
        # Whether a decision was due must be known for either.
        payoff_known = np.where(among == 1, history, (among == 0) & payoff_known)
    flow = pd.concat(flows[::-1], ignore_index=True)
    return tuple(stages[::-1]), flow, faults, payoff_known


def _positive(stage: Stage, weight: np.ndarray | None, fitted: np.ndarray, units) -> None:
    if weight is None:
        return
    wrong = fitted & ~((weight > 0) & np.isfinite(weight))
    if wrong.any():
        raise DataError(
            f"Stage({stage.action!r}): weights {stage.weights!r} holds {some(weight[wrong])} "
            f"({some(units[wrong])}); a precision weight is finite and above 0. Leave such units out "
            "of the data, or correct them."
        )


def any_of(masks, rows: int) -> np.ndarray:
    out = np.zeros(rows, dtype=bool)
    for mask in masks:
        out |= mask
    return out


def _outside_has_no_action(stage, among, action, units) -> None:
    wrong = (among == 0) & (action >= 0) & (action < len(stage.actions or ()))
    if wrong.any():
        raise DataError(
            f"Stage({stage.action!r}): {int(wrong.sum()):,} units outside among={stage.among!r} "
            f"have an action in {stage.action!r} ({some(units[wrong])}). There is no decision for "
            "them: set the action to missing, or correct the condition."
        )


def _carried_payoff_known(trial, stage, outside, outcome, reward, units) -> None:
    """Payoffs that are carried to earlier stages have to be known; those of an arm need not."""
    payoffs = {stage.reward: reward}
    if outcome is not None:
        payoffs[trial.outcome] = outcome
    for name, values in payoffs.items():
        unknown = outside & np.isnan(values)
        if unknown.any():
            raise DataError(
                f"Stage({stage.action!r}): {int(unknown.sum()):,} units outside "
                f"among={stage.among!r} have no payoff to carry through: {name!r} is missing "
                f"({some(units[unknown])}). Where nothing was earned, say 0; to have their payoff "
                "predicted, leave outside= out or say outside='arm'."
            )


def feasible_sets(stage: Stage, coded: pd.DataFrame, among: np.ndarray, units: np.ndarray):
    """Feasible actions of each unit (unit x action), and for whom they are known."""
    actions = list(stage.actions or ())
    if stage.feasible is None:
        return np.ones((len(coded), len(actions)), dtype=bool), np.ones(len(coded), dtype=bool)
    truths = np.stack([Condition(text).evaluate(coded) for text in stage.feasible])
    known = (truths >= 0).all(axis=0)
    met = (truths == 1).sum(axis=0)
    for wrong, what in ((met == 0, "no condition"), (met > 1, "more than one condition")):
        wrong = wrong & known & among
        if wrong.any():
            raise DataError(
                f"Stage({stage.action!r}): {int(wrong.sum()):,} units meet {what} of feasible "
                f"({some(units[wrong])}). Conditions: {', '.join(map(repr, stage.feasible))}. Every "
                "unit must meet exactly one."
            )
    sets = np.array([[a in allowed for a in actions] for allowed in stage.feasible.values()])
    feasible = (truths == 1).T @ sets
    return np.where(known[:, None], feasible, True), known


def check_groups(stage: StageData, coded: pd.DataFrame) -> None:
    """Raise where a grouping factor has one row a level: its effect is the residual by another name."""
    rows = coded.loc[stage.fitted & ~stage.outside]
    for group in stage.formula.groups if stage.by_formula else ():
        levels = rows[list(group.factor)].astype(object).dropna().drop_duplicates()
        if len(rows) > 1 and len(levels) == len(rows):
            raise DataError(
                f"Stage({stage.stage.action!r}): {group.name!r} has as many levels as there are "
                f"units in the fit "
                f"({len(rows):,}), one row each, so that its effects cannot be told apart from "
                f"the residuals: only "
                f"the sum of both variances is known. Take (.. | {group.name}) out."
            )


def check_support(stage: StageData) -> None:
    where = f"Stage({stage.stage.action!r})"
    if not stage.fitted.any():
        raise DataError(f"{where}: no unit is left in the fit; see the flow of exclusions.")
    counts = np.bincount(stage.action[stage.fitted], minlength=len(stage.arms))
    counts = counts[: len(stage.stage.actions or ())]
    actions = stage.stage.actions or ("",)
    if counts[0] == 0 and (counts > 0).sum() > 1 and stage.by_formula:
        raise DataError(
            f"{where}: no unit in the fit took {actions[0]!r}, the first action, which the others are "
            "compared with. Put another first in actions, or leave it out (of a categorical: "
            "cat.remove_unused_categories())."
        )
    if (counts > 0).sum() < 2:
        raise DataError(
            f"{where}: only one action is observed in the fit, "
            f"{actions[int(counts.argmax())]!r} ({counts.max():,} units). "
            "Nothing can be learned about a choice; check the column and the exclusions."
        )
