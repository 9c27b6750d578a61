"""Arguments of the compiled kernels: cross-products, layout, priors and scratch arrays as tuples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numba import types

from bdtr.engine.compiled.kernels import kernel, link
from bdtr.engine.compiled.lanes import LANES, padded, room_for
from bdtr.engine.crossproducts import CrossProducts, Responses
from bdtr.engine.parameters import Parameters

__all__ = [
    "PRIORS",
    "RESPONSE",
    "ROOM",
    "SYSTEM",
    "Posteriors",
    "Priors",
    "Response",
    "Room",
    "System",
    "Targets",
    "make_room",
    "no_room",
    "pack",
    "response",
    "system",
    "unpack",
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
    """Coded priors of phi."""

    sd: np.ndarray
    alpha: np.ndarray


class Response(NamedTuple):
    """Cross-products of one response: Z'y, H'y (stratum, position) and y'y (stratum)."""

    zty: np.ndarray
    hty: np.ndarray
    yty: np.ndarray


class Targets(NamedTuple):
    """Marginal densities of phi given some responses, the parts in the order in which kernels take them.

    ``zty, hty, yty`` are as in :class:`Response`, the response first.
    """

    own: System
    priors: Priors
    zty: np.ndarray
    hty: np.ndarray
    yty: np.ndarray

    @property
    def count(self) -> int:
        """Number of responses."""
        return len(self.yty)

    @property
    def sds(self) -> slice:
        """Where group SDs stand in phi."""
        return slice(1, self.priors.sd.shape[0])

    def of(self, which: np.ndarray) -> Targets:
        """Those of some of the responses."""
        return self._replace(zty=self.zty[which], hty=self.hty[which], yty=self.yty[which])


@dataclass(frozen=True)
class Posteriors:
    """The posteriors of phi given each of the responses of a stage.

    ``responses`` are cross-products with the responses, shifted to zero prior means. Residuals are taken to
    hold noise of SD ``floor`` beside what they are: y'y has n times its square more. Without it the residual
    SD of a response that the columns reproduce would go to zero and the density to infinity.
    """

    products: CrossProducts
    responses: Responses
    params: Parameters
    floor: float
    own: System
    priors: Priors

    @classmethod
    def given(
        cls, products: CrossProducts, responses: Responses, params: Parameters, floor: float
    ) -> Posteriors:
        """Those given responses that have not been shifted."""
        shifted = responses.without(products, params.mean)
        noise = products.rows[:, None] * floor**2
        shifted = replace(shifted, yty=shifted.yty + noise)
        priors = Priors(params.sd_prior, params.alpha)
        return cls(products, shifted, params, floor, system(products, params), priors)

    def of(self, which: np.ndarray) -> Targets:
        """Densities given some of the responses, as the kernels take them."""
        return Targets(self.own, self.priors, *self.responses.each(which))


class Room(NamedTuple):
    """Scratch arrays of one thread."""

    rows: np.ndarray  # the largest block with its columns, flat, rows of whole vectors
    triangle: np.ndarray  # eliminated rows of all blocks: columns of their own block, whole vectors
    panel: np.ndarray  # the other columns of these rows, and zeros up to a multiple of eight
    full: np.ndarray  # H'H and H'y, border and common columns
    small: np.ndarray  # the common columns
    zty: np.ndarray


# Types of the tuples, for kernels that are called by name (see bdtr.engine.compiled.kernels).
_INTS, _FLAGS, _FLOATS = types.int64[::1], types.boolean[::1], types.float64[::1]
_MATRIX, _CUBE = types.float64[:, ::1], types.float64[:, :, ::1]
SYSTEM = types.NamedTuple(
    (_INTS, _FLAGS, _INTS, _INTS, _INTS, _INTS, _INTS, _INTS, types.int64, _MATRIX, _INTS,
     types.boolean[:, ::1], _CUBE, _INTS, types.float64, _FLOATS),
    System,
)  # fmt: skip
PRIORS = types.NamedTuple((_MATRIX, _FLOATS), Priors)
RESPONSE = types.NamedTuple((_MATRIX, _MATRIX, _FLOATS), Response)
ROOM = types.NamedTuple((_FLOATS, _MATRIX, _MATRIX, _MATRIX, _MATRIX, _FLOATS), Room)


def system(products: CrossProducts, params: Parameters) -> System:
    """Cross-products and parameters as the compiled kernels take them."""
    link("bdtr_")
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


# Packed: every array that a model is handed adds a third of a second to its compilation.
_INDICES = (
    "terms", "start", "block_groups", "group_start", "group_factor", "border_start", "border_factor",
    "block_start", "rows",
)  # fmt: skip
_SHAPES = 7  # integers before the lengths of the indices: border, and the shapes of three arrays
_PARTS = 3  # numbers before all: how many integers, flags and numbers of the system follow


def pack(own: System, y: Response) -> np.ndarray:
    """A system and a response as one vector; see :func:`unpack`."""
    indices = [np.asarray(getattr(own, name)) for name in _INDICES]
    strata = own.hth.shape[0], own.hth.shape[1]
    header = [own.border, *own.blocks.shape, *own.used.shape, *strata, *map(len, indices)]
    integers = np.concatenate([np.array(header), *indices])
    flags = np.concatenate([own.correlated, own.used.ravel()])
    numbers = np.concatenate([[own.log_weight], own.precision, own.blocks.ravel(), own.hth.ravel()])
    sizes = [integers.size, flags.size, numbers.size]
    response = [y.zty.ravel(), y.hty.ravel(), y.yty]
    return np.concatenate([sizes, integers, flags, numbers, *response], dtype=np.float64)


@kernel
def unpack(data):
    """The system and the response in a vector, numbers as views of it."""
    first = _PARTS + int(data[0])
    second = first + int(data[1])
    third = second + int(data[2])
    own = _unpack_system(
        data[_PARTS:first].astype(np.int64), data[first:second] > 0.5, data[second:third]
    )
    return own, _unpack_response(own, data[third:])


@kernel
def _unpack_system(integers, flags, numbers):
    border, height, width, high, wide, strata, side = integers[:_SHAPES]
    first = _SHAPES + len(_INDICES)
    ends = first + np.cumsum(integers[_SHAPES:first])
    p = numbers.size - 1 - height * width - strata * side * side
    blocks, hth = 1 + p, 1 + p + height * width
    return System(
        integers[first : ends[0]],
        flags[: flags.size - high * wide],
        integers[ends[0] : ends[1]],
        integers[ends[1] : ends[2]],
        integers[ends[2] : ends[3]],
        integers[ends[3] : ends[4]],
        integers[ends[4] : ends[5]],
        integers[ends[5] : ends[6]],
        border,
        numbers[blocks:hth].reshape(height, width),
        integers[ends[6] : ends[7]],
        flags[flags.size - high * wide :].reshape(high, wide),
        numbers[hth:].reshape(strata, side, side),
        integers[ends[7] : ends[8]],
        numbers[0],
        numbers[1:blocks],
    )


@kernel
def _unpack_response(own, numbers):
    strata, side = own.hth.shape[0], own.hth.shape[1]
    border = numbers.size - strata * (side + 1)
    return Response(
        numbers[:border].reshape(strata, border // strata),
        numbers[border : numbers.size - strata].reshape(strata, side),
        numbers[numbers.size - strata :],
    )


@kernel
def make_room(s):
    """Scratch arrays for one thread."""
    largest = 1
    for j in range(s.start.size - 1):
        largest = max(largest, s.start[j + 1] - s.start[j])
    return _room(s.start[-1], largest, s.hth.shape[1], s.precision.size)


@kernel
def no_room():
    """The same, empty, where they are not needed."""
    return _room(0, 0, 0, 0)


@kernel
def _room(inner, largest, wide, p):
    across, side = padded(wide + 1), padded(largest)
    panel = room_for(inner * across // LANES)
    rows = room_for(largest * padded(largest + wide + 1) // LANES)
    panel[:] = 0.0
    rows[:] = 0.0  # also between the rows: what happens to stand there could slow down arithmetic
    return Room(
        rows,
        room_for(inner * side // LANES).reshape(inner, side),
        panel.reshape(inner, across),
        np.empty((wide + 1, wide + 1)),
        np.empty((p, p + 1)),
        np.empty(inner),
    )
