"""What would change the answer: priors, unmeasured confounding, and an opinion without the models' shape."""

from __future__ import annotations

from bdtr.checks.confounding import tipping_points
from bdtr.checks.leaveout import made_by_formulas
from bdtr.checks.opinion import second_opinion
from bdtr.checks.prior_sensitivity import prior_widths
from bdtr.reports.blocks import Block, Part, ask, table, text
from bdtr.reports.case import Case
from bdtr.trial.protocol import TEXTS

__all__ = ["doubts"]


def doubts(case: Case) -> Part:
    """Sensitivity, and limitations."""
    blocks = [*_tipping(case)]
    if case.choices.thorough:
        blocks += [*_priors(case), *_opinion(case)]
    else:
        blocks.append(
            text("Priors and the second opinion were not looked at (thorough=False).", note=True)
        )
    blocks.append(ask(TEXTS["limitations"], case.said("limitations")))
    return Part("doubts", "What would change the answer", blocks)


def _tipping(case: Case) -> list[Block]:
    if not case.shown:
        return []
    out = []
    for design in case.fit.designs:
        found = tipping_points(case.fit, design.action, interval=case.choices.interval)
        known = found.table[found.table["units"] > 0]
        out.append(table(known, f"Unmeasured confounding. {found.caption}"))
        out.append(
            table(
                found.changed,
                f"Share of units at stage {design.action} whose recommended action can be turned round by "
                "confounding of so many SDs of the payoff.",
                names={"delta_sd": "delta (SDs)"},
            )
        )
    return out


def _priors(case: Case) -> list[Block]:
    if any(stage.model is not None for stage in case.fit.trial.stages):
        return [
            text("Priors: stages with models of the authors' own were not refitted.", note=True)
        ]
    means = case.values.table["mean"].iloc[1:]
    top = means.idxmax() if case.fit.trial.higher_is_better else means.idxmin()
    followed = [r for r in case.regimes if r.is_recommended or r.name == top]
    found = prior_widths(
        case.fit,
        *followed,
        interval=case.choices.interval,
        progress=case.choices.progress,
    )
    return [
        table(found.table, f"Priors. {found.caption}"),
        table(found.changed, "Share of units whose recommended action is another one, by stage."),
    ]


def _opinion(case: Case) -> list[Block]:
    fit = case.fit
    if not made_by_formulas(fit):
        return [text("Second opinion: given where formulas make all stages.", note=True)]
    known = {k: dict(v) for k, v in (case.choices.planned or {}).items()}
    named = [r for r in case.regimes if not r.is_recommended]
    try:
        found = second_opinion(
            fit,
            *named,
            probabilities=known or None,
            interval=case.choices.interval,
            progress=case.choices.progress,
        )
    except ValueError as error:
        return [text(f"No second opinion: {error}")]
    against = found.followers.index[found.followers["disagree"]]
    verdict = (
        f"disagrees with the models on {', '.join(against)}"
        if len(against)
        else "does not disagree"
    )
    return [
        text(f"The second opinion {verdict}."),
        table(
            found.table,
            "Second opinion; probabilities of staying, and of actions that were not planned, by regressions "
            f"on history. {found.caption}",
        ),
        table(found.followers, "Units that followed each regime to the end."),
    ]
