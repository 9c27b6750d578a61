"""The answer in a few sentences, and the question that it answers."""

from __future__ import annotations

import numpy as np

from bdtr.reports.blocks import Part, ask, items, number, percent, probability, text
from bdtr.reports.case import Case
from bdtr.reports.words import assumptions
from bdtr.trial.protocol import TEXTS
from bdtr.values.comparison import compare

__all__ = ["answer", "question"]


def answer(case: Case) -> Part:
    """Five sentences with their uncertainty."""
    fit, values, choices = case.fit, case.values, case.choices
    draws = values.draws["value"]
    sign = 1 if fit.trial.higher_is_better else -1
    fixed = draws.isel(regime=slice(1, None))
    best = int(np.argmax(sign * fixed.mean(("chain", "draw")).to_numpy()))
    top = str(fixed["regime"].to_numpy()[best])
    share = float(((sign * fixed).argmax("regime") == best).mean())
    row = values.table[values.table.index == top].iloc[0]
    learned = values.table.iloc[0]
    span = f"{case.kind} {number(row['lower'])} to {number(row['upper'])}"
    out = [
        f"Of the {fixed.sizes['regime']} regimes named in advance, “{top}” has the best mean payoff: "
        f"{number(row['mean'])} ({span}) in units of {case.unit}; it is the best of them with posterior "
        f"probability {probability(share)}."
    ]
    if top != case.reference:
        apart = compare(values, case.reference).table
        own = apart.loc[next(i for i in apart.index if str(i).startswith(f"{top} "))]
        out.append(_against(case, own))
    out.append(
        f"Following the recommended action at every stage is worth {number(learned['mean'])} "
        f"({number(learned['lower'])} to {number(learned['upper'])}). This rule was learned and valued on "
        "the same data, so its value is optimistic; "
        + (
            "a value that is not stands below."
            if choices.thorough
            else "cross-fitting, which gives one that is not, was left out."
        )
    )
    if case.shown:
        for stage, rows in case.actions.groupby("stage", sort=False, observed=True):
            p = rows["p_optimal"]
            out.append(
                f"At stage {stage} the recommended action is optimal with probability above {choices.sure:g} "
                f"for {percent((p > choices.sure).mean())} of the {len(rows):,} units who have a choice, and "
                f"below {choices.clear:g} for {percent((p < choices.clear).mean())}: there the choice is not "
                f"clear. Not knowing the best action costs {number(rows['regret'].mean())} a unit on average."
            )
    blocks = [text(sentence) for sentence in out]
    if not case.shown:
        blocks.append(text("No action is recommended in this state."))
    return Part("answer", "The answer", blocks)


def _against(case: Case, own) -> str:
    """By how much the best regime beats the reference, in the direction that is better."""
    low, high = (own["lower"], own["upper"])
    better = probability(own["p_better"])
    if case.fit.trial.higher_is_better:
        return (
            f"Against “{case.reference}” it is worth {number(own['mean'])} ({number(low)} to "
            f"{number(high)}) more, "
            f"and better with probability {better}."
        )
    return (
        f"Against “{case.reference}” its mean payoff is lower by {number(-own['mean'])} ({number(-high)} to "
        f"{number(-low)}), and lower is better; it is better with probability {better}."
    )


def question(case: Case) -> Part:
    """What was asked: the authors' words, the regimes, the estimand and its assumptions."""
    trial = case.fit.trial
    asked = ["goal", "population", "outcome", "events", "criteria"]
    better = "higher is better" if trial.higher_is_better else "lower is better"
    blocks = [
        *(ask(TEXTS[name], case.said(name)) for name in asked),
        text(
            f"Payoff: {case.unit} ({better}). Value of a regime: its mean when everyone follows it. "
            f"Population: {case.values.population}. Later stages: {case.values.policy}."
        ),
        text("Regimes compared:"),
        items([_regime(r) for r in case.regimes]),
        text("Assumptions:"),
        items(assumptions(trial)),
    ]
    return Part("question", "The question", blocks)


def _regime(regime) -> str:
    if regime.is_recommended:
        return f"{regime.name}: at every stage the feasible action with the best posterior mean"
    words = str(regime)
    return words if words == regime.name else f"{regime.name} ({words})"
