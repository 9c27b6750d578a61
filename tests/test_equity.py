"""Groups under a plan: means within draws, rates, gaps."""

from __future__ import annotations

import numpy as np
import pytest
from simulate import TwoStage

import bdtr
from bdtr.equity import frontier, groups
from bdtr.planning import Budget, Gap, plan


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
    table, sex = groups(fit, found, "sex"), fit.data.frame["sex"].to_numpy()
    q, units = fit.passed().q_values(0, np.arange(360)), np.arange(360)
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
    table = groups(fit, plan(fit, "a1"), ("sex", "site")).table
    assert len(table) == 24
    assert table.index[0] == "sex f, site s0"
    assert table["units"].sum() == 360


def test_units_without_a_group_are_counted(fit):
    labels = np.where(np.arange(360) < 100, None, "rest")
    found = groups(fit, plan(fit, "a1"), labels)
    assert "100 units without a group left out" in found.caption
    assert found.table.loc["rest", "units"] == 260
    assert len(found.gaps) == 0


def test_the_frontier_trades_value_for_equality(fit):
    few, high = Budget({1: 1}, 0.4), np.where(fit.data.frame["o1"] > 0, "high", "low")
    plans = {f"{b:g}": plan(fit, "a1", few, Gap(high, b, of="benefit")) for b in (0, 0.05, 0.1, 9)}
    found = frontier(fit, plans, high)
    value, apart = found.table[("value", "mean")], found.table[("disparity", "mean")]
    assert (np.diff(value) > -1e-3).all()
    assert (np.diff(apart) > -1e-3).all()
    assert apart.iloc[0] < 0.01
    assert apart.iloc[2] == pytest.approx(0.1, abs=0.01)
    assert found.draws["disparity"].dims == ("chain", "draw", "plan")
    # The same two groups in every draw: doubt alone makes no disparity.
    assert (found.draws["disparity"].sel(plan="0") < 0).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, p: groups(f, p, "sex", reference=5), "reference=5.: the actions of the stage"),
        (lambda f, p: groups(f, p, ("sex", "sex")), "name different columns"),
        (lambda f, p: frontier(f, {"one": p}, "sex", of="rate"), "of='rate'"),
        (lambda f, p: frontier(f, {}, "sex"), "name one plan or more"),
    ],
)
def test_wrong_arguments(fit, call, message):
    with pytest.raises(ValueError, match=message):
        call(fit, plan(fit, "a1"))
