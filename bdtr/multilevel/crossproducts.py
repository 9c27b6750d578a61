"""Cross-products of a stage's columns and responses: all that the marginal density needs.

Levels of all grouping factors that share rows form a *block*: with classes inside sites a block is a
site with its classes. Blocks are the connected components of the graph of levels, so a class id that
two schools share merges their blocks and the answer stays right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["BlockSizeError", "Columns", "CrossProducts", "Factor", "Layout", "Responses", "layout"]

_LARGEST_BLOCK = 600


class BlockSizeError(ValueError):
    """Grouping factors that cross so widely that their levels form one huge block."""


@dataclass(frozen=True)
class Factor:
    """A grouping factor: name, number of levels, number of terms, whether terms are correlated."""

    name: str
    levels: int
    terms: int
    correlated: bool


@dataclass(frozen=True)
class Columns:
    """Rows of a stage's fit: common columns X, and per factor its columns Z and level codes."""

    x: np.ndarray
    z: tuple[np.ndarray, ...]
    codes: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Layout:
    """Where the coefficients of each level stand, in blocks.

    ``start`` (block + 1) are the first positions of blocks among all M coefficients with rows;
    ``group_start, group_factor`` list the levels inside blocks: first position and factor;
    ``block_groups`` (block + 1) the first level of each block. ``target`` maps a position to its place
    in the concatenated effects of all factors (level-major), ``empty`` the places without rows.
    """

    factors: tuple[Factor, ...]
    start: np.ndarray
    group_start: np.ndarray
    group_factor: np.ndarray
    block_groups: np.ndarray
    target: np.ndarray
    offset: np.ndarray
    position: tuple[np.ndarray, ...]  # per factor: first position of each level, -1 without rows

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.start) - 1

    @property
    def effects(self) -> int:
        """Number of group effects of all factors, levels without rows included."""
        return int(sum(f.levels * f.terms for f in self.factors))


def layout(factors: Sequence[Factor], codes: Sequence[np.ndarray]) -> Layout:
    """Order the levels of all factors into blocks that share no rows.

    Parameters
    ----------
    factors
        The grouping factors.
    codes
        Per factor the level of each row.

    Returns
    -------
    Layout

    Raises
    ------
    IndexError
        If a code is outside its factor's levels.
    BlockSizeError
        If a block has too many coefficients for a dense elimination.
    """
    for factor, code in zip(factors, codes, strict=True):
        # Compiled kernels do not check bounds.
        if code.size and (code.min() < 0 or code.max() >= factor.levels):
            raise IndexError(f"A level code of {factor.name!r} is outside 0..{factor.levels - 1}.")
    first = np.concatenate([[0], np.cumsum([f.levels for f in factors])]).astype(np.int64)
    offset = np.concatenate([[0], np.cumsum([f.levels * f.terms for f in factors])]).astype(
        np.int64
    )
    nodes = [code + start for code, start in zip(codes, first[:-1], strict=True)]
    present = np.unique(np.concatenate(nodes)) if nodes else np.zeros(0, dtype=np.int64)
    component = _components(nodes, int(first[-1]))
    # Blocks in the order of their first level; inside a block the factor with most terms last, so
    # that small levels (classes) are eliminated before the site they are in.
    factor_of = np.searchsorted(first, present, side="right") - 1
    level_of = present - first[factor_of]
    rank = np.argsort([-f.levels for f in factors], kind="stable").argsort() if factors else []
    order = np.lexsort((level_of, np.asarray(rank, dtype=np.int64)[factor_of], component[present]))
    factor_of, level_of = factor_of[order], level_of[order]
    block_of = np.unique(component[present][order], return_inverse=True)[1]
    terms = np.array([f.terms for f in factors], dtype=np.int64)
    sizes = terms[factor_of]
    group_start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    block_groups = np.searchsorted(block_of, np.arange(block_of.max(initial=-1) + 2)).astype(
        np.int64
    )
    start = group_start[block_groups]
    target = np.concatenate(
        [
            np.arange(t) + offset[f] + level * t
            for f, level, t in zip(factor_of, level_of, sizes, strict=True)
        ]
        or [np.zeros(0)]
    ).astype(np.int64)
    position = []
    for i, factor in enumerate(factors):
        where = np.full(factor.levels, -1, dtype=np.int64)
        mine = factor_of == i
        where[level_of[mine]] = group_start[:-1][mine]
        position.append(where)
    if start.size > 1 and np.diff(start).max() > _LARGEST_BLOCK:
        raise BlockSizeError(
            f"The factors {', '.join(f.name for f in factors)} cross: their levels form one block of "
            f"{np.diff(start).max():,} coefficients, more than {_LARGEST_BLOCK}. This sampler takes "
            "factors within sites; use the PyMC sampler for crossed ones."
        )
    return Layout(
        tuple(factors),
        start.astype(np.int64),
        group_start[:-1],
        factor_of.astype(np.int64),
        block_groups,
        target,
        offset,
        tuple(position),
    )


def _components(nodes: Sequence[np.ndarray], count: int) -> np.ndarray:
    if len(nodes) < 2:
        return np.arange(count)
    left = np.concatenate([nodes[0]] * (len(nodes) - 1))
    right = np.concatenate(nodes[1:])
    graph = coo_array((np.ones(left.size, dtype=np.int8), (left, right)), shape=(count, count))
    return connected_components(graph.tocsr(), directed=False)[1]


@dataclass(frozen=True)
class CrossProducts:
    """Cross-products of the columns: X'X, and per block Z'[Z X], flattened block by block."""

    rows: int
    xtx: np.ndarray
    blocks: np.ndarray
    block_start: np.ndarray
    layout: Layout

    @property
    def work_shape(self) -> tuple[int, int]:
        """Room for the largest block, its common columns and one response."""
        largest = max(int(np.diff(self.layout.start).max(initial=0)), 1)
        return largest, largest + self.xtx.shape[0] + 1


@dataclass(frozen=True)
class Responses:
    """Cross-products with the responses: Z'y (position x response), X'y, y'y."""

    zty: np.ndarray
    xty: np.ndarray
    yty: np.ndarray

    @property
    def count(self) -> int:
        """Number of responses."""
        return self.yty.size

    def shifted(self, products: CrossProducts, coefficients: np.ndarray) -> Responses:
        """Cross-products of y - Xb for known b: carries prior means to zero."""
        if not coefficients.any():
            return self
        ztx_b = np.empty(self.zty.shape[0])
        start, p = products.layout.start, len(coefficients)
        for j in range(products.layout.blocks):
            m = start[j + 1] - start[j]
            block = products.blocks[products.block_start[j] : products.block_start[j + 1]]
            ztx_b[start[j] : start[j + 1]] = block.reshape(m, m + p)[:, m:] @ coefficients
        xtx_b = products.xtx @ coefficients
        yty = self.yty - 2 * coefficients @ self.xty + coefficients @ xtx_b
        return Responses(self.zty - ztx_b[:, None], self.xty - xtx_b[:, None], yty)


def cross_products(columns: Columns, where: Layout) -> CrossProducts:
    """One pass over the rows: Z'Z and Z'X per block, X'X."""
    x = np.ascontiguousarray(columns.x)
    p = x.shape[1]
    sizes = np.diff(where.start)
    block_start = np.concatenate([[0], np.cumsum(sizes * (sizes + p))]).astype(np.int64)
    blocks = np.zeros(int(block_start[-1]))
    z, at, block_of = _row_positions(columns, where)
    _accumulate_blocks(x, z, at, block_of, where.start, block_start, blocks)
    return CrossProducts(x.shape[0], x.T @ x, blocks, block_start, where)


def response_products(columns: Columns, where: Layout, y: np.ndarray) -> Responses:
    """Cross-products with responses y (row x response)."""
    y = np.ascontiguousarray(y)
    zty = np.zeros((int(where.start[-1]), y.shape[1]))
    z, at, _ = _row_positions(columns, where)
    _accumulate_responses(z, at, y, zty)
    return Responses(zty, columns.x.T @ y, np.einsum("is,is->s", y, y))


def _row_positions(columns: Columns, where: Layout):
    """Per row the non-zero group columns: values, positions, and the row's block."""
    rows = columns.x.shape[0]
    if not where.factors:
        return np.zeros((rows, 0)), np.zeros((rows, 0), dtype=np.int64), np.zeros(rows, np.int64)
    z = np.ascontiguousarray(np.hstack(columns.z))
    at = np.hstack(
        [
            where.position[i][code][:, None] + np.arange(factor.terms)
            for i, (factor, code) in enumerate(zip(where.factors, columns.codes, strict=True))
        ]
    )
    block = np.searchsorted(where.start, at[:, 0], side="right") - 1
    return z, np.ascontiguousarray(at), block.astype(np.int64)


@njit(cache=True)
def _accumulate_blocks(x, z, at, block_of, start, block_start, out):
    n, p = x.shape
    q = z.shape[1]
    if q == 0:
        return
    for i in range(n):
        j = block_of[i]
        first = start[j]
        m = start[j + 1] - first
        width = m + p
        for a in range(q):
            if z[i, a] == 0.0:
                continue
            row = block_start[j] + (at[i, a] - first) * width
            for b in range(q):
                out[row + at[i, b] - first] += z[i, a] * z[i, b]
            for c in range(p):
                out[row + m + c] += z[i, a] * x[i, c]


@njit(cache=True)
def _accumulate_responses(z, at, y, out):
    for i in range(z.shape[0]):
        for a in range(z.shape[1]):
            if z[i, a] == 0.0:
                continue
            row = at[i, a]
            for s in range(y.shape[1]):
                out[row, s] += z[i, a] * y[i, s]
