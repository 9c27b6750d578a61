"""Whether to believe it.

participant_flow   who was assigned what, who left or was lost, who is in the fit?
Participants       tables of this
covariate_balance  do those with different actions differ beforehand?
overlap            how often was each action taken, at each site?
attrition          who has no outcome in the end?
imputed_values     are imputed values like recorded ones, and have their chains settled?
ImputedValues      table and values of these
predictive_checks  does the model predict data like these?
PredictiveChecks   tables and histograms of predictive checks
residuals_along    where does a formula miss how the payoff goes with the history?
outcome_curves     calibration, rootogram, survival curves: are outcomes as predicted?
OutcomeCurves      tables of these
compare_ways       do regression and g-computation agree?
Ways               tables of both
second_opinion     what do weights say where the outcome model may be wrong?
Opinion            table of second opinions
prior_widths       how much do results owe to the priors?
PriorWidths        tables of results under other priors
confounded         what if unmeasured things drove who took what?
tipping_points     how much confounding would turn a recommendation round?
tipping_regime     how much would turn the best regime round?
tipping_missing    what if missing values are not missing at random?
Confounded         values under confounding
TippingPoints      sizes that turn decisions round
MissingTipping     values and decisions when missing values are shifted
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
