"""Site effects of a later stage that an earlier stage's model contains exactly.

The stage value V_{k+1} is a sum in which some terms depend only on history and action of stage k and on
the site: z'u for columns z that both models have. These effects u are known within a draw. Regressing
them on the columns of stage k again would shrink them a second time towards zero, so they are taken out
of the response before the fit of stage k and added to its effects afterwards, draw by draw. (Common
coefficients need no such care: with the prior on their sum nothing would change.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bdtr.data import TrialData
from bdtr.design import StageDesign
from bdtr.multilevel.layout import Factor
from bdtr.prediction import StageDraws

__all__ = ["Carried", "KnownEffects", "carried_terms"]


@dataclass(frozen=True)
class Carried:
    """Per grouping factor of a stage, pairs of (its term, the next stage's term) that are one column."""

    pairs: Mapping[str, tuple[tuple[int, int], ...]]

    def effects(self, draws: StageDraws, factors: tuple[Factor, ...]) -> KnownEffects | None:
        """The known effects and their covariances, from draws of the next stage.

        Parameters
        ----------
        draws
            Draws of the next stage.
        factors
            Grouping factors of this stage.

        Returns
        -------
        KnownEffects or None
            None where nothing is carried.
        """
        if not self.pairs:
            return None
        effects, covariances, new = [], {}, {}
        for factor in factors:
            own = np.zeros((factor.levels, factor.terms, draws.samples))
            pairs = self.pairs.get(factor.name, ())
            if pairs:
                here, there = (list(side) for side in zip(*pairs, strict=True))
                own[:, here] = draws.effects[factor.name][:, there]
                root = draws.root[factor.name][:, there]
                total = np.zeros((draws.samples, factor.terms, factor.terms))
                total[:, np.array(here)[:, None], here] = root @ np.swapaxes(root, 1, 2)
                covariances[factor.name] = total
                if factor.name in draws.new:
                    new[factor.name] = np.zeros((factor.terms, draws.samples))
                    new[factor.name][here] = draws.new[factor.name][there]
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


def carried_terms(data: TrialData, here: StageDesign, there: StageDesign) -> Carried:
    """Which effects of the next stage are known at this one.

    A term is carried where its column of the next stage, whatever feasible action is taken there,
    equals a column of the same factor at this stage, for all units in the fit of this stage. Nothing
    is carried where some of these units have no decision at the next stage: their response is another.

    Parameters
    ----------
    data
        Checked data.
    here, there
        Columns of this stage and of the next one.

    Returns
    -------
    Carried
    """
    fitted, later = data.stages[here.index].fitted, data.stages[there.index]
    if not later.among[fitted].all():
        return Carried({})
    frame, feasible = data.frame[fitted].reset_index(drop=True), later.feasible[fitted]
    pairs = {}
    for group in here.groups:
        twin = next((g for g in there.groups if g.name == group.name), None)
        if twin is None or "delivery" in (group.role, twin.role):
            continue
        assert np.array_equal(group.levels, twin.levels)
        own = group.matrix(frame)
        same = np.ones((own.shape[1], len(twin.terms)), dtype=bool)
        for a in range(feasible.shape[1]):
            rows = feasible[:, a]
            acted = twin.matrix(there.acting(frame[rows], a))
            same &= (own[rows][:, :, None] == acted[:, None, :]).all(axis=0)
        found = [(int(i), int(j)) for i, j in zip(*np.nonzero(same), strict=True)]
        if found:
            pairs[group.name] = tuple(found)
    return Carried(pairs)
