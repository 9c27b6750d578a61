"""Trials whose stage value bends, or is a line, for the table ``smooth`` of calibration.py.

Each design is fitted with smooth terms, the default before the last stage, and with ``shape="linear"``.
Truths are in closed form (means of folded normal variables) or by Gauss-Hermite quadrature. The three-stage
design is the univariate one of Yu and Bondell (2023, J. R. Stat. Soc. B 85(3)), as their package BayesRegDTR
draws it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import foldnorm

import bdtr

BONUS = 0.45


def _fitted(stages: list[bdtr.Stage], frame: pd.DataFrame, seed: int) -> bdtr.Fit:
    return bdtr.fit(
        bdtr.Trial(stages, outcome="y"), frame, sampler="direct", draws=250, random_seed=seed,
        progress=False,
    )  # fmt: skip


def folded(n: int, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """V = |m| with m = 1.5 x a1 + noise, and a bonus under a1 = 0; the values of both actions."""
    x, a1, a2 = rng.normal(size=n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    m = 1.5 * x * a1 + 0.6 * rng.normal(size=n)
    y = (2 * a2 - 1) * m + BONUS * (a1 == 0) + rng.normal(size=n)
    bent = foldnorm(1.5 * np.abs(x) / 0.6, scale=0.6).mean()
    flat = np.full(n, 0.6 * np.sqrt(2 / np.pi) + BONUS)
    return pd.DataFrame({"x": x, "a1": a1, "m": m, "a2": a2, "y": y}), np.stack([flat, bent])


def straight(n: int, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """The better second action is the same for all: the value of stage 2 is a line."""
    x, z, a1, a2 = rng.normal(size=n), rng.normal(size=n), *rng.integers(0, 2, (2, n))
    m = 0.5 * x + 0.3 * a1 + rng.normal(size=n)
    y = 0.5 * a2 + 0.5 * m + (0.2 + 0.3 * x) * a1 + rng.normal(size=n)
    blip = 0.35 + 0.3 * x
    return pd.DataFrame({"x": x, "z": z, "a1": a1, "m": m, "a2": a2, "y": y}), np.stack(
        [0 * x, blip]
    )


def _two(first: str, second: str, draw: Callable, n: int) -> Callable:
    def work(seed: int, shape: str | None) -> tuple[np.ndarray, np.ndarray]:
        frame, truth = draw(n, np.random.default_rng([seed, n]))
        stages = [
            bdtr.Stage("a1", actions=[0, 1], formula=first, shape=shape),
            bdtr.Stage("a2", actions=[0, 1], formula=second),
        ]
        fit = _fitted(stages, frame, seed)
        return fit.q_function(0)(fit.require_data("it").frame), truth

    return work


_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def second(a, x1, x2):
    return (a == 2) * (np.sin(20) * x2 - np.sin(10) * x1) + (a == 3) * (
        np.cos(20) * x2 - np.cos(10) * x1
    )


def third(a, x1, x2, x3):
    two = np.sin(30) * x3 - np.sin(20) * x2 + np.sin(10) * x1
    three = np.cos(30) * x3 - np.cos(20) * x2 + np.sqrt(abs(np.cos(10))) * x1
    return (a == 2) * two + (a == 3) * three


def three_stages(n: int, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """Three arms at each of three stages; the values of the second action given x1 and x2."""
    x1, a = rng.standard_t(10, n), rng.integers(1, 4, (n, 3))
    x2 = 0.5 * rng.normal(size=n) + ((a[:, 0] == 2) * 2.0 - (a[:, 0] == 3) * 2.0) * x1
    drift = [0 * x1, 3 * x2 - 2 * x1, -3 * x2 + np.sqrt(2) * x1]
    x3 = 0.5 * rng.normal(size=n) + np.choose(a[:, 1] - 1, drift)
    first = ((a[:, 0] == 2) * np.sin(10) + (a[:, 0] == 3) * np.cos(10)) * x1
    y = 3 + first + second(a[:, 1], x1, x2) + third(a[:, 2], x1, x2, x3) + rng.normal(size=n)
    values = []
    for one, mean in enumerate(drift, 1):
        later = np.zeros(n)
        for node, weight in zip(_NODES, _WEIGHTS, strict=True):
            best = [third(b, x1, x2, mean + 0.5 * node) for b in (1, 2, 3)]
            later += weight * np.max(best, axis=0)
        values.append(second(one, x1, x2) + later)
    columns = {"x1": x1, "x2": x2, "x3": x3, "a1": a[:, 0], "a2": a[:, 1], "a3": a[:, 2], "y": y}
    return pd.DataFrame(columns), np.stack(values)


def _three(n: int) -> Callable:
    def work(seed: int, shape: str | None) -> tuple[np.ndarray, np.ndarray]:
        frame, truth = three_stages(n, np.random.default_rng([seed, n]))
        last = "(x1 + x2 + x3) * a3 + x1 * a1 + (x1 + x2) * a2"
        stages = [
            bdtr.Stage("a1", actions=[1, 2, 3], formula="x1 * a1", shape=shape),
            bdtr.Stage("a2", actions=[1, 2, 3], formula="(x1 + x2) * a2 + x1 * a1", shape=shape),
            bdtr.Stage("a3", actions=[1, 2, 3], formula=last),
        ]
        fit = _fitted(stages, frame, seed)
        return fit.q_function(1)(fit.require_data("it").frame), truth

    return work


BENDING = {
    "abs(m), n = 600": _two("x * a1", "a1 + m * a2", folded, 600),
    "abs(m), n = 200": _two("x * a1", "a1 + m * a2", folded, 200),
    "line, n = 300": _two("x * a1", "m + a1 * x + a2", straight, 300),
    "line, n = 1,000": _two("x * a1", "m + a1 * x + a2", straight, 1_000),
    "line in two, n = 300": _two("(x + z) * a1", "m + a1 * x + a2", straight, 300),
    "three stages, n = 500": _three(500),
    "three stages, n = 1,000": _three(1_000),
}


def decided(label: str, q: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Figures over units of decisions and blips, from Q-values (action, unit, sample) and true ones."""
    best, units = truth.argmax(axis=0), np.arange(truth.shape[1])
    p = np.stack([(q.argmax(axis=0) == a).mean(axis=1) for a in range(len(q))])
    chosen, sure = q.mean(axis=2).argmax(axis=0), p.max(axis=0) > 0.9
    right = p.argmax(axis=0) == best
    low, high = np.quantile(q[1:] - q[0], [0.025, 0.975], axis=2)
    blip = truth[1:] - truth[0]
    return {
        f"{label}: P > .9, %": 100 * sure.mean(),
        f"{label}: of these right, %": 100 * right[sure].mean() if sure.any() else np.nan,
        f"{label}: right, %": 100 * (chosen == best).mean(),
        f"{label}: regret": (truth.max(axis=0) - truth[chosen, units]).mean(),
        f"{label}: blips in their 95 % intervals, %": 100 * ((low < blip) & (blip < high)).mean(),
        f"{label}: width of these": (high - low).mean(),
    }


def bending(name: str, seed: int) -> dict[str, float]:
    """Decisions and blips of one data set, with smooth terms and without."""
    out = {}
    for label, shape in (("smooth", None), ("linear", "linear")):
        out |= decided(label, *BENDING[name](seed, shape))
    return out
