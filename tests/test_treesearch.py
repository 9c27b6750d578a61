"""The tree search against all trees there are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from bdtr.decisions.treesearch import best_tree, leaf_of


def exhaustive(codes, bins, gain, depth, least):
    """Largest gain over all trees, by recursion over all questions."""
    best = gain.sum(axis=0).max()
    if depth == 0:
        return best
    for j in range(codes.shape[1]):
        for t in range(bins[j] - 1):
            yes = codes[:, j] <= t
            if yes.sum() >= least and (~yes).sum() >= least:
                parts = [exhaustive(codes[m], bins, gain[m], depth - 1, least) for m in (yes, ~yes)]
                best = max(best, sum(parts))
    return best


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 25),
    st.integers(1, 4),
)
def test_small_problems_are_solved_exactly(seed, depth, covariates, units, least):
    rng = np.random.default_rng(seed)
    bins = rng.integers(1, 5, covariates)
    codes = np.stack([rng.integers(0, b, units) for b in bins], axis=1)
    gain = rng.normal(size=(units, rng.integers(2, 4)))
    found = best_tree(codes, bins, gain, depth, least)
    assert found.gain == pytest.approx(exhaustive(codes, bins, gain, depth, least), abs=1e-6)
    leaf = leaf_of(found, codes)
    assert (found.action[leaf] >= 0).all()
    assert gain[np.arange(units), found.action[leaf]].sum() == pytest.approx(found.gain, abs=1e-6)
    assert np.unique(leaf, return_counts=True)[1].min() >= min(least, units)


def test_a_question_that_gains_nothing_is_not_asked():
    codes = np.random.default_rng(1).integers(0, 4, (200, 3))
    gain = np.stack([np.zeros(200), np.ones(200)], axis=1)
    for depth in (1, 2, 3):
        found = best_tree(codes, np.full(3, 4), gain, depth)
        assert (found.feature == -1).all()
        assert found.action[0] == 1


def test_the_tree_that_made_the_gains_is_found():
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 32, (3000, 6))
    wanted = np.where(codes[:, 4] <= 11, codes[:, 1] <= 20, codes[:, 5] <= 3).astype(int)
    gain = rng.normal(0, 0.3, (3000, 2))
    gain[np.arange(3000), wanted] += 1.0
    found = best_tree(codes, np.full(6, 32), gain, 2)
    assert found.feature[:3].tolist() == [4, 1, 5]
    assert found.cut[:3].tolist() == [11, 20, 3]
    assert found.action[3:].tolist() == [1, 0, 1, 0]
