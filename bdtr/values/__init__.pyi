from .comparison import (
    Comparison as Comparison,
)
from .comparison import (
    SetOfBest as SetOfBest,
)
from .comparison import (
    compare as compare,
)
from .comparison import (
    ranks as ranks,
)
from .comparison import (
    set_of_best as set_of_best,
)
from .crossfitting import CrossFitted as CrossFitted
from .crossfitting import crossfit as crossfit
from .effects import EffectSizes as EffectSizes
from .effects import effect_sizes as effect_sizes
from .maximum import Maximum as Maximum
from .maximum import draw_wise_maximum as draw_wise_maximum
from .regimevalues import Values as Values
from .sites import (
    SiteBlips as SiteBlips,
)
from .sites import (
    pooling as pooling,
)
from .sites import (
    same_best_action as same_best_action,
)
from .sites import (
    shrinkage as shrinkage,
)
from .sites import (
    site_blips as site_blips,
)
from .valuation import value as value
