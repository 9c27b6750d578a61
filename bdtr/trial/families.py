"""Outcome families as a table: link, likelihood, mean payoff. A new family begins with an entry here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

__all__ = ["FAMILIES", "Family"]


@dataclass(frozen=True)
class Family:
    """One outcome family.

    ``mean`` maps the linear predictor to the mean payoff; ``likelihood(pm, name, eta, sigma,
    observed, dims)`` adds the observed variable to a PyMC model; ``valid`` says which outcomes can occur.
    """

    name: str
    link: str
    has_sigma: bool
    mean: Callable[[np.ndarray], np.ndarray]
    likelihood: Callable[..., Any]
    valid: Callable[[np.ndarray], np.ndarray]
    outcomes: str
    bounds: tuple[float, float] | None = None  # of the mean payoff

    def response_scale(self, response: np.ndarray) -> tuple[float, float]:
        """Centre and spread of the response on the scale of the linear predictor."""
        if self.link == "identity":
            return float(np.mean(response)), float(np.std(response, ddof=1))
        return 0.0, 1.0


def _gaussian(pm, name, eta, sigma, observed, dims):
    return pm.Normal(name, eta, sigma, observed=observed, dims=dims)


def _bernoulli(pm, name, eta, sigma, observed, dims):
    return pm.Bernoulli(name, logit_p=eta, observed=observed, dims=dims)


# Functions with names: models are sent to worker processes.
def _identity(eta: np.ndarray) -> np.ndarray:
    return eta


def _zero_or_one(y: np.ndarray) -> np.ndarray:
    return (y == 0) | (y == 1)


FAMILIES: dict[str, Family] = {
    "gaussian": Family(
        "gaussian", "identity", True, _identity, _gaussian, np.isfinite, "finite numbers"
    ),
    "bernoulli": Family(
        "bernoulli",
        "logit",
        False,
        expit,
        _bernoulli,
        _zero_or_one,
        "0 and 1",
        (0.0, 1.0),
    ),
}
