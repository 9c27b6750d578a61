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
# # Bringing your own PyMC model: steps that no one has walked
#
# Formulas make multilevel models with normal residuals. This notebook has data that such a model takes too
# seriously: some step counters went wrong and added 25 thousand steps to a day. A stage takes any
# PyMC model in place of the one its formula would make; everything after it stays the same.

# %% tags=["parameters"]
seed = 3
draws = 1000  # posterior draws of each of 4 chains
propagated = 1000  # draws sent through backward induction

# %% [markdown]
# The data are the quick start's simulated trial, so the truth is known: in week four a coach is worth
# 0.2 + 0.3 (6 - steps) thousand steps a day more than messages, to those who may have either. Then some of
# the counters handed out at week four go wrong, most of them among those that came with the messages.

# %%
from dataclasses import replace

import numpy as np

import bdtr

people = bdtr.datasets.activity()
rng = np.random.default_rng(seed)
chance = people["a2"].map({"messages": 0.08, "coach": 0.02}).fillna(0.0)
wrong = rng.random(len(people)) < chance
wild = people.assign(steps2=people["steps2"] + np.where(wrong, 25.0, 0.0))
int(wrong.sum())

# %%
trial = bdtr.datasets.activity_trial()
settings = {"draws": draws, "propagated": propagated, "random_seed": seed, "progress": False}
normal = bdtr.fit(trial, wild, sampler="direct", **settings)

# %% [markdown]
# ## The model
#
# `build` makes the PyMC model of the payoff, which it holds as `pm.Data("payoff", payoff)`; `q` says the
# mean payoff of the action in each row, one column per draw. `history` has the columns that the stage's
# formula names: labels as categoricals, clinics among them; -1 is the code of one that the fit has not seen.
# The folder `models` has more recipes: smooth blips, a robust model with sites, a test that errs.


# %%
class Robust:
    """steps0 + a1 + steps1 * a2 + (1 | clinic) with Student-t residuals."""

    def columns(self, history):
        first = history["a1"].cat.codes.to_numpy()
        coach = history["a2"].cat.codes.to_numpy()
        steps0, steps1 = history["steps0"].to_numpy() - 6.0, history["steps1"].to_numpy() - 6.0
        return np.column_stack([np.ones(len(coach)), steps0, first, steps1, coach, coach * steps1])

    def build(self, history, payoff):
        import pymc as pm

        terms = ["intercept", "steps0", "first", "steps1", "coach", "coach:steps1"]
        clinics = history["clinic"].cat
        with pm.Model(coords={"term": terms, "clinic": list(clinics.categories)}) as model:
            b = pm.Normal("b", [6, 0, 0, 0, 0, 0], [5, 1, 1, 1, 1, 1], dims="term")
            tau = pm.HalfNormal("tau", 1)
            z = pm.Normal("z", dims="clinic")
            u = pm.Deterministic("u", tau * z, dims="clinic")
            mean = self.columns(history) @ b + u[clinics.codes.to_numpy()]
            nu = pm.Deterministic("nu", 1 + pm.Gamma("nu_above_1", 2, 0.1))
            sigma = pm.HalfNormal("sigma", 2)
            pm.StudentT("y", nu=nu, mu=mean, sigma=sigma, observed=pm.Data("payoff", payoff))
        return model

    def q(self, posterior, history):
        u = posterior["u"].to_numpy()
        u = np.vstack([u, np.zeros(u.shape[1])])  # row -1: a clinic that the fit has not seen
        return self.columns(history) @ posterior["b"].to_numpy() + u[history["clinic"].cat.codes]


# %% [markdown]
# It takes the place of the second stage's model. Its rows are those who have a choice at week four.

# %%
second = replace(trial.stages[1], model=Robust())
robust = bdtr.fit(replace(trial, stages=[trial.stages[0], second]), wild, **settings)
robust.state

# %% [markdown]
# Few degrees of freedom: the model has seen the wild counters.

# %%
robust.summary().table.loc[("a2", ["nu", "sigma", "tau"]), :]

# %% [markdown]
# ## What a coach adds at week four
#
# The truth is 0.2 at 6 thousand steps and falls by 0.3 with every thousand.

# %%
import pandas as pd

parts = {}
for name, fit in (("normal", normal), ("robust", robust)):
    along = bdtr.decisions.blips_along(fit, "a2", "steps1", points=5)
    table = along.table.xs("coach", level="action")[["mean", "lower", "upper"]]
    parts[name] = table.assign(truth=0.2 + 0.3 * (6 - table.index.to_numpy()))
pd.concat(parts, names=["model"]).round(2)

# %%
bdtr.plots.decision_plot(bdtr.decisions.blips_along(robust, "a2", "steps1"), "thousand steps a day")

# %% [markdown]
# ## What it is worth
#
# Every draw of the robust model goes through backward induction as those of a formula do; the first stage
# keeps its formula and is fitted to the payoffs that the second stage's model expects, which wild counters
# are no part of.

# %%
bdtr.value(robust)

# %%
bdtr.value(normal)

# %% [markdown]
# To the normal model messages look like the better second step, by the counters that came with them alone.
# To the robust one they hardly differ on average, and the truth is .13 in favour of the coach among those who
# have the choice: too little for these data to show. What they do show is who needs a coach.
