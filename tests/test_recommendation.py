"""Recommendations for units known and new, at sites known and new."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import bdtr
from bdtr.backward.passes import backward_pass
from bdtr.results.diagnostics import State


def test_every_unit_with_a_complete_history_has_one_action_per_stage(clinic_fit, clinics):
    found = bdtr.recommend(clinic_fit, clinics)
    assert not found.actions.duplicated(["unit", "stage"]).any()
    assert (found.actions["stage"] == "first").sum() == len(clinics)
    # Those who left have a recommendation at stage 2 as well: their history is complete.
    assert (found.actions["stage"] == "second").sum() == len(clinics)
    shares = found.table.groupby(["unit", "stage"])["p_optimal"].sum()
    assert np.allclose(shares, 1)


def test_feasible_sets_are_respected(clinic_fit, clinics):
    actions = bdtr.recommend(clinic_fit, clinics).actions
    second = actions[actions["stage"] == "second"].set_index("unit")["action"]
    responder = clinics.set_index("person")["responder"].astype(bool)
    assert (second[responder[responder].index] == "keep").all()
    assert second[responder[~responder].index].isin(["wait", "more"]).all()


def test_order_of_units_and_blocks_do_not_matter(clinic_fit, clinics, monkeypatch):
    whole = bdtr.recommend(clinic_fit, clinics).table
    from bdtr.decisions import recommendation

    monkeypatch.setattr(recommendation, "_CELLS", 200_000)
    parts = bdtr.recommend(clinic_fit, clinics.sample(frac=1, random_state=0)).table
    keys = ["stage", "unit", "action"]
    pd.testing.assert_frame_equal(
        whole.sort_values(keys, ignore_index=True), parts.sort_values(keys, ignore_index=True)
    )


def test_new_sites_must_be_said(clinic_fit, clinics):
    elsewhere = clinics.head(30).assign(clinic="Elsewhere")
    with pytest.raises(
        ValueError, match=r"30 units are at sites the fit has not seen \('Elsewhere'\)"
    ):
        bdtr.recommend(clinic_fit, elsewhere)
    with pytest.raises(ValueError, match="Say sites='new'"):
        bdtr.recommend(clinic_fit, elsewhere, sites="observed")
    with pytest.raises(ValueError, match="allowed are 'observed', 'new', 'typical'"):
        bdtr.recommend(clinic_fit, elsewhere, sites="old")
    new, typical = (
        bdtr.recommend(clinic_fit, elsewhere, sites=s).table for s in ("new", "typical")
    )
    width = [(t["q_upper"] - t["q_lower"]).mean() for t in (new, typical)]
    assert width[0] > 1.2 * width[1]
    bare = bdtr.recommend(clinic_fit, elsewhere.drop(columns="clinic"), sites="typical").table
    pd.testing.assert_frame_equal(bare, typical)


def test_units_of_one_new_site_share_its_effect(clinic_fit, clinics):
    """Q-values at one new site move together; at two new sites they do not."""
    rows = clinics.head(2).assign(clinic=["One", "One"], x=0.0)
    same = clinic_fit.q_function(0, sites="new")
    coded = clinic_fit.designs[0].coding.code(rows, clinic_fit.designs[0].history)
    q = same(coded)[0]
    other = clinic_fit.designs[0].coding.code(rows.assign(clinic=["One", "Two"]), coded.columns)
    assert np.corrcoef(q)[0, 1] > 0.999
    assert np.corrcoef(same(other)[0])[0, 1] < 0.9


def test_unknown_labels_and_missing_history(clinic_fit, clinics):
    with pytest.raises(bdtr.DataError, match="Column 'first' holds 'letter'"):
        bdtr.recommend(clinic_fit, clinics.head(3).assign(first="letter"))
    some = clinics.head(10).assign(m=np.nan)
    found = bdtr.recommend(clinic_fit, some)
    assert set(found.actions["stage"]) == {"first"}
    assert found.left_out.values.tolist() == [["second", "m missing", 10]]
    assert "Left out: stage second: 10 (m missing)." in repr(found)
    found = bdtr.recommend(clinic_fit, some.drop(columns="m"))
    assert found.left_out.values.tolist() == [["second", "columns absent: m", 10]]
    with pytest.raises(bdtr.DataError, match="no unit has a complete history"):
        bdtr.recommend(clinic_fit, some[["person", "clinic"]])


def test_no_action_when_refused_unless_there_is_a_reason(clinic_fit, clinics):
    refused = replace(clinic_fit, state=State("refused", ("R-hat up to 1.3 on value",)))
    with pytest.raises(bdtr.FitError, match="No action is recommended.*R-hat up to 1.3"):
        bdtr.recommend(refused, clinics)
    with pytest.raises(bdtr.FitError):
        bdtr.recommend(refused, clinics, override=" ")
    found = bdtr.recommend(refused, clinics.head(3), override="a demonstration")
    assert repr(found).startswith(
        "state: refused (sampling refused: R-hat up to 1.3 on value. model ok). Overridden: a demonstration"
    )
    assert repr(refused.summary()).startswith("state: refused")


def test_the_first_line_is_the_state(clinic_fit, clinics):
    found = bdtr.recommend(clinic_fit, clinics.head(3))
    assert repr(found).startswith(str(clinic_fit.state))
    assert str(clinic_fit.state) in found._repr_html_()[:200]


def test_where_no_action_stands_out_there_is_no_clear_choice(clinic_fit, clinics):
    found = bdtr.recommend(clinic_fit, clinics, clear=0.9)
    actions = found.actions
    unclear = actions["p_optimal"] < 0.9
    assert 0 < unclear.sum() < len(actions)
    assert (actions["decision"][unclear] == "no clear choice").all()
    assert (actions["decision"] == actions["action"].astype(object))[~unclear].all()
    assert (actions.loc[actions["choices"] == 1, "decision"] != "no clear choice").all()
    assert "No clear choice: P(optimal) below 0.9" in found.caption


def test_actions_within_a_margin_of_the_best(clinic_fit, clinics):
    """Held against the Q-values: at most the margin worse than the best with the stated probability."""
    found = bdtr.recommend(clinic_fit, clinics, margin=0.3, sure=0.6)
    q = backward_pass(clinic_fit).q_values(0, np.arange(480))
    close = (q.max(axis=0) - q <= 0.3).mean(axis=2)
    table = found.table[found.table["stage"] == "first"].pivot(
        index="unit", columns="action", values="p_within"
    )
    table = table.loc[clinics["person"]]
    assert np.allclose(table[["talk", "app"]].to_numpy().T, close)
    actions = (
        found.actions[found.actions["stage"] == "first"].set_index("unit").loc[clinics["person"]]
    )
    expected = [
        ", ".join(a for a, p in zip(("talk", "app"), row, strict=True) if p >= 0.6)
        for row in close.T
    ]
    named = actions["within_margin"].astype(str).to_numpy()
    assert [a or b for a, b in zip(expected, actions["action"], strict=True)] == named.tolist()
    assert {"talk, app"} < set(named)
    everything = bdtr.recommend(clinic_fit, clinics, margin=100.0).actions
    both = everything["choices"] == 2
    assert everything["within_margin"][both].astype(str).str.contains(", ").all()
    assert "p_within" not in bdtr.recommend(clinic_fit, clinics).table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"margin": -0.1}, "margin=-0.1: must be 0 or more, in units of the outcome"),
        ({"clear": 80}, "clear=80: must lie between 0 and 1"),
        ({"sure": 0}, "sure=0: must lie between 0 and 1"),
    ],
)
def test_thresholds_that_cannot_be(clinic_fit, clinics, arguments, message):
    with pytest.raises(ValueError, match=message):
        bdtr.recommend(clinic_fit, clinics, **arguments)


def test_sites_that_no_formula_has_change_nothing(clinics):
    """``site=`` is named, no term is by site: recommendations are those of the same trial without it."""
    rng = np.random.default_rng(1)
    x, a = rng.normal(size=200), rng.integers(0, 2, 200)
    y = x + a * (0.3 + x) + rng.normal(size=200)
    frame = pd.DataFrame({"site": [f"s{i % 5}" for i in range(200)], "x": x, "a": a, "y": y})
    actions = []
    for site in (None, "site"):
        trial = bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula="x * a")], "y", site=site)
        fit = bdtr.fit(trial, frame, sampler="direct", draws=250, random_seed=1, progress=False)
        actions.append(bdtr.recommend(fit, frame).actions["action"].astype(str).to_numpy())
    assert (actions[0] == actions[1]).mean() > 0.97
