"""Q-values at sites that are not in the trial: one new site, and the average over such sites."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bdtr
from bdtr.data.check import check
from bdtr.data.stagecolumns import stage_design
from bdtr.stages.prediction import QFunction, StageDraws, unit_columns
from bdtr.trial.families import FAMILIES
from bdtr.trial.payoff import Payoff

SAMPLES = 100_000


@pytest.fixture(scope="module")
def stage():
    """Columns of a stage with random slopes, and draws in which only the new site's effects vary."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"site": np.repeat(list("pqrs"), 10), "x": rng.normal(size=40)})
    frame = frame.assign(a=rng.integers(0, 2, 40), y=rng.integers(0, 2, 40))
    own = bdtr.Stage("a", actions=[0, 1], formula="x + a + (1 + a | site)", site_means=False)
    trial = bdtr.Trial([own], outcome="y", site="site", family="bernoulli")
    data = check(trial, frame)
    design = stage_design(data, 0)
    root = np.array([[0.8, 0.0], [-0.3, 0.6]])
    many = np.ones((1, SAMPLES))
    draws = StageDraws(
        np.array([[0.4], [0.7], [-0.5]]) * many,
        {"site": rng.normal(size=(4, 2))[:, :, None] * many[None]},
        {"site": np.broadcast_to(root, (SAMPLES, 2, 2))},
        {"site": root @ rng.normal(size=(2, SAMPLES))},
    )
    return design, draws, unit_columns(design, data.frame.head(3))


def q_values(stage, family, sites):
    design, draws, columns = stage
    return QFunction(design, Payoff(FAMILIES[family]), draws, sites).evaluate(columns)


@pytest.mark.parametrize("family", ["gaussian", "bernoulli"])
def test_the_average_is_the_mean_of_new_sites(stage, family):
    """Quadrature on a curved link; four Monte-Carlo standard errors of the mean of 100,000 sites."""
    new, average = q_values(stage, family, "one new"), q_values(stage, family, "average")
    assert np.allclose(average, average[..., :1])
    error = 4 * new.std(axis=2) / np.sqrt(SAMPLES)
    assert (np.abs(new.mean(axis=2) - average[..., 0]) < error).all()


def test_all_units_of_a_new_site_share_its_effects(stage):
    """On the linear scale the action's effect at the new site is the same for every unit."""
    new = q_values(stage, "gaussian", "one new")
    blips = new[1] - new[0]
    assert np.allclose(blips, blips[0])
    assert blips[0].std() == pytest.approx(np.hypot(0.3, 0.6), rel=0.02)
    typical = q_values(stage, "gaussian", "typical")
    assert np.allclose(typical, q_values(stage, "gaussian", "average"))


def test_on_a_curved_link_the_average_is_not_that_of_a_typical_site(stage):
    average, typical = (q_values(stage, "bernoulli", s)[..., 0] for s in ("average", "typical"))
    assert (np.abs(average - 0.5) < np.abs(typical - 0.5)).all()
