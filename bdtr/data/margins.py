r"""What a column is measured from: the columns of its lower-order terms.

A product x a, or a square of x, says little by itself: how it varies beyond x and a does not depend on where
x has its zero, and that is what a default prior is for. With M_k the columns of the margins of column k (for
``x:a`` those of 1, x and a) and r_k what regression on them leaves of it,

    x_k = sum over j in M_k of B_jk r_j + r_k,    X b = R g,    g = B b,

g are the coefficients of the residual columns. B is triangular in the order of the terms, with ones on its
diagonal (Gram and Schmidt within margins; compare the marginality principle of Nelder 1977, J. R. Stat.
Soc. A 140(1)). Independent priors on g, each scaled by the SD of r_k, are a prior on b with a full
covariance matrix, the same for x, x + c and c x. A prior of the user's stays on the coefficient as
written: its row of B is that of the identity.

Columns are handed to the engines as they are measured, each divided by its SD: near collinear ones, such as a
and a x year, are then as good as any others.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Measure", "as_written", "margins_of", "measured", "residual_columns"]

_NOTHING = 1e-10  # share of a column, below which what is left of it is rounding


@dataclass(frozen=True)
class Measure:
    """How columns as written become columns as measured, X turn, and coefficients likewise, back b.

    ``turn`` (written, measured), ``back`` its inverse, ``scale`` the SD of each residual column in
    units of the column as written.
    """

    turn: np.ndarray
    back: np.ndarray
    scale: np.ndarray


def margins_of(variables: Sequence[frozenset[str]], term: Sequence[int]) -> list[list[int]]:
    """Margins of each column: those of earlier terms made of the same variables or of fewer.

    Parameters
    ----------
    variables
        Variables that each column is made from; none for the intercept.
    term
        Number of the term of each column: columns of one term, such as dummies, are no margins of each other.

    Returns
    -------
    list
        Positions of the margins of each column.
    """
    return [
        [j for j in range(k) if term[j] != term[k] and variables[j] <= own]
        for k, own in enumerate(variables)
    ]


def residual_columns(
    matrix: np.ndarray, margins: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """What regression on its margins leaves of each column, and the triangular map B.

    Parameters
    ----------
    matrix
        Columns as written (row, column).
    margins
        From :func:`margins_of`; the margins of a margin are among them.

    Returns
    -------
    residuals : numpy.ndarray
        (row, column); zero where nothing but rounding is left.
    map : numpy.ndarray
        B (column, column).
    """
    rows, count = matrix.shape
    left, b = np.empty_like(matrix), np.eye(count)
    size = np.zeros(count)
    for k in _in_order(margins):
        own, used = matrix[:, k].copy(), [j for j in margins[k] if size[j] > 0]
        whole = np.sqrt(np.mean(np.square(own)))
        basis = left[:, used] / size[used]
        gram = basis.T @ basis / rows
        for _ in range(2 if used else 0):  # the second time for what rounding left
            step = np.linalg.lstsq(gram, basis.T @ own / rows, rcond=None)[0]
            own -= basis @ step
            b[used, k] += step / size[used]
        size[k] = np.sqrt(np.mean(np.square(own)))
        if size[k] <= _NOTHING * whole:
            own[:], size[k] = 0.0, 0.0
        left[:, k] = own
    return left, b


def _in_order(margins: Sequence[Sequence[int]]) -> list[int]:
    """Columns, each after its margins."""
    order: list[int] = []
    waiting = list(range(len(margins)))
    while waiting:
        ready = [k for k in waiting if all(j in order for j in margins[k])]
        order += ready
        waiting = [k for k in waiting if k not in ready]
    return order


def measured(b: np.ndarray, scale: np.ndarray, fixed: Collection[int] = ()) -> Measure:
    """The measure of columns.

    Parameters
    ----------
    b
        The triangular map of :func:`residual_columns`.
    scale
        What each residual column is divided by.
    fixed
        Columns whose coefficients have priors as written.
    """
    back = b.copy()
    for k in fixed:
        back[k] = 0.0
        back[k, k] = 1.0
    turn = np.linalg.inv(back)
    return Measure(turn / scale, scale[:, None] * back, scale)


def as_written(scale: np.ndarray) -> Measure:
    """The measure of columns that are taken as they are, but for their scale."""
    return measured(np.eye(len(scale)), scale)
