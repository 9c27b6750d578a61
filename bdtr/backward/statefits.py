"""Models of states, drawn before anything else: each is a fit of one stage, whose outcome is the state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from bdtr.backward.factors import indistinct_factors
from bdtr.backward.fitted import Fit
from bdtr.backward.laststage import last_stage
from bdtr.backward.overdispersion import overdispersion
from bdtr.backward.priortable import prior_table_of
from bdtr.backward.residuals import misfit, residual_structure
from bdtr.data.contents import DataError
from bdtr.data.modelmatrix import DesignError
from bdtr.data.stagecolumns import stage_design
from bdtr.data.statedata import Coded, state_coding, state_data
from bdtr.data.trialdata import StageData, TrialData
from bdtr.results.diagnostics import State, convergence, doubt, gate_parameters, rhat_limit, worst
from bdtr.stages.settings import Settings
from bdtr.trial.condition import Condition
from bdtr.trial.priors import PriorError
from bdtr.trial.states import states_of

__all__ = ["fit_states"]

_CHECKS = (indistinct_factors, misfit, overdispersion, residual_structure)


def fit_states(
    data: TrialData, settings: Settings, progress: bool
) -> tuple[dict[str, Fit], dict[str, Coded], tuple[str, ...]]:
    """Fits of the models of all states, how the states stand in the data, and who was left out.

    Each has as many draws as are propagated: one for each draw of the later stages, of which it is
    independent given the data. They are made by the direct sampler.
    """
    fits, coded, notes = dict[str, Fit](), dict[str, Coded](), list[str]()
    every = [(k, name) for k in range(len(data.stages)) for name in states_of(data.trial, k)]
    checked = {name: state_data(data, k, name) for k, name in every}
    for i, (k, name) in enumerate(every):
        own, stage = checked[name], checked[name].stages[0]
        coded[name] = state_coding(data, k, name)
        gone = _gone(data, k, coded[name], stage)
        with _about(name, stage.stage.action):
            one = last_stage(own, (stage_design(own, 0),), _settings(settings, i), progress, None)
        one.prior_table = prior_table_of(one)
        one.state = _state(one, name)
        fits[name] = one
        if gone:
            notes.append(
                f"state {name}: its model is fitted to {int(stage.fitted.sum()):,} units; {gone:,} are left "
                f"out, for whom {name} or what it goes by is missing."
            )
        notes += [
            note.replace(f"stage {stage.stage.action}", f"state {name}") for note in one.notes
        ]
    return fits, coded, tuple(notes)


def _gone(data: TrialData, k: int, coded: Coded, stage: StageData) -> int:
    """Units that took an action and are not in the fit of the model of a state, though they could be."""
    before = data.stages[k]
    due = before.took & ~stage.fitted
    if before.stage.eligible:
        due &= Condition(before.stage.eligible).evaluate(data.frame) == 1
    if coded.outside is not None:  # who have no decision next have no such state
        due &= ~data.stages[k + 1].outside
    return int(due.sum())


@contextmanager
def _about(name: str, action: str) -> Iterator[None]:
    """Errors of a model that is that of a state say so."""
    try:
        yield
    except (DesignError, PriorError, DataError) as error:
        said = f"{error}".replace(f"Stage({action!r}): ", "")
        raise type(error)(f"states[{name!r}]: {said}") from None


def _settings(settings: Settings, number: int) -> Settings:
    """Those of the fit of a state: a seed of its own, and one draw for each that is propagated."""
    source = settings.stream("states")
    child = np.random.SeedSequence(source.entropy, spawn_key=(*source.spawn_key, number))
    return replace(
        settings,
        random_seed=int(child.generate_state(1, np.uint64)[0]),
        draws=settings.propagated // settings.chains,
        sampler="direct",
        missing="exclude",
        off_protocol="exclude",
    )


def _state(fit: Fit, name: str) -> State:
    """Whether the draws and the model of a state can be relied on."""
    posterior = fit.tree["stage_1/posterior"].to_dataset()
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    states = [
        gate_parameters(
            f"state {name}", convergence(posterior), rhat_limit(chains, draws), chains * draws, 0,
            "raise propagated=",
        )
    ]  # fmt: skip
    if not fit.settings.quick:
        said = [reason for check in _CHECKS for reason in check(fit)]
        action = fit.designs[0].action
        states.append(doubt(*(r.replace(f"stage {action}:", f"state {name}:") for r in said)))
    return worst(states)
