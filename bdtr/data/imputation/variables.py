"""Which values are missing that a trial needs, in the order of time, and the formulas that say what goes with
them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bdtr.data.contents import DataError
from bdtr.data.modelmatrix import terms_of
from bdtr.data.no_decision import has_decision
from bdtr.trial.condition import Condition
from bdtr.trial.formula import Formula, names_in
from bdtr.trial.trial import Trial

__all__ = ["Variable", "after_the_last_decision", "outcome_variable", "variables"]

# Distinct values of a number up to which it is taken for ordered categories; of whole numbers.
_FEW_VALUES, _FEW_COUNTS = 10, 30
_LEAST = 10  # recorded values from which a model is learned


@dataclass(frozen=True)
class Variable:
    """A variable of the history.

    ``kind`` is ``"number"``, ``"ordered"`` (``levels`` are numbers or labels in their order) or ``"labels"``;
    ``needed`` says for which units a stage needs it, ``missing`` for which of these it was not recorded;
    ``formula`` is what goes with it; ``not_outside`` are stages (from 0) for whose units without a decision
    it has no meaning.
    """

    name: str
    kind: str
    levels: tuple
    stage: int
    needed: np.ndarray
    missing: np.ndarray
    formula: str
    not_outside: tuple[int, ...] = ()


def variables(
    trial: Trial,
    formulas: Sequence[Formula],
    coded: pd.DataFrame,
    ordered: Sequence[str],
    given: Mapping[str, str],
    auxiliary: Sequence[str] = (),
) -> list[Variable]:
    """Variables of the history from the first one on that has missing values, in the order of time.

    A variable is taken to be measured just before the first stage that names it; of those of one stage the
    more complete come first. What goes with it are the variables before it, the actions taken, products
    of both in the formula of the stage before, and the site.

    Parameters
    ----------
    trial, formulas, coded
        The trial, the formulas of its stages, and the columns as they were recorded.
    ordered
        Columns whose labels have an order.
    given
        Formulas of the user's.
    auxiliary
        Columns after the last decision, which may have a formula as well.

    Raises
    ------
    DataError
        If a variable was never recorded or hardly ever, or a formula is for another one.
    """
    found = _needed(trial, formulas, coded)
    incomplete = [name for name, need in found.items() if (need.units & _gap(coded, name)).any()]
    unknown = [name for name in given if name not in (*incomplete, *auxiliary)]
    if unknown:
        raise DataError(
            f"imputation={{{unknown[0]!r}: ..}}: no value of it is missing that the trial needs. Variables "
            f"with missing values: {', '.join(map(repr, incomplete)) or 'none'}."
        )
    if not incomplete:
        return []
    order = sorted(found, key=lambda n: (found[n].stage, (found[n].units & _gap(coded, n)).sum()))
    out: list[Variable] = []
    for place, name in enumerate(order):
        stage, needed = found[name].stage, found[name].units
        missing = needed & _gap(coded, name)
        kind, levels = _kind(coded[name], name in ordered)
        if missing.any():
            _enough(coded[name], name, needed)
        if not out and not missing.any():
            continue  # complete, and before all that is not
        text = given.get(name) or _default(
            trial, formulas, coded, stage, order[:place], found, needed, needed & ~missing
        )
        outside = found[name].not_outside
        out.append(Variable(name, kind, levels, stage, needed, missing, text, outside))
    return out


def outcome_variable(
    trial: Trial, coded: pd.DataFrame, took: np.ndarray, missing: np.ndarray
) -> Variable:
    """The outcome as a variable, missing for some of those who took the last decision."""
    assert trial.outcome is not None
    kind, levels = "number", ()
    if trial.family == "bernoulli" or isinstance(coded[trial.outcome].dtype, pd.CategoricalDtype):
        kind, levels = "ordered", _kind(coded[trial.outcome], True)[1]
    return Variable(
        trial.outcome,
        kind,
        levels,
        len(trial.stages),
        took,
        missing,
        "the formula of the last stage",
    )


def after_the_last_decision(
    trial: Trial,
    formulas: Sequence[Formula],
    coded: pd.DataFrame,
    ordered: Sequence[str],
    auxiliary: Sequence[str],
    took: np.ndarray,
    given: Mapping[str, str],
) -> list[Variable]:
    """Columns that tell of a missing outcome and enter no rule, each given the history, all actions, the
    outcome and those before it, with the products of the last stage.

    Parameters
    ----------
    trial, formulas, coded, ordered, given
        As in :func:`variables`; ``coded`` has these columns as well.
    auxiliary
        Their names, in the order of time.
    took
        Units that took the last decision, or are known to have had none.
    """
    assert trial.outcome is not None
    need, every = _needed(trial, formulas, coded), np.ones(len(coded), dtype=bool)
    # What is not measured among those without a decision has one value there, which their arm makes up for.
    need |= {name: _Need(one.stage, every) for name, one in need.items() if one.not_outside}
    everybody = {name: _Need(0, every) for name in (*auxiliary, trial.outcome)}
    before, out = [*need, trial.outcome], []
    for name in auxiliary:
        missing = took & _gap(coded, name)
        _enough(coded[name], name, took)
        kind, levels = _kind(coded[name], name in ordered)
        text = given.get(name) or _default(
            trial,
            formulas,
            coded,
            len(trial.stages),
            before,
            need | everybody,
            took,
            took & ~missing,
        )
        out.append(Variable(name, kind, levels, len(trial.stages), took, missing, text))
        before.append(name)
    return out


@dataclass(frozen=True)
class _Need:
    """First stage of a variable, the units for which some stage needs it, and ``not_outside``."""

    stage: int
    units: np.ndarray
    not_outside: tuple[int, ...] = ()


def _gap(coded: pd.DataFrame, name: str) -> np.ndarray:
    return coded[name].isna().to_numpy()


def _needed(trial: Trial, formulas: Sequence[Formula], coded: pd.DataFrame) -> dict[str, _Need]:
    """First stage of each variable, and the units for which some stage needs it."""
    found: dict[str, _Need] = {}
    came_so_far = np.ones(len(coded), dtype=bool)
    actions = {s.action for s in trial.stages}
    for k, (stage, formula) in enumerate(zip(trial.stages, formulas, strict=True)):
        due = has_decision(stage, coded)
        outside = due == 0
        able = came_so_far.copy()
        if stage.eligible:
            able &= Condition(stage.eligible).evaluate(coded) != 0
        # Who may have left before it was known whether they are eligible has no action, either way.
        texts = [t for t in (stage.among, *(stage.feasible or {})) if t]
        of_conditions = [c for text in texts for c in Condition(text).columns]
        for name in dict.fromkeys((*of_conditions, *formula.model_columns)):
            if name in actions or name == trial.site:
                continue
            need = able.copy()
            before = found.get(name, _Need(k, np.zeros(len(coded), dtype=bool)))
            nothing = before.not_outside
            unmeasured = outside & _gap(coded, name)
            if name not in of_conditions and outside.any() and (unmeasured == outside).all():
                need &= ~outside
                nothing = (*nothing, k)
            found[name] = _Need(before.stage, before.units | need, nothing)
        if stage.reward and stage is not trial.stages[-1]:  # seen later, and part of the payoff
            found[stage.reward] = _Need(k + 1, able & ~_gap(coded, stage.reward))
        came_so_far = came_so_far & (coded[stage.action].notna().to_numpy() | outside)
    return found


def _kind(column: pd.Series, ordered: bool) -> tuple[str, tuple]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        levels = tuple(column.cat.categories)
        return ("ordered" if ordered or len(levels) == 2 else "labels"), levels
    if not pd.api.types.is_numeric_dtype(column):
        levels = tuple(sorted(column.dropna().unique()))
        return ("ordered" if len(levels) == 2 else "labels"), levels
    values = np.unique(column.dropna().to_numpy(dtype=float))
    few = _FEW_COUNTS if (values == np.rint(values)).all() else _FEW_VALUES
    return ("ordered", tuple(values)) if len(values) <= few else ("number", ())


def _enough(column: pd.Series, name: str, needed: np.ndarray) -> None:
    known = column[needed].dropna()
    if len(known) < _LEAST or known.nunique() < 2:
        what = (
            "no value"
            if not len(known)
            else f"{len(known):,} values, {known.nunique()} of them different"
        )
        raise DataError(
            f"Column {name!r} has {what} among the {int(needed.sum()):,} units that need it: nothing can be "
            "imputed from that. Leave it out of the formulas, or pass missing='exclude'."
        )


def _default(
    trial: Trial,
    formulas: Sequence[Formula],
    coded: pd.DataFrame,
    stage: int,
    before: Sequence[str],
    found: Mapping[str, _Need],
    needed: np.ndarray,
    recorded: np.ndarray,
) -> str:
    """What is known before it for all units that need it, with the products of the stage before."""

    def known(name: str) -> bool:
        return not (needed & _gap(coded, name) & ~found[name].units).any()

    names = [name for name in before if known(name) and not _label_alone(coded[name])]
    names += [s.action for s in trial.stages[:stage]]
    # What is the same for all who have a value, as being no responder is, tells nothing of it.
    names = [name for name in names if coded[name][recorded].nunique(dropna=True) > 1]
    terms = ["1", *map(_quoted, names)]
    if stage:
        for term in terms_of(formulas[stage - 1].common):
            plain = {f.strip("`") for f in term}
            if len(term) > 1 and plain <= set(names) and all(len(names_in(f)) == 1 for f in term):
                terms.append(":".join(sorted(term)))
    group = f" + (1 | {_quoted(trial.site)})" if trial.site else ""
    return " + ".join(terms) + group


def _label_alone(column: pd.Series) -> bool:
    """Whether labels are text of conditions only, which no formula takes."""
    return not isinstance(column.dtype, pd.CategoricalDtype) and not pd.api.types.is_numeric_dtype(
        column
    )


def _quoted(name: str) -> str:
    return name if name.isidentifier() else f"`{name}`"
