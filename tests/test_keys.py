"""What is named after labels, rules and columns keeps apart what is different."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bdtr
from bdtr.columns import Columns
from bdtr.groupdesign import factor_labels
from bdtr.passes import pass_key

HOW = {"sampler": "direct", "draws": 250, "propagated": 500, "random_seed": 1, "progress": False}
ODD = ["ref", "a/b", "a|b", "a;b: c", "a%2Fb", "if x", "a[b]", "b]:z", "T.a", "it's", 'say "no"']


def frame(n=330):
    rng = np.random.default_rng(0)
    x, a1 = rng.normal(size=n), rng.integers(0, 2, n)
    k = np.arange(n) % len(ODD)
    y = 0.4 * x + 0.2 * a1 + 3.0 * k + rng.normal(size=n)
    return pd.DataFrame({"x": x, "a1": a1, "a2": np.array(ODD, dtype=object)[k], "y": y})


@pytest.fixture(scope="module")
def odd():
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="x + a1"),
        bdtr.Stage("a2", actions=ODD, formula="x * a2 + a1"),
    ]
    return bdtr.fit(bdtr.Trial(stages, outcome="y"), frame(), **HOW)


def test_values_of_regimes_with_odd_labels_do_not_depend_on_each_other(odd, tmp_path):
    regimes = [bdtr.static(a1=0, a2=label) for label in ODD]
    one_by_one = [bdtr.value(odd, r).table["mean"].iloc[0] for r in regimes]
    # The same stage-2 draws: payoffs are three units apart.
    assert np.all(np.diff(one_by_one) > 1.5)
    odd.save(tmp_path / "fit.nc")
    loaded = bdtr.load(tmp_path / "fit.nc")
    for regime, expected in zip(regimes, one_by_one, strict=True):
        assert bdtr.value(loaded, regime).table["mean"].iloc[0] == pytest.approx(
            expected, abs=1e-12
        )


def test_terms_of_odd_labels_are_named_once_each_and_know_their_parts(odd):
    design = odd.designs[1]
    assert len(set(design.terms)) == len(design.terms) == 2 * len(ODD) + 1
    for label in ODD[1:]:
        at = design.columns.names.index(f"x:a2[{label}]")
        assert design.columns.parts[at] == ("x", f"a2[{label}]")
    assert bdtr.tailoring.tailoring_columns(odd, "a2") == ("x",)


@given(st.lists(st.text(max_size=6), min_size=2, max_size=6, unique=True))
def test_names_of_passes_stay_different(names):
    keys = [pass_key(name) for name in names]
    assert len(set(keys)) == len(keys) and not any("/" in key for key in keys)


part = st.text(alphabet="ab:\\ ", max_size=3)


@given(st.lists(st.tuples(part, part, part), min_size=2, max_size=8, unique=True))
def test_levels_of_combined_factors_stay_different(levels):
    made = pd.DataFrame(levels, columns=["p", "q", "r"], dtype="str")
    assert len(set(factor_labels(made, ["p", "q", "r"]))) == len(levels)


def test_plain_levels_read_as_they_are_written():
    made = pd.DataFrame({"school": ["a", "a:b"], "klass": ["b:c", "c"]}, dtype="str")
    assert factor_labels(made, ["school", "klass"]).tolist() == ["a:b\\:c", "a\\:b:c"]
    assert factor_labels(made, ["school"]).tolist() == ["a", "a:b"]


def test_else_stands_for_all_others_wherever_it_is_written():
    conditions = {"x > 1": "1", "x < -1": "0", "else": "1"}
    orders = [dict(order) for order in itertools.permutations(conditions.items())]
    rules = [bdtr.rule("r", a1=order) for order in orders]
    assert all(list(r.rules["a1"])[-1] == "else" for r in rules)
    assert bdtr.Regime("r", {"a1": orders[-1]}).rules["a1"] == rules[-1].rules["a1"]


def test_a_covariate_called_intercept_is_a_covariate(tmp_path):
    rng = np.random.default_rng(2)
    n = 300
    x, a = rng.normal(3, 1, n), rng.integers(0, 2, n)
    y = 5 + 2 * x + a * (1 + x) + 0.5 * rng.normal(size=n)
    data = pd.DataFrame({"Intercept": x, "x": x, "a": a, "y": y})

    def fit(name):
        stage = bdtr.Stage(
            "a",
            actions=[0, 1],
            formula=f"{name} * a",
            priors={"Intercept": bdtr.priors.Normal(0, 50)},
        )
        return bdtr.fit(bdtr.Trial([stage], outcome="y"), data, **HOW)

    odd, plain = fit("Intercept"), fit("x")
    assert odd.designs[0].terms == ("Intercept", "`Intercept`", "a[1]", "`Intercept`:a[1]")
    np.testing.assert_allclose(odd.posterior(0)["b"], plain.posterior(0)["b"], rtol=1e-9)
    priors = odd.priors.set_index("parameter")["prior"]
    assert priors["Intercept"] != priors["`Intercept`"] and priors.index.is_unique
    odd.save(tmp_path / "fit.nc")
    some = data.head(5)
    ours = bdtr.load(tmp_path / "fit.nc").recommend(some)
    pd.testing.assert_frame_equal(ours.table, odd.recommend(some).table)
    groups = Columns("1 + Intercept", {}, data)
    assert groups.names == ("Intercept", "`Intercept`")


def test_labels_that_tables_use_are_refused_elsewhere():
    data = frame().assign(site=lambda f: np.where(f["a1"] == 1, "(new site)", "old"))
    trial = bdtr.Trial(
        [bdtr.Stage("a1", actions=[0, 1], formula="x + a1")], outcome="y", site="site"
    )
    with pytest.raises(bdtr.DataError, match="give the site another name"):
        bdtr.fit(trial, data, **HOW)


def test_a_regime_of_a_report_may_not_take_the_name_of_another(odd, tmp_path):
    mine = bdtr.static("recommended", a1=0, a2="ref")
    with pytest.raises(ValueError, match="is the name of another one"):
        bdtr.report(odd, tmp_path / "page.html", regimes=[mine], thorough=False)


def test_labels_that_the_marks_of_formulaic_would_confuse():
    rng = np.random.default_rng(4)
    g = rng.choice(["T.q", "p", "q"], 120)
    data = pd.DataFrame({"g": pd.Categorical(g), "a": rng.integers(0, 2, 120)})
    with pytest.raises(ValueError, match="give columns one name"):
        Columns("g + a", {}, data)
    data["g"] = pd.Categorical(np.where(g == "q", "r", g))
    assert Columns("g + a", {}, data).names == ("Intercept", "g[p]", "g[r]", "a")
    data["g"] = pd.Categorical(np.where(g == "q", "p", g), categories=["p", "T.q"])
    assert Columns("g + a", {}, data).names == ("Intercept", "g[T.q]", "a")


@pytest.mark.parametrize("name", ["b", "sigma", "term", "u_klass", "klass_term"])
def test_grouping_factors_keep_clear_of_the_names_of_the_results(name):
    rng = np.random.default_rng(4)
    data = frame(132).assign(
        klass=rng.choice(list("abcdef"), 132), **{name: rng.choice(list("uvwxyz"), 132)}
    )
    stage = bdtr.Stage("a1", actions=[0, 1], formula=f"x + a1 + (1 | klass) + (1 | {name})")
    with pytest.raises(bdtr.DataError, match="Rename the column"):
        bdtr.fit(bdtr.Trial([stage], outcome="y"), data, **HOW)
