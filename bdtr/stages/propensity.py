r"""Probabilities of what happens to a unit given its history: a multilevel categorical regression.

    P(C = c | x, site j) proportional to exp(alpha_c + x'b_c + u_jc) over the categories that are possible,
    alpha_c ~ N(0, 2.5^2), b_c ~ N(0, 1) for standardised columns, u_jc ~ N(0, tau_c^2), tau_c ~ HN(1),

the first category being the reference. Given tau the posterior of coefficients and effects is taken as
normal at its mode (Tierney and Kadane 1986, JASA 81(393)), found by Newton steps in which the effects of
sites are eliminated one site at a time; log tau is put at its posterior mode by expectation and maximisation
(Stiratelli, Laird and Ware 1984, Biometrics 40(4)). Probabilities are averaged over draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

__all__ = ["category_probabilities"]

_AVERAGED = 200  # draws that probabilities are averaged over
_STEPS = 100  # Newton steps, and rounds of tau
_NEAR = 1e-6  # a Newton step that would raise the log density by less is the last one
_SETTLED = 0.01  # relative change of tau


def category_probabilities(
    x: np.ndarray,
    site: np.ndarray | None,
    possible: np.ndarray,
    category: np.ndarray,
    seed: np.random.SeedSequence,
) -> np.ndarray:
    """Posterior mean probability of each category for every row.

    Parameters
    ----------
    x
        Columns of history (row, column); those that do not vary are left out.
    site
        Site of each row, from 0; None without sites.
    possible
        Categories that are possible (row, category).
    category
        What happened, -1 for rows that are only predicted.
    seed
        Source of randomness.

    Returns
    -------
    numpy.ndarray
        (row, category); rows sum to 1. Where nothing has been seen, all that is possible is as probable.
    """
    seen = category >= 0
    if not seen.any():
        return possible / possible.sum(axis=1, keepdims=True)
    centre, spread = x[seen].mean(axis=0), x[seen].std(axis=0)
    vary = spread > 1e-8 * np.maximum(np.abs(centre), 1e-300)
    z = np.column_stack([np.ones(len(x)), (x[:, vary] - centre[vary]) / spread[vary]])
    sites = 0 if site is None else int(site.max()) + 1
    member = _members(site, sites, np.ones(len(x), dtype=bool))
    model = _Model(z[seen], _members(site, sites, seen), possible[seen], category[seen], sites)
    b, u, tau = model.fitted()
    curve = model.curvature(b, u, tau)
    rng, out = np.random.default_rng(seed), np.zeros(possible.shape)
    for _ in range(_AVERAGED):
        away_b, away_u = curve.draw(rng)
        out += _softmax(z @ (b + away_b) + member.T @ (u + away_u), possible)
    return out / _AVERAGED


def _members(site: np.ndarray | None, sites: int, rows: np.ndarray) -> csr_array:
    """1 where a row is one of a site's (site, row); without sites it has no rows."""
    own = np.zeros(0, dtype=np.int64) if site is None else site[rows]
    cells = (own, np.arange(len(own)))
    return csr_array((np.ones(len(own)), cells), shape=(sites, int(rows.sum())))


def _softmax(eta: np.ndarray, possible: np.ndarray) -> np.ndarray:
    """Probabilities by row; the reference category's predictor is 0."""
    full = np.where(possible, np.column_stack([np.zeros(len(eta)), eta]), -np.inf)
    weight = np.exp(full - full.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class _Model:
    """Rows that tell: columns with the constant first, membership (site, row), what could be, what was."""

    z: np.ndarray
    member: csr_array
    possible: np.ndarray
    category: np.ndarray
    sites: int

    def fitted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Modes of coefficients (column, category) and effects (site, category), and tau (category,)."""
        others, sites = self.possible.shape[1] - 1, self.sites
        b, u = np.zeros((self.z.shape[1], others)), np.zeros((sites, others))
        tau = np.full(others, 0.5)
        for _ in range(_STEPS):
            b, u = self._climbed(b, u, tau)
            if not sites:
                break
            squares: np.ndarray = (u**2).sum(axis=0) + self.curvature(b, u, tau).variances().sum(
                axis=0
            )
            # Where -J + E[sum u^2] / tau^2 + 1 - tau^2, the slope in log tau, is 0.
            half = (sites - 1) / 2
            new = np.sqrt(-half + np.sqrt(half**2 + squares))
            settled = bool((np.abs(new - tau) < _SETTLED * tau).all())
            tau = new
            if settled:
                break
        return b, u, tau

    def _climbed(self, b, u, tau) -> tuple[np.ndarray, np.ndarray]:
        """Newton's method on a density that is log-concave; a step that does not climb is halved."""
        now = self._log_density(b, u, tau)
        for _ in range(_STEPS):
            curve = self.curvature(b, u, tau)
            step_b, step_u, gain = curve.step(*self._slopes(b, u, tau))
            size = 1.0
            while (
                new := self._log_density(b + size * step_b, u + size * step_u, tau)
            ) < now and size > 1e-6:
                size /= 2
            if new < now:
                break
            b, u, now = b + size * step_b, u + size * step_u, new
            if gain < _NEAR:
                break
        return b, u

    def _log_density(self, b, u, tau) -> float:
        chance = self._chances(b, u)[np.arange(len(self.category)), self.category]
        prior = (self._precision()[:, None] * b**2).sum() + (u**2 / tau**2).sum()
        return float(np.log(np.maximum(chance, 1e-300)).sum() - prior / 2)

    def _chances(self, b, u) -> np.ndarray:
        return _softmax(self.z @ b + self.member.T @ u, self.possible)

    def _precision(self) -> np.ndarray:
        return np.concatenate([[2.5**-2], np.ones(self.z.shape[1] - 1)])

    def _slopes(self, b, u, tau) -> tuple[np.ndarray, np.ndarray]:
        chance = self._chances(b, u)[:, 1:]
        left = (self.category[:, None] == np.arange(1, chance.shape[1] + 1)) - chance
        return self.z.T @ left - self._precision()[:, None] * b, self.member @ left - u / tau**2

    def curvature(self, b, u, tau) -> _Curvature:
        """Minus the second derivatives of the log density."""
        chance = self._chances(b, u)[:, 1:]
        columns, others = b.shape
        corner = np.zeros((columns, others, columns, others))
        blocks = np.zeros((len(u), others, others))
        border = np.zeros((len(u), others, columns, others))
        for c in range(others):
            for d in range(c + 1):
                weight = chance[:, c] * ((c == d) - chance[:, d])
                heavy = self.z * weight[:, None]
                by_site = self.member @ heavy
                # The constant is the first column, so that its sums are those of the weights.
                for i, j in {(c, d), (d, c)}:
                    corner[:, i, :, j] = self.z.T @ heavy
                    border[:, i, :, j], blocks[:, i, j] = by_site, by_site[:, 0]
        size = columns * others
        corner = corner.reshape(size, size) + np.diag(np.repeat(self._precision(), others))
        blocks += np.eye(others) * (1 / tau**2)
        return _Curvature.of(corner, border.reshape(len(u), others, size), blocks)


@dataclass(frozen=True)
class _Curvature:
    """A precision of coefficients and effects of sites, the effects eliminated.

    ``left`` is the precision of the coefficients once the effects are integrated out, ``inverse`` the
    effects' covariances given the coefficients (site, category, category), ``gain`` what the effects lose
    for each unit of the coefficients (site, category, coefficient).
    """

    left: np.ndarray
    inverse: np.ndarray
    gain: np.ndarray

    @classmethod
    def of(cls, corner: np.ndarray, border: np.ndarray, blocks: np.ndarray) -> _Curvature:
        inverse = np.linalg.inv(blocks)
        gain = inverse @ border
        return cls(corner - np.einsum("jcp,jcq->pq", border, gain), inverse, gain)

    def step(
        self, slope_b: np.ndarray, slope_u: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Newton's step, and the rise of the log density that it promises."""
        flat = slope_b.ravel() - np.einsum("jcp,jc->p", self.gain, slope_u)
        step_b = np.linalg.solve(self.left, flat)
        step_u = np.einsum("jcd,jd->jc", self.inverse, slope_u) - self.gain @ step_b
        rise = (slope_b.ravel() @ step_b + (slope_u * step_u).sum()) / 2
        return step_b.reshape(slope_b.shape), step_u, float(rise)

    def variances(self) -> np.ndarray:
        """Variances of the effects (site, category)."""
        own = np.diagonal(self.inverse, axis1=1, axis2=2)
        return own + np.einsum("jcp,pq,jcq->jc", self.gain, np.linalg.inv(self.left), self.gain)

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients (column, category) and effects (site, category) around their modes."""
        others, size = self.inverse.shape[1], len(self.left)
        root = np.linalg.cholesky(self.left)
        b = np.linalg.solve(root.T, rng.standard_normal(size))
        noise = rng.standard_normal(self.inverse.shape[:2])
        u = np.einsum("jcd,jd->jc", np.linalg.cholesky(self.inverse), noise) - self.gain @ b
        return b.reshape(size // others, others), u
