"""The marginal log likelihood as a PyTensor Op, with a numba implementation so that nutpie runs it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
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
from bdtr.multilevel.marginal import Parameters

__all__ = ["marginal_log_likelihood"]


class MarginalLogLikelihood(Op):
    """phi and the cross-products -> log likelihood (scalar) and its gradient (vector)."""

    __props__ = ()

    def make_node(self, *inputs: Any) -> Apply:
        variables = [pt.as_tensor_variable(x) for x in inputs]
        return Apply(self, variables, [pt.dscalar(), pt.dvector()])

    def perform(self, node, inputs, output_storage) -> None:
        arrays = list(inputs)
        arrays[-3], arrays[-2] = float(inputs[-3]), int(inputs[-2])
        value, gradient = likelihood_and_gradient(*arrays)
        output_storage[0][0] = np.asarray(value)
        output_storage[1][0] = gradient

    def pullback(self, inputs, outputs, cotangents):
        rest = [DisconnectedType()() for _ in inputs[1:]]
        return [pt.mul(cotangents[0], outputs[1]), *rest]

    def connection_pattern(self, node):
        return [[True, False], *([False, False] for _ in node.inputs[1:])]

    def infer_shape(self, node, input_shapes):
        return [(), (input_shapes[0][0],)]


def _source_hash() -> str:
    """Changes with the kernels: PyTensor's cache on disk would else keep serving old machine code."""
    folder = Path(__file__).parent
    sources = (folder / name for name in ("marginal.py", "gradient.py", "op.py"))
    return sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


@register_funcify_and_cache_key(MarginalLogLikelihood)
def _compiled(op, node, **_):
    @njit
    def run(phi, terms, correlated, start, group_start, group_factor, block_groups, blocks,
            block_start, xtx, zty, xty, yty, rows, precision):  # fmt: skip
        value, gradient = likelihood_and_gradient(
            phi, terms, correlated, start, group_start, group_factor, block_groups, blocks,
            block_start, xtx, zty, xty, yty.item(), rows.item(), precision,
        )  # fmt: skip
        return np.asarray(value), gradient

    return run, _source_hash()


def marginal_log_likelihood(
    phi: Any, products: CrossProducts, response: Responses, params: Parameters
) -> Any:
    """Log likelihood of phi with coefficients and group effects integrated out, in a PyTensor graph.

    Parameters
    ----------
    phi
        Log residual SD, relative SDs, atanh partial correlations (a PyTensor vector).
    products
        Cross-products of the columns.
    response
        Cross-products with one response, shifted to zero prior means.
    params
        Meaning of phi and the prior precisions of the coefficients.

    Returns
    -------
    pytensor.tensor.TensorVariable
        A scalar.
    """
    where = products.layout
    arrays = {
        "terms": params.terms,
        "correlated": params.correlated,
        "start": where.start,
        "group_start": where.group_start,
        "group_factor": where.group_factor,
        "block_groups": where.block_groups,
        "blocks": products.blocks,
        "block_start": products.block_start,
        "xtx": products.xtx,
        "zty": np.ascontiguousarray(response.zty[:, 0]),
        "xty": np.ascontiguousarray(response.xty[:, 0]),
        "yty": np.asarray(response.yty[0]),
        "rows": np.asarray(products.rows, dtype=np.int64),
        "precision": params.precision,
    }
    # Shared and not constant: constants would be compiled into the model, anew for every data set.
    data = [shared(value, name=f"marginal_{name}") for name, value in arrays.items()]
    outputs: Any = MarginalLogLikelihood()(phi, *data)
    return outputs[0]
