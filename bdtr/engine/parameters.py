"""What the parameters phi of the marginal density are, and their priors as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bdtr.engine.layout import Factor
from bdtr.trial.priors import Exponential, HalfNormal, HalfStudentT, Prior, StagePriors

__all__ = ["Parameters", "parameters"]

_KIND: Mapping[type[Prior], int] = {HalfNormal: 0, HalfStudentT: 1, Exponential: 2}


@dataclass(frozen=True)
class Parameters:
    """What phi means, and its priors, as arrays for the compiled kernels.

    ``terms`` and ``correlated`` per factor; ``sd_prior`` rows are (kind, parameter, parameter) with
    the residual SD first; ``alpha`` the Beta parameter of each partial correlation;
    ``precision`` the prior precisions of the centred coefficients and ``mean`` their prior means;
    ``strata`` the number of residual SDs, all with the same prior.
    """

    terms: np.ndarray
    correlated: np.ndarray
    sd_prior: np.ndarray
    alpha: np.ndarray
    precision: np.ndarray
    mean: np.ndarray
    strata: int = 1

    @property
    def sds(self) -> int:
        """Number of group SDs."""
        return int(self.terms.sum())

    @property
    def size(self) -> int:
        """Length of phi."""
        return 1 + self.sds + self.alpha.size + self.strata - 1

    @property
    def group_sds(self) -> slice:
        """Places of the relative SDs in phi."""
        return slice(1, 1 + self.sds)

    @property
    def correlations(self) -> slice:
        """Places of the atanh partial correlations in phi."""
        return slice(1 + self.sds, 1 + self.sds + self.alpha.size)

    @property
    def ratios(self) -> slice:
        """Places of the log ratios of residual SDs in phi."""
        return slice(1 + self.sds + self.alpha.size, self.size)

    def folded(self, phi: np.ndarray) -> np.ndarray:
        """phi with relative SDs made positive."""
        out = phi.copy()
        out[..., self.group_sds] = np.abs(out[..., self.group_sds])
        return out


def parameters(factors: Sequence[Factor], priors: StagePriors, strata: int = 1) -> Parameters:
    """Lay out phi for the factors of a stage and code its priors."""
    assert priors.sigma is not None
    sd = [_coded(priors.sigma)]
    alpha = []
    for factor in factors:
        prior = priors.groups[factor.name]
        sd += [_coded(p) for p in prior.sd]
        if factor.correlated:
            assert prior.cor is not None
            q = factor.terms
            # Partial correlations given k earlier terms are Beta(alpha, alpha) on (-1, 1).
            alpha += [prior.cor.eta + (q - 2 - k) / 2 for i in range(1, q) for k in range(i)]
    coefficients = priors.coefficients
    return Parameters(
        np.array([f.terms for f in factors], dtype=np.int64),
        np.array([f.correlated for f in factors], dtype=np.bool_),
        np.array(sd, dtype=float).reshape(-1, 3),
        np.array(alpha, dtype=float),
        np.array([1.0 / c.sigma**2 for c in coefficients]),
        np.array([c.mu for c in coefficients]),
        strata,
    )


def _coded(prior: Prior) -> tuple[float, float, float]:
    match prior:
        case HalfStudentT(nu, sigma):
            return float(_KIND[HalfStudentT]), nu, sigma
        case HalfNormal(sigma):
            return float(_KIND[HalfNormal]), sigma, 0.0
        case Exponential(scale):
            return float(_KIND[Exponential]), scale, 0.0
    raise TypeError(f"{prior} is no prior of a standard deviation.")
