r"""Outcomes that are not seen in full: times until an event, right-censored, and scores between bounds.

Log times are eta + s e: accelerated failure times, e standard normal (log-normal) or the logarithm of a
standard exponential (Weibull; Kalbfleisch and Prentice 2002, The Statistical Analysis of Failure Time Data,
ch. 2-3). Their payoff is the time itself, the time until a horizon, or whether there is no event by then:

    log-normal  E[T] = exp(eta + s^2/2)            P(T > h) = 1 - Phi(z), z = (log h - eta) / s
                E[min(T, h)] = E[T] Phi(z - s) + h (1 - Phi(z))
    Weibull     E[T] = exp(eta) Gamma(1 + s)       P(T > h) = exp(-w), w = (h / exp(eta))^(1/s)
                E[min(T, h)] = E[T] P(s, w), P the regularised lower incomplete gamma function

A score with floor f and ceiling c is normal on the line and recorded as f or c beyond them (Tobin 1958,
Econometrica 26(1)); its payoff is the recorded score,

    E = f Phi(l) + c (1 - Phi(u)) + eta (Phi(u) - Phi(l)) - s (phi(u) - phi(l)),

l = (f - eta)/s and u = (c - eta)/s.

``scores`` are (kind, h) of times, 0 for the time, 1 for the time until h, 2 for no event by h; of scores
(f, c). The companion of a time is 1 for an event; of a score 1 at the ceiling, -1 at the floor, else 0.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gamma, gammainc, log_ndtr, ndtr

__all__ = [
    "TIME",
    "censored_draw",
    "censored_log",
    "censored_mean",
    "censored_pymc",
    "log_of_time",
    "lognormal_draw",
    "lognormal_log",
    "lognormal_mean",
    "lognormal_pymc",
    "weibull_draw",
    "weibull_log",
    "weibull_mean",
    "weibull_pymc",
]

TIME, UNTIL, WITHOUT = 0, 1, 2  # what the payoff of a time is


def _kind(scores) -> tuple[int, float]:
    return (int(scores[0]), float(scores[1])) if len(scores) else (TIME, np.inf)


def _payoff(time, scores):
    kind, h = _kind(scores)
    if kind == TIME:
        return time
    return np.minimum(time, h) if kind == UNTIL else (time > h).astype(float)


def log_of_time(y, m):
    """Log time, and 1 where all that is known is that it is longer, as the engine takes them."""
    return np.log(y), 1.0 - m


def lognormal_mean(eta, shape, scores):
    kind, h = _kind(scores)
    if kind == TIME:
        return np.exp(eta + 0.5 * shape**2)
    z = (np.log(h) - eta) / shape
    if kind == WITHOUT:
        return ndtr(-z)
    # exp(eta + s^2/2) Phi(z - s) as one exponential: the first factor can be beyond all numbers.
    return np.exp(eta + 0.5 * shape**2 + log_ndtr(z - shape)) + h * ndtr(-z)


def lognormal_draw(rng, eta, shape, m, scores):
    return _payoff(np.exp(eta + shape * rng.standard_normal(eta.shape)), scores)


def lognormal_log(y, m, eta, shape):
    z = (np.log(y) - eta) / shape
    event = -0.5 * np.log(2 * np.pi) - np.log(shape) - np.log(y) - 0.5 * z**2
    return np.where(m == 1, event, log_ndtr(-z))


def lognormal_pymc(pm, name, eta, shape, observed, m, dims):
    return _right_censored(pm, name, pm.LogNormal.dist(eta, shape), observed, m, dims)


def weibull_mean(eta, shape, scores):
    kind, h = _kind(scores)
    if kind == TIME:
        return np.exp(eta) * gamma(1.0 + shape)
    log_w = (np.log(h) - eta) / shape
    w = np.exp(np.clip(log_w, -700.0, 700.0))
    if kind == WITHOUT:
        return np.exp(-w)
    # Times far beyond h: to double precision all that counts is h.
    known = log_w > -40.0
    own = (
        np.exp(np.minimum(np.where(known, eta, 0.0), 700.0))
        * gamma(1.0 + shape)
        * gammainc(shape, w)
    )
    return np.where(known, own, h)


def weibull_draw(rng, eta, shape, m, scores):
    return _payoff(np.exp(eta + shape * np.log(rng.standard_exponential(eta.shape))), scores)


def weibull_log(y, m, eta, shape):
    k = 1.0 / shape
    log_w = k * (np.log(y) - eta)
    return m * (np.log(k) + log_w - np.log(y)) - np.exp(log_w)


def weibull_pymc(pm, name, eta, shape, observed, m, dims):
    dist = pm.Weibull.dist(alpha=1.0 / shape, beta=pm.math.exp(eta))
    return _right_censored(pm, name, dist, observed, m, dims)


def _right_censored(pm, name, dist, observed, m, dims):
    upper = pm.math.switch(np.asarray(m) == 1, np.inf, observed)
    return pm.Censored(name, dist, lower=None, upper=upper, observed=observed, dims=dims)


def censored_mean(eta, shape, scores):
    floor, ceiling = scores
    low, high = (floor - eta) / shape, (ceiling - eta) / shape
    below, above = ndtr(low), ndtr(-high)
    out = eta * (1.0 - below - above) + shape * (_density(low) - _density(high))
    if np.isfinite(floor):
        out = out + floor * below
    return out + ceiling * above if np.isfinite(ceiling) else out


def _density(z):
    return np.exp(-0.5 * np.square(z)) / np.sqrt(2 * np.pi)


def censored_draw(rng, eta, shape, m, scores):
    return np.clip(eta + shape * rng.standard_normal(eta.shape), *scores)


def censored_log(y, m, eta, shape):
    z = (y - eta) / shape
    inside = -0.5 * np.log(2 * np.pi) - np.log(shape) - 0.5 * z**2
    return np.where(m == 0, inside, log_ndtr(np.where(m > 0, -z, z)))


def censored_pymc(pm, name, eta, shape, observed, m, dims):
    m = np.asarray(m)
    lower = pm.math.switch(m == -1, observed, -np.inf)
    upper = pm.math.switch(m == 1, observed, np.inf)
    dist = pm.Normal.dist(eta, shape)
    return pm.Censored(name, dist, lower=lower, upper=upper, observed=observed, dims=dims)
