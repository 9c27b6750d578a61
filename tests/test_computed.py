"""Stages that are computed from models of states: against simulation from the same draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import foldnorm, norm

import bdtr
from bdtr.backward.computed import ComputedDraws, ComputedQ
from bdtr.backward.nextstage import columns_of_next
from bdtr.backward.passes import policy_of
from bdtr.backward.statenodes import StateNodes
from bdtr.data.no_decision import has_decision
from bdtr.stages.quadrature import (
    Pieces,
    add_expected_lines,
    best_between,
    legendre,
    one_piece,
)
from bdtr.stages.states import StateQ

SIMULATED = 3_000
RULE = bdtr.rule(a1="0", a2="1 if y > 0.3 else 0")
AT = pd.DataFrame({"m": [-1.0, 0.3]})


def study(n: int = 300, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    m, a1, a2 = rng.normal(size=n), *rng.integers(0, 2, (2, n))
    site = rng.integers(0, 10, n)
    u = 0.4 * rng.normal(size=(10, 3))
    y = 0.5 * m + 0.6 * a1 * m + 0.2 * a1 + rng.normal(size=n) + u[site, 0] + u[site, 1] * a1
    well = (rng.random(n) < 1 / (1 + np.exp(-(0.3 + 0.5 * y)))).astype(int)
    visits = rng.poisson(np.exp(0.3 + 0.3 * a1))
    dose = np.exp(0.2 * m + 0.3 * a1 + 0.5 * rng.normal(size=n))
    grade = np.clip(np.round(1.5 + 0.5 * a1 + 0.5 * m + rng.normal(size=n)), 0, 3)
    gain = 0.6 + 0.8 * y - 0.3 * visits + 0.3 * dose - 0.3 * grade
    payoff = 0.3 * m + 0.2 * y + a2 * gain + 0.5 * well + rng.normal(size=n) + u[site, 2]
    return pd.DataFrame(
        {"m": m, "a1": a1, "y": y, "well": well, "visits": visits, "dose": dose, "grade": grade, "a2": a2,
         "payoff": payoff, "site": [f"s{i}" for i in site], "x": rng.normal(size=n) + m}
    )  # fmt: skip


def fitted(data, second, states, first="m * a1", later=None, draws=20, **trial) -> bdtr.Fit:
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula=first, **trial.pop("now", {})),
        bdtr.Stage("a2", actions=[0, 1], formula=second, **(later or {})),
    ]
    return bdtr.fit(
        bdtr.Trial(stages, outcome="payoff", states=states, **trial), data, sampler="direct", random_seed=1,
        progress=False, chains=4, draws=draws, propagated=4 * draws,
    )  # fmt: skip


def under(fit: bdtr.Fit, k: int, chosen, sites: str) -> ComputedQ:
    """The Q-function of a stage under a policy."""
    q = fit.q_function(k, sites=sites)
    assert isinstance(q, ComputedQ)
    draws = ComputedDraws(q.later.draws, policy_of(fit, chosen), q.draws.samples)
    found = fit.q_of(k, draws, sites)
    assert isinstance(found, ComputedQ)
    return found


def drawn(state: StateQ, frame: pd.DataFrame, arm: int, s: int, rng) -> np.ndarray:
    """Values of a state, under one draw of its model."""
    columns, count = state.columns(frame), len(frame)
    eta = state.predictor(columns)[:, [s]]
    variance = state.q.unknown_variance(columns)
    if variance is not None:
        own = variance[None] if variance.ndim == 1 else variance[0]
        eta = eta + np.sqrt(own[:, [s]]) * rng.normal(size=(count, 1))
    shape = state._shape(np.full(count, arm))
    shape = tuple(x[:, [s]] for x in shape) if isinstance(shape, tuple) else shape
    shape = shape[:, [s]] if isinstance(shape, np.ndarray) else shape
    m, payoff = state.trials(frame), state.payoff
    if state.family == "ordinal":
        payoff = replace(payoff, scores=tuple(range(len(payoff.scores))))
    return payoff.draw(rng, eta, shape, m[:, None])[:, 0] * m


def simulated(q: ComputedQ, frame: pd.DataFrame, draws=(0, 7)) -> tuple[np.ndarray, np.ndarray]:
    """Q-values (action, unit, draw) by simulation of what follows, and their Monte-Carlo errors."""
    rng, sign = np.random.default_rng(0), q.next.sign
    names = [c for c in dict.fromkeys([q.design.site, *q.design.formula.columns]) if c in frame]
    out = np.empty((2, len(q.design.arms), len(frame), len(draws)))
    for a, i, j in np.ndindex(out.shape[1:]):
        s = draws[j]
        own = pd.concat([frame[names].iloc[[i]]] * SIMULATED, ignore_index=True)
        own = q.design.acting(own, a)
        for factor in q._unknown:
            own[factor] = pd.Series([None] * SIMULATED, dtype="str")
        earned = 0.0
        for state in q.states:
            values, gone = drawn(state, own, a, s, rng), np.zeros(SIMULATED, dtype=bool)
            if state.outside is not None:
                gone = has_decision(q.next.stage, own) == 0
            if state.name == q.trial.stages[q.k].reward:
                earned = state.numbers(values)
            own[state.name] = state.as_column(values, gone)
        feasible, code, _ = q.next.taken(own)
        later = q.next.later.evaluate(columns_of_next(q.next.later, own))[:, :, s]
        if q.draws.policy.kind == "optimal":
            worth = sign * np.where(feasible.T, sign * later, -np.inf).max(axis=0)
        else:
            worth = later[code, np.arange(SIMULATED)]
        worth = worth + earned
        out[:, a, i, j] = worth.mean(), worth.std() / np.sqrt(SIMULATED)
    return out[0], out[1]


def agrees(fit: bdtr.Fit, frame=AT, chosen=None, sites="observed", k=0, closed=None) -> None:
    """Within 4.5 Monte-Carlo standard errors: some 300 numbers are compared in this file."""
    q = under(fit, k, chosen, sites)
    wanted, error = simulated(q, frame)
    columns = q.columns(frame)
    found = q.evaluate(columns)[:, :, [0, 7]]
    assert np.abs((found - wanted) / np.maximum(error, 1e-12)).max() < 4.5
    if closed is not None:
        assert all((tree.lines is not None) == closed for tree in columns.trees)


POLICIES = [None, "optimal", bdtr.static(a1=0, a2=1), RULE]


@pytest.fixture(scope="module")
def data():
    return study()


@pytest.mark.parametrize("bent", [False, True], ids=["closed form", "nodes"])
@pytest.mark.parametrize("chosen", POLICIES, ids=["recommended", "optimal", "static", "rule"])
def test_a_gaussian_state(data, chosen, bent):
    fit = fitted(data, "m + a1 + s(y, by=a2)" if bent else "m + a1 + y * a2", {"y": "m * a1"})
    agrees(fit, chosen=chosen, closed=not bent)


STATES = {
    "two": ("(y + well) * a2", {"y": "m * a1", "well": "y + a1"}, False),
    "count": (
        "(y + visits) * a2",
        {"visits": {"formula": "m * a1", "family": "poisson"}, "y": "m * a1 + visits"},
        True,
    ),
    "grade and dose": (
        "(grade + dose) * a2",
        {
            "grade": {"formula": "m * a1", "family": "ordinal"},
            "dose": {"formula": "m * a1 + grade", "family": "gamma"},
        },
        False,
    ),
    "times and tails": (
        "(dose + y) * a2",
        {
            "dose": {"formula": "m * a1", "family": "lognormal"},
            "y": {"formula": "m * a1 + dose", "family": "student_t"},
        },
        False,
    ),
    "overdispersed": (
        "visits * a2",
        {"visits": {"formula": "m * a1", "family": "negative_binomial"}},
        False,
    ),
    "two numbers": ("(y + x) * a2", {"x": "m + a1", "y": "m * a1 + x"}, True),
}


@pytest.mark.parametrize("which", STATES)
@pytest.mark.parametrize("chosen", [None, "optimal"], ids=["recommended", "optimal"])
def test_other_states_and_several(data, which, chosen):
    second, states, closed = STATES[which]
    agrees(fitted(data, f"m + a1 + {second}", states), chosen=chosen, closed=closed)


def test_where_less_is_better(data):
    fit = fitted(
        data, "m + a1 + (y + grade) * a2",
        {"y": "m * a1", "grade": {"formula": "m * a1", "family": "ordinal"}}, higher_is_better=False,
    )  # fmt: skip
    for chosen in (None, "optimal"):
        agrees(fit, chosen=chosen)


def test_many_numbers_by_quasi_random_nodes(data):
    rng = np.random.default_rng(5)
    frame = data.assign(
        **{
            f"z{i}": 0.3 * data.m + 0.2 * (i + 1) * data.a1 + rng.normal(size=len(data))
            for i in range(4)
        }
    )
    states = {f"z{i}": " + ".join(["m * a1", *(f"z{j}" for j in range(i))]) for i in range(4)}
    fit = fitted(frame, "m + a1 + (z0 + z1 + z2 + z3) * a2 + s(z3)", states)
    q = under(fit, 0, None, "observed")
    wanted, error = simulated(q, AT)
    found = q(AT)[:, :, [0, 7]]
    # Quasi-random points have an error of their own, some thousandths here.
    assert np.abs(found - wanted).max() < 4.5 * error.max() + 0.02
    assert q.columns(AT).trees[0].nodes == 2 * 256


@pytest.mark.parametrize("second", ["y", "well"])
def test_at_sites(data, second):
    states = {second: "m * a1 + (1 + a1 | site)"}
    fit = fitted(
        data, f"m + a1 + {second} * a2 + (1 + a2 | site)", states, "m * a1 + (1 + a1 | site)", site="site",
    )  # fmt: skip
    here = AT.assign(site=["s1", "s5"])
    for sites in ("observed", "typical", "average", "one new"):
        agrees(fit, here, sites=sites)
    agrees(fit, AT.assign(site=["elsewhere", "yonder"]), sites="new")
    elsewhere = bdtr.value(fit, population="new site").table
    assert (elsewhere["sd"] > bdtr.value(fit).table["sd"]).all()


def test_a_class_that_the_action_forms_is_not_known_yet(data):
    rng = np.random.default_rng(3)
    group = rng.integers(0, 30, len(data))
    frame = data.assign(group=[f"c{i}" for i in group], a1=group % 2)
    u = 0.6 * rng.normal(size=(30, 2))
    frame = frame.assign(y=frame.y + u[group, 0], payoff=frame.payoff + u[group, 1])
    for second, states in (("y", {"y": "m * a1"}), ("well", {"well": "m * a1"})):
        fit = fitted(frame, f"m + a1 + {second} * a2", states, now={"delivered_in": "group"})
        assert "(1 | group)" in fit.states[second].designs[0].formula.text
        assert "(1 | group)" in fit.designs[1].formula.text
        agrees(fit)


def test_those_who_have_no_decision(data):
    frame = data.assign(
        y=data.y.where(data.well == 0), a2=data.a2.astype(object).where(data.well == 0, None)
    )
    among = {"among": "well == 0"}
    fit = fitted(frame, "m + a1 + y * a2", {"well": "m * a1", "y": "m * a1"}, later=among)
    assert fit.designs[1].arms[-1] == "no decision"
    assert fit.coded_states["y"].outside is not None
    assert not any(
        "are left out" in note for note in fit.notes
    )  # they have no such state by design
    for chosen in (None, "optimal", bdtr.static(a1=0, a2=1)):
        agrees(fit, chosen=chosen)
    with pytest.raises(bdtr.DataError, match="Name 'well' before 'y'"):
        fitted(frame, "m + a1 + y * a2", {"y": "m * a1", "well": "m * a1"}, later=among)


CONDITIONS = {
    "among": ({"among": "y < 0.4"}, None),
    "feasible": ({"feasible": {"y < 0.4": [0, 1], "y >= 0.4": [1]}}, (0.4, np.inf)),
    "a narrow band": (
        {"feasible": {"y > 0.4 and y < 0.5": [1], "y <= 0.4 or y >= 0.5": [0, 1]}}, (0.4, 0.5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", CONDITIONS)
def test_conditions_on_a_state_cut_it(data, which):
    later, band = CONDITIONS[which]
    if band is None:
        frame = data.assign(a2=data.a2.astype(object).where(data.y < 0.4, None))
    else:
        frame = data.assign(a2=np.where((data.y > band[0]) & (data.y < band[1]), 1, data.a2))
    fit = fitted(frame, "m + a1 + y * a2", {"y": "m * a1"}, later=later)
    for chosen in (None, "optimal"):
        agrees(fit, chosen=chosen)


def test_rewards_have_models_too(data):
    states = {"dose": {"formula": "m * a1", "family": "gamma"}, "y": "m * a1"}
    fit = fitted(data, "m + a1 + y * a2", states, now={"reward": "dose"})
    q = under(fit, 0, None, "observed")
    assert [s.name for s in q._nodes.states] == ["y"]  # nothing depends on the reward
    agrees(fit, closed=True)
    fit = fitted(
        data, "m + a1 + (y + dose) * a2", {**states, "y": "m * a1 + dose"}, now={"reward": "dose"}
    )
    agrees(fit, closed=True)


def test_states_of_labels(data):
    frame = data.assign(
        well=np.where(data.well == 1, "yes", "no"),
        grade=pd.Categorical(np.array(["low", "mid", "high", "top"])[data.grade.astype(int)],
                             categories=["low", "mid", "high", "top"]),
    )  # fmt: skip
    states = {"well": "m * a1", "grade": {"formula": "m * a1 + well", "family": "ordinal"}}
    fit = fitted(frame, "m + a1 + (well + grade) * a2", states)
    assert fit.states["well"].family(0) == "bernoulli"
    for chosen in (None, bdtr.rule(a1="0", a2="1 if well == 'yes' else 0")):
        agrees(fit, chosen=chosen)
    with pytest.raises(bdtr.DataError, match="say family='ordinal'"):
        fitted(frame, "m + a1 + (well + grade) * a2", {**states, "grade": "m * a1"})


@pytest.fixture(scope="module")
def three():
    """Three stages, both earlier ones computed."""
    rng, n = np.random.default_rng(5), 250
    x1, b = rng.normal(size=n), rng.integers(0, 2, (3, n))
    x2 = 0.5 * x1 + 0.5 * b[0] * x1 + rng.normal(size=n)
    x3 = 0.4 * x2 - 0.5 * b[1] * x2 + 0.2 * x1 + rng.normal(size=n)
    payoff = b[2] * (0.2 + x3) + 0.3 * b[1] * x2 + 0.2 * x1 + rng.normal(size=n)
    frame = pd.DataFrame(
        {"x1": x1, "x2": x2, "x3": x3, "b1": b[0], "b2": b[1], "b3": b[2], "y": payoff}
    )
    stages = [
        bdtr.Stage("b1", actions=[0, 1], formula="x1 * b1"),
        bdtr.Stage("b2", actions=[0, 1], formula="b1 + x2 * b2"),  # x1 is known all the same
        bdtr.Stage("b3", actions=[0, 1], formula="x1 + x2 * b2 + b1 + x3 * b3"),
    ]
    states = {"x2": "x1 * b1", "x3": "x1 + x2 * b2 + b1"}
    trial = bdtr.Trial(stages, outcome="y", states=states)
    return bdtr.fit(
        trial,
        frame,
        sampler="direct",
        random_seed=1,
        progress=False,
        chains=4,
        draws=20,
        propagated=80,
    )


def test_one_computed_stage_after_another(three):
    agrees(three, pd.DataFrame({"x1": [-1.0, 0.3]}))
    labels = pd.Categorical(["0", "1"], categories=["0", "1"])
    agrees(
        three, pd.DataFrame({"x1": [-1.0, 0.3], "x2": [0.2, 0.5], "b1": labels}), k=1, closed=True
    )


def test_saved_and_read_again(three, tmp_path):
    at = pd.DataFrame({"x1": [-1.0, 0.3]})
    wanted = three.q_function(0)(at)
    regime = bdtr.static(b1=0, b2=1, b3=0)
    value = bdtr.value(three, regime).table["mean"].iloc[0]
    for data in (True, False):
        three.save(tmp_path / "three.nc", data=data)
        again = bdtr.load(tmp_path / "three.nc")
        assert np.array_equal(again.q_function(0)(at), wanted)
        assert again.state.sampling == three.state.sampling
        assert list(again.states) == ["x2", "x3"]
        assert again.summary().table.equals(three.summary().table)
    three.save(tmp_path / "three.nc")
    again = bdtr.load(tmp_path / "three.nc")
    assert bdtr.value(again, regime).table["mean"].iloc[0] == pytest.approx(value)


def test_what_is_shown(three):
    text = f"{three}"
    assert "computed from a model of x2" in text and "x2 ~ x1 * b1" in text
    assert "x2: b[x1]" in text
    assert ("b1", "x2: b[x1]") in three.summary().table.index
    assert "x3: b[x2]" in set(three.draws("b2")["parameter"])
    assert "x2: x1" in set(three.priors.loc[three.priors["stage"] == "b1", "parameter"])
    with pytest.raises(bdtr.FitError, match=r"fit.states\['x2'\]"):
        three.posterior(0)


# Pieces of integrals -----------------------------------------------------------------------------------


def test_nodes_say_what_the_closed_form_does(data, monkeypatch):
    """Cut where the rule turns, 22 nodes are right to five digits."""
    fit = fitted(data, "m + a1 + y * a2", {"y": "m * a1"})
    for chosen in POLICIES:
        q = under(fit, 0, chosen, "observed")
        wanted = q(AT)
        with monkeypatch.context() as other:
            other.setattr(StateNodes, "closed", lambda self, frame: False)
            found = replace(q)(AT)
        kink = 0.01 if chosen == "optimal" else 2e-4  # which lies elsewhere in each draw
        assert np.abs(found - wanted).max() < kink


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=2, max_size=5),
    st.floats(-2, 2),
    st.floats(0.1, 3),
)
def test_the_best_of_several_lines(lines, mean, sd):
    """Against quadrature on a fine grid."""
    level, slope = np.array(lines).T[..., None]
    everyone = np.ones((len(lines), 1), dtype=bool)
    low, high = np.full(1, -np.inf), np.full(1, np.inf)
    out = np.zeros((1, 1))
    for a, (left, right) in enumerate(best_between(level, slope, everyone, low, high)):
        ends = level[a][:, None], (level[a] + slope[a])[:, None]
        centre, spread = np.full((1, 1), mean), np.full((1, 1), sd)
        add_expected_lines(
            out, np.zeros(1, int), ends, (0.0, 1.0), centre, spread, left[:, None], right[:, None]
        )
    z = norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    best = (level + slope * (mean + sd * z)).max(axis=0)
    assert out[0, 0] == pytest.approx(best.mean(), abs=1e-3)


def test_two_lines_are_a_folded_normal():
    level, slope = np.array([[0.4], [-0.4]]), np.array([[2.0], [-2.0]])
    both, ends = np.ones((2, 1), dtype=bool), np.array([np.inf])
    out = np.zeros((1, 1))
    for a, (left, right) in enumerate(best_between(level, slope, both, -ends, ends)):
        one = level[a][:, None], (level[a] + slope[a])[:, None]
        at = np.full((1, 1), 0.3), np.full((1, 1), 0.7)
        add_expected_lines(
            out, np.zeros(1, int), one, (0.0, 1.0), *at, left[:, None], right[:, None]
        )
    assert out[0, 0] == pytest.approx(foldnorm(1.0 / 1.4, scale=1.4).mean(), rel=1e-12)


def test_pieces_add_up_to_the_whole():
    low, high = np.array([-4.0, 0.0]), np.array([4.0, 1.0])
    pieces = Pieces.cut(low, high, np.array([0, 0]), np.array([1.0, -2.0]))
    assert list(pieces.row) == [0, 0, 0, 1]
    row, place, weight = legendre(pieces, high - low, 22)
    whole = np.bincount(row, weight * norm.pdf(place))
    assert whole == pytest.approx(norm.cdf(high) - norm.cdf(low), abs=1e-7)
    row, place, weight = legendre(one_piece(low, high), high - low, 22)
    assert np.bincount(row, weight * norm.pdf(place)) == pytest.approx(whole, abs=1e-6)


# What a review found ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "companion"), [("poisson", "exposure"), ("binomial", "trials")])
def test_a_reward_of_several_months_or_trials_is_the_whole_count(data, family, companion):
    """And not the rate or the share."""
    model = {"formula": "m * a1", "family": family, companion: "months"}
    frame = data.assign(months=6.0 if family == "poisson" else 12.0)
    fit = fitted(
        frame, "m + a1 + y * a2", {"visits": model, "y": "m * a1"}, now={"reward": "visits"}
    )
    assert [s.name for s in under(fit, 0, None, "observed")._nodes.states] == ["y"]
    agrees(fit, AT.assign(months=frame["months"].iloc[0]))


OUTSIDE = {
    "far away": ("gaussian", lambda y: 99.0),
    "not possible": ("lognormal", lambda y: 0.0),
    "missing": ("lognormal", lambda y: np.nan),
    "categories": ("ordinal", lambda y: np.nan),
}


@pytest.mark.parametrize("which", OUTSIDE)
def test_whatever_stands_for_those_without_the_state(data, which):
    family, code = OUTSIDE[which]
    y = {"gaussian": data.y, "lognormal": np.exp(0.3 * data.y), "ordinal": 10 * (1 + data.grade)}[
        family
    ]
    frame = data.assign(
        y=y.where(data.well == 0, code(0)), a2=data.a2.astype(object).where(data.well == 0, None),
        payoff=data.payoff + 3.0 * data.well,
    )  # fmt: skip
    states = {"well": "m * a1", "y": {"formula": "m * a1", "family": family}}
    fit = fitted(frame, "m + a1 + y * a2", states, later={"among": "well == 0"}, draws=50)
    agrees(fit)
    both = bdtr.compare_ways(fit, bdtr.static(a1=1, a2=1)).values
    mean, sd = both["mean"], both["sd"]
    assert abs(mean.iloc[0] - mean.iloc[1]) < 1.5 * sd.iloc[0]


def test_quasi_random_nodes_of_those_without_the_state(data):
    rng = np.random.default_rng(9)
    z = {
        f"z{i}": (0.3 * data.m + 0.2 * (i + 1) * data.a1 + rng.normal(size=len(data))).where(
            data.well == 0
        )
        for i in range(4)
    }
    frame = data.assign(
        **z,
        a2=data.a2.astype(object).where(data.well == 0, None),
        payoff=data.payoff + 3.0 * data.well,
    )
    states = {"well": "m * a1", **dict.fromkeys(z, "m * a1")}
    fit = fitted(
        frame, "m + a1 + (z0 + z1 + z2) * a2 + s(z3)", states, later={"among": "well == 0"}
    )
    q = under(fit, 0, None, "observed")
    wanted, error = simulated(q, AT)
    assert np.abs(q(AT)[:, :, [0, 7]] - wanted).max() < 4.5 * error.max() + 0.03


@pytest.mark.parametrize("chosen", [None, bdtr.rule(a1="0", a2="1 if visits == 0 else 0")])
def test_skewed_counts(data, chosen):
    rng = np.random.default_rng(7)
    visits = rng.negative_binomial(0.3, 0.3 / (0.3 + np.exp(2.5 + 0.5 * data.a1)))
    frame = data.assign(
        visits=visits, payoff=0.3 * data.m + np.where(data.a2 == 1, 1 - 0.1 * visits, 0)
    )
    states = {"visits": {"formula": "a1", "family": "negative_binomial"}}
    fit = fitted(frame.assign(payoff=frame.payoff + 0.5 * data.y), "m + a1 + visits * a2", states)
    agrees(fit, chosen=chosen)


def test_a_rule_on_two_states_cuts_both(data):
    fit = fitted(data, "m + a1 + (y + x) * a2", {"x": "m + a1", "y": "m * a1"})
    agrees(fit, chosen=bdtr.rule(a1="0", a2="1 if y > 1 and x < 0 else 0"))


def test_a_reward_alone_has_a_model(data):
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="m * a1", reward="dose"),
        bdtr.Stage("a2", actions=[0, 1], formula="m + a1 * a2"),
    ]
    trial = bdtr.Trial(stages, outcome="payoff", states={"dose": "m * a1"})
    fit = bdtr.fit(
        trial, data, sampler="direct", draws=20, propagated=80, random_seed=1, progress=False
    )
    agrees(fit)


def test_too_many_values_are_an_error(data):
    rng = np.random.default_rng(1)
    counts = {f"n{i}": rng.poisson(30, len(data)) for i in range(3)}
    states = {name: {"formula": "a1", "family": "poisson"} for name in counts}
    with pytest.raises(bdtr.FitError, match="take more than 5,000 values"):
        fitted(data.assign(**counts), "m + a1 + (n0 + n1 + n2) * a2", states)


def test_the_report_has_the_models_of_states(data, tmp_path):
    fit = fitted(
        data.assign(id=range(len(data))), "m + a1 + s(y, by=a2)", {"y": "s(m, by=a1)"}, draws=50
    )
    with pytest.raises(bdtr.FitError, match="cross-fitting"):
        bdtr.crossfit(fit)
    bdtr.report(fit, tmp_path / "page.html", progress=False)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for text in (
        "It is computed (g-computation)", "y ~ s(m, by=a1)", "Model of state y in mathematics",
        "computed by g-computation from the models of y", "state y: direct sampler",
        "was not cross-fitted: stages are computed from states",
    ):  # fmt: skip
        assert text in page
    assert "state y" in bdtr.checks.predictive_checks(fit).table.index.get_level_values("stage")
    assert "state y" in bdtr.checks.residuals_along(fit).table.index.get_level_values("stage")
    assert "state y" in fit.summary().smooths.index.get_level_values("stage")
