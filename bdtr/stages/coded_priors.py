"""Priors of a stage's model as the engine takes them: arrays of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bdtr.engine.layout import Factor
from bdtr.engine.parameters import Parameters
from bdtr.trial.priors import Exponential, HalfNormal, HalfStudentT, Prior, StagePriors

__all__ = ["coded", "group_sds", "parameters", "partial_alpha"]

_KIND: Mapping[type[Prior], int] = {HalfNormal: 0, HalfStudentT: 1, Exponential: 2}


def parameters(factors: Sequence[Factor], priors: StagePriors, strata: int = 1) -> Parameters:
    """Lay out phi for the factors of a stage and code its priors."""
    assert priors.sigma is not None
    sd = [coded(priors.sigma)]
    sd += group_sds(factors, priors)
    coefficients = priors.coefficients
    return Parameters(
        np.array([f.terms for f in factors], dtype=np.int64),
        np.array([f.correlated for f in factors], dtype=np.bool_),
        np.array(sd, dtype=float).reshape(-1, 3),
        partial_alpha(factors, priors),
        np.array([1.0 / c.sigma**2 for c in coefficients]),
        np.array([c.mu for c in coefficients]),
        strata,
    )


def group_sds(factors: Sequence[Factor], priors: StagePriors) -> list[tuple[float, float, float]]:
    """Priors of the SDs of all factors; the curves of a smooth term have its name."""
    names = dict.fromkeys(f.name for f in factors)
    return [coded(p) for name in names for p in priors.groups[name].sd]


def partial_alpha(factors: Sequence[Factor], priors: StagePriors) -> np.ndarray:
    """Parameters alpha of partial correlations: Beta(alpha, alpha) on (-1, 1), given k earlier terms."""
    alpha = []
    for factor in factors:
        if factor.correlated:
            cor, q = priors.groups[factor.name].cor, factor.terms
            assert cor is not None
            alpha += [cor.eta + (q - 2 - k) / 2 for i in range(1, q) for k in range(i)]
    return np.array(alpha, dtype=float)


def coded(prior: Prior) -> tuple[float, float, float]:
    """The prior of a standard deviation as (kind, parameter, parameter)."""
    match prior:
        case HalfStudentT(nu, sigma):
            return float(_KIND[HalfStudentT]), nu, sigma
        case HalfNormal(sigma):
            return float(_KIND[HalfNormal]), sigma, 0.0
        case Exponential(scale):
            return float(_KIND[Exponential]), scale, 0.0
    raise TypeError(f"{prior} is no prior of a standard deviation.")
