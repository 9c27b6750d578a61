"""Regressions, responses, columns and draws of missing values, against closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bdtr
from bdtr.data.imputation.chain import _Target
from bdtr.data.imputation.models import Model
from bdtr.data.imputation.regression import Groups, Regression, between, log_between
from bdtr.data.imputation.responses import Categories, Labels, numbers, standardised
from bdtr.data.imputation.values import MadeColumns, Values
from bdtr.data.modelmatrix import Columns

SEED = np.random.SeedSequence(3)
GIVEN = {
    "sampler": "direct", "draws": 400, "random_seed": 1, "progress": False, "imputations": 8,
}  # fmt: skip


def test_a_regression_is_that_of_least_squares():
    """Many rows, two residual SDs: coefficients as generalised least squares has them, SDs those of the
    rows."""
    rng = np.random.default_rng(0)
    n = 4000
    x, stratum = np.c_[np.ones(n), rng.normal(2, 3, (n, 2))], rng.integers(0, 2, n)
    r = x @ [1.0, 0.2, -0.1] + rng.normal(size=n) * np.where(stratum == 1, 1.5, 0.5)
    sets = 4
    wide, responses = np.tile(x, (sets, 1, 1)), np.tile(r, (sets, 1))
    found = Regression(wide, [], stratum, 2, False)
    means, sds = [], []
    for _ in range(200):
        found.draw(rng, wide, [], responses)
        means.append(found.mean(wide[:, :3], [], np.arange(3)))
        sds.append(np.sqrt(found.variance))
    w = np.where(stratum == 1, 1.5, 0.5) ** -2.0
    v = np.linalg.inv((x * w[:, None]).T @ x)
    right, error = x[:3] @ v @ (x * w[:, None]).T @ r, np.sqrt(np.diag(x[:3] @ v @ x[:3].T))
    drawn = np.array(means[20:]).reshape(-1, 3)
    assert (np.abs(drawn.mean(axis=0) - right) < 0.2 * error).all()
    assert np.allclose(drawn.std(axis=0), error, rtol=0.12)
    assert np.allclose(np.mean(sds[20:], axis=(0, 1)), [0.5, 1.5], rtol=0.05)


@pytest.mark.parametrize("terms", [1, 2])
def test_sds_between_groups_are_found(terms):
    rng = np.random.default_rng(1)
    n, levels, sets = 3000, 60, 4
    codes, z = rng.integers(0, levels, n), np.c_[np.ones(n), rng.normal(size=n)][:, :terms]
    root = np.linalg.cholesky(np.array([[0.16, 0.06], [0.06, 0.09]])[:terms, :terms])
    u = rng.normal(size=(levels, terms)) @ root.T
    r = (z * u[codes]).sum(axis=1) + rng.normal(size=n)
    x = np.ones((sets, n, 1))
    found = Regression(x, [Groups.of(codes, levels, terms)], np.zeros(n, int), 1, False)
    drawn = []
    for _ in range(150):
        found.draw(rng, x, [np.tile(z, (sets, 1, 1))], np.tile(r, (sets, 1)))
        drawn.append(found.covariance[0].copy())
    drawn = np.array(drawn[30:]).reshape(-1, terms, terms)
    right = u.T @ u / levels
    assert (np.abs(drawn.mean(axis=0) - right) < 2 * drawn.std(axis=0)).all()


def test_normal_numbers_between_ends():
    low, high = np.array([-np.inf, -1.0, 2.0, 6.0, -9.0]), np.array([0.5, 1.0, np.inf, 7.0, -8.0])
    drawn = between(np.random.default_rng(2), np.tile(low, (20_000, 1)), np.tile(high, (20_000, 1)))
    law = stats.truncnorm(low, high)
    assert (drawn >= low).all() and (drawn <= high).all()
    assert np.abs((drawn.mean(axis=0) - law.mean()) / law.std()).max() < 4 / np.sqrt(20_000)
    assert np.allclose(drawn.std(axis=0), law.std(), rtol=0.04)
    right = [
        stats.norm.logcdf(0.5),
        np.log(stats.norm.cdf(1) - stats.norm.cdf(-1)),
        stats.norm.logsf(2),
    ]
    assert np.allclose(log_between(low, high)[:3], right)


@pytest.mark.parametrize("response", [Categories.of(np.array([0, 0, 1, 2, 2, 2]), 3), Labels(4)])
def test_probabilities_of_categories_add_up(response):
    mean, sd = np.array([[-0.5, 0.3, 2.0]]), np.ones((1, 3))
    logs = [
        response.log_density(np.full((1, 3), float(c)), lambda part: (mean + part, sd))
        for c in range(response.count)
    ]
    assert np.allclose(np.exp(logs).sum(axis=0), 1.0)


def test_numbers_and_their_normal_scores():
    rng = np.random.default_rng(3)
    plain = numbers(rng.normal(50, 10, 500))
    assert np.allclose(plain.score(np.array([50.0, 60.0])), [0.0, 1.0], atol=0.15)
    skew = rng.lognormal(0, 1, 800)
    found = numbers(skew)
    drawn = found.number(rng.standard_normal(20_000))
    assert np.allclose(
        np.quantile(drawn, [0.1, 0.5, 0.9]), np.quantile(skew, [0.1, 0.5, 0.9]), rtol=0.1
    )
    assert drawn.min() >= skew.min() and (drawn > skew.max()).mean() < 0.003
    inside = np.quantile(skew, [0.05, 0.3, 0.8])
    assert np.allclose(found.smooth(found.score(inside)), inside, rtol=1e-6)
    counts = rng.poisson(8, 500).astype(float)
    drawn = numbers(counts).number(rng.standard_normal(5_000))
    assert (drawn == np.rint(drawn)).all() and abs(drawn.mean() - counts.mean()) < 0.3


def people(n=60, seed=4):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "m": rng.normal(size=n) ** 2 + 0.1,
            "a": pd.Categorical(rng.choice(["app", "coach"], n), categories=["app", "coach"]),
            "g": pd.Categorical(rng.choice(list("pqr"), n), categories=list("pqr")),
        }
    )


@pytest.mark.parametrize(
    "text",
    [
        "x * a * m",
        "g * m + a",
        "bs(x, df=4) * a + m",
        "log(m) + x",
        "0 + g + x:a",
        "center(x):g + poly(x, 2)",
    ],
)
def test_columns_are_those_of_the_formula(text):
    """Products made here, transforms of what is complete taken over, transforms of what is drawn by
    formulaic."""
    frame = people()
    coding = bdtr.data.coding.Coding({"a": ("app", "coach"), "g": tuple("pqr")}, ("x", "m"), ())
    values = Values.of(frame, coding, ["m"], {}, 3)
    values.held["m"][:] = np.random.default_rng(5).uniform(0.1, 3, (3, 60))
    rows, some = np.arange(60), np.array([3, 40, 41])
    columns = Columns(text, {}, frame)
    made = MadeColumns(columns, range(len(columns.names)), values, rows)
    other = np.random.default_rng(6).uniform(0.1, 3, (3, 3))
    for instead in ({}, {"m": other}):
        found = made.matrix(values, some, instead)
        for d in range(3):
            own = frame.iloc[some].assign(
                m=instead["m"][d] if instead else values.held["m"][d, some]
            )
            assert np.allclose(found[d], columns.matrix(own))


def test_a_missing_number_given_what_came_before_and_later():
    """m | x ~ N(.5 x, 1) and y | m, a ~ N(.8 m - .6 m a, .7^2): the conditional of m is normal in closed
    form, and every proposal is accepted."""
    rng = np.random.default_rng(7)
    n, sets = 40, 3000
    frame = pd.DataFrame(
        {"x": rng.normal(size=n), "a": rng.integers(0, 2, n), "m": rng.normal(size=n)}
    )
    frame["a"] = frame["a"].astype(float)
    y = rng.normal(size=n)
    coding = bdtr.data.coding.Coding({}, ("x", "a", "m"), ())
    values = Values.of(frame, coding, ["m"], {}, sets)
    values.held["y"] = y[None]
    rows = np.arange(n)

    def model(name, text, response, b, sd):
        columns = Columns(text, {}, frame)
        made = MadeColumns(columns, range(len(columns.names)), values, rows)
        out = Model(name, rows, made, [], response, values)
        one = out.regressions[0]
        one.centre[:], one.scale[:], one.b[:], one.variance[:] = 0.0, 1.0, b, sd**2
        return out

    unit = standardised(np.array([-1.0, 0.0, 1.0]))  # mean 0, SD 1
    own = model("m", "x", unit, [0.0, 0.5], 1.0)
    later = model("y", "m + m:a", unit, [0.0, 0.8, -0.6], 0.7)
    target = _Target(values, own, [later], rows)
    assert target.draw(rng) == pytest.approx(1.0, abs=1e-3)
    slope = 0.8 - 0.6 * frame["a"].to_numpy()
    variance = 1 / (1 + slope**2 / 0.49)
    mean = variance * (0.5 * frame["x"].to_numpy() + slope * y / 0.49)
    drawn = values.held["m"]
    assert np.abs((drawn.mean(axis=0) - mean) / np.sqrt(variance / sets)).max() < 4.5
    assert np.allclose(drawn.std(axis=0), np.sqrt(variance), rtol=0.08)
