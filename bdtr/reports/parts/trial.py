"""The trial as it was: who went where, balance, overlap, missing values and exclusions."""

from __future__ import annotations

import pandas as pd

from bdtr import plots
from bdtr.checks.balance import attrition, covariate_balance, overlap, stage_flow
from bdtr.reports.blocks import Part, ask, folded, table, text
from bdtr.reports.case import Case
from bdtr.trial.protocol import TEXTS

__all__ = ["design", "exclusions"]

_WHY = {"design": "by design", "missing": "missing", "off_protocol": "off protocol", "": ""}


def design(case: Case) -> Part:
    """Stage diagram, balance and overlap."""
    fit = case.fit
    flow = stage_flow(fit)
    blocks = [
        case.draw(
            "flow", plots.stage_flow_plot(flow.table),
            "The stages of the trial. Units outside the fit of a stage have left, moved, have "
            "missing values or took an action that was not feasible; those with complete histories take part "
            "in earlier stages through their predicted stage value.",
        ),
        folded("Counts of the diagram", [table(flow.table, flow.caption)]),
    ]  # fmt: skip
    even = covariate_balance(fit)
    if len(even.table):
        worst = even.table["verdict"].value_counts()
        blocks += [
            text(
                f"Balance: of {len(even.table)} differences {worst.get('fine', 0)} are fine, "
                f"{worst.get('adjust', 0)} call for adjustment (the models adjust for the covariates in "
                f"their formulas) and {worst.get('warning', 0)} are a warning."
            ),
            case.draw("balance", plots.balance_plot(even.table), even.caption),
            folded("Balance in numbers", [table(even.table, even.caption)]),
        ]
    shares = overlap(fit, case.choices.planned)
    if len(shares.table):
        blocks.append(case.draw("overlap", plots.overlap_plot(shares.table), shares.caption))
        blocks.append(folded("Overlap in numbers", [table(shares.table, shares.caption)]))
    if case.choices.planned is None:
        blocks.append(text("Planned probabilities of the actions were not given.", note=True))
    return Part("design", "The trial", blocks)


def exclusions(case: Case) -> Part:
    """Every excluded unit, and missing values by column."""
    fit = case.fit
    data = fit.require_data("a report")
    flow = fit.flow.assign(why=[_WHY[kind] for kind in fit.flow["kind"]]).drop(columns="kind")
    gone = data.frame.isna().sum()
    columns = pd.DataFrame({"missing": gone, "share": gone / len(data)})
    columns = columns[columns["missing"] > 0].rename_axis("column")
    blocks = [
        text("Each unit is counted at the first reason that applies.", note=True),
        table(flow.set_index(["stage", "step"])),
    ]
    if len(columns):
        blocks.append(table(columns, "Missing values of the columns that the trial uses."))
    leaving = attrition(fit)
    blocks.append(table(leaving.table, leaving.caption))
    rule = "left out of the fit of a stage" if fit.settings.missing == "exclude" else "none"
    blocks += [
        text(f"Units with missing values: {rule}."),
        ask(TEXTS["missing"], case.said("missing")),
    ]
    return Part("exclusions", "Missing data and exclusions", blocks)
