r"""Values that are missing not at random: how far from it they must be to change what is concluded.

Missing values are drawn once as if missing at random and shifted by s delta, for several sizes s; each time
the completed data sets are fitted anew (the pattern-mixture model of :mod:`bdtr.data.imputation.shifts`;
tipping points: Yan, Lee and Li 2009, J. Biopharm. Stat. 19(6); Cro and others 2020, Stat. Med. 39(21)).
Random numbers are the same at all sizes, so that what differs is the shift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from bdtr.backward.fitted import Fit
from bdtr.backward.fitting import fit_imputed, imputed
from bdtr.backward.passes import backward_pass
from bdtr.backward.regimes import Regime, embedded, recommended, regime_list
from bdtr.data.contents import DataError
from bdtr.data.imputation.options import options
from bdtr.results.arguments import number_list, probability, truth
from bdtr.results.captions import Shown
from bdtr.results.diagnostics import State, doubt, worst
from bdtr.results.errors import ArgumentError
from bdtr.results.estimates import kind_of
from bdtr.results.progress import progress_bar
from bdtr.stages.settings import make_settings
from bdtr.trial.trial import Trial
from bdtr.values.valuation import value

__all__ = ["MissingTipping", "tipping_missing"]


@dataclass(frozen=True, repr=False)
class MissingTipping(Shown):
    """Values and recommendations when missing values are shifted.

    ``table`` by ``size`` and ``regime``: mean, SD and interval of the value, and ``p_best`` among those named
    in advance. ``changed`` by ``size`` and stage: share of units with a choice whose recommended action is
    another one than at size 0. ``tipping`` by ``direction`` from 0: the ``size`` at which another regime of
    those named in advance becomes the best (``best`` now, ``beyond`` then), and that of the first unit whose
    recommended ``action_changes``; between two sizes by linear interpolation of differences of means, NaN
    where nothing changes.
    """

    _tables: ClassVar[tuple[str, ...]] = ("tipping", "table", "changed")

    table: pd.DataFrame
    changed: pd.DataFrame
    tipping: pd.DataFrame
    delta: str
    interval: float
    state: State

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return (
            f"{self.state}. Missing values shifted by size times {self.delta} from what they would be if "
            f"missing at random; population: sample; {kind_of(self.interval)}s."
        )


def tipping_missing(
    trial: Trial,
    data: pd.DataFrame,
    delta: Mapping[str, Any],
    *regimes: Regime,
    sizes: Sequence[float] = (-1.0, -0.5, 0.0, 0.5, 1.0),
    interval: float = 0.95,
    imputations: int = 20,
    imputation: Mapping[str, str] | None = None,
    auxiliary: Sequence[str] = (),
    off_protocol: str = "error",
    chains: int = 4,
    draws: int = 1000,
    propagated: int | None = None,
    random_seed: int | None = None,
    progress: bool = False,
) -> MissingTipping:
    """Shift missing values by several sizes and see when the best regime or a recommendation changes.

    Parameters
    ----------
    trial, data
        As in :func:`bdtr.fit`.
    delta
        The shift at size 1, as in :func:`bdtr.fit`: ``{"y": -10}``, or by the label of the last action,
        ``{"y": {"app": -10}}``.
    *regimes
        Regimes; left out: the recommended one and all embedded in the trial.
    sizes
        Factors of the shift; 0, missing at random, is always among them.
    interval
        Probability of the equal-tailed intervals.
    imputations, imputation, auxiliary, off_protocol, chains, draws, propagated, random_seed, progress
        As in :func:`bdtr.fit`.

    Returns
    -------
    MissingTipping
        In units of the outcome.

    Raises
    ------
    ValueError
        If the shift is for something that is not missing, or is no number, or nothing is missing at all.

    Examples
    --------
    >>> data = bdtr.datasets.activity()
    >>> stage = bdtr.Stage("a1", actions=["app", "coach"], formula="steps0 * a1")
    >>> trial = bdtr.Trial([stage], outcome="steps1")
    >>> data.loc[::9, "steps1"] = float("nan")
    >>> found = bdtr.checks.tipping_missing(
    ...     trial, data, {"steps1": {"coach": -1000}}, sizes=[1], imputations=4, draws=100, random_seed=1
    ... )
    >>> list(found.tipping)
    ['size', 'best', 'beyond', 'action_changes']
    """
    probability("interval", interval)
    truth("progress", progress)
    asked = options(imputations, imputation, auxiliary, delta)
    if not asked.delta:
        raise ArgumentError(f"delta={delta!r}: name a variable or more, such as {{'y': -0.2}}.")
    wanted = sorted({0.0, *number_list("sizes", sizes)})
    if len(wanted) < 2:
        raise ArgumentError(f"sizes={sizes!r}: name one or more beside 0.")
    settings = make_settings(
        trial,
        "impute",
        off_protocol,
        "direct",
        chains,
        draws,
        None,
        propagated,
        random_seed,
        imputations,
    )
    found = imputed(trial, data, settings, asked, progress)
    if found.values is None:
        raise DataError("tipping_missing: no value is missing that the trial needs.")
    chosen, tables, states = regime_list(regimes), {}, {}
    means: dict[str, dict[float, np.ndarray]] = {one.action: {} for one in found.trial.stages}
    with progress_bar(progress, "sizes of the shift") as report:
        for i, size in enumerate(wanted):
            fit = fit_imputed(found, data, settings, size)
            chosen = chosen or [recommended(), *embedded(fit.require_data("tipping points"))]
            tables[size] = value(fit, *chosen, interval=interval).table
            states[size] = fit.state
            for k, one in enumerate(found.trial.stages):
                means[one.action][size] = _mean_payoffs(fit, k)
            if report:
                report(i + 1, len(wanted))
    means = {stage: _of_all_sizes(one) for stage, one in means.items()}
    table = pd.concat(tables, names=["size"])
    named = [r.name for r in chosen if not r.is_recommended]
    refused = [
        f"at size {k:g} the fit is refused" for k, s in states.items() if s.level == "refused"
    ]
    keep = [c for c in ("mean", "sd", "lower", "upper", "p_best") if c in table]
    changed = {
        stage: [np.mean(_best(one[size]) != _best(one[0.0])) for size in wanted]
        for stage, one in means.items()
    }
    return MissingTipping(
        table[keep],
        pd.DataFrame(changed, index=pd.Index(wanted, name="size")),
        _tipping(table["mean"].unstack("regime")[named], means, trial.higher_is_better),
        ", ".join(f"{name} {shift}" for name, shift in delta.items()),
        interval,
        worst([states[0.0], doubt(*refused)]),
    )


def _tipping(
    values: pd.DataFrame, means: Mapping[str, Mapping[float, np.ndarray]], higher_is_better: bool
) -> pd.DataFrame:
    """Where the best regime and the first recommended action change, either way from 0."""
    sign, rows = (1.0 if higher_is_better else -1.0), []
    of_regimes = {float(s): sign * values.loc[[s]].to_numpy() for s in values.index}
    names = list(map(str, values.columns))
    now = names[int(of_regimes[0.0].argmax())] if names else ""
    for way in (1.0, -1.0):
        size, i = _crossing(of_regimes, way)
        first = min((_crossing(one, way)[0] for one in means.values()), key=abs)
        beyond = names[i] if np.isfinite(size) else ""
        rows.append((size, now, beyond, first))
    columns = ["size", "best", "beyond", "action_changes"]
    index = pd.Index(["upwards", "downwards"], name="direction")
    return pd.DataFrame(rows, index=index, columns=columns).replace(np.inf, np.nan)


def _mean_payoffs(fit: Fit, k: int) -> np.ndarray:
    """Mean payoffs of the actions (unit, action), larger ones better; NaN for units without a choice."""
    stage = fit.require_data("tipping points").stages[k]
    done, units = backward_pass(fit), np.flatnonzero(stage.choosing)
    sign = 1.0 if fit.trial.higher_is_better else -1.0
    out = np.full(stage.feasible.shape, np.nan)
    for block in done.blocks(units):
        mean = sign * done.q_values(k, block).mean(axis=2).T
        out[block] = np.where(stage.feasible[block], mean, -np.inf)
    return out


def _of_all_sizes(means: Mapping[float, np.ndarray]) -> dict[float, np.ndarray]:
    """Those of units who have a choice whatever the size."""
    known = ~np.any([np.isnan(one).any(axis=1) for one in means.values()], axis=0)
    return {size: one[known] for size, one in means.items()}


def _best(means: np.ndarray) -> np.ndarray:
    return means.argmax(axis=1)


def _crossing(means: Mapping[float, np.ndarray], way: float) -> tuple[float, int]:
    """The first size, going one way from 0, at which another column than at 0 is the largest of its row, and
    which; infinite where there is none. Between two sizes differences are taken to be straight lines."""
    sizes = sorted((s for s in means if s * way >= 0), key=abs)
    start = means[0.0]
    if not start.size:
        return np.inf, 0
    rows, now = np.arange(len(start)), _best(start)
    for before, size in pairwise(sizes):
        with np.errstate(invalid="ignore", divide="ignore"):
            one, two = (means[s] - means[s][rows, now][:, None] for s in (before, size))
            share = np.where(two > 0, np.clip(-one / (two - one), 0.0, 1.0), np.inf)
        if np.isfinite(share).any():
            first = np.unravel_index(share.argmin(), share.shape)
            return before + float(share[first]) * (size - before), int(first[1])
    return np.inf, 0
