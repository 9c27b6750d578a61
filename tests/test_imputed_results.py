"""What is asked of a fit with imputed values: with completed data sets that are all the same as the whole
data, it is what the whole data say."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from test_imputation import responders, smart, trial_of

import bdtr
from bdtr.backward.passes import backward_pass
from bdtr.backward.pooled import pooled_tree
from bdtr.backward.saving import StorageError
from bdtr.backward.summary import how_drawn
from bdtr.checks.assignment import treatment_probabilities
from bdtr.stages.settings import FitError

GIVEN = {"sampler": "direct", "draws": 400, "random_seed": 1, "progress": False}
REGIMES = bdtr.static(a1=0, a2=0), bdtr.static(a1=1, a2=0)


@pytest.fixture(scope="module")
def fits():
    """A fit to the whole data, one to four copies of them, and one with imputed values."""
    full, frame = smart(500, 21)
    trial = trial_of(full)
    whole = bdtr.fit(trial, full, **GIVEN)
    gone = frame.assign(y=full["y"])
    copies = bdtr.fit(trial, gone, missing=[full] * 4, **GIVEN)
    return whole, copies, bdtr.fit(trial, frame, missing="impute", imputations=4, **GIVEN)


def near(one, two, sd, times=0.3):
    """Whether posterior means of two fits agree within their Monte-Carlo errors."""
    return bool((np.abs(np.asarray(one) - np.asarray(two)) < times * np.asarray(sd)).all())


def test_what_data_alone_say_is_the_mean_over_data_sets(fits):
    whole, copies, imputed = fits
    for function in (bdtr.checks.covariate_balance, bdtr.checks.overlap):
        pd.testing.assert_frame_equal(function(whole).table, function(copies).table)
    each = [bdtr.checks.covariate_balance(part).table["difference"] for part in imputed.parts]
    found = bdtr.checks.covariate_balance(imputed).table["difference"]
    assert found.to_numpy() == pytest.approx(np.mean(each, axis=0))
    one, two = (treatment_probabilities(f, 1, "shares") for f in (whole, copies))
    assert two == pytest.approx(one)


def test_effects_sites_and_checks(fits):
    whole, copies, _ = fits
    one, two = (bdtr.checks.predictive_checks(f).table for f in (whole, copies))
    assert two["observed"].to_numpy() == pytest.approx(one["observed"].to_numpy(), abs=0.2)
    values = [bdtr.value(f, *REGIMES) for f in (whole, copies)]
    g = [bdtr.values.effect_sizes(f, v).table for f, v in zip((whole, copies), values, strict=True)]
    assert near(g[0]["mean"], g[1]["mean"], g[0]["sd"])
    blips = [bdtr.values.shrinkage(f, "a2").table for f in (whole, copies)]
    assert near(blips[0]["pooled"], blips[1]["pooled"], blips[0]["sd"], 0.5)
    assert near(blips[0]["raw"].dropna(), blips[1]["raw"].dropna(), 0.1)


def test_shifted_payoffs_change_what_is_recommended(fits):
    """Prices and confounding are weighed in every data set: with a large one nobody has the action."""
    whole, copies, imputed = fits
    for fit in (whole, copies, imputed):
        free = bdtr.decisions.plan(fit, "a1", prices={"a2": {"1": 50.0}})
        never = bdtr.value(fit, bdtr.static(a1=1, a2=0), bdtr.static(a1=0, a2=0)).table["mean"]
        assert free.table.loc["value", "mean"] == pytest.approx(never.max(), abs=0.06)
        size = bdtr.trial.Normal(0.2, 0.1)
        found = bdtr.checks.confounded(fit, {"a2": {"1": size}}, *REGIMES, bdtr.recommended())
        best = found.table.loc["recommended"]
        assert 0.02 < best["unconfounded"] - best["mean"] < 0.15
    one, two = (
        bdtr.checks.confounded(f, {"a1": {"1": 0.2}}, *REGIMES).table for f in (whole, copies)
    )
    assert near(one["mean"], two["mean"], one["sd"])
    one, two = (bdtr.checks.tipping_points(f, "a2").table for f in (whole, copies))
    assert near(one["delta"], two["delta"], one["upper"] - one["lower"], 0.1)


def test_a_shift_that_differs_between_draws_meets_each_in_its_data_set(fits):
    """Draw by draw, a payoff under a size that was drawn is that without it plus the size of this draw."""
    _, copies, _ = fits
    found = bdtr.checks.confounded(copies, {"a1": {"1": bdtr.trial.Normal(0.0, 5.0)}}, REGIMES[1])
    apart = (found.draws["value"] - found.draws["unconfounded"]).isel(regime=0)
    share = treatment_probabilities(copies, 0)[:, 1].mean()
    assert float(apart.std()) == pytest.approx(5.0 * (1 - share), rel=0.15)
    part = copies.parts[0]  # by itself
    alone = bdtr.checks.confounded(part, {"a1": {"1": bdtr.trial.Normal(0.0, 5.0)}}, REGIMES[1])
    apart = (alone.draws["value"] - alone.draws["unconfounded"]).isel(regime=0)
    assert float(apart.std()) == pytest.approx(5.0 * (1 - share), rel=0.25)


def test_plans_information_and_trees(fits):
    whole, copies, imputed = fits
    plans = [bdtr.decisions.plan(f, "a2", bdtr.decisions.Budget({"1": 1}, 0.3)) for f in fits]
    assert near(plans[0].table["mean"], plans[1].table["mean"], plans[0].table["sd"])
    # To know parameters is worth the same; a value that was not recorded is none of them.
    worth = [bdtr.decisions.perfect_information(f).table["value"] for f in fits]
    assert worth[1].to_numpy() == pytest.approx(worth[0].to_numpy(), abs=0.002)
    assert worth[2]["a2"] < worth[0]["a2"] + 0.01
    tree = bdtr.decisions.shallow_tree(imputed, "a2", over=["m"], depth=1)
    assert tree.left_out == int(imputed.data.frame["m"].isna().sum()) and tree.left_out > 100
    assert f"{tree.left_out} units whose answers were imputed left out" in tree.caption
    over = bdtr.decisions.over_history(imputed, "a2", "m")
    assert over.table["units"].xs("0", level="action").sum() == len(imputed.data) - tree.left_out
    along = [bdtr.decisions.blips_along(f, "a2", "m", points=3) for f in (whole, copies)]
    slopes = [a.draws.sel(action="1").polyfit("m", 1)["polyfit_coefficients"][0] for a in along]
    assert near(slopes[0].mean(), slopes[1].mean(), slopes[0].std())


def test_refits_take_every_data_set(fits):
    whole, copies, imputed = fits
    wide = [bdtr.checks.prior_widths(f, *REGIMES, factors=[3.0]).table for f in (whole, copies)]
    assert near(wide[0]["mean"], wide[1]["mean"], wide[0]["sd"], 0.5)
    crossed = [bdtr.crossfit(f, over="units", folds=2) for f in (whole, copies)]
    means = [c.draws["value"].mean() for c in crossed]
    assert near(means[0], means[1], crossed[0].draws["value"].std(), 0.5)
    assert crossed[1].actions["imputation"].nunique() == 4
    opinion = bdtr.checks.second_opinion(imputed, *REGIMES, groups=5)
    assert "4 of 4 completed data sets" in opinion.caption
    assert not opinion.followers["disagree"].any()


def test_a_shift_of_those_who_left_stays_in_refits():
    """Rewards that no column has go into parts of the data as well."""
    _, frame = smart(300, 22)
    frame.loc[::7, ["a2", "y"]] = np.nan
    given = {**GIVEN, "draws": 100, "imputations": 4, "missing": "impute"}
    by = []
    for size in (0.0, -5.0):
        shift = {"y": {"a1": {0: size, 1: size}}}  # of those whose last action is that of stage 1
        fit = bdtr.fit(trial_of(frame), frame, delta=shift, **given)
        by.append(float(bdtr.crossfit(fit, over="units", folds=2).draws["value"].mean()))
    assert by[1] - by[0] == pytest.approx(-5 * frame["a2"].isna().mean(), abs=0.2)


def test_a_report_says_what_was_imputed(fits, tmp_path):
    _, _, imputed = fits
    bdtr.report(imputed, tmp_path / "page.html", thorough=False)
    held = json.loads((tmp_path / "page.json").read_text())
    part = json.dumps(next(p for p in held["parts"] if p["name"] == "exclusions"))
    assert "4 completed data sets" in part and "imputed given" in part and "mean_imputed" in part
    assert "of units with imputed values" in json.dumps(held["reasons"]) + json.dumps(held)


def test_rows_of_one_data_set_are_asked_of_one(fits):
    _, _, imputed = fits
    with pytest.raises(FitError, match=r"fit.parts\[0\]"):
        imputed.add_groups("log_likelihood")
    assert np.isfinite(imputed.parts[0].add_groups("log_likelihood")["log_likelihood"]["y"]).all()
    assert backward_pass(imputed).q_values(1, np.arange(5)).shape[1] == 5


def test_imputed_values_stand_beside_recorded_ones(fits):
    whole, _, imputed = fits
    found = bdtr.checks.imputed_values(imputed)
    gone = imputed.data.frame["m"].isna()
    assert found.table.loc["m", ["recorded", "imputed"]].tolist() == [(~gone).sum(), gone.sum()]
    assert found.imputed["m"].shape == (4, gone.sum())
    assert found.table.loc["m", "mean_imputed"] > found.table.loc["m", "mean_recorded"]
    with pytest.raises(ValueError, match="no values were imputed"):
        bdtr.checks.imputed_values(whole)


def test_a_data_set_that_was_asked_by_itself_changes_nothing(fits, tmp_path):
    """Its passes are its own: in them its draws alone say what is recommended."""
    _, frame = smart(300, 23)
    given = {**GIVEN, "missing": "impute", "imputations": 4, "draws": 100}
    one, two = (bdtr.fit(trial_of(frame), frame, **given) for _ in range(2))
    untailored = bdtr.recommended(tailored=False)
    for part in one.parts[:2]:
        bdtr.value(part, *REGIMES, untailored)
    found = [bdtr.value(f, *REGIMES, untailored).table for f in (one, two)]
    pd.testing.assert_frame_equal(*found)
    one.save(tmp_path / "fit.nc")
    again = bdtr.load(tmp_path / "fit.nc")
    pd.testing.assert_frame_equal(bdtr.value(again, *REGIMES, untailored).table, found[1])
    assert again.parts[0].state == one.parts[0].state == one.state
    with pytest.raises(StorageError, match="saved with the whole"):
        one.parts[0].save(tmp_path / "part.nc")


def test_what_is_not_measured_among_responders_is_not_recorded_there():
    frame, _ = responders(400)
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="x * a1"),
        bdtr.Stage("a2", ["app", "coach"], formula="x + a1 + adherence * a2", among="r == 0"),
    ]
    given = {**GIVEN, "draws": 100, "imputations": 4}
    fit = bdtr.fit(bdtr.Trial(stages, outcome="y"), frame, missing="impute", **given)
    found = bdtr.checks.imputed_values(fit).table.loc["adherence: low"]
    assert found["recorded"] == frame["adherence"].notna().sum()
    assert found["mean_recorded"] == pytest.approx((frame["adherence"].dropna() == "low").mean())


def test_draws_that_are_thinned_are_of_every_data_set(fits):
    _, _, imputed = fits
    found = bdtr.crossfit(imputed, over="units", folds=2, propagated=400)
    mean = found.table.loc[("units", "in the sample"), "mean"]
    assert float(found.draws["in_sample"].mean()) == pytest.approx(mean, abs=0.01)


def test_shifts_of_those_who_left_alone():
    """Nothing is drawn, and what is expected of them is shifted all the same."""
    full, _ = smart(300, 24)
    left = np.arange(300) % 6 == 0
    full.loc[left, ["m", "a2", "y"]] = np.nan
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="x * a1"),
        bdtr.Stage("a2", actions=[0, 1], formula="x + a1 + a2"),
    ]
    trial = bdtr.Trial(stages, outcome="y")
    found = bdtr.checks.tipping_missing(
        trial, full, {"y": -1.0}, REGIMES[0], sizes=[1], imputations=4, draws=100, random_seed=1
    )
    at = found.table["mean"].unstack("size").iloc[0]
    share = left[full["a1"] == 0].mean()
    assert at[1.0] - at[0.0] == pytest.approx(-share, abs=0.02)
    known = full.assign(y=full["y"].fillna(0.0), a2=full["a2"].fillna(0), x=full["x"].where(~left))
    with pytest.raises(ValueError, match="no value of it is missing"):
        bdtr.checks.tipping_missing(trial, known, {"y": -1.0}, sizes=[1], imputations=4, draws=100)


def test_nothing_imputed_and_arguments_that_cannot_be(fits, tmp_path):
    full, _ = smart(300, 25)
    fit = bdtr.fit(trial_of(full), full, missing=[full, full], **{**GIVEN, "draws": 100})
    bdtr.report(fit, tmp_path / "page.html", thorough=False)
    assert "No values were imputed" in (tmp_path / "page.html").read_text()
    with pytest.raises(ValueError, match="nothing to draw"):
        bdtr.plots.imputed_plot(bdtr.checks.imputed_values(fit))
    _, _, imputed = fits
    with pytest.raises(ValueError, match="times 4 completed data sets"):
        bdtr.checks.prior_widths(imputed, factors=[2.0], propagated=200)


def test_confounding_that_depends_on_a_value_that_was_imputed(fits):
    whole, copies, _ = fits
    size = {"a2": {"1": lambda h: 0.3 * (h["m"] > 0)}}
    one, two = (bdtr.checks.confounded(f, size, *REGIMES).table for f in (whole, copies))
    assert near(one["mean"], two["mean"], one["sd"])


def test_how_draws_were_made_is_said_of_all_data_sets():
    """Of one data set slice chains, of the first none: their figures are those of the whole."""
    first = {
        "sampler": "direct",
        "independence": 100,
        "slices": 0,
        "khat": 0.2,
        "effective_share": 0.5,
    }
    other = {"sampler": "direct", "independence": 0, "slices": 100, "sweeps": 7, "correlation": 0.6}
    parts = [SimpleNamespace(stages=1, tree=_drawn(attrs)) for attrs in (first, other)]
    found = pooled_tree(parts)["stage_1/sample_stats"].attrs
    assert found["independence"] == found["slices"] == 100
    assert (found["sweeps"], found["correlation"], found["khat"]) == (7, 0.6, 0.2)
    assert "7 sweeps" in how_drawn(found)


def _drawn(attrs: dict) -> xr.DataTree:
    return xr.DataTree.from_dict({"stage_1/sample_stats": xr.Dataset(attrs=attrs)})
