"""Groups under a plan: means within draws, rates, gaps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulate import TwoStage

import bdtr
from bdtr.backward.passes import backward_pass
from bdtr.decisions.equity import equity_by_group, equity_frontier
from bdtr.decisions.limits import Budget, Gap
from bdtr.decisions.plans import plan


@pytest.fixture(scope="module")
def fit():
    frame = TwoStage(sites=12, per_site=30).draw(5)
    frame["sex"] = np.where(np.arange(360) % 3 == 0, "f", "m")
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="sex + o1 * a1 + (1 + a1 | site)"),
        bdtr.Stage("a2", actions=[0, 1], formula="o1 + a1 + m * a2 + (1 + a2 | site)"),
    ]
    trial = bdtr.Trial(stages, outcome="y", site="site")
    return bdtr.fit(trial, frame, sampler="direct", draws=250, random_seed=1, progress=False)


def test_groups_are_means_within_draws(fit):
    found = plan(fit, "a1", Budget({1: 1}, 0.4))
    table, sex = equity_by_group(fit, found, "sex"), fit.data.frame["sex"].to_numpy()
    q, units = backward_pass(fit).q_values(0, np.arange(360)), np.arange(360)
    for label in ("f", "m"):
        mine = sex == label
        value = q[found.codes, units][mine].mean(axis=0)
        benefit = value - q[0][mine].mean(axis=0)
        row = table.table.loc[label]
        assert np.allclose(table.draws["value"].sel(group=label).to_numpy().ravel(), value)
        assert row["benefit"] == pytest.approx(benefit.mean())
        assert row["benefit_lower"] == pytest.approx(np.quantile(benefit, 0.025))
        assert row["share 1"] == pytest.approx(found.codes[mine].mean())
        assert row["units"] == mine.sum()
    assert table.table["p_least_benefit"].sum() == pytest.approx(1)
    apart = (
        table.draws["benefit"].sel(group="m") - table.draws["benefit"].sel(group="f")
    ).to_numpy()
    gap = table.gaps.loc[("benefit", "m minus f")]
    assert gap["sd"] == pytest.approx(apart.std(ddof=1))
    assert gap["p_better"] == pytest.approx((apart > 0).mean())


def test_groups_are_crossed(fit):
    table = equity_by_group(fit, plan(fit, "a1"), ("sex", "site")).table
    assert len(table) == 24
    assert table.index[0] == "sex f, site s0"
    assert table["units"].sum() == 360


def test_prices_are_those_of_the_plan(fit):
    """Values of groups, weighted by their units, are the plan's value, net of own and later prices."""
    prices = {"a1": {1: 0.1}, "a2": {1: 0.2}}
    found = plan(fit, "a1", prices=prices)
    table = equity_by_group(fit, found, "sex").table
    mean = np.average(table["value"], weights=table["units"])
    assert mean == pytest.approx(found.table.loc["value", "mean"])


def test_without_an_action_for_all_there_is_no_benefit():
    rng = np.random.default_rng(3)
    x = rng.integers(0, 2, 300)
    a = np.where(x == 1, rng.choice(["keep", "stop"], 300), rng.choice(["wait", "more"], 300))
    frame = pd.DataFrame({"x": x, "a": a, "y": rng.normal(size=300)})
    stage = bdtr.Stage(
        "a", actions=["wait", "more", "keep", "stop"], formula="a",
        feasible={"x == 0": ["wait", "more"], "x == 1": ["keep", "stop"]},
    )  # fmt: skip
    own = bdtr.fit(
        bdtr.Trial([stage], outcome="y"),
        frame,
        sampler="direct",
        draws=250,
        random_seed=1,
        progress=False,
    )
    found = equity_by_group(own, plan(own, "a", Budget({"more": 1}, 0.1)), "x")
    assert "benefit" not in found.draws
    assert "no action is open to all" in found.caption
    with pytest.raises(ValueError, match="not feasible for"):
        equity_by_group(own, plan(own, "a"), "x", reference="keep")
    # One unit can change a gap by what it can choose: half the arms of a group, not the other group's.
    near = plan(own, "a", Gap("x", 0.3, of="value"))
    assert near.limits["used"].iloc[0] <= 0.3 + 0.02


def test_units_without_a_group_are_counted(fit):
    labels = np.where(np.arange(360) < 100, None, "rest")
    found = equity_by_group(fit, plan(fit, "a1"), labels)
    assert "100 units without a group left out" in found.caption
    assert found.table.loc["rest", "units"] == 260
    assert len(found.gaps) == 0


def test_the_frontier_trades_value_for_equality(fit):
    few, high = Budget({1: 1}, 0.4), np.where(fit.data.frame["o1"] > 0, "high", "low")
    plans = {f"{b:g}": plan(fit, "a1", few, Gap(high, b, of="benefit")) for b in (0, 0.05, 0.1, 9)}
    found = equity_frontier(fit, plans, high)
    value, apart = found.table[("value", "mean")], found.table[("disparity", "mean")]
    assert (np.diff(value) > -1e-3).all()
    assert (np.diff(apart) > -1e-3).all()
    assert apart.iloc[0] < 0.01
    assert apart.iloc[1] == pytest.approx(0.05, abs=0.01)  # without a bound it is .06 to .13
    assert found.draws["disparity"].dims == ("chain", "draw", "plan")
    # The same two groups in every draw: doubt alone makes no disparity.
    assert (found.draws["disparity"].sel(plan="0") < 0).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda f, p: equity_by_group(f, p, "sex", reference=5),
            "reference=5.: the actions of the stage",
        ),
        (lambda f, p: equity_by_group(f, p, ("sex", "sex")), "name different columns"),
        (lambda f, p: equity_frontier(f, {"one": p}, "sex", of="rate"), "of='rate'"),
        (lambda f, p: equity_frontier(f, {}, "sex"), "name one plan or more"),
    ],
)
def test_wrong_arguments(fit, call, message):
    with pytest.raises(ValueError, match=message):
        call(fit, plan(fit, "a1"))
