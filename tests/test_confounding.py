"""Confounders of known strength: the shifted analysis finds the truth, tipping points that of refits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bdtr
from bdtr.backward.passes import sets_of_passes
from bdtr.backward.policies import payoff_sd
from bdtr.checks.confounding import confounded, tipping_points, tipping_regime
from bdtr.trial.priors import Normal

N = 6000
APART = 0.4  # E[Y(a) | A = a] - E[Y(a) | A != a], for either action


def confounded_data(stages, seed=1):
    """At each stage U ~ Bernoulli(1/2) decides on A (probability .3 or .7) and adds 1 to Y."""
    rng = np.random.default_rng(seed)
    frame, y = pd.DataFrame({"x": rng.normal(size=N)}), rng.normal(size=N)
    for k in range(1, stages + 1):
        u = rng.integers(0, 2, N)
        frame[f"a{k}"] = (rng.random(N) < 0.3 + 0.4 * u).astype(int)
        y = y + 0.2 * frame[f"a{k}"] + u
    return frame.assign(y=y + 0.5 * frame["x"])


def fitted(frame, stages, higher_is_better=True):
    formulas = ["x + a1", "x + a1 + a2"][:stages]
    own = [bdtr.Stage(f"a{k + 1}", actions=[0, 1], formula=f) for k, f in enumerate(formulas)]
    trial = bdtr.Trial(own, outcome="y", higher_is_better=higher_is_better)
    return bdtr.fit(trial, frame, sampler="direct", draws=250, random_seed=2, progress=False)


@pytest.fixture(scope="module")
def one():
    return fitted(confounded_data(1), 1)


@pytest.fixture(scope="module")
def two():
    return fitted(confounded_data(2), 2)


def both(stages, size=APART):
    return {f"a{k}": {1: size, 0: -size} for k in range(1, stages + 1)}


def test_the_right_delta_finds_the_truth(one, two):
    """True values: .5 of each U, .2 of each action taken; SE of a difference about .026 a stage."""
    for fit, stages in ((one, 1), (two, 2)):
        regimes = [bdtr.static(**{f"a{k}": a for k in range(1, stages + 1)}) for a in (0, 1)]
        found = confounded(fit, both(stages), *regimes)
        table = found.table
        none, all_ = (table.loc[r.name] for r in regimes)
        error = 3 * 0.03 * np.sqrt(stages)
        assert none["mean"] == pytest.approx(0.5 * stages, abs=error)
        assert all_["mean"] == pytest.approx(0.7 * stages, abs=error)
        # Without it, those who took an action look better than all would under it.
        assert none["unconfounded"] == pytest.approx((0.5 - 0.2) * stages, abs=error)
        assert all_["unconfounded"] == pytest.approx((0.7 + 0.2) * stages, abs=error)


def test_no_confounder_changes_nothing(two):
    regime = bdtr.static(a1=1, a2=0)
    found = confounded(two, both(2, 0.0), regime)
    plain = bdtr.value(two, regime)
    assert found.table["mean"].iloc[0] == pytest.approx(plain.table["mean"].iloc[0], abs=1e-9)
    assert np.allclose(found.draws["value"], found.draws["unconfounded"])


def test_the_recommended_regime_is_learned_under_the_confounder(two):
    """At a strength that turns both blips round, nobody is recommended the action."""
    found = confounded(two, both(2, 1.0), bdtr.recommended(), bdtr.static("none", a1=0, a2=0))
    table = found.table
    assert table.loc["recommended", "mean"] == pytest.approx(table.loc["none", "mean"], abs=1e-2)
    assert table.loc["recommended", "unconfounded"] > table.loc["none", "unconfounded"] + 0.5
    assert np.isnan(table.loc["recommended", "p_best"])


def test_a_prior_widens_values_by_its_share(one):
    """V(1) = mean Q(1) - P(A != 1) c: the variance of c times P^2 is added."""
    regime = bdtr.static(a1=1)
    found = confounded(one, {"a1": {1: Normal(0.4, 0.3)}}, regime)
    share = 1 - one.data.frame["a1"].astype(int).mean()
    plain = confounded(one, {"a1": {1: 0.4}}, regime).table.iloc[0]
    row = found.table.iloc[0]
    # 1,000 draws: 2 % of the SD, and 3 standard errors of the mean.
    assert row["sd"] == pytest.approx(np.hypot(plain["sd"], 0.3 * share), rel=0.07)
    assert row["mean"] == pytest.approx(plain["mean"], abs=3 * 0.15 / np.sqrt(1000))
    assert "a1: 1 Normal(0.4, 0.3)" in found.caption


def test_confounding_may_depend_on_history(one):
    high = confounded(one, {"a1": {1: lambda h: 0.4 * (h["x"] > 0)}}, bdtr.static(a1=1)).table
    half = confounded(one, {"a1": {1: 0.2}}, bdtr.static(a1=1)).table
    assert high["mean"].iloc[0] == pytest.approx(half["mean"].iloc[0], abs=0.01)


def test_sizes_in_sds(one):
    sd = one.data.outcome.std(ddof=1)
    for regime in (bdtr.static(a1=1), bdtr.recommended()):
        in_sds = confounded(one, {"a1": {1: 0.1}}, regime, scale="sd")
        plain = confounded(one, {"a1": {1: 0.1 * sd}}, regime)
        assert in_sds.table["mean"].iloc[0] == pytest.approx(plain.table["mean"].iloc[0])


def test_the_tipping_point_is_that_of_refits(one):
    """Y - c(A) P(A != taken) refitted: the delta at which the blip is zero, by bisection."""
    frame = confounded_data(1)
    share = frame["a1"].mean()
    mirror = np.where(
        frame["a1"] == 1, 1 - share, -share
    )  # P(A != a) of the action taken, with its sign

    def blip(delta):
        own = fitted(frame.assign(y=frame["y"] - delta * mirror), 1)
        return own.posterior(0)["b"].sel(term="a1[1]").mean().item()

    low, high = 0.0, 2.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if blip(middle) > 0 else (low, middle)
    found = tipping_points(one, "a1").table.loc["0 - 1"]
    assert found["delta"] == pytest.approx(-(low + high) / 2, abs=0.005)
    assert found["delta"] == pytest.approx(found["blip"], rel=1e-6)  # P(A != 0) + P(A != 1) = 1
    assert found["lower"] < found["delta"] < found["upper"]


def test_changed_recommendations(one):
    table = tipping_points(one, "a1", sizes=(0.01, 5.0)).changed
    assert table["changed"].tolist() == [0.0, 1.0]


def test_the_best_regime_tips_where_the_blip_does(one):
    regimes = [bdtr.static(a1=a) for a in (0, 1)]
    before = list(sets_of_passes(one))
    found = tipping_regime(one, "a1", (1, 0), regimes, most=2.0, steps=10)
    assert list(sets_of_passes(one)) == before  # the fit keeps none of the passes
    expected = -tipping_points(one, "a1").table["delta"].iloc[0]
    assert found.loc["upwards", "delta"] == pytest.approx(expected, abs=found["error"].iloc[0])
    assert found.loc["upwards", "beyond"] == "0"
    assert np.isnan(found.loc["downwards", "delta"])
    assert found["best"].eq("1").all()


def test_other_numbers_under_the_same_words_are_other_passes(two):
    """Functions without a name, and other treatment probabilities, at a stage that is propagated."""
    regime = bdtr.static(a1=1, a2=1)

    def mean(confounding, **options):
        return confounded(two, confounding, regime, **options).table["mean"].iloc[0]

    strong, none = (mean({"a2": {1: lambda h, c=c: c + 0.0 * h["x"]}}) for c in (2.0, 0.0))
    assert strong < none - 0.5
    even, odd = (mean({"a2": {1: 1.0}}, probabilities={"a2": {0: 1 - p, 1: p}}) for p in (0.5, 0.9))
    assert odd == pytest.approx(even + 0.4, abs=0.02)


def test_an_untailored_rule_is_learned_under_the_confounder_as_well(two):
    table = confounded(
        two, both(2, 1.0), bdtr.recommended(), bdtr.recommended(tailored=False)
    ).table
    assert table["mean"].iloc[0] == pytest.approx(table["mean"].iloc[1], abs=1e-2)


def test_regimes_of_two_stages_tip(two):
    """Stage 2 alone: the regime with a2 = 0 is the best beyond the tipping point of its blip."""
    regimes = [bdtr.static(a1=1, a2=a) for a in (0, 1)]
    found = tipping_regime(two, "a2", (1, 0), regimes, most=2.0, steps=7)
    expected = -tipping_points(two, "a2").table["delta"].iloc[0]
    assert found.loc["upwards", "delta"] == pytest.approx(expected, abs=0.05)


def test_where_lower_is_better_it_is_the_mirror_image(one):
    down = fitted(confounded_data(1).eval("y = -y"), 1, higher_is_better=False)
    regimes = [bdtr.static(a1=1), bdtr.recommended()]
    up = confounded(one, both(1), *regimes).table["mean"]
    other = confounded(down, both(1, -APART), *regimes).table["mean"]
    assert np.allclose(up, -other, atol=0.02)
    assert tipping_points(down, "a1").table["delta"].iloc[0] == pytest.approx(
        -tipping_points(one, "a1").table["delta"].iloc[0], abs=0.02
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: confounded(f, {"a9": {1: 1}}), "stage='a9'"),
        (lambda f: confounded(f, {"a1": {"x": 1}}), r"confounding\['a1'\]\(='x'\): the actions"),
        (lambda f: confounded(f, {"a1": {1: "big"}}), "'big' is no size"),
        (
            lambda f: confounded(f, {"a1": {1: lambda h: [1.0]}}),
            "a number for each of the 6,000 rows",
        ),
        (lambda f: confounded(f, {}, scale="g"), "scale='g'"),
        (lambda f: tipping_regime(f, "a1", (1, 0), [bdtr.static(a1=1)]), "name two or more"),
    ],
)
def test_wrong_arguments(one, call, message):
    with pytest.raises(ValueError, match=message):
        call(one)


def test_sizes_far_from_the_payoff(two):
    """Beyond them stage 1 would be fitted with priors that no longer hold: at 10,000 SDs its value was the
    one without a confounder."""
    best = bdtr.static(a1=1, a2=1)
    found = confounded(two, {"a2": {1: 30}}, best, scale="sd").table.iloc[0]
    unit, others = payoff_sd(two), 0.5
    shift = found["unconfounded"] - found["mean"]
    assert shift == pytest.approx(30 * unit * others, rel=0.02)
    prices = {"a2": {0: 1e6, 1: 1e6}}
    for call in (
        lambda: confounded(two, {"a2": {1: 10_000}}, best, scale="sd"),
        lambda: confounded(two, {"a2": {1: Normal(0, 1e6)}}, best),
        lambda: tipping_regime(two, "a2", (1, 0), [best, bdtr.static(a1=0, a2=0)], most=1e6),
        lambda: bdtr.decisions.plan(two, "a1", prices=prices),
    ):
        with pytest.raises(ValueError, match="more than 100 SDs"):
            call()
