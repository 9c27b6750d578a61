"""Summaries of actions, worked by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st

from bdtr.decisions.optimality import summarise_actions

Q = np.array([[[1.0, 3.0, 2.0, 0.0]], [[2.0, 1.0, 1.0, 1.0]], [[9.0, 9.0, 9.0, 9.0]]])
FEASIBLE = np.array([[True, True, False]])


def test_probability_of_being_optimal_and_expected_regret():
    found = summarise_actions(Q, FEASIBLE)
    assert found.best.tolist() == [0]
    assert found.p_optimal[:2, 0].tolist() == [0.5, 0.5]
    assert found.mean[:2, 0].tolist() == [1.5, 1.25]
    # max per draw: 2, 3, 2, 1
    assert found.regret[:2, 0].tolist() == [2.0 - 1.5, 2.0 - 1.25]
    assert np.isnan([found.p_optimal[2, 0], found.mean[2, 0], found.regret[2, 0]]).all()


def test_lower_is_better_mirrors_everything():
    up = summarise_actions(Q, FEASIBLE)
    down = summarise_actions(-Q, FEASIBLE, higher_is_better=False)
    for name in ("best", "p_optimal", "regret"):
        assert np.array_equal(getattr(up, name), getattr(down, name), equal_nan=True)
    assert np.array_equal(up.mean, -down.mean, equal_nan=True)


@given(st.integers(2, 4), st.integers(1, 6), st.integers(1, 30), st.integers(0, 2**31))
def test_laws(actions, units, samples, seed):
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(actions, units, samples))
    feasible = rng.random((units, actions)) < 0.7
    feasible[np.arange(units), rng.integers(0, actions, units)] = True
    found = summarise_actions(q, feasible)
    assert np.allclose(np.nansum(found.p_optimal, axis=0), 1)
    assert np.nanmin(found.regret) > -1e-12
    assert np.allclose(np.nanmin(found.regret, axis=0), found.regret[found.best, np.arange(units)])
    assert feasible[np.arange(units), found.best].all()


@given(st.integers(1, 40), st.floats(0.01, 0.99), st.integers(0, 2**31), st.booleans())
def test_intervals_are_quantiles_as_numpy_takes_them(samples, interval, seed, ties):
    q = np.random.default_rng(seed).normal(size=(2, 5, samples))
    q = q.round() if ties else q
    found = summarise_actions(q, np.ones((5, 2), dtype=bool), interval)
    tail = (1 - interval) / 2
    assert np.allclose([found.lower, found.upper], np.quantile(q, [tail, 1 - tail], axis=2))


def test_actions_within_a_margin():
    """Losses per draw of the first action: 1, 0, 0, 1; of the second: 0, 2, 1, 0."""
    for margin, expected in ((0.0, [0.5, 0.5]), (1.0, [1.0, 0.75]), (2.0, [1.0, 1.0])):
        found = summarise_actions(Q, FEASIBLE, margin=margin).p_within
        assert found[:2, 0].tolist() == expected
        assert np.isnan(found[2, 0])
