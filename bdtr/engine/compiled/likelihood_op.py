"""Compiled log likelihoods of phi in PyTensor graphs, with gradients, so that nutpie runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytensor.tensor as pt
from numba import njit
from pytensor.gradient import DisconnectedType
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import register_funcify_and_cache_key

from bdtr.engine.compiled.kernels import link, sources

__all__ = ["LogLikelihood", "register"]


class LogLikelihood(Op):
    """phi and packed data -> log likelihood (scalar) and its gradient (vector).

    ``evaluate`` is a compiled function of both that returns both.
    """

    __props__ = ()
    evaluate: ClassVar[Callable]

    def make_node(self, *inputs: Any) -> Apply:
        variables = [pt.as_tensor_variable(x) for x in inputs]
        return Apply(self, variables, [pt.dscalar(), pt.dvector()])

    def perform(self, node, inputs, output_storage) -> None:
        value, gradient = type(self).evaluate(*inputs)
        output_storage[0][0] = np.asarray(value)
        output_storage[1][0] = gradient

    def pullback(self, inputs, outputs, cotangents):
        return [pt.mul(cotangents[0], outputs[1]), DisconnectedType()()]

    def connection_pattern(self, node):
        return [[True, False], [False, False]]

    def infer_shape(self, node, input_shapes):
        return [(), (input_shapes[0][0],)]


def register(kind: type[LogLikelihood], prefix: str) -> None:
    """Tell PyTensor's numba linker of an Op; its kernels are exported under names with this prefix."""
    evaluate: Any = kind.evaluate

    def compiled(op, node, **_):
        link(prefix)

        @njit
        def run(phi, data):
            value, gradient = evaluate(phi, data)
            return np.asarray(value), gradient

        # PyTensor keeps code on disk by this key alone, whatever the Op, and would serve old machine code.
        return run, f"{prefix}{sources()}"

    register_funcify_and_cache_key(kind)(compiled)
