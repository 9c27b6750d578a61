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
# # Deciding within limits and under doubt
#
# A school board does not ask for a posterior. It has a budget, a duty of fairness, and doubts about the
# data. This notebook takes Project STAR, fits it once, and answers the board: who should sit in a small
# class if there is room for some of the pupils only, does the answer leave poorer children behind, how
# much is it worth to know more, and how wrong must the trial be for the answer to change?

# %% tags=["parameters"]
seed = 2026
draws = 1000  # posterior draws of each of 4 chains at the last stage
propagated = 1000  # draws sent through backward induction
small_share = 0.4  # at most this share of pupils in small classes

# %%
import bdtr
from bdtr import plan
from bdtr.decisions import Budget, Gap, WorstMean

# %% [markdown]
# ## The fit
#
# Two decisions: the class type in kindergarten, and in grade 1. Payoffs are grade-1 scores in SDs. School
# effects are part of each decision; class effects are in the models but not in the decisions, as nobody
# knows a pupil's class when its type is chosen.

# %%
star = bdtr.datasets.star()
fit = bdtr.fit(
    bdtr.datasets.star_trial(),
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
# ## A budget, and nobody worse off
#
# At most a share `small_share` of the pupils in small classes, and pupils with free lunch must gain no less
# than the others against a regular class. Limits are held at posterior means. What the plan is worth and
# what the limits cost are taken within each draw, so they come with intervals.

# %%
few = Budget({"small": 1}, small_share)
fair = Gap("lunch", 0.0, of="benefit", against=1)
within = plan(fit, "a1", few, fair)
within

# %% [markdown]
# The shadow price says what one more small class would be worth. Where the price of the second limit is
# zero, fairness costs nothing: free-lunch pupils gain most from small classes, so the best way to spend a
# short budget favours them anyway.

# %%
within.limits

# %%
bdtr.decisions.equity_by_group(fit, within, by="lunch")

# %% [markdown]
# What would it cost to give both groups the same gain? The frontier bounds the difference of their mean
# benefits step by step.

# %%
plans = {
    f"gap of at most {bound:g}": plan(fit, "a1", few, Gap("lunch", bound, of="benefit"))
    for bound in (0.06, 0.04, 0.02, 0.0)
}
bdtr.decisions.equity_frontier(fit, {"no bound": plan(fit, "a1", few), **plans}, "lunch")

# %% [markdown]
# ## A cautious board
#
# The plan above maximises the posterior mean. A board that fears being wrong about the effects can look at
# the mean of the worst tenth of draws instead.

# %%
cautious = plan(fit, "a1", utility=WorstMean(0.1))
cautious

# %% [markdown]
# ## A rule that fits on a card
#
# The full rule knows every pupil and every school. The best tree of depth 2 over free lunch, sex and age
# can be printed on a card; no leaf may hold fewer than 300 pupils. The table says what is lost against
# the full rule.

# %%
bdtr.decisions.shallow_tree(fit, "a1", over=["lunch", "female", "age"], depth=2, least=300)

# %% [markdown]
# ## What would it be worth to know more?
#
# The expected value of perfect information bounds what any study could add.

# %%
bdtr.decisions.perfect_information(fit)

# %% [markdown]
# ## How wrong must the trial be?
#
# Suppose that those who sat in small classes would have done better anyway, beyond what the model knows.
# The tipping points say by how many SDs before the recommendation turns round.

# %%
bdtr.checks.tipping_points(fit, "a1")

# %% [markdown]
# ## A second opinion
#
# The last check does not use the shape of the outcome models: it weighs the pupils who stayed in small
# classes by the inverse of the probability of doing so, of regressions on what was known of them.

# %%
bdtr.checks.second_opinion(fit, bdtr.static(a1="small", a2="small"), random_seed=seed)

# %% [markdown]
# Weighted and augmented values agree with that of the models: their differences are far smaller than what
# the posterior leaves open.
