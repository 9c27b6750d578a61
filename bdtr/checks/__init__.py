"""Whether to believe it.

stage_flow         who goes where, and who leaves?
covariate_balance  do those with different actions differ beforehand?
overlap            how often was each action taken, at each site?
attrition          who has no outcome in the end?
predictive_checks  does the model predict data like these?
PredictiveChecks   tables and histograms of predictive checks
outcome_curves     calibration, rootogram, survival curves: are outcomes as predicted?
OutcomeCurves      tables of these
second_opinion     what do weights say where the outcome model may be wrong?
Opinion            table of second opinions
prior_widths       how much do results owe to the priors?
PriorWidths        tables of results under other priors
confounded         what if unmeasured things drove who took what?
tipping_points     how much confounding would turn a recommendation round?
tipping_regime     how much would turn the best regime round?
Confounded         values under confounding
TippingPoints      sizes that turn decisions round
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
