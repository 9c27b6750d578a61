"""Figures draw what the tables say, with units, kinds of intervals and words in place of sight."""

from __future__ import annotations

import io
import warnings

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import bdtr
from bdtr import plots
from bdtr.decisions.limits import Budget
from bdtr.decisions.plans import plan
from bdtr.decisions.recommendation import recommend_known
from bdtr.plots.style import colour


def timed():
    """Times until an event of two arms."""
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"a": np.arange(120) % 2, "y": rng.exponential(3, 120) + 0.1})
    trial = bdtr.Trial(
        [bdtr.Stage("a", actions=[0, 1], formula="a")], outcome="y", family="weibull"
    )
    return bdtr.fit(trial, data, sampler="direct", draws=100, random_seed=1, progress=False)


def with_gaps():
    """A trial, and data in which values are missing."""
    data = bdtr.datasets.activity(units=60, clinics=6)
    data.loc[::9, "steps0"] = np.nan
    stage = bdtr.Stage("a1", actions=["app", "coach"], formula="steps0 * a1")
    return bdtr.Trial([stage], outcome="steps1"), data


def filled():
    """A fit with imputed values."""
    quick = {"sampler": "direct", "draws": 100, "random_seed": 1, "progress": False}
    return bdtr.fit(*with_gaps(), missing="impute", imputations=4, **quick)


def shifted():
    """Shifts of missing values."""
    return bdtr.checks.tipping_missing(
        *with_gaps(), {"steps0": 500}, sizes=[1], imputations=4, draws=100, random_seed=1
    )


@pytest.fixture(scope="module")
def material(clinic_fit):
    """Results of public functions, by the figure that draws them."""
    fit = clinic_fit
    first, last = fit.designs[0].action, fit.designs[-1].action
    values = bdtr.value(fit)
    sites = bdtr.value(fit, by="site").draws
    blips = bdtr.values.site_blips(fit, first)
    action = str(blips.draws["action"].to_numpy()[1])
    actions = recommend_known(fit, 0.95, None).actions
    actions = actions[actions["choices"] > 1]
    history = [str(c) for c in fit.designs[0].history if c in fit.data.frame][:2]
    number = next(c for c in history if np.issubdtype(fit.data.frame[c].dtype, np.number))
    plans = {"all": plan(fit, first), "half": plan(fit, first, Budget({action: 1}, 0.5))}
    groups = np.arange(len(fit.data)) % 2
    return {
        "value_forest": (values.draws, "points"),
        "value_forest_by_site": (sites, "points"),
        "frontier_plot": (
            bdtr.decisions.equity_frontier(fit, plans, list(groups)).draws,
            "points",
        ),
        "information_worth": (bdtr.decisions.perfect_information(fit).table, "points"),
        "p_optimal": (actions,),
        "p_optimal_over": (bdtr.decisions.over_history(fit, first, number, bins=4).table, first),
        "decision_plot": (bdtr.decisions.blips_along(fit, first, number, points=5), "points"),
        "regret_curve": (actions, "points"),
        "rule_tree": (bdtr.decisions.shallow_tree(fit, first, over=[number], depth=1),),
        "site_caterpillar": (sites, str(sites["regime"].to_numpy()[0]), "points"),
        "blip_caterpillar": (blips.draws, action, "points"),
        "shrinkage_plot": (bdtr.values.shrinkage(fit, first, action).table, "points"),
        "participant_plot": (bdtr.checks.participant_flow(fit),),
        "tipping_missing_plot": (shifted(), "points"),
        "imputed_plot": (bdtr.checks.imputed_values(filled()),),
        "balance_plot": (bdtr.checks.covariate_balance(fit).table,),
        "residual_plot": (bdtr.checks.residuals_along(fit),),
        "overlap_plot": (bdtr.checks.overlap(fit).table,),
        "outcome_plot": (bdtr.checks.outcome_curves(timed()), "points"),
        "predictive_plot": (bdtr.checks.predictive_checks(fit).histograms, "points"),
        "_last": last,
    }


def drawn(name, material):
    return getattr(plots, name)(*material[name])


@pytest.mark.parametrize("name", plots.__all__)
def test_every_figure_says_what_it_shows(name, material):
    figure = drawn(name, material)
    assert figure.get_label().endswith(".")
    assert any(c.isdigit() for c in figure.get_label())
    if name != "participant_plot":  # boxes without axes
        assert any(axes.get_xlabel() for axes in figure.axes)
    takes_units = any(isinstance(one, str) and one == "points" for one in material[name])
    words = " ".join(t.get_text() for t in figure.findobj(mpl.text.Text))
    assert ("points" in words) == takes_units
    figure.savefig(io.BytesIO(), format="svg")


@pytest.mark.parametrize(
    "name", ["value_forest", "site_caterpillar", "decision_plot", "predictive_plot"]
)
def test_intervals_say_their_kind_and_level(name, material):
    words = " ".join(t.get_text() for t in drawn(name, material).findobj(mpl.text.Text))
    assert "95 % equal-tailed interval" in words


def test_dark_figures_are_light_on_dark(material):
    light = colour(0)
    with mpl.rc_context({"figure.facecolor": "black", "text.color": "white"}):
        assert colour(0) != light
        figure = drawn("value_forest", material)
        assert figure.get_facecolor()[:3] == (0, 0, 0)


def test_figures_show_themselves_in_notebooks(material):
    data, about = drawn("value_forest", material)._repr_mimebundle_()
    assert data["image/png"].startswith("iVBOR")  # the first bytes of a PNG
    assert about["image/png"]["alt"] == data["text/plain"]


def test_the_forest_is_the_table(clinic_fit, material):
    table = bdtr.value(clinic_fit).table
    axes = drawn("value_forest", material).axes[0]
    points = next(line for line in axes.lines if line.get_marker() == "o")
    assert points.get_xdata() == pytest.approx(table["mean"].to_numpy())
    segments = np.array(axes.collections[0].get_segments())[:, :, 0]
    assert segments == pytest.approx(table[["lower", "upper"]].to_numpy())


def test_the_flow_has_a_box_for_each_count(clinic_fit, material):
    table = bdtr.checks.participant_flow(clinic_fit).table
    axes = drawn("participant_plot", material).axes[0]
    texts = [t.get_text() for t in axes.texts]
    for stage, own in table.groupby("stage"):
        for (_, _, name), units in own["units"].items():
            assert f"{name}: {units:,}" in texts, stage


def test_cells_with_few_units_are_left_empty(material):
    table, stage = material["p_optimal_over"]
    images = plots.p_optimal_over(table, stage, least=10**6).axes[0].images
    assert images[0].get_array().mask.all()


def test_pages_of_sites(clinic_fit):
    values = bdtr.value(clinic_fit, by="site").draws
    with pytest.raises(ValueError, match="fill 1 page"):
        plots.value_forest_by_site(values, page=2)


def test_labels_are_no_mathematics(material):
    values = material["value_forest"][0]
    odd = values.assign_coords(regime=["$x^2", *map(str, values["regime"].to_numpy()[1:])])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.value_forest(odd, "a $").savefig(io.BytesIO(), format="svg")


def test_shrinkage_by_hand(clinic_fit):
    """Rescaled blips have the spread expected a posteriori: the mean of the variances within draws."""
    first = clinic_fit.designs[0].action
    table = bdtr.values.shrinkage(clinic_fit, first).table
    blips = bdtr.values.site_blips(clinic_fit, first).draws.isel(action=1)
    blips = blips.isel(site=slice(0, -1))
    within = float(blips.var("site").mean())
    assert table["rescaled"].var(ddof=0) == pytest.approx(within, rel=1e-9)
    raw = table["raw"]
    frame = clinic_fit.data.frame
    assert raw.notna().sum() == len(raw) == frame["clinic"].nunique()
    assert raw.var() > table["pooled"].var()
    assert table["pooled"].var() < table["rescaled"].var()
    assert table["pooled"].corr(table["rescaled"]) == pytest.approx(1.0)
