"""Project STAR, one stage at a time, against lme4's estimates on the same rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bdtr

REFERENCE = json.loads((Path(__file__).parent / "reference" / "star_lme4.json").read_text())
FIRST = "a1 + female + black + lunch + (1 + a1 | school)"
SECOND = "female + black + lunch + a1 + a2 * y_k + (1 + a2 | school)"
MODELS = {
    "k_without_class": (FIRST, None),
    "k_with_class": (FIRST, "classroom_k"),
    "stage2_without_class": (SECOND, None),
    "stage2_with_class": (SECOND, "classroom_1"),
    "stage2_with_both_classes": (SECOND + " + (1 | classroom_k)", "classroom_1"),
}
# An SD that lme4 puts below this is at its boundary: the likelihood is maximal at or next to zero.
BOUNDARY = 0.05


def _fit(star, name):
    formula, delivered = MODELS[name]
    if name.startswith("k_"):
        rows = star.dropna(subset=["y_k", "a1", "female", "black", "lunch"])
        stage = bdtr.Stage(
            "a1",
            actions=["regular", "small", "aide"],
            formula=formula,
            delivered_in=delivered,
            site_means=False,
            residual="common",  # as in lme4
        )
        trial = bdtr.Trial([stage], outcome="y_k", unit="id", site="school")
    else:
        classes = ["regular", "aide"]
        rows = star[
            (star["school_1"] == star["school"])
            & star["a1"].isin(classes)
            & star["a2"].isin(classes)
        ].dropna(subset=["y_1", "y_k", "female", "black", "lunch"])
        # In this one-stage trial a1 is a covariate: a categorical says which class is the reference.
        rows = rows.assign(a1=pd.Categorical(rows["a1"], categories=classes))
        stage = bdtr.Stage(
            "a2",
            actions=classes,
            formula=formula,
            delivered_in=delivered,
            site_means=False,
            residual="common",
        )
        trial = bdtr.Trial([stage], outcome="y_1", unit="id", site="school")
    return bdtr.fit(
        trial, rows, sampler="direct", random_seed=1, progress=False, draws=500, propagated=1000
    )


def _ours(name: str) -> str:
    """lme4's name of a term in ours: a2aide -> a2[aide]."""
    if name == "(Intercept)":
        return "Intercept"
    for action in ("a1", "a2"):
        for label in ("small", "aide"):
            name = name.replace(f"{action}{label}", f"{action}[{label}]")
    return name


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.filterwarnings("ignore:.*hardly ever varies:bdtr.DesignWarning")
def test_stage_model_agrees_with_lme4(star, name):
    reference = REFERENCE[name]
    fit = _fit(star, name)
    assert int(fit.flow.loc[fit.flow["step"] == "in the fit", "units"].iloc[0]) == reference["n"]
    table = fit.summary().table.droplevel("stage")
    terms = {_ours(term): value for term, value in reference["fixef"].items()}
    assert sorted(terms) == sorted(fit.designs[0].terms)
    for term, value in terms.items():
        row = table.loc[f"b[{term}]"]
        assert abs(row["mean"] - value) < 0.5 * row["sd"], term
        # The posterior SD is that of lme4's Wald standard error, wider as SDs are not known.
        assert 0.9 < row["sd"] / reference["se"][_theirs(term, reference)] < 1.35, term
    for part in reference["vc"]:
        if part["var2"] != "NA" or float(part["sdcor"]) < BOUNDARY:
            continue
        term = _ours(part["var1"])
        parameter = "sigma" if part["grp"] == "Residual" else f"sd_{part['grp']}[{term}]"
        row = table.loc[parameter]
        assert row["lower"] < float(part["sdcor"]) < row["upper"], parameter


def _theirs(term: str, reference: dict) -> str:
    return next(name for name in reference["se"] if _ours(name) == term)


def test_class_intercept_takes_over_most_of_the_school_varying_effect(star):
    """DESIGN 3.1: the between-school SD of the grade-1 aide effect falls once classes are modelled."""
    with pytest.warns(bdtr.DesignWarning, match="classroom_1"):
        without = _fit(star, "stage2_without_class")
    inside = _fit(star, "stage2_with_class")
    sds = [
        np.asarray(f.tree["stage_1/posterior/sd_school"].sel(school_term="a2[aide]")).mean()
        for f in (without, inside)
    ]
    assert sds[0] > 0.22
    assert sds[1] < 0.6 * sds[0]
