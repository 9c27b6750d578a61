r"""Effects of regimes in the words of each kind of outcome: risks, odds, rates, times, numbers needed.

With V and V_0 the values of a regime and of the reference, in each draw:

    probabilities   V - V_0 (risk difference), V / V_0 (risk ratio), V (1 - V_0) / (V_0 (1 - V)) (odds ratio),
                    log odds ratio / 1.65 (Cox index, on the scale of a standardised difference; Cox 1970,
                    The Analysis of Binary Data)
    rates, amounts, times    V - V_0 and V / V_0
    scores          V - V_0, and as a share of the range of the payoff

The number needed to treat is 1 / |risk difference|: how many units are given the regime for one good outcome
more (benefit) or less (harm). Where the interval of the difference holds 0, that of the number reaches from
one side through infinity to the other (Altman 1998, BMJ 317).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.backward.fitted import Fit
from bdtr.results.arguments import a_fit, probability
from bdtr.results.captions import Shown
from bdtr.results.errors import ArgumentError
from bdtr.results.estimates import estimates, kind_of
from bdtr.trial.payoff import Payoff
from bdtr.values.comparison import compare
from bdtr.values.regimevalues import Values

__all__ = ["EffectMeasures", "effect_measures"]

_COX = 1.65
_RATES = ("poisson", "negative_binomial")


@dataclass(frozen=True, repr=False)
class EffectMeasures(Shown):
    """Effects of regimes against a reference, in the measures of the outcome.

    ``draws`` has each measure with dims ``chain, draw, regime`` (and ``site`` or ``group``); ``table`` their
    ``mean, sd, lower, upper`` and ``p_better``; ``needed`` numbers needed to treat, for probabilities.
    """

    _tables = ("table", "needed")

    draws: xr.Dataset
    table: pd.DataFrame
    needed: pd.DataFrame
    reference: str
    about: str

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return f"Effects against {self.reference}. {self.about}"


def effect_measures(
    fit: Fit, values: Values, reference: str | None = None, interval: float | None = None
) -> EffectMeasures:
    """Effects of regimes in the words of the outcome: differences, ratios, odds, numbers needed to treat.

    Parameters
    ----------
    fit
        The fitted trial that the values are from.
    values
        From :func:`bdtr.value`, two regimes or more.
    reference
        Name of a regime; left out: the first one.
    interval
        Probability of the equal-tailed intervals; left out: that of the values.

    Returns
    -------
    EffectMeasures

    Raises
    ------
    ValueError
        If there is no such regime, or only one.

    Examples
    --------
    >>> values = bdtr.value(fit, bdtr.static(a1="small", a2="small"), bdtr.recommended())
    >>> found = bdtr.values.effect_measures(fit, values, reference="small, small")
    >>> list(found.draws)
    ['difference']
    """
    a_fit(fit)
    if not isinstance(values, Values):
        raise ArgumentError(f"values={values!r}: give values of regimes, as bdtr.value makes them.")
    interval = values.interval if interval is None else interval
    probability("interval", interval)
    made = {
        name: compare(values, reference, scale, interval=interval)
        for name, scale in _measures(fit.trial.payoff).items()
    }
    first = next(iter(made.values()))
    names = [
        str(c).removesuffix(f" minus {first.reference}") for c in first.draws["contrast"].values
    ]
    draws = {
        name: one.draws.rename(contrast="regime").assign_coords(regime=names)
        for name, one in made.items()
    }
    draws |= _scaled(draws, fit.trial.payoff)
    better = first.table["p_better"].to_numpy()
    tables = {n: estimates(one, interval).assign(p_better=better) for n, one in draws.items()}
    table = pd.concat(tables, names=["measure"])
    table = table.reorder_levels([*range(1, table.index.nlevels), 0])
    keys = [key if isinstance(key, tuple) else (key,) for key in next(iter(tables.values())).index]
    needed = pd.DataFrame()
    if "risk difference" in tables:
        sign = 1.0 if values.higher_is_better else -1.0
        needed = _needed(tables["risk difference"], sign)
    about = f"Population: {values.population}. {values.state}. {kind_of(interval)}s."
    ordered = table.loc[[(*key, name) for key in keys for name in tables]]
    return EffectMeasures(xr.Dataset(draws), ordered, needed, first.reference, about)


def _measures(payoff: Payoff) -> dict[str, str]:
    """Names of measures and the scales of comparison that they are."""
    if payoff.bounds == (0.0, 1.0) and payoff.family.name != "ordinal":
        names = ("risk difference", "risk ratio", "odds ratio")
        return dict(zip(names, ("difference", "ratio", "odds ratio"), strict=True))
    low, high = payoff.bounds or (-np.inf, np.inf)
    if low != 0.0 or payoff.family.link != "log":
        return {"difference": "difference"}
    what = "mean"
    if payoff.family.name in _RATES:
        what = "rate"
    elif payoff.family.companion == "event":
        what = "restricted mean time" if np.isfinite(high) else "mean time"
    return {f"difference of {what}s": "difference", f"ratio of {what}s": "ratio"}


def _scaled(draws: dict[str, xr.DataArray], payoff: Payoff) -> dict[str, xr.DataArray]:
    """The Cox index of probabilities, and differences of scores as a share of their range."""
    if "odds ratio" in draws:
        return {"Cox index": xr.apply_ufunc(np.log, draws["odds ratio"]) / _COX}
    if "difference" in draws and payoff.bounds and np.isfinite(payoff.bounds).all():
        low, high = payoff.bounds
        return {"share of the range": draws["difference"] / (high - low)}
    return {}


def _needed(difference: pd.DataFrame, sign: float) -> pd.DataFrame:
    """Numbers needed to treat from risk differences and their limits."""
    with np.errstate(divide="ignore"):
        gain = sign * difference["mean"]
        ends = sign * difference[["lower", "upper"]].to_numpy()
        best, worst = ends.max(axis=1), ends.min(axis=1)
        out = pd.DataFrame(
            {
                "needed": 1 / gain.abs(),
                "to": np.where(gain >= 0, "benefit", "harm"),
                "at_best": 1 / np.abs(best),
                "at_worst": 1 / np.abs(worst),
            },
            index=difference.index,
        )
    sides = np.select(
        [(best > 0) & (worst > 0), (best < 0) & (worst < 0)],
        ["benefit throughout", "harm throughout"],
        "from benefit through infinity to harm",
    )
    return out.assign(interval=sides)
