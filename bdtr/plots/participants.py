"""Figures of the participants: the flow from arm to arm, as readers of CONSORT know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from bdtr.checks.participants import ASIDE, START, Participants, after
from bdtr.plots.given import table_of
from bdtr.plots.style import colour, figure_of, of_stage, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["participant_plot"]

_MOST_PATHS = 24  # with more, boxes are those of the arms of each stage
_TALL, _WIDE, _BESIDE = 0.62, 2.3, 0.5  # of a box and between two, in inches


@dataclass(frozen=True)
class _Box:
    """A box: its stage (0: all units), its end of the path, its label, its counts, and its parent's end."""

    column: int
    end: str
    label: str
    counts: pd.Series
    parent: str


def participant_plot(found: Participants | pd.DataFrame) -> Figure:
    """The participants from left to right: a box for each arm of each stage, with who left and was lost.

    Parameters
    ----------
    found
        From :func:`bdtr.checks.participant_flow`, or its table.

    Returns
    -------
    matplotlib.figure.Figure
        With more than 24 paths the arms of a stage are not told apart by those before.
    """
    maker = "bdtr.checks.participant_flow"
    table = table_of("found", found, ("stage", "before", "now", "units", "in_fit"), maker)
    stages = list(dict.fromkeys(table.index.get_level_values("stage")))
    paths = len(of_stage(table, stages[-1])) <= _MOST_PATHS
    boxes = [box for k, stage in enumerate(stages) for box in _of_stage(table, stage, k, paths)]
    total = of_stage(table, stages[0]).sum()
    boxes.insert(0, _Box(0, "", "all", total, ""))
    heights = _heights(boxes, paths)
    rows = max(heights.values()) + 1
    wide = (len(stages) + 1) * _WIDE + len(stages) * _BESIDE
    figure = figure_of(wide, 0.35 + rows * _TALL)
    axes = figure.subplots()
    shade = _shades(boxes)
    for box in boxes:
        _draw(axes, box, heights, shade.get(box.label, colour(6)), paths)
    for k, stage in enumerate(stages):
        axes.text(
            (k + 1) * (_WIDE + _BESIDE), 0.15, f"stage {plain(stage)}", fontsize=9, weight="bold"
        )
    axes.set_xlim(-0.02, wide + 0.02)
    axes.set_ylim(-rows * _TALL, 0.35)
    axes.axis("off")
    figure.set_label(
        f"Flow of {int(total['units']):,} units; "
        + "; ".join(f"stage {s}: {_in_words(of_stage(table, s))}" for s in stages)
        + "."
    )
    return figure


def _of_stage(table: pd.DataFrame, stage: str, k: int, paths: bool) -> list[_Box]:
    own = of_stage(table, stage)
    if not paths:
        own = own.groupby(level="now", sort=False).sum()
        return [_Box(k + 1, str(now), str(now), counts, "") for now, counts in own.iterrows()]
    out = []
    for place, counts in own.iterrows():
        before, now = place if isinstance(place, tuple) else ("", place)
        parent = "" if before == START else str(before)
        out.append(_Box(k + 1, after(str(before), str(now)), str(now), counts, parent))
    return out


def _heights(boxes: list[_Box], paths: bool) -> dict[tuple[int, str], float]:
    """The row of each box: those at the end one below another, others in the middle of what follows."""
    out: dict[tuple[int, str], float] = {}
    next_row = 0.0

    def place(box: _Box) -> float:
        nonlocal next_row
        after_it = [b for b in boxes if b.column == box.column + 1 and b.parent == box.end]
        if after_it:
            rows = [place(b) for b in after_it]
            out[box.column, box.end] = (rows[0] + rows[-1]) / 2
        else:
            out[box.column, box.end] = next_row
            next_row += 1.0
        return out[box.column, box.end]

    if paths:
        place(boxes[0])
        return out
    for column in sorted({b.column for b in boxes}):
        for row, box in enumerate(b for b in boxes if b.column == column):
            out[column, box.end] = float(row)
    return out


def _shades(boxes: list[_Box]) -> dict[str, str]:
    labels = list(dict.fromkeys(b.label for b in boxes if b.column and b.label not in ASIDE))
    return {label: colour(i) for i, label in enumerate(labels)}


def _draw(
    axes: Axes, box: _Box, heights: dict[tuple[int, str], float], shade: str, paths: bool
) -> None:
    """A box with its counts, and the line to the one before."""
    from matplotlib.patches import Rectangle

    x, y = box.column * (_WIDE + _BESIDE), -heights[box.column, box.end] * _TALL
    style = "--" if box.label in ASIDE else "-"
    tall = 0.88 * _TALL
    axes.add_patch(
        Rectangle(
            (x, y - tall), _WIDE, tall, fill=False, edgecolor=shade, linewidth=1.3, linestyle=style
        )
    )
    title = f"{plain(box.label)}: {int(box.counts['units']):,}"
    axes.text(x + 0.06, y - 0.05, title, fontsize=8, weight="bold", va="top")
    axes.text(x + 0.06, y - 0.22, _lines(box.counts), fontsize=7, va="top", linespacing=1.25)
    if box.column and paths:
        x0, y0 = x - _BESIDE, -heights[box.column - 1, box.parent] * _TALL - tall / 2
        middle, y1 = x - _BESIDE / 2, y - tall / 2
        axes.plot([x0, middle, middle, x], [y0, y0, y1, y1], color=colour(6), linewidth=0.8)


def _lines(counts: pd.Series) -> str:
    """What became of the units of a box, and who is in the fit, in two lines."""
    went = [
        f"{int(counts[name]):,} {name.replace('_', ' ')}"
        for name in ("off_protocol", "went_on", "left", "finished", "lost")
        if counts[name]
    ]
    fit = f"{int(counts['in_fit']):,} in the fit"
    more = [f"{int(counts[name]):,} {name}" for name in ("imputed", "predicted") if counts[name]]
    return ", ".join(went) + "\n" + fit + (f" ({', '.join(more)})" if more else "")


def _in_words(own: pd.DataFrame) -> str:
    by_arm = own.groupby(level="now", sort=False)[["units", "left", "lost"]].sum()
    return ", ".join(
        f"{now} {int(row['units']):,} (left {int(row['left']):,}, lost {int(row['lost']):,})"
        for now, row in by_arm.iterrows()
    )
