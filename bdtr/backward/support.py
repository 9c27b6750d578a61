"""What a fit predicts and nobody in it has shown, or hardly anybody: actions that nobody took, groups
without a payoff."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bdtr.data.trialdata import StageData, TrialData
from bdtr.results.diagnostics import State, doubt, worst
from bdtr.trial.condition import Condition

__all__ = ["support"]

_LEAST = 5  # units who took an action
_FEW = 0.01  # share of a stage's units below which a group without a payoff cannot carry a value


def support(data: TrialData) -> State:
    """The state of the data's support for what is predicted from them.

    Parameters
    ----------
    data
        Checked data.

    Returns
    -------
    State
        Refused where an action is feasible and nobody in the fit took it, or where nobody is in
        the fit of a group that the stage's model has coefficients for: those with or without a decision,
        by each earlier action. Caution where such a group is smaller than 1 % of the stage, or fewer than
        five units took an action.
    """
    states = []
    for k, stage in enumerate(data.stages):
        states += _taken(data, stage)
        states += [_shown(stage, said, group) for said, group in _groups(data, k)]
    return worst(states)


def _groups(data: TrialData, k: int) -> Iterator[tuple[str, np.ndarray]]:
    """Groups that the model of stage k tells apart by coefficients of its own or that it added."""
    stage = data.stages[k]
    sides = [("", ~stage.outside)]
    if (stage.outside & stage.history).any():
        sides = [("without a decision", stage.outside), ("with a decision", ~stage.outside)]
    for said, side in sides:
        if not (stage.fitted & side).any():
            yield said, side  # as a whole, not by earlier action
            continue
        for before in data.stages[:k]:
            for code, label in enumerate(before.arms):
                took = f"{said} with {label!r} in {before.stage.action}".strip()
                yield took, side & (before.action == code)


def _shown(stage: StageData, said: str, group: np.ndarray) -> State:
    """State of what a stage's fit says of a group: not ok where nobody of it is in the fit."""
    size = int((stage.history & group).sum())
    if not size or (stage.fitted & group).any():
        return State()
    who = f" {said}" if said else ""
    none = f"none of the {size:,} units{who} is" if size > 1 else f"the one unit{who} is not"
    reason = (
        f"stage {stage.stage.action}: {none} in the fit "
        "(fit.flow says why), so that their payoff is guessed from that of others and values "
        "that include them are not supported; some of their outcomes are needed"
    )
    return State("refused" if size > _FEW * stage.history.sum() else "caution", (reason,))


def _taken(data: TrialData, stage: StageData) -> Iterator[State]:
    """State of each action that is feasible, for everyone or under a condition, by how many in the fit
    took it."""
    everyone = {"": tuple(stage.stage.actions or ())}
    name = f"stage {stage.stage.action}"
    for condition, allowed in (stage.stage.feasible or everyone).items():
        rows = stage.fitted.copy()
        if condition:
            rows &= Condition(condition).evaluate(data.frame) == 1
        counts = np.bincount(stage.action[rows], minlength=len(stage.arms))
        where = f" where {condition}" if condition else ""
        for label in allowed:
            count = counts[stage.arms.index(label)]
            if not count:
                yield State("refused", (f"{name}: nobody in the fit took {label!r}{where}",))
            elif count < _LEAST:
                who = "one unit" if count == 1 else f"{count} units"
                said = f"{name}: {who} in the fit took {label!r}{where}, so that its effect rests on them"
                yield doubt(f"{said} and on the prior")
