"""The model of a state with its draws: how likely each value is, given history and action, by draw."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.data.stagecolumns import StageDesign
from bdtr.stages.prediction import QFunction, StageDraws, UnitColumns, unit_columns
from bdtr.trial.payoff import Payoff

__all__ = ["ComputedModel", "StateQ", "columns_at", "state_shape"]

_CONTINUOUS = ("gaussian", "student_t", "beta", "gamma", "lognormal", "weibull")
_LOG = ("gamma", "lognormal", "weibull")
_COUNTS = ("poisson", "negative_binomial", "binomial", "beta_binomial")
_FOR_PLACES = 64  # draws by which nodes are placed
_REACH = 4.75  # SDs of a Gaussian state, beyond which 2 of a million values lie
_MANY = 5_000  # rows, for each of which fewer values are drawn
_SINGLE = 40  # counts, from 0 and below the number of trials, that are gone through one by one
_CELLS = 48  # into which the range of a count is divided beyond that
_NODES = 9  # Gauss-Hermite nodes for effects that are not known, of a state that is not Gaussian


@dataclass(frozen=True)
class ComputedModel:
    """What stands in the place of a stage's model where it is computed from models of ``states``."""

    design: StageDesign
    states: tuple[str, ...]


def columns_at(sites: str) -> str:
    """Where columns are taken for Q-values at these sites: what is known of a unit's own site stays known on
    average over sites, and at one new site for all."""
    return "observed" if sites in ("average", "one new") else sites


def state_shape(posterior: xr.Dataset) -> np.ndarray | None:
    """What the likelihood of a state has beside its linear predictor: sigma (arm, sample), sigma and nu
    (2, arm, sample), thresholds (category, sample), or None."""

    def stacked(name: str) -> np.ndarray:
        values = posterior[name].transpose(..., "chain", "draw").to_numpy()
        return values.reshape(*values.shape[:-2], -1)

    if "threshold" in posterior:
        return stacked("threshold")
    if "sigma" not in posterior:
        return None
    sigma = np.atleast_2d(stacked("sigma"))
    if "nu" not in posterior:
        return sigma
    return np.stack(np.broadcast_arrays(sigma, stacked("nu")))


@dataclass(frozen=True)
class StateQ:
    """The model of a state: its columns, family and draws.

    ``labels`` are those of a state that is none of numbers, in the order of its values 0, 1, ..; ``outside``
    is the value of units without a decision at the next stage, where only the others have the state.
    ``shape`` as in :func:`state_shape`.
    """

    name: str
    design: StageDesign
    payoff: Payoff
    draws: StageDraws
    shape: np.ndarray | None
    companion: str | None = None
    labels: tuple[str, ...] | None = None
    outside: float | None = None
    sites: str = "observed"
    seed: int = 0
    unknown: frozenset[str] = frozenset()

    @property
    def family(self) -> str:
        """Name of its family."""
        return self.payoff.family.name

    @property
    def continuous(self) -> bool:
        """Whether it takes every value of an interval."""
        return self.family in _CONTINUOUS

    @property
    def categories(self) -> int:
        """How many categories it has, 0 of numbers."""
        return {"bernoulli": 2, "ordinal": len(self.payoff.scores)}.get(self.family, 0)

    @cached_property
    def q(self) -> QFunction:
        """Its linear predictor and mean, as a Q-function has them."""
        return QFunction(self.design, self.payoff, self.draws, self.sites, self.seed, self.unknown)

    def thinned(self, most: int) -> StateQ:
        """The same with up to so many of the draws."""
        step = -(-self.draws.samples // most)
        shape = None if self.shape is None else self.shape[..., ::step]
        return replace(self, draws=self.draws.thinned(most), shape=shape)

    def blind(self, factors: frozenset[str]) -> StateQ:
        """The same before the classes of these factors are known."""
        return replace(self, unknown=self.unknown | factors)

    def columns(self, frame: pd.DataFrame) -> UnitColumns:
        """Columns of units under the action that stands in the frame."""
        return unit_columns(self.design, frame, columns_at(self.sites), taken=True)

    def trials(self, frame: pd.DataFrame) -> np.ndarray:
        """Its trials, exposure, or 1."""
        if self.companion is None:
            return np.ones(len(frame))
        return frame[self.companion].to_numpy(dtype=float)

    def as_column(self, values: np.ndarray, out: np.ndarray | None = None) -> object:
        """Values as they stand in a frame of history, ``outside`` for those that are out; of an ordinal state
        they are numbers of categories."""
        gone = np.zeros(len(values), dtype=bool) if out is None else out
        if self.labels is None:
            return np.where(gone, self.outside or 0.0, self.numbers(values))
        values = np.where(gone, self.outside or 0.0, values)
        return pd.Categorical(np.array(self.labels)[values.astype(np.int64)], list(self.labels))

    def numbers(self, values: np.ndarray) -> np.ndarray:
        """Values as numbers: of categories what they are worth."""
        if self.family != "ordinal":
            return values
        return np.asarray(self.payoff.scores, dtype=float)[values.astype(np.int64)]

    def predictor(self, columns: UnitColumns) -> np.ndarray:
        """Linear predictor (row, sample)."""
        return self.q.predictor(columns)[0]

    def _variance(self, columns: UnitColumns, row: np.ndarray | None = None) -> np.ndarray | None:
        """Variance of effects that are not known (row or 1, sample)."""
        found = self.q.unknown_variance(columns)
        if found is None:
            return None
        found = found[None] if found.ndim == 1 else found[0]
        return found if row is None or len(found) == 1 else found[row]

    def _shape(self, arm: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...] | None:
        if self.shape is None or self.family == "ordinal":
            return self.shape
        own = self.shape[..., arm if self.shape.shape[-2] > 1 else np.zeros_like(arm), :]
        return tuple(own) if self.payoff.family.has_nu else own

    def moments(self, columns: UnitColumns, arm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and SD of a Gaussian state (row, sample)."""
        sd = self._shape(arm)
        assert isinstance(sd, np.ndarray)
        variance = self._variance(columns)
        total = sd if variance is None else np.sqrt(np.square(sd) + variance)
        mean = self.predictor(columns)
        return mean, np.broadcast_to(total, mean.shape)

    def mean(self, columns: UnitColumns, arm: np.ndarray) -> np.ndarray:
        """Its mean (row, sample)."""
        eta = self.predictor(columns)
        shape: Any = self._shape(arm) if self.payoff.family.mean_takes_sigma else self.shape
        each = [w * self.payoff.mean(e, shape) for e, w in self._with_effects(columns, eta, None)]
        return np.sum(each, axis=0)

    def density(
        self, columns: UnitColumns, eta: np.ndarray, row: np.ndarray, value: np.ndarray,
        arm: np.ndarray, m: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        """Density, or probability, of values (node, sample), each of the row that it names.

        ``eta`` (row, sample) is the predictor; ``arm`` and ``m`` (node) what a row has done and its
        companion. Of a Gaussian state the variance of effects that are not known is added to its own; of
        others they are integrated out by Gauss-Hermite quadrature.
        """
        own, shape, family = eta[row], self._shape(arm), self.payoff.family
        y = value[:, None]
        if self.family == "gaussian":
            assert isinstance(shape, np.ndarray)
            variance = self._variance(columns, row)
            sd = shape if variance is None else np.sqrt(np.square(shape) + variance)
            own -= y
            own /= sd
            np.square(own, out=own)
            own *= -0.5
            np.exp(own, out=own)
            own /= sd
            return own
        each = [
            w * np.exp(family.log_likelihood(y, m[:, None], e, shape))
            for e, w in self._with_effects(columns, own, row)
        ]
        return each[0] if len(each) == 1 else np.sum(each, axis=0)

    def _with_effects(
        self, columns: UnitColumns, eta: np.ndarray, row: np.ndarray | None
    ) -> list[tuple[np.ndarray, float]]:
        """Predictors with effects that are not known at their nodes, and weights."""
        variance = self._variance(columns, row)
        if variance is None:
            return [(eta, 1.0)]
        nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        sd = np.sqrt(variance)
        return [(eta + z * sd, w) for z, w in zip(nodes, weights / weights.sum(), strict=True)]

    # Continuous states are integrated on a scale without bounds.

    def takes(self, value: np.ndarray) -> np.ndarray:
        """Whether it can have these values."""
        if self.family == "beta":
            return (value > 0) & (value < 1)
        return value > 0 if self.family in _LOG else np.isfinite(value)

    def scaled(self, value: np.ndarray) -> np.ndarray:
        """Values on that scale."""
        if self.family in _LOG:
            return np.log(value)
        return np.log(value) - np.log1p(-value) if self.family == "beta" else value

    def unscaled(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values of places on that scale, and the derivative."""
        if self.family in _LOG:
            value = np.exp(place)
            return value, value
        if self.family == "beta":
            value = np.clip(1.0 / (1.0 + np.exp(-place)), 1e-12, 1.0 - 1e-12)
            return value, value * (1.0 - value)
        return place, np.ones_like(place)

    def reach(
        self, columns: UnitColumns, arm: np.ndarray, m: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Centre and SD (row) over some of the draws, on the scale of integration."""
        few = self.thinned(_FOR_PLACES)
        if self.family == "gaussian":
            mean, sd = few.moments(columns, arm)
            return mean.mean(axis=1), np.sqrt(mean.var(axis=1) + np.square(sd).mean(axis=1))
        drawn = self.scaled(few._drawn(columns, arm, m))
        low, high = np.quantile(drawn, [0.0, 1.0], axis=1)
        return 0.5 * (low + high), np.maximum(high - low, 1e-9) / (2.0 * _REACH) * 1.1

    def _drawn(self, columns: UnitColumns, arm: np.ndarray, m: np.ndarray) -> np.ndarray:
        """Values drawn at random (row, sample), in the units of the outcome."""
        rng, times = np.random.default_rng(self.seed), (1, 16 if len(arm) < _MANY else 4)
        eta = np.tile(self.predictor(columns), times)
        variance = self._variance(columns)
        if variance is not None:
            eta = eta + np.tile(np.sqrt(variance), times) * rng.standard_normal(eta.shape)
        shape = self._shape(arm)
        if isinstance(shape, tuple):
            shape = tuple(np.tile(s, times) for s in shape)
        elif shape is not None:
            shape = np.tile(shape, times)
        drawn = self.payoff.draw(rng, eta, shape, m[:, None])
        tiny = 1e-300 if self.family in _LOG else -np.inf
        drawn = np.maximum(drawn, tiny)
        return np.clip(drawn, 1e-12, 1 - 1e-12) if self.family == "beta" else drawn

    def values(
        self, columns: UnitColumns, arm: np.ndarray, m: np.ndarray, cuts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values of a discrete state that are gone through: row, value, and how many each stands for.

        Counts are gone through one by one up to some forty, and next to their number of trials, beyond that
        in cells, which end at the numbers ``cuts`` that conditions name.
        """
        rows = len(arm)
        if self.family not in _COUNTS:
            count = self.categories
            each = np.tile(np.arange(float(count)), rows)
            return np.repeat(np.arange(rows), count), each, np.ones(rows * count)
        few = self.thinned(_FOR_PLACES)
        drawn = few._drawn(columns, arm, m) * m[:, None]  # payoffs are shares and rates
        high = np.ceil(drawn.max(axis=1) * 1.25 + 2.0)
        low = np.maximum(np.floor(drawn.min(axis=1) * 0.8 - 2.0), 0.0)
        single = [np.arange(float(_SINGLE))]
        if self.payoff.family.companion == "trials":
            high = np.minimum(high, m)
            single.append(np.arange(float(_SINGLE)))
        step = np.maximum(np.ceil((high - low + 1.0) / _CELLS), 1.0)
        edges = [low[:, None] + step[:, None] * np.arange(_CELLS + 1.0)]
        edges.append(np.broadcast_to(single[0], (rows, _SINGLE)))
        if len(single) > 1:
            edges.append(m[:, None] + 1.0 - single[1])
        at = np.unique(np.concatenate([np.ceil(cuts), np.floor(cuts) + 1.0]))
        edges.append(np.broadcast_to(at, (rows, len(at))))
        every = np.clip(np.hstack(edges), low[:, None], high[:, None] + 1.0)
        every = np.sort(np.hstack([every, high[:, None] + 1.0]), axis=1)
        row, cell = np.nonzero(np.diff(every, axis=1) > 0)
        first, after = every[row, cell], every[row, cell + 1]
        return row, 0.5 * (first + after - 1.0), after - first
