r"""Smooth terms of a stage: splines whose bend has an SD, so that they shrink to a line.

A smooth function of x is a line plus a bend, f(x) = b_0 + b_1'x + B(x)'u with u ~ N(0, sd^2 I): a penalised
spline as a mixed model (Wood 2017, *Generalized Additive Models*, 5.5, 5.8 and 6.2). In one variable it is a
natural cubic spline, in two, each in SDs, a thin plate spline, in more the Duchon spline with the same
radial function (Duchon 1977, with m = 2 and s = (d - 2)/2). With knots k_1..k_m, eta(r) = r^3 in one variable
and r^2 log r in several, E the matrix of eta(|k_i - k_j|), T that of the linear functions at the knots and Z
a basis of the null space of T', the functions

    (eta(|x - k_1|), .., eta(|x - k_m|)) Z (Z'EZ)^{-1/2} v,    v ~ N(0, I),

have the prior density exp(-c penalty(f)), in one variable with the integral of f''^2 as penalty. Over the
rows of the fit their regression on the linear functions is taken out of them and what is left is turned to
principal components, of which the first are kept: B. It is scaled to mean |B(x)|^2 = 1, so that sd is the SD,
over units, of how far the function is from a line.

With ``by`` each label has a bend and an SD of its own, and the linear part is ``x * a``. Beyond the data a
smooth term goes on as a line (in several variables along its slopes at the nearest point of the box of the
data).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from bdtr.data.contents import DataError
from bdtr.data.modelmatrix import Columns
from bdtr.engine.layout import Factor
from bdtr.trial.formula import SmoothTerm

__all__ = ["Basis", "SmoothDesign", "smooth_design"]

_BASIS = {
    1: 8,
    2: 15,
    3: 20,
    4: 26,
}  # functions, the linear ones among them, by number of variables
_KNOTS = {1: 25, 2: 60, 3: 80, 4: 100}
_POINTS = 2_000  # from which knots in several variables are chosen


@dataclass(frozen=True)
class Basis:
    """The bends of a smooth function: what was learned of the rows of the fit.

    ``knots`` (knot, variable) are in SDs from the mean, ``turn`` (knot + 1 + variable, function) makes the
    bends of radial and linear functions, ``low`` and ``high`` are the ends of the data in SDs.
    """

    centre: np.ndarray
    scale: np.ndarray
    knots: np.ndarray
    turn: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Bends (row, function) at values of the variables (row, variable)."""
        x = (x - self.centre) / self.scale
        inside = np.clip(x, self.low, self.high) if x.shape[1] > 1 else x
        out = _columns(inside, self.knots) @ self.turn
        beyond = x - inside
        far = np.flatnonzero(beyond.any(axis=1))
        for j in range(x.shape[1] if far.size else 0):
            out[far] += beyond[far, j, None] * (_slopes(inside[far], self.knots, j) @ self.turn)
        return out


@dataclass(frozen=True)
class SmoothDesign:
    """A smooth term of a stage: its basis, and the columns of ``by`` that it is multiplied by."""

    term: SmoothTerm
    basis: Basis
    by: Columns | None

    @property
    def name(self) -> str:
        """The term as in the formula."""
        return self.term.name

    @property
    def dims(self) -> tuple[str, str]:
        """Dimensions of its effects, curve and bend; without commas, at which nutpie splits names."""
        name = self.name.replace(",", "")
        return f"{name}_curve", f"{name}_bend"

    @property
    def curves(self) -> tuple[str, ...]:
        """Of each curve of the term, whom it is for."""
        return ("all",) if self.by is None else self.by.names

    @property
    def bends(self) -> int:
        """Number of basis functions of a curve."""
        return self.basis.turn.shape[1]

    @property
    def effects(self) -> int:
        """Number of basis functions of all curves."""
        return len(self.curves) * self.bends

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Its curves as the engines take them."""
        return (Factor(self.name, self.bends, 1, False, smooth=True),) * len(self.curves)

    def matrices(self, frame: pd.DataFrame) -> list[np.ndarray]:
        """Row x function values of each curve."""
        bends = self.basis(frame[list(self.term.variables)].to_numpy(dtype=float))
        if self.by is None:
            return [bends]
        return [bends * times[:, None] for times in self.by.matrix(frame).T]

    def matrix(self, frame: pd.DataFrame) -> np.ndarray:
        """The same side by side."""
        return np.hstack(self.matrices(frame))


def smooth_design(term: SmoothTerm, rows: pd.DataFrame, where: str) -> SmoothDesign:
    """Learn a smooth term from the rows of a fit.

    Parameters
    ----------
    term
        The term.
    rows
        Coded rows of the fit.
    where
        The stage, for errors.

    Returns
    -------
    SmoothDesign

    Raises
    ------
    DataError
        If the variables have too few different values to bend over.
    """
    x = rows[list(term.variables)].to_numpy(dtype=float)
    least = len(term.variables) + 2
    few = [v for v in term.variables if rows[v].nunique() < 3]
    if few or len(np.unique(x, axis=0)) < least:
        raise DataError(
            f"{where}: {term.name} needs {few[0] if few else ' and '.join(term.variables)!r} to have three "
            f"different values or more among the units in the fit. Write {term.linear} instead."
        )
    by = None if term.by is None else Columns(f"0 + {term.by}", {}, rows)
    with threadpool_limits(1):  # the same bits on any number of threads
        basis = _learned(x, term.basis or _BASIS[x.shape[1]])
    if term.by is not None and pd.api.types.is_numeric_dtype(rows[term.by].dtype):
        times = rows[[term.by]].to_numpy(dtype=float)  # whose unit is not to matter
        size = float(np.sqrt(np.square(basis(x) * times).sum(axis=1).mean()))
        basis = replace(basis, turn=basis.turn / (size or 1.0))
    return SmoothDesign(term, basis, by)


def _learned(x: np.ndarray, size: int) -> Basis:
    """Knots and bends from the values of the variables (row, variable)."""
    centre, scale = x.mean(axis=0), x.std(axis=0)
    x = (x - centre) / scale
    knots = _knots(x, max(_KNOTS[x.shape[1]], size + 2))
    count, d = knots.shape
    line = np.c_[np.ones(count), knots]
    null = np.linalg.qr(line, mode="complete")[0][:, d + 1 :]
    penalty = null.T @ _radial(knots, knots) @ null
    values, vectors = np.linalg.eigh(penalty)
    keep = values > 1e-10 * values[-1]
    root = null @ (vectors[:, keep] / np.sqrt(values[keep]))
    turn = np.vstack([root, np.zeros((d + 1, root.shape[1]))])
    bends, lines = _radial(x, knots) @ root, np.c_[np.ones(len(x)), x]
    turn[count:] = -np.linalg.lstsq(lines, bends, rcond=None)[0]
    left = bends + lines @ turn[count:]
    values, vectors = np.linalg.eigh(left.T @ left / len(x))
    first = np.argsort(-values)[: size - d - 1]
    first = first[values[first] > 1e-12 * values.max()]
    turn = turn @ vectors[:, first] / np.sqrt(values[first].sum())
    largest = np.abs(turn).argmax(axis=0)  # eigenvectors have no sign of their own
    turn *= np.sign(turn[largest, np.arange(turn.shape[1])])
    return Basis(centre, scale, knots, turn, x.min(axis=0), x.max(axis=0))


def _knots(x: np.ndarray, most: int) -> np.ndarray:
    """Different points, evenly many between them in one variable, far from each other in several."""
    points = np.unique(x, axis=0)
    if len(points) <= most:
        return points
    if x.shape[1] == 1:
        at = np.unique(np.linspace(0, len(points) - 1, most).round().astype(int))
        return points[at]
    points = points[np.unique(np.linspace(0, len(points) - 1, _POINTS).round().astype(int))]
    chosen = [int(np.square(points).sum(axis=1).argmin())]
    apart = np.full(len(points), np.inf)
    for _ in range(most - 1):
        apart = np.minimum(apart, np.square(points - points[chosen[-1]]).sum(axis=1))
        chosen.append(int(apart.argmax()))
    return points[np.sort(chosen)]


def _radial(x: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """eta of the distances between points and knots (row, knot)."""
    r = _distances(x, knots)
    return r**3 if x.shape[1] == 1 else r**2 * np.log(np.maximum(r, 1e-300))


def _distances(x: np.ndarray, knots: np.ndarray) -> np.ndarray:
    out = np.zeros((len(x), len(knots)))
    for j in range(x.shape[1]):
        out += np.square(x[:, None, j] - knots[None, :, j])
    return np.sqrt(out)


def _columns(x: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Radial functions, 1 and the variables (row, knot + 1 + variable)."""
    return np.hstack([_radial(x, knots), np.ones((len(x), 1)), x])


def _slopes(x: np.ndarray, knots: np.ndarray, j: int) -> np.ndarray:
    """Derivatives of :func:`_columns` in variable j, of several."""
    r = np.maximum(_distances(x, knots), 1e-300)
    radial = (x[:, None, j] - knots[None, :, j]) * (2.0 * np.log(r) + 1.0)
    line = np.zeros((len(x), 1 + x.shape[1]))
    line[:, 1 + j] = 1.0
    return np.hstack([radial, line])
