"""Data files: labels are text, numbers numbers, and what is no such file is said in one line."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

import bdtr
from bdtr.data.check import DataError, check
from bdtr.data.datafiles import read_data


def trial():
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="x + a1"),
        bdtr.Stage("a2", actions=["go on", "stop"], formula="x + a1 + m + a2"),
    ]
    return bdtr.Trial(stages, outcome="y", unit="id", site="clinic")


TEXT = "id,clinic,x,a1,m,a2,y\n007,NA,NA,1,.5,go on,1\n07,None,2,0,,go on,2\n"


def test_labels_are_read_as_text(tmp_path):
    (tmp_path / "x.csv").write_text(TEXT)
    (tmp_path / "BIG.CSV").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    with gzip.open(tmp_path / "x.tsv.gz", "wt") as file:
        file.write(TEXT.replace(",", "\t"))
    for name in ("x.csv", "x.tsv.gz", "BIG.CSV"):
        frame = read_data(tmp_path / name, trial())
        assert list(frame["id"]) == ["007", "07"]
        assert list(frame["clinic"]) == ["NA", "None"]
        assert list(frame["a1"]) == ["1", "0"]
        assert frame["x"].isna().tolist() == [True, False]
        assert frame["m"].dtype == float
    read_data(tmp_path / "x.csv", trial()).drop(columns="m").to_stata(tmp_path / "x.dta")
    assert list(read_data(tmp_path / "x.dta", trial())["clinic"]) == ["NA", "None"]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (["1.0", "", "0.0"], ["1", None, "0"]),
        (["1.0", "1", "-2.00"], ["1", "1", "-2"]),
        (["01", "1.0", "2"], ["01", "1.0", "2"]),
        (["1.0", "1.1", "2"], ["1.0", "1.1", "2"]),
        (["12345678901234567890.0", "1", "2"], ["12345678901234567890", "1", "2"]),
        (["", "", ""], [None, None, None]),
    ],
)
def test_whole_numbers_as_labels_lose_their_point(tmp_path, labels, found):
    """As from a frame, in which 1.0 and 1 are one label."""
    rows = [f"{i},{label},1,0,1,go on,1" for i, label in enumerate(labels)]
    (tmp_path / "x.csv").write_text("\n".join([TEXT.splitlines()[0], *rows]))
    column = read_data(tmp_path / "x.csv", trial())["clinic"]
    assert [None if pd.isna(label) else label for label in column] == found


def test_a_frame_with_missing_actions_fits_after_it_was_written(tmp_path):
    frame = pd.DataFrame(
        {"id": range(40), "clinic": 1, "x": np.arange(40.0), "a1": [0.0, 1.0] * 20}
    )
    frame["a2"], frame["m"], frame["y"] = ["go on", "stop"] * 20, np.sin(frame["x"]), frame["x"]
    frame.loc[3, "a1"] = np.nan
    frame.to_csv(tmp_path / "x.csv", index=False)
    written = read_data(tmp_path / "x.csv", trial())
    one, other = (check(trial(), f, missing="exclude") for f in (frame, written))
    pd.testing.assert_frame_equal(
        one.frame, other.frame, check_dtype=False, check_categorical=False
    )


BROKEN = {
    "absent.csv": (None, "No such file"),
    "x.xlsx": (b"PK", "ends in .csv, .tsv or .dta"),
    "x.dta.gz": (b"", "ends in .csv, .tsv or .dta"),
    "folder.csv": ("folder", "cannot be read"),
    "empty.csv": (b"", "cannot be read"),
    "not.csv.gz": (b"hello", "cannot be read"),
    "semicolons.csv": (TEXT.replace(",", ";").encode(), r"separated by ';'; .* sep=';'"),
    "tabs.csv": (TEXT.replace(",", "\t").encode(), r"separated by '\\t'"),
    "commas.tsv": (TEXT.encode(), "separated by ','; a .tsv file"),
    "ragged.csv": (b"a,b\n1,2\n1,2,3,4\n", "Expected 2 fields in line 3, saw 4"),
    "latin.csv": (TEXT.replace("NA", "M\xfcnchen").encode("latin-1"), "is not in UTF-8"),
    "utf16.csv": (TEXT.encode("utf-16"), "is not in UTF-8"),
    "comma.dta": (TEXT.encode(), "is no file of Stata that pandas reads; text"),
    "twice.csv": (b"x,x\n1,2\n", "columns appear twice: 'x'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_are_none(tmp_path, name):
    content, message = BROKEN[name]
    if content == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_data(tmp_path / name, trial())
    assert name in str(error.value) and "\n" not in str(error.value)


def test_labels_of_stata_for_some_values_of_a_number(tmp_path):
    frame = pd.DataFrame({"id": ["a", "b", "c"], "x": [0, 1, 2], "a1": [0, 1, 0], "y": [1.0, 2, 3]})
    frame.to_stata(tmp_path / "x.dta", value_labels={"x": {0: "none"}}, write_index=False)
    one = bdtr.Trial([bdtr.Stage("a1", actions=[0, 1], formula="x + a1")], outcome="y")
    with pytest.raises(DataError, match="'x' holds categories that are numbers .* and text"):
        check(one, read_data(tmp_path / "x.dta", one))
