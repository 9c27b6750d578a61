"""The models of a fit whose parameters were drawn: those of stages, and of states."""

from __future__ import annotations

from collections.abc import Iterator

from bdtr.backward.fitrecord import FitRecord
from bdtr.trial.states import states_of

__all__ = ["drawn_models"]


def drawn_models[F: FitRecord](fit: F) -> Iterator[tuple[str, F, int]]:
    """Each with what it is called (a stage by its action, ``state y`` for others), the fit that has its draws
    and its stage there."""
    for k, design in enumerate(fit.designs):
        names = states_of(fit.trial, k)
        for name in names:
            yield f"state {name}", fit.states[name], 0
        if not names:
            yield design.action, fit, k
