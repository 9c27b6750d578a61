"""The gate fails closed."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from bdtr.diagnostics import State, convergence, gate_decisions, gate_parameters, rhat_limit, worst


def draws(**variables) -> xr.Dataset:
    dims = ("chain", "draw", "i", "j")
    return xr.Dataset({n: (dims[: v.ndim], v) for n, v in variables.items()})


def good(seed=0, *shape):
    return np.random.default_rng(seed).normal(size=(4, 500, *shape))


def test_independent_draws_pass():
    data = draws(b=good(0, 30))
    assert gate_parameters("stage a", convergence(data), 1.01).level == "ok"
    assert gate_decisions(data, 1.01).level == "ok"


def test_chains_that_differ():
    bad = good() + np.array([0, 0, 0, 1.0])[:, None]
    state = gate_parameters("stage a", convergence(draws(b=bad)), 1.01)
    assert state.level == "caution"
    assert "R-hat up to" in state.reasons[0]
    assert gate_decisions(draws(value=bad), 1.01).level == "refused"


def test_sticky_chains_have_few_effective_draws():
    steps = np.repeat(good()[:, :25], 20, axis=1)
    assert "ESS down to" in str(gate_parameters("s", convergence(draws(b=steps)), 1.1))
    assert gate_decisions(draws(value=steps), 1.1).level == "refused"


def test_divergences_are_a_reason_for_caution():
    table = convergence(draws(b=good()))
    assert gate_parameters("s", table, 1.01, divergences=3).reasons == (
        "s: 3 divergent transitions",
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_draws_that_are_not_finite_are_refused(value):
    bad = good()
    bad[1, 3] = value
    assert gate_decisions(draws(value=bad), 1.01).level == "refused"
    assert gate_parameters("s", convergence(draws(b=bad)), 1.01).level == "caution"


def test_constants_are_no_failure_to_converge():
    cor = np.ones((4, 500, 2, 2))
    cor[:, :, 0, 1] = cor[:, :, 1, 0] = np.tanh(good())
    cor[:, :, 0, 0] += 1e-16 * good()
    assert gate_parameters("s", convergence(draws(cor=cor)), 1.01).level == "ok"


def test_a_limit_that_independent_draws_of_short_chains_do_not_exceed():
    assert rhat_limit(4, 1000) == 1.01
    assert 1.01 < rhat_limit(4, 250) < 1.02
    table = convergence(draws(b=np.random.default_rng(1).normal(size=(4, 250, 3000))))
    assert (table["r_hat"] < rhat_limit(4, 250)).all()


def test_the_worst_state_wins_with_all_reasons():
    states = [State(), State("caution", ("a",)), State("refused", ("b",)), State("caution", ("a",))]
    assert worst(states) == State("refused", ("a", "b"))
    assert str(worst(states)) == "state: refused (a; b)"
    assert worst([]) == State()


def test_an_action_that_nobody_took_where_it_is_feasible_is_refused():
    import pandas as pd

    import bdtr

    rng = np.random.default_rng(0)
    resp = rng.integers(0, 2, 300)
    a = np.where(resp == 1, rng.choice(["p", "q"], 300), rng.choice(["q", "z"], 300))
    frame = pd.DataFrame({"resp": resp, "a": a, "y": rng.normal(size=300)})
    feasible = {"resp == 1": ["p", "q"], "resp == 0": ["q", "z", "p"]}
    stage = bdtr.Stage("a", actions=["p", "q", "z"], feasible=feasible, formula="resp + a")
    options = {"sampler": "direct", "random_seed": 1, "progress": False}
    fit = bdtr.fit(bdtr.Trial([stage], outcome="y"), frame, **options)
    assert fit.state.level == "refused"
    assert "nobody in the fit took 'p' where resp == 0" in str(fit.state)
