"""Recipes of stage models: one contract for all of them, and each against a truth that it is made for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import expit

import bdtr
from bdtr.results.diagnostics import gate_decisions
from bdtr.stages.stagemodel import StageModel, own_draws
from models.hsgp_blip import HSGPBlip
from models.hurdle import Hurdle
from models.imperfect_biomarker import ImperfectBiomarker

MODELS = Path(__file__).parent.parent / "models"
ACTIONS = ["none", "call", "visit"]

SENSITIVITY, SPECIFICITY = 0.8, 0.9
RECIPES = {
    "hsgp_blip": HSGPBlip("a", "t", (-2.0, 2.0), ("x",)),
    "hurdle": Hurdle("a", "site", ("x", "t"), ("t",)),
    "imperfect_biomarker": ImperfectBiomarker(
        "a", "test", SENSITIVITY, SPECIFICITY, ("x",), ("t",)
    ),
}
SITE_SD = 0.4


def curve(t):
    return np.where(t > 0, np.sin(2.0 * t), 0.0)


def people(recipe: str, n: int = 900) -> pd.DataFrame:
    """What each recipe is made for: visits that help along a curve, visits that bring more people to
    practise and each of them for a shorter time, responders whom visits harm and others whom they help."""
    rng = np.random.default_rng(4)
    t, x, site = rng.uniform(-2, 2, n), rng.normal(size=n), rng.integers(0, 15, n)
    a = rng.integers(0, 3, n)
    responds = rng.random(n) < expit(t)
    test = np.where(responds, rng.random(n) < SENSITIVITY, rng.random(n) > SPECIFICITY)
    y = 0.5 * x + 0.2 * (a == 1) + rng.normal(scale=0.5, size=n)
    if recipe == "hsgp_blip":
        y += 0.5 * t**2 + curve(t) * (a == 2)
    elif recipe == "hurdle":
        u = SITE_SD * rng.normal(size=(2, 15))[:, site]
        some = rng.random(n) < expit(-0.5 + (0.8 + 0.5 * t) * (a == 2) + u[0])
        y = np.where(some, np.exp(y + 1.0 - 0.4 * (a == 2) + u[1]), 0.0)
    else:
        y += np.where(responds, 1.0, 0.0) + np.where(responds, -1.0, 1.0) * (a == 2)
    labels = pd.Series([f"S{s}" for s in site])
    actions = np.array(ACTIONS)[a]
    return pd.DataFrame(
        {"x": x, "t": t, "site": labels, "test": test.astype(int), "a": actions, "y": y}
    )


@pytest.fixture(scope="module")
def fits():
    made = {}

    def fitted(name: str) -> bdtr.Fit:
        if name not in made:
            stage = bdtr.Stage("a", ACTIONS, "x + t + test + a + (1 | site)", model=RECIPES[name])
            trial = bdtr.Trial([stage], "y", site="site")
            made[name] = bdtr.fit(
                trial,
                people(name),
                draws=1000,
                tune=1000,
                propagated=1000,
                random_seed=1,
                progress=False,
            )
        return made[name]

    return fitted


def history(name: str) -> pd.DataFrame:
    frame = people(name, 60)
    return frame.assign(
        a=pd.Categorical(frame["a"], categories=ACTIONS),
        site=pd.Categorical(frame["site"], categories=sorted(frame["site"].unique())),
    )


def test_every_recipe_is_tested():
    assert set(RECIPES) == {path.stem for path in MODELS.glob("*.py")}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_keeps_its_contract(name):
    import pymc as pm

    builder, seen = RECIPES[name], history(name)
    assert isinstance(builder, StageModel)
    for word in ("Mathematics.", "Dims.", "Priors.", "References."):
        assert word in (MODELS / f"{name}.py").read_text(encoding="utf-8")
    model = builder.build(seen, seen["y"].to_numpy())
    for variable in (*model.free_RVs, *model.deterministics):
        dims = model.named_vars_to_dims.get(variable.name, ())
        assert len(dims) == variable.ndim, variable.name
    # What q says is the mean of what build says, at some draw from the prior.
    names = [v.name for v in model.free_RVs]
    values = dict(
        zip(
            names,
            pm.draw([model[n] for n in names], random_seed=2, mode="FAST_COMPILE"),
            strict=True,
        )
    )
    if name == "hurdle":
        values["sigma"] = np.array(0.5)  # a mean of draws must settle
    fixed = pm.do(model, values)
    shown = [v.name for v in model.deterministics]
    shown_values = (
        pm.draw([fixed[n] for n in shown], random_seed=3, mode="FAST_COMPILE") if shown else []
    )
    posterior = {
        n: xr.DataArray(
            np.asarray(v)[..., None], dims=(*model.named_vars_to_dims.get(n, ()), "sample")
        )
        for n, v in {**values, **dict(zip(shown, shown_values, strict=True))}.items()
    }
    drawn = pm.draw(fixed["y"], draws=2000, random_seed=4, mode="FAST_COMPILE")
    found = builder.q(xr.Dataset(posterior), seen)
    assert found.shape == (len(seen), 1)
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert np.abs((found[:, 0] - drawn.mean(axis=0)) / error).max() < 4.5


def blips(fit: bdtr.Fit, frame: pd.DataFrame) -> np.ndarray:
    """Posterior draws of what a visit adds (row, sample)."""
    q = fit.q_function(0)(frame)
    return q[2] - q[0]


def test_a_smooth_blip_is_found(fits):
    fit = fits("hsgp_blip")
    frame = fit.require_data("a test").frame.iloc[:60].assign(t=np.linspace(-2, 2, 60))
    drawn, truth = blips(fit, frame), curve(frame["t"].to_numpy())
    # Weights of single functions may mix slowly; what is decided from them must not.
    chains = xr.DataArray(drawn.reshape(60, 4, -1), dims=("row", "chain", "draw"))
    assert gate_decisions(chains.to_dataset(name="blip"), 1.01).level == "ok"
    lower, upper = np.quantile(drawn, [0.025, 0.975], axis=1)
    assert np.mean((lower < truth) & (truth < upper)) > 0.85
    # The best straight line misses the curve by .41.
    assert np.sqrt(np.mean((drawn.mean(axis=1) - truth) ** 2)) < 0.13
    for end in (-1.0, 1.0):
        beyond = blips(fit, frame.assign(t=end * (2.0 + np.arange(60.0))))
        assert np.ptp(beyond.mean(axis=1)) == pytest.approx(0.0, abs=1e-9)


def test_whether_and_how_much(fits):
    """Visits bring more people to practise, and each of them for a shorter time: both parts are found, and
    the mean payoff is that of the two together."""
    fit = fits("hurdle")
    assert fit.state.level == "ok", fit.state
    draws = fit.posterior(0)
    for name, at, truth in (
        ("d", {"action": "visit", "part": "whether"}, 0.8),
        ("d", {"action": "visit", "part": "how much"}, -0.4),
        ("c", {"action": "visit", "part": "whether", "modifier": "t"}, 0.5),
        ("b", {"term": "x", "part": "how much"}, 0.5),
    ):
        own = draws[name].sel(at)
        assert float(own.mean()) == pytest.approx(truth, abs=3.5 * float(own.std()))
    tau = draws["tau"].quantile([0.025, 0.975], ("chain", "draw"))
    assert (tau.sel(quantile=0.025) < SITE_SD).all() and (tau.sel(quantile=0.975) > SITE_SD).all()
    data = fit.require_data("a test")
    seen = data.frame.assign(payoff=data.payoff).groupby("a", observed=True)["payoff"]
    for k, (action, mean) in enumerate(seen.mean().items()):
        rows = data.frame[data.frame["a"] == action]
        q = fit.q_function(0)(rows)[k].mean(axis=0)
        assert q.mean() == pytest.approx(mean, abs=4 * seen.sem()[action]), action


def test_a_test_that_errs_is_not_the_response(fits):
    fit = fits("imperfect_biomarker")
    assert fit.state.level == "ok"
    found, data = fit.posterior(0)["d"].sel(action="visit"), people("imperfect_biomarker")
    for test, response, truth in ((0, "non-responder", 1.0), (1, "responder", -1.0)):
        own = found.sel(response=response)
        assert float(own.mean()) == pytest.approx(truth, abs=3.5 * float(own.std()))
        # Taking the test for the truth mixes the two groups: its answer is not within the interval.
        group = data[data["test"] == test]
        taken = [group["a"] == "call", group["a"] == "visit", np.ones(len(group))]
        columns = np.column_stack([group["x"], *taken]).astype(float)
        naive = np.linalg.lstsq(columns, group["y"].to_numpy(), rcond=None)[0][2]
        assert abs(naive) < abs(truth)
        assert not float(own.quantile(0.025)) < naive < float(own.quantile(0.975))
    # Among those with a positive test the share of responders is .889 at t = 0: -1 w + (1 - w).
    frame = fit.require_data("a test").frame.iloc[:2].assign(t=0.0, test=[1, 0])
    w = np.array([SENSITIVITY, 1 - SENSITIVITY])
    w = w / (w + np.array([1 - SPECIFICITY, SPECIFICITY]))
    drawn = blips(fit, frame)
    assert drawn.mean(axis=1) == pytest.approx(1.0 - 2.0 * w, abs=3.5 * drawn.std(axis=1).max())


def test_a_site_that_the_fit_has_not_seen_is_the_mean_one(fits):
    fit = fits("hurdle")
    frame = fit.require_data("a test").frame.iloc[:1].assign(site="S99", t=0.5, x=2.0)
    draws = fit.posterior(0).stack(sample=("chain", "draw"))
    b, c = draws["b"], draws["c"].sel(action="visit", modifier="t")
    eta = draws["a"] + 2.0 * b.sel(term="x") + 0.5 * b.sel(term="t")
    q = fit.q_function(0)(frame)
    for k, add in ((0, 0.0), (2, draws["d"].sel(action="visit") + 0.5 * c)):
        whether, how_much = (eta + add).transpose("part", "sample").to_numpy()
        right = expit(whether) * np.exp(how_much + 0.5 * draws["sigma"].to_numpy() ** 2)
        assert q[k, 0] == pytest.approx(right)


PLAIN = [
    HSGPBlip("a", "t", (-2.0, 2.0)),
    Hurdle("a", "site"),
    ImperfectBiomarker("a", "test", SENSITIVITY, SPECIFICITY),
]


@pytest.mark.parametrize("plain", PLAIN, ids=lambda one: type(one).__name__)
def test_recipes_work_without_further_columns(plain):
    seen = history("hurdle")
    model = plain.build(seen, seen["y"].to_numpy())
    coords = {name: list(labels) for name, labels in model.coords.items()}
    zeros = {
        v.name: (
            ("chain", "draw", *model.named_vars_to_dims.get(v.name, ())),
            np.zeros((1, 2, *(len(coords[d]) for d in model.named_vars_to_dims.get(v.name, ())))),
        )
        for v in (*model.free_RVs, *model.deterministics)
    }
    drawn = own_draws(xr.Dataset(zeros))
    assert plain.q(drawn.posterior, seen).shape == (len(seen), drawn.samples)


def test_what_cannot_be_is_refused():
    for values in ((0.5, 0.5), (1.0, 0.9), (0.9, 0.0)):
        with pytest.raises(ValueError, match="sensitivity"):
            ImperfectBiomarker("a", "test", *values)
    with pytest.raises(ValueError, match="support"):
        HSGPBlip("a", "t", (2.0, -2.0))
    with pytest.raises(ValueError, match="tailoring: 't' must be among"):
        Hurdle("a", "site", linear=("x",), tailoring=("t",))
    with pytest.raises(ValueError, match="payoff: must be 0 or above"):
        RECIPES["hurdle"].build(history("hurdle"), -np.ones(60))
    seen = history("imperfect_biomarker")
    with pytest.raises(ValueError, match="test: must be 0 or 1"):
        RECIPES["imperfect_biomarker"].build(seen.assign(test=0.5), seen["y"].to_numpy())
