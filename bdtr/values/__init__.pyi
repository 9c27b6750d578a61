from .comparison import (
    Comparison as Comparison,
    SetOfBest as SetOfBest,
    compare as compare,
    ranks as ranks,
    set_of_best as set_of_best,
)
from .crossfitting import CrossFitted as CrossFitted, crossfit as crossfit
from .effects import EffectSizes as EffectSizes, effect_sizes as effect_sizes
from .maximum import Maximum as Maximum, draw_wise_maximum as draw_wise_maximum
from .measures import EffectMeasures as EffectMeasures, effect_measures as effect_measures
from .regimevalues import Values as Values
from .siteblips import (
    SiteBlips as SiteBlips,
    pooling as pooling,
    same_best_action as same_best_action,
    shrinkage as shrinkage,
    site_blips as site_blips,
)
from .valuation import value as value
