"""Slice chains: the right posterior also where residuals all but vanish, as for stage values that later
models make of the columns of an earlier stage."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats as st
from test_direct import _system
from test_marginal import design

import bdtr
from bdtr.engine import direct
from bdtr.engine.crossproducts import Rows
from bdtr.engine.direct import draw_each, draw_posterior
from bdtr.engine.layout import Factor
from bdtr.trial.priors import GroupPrior, HalfNormal, HalfStudentT, Normal, StagePriors

SITES, PER = 20, 15


def exact_responses(count=200):
    """Site effects and nothing else, of sizes from .03 to 3; SDs of a slope and of two arms at zero."""
    rng = np.random.default_rng(5)
    codes = np.repeat(np.arange(SITES), PER)
    x, arm = rng.normal(size=len(codes)), np.arange(len(codes)) % 2
    u = np.geomspace(0.03, 3.0, count) * rng.normal(size=(SITES, count))
    rows = Rows(x[:, None], (np.c_[np.ones_like(x), x],), (codes,), arm, 2)
    priors = StagePriors(
        (Normal(0, 1),),
        {"g": GroupPrior((HalfStudentT(3, 1.0), HalfNormal(1.0)), None)},
        HalfStudentT(3, 1.0),
        {},
    )
    return _system(rows, [Factor("g", SITES, 2, False)], priors, u[codes]), u


@pytest.mark.parametrize("by", ["independence", "slices"])
def test_group_sds_of_exact_responses_follow_the_closed_form(by, monkeypatch):
    """p(tau | u) is proportional to p(tau) tau^-20 exp(-sum u^2 / (2 tau^2)); sigma is at its floor."""
    system, u = exact_responses()
    if by == "slices":
        monkeypatch.setattr(direct, "_LUCK", 1.1)  # independence chains are never good enough
    drawn = draw_each(*system, np.random.SeedSequence(2))
    assert getattr(drawn.report, by) == 200
    if by == "slices":
        assert drawn.report.sweeps <= 20
        assert drawn.report.ranks > 1e-3
    tau = np.exp(drawn.phi[:, 0]) * np.abs(drawn.phi[:, 1])
    uniform = []
    for own, squares in zip(tau, np.square(u).sum(axis=0), strict=True):
        grid = np.sqrt(squares / SITES) * np.linspace(0.2, 8.0, 4000)
        log = st.t.logpdf(grid, 3) - SITES * np.log(grid) - squares / (2 * grid**2)
        cdf = np.cumsum(np.exp(log - log.max()))
        uniform.append(np.interp(own, grid, cdf / cdf[-1]))
    assert st.kstest(uniform, "uniform").pvalue > 1e-3
    # Site effects are reproduced to the digits that the floor leaves.
    effects = drawn.effects.reshape(len(tau), SITES, 2)[:, :, 0]
    assert np.abs(effects - u.T).max() < 1e-3


@pytest.mark.parametrize("kind", ["intercepts", "uncorrelated", "classes of two grades"])
def test_slice_chains_have_the_posterior_of_independence_chains(kind, monkeypatch):
    rows, factors, priors = design(kind, rows=90, strata=2, weighted=True)
    y = np.random.default_rng(7).normal(size=(90, 1))
    y += np.random.default_rng(8).normal(size=5)[rows.codes[0]][:, None]
    system = _system(rows, factors, priors, y)
    reference = draw_posterior(*system, 4, 2000, np.random.SeedSequence(1))
    assert reference.report.independence
    monkeypatch.setattr(direct, "posterior_chains", lambda *_: None)
    found = draw_posterior(*system, 4, 2000, np.random.SeedSequence(2))
    assert found.report.slices == 8000
    params = system[2]
    one, other = params.folded(found.phi)[::8], params.folded(reference.phi)[::8]
    for i in range(params.size):
        assert st.ks_2samp(one[:, i], other[:, i]).pvalue > 1e-4, i


@pytest.mark.parametrize("seed", [0, 2])
def test_a_payoff_that_columns_of_an_earlier_stage_make_is_no_reason_for_caution(seed):
    """The effect of a2 is the same for all, so that stage 1 sees a function of its own columns."""
    rng = np.random.default_rng(seed)
    site, x = np.arange(300) % 15, rng.normal(size=300)
    a1, a2 = rng.integers(0, 2, (2, 300))
    y = 0.3 * x + 0.2 * a1 + 0.3 * a2 + 0.4 * rng.normal(size=15)[site] + rng.normal(size=300)
    frame = pd.DataFrame({"g": site.astype(str), "x": x, "a1": a1, "a2": a2, "y": y})
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="x * a1 + (1 + a1 | g)"),
        bdtr.Stage("a2", actions=[0, 1], formula="x * a1 + x * a2 + (1 + a1 | g)"),
    ]
    fit = bdtr.fit(
        bdtr.Trial(stages, outcome="y", site="g"), frame, sampler="direct", draws=500,
        random_seed=seed, progress=False,
    )  # fmt: skip
    assert not [reason for reason in fit.state.reasons if "slice chains" in reason]
