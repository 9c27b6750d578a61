"""R-hat and effective sample sizes against ArviZ, quantity by quantity."""

from __future__ import annotations

import arviz as az
import numpy as np
import pytest
import xarray as xr

from bdtr.results.chains import measures, rhat


def chains(kind: str, draws: int) -> np.ndarray:
    """One quantity (chain, draw)."""
    rng = np.random.default_rng(len(kind) + draws)
    noise = rng.normal(size=(4, draws))
    if kind == "independent":
        return noise
    if kind == "sticky":
        out = noise.copy()
        for i in range(1, draws):
            out[:, i] = 0.95 * out[:, i - 1] + 0.3 * noise[:, i]
        return out
    if kind == "alternating":
        return noise + 2.0 * (-1.0) ** np.arange(draws)
    if kind == "apart":
        return noise + np.arange(4)[:, None]
    if kind == "spread apart":
        return noise * np.array([1.0, 1.0, 3.0, 1.0])[:, None]
    return np.round(noise)  # ties


@pytest.mark.parametrize("draws", [100, 101, 1000])
@pytest.mark.parametrize(
    "kind", ["independent", "sticky", "alternating", "apart", "spread apart", "ties"]
)
def test_measures_are_those_of_arviz(kind, draws):
    quantity = chains(kind, draws)
    both = np.stack([quantity, chains("independent", draws)])
    labelled = xr.DataArray(quantity, dims=("chain", "draw"))
    expected = (
        az.rhat(labelled),
        az.ess(labelled, method="bulk"),
        az.ess(labelled, method="tail", prob=(0.05, 0.95)),
    )
    found = [measure[0] for measure in measures(both)]
    assert found == pytest.approx([float(e) for e in expected], rel=1e-9)
    assert np.array_equal(rhat(both), measures(both)[0])


def test_quantities_in_several_parts_are_those_of_one(monkeypatch):
    draws = np.stack([chains(kind, 100) for kind in ("independent", "sticky", "apart")])
    whole = measures(draws)
    monkeypatch.setattr("bdtr.results.chains._CELLS", 1)
    for one, other in zip(whole, measures(draws), strict=True):
        assert np.array_equal(one, other)


def test_draws_that_do_not_vary_have_no_rhat():
    assert np.isnan(rhat(np.ones((1, 4, 100)))).all()


def test_fewer_than_four_draws_say_nothing():
    draws = np.random.default_rng(0).normal(size=(2, 4, 3))
    assert np.isnan(rhat(draws)).all()
    assert all(np.isnan(measure).all() for measure in measures(draws))
