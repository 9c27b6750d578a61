"""Smooth terms: their basis against definitions, their posterior against dense arithmetic, where they are
added.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from agreement import check_same
from hypothesis import given, settings, strategies as st
from scipy.interpolate import CubicSpline

import bdtr
from bdtr.data.contents import DataError
from bdtr.data.smooths import smooth_design
from bdtr.trial.formula import Formula, FormulaError, SmoothTerm
from bdtr.trial.priors import HalfNormal, HalfStudentT


def frame(n=300, seed=1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    arm = pd.Categorical(rng.choice(["low", "high"], n), categories=["low", "high"])
    return pd.DataFrame(
        {"x": rng.normal(40, 12, n), "z": rng.gamma(2, 1, n), "w": rng.normal(size=n), "a": arm}
    )


# The basis ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variables", [("x",), ("x", "z"), ("x", "z", "w")])
def test_bends_are_no_lines_and_have_size_one(variables):
    rows = frame()
    found = smooth_design(SmoothTerm(variables), rows, "here").matrix(rows)
    lines = np.column_stack([np.ones(len(rows)), rows[list(variables)]])
    assert np.abs(lines.T @ found).max() < 1e-8 * len(rows)
    assert np.square(found).sum(axis=1).mean() == pytest.approx(1.0)
    size = np.square(found).mean(axis=0)
    assert (np.diff(size) <= 0).all()


def test_in_one_variable_it_is_a_natural_cubic_spline():
    """With all bends kept, those of functions through any values at the knots."""
    rows = frame(9)
    smooth = smooth_design(SmoothTerm(("x",), None, 9), rows, "here")
    assert smooth.bends == 7
    at, y = np.sort(rows["x"].to_numpy()), np.random.default_rng(2).normal(size=9)
    spline = CubicSpline(at, y, bc_type="natural")
    knots = np.column_stack([np.ones(9), at, smooth.basis(at[:, None])])
    b = np.linalg.solve(knots, y)
    between = np.linspace(at[0], at[-1], 50)
    made = np.column_stack([np.ones(50), between, smooth.basis(between[:, None])]) @ b
    assert made == pytest.approx(spline(between), abs=1e-8)


@pytest.mark.parametrize("variables", [("x",), ("x", "z"), ("x", "z", "w")])
def test_beyond_the_data_it_goes_on_as_a_line(variables):
    rows = frame()
    smooth = smooth_design(SmoothTerm(variables), rows, "here")
    edge = rows[list(variables)].max().to_numpy()
    step = np.array([3.0, 1.0, 0.5])[: len(variables)]
    found = smooth.basis(np.array([edge + t * step for t in (-1e-6, 0, 1, 2, 3)]))
    slope = found[2:] - found[1:-1]
    assert slope == pytest.approx(np.tile(slope[0], (3, 1)), abs=1e-9)
    assert (found[1] - found[0]) / 1e-6 == pytest.approx(slope[0], abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(shift=st.floats(-1e6, 1e6), scale=st.floats(1e-3, 1e3))
def test_units_do_not_matter(shift, scale):
    rows = frame()
    other = rows.assign(x=shift + scale * rows["x"])
    one = smooth_design(SmoothTerm(("x",)), rows, "here").matrix(rows)
    two = smooth_design(SmoothTerm(("x",)), other, "here").matrix(other)
    assert two == pytest.approx(one, abs=1e-4)


def test_each_label_has_a_bend_of_its_own():
    rows = frame()
    alone = smooth_design(SmoothTerm(("x",)), rows, "here").matrix(rows)
    smooth = smooth_design(SmoothTerm(("x",), "a"), rows, "here")
    assert smooth.curves == ("a[low]", "a[high]")
    low, high = smooth.matrices(rows)
    assert np.array_equal(low, alone * (rows["a"] == "low").to_numpy()[:, None])
    assert np.array_equal(low + high, alone)
    times = smooth_design(SmoothTerm(("x",), "w"), rows, "here").matrix(rows)
    expected = alone * rows["w"].to_numpy()[:, None]
    assert times == pytest.approx(expected * np.linalg.norm(times) / np.linalg.norm(expected))


def test_the_unit_of_a_number_that_a_curve_is_multiplied_by_does_not_matter():
    rows = frame()
    one, two = (
        smooth_design(SmoothTerm(("x",), "w"), rows.assign(w=scale * rows["w"]), "here").matrix(
            rows.assign(w=scale * rows["w"])
        )
        for scale in (1.0, 1000.0)
    )
    assert two == pytest.approx(one)
    assert np.square(one).sum(axis=1).mean() == pytest.approx(1.0)


def test_two_values_are_nothing_to_bend_over():
    rows = frame().assign(x=lambda d: (d["x"] > 40) * 1.0)
    with pytest.raises(
        DataError, match=r"Stage\('a'\): s\(x, by=a\) needs 'x' to have three.*x \* a"
    ):
        smooth_design(SmoothTerm(("x",), "a"), rows, "Stage('a')")


def test_few_values_have_few_bends():
    rows = frame().assign(x=lambda d: np.digitize(d["x"], [30, 50]) * 1.0)
    assert smooth_design(SmoothTerm(("x",)), rows, "here").bends == 1


# The grammar ----------------------------------------------------------------------------------------


def test_a_smooth_term_is_its_line_and_its_name():
    found = Formula.parse("z + s(x, by = a) + (1 | site)")
    assert found.common == "z + x * a"
    assert [s.name for s in found.smooths] == ["s(x, by=a)"]
    assert found.columns == ("z", "x", "a", "site")
    assert Formula.parse("s(x, z, by=a, k=12)").common == "(x + z) * a"
    assert Formula.parse("s + a").smooths == ()  # a column may have that name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s(x) * a", "not multiplied"),
        ("a:s(x)", "stands by itself"),
        ("(1 + s(x) | site)", "stands by itself"),
        ("x - s(x)", "added with +"),
        ("s(log(x))", "takes columns"),
        ("s(x, df=4)", "one to four columns"),
        ("s(x, k=200)", "from 3 to 50"),
        ("s(x, k=two)", "from 3 to 50"),
        ("s(x, z, k=3)", "must be 4 or more"),
        ("s(x, x)", "twice"),
        ("s(x, by=x)", "twice"),
        ("s(x) + s(x, k=5)", "write one of them"),
        ("s(x, y, z, w, v)", "one to four columns"),
        ("s()", "takes columns"),
        ("s(x", "takes columns"),
    ],
)
def test_what_cannot_be_read(text, said):
    with pytest.raises(FormulaError, match="(?s)" + said.replace("+", r"\+")):
        Formula.parse(text)


# In a trial -----------------------------------------------------------------------------------------


def folded(seed: int, n: int = 600) -> pd.DataFrame:
    """V = |m|, m = 1.5 x a1 + noise: the value of stage 2 is a folded normal mean (case 10)."""
    rng = np.random.default_rng(seed)
    x, a1, a2 = rng.normal(size=n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    m = 1.5 * x * a1 + 0.6 * rng.normal(size=n)
    y = (2 * a2 - 1) * m + 0.45 * (a1 == 0) + rng.normal(size=n)
    return pd.DataFrame({"x": x, "a1": a1, "m": m, "a2": a2, "y": y})


def two_stages(first="x * a1", **more) -> bdtr.Trial:
    one = bdtr.Stage("a1", actions=[0, 1], formula=first, **more)
    return bdtr.Trial([one, bdtr.Stage("a2", actions=[0, 1], formula="a1 + m * a2")], outcome="y")


def fitted(trial, data, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bdtr.fit(
            trial, data, sampler="direct", draws=250, random_seed=1, progress=False, **more
        )


@pytest.fixture(scope="module")
def bent():
    return fitted(two_stages(), folded(1))


def test_default_smooth_terms_find_the_bend(bent):
    """The linear model says P(optimal) > .9 of four units in five, and half of that is wrong."""
    from scipy.stats import foldnorm

    x = bent.data.frame["x"].to_numpy()
    value = foldnorm(np.abs(1.5 * x) / 0.6, scale=0.6).mean()
    best = value > 0.6 * np.sqrt(2 / np.pi) + 0.45
    q = bent.q_function(0)(bent.data.frame)
    p = (q[1] > q[0]).mean(axis=1)
    sure = np.maximum(p, 1 - p) > 0.9
    assert sure.mean() > 0.7
    assert ((p > 0.5) == best)[sure].mean() > 0.95
    assert not any("goes with" in reason for reason in bent.state.reasons)


def test_what_was_added_is_said(bent):
    assert bent.designs[0].formula.text == "x * a1 + s(x, by=a1)"
    assert any("s(x, by=a1) added" in note and 'shape="linear"' in note for note in bent.added)
    line, curve = bent.summary().smooths.xs("s(x, by=a1)", level="term")["edf"]
    assert 1 <= line < 2.5 < curve <= 7  # the value under a1 = 0 does not depend on x
    assert "effective degrees of freedom" in repr(bent)
    assert "effective degrees of freedom" in bent._repr_html_()
    assert {"sd(s(x, by=a1))[a1[0]]", "sd(s(x, by=a1))[a1[1]]"} <= {*bent.priors["parameter"]}


def test_where_smooth_terms_are_added():
    data = folded(1).assign(
        u=lambda d: d["x"] > 0, z=lambda d: d["x"] ** 2, w=lambda d: d["m"] * d["x"]
    )

    def terms(*given, **more):
        return [s.name for s in fitted(two_stages(*given, **more), data).designs[0].formula.smooths]

    assert terms(shape="linear") == []
    assert terms("x + a1") == []  # what the action does not meet
    assert terms("u * a1") == []  # two values
    assert terms("bs(x, df=4) * a1") == terms("(x + I(x**2)) * a1") == []  # the user has bent it
    assert terms("s(x, by=a1, k=5)") == ["s(x, by=a1, k=5)"]
    assert terms("(x + z) * a1") == ["s(x, z, by=a1)"]
    assert terms("(x + z + w) * a1") == ["s(x, by=a1)", "s(z, by=a1)", "s(w, by=a1)"]
    last = fitted(
        bdtr.Trial(
            [bdtr.Stage("a1", actions=[0, 1], formula="x * a1", shape="smooth")], outcome="y"
        ),
        data,
    )
    assert [s.name for s in last.designs[0].formula.smooths] == ["s(x, by=a1)"]


def test_direct_effects_of_smooth_terms_are_known_later():
    """A stage that the user bends has direct effects that bend at the next."""
    fit = fitted(two_stages("s(x, by=a1)"), folded(1))
    assert [s.name for s in fit.designs[1].smooths] == ["s(x, by=a1)"]
    assert any(note.startswith("stage a2: x, a1[1]:x, s(x, by=a1) added") for note in fit.added)


def test_a_curve_that_is_known_is_not_added_again():
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="s(x, by=a1)"),
        bdtr.Stage("a2", actions=[0, 1], formula="s(x, by=a1, k=5) + m * a2"),
    ]
    fit = fitted(bdtr.Trial(stages, outcome="y"), folded(1))
    assert [s.name for s in fit.designs[1].smooths] == ["s(x, by=a1, k=5)"]


def test_many_numbers_stay_straight():
    data = folded(1, 200)
    extra = {f"v{j}": np.random.default_rng(j).normal(size=200) for j in range(5)}
    fit = fitted(two_stages(f"({' + '.join(extra)}) * a1"), data.assign(**extra))
    assert not fit.designs[0].smooths
    assert any("stay straight lines" in note for note in fit.notes)


def test_posterior_given_sds_is_that_of_dense_arithmetic(bent):
    """Coefficients and bends of the last stage, from the normal equations at each draw of the SDs."""
    trial = bdtr.Trial([bdtr.Stage("a2", actions=[0, 1], formula="s(m, by=a2) + x")], outcome="y")
    data = folded(2, 200)
    fit = fitted(trial, data)
    model, posterior = fit.model(0), fit.posterior(0)
    x = np.hstack([model.rows.x, *model.rows.z])
    rest, total = 0, 0.0
    for d in range(0, 250, 10):
        here = posterior.isel(chain=0, draw=d)
        sd = np.repeat(here["sd_s(m, by=a2)"].to_numpy(), model.design.smooths[0].bends)
        sigma = (
            here["sigma"].to_numpy()[model.rows.stratum]
            if model.by_action
            else float(here["sigma"])
        )
        prior = np.r_[[p.sigma * model.spread for p in model.engine_priors.coefficients], sd]
        mean = np.r_[[p.mu * model.spread for p in model.engine_priors.coefficients], 0 * sd]
        y = fit.data.payoff - model.location
        precision = (x / np.square(sigma * np.ones(len(x)))[:, None]).T @ x + np.diag(prior**-2)
        right = (x / np.square(sigma * np.ones(len(x)))[:, None]).T @ y + mean / prior**2
        centre = np.linalg.solve(precision, right)
        b = (
            model.design.measure.back @ here["b"].to_numpy()
            - model.location * model.design.constant
        )
        own = np.r_[b, here["u_s(m, by=a2)"].to_numpy().ravel()] - centre
        total += own @ precision @ own
        rest += len(own)
    # Squared distances are chi-squared.
    assert abs(total - rest) < 5 * np.sqrt(2 * rest)


def test_predictions_are_those_of_the_posterior(bent):
    """Q-values from b and bends as the posterior has them."""
    posterior, design = bent.posterior(0), bent.designs[0]
    rows = bent.data.frame.iloc[:5]
    acted = design.acting(rows, 1)
    b = posterior["b"].stack(sample=("chain", "draw")).to_numpy()
    u = posterior["u_s(x, by=a1)"].stack(sample=("chain", "draw")).to_numpy()
    written = design.written(acted, np.zeros(5, int)) @ b
    expected = written + np.einsum("ij,js->is", design.smooths[0].matrices(acted)[1], u[1])
    assert bent.q_function(0)(rows)[1] == pytest.approx(expected, abs=1e-9)


def test_the_plain_model_agrees():
    """PyMC's model of every parameter has the posterior of the engine."""
    stage = bdtr.Stage("a2", actions=[0, 1], formula="s(m, by=a2) + x")
    trial, data = bdtr.Trial([stage], outcome="y"), folded(3, 200)
    plain = bdtr.fit(trial, data, sampler="plain", draws=500, random_seed=1, progress=False)
    exact = bdtr.fit(trial, data, sampler="direct", draws=2000, random_seed=1, progress=False)
    one, two = (f.posterior(0) for f in (plain, exact))
    assert one["u_s(m, by=a2)"].dims == two["u_s(m, by=a2)"].dims
    names = ["b", "sd_s(m, by=a2)", "u_s(m, by=a2)", "sigma"]
    check_same(one[names], two[names])


def test_saved_and_loaded(bent, tmp_path):
    bent.save(tmp_path / "fit.nc")
    again = bdtr.load(tmp_path / "fit.nc")
    rows = bent.data.frame.iloc[:20]
    assert np.array_equal(again.q_function(0)(rows), bent.q_function(0)(rows))
    assert again.added == bent.added
    pd.testing.assert_frame_equal(again.summary().smooths, bent.summary().smooths)


def test_priors_of_bends():
    own = {"sd(s(x, by=a1))[a1[1]]": HalfNormal(2.0)}
    stage = bdtr.Stage("a1", actions=[0, 1], formula="s(x, by=a1)", priors=own)
    fit = fitted(bdtr.Trial([stage], outcome="y"), folded(1))
    first, second = fit.model(0).priors.groups["s(x, by=a1)"].sd
    assert first == HalfStudentT(3.0, 0.03 * fit.data.payoff.std(ddof=1))
    assert second == HalfNormal(2.0)


def test_a_shape_that_is_none():
    with pytest.raises(bdtr.TrialError, match="shape"):
        bdtr.Stage("a", actions=[0, 1], formula="a", shape="wiggly")
