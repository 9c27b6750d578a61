"""Three stages, rewards, and units that have no decision: payoffs carried through, end to end."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bdtr

N = 4000


def study(seed: int = 0) -> pd.DataFrame:
    """Responders of stage 1 have no decision at stage 2; everyone has one at stage 3.

    r1 = 0.5 a1 + N(0, .5); responder with probability 1/2;
    r2 = 1 for responders, else 0.8 a2 - 0.3 + N(0, .5); y = 0.4 a3 x + N(0, 1), x = +-1.
    Best: a1 = 1, a2 = 1, a3 = [x > 0]; the value is 0.5 + (1 + 0.5) / 2 + 0.2 = 1.45.
    """
    rng = np.random.default_rng(seed)
    a1, a2, a3 = rng.integers(0, 2, (3, N))
    responder = rng.integers(0, 2, N)
    x = rng.choice([-1, 1], N)
    r1 = 0.5 * a1 + 0.5 * rng.standard_normal(N)
    r2 = np.where(responder == 1, 1.0, 0.8 * a2 - 0.3) + 0.5 * rng.standard_normal(N)
    y = 0.4 * a3 * x + rng.standard_normal(N)
    frame = pd.DataFrame(
        {
            "a1": a1,
            "r1": r1,
            "responder": responder,
            "a2": a2 * 1.0,
            "r2": r2,
            "x": x,
            "a3": a3,
            "y": y,
        }
    )
    frame.loc[frame["responder"] == 1, "a2"] = np.nan
    return frame


def trial() -> bdtr.Trial:
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="a1", reward="r1"),
        bdtr.Stage("a2", actions=[0, 1], formula="a2", among="responder == 0", reward="r2"),
        bdtr.Stage("a3", actions=[0, 1], formula="x * a3"),
    ]
    return bdtr.Trial(stages, outcome="y")


@pytest.fixture(scope="module")
def fitted():
    return bdtr.fit(trial(), study(), sampler="direct", random_seed=1, progress=False, draws=250)


def test_flow_counts_those_without_a_decision(fitted):
    flow = fitted.flow[fitted.flow["stage"] == "a2"].set_index("step")["units"]
    responders = int((study()["responder"] == 1).sum())
    assert flow["no decision here (among)"] == responders
    assert flow["in the fit"] == N - responders


def test_value_of_the_best_rule_is_the_truth(fitted):
    row = bdtr.value(fitted, bdtr.recommended()).table.loc["recommended"]
    assert row["sd"] < 0.06
    assert abs(row["mean"] - 1.45) < 4 * row["sd"]
    one = bdtr.value(fitted, bdtr.static(a1=0, a2=0, a3=0)).table.iloc[0]
    assert abs(one["mean"] - (1 - 0.3) / 2) < 4 * one["sd"]


def test_stage_effects_are_those_of_the_generator(fitted):
    table = fitted.summary().table
    for stage, name, truth in (
        ("a1", "b[a1[1]]", 0.5),
        ("a2", "b[a2[1]]", 0.8),
        ("a3", "b[x:a3[1]]", 0.4),
    ):
        row = table.loc[(stage, name)]
        assert abs(row["mean"] - truth) < 4 * row["sd"], name


def test_recommendations_are_for_those_with_a_decision(fitted):
    frame = study()
    actions = bdtr.recommend(fitted, frame).actions
    counts = actions.groupby("stage").size()
    assert counts["a1"] == counts["a3"] == N
    assert counts["a2"] == (frame["responder"] == 0).sum()
    third = actions[actions["stage"] == "a3"]["action"].to_numpy()
    assert (third == np.where(frame["x"] > 0, "1", "0")).all()


def test_loaded_fits_run_further_passes(fitted, tmp_path):
    path = str(tmp_path / "three.nc")
    fitted.save(path)
    regime = bdtr.static(a1=1, a2=0, a3=1)
    ours, theirs = bdtr.value(bdtr.load(path), regime), bdtr.value(fitted, regime)
    assert ours.draws.equals(theirs.draws)
