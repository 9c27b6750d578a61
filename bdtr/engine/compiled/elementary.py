"""Exponentials and logistic functions of eight numbers at once.

The functions of the C library take one number at a time, and would be most of the cost of a likelihood that
is not Gaussian. Errors are a few units in the last place.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import extending, njit

from bdtr.engine.compiled.lanes import LANES, every, minus, plus

__all__ = ["exponential", "logistic", "softplus"]

intrinsic: Any = extending.intrinsic  # takes the first argument away

_NUMBERS = ir.VectorType(ir.DoubleType(), LANES)
_BITS = ir.VectorType(ir.IntType(64), LANES)

_FAR = 700.0  # exponents beyond it are cut off
_LOG2_E = 1.0 / math.log(2.0)
_LN2_HIGH = 0.6931471803691238  # few bits, so that multiples are exact
_LN2_LOW = 1.9082149292705877e-10
_WHOLE = 6755399441055744.0  # 1.5 * 2^52: a sum with it holds a whole number in its last bits

# Coefficients as arguments of plain code: numba unrolls loops over tuples of one type.
_EXP = tuple(1.0 / math.factorial(k) for k in range(13, -1, -1))
_LOG = tuple(2.0 / (2 * k + 1) for k in range(16, -1, -1))


@intrinsic
def _within(typingctx, numbers, limit):
    """Each lane cut off at -limit and limit; the last argument in every lane."""

    def generate(context, builder, signature, values):
        x, high = values
        low = builder.fneg(high)
        x = builder.select(builder.fcmp_ordered("<", x, low), low, x)
        return builder.select(builder.fcmp_ordered(">", x, high), high, x)

    return numbers(numbers, numbers), generate


@intrinsic
def _scaled(typingctx, numbers, shifted):
    """numbers * 2^k for k in the last bits of ``shifted``."""

    def generate(context, builder, signature, values):
        bits = builder.bitcast(values[1], _BITS)
        bits = builder.shl(bits, ir.Constant(_BITS, [52] * LANES))
        one = ir.Constant(_BITS, [1023 << 52] * LANES)
        power = builder.bitcast(builder.add(bits, one), _NUMBERS)
        return builder.fmul(values[0], power)

    return numbers(numbers, numbers), generate


@intrinsic
def _by_sign(typingctx, numbers, below, above):
    """``below`` where a lane is negative, ``above`` elsewhere."""

    def generate(context, builder, signature, values):
        negative = builder.fcmp_ordered("<", values[0], ir.Constant(_NUMBERS, [0.0] * LANES))
        return builder.select(negative, values[1], values[2])

    return numbers(numbers, numbers, numbers), generate


@njit(inline="always")
def exponential(x):
    """exp(x), for x cut off at -700 and 700: 2^k times the Taylor polynomial of the rest."""
    x = _within(x, every(_FAR))
    shifted = plus(every(_WHOLE), x, every(_LOG2_E))
    k = shifted - every(_WHOLE)
    rest = minus(minus(x, k, every(_LN2_HIGH)), k, every(_LN2_LOW))
    out = every(_EXP[0])
    for i in range(1, 14):
        out = plus(every(_EXP[i]), out, rest)
    return _scaled(out, shifted)


@njit(inline="always")
def softplus(x, small):
    """log(1 + exp(x)), where ``small`` is exp(-|x|).

    max(x, 0) + log(1 + small), by log(1 + e) = 2 atanh(s) = 2 s (1 + s^2/3 + ..), s = e / (2 + e) <= 1/3.
    """
    s = small / (every(2.0) + small)
    squared = s * s
    out = every(_LOG[0])
    for i in range(1, 17):
        out = plus(every(_LOG[i]), out, squared)
    return plus(_by_sign(x, every(0.0), x), s, out)


@njit(inline="always")
def logistic(x, small):
    """1 / (1 + exp(-x)), where ``small`` is exp(-|x|)."""
    return _by_sign(x, small, every(1.0)) / (every(1.0) + small)
