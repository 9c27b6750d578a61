"""Draws of a stage for responses much like others that have been drawn: those of a further policy.

phi comes from short chains that start at the known draws (:mod:`bdtr.engine.phi.neighbours`); coefficients
and group effects follow as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bdtr.engine.coefficients.joint_draws import ALONE, Shared
from bdtr.engine.compiled.streams import children
from bdtr.engine.crossproducts import CrossProducts, Responses
from bdtr.engine.direct import (
    MOST_WAYS,
    DirectDraws,
    DirectReport,
    draw_given,
    without_residuals,
)
from bdtr.engine.parameters import Parameters
from bdtr.engine.phi.neighbours import Neighbours, draw_alike, neighbours
from bdtr.engine.system import Posteriors

__all__ = ["draw_beside", "known_neighbours"]


def known_neighbours(
    products: CrossProducts, responses: Responses, params: Parameters, phi: np.ndarray, floor: float
) -> Neighbours | None:
    """What draws of phi by :func:`bdtr.engine.direct.draw_each` teach about other responses of the same rows.

    Parameters
    ----------
    products, responses, params
        As in ``draw_each``.
    phi
        Its draws (response x phi).
    floor
        As in ``draw_each``.

    Returns
    -------
    Neighbours or None
        None where there are too few draws, or responses without residuals among them.
    """
    posteriors = Posteriors.given(products, responses, params, floor)
    if without_residuals(posteriors).any():
        return None
    return neighbours(params.folded(phi), posteriors.of)


def draw_beside(
    near: Neighbours,
    products: CrossProducts,
    responses: Responses,
    params: Parameters,
    seed: np.random.SeedSequence,
    progress: Callable[[int, int], None] | None,
    floor: float,
    shared: Shared = ALONE,
) -> DirectDraws | None:
    """One posterior draw for each response, phi from short chains that start at known draws, moved along.

    Parameters
    ----------
    near
        From :func:`known_neighbours`, drawn with the same seed.
    products, responses, params, seed, progress, floor, shared
        As in :func:`bdtr.engine.direct.draw_each`.

    Returns
    -------
    DirectDraws or None
        None where the weights of the proposals are not good enough: ``draw_each`` has other ways.
    """
    posteriors = Posteriors.given(products, responses, params, floor)
    if without_residuals(posteriors).any():
        return None
    # The words of the first way that draw_each goes.
    words = children(children(seed, 4)[1], MOST_WAYS)[0].generate_state(responses.count, np.uint64)
    found = draw_alike(near, words, posteriors.of, progress)
    if found is None:
        return None
    drawn = draw_given(products, responses, params, found.phi, seed, shared)
    report = DirectReport(
        responses.count,
        effective_share=found.share,
        khat=found.khat,
        evaluations=float(found.steps + 1),
    )
    return replace(drawn, report=report)
