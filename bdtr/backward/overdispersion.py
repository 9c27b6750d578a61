r"""Counts that vary more than their family lets them: binomial and Poisson outcomes of units that differ.

With m trials or exposure m and the mean mu of the count at posterior means, Pearson's statistic

    X^2 = sum_i (y_i - mu_i)^2 / v_i,    v_i = mu_i (1 - mu_i / m_i)  or  mu_i,

has about mean n and variance sum_i [2 + (1 - 6 v_i / m_i) / v_i], or sum_i [2 + 1 / mu_i], where counts vary
as the family says (McCullagh and Nelder 1989, Generalized Linear Models, 4.5). Else intervals are too narrow,
by about the square root of X^2 / n.
"""

from __future__ import annotations

import numpy as np

from bdtr.backward.fitrecord import FitRecord
from bdtr.backward.passes import stage_model
from bdtr.backward.residuals import linear_predictor
from bdtr.stages.outcome import OutcomeModel
from bdtr.trial.families import FAMILIES
from bdtr.trial.payoff import Payoff

__all__ = ["overdispersion"]

_SURE = 4.0  # standard errors above what is expected
_MUCH = 1.2  # X^2 / n
_OTHER = {"binomial": "beta_binomial", "poisson": "negative_binomial"}


def overdispersion(fit: FitRecord) -> list[str]:
    """A reason where counts of the last stage vary more than their family says, with the one to take."""
    k = fit.stages - 1
    model = stage_model(fit, k)
    if not isinstance(model, OutcomeModel) or model.family.name not in _OTHER:
        return []
    assert model.recorded is not None and model.companion is not None
    y, m = model.recorded, model.companion
    mu = m * Payoff(FAMILIES[model.family.name]).mean(linear_predictor(fit, k, model))
    if model.family.name == "poisson":
        v, variance = mu, 2.0 + 1.0 / np.maximum(mu, 1e-12)
    else:
        v = np.maximum(mu * (1.0 - mu / m), 1e-12)
        variance = 2.0 + (1.0 - 6.0 * v / m) / v
    ratio = float((np.square(y - mu) / np.maximum(v, 1e-12)).mean())
    n = len(y)
    z = n * (ratio - 1.0) / np.sqrt(np.maximum(variance, 0.0).sum())
    if ratio < _MUCH or z < _SURE:
        return []
    return [
        f"stage {fit.designs[k].action}: counts vary {ratio:.1f} times as much as a {model.family.name} "
        f"outcome does, and intervals are too narrow; say family={_OTHER[model.family.name]!r}, which has "
        "differences between units"
    ]
