"""Shallow trees: the true tree is found, its rule can be followed, and what it loses is worked out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

import bdtr
from bdtr.backward.passes import backward_pass
from bdtr.decisions.trees import _between, shallow_tree

N = 1200


def frame(seed=1):
    """a2 is best for men over 40 and for women in the north; x is noise."""
    rng = np.random.default_rng(seed)
    age, sex = rng.integers(20, 60, N), rng.choice(["f", "m"], N)
    region, x = rng.choice(["east", "north", "south"], N), rng.normal(size=N)
    a1, a2 = rng.integers(0, 2, (2, N))
    good = np.where(sex == "m", age >= 40, region == "north")
    y = 0.5 * a1 + np.where(good, 1.0, -1.0) * a2 + 0.02 * age + rng.normal(size=N)
    return pd.DataFrame(
        {"age": age, "sex": sex, "region": region, "x": x, "a1": a1, "a2": a2, "y": y,
         "old": (age >= 40).astype(int)}
    )  # fmt: skip


def fitted(data, higher_is_better=True):
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="age + sex + region + x + a1"),
        bdtr.Stage("a2", actions=[0, 1], formula="a1 + age + x + sex * (region + old) * a2"),
    ]
    trial = bdtr.Trial(stages, outcome="y", higher_is_better=higher_is_better)
    return bdtr.fit(trial, data, sampler="direct", draws=250, random_seed=1, progress=False)


@pytest.fixture(scope="module")
def fit():
    return fitted(frame())


def test_the_true_tree_is_found(fit):
    found = shallow_tree(fit, "a2", ["age", "sex", "region", "x"], depth=2)
    leaves = {
        (frozenset(c.split(" and ")), a)
        for c, a in found.leaves[["condition", "action"]].to_numpy()
    }
    women, men = "sex == 'f'", "sex != 'f'"
    assert leaves == {
        (frozenset({women, "region == 'north'"}), "1"),
        (frozenset({women, "region != 'north'"}), "0"),
        (frozenset({men, "age < 40"}), "0"),
        (frozenset({men, "age >= 40"}), "1"),
    }
    assert found.leaves["units"].sum() == N
    assert abs(found.table.loc["loses", "mean"]) < 1e-9
    assert found.table.loc["gains", "mean"] == pytest.approx(
        (found.draws["tree"] - found.draws["one_action"]).mean().item()
    )


def test_the_rule_can_be_followed_and_is_worth_what_is_said(fit):
    first = shallow_tree(fit, "a1", ["age", "x"], depth=1)
    second = shallow_tree(fit, "a2", ["age", "sex", "region"], depth=2)
    regime = bdtr.rule("card", a1=first.rule, a2=second.rule)
    assert first.rule == {"else": "1"}
    own = bdtr.value(fit, regime, bdtr.recommended())
    assert own.table.loc["card", "mean"] == pytest.approx(
        own.table.loc["recommended", "mean"], abs=0.02
    )
    acted = pd.Series(second.actions["action"].to_numpy())
    truth = np.where(
        frame()["sex"] == "m", frame()["age"] >= 40, frame()["region"] == "north"
    ).astype(int)
    assert (acted == truth.astype(str)).all()


def test_less_depth_loses_more(fit):
    over = ["age", "sex", "region", "x"]
    loses = [shallow_tree(fit, "a2", over, d).table.loc["loses", "mean"] for d in (1, 2, 3)]
    assert loses[0] > 0.1
    assert loses[0] > loses[1] >= loses[2] - 1e-9
    one = shallow_tree(fit, "a2", over, 1)
    q = backward_pass(fit).q_values(1, np.arange(N))
    got = one.actions["action"].astype(int).to_numpy()
    best = q.mean(axis=2).argmax(axis=0)
    by_hand = (q[best, np.arange(N)] - q[got, np.arange(N)]).mean(axis=0)
    assert np.allclose(one.draws["loses"].to_numpy().ravel(), by_hand)


def test_where_lower_is_better_the_tree_is_the_same(fit):
    down = fitted(frame().assign(y=-frame()["y"]), higher_is_better=False)
    over = ["age", "sex", "region"]
    one, other = (shallow_tree(f, "a2", over, 1) for f in (fit, down))
    assert one.rule == other.rule
    assert other.table.loc["loses", "mean"] == pytest.approx(
        one.table.loc["loses", "mean"], abs=0.02
    )
    assert other.table.loc["tree", "mean"] == pytest.approx(
        -one.table.loc["tree", "mean"], abs=0.02
    )


def test_a_leaf_has_enough_units(fit):
    found = shallow_tree(fit, "a2", ["age", "x"], 3, least=150)
    assert found.leaves["units"].min() >= 150
    assert "63 cuts at quantiles of x" in found.caption


def test_units_that_may_not_have_the_action_of_their_leaf():
    data = frame()
    data["banned"] = (np.arange(N) % 4 == 0).astype(int)
    data.loc[data["banned"] == 1, "a2"] = 0
    stage = bdtr.Stage(
        "a2", actions=[0, 1], formula="banned + sex * (region + old) * a2",
        feasible={"banned == 1": [0], "banned == 0": [0, 1]},
    )  # fmt: skip
    fit = bdtr.fit(
        bdtr.Trial([stage], outcome="y"),
        data,
        sampler="direct",
        draws=250,
        random_seed=1,
        progress=False,
    )
    found = shallow_tree(fit, "a2", ["old", "sex", "region"], 2)
    assert (found.actions["action"][data["banned"] == 1] == "0").all()
    assert (found.actions["action"] == "1").any()


@given(st.floats(-1e6, 1e6), st.floats(1e-9, 1e6))
def test_a_cut_lies_between_the_values_and_is_short(lower, apart):
    upper = lower + apart
    if upper > lower:
        cut = _between(lower, upper)
        assert lower < cut <= upper


def test_short_cuts():
    assert _between(39, 40) == 40
    assert _between(0, 1) == 0.5
    assert _between(1.2345, 1.2399) == 1.237


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"over": ["y"]}, "over=.'y'.: name columns that are known at stage a1: 'age'"),
        ({"over": ["a2"]}, "name columns that are known at stage a1"),
        ({"over": []}, "name columns"),
        (
            {"over": ["age"], "depth": 4},
            "depth=4: must be a whole number, at least 1 and at most 3",
        ),
        ({"over": ["age"], "least": 0}, "least=0"),
    ],
)
def test_wrong_arguments(fit, arguments, message):
    with pytest.raises(ValueError, match=message):
        shallow_tree(fit, "a1", **arguments)
