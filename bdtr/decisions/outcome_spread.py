r"""How much a unit's outcome varies about its mean payoff given history and action.

With the later stages as recommended,

    Var(Y | h, a) = s_k(a)^2 + c_k(a)^2 + the mean of the same at stage k + 1,

s_k^2 being the variance of the response of the stage about its mean (of the propagated payoff: what history
in between adds), c_k^2 what the classes add that deliver the action. Both are means over the units that took
the action: on a link scale with mean mu(eta) the variance of a quasi-likelihood is s^2 v(mu), that of classes
about c^2 mu'(eta)^2, and the variance of an outcome of the last stage is that of its family. Units who would
follow another action than those who took it have other means: variances go with these.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.special import expit

from bdtr.backward.fitted import Fit
from bdtr.backward.induction import best_mean
from bdtr.backward.passes import backward_pass
from bdtr.backward.residuals import linear_predictor
from bdtr.results.errors import ArgumentError
from bdtr.stages.outcome import OutcomeModel
from bdtr.stages.pooled import interleaved
from bdtr.stages.prediction import StageDraws
from bdtr.trial.payoff import Payoff

__all__ = ["arm_means", "outcome_variance"]

_REPLICATES = 100  # outcomes drawn for a unit, to learn their variance
_APART = 1e-4  # of linear predictors, for the slope of the mean payoff


def outcome_variance(fit: Fit, k: int, classes: bool = True) -> np.ndarray:
    """Variance of a unit's outcome given its history and action at stage k, later stages recommended.

    Parameters
    ----------
    fit
        A fitted trial with its data.
    k
        Stage, from 0.
    classes
        Whether classes that deliver the action of this stage add to the spread.

    Returns
    -------
    numpy.ndarray
        (action, sample), in squared units of the outcome. Of a t distribution, which may have none, it is the
        variance of a normal outcome that says as much of the location.

    Raises
    ------
    ValueError
        If a stage from here on has a model of your own.
    """
    own = [fit.designs[j].action for j in range(k, fit.stages) if not fit.trial.by_formula(j)]
    if own:
        raise ArgumentError(
            f"The spread of outcomes: stage {own[0]} has a model of your own, or is computed from models of "
            "states, which does not say it. Use a stage with a formula, or a measure of the mean payoff."
        )
    if fit.parts:
        each = [outcome_variance(one, k, classes) for one in fit.parts]
        return interleaved(each, fit.settings.chains)
    design, draws = fit.designs[k], fit.q_function(k).draws
    assert isinstance(draws, StageDraws)
    out, slope = _about_the_mean(fit, k)
    out = np.tile(out, (len(design.arms) // len(out), 1))
    for group in design.groups:
        if classes and group.role == "delivery":
            out = out + slope[:, None] * np.square(draws.root[group.name][:, 0, 0])
    return out if k == fit.stages - 1 else out + _later(fit, k)


def _about_the_mean(fit: Fit, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Variance of the response of a stage about its mean (action, or one, sample), and mean squares of the
    slope of the mean payoff in the linear predictor (action)."""
    posterior, payoff, model = fit.posterior(k), fit.payoff(k), fit.model(k)
    assert isinstance(model, OutcomeModel)
    family, arms = payoff.family, len(fit.designs[k].arms)
    square = _by_sample(posterior, "sigma") ** 2 if family.has_sigma else np.zeros((1, 1))
    if family.has_nu and family.linear:
        nu = _by_sample(posterior, "nu")
        return square * (nu + 3) / (nu + 1), np.ones(arms)
    if family.linear:
        return square, np.ones(arms)
    data = fit.require_data("the spread of outcomes")
    arm = data.stages[k].action[data.stages[k].fitted]
    eta = linear_predictor(fit, k, model)
    if family.quasi:
        size = np.ptp(payoff.ends)
        v = expit(eta) * expit(-eta) if family.link == "logit" else np.exp(eta)
        of_arm = size**2 * arm_means(v, arm, arms)
        return square * of_arm[:, None], size**2 * arm_means(v**2, arm, arms)
    shape = _mean_shape(model, posterior)
    slope = (payoff.mean(eta + _APART, shape) - payoff.mean(eta - _APART, shape)) / (2 * _APART)
    variance = _of_replicates(fit, model, eta, shape)
    samples = posterior.sizes["chain"] * posterior.sizes["draw"]
    return np.repeat(arm_means(variance, arm, arms)[:, None], samples, 1), arm_means(
        slope**2, arm, arms
    )


def _of_replicates(fit: Fit, model: OutcomeModel, eta: np.ndarray, shape) -> np.ndarray:
    """Variance of each unit's payoff at a linear predictor."""
    rng = np.random.default_rng(fit.settings.stream("spread"))
    wide = np.repeat(eta[:, None], _REPLICATES, 1)
    if model.family.has_sigma:
        shape = shape[..., None]
    m = np.ones((1, 1)) if model.companion is None else model.companion[:, None]
    return model.payoff.draw(rng, wide, shape, m).var(axis=1, ddof=1)


def _mean_shape(model: OutcomeModel, posterior: xr.Dataset) -> np.ndarray | None:
    """Posterior means of dispersions (row), with degrees of freedom where there are any (2, row), or of
    thresholds (category, 1)."""
    if model.family.has_sigma:
        sigma = np.atleast_1d(posterior["sigma"].mean(("chain", "draw")).to_numpy())
        sigma = sigma[np.zeros(len(model.rows.x), int) if sigma.size == 1 else model.rows.stratum]
        if not model.family.has_nu:
            return sigma
        nu = float(posterior["nu"].mean())
        return np.stack([sigma, np.full(sigma.shape, nu)])
    if "threshold" in posterior:
        return posterior["threshold"].mean(("chain", "draw")).to_numpy()[:, None]
    return None


def _by_sample(posterior: xr.Dataset, name: str) -> np.ndarray:
    """Draws of a parameter (action, or one, sample)."""
    values = posterior[name].stack(sample=("chain", "draw"), create_index=False)
    return values.transpose(..., "sample").to_numpy().reshape(-1, values.sizes["sample"])


def arm_means(values: np.ndarray, arm: np.ndarray, arms: int) -> np.ndarray:
    """Means over the units that took each action; over all units where nobody did."""
    count = np.bincount(arm, minlength=arms)
    found = np.bincount(arm, values, arms) / np.maximum(count, 1)
    return np.where(count > 0, found, values.mean())


def _by_mean(payoff: Payoff, mean: np.ndarray) -> np.ndarray:
    """How variances go with mean payoffs: mu (1 - mu) between two bounds, mu above one, else alike."""
    if payoff.scale == "identity":
        return np.ones(mean.shape)
    share = payoff.share(mean)
    return np.maximum(share if payoff.scale == "log" else share * (1.0 - share), 0.0)


def _usual(fit: Fit, m: int) -> np.ndarray:
    """Mean of the same over the units that took each action of a stage (action)."""
    stage = fit.require_data("the spread of outcomes").stages[m]
    units, done = np.flatnonzero(stage.fitted), backward_pass(fit)
    mean = np.empty(len(units))
    for block in done.blocks(np.arange(len(units))):
        q = done.q_values(m, units[block])
        mean[block] = q[stage.action[units[block]], np.arange(q.shape[1])].mean(axis=1)
    found = arm_means(_by_mean(fit.payoff(m), mean), stage.action[units], len(fit.designs[m].arms))
    return np.maximum(found, 1e-300)


def _later(fit: Fit, k: int) -> np.ndarray:
    """Variance that is left at later stages (action, sample), over the units that took each action."""
    data, done = fit.require_data("the spread of outcomes"), backward_pass(fit)
    stage, units = data.stages[k], np.flatnonzero(data.stages[k].fitted)
    # Each unit has the variance of the next stage at which a decision is due; none after the last.
    waiting, known, parts = np.ones(len(units), dtype=bool), np.zeros(len(units), dtype=bool), []
    for m in range(k + 1, fit.stages):
        own = data.stages[m]
        ready = np.flatnonzero(waiting & own.among[units] & own.history[units])
        chosen = np.zeros((len(units), own.feasible.shape[1]))
        usual = _usual(fit, m)
        for block in done.blocks(ready):
            rows = units[block]
            q = done.q_values(m, rows)
            best = best_mean(q, own.feasible[rows], fit.trial.higher_is_better)
            mean = q[best, np.arange(len(rows))].mean(axis=1)
            chosen[block, best] = _by_mean(fit.payoff(m), mean) / usual[best]
        known[ready] = True
        waiting &= ~own.among[units]
        parts.append((chosen, outcome_variance(fit, m)))
    known |= waiting  # where it is not known what they would do next, they count as the others do
    out = np.zeros((len(fit.designs[k].arms), done.samples))
    for a in range(len(out)):
        mine = known & (stage.action[units] == a)
        mine = mine if mine.any() else known
        for chosen, variance in parts:
            out[a] += chosen[mine].mean(axis=0) @ variance
    return out
