"""Figures from labelled draws that a public function returned; they draw, and only draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["p_optimal", "site_caterpillar", "value_forest"]

# Okabe and Ito's colours, told apart by colour-blind readers.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _plain(label: object) -> str:
    """A label as text that matplotlib does not read as mathematics."""
    return str(label).replace("$", r"\$")


def _intervals(draws: xr.DataArray, interval: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    flat = draws.stack(sample=("chain", "draw")).to_numpy()
    lower, upper = np.quantile(flat, [(1 - interval) / 2, (1 + interval) / 2], axis=-1)
    return flat.mean(axis=-1), lower, upper


def value_forest(
    values: xr.Dataset, unit: str = "payoff", interval: float = 0.95, reference: float | None = None
) -> Figure:
    """Posterior means and equal-tailed intervals of regime values.

    Parameters
    ----------
    values
        Dataset with ``value`` over dims ``chain, draw, regime``, from :func:`bdtr.value`.
    unit
        Unit of the payoff, for the axis.
    interval
        Probability of the interval.
    reference
        A value to mark by a line.

    Returns
    -------
    matplotlib.figure.Figure
    """
    regimes = [str(r) for r in values["regime"].to_numpy()]
    mean, lower, upper = _intervals(values["value"].transpose("regime", "chain", "draw"), interval)
    figure = _figure(7.0, 0.8 + 0.42 * len(regimes))
    axes = figure.subplots()
    at = np.arange(len(regimes))[::-1]
    axes.hlines(at, lower, upper, color=_COLOURS[0], linewidth=2.5)
    axes.plot(mean, at, "o", color=_COLOURS[0])
    if reference is not None:
        axes.axvline(reference, color="0.6", linewidth=1, linestyle=":")
    axes.set_yticks(at, [_plain(r) for r in regimes])
    axes.set_ylim(-0.6, len(regimes) - 0.4)
    axes.set_xlabel(f"value ({_plain(unit)}): mean, {100 * interval:g} % equal-tailed interval")
    axes.grid(axis="x", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def site_caterpillar(
    values: xr.Dataset, regime: str, unit: str = "payoff", interval: float = 0.95
) -> Figure:
    """Posterior value of one regime at every site, sorted by its mean.

    Parameters
    ----------
    values
        Dataset with ``value`` over dims ``chain, draw, regime, site``, from
        ``bdtr.value(..., by="site")``.
    regime
        Name of the regime.
    unit, interval
        As in :func:`value_forest`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    draws = values["value"].sel(regime=regime).transpose("site", "chain", "draw")
    mean, lower, upper = _intervals(draws, interval)
    order = np.argsort(mean)
    sites = values["site"].to_numpy()[order]
    figure = _figure(max(7.0, 0.12 * len(sites)), 4.0)
    axes = figure.subplots()
    at = np.arange(len(sites))
    axes.vlines(at, lower[order], upper[order], color=_COLOURS[0], linewidth=1.5)
    axes.plot(at, mean[order], "o", color=_COLOURS[0], markersize=3)
    axes.axhline(mean.mean(), color="0.6", linewidth=1, linestyle=":")
    axes.set_xticks(at, [_plain(s) for s in sites], rotation=90, fontsize=6)
    axes.set_xlim(-1, len(sites))
    axes.set_xlabel("site, sorted by posterior mean")
    axes.set_ylabel(f"value of {_plain(regime)} ({_plain(unit)})")
    axes.set_title(f"mean and {100 * interval:g} % equal-tailed interval", fontsize=9)
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def p_optimal(actions: pd.DataFrame) -> Figure:
    """How sure the recommendations are: units by P(optimal) of their recommended action, by stage.

    Parameters
    ----------
    actions
        ``Recommendation.actions``, units with a choice.

    Returns
    -------
    matplotlib.figure.Figure
    """
    stages = list(dict.fromkeys(actions["stage"]))
    figure = _figure(7.0, 2.4 * len(stages))
    panels = figure.subplots(len(stages), 1, squeeze=False)[:, 0]
    bins = np.linspace(0, 1, 41)
    for axes, stage in zip(panels, stages, strict=True):
        rows = actions[actions["stage"] == stage]
        labels = list(dict.fromkeys(rows["action"]))
        parts = [rows.loc[rows["action"] == label, "p_optimal"].to_numpy() for label in labels]
        colours = [_COLOURS[i % len(_COLOURS)] for i in range(len(labels))]
        axes.hist(
            parts,
            bins=bins.tolist(),
            stacked=True,
            color=colours,
            label=[_plain(x) for x in labels],
        )
        axes.set_ylabel("units")
        axes.set_title(f"stage {_plain(stage)}", fontsize=9, loc="left")
        axes.legend(title="recommended", fontsize=8, title_fontsize=8, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("posterior probability that the recommended action is optimal")
    return figure
