"""The grammar of formulas."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from bdtr.trial.formula import Formula, FormulaError


def test_group_terms_are_split_from_the_common_part():
    formula = Formula.parse("lunch + y_k * a2 + (1 + a2 | school) + (1 | classroom)")
    assert formula.common == "lunch + y_k * a2"
    assert [(g.expression, g.name, g.correlated) for g in formula.groups] == [
        ("1 + a2", "school", True),
        ("1", "classroom", True),
    ]
    assert formula.columns == ("lunch", "y_k", "a2", "school", "classroom")
    assert formula.model_columns == ("lunch", "y_k", "a2")


@pytest.mark.parametrize(
    ("text", "names", "correlated"),
    [
        ("x + (1 + a || school)", ["school"], [False]),
        ("x + (1 | school/class)", ["school", "school:class"], [True, True]),
        ("x + (1 | school:class)", ["school:class"], [True]),
        ("(0 + a | school) + x", ["school"], [True]),
        ("(1 | school)", ["school"], [True]),
    ],
)
def test_kinds_of_group_terms(text, names, correlated):
    groups = Formula.parse(text).groups
    assert [g.name for g in groups] == names
    assert [g.correlated for g in groups] == correlated


@pytest.mark.parametrize(
    ("text", "common"),
    [
        ("x + (z + w) * a", "x + (z + w) * a"),
        ("bs(x, df=4) + a", "bs(x, df=4) + a"),
        ("I(x**2) + log(z) - 1", "I(x ** 2) + log(z) - 1"),
        ("poly(x, degree=2) : a", "poly(x, degree=2) : a"),
        ("(1 | g)", "1"),
    ],
)
def test_common_part(text, common):
    assert Formula.parse(text).common == common


@pytest.mark.parametrize(
    "text",
    [
        "y ~ x",
        "os.system('x')",
        "np.log(x)",
        "__import__('os')",
        "C(x)",
        "x + eval(z)",
        "log(eval(x))",
        "lambda x: x",
        "x[0]",
        "{x}",
        "`a b`",
        "x ** 2",
        "2 * x",
        "x / z",
        "x | z",
        "x + (1 | )",
        "x + (1 | a | b)",
        "x * (1 | g)",
        "x + (1 | g",
        "x + 1)",
        "bs(x, evil=3)",
        "x = 3",
        "(1 | g) + (0 + x | g)",
        "x + 'text'",
        "x.y",
        "__class__",
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(FormulaError):
        Formula.parse(text)


def test_the_message_says_what_is_allowed():
    with pytest.raises(FormulaError, match=r"calls getattr.*transforms bs, poly, log"):
        Formula.parse("x + getattr(x, z)")


@given(st.text(alphabet="xya01 +-*:()|.,='\"[]{}`~_/", max_size=25))
def test_whatever_passes_holds_only_whitelisted_tokens(text):
    try:
        formula = Formula.parse(text)
    except FormulaError:
        return
    assert set(formula.common) <= set("xya01 +-*:()_,=./")
    assert not any(name.startswith("__") for name in formula.columns)
