"""A fitted trial: its draws, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.carried_effects import Carried
from bdtr.backward.induction import BackwardPass, Policy
from bdtr.backward.passes import (
    columns_of,
    decisions,
    mean_payoff,
    named_policy,
    pass_key,
    run_passes,
)
from bdtr.backward.regimes import Regime
from bdtr.data.check import TrialData
from bdtr.data.columns import StageDesign
from bdtr.results.arguments import one_of, text, truth, whole
from bdtr.results.diagnostics import State
from bdtr.results.errors import ArgumentError
from bdtr.results.settings import FitError, Settings
from bdtr.stages.outcome import OutcomeModel, outcome_model, stage_rows
from bdtr.stages.prediction import PLACES, QFunction, StageDraws, UnitColumns, stage_draws
from bdtr.stages.stagemodel import OwnColumns, OwnDraws, OwnModel, OwnQ, own_draws, own_model
from bdtr.trial.families import FAMILIES
from bdtr.trial.trial import Trial

if TYPE_CHECKING:
    from bdtr.backward.summary import Summary
    from bdtr.decisions.recommendation import Recommendation

__all__ = ["Fit"]


@dataclass
class Fit:
    """A fitted trial.

    Made by :func:`fit` or :func:`bdtr.load`. ``tree`` is an :class:`xarray.DataTree` with a group for
    each stage, on which every ArviZ function works: ``az.summary(fit.tree["stage_2"])``.

    Attributes
    ----------
    trial, settings
        What was fitted and how.
    designs
        The columns of each stage's model.
    tree
        Posterior draws: ``stage_k/posterior``; ``stage_k/engine`` says how propagated draws were made;
        ``passes/<set>/<policy>/stage_k`` are further passes, those of one set drawn together.
    flow
        Units in and out of the fit of each stage.
    notes
        What was dropped or left out, and why.
    added
        What earlier stages made bdtr add to the formulas of later ones, and why.
    state
        Whether results can be relied on.
    data
        The checked data, or None where they were not saved.
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
    _models: dict[int, OutcomeModel | OwnModel] = field(default_factory=dict, repr=False)
    _mean_responses: dict[int, np.ndarray] = field(default_factory=dict, repr=False)
    _stage_draws: dict[tuple[str, int], StageDraws | OwnDraws] = field(
        default_factory=dict, repr=False
    )
    carried: dict[tuple[int, bytes | None], Carried] = field(default_factory=dict, repr=False)
    unit_columns: dict[int, tuple[UnitColumns | OwnColumns, np.ndarray]] = field(
        default_factory=dict, repr=False
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

        Default priors of coefficients are for columns as they are measured (:mod:`bdtr.data.margins`): ``x`` at
        the mean of ``a`` where there is ``x:a``. ``as_written`` is what all of them together say of the
        coefficient in the formula.
        """
        return self.prior_table.copy()

    def posterior(self, k: int, path: str = "recommended") -> xr.Dataset:
        """Propagated draws of stage k (0 = first) under a policy: dims ``chain, draw``.

        ``path`` is ``"recommended"`` or the place of a further pass, ``<set>/<policy>``.
        """
        whole("k", k, 0, self.stages - 1)
        text("path", path)
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
        return stage_draws(posterior, self.designs[k], new_site)

    def q_of(
        self, k: int, draws: StageDraws | OwnDraws, sites: str = "observed"
    ) -> QFunction | OwnQ:
        """The Q-function of stage k with these draws."""
        if isinstance(draws, StageDraws):
            seed = self.settings.random_seed
            return QFunction(self.designs[k], self.family(k), draws, sites, seed)
        return OwnQ(self.trial.stages[k].model, self.designs[k], draws, sites)

    def q_function(
        self, k: int, path: str = "recommended", sites: str = "observed"
    ) -> QFunction | OwnQ:
        """The Q-function of stage k, later stages following a policy that has been passed."""
        key = (path if k < self.stages - 1 else "", k)
        if key not in self._stage_draws:
            found = self.posterior(k, path), self.new_site(k, path)
            self._stage_draws[key] = self.stage_draws(k, *found)
        return self.q_of(k, self._stage_draws[key], sites)

    def family(self, k: int) -> str:
        """Outcome family of stage k: earlier stages have a continuous response."""
        return self.trial.family if k == self.stages - 1 else "gaussian"

    def passed(self, chosen: Regime | str | None = None, progress: bool = False) -> BackwardPass:
        """The backward pass under a policy, run now if it has not been.

        Parameters
        ----------
        chosen
            A regime, ``"recommended"`` (default) or ``"optimal"``.
        progress
            Whether to show progress.

        Returns
        -------
        BackwardPass

        Raises
        ------
        FitError
            If the pass has to be run and the fit was saved without data.
        """
        return self.passes([chosen], progress)[0]

    def passes(
        self,
        chosen: Sequence[Regime | Policy | str | None],
        progress: bool = False,
        sites: str = "observed",
    ) -> list[BackwardPass]:
        """Backward passes under several policies, drawn together, run now if they have not been.

        Policies that are drawn together are a joint posterior: contrasts between them have the right
        spread. Their draws under one policy are from the same posterior whatever else is drawn.

        Parameters
        ----------
        chosen
            Regimes, ``"recommended"``, ``"untailored"`` (recommended on average over sites) or ``"optimal"``.
        progress
            Whether to show progress.
        sites
            Where their Q-values are taken, as in :class:`bdtr.stages.prediction.QFunction`.

        Returns
        -------
        list of BackwardPass

        Raises
        ------
        FitError
            If passes have to be run and the fit was saved without data.
        """
        truth("progress", progress)
        one_of("sites", sites, PLACES)
        if not isinstance(chosen, (list, tuple)):
            raise ArgumentError(f"chosen={chosen!r}: must be a list of regimes or policies.")
        data = self.require_data("a backward pass")
        rules = [named_policy(one, data) for one in chosen]
        further = {r.name: r for r in rules if r.name != "recommended"}
        where = "" if self.stages == 1 or not further else self._set_with(list(further))
        if where is None:
            where = f"set_{len(self._sets()) + 1}"
            run_passes(self, list(further.values()), where, progress)

        def one(rule: Policy) -> BackwardPass:
            path = rule.name if rule.name == "recommended" else f"{where}/{pass_key(rule.name)}"

            def q_at(sites: str):
                return lambda k, units: self.q_function(k, path, sites).evaluate(
                    columns_of(self, k, units)
                )

            return BackwardPass(
                decisions(data), rule, q_at(sites), q_at("average"), self.settings.propagated
            )

        return [one(rule) for rule in rules]

    def _sets(self) -> dict[str, list[str]]:
        """Sets of further passes that were drawn together, with the names in each."""
        if "passes" not in self.tree:
            return {}
        return {
            str(name): [str(n) for n in one.children]
            for name, one in self.tree["passes"].children.items()
        }

    def _set_with(self, names: Sequence[str]) -> str | None:
        """A set that holds all these passes."""
        wanted = {pass_key(name) for name in names}
        return next((s for s, held in self._sets().items() if wanted <= set(held)), None)

    def recommend(
        self,
        data: pd.DataFrame,
        sites: str | None = None,
        interval: float = 0.95,
        override: str | None = None,
        margin: float | None = None,
        sure: float = 0.95,
        clear: float = 0.8,
        progress: bool = False,
    ) -> Recommendation:
        """Recommended action, P(optimal), Q-values and expected regret, per unit and stage.

        Parameters
        ----------
        data
            Units with their history; stages whose history is not complete are left out, counted.
        sites
            ``"observed"``: every site is one of the fit. ``"new"``: all sites are new, their effects
            drawn from the population of sites. ``"typical"``: site effects at their mean. Required
            where the data hold sites that the fit has not seen.
        interval
            Probability of the equal-tailed intervals of Q-values.
        override
            A reason in words to recommend although the state is ``refused``; it is kept and shown.
        margin
            Loss of value that does not matter, in units of the outcome: all actions are named that
            lose at most so much with probability ``sure``.
        sure
            That probability.
        clear
            P(optimal) below which there is no clear choice.
        progress
            Whether to show progress.

        Returns
        -------
        Recommendation
            ``actions`` (one row per unit and stage) and ``table`` (one per action as well).

        Raises
        ------
        FitError
            If the state is ``refused`` and no reason is given.
        """
        from bdtr.decisions.recommendation import recommend

        return recommend(self, data, sites, interval, override, margin, sure, clear, progress)

    def summary(self, interval: float = 0.95) -> Summary:
        """Coefficients, SDs and correlations of every stage, with R-hat and ESS.

        Parameters
        ----------
        interval
            Probability of the equal-tailed intervals.

        Returns
        -------
        Summary
            Shows the state first; ``table`` is a data frame indexed by stage and parameter.
        """
        from bdtr.backward.summary import summary

        return summary(self, interval)

    def draws(self, stage: str | None = None) -> pd.DataFrame:
        """Draws of coefficients, SDs and correlations as a tidy frame, for one stage or all.

        Parameters
        ----------
        stage
            Action column of a stage.

        Returns
        -------
        pandas.DataFrame
            Columns ``stage, chain, draw, parameter, value``.
        """
        from bdtr.backward.summary import tidy_draws

        return tidy_draws(self, stage)

    def add_groups(self, *names: str) -> xr.DataTree:
        """Add groups that ArviZ works with to the last stage: priors, predictive draws, likelihood.

        Parameters
        ----------
        *names
            ``"prior"``, ``"prior_predictive"``, ``"posterior_predictive"``, ``"log_prior"``,
            ``"log_likelihood"`` (of a unit given its group effects), ``"observed_data"``; none: all.

        Returns
        -------
        xarray.DataTree
            The last stage, with dims ``chain, draw, unit`` in pointwise groups.

        Examples
        --------
        >>> stage = fit.add_groups("log_likelihood")  # doctest: +SKIP
        >>> az.loo(stage)  # doctest: +SKIP
        """
        from bdtr.stages.groups import GROUPS, groups

        data, last = self.require_data("predictive groups"), self.stages - 1
        model = self.model(last)
        if isinstance(model, OwnModel):
            raise FitError(
                f"add_groups: stage {self.designs[last].action} has a model of your own. Build it with "
                "fit.model(k).build() and use PyMC's own functions."
            )
        node = self.tree.children[f"stage_{last + 1}"]
        found = groups(
            model,
            data.payoff,
            [str(u) for u in data.units[data.stages[last].fitted]],
            node["posterior"].to_dataset(),
            names or GROUPS,
            self.settings.stream(self.stages),
        )
        for name, dataset in found.items():
            node[name] = xr.DataTree(dataset)
        return node

    def save(self, path: str, data: bool = True) -> None:
        """Write the fit to one file (netCDF), readable by :func:`bdtr.load` and by xarray.

        Parameters
        ----------
        path
            File to write.
        data
            Whether to keep the coded data that further backward passes need.
        """
        from bdtr.backward.storage import save

        save(self, path, data)

    def __repr__(self) -> str:
        from bdtr.backward.summary import text

        return text(self)

    def _repr_html_(self) -> str:
        from bdtr.backward.summary import html

        return html(self)

    def require_data(self, purpose: str) -> TrialData:
        """The checked data, or an error that says what they are needed for."""
        if self.data is None:
            raise FitError(
                f"{purpose} needs the data, which this file leaves out. Save with data=True, or fit "
                "again."
            )
        return self.data

    def mean_response(self, k: int) -> np.ndarray:
        """Response of the rows of stage k: the observed payoff, or the mean over draws of the stage value."""
        if k not in self._mean_responses:
            data = self.require_data("a model's rows")
            if k == self.stages - 1:
                return data.payoff
            rows = np.flatnonzero(data.stages[k].fitted)
            self._mean_responses[k] = mean_payoff(self.passed().responses(k, rows))
        return self._mean_responses[k]

    def keep_model(self, k: int, model: OutcomeModel | OwnModel, mean: np.ndarray) -> None:
        """Keep the model of a stage, and its mean response, once they are known."""
        self._models[k] = model
        self._mean_responses[k] = mean

    def model(self, k: int) -> OutcomeModel | OwnModel:
        """The outcome model of stage k with the rows of its fit."""
        if k not in self._models and self.trial.stages[k].model is not None:
            data = self.require_data("a model's rows")
            self._models[k] = own_model(data, self.designs[k], self.mean_response(k))
        if k not in self._models:
            data, location = self.require_data("a model's rows"), None
            rows = stage_rows(data, self.designs[k])
            if k < self.stages - 1:
                attrs = self.tree[f"stage_{k + 1}/engine"].to_dataset().attrs
                centre, spread, location = attrs["centre"], attrs["spread"], attrs["location"]
            else:
                centre, spread = FAMILIES[self.family(k)].response_scale(data.payoff)
            width = self.settings.prior_width
            self._models[k] = outcome_model(
                data, self.designs[k], self.family(k), rows, centre, spread, location, width
            )
        return self._models[k]
