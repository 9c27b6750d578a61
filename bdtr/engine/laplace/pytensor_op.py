"""Laplace's log likelihood of phi as a PyTensor Op, with a numba implementation so that nutpie runs it.

As for Gaussian outcomes (:mod:`bdtr.engine.density.pytensor_op`), data are one shared vector: constants would
be compiled into the model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from pytensor.compile.sharedvalue import shared

from bdtr.engine.compiled.kernels import kernel
from bdtr.engine.compiled.likelihood_op import LogLikelihood, register
from bdtr.engine.laplace.cells import Cells
from bdtr.engine.laplace.climb import make_room
from bdtr.engine.laplace.density import Posterior
from bdtr.engine.laplace.gradient import likelihood_and_gradient

__all__ = ["laplace_log_likelihood"]

_NEAR = 1e-9  # decrement of climbs: value and gradient are then exact to nine digits


@kernel
def _unpack(data):
    counts = data[:13].astype(np.int64)
    family, n, p, columns, inner, edges, parts = counts[:7]
    entries, border, factors, sds, alphas, shapes = counts[7:]
    at = 13
    x, at = data[at : at + n * p].reshape(n, p), at + n * p
    xt, at = data[at : at + n * p].reshape(p, n), at + n * p
    z, at = data[at : at + columns * n].reshape(columns, n), at + columns * n
    y, at = data[at : at + n], at + n
    m, at = data[at : at + n], at + n
    count, at = data[at : at + n], at + n
    precision, at = data[at : at + p], at + p
    mean, at = data[at : at + p], at + p
    sd, at = data[at : at + 3 * sds].reshape(sds, 3), at + 3 * sds
    alpha, at = data[at : at + alphas], at + alphas
    shape, at = data[at : at + 3 * shapes].reshape(shapes, 3), at + 3 * shapes
    mode, at = data[at : at + inner + border + p], at + inner + border + p
    whole = data[at:].astype(np.int64)
    at = 0
    places, at = whole[at : at + columns * n].reshape(columns, n), at + columns * n
    of, at = whole[at : at + columns], at + columns
    term, at = whole[at : at + columns], at + columns
    outer, at = whole[at : at + columns], at + columns
    stratum, at = whole[at : at + n], at + n
    rows, at = whole[at : at + edges], at + edges
    start, at = whole[at : at + edges], at + edges
    first, at = whole[at : at + inner], at + inner
    place, at = whole[at : at + inner], at + inner
    segments, at = whole[at : at + parts], at + parts
    terms, at = whole[at : at + factors], at + factors
    cells = Cells(
        family, x, xt, z, places, of, term, outer, y, m, count, stratum, rows, start, first, place,
        segments, entries, border,
    )  # fmt: skip
    correlated = whole[at : at + factors] > 0
    return Posterior(cells, terms, correlated, precision, mean, sd, alpha, shape), mode


@njit
def _evaluate(phi, data):
    # PyTensor may hand over views.
    posterior, mode = _unpack(np.ascontiguousarray(data))
    room = make_room(posterior.cells)
    room.w[:] = mode
    return likelihood_and_gradient(np.ascontiguousarray(phi), posterior, room, _NEAR)


class LaplaceLogLikelihood(LogLikelihood):
    """Laplace's log likelihood."""

    evaluate = _evaluate


register(LaplaceLogLikelihood, "laplace_")


def laplace_log_likelihood(phi: Any, posterior: Posterior, mode: np.ndarray) -> Any:
    """Laplace's log likelihood of phi, coefficients and group effects integrated out, in a PyTensor graph.

    Parameters
    ----------
    phi
        A PyTensor vector.
    posterior
        Model and data.
    mode
        Effects and coefficients that climbs begin at.

    Returns
    -------
    pytensor.tensor.TensorVariable
        A scalar.
    """
    outputs: Any = LaplaceLogLikelihood()(phi, shared(_pack(posterior, mode), name="laplace_data"))
    return outputs[0]


def _pack(posterior: Posterior, mode: np.ndarray) -> np.ndarray:
    cells = posterior.cells
    counts = [
        cells.family, *cells.x.shape, len(cells.z), len(cells.first), len(cells.rows),
        len(cells.segments), cells.entries, cells.border, posterior.terms.size, len(posterior.sd),
        posterior.alpha.size, len(posterior.shape),
    ]  # fmt: skip
    parts = [
        cells.x, cells.xt, cells.z, cells.y, cells.m, cells.count, posterior.precision,
        posterior.mean, posterior.sd, posterior.alpha, posterior.shape, mode, cells.at, cells.of,
        cells.term, cells.outer, cells.stratum, cells.rows, cells.start, cells.first, cells.place,
        cells.segments, posterior.terms, posterior.correlated,
    ]  # fmt: skip
    return np.concatenate([np.array(counts, float), *(np.ravel(a).astype(float) for a in parts)])
