"""The models of variables and of the outcome that chains of missing values go through."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bdtr.data.contents import DataError
from bdtr.data.groupcolumns import factor_labels
from bdtr.data.imputation.models import Model, OutcomeColumns
from bdtr.data.imputation.responses import (
    Categories,
    Labels,
    Response,
    Times,
    numbers,
    standardised,
)
from bdtr.data.imputation.values import MadeColumns, Values
from bdtr.data.imputation.variables import Variable
from bdtr.data.modelmatrix import Columns
from bdtr.data.stagecolumns import stage_design
from bdtr.data.trialdata import TrialData
from bdtr.trial.formula import Formula

__all__ = ["model_of", "outcome_model"]


def model_of(one: Variable, data: TrialData, values: Values, coded: pd.DataFrame) -> Model:
    formula = Formula.parse(one.formula)
    where = f"imputation={{{one.name!r}: ..}}"
    if formula.smooths:
        bent = formula.smooths[0]
        raise DataError(
            f"{where}: {bent.name} is no part of a model that draws missing values. Write a spline such as "
            f"bs({bent.variables[0]}, df=4)."
        )
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


def outcome_model(data: TrialData, values: Values, drawn: np.ndarray) -> Model:
    """The outcome given all before it, by the formula of the last stage; ``drawn`` are units whose outcome is
    drawn."""
    last, stage, trial = len(data.stages) - 1, data.stages[-1], data.trial
    design, payoff = stage_design(data, last), trial.payoff
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
