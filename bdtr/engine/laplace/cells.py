"""Rows of a stage with an outcome that is not Gaussian, compressed and in the order of the kernels.

Rows that agree in all columns are one *cell*: of binomial and Poisson outcomes their sums say all (a binary
outcome of 5,786 pupils in 79 schools and three arms has 236 cells), of others rows with the same outcome
are counted. Nothing is lost.

Group effects are u = T v with v ~ N(0, I). Those of factors inside blocks (:mod:`bdtr.engine.layout`) have
*inner* positions; their precision matrix is kept row by row from the first entry of a row that can differ
from zero (its *envelope*), which elimination does not leave. Effects of factors in the border stand before
the common coefficients, as w = (v_border, b).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numba import types

from bdtr.engine.compiled.kernels import kernel
from bdtr.engine.compiled.lanes import LANES
from bdtr.engine.crossproducts import Rows, row_values, strata_of
from bdtr.engine.laplace.likelihoods import BINOMIAL, POISSON
from bdtr.engine.layout import Layout

__all__ = ["CELLS", "SMOOTH", "Cells", "Outcome", "cells"]


SMOOTH = 2  # what is said of columns of smooth terms


@dataclass(frozen=True)
class Outcome:
    """Outcome of the rows of a stage: the number of its family in :mod:`bdtr.engine.laplace.likelihoods`,
    the outcome y and its companion m (trials, exposure, event)."""

    family: int
    y: np.ndarray
    m: np.ndarray


class Cells(NamedTuple):
    """Cells as arrays for the kernels, blocks in order; padded to a multiple of eight by cells that count
    nothing.

    ``x`` (cell x term) and ``xt`` (term x cell) are the common columns, ``z`` (column x cell) those of all
    grouping factors with their factor ``of`` and the place among its terms ``term``, ``at`` the positions
    that they meet, in the border where ``outer`` is not 0, and the same for all rows where it is ``SMOOTH``:
    basis functions of smooth terms. ``rows`` (block + 1) are the first cells of blocks,
    ``start`` their first positions, ``first`` and ``place`` per inner position the first entry of its row of
    the envelope and where this would be, were it complete. Cells from one of ``segments`` to the next meet
    the same inner positions.
    """

    family: int
    x: np.ndarray
    xt: np.ndarray
    z: np.ndarray
    at: np.ndarray
    of: np.ndarray
    term: np.ndarray
    outer: np.ndarray
    y: np.ndarray
    m: np.ndarray
    count: np.ndarray
    stratum: np.ndarray
    rows: np.ndarray
    start: np.ndarray
    first: np.ndarray
    place: np.ndarray
    segments: np.ndarray
    entries: int
    border: int


_NUMBERS, _WHOLE = types.float64[::1], types.int64[::1]
_TABLE = types.float64[:, ::1]
CELLS = types.NamedTuple(
    (
        types.int64, _TABLE, _TABLE, _TABLE, types.int64[:, ::1], _WHOLE, _WHOLE, _WHOLE,
        _NUMBERS, _NUMBERS, _NUMBERS, _WHOLE, _WHOLE, _WHOLE, _WHOLE, _WHOLE, _WHOLE, types.int64,
        types.int64,
    ),
    Cells,
)  # fmt: skip


def cells(rows: Rows, where: Layout, outcome: Outcome) -> Cells:
    """Compress the rows of a stage.

    Parameters
    ----------
    rows
        Columns and level codes.
    where
        Layout of the group effects.
    outcome
        Outcome of the rows.

    Returns
    -------
    Cells
    """
    stratum = strata_of(rows)
    x, inner, inner_at, border, border_at, block = row_values(rows, where)
    z, at, inside = np.hstack([inner, border]), np.hstack([inner_at, border_at]), inner.shape[1]
    of, term, outer = _group_columns(where)
    sums = outcome.family in (BINOMIAL, POISSON)
    key = np.column_stack([x, z, at, stratum, *([] if sums else [outcome.y, outcome.m])])
    cell = _alike(key)
    first = np.unique(cell, return_index=True)[1]
    y, m, size = outcome.y[first], outcome.m[first], np.bincount(cell).astype(float)
    if sums:
        y = np.bincount(cell, outcome.y)
        m, size = np.bincount(cell, outcome.m), np.ones(first.size)
    # Blocks in order, and within them cells of the same levels.
    order = np.lexsort((*at[first, :inside].T, block[first]))
    first, y, m, size = first[order], y[order], m[order], size[order]
    more = -first.size % LANES

    def padded(values, fill):
        ends = np.full((more, *values.shape[1:]), fill, values.dtype)
        return np.ascontiguousarray(np.concatenate([values, ends]))

    common = padded(x[first].astype(float), 0.0)
    columns = np.ascontiguousarray(padded(z[first], 0.0).T)
    positions = np.ascontiguousarray(padded(at[first], 0).T)
    starts = np.searchsorted(block[first], np.arange(where.blocks + 1)).astype(np.int64)
    envelope = _envelope(positions[:inside], where.inner.size, first.size)
    place = np.concatenate([[0], np.cumsum(np.arange(where.inner.size) - envelope + 1)])
    changes = (np.diff(at[first, :inside], axis=0) != 0).any(axis=1)
    segments = np.concatenate([[0], np.flatnonzero(changes) + 1, [first.size]]).astype(np.int64)
    return Cells(
        outcome.family, common, np.ascontiguousarray(common.T), columns, positions, of, term, outer,
        padded(y.astype(float), 1.0), padded(m.astype(float), 1.0), padded(size, 0.0),
        padded(stratum[first], 0), starts, where.start, envelope,
        (place[:-1] - envelope).astype(np.int64), segments, int(place[-1]), where.border.size,
    )  # fmt: skip


def _group_columns(where: Layout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Factor, place among its terms, and 0, or 1 in the border and SMOOTH there, of the columns of all
    factors."""
    found = [
        (f, t, SMOOTH if factor.smooth else int(outside))
        for outside in (False, True)
        for f, factor in enumerate(where.factors)
        for t in ([0] * factor.levels if factor.smooth else range(factor.terms))
        if where.in_border[f] == outside
    ]
    of, term, outer = np.array(found, np.int64).reshape(-1, 3).T
    return np.ascontiguousarray(of), np.ascontiguousarray(term), np.ascontiguousarray(outer)


def _alike(key: np.ndarray) -> np.ndarray:
    """Number of the cell of each row: rows of a matrix that are the same have the same."""
    cell = np.zeros(len(key), np.int64)
    for column in key.T:
        codes, found = pd.factorize(column + 0.0)  # no negative zeros
        cell = pd.factorize(cell * len(found) + codes)[0]
    return cell


@kernel
def _envelope(at, size, rows):
    """First position that shares a cell with each position, itself included."""
    first = np.arange(size)
    for i in range(rows):
        least = size
        for s in range(at.shape[0]):
            least = min(least, at[s, i])
        for s in range(at.shape[0]):
            first[at[s, i]] = min(first[at[s, i]], least)
    return first
