"""Nodes and weights of integrals over a state, and the closed form for a Gaussian one.

An integral over a state of a function that jumps at known places is the sum of those between them; each is
taken by Gauss-Legendre quadrature with as many nodes as its part of the whole range asks for. All is ragged:
arrays of nodes, with the row that each belongs to.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numba import njit

from bdtr.results.threads import spread

__all__ = [
    "Pieces",
    "add_expected_lines",
    "best_between",
    "hermite",
    "legendre",
    "one_piece",
    "quasi_random",
]

_ROOT_HALF, _PEAK = math.sqrt(0.5), 1.0 / math.sqrt(2.0 * math.pi)


class Pieces:
    """Parts of the ranges of rows: ``row`` (sorted), from ``low`` to ``high``."""

    def __init__(self, row: np.ndarray, low: np.ndarray, high: np.ndarray):
        self.row, self.low, self.high = row, low, high

    @classmethod
    def cut(cls, low: np.ndarray, high: np.ndarray, row: np.ndarray, at: np.ndarray) -> Pieces:
        """The ranges of all rows, cut at places (row, at)."""
        every = np.arange(len(low))
        rows = np.concatenate([every, row, every])
        places = np.concatenate([low, at, high])
        order = np.lexsort((places, rows))
        rows, places = rows[order], places[order]
        same = rows[:-1] == rows[1:]
        return cls(rows[:-1][same], places[:-1][same], places[1:][same])


def one_piece(low: np.ndarray, high: np.ndarray) -> Pieces:
    """Ranges that are not cut."""
    none = np.zeros(0)
    return Pieces.cut(low, high, none.astype(np.int64), none)


@cache
def _rule(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(count)


def legendre(
    pieces: Pieces, whole: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes of pieces of ranges, ``most`` of them for a whole one.

    Returns
    -------
    row, place, weight : numpy.ndarray
        (node), rows sorted.
    """
    width = pieces.high - pieces.low
    share = width / np.maximum(whole[pieces.row], 1e-300)
    count = np.clip(np.ceil(share * most).astype(np.int64) + 1, 2, most)
    starts = np.cumsum(count) - count
    place, weight = np.empty(count.sum()), np.empty(count.sum())
    for n in np.unique(count):
        x, w = _rule(int(n))
        own = np.flatnonzero(count == n)
        at = starts[own, None] + np.arange(n)
        place[at] = pieces.low[own, None] + 0.5 * width[own, None] * (x + 1.0)
        weight[at] = 0.5 * width[own, None] * w
    return np.repeat(pieces.row, count), place, weight


def hermite(
    row: np.ndarray, centre: np.ndarray, sd: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gauss-Hermite nodes about the centres of rows; weights are for integrals of functions that are next to
    a normal density, which they hold.

    Returns
    -------
    row, place, weight : numpy.ndarray
        (node), rows sorted.
    """
    x, w = np.polynomial.hermite_e.hermegauss(count)
    place = centre[:, None] + sd[:, None] * x
    weight = sd[:, None] * (w * np.exp(0.5 * x * x))
    return np.repeat(row, count), place.ravel(), weight.ravel()


@cache
def quasi_random(states: int, count: int) -> np.ndarray:
    """Scrambled Sobol points (point, state), the same for all rows, actions and draws."""
    from scipy.stats import qmc

    return qmc.Sobol(states, rng=20_241).random(count)


def best_between(
    level: np.ndarray, slope: np.ndarray, feasible: np.ndarray, low: np.ndarray, high: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Where each of several lines is the highest of the feasible ones, between ``low`` and ``high``.

    Parameters
    ----------
    level, slope
        Lines (line, ...), the values at x being ``level + slope * x``.
    feasible
        (line, ...).
    low, high
        (...).

    Returns
    -------
    list
        For each line its interval, empty where the upper end is not above the lower one. Of lines that are
        the same the first counts.
    """
    out = []
    shape = np.broadcast_shapes(level.shape[1:], low.shape)
    for a in range(len(level)):
        start, end = np.broadcast_to(low, shape).copy(), np.broadcast_to(high, shape).copy()
        end[np.broadcast_to(~feasible[a], shape)] = -np.inf
        for b in range(len(level)):
            if a == b:
                continue
            rise, gap = slope[a] - slope[b], level[b] - level[a]
            with np.errstate(divide="ignore", invalid="ignore"):
                crossing = gap / rise
            never = (rise == 0) & ((gap > 0) | ((gap == 0) & (b < a)))
            use = feasible[b]
            np.maximum(start, crossing, out=start, where=use & (rise > 0))
            np.minimum(end, crossing, out=end, where=use & (rise < 0))
            end[np.broadcast_to(use & never, shape)] = -np.inf
        out.append((start, end))
    return out


def add_expected_lines(
    out: np.ndarray,
    row: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
    at: tuple[float, float],
    mean: np.ndarray,
    sd: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> None:
    """Add E[v(x) 1(low < x < high)] to each piece, for a line v and x ~ Normal(mean, sd).

    With l = (low - mean)/sd, u = (high - mean)/sd and D = Phi(u) - Phi(l) it is
    v(mean) D - slope sd (phi(u) - phi(l)). Of the higher of two lines these add up to the mean of a folded
    normal (Leone, Nelson and Nottingham 1961, Technometrics 3(4)).

    Parameters
    ----------
    out
        (piece, sample).
    row
        Row of each piece.
    ends
        Values of the line at the two numbers ``at`` (row, sample).
    mean, sd
        (row, sample).
    low, high
        (piece, sample), or one for all samples.
    """
    spread(
        _add_lines, len(row), out, row, ends[0], ends[1], at[0], 1.0 / (at[1] - at[0]), mean, sd, low, high
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _add_lines(first, last, out, row, start, end, at, scale, mean, sd, low, high):
    for i in range(first, last):
        r = row[i]
        for s in range(out.shape[1]):
            a, b = low[i, s if low.shape[1] > 1 else 0], high[i, s if high.shape[1] > 1 else 0]
            if not b > a:
                continue
            slope = (end[r, s] - start[r, s]) * scale
            value, own = start[r, s] + slope * (mean[r, s] - at), sd[r, s]
            inside, edge = 1.0, 0.0
            if a > -np.inf:
                z = (a - mean[r, s]) / own
                inside -= 0.5 * math.erfc(-z * _ROOT_HALF)
                edge -= math.exp(-0.5 * z * z) * _PEAK
            if b < np.inf:
                z = (b - mean[r, s]) / own
                inside -= 0.5 * math.erfc(z * _ROOT_HALF)
                edge += math.exp(-0.5 * z * z) * _PEAK
            out[i, s] += value * inside - slope * own * edge
