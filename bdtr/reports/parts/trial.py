"""The trial as it was: who went where, balance, overlap, missing values and exclusions."""

from __future__ import annotations

import pandas as pd

from bdtr import plots
from bdtr.checks.balance import covariate_balance, overlap
from bdtr.checks.imputed import imputed_values
from bdtr.checks.participants import attrition, participant_flow
from bdtr.reports.blocks import Block, Part, ask, folded, items, table, text
from bdtr.reports.case import Case
from bdtr.trial.protocol import TEXTS

__all__ = ["design", "exclusions"]

_WHY = {
    "design": "by design",
    "missing": "missing",
    "off_protocol": "off protocol",
    "imputed": "imputed",
    "": "",
}


def design(case: Case) -> Part:
    """Stage diagram, balance and overlap."""
    fit = case.fit
    flow = participant_flow(fit)
    blocks = [
        case.draw(
            "flow", plots.participant_plot(flow),
            "The participants at each stage. Predicted: in the fit without an outcome of their own, through "
            "what is expected of them at later stages.",
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
    blocks += _imputed(case) if fit.parts else [text(f"Units with missing values: {rule}.")]
    blocks.append(ask(TEXTS["missing"], case.said("missing")))
    return Part("exclusions", "Missing data and exclusions", blocks)


def _imputed(case: Case) -> list[Block]:
    """What was imputed, by what, and how it looks beside what was recorded."""
    fit = case.fit
    found = imputed_values(fit)
    if found.table.empty:
        return [text("No values were imputed.")]
    what = (
        "drawn given what came before and what was observed later, and so taken to be missing at random "
        "given these"
        if fit.settings.missing == "impute"
        else "taken from data sets that were completed elsewhere"
    )
    by = [note for note in fit.notes if " imputed given " in note]
    return [
        text(
            f"Missing values were {what}: {found.sets} completed data sets, each with its share of the "
            "draws, so that what is not known of them is in every interval. Fraction of missing information "
            "(fmi): the share of the variance of a value that is between data sets."
        ),
        *([items(by)] if by else []),
        case.draw("imputed", plots.imputed_plot(found), found.caption),
        folded("Recorded and imputed values in numbers", [table(found.table)]),
    ]
