"""Figures of what regimes are worth: forests by regime and site, plans, information."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.plots.given import dataset_of, table_of
from bdtr.plots.style import colour, figure_of, finish, interval_of, plain
from bdtr.results.arguments import finite, is_whole, text
from bdtr.results.errors import ArgumentError
from bdtr.results.estimates import kind_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["frontier_plot", "information_worth", "value_forest", "value_forest_by_site"]

_SITES_A_PAGE = 30


def value_forest(
    values: xr.Dataset, unit: str = "payoff", interval: float = 0.95, reference: float | None = None
) -> Figure:
    """Posterior means and equal-tailed intervals of regime values.

    Parameters
    ----------
    values
        Values of :func:`bdtr.value`, or their draws: ``value`` over dims ``chain, draw, regime``.
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
    text("unit", unit)
    values = dataset_of("values", values, ["value"], ("chain", "draw", "regime"), "bdtr.value")
    if reference is not None:
        finite("reference", reference)
    regimes = [str(r) for r in values["regime"].to_numpy()]
    mean, lower, upper = interval_of(values["value"].transpose("regime", "chain", "draw"), interval)
    figure = figure_of(7.0, 0.8 + 0.42 * len(regimes))
    axes = figure.subplots()
    at = np.arange(len(regimes))[::-1]
    axes.hlines(at, lower, upper, color=colour(0), linewidth=2.5)
    axes.plot(mean, at, "o", color=colour(0))
    if reference is not None:
        axes.axvline(reference, color=colour(6), linewidth=1, linestyle=":")
    axes.set_yticks(at, [plain(r) for r in regimes])
    axes.set_ylim(-0.6, len(regimes) - 0.4)
    axes.set_xlabel(f"value ({plain(unit)}): mean, {kind_of(interval)}")
    finish(axes)
    sign = better_sign(values)
    first = int(np.argmax(sign * mean))
    best = "largest mean" if sign > 0 else "best mean (lower is better)"
    figure.set_label(
        f"Values of {len(regimes)} regimes with {kind_of(interval)}s. The {best} is that of "
        f"{regimes[first]}, {mean[first]:.3f} ({lower[first]:.3f} to {upper[first]:.3f})."
    )
    return figure


def better_sign(values: xr.Dataset) -> float:
    """1 where a larger payoff is better, else -1, as the values say."""
    return 1.0 if values.attrs.get("higher_is_better", 1) else -1.0


def value_forest_by_site(
    values: xr.Dataset, unit: str = "payoff", interval: float = 0.95, page: int = 1
) -> Figure:
    """Values of regimes at each site, sites sorted by the first regime, thirty to a page.

    Parameters
    ----------
    values
        Values of ``bdtr.value(..., by="site")``, or their draws over ``chain, draw, regime, site``.
    unit, interval
        As in :func:`value_forest`.
    page
        Which thirty sites, from 1.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is no such page.
    """
    text("unit", unit)
    dims = ("chain", "draw", "regime", "site")
    values = dataset_of("values", values, ["value"], dims, 'bdtr.value(..., by="site")')
    draws = values["value"].transpose("regime", "site", "chain", "draw")
    mean, lower, upper = interval_of(draws, interval)
    pages = -(-mean.shape[1] // _SITES_A_PAGE)
    if not is_whole(page) or not 1 <= page <= pages:
        raise ArgumentError(
            f"page={page!r}: these values fill {pages} page(s) of {_SITES_A_PAGE} sites."
        )
    order = np.argsort(-better_sign(values) * mean[0])[
        (page - 1) * _SITES_A_PAGE : page * _SITES_A_PAGE
    ]
    regimes = [str(r) for r in values["regime"].to_numpy()]
    figure = figure_of(7.0, 1.2 + 0.28 * len(order))
    axes = figure.subplots()
    at = np.arange(len(order))[::-1]
    shift = np.linspace(0.25, -0.25, len(regimes)) if len(regimes) > 1 else [0.0]
    for d, regime in enumerate(regimes):
        y = at + shift[d]
        axes.hlines(y, lower[d, order], upper[d, order], color=colour(d), linewidth=1.5)
        axes.plot(mean[d, order], y, "o", color=colour(d), markersize=3.5, label=plain(regime))
    axes.set_yticks(at, [plain(s) for s in values["site"].to_numpy()[order]])
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_ylabel("site")
    axes.set_xlabel(f"value ({plain(unit)}): mean, {kind_of(interval)}")
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8)
    finish(axes)
    figure.set_label(
        f"Values of {len(regimes)} regimes at {len(order)} of {mean.shape[1]} sites with "
        f"{kind_of(interval)}s."
    )
    return figure


def frontier_plot(frontier: xr.Dataset, unit: str = "payoff", interval: float = 0.95) -> Figure:
    """Value of plans against the disparity that they leave, with intervals of both.

    Parameters
    ----------
    frontier
        From :func:`bdtr.decisions.equity_frontier`, or its draws of ``value`` and ``disparity`` over dims
        ``chain, draw, plan``.
    unit, interval
        As in :func:`value_forest`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    text("unit", unit)
    dims = ("chain", "draw", "plan")
    frontier = dataset_of(
        "frontier", frontier, ["value", "disparity"], dims, "bdtr.decisions.equity_frontier"
    )
    value = interval_of(frontier["value"].transpose("plan", "chain", "draw"), interval)
    apart = interval_of(frontier["disparity"].transpose("plan", "chain", "draw"), interval)
    plans = [str(p) for p in frontier["plan"].to_numpy()]
    figure = figure_of(7.0, 4.2)
    axes = figure.subplots()
    axes.plot(apart[0], value[0], color=colour(6), linewidth=1)
    for i, plan in enumerate(plans):
        axes.hlines(value[0][i], apart[1][i], apart[2][i], color=colour(i), linewidth=1.2)
        axes.vlines(apart[0][i], value[1][i], value[2][i], color=colour(i), linewidth=1.2)
        axes.plot(apart[0][i], value[0][i], "o", color=colour(i), label=plain(plan))
    axes.set_xlabel(f"largest difference between groups ({plain(unit)})")
    axes.set_ylabel(f"value ({plain(unit)})")
    axes.set_title(f"means and {kind_of(interval)}s", fontsize=9, loc="left")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    finish(axes, "both")
    figure.set_label(
        f"Value against disparity of {len(plans)} plans: from {value[0].min():.3f} at a disparity of "
        f"{apart[0][value[0].argmin()]:.3f} to {value[0].max():.3f} at {apart[0][value[0].argmax()]:.3f}."
    )
    return figure


def information_worth(table: pd.DataFrame, unit: str = "payoff") -> Figure:
    """What knowing more is worth, in bars.

    Parameters
    ----------
    table
        From :func:`bdtr.decisions.perfect_information`, ``site_information`` or ``sample_information``, or
        its table.
    unit
        Unit of the payoff, for the axis.

    Returns
    -------
    matplotlib.figure.Figure
    """
    text("unit", unit)
    table = table_of("table", table, ["value"], "bdtr.decisions.perfect_information")
    labels = [", ".join(map(str, i)) if isinstance(i, tuple) else str(i) for i in table.index]
    value = table["value"].to_numpy(dtype=float)
    figure = figure_of(7.0, 0.9 + 0.4 * len(labels))
    axes = figure.subplots()
    at = np.arange(len(labels))[::-1]
    axes.barh(at, value, color=colour(0), height=0.6)
    axes.set_yticks(at, [plain(x) for x in labels])
    axes.set_xlabel(f"mean gain per unit ({plain(unit)})")
    finish(axes)
    best = int(np.argmax(value))
    figure.set_label(f"What knowing more is worth: at most {value[best]:.3g} ({labels[best]}).")
    return figure
