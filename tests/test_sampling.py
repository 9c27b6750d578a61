"""PyMC's plain model of a stage and the exact engine: the same posterior, the same variables."""

from __future__ import annotations

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from agreement import check_same

import bdtr
from bdtr.stages.sampling import SamplingError, _complete


def _stage_two(fit) -> xr.Dataset:
    return fit.tree["stage_2/posterior"].to_dataset()


@pytest.fixture(params=["clinic_fit", "clinic_fit_pymc"])
def exact(request):
    """A fit by one of the two samplers of the marginal density."""
    return request.getfixturevalue(request.param)


def test_all_samplers_store_the_same_variables(exact, clinic_fit_plain):
    direct, nuts = _stage_two(exact), _stage_two(clinic_fit_plain)
    assert set(direct.data_vars) == set(nuts.data_vars)
    for name in direct.data_vars:
        assert direct[name].dims == nuts[name].dims, name
        for dim in direct[name].dims[2:]:
            assert direct[dim].to_numpy().tolist() == nuts[dim].to_numpy().tolist()


def test_all_samplers_have_the_same_posterior(exact, clinic_fit_plain):
    check_same(_stage_two(exact), _stage_two(clinic_fit_plain))


def test_arviz_works_on_a_stage_of_the_tree(clinic_fit_pymc):
    table = az.summary(
        clinic_fit_pymc.tree["stage_2"], var_names=["b"], ci_prob=0.95, ci_kind="eti"
    )
    assert list(table.index) == [f"b[{t}]" for t in clinic_fit_pymc.designs[1].terms]


@pytest.mark.parametrize("sampler", ["pymc", "direct"])
def test_bernoulli_outcomes_and_propagation_from_them(sampler):
    """P(Y = 1) by cell of a saturated two-stage design has a Beta posterior."""
    rng = np.random.default_rng(2)
    n = 1200
    frame = pd.DataFrame({"a": rng.integers(0, 2, n), "b": rng.integers(0, 2, n)})
    p = np.array([[0.3, 0.5], [0.6, 0.35]])[frame["a"], frame["b"]]
    frame["y"] = (rng.random(n) < p).astype(int)
    stages = [
        bdtr.Stage("a", actions=[0, 1], formula="a"),
        bdtr.Stage("b", actions=[0, 1], formula="a * b"),
    ]
    trial = bdtr.Trial(stages, outcome="y", family="bernoulli")
    fit = bdtr.fit(trial, frame, sampler=sampler, random_seed=4, progress=False)
    assert fit.state.level != "refused"
    values = bdtr.value(fit, *bdtr.embedded(fit)).table
    for a in (0, 1):
        for b in (0, 1):
            cell = frame[(frame["a"] == a) & (frame["b"] == b)]["y"]
            mean = (cell.sum() + 1) / (len(cell) + 2)
            sd = np.sqrt(mean * (1 - mean) / (len(cell) + 3))
            row = values.loc[f"{a}; {b}"]
            assert row["mean"] == pytest.approx(mean, abs=0.25 * sd)
            assert row["sd"] == pytest.approx(sd, rel=0.15)


def test_incomplete_draws_do_not_pass():
    good = xr.Dataset({"b": (("chain", "draw", "term"), np.zeros((4, 10, 2)))})
    assert _complete(good, 4, 10) is good
    with pytest.raises(SamplingError, match=r"Asked for 4 chains of 20 draws and got 4 of 10"):
        _complete(good, 4, 20)
    with pytest.raises(SamplingError, match="got 0 of 0"):
        _complete(xr.Dataset(), 4, 20)
    torn = good.copy(deep=True)
    torn["b"][2, 5:] = np.nan
    with pytest.raises(SamplingError, match="Draws of b are not finite"):
        _complete(torn, 4, 10)
