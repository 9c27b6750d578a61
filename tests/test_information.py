"""Value of information against closed forms for two actions with a normal posterior."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import norm
from simulate import TwoStage

import bdtr
from bdtr.backward.passes import backward_passes
from bdtr.decisions.information import perfect_information, sample_information, site_information
from bdtr.decisions.outcome_spread import outcome_variance


def gain_of_knowing(mean, sd):
    """E max(0, d) - max(0, E d) for d ~ N(mean, sd)."""
    z = abs(mean) / sd
    return sd * norm.pdf(z) - abs(mean) * norm.sf(z)


def two_arms(units=400, effect=0.05, seed=1, higher_is_better=True):
    """One decision without covariates, exact arm means."""
    rng = np.random.default_rng(seed)
    a = np.tile([0, 1], units // 2)
    y = rng.normal(size=units)
    for arm in (0, 1):
        own = y[a == arm]
        y[a == arm] = (own - own.mean()) / own.std(ddof=1) + effect * arm
    y = y if higher_is_better else -y
    trial = bdtr.Trial(
        [bdtr.Stage("a", actions=[0, 1], formula="a")],
        outcome="y",
        higher_is_better=higher_is_better,
    )
    return bdtr.fit(
        trial, pd.DataFrame({"a": a, "y": y}), sampler="direct", draws=1000, propagated=4000, random_seed=2,
        progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def arms():
    return two_arms()


def blip(fit):
    draws = fit.posterior(0)["b"].sel(term="a[1]").to_numpy().ravel()
    return draws.mean(), draws.std()


def test_perfect_information(arms):
    mean, sd = blip(arms)
    assert sd == pytest.approx(0.1, rel=0.05)
    expected = gain_of_knowing(mean, sd)
    found = perfect_information(arms)
    # Standard error of the mean of max(0, -d) over 4,000 draws.
    error = sd / np.sqrt(4000)
    for row in ("a", "all stages"):
        assert found.table.loc[row, "value"] == pytest.approx(expected, abs=3 * error)
    assert found.by_unit is not None
    assert found.by_unit["value"].mean() == pytest.approx(found.table.loc["a", "value"])
    regret = bdtr.recommend(arms, arms.data.frame).actions["regret"]
    assert np.allclose(found.by_unit["value"], regret)


def test_a_new_trial_of_known_size(arms):
    """n0 units known, n more: the posterior mean to come has SD sd sqrt(n / (n + n0))."""
    mean, sd = blip(arms)
    found = sample_information(arms, "a", sizes=(100, 400, 4000), simulations=4000)
    for n in (100, 400, 4000):
        expected = gain_of_knowing(mean, sd * np.sqrt(n / (n + 400)))
        row = found.table.loc[float(n)]
        # The arms of a new trial of 100 are not exactly equal in size: 1 % of the variance.
        assert row["value"] == pytest.approx(expected, abs=4 * row["mc_error"] + 0.02 * expected)
    most = found.table.loc[np.inf, "value"]
    assert most == pytest.approx(gain_of_knowing(mean, sd), abs=4 * sd / np.sqrt(4000))
    assert (np.diff(found.table["value"]) > 0).all()
    assert found.table.index.name == "units"


def test_where_lower_is_better_knowing_is_worth_the_same(arms):
    down = two_arms(higher_is_better=False)
    for one, other in (
        (perfect_information(arms).table["value"], perfect_information(down).table["value"]),
        (
            sample_information(arms, "a", (400,)).table["value"],
            sample_information(down, "a", (400,)).table["value"],
        ),
    ):
        assert np.allclose(one, other, rtol=0.15)


@pytest.fixture(scope="module")
def many_sites():
    frame = TwoStage(sites=40, per_site=40, sd=(0.3, 0.4, 0.2)).draw(6)
    return bdtr.fit(
        TwoStage.trial(), frame, sampler="direct", draws=250, random_seed=1, progress=False
    )


def test_learning_the_blip_of_a_site(many_sites):
    """No history matters beside the site: knowing its blip is knowing all, and it is nearly normal."""
    found = site_information(many_sites, "a1").table
    draws = bdtr.values.site_blips(many_sites, "a1").draws.sel(action="1")
    own = draws.sel(site=found.index.to_numpy())
    mean, sd = own.mean(("chain", "draw")).to_numpy(), own.std(("chain", "draw")).to_numpy()
    assert np.allclose(found["value"], gain_of_knowing(mean, sd), atol=0.01)
    assert found["share"].notna().sum() > 20  # elsewhere all draws agree
    assert np.allclose(found["share"].dropna(), 1, atol=1e-6)
    table = perfect_information(many_sites).table
    assert table.loc["a1", "value"] == pytest.approx(found["value"].mean())
    assert table.loc["all stages", "value"] > table.loc["a1", "value"]


def test_more_sites_teach_more_and_a_site_of_the_trial_learns_little_from_others(many_sites):
    found = sample_information(
        many_sites, "a1", sizes=(10, 40, 160), at="its sites", simulations=200
    )
    assert (np.diff(found.table["value"]) > -2 * found.table["mc_error"].max()).all()
    assert (
        found.table["value"].iloc[-1] < perfect_information(many_sites).table.loc["a1", "value"] / 2
    )
    assert found.table.index.name == "sites"
    again = sample_information(
        many_sites, "a1", sizes=(10, 40, 160), at="its sites", simulations=200
    )
    pd.testing.assert_frame_equal(found.table, again.table)


def test_a_new_trial_tells_what_sites_have_in_common():
    """Sites differ, units hardly matter: n more sites to the 20 that there are."""
    frame = TwoStage(sites=20, per_site=60, sd=(0.3, 0.5, 0.0)).draw(8)
    stage = bdtr.Stage("a1", actions=[0, 1], formula="o1 + a1 + (1 + a1 | site)", site_means=False)
    fit = bdtr.fit(
        bdtr.Trial([stage], outcome="y", site="site"), frame, sampler="direct", draws=500, random_seed=1,
        progress=False,
    )  # fmt: skip
    (done,) = backward_passes(fit, [None], sites="average")
    q = done.q_values(0, np.arange(len(frame)))
    d = (q[1] - q[0]).mean(axis=0)
    found = sample_information(fit, "a1", sizes=(20, 200), simulations=1000).table
    for n in (20, 200):
        expected = gain_of_knowing(d.mean(), d.std() * np.sqrt(n / (n + 20)))
        row = found.loc[float(n)]
        # SDs between sites are learned as well, and the sites drawn are not all alike: within 15 %.
        assert row["value"] == pytest.approx(expected, abs=3 * row["mc_error"] + 0.15 * expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: sample_information(f, "a9"), "stage='a9'"),
        (
            lambda f: sample_information(f, "a1", at="home"),
            "at='home': allowed are 'new sites', 'its sites'",
        ),
        (lambda f: sample_information(f, "a1", sizes=()), r"sizes=\(\)"),
        (lambda f: sample_information(f, "a1", simulations=1), "simulations=1"),
    ],
)
def test_wrong_arguments(many_sites, call, message):
    with pytest.raises(ValueError, match=message):
        call(many_sites)


def yes_no(p=(0.30, 0.33), units=2000):
    """Two arms with exact shares."""
    a = np.tile([0, 1], units // 2)
    y = np.zeros(units)
    for arm in (0, 1):
        own = np.flatnonzero(a == arm)
        y[own[: round(p[arm] * len(own))]] = 1
    trial = bdtr.Trial(
        [bdtr.Stage("a", actions=[0, 1], formula="a")], outcome="y", family="bernoulli"
    )
    return bdtr.fit(
        trial, pd.DataFrame({"a": a, "y": y}), sampler="direct", draws=1000, propagated=4000,
        random_seed=2, progress=False,
    )  # fmt: skip


def test_a_new_trial_of_a_yes_no_outcome():
    """n0 units known, n more: the difference of probabilities is all but normal."""
    fit = yes_no()
    apart = bdtr.value(fit, bdtr.static(a=0), bdtr.static(a=1)).draws["value"]
    d = (apart.isel(regime=1) - apart.isel(regime=0)).to_numpy().ravel()
    assert d.std() == pytest.approx(np.sqrt((0.21 + 0.33 * 0.67) / 1000), rel=0.05)
    found = sample_information(fit, "a", sizes=(500, 2000, 8000), simulations=2000)
    for n in (500, 2000, 8000):
        expected = gain_of_knowing(d.mean(), d.std() * np.sqrt(n / (n + 2000)))
        row = found.table.loc[float(n)]
        assert row["value"] == pytest.approx(expected, abs=4 * row["mc_error"] + 0.03 * expected)


def test_spread_of_a_yes_no_outcome_over_two_stages():
    """Whatever stands between: given history at stage 1 the outcome is 0 or 1, with variance p (1 - p)."""
    rng = np.random.default_rng(3)
    n = 3000
    x = rng.normal(size=n)
    a1, a2 = rng.integers(0, 2, (2, n))
    r = (rng.random(n) < expit(0.5 * x + 0.4 * a1)) * 1
    y = (rng.random(n) < expit(-0.5 + 1.5 * r + 0.5 * x + a2 * (1 - 1.5 * r))) * 1
    frame = pd.DataFrame({"x": x, "a1": a1, "r": r, "a2": a2, "y": y})
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="x * a1"),
        bdtr.Stage("a2", actions=[0, 1], formula="x + a1 + r * a2"),
    ]
    fit = bdtr.fit(
        bdtr.Trial(stages, outcome="y", family="bernoulli"), frame, sampler="direct", draws=250,
        random_seed=1, progress=False,
    )  # fmt: skip
    q = backward_passes(fit, ["recommended"])[0].q_values(0, np.arange(n)).mean(axis=2)
    for a in (0, 1):
        p = q[a, a1 == a]
        assert outcome_variance(fit, 0)[a].mean() == pytest.approx((p * (1 - p)).mean(), rel=0.02)
    found = sample_information(fit, "a1", sizes=(500, 5000), simulations=300).table
    assert 0 < found["value"].iloc[0] < found["value"].iloc[1] < found["value"].iloc[2]


@pytest.mark.parametrize(
    ("family", "right"), [("poisson", 2.0), ("gamma", 0.25 * 4.0), ("student_t", 0.5**2 * 7 / 5)]
)
def test_spread_of_other_outcomes(family, right):
    """Mean 2; of a t distribution with 4 degrees of freedom the variance of a normal that says as much."""
    rng = np.random.default_rng(5)
    draw = {
        "poisson": lambda: rng.poisson(2.0, 3000),
        "gamma": lambda: rng.gamma(4.0, 0.5, 3000),
        "student_t": lambda: 2 + 0.5 * rng.standard_t(4, 3000),
    }
    frame = pd.DataFrame({"a": np.tile([0, 1], 1500), "y": draw[family]()})
    trial = bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula="a")], outcome="y", family=family)
    fit = bdtr.fit(trial, frame, sampler="direct", draws=250, random_seed=1, progress=False)
    assert outcome_variance(fit, 0).mean() == pytest.approx(right, rel=0.1)
    found = sample_information(fit, "a", sizes=(3000,), simulations=500).table
    apart = fit.posterior(0)["b"].sel(term="a[1]")
    scale = {"poisson": 2.0, "gamma": 2.0, "student_t": 1.0}[family]
    expected = gain_of_knowing(scale * float(apart.mean()), scale * float(apart.std()) / np.sqrt(2))
    assert found["value"].iloc[0] == pytest.approx(
        expected, abs=4 * found["mc_error"].iloc[0] + 0.1 * expected
    )
