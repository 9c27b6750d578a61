"""Figures of the trial itself: balance, overlap, predictive checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bdtr.plots.given import table_of
from bdtr.plots.style import colour, figure_of, finish, of_stage, plain
from bdtr.results.arguments import text
from bdtr.results.errors import ArgumentError
from bdtr.results.estimates import kind_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "balance_plot",
    "outcome_plot",
    "overlap_plot",
    "predictive_plot",
]


def balance_plot(table: pd.DataFrame) -> Figure:
    """Standardised differences of covariates by stage and action, with the limits .05 and .25.

    Parameters
    ----------
    table
        From :func:`bdtr.checks.covariate_balance`, or its table.

    Returns
    -------
    matplotlib.figure.Figure
    """
    needed = ("stage", "covariate", "action", "difference")
    table = table_of("table", table, needed, "bdtr.checks.covariate_balance")
    stages = list(dict.fromkeys(table.index.get_level_values("stage")))
    counts = [of_stage(table, s).index.get_level_values("covariate").nunique() for s in stages]
    figure = figure_of(7.0, 1.0 + 0.3 * sum(counts) + 0.4 * len(stages))
    panels = figure.subplots(len(stages), 1, squeeze=False, height_ratios=counts, sharex=True)[:, 0]
    for axes, stage in zip(panels, stages, strict=True):
        own = of_stage(table, stage)["difference"]
        names = list(dict.fromkeys(own.index.get_level_values("covariate")))
        for limit, line in ((0.05, ":"), (0.25, "--")):
            axes.axvline(limit, color=colour(6), linewidth=1, linestyle=line)
            axes.axvline(-limit, color=colour(6), linewidth=1, linestyle=line)
        for i, action in enumerate(dict.fromkeys(own.index.get_level_values("action"))):
            part = own[own.index.get_level_values("action") == action]
            at = [len(names) - 1 - names.index(n) for n in part.index.get_level_values("covariate")]
            axes.plot(part.to_numpy(), at, "os^Dvp"[i % 6], color=colour(i), label=plain(action))
        axes.set_yticks(range(len(names)), [plain(n) for n in names[::-1]], fontsize=8)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_title(f"stage {plain(stage)}", fontsize=9, loc="left")
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        finish(axes, "y")
    panels[-1].set_xlabel("difference from the reference action (SDs); dotted .05, dashed .25")
    size = table["difference"].abs()
    figure.set_label(
        f"Standardised differences of {len(table)} comparisons; the largest is {size.max():.3f} "
        f"({_name_of(table, int(size.to_numpy().argmax()))})."
    )
    return figure


def overlap_plot(table: pd.DataFrame) -> Figure:
    """Shares of actions, and the range of their probabilities over sites.

    Parameters
    ----------
    table
        From :func:`bdtr.checks.overlap`, or its table.

    Returns
    -------
    matplotlib.figure.Figure
    """
    needed = ("stage", "action", "share", "lowest", "highest")
    table = table_of("table", table, needed, "bdtr.checks.overlap")
    labels = [f"{stage}: {action}" for stage, action in table.index]
    figure = figure_of(7.0, 0.9 + 0.4 * len(labels))
    axes = figure.subplots()
    at = np.arange(len(labels))[::-1]
    axes.hlines(at, table["lowest"], table["highest"], color=colour(5), linewidth=5, alpha=0.6,
                label="range over sites")  # fmt: skip
    axes.plot(table["share"], at, "o", color=colour(0), label="share of units")
    if "planned" in table:
        axes.plot(table["planned"], at, "|", color=colour(1), markersize=14, label="planned")
    axes.set_yticks(at, [plain(x) for x in labels])
    axes.set_xlim(0, 1)
    axes.set_xlabel("probability of the action among units who could take it")
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    finish(axes)
    low = table["lowest"].to_numpy()
    figure.set_label(
        f"Shares of actions and their range over sites; the lowest probability is {low.min():.3f} "
        f"({_name_of(table, int(low.argmin()))})."
    )
    return figure


def _name_of(table: pd.DataFrame, row: int) -> str:
    return ", ".join(str(level[row]) for level in zip(*table.index.tolist(), strict=True))


def predictive_plot(
    histograms: pd.DataFrame, unit: str = "payoff", interval: float = 0.95
) -> Figure:
    """Observed responses of each stage over bands of replicated ones.

    Parameters
    ----------
    histograms
        From :func:`bdtr.checks.predictive_checks`, or its ``histograms``.
    unit, interval
        As in :func:`bdtr.plots.value_forest`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    text("unit", unit)
    needed = ("stage", "left", "right", "lower", "upper", "observed")
    maker = "bdtr.checks.predictive_checks"
    histograms = table_of(
        "histograms", getattr(histograms, "histograms", histograms), needed, maker
    )
    stages = list(dict.fromkeys(histograms.index.get_level_values("stage")))
    figure = figure_of(7.0, 2.4 * len(stages))
    panels = figure.subplots(len(stages), 1, squeeze=False)[:, 0]
    outside = []
    for axes, stage in zip(panels, stages, strict=True):
        own = of_stage(histograms, stage)
        edges = np.append(own["left"], own["right"].iloc[-1])
        band = [np.append(own[c], own[c].iloc[-1]) for c in ("lower", "upper", "observed")]
        axes.fill_between(edges, band[0], band[1], step="post", color=colour(5), alpha=0.4, linewidth=0,
                          label="replicated")  # fmt: skip
        axes.step(edges, band[2], where="post", color=colour(1), linewidth=1.5, label="observed")
        axes.set_title(f"stage {plain(stage)}", fontsize=9, loc="left")
        axes.set_ylabel("share of units")
        axes.legend(frameon=False, fontsize=8)
        finish(axes, "")
        away = (own["observed"] < own["lower"]) | (own["observed"] > own["upper"])
        outside.append(f"stage {stage}: {int(away.sum())} of {len(own)} bins outside")
    panels[-1].set_xlabel(f"response ({plain(unit)}); bands: {kind_of(interval)}s")
    figure.set_label("Responses and replicated responses; " + "; ".join(outside) + ".")
    return figure


_AXES = {
    "calibration": ("predicted mean", "observed mean"),
    "rootogram": ("count", "units (square root)"),
    "categories": ("category", "units"),
    "survival": ("time", "share without the event"),
}


def outcome_plot(curves: Any, unit: str = "payoff") -> Figure:
    """Outcomes of the last stage over bands of replicated ones, as their family shows them.

    Parameters
    ----------
    curves
        From :func:`bdtr.checks.outcome_curves`.
    unit
        Unit of times.

    Returns
    -------
    matplotlib.figure.Figure
    """
    text("unit", unit)
    kind, interval = getattr(curves, "kind", None), getattr(curves, "interval", 0.95)
    needed = ("x", "observed", "mean", "lower", "upper")
    table = table_of(
        "curves", getattr(curves, "table", curves), needed, "bdtr.checks.outcome_curves"
    )
    if kind not in _AXES:
        raise ArgumentError("curves: give what bdtr.checks.outcome_curves makes.")
    figure = figure_of(7.0, 3.4)
    axes = figure.subplots()
    if kind == "survival":
        _survival_curves(axes, table)
    else:
        _bars_or_points(axes, table, kind)
    x, y = _AXES[kind]
    axes.set_xlabel(f"{x} ({plain(unit)})" if kind == "survival" else x)
    axes.set_ylabel(y)
    axes.legend(frameon=False, fontsize=8)
    finish(axes, "")
    outside = int(
        ((table["observed"] < table["lower"]) | (table["observed"] > table["upper"])).sum()
    )
    figure.set_label(
        f"{y[0].upper()}{y[1:]} over bands of replications ({kind_of(interval)}s): {outside} of {len(table)} "
        "outside."
    )
    return figure


def _survival_curves(axes: Axes, table: pd.DataFrame) -> None:
    for i, (action, own) in enumerate(table.groupby(level=0, sort=False)):
        axes.fill_between(
            own["x"], own["lower"], own["upper"], color=colour(i), alpha=0.25, linewidth=0
        )
        axes.step(
            own["x"], own["observed"], where="post", color=colour(i), label=plain(str(action))
        )
    axes.set_ylim(0, 1.02)


def _bars_or_points(axes: Axes, table: pd.DataFrame, kind: str) -> None:
    root = np.sqrt if kind == "rootogram" else np.asarray
    at = table["x"].to_numpy() if kind == "calibration" else np.arange(len(table))
    low, high = root(table["lower"]), root(table["upper"])
    middle, seen = root(table["mean"]), root(table["observed"])
    if kind == "calibration":
        axes.axline((float(at[0]), float(at[0])), slope=1.0, color="0.7", linewidth=1)
        axes.fill_between(
            at, low, high, color=colour(5), alpha=0.4, linewidth=0, label="replicated"
        )
    else:
        axes.bar(at, seen, color=colour(5), alpha=0.5, label="observed")
        step = max(1, len(at) // 20)
        axes.set_xticks(at[::step], [plain(str(x)) for x in table["x"].iloc[::step]])
        # The mean of a rare count lies outside its interval, which ends at 0.
        axes.vlines(at, low, high, color=colour(0), linewidth=1)
        axes.plot(at, middle, ".", color=colour(0), label="replicated")
        return
    axes.plot(at, seen, "o", color=colour(1), markersize=4, label="observed")
