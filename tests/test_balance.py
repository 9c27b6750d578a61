"""Balance, overlap and flow of units, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bdtr
from bdtr.checks.balance import covariate_balance, overlap


def fitted(frame, **stage):
    one = bdtr.Stage("a", actions=["no", "yes"], formula="x + kind + a + (1 | site)", **stage)
    trial = bdtr.Trial([one], outcome="y", site="site")
    return bdtr.fit(
        trial, frame, sampler="direct", draws=50, propagated=200, random_seed=1, progress=False,
        missing="exclude",
    )  # fmt: skip


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    n = 400
    site = np.repeat([f"s{j}" for j in range(8)], 50)
    level = np.repeat(np.arange(8.0), 50)  # sites differ in x and in how often they say yes
    yes = rng.random(n) < 0.2 + 0.6 * (level > 3)
    return pd.DataFrame(
        {
            "site": site, "x": level + rng.normal(size=n), "kind": rng.choice(["p", "q"], n),
            "a": np.where(yes, "yes", "no"), "y": rng.normal(size=n),
        }
    )  # fmt: skip


def test_the_difference_within_sites_is_that_of_a_regression_on_sites(frame):
    found = covariate_balance(fitted(frame)).table.loc[("a", "yes")]
    yes = (frame["a"] == "yes").to_numpy(float)
    columns = np.column_stack([yes, pd.get_dummies(frame["site"]).to_numpy(float)])
    for name, x in (("x", frame["x"]), ("kind: q", frame["kind"] == "q")):
        x = x.to_numpy(float)
        slope = np.linalg.lstsq(columns, x, rcond=None)[0][0]
        spread = np.sqrt((x[yes == 1].var() + x[yes == 0].var()) / 2)
        assert found.loc[name, "difference"] == pytest.approx(slope / spread)
        assert found.loc[name, "mean"] == pytest.approx(x[yes == 1].mean())
        assert found.loc[name, "units"] == yes.sum()
    # Sites with high x say yes more often: the plain difference would be an alarm about nothing.
    assert (
        abs(found.loc["x", "difference"])
        < 0.25
        < found.loc["x", "mean"] - found.loc["x", "mean_reference"]
    )


def test_verdicts(frame):
    moved = frame.assign(x=frame["x"] + 2.0 * (frame["a"] == "yes"))
    table = covariate_balance(fitted(moved)).table
    assert table.loc[("a", "yes", "x"), "verdict"] == "warning"
    size = table["difference"].abs()
    assert (
        table["verdict"] == np.select([size <= 0.05, size <= 0.25], ["fine", "adjust"], "warning")
    ).all()


def test_overlap_against_a_plan(frame):
    fit = fitted(frame)
    table = overlap(fit, {"a": {"no": 1, "yes": 1}}).table.loc["a"]
    yes = (frame["a"] == "yes").sum()
    assert table.loc["yes", "took"] == yes
    assert table.loc["yes", "share"] == pytest.approx(yes / 400)
    assert (table["planned"] == 0.5).all()
    from scipy.stats import norm

    expected = 2 * norm.sf(abs(yes - 200) / 10)
    assert table.loc["yes", "p_value"] == pytest.approx(expected)
    assert table.loc["yes", "lowest"] < 0.3 < 0.7 < table.loc["yes", "highest"]
    assert "planned" not in overlap(fit).table
    with pytest.raises(ValueError, match="stage='b'"):
        overlap(fit, {"b": {"no": 1}})
    with pytest.raises(ValueError, match="name all actions"):
        overlap(fit, {"a": {"no": 1}})
