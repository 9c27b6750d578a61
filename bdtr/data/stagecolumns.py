"""The columns of a stage's model, for the action taken and for any counterfactual action."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from bdtr.data.coding import Coding, with_columns
from bdtr.data.groupcolumns import (
    GroupDesign,
    check_zeros,
    factor_labels,
    fixed_terms,
    group_scale,
    note_zeros,
)
from bdtr.data.history import delivered_now, earlier_terms
from bdtr.data.margins import Measure, as_written, margins_of, measured, residual_columns
from bdtr.data.modelmatrix import Columns, terms_of
from bdtr.data.rank import check_rank, collinear
from bdtr.data.sitelevel import SiteLevel, site_level
from bdtr.data.smooths import SmoothDesign, smooth_design
from bdtr.data.trialdata import TrialData
from bdtr.engine.layout import Factor
from bdtr.trial.formula import Formula, SmoothTerm, names_in

__all__ = ["StageDesign", "design_in", "stage_design"]

LEARNED = "learned blip"
_MOST_BENT = 4  # numbers that get a smooth term by default


def _one_action(arms: Sequence[str], code: int, rows: int) -> Any:
    """A column in which everyone has one action."""
    return pd.Categorical([arms[code]] * rows, categories=list(arms))


@dataclass(frozen=True)
class StageDesign:
    """All columns of a stage's model.

    ``terms`` names the common columns: those of the formula (``keep``), those that only the arm without a
    decision has (``arm_of``), and what is known of the sites. ``measure`` says how the engines see them, and
    ``constant`` which of their coefficients make the constant 1 (zeros: none do). ``actions`` are those that
    can be chosen, ``arms`` has the arm without a decision as well, where there is one.
    """

    index: int
    action: str
    actions: tuple[str, ...]
    arms: tuple[str, ...]
    formula: Formula
    coding: Coding
    columns: Columns
    keep: tuple[int, ...]
    arm_of: tuple[int, ...]
    sites: SiteLevel
    measure: Measure
    constant: np.ndarray
    calibrated: bool
    groups: tuple[GroupDesign, ...]
    smooths: tuple[SmoothDesign, ...]
    notes: tuple[str, ...]
    added: tuple[str, ...]
    site: str | None
    site_levels: np.ndarray
    has_intercept: bool

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the common columns."""
        names = self.columns.names
        own = [f"{names[i]}:{self.action}[{self.arms[-1]}]" for i in self.arm_of]
        learned = [f"{LEARNED} of {a}" for a in self.arms[1:]] + [LEARNED]
        known = learned if self.calibrated else []
        return (*(names[i] for i in self.keep), *own, *self.sites.names, *known)

    @property
    def variables(self) -> tuple[frozenset[str], ...]:
        """What each of the terms is made from: columns of the frame, or what is known of the sites."""
        own = _variables(self.columns, self.keep, self.arm_of, self.sites, self.action)
        blips = len(self.terms) - len(own)
        learned = [frozenset({LEARNED})] * (blips - 1) + [frozenset({LEARNED, self.action})]
        return (*own, *(learned if blips else ()))

    @property
    def factors(self) -> tuple[Factor, ...]:
        """The grouping factors, then the smooth terms, as the exact engine takes them."""
        groups = (Factor(g.name, len(g.levels), len(g.terms), g.correlated) for g in self.groups)
        return (*groups, *(f for s in self.smooths for f in s.factors))

    @property
    def history(self) -> tuple[str, ...]:
        """Columns that must be known before the Q-function can be computed, the action apart."""
        delivered = {c for g in self.groups if g.role == "delivery" for c in g.factor}
        gone = {self.action, *(delivered - set(self.formula.model_columns))}
        return tuple(c for c in self.formula.columns if c not in gone)

    def acting(self, frame: pd.DataFrame, action: int) -> pd.DataFrame:
        """The same history with everyone given one action."""
        return with_columns(frame, {self.action: _one_action(self.arms, action, len(frame))})

    def site_codes(self, frame: pd.DataFrame) -> np.ndarray:
        """Position of each row's site in the site index, -1 for unseen ones; 0 without sites."""
        return site_codes(frame, self.site, self.site_levels)

    def written(self, frame: pd.DataFrame, site_code: np.ndarray) -> np.ndarray:
        """Common columns as written; unseen sites (code -1) are like the average one."""
        return written_columns(
            frame, site_code, self.columns, self.keep, self.arm_of, self.sites, self.action, self.arms,
            self.calibrated,
        )  # fmt: skip

    def common(self, frame: pd.DataFrame, site_code: np.ndarray) -> np.ndarray:
        """Common columns as the engines take them: each measured from its margins, in SDs."""
        return self.written(frame, site_code) @ self.measure.turn

    def predicting(self, frame: pd.DataFrame, site_code: np.ndarray) -> np.ndarray:
        """All columns but those of groups, for predictions: the common ones and those of smooth terms."""
        common = self.common(frame, site_code)
        return (
            np.hstack([common, *(s.matrix(frame) for s in self.smooths)])
            if self.smooths
            else common
        )


def learned_columns(action: str, arms: Sequence[str]) -> tuple[str, ...]:
    """Columns of a frame that hold blips learned elsewhere, one for each arm; no user's column has such
    a name."""
    return tuple(f"{LEARNED}: {action} {arm}" for arm in arms)


def written_columns(
    frame: pd.DataFrame,
    site_code: np.ndarray,
    columns: Columns,
    keep: Sequence[int],
    arm_of: Sequence[int],
    sites: SiteLevel,
    action: str,
    arms: Sequence[str],
    calibrated: bool = False,
) -> np.ndarray:
    """Common columns of a frame: the formula's, those of the arm without a decision, those of sites, and
    blips that were learned elsewhere: all of a unit's, and that of the action taken."""
    every = columns.matrix(frame)
    parts = [every[:, list(keep)]]
    some = len(arm_of) or sites.names or calibrated
    taken = frame[action].cat.codes.to_numpy().astype(np.int64) if some else None
    if len(arm_of):
        assert taken is not None
        parts.append(every[:, list(arm_of)] * (taken == len(arms) - 1)[:, None])
    if sites.names:
        assert taken is not None
        parts.append(sites.matrix(site_code, taken))
    if calibrated:
        assert taken is not None
        learned = frame[list(learned_columns(action, arms))].to_numpy()
        parts += [learned[:, 1:], np.take_along_axis(learned, taken[:, None], axis=1)]
    return parts[0] if len(parts) == 1 else np.hstack(parts)


def stage_design(data: TrialData, k: int) -> StageDesign:
    """The columns of stage k, learned from the rows of its fit.

    Parameters
    ----------
    data
        Checked data.
    k
        Stage, from 0.

    Returns
    -------
    StageDesign

    Raises
    ------
    DesignError
        If columns are exactly collinear for another reason than the feasible sets.
    """
    stage, trial, site_levels = data.stages[k], data.trial, data.site_levels
    action, arms, where = stage.stage.action, stage.arms, f"stage {stage.stage.action}"
    rows = data.frame[stage.fitted].reset_index(drop=True)
    columns = Columns(stage.formula.common, {}, rows)
    points = _feasible_points(data, k)
    keep, notes = _kept(columns, columns.matrix(points), action, "")
    has_intercept = "Intercept" in columns.names
    own_model = not stage.by_formula
    matrix = columns.matrix(rows)
    arm_of: tuple[int, ...] = ()
    if not own_model:
        keep, arm_of, more = _told_apart(data, k, columns, matrix, keep, rows)
        notes += more
    groups = []
    for term in stage.formula.groups:
        group, more = _group(data, k, term, rows, points)
        groups.append(group)
        notes += more
    formula, smooths, more = _smooths(data, k, rows, where)
    notes += more
    sites, codes = SiteLevel.none(len(site_levels)), site_codes(rows, trial.site, site_levels)
    if any(g.role == "site" for g in groups) and not own_model:
        own = _columns_of_sites(columns, keep)
        sites, more = site_level(stage, own, matrix, codes, len(site_levels), where)
        notes += more
    if sites.names:
        both = written_columns(rows, codes, columns, keep, arm_of, sites, action, arms)
        left, _ = residual_columns(both, _margins(columns, keep, arm_of, sites, action, both)[0])
        gone = collinear(left)[-len(sites.names) :]
        if gone.any():
            which = ", ".join(n for n, out in zip(sites.names, gone, strict=True) if out)
            notes.append(
                f"{where}: {which} left out: exactly collinear with other columns, or the same at all sites."
            )
            sites = sites.only(~gone)
    calibrated = not own_model and learned_columns(action, arms)[0] in rows
    both = written_columns(rows, codes, columns, keep, arm_of, sites, action, arms, calibrated)
    margins, base = _margins(columns, keep, arm_of, sites, action, both)
    left, b = residual_columns(both, margins)
    scale = _spread(left, has_intercept)
    names = [columns.names[i] for i in keep]
    fixed = [i for i, n in enumerate(names) if n in (stage.stage.priors or {}) and n != "Intercept"]
    measure = measured(b, scale, fixed)
    notes += note_zeros(groups, rows, where)
    return StageDesign(
        k,
        action,
        tuple(stage.stage.actions or ()),
        arms,
        formula,
        data.coding,
        columns,
        keep,
        arm_of,
        sites,
        measure,
        measure.back @ base,
        calibrated,
        tuple(groups),
        smooths,
        tuple(notes),
        (*_added(data, k, columns, keep, groups), *_bent(stage.formula, formula, action)),
        trial.site,
        site_levels,
        has_intercept,
    )


def design_in(design: StageDesign, data: TrialData) -> StageDesign:
    """The same columns for another completed data set: what is known of sites is that of its values.

    Parameters
    ----------
    design
        Columns learned from one completed data set.
    data
        Another one.
    """
    if not design.sites.names:
        return design
    stage = data.stages[design.index]
    rows = data.frame[stage.fitted].reset_index(drop=True)
    found, _ = site_level(
        stage,
        _columns_of_sites(design.columns, design.keep),
        design.columns.matrix(rows),
        site_codes(rows, design.site, design.site_levels),
        len(design.site_levels),
        f"stage {design.action}",
    )
    return replace(design, sites=found.only(np.isin(found.names, design.sites.names)))


def _spread(left: np.ndarray, intercept: bool) -> np.ndarray:
    """SD of each residual column; 1 for the intercept and for columns that nobody informs."""
    scale = left.std(axis=0, ddof=1) if len(left) > 1 else np.zeros(left.shape[1])
    size = np.sqrt(np.mean(np.square(left), axis=0))
    scale = np.where(scale > 1e-6 * size, scale, size)  # a constant that is not the intercept
    if intercept:
        scale[0] = 1.0
    return np.where(scale > 0, scale, 1.0)


def _variables(
    columns: Columns, keep: Sequence[int], arm_of: Sequence[int], sites: SiteLevel, action: str
) -> list[frozenset[str]]:
    """What the common columns are made from, those that are learned elsewhere apart."""
    found = columns.variables
    return [*(found[i] for i in keep), *(found[i] | {action} for i in arm_of), *sites.variables]


def _margins(
    columns: Columns,
    keep: Sequence[int],
    arm_of: Sequence[int],
    sites: SiteLevel,
    action: str,
    matrix: np.ndarray,
) -> tuple[list[list[int]], np.ndarray]:
    """Margins of the common columns, and the coefficients as written that make the constant 1.

    Without an intercept the dummies of a factor may stand in for it; all else is then measured from them.
    """
    term, own = columns.term, _variables(columns, keep, arm_of, sites, action)
    of = [term[i] for i in keep] + [len(columns.names) + term[i] for i in arm_of]
    first = 2 * len(columns.names)
    of += [first + t for t in sites.term]
    blips = matrix.shape[1] - len(own)
    if blips:  # learned elsewhere, beyond all that the other columns say
        history = frozenset().union(*own) - {action} | {LEARNED}
        own += [history] * (blips - 1) + [history | {action}]
        of += [-2] * (blips - 1) + [-1]
    margins = margins_of(own, of)
    base = np.zeros(len(own))
    if keep and columns.names[keep[0]] == "Intercept":
        base[0] = 1.0
        return margins, base
    for number in dict.fromkeys(of[: len(keep)]):
        at = [i for i in range(len(keep)) if of[i] == number]
        if np.allclose(matrix[:, at].sum(axis=1), 1.0, rtol=0, atol=1e-9):
            base[at] = 1.0
            for i, found in enumerate(margins):
                if i not in at:
                    found += [j for j in at if j not in found]
            break
    return margins, base


def _told_apart(
    data: TrialData,
    k: int,
    columns: Columns,
    matrix: np.ndarray,
    keep: tuple[int, ...],
    rows: pd.DataFrame,
) -> tuple[tuple[int, ...], tuple[int, ...], list[str]]:
    """Columns that the rows of the fit can tell apart.

    The user's own have to be, or it is an error. Those that were added from earlier stages, and those
    that the arm without a decision has of its own, are left out where they say nothing new.
    """
    stage, names, notes = data.stages[k], columns.names, list[str]()
    added = set(earlier_terms(data.trial, k).common)
    # Nor does the arm without a decision tell apart all that a formula lets vary with the action.
    arm = f"{stage.stage.action}[{stage.arms[-1]}]" if stage.outside.any() else None
    own_arm = {i for i in keep if arm in columns.parts[i] and names[i] != arm}
    asked = [i for i in keep if columns.factors[i] not in added and i not in own_arm]
    none = SiteLevel.none(0)
    action, where = stage.stage.action, f"stage {stage.stage.action}"

    def margins(chosen, arm_of, both):
        return _margins(columns, chosen, arm_of, none, action, both)[0]

    own = matrix[:, asked]
    has_intercept = bool(asked) and names[asked[0]] == "Intercept"
    taken = np.bincount(stage.action[stage.fitted], minlength=stage.feasible.shape[1])
    named = [names[i] for i in asked]
    check_rank(own, named, action, taken, margins(asked, (), own), has_intercept)
    chosen = list(keep)
    if len(asked) < len(keep):
        order = [*asked, *(i for i in keep if i not in asked)]
        both = matrix[:, order]
        again = residual_columns(both, margins(order, (), both))[0]
        out = {order[i] for i in np.flatnonzero(collinear(again)) if order[i] not in asked}
        chosen = [i for i in keep if i not in out]
    arm_of: tuple[int, ...] = ()
    if stage.outside.any():
        apart = [i for i in chosen if i and not columns.involves(action)[i]]
        apart = [i for i in apart if names[i] != "Intercept"]
        outside = (rows[action].cat.codes.to_numpy() == len(stage.arms) - 1)[:, None]
        both = np.hstack([matrix[:, chosen], matrix[:, apart] * outside])
        left = residual_columns(both, margins(chosen, apart, both))[0]
        gone = collinear(left)[len(chosen) :]
        arm_of = tuple(i for i, drop in zip(apart, gone, strict=True) if not drop)
        count = int((stage.outside & stage.fitted).sum())
        own_columns = ", ".join(names[i] for i in arm_of)
        if count:
            notes.append(
                f"{where}: {count:,} units without a decision (outside among={stage.stage.among!r}) are an "
                "arm of their own in the model"
                + (f", with coefficients of their own for {own_columns}" if arm_of else "")
                + '. outside="carry" carries their observed payoff to the earlier stages instead.'
            )
    return tuple(chosen), arm_of, notes


def _added(
    data: TrialData,
    k: int,
    columns: Columns,
    keep: Sequence[int],
    groups: Sequence[GroupDesign],
) -> list[str]:
    """What was added to a stage's formula because earlier stages tailor by it."""
    found = earlier_terms(data.trial, k)
    new = [columns.names[i] for i in keep if columns.factors[i] in found.common]
    more = {factor: terms for factor, terms, _ in found.groups}
    for g in groups:
        of = more.get(g.factor, ())
        new += [f"{g.columns.names[i]} by {g.name}" for i in g.keep if g.columns.factors[i] in of]
    new += [s.name for s in found.smooths]
    if not new:
        return []
    one = len(new) == 1
    return [
        f"stage {data.stages[k].stage.action}: {', '.join(new)} added, as stage "
        f"{' and '.join(found.stages)} has "
        f"{'it' if one else 'them'}: without {'it' if one else 'them'} direct effects on the "
        f"payoff would be 0 with "
        "certainty (earlier_terms=False leaves out what was added)."
    ]


def _smooths(
    data: TrialData, k: int, rows: pd.DataFrame, where: str
) -> tuple[Formula, tuple[SmoothDesign, ...], list[str]]:
    """The smooth terms of a stage, its formula with those that were added to it, and why none were."""
    formula, notes = data.stages[k].formula, list[str]()
    shape = data.stages[k].stage.shape or ("linear" if k == len(data.stages) - 1 else "smooth")
    if shape == "smooth" and data.stages[k].by_formula:
        action, numbers = data.stages[k].stage.action, data.coding.numbers
        more = [s.name for s in _bending(formula, action, numbers, rows, notes)]
        formula = Formula.parse(" + ".join([formula.text, *more]))
    return formula, tuple(smooth_design(term, rows, where) for term in formula.smooths), notes


def _bending(
    formula: Formula, action: str, numbers: Sequence[str], rows: pd.DataFrame, notes: list[str]
) -> list[SmoothTerm]:
    """Smooth terms for the numbers that meet the action in a straight line and have values to bend over: of
    two a surface, of three or four a curve each, of more none: then residuals have to say which.

    The best of two straight lines is no straight line, so that the value of the stages to come bends; of two
    variables along any direction, which two curves cannot follow.
    """
    meeting = [t - {action} for t in terms_of(formula.common) if action in t]
    bent = {v for s in formula.smooths if s.by == action for v in s.variables}
    bent |= {v for t in meeting for f in t - {*numbers} for v in names_in(f)}
    straight = [v for v in numbers if any(v in t for t in meeting) and v not in bent]
    straight = [v for v in straight if rows[v].nunique() > 2]
    if len(straight) > _MOST_BENT:  # each action and number has an SD: the draws would take minutes
        notes.append(
            f"stage {action}: {', '.join(straight)} stay straight lines, as more than {_MOST_BENT} numbers "
            f"meet the action; write s({straight[0]}, by={action}) for those whose effect may bend."
        )
        return []
    terms = [tuple(straight)] if len(straight) == 2 else [(v,) for v in straight]
    return [SmoothTerm(variables, action) for variables in terms]


def _bent(given: Formula, used: Formula, action: str) -> list[str]:
    """Which smooth terms were added to a formula."""
    new = [s.name for s in used.smooths if s not in given.smooths]
    if not new:
        return []
    return [
        f"stage {action}: {', '.join(new)} added, as the best of several lines is no line; each shrinks to a "
        'line where a line will do (shape="linear" leaves them out).'
    ]


def _columns_of_sites(
    columns: Columns, keep: Sequence[int]
) -> list[tuple[int, str, frozenset[str]]]:
    """Columns whose site means enter: place, name and variables of those of one variable alone."""
    return [(i, columns.names[i], columns.variables[i]) for i in columns.main_effects if i in keep]


def _group(
    data: TrialData, k: int, term, rows: pd.DataFrame, points: pd.DataFrame
) -> tuple[GroupDesign, list[str]]:
    """One grouping factor, its columns measured from their margins where they are correlated."""
    stage = data.stages[k]
    columns = Columns(term.expression, {}, rows)
    kept, notes = _kept(columns, columns.matrix(points), stage.stage.action, f", ({term.name})")
    matrix = columns.matrix(rows)[:, list(kept)]
    correlated = term.correlated and len(kept) > 1
    measure = as_written(group_scale(columns, kept, matrix, matrix))
    if correlated and stage.by_formula:
        margins, _ = _margins(columns, kept, (), SiteLevel.none(0), stage.stage.action, matrix)
        left, b = residual_columns(matrix, margins)
        names = [columns.names[i] for i in kept]
        measure = measured(
            b,
            group_scale(columns, kept, matrix, left),
            fixed_terms(stage.stage.priors or {}, term.name, names),
        )
        check_zeros(measure, names, term.name, f"stage {stage.stage.action}")
    return (
        GroupDesign(
            term.factor,
            columns,
            kept,
            correlated,
            _role(data, k, term.factor),
            _levels(data, term.factor),
            measure,
        ),
        notes,
    )


def _role(data: TrialData, k: int, factor: tuple[str, ...]) -> str:
    if factor == (data.trial.site,):
        return "site"
    if factor == (delivered_now(data.trial, k),):
        return "delivery"
    return "history"


def _levels(data: TrialData, factor: tuple[str, ...]) -> np.ndarray:
    if factor == (data.trial.site,):
        return data.site_levels
    labels = factor_labels(data.frame, factor)
    return np.array(list(dict.fromkeys(x for x in labels if x is not None)), dtype=object)


def site_codes(frame: pd.DataFrame, site: str | None, levels: np.ndarray) -> np.ndarray:
    if site is None:
        return np.zeros(len(frame), dtype=np.int64)
    return pd.Index(levels).get_indexer(pd.Index(factor_labels(frame, (site,))))


def _feasible_points(data: TrialData, k: int) -> pd.DataFrame:
    """Every history in the data with every action feasible there: where the model must be defined."""
    stage = data.stages[k]
    use = stage.history | stage.fitted
    frame = data.frame[use].reset_index(drop=True)
    blocks = []
    for code in range(stage.feasible.shape[1]):
        block = frame[stage.feasible[use, code]]
        action = _one_action(stage.arms, code, len(block))
        blocks.append(with_columns(block, {stage.stage.action: action}))
    return pd.concat(blocks, ignore_index=True)


def _kept(
    columns: Columns, points: np.ndarray, action: str, part: str
) -> tuple[tuple[int, ...], list[str]]:
    """Drop columns that the feasible sets make zero or identical to an earlier one.

    Only the action of the stage is set to what is feasible, so one of the two must be made from it;
    anything else that coincides is for the rank check to report.
    """
    own = columns.involves(action)
    keep: list[int] = []
    notes = []
    for i, name in enumerate(columns.names):
        twin = next(
            (j for j in keep if (own[i] or own[j]) and np.array_equal(points[:, i], points[:, j])),
            None,
        )
        if own[i] and not points[:, i].any():
            why = "no feasible action makes it other than 0"
        elif twin is not None:
            why = f"with the feasible sets it is the same column as {columns.names[twin]}"
        else:
            keep.append(i)
            continue
        notes.append(f"stage {action}{part}: {name} is dropped; {why}.")
    return tuple(keep), notes
