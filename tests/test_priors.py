"""Default priors, their scaling, and replacing one."""

from __future__ import annotations

import numpy as np
import pytest

from bdtr.trial.priors import (
    LKJ,
    Exponential,
    Gamma,
    HalfNormal,
    HalfStudentT,
    Normal,
    PriorError,
    prior_from_text,
    stage_priors,
)

TERMS = ("Intercept", "x", "a[s]")
SCALE = np.array([1.0, 4.0, 0.5])
GROUPS = {"site": (("Intercept", "a[s]"), np.array([1.0, 1.0]), True)}


def make(**replaced):
    return stage_priors(TERMS, SCALE, GROUPS, 500.0, 40.0, True, replaced)


def test_defaults_scale_with_response_and_columns():
    priors = make()
    assert priors.coefficients == (Normal(500, 100), Normal(0, 25), Normal(0, 200))
    assert priors.groups["site"].sd == (HalfNormal(40), HalfNormal(40))
    assert priors.groups["site"].cor == LKJ(1)
    assert priors.sigma == HalfStudentT(3, 40)


def test_one_prior_is_replaced_and_said_to_be_yours():
    new = {
        "x": Normal(1, 2),
        "sd(site)": HalfStudentT(4, 10),
        "sd(site)[a[s]]": Exponential(5),
        "cor(site)": LKJ(2),
        "sigma": HalfNormal(9),
    }
    priors = make(**new)
    assert priors.coefficients[1] == Normal(1, 2)
    assert priors.groups["site"].sd == (HalfStudentT(4, 10), Exponential(5))
    rows = {name: source for name, _, source in priors.table(TERMS, {"site": GROUPS["site"][0]})}
    assert rows["x"] == rows["cor(site)"] == rows["sd(site)[a[s]]"] == rows["sigma"] == "yours"
    assert rows["Intercept"] == "default"


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"z": Normal(0, 1)}, "'z' is no parameter of this stage. Parameters: Intercept, x"),
        ({"sd(school)": HalfNormal(1)}, r"'sd\(school\)' is no parameter"),
        ({"x": HalfNormal(1)}, "does not fit; allowed are Normal"),
        ({"sigma": Normal(0, 1)}, "allowed are HalfNormal, HalfStudentT, Exponential"),
        ({"cor(site)": HalfNormal(1)}, "allowed are LKJ"),
    ],
)
def test_a_prior_that_fits_nothing_is_an_error(replaced, message):
    with pytest.raises(PriorError, match=message):
        make(**replaced)


@pytest.mark.parametrize(
    "make", [lambda: Normal(0, 0), lambda: HalfNormal(-1), lambda: LKJ(np.nan)]
)
def test_scales_are_positive(make):
    with pytest.raises(PriorError, match="must be finite"):
        make()


@pytest.mark.parametrize(
    "prior",
    [
        Normal(-0.1, 2.5),
        HalfNormal(1 / 3),
        HalfStudentT(3, 1e-7),
        Exponential(2),
        LKJ(1.5),
        Gamma(2, 0.1),
    ],
)
def test_text_and_back(prior):
    assert prior_from_text(str(prior)) == prior
