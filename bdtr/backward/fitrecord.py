"""What a fit is made of: the trial, its draws, the checked data."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.carried_effects import Carried
from bdtr.backward.computed import ComputedDraws, ComputedQ
from bdtr.backward.induction import Policy
from bdtr.backward.statetree import ComputedColumns
from bdtr.data.stagecolumns import StageDesign
from bdtr.data.statedata import Coded
from bdtr.data.trialdata import TrialData
from bdtr.results.arguments import one_of, text, whole
from bdtr.results.diagnostics import State
from bdtr.results.errors import ArgumentError
from bdtr.stages.outcome import OutcomeModel
from bdtr.stages.pooled import PooledQ, pooled_dataset
from bdtr.stages.prediction import QFunction, StageDraws, UnitColumns, stage_draws
from bdtr.stages.settings import FitError, Settings
from bdtr.stages.stagemodel import OwnColumns, OwnDraws, OwnModel, OwnQ, own_draws
from bdtr.stages.states import StateQ, state_shape
from bdtr.trial.payoff import Payoff
from bdtr.trial.states import states_of
from bdtr.trial.trial import Trial

__all__ = ["FitRecord"]

# What has rows of one data set; all else takes each completed data set with its draws.
_OF_ONE_DATA_SET = ("predictive groups", "fits to part of the rows", "learning a rule")


type Draws = StageDraws | OwnDraws | ComputedDraws


@dataclass
class FitRecord:
    """Trial, settings, draws and data of a fit; see :class:`bdtr.Fit`, which is one.

    ``followed`` is what later stages do in the pass that comes with the fit, by which stages are scaled and
    the gate judges: the recommended regime, but in folds of cross-fitting. ``parts`` are the fits to
    completed data sets where values were imputed, each with its share of the draws; ``data`` then has the
    values as they were recorded. ``states`` are the fits of the models of states, and ``coded_states`` how
    these stand in the data.
    """

    trial: Trial
    settings: Settings
    designs: tuple[StageDesign, ...]
    tree: xr.DataTree
    flow: pd.DataFrame
    notes: tuple[str, ...]
    state: State
    data_hash: str
    versions: Mapping[str, str]
    prior_table: pd.DataFrame
    data: TrialData | None = None
    followed: Policy = field(default_factory=Policy)
    parts: tuple[Self, ...] = field(default=(), repr=False)
    states: Mapping[str, Self] = field(default_factory=dict, repr=False)
    coded_states: Mapping[str, Coded] = field(default_factory=dict, repr=False)
    models: dict[int, OutcomeModel | OwnModel] = field(default_factory=dict, repr=False)
    mean_responses: dict[int, np.ndarray] = field(default_factory=dict, repr=False)
    q_draws: dict[tuple[str, int], Draws] = field(default_factory=dict, repr=False)
    state_models: dict[tuple[str, str], StateQ] = field(default_factory=dict, repr=False)
    carried: dict[tuple[int, bytes | None], Carried] = field(default_factory=dict, repr=False)
    unit_columns: dict[Hashable, tuple[UnitColumns | OwnColumns | ComputedColumns, np.ndarray]] = (
        field(default_factory=dict, repr=False)
    )

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.trial.stages)

    def stage_index(self, stage: str) -> int:
        """Number of the stage with this action column, from 0."""
        names = [d.action for d in self.designs]
        one_of("stage", stage, names)
        return names.index(stage)

    @property
    def added(self) -> tuple[str, ...]:
        """Terms that were added to the formulas of later stages."""
        return tuple(note for design in self.designs for note in design.added)

    @property
    def priors(self) -> pd.DataFrame:
        """Priors of all stages, in units of the user's: stage, parameter, prior, whether default or yours.

        Default priors of coefficients are for columns as they are measured (:mod:`bdtr.data.margins`): ``x``
        at the mean of ``a`` where there is ``x:a``. ``as_written`` is what all of them together say of the
        coefficient in the formula.
        """
        return self.prior_table.copy()

    def posterior(self, k: int, path: str = "recommended") -> xr.Dataset:
        """Propagated draws of stage k (0 = first) under a policy: dims ``chain, draw``.

        ``path`` is ``"recommended"`` or the place of a further pass, ``<set>/<policy>``.
        """
        whole("k", k, 0, self.stages - 1)
        text("path", path)
        if names := states_of(self.trial, k):
            raise FitError(
                f"stage {self.designs[k].action} has no coefficients: it is computed from the models of "
                f"{', '.join(names)} (states=...). Their draws are those of fit.states[{names[0]!r}]."
            )
        if self.parts:
            return pooled_dataset([p.posterior(k, path) for p in self.parts])
        name = f"stage_{k + 1}"
        if k == self.stages - 1:
            return self._thinned(self.tree[f"{name}/posterior"].to_dataset())
        if path == "recommended":
            return self.tree[f"{name}/posterior"].to_dataset()
        try:
            return self.tree[f"passes/{path}/{name}"].to_dataset()
        except KeyError:
            raise ArgumentError(f"path={path!r}: there is no such pass in the fit.") from None

    def new_site(self, k: int, path: str = "recommended") -> xr.Dataset:
        """Effects of one new site at stage k, paired with :meth:`posterior`: dims ``chain, draw``."""
        if self.parts:
            return pooled_dataset([p.new_site(k, path) for p in self.parts])
        place = f"stage_{k + 1}/new_site"
        if k < self.stages - 1:
            recommended = path == "recommended"
            return self.tree[place if recommended else f"passes/{path}/{place}"].to_dataset()
        return self._thinned(self.tree[place].to_dataset())

    def _thinned(self, full: xr.Dataset) -> xr.Dataset:
        """The draws of the last stage that are propagated."""
        step = self.settings.chains * self.settings.draws // self.settings.propagated
        return full.isel(draw=slice(step - 1, None, step)) if full.sizes else full

    def stage_draws(
        self, k: int, posterior: xr.Dataset, new_site: xr.Dataset
    ) -> StageDraws | OwnDraws:
        """Draws of stage k as its Q-function takes them."""
        if self.trial.stages[k].model is not None:
            return own_draws(posterior)
        return stage_draws(posterior, self.designs[k], self.payoff(k), new_site)

    def q_of(self, k: int, draws: Draws, sites: str = "observed") -> QFunction | OwnQ | ComputedQ:
        """The Q-function of stage k with these draws."""
        if isinstance(draws, ComputedDraws):
            later = self.q_of(k + 1, draws.later, sites)
            average = draws.policy.kind == "untailored"
            rule = self.q_of(k + 1, draws.later, "average") if average else later
            states = tuple(self._state(name, sites) for name in states_of(self.trial, k))
            return ComputedQ(self.trial, k, self.designs[k], states, draws, later, rule)
        if isinstance(draws, StageDraws):
            part = self.settings.part
            seed = self.settings.random_seed + (0 if part is None else part + 1)
            return QFunction(self.designs[k], self.payoff(k), draws, sites, seed)
        return OwnQ(self.trial.stages[k].model, self.designs[k], draws, sites)

    def _state(self, name: str, sites: str) -> StateQ:
        """The model of a state with its draws."""
        if (name, sites) not in self.state_models:
            one, coded = self.states[name], self.coded_states[name]
            posterior, payoff = one.posterior(0), one.trial.payoff
            draws = one.q_function(0).draws
            assert isinstance(draws, StageDraws)
            seed = one.settings.random_seed % (1 << 62)
            self.state_models[name, sites] = StateQ(
                name, one.designs[0], payoff, draws, state_shape(posterior), one.trial.companion,
                coded.labels, coded.outside, sites, seed,
            )  # fmt: skip
        return self.state_models[name, sites]

    def q_function(
        self,
        k: int,
        path: str = "recommended",
        sites: str = "observed",
        policy: Policy | None = None,
    ) -> QFunction | OwnQ | ComputedQ | PooledQ:
        """The Q-function of stage k, later stages following a policy that has been passed.

        Computed stages need to be told which policy, where it is not the one that comes with the fit.
        """
        if self.parts:
            found = [p.q_function(k, path, sites) for p in self.parts]
            each = tuple(q for q in found if isinstance(q, QFunction))
            return PooledQ(each, self.settings.chains)
        key = (path if k < self.stages - 1 else "", k)
        if key not in self.q_draws and states_of(self.trial, k):
            later = self.q_function(k + 1, path, sites, policy).draws
            assert not isinstance(later, tuple)
            followed = self.followed if path == "recommended" else policy
            assert followed is not None
            self.q_draws[key] = ComputedDraws(later, followed, self.settings.propagated)
        if key not in self.q_draws:
            found = self.posterior(k, path), self.new_site(k, path)
            self.q_draws[key] = self.stage_draws(k, *found)
        return self.q_of(k, self.q_draws[key], sites)

    def family(self, k: int) -> str:
        """Outcome family of stage k: at earlier stages that of the values of the next one."""
        return self.payoff(k).family.name

    def payoff(self, k: int) -> Payoff:
        """How the payoff of stage k comes from its model."""
        last = k == self.stages - 1
        return self.trial.payoff if last else self.trial.payoff.propagated()

    def completed(self, purpose: str) -> list[TrialData]:
        """The completed data sets where values were imputed, else the data, as by :meth:`require_data`."""
        return [one.require_data(purpose) for one in self.parts or (self,)]

    def require_data(self, purpose: str) -> TrialData:
        """The checked data, or an error that says what they are needed for."""
        if self.data is None:
            raise FitError(
                f"{purpose} needs the data, which this file leaves out. Save with data=True, or fit "
                "again."
            )
        if self.parts and purpose in _OF_ONE_DATA_SET:
            raise FitError(
                f"{purpose}: rows differ between completed data sets. Ask the fit to one of them, such as "
                "fit.parts[0], which takes imputed values for known."
            )
        return self.data

    def keep_model(self, k: int, model: OutcomeModel | OwnModel, mean: np.ndarray) -> None:
        """Keep the model of a stage, and its mean response, once they are known."""
        self.models[k] = model
        self.mean_responses[k] = mean
