"""Weighted and augmented values: by hand, with a wrong outcome model, and with units that leave."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats as st
from simulate import TwoStage

import bdtr
from bdtr.backward.passes import backward_pass
from bdtr.checks.opinion import second_opinion
from bdtr.stages.propensity import category_probabilities


def fitted(trial, frame, **settings):
    return bdtr.fit(
        trial,
        frame,
        sampler="direct",
        draws=125,
        propagated=500,
        random_seed=2,
        progress=False,
        **settings,
    )


def one_stage(seed, curved, units=400):
    """Who takes the action depends on x, by a known law; the payoff on x or on its square."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=units)
    chance = np.where(x > 0, 0.8, 0.2)
    a = (rng.random(units) < chance).astype(int)
    # The square is what the linear model misses where x is far from 0, where few take one of the actions.
    y = 0.3 * a + (0.5 * (x + x**2) if curved else 0.5 * x) * (1 + a) + rng.normal(size=units)
    truth = 0.3 + 2 * (0.5 if curved else 0.0)
    trial = bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula="x * a")], outcome="y")
    return (
        fitted(trial, pd.DataFrame({"x": x, "a": a, "y": y})),
        np.stack([1 - chance, chance], 1),
        truth,
    )


def test_a_wrong_model_is_found_out():
    """Of twelve data sets; in 200, see benchmarks/calibration_opinion.md."""
    found = []
    for seed in range(12):
        fit, chance, truth = one_stage(seed, curved=True)
        own = second_opinion(fit, bdtr.static(a=1), probabilities={"a": chance})
        rows = own.table.loc["1"]
        inside = (rows["lower"] <= truth) & (truth <= rows["upper"])
        found.append([inside["model"], inside["augmented"], own.followers["disagree"].iloc[0]])
    model, augmented, disagree = np.sum(found, axis=0)
    assert model <= 9
    assert augmented >= 9
    assert disagree >= 8
    assert own.state.level == "caution" or not found[-1][2]


def test_the_standard_error_of_the_difference():
    """A right linear model: D = w'(I - H) Y / n, what the columns leave of the weights times the noise."""
    fit, chance, _ = one_stage(5, curved=False)
    frame = fit.data.frame
    x, a = frame["x"].to_numpy(), frame["a"].astype(int).to_numpy()
    columns = np.column_stack([np.ones(400), x, a, x * a])
    weight = np.where(a == 1, 1 / chance[:, 1], 0.0)
    left = weight - columns @ np.linalg.lstsq(columns, weight, rcond=None)[0]
    expected = np.sqrt((left**2).sum()) / 400
    found = second_opinion(fit, bdtr.static(a=1), probabilities={"a": chance}, groups=50)
    # 50 groups: the SE of a standard error is a tenth of it; draws add a little.
    assert found.table.loc[("1", "difference"), "sd"] == pytest.approx(expected, rel=0.3)
    assert found.table.loc[("1", "difference"), "mean"] == pytest.approx(
        left @ fit.data.outcome / 400, abs=0.01
    )


def test_weighted_and_augmented_values_by_hand():
    fit, chance, _ = one_stage(1, curved=False)
    found = second_opinion(fit, bdtr.static(a=1), probabilities={"a": chance})
    frame = fit.data.frame
    on = frame["a"].astype(int).to_numpy() == 1
    weight = np.where(on, 1 / chance[:, 1], 0.0)
    y, q = fit.data.outcome, backward_pass(fit).q_values(0, np.arange(400))[1]
    table = found.table.loc["1", "mean"]
    # Bootstrap weights differ from equal ones by noise alone: 500 draws.
    assert table["model"] == pytest.approx(q.mean(), abs=0.02)
    assert table["weighted"] == pytest.approx((weight * y).sum() / weight.sum(), abs=0.03)
    by_hand = q.mean() + (weight[:, None] * (y[:, None] - q)).mean()
    assert table["augmented"] == pytest.approx(by_hand, abs=0.03)
    people = found.followers.loc["1"]
    assert people["followed"] == on.sum()
    assert people["effective"] == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    assert table["difference"] == pytest.approx(table["augmented"] - table["model"], abs=0.02)


@pytest.fixture(scope="module")
def two_stage():
    return fitted(TwoStage.trial(), TwoStage(sites=40, per_site=25).draw(4))


def test_two_stages_agree_with_the_truth(two_stage):
    """Y under (1, 1): 1 + .15 + .2 + .3 and site effects; known probabilities of one half."""
    u = TwoStage(sites=40, per_site=25).draw(4).attrs["u"]
    truth = 1.65 + u.sum(axis=1).mean() + 0.65 * two_stage.data.frame["o1"].mean()
    half = {0: 0.5, 1: 0.5}
    found = second_opinion(
        two_stage, bdtr.static(a1=1, a2=1), probabilities={"a1": half, "a2": half}
    )
    rows = found.table.loc["1, 1"]
    for by in ("model", "weighted", "augmented"):
        assert rows.loc[by, "mean"] == pytest.approx(truth, abs=3 * rows.loc[by, "sd"])
    assert not found.followers["disagree"].any()
    assert "Bayesian bootstrap over 40 sites" in found.caption
    assert rows.loc["weighted", "sd"] > rows.loc["augmented", "sd"]


def test_the_recommended_regime_is_cross_fitted(two_stage):
    found = second_opinion(two_stage, bdtr.recommended(), bdtr.static(a1=0, a2=0), groups=5)
    assert list(found.followers.index) == ["recommended, cross-fitted", "0, 0"]
    rows = found.table["mean"].unstack("by")["augmented"]
    assert rows["recommended, cross-fitted"] > rows["0, 0"]


def leavers(seed=3, units=4000):
    """Those with a low state in between leave more often; the payoff depends on that state."""
    rng = np.random.default_rng(seed)
    site, x = rng.integers(0, 20, units), rng.normal(size=units)
    a1, a2 = rng.integers(0, 2, (2, units))
    m = 0.5 * x + 0.5 * a1 + rng.normal(size=units)
    y = m + 0.3 * a2 + rng.normal(size=units)
    left = rng.random(units) < 1 / (1 + np.exp(2 * m))
    frame = pd.DataFrame({"site": site.astype(str), "x": x, "a1": a1, "m": m, "a2": a2, "y": y})
    frame.loc[left, ["a2", "y"]] = np.nan
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="x + a1 + (1 | site)"),
        bdtr.Stage("a2", actions=[0, 1], formula="x + a1 + m + a2 + (1 | site)"),
    ]
    return bdtr.Trial(stages, outcome="y", site="site"), frame


def test_leaving_is_weighed_by_history():
    """Truth under (1, 1): .5 + .3. Shares by site do not know the state and are wrong; the model does."""
    fit = fitted(*leavers(), missing="exclude")
    regime = bdtr.static(a1=1, a2=1)
    truth = 0.8 + 0.5 * fit.data.frame["x"].mean()
    half = {0: 0.5, 1: 0.5}
    known = {"a1": half, "a2": half}
    found = {
        way: second_opinion(fit, regime, probabilities=known, staying=way, groups=5).table.loc[
            "1, 1"
        ]
        for way in ("model", "shares")
    }
    for by in ("weighted", "augmented"):
        row = found["model"].loc[by]
        assert row["mean"] == pytest.approx(truth, abs=3 * row["sd"])
    apart = [abs(found[way].loc["weighted", "mean"] - truth) for way in ("model", "shares")]
    assert apart[1] > 0.2 > 2 * apart[0]
    # Augmented by a right outcome model it is right all the same.
    row = found["shares"].loc["augmented"]
    assert row["mean"] == pytest.approx(truth, abs=3 * row["sd"])


def test_leaving_that_depends_on_the_action_is_weighed_with_it():
    """Arms of 4:1, 60 % of the second leave, a model without x: weights must be those of both together."""
    rng = np.random.default_rng(7)
    n = 4000
    x, a = rng.normal(size=n), (rng.random(n) < 0.2).astype(int)
    y = x + 0.5 * a + rng.normal(size=n)
    y[(a == 1) & (rng.random(n) < np.where(x > 0, 0.8, 0.4))] = np.nan
    frame = pd.DataFrame(
        {"site": (np.arange(n) % 20).astype(str), "high": (x > 0) * 1, "a": a, "y": y}
    )
    stage = bdtr.Stage("a", actions=[0, 1], formula="high * a + (1 | site)", site_means=False)
    fit = fitted(bdtr.Trial([stage], outcome="y", site="site"), frame, missing="exclude")
    regime, truth = bdtr.static(a=1), 0.5
    found = second_opinion(fit, regime, groups=5).table.loc["1"]
    for by in ("weighted", "augmented"):
        assert found.loc[by, "mean"] == pytest.approx(truth, abs=3 * found.loc[by, "sd"])
    shares = second_opinion(fit, regime, staying="shares", groups=5)
    # By action: of all who took it, not of all together; the sum of weights is the number of units.
    weights = shares.followers.loc["1"]
    assert weights["effective"] > 0.8 * weights["followed"]


def test_probabilities_of_a_categorical_regression():
    """Three categories, one impossible for some, logits linear in x and different between sites."""
    rng = np.random.default_rng(1)
    n, sites = 6000, rng.integers(0, 15, 6000)
    x, u = rng.normal(size=(n, 2)), 0.7 * rng.normal(size=(15, 2))
    possible = np.ones((n, 3), dtype=bool)
    possible[rng.random(n) < 0.3, 2] = False
    eta = (
        np.column_stack([np.zeros(n), 0.5 + x[:, 0], -0.5 + x[:, 1]]) + np.c_[np.zeros(n), u[sites]]
    )
    p = np.where(possible, np.exp(eta), 0.0)
    p /= p.sum(axis=1, keepdims=True)
    category = (rng.random(n)[:, None] > p.cumsum(axis=1)).sum(axis=1)
    category[:100] = -1
    seed = np.random.SeedSequence(1)
    found = category_probabilities(x, sites, possible, category, seed)
    assert np.allclose(found.sum(axis=1), 1)
    assert (found[~possible] == 0).all()
    assert np.sqrt(((found - p) ** 2).mean()) < 0.025


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"staying": "always"}, "staying='always': allowed are 'model', 'shares'"),
        ({"probabilities": {"a9": None}}, "stage='a9'"),
        ({"groups": 2}, "groups=2: must be a whole number, at least 5"),
        ({"probabilities": {"a1": "logit"}}, "'logit' is not allowed; words are 'model', 'shares'"),
    ],
)
def test_wrong_arguments(two_stage, arguments, message):
    with pytest.raises(ValueError, match=message):
        second_opinion(two_stage, bdtr.static(a1=1, a2=1), **arguments)


def test_a_sound_model_of_one_stage_is_left_alone():
    """With the action in the formula, opinions differ by what the priors shrink, far less than an SD."""
    flagged = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x, a = rng.normal(size=400), rng.integers(0, 2, 400)
        frame = pd.DataFrame({"x": x, "a": a, "y": 2 * x + a + rng.normal(size=400)})
        trial = bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula="x * a")], outcome="y")
        own = second_opinion(fitted(trial, frame), bdtr.static(a=1))
        flagged += bool(own.followers["disagree"].iloc[0])
    assert flagged <= 2


def test_disagreement_is_judged_of_all_regimes_at_once(two_stage):
    """By t quantiles at 1 - .05 / 4 for four regimes; where all are sound hardly any call finds one."""
    regimes = [bdtr.static(a1=a, a2=b) for a in (0, 1) for b in (0, 1)]
    half = {0: 0.5, 1: 0.5}
    found = second_opinion(two_stage, *regimes, probabilities={"a1": half, "a2": half})
    table = found.table.xs("difference", level="by")
    t = (table["mean"] / table["sd"]).abs()
    size = table["mean"].abs() / found.table.xs("model", level="by")["sd"]
    expected = (t > st.t(19).ppf(1 - 0.05 / 8)) & (size > 0.2)
    assert found.followers["disagree"].to_dict() == expected.to_dict()
    half_width = (table["upper"] - table["mean"]) / table["sd"]
    assert half_width.to_numpy() == pytest.approx(st.t(19).ppf(0.975))


def history_decides(seed, units=1500):
    """P(a = 1) = expit(1.2 c) at both stages; always 1 is worth 2, as c has mean 0."""
    rng = np.random.default_rng(seed)

    def chance(c):
        return 1 / (1 + np.exp(-1.2 * c))

    c1 = rng.normal(size=units)
    a1 = (rng.random(units) < chance(c1)) * 1
    c2 = 0.5 * c1 + rng.normal(size=units)
    a2 = (rng.random(units) < chance(c2)) * 1
    y = c1 + c2 + a1 + a2 + rng.normal(size=units)
    frame = pd.DataFrame({"c1": c1, "a1": a1, "c2": c2, "a2": a2, "y": y})
    known = {k: np.stack([1 - chance(c), chance(c)], 1) for k, c in (("a1", c1), ("a2", c2))}
    return frame, known


def test_history_that_decides_is_modelled_by_default():
    """By known probabilities and by those of the model the weighted value is near 2, by shares 2.9."""
    frame, known = history_decides(5)
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="c1 * a1"),
        bdtr.Stage("a2", actions=[0, 1], formula="c1 + a1 + c2 * a2"),
    ]
    fit = fitted(bdtr.Trial(stages, outcome="y"), frame)
    always = bdtr.static("always", a1=1, a2=1)
    words = dict.fromkeys(known, "shares")
    right, modelled, shares = (
        second_opinion(fit, always, probabilities=p).table["mean"]["always", "weighted"]
        for p in (known, None, words)
    )
    assert right == pytest.approx(2, abs=0.4)
    assert modelled == pytest.approx(2, abs=0.4)
    assert shares > 2.6
    # That assignment goes with history is said by the fit.
    assert [r for r in fit.state.model_reasons if "balance" in r and "c1 by" in r]
