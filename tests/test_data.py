"""Data held against a trial: every kind of bad input raises one clear error before any sampling."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

import bdtr
from bdtr.data.check import check
from bdtr.data.contents import DataError
from bdtr.trial.condition import ConditionError
from bdtr.trial.formula import FormulaError


def small(rows: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "id": [f"p{i}" for i in range(rows)],
            "site": [f"s{i % 4}" for i in range(rows)],
            "x": rng.normal(size=rows),
            "a": ["r" if i // 4 % 2 == 0 else "s" for i in range(rows)],
            "b": ["r" if i % 8 in (0, 3, 5, 6) else "s" for i in range(rows)],
            "y": rng.normal(size=rows),
        }
    )


def trial(**changes) -> bdtr.Trial:
    first = bdtr.Stage("a", actions=["r", "s"], formula="x * a + (1 | site)")
    feasible = {"a == 'r'": ["r", "s"], "a == 's'": ["r", "s"]}
    second = {"actions": ["r", "s"], "formula": "x + a * b", "feasible": feasible, **changes}
    return bdtr.Trial([first, bdtr.Stage("b", **second)], outcome="y", unit="id", site="site")


def change(**columns):
    def apply(frame: pd.DataFrame) -> pd.DataFrame:
        for name, (rows, value) in columns.items():
            frame[name] = frame[name].astype(object)
            frame.loc[rows, name] = value
            if not isinstance(value, str) and name in ("x", "y"):
                frame[name] = frame[name].astype(float)
        return frame

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change(a=([3, 5], None)), r"stage a: a missing for 2 units \('p3', 'p5'\)"),
        (change(a=([3], "t")), r"Column 'a' holds 't', in 1 rows \(row 3.*known are 'r', 's'"),
        (change(id=([4], "p1")), r"Unit column 'id' holds 'p1' more than once.*one row per unit"),
        (change(id=([4], None)), "Unit column 'id' is missing"),
        (change(y=([7], np.inf)), "Column 'y' is infinite in 1 rows"),
        (change(x=([7], -np.inf)), "Column 'x' is infinite"),
        (
            lambda f: f.assign(y=f["y"].astype(str)),
            "Column 'y' holds numbers kept as text, such as",
        ),
        (change(site=([2], None)), "site missing for 1 units"),
        (change(x=([2], np.nan)), "x missing for 1 units"),
        (change(y=([2], np.nan)), "stage b: y missing for 1 units"),
        (lambda f: f.drop(columns="x"), "names 'x', which the data do not have"),
        (lambda f: f.drop(columns="y"), "the trial names the columns 'y', which are absent"),
        (lambda f: f.assign(b="r"), "only one action is observed in the fit, 'r'"),
        (lambda f: f.iloc[:0], "no rows"),
        (lambda f: f.rename(columns={"x": "y"}), "appear twice"),
        (lambda f: f.to_dict(), "must be a pandas data frame"),
    ],
)
def test_bad_data_raise_before_any_sampling(spoil, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((DataError, FormulaError), match=message):
        bdtr.fit(trial(), spoil(small()), random_seed=1, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"formula": "x + zz + b"}, FormulaError, "names 'zz', which the data do not have"),
        ({"formula": "x + eval(b)"}, FormulaError, r"calls eval\(...\), which is not allowed"),
        ({"formula": "x"}, DataError, "does not name the action"),
        ({"formula": "b + y"}, DataError, "not yet known"),
        (
            {"formula": "b + (1 | klass)", "delivered_in": "klass"},
            DataError,
            "name it in one of them",
        ),
        ({"feasible": {"zz == 1": ["r"]}}, ConditionError, "names 'zz'"),
        ({"feasible": {"a == 'r'": ["r", "s"]}}, DataError, "20 units meet no condition"),
        (
            {"feasible": {"a == 'r'": ["r", "s"], "a in ['r', 's']": ["r", "s"]}},
            DataError,
            "20 units meet more than one condition",
        ),
        (
            {"feasible": {"a == 'r'": ["r"], "a == 's'": ["r", "s"]}},
            DataError,
            "b not feasible for 10 units",
        ),
        ({"among": "a == 'r'", "feasible": None}, DataError, "20 units outside among"),
    ],
)
def test_a_trial_that_does_not_fit_the_data(changes, error, message):
    with pytest.raises(error, match=message):
        bdtr.fit(trial(**changes), small().assign(klass="k"), random_seed=1, progress=False)


def test_later_actions_are_not_history():
    first = bdtr.Stage("a", actions=["r", "s"], formula="b + a")
    second = bdtr.Stage("b", actions=["r", "s"], formula="a * b")
    with pytest.raises(DataError, match="names 'b', which is not yet known"):
        check(bdtr.Trial([first, second], outcome="y"), small())


def test_a_missing_payoff_cannot_be_carried_through():
    frame = change(b=(np.flatnonzero(small()["a"] == "r"), None), y=([2], np.nan))(small())
    changes = {"among": "a == 's'", "feasible": None, "formula": "x + b"}
    with pytest.raises(DataError, match="1 units outside among.*no payoff to carry through"):
        check(trial(**changes, outside="carry"), frame, missing="exclude")
    assert check(trial(**changes), frame, missing="exclude").trial.stages[1].outside == "arm"


def test_bernoulli_outcomes_are_zero_or_one():
    stage = bdtr.Stage("a", actions=["r", "s"], formula="x * a")
    with pytest.raises(DataError, match="bernoulli family takes 0 and 1"):
        check(bdtr.Trial([stage], outcome="y", family="bernoulli"), small())


def test_exclusions_are_counted_at_the_first_reason():
    frame = change(b=([0, 1], None), x=([1, 2], np.nan), y=([0, 1, 2, 3], np.nan))(small())
    data = check(trial(), frame, missing="exclude")
    flow = data.flow[data.flow["stage"] == "b"].set_index("step")["units"].to_dict()
    assert flow == {"units": 40, "b missing": 2, "x missing": 1, "y missing": 1, "in the fit": 36}
    # Who left stage b keeps a place at stage a through the predicted stage value.
    first = data.flow[data.flow["stage"] == "a"].set_index("step")["units"].to_dict()
    assert first == {"units": 40, "x missing": 2, "in the fit": 38}


def test_star_flow(star):
    data = check(bdtr.datasets.star_trial(), star, missing="exclude", off_protocol="exclude")
    flow = data.flow[data.flow["stage"] == "a2"].set_index("step")["units"]
    assert flow["a2 missing"] == 1809
    assert flow["not eligible: school_1 == school"] == 188
    assert flow["a2 not feasible"] == 320
    assert flow["units"] - flow.iloc[1:4].sum() == 4008
    for stage, table in data.flow.groupby("stage"):
        counts = table["units"].to_numpy()
        assert counts[0] - counts[1:-1].sum() == counts[-1], stage


def test_actions_keep_the_users_order_and_categories_theirs():
    frame = small().assign(a=lambda f: pd.Categorical(f["a"], categories=["s", "r"]))
    stage = bdtr.Stage("a", formula="x * a")
    assert check(bdtr.Trial([stage], outcome="y"), frame).trial.stages[0].actions == ("s", "r")
    stage = bdtr.Stage("a", actions=["r", "s"], formula="x * a")
    assert check(bdtr.Trial([stage], outcome="y"), frame).stages[0].action[0] == 0
    with pytest.raises(DataError, match="actions is missing"):
        check(bdtr.Trial([bdtr.Stage("a", formula="a")], outcome="y"), small())


@pytest.mark.parametrize("kind", [int, float, str, "category", bool])
def test_doses_are_categories_whatever_their_type(kind):
    frame = small().assign(a=lambda f: (f["a"] == "s").astype(int).astype(kind))
    if kind is str:
        frame["a"] = frame["a"].str[0]
    stage = bdtr.Stage("a", actions=[1, 0], formula="x * a")
    data = check(bdtr.Trial([stage], outcome="y"), frame)
    assert data.stages[0].action.tolist() == (small()["a"] == "r").astype(int).tolist()


def test_ids_and_sites_that_look_like_numbers_stay_apart():
    frame = small().assign(id=lambda f: ["007", "07", *f["id"][2:]], site=["NA", "None"] * 20)
    data = check(trial(), frame)
    assert data.units[:2].tolist() == ["007", "07"]
    assert set(data.frame["site"]) == {"NA", "None"}


@given(st.data())
def test_flow_adds_up_whatever_is_missing(data):
    frame = small(20)
    for name in ("a", "b", "x", "y", "site"):
        gone = data.draw(st.lists(st.integers(0, 19), max_size=6), label=name)
        frame = change(**{name: (gone, np.nan if name in ("x", "y") else None)})(frame)
    try:
        checked = check(trial(), frame, missing="exclude")
    except DataError as error:
        said = ("no unit is left", "only one action", "a payoff and no action", "one row each")
        assert any(words in str(error) for words in said)
        return
    for stage in checked.stages:
        table = checked.flow[checked.flow["stage"] == stage.stage.action]["units"].to_numpy()
        assert table[0] - table[1:-1].sum() == table[-1] == stage.fitted.sum()
        assert not (stage.fitted & ~stage.history).any()


def test_long_numeric_ids_keep_every_digit():
    frame = small().assign(id=1_000_000 + np.arange(40), site=1_234_560 + np.arange(40) % 4)
    data = check(trial(), frame)
    assert data.units[3] == "1000003"
    assert data.frame["site"].nunique() == 4
    frame = frame.assign(moved=frame["site"] + (np.arange(40) < 10))
    kept = check(trial(eligible="moved == site"), frame)
    assert kept.flow.set_index("step")["units"]["not eligible: moved == site"] == 10


def test_who_may_or_may_not_have_a_decision_is_left_out_of_earlier_fits():
    frame = small().assign(resp=lambda f: (f["x"] > 0).astype(float))
    frame.loc[frame["resp"] == 1, "b"] = None
    unknown = np.flatnonzero(frame["resp"] == 0)[:2]
    frame.loc[unknown, "resp"] = np.nan
    changes = {"among": "resp == 0", "feasible": None, "formula": "x + b"}
    data = check(trial(**changes), frame, missing="exclude")
    assert not data.stages[0].fitted[unknown].any()


def test_a_missing_reward_is_not_carried_through():
    frame = small().assign(resp=lambda f: (f["b"] == "s").astype(int), r=1.0)
    frame.loc[frame["resp"] == 1, ["b", "r"]] = None
    frame.loc[5, "b"] = "s"
    frame.loc[5, "resp"] = 0
    changes = {"among": "resp == 0", "feasible": None, "formula": "x + b", "reward": "r"}
    changes["outside"] = "carry"
    with pytest.raises(DataError, match="'r' is missing.*Where nothing was earned, say 0"):
        check(trial(**changes), frame, missing="exclude")


def test_leavers_can_be_outside_by_design():
    frame = small().assign(stayed=1)
    frame["y"] = frame["y"].where(frame.index > 3)
    frame["b"] = frame["b"].where(frame.index > 3, None)
    frame["stayed"] = (frame.index > 3).astype(int)
    data = check(trial(eligible="stayed == 1"), frame)
    flow = data.flow[data.flow["stage"] == "b"].set_index("step")["units"]
    assert flow["not eligible: stayed == 1"] == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"feasible": {"y > 0": ["r", "s"], "y <= 0": ["r", "s"]}},
        {"among": "b == 'r'", "feasible": None},
        {"formula": "b + r", "reward": "r"},
    ],
)
def test_conditions_and_formulas_name_only_what_is_known(changes):
    with pytest.raises(DataError, match="not yet known at this stage"):
        check(trial(**changes), small().assign(r=0.0))


def test_numbers_kept_as_objects_are_numbers():
    frame = small().assign(x=lambda f: f["x"].astype(object))
    assert "x" in check(trial(), frame).coding.numbers


@pytest.mark.parametrize("name", ["chain", "term", "draw"])
def test_factors_named_like_dimensions_are_refused(name):
    stage = bdtr.Stage("a", actions=["r", "s"], formula=f"a + (1 | {name})")
    with pytest.raises(DataError, match="Rename the column"):
        check(bdtr.Trial([stage], outcome="y"), small().assign(**{name: [1, 2] * 20}))


def test_grouping_factors_that_are_numbers():
    frame = small().assign(wave=np.arange(40) % 5)
    stage = bdtr.Stage("a", actions=["r", "s"], formula="a + (1 | wave)", eligible="wave >= 1")
    data = check(bdtr.Trial([stage], outcome="y"), frame)
    assert data.stages[0].fitted.sum() == 32


def decided(**second):
    """Second decisions for those with r of "no"; s is High or Low."""
    rng = np.random.default_rng(3)
    a1, a2 = rng.integers(0, 2, (2, 200))
    s, r = (
        np.where(rng.random(200) < 0.5, "High", "Low"),
        np.where(rng.random(200) < 0.4, "yes", "no"),
    )
    number = np.where(r == "yes", "1.0", "0.0")
    frame = pd.DataFrame(
        {"a1": a1, "s": s, "r": r, "number": number, "a2": a2, "y": rng.normal(size=200)}
    )
    if "among" in second:
        frame["a2"] = np.where(r == "yes", np.nan, a2)
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="a1"),
        bdtr.Stage("a2", actions=[0, 1], formula="a1 + s * a2", **second),
    ]
    return check(bdtr.Trial(stages, outcome="y"), frame, missing="exclude")


@pytest.mark.parametrize(
    ("second", "existing"),
    [
        ({"among": "r != 'Yes'"}, "'yes'"),
        ({"among": "r != 'yes '"}, "'yes'"),
        ({"among": "number != 1"}, "'1.0'"),
        ({"eligible": "s != 'high'"}, "'High'"),
        ({"feasible": {"s == 'HIGH'": [0], "s != 'HIGH'": [0, 1]}}, "'High'"),
        ({"feasible": {"s in ['High', 'low']": [0, 1], "s == 'Low'": [0]}}, "'Low'"),
    ],
)
def test_labels_that_occur_nowhere_are_errors_that_name_those_there_are(second, existing):
    with pytest.raises(ValueError, match=existing):
        decided(**second)
    assert decided(among="r != 'yes'").stages[1].among.sum() < 200
