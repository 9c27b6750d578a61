"""The outcome model of a stage: design, family and priors.

link(E[Y | h, a]) = x(h, a)'b + sum_g z_g(h, a)'u_g[level],    u_g ~ N(0, Sigma_g)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bdtr.data.groupcolumns import GroupDesign
from bdtr.data.stagecolumns import StageDesign
from bdtr.data.trialdata import TrialData
from bdtr.engine.crossproducts import Rows
from bdtr.engine.layout import Factor
from bdtr.engine.parameters import Parameters
from bdtr.stages.coded_priors import parameters
from bdtr.trial.families import FAMILIES, Family
from bdtr.trial.payoff import Payoff
from bdtr.trial.priors import StagePriors, stage_priors
from bdtr.trial.trial import Trial

__all__ = [
    "OutcomeModel",
    "coords",
    "level_dim",
    "outcome_model",
    "response_scale",
    "stage_rows",
    "variable_dims",
]


@dataclass(frozen=True)
class OutcomeModel:
    """The model of one stage and the coded rows of its fit.

    The engines see columns as they are measured (:mod:`bdtr.data.margins`) and the response less
    ``location``, divided by ``spread``: nothing then depends on units or on where an outcome has its
    zero. ``propagated`` says that the response is a stage value. Outcomes that are not Gaussian are
    ``recorded`` as their family takes them, with their ``companion`` (trials, exposure).
    """

    design: StageDesign
    payoff: Payoff
    priors: StagePriors
    rows: Rows
    propagated: bool = False
    location: float = 0.0
    spread: float = 1.0
    recorded: np.ndarray | None = None
    companion: np.ndarray | None = None

    @property
    def family(self) -> Family:
        """The outcome family."""
        return self.payoff.family

    @property
    def factors(self) -> tuple[Factor, ...]:
        """The grouping factors as the exact engine takes them."""
        return self.design.factors

    @property
    def by_action(self) -> bool:
        """Whether each action has its own residual SD."""
        return self.rows.strata > 1

    @property
    def categories(self) -> list[str]:
        """Categories of an ordinal outcome with a threshold that is estimated: all but the two lowest."""
        return [name.removeprefix("gap[").removesuffix("]") for name in self.priors.gaps]

    @cached_property
    def engine_priors(self) -> StagePriors:
        """Priors in the units of the engines."""
        return self.priors.in_units(
            self.design.measure.scale,
            {
                **{g.name: g.measure.scale for g in self.design.groups},
                **{s.name: np.ones(len(s.curves)) for s in self.design.smooths},
            },
            self.location * self.design.constant,
            self.spread,
        )

    @property
    def parameters(self) -> Parameters:
        """Layout and priors of phi, in the units of the engines."""
        return parameters(self.factors, self.engine_priors, self.rows.strata)

    def coefficients(self, found: np.ndarray) -> np.ndarray:
        """Coefficients (draw, term) of the engines in units of the outcome, columns as measured."""
        return self.spread * found + self.location * self.design.constant

    def effects(self, found: np.ndarray) -> np.ndarray:
        """Group effects (draw, effect) of the engines in units of the outcome, terms as written."""
        return self._turned(found, self.turns)

    def engine_effects(self, effects: np.ndarray) -> np.ndarray:
        """Group effects (draw, effect) as the engines have them: the inverse of :meth:`effects`."""
        return self._turned(effects, self.backs)

    @property
    def turns(self) -> list[np.ndarray]:
        """Per factor what makes its effects, in units of the outcome and for terms as written, of those of
        the engines."""
        groups = [g.measure.turn * self.spread for g in self.design.groups]
        return groups + [np.full((1, 1), self.spread)] * (len(self.factors) - len(groups))

    @property
    def backs(self) -> list[np.ndarray]:
        """The inverses of :attr:`turns`."""
        groups = [g.measure.back / self.spread for g in self.design.groups]
        return groups + [np.full((1, 1), 1.0 / self.spread)] * (len(self.factors) - len(groups))

    def _turned(self, effects: np.ndarray, maps: Sequence[np.ndarray]) -> np.ndarray:
        out, at = np.empty_like(effects), 0
        for factor, one in zip(self.factors, maps, strict=True):
            own = slice(at, at + factor.levels * factor.terms)
            by_level = effects[:, own].reshape(len(effects), factor.levels, factor.terms)
            out[:, own] = (by_level @ one.T).reshape(len(effects), -1)
            at = own.stop
        return out


def stage_rows(data: TrialData, design: StageDesign) -> Rows:
    """The rows of a stage's fit, coded.

    Parameters
    ----------
    data
        Checked data.
    design
        The stage's columns.

    Returns
    -------
    Rows
        With a stratum, and so a residual SD, for each action of a continuous response, unless the stage
        says that they have one in common.
    """
    stage, last = data.stages[design.index], design.index == len(data.stages) - 1
    frame = data.frame[stage.fitted].reset_index(drop=True)
    apart = not last or (stage.stage.residual == "arm" and FAMILIES[data.trial.family].has_sigma)
    z, codes = [], []
    for g in design.groups:
        own, values = g.codes(frame), g.measured(frame)
        nowhere = (own < 0) & stage.outside[
            stage.fitted
        ]  # without a decision, in no class of the stage
        z.append(np.where(nowhere[:, None], 0.0, values))
        codes.append(np.where(nowhere, 0, own))
    for s in design.smooths:
        z += s.matrices(frame)
        codes += [np.broadcast_to(np.arange(s.bends), (len(frame), s.bends))] * len(s.curves)
    return Rows(
        design.common(frame, design.site_codes(frame)),
        tuple(z),
        tuple(codes),
        stage.action[stage.fitted].astype(np.int64) if apart else None,
        len(design.arms) if apart else 1,
        None if stage.weight is None else stage.weight[stage.fitted],
    )


def outcome_model(
    data: TrialData,
    design: StageDesign,
    payoff: Payoff,
    rows: Rows,
    centre: float,
    spread: float,
    location: float | None = None,
    width: float = 1.0,
) -> OutcomeModel:
    """Put a stage's model together.

    Parameters
    ----------
    data
        Checked data.
    design
        The stage's columns.
    payoff
        The outcome family, and what its outcomes are worth.
    rows
        From :func:`stage_rows`.
    centre, spread
        Mean and SD of the response on the scale of the linear predictor, which scale the priors.
    location
        What the engines take out of the response; left out: the mean, where the columns have a constant.
    width
        Factor of the widths of priors of coefficients and of SDs between groups.

    Returns
    -------
    OutcomeModel
    """
    chosen = payoff.family
    recorded = companion = None
    if not chosen.closed_form:
        own = data.stages[design.index].fitted
        assert data.recorded is not None and data.companion is not None
        recorded, companion = data.recorded[own], data.companion[own]
    groups = {g.name: (g.terms, g.measure.scale, g.correlated) for g in design.groups}
    constant = [t for t, c in zip(design.terms, design.constant, strict=True) if c]
    priors = stage_priors(
        design.terms,
        design.measure.scale,
        groups,
        centre,
        spread,
        chosen.has_sigma,
        data.stages[design.index].stage.priors,
        constant,
        design.sites.names,
        _gaps(data.trial, recorded) if chosen.shape == "threshold" else None,
        chosen.has_nu,
        {s.name: s.curves for s in design.smooths},
    )
    if width != 1.0:
        priors = priors.wider(width)
    propagated = design.index < len(data.stages) - 1
    if chosen.link != "identity" and not propagated:
        location, spread = 0.0, 1.0  # the linear predictor has a scale of its own
    elif location is None:
        location = centre if design.constant.any() else 0.0
    return OutcomeModel(
        design, payoff, priors, rows, propagated, location, spread, recorded, companion
    )


def response_scale(data: TrialData, payoff: Payoff) -> tuple[float, float]:
    """Mean and SD of the outcome of the last stage on the scale of its linear predictor.

    Parameters
    ----------
    data
        Checked data.
    payoff
        The payoff of the last stage.

    Returns
    -------
    centre, spread : float
        From observed payoffs, or the outcomes that these are made of.
    """
    values = data.payoff
    if payoff.family.companion == "event" or payoff.worth is not None:
        assert data.recorded is not None
        values = data.recorded[data.stages[-1].fitted]
    return payoff.family.response_scale(values)


def _gaps(trial: Trial, recorded: np.ndarray | None) -> dict[str, float]:
    """Log distances between the thresholds that the shares of categories would have, half a unit added to
    each, by the name of the category above."""
    assert recorded is not None and trial.categories is not None
    names = list(trial.categories)
    counts = np.bincount(recorded.astype(np.int64), minlength=len(names)) + 0.5
    below = np.cumsum(counts)[:-1] / counts.sum()
    threshold = np.log(below / (1.0 - below))
    return dict(zip(names[2:], np.log(np.diff(threshold)).tolist(), strict=True))


def level_dim(group: GroupDesign) -> str:
    """Dimension of a factor's levels: ``site`` for sites, else the factor's own name."""
    return "site" if group.role == "site" else group.name


def coords(
    design: StageDesign, by_action: bool = False, categories: Sequence[str] = ()
) -> dict[str, Any]:
    """Coordinates of a stage's posterior, with a residual SD for each action or not, and the categories that
    have a threshold of their own."""
    out: dict[str, Any] = {"term": list(design.terms)}
    if by_action:
        out["action"] = list(design.arms)
    if categories:
        out["category"] = list(categories)
    for g in design.groups:
        out[level_dim(g)] = list(g.levels)
        out[f"{g.name}_term"] = list(g.terms)
        if g.correlated:
            out[f"{g.name}_term_bis"] = list(g.terms)
    for s in design.smooths:
        curve, bend = s.dims
        out[curve], out[bend] = list(s.curves), list(range(1, s.bends + 1))
    return out


def variable_dims(design: StageDesign) -> dict[str, list[str]]:
    """Dimensions of each stored variable, chain and draw apart."""
    out = {"b": ["term"]}
    for g in design.groups:
        out[f"sd_{g.name}"] = [f"{g.name}_term"]
        if g.correlated:
            out[f"cor_{g.name}"] = [f"{g.name}_term", f"{g.name}_term_bis"]
        out[f"u_{g.name}"] = [level_dim(g), f"{g.name}_term"]
    for s in design.smooths:
        out[f"sd_{s.name}"], out[f"u_{s.name}"] = [s.dims[0]], list(s.dims)
    return out
