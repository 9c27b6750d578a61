"""Figures from labelled results of public functions; they draw, and only draw."""

from bdtr.plots.choices import decision_plot, p_optimal, p_optimal_over, regret_curve, rule_tree
from bdtr.plots.design import balance_plot, overlap_plot, predictive_plot, stage_flow_plot
from bdtr.plots.places import blip_caterpillar, shrinkage_plot, site_caterpillar
from bdtr.plots.worth import (
    equity_frontier,
    information_worth,
    value_forest,
    value_forest_by_site,
)

__all__ = [
    "balance_plot",
    "blip_caterpillar",
    "decision_plot",
    "equity_frontier",
    "information_worth",
    "overlap_plot",
    "p_optimal",
    "p_optimal_over",
    "predictive_plot",
    "regret_curve",
    "rule_tree",
    "shrinkage_plot",
    "site_caterpillar",
    "stage_flow_plot",
    "value_forest",
    "value_forest_by_site",
]
