"""Two-stage multisite trials with a known truth: calibration, and uncertainty that passes between stages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from simulate import SECOND_STAGE, TwoStage

import bdtr
from bdtr.backward.passes import backward_pass
from bdtr.backward.propagation import accumulate, propagate

DATA_SETS = 20


def fit(frame, seed=1, **changes):
    settings = {"sampler": "direct", "draws": 250, "random_seed": seed, "progress": False}
    return bdtr.fit(TwoStage.trial(), frame, **{**settings, **changes})


def z_scores(fitted, k: int, truth: dict[str, float]) -> list[float]:
    b = fitted.tree[f"stage_{k}/posterior"].to_dataset()["b"]
    return [
        float((b.sel(term=t).mean() - v) / b.sel(term=t).std(("chain", "draw")))
        for t, v in truth.items()
    ]


# The recommended rule takes action 1 where the site's estimated blip is positive. Its blips are
# 0.3 + N(0, 0.2): the mean value is E max(0, blip) = 0.3 Phi(1.5) + 0.2 phi(1.5), less what is lost at
# sites whose blip is near zero, which is far below the posterior SD of the intercept.
FIRST_STAGE = {
    "Intercept": 1 + 0.3 * norm.cdf(1.5) + 0.2 * norm.pdf(1.5),
    "o1": 0.65,
    "a1[1]": 0.35,
}


@pytest.fixture(scope="module")
def scores():
    second, first = [], []
    for seed in range(DATA_SETS):
        frame = TwoStage().draw(seed)
        fitted = fit(frame, seed)
        assert fitted.state.level != "refused"
        second += z_scores(fitted, 2, SECOND_STAGE)
        first += z_scores(fitted, 1, FIRST_STAGE)
    return np.array(second), np.array(first)


def limits(count: int) -> tuple[float, float]:
    """99.9 % limits of the sum of squared z-scores where they are standard normal, by simulation."""
    sums = (np.random.default_rng(0).standard_normal((20_000, count)) ** 2).sum(axis=1)
    lower, upper = np.quantile(sums, [0.0005, 0.9995])
    return float(lower), float(upper)


def test_squared_z_scores_of_the_last_stage_are_calibrated(scores):
    second, _ = scores
    lower, upper = limits(second.size)
    assert lower < (second**2).sum() < upper


def test_squared_z_scores_of_the_first_stage_are_calibrated(scores):
    _, first = scores
    lower, upper = limits(first.size)
    assert lower < (first**2).sum() < upper


def test_first_stage_posterior_widens_with_the_noise_of_the_second():
    """Plugging in estimates would leave the first stage as sure as before."""
    quiet, loud = (
        TwoStage(sites=20, per_site=50, noise=0.5),
        TwoStage(sites=20, per_site=50, noise=4.0),
    )
    sds = []
    for study in (quiet, loud):
        values = bdtr.value(fit(study.draw(3)), bdtr.static(a1=0, a2=1), bdtr.static(a1=1, a2=1))
        sds.append(float(bdtr.compare(values).table["sd"].iloc[0]))
    assert sds[1] > 2 * sds[0]


def test_propagated_intervals_are_wider_than_plug_in_ones():
    """The stage-1 contrast of one fixed stage-2 estimate, against that of every draw."""
    fitted = fit(TwoStage(sites=20, per_site=50, noise=4.0).draw(3))
    data = fitted.require_data("the test")
    done = backward_pass(fitted)
    units = np.flatnonzero(data.stages[0].fitted)
    mean = np.concatenate([v.mean(axis=1) for _, v in done.responses(0, units)])
    model = fitted.model(0)
    same = np.repeat(mean[:, None], 1000, axis=1)
    totals = accumulate(model.rows, model.factors, [(slice(0, len(mean)), [same])])
    (drawn,) = propagate(model, totals, [None], np.random.SeedSequence(1), chains=4)
    plug_in = drawn.posterior
    full = fitted.tree["stage_1/posterior"].to_dataset()
    sd = [float(p["b"].sel(term="a1[1]").std()) for p in (full, plug_in)]
    assert sd[0] > 1.5 * sd[1]


def test_mirrored_payoff_gives_mirrored_answers():
    frame = TwoStage(sites=20, per_site=30).draw(5)
    up = fit(frame)
    trial = replace(TwoStage.trial(), higher_is_better=False)
    down = bdtr.fit(
        trial,
        frame.assign(y=-frame["y"]),
        sampler="direct",
        draws=250,
        random_seed=1,
        progress=False,
    )
    a, b = bdtr.recommend(up, frame).actions, bdtr.recommend(down, frame).actions
    agree = (a["action"] == b["action"]) | (a["p_optimal"] < 0.7)
    assert agree.mean() > 0.99
    values = [
        bdtr.value(f, bdtr.recommended()).table.loc["recommended", "mean"] for f in (up, down)
    ]
    assert values[0] == pytest.approx(-values[1], abs=0.02)


def test_the_same_seed_gives_the_same_fit():
    frame = TwoStage(sites=10, per_site=20).draw(1)
    trees = [fit(frame, seed).tree["stage_1/posterior"].to_dataset() for seed in (1, 1, 2)]
    assert trees[0].identical(trees[1])
    assert not trees[0].equals(trees[2])
