"""Trials with missing values whose truth is known, and what is said of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bdtr
from bdtr.data.contents import DataError
from bdtr.data.imputation.impute import impute
from bdtr.data.imputation.options import Options
from bdtr.stages.pooled import missing_information

SEED = np.random.SeedSequence(3)
GIVEN = {
    "sampler": "direct", "draws": 400, "random_seed": 1, "progress": False, "imputations": 8,
}  # fmt: skip


def trial_of(frame, sites=True):
    group = " + (1 | site)" if sites else ""
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula=f"x * a1{group}", site_means=False),
        bdtr.Stage("a2", actions=[0, 1], formula=f"x + a1 + m * a2{group}", site_means=False),
    ]
    return bdtr.Trial(stages, outcome="y", site="site" if sites else None)


def smart(n=1600, seed=8, kind="number"):
    """Two stages; m is tailored by, and missing more often where x and a1 are high; a tenth have no
    payoff."""
    rng = np.random.default_rng(seed)
    site, x = rng.integers(0, 20, n), rng.normal(size=n)
    a1, a2 = rng.integers(0, 2, (2, n))
    m = 0.5 * x + 0.4 * a1 + rng.normal(0, 0.3, 20)[site] + rng.normal(size=n)
    if kind == "yes or no":
        m = (m > 0.2) * 1.0
    elif kind == "counts":
        m = rng.poisson(np.exp(0.8 + 0.4 * m)).astype(float)
    y = 0.3 * x + 0.3 * a1 + 0.5 * m + (0.2 - 0.6 * m) * a2 + rng.normal(0, 0.3, 20)[site]
    full = pd.DataFrame(
        {"site": site, "x": x, "a1": a1, "m": m, "a2": a2, "y": y + rng.normal(size=n)}
    )
    frame = full.copy()
    frame.loc[rng.random(n) < 1 / (1 + np.exp(1.3 - 0.8 * x - 0.8 * a1)), "m"] = np.nan
    frame.loc[rng.random(n) < 0.1, "y"] = np.nan
    return full, frame


@pytest.mark.parametrize("kind", ["number", "yes or no", "counts"])
def test_a_product_with_the_action_is_not_watered_down(kind):
    """The coefficient of m:a2 is that of the whole data, with a third of m missing, and the true one."""
    full, frame = smart(kind=kind)
    fit = bdtr.fit(trial_of(frame), frame, missing="impute", **GIVEN)
    whole = bdtr.fit(trial_of(full), full, **GIVEN)
    for term, right in (("m", 0.5), ("m:a2[1]", -0.6), ("x", 0.3)):
        one, two = (f.posterior(1)["b"].sel(term=term) for f in (fit, whole))
        assert abs(float(one.mean()) - right) < 3.5 * float(one.std()), term
        assert abs(float(one.mean() - two.mean())) < 2 * float(two.std()), term
        assert 1.0 < float(one.std() / two.std()) < 1.8, term
    values = [bdtr.value(f, bdtr.static(a1=1, a2=0)).table.iloc[0] for f in (fit, whole)]
    assert abs(values[0]["mean"] - values[1]["mean"]) < 2 * values[1]["sd"]
    assert 0.95 < values[0]["sd"] / values[1]["sd"] < 1.5
    drawn = np.concatenate([part.data.frame["m"][frame["m"].isna()] for part in fit.parts[:5]])
    seen, gone = full["m"][frame["m"].notna()], full["m"][frame["m"].isna()]
    assert abs(drawn.mean() - gone.mean()) < 0.25 * abs(gone.mean() - seen.mean()) + 3 * gone.sem()


@pytest.fixture(scope="module")
def fitted():
    _, frame = smart(600, 9)
    return frame, bdtr.fit(trial_of(frame), frame, missing="impute", **GIVEN)


def test_what_a_fit_says_of_what_is_missing(fitted):
    frame, fit = fitted
    gaps = int(frame["m"].isna().sum())
    assert any(f"'m': {gaps} of 600 values imputed given 1 + x + a1" in note for note in fit.notes)
    flow = fit.flow[fit.flow["kind"] == "imputed"]
    both = int((frame["m"].isna() & frame["y"].notna()).sum())
    assert list(flow["units"]) == [both] and list(flow["stage"]) == ["a2"]
    assert fit.data.frame["m"].isna().sum() == gaps
    assert len(fit.parts) == 8 and fit.settings.propagated % 32 == 0
    assert set(fit.tree["imputation"].to_dataset().data_vars) == {"mean", "accepted"}


def test_recommendations_are_for_those_whose_history_is_known(fitted):
    frame, fit = fitted
    found = bdtr.recommend(fit, frame).actions
    assert (found["stage"] == "a2").sum() == frame["m"].notna().sum()
    assert (found["stage"] == "a1").sum() == 600


def test_effects_of_a_new_site_differ_from_draw_to_draw(fitted):
    """Each completed data set has random numbers of its own for a site that the fit has not seen."""
    _, fit = fitted
    coded = fit.data.frame.iloc[:1].assign(site="elsewhere", m=0.0)
    q = (
        fit.q_function(1, sites="new")(coded)[0, 0]
        - fit.q_function(1, sites="typical")(coded)[0, 0]
    )
    assert len(np.unique(np.round(q, 12))) == fit.settings.propagated
    sd = fit.posterior(1)["sd_site"].to_numpy().ravel()
    assert abs(np.corrcoef((q / sd)[::8], (q / sd)[1::8])[0, 1]) < 0.4


def test_rules_that_name_what_is_missing(fitted):
    """A rule takes the imputed value of each draw: its value is that of the formula, all histories known."""
    _, fit = fitted
    rule = bdtr.rule(a1=0, a2={"m > 0.3": 0, "m <= 0.3": 1})
    table = bdtr.value(fit, rule, bdtr.recommended(), bdtr.static(a1=0, a2=0)).table
    full, _ = smart(600, 9)
    whole = bdtr.value(bdtr.fit(trial_of(full), full, **GIVEN), rule).table
    assert abs(table["mean"].iloc[0] - whole["mean"].iloc[0]) < 2.5 * table["sd"].iloc[0]
    assert table["mean"].iloc[1] > table["mean"].iloc[2]
    # Of what the rule that names m is worth, more is missing than of doing nothing.
    assert 0 <= table["fmi"].iloc[2] < table["fmi"].iloc[0] < 0.6
    assert "fmi" not in whole


def test_fractions_of_missing_information():
    """Means of 200 data sets with variance .3, within them .7: a fraction of .3, chance of few draws out."""
    rng = np.random.default_rng(18)
    draws = np.sqrt(0.7) * rng.normal(size=(4, 5, 200)) + np.sqrt(0.3) * rng.normal(size=200)
    found = missing_information(xr.DataArray(draws.reshape(4, -1), dims=("chain", "draw")), 200)
    assert float(found) == pytest.approx(0.3, abs=0.08)
    none = rng.normal(size=(4, 1000))
    assert missing_information(xr.DataArray(none, dims=("chain", "draw")), 200) < 0.05


def test_a_fit_with_imputed_values_is_saved_and_loaded(fitted, tmp_path):
    _, fit = fitted
    fit.save(tmp_path / "fit.nc")
    again = bdtr.load(tmp_path / "fit.nc")
    regimes = bdtr.static(a1=0, a2=1), bdtr.recommended()
    one, two = (bdtr.value(f, *regimes, by="site").table for f in (fit, again))
    pd.testing.assert_frame_equal(one, two)
    assert str(again.state) == str(fit.state) and again.notes == fit.notes
    fit.save(tmp_path / "draws.nc", data=False)
    draws = bdtr.load(tmp_path / "draws.nc")
    assert np.array_equal(draws.posterior(0)["b"], fit.posterior(0)["b"])


def test_nothing_missing_is_the_fit_without(fitted):
    full, _ = smart(300, 10)
    one = bdtr.fit(trial_of(full), full, missing="impute", **GIVEN)
    two = bdtr.fit(trial_of(full), full, **GIVEN)
    for k in range(2):
        for name, values in two.posterior(k).data_vars.items():
            assert np.array_equal(values, one.posterior(k)[name]), name


def test_the_same_whatever_else_is_done(fitted):
    frame, fit = fitted
    again = bdtr.fit(trial_of(frame), frame, missing="impute", **GIVEN)
    assert np.array_equal(fit.posterior(0)["b"], again.posterior(0)["b"])


def responders(n=800, seed=11):
    """Responders stay as they are; some leave before it is known whether they respond."""
    rng = np.random.default_rng(seed)
    x, a1 = rng.normal(size=n), rng.integers(0, 2, n)
    responds = (rng.random(n) < 1 / (1 + np.exp(-0.5 * x - 0.6 * a1))) * 1.0
    adherence = np.where(rng.random(n) < 1 / (1 + np.exp(-x)), "high", "low").astype(object)
    a2 = rng.choice(["app", "coach"], n).astype(object)
    help_of = np.where(a2 == "coach", np.where(adherence == "low", 0.8, -0.3), 0.0)
    y = 0.4 * x + 1.0 * responds + np.where(responds == 1, 0, help_of) + rng.normal(size=n)
    frame = pd.DataFrame(
        {"x": x, "a1": a1, "r": responds, "adherence": adherence, "a2": a2, "y": y}
    )
    frame.loc[frame["r"] == 1, ["adherence", "a2"]] = None
    left = rng.random(n) < np.where(a1 == 1, 0.2, 0.05)
    frame.loc[left, ["r", "adherence", "a2", "y"]] = [np.nan, None, None, np.nan]
    frame.loc[~left & (frame["r"] == 0) & (rng.random(n) < 0.2), "adherence"] = None
    return frame, left


def test_people_who_leave_take_part_through_what_they_could_expect():
    frame, left = responders()
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="x * a1"),
        bdtr.Stage("a2", ["app", "coach"], formula="x + a1 + adherence * a2", among="r == 0"),
    ]
    given = bdtr.Trial(stages, outcome="y")
    fit = bdtr.fit(given, frame, missing="impute", **GIVEN)
    flow = fit.flow.set_index(["stage", "step"])["units"]
    assert flow["a1", "in the fit"] == len(frame)
    among = ~left & (frame["r"] == 0)
    assert flow["a2", "of these adherence imputed"] == (among & frame["adherence"].isna()).sum()
    out = bdtr.fit(given, frame, missing="exclude", **GIVEN)
    assert (
        out.flow.set_index(["stage", "step"])["units"]["a1", "in the fit"]
        < len(frame) - left.sum() + 1
    )
    # Nobody who responds has a value of adherence: what r adds to it nobody knows.
    own = {"adherence": "x + r"}
    again = bdtr.fit(given, frame, missing="impute", imputation=own, **GIVEN)
    assert "imputed values of 'adherence' have not settled" in str(again.state)
    low = bdtr.recommend(fit, frame[frame["adherence"] == "low"]).actions
    assert set(low[low["stage"] == "a2"]["action"]) == {"coach"}
    # a1 brings response, which is worth 1: P(response) .62 to .49 or so.
    table = bdtr.value(fit, bdtr.static(a1=1, a2="app"), bdtr.static(a1=0, a2="app")).table
    assert 0.0 < table["mean"].iloc[0] - table["mean"].iloc[1] < 0.35


def test_a_later_measure_tells_of_the_outcome_of_responders_as_well():
    """Responders without an outcome are those with a low rating: with it their arm has the mean of all of
    them, although adherence is not measured among them."""
    frame, left = responders(n=1500, seed=17)
    rng = np.random.default_rng(18)
    frame["rating"] = frame["y"] + 0.4 * rng.normal(size=len(frame))
    frame.loc[left, "rating"] = np.nan
    full, responds = frame["y"].copy(), frame["r"] == 1
    frame.loc[responds & (frame["rating"] < 0.5), "y"] = np.nan
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="x * a1"),
        bdtr.Stage("a2", ["app", "coach"], formula="x + a1 + adherence * a2", among="r == 0"),
    ]
    given = bdtr.Trial(stages, outcome="y")
    gone = int((responds & frame["y"].isna()).sum())
    off = []
    for auxiliary in ([], ["rating"]):
        fit = bdtr.fit(given, frame, missing="impute", auxiliary=auxiliary, **GIVEN)
        arm = responds & (frame["a1"] == 1)
        values = fit.parts[0].data.outcome[arm]
        off.append(np.nanmean(values) - full[arm].mean())
        drawn = fit.data.frame["y"].isna() & fit.data.stages[-1].fitted
        assert int((drawn & responds).sum()) == (gone if auxiliary else 0)
    assert off[0] > 0.3 and abs(off[1]) < 0.08


def test_a_later_measure_tells_of_a_missing_outcome():
    """Outcomes are missing where the rating before them was low: without it the values of those who stay are
    too high, with it they are those of all; and it enters no rule."""
    rng = np.random.default_rng(16)
    n = 2000
    x, a = rng.normal(size=n), rng.integers(0, 2, n)
    y = 0.5 * x + 0.4 * a + rng.normal(size=n)
    frame = pd.DataFrame({"x": x, "a": a, "rating": y + 0.5 * rng.normal(size=n), "y": y})
    frame.loc[rng.random(n) < 1 / (1 + np.exp(1 + 2 * frame["rating"])), "y"] = np.nan
    frame.loc[rng.random(n) < 0.05, "rating"] = np.nan
    given = bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula="x * a")], outcome="y")
    regimes = bdtr.static(a=0), bdtr.static(a=1)
    right = [(0.5 * x + 0.4 * k).mean() for k in (0, 1)]
    plain = bdtr.fit(given, frame, missing="exclude", **GIVEN)
    assert (bdtr.value(plain, *regimes).table["mean"] - right > 0.15).all()
    fit = bdtr.fit(given, frame, missing="impute", auxiliary=["rating"], **GIVEN)
    table = bdtr.value(fit, *regimes).table
    assert (np.abs(table["mean"] - right) < 3 * table["sd"]).all()
    assert set(fit.data.frame.columns) == {"x", "a", "y"}
    assert any("'y':" in note for note in fit.notes)
    assert any("'rating':" in note for note in fit.notes)
    yes = frame.assign(y=(frame["y"] > 0.3).where(frame["y"].notna()).astype(float))
    short = bdtr.Trial(given.stages, outcome="y", family="bernoulli")
    fit = bdtr.fit(short, yes, missing="impute", auxiliary=["rating"], **GIVEN)
    table, true = bdtr.value(fit, *regimes).table, [(y > 0.3)[a == k].mean() for k in (0, 1)]
    assert (np.abs(table["mean"] - true) < 3 * table["sd"] + 0.03).all()


def test_outcomes_that_are_missing_not_at_random():
    """Of arm 1 those without an outcome did worse by half: its value falls by their share times that."""
    rng = np.random.default_rng(19)
    n = 1500
    x, a = rng.normal(size=n), rng.integers(0, 2, n)
    frame = pd.DataFrame({"x": x, "a": a, "y": 0.5 * x + 0.4 * a + rng.normal(size=n)})
    lost = rng.random(n) < 0.2
    frame.loc[lost, "y"] = np.nan
    given = bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula="x * a")], outcome="y")
    regimes = bdtr.static(a=0), bdtr.static(a=1)
    tables = [
        bdtr.value(bdtr.fit(given, frame, missing="impute", delta=delta, **GIVEN), *regimes).table
        for delta in ({"y": 0.0}, {"y": {1: -0.5}}, {"y": {"a": {1: -0.5}}})
    ]
    moved = tables[1]["mean"] - tables[0]["mean"]
    assert moved.iloc[0] == pytest.approx(0.0, abs=0.01)
    assert moved.iloc[1] == pytest.approx(-0.5 * lost[a == 1].mean(), abs=0.02)
    assert np.array_equal(tables[1]["mean"], tables[2]["mean"])


def test_those_who_left_missing_not_at_random(tmp_path):
    """Who left after a1 = 1 did worse by one than those like them who stayed: at stage 1 that counts, by
    their share; the model of stage 2 is the same."""
    frame, left = responders()
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="x * a1"),
        bdtr.Stage("a2", ["app", "coach"], formula="x + a1 + adherence * a2", among="r == 0"),
    ]
    given = bdtr.Trial(stages, outcome="y")
    regimes = bdtr.static(a1=0, a2="app"), bdtr.static(a1=1, a2="app")
    fits = [
        bdtr.fit(given, frame, missing="impute", delta=delta, **GIVEN)
        for delta in ({"y": 0.0}, {"y": {"a1": {1: -1.0}}})
    ]
    first, second = (bdtr.value(fit, *regimes).table["mean"].to_numpy() for fit in fits)
    share = left[frame["a1"] == 1].mean()
    assert second - first == pytest.approx([0.0, -share], abs=0.04)
    q = [fit.posterior(1)["b"].to_numpy() for fit in fits]
    assert np.array_equal(*q)
    fits[1].save(tmp_path / "fit.nc")
    again = bdtr.load(tmp_path / "fit.nc")
    table = bdtr.value(again, bdtr.static(a1=1, a2="coach")).table
    assert (
        table["mean"].iloc[0]
        == bdtr.value(fits[1], bdtr.static(a1=1, a2="coach")).table["mean"].iloc[0]
    )


def test_history_that_is_missing_not_at_random():
    _, frame = smart(400, 20)
    plain = impute(trial_of(frame), frame, Options(2), SEED).frames[0]["m"]
    shifted = impute(
        trial_of(frame), frame, Options(2, delta={"m": {0: 1.0, 1: -2.0}}), SEED
    ).frames[0]["m"]
    gone = frame["m"].isna()
    assert np.allclose((shifted - plain)[gone], np.where(frame["a1"][gone] == 1, -2.0, 1.0))
    assert np.array_equal(shifted[~gone], plain[~gone])


def test_labels_of_three_kinds():
    """A text with three labels, ordered categories, a truth value: drawn as labels the user has."""
    rng = np.random.default_rng(12)
    n = 500
    x, a = rng.normal(size=n), rng.integers(0, 2, n)
    kind = np.array(["none", "some", "full"])[
        np.clip(np.rint(x + rng.normal(size=n) + 1), 0, 2).astype(int)
    ]
    grade = pd.Categorical(kind, categories=["none", "some", "full"], ordered=True)
    frame = pd.DataFrame(
        {"x": x, "a": a, "work": kind.astype(object), "grade": grade, "smokes": rng.random(n) < 0.3}
    )
    frame["y"] = x + a * (kind == "full") + rng.normal(size=n)
    full = frame.copy()
    frame["smokes"] = frame["smokes"].astype(object)
    for name in ("work", "grade", "smokes"):
        frame.loc[rng.random(n) < 0.2, name] = None
    stage = bdtr.Stage("a", actions=[0, 1], formula="x + work * a + grade + smokes")
    given = bdtr.Trial([stage], outcome="y")
    found = impute(given, frame, Options(5), SEED)
    assert {v.name: v.kind for v in found.variables} == {
        "work": "labels",
        "grade": "ordered",
        "smokes": "ordered",
    }
    for one in found.frames:
        for name in ("work", "grade", "smokes"):
            assert one[name].notna().all()
            known = frame[name].notna()
            assert (one[name][known] == frame[name][known]).all()
        assert one["grade"].dtype == frame["grade"].dtype and set(one["smokes"]) == {True, False}
    # work and grade are the same here, and each tells of the other.
    both = frame["work"].isna() & frame["grade"].notna()
    share = np.mean(
        [(one["work"][both].astype(str) == full["work"][both]).mean() for one in found.frames]
    )
    assert share > 0.8


def test_variables_in_the_order_of_time():
    _, frame = smart(400, 13)
    frame.loc[:40, "x"] = np.nan
    found = impute(trial_of(frame), frame, Options(3), SEED).variables
    assert [v.name for v in found] == ["x", "m"]
    assert (
        found[0].formula == "1 + (1 | site)"
        and found[1].formula == "1 + x + a1 + a1:x + (1 | site)"
    )
    own = impute(trial_of(frame), frame, Options(3, {"m": "a1 + (1 + a1 | site)"}), SEED).variables
    assert own[1].formula == "a1 + (1 + a1 | site)"


def test_what_an_earlier_reward_tells():
    """m is seen in the first reward as well as in the outcome: its effect on the sum of both is not watered
    down."""
    rng = np.random.default_rng(17)
    n = 3000
    m, a1, a2 = rng.normal(size=n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    frame = pd.DataFrame({"m": m, "a1": a1, "a2": a2})
    frame["early"] = m + 0.5 * m * a1 + rng.normal(size=n)
    frame["y"] = 0.2 * a2 + rng.normal(size=n)
    frame.loc[rng.random(n) < 0.4, "m"] = np.nan
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="m * a1", reward="early"),
        bdtr.Stage("a2", actions=[0, 1], formula="a1 + a2"),
    ]
    given = bdtr.Trial(stages, outcome="y")
    fit = bdtr.fit(given, frame, missing="impute", **GIVEN)
    b = fit.posterior(0)["b"]
    for term, right in (("m", 1.0), ("m:a1[1]", 0.5)):
        own = b.sel(term=term)
        assert abs(float(own.mean()) - right) < 3.5 * float(own.std()) < 0.3, term


def bad(change, **more):
    _, frame = smart(300, 14)
    frame = change(frame)
    return lambda: bdtr.fit(trial_of(frame), frame, **{"missing": "impute", **GIVEN, **more})


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (bad(lambda f: f.assign(m=np.nan)), "has no value among the 300 units"),
        (bad(lambda f: f.assign(m=f["m"].where(f.index < 5))), "nothing can be imputed from that"),
        (bad(lambda f: f, imputations=1), "imputations=1: must be"),
        (bad(lambda f: f, imputation={"x": "1"}), "no value of it is missing"),
        (bad(lambda f: f, imputation={"m": "a2 + y"}), "names 'a2'|do not have|not known before"),
        (bad(lambda f: f, imputation="m"), "must map variables to formulas"),
        (bad(lambda f: f.assign(site=f["site"].where(f.index > 3))), "site missing for"),
        (bad(lambda f: f.assign(a2=f["a2"].where(f.index > 3))), "have a payoff and no action"),
        (bad(lambda f: f, sampler="plain"), "direct sampler"),
        (bad(lambda f: f, auxiliary="x"), "must be a list of columns"),
        (bad(lambda f: f, auxiliary=["x"]), "the trial names it already"),
        (bad(lambda f: f, auxiliary=["z"]), "the data do not have it"),
        (bad(lambda f: f, auxiliary=["z"], missing="exclude"), "go with missing='impute'"),
        (bad(lambda f: f, delta=3), "must map variables to shifts"),
        (bad(lambda f: f, delta={"x": 1.0}), "no value of it is missing"),
        (bad(lambda f: f, delta={"m": "low"}), "give a number, or numbers by the label"),
        (bad(lambda f: f, delta={"m": {"coach": 1.0}}), "'coach' is no action before 'm'"),
        (bad(lambda f: f, delta={"m": {"a2": {1: 1.0}}}), "'1' is no action of 'a2' before"),
        (
            bad(lambda f: f.assign(x=f["x"].where(f.index > 9)), delta={"x": {1: 1.0}}),
            "none; give a number",
        ),
        (
            bad(lambda f: f.assign(m=(f["m"] > 0).where(f["m"].notna()) * 1.0), delta={"m": 1.0}),
            "yes and no",
        ),
        (bad(lambda f: f, missing=[]), "two completed data sets or more"),
        (bad(lambda f: f, missing=[pd.DataFrame({"x": [1.0]})] * 2), "has 1 rows"),
    ],
)
def test_what_cannot_be(call, says):
    with pytest.raises(DataError, match=says):
        call()


def test_completed_data_sets_from_elsewhere():
    """Twenty copies of the truth: the posterior of the whole is that of one fit; errors where they do not
    fit."""
    full, frame = smart(600, 15)
    frames = [frame.assign(m=full["m"]) for _ in range(20)]
    fit = bdtr.fit(trial_of(frame), frame, missing=frames, **GIVEN)
    one = bdtr.fit(trial_of(frame), frames[0], missing="exclude", **GIVEN)
    for k in range(2):
        a, b = (f.posterior(k)["b"].stack(s=("chain", "draw")) for f in (fit, one))
        sd = b.std("s")
        assert (np.abs(a.mean("s") - b.mean("s")) < 0.2 * sd).all()
        assert np.allclose(a.std("s") / sd, 1.0, atol=0.15)
    changed = [*frames[:3], frames[3].assign(x=0.0)]
    with pytest.raises(DataError, match=r"missing\[3\]: column 'x' differs"):
        bdtr.fit(trial_of(frame), frame, missing=changed, **GIVEN)


@pytest.mark.parametrize("family", ["weibull", "lognormal"])
def test_times_until_an_event_are_the_outcome_that_is_seen_later(family):
    """Who has no m depends on the time; a third of the times are censored. The coefficient of m:a is the
    true one, and that of the whole data."""
    rng = np.random.default_rng(5)
    n = 1500
    x, a = rng.normal(size=n), rng.integers(0, 2, n)
    m = 0.5 * x + rng.normal(size=n)
    middle = 1 + 0.3 * x + 0.4 * m + (0.2 - 0.6 * m) * a
    noise = rng.weibull(1.5, n) if family == "weibull" else np.exp(rng.normal(0, 0.7, n))
    time, end = np.exp(middle) * noise, rng.exponential(8, n)
    full = pd.DataFrame({"x": x, "a": a, "m": m, "y": np.clip(np.minimum(time, end), 1e-3, None)})
    full["seen"] = (time <= end) * 1
    frame = full.copy()
    frame.loc[rng.random(n) < 1 / (1 + np.exp(1.2 - 0.8 * np.log(full["y"]))), "m"] = np.nan
    stage = bdtr.Stage("a", actions=[0, 1], formula="x + m * a")
    trial = bdtr.Trial([stage], outcome="y", family=family, event="seen", horizon=6)
    fit = bdtr.fit(trial, frame, missing="impute", **GIVEN)
    whole = bdtr.fit(trial, full, **GIVEN)
    for term, right in (("m", 0.4), ("m:a[1]", -0.6), ("x", 0.3)):
        one, two = (f.posterior(0)["b"].sel(term=term) for f in (fit, whole))
        assert abs(float(one.mean()) - right) < 3.5 * float(one.std()), term
        assert abs(float(one.mean() - two.mean())) < 2 * float(two.std()), term
        assert 1.0 < float(one.std() / two.std()) < 1.8, term
