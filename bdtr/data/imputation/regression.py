r"""Multilevel regressions of several completed data sets at once, one Gibbs step after another.

    r_i = x_i'b + sum_f z_fi'u_f[level] + e_i,   e_i ~ N(0, s_a^2),   u_f ~ N(0, S_f),   b ~ N(0, B)

for each completed data set, in which x and r differ. Coefficients and effects of the first factor are drawn
together, effects of further ones given the rest. SDs have half-t priors as scale mixtures,

    S | a ~ IW(nu + t - 1, 2 nu diag(1 / a)),   a_k ~ IG(1/2, 1 / A_k^2):   S_kk^(1/2) ~ half-t(nu, A_k)

(Huang and Wand 2013, Bayesian Anal. 8(2)). Responses are standardised, and so are columns: A is .5 for
effects of groups and 1 for residuals, B is 1.5^2, of the constant 2.5^2.

An outcome in ordered categories is a latent r between cut points: those that its shares have in a standard
normal, or 0 and s = 1 where there are two (Albert and Chib 1993, JASA 88(422)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri

__all__ = ["Groups", "Regression", "between", "log_between"]

_NU = 3.0
_SPREAD, _CONSTANT = 1.5, 2.5  # prior SDs of coefficients
_GROUP_SD, _RESIDUAL_SD = 0.5, 1.0
_LEAST = 1e-10


@dataclass(frozen=True)
class Groups:
    """A grouping factor: level of each row, the order that sorts rows by level, and where levels begin."""

    codes: np.ndarray
    levels: int
    terms: int
    order: np.ndarray
    first: np.ndarray
    present: np.ndarray

    @classmethod
    def of(cls, codes: np.ndarray, levels: int, terms: int) -> Groups:
        """From the level of each row."""
        order = np.argsort(codes, kind="stable")
        present, first = np.unique(codes[order], return_index=True)
        return cls(codes, levels, terms, order, first, present)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums (data set, level, ..) of values (data set, row, ..)."""
        out = np.zeros((len(values), self.levels, *values.shape[2:]))
        out[:, self.present] = np.add.reduceat(values[:, self.order], self.first, axis=1)
        return out


class Regression:
    """State of one regression in each completed data set.

    Parameters
    ----------
    x
        Columns (data set, row, column) at the start; the first is the constant.
    groups
        Grouping factors.
    stratum, strata
        Which residual SD each row has, and how many there are.
    unit
        Whether the residual SD is 1, as of a latent response of a yes/no outcome.
    """

    def __init__(
        self,
        x: np.ndarray,
        groups: Sequence[Groups],
        stratum: np.ndarray,
        strata: int,
        unit: bool,
    ):
        sets, _, p = x.shape
        pooled = x.reshape(-1, p)
        self.centre, self.scale = pooled.mean(axis=0), pooled.std(axis=0)
        still = self.scale <= 1e-9 * np.maximum(np.abs(self.centre), 1.0)
        self.centre[still], self.scale[still] = 0.0, 1.0
        self.groups, self.stratum, self.strata, self.unit = tuple(groups), stratum, strata, unit
        self.precision = np.full(p, _SPREAD**-2)
        self.precision[0] = _CONSTANT**-2
        self.b = np.zeros((sets, p))
        self.effects = [np.zeros((sets, g.levels, g.terms)) for g in groups]
        self.covariance = [np.tile(0.1 * np.eye(g.terms), (sets, 1, 1)) for g in groups]
        self.mixing = [np.ones((sets, g.terms)) for g in groups]
        self.variance, self.mixing_residual = np.ones((2, sets, strata))

    def columns(self, x: np.ndarray) -> np.ndarray:
        """Standardised columns."""
        return (x - self.centre) / self.scale

    def mean(self, x: np.ndarray, z: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
        """Mean (data set, row) of the response, of rows with these columns and group columns."""
        out = (self.columns(x) @ self.b[:, :, None])[..., 0]
        for group, own, effects in zip(self.groups, z, self.effects, strict=True):
            out = out + (own * effects[:, group.codes[rows]]).sum(axis=-1)
        return out

    def residual_sd(self, rows: np.ndarray) -> np.ndarray:
        """Residual SD (data set, row)."""
        return np.sqrt(self.variance)[:, self.stratum[rows]]

    def draw(
        self,
        rng: np.random.Generator,
        x: np.ndarray,
        z: Sequence[np.ndarray],
        r: np.ndarray,
        among: np.ndarray | None = None,
    ) -> None:
        """One Gibbs step for all parameters, given columns, group columns and responses of all rows, or of
        those that it is among."""
        x, w = self.columns(x), 1.0 / self.variance[:, self.stratum]
        w = w if among is None else w * among
        for f in range(len(self.groups) - 1, 0, -1):
            rest = r - self._without(x, z, f)
            self.effects[f] = self._effects(rng, f, z[f], w, rest)
        rest = r - self._without(x, z, 0, coefficients=False)
        self._coefficients(rng, x, z, w, rest)
        for f in range(len(self.groups)):
            self._covariance(rng, f)
        if not self.unit:
            self._variance(rng, r - self._without(x, z, None))

    def _without(
        self, x: np.ndarray, z: Sequence[np.ndarray], f: int | None, coefficients: bool = True
    ) -> np.ndarray:
        """Mean without the effects of one factor, or without the coefficients as well."""
        out = (x @ self.b[:, :, None])[..., 0] if coefficients else np.zeros(x.shape[:2])
        for g, (group, own) in enumerate(zip(self.groups, z, strict=True)):
            if g != f:
                out = out + (own * self.effects[g][:, group.codes]).sum(axis=-1)
        return out

    def _coefficients(self, rng, x, z, w, r) -> None:
        """Coefficients with the effects of the first factor integrated out, then these."""
        sets, _, p = x.shape
        xw = x * w[..., None]
        c = np.swapaxes(xw, 1, 2) @ x + np.diag(self.precision)
        y = (np.swapaxes(xw, 1, 2) @ r[..., None])[..., 0]
        if self.groups:
            group, own = self.groups[0], z[0]
            zw = own * w[..., None]
            across = group.sums(zw[..., :, None] * x[..., None, :])
            a = group.sums(zw[..., :, None] * own[..., None, :])
            a = a + np.linalg.inv(self.covariance[0])[:, None]
            ry = group.sums(zw * r[..., None])
            left = np.linalg.solve(a, np.concatenate([across, ry[..., None]], axis=-1))
            both = np.einsum("dltp,dltq->dpq", across, left)
            c, y = c - both[..., :p], y - both[..., p]
        root = np.linalg.cholesky(c)
        noise = rng.standard_normal((sets, p, 1))
        at = np.linalg.solve(root, y[..., None]) + noise
        self.b = np.linalg.solve(np.swapaxes(root, 1, 2), at)[..., 0]
        if self.groups:
            rest = ry - np.einsum("dltp,dp->dlt", across, self.b)
            self.effects[0] = _normal(rng, a, rest)

    def _effects(self, rng, f, own, w, r) -> np.ndarray:
        group, zw = self.groups[f], own * w[..., None]
        a = group.sums(zw[..., :, None] * own[..., None, :])
        a = a + np.linalg.inv(self.covariance[f])[:, None]
        return _normal(rng, a, group.sums(zw * r[..., None]))

    def _covariance(self, rng, f) -> None:
        t, u = self.groups[f].terms, self.effects[f]
        scale = 2 * _NU * np.eye(t) / self.mixing[f][:, None, :] + np.swapaxes(u, 1, 2) @ u
        self.covariance[f] = _inverse_wishart(rng, _NU + t - 1 + u.shape[1], scale)
        inverse = np.diagonal(np.linalg.inv(self.covariance[f]), axis1=1, axis2=2)
        rate = _NU * inverse + _GROUP_SD**-2
        self.mixing[f] = rate / rng.gamma((_NU + t) / 2, size=rate.shape)

    def _variance(self, rng, rest) -> None:
        squares = np.stack([np.bincount(self.stratum, row, self.strata) for row in np.square(rest)])
        count = np.bincount(self.stratum, minlength=self.strata)
        rate = _NU / self.mixing_residual + squares / 2
        self.variance = rate / rng.gamma((_NU + count) / 2, size=rate.shape)
        rate = _NU / self.variance + _RESIDUAL_SD**-2
        self.mixing_residual = rate / rng.gamma((_NU + 1) / 2, size=rate.shape)


def _normal(rng, precision: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Normal vectors with precisions A and means A^-1 y."""
    root = np.linalg.cholesky(precision)
    at = np.linalg.solve(root, y[..., None]) + rng.standard_normal((*y.shape, 1))
    return np.linalg.solve(np.swapaxes(root, -1, -2), at)[..., 0]


def _inverse_wishart(rng, df: float, scale: np.ndarray) -> np.ndarray:
    """Inverse Wishart matrices by Bartlett's decomposition."""
    sets, t, _ = scale.shape
    if t == 1:
        return scale / rng.chisquare(df, (sets, 1, 1))
    low = np.tril(rng.standard_normal((sets, t, t)), -1)
    at = np.arange(t)
    low[:, at, at] = np.sqrt(rng.chisquare(df - at, (sets, t)))
    root = np.linalg.cholesky(np.linalg.inv(scale)) @ low
    out = np.linalg.inv(root @ np.swapaxes(root, 1, 2))
    return 0.5 * (out + np.swapaxes(out, 1, 2))


def between(rng: np.random.Generator, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Standard normal numbers between ends, in the tail where there is more room in it."""
    flip = low > 0
    a, b = np.where(flip, -high, low), np.where(flip, -low, high)
    p, q = ndtr(a), ndtr(b)
    u = p + rng.random(a.shape) * np.maximum(q - p, _LEAST * q)
    found = np.clip(ndtri(np.clip(u, 1e-300, 1 - 1e-16)), a, b)
    return np.where(flip, -found, found)


def log_between(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Log probability of a standard normal number between ends."""
    flip = low > 0
    a, b = np.where(flip, -high, low), np.where(flip, -low, high)
    top, bottom = log_ndtr(b), log_ndtr(a)
    with np.errstate(divide="ignore", invalid="ignore"):
        return top + np.log1p(-np.exp(np.minimum(bottom - top, 0.0)))
