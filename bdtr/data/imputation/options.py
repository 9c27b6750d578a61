"""What the user says of missing values: how many completed data sets, by which formulas, shifted by what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bdtr.data.contents import DataError
from bdtr.results.arguments import is_whole

__all__ = ["Options", "options"]

_MOST = 1_000


@dataclass(frozen=True)
class Options:
    """Completed data sets to be drawn, formulas by variable, columns after the last decision, and shifts; see
    :func:`bdtr.fit`."""

    sets: int = 20
    formulas: Mapping[str, str] = field(default_factory=dict)
    auxiliary: Sequence[str] = ()
    delta: Mapping[str, Any] = field(default_factory=dict)


def options(
    imputations: Any, imputation: Any, auxiliary: Any, delta: Any, how: str = "impute"
) -> Options:
    """Options that have been checked.

    Parameters
    ----------
    imputations, imputation, auxiliary, delta
        As in :func:`bdtr.fit`.
    how
        What becomes of missing values; all but the first go with ``"impute"``.

    Raises
    ------
    DataError
        If one of them is of another kind, or goes with something else.
    """
    if not is_whole(imputations) or not 2 <= imputations <= _MOST:
        raise DataError(f"imputations={imputations!r}: must be a whole number from 2 to {_MOST:,}.")
    if not isinstance(auxiliary, (list, tuple)) or not all(isinstance(a, str) for a in auxiliary):
        raise DataError(f"auxiliary={auxiliary!r}: must be a list of columns.")
    if delta is not None and not isinstance(delta, Mapping):
        raise DataError(f"delta={delta!r}: must map variables to shifts, such as {{'y': -0.2}}.")
    if imputation is not None and (
        not isinstance(imputation, Mapping)
        or not all(isinstance(v, str) for v in imputation.values())
    ):
        raise DataError(
            f"imputation={imputation!r}: must map variables to formulas, such as "
            "{'adherence': 'severity * a1 + (1 | clinic)'}."
        )
    if how != "impute" and (imputation is not None or auxiliary or delta is not None):
        raise DataError(
            "imputation=.., auxiliary=.. and delta=.. go with missing='impute'. Leave them out, or say that."
        )
    return Options(int(imputations), imputation or {}, tuple(auxiliary), delta or {})
