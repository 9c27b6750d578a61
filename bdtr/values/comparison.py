"""Regimes against each other, draw by draw: contrasts, ranks, and the set of those that may be best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.results.arguments import one_of, probability, truth
from bdtr.results.captions import Captioned, Shown
from bdtr.results.errors import ArgumentError
from bdtr.results.estimates import estimates, kind_of, stacked
from bdtr.values.regimevalues import Values

__all__ = ["SCALES", "Comparison", "SetOfBest", "compare", "ranks", "set_of_best"]


@dataclass(frozen=True)
class _Scale:
    """A contrast as a difference of transformed values, and back."""

    between: str  # what stands between the names of two regimes
    forward: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]
    equal: float  # the contrast of two regimes that are worth the same
    domain: tuple[float, float]  # without its ends


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _log_odds(x: np.ndarray) -> np.ndarray:
    return np.log(x) - np.log1p(-x)


_ANY = (-np.inf, np.inf)
SCALES: Mapping[str, _Scale] = {
    "difference": _Scale("minus", _same, _same, 0.0, _ANY),
    "ratio": _Scale("/", np.log, np.exp, 1.0, (0.0, np.inf)),
    "odds ratio": _Scale("/", _log_odds, np.exp, 1.0, (0.0, 1.0)),
    "log risk ratio": _Scale("to", np.log, _same, 0.0, (0.0, 1.0)),
    "log odds ratio": _Scale("to", _log_odds, _same, 0.0, (0.0, 1.0)),
}


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """Contrasts with a reference regime: draws (dims ``chain, draw, contrast``, ..), a table, how made.

    ``table`` has ``mean, sd, lower, upper`` and ``p_better``, the probability that the regime is better
    than the reference (draws in which both are worth the same count half).
    """

    draws: xr.DataArray
    table: pd.DataFrame
    scale: str
    reference: str
    about: str

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return f"{self.scale.capitalize()} against {self.reference}. {self.about}"


def compare(
    values: Values | xr.DataArray,
    reference: str | None = None,
    scale: str = "difference",
    interval: float | None = None,
    higher_is_better: bool | None = None,
) -> Comparison:
    """Contrasts of regimes with one of them.

    Parameters
    ----------
    values
        From :func:`bdtr.value`, or draws of values with dims ``chain, draw`` (or ``sample``) and
        ``regime``, and others such as ``site``.
    reference
        Name of a regime; left out: the first one.
    scale
        ``"difference"`` (units of the outcome), ``"ratio"`` (values above 0), ``"odds ratio"``,
        ``"log risk ratio"`` or ``"log odds ratio"`` (values between 0 and 1).
    interval
        Probability of the equal-tailed interval; left out: that of the values, or 0.95.
    higher_is_better
        Whether a larger value is better; left out: what the trial says, and yes for bare draws.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If there is no such regime or scale, or values lie outside the domain of the scale.

    Examples
    --------
    >>> values = bdtr.value(fit, bdtr.static(a1="small", a2="small"), bdtr.recommended())
    >>> list(bdtr.compare(values, "small, small").table)
    ['mean', 'sd', 'lower', 'upper', 'p_better']
    >>> labels = {"regime": ["a", "b"]}
    >>> draws = xr.DataArray([[1.0, 2.0], [3.0, 3.0]], dims=("sample", "regime"), coords=labels)
    >>> compare(draws).table.loc["b minus a", "p_better"].item()
    0.75
    """
    if interval is None:
        interval = values.interval if isinstance(values, Values) else 0.95
    probability("interval", interval)
    draws, better, about = _taken(values, higher_is_better)
    names = [str(n) for n in draws["regime"].to_numpy()]
    if len(names) < 2:
        raise ArgumentError(f"values: {names} is one regime alone; give values of two or more.")
    chosen = names[0] if reference is None else reference
    one_of("reference", chosen, names)
    kind = _scale(scale, draws)
    forward = xr.apply_ufunc(kind.forward, draws)
    others = [n for n in names if n != chosen]
    apart = forward.sel(regime=others) - forward.sel(regime=chosen, drop=True)
    found = xr.apply_ufunc(kind.back, apart).rename(regime="contrast").rename("contrast")
    found = found.assign_coords(contrast=[f"{n} {kind.between} {chosen}" for n in others])
    found = found.transpose(*("contrast" if d == "regime" else d for d in draws.dims))
    table = estimates(found, interval)
    gain = stacked(found) - kind.equal
    won = (gain > 0 if better else gain < 0).mean("sample") + 0.5 * (gain == 0).mean("sample")
    table["p_better"] = won.to_numpy().ravel()
    return Comparison(found, table, scale, chosen, f"{about}{kind_of(interval)}s.")


def ranks(values: Values | xr.DataArray, higher_is_better: bool | None = None) -> Captioned:
    """How regimes rank in each draw, 1 being the best.

    Parameters
    ----------
    values, higher_is_better
        As in :func:`compare`.

    Returns
    -------
    Captioned
        Its ``table`` has per regime (and other dims) ``p_best``, the probability that it is the best of those
        that were named before the data were seen (none for learned ones, or where one was named alone),
        ``mean_rank``, and ``p_rank_1``, ``p_rank_2``, .. among all. Regimes that are worth the same in a draw
        share their ranks.
    """
    draws, better, about = _taken(values, higher_is_better)
    table = _ranked(draws, better)
    learned = getattr(values, "learned", ())
    named = [n for n in draws["regime"].to_numpy() if n not in learned]
    best = pd.Series(np.nan, index=table.index)
    if len(named) > 1:
        best.update(_ranked(draws.sel(regime=named), better)["p_best"])
    caption = f"{about}Ranks of values, 1 is the best."
    if len(named) < draws.sizes["regime"]:
        caption += f" P(best) is among regimes that were not learned: {', '.join(named)}."
    return Captioned(table.assign(p_best=best), caption)


def _ranked(draws: xr.DataArray, better: bool) -> pd.DataFrame:
    """Probabilities of ranks of regimes."""
    flat = stacked(draws).transpose(..., "regime", "sample")
    x = flat.to_numpy() * (1.0 if better else -1.0)
    count = x.shape[-2]
    above = (x[..., None, :, :] > x[..., :, None, :]).sum(axis=-2)  # regimes better than this one
    equal = (x[..., None, :, :] == x[..., :, None, :]).sum(axis=-2)  # with itself
    out = {
        "p_best": ((above == 0) / equal).mean(axis=-1),
        "mean_rank": (above + (equal + 1) / 2).mean(-1),
    }
    for r in range(count):
        out[f"p_rank_{r + 1}"] = (((above <= r) & (r < above + equal)) / equal).mean(axis=-1)
    dims = [str(d) for d in flat.dims[:-1]]
    arrays = {
        name: xr.DataArray(v, dims=dims, coords={d: flat[d] for d in dims})
        for name, v in out.items()
    }
    order = ["regime", *(d for d in dims if d != "regime")]
    table = xr.Dataset(arrays).transpose(*order).to_dataframe(dim_order=order)
    return table[list(out)]


@dataclass(frozen=True, repr=False)
class SetOfBest(Shown):
    """Regimes that cannot be told from the best, with simultaneous limits.

    ``table`` has per regime its ``mean`` value, the mean and upper limit of its advantage over
    ``reference``, the regime with the best posterior mean, and whether it is in the ``set``.
    """

    table: pd.DataFrame
    reference: str
    scale: str
    level: float
    about: str

    @property
    def names(self) -> list[str]:
        """The regimes in the set."""
        return [str(n) for n in self.table.index[self.table["in_set"]]]

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return (
            f"Set of best regimes: {', '.join(self.names)}. Advantage over {self.reference} "
            f"({self.scale}), simultaneous upper limits of {100 * self.level:g} %. {self.about}"
        )


def set_of_best(
    values: Values | xr.DataArray,
    scale: str = "difference",
    level: float = 0.95,
    higher_is_better: bool | None = None,
) -> SetOfBest:
    r"""Regimes that may be best, with control of multiplicity: Bayesian comparison with the best.

    With r* the regime of the best posterior mean and the advantage A_r = f(V_r) - f(V_r*), the upper
    limits are the marginal quantiles of the A_r at one common probability, the smallest one for which

        P(A_r <= U_r for all r) >= level.

    A regime is in the set if U_r >= 0.

    Parameters
    ----------
    values
        As in :func:`compare`, of regimes that were named before the data were seen. The recommended
        regime was not, and is left out.
    scale
        As in :func:`compare`, ratios excepted.
    level
        Probability with which all limits hold together.
    higher_is_better
        As in :func:`compare`. Where lower is better, advantages are turned round.

    Returns
    -------
    SetOfBest

    Raises
    ------
    ValueError
        If fewer than two regimes are left, or the values have other dims such as ``site``.

    References
    ----------
    Artman, W. J., Ertefaie, A., Lynch, K. G., McKay, J. R. (2020). Bayesian set of best dynamic treatment
    regimes and sample size determination for SMARTs with binary outcomes. arXiv 2008.02341.
    """
    probability("level", level)
    draws, better, about = _taken(values, higher_is_better)
    extra = [str(d) for d in draws.dims if d not in ("chain", "draw", "sample", "regime")]
    if extra:
        raise ArgumentError(
            f"values: set_of_best compares one population; choose one {extra[0]} first."
        )
    learned = tuple(getattr(values, "learned", ()))
    names = [str(n) for n in draws["regime"].to_numpy() if n not in learned]
    if len(names) < 2:
        raise ArgumentError(
            "values: set_of_best needs two regimes or more that were named before the data were seen."
        )
    if learned:
        about += f"Left out, as learned from these data: {', '.join(learned)}. "
    one_of("scale", scale, SCALES)
    if scale in ("ratio", "odds ratio"):
        raise ArgumentError(f"scale={scale!r}: use 'log risk ratio' or 'log odds ratio'.")
    x = stacked(draws.sel(regime=names)).to_numpy()
    advantage = _scale(scale, draws).forward(x) * (1.0 if better else -1.0)
    best = int(advantage.mean(axis=1).argmax())
    advantage = advantage - advantage[best]
    limits = _simultaneous(np.delete(advantage, best, axis=0), level)
    table = pd.DataFrame(
        {
            "mean": x.mean(axis=1),
            "advantage": advantage.mean(axis=1),
            "upper": np.insert(limits, best, 0.0),
        },
        index=pd.Index(names, name="regime"),
    )
    table["in_set"] = table["upper"] >= 0
    return SetOfBest(table, names[best], scale, level, about.strip())


def _simultaneous(x: np.ndarray, level: float) -> np.ndarray:
    """Upper limits of quantities (quantity, sample) that hold together, all at the same quantile."""
    ordered = np.sort(x, axis=1)
    # Rank of a draw: the place where draws of the same quantity reach it, ties at the first of them.
    rank = np.stack(
        [np.searchsorted(o, own, side="left") + 1 for o, own in zip(ordered, x, strict=True)]
    )
    worst = np.sort(rank.max(axis=0))
    at = worst[int(np.ceil(level * x.shape[1])) - 1]
    return ordered[:, at - 1]


def _scale(name: str, draws: xr.DataArray) -> _Scale:
    one_of("scale", name, SCALES)
    scale = SCALES[name]
    low, high = float(draws.min()), float(draws.max())
    first, last = scale.domain
    if low <= first or high >= last:
        raise ArgumentError(
            f"scale={name!r} needs values between {first:g} and {last:g}; these reach from {low:.3g} to "
            f"{high:.3g}. Use scale='difference'."
        )
    return scale


def _taken(
    values: Values | xr.DataArray, higher_is_better: bool | None
) -> tuple[xr.DataArray, bool, str]:
    """Draws, whether higher is better, and what they are."""
    if higher_is_better is not None:
        truth("higher_is_better", higher_is_better)
    if isinstance(values, xr.DataArray):
        draws, better, about = values, True, ""
    elif not isinstance(getattr(values, "draws", None), xr.Dataset):
        raise ArgumentError(f"values={values!r}: give values of regimes, as bdtr.value makes them.")
    else:
        draws, better = values.draws["value"], values.higher_is_better
        about = f"{values.state}. Population: {values.population}. Later stages: {values.policy}. "
    if "regime" not in draws.dims:
        raise ArgumentError(
            f"values: they need the dim 'regime'; they have {', '.join(map(str, draws.dims))}."
        )
    return draws, better if higher_is_better is None else higher_is_better, about
