"""Regimes and their values."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import bdtr
from bdtr.backward.passes import backward_pass
from bdtr.backward.regimes import RegimeError, policy
from bdtr.values.comparison import ranks


def test_embedded_regimes_of_star(star):
    from bdtr.data.check import check

    data = check(bdtr.datasets.star_trial(), star, missing="exclude", off_protocol="exclude")
    names = [r.name for r in bdtr.embedded(data)]
    assert names == [
        "regular; regular",
        "regular; aide",
        "small; small",
        "aide; regular",
        "aide; aide",
    ]


def test_embedded_regimes_depend_on_response(clinic_fit):
    names = [r.name for r in bdtr.embedded(clinic_fit)]
    assert len(names) == 4
    assert names[0] == "talk; keep if responder == 1, wait if responder == 0"


def test_regimes_must_be_feasible_on_their_own_path(clinic_fit):
    with pytest.raises(
        RegimeError, match=r"not feasible at stage second for .* units on its own path"
    ):
        bdtr.value(clinic_fit, bdtr.static(first="app", second="more"))
    with pytest.raises(RegimeError, match="must name an action for each stage"):
        bdtr.value(clinic_fit, bdtr.static(first="app"))
    with pytest.raises(RegimeError, match="'walk' is no action; allowed are"):
        bdtr.value(clinic_fit, bdtr.static(first="walk", second="more"))
    with pytest.raises(RegimeError, match="name an action for each stage"):
        bdtr.static()


def test_off_its_path_a_regime_is_followed_where_its_action_is_feasible(clinic_fit):
    """Then Q-functions are those of one policy, whatever a unit did before."""
    rule = policy(bdtr.embedded(clinic_fit)[0], clinic_fit.data)
    stage = clinic_fit.data.stages[1]
    first, second = rule.actions
    took_app = clinic_fit.data.stages[0].action == 1
    assert (first == 0).all()
    assert (second[took_app & stage.history] >= 0).all()
    assert rule.off_path[1].tolist() == (took_app & stage.history).tolist()


def test_a_single_stage_value_is_the_mean_of_q(clinics):
    """One stage, no sites: the value is a closed function of the draws."""
    stage = bdtr.Stage("first", actions=["talk", "app"], formula="x * first")
    frame = clinics.dropna(subset="y")
    fit = bdtr.fit(
        bdtr.Trial([stage], outcome="y"), frame, sampler="direct", random_seed=1, progress=False
    )
    values = bdtr.value(fit, bdtr.static(first="talk"), bdtr.static(first="app"))
    b = fit.posterior(0)["b"].stack(sample=("chain", "draw"))
    mean = frame["x"].mean()
    talk = b.sel(term="Intercept") + b.sel(term="x") * mean
    app = talk + b.sel(term="first[app]") + b.sel(term="x:first[app]") * mean
    assert np.allclose(values.draws["value"].to_numpy().reshape(-1, 2).T, [talk, app])
    contrast = (app - talk).to_numpy()
    row = values.contrasts.loc["app minus talk"]
    assert bdtr.compare(values).table.loc["app minus talk"].equals(row)
    assert not len(bdtr.value(fit, bdtr.static(first="app")).contrasts)
    assert row["mean"] == pytest.approx(contrast.mean())
    assert row["p_better"] == pytest.approx((contrast > 0).mean())
    assert row["lower"] == pytest.approx(np.quantile(contrast, 0.025))


def test_site_values_average_to_the_overall_value(clinic_fit, clinics):
    regime = bdtr.embedded(clinic_fit)[1]
    overall = bdtr.value(clinic_fit, regime).draws["value"]
    sites = bdtr.value(clinic_fit, regime, by="site").draws["value"]
    counts = clinics["clinic"].value_counts()
    weights = np.array([counts[s] for s in sites["site"].to_numpy()]) / len(clinics)
    assert np.allclose((sites * weights).sum("site"), overall)


def test_tables_say_state_population_policy_and_interval(clinic_fit):
    values = bdtr.value(clinic_fit, interval=0.9)
    assert values.caption.startswith(str(clinic_fit.state))
    for words in ("sample (480 units", "90 % equal-tailed", "the regime itself"):
        assert words in values.caption
    assert list(values.table.columns) == [
        "mean",
        "sd",
        "lower",
        "upper",
        "p_best",
        "off_path",
        "cannot_follow",
    ]
    assert values.draws["value"].dims == ("chain", "draw", "regime")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": "hospital"}, "by='hospital': allowed are 'site', a column that the trial uses"),
        ({"by": [1, 2]}, "2 labels for 480 rows"),
        ({"by": "m"}, "480 different values, at most 50"),
        ({"population": "everyone"}, "allowed are 'sample', 'units', 'sites', 'new site'"),
        ({"weight": "pupil"}, "allowed are 'unit', 'site'"),
        ({"population": "sites", "by": "clinic"}, "by='site' does not go with population='sites'"),
        ({"site": "Clinic Z"}, "the fit has no site 'Clinic Z'"),
        ({"interval": 95}, "between 0 and 1"),
        ({"regimes": ["recommended"]}, "is no regime"),
        ({"regimes": [bdtr.recommended(), bdtr.recommended()]}, "same name"),
    ],
)
def test_wrong_arguments(clinic_fit, arguments, message):
    regimes = arguments.pop("regimes", [])
    with pytest.raises(ValueError, match=message):
        bdtr.value(clinic_fit, regimes, **arguments)


def test_the_draw_wise_maximum_is_worth_at_least_the_frozen_rule(clinic_fit):
    units = np.arange(480)
    best = backward_pass(clinic_fit, "optimal").continuation(0, units).mean()
    frozen = backward_pass(clinic_fit).continuation(0, units).mean()
    assert best > frozen


def stages_by_site(seed):
    """20 sites of 30; x is -1 or 1, the blip of a2 is .8 x + u with u of SD .5 between sites."""
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(20), 30)
    n = len(site)
    u = rng.normal(size=(20, 3)) * [0.3, 0.0, 0.5]
    x = 2.0 * rng.integers(0, 2, n) - 1
    a1, a2 = rng.integers(0, 2, (2, n))
    m = 0.5 * x + rng.normal(size=n)
    blip = 0.8 * x + u[site, 2]
    y = 0.05 * x + 0.5 * m + 0.2 * a1 + a2 * blip + u[site, 0] + rng.normal(size=n)
    columns = {"site": [f"s{j:02d}" for j in site], "x": x, "a1": a1, "m": m, "a2": a2, "y": y}
    return pd.DataFrame(columns), 0.2 + blip


def test_values_of_fixed_regimes_by_subgroup_and_site():
    """Contrast of always and never: .2 + .8 x + u. In each subgroup its error is small over three
    data sets, at the 60 sites about as large as its posterior SD."""
    error, z = [], []
    for seed in range(1, 4):
        frame, truth = stages_by_site(seed)
        stages = [
            bdtr.Stage("a1", actions=[0, 1], formula="x + a1 + (1 | site)"),
            bdtr.Stage("a2", actions=[0, 1], formula="a1 + m + x * a2 + (1 + a2 | site)"),
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bdtr.DesignWarning)
            fit = bdtr.fit(
                bdtr.Trial(stages, outcome="y", site="site"), frame, sampler="direct", draws=100,
                propagated=400, random_seed=seed, progress=False,
            )  # fmt: skip
        pair = bdtr.static(a1=0, a2=0), bdtr.static(a1=1, a2=1)
        for by, found in (("x", error), ("site", z)):
            draws = bdtr.value(fit, *pair, by=by).draws["value"]
            contrast = draws.isel(regime=1) - draws.isel(regime=0)
            right = pd.Series(truth).groupby(frame[by].astype(str)).mean()
            over = contrast.mean(("chain", "draw")).to_series()
            off = over.set_axis(over.index.astype(float).astype(str)) if by == "x" else over
            off = off - right
            assert off.notna().all()
            found.append(off / contrast.std(("chain", "draw")).to_series() if by == "site" else off)
    assert np.abs(np.mean(error, axis=0)).max() < 0.2
    assert 0.6 < np.sqrt(np.mean(np.square(z))) < 1.4


def test_units_off_a_path_are_counted_where_they_are_shown(clinic_fit, clinics):
    """Those that had left the path before the last stage, counted by hand; rows of sites sum to the total."""
    regime = bdtr.embedded(clinic_fit)[0]
    expected = (clinics["first"] != "talk").groupby(clinics["clinic"]).sum()
    rows = bdtr.value(clinic_fit, regime, by="clinic").table["off_path"]
    assert rows.droplevel(0).to_dict() == expected.to_dict()
    assert bdtr.value(clinic_fit, regime).table["off_path"].iloc[0] == expected.sum()
    one = clinics["clinic"].iloc[0]
    assert bdtr.value(clinic_fit, regime, site=one).table["off_path"].iloc[0] == expected[one]


def test_p_best_is_of_several_regimes(clinic_fit):
    regimes = bdtr.embedded(clinic_fit)
    assert bdtr.value(clinic_fit, regimes[0]).table["p_best"].isna().all()
    values = bdtr.value(clinic_fit, regimes)
    among = ranks(values).table["p_best"].reindex(values.table.index)
    assert (values.table["p_best"] - among).abs().max() < 1e-12


def test_rules_name_labels_that_units_have(clinic_fit):
    """A mistyped label would move everyone to one side."""
    second = {"responder == 1": "keep", "else": "more"}
    rule = bdtr.rule("here", first="app if clinic == 'clinic <A> $' else talk", second=second)
    with pytest.raises(ValueError, match="'Clinic <A>"):
        bdtr.value(clinic_fit, rule)
