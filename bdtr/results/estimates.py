"""Posterior summaries of labelled draws, taken last: mean, SD and equal-tailed interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from bdtr.results.arguments import probability

__all__ = ["estimates", "kind_of", "stacked", "with_labels"]


def kind_of(interval: float) -> str:
    """Kind and level of an interval in words."""
    probability("interval", interval)
    return f"{100 * interval:g} % equal-tailed interval"


def stacked(draws: xr.DataArray) -> xr.DataArray:
    """Draws with one dim ``sample``, last, in place of ``chain`` and ``draw``."""
    if "sample" not in draws.dims:
        draws = draws.stack(sample=("chain", "draw"), create_index=False)
    return draws.transpose(..., "sample")


def with_labels(found: np.ndarray, chains: int, dim: str, labels: Sequence[str]) -> xr.DataArray:
    """Draws of labelled quantities (quantity, sample), chains stacked, with dims ``chain, draw, dim``."""
    shaped = found.reshape(len(found), chains, -1)
    coords = {"chain": np.arange(chains), "draw": np.arange(shaped.shape[2]), dim: list(labels)}
    return xr.DataArray(shaped, coords, (dim, "chain", "draw")).transpose("chain", "draw", dim)


def estimates(draws: xr.DataArray, interval: float = 0.95) -> pd.DataFrame:
    """Mean, SD and equal-tailed interval of every labelled quantity.

    Parameters
    ----------
    draws
        Draws with dims ``chain, draw`` (or ``sample``) and others.
    interval
        Probability of the interval.

    Returns
    -------
    pandas.DataFrame
        ``mean, sd, lower, upper`` in the unit of the draws, indexed by the other dims.

    Raises
    ------
    ValueError
        If ``interval`` is no probability.

    Examples
    --------
    >>> draws = xr.DataArray([[1.0, 3.0]], dims=("site", "sample"), coords={"site": ["s1"]})
    >>> estimates(draws)["mean"].to_dict()
    {'s1': 2.0}
    """
    probability("interval", interval)
    flat = stacked(draws)
    names = [str(d) for d in flat.dims[:-1]]
    labels = [flat[d].to_numpy() for d in names]
    index = (
        pd.MultiIndex.from_product(labels, names=names)
        if len(names) != 1
        else pd.Index(labels[0], name=names[0])
    )
    values = flat.to_numpy().reshape(len(index), -1)
    tail = (1 - interval) / 2
    lower, upper = np.quantile(values, [tail, 1 - tail], axis=1)
    found = {"mean": values.mean(axis=1), "sd": values.std(axis=1, ddof=1)}
    return pd.DataFrame({**found, "lower": lower, "upper": upper}, index=index)
