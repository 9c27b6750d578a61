"""Posteriors of each family beside maximum likelihood by statsmodels and lifelines on the same data.

With 400 units and weak priors posterior means lie within a fifth of a standard error of the estimates, and
posterior SDs within a tenth of the standard errors.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from reference.other_software import data

import bdtr

KEPT = json.loads((Path(__file__).parent / "reference" / "other_software.json").read_text("utf-8"))
MORE = {
    "binomial": {"trials": "m"},
    "negative_binomial": {"exposure": "m"},
    "weibull": {"event": "event"},
    "lognormal": {"event": "event"},
}


@pytest.mark.parametrize("family", [k for k in KEPT if k != "versions"])
def test_agreement(family):
    stage = bdtr.Stage("a", actions=[0, 1], formula="x + a", residual="common")
    trial = bdtr.Trial([stage], outcome="y", family=family, **MORE.get(family, {}))
    fit = bdtr.fit(trial, data(family), sampler="direct", draws=2000, random_seed=1, progress=False)
    b = fit.posterior(0)["b"]
    names = {"Intercept": "Intercept", "x": "x", "a": "a[1]"}
    for name, right in KEPT[family]["b"].items():
        own, error = b.sel(term=names[name]), KEPT[family]["se"][name]
        assert abs(float(own.mean()) - right) < 0.2 * error
        assert float(own.std()) == pytest.approx(error, rel=0.1)
    if "sigma" in KEPT[family]:
        sigma = fit.posterior(0)["sigma"]
        assert abs(float(sigma.mean()) - KEPT[family]["sigma"]) < 0.3 * float(sigma.std())
    assert np.isfinite(b).all()
