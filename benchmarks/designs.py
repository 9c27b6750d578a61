"""Simulated trials whose truth is known, for the tables of calibration.py."""

from __future__ import annotations

import numpy as np
import pandas as pd

import bdtr

UNITS = 300

# gamma_1..gamma_7, (delta_1, delta_2), true contrast
SCENARIOS = {
    "1": ((0, 0, 0, 0, 0, 0, 0), (0.5, 0.5), 0.0),
    "2": ((0, 0, 0, 0, 0.01, 0, 0), (0.5, 0.5), 0.0),
    "3": ((0, 0, -0.5, 0, 0.5, 0, 0.5), (0.5, 0.5), 0.0),
    "4": ((0, 0, -0.5, 0, 0.5, 0, 0.49), (0.5, 0.5), -0.01),
    "5": ((0, 0, -0.5, 0, 1.0, 0.5, 0.5), (1.0, 0.0), 0.0),
    "6": ((0, 0, -0.5, 0, 0.25, 0.5, 0.5), (0.1, 0.1), -0.36877),
    "A": ((0, 0, -0.25, 0, 0.75, 0.5, 0.5), (0.1, 0.1), 0.14369),
    "B": ((0, 0, 0, 0, 0.25, 0, 0.25), (0.0, 0.0), 0.25),
    "C": ((0, 0, 0, 0, 0.25, 0, 0.24), (0.0, 0.0), 0.24),
}


def nine_trial() -> bdtr.Trial:
    """Both models are those that generate the data."""
    first = bdtr.Stage("a1", actions=[-1, 1], formula="o1 * a1")
    second = bdtr.Stage("a2", actions=[-1, 1], formula="o1 * a1 + o2 * a2 + a1:a2")
    return bdtr.Trial([first, second], outcome="y")


def nine_data(name: str, rng: np.random.Generator) -> pd.DataFrame:
    """One data set of a scenario."""
    g, d, _ = SCENARIOS[name]
    o1, a1, a2 = rng.choice([-1, 1], (3, UNITS))
    p = 1 / (1 + np.exp(-(d[0] * o1 + d[1] * a1)))
    o2 = np.where(rng.random(UNITS) < p, 1, -1)
    y = g[0] + g[1] * o1 + g[2] * a1 + g[3] * o1 * a1 + g[4] * a2 + g[5] * o2 * a2 + g[6] * a1 * a2
    y = y + rng.normal(size=UNITS)
    return pd.DataFrame({"o1": o1, "a1": a1, "o2": o2, "a2": a2, "y": y})


# Clustered trials: sites, units a site, whether classes of both stages have effects.
CLUSTERED = {
    "30 sites of 10": (30, 10, False),
    "40 sites of 25": (40, 25, False),
    "30 sites of 10, classes": (30, 10, True),
    "40 sites of 25, classes": (40, 25, True),
}
SITE_SDS = (0.3, 0.2, 0.2)  # intercept, blip of A1, blip of A2
CLASS_SD = 0.25


def clustered_trial(classes: bool) -> bdtr.Trial:
    """Both models are those that generate the data; classes are formed with the action."""
    own = {"delivered_in": "class_1"} if classes else {}
    later = {"delivered_in": "class_2"} if classes else {}
    first = bdtr.Stage("a1", actions=[0, 1], formula="o1 + a1 + (1 + a1 | site)", **own)
    formula = "o1 + a1 + m + a2 + (1 + a1 + a2 | site)"
    second = bdtr.Stage("a2", actions=[0, 1], formula=formula, **later)
    return bdtr.Trial([first, second], outcome="y", site="site")


def nine_value(name: str, o1: np.ndarray, first: dict, second: dict) -> float:
    """Value of a rule for units with these O1: first[o1] and second[o1, a1, o2] are actions."""
    g, d, _ = SCENARIOS[name]
    total = 0.0
    for own in (-1, 1):
        a1 = first[own]
        p = 1 / (1 + np.exp(-(d[0] * own + d[1] * a1)))
        for o2, weight in ((1, p), (-1, 1 - p)):
            a2 = second[own, a1, o2]
            y = g[0] + g[1] * own + g[2] * a1 + g[3] * own * a1 + g[4] * a2 + g[5] * o2 * a2
            total += (o1 == own).mean() * weight * (y + g[6] * a1 * a2)
    return float(total)


def nine_best(name: str, o1: np.ndarray) -> float:
    """Value of the optimal rule for units with these O1."""
    cells = [(o, a, s) for o in (-1, 1) for a in (-1, 1) for s in (-1, 1)]
    g = SCENARIOS[name][0]
    second = {c: 1 if g[4] + g[5] * c[2] + g[6] * c[1] > 0 else -1 for c in cells}
    firsts = [{-1: a, 1: b} for a in (-1, 1) for b in (-1, 1)]
    return max(nine_value(name, o1, first, second) for first in firsts)


def clustered_data(name: str, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """Data and site effects: Y = 1 + .4 O1 + .5 M + (.2 + u1) A1 + (.3 + u2) A2 + u0 + noise."""
    sites, per, classes = CLUSTERED[name]
    n, site = sites * per, np.repeat(np.arange(sites), per)
    u = rng.normal(size=(sites, 3)) * SITE_SDS
    o1, a1, a2 = rng.normal(size=n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    m = 0.5 * o1 + 0.3 * a1 + rng.normal(size=n)
    y = 1 + 0.4 * o1 + 0.5 * m + (0.2 + u[site, 1]) * a1 + (0.3 + u[site, 2]) * a2 + u[site, 0]
    y = y + rng.normal(size=n)
    frame = pd.DataFrame({"site": site.astype(str), "o1": o1, "a1": a1, "m": m, "a2": a2})
    if classes:  # two classes of each action at each site
        for stage, action in ((1, a1), (2, a2)):
            code = site * 4 + action * 2 + rng.integers(0, 2, n)
            y = y + CLASS_SD * rng.normal(size=4 * sites)[code]
            frame[f"class_{stage}"] = [f"c{stage}_{c}" for c in code]
    return frame.assign(y=y), u


# Populations: sites, units a site, correlation between site effects. The share of O = 1 differs between
# sites; a2 is best where O = 1.
POPULATIONS = {
    "40 sites of 25": (40, 25, 0.0),
    "40 sites of 25, correlated": (40, 25, 0.6),
    "20 sites of 40": (20, 40, 0.0),
}
BEST = {"a1": "1", "a2": "1 if o == 1 else 0"}


def population_trial() -> bdtr.Trial:
    """Stage models that contain the truth of regimes whose rule depends on O alone."""
    first = bdtr.Stage("a1", actions=[0, 1], formula="o + a1 + (1 + a1 + o | site)")
    formula = "o * a2 + a1 + m + (1 + a1 + a2 | site)"
    second = bdtr.Stage("a2", actions=[0, 1], formula=formula)
    return bdtr.Trial([first, second], outcome="y", site="site")


def population_effects(name: str, sites: int, rng: np.random.Generator) -> np.ndarray:
    """Effects of sites (site, effect) on the intercept and the two blips."""
    correlation = np.full((3, 3), POPULATIONS[name][2])
    np.fill_diagonal(correlation, 1.0)
    return rng.normal(size=(sites, 3)) @ np.linalg.cholesky(correlation).T * SITE_SDS


def population_data(
    name: str, rng: np.random.Generator
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Data, site effects and site shares of O = 1.

    Y = 1 + .4 O + .5 M + (.2 + u1) A1 + (-.2 + .5 O + u2) A2 + u0 + noise, M = .5 O + .3 A1 + noise.
    """
    sites, per, _ = POPULATIONS[name]
    n, site = sites * per, np.repeat(np.arange(sites), per)
    u, share = population_effects(name, sites, rng), rng.beta(4, 4, sites)
    o = (rng.random(n) < share[site]).astype(int)
    a1, a2 = rng.integers(0, 2, (2, n))
    m = 0.5 * o + 0.3 * a1 + rng.normal(size=n)
    y = 1 + 0.4 * o + 0.5 * m + (0.2 + u[site, 1]) * a1 + (-0.2 + 0.5 * o + u[site, 2]) * a2
    y = y + u[site, 0] + rng.normal(size=n)
    columns = {"site": site.astype(str), "o": o, "a1": a1, "m": m, "a2": a2, "y": y}
    return pd.DataFrame(columns), u, share


def population_values(share: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Values of (0, 0), (1, 1) and the best rule at sites with these shares and effects (.., regime)."""
    nothing = 1 + 0.65 * share + u[..., 0]
    treated = nothing + 0.35 + u[..., 1]
    both = treated - 0.2 + 0.5 * share + u[..., 2]
    return np.stack([nothing, both, treated + share * (0.3 + u[..., 2])], axis=-1)


# A second opinion: treatment probabilities are known and depend on X; the outcome model is linear in X.
OPINION = ("right", "wrong")


def opinion_data(name: str, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray, float]:
    """Data, known probabilities (unit, action), and the mean payoff if all had action 1.

    Y = .3 A + .5 (X [+ X^2 where the model is wrong]) (1 + A) + noise, P(A = 1) = .8 or .2 by the sign of X.
    """
    x = rng.normal(size=400)
    chance = np.where(x > 0, 0.8, 0.2)
    a = (rng.random(400) < chance).astype(int)
    curve = x**2 if name == "wrong" else 0.0
    y = 0.3 * a + 0.5 * (x + curve) * (1 + a) + rng.normal(size=400)
    frame = pd.DataFrame({"x": x, "a": a, "y": y})
    return frame, np.column_stack([1 - chance, chance]), 1.3 if name == "wrong" else 0.3
