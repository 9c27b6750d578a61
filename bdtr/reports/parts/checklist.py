"""A checklist of what a report of a Bayesian trial should hold."""

from __future__ import annotations

import pandas as pd

from bdtr.reports.blocks import Part, table, text
from bdtr.reports.case import Case

__all__ = ["checklist"]

# What is asked for, by which guideline, and the part or the author's text that holds it.
_ITEMS = (
    ("goal, and why Bayesian", "BARG preamble", "ask", "goal"),
    ("estimand: population, outcome, intercurrent events", "ICH E9(R1)", "ask", "events"),
    ("estimand: regimes compared, summary", "ICH E9(R1)", "part", "question"),
    ("success criteria", "ICH E9(R1)", "ask", "criteria"),
    ("stage diagram, who is randomised again", "CONSORT", "part", "design"),
    ("flow counts, attrition", "CONSORT", "part", "exclusions"),
    ("balance at each stage", "CONSORT; WWC", "part", "design"),
    ("data and variables", "BARG 1A; CONSORT 6a", "ask", "outcome"),
    ("likelihood, hierarchy", "BARG 1B; ROBUST", "part", "models"),
    ("priors", "BARG 1C; ROBUST", "part", "models"),
    ("justification of the priors", "BARG 1C; ROBUST", "ask", "priors"),
    ("formal specification", "BARG 1D", "part", "making"),
    ("prior predictive check", "BARG 1E", "part", "models"),
    ("software and versions", "BARG 2A; ROBUST", "part", "making"),
    ("convergence of parameters and derived values", "BARG 2B, 2C", "part", "diagnostics"),
    ("posterior predictive checks", "BARG 3", "part", "predictive"),
    ("central tendency and spread", "BARG 3; ROBUST", "part", "values"),
    ("regime values, contrasts, set of best", "BARG 3", "part", "values"),
    ("decisions: P(optimal), regret, indifference", "BARG 4", "part", "actions"),
    ("effect size, intraclass correlation", "CONSORT cluster; WWC", "part", "effects"),
    ("sites, and a new one", "CONSORT cluster", "part", "sites"),
    ("missing data: counts", "CONSORT; ROBUST", "part", "exclusions"),
    ("missing data: mechanism", "ICH E9(R1)", "ask", "missing"),
    ("sensitivity to priors, confounding, models", "BARG 5; ROBUST", "part", "doubts"),
    ("operating characteristics by simulation", "BARG 1; FDA", "optional", ""),
    ("seeds, hashes, command", "BARG 6", "part", "making"),
    ("limitations, departures from the plan", "CONSORT", "ask", "limitations"),
)


def checklist(case: Case, parts: list[Part]) -> Part:
    """What is filled, what the authors must write, what does not apply."""
    titles = {part.name: part.title for part in parts}
    rows = []
    for item, source, kind, name in _ITEMS:
        if kind == "part":
            status = f"filled: {titles[name]}" if name in titles else "does not apply"
        elif kind == "ask":
            status = "filled by the authors" if case.said(name) else "the authors must write this"
        else:
            status = "not part of this report"
        rows.append((item, source, status))
    frame = pd.DataFrame(rows, columns=["item", "asked for by", "status"]).set_index("item")
    return Part(
        "checklist",
        "Checklist",
        [
            text(
                "After BARG (Kruschke 2021), ROBUST (Sung 2005), ICH E9(R1), CONSORT and the What "
                "Works Clearinghouse (WWC). There is no official extension of CONSORT for sequentially "
                "randomised trials.",
                note=True,
            ),
            table(frame),
        ],
    )
