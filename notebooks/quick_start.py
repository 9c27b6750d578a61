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
# # Quick start: a SMART of physical activity in ten cells
#
# A sequential multiple assignment randomised trial (SMART) with simulated people. Everyone begins with an
# app or a coach. Whoever does not walk 1,000 steps a day more after four weeks is randomised again, to
# messages or a coach on top. Which comes first, what comes next for whom, and how sure can we be?

# %% tags=["parameters"]
seed = 1
draws = 1000  # posterior draws of each of 4 chains
propagated = 1000  # draws sent through backward induction

# %%
import bdtr

people = bdtr.datasets.activity()
people.head()

# %% [markdown]
# A trial says which action is taken when, on which history, and what counts. Group terms are as in lme4.
# `among` says who has a decision at all: responders go on as before.

# %%
trial = bdtr.Trial(
    stages=[
        bdtr.Stage("a1", actions=["app", "coach"], formula="steps0 * a1 + (1 + a1 | clinic)"),
        bdtr.Stage(
            "a2",
            actions=["messages", "coach"],
            among="responder == 0",
            formula="steps0 + a1 + steps1 * a2 + (1 | clinic)",
        ),
    ],
    outcome="steps2",
    unit="id",
    site="clinic",
)
fit = bdtr.fit(
    trial,
    people,
    sampler="direct",
    draws=draws,
    propagated=propagated,
    random_seed=seed,
    progress=False,
)
fit.flow

# %% [markdown]
# Every posterior draw of the second stage has gone through backward induction, so the values of regimes are
# posterior draws as well. In thousand steps a day:

# %%
values = bdtr.value(fit)
values

# %%
bdtr.plots.value_forest(values.draws, "thousand steps a day")

# %% [markdown]
# The set of best holds the regimes that cannot be told from the best one.

# %%
bdtr.values.set_of_best(values)

# %% [markdown]
# What should happen next to a person who walks so much at week four? The blip of the coach falls with the
# steps already reached: those who walk little gain most.

# %%
along = bdtr.decisions.blips_along(fit, "a2", "steps1")
bdtr.plots.decision_plot(along, "thousand steps a day")

# %% [markdown]
# For each person: the recommended action, the probability that it is the best, and what not knowing costs.

# %%
bdtr.recommend(fit, people, margin=0.1)

# %% [markdown]
# A rule looks better where it was learned. Cross-fitting values it on people that it was not learned from.

# %%
bdtr.crossfit(fit, propagated=propagated // 5)

# %% [markdown]
# One HTML page with all of this and more: `bdtr.report(fit, "activity.html")`.
