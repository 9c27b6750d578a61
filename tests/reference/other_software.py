"""Fits of statsmodels and lifelines to simulated data: python tests/reference/other_software.py

The data are made here for the tests as well; the numbers are kept in other_software.json.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent


def expit(x):
    return 1 / (1 + np.exp(-x))


def data(kind: str) -> pd.DataFrame:
    """Four hundred units, an action, a covariate and an outcome."""
    rng = np.random.default_rng([11, len(kind)])
    n = 400
    frame = pd.DataFrame({"a": rng.integers(0, 2, n), "x": rng.normal(size=n).round(2)})
    eta = 0.3 * frame["x"] + 0.5 * frame["a"] - 0.2
    if kind == "ordinal":
        frame["y"] = np.digitize(eta + rng.logistic(size=n), [-1.0, 0.2, 1.4])
    elif kind == "negative_binomial":
        frame["m"] = rng.uniform(0.5, 3.0, n).round(2)
        frame["y"] = rng.poisson(frame["m"] * np.exp(eta) * rng.gamma(2.0, 0.5, n))
    elif kind == "binomial":
        frame["m"] = rng.integers(1, 12, n)
        frame["y"] = rng.binomial(frame["m"], expit(eta))
    elif kind == "beta":
        frame["y"] = rng.beta(6 * expit(eta), 6 * expit(-eta)).clip(1e-4, 1 - 1e-4)
    else:
        error = np.log(rng.exponential(size=n)) if kind == "weibull" else rng.normal(size=n)
        time, stop = np.exp(1 + eta + 0.7 * error), rng.uniform(1, 8, n)
        frame["y"], frame["event"] = np.minimum(time, stop).round(4), (time <= stop) * 1
    return frame


def main() -> None:
    import lifelines
    import statsmodels
    import statsmodels.api as sm
    from lifelines import LogNormalAFTFitter, WeibullAFTFitter
    from statsmodels.miscmodels.ordinal_model import OrderedModel
    from statsmodels.othermod.betareg import BetaModel

    found = {}

    def keep(kind, names, values, errors, more=None):
        found[kind] = {
            "b": dict(zip(names, map(float, values), strict=True)),
            "se": dict(zip(names, map(float, errors), strict=True)),
            **(more or {}),
        }

    names = ["Intercept", "x", "a"]
    d = data("ordinal")
    fit = OrderedModel(d["y"], d[["x", "a"]], distr="logit").fit(method="bfgs", disp=False)
    keep("ordinal", names[1:], fit.params[:2], fit.bse[:2])
    d = data("negative_binomial")
    x = sm.add_constant(d[["x", "a"]])
    fit = sm.NegativeBinomial(d["y"], x, exposure=d["m"]).fit(disp=False, maxiter=200)
    keep(
        "negative_binomial",
        names,
        fit.params[:3],
        fit.bse[:3],
        {"sigma": float(fit.params.iloc[3] ** 0.5)},
    )
    d = data("binomial")
    x = sm.add_constant(d[["x", "a"]])
    fit = sm.GLM(np.c_[d["y"], d["m"] - d["y"]], x, family=sm.families.Binomial()).fit()
    keep("binomial", names, fit.params, fit.bse)
    d = data("beta")
    fit = BetaModel(d["y"], sm.add_constant(d[["x", "a"]])).fit(disp=False)
    keep(
        "beta",
        names,
        fit.params[:3],
        fit.bse[:3],
        {"sigma": float(np.exp(-0.5 * fit.params.iloc[3]))},
    )
    for kind, fitter in (("weibull", WeibullAFTFitter()), ("lognormal", LogNormalAFTFitter())):
        d = data(kind)
        fit = fitter.fit(d, "y", "event")
        place, shape = ("lambda_", "rho_") if kind == "weibull" else ("mu_", "sigma_")
        own = fit.summary.loc[place]
        order = ["Intercept", "x", "a"]
        sigma = float(np.exp(fit.summary.loc[(shape, "Intercept"), "coef"]))
        keep(kind, names, own.loc[order, "coef"], own.loc[order, "se(coef)"],
             {"sigma": 1 / sigma if kind == "weibull" else sigma})  # fmt: skip
    found["versions"] = {"statsmodels": statsmodels.__version__, "lifelines": lifelines.__version__}
    (HERE / "other_software.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
