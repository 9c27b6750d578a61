"""The data of the model of a state: a trial of one stage, whose outcome is the state."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from bdtr.data.check import check_again
from bdtr.data.coding import with_columns
from bdtr.data.contents import DataError
from bdtr.data.history import stage_formula
from bdtr.data.no_decision import has_decision
from bdtr.data.trialdata import TrialData
from bdtr.trial.condition import Condition
from bdtr.trial.formula import Formula
from bdtr.trial.states import StateModel, states_of
from bdtr.trial.trial import Stage, Trial

__all__ = ["Coded", "state_coding", "state_data", "state_trial"]


@dataclass(frozen=True)
class Coded:
    """How a state stands in the data: ``labels`` in their order, or None for numbers; ``outside`` is the
    value of all who have no decision at the next stage, where the state is measured for the others alone."""

    labels: tuple[str, ...] | None
    outside: float | None


def state_coding(data: TrialData, k: int, name: str) -> Coded:
    """How a state that follows stage k stands in the data."""
    labels = _labels(data, name)
    stage, column = data.stages[k + 1].stage, data.frame[name]
    if stage.among is None or stage.reward == name:
        return Coded(labels, None)
    out = column[has_decision(stage, data.frame) == 0].dropna()
    if out.empty or out.nunique() > 1 or column.nunique() < 2:
        return Coded(labels, None)
    value = labels.index(str(out.iloc[0])) if labels else float(out.iloc[0])
    among = column[has_decision(stage, data.frame) == 1].dropna()
    says = Condition(stage.among).columns
    if name in says or not len(among):
        return Coded(labels, None)  # it is this state that says who has a decision
    states = states_of(data.trial, k)
    later = [c for c in says if c in states[states.index(name) :]]
    if later:
        raise DataError(
            f"states[{name!r}]: is measured for those alone who have a decision at stage {stage.action}, "
            f"which {later[0]!r} says. Name {later[0]!r} before {name!r}."
        )
    return Coded(labels, value)


def _labels(data: TrialData, name: str) -> tuple[str, ...] | None:
    """Labels of a state in their order, of one that conditions alone name in that of the alphabet; None for
    numbers."""
    if name in data.coding.labels:
        return tuple(sorted(data.frame[name].dropna().astype(str).unique()))
    return data.coding.levels.get(name)


def state_trial(data: TrialData, k: int, name: str) -> Trial:
    """A trial of one stage, the action of stage k, whose outcome is a state that follows it.

    What earlier stages tailor by, and delivery clusters, are in its formula as in that of a stage.
    """
    trial, model = data.trial, (data.trial.states or {})[name]
    stages = [replace(s, reward=None, weights=None) for s in trial.stages[: k + 1]]
    own = stages[-1]
    before = replace(own, formula=model.formula, delivered_in=None)
    whole = Trial([*stages[:-1], before], outcome=name, site=trial.site)
    formula = stage_formula(whole, k).text
    kept = {c for g in Formula.parse(formula).groups for c in g.factor}
    stage = Stage(
        own.action,
        own.actions,
        formula,
        among=own.among,
        outside=own.outside,
        eligible=own.eligible,
        delivered_in=None if own.delivered_in in kept else own.delivered_in,
        priors=model.priors,
        site_means=model.site_means,
        residual=model.residual,
        shape="linear",
    )
    labels = _labels(data, name)
    family = _family(data, name, model)
    utility = (
        {str(i): float(i) for i in range(len(labels))} if labels and family == "ordinal" else None
    )
    return Trial(
        [stage], outcome=name, site=trial.site, family=family, trials=model.trials,
        exposure=model.exposure, utility=utility,
    )  # fmt: skip


def _family(data: TrialData, name: str, model: StateModel) -> str:
    """The family of a state: as said, or by its values."""
    labels, column = _labels(data, name), data.frame[name].dropna()
    if labels is None:
        return model.family or ("bernoulli" if {*column.unique()} <= {0, 1} else "gaussian")
    if len(labels) == 2 and model.family in (None, "bernoulli"):
        return "bernoulli"
    if model.family != "ordinal":
        raise DataError(
            f"states[{name!r}]: holds the labels {', '.join(map(repr, labels))}. If these run from the "
            "lowest to the highest, say family='ordinal'; else keep an indicator of each but one, with "
            "models of their own."
        )
    return "ordinal"


def state_data(data: TrialData, k: int, name: str) -> TrialData:
    """The data of the model of a state, held against its trial; units without the state are left out, and
    counted in its flow.

    Parameters
    ----------
    data
        Checked data of the whole trial.
    k
        Stage that the state follows, from 0.
    name
        The state.

    Returns
    -------
    TrialData

    Raises
    ------
    DataError
        If the state's values do not fit its family, or its formula does not fit the data.
    """
    coded, column = state_coding(data, k, name), data.frame[name]
    if coded.labels is not None:
        codes = pd.Categorical(column, categories=list(coded.labels)).codes.astype(float)
        column = pd.Series(np.where(codes < 0, np.nan, codes), index=column.index)
    if coded.outside is not None:
        gone = has_decision(data.stages[k + 1].stage, data.frame) == 0
        column = column.mask(gone)
    frame = with_columns(data.frame, {name: column})
    try:
        return check_again(state_trial(data, k, name), frame, "exclude", "exclude")
    except DataError as error:
        said = f"{error}"
        raise DataError(
            said if said.startswith("states[") else f"states[{name!r}]: {said}"
        ) from None
