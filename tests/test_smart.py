"""A published sequential trial with a binary outcome, through the package: SMARTbayesR's example."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bdtr
from bdtr.values.comparison import set_of_best

HERE = Path(__file__).parent / "reference"


@pytest.fixture(scope="module")
def values():
    """Responders (s = 1) are not randomised again and keep their outcome."""
    frame = pd.read_csv(HERE / "smartbayesr.csv")
    frame.loc[frame["s"] == 1, "a2"] = np.nan
    stages = [
        bdtr.Stage("a1", actions=[1, -1], formula="a1"),
        bdtr.Stage("a2", actions=[1, -1], formula="a1 * a2", among="s == 0"),
    ]
    trial = bdtr.Trial(stages, outcome="y", family="bernoulli")
    fit = bdtr.fit(trial, frame, draws=1000, random_seed=8, progress=False)
    return bdtr.value(fit, bdtr.embedded(fit))


def test_regime_means_are_the_exact_ones(values):
    """Exact under Beta(1, 1) cells; ours have weak normal priors and a linear stage 1: within .02."""
    exact = json.loads((HERE / "smartbayesr.json").read_text())["exact_posterior_mean"]
    assert list(values.table.index) == ["1; 1", "1; -1", "-1; 1", "-1; -1"]
    assert np.allclose(values.table["mean"], exact, atol=0.02)


def test_the_set_of_best_is_the_published_one(values):
    for scale in ("log odds ratio", "log risk ratio", "difference"):
        assert set_of_best(values, scale).names == ["-1; 1", "-1; -1"]
    assert values.table.loc["-1; -1", "p_best"] == pytest.approx(0.69, abs=0.08)
