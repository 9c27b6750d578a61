"""Regression and g-computation side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bdtr

STAGES = [
    bdtr.Stage("a1", actions=[0, 1], formula="x * a1", shape="linear"),
    bdtr.Stage("a2", actions=[0, 1], formula="a1 + m * a2"),
]
QUICK = {"sampler": "direct", "draws": 100, "propagated": 200, "random_seed": 1, "progress": False}


@pytest.fixture(scope="module")
def bent():
    """V = |m|, which straight lines miss."""
    rng = np.random.default_rng(2)
    x, a1, a2 = rng.normal(size=400), *rng.integers(0, 2, (2, 400))
    m = 1.5 * x * a1 + 0.6 * rng.normal(size=400)
    y = (2 * a2 - 1) * m + 0.45 * (a1 == 0) + rng.normal(size=400)
    return pd.DataFrame(
        {"id": [f"p{i}" for i in range(400)], "x": x, "a1": a1, "m": m, "a2": a2, "y": y}
    )


def test_the_same_from_either_side(bent):
    states = {"m": "x * a1"}
    regressed = bdtr.fit(bdtr.Trial(STAGES, outcome="y", unit="id"), bent, **QUICK)
    plain = [bdtr.Stage("a1", actions=[0, 1], formula="x * a1"), STAGES[1]]
    computed = bdtr.fit(bdtr.Trial(plain, outcome="y", unit="id", states=states), bent, **QUICK)
    regimes = [bdtr.recommended(), bdtr.static(a1=1, a2=1)]
    one = bdtr.compare_ways(regressed, *regimes, states=states)
    other = bdtr.compare_ways(computed, *regimes)
    # From the other side the regression has its smooth terms again, and the two agree.
    assert other.table.loc["a1", "same"] > 0.9
    by_computation = [one.values.xs("g-computation", level="way")["mean"] for one in (one, other)]
    assert list(by_computation[0]) == pytest.approx(list(by_computation[1]))
    row = one.table.loc["a1"]
    # Straight lines are sure of the wrong action for half of the units.
    assert row["units"] == 400 and row["same"] < 0.7 and row["opposed"] > 0.2
    assert row["apart"] > 3 * row["sd"]
    assert list(one.values.index) == [
        ("recommended", "regression"), ("recommended", "g-computation"),
        ("1, 1", "regression"), ("1, 1", "g-computation"),
    ]  # fmt: skip
    assert one.units["unit"].iloc[0] == "p0" and len(one.units) == 400
    mean = bdtr.value(computed, bdtr.static(a1=1, a2=1)).table["mean"].iloc[0]
    assert one.values.loc[("1, 1", "g-computation"), "mean"] == pytest.approx(mean)
    assert "Regression on values" in one.caption and "<table" in one._repr_html_()
    with pytest.raises(ValueError, match="the fit has models of states"):
        bdtr.compare_ways(computed, states=states)
    with pytest.raises(ValueError, match=r"give models of states, states={..}"):
        bdtr.compare_ways(regressed)
