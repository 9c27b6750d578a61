"""Assignments under limits against all assignments there are."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, strategies as st

from bdtr.decisions.allocation import AllocationError, Rows, allocate, least_limit


def brute_force(gain, feasible, coefficients, limits):
    """Largest total gain among all assignments within the limits, or None."""
    choices = [np.flatnonzero(f) for f in feasible]
    units, best = np.arange(len(gain)), None
    for action in product(*choices):
        used = coefficients[:, units, list(action)].sum(axis=1)
        if (used <= limits + 1e-9).all():
            total = gain[units, list(action)].sum()
            best = total if best is None else max(best, total)
    return best


def problem(seed, units=6, actions=3, rows=2, negative=False):
    rng = np.random.default_rng(seed)
    gain = rng.normal(size=(units, actions))
    feasible = rng.random((units, actions)) < 0.8
    feasible[np.arange(units), rng.integers(0, actions, units)] = True
    coefficients = rng.random((rows, units, actions)) * (rng.random((rows, units, actions)) < 0.7)
    if negative:
        coefficients *= rng.choice([-1, 1], size=coefficients.shape)
    limits = rng.random(rows) * units * 0.3
    matrix = [
        Rows.of(c, np.zeros(units, dtype=int), [x])
        for c, x in zip(coefficients, limits, strict=True)
    ]
    return gain, feasible, coefficients, limits, matrix[0].stacked(*matrix[1:])


@given(st.integers(0, 10_000), st.integers(1, 3), st.booleans())
def test_small_problems_are_solved_exactly(seed, count, negative):
    gain, feasible, coefficients, limits, rows = problem(seed, rows=count, negative=negative)
    expected = brute_force(gain, feasible, coefficients, limits)
    if expected is None:
        with pytest.raises(AllocationError):
            allocate(gain, feasible, rows)
        return
    found = allocate(gain, feasible, rows)
    units = np.arange(len(gain))
    assert found.gain == pytest.approx(expected, abs=1e-7)
    assert feasible[units, found.action].all()
    assert (coefficients[:, units, found.action].sum(axis=1) <= limits + 1e-6).all()
    assert found.bound >= found.gain - 1e-7
    assert (found.price >= -1e-9).all()


def test_without_limits_each_unit_has_its_best_action():
    gain, feasible, *_ = problem(1, units=50)
    best = np.where(feasible, gain, -np.inf).argmax(axis=1)
    assert (allocate(gain, feasible).action == best).all()
    loose = Rows.of(np.ones_like(gain), np.zeros(50, dtype=int), [50.0])
    found = allocate(gain, feasible, loose)
    assert (found.action == best).all()
    assert found.price == pytest.approx([0])
    assert found.gain == pytest.approx(found.bound)


def test_places_go_to_those_who_gain_most_and_cost_what_the_next_one_gains():
    """One action costs a place: the first 300 by gain have it, the price lies between 300th and 301st."""
    rng = np.random.default_rng(3)
    gain = np.stack([np.zeros(2000), rng.normal(size=2000)], axis=1)
    cost = np.tile([0.0, 1.0], (2000, 1))
    found = allocate(
        gain, np.ones_like(gain, dtype=bool), Rows.of(cost, np.zeros(2000, int), [300])
    )
    order = np.sort(gain[:, 1])[::-1]
    assert found.gain == pytest.approx(order[:300].sum())
    assert (np.sort(gain[found.action == 1, 1])[::-1] == order[:300]).all()
    assert order[300] - 1e-9 <= found.price[0] <= order[299] + 1e-9


def test_each_site_has_its_own_places():
    rng = np.random.default_rng(4)
    site = rng.integers(-1, 20, 1000)  # some belong to none
    gain = np.stack([np.zeros(1000), rng.random(1000)], axis=1)
    cost = np.tile([0.0, 1.0], (1000, 1))
    places = rng.integers(0, 8, 20)
    found = allocate(gain, np.ones_like(gain, dtype=bool), Rows.of(cost, site, places))
    for s, most in enumerate(places):
        own = np.sort(gain[site == s, 1])[::-1]
        assert gain[(site == s) & (found.action == 1), 1].sum() == pytest.approx(own[:most].sum())
    assert (found.action[site < 0] == 1).all()


def test_units_near_indifference_are_assigned_as_wholes():
    """A limit that no whole number of equal costs meets: some give way, a few thousandths are lost."""
    rng = np.random.default_rng(5)
    gain = np.column_stack([np.zeros(5000), rng.random(5000), rng.random(5000) * 2.5])
    cost = np.tile([0.0, 1.0, 2.3], (5000, 1))
    rows = Rows.of(cost, np.zeros(5000, int), [1000.7])
    found = allocate(gain, np.ones_like(gain, dtype=bool), rows)
    assert cost[np.arange(5000), found.action].sum() <= 1000.7 + 1e-6
    assert found.bound - found.gain < 0.01


def test_what_cannot_be_kept_says_by_how_much():
    feasible = np.array([[False, True], [True, True]])
    cost = np.tile([0.0, 1.0], (2, 1))
    rows = Rows.of(cost, np.zeros(2, int), [0.4])
    with pytest.raises(AllocationError):
        allocate(np.ones((2, 2)), feasible, rows)
    assert least_limit(feasible, rows) == pytest.approx(0.6)
