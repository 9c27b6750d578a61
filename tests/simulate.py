"""Trials with a known truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

import bdtr


@dataclass(frozen=True)
class TwoStage:
    """A two-stage multisite trial whose stage-1 Q-function is linear and known.

    O1 ~ N(0, 1); A1, A2 in {0, 1} with probability 1/2; site intercepts and site blips u.
    M = 0.5 O1 + 0.3 A1 + N(0, 1) is seen before stage 2 and
    Y = 1 + 0.4 O1 + 0.5 M + (0.2 + u1_j) A1 + (0.3 + u2_j) A2 + u0_j + N(0, noise).
    The better action at stage 2 depends on the site alone, so that for site j
    Q_1(o, a) = 1 + 0.65 o + (0.35 + u1_j) a + max(0, 0.3 + u2_j) + u0_j.
    """

    sites: int = 60
    per_site: int = 100
    noise: float = 1.0
    sd: tuple[float, float, float] = (0.3, 0.2, 0.2)

    def draw(self, seed: int) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        n = self.sites * self.per_site
        site = np.repeat(np.arange(self.sites), self.per_site)
        u = rng.standard_normal((self.sites, 3)) * self.sd
        o1 = rng.standard_normal(n)
        a1, a2 = rng.integers(0, 2, n), rng.integers(0, 2, n)
        m = 0.5 * o1 + 0.3 * a1 + rng.standard_normal(n)
        y = 1 + 0.4 * o1 + 0.5 * m + (0.2 + u[site, 1]) * a1 + (0.3 + u[site, 2]) * a2 + u[site, 0]
        y += self.noise * rng.standard_normal(n)
        columns = {"site": [f"s{j}" for j in site], "o1": o1, "a1": a1, "m": m, "a2": a2, "y": y}
        frame = pd.DataFrame(columns)
        frame.attrs["u"] = u
        return frame

    @staticmethod
    def trial() -> bdtr.Trial:
        first = bdtr.Stage("a1", actions=[0, 1], formula="o1 + a1 + (1 + a1 | site)")
        second = bdtr.Stage("a2", actions=[0, 1], formula="o1 + a1 + m + a2 + (1 + a1 + a2 | site)")
        return bdtr.Trial([first, second], outcome="y", site="site")


SECOND_STAGE = {"Intercept": 1.0, "o1": 0.4, "a1[1]": 0.2, "m": 0.5, "a2[1]": 0.3}


def clinic_study(sites: int = 12, per_site: int = 40, seed: int = 0) -> pd.DataFrame:
    """A small two-stage study with feasible sets, groups of delivery, leavers and text labels."""
    rng = np.random.default_rng(seed)
    n = sites * per_site
    site = np.repeat(np.arange(sites), per_site)
    u = rng.standard_normal((sites, 2)) * (0.4, 0.3)
    group = site * 4 + rng.integers(0, 4, n)
    x = rng.standard_normal(n)
    first = rng.integers(0, 2, n)
    m = 0.4 * x + 0.5 * first + rng.standard_normal(n)
    responder = m > 0.3
    second = np.where(responder, 2, rng.integers(0, 2, n))
    y = 0.5 * x + 0.6 * m + 0.3 * (second == 1) + u[site, 0] + u[site, 1] * (second == 1)
    y += 0.3 * rng.standard_normal(sites * 4)[group] + rng.standard_normal(n)
    left = rng.random(n) < 0.1
    frame = pd.DataFrame(
        {
            "person": [f"id{i:04d}" for i in range(n)],
            "clinic": [f"Clinic <{chr(65 + j)}> $" for j in site],
            "x": x,
            "first": np.array(["talk", "app"])[first],
            "m": m,
            "responder": responder.astype(int),
            "second": np.array(["wait", "more", "keep"])[second],
            "group": [f"g{g}" for g in group],
            "y": y,
        }
    )
    frame.loc[left, ["second", "y", "group"]] = None
    return frame


def clinic_trial() -> bdtr.Trial:
    """The trial of :func:`clinic_study`."""
    first = bdtr.Stage(
        "first", actions=["talk", "app"], formula="x * first + (1 + first || clinic)"
    )
    second = bdtr.Stage(
        "second",
        actions=["wait", "more", "keep"],
        feasible={"responder == 1": ["keep"], "responder == 0": ["wait", "more"]},
        formula="x + first + m + second + (1 + second | clinic)",
        delivered_in="group",
    )
    return bdtr.Trial([first, second], outcome="y", unit="person", site="clinic")
