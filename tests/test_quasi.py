"""Quasi-likelihood on a link scale: fixed points, the spread about them, and stages that use it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from test_marginal import design

import bdtr
from bdtr.backward.passes import backward_pass, stage_model
from bdtr.engine.coefficients.exact import exact_draws
from bdtr.engine.crossproducts import cross_products, response_products, weighted
from bdtr.engine.density.elimination import relative_factors
from bdtr.engine.layout import layout
from bdtr.engine.quasi import Link, QuasiModel, first_guess, settle, tangent, working
from bdtr.stages.coded_priors import parameters
from bdtr.trial.families import FAMILIES
from bdtr.trial.payoff import Payoff

COUNT = 24
KINDS = [("none", 1), ("correlated", 2), ("classes of two grades", 3), ("crossed", 1)]


def predictor(rows, factors, b, u):
    eta, at = rows.x @ b, 0
    for factor, z, code in zip(factors, rows.z, rows.codes, strict=True):
        own = u[at : at + factor.levels * factor.terms].reshape(-1, factor.terms)
        eta, at = eta + (z * own[code]).sum(axis=1), at + own.size
    return eta


def prepared(kind, strata, bounded):
    """A design, responses that differ, and their fixed points."""
    rows, factors, priors = design(kind, 300, strata, weighted=kind == "correlated")
    params, where, link = (
        parameters(factors, priors, strata),
        layout(factors, rows.codes),
        Link(bounded),
    )
    rng = np.random.default_rng(8)
    b = np.array([-1.0, 0.5, -0.4])[:, None] + 0.25 * rng.normal(size=(3, COUNT))
    u = 0.4 * rng.normal(size=(where.effects, COUNT))
    eta = np.column_stack([predictor(rows, factors, b[:, s], u[:, s]) for s in range(COUNT)])
    y = link.mean(eta + 0.5 * rng.normal(size=eta.shape))
    start = first_guess(link, y.mean(axis=1))
    model = QuasiModel(rows, where, link, params)
    at = tangent(model, y[:, :8], start, float(start.mean()))
    blocks = [(slice(0, 120), [y[:120]]), (slice(120, 300), [y[120:]])]
    (found,) = settle(model, at, start, lambda: blocks, [None])
    return rows, factors, model, y, at, blocks, found


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize(("kind", "strata"), KINDS)
def test_fixed_points_maximise_the_quasi_likelihood(kind, strata, bounded):
    """Against a general optimiser of the penalised quasi-likelihood at the same phi."""
    rows, factors, model, y, at, _, found = prepared(kind, strata, bounded)
    params, where = model.params, model.where
    assert found.change.max() < 1e-3
    sigma = np.exp(at.phi[0])
    ratios = np.concatenate([[0.0], at.phi[len(at.phi) - strata + 1 :]])
    stratum = np.zeros(len(y), int) if rows.stratum is None else rows.stratum
    known = np.ones(len(y)) if rows.weight is None else rows.weight
    weight = known / (sigma * np.exp(ratios[stratum])) ** 2
    roots = relative_factors(at.phi, params.terms, params.correlated) * sigma
    p = params.precision.size

    def against(theta, s):
        b, v = theta[:p], theta[p:]
        u, first = [], 0
        for f, factor in enumerate(factors):
            own = v[first : first + factor.levels * factor.terms].reshape(-1, factor.terms)
            first += own.size
            u.append((own @ roots[f, : factor.terms, : factor.terms].T).ravel())
        u = np.concatenate([*u, []])
        eta = at.location + predictor(rows, factors, b, u)
        fit = y[:, s] * eta - (np.logaddexp(0, eta) if bounded else np.exp(eta))
        prior = params.precision * (b - params.mean) ** 2
        return (-(weight * fit).sum() + 0.5 * prior.sum() + 0.5 * (v**2).sum()), eta

    for s in (0, COUNT - 1):
        start = np.zeros(p + where.effects)
        best = minimize(
            lambda theta, s=s: against(theta, s)[0], start, method="BFGS", options={"gtol": 1e-7}
        )
        eta = against(best.x, s)[1]
        mine = at.location + predictor(rows, factors, found.coefficients[:, s], found.effects[:, s])
        assert np.abs(mine - eta).max() < 2e-3


def test_spread_with_common_weights_is_that_with_own():
    """SDs of coefficients given phi: weights are common to all responses, and right on average."""
    rows, factors, model, y, at, blocks, found = prepared("correlated", 2, True)
    params, where, link = model.params, model.where, model.link
    here = [(found.coefficients, found.effects)]
    t = np.concatenate([v[0] for _, v in working(model, at, here, lambda: blocks)])
    seed, phi = np.random.SeedSequence(1), np.repeat(at.phi[None], 4000, axis=0)
    which = np.zeros(4000, dtype=np.int64)
    ratios, off = [], []
    for s in range(COUNT):
        eta = at.location + predictor(rows, factors, found.coefficients[:, s], found.effects[:, s])
        sds, means = [], []
        for weight in (at.weight, link.slope(link.mean(eta))):
            own = weighted(rows, weight)
            response = t[:, s] if weight is at.weight else eta + (y[:, s] - link.mean(eta)) / weight
            made = response_products(own, where, response[:, None] - at.location)
            products = cross_products(own, where)
            rest = made.without(products, params.mean)
            draws = exact_draws(products, rest, params, phi, which, seed)[0]
            sds.append(draws.std(axis=0)), means.append(draws.mean(axis=0))
        ratios.append(sds[0] / sds[1])
        off.append((means[0] - means[1]) / sds[1])
    assert np.abs(np.mean(ratios, axis=0) - 1).max() < 0.05
    assert np.abs(off).max() < 0.05


def test_responses_far_from_the_others_settle_too():
    """Weights of the others would make their steps run away: they get their own."""
    rows, _, model, y, at, _, _ = prepared("correlated", 1, True)
    far = expit(np.log(y / (1 - y)) + np.where(np.arange(COUNT) % 6 == 0, 4.0, 0.0))
    start = first_guess(model.link, y.mean(axis=1))
    blocks = [(slice(0, 300), [far])]
    (found,) = settle(model, at, start, lambda: blocks, [None])
    assert found.change.max() < 1e-3
    mean = expit(at.location + predictor_of_all(rows, model.where, found))
    assert np.abs(mean.mean(axis=0) - far.mean(axis=0)).max() < 0.01


def test_responses_next_to_a_bound_settle():
    """Of few units, values from 1e-12 to 1 - 1e-12: the prior keeps coefficients where they are."""
    rows, factors, priors = design("correlated", 60)
    params, where = parameters(factors, priors), layout(factors, rows.codes)
    rng = np.random.default_rng(5)
    eta = rows.x @ np.array([[-4.0], [9.0], [-7.0]]) * rng.uniform(0.3, 1.5, COUNT)
    model = QuasiModel(rows, where, Link(True), params)
    y = expit(eta + rng.normal(size=eta.shape))
    start = first_guess(model.link, y.mean(axis=1))
    at = tangent(model, y[:, :8], start, float(start.mean()))
    (found,) = settle(model, at, start, lambda: [(slice(0, 60), [y])], [None])
    assert found.change.max() < 1e-3
    mean = expit(at.location + predictor_of_all(rows, where, found))
    assert np.abs(mean.mean(axis=0) - y.mean(axis=0)).max() < 0.03


def predictor_of_all(rows, where, found):
    return np.column_stack(
        [
            predictor(rows, where.factors, found.coefficients[:, s], found.effects[:, s])
            for s in range(found.coefficients.shape[1])
        ]
    )


def test_logistic_is_not_the_only_link():
    link = Link(False)
    assert np.allclose(link.linear(link.mean(np.array([0.3, -2.0]))), [0.3, -2.0])
    assert np.allclose(link.slope(np.array([2.0])), 2.0)


TRIALS = {
    "bernoulli": {},
    "poisson": {"exposure": "m"},
    "ordinal": {"utility": {"no": 1.0, "some": 2.0, "full": 5.0}},
}


def smart(family):
    """Two stages, 20 clinics, a mediator, an outcome of the family."""
    rng = np.random.default_rng(5)
    clinic = np.repeat(np.arange(20), 15)
    n = len(clinic)
    x, a1, a2 = rng.normal(size=n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    s = 0.8 * x + 0.5 * a1 + rng.normal(size=n)
    eta = -2.0 + x + 0.6 * s + a2 * (0.5 * s) + 0.5 * rng.normal(size=20)[clinic]
    frame = pd.DataFrame(
        {"clinic": [f"c{j:02d}" for j in clinic], "x": x, "a1": a1, "s": s, "a2": a2}
    )
    frame["m"] = rng.uniform(0.5, 2.0, n)
    if family == "bernoulli":
        frame["y"] = (rng.random(n) < expit(eta)) * 1
    elif family == "poisson":
        frame["y"] = rng.poisson(frame["m"] * np.exp(eta))
    else:
        cut = np.digitize(eta + rng.logistic(size=n), [0.0, 1.5])
        frame["y"] = np.array(["no", "some", "full"])[cut]
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="x * a1 + (1 + a1 | clinic)"),
        bdtr.Stage("a2", actions=[0, 1], formula="x + a1 + s * a2 + (1 + a1 | clinic)"),
    ]
    trial = bdtr.Trial(stages, outcome="y", site="clinic", family=family, **TRIALS[family])
    return trial, frame


@pytest.fixture(scope="module", params=list(TRIALS))
def fitted(request):
    trial, frame = smart(request.param)
    return bdtr.fit(
        trial, frame, sampler="direct", draws=100, propagated=400, random_seed=3, progress=False
    )


REGIMES = [bdtr.static(a1=a, a2=b) for a in (0, 1) for b in (0, 1)]


def test_q_values_and_values_keep_to_their_bounds(fitted):
    """At every stage, site and new site; and mean Q-values of stage 1 are those of the values of stage 2."""
    low, high = fitted.trial.payoff.bounds
    units = np.arange(len(fitted.data))
    for chosen in (None, REGIMES[3], "optimal"):
        done = backward_pass(fitted, chosen)
        for k in (0, 1):
            q = done.q_values(k, units)
            assert (q >= low).all() and (q <= high).all()
        arm = fitted.data.stages[0].action
        value = np.concatenate([v for _, v in done.responses(0, units)])
        q = done.q_values(0, units)[arm, units]
        for a in (0, 1):  # the canonical link: fitted means are those of the responses
            apart = q[arm == a].mean(axis=0) - value[arm == a].mean(axis=0)
            assert abs(apart.mean()) < 0.01 * value.mean()
    for population in ("sample", "new site", "sites"):
        draws = bdtr.value(fitted, *REGIMES, population=population).draws["value"]
        assert (draws > low).all() and (draws < high).all()
    assert not any("outside the bounds" in reason for reason in fitted.state.reasons)


def test_saved_and_loaded_it_goes_on_alike(fitted, tmp_path):
    """Further passes of a fit from a file are those of the fit: weights are kept."""
    path = tmp_path / "fit.nc"
    fitted.save(path)
    again = bdtr.load(path)
    model, other = stage_model(fitted, 0), stage_model(again, 0)
    assert np.allclose(model.rows.weight, other.rows.weight)
    assert model.priors == other.priors
    one, two = (bdtr.value(f, *REGIMES).draws["value"] for f in (fitted, again))
    assert np.allclose(one, two, atol=1e-12)


def test_what_is_said_of_earlier_stages(fitted):
    names = {"bernoulli": "quasibinomial", "poisson": "quasipoisson", "ordinal": "quasibinomial"}
    assert fitted.family(0) == names[fitted.trial.family]
    assert fitted.payoff(0).bounds == fitted.trial.payoff.bounds
    assert f"({names[fitted.trial.family]}, {fitted.payoff(0).family.link} link)" in repr(fitted)


@pytest.mark.parametrize("family", FAMILIES)
def test_replicates_of_values_keep_to_bounds(family):
    """Their mean and SD are those of the quasi-likelihood."""
    scores = (1.0, 2.0, 5.0) if family == "ordinal" else ()
    payoff = Payoff(FAMILIES[family], scores).propagated()
    eta = np.full((200_000, 1), -0.7)
    drawn = payoff.draw(np.random.default_rng(1), eta, np.array([0.4]), np.ones((1, 1)))
    mean = payoff.mean(eta[:1])[0, 0]
    assert abs(drawn.mean() - mean) < 0.01
    if payoff.family.link == "identity":
        assert drawn.std() == pytest.approx(0.4, rel=0.01)
        return
    low, high = payoff.bounds
    assert ((drawn >= low) & (drawn <= high)).all()
    share = expit(-0.7)
    slope = (high - low) * share * (1 - share) if np.isfinite(high) else mean
    assert drawn.std() == pytest.approx(0.4 * slope, rel=0.02)
