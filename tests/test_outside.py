"""Units without a decision at a stage: an arm of their own, or carried; never lost in silence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bdtr
from bdtr.data.contents import DataError


def responders(sites=12, per=40, seed=1):
    """Truth: .4 worth .8 each to responders, .4 to others with a2 = 1, a1 worth .2, x worth .3."""
    rng = np.random.default_rng(seed)
    n, site = sites * per, np.repeat(np.arange(sites), per)
    frame = pd.DataFrame({"site": [f"s{j:02d}" for j in site], "x": rng.normal(size=n)})
    frame["a1"] = rng.integers(0, 2, n)
    frame["r"] = (rng.random(n) < 0.4).astype(int)
    a2 = rng.integers(0, 2, n)
    effect = np.where(frame["r"] == 1, 0.8, 0.4 * a2)
    frame["y"] = 0.3 * frame["x"] + 0.2 * frame["a1"] + effect + rng.normal(size=n)
    frame["y"] += 0.3 * rng.normal(size=sites)[site]
    frame["m"] = np.where(frame["r"] == 1, np.nan, rng.normal(size=n))
    frame["a2"] = np.where(frame["r"] == 1, None, a2.astype(str).astype(object))
    return frame


def trial(site="site", **second):
    group = " + (1 | site)" if site else ""
    stages = [
        bdtr.Stage("a1", actions=["0", "1"], formula=f"x + a1{group}"),
        bdtr.Stage("a2", actions=["0", "1"], **{
            "formula": f"x + a1 + a2{group}", "among": "r == 0", **second,
        }),
    ]  # fmt: skip
    return bdtr.Trial(stages, outcome="y", site=site)


def fit(trial, frame, **more):
    return bdtr.fit(
        trial,
        frame,
        sampler="direct",
        draws=100,
        propagated=200,
        random_seed=1,
        progress=False,
        **more,
    )


@pytest.fixture(scope="module")
def with_arm():
    return fit(trial(), responders())


def test_an_arm_where_there_are_sites(with_arm):
    assert with_arm.trial.stages[1].outside == "arm"
    assert with_arm.designs[1].actions == ("0", "1")
    assert with_arm.designs[1].arms == ("0", "1", "no decision")
    assert "x:a2[no decision]" in with_arm.designs[1].terms  # coefficients of its own
    flow = with_arm.flow[with_arm.flow["stage"] == "a2"].set_index("step")["units"]
    assert flow["in the fit"] == 480
    assert flow["of these an arm without a decision (r == 0)"] == (responders()["r"] == 1).sum()
    assert any("an arm of their own" in note for note in with_arm.notes)


def test_values_are_those_of_the_carried_payoffs(with_arm):
    carried = fit(trial(outside="carry"), responders())
    pair = bdtr.static(a1="0", a2="1"), bdtr.static(a1="1", a2="1")
    one, other = (bdtr.value(f, *pair).table for f in (with_arm, carried))
    assert one["mean"].to_numpy() == pytest.approx(other["mean"].to_numpy(), abs=0.05)
    assert (one["cannot_follow"] == 0).all()
    # Closed form at the mean of x: .4 * .8 + .6 * .4, and .2 more.
    assert one["mean"].iloc[1] == pytest.approx(0.76 + 0.3 * responders()["x"].mean(), abs=0.35)


def test_everything_works_with_an_arm(with_arm, tmp_path):
    frame = responders()
    actions = bdtr.recommend(with_arm, frame).actions
    assert (actions["stage"] == "a2").sum() == (frame["r"] == 0).sum()
    assert set(actions["action"].astype(str)) <= {"0", "1"}
    assert len(bdtr.embedded(with_arm)) == 4
    values = bdtr.value(with_arm, by="site")
    assert np.isfinite(values.table["mean"]).all()
    assert set(bdtr.values.site_blips(with_arm, "a2").table.index.get_level_values("action")) == {
        "0",
        "1",
    }
    plan = bdtr.decisions.plan(with_arm, "a2", bdtr.decisions.Budget({"1": 1}, 0.4))
    assert len(plan.codes) == (frame["r"] == 0).sum()
    bdtr.decisions.shallow_tree(with_arm, "a2", over=["x"])
    bdtr.decisions.over_history(with_arm, "a2", ["x"])
    bdtr.checks.covariate_balance(with_arm)
    flow = bdtr.checks.participant_flow(with_arm).table
    assert flow.xs("no decision", level="now")["units"].sum() == (frame["r"] == 1).sum()
    bdtr.checks.attrition(with_arm)
    bdtr.decisions.perfect_information(with_arm)
    bdtr.checks.predictive_checks(with_arm)
    bdtr.checks.tipping_points(with_arm, "a2")
    bdtr.checks.confounded(with_arm, {"a2": {"1": 0.1}}, bdtr.recommended())
    bdtr.values.effect_sizes(with_arm, bdtr.value(with_arm))
    opinion = bdtr.checks.second_opinion(with_arm, bdtr.static(a1="1", a2="1"), groups=5)
    assert not opinion.followers["disagree"].any()
    crossed = bdtr.crossfit(with_arm, over="units", folds=2)
    assert set(crossed.actions["stage"]) == {"a1", "a2"}
    with_arm.save(tmp_path / "fit.nc")
    again = bdtr.load(tmp_path / "fit.nc")
    assert again.trial == with_arm.trial
    pd.testing.assert_frame_equal(bdtr.recommend(again, frame).actions, actions)
    assert bdtr.value(again, bdtr.static(a1="1", a2="1")).table["mean"].iloc[0] == pytest.approx(
        bdtr.value(with_arm, bdtr.static(a1="1", a2="1")).table["mean"].iloc[0], abs=0.02
    )


def test_what_is_not_measured_among_them_has_no_part_in_their_arm():
    found = fit(trial(formula="x + a1 + a2 * m + (1 | site)"), responders())
    assert any("'m' is missing for all units without a decision" in note for note in found.notes)
    flow = found.flow[found.flow["stage"] == "a2"].set_index("step")["units"]
    assert flow["in the fit"] == 480


def test_delivery_clusters_stand_behind_the_arm():
    """Responders have no class at the second stage; they are in the fit all the same."""
    frame = responders()
    classes = [f"{s}-{i % 4}" for i, s in enumerate(frame["site"])]
    frame["class"] = np.where(frame["r"] == 1, None, np.array(classes, dtype=object))
    found = fit(trial(delivered_in="class"), frame)
    assert found.data.stages[1].fitted.sum() == 480
    assert found.trial.stages[1].outside == "arm"


def test_a_missing_payoff_makes_an_arm_and_is_predicted():
    frame = responders().drop(columns="site")
    lost = frame.index[frame["r"] == 1][:3]
    frame.loc[lost, "y"] = np.nan
    assert fit(trial(None), frame.dropna(subset="y")).trial.stages[1].outside == "carry"
    found = fit(trial(None), frame, missing="exclude")
    assert found.trial.stages[1].outside == "arm"
    flow = found.flow[found.flow["stage"] == "a2"].set_index("step")["units"]
    assert (flow["y missing"], flow["in the fit"]) == (3, 477)
    assert found.data.valued[lost].all()


@pytest.mark.parametrize("how", ["error", "exclude"])
def test_a_payoff_without_an_action_names_the_condition(how):
    frame = responders()
    lost = trial(among=None)
    with pytest.raises(DataError, match=r"have a payoff and no action in 'a2'.*say among='r == 0'"):
        fit(lost, frame, missing=how)
    with pytest.raises(DataError, match="say so with among="):
        fit(lost, frame.drop(columns="r"), missing=how)
    words = np.where(frame["r"] == 1, "yes", np.where(frame["x"] > 0, "no", "not yet"))
    with pytest.raises(DataError, match="say among=\"word != 'yes'\""):
        fit(lost, frame.drop(columns="r").assign(word=words), missing=how)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outside": "drop"}, "outside='drop': allowed are 'arm', 'carry'"),
        ({"among": None, "outside": "arm"}, "needs among="),
        ({"residual": "both"}, "residual='both': allowed are 'arm', 'common'"),
        ({"site_terms": ["sizes"]}, "allowed are 'size' and 'share'"),
    ],
)
def test_wrong_choices(changes, message):
    with pytest.raises(bdtr.TrialError, match=message):
        trial(**changes)


def test_errors_of_site_contrasts_are_posterior_sds():
    """Blips of a1 N(.2, .3^2) at 20 sites of 30, the later rule the same: over twelve data sets errors of
    240 posterior means have a root mean square of one posterior SD (Monte-Carlo error .05)."""
    scaled = []
    for seed in range(12):
        frame = responders(20, 30, seed)
        u = 0.3 * np.random.default_rng([seed, 1]).normal(size=20)
        frame["y"] += np.repeat(u, 30) * frame["a1"]
        first = "x + a1 + (1 + a1 | site)"
        later = "x + a1 + a2 + (1 + a1 | site)"
        stages = [
            bdtr.Stage("a1", actions=["0", "1"], formula=first),
            bdtr.Stage("a2", actions=["0", "1"], formula=later, among="r == 0"),
        ]
        found = fit(bdtr.Trial(stages, outcome="y", site="site"), frame)
        pair = [bdtr.rule(f"a1 = {a}", a1=a, a2="0") for a in "01"]
        draws = bdtr.value(found, *pair, by="site").draws["value"].sortby("site")
        apart = draws.isel(regime=1) - draws.isel(regime=0)
        off = apart.mean(("chain", "draw")) - (0.2 + u)
        scaled.append((off / apart.std(("chain", "draw"))).to_numpy())
    assert 0.8 < np.sqrt(np.mean(np.square(scaled))) < 1.13


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (
            lambda d: (d["r"] == 1) & (d["a1"] == 1),
            "without a decision with '1' in a1 is in the fit",
        ),
        (lambda d: d["r"] == 1, "without a decision is in the fit"),
    ],
)
def test_a_group_without_any_payoff_is_refused(lost, said):
    """The value of those who respond to a1 = 1 would come from those who respond to a1 = 0."""
    frame = responders().drop(columns="site")
    frame.loc[lost(frame), "y"] = np.nan
    found = fit(trial(None), frame, missing="exclude")
    assert found.state.level == "refused"
    assert said in str(found.state) and "fit.flow" in str(found.state)


def test_a_group_of_a_few_without_a_payoff_is_a_caution():
    frame = responders().drop(columns="site")
    group = frame.index[(frame["r"] == 1) & (frame["a1"] == 1)]
    frame = frame.drop(index=group[2:])
    frame.loc[group[:2], "y"] = np.nan
    found = fit(trial(None), frame, missing="exclude")
    assert "none of the 2 units without a decision with '1' in a1" in str(found.state)
    assert found.state.sampling == "caution"


def test_a_group_with_some_payoffs_passes():
    frame = responders().drop(columns="site")
    group = frame.index[(frame["r"] == 1) & (frame["a1"] == 1)]
    frame.loc[group[::2], "y"] = np.nan
    found = fit(trial(None), frame, missing="exclude")
    assert "is in the fit" not in str(found.state)


def test_every_group_without_a_payoff_is_named():
    frame = responders().drop(columns="site")
    frame.loc[(frame["r"] == 1) | (frame["a1"] == 1), "y"] = np.nan
    found = fit(trial(None), frame, missing="exclude")
    assert found.state.level == "refused"
    for said in (
        "without a decision is in the fit",
        "with a decision with '1' in a1 is in the fit",
    ):
        assert said in str(found.state)
