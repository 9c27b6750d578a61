r"""What a board that shuns risk counts: a quantile, or the mean of the worst draws or outcomes.

Two kinds of risk are kept apart. With ``of="parameters"`` the worst cases are draws of the mean payoff
Q(h, a): that we are wrong about the mean. With ``of="outcomes"`` they are outcomes Y of one unit:

    Y = Q(h, a) + e,    Var(e | h, a) = s_k(a)^2 + c_k^2 + the mean of the same at stage k + 1,

s_k being the residual SD of the stage (of the propagated payoff: what history in between adds), c_k the SD
between the classes that deliver the action, and e normal, so that parameters count as well. The mean of
the worst share p is the conditional value at risk (Rockafellar and Uryasev 2000, J. Risk 2(3)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from bdtr.backward.fitted import Fit
from bdtr.decisions.outcome_spread import outcome_variance
from bdtr.results.arguments import a_fit, one_of, probability
from bdtr.results.errors import ArgumentError

__all__ = ["OF", "Quantile", "Utility", "WorstMean", "outcome_noise", "utilities"]

OF = ("parameters", "outcomes")


@dataclass(frozen=True)
class WorstMean:
    """The mean of the worst ``share`` of draws (``of="parameters"``) or outcomes (``of="outcomes"``)."""

    share: float = 0.1
    of: str = "parameters"

    def __post_init__(self):
        _check("WorstMean", "share", self.share, self.of)

    def __str__(self) -> str:
        return f"mean of the worst {100 * self.share:g} % of {_WHAT[self.of]}"


@dataclass(frozen=True)
class Quantile:
    """The quantile that the payoff falls short of with this ``probability``."""

    probability: float = 0.1
    of: str = "parameters"

    def __post_init__(self):
        _check("Quantile", "probability", self.probability, self.of)

    def __str__(self) -> str:
        return f"{100 * self.probability:g} % quantile (from the worst) of {_WHAT[self.of]}"


_WHAT = {"parameters": "draws of the mean payoff", "outcomes": "a unit's outcomes"}

type Utility = WorstMean | Quantile | None


def _check(kind: str, name: str, value: float, of: str) -> None:
    probability(f"{kind}: {name}", value)
    one_of(f"{kind}: of", of, OF)


def utilities(q: np.ndarray, utility: Utility, noise: np.ndarray | None = None) -> np.ndarray:
    """What each action is worth to a unit, by the measure of risk.

    Parameters
    ----------
    q
        Payoffs (action, unit, sample), a larger one being better.
    utility
        The measure; None: the posterior mean.
    noise
        Deviations of an outcome from its mean (action, 1, sample), for outcomes.

    Returns
    -------
    numpy.ndarray
        (unit, action), in units of the outcome.

    Examples
    --------
    >>> utilities(np.arange(8.0).reshape(1, 1, 8), WorstMean(0.25))
    array([[0.5]])
    """
    if utility is None:
        return q.mean(axis=2).T
    x = q if noise is None else q + noise
    if isinstance(utility, Quantile):
        return np.quantile(x, utility.probability, axis=2).T
    wanted = utility.share * x.shape[2]
    whole = int(wanted)
    last = min(whole, x.shape[2] - 1)
    ordered = np.partition(x, last, axis=2)
    total = ordered[:, :, :whole].sum(axis=2) + (wanted - whole) * ordered[:, :, last]
    return (total / wanted).T


def outcome_noise(fit: Fit, k: int) -> np.ndarray:
    """Deviations of a unit's outcome from its mean at stage k (action, 1, sample), one for each draw.

    Normal numbers that are spread evenly, the same for all actions, so that actions which differ
    little are compared with little noise.

    Raises
    ------
    ValueError
        If the outcome is not Gaussian, or a stage from here on has a model of your own.
    """
    a_fit(fit)
    if not fit.trial.payoff.gaussian:
        raise ArgumentError(
            f"of='outcomes' is for payoffs that are Gaussian outcomes, and this one is not "
            f"({fit.trial.family}): its spread goes with its mean. Use of='parameters'."
        )
    sd = np.sqrt(outcome_variance(fit, k))
    samples = sd.shape[1]
    rng = np.random.default_rng(fit.settings.stream("risk"))
    z = ndtri((rng.permutation(samples) + 0.5) / samples)
    return (sd * z)[:, None, :]
