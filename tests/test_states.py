"""Models of states as they are declared: what is taken, what is refused, and the file that holds them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bdtr
from bdtr.data.check import check
from bdtr.data.statedata import state_data, state_trial
from bdtr.trial.states import StateModel, computed_stages, states_of

FIRST = bdtr.Stage("a1", actions=[0, 1], formula="m * a1")
SECOND = bdtr.Stage("a2", actions=[0, 1], formula="m + a1 + y * a2")


def trial(states, stages=(FIRST, SECOND), **more) -> bdtr.Trial:
    return bdtr.Trial(list(stages), outcome="payoff", states=states, **more)


WRONG = [
    (["y"], "states must map columns"),
    ({"y": 3}, "must be a formula, or bdtr.trial.StateModel"),
    ({"y": ""}, "must be the right-hand side"),
    ({"y": "m +* a1"}, r"states\['y'\]"),
    (
        {"y": {"formula": "m", "famly": "poisson"}},
        "there is no 'famly'; allowed are formula, family",
    ),
    ({"y": {"family": "poisson"}}, "the formula is missing"),
    ({"y": {"formula": "m * a1", "family": "censored"}}, "allowed are 'gaussian'"),
    (
        {"y": {"formula": "m * a1", "trials": "n"}},
        "belongs to family='binomial' or 'beta_binomial'",
    ),
    (
        {"y": {"formula": "m * a1", "family": "binomial"}},
        "name the column with the number of trials",
    ),
    ({"y": {"formula": "m * a1", "priors": {"m": 3}}}, "must be a prior|is no prior|text"),
    ({"payoff": "m * a1"}, "is the outcome, and no state"),
    ({"a2": "m * a1"}, "is an action, and no state"),
    ({"m": "a1"}, "is known at the first decision"),
    ({"z": "m * a1"}, "no later stage tailors by 'z'"),
    ({"y": "y + a1"}, "names 'y', which is not known before it"),
    ({"y": "m * a1 + a2"}, "names 'a2', which is not known before it"),
    ({"y": "m"}, "does not name 'a1', the action that it follows. Add it, as in 'a1 [+] m'"),
]


@pytest.mark.parametrize(("states", "message"), WRONG, ids=[m[:25] for _, m in WRONG])
def test_what_is_refused(states, message):
    with pytest.raises(bdtr.TrialError, match=message) as found:
        trial(states)
    assert "\n" not in str(found.value)


def test_all_that_the_next_stage_goes_by_needs_a_model_or_is_known():
    second = bdtr.Stage("a2", actions=[0, 1], formula="m + w + a1 + y * a2", among="well == 0")
    states = {"y": "m * a1"}
    with pytest.raises(
        bdtr.TrialError, match=r"goes by 'w', which has no model .* name it in the formula"
    ):
        trial(states, (FIRST, second))
    first = bdtr.Stage("a1", actions=[0, 1], formula="m * a1 + w")
    with pytest.raises(bdtr.TrialError, match="goes by 'well'"):
        trial(states, (first, second))
    both = trial({"well": "m * a1", **states}, (first, second))
    assert states_of(both, 0) == ("well", "y")
    assert computed_stages(both) == {0} and not both.by_formula(0) and both.by_formula(1)
    # What a state's model names is known as well.
    assert trial({"y": "m * a1 + w", "well": "a1"}, (FIRST, second)).states is not None


@pytest.mark.parametrize(
    "given",
    [
        {"priors": {"m": bdtr.trial.Normal(0, 1)}}, {"weights": "w"}, {"shape": "linear"},
        {"residual": "common"},
    ],
)  # fmt: skip
def test_what_belongs_to_a_regression_is_not_dropped_in_silence(given):
    first = bdtr.Stage("a1", actions=[0, 1], formula="m * a1", **given)
    with pytest.raises(bdtr.TrialError, match=f"{next(iter(given))}: for a regression"):
        trial({"y": "m * a1"}, (first, SECOND))


def test_states_come_in_their_order():
    second = bdtr.Stage("a2", actions=[0, 1], formula="m + a1 + (y + z) * a2")
    assert trial({"z": "a1", "y": "z + a1"}, (FIRST, second)).states is not None
    with pytest.raises(bdtr.TrialError, match="in the order in which they come about"):
        trial({"y": "z + a1", "z": "a1"}, (FIRST, second))


def test_rewards_and_carried_payoffs():
    paid = bdtr.Stage("a1", actions=[0, 1], formula="m * a1", reward="r")
    with pytest.raises(bdtr.TrialError, match="has the reward 'r', which needs a model"):
        trial({"y": "m * a1"}, (paid, SECOND))
    assert states_of(trial({"y": "m * a1", "r": "a1"}, (paid, SECOND)), 0) == ("y", "r")
    carried = bdtr.Stage(
        "a2", actions=[0, 1], formula="m + a1 + y * a2", among="y < 1", outside="carry"
    )
    with pytest.raises(bdtr.TrialError, match="outside='carry' carries observed payoffs"):
        trial({"y": "m * a1"}, (FIRST, carried))


def test_a_file_holds_them():
    priors = {"a1[1]": bdtr.trial.Normal(0, 1)}
    one = trial({"y": StateModel("m * a1", "student_t", priors=priors, residual="common")})
    text = bdtr.trial.protocol_to_text(one)
    assert "[states.y]" in text and 'family = "student_t"' in text
    assert bdtr.trial.protocol_from_text(text).trial == one
    assert bdtr.Trial.from_dict(one.to_dict()) == one
    short = text.replace('[states.y]\nformula = "m * a1"', '[states.y]\nformula = "m * a1 +"')
    with pytest.raises(bdtr.TrialError, match=r"states\['y'\]"):
        bdtr.trial.protocol_from_text(short)


def frame(n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    m, a1, a2 = rng.normal(size=n), *rng.integers(0, 2, (2, n))
    y = m + a1 + rng.normal(size=n)
    return pd.DataFrame(
        {"m": m, "a1": a1, "y": y, "a2": a2, "c1": [f"c{i % 12}" for i in range(n)],
         "payoff": y * a2 + rng.normal(size=n), "k": rng.poisson(2, n)}
    )  # fmt: skip


def test_the_model_of_a_state_is_that_of_a_stage():
    """With delivery clusters, and with what earlier stages tailor by."""
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="m * a1", delivered_in="c1"),
        bdtr.Stage("a2", actions=[0, 1], formula="m + a1 + a2"),
        bdtr.Stage("a3", actions=[0, 1], formula="m + a1 + a2 + y * a3"),
    ]
    data = frame().assign(a3=lambda f: f.a2.to_numpy()[::-1])
    whole = trial({"y": "a2"}, stages)
    checked = check(whole, data)
    own = state_trial(checked, 1, "y")
    assert own.outcome == "y" and own.family == "gaussian" and own.stages[0].action == "a2"
    assert "(1 | c1)" in own.stages[0].formula and "a1:m" in own.stages[0].formula
    assert state_data(checked, 1, "y").stages[0].fitted.all()
    assert set(checked.stages[1].formula.columns) >= {"m", "a1", "a2", "c1"}


def test_families_by_values():
    second = bdtr.Stage("a2", actions=[0, 1], formula="m + a1 + (y + k) * a2")
    states = {"y": "m * a1", "k": {"formula": "a1", "family": "poisson"}}
    checked = check(trial(states, (FIRST, second)), frame().assign(y=lambda f: (f.y > 0) * 1))
    assert state_trial(checked, 0, "y").family == "bernoulli"
    assert state_trial(checked, 0, "k").family == "poisson"
    wrong = check(trial(states, (FIRST, second)), frame().assign(k=lambda f: f.k - 1.0))
    with pytest.raises(bdtr.DataError, match=r"states\['k'\]: .*whole numbers from 0 on"):
        state_data(wrong, 0, "k")


def test_labels_that_conditions_alone_name():
    second = bdtr.Stage("a2", actions=[0, 1], formula="m + a1 + y * a2", among="well == 'no'")
    data = frame().assign(well=lambda f: np.where(f.y > 1, "yes", "no"))
    data["a2"] = data.a2.astype(object).where(data.well == "no", None)
    checked = check(trial({"well": "m * a1", "y": "m * a1"}, (FIRST, second)), data)
    assert state_trial(checked, 0, "well").family == "bernoulli"
    assert state_data(checked, 0, "well").payoff.mean() == pytest.approx(
        (data.well == "yes").mean()
    )


def test_errors_name_the_state():
    with pytest.raises(bdtr.DataError, match=r"states\['y'\]: names 'nowhere'"):
        check(trial({"y": "m * a1 + nowhere"}), frame())
    wrong = {"y": StateModel("m * a1", priors={"other": bdtr.trial.Normal(0, 1)})}
    with pytest.raises(bdtr.trial.PriorError, match=r"states\['y'\]: .*'other'"):
        bdtr.fit(trial(wrong), frame(), sampler="direct", progress=False)
    second = bdtr.Stage("a2", actions=[0, 1], formula="m + a1 + log(k1) * a2")
    logs = frame().assign(k1=lambda f: 1.0 + f.k)
    with pytest.raises(
        bdtr.FitError, match="values that the models of k1 lead to.*gamma or lognormal"
    ):
        bdtr.fit(
            trial({"k1": "m * a1"}, (FIRST, second)), logs, sampler="direct", draws=50, propagated=100,
            progress=False,
        )  # fmt: skip


def test_who_is_left_out_of_a_model_is_counted():
    data = frame()
    data.loc[:9, "y"] = np.nan
    fit = bdtr.fit(
        trial({"y": "m * a1"}), data, missing="exclude", sampler="direct", draws=50, propagated=100,
        random_seed=1, progress=False,
    )  # fmt: skip
    assert any("state y: its model is fitted to 110 units; 10 are left out" in n for n in fit.notes)
    with pytest.raises(bdtr.DataError, match="not imputed where states have models"):
        bdtr.fit(trial({"y": "m * a1"}), data, missing="impute", progress=False)
    with pytest.raises(bdtr.FitError, match=r"cross-fitting: .*without states="):
        bdtr.crossfit(fit)
    with pytest.raises(bdtr.FitError, match="payoffs that are shifted"):
        bdtr.checks.confounded(fit, {"a2": {"1": 0.1}})
