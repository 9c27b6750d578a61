"""Values that are missing not at random: what shifts of them change."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_imputation import smart, trial_of

import bdtr
from bdtr.checks.missing import _crossing
from bdtr.data.contents import DataError

GIVEN = {"draws": 200, "random_seed": 1, "imputations": 4}


def one_stage(n=400, seed=3):
    """Two arms, 1 apart; a third of the outcomes of the better one are missing."""
    rng = np.random.default_rng(seed)
    a = np.arange(n) % 2
    frame = pd.DataFrame({"a": a, "x": rng.normal(size=n)})
    frame["y"] = 1.0 * a + 0.5 * frame["x"] + rng.normal(size=n)
    frame.loc[(a == 1) & (rng.random(n) < 1 / 3), "y"] = np.nan
    stage = bdtr.Stage("a", actions=[0, 1], formula="x + a")
    return bdtr.Trial([stage], outcome="y"), frame


def test_the_tipping_point_is_the_difference_over_the_share_that_is_missing():
    """With a share p of an arm's outcomes shifted by s, its value moves by p s: it meets that of the other
    arm where s = difference / p."""
    trial, frame = one_stage()
    regimes = bdtr.static("one", a=1), bdtr.static("none", a=0)
    found = bdtr.checks.tipping_missing(
        trial, frame, {"y": {1: -6.0}}, *regimes, sizes=[0.25, 0.7, 1.0], **GIVEN
    )
    at = found.table["mean"].unstack("regime")
    share = frame["y"].isna()[frame["a"] == 1].mean()
    apart = at.loc[0.0, "one"] - at.loc[0.0, "none"]
    assert at.loc[1.0, "one"] - at.loc[0.0, "one"] == pytest.approx(-6.0 * share, rel=0.05)
    row = found.tipping.loc["upwards"]
    assert row["size"] == pytest.approx(apart / (6.0 * share), rel=0.05)
    assert (row["best"], row["beyond"]) == ("one", "none")
    assert row["action_changes"] == pytest.approx(row["size"], rel=0.05)  # nobody is tailored to
    assert np.isnan(found.tipping.loc["downwards", "size"])
    assert found.changed["a"].tolist() == [0.0, 0.0, 1.0, 1.0]


def test_size_nought_and_one_are_the_fits_with_and_without_the_shift():
    _, frame = smart(300, 5)
    shift, regimes = {"y": {1: -3.0}, "m": 1.0}, (bdtr.static(a1=1, a2=0), bdtr.recommended())
    found = bdtr.checks.tipping_missing(trial_of(frame), frame, shift, *regimes, sizes=[1], **GIVEN)
    for size, delta in ((0.0, {"y": 0.0, "m": 0.0}), (1.0, shift)):
        fit = bdtr.fit(
            trial_of(frame), frame, missing="impute", delta=delta, sampler="direct", progress=False,
            **GIVEN,
        )  # fmt: skip
        own = bdtr.value(fit, *regimes).table
        assert np.array_equal(found.table.loc[size, "mean"], own["mean"])


def test_a_crossing_is_between_two_sizes():
    means = {0.0: np.array([[1.0, 0.0]]), 1.0: np.array([[0.5, 1.5]]), -1.0: np.array([[2.0, 0.0]])}
    assert _crossing(means, 1.0) == (0.5, 1)
    assert _crossing(means, -1.0)[0] == np.inf


def test_what_cannot_be_shifted_is_an_error():
    trial, frame = one_stage()
    with pytest.raises(DataError, match="no value of it is missing"):
        bdtr.checks.tipping_missing(trial, frame, {"x": 1.0}, sizes=[1], **GIVEN)
    with pytest.raises(ValueError, match="one or more beside 0"):
        bdtr.checks.tipping_missing(trial, frame, {"y": 1.0}, sizes=[0], **GIVEN)
    with pytest.raises(ValueError, match="name a variable"):
        bdtr.checks.tipping_missing(trial, frame, {}, sizes=[1], **GIVEN)
