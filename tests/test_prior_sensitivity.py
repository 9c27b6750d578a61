"""Refits with wider and narrower priors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bdtr


def test_wider_priors_move_little_where_data_say_much(clinic_fit):
    found = bdtr.checks.prior_widths(clinic_fit, factors=(0.01, 2.0))
    mean = found.table["mean"].droplevel("regime")
    assert list(mean.index) == [0.01, 1.0, 2.0]
    assert abs(mean[2.0] - mean[1.0]) < 0.1 * found.table["sd"].max() + 0.02
    # Priors of a hundredth of their width hold every coefficient at zero: no blips, no value of tailoring.
    assert (found.changed.loc[1.0] == 0).all()
    assert abs(mean[0.01] - mean[1.0]) > abs(mean[2.0] - mean[1.0])
    with pytest.raises(ValueError, match="factors"):
        bdtr.checks.prior_widths(clinic_fit, factors=(0.0,))
    with pytest.raises(ValueError, match="propagated=150"):
        bdtr.checks.prior_widths(clinic_fit, propagated=150)


@pytest.mark.parametrize("draws", [1000, 250])
def test_defaults_go_with_any_number_of_propagated_draws(draws):
    """500 propagated draws of 4,000 or 1,000: no argument has to be given."""
    rng = np.random.default_rng(2)
    n = 200
    x, a1, a2 = rng.normal(size=n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    y = x + a1 + a2 * (0.2 + 0.5 * x) + rng.normal(size=n)
    frame = pd.DataFrame({"x": x, "a1": a1, "a2": a2, "y": y})
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="x * a1"),
        bdtr.Stage("a2", actions=[0, 1], formula="a1 + x * a2"),
    ]
    fit = bdtr.fit(
        bdtr.Trial(stages, outcome="y"), frame, sampler="direct", draws=draws, propagated=500,
        random_seed=1, progress=False,
    )  # fmt: skip
    found = bdtr.checks.prior_widths(fit)
    assert list(found.table["mean"].droplevel("regime").index) == [0.5, 1.0, 2.0]
    assert (found.changed.loc[1.0] == 0).all()
