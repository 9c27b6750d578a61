"""Completed data sets of a trial whose history has missing values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import xarray as xr
from threadpoolctl import threadpool_limits

from bdtr.data.check import as_recorded, check_again
from bdtr.data.coding import Coding, label_series, level_order, with_columns
from bdtr.data.contents import DataError
from bdtr.data.frames import as_frame
from bdtr.data.groupcolumns import factor_labels
from bdtr.data.history import conditions
from bdtr.data.imputation.chain import Chains, run_chains
from bdtr.data.imputation.models import Model, OutcomeColumns
from bdtr.data.imputation.options import Options
from bdtr.data.imputation.responses import (
    Categories,
    Labels,
    Response,
    Times,
    numbers,
    standardised,
)
from bdtr.data.imputation.shifts import check_shifts, rewards_of_those_who_left, shift_of
from bdtr.data.imputation.values import MadeColumns, Values
from bdtr.data.imputation.variables import (
    Variable,
    after_the_last_decision,
    outcome_variable,
    variables,
)
from bdtr.data.modelmatrix import Columns
from bdtr.data.no_decision import has_decision
from bdtr.data.stagecolumns import stage_design
from bdtr.data.trialdata import TrialData
from bdtr.trial.formula import Formula
from bdtr.trial.trial import Trial

__all__ = ["Imputed", "impute"]

_ITERATIONS = 30


@dataclass(frozen=True)
class Imputed:
    """Drawn values of the history of a trial.

    Parameters
    ----------
    trial, recorded
        The trial, and the user's frame.
    variables
        Those with missing values among what was drawn, and those complete that come after one of these.
    wanted
        Variables whose values fill gaps of completed data sets.
    values, chains
        Drawn values and what the chains did, None where nothing is missing.
    shifts
        By variable, what is added to the drawn values of each unit.
    left
        What the shift of the outcome adds to rewards (stage, unit), None where it has none.
    """

    trial: Trial
    recorded: pd.DataFrame
    variables: tuple[Variable, ...] = ()
    wanted: tuple[Variable, ...] = ()
    values: Values | None = None
    chains: Chains | None = None
    shifts: Mapping[str, np.ndarray] = field(default_factory=dict)
    left: np.ndarray | None = None

    @property
    def frames(self) -> tuple[pd.DataFrame, ...]:
        """Completed data sets: the user's frame with missing values of the history filled in; none where
        nothing is missing."""
        return self.shifted(1.0)

    def shifted(self, size: float) -> tuple[pd.DataFrame, ...]:
        """Completed data sets with so many times the shifts."""
        if self.values is None:
            return ()
        moved = {name: size * one for name, one in self.shifts.items()}
        return tuple(
            _with_meaning(
                self.trial, _filled(self.recorded, self.wanted, self.values, moved, d), self.wanted
            )
            for d in range(self.values.sets)
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What was imputed by what, a line for each variable."""
        if self.chains is None:
            return ()
        return tuple(
            f"{v.name!r}: {int(v.missing.sum()):,} of {int(v.needed.sum()):,} values imputed given "
            f"{v.formula} and what was observed later (R-hat of their mean {r:.2f}, "
            f"{len(self.chains.means)} steps, {100 * a:.0f} % of proposals accepted)"
            for v, r, a in zip(
                _incomplete(self.variables),
                self.chains.rhat,
                self.chains.accepted.mean(axis=0),
                strict=True,
            )
        )

    @property
    def record(self) -> xr.Dataset:
        """What the chains did (step, variable, imputation): means of imputed values, as the regressions see
        them, and the share of proposals that were accepted."""
        assert self.chains is not None
        names = [v.name for v in _incomplete(self.variables)]
        found = {
            "mean": (("step", "variable", "imputation"), self.chains.means),
            "accepted": (("step", "variable"), self.chains.accepted),
        }
        return xr.Dataset(found, coords={"variable": names})


def impute(
    trial: Trial,
    data: pd.DataFrame,
    asked: Options,
    seed: np.random.SeedSequence,
    off_protocol: str = "error",
    progress: Callable[[int, int], None] | None = None,
) -> Imputed:
    """Draw the missing values of the history.

    Parameters
    ----------
    trial
        The trial.
    data
        One row per unit.
    asked
        Number of completed data sets; what goes with a variable, where that is not the default; columns after
        the last decision that tell of a missing outcome, in the order of time (the outcome of those who took
        the last decision is then drawn as well); shifts of what is missing, as in
        :func:`bdtr.data.imputation.shifts.shift_of`.
    seed
        Source of randomness.
    off_protocol
        As in :func:`bdtr.data.check.check`.
    progress
        Called with (steps done, steps in all).

    Returns
    -------
    Imputed

    Raises
    ------
    DataError
        If a site, a class, or what says who has a decision is missing for those whose action is known, or a
        variable cannot be learned from what was recorded.
    """
    frame, auxiliary, moved = as_frame(data), asked.auxiliary, asked.delta
    named, recorded, parsed, coding, coded = as_recorded(trial, frame)
    coded = _with_auxiliary(recorded, coded, auxiliary)
    ordered = [c for c in coded.columns if _has_order(recorded[c])]
    found = variables(named, parsed, coded, ordered, asked.formulas, auxiliary)
    lost = np.zeros(len(coded), dtype=bool)
    of_outcome = bool(auxiliary) or named.outcome in moved
    if of_outcome:
        _outcome_can_be_drawn(named)
        lost = coded[str(named.outcome)].isna().to_numpy()
    if not found and not lost.any():
        check_shifts(moved, [], named)
        return Imputed(named, recorded)
    rng = np.random.default_rng(seed)
    starting = _with_meaning(named, _started(named, recorded, coded, found, rng), found)
    first = check_again(named, starting, "exclude", off_protocol, whole=True)
    _those_who_stayed(first)
    later: list[Variable] = []
    took = np.zeros(len(coded), dtype=bool)
    if of_outcome:
        took = first.stages[-1].took & ~first.stages[-1].outside
        found = [*found, outcome_variable(named, coded, took, took & lost)]
        later = after_the_last_decision(
            named, parsed, coded, ordered, auxiliary, took, asked.formulas
        )
    check_shifts(moved, found, named)
    first, incomplete = _begun(first, coded, [*found, *later], rng), _incomplete([*found, *later])
    texts = {v.name: v.levels for v in found if v.name in coding.labels}
    values = Values.of(first.frame, first.coding, [v.name for v in incomplete], texts, asked.sets)
    with threadpool_limits(1):  # the same bits on any number of threads
        history = [v for v in found if v.name != named.outcome]
        models = [_model_of(one, first, values, coded) for one in history]
        models.append(_outcome_model(first, values, lost))
        models += [_model_of(one, first, values, coded) for one in later]
        chains = run_chains(values, models, incomplete, _ITERATIONS, rng, progress)
    shifts = {
        name: shift_of(one, name, named, coded, next(v.stage for v in found if v.name == name))
        for name, one in moved.items()
    }
    left = None
    if named.outcome in shifts:
        left = rewards_of_those_who_left(named, coded, shifts[named.outcome], lost & ~took)
    variables_of_all = (*found, *later)
    return Imputed(
        named, recorded, variables_of_all, tuple(_incomplete(found)), values, chains, shifts, left
    )


def _incomplete(found: Sequence[Variable]) -> list[Variable]:
    return [one for one in found if one.missing.any()]


def _with_auxiliary(
    frame: pd.DataFrame, coded: pd.DataFrame, auxiliary: Sequence[str]
) -> pd.DataFrame:
    """Coded columns with those after the last decision among them."""
    made = {}
    for name in auxiliary:
        if name not in frame.columns or name in coded.columns:
            what = (
                "the trial names it already" if name in coded.columns else "the data do not have it"
            )
            raise DataError(
                f"auxiliary: {name!r} cannot be taken, as {what}. Name columns that were measured after the "
                "last decision and are part of no formula."
            )
        levels = level_order(frame[name], name)
        known = Coding({} if levels is None else {name: levels}, () if levels else (name,), ())
        made[name] = known.code(frame, [name])[name]
    return with_columns(coded, made)


def _outcome_can_be_drawn(trial: Trial) -> None:
    if trial.companion or trial.outcome is None or trial.stages[-1].reward:
        raise DataError(
            "auxiliary, delta: outcomes are not imputed where they go with trials, an exposure or an "
            "event, nor where the last stage has a reward. Leave these out."
        )


def _begun(
    data: TrialData, coded: pd.DataFrame, found: Sequence[Variable], rng: np.random.Generator
) -> TrialData:
    """The data with columns after the last decision, and a recorded value, at random, in each gap of these
    and of the outcome."""
    changed = {}
    for one in found:
        if one.stage < len(data.stages):
            continue
        column = coded[one.name].copy()
        known, gap = np.flatnonzero(one.needed & ~one.missing), np.flatnonzero(one.missing)
        column.iloc[gap] = column.iloc[rng.choice(known, len(gap))].to_numpy()
        changed[one.name] = column
    return replace(data, frame=with_columns(data.frame, changed)) if changed else data


def _has_order(column: pd.Series) -> bool:
    return isinstance(column.dtype, pd.CategoricalDtype) and bool(column.cat.ordered)


def _started(
    trial: Trial,
    frame: pd.DataFrame,
    coded: pd.DataFrame,
    found: Sequence[Variable],
    rng: np.random.Generator,
) -> pd.DataFrame:
    """The data with a recorded value, at random, in each gap - but where it would say whether somebody whose
    action is known had a decision."""
    out = frame.copy()
    for one in found:
        gap = one.missing.copy()
        for stage in trial.stages:
            if any(one.name in condition.columns for condition in conditions(stage)):
                gap &= ~coded[stage.action].notna().to_numpy()
        if not gap.any():
            continue
        known = np.flatnonzero(one.needed & ~one.missing)
        column = out[one.name].astype(object)
        taken = rng.choice(known, int(gap.sum()))
        column.iloc[np.flatnonzero(gap)] = frame[one.name].iloc[taken].to_numpy(dtype=object)
        out[one.name] = _like(column, frame[one.name])
    return out


def _with_meaning(trial: Trial, frame: pd.DataFrame, found: Sequence[Variable]) -> pd.DataFrame:
    """The data without values that were filled in for those who, by other such values, have no decision,
    where a variable is measured among those alone who have one."""
    some = [one for one in found if one.not_outside]
    if not some:
        return frame
    coded, out = as_recorded(trial, frame)[-1], frame.copy()
    for one in some:
        for k in one.not_outside:
            outside = has_decision(trial.stages[k], coded) == 0
            out[one.name] = out[one.name].mask(outside & one.missing)
    return out


def _like(column: pd.Series, model: pd.Series) -> pd.Series:
    """A column of the kind that another one is; of whole numbers and truth values numbers."""
    if isinstance(model.dtype, pd.CategoricalDtype):
        return column.astype(model.dtype)
    if pd.api.types.is_numeric_dtype(model):
        return pd.to_numeric(column).astype(float)
    return column.astype(model.dtype) if column.dtype == object else column


def _those_who_stayed(data: TrialData) -> None:
    """Raise where something is missing that is not imputed: sites, classes, weights, rewards, and what says
    who has a decision and which, of those whose action is known."""
    allowed = {f"{s.stage.action} missing" for s in data.stages}
    allowed |= {f"{data.trial.outcome} missing", "later stage value unknown"}
    flow = data.flow
    wrong = flow[(flow["kind"] == "missing") & ~flow["step"].isin(allowed)]
    if len(wrong):
        texts = [f"stage {r.stage}: {r.step} for {r.units:,} units" for r in wrong.itertuples()]
        raise DataError(
            "Units cannot take part as the data are: "
            + "; ".join(texts)
            + ". Sites, classes, weights and rewards are not imputed, nor what says whether somebody whose "
            "action is known had a decision. Correct the data, or pass missing='exclude'."
        )


def _model_of(one: Variable, data: TrialData, values: Values, coded: pd.DataFrame) -> Model:
    formula = Formula.parse(one.formula)
    where = f"imputation={{{one.name!r}: ..}}"
    formula.check_columns(data.frame.columns, where)
    rows = np.flatnonzero(one.needed)
    unknown = [c for c in formula.columns if data.frame[c].iloc[rows].isna().any()]
    if unknown or one.name in formula.columns:
        raise DataError(
            f"{where}: names {(unknown or [one.name])[0]!r}, which is not known before it for all units that "
            f"need {one.name!r}. Name variables and actions that come before it."
        )
    frame = data.frame.iloc[rows].reset_index(drop=True)
    columns = Columns(formula.common, {}, frame)
    made = MadeColumns(columns, range(len(columns.names)), values, rows)
    groups = []
    for term in formula.groups:
        own = Columns(term.expression, {}, frame)
        codes, levels = pd.factorize(factor_labels(data.frame, term.factor))
        made_of_group = MadeColumns(own, range(len(own.names)), values, rows)
        groups.append((made_of_group, codes, len(levels)))
    return Model(one.name, rows, made, groups, _response(one, coded), values)


def _response(one: Variable, coded: pd.DataFrame) -> Response:
    known = coded[one.name][one.needed & ~one.missing]
    if one.kind == "number":
        return numbers(known.to_numpy(dtype=float))
    levels = (
        None
        if pd.api.types.is_string_dtype(known) or known.dtype == "category"
        else np.array(one.levels)
    )
    codes = pd.Categorical(known, categories=list(one.levels)).codes
    count = len(one.levels)
    if one.kind == "ordered":
        return Categories.of(codes.astype(np.int64), count, levels)
    return Labels(count, levels)


def _outcome_model(data: TrialData, values: Values, lost: np.ndarray) -> Model:
    """The outcome given all before it, by the formula of the last stage; where it is drawn, of all who took
    the last decision."""
    last, stage, trial = len(data.stages) - 1, data.stages[-1], data.trial
    design, payoff = stage_design(data, last), trial.payoff
    drawn = stage.took & ~stage.outside & lost
    rows = np.flatnonzero(stage.fitted | drawn)
    frame = data.frame.iloc[rows].reset_index(drop=True)
    site = np.maximum(design.site_codes(data.frame), 0)
    family, name = payoff.family, str(trial.outcome)
    if not drawn.any():
        name = "\0payoff"  # the name of no column
        y = np.full(len(data), np.nan)
        known = data.payoff if family.companion != "event" else _times(data)
        y[stage.fitted] = known
        values.held[name] = y[None]
    else:
        known = values.held[name][0, stage.fitted]
    response: Response
    if family.companion == "event":
        response = Times.of(known, family.name == "weibull")
    elif family.name == "gaussian":
        response = standardised(known)
    elif family.name == "bernoulli" or name in values.labels:
        count = len(values.labels.get(name, "ab"))
        response = Categories.of(known.astype(np.int64), count)
    else:
        response = numbers(known)
    groups = []
    for group in design.groups:
        codes = np.zeros(len(data), dtype=np.int64)
        codes[rows] = np.maximum(group.codes(frame), 0)
        groups.append(
            (MadeColumns(group.columns, group.keep, values, rows), codes, len(group.levels))
        )
    apart = stage.stage.residual == "arm" and not response.unit
    stratum = stage.action[rows].astype(np.int64) if apart else None
    columns = OutcomeColumns(design, values, rows, site)
    return Model(
        name, rows, columns, groups, response, values, stratum, len(design.arms) if apart else 1
    )


def _times(data: TrialData) -> np.ndarray:
    """Times of the units in the fit of the last stage, those without an event with a minus."""
    fitted = data.stages[-1].fitted
    assert data.recorded is not None
    if data.companion is None:
        return data.recorded[fitted]
    return np.where(data.companion[fitted] == 1, data.recorded[fitted], -data.recorded[fitted])


def _filled(
    frame: pd.DataFrame,
    found: Sequence[Variable],
    values: Values,
    shifts: Mapping[str, np.ndarray],
    d: int,
) -> pd.DataFrame:
    """The user's frame with the values of one data set in its gaps, shifted where that is asked for."""
    out = frame.copy()
    for one in found:
        units = np.flatnonzero(one.missing)
        drawn = values.held[one.name][d, units]
        column = out[one.name].astype(object)
        if one.name in values.labels:
            names = label_series(frame[one.name])
            known = dict(zip(names.dropna(), frame[one.name].dropna(), strict=True))
            column.iloc[units] = [known[values.labels[one.name][int(c)]] for c in drawn]
        else:
            column.iloc[units] = drawn + (shifts[one.name][units] if one.name in shifts else 0.0)
        out[one.name] = _like(column, frame[one.name])
    return out
