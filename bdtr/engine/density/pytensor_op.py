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

from bdtr.engine.compiled.kernels import link, sources
from bdtr.engine.crossproducts import CrossProducts, Responses
from bdtr.engine.density.gradient import likelihood_and_gradient
from bdtr.engine.parameters import Parameters
from bdtr.engine.system import make_room, pack, response, system, unpack

__all__ = ["marginal_data", "marginal_log_likelihood"]


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
def _evaluate(phi, data):
    own, y = unpack(data)
    p = own.precision.size
    phi = np.ascontiguousarray(phi)  # PyTensor may hand over a view
    return likelihood_and_gradient(phi, own, y, np.empty((p + 1, p + 1)), make_room(own))


@register_funcify_and_cache_key(MarginalLogLikelihood)
def _compiled(op, node, **_):
    link("bdtr_")

    @njit
    def run(phi, data):
        value, gradient = _evaluate(phi, data)
        return np.asarray(value), gradient

    # PyTensor keeps code on disk by this key alone, whatever the Op, and would serve old machine code.
    return run, f"marginal {sources()}"


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
    # Shared and not constant: constants would be compiled into the model, anew for every data set.
    named = marginal_data(products, responses, params)
    data = [shared(value, name=name) for name, value in named.items()]
    outputs: Any = MarginalLogLikelihood()(phi, *data)
    return outputs[0]


def marginal_data(
    products: CrossProducts, responses: Responses, params: Parameters
) -> dict[str, np.ndarray]:
    """Cross-products with one response by the name of the data that hold them in a model."""
    return {"marginal_data": pack(system(products, params), response(responses))}
