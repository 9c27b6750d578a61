"""Recommendations: how sure they are, what they depend on, where the choice is not clear."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bdtr import plots
from bdtr.decisions.tailoring import blips_along, over_history, tailoring_columns
from bdtr.reports.blocks import Block, Part, folded, table, text
from bdtr.reports.case import Case

__all__ = ["actions"]


def actions(case: Case) -> Part:
    """P(optimal), regret and the region without a clear choice, by stage."""
    if not case.shown:
        return Part("actions", "Recommendations", [text("No action is recommended in this state.")])
    found, choices = case.actions, case.choices
    blocks = [
        table(
            _by_action(found, choices),
            f"Units with a choice by recommended action; not clear: P(optimal) below {choices.clear:g}; "
            f"regret in units of {case.unit}.",
        ),
        case.draw("certainty", plots.p_optimal(found), "How sure the recommendations are."),
        case.draw(
            "regret",
            plots.regret_curve(found, case.unit),
            "Units whose recommended action loses at most so much.",
        ),
    ]
    if choices.margin is not None:
        share = found.groupby("stage", observed=True)["regret"].apply(
            lambda r: float((r <= choices.margin).mean())
        )
        said = ", ".join(f"stage {stage} {100 * p:.0f} %" for stage, p in share.items())
        blocks.append(
            text(
                f"Expected regret within the margin of {choices.margin:g}: {said} of the units with a choice."
            )
        )
    for design in case.fit.designs:
        blocks += _stage(case, design.action)
    return Part("actions", "Recommendations", blocks)


def _by_action(found: pd.DataFrame, choices) -> pd.DataFrame:
    rows = []
    for (stage, action), part in found.groupby(["stage", "action"], sort=False, observed=True):
        whole = (found["stage"] == stage).sum()
        unclear = (part["p_optimal"] < choices.clear).mean()
        rows.append((stage, action, len(part), len(part) / whole, part["p_optimal"].mean(), unclear,
                     part["regret"].mean()))  # fmt: skip
    columns = [
        "stage",
        "recommended",
        "units",
        "share",
        "mean P(optimal)",
        "not clear",
        "mean regret",
    ]
    return pd.DataFrame(rows, columns=columns).set_index(["stage", "recommended"])


def _stage(case: Case, stage: str) -> list[Block]:
    """What the recommendation of one stage depends on."""
    given = (case.choices.over or {}).get(stage)
    names = list(tailoring_columns(case.fit, stage) if given is None else given)[:2]
    fit, few = case.fit, case.choices.min_cell
    if not names or not (case.actions["stage"] == stage).any():
        return []
    found = over_history(fit, stage, names, bins=5)
    enough = found.table[found.table["units"] >= few]
    out: list[Block] = [
        case.draw(f"over {stage}", plots.p_optimal_over(found.table, stage, few), found.caption),
        folded(f"Stage {stage} in numbers (cells with {few} units or more)", [table(enough)]),
    ]
    data = fit.require_data("a report").frame
    for name in names:
        if pd.api.types.is_numeric_dtype(data[name]) and len(np.unique(data[name].dropna())) > 2:
            along = blips_along(fit, stage, name, interval=case.choices.interval)
            out.append(
                case.draw(
                    f"along {stage} {name}", plots.decision_plot(along, case.unit), along.caption
                )
            )
    return out
