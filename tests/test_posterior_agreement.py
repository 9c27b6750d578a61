"""The exact engine against PyMC's plain model of the same stage, on seven designs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from agreement import check_same

import bdtr

# Design: formula, column of the delivery cluster, sites, units a site, SDs of intercept, blip, cluster.
DESIGNS = {
    "intercepts": ("x + a + (1 | site)", None, 15, 12, (0.5, 0.0, 0.0)),
    "correlated slopes": ("x + a + (1 + a | site)", None, 20, 15, (0.5, 0.3, 0.0)),
    "classes of two grades": ("x + a + (1 + a | site) + (1 | earlier)", "now", 15, 16, (0.4, 0.2, 0.4)),
    "crossed": ("x + a + (1 | site) + (1 | wave)", None, 12, 15, (0.5, 0.0, 0.4)),
    "small SDs": ("x + a + (1 + a || site)", "now", 25, 12, (0.15, 0.05, 0.0)),
    "five sites": ("x + a + (1 + a | site)", None, 5, 30, (0.5, 0.3, 0.0)),
}  # fmt: skip


def single_stage(name: str) -> tuple[bdtr.Trial, pd.DataFrame]:
    """A trial of one stage and its data."""
    formula, delivered_in, sites, per, (sd, sd_blip, sd_group) = DESIGNS[name]
    rng = np.random.default_rng(8)
    n, site = sites * per, np.repeat(np.arange(sites), per)
    x, a = rng.normal(size=n), rng.integers(0, 2, n)
    now = site * 4 + 2 * a + rng.integers(0, 2, n)
    earlier, wave = site * 3 + rng.integers(0, 3, n), rng.integers(0, 8, n)
    u, v = rng.normal(size=(sites, 2)), rng.normal(size=sites * 4)
    y = 0.5 * x + (0.3 + sd_blip * u[site, 1]) * a + sd * u[site, 0] + rng.normal(size=n)
    y += sd_group * v[wave if name == "crossed" else now]
    labels = {"site": site, "now": now, "earlier": earlier, "wave": wave}
    used = {k: codes for k, codes in labels.items() if k in formula or k == delivered_in}
    frame = pd.DataFrame({k: [f"{k}{c}" for c in codes] for k, codes in used.items()})
    stage = bdtr.Stage(
        "a", actions=[0, 1], formula=formula, delivered_in=delivered_in, site_means=False
    )
    return bdtr.Trial([stage], outcome="y", site="site"), frame.assign(x=x, a=a, y=y)


def star_with_classes() -> tuple[bdtr.Trial, pd.DataFrame]:
    """Kindergarten scores of a quarter of the schools of Project STAR."""
    frame = bdtr.datasets.star()
    schools = sorted(frame["school"].dropna().unique())[::4]
    stage = bdtr.Stage(
        "a1",
        actions=["regular", "small", "aide"],
        formula="lunch + a1 + (1 + a1 | school)",
        delivered_in="classroom_k",
    )
    trial = bdtr.Trial([stage], outcome="y_k", unit="id", site="school")
    return trial, frame[frame["school"].isin(schools) & frame["a1"].notna()]


def posterior(trial: bdtr.Trial, frame: pd.DataFrame, sampler: str) -> xr.Dataset:
    fit = bdtr.fit(
        trial, frame, sampler=sampler, draws=1500, random_seed=4, missing="exclude",
        off_protocol="exclude", progress=False,
    )  # fmt: skip
    return fit.posterior(0)


@pytest.mark.parametrize("name", [*DESIGNS, "STAR with classes"])
def test_the_exact_engine_has_the_posterior_of_the_plain_model(name):
    trial, frame = star_with_classes() if name.startswith("STAR") else single_stage(name)
    plain = posterior(trial, frame, "plain")
    check_same(posterior(trial, frame, "direct"), plain)
    check_same(posterior(trial, frame, "pymc"), plain)
