"""A PyMC model of your own in place of the one that a formula makes.

The formula of such a stage names the columns that the model sees, and its grouping factors; what becomes
of them is the model's business. bdtr asks two things of it: a PyMC model of the payoff, and the mean
payoff of an action given a draw of its parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.data.coding import with_columns
from bdtr.data.stagecolumns import StageDesign
from bdtr.data.trialdata import TrialData
from bdtr.results.errors import BdtrError

if TYPE_CHECKING:
    import pymc as pm

__all__ = [
    "ModelError",
    "OwnColumns",
    "OwnDraws",
    "OwnModel",
    "OwnQ",
    "StageModel",
    "own_columns",
    "own_draws",
    "own_model",
]


class ModelError(BdtrError, RuntimeError):
    """A stage model that does not keep to what :class:`StageModel` asks for."""


@runtime_checkable
class StageModel(Protocol):
    """What a stage model of your own has to offer; give it as ``Stage(..., model=...)``.

    ``history`` is a data frame with the columns that the stage's formula names: numbers; labels as
    pandas categoricals, the actions in your order among them; grouping factors as categoricals over
    all levels of the data, missing for levels that the fit has not seen and for sites that
    ``recommend(sites=...)`` says are new. The delivery cluster is there
    in :meth:`build` only: it is not known when the action is chosen.

    Examples
    --------
    >>> class Robust:
    ...     def build(self, history, payoff):
    ...         import pymc as pm
    ...         with pm.Model() as model:
    ...             b = pm.Normal("b", 0, 2.5, shape=2)
    ...             observed = pm.Data("payoff", payoff)
    ...             mean = b[0] + b[1] * history["a"].cat.codes.to_numpy()
    ...             pm.StudentT("y", nu=4, mu=mean, sigma=pm.HalfNormal("sigma", 2), observed=observed)
    ...         return model
    ...     def q(self, posterior, history):
    ...         b = posterior["b"].to_numpy()  # (2, sample)
    ...         return b[0] + b[1] * history["a"].cat.codes.to_numpy()[:, None]
    >>> isinstance(Robust(), StageModel)
    True
    """

    def build(self, history: pd.DataFrame, payoff: np.ndarray) -> pm.Model:
        """The model of the payoff, which it holds as ``pm.Data("payoff", payoff)``.

        At the last stage this is the observed payoff. Before that the model is built with the mean of
        the propagated payoffs, and these are put in its place one after another: the data change,
        whatever else was computed from ``payoff`` (scales of priors) does not.
        """
        ...

    def q(self, posterior: xr.Dataset, history: pd.DataFrame) -> np.ndarray:
        """Mean payoff (row, sample) of the action that stands in each row's action column.

        ``posterior`` holds the model's free and deterministic variables with the dim ``sample`` last.
        """
        ...


@dataclass(frozen=True)
class OwnModel:
    """A stage model of the user's with the history of the rows of its fit.

    ``payoff`` is the observed one at the last stage, before that the mean of all propagated ones: what
    :meth:`StageModel.build` is given, and may scale its priors by.
    """

    design: StageDesign
    builder: StageModel
    history: pd.DataFrame
    payoff: np.ndarray

    def build(self) -> Any:
        """The PyMC model, checked."""
        import pymc as pm
        from pytensor.graph.traversal import ancestors

        payoff = np.asarray(self.payoff, dtype=float)
        built = self.builder.build(self.history.copy(), payoff)
        where = f"Stage({self.design.action!r}): build() of {self.name}"
        if not isinstance(built, pm.Model):
            raise ModelError(f"{where} must return a pymc.Model, got {type(built).__name__}.")
        if not hasattr(built.named_vars.get("payoff"), "get_value"):
            raise ModelError(
                f'{where} must hold the payoff as pm.Data("payoff", payoff), so that the model can be '
                "fitted to propagated payoffs without being compiled anew."
            )
        held = np.asarray(built["payoff"].get_value())
        if held.shape != payoff.shape or not np.allclose(held, payoff, rtol=1e-6):
            raise ModelError(
                f"{where}: the data 'payoff' must be the payoff as given, shape {payoff.shape}; they "
                f"have shape {held.shape}. Scale inside the model, not before."
            )
        seen = [built.rvs_to_values[v] for v in built.observed_RVs] + list(built.potentials)
        if built["payoff"] not in set(ancestors(seen)):
            raise ModelError(
                f"{where}: nothing in the model depends on the data 'payoff'. Give them as observed=... "
                "to a distribution."
            )
        taken = {"sample", "chain", "draw"} & (set(built.coords) | set(built.named_vars))
        if taken:
            raise ModelError(
                f"{where} uses the name {sorted(taken)[0]!r}, which draws have already. Rename it."
            )
        return built

    @property
    def name(self) -> str:
        """Name of the user's class."""
        return type(self.builder).__name__


def own_model(data: TrialData, design: StageDesign, payoff: np.ndarray) -> OwnModel:
    """The model of a stage that has one of its own, with the rows of its fit and their payoff."""
    stage = data.stages[design.index]
    builder = stage.stage.model
    assert builder is not None
    frame = data.frame[stage.fitted].reset_index(drop=True)
    return OwnModel(design, builder, _history(design, frame, delivered=True), payoff)


def _history(design: StageDesign, frame: pd.DataFrame, delivered: bool) -> pd.DataFrame:
    """The columns that a stage model sees."""
    columns = {}
    levels = {g.factor[0]: (g.levels, g.role) for g in design.groups}
    if design.site is not None:
        levels[design.site] = (design.site_levels, "site")
    names = [*design.formula.columns, *([design.site] if design.site else [])]
    for name in dict.fromkeys(names):
        known, role = levels.get(name, (None, ""))
        if (role == "delivery" and not delivered) or (name == design.action and name not in frame):
            continue
        column = frame[name].reset_index(drop=True)
        if known is not None and not isinstance(column.dtype, pd.CategoricalDtype):
            seen = column.astype(object).where(column.isin(list(known)), None)
            column = pd.Series(pd.Categorical(seen, categories=list(known)))
        columns[name] = column
    return pd.DataFrame(columns, index=pd.RangeIndex(len(frame)))


@dataclass(frozen=True)
class OwnDraws:
    """Draws of a user's model, chains stacked: dim ``sample`` last."""

    posterior: xr.Dataset

    @property
    def samples(self) -> int:
        """Number of draws."""
        return self.posterior.sizes["sample"]


def own_draws(posterior: xr.Dataset) -> OwnDraws:
    """Draws of a stored posterior (dims ``chain, draw``)."""
    whole = posterior.transpose(..., "chain", "draw")
    count = posterior.sizes["chain"] * posterior.sizes["draw"]
    # Not by stack(), which cannot reshape variables without elements: coefficients of no columns.
    stacked = {
        name: ((*own.dims[:-2], "sample"), own.to_numpy().reshape(*own.shape[:-2], count))
        for name, own in whole.data_vars.items()
    }
    coords = {k: v for k, v in posterior.coords.items() if k not in ("chain", "draw")}
    return OwnDraws(xr.Dataset(stacked, coords))


@dataclass(frozen=True)
class OwnColumns:
    """History of some units."""

    frame: pd.DataFrame

    def part(self, rows: np.ndarray) -> OwnColumns:
        """That of some of the units."""
        return OwnColumns(self.frame.iloc[rows])


def own_columns(design: StageDesign, frame: pd.DataFrame) -> OwnColumns:
    """The columns of units, whatever action they are given later."""
    return OwnColumns(_history(design, frame, delivered=False))


@dataclass(frozen=True)
class OwnQ:
    """Mean payoff of every action under a user's model, by draw, as a ``QFunction`` gives it.

    ``sites`` other than ``"observed"``: all sites are missing in the history.
    """

    builder: StageModel
    design: StageDesign
    draws: OwnDraws
    sites: str = "observed"

    def __call__(self, frame: pd.DataFrame) -> np.ndarray:
        """Q-values (action, unit, sample) of units with this coded history."""
        return self.evaluate(self.columns(frame))

    def columns(self, frame: pd.DataFrame) -> OwnColumns:
        """The columns of units with this coded history, as :meth:`evaluate` takes them."""
        return own_columns(self.design, frame)

    def evaluate(self, columns: OwnColumns) -> np.ndarray:
        """Q-values of units whose columns are at hand (action, unit, sample)."""
        frame, site = columns.frame, self.design.site
        if site is not None and self.sites != "observed":
            gone = pd.Categorical([None] * len(frame), categories=list(self.design.site_levels))
            frame = with_columns(frame, {site: gone})
        count, actions = len(frame), len(self.design.actions)
        out = np.empty((actions, count, self.draws.samples))
        for a in range(actions):
            acted = self.design.acting(frame, a)
            found = np.asarray(self.builder.q(self.draws.posterior, acted), dtype=float)
            self._check(found, count)
            out[a] = found
        return out

    def _check(self, found: np.ndarray, count: int) -> None:
        where = f"Stage({self.design.action!r}): q() of {type(self.builder).__name__}"
        wanted = (count, self.draws.samples)
        if found.shape != wanted:
            raise ModelError(
                f"{where} must return mean payoffs (row, sample) of shape {wanted}, got {found.shape}."
            )
        if not np.isfinite(found).all():
            raise ModelError(
                f"{where} returned values that are not finite. Levels that the fit has not seen have a "
                "missing label in history: say what they are worth, for example their population mean."
            )
