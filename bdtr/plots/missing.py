"""Figures of missing values: imputed ones beside recorded ones, and what shifts of them change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bdtr.checks.imputed import ImputedValues
from bdtr.checks.missing import MissingTipping
from bdtr.plots.given import result_of
from bdtr.plots.style import colour, figure_of, finish, plain
from bdtr.results.arguments import text
from bdtr.results.errors import ArgumentError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["imputed_plot", "tipping_missing_plot"]

_FEW_VALUES = 12  # of a number that is shown value by value
_BINS = 6, 24  # at least and at most


def imputed_plot(found: ImputedValues) -> Figure:
    """Recorded values of each variable as bars, the mean and range (90 %) of completed data sets over them.

    Parameters
    ----------
    found
        From :func:`bdtr.checks.imputed_values`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    result_of("found", found, ("recorded", "imputed", "table"), "bdtr.checks.imputed_values")
    names = list(found.recorded)
    if not names:
        raise ArgumentError("found: no value was imputed, so there is nothing to draw.")
    across = min(len(names), 3)
    down = -(-len(names) // across)
    figure = figure_of(0.6 + 2.9 * across, 0.4 + 2.2 * down)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        _compared(axes, found.recorded[name], found.imputed[name])
        gone, known = found.imputed[name].shape[1], len(found.recorded[name])
        axes.set_title(f"{gone:,} of {gone + known:,} imputed", fontsize=8, loc="left")
        axes.set_xlabel(plain(name), fontsize=8)
    for axes in panels[len(names) :]:
        axes.axis("off")
    panels[0].legend(frameon=False, fontsize=7)
    panels[0].set_ylabel("share", fontsize=8)
    means = [f"{n}: mean {_mean(found, n)}" for n in names]
    figure.set_label("Recorded and imputed values. " + "; ".join(means) + ".")
    return figure


def _mean(found: ImputedValues, name: str) -> str:
    if name not in found.table.index:
        return "of labels"
    row = found.table.loc[name]
    return f"{row['mean_recorded']:.3g} recorded, {row['mean_imputed']:.3g} imputed"


def _compared(axes: Axes, recorded: np.ndarray, imputed: np.ndarray) -> None:
    """Shares of recorded values as bars, of imputed ones as a line with a band."""
    every = np.concatenate([recorded, imputed.ravel()])
    if recorded.dtype == object or len(np.unique(every)) <= _FEW_VALUES:
        values = sorted(dict.fromkeys(every))
        at = np.arange(len(values)) - 0.5
        edges = np.arange(len(values) + 1) - 0.5
        place = {value: i for i, value in enumerate(values)}
        counts = [
            np.bincount([place[v] for v in own], minlength=len(values))
            for own in (recorded, *imputed)
        ]
        axes.set_xticks(at + 0.5, [f"{v:g}" if isinstance(v, float) else plain(v) for v in values])
    else:
        few = min(len(recorded), imputed.shape[1])
        bins = int(np.clip(2 * np.sqrt(few), *_BINS))
        edges = np.linspace(np.quantile(every, 0.001), np.quantile(every, 0.999), bins + 1)
        counts = [
            np.histogram(np.clip(own, edges[0], edges[-1]), edges)[0]
            for own in (recorded, *imputed)
        ]
    shares = [one / max(one.sum(), 1) for one in counts]
    axes.stairs(shares[0], edges, fill=True, color=colour(6), alpha=0.4, label="recorded")
    each = np.stack(shares[1:])
    lower, upper = np.quantile(each, [0.05, 0.95], axis=0)
    axes.stairs(upper, edges, baseline=lower, fill=True, color=colour(1), alpha=0.3)
    axes.stairs(each.mean(axis=0), edges, color=colour(1), linewidth=1.3, label="imputed")
    axes.tick_params(labelsize=7)
    finish(axes, "y")


def tipping_missing_plot(found: MissingTipping, unit: str = "payoff") -> Figure:
    """Values of regimes by the size of the shift, and the share of units whose recommendation changes.

    Parameters
    ----------
    found
        From :func:`bdtr.checks.tipping_missing`.
    unit
        Label of the payoff axis.

    Returns
    -------
    matplotlib.figure.Figure
        The line at 0 is missing at random; broken lines are where another regime becomes the best.
    """
    result_of("found", found, ("table", "changed", "tipping"), "bdtr.checks.tipping_missing")
    text("unit", unit)
    figure = figure_of(8.6, 3.6)
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1.0])
    for i, (name, own) in enumerate(found.table.groupby(level="regime", sort=False)):
        size = own.index.get_level_values("size")
        left.fill_between(
            size, own["lower"], own["upper"], color=colour(i), alpha=0.15, linewidth=0
        )
        left.plot(
            size,
            own["mean"],
            "os^Dvp"[i % 6] + "-",
            color=colour(i),
            markersize=4,
            label=plain(name),
        )
    for at in found.tipping["size"].dropna():
        left.axvline(at, color=colour(6), linestyle="--", linewidth=1)
    for i, stage in enumerate(found.changed):
        own = found.changed[stage]
        right.plot(
            own.index,
            own,
            "os^Dvp"[i % 6] + "-",
            color=colour(i),
            markersize=4,
            label=f"stage {plain(stage)}",
        )
    for axes in (left, right):
        axes.axvline(0, color=colour(6), linewidth=0.8)
        axes.set_xlabel(f"size of the shift (times {plain(found.delta)})", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.legend(frameon=False, fontsize=7)
        finish(axes, "both")
    left.set_ylabel(f"value ({plain(unit)})", fontsize=8)
    right.set_ylabel("units with another recommendation", fontsize=8)
    right.set_ylim(bottom=0)
    words = [
        f"{way}: {row['beyond']} is the best beyond {row['size']:.2g}"
        if row["beyond"]
        else f"{way}: no other regime becomes the best"
        for way, row in found.tipping.iterrows()
    ]
    figure.set_label(
        f"Values by the size of the shift of missing values, {found.delta}; {'; '.join(words)}."
    )
    return figure
