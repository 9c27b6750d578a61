"""Contrasts, ranks and the set of best regimes against closed forms and another package's numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.stats import multivariate_normal, norm

from bdtr.values.comparison import compare, ranks, set_of_best

REFERENCE = json.loads((Path(__file__).parent / "reference" / "smartbayesr.json").read_text())


def regimes(values, names=None):
    """Draws (sample, regime)."""
    names = names or [f"r{i + 1}" for i in range(values.shape[1])]
    return xr.DataArray(values, dims=("sample", "regime"), coords={"regime": names})


@pytest.fixture(scope="module")
def smart():
    """The four regimes of the published SMARTbayesR example, from the exact Beta posteriors."""
    rng = np.random.default_rng(5)
    beta = REFERENCE["beta_posterior_parameters_flat_prior"]
    p = {k: rng.beta(v["alpha"], v["beta"], 200_000) for k, v in beta.items()}
    first = [
        p["p1_a1resp"] * p["s1"] + p[k] * (1 - p["s1"]) for k in ("p2_a1nr_a2p", "p3_a1nr_a2m")
    ]
    second = [
        p["p4_a1m_resp"] * p["s2"] + p[k] * (1 - p["s2"])
        for k in ("p5_a1m_nr_a2p", "p6_a1m_nr_a2m")
    ]
    return regimes(np.stack(first + second, axis=1), ["1", "2", "3", "4"])


def test_the_smartbayesr_example(smart):
    """Monte-Carlo error: theirs from 10,000 draws, about .006 for the limits and .005 for P(best)."""
    found = set_of_best(smart, "log odds ratio")
    theirs = REFERENCE["vignette_1e4"]
    assert np.allclose(found.table["mean"], REFERENCE["exact_posterior_mean"], atol=6e-4)
    assert np.allclose(
        found.table["upper"], list(theirs["mcb_upper"]["log-OR"].values()), atol=0.03
    )
    assert found.names == ["3", "4"]
    assert found.reference == "4"
    risk = set_of_best(smart, "log risk ratio").table["upper"]
    assert np.allclose(risk, list(theirs["mcb_upper"]["log-RR"].values()), atol=0.03)
    assert np.allclose(ranks(smart).table["p_best"], theirs["prob_best"], atol=0.02)
    row = compare(smart, "3").table.loc["4 minus 3"]
    expected = theirs["diff_4_minus"]["vs3"]
    assert np.allclose(row[["mean", "lower", "upper", "p_better"]], expected, atol=0.02)


def test_simultaneous_limits_of_normal_advantages():
    """Limits mean + c sd with P(max z <= c) = .95 for the known correlation of the contrasts."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(400_000, 3)) * [1.0, 1.0, 1.0] + [0.0, 0.5, 3.0]
    found = set_of_best(regimes(x)).table["upper"].to_numpy()
    both = multivariate_normal(cov=[[1, 0.5], [0.5, 1]])
    grid = np.linspace(1.5, 2.5, 2001)
    c = grid[np.searchsorted([both.cdf([g, g]) for g in grid[::20]], 0.95) * 20]
    # Density at the limit .07/sd: the quantile's standard error is about .005 of an SD.
    assert np.allclose(found, [-3 + c * np.sqrt(2), -2.5 + c * np.sqrt(2), 0], atol=0.03)


def test_a_regime_twice_changes_no_limit(smart):
    twice = xr.concat([smart, smart.sel(regime=["4"]).assign_coords(regime=["again"])], "regime")
    one, other = set_of_best(smart).table["upper"], set_of_best(twice).table["upper"]
    assert np.allclose(one, other.drop("again"))


def test_limits_hold_together_at_the_level():
    rng = np.random.default_rng(4)
    x = rng.gamma(2.0, size=(20_000, 5)) * np.arange(1, 6)
    table = set_of_best(regimes(x), level=0.9).table
    advantage = x - x[:, [4]]
    share = (advantage <= table["upper"].to_numpy()).all(axis=1).mean()
    assert share == pytest.approx(0.9, abs=1e-3)


def test_lower_is_better_mirrors_everything(smart):
    flipped = 1 - smart
    assert ranks(flipped, higher_is_better=False).table.equals(ranks(smart).table)
    for scale in ("difference", "log odds ratio"):
        one, other = set_of_best(smart, scale), set_of_best(flipped, scale, higher_is_better=False)
        assert np.allclose(one.table["upper"], other.table["upper"])
        assert one.names == other.names
    one = compare(smart).table["p_better"]
    assert np.allclose(one, compare(flipped, higher_is_better=False).table["p_better"])


def test_contrasts_are_taken_within_draws():
    """A contrast of medians, intervals or means of ratios would all be something else."""
    rng = np.random.default_rng(6)
    base = rng.normal(10, 2, size=(1000, 1))
    noise = rng.normal(0, 0.01, size=(1000, 2))
    draws = regimes(base + noise + np.array([0.0, 1.0]), ["a", "b"])
    table = compare(draws).table.loc["b minus a"]
    assert table["sd"] < 0.02
    assert table["upper"] - table["lower"] < 0.08
    ratio = compare(draws, scale="ratio").table.loc["b / a"]
    x = draws.to_numpy()
    assert ratio["mean"] == pytest.approx((x[:, 1] / x[:, 0]).mean())
    assert ratio["mean"] != pytest.approx(x[:, 1].mean() / x[:, 0].mean(), rel=1e-4)
    assert ratio["p_better"] == 1.0


def test_regimes_that_are_the_same_share_their_ranks():
    x = np.random.default_rng(8).normal(size=(4000, 3))
    x[:, 1] = x[:, 0]
    table = ranks(regimes(x)).table
    assert table["p_best"].sum() == pytest.approx(1)
    assert table.loc["r1"].equals(table.loc["r2"])
    assert np.allclose(table.filter(like="p_rank").sum(axis=0), 1)
    assert table["mean_rank"].sum() == pytest.approx(6)
    assert compare(regimes(x)).table.loc["r2 minus r1", "p_better"] == 0.5


def test_other_dims_are_kept():
    values = np.random.default_rng(1).normal(size=(2, 30, 3, 2))
    draws = xr.DataArray(
        values,
        dims=("chain", "draw", "regime", "site"),
        coords={"regime": list("abc"), "site": ["s", "t"]},
    )
    table = compare(draws, "b").table
    assert table.index.names == ["contrast", "site"]
    assert list(table.index[:3]) == [("a minus b", "s"), ("a minus b", "t"), ("c minus b", "s")]
    by_hand = values[:, :, 2, 0] - values[:, :, 1, 0]
    assert table.loc[("c minus b", "s"), "sd"] == pytest.approx(by_hand.std(ddof=1))
    best = ranks(draws).table["p_best"]
    assert best.index.names == ["regime", "site"]
    assert best.loc[("c", "t")] == pytest.approx((values[..., 1].argmax(axis=2) == 2).mean())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: compare(d, "r9"), "reference='r9': allowed are 'r1', 'r2'"),
        (lambda d: compare(d, scale="odds"), "scale='odds': allowed are 'difference'"),
        (lambda d: compare(d, scale="log odds ratio"), "needs values between 0 and 1; these reach"),
        (lambda d: compare(d.rename(regime="arm")), "they need the dim 'regime'"),
        (lambda d: compare(d, interval=95), "interval=95"),
        (lambda d: compare(d.isel(regime=[0])), "one regime alone"),
        (lambda d: set_of_best(d, level=95), "level=95"),
        (lambda d: set_of_best(d, "ratio"), "use 'log risk ratio'"),
        (lambda d: set_of_best(d.isel(regime=[0])), "two regimes or more"),
        (lambda d: set_of_best(d.expand_dims(site=["s"])), "choose one site first"),
    ],
)  # fmt: skip
def test_wrong_arguments(call, message):
    draws = regimes(np.random.default_rng(1).normal(size=(100, 2)))
    with pytest.raises(ValueError, match=message):
        call(draws)


def test_normal_quantiles_are_those_of_the_interval():
    x = np.random.default_rng(3).normal(size=(300_000, 2)) + np.array([0.0, 1.0])
    row = compare(regimes(x), interval=0.8).table.iloc[0]
    half = norm.ppf(0.9) * np.sqrt(2)
    assert np.allclose(row[["lower", "upper"]], [1 - half, 1 + half], atol=0.03)
