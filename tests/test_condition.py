"""The grammar of conditions."""

from __future__ import annotations

import contextlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from bdtr.trial.condition import Condition, ConditionError

FRAME = pd.DataFrame(
    {
        "x": [0.0, 1.0, 2.0, np.nan],
        "g": ["a", "b", None, "it's"],
        "n": [1, 2, 3, 4],
        "c": pd.Categorical(["lo", "hi", "lo", "hi"], categories=["lo", "hi"]),
    }
)


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("x > 0.5", [0, 1, 1, -1]),
        ("not x > 0.5", [1, 0, 0, -1]),
        ("x >= 1 and n < 3", [0, 1, 0, 0]),
        ("x >= 1 or n == 4", [0, 1, 1, 1]),
        ("g == 'a'", [1, 0, -1, 0]),
        ('g == "it\'s"', [0, 0, -1, 1]),
        ("g in ['a', 'b']", [1, 1, -1, 0]),
        ("g not in ['a', 'b']", [0, 0, -1, 1]),
        ("n in [1, 4]", [1, 0, 0, 1]),
        ("c == 'hi' and (n == 2 or n == 3)", [0, 1, 0, 0]),
        ("n != x", [1, 1, 1, -1]),
        ("n == -1", [0, 0, 0, 0]),
    ],
)
def test_truth_in_three_values(text, truth):
    assert Condition(text).evaluate(FRAME).tolist() == truth


def test_digits_kept_as_text_are_labels():
    frame = pd.DataFrame({"a": pd.Categorical(["0", "1"])})
    assert Condition("a == 1").evaluate(frame).tolist() == [0, 1]
    assert Condition("a in [0]").evaluate(frame).tolist() == [1, 0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "x >",
        "x > 1 and",
        "f(x) > 1",
        "x.y > 1",
        "__import__('os')",
        "x > 1; y",
        "(x > 1",
        "x in 1",
        "x in [n]",
        "x == [1]",
        "x = 1",
        "g < 'b' < 'c'",
        "lambda: 1",
        "x & 1",
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(ConditionError, match="Allowed are|must be a non-empty"):
        Condition(text)


def test_absent_column_is_named_with_those_there():
    with pytest.raises(ConditionError, match="names 'z'.*Columns: x, g, n, c"):
        Condition("z == 1").evaluate(FRAME)


def test_text_has_no_order():
    with pytest.raises(ConditionError, match="orders text"):
        Condition("g < 'b'").evaluate(FRAME)
    with pytest.raises(ConditionError, match="compares text with numbers"):
        Condition("g < 1").evaluate(FRAME)


NAMES = ("x", "n")
COMPARISONS = st.builds(
    lambda name, op, value: (f"{name} {op} {value}", lambda row: _compare(row[name], op, value)),
    st.sampled_from(NAMES),
    st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
    st.integers(-2, 5),
)


def _compare(a, op, b):
    if a is None:
        return None
    return {"==": a == b, "!=": a != b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[op]


def _and(a, b):
    return False if a is False or b is False else None if a is None or b is None else True


def _not(a):
    return None if a is None else not a


EXPRESSIONS = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        st.builds(lambda a: (f"not ({a[0]})", lambda r: _not(a[1](r))), inner),
        st.builds(
            lambda a, b: (f"({a[0]}) and ({b[0]})", lambda r: _and(a[1](r), b[1](r))), inner, inner
        ),
        st.builds(
            lambda a, b: (
                f"({a[0]}) or ({b[0]})",
                lambda r: _not(_and(_not(a[1](r)), _not(b[1](r)))),
            ),
            inner,
            inner,
        ),
    ),
    max_leaves=6,
)


@given(EXPRESSIONS)
def test_agrees_with_three_valued_logic_worked_by_hand(expression):
    text, expected = expression
    rows = [
        {"x": None if np.isnan(x) else x, "n": n}
        for x, n in zip(FRAME["x"], FRAME["n"], strict=True)
    ]
    truth = [{True: 1, False: 0, None: -1}[expected(row)] for row in rows]
    assert Condition(text).evaluate(FRAME).tolist() == truth


@given(st.text(max_size=30))
def test_any_text_parses_or_is_refused_by_name(text):
    with contextlib.suppress(ConditionError):
        Condition(text)


@pytest.mark.parametrize("dtype", [bool, "boolean", int, float])
def test_truth_values_are_one_and_zero(dtype):
    frame = pd.DataFrame({"b": pd.Series([1, 0, 1]).astype(dtype)})
    assert Condition("b == True").evaluate(frame).tolist() == [1, 0, 1]
    assert Condition("b != True or b in [False]").evaluate(frame).tolist() == [0, 1, 0]
    Condition("b == True and b != 0").check_labels(frame, "here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n == 7", r"here: .*names 7, a value that no unit has in 'n'. Values there: 1, 2, 3, 4\."),
        ("x > 1 or n in [1, 2.5]", "names 2.5"),
        ("n == 'many'", "compares 'n' with 'many', but its values are numbers, such as 1, 2"),
        ("g == 'A'", "names 'A', a label that no unit has in 'g'"),
    ],
)
def test_values_that_no_unit_has_are_errors(text, message):
    with pytest.raises(ConditionError, match=message):
        Condition(text).check_labels(FRAME, "here")
    Condition("n == 4 or n > 7 or x != -9 or not n in [98, 99] or n not in [7]").check_labels(
        FRAME, "here"
    )
