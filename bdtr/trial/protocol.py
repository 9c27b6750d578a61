"""A trial as a file: what was decided before the data were seen, in TOML, with the words of Python.

    outcome = "y_1"
    site = "school"

    [[stages]]
    action = "a1"
    actions = ["regular", "small"]
    formula = "lunch * a1 + (1 + a1 | school)"

    [fit]                 # arguments of bdtr.fit
    missing = "exclude"

    [regimes.listen]      # regimes to compare, as in bdtr.rule
    a1 = "regular"

    [report]              # arguments of bdtr.report: title, interval, thresholds
    margin = 0.05

    [texts]               # what only the authors can say, for the report's checklist
    goal = "..."

Opening such a file runs nothing: conditions and rules are parsed from their small grammars, formulas are held
against theirs when they meet the data.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from bdtr.results.arguments import a_path
from bdtr.results.errors import BdtrError
from bdtr.results.files import check_output, write_whole
from bdtr.results.labels import label_text
from bdtr.trial.condition import ConditionError
from bdtr.trial.priors import PriorError, prior_from_text
from bdtr.trial.rules import RuleError, read_rule
from bdtr.trial.trial import Stage, Trial, TrialError

__all__ = [
    "TEXTS",
    "Protocol",
    "ProtocolError",
    "protocol_from_text",
    "protocol_to_text",
    "read",
    "stage_words",
    "trial_words",
    "write",
]

# Texts for the report that only the authors can write, and what each should say.
TEXTS = {
    "goal": "the question, and why the analysis is Bayesian",
    "population": "whom the trial is about, and how they were recruited",
    "outcome": "what the payoff measures, its scale, and who measured it",
    "events": "what happened after randomisation (leaving, switching) and how it is dealt with",
    "criteria": "what would count as success, decided before the data were seen",
    "priors": "why these priors",
    "missing": "why values are missing, and why they can be ignored given history",
    "limitations": "limitations, and departures from the plan",
}
_FIT = {
    "missing": str, "off_protocol": str, "sampler": str, "chains": int, "draws": int, "tune": int,
    "propagated": int, "random_seed": int, "imputations": int, "imputation": dict, "auxiliary": list,
    "delta": dict,
}  # fmt: skip
_REPORT = {
    "title": str, "interval": float, "margin": float, "sure": float, "clear": float, "min_cell": int,
    "reference": str, "thresholds": list, "population": str, "over": dict, "planned": dict,
    "thorough": bool,
}  # fmt: skip
_TRIAL = {
    "outcome": str, "unit": str, "site": str, "family": str, "higher_is_better": bool, "trials": str,
    "exposure": str, "utility": (dict, str), "event": str, "horizon": float, "survival_at": float,
    "floor": float, "ceiling": float, "states": dict,
}  # fmt: skip
_STAGE = {
    "action": str, "actions": list, "formula": str, "feasible": dict, "among": str, "eligible": str,
    "delivered_in": str, "reward": str, "priors": dict, "site_means": bool, "earlier_clusters": bool,
    "weights": str, "outside": str, "site_terms": list, "earlier_terms": bool, "residual": str,
    "shape": str,
}  # fmt: skip
_TABLES = ("stages", "fit", "regimes", "report", "texts")
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false",
          list: "a list", dict: "a table", (dict, str): "a table or a text"}  # fmt: skip


class ProtocolError(TrialError):
    """A file that does not describe a trial."""


@dataclass(frozen=True)
class Protocol:
    """A trial with how it is fitted, the regimes to compare and what its report says.

    Parameters
    ----------
    trial
        The trial.
    fit
        Arguments of :func:`bdtr.fit`.
    regimes
        Regimes named in advance: by name, per stage an action or a rule in words.
    report
        Arguments of :func:`bdtr.report`.
    texts
        What only the authors can say, by the names in ``TEXTS``.

    Examples
    --------
    >>> trial = Trial([Stage("a", actions=[0, 1], formula="a")], outcome="y")
    >>> Protocol(trial, regimes={"all": {"a": "1"}}).regimes["all"]["a"]
    '1'
    """

    trial: Trial
    fit: Mapping[str, Any] = field(default_factory=dict)
    regimes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


def read(path: str | os.PathLike) -> Protocol:
    """Read a trial's file.

    Parameters
    ----------
    path
        A TOML file.

    Returns
    -------
    Protocol

    Raises
    ------
    ProtocolError
        If the file is no TOML, or a key, a value, a condition or a rule is not allowed: which, and what is.

    Examples
    --------
    >>> write(trial, "trial.toml")
    >>> read("trial.toml").trial == trial
    True
    """
    path = a_path("path", path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a name that no file can have
        raise ProtocolError(f"{path}: cannot be read. {error}") from None
    return protocol_from_text(text, str(path))


def protocol_from_text(text: str, name: str = "protocol") -> Protocol:
    """The protocol that a TOML text describes; ``name`` is what errors call it."""
    for argument, given in (("text", text), ("name", name)):
        if not isinstance(given, str):
            raise ProtocolError(f"protocol_from_text: {argument} must be a text, got {given!r}.")
    try:
        content = tomllib.loads(text)
    except RecursionError:
        raise ProtocolError(f"{name}: is no TOML file of a trial. It is nested too deep.") from None
    except ValueError as error:  # broken, or a number of thousands of digits
        raise ProtocolError(f"{name}: is no TOML file. {error}") from None
    _known(content, {**_TRIAL, **dict.fromkeys(_TABLES)}, name)
    stages = content.get("stages")
    if not isinstance(stages, list) or not all(isinstance(s, dict) for s in stages or [0]):
        raise ProtocolError(f"{name}: give each stage a table of its own, under [[stages]].")
    tables = {}
    for table, words in (("fit", _FIT), ("report", _REPORT), ("texts", dict.fromkeys(TEXTS, str))):
        tables[table] = _typed(content.get(table, {}), words, f"{name}: [{table}]")
    try:
        built = [_stage(one, f"{name}: [[stages]] {i + 1}") for i, one in enumerate(stages)]
        own = {key: content[key] for key in _TRIAL if key in content}
        trial = Trial(built, **_typed(own, _TRIAL, name))
    except ProtocolError:
        raise
    except BdtrError as error:
        raise ProtocolError(f"{name}: {error}") from None
    return Protocol(trial, regimes=_regimes(content.get("regimes", {}), trial, name), **tables)


def _known(given: Mapping[str, Any], allowed: Mapping[str, Any], where: str) -> None:
    for key in given:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ProtocolError(
                f"{where}: there is no {key!r}; allowed are {', '.join(allowed)}.{hint}"
            )


def _typed(given: Any, words: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ProtocolError(f"{where}: must be a table, got {given!r}.")
    _known(given, words, where)
    for key, value in given.items():
        kind = words[key]
        right = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not right or (isinstance(value, bool) and kind is not bool):
            raise ProtocolError(f"{where}: {key} must be {_WORDS[kind]}, got {value!r}.")
    return dict(given)


def _stage(given: Mapping[str, Any], where: str) -> Stage:
    values = _typed(given, _STAGE, where)
    if "action" not in values:
        raise ProtocolError(f"{where}: action is missing; name the column with the action.")
    priors = {}
    for name, text in values.get("priors", {}).items():
        try:
            priors[name] = prior_from_text(text)
        except PriorError as error:
            raise ProtocolError(f"{where}: priors.{name}: {error}") from None
    return Stage(**{**values, "priors": priors or None})


def _regimes(given: Any, trial: Trial, name: str) -> dict[str, dict[str, str]]:
    where, actions = f"{name}: [regimes]", [s.action for s in trial.stages]
    if not isinstance(given, dict) or not all(isinstance(r, dict) for r in given.values()):
        raise ProtocolError(
            f"{where}: give each regime a table of its own, as in [regimes.listen]."
        )
    out = {}
    for regime, rules in given.items():
        own = f"{name}: [regimes.{regime}]"
        _known(rules, dict.fromkeys(actions), own)
        absent = [a for a in actions if a not in rules]
        if absent:
            raise ProtocolError(f"{own}: says nothing about stage {', '.join(absent)}.")
        out[regime] = {stage: label_text(rule) for stage, rule in rules.items()}
        for stage, rule in out[regime].items():
            try:
                read_rule(rule)
            except (RuleError, ConditionError) as error:
                raise ProtocolError(f"{own}: {stage}: {error}") from None
    return out


def protocol_to_text(protocol: Protocol | Trial) -> str:
    """The TOML text of a protocol, or of a trial alone.

    Parameters
    ----------
    protocol
        What to write. Defaults are left out; stage models of your own are code and cannot be written.

    Returns
    -------
    str

    Raises
    ------
    ProtocolError
        If a stage has a model of your own.

    Examples
    --------
    >>> trial = Trial([Stage("a", actions=[0, 1], formula="a")], outcome="y")
    >>> print(protocol_to_text(trial).splitlines()[0])
    outcome = "y"
    """
    import tomli_w

    if isinstance(protocol, Trial):
        protocol = Protocol(protocol)
    if not isinstance(protocol, Protocol):
        raise ProtocolError(f"protocol={protocol!r}: must be a protocol or a trial.")
    trial = protocol.trial
    content = trial_words(trial)
    content["stages"] = [stage_words(stage) for stage in trial.stages]
    for table in _TABLES[1:]:
        values = getattr(protocol, table)
        if values:
            content[table] = {
                k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()
            }
    return tomli_w.dumps(content)


def write(protocol: Protocol | Trial, path: str | os.PathLike) -> None:
    """Write a protocol, or a trial alone, to a TOML file, complete or not at all.

    Parameters
    ----------
    protocol
        What to write, as in :func:`protocol_to_text`.
    path
        The file; one that is there is replaced.

    Raises
    ------
    ProtocolError
        If a stage has a model of your own.
    OutputError
        If nothing can be written there.

    Examples
    --------
    >>> bdtr.trial.write(trial, "trial.toml")
    """
    text = protocol_to_text(protocol)
    write_whole({check_output(path, "path"): text.encode()})


def _changed(thing: Trial | Stage, words: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from its default, by name."""
    defaults = {f.name: f.default for f in fields(thing)}
    found = {name: getattr(thing, name) for name in words}
    return {
        name: value
        for name, value in found.items()
        if defaults[name] is MISSING or value != defaults[name]
    }


def trial_words(trial: Trial) -> dict[str, Any]:
    """The arguments of a trial that differ from their defaults, stages apart."""
    out = _changed(trial, _TRIAL)
    if trial.states:
        out["states"] = {name: one.to_dict() for name, one in trial.states.items()}
    return out


def stage_words(stage: Stage) -> dict[str, Any]:
    """The arguments of a stage that differ from their defaults, as plain lists, tables and text."""
    if stage.model is not None:
        raise ProtocolError(
            f"Stage({stage.action!r}) has a model of your own, {type(stage.model).__name__}: code cannot be "
            "written to a file that is safe to open. Write the trial without it."
        )
    out = _changed(stage, _STAGE)
    if "actions" in out:
        out["actions"] = list(out["actions"])
    if "feasible" in out:
        out["feasible"] = {c: list(a) for c, a in out["feasible"].items()}
    if "priors" in out:
        out["priors"] = {name: str(prior) for name, prior in out["priors"].items()}
    return out
