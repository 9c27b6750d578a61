"""Columns for observed and counterfactual actions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_data import small

import bdtr
from bdtr.data.check import check
from bdtr.data.modelmatrix import DesignError
from bdtr.data.stagecolumns import stage_design


def designs(trial, frame, **options):
    data = check(trial, frame, **options)
    return data, [stage_design(data, k) for k in range(len(trial.stages))]


def one(formula, frame=None, **stage):
    trial = bdtr.Trial([bdtr.Stage("a", actions=["r", "s"], formula=formula, **stage)], outcome="y")
    data, (design,) = designs(trial, small() if frame is None else frame)
    return data, design


def test_columns_of_a_counterfactual_action_come_from_the_same_formula():
    data, design = one("x * a")
    assert design.terms == ("Intercept", "x", "a[s]", "x:a[s]")
    x = data.frame["x"].to_numpy()
    codes = design.site_codes(data.frame)
    for action in (0, 1):
        got = design.written(design.acting(data.frame, action), codes)
        assert np.allclose(got, np.c_[np.ones(40), x, np.full(40, action), x * action])


def test_the_first_action_is_the_reference_in_the_users_order():
    trial = bdtr.Trial([bdtr.Stage("a", actions=["s", "r"], formula="a")], outcome="y")
    _, (design,) = designs(trial, small())
    assert design.terms == ("Intercept", "a[r]")


def test_columns_made_identical_by_feasible_sets_are_dropped_with_a_note(star):
    options = {"missing": "exclude", "off_protocol": "exclude"}
    _, (_, second) = designs(bdtr.datasets.star_trial(), star, **options)
    assert "a1[small]" in second.terms
    assert "a2[small]" not in second.terms
    assert "a2[small]:y_k" in second.terms
    assert any("a2[small] is dropped" in note and "a1[small]" in note for note in second.notes)


def test_columns_that_no_feasible_action_fills_are_dropped(clinics):
    first = bdtr.Stage("first", actions=["talk", "app"], formula="first")
    feasible = {"responder == 1": ["keep"], "responder == 0": ["wait", "more"]}
    second = bdtr.Stage(
        "second",
        actions=["wait", "more", "keep"],
        feasible=feasible,
        formula="responder * second",
    )
    trial = bdtr.Trial([first, second], outcome="y")
    _, (_, design) = designs(trial, clinics, missing="exclude")
    # keep = responder; responder x more is never; responder x keep = responder.
    assert design.terms == ("Intercept", "responder", "second[more]", "first[app]")
    assert len(design.notes) == 3
    assert "first[app] added" in design.added[0]


@pytest.mark.parametrize(
    ("formula", "named"),
    [("x + twice + a", "x, twice"), ("g + h + a", r"g\[v\], h")],
)
def test_other_exact_collinearity_is_an_error_that_names_the_columns(formula, named):
    frame = small().assign(twice=lambda f: 2 * f["x"], g=["u", "v"] * 20, h=[0.0, 1.0] * 20)
    with pytest.raises(DesignError, match=f"the columns {named} are exactly collinear"):
        one(formula, frame)


def test_an_interaction_that_nobody_informs_is_an_error():
    frame = small().assign(z=lambda f: (f["a"] == "r").astype(float))
    with pytest.raises(DesignError, match="exactly collinear|no unit in the fit informs"):
        one("z * a", frame)


def test_site_means_of_history_and_treatment_shares():
    rng = np.random.default_rng(0)
    n = 400
    frame = pd.DataFrame(
        {
            "site": [f"s{i % 20}" for i in range(n)],
            "x": rng.normal(size=n),
            "size": np.arange(n) % 20 * 1.0,
            "a": rng.choice(["r", "s"], n),
            "y": rng.normal(size=n),
        }
    )
    stage = {"actions": ["r", "s"], "formula": "x * a + size + (1 | site)"}
    trial = bdtr.Trial([bdtr.Stage("a", **stage)], outcome="y", site="site")
    data, (design,) = designs(trial, frame)
    # The size of a site does not vary within it: no mean of its own. Interactions have none either.
    assert design.terms[-2:] == ("site_mean(x)", "site_mean(a[s])")
    means = frame.groupby("site")["x"].mean()[list(design.site_levels)]
    assert np.allclose(design.sites.table[:, 0], means - frame["x"].mean())
    # The share of treated is a fact of the site: a counterfactual action of one unit leaves it.
    codes = design.site_codes(data.frame)
    ones = design.written(design.acting(data.frame, 1), codes)
    twos = design.written(design.acting(data.frame, 0), codes)
    assert np.allclose(ones[:, -2:], twos[:, -2:])
    # A site that is not known has the average of the means, which is zero after centring.
    assert np.allclose(design.written(data.frame, np.full(n, -1))[:, -2:], 0)
    out = bdtr.Trial([bdtr.Stage("a", **stage, site_means=False)], outcome="y", site="site")
    assert not any("site_mean" in t for t in designs(out, frame)[1][0].terms)


def test_few_sites_leave_no_room_for_their_means():
    trial = bdtr.Trial(
        [bdtr.Stage("a", actions=["r", "s"], formula="x * a + (1 | site)")],
        outcome="y",
        site="site",
    )
    _, (design,) = designs(trial, small().drop(columns="b"))
    assert design.terms == ("Intercept", "x", "a[s]", "x:a[s]")
    assert "site means are left out" in design.notes[0]


def test_earlier_delivery_clusters_are_history_at_later_stages(star):
    options = {"missing": "exclude", "off_protocol": "exclude"}
    _, (first, second) = designs(bdtr.datasets.star_trial(), star, **options)
    assert {g.name: g.role for g in first.groups} == {"school": "site", "classroom_k": "delivery"}
    assert {g.name: g.role for g in second.groups} == {
        "school": "site",
        "classroom_k": "history",
        "classroom_1": "delivery",
    }
    assert "classroom_k" in second.history
    assert "classroom_1" not in second.history


def test_the_site_index_is_the_union_over_stages(star):
    options = {"missing": "exclude", "off_protocol": "exclude"}
    data, (first, second) = designs(bdtr.datasets.star_trial(), star, **options)
    assert len(first.site_levels) == len(second.site_levels) == 79
    present = data.frame["school"][data.stages[1].fitted].nunique()
    assert present == 74
    assert any("5 sites without rows" in note for note in second.notes)


def test_values_that_a_transform_cannot_take_are_named():
    with pytest.raises(DesignError, match=r"log\(x\).*not finite"), np.errstate(all="ignore"):
        one("log(x) + a")


def test_nested_factors_combine_labels():
    data, design = one("a + (1 | site/b)")
    nested = design.groups[1]
    assert nested.name == "site:b"
    assert set(nested.levels) == set(data.frame["site"] + ":" + data.frame["b"].astype(str))


def test_a_number_can_be_a_covariate_and_a_grouping_factor():
    frame = small().drop(columns="b").assign(site=np.arange(40) % 4)
    trial = bdtr.Trial(
        [bdtr.Stage("a", actions=["r", "s"], formula="a + site + (1 | site)")],
        outcome="y",
        site="site",
    )
    data, (design,) = designs(trial, frame)
    assert design.terms == ("Intercept", "a[s]", "site")
    assert (design.groups[0].codes(data.frame) == frame["site"]).all()


def test_columns_far_from_zero_are_not_collinear_with_the_intercept():
    frame = small().assign(year=2015.0 + np.arange(40) % 5)
    assert one("a + year + I(year ** 2)", frame)[1].terms[-2:] == ("year", "I(year ** 2)")
    with pytest.raises(DesignError, match="year does not vary"):
        one("a + year", frame.assign(year=2015))


def test_without_an_intercept_new_sites_have_the_average_of_the_site_means():
    rng = np.random.default_rng(0)
    frame = small(400).drop(columns="b")
    frame = frame.assign(site=[f"s{i % 20}" for i in range(400)], x=100 + rng.normal(size=400))
    stage = bdtr.Stage("a", actions=["r", "s"], formula="0 + x + x:a + (1 | site)")
    data, (design,) = designs(bdtr.Trial([stage], outcome="y", site="site"), frame)
    assert design.terms[-1].startswith("site_mean(")
    assert np.allclose(design.written(data.frame, np.full(400, -1))[:, -1], 0)


def test_a_cluster_kept_for_two_stages_is_history_at_the_second():
    frame = small(80).assign(t=np.arange(80) // 4 % 10)
    stages = [
        bdtr.Stage("a", actions=["r", "s"], formula="a", delivered_in="t"),
        bdtr.Stage("b", actions=["r", "s"], formula="a + b", delivered_in="t"),
    ]
    _, (first, second) = designs(bdtr.Trial(stages, outcome="y"), frame)
    assert [g.role for g in first.groups] == ["delivery"]
    assert [g.role for g in second.groups] == ["history"]


def test_what_is_known_of_sites_is_left_out_one_by_one():
    """Sites of one size: size says nothing, shares and means do."""
    rng = np.random.default_rng(1)
    site = np.repeat(np.arange(12), 10)
    frame = pd.DataFrame({"site": [f"s{j}" for j in site], "x": rng.normal(size=120)})
    frame["a"] = (rng.random(120) < rng.uniform(0.2, 0.8, 12)[site]) * 1
    frame["y"] = rng.normal(size=120)
    stage = bdtr.Stage(
        "a", actions=[0, 1], formula="x + a + (1 + a | site)", site_terms=["size", "share"]
    )
    design = stage_design(check(bdtr.Trial([stage], outcome="y", site="site"), frame), 0)
    known = ("site_mean(x)", "site_mean(a[1])", "a[1]:site_mean(a[1])")
    assert design.terms == ("Intercept", "x", "a[1]", *known)
    (note,) = [n for n in design.notes if "left out" in n]
    assert "site_size, a[1]:site_size left out" in note
