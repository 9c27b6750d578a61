# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Project STAR in full: from the trial as it was planned to what can be said
#
# In 1985 Tennessee assigned children and teachers of some 80 schools to small classes, regular classes, or
# regular classes with an aide. In grade 1 the children of regular and aide classes were assigned to these two
# anew. Which class type should a child be given in kindergarten, which in grade 1, what is that
# worth, and how sure can we be? The outcome is the grade-1 score, in standard deviations.

# %% tags=["parameters"]
seed = 2026
draws = 1000  # posterior draws of each of 4 chains at the last stage
propagated = 1000  # draws sent through backward induction

# %%
import arviz as az

import bdtr

star = bdtr.datasets.star()
trial = bdtr.datasets.star_trial()
print(bdtr.trial.protocol_to_text(trial))

# %% [markdown]
# This is the whole trial, as a file that can be registered. Children stay small if they were small
# (`feasible`), only those who stay at their school have a decision in grade 1 (`eligible`), and classes
# deliver the action (`delivered_in`): their effects are in the models, not in the decisions.

# %%
fit = bdtr.fit(
    trial,
    star,
    missing="exclude",
    off_protocol="exclude",
    sampler="direct",
    draws=draws,
    propagated=propagated,
    random_seed=seed,
    progress=False,
)
fit

# %% [markdown]
# The first stage tailors by free lunch and by school. The second has these terms too, or what a small class
# in kindergarten does for children with free lunch, or at one school, would be lost on the way back:

# %%
print(*fit.added, sep="\n")

# %% [markdown]
# ## Who is in the analysis
#
# Each child is counted at the first reason that applies.

# %%
fit.flow

# %%
bdtr.plots.participant_plot(bdtr.checks.participant_flow(fit))

# %% [markdown]
# A third of the children have no score in grade 1, somewhat fewer of those in small classes. Those who left
# are in the values through their histories, and leaving is taken to be ignorable given these.

# %%
bdtr.checks.attrition(fit)

# %% [markdown]
# Were the groups alike? Standardised differences up to .05 need nothing, up to .25 an adjustment, which the
# models make (What Works Clearinghouse, version 4.1).

# %%
bdtr.plots.balance_plot(bdtr.checks.covariate_balance(fit).table)

# %% [markdown]
# ## Can the draws be trusted, and the models?
#
# R-hat and effective numbers stand behind `fit.state`, for parameters and for what is derived from them.
# ArviZ takes the draws as they are.

# %%
az.summary(fit.tree["stage_2"], var_names=["sigma", "sd_school"], ci_kind="eti", ci_prob=0.95)

# %%
# Ranks of the draws of four chains: within the grey band no chain is elsewhere than the others.
ranks = az.plot_rank(fit.tree["stage_2"], var_names=["sigma", "sd_school"])

# %% [markdown]
# Data drawn from each stage's model, beside those that were seen. For the first stage these are payoffs that
# later decisions are part of.

# %%
bdtr.checks.predictive_checks(fit)

# %% [markdown]
# ## What regimes are worth
#
# Five regimes can be followed in this trial. The sixth, learned from the same children, looks a little better
# than it is; below it is valued on others.

# %%
values = bdtr.value(fit)
values

# %%
bdtr.plots.value_forest(values.draws, "SD of the grade-1 score")

# %%
bdtr.values.set_of_best(values)

# %% [markdown]
# In the words of education trials: Hedges' g against two years in a regular class, the chance that it is
# above a threshold, and the intraclass correlation.

# %%
bdtr.values.effect_sizes(fit, values, reference="regular; regular")

# %% [markdown]
# In one school that was not in the trial:

# %%
bdtr.value(fit, *bdtr.embedded(fit), population="new site")

# %% [markdown]
# ## Which children, and how sure
#
# P(optimal) of each class type in kindergarten, by free lunch: what a small class adds hardly depends on it.
# For children in a regular class or one with an aide, what an aide adds in grade 1, by kindergarten score.

# %%
first = bdtr.decisions.over_history(fit, "a1", "lunch").table
bdtr.plots.p_optimal_over(first, "a1")

# %%
bdtr.plots.decision_plot(bdtr.decisions.blips_along(fit, "a2", "y_k"), "SD of the grade-1 score")

# %% [markdown]
# ## School by school
#
# What a small class adds at each school, as the model has it: the schools are more alike than raw
# differences say (the notebook on pooling shows why).

# %%
blips = bdtr.values.site_blips(fit, "a1")
bdtr.plots.blip_caterpillar(blips.draws, "small", "SD of the grade-1 score")

# %% [markdown]
# ## Doubts
#
# Valued on children that it was not learned from, the recommended rule is worth about as much:

# %%
bdtr.crossfit(fit, propagated=propagated // 5)

# %% [markdown]
# Priors half and twice as wide move little:

# %%
bdtr.checks.prior_widths(fit, propagated=propagated // 5)

# %% [markdown]
# Classes were assigned at random, yet parents argued and some children were moved. How much better would the
# children in a class type have to have fared anyway, for reasons that neither models nor data know, before
# the choice in grade 1 changed?

# %%
bdtr.checks.tipping_points(fit, "a2")

# %% [markdown]
# And a value that does not lean on the outcome models alone, with weights by regressions of class types, and
# of staying, on what was known of the children:

# %%
bdtr.checks.second_opinion(fit, *bdtr.embedded(fit))

# %% [markdown]
# The largest difference is that of two years in a regular class, .03 SD. Its own interval leaves 0 out, but
# one of five regimes would do so by chance in a quarter of all trials; looked at together the opinions do not
# disagree. It would widen the lead of small classes.

# %% [markdown]
# All of this as a page to attach to a paper: `bdtr.report(fit, "star.html")`.
