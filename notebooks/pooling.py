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
# # Pooling: why schools seem to need rules of their own, and mostly do not
#
# In Project STAR class types were given to classes within schools. Does a small class help more in some
# schools than in others? Look at raw differences and schools differ wildly. A model without classes agrees.
# A model that knows that treatments reach whole classes does not.

# %% tags=["parameters"]
seed = 2026
draws = 500  # posterior draws of each of 4 chains

# %%
from dataclasses import replace

import bdtr

star = bdtr.datasets.star()
two_stages = bdtr.datasets.star_trial()

# %% [markdown]
# ## The first year alone
#
# Kindergarten scores, one decision. The first model has random effects of schools; the second has random
# intercepts of classes as well. Classes are formed with the action: nobody knows a pupil's class when its
# type is chosen, so their effects are in the model but not in the decision.

# %%
formula = "female + black + age + a1 * lunch + (1 + a1 | school)"
actions = ["regular", "small", "aide"]
with_classes = bdtr.Trial(
    [bdtr.Stage("a1", actions=actions, formula=formula, delivered_in="classroom_k")],
    outcome="y_k",
    unit="id",
    site="school",
)
schools_only = replace(with_classes, stages=[replace(with_classes.stages[0], delivered_in=None)])
fits = {
    name: bdtr.fit(
        trial,
        star,
        missing="exclude",
        sampler="direct",
        draws=draws,
        propagated=draws * 2,
        random_seed=seed,
        progress=False,
    )
    for name, trial in (("schools only", schools_only), ("classes too", with_classes))
}

# %% [markdown]
# The SD between schools of what a small class adds:

# %%
import pandas as pd

pd.DataFrame(
    {
        name: fit.summary().table.loc[("a1", "sd_school[a1[small]]"), ["mean", "lower", "upper"]]
        for name, fit in fits.items()
    }
).T

# %% [markdown]
# ## Raw, pooled and rescaled
#
# Each line is a school. Raw differences are too wide as a picture of what schools are like, posterior means
# too narrow; rescaled ones have the spread that the model expects.

# %%
bdtr.plots.shrinkage_plot(bdtr.values.shrinkage(fits["schools only"], "a1", "small").table, "SD")

# %%
bdtr.plots.shrinkage_plot(bdtr.values.shrinkage(fits["classes too"], "a1", "small").table, "SD")

# %% [markdown]
# ## What it does to decisions
#
# How many pupils would the recommended rule send to a class type other than the commonest one?

# %%
pd.DataFrame(
    {
        name: bdtr.recommend(fit, star).actions["action"].value_counts(normalize=True)
        for name, fit in fits.items()
    }
)

# %% [markdown]
# And how sure is it, school by school? P(best) of a small class:

# %%
pd.DataFrame(
    {
        name: bdtr.values.site_blips(fit, "a1")
        .table.xs("small", level="action")["p_best"]
        .describe()
        for name, fit in fits.items()
    }
)

# %% [markdown]
# The model without classes takes good teachers for schools where small classes work, and makes up rules for
# half of the pupils. With classes in the model the schools draw together, and small classes are best
# everywhere as far as these data can tell. bdtr warned of it above: treatments that reach whole groups need
# the groups in the model.
