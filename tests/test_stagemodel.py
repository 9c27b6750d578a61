"""Stage models of the user's: fitted, refitted to propagated responses, asked for Q-values."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

import bdtr
from bdtr.backward.passes import backward_pass
from bdtr.stages.stagemodel import ModelError, StageModel
from bdtr.trial.priors import HalfNormal, Normal


@dataclass
class Linear:
    """b0 + b1 x + (b2 + b3 x) action + a residual: what a formula would make, written by hand."""

    action: str
    x: str

    def _columns(self, history):
        a, x = history[self.action].cat.codes.to_numpy(), history[self.x].to_numpy()
        return np.column_stack([np.ones(len(a)), x, a, x * a])

    def build(self, history, payoff):
        import pymc as pm

        with pm.Model() as model:
            b = pm.Normal("b", 0, 2, shape=4)
            observed = pm.Data("payoff", payoff)
            sigma = pm.HalfNormal("sigma", 2)
            pm.Normal("y", self._columns(history) @ b, sigma, observed=observed)
        return model

    def q(self, posterior, history):
        return self._columns(history) @ posterior["b"].to_numpy()


PRIORS = {
    "Intercept": Normal(0, 2), "x1": Normal(0, 2), "x2": Normal(0, 2), "a1[1]": Normal(0, 2),
    "a2[1]": Normal(0, 2), "x1:a1[1]": Normal(0, 2), "x2:a2[1]": Normal(0, 2),
    "sigma": HalfNormal(2),
}  # fmt: skip


def study(n=250):
    rng = np.random.default_rng(12)
    x1, a1, a2 = rng.normal(size=n), rng.integers(0, 2, n), rng.integers(0, 2, n)
    x2 = 0.4 * x1 + 0.5 * a1 + rng.normal(size=n)
    y = 0.3 * x1 + 0.4 * x2 + (0.2 + 0.5 * x2) * a2 + rng.normal(size=n)
    return pd.DataFrame({"x1": x1, "a1": a1, "x2": x2, "a2": a2, "y": y})


def trial(own: tuple[int, ...]) -> bdtr.Trial:
    stages = []
    for k in (1, 2):
        used = {n: p for n, p in PRIORS.items() if str(3 - k) not in n.replace("[1]", "")}
        plain = {"priors": used, "earlier_terms": False, "residual": "common"}  # as the model is
        model = {"model": Linear(f"a{k}", f"x{k}")} if k in own else plain
        stages.append(bdtr.Stage(f"a{k}", actions=[0, 1], formula=f"x{k} * a{k}", **model))
    return bdtr.Trial(stages, outcome="y")


def fit(own, **changes):
    settings = {"chains": 2, "draws": 100, "propagated": 100, "random_seed": 5, "progress": False}
    if not own:
        settings["sampler"] = "direct"
    return bdtr.fit(trial(own), study(), **{**settings, **changes})


@pytest.fixture(scope="module")
def by_formula():
    return fit((), chains=4, draws=1000, propagated=1000)


@pytest.fixture(scope="module")
def own_last():
    return fit((2,), chains=4, draws=500, propagated=1000)


@pytest.fixture(scope="module")
def own_first():
    return fit((1,))


def moments(values, dims=("chain", "draw")):
    return values.mean(dims).to_numpy(), values.std(dims).to_numpy()


def test_a_protocol_that_objects_meet():
    assert isinstance(Linear("a", "x"), StageModel)


def test_a_last_stage_has_the_posterior_that_its_formula_would_give(own_last, by_formula):
    own, formula = own_last.posterior(1)["b"], by_formula.posterior(1)["b"]
    for (mean, sd), (other, width) in [(moments(own), moments(formula))]:
        # The formula's intercept prior is for centred columns: with SD 2 it says little.
        assert mean == pytest.approx(other, abs=0.2 * width.max())
        assert sd == pytest.approx(width, rel=0.12)


def test_earlier_stages_respond_to_its_values(own_last, by_formula):
    own, formula = (one.posterior(0)["b"] for one in (own_last, by_formula))
    (mean, sd), (other, width) = moments(own), moments(formula)
    assert mean == pytest.approx(other, abs=0.25 * width.max())
    assert sd == pytest.approx(width, rel=0.15)


def test_an_earlier_stage_is_refitted_to_every_propagated_response(own_first, by_formula):
    own, formula = (one.posterior(0)["b"] for one in (own_first, by_formula))
    (mean, sd), (other, width) = moments(own), moments(formula)
    assert own.sizes == {"chain": 2, "draw": 50, "b_dim_0": 4}
    assert mean == pytest.approx(other, abs=0.45 * width.max())  # 100 draws: 0.1 SD of error
    assert sd == pytest.approx(width, rel=0.3)
    attrs = own_first.tree["stage_1/engine"].to_dataset().attrs
    assert attrs["sampler"] == "refits"
    assert attrs["refits"] == 100
    assert attrs["unsettled"] <= 2
    assert not any("refits" in reason for reason in own_first.state.reasons)


def test_values_recommendations_and_summaries_work_as_with_formulas(own_last, by_formula):
    regime = bdtr.static(a1=1, a2=1)
    own, formula = (bdtr.value(one, regime).table for one in (own_last, by_formula))
    assert own["mean"].iloc[-1] == pytest.approx(formula["mean"].iloc[-1], abs=0.05)
    frame = study(40)
    ours, theirs = (
        bdtr.recommend(one, frame, override="few draws").actions for one in (own_last, by_formula)
    )
    last = ours["stage"] == "a2"
    assert ours[last]["q_mean"].to_numpy() == pytest.approx(
        theirs[last]["q_mean"].to_numpy(), abs=0.1
    )
    assert "b[0]" in own_last.summary().table.loc["a2"].index
    assert "those of Linear" in own_last.priors["prior"].tolist()
    assert "a1" in repr(own_last)


def test_further_policies_are_refitted_too(own_first):
    row = bdtr.value(own_first, bdtr.static(a1=1, a2=1)).table.iloc[-1]
    truth = study()
    everyone = 0.3 * truth["x1"] + 0.9 * (0.4 * truth["x1"] + 0.5) + 0.2
    assert row["mean"] == pytest.approx(everyone.mean(), abs=4 * row["sd"])


def test_saved_without_its_code_and_loaded_with_it(own_last, tmp_path):
    path = str(tmp_path / "fit.nc")
    own_last.save(path)
    with pytest.raises(bdtr.TrialError, match=r"Linear, whose code is not in the file.*models="):
        bdtr.load(path)
    again = bdtr.load(path, models={"a2": Linear("a2", "x2")})
    units = np.arange(5)
    assert np.array_equal(
        backward_pass(again).q_values(1, units), backward_pass(own_last).q_values(1, units)
    )


def test_a_report_says_whose_model_it_is(own_last, tmp_path):
    path = tmp_path / "report.html"
    bdtr.report(own_last, str(path), override="few draws")
    assert "a PyMC model of the authors, Linear, of x2, a2" in path.read_text(encoding="utf-8")


def test_what_a_formula_has_and_a_model_has_not():
    with pytest.raises(bdtr.TrialError, match="priors belong to the model that a formula makes"):
        bdtr.Stage("a", actions=[0, 1], formula="a", model=Linear("a", "x"), priors=PRIORS)
    for wrong in (Linear, object()):
        with pytest.raises(bdtr.TrialError, match="must be an object with the methods build"):
            bdtr.Stage("a", actions=[0, 1], formula="a", model=wrong)


class NoData(Linear):
    def build(self, history, payoff):
        import pymc as pm

        with pm.Model() as model:
            pm.Normal("y", 0, 1, observed=payoff)
        return model


class Unused(Linear):
    def build(self, history, payoff):
        import pymc as pm

        with pm.Model() as model:
            pm.Data("payoff", payoff)
            pm.Normal("y", pm.Normal("b"), 1, observed=payoff)
        return model


class NoModel(Linear):
    def build(self, history, payoff):
        return "model"


class Scaled(Linear):
    def build(self, history, payoff):
        return super().build(history, payoff / 100)


class Centred(Linear):
    def build(self, history, payoff):
        return super().build(history, payoff - payoff.mean())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (NoData, r'must hold the payoff as pm\.Data\("payoff", payoff\)'),
        (NoModel, r"must return a pymc\.Model, got str"),
        (Scaled, "must be the payoff as given"),
        (Centred, "must be the payoff as given"),
        (Unused, "nothing in the model depends on the data 'payoff'"),
    ],
)
def test_models_that_do_not_keep_to_the_protocol(wrong, message):
    stage = bdtr.Stage("a2", actions=[0, 1], formula="x2 + a2", model=wrong("a2", "x2"))
    with pytest.raises(ModelError, match=message):
        bdtr.fit(bdtr.Trial([stage], outcome="y"), study(), random_seed=1, progress=False)


@pytest.mark.parametrize(
    ("q", "message"),
    [
        (lambda posterior, history: np.zeros(3), r"must return mean payoffs \(row, sample\)"),
        (lambda posterior, history: np.full((5, 1000), np.nan), "not finite"),
    ],
)
def test_wrong_q_values(own_last, q, message, monkeypatch):
    monkeypatch.setattr(own_last.trial.stages[1].model, "q", q, raising=False)
    with pytest.raises(ModelError, match=message):
        backward_pass(own_last).q_values(1, np.arange(5))


class ByPayoff(Linear):
    """Priors scaled by the payoff that build is given; whether each row's site is known."""

    def build(self, history, payoff):
        import pymc as pm

        with pm.Model() as model:
            b = pm.Normal("b", [payoff.mean(), 0], payoff.std(), shape=2)
            a = history[self.action].cat.codes.to_numpy()
            sigma = pm.HalfNormal("sigma", payoff.std())
            pm.Normal("y", b[0] + b[1] * a, sigma, observed=pm.Data("payoff", payoff))
        return model

    def q(self, posterior, history):
        b, a = posterior["b"].to_numpy(), history[self.action].cat.codes.to_numpy()
        known = history["site"].notna().to_numpy()
        return b[0] + b[1] * a[:, None] + 100.0 * ~known[:, None]


def test_priors_may_be_scaled_by_the_payoff_and_unseen_sites_are_missing():
    frame = study(120).assign(site=[f"s{i % 6}" for i in range(120)])
    frame["y"] += 50
    stage = bdtr.Stage("a2", actions=[0, 1], formula="a2 + (1 | site)", model=ByPayoff("a2", "x2"))
    fitted = bdtr.fit(
        bdtr.Trial([stage], outcome="y", site="site"),
        frame,
        draws=500,
        random_seed=1,
        progress=False,
    )
    values = bdtr.value(fitted, bdtr.static(a2=0)).table
    assert values["mean"].iloc[-1] == pytest.approx(
        frame.loc[frame["a2"] == 0, "y"].mean(), abs=0.1
    )
    new = pd.DataFrame({"site": ["s1", "elsewhere"]})
    found = bdtr.recommend(fitted, new, sites="new").actions
    assert (found["q_mean"] > 140).all()  # all sites are new then
    seen = bdtr.recommend(fitted, new.iloc[:1]).actions
    assert 40 < seen["q_mean"].iloc[0] < 60


def test_a_formula_with_a_model_only_names_columns():
    frame = study(60).assign(twice=lambda f: 2 * f["x2"])

    def trial(formula):
        stage = bdtr.Stage("a2", actions=[0, 1], formula=formula, model=Linear("a2", "x2"))
        return bdtr.Trial([stage], outcome="y")

    for formula, found in (("log(x2) + a2", r"log\("), ("a2 + (1 | a1:x1)", "a1:x1")):
        with pytest.raises(bdtr.DataError, match=rf"only names columns.*{found}"):
            bdtr.fit(trial(formula), frame, random_seed=1, progress=False)
    # Collinear columns are the model's business.
    settings = {"chains": 2, "draws": 50, "tune": 100, "propagated": 100, "random_seed": 1}
    fitted = bdtr.fit(trial("x2 + twice + a2"), frame, progress=False, **settings)
    assert not fitted.notes


def test_files_are_loaded_with_the_model_they_were_fitted_with(own_last, tmp_path):
    path = str(tmp_path / "fit.nc")
    own_last.save(path)
    with pytest.raises(bdtr.TrialError, match="was fitted with Linear, not with Scaled"):
        bdtr.load(path, models={"a2": Scaled("a2", "x2")})
    with pytest.raises(bdtr.TrialError, match="stage 'a1' has no model of your own"):
        bdtr.load(path, models={"a1": Linear("a1", "x1"), "a2": Linear("a2", "x2")})


SCRIPT = """
import numpy as np, pandas as pd, bdtr

class Mean:
    def build(self, history, payoff):
        import pymc as pm
        with pm.Model() as model:
            b = pm.Normal("b", 0, 5, shape=2)
            a = history["a1"].cat.codes.to_numpy()
            pm.Normal("y", b[a], 1, observed=pm.Data("payoff", payoff))
        return model

    def q(self, posterior, history):
        return posterior["b"].to_numpy()[history["a1"].cat.codes.to_numpy()]

rng = np.random.default_rng(0)
frame = pd.DataFrame(rng.integers(0, 2, (80, 2)), columns=["a1", "a2"])
frame["y"] = frame["a1"] + rng.normal(size=80)
stages = [bdtr.Stage("a1", actions=[0, 1], formula="a1", model=Mean()),
          bdtr.Stage("a2", actions=[0, 1], formula="a1 + a2")]
fit = bdtr.fit(bdtr.Trial(stages, outcome="y"), frame, sampler="direct", chains=2, draws=10,
               propagated=4, tune=100, random_seed=1, progress=False)
print("fitted", fit.posterior(0)["b"].shape)
"""


def test_refits_work_from_a_plain_script(tmp_path):
    """Without "if __name__ == '__main__'", and with the class in the script itself."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["fitted (2, 2, 2)"], done.stderr[-2000:]


def test_the_history_that_a_model_sees():
    """Actions in the user's order, all sites as categories, the delivery cluster in build only."""
    seen = []

    class Looking(Linear):
        def build(self, history, payoff):
            seen.append(history)
            raise InterruptedError

    frame = study(60).assign(site=[f"s{i % 6}" for i in range(60)])
    frame["class"] = [f"c{i}{a}" for i, a in zip(frame["site"], frame["a2"], strict=True)]
    stage = bdtr.Stage(
        "a2", actions=[1, 0], formula="x2 + a2 + (1 | site)", delivered_in="class",
        model=Looking("a2", "x2"),
    )  # fmt: skip
    with pytest.raises(InterruptedError):
        bdtr.fit(bdtr.Trial([stage], outcome="y", site="site"), frame, random_seed=1)
    (history,) = seen
    assert list(history.columns) == ["x2", "a2", "site", "class"]
    assert list(history["a2"].cat.categories) == ["1", "0"]
    assert len(history["site"].cat.categories) == 6
