r"""The best assignment of actions to units when they share limits.

    maximise  sum_i g_i(a_i)   subject to   sum_i c_r,i(a_i) <= limit_r for every row r.

A linear program with shares x_i(a) in place of whole actions gives an upper bound and the shadow prices
of the rows (the multipliers of the Lagrangian sum_i max_a [g_i(a) - sum_r price_r c_r,i(a)] + sum_r
price_r limit_r); at a vertex no more units are shared out than there are rows. The units nearest to
indifference are then assigned as wholes by an integer program, the others keep their action. Solver:
HiGHS, through scipy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from bdtr.results.errors import BdtrError

__all__ = ["Allocation", "AllocationError", "Rows", "allocate", "least_limit"]

_NEAR, _NEAR_ROW = 200, 4  # units assigned as wholes: in all, and for each row
_NODES = 500  # of the integer program: not seconds, so that every machine has the same result


class AllocationError(BdtrError, ValueError):
    """No assignment keeps to all limits."""


@dataclass(frozen=True)
class Rows:
    """Limits: ``matrix`` (row, unit * action), actions of a unit side by side, and the ``limits``.

    Whole units may exceed a limit by its ``slack``: real numbers cannot be met exactly by whole units.
    """

    matrix: sp.csr_array
    limits: np.ndarray
    slack: np.ndarray

    @classmethod
    def of(
        cls,
        coefficients: np.ndarray,
        row: np.ndarray,
        limits: np.ndarray,
        slack: np.ndarray | None = None,
    ) -> Rows:
        """Rows in which each unit has a part in one at most: ``row`` (unit), -1 for none."""
        slack = np.zeros(len(limits)) if slack is None else slack
        actions = coefficients.shape[1]
        unit = np.flatnonzero(row >= 0)
        columns = (unit[:, None] * actions + np.arange(actions)).ravel()
        shape = (len(limits), coefficients.size)
        entries = (coefficients[unit].ravel(), (np.repeat(row[unit], actions), columns))
        return cls(sp.csr_array(entries, shape=shape), np.asarray(limits, dtype=float), slack)

    def stacked(self, *others: Rows) -> Rows:
        """These rows and others below them."""
        every = (self, *others)
        matrix = sp.csr_array(sp.vstack([r.matrix for r in every]))
        limits = np.concatenate([r.limits for r in every])
        return Rows(matrix, limits, np.concatenate([r.slack for r in every]))

    def scaled(self) -> tuple[Rows, np.ndarray]:
        """Rows with coefficients of size one, as the solver's tolerances are absolute, and their sizes."""
        size = abs(self.matrix).max(axis=1).toarray().ravel()
        size = np.where(size > 0, size, 1.0)
        inverse = sp.diags_array(1.0 / size)
        matrix = sp.csr_array(inverse @ self.matrix)
        return Rows(matrix, self.limits / size, self.slack / size), size


@dataclass(frozen=True)
class Allocation:
    """An assignment: ``action`` (unit), its total ``gain``, a ``bound`` that no assignment exceeds but by
    what the slack of limits allows, and the shadow ``price`` of each row: what one more of its limit would
    add. ``share`` (unit, action) is the solution in shares, which the bound and the prices are those of."""

    share: np.ndarray
    action: np.ndarray
    gain: float
    bound: float
    price: np.ndarray


def allocate(gain: np.ndarray, feasible: np.ndarray, rows: Rows | None = None) -> Allocation:
    """The assignment with the largest total gain within the limits.

    Parameters
    ----------
    gain
        Gain of each action (unit, action).
    feasible
        Feasible actions (unit, action); at least one for each unit.
    rows
        Limits; none: each unit has its best action.

    Returns
    -------
    Allocation

    Raises
    ------
    AllocationError
        If no assignment keeps to the limits.

    Examples
    --------
    >>> gain, free = np.array([[0.0, 2.0], [0.0, 1.0]]), np.ones((2, 2), dtype=bool)
    >>> one = Rows.of(np.array([[0.0, 1.0], [0.0, 1.0]]), np.zeros(2, dtype=int), np.array([1.0]))
    >>> allocate(gain, free, one).action.tolist()
    [1, 0]
    """
    best = np.where(feasible, gain, -np.inf)
    units = np.arange(len(gain))
    if rows is None or not rows.limits.size:
        action = best.argmax(axis=1)
        total = float(gain[units, action].sum())
        share = (action[:, None] == np.arange(gain.shape[1])).astype(float)
        return Allocation(share, action, total, total, np.zeros(0))
    rows, size = rows.scaled()
    share, price, bound = _shares(gain, feasible, rows)
    ahead = np.where(feasible, gain - (rows.matrix.T @ price).reshape(gain.shape), -np.inf)
    # How clear the choice of a unit is at these prices; one that is shared out is not.
    top = np.partition(ahead, -2, axis=1)[:, -2:] if gain.shape[1] > 1 else ahead
    clear = np.where(share.max(axis=1) < 1 - 1e-9, -1.0, top[:, -1] - top[:, 0])
    order = np.argsort(clear, kind="stable")
    count = max(_NEAR, _NEAR_ROW * rows.limits.size)
    action = share.argmax(axis=1)
    while True:
        found = _whole(gain, feasible, rows, action, order[:count])
        if found is not None:
            return Allocation(share, found, float(gain[units, found].sum()), bound, price / size)
        if count >= len(gain):
            raise AllocationError("No assignment of whole units keeps to the limits.")
        count *= 4


def _shares(
    gain: np.ndarray, feasible: np.ndarray, rows: Rows
) -> tuple[np.ndarray, np.ndarray, float]:
    """Shares (unit, action) that maximise the gain, the prices of the rows, and the gain."""
    at = np.flatnonzero(feasible)
    size = max(float(np.abs(gain[feasible]).max()), 1e-300)
    felt = np.isfinite(rows.limits)
    found = linprog(
        -gain.ravel()[at] / size,
        A_ub=rows.matrix[felt][:, at],
        b_ub=rows.limits[felt],
        A_eq=_one_each(at, gain.shape),
        b_eq=np.ones(len(gain)),
        bounds=(0, None),
        method="highs-ipm",
    )
    if found.status == 2:
        raise AllocationError("No assignment keeps to the limits.")
    if found.status != 0:
        raise AllocationError(f"The linear program was not solved: {found.message}")
    share = np.zeros(gain.size)
    share[at] = found.x
    price = np.zeros(felt.size)
    price[felt] = -size * np.asarray(found["ineqlin"]["marginals"])
    return share.reshape(gain.shape), price, -size * float(found.fun)


def _one_each(at: np.ndarray, shape: tuple[int, ...]) -> sp.csr_array:
    """One action in all for each unit (unit, variable)."""
    unit = at // shape[1]
    return sp.csr_array((np.ones(at.size), (unit, np.arange(at.size))), shape=(shape[0], at.size))


def _whole(
    gain: np.ndarray, feasible: np.ndarray, rows: Rows, action: np.ndarray, some: np.ndarray
) -> np.ndarray | None:
    """The best whole actions of some units, those of the others given; None: there are none."""
    wide = gain.shape[1]
    others = np.delete(np.arange(len(gain)), some)
    left = rows.limits + rows.slack
    left = left - rows.matrix[:, others * wide + action[others]].sum(axis=1)
    columns = (some[:, None] * wide + np.arange(wide)).ravel()
    at = np.flatnonzero(feasible[some])
    found = milp(
        -gain[some].ravel()[at],
        integrality=np.ones(at.size),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(rows.matrix[:, columns[at]], -np.inf, left + 1e-12),
            LinearConstraint(_one_each(at, (some.size, wide)), 1, 1),
        ],
        options={"mip_rel_gap": 1e-9, "node_limit": _NODES},
    )
    if found.x is None:
        return None
    chosen = np.zeros(some.size * wide)
    chosen[at] = found.x
    out = action.copy()
    out[some] = chosen.reshape(-1, wide).argmax(axis=1)
    return out


def least_limit(feasible: np.ndarray, rows: Rows) -> float:
    """By how much all limits would have to be raised, at least, for an assignment to keep to them.

    Parameters
    ----------
    feasible
        Feasible actions (unit, action).
    rows
        Limits.

    Returns
    -------
    float
        In the unit of the limits; 0 or less: they can be kept.
    """
    at, felt = np.flatnonzero(feasible), np.isfinite(rows.limits)
    raised = sp.csr_array(np.full((int(felt.sum()), 1), -1.0))
    each = _one_each(at, feasible.shape)
    found = linprog(
        np.r_[np.zeros(at.size), 1.0],
        A_ub=sp.hstack([rows.matrix[felt][:, at], raised]),
        b_ub=rows.limits[felt],
        A_eq=sp.hstack([each, sp.csr_array((len(feasible), 1))]),
        b_eq=np.ones(len(feasible)),
        bounds=[(0, None)] * at.size + [(None, None)],
        method="highs-ipm",
    )
    return float(found.fun)
