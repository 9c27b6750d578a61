"""Plans within limits: the right units are chosen, and what limits cost is worked out within draws."""

from __future__ import annotations

import numpy as np
import pytest
from simulate import TwoStage

import bdtr
from bdtr.backward.passes import backward_pass
from bdtr.decisions.allocation import AllocationError
from bdtr.decisions.limits import Budget, Floor, Gap
from bdtr.decisions.plans import plan
from bdtr.decisions.risk import WorstMean


@pytest.fixture(scope="module")
def fit():
    frame = TwoStage(sites=12, per_site=30).draw(5)
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="o1 * a1 + (1 + a1 | site)"),
        bdtr.Stage("a2", actions=[0, 1], formula="o1 + a1 + m * a2 + (1 + a2 | site)"),
    ]
    trial = bdtr.Trial(stages, outcome="y", site="site")
    return bdtr.fit(trial, frame, sampler="direct", draws=250, random_seed=1, progress=False)


@pytest.fixture(scope="module")
def q(fit):
    """Q-values of stage 1 (action, unit, sample)."""
    return backward_pass(fit).q_values(0, np.arange(360))


def test_without_limits_a_plan_is_what_is_recommended(fit, q):
    found = plan(fit, "a1")
    recommended = bdtr.recommend(fit, fit.data.frame).actions.query("stage == 'a1'")
    assert (found.actions["action"].to_numpy() == recommended["action"].to_numpy()).all()
    best = q.mean(axis=2).argmax(axis=0)
    expected = np.where(best[:, None] == 1, q[1], q[0]).mean(axis=0)
    assert np.allclose(found.draws["value"].to_numpy().ravel(), expected)
    assert len(found.limits) == 0


def test_limits_that_allow_everything_change_nothing(fit):
    limits = [
        Budget({1: 1}, 1.0),
        Gap("site", np.inf),
        Gap("site", 1.0, of="rate", action=1),
        Floor("site", "s3", -1e6),
    ]
    free, found = plan(fit, "a1"), plan(fit, "a1", *limits)
    assert (free.codes == found.codes).all()
    assert np.allclose(found.draws["cost_of_limits"], 0)
    assert np.allclose(found.limits[["multiplier", "price_mean"]], 0)


def test_a_budget_goes_to_those_who_gain_most(fit, q):
    found = plan(fit, "a1", Budget({1: 1}, 0.25))
    gain = (q[1] - q[0]).mean(axis=1)
    assert found.shares.loc["plan", "1"] == 0.25
    assert set(np.flatnonzero(found.codes)) == set(np.argsort(-gain)[:90])
    row = found.limits.iloc[0]
    assert row["used"] == pytest.approx(0.25)
    order = np.sort(gain)[::-1]
    assert order[90] - 1e-6 <= row["multiplier"] <= order[89] + 1e-6


def test_what_limits_cost_is_a_mean_within_draws(fit, q):
    found = plan(fit, "a1", Budget({1: 1}, 0.25))
    units = np.arange(360)
    free = q.mean(axis=2).argmax(axis=0)
    cost = (q[free, units] - q[found.codes, units]).mean(axis=0)
    assert np.allclose(found.draws["cost_of_limits"].to_numpy().ravel(), cost)
    assert found.table.loc["cost_of_limits", "sd"] == pytest.approx(cost.std(ddof=1))
    assert found.actions["loss"].mean() == pytest.approx(cost.mean())
    assert found.actions["loss"].min() >= -1e-12


def test_the_shadow_price_is_the_gain_of_those_at_the_margin(fit, q):
    found = plan(fit, "a1", Budget({1: 1}, 0.25))
    order = np.argsort(-(q[1] - q[0]).mean(axis=1))
    window = (q[1] - q[0])[order[90:94]]  # 1 % more: 3.6 units
    expected = np.array([1, 1, 1, 0.6]) @ window / 3.6
    price = found.draws["shadow_price"].isel(limit=0).to_numpy().ravel()
    assert price.mean() == pytest.approx(found.limits["multiplier"].iloc[0], rel=0.1)
    assert np.allclose(price, expected, atol=1e-6)


def test_each_site_keeps_to_its_own_budget(fit, q):
    found = plan(fit, "a1", Budget({1: 1}, 0.2, by="site"))
    gain, site = (q[1] - q[0]).mean(axis=1), fit.data.frame["site"].to_numpy()
    for own in np.unique(site):
        mine = np.flatnonzero(site == own)
        wanted = [i for i in mine[np.argsort(-gain[mine])[:6]] if gain[i] > 0]
        assert set(mine[found.codes[mine] == 1]) == set(wanted)


def test_gaps_and_floors_hold_at_posterior_means(fit, q):
    mean, units = q.mean(axis=2), np.arange(360)
    high = np.where(fit.data.frame["o1"] > 0, "high", "low")
    few = Budget({1: 1}, 0.3)

    def worth(found, group):
        own = mean[found.codes, units]
        return own[high == group].mean()

    def benefit(found, group):
        return worth(found, group) - mean[0, high == group].mean()

    free = plan(fit, "a1", few)
    apart = benefit(free, "high") - benefit(free, "low")
    assert abs(apart) > 0.05  # else the bounds below say nothing
    near = plan(fit, "a1", few, Gap(high, 0.02, of="benefit"))
    assert abs(benefit(near, "high") - benefit(near, "low")) < 0.02 + 0.01  # one unit's worth
    assert near.table.loc["value", "mean"] < free.table.loc["value", "mean"]
    behind, ahead = ("low", "high") if apart > 0 else ("high", "low")
    loose = plan(fit, "a1", few, Gap(high, 0.0, of="benefit", against=ahead))
    assert (loose.codes == free.codes).all()
    tight = plan(fit, "a1", few, Gap(high, 0.0, of="benefit", against=behind))
    assert benefit(tight, behind) > benefit(tight, ahead) - 0.01
    rates = plan(fit, "a1", few, Gap(high, 0.01, of="rate", action=1))
    share = [rates.codes[high == g].mean() for g in ("high", "low")]
    assert abs(share[0] - share[1]) < 0.01 + 0.01
    least = worth(free, behind) + 0.03
    kept = plan(fit, "a1", few, Floor(high, behind, least))
    assert worth(kept, behind) > least - 0.01
    assert kept.limits["used"].iloc[1] == pytest.approx(worth(kept, behind))


def test_what_cannot_be_kept_is_said_with_how_far_it_is_off(fit):
    with pytest.raises(
        AllocationError, match=r"mean cost \(1 1, 0 0\.2\) .* loosened by 0\.1 at least"
    ):
        plan(fit, "a1", Budget({1: 1, 0: 0.2}, 0.1))
    with pytest.raises(AllocationError, match="each can be kept alone, but not all together"):
        plan(fit, "a1", Budget({1: 1}, 0.05), Floor("site", "s1", "1"))


def test_prices_are_weighed_against_payoffs(fit, q):
    found = plan(fit, "a1", prices={"a1": {1: 0.4}})
    gain = (q[1] - q[0]).mean(axis=1)
    assert (found.codes == (gain > 0.4)).all()
    paid = 0.4 * found.codes.mean()
    assert found.shares.loc["plan", "price"] == pytest.approx(paid)
    units = np.arange(360)
    gross = q[found.codes, units].mean()
    assert found.table.loc["value", "mean"] == pytest.approx(gross - paid)
    assert "net of prices (a1: 1 0.4)" in found.caption


def test_prices_of_later_stages_change_what_follows(fit):
    """A price that all pay shifts values by itself; one that nobody would pay rules an action out."""
    free = plan(fit, "a1").table.loc["value", "mean"]
    shifted = plan(fit, "a1", prices={"a2": {0: 0.3, 1: 0.3}}).table.loc["value", "mean"]
    assert shifted == pytest.approx(free - 0.3, abs=0.02)
    without = plan(fit, "a1", prices={"a2": {1: 100}})
    regimes = [bdtr.static(a1=a, a2=0) for a in (0, 1)]
    one, other = bdtr.value(fit, *regimes, by="site").draws["value"].transpose("regime", ...)
    best = np.maximum(one.mean(("chain", "draw")), other.mean(("chain", "draw"))).mean()
    # A rule that also knows o1 gains a little more than the best action of each site.
    assert best - 0.02 < without.table.loc["value", "mean"] < best + 0.1


def test_where_lower_is_better_a_plan_is_the_mirror_image(fit, q):
    frame = fit.data.frame.assign(y=-fit.data.outcome)
    trial = bdtr.Trial(fit.trial.stages, outcome="y", site="site", higher_is_better=False)
    down = bdtr.fit(trial, frame, sampler="direct", draws=250, random_seed=1, progress=False)
    few, fair = Budget({1: 1}, 0.3), Gap("site", 0.2, of="benefit")
    for limits, utility in (([few], None), ([few], WorstMean(0.2)), ([few, fair], None)):
        one, other = (plan(f, "a1", *limits, utility=utility) for f in (fit, down))
        # Other random numbers: units whose action hardly matters may have another.
        assert (one.codes == other.codes).mean() > 0.8
        worth = [q[p.codes, np.arange(360)].mean() for p in (one, other)]
        assert worth[0] == pytest.approx(worth[1], abs=0.01)
        apart = one.table["mean"] * [-1, -1, 1] - other.table["mean"]
        assert (apart.abs() < 0.02).all()


def test_a_plan_shows_its_limits(fit):
    found = plan(fit, "a1", Budget({1: 1}, 0.25, by="site"), utility=WorstMean(0.1))
    for words in (
        "mean cost (1 1) at most 0.25 by site",
        "mean of the worst 10 % of draws",
        "360 units",
    ):
        assert words in repr(found)
    assert "<table" in found._repr_html_()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: plan(f, "a9"), "stage='a9': allowed are 'a1', 'a2'"),
        (lambda f: plan(f, "a1", Budget({"small": 1}, 1)), "Budget.costs='small'.: the actions of"),
        (lambda f: plan(f, "a1", Gap("o9", 1)), "by='o9'"),
        (lambda f: plan(f, "a1", Gap("site", 1, against="s99")), "against='s99'.: the groups are"),
        (lambda f: Gap("site", -1), "bound=-1"),
        (lambda f: Gap("site", 1, of="rate"), "name an action with of='rate'"),
        (lambda f: plan(f, "a2", prices={"a1": {1: 1}}), "'a1' comes before 'a2'"),
    ],
)
def test_wrong_arguments(fit, call, message):
    with pytest.raises(ValueError, match=message):
        call(fit)
