"""What all figures share: colours told apart by colour-blind readers, light and dark, labels as text.

Figures take their text and background colours from matplotlib's rcParams, so that
``plt.style.use("dark_background")`` darkens them. Each figure's label (``figure.get_label()``) says in words
what it shows: the alternative text of a page.
"""

from __future__ import annotations

import base64
import io
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.results.arguments import probability
from bdtr.results.estimates import stacked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["colour", "dark", "figure_of", "finish", "interval_of", "of_stage", "plain"]

# Okabe and Ito's colours; on a dark ground the first two in their lighter forms.
_LIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
_DARK = ("#56B4E9", "#E69F00", "#2FC49A", "#E3A5C7", "#F0E442", "#7FA8FF", "#B0B0B0")


def dark() -> bool:
    """Whether figures are drawn on a dark ground."""
    from matplotlib import rcParams
    from matplotlib.colors import to_rgb

    return float(np.dot(to_rgb(rcParams["figure.facecolor"]), (0.299, 0.587, 0.114))) < 0.5


def colour(i: int) -> str:
    """The i-th colour, beginning again after the last."""
    palette = _DARK if dark() else _LIGHT
    return palette[i % len(palette)]


def figure_of(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches, that shows itself in a notebook."""
    return _class()(figsize=(width, height), layout="constrained")


@cache
def _class() -> type[Figure]:
    from matplotlib.figure import Figure

    class Shown(Figure):
        """A figure that notebooks show with its words, whether pyplot is in use or not."""

        def _repr_mimebundle_(self, include: object = None, exclude: object = None):
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=110)
            image = base64.b64encode(buffer.getvalue()).decode()
            words = str(self.get_label())
            return {"image/png": image, "text/plain": words}, {"image/png": {"alt": words}}

    return Shown


def of_stage(table: pd.DataFrame, stage: str) -> pd.DataFrame:
    """The rows of one stage, without the level that names it."""
    return table[table.index.get_level_values("stage") == stage].droplevel("stage")


def plain(label: object) -> str:
    """A label as text that matplotlib does not read as mathematics."""
    return str(label).replace("$", r"\$")


def interval_of(draws: xr.DataArray, interval: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, lower and upper ends of draws, over the other dims in their order."""
    probability("interval", interval)
    flat = stacked(draws).to_numpy()
    lower, upper = np.quantile(flat, [(1 - interval) / 2, (1 + interval) / 2], axis=-1)
    return flat.mean(axis=-1), lower, upper


def finish(axes: Axes, grid: Literal["x", "y", "both", ""] = "x") -> None:
    """A light grid along one axis (or none) and no frame."""
    from matplotlib import rcParams

    if grid:
        axes.grid(axis=grid, color=rcParams["text.color"], alpha=0.15, linewidth=0.8)
        axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
