"""What a log likelihood is as a function of the linear predictor: few forms serve all families.

With eta the linear predictor of a row and a, b, c, d numbers of the row that depend on its outcome and on the
dispersion, but not on eta (:mod:`bdtr.engine.laplace.likelihoods` computes them):

    LOGISTIC     a t - b log(1 + e^t), t = eta + c
    EXPONENTIAL  a eta - b e^(d eta)
    INTERVAL     -a log(1 + e^-(eta - c)) - b log(1 + e^(eta - d))

All are concave. Rows are taken eight at a time; there is a multiple of eight of them.
"""

from __future__ import annotations

from numba import njit

from bdtr.engine.compiled.elementary import exponential, logistic, softplus
from bdtr.engine.compiled.kernels import kernel
from bdtr.engine.compiled.lanes import LANES, every, load, minus, negated_size, store

__all__ = ["EXPONENTIAL", "INTERVAL", "LOGISTIC", "curves", "third", "values"]

LOGISTIC, EXPONENTIAL, INTERVAL = 0, 1, 2


@njit(inline="always")
def _soft(t):
    return softplus(t, exponential(negated_size(t)))


@kernel
def values(form, eta, rows, out):
    """Log likelihood of each row at its linear predictor."""
    a, b, c, d = rows
    for i in range(0, eta.size, LANES):
        x, of_a, of_b = load(eta, i), load(a, i), load(b, i)
        if form == LOGISTIC:
            t = x + load(c, i)
            store(out, i, minus(of_a * t, of_b, _soft(t)))
        elif form == EXPONENTIAL:
            store(out, i, minus(of_a * x, of_b, exponential(load(d, i) * x)))
        else:
            low, high = load(c, i) - x, x - load(d, i)
            store(out, i, minus(every(0.0) - of_a * _soft(low), of_b, _soft(high)))


@kernel
def curves(form, eta, rows, out, slope, bend):
    """Log likelihood of each row, its slope, and its curvature: minus the second derivative."""
    a, b, c, d = rows
    for i in range(0, eta.size, LANES):
        x, of_a, of_b = load(eta, i), load(a, i), load(b, i)
        if form == LOGISTIC:
            t = x + load(c, i)
            small = exponential(negated_size(t))
            p = logistic(t, small)
            store(out, i, minus(of_a * t, of_b, softplus(t, small)))
            store(slope, i, minus(of_a, of_b, p))
            store(bend, i, of_b * p * (every(1.0) - p))
        elif form == EXPONENTIAL:
            rate = load(d, i)
            e = of_b * exponential(rate * x)
            store(out, i, of_a * x - e)
            store(slope, i, minus(of_a, rate, e))
            store(bend, i, rate * rate * e)
        else:
            low, high = load(c, i) - x, x - load(d, i)
            small, other = exponential(negated_size(low)), exponential(negated_size(high))
            p, q = logistic(low, small), logistic(high, other)
            both = minus(every(0.0) - of_a * softplus(low, small), of_b, softplus(high, other))
            store(out, i, both)
            store(slope, i, minus(of_a * p, of_b, q))
            store(bend, i, of_a * p * (every(1.0) - p) + of_b * q * (every(1.0) - q))


@kernel
def third(form, eta, rows, out):
    """Third derivative of the log likelihood of each row."""
    a, b, c, d = rows
    for i in range(0, eta.size, LANES):
        x, of_a, of_b = load(eta, i), load(a, i), load(b, i)
        if form == LOGISTIC:
            store(out, i, every(0.0) - of_b * _bent(x + load(c, i)))
        elif form == EXPONENTIAL:
            rate = load(d, i)
            store(out, i, every(0.0) - of_b * rate * rate * rate * exponential(rate * x))
        else:
            store(out, i, of_a * _bent(load(c, i) - x) - of_b * _bent(x - load(d, i)))


@njit(inline="always")
def _bent(t):
    """Second derivative of the logistic function."""
    p = logistic(t, exponential(negated_size(t)))
    return p * (every(1.0) - p) * (every(1.0) - p - p)
