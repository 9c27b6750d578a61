"""One stage with a third of a covariate missing, for mice 3.15.0 (2l.pan within each arm, 50 imputations,
sites as classes) and lme4 1.1-31 (``y ~ x + m * a + (1 | site)``), pooled by Rubin's rules: mice_lme4.R made
mice_lme4.json."""

from __future__ import annotations

import numpy as np
import pandas as pd


def data() -> pd.DataFrame:
    """900 people at 30 sites; m is missing where x and y are high."""
    rng = np.random.default_rng(21)
    n = 900
    site, x, a = np.arange(n) % 30, rng.normal(size=n), rng.integers(0, 2, n)
    m = 0.5 * x + rng.normal(0, 0.4, 30)[site] + rng.normal(size=n)
    y = 0.3 * x + 0.5 * m + (0.2 - 0.6 * m) * a + rng.normal(0, 0.4, 30)[site] + rng.normal(size=n)
    frame = pd.DataFrame({"x": x, "a": a, "m": m, "y": y, "site": site})
    frame.loc[rng.random(n) < 1 / (1 + np.exp(0.8 - x - 0.5 * y)), "m"] = np.nan
    return frame


if __name__ == "__main__":
    data().to_csv("mice_lme4.csv", index=False)
