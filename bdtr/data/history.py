"""What is known when an action is chosen: the history that formulas, conditions and rules may name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bdtr.data.contents import DataError
from bdtr.data.modelmatrix import terms_of
from bdtr.trial.condition import Condition
from bdtr.trial.formula import TRANSFORMS, Formula, SmoothTerm, names_in
from bdtr.trial.states import decides_by, states_of
from bdtr.trial.trial import Stage, Trial

if TYPE_CHECKING:
    from bdtr.data.trialdata import TrialData

__all__ = [
    "Earlier",
    "conditions",
    "delivered_now",
    "earlier_terms",
    "known_columns",
    "not_yet_known",
    "stage_factors",
    "stage_formula",
]

# Dimensions of the results, which a grouping factor may not be named after.
_RESERVED = ("chain", "draw", "sample", "term", "row", "unit", "stage", "action", "regime")


def stage_factors(trial: Trial, k: int) -> tuple[str, ...]:
    """Delivery clusters of earlier stages, which are history at stage k (0 = first)."""
    if not trial.stages[k].earlier_clusters:
        return ()
    clusters = [s.delivered_in for s in trial.stages[:k] if s.delivered_in]
    return tuple(dict.fromkeys(clusters))


@dataclass(frozen=True)
class Earlier:
    """Terms of earlier stages that a stage's formula lacks: ``common`` as sets of factors, the missing
    terms of each grouping factor (with whether they are correlated), the stages that have them, and smooth
    terms."""

    common: tuple[frozenset[str], ...]
    groups: tuple[tuple[tuple[str, ...], tuple[frozenset[str], ...], bool], ...]
    stages: tuple[str, ...]
    smooths: tuple[SmoothTerm, ...] = ()


def earlier_terms(trial: Trial, k: int) -> Earlier:
    """What earlier stages tailor by and stage k (0 = first) does not know.

    A term of an earlier stage that holds an action taken by then, such as ``a1:lunch``, and its
    margins; and the coefficients that vary between the levels of a grouping factor. A stage model without
    them says that the direct effect is zero, with certainty.
    """
    stage = trial.stages[k]
    if not stage.earlier_terms or not trial.by_formula(k) or k == 0:
        return Earlier((), (), ())
    formula = Formula.parse(stage.formula)
    known, common, sources = terms_of(formula.common), [], []
    own = {g.factor: (terms_of(g.expression), g.correlated) for g in formula.groups}
    groups: dict[tuple[str, ...], tuple[list[frozenset[str]], bool]] = {}
    smooths: list[SmoothTerm] = []
    delivered = {s.delivered_in for s in trial.stages[: k + 1] if s.delivered_in}
    for j in range(k):
        earlier = Formula.parse(trial.stages[j].formula)
        actions = {s.action for s in trial.stages[: j + 1]}
        have = terms_of(earlier.common)
        tailored = [t for t in have if any(names_in(f) & actions for f in t)]
        wanted = [t for t in have if any(t <= one for one in tailored)]
        new = [t for t in wanted if t and t not in known and t not in common]
        common += new
        for s in earlier.smooths:
            if s.by in actions and s.key not in {one.key for one in (*formula.smooths, *smooths)}:
                smooths.append(s)
                new = [*new, frozenset({s.name})]
        for g in earlier.groups:
            if set(g.factor) <= delivered:
                continue
            had, _ = own.get(g.factor, ((), True))
            found, correlated = groups.get(g.factor, ([], own.get(g.factor, ([], g.correlated))[1]))
            more = [t for t in terms_of(g.expression) if t not in had and t not in found]
            if more:
                groups[g.factor] = ([*found, *more], correlated)
                new = [*new, *more]
        if new:
            sources.append(trial.stages[j].action)
    return Earlier(
        tuple(common), tuple((f, tuple(t), c) for f, (t, c) in groups.items()), tuple(sources),
        tuple(smooths),
    )  # fmt: skip


def not_yet_known(trial: Trial, k: int) -> set[str]:
    """Columns that are not known when the action of stage k is chosen: from this action on, the delivery
    clusters that are formed with it and with later ones, and the weights of later stages."""
    later = trial.stages[k:]
    names = [trial.outcome, *(s.action for s in later), *(s.reward for s in later)]
    names += [delivered_now(trial, j) for j in range(k, len(trial.stages))]
    names += [s.weights for s in trial.stages[k + 1 :]]
    return {name for name in names if name}


def known_columns(data: TrialData, k: int) -> list[str]:
    """History that a rule of stage k may use: what models and conditions up to this stage name."""
    unknown = not_yet_known(data.trial, k)
    named = {data.trial.site}
    for stage in data.stages[: k + 1]:
        named |= {*stage.formula.columns, *(c for x in conditions(stage.stage) for c in x.columns)}
    return [c for c in data.frame.columns if c in named and c not in unknown]


def delivered_now(trial: Trial, k: int) -> str | None:
    """The delivery cluster that is formed with the action of stage k: not one kept from before."""
    cluster = trial.stages[k].delivered_in
    return None if cluster in stage_factors(trial, k) else cluster


def stage_formula(trial: Trial, k: int) -> Formula:
    """The stage's formula with the delivery clusters that the trial adds to it."""
    stage = trial.stages[k]
    formula = Formula.parse(stage.formula)
    named = {column for g in formula.groups for column in g.factor}
    if stage.delivered_in in named:
        raise DataError(
            f"Stage({stage.action!r}): {stage.delivered_in!r} is named in the formula and in "
            "delivered_in. A factor in the formula is part of the Q-function, delivered_in is not: "
            "name it in one of them."
        )
    _named_apart(trial, k, formula)
    if stage.action in named:
        raise DataError(
            f"Stage({stage.action!r}): {stage.action!r} is a grouping factor of its own "
            "stage, which says nothing of another action than the one taken. Let effects vary: "
            f"(1 + {stage.action} | site)."
        )
    if stage.model is not None:
        _names_alone(stage, formula)
    if stage.action not in formula.model_columns:
        raise DataError(
            f"Stage({stage.action!r}): the formula {stage.formula!r} does not name the action, so "
            "it cannot say which action is better."
        )
    _only_what_is_known(trial, k, formula)
    if states := states_of(trial, k):
        formula = _with_columns_of_states(trial, k, states, formula)
        named |= {column for g in formula.groups for column in g.factor}
    added = [c for c in stage_factors(trial, k) if c not in named]
    if stage.delivered_in:
        added.append(stage.delivered_in)
    clusters = [f"(1 | {column})" for column in dict.fromkeys(added)]
    found = earlier_terms(trial, k)
    if not found.common and not found.groups and not found.smooths:
        return Formula.parse(" + ".join([formula.text, *clusters]))
    more = {frozenset(factor): (factor, terms, corr) for factor, terms, corr in found.groups}
    smooths = [s.name for s in (*formula.smooths, *found.smooths)]
    common = " + ".join([formula.common, *map(_term_text, found.common), *smooths])
    groups = []
    for g in formula.groups:
        _, terms, _ = more.pop(frozenset(g.factor), (g.factor, (), True))
        inside = " + ".join([g.expression, *map(_term_text, terms)])
        groups.append(f"({inside} {'|' if g.correlated else '||'} {g.name})")
    for factor, terms, correlated in more.values():
        inside = " + ".join(
            ["1" if frozenset() in terms else "0", *(_term_text(t) for t in terms if t)]
        )
        groups.append(f"({inside} {'|' if correlated else '||'} {':'.join(factor)})")
    return Formula.parse(" + ".join([common, *groups, *clusters]))


def _with_columns_of_states(
    trial: Trial, k: int, states: tuple[str, ...], formula: Formula
) -> Formula:
    """The formula of a stage that is computed, with what the models of its states and the next stage know in
    addition: all that has to be known to compute it."""
    later = stage_formula(trial, k + 1)
    factors = [c for g in later.groups for c in g.factor]
    more = [*later.model_columns, *decides_by(trial.stages[k + 1])]
    more = [c for c in more if c not in factors or c in later.model_columns]
    for name in states:
        model = (trial.states or {})[name]
        own = Formula.parse(model.formula)
        companions = [c for c in (model.trials, model.exposure) if c]
        more += [*own.model_columns, *companions]
        factors += [c for g in own.groups for c in g.factor]
    apart = {*formula.columns, *states, *not_yet_known(trial, k)}
    more = [c for c in dict.fromkeys(more) if c not in apart]
    factors = [c for c in dict.fromkeys(factors) if c not in {*apart, *more}]
    return Formula.parse(" + ".join([formula.text, *more, *(f"(1 | {c})" for c in factors)]))


def _named_apart(trial: Trial, k: int, formula: Formula) -> None:
    """Raise where a grouping factor takes the name of a dimension or a variable of the results."""
    stage = trial.stages[k]
    own = [stage.delivered_in] if stage.delivered_in else []
    factors = dict.fromkeys([*(g.name for g in formula.groups), *own, *stage_factors(trial, k)])
    reserved = {*_RESERVED} | ({"site"} if trial.site not in (None, "site") else set())
    taken = reserved | {"b", "sigma"}
    if own and not own[0].isidentifier():
        raise DataError(
            f"Stage({stage.action!r}): delivered_in={own[0]!r}: must be a name of letters, digits and "
            "underscores. Rename the column."
        )
    parameters = {"sigma"} | ({"site_size"} if "size" in stage.site_terms else set())
    for name in formula.model_columns:
        if name in parameters:
            raise DataError(
                f"Stage({stage.action!r}): the covariate {name!r} has the name of a parameter of the model. "
                "Rename the column."
            )
    for factor in factors:
        wanted = {factor, *(f"{v}_{factor}" for v in ("u", "sd", "cor"))}
        wanted |= {f"{factor}_term", f"{factor}_term_bis"}
        clash = (wanted & taken) | (set(factor.split(":")) & reserved)
        if clash:
            raise DataError(
                f"Stage({stage.action!r}): the grouping factor {factor!r} has the name of a dimension "
                f"of the results or of one of their variables ({min(clash)!r}). Rename the column."
            )
        taken |= wanted


def _term_text(term: frozenset[str]) -> str:
    return ":".join(sorted(term)) if term else "1"


def _names_alone(stage: Stage, formula: Formula) -> None:
    """With a model of the user's the formula names columns and nothing more."""
    combined = [g.name for g in formula.groups if len(g.factor) > 1]
    expressions = " ".join([formula.common, *(g.expression for g in formula.groups)])
    transformed = [f"{name}(...)" for name in TRANSFORMS if re.search(rf"\b{name}\(", expressions)]
    for found in (combined + transformed + [s.name for s in formula.smooths])[:1]:
        raise DataError(
            f"Stage({stage.action!r}): with a model of your own the formula only names columns, and "
            f"{stage.formula!r} has {found!r}. Name the columns one by one and do the rest in the model."
        )


def _only_what_is_known(trial: Trial, k: int, formula: Formula) -> None:
    """Raise if the formula or a condition names what is not yet known when the action is chosen."""
    stage, unknown = trial.stages[k], not_yet_known(trial, k)
    # As a grouping factor the unit is said to have one row a level, by the check of groups.
    if trial.unit in formula.model_columns:
        raise DataError(
            f"Stage({stage.action!r}): the formula names {trial.unit!r}, the names of the units, which "
            "say nothing about others. Leave it out."
        )
    parts = [("the formula", formula.columns, unknown - {stage.action})]
    for text in (stage.among, stage.eligible, *(stage.feasible or {})):
        if text:
            parts.append((f"the condition {text!r}", Condition(text).columns, unknown))
    for what, columns, unknown in parts:
        named = [name for name in columns if name in unknown]
        if named:
            raise DataError(
                f"Stage({stage.action!r}): {what} names {', '.join(map(repr, named))}, which is not "
                "yet known at this stage."
            )


def conditions(stage: Stage) -> list[Condition]:
    """Conditions of a stage: who has a decision, who is eligible, what is feasible."""
    texts = [stage.among, stage.eligible, *(stage.feasible or {})]
    return [Condition(text) for text in texts if text]
