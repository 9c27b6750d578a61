"""Q-values of every action, for units x draws, from a stage's posterior."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from numba import njit, prange

from bdtr.design import GroupDesign, StageDesign
from bdtr.families import FAMILIES

__all__ = ["SITES", "PredictionError", "QFunction", "StageDraws", "add_effects", "stage_draws"]

SITES = ("observed", "new", "typical")
_NODES = 15  # Gauss-Hermite nodes for a delivery cluster on a curved link


class PredictionError(ValueError):
    """Units for whom the Q-function cannot be computed as asked."""


@dataclass(frozen=True)
class StageDraws:
    """Parameters of one stage with the draws last: what the Q-function needs.

    ``coefficients`` (term, sample) of centred columns; ``effects`` per factor (level, term, sample);
    ``root`` per factor (sample, term, term), Cholesky factor of the covariance between terms.
    """

    coefficients: np.ndarray
    effects: Mapping[str, np.ndarray]
    root: Mapping[str, np.ndarray]

    @property
    def samples(self) -> int:
        """Number of draws."""
        return self.coefficients.shape[1]


def stage_draws(posterior: xr.Dataset, design: StageDesign) -> StageDraws:
    """Arrays of a stored posterior, chains stacked.

    Parameters
    ----------
    posterior
        Dataset with dims ``chain, draw``.
    design
        The stage's columns.

    Returns
    -------
    StageDraws
    """
    b = _stacked(posterior["b"]).copy()
    if design.has_intercept:
        b[0] += design.shift @ b
    effects, root = {}, {}
    for g in design.groups:
        sd = _stacked(posterior[f"sd_{g.name}"]).T
        if g.correlated:
            cor = np.moveaxis(_stacked(posterior[f"cor_{g.name}"]), -1, 0)
            root[g.name] = sd[:, :, None] * _cholesky(cor)
        else:
            root[g.name] = sd[:, :, None] * np.eye(sd.shape[1])
        if g.role != "delivery":
            effects[g.name] = _stacked(posterior[f"u_{g.name}"])
    return StageDraws(np.ascontiguousarray(b), effects, root)


def _stacked(values: xr.DataArray) -> np.ndarray:
    """Values with dims (..., sample)."""
    inner = [d for d in values.dims if d not in ("chain", "draw")]
    array = values.transpose(*inner, "chain", "draw").to_numpy()
    return np.ascontiguousarray(array.reshape(*array.shape[:-2], -1))


def _cholesky(cor: np.ndarray) -> np.ndarray:
    # Correlations at the edge of their range make the matrix singular to rounding.
    return np.linalg.cholesky(cor + 1e-10 * np.eye(cor.shape[-1]))


@dataclass(frozen=True)
class QFunction:
    """Mean payoff of every action given history, by draw.

    Site effects and effects of clusters already known are part of it; the delivery cluster of the
    stage is integrated out: zero on an identity link, quadrature otherwise.

    ``sites``: ``"observed"`` (every site known to the fit), ``"new"`` (sites drawn from their
    population distribution), ``"typical"`` (site effects at their mean, zero).
    """

    design: StageDesign
    family: str
    draws: StageDraws
    sites: str = "observed"
    seed: int = 0

    def __call__(self, frame: pd.DataFrame) -> np.ndarray:
        """Q-values.

        Parameters
        ----------
        frame
            Coded history of a block of units.

        Returns
        -------
        numpy.ndarray
            (action, unit, sample), in units of the outcome.
        """
        design = self.design
        site = design.site_codes(frame) if self.sites == "observed" else np.full(len(frame), -1)
        groups = [(g, *self._effects(g, frame)) for g in design.groups if g.role != "delivery"]
        out = np.empty((len(design.actions), len(frame), self.draws.samples))
        for a in range(len(design.actions)):
            acting = design.acting(frame, a)
            np.dot(design.common(acting, site), self.draws.coefficients, out=out[a])
            for g, codes, effects in groups:
                add_effects(out[a], g.matrix(acting), codes, effects)
        return self._mean_payoff(out)

    def _effects(self, group: GroupDesign, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Level codes, and effects with those of unseen levels appended."""
        effects = self.draws.effects[group.name]
        if group.role == "site" and self.sites == "typical":
            return np.full(len(frame), -1), effects
        codes = group.codes(frame)
        if group.role == "site" and self.sites == "new":
            codes = np.full(len(frame), -1)
        unseen = codes < 0
        if not unseen.any():
            return codes, effects
        labels = pd.Index(group.labels(frame)[unseen].astype(str))
        extra = []
        distinct, inverse = np.unique(labels, return_inverse=True)
        for label in distinct:
            extra.append(self._new_level(group.name, str(label)))
        codes = codes.copy()
        codes[unseen] = len(effects) + inverse
        return codes, np.concatenate([effects, np.stack(extra)])

    def _new_level(self, factor: str, label: str) -> np.ndarray:
        """Effects (term, sample) of a level the fit has not seen; the same for the same label."""
        root = self.draws.root[factor]
        words = [self.seed, *f"{factor}\0{label}".encode()]
        noise = np.random.default_rng(words).standard_normal((root.shape[1], len(root)))
        return np.einsum("sqr,rs->qs", root, noise)

    def _mean_payoff(self, eta: np.ndarray) -> np.ndarray:
        family = FAMILIES[self.family]
        delivered = [g for g in self.design.groups if g.role == "delivery"]
        if family.link == "identity":
            return eta
        if not delivered:
            return family.mean(eta)
        sd = self.draws.root[delivered[0].name][:, 0, 0]
        nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        total = np.zeros_like(eta)
        for node, weight in zip(nodes, weights / weights.sum(), strict=True):
            total += weight * family.mean(eta + node * sd)
        return total


@njit(cache=True, parallel=True)
def add_effects(out, z, codes, effects):
    """out[i] += sum_t z[i, t] effects[codes[i], t]; code -1 adds nothing."""
    for i in prange(out.shape[0]):
        if codes[i] < 0:
            continue
        row = out[i]
        for t in range(z.shape[1]):
            value = z[i, t]
            if value == 0.0:
                continue
            effect = effects[codes[i], t]
            for s in range(row.size):
                row[s] += value * effect[s]
