"""Priors of a stage's model as the engine takes them: arrays of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bdtr.engine.layout import Factor
from bdtr.engine.parameters import Parameters
from bdtr.trial.priors import Exponential, HalfNormal, HalfStudentT, Prior, StagePriors

__all__ = ["parameters"]

_KIND: Mapping[type[Prior], int] = {HalfNormal: 0, HalfStudentT: 1, Exponential: 2}


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
