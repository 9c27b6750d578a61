"""A fitted trial: its draws, and what belongs to them."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import xarray as xr

from bdtr.backward.fitrecord import FitRecord
from bdtr.backward.passes import stage_model
from bdtr.backward.summary import Summary, html, summary, text, tidy_draws
from bdtr.stages.outcome import OutcomeModel
from bdtr.stages.settings import FitError
from bdtr.stages.stagemodel import OwnModel
from bdtr.stages.states import ComputedModel

__all__ = ["Fit"]


@dataclass(repr=False)
class Fit(FitRecord):
    """A fitted trial.

    Made by :func:`bdtr.fit` or :func:`bdtr.load`. ``tree`` is an :class:`xarray.DataTree` with a group for
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
    states
        Fits of the models of states, by column: each has one stage, whose outcome is the state.
    data
        The checked data, or None where they were not saved.
    """

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
        >>> stage = fit.add_groups("log_likelihood")
        >>> list(stage["log_likelihood"].data_vars)
        ['y']
        """
        from bdtr.stages.arviz_groups import GROUPS, groups

        data, last = self.require_data("predictive groups"), self.stages - 1
        model = self.model(last)
        if not isinstance(model, OutcomeModel):
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
        from bdtr.backward.saving import save

        save(self, path, data)

    def __repr__(self) -> str:
        return text(self)

    def _repr_html_(self) -> str:
        return html(self)

    def model(self, k: int) -> OutcomeModel | OwnModel | ComputedModel:
        """The outcome model of stage k (0 = first) with the rows of its fit, or which states it is computed
        from."""
        return stage_model(self, k)
