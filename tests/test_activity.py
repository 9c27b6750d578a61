"""The simulated SMART is what its docstring says: values of regimes agree with its structural equations."""

from __future__ import annotations

import numpy as np
import pytest

import bdtr
from bdtr.datasets import activity, activity_trial


def true_value(coach, later, people=400_000, seed=0):
    """Mean steps if all followed the regime, over new clinics."""
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(people, 2)) * (0.6, 0.4)
    steps0 = np.clip(rng.normal(6, 1.5, people), 1, None)
    steps1 = steps0 + 0.5 + (0.4 + u[:, 1] - 0.15 * (steps0 - 6)) * coach + u[:, 0]
    steps1 += rng.normal(size=people)
    gain = np.where(steps1 - steps0 >= 1, 0.0, 0.2 + 0.3 * (6 - steps1)) * later
    return float((steps1 + 0.3 + gain).mean())


def test_values_agree_with_the_structural_equations():
    fit = bdtr.fit(
        activity_trial(), activity(4800, 60, 3), sampler="direct", draws=250, propagated=1000,
        random_seed=1, progress=False,
    )  # fmt: skip
    regimes = [bdtr.static(a1=a, a2=b) for a in ("app", "coach") for b in ("messages", "coach")]
    table = bdtr.value(fit, regimes, population="sites").table
    for (a, b), row in zip([(0, 0), (0, 1), (1, 0), (1, 1)], table.itertuples(), strict=True):
        # 60 clinics: the SD holds the clinics' spread; the truth's Monte-Carlo error is .003.
        assert row.mean == pytest.approx(true_value(a, b), abs=4 * row.sd)
        assert row.sd < 0.15


def test_the_data_are_the_same_every_time():
    frame = activity()
    assert frame.equals(activity())
    assert frame["a2"].isna().equals(frame["responder"] == 1)
    assert 0.3 < frame["responder"].mean() < 0.5
