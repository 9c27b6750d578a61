"""Fitting a trial: the last stage to the observed payoff, earlier ones by backward passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import xarray as xr

from bdtr.backward.fitted import Fit
from bdtr.backward.gate import gate
from bdtr.backward.induction import Policy
from bdtr.backward.laststage import last_stage
from bdtr.backward.passes import run_passes
from bdtr.backward.pooled import pooled_tree
from bdtr.backward.priortable import prior_table_of
from bdtr.backward.statefits import fit_states
from bdtr.data.check import check
from bdtr.data.completed import Completed, completed, with_rewards
from bdtr.data.contents import DataError
from bdtr.data.imputation.impute import Imputed, impute
from bdtr.data.imputation.options import Options, options
from bdtr.data.stagecolumns import design_in, stage_design
from bdtr.data.trialdata import TrialData
from bdtr.results.arguments import truth
from bdtr.results.progress import progress_bar
from bdtr.stages.settings import Settings, make_settings
from bdtr.trial.trial import Trial

__all__ = ["fit", "fit_checked", "fit_completed", "fit_imputed", "imputed"]

_NOT_IMPUTED = (
    "missing: values are not imputed where states have models (states=...). Pass missing='exclude', or leave "
    "out states=."
)


def fit(
    trial: Trial,
    data: pd.DataFrame,
    *,
    missing: str | Sequence[pd.DataFrame] = "error",
    imputations: int = 20,
    imputation: Mapping[str, str] | None = None,
    auxiliary: Sequence[str] = (),
    delta: Mapping[str, Any] | None = None,
    off_protocol: str = "error",
    sampler: str = "pymc",
    chains: int = 4,
    draws: int = 1000,
    tune: int | None = None,
    propagated: int | None = None,
    random_seed: int | None = None,
    progress: bool = True,
) -> Fit:
    """Fit every stage of a trial and send every posterior draw through backward induction.

    The last stage is fitted to the observed payoff. Its draws are propagated: for stage k = K-1, ..., 1
    and each draw, the stage value under the recommended later rule is a new response, and one draw from
    the posterior given it is taken.

    Parameters
    ----------
    trial
        The trial.
    data
        One row per unit: a data frame of pandas, or one of Polars or Arrow.
    missing
        ``"error"``; ``"exclude"``: leave units with missing values out of the fit of that stage, counted in
        ``fit.flow``; ``"impute"``: draw missing values of the history given what came before and what was
        observed later, so that they are missing at random given these
        (:mod:`bdtr.data.imputation.chain`); or a list of data frames in which they are filled in, from
        elsewhere. Payoffs that are missing are predicted by the stage model; those who left take part in
        earlier stages through what they could expect.
    imputations
        Completed data sets that are drawn, each of which has its share of the draws: ``draws`` are raised to
        a multiple of it.
    imputation
        Formulas of variables with missing values: what goes with them among all that is known before. Left
        out: all variables and actions before them, products of these in the formula of the stage before,
        and the site.
    auxiliary
        Columns after the last decision that tell of a missing outcome, in the order of time; they enter no
        rule. With ``missing="impute"`` outcomes of those who took the last decision, or had none, are then
        drawn as well.
    delta
        Values that are missing not at random: what is added to the imputed values of a variable, in its
        units, with ``missing="impute"``. A number; numbers by the label of the last action taken before,
        ``{"y": {"app": -0.2}}``; or these by stage, ``{"y": {"a1": {"app": -0.2}}}``. A shift of the outcome
        also moves what is expected for those who left.
    off_protocol
        ``"error"``, or ``"exclude"``: leave units with an action that was not feasible out of the fit of that
        stage, counted.
    sampler
        How the last stage is fitted. ``"pymc"``: PyMC and nutpie, on the density with coefficients and group
        effects integrated out: exactly for Gaussian outcomes; by Laplace's approximation for others, and
        draws are then corrected by exact weights. ``"direct"``: importance proposals on the same
        density, without PyMC: seconds, useful in simulations. ``"plain"``: PyMC and nutpie with every
        parameter sampled. Completed data sets are fitted by the direct sampler.
    chains, draws
        Chains of the last stage, and draws kept of each.
    tune
        Warm-up draws of each chain; left out: 400 where coefficients and group effects are integrated
        out, 1,000 elsewhere.
    propagated
        Draws sent through the backward pass, a divisor of ``chains * draws`` and a multiple of ``chains``.
        Left out: 1,000, or what divides and is near it.
    random_seed
        An integer for reproducible results, on any number of threads.
    progress
        Whether to show progress.

    Returns
    -------
    Fit

    Raises
    ------
    bdtr.DataError
        If the data do not fit the trial, before any sampling.

    Examples
    --------
    >>> stage = bdtr.Stage("a1", actions=["app", "coach"], formula="steps0 * a1")
    >>> trial = bdtr.Trial([stage], outcome="steps1")
    >>> found = bdtr.fit(trial, bdtr.datasets.activity(), sampler="direct", random_seed=1, progress=False)
    >>> found.state.level
    'ok'
    """
    truth("progress", progress)
    if isinstance(trial, Trial) and trial.states and missing not in ("error", "exclude"):
        raise DataError(_NOT_IMPUTED)
    how = missing if isinstance(missing, str) else "completed"
    frames = [] if isinstance(missing, str) else _frames(missing)
    asked = options(imputations, imputation, auxiliary, delta, how)
    count = asked.sets if how == "impute" else len(frames)
    settings = make_settings(
        trial, how, off_protocol, sampler, chains, draws, tune, propagated, random_seed, count
    )
    if how == "impute":
        found = imputed(trial, data, settings, asked, progress)
        if found.values is not None:
            return fit_imputed(found, data, settings, 1.0, progress)
        # Nothing is missing: the fit that there is without.
        return fit(
            trial, data, missing="exclude", off_protocol=off_protocol, sampler=sampler, chains=chains,
            draws=draws, tune=tune, propagated=propagated, random_seed=random_seed, progress=progress,
        )  # fmt: skip
    if not frames:
        return fit_checked(check(trial, data, how, off_protocol), settings, progress)
    each = completed(trial, data, frames, off_protocol)
    return fit_completed(each, settings, xr.Dataset(), progress)


def fit_imputed(
    found: Imputed, data: pd.DataFrame, settings: Settings, size: float, progress: bool = False
) -> Fit:
    """Fit the completed data sets of drawn values, shifted by so many times their shifts."""
    each = completed(found.trial, data, found.shifted(size), settings.off_protocol)
    record = found.record
    if found.left is not None:
        more = size * found.left
        record["reward"] = (("stage", "unit"), more)  # no column has it
        parts = tuple(with_rewards(one, more) for one in each.parts)
        each = replace(each, parts=parts, whole=with_rewards(each.whole, more))
    fitted = fit_completed(each, settings, record, progress)
    fitted.notes = (*fitted.notes, *found.notes)
    return fitted


def imputed(
    trial: Trial, data: pd.DataFrame, settings: Settings, options: Options, progress: bool = False
) -> Imputed:
    """The missing values of the history, drawn."""
    with progress_bar(progress, "missing values") as report:
        seed = settings.stream("imputation")
        return impute(trial, data, options, seed, settings.off_protocol, report)


def _frames(given: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Completed data sets: two at least, or the spread of what is missing is not known."""
    if not isinstance(given, (list, tuple)) or len(given) < 2:
        raise DataError(
            f"missing={type(given).__name__}: must be 'error', 'exclude', 'impute', or a list of two "
            "completed data sets or more."
        )
    return list(given)


def _can_be_pooled(trial: Trial, sampler: str) -> None:
    own = [s.action for s in trial.stages if s.model is not None]
    if own:
        raise DataError(
            f"missing: values are not imputed where a stage has a model of your own, as {own[0]} has. Pass "
            "missing='exclude', or fit each completed data set by itself."
        )
    if trial.states:
        raise DataError(_NOT_IMPUTED)
    if sampler == "plain":
        raise DataError(
            "missing: completed data sets are fitted by the direct sampler; with sampler='plain' fit each of "
            "them by itself."
        )


def fit_checked(
    data: TrialData, settings: Settings, progress: bool = False, followed: Policy | None = None
) -> Fit:
    """Fit data that have been checked; earlier stages to what later ones are worth under a policy."""
    designs = tuple(stage_design(data, k) for k in range(len(data.stages)))
    states, coded, notes = fit_states(data, settings, progress)
    fitted = last_stage(data, designs, settings, progress, followed)
    fitted.states, fitted.coded_states = states, coded
    fitted.notes = (*fitted.notes, *notes)
    if fitted.stages > 1:
        run_passes(fitted, [], "", progress)
    fitted.prior_table = prior_table_of(fitted)
    fitted.state = gate(fitted)
    return fitted


def fit_completed(
    found: Completed, settings: Settings, record: xr.Dataset, progress: bool = False
) -> Fit:
    """Fit completed data sets, each with its share of the draws, to one posterior; ``record`` is what the
    chains of missing values did."""
    first = found.parts[0]
    _can_be_pooled(first.trial, settings.sampler)
    settings = replace(settings, sampler="direct")
    learned = [stage_design(first, k) for k in range(len(first.stages))]
    parts = []
    with progress_bar(progress, f"stage {learned[-1].action}") as report:
        for d, data in enumerate(found.parts):
            designs = tuple(one if d == 0 else design_in(one, data) for one in learned)
            parts.append(last_stage(data, designs, settings.of_part(d), False, None))
            if report:
                report(d + 1, len(found.parts))
    one = parts[0]
    fitted = replace(
        one, settings=settings, tree=xr.DataTree(), flow=found.whole.flow, data=found.whole,
        data_hash=found.whole.hash(), models={}, parts=tuple(parts),
    )  # fmt: skip
    if fitted.stages > 1:
        run_passes(fitted, [], "", progress)
    fitted.tree = pooled_tree(parts)
    if record.sizes:
        fitted.tree["imputation"] = xr.DataTree(record)
    fitted.prior_table = prior_table_of(one)
    fitted.state = gate(fitted)
    for part in parts:  # which are too few draws to be judged by themselves
        part.state, part.prior_table = fitted.state, fitted.prior_table
    return fitted
