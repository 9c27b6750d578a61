"""Cross-fitted values: nothing learned is valued on the units it was learned from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulate import TwoStage

import bdtr
from bdtr.data.modelmatrix import DesignError
from bdtr.data.stagecolumns import stage_design
from bdtr.values.crossfitting import _with_blips


def null_trial(units=200, seed=1, effect=0.0):
    """One decision; the payoff depends on it by ``effect`` and on nothing else."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": rng.choice(list("vwxyz"), units), "a": rng.integers(0, 2, units)})
    frame["y"] = effect * frame["a"] + rng.normal(size=units)
    trial = bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula="x * a")], outcome="y")
    return trial, frame


def fitted(trial, frame, few=False, **settings):
    return bdtr.fit(
        trial,
        frame,
        sampler="direct",
        draws=20 if few else 100,
        propagated=40 if few else 200,
        random_seed=2,
        progress=False,
        **settings,
    )


def test_a_fold_has_no_part_in_its_own_rule():
    """Whatever happens to the payoffs of one fold, its units are recommended the same."""
    trial, frame = null_trial(seed=3)
    one = bdtr.crossfit(fitted(trial, frame)).actions
    first = one[one["fold"] == 1]
    assert first["action"].nunique() == 2
    mine = frame.index.isin(first["unit"].astype(int))
    changed = frame.assign(y=np.where(mine, -5 * frame["y"] + 20 * frame["a"], frame["y"]))
    other = bdtr.crossfit(fitted(trial, changed)).actions
    pd.testing.assert_frame_equal(first, other[other["fold"] == 1])
    assert not one.equals(other)


def test_where_nothing_has_an_effect_the_sample_promises_one():
    """Ten cells of noise, true value 0: over 20 trials the mean in the sample lies far above it."""
    found = [
        bdtr.crossfit(fitted(*null_trial(seed=s))).table["mean"].xs("units") for s in range(20)
    ]
    table = pd.concat(found, axis=1).T
    # SDs of the two means over trials are .07 and .11.
    assert table["in the sample"].mean() > 0.08
    assert abs(table["cross-fitted"].mean()) < 3 * table["cross-fitted"].std() / np.sqrt(20)
    assert np.allclose(table["difference"], table["in the sample"] - table["cross-fitted"])


def test_a_clear_rule_keeps_its_value():
    """With an effect of 2 SDs every fold learns the same rule: the fold means are means of its arm."""
    trial, frame = null_trial(units=400, effect=2.0)
    trial = bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula="a")], outcome="y")
    result = bdtr.crossfit(fitted(trial, frame), folds=4)
    assert set(result.actions["action"]) == {"1"}
    fold = result.actions.sort_values("unit", key=lambda u: u.astype(int))["fold"].to_numpy()
    treated = frame["a"] == 1
    expected = np.mean([frame["y"][treated & (fold == f)].mean() for f in range(1, 5)])
    row = result.table.loc[("units", "cross-fitted")]
    assert row["mean"] == pytest.approx(expected, abs=0.03)
    assert row["sd"] == pytest.approx(1 / np.sqrt(200), rel=0.2)


@pytest.fixture(scope="module")
def two_stage():
    return fitted(TwoStage.trial(), TwoStage(sites=12, per_site=20).draw(4))


def test_folds_are_whole_sites_or_units_within_sites(two_stage):
    result = bdtr.crossfit(two_stage)
    site = two_stage.data.frame["site"].to_numpy()
    for over, own in result.actions[result.actions["stage"] == "a1"].groupby("over"):
        table = pd.crosstab(site[own["unit"].astype(int)], own["fold"])
        assert table.to_numpy().sum() == 240
        if over == "sites":
            assert ((table > 0).sum(axis=1) == 1).all()
            assert (table > 0).sum().tolist() == [4, 4, 4]
        else:
            assert (table == 4).all(axis=None)
    assert list(result.table.index) == [
        (over, what)
        for over in ("sites", "units")
        for what in ("in the sample", "cross-fitted", "difference")
    ]
    assert result.draws["value"].dims == ("chain", "draw", "over")
    for words in ("sites: 3, units: 5", "population: sample", "95 % equal-tailed"):
        assert words in result.caption
    assert "its optimism and what" in result._repr_html_()


def test_over_sites_the_rule_is_untailored(two_stage):
    """The same history has the same recommendation at every site of a fold."""
    result = bdtr.crossfit(two_stage, over="sites")
    second = result.actions[result.actions["stage"] == "a2"]
    assert (
        second.groupby("fold")["action"].nunique() == 1
    ).all()  # the model has no tailoring variable
    inside = result.table.loc[("sites", "in the sample"), "mean"]
    untailored = bdtr.value(two_stage, bdtr.recommended(tailored=False)).table["mean"].iloc[0]
    assert inside == pytest.approx(untailored)


def test_the_same_seed_gives_the_same_result(two_stage):
    one, other = (bdtr.crossfit(two_stage, over="units", random_seed=5).table for _ in range(2))
    pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"over": "schools"}, "over='schools': allowed are 'sites', 'units'"),
        ({"folds": 1}, r"folds=1: must be at least 2 and at most half the number of sites \(12\)"),
        ({"folds": 7, "over": "sites"}, "folds=7: .* With over='units'"),
    ],
)
def test_wrong_arguments(two_stage, arguments, message):
    with pytest.raises(ValueError, match=message):
        bdtr.crossfit(two_stage, **arguments)


def test_without_sites_there_are_no_folds_of_them():
    with pytest.raises(ValueError, match="the trial names no site column"):
        bdtr.crossfit(fitted(*null_trial()), over="sites")


def test_with_few_sites_folds_are_of_units_and_the_caption_says_so():
    result = bdtr.crossfit(fitted(TwoStage.trial(), TwoStage(sites=3, per_site=40).draw(4)))
    assert set(result.table.index.get_level_values("over")) == {"units"}
    assert "Not over sites: 3 are too few for 2 folds." in result.caption


def test_lower_is_better_is_the_mirror_image():
    trial, frame = null_trial(units=400, effect=1.0)
    down = bdtr.Trial(trial.stages, outcome="y", higher_is_better=False)
    one = bdtr.crossfit(fitted(trial, frame))
    other = bdtr.crossfit(fitted(down, frame.assign(y=-frame["y"])))
    same = one.actions["action"].to_numpy() == other.actions["action"].to_numpy()
    assert same.mean() > 0.97  # other random numbers: ties of ten cells may fall otherwise
    sign = np.array([-1, -1, 1])  # a value that looks too good is optimistic either way
    assert np.allclose(one.table["mean"], sign * other.table["mean"], atol=0.05)


def test_the_state_of_folds_is_said_once(two_stage):
    """So few draws are refused, in the whole and in the folds."""
    few = fitted(TwoStage.trial(), TwoStage(sites=12, per_site=20).draw(4), few=True)
    assert bdtr.crossfit(few, over="sites").caption.count("fits over sites are not ok") == 1


def test_fits_of_folds_share_no_random_numbers():
    """Halves with the same clear rule: the SD of their mean is that of two independent halves."""
    trial, frame = null_trial(units=400, effect=2.0)
    trial = bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula="a")], outcome="y")
    row = bdtr.crossfit(fitted(trial, frame)).table.loc[("units", "cross-fitted")]
    assert row["sd"] == pytest.approx(
        1 / np.sqrt(200), rel=0.2
    )  # twice the same numbers: 1.41 times


def test_a_label_that_a_fold_lacks_is_said_to_be_in_a_fold():
    trial, frame = null_trial()
    frame.loc[0, "x"] = "zz"
    trial = bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula="x + a")], outcome="y")
    with pytest.raises((bdtr.DataError, DesignError), match="crossfit over units: with 2 folds"):
        bdtr.crossfit(fitted(trial, frame))


def test_rules_that_know_sites_are_valued_without_bias():
    """20 sites of 24, blips N(0, .4^2): the value of the rules that were learned is known. Errors go with
    the noise of those who followed them, of mean 0: the rest of 16 errors has a standard error of .008."""
    left, inside = [], []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        site = np.repeat(np.arange(20), 24)
        u = rng.normal(size=(20, 2)) * [0.3, 0.4]
        a, noise = rng.integers(0, 2, 480), rng.normal(size=480)
        y = u[site, 0] + u[site, 1] * a + noise
        frame = pd.DataFrame({"site": [f"s{j:02d}" for j in site], "a1": a, "y": y})
        stage = bdtr.Stage("a1", actions=[0, 1], formula="a1 + (1 + a1 | site)")
        fit = fitted(bdtr.Trial([stage], "y", site="site"), frame)
        found = bdtr.crossfit(fit, over="units", propagated=100)
        act = np.zeros(480, dtype=int)
        act[found.actions["unit"].astype(int)] = found.actions["action"].astype(int)
        truth = (u[site, 0] + u[site, 1] * act).mean()
        draws = found.draws["value"].to_numpy().ravel()
        left.append(draws.mean() - truth - noise[a == act].mean())
        lower, upper = np.quantile(draws, [0.025, 0.975])
        inside.append(lower <= truth <= upper)
    assert abs(np.mean(left)) < 0.028
    assert sum(inside) >= 13  # 15 are expected, and fewer than 13 in 1 of 100


def test_blips_that_were_learned_are_history_too(two_stage):
    """Posterior means of a site's blip go with its intercept: a fold's model has them as main effects,
    measured beyond the other columns, and the blip of the action taken beyond those."""
    data = two_stage.data
    rng = np.random.default_rng(1)
    means = [rng.normal(size=s.feasible.shape) for s in data.stages]
    design = stage_design(_with_blips(data, means), 0)
    assert design.terms[-2:] == ("learned blip of 1", "learned blip")
    rows = _with_blips(data, means).frame
    x = design.written(rows, design.site_codes(rows))
    blip = means[0][:, 1] - means[0][:, 0]
    assert np.allclose(x[:, -2], blip)
    assert np.allclose(x[:, -1], blip * (data.stages[0].action == 1))
    left = design.common(rows, design.site_codes(rows))
    others = [i for i, term in enumerate(design.terms[:-2]) if term != "a1[1]"]
    assert np.abs(left[:, -2] @ left[:, others]).max() < 1e-8 * len(left)
    assert np.abs(left[:, -1] @ left[:, :-1]).max() < 1e-8 * len(left)


def test_cross_fitting_with_few_draws_is_not_refused_for_that(clinic_fit):
    few = bdtr.crossfit(clinic_fit, over="units", propagated=200)
    many = bdtr.crossfit(clinic_fit, over="units", propagated=500)
    assert few.draws.sizes["draw"] == 50
    assert few.state.level != "refused"
    # Two Monte-Carlo errors of a mean of 200 draws, of two posteriors.
    error = 2 * few.table["sd"].max() / np.sqrt(200)
    assert few.table["mean"].to_numpy() == pytest.approx(
        many.table["mean"].to_numpy(), abs=3 * error
    )
    with pytest.raises(ValueError, match="propagated=300"):
        bdtr.crossfit(clinic_fit, propagated=300)
