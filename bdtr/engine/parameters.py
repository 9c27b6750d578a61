"""What the parameters phi of the marginal density are, and their priors as numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Parameters"]


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
