"""Hedges' g and the intraclass correlation against closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bdtr
from bdtr.values.effects import effect_sizes


def two_arms(sites=150, per=20, sd=0.6, effect=0.5, seed=1):
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(sites), per)
    a = rng.integers(0, 2, site.size)
    y = effect * a + sd * rng.standard_normal(sites)[site] + 2 * rng.standard_normal(site.size)
    return pd.DataFrame({"site": site.astype(str), "a": a, "y": y})


def fitted(frame, site="site", **trial):
    formula = "a + (1 | site)" if site else "a"
    stage = bdtr.Stage("a", actions=[0, 1], formula=formula, site_means=False)
    return bdtr.fit(
        bdtr.Trial([stage], outcome="y", site=site, **trial), frame, sampler="direct", draws=250,
        random_seed=1, progress=False,
    )  # fmt: skip


ARMS = (bdtr.static(a=0), bdtr.static(a=1))


def test_g_and_icc_of_a_two_arm_trial():
    """Truth: SDs 2 within and .6 between, g .25 and .239, ICC .36 / 4.36; means close to the estimates."""
    fit = fitted(two_arms())
    found = effect_sizes(fit, bdtr.value(fit, *ARMS))
    b = fit.posterior(0)
    correction = 1 - 3 / (4 * (3000 - 2) - 1)
    by_hand = float((b["b"].sel(term="a[1]") / b["sigma"]).mean()) * correction
    row = found.table.loc[("1 minus 0", "g_within")]
    assert row["mean"] == pytest.approx(by_hand, rel=0.02)  # draws of two fits to the same data
    assert row["lower"] < 0.25 < row["upper"]
    total = float((b["sigma"] ** 2 + b["sd_site"][..., 0] ** 2).mean()) ** 0.5
    ratio = found.table.loc[("1 minus 0", "g_total"), "mean"] / row["mean"]
    assert ratio == pytest.approx(float(b["sigma"].mean()) / total, rel=0.01)
    icc = found.variances.loc["icc"]
    assert icc["lower"] < 0.36 / 4.36 < icc["upper"]
    draws = found.draws["g_within"].to_numpy().ravel()
    assert row["P(g > 0.2)"] == pytest.approx((draws > 0.2).mean())
    assert found.units == 3000


def test_the_small_sample_correction():
    """n = 16: J = 1 - 3 / 55; without sites nothing lies between them."""
    frame = two_arms(sites=4, per=4)
    fit = fitted(frame, site=None)
    values = bdtr.value(fit, *ARMS)
    found = effect_sizes(fit, values, thresholds=[0])
    sd = found.draws["g_within"] / bdtr.compare(values).draws * 55 / 52
    assert float((1 / sd).mean()) == pytest.approx(found.variances.loc["sd_within", "mean"])
    assert found.variances.loc["icc", "mean"] == 0


def test_where_lower_is_better_thresholds_are_mirrored():
    frame = two_arms(sites=40)
    up = fitted(frame)
    down = fitted(frame.assign(y=-frame["y"]), higher_is_better=False)
    one, other = (effect_sizes(f, bdtr.value(f, *ARMS)).table for f in (up, down))
    # Other random numbers, 1,000 draws: four Monte-Carlo standard errors of a difference.
    error = 4 * np.sqrt(2 / 1000)
    assert np.allclose(one["mean"], -other["mean"], atol=error * one["sd"].max())
    assert np.allclose(one["P(g > 0.1)"], other["P(g < -0.1)"], atol=error / 2)


def test_two_stages_are_compared_given_all_actions(clinic_fit):
    values = bdtr.value(clinic_fit, bdtr.embedded(clinic_fit))
    found = effect_sizes(clinic_fit, values, reference=str(values.draws["regime"].to_numpy()[0]))
    assert found.units < 480  # leavers have no payoff
    assert len(found.table) == 2 * (len(values.table) - 1)
    assert "Hedges' g; population: sample" in found.caption


def test_other_families_have_other_sizes():
    frame = two_arms(sites=20).assign(y=lambda d: (d["y"] > 0).astype(int))
    stage = bdtr.Stage("a", actions=[0, 1], formula="a")
    trial = bdtr.Trial([stage], outcome="y", family="bernoulli")
    fit = bdtr.fit(trial, frame, draws=300, tune=300, propagated=400, random_seed=1, progress=False)
    values = bdtr.value(fit, *ARMS)
    with pytest.raises(ValueError, match="effect_measures"):
        effect_sizes(fit, values)
    odds = bdtr.compare(values, scale="log odds ratio").table.loc["1 to 0"]
    b = fit.posterior(0)["b"].sel(term="a[1]")
    assert odds["mean"] == pytest.approx(float(b.mean()), abs=1e-6)
