"""The best shallow tree of yes-no questions: exact search over all trees with given cuts.

Each covariate is coded 0, 1, .. in order; a question sends the codes up to a cut to the left. For a root
question, sums of gains by covariate and code are kept for both sides and moved from right to left as the
cut goes up, so that the best pair of questions below it costs one pass over the sums: the best tree of
depth 2 takes a time that grows as units x covariates^2 (compare Sverdrup, Kanodia, Zhou, Athey and Wager
2020, J. Open Source Softw. 5(50)). Depth 3 tries every root question with the best trees of depth 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from bdtr.results.threads import spread

__all__ = ["Nodes", "best_tree", "leaf_of"]

_TIE = 1e-9  # relative gain below which a question is not worth asking


@dataclass(frozen=True)
class Nodes:
    """A tree: question i has its ``yes`` side (codes up to ``cut``) at 2 i + 1, the other at 2 i + 2.

    ``feature`` is -1 where there is no question: the node is a leaf with its ``action``.
    """

    feature: np.ndarray
    cut: np.ndarray
    action: np.ndarray
    gain: float


def best_tree(
    codes: np.ndarray, bins: np.ndarray, gain: np.ndarray, depth: int, least: int = 1
) -> Nodes:
    """The tree with the largest total gain.

    Parameters
    ----------
    codes
        Covariates as codes (unit, covariate).
    bins
        Number of codes of each covariate.
    gain
        Gain of each action (unit, action).
    depth
        Questions on the longest path, 1 to 3.
    least
        Smallest number of units in a leaf.

    Returns
    -------
    Nodes
        Among trees with the same gain one with few questions.

    Examples
    --------
    >>> codes, gain = np.array([[0], [1], [1]]), np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0]])
    >>> best_tree(codes, np.array([2]), gain, 1).action.tolist()
    [-1, 0, 1]
    """
    codes = np.ascontiguousarray(codes, dtype=np.int64)
    gain = np.ascontiguousarray(gain, dtype=np.float64)
    bins = np.ascontiguousarray(bins, dtype=np.int64)
    size = 2 ** (depth + 1) - 1
    roots = np.array([(j, t) for j, b in enumerate(bins) for t in range(b - 1)] or [(0, 0)])
    if depth < 3:  # all cuts of a covariate in one go
        roots = np.array([(j, -1) for j in range(len(bins))])
    value = np.full(len(roots), -np.inf)
    feature, cut, action = (np.full((len(roots), size), -1, dtype=np.int64) for _ in range(3))
    tie = _TIE * max(float(np.abs(gain).max(initial=0.0)), 1e-300) * len(gain)
    spread(
        _roots, len(roots), roots, depth, codes, bins, gain, least, tie, value, feature, cut, action
    )
    at = int(np.argmax(value > value.max() - tie))
    found = Nodes(feature[at], cut[at], action[at], float(value[at]))
    smaller = best_tree(codes, bins, gain, 2, least) if depth == 3 else found
    return _pruned(smaller if smaller.gain > found.gain - tie else found)


def _pruned(nodes: Nodes) -> Nodes:
    """The tree without questions whose answers lead to the same action."""
    feature, action = nodes.feature.copy(), nodes.action.copy()
    for i in reversed(range(len(feature) // 2)):
        yes, no = 2 * i + 1, 2 * i + 2
        if feature[i] >= 0 and action[yes] == action[no] >= 0:
            feature[i], action[i] = -1, action[yes]
            action[yes] = action[no] = -1
    return Nodes(feature, np.where(feature >= 0, nodes.cut, -1), action, nodes.gain)


def leaf_of(nodes: Nodes, codes: np.ndarray) -> np.ndarray:
    """Number of the leaf that each unit comes to."""
    at = np.zeros(len(codes), dtype=np.int64)
    while True:
        open_ = nodes.feature[at] >= 0
        if not open_.any():
            return at
        where = at[open_]
        yes = codes[open_, nodes.feature[where]] <= nodes.cut[where]
        at[open_] = 2 * where + np.where(yes, 1, 2)


@njit(cache=True, nogil=True)
def _roots(first, last, roots, depth, codes, bins, gain, least, tie, value, feature, cut, action):
    """The best tree with each of these root questions (for depth 1 and 2: with this covariate)."""
    rows = np.arange(len(codes))
    for r in range(first, last):
        j, t = roots[r]
        if depth < 3:
            value[r] = _up_to_two(rows, codes, bins, gain, depth, least, tie, j, j + 1, feature[r],
                                  cut[r], action[r])  # fmt: skip
            continue
        left, right = rows[codes[:, j] <= t], rows[codes[:, j] > t]
        none = np.full(7, -1)
        sub = (none.copy(), none.copy(), none.copy(), none.copy(), none.copy(), none.copy())
        if len(left) < least or len(right) < least:
            # This question cannot be asked: without it, a tree of depth 2.
            value[r] = _up_to_two(rows, codes, bins, gain, 2, least, tie, 0, len(bins), sub[0], sub[1],
                                  sub[2])  # fmt: skip
            for i in range(7):
                feature[r, i], cut[r, i], action[r, i] = sub[0][i], sub[1][i], sub[2][i]
            continue
        total = _up_to_two(
            left, codes, bins, gain, 2, least, tie, 0, len(bins), sub[0], sub[1], sub[2]
        )
        total += _up_to_two(
            right, codes, bins, gain, 2, least, tie, 0, len(bins), sub[3], sub[4], sub[5]
        )
        value[r] = total
        feature[r, 0], cut[r, 0] = j, t
        _place(sub[0], sub[1], sub[2], 1, feature[r], cut[r], action[r])
        _place(sub[3], sub[4], sub[5], 2, feature[r], cut[r], action[r])


@njit(cache=True, nogil=True)
def _place(f, c, a, root, feature, cut, action):
    """Write a tree of depth 2 below a node."""
    where = np.zeros(7, dtype=np.int64)
    where[0] = root
    for i in range(3):
        where[2 * i + 1], where[2 * i + 2] = 2 * where[i] + 1, 2 * where[i] + 2
    for i in range(7):
        feature[where[i]], cut[where[i]], action[where[i]] = f[i], c[i], a[i]


@njit(cache=True, nogil=True)
def _up_to_two(rows, codes, bins, gain, depth, least, tie, j0, j1, feature, cut, action):
    """The best tree of depth 1 or 2 for some rows, its root a question about covariates j0 to j1."""
    p, actions, most = len(bins), gain.shape[1], bins.max()
    every, left = np.zeros((p, most, actions + 1)), np.zeros((p, most, actions + 1))
    for i in rows:
        _move(codes[i], gain[i], 1.0, every)
    best = _leaf(every, actions, feature, cut, action, 0)
    right = np.empty_like(every)
    for j in range(j0, j1):
        order = rows[np.argsort(codes[rows, j], kind="mergesort")]
        left[:], right[:] = 0.0, every
        at = 0
        for t in range(bins[j] - 1):
            while at < len(order) and codes[order[at], j] <= t:
                i = order[at]
                _move(codes[i], gain[i], 1.0, left)
                _move(codes[i], gain[i], -1.0, right)
                at += 1
            if at < least or len(order) - at < least:
                continue
            one = _stump(left, bins, actions, depth > 1, least, tie)
            other = _stump(right, bins, actions, depth > 1, least, tie)
            if one[0] + other[0] > best + tie:
                best = one[0] + other[0]
                feature[:], cut[:], action[:] = -1, -1, -1
                feature[0], cut[0] = j, t
                _write(one, 1, feature, cut, action)
                _write(other, 2, feature, cut, action)
    return best


@njit(cache=True, nogil=True)
def _move(codes, gain, sign, sums):
    """Add a unit to the sums by covariate and code; the last column counts."""
    for j in range(codes.size):
        own = sums[j, codes[j]]
        for a in range(gain.size):
            own[a] += sign * gain[a]
        own[gain.size] += sign


@njit(cache=True, nogil=True)
def _leaf(sums, actions, feature, cut, action, node):
    total = sums[0].sum(axis=0)
    a = total[:actions].argmax()
    feature[:], cut[:], action[:] = -1, -1, -1
    action[node] = a
    return total[a]


@njit(cache=True, nogil=True)
def _stump(sums, bins, actions, ask, least, tie):
    """The best leaf or question: (gain, covariate or -1, cut, action, action of the other side)."""
    total = sums[0].sum(axis=0)
    a = total[:actions].argmax()
    found = (total[a], -1, -1, a, -1)
    if not ask:
        return found
    below = np.empty(actions + 1)
    for j in range(len(bins)):
        below[:] = 0.0
        for t in range(bins[j] - 1):
            below += sums[j, t]
            if below[actions] < least - 0.5 or total[actions] - below[actions] < least - 0.5:
                continue
            one, other = 0, 0
            for k in range(1, actions):
                if below[k] > below[one]:
                    one = k
                if total[k] - below[k] > total[other] - below[other]:
                    other = k
            value = below[one] + total[other] - below[other]
            if value > found[0] + tie:
                found = (value, j, t, one, other)
    return found


@njit(cache=True, nogil=True)
def _write(found, node, feature, cut, action):
    if found[1] < 0:
        action[node] = found[3]
        return
    feature[node], cut[node] = found[1], found[2]
    action[2 * node + 1], action[2 * node + 2] = found[3], found[4]
