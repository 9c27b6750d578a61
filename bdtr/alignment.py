"""Values for each row of a table, where those of pandas may stand in another order than its rows."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bdtr.errors import ArgumentError, BdtrError

__all__ = ["aligned"]


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
