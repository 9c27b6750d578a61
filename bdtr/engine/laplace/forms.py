"""What a log likelihood is as a function of the linear predictor: few forms serve all families.

With eta the linear predictor of a row and a, b, c, d numbers of the row that depend on its outcome and on the
dispersion, but not on eta (:mod:`bdtr.engine.laplace.likelihoods` computes them):

    LOGISTIC     a t - b log(1 + e^t), t = eta + c
    EXPONENTIAL  a eta - b e^(d eta + c)
    INTERVAL     -a log(1 + e^-(eta - c)) - b log(1 + e^(eta - d))
    NORMAL       -a/2 t^2 + b log Phi(t), t = d eta - c, Phi the standard normal distribution function
    SHARES       d [g(a, p c) + g(b, (1 - p) c)], p = 1 / (1 + e^-eta), g(k, x) = log Gamma(k + x) / Gamma(x)
    BETA         d [h(a, p c) + h(b, (1 - p) c)], h(k, x) = k x - log Gamma(x)
    TAILED       -c log(1 + b (eta - a)^2)

All but the last three are concave; SHARES and BETA are where the data say something, TAILED is near its
centre. Rows are taken eight at a time; there is a multiple of eight of them.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from bdtr.engine.compiled.elementary import exponential, logistic, softplus
from bdtr.engine.compiled.kernels import kernel
from bdtr.engine.compiled.lanes import LANES, every, load, minus, negated_size, plus, store

__all__ = [
    "BETA",
    "EXPONENTIAL",
    "INTERVAL",
    "LOGISTIC",
    "NORMAL",
    "SHARES",
    "TAILED",
    "curves",
    "polygammas",
    "positive_bend",
    "third",
    "values",
]

LOGISTIC, EXPONENTIAL, INTERVAL, NORMAL, SHARES, BETA, TAILED = range(7)
_LOG_ROOT = 0.5 * math.log(2.0 * math.pi)
_SUMMED = 400.0  # counts up to which sums are taken one by one
_FAR_BELOW = -12.0  # from where on the tail is taken by its asymptotic series


@njit(inline="always")
def _soft(t):
    return softplus(t, exponential(negated_size(t)))


@kernel
def values(form, eta, rows, out):
    """Log likelihood of each row at its linear predictor."""
    a, b, c, d = rows
    if form == TAILED:
        for i in range(eta.size):
            out[i] = -c[i] * np.log1p(b[i] * (eta[i] - a[i]) ** 2)
        return
    if form >= SHARES:
        for i in range(eta.size):
            out[i] = _of_shares(form, eta[i], a[i], b[i], c[i], d[i])[0]
        return
    if form == NORMAL:
        for i in range(eta.size):
            t = d[i] * eta[i] - c[i]
            out[i] = -0.5 * a[i] * t * t
            if b[i] != 0.0:
                out[i] += b[i] * _log_phi(t)
        return
    for i in range(0, eta.size, LANES):
        x, of_a, of_b = load(eta, i), load(a, i), load(b, i)
        if form == LOGISTIC:
            t = x + load(c, i)
            store(out, i, minus(of_a * t, of_b, _soft(t)))
        elif form == EXPONENTIAL:
            store(out, i, minus(of_a * x, of_b, exponential(plus(load(c, i), load(d, i), x))))
        else:
            low, high = load(c, i) - x, x - load(d, i)
            store(out, i, minus(every(0.0) - of_a * _soft(low), of_b, _soft(high)))


@kernel
def curves(form, eta, rows, out, slope, bend):
    """Log likelihood of each row, its slope, and its curvature: minus the second derivative."""
    a, b, c, d = rows
    if form == TAILED:
        for i in range(eta.size):
            apart = eta[i] - a[i]
            square = b[i] * apart * apart
            weight = 2.0 * b[i] * c[i] / (1.0 + square)
            out[i], slope[i] = -c[i] * np.log1p(square), -weight * apart
            bend[i] = weight * (1.0 - square) / (1.0 + square)
        return
    if form >= SHARES:
        for i in range(eta.size):
            found = _of_shares(form, eta[i], a[i], b[i], c[i], d[i])
            out[i], slope[i], bend[i] = found[0], found[1], -found[2]
        return
    if form == NORMAL:
        for i in range(eta.size):
            t = d[i] * eta[i] - c[i]
            out[i], slope[i], bend[i] = -0.5 * a[i] * t * t, -a[i] * d[i] * t, a[i] * d[i] * d[i]
            if b[i] != 0.0:
                ratio = _mills(t)
                out[i] += b[i] * _log_phi(t)
                slope[i] += b[i] * d[i] * ratio
                bend[i] += b[i] * d[i] * d[i] * ratio * (t + ratio)
        return
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
            e = of_b * exponential(plus(load(c, i), rate, x))
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
def positive_bend(form, eta, rows, first, last, bend):
    """Curvatures above 0 of rows first to last of the forms that are not concave, for steps that climb where
    the log likelihood is bent upwards.

    Of SHARES and BETA the part of the curvature that stays on average over outcomes (Fisher scoring); of
    TAILED that of a parabola which touches the log likelihood from below, the weight of reweighted least
    squares (Lange, Little and Taylor 1989, J. Am. Stat. Assoc. 84(408)).
    """
    a, b, c, d = rows
    for i in range(first, last):
        if form == TAILED:
            bend[i] = 2.0 * b[i] * c[i] / (1.0 + b[i] * (eta[i] - a[i]) ** 2)
        elif d[i] == 0.0:
            bend[i] = 0.0
        else:
            p, q = _both(eta[i])
            second = _part(form, a[i], p * c[i])[2] + _part(form, b[i], q * c[i])[2]
            bend[i] = -d[i] * second * (c[i] * p * q) ** 2


@kernel
def third(form, eta, rows, out):
    """Third derivative of the log likelihood of each row."""
    a, b, c, d = rows
    if form == TAILED:
        for i in range(eta.size):
            apart = eta[i] - a[i]
            square = b[i] * apart * apart
            out[i] = 4.0 * c[i] * b[i] * b[i] * apart * (3.0 - square) / (1.0 + square) ** 3
        return
    if form >= SHARES:
        for i in range(eta.size):
            out[i] = _of_shares(form, eta[i], a[i], b[i], c[i], d[i])[3]
        return
    if form == NORMAL:
        for i in range(eta.size):
            t, out[i] = d[i] * eta[i] - c[i], 0.0
            if b[i] != 0.0:
                # With m' = -m (t + m): m'' = m (t + m)^2 + m (m (t + m) - 1).
                ratio = _mills(t)
                both = t + ratio
                out[i] = b[i] * d[i] ** 3 * ratio * (both * both + ratio * both - 1.0)
        return
    for i in range(0, eta.size, LANES):
        x, of_a, of_b = load(eta, i), load(a, i), load(b, i)
        if form == LOGISTIC:
            store(out, i, every(0.0) - of_b * _bent(x + load(c, i)))
        elif form == EXPONENTIAL:
            rate = load(d, i)
            e = of_b * exponential(plus(load(c, i), rate, x))
            store(out, i, every(0.0) - rate * rate * rate * e)
        else:
            store(out, i, of_a * _bent(load(c, i) - x) - of_b * _bent(x - load(d, i)))


@njit(inline="always")
def _bent(t):
    """Second derivative of the logistic function."""
    p = logistic(t, exponential(negated_size(t)))
    return p * (every(1.0) - p) * (every(1.0) - p - p)


@kernel
def _log_phi(t):
    """log Phi(t), far below zero too."""
    if t > _FAR_BELOW:
        return np.log(0.5 * math.erfc(-t / math.sqrt(2.0)))
    return -0.5 * t * t - _LOG_ROOT + np.log(-_tail(t) / t)


@kernel
def _mills(t):
    """phi(t) / Phi(t)."""
    if t > _FAR_BELOW:
        return np.exp(-0.5 * t * t - _LOG_ROOT) / (0.5 * math.erfc(-t / math.sqrt(2.0)))
    return -t / _tail(t)


@njit(inline="always")
def _tail(t):
    """-t Phi(t) / phi(t) of t far below zero: 1 - 1/t^2 + 3/t^4 - 15/t^6 + .."""
    square = 1.0 / (t * t)
    return 1.0 - square * (
        1.0 - square * (3.0 - square * (15.0 - square * (105.0 - square * 945.0)))
    )


@njit(inline="always")
def _both(eta):
    """p = 1 / (1 + e^-eta) and 1 - p."""
    small = np.exp(-abs(eta))
    p, q = 1.0 / (1.0 + small), small / (1.0 + small)
    if eta < 0.0:
        p, q = q, p
    return max(p, 1e-280), max(q, 1e-280)


@kernel
def _of_shares(form, eta, a, b, c, d):
    """Value and three derivatives in eta of a row of the last two forms."""
    if d == 0.0:
        return 0.0, 0.0, 0.0, 0.0
    p, q = _both(eta)
    one, other = _part(form, a, p * c), _part(form, b, q * c)
    # In p, then in eta: p' = p q, p'' = p q (q - p), p''' = p q (1 - 6 p q).
    first = c * (one[1] - other[1])
    second = c * c * (one[2] + other[2])
    cubed = c * c * c * (one[3] - other[3])
    p1 = p * q
    p2, p3 = p1 * (q - p), p1 * (1.0 - 6.0 * p1)
    return (
        d * (one[0] + other[0]),
        d * first * p1,
        d * (second * p1 * p1 + first * p2),
        d * (cubed * p1 * p1 * p1 + 3.0 * second * p1 * p2 + first * p3),
    )


@kernel
def _part(form, k, x):
    """g(k, x), or h(k, x), and three derivatives in x."""
    if form == BETA:
        psi = polygammas(x)
        return k * x - math.lgamma(x), k - psi[0], -psi[1], -psi[2]
    if k <= _SUMMED:
        value, first, second, cubed = 0.0, 0.0, 0.0, 0.0
        for j in range(int(k)):
            r = 1.0 / (x + j)
            value -= np.log(r)
            first += r
            second -= r * r
            cubed += 2.0 * r * r * r
        return value, first, second, cubed
    above, below = polygammas(k + x), polygammas(x)
    return (
        math.lgamma(k + x) - math.lgamma(x),
        above[0] - below[0],
        above[1] - below[1],
        above[2] - below[2],
    )


@kernel
def polygammas(x):
    """psi(x), psi'(x) and psi''(x): recurrence up to 10, then their asymptotic series (Abramowitz and Stegun
    1972, 6.3-6.4)."""
    first, second, cubed = 0.0, 0.0, 0.0
    while x < 10.0:
        r = 1.0 / x
        first -= r
        second += r * r
        cubed -= 2.0 * r * r * r
        x += 1.0
    r = 1.0 / x
    s = r * r
    first += np.log(x) - 0.5 * r
    first -= s * (
        1.0 / 12.0 - s * (1.0 / 120.0 - s * (1.0 / 252.0 - s * (1.0 / 240.0 - s / 132.0)))
    )
    second += r + 0.5 * s
    second += (
        r
        * s
        * (1.0 / 6.0 - s * (1.0 / 30.0 - s * (1.0 / 42.0 - s * (1.0 / 30.0 - s * 5.0 / 66.0))))
    )
    cubed -= s + r * s
    cubed -= s * s * (0.5 - s * (1.0 / 6.0 - s * (1.0 / 6.0 - s * (0.3 - s * 5.0 / 6.0))))
    return first, second, cubed
