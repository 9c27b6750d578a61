"""Grouping factors whose SDs the data cannot tell: of one level, or of the same groups as another."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from bdtr.backward.fitrecord import FitRecord
from bdtr.backward.passes import stage_model
from bdtr.stages.outcome import OutcomeModel

__all__ = ["indistinct_factors"]


def indistinct_factors(fit: FitRecord) -> list[str]:
    """Grouping factors of each stage whose SDs the prior tells, not the data.

    Of the units in the fit, all are of one level; or two are of one level of a factor whenever they are of
    one level of another with the same term.
    """
    data, found = fit.require_data("checks of the model"), []
    for k, design in enumerate(fit.designs):
        model = stage_model(fit, k)
        if isinstance(model, OutcomeModel):
            rows = data.frame[data.stages[k].fitted]
            codes = {
                g.name: np.unique(g.codes(rows), return_inverse=True)[1] for g in design.groups
            }
            terms = {g.name: g.terms for g in design.groups}
            found += [
                f"stage {design.action}: {said}; leave that term out of its formula"
                for said in (*_alone(codes), *_twins(codes, terms))
            ]
    return found


def _alone(codes: dict[str, np.ndarray]) -> Iterator[str]:
    """Factors of one level."""
    for name, code in codes.items():
        if not code.any():
            yield (
                f"all units in the fit are of one level of {name!r}, so that sd({name}) is that of its "
                "prior"
            )


def _twins(codes: dict[str, np.ndarray], terms: dict) -> Iterator[str]:
    """Factors with the same groups and a term that both have."""
    for one, other in combinations(codes, 2):
        both = [t for t in terms[one] if t in terms[other]]
        if both and _same_groups(codes[one], codes[other]):
            yield (
                f"the groups of {one!r} and {other!r} are the same, so that the data cannot tell "
                f"sd({one})[{both[0]}] from sd({other})[{both[0]}]"
            )


def _same_groups(one: np.ndarray, other: np.ndarray) -> bool:
    levels = one.max(initial=0) + 1
    if levels == 1 or levels != other.max(initial=0) + 1:
        return False  # of one level: said of each
    return len(np.unique(one.astype(np.int64) * levels + other)) == levels
