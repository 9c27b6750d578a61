"""Cross-products of a stage's columns and responses: all that the marginal density needs.

Rows fall into *strata* that differ in their residual SD (one per action at propagated stages); every
cross-product is kept per stratum. With C the columns of factors in the border and X the common ones,
H = [C X] is what all blocks share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from bdtr.engine.compiled.kernels import kernel
from bdtr.engine.layout import Layout

__all__ = [
    "CrossProducts",
    "ResponseProducts",
    "Responses",
    "Rows",
    "chunks",
    "cross_products",
    "evenly",
    "response_products",
    "row_values",
    "strata_of",
    "weighted",
]

_CHUNK = 128  # responses at a time: little in memory, and progress between them


@dataclass(frozen=True)
class Rows:
    """Rows of a stage's fit: common columns X, and per factor its columns Z and level codes; of a smooth term
    the basis functions and the numbers of all of them.

    ``stratum`` numbers the residual SD of each row (``strata`` of them), ``weight`` holds known
    precision weights: the residual variance of a row is sigma^2 / weight. Left out: one stratum, 1.
    """

    x: np.ndarray
    z: tuple[np.ndarray, ...]
    codes: tuple[np.ndarray, ...]
    stratum: np.ndarray | None = None
    strata: int = 1
    weight: np.ndarray | None = None

    @property
    def root(self) -> np.ndarray | None:
        """What rows are multiplied by to have residuals of equal size, None for 1."""
        return None if self.weight is None else np.sqrt(self.weight)[:, None]

    def part(self, keep: np.ndarray) -> Rows:
        """Some of the rows."""

        def some(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[keep]

        return Rows(
            self.x[keep],
            tuple(z[keep] for z in self.z),
            tuple(c[keep] for c in self.codes),
            some(self.stratum),
            self.strata,
            some(self.weight),
        )


def weighted(rows: Rows, weight: np.ndarray) -> Rows:
    """The rows with these weights, times those that are known."""
    return replace(rows, weight=weight if rows.weight is None else rows.weight * weight)


@dataclass(frozen=True)
class CrossProducts:
    """Cross-products of the columns, first axis the stratum.

    ``hth`` is H'H; ``blocks`` holds Z'[Z H] per block, flattened block by block from ``block_start``;
    ``used`` (stratum, position) says which rows of blocks are not all zero; ``rows`` counts rows;
    ``log_weight`` is the sum of their log weights.
    """

    rows: np.ndarray
    log_weight: float
    hth: np.ndarray
    blocks: np.ndarray
    block_start: np.ndarray
    used: np.ndarray
    layout: Layout

    @property
    def xtx(self) -> np.ndarray:
        """X'X over all strata."""
        border = self.layout.border.size
        return self.hth[:, border:, border:].sum(axis=0)


def chunks(which: np.ndarray) -> Iterator[np.ndarray]:
    """Some of these responses at a time."""
    for at in range(0, which.size, _CHUNK):
        yield which[at : at + _CHUNK]


def evenly(which: np.ndarray, count: int) -> np.ndarray:
    """At most so many of these responses, evenly spread over them."""
    return np.unique(which[np.linspace(0, which.size - 1, count).astype(int)])


@dataclass(frozen=True)
class Responses:
    """Cross-products with responses, (stratum, position, response): Z'y, H'y, and y'y."""

    zty: np.ndarray
    hty: np.ndarray
    yty: np.ndarray

    @property
    def count(self) -> int:
        """Number of responses."""
        return self.yty.shape[1]

    def __add__(self, other: Responses) -> Responses:
        return Responses(self.zty + other.zty, self.hty + other.hty, self.yty + other.yty)

    def only(self, which: int) -> Responses:
        """One of the responses."""
        at = slice(which, which + 1)
        return Responses(self.zty[:, :, at], self.hty[:, :, at], self.yty[:, at])

    def repeated(self, count: int) -> Responses:
        """So many copies of a single response."""
        parts = (np.repeat(a, count, axis=-1) for a in (self.zty, self.hty, self.yty))
        return Responses(*parts)

    def divided(self, by: float) -> Responses:
        """Products with the responses divided by a number."""
        return Responses(self.zty / by, self.hty / by, self.yty / by**2)

    def each(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Copies of the products with some responses, the response first: Z'y, H'y, y'y."""
        parts = (self.zty, self.hty, self.yty)
        zty, hty, yty = (np.ascontiguousarray(np.moveaxis(a[..., which], -1, 0)) for a in parts)
        return zty, hty, yty

    def total_xty(self, products: CrossProducts) -> np.ndarray:
        """X'y over all strata (term x response)."""
        return self.hty[:, products.layout.border.size :].sum(axis=0)

    def without(
        self,
        products: CrossProducts,
        coefficients: np.ndarray,
        effects: np.ndarray | None = None,
    ) -> Responses:
        """Cross-products of y - Xb - Zu for known b and u.

        Parameters
        ----------
        products
            Cross-products of the columns.
        coefficients
            b, (term x response), or (term) for all responses.
        effects
            u of all factors, (effect x response), or None for zero.

        Returns
        -------
        Responses
        """
        b = np.atleast_2d(coefficients.T).T
        if not b.any() and effects is None:
            return self
        where = products.layout
        count = max(b.shape[1], self.count)
        h = np.zeros((products.hth.shape[1], count))
        h[where.border.size :] = b
        v = np.zeros((where.inner.size, count))
        if effects is not None:
            h[: where.border.size] = effects[where.border.target]
            v[:] = effects[where.inner.target]
        zty, hty = self.zty.copy(), self.hty - products.hth @ h
        _subtract(
            products.blocks, products.block_start, where.start, np.ascontiguousarray(v),
            np.ascontiguousarray(h), zty, hty,
        )  # fmt: skip
        known = np.einsum("ms,ams->as", v, self.zty + zty)
        known += np.einsum("ps,aps->as", h, self.hty + hty)
        return Responses(zty, hty, np.maximum(self.yty - known, 0.0))


def cross_products(rows: Rows, where: Layout) -> CrossProducts:
    """One pass over the rows: Z'Z and Z'H per block, H'H."""
    stratum = strata_of(rows)
    x, z, at, c, c_at, block_of = row_values(rows, where)
    p, border, strata = x.shape[1], where.border.size, rows.strata
    sizes = np.diff(where.start)
    block_start = np.concatenate([[0], np.cumsum(sizes * (sizes + border + p))]).astype(np.int64)
    blocks = np.zeros((strata, int(block_start[-1])))
    hth = np.zeros((strata, border + p, border + p))
    used = np.zeros((strata, where.inner.size), dtype=np.bool_)
    _mark(at, stratum, used)
    _accumulate_blocks(
        x, z, at, c, c_at, stratum, block_of, where.start, block_start, blocks, hth, border
    )
    for a in range(strata):
        mine = x if strata == 1 else x[stratum == a]
        hth[a, border:, border:] = mine.T @ mine
        hth[a, border:, :border] = hth[a, :border, border:].T
    log_weight = 0.0 if rows.weight is None else float(np.log(rows.weight).sum())
    sizes = np.bincount(stratum, minlength=strata).astype(np.int64)
    return CrossProducts(sizes, log_weight, hth, blocks, block_start, used, where)


def response_products(rows: Rows, where: Layout, y: np.ndarray) -> Responses:
    """Cross-products with responses y (row x response)."""
    total = ResponseProducts(rows, where, y.shape[1])
    total.add(slice(0, len(y)), y)
    return total.responses


class ResponseProducts:
    """Cross-products with responses that come in blocks of rows.

    Parameters
    ----------
    rows
        All rows.
    where
        Layout of the group effects.
    count
        Number of responses.
    """

    def __init__(self, rows: Rows, where: Layout, count: int):
        self._stratum = strata_of(rows)
        self._x, self._z, self._at, self._c, self._c_at, _ = row_values(rows, where)
        self._root, self._border = rows.root, where.border.size
        strata, wide = rows.strata, where.border.size + rows.x.shape[1]
        self.responses = Responses(
            np.zeros((strata, where.inner.size, count)),
            np.zeros((strata, wide, count)),
            np.zeros((strata, count)),
        )

    def add(self, rows: slice, y: np.ndarray) -> None:
        """Add a block of rows with responses y (row x response)."""
        y = np.ascontiguousarray(y if self._root is None else y * self._root[rows])
        stratum, x, total = self._stratum[rows], self._x[rows], self.responses
        _accumulate_responses(self._z[rows], self._at[rows], stratum, y, total.zty)
        _accumulate_responses(self._c[rows], self._c_at[rows], stratum, y, total.hty)
        strata = len(total.yty)
        for a in range(strata):
            own = y if strata == 1 else y[stratum == a]
            of_x = x if strata == 1 else x[stratum == a]
            total.hty[a, self._border :] += of_x.T @ own
            _accumulate_squares(own, total.yty[a])


def strata_of(rows: Rows) -> np.ndarray:
    """The stratum of each row."""
    if rows.stratum is None:
        return np.zeros(len(rows.x), dtype=np.int64)
    stratum = np.ascontiguousarray(rows.stratum, dtype=np.int64)
    # Compiled kernels do not check bounds.
    if stratum.size and (stratum.min() < 0 or stratum.max() >= rows.strata):
        raise IndexError(f"A stratum is outside 0..{rows.strata - 1}.")
    return stratum


def row_values(rows: Rows, where: Layout):
    """Per row: common columns, group columns with their positions in blocks and border, the block."""
    x = np.ascontiguousarray(rows.x)
    inner, inner_at, outer, outer_at = [], [], [], []
    parts = zip(where.factors, rows.z, rows.codes, where.position, where.in_border, strict=True)
    for factor, z, code, position, in_border in parts:
        places = (
            position[code] if factor.smooth else position[code][:, None] + np.arange(factor.terms)
        )
        (outer if in_border else inner).append(z)
        (outer_at if in_border else inner_at).append(places)
    count = len(x)

    def joined(found: list[np.ndarray], kind) -> np.ndarray:
        if len(found) == 1:
            return np.ascontiguousarray(found[0], dtype=kind)
        return np.ascontiguousarray(np.hstack(found) if found else np.zeros((count, 0)), dtype=kind)

    z, at = joined(inner, float), joined(inner_at, np.int64)
    c, c_at = joined(outer, float), joined(outer_at, np.int64)
    block = np.zeros(count, dtype=np.int64)
    if inner:
        of_position = np.repeat(np.arange(where.blocks), np.diff(where.start))
        block = of_position[at[:, 0]]
    if rows.root is not None:
        x, z, c = x * rows.root, z * rows.root, c * rows.root
    return x, z, at, c, c_at, block


@kernel
def _accumulate_blocks(x, z, at, c, c_at, stratum, block_of, start, block_start, out, hth, border):
    n, p = x.shape
    q, r = z.shape[1], c.shape[1]
    for i in range(n):
        j = block_of[i]
        into = out[stratum[i]]
        first = start[j]
        m = start[j + 1] - first
        width = m + border + p
        for a in range(q):
            value = z[i, a]
            if value == 0.0:
                continue
            row = block_start[j] + (at[i, a] - first) * width
            for b in range(q):
                into[row + at[i, b] - first] += value * z[i, b]
            for b in range(r):
                into[row + m + c_at[i, b]] += value * c[i, b]
            row += m + border
            for b in range(p):
                into[row + b] += value * x[i, b]
        for a in range(r):
            value = c[i, a]
            if value == 0.0:
                continue
            own = hth[stratum[i], c_at[i, a]]
            for b in range(r):
                own[c_at[i, b]] += value * c[i, b]
            for b in range(p):
                own[border + b] += value * x[i, b]


@kernel
def _mark(at, stratum, used):
    for i in range(at.shape[0]):
        for a in range(at.shape[1]):
            used[stratum[i], at[i, a]] = True


@kernel
def _accumulate_responses(z, at, stratum, y, out):
    for i in range(z.shape[0]):
        for a in range(z.shape[1]):
            value = z[i, a]
            if value == 0.0:
                continue
            into = out[stratum[i], at[i, a]]
            for s in range(into.size):
                into[s] += value * y[i, s]


@kernel
def _accumulate_squares(y, out):
    for i in range(y.shape[0]):
        row = y[i]
        for s in range(row.size):
            out[s] += row[s] * row[s]


@kernel
def _subtract(blocks, block_start, start, v, h, zty, hty):
    """zty -= Z'Z v + Z'H h and hty -= H'Z v, responses along the last axis."""
    wide = h.shape[0]
    for a in range(blocks.shape[0]):
        for j in range(start.size - 1):
            first = start[j]
            m = start[j + 1] - first
            for i in range(m):
                row = block_start[j] + i * (m + wide)
                into = zty[a, first + i]
                for k in range(m):
                    value = blocks[a, row + k]
                    if value == 0.0:
                        continue
                    other = v[first + k]
                    for s in range(into.size):
                        into[s] -= value * other[s]
                own = v[first + i]
                for k in range(wide):
                    value = blocks[a, row + m + k]
                    if value == 0.0:
                        continue
                    other = h[k]
                    back = hty[a, k]
                    for s in range(into.size):
                        into[s] -= value * other[s]
                        back[s] -= value * own[s]
