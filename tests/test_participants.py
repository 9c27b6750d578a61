"""The flow of participants: every unit once at each stage, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import bdtr

GIVEN = {"sampler": "direct", "draws": 100, "random_seed": 1, "progress": False}
FATES = ["went_on", "left", "finished", "lost"]


@pytest.fixture(scope="module")
def trial_and_data():
    """Responders have no second decision; some leave before, some are lost in the end."""
    rng = np.random.default_rng(4)
    n = 400
    x, a1 = rng.normal(size=n), rng.choice(["app", "talk"], n).astype(object)
    responds, a2 = (
        rng.integers(0, 2, n).astype(float),
        rng.choice(["add", "stay"], n).astype(object),
    )
    frame = pd.DataFrame({"x": x, "a1": a1, "r": responds, "m": rng.normal(size=n), "a2": a2})
    frame["y"] = x + 0.3 * (a1 == "app") + rng.normal(size=n)
    frame.loc[frame["r"] == 1, "a2"] = None
    left = rng.choice(n, 40, replace=False)
    frame.loc[left, ["r", "m", "a2", "y"]] = None
    stayed = np.setdiff1d(np.arange(n), left)
    frame.loc[rng.choice(stayed, 20, replace=False), "y"] = np.nan
    frame.loc[rng.choice(stayed, 30, replace=False), "m"] = np.nan
    stages = [
        bdtr.Stage("a1", actions=["app", "talk"], formula="x * a1"),
        bdtr.Stage(
            "a2", actions=["add", "stay"], formula="x + a1 + m * a2", among="r == 0", outside="arm"
        ),
    ]
    return bdtr.Trial(stages, outcome="y"), frame, left


@pytest.mark.parametrize("missing", ["exclude", "impute"])
def test_the_counts_are_those_of_the_data_and_add_up(trial_and_data, missing):
    trial, frame, left = trial_and_data
    more = {"imputations": 4} if missing == "impute" else {}
    fit = bdtr.fit(trial, frame, missing=missing, **more, **GIVEN)
    found = bdtr.checks.participant_flow(fit)
    table = found.table
    assert (table.groupby("stage")["units"].sum() == len(frame)).all()
    assert (table[FATES].sum(axis=1) == table["units"]).all()
    app = frame["a1"] == "app"
    first = table.loc[("a1", "start", "app")]
    assert first["units"] == app.sum() and first["left"] == app.iloc[left].sum()
    assert first["went_on"] == (app & frame["a2"].notna()).sum()
    assert first["lost"] == (app & (frame["r"] == 1) & frame["y"].isna()).sum()
    second = table.loc[("a2", "app", "no decision")]
    assert second["units"] == (app & (frame["r"] == 1)).sum()
    gone = table.loc[("a2", "app", "left before")]
    assert gone["units"] == gone["lost"] == first["left"]
    took = app & (frame["a2"] == "stay")
    row = table.loc[("a2", "app", "stay")]
    assert row["units"] == took.sum() and row["lost"] == (took & frame["y"].isna()).sum()
    known = took & frame["y"].notna()
    if missing == "exclude":
        assert row["in_fit"] == (known & frame["m"].notna()).sum() and row["imputed"] == 0
        assert found.values.empty
    else:
        assert row["in_fit"] == known.sum()
        assert row["imputed"] == (known & frame["m"].isna()).sum()
        stay = frame["a2"].eq("stay") & frame["y"].notna() & frame["m"].isna()
        assert found.values.loc[("a2", "stay", "m"), "imputed"] == stay.sum()
        assert (
            first["in_fit"] == app.sum() and first["predicted"] == (app & frame["y"].isna()).sum()
        )


def test_exclusion_says_by_arm_whom_it_leaves_out_and_what_it_assumes(trial_and_data):
    trial, frame, _ = trial_and_data
    fit = bdtr.fit(trial, frame, missing="exclude", **GIVEN)
    note = next(n for n in fit.notes if n.startswith("stage a2") and "left out of the fit" in n)
    gone = frame["a2"].notna() & (frame["m"].isna() | frame["y"].isna())
    by_arm = gone.groupby(frame["a2"]).sum()
    assert f"{gone.sum()} units" in note and f"(add {by_arm['add']}, stay {by_arm['stay']})" in note
    assert "does not depend on the outcome" in note
    share = f"{100 * frame['y'].isna().mean():.0f} % of units without an outcome"
    assert share in fit.state.missing and share in str(fit.state)


def test_flow_counts_everyone_once(clinic_fit):
    table = bdtr.checks.participant_flow(clinic_fit).table
    data, names = clinic_fit.data, [d.action for d in clinic_fit.designs]
    assert (table.groupby("stage")["units"].sum() == len(data)).all()
    for name, stage in zip(names, data.stages, strict=True):
        own = table.loc[name].groupby("now").sum()
        for a, action in enumerate(stage.stage.actions):
            assert own.loc[action, "units"] == (stage.action == a).sum()
            assert own.loc[action, "in_fit"] == (stage.fitted & (stage.action == a)).sum()
    before = table.loc[names[1]].groupby("before")["units"].sum()
    assert before.to_dict() == table.loc[names[0]].groupby("now")["units"].sum().to_dict()


def test_attrition_is_the_share_without_an_outcome(trial_and_data):
    trial, frame, _ = trial_and_data
    for missing in ("exclude", "impute"):
        more = {"imputations": 4, "delta": {"y": 0.0}} if missing == "impute" else {}
        fit = bdtr.fit(trial, frame, missing=missing, **more, **GIVEN)
        table = bdtr.checks.attrition(fit).table
        gone = frame["y"].isna().groupby(frame["a1"]).mean()
        assert table.loc[("a1", "talk"), "attrition"] == pytest.approx(gone["talk"])
        apart = gone["talk"] - gone["app"]
        assert table.loc[("a1", "talk"), "differential"] == pytest.approx(apart)
        assert table.loc[("a1", "app"), "differential"] == 0.0
        assert table.loc[("a1", "all"), ["units", "lost"]].tolist() == [
            400,
            frame["y"].isna().sum(),
        ]


def test_classes_that_responders_have_none_of_are_not_imputed(trial_and_data):
    trial, frame, _ = trial_and_data
    classes = pd.Series([f"c{i % 20}" for i in range(len(frame))]).where(frame["r"] == 0)
    stages = [trial.stages[0], replace(trial.stages[1], delivered_in="class")]
    fit = bdtr.fit(
        bdtr.Trial(stages, outcome="y"),
        frame.assign(**{"class": classes}),
        missing="exclude",
        **GIVEN,
    )
    found = bdtr.checks.participant_flow(fit)
    assert found.table["imputed"].sum() == 0 and found.values.empty


def test_many_paths_are_drawn_by_arm():
    index = [("a1", "start", "a")] + [("a2", f"p{i}", f"n{i % 3}") for i in range(30)]
    names = ["stage", "before", "now"]
    columns = ["units", "off_protocol", *FATES, "in_fit", "imputed", "predicted"]
    table = pd.DataFrame(1, index=pd.MultiIndex.from_tuples(index, names=names), columns=columns)
    texts = [t.get_text() for t in bdtr.plots.participant_plot(table).axes[0].texts]
    assert "n0: 10" in texts
