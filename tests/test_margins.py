"""Columns measured from their margins: results do not depend on where zero is, or on units."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

import bdtr
from bdtr.data.margins import margins_of, measured, residual_columns


def test_residuals_are_those_of_least_squares():
    """Of x a given 1, x, a; and B takes coefficients as written to those of the residual columns."""
    rng = np.random.default_rng(1)
    x, a = 2017 + rng.normal(size=200), rng.integers(0, 2, 200)
    matrix = np.c_[np.ones(200), x, a, x * a]
    about = [frozenset(), frozenset("x"), frozenset("a"), frozenset("xa")]
    margins = margins_of(about, range(4))
    assert margins == [[], [0], [0], [0, 1, 2]]
    left, b = residual_columns(matrix, margins)
    fitted = matrix[:, :3] @ np.linalg.lstsq(matrix[:, :3], matrix[:, 3], rcond=None)[0]
    assert left[:, 3] == pytest.approx(matrix[:, 3] - fitted, abs=1e-6)
    coefficients = np.array([1.0, 2.0, -3.0, 0.5])
    assert left @ (b @ coefficients) == pytest.approx(matrix @ coefficients, abs=1e-6)
    one = measured(b, np.array([1.0, 2.0, 3.0, 4.0]), fixed=[2])
    assert one.turn @ one.back == pytest.approx(np.eye(4), abs=1e-8)
    assert one.back[2] == pytest.approx([0, 0, 3, 0])  # a prior on a itself stays on a


@settings(max_examples=40, deadline=None)
@given(
    st.floats(-1e5, 1e5),
    st.floats(-6, 6),
    st.sampled_from(["x * a", "x * z * a", "x + I(x**2) + a"]),
)
def test_the_prior_is_the_same_for_x_and_c_x_plus_d(shift, power, formula):
    """Prior SDs of what the model says of any unit, in data on x and on 10^p x + d."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"x": rng.normal(size=60), "z": rng.normal(size=60)})
    frame["a"] = rng.integers(0, 2, 60)
    other = frame.assign(x=10.0**power * (frame["x"] + shift))
    assert prior_spread(formula, other) == pytest.approx(prior_spread(formula, frame), rel=1e-3)


def prior_spread(formula, frame):
    from bdtr.data.check import check
    from bdtr.data.stagecolumns import stage_design
    from bdtr.stages.outcome import outcome_model, stage_rows

    trial = bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula=formula)], outcome="y")
    data = check(trial, frame.assign(y=frame["a"]))
    design = stage_design(data, 0)
    model = outcome_model(data, design, data.trial.payoff, stage_rows(data, design), 0.0, 1.0)
    sds = np.array([p.sigma for p in model.engine_priors.coefficients])
    return np.sqrt(np.square(model.rows.x * sds).sum(axis=1))


def blip_trial(n=300, seed=0):
    rng = np.random.default_rng(seed)
    z, a = rng.normal(size=n), rng.integers(0, 2, n)
    return pd.DataFrame({"x": z, "a": a, "y": 0.3 * z + 0.5 * a * z + rng.normal(size=n)})


def fitted(frame, sampler="direct", formula="x * a", site=None, **stage):
    trial = bdtr.Trial(
        [bdtr.Stage("a", actions=[0, 1], formula=formula, **stage)], outcome="y", site=site
    )
    return bdtr.fit(
        trial, frame, sampler=sampler, draws=250, propagated=1000, random_seed=1, progress=False
    )


@pytest.mark.parametrize(
    ("mean", "sd"), [(37, 0.6), (7.4, 0.05), (2017, 2), (1e6, 1.0), (0, 1e-12)]
)
def test_a_moderator_far_from_zero_is_as_when_it_is_centred(mean, sd):
    """With the same random numbers; the centred fit agrees with least squares."""
    frame = blip_trial()
    about = frame.assign(x=frame["x"] - frame["x"].mean())
    centred = fitted(about)
    moved = fitted(frame.assign(x=mean + sd * frame["x"]))
    slope = [float(f.posterior(0)["b"].sel(term="x:a[1]").mean()) for f in (centred, moved)]
    assert slope[1] * sd == pytest.approx(slope[0], abs=1e-4)
    q = [f.q_function(0)(f.data.frame) for f in (centred, moved)]
    assert np.abs(q[0] - q[1]).max() < 1e-3
    one = bdtr.recommend(centred, about).actions["action"].to_numpy()
    other = (
        bdtr.recommend(moved, frame.assign(x=mean + sd * frame["x"])).actions["action"].to_numpy()
    )
    assert (one == other).mean() > 0.98  # but for blips that are zero to rounding


@pytest.mark.parametrize("sampler", ["pymc", "plain"])
def test_with_every_sampler(sampler):
    frame = blip_trial().assign(x=lambda f: 2017 + 2 * f["x"])
    b = fitted(frame, sampler).posterior(0)["b"].sel(term="x:a[1]")
    right = fitted(frame).posterior(0)["b"].sel(term="x:a[1]")
    assert float(b.mean()) == pytest.approx(float(right.mean()), abs=0.2 * float(right.std()))
    assert float(b.std()) == pytest.approx(float(right.std()), rel=0.15)


def test_years_in_random_slopes():
    """SD of slopes as with centred years, and the correlation at year 0 that follows from it."""
    rng = np.random.default_rng(1)
    g, year = np.repeat(np.arange(30), 20), rng.integers(2014, 2021, 600)
    a = rng.integers(0, 2, 600)
    y = 0.2 * a + 0.5 * rng.normal(size=30)[g] * (year - 2017) + rng.normal(size=600)
    frame = pd.DataFrame({"g": [f"g{j}" for j in g], "x": year, "a": a, "y": y})
    fits = [fitted(f, formula="x + a + (1 + x | g)") for f in (frame, frame.assign(x=year - 2017))]
    sd = [f.posterior(0)["sd_g"].mean(("chain", "draw")).to_numpy() for f in fits]
    assert sd[0][1] == pytest.approx(sd[1][1], rel=0.01)
    assert sd[0][0] == pytest.approx(2017 * sd[1][1], rel=0.01)
    q = [f.q_function(0)(f.data.frame).mean(axis=2) for f in fits]
    assert np.abs(q[0] - q[1]).max() < 0.01
    apart = fitted(frame, formula="x + a + (1 + x || g)")
    assert any("lies outside the data" in note and "|| g" in note for note in apart.notes)


@pytest.mark.parametrize("formula", ["x * a", "0 + a + a:x"])
def test_a_constant_added_to_the_outcome_moves_the_intercept_alone(formula):
    frame = blip_trial()
    zero = fitted(frame, formula=formula)
    for add, by in ((1e4, 1.0), (1e8, 1.0), (0.0, 1e-12), (1e12, 1e12)):
        moved = fitted(frame.assign(y=add + by * frame["y"]), formula=formula)
        q = [f.q_function(0)(f.data.frame) for f in (zero, moved)]
        assert (q[1] - add) / by == pytest.approx(q[0], abs=1e-3)


def test_a_constant_outcome_is_a_clear_error():
    with pytest.raises(bdtr.DataError, match="'y' does not vary among the 300 units"):
        fitted(blip_trial().assign(y=3.0))


def test_your_own_prior_is_on_the_coefficient_as_written():
    """A tight prior on the effect of a at x = 0, and none worth the name on the rest."""
    frame = blip_trial().assign(x=lambda f: f["x"] + 3)
    fit = fitted(frame, priors={"a[1]": bdtr.trial.Normal(7.0, 1e-4)})
    assert float(fit.posterior(0)["b"].sel(term="a[1]").mean()) == pytest.approx(7.0, abs=1e-3)


def test_stage_values_far_from_zero():
    """Rewards of 1e6 at the first stage: contrasts and their SDs as without."""
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"a": rng.integers(0, 2, 400), "b": rng.integers(0, 2, 400)})
    frame["y"], frame["r"] = 0.3 * frame["a"] + 0.4 * frame["b"] + rng.normal(size=400), 0.0
    stages = [
        bdtr.Stage("a", actions=[0, 1], formula="a", reward="r"),
        bdtr.Stage("b", actions=[0, 1], formula="a + b"),
    ]
    found = []
    for reward in (0.0, 1e6):
        fit = bdtr.fit(
            bdtr.Trial(stages, outcome="y"), frame.assign(r=reward), sampler="direct", draws=250,
            random_seed=1, progress=False,
        )  # fmt: skip
        values = bdtr.value(fit, bdtr.static(a=0, b=0), bdtr.static(a=1, b=1))
        found.append(
            [
                *(values.table["mean"] - reward),
                *values.table["sd"],
                *bdtr.compare(values).table["sd"],
            ]
        )
    assert found[1] == pytest.approx(found[0], abs=1e-3)
    assert found[0][2] > 0.05  # the value is not known for sure


def grown(x, formula="a + x + I(x**2) + (1 + x + I(x**2) | g)", population="sample"):
    """Value of a = 1 in data that grow with x at 12 sites."""
    rng = np.random.default_rng(5)
    z, site = rng.normal(size=360), np.repeat(np.arange(12), 30)
    frame = pd.DataFrame({"x": x(z, site), "g": [f"g{j}" for j in site]})
    frame["a"] = rng.integers(0, 2, 360)
    frame["y"] = 0.3 * frame["a"] + 0.4 * z + 0.3 * rng.normal(size=12)[site] * (1 + z)
    frame["y"] += rng.normal(size=360)
    trial = bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula=formula)], outcome="y", site="g")
    options = {"sampler": "direct", "draws": 200, "propagated": 200, "random_seed": 1}
    fit = bdtr.fit(trial, frame, progress=False, **options)
    return bdtr.value(fit, bdtr.static(a="1"), population=population).table.iloc[0]


def test_curves_by_site_far_from_zero():
    """Calendar years, squared, by site: new sites too have the same values as with x centred."""
    near = grown(lambda z, site: z, population="new site")
    far = grown(lambda z, site: 2017 + 4 * z, population="new site")
    assert far["mean"] == pytest.approx(near["mean"], abs=1e-3)
    assert far["sd"] == pytest.approx(near["sd"], rel=1e-3)


def test_what_rounding_loses_is_a_clear_error():
    with pytest.raises(
        bdtr.data.modelmatrix.DesignError, match="lost to rounding. Centre the column"
    ):
        grown(lambda z, site: 2.45e6 + 100 * z)


def test_a_column_that_is_constant_within_sites_may_vary_by_site():
    """Its intercept SD as measured is next to 0, and no draw of a new site is missing for that."""
    found = grown(lambda z, site: 2017.0 + site, "x * a + (1 + x | g)", "new site")
    assert np.isfinite(found[["mean", "sd", "lower", "upper"]].astype(float)).all()
