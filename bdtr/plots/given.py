"""What a figure is given: the table or the draws of a result, or the result itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import xarray as xr

from bdtr.results.errors import ArgumentError

__all__ = ["dataset_of", "draws_of", "result_of", "table_of"]


def table_of(name: str, given: Any, columns: Sequence[str], maker: str) -> pd.DataFrame:
    """A table with these columns or index levels and at least one row, or an error that names its maker."""
    table = given if isinstance(given, pd.DataFrame) else getattr(given, "table", None)
    if not isinstance(table, pd.DataFrame):
        raise ArgumentError(
            f"{name}: must be the table that {maker} makes, got {type(given).__name__}."
        )
    absent = [c for c in columns if c not in table.columns and c not in table.index.names]
    if absent:
        raise ArgumentError(
            f"{name}: lacks {', '.join(absent)}; give the table that {maker} makes."
        )
    if table.empty:
        raise ArgumentError(f"{name}: has no rows, so there is nothing to draw.")
    return table


def dataset_of(
    name: str, given: Any, variables: Sequence[str], dims: Sequence[str], maker: str
) -> xr.Dataset:
    """A data set of draws with these variables, each over these dims, or an error."""
    draws = given if isinstance(given, xr.Dataset) else getattr(given, "draws", None)
    if not isinstance(draws, xr.Dataset) or not set(variables) <= set(draws.data_vars):
        raise ArgumentError(
            f"{name}: must be the draws that {maker} makes, got {type(given).__name__}."
        )
    for variable in variables:
        _check_dims(name, draws[variable], dims, maker)
    return draws


def draws_of(name: str, given: Any, dims: Sequence[str], maker: str) -> xr.DataArray:
    """Draws over these dims, or an error."""
    draws = given if isinstance(given, xr.DataArray) else getattr(given, "draws", None)
    if not isinstance(draws, xr.DataArray):
        raise ArgumentError(
            f"{name}: must be the draws that {maker} makes, got {type(given).__name__}."
        )
    _check_dims(name, draws, dims, maker)
    return draws


def result_of(name: str, given: Any, parts: Sequence[str], maker: str) -> None:
    """Raise unless this has the parts of a result."""
    if isinstance(given, (pd.DataFrame, xr.Dataset)) or not all(hasattr(given, p) for p in parts):
        raise ArgumentError(f"{name}: must be what {maker} makes, got {type(given).__name__}.")


def _check_dims(name: str, draws: xr.DataArray, dims: Sequence[str], maker: str) -> None:
    if set(draws.dims) != set(dims):
        raise ArgumentError(
            f"{name}: must have the dims {', '.join(dims)}, as {maker} makes them; it has "
            f"{', '.join(map(str, draws.dims))}."
        )
