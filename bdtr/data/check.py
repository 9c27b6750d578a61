"""A data frame held against a trial, once: clear errors, coded columns, who is present when."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd

from bdtr.data.clusters import DesignWarning, shared_clusters, unknown_clusters
from bdtr.data.coding import (
    Coding,
    DataError,
    label_series,
    level_order,
    rows_of,
    some,
    with_columns,
)
from bdtr.data.contents import clear_labels, computable, no_nul, scalars_alone
from bdtr.data.flow import Faults, Steps, raise_faults
from bdtr.data.frames import as_frame
from bdtr.data.history import conditions, delivered_now, stage_formula
from bdtr.data.outside import (
    arms_of,
    fill_outside,
    has_decision,
    no_action,
    with_arms,
    without_mark,
)
from bdtr.results.arguments import one_of
from bdtr.results.labels import NEW_SITE
from bdtr.trial.condition import Condition
from bdtr.trial.families import FAMILIES
from bdtr.trial.formula import Formula
from bdtr.trial.trial import Stage, Trial

__all__ = [
    "StageData",
    "TrialData",
    "check",
    "check_again",
    "feasible_sets",
]


@dataclass(frozen=True)
class StageData:
    """Who takes part in one stage.

    Arrays over all units: ``action`` codes (-1: none), ``feasible`` (unit x arm), ``among`` (a decision
    is due, or the unit is in the arm of those without one), ``outside`` (in that arm), ``history`` (all
    that the Q-function needs is known), ``fitted`` (row of the fit).
    """

    stage: Stage
    formula: Formula
    action: np.ndarray
    feasible: np.ndarray
    among: np.ndarray
    history: np.ndarray
    fitted: np.ndarray
    reward: np.ndarray
    outside: np.ndarray
    weight: np.ndarray | None = None  # known precision weights, None for 1

    @property
    def arms(self) -> tuple[str, ...]:
        """The actions, and the arm without a decision where there is one; the order of codes."""
        return arms_of(self.stage)

    @property
    def took(self) -> np.ndarray:
        """Units with a complete history that took a feasible action, whether they are in the fit or not."""
        rows = np.arange(len(self.action))
        allowed = self.feasible[rows, np.maximum(self.action, 0)]
        return self.history & self.among & (self.action >= 0) & allowed

    @property
    def deciding(self) -> np.ndarray:
        """Units with a complete history who have a decision, if among one feasible action."""
        return self.history & self.among & ~self.outside

    @property
    def choosing(self) -> np.ndarray:
        """Units with a complete history who have a decision between two feasible actions or more."""
        return self.history & self.among & (self.feasible.sum(axis=1) > 1)


@dataclass(frozen=True)
class TrialData:
    """The data of a trial after the one check: nothing later checks them again."""

    trial: Trial
    frame: pd.DataFrame
    coding: Coding
    units: np.ndarray
    outcome: np.ndarray
    stages: tuple[StageData, ...]
    flow: pd.DataFrame
    notes: tuple[str, ...]
    valued: np.ndarray  # units whose expected payoff from stage 1 on can be computed
    doubts: tuple[str, ...] = ()  # about how treatment reached them
    index: pd.Index | None = None  # that of the frame as the user gave it; not kept in a saved fit

    def __len__(self) -> int:
        return len(self.units)

    @cached_property
    def site_levels(self) -> np.ndarray:
        """The site index: every site in the data, numbers in their order, other labels sorted."""
        if self.trial.site is None:
            return np.zeros(1, dtype=object)
        labels = label_series(self.frame[self.trial.site]).dropna().unique()
        numeric = all(label.isascii() and label.isdigit() for label in labels)
        ordered = sorted(labels, key=(lambda x: (int(x), x)) if numeric else None)
        return np.array(ordered, dtype=object)

    @property
    def named(self) -> pd.DataFrame:
        """The columns that the trial uses, the units' names among them if it has some."""
        if not self.trial.unit:
            return self.frame
        return with_columns(self.frame, {self.trial.unit: self.units})

    @property
    def payoff(self) -> np.ndarray:
        """Observed payoff of the units in the fit of the last stage."""
        last = self.stages[-1]
        return (self.outcome + last.reward)[last.fitted]

    def hash(self) -> str:
        """SHA-256 of the columns the trial uses, the first 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for name in self.frame.columns:
            digest.update(name.encode())
            digest.update(pd.util.hash_pandas_object(self.frame[name], index=False).to_numpy())
        return digest.hexdigest()[:16]


def check(
    trial: Trial,
    frame: pd.DataFrame,
    missing: str = "error",
    off_protocol: str = "error",
    whole: bool = True,
) -> TrialData:
    """Hold a data frame against a trial.

    Parameters
    ----------
    trial
        The trial.
    frame
        One row per unit: a data frame of pandas, or one of Polars or Arrow.
    missing
        ``"error"``, or ``"exclude"`` to leave units with missing values out of the fit of a stage;
        they are counted in the flow table.
    off_protocol
        ``"error"``, or ``"exclude"`` for units whose action was not feasible; counted as well.
    whole
        Whether these are all data: labels of conditions must occur, groups must have more than one row.

    Returns
    -------
    TrialData

    Raises
    ------
    DataError
        If the data do not fit; the message names the column, the rows, and how to mend it.
    """
    one_of("missing", missing, ("error", "exclude"), DataError)
    one_of("off_protocol", off_protocol, ("error", "exclude"), DataError)
    frame = as_frame(frame)
    _columns_present(trial, frame)
    trial = _with_actions(trial, frame)
    frame = without_mark(trial, frame)
    formulas = [stage_formula(trial, k) for k in range(len(trial.stages))]
    for k, stage in enumerate(trial.stages):
        formulas[k].check_columns(frame.columns, f"Stage({stage.action!r})")
    coding = _coding(trial, formulas, frame)
    _transformed_are_numbers(trial, formulas, coding)
    if whole:
        _labels_vary(trial, formulas, coding)
    used = _used_columns(trial, formulas)
    coded = coding.code(frame, used)
    if trial.site and (coded[trial.site] == NEW_SITE).any():
        raise DataError(
            f"Site column {trial.site!r} holds {NEW_SITE!r}, which is what bdtr calls a site that was not "
            "in the trial; give the site another name."
        )
    units = _units(trial, frame)
    outcome = _outcome(trial, coded)
    _counted_once(trial, coded)
    if whole:
        for name in _computed_with(trial, formulas):
            if name in coding.numbers:
                computable(coded[name].to_numpy(dtype=float), name)
        for stage in trial.stages:
            for condition in conditions(stage):
                condition.check_labels(coded, f"Stage({stage.action!r})")
    no_action(trial, coded, frame, outcome, units)
    trial = with_arms(trial, coded, outcome)
    filled: tuple[str, ...] = ()
    if any(stage.outside == "arm" for stage in trial.stages):
        coding = replace(
            coding, levels={**coding.levels, **{s.action: arms_of(s) for s in trial.stages}}
        )
        coded, filled = fill_outside(trial, formulas, coding, coded)
    trial, notes = _with_earlier_terms(trial, formulas, coded)
    if notes:
        formulas = [stage_formula(trial, k) for k in range(len(trial.stages))]
    stages, flow, faults, valued = _present(trial, formulas, coded, outcome, units)
    raise_faults(faults, missing, off_protocol)
    for stage in stages:
        _check_support(stage)
        if whole:
            _check_groups(stage, coded)
    doubts = unknown_clusters(trial, stages, frame, coding.numbers)
    notes = filled + notes + doubts + shared_clusters(trial, stages, coded)
    return TrialData(
        trial, coded, coding, units, outcome, stages, flow, notes, valued, doubts, frame.index
    )


def check_again(
    trial: Trial,
    frame: pd.DataFrame,
    missing: str = "error",
    off_protocol: str = "error",
    whole: bool = False,
) -> TrialData:
    """As :func:`check`, for data that were checked, or part of them: warnings were given then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DesignWarning)
        return check(trial, frame, missing, off_protocol, whole)


def _columns_present(trial: Trial, frame: pd.DataFrame) -> None:
    absent = [name for name in trial.columns if name not in frame.columns]
    if absent:
        raise DataError(
            f"data: the trial names the columns {', '.join(map(repr, absent))}, which are absent. "
            f"Columns: {', '.join(map(str, frame.columns))}."
        )


def _with_actions(trial: Trial, frame: pd.DataFrame) -> Trial:
    """Fill in actions from categorical columns, for stages that do not list them."""
    stages = []
    for stage in trial.stages:
        if stage.actions is None:
            dtype = frame[stage.action].dtype
            if not isinstance(dtype, pd.CategoricalDtype):
                raise DataError(
                    f"Stage({stage.action!r}): actions is missing and the column is no pandas "
                    "categorical. List the actions in your order, the reference first."
                )
            stage = stage.with_actions(list(dtype.categories))
        stages.append(stage)
    return replace(trial, stages=tuple(stages))


def _with_earlier_terms(
    trial: Trial, formulas: Sequence[Formula], coded: pd.DataFrame
) -> tuple[Trial, tuple[str, ...]]:
    """Leave out terms of earlier stages that would cost a later one units, as they are missing there."""
    stages, notes = [], []
    for stage, formula in zip(trial.stages, formulas, strict=True):
        own = set(Formula.parse(stage.formula).columns)
        new = [c for c in formula.model_columns if c not in own]
        acted = coded[stage.action].notna().to_numpy()
        gaps = {c: acted & coded[c].isna().to_numpy() for c in new}
        gaps = {c: gap for c, gap in gaps.items() if gap.any()}
        if gaps and stage.earlier_terms:
            lost = int(_any(gaps.values(), len(coded)).sum())
            notes.append(
                f"stage {stage.action}: terms of earlier stages are not added, as "
                f"{', '.join(map(repr, gaps))} is missing for {lost:,} of its units. What they tailor by has "
                "no direct effect in this model."
            )
            stage = replace(stage, earlier_terms=False)
        stages.append(stage)
    return replace(trial, stages=tuple(stages)), tuple(notes)


def _counted_once(trial: Trial, coded: pd.DataFrame) -> None:
    """Raise where two of the outcome and the rewards, which add up to the payoff, hold the same numbers."""
    names = [name for name in (trial.outcome, *(s.reward for s in trial.stages)) if name]
    for one, other in combinations(names, 2):
        a, b = coded[one].to_numpy(dtype=float), coded[other].to_numpy(dtype=float)
        if np.array_equal(a, b, equal_nan=True) and len(np.unique(a[~np.isnan(a)])) > 1:
            raise DataError(
                f"Columns {one!r} and {other!r} hold the same numbers, which would count twice in the "
                "payoff. Leave one out."
            )


def _used_columns(trial: Trial, formulas: Sequence[Formula]) -> list[str]:
    names = [trial.site] if trial.site else []
    for stage, formula in zip(trial.stages, formulas, strict=True):
        names += [stage.action, *formula.columns]
        names += [name for name in (stage.reward, stage.weights) if name]
        for condition in conditions(stage):
            names += condition.columns
    if trial.outcome:
        names.append(trial.outcome)
    return list(dict.fromkeys(names))


def _coding(trial: Trial, formulas: Sequence[Formula], frame: pd.DataFrame) -> Coding:
    for condition in (c for s in trial.stages for c in conditions(s)):
        condition.check_columns(frame.columns)
    factors = {c for f in formulas for g in f.groups for c in g.factor}
    factors |= {trial.site} if trial.site else set()
    in_models = {c for f in formulas for c in f.model_columns}
    levels = {s.action: tuple(s.actions or ()) for s in trial.stages}
    amounts = _amounts(trial)
    numbers, labels = [], []
    for name in _used_columns(trial, formulas):
        if name in levels:
            continue
        if name in amounts:
            numbers.append(name)
        elif name in factors and name not in in_models:
            scalars_alone(frame[name], name)
            clear_labels(label_series(frame[name]).dropna().unique(), name, modelled=False)
            labels.append(name)
        elif (found := level_order(frame[name], name, name in in_models - factors)) is None:
            numbers.append(name)
        elif name in in_models:
            levels[name] = found
        else:
            labels.append(name)  # only conditions use it: any label will do
    return Coding(levels, tuple(numbers), tuple(labels))


def _transformed_are_numbers(trial: Trial, formulas: Sequence[Formula], coding: Coding) -> None:
    for stage, formula in zip(trial.stages, formulas, strict=True):
        labels = [c for c in formula.transformed if c not in coding.numbers]
        if labels:
            raise DataError(
                f"Stage({stage.action!r}): the formula puts {labels[0]!r} into a transform, which "
                "takes numbers, and it holds labels. Name it outside, as in x + x:a."
            )


def _labels_vary(trial: Trial, formulas: Sequence[Formula], coding: Coding) -> None:
    actions = {s.action for s in trial.stages}
    for stage, formula in zip(trial.stages, formulas, strict=True):
        for name in formula.model_columns:
            count = len(coding.levels.get(name, "ab"))
            if count < 2 and name not in actions:
                what = "one label for all units" if count else "no value at all"
                raise DataError(
                    f"Stage({stage.action!r}): the formula names {name!r}, which has {what}: nothing can "
                    "be learned about it. Leave it out."
                )


def _units(trial: Trial, frame: pd.DataFrame) -> np.ndarray:
    if trial.unit is None:
        return np.arange(len(frame)).astype(str).astype(object)
    labels = label_series(frame[trial.unit])
    if labels.isna().any():
        raise DataError(f"Unit column {trial.unit!r} is missing in {rows_of(labels.isna())}.")
    no_nul(labels, trial.unit)
    twice = labels.duplicated(keep=False)
    if twice.any():
        raise DataError(
            f"Unit column {trial.unit!r} holds {some(labels[twice].unique())} more than once, in "
            f"{rows_of(twice)}. bdtr takes one row per unit: reshape long data to wide, or correct "
            "the ids."
        )
    return labels.astype(object).to_numpy()


def _computed_with(trial: Trial, formulas: Sequence[Formula]) -> list[str]:
    """Columns of models and of the payoff."""
    return list(dict.fromkeys([*_amounts(trial), *(c for f in formulas for c in f.model_columns)]))


def _amounts(trial: Trial) -> list[str]:
    """Columns that are numbers by their role: the outcome, rewards, weights."""
    names = [trial.outcome, *(n for s in trial.stages for n in (s.reward, s.weights))]
    return [n for n in names if n]


def _outcome(trial: Trial, coded: pd.DataFrame) -> np.ndarray:
    if trial.outcome is None:
        return np.zeros(len(coded))
    values = coded[trial.outcome].to_numpy()
    family = FAMILIES[trial.family]
    invalid = ~np.isnan(values) & ~family.valid(values)
    if invalid.any():
        raise DataError(
            f"Outcome {trial.outcome!r} holds {some(values[invalid])} in {rows_of(invalid)}; the "
            f"{family.name} family takes {family.outcomes}."
        )
    return values


def _present(
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
        history = (among == 1) & decided & ~_any(gaps.values(), len(coded))
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
        if stage.reward:
            steps.drop(f"{stage.reward} missing", np.isnan(reward), "missing")
        weight = None
        if stage.weights:
            weight = coded[stage.weights].to_numpy()
            steps.drop(f"{stage.weights} missing", np.isnan(weight), "missing")
        what = f"{trial.outcome} missing" if last else "later stage value unknown"
        steps.drop(what, ~payoff_known, "missing")
        fitted = steps.left & (among == 1)
        steps.say(f"of these an arm without a decision ({stage.among})", outside)
        _positive(stage, weight, fitted, units)
        faults.add(steps, units)
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


def _any(masks, rows: int) -> np.ndarray:
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


def _check_groups(stage: StageData, coded: pd.DataFrame) -> None:
    """Raise where a grouping factor has one row a level: its effect is the residual by another name."""
    rows = coded.loc[stage.fitted & ~stage.outside]
    for group in stage.formula.groups if stage.stage.model is None else ():
        levels = rows[list(group.factor)].astype(object).dropna().drop_duplicates()
        if len(rows) > 1 and len(levels) == len(rows):
            raise DataError(
                f"Stage({stage.stage.action!r}): {group.name!r} has as many levels as there are "
                f"units in the fit "
                f"({len(rows):,}), one row each, so that its effects cannot be told apart from "
                f"the residuals: only "
                f"the sum of both variances is known. Take (.. | {group.name}) out."
            )


def _check_support(stage: StageData) -> None:
    where = f"Stage({stage.stage.action!r})"
    if not stage.fitted.any():
        raise DataError(f"{where}: no unit is left in the fit; see the flow of exclusions.")
    counts = np.bincount(stage.action[stage.fitted], minlength=len(stage.arms))
    counts = counts[: len(stage.stage.actions or ())]
    actions = stage.stage.actions or ("",)
    if counts[0] == 0 and (counts > 0).sum() > 1 and stage.stage.model is None:
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
