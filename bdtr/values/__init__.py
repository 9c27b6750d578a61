"""What regimes are worth.

value              what is each regime worth, overall, by group, at each site?
Values             draws and table of values
compare            how far are regimes apart?
ranks              which rank does each regime have?
set_of_best        which regimes may be the best?
Comparison         draws and table of contrasts
SetOfBest          the regimes that may be the best
crossfit           what is the recommended regime worth on people it was not learned from?
CrossFitted        draws and table of cross-fitted values
effect_sizes       standardised differences, for readers of education trials
EffectSizes        draws and table of effect sizes
effect_measures    risk, rate and odds ratios, numbers needed to treat
EffectMeasures     draws and tables of these
draw_wise_maximum  what would be gained if the truth were known?
Maximum            draws and table of that gain
site_blips         what does an action do at each site, and at a new one?
same_best_action   is the same action best everywhere?
shrinkage          how far does the model draw sites together?
pooling            how much of each site's estimate is its own?
SiteBlips          draws and table of blips at the sites
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
