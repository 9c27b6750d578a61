"""Payoffs as arithmetic of columns: the grammar, its errors, and trials that say them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

import bdtr
from bdtr.data.check import check
from bdtr.data.contents import DataError
from bdtr.trial.amount import Amount, AmountError
from bdtr.trial.protocol import protocol_from_text, protocol_to_text

FRAME = pd.DataFrame({"x": [1.0, 2.0, -3.0], "n": [2, 4, 5], "a b": [0.5, np.nan, 1.0]})


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("x", [1, 2, -3]),
        ("x - 0.5 * n", [0, 0, -5.5]),
        ("-x * -2 + 1e1", [12, 14, 4]),
        ("(x + n) / (n - 1)", [3, 2, 0.5]),
        ("x - n - 1", [-2, -3, -9]),
        ("x / n / 2", [0.25, 0.25, -0.3]),
        ("2 * `a b`", [1, np.nan, 2]),
        ("x + 0 * `a b`", [1, np.nan, -3]),
        (".5 - --x", [-0.5, -1.5, 3.5]),
    ],
)
def test_arithmetic(text, right):
    assert np.allclose(Amount(text).evaluate(FRAME), right, equal_nan=True)


SUMS = st.recursive(
    st.sampled_from(["x", "n", "2", "0.5", "`a b`"]),
    lambda part: st.one_of(
        st.tuples(part, st.sampled_from("+-*"), part).map(" ".join),
        part.map(lambda p: f"({p})"),
        part.map(lambda p: f"-{p}"),
    ),
    max_leaves=12,
)


@given(SUMS)
def test_it_is_that_of_python(text):
    """Products before sums, from the left, as Python has it."""
    frame = FRAME.fillna(7.0)
    own = {"x": frame["x"], "n": frame["n"], "q": frame["a b"]}
    right = eval(text.replace("`a b`", "q"), {"__builtins__": {}}, own)
    assert np.allclose(Amount(text).evaluate(frame), right)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text):
    """No other error, and nothing of it is run."""
    try:
        Amount(text)
    except AmountError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "ends too early"),
        ("x +", "ends too early"),
        ("(x", "not closed"),
        ("x y", "one too many"),
        ("* x", "should"),
        ("x ** 2", "should"),
        ("x; y", "cannot be read from"),
        ("x.sum()", "cannot be read from"),
        ("(" * 60 + "x" + ")" * 60, "nested too deeply"),
        ("x + " * 2000 + "x", "longer than"),
    ],
)
def test_what_is_no_arithmetic(text, says):
    with pytest.raises(AmountError, match=says):
        Amount(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x / (n - 2)", "row 1 is divided by 0"),
        ("x + z", "no column 'z'"),
        ("x + g", "holds labels"),
    ],
)
def test_what_does_not_fit_the_data(text, says):
    with pytest.raises(AmountError, match=says):
        Amount(text).evaluate(FRAME.assign(g=list("abc")))


def trial(outcome):
    stage = bdtr.Stage("a", actions=[0, 1], formula="x + a")
    return bdtr.Trial([stage], outcome=outcome)


def data():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"a": rng.integers(0, 2, 60), "x": rng.normal(size=60)})
    return frame.assign(score=frame["a"] + rng.normal(size=60), sessions=rng.integers(0, 9, 60))


def test_a_payoff_of_two_outcomes(tmp_path):
    """The same fit as with the column made beforehand; written, saved and read again."""
    frame, given = data(), {"sampler": "direct", "draws": 100, "random_seed": 1, "progress": False}
    text = "score - 0.1 * sessions / 2"
    fit = bdtr.fit(trial(text), frame, **given)
    made = bdtr.fit(
        trial("net"), frame.assign(net=frame["score"] - 0.1 * frame["sessions"] / 2), **given
    )
    assert np.allclose(bdtr.value(fit).table["mean"], bdtr.value(made).table["mean"])
    fit.save(tmp_path / "fit.nc")
    assert bdtr.load(tmp_path / "fit.nc").trial == fit.trial
    assert protocol_from_text(protocol_to_text(fit.trial)).trial.outcome == text


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        ("score - 0.1 * session", "no column 'session'"),
        ("score * (1", "not closed"),
        ("scores", "which are absent"),
        ("score / sessions", "divided by 0"),
    ],
)
def test_payoffs_that_cannot_be(outcome, says):
    with pytest.raises(DataError, match=says):
        check(trial(outcome), data())


def test_a_missing_part_makes_the_payoff_missing():
    frame = data().astype({"sessions": float})
    frame.loc[3, "sessions"] = np.nan
    assert len(check(trial("score - sessions"), frame, missing="exclude").payoff) == 59
