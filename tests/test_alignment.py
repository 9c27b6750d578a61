"""Values of pandas for each row: by their index, or an error."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

import bdtr
from bdtr.checks.confounding import confounded
from bdtr.trial.alignment import aligned


@given(
    st.lists(
        st.one_of(st.integers(-50, 50), st.text(max_size=3)), min_size=2, max_size=8, unique=True
    ),
    st.randoms(use_true_random=False),
)
def test_any_order_of_the_index_gives_the_values_of_the_rows(labels, random):
    index = pd.Index(labels, dtype=object)
    values = pd.Series(np.arange(len(index)), index=index)
    order = list(range(len(index)))
    random.shuffle(order)
    given_ = values.iloc[order]
    numbers = pd.RangeIndex(len(index))
    if set(labels) == set(numbers) and not index.equals(numbers) and order != sorted(order):
        with pytest.raises(bdtr.results.errors.ArgumentError, match="in another order"):
            aligned(given_, index, "by")
    else:
        assert aligned(given_, index, "by").tolist() == values.tolist()


def test_what_cannot_be_put_in_order_is_an_error():
    twice = pd.Series([1, 2, 3], index=["a", "a", "b"])
    assert aligned(twice, twice.index, "by").tolist() == [1, 2, 3]
    for index in (pd.Index(["a", "b", "a"]), pd.Index(["x", "y", "z"]), None):
        with pytest.raises(
            bdtr.results.errors.ArgumentError, match=r"by: the index \('a', 'a', 'b', ..\)"
        ):
            aligned(twice, index, "by")
    counted = twice.reset_index(drop=True)
    assert aligned(counted.iloc[::-1], None, "by").tolist() == [1, 2, 3]
    assert aligned([3, 1], pd.Index(["a", "b"]), "by") == [3, 1]


@pytest.fixture(scope="module")
def labelled():
    rng = np.random.default_rng(5)
    n = 60
    frame = pd.DataFrame(
        {"x": rng.normal(size=n), "a1": rng.integers(0, 2, n)}, index=[f"p{i}" for i in range(n)]
    )
    frame["y"] = frame["x"] * frame["a1"] + rng.normal(size=n)
    trial = bdtr.Trial([bdtr.Stage("a1", actions=[0, 1], formula="x * a1")], outcome="y")
    fit = bdtr.fit(
        trial, frame, sampler="direct", draws=100, propagated=400, random_seed=1, progress=False
    )
    return fit, frame


def means(values):
    return values.table["mean"].to_numpy()


def test_groups_rules_and_sizes_go_by_the_index(labelled, tmp_path):
    fit, frame = labelled
    group = (frame["x"] > 0).map({True: "high", False: "low"})
    one = bdtr.static(a1=1)
    right = means(bdtr.value(fit, [one], by=group.to_numpy()))
    mixed = group.sample(frac=1, random_state=2)
    assert np.array_equal(means(bdtr.value(fit, [one], by=group)), right)
    assert np.array_equal(means(bdtr.value(fit, [one], by=mixed)), right)
    fit.save(tmp_path / "fit.nc")
    loaded = bdtr.load(tmp_path / "fit.nc")
    with pytest.raises(bdtr.results.errors.ArgumentError, match="not kept in a saved fit"):
        bdtr.value(loaded, [one], by=mixed)
    assert np.array_equal(means(bdtr.value(loaded, [one], by=group.to_numpy())), right)

    plain = bdtr.rule("own", a1=lambda h: (h["x"] > 0).astype(int))
    sorted_ = bdtr.rule("own", a1=lambda h: (h.sort_values("x")["x"] > 0).astype(int))
    assert np.array_equal(means(bdtr.value(fit, [plain])), means(bdtr.value(fit, [sorted_])))
    other = bdtr.rule(a1=lambda h: (h["x"] > 0).astype(int).set_axis(range(5, len(h) + 5)))
    with pytest.raises(bdtr.backward.RegimeError, match="the index"):
        bdtr.value(fit, [other])


def test_sizes_of_confounding_go_by_the_index_and_are_numbers(labelled):
    fit, _ = labelled
    one = [bdtr.static(a1=1)]

    def values(function):
        return means(confounded(fit, {"a1": {1: function}}, *one))

    plain = values(lambda h: h["x"])
    assert np.array_equal(values(lambda h: h.sort_values("x")["x"]), plain)
    with pytest.raises(bdtr.results.errors.ArgumentError, match="must return a number"):
        values(lambda h: h["x"].where(h["x"] > 0))
    with pytest.raises(bdtr.results.errors.ArgumentError, match="failed: KeyError"):
        values(lambda h: h["nothing"])


def test_probabilities_in_a_frame_go_by_the_names_of_actions(labelled):
    fit, frame = labelled
    p = pd.DataFrame({0: 0.3, 1: 0.7}, index=frame.index)
    p[0] = np.where(frame["x"] > 0, 0.2, 0.4)
    p[1] = 1 - p[0]

    def values(known):
        sizes = {"a1": {1: 1.0}}
        return means(confounded(fit, sizes, bdtr.static(a1=1), probabilities={"a1": known}))

    right = values(p.to_numpy())
    assert np.array_equal(values(p), right)
    assert np.array_equal(values(p[[1, 0]].sample(frac=1, random_state=1)), right)
    with pytest.raises(bdtr.results.errors.ArgumentError, match="the columns must be the actions"):
        values(p.rename(columns={0: "none"}))
