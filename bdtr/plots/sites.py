"""Figures of sites: values and blips sorted, and how far the model draws them together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.plots.given import dataset_of, draws_of, table_of
from bdtr.plots.style import colour, figure_of, finish, interval_of, plain
from bdtr.results.arguments import one_of, text
from bdtr.results.estimates import kind_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["blip_caterpillar", "shrinkage_plot", "site_caterpillar"]


def site_caterpillar(
    values: xr.Dataset, regime: str, unit: str = "payoff", interval: float = 0.95
) -> Figure:
    """Posterior value of one regime at every site, sorted by its mean.

    Parameters
    ----------
    values
        Values of ``bdtr.value(..., by="site")``, or their draws over ``chain, draw, regime, site``.
    regime
        Name of the regime.
    unit, interval
        As in :func:`bdtr.plots.value_forest`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    text("unit", unit)
    dims = ("chain", "draw", "regime", "site")
    values = dataset_of("values", values, ["value"], dims, 'bdtr.value(..., by="site")')
    one_of("regime", regime, map(str, values["regime"].to_numpy()))
    draws = values["value"].sel(regime=regime).transpose("site", "chain", "draw")
    return _caterpillar(draws, f"value of {regime}", unit, interval)


def blip_caterpillar(
    blips: xr.DataArray, action: str, unit: str = "payoff", interval: float = 0.95
) -> Figure:
    """Posterior blip of one action at every site, sorted by its mean.

    Parameters
    ----------
    blips
        From :func:`bdtr.values.site_blips`, or its draws over dims ``chain, draw, site, action``.
    action
        An action other than the reference.
    unit, interval
        As in :func:`bdtr.plots.value_forest`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    text("unit", unit)
    dims = ("chain", "draw", "site", "action")
    blips = draws_of("blips", blips, dims, "bdtr.values.site_blips")
    one_of("action", action, map(str, blips["action"].to_numpy()))
    draws = blips.sel(action=action).transpose("site", "chain", "draw").dropna("site")
    return _caterpillar(draws, f"blip of {action}", unit, interval)


def _caterpillar(draws: xr.DataArray, what: str, unit: str, interval: float) -> Figure:
    mean, lower, upper = interval_of(draws, interval)
    order = np.argsort(mean)
    sites = [str(s) for s in draws["site"].to_numpy()[order]]
    figure = figure_of(max(7.0, 0.12 * len(sites)), 4.0)
    axes = figure.subplots()
    at = np.arange(len(sites))
    axes.vlines(at, lower[order], upper[order], color=colour(0), linewidth=1.5)
    axes.plot(at, mean[order], "o", color=colour(0), markersize=3)
    axes.axhline(mean.mean(), color=colour(6), linewidth=1, linestyle=":")
    axes.set_xticks(at, [plain(s) for s in sites], rotation=90, fontsize=6)
    axes.set_xlim(-1, len(sites))
    axes.set_xlabel("site, sorted by posterior mean")
    axes.set_ylabel(f"{plain(what)} ({plain(unit)})")
    axes.set_title(f"mean and {kind_of(interval)}", fontsize=9)
    finish(axes, "y")
    figure.set_label(
        f"The {what} at {len(sites)} sites, means from {mean.min():.3f} ({sites[0]}) to {mean.max():.3f} "
        f"({sites[-1]})."
    )
    return figure


def shrinkage_plot(table: pd.DataFrame, unit: str = "payoff") -> Figure:
    """Raw, pooled and rescaled blips of the sites, joined by lines.

    Parameters
    ----------
    table
        From :func:`bdtr.values.shrinkage`, or its table.
    unit
        Unit of the payoff, for the axis.

    Returns
    -------
    matplotlib.figure.Figure
    """
    text("unit", unit)
    kinds = ["raw", "pooled", "rescaled"]
    table = table_of("table", table, kinds, "bdtr.values.shrinkage")
    known = table.dropna(subset=kinds)
    figure = figure_of(7.0, 3.2)
    axes = figure.subplots()
    points = known[kinds].to_numpy()
    heights = np.array([2, 1, 0])
    for one in points:
        axes.plot(one, heights, color=colour(6), alpha=0.35, linewidth=0.7)
    spread = points.std(axis=0, ddof=1) if len(points) > 1 else np.full(3, np.nan)
    for i, height in enumerate(heights):
        row = np.full(len(points), height)
        axes.plot(points[:, i], row, "o", color=colour(i), markersize=4, alpha=0.7)
        axes.text(
            1.01, height, f"SD {spread[i]:.3f}", fontsize=8, va="center",
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip
    axes.set_yticks(heights, kinds)
    axes.set_ylim(-0.4, 2.4)
    axes.set_xlabel(f"blip at a site ({plain(unit)}); one line a site")
    finish(axes)
    said = ", ".join(f"{kind} {sd:.3f}" for kind, sd in zip(kinds, spread, strict=True))
    figure.set_label(f"Blips at {len(points)} sites; SD between sites: {said}.")
    return figure
