"""Outcome families as a table: link, likelihood, mean payoff. A new family begins with an entry here.

Each row of a stage's fit has a linear predictor eta, an outcome y and, where a family needs one, a companion
m (trials, exposure). Functions of a family take ``shape`` as well: its residual SD or dispersion ``sigma``,
the thresholds of an ordinal outcome, scale and degrees of freedom of a t distribution, or None. Arrays are
(row, draw), or broadcast to that; thresholds have an axis of their own in front.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import betaln, expit, gammaln, log_expit

from bdtr.trial.censoring import (
    censored_draw,
    censored_log,
    censored_mean,
    censored_pymc,
    log_of_time,
    lognormal_draw,
    lognormal_log,
    lognormal_mean,
    lognormal_pymc,
    weibull_draw,
    weibull_log,
    weibull_mean,
    weibull_pymc,
)
from bdtr.trial.worth import MeanWorth, Utility, WorthDrawn

__all__ = ["EARLIER", "FAMILIES", "Family", "with_worth"]

_MOST_COUNT = 1e15


@dataclass(frozen=True)
class Family:
    """One outcome family.

    Parameters
    ----------
    name, link
        Its name and that of its link.
    shape
        What it has beside the linear predictor: ``"sigma"`` (one per action unless the stage says otherwise),
        ``"threshold"``, ``"sigma, nu"`` (a scale and degrees of freedom), or nothing.
    companion
        Argument of :class:`bdtr.Trial` that names the companion column, or nothing.
    engine
        Name of its likelihood in :mod:`bdtr.engine.laplace`; nothing for the Gaussian, which has an engine
        of its own.
    outcomes, valid
        Which outcomes can occur, in words and as a function of y and m.
    mean
        Mean payoff of (eta, shape, scores).
    draw
        Payoffs drawn at random, of (rng, eta, shape, m, scores).
    log_likelihood
        Of (y, m, eta, shape).
    likelihood
        Adds the observed variable to a PyMC model: of (pm, name, eta, shape, observed, m, dims).
    bounds
        Of the mean payoff.
    sigma_is
        What ``sigma`` is, in words.
    coded
        Outcome and companion as the engine takes them, of (y, m); left out: as they are.
    """

    name: str
    link: str
    shape: str
    companion: str
    engine: str
    outcomes: str
    valid: Callable[..., np.ndarray]
    mean: Callable[..., np.ndarray]
    draw: Callable[..., np.ndarray]
    log_likelihood: Callable[..., np.ndarray]
    likelihood: Callable[..., Any]
    bounds: tuple[float, float] | None = None
    sigma_is: str = ""
    coded: Callable[..., tuple[np.ndarray, np.ndarray]] | None = None

    @property
    def has_sigma(self) -> bool:
        """Whether it has a residual SD, or a dispersion in its place."""
        return "sigma" in self.variables

    @property
    def has_nu(self) -> bool:
        """Whether it has degrees of freedom."""
        return "nu" in self.variables

    @property
    def variables(self) -> tuple[str, ...]:
        """Names that the posterior has for its shape."""
        return tuple(self.shape.split(", ")) if self.shape else ()

    @property
    def linear(self) -> bool:
        """Whether the mean payoff is the linear predictor."""
        return self.mean is _same

    @property
    def mean_takes_sigma(self) -> bool:
        """Whether the mean payoff depends on sigma as well."""
        if isinstance(self.mean, MeanWorth):
            return self.mean.takes_sigma
        return self.mean in (lognormal_mean, weibull_mean, censored_mean)

    @property
    def closed_form(self) -> bool:
        """Whether coefficients and effects integrate out in closed form: of the Gaussian, and of working
        responses of quasi-likelihood."""
        return not self.engine

    @property
    def quasi(self) -> bool:
        """Whether it is a quasi-likelihood on a link scale."""
        return self.closed_form and self.link != "identity"

    def response_scale(self, payoff: np.ndarray) -> tuple[float, float]:
        """Centre and spread of the response on the scale of the linear predictor, from observed payoffs."""
        if self.has_nu:  # a few wild payoffs change neither median nor median absolute deviation
            centre = float(np.median(payoff))
            spread = float(np.median(np.abs(payoff - centre))) / 0.6745
            return centre, spread or float(np.std(payoff, ddof=1))
        if self.link == "identity":
            return float(np.mean(payoff)), float(np.std(payoff, ddof=1))
        if self.link == "log":
            return float(np.log(max(np.mean(payoff), 1e-300))), 1.0
        return 0.0, 1.0


# Functions with names: models are sent to worker processes.


def _finite(y, m):
    return np.isfinite(y)


def _same(eta, shape, scores):
    return eta


def _normal_draw(rng, eta, shape, m, scores):
    return eta + shape * rng.standard_normal(eta.shape)


def _normal_log(y, m, eta, shape):
    return -0.5 * np.log(2 * np.pi) - np.log(shape) - 0.5 * ((y - eta) / shape) ** 2


def _normal(pm, name, eta, shape, observed, m, dims):
    return pm.Normal(name, eta, shape, observed=observed, dims=dims)


def _t_draw(rng, eta, shape, m, scores):
    sigma, nu = shape
    return eta + sigma * rng.standard_t(np.broadcast_to(nu, eta.shape))


def _t_log(y, m, eta, shape):
    sigma, nu = shape
    constant = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(nu * np.pi) - np.log(sigma)
    return constant - (nu + 1) / 2 * np.log1p(((y - eta) / sigma) ** 2 / nu)


def _student_t(pm, name, eta, shape, observed, m, dims):
    sigma, nu = shape
    return pm.StudentT(name, nu=nu, mu=eta, sigma=sigma, observed=observed, dims=dims)


def _zero_or_one(y, m):
    return (y == 0) | (y == 1)


def _probability(eta, shape, scores):
    return expit(eta)


def _bernoulli_draw(rng, eta, shape, m, scores):
    return (rng.random(eta.shape) < expit(eta)).astype(float)


def _bernoulli_log(y, m, eta, shape):
    return log_expit((2.0 * y - 1.0) * eta)


def _bernoulli(pm, name, eta, shape, observed, m, dims):
    return pm.Bernoulli(name, logit_p=eta, observed=observed, dims=dims)


def _whole(y):
    return (y >= 0) & (np.floor(y) == y) & np.isfinite(y)


def _out_of(y, m):
    return _whole(y) & (y <= m)


def _binomial_draw(rng, eta, shape, m, scores):
    return rng.binomial(m.astype(np.int64), expit(eta)) / m


def _binomial_log(y, m, eta, shape):
    ways = gammaln(m + 1) - gammaln(y + 1) - gammaln(m - y + 1)
    return ways + y * log_expit(eta) + (m - y) * log_expit(-eta)


def _binomial(pm, name, eta, shape, observed, m, dims):
    return pm.Binomial(name, n=m, logit_p=eta, observed=observed, dims=dims)


def _share_draw(rng, eta, shape, m, scores):
    mean, size = expit(eta), 1.0 / np.broadcast_to(shape, eta.shape) ** 2
    return rng.beta(np.maximum(mean * size, 1e-10), np.maximum((1.0 - mean) * size, 1e-10))


def _beta_binomial_draw(rng, eta, shape, m, scores):
    return rng.binomial(m.astype(np.int64), _share_draw(rng, eta, shape, m, scores)) / m


def _beta_binomial_log(y, m, eta, shape):
    size = shape**-2
    a, b = expit(eta) * size, expit(-eta) * size
    ways = gammaln(m + 1) - gammaln(y + 1) - gammaln(m - y + 1)
    return ways + betaln(y + a, m - y + b) - betaln(a, b)


def _beta_binomial(pm, name, eta, shape, observed, m, dims):
    mean, size = pm.math.sigmoid(eta), shape**-2
    return pm.BetaBinomial(
        name, alpha=mean * size, beta=(1 - mean) * size, n=m, observed=observed, dims=dims
    )


def _inside(y, m):
    return (y > 0) & (y < 1)


def _beta_log(y, m, eta, shape):
    a, b = expit(eta) / shape**2, expit(-eta) / shape**2
    return (a - 1) * np.log(y) + (b - 1) * np.log1p(-y) - betaln(a, b)


def _beta(pm, name, eta, shape, observed, m, dims):
    mean, size = pm.math.sigmoid(eta), shape**-2
    return pm.Beta(name, alpha=mean * size, beta=(1 - mean) * size, observed=observed, dims=dims)


def _count(y, m):
    return _whole(y)


def _exponential(eta, shape, scores):
    return np.exp(eta)


def _mean_count(m, eta):
    """Not beyond what generators of random counts take: priors allow means that no data have."""
    return np.minimum(m * np.exp(np.minimum(eta, 700.0)), _MOST_COUNT)


def _poisson_draw(rng, eta, shape, m, scores):
    return rng.poisson(_mean_count(m, eta)) / m


def _poisson_log(y, m, eta, shape):
    return y * (eta + np.log(m)) - m * np.exp(eta) - gammaln(y + 1)


def _poisson(pm, name, eta, shape, observed, m, dims):
    return pm.Poisson(name, mu=m * pm.math.exp(eta), observed=observed, dims=dims)


def _negative_binomial_draw(rng, eta, shape, m, scores):
    size = 1.0 / np.broadcast_to(shape, eta.shape) ** 2
    mean = _mean_count(m, eta) * rng.gamma(size, 1.0 / size)
    return rng.poisson(np.minimum(mean, _MOST_COUNT)) / m


def _negative_binomial_log(y, m, eta, shape):
    size, mean = 1.0 / shape**2, m * np.exp(eta)
    ways = gammaln(y + size) - gammaln(size) - gammaln(y + 1)
    return ways + y * np.log(mean / (mean + size)) - size * np.log1p(mean / size)


def _negative_binomial(pm, name, eta, shape, observed, m, dims):
    return pm.NegativeBinomial(
        name, mu=m * pm.math.exp(eta), alpha=shape**-2, observed=observed, dims=dims
    )


def _positive(y, m):
    return (y > 0) & np.isfinite(y)


def _gamma_draw(rng, eta, shape, m, scores):
    alpha = 1.0 / np.broadcast_to(shape, eta.shape) ** 2
    return np.exp(eta) * rng.gamma(alpha, 1.0 / alpha)


def _gamma_log(y, m, eta, shape):
    alpha = shape**-2
    return (
        alpha * (np.log(alpha) - eta) + (alpha - 1) * np.log(y) - alpha * y * np.exp(-eta)
    ) - gammaln(alpha)


def _gamma(pm, name, eta, shape, observed, m, dims):
    alpha = shape**-2
    return pm.Gamma(name, alpha=alpha, beta=alpha * pm.math.exp(-eta), observed=observed, dims=dims)


def _category(y, m):
    return _whole(y)


def _above(eta, shape):
    """P(y >= j) for the categories above the lowest, first axis; of two categories there are no thresholds
    to estimate."""
    if shape is None:
        return expit(eta)[None]
    rest = eta[None] - np.reshape(shape, (len(shape), *([1] * (eta.ndim - 1)), -1))
    return expit(np.concatenate([eta[None], rest]))


def _mean_score(eta, shape, scores):
    out = np.full(eta.shape, scores[0])
    for step, above in zip(np.diff(scores), _above(eta, shape), strict=True):
        out += step * above
    return out


def _ordinal_draw(rng, eta, shape, m, scores):
    return scores[(rng.random(eta.shape) < _above(eta, shape)).sum(axis=0)]


def _ordinal_log(y, m, eta, shape):
    above = _above(eta, shape)
    ends = np.concatenate([np.ones_like(above[:1]), above, np.zeros_like(above[:1])])
    j = np.broadcast_to(y, eta.shape).astype(np.int64)[None]
    here, next_up = np.take_along_axis(ends, j, 0)[0], np.take_along_axis(ends, j + 1, 0)[0]
    return np.log(np.maximum(here - next_up, 1e-300))


def _ordinal(pm, name, eta, shape, observed, m, dims):
    cutpoints = np.zeros(1) if shape is None else pm.math.concatenate([np.zeros(1), shape])
    return pm.OrderedLogistic(
        name, eta=eta, cutpoints=cutpoints, observed=observed, dims=dims, compute_p=False
    )


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            "gaussian", "identity", "sigma", "", "", "finite numbers", _finite, _same, _normal_draw,
            _normal_log, _normal, None, "SD of residuals",
        ),
        Family(
            "student_t", "identity", "sigma, nu", "", "student_t", "finite numbers", _finite, _same,
            _t_draw, _t_log, _student_t, None,
            "scale of residuals, whose SD is sqrt(nu / (nu - 2)) times as large",
        ),
        Family(
            "bernoulli", "logit", "", "", "binomial", "0 and 1", _zero_or_one, _probability,
            _bernoulli_draw, _bernoulli_log, _bernoulli, (0.0, 1.0),
        ),
        Family(
            "binomial", "logit", "", "trials", "binomial",
            "whole numbers from 0 to the number of trials", _out_of, _probability, _binomial_draw,
            _binomial_log, _binomial, (0.0, 1.0),
        ),
        Family(
            "beta_binomial", "logit", "sigma", "trials", "beta_binomial",
            "whole numbers from 0 to the number of trials", _out_of, _probability,
            _beta_binomial_draw, _beta_binomial_log, _beta_binomial, (0.0, 1.0),
            "s: shares of units with the same history have variance p (1 - p) s^2 / (1 + s^2)",
        ),
        Family(
            "beta", "logit", "sigma", "", "beta", "numbers between 0 and 1, without these", _inside,
            _probability, _share_draw, _beta_log, _beta, (0.0, 1.0),
            "s: the outcome has variance p (1 - p) s^2 / (1 + s^2)",
        ),
        Family(
            "poisson", "log", "", "exposure", "poisson", "whole numbers from 0 on", _count,
            _exponential, _poisson_draw, _poisson_log, _poisson, (0.0, np.inf),
        ),
        Family(
            "negative_binomial", "log", "sigma", "exposure", "negative_binomial",
            "whole numbers from 0 on", _count, _exponential, _negative_binomial_draw,
            _negative_binomial_log, _negative_binomial, (0.0, np.inf),
            "coefficient of variation of the rates of units that have the same history",
        ),
        Family(
            "gamma", "log", "sigma", "", "gamma", "numbers above 0", _positive, _exponential,
            _gamma_draw, _gamma_log, _gamma, (0.0, np.inf), "coefficient of variation of the outcome",
        ),
        Family(
            "ordinal", "logit", "threshold", "", "ordinal", "ordered categories", _category,
            _mean_score, _ordinal_draw, _ordinal_log, _ordinal,
        ),
        Family(
            "lognormal", "log", "sigma", "event", "normal", "numbers above 0", _positive,
            lognormal_mean, lognormal_draw, lognormal_log, lognormal_pymc, (0.0, np.inf),
            "SD of log times", log_of_time,
        ),
        Family(
            "weibull", "log", "sigma", "event", "weibull", "numbers above 0", _positive,
            weibull_mean, weibull_draw, weibull_log, weibull_pymc, (0.0, np.inf),
            "scale of log times, 1 / shape of the Weibull distribution",
        ),
        Family(
            "censored", "identity", "sigma", "", "normal", "numbers from floor to ceiling", _finite,
            censored_mean, censored_draw, censored_log, censored_pymc, None, "SD of residuals",
        ),
    )
}  # fmt: skip


def _seen(y, m):
    """Outcomes none of which is censored, as the engine takes them."""
    return y, np.zeros_like(y)


def with_worth(family: Family, worth: Utility, limits: tuple[float, float] | None = None) -> Family:
    """A family whose payoff is a function of its outcome, which keeps to ``limits``."""
    out = replace(
        family,
        mean=MeanWorth(family.name, worth, limits),
        draw=WorthDrawn(family.draw, worth),
        bounds=None,
    )
    # A Gaussian outcome whose payoff is another one than itself is no linear model of the payoff.
    return replace(out, engine="normal", coded=_seen) if family.name == "gaussian" else out


def _bounded_draw(rng, eta, shape, m, scores):
    """Beta with the mean and variance of the quasi-binomial; ``shape`` is the SD of a working response."""
    mean = expit(eta)
    share = np.clip(shape**2 * mean * (1.0 - mean), 1e-12, 0.95)  # of the largest variance there is
    size = 1.0 / share - 1.0
    return scores[0] + (scores[1] - scores[0]) * rng.beta(mean * size, (1.0 - mean) * size)


def _from_end(eta, shape, scores):
    return scores[0] + (scores[1] - scores[0]) * np.exp(eta)


def _from_end_draw(rng, eta, shape, m, scores):
    return scores[0] + (scores[1] - scores[0]) * _gamma_draw(rng, eta, shape, m, scores)


# Of values of a later stage. Quasi-likelihoods: the likelihood is that of a working response with a weight.
_SPREAD = "square root of the dispersion"
EARLIER = {
    "identity": FAMILIES["gaussian"],
    "logit": Family(
        "quasibinomial", "logit", "sigma", "", "", "shares of the range of the payoff", _finite,
        _mean_score, _bounded_draw, _normal_log, _normal, None, _SPREAD,
    ),
    "log": Family(
        "quasipoisson", "log", "sigma", "", "", "positive numbers", _finite, _from_end, _from_end_draw,
        _normal_log, _normal, None, _SPREAD,
    ),
}  # fmt: skip
