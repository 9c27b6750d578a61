r"""Posterior predictive checks of every stage, overall and at each site.

For a statistic T and draws s of the stage's parameters, given its group effects,

    p = P(T(y_rep) >= T(y)),   y_rep^(s) ~ p(y | theta^(s))   (Gelman, Meng and Stern 1996).

At the last stage y is the observed payoff. At earlier stages each draw has its own response, the
propagated stage value y^(s), and T(y_rep^(s)) is held against T(y^(s)): a realised discrepancy (the same,
Stat. Sinica 6(4)). Where values were imputed, each completed data set is held against its own draws (Gelman
and others 2005, Biometrics 61(1)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.drawnmodels import drawn_models
from bdtr.backward.fitted import Fit
from bdtr.backward.passes import backward_pass
from bdtr.engine.compiled.streams import children
from bdtr.results.arguments import a_fit, probability, whole
from bdtr.results.captions import Shown
from bdtr.results.estimates import kind_of
from bdtr.stages.arviz_groups import replicates
from bdtr.stages.outcome import OutcomeModel

__all__ = [
    "PredictiveChecks",
    "known_by_means",
    "picked_draws",
    "predictive_checks",
    "some_draws",
]

_BINS = 40
type Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, repr=False)
class PredictiveChecks(Shown):
    """Statistics of the responses beside those of replicated ones.

    ``table`` by ``stage, statistic``: ``observed``, mean and interval of the replicated ones and ``p``;
    ``sites`` the same for the mean of each site, with its units; ``histograms`` by ``stage, bin``: edges of
    the bin, share of the responses in it, mean and interval of the replicated shares (Gaussian stages).
    """

    table: pd.DataFrame
    sites: pd.DataFrame
    histograms: pd.DataFrame
    left_out: tuple[str, ...]
    draws: int
    interval: float

    _tables: ClassVar[tuple[str, ...]] = ("table",)

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        text = (
            f"Posterior predictive checks, {self.draws} draws, given group effects; earlier stages: "
            f"propagated responses; {kind_of(self.interval)}s; p = P(replicated >= "
            "observed)."
        )
        if len(self.sites):
            outside = (self.sites["observed"] < self.sites["lower"]) | (
                self.sites["observed"] > self.sites["upper"]
            )
            text += f" Means of sites outside their interval: {outside.sum()} of {len(outside)}."
        if self.left_out:
            text += f" Not checked (models of your own): {', '.join(self.left_out)}."
        return text


def predictive_checks(fit: Fit, draws: int = 200, interval: float = 0.95) -> PredictiveChecks:
    """Replicate the responses of every stage and compare what can be seen of them.

    Of a stage that is computed they are those of the models of its states (``state y``).

    Parameters
    ----------
    fit
        A fitted trial with its data.
    draws
        Posterior draws to replicate from, at most those that are propagated; of each completed data set its
        share.
    interval
        Probability of the equal-tailed intervals.

    Returns
    -------
    PredictiveChecks
        In units of the outcome.

    Examples
    --------
    >>> found = bdtr.checks.predictive_checks(fit)
    >>> list(found.table)
    ['observed', 'mean', 'lower', 'upper', 'p']
    """
    a_fit(fit)
    whole("draws", draws)
    probability("interval", interval)
    fit.require_data("predictive checks")
    picks = picked_draws(fit, draws)
    count = sum(len(pick) for pick in picks)
    tables, sites, histograms, left_out = [], [], [], []
    for label, owner, k in drawn_models(fit):
        model, parts = owner.model(k), owner.parts or (owner,)
        if not isinstance(model, OutcomeModel):
            left_out.append(label)
            continue
        data, design = owner.require_data("predictive checks"), owner.designs[k]
        found = [_both(one, k, pick) for one, pick in zip(parts, picks, strict=True)]
        seen, again = (np.concatenate(own) for own in zip(*found, strict=True))
        stage = data.stages[k]
        means_only = known_by_means(model)
        statistics = _statistics(stage.action[stage.fitted], design.actions, means_only)
        tables.append(
            _held(label, {n: (t(seen), t(again)) for n, t in statistics.items()}, interval)
        )
        if data.trial.site:
            code = design.site_codes(data.frame)[stage.fitted]
            sites.append(_by_site(label, design, code, seen, again, interval))
        if not means_only:
            histograms.append(_histogram(label, seen, again, interval))
    return PredictiveChecks(
        _joined(tables), _joined(sites), _joined(histograms), tuple(left_out), count, interval
    )


def picked_draws(fit: Fit, draws: int) -> list[np.ndarray]:
    """Numbers of evenly spaced propagated draws, of each completed data set its share."""
    parts = fit.parts or (fit,)
    most = parts[0].settings.propagated
    count = min(-(-draws // len(parts)), most)
    return [np.linspace(0, most - 1, count).astype(int) for _ in parts]


def _both(fit: Fit, k: int, pick: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Responses of a stage and replicated ones (sample, row); observed ones once for each sample only where
    there are several data sets."""
    model = fit.model(k)
    assert isinstance(model, OutcomeModel)
    seed = children(fit.settings.stream("predictive checks"), fit.stages)[k]
    again = replicates(model, some_draws(fit, k, pick), np.random.default_rng(seed))
    seen = _responses(fit, k, pick)
    return (seen if fit.settings.part is None else np.broadcast_to(seen, again.shape)), again


def some_draws(fit: Fit, k: int, pick: np.ndarray) -> xr.Dataset:
    """Some of the propagated draws of a stage, as one chain."""
    stacked = fit.posterior(k).stack(sample=("chain", "draw"), create_index=False)
    thinned = stacked.isel(sample=pick).drop_vars(["chain", "draw"]).rename(sample="draw")
    return thinned.assign_coords(draw=np.arange(len(pick))).expand_dims(chain=[0])


def known_by_means(model: OutcomeModel) -> bool:
    """Whether means say all that can be checked of responses: of yes/no outcomes, whose spread follows from
    them, and of censored times, whose pseudo-observations have a spread of their own."""
    censored = model.family.companion == "event" and model.companion is not None
    return model.family.name == "bernoulli" or (censored and bool((model.companion == 0).any()))


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(parts) if parts else pd.DataFrame()


def _responses(fit: Fit, k: int, pick: np.ndarray) -> np.ndarray:
    """Responses of the rows of a stage: (sample, row), or (1, row) where they were observed."""
    data = fit.require_data("predictive checks")
    if k == fit.stages - 1:
        return data.payoff[None]
    rows = np.flatnonzero(data.stages[k].fitted)
    out = np.empty((len(pick), len(rows)))
    for at, values in backward_pass(fit).responses(k, rows):
        out[:, at] = values[:, pick].T
    return out


def _statistics(
    action: np.ndarray, labels: tuple[str, ...], means_only: bool
) -> dict[str, Statistic]:
    """Statistics of responses (sample, row), one number for each sample."""

    def of_action(a: int) -> Statistic:
        return lambda y: y[:, action == a].mean(axis=1)

    out: dict[str, Statistic] = {"mean": lambda y: y.mean(axis=1)}
    if not means_only:
        out["SD"] = lambda y: y.std(axis=1)
        out["skewness"] = _skewness
        out["5 % quantile"] = lambda y: np.quantile(y, 0.05, axis=1)
        out["95 % quantile"] = lambda y: np.quantile(y, 0.95, axis=1)
    for a, label in enumerate(labels):
        if (action == a).any():
            out[f"mean of {label}"] = of_action(a)
    return out


def _skewness(y: np.ndarray) -> np.ndarray:
    away = y - y.mean(axis=1, keepdims=True)
    return (away**3).mean(axis=1) / (away**2).mean(axis=1) ** 1.5


def _held(stage: str, both: dict, interval: float) -> pd.DataFrame:
    """Rows of observed and replicated statistics."""
    tail, rows = (1 - interval) / 2, []
    for name, (seen, again) in both.items():
        lower, upper = np.quantile(again, [tail, 1 - tail])
        rows.append((stage, name, seen.mean(), again.mean(), lower, upper, (again >= seen).mean()))
    columns = ["stage", "statistic", "observed", "mean", "lower", "upper", "p"]
    return pd.DataFrame(rows, columns=columns).set_index(["stage", "statistic"])


def _by_site(label: str, design, code: np.ndarray, seen, again, interval: float) -> pd.DataFrame:
    """Mean response at each site with rows at the stage."""
    units = np.bincount(code, minlength=len(design.site_levels))
    present = np.flatnonzero(units)
    member = np.zeros((len(code), len(units)))
    member[np.arange(len(code)), code] = 1.0
    own, new = ((y @ member)[:, present] / units[present] for y in (seen, again))
    tail = (1 - interval) / 2
    lower, upper = np.quantile(new, [tail, 1 - tail], axis=0)
    index = pd.MultiIndex.from_product(
        [[label], design.site_levels[present]], names=["stage", "site"]
    )
    columns = {"units": units[present], "observed": own.mean(axis=0), "mean": new.mean(axis=0),
               "lower": lower, "upper": upper, "p": (new >= own).mean(axis=0)}  # fmt: skip
    return pd.DataFrame(columns, index=index)


def _histogram(stage: str, seen: np.ndarray, again: np.ndarray, interval: float) -> pd.DataFrame:
    """Shares of responses in bins that hold all but the thinnest tails."""
    low, high = np.quantile(again, [0.0005, 0.9995])
    edges = np.linspace(min(low, seen.min()), max(high, seen.max()), _BINS + 1)

    def shares(y: np.ndarray) -> np.ndarray:
        counts = np.stack([np.histogram(one, edges)[0] for one in y])
        return counts / y.shape[1]

    own, new = shares(seen).mean(axis=0), shares(again)
    tail = (1 - interval) / 2
    lower, upper = np.quantile(new, [tail, 1 - tail], axis=0)
    index = pd.MultiIndex.from_product([[stage], range(_BINS)], names=["stage", "bin"])
    columns = {"left": edges[:-1], "right": edges[1:], "observed": own, "mean": new.mean(axis=0),
               "lower": lower, "upper": upper}  # fmt: skip
    return pd.DataFrame(columns, index=index)
