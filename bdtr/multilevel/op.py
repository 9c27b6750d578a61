"""The marginal log likelihood as a PyTensor Op, with a numba implementation so that nutpie runs it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt
from numba import njit
from pytensor.compile.sharedvalue import shared
from pytensor.gradient import DisconnectedType
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import register_funcify_and_cache_key

from bdtr.multilevel.crossproducts import CrossProducts, Responses
from bdtr.multilevel.gradient import likelihood_and_gradient
from bdtr.multilevel.linking import link, sources
from bdtr.multilevel.parameters import Parameters
from bdtr.multilevel.system import (
    make_room,
    pack_response,
    pack_system,
    response,
    system,
    unpack_response,
    unpack_system,
)

__all__ = ["marginal_log_likelihood", "response_data"]


class MarginalLogLikelihood(Op):
    """phi and the cross-products -> log likelihood (scalar) and its gradient (vector)."""

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        variables = [pt.as_tensor_variable(x) for x in inputs]
        return Apply(self, variables, [pt.dscalar(), pt.dvector()])

    def perform(self, node, inputs, output_storage) -> None:
        value, gradient = _evaluate(*inputs)
        output_storage[0][0] = np.asarray(value)
        output_storage[1][0] = gradient

    def pullback(self, inputs, outputs, cotangents):
        rest = [DisconnectedType()() for _ in inputs[1:]]
        return [pt.mul(cotangents[0], outputs[1]), *rest]

    def connection_pattern(self, node):
        return [[True, False], *([False, False] for _ in node.inputs[1:])]

    def infer_shape(self, node, input_shapes):
        return [(), (input_shapes[0][0],)]


@njit
def _evaluate(phi, integers, flags, numbers, response):
    own = unpack_system(integers, flags, numbers)
    p = own.precision.size
    phi = np.ascontiguousarray(phi)  # PyTensor may hand over a view
    reduced, y = np.empty((p + 1, p + 1)), unpack_response(own, response)
    return likelihood_and_gradient(phi, own, y, reduced, make_room(own))


@register_funcify_and_cache_key(MarginalLogLikelihood)
def _compiled(op, node, **_):
    link()

    @njit
    def run(phi, integers, flags, numbers, response):
        value, gradient = _evaluate(phi, integers, flags, numbers, response)
        return np.asarray(value), gradient

    # PyTensor's cache on disk would else keep serving old machine code.
    return run, sources()


def marginal_log_likelihood(
    phi: Any, products: CrossProducts, responses: Responses, params: Parameters
) -> Any:
    """Log likelihood of phi with coefficients and group effects integrated out, in a PyTensor graph.

    Parameters
    ----------
    phi
        Parameters of the marginal density (a PyTensor vector).
    products
        Cross-products of the columns.
    responses
        Cross-products with one response, shifted to zero prior means.
    params
        Meaning of phi and the prior precisions of the coefficients.

    Returns
    -------
    pytensor.tensor.TensorVariable
        A scalar.
    """
    parts = ("integers", "flags", "numbers")
    packed = zip(parts, pack_system(system(products, params)), strict=True)
    data = {f"marginal_{part}": values for part, values in packed} | response_data(responses)
    # Shared and not constant: constants would be compiled into the model, anew for every data set.
    inputs = [shared(value, name=name) for name, value in data.items()]
    outputs: Any = MarginalLogLikelihood()(phi, *inputs)
    return outputs[0]


def response_data(responses: Responses) -> dict[str, np.ndarray]:
    """Cross-products with one response by the name of the data that hold them in a model."""
    return {"marginal_response": pack_response(response(responses))}
