"""Arguments of the compiled kernels: cross-products, layout, priors and scratch arrays as tuples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from bdtr.multilevel.crossproducts import CrossProducts, Responses
from bdtr.multilevel.linking import kernel, link
from bdtr.multilevel.parameters import Parameters

__all__ = [
    "PRIORS",
    "RESPONSE",
    "ROOM",
    "SYSTEM",
    "Priors",
    "Response",
    "Room",
    "System",
    "make_room",
    "response",
    "system",
]


class System(NamedTuple):
    """Cross-products, layout and priors of a stage as the compiled kernels take them."""

    terms: np.ndarray
    correlated: np.ndarray
    start: np.ndarray
    block_groups: np.ndarray
    group_start: np.ndarray
    group_factor: np.ndarray
    border_start: np.ndarray
    border_factor: np.ndarray
    border: int
    blocks: np.ndarray
    block_start: np.ndarray
    used: np.ndarray  # (stratum, position): whether a row of a block is anything but zero
    hth: np.ndarray
    rows: np.ndarray
    log_weight: float
    precision: np.ndarray


class Priors(NamedTuple):
    """Coded priors of phi, and the smallest residual SD that is looked at."""

    sd: np.ndarray
    alpha: np.ndarray
    floor: float


class Response(NamedTuple):
    """Cross-products of one response: Z'y, H'y (stratum, position) and y'y (stratum)."""

    zty: np.ndarray
    hty: np.ndarray
    yty: np.ndarray


class Room(NamedTuple):
    """Scratch arrays of one thread."""

    work: np.ndarray  # the largest block with its columns
    panel: np.ndarray  # eliminated rows of all blocks
    full: np.ndarray  # H'H and H'y, border and common columns
    small: np.ndarray  # the common columns
    zty: np.ndarray


# Types of the tuples, for kernels that are called by name (see bdtr.multilevel.linking).
_INTS, _FLAGS, _FLOATS = types.int64[::1], types.boolean[::1], types.float64[::1]
_MATRIX, _CUBE = types.float64[:, ::1], types.float64[:, :, ::1]
SYSTEM = types.NamedTuple(
    (_INTS, _FLAGS, _INTS, _INTS, _INTS, _INTS, _INTS, _INTS, types.int64, _MATRIX, _INTS,
     types.boolean[:, ::1], _CUBE, _INTS, types.float64, _FLOATS),
    System,
)  # fmt: skip
PRIORS = types.NamedTuple((_MATRIX, _FLOATS, types.float64), Priors)
RESPONSE = types.NamedTuple((_MATRIX, _MATRIX, _FLOATS), Response)
ROOM = types.NamedTuple((_MATRIX, _MATRIX, _MATRIX, _MATRIX, _FLOATS), Room)


def system(products: CrossProducts, params: Parameters) -> System:
    """Cross-products and parameters as the compiled kernels take them."""
    link()
    where = products.layout
    return System(
        params.terms,
        params.correlated,
        where.start,
        where.block_groups,
        where.inner.first,
        where.inner.factor,
        where.border.first,
        where.border.factor,
        where.border.size,
        products.blocks,
        products.block_start,
        products.used,
        products.hth,
        products.rows,
        products.log_weight,
        params.precision,
    )


def response(responses: Responses, which: int = 0) -> Response:
    """One response as the compiled kernels take it."""
    return Response(
        np.ascontiguousarray(responses.zty[:, :, which]),
        np.ascontiguousarray(responses.hty[:, :, which]),
        np.ascontiguousarray(responses.yty[:, which]),
    )


@kernel
def make_room(s):
    """Scratch arrays for one thread."""
    p, wide = s.precision.size, s.hth.shape[1]
    largest = 1
    for j in range(s.start.size - 1):
        largest = max(largest, s.start[j + 1] - s.start[j])
    inner = s.start[-1]
    return Room(
        np.empty((largest, largest + wide + 1)),
        np.empty((inner, wide + 1)),
        np.empty((wide + 1, wide + 1)),
        np.empty((p, p + 1)),
        np.empty(inner),
    )
