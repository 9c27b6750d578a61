"""The families of the engine: what their log likelihoods are, as numbers of rows for one of the forms.

A row stands for ``count`` outcomes of the same columns. Per family, with s the dispersion of the row's
stratum (an SD-like number above 0):

| family | outcome y, companion m | log likelihood at eta | s |
|---|---|---|---|
| binomial | successes, trials | y eta - m log(1 + e^eta) | |
| poisson | count, exposure | y eta - m e^eta | |
| negative binomial | count, exposure | of mean m e^eta and size 1/s^2 | CV of rates between units |
| gamma | above 0 | of mean e^eta and shape 1/s^2 | CV of the outcome |
| weibull | time, 1 for an event | log time = eta + s log(Exp(1)), right-censored | scale of log times |
| normal | value, 1 (-1) if all that is known is that it is larger (smaller) | normal, mean eta | SD |
| beta binomial | successes, trials | binomial, rates beta of mean p | see below |
| beta | between 0 and 1 | beta of mean p = logistic(eta) | see below |
| student t | value | t distribution of location eta and scale s | scale |
| ordinal | category 0, 1, .. | P(y >= j) = logistic(eta - g_j), 0 = g_1 < g_2 < .. | |

Beta distributions have parameters p/s^2 and (1 - p)/s^2, and so the variance p (1 - p) s^2/(1 + s^2). The
dispersion s is a part of phi: itself, folded at zero, where it may be next to nothing (``FOLDED``), else its
logarithm. Of a t distribution phi ends with log(nu - 1), nu its degrees of freedom. Of an ordinal outcome
phi holds the logarithms of the gaps g_2 - g_1, g_3 - g_2, ..

Left out are parts that neither eta nor the dispersion change.
"""

from __future__ import annotations

import math

import numpy as np

from bdtr.engine.compiled.kernels import kernel
from bdtr.engine.laplace import forms
from bdtr.engine.laplace.forms import EXPONENTIAL, INTERVAL, LOGISTIC, SHARES, TAILED

__all__ = [
    "BETA",
    "BETA_BINOMIAL",
    "BINOMIAL",
    "CODES",
    "FOLDED",
    "FORMS",
    "GAMMA",
    "NEGATIVE_BINOMIAL",
    "NORMAL",
    "ORDINAL",
    "POISSON",
    "STUDENT_T",
    "WEIBULL",
    "prepare",
]

BINOMIAL, POISSON, NEGATIVE_BINOMIAL, GAMMA, WEIBULL = range(5)
ORDINAL, NORMAL, BETA_BINOMIAL, BETA, STUDENT_T = range(5, 10)

CODES = {
    "binomial": BINOMIAL,
    "poisson": POISSON,
    "negative_binomial": NEGATIVE_BINOMIAL,
    "gamma": GAMMA,
    "weibull": WEIBULL,
    "ordinal": ORDINAL,
    "normal": NORMAL,
    "beta_binomial": BETA_BINOMIAL,
    "beta": BETA,
    "student_t": STUDENT_T,
}
FORMS = np.array(
    [LOGISTIC, EXPONENTIAL, LOGISTIC, EXPONENTIAL, EXPONENTIAL, INTERVAL, forms.NORMAL, SHARES,
     forms.BETA, TAILED]
)  # fmt: skip
FOLDED = np.isin(np.arange(10), [NEGATIVE_BINOMIAL, BETA_BINOMIAL])  # dispersions that may be 0
_LOG_ROOT = 0.5 * math.log(2.0 * math.pi)
_LEAST = 1e-5  # of the CV of rates: less is no overdispersion
_SHORT = 40.0  # counts up to which logarithms are added one by one


@kernel
def prepare(family, y, m, count, stratum, shape, rows, rest):
    """Write what the form of the family takes for each row, and the sum of the rest by stratum.

    ``shape`` is the part of phi that belongs to the outcome: dispersions, or gaps.
    """
    a, b, c, d = rows
    rest[:] = 0.0
    if family == BINOMIAL:
        for i in range(y.size):
            a[i], b[i] = count[i] * y[i], count[i] * m[i]
    elif family == POISSON:
        for i in range(y.size):
            a[i], b[i], d[i] = count[i] * y[i], count[i] * m[i], 1.0
    elif family == NEGATIVE_BINOMIAL:
        for i in range(y.size):
            size = 1.0 / max(abs(shape[stratum[i]]), _LEAST) ** 2
            a[i], b[i] = count[i] * y[i], count[i] * (y[i] + size)
            c[i] = np.log(m[i]) - np.log(size)
            if count[i] > 0.0:
                rest[stratum[i]] += count[i] * (log_rising(y[i], size) + y[i] * np.log(size))
    elif family == GAMMA:
        for i in range(y.size):
            alpha = np.exp(-2.0 * shape[stratum[i]])
            a[i], b[i], c[i], d[i] = -count[i] * alpha, count[i] * alpha, np.log(y[i]), -1.0
            if count[i] > 0.0:
                rest[stratum[i]] += count[i] * (alpha * np.log(alpha * y[i]) - math.lgamma(alpha))
    elif family == WEIBULL:
        for i in range(y.size):
            k = np.exp(-shape[stratum[i]])
            # y^k may be nothing to all digits where e^(k eta) is as well.
            a[i], b[i], c[i], d[i] = -count[i] * m[i] * k, count[i], k * np.log(y[i]), -k
            if count[i] > 0.0:
                rest[stratum[i]] += count[i] * m[i] * (np.log(k) + k * np.log(y[i]))
    elif family == NORMAL:
        for i in range(y.size):
            side = -1.0 if m[i] < 0.0 else 1.0
            a[i], b[i] = (count[i], 0.0) if m[i] == 0.0 else (0.0, count[i])
            d[i] = side * np.exp(-shape[stratum[i]])
            c[i] = d[i] * y[i]
            if a[i] > 0.0:
                rest[stratum[i]] -= a[i] * (shape[stratum[i]] + _LOG_ROOT)
    elif family == BETA_BINOMIAL:
        for i in range(y.size):
            size = 1.0 / max(abs(shape[stratum[i]]), _LEAST) ** 2
            a[i], b[i], c[i], d[i] = y[i], m[i] - y[i], size, count[i]
            if count[i] > 0.0:
                rest[stratum[i]] -= count[i] * (log_rising(m[i], size) + m[i] * np.log(size))
    elif family == BETA:
        for i in range(y.size):
            size = np.exp(-2.0 * shape[stratum[i]])
            c[i], d[i] = size, count[i]
            if count[i] > 0.0:
                a[i], b[i] = np.log(y[i]), np.log1p(-y[i])
                rest[stratum[i]] += count[i] * math.lgamma(size)
    elif family == STUDENT_T:
        nu = 1.0 + np.exp(shape[shape.size - 1])
        constant = math.lgamma(0.5 * (nu + 1.0)) - math.lgamma(0.5 * nu) - 0.5 * np.log(nu * np.pi)
        for i in range(y.size):
            log_scale = shape[stratum[i]]
            a[i], b[i] = y[i], np.exp(-2.0 * log_scale) / nu
            c[i] = 0.5 * count[i] * (nu + 1.0)
            rest[stratum[i]] += count[i] * (constant - log_scale)
    else:
        rest[0] = _ordinal(y, count, shape, a, b, c, d)


@kernel
def log_rising(y, size):
    """log(Gamma(y + size) / Gamma(size)) - y log(size), for large sizes too."""
    if y <= _SHORT:
        out = 0.0
        for k in range(1, int(y)):
            out += np.log1p(k / size)
        return out
    if size < 1e6:
        return math.lgamma(y + size) - math.lgamma(size) - y * np.log(size)
    # Stirling's series, the difference taken term by term.
    total = y + size
    out = (total - 0.5) * np.log1p(y / size) - y
    return out + (1.0 / total - 1.0 / size) / 12.0


@kernel
def _ordinal(y, count, shape, a, b, c, d):
    """Category j has probability between two logistic functions, of gaps g_j and g_(j+1)."""
    gaps = np.empty(shape.size + 1)
    gaps[0] = 0.0
    for j in range(shape.size):
        gaps[j + 1] = gaps[j] + np.exp(shape[j])
    rest = 0.0
    for i in range(y.size):
        j = int(y[i])
        a[i] = count[i] if j > 0 else 0.0
        b[i] = count[i] if j < gaps.size else 0.0
        c[i] = gaps[j - 1] if j > 0 else 0.0
        d[i] = gaps[j] if j < gaps.size else 0.0
        if 0 < j < gaps.size and count[i] > 0.0:
            rest += count[i] * np.log(-np.expm1(c[i] - d[i]))
    return rest
