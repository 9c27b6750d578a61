"""Formulas of other packages: the error says how they are written here, and that is read."""

from __future__ import annotations

import re
import time

import pytest

from bdtr.trial.formula import Formula, FormulaError
from bdtr.trial.formula_dialects import how_here

FOREIGN = {
    "I(x^2)": "A square is I(x**2).",
    "x + x**2": "A square is I(x**2).",
    "(x + z)^2": "(x + z)^2 is x * z.",
    "(x + z) ** 2": "(x + z)^2 is x * z.",
    "factor(g)": "astype('category')",
    "as.factor(g)": "astype('category')",
    "C(g)": "astype('category')",
    "offset(x)": "no offsets",
    "ns(x, 3)": "s(x, by=a)",
    "te(x, z)": "s(x, z)",
    "a/b": "a/b is a + a:b",
    "a %in% b": "x:y",
    "`my col`": "rename",
    "Q('my col')": "rename",
    "my col + x": "must be renamed",
    "my.col + x": "must be renamed",
    "np.log(x)": "log(x)",
    "cut(x, 3)": "in the data",
    "x > 1": "in the data",
    "class + x": "'class' is a word of Python",
    "lambda": "{'lambda': 'lambda_'}",
}


@pytest.mark.parametrize("text", FOREIGN)
def test_the_error_says_how_it_is_written_here(text):
    with pytest.raises(FormulaError, match=re.escape(FOREIGN[text])) as error:
        Formula.parse(text)
    assert "A formula may name" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["I(x**2)", "x * z", "bs(x, df=4)", "a + a:b", "log(x)", "lambda_"]
)
def test_what_is_named_instead_is_read(text):
    Formula.parse(text)


def test_long_texts_are_read_fast():
    for text in (
        "a" * 100_000 + "?",
        " " * 100_000 + "?",
        "a " * 50_000,
        ") " * 50_000,
        "(" * 100_000,
    ):
        start = time.perf_counter()
        how_here(text)
        assert time.perf_counter() - start < 1
