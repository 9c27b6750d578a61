"""Whether the rows of a fit can tell columns apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bdtr.data.margins import residual_columns
from bdtr.data.modelmatrix import DesignError

__all__ = ["check_rank", "collinear"]

_SAME = 1e-7  # share of a column beyond all others, below which it is one of them


def collinear(left: np.ndarray) -> np.ndarray:
    """Columns that are made of the ones before them, given what regression on their margins leaves of
    each."""
    size = np.sqrt(np.mean(np.square(left), axis=0))
    basis = np.zeros((len(left), 0))
    out = np.zeros(left.shape[1], dtype=bool)
    for k in range(left.shape[1]):
        if size[k] == 0:
            out[k] = True
            continue
        own = left[:, k] / size[k]
        for _ in range(2):
            own = own - basis @ (basis.T @ own / len(own))
        rest = np.sqrt(np.mean(np.square(own)))
        if rest < _SAME:
            out[k] = True
        else:
            basis = np.c_[basis, own / rest]
    return out


def check_rank(
    matrix: np.ndarray,
    names: Sequence[str],
    action: str,
    taken: np.ndarray,
    margins: Sequence[Sequence[int]],
    intercept: bool,
) -> None:
    """Raise if columns are exactly collinear on the rows of the fit, naming them.

    Parameters
    ----------
    matrix, names
        Columns as written (row, column), and their names.
    action, taken
        The stage's action column, and how many units in the fit took each action.
    margins
        Margins of each column, as in :func:`bdtr.data.margins.margins_of`.
    intercept
        Whether the first column is the intercept.
    """
    where = f"Stage({action!r})"
    unsupported = np.flatnonzero(~matrix.any(axis=0))
    # A declared action that nobody took is reported by the gate, which refuses to recommend.
    if unsupported.size and (taken > 0).all():
        raise DesignError(
            f"{where}: no unit in the fit informs {', '.join(names[int(i)] for i in unsupported)}; every "
            "value is 0. Take the term out, or coarsen the column."
        )
    if intercept:
        flat = [
            i for i in range(1, len(names)) if i not in unsupported and np.ptp(matrix[:, i]) == 0
        ]
        if flat:
            raise DesignError(
                f"{where}: {', '.join(names[i] for i in flat)} does not vary in "
                "the fit, so it cannot be told apart from the intercept. Take it out of the formula."
            )
    left, b = residual_columns(matrix, margins)
    size = np.sqrt(np.mean(np.square(left), axis=0))
    nothing = [i for i in np.flatnonzero(size == 0) if i not in unsupported]
    involved: list[int] = []
    if nothing:
        with_ = np.abs(b[:, nothing[0]]) * size > 0
        found = {int(i) for i in (*np.flatnonzero(with_), nothing[0])}
        involved = sorted(found - {0 if intercept else -1})
    else:
        used = [i for i in range(len(names)) if size[i] > 0]
        x = left[:, used] / size[used]
        values, vectors = (
            np.linalg.eigh(x.T @ x / len(x)) if used else (np.ones(1), np.ones((1, 1)))
        )
        if values[0] < 1e-10 * values[-1]:
            involved = [used[i] for i in np.flatnonzero(np.abs(vectors[:, 0]) > 1e-3)]
    if involved:
        raise DesignError(
            f"{where}: the columns {', '.join(names[i] for i in involved)} are exactly collinear in the "
            "data; their coefficients cannot be told apart. Take one of them out of the formula."
        )
