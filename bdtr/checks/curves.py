"""Outcomes of the last stage as its family shows them best, beside replicated ones.

- Probabilities: *calibration*. Units in tenths by their predicted probability, and the share seen in each
  (Gneiting, Balabdaoui and Raftery 2007, J. R. Stat. Soc. B 69(2)).
- Counts: a *rootogram*. How many units have each count (Kleiber and Zeileis 2016, Am. Stat. 70(3)).
- Ordered categories: how many units have each.
- Times: *survival curves* by action. Kaplan and Meier's estimate beside shares of replicated times.

Predictions are given group effects, from the posterior of the same data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pandas as pd

from bdtr.backward.fitted import Fit
from bdtr.backward.residuals import linear_predictor
from bdtr.checks.predictive import picked_draws, some_draws
from bdtr.data.outcomes import risk_sets
from bdtr.results.arguments import a_fit, probability, whole
from bdtr.results.captions import Shown
from bdtr.results.errors import ArgumentError
from bdtr.results.estimates import kind_of
from bdtr.stages.arviz_groups import replicates
from bdtr.stages.outcome import OutcomeModel
from bdtr.trial.censoring import TIME
from bdtr.trial.payoff import Payoff

__all__ = ["OutcomeCurves", "has_curves", "outcome_curves"]

_TENTHS, _TIMES = 10, 24
_MOST_COUNTS = 60
_COUNTS = ("poisson", "negative_binomial")


@dataclass(frozen=True, repr=False)
class OutcomeCurves(Shown):
    """Outcomes beside replicated ones.

    ``kind`` is ``"calibration"``, ``"rootogram"``, ``"categories"`` or ``"survival"``; ``table`` has ``x``
    (predicted probability, count, category or time), what was ``observed``, ``mean, lower, upper`` of
    replicated outcomes, and by ``action`` for survival curves.
    """

    kind: str
    table: pd.DataFrame
    units: int
    draws: int
    interval: float

    _tables: ClassVar[tuple[str, ...]] = ("table",)

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        what = {
            "calibration": "Share of the payoff by tenths of its predicted mean",
            "rootogram": "Units with each count",
            "categories": "Units in each category",
            "survival": "Shares without the event by time (Kaplan and Meier)",
        }[self.kind]
        outside = ((self.table["observed"] < self.table["lower"]) | (
            self.table["observed"] > self.table["upper"]
        )).sum()  # fmt: skip
        return (
            f"{what}, {self.units:,} units, beside {self.draws} replications; {kind_of(self.interval)}s. "
            f"Outside their interval: {outside} of {len(self.table)}."
        )


def outcome_curves(fit: Fit, draws: int = 200, interval: float = 0.95) -> OutcomeCurves:
    """Outcomes of the last stage beside replicated ones: calibration, rootogram, categories or survival.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    draws
        Posterior draws to replicate from, at most those that are propagated.
    interval
        Probability of the equal-tailed intervals.

    Returns
    -------
    OutcomeCurves

    Raises
    ------
    ValueError
        If the outcome has no such picture: continuous ones have the histogram of ``predictive_checks``.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(1)
    >>> data = pd.DataFrame({"a": rng.integers(0, 2, 80), "y": rng.poisson(2, 80)})
    >>> trial = bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula="a")], outcome="y", family="poisson")
    >>> counted = bdtr.fit(trial, data, sampler="direct", random_seed=1, progress=False)
    >>> bdtr.checks.outcome_curves(counted).kind
    'rootogram'
    """
    a_fit(fit)
    whole("draws", draws)
    probability("interval", interval)
    fit.require_data("predictive checks")
    model, parts = fit.model(fit.stages - 1), fit.parts or (fit,)
    kind = _kind(model)
    if kind is None or not isinstance(model, OutcomeModel):
        raise ArgumentError(
            f"outcome_curves: a {fit.trial.family} outcome, or a model of your own, has none of these "
            "pictures. Use bdtr.checks.predictive_checks."
        )
    picks = picked_draws(fit, draws)
    count = sum(len(pick) for pick in picks)
    each = [_replicated(one, pick, kind) for one, pick in zip(parts, picks, strict=True)]
    again = np.concatenate(each)
    if kind == "survival":
        table = _survival(model, again, interval)
    elif kind == "calibration":
        table = _calibration(parts, model, again, interval)
    else:
        assert model.companion is not None
        if kind == "categories":
            again = np.searchsorted(model.payoff.scores, again)
        else:  # counts from rates
            again = np.rint(again * model.companion)
        table = _frequencies(np.stack([_recorded(one) for one in parts]), again, interval)
        if kind == "categories" and fit.trial.categories:
            table["x"] = list(fit.trial.categories)
    return OutcomeCurves(kind, table, len(model.rows.x), count, interval)


def has_curves(fit: Fit) -> bool:
    """Whether the outcome of a fit has one of these pictures."""
    return _kind(fit.model(fit.stages - 1)) is not None


def _kind(model: object) -> str | None:
    if not isinstance(model, OutcomeModel) or model.payoff.worth is not None:
        return None
    family = model.family
    if family.name in _COUNTS:
        return "rootogram"
    if family.name == "ordinal":
        increasing = (np.diff(model.payoff.scores) > 0).all()
        return "categories" if increasing else None
    if family.companion == "event":
        return "survival"
    return "calibration" if family.bounds == (0.0, 1.0) else None


def _summary(x, observed: np.ndarray, again: np.ndarray, interval: float) -> pd.DataFrame:
    """A row for each place; replications (sample, place)."""
    tail = (1 - interval) / 2
    lower, upper = np.quantile(again, [tail, 1 - tail], axis=0)
    return pd.DataFrame(
        {"x": x, "observed": observed, "mean": again.mean(axis=0), "lower": lower, "upper": upper}
    )


def _replicated(fit: Fit, pick: np.ndarray, kind: str) -> np.ndarray:
    """Replicated outcomes of the last stage (sample, row); of times without a horizon."""
    model = fit.model(fit.stages - 1)
    assert isinstance(model, OutcomeModel)
    rng = np.random.default_rng(fit.settings.stream("predictive checks"))
    if kind == "survival":
        model = replace(model, payoff=Payoff(model.family, (TIME, np.inf)))
    return replicates(model, some_draws(fit, fit.stages - 1, pick), rng)


def _predicted(fit: Fit) -> np.ndarray:
    """Mean outcomes of the rows of the last stage at posterior means."""
    model = fit.model(fit.stages - 1)
    assert isinstance(model, OutcomeModel)
    return model.payoff.mean(linear_predictor(fit, fit.stages - 1, model))


def _calibration(
    parts: Sequence[Fit], model: OutcomeModel, again: np.ndarray, interval: float
) -> pd.DataFrame:
    predicted = np.mean([_predicted(one) for one in parts], axis=0)
    # Tenths of the units; fewer where predictions are the same for many.
    edges = np.unique(np.quantile(predicted, np.arange(1, _TENTHS) / _TENTHS))
    place = np.searchsorted(edges, predicted, side="left")
    weight = np.ones(len(predicted)) if model.companion is None else model.companion
    total = np.bincount(place, weight)
    kept = total > 0
    member = np.zeros((len(predicted), len(total)))
    member[np.arange(len(predicted)), place] = weight
    means = (member / np.maximum(total, 1e-300))[:, kept]
    observed = np.mean([one.require_data("predictive checks").payoff for one in parts], axis=0)
    return _summary(predicted @ means, observed @ means, again @ means, interval)


def _recorded(fit: Fit) -> np.ndarray:
    """Outcomes of the rows of the last stage as their family takes them."""
    model = fit.model(fit.stages - 1)
    assert isinstance(model, OutcomeModel) and model.recorded is not None
    return model.recorded


def _frequencies(seen: np.ndarray, again: np.ndarray, interval: float) -> pd.DataFrame:
    """How many units have each count or category, those beyond the last one with it; outcomes (data set,
    row), the mean over data sets."""
    top = int(max(seen.max(), np.quantile(again, 0.999)))
    last = min(top, _MOST_COUNTS)

    def counted(y: np.ndarray) -> np.ndarray:
        return np.bincount(np.minimum(y, last).astype(int), minlength=last + 1)

    own, new = np.mean([counted(y) for y in seen], axis=0), np.stack([counted(y) for y in again])
    x = [*map(str, range(last)), f"{last}" if top <= last else f"{last} or more"]
    return _summary(x, own, new, interval)


def _survival(model: OutcomeModel, again: np.ndarray, interval: float) -> pd.DataFrame:
    """Survival curves by action at times up to the longest."""
    assert model.recorded is not None and model.companion is not None
    time, event = model.recorded, model.companion == 1
    arm = np.zeros(len(time), int) if model.rows.stratum is None else model.rows.stratum
    end = float(time.max())
    if np.isfinite(model.payoff.scores[1] if model.payoff.scores else np.inf):
        end = min(end, float(model.payoff.scores[1]))
    at, parts = np.linspace(0, end, _TIMES + 1)[1:], []
    for a in np.unique(arm):
        mine = arm == a
        seen = _kaplan_meier(time[mine], event[mine], at)
        new = (again[:, mine, None] > at).mean(axis=1)
        label = model.design.arms[a] if model.rows.stratum is not None else "all"
        parts.append(_summary(at, seen, new, interval).assign(action=str(label)))
    return pd.concat(parts, ignore_index=True).set_index("action")


def _kaplan_meier(time: np.ndarray, event: np.ndarray, at: np.ndarray) -> np.ndarray:
    points, deaths, at_risk = risk_sets(time, event)
    curve = np.concatenate([[1.0], np.cumprod(1.0 - deaths / at_risk)])
    return curve[np.searchsorted(points, at, side="right")]
