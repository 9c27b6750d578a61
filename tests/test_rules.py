"""Rules of one stage: their grammar, and the actions they take."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from bdtr.trial.condition import ConditionError
from bdtr.trial.rules import RuleError, action_codes, read_rule, rule_columns, rule_text

ACTIONS = ("regular", "aide", "small class")
FRAME = pd.DataFrame({"x": [-1.0, 0.5, 2.0, np.nan], "g": ["a", "b", "b", "a"]})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("aide", [1, 1, 1, 1]),
        ("'small class'", [2, 2, 2, 2]),
        ("small class", [2, 2, 2, 2]),
        ("aide if x < 0 else regular", [1, 0, 0, -1]),
        ("aide if x < 0", [1, -1, -1, -1]),
        ("(aide if x < 0 else regular)", [1, 0, 0, -1]),
        ("aide if x < 0 else small class if x > 1 else regular", [1, 0, 2, -1]),
        ("aide if x < 0 else (small class if x > 1 else regular)", [1, 0, 2, -1]),
        ("aide if (x < 0 or g == 'a') else regular", [1, 0, 0, 1]),
        ("aide if g in ['b', 'if else'] else regular", [0, 1, 1, 0]),
        ("aide if g == 'b' else regular if x < 5", [0, 1, 1, -1]),
    ],
)
def test_rules_take_the_first_action_whose_condition_holds(text, expected):
    rule = read_rule(text)
    assert action_codes(rule, ACTIONS, FRAME).tolist() == expected
    assert read_rule(rule_text(rule)) == rule


@pytest.mark.parametrize(
    "text", ["", "aide else regular", "aide if", "if x < 0 else aide", "aide if x < 0 if x > 1",
             "aide if x <", "aide' if x < 0 else regular"],
)  # fmt: skip
def test_rules_outside_the_grammar(text):
    with pytest.raises((RuleError, ConditionError)):
        read_rule(text)


def test_actions_that_the_stage_does_not_have():
    for rule in ("large", {"x < 0": "aide", "else": "large"}, lambda h: ["large"] * len(h)):
        with pytest.raises(RuleError, match="'large' is no action; allowed are"):
            action_codes(rule, ACTIONS, FRAME)


def test_functions_return_a_label_for_each_row_and_cannot_change_the_data():
    def by_sign(history):
        history["x"] = history["x"].fillna(9.0)
        return pd.Series(np.where(history["x"] < 0, "aide", "regular"))

    assert action_codes(by_sign, ACTIONS, FRAME).tolist() == [1, 0, 0, 0]
    assert FRAME["x"].isna().sum() == 1
    assert action_codes(lambda h: h["g"].map({"a": "aide"}), ACTIONS, FRAME).tolist() == [
        1,
        -1,
        -1,
        1,
    ]
    with pytest.raises(
        RuleError, match=r"by_half\(\) must return one action for each of the 4 rows"
    ):
        action_codes(by_half, ACTIONS, FRAME)


def by_half(history):
    return ["aide"] * (len(history) // 2)


def test_numbers_are_labels_too():
    assert action_codes(lambda h: np.ones(len(h)), ("0", "1"), FRAME).tolist() == [1] * 4
    assert action_codes(read_rule("1 if x < 0 else 0"), ("0", "1"), FRAME).tolist() == [1, 0, 0, -1]


def test_columns_of_rules():
    assert rule_columns(read_rule("aide if x < 0 and g == 'a' else regular")) == ("x", "g")
    assert rule_columns("aide") == rule_columns(by_half) == ()


LABELS = st.sampled_from(ACTIONS)
CONDITIONS = st.sampled_from(["x < 0", "x > 1 and g == 'b'", "g in ['a']", "not (x < 1)"])


@given(
    st.lists(st.tuples(CONDITIONS, LABELS), min_size=1, max_size=4, unique_by=lambda p: p[0]),
    LABELS,
)
def test_text_and_mapping_say_the_same(pairs, last):
    rule = {**dict(pairs), "else": last}
    text = " else ".join([*(f"{label} if {c}" for c, label in pairs), last])
    assert read_rule(text) == rule
    np.testing.assert_array_equal(
        action_codes(read_rule(text), ACTIONS, FRAME), action_codes(rule, ACTIONS, FRAME)
    )
