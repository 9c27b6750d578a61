"""Arguments of every public function replaced by values of wrong types: bdtr's own error, of one line."""

from __future__ import annotations

import contextlib
import inspect
import io

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import bdtr
from bdtr.results.errors import BdtrError

mpl.use("Agg")

N = 160
RNG = np.random.default_rng(5)
FRAME = pd.DataFrame(
    {
        "id": [f"u{i}" for i in range(N)],
        "site": [f"s{i % 8}" for i in range(N)],
        "x": RNG.normal(size=N),
        "a1": RNG.integers(0, 2, N),
        "a2": RNG.integers(0, 2, N),
        "r": RNG.normal(size=N),
    }
)
FRAME["y"] = FRAME.x * FRAME.a1 + FRAME.a2 * FRAME.r + RNG.normal(size=N)
STAGES = [
    bdtr.Stage("a1", actions=[0, 1], formula="x*a1 + (1 + a1 | site)"),
    bdtr.Stage("a2", actions=[0, 1], formula="x + a1 + r*a2 + (1 + a2 | site)"),
]
TRIAL = bdtr.Trial(STAGES, outcome="y", site="site", unit="id")
QUICK = {"sampler": "direct", "draws": 100, "propagated": 200, "random_seed": 1, "progress": False}

WRONG = {
    "-1.5": -1.5,
    "text": "no",
    "empty text": "",
    "text of two lines": "a\nb",
    "empty list": [],
    "list of text": ["no"],
    "mapping": {"a2": 3},
    "mapping of mappings": {"a2": {"1": "no"}},
    "object": object(),
    "array": np.arange(3),
    "frame": FRAME,
    "series": FRAME["x"],
    "NaN": float("nan"),
    "infinity": float("inf"),
    "True": True,
    "bytes": b"no",
    "too large for a float": 10**400,
    "function": len,
    "type": dict,
}
# Where a value of these is none of a wrong type.
TEXTS = {"name", "path", "override", "title", "command", "stage", "unit", "action", "formula", "outcome",
         "site", "delivered_in", "reward", "weights", "exposure"}  # fmt: skip
LISTS = {"actions", "thresholds", "sizes"}
# Parameters for which a value is none of a wrong type: they are passed over.
RIGHT = {
    "-1.5": {"actions", "limit", "mu", "reference", "rules", "thresholds"},
    "text": TEXTS | {"actions", "rules", "unit"},
    "text of two lines": TEXTS | {"actions", "rules"},
    "empty text": {"override", "title", "command", "name", "unit", "stage"},
    "empty list": {"auxiliary", "chosen", "regimes", "site_terms", "sizes", "thresholds"},
    "mapping": {"costs", "rules"},
    "array": LISTS,
    "frame": {"data"},
    "series": LISTS,
    "True": {"action", "actions", "data", "earlier_clusters", "earlier_terms", "higher_is_better", "progress",
             "reference", "rules", "site_means", "tailored", "thorough", "pdf"},
    "infinity": {"bound"},
    "too large for a float": {"random_seed", "seed", "bins", "draws", "least", "min_cell", "points"},
    "function": {"rules", "utility"},
    "type": {"rules"},
}  # fmt: skip
LATER = (
    "by",
    "group",
    "than",
    "action",
    "reference",
    "against",
)  # of a limit: seen where it meets a fit


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """A call of each function with right arguments."""
    place = str(tmp_path_factory.mktemp("arguments"))
    fit = bdtr.fit(TRIAL, FRAME, **QUICK)
    fit.save(f"{place}/fit.nc")
    regimes = [bdtr.static("all", a1=1, a2=1), bdtr.static("none", a1=0, a2=0)]
    values, at_sites = bdtr.value(fit, *regimes), bdtr.value(fit, *regimes, by="site")
    plan = bdtr.decisions.plan(fit, "a2", bdtr.decisions.Budget({"1": 1.0}, 0.2))
    blips, along = bdtr.values.site_blips(fit, "a2"), bdtr.decisions.blips_along(fit, "a2", "r")
    found, tree = bdtr.recommend(fit, FRAME.head(5)), bdtr.decisions.shallow_tree(fit, "a2", ["r"])
    frontier = bdtr.decisions.equity_frontier(fit, {"p": plan}, "site", "value")
    over = bdtr.decisions.over_history(fit, "a2", "r")
    one = bdtr.Trial(
        [bdtr.Stage("a1", actions=[0, 1], formula="a1")], outcome="r", family="poisson"
    )
    counted = bdtr.fit(one, FRAME.assign(r=(FRAME["r"] > 0) * 1), **QUICK)

    gone = FRAME.assign(r=FRAME["r"].where(np.arange(len(FRAME)) % 9 > 0).astype(float))
    few = {"sizes": [1], "imputations": 5, "draws": 100, "propagated": 200, "random_seed": 1}
    tipping = bdtr.checks.tipping_missing(TRIAL, gone, {"r": 1}, *regimes, **few)
    filled = bdtr.fit(TRIAL, gone, missing="impute", imputations=5, **QUICK)

    def call(function, *arguments, **words):
        return function, arguments, words

    asked = {
        "value": call(bdtr.value, fit, regimes[0]),
        "fit": call(bdtr.fit, TRIAL, FRAME, **QUICK),
        "recommended": call(bdtr.recommended),
        "embedded": call(bdtr.embedded, fit),
        "static": call(bdtr.static, "n", a1=1),
        "rule": call(bdtr.rule, "n", a1="1"),
        "crossfit": call(bdtr.crossfit, fit, propagated=200),
        "load": call(bdtr.load, f"{place}/fit.nc"),
        "report": call(bdtr.report, fit, f"{place}/page.html"),
        "recommend": call(bdtr.recommend, fit, FRAME.head(5)),
        "summary": call(fit.summary),
        "backward_pass": call(bdtr.backward.backward_pass, fit),
        "backward_passes": call(bdtr.backward.backward_passes, fit, [None]),
        "posterior": call(fit.posterior, 0),
        "draws": call(fit.draws, "a1"),
        "save": call(fit.save, f"{place}/again.nc"),
        "add_groups": call(fit.add_groups, "log_likelihood"),
        "attrition": call(bdtr.checks.attrition, fit),
        "covariate_balance": call(bdtr.checks.covariate_balance, fit),
        "overlap": call(bdtr.checks.overlap, fit),
        "residuals_along": call(bdtr.checks.residuals_along, fit),
        "tipping_missing": call(bdtr.checks.tipping_missing, TRIAL, gone, {"r": 1}, regimes[0], **few),
        "imputed_values": call(bdtr.checks.imputed_values, filled),
        "participant_flow": call(bdtr.checks.participant_flow, fit),
        "compare": call(bdtr.values.compare, values),
        "ranks": call(bdtr.values.ranks, values),
        "set_of_best": call(bdtr.values.set_of_best, values),
        "activity": call(bdtr.datasets.activity, units=20, clinics=4),
        "effect_sizes": call(bdtr.values.effect_sizes, fit, values),
        "effect_measures": call(bdtr.values.effect_measures, fit, values),
        "equity_frontier": call(bdtr.decisions.equity_frontier, fit, {"p": plan}, "site", "value"),
        "equity_by_group": call(bdtr.decisions.equity_by_group, fit, plan, "site"),
        "sample_information": call(bdtr.decisions.sample_information, fit, "a2", (10,), simulations=20),
        "perfect_information": call(bdtr.decisions.perfect_information, fit),
        "site_information": call(bdtr.decisions.site_information, fit),
        "draw_wise_maximum": call(bdtr.values.draw_wise_maximum, fit, 0.1),
        "second_opinion": call(bdtr.checks.second_opinion, fit, regimes[0]),
        "plan": call(bdtr.decisions.plan, fit, "a2"),
        "predictive_checks": call(bdtr.checks.predictive_checks, fit, 20),
        "outcome_curves": call(bdtr.checks.outcome_curves, counted, 20),
        "confounded": call(bdtr.checks.confounded, fit, {"a2": {"1": 0.1}}, regimes[0]),
        "compare_ways": call(bdtr.checks.compare_ways, fit, regimes[0], states={"r": "x * a1"}),
        "StateModel": call(bdtr.trial.StateModel, "x * a1", "poisson", exposure="e"),
        "prior_widths": call(bdtr.checks.prior_widths, fit, regimes[0], factors=[2.0]),
        "tipping_points": call(bdtr.checks.tipping_points, fit, "a2"),
        "tipping_regime": call(bdtr.checks.tipping_regime, fit, "a2", (1, 0), regimes, steps=1),
        "pooling": call(bdtr.values.pooling, fit),
        "shrinkage": call(bdtr.values.shrinkage, fit),
        "site_blips": call(bdtr.values.site_blips, fit),
        "same_best_action": call(bdtr.values.same_best_action, blips),
        "blips_along": call(bdtr.decisions.blips_along, fit, "a2", "r"),
        "over_history": call(bdtr.decisions.over_history, fit, "a2", "r"),
        "tailoring_columns": call(bdtr.decisions.tailoring_columns, fit, "a2"),
        "shallow_tree": call(bdtr.decisions.shallow_tree, fit, "a2", ["r"]),
        "Stage": call(bdtr.Stage, "a1", actions=[0, 1], formula="x"),
        "Trial": call(bdtr.Trial, STAGES, outcome="y"),
        "from_dict": call(bdtr.Trial.from_dict, TRIAL.to_dict()),
        "Regime": call(bdtr.backward.Regime, "r", {"a1": "1"}),
        "Normal": call(bdtr.trial.Normal, 0, 1),
        "HalfNormal": call(bdtr.trial.HalfNormal, 1),
        "HalfStudentT": call(bdtr.trial.HalfStudentT, 3, 1),
        "Exponential": call(bdtr.trial.Exponential, 1),
        "Gamma": call(bdtr.trial.Gamma, 2, 0.1),
        "LKJ": call(bdtr.trial.LKJ, 2),
        "Quantile": call(bdtr.decisions.Quantile, 0.1),
        "WorstMean": call(bdtr.decisions.WorstMean, 0.1),
        "Budget": call(bdtr.decisions.Budget, {"1": 1.0}, 0.3),
        "Gap": call(bdtr.decisions.Gap, "site", 0.3),
        "read": call(bdtr.trial.read, "absent.toml"),
        "protocol_from_text": call(bdtr.trial.protocol_from_text, bdtr.trial.protocol_to_text(TRIAL)),
        "read_data": call(bdtr.data.read_data, "absent.csv", TRIAL),
        "protocol_to_text": call(bdtr.trial.protocol_to_text, TRIAL),
        "write": call(bdtr.trial.write, TRIAL, f"{place}/trial.toml"),
        "participant_plot": call(bdtr.plots.participant_plot, bdtr.checks.participant_flow(fit)),
        "tipping_missing_plot": call(bdtr.plots.tipping_missing_plot, tipping),
        "imputed_plot": call(bdtr.plots.imputed_plot, bdtr.checks.imputed_values(filled)),
        "balance_plot": call(bdtr.plots.balance_plot, bdtr.checks.covariate_balance(fit)),
        "residual_plot": call(bdtr.plots.residual_plot, bdtr.checks.residuals_along(fit)),
        "overlap_plot": call(bdtr.plots.overlap_plot, bdtr.checks.overlap(fit)),
        "outcome_plot": call(bdtr.plots.outcome_plot, bdtr.checks.outcome_curves(counted, 20)),
        "predictive_plot": call(bdtr.plots.predictive_plot, bdtr.checks.predictive_checks(fit, 20)),
        "p_optimal": call(bdtr.plots.p_optimal, found),
        "regret_curve": call(bdtr.plots.regret_curve, found),
        "p_optimal_over": call(bdtr.plots.p_optimal_over, over, "a2"),
        "decision_plot": call(bdtr.plots.decision_plot, along),
        "rule_tree": call(bdtr.plots.rule_tree, tree),
        "value_forest": call(bdtr.plots.value_forest, values),
        "value_forest_by_site": call(bdtr.plots.value_forest_by_site, at_sites),
        "site_caterpillar": call(bdtr.plots.site_caterpillar, at_sites, "all"),
        "blip_caterpillar": call(bdtr.plots.blip_caterpillar, blips, "1"),
        "shrinkage_plot": call(bdtr.plots.shrinkage_plot, bdtr.values.shrinkage(fit)),
        "frontier_plot": call(bdtr.plots.frontier_plot, frontier),
        "information_worth": call(bdtr.plots.information_worth, bdtr.decisions.perfect_information(fit)),
    }  # fmt: skip
    return asked


def refusal(function, arguments, words):
    """What is wrong with the error of a call, or with there being none."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            function(*arguments, **words)
    except BdtrError as error:
        said = str(error)
        return "" if "\n" not in said and len(said) < 1500 and "\x1b" not in said else said
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


def with_wrong(function, arguments, words, place, parameter, value):
    """The call with one argument replaced."""
    if parameter.kind is parameter.VAR_KEYWORD:
        return arguments, {**words, "a1": value}
    if parameter.kind is parameter.VAR_POSITIONAL:
        return (*arguments[:place], value), words
    if place < len(arguments) and parameter.kind is not parameter.KEYWORD_ONLY:
        return (*arguments[:place], value, *arguments[place + 1 :]), words
    return arguments, {**words, parameter.name: value}


def test_right_arguments(calls):
    absent = {"read", "read_data"}
    for name, (function, arguments, words) in calls.items():
        if name not in absent | {"report", "fit", "crossfit", "second_opinion", "prior_widths"}:
            assert refusal(function, arguments, words) == "accepted", name


def test_every_function_is_here(calls):
    wings = (bdtr.trial, bdtr.backward, bdtr.values, bdtr.decisions, bdtr.checks, bdtr.plots)
    for wing in wings:
        public = {n for n in dir(wing) if inspect.isfunction(getattr(wing, n))}
        assert public <= set(calls), wing.__name__


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_arguments(calls, wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value, right, found = WRONG[wrong], RIGHT.get(wrong, set()), []
    for name, (function, arguments, words) in calls.items():
        for place, parameter in enumerate(inspect.signature(function).parameters.values()):
            if parameter.name in right or (name in ("Budget", "Gap") and parameter.name in LATER):
                continue
            own, rest = with_wrong(function, arguments, words, place, parameter, value)
            said = refusal(function, own, rest)
            if said:
                found.append(f"{name}({parameter.name}): {said[:200]}")
    assert not found, "\n".join(found)
