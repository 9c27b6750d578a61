"""Trials with missing values whose truth is known: whole data, exclusion and imputation side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import expit
from situations import Found, S, against

import bdtr
from bdtr.backward.passes import backward_pass

WHERE = ("24 sites of 25", "150 people")
WHY = ("by x and a1", "by the outcome")
MISSING = tuple(f"{where}, {why}" for where in WHERE for why in WHY)
_REGIMES = ((0, 0), (1, 1), (0, 1))


def missing(name: str, seed: int) -> Found:
    """A tailoring variable missing for 30 %, and a tenth of the outcomes: values of regimes, a contrast, what
    a1 adds at stage 1, and the coefficients of a2 and m of the last stage."""
    sites = 24 if name.startswith(WHERE[0]) else 0
    rng = np.random.default_rng([seed, 9, MISSING.index(name)])
    n, where = (600, np.arange(600) % 24) if sites else (150, np.zeros(150, dtype=int))
    x = rng.normal(size=n)
    a1, a2 = rng.integers(0, 2, (2, n))
    u = rng.normal(0, 0.3, (2, 24)) if sites else np.zeros((2, 1))

    def state(a):
        return 0.5 * x + 0.4 * a + u[0, where]

    def payoff(a, m, b):
        return 0.3 * x + 0.3 * a + 0.5 * m + (0.2 - 0.6 * m) * b + u[1, where]

    m = state(a1) + rng.normal(size=n)
    y = payoff(a1, m, a2) + rng.normal(size=n)
    whole = pd.DataFrame({"site": where, "x": x, "a1": a1, "m": m, "a2": a2, "y": y})
    lost = rng.random(n) < 0.2 * expit(0.8 * x)
    gone = x + 0.8 * a1 - 1.5
    if name.endswith(WHY[1]):  # what is not observed says nothing
        gone = np.where(lost, x, y) - 1.4
    frame = whole.copy()
    frame.loc[rng.random(n) < expit(gone), "m"] = np.nan
    frame.loc[lost, "y"] = np.nan
    group = " + (1 | site)" if sites else ""
    stages = [
        S("a1", actions=[0, 1], formula=f"x * a1{group}", site_means=False),
        S("a2", actions=[0, 1], formula=f"x + a1 + m * a2{group}", site_means=False),
    ]
    trial = bdtr.Trial(stages, outcome="y", site="site" if sites else None)
    # Means are linear in m, so that those of regimes follow from the mean of m.
    worth = np.array([payoff(a, state(a), b).mean() for a, b in _REGIMES])
    out: Found = {}
    for way, data, how in (
        ("whole", whole, "error"), ("excluded", frame, "exclude"), ("imputed", frame, "impute"),
    ):  # fmt: skip
        fit = bdtr.fit(
            trial, data, missing=how, sampler="direct", draws=500, random_seed=seed, progress=False
        )
        regimes = [bdtr.static(a1=a, a2=b) for a, b in _REGIMES]
        draws = bdtr.value(fit, *regimes).draws["value"]
        for k, pair in enumerate(_REGIMES):
            out[f"{way}: value of {pair}"] = against(draws.isel(regime=k), worth[k])
        apart = draws.isel(regime=1) - draws.isel(regime=0)
        out[f"{way}: (1, 1) less (0, 0)"] = against(apart, worth[1] - worth[0])
        q = backward_pass(fit, regimes[0]).q_values(0, np.arange(100))
        blip = (q[1] - q[0]).mean(axis=0).reshape(draws.sizes["chain"], -1)
        drawn = draws.isel(regime=0).copy(data=blip)
        out[f"{way}: a1 at stage 1, then 0"] = against(drawn, 0.5)
        b = fit.posterior(1)["b"]
        for term, right in (("m", 0.5), ("a2[1]", 0.2), ("m:a2[1]", -0.6)):
            out[f"{way}: {term} at stage 2"] = against(b.sel(term=term), right)
    return out
