"""Small multilevel models of every family, as the engine of other outcomes takes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from bdtr.engine.crossproducts import Rows
from bdtr.engine.laplace.cells import Outcome, cells
from bdtr.engine.laplace.density import Posterior
from bdtr.engine.laplace.likelihoods import CODES
from bdtr.engine.layout import Factor, Layout, layout

LAYOUTS = {
    "intercepts": {"slopes": 1},
    "slopes": {},
    "classes in sites": {"classes": 3},
    "classes, and raters across": {"classes": 2, "raters": 5},
    "no groups": {"slopes": 0},
    "smooth": {"slopes": 0, "bends": 3},
    "smooth, slopes, and raters across": {"bends": 3, "raters": 5},
}


@dataclass(frozen=True)
class Case:
    """A model with its rows and outcomes."""

    posterior: Posterior
    where: Layout
    rows: Rows
    y: np.ndarray
    m: np.ndarray

    def predictor(self, b: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Linear predictor of the rows, from coefficients and effects (factors in order, by level)."""
        eta, at = self.rows.x @ b, 0
        for factor, z, code in zip(self.where.factors, self.rows.z, self.rows.codes, strict=True):
            size = factor.levels * factor.terms
            eta = eta + (z * u[at : at + size][factor.places(code)]).sum(axis=1)
            at += size
        return eta


def outcomes(family: str, eta: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of a family and their companions."""
    n, m = len(eta), np.ones(len(eta))
    if family == "binomial":
        m = rng.integers(1, 4, n).astype(float)
        return rng.binomial(m.astype(int), expit(eta)).astype(float), m
    if family == "poisson":
        m = rng.uniform(0.5, 2, n).round(1)
        return rng.poisson(m * np.exp(eta)).astype(float), m
    if family == "negative_binomial":
        return rng.poisson(np.exp(eta) * rng.gamma(2, 0.5, n)).astype(float), m
    if family == "gamma":
        return np.exp(eta) * rng.gamma(3, 1 / 3, n), m
    if family == "weibull":
        time = np.exp(eta) * rng.exponential(size=n) ** 0.7
        return np.minimum(time, 2.0), (time < 2).astype(float)
    if family in ("beta_binomial", "beta"):
        p = expit(eta)
        share = np.clip(rng.beta(4 * p, 4 * (1 - p)), 1e-3, 1 - 1e-3)
        if family == "beta":
            return share, m
        m = rng.integers(1, 30, n).astype(float)
        return rng.binomial(m.astype(int), share).astype(float), m
    if family == "normal":  # with a ceiling and a floor
        value = eta + 0.7 * rng.normal(size=n)
        return np.clip(value, -1.5, 0.8), (value > 0.8) * 1.0 - (value < -1.5)
    if family == "student_t":
        return eta + 0.5 * rng.standard_t(2.5, n), m
    return np.digitize(eta + rng.logistic(size=n), [-1, 0, 1.5]).astype(float), m


def case(family: str, classes=0, raters=0, slopes=2, sites=12, n=300, seed=0, bends=0) -> Case:
    """A model of a family with two strata, four columns, sites, and classes, raters and a smooth term of so
    many basis functions where asked for."""
    rng = np.random.default_rng(seed)
    site = rng.integers(0, sites, n)
    x = np.column_stack([np.ones(n), rng.integers(0, 2, n), rng.normal(size=(n, 2)).round(1)])
    z, codes, factors = [], [], []
    if slopes:
        z, codes = [x[:, :slopes].copy()], [site]
        factors = [Factor("site", sites, slopes, slopes > 1)]
    for name, levels, code in (
        ("class", classes, site * classes + rng.integers(0, max(classes, 1), n)),
        ("rater", raters, rng.integers(0, max(raters, 1), n)),
    ):
        if levels:
            z.append(np.ones((n, 1)))
            codes.append(code)
            factors.append(Factor(name, levels * (sites if name == "class" else 1), 1, False))
    if bends:
        z.append(rng.normal(size=(n, bends)))
        codes.append(np.broadcast_to(np.arange(bends), z[-1].shape))
        factors.append(Factor("s", bends, 1, False, smooth=True))
    eta = x @ [-0.5, 0.6, 0.4, -0.3]
    for columns, code, factor in zip(z, codes, factors, strict=True):
        effects = rng.normal(0, 0.6, factor.levels * factor.terms)
        eta += (columns * effects[factor.places(code)]).sum(axis=1)
    y, m = outcomes(family, eta, rng)
    rows = Rows(x, tuple(z), tuple(codes), x[:, 1].astype(np.int64), 2)
    where = layout(factors, rows.codes)
    shape = np.zeros((0, 3))
    if family == "ordinal":
        shape = np.array([[0.0, 1.0, 0.0]] * 2)
    elif family not in ("binomial", "poisson"):
        shape = np.array([[1.0, 3.0, 1.0]] * 2)
    if family == "student_t":
        shape = np.vstack([shape, [2.0, 0.1, 0.0]])
    posterior = Posterior(
        cells(rows, where, Outcome(CODES[family], y, m)),
        np.array([f.terms for f in factors], dtype=np.int64),
        np.array([f.correlated for f in factors], dtype=np.bool_),
        np.full(4, 0.2),
        np.array([0.1, 0.0, 0.0, -0.2]),
        np.array([[0.0, 1.0, 0.0]] * sum(f.terms for f in factors)).reshape(-1, 3),
        np.ones(sum(f.terms * (f.terms - 1) // 2 for f in factors if f.correlated)),
        shape,
    )
    return Case(posterior, where, rows, y, m)


def start(posterior: Posterior) -> np.ndarray:
    """A phi to begin at."""
    phi = np.zeros(posterior.size)
    phi[posterior.sides] = 0.5
    return phi
