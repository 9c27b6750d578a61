"""Simulation-based calibration of models of other outcomes than Gaussian: ranks of truths within draws.

    python benchmarks/ranks.py --sims 1000              # ten minutes on two cores
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
from scipy.special import expit
from scipy.stats import chi2

from bdtr.engine.crossproducts import Rows
from bdtr.engine.laplace.cells import Outcome, cells
from bdtr.engine.laplace.density import Posterior
from bdtr.engine.laplace.direct import draw_laplace
from bdtr.engine.laplace.likelihoods import CODES
from bdtr.engine.layout import Factor, layout
from bdtr.trial.families import FAMILIES

SITES, UNITS, DRAWS, THIN, BINS = 15, 12, 63, 4, 16
SHAPE_SD = 0.7  # of dispersions (half-normal) and of log gaps (normal)
LIKELIHOODS = {
    "binomial": "bernoulli",
    "negative_binomial": "negative_binomial",
    "ordinal": "ordinal",
}


def shape_of(family: str, shape: np.ndarray, stratum: np.ndarray) -> np.ndarray | None:
    """What the log likelihood takes, from the part of phi that belongs to the outcome."""
    if family == "ordinal":
        return np.cumsum(np.exp(shape))[:, None]
    return np.abs(shape)[stratum] if len(shape) else None


def outcomes(
    family: str, eta: np.ndarray, shape: np.ndarray, stratum: np.ndarray, rng
) -> np.ndarray:
    """Outcomes given the linear predictor."""
    if family == "binomial":
        return (rng.random(eta.size) < expit(eta)).astype(float)
    if family == "negative_binomial":
        size = 1 / np.abs(shape)[stratum] ** 2
        return rng.poisson(np.exp(eta) * rng.gamma(size, 1 / size)).astype(float)
    thresholds = np.concatenate([[0.0], np.cumsum(np.exp(shape))])
    return np.digitize(eta + rng.logistic(size=eta.size), thresholds).astype(float)


def ranks(sim: int, family: str) -> tuple[dict[str, int], bool]:
    """Ranks of all truths of one data set; and whether the direct sampler took it."""
    rng = np.random.default_rng([CODES[family], sim])
    site = np.repeat(np.arange(SITES), UNITS)
    n = site.size
    x = np.column_stack([np.ones(n), rng.integers(0, 2, n), rng.normal(size=n)])
    stratum = x[:, 1].astype(np.int64)
    sd, cor = np.abs(rng.normal(0, 1, 2)), rng.uniform(-1, 1)
    root = np.array([[sd[0], 0.0], [sd[1] * cor, sd[1] * np.sqrt(1 - cor**2)]])
    b, u = rng.normal(0, 1, 3), rng.normal(size=(SITES, 2)) @ root.T
    size = {"binomial": 0, "negative_binomial": 2, "ordinal": 3}[family]
    shape = rng.normal(0, SHAPE_SD, size)
    shape = np.abs(shape) if family == "negative_binomial" else shape

    def predictor(b, u):
        return x @ b + (x[:, :2] * u[site]).sum(axis=1)

    y = outcomes(family, predictor(b, u), shape, stratum, rng)

    def likelihood(b, u, shape):
        log = FAMILIES[LIKELIHOODS[family]].log_likelihood
        return log(y, 1.0, predictor(b, u), shape_of(family, shape, stratum)).sum()

    rows = Rows(x, (x[:, :2].copy(),), (site,), stratum, 2)
    where = layout([Factor("site", SITES, 2, True)], rows.codes)
    posterior = Posterior(
        cells(rows, where, Outcome(CODES[family], y, np.ones(n))),
        np.array([2]), np.array([True]), np.ones(3), np.zeros(3), np.array([[0.0, 1.0, 0.0]] * 2),
        np.ones(1), np.array([[0.0, SHAPE_SD, 0.0]] * size).reshape(-1, 3),
    )  # fmt: skip
    seed = np.random.SeedSequence([7, sim])
    drawn = draw_laplace(posterior, where, 1, THIN * DRAWS, seed)
    if drawn is None:
        return {}, False
    keep = slice(THIN - 1, None, THIN)
    phi, own_b = drawn.phi[keep], drawn.coefficients[keep]
    own_u = drawn.effects[keep].reshape(DRAWS, SITES, 2)
    own_shape = np.abs(phi[:, 3:]) if family == "negative_binomial" else phi[:, 3:]
    logs = [likelihood(*one) for one in zip(own_b, own_u, own_shape, strict=True)]
    found = {
        "sd, intercepts": (np.abs(phi[:, 0]), sd[0]),
        "sd, slopes": (np.abs(phi[:, 1]), sd[1]),
        "correlation": (np.tanh(phi[:, 2]), cor),
        **{f"b, column {j + 1}": (own_b[:, j], b[j]) for j in range(3)},
        "u, intercept of a site": (own_u[:, 0, 0], u[0, 0]),
        "u, slope of a site": (own_u[:, 7, 1], u[7, 1]),
        **{f"dispersion or gap {j + 1}": (own_shape[:, j], shape[j]) for j in range(size)},
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
