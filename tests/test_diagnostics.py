"""The gate fails closed."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from bdtr.results.diagnostics import (
    State,
    convergence,
    doubt,
    enough,
    gate_decisions,
    gate_parameters,
    rhat_limit,
    worst,
)


def draws(**variables) -> xr.Dataset:
    dims = ("chain", "draw", "i", "j")
    return xr.Dataset({n: (dims[: v.ndim], v) for n, v in variables.items()})


def good(seed=0, *shape):
    return np.random.default_rng(seed).normal(size=(4, 500, *shape))


def test_independent_draws_pass():
    data = draws(b=good(0, 30))
    assert gate_parameters("stage a", convergence(data), 1.01, 2000).level == "ok"
    assert gate_decisions(data, 1.01).level == "ok"


def test_chains_that_differ():
    bad = good() + np.array([0, 0, 0, 1.0])[:, None]
    state = gate_parameters("stage a", convergence(draws(b=bad)), 1.01, 2000)
    assert state.level == "caution"
    assert "R-hat up to" in state.reasons[0]
    assert gate_decisions(draws(value=bad), 1.01).level == "refused"


def test_sticky_chains_have_few_effective_draws():
    steps = np.repeat(good()[:, :25], 20, axis=1)
    assert "ESS down to" in str(gate_parameters("s", convergence(draws(b=steps)), 1.1, 2000))
    assert gate_decisions(draws(value=steps), 1.1).level == "refused"


def test_divergences_are_a_reason_for_caution():
    table = convergence(draws(b=good()))
    assert gate_parameters("s", table, 1.01, 2000, divergences=3).reasons == (
        "s: 3 divergent transitions",
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_draws_that_are_not_finite_are_refused(value):
    bad = good()
    bad[1, 3] = value
    assert gate_decisions(draws(value=bad), 1.01).level == "refused"
    assert gate_parameters("s", convergence(draws(b=bad)), 1.01, 2000).level == "caution"


def test_constants_are_no_failure_to_converge():
    cor = np.ones((4, 500, 2, 2))
    cor[:, :, 0, 1] = cor[:, :, 1, 0] = np.tanh(good())
    cor[:, :, 0, 0] += 1e-16 * good()
    assert gate_parameters("s", convergence(draws(cor=cor)), 1.01, 2000).level == "ok"


def test_a_limit_that_independent_draws_of_short_chains_do_not_exceed():
    assert rhat_limit(4, 1000) == 1.01
    assert 1.01 < rhat_limit(4, 250) < 1.02
    table = convergence(draws(b=np.random.default_rng(1).normal(size=(4, 250, 3000))))
    assert (table["r_hat"] < rhat_limit(4, 250)).all()


def test_the_worst_state_wins_with_all_reasons():
    states = [State(), State("caution", ("a",)), State("refused", ("b",)), State("caution", ("a",))]
    assert worst(states) == State("refused", ("a", "b"))
    assert str(worst(states)) == "state: refused (sampling refused: a; b. model ok)"
    both = worst([*states, doubt("c"), doubt()])
    assert (both.level, both.sampling, both.model) == ("refused", "refused", "caution")
    assert both.reasons == ("a", "b", "c")
    assert both.lines == ("sampling refused: a; b", "model caution: c")
    assert worst([]) == State()


@pytest.mark.parametrize("count", [200, 240, 400, 500, 1000])
def test_independent_draws_pass_at_any_number(count):
    """A thousand quantities a fit: none of six fits fails at the number of draws there is."""
    rng = np.random.default_rng(count)
    chains, shape = 4, (4, count // 4, 1000)
    for _ in range(6):
        data = draws(q=rng.normal(size=shape))
        limit = rhat_limit(chains, count // 4)
        assert gate_decisions(data, limit).level == "ok"
        assert gate_parameters("s", convergence(data), limit, count).level == "ok"


@pytest.mark.parametrize("count", [200, 400, 1000])
def test_planted_faults_never_pass(count):
    """A chain that is shifted by an SD; autocorrelation .9 in twenty quantities; too few draws."""
    rng = np.random.default_rng(count)
    limit, shape = rhat_limit(4, count // 4), (4, count // 4, 20)
    for _ in range(10):
        shifted, slow = rng.normal(size=shape), rng.normal(size=shape)
        shifted[3] += 1.0
        for i in range(1, shape[1]):
            slow[:, i] = 0.9 * slow[:, i - 1] + np.sqrt(1 - 0.81) * slow[:, i]
        for bad in (shifted, slow):
            state = gate_decisions(draws(q=bad), limit)
            assert state.level == "refused"
            assert "raise propagated=" in state.reasons[-1]
    assert enough(99).level == "refused" and enough(100).level == "ok"


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
