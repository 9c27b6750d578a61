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
# # Children who are lost, ratings that are missing: a SMART from flow to report
#
# 150 simulated children with ADHD begin with medication or behaviour modification. Teachers rate them every
# month, higher is better. Whoever has not improved by .6 after two months is randomised again: more of the
# same, or both. Some children are lost, adherence was not always recorded. What do the data say then - and
# would they have said the same if nothing were missing? As the children are simulated, the truth is known
# (`bdtr.datasets.adhd_truth`).

# %% tags=["parameters"]
seed = 1
draws = 1000  # posterior draws of each of 4 chains
imputations = 20  # completed data sets

# %%
from pathlib import Path
from tempfile import mkdtemp

import pandas as pd

import bdtr

children = bdtr.datasets.adhd()
trial = bdtr.datasets.adhd_trial()
children.head()

# %% [markdown]
# ## The data as they come in
#
# Ratings usually come with one row for each month of a child. `widen` makes one row for each child.

# %%
ratings = [f"rating_{month}" for month in range(9)]
long = children.melt("child", ratings, "month", "rating")
long["month"] = long["month"].str.removeprefix("rating_").astype(int)
wide = bdtr.data.widen(long.dropna(), unit="child", time="month", values=["rating"])
wide.head()

# %% [markdown]
# Measures before a decision are history: the rating in month 2 here; others would be their mean, slope, last
# value or area. Measures after the last decision are the payoff - the rating in month 8 - or tell of it where
# it is missing.

# %%
bdtr.data.serial_measures(children, ["rating_0", "rating_1", "rating_2"], "before", least=2).head()

# %% [markdown]
# ## Who left, and what was not recorded
#
# `missing="impute"` draws the missing values of the history, given what came before and what was observed
# later; `auxiliary` names the ratings after the last decision, which tell of a missing rating in month 8 and
# enter no rule.

# %%
given = {
    "sampler": "direct",
    "draws": draws,
    "random_seed": seed,
    "progress": False,
}
filling = {
    "imputations": imputations,
    "auxiliary": [f"rating_{month}" for month in range(3, 8)],
}
imputed = bdtr.fit(trial, children, missing="impute", **filling, **given)
imputed.state

# %% [markdown]
# Every child is once at each stage, as readers of CONSORT know it. *Left*: no action where a decision was
# due. *Lost*: no rating in month 8. *Predicted*: in the fit without a rating of their own.

# %%
flow = bdtr.checks.participant_flow(imputed)
bdtr.plots.participant_plot(flow)

# %%
flow.values

# %% [markdown]
# Are imputed values like recorded ones? They need not be: adherence was recorded less often where a child did
# badly.

# %%
found = bdtr.checks.imputed_values(imputed)
found

# %%
bdtr.plots.imputed_plot(found)

# %% [markdown]
# ## Exclusion, imputation, and the truth side by side
#
# Four fits: to the children as they were simulated, before anything was lost; without children whose values
# are missing, at the stage where they are; with imputed values; and with ratings that are missing not at
# random: children who were lost are taken to be .5 worse than others like them.

# %%
fits = {
    "nothing missing": bdtr.fit(trial, bdtr.datasets.adhd(complete=True), **given),
    "excluded": bdtr.fit(trial, children, missing="exclude", **given),
    "imputed": imputed,
    "imputed, lost .5 worse": bdtr.fit(
        trial, children, missing="impute", delta={"rating_8": -0.5}, **filling, **given
    ),
}
regimes = [
    bdtr.static(f"{first}; {second}", a1=first, a2=second)
    for first in ("medication", "behaviour")
    for second in ("intensify", "add")
]
regimes += [
    bdtr.rule(
        f"{first}; by adherence",
        a1=first,
        a2={"adherence == 'low'": "add", "else": "intensify"},
    )
    for first in ("medication", "behaviour")
]
values = {name: bdtr.value(fit, regimes) for name, fit in fits.items()}
side_by_side = pd.DataFrame(
    {
        name: [
            f"{row.mean:.2f} ({row.lower:.2f} to {row.upper:.2f})"
            for row in found.table.itertuples()
        ]
        for name, found in values.items()
    },
    index=values["imputed"].table.index,
)
side_by_side["truth"] = bdtr.datasets.adhd_truth()["value"].round(2)
side_by_side

# %% [markdown]
# What is not known of missing values is in the intervals. The fraction of missing information says how much
# of the variance of a value is due to them.

# %%
values["imputed"].table[["mean", "sd", "fmi", "p_best"]]

# %% [markdown]
# ## How far from missing at random?
#
# Ratings of children who were lost under one arm are made worse and better, up to 1.5 points, and every time
# the fit is made anew. Where is another regime the best, and whose recommendation changes?

# %%
tipping = bdtr.checks.tipping_missing(
    trial,
    children,
    {"rating_8": {"add": -1.5}},
    *regimes[:4],
    sizes=[-1, -0.5, 0.5, 1],
    draws=draws,
    random_seed=seed,
    **filling,
)
tipping.tipping

# %%
bdtr.plots.tipping_missing_plot(tipping, "rating in month 8")

# %% [markdown]
# ## For whom is which better?
#
# Adding is better for children who did not adhere, and worse for those who did. The tree is learned from
# children whose adherence was recorded.

# %%
bdtr.decisions.shallow_tree(imputed, "a2", over=["adherence", "rating_2"], depth=1)

# %% [markdown]
# ## The report
#
# One page with everything above, its numbers beside it as JSON.

# %%
place = Path(mkdtemp()) / "adhd.html"
bdtr.report(imputed, place, title="A SMART of children with ADHD", thorough=False)
