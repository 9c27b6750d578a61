"""Draws given several completed data sets as one posterior, each with the histories it was drawn for.

With D completed data sets, draw j of a chain given data set d is draw jD + d of that chain in the whole: the
mixture of D posteriors is the posterior given what was observed (Gelman and others 2013, Bayesian Data
Analysis, ch. 18; Zhou and Reiter 2010, Am. Stat. 64(2)).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.data.stagecolumns import StageDesign
from bdtr.stages.prediction import QFunction, StageDraws, UnitColumns

__all__ = [
    "PooledColumns",
    "PooledQ",
    "different",
    "interleaved",
    "missing_information",
    "pooled_dataset",
    "pooled_draws",
]


def interleaved(parts: Sequence[np.ndarray], chains: int) -> np.ndarray:
    """Draws (.., sample) given each data set, chains stacked, as those of the whole in their order."""
    inner = parts[0].shape[:-1]
    each = [p.reshape(*inner, chains, -1) for p in parts]
    return np.stack(each, axis=-1).reshape(*inner, -1)


def missing_information(draws: xr.DataArray, sets: int) -> np.ndarray:
    r"""Fraction of missing information of each quantity: the share of its variance that is between data sets.

    With m_d the mean of the n draws given each of D data sets, W their mean variance and T that of all draws,

        (var(m_d) - W / n) / T,

    not below 0 (Rubin 1987, Multiple Imputation for Nonresponse in Surveys, ch. 3, for many draws).

    Parameters
    ----------
    draws
        Dims ``chain, draw`` and others.
    sets
        Number of data sets, whose draws take turns.
    """
    values = draws.transpose("chain", "draw", ...).to_numpy()
    each = values.reshape(values.shape[0], -1, sets, *values.shape[2:])
    count = each.shape[0] * each.shape[1]
    within = each.var(axis=(0, 1), ddof=1).mean(axis=0) if count > 1 else 0.0
    between = each.mean(axis=(0, 1)).var(axis=0, ddof=1) - within / count
    return np.maximum(between, 0.0) / np.maximum(values.var(axis=(0, 1), ddof=1), 1e-300)


def pooled_dataset(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """The same of datasets with dims ``chain, draw``; coordinates and attributes are those of the first."""
    first = parts[0]
    if not first.data_vars:
        return first
    found = {}
    for name, values in first.data_vars.items():
        inner = [d for d in values.dims if d not in ("chain", "draw")]
        arrays = [p[name].transpose("chain", "draw", *inner).to_numpy() for p in parts]
        whole = np.stack(arrays, axis=2)
        shape = (whole.shape[0], -1, *whole.shape[3:])
        found[name] = (("chain", "draw", *inner), whole.reshape(shape))
    coords = {k: v for k, v in first.coords.items() if k not in ("chain", "draw")}
    out = xr.Dataset(found, coords, first.attrs)
    return out.assign_coords(chain=np.arange(out.sizes["chain"]), draw=np.arange(out.sizes["draw"]))


def pooled_draws(parts: Sequence[StageDraws], chains: int) -> StageDraws:
    """Parameters of one stage drawn given each data set, as those of the whole."""

    def each(values: Sequence[Mapping[str, np.ndarray]], first: bool = False) -> dict:
        def one(name: str) -> np.ndarray:
            arrays = [v[name] for v in values]
            if first:  # the sample is the first axis
                arrays = [np.moveaxis(a, 0, -1) for a in arrays]
            whole = interleaved(arrays, chains)
            return np.ascontiguousarray(np.moveaxis(whole, -1, 0) if first else whole)

        return {name: one(name) for name in values[0]}

    shapes = [p.shape for p in parts if p.shape is not None]
    return StageDraws(
        interleaved([p.coefficients for p in parts], chains),
        each([p.effects for p in parts]),
        each([p.root for p in parts], first=True),
        each([p.new for p in parts]),
        interleaved(shapes, chains) if shapes else None,
    )


@dataclass(frozen=True)
class PooledColumns:
    """The columns of some units in each completed data set."""

    parts: tuple[UnitColumns, ...]

    def part(self, rows: np.ndarray) -> PooledColumns:
        """Those of some of the units."""
        return PooledColumns(tuple(p.part(rows) for p in self.parts))


def different(one: UnitColumns, other: UnitColumns) -> np.ndarray:
    """Units whose columns are not the same in two data sets."""
    pairs = [*zip(one.common, other.common, strict=True)]
    for a, b in zip(one.groups, other.groups, strict=True):
        pairs += [*zip(a.z, b.z, strict=True), (a.codes[:, None], b.codes[:, None])]
    out = np.zeros(len(one.common[0]), dtype=bool)
    for a, b in pairs:
        out |= (a != b).any(axis=1)
    return out


@dataclass(frozen=True)
class PooledQ:
    """Mean payoff of every action, each draw given the history of the data set that it belongs to.

    Called with a frame, all draws are given the same history.
    """

    parts: tuple[QFunction, ...]
    chains: int

    @property
    def design(self) -> StageDesign:
        """Columns of the stage; what is known of sites is that of the first data set."""
        return self.parts[0].design

    @cached_property
    def draws(self) -> StageDraws:
        """The draws of the whole."""
        return pooled_draws([p.draws for p in self.parts], self.chains)

    def __call__(self, frame: pd.DataFrame) -> np.ndarray:
        """Q-values (action, unit, sample) of units with this coded history."""
        return interleaved([q(frame) for q in self.parts], self.chains)

    def columns(self, frame: pd.DataFrame) -> PooledColumns:
        """The columns of units with this coded history, as :meth:`evaluate` takes them."""
        return PooledColumns(tuple(q.columns(frame) for q in self.parts))

    def evaluate(self, columns: PooledColumns) -> np.ndarray:
        """Q-values (action, unit, sample) of units whose columns are at hand."""
        found = [q.evaluate(c) for q, c in zip(self.parts, columns.parts, strict=True)]
        return interleaved(found, self.chains)
