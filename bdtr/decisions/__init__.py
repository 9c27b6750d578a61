"""What to do, and how sure that is.

recommend            which action for whom, and how sure?
Recommendation       tables of recommended actions
plan                 who gets which action when places or money are limited?
Plan                 draws and tables of a plan
Budget               a limit on costs or places
Floor                a lower bound for a group
Gap                  a bound on the difference between groups
Quantile             a low quantile in place of the mean
WorstMean            the mean of the worst draws or outcomes
over_history         how does P(optimal) go with what is known?
blips_along          how does the effect of an action go with one variable?
tailoring_columns    which columns can a stage tailor by?
Blips                draws and table of blips
shallow_tree         which rule fits on a card, and what does it lose?
ShallowTree          the rule, and what it loses
equity_by_group      who gains by a plan, and how far are groups apart?
equity_frontier      what does fairness cost?
Groups               values, rates and benefits by group
Frontier             values against gaps of several plans
perfect_information  what would it be worth to know everything?
site_information     what would it be worth to know the effects at one site?
sample_information   what would a further trial be worth, by its size?
Information          draws and table of what knowing more is worth
AllocationError      why no plan keeps to the limits
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
