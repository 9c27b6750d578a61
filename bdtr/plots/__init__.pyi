from .checks import (
    balance_plot as balance_plot,
    outcome_plot as outcome_plot,
    overlap_plot as overlap_plot,
    predictive_plot as predictive_plot,
)
from .decisions import (
    decision_plot as decision_plot,
    p_optimal as p_optimal,
    p_optimal_over as p_optimal_over,
    regret_curve as regret_curve,
    rule_tree as rule_tree,
)
from .missing import (
    imputed_plot as imputed_plot,
    tipping_missing_plot as tipping_missing_plot,
)
from .participants import participant_plot as participant_plot
from .residuals import residual_plot as residual_plot
from .sites import (
    blip_caterpillar as blip_caterpillar,
    shrinkage_plot as shrinkage_plot,
    site_caterpillar as site_caterpillar,
)
from .values import (
    frontier_plot as frontier_plot,
    information_worth as information_worth,
    value_forest as value_forest,
    value_forest_by_site as value_forest_by_site,
)
