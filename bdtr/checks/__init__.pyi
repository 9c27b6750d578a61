from .assignment import treatment_probabilities as treatment_probabilities
from .balance import (
    attrition as attrition,
)
from .balance import (
    covariate_balance as covariate_balance,
)
from .balance import (
    overlap as overlap,
)
from .balance import (
    stage_flow as stage_flow,
)
from .opinion import Opinion as Opinion
from .opinion import second_opinion as second_opinion
from .predictive import PredictiveChecks as PredictiveChecks
from .predictive import predictive_checks as predictive_checks
from .prior_sensitivity import PriorWidths as PriorWidths
from .prior_sensitivity import prior_widths as prior_widths
from .sensitivity import (
    Confounded as Confounded,
)
from .sensitivity import (
    TippingPoints as TippingPoints,
)
from .sensitivity import (
    confounded as confounded,
)
from .sensitivity import (
    tipping_points as tipping_points,
)
from .sensitivity import (
    tipping_regime as tipping_regime,
)
