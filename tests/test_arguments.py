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
from bdtr import (
    balance,
    comparison,
    datafiles,
    effects,
    equity,
    information,
    maximum,
    opinion,
    planning,
    plots,
    predictive,
    priors,
    protocol,
    risk,
    sensitivity,
    sites,
    tailoring,
    trees,
)
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
         "site", "delivered_in", "reward", "weights"}  # fmt: skip
LISTS = {"actions", "thresholds", "sizes"}
# Parameters for which a value is none of a wrong type: they are passed over.
RIGHT = {
    "-1.5": {"actions", "limit", "mu", "reference", "rules", "thresholds"},
    "text": TEXTS | {"actions", "rules", "unit"},
    "text of two lines": TEXTS | {"actions", "rules"},
    "empty text": {"override", "title", "command", "name", "unit", "stage"},
    "empty list": {"chosen", "regimes", "site_terms", "sizes", "thresholds"},
    "mapping": {"costs", "rules"},
    "array": LISTS,
    "frame": {"data"},
    "series": LISTS,
    "True": {"action", "actions", "data", "earlier_clusters", "earlier_terms", "higher_is_better", "progress",
             "reference", "rules", "site_means", "tailored", "thorough", "pdf"},
    "infinity": {"bound"},
    "too large for a float": {"random_seed", "seed", "bins", "draws", "least", "min_cell", "points"},
    "function": {"rules"},
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
    plan = planning.plan(fit, "a2", planning.Budget({"1": 1.0}, 0.2))
    blips, along = sites.site_blips(fit, "a2"), tailoring.blips_along(fit, "a2", "r")
    found, tree = bdtr.recommend(fit, FRAME.head(5)), trees.shallow_tree(fit, "a2", ["r"])
    frontier = equity.equity_frontier(fit, {"p": plan}, "site", "value")
    over = tailoring.over_history(fit, "a2", "r")

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
        "recommend": call(fit.recommend, FRAME.head(5)),
        "summary": call(fit.summary),
        "passed": call(fit.passed),
        "passes": call(fit.passes, [None]),
        "posterior": call(fit.posterior, 0),
        "draws": call(fit.draws, "a1"),
        "save": call(fit.save, f"{place}/again.nc"),
        "add_groups": call(fit.add_groups, "log_likelihood"),
        "compared": call(values.compared),
        "attrition": call(balance.attrition, fit),
        "balance": call(balance.covariate_balance, fit),
        "overlap": call(balance.overlap, fit),
        "stage_flow": call(balance.stage_flow, fit),
        "contrasts": call(comparison.compare, values),
        "ranks": call(comparison.ranks, values),
        "set_of_best": call(comparison.set_of_best, values),
        "activity": call(bdtr.datasets.activity, units=20, clinics=4),
        "effect_sizes": call(effects.effect_sizes, fit, values),
        "frontier": call(equity.equity_frontier, fit, {"p": plan}, "site", "value"),
        "groups": call(equity.equity_by_group, fit, plan, "site"),
        "new_trial": call(information.sample_information, fit, "a2", (10,), simulations=20),
        "perfect": call(information.perfect_information, fit),
        "sites": call(information.site_information, fit),
        "draw_wise_maximum": call(maximum.draw_wise_maximum, fit, 0.1),
        "second_opinion": call(opinion.second_opinion, fit, regimes[0]),
        "plan": call(planning.plan, fit, "a2"),
        "predictive_checks": call(predictive.predictive_checks, fit, 20),
        "confounded": call(sensitivity.confounded, fit, {"a2": {"1": 0.1}}, regimes[0]),
        "prior_widths": call(sensitivity.prior_widths, fit, regimes[0], factors=[2.0]),
        "tipping_points": call(sensitivity.tipping_points, fit, "a2"),
        "tipping_regime": call(sensitivity.tipping_regime, fit, "a2", (1, 0), regimes, steps=1),
        "pooling": call(sites.pooling, fit),
        "shrinkage": call(sites.shrinkage, fit),
        "site_blips": call(sites.site_blips, fit),
        "same_best_action": call(sites.same_best_action, blips),
        "blips_along": call(tailoring.blips_along, fit, "a2", "r"),
        "over_history": call(tailoring.over_history, fit, "a2", "r"),
        "tailoring_columns": call(tailoring.tailoring_columns, fit, "a2"),
        "shallow_tree": call(trees.shallow_tree, fit, "a2", ["r"]),
        "Stage": call(bdtr.Stage, "a1", actions=[0, 1], formula="x"),
        "Trial": call(bdtr.Trial, STAGES, outcome="y"),
        "from_dict": call(bdtr.Trial.from_dict, TRIAL.to_dict()),
        "from_toml": call(bdtr.Trial.from_toml, TRIAL.to_toml()),
        "Regime": call(bdtr.Regime, "r", {"a1": "1"}),
        "Normal": call(priors.Normal, 0, 1),
        "HalfNormal": call(priors.HalfNormal, 1),
        "HalfStudentT": call(priors.HalfStudentT, 3, 1),
        "Exponential": call(priors.Exponential, 1),
        "LKJ": call(priors.LKJ, 2),
        "Quantile": call(risk.Quantile, 0.1),
        "WorstMean": call(risk.WorstMean, 0.1),
        "Budget": call(planning.Budget, {"1": 1.0}, 0.3),
        "Gap": call(planning.Gap, "site", 0.3),
        "read_protocol": call(protocol.read_protocol, "absent.toml"),
        "protocol_from_text": call(protocol.protocol_from_text, TRIAL.to_toml()),
        "read_data": call(datafiles.read_data, "absent.csv", TRIAL),
        "write_protocol": call(protocol.write_protocol, TRIAL),
        "stage_flow_plot": call(plots.stage_flow_plot, balance.stage_flow(fit)),
        "balance_plot": call(plots.balance_plot, balance.covariate_balance(fit)),
        "overlap_plot": call(plots.overlap_plot, balance.overlap(fit)),
        "predictive_plot": call(plots.predictive_plot, predictive.predictive_checks(fit, 20)),
        "p_optimal": call(plots.p_optimal, found),
        "regret_curve": call(plots.regret_curve, found),
        "p_optimal_over": call(plots.p_optimal_over, over, "a2"),
        "decision_plot": call(plots.decision_plot, along),
        "rule_tree": call(plots.rule_tree, tree),
        "value_forest": call(plots.value_forest, values),
        "value_forest_by_site": call(plots.value_forest_by_site, at_sites),
        "site_caterpillar": call(plots.site_caterpillar, at_sites, "all"),
        "blip_caterpillar": call(plots.blip_caterpillar, blips, "1"),
        "shrinkage_plot": call(plots.shrinkage_plot, sites.shrinkage(fit)),
        "equity_frontier": call(plots.equity_frontier, frontier),
        "information_worth": call(plots.information_worth, information.perfect_information(fit)),
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
    absent = {"read_protocol", "read_data"}
    for name, (function, arguments, words) in calls.items():
        if name not in absent | {"report", "fit", "crossfit", "second_opinion", "prior_widths"}:
            assert refusal(function, arguments, words) == "accepted", name


def test_every_function_is_here(calls):
    rooms = (balance, comparison, effects, equity, information, maximum, opinion, plots, predictive)
    rooms = (*rooms, sensitivity, sites, tailoring, trees)
    inner = {"covariates", "design_effect"}  # of arrays: checks are those of their callers
    for room in rooms:
        public = {n for n in room.__all__ if inspect.isfunction(getattr(room, n))}
        assert public - inner <= set(calls), room.__name__


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
