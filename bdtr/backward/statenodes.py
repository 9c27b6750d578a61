"""The nodes of states, which do not depend on draws: where each state is looked at after an action.

| state | nodes |
|---|---|
| labels, categories, counts | every value (of a count whose range is wide, evenly spaced ones) |
| up to three continuous ones | Gauss-Legendre between the places where the next action changes; |
| | of several one that is not cut: Gauss-Hermite |
| more than three | quasi-random points, common to all units, actions and draws |
| the last, if it is Gaussian and the next stage is linear in it | none: truncated normal means |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from bdtr.backward.nextstage import NextStage, columns_of_next
from bdtr.backward.statetree import Level, Lines, Tree
from bdtr.data.coding import with_columns
from bdtr.data.no_decision import has_decision
from bdtr.stages.prediction import QFunction, UnitColumns
from bdtr.stages.quadrature import Pieces, hermite, legendre, one_piece, quasi_random
from bdtr.stages.settings import FitError
from bdtr.stages.states import StateQ

__all__ = ["StateNodes"]

_REACH = 4.75  # SDs on either side of a continuous state
_NODES = {1: 22, 2: 11, 3: 9}  # of a continuous state, by how many there are
_UNCUT = {2: 9, 3: 7}  # of those of several that need not be cut
_FEWER = 3  # nodes less where the next stage is computed itself
_LOOKS = 33  # places at which the next action is looked up
_HALVINGS = 40  # of an interval in which a condition turns
_POINTS = 256  # quasi-random ones
_MOST = 5_000  # nodes of a unit and an action
_WIDER = 1.15  # than the state is spread over draws, for weights without long tails
_MOST_WAYS = 3  # categories of a state to come that are gone through one by one
_FEW = 8  # draws for what a state to come is on average
_LINEAR = 1e-8  # of columns, beyond which they are not linear in a state


@dataclass(frozen=True)
class StateNodes:
    """Makes the nodes of states that follow an action.

    ``states`` in the order in which they come about; ``reward`` the model of the action's reward, where
    nothing depends on it, and ``earned`` the name of a state that is its reward.
    """

    states: tuple[StateQ, ...]
    reward: StateQ | None
    earned: str | None
    next: NextStage

    def tree(self, frame: pd.DataFrame, closed: bool) -> Tree:
        """What follows the action that stands in each row of a frame of history.

        ``closed`` says whether the last state is integrated out in closed form.
        """
        states, units = self.states, len(frame)
        levels, starts, unit = list[Level](), list[np.ndarray](), np.arange(len(frame))
        earned = None
        count = sum(s.continuous for s in states) - closed
        points = _Points(count) if count > max(_NODES) else None
        for j, state in enumerate(states[:-1] if closed else states):
            level, frame = self._level(state, states[j + 1 :], frame, count, points, _MOST * units)
            unit = unit[level.row]
            if state.name == self.earned:
                earned = state.numbers(level.value)
            elif earned is not None:
                earned = earned[level.row]
            levels.append(level)
            starts.append(np.searchsorted(unit, np.arange(units + 1)))
        reward = None
        if self.reward is not None:
            one = self.reward
            reward = one, one.columns(frame), self._arm(frame), one.trials(frame)
        if closed:
            lines, columns = self._lines(states[-1], frame), None
            feasible = np.zeros((len(frame), 0), dtype=bool)
            code = np.full(len(frame), -1)
        else:
            lines, columns = None, columns_of_next(self.next.later, frame)
            feasible, code, _ = self.next.taken(frame)
        return Tree(
            tuple(levels), tuple(starts), columns, feasible, code, lines, reward, earned, len(frame)
        )

    def _arm(self, frame: pd.DataFrame) -> np.ndarray:
        return frame[self.next.before].cat.codes.to_numpy().astype(np.int64)

    def _level(
        self,
        state: StateQ,
        rest: Sequence[StateQ],
        frame: pd.DataFrame,
        count: int,
        points: _Points | None,
        most: int,
    ) -> tuple[Level, pd.DataFrame]:
        """The nodes of one state, and the histories at them; an error where these are more than ``most``."""
        columns = state.columns(frame)
        arm = self._arm(frame)
        m = state.trials(frame)
        if not state.continuous:
            row, value, weight = state.values(columns, arm, m, self.next.numbers_for(state))
        else:
            centre, sd = state.reach(columns, arm, m)
            if points is not None:
                row, place, weight = points.nodes(centre, sd)
            else:
                low, high = centre - _REACH * sd, centre + _REACH * sd
                pieces = self._pieces(state, rest, frame, low, high)
                row, place, weight = self._places(pieces, centre, sd, count)
            value, slope = state.unscaled(place)
            weight = weight * slope
        quasi = points is not None and state.continuous
        out = self._without(state, frame)
        if (
            out.any() and not quasi
        ):  # one node says all; a quasi-random one has its point for what follows
            keep = ~out[row] | np.r_[True, row[1:] != row[:-1]]
            row, value, weight = row[keep], value[keep], weight[keep]
        if points is not None:
            points.follow(row, state.continuous)
        if len(row) > most:
            raise FitError(
                f"stage {self.next.stage.action}: states up to {state.name} take more than {_MOST:,} values "
                "together after one action, and each is looked at. Model fewer of them, or counts with wide "
                "ranges as numbers (family='gaussian')."
            )
        level = Level(state, columns, arm, m, row, value, weight, quasi)
        after = frame.iloc[row].reset_index(drop=True)
        return level, with_columns(after, {state.name: state.as_column(value, out[row])})

    def _places(
        self, pieces: Pieces, centre: np.ndarray, sd: np.ndarray, count: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row, place and weight of the nodes of a continuous state. Of several states one that is not cut is
        taken by Gauss-Hermite quadrature: what is left once the others are integrated out is smooth."""
        most = _NODES[count] - _FEWER * self._nested
        cut = np.bincount(pieces.row, minlength=len(centre)) > 1
        if count == 1 or cut.all():
            return legendre(pieces, 2.0 * _REACH * sd, most)
        some = cut[pieces.row]
        own = Pieces(pieces.row[some], pieces.low[some], pieces.high[some])
        rest = np.flatnonzero(~cut)
        each = (
            legendre(own, 2.0 * _REACH * sd, most),
            hermite(rest, centre[rest], sd[rest], _UNCUT[count]),
        )
        row, place, weight = (np.concatenate(both) for both in zip(*each, strict=True))
        order = np.argsort(row, kind="stable")
        return row[order], place[order], weight[order]

    def _without(self, state: StateQ, frame: pd.DataFrame) -> np.ndarray:
        """Rows that have no decision at the next stage, where only the others have the state."""
        if state.outside is None:
            return np.zeros(len(frame), dtype=bool)
        return has_decision(self.next.stage, frame) == 0

    @property
    def _nested(self) -> bool:
        """Whether the next stage is computed itself, and dear."""
        return hasattr(self.next.later, "depth")

    def _pieces(
        self,
        state: StateQ,
        rest: Sequence[StateQ],
        frame: pd.DataFrame,
        low: np.ndarray,
        high: np.ndarray,
    ) -> Pieces:
        """The range of a state, cut where the next action changes, states that come after it being what they
        most often are."""
        turning = self.next.turns_with(state)
        cuts = [
            self._cuts(_There(frame, state, complete, self.next), low, high, turning)
            for complete in self._completions(rest)
        ]
        # Conditions may turn there, whatever values of other states make them do.
        at = self.next.numbers_for(state)
        at = state.scaled(at[state.takes(at)])
        inside = (at > low[:, None]) & (at < high[:, None])
        cuts.append((np.nonzero(inside)[0], np.broadcast_to(at, inside.shape)[inside]))
        row, at = (np.concatenate(own) for own in zip(*cuts, strict=True))
        return Pieces.cut(low, high, row, at)

    def _cuts(
        self, there: _There, low: np.ndarray, high: np.ndarray, turning: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where the next action changes: row and place. Where means of Q cross between two places, their
        difference is taken for a line; where a condition turns, the interval is halved. An action that is the
        best in its draw changes near to where the one with the best mean does."""
        looks = _LOOKS // 3 if self._nested else _LOOKS
        grid = self._grid(there.state, low, high, looks, turning)
        row = np.repeat(np.arange(len(grid)), grid.shape[1])
        frame = there.frame(row, grid.ravel())
        feasible, code, values = self.next.taken(frame, on_average=True)
        code = code.reshape(grid.shape)
        changes = code[:, 1:] != code[:, :-1]
        jumps = np.zeros_like(changes)
        if turning:
            said = self.next.signature(frame, feasible).reshape(grid.shape)
            jumps = said[:, 1:] != said[:, :-1]
        row, cell = np.nonzero(changes | jumps)
        a, b = grid[row, cell], grid[row, cell + 1]
        cut = 0.5 * (a + b)
        if values is not None:
            table = values.reshape(*grid.shape, -1)
            left, right = code[row, cell], code[row, cell + 1]
            ahead = table[row, cell, left] - table[row, cell, right]
            behind = table[row, cell + 1, right] - table[row, cell + 1, left]
            cut = a + np.clip(ahead / np.maximum(ahead + behind, 1e-300), 0.0, 1.0) * (b - a)
        jump = jumps[row, cell]
        cut[jump] = there.halved(row[jump], a[jump], b[jump])
        return row, cut

    def _grid(
        self, state: StateQ, low: np.ndarray, high: np.ndarray, looks: int, turning: bool
    ) -> np.ndarray:
        """Places (row, look) at which the next action is looked up, on the scale of integration."""
        grid = low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, looks)
        if not turning:
            return grid
        at = self.next.turns_at
        at = at[state.takes(at)]
        more = np.clip(state.scaled(at)[None], low[:, None], high[:, None])
        return np.sort(np.hstack([grid, more]), axis=1)

    def _completions(self, rest: Sequence[StateQ]) -> list[Callable[[pd.DataFrame], pd.DataFrame]]:
        """Ways to complete a history by the states that are still to come: each of a few categories, the mean
        of a number."""
        ways: list[Callable[[pd.DataFrame], pd.DataFrame]] = [lambda frame: frame]
        for state in rest:
            few = state.thinned(_FEW)
            values: list[float | None] = [None]
            if state.categories:
                step = -(-state.categories // _MOST_WAYS)
                values = [float(c) for c in range(0, state.categories, step)]
            ways = [self._completed(way, few, value) for way in ways for value in values]
        return ways

    def _completed(
        self, before: Callable[[pd.DataFrame], pd.DataFrame], state: StateQ, value: float | None
    ) -> Callable[[pd.DataFrame], pd.DataFrame]:
        def complete(frame: pd.DataFrame) -> pd.DataFrame:
            frame = before(frame)
            if value is not None:
                own = np.full(len(frame), value)
            else:
                own = state.mean(state.columns(frame), self._arm(frame)).mean(axis=1)
                own = own * state.trials(frame)
            return with_columns(frame, {state.name: state.as_column(own)})

        return complete

    # The closed form of a Gaussian state that the next stage is linear in.

    def closed(self, frame: pd.DataFrame) -> bool:
        """Whether the last state can be integrated out in closed form, as some histories show."""
        if not self.states:
            return False
        q, last, reward = self.next.later, self.states[-1], self.reward
        if last.family != "gaussian" or last.outside is not None or not isinstance(q, QFunction):
            return False
        if not q.payoff.family.linear:
            return False
        if reward is not None and last.name in reward.design.formula.columns:
            return False
        if last.name == self.earned:
            return False
        few = frame.iloc[: min(len(frame), 50)].reset_index(drop=True)
        if not len(few):
            return False
        for state in self.states[:-1]:
            arm = self._arm(few)
            row, value, _ = (
                (np.arange(len(few)), state.reach(state.columns(few), arm, state.trials(few))[0], 0)
                if state.continuous
                else state.values(state.columns(few), arm, state.trials(few), np.zeros(0))
            )
            value = state.unscaled(value)[0] if state.continuous else value
            few = with_columns(
                few.iloc[row].reset_index(drop=True), {state.name: state.as_column(value)}
            )
            few = few.iloc[:: max(1, len(few) // 50)].reset_index(drop=True)
        centre, sd = self._place(last, few)
        ends = [self._columns_at(last, few, centre + t * sd) for t in (-1.0, 1.0, 3.0)]
        return all(
            np.abs(c - (2.0 * b - a)).max(initial=0.0)
            <= _LINEAR * (np.abs(a).max(initial=0.0) + np.abs(b).max(initial=0.0) + 1e-12)
            for a, b, c in zip(*(_arrays(e) for e in ends), strict=True)
        )

    def _place(self, state: StateQ, frame: pd.DataFrame) -> tuple[float, float]:
        """Where values of a Gaussian state lie, over all rows."""
        arm = self._arm(frame)
        centre, sd = state.reach(state.columns(frame), arm, state.trials(frame))
        spread = float(np.sqrt(np.mean(np.square(sd)) + np.var(centre)))
        return float(centre.mean()), max(spread, 1e-300)

    def _columns_at(self, state: StateQ, frame: pd.DataFrame, value: float) -> UnitColumns:
        held = with_columns(frame, {state.name: np.full(len(frame), value)})
        return columns_of_next(self.next.later, held)

    def _lines(self, state: StateQ, frame: pd.DataFrame) -> Lines:
        columns = state.columns(frame)
        arm = self._arm(frame)
        few = frame.iloc[:: max(1, len(frame) // 200)].reset_index(drop=True)
        centre, sd = self._place(state, few)
        at = centre - sd, centre + sd
        ends = self._columns_at(state, frame, at[0]), self._columns_at(state, frame, at[1])
        rows = len(frame)
        low, high = np.full(rows, -np.inf), np.full(rows, np.inf)
        pieces, inside = one_piece(low, high), np.full(rows, centre)

        there = _There(frame, state, lambda frame: frame, self.next)
        if self.next.turns_with(state):
            middle, own = state.reach(columns, arm, np.ones(rows))
            grid = self._grid(state, middle - _REACH * own, middle + _REACH * own, _LOOKS, True)
            row = np.repeat(np.arange(rows), grid.shape[1])
            said = there.signature(row, grid.ravel()).reshape(grid.shape)
            r, cell = np.nonzero(said[:, 1:] != said[:, :-1])
            cut = there.halved(r, grid[r, cell], grid[r, cell + 1])
            pieces = Pieces.cut(low, high, r, cut)
            left = np.maximum(pieces.low, (middle - 2 * _REACH * own)[pieces.row])
            right = np.minimum(pieces.high, (middle + 2 * _REACH * own)[pieces.row])
            inside = 0.5 * (left + right)
        at_pieces = there.frame(pieces.row, inside)
        feasible = self.next.allowed(at_pieces)
        code = self.next.said(at_pieces, feasible)
        return Lines(state, columns, arm, at, ends, pieces, feasible, code)


@dataclass(frozen=True)
class _There:
    """Histories in which a state stands at a place, and those to come are completed."""

    before: pd.DataFrame
    state: StateQ
    complete: Callable[[pd.DataFrame], pd.DataFrame]
    next: NextStage

    def frame(self, row: np.ndarray, place: np.ndarray) -> pd.DataFrame:
        """Histories of rows, one for each place."""
        value, _ = self.state.unscaled(place)
        own = self.before.iloc[row].reset_index(drop=True)
        return self.complete(with_columns(own, {self.state.name: self.state.as_column(value)}))

    def signature(self, row: np.ndarray, place: np.ndarray) -> np.ndarray:
        """What is feasible, and what a regime says, as one number."""
        return self.next.signature(self.frame(row, place))

    def halved(self, row: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Where that changes between a and b."""
        if not len(row):
            return a
        first = self.signature(row, a)
        for _ in range(_HALVINGS):
            middle = 0.5 * (a + b)
            same = self.signature(row, middle) == first
            a, b = np.where(same, middle, a), np.where(same, b, middle)
        return 0.5 * (a + b)


class _Points:
    """Quasi-random points for several continuous states: which of them each row follows."""

    def __init__(self, states: int):
        self._points = norm.ppf(quasi_random(states, _POINTS))
        self._of_row: np.ndarray | None = None
        self._next = 0

    def nodes(
        self, centre: np.ndarray, sd: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row, place and weight of each node of the next state: all points at the first one, then one each.

        The weight is the reciprocal of the density that nodes have.
        """
        row = np.arange(len(centre))
        of_row = self._of_row
        if of_row is None:
            row, of_row = np.repeat(row, _POINTS), np.tile(np.arange(_POINTS), len(row))
        z, wide = self._points[of_row, self._next], _WIDER * sd[row]
        return row, centre[row] + wide * z, wide * np.exp(0.5 * z * z)

    def follow(self, row: np.ndarray, used: bool) -> None:
        """The points of the rows that came about, each from the row of before that it names."""
        self._next += used
        if self._of_row is not None:
            self._of_row = self._of_row[row]
        elif used:
            self._of_row = np.tile(np.arange(_POINTS), len(row) // _POINTS)


def _arrays(columns: UnitColumns) -> list[np.ndarray]:
    return [*columns.common, *(z for g in columns.groups for z in g.z)]
