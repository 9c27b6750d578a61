"""What the authors of a report choose, held against what is allowed and against the trial's data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bdtr.backward.regimes import Regime, embedded, policy, recommended
from bdtr.checks.assignment import by_action
from bdtr.data.history import known_columns
from bdtr.data.trialdata import TrialData
from bdtr.results.arguments import (
    amount,
    is_real,
    name_list,
    number_list,
    one_of,
    probability,
    text,
    whole,
)
from bdtr.results.errors import ArgumentError
from bdtr.trial.protocol import TEXTS
from bdtr.values.populations import POPULATIONS

__all__ = ["Choices", "check_against", "check_choices", "compared"]


@dataclass(frozen=True)
class Choices:
    """What the authors of a report choose; see :func:`bdtr.report`."""

    title: str | None = None
    command: str | None = None
    interval: float = 0.95
    margin: float | None = None
    sure: float = 0.95
    clear: float = 0.80
    min_cell: int = 10
    thresholds: Sequence[float] = (0.0, 0.05, 0.1, 0.15, 0.2)
    reference: str | None = None
    population: str = "sample"
    regimes: Sequence[Regime] = ()
    over: Mapping[str, Sequence[str]] | None = None
    planned: Mapping[str, Mapping[object, float]] | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    override: str | None = None
    thorough: bool = True
    progress: bool = False


def check_choices(**given: Any) -> None:
    """Raise where the authors' choices for a report are none, before anything is fitted.

    Parameters
    ----------
    **given
        Arguments of :func:`report`, as far as they are given.
    """
    given = {name: value for name, value in given.items() if value is not None}
    texts, regimes = given.get("texts", {}), given.get("regimes", ())
    for name in {"title", "command", "override", "reference"} & set(given):
        text(name, given[name])
    if not isinstance(texts, Mapping) or not all(isinstance(t, str) for t in texts.values()):
        raise ArgumentError(f"texts: must map names to texts; allowed are {', '.join(TEXTS)}.")
    unknown = [name for name in texts if name not in TEXTS]
    if unknown:
        raise ArgumentError(f"texts: {unknown[0]!r} is not known; allowed are {', '.join(TEXTS)}.")
    if not isinstance(regimes, (list, tuple)) or not all(isinstance(r, Regime) for r in regimes):
        raise ArgumentError(
            f"regimes={regimes!r}: must be a list of regimes, as bdtr.rule makes them."
        )
    for name in {"interval", "sure", "clear"} & set(given):
        probability(name, given[name])
    if "margin" in given:
        amount("margin", given["margin"])
    if "min_cell" in given:
        whole("min_cell", given["min_cell"])
    thresholds = given.get("thresholds", (0.0,))
    if not number_list("thresholds", thresholds):
        raise ArgumentError(f"thresholds={thresholds!r}: name one number or more.")
    for name, words in (("over", "lists of columns"), ("planned", "weights of actions")):
        value = given.get(name, {})
        inner = (list, tuple) if name == "over" else Mapping
        fits = isinstance(value, Mapping) and all(isinstance(v, inner) for v in value.values())
        if fits and name == "planned":
            fits = all(_finite(w) for v in value.values() for w in v.values())
        if not fits:
            raise ArgumentError(f"{name}={value!r}: must map stages to {words}.")


def compared(data: TrialData, own: Sequence[Regime]) -> list[Regime]:
    """The recommended regime, those embedded in the trial, and those that the authors add.

    Parameters
    ----------
    data
        Checked data.
    own
        The authors' regimes.

    Raises
    ------
    ArgumentError
        If one of them has the name of another.
    """
    found = [recommended(), *embedded(data)]
    taken = {r.name: r for r in found}
    for one in own:
        there = taken.get(one.name)
        if there is not None and there.rules != one.rules:
            raise ArgumentError(
                f"regimes: {one.name!r} is the name of another one ({there}). Give yours another name."
            )
        if there is None:
            found.append(one)
            taken[one.name] = one
    return found


def check_against(
    data: TrialData,
    regimes: Sequence[Regime],
    *,
    reference: str | None = None,
    population: str = "sample",
    over: Mapping[str, Sequence[str]] | None = None,
    planned: Mapping[str, Mapping[object, float]] | None = None,
    **_: Any,
) -> None:
    """Raise where choices of :func:`bdtr.report` do not fit the trial or its data.

    Parameters
    ----------
    data
        Checked data.
    regimes
        All regimes, as :func:`compared` lists them.
    reference, population, over, planned
        As in :func:`bdtr.report`; its other arguments are passed over.
    """
    for one in regimes:
        policy(one, data)
    names = [one.name for one in regimes]
    if reference is not None and reference not in names:
        raise ArgumentError(
            f"reference={reference!r}: the regimes are {', '.join(map(repr, names))}."
        )
    one_of("population", population, POPULATIONS)
    if population in ("sites", "new site") and data.trial.site is None:
        raise ArgumentError(f"population={population!r}: the trial names no site column.")
    stages = [s.stage.action for s in data.stages]
    for name, given in (("over", over), ("planned", planned)):
        for stage in given or {}:
            one_of(f"stages of {name}", stage, stages)
    for stage, columns in (over or {}).items():
        known = known_columns(data, stages.index(stage))
        for column in name_list(f"over[{stage!r}]", columns):
            one_of(f"over[{stage!r}]", column, known)
    for stage, weights in (planned or {}).items():
        where, actions = f"planned[{stage!r}]", data.stages[stages.index(stage)].stage.actions
        if min(by_action(weights, actions or (), where)) < 0:
            raise ArgumentError(f"{where}: weights must be 0 or more, got {dict(weights)}.")


def _finite(value: object) -> bool:
    return is_real(value) and math.isfinite(value)
