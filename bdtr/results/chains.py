"""R-hat and effective sample size of many quantities at once.

The rank-normalised split R-hat and the bulk and tail effective sample sizes of Vehtari, Gelman, Simpson,
Carpenter and Bürkner (2021, Bayesian Analysis 16(2)), as ArviZ computes them, for the thousands of
quantities that the gate looks at: one at a time they would take longer than the fit.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.special import ndtri
from scipy.stats import rankdata

from bdtr.results.threads import side_by_side

__all__ = ["measures", "rhat"]

_CELLS = 1_000_000  # numbers in memory at once
_TAILS = (0.05, 0.95)


def rhat(draws: np.ndarray) -> np.ndarray:
    """Rank-normalised split R-hat: the larger of that of the draws and of their folded version.

    Parameters
    ----------
    draws
        (quantity, chain, draw).

    Returns
    -------
    numpy.ndarray
        One number per quantity; not a number where draws do not vary.
    """
    return _in_parts(lambda part: _rhat(part, _normal_scores(_split(part)))[None], draws)[0]


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

    def all_three(part: np.ndarray) -> np.ndarray:
        scores = _normal_scores(_split(part))
        cuts = np.quantile(part, _TAILS, axis=(1, 2))
        tails = [_ess(_split((part <= c[:, None, None]).astype(float))) for c in cuts]
        return np.stack([_rhat(part, scores), _ess(scores), np.minimum(*tails)])

    found = _in_parts(all_three, draws, 3)
    return found[0], found[1], found[2]


def _in_parts(measure, draws: np.ndarray, rows: int = 1) -> np.ndarray:
    """Measures (measure, quantity), parts of the quantities side by side."""
    if draws.shape[2] < 4 or not len(draws):  # as in ArviZ: so few say nothing
        return np.full((rows, len(draws)), np.nan)
    size = max(1, _CELLS // draws[0].size)
    parts = [draws[at : at + size] for at in range(0, len(draws), size)]
    return np.concatenate(side_by_side(measure, parts), axis=1)  # sorting needs no lock


def _rhat(part: np.ndarray, scores: np.ndarray) -> np.ndarray:
    split = _split(part)
    folded = np.abs(split - np.median(split, axis=(1, 2), keepdims=True))
    return np.fmax(_plain_rhat(scores), _plain_rhat(_normal_scores(folded)))


def _split(draws: np.ndarray) -> np.ndarray:
    """Each chain as two; the middle draw of an odd number is left out."""
    half = draws.shape[2] // 2
    return np.concatenate([draws[:, :, :half], draws[:, :, draws.shape[2] - half :]], axis=1)


def _normal_scores(split: np.ndarray) -> np.ndarray:
    flat = split.reshape(len(split), -1)
    ranks = rankdata(flat, axis=1)
    return ndtri((ranks - 0.375) / (flat.shape[1] + 0.25)).reshape(split.shape)


def _plain_rhat(split: np.ndarray) -> np.ndarray:
    n = split.shape[2]
    between = n * split.mean(axis=2).var(axis=1, ddof=1)
    within = split.var(axis=2, ddof=1).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((between / within + n - 1) / n)


def _ess(split: np.ndarray) -> np.ndarray:
    """Effective sample size from Geyer's initial monotone sequence of paired autocorrelations."""
    out = np.empty(len(split))
    _fill_ess(0, len(split), split, out)
    return out


@njit(cache=True, nogil=True)
def _fill_ess(first, last, split, out):
    chains, n = split.shape[1], split.shape[2]
    for q in range(first, last):
        own = split[q]
        total = chains * n
        if own.max() - own.min() < 1e-15:
            out[q] = total
            continue
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
        out[q] = total / max(time, 1.0 / np.log10(total))


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
