"""Where the group effects of a stage stand: in small blocks, or in the dense border.

Levels of grouping factors that share rows form a *block*: with classes inside sites a block is a site
with its classes. Blocks are the connected components of the graph of levels, so a class id that two
schools share merges their blocks and the answer stays right. Factors that cross sites would merge all
blocks into one; they go to the *border* instead, next to the common columns, where their levels are
eliminated together by one dense Cholesky factorisation. So do the basis functions of smooth terms, all of
which every row meets: they are the levels of a factor with one term and one SD.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bdtr.results.errors import BdtrError

__all__ = ["CrossingError", "Factor", "Layout", "layout"]

_MOST_DENSE = 5_000  # coefficients of one dense factorisation: 200 MB, some seconds each
_COMMON = 10  # common columns assumed when the work of a split is estimated


class CrossingError(BdtrError, ValueError):
    """Grouping factors that cross so widely that their levels need too large a dense system."""


@dataclass(frozen=True)
class Factor:
    """A grouping factor: name, number of levels, number of terms, whether terms are correlated.

    ``smooth``: its levels are the basis functions of a smooth term, and each row has a value of every one.
    """

    name: str
    levels: int
    terms: int
    correlated: bool
    smooth: bool = False

    def places(self, codes: np.ndarray) -> np.ndarray:
        """Where the effects of each row stand among those of the factor (row, effect)."""
        return codes if self.smooth else codes[:, None] * self.terms + np.arange(self.terms)


@dataclass(frozen=True)
class Levels:
    """Levels in the order of elimination: first position and factor of each; ``target`` maps a
    position to its place in the concatenated effects of all factors (level-major)."""

    first: np.ndarray
    factor: np.ndarray
    target: np.ndarray

    @property
    def size(self) -> int:
        """Number of positions."""
        return self.target.size


@dataclass(frozen=True)
class Layout:
    """Where the coefficients of each level stand.

    ``start`` (block + 1) are the first positions of blocks, ``block_groups`` (block + 1) the first of
    the ``inner`` levels of each block; ``border`` are the levels of factors in the border.
    ``position`` holds, per factor, the first position of each level (among the inner or the border
    ones, as ``in_border`` says), -1 for levels without rows.
    """

    factors: tuple[Factor, ...]
    in_border: tuple[bool, ...]
    start: np.ndarray
    block_groups: np.ndarray
    inner: Levels
    border: Levels
    offset: np.ndarray
    position: tuple[np.ndarray, ...]

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.start) - 1

    @property
    def effects(self) -> int:
        """Number of group effects of all factors, levels without rows included."""
        return int(self.offset[-1])


def layout(factors: Sequence[Factor], codes: Sequence[np.ndarray]) -> Layout:
    """Order the levels of all factors into blocks that share no rows, and a border.

    Of all ways to send factors to the border the one with the least work is taken.

    Parameters
    ----------
    factors
        The grouping factors.
    codes
        Per factor the level of each row; of a smooth term all levels (row, level).

    Returns
    -------
    Layout

    Raises
    ------
    IndexError
        If a code is outside its factor's levels.
    CrossingError
        If even the best split needs too large a dense system.
    """
    for factor, code in zip(factors, codes, strict=True):
        # Compiled kernels do not check bounds.
        if code.size and (code.min() < 0 or code.max() >= factor.levels):
            raise IndexError(f"A level code of {factor.name!r} is outside 0..{factor.levels - 1}.")
    cells = _cells(factors, codes)
    splits = [_blocks_of(factors, cells, chosen) for chosen in _candidates(factors)]
    best = min(splits, key=lambda split: split[0])
    _, in_border, component = best
    terms = np.array([f.terms for f in factors], dtype=np.int64)
    offset = np.concatenate([[0], np.cumsum([f.levels * f.terms for f in factors])]).astype(int)
    # Inside a block the factor with most levels first: classes are eliminated before their site.
    rank = np.argsort([-f.levels for f in factors], kind="stable").argsort() if factors else []
    rank = np.asarray(rank, dtype=np.int64)
    inner_of, outer_of = [], []
    for f, factor in enumerate(factors):
        present = np.unique(cells[f])
        nodes = np.c_[np.full(present.size, f), present]
        (outer_of if in_border[f] else inner_of).append(nodes)
        if in_border[f] and factor.levels * factor.terms > _MOST_DENSE:
            raise _too_wide(factors, in_border, factor.levels * factor.terms)
    inside = np.concatenate(inner_of or [np.zeros((0, 2), dtype=np.int64)])
    block = np.array([component[f][level] for f, level in inside], dtype=np.int64)
    order = np.lexsort((inside[:, 1], rank[inside[:, 0]], block))
    inside, block = inside[order], np.unique(block[order], return_inverse=True)[1]
    outside = np.concatenate(outer_of or [np.zeros((0, 2), dtype=np.int64)])
    inner, border = _levels(inside, terms, offset), _levels(outside, terms, offset)
    block_groups = np.searchsorted(block, np.arange(block.max(initial=-1) + 2)).astype(np.int64)
    start = np.append(inner.first, inner.size)[block_groups]
    largest = max(np.diff(start).max(initial=0), border.size)
    if largest > _MOST_DENSE:
        raise _too_wide(factors, in_border, int(largest))
    position = []
    for f, factor in enumerate(factors):
        nodes, levels = (outside, border) if in_border[f] else (inside, inner)
        where = np.full(factor.levels, -1, dtype=np.int64)
        mine = nodes[:, 0] == f
        where[nodes[mine, 1]] = levels.first[mine]
        position.append(where)
    return Layout(
        tuple(factors), in_border, start, block_groups, inner, border, offset, tuple(position)
    )


def _cells(factors: Sequence[Factor], codes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Per factor its level in each combination of levels that occurs; of a smooth term all levels."""
    grouping = [f for f, factor in enumerate(factors) if not factor.smooth]
    found = [np.arange(factor.levels) for factor in factors]
    shape, own = tuple(factors[f].levels for f in grouping), tuple(codes[f] for f in grouping)
    if len(grouping) == 1:
        cells = np.flatnonzero(np.bincount(own[0], minlength=1))[None]
    elif grouping and np.prod([float(size) for size in shape]) > 2**62:
        cells = np.unique(np.stack(own), axis=1)
    elif grouping:
        # One number a row, and hashing instead of sorting: the pass over the data is to stay short.
        keys = np.ravel_multi_index(own, shape)
        cells = np.stack(np.unravel_index(np.sort(pd.unique(keys)), shape))
    for i, f in enumerate(grouping):
        found[f] = cells[i]
    return found


def _candidates(factors: Sequence[Factor]) -> list[tuple[int, ...]]:
    """Sets of factors that may go to the border: all of them while they are few, smooth terms always."""
    always = tuple(f for f, factor in enumerate(factors) if factor.smooth)
    others = [f for f, factor in enumerate(factors) if not factor.smooth]
    most = len(others) - 1 if len(others) <= 6 else 2
    sets = [c for size in range(max(most, 0) + 1) for c in combinations(others, size)]
    return [tuple(sorted((*always, *c))) for c in sets]


def _blocks_of(
    factors: Sequence[Factor], cells: Sequence[np.ndarray], outside: tuple[int, ...]
) -> tuple[float, tuple[bool, ...], dict[int, np.ndarray]]:
    """Work of one evaluation with some factors in the border, and the block of each level else."""
    inside = [f for f in range(len(factors)) if f not in outside]
    first = np.concatenate([[0], np.cumsum([factors[f].levels for f in inside])]).astype(np.int64)
    nodes = [cells[f] + start for f, start in zip(inside, first[:-1], strict=True)]
    label = np.arange(first[-1])
    if len(nodes) > 1:
        left, right = np.concatenate([nodes[0]] * (len(nodes) - 1)), np.concatenate(nodes[1:])
        shape = (int(first[-1]), int(first[-1]))
        graph = coo_array((np.ones(left.size, dtype=np.int8), (left, right)), shape=shape)
        label = connected_components(graph.tocsr(), directed=False)[1]
    component = {
        f: label[at : at + factors[f].levels] for f, at in zip(inside, first, strict=False)
    }
    size = np.zeros(int(label.max(initial=-1)) + 1)
    for f in inside:
        present = np.unique(cells[f])
        np.add.at(size, component[f][present], factors[f].terms)
    border = sum(np.unique(cells[f]).size * factors[f].terms for f in outside)
    wide = border + _COMMON
    # Blocks eliminated, their outer products taken, the border eliminated.
    work = (size**2 * (size + wide)).sum() + size.sum() * wide**2 + border**3
    return float(work), tuple(f in outside for f in range(len(factors))), component


def _levels(nodes: np.ndarray, terms: np.ndarray, offset: np.ndarray) -> Levels:
    factor, level = nodes[:, 0], nodes[:, 1]
    sizes = terms[factor]
    ends = np.cumsum(sizes)
    first = ends - sizes
    inside = np.arange(int(sizes.sum())) - np.repeat(first, sizes)
    target = np.repeat(offset[factor] + level * sizes, sizes) + inside
    return Levels(first.astype(np.int64), factor.astype(np.int64), target.astype(np.int64))


def _too_wide(factors, in_border, size: int) -> CrossingError:
    crossing = [f.name for f, out in zip(factors, in_border, strict=True) if out]
    return CrossingError(
        f"The grouping factors {', '.join(f.name for f in factors)} cross each other, so that "
        f"{size:,} effects{' of ' + ', '.join(crossing) if crossing else ''} have to be eliminated "
        f"together; at most {_MOST_DENSE:,} are taken. Take one of them out of the formula, merge "
        "levels, or, at the last stage, use sampler='plain'."
    )
