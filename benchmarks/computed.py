"""Regression and g-computation side by side, for the tables ``computed`` and ``folded`` of calibration.py.

Designs are those of bending.py, and the one in several variables of Yu and Bondell (2023, J. R. Stat. Soc. B
85(3)), as their package BayesRegDTR draws it, with three variables at each of three stages. Regression is
the default: smooth terms before the last stage, where up to four numbers meet the action.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from bending import BONUS, decided, folded, second, third, three_stages
from scipy.stats import foldnorm

import bdtr

WAYS = {"regression": False, "g-computation": True}
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_POINTS = (-2.0, -1.0, 0.0, 1.0, 2.0)


def fitted(
    stages: list[bdtr.Stage],
    states: dict[str, str] | None,
    frame: pd.DataFrame,
    seed: int,
    draws: int = 250,
) -> bdtr.Fit:
    """A fit with models of states or without."""
    trial = bdtr.Trial(stages, outcome="y", states=states)
    return bdtr.fit(trial, frame, sampler="direct", draws=draws, random_seed=seed, progress=False)


def folded_stages() -> list[bdtr.Stage]:
    """The stages of the design V = |m|."""
    return [
        bdtr.Stage("a1", actions=[0, 1], formula="x * a1"),
        bdtr.Stage("a2", actions=[0, 1], formula="a1 + m * a2"),
    ]


def _abs(n: int) -> Callable:
    def work(seed: int, states: bool) -> tuple[np.ndarray, np.ndarray]:
        frame, truth = folded(n, np.random.default_rng([seed, n]))
        fit = fitted(folded_stages(), {"m": "x * a1"} if states else None, frame, seed)
        return fit.q_function(0)(fit.require_data("it").frame), truth

    return work


def _first_values(x1: np.ndarray) -> np.ndarray:
    """Values of the first action in the three-stage design, the best being done later."""
    out = []
    for one, slope, size in ((1, 0.0, 0.0), (2, 2.0, np.sin(10)), (3, -2.0, np.cos(10))):
        later = np.zeros(len(x1))
        for node, weight in zip(_NODES, _WEIGHTS, strict=True):
            x2 = slope * x1 + 0.5 * node
            drift = [0 * x1, 3 * x2 - 2 * x1, -3 * x2 + np.sqrt(2) * x1]
            each = []
            for two, mean in enumerate(drift, 1):
                x3 = mean[:, None] + 0.5 * _NODES
                best = np.max([third(b, x1[:, None], x2[:, None], x3) for b in (1, 2, 3)], axis=0)
                each.append(second(two, x1, x2) + best @ _WEIGHTS)
            later += weight * np.max(each, axis=0)
        out.append(size * x1 * (one > 1) + later)
    return np.stack(out)


def _three(n: int, k: int) -> Callable:
    def work(seed: int, states: bool) -> tuple[np.ndarray, np.ndarray]:
        frame, truth = three_stages(n, np.random.default_rng([seed, n]))
        last = "(x1 + x2 + x3) * a3 + x1 * a1 + (x1 + x2) * a2"
        stages = [
            bdtr.Stage("a1", actions=[1, 2, 3], formula="x1 * a1"),
            bdtr.Stage("a2", actions=[1, 2, 3], formula="(x1 + x2) * a2 + x1 * a1"),
            bdtr.Stage("a3", actions=[1, 2, 3], formula=last),
        ]
        models = {"x2": "x1 * a1", "x3": "(x1 + x2) * a2"} if states else None
        fit = fitted(stages, models, frame, seed, draws=50)
        q = fit.q_function(k)(fit.require_data("it").frame)
        return q, truth if k else _first_values(frame["x1"].to_numpy())

    return work


def several(n: int, rng: np.random.Generator, p: int = 3) -> tuple[pd.DataFrame, np.ndarray]:
    """Three arms at each of three stages, p variables at each; the values of the second action.

    What the last action is worth goes by the sum of the third variables alone, which is normal.
    """
    c = (-1.0) ** np.add.outer(np.arange(p), np.arange(p))
    x1 = rng.standard_normal((n, p)) / np.sqrt(rng.chisquare(10, n) / 10)[:, None]
    a = rng.integers(1, 4, (n, 3))
    turn = np.select([a[:, 0] == 2, a[:, 0] == 3], [2.0, -2.0])[:, None]
    x2 = turn * (x1 @ c) + 0.5 * rng.normal(size=(n, p))
    drift = [0 * x1, 3 * x2 @ c - 2 * x1 @ c, -3 * x2 @ c + np.sqrt(2) * x1 @ c]
    x3 = np.choose(a[:, 1:2] - 1, drift) + 0.5 * rng.normal(size=(n, p))
    s1, s2, s3 = (x.sum(axis=1) for x in (x1, x2, x3))
    first = np.select([a[:, 0] == 2, a[:, 0] == 3], [np.sin(10), np.cos(10)]) * s1
    y = 3 + first + second(a[:, 1], s1, s2) + third(a[:, 2], s1, s2, s3) + rng.normal(size=n)
    values = []
    for one, mean in enumerate(drift, 1):
        at = mean.sum(axis=1)[:, None] + 0.5 * np.sqrt(p) * _NODES
        best = np.max([third(b, s1[:, None], s2[:, None], at) for b in (1, 2, 3)], axis=0)
        values.append(second(one, s1, s2) + best @ _WEIGHTS)
    columns = {f"x{t}{j}": x[:, j] for t, x in enumerate((x1, x2, x3), 1) for j in range(p)}
    frame = pd.DataFrame({**columns, "a1": a[:, 0], "a2": a[:, 1], "a3": a[:, 2], "y": y})
    return frame, np.stack(values)


def _several(n: int, p: int = 3) -> Callable:
    def work(seed: int, states: bool) -> tuple[np.ndarray, np.ndarray]:
        frame, truth = several(n, np.random.default_rng([seed, n]), p)
        x1, x2, x3 = (" + ".join(f"x{t}{j}" for j in range(p)) for t in (1, 2, 3))
        last = f"({x1} + {x2} + {x3}) * a3 + ({x1}) * a1 + ({x1} + {x2}) * a2"
        stages = [
            bdtr.Stage("a1", actions=[1, 2, 3], formula=f"({x1}) * a1"),
            bdtr.Stage("a2", actions=[1, 2, 3], formula=f"({x1} + {x2}) * a2 + ({x1}) * a1"),
            bdtr.Stage("a3", actions=[1, 2, 3], formula=last),
        ]
        models = {f"x3{j}": f"({x1} + {x2}) * a2" for j in range(p)} if states else None
        fit = fitted(stages, models, frame, seed, draws=50)
        return fit.q_function(1)(fit.require_data("it").frame), truth

    return work


COMPUTED = {
    "abs(m), n = 600": _abs(600),
    "abs(m), n = 200": _abs(200),
    "three stages, a2, n = 500": _three(500, 1),
    "three stages, a2, n = 1,000": _three(1_000, 1),
    "three stages, a1, n = 500": _three(500, 0),
    "several variables, a2, n = 500": _several(500),
}


def computed(name: str, seed: int) -> dict[str, float]:
    """Decisions and blips of one data set, by regression and by g-computation."""
    out = {}
    for label, states in WAYS.items():
        out |= decided(label, *COMPUTED[name](seed, states))
    return out


FOLDED = {"n = 200": 200, "n = 600": 600}


def folded_at(name: str, seed: int) -> dict[str, tuple[float, ...]]:
    """Q-values of the first action at five values of x against the mean of a folded normal: error, whether
    the 95 % interval holds it, width."""
    n, out = FOLDED[name], {}
    frame, _ = folded(n, np.random.default_rng([seed, n, 1]))
    for label, states in WAYS.items():
        fit = fitted(folded_stages(), {"m": "x * a1"} if states else None, frame, seed)
        q = fit.q_function(0)(pd.DataFrame({"x": _POINTS}))
        low, high = np.quantile(q, [0.025, 0.975], axis=2)
        for i, x in enumerate(_POINTS):
            for a in (0, 1):
                centre = 1.5 * abs(x) * a
                truth = foldnorm(centre / 0.6, scale=0.6).mean() + BONUS * (a == 0)
                key = f"{label}: Q({x:g}, {a})"
                own = q[a, i].mean() - truth, low[a, i] < truth < high[a, i], high[a, i] - low[a, i]
                out[key] = tuple(float(v) for v in own)
    return out
