"""Blips of sites, which sites agree, how much each is pooled."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulate import TwoStage

import bdtr
from bdtr.results.labels import NEW_SITE
from bdtr.values.siteblips import pooling, same_best_action, site_blips


@pytest.fixture(scope="module")
def two_stage():
    frame = TwoStage(sites=40, per_site=60, sd=(0.3, 0.5, 0.5)).draw(3)
    fit = bdtr.fit(
        TwoStage.trial(), frame, sampler="direct", draws=250, random_seed=2, progress=False
    )
    return fit, frame.attrs["u"]


def test_blips_are_those_of_the_generator(two_stage):
    """Site blips .3 + u of the last stage: 95 % intervals hold 40 truths, each with probability .95."""
    fit, u = two_stage
    found = site_blips(fit, "a2")
    table = found.table.xs("1", level="action").drop(index=NEW_SITE)
    truth = 0.3 + u[[int(s[1:]) for s in table.index], 2]
    inside = ((table["lower"] <= truth) & (truth <= table["upper"])).sum()
    assert inside >= 33  # P(fewer) = .003 were sites independent
    assert np.corrcoef(table["mean"], truth)[0, 1] > 0.8
    b = fit.posterior(1)
    by_hand = b["b"].sel(term="a2[1]") + b["u_site"].sel(site_term="a2[1]")
    mine = found.draws.sel(action="1").drop_sel(site=NEW_SITE)
    assert np.allclose(mine, by_hand.sel(site=mine["site"]).transpose("chain", "draw", "site"))


def test_a_new_site_varies_as_the_sites_do(two_stage):
    """Blip of a new site: mean b, variance that of b plus tau^2, a mixture over draws."""
    fit, _ = two_stage
    draws = site_blips(fit, "a2").draws.sel(site=NEW_SITE, action="1").to_numpy().ravel()
    b = fit.posterior(1)
    tau = b["sd_site"].isel(site_sd=-1) if "site_sd" in b.dims else b["sd_site"][..., -1]
    expected = np.sqrt(float((tau**2).mean()) + float(b["b"].sel(term="a2[1]").var()))
    assert draws.std() == pytest.approx(expected, rel=0.12)  # 1,000 draws: SE of an SD 2.2 %
    assert draws.mean() == pytest.approx(
        float(b["b"].sel(term="a2[1]").mean()), abs=4 * expected / 30
    )


def test_probabilities_are_of_events_within_draws(two_stage):
    fit, _ = two_stage
    found = site_blips(fit, "a2")
    best = found.draws.argmax("action")
    table = found.table["p_best"].unstack("action")
    assert np.allclose(table.sum(axis=1), 1)
    sites = found.draws["site"].to_numpy()
    one, other = best.sel(site=sites[0]), best.sel(site=sites[5])
    same = same_best_action(found).table
    assert same.loc[sites[0], sites[5]] == pytest.approx(float((one == other).mean()))
    assert np.allclose(np.diag(same), 1)
    assert np.allclose(same, same.T)


def test_the_reference_only_shifts_blips(two_stage):
    fit, _ = two_stage
    one, other = site_blips(fit, "a2"), site_blips(fit, "a2", reference=1)
    assert np.allclose(one.draws.sel(action="1"), -other.draws.sel(action="0"))
    pd.testing.assert_series_equal(one.table["p_best"], other.table["p_best"])
    for words in ("Blips of stage a2 against 1", "95 % equal-tailed"):
        assert words in other.caption


def test_where_lower_is_better_the_other_action_is_best(two_stage):
    fit, _ = two_stage
    frame = fit.data.frame.assign(y=-fit.data.outcome)
    trial = bdtr.Trial(TwoStage.trial().stages, outcome="y", site="site", higher_is_better=False)
    down = bdtr.fit(trial, frame, sampler="direct", draws=250, random_seed=2, progress=False)
    one, other = site_blips(fit, "a1"), site_blips(down, "a1")
    # Other random numbers, 1,000 draws: four Monte-Carlo standard errors of a difference.
    error = 4 * np.sqrt(2 / 1000)
    apart = (one.table["mean"] + other.table["mean"]).abs()
    assert (apart <= error * one.table["sd"]).all()
    assert np.allclose(one.table["p_best"], other.table["p_best"], atol=error / 2)
    one, other = same_best_action(one).table, same_best_action(other).table
    assert np.allclose(one, other, atol=error / 2)


def test_pooling_is_the_shrinkage_of_a_balanced_design():
    """One-way layout, n units a site: posterior variance of u_j / tau^2 = (s^2/n) / (s^2/n + tau^2), and
    what is not known of the grand mean."""
    rng = np.random.default_rng(5)
    sites, per, tau = 200, 8, 0.5
    site = np.repeat(np.arange(sites), per)
    a = np.tile([0, 1], sites * per // 2)
    y = tau * rng.standard_normal(sites)[site] + rng.standard_normal(site.size)
    frame = pd.DataFrame({"site": site.astype(str), "a": a, "y": y})
    stage = bdtr.Stage("a", actions=[0, 1], formula="a + (1 | site)", site_means=False)
    fit = bdtr.fit(
        bdtr.Trial([stage], outcome="y", site="site"), frame, sampler="direct", draws=500,
        random_seed=1, progress=False,
    )  # fmt: skip
    found = pooling(fit).table
    b = fit.posterior(0)
    s, t = float((b["sigma"] ** 2).mean()) / per, float((b["sd_site"] ** 2).mean())
    assert found["pooled"].mean() == pytest.approx(s / (s + t) + t / (s + t) * 1 / sites, rel=0.05)
    assert found["sd_between"].iloc[0] == pytest.approx(np.sqrt(t))
    assert found.index.names == ["site", "term"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: site_blips(f, "a9"), "stage='a9': allowed are 'a1', 'a2'"),
        (lambda f: site_blips(f, reference="large"), "reference='large': the actions of a1 are"),
        (lambda f: pooling(f, interval=95), "interval=95"),
    ],
)
def test_wrong_arguments(two_stage, call, message):
    with pytest.raises(ValueError, match=message):
        call(two_stage[0])
