"""Completed data sets of a trial whose history has missing values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import xarray as xr
from threadpoolctl import threadpool_limits

from bdtr.data.check import as_recorded, check_again
from bdtr.data.coding import Coding, level_order, with_columns
from bdtr.data.contents import DataError
from bdtr.data.frames import as_frame
from bdtr.data.imputation.building import model_of, outcome_model
from bdtr.data.imputation.chain import Chains, run_chains
from bdtr.data.imputation.filling import begun, filled, started, with_meaning
from bdtr.data.imputation.options import Options
from bdtr.data.imputation.shifts import check_shifts, rewards_of_those_who_left, shift_of
from bdtr.data.imputation.values import Values
from bdtr.data.imputation.variables import (
    Variable,
    after_the_last_decision,
    outcome_variable,
    variables,
)
from bdtr.data.no_decision import has_decision
from bdtr.data.trialdata import TrialData
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
            with_meaning(
                self.trial, filled(self.recorded, self.wanted, self.values, moved, d), self.wanted
            )
            for d in range(self.values.sets)
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What was imputed by what, a line for each variable."""
        if self.chains is None or not _incomplete(self.variables):
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
        if not names:  # those who left alone have no outcome
            return xr.Dataset()
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
    starting = with_meaning(named, started(named, recorded, coded, found, rng), found)
    first = check_again(named, starting, "exclude", off_protocol, whole=True)
    _those_who_stayed(first)
    later: list[Variable] = []
    took = np.zeros(len(coded), dtype=bool)
    if of_outcome:
        last = first.stages[-1]  # those without a decision as well, if that is known of them
        took = last.took & (~last.outside | (has_decision(named.stages[-1], coded) == 0))
        found = [*found, outcome_variable(named, coded, took, took & lost)]
        later = after_the_last_decision(
            named, parsed, coded, ordered, auxiliary, took, asked.formulas
        )
    check_shifts(moved, found, named, bool(lost.any()))
    first, incomplete = begun(first, coded, [*found, *later], rng), _incomplete([*found, *later])
    texts = {v.name: v.levels for v in found if v.name in coding.labels}
    values = Values.of(first.frame, first.coding, [v.name for v in incomplete], texts, asked.sets)
    with threadpool_limits(1):  # the same bits on any number of threads
        history = [v for v in found if v.name != named.outcome]
        models = [model_of(one, first, values, coded) for one in history]
        models.append(outcome_model(first, values, took & lost))
        models += [model_of(one, first, values, coded) for one in later]
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


def _has_order(column: pd.Series) -> bool:
    return isinstance(column.dtype, pd.CategoricalDtype) and bool(column.cat.ordered)


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
