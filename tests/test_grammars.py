"""Whatever is written, the grammars answer within a second: with what it means, or with an error of their own."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, example, given, settings, strategies as st

from bdtr.data.modelmatrix import Columns, terms_of
from bdtr.results.errors import BdtrError
from bdtr.trial.condition import Condition
from bdtr.trial.formula import Formula, names_in
from bdtr.trial.rules import action_codes, read_rule, rule_text

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame({name: RNG.normal(size=30) + 2 for name in "xyz"})
FRAME["a"] = pd.Categorical(RNG.integers(0, 2, 30).astype(str))
FRAME["g"] = pd.Categorical(RNG.choice(["b:c", "b]:z", "T.x"], 30))

FORMULA = [
    *"xyzag", *"xyzag", *"01", "2", "3.5", "1e300", *"+-*:", *"+-*:", "(", ")", "(", ")", "|", "||", "/", "**", ",",
    "=", "~", "bs(x, df=4)", "bs(", "poly(x, 2)", "log(", "I(", "scale(x)", "I(x**2)", "exp(", "df=", "degree=",
    "True", "(1 | g)", "(x || g)", "(0 + a | g)", "(1 | g/a)", "9**9", "lambda", "__import__", ".", "[", "'", "ﬁ",
]  # fmt: skip
CONDITION = [
    *"xyzag", *"xyzag", "0", "1", "-1.5", "1e999", "'b:c'", '"0"', "True", "==", "!=", "<", "<=", ">", ">=", "and",
    "or", "not", "in", "[", "]", ",", "(", ")", "(", ")", "x > 1", "g == 'b:c'", "a in [0, 1]", "=", "&", ".", "f(",
]  # fmt: skip
RULE = [
    *CONDITION,
    "if",
    "else",
    "if",
    "else",
    "0",
    "1",
    "'if'",
    "small class",
    "0 if x > 1 else",
    "(1 if",
]

much = settings(max_examples=7000, deadline=1000, suppress_health_check=list(HealthCheck))


def texts(words):
    joined = st.lists(st.sampled_from(words), max_size=14)
    return joined.map(" ".join) | joined.map("".join) | st.text(max_size=30)


def own(run):
    """What this returns, or None with an error of bdtr's own in one line."""
    try:
        return run()
    except BdtrError as error:
        said = str(error)
        assert said and "\n" not in said and "\x1b" not in said
        return None


@much
@given(texts(FORMULA))
@example("+".join(["x"] * 4000))
@example("I(" + "+".join(["x"] * 4000) + ")")
@example("I(" + "**".join(["x"] * 4000) + ")")
@example("I(" + "-" * 19000 + "x)")
@example(":".join(["x"] * 4000))
@example("(" * 9000 + "x" + ")" * 9000)
@example("*".join("xyzag" * 800))
@example("(1 | g) + " * 1500 + "x")
def test_formulas(text):
    found = own(lambda: Formula.parse(text))
    if found is None:
        return
    columns = own(lambda: Columns(found.common, {}, FRAME))
    terms = {f for term in terms_of(found.common) for f in term}
    terms |= {f for g in found.groups for term in terms_of(g.expression) for f in term}
    # formulaic makes of it what we do: the same columns, transforms apart.
    assert {n for f in terms for n in names_in(f)} & set(FRAME) == set(found.model_columns) & set(
        FRAME
    )
    if columns is not None:
        assert own(lambda: columns.matrix(FRAME)) is None or len(columns.names) == len(
            set(columns.names)
        )
        assert all("".join(p).replace("`", "") for p in columns.parts if p)
    again = own(lambda: Formula.parse(found.common))
    assert again is not None and again.common == found.common and not again.groups


@much
@given(texts(CONDITION))
@example("not " * 5000 + "x == 1")
@example("(" * 5000 + "x == 1" + ")" * 5000)
@example("x == 1 and " * 2000 + "x == 1")
@example("x in [" + "1, " * 5000 + "1]")
def test_conditions(text):
    found = own(lambda: Condition(text))
    if found is None:
        return
    truth = own(lambda: found.evaluate(FRAME))
    if truth is not None:
        assert truth.shape == (30,) and set(truth.tolist()) <= {-1, 0, 1}
        opposite = own(lambda: Condition(f"not ({text})").evaluate(FRAME))
        assert opposite is None or (np.where(truth < 0, -1, 1 - truth) == opposite).all()


@much
@given(texts(RULE))
@example("(" * 20000 + "a" + ")" * 20000)
@example("a if x == 1 else " * 3000 + "b")
@example("a if x == 1 else (" * 3000 + "b" + ")" * 3000)
def test_rules(text):
    found = own(lambda: read_rule(text))
    if found is None:
        return
    assert read_rule(rule_text(found)) == found
    own(lambda: action_codes(found, ("0", "1"), FRAME))
