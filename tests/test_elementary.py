"""Exponentials and logistic functions of the kernels."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from bdtr.engine.compiled.elementary import exponential, logistic, softplus
from bdtr.engine.compiled.kernels import kernel
from bdtr.engine.compiled.lanes import LANES, load, negated_size, store


@kernel
def _all_three(x, exponentials, logistics, softpluses):
    for i in range(0, x.size, LANES):
        numbers = load(x, i)
        small = exponential(negated_size(numbers))
        store(exponentials, i, exponential(numbers))
        store(logistics, i, logistic(numbers, small))
        store(softpluses, i, softplus(numbers, small))


def test_against_numpy():
    """Relative errors of a few units in the last place, from -690 to 690 and next to zero."""
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [rng.normal(0, 5, 8000), np.linspace(-690, 690, 2000), rng.normal(0, 1e-9, 400)]
    )
    e, p, s = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    _all_three(x, e, p, s)
    unit = np.finfo(float).eps
    assert np.abs(e / np.exp(x) - 1).max() < 4 * unit
    assert np.abs(p / expit(x) - 1).max() < 4 * unit
    assert np.abs(s / np.logaddexp(0, x) - 1).max() < 4 * unit


def test_beyond_the_range():
    """Exponents are cut off at 700: what is left is finite and on the right side."""
    x = np.array([-1e6, -800.0, 800.0, 1e6, 0.0, -0.0, 700.0, -700.0])
    e, p, s = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    _all_three(x, e, p, s)
    assert np.isfinite([e, p, s]).all()
    assert (e[:2] < 1e-300).all() and (e[2:4] > 1e300).all()
    assert np.array_equal(p[2:6], [1.0, 1.0, 0.5, 0.5]) and (p[:2] < 1e-300).all()
    assert np.array_equal(s[2:4], [800.0, 1e6])
