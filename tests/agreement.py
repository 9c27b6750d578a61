"""Whether two posteriors are the same, within Monte-Carlo error."""

from __future__ import annotations

import arviz as az
import numpy as np
import xarray as xr


def check_same(one: xr.Dataset, other: xr.Dataset) -> None:
    """Means, SDs and quantiles of all parameters, within 5 Monte-Carlo standard errors.

    The designs of test_posterior_agreement have some 17,000 such numbers: one run in a hundred has one
    beyond.
    """
    assert set(one.data_vars) == set(other.data_vars)
    for name in one.data_vars:
        pair = [_scalars(data[name]) for data in (one, other)]
        for what in ("mean", "sd", 0.05, 0.5, 0.95):
            values, errors = zip(*(_estimate(data, what) for data in pair), strict=True)
            z = (values[0] - values[1]) / np.hypot(*errors)
            assert np.abs(z).max() < 5.0, (name, what, z)


def _scalars(data: xr.DataArray) -> xr.DataArray:
    """Every number that varies, once: of a correlation matrix the entries below the diagonal."""
    if str(data.name).startswith("cor_"):
        rows, columns = np.tril_indices(data.shape[-1], -1)
        data = xr.DataArray(
            data.to_numpy()[:, :, rows, columns], dims=("chain", "draw", "pair"), name=data.name
        )
    return data


def _estimate(data: xr.DataArray, what: str | float) -> tuple[np.ndarray, np.ndarray]:
    dims = ("chain", "draw")
    if isinstance(what, float):
        error = az.mcse(data, method="quantile", prob=what)
        return data.quantile(what, dims).to_numpy(), error.to_numpy()
    value = data.mean(dims) if what == "mean" else data.std(dims)
    return value.to_numpy(), az.mcse(data, method=what).to_numpy()
