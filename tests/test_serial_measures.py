"""Mean, slope, last value and area of repeated measures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from bdtr.data import DataError, serial_measures

COLUMNS = ["r_1", "r_2", "r_4", "r_7"]
TIMES = np.array([1.0, 2.0, 4.0, 7.0])
VALUES = st.lists(st.one_of(st.none(), st.floats(-50, 50)), min_size=4, max_size=4)


def measured(rows, **words):
    frame = pd.DataFrame(np.array(rows, dtype=float), columns=COLUMNS)
    return serial_measures(frame, COLUMNS, "r", **words)


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_they_are_those_of_the_recorded_values(rows):
    found = measured(rows, least=1)
    for i, row in enumerate(np.array(rows, dtype=float)):
        known = np.isfinite(row)
        own = found.iloc[i]
        if not known.any():
            assert own.isna().all()
            continue
        assert own["r_mean"] == pytest.approx(row[known].mean())
        assert own["r_last"] == row[known][-1]
        if known.sum() > 1:
            assert own["r_slope"] == pytest.approx(
                np.polyfit(TIMES[known], row[known], 1)[0], abs=1e-9
            )
        else:
            assert np.isnan(own["r_slope"])
        if known[0] and known[-1]:
            area = np.trapezoid(row[known], TIMES[known])
            assert own["r_area"] == pytest.approx(area, abs=1e-9)
        else:
            assert np.isnan(own["r_area"])


def test_units_with_too_few_values_have_none():
    rows = [[1, 2, 3, 4], [1, None, 3, 4], [1, None, None, 4]]
    assert measured(rows)["r_mean"].notna().tolist() == [True, False, False]
    assert measured(rows, least=3)["r_mean"].notna().tolist() == [True, True, False]
    assert list(measured(rows, of=["last"])) == ["r_last"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"of": ["median"]}, "of="),
        ({"least": 5}, "from 1 to 4"),
        ({"times": [1, 2]}, "a number for each"),
        ({"times": [1, 2, 2, 3]}, "must rise"),
    ],
)
def test_errors_say_what_is_allowed(words, message):
    with pytest.raises(DataError, match=message):
        measured([[1, 2, 3, 4]], **words)


def test_columns_have_to_be_numbers_with_known_times():
    frame = pd.DataFrame({"first": [1.0], "second": [2.0], "text_1": ["a"]})
    with pytest.raises(DataError, match="Give the times"):
        serial_measures(frame, ["first", "second"], "m")
    with pytest.raises(DataError, match="no numbers"):
        serial_measures(frame, ["text_1"], "m")
    with pytest.raises(DataError, match="no column 'third'"):
        serial_measures(frame, ["third"], "m")
    assert serial_measures(frame, ["first", "second"], "m", times=[0, 1])["m_slope"][0] == 1.0
