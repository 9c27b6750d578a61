"""Mean residuals along the history."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bdtr.plots.given import table_of
from bdtr.plots.style import colour, figure_of, finish, of_stage, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["residual_plot"]

_MOST = 4  # variables of a stage
_LIMIT = 1.96


def residual_plot(table: pd.DataFrame) -> Figure:
    """Mean residuals of each action along the variables of the history that they go with most.

    Parameters
    ----------
    table
        From :func:`bdtr.checks.residuals_along`, or its table.

    Returns
    -------
    matplotlib.figure.Figure
        A row for each stage, and at most four variables of each, the worst first.
    """
    needed = ("stage", "variable", "action", "bin", "at", "mean", "error")
    table = table_of("table", table, needed, "bdtr.checks.residuals_along")
    stages = list(dict.fromkeys(table.index.get_level_values("stage")))
    shown = {stage: _worst_first(of_stage(table, stage)) for stage in stages}
    across = max(min(_MOST, len(names)) for names in shown.values())
    figure = figure_of(1.0 + 2.4 * across, 0.6 + 2.3 * len(stages))
    panels = figure.subplots(len(stages), across, squeeze=False, sharey=True)
    for row, stage in zip(panels, stages, strict=True):
        own = of_stage(table, stage)
        for axes, name in zip(row, shown[stage], strict=False):
            _panel(axes, own[own.index.get_level_values("variable") == name])
            axes.set_xlabel(plain(name), fontsize=8)
        for axes in row[len(shown[stage]) :]:
            axes.set_axis_off()
        row[0].set_title(f"stage {plain(stage)}", fontsize=9, loc="left")
        row[0].set_ylabel("mean residual (SDs)", fontsize=8)
        last = row[min(across, len(shown[stage])) - 1]
        last.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    away = (table["mean"] / table["error"]).abs()
    figure.set_label(
        f"Mean residuals with 95 % intervals in {len(table)} bins of actions and variables; "
        f"{int((away > _LIMIT).sum())} intervals leave out zero, about {0.05 * len(table):.0f} by chance."
    )
    return figure


def _worst_first(own: pd.DataFrame) -> list[str]:
    """Variables by the mean square of their residuals in standard errors."""
    squares = pd.Series(np.square(own["mean"] / own["error"].replace(0.0, np.nan)))
    means = squares.groupby(level="variable").mean().sort_values(ascending=False)
    return [str(name) for name in means.index]


def _panel(axes: Axes, own: pd.DataFrame) -> None:
    """One variable: a line for each action."""
    numbers = pd.api.types.is_numeric_dtype(own["at"].infer_objects().dtype)
    labels = [] if numbers else list(dict.fromkeys(own["at"]))
    axes.axhline(0.0, color=colour(6), linewidth=1)
    for i, action in enumerate(dict.fromkeys(own.index.get_level_values("action"))):
        part = own[own.index.get_level_values("action") == action]
        at = [labels.index(x) for x in part["at"]] if labels else part["at"].to_numpy(float)
        axes.errorbar(
            np.asarray(at, dtype=float), part["mean"], _LIMIT * part["error"], fmt="os^Dvp"[i % 6],
            markersize=4, color=colour(i), linestyle="none" if labels else "-", linewidth=1,
            label=plain(action),
        )  # fmt: skip
    if labels:
        axes.set_xticks(range(len(labels)), [plain(x) for x in labels], fontsize=7)
    finish(axes, "x")
