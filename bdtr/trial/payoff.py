"""What an outcome is worth: the mean payoff given the linear predictor, and the arguments that say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.special import logit

from bdtr.results.arguments import is_real
from bdtr.trial.amount import AmountError
from bdtr.trial.censoring import TIME, UNTIL, WITHOUT
from bdtr.trial.families import EARLIER, FAMILIES, Family, with_worth
from bdtr.trial.worth import RANGES, Utility, WrittenWorth

__all__ = ["COMPANIONS", "Payoff", "payoff_fault", "payoff_of"]

COMPANIONS = ("trials", "exposure", "event")  # columns beside the outcome that some families need
_NUMBERS = {"horizon": "event", "survival_at": "event", "floor": "", "ceiling": ""}
_EDGE = 1e-6  # distance from a bound below which a mean counts as this far from it


@dataclass(frozen=True)
class Payoff:
    """How the payoff of a stage comes from its linear predictor.

    ``scores`` are numbers that its family takes: what each category of an ordinal outcome is worth, what
    counts of a time and until when (:mod:`bdtr.trial.censoring`), floor and ceiling. ``limits`` are bounds of
    the mean payoff where these are not the family's; ``worth`` is the function of the outcome that is the
    payoff, where it is one.
    """

    family: Family
    scores: tuple[float, ...] = ()
    limits: tuple[float, float] | None = None
    worth: Utility | None = None

    def mean(self, eta: np.ndarray, shape: np.ndarray | None = None) -> np.ndarray:
        """Mean payoff at a linear predictor."""
        return self.family.mean(eta, shape, np.array(self.scores, float))

    def linear(self, mean: np.ndarray) -> np.ndarray:
        """Mean payoffs on a scale without bounds: that of the linear predictor, or of shares of a range."""
        if self.family.linear or self.scale == "identity":
            return mean
        share = self.share(mean)
        if self.scale == "log":
            return np.log(np.maximum(share, _EDGE))
        return logit(np.clip(share, _EDGE, 1 - _EDGE))

    def draw(
        self, rng: np.random.Generator, eta: np.ndarray, shape: Any, m: np.ndarray
    ) -> np.ndarray:
        """Payoffs drawn at random."""
        return self.family.draw(rng, eta, shape, m, np.array(self.scores, float))

    @property
    def gaussian(self) -> bool:
        """Whether the payoff is a Gaussian outcome itself."""
        return self.family.name == "gaussian" and self.worth is None

    def propagated(self) -> Payoff:
        """How mean payoffs follow from the linear predictor at earlier stages, whose responses are values of
        the next one: within the same bounds.

        Payoffs without bounds are Gaussian there, those with two bounds quasi-binomial as a share of their
        range, those with one quasi-Poisson as their distance from it.
        """
        family = EARLIER[self.scale]
        return (
            Payoff(family) if self.scale == "identity" else Payoff(family, self.ends, self.bounds)
        )

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Bounds of the mean payoff."""
        return self.limits or self.family.bounds

    @property
    def scale(self) -> str:
        """Link on whose scale mean payoffs have no bounds."""
        known = np.isfinite(self.bounds or (np.nan, np.nan)).sum()
        return ("identity", "log", "logit")[known]

    @property
    def ends(self) -> tuple[float, float]:
        """The payoffs that count as 0 and 1 on this scale: two bounds, one bound and the payoff one unit
        inside, or 0 and 1."""
        low, high = self.bounds or (-np.inf, np.inf)
        if not np.isfinite(low):
            return (high, high - 1.0) if np.isfinite(high) else (0.0, 1.0)
        return low, high if np.isfinite(high) else low + 1.0

    def share(self, payoff: np.ndarray) -> np.ndarray:
        """Payoffs between their ends, as 0 to 1."""
        zero, one = self.ends
        return payoff if (zero, one) == (0.0, 1.0) else (payoff - zero) / (one - zero)


class Declared(Protocol):
    """What a trial says of its outcome."""

    @property
    def family(self) -> str: ...
    @property
    def trials(self) -> str | None: ...
    @property
    def exposure(self) -> str | None: ...
    @property
    def outcome(self) -> str | None: ...
    @property
    def companion(self) -> str | None: ...
    @property
    def utility(self) -> Any: ...
    @property
    def horizon(self) -> float | None: ...
    @property
    def survival_at(self) -> float | None: ...
    @property
    def floor(self) -> float | None: ...
    @property
    def ceiling(self) -> float | None: ...


def payoff_of(trial: Declared) -> Payoff:
    """How the payoff of a trial comes from the model of its last stage."""
    family = FAMILIES[trial.family]
    if isinstance(trial.utility, Mapping):
        worth = tuple(trial.utility.values())
        return Payoff(family, worth, (min(worth), max(worth)))
    if trial.utility is not None:
        return _with_worth(trial, family)
    if trial.horizon is not None:
        return Payoff(family, (UNTIL, trial.horizon), (0.0, trial.horizon))
    if trial.survival_at is not None:
        return Payoff(family, (WITHOUT, trial.survival_at), (0.0, 1.0))
    if family.companion == "event":
        return Payoff(family, (TIME, np.inf))
    if family.name == "censored":
        return Payoff(family, _scores_between(trial), _scores_between(trial))
    return Payoff(family)


def _scores_between(trial: Declared) -> tuple[float, float]:
    """Lowest and highest score."""
    low = -np.inf if trial.floor is None else trial.floor
    return low, np.inf if trial.ceiling is None else trial.ceiling


def _with_worth(trial: Declared, family: Family) -> Payoff:
    """Of a payoff that is a function of the outcome, within the bounds that its text has."""
    scores = _scores_between(trial) if family.name == "censored" else ()
    if not isinstance(trial.utility, str):
        return Payoff(with_worth(family, trial.utility), scores, worth=trial.utility)
    said = WrittenWorth(trial.utility)
    low, high = said.bounds(*(scores or RANGES[family.name]))
    limits = (low, high) if low < high and np.isfinite([low, high]).any() else None
    return Payoff(with_worth(family, said, limits), scores, limits, said)


def payoff_fault(trial: Declared) -> str | None:
    """What is wrong with the arguments of a trial that go with its family, in words."""
    return _companion_fault(trial) or _number_fault(trial) or _utility_fault(trial)


def _companion_fault(trial: Declared) -> str | None:
    own = FAMILIES[trial.family].companion
    for name in COMPANIONS:
        if getattr(trial, name) and name != own:
            users = [f.name for f in FAMILIES.values() if f.companion == name]
            return (
                f"Trial({name}=...) belongs to family={' or '.join(map(repr, users))}; the family is "
                f"{trial.family!r}. Leave it out, or change the family."
            )
    if own == "trials" and not trial.trials:
        return (
            f"Trial(family={trial.family!r}): name the column with the number of trials, trials=..."
        )
    return None


def _number_fault(trial: Declared) -> str | None:
    for name, companion in _NUMBERS.items():
        value = getattr(trial, name)
        if value is None:
            continue
        users = [
            f.name
            for f in FAMILIES.values()
            if (f.companion == companion if companion else f.name == "censored")
        ]
        if trial.family not in users:
            return (
                f"Trial({name}=...) belongs to family={' or '.join(map(repr, users))}; the family is "
                f"{trial.family!r}. Leave it out, or change the family."
            )
        if not is_real(value) or not np.isfinite(value) or (companion and value <= 0):
            return f"Trial({name}={value!r}): give a {'time above 0' if companion else 'number'}."
    if trial.horizon is not None and trial.survival_at is not None:
        return "Trial(horizon=..., survival_at=...): the payoff is one of the two. Leave one out."
    if trial.family == "censored":
        if trial.floor is None and trial.ceiling is None:
            return "Trial(family='censored'): say the lowest score, floor=..., or the highest, ceiling=..."
        low, high = trial.floor, trial.ceiling
        if low is not None and high is not None and low >= high:
            return f"Trial(floor={trial.floor!r}, ceiling={trial.ceiling!r}): floor must be the lower one."
    return None


def _utility_fault(trial: Declared) -> str | None:
    worth = trial.utility
    if worth is None:
        return None
    if isinstance(worth, str) or (callable(worth) and not isinstance(worth, type)):
        return _worth_fault(trial)
    if trial.family != "ordinal":
        return (
            f"Trial(utility=...): a table is for family='ordinal', and the family is {trial.family!r}. Write "
            "a payoff that is a function of the outcome as text, utility='min(y, 100)'."
        )
    if not isinstance(worth, Mapping) or len(worth) < 2:
        return (
            "Trial(utility=...): must map each category, from the lowest to the highest, to a number, "
            f"got {worth!r}."
        )
    for category, value in worth.items():
        if not is_real(value) or not np.isfinite(value):
            return f"Trial(utility=...): {category!r} is worth {value!r}; give a number."
    return None


def _worth_fault(trial: Declared) -> str | None:
    """What is wrong with a payoff that is a function of the outcome."""
    if trial.family not in RANGES:
        return (
            f"Trial(utility=...): functions of the outcome are for {', '.join(map(repr, RANGES))}, and the "
            f"family is {trial.family!r}."
        )
    if trial.outcome is None:
        return "Trial(utility=...): is a function of the outcome; name the outcome column."
    if trial.exposure or trial.horizon is not None or trial.survival_at is not None:
        return (
            "Trial(utility=...): says what the outcome itself is worth. Leave out exposure, horizon and "
            "survival_at; the time until 24 is utility='min(time, 24)'."
        )
    if not isinstance(trial.utility, str):
        return None
    try:
        columns = WrittenWorth(trial.utility).columns
    except AmountError as error:
        return f"Trial(utility=...): {error}"
    if columns != (trial.outcome,):
        return (
            f"Trial(utility={trial.utility!r}): is a function of the outcome {trial.outcome!r}, and names "
            f"{', '.join(map(repr, columns)) or 'no column'}."
        )
    return None
