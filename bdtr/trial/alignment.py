"""Values for each row of a table, given or by a function of it, those of pandas by their index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from bdtr.results.errors import ArgumentError, BdtrError

__all__ = ["aligned", "of_each_row"]


def aligned(
    values: Any, index: pd.Index | None, argument: str, error: type[BdtrError] = ArgumentError
) -> Any:
    """Values in the order of the rows of a table.

    A series or frame of pandas is put in their order by its index, which is that of the table or counts
    its rows from 0. What is not of pandas, or not of that length, comes back as it is.

    Parameters
    ----------
    values
        A value for each row, in whatever container.
    index
        The index of the table; None where it is not known.
    argument
        What the user calls the values, for messages.
    error
        Class of the error.

    Returns
    -------
    As given
        Values in order.

    Raises
    ------
    BdtrError
        If rows cannot be told by the index: it holds other labels, one label twice in another order, or
        the numbers of rows of a table whose own index has them in another order.
    """
    if not isinstance(values, pd.Series | pd.DataFrame):
        return values
    own = values.index
    if index is not None and (own.equals(index) or len(own) != len(index)):
        return values
    counted = pd.RangeIndex(len(own))
    ways = [counted] if index is None or index.equals(counted) else [index, counted]
    places = [own.get_indexer(way) for way in ways if way.is_unique and own.is_unique]
    found = [place for place in places if (place >= 0).all()]
    if len(found) == 1:
        return values.iloc[found[0]]
    if found:
        why = "may be that of the data or count their rows, which stand in another order"
    elif index is None:
        why = "does not count the rows, and that of the data is not kept in a saved fit"
    else:
        why = "is not that of the rows"
    labels = ", ".join(map(repr, own[:3].tolist()))
    raise error(
        f"{argument}: the index ({labels}, ..) {why}. If the values are in the order of the rows, give "
        "their to_numpy()."
    )


def of_each_row(
    function: Callable[[pd.DataFrame], object],
    table: pd.DataFrame,
    who: str,
    what: str,
    dtype: type = object,
    error: type[BdtrError] = ArgumentError,
) -> np.ndarray:
    """What a function of the user's gives for each row of a table, in the order of the rows.

    Parameters
    ----------
    function
        Takes the table.
    table
        Handed over as a copy.
    who, what
        The function and what it has to return for a row, in the words of messages.
    dtype
        Type of the array.
    error
        Class of the error.

    Returns
    -------
    numpy.ndarray
        (row).

    Raises
    ------
    BdtrError
        If the function fails, or returns something else than one value for each row.
    """
    try:
        found = np.asarray(aligned(function(table.copy()), table.index, who, error), dtype=dtype)
    except error:
        raise
    except Exception as failure:
        raise error(
            f"{who} failed: {type(failure).__name__}: {failure}. It is given the columns "
            f"{', '.join(map(str, table.columns))}."
        ) from failure
    if found.shape != (len(table),):
        raise error(
            f"{who} must return {what} for each of the {len(table):,} rows of its argument, got an array of "
            f"shape {found.shape}."
        )
    return found
