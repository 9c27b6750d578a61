"""What regimes are worth: values, contrasts, the set of best, the honest value, effect sizes."""

from __future__ import annotations

import pandas as pd

from bdtr import plots
from bdtr.reports.blocks import Block, Part, folded, table, text
from bdtr.reports.case import Case
from bdtr.values.comparison import compare, ranks, set_of_best
from bdtr.values.crossfitting import crossfit
from bdtr.values.effects import effect_sizes
from bdtr.values.learned_rules import few_draws
from bdtr.values.measures import effect_measures

__all__ = ["effects", "values"]


def values(case: Case) -> Part:
    """Values of all regimes, and what can be said of the best."""
    found, choices = case.values, case.choices
    drawn = plots.value_forest(found.draws, case.unit, choices.interval)
    compared = compare(found, case.reference)
    blocks = [
        text(found.caption, note=True),
        case.draw("values", drawn, f"Mean payoff ({case.unit}) when everyone follows the regime."),
        table(found.table),
        table(compared.table, compared.caption),
    ]
    named = [r for r in case.regimes if not r.is_recommended]
    if len(named) > 1:
        best = set_of_best(found)
        order = ranks(found)
        blocks += [
            text(best.caption),
            table(best.table),
            folded("Ranks", [table(order.table, order.caption)]),
        ]
    return Part("values", "Values of the regimes", [*blocks, *_honest(case)])


def _honest(case: Case) -> list[Block]:
    """The recommended regime where it was not learned."""
    if not case.choices.thorough:
        return [text("The recommended regime was not cross-fitted (thorough=False).", note=True)]
    fit = case.fit
    if fit.trial.states:
        return [
            text(
                "The recommended regime was not cross-fitted: stages are computed from states.",
                note=True,
            )
        ]
    found = crossfit(
        fit,
        interval=case.choices.interval,
        propagated=few_draws(fit.settings),
        progress=case.choices.progress,
    )
    return [
        text("The recommended regime, valued on units that it was not learned from:"),
        table(found.table, found.caption),
    ]


def effects(case: Case) -> Part | None:
    """Effect sizes as education readers expect them, or the measures of outcomes that are not Gaussian."""
    if len(case.values.draws["regime"]) < 2:
        return None
    choices = case.choices
    if not case.fit.trial.payoff.gaussian:
        return _measures(case)
    found = effect_sizes(
        case.fit, case.values, case.reference, tuple(choices.thresholds), choices.interval
    )
    improved = _improvement(found.table)
    return Part(
        "effects",
        "Effect sizes",
        [
            table(found.table, found.caption),
            table(
                found.variances,
                "SDs of the payoff within and between sites, and the intraclass correlation.",
            ),
            table(
                improved,
                "Improvement index (WWC): expected change in percentile rank of an average "
                "unit of the reference, by g within sites.",
                digits=1,
            ),
        ],
    )


def _measures(case: Case) -> Part:
    """Risks, odds, rates or times against the reference."""
    found = effect_measures(case.fit, case.values, case.reference, case.choices.interval)
    blocks: list[Block] = [table(found.table, found.caption)]
    if len(found.needed):
        blocks.append(
            table(
                found.needed,
                "Numbers needed to treat: units that are given the regime in place of the reference for one "
                "good outcome more (benefit) or less (harm), and at either end of the interval.",
                digits=1,
            )
        )
    return Part("effects", "Effects", blocks)


def _improvement(table: pd.DataFrame) -> pd.DataFrame:
    from scipy.special import ndtr

    within = table.xs("g_within", level="size")
    return pd.DataFrame(
        {name: 100 * (ndtr(within[name]) - 0.5) for name in ("mean", "lower", "upper")},
        index=within.index,
    )
