"""The last stage of a fit, drawn from its posterior given the observed payoff."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.fitted import Fit
from bdtr.backward.induction import Policy
from bdtr.data.contents import DataError
from bdtr.data.stagecolumns import StageDesign
from bdtr.data.trialdata import TrialData
from bdtr.results.diagnostics import State
from bdtr.results.progress import progress_bar
from bdtr.stages.outcome import OutcomeModel, outcome_model, response_scale, stage_rows
from bdtr.stages.posterior import common_effects, new_site, new_site_seed
from bdtr.stages.prediction import stage_draws
from bdtr.stages.settings import Settings
from bdtr.stages.stagemodel import OwnModel, own_model
from bdtr.trial.trial import Trial

__all__ = ["last_stage"]

_PACKAGES = ("bdtr", "pymc", "nutpie", "arviz", "numpy", "pandas", "xarray", "formulaic", "numba")


def last_stage(
    data: TrialData,
    designs: tuple[StageDesign, ...],
    settings: Settings,
    progress: bool,
    followed: Policy | None,
) -> Fit:
    """A fit of which the last stage has been drawn."""
    trial = data.trial
    last = len(trial.stages) - 1
    payoff = data.payoff
    model: OutcomeModel | OwnModel
    if trial.stages[last].model is not None:
        model = own_model(data, designs[last], payoff)
    else:
        centre, spread = response_scale(data, trial.payoff)
        _varies(trial, payoff, spread)
        rows, width = stage_rows(data, designs[last]), settings.prior_width
        model = outcome_model(data, designs[last], trial.payoff, rows, centre, spread, width=width)
    sampled = _fit_last(model, payoff, settings, progress)
    tree = xr.DataTree.from_dict(
        {
            f"stage_{last + 1}/posterior": sampled.posterior,
            f"stage_{last + 1}/sample_stats": sampled.stats,
            f"stage_{last + 1}/new_site": _new_site(model, sampled.posterior, settings),
        }
    )
    notes = (*data.notes, *(note for d in designs for note in d.notes))
    return Fit(
        trial,
        settings,
        designs,
        tree,
        data.flow,
        notes,
        State(),
        data.hash(),
        {name: version(name) for name in _PACKAGES},
        pd.DataFrame(),
        data,
        followed or Policy(),
        models={last: model},
    )


def _varies(trial: Trial, payoff: np.ndarray, spread: float) -> None:
    """Raise if all payoffs are the same: nothing can be learned, and priors have no scale."""
    if len(payoff) > 1 and np.ptp(payoff) > 0 and np.isfinite(spread) and spread > 0:
        return
    what = trial.outcome or trial.stages[-1].reward
    raise DataError(
        f"Outcome {what!r} does not vary among the {len(payoff):,} units in the fit of the last stage (it is "
        f"{payoff[0]:g} for all): nothing can be learned from it. Check the column and the exclusions."
    )


def _fit_last(
    model: OutcomeModel | OwnModel, payoff: np.ndarray, settings: Settings, progress: bool
):
    from bdtr.stages.sampling import (
        compiled_laplace,
        compiled_marginal,
        compiled_plain,
        fit_direct,
    )

    seed, response = settings.stream(model.design.index), payoff
    if isinstance(model, OutcomeModel) and model.recorded is not None:
        response = model.recorded
    if isinstance(model, OwnModel):
        compiled = compiled_plain(model)
    elif settings.sampler == "direct":
        with progress_bar(progress, f"stage {model.design.action}") as report:
            count = settings.chains * settings.draws
            common = common_effects(model.design, settings, count)
            return fit_direct(model, response, seed, settings, report, common)
    elif settings.sampler == "pymc":
        compiled = compiled_marginal(model) if model.family.closed_form else compiled_laplace(model)
    else:
        compiled = compiled_plain(model)
    return compiled.fit(response, seed, settings, progress)


def _new_site(
    model: OutcomeModel | OwnModel, posterior: xr.Dataset, settings: Settings
) -> xr.Dataset:
    if isinstance(model, OwnModel):
        return xr.Dataset()
    count = posterior.sizes["chain"] * posterior.sizes["draw"]
    seed = new_site_seed(settings.stream(model.design.index))
    draws = stage_draws(posterior, model.design, model.payoff)
    roots = [draws.root[g.name] for g in model.design.groups]
    return new_site(model, roots, np.ones((count, 1)), seed, posterior.sizes["chain"])
