from .allocation import AllocationError as AllocationError
from .equity import (
    Frontier as Frontier,
    Groups as Groups,
    equity_by_group as equity_by_group,
    equity_frontier as equity_frontier,
)
from .information import (
    Information as Information,
    perfect_information as perfect_information,
    sample_information as sample_information,
    site_information as site_information,
)
from .limits import Budget as Budget, Floor as Floor, Gap as Gap
from .plans import Plan as Plan, plan as plan
from .recommendation import Recommendation as Recommendation, recommend as recommend
from .risk import Quantile as Quantile, WorstMean as WorstMean
from .tailoring import (
    Blips as Blips,
    blips_along as blips_along,
    over_history as over_history,
    tailoring_columns as tailoring_columns,
)
from .trees import ShallowTree as ShallowTree, shallow_tree as shallow_tree
