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
from bdtr.backward.induction import best_mean
from bdtr.backward.passes import backward_pass
from bdtr.results.arguments import a_fit, one_of, probability
from bdtr.results.errors import ArgumentError
from bdtr.stages.prediction import StageDraws

__all__ = ["OF", "Quantile", "Utility", "WorstMean", "outcome_noise", "outcome_sd", "utilities"]

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
    """
    a_fit(fit)
    sd = outcome_sd(fit, k)
    samples = sd.shape[1]
    rng = np.random.default_rng(fit.settings.stream("risk"))
    z = ndtri((rng.permutation(samples) + 0.5) / samples)
    return (sd * z)[:, None, :]


def outcome_sd(fit: Fit, k: int, classes: bool = True) -> np.ndarray:
    """SD of a unit's outcome given its history and action at stage k, later stages recommended.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    k
        Stage, from 0.
    classes
        Whether classes that deliver the action of this stage add to the spread.

    Returns
    -------
    numpy.ndarray
        (action, sample), in units of the outcome.

    Raises
    ------
    ValueError
        If the outcome is not continuous, or a stage from here on has a model of your own.
    """
    a_fit(fit)
    if fit.trial.family != "gaussian":
        raise ArgumentError(
            f"of='outcomes' is for continuous outcomes, and this one is {fit.trial.family}: the mean says "
            "all about its spread. Use of='parameters'."
        )
    own = [s.action for s in fit.trial.stages[k:] if s.model is not None]
    if own:
        raise ArgumentError(
            f"of='outcomes': stage {own[0]} has a model of your own, which does not say how outcomes "
            "spread. Use of='parameters'."
        )
    return np.sqrt(_variance(fit, k, classes))


def _variance(fit: Fit, k: int, classes: bool = True) -> np.ndarray:
    design, draws = fit.designs[k], fit.q_function(k).draws
    assert isinstance(draws, StageDraws)
    sigma = fit.posterior(k)["sigma"].stack(sample=("chain", "draw"), create_index=False)
    own = np.square(sigma.transpose(..., "sample").to_numpy().reshape(-1, sigma.sizes["sample"]))
    out = np.tile(own, (len(design.arms) // len(own), 1))
    for group in design.groups:
        if classes and group.role == "delivery":
            out = out + np.square(draws.root[group.name][:, 0, 0])
    return out if k == fit.stages - 1 else out + _later(fit, k)


def _later(fit: Fit, k: int) -> np.ndarray:
    """Variance that is left at later stages (action, sample), over the units that took each action."""
    data, done = fit.require_data("the spread of outcomes"), backward_pass(fit)
    stage, units = data.stages[k], np.flatnonzero(data.stages[k].fitted)
    # Each unit has the variance of the next stage at which a decision is due; none after the last.
    waiting, known, parts = np.ones(len(units), dtype=bool), np.zeros(len(units), dtype=bool), []
    for m in range(k + 1, fit.stages):
        own = data.stages[m]
        ready = np.flatnonzero(waiting & own.among[units] & own.history[units])
        chosen = np.zeros((len(units), own.feasible.shape[1]))
        for block in done.blocks(ready):
            rows = units[block]
            q = done.q_values(m, rows)
            chosen[block, best_mean(q, own.feasible[rows], fit.trial.higher_is_better)] = 1.0
        known[ready] = True
        waiting &= ~own.among[units]
        parts.append((chosen, _variance(fit, m)))
    known |= waiting  # where it is not known what they would do next, they count as the others do
    out = np.zeros((len(fit.designs[k].arms), done.samples))
    for a in range(len(out)):
        mine = known & (stage.action[units] == a)
        mine = mine if mine.any() else known
        for chosen, variance in parts:
            out[a] += chosen[mine].mean(axis=0) @ variance
    return out
