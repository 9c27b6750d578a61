"""Figures of decisions: how sure they are, what they depend on, and rules as trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bdtr.plots.given import result_of, table_of
from bdtr.plots.style import colour, figure_of, finish, interval_of, plain
from bdtr.results.arguments import text, whole
from bdtr.results.estimates import kind_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bdtr.decisions.tailoring import Blips
    from bdtr.decisions.trees import ShallowTree

__all__ = ["decision_plot", "p_optimal", "p_optimal_over", "regret_curve", "rule_tree"]


def p_optimal(actions: pd.DataFrame) -> Figure:
    """How sure the recommendations are: units by P(optimal) of their recommended action, by stage.

    Parameters
    ----------
    actions
        From :func:`bdtr.recommend`, or its ``actions``; units without a choice are not drawn.

    Returns
    -------
    matplotlib.figure.Figure
    """
    actions = _of_recommendation(actions, "p_optimal")
    stages = list(dict.fromkeys(actions["stage"]))
    figure = figure_of(7.0, 2.4 * len(stages))
    panels = figure.subplots(len(stages), 1, squeeze=False)[:, 0]
    bins = np.linspace(0, 1, 41)
    said = []
    for axes, stage in zip(panels, stages, strict=True):
        rows = actions[actions["stage"] == stage]
        labels = list(dict.fromkeys(rows["action"]))
        parts = [rows.loc[rows["action"] == label, "p_optimal"].to_numpy() for label in labels]
        axes.hist(
            parts,
            bins=bins.tolist(),
            stacked=True,
            color=[colour(i) for i in range(len(labels))],
            label=[plain(x) for x in labels],
        )
        axes.set_ylabel("units")
        axes.set_title(f"stage {plain(stage)}", fontsize=9, loc="left")
        axes.legend(title="recommended", fontsize=8, title_fontsize=8, frameon=False)
        finish(axes, "y")
        said.append(f"stage {stage}: mean {rows['p_optimal'].mean():.2f} of {len(rows):,} units")
    panels[-1].set_xlabel("posterior probability that the recommended action is optimal")
    figure.set_label("Units by P(optimal) of their recommended action; " + "; ".join(said) + ".")
    return figure


def _of_recommendation(actions: Any, column: str) -> pd.DataFrame:
    """Recommended actions of the units with a choice, with this column."""
    table, needed = getattr(actions, "actions", actions), ("stage", "action", column)
    if isinstance(table, pd.DataFrame) and "choices" in table:
        table = table[table["choices"] > 1]
    return table_of("actions", table, needed, "bdtr.recommend")


def p_optimal_over(table: pd.DataFrame, stage: str, least: int = 1) -> Figure:
    """P(optimal) of each action over one or two history variables; cells without data are empty.

    Parameters
    ----------
    table
        From :func:`bdtr.decisions.over_history`, or its table.
    stage
        Name of the stage, for the title.
    least
        Cells with fewer units are left empty.

    Returns
    -------
    matplotlib.figure.Figure
    """
    text("stage", stage)
    needed = ("action", "units", "p_optimal")
    table = table_of("table", table, needed, "bdtr.decisions.over_history")
    whole("least", least)
    names = [str(n) for n in table.index.names[:-1]]
    cells = [list(dict.fromkeys(table.index.get_level_values(n))) for n in names]
    actions = list(dict.fromkeys(table.index.get_level_values("action")))
    rows = cells[1] if len(names) == 2 else [""]
    width = max(1.6, 0.42 * len(cells[0]))
    figure = figure_of(max(4.0, width * len(actions) + 1.6), 1.9 + 0.42 * len(rows))
    panels = figure.subplots(1, len(actions), squeeze=False, sharey=True)[0]
    shown = table[table["units"] >= least]
    image = None
    for axes, action in zip(panels, actions, strict=True):
        grid = np.full((len(rows), len(cells[0])), np.nan)
        for key, p in shown["p_optimal"].items():
            *where, own = key if isinstance(key, tuple) else (key,)
            if own == action:
                j = rows.index(where[1]) if len(names) == 2 else 0
                grid[j, cells[0].index(where[0])] = p
        image = axes.imshow(
            np.ma.masked_invalid(grid),
            vmin=0,
            vmax=1,
            cmap="cividis",
            aspect="auto",
            origin="lower",
        )
        for (j, i), p in np.ndenumerate(grid):
            if np.isfinite(p):
                ink = "black" if p > 0.55 else "white"
                axes.text(i, j, f"{p:.2f}", ha="center", va="center", fontsize=7, color=ink)
        axes.set_title(plain(action), fontsize=9)
        axes.set_xticks(
            range(len(cells[0])), [plain(c) for c in cells[0]], rotation=45, ha="right", fontsize=7
        )
        axes.set_xlabel(plain(names[0]), fontsize=9)
    panels[0].set_yticks(range(len(rows)), [plain(r) for r in rows], fontsize=7)
    if len(names) == 2:
        panels[0].set_ylabel(plain(names[1]), fontsize=9)
    if image is not None:
        figure.colorbar(image, ax=list(panels), label="P(optimal)", shrink=0.9)
    empty = len(rows) * len(cells[0]) - len(
        {*zip(*(table.index.get_level_values(n) for n in names), strict=True)}
    )
    figure.suptitle(f"stage {plain(stage)}", fontsize=9, x=0.01, ha="left")
    span = table["p_optimal"]
    figure.set_label(
        f"P(optimal) of each action of stage {stage} by {' and '.join(names)}: from {span.min():.2f} to "
        f"{span.max():.2f}; {empty} cells without units."
    )
    return figure


def decision_plot(blips: Blips, unit: str = "payoff") -> Figure:
    """Blips along a tailoring variable with bands, where the data are, and P(best) as a strip.

    Parameters
    ----------
    blips
        From :func:`bdtr.decisions.blips_along`.
    unit
        Unit of the payoff, for the axis.

    Returns
    -------
    matplotlib.figure.Figure
    """
    text("unit", unit)
    result_of("blips", blips, ("draws", "variable", "seen"), "bdtr.decisions.blips_along")
    draws, name = blips.draws, blips.variable
    x = draws[name].to_numpy()
    actions = [str(a) for a in draws["action"].to_numpy()]
    mean, lower, upper = interval_of(
        draws.transpose("action", name, "chain", "draw"), blips.interval
    )
    figure = figure_of(7.0, 4.6)
    top, strip = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.axhline(0, color=colour(6), linewidth=1)
    for a, action in enumerate(actions[1:], 1):
        top.fill_between(x, lower[a], upper[a], color=colour(a), alpha=0.2, linewidth=0)
        top.plot(x, mean[a], color=colour(a), label=plain(action))
    low = top.get_ylim()[0]
    inside = blips.seen[(blips.seen >= x.min()) & (blips.seen <= x.max())]
    rug = np.unique(np.quantile(inside, np.linspace(0, 1, 200))) if inside.size else inside
    top.plot(rug, np.full(rug.size, low), "|", color=colour(6), markersize=6)
    top.set_ylabel(f"blip against {plain(blips.reference)} ({plain(unit)})", fontsize=9)
    top.set_title(
        f"stage {plain(blips.stage)}: mean, {kind_of(blips.interval)}", fontsize=9, loc="left"
    )
    top.legend(frameon=False, fontsize=8)
    p = blips.table["p_best"].to_numpy().reshape(len(actions), -1)
    strip.stackplot(
        x, p, colors=[colour(a) for a in range(len(actions))], labels=map(plain, actions)
    )
    strip.set_ylim(0, 1)
    strip.set_ylabel("P(best)", fontsize=9)
    strip.set_xlabel(f"{plain(name)} (ticks: units with a choice)")
    strip.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    finish(top, "y")
    finish(strip, "")
    last = len(actions) - 1
    figure.set_label(
        f"Blips of stage {blips.stage} along {name}: {actions[last]} from {mean[last, 0]:.3f} at "
        f"{x[0]:.3g} to {mean[last, -1]:.3f} at {x[-1]:.3g}; {kind_of(blips.interval)}s."
    )
    return figure


def regret_curve(actions: pd.DataFrame, unit: str = "payoff") -> Figure:
    """Share of units whose recommended action loses no more than an indifference margin, by margin.

    Parameters
    ----------
    actions
        From :func:`bdtr.recommend`, or its ``actions``; units without a choice are not drawn.
    unit
        Unit of the payoff, for the axis.

    Returns
    -------
    matplotlib.figure.Figure
    """
    text("unit", unit)
    actions = _of_recommendation(actions, "regret")
    figure = figure_of(7.0, 3.0)
    axes = figure.subplots()
    said = []
    for i, stage in enumerate(dict.fromkeys(actions["stage"])):
        regret = np.sort(actions.loc[actions["stage"] == stage, "regret"].to_numpy())
        share = np.arange(1, len(regret) + 1) / len(regret)
        thin = np.unique(np.linspace(0, len(regret) - 1, 400).astype(int))
        axes.step(
            regret[thin], share[thin], where="post", color=colour(i), label=f"stage {plain(stage)}"
        )
        said.append(f"stage {stage}: median {np.median(regret):.3f}")
    axes.set_xlabel(f"indifference margin: expected regret ({plain(unit)})")
    axes.set_ylabel("share of units")
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, fontsize=8)
    finish(axes, "both")
    figure.set_label("Expected regret of recommended actions; " + "; ".join(said) + ".")
    return figure


def rule_tree(tree: ShallowTree) -> Figure:
    """The interpretable rule: its questions from the top, its leaves with actions and shares of units.

    Parameters
    ----------
    tree
        From :func:`bdtr.decisions.shallow_tree`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    result_of("tree", tree, ("leaves", "stage"), "bdtr.decisions.shallow_tree")
    leaves = tree.leaves
    actions = list(dict.fromkeys(leaves["action"]))
    figure = figure_of(7.0, 0.8 + 0.55 * len(leaves))
    axes = figure.subplots()
    total = max(int(leaves["units"].sum()), 1)
    at = np.arange(len(leaves))[::-1]
    for y, (_, action, units) in zip(at, leaves.itertuples(index=False), strict=True):
        i = actions.index(action)
        axes.barh(y, units / total, color=colour(i), height=0.55)
        axes.text(
            units / total + 0.01, y, f"{plain(action)}: {units:,} units", va="center", fontsize=8
        )
    axes.set_yticks(at, [plain(c) for c in leaves["condition"]], fontsize=8)
    axes.set_xlim(0, 1.3)
    axes.set_xlabel("share of units")
    axes.set_title(f"rule for stage {plain(tree.stage)}", fontsize=9, loc="left")
    finish(axes)
    text = "; ".join(f"{a} where {c} ({u:,} units)" for c, a, u in leaves.itertuples(index=False))
    figure.set_label(f"Rule for stage {tree.stage}: {text}.")
    return figure
