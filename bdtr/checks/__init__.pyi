from .balance import (
    covariate_balance as covariate_balance,
    overlap as overlap,
)
from .confounding import (
    Confounded as Confounded,
    TippingPoints as TippingPoints,
    confounded as confounded,
    tipping_points as tipping_points,
    tipping_regime as tipping_regime,
)
from .curves import OutcomeCurves as OutcomeCurves, outcome_curves as outcome_curves
from .imputed import ImputedValues as ImputedValues, imputed_values as imputed_values
from .missing import MissingTipping as MissingTipping, tipping_missing as tipping_missing
from .opinion import Opinion as Opinion, second_opinion as second_opinion
from .participants import (
    Participants as Participants,
    attrition as attrition,
    participant_flow as participant_flow,
)
from .predictive import PredictiveChecks as PredictiveChecks, predictive_checks as predictive_checks
from .prior_sensitivity import PriorWidths as PriorWidths, prior_widths as prior_widths
from .residuals import residuals_along as residuals_along
from .ways import Ways as Ways, compare_ways as compare_ways
