from .balance import (
    attrition as attrition,
    covariate_balance as covariate_balance,
    overlap as overlap,
    stage_flow as stage_flow,
)
from .confounding import (
    Confounded as Confounded,
    TippingPoints as TippingPoints,
    confounded as confounded,
    tipping_points as tipping_points,
    tipping_regime as tipping_regime,
)
from .curves import OutcomeCurves as OutcomeCurves, outcome_curves as outcome_curves
from .opinion import Opinion as Opinion, second_opinion as second_opinion
from .predictive import PredictiveChecks as PredictiveChecks, predictive_checks as predictive_checks
from .prior_sensitivity import PriorWidths as PriorWidths, prior_widths as prior_widths
