"""Simulation-based calibration of models of other outcomes than Gaussian: ranks of truths within draws.

    python benchmarks/ranks.py --sims 1000              # three minutes a family on two cores
    python benchmarks/ranks.py --sims 1000 --out benchmarks/calibration_laplace.md

Parameters are drawn from their priors, data given these, and 63 draws from the posterior given the data
(every fourth of a chain): the rank of the truth among them is uniform (Talts, Betancourt, Simpson, Vehtari
and Gelman 2018; Modrak and others 2023 on ranking the log likelihood). Fifteen sites of twelve units with
random intercepts and slopes. A row has the p-value of a chi-squared test of sixteen equal bins, and the mean
rank, which is .5 with standard error 1 / sqrt(12 sims).
"""

from __future__ import annotations

import argparse
import os
import platform
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("NUMBA_NUM_THREADS", "1")  # one data set a process, one thread each

import numpy as np
import pandas as pd
from scipy.stats import chi2

from bdtr.engine.crossproducts import Rows
from bdtr.engine.laplace.cells import Outcome, cells
from bdtr.engine.laplace.density import Posterior
from bdtr.engine.laplace.direct import draw_laplace
from bdtr.engine.laplace.likelihoods import CODES, FOLDED
from bdtr.engine.layout import Factor, layout
from bdtr.trial.censoring import TIME
from bdtr.trial.families import FAMILIES

SITES, UNITS, DRAWS, THIN, BINS = 15, 12, 63, 4, 16
SHAPE_SD = 0.7  # of dispersions (half-normal) and of log gaps (normal)
FLOOR, CEILING, FOLLOWED = -1.5, 0.8, 2.0  # of scores; end of the follow-up of times
LIKELIHOODS = {
    "binomial": "bernoulli",
    "poisson": "poisson",
    "negative_binomial": "negative_binomial",
    "ordinal": "ordinal",
    "gamma": "gamma",
    "weibull": "weibull",
    "normal": "censored",
    "beta_binomial": "beta_binomial",
    "beta": "beta",
    "student_t": "student_t",
}
SIZES = {"binomial": 0, "poisson": 0, "ordinal": 3, "student_t": 3}  # of phi's last part, else 2
WIDTHS = {"beta": 0.5}  # of priors where others give outcomes of 0 and 1 to sixteen digits, else 1


def shape_of(family: str, shape: np.ndarray, stratum: np.ndarray):
    """What the log likelihood takes, from gaps, or dispersions and degrees of freedom."""
    if family == "ordinal":
        return np.cumsum(np.exp(shape))[:, None]
    if family == "student_t":
        return shape[stratum], shape[2]
    return shape[stratum] if len(shape) else None


def drawn_shape(family: str, rng) -> np.ndarray:
    """Log gaps, or dispersions and degrees of freedom, from their priors."""
    shape = WIDTHS.get(family, 1.0) * rng.normal(0, SHAPE_SD, SIZES.get(family, 2))
    if family != "ordinal":
        shape = np.abs(shape)
    if family == "student_t":
        shape[2] = 1.0 + rng.gamma(2.0, 10.0)
    return shape


def from_phi(family: str, shape: np.ndarray) -> np.ndarray:
    """The same from draws of phi."""
    if FOLDED[CODES[family]]:
        return np.abs(shape)
    if family in SIZES and family != "student_t":
        return shape
    out = np.exp(shape)
    if family == "student_t":
        out[:, 2] += 1.0
    return out


def outcomes(family: str, eta: np.ndarray, shape: np.ndarray, stratum: np.ndarray, rng):
    """Outcomes given the linear predictor, and their companions."""
    m = np.ones(eta.size)
    if family == "beta_binomial":
        m = rng.integers(1, 30, eta.size).astype(float)
    scores = np.arange(5.0) if family == "ordinal" else np.array([FLOOR, CEILING])
    if family == "weibull":
        scores = np.array([TIME, np.inf])
    of = shape_of(family, shape, stratum)
    y = FAMILIES[LIKELIHOODS[family]].draw(rng, eta, of, m, scores)
    if family == "weibull":
        return np.minimum(y, FOLLOWED), (y < FOLLOWED).astype(float)
    if family == "normal":
        return y, (y >= CEILING) * 1.0 - (y <= FLOOR)
    if family == "beta":  # none is 1 by rounding
        y = np.minimum(y, 1.0 - 1e-16)
    return (y * m).round() if family == "beta_binomial" else y, m


def ranks(sim: int, family: str) -> tuple[dict[str, int], bool]:
    """Ranks of all truths of one data set; and whether the direct sampler took it."""
    rng = np.random.default_rng([CODES[family], sim])
    site = np.repeat(np.arange(SITES), UNITS)
    n, width = site.size, WIDTHS.get(family, 1.0)
    x = np.column_stack([np.ones(n), rng.integers(0, 2, n), rng.normal(size=n)])
    stratum = x[:, 1].astype(np.int64)
    sd, cor = width * np.abs(rng.normal(0, 1, 2)), rng.uniform(-1, 1)
    root = np.array([[sd[0], 0.0], [sd[1] * cor, sd[1] * np.sqrt(1 - cor**2)]])
    b, u = width * rng.normal(0, 1, 3), rng.normal(size=(SITES, 2)) @ root.T
    shape = drawn_shape(family, rng)

    def predictor(b, u):
        return x @ b + (x[:, :2] * u[site]).sum(axis=1)

    y, m = outcomes(family, predictor(b, u), shape, stratum, rng)

    def likelihood(b, u, shape):
        log = FAMILIES[LIKELIHOODS[family]].log_likelihood
        return log(y, m, predictor(b, u), shape_of(family, shape, stratum)).sum()

    rows = Rows(x, (x[:, :2].copy(),), (site,), stratum, 2)
    where = layout([Factor("site", SITES, 2, True)], rows.codes)
    priors = np.array([[0.0, width * SHAPE_SD, 0.0]] * shape.size).reshape(-1, 3)
    if family == "student_t":
        priors[2] = 2.0, 0.1, 0.0
    posterior = Posterior(
        cells(rows, where, Outcome(CODES[family], y, m)),
        np.array([2]), np.array([True]), np.full(3, width**-2), np.zeros(3),
        np.array([[0.0, width, 0.0]] * 2), np.ones(1), priors,
    )  # fmt: skip
    seed = np.random.SeedSequence([7, sim])
    drawn = draw_laplace(posterior, where, 1, THIN * DRAWS, seed)
    if drawn is None:
        return {}, False
    keep = slice(THIN - 1, None, THIN)
    phi, own_b = drawn.phi[keep], drawn.coefficients[keep]
    own_u = drawn.effects[keep].reshape(DRAWS, SITES, 2)
    own_shape = from_phi(family, phi[:, 3:])
    logs = [likelihood(*one) for one in zip(own_b, own_u, own_shape, strict=True)]
    found = {
        "sd, intercepts": (np.abs(phi[:, 0]), sd[0]),
        "sd, slopes": (np.abs(phi[:, 1]), sd[1]),
        "correlation": (np.tanh(phi[:, 2]), cor),
        **{f"b, column {j + 1}": (own_b[:, j], b[j]) for j in range(3)},
        "u, intercept of a site": (own_u[:, 0, 0], u[0, 0]),
        "u, slope of a site": (own_u[:, 7, 1], u[7, 1]),
        **{
            f"dispersion or gap {j + 1}" if family != "student_t" or j < 2 else "nu": (
                own_shape[:, j],
                shape[j],
            )
            for j in range(shape.size)
        },
        "log likelihood": (np.array(logs), likelihood(b, u, shape)),
    }
    return {name: int((draws < truth).sum()) for name, (draws, truth) in found.items()}, True


def table(family: str, sims: int, workers: int) -> tuple[pd.DataFrame, int]:
    """Tests of uniform ranks, and how many data sets the direct sampler left to NUTS."""
    one = partial(ranks, family=family)
    if workers == 1:
        made = [one(sim) for sim in range(sims)]
    else:
        with ProcessPoolExecutor(workers) as pool:
            made = list(pool.map(one, range(sims), chunksize=10))
    found = pd.DataFrame([r for r, taken in made if taken])
    expected = len(found) / BINS
    bins = found.apply(lambda r: np.bincount(r * BINS // (DRAWS + 1), minlength=BINS))
    statistic = ((bins - expected) ** 2 / expected).sum()
    out = pd.DataFrame({"p": chi2.sf(statistic, BINS - 1), "mean rank": found.mean() / DRAWS})
    return out.round(3).rename_axis("quantity"), sims - len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sims", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="*", default=list(LIKELIHOODS), choices=list(LIKELIHOODS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("bdtr", "numpy", "numba"))
    lines = [
        "# Calibration: ranks\n",
        f"{date.today()}, Python {platform.python_version()}, {packages}; {given.sims:,} simulations "
        f"each; standard error of a mean rank {1 / np.sqrt(12 * given.sims):.3f}\n",
    ]
    for family in given.only:
        found, left = table(family, given.sims, given.workers)
        lines += [
            f"## {family}\n",
            f"Left to NUTS: {left}.\n",
            "| quantity | p | mean rank |",
            "|---|---|---|",
        ]
        lines += [
            f"| {name} | {row['p']:.3f} | {row['mean rank']:.3f} |"
            for name, row in found.iterrows()
        ]
        lines.append("")
    text = "\n".join(lines)
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
