"""Tables of other libraries as pandas data frames."""

from __future__ import annotations

from typing import Any

import narwhals.stable.v2 as nw
import pandas as pd

from bdtr.data.contents import DataError

__all__ = ["as_frame"]


def as_frame(data: Any, argument: str = "data") -> pd.DataFrame:
    """A table as a pandas data frame, its columns checked by name.

    Parameters
    ----------
    data
        A table of pandas, or one of Polars, Arrow or another library that narwhals reads.
    argument
        What the user calls it, for messages.

    Returns
    -------
    pandas.DataFrame
        Of Polars and Arrow: whole numbers stay whole, nulls are missing, categories keep their order (in
        Polars those of an Enum have one, those of a Categorical are sorted as text is).

    Raises
    ------
    DataError
        If it is no such table, has no rows, or has two columns of one name.
    """
    frame = data if isinstance(data, pd.DataFrame) else _converted(data, argument)
    repeated = frame.columns[frame.columns.duplicated()].tolist()
    if repeated:
        raise DataError(f"{argument}: columns appear twice: {repeated}.")
    if not len(frame):
        raise DataError(f"{argument}: the frame has no rows.")
    return frame


def _converted(data: Any, argument: str) -> pd.DataFrame:
    kind = f"{type(data).__module__}.{type(data).__qualname__}".removeprefix("builtins.")
    if kind == "pyarrow.lib.RecordBatch":
        import pyarrow

        data = pyarrow.Table.from_batches([data])
    try:
        table = nw.from_native(data)
    except TypeError:
        raise DataError(
            f"{argument}: must be a pandas data frame, or one of Polars or Arrow, got {kind}."
        ) from None
    except Exception as error:  # two columns of a name
        raise DataError(f"{argument}: {' '.join(str(error).split())}") from None
    if isinstance(table, nw.LazyFrame):
        raise DataError(f"{argument}: is lazy ({kind}); call its collect() first.")
    columns = {}
    for name in table.columns:
        try:
            columns[name] = _column(table[name])
        except Exception as error:  # of libraries that read what they cannot write
            raise DataError(
                f"{argument}: column {name!r} ({table[name].dtype}) cannot be converted to pandas: {error}. "
                "Leave it out if the trial does not use it."
            ) from None
    return pd.DataFrame(columns, index=pd.RangeIndex(len(table)))


def _column(values: nw.Series) -> Any:
    kind = values.dtype
    if isinstance(kind, nw.Enum):
        return pd.Categorical(values.to_list(), categories=list(kind.categories))
    if kind == nw.Categorical and not values.implementation.is_polars():
        return _dictionary(values.to_native())
    if kind == nw.String or kind == nw.Categorical:
        return pd.array(values.to_list(), dtype="str")
    if kind == nw.Boolean:
        return pd.array(values.to_list(), dtype="boolean")
    if kind.is_integer() and kind not in (nw.Int128, nw.UInt128):
        return pd.array(values.to_list(), dtype="UInt64" if kind.is_unsigned_integer() else "Int64")
    if kind.is_float():
        return values.to_numpy()
    if kind in (nw.Date, nw.Datetime, nw.Duration):
        return pd.Series(values.to_numpy())  # Python's own end with the year 9999
    return pd.Series(values.to_list(), dtype=object)


def _dictionary(values: Any) -> pd.Categorical:
    """A dictionary of Arrow in its order, in which a label may stand twice or be missing."""
    chunks = getattr(values, "chunks", [values])
    listed = dict.fromkeys(label for chunk in chunks for label in chunk.dictionary.to_pylist())
    return pd.Categorical(values.to_pylist(), categories=[x for x in listed if x is not None])
