from .equity import (
    Frontier as Frontier,
)
from .equity import (
    Groups as Groups,
)
from .equity import (
    equity_by_group as equity_by_group,
)
from .equity import (
    equity_frontier as equity_frontier,
)
from .information import (
    Information as Information,
)
from .information import (
    perfect_information as perfect_information,
)
from .information import (
    sample_information as sample_information,
)
from .information import (
    site_information as site_information,
)
from .limits import Budget as Budget
from .limits import Floor as Floor
from .limits import Gap as Gap
from .planning import Plan as Plan
from .planning import plan as plan
from .recommendation import Recommendation as Recommendation
from .recommendation import recommend as recommend
from .risk import Quantile as Quantile
from .risk import WorstMean as WorstMean
from .tailoring import (
    Blips as Blips,
)
from .tailoring import (
    blips_along as blips_along,
)
from .tailoring import (
    over_history as over_history,
)
from .tailoring import (
    tailoring_columns as tailoring_columns,
)
from .trees import ShallowTree as ShallowTree
from .trees import shallow_tree as shallow_tree
