"""Participants: who was assigned what, who went on, left or was lost, who is in the fit of each stage.

A table and a figure as readers of CONSORT know them (Moher and others 2010, BMJ 340, c869; for trials with
several stages Almirall and others 2014, Transl. Behav. Med. 4(3)), in which every unit is once at each stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from bdtr.backward.fitted import Fit
from bdtr.data.no_decision import has_decision
from bdtr.data.trialdata import TrialData
from bdtr.results.arguments import a_fit
from bdtr.results.captions import Captioned, Shown
from bdtr.results.labels import label_text
from bdtr.trial.condition import Condition

__all__ = [
    "ASIDE",
    "START",
    "Participants",
    "after",
    "attrition",
    "participant_flow",
]

START = "start"
NO_DECISION, NOT_ELIGIBLE, LEFT = "no decision", "not eligible", "left before"
ASIDE = (NO_DECISION, NOT_ELIGIBLE, LEFT)  # where a unit may be at a stage but in an arm


@dataclass(frozen=True, repr=False)
class Participants(Shown):
    """Where each unit is at each stage, and what becomes of it.

    ``table`` by ``stage, before, now``: ``before`` are the places at earlier stages (``start`` at the first),
    ``now`` the action, ``no decision``, ``not eligible`` or ``left before`` (a decision was due, or not known
    to be, and no action is recorded). ``units`` are ``went_on`` (have a later action), ``left`` (have none
    where a decision was due), ``finished`` (no decision was left, the outcome is known) or ``lost`` (to
    follow-up, the outcome is not known), which add up. Of them ``off_protocol`` took an action that was not
    feasible, ``in_fit`` are in the fit of the stage, of these ``imputed`` with an imputed value, and
    ``predicted`` without an outcome of their own, through what is expected of them. ``values`` counts imputed
    values by ``stage, now, variable``.
    """

    _tables: ClassVar[tuple[str, ...]] = ("table", "values")

    table: pd.DataFrame
    values: pd.DataFrame
    units: int

    @property
    def caption(self) -> str:
        """What the numbers are, in one line."""
        return (
            f"The {self.units:,} units of the trial at each stage: units = went on + left + finished + lost; "
            "left: no action where a decision was due; lost: no outcome in the end."
        )


def participant_flow(fit: Fit) -> Participants:
    """Who was assigned what, who went on, left or was lost to follow-up, and who is in the fit.

    Parameters
    ----------
    fit
        A fitted trial with its data.

    Returns
    -------
    Participants

    Examples
    --------
    >>> found = bdtr.checks.participant_flow(fit)
    >>> list(found.table)
    ['units', 'off_protocol', 'went_on', 'left', 'finished', 'lost', 'in_fit', 'imputed', 'predicted']
    """
    a_fit(fit)
    data = fit.require_data("the flow of units")
    known, places = data.outcome_known, [_place(data, k) for k in range(len(data.stages))]
    fates, tables, values = _fates(data, places, known), [], []
    path, paths = np.zeros(len(data), dtype=np.int64), [START]
    for k, (design, stage, now) in enumerate(zip(fit.designs, data.stages, places, strict=True)):
        labels, imputed = [*map(label_text, design.actions), *ASIDE], _imputed(data, k)
        marks = {
            "units": np.ones(len(data), dtype=bool),
            "off_protocol": (now < len(design.actions)) & ~_feasible(data, k),
            **{fate: fates[k] == fate for fate in _FATES},
            "in_fit": stage.fitted,
            "imputed": np.any([np.zeros(len(data), dtype=bool), *imputed.values()], axis=0),
            "predicted": stage.fitted & ~known & (k < len(data.stages) - 1),
        }
        own = pd.DataFrame({"before": path, "now": now, **marks})
        own = own.groupby(["before", "now"]).sum().astype(int).reset_index()
        ends = [after(paths[b], labels[n]) for b, n in zip(own["before"], own["now"], strict=True)]
        place = pd.Index(zip(own["before"], own["now"], strict=True))
        path = place.get_indexer(pd.Index(zip(path, now, strict=True)))
        own["before"] = [paths[code] for code in own["before"]]
        own["now"], paths = [labels[code] for code in own["now"]], ends
        tables.append(own.assign(stage=design.action))
        values += [
            (design.action, label, name, int(gap[now == code].sum()))
            for code, label in enumerate(labels)
            for name, gap in imputed.items()
            if gap[now == code].any()
        ]
    columns = ["stage", "now", "variable", "imputed"]
    return Participants(
        pd.concat(tables).set_index(["stage", "before", "now"]),
        pd.DataFrame(values, columns=columns).set_index(columns[:3]),
        len(data),
    )


def after(before: str, now: str) -> str:
    """The places of a unit so far, as a text."""
    return now if before == START else f"{before}, {now}"


_FATES = ("went_on", "left", "finished", "lost")


def _place(data: TrialData, k: int) -> np.ndarray:
    """Where each unit is at a stage: the code of its action, or one of those aside after them."""
    stage = data.stages[k]
    count = len(stage.stage.actions or ())
    took = (stage.action >= 0) & (stage.action < count)
    out = np.where(took, stage.action, count + ASIDE.index(LEFT))
    none = ~took & (has_decision(stage.stage, data.frame) == 0)
    out = np.where(none, count + ASIDE.index(NO_DECISION), out)
    if stage.stage.eligible:
        outside = Condition(stage.stage.eligible).evaluate(data.frame) == 0
        out = np.where(outside & ~none, count + ASIDE.index(NOT_ELIGIBLE), out)
    return out


def _fates(data: TrialData, places: list[np.ndarray], known: np.ndarray) -> list[np.ndarray]:
    """What becomes of each unit after each stage."""
    fate = np.where(known, "finished", "lost").astype(object)
    out = [fate]
    for stage, place in zip(data.stages[:0:-1], places[:0:-1], strict=True):
        count = len(stage.stage.actions or ())
        gone = place == count + ASIDE.index(LEFT)
        fate = np.where(place < count, "went_on", np.where(gone, "left", fate))
        out.append(fate)
    return out[::-1]


def _feasible(data: TrialData, k: int) -> np.ndarray:
    stage = data.stages[k]
    return stage.feasible[np.arange(len(data)), np.maximum(stage.action, 0)]


def _imputed(data: TrialData, k: int) -> dict[str, np.ndarray]:
    """Units in the fit of a stage with an imputed value, by variable."""
    found, outcome = data.imputed(k), data.trial.outcome
    if k == len(data.stages) - 1 and outcome:
        drawn = data.stages[k].fitted & data.frame[outcome].isna().to_numpy()
        found |= {outcome: drawn} if drawn.any() else {}
    return found


def attrition(fit: Fit) -> Captioned:
    """Attrition, overall and differential: who took an action and has no known outcome in the end.

    With n_a units that took action a and l_a of them without an outcome, attrition is l_a / n_a, and
    differential attrition l_a / n_a - l_0 / n_0 against the stage's first action (What Works Clearinghouse,
    Standards Handbook, version 4.1).

    Parameters
    ----------
    fit
        A fitted trial with its data.

    Returns
    -------
    Captioned
        Table by ``stage, action``, and ``all`` of a stage, with ``units``, ``lost``, ``attrition`` and
        ``differential``, shares; NaN where nobody took the action.

    Examples
    --------
    >>> found = bdtr.checks.attrition(fit)
    >>> list(found.table)
    ['units', 'lost', 'attrition', 'differential']
    """
    a_fit(fit)
    data = fit.require_data("attrition")
    gone, rows = ~data.outcome_known, {}
    for design, stage in zip(fit.designs, data.stages, strict=True):
        took = stage.among & ~stage.outside & (stage.action >= 0)
        sizes = np.bincount(stage.action[took], minlength=len(design.actions))
        lost = np.bincount(stage.action[took & gone], minlength=len(design.actions))
        share = np.divide(lost, sizes, out=np.full(len(sizes), np.nan), where=sizes > 0)
        for a, action in enumerate(design.actions):
            rows[design.action, action] = (sizes[a], lost[a], share[a], share[a] - share[0])
        together = lost.sum() / sizes.sum() if sizes.sum() else np.nan
        rows[design.action, "all"] = (sizes.sum(), lost.sum(), together, np.nan)
    index = pd.MultiIndex.from_tuples(rows, names=["stage", "action"])
    table = pd.DataFrame(
        list(rows.values()), index=index, columns=["units", "lost", "attrition", "differential"]
    ).astype({"units": int, "lost": int})
    return Captioned(
        table,
        "Attrition: units that took an action and have no outcome; differential: against the stage's first "
        "action.",
    )
