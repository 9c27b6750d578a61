"""Treatment that reaches whole groups: said where the model of a stage lacks their effects, only there."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

import bdtr
from bdtr.backward.residuals import imbalance
from bdtr.data.check import check
from bdtr.data.clusters import treated_together
from bdtr.data.differences import design_effect

COLUMNS = {"district": 8, "school": 40, "klass": 120, "pupil": 720}


def nested(level, seed=0):
    """8 districts of 5 schools of 3 classes of 6 pupils; half of the levels of one of them are treated."""
    rng = np.random.default_rng(seed)
    of = {name: np.repeat(np.arange(count), 720 // count) for name, count in COLUMNS.items()}
    frame = pd.DataFrame({name: [f"{name}{i}" for i in codes] for name, codes in of.items()})
    frame["a"] = rng.permutation(np.arange(COLUMNS[level]) % 2)[of[level]]
    frame["size"] = rng.integers(200, 900, 40)[of["school"]]
    frame["score"] = rng.integers(0, 20, 720)
    frame["couple"] = np.arange(720) // 2
    return frame.assign(x=rng.normal(size=720), y=rng.normal(size=720))


def said(frame, formula, site=None, **changes):
    """What is said of groups, as (column named first) or None."""
    stage = bdtr.Stage("a", actions=[0, 1], formula=formula, **changes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", bdtr.DesignWarning)
        data = check(bdtr.Trial([stage], outcome="y", site=site), frame)
    texts = [str(w.message) for w in caught if issubclass(w.category, bdtr.DesignWarning)]
    assert list(data.doubts) == texts
    return texts[0].split("levels of '")[1].split("'")[0] if texts else None


@pytest.mark.parametrize(
    ("level", "formula", "options", "named"),
    [
        ("school", "a", {}, "school"),
        ("school", "a + (1 | klass)", {}, "school"),
        ("school", "a + (1 | district)", {"site": "district"}, "school"),
        ("school", "a + (1 | district)", {"site": "district", "delivered_in": "klass"}, "school"),
        ("school", "a + (0 + x | school)", {}, "school"),
        ("school", "x + a", {"eligible": "school != 'school3'"}, "school"),
        ("school", "a + (1 | school)", {}, None),
        ("school", "a + (1 | school) + (1 | klass)", {}, None),
        ("school", "a + (1 | district/school)", {"site": "district"}, None),
        ("school", "a + school", {}, None),
        ("school", "a", {"delivered_in": "school"}, None),
        ("district", "a + (1 | school)", {}, "district"),
        ("district", "a + (1 | klass)", {}, "district"),
        ("district", "a + (1 | district)", {}, None),
        ("klass", "a + (1 | school)", {"site": "school"}, "klass"),
        ("klass", "a + (1 | school)", {"site": "school", "delivered_in": "klass"}, None),
        ("pupil", "x + a", {"site": "school"}, None),
        ("pupil", "a + (1 | school)", {"site": "school"}, None),
    ],
)
def test_the_level_that_was_treated_as_a_whole_is_named(level, formula, options, named):
    for seed in range(5):
        assert said(nested(level, seed).drop(columns="pupil"), formula, **options) == named


def test_warning_where_treatment_reaches_whole_groups():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(20), 10)
    action = rng.integers(0, 2, 20)[group]
    frame = pd.DataFrame({"class": group, "a": action, "y": rng.normal(size=200)})
    stage = {"actions": [0, 1], "formula": "a"}
    with pytest.warns(bdtr.DesignWarning, match="hardly ever varies within the levels of 'class'"):
        check(bdtr.Trial([bdtr.Stage("a", **stage)], outcome="y"), frame)
    check(bdtr.Trial([bdtr.Stage("a", **stage, delivered_in="class")], outcome="y"), frame)
    check(bdtr.Trial([bdtr.Stage("a", **stage)], outcome="y"), frame.drop(columns="class"))


def test_ids_that_count_within_sites_are_joined_with_them():
    frame = nested("klass").drop(columns="size")
    frame["klass"] = np.arange(720) // 6 % 3
    assert said(frame, "a + (1 | school)", site="school") == "klass"
    assert said(frame, "a + (1 | school/klass)", site="school") is None


def test_a_group_that_enters_as_a_number_is_not_known():
    frame = nested("school").assign(school=lambda f: f["school"].str[6:].astype(int))
    frame = frame[["school", "a", "y"]]
    with pytest.warns(bdtr.DesignWarning, match="does not know otherwise than as a number"):
        check(
            bdtr.Trial([bdtr.Stage("a", actions=[0, 1], formula="a + school")], outcome="y"), frame
        )


def test_couples_are_groups():
    frame = nested("pupil")[["couple", "y"]]
    rng = np.random.default_rng(1)
    assert said(frame.assign(a=rng.integers(0, 2, 360)[frame["couple"]]), "a") == "couple"
    assert said(frame.assign(a=rng.integers(0, 2, 720)), "a") is None
    # Most couples hold one action by chance where nearly all take the same.
    assert said(frame.assign(a=rng.random(720) < 0.96).astype({"a": int}), "a") is None


@given(st.integers(0, 10**6), st.sampled_from(["pupil", "klass", "school", "district"]))
@settings(max_examples=60)
def test_chance_is_not_taken_for_design(seed, level):
    """Columns that cut across the levels that were treated, small ones and coarse ones."""
    rng = np.random.default_rng(seed)
    frame = nested(level, seed)
    by = np.arange(720) // {"pupil": 1, "klass": 6, "school": 18, "district": 90}[level]
    levels = int(by.max()) + 1
    for i, fewer in enumerate((1.3, 2, 5)):
        frame[f"odd{i}"] = rng.integers(0, max(int(levels / fewer), 2), levels)[by]
    group = "" if level == "pupil" else f" + (1 | {level})"
    assert said(frame, f"a{group}") is None


def test_names_of_actions_and_of_paths_are_no_groups():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"site": np.arange(400) % 20, "r": rng.integers(0, 2, 400)})
    frame["a"], second = rng.integers(0, 2, (2, 400))
    frame["b"] = np.where(frame["r"] == 1, np.nan, second)
    frame["arm"] = np.where(frame["a"] == 1, "new", "usual")
    path = np.where(frame["r"] == 1, "r", second.astype(str))
    frame["cell"] = frame["arm"] + path
    frame["y"] = rng.normal(size=400)
    trial = bdtr.Trial(
        [
            bdtr.Stage("a", actions=[0, 1], formula="a + (1 | site)"),
            bdtr.Stage("b", actions=[0, 1], formula="a * b + (1 | site)", among="r == 0"),
        ],
        outcome="y", site="site",
    )  # fmt: skip
    assert not check(trial, frame).doubts


def test_a_few_who_cross_over_change_nothing():
    for seed in range(5):
        frame = nested("school", seed).drop(columns=["pupil", "couple"])
        rows = np.random.default_rng(seed).choice(720, 14, replace=False)  # 2 %
        frame.loc[rows, "a"] = 1 - frame.loc[rows, "a"]
        assert said(frame, "a + (1 | klass)") == "school"
        assert said(frame, "a + (1 | school)") is None


def test_numbers_may_be_ids_and_dates_are_hardly():
    """The level that was treated is named whatever its type, not what is finer, or measured of it."""
    for seed in range(5):
        frame = nested("school", seed).drop(columns=["pupil", "couple", "district"])
        frame["school"] = frame["school"].str[6:].astype(int)
        start = np.random.default_rng(seed).integers(0, 300, 40)[frame["school"]]
        frame["start"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(start, unit="D")
        frame["sex"] = np.where(frame["x"] > 0, "f", "m")
        assert said(frame, "a") == "school"
        assert said(frame, "a", site="school") == "school"


def test_ids_within_sites_that_enter_as_if_they_were_whole():
    frame = nested("klass").drop(columns=["size", "pupil", "couple"])
    frame["klass"] = np.char.add("c", (np.arange(720) // 6 % 3).astype(str))
    frame["school"] = frame["school"].str[6:].astype(int)
    for formula in ("a + (1 | school) + (1 | klass)", "a + klass + (1 | school)"):
        assert said(frame, formula, site="school") == "klass"
    assert said(frame, "a + klass + (1 | school/klass)", site="school") is None


def test_doses_are_no_groups():
    frame = nested("pupil")[["school", "a", "y"]]
    rng = np.random.default_rng(2)
    frame["sessions"] = np.where(frame["a"] == 1, rng.integers(1, 13, 720), 0)
    assert said(frame, "a + (1 | school)", site="school") is None


def test_columns_of_lists_are_passed_over():
    frame = nested("pupil")
    assert said(frame.assign(visits=[[1, 2]] * 720), "a") is None
    pyarrow = pytest.importorskip("pyarrow")
    lists = pd.Series([[1, 2]] * 720, dtype=pd.ArrowDtype(pyarrow.list_(pyarrow.int64())))
    assert said(frame.assign(visits=lists), "a + (1 | school)", site="school") is None


def test_warning_where_cluster_ids_count_within_sites():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"site": np.repeat(list("uvwx"), 20), "cl": np.arange(80) // 4 % 3})
    frame["a"], frame["y"] = np.where(np.arange(80) % 2, "s", "r"), rng.normal(size=80)
    stage = bdtr.Stage("a", actions=["r", "s"], formula="a + (1 | site)", delivered_in="cl")
    with pytest.warns(bdtr.DesignWarning, match="occur at several sites"):
        check(bdtr.Trial([stage], outcome="y", site="site"), frame)


def test_the_coarsest_factor_treated_as_a_whole():
    frame = nested("school")
    stage = bdtr.Stage(
        "a", actions=[0, 1], formula="a + (1 | school) + (1 | klass) + (1 | district)"
    )
    data = check(bdtr.Trial([stage], outcome="y"), frame)
    assert len(np.unique(treated_together(data.stages[0], data.frame))) == 40
    data = check(bdtr.Trial([stage], outcome="y"), nested("pupil"))
    assert treated_together(data.stages[0], data.frame) is None


@pytest.mark.parametrize(
    ("sites", "spread", "right"), [(1, 0.0, 3.2), (20, 0.0, 3.2), (20, 1.5, 0.98)]
)
def test_design_effect_is_that_of_kish(sites, spread, right):
    """60 clusters of 12 with correlation .2 have 1 + 11 * .2 = 3.2 times the variance; where sites add 1.5^2,
    which differences within them do not know, 3.2 / 3.25 = .98 times that of x."""
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(60), 12)
    site = cluster * sites // 60
    found = []
    for _ in range(400):
        x = np.sqrt(0.2) * rng.normal(size=60)[cluster] + np.sqrt(0.8) * rng.normal(size=720)
        found.append(design_effect(x + spread * rng.normal(size=sites)[site], site, cluster))
    if spread:
        # Sites' variance is known to sqrt(2 / 19): the mean of the ratio lies between .9 and 1.15.
        assert 0.9 < np.mean(found) < 1.15
    else:
        assert np.mean(found) == pytest.approx(right, abs=0.12)


def test_design_effects_at_the_ends():
    rng = np.random.default_rng(0)
    cluster, one = np.repeat(np.arange(60), 12), np.zeros(720, dtype=int)
    assert design_effect(np.repeat(rng.normal(size=60), 12), one, cluster) == pytest.approx(
        12 * 60 / 59, rel=0.01
    )
    assert design_effect(rng.normal(size=720), one) == pytest.approx(1, rel=0.01)
    assert design_effect(rng.normal(size=720), one, np.full(720, -1)) == 1.0


@pytest.mark.parametrize(
    ("shift", "of_class", "of_site", "alarms"),
    [(0.0, 1.0, 0.0, False), (1.2, 1.0, 0.0, True), (1.0, 0.0, 1.2, True)],
)
def test_imbalance_is_judged_by_the_groups_that_were_treated(shift, of_class, of_site, alarms):
    """A covariate of classes differs by chance more than one of pupils; 20 sites of 4 classes of 15."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        klass = np.repeat(np.arange(80), 15)
        action = np.concatenate([rng.permutation([0, 0, 1, 1]) for _ in range(20)])[klass]
        frame = pd.DataFrame({"site": klass // 4, "klass": klass % 4, "a": action})
        frame["z"] = of_class * rng.normal(size=80)[klass] + shift * action
        if of_site:
            frame["z"] += of_site * rng.normal(size=20)[klass // 4] + rng.normal(size=1200)
        frame["y"] = 0.4 * rng.normal(size=80)[klass] + rng.normal(size=1200)
        stage = bdtr.Stage("a", actions=[0, 1], formula="z + a + (1 | site/klass)")
        fit = bdtr.fit(
            bdtr.Trial([stage], outcome="y", site="site"), frame, sampler="direct", chains=2,
            draws=100, propagated=100, progress=False, random_seed=seed,
        )  # fmt: skip
        assert any("differs in z" in text for text in imbalance(fit)) == alarms
