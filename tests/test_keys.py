"""What is named after labels, rules and columns keeps apart what is different."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

import bdtr
from bdtr.backward.policies import pass_key
from bdtr.data.check import check
from bdtr.data.datafiles import read_data
from bdtr.data.groupcolumns import factor_labels
from bdtr.data.modelmatrix import Columns

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
    assert bdtr.decisions.tailoring_columns(odd, "a2") == ("x",)


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
    assert bdtr.backward.Regime("r", {"a1": orders[-1]}).rules["a1"] == rules[-1].rules["a1"]


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
            priors={"Intercept": bdtr.trial.Normal(0, 50)},
        )
        return bdtr.fit(bdtr.Trial([stage], outcome="y"), data, **HOW)

    odd, plain = fit("Intercept"), fit("x")
    assert odd.designs[0].terms == ("Intercept", "`Intercept`", "a[1]", "`Intercept`:a[1]")
    np.testing.assert_allclose(odd.posterior(0)["b"], plain.posterior(0)["b"], rtol=1e-9)
    priors = odd.priors.set_index("parameter")["prior"]
    assert priors["Intercept"] != priors["`Intercept`"] and priors.index.is_unique
    odd.save(tmp_path / "fit.nc")
    some = data.head(5)
    ours = bdtr.recommend(bdtr.load(tmp_path / "fit.nc"), some)
    pd.testing.assert_frame_equal(ours.table, bdtr.recommend(odd, some).table)
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


def small(**columns):
    rng, n = np.random.default_rng(0), 200
    frame = pd.DataFrame({"x": rng.normal(size=n), "z": rng.normal(size=n)})
    frame = frame.assign(a1=rng.integers(0, 2, n), a2=rng.integers(0, 2, n), g=np.arange(n) % 8)
    frame["y"] = frame.x + frame.a1 * frame.x + rng.normal(size=n)
    return frame.assign(**{name: make(frame) for name, make in columns.items()})


def quick(frame, *stages, **words):
    trial = bdtr.Trial(list(stages), **{"outcome": "y", **words})
    return bdtr.fit(trial, frame, **HOW)


def test_paths_of_effect_sizes():
    """Labels that hold the mark between stages, and one that is the mark of no decision."""
    found = []
    for first, second in (
        (["a", "a; b"], ["c", "b; c"]),
        (["-", "b"], ["c", "d"]),
        (["a", "b"], ["c", "d"]),
    ):
        frame = small(
            a1=lambda d, f=first: np.array(f)[d.a1], a2=lambda d, f=second: np.array(f)[d.a2]
        )
        one = bdtr.Stage("a1", actions=first, formula="x*a1")
        fit = quick(frame, one, bdtr.Stage("a2", actions=second, formula="x + a1 + a2"))
        found.append(bdtr.values.effect_sizes(fit, bdtr.value(fit)).table.to_numpy())
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(found[1], found[2])


def test_cells_of_large_numbers_are_told_apart():
    stage = bdtr.Stage("a1", actions=[0, 1], formula="year*a1 + x")
    fit = quick(small(year=lambda d: 2015 + np.arange(len(d)) % 12), stage)
    cells = bdtr.decisions.over_history(fit, "a1", "year").table.index.get_level_values(0)
    assert cells[0] == "2015 to 2016" and len(set(cells)) == 8


def test_columns_named_as_those_of_results():
    for name in ("action", "units", "p_optimal"):
        fit = quick(
            small(**{name: lambda d: d.x}), bdtr.Stage("a1", actions=[0, 1], formula=f"{name}*a1")
        )
        table = bdtr.decisions.over_history(fit, "a1", name).table
        assert table.index.names == [f"{name} (history)", "action"]
    fit = quick(small(chain=lambda d: d.x), bdtr.Stage("a1", actions=[0, 1], formula="chain*a1"))
    assert "chain (history)" in bdtr.decisions.blips_along(fit, "a1", "chain").draws.dims


def test_every_correlation_is_in_the_summary():
    actions = ["none", "drug, high", "drug, low", "talk, high", "talk, low"]
    frame = small(a1=lambda d: np.array(actions)[np.arange(len(d)) % 5])
    stage = bdtr.Stage("a1", actions=actions, formula="x + a1 + (1 + a1 | g)", site_means=False)
    names = quick(frame, stage).summary().table.index.get_level_values("parameter")
    assert sum(name.startswith("cor_") for name in names) == 10


def test_options_of_transforms_are_no_columns():
    """An action column called df was taken for a tailoring variable of bs(x, df=4)."""
    stages = [bdtr.Stage("df", actions=[0, 1], formula="bs(x, df=4) + df")]
    stages.append(bdtr.Stage("a2", actions=[0, 1], formula="x + df + a2"))
    assert quick(small(df=lambda d: d.a1), *stages).added == ()


def test_labels_beside_actions():
    for actions in (
        ["all", "x"],
        ["price", "x"],
        ["not in the fit", "x"],
        {"x", "y"},
        [None, 1],
        [[0], [1]],
        ["a", "a\0"],
    ):
        with pytest.raises(bdtr.TrialError, match="actions"):
            bdtr.Stage("a1", actions=actions, formula="a1")


def test_columns_that_only_groups_and_conditions_use_are_read_as_text(tmp_path):
    """Class 01 is not class 1; a school of last year, compared with that of today, is read as that is."""
    rows = ["id,klass,school,before,x,a1,y"]
    rows += [
        f"{i},{k},{i:02d},{i:02d},1.5,{i % 2},2" for i, k in enumerate(["1", "01", "1e0", "NA"])
    ]
    (tmp_path / "d.csv").write_text("\n".join(rows))
    stage = bdtr.Stage(
        "a1", actions=[0, 1], formula="x + a1 + (1 | klass)", eligible="before == school"
    )
    trial = bdtr.Trial([stage], outcome="y", site="school", unit="id")
    found = read_data(tmp_path / "d.csv", trial)
    assert found["klass"].tolist() == ["1", "01", "1e0", "NA"]
    assert found["before"].tolist() == found["school"].tolist() == ["00", "01", "02", "03"]
    assert found["x"].dtype == float
    (tmp_path / "twice.csv").write_text("id,x,x,a1,y\n1,2,3,0,1\n")
    (tmp_path / "long.csv").write_text("id,a1,x,y\n1,0,2,3,\n2,1,2,3,\n")
    for name, message in (("twice", "columns appear twice: 'x'"), ("long", "more fields than")):
        with pytest.raises(bdtr.data.check.DataError, match=message):
            read_data(tmp_path / f"{name}.csv", trial)


@pytest.mark.parametrize("text", ["r == '1.0'", "r == '01'", "r == 1", "r in ['1']", "s == r"])
def test_quoted_numbers_are_numbers(text):
    frame = small(r=lambda d: 1 + d.a2, s=lambda d: np.full(len(d), "01"))
    stage = bdtr.Stage("a1", actions=[0, 1], formula="x + a1", eligible=text)
    assert quick(frame, stage).data.stages[0].fitted.sum() == (frame.r == 1).sum()


@pytest.mark.parametrize(
    ("columns", "stage", "message"),
    [
        ({"c": lambda d: 2**60 + d.g, "h": lambda d: 2**60 + d.g}, {"eligible": "c == h"}, "from 2..53 on"),
        ({"s": lambda d: np.where(d.a2 == 0, "1", "01"), "r": lambda d: d.a2}, {"eligible": "s == r"},
         "not one number"),
        ({"s": lambda d: np.where(d.a2 == 0, "a", "b"), "r": lambda d: d.a2}, {"eligible": "s != r"},
         "not one number"),
        ({"sigma": lambda d: d.x}, {"formula": "sigma + a1"}, "name of a parameter"),
        ({"site_size": lambda d: d.x}, {"formula": "site_size + a1 + (1 | g)", "site_terms": ["size"]},
         "name of a parameter"),
        ({"p:q": lambda d: d.g}, {"delivered_in": "p:q"}, "letters, digits"),
        ({"r": lambda d: d.y}, {"reward": "r"}, "count twice"),
        ({"k": lambda d: [[1]] * len(d)}, {"formula": "x + a1 + (1 | k)"}, "holds list"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_apart_is_an_error(columns, stage, message):
    words = {"formula": "x + a1", **stage}
    site = "g" if "site_terms" in words else None
    with pytest.raises(bdtr.results.errors.BdtrError, match=message):
        quick(small(**columns), bdtr.Stage("a1", actions=[0, 1], **words), site=site)


def test_plans_and_values_by_what_is_not_known_yet():
    stages = [bdtr.Stage("a1", actions=[0, 1], formula="x*a1")]
    stages.append(bdtr.Stage("a2", actions=[0, 1], formula="x + a1 + z*a2", weights="w"))
    fit = quick(small(w=lambda d: np.exp(0.1 * d.z)), *stages)
    for ask in (
        lambda: bdtr.decisions.plan(fit, "a1", bdtr.decisions.Gap("a2", 0.05)),
        lambda: bdtr.decisions.plan(fit, "a2", bdtr.decisions.Floor("y", 1, 0)),
        lambda: bdtr.value(fit, by="y"),
    ):
        with pytest.raises(ValueError, match="not known yet"):
            ask()
    assert bdtr.decisions.plan(fit, "a2", bdtr.decisions.Gap("a1", 5.0)).limits is not None
    with pytest.raises(ValueError, match="not yet known"):
        quick(fit.data.frame, bdtr.Stage("a1", actions=[0, 1], formula="w + a1"), stages[1])


TWINS = [("s1", "s1 "), ("a b", "a\u00a0b"), ("caf\u00e9", "cafe\u0301"), ("a  b", "a b")]


@pytest.mark.parametrize("twins", TWINS)
@pytest.mark.parametrize("column", ["site", "group", "a1"])
def test_labels_that_look_alike_are_an_error(twins, column):
    rng = np.random.default_rng(4)
    frame = pd.DataFrame(
        {"x": rng.normal(size=40), "site": ["one", "two"] * 20, "group": ["u", "v"] * 20}
    )
    frame["a1"], frame["y"] = ["r", "s"] * 20, rng.normal(size=40)
    frame[column] = list(twins) * 20
    actions = twins if column == "a1" else ("r", "s")

    def checked():
        stage = bdtr.Stage("a1", actions=actions, formula="x + group + a1 + (1 | site)")
        return check(bdtr.Trial([stage], outcome="y", site="site"), frame)

    with pytest.raises(bdtr.results.errors.BdtrError, match="look the same"):
        checked()


@pytest.mark.parametrize("label", ["(a)", "'a'", '"a"', "((a))", "('a')"])
def test_an_action_is_no_other_one_in_the_text_of_a_rule(label):
    with pytest.raises(bdtr.TrialError, match="in the text of a rule is 'a'"):
        bdtr.Stage("a1", actions=["a", label], formula="a1")
    stage = bdtr.Stage("a1", actions=["b", label], formula="a1")
    frame = pd.DataFrame({"a1": ["b", label] * 20, "y": np.random.default_rng(1).normal(size=40)})
    fit = bdtr.fit(
        bdtr.Trial([stage], outcome="y"), frame, sampler="direct", draws=100, propagated=200,
        random_seed=1, progress=False,
    )  # fmt: skip
    with pytest.raises(bdtr.backward.RegimeError, match="'a' is no action; .* with both marks"):
        bdtr.value(fit, [bdtr.rule(a1=label)])
    quoted = bdtr.trial.rules.rule_text(label)
    assert bdtr.value(fit, [bdtr.rule(a1=quoted)]).table["mean"].notna().all()


def test_one_label_twice_in_a_mapping_is_an_error():
    with pytest.raises(bdtr.results.errors.ArgumentError, match="1 and '1' are one label"):
        bdtr.decisions.Budget({1: 1.0, "1": 0.0}, 0.3)


@pytest.mark.parametrize("column", ["id", "site", "group"])
def test_a_label_that_no_file_can_keep_is_an_error(column):
    frame = pd.DataFrame(
        {"id": ["u"] * 40, "site": ["s"] * 40, "group": ["g"] * 40, "a1": [0, 1] * 20}
    )
    frame["y"] = np.random.default_rng(1).normal(size=40)
    for name in ("id", "site", "group"):
        frame[name] += [str(i) for i in (range(40) if name == "id" else [0, 1] * 20)]
    frame.loc[3, column] = "a\0b"
    stage = bdtr.Stage("a1", actions=[0, 1], formula="group + a1 + (1 | site)")
    with pytest.raises(
        bdtr.DataError, match=f"'{column}' holds the label 'a.x00b' with the character NUL"
    ):
        check(bdtr.Trial([stage], outcome="y", site="site", unit="id"), frame)


@pytest.mark.parametrize("column", ["x", "y"])
@pytest.mark.parametrize(
    ("scale", "shift", "message"),
    [
        (1e-200, 0, "as small as"), (1e200, 0, "as large as"), (1e-300, 0, "as small as"),
        (1, 1e12, "lies about 1e.12 with an SD of"), (1e-20, 0, None), (1e20, 0, None), (1, 2.46e6, None),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_computed_with(column, scale, shift, message):
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"x": rng.normal(size=60), "a1": [0, 1] * 30, "y": rng.normal(size=60)})
    frame[column] = frame[column] * scale + shift
    trial = bdtr.Trial([bdtr.Stage("a1", actions=[0, 1], formula="x * a1")], outcome="y")
    if message is None:
        assert len(check(trial, frame)) == 60
    else:
        with pytest.raises(bdtr.DataError, match=f"'{column}' .*{message}"):
            check(trial, frame)


@pytest.mark.parametrize("role", ["a1", "m", "id", "site", "group"])
def test_a_column_called_as_an_argument_of_pandas(role, tmp_path):
    """``assign(**{"self": ..})`` is an error of Python."""
    rng = np.random.default_rng(5)
    names = {name: name for name in ("a1", "m", "id", "site", "group")} | {role: "self"}
    frame = pd.DataFrame({"id": [f"u{i}" for i in range(120)], "m": rng.normal(size=120)})
    frame["a1"], frame["group"] = rng.integers(0, 2, 120), rng.choice(["g", "h"], 120)
    frame["site"], frame["a2"] = rng.integers(0, 6, 120), rng.integers(0, 2, 120)
    frame["y"] = frame["m"] * frame["a2"] + rng.normal(size=120)
    frame = frame.rename(columns=names)
    first, m, site, group = (names[n] for n in ("a1", "m", "site", "group"))
    stages = [
        bdtr.Stage(first, actions=[0, 1], formula=f"{group} + {first} + (1 | {site})"),
        bdtr.Stage("a2", actions=[0, 1], formula=f"{first} + {m} * a2"),
    ]
    trial = bdtr.Trial(stages, outcome="y", site=site, unit=names["id"])
    frame.to_csv(tmp_path / "x.csv", index=False)
    fit = bdtr.fit(
        trial, read_data(tmp_path / "x.csv", trial), sampler="direct", draws=100, propagated=200,
        random_seed=1, progress=False,
    )  # fmt: skip
    fit.save(tmp_path / "fit.nc")
    fit = bdtr.load(tmp_path / "fit.nc")
    assert bdtr.value(fit, by=group).table["mean"].notna().all()
    assert len(bdtr.recommend(fit, frame).actions) == 240
    assert bdtr.crossfit(fit, random_seed=1).table.notna().any(axis=None)
    assert len(bdtr.decisions.blips_along(fit, "a2", m).table)
    assert len(bdtr.decisions.over_history(fit, "a2", [m]).table)
    assert len(bdtr.checks.covariate_balance(fit).table)
    assert len(bdtr.values.site_blips(fit, first).table)
