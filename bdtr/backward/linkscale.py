"""Stage values of bounded or positive payoffs on their link scale.

A value of a later stage that is a probability, a mean score or a rate is regressed by quasi-likelihood
(:mod:`bdtr.engine.quasi`): Q-values of the earlier stage keep to the bounds of the payoff, and site effects
of the later stage, on the same scale there, are carried back as those of a straight line are. What the
draws of a stage need of this is kept in its ``engine`` group, as passes under further policies use it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from bdtr.backward.fitrecord import FitRecord
from bdtr.backward.induction import StageResponses, together
from bdtr.backward.propagation import Totals, accumulate
from bdtr.engine.crossproducts import Rows, weighted
from bdtr.engine.layout import Layout, layout
from bdtr.engine.quasi import (
    Blocks,
    Link,
    QuasiModel,
    Tangent,
    first_guess,
    settle,
    skewness_shift,
    tangent,
    working,
)
from bdtr.results.errors import ArgumentError
from bdtr.stages.outcome import OutcomeModel, outcome_model, stage_rows
from bdtr.trial.payoff import Payoff

__all__ = ["OnLinkScale", "on_link_scale", "part_on_link_scale", "working_response"]

_FEW = 8  # responses from which weights are learned
_CELLS_KEPT = 30_000_000  # responses in memory (240 MB), else they are made again at each step
_UNSETTLED = 0.02  # change of eta, on the link scale, from which a response has no fixed point


@dataclass(frozen=True)
class OnLinkScale:
    """A stage's model, the cross-products with its working responses, its mean response, and what is kept
    in its ``engine`` group."""

    model: OutcomeModel
    totals: Totals
    mean: np.ndarray
    kept: xr.Dataset


def link_of(payoff: Payoff) -> Link:
    """The link of a stage whose responses are values of a later one."""
    return Link(payoff.family.link == "logit")


def on_link_scale(
    fit: FitRecord,
    k: int,
    responses: Sequence[StageResponses],
    effects: Sequence[np.ndarray | None],
    before: tuple[OutcomeModel, np.ndarray] | None,
) -> OnLinkScale:
    """Cross-products of a stage with working responses at their fixed points.

    Parameters
    ----------
    fit
        The fit.
    k
        Stage, from 0.
    responses
        Of each policy.
    effects
        Known effects (effect, response) of each policy, as they are written.
    before
        Model and mean response of the pass that comes with the fit, where this is a further one; the first
        policy has then been drawn before.

    Returns
    -------
    OnLinkScale

    Raises
    ------
    ArgumentError
        If a response has no fixed point: its mean is at or beyond the bounds of the payoff.
    """
    data, design, payoff = fit.require_data("a backward pass"), fit.designs[k], fit.payoff(k)
    link, rows = link_of(payoff), stage_rows(data, design)
    where = layout(design.factors, rows.codes)
    blocks = _shares(responses, payoff, len(rows.x) * fit.settings.propagated * len(responses))
    if before is None:
        model, mean, at = _learned(fit, k, rows, where, blocks, effects)
    else:
        model, mean, at = before[0], payoff.share(before[1]), _kept_tangent(fit, k)
    eta, known = first_guess(link, mean), _in_units(model, effects)
    quasi = QuasiModel(rows, where, link, model.parameters)
    half = skewness_shift(quasi, at)
    found = settle(quasi, at, eta, blocks, known, _near(half))
    _settled(fit, k, [one.change for one in found])
    here = [(one.coefficients, one.effects) for one in found]
    made = working(quasi, at, here, blocks, half)
    totals = accumulate(model.rows, design.factors, made, (model.location, 1.0))
    zero, one = payoff.ends
    kept = xr.Dataset(
        {"weight": ("row", at.weight), "typical_phi": ("phi_dim", at.phi)},
        attrs={"centre": float(eta.mean()), "steps": found[0].steps},
    )
    return OnLinkScale(model, totals, zero + (one - zero) * mean, kept)


def _learned(
    fit: FitRecord,
    k: int,
    rows: Rows,
    where: Layout,
    blocks: Blocks,
    effects: Sequence[np.ndarray | None],
) -> tuple[OutcomeModel, np.ndarray, Tangent]:
    """The model of a stage, its mean response as a share, and the tangent, from its first responses."""
    data, design, payoff = fit.require_data("a backward pass"), fit.designs[k], fit.payoff(k)
    link = link_of(payoff)
    mean, some, which = _looked_at(blocks, len(rows.x), fit.settings.propagated)
    eta, width = first_guess(link, mean), fit.settings.prior_width
    model = outcome_model(data, design, payoff, rows, float(eta.mean()), 1.0, None, width)
    own = _in_units(model, effects[:1])[0]
    first = None if own is None else np.ascontiguousarray(own[:, which])
    quasi = QuasiModel(rows, where, link, model.parameters)
    at = tangent(quasi, some, eta, model.location, first)
    return replace(model, rows=weighted(rows, at.weight)), mean, at


def part_on_link_scale(
    fit: FitRecord,
    k: int,
    responses: Sequence[StageResponses],
    effects: Sequence[np.ndarray | None],
    before: tuple[OutcomeModel, np.ndarray],
    keep: np.ndarray,
) -> Totals:
    """The same of some of the rows of a stage, weights and typical phi as they are.

    Parameters
    ----------
    fit, k
        The fit and the stage.
    responses
        Of each policy, for the rows that are kept.
    effects
        Known effects (effect, response) of each policy, as they are written.
    before
        Model and mean response of the stage.
    keep
        Which rows of the stage's fit.
    """
    data, design, payoff = fit.require_data("a backward pass"), fit.designs[k], fit.payoff(k)
    link, rows = link_of(payoff), stage_rows(data, design).part(keep)
    where = layout(design.factors, rows.codes)
    model, at = before[0], _kept_tangent(fit, k)
    at = replace(at, weight=at.weight[keep])
    eta = first_guess(link, payoff.share(before[1])[keep])
    samples = responses[0].done.samples
    blocks = _shares(responses, payoff, len(rows.x) * samples * len(responses))
    known = _in_units(model, effects)
    quasi = QuasiModel(rows, where, link, model.parameters)
    found = settle(quasi, at, eta, blocks, known, _near(skewness_shift(quasi, at)))
    _settled(fit, k, [one.change for one in found])
    here = [(one.coefficients, one.effects) for one in found]
    made = working(quasi, at, here, blocks)
    return accumulate(weighted(rows, at.weight), design.factors, made, (model.location, 1.0))


def _near(half: np.ndarray) -> float:
    """A hundredth of the posterior SD of eta, within limits, from half its variance at each row."""
    return float(np.clip(0.01 * np.sqrt(2.0 * half.mean()), 2e-4, 0.01))


def _settled(fit: FitRecord, k: int, changes: Sequence[np.ndarray]) -> None:
    worst = max(float(np.nan_to_num(c, nan=np.inf).max()) for c in changes)
    if worst <= _UNSETTLED:
        return
    low, high = fit.payoff(k).bounds or (0.0, np.inf)
    raise ArgumentError(
        f"stage {fit.designs[k].action}: the values of the later stage have no fit within the bounds of the "
        f"payoff, {low:g} to {high:g}: their means among units with some action and history lie at or beyond "
        "these. With prices or shifts, make them smaller or state them in units of the payoff; otherwise "
        "take terms out of the formula that tell few units apart."
    )


def _shares(responses: Sequence[StageResponses], payoff: Payoff, cells: int) -> Blocks:
    """Responses as shares of their range; kept where they are few."""

    def made() -> Iterator[tuple[slice, list[np.ndarray]]]:
        for at, values in together(responses):
            yield at, [payoff.share(y) for y in values]

    if cells > _CELLS_KEPT:
        return made
    kept = list(made())
    return lambda: kept


def _looked_at(blocks: Blocks, rows: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean response of each row, a few responses, and which these are."""
    which = np.unique(np.linspace(0, count - 1, _FEW).astype(int))
    mean, some = np.empty(rows), np.empty((rows, which.size))
    for at, values in blocks():
        mean[at], some[at] = values[0].mean(axis=1), values[0][:, which]
    return mean, some, which


def _in_units(model: OutcomeModel, effects: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
    return [None if u is None else model.engine_effects(u.T).T for u in effects]


def _kept_tangent(fit: FitRecord, k: int) -> Tangent:
    engine = fit.tree[f"stage_{k + 1}/engine"].to_dataset()
    location = float(engine.attrs["location"])
    return Tangent(engine["weight"].to_numpy(), engine["typical_phi"].to_numpy(), location)


def working_response(payoff: Payoff, eta: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Working response of mean payoffs about a linear predictor, on the scale of the link."""
    link = link_of(payoff)
    fitted = link.mean(eta)
    return eta + (payoff.share(mean) - fitted) / link.slope(fitted)
