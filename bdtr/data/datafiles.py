"""Data files of a trial: comma- or tab-separated text, and Stata's."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bdtr.data.coding import with_columns
from bdtr.data.contents import DataError
from bdtr.results.arguments import a_path
from bdtr.trial.condition import Condition
from bdtr.trial.formula import Formula
from bdtr.trial.trial import Trial

__all__ = ["read_data"]

# Entries that stand for a missing value; in columns of labels only the empty one does.
_MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "<NA>", ".")
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))(\.0+)?")


def read_data(path: str | os.PathLike, trial: Trial) -> pd.DataFrame:
    """Read a data file for a trial, labels as text.

    Units, sites, delivery clusters, grouping factors, actions and what conditions compare with them are
    read as text, so that 007 stays 007 and a school may be called "NA"; among them only an empty entry is
    missing. Where all labels of such a column are whole numbers, 1.0 is 1. In other columns an empty entry,
    ``NA``, ``N/A``, ``#N/A``, ``NaN``, ``nan``, ``null``, ``NULL``, ``None``, ``<NA>`` and ``.`` are missing.

    Parameters
    ----------
    path
        ``.csv``, ``.tsv`` (either may end in ``.gz``) or Stata's ``.dta``, one row per unit; text is UTF-8.
    trial
        The trial, for the names of its columns.

    Returns
    -------
    pandas.DataFrame

    Raises
    ------
    bdtr.DataError
        If the file is of another kind or cannot be read.

    Examples
    --------
    >>> pupils.to_csv("pupils.csv", index=False)
    >>> len(read_data("pupils.csv", trial))
    1587
    """
    path = a_path("path", path)
    if not isinstance(trial, Trial):
        raise DataError(f"read_data: trial must be a bdtr.Trial, got {type(trial).__name__}.")
    suffix = path.suffix.lower()
    kind = Path(path.stem).suffix.lower() if suffix == ".gz" else suffix
    if kind not in (".dta", *_SEPARATORS) or (kind == ".dta" and suffix == ".gz"):
        raise DataError(f"{path}: a data file ends in .csv, .tsv or .dta (or .csv.gz).")
    try:
        if kind == ".dta":
            return pd.read_stata(path)
        return _text_file(path, _SEPARATORS[kind], trial)
    except DataError:
        raise
    except UnicodeError:
        raise DataError(
            f"{path}: is not in UTF-8. Save it as such (in Excel: CSV UTF-8), or read it by "
            "pandas.read_csv(.., encoding='latin-1') or 'utf-16' and write it by its to_csv."
        ) from None
    except Exception as error:  # of the libraries that read such files
        reason = " ".join(str(error).split())[:300].replace("C error: ", "")
        if "not unique" in reason:
            reason += " Or read it by pandas.read_stata(.., convert_categoricals=False)."
        elif kind == ".dta" and not isinstance(error, OSError):
            reason = (
                f"It is no file of Stata that pandas reads; text ends in .csv or .tsv. ({reason})"
            )
        raise DataError(f"{path}: cannot be read. {reason}") from None


def _text_file(path: Path, separator: str, trial: Trial) -> pd.DataFrame:
    head = pd.read_csv(
        path, sep=separator, header=None, nrows=1, dtype="str", keep_default_na=False
    )
    columns = [str(c) for c in head.iloc[0]]
    _separated(path, separator, columns)
    twice = sorted({c for c in columns if c and columns.count(c) > 1})
    if twice:
        raise DataError(f"{path}: columns appear twice: {', '.join(map(repr, twice))}.")
    text = _kept_as_text(trial, columns)
    missing = {c: [""] if c in text else list(_MISSING) for c in columns}
    try:
        with warnings.catch_warnings():  # rows longer than the header would be cut or shifted
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path, sep=separator, dtype=dict.fromkeys(text, "str"), keep_default_na=False,
                na_values=missing, index_col=False,
            )  # fmt: skip
    except pd.errors.ParserWarning:
        raise DataError(
            f"{path}: has rows with more fields than the header has names, if empty ones after a last "
            f"{separator!r}. Give every column a name, or take the surplus out."
        ) from None
    return with_columns(frame, {name: _whole(frame[name]) for name in text})


def _separated(path: Path, separator: str, columns: Sequence[str]) -> None:
    """Raise where the whole header is one name with another separator in it."""
    others = [mark for mark in (";", "\t", ",", "|") if mark != separator and mark in columns[0]]
    if len(columns) == 1 and others:
        raise DataError(
            f"{path}: its columns are separated by {others[0]!r}; a {path.suffix} file has {separator!r}. "
            f"Read it by pandas.read_csv(.., sep={others[0]!r}), with decimal=',' where that is meant, and "
            "write it by its to_csv."
        )


def _whole(column: pd.Series) -> pd.Series:
    """Labels 1.0 as 1 where all are whole numbers, as pandas writes them if some are missing."""
    found = column.str.extract(_WHOLE.pattern + "$").loc[column.notna()]
    plain = column.dropna().str.fullmatch(_WHOLE.pattern)
    if not plain.all() or found[1].isna().all():
        return column
    return column.where(column.isna(), found[0].reindex(column.index))


def _kept_as_text(trial: Trial, columns: Sequence[str]) -> list[str]:
    """Columns of labels, in which 01 is not 1: units, sites, actions, grouping factors, and what conditions
    compare with them."""
    labels = {trial.unit, trial.site}
    pairs: list[set[str]] = []
    for stage in trial.stages:
        groups = Formula.parse(stage.formula).groups
        labels |= {stage.action, stage.delivered_in, *(c for g in groups for c in g.factor)}
        texts = [stage.among, stage.eligible, *(stage.feasible or ())]
        pairs += [pair for text in texts if text for pair in Condition(text).pairs]
    for _ in pairs:
        for pair in pairs:
            if pair & labels:
                labels |= pair
    return [c for c in columns if c in labels]
