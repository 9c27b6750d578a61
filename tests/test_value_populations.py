"""Values of a fit in the populations they can be over, and at a site that is not in the trial."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from simulate import TwoStage

import bdtr
from bdtr.backward.passes import backward_passes
from bdtr.values.comparison import set_of_best
from bdtr.values.populations import POPULATIONS

REGIMES = (bdtr.static(a1=1, a2=0), bdtr.static(a1=1, a2=1), bdtr.recommended())


@pytest.fixture(scope="module")
def many_sites():
    """SDs of the blips between sites .5 and .4, well identified by 60 sites of 60."""
    frame = TwoStage(per_site=60, sd=(0.3, 0.5, 0.4)).draw(3)
    return bdtr.fit(
        TwoStage.trial(), frame, sampler="direct", draws=250, random_seed=2, progress=False
    )


@pytest.fixture(scope="module")
def few_sites():
    frame = TwoStage(sites=12, per_site=50).draw(5)
    return bdtr.fit(
        TwoStage.trial(), frame, sampler="direct", draws=250, random_seed=2, progress=False
    )


def test_the_effect_of_an_action_at_a_new_site_varies_between_sites(many_sites):
    """V(1, 1) - V(1, 0) = .3 + u2 at a new site, u2 of SD .4: the regimes share the site."""
    values = bdtr.value(many_sites, REGIMES[:2], population="new site")
    contrast = bdtr.compare(values).draws.to_numpy().ravel()
    tau = many_sites.posterior(1)["sd_site"][..., 2]
    assert contrast.std() == pytest.approx(float((tau**2).mean()) ** 0.5, rel=0.15)
    assert contrast.mean() == pytest.approx(0.3, abs=0.15)
    # And V(1, 1) varies by all three effects and the covariates of a site.
    total = float(np.hypot(np.hypot(0.3, 0.5), 0.4))
    assert float(values.draws["value"].isel(regime=1).std()) == pytest.approx(total, rel=0.25)


def test_effects_of_one_new_site_go_through_all_stages(many_sites):
    """Stage 1 has the a1 effect of stage 2, and its intercept plus what the rule for a2 adds to the site,
    max(0, .3 + u2): of SDs .3 and .27, so that the correlation is .75."""
    here, there = many_sites.new_site(0)["u_site"], many_sites.new_site(1)["u_site"]
    for term, expected, near in (("Intercept", 0.75, 0.12), ("a1[1]", 1.0, 0.1)):
        one, other = (x.sel(site_term=term).to_numpy().ravel() for x in (here, there))
        assert np.corrcoef(one, other)[0, 1] == pytest.approx(expected, abs=near), term
    sd = many_sites.posterior(0)["sd_site"]
    for i, term in enumerate(here["site_term"].to_numpy()):
        expected = float((sd[..., i] ** 2).mean()) ** 0.5
        assert float(here.sel(site_term=term).std()) == pytest.approx(expected, rel=0.15)


def test_populations_differ_in_spread(many_sites):
    """Units of the sample; a population of units; one of sites; one site: wider and wider."""
    sd = [bdtr.value(many_sites, REGIMES[1], population=p).table["sd"].iloc[0] for p in POPULATIONS]
    assert sd[0] < sd[1] < sd[2] < sd[3]
    # Means of 60 sites against one of them.
    assert sd[3] / sd[2] == pytest.approx(np.sqrt(60), rel=0.25)


def test_few_sites_are_a_population_by_the_model(few_sites, monkeypatch):
    """As with fewer than eight of them; and the state says so."""
    monkeypatch.setattr("bdtr.values.valuation.FEW_SITES", 30)
    values = bdtr.value(few_sites, *REGIMES, population="sites")
    assert "mean over new sites by the model, as 12 sites are few" in values.caption
    assert "rests on the model" in values.state.model_reasons[-1]
    assert "recommended" in values.table.index[-1]
    # Mean over new sites: the new sites' values have this mean.
    new = bdtr.value(few_sites, *REGIMES, population="new site")
    error = 4 * new.table["sd"] / np.sqrt(1000)
    assert ((values.table["mean"] - new.table["mean"]).abs() < error).all()
    assert (values.table["sd"] < new.table["sd"]).all()


def test_a_new_site_cannot_follow_a_rule_that_knows_sites(many_sites):
    """Where the blip .3 varies by .4, the tailored rule is worth more; a new site has the other."""
    sample = bdtr.value(many_sites, bdtr.recommended(), bdtr.recommended(tailored=False))
    assert bdtr.compare(sample).table["mean"].iloc[0] < -0.02
    assert sample.learned == ("recommended", "recommended, untailored")
    new = bdtr.value(many_sites, REGIMES[1], bdtr.recommended(), population="new site")
    # The untailored rule takes a1 = a2 = 1 everywhere; off this path the two policies differ a little.
    row = bdtr.compare(new).table.iloc[0]
    assert abs(row["mean"]) < 4 * row["sd"] / np.sqrt(1000)  # an SD of .6


def test_weights_of_sites(few_sites):
    sites = bdtr.value(few_sites, REGIMES[0], by="site").draws["value"]
    equal = bdtr.value(few_sites, REGIMES[0], weight="site").draws["value"]
    assert np.allclose(sites.mean("site"), equal)
    two = ["s3", "s7"]
    some = bdtr.value(few_sites, REGIMES[0], site=two)
    assert np.allclose(sites.sel(site=two).mean("site"), some.draws["value"])
    assert "at sites ['s3', 's7']" in some.caption


def test_groups_of_units(few_sites):
    frame = few_sites.data.frame
    high = np.where(frame["o1"] > 0, "high", "low").astype(object)
    high[:7] = None
    found = bdtr.value(few_sites, *REGIMES[:2], by=high)
    assert "7 units without a group left out" in found.caption
    assert found.draws["value"].dims == ("chain", "draw", "regime", "group")
    units = np.flatnonzero(pd.Series(high) == "high")
    (done,) = backward_passes(few_sites, [REGIMES[1]])
    by_hand = done.continuation(0, units).mean(axis=0)
    mine = found.draws["value"].sel(regime="1, 1", group="high").to_numpy().ravel()
    assert np.allclose(mine, by_hand)
    assert list(bdtr.compare(found).table.index) == [
        ("1, 1 minus 1, 0", "high"),
        ("1, 1 minus 1, 0", "low"),
    ]
    with pytest.raises(ValueError, match="by='a1': is not known yet"):
        bdtr.value(few_sites, REGIMES[0], by="a1")
    column = bdtr.value(few_sites, REGIMES[0], by=frame["a1"])
    assert list(column.table.index) == [("1, 0", "0"), ("1, 0", "1")]


def test_averages_are_taken_within_draws(few_sites):
    """The interval of the mean is not the mean of intervals, nor P(best) a mean of probabilities."""
    values = bdtr.value(few_sites, *REGIMES[:2])
    units = np.arange(600)
    one, other = (done.continuation(0, units) for done in backward_passes(few_sites, REGIMES[:2]))
    row = values.table.loc["1, 1"]
    assert row["lower"] == pytest.approx(np.quantile(other.mean(axis=0), 0.025))
    assert row["lower"] != pytest.approx(np.quantile(other, 0.025, axis=1).mean(), abs=0.02)
    better = other.mean(axis=0) > one.mean(axis=0)
    assert row["p_best"] == pytest.approx(better.mean())


def test_lower_is_better_is_the_mirror_image(few_sites):
    frame = few_sites.data.frame.assign(y=-few_sites.data.outcome)
    trial = bdtr.Trial(TwoStage.trial().stages, outcome="y", site="site", higher_is_better=False)
    down = bdtr.fit(trial, frame, sampler="direct", draws=250, random_seed=2, progress=False)
    error = 4 * np.sqrt(2 / 1000)  # four Monte-Carlo standard errors of a difference, in SDs
    for population in ("sample", "new site"):
        one, other = (bdtr.value(f, *REGIMES, population=population) for f in (few_sites, down))
        assert (one.table["mean"] + other.table["mean"]).abs().max() < error * one.table["sd"].max()
        up, down_ = one.table["p_best"], other.table["p_best"]
        assert np.allclose(up, down_, atol=error / 2, equal_nan=True)
        assert np.allclose(
            bdtr.compare(one).table["p_better"],
            bdtr.compare(other).table["p_better"],
            atol=error / 2,
        )
    up_best, down_best = (set_of_best(bdtr.value(f, *REGIMES)) for f in (few_sites, down))
    assert up_best.reference == down_best.reference
    assert np.allclose(up_best.table["upper"], down_best.table["upper"], atol=0.02)
    assert "Left out, as learned from these data: recommended" in up_best.caption


def test_rules_and_functions_are_regimes(few_sites):
    """A rule in words, as a mapping, and as a function: the same draws; everyone can follow it."""
    words = bdtr.rule("words", a1="1", a2="1 if m > 0 else 0")
    mapping = bdtr.rule("mapping", a1="1", a2={"m > 0": "1", "else": "0"})
    function = bdtr.rule("function", a1=1 and "1", a2=lambda h: np.where(h["m"] > 0, 1, 0))
    values = bdtr.value(few_sites, words, mapping, function)
    draws = values.draws["value"]
    for name in ("mapping", "function"):
        assert np.allclose(draws.sel(regime="words"), draws.sel(regime=name))
    treated = (few_sites.data.frame["a1"].astype(str) == "1").sum()
    assert (values.table["off_path"] == 600 - treated).all()
    assert (values.table["cannot_follow"] == 0).all()
    assert "the recommended action for units" not in values.caption


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("1 if y > 0 else 0", "names 'y'. A rule can use what is known"),
        ("1 if a2 == 1 else 0", "names 'a2'. A rule"),
        ("1 if income > 0 else 0", "names 'income'. A rule"),
        ("1 if m > 0", "It says nothing for them"),
        ("2", "'2' is no action"),
    ],
)
def test_rules_that_cannot_be_followed(few_sites, rule, message):
    with pytest.raises(bdtr.backward.RegimeError, match=message):
        bdtr.value(few_sites, bdtr.rule(a1="1", a2=rule))


def test_a_rule_of_stage_1_cannot_use_what_comes_after(few_sites):
    with pytest.raises(bdtr.backward.RegimeError, match="stage a1: the rule .* names 'm'"):
        bdtr.value(few_sites, bdtr.rule(a1="1 if m > 0 else 0", a2="1"))


def test_actions_may_be_numbers(few_sites):
    one = bdtr.value(few_sites, bdtr.rule(a1=1, a2={"m > 0": 1, "else": 0})).table["mean"]
    other = bdtr.value(few_sites, bdtr.rule(a1="1", a2="1 if m > 0 else 0")).table["mean"]
    assert one.iloc[0] == other.iloc[0]


def test_groups_keep_the_order_of_their_categories(few_sites):
    cut = pd.cut(few_sites.data.frame["o1"], [-9, -1, 0, 1, 9])
    found = bdtr.value(few_sites, REGIMES[0], by=cut).draws["group"].to_numpy().tolist()
    assert found == [str(c) for c in cut.cat.categories]
    decades = np.array([9, 10, 100])[np.arange(600) % 3]
    found = bdtr.value(few_sites, REGIMES[0], by=decades).draws["group"].to_numpy().tolist()
    assert found == ["9", "10", "100"]


def test_learned_regimes_are_not_candidates_for_the_best(few_sites):
    table = bdtr.value(few_sites, *REGIMES).table
    assert np.isnan(table.loc["recommended", "p_best"])
    assert table["p_best"].sum() == pytest.approx(1)
    some = np.array(["s3", "s7"])
    assert "at sites" in bdtr.value(few_sites, REGIMES[0], site=some).caption
    with pytest.raises(ValueError, match="site='s3' does not go with population='new site'"):
        bdtr.value(few_sites, REGIMES[0], population="new site", weight="site", site="s3")


@pytest.mark.parametrize("rho", [0.8, -0.8])
def test_effects_that_go_together_do_so_at_a_new_site(rho):
    """Site intercept and blip of a2, SDs .5: under a2 = 1 sites differ by their sum, of SD
    .5 sqrt(2 + 2 rho), of which the intercept alone is carried back."""
    rng = np.random.default_rng(1)
    site = np.repeat(np.arange(80), 40)
    z = rng.normal(size=(80, 2)) @ np.array([[0.5, 0.5 * rho], [0.0, 0.5 * np.sqrt(1 - rho**2)]])
    a1, a2 = rng.integers(0, 2, (2, site.size))
    y = z[site, 0] + (0.3 + z[site, 1]) * a2 + 0.2 * a1 + rng.normal(size=site.size)
    frame = pd.DataFrame({"site": site.astype(str), "a1": a1, "a2": a2, "y": y})
    first = bdtr.Stage("a1", actions=[0, 1], formula="a1 + (1 + a1 | site)")
    second = bdtr.Stage("a2", actions=[0, 1], formula="a1 + a2 + (1 + a2 | site)")
    trial = bdtr.Trial([first, second], outcome="y", site="site")
    fit = bdtr.fit(trial, frame, sampler="direct", draws=250, random_seed=1, progress=False)
    values = bdtr.value(fit, bdtr.static(a1=0, a2=1), population="new site")
    # The estimated SD between sites has a standard error of 8 % (80 sites) and more from their units.
    truth = z.sum(axis=1).std()
    assert values.table["sd"].iloc[0] == pytest.approx(truth, rel=0.35 if rho < 0 else 0.15)
    # A predictive SD is 4 % above that of these 80 sites; of 1,000 draws it has an error of 2 %.
    assert abs(values.table["sd"].iloc[0] - truth) < max(
        0.1 * truth, 0.2 * abs(truth - np.sqrt(0.5))
    )


def test_a_function_sees_only_what_is_known(few_sites):
    seen = {}

    def look(stage):
        def rule(history):
            seen[stage] = set(history.columns)
            return ["1"] * len(history)

        return rule

    bdtr.value(few_sites, bdtr.rule("looking", a1=look("a1"), a2=look("a2")))
    assert "a1" not in seen["a1"]
    assert {"a2", "y"} & (seen["a1"] | seen["a2"]) == set()
    assert {"a1", "m"} <= seen["a2"]


@pytest.mark.parametrize("sites", [29, 30])
def test_the_mean_over_units_of_sites_like_these_at_any_number_of_sites(sites):
    """Sizes of 40 to 400 go with blips of -.5 to .5: sum(n blip) / sum(n) is .146, over sites 0."""
    rng = np.random.default_rng(3)
    size = np.linspace(40, 400, sites).round().astype(int)
    blip = np.linspace(-0.5, 0.5, sites)
    site = np.repeat(np.arange(sites), size)
    a = rng.integers(0, 2, len(site))
    y = blip[site] * a + 0.5 * rng.normal(size=len(site))
    frame = pd.DataFrame({"site": [f"s{j:02d}" for j in site], "a1": a, "y": y})
    stage = bdtr.Stage("a1", actions=[0, 1], formula="a1 + (1 + a1 | site)")
    fit = bdtr.fit(
        bdtr.Trial([stage], outcome="y", site="site"), frame, sampler="direct", draws=250,
        random_seed=1, progress=False,
    )  # fmt: skip
    pair = bdtr.static(a1=0), bdtr.static(a1=1)
    for weight, right in (("unit", (size * blip).sum() / size.sum()), ("site", 0.0)):
        found = (
            bdtr.compare(bdtr.value(fit, *pair, population="sites", weight=weight))
            .table["mean"]
            .iloc[0]
        )
        assert found == pytest.approx(right, abs=0.05), weight
