"""Bounds of arithmetic: they hold for every value, and are those that can be read off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from bdtr.trial.amount import Amount

INF = np.inf


@pytest.mark.parametrize(
    ("text", "ends", "right"),
    [
        ("-max(y - 3, 0)", (0, INF), (-INF, 0)),
        ("min(y, 100)", (-INF, INF), (-INF, 100)),
        ("min(max(y - 2, 0), 5) * 2 - 1", (0, INF), (-1, 9)),
        ("abs(y - 5)", (0, 10), (0, 5)),
        ("exp(-y)", (0, INF), (0, 1)),
        ("log(y)", (0, INF), (-INF, INF)),
        ("1 / y", (0, INF), (0, INF)),
        ("1 / (y - 1)", (0, 2), (-INF, INF)),
        ("1 / y", (-4, -2), (-0.5, -0.25)),
        ("sqrt(y)", (4, 9), (2, 3)),
        ("3 - 0 * y", (0, INF), (3, 3)),
    ],
)
def test_bounds(text, ends, right):
    assert Amount(text).bounds(*ends) == pytest.approx(right)


PARTS = st.recursive(
    st.sampled_from(["y", "2", "0.5", "3"]),
    lambda part: st.one_of(
        st.tuples(part, st.sampled_from("+-*/"), part).map(lambda p: f"({' '.join(p)})"),
        st.tuples(st.sampled_from(["min", "max"]), part, part).map(
            lambda p: f"{p[0]}({p[1]}, {p[2]})"
        ),
        st.tuples(st.sampled_from(["abs", "exp"]), part).map(lambda p: f"{p[0]}({p[1]})"),
        part.map(lambda p: f"-{p}"),
    ),
    max_leaves=8,
)


@given(PARTS, st.floats(-5, 5), st.floats(0, 5))
def test_no_value_is_beyond_its_bounds(text, low, width):
    amount = Amount(text)
    least, most = amount.bounds(low, low + width)
    found = amount.of(np.linspace(low, low + width, 41))
    found = found[np.isfinite(found)]
    slack = 1e-9 * (1.0 + np.abs(found))
    assert (found >= least - slack).all() and (found <= most + slack).all()
