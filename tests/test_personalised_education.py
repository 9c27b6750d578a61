"""The textbook single-stage case of personalised education, against DynTxRegime 4.15 and least squares.

X1 ~ U(0, 4), X2 ~ N(0, SD 4), A ~ Bernoulli(1/2), Y = 2 + 1.5 A + 0.5 X1 + 0.3 X2 + 0.2 X2 A + N(0, 1).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bdtr

REFERENCE = Path(__file__).parent / "reference"
EXPECTED = json.loads((REFERENCE / "education_qlearn.json").read_text())
TERMS = {"Intercept": "(Intercept)", "X1": "X1", "X2": "X2", "A[1]": "A", "A[1]:X2": "X2:A"}


@pytest.fixture(scope="module")
def pupils():
    return pd.read_csv(REFERENCE / "education_qlearn.csv")


@pytest.fixture(scope="module")
def fit(pupils):
    wide = {term: bdtr.trial.Normal(0, 100) for term in TERMS}
    stage = bdtr.Stage("A", actions=[0, 1], formula="X1 + A * X2", priors=wide)
    trial = bdtr.Trial([stage], outcome="Y")
    return bdtr.fit(
        trial,
        pupils,
        sampler="direct",
        draws=2500,
        propagated=10_000,
        random_seed=7,
        progress=False,
    )


def test_coefficients_agree(fit):
    table = fit.summary().table.droplevel("stage")
    for ours, theirs in TERMS.items():
        row = table.loc[f"b[{ours}]"]
        dyn = EXPECTED["coef"][f"outcome.Combined.{theirs}"]
        assert abs(row["mean"] - dyn) < 0.2 * row["sd"], ours
        width = EXPECTED["lm_ci95_high"][theirs] - EXPECTED["lm_ci95_low"][theirs]
        assert row["upper"] - row["lower"] == pytest.approx(width, rel=0.05), ours


def test_recommended_actions_agree(fit, pupils):
    actions = bdtr.recommend(fit, pupils).actions
    assert len(actions) == 1000
    ours = actions["action"].astype(int).to_numpy()
    assert (ours == pupils["opt_qlearn"]).sum() >= 995


def test_value_agrees(fit):
    table = bdtr.value(fit, bdtr.recommended(fit)).table
    assert table.loc["recommended", "mean"] == pytest.approx(EXPECTED["estimator"], abs=0.01)


def test_q_functions_agree(fit, pupils):
    table = bdtr.recommend(fit, pupils.head(50)).table.pivot(
        index="unit", columns="action", values="q_mean"
    )
    table = table.loc[[str(i) for i in range(50)]]
    assert np.allclose(table["0"], pupils["Q0"].head(50), atol=0.02)
    assert np.allclose(table["1"], pupils["Q1"].head(50), atol=0.02)


def test_p_optimal_is_the_probability_that_the_blip_is_positive(fit, pupils):
    draws = fit.tree["stage_1/posterior"].to_dataset()["b"].stack(sample=("chain", "draw"))
    blip = (
        draws.sel(term="A[1]").to_numpy()
        + draws.sel(term="A[1]:X2").to_numpy() * pupils["X2"].to_numpy()[:, None]
    )
    table = bdtr.recommend(fit, pupils).table
    ours = table[table["action"] == "1"]["p_optimal"].to_numpy()
    assert np.allclose(ours, (blip > 0).mean(axis=1), atol=1e-12)
