"""Figures from labelled results of public functions; they draw, and only draw.

value_forest          values of regimes, with intervals
value_forest_by_site  the same at each site
frontier_plot       value against the gap between groups
information_worth     what knowing more is worth
p_optimal             how sure the recommendations are
p_optimal_over        P(optimal) over one or two variables
decision_plot         blips along one variable
regret_curve          how many lose no more than a margin
rule_tree             a rule that fits on a card
site_caterpillar      values of one regime at the sites
blip_caterpillar      blips of one action at the sites
shrinkage_plot        how far sites are drawn together
participant_plot      who was assigned what, who left or was lost, who is in the fit
imputed_plot          imputed values beside recorded ones
tipping_missing_plot  what shifts of missing values change
balance_plot          differences between those with different actions
overlap_plot          shares and probabilities of actions
predictive_plot       observed responses over replicated ones
residual_plot         mean residuals along the history
outcome_plot          calibration, rootogram or survival curves
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
