"""What follows an action: states at nodes, one after another, and all of the next stage that is the same in
every draw.

Arrays are ragged: each node names the row of the level before that it belongs to, and rows are sorted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bdtr.stages.prediction import UnitColumns
from bdtr.stages.quadrature import Pieces
from bdtr.stages.states import StateQ

__all__ = ["ComputedColumns", "Level", "Lines", "Tree", "first_of"]


@dataclass(frozen=True)
class Level:
    """One state at its nodes: the row of the level before that each belongs to (sorted), its value, and the
    weight that its density is multiplied by; the columns of the state's model for these rows."""

    state: StateQ
    columns: UnitColumns
    arm: np.ndarray
    trials: np.ndarray
    row: np.ndarray
    value: np.ndarray
    weight: np.ndarray
    quasi: bool = False

    @property
    def rows(self) -> int:
        return len(self.arm)

    def part(self, rows: np.ndarray, nodes: np.ndarray) -> Level:
        place = np.zeros(self.rows, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        return Level(
            self.state, self.columns.part(rows), self.arm[rows], self.trials[rows],
            place[self.row[nodes]], self.value[nodes], self.weight[nodes], self.quasi,
        )  # fmt: skip

    def weights(self) -> np.ndarray:
        """Weight of each node in each draw (node, sample): those of a row add up to 1, but for quasi-random
        nodes, of which only those of a unit do so."""
        eta = self.state.predictor(self.columns)
        arm, m = self.arm[self.row], self.trials[self.row]
        found = self.state.density(self.columns, eta, self.row, self.value, arm, m)
        found *= self.weight[:, None]
        if self.quasi:
            return found
        total = np.add.reduceat(found, first_of(self.row, self.rows), axis=0)
        found /= np.maximum(total, 1e-300)[self.row]
        if not (
            total > 1e-290
        ).all():  # next to nothing at all nodes of a row: then they count alike
            alike = 1.0 / np.bincount(self.row, minlength=self.rows)[self.row]
            found = np.where(total[self.row] > 1e-290, found, alike[:, None])
        return found


@dataclass(frozen=True)
class Lines:
    """The last state in closed form: its model's columns, those of the next stage at two of its values, and
    the pieces of the line on which the same actions are feasible and a rule says the same (-1: nothing)."""

    state: StateQ
    columns: UnitColumns
    arm: np.ndarray
    at: tuple[float, float]
    ends: tuple[UnitColumns, UnitColumns]
    pieces: Pieces
    feasible: np.ndarray
    code: np.ndarray

    def part(self, rows: np.ndarray) -> Lines:
        starts = first_of(self.pieces.row, len(self.arm))
        stops = np.append(starts[1:], len(self.pieces.row))
        own = ranges(starts[rows], stops[rows])
        row = np.repeat(np.arange(len(rows)), (stops - starts)[rows])
        pieces = Pieces(row, self.pieces.low[own], self.pieces.high[own])
        ends = self.ends[0].part(rows), self.ends[1].part(rows)
        return Lines(
            self.state, self.columns.part(rows), self.arm[rows], self.at, ends, pieces,
            self.feasible[own], self.code[own],
        )  # fmt: skip


@dataclass(frozen=True)
class Tree:
    """What follows one action: states one after another, and the next stage at the nodes of the last.

    ``starts`` has for the units and for each level the first node of each unit; ``code`` is the action that
    the policy takes at each node, -1 where that depends on the draw.
    """

    levels: tuple[Level, ...]
    starts: tuple[np.ndarray, ...]
    columns: Any
    feasible: np.ndarray
    code: np.ndarray
    lines: Lines | None
    reward: tuple[StateQ, UnitColumns, np.ndarray, np.ndarray] | None
    earned: np.ndarray | None
    nodes: int

    def part(self, rows: np.ndarray) -> Tree:
        nodes, levels, starts = rows, [], []
        for level, at in zip(self.levels, self.starts, strict=True):
            own = ranges(at[:-1][rows], at[1:][rows])
            levels.append(level.part(nodes, own))
            starts.append(np.concatenate([[0], np.cumsum((at[1:] - at[:-1])[rows])]))
            nodes = own
        reward = self.reward
        if reward is not None:
            reward = reward[0], reward[1].part(nodes), reward[2][nodes], reward[3][nodes]
        return Tree(
            tuple(levels), tuple(starts), None if self.columns is None else self.columns.part(nodes),
            self.feasible[nodes], self.code[nodes], None if self.lines is None else self.lines.part(nodes),
            reward, None if self.earned is None else self.earned[nodes], len(nodes),
        )  # fmt: skip


@dataclass(frozen=True)
class ComputedColumns:
    """All of the Q-function of some units that does not depend on draws, for each action."""

    trees: tuple[Tree, ...]
    units: int

    def part(self, rows: np.ndarray) -> ComputedColumns:
        """That of some of the units."""
        return ComputedColumns(tuple(t.part(rows) for t in self.trees), len(rows))


def first_of(row: np.ndarray, rows: int) -> np.ndarray:
    """Place of the first entry of each row, in sorted rows that all occur."""
    return np.searchsorted(row, np.arange(rows))


def ranges(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whole numbers from each low to below each high, one after another."""
    count = high - low
    total = np.cumsum(count)
    return np.arange(total[-1] if len(total) else 0) + np.repeat(low - total + count, count)
