"""Rules of one stage: an action, actions by condition, or a function of history.

    rule := action | action "if" condition ["else" rule] | "(" rule ")"

An action is a label, in quotes if it holds the words ``if`` or ``else``, quotes or parentheses; a condition
is as in :mod:`bdtr.trial.condition`. Read, a rule is a label or a mapping from conditions to labels in which
the first condition that holds decides, with the key ``"else"`` for all others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from bdtr.results.errors import BdtrError, shown
from bdtr.results.labels import label_text
from bdtr.trial.alignment import of_each_row
from bdtr.trial.condition import Condition

__all__ = ["ELSE", "Rule", "RuleError", "action_codes", "read_rule", "rule_columns", "rule_text"]

ELSE = "else"
_SPLIT = re.compile(r"'[^']*'|\"[^\"]*\"|(?P<word>\b(?:if|else)\b)")
_DEEPEST = 50
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
    if not isinstance(text, str):
        raise RuleError(f"A rule must be text, got {text!r}.")
    _not_too_deep(text)
    cuts = [m for m in _SPLIT.finditer(text) if m.group("word")]
    found: dict[str, str] = {}
    start, end, at = 0, len(text), 0
    while True:
        start, end = _bare(text, start, end)
        here = [m for m in cuts[at : at + 2] if m.start() < end]
        action = _label(text[start : here[0].start() if here else end], text)
        if not here:
            found.setdefault(ELSE, action)
            break
        if here[0].group("word") != "if":
            raise RuleError(f"The rule {shown(text)} has 'else' without 'if'. {_HELP}")
        condition = text[here[0].end() : here[1].start() if len(here) > 1 else end]
        found.setdefault(Condition(condition).text.strip(), action)
        if len(here) == 1:
            break
        if here[1].group("word") != ELSE:
            raise RuleError(f"The rule {shown(text)} has 'if' where 'else' is due. {_HELP}")
        start, at = here[1].end(), at + 2
    return found[ELSE] if set(found) == {ELSE} else found


def _not_too_deep(text: str) -> None:
    depth = deepest = 0
    for mark in re.sub(r"'[^']*'|\"[^\"]*\"|[^()]", "", text):
        depth += 1 if mark == "(" else -1
        deepest = max(deepest, depth)
    if deepest > _DEEPEST:
        raise RuleError(f"The rule {shown(text)} is nested more than {_DEEPEST} deep.")


def _bare(text: str, start: int, end: int) -> tuple[int, int]:
    """Where a part of a text is without blanks and parentheses around all of it."""
    while True:
        while start < end and text[start].isspace():
            start += 1
        while start < end and text[end - 1].isspace():
            end -= 1
        if not (start < end and text[start] == "(" and text[end - 1] == ")"):
            return start, end
        depth = 0
        for i in range(start, end - 1):
            depth += (text[i] == "(") - (text[i] == ")")
            if depth == 0:
                return start, end
        start, end = start + 1, end - 1


def _label(text: str, rule: str) -> str:
    label, quote = text.strip(), ""
    if len(label) > 1 and label[0] == label[-1] and label[0] in "'\"":
        quote, label = label[0], label[1:-1]
    if not label or any(mark in label for mark in quote or "'\""):
        raise RuleError(f"The rule {shown(rule)} lacks an action, or quotes part of one. {_HELP}")
    return label


def _quoted(label: str) -> str:
    """A label as it stands in the text of a rule."""
    cut = any(m.group("word") for m in _SPLIT.finditer(label))
    if not cut and label == label.strip() and not set(label) & set("'\"()"):
        return label
    return f'"{label}"' if '"' not in label else f"'{label}'"


def rule_text(rule: Rule) -> str:
    """A rule as text, as :func:`read_rule` reads it; of a function its name."""
    if isinstance(rule, str):
        return _quoted(rule)
    if isinstance(rule, Mapping):
        pieces = [f"{_quoted(a)} if {c}" for c, a in rule.items() if c != ELSE]
        return " else ".join([*pieces, *([_quoted(rule[ELSE])] if ELSE in rule else [])])
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
            odd = [q for a in actions if (q := _quoted(a)) != a]
            hint = f" In the text of a rule write {', '.join(odd)}, with both marks." if odd else ""
            raise RuleError(f"{label!r} is no action; allowed are {list(actions)}.{hint}")
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
    who = f"{rule_text(rule)}()"
    found = of_each_row(rule, history, who, "one action", error=RuleError)
    try:
        codes, labels = pd.factorize(found)  # missing: -1
    except TypeError:
        raise RuleError(f"{who} must return labels of actions, got {found[0]!r}.") from None
    table = np.array([*(of(label_text(label)) for label in labels), -1], dtype=np.int64)
    return table[codes]
