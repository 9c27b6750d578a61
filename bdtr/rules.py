"""Rules of one stage: an action, actions by condition, or a function of history.

    rule := action | action "if" condition ["else" rule] | "(" rule ")"

An action is a label, in quotes if it holds the words ``if`` or ``else``; a condition is as in
:mod:`bdtr.condition`. Read, a rule is a label or a mapping from conditions to labels in which the first
condition that holds decides, with the key ``"else"`` for all others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from bdtr.condition import Condition
from bdtr.errors import BdtrError
from bdtr.labels import label_text

__all__ = ["ELSE", "Rule", "RuleError", "action_codes", "read_rule", "rule_columns", "rule_text"]

ELSE = "else"
_SPLIT = re.compile(r"'[^']*'|\"[^\"]*\"|(?P<word>\b(?:if|else)\b)")
_HELP = 'Write for example "aide if y_k < 0 else regular".'

type Rule = str | Mapping[str, str] | Callable[[pd.DataFrame], object]


class RuleError(BdtrError, ValueError):
    """A rule that cannot be read, or that names no action of its stage."""


def read_rule(text: str) -> str | dict[str, str]:
    """A rule from its text.

    Parameters
    ----------
    text
        Such as ``"aide if y_k < 0 else regular"``.

    Returns
    -------
    str or dict
        A label, or labels by condition.

    Raises
    ------
    RuleError
        If the text is outside the grammar.

    Examples
    --------
    >>> read_rule("aide if y_k < 0 else regular")
    {'y_k < 0': 'aide', 'else': 'regular'}
    """
    found: dict[str, str] = {}
    rest = text
    while True:
        rest = _bare(rest)
        parts = _parts(rest)
        action = _label(parts[0][1], text)
        if len(parts) == 1:
            found.setdefault(ELSE, action)
            break
        if parts[1][0] != "if":
            raise RuleError(f"The rule {text!r} has 'else' without 'if'. {_HELP}")
        found.setdefault(Condition(parts[1][1]).text.strip(), action)
        if len(parts) == 2:
            break
        if parts[2][0] != ELSE:
            raise RuleError(f"The rule {text!r} has 'if' where 'else' is due. {_HELP}")
        rest = rest[parts[2][2] :]
    return found[ELSE] if set(found) == {ELSE} else found


def _parts(text: str) -> list[tuple[str, str, int]]:
    """(word before it, text, where it begins) of what stands between the words if and else."""
    cuts = [m for m in _SPLIT.finditer(text) if m.group("word")]
    words = ["", *(m.group("word") for m in cuts)]
    starts = [0, *(m.end() for m in cuts)]
    ends = [*(m.start() for m in cuts), len(text)]
    return [(w, text[a:b], a) for w, a, b in zip(words, starts, ends, strict=True)]


def _bare(text: str) -> str:
    """The text without parentheses around all of it."""
    text = text.strip()
    while text.startswith("(") and text.endswith(")"):
        depth = 0
        for i, mark in enumerate(text):
            depth += (mark == "(") - (mark == ")")
            if depth == 0 and i < len(text) - 1:
                return text
        text = text[1:-1].strip()
    return text


def _label(text: str, rule: str) -> str:
    label = text.strip()
    if len(label) > 1 and label[0] == label[-1] and label[0] in "'\"":
        label = label[1:-1]
    if not label or any(mark in label for mark in "'\""):
        raise RuleError(f"The rule {rule!r} lacks an action, or quotes part of one. {_HELP}")
    return label


def rule_text(rule: Rule) -> str:
    """A rule as text, as :func:`read_rule` reads it; of a function its name."""
    if isinstance(rule, str):
        return rule
    if isinstance(rule, Mapping):
        actions = list(dict.fromkeys(rule.values()))
        if len(actions) == 1 and ELSE in rule:
            return actions[0]
        pieces = [f"{a} if {c}" for c, a in rule.items() if c != ELSE]
        return " else ".join([*pieces, *([rule[ELSE]] if ELSE in rule else [])])
    return getattr(rule, "__name__", type(rule).__name__)


def rule_columns(rule: Rule) -> tuple[str, ...]:
    """Columns that the conditions of a rule name."""
    if not isinstance(rule, Mapping):
        return ()
    named = [c for text in rule if text != ELSE for c in Condition(text).columns]
    return tuple(dict.fromkeys(named))


def action_codes(rule: Rule, actions: Sequence[str], history: pd.DataFrame) -> np.ndarray:
    """Code of the action that a rule takes for each row, -1 where it says nothing.

    A condition that cannot be evaluated, because a value is missing, is not passed over: the rule then
    says nothing.

    Parameters
    ----------
    rule
        The rule.
    actions
        Labels of the stage's actions, in order.
    history
        Coded columns known at the stage.

    Returns
    -------
    numpy.ndarray
        (row).

    Raises
    ------
    RuleError
        If the rule names an action that the stage does not have, or a function returns something
        else than one label for each row.
    """
    code = {label: i for i, label in enumerate(actions)}

    def of(label: str) -> int:
        if label not in code:
            raise RuleError(f"{label!r} is no action; allowed are {list(actions)}.")
        return code[label]

    if isinstance(rule, str):
        return np.full(len(history), of(rule), dtype=np.int64)
    if isinstance(rule, Mapping):
        out = np.full(len(history), -1, dtype=np.int64)
        open_ = np.ones(len(history), dtype=bool)
        for text, label in rule.items():
            truth = np.ones(len(history)) if text == ELSE else Condition(text).evaluate(history)
            out[open_ & (truth == 1)] = of(label)
            open_ &= truth == 0
        return out
    found = np.asarray(rule(history.copy()), dtype=object)
    if found.shape != (len(history),):
        raise RuleError(
            f"{rule_text(rule)}() must return one action for each of the {len(history):,} rows of its "
            f"argument, got an array of shape {found.shape}."
        )
    codes, labels = pd.factorize(found)  # missing: -1
    table = np.array([*(of(label_text(label)) for label in labels), -1], dtype=np.int64)
    return table[codes]
