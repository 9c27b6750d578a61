"""Vectors of eight numbers inside kernels: the same arithmetic for eight problems at once.

Linear systems of a few dozen columns leave the vector units of a processor idle when one is solved after
another: rows are short, and most of the time goes to starting and ending loops. Eight systems alike, their
numbers side by side (the last axis of every array), need the same steps, each of them an instruction or two.
A lane is one of the eight; lanes never mix, so a result does not depend on its neighbours.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, njit, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.datamodel.registry import register_default
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature

__all__ = [
    "LANES",
    "all_zero",
    "every",
    "every_at",
    "largest",
    "load",
    "minus",
    "negated_size",
    "padded",
    "plus",
    "room_for",
    "root",
    "store",
    "summed",
]

LANES = 8
intrinsic: Any = (
    extending.intrinsic
)  # takes the first argument away, which type checkers do not know

_NUMBERS = ir.VectorType(ir.DoubleType(), LANES)
_INDEX = ir.IntType(32)
_NUMBER_BYTES = 8  # arrays are aligned to single numbers alone


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"lanes({LANES})")


_LANES = _Lanes()


@register_default(_Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _NUMBERS)


class _Both(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        return signature(_LANES, _LANES, _LANES) if args == (_LANES, _LANES) else None


def _arithmetic(operation: Any, instruction: str) -> None:
    register: Any = infer_global(operation)
    register(type(f"_{instruction}", (_Both,), {}))

    def generate(context, builder, signature, values):
        return getattr(builder, instruction)(*values)

    lower_builtin(operation, _LANES, _LANES)(generate)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")


@njit(inline="always")
def padded(count):
    """The next multiple of eight."""
    return -(-count // LANES) * LANES


@njit(inline="always")
def room_for(count):
    """An array of so many times eight numbers that begins where a line of the cache does.

    Vectors that lie across two lines take twice as long to read.
    """
    whole = np.empty((count + 1) * LANES)
    first = -(whole.ctypes.data // 8) % LANES
    return whole[first : first + count * LANES]


def _place(context, builder, kind, array, at):
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), _NUMBERS.as_pointer())


@intrinsic
def load(typingctx, array, at):
    """Eight numbers of a one-dimensional array, from this place on."""

    def generate(context, builder, signature, values):
        place = _place(context, builder, signature.args[0], *values)
        return builder.load(place, align=_NUMBER_BYTES)

    return _LANES(array, types.intp), generate


@intrinsic
def store(typingctx, array, at, numbers):
    """Write eight numbers to a one-dimensional array, from this place on."""

    def generate(context, builder, signature, values):
        place = _place(context, builder, signature.args[0], *values[:2])
        builder.store(values[2], place, align=_NUMBER_BYTES)
        return context.get_dummy_value()

    return types.void(array, types.intp, _LANES), generate


def _in_every_lane(builder, number):
    nothing = ir.Constant(_NUMBERS, ir.Undefined)
    first = builder.insert_element(nothing, number, _INDEX(0))
    places = ir.Constant(ir.VectorType(_INDEX, LANES), [0] * LANES)
    return builder.shuffle_vector(first, nothing, places)


@intrinsic
def every(typingctx, number):
    """The same number in every lane."""

    def generate(context, builder, signature, values):
        return _in_every_lane(builder, values[0])

    return _LANES(types.float64), generate


@intrinsic
def every_at(typingctx, array, at):
    """The number at this place of a one-dimensional array, in every lane."""

    def generate(context, builder, signature, values):
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        number = builder.load(builder.gep(data, [values[1]]))
        return _in_every_lane(builder, number)

    return _LANES(array, types.intp), generate


def _named(builder, name, kind, values):
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [_NUMBERS]), f"llvm.{name}.v{LANES}f64"
    )
    return builder.call(function, values)


@intrinsic
def plus(typingctx, numbers, one, other):
    """numbers + one * other, in one step where the processor has it (see :mod:`.kernels`)."""

    def generate(context, builder, signature, values):
        return _fused(builder, values[1], values[2], values[0])

    return _LANES(_LANES, _LANES, _LANES), generate


@intrinsic
def minus(typingctx, numbers, one, other):
    """numbers - one * other, likewise."""

    def generate(context, builder, signature, values):
        return _fused(builder, builder.fneg(values[1]), values[2], values[0])

    return _LANES(_LANES, _LANES, _LANES), generate


def _fused(builder, one, other, numbers):
    kind = ir.FunctionType(_NUMBERS, [_NUMBERS] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f64")
    return builder.call(function, [one, other, numbers])


@intrinsic
def negated_size(typingctx, numbers):
    """-|x| of each lane."""

    def generate(context, builder, signature, values):
        return builder.fneg(_named(builder, "fabs", _NUMBERS, values))

    return _LANES(_LANES), generate


@intrinsic
def root(typingctx, numbers):
    """Square roots."""

    def generate(context, builder, signature, values):
        return _named(builder, "sqrt", _NUMBERS, values)

    return _LANES(_LANES), generate


@intrinsic
def largest(typingctx, numbers):
    """The largest of the numbers; of those that are numbers, if any is."""

    def generate(context, builder, signature, values):
        return _named(builder, "vector.reduce.fmax", ir.DoubleType(), values)

    return types.float64(_LANES), generate


@intrinsic
def summed(typingctx, numbers):
    """The sum of all lanes, one half added to the other, and so on."""

    def generate(context, builder, signature, values):
        total, left = values[0], LANES // 2
        while left:
            places = ir.Constant(
                ir.VectorType(_INDEX, LANES), [(i + left) % LANES for i in range(LANES)]
            )
            total = builder.fadd(total, builder.shuffle_vector(total, total, places))
            left //= 2
        return builder.extract_element(total, _INDEX(0))

    return types.float64(_LANES), generate


@intrinsic
def all_zero(typingctx, numbers):
    """Whether all are zero."""

    def generate(context, builder, signature, values):
        zeros = ir.Constant(_NUMBERS, [0.0] * LANES)
        differ = builder.fcmp_unordered("!=", values[0], zeros)
        bits = builder.bitcast(differ, ir.IntType(LANES))
        return builder.icmp_unsigned("==", bits, ir.Constant(ir.IntType(LANES), 0))

    return types.boolean(_LANES), generate
