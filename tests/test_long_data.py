"""Long data to one row per unit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from bdtr.data import DataError, widen


def long():
    return pd.DataFrame(
        {
            "id": ["b", "a", "a", "b", "a", "c"],
            "month": [2, 1, 10, 1, 2, 1],
            "y": [1.0, 2.0, 3.0, 4.0, np.nan, 6.0],
            "sex": ["m", "f", "f", "m", "f", "f"],
        }
    )


def test_one_row_per_unit():
    found = widen(long(), unit="id", time="month")
    assert list(found.columns) == ["id", "sex", "y_1", "y_2", "y_10"]  # times as numbers
    assert list(found["id"]) == ["b", "a", "c"] and list(found["sex"]) == ["m", "f", "f"]
    right = [[4.0, 1.0, np.nan], [2.0, np.nan, 3.0], [6.0, np.nan, np.nan]]
    assert np.array_equal(found[["y_1", "y_2", "y_10"]], right, equal_nan=True)


def test_labels_keep_their_order():
    frame = long().replace({"month": {1: "start", 2: "middle", 10: "end"}})
    assert list(widen(frame, "id", "month").columns[2:]) == ["y_middle", "y_start", "y_end"]
    kind = pd.CategoricalDtype(["start", "middle", "end"], ordered=True)
    frame["month"] = frame["month"].astype(kind)
    assert list(widen(frame, "id", "month").columns[2:]) == ["y_start", "y_middle", "y_end"]


@given(st.integers(1, 6), st.integers(1, 5), st.randoms())
def test_back_to_long_it_is_what_it_was(units, times, random):
    rows = [(f"u{i}", t, random.random()) for i in range(units) for t in range(times)]
    random.shuffle(rows)
    frame = pd.DataFrame(rows, columns=["id", "t", "y"])
    wide = widen(frame, "id", "t", values=["y"])
    again = wide.melt("id", var_name="t", value_name="y")
    again["t"] = again["t"].str.removeprefix("y_").astype(int)
    keys = ["id", "t"]
    pd.testing.assert_frame_equal(
        again.sort_values(keys, ignore_index=True)[["id", "t", "y"]],
        frame.sort_values(keys, ignore_index=True),
    )


@pytest.mark.parametrize(
    ("frame", "more", "says"),
    [
        (long(), {"unit": "name"}, "no column 'name'"),
        (long(), {"values": "y"}, "give a list of columns"),
        (long(), {"values": ["sex"]}, "'y' differ between the rows"),
        (long(), {"time": "id"}, "must be different columns"),
        (long().assign(month=1), {}, "repeat a unit and time"),
        (long().assign(id=[None, *"aabac"]), {}, "missing in 1 rows"),
        (long().assign(y_1=0.0), {}, "two columns 'y_1'"),
        (
            pd.DataFrame({"id": 1, "month": np.arange(3000), "y": np.arange(3000.0)}),
            {},
            "more than 2,000 columns",
        ),
    ],
)
def test_what_cannot_be_widened(frame, more, says):
    with pytest.raises(DataError, match=says):
        widen(frame, **{"unit": "id", "time": "month", **more})
