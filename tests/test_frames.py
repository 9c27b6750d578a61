"""Tables of Polars and Arrow give what pandas gives; labels and numbers of every type stay what they are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import bdtr
from bdtr.data.coding import level_order, number_series
from bdtr.data.frames import as_frame

N = 120
RNG = np.random.default_rng(3)
FRAME = pd.DataFrame(
    {
        "id": np.arange(2**60, 2**60 + N),  # no float holds these
        "site": RNG.choice(["007", "7", "east"], N),
        "grade": pd.Categorical(
            RNG.choice(["low", "mid", "high"], N), categories=["low", "mid", "high"]
        ),
        "x": RNG.normal(size=N),
        "n": pd.array(RNG.integers(0, 5, N), dtype="Int64"),
        "a": RNG.integers(0, 2, N),
        "here": RNG.integers(0, 2, N).astype(bool),
    }
)
FRAME["y"] = FRAME["x"] + FRAME["a"] + RNG.normal(size=N)
FRAME.loc[3, "n"] = pd.NA
TRIAL = bdtr.Trial(
    [bdtr.Stage("a", actions=[0, 1], formula="x * a + grade + n + here + (1 | site)")],
    outcome="y",
    unit="id",
    site="site",
)
CLASSES = [f"{i}{c}" for i in range(1, 9) for c in "ABC"]
HOW = {"sampler": "direct", "draws": 100, "missing": "exclude", "random_seed": 1, "progress": False}


def polars(frame):
    order = pl.Enum(["low", "mid", "high"])
    return pl.from_pandas(frame).with_columns(pl.col("grade").cast(order))


@pytest.mark.parametrize("make", [polars, pa.Table.from_pandas], ids=["polars", "arrow"])
def test_other_tables_give_the_same_fit(make):
    ours, theirs = bdtr.fit(TRIAL, FRAME, **HOW), bdtr.fit(TRIAL, make(FRAME), **HOW)
    assert theirs.designs[0].terms == ours.designs[0].terms
    assert theirs.data_hash == ours.data_hash
    xs = [f.posterior(0)["b"].to_numpy() for f in (ours, theirs)]
    np.testing.assert_array_equal(*xs)
    some = FRAME.head(9)
    pd.testing.assert_frame_equal(
        bdtr.recommend(theirs, make(some)).actions, bdtr.recommend(ours, some).actions
    )


def test_categories_of_polars_keep_their_order_and_nulls_are_missing():
    table = pl.DataFrame(
        {
            "c": pl.Series(["z", "y", None], dtype=pl.Categorical),
            "g": pl.Series(["a", "b", None], dtype=pl.Enum(["b", "c", "a"])),
            "n": [1, None, 3],
            "t": [True, None, False],
            "s": ["x", None, "z"],
        }
    )
    frame = as_frame(table)
    assert list(frame["g"].cat.categories) == ["b", "c", "a"]
    assert frame.isna().sum().tolist() == [1] * 5
    assert level_order(frame["c"], "c") == ("y", "z")
    assert level_order(frame["g"], "g") == ("b", "a")
    assert number_series(frame["t"], "t").tolist()[::2] == [1.0, 0.0]


def test_dictionaries_of_arrow_keep_their_order_and_their_types():
    kinds = {"words": ["low", "mid", "high"], "numbers": [30, 10, 20]}
    codes = pa.array([2, 0, 1, 0])
    table = pa.table(
        {k: pa.DictionaryArray.from_arrays(codes, pa.array(v)) for k, v in kinds.items()}
    )
    for frame in (as_frame(table), as_frame(table.to_batches()[0])):
        for name, order in kinds.items():
            assert list(frame[name].cat.categories) == order
            assert frame[name].tolist() == [order[i] for i in (2, 0, 1, 0)]


def test_small_floats_are_the_labels_they_were_written_as():
    data = FRAME.assign(a=np.where(FRAME["a"] == 1, 0.25, 0.1).astype("float32"))
    trial = bdtr.Trial([bdtr.Stage("a", actions=[0.1, 0.25], formula="x * a")], outcome="y")
    fit = bdtr.fit(trial, data, sampler="direct", draws=100, random_seed=1, progress=False)
    assert fit.designs[0].actions == ("0.1", "0.25")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["K", "1", "2", "3"], ("1", "2", "3", "K")),
        (["PK", "K", *map(str, range(1, 13))], tuple(sorted(["PK", "K", *map(str, range(1, 13))]))),
        (["1:10", "1:20", "none"], ("1:10", "1:20", "none")),
        (["1.1.10", "1.1.20"], ("1.1.10", "1.1.20")),
        (["1E2", "2E1"], ("1E2", "2E1")),
        ([f"k{i}" for i in range(40)], tuple(sorted(f"k{i}" for i in range(40)))),
        (
            [f"{i}{c}" for i in range(1, 9) for c in "ABC"],
            tuple(sorted(f"{i}{c}" for i in range(1, 9) for c in "ABC")),
        ),
        (pd.Categorical([1, "1", 2]), ("1", "2")),
        (["1A", "2B", "10C"], ("10C", "1A", "2B")),
        (["yes", "no", None], ("no", "yes")),
        (["NA", "None", "unknown"], ("NA", "None", "unknown")),
        (["E12", "inf", "x1"], ("E12", "inf", "x1")),
        (pd.Categorical([1, 2, 2], categories=[2, 1, 3]), ("2", "1")),
        (pd.array(["u", "v"], dtype=pd.ArrowDtype(pa.string())), ("u", "v")),
        ([True, None, False], None),
        ([1, 2.5, None], None),
        ([True, 0, 1], None),
        (pd.array([True, None], dtype=pd.ArrowDtype(pa.bool_())), None),
        (pd.array([1, None], dtype="Int64"), None),
        (pd.array([True, None], dtype="boolean"), None),
        (pd.array([1.5, None], dtype=pd.ArrowDtype(pa.float64())), None),
        (pd.arrays.SparseArray([0.0, 1.0]), None),
    ],
)
def test_labels_and_numbers_stay_what_they_are(values, expected):
    series = pd.Series(values)
    assert level_order(series, "x") == expected
    if expected is None:
        numbers = number_series(series, "x")
        assert numbers.dtype == float and numbers.isna().sum() == series.isna().sum()


def test_digits_as_text_are_labels_where_they_can_be_nothing_else():
    frame = FRAME.assign(
        site=(100 + FRAME["a"].to_numpy() * 3).astype(str), a=FRAME["a"].astype(str)
    )
    trial = bdtr.Trial(
        [bdtr.Stage("a", actions=["0", "1"], formula="x * a", eligible="n2 == 1 or n2 != 1")],
        outcome="y",
    )
    data = frame.assign(n2=frame["here"].astype(int).astype(str))
    fit = bdtr.fit(trial, data, sampler="direct", draws=100, random_seed=1, progress=False)
    assert fit.designs[0].terms == ("Intercept", "x", "a[1]", "x:a[1]")


def _days(values):
    return pl.DataFrame({"d": pl.Series(values).cast(pl.Int32).cast(pl.Date)})


ODD = {
    "days beyond those of Python": (lambda: _days([2**31 - 10] * 3), "holds dates"),
    "days, one missing": (lambda: _days([1, None, 3]), "holds dates"),
    "times beyond": (
        lambda: pa.table({"d": pa.array([2**62] * 3, pa.timestamp("us"))}),
        "holds dates",
    ),
    "durations beyond": (
        lambda: pa.table({"d": pa.array([2**62] * 3, pa.duration("s"))}),
        "durations",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_dates_are_named_however_far_they_are(name):
    make, message = ODD[name]
    found = as_frame(make())
    with pytest.raises(bdtr.DataError, match=message):
        level_order(found["d"], "d")


def test_dictionaries_of_arrow_with_repeats_and_nulls():
    for listed in (["a", "a", "b"], ["a", None, "b"]):
        column = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), pa.array(listed))
        found = as_frame(pa.table({"d": column}))["d"]
        assert list(found.cat.categories) == ["a", "b"]
        assert [None if pd.isna(x) else x for x in found] == listed


def test_a_column_that_cannot_be_converted_is_named():
    column = pa.array([2**60] * 3, pa.int64()).view(pa.date64())
    with pytest.raises(bdtr.DataError, match=r"column 'd' .* cannot be converted .* Leave it out"):
        as_frame(pa.table({"d": column}))
