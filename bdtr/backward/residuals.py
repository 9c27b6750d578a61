r"""What residuals say against a stage's model: their shape, and how they go with the history.

Residuals are those of the mean response (at earlier stages the mean over draws of the stage value),
given group effects, divided by the residual SD of their action.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.special import chdtrc, ndtri

from bdtr.backward.fitrecord import FitRecord
from bdtr.backward.passes import mean_response, stage_model
from bdtr.backward.unit_columns import columns_of
from bdtr.data.clusters import treated_together
from bdtr.data.differences import ADJUST, covariates, design_effect, standardised_differences
from bdtr.data.history import known_columns
from bdtr.stages.outcome import OutcomeModel
from bdtr.stages.prediction import QFunction, StageDraws, UnitColumns, shape_of

__all__ = [
    "binned_history",
    "imbalance",
    "linear_predictor",
    "misfit",
    "residual_structure",
    "residuals",
]

_SKEWED = 1.0  # skewness of residuals, 0 under the model
_QUANTILE = 0.35  # SDs between a quantile of residuals and that of the model
_BENT = 0.15  # SD of a blip's misfit over units, in SDs of the response
_SURE = 1e-4  # p-value for each variable
_BINS = 5
_MOST_LEVELS = 8
_EXACT = 0.05  # residual SD, in SDs of most responses, below which its shape is of no account
_LONG = 5.0  # fourth moment of residuals in SDs, 3 of normal ones
_DRAWN_IN = 1.55  # 5 and 95 % quantiles, 1.64 of normal ones
_CHANCE = 4.0  # standard errors of a difference between actions


def linear_predictor(fit: FitRecord, k: int, model: OutcomeModel) -> np.ndarray:
    """Linear predictor of the rows of a stage's fit at posterior means, group effects included."""
    posterior = fit.posterior(k).mean(("chain", "draw"))
    eta = model.rows.x @ (model.design.measure.back @ posterior["b"].to_numpy())
    groups, smooths = model.design.groups, model.design.smooths
    for g, z, code in zip(groups, model.rows.z, model.rows.codes, strict=False):
        effects = posterior[f"u_{g.name}"].to_numpy() @ g.measure.back.T
        eta += (z * effects[code]).sum(axis=1)
    bends = [u for s in smooths for u in posterior[f"u_{s.name}"].to_numpy()]
    for u, z in zip(bends, model.rows.z[len(groups) :], strict=True):
        eta += z @ u
    return eta


def residuals(fit: FitRecord, k: int) -> np.ndarray | None:
    """Residuals of the rows of a stage's fit, in units of the outcome; None for models of the user's own."""
    model = stage_model(fit, k)
    if not isinstance(model, OutcomeModel):
        return None
    shape = shape_of(fit.posterior(k), model.payoff)
    if shape is not None:
        shape = shape.mean(axis=-1, keepdims=True)
        if model.family.mean_takes_sigma:
            stratum = np.zeros(1, int) if model.rows.stratum is None else model.rows.stratum
            shape = shape[..., stratum, 0]
    eta = linear_predictor(fit, k, model)
    return mean_response(fit, k) - model.payoff.mean(eta, shape)


def _normal(model: OutcomeModel) -> bool:
    """Whether residuals are normal by the model."""
    return model.family.closed_form and not model.family.quasi


def misfit(fit: FitRecord) -> list[str]:
    """Continuous responses whose residuals are strongly skewed, or whose tails are, where the model's
    are normal."""
    data, found = fit.require_data("checks of the model"), []
    for k, design in enumerate(fit.designs):
        model, own = stage_model(fit, k), residuals(fit, k)
        if own is None or not isinstance(model, OutcomeModel) or not _normal(model):
            continue
        arm = data.stages[k].action[data.stages[k].fitted]
        if model.rows.weight is not None:
            own = own * np.sqrt(model.rows.weight)
        spread = np.sqrt(np.bincount(arm, own**2) / np.maximum(np.bincount(arm), 1))
        if not (spread[np.unique(arm)] > _EXACT * _spread_of_most(mean_response(fit, k))).all():
            continue  # responses that are all but functions of the columns
        z, n, said, ends = own / spread[arm], len(own), [], []
        skewness = float((z**3).mean())
        if abs(skewness) > _SKEWED and abs(skewness) / np.sqrt(6 / n) > _CHANCE:
            said.append(f"skewness {skewness:.2f} for 0")
        for p in (0.05, 0.95):
            at, right = float(np.quantile(z, p)), float(ndtri(p))
            ends.append(abs(at))
            error = np.sqrt(p * (1 - p) / n) / _density(right)
            if abs(at - right) > _QUANTILE and abs(at - right) > _CHANCE * error:
                said.append(f"{100 * p:g} % quantile {at:.2f} for {right:.2f}")
        if said:
            found.append(
                f"stage {design.action}: the model misses the shape of the responses (predictive check of "
                f"residuals in SDs: {', '.join(said)})"
                + (_robust(z, max(ends)) if k == fit.stages - 1 else "")
            )
    return found


def _robust(z: np.ndarray, end: float) -> str:
    """Names the family for a few wild payoffs, where they take most residuals closer to zero in SDs."""
    if end > _DRAWN_IN or float((z**4).mean()) < _LONG:
        return ""
    return "; a few payoffs lie far out: family='student_t' takes them as noise"


def _density(z: float) -> float:
    """Standard normal density."""
    return float(np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi))


def _spread_of_most(response: np.ndarray) -> float:
    """SD of the responses by their 5 and 95 % quantiles, as one of them may be a typing error: beside it
    residuals of all others would be as nothing. The SD itself where nearly all are the same."""
    low, high = np.quantile(response, [0.05, 0.95])
    return float((high - low) / (2 * ndtri(0.95))) or float(response.std())


def residual_structure(fit: FitRecord) -> list[str]:
    """Variables with which the effect of an action goes in another way than the model of its stage says.

    With d_b the difference of mean residuals between an action and the others in bin b of a variable
    (fifths of its values, or its levels), sum_b (d_b - mean d)^2 / var(d_b) is about chi-squared where
    the model is right. What is found is told with its SD over units and with the share of those with a choice
    for whom another action is the best once mean residuals are added. Likewise mean residuals of all, with
    their variances, for how the payoff itself goes with a variable.
    """
    data, found = fit.require_data("checks of the model"), []
    for k, design in enumerate(fit.designs):
        own = residuals(fit, k)
        if own is None:
            continue
        stage, response = data.stages[k], mean_response(fit, k)
        arm, inside = stage.action[stage.fitted], ~stage.outside[stage.fitted]
        spread = max(float(response.std()), 1e-300)
        for name, bins in binned_history(fit, k):
            use = inside & (bins >= 0)
            if not use.any():
                continue
            off = _misfit(own[use], bins[use], arm[use]) / spread
            worst = 0.0
            for a in range(1, len(design.actions)):
                size = _misfit_of_blip(own[use], bins[use], arm[use] == a)
                worst = max(worst, size / spread)
            if worst > _BENT:
                changed = _changed(fit, k, own, bins)
                found.append(
                    f"stage {design.action}: residuals show that the effect of {design.action} "
                    f"goes with {name} in "
                    f"another way than the formula says (by {worst:.2f} SDs of the response, so that another "
                    f"action is the best for {100 * changed:.0f} % of those with a choice); let "
                    f"{design.action} meet a curve in {name}, s({name}, by={design.action}), or a "
                    "product that is missing"
                )
            elif off > _BENT:
                bend = f"let it bend, s({name}), or " if name in data.coding.numbers else ""
                found.append(
                    f"stage {design.action}: residuals show that the payoff goes with {name} in another way "
                    f"than the formula says (by {off:.2f} SDs of the response), for all actions alike; "
                    f"{bend}add {name} or a product where it is missing"
                )
    return found


def _changed(fit: FitRecord, k: int, residual: np.ndarray, bins: np.ndarray) -> float:
    """Share of those in the fit with a choice for whom another action is the best once the mean residuals of
    each action in their bin are added to its mean payoff."""
    stage = fit.require_data("checks of the model").stages[k]
    rows = np.flatnonzero(stage.fitted)
    choosing = stage.choosing[rows] & (bins >= 0)
    if not choosing.any():
        return 0.0
    one = fit.parts[0] if fit.parts else fit
    q = one.q_function(k)
    assert isinstance(q, QFunction)
    draws = q.draws
    mean = StageDraws(
        draws.coefficients.mean(axis=1, keepdims=True),
        {name: u.mean(axis=-1, keepdims=True) for name, u in draws.effects.items()},
        {name: root.mean(axis=0, keepdims=True) for name, root in draws.root.items()},
        {},
        None if draws.shape is None else draws.shape.mean(axis=-1, keepdims=True),
    )
    columns = columns_of(one, k, rows[choosing])
    assert isinstance(columns, UnitColumns)
    value = replace(q, draws=mean).evaluate(columns)[..., 0]
    count, arms = int(bins.max()) + 1, len(value)
    cell = stage.action[rows] * count + np.maximum(bins, 0)
    size = np.bincount(cell[bins >= 0], minlength=arms * count)
    total = np.bincount(cell[bins >= 0], residual[bins >= 0], arms * count)
    more = (total / np.maximum(size, 1)).reshape(arms, count)[:, bins[choosing]]
    sign = 1.0 if fit.trial.higher_is_better else -1.0
    free = stage.feasible[rows[choosing]].T
    before = np.where(free, sign * value, -np.inf).argmax(axis=0)
    after = np.where(free, sign * (value + more), -np.inf).argmax(axis=0)
    return float((before != after).mean())


def binned_history(fit: FitRecord, k: int) -> Iterator[tuple[str, np.ndarray]]:
    """Variables that a rule of stage k may use, and the bin of each row of its fit, -1 for none; sites and
    grouping factors left out."""
    data, design = fit.require_data("checks of the model"), fit.designs[k]
    frame = data.frame[data.stages[k].fitted]
    factors = {c for g in design.groups for c in g.factor} - set(design.formula.model_columns)
    for name in known_columns(data, k):
        if name not in factors and name != data.trial.site:
            yield name, _bins(frame[name])


def _bins(column: pd.Series) -> np.ndarray:
    """Bin of each value, -1 for none."""
    none = np.full(len(column), -1)
    if isinstance(column.dtype, pd.CategoricalDtype) or not pd.api.types.is_numeric_dtype(
        column.dtype
    ):
        codes, levels = pd.factorize(column.astype(object))
        return codes if 2 <= len(levels) <= _MOST_LEVELS else none
    values = column.to_numpy(dtype=float, na_value=np.nan)
    known = np.isfinite(values)
    if not known.any():
        return none
    distinct = np.unique(values[known])
    edges = (
        distinct[:-1]
        if len(distinct) <= _BINS
        else np.quantile(values[known], np.arange(1, _BINS) / _BINS)
    )
    return np.where(known, np.searchsorted(np.unique(edges), values, side="left"), -1)


def _misfit(residual: np.ndarray, bins: np.ndarray, arm: np.ndarray) -> float:
    """SD over units of what the mean payoff is off by, whatever the action, 0 where chance explains it."""
    count = int(bins.max()) + 1
    n = np.bincount(bins, minlength=count)
    spread = np.sqrt(np.bincount(arm, residual**2) / np.maximum(np.bincount(arm), 1))[arm]
    mean = np.bincount(bins, residual, count) / np.maximum(n, 1)
    variance = np.bincount(bins, spread**2, count) / np.maximum(n, 1) ** 2
    use = n >= 5
    if use.sum() < 2 or not (variance[use] > 0).all():
        return 0.0
    mean, variance, share = mean[use], variance[use], n[use] / n[use].sum()
    mean = mean - (share * mean).sum()
    if chdtrc(use.sum() - 1, float((mean**2 / variance).sum())) > _SURE:
        return 0.0
    return float(np.sqrt(max((share * (mean**2 - variance)).sum(), 0.0)))


def _misfit_of_blip(residual: np.ndarray, bins: np.ndarray, taken: np.ndarray) -> float:
    """SD over units of what the blip is off by, 0 where chance explains it."""
    count = int(bins.max()) + 1
    means, variances, sizes = np.empty((3, 2, count))
    for i, rows in enumerate((taken, ~taken)):
        n = np.bincount(bins[rows], minlength=count)
        sums = np.bincount(bins[rows], residual[rows], count)
        squares = np.bincount(bins[rows], residual[rows] ** 2, count)
        means[i] = sums / np.maximum(n, 1)
        total = squares.sum() / max(n.sum() - count, 1) - (n * means[i] ** 2).sum() / max(
            n.sum() - count, 1
        )
        variances[i], sizes[i] = max(total, 0.0) / np.maximum(n, 1), n
    use = (sizes >= 5).all(axis=0)
    if use.sum() < 2:
        return 0.0
    d, v, n = (means[0] - means[1])[use], variances.sum(axis=0)[use], sizes.sum(axis=0)[use]
    if not (v > 0).all():
        return 0.0
    centre = (d / v).sum() / (1 / v).sum()
    statistic = float((np.square(d - centre) / v).sum())
    if chdtrc(use.sum() - 1, statistic) > _SURE:
        return 0.0
    share = n / n.sum()
    # Less what the errors of the d_b add to their variance.
    return float(np.sqrt(max((share * (np.square(d - centre) - v)).sum(), 0.0)))


def imbalance(fit: FitRecord) -> list[str]:
    """Covariates that differ between actions by more than chance and a quarter of an SD."""
    data, found = fit.require_data("checks of the model"), []
    table = standardised_differences([data], fit.designs)
    if not len(table):
        return []
    for k, design in enumerate(fit.designs):
        if design.action not in table.index.get_level_values("stage"):
            continue
        own = table.xs(design.action, level="stage")
        error = np.sqrt(1 / own["units"] + 1 / own["units_reference"])
        together = treated_together(data.stages[k], data.frame, data.coding.numbers)
        site = design.site_codes(data.frame)
        effect = {n: design_effect(x, site, together) for n, x in covariates(data, k).items()}
        error = error * np.sqrt(own.index.get_level_values("covariate").map(effect))
        far = own[(own["difference"].abs() > ADJUST) & (own["difference"].abs() > _CHANCE * error)]
        if len(far):
            worst = (
                far["difference"]
                .abs()
                .groupby(level="covariate")
                .max()
                .sort_values(ascending=False)
            )
            named = ", ".join(f"{n} by {d:.2f} SDs" for n, d in worst.iloc[:3].items())
            found.append(
                f"stage {design.action}: balance: who has which action differs in {named}, so that the "
                "probability of treatment depends on history and results lean on the outcome model"
            )
    return found
