r"""Payoffs that are a function u of the outcome: what they are on average, and functions written as text.

    E u(Y) = int u(F^-1(Phi(z))) phi(z) dz    (numbers),    sum_k u(k) P(Y = k)    (counts)

by the trapezoidal rule in z, which is exact to all digits where u is smooth and off by its step squared
where u has a kink (Trefethen and Weideman 2014, SIAM Rev. 56(3)). Outcomes that are numbers are
y = g(eta + o(z)), g the inverse of the link; scores with a floor and a ceiling are y = min(max(eta + s z,
floor), ceiling). A share y of a beta distribution is integrated over t = logit y, whose density goes with
y^a (1 - y)^b, at nodes t = eta + sinh(x) / (k p (1 - p))^(1/2) with p = a / k and k = a + b (the rule of
Takahasi and Mori 1974, Publ. RIMS 9). Of many units the mean is computed on a grid of eta for each draw, with
a cubic spline between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import expit, gammaincinv, gammaln, log_expit, log_ndtr, ndtr, stdtrit

from bdtr.trial.amount import Amount

__all__ = ["RANGES", "MeanWorth", "Utility", "WorthDrawn", "WrittenWorth"]

type Utility = Callable[[np.ndarray], np.ndarray]

_Z = np.linspace(-8.0, 8.0, 161)
_DENSITY = np.exp(-0.5 * _Z**2)
_SHARES = _DENSITY / _DENSITY.sum()
_REACH = 0.75  # of x: sinh(6) SDs of t
_COUNTS = 400  # counts that are summed over; of more, so many spread on a logarithmic scale
_GRID = 65  # of linear predictors
_FEW = 4 * _GRID  # units for which there is no grid


@dataclass(frozen=True)
class WrittenWorth:
    """A function of the outcome written as arithmetic (:mod:`bdtr.trial.amount`)."""

    text: str

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return _parsed(self.text).of(values)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names that stand in the text."""
        return _parsed(self.text).columns

    def bounds(self, low: float, high: float) -> tuple[float, float]:
        """Bounds of its values where outcomes lie between ``low`` and ``high``."""
        return _parsed(self.text).bounds(low, high)


@lru_cache(maxsize=64)
def _parsed(text: str) -> Amount:
    return Amount(text)


@dataclass(frozen=True)
class WorthDrawn:
    """Payoffs drawn at random: the function of outcomes that ``draw`` draws."""

    draw: Callable[..., np.ndarray]
    worth: Utility

    def __call__(self, rng, eta, shape, m, scores):
        return self.worth(self.draw(rng, eta, shape, m, scores))


@dataclass(frozen=True)
class MeanWorth:
    """Mean payoff of (eta, shape, scores), as a family's ``mean``; kept within ``limits``."""

    family: str
    worth: Utility
    limits: tuple[float, float] | None = None

    @property
    def takes_sigma(self) -> bool:
        """Whether it depends on sigma as well."""
        return self.family != "poisson"

    def __call__(self, eta: np.ndarray, shape: Any, scores) -> np.ndarray:
        found = self._means(np.asarray(eta, float), shape, scores)
        return found if self.limits is None else np.clip(found, *self.limits)

    def _means(self, eta: np.ndarray, shape: Any, scores) -> np.ndarray:
        if eta.ndim < 2 or eta.shape[-2] <= _FEW:
            return _mean(self.family, self.worth, eta, shape, scores)
        # On a grid from the lowest to the highest unit of each draw.
        low = eta.min(axis=-2, keepdims=True)
        width = np.maximum(eta.max(axis=-2, keepdims=True) - low, 1e-12)
        places = np.linspace(0.0, 1.0, _GRID)
        found = _mean(self.family, self.worth, low + width * places[:, None], shape, scores)
        # (power, .., place, draw)
        pieces = np.moveaxis(CubicSpline(places, found, axis=-2).c, 1, -2)
        t = (eta - low) / width
        at = np.minimum((t * (_GRID - 1)).astype(np.int64), _GRID - 2)
        rest = t - places[at]
        out = np.zeros(eta.shape)
        for power in pieces:
            out = out * rest + np.take_along_axis(np.ascontiguousarray(power), at, axis=-2)
        return out


def _mean(family: str, worth: Utility, eta: np.ndarray, shape, scores) -> np.ndarray:
    """By the rules above, one node after the other."""
    if family in ("poisson", "negative_binomial"):
        return _mean_of_counts(worth, eta, None if family == "poisson" else shape)
    if family == "beta":
        return _mean_of_shares(worth, eta, shape)
    inverse, offset = _INVERSE.get(family, _exp), _OFFSETS[family]
    out = np.zeros(np.broadcast_shapes(eta.shape, np.shape(shape)[-eta.ndim :]))
    for z, share in zip(_Z, _SHARES, strict=True):
        out += share * worth(inverse(eta + offset(z, shape), scores))
    return out


def _mean_of_shares(worth: Utility, eta: np.ndarray, shape) -> np.ndarray:
    size = 1.0 / np.maximum(shape, 1e-6) ** 2
    a, b = expit(eta) * size, expit(-eta) * size
    spread = 1.0 / np.sqrt(a * b / size)
    highest = a * log_expit(eta) + b * log_expit(-eta)
    out = total = np.zeros(np.broadcast_shapes(eta.shape, np.shape(size)))
    for x in _REACH * _Z:
        t = eta + spread * np.sinh(x)
        weight = np.cosh(x) * np.exp(a * log_expit(t) + b * log_expit(-t) - highest)
        out, total = out + weight * worth(expit(t)), total + weight
    return out / total


def _mean_of_counts(worth: Utility, eta: np.ndarray, shape) -> np.ndarray:
    mean = np.exp(eta)
    square = 0.0 if shape is None else np.maximum(shape, 1e-6) ** 2
    most = float((mean + 12.0 * np.sqrt(mean + square * mean**2) + 30.0).max())
    counts = np.arange(np.ceil(most) + 1.0)
    if len(counts) > _COUNTS:
        counts = np.unique(np.round(np.geomspace(1.0, len(counts), _COUNTS)) - 1.0)
    edges = np.concatenate([[-0.5], 0.5 * (counts[1:] + counts[:-1]), [counts[-1] + 0.5]])
    out = total = np.zeros(np.broadcast_shapes(eta.shape, np.shape(square)))
    if shape is not None:
        size = 1.0 / square
        whole, scale, spread = gammaln(size), eta + np.log(square), np.log1p(mean * square)
    for k, held, value in zip(counts, np.diff(edges), worth(counts), strict=True):
        if shape is None:
            log = k * eta - mean - gammaln(k + 1.0)
        else:
            log = gammaln(k + size) - whole - gammaln(k + 1.0)
            log = log + k * scale - (k + size) * spread
        p = held * np.exp(log)
        out, total = out + value * p, total + p
    return out / total


def _exp(eta, scores):
    return np.exp(eta)


def _same(eta, scores):
    return eta


def _between(eta, scores):
    return np.clip(eta, *scores)


def _normal(z, sigma):
    return sigma * z


def _t(z, shape):
    """By the lower tail, whose probabilities do not end at 1."""
    sigma, nu = shape
    return -np.sign(z) * sigma * stdtrit(nu, ndtr(-abs(z)))


def _weibull(z, sigma):
    return sigma * np.log(-log_ndtr(-z))


def _gamma(z, sigma):
    """Of a mean of 1."""
    square = np.maximum(sigma, 1e-6) ** 2
    return np.log(np.maximum(gammaincinv(1.0 / square, ndtr(z)) * square, 1e-300))


_INVERSE = {"gaussian": _same, "student_t": _same, "censored": _between}  # of the link; else exp
_OFFSETS: dict[str, Callable[..., np.ndarray]] = {
    "gaussian": _normal, "student_t": _t, "censored": _normal, "lognormal": _normal, "weibull": _weibull,
    "gamma": _gamma,
}  # fmt: skip
# Families whose outcomes may have a worth, and between which numbers these lie.
RANGES: dict[str, tuple[float, float]] = {
    "gaussian": (-np.inf, np.inf), "student_t": (-np.inf, np.inf), "lognormal": (0.0, np.inf),
    "weibull": (0.0, np.inf), "gamma": (0.0, np.inf), "poisson": (0.0, np.inf),
    "negative_binomial": (0.0, np.inf), "beta": (0.0, 1.0), "censored": (-np.inf, np.inf),
}  # fmt: skip
