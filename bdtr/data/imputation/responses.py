"""What a regression of a variable sees of it: numbers as normal scores, categories between cut points.

A number v is z = Phi^-1(F(v)), F a smooth distribution of recorded values; drawn z go back by its inverse,
beyond what was recorded by its slope at the ends. Ordered categories have a latent z between the cut points
Phi^-1 of their cumulative shares. Labels without an order are taken one by one, each against those after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.special import log_ndtr, ndtr, ndtri
from scipy.stats import rankdata

from bdtr.data.imputation.regression import between, log_between

__all__ = ["Categories", "Labels", "Numbers", "Response", "Times", "numbers", "standardised"]

_NORMAL = 0.99  # correlation of numbers with their normal scores
_KNOTS, _FINE, _FARTHEST = 13, 241, 2.6
_LARGEST_LOG = 50.0  # of a hazard, beyond which survival is 0
_BEYOND = 6.0  # normal scores for which the quantile function goes on beyond its knots

type Mean = Callable[[int], tuple[np.ndarray, np.ndarray]]


class Response(Protocol):
    """A variable as the regressions see it."""

    @property
    def parts(self) -> int:
        """How many regressions there are."""
        ...

    @property
    def unit(self) -> bool:
        """Whether their residual SD is 1."""
        ...

    def place(self, values: np.ndarray) -> np.ndarray:
        """Values as one number each, for means of them."""
        ...

    def latent(
        self,
        rng: np.random.Generator,
        part: int,
        values: np.ndarray,
        mean: np.ndarray,
        sd: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Response (data set, row) of one regression, and which rows it has (None: all)."""
        ...

    def log_density(self, values: np.ndarray, of: Mean) -> np.ndarray:
        """Log density (data set, row) of values, ``of`` giving mean and SD of each part."""
        ...


@dataclass(frozen=True)
class Numbers:
    """A number: its normal ``scores`` at some ``values`` (both rising), and the ``ends`` between which drawn
    ones stay."""

    values: np.ndarray
    scores: np.ndarray
    ends: tuple[float, float]
    whole: bool
    parts: int = 1
    unit: bool = False

    def score(self, values: np.ndarray) -> np.ndarray:
        """Normal scores of numbers."""
        return np.interp(values, self.values, self.scores)

    def smooth(self, scores: np.ndarray) -> np.ndarray:
        """Numbers that have these scores, between the values that can occur as well."""
        return np.interp(scores, self.scores, self.values)

    def number(self, scores: np.ndarray) -> np.ndarray:
        """Numbers that have these scores and can occur."""
        found = np.clip(self.smooth(scores), *self.ends)
        return np.rint(found) if self.whole else found

    def place(self, values: np.ndarray) -> np.ndarray:
        """Their normal scores."""
        return self.score(values)

    def latent(self, rng, part, values, mean, sd):
        return self.score(values), None

    def log_density(self, values: np.ndarray, of: Mean) -> np.ndarray:
        mean, sd = of(0)
        return -np.log(sd) - 0.5 * np.square((self.score(values) - mean) / sd)


def numbers(recorded: np.ndarray) -> Numbers:
    """From the values that were recorded: as they are, standardised, where they are nearly normal; else by a
    smooth quantile function."""
    scores = ndtri((rankdata(recorded) - 0.5) / len(recorded))
    whole = bool((recorded == np.rint(recorded)).all())
    ends = _ends(recorded, whole)
    if np.corrcoef(scores, recorded)[0, 1] > _NORMAL:
        return standardised(recorded, ends, whole)
    last = min(-float(ndtri(0.5 / len(recorded))), _FARTHEST)
    places = np.linspace(-last, last, _KNOTS)
    at, first = np.unique(np.quantile(recorded, ndtr(places), method="hazen"), return_index=True)
    knots = np.add.reduceat(places, first) / np.diff([*first, len(places)])  # middle of ties
    if len(at) < 3:
        return standardised(recorded, ends, whole)
    fine = np.linspace(knots[0], knots[-1], _FINE)
    values = PchipInterpolator(knots, at)(fine)
    values = np.maximum.accumulate(values + np.arange(_FINE) * 1e-12 * np.ptp(at))
    # On either side by the slope between the last two knots.
    more = np.array([-1.0, 1.0]) * _BEYOND
    slope = np.array(
        [(at[1] - at[0]) / (knots[1] - knots[0]), (at[-1] - at[-2]) / (knots[-1] - knots[-2])]
    )
    values = np.r_[values[0] + more[0] * slope[0], values, values[-1] + more[1] * slope[1]]
    return Numbers(values, np.r_[fine[0] + more[0], fine, fine[-1] + more[1]], ends, whole)


def _ends(recorded: np.ndarray, whole: bool) -> tuple[float, float]:
    """Between which drawn numbers stay: whole numbers between those recorded, as scores of questionnaires do;
    others not below the least that was recorded where none is negative. Who is missing may lie beyond all
    others."""
    if whole:
        return float(recorded.min()), float(recorded.max())
    return float(recorded.min()) if recorded.min() >= 0 else -np.inf, np.inf


def standardised(
    recorded: np.ndarray, ends: tuple[float, float] = (-np.inf, np.inf), whole: bool = False
) -> Numbers:
    """Numbers less their mean, divided by their SD."""
    centre, spread = recorded.mean(), recorded.std(ddof=1)
    scores = np.array([-1.0, 1.0]) * _BEYOND**2
    return Numbers(centre + spread * scores, scores, ends, whole)


@dataclass(frozen=True)
class Times:
    """A time until an event by its logarithm z, standardised; censored times stand with a minus: their z is
    above that of the number.

    Of Weibull times with shape 1/s the error is that of an extreme-value distribution, z = m + s log E with E
    exponential; with mean and SD of the regression, s = sd sqrt(6) / pi and m = mean + .577 s (Euler's
    constant).
    Coefficients are drawn as if it were normal, which is right to second moments.
    """

    centre: float
    spread: float
    weibull: bool
    parts: int = 1
    unit: bool = False

    @classmethod
    def of(cls, times: np.ndarray, weibull: bool) -> Times:
        """From recorded times, censored ones among them."""
        logs = np.log(np.abs(times))
        return cls(float(logs.mean()), float(logs.std(ddof=1)), weibull)

    def place(self, values: np.ndarray) -> np.ndarray:
        """Their logarithms."""
        return (np.log(np.abs(values)) - self.centre) / self.spread

    def latent(self, rng, part, values, mean, sd):
        z = self.place(values)
        if self.weibull:
            m, s = _extreme(mean, sd)
            hazard = np.exp(np.minimum((z - m) / s, _LARGEST_LOG))
            beyond = m + s * np.log(hazard + rng.standard_exponential(z.shape))
        else:
            beyond = mean + sd * between(rng, (z - mean) / sd, np.full(z.shape, np.inf))
        return np.where(values < 0, beyond, z), None

    def log_density(self, values: np.ndarray, of: Mean) -> np.ndarray:
        (mean, sd), z = of(0), self.place(values)
        if self.weibull:
            m, s = _extreme(mean, sd)
            w = np.minimum((z - m) / s, _LARGEST_LOG)
            return np.where(values < 0, 0.0, w - np.log(s)) - np.exp(w)
        seen = -np.log(sd) - 0.5 * np.square((z - mean) / sd)
        return np.where(values < 0, log_ndtr((mean - z) / sd), seen)


def _extreme(mean: np.ndarray, sd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Location and scale of an extreme-value distribution with this mean and SD."""
    s = sd * np.sqrt(6.0) / np.pi
    return mean + np.euler_gamma * s, s


class Coded:
    """Categories by number, from 0; ``levels`` are what stands for them in columns, where that is other
    numbers."""

    levels: np.ndarray | None

    def codes(self, values: np.ndarray) -> np.ndarray:
        """Categories of values in columns."""
        if self.levels is None:
            return values.astype(np.int64)
        return np.minimum(np.searchsorted(self.levels, values), len(self.levels) - 1)

    def place(self, values: np.ndarray) -> np.ndarray:
        """Their numbers."""
        return self.codes(values).astype(float)

    def written(self, codes: np.ndarray) -> np.ndarray:
        """Values in columns of categories."""
        return codes.astype(float) if self.levels is None else self.levels[codes]


@dataclass(frozen=True)
class Categories(Coded):
    """Ordered categories; ``cuts`` from minus to plus infinity. Of two, the SD is 1."""

    cuts: np.ndarray
    levels: np.ndarray | None = None
    parts: int = 1

    @classmethod
    def of(cls, codes: np.ndarray, count: int, levels: np.ndarray | None = None) -> Categories:
        """From the categories that were recorded."""
        shares = np.bincount(codes, minlength=count) + 0.5
        inner = ndtri(np.cumsum(shares)[:-1] / shares.sum()) if count > 2 else np.zeros(1)
        return cls(np.concatenate([[-np.inf], inner, [np.inf]]), levels)

    @property
    def count(self) -> int:
        """Number of categories."""
        return len(self.cuts) - 1

    @property
    def unit(self) -> bool:
        """Whether the residual SD is 1."""
        return self.count == 2

    def latent(self, rng, part, values, mean, sd):
        code = self.codes(values)
        low, high = (self.cuts[code] - mean) / sd, (self.cuts[code + 1] - mean) / sd
        return mean + sd * between(rng, low, high), None

    def log_density(self, values: np.ndarray, of: Mean) -> np.ndarray:
        (mean, sd), code = of(0), self.codes(values)
        return log_between((self.cuts[code] - mean) / sd, (self.cuts[code + 1] - mean) / sd)


@dataclass(frozen=True)
class Labels(Coded):
    """Labels without an order: the first against the rest, the second against those after it, .."""

    count: int
    levels: np.ndarray | None = None
    unit: bool = True

    @property
    def parts(self) -> int:
        """Number of regressions."""
        return self.count - 1

    def latent(self, rng, part, values, mean, sd):
        code = self.codes(values)
        here, infinite = code == part, np.full(code.shape, np.inf)
        low, high = np.where(here, 0.0, -infinite) - mean, np.where(here, infinite, 0.0) - mean
        return mean + between(rng, low, high), code >= part

    def log_density(self, values: np.ndarray, of: Mean) -> np.ndarray:
        code, out = self.codes(values), np.zeros(values.shape)
        for part in range(self.parts):
            mean, _ = of(part)
            out += np.where(code == part, log_ndtr(mean), 0.0)
            out += np.where(code > part, log_ndtr(-mean), 0.0)
        return out
