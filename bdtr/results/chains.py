"""R-hat and effective sample size of many quantities at once.

The rank-normalised split R-hat and the bulk and tail effective sample sizes of Vehtari, Gelman, Simpson,
Carpenter and Bürkner (2021, Bayesian Analysis 16(2)), as ArviZ computes them, for the thousands of
quantities that the gate looks at: one at a time they would take longer than the fit.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from scipy.special import ndtri

from bdtr.results.threads import spread

__all__ = ["measures", "rhat"]

_CELLS = 1_000_000  # numbers in memory at once
_LEAST = 4  # draws of a chain, as in ArviZ: fewer say nothing
_TAILS = 0.05, 0.95


def rhat(draws: np.ndarray) -> np.ndarray:
    """Rank-normalised split R-hat: the larger of that of the draws and of their folded version.

    Parameters
    ----------
    draws
        (quantity, chain, draw).

    Returns
    -------
    numpy.ndarray
        One number per quantity; not a number where draws do not vary or are not finite.
    """
    return _measured(draws, False)[0]


def measures(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """R-hat and the bulk and tail effective sample sizes of every quantity.

    The bulk one is of the rank-normalised draws, the tail one the smaller of those of the 5 % and the 95 %
    quantile.

    Parameters
    ----------
    draws
        (quantity, chain, draw).

    Returns
    -------
    rhat, bulk, tail : numpy.ndarray
        One number per quantity each.
    """
    found = _measured(draws, True)
    return found[0], found[1], found[2]


def _measured(draws: np.ndarray, effective: bool) -> np.ndarray:
    """Measures (measure, quantity); of R-hat alone where ``effective`` is false.

    Each quantity is sorted once: ranks, quantiles, and the ranks of its distances from the median, by a
    merge from there to both sides, follow from that order.
    """
    count, chains, n = draws.shape
    out = np.full((3, count), np.nan)
    if n < _LEAST:
        return out
    where, kept = _halves(chains, n)
    scores = _scores(kept)
    size = max(1, _CELLS // (chains * n))
    for at in range(0, count, size):
        part = np.ascontiguousarray(draws[at : at + size], dtype=float).reshape(-1, chains * n)
        order = part.argsort(axis=1)
        shape = 2 * chains, kept // (2 * chains)
        spread(
            _measure,
            len(part),
            part,
            order,
            where,
            scores,
            shape,
            effective,
            out[:, at : at + size],
        )
    return out


@lru_cache(maxsize=8)
def _halves(chains: int, n: int) -> tuple[np.ndarray, int]:
    """Place of each draw where every chain counts as two, and how many places there are; -1 for the middle
    draw of an odd number, which is left out."""
    half = n // 2
    where = np.full((chains, n), -1)
    both = np.arange(2 * chains * half).reshape(chains, 2 * half)
    where[:, :half], where[:, n - half :] = both[:, :half], both[:, half:]
    return where.ravel(), both.size


@lru_cache(maxsize=8)
def _scores(count: int) -> np.ndarray:
    """Normal scores of the ranks 0, 1/2, 1, .. (at twice the rank) among so many draws."""
    ranks = np.arange(2 * count + 1) / 2
    return ndtri(np.clip((ranks - 0.375) / (count + 0.25), 0.0, 1.0))


@njit(cache=True, nogil=True)
def _measure(first, last, draws, order, where, scores, shape, effective, out):
    total = shape[0] * shape[1]
    values, place = np.empty(total), np.empty(total, np.int64)
    folded, folded_place = np.empty(total), np.empty(total, np.int64)
    flat = np.empty(total)
    split = flat.reshape(shape)
    for q in range(first, last):
        own, kept = draws[q], 0
        if not np.isfinite(own).all():  # as it stands: missing
            continue
        for i in order[q]:  # in the order of their values, those that are in a half
            place[kept], values[kept] = where[i], own[i]
            kept += where[i] >= 0
            if kept == total:
                break
        _ranked(values, place, scores, flat)
        r = _plain_rhat(split)
        if effective:
            out[1, q] = _ess(split)
        median = 0.5 * (values[total // 2 - 1] + values[total // 2])
        _merged(values, place, median, folded, folded_place)
        _ranked(folded, folded_place, scores, flat)
        of_folded = _plain_rhat(split)
        out[0, q] = of_folded if np.isnan(r) else r if np.isnan(of_folded) else max(r, of_folded)
        if effective:
            tail = np.inf
            for share in _TAILS:
                cut = _quantile(own, order[q], share)
                for i in range(total):
                    flat[place[i]] = 1.0 if values[i] <= cut else 0.0
                tail = min(tail, _ess(split))
            out[2, q] = tail


@njit(cache=True, nogil=True)
def _ranked(values, place, scores, flat):
    """Normal scores of sorted values where they belong, ties having their mean rank."""
    i = 0
    while i < values.size:
        j = i + 1
        while j < values.size and values[j] == values[i]:
            j += 1
        score = scores[i + 1 + j]  # twice the mean of the ranks i + 1 to j
        for k in range(i, j):
            flat[place[k]] = score
        i = j


@njit(cache=True, nogil=True)
def _merged(values, place, median, folded, folded_place):
    """Distances of sorted values from their median, sorted."""
    right = np.searchsorted(values, median)
    left = right - 1
    for i in range(values.size):
        if left < 0:
            leftwards = False
        elif right >= values.size:
            leftwards = True
        else:
            leftwards = median - values[left] <= values[right] - median
        at = left if leftwards else right
        folded[i], folded_place[i] = abs(values[at] - median), place[at]
        if leftwards:
            left -= 1
        else:
            right += 1


@njit(cache=True, nogil=True)
def _quantile(own, order, share):
    """Quantile between neighbours, as numpy's."""
    position = share * (order.size - 1)
    low = int(np.floor(position))
    weight = position - low
    below, above = own[order[low]], own[order[min(low + 1, order.size - 1)]]
    if weight < 0.5:
        return below + (above - below) * weight
    return above - (above - below) * (1.0 - weight)


@njit(cache=True, nogil=True)
def _plain_rhat(split):
    chains, n = split.shape
    means, within = np.empty(chains), 0.0
    for c in range(chains):
        means[c] = split[c].mean()
        squares = 0.0
        for value in split[c]:
            squares += (value - means[c]) ** 2
        within += squares / (n - 1) / chains
    between = 0.0
    centre = means.mean()
    for mean in means:
        between += n * (mean - centre) ** 2 / (chains - 1)
    if within == 0.0:
        return np.nan if between == 0.0 else np.inf
    return np.sqrt((between / within + n - 1) / n)


@njit(cache=True, nogil=True)
def _ess(own):
    """Effective sample size from Geyer's initial monotone sequence of paired autocorrelations."""
    chains, n = own.shape
    total = chains * n
    if own.max() - own.min() < 1e-15:
        return float(total)
    centred = np.empty((chains, n))
    means = np.empty(chains)
    for c in range(chains):
        means[c] = own[c].mean()
        centred[c] = own[c] - means[c]
    within = (centred * centred).sum() / (chains * n) * n / (n - 1.0)
    variance = within * (n - 1.0) / n
    if chains > 1:
        variance += ((means - means.mean()) ** 2).sum() / (chains - 1.0)
    rho = np.zeros(n)
    rho[0] = 1.0
    rho[1] = _correlation(centred, 1, within, variance)
    even, odd = 1.0, rho[1]
    lag = 1
    while lag < n - 3 and even + odd > 0.0:
        even = _correlation(centred, lag + 1, within, variance)
        odd = _correlation(centred, lag + 2, within, variance)
        if even + odd >= 0.0:
            rho[lag + 1], rho[lag + 2] = even, odd
        lag += 2
    last = lag - 2
    if even > 0.0:
        rho[last + 1] = even
    lag = 1
    while lag <= last - 2:  # pairs may not grow
        if rho[lag + 1] + rho[lag + 2] > rho[lag - 1] + rho[lag]:
            rho[lag + 1] = 0.5 * (rho[lag - 1] + rho[lag])
            rho[lag + 2] = rho[lag + 1]
        lag += 2
    time = -1.0 + 2.0 * rho[: last + 1].sum() + rho[last + 1]
    return total / max(time, 1.0 / np.log10(total))


@njit(cache=True, nogil=True)
def _correlation(centred, lag, within, variance):
    """Autocorrelation at a lag, all chains together."""
    chains, n = centred.shape
    total = 0.0
    for c in range(chains):
        left, right = centred[c, : n - lag], centred[c, lag:]
        for i in range(left.size):
            total += left[i] * right[i]
    return 1.0 - (within - total / (chains * n)) / variance
