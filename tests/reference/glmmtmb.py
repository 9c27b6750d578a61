"""Counts and shares at 60 sites, for glmmTMB 1.1.5: glmmtmb.R made glmmtmb.json."""

from __future__ import annotations

import numpy as np
import pandas as pd


def data() -> pd.DataFrame:
    """1,200 people; counts over m months, and successes out of m."""
    rng = np.random.default_rng(5)
    n, sites = 1200, 60
    site, x, a = np.arange(n) % sites, rng.normal(size=n), rng.integers(0, 2, n)
    m, u = rng.integers(3, 20, n), rng.normal(0, 0.5, sites)
    rng.normal(0, 0.4, sites)
    eta = -0.3 + 0.4 * x + 0.5 * a + u[site]
    size = 1 / 0.6**2
    count = rng.poisson(m * np.exp(eta - 1) * rng.gamma(size, 1 / size, n))
    p, size = 1 / (1 + np.exp(-eta)), 1 / 0.4**2
    k = rng.binomial(m, rng.beta(p * size, (1 - p) * size))
    return pd.DataFrame({"x": x, "a": a, "m": m, "site": site, "count": count, "k": k})


if __name__ == "__main__":
    data().to_csv("glmmtmb.csv", index=False)
