"""Site effects of a later stage that an earlier stage's model contains exactly.

The stage value V_{k+1} is a sum - where the payoff has bounds, on its link scale, as at stage k - in which
some terms depend only on history and action of stage k and on the site: z'u for columns z that both models
have, times a slope where the last stage has another scale (:func:`slope_of`). These effects u are known
within a draw. Regressing them on the columns of stage k again would shrink them a second time towards zero,
so they are taken out of the response before the fit of stage k and added to its effects afterwards, draw by
draw. (Common coefficients need no such care: with the prior on their sum nothing would change.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bdtr.data.stagecolumns import StageDesign
from bdtr.data.trialdata import TrialData
from bdtr.engine.layout import Factor
from bdtr.stages.prediction import QFunction, StageDraws, UnitColumns
from bdtr.trial.payoff import Payoff

__all__ = ["Carried", "KnownEffects", "carried_terms", "joined_law", "slope_of"]

_SITES_A_TERM = 5  # sites for each term that the correlation of known effects with the rest takes
_ALIKE = 1e-6  # slopes as near to 1 are 1: two stages have one scale


@dataclass(frozen=True)
class Carried:
    """Per grouping factor of a stage, which terms of the next stage are columns of its own (own, next),
    0 or 1."""

    maps: Mapping[str, np.ndarray]

    def effects(
        self, draws: StageDraws, factors: tuple[Factor, ...], slope: np.ndarray | float = 1.0
    ) -> KnownEffects | None:
        """The known effects and their covariances, from draws of the next stage.

        Parameters
        ----------
        draws
            Draws of the next stage.
        factors
            Grouping factors of this stage.
        slope
            What a step of its linear predictor is on the scale of this stage, for all draws or each.

        Returns
        -------
        KnownEffects or None
            None where nothing is carried.
        """
        if not self.maps:
            return None
        effects, covariances, new = [], {}, {}
        for factor in factors:
            own = np.zeros((factor.levels, factor.terms, draws.samples))
            if factor.name in self.maps:
                to = self.maps[factor.name]
                own = np.einsum("ij,ljs->lis", to, draws.effects[factor.name]) * slope
                root = to @ draws.root[factor.name]
                covariance = root @ np.swapaxes(root, 1, 2)
                covariances[factor.name] = np.square(slope).reshape(-1, 1, 1) * covariance
                if factor.name in draws.new:
                    new[factor.name] = to @ draws.new[factor.name] * slope
            effects.append(own.reshape(-1, draws.samples))
        return KnownEffects(np.concatenate(effects), covariances, new)


@dataclass(frozen=True)
class KnownEffects:
    """Known effects (effect, sample), factors in order and level-major; the covariances between terms
    (sample, term, term) of the factors that have any; and the known effects (term, sample) of a new site.
    """

    effects: np.ndarray
    covariances: Mapping[str, np.ndarray]
    new: Mapping[str, np.ndarray]


def carried_terms(
    data: TrialData, here: StageDesign, there: StageDesign, policy: np.ndarray | None = None
) -> Carried:
    """Which effects of the next stage are known at this one.

    A term is carried where its column of the next stage equals a column of the same factor at this
    stage, for all units in the fit of this stage: whatever feasible action is taken there, or under the
    action that a fixed regime takes. (When all are given one action, its site effect is part of
    everybody's payoff.) Nothing is carried where some of these units have no decision at the next stage:
    their response is another.

    Parameters
    ----------
    data
        Checked data.
    here, there
        Columns of this stage and of the next one.
    policy
        Action code of each unit of the data at the next stage under a fixed regime, -1 where it has none.

    Returns
    -------
    Carried
    """
    fitted, later = data.stages[here.index].fitted, data.stages[there.index]
    if not later.among[fitted].all():
        return Carried({})
    frame, feasible = data.frame[fitted].reset_index(drop=True), later.feasible[fitted]
    if policy is not None:
        taken = policy[fitted]
        alone = np.zeros_like(feasible)
        alone[np.arange(len(taken)), np.maximum(taken, 0)] = True
        feasible = np.where((taken >= 0)[:, None], alone, feasible)
    maps = {}
    for group in here.groups:
        twin = next((g for g in there.groups if g.name == group.name), None)
        if twin is None or "delivery" in (group.role, twin.role):
            continue
        assert np.array_equal(group.levels, twin.levels)
        own = group.matrix(frame)
        same = np.ones((own.shape[1], len(twin.terms)), dtype=bool)
        for a in range(feasible.shape[1]):
            rows = feasible[:, a]
            if not rows.any():
                continue
            acted = twin.matrix(there.acting(frame[rows], a))
            same &= (own[rows][:, :, None] == acted[:, None, :]).all(axis=0)
        same &= np.cumsum(same, axis=0) == 1  # to one column each
        if same.any():
            maps[group.name] = same.astype(float)
    return Carried(maps)


def slope_of(q: QFunction, columns: UnitColumns, here: Payoff) -> np.ndarray | float:
    r"""What a step of the linear predictor of the last stage is on the scale of the stage before.

    The scales are one where the family has the link on which its payoff has no bounds. Otherwise - times
    until a horizon, scores between bounds, grades, utilities - it is the least-squares slope, over units and
    actions within each draw, of the payoff on the scale of the stage before in the linear predictor e,
    sum (e - e-bar) h / sum (e - e-bar)^2.

    Parameters
    ----------
    q
        Q-function of the last stage.
    columns
        Columns of some units there.
    here
        Payoff of the stage before.

    Returns
    -------
    numpy.ndarray or float
        Of each draw; 1 where there is one scale.
    """
    if q.payoff.family.linear:
        return 1.0
    eta = q.predictor(columns)
    there = here.linear(q.mean_payoff(eta, columns))
    eta = eta - eta.mean(axis=(0, 1))
    spread = np.square(eta).sum(axis=(0, 1))
    slope = (eta * there).sum(axis=(0, 1)) / np.maximum(spread, 1e-300)
    return 1.0 if (np.abs(slope - 1.0) < _ALIKE).all() else slope


def joined_law(
    known: np.ndarray,
    rest: np.ndarray,
    known_covariance: np.ndarray,
    rest_root: np.ndarray,
    known_new: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Population law of known effects plus the rest of them, which may be correlated.

    The model of the rest r knows nothing of the known effects u, but the sites' draws of both show how
    they go together. With S = mean over sites of r r', G that of u u' and H that of r u', within each draw,

        r = T (P u + W z),    P = S^{-1/2} H G^{-1},    W W' = I - S^{-1/2} H G^{-1} H' S^{-T/2},

    where T T' is the covariance of r between sites and z standard normal: r keeps its covariance.

    Parameters
    ----------
    known, rest
        Effects of the trial's sites (sample, site, term).
    known_covariance
        Covariance of the known effects between sites (sample, term, term).
    rest_root
        T (sample, term, term).
    known_new
        Known effects of a new site (term, sample).

    Returns
    -------
    covariance : numpy.ndarray
        Of the sum (sample, term, term).
    root : numpy.ndarray
        Root of the covariance of what is not known at a new site (sample, term, term).
    new : numpy.ndarray
        What is known of the sum at the new site (term, sample).
    """
    samples, sites, terms = rest.shape
    identity = np.eye(terms)
    if sites < _SITES_A_TERM * terms:  # too few sites to see it
        apart = known_covariance + rest_root @ np.swapaxes(rest_root, 1, 2)
        return apart, rest_root, known_new
    used = np.flatnonzero(np.abs(known).max(axis=(0, 1)) > 0)
    u = known[:, :, used]
    s, g = _second_moments(rest, rest), _second_moments(u, u)
    half = np.linalg.inv(np.linalg.cholesky(s + _ridge(s)))
    cross = half @ _second_moments(rest, u)
    p = np.zeros((samples, terms, terms))
    p[:, :, used] = np.swapaxes(np.linalg.solve(g + _ridge(g), np.swapaxes(cross, 1, 2)), 1, 2)
    explained = p[:, :, used] @ np.swapaxes(cross, 1, 2)
    values, vectors = np.linalg.eigh(identity - 0.5 * (explained + np.swapaxes(explained, 1, 2)))
    root = rest_root @ (vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :])
    total = identity + rest_root @ p
    covariance = total @ known_covariance @ np.swapaxes(total, 1, 2) + root @ np.swapaxes(
        root, 1, 2
    )
    return covariance, root, np.einsum("sij,js->is", total, known_new)


def _second_moments(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.swapaxes(x, 1, 2) @ y / x.shape[1]


def _ridge(matrix: np.ndarray) -> np.ndarray:
    """A little on the diagonal, so that effects that are not there do no harm."""
    size = np.trace(matrix, axis1=1, axis2=2) / matrix.shape[1]
    return (1e-8 * size + 1e-300)[:, None, None] * np.eye(matrix.shape[1])
