"""The marginal log likelihood as a PyTensor Op, with a numba implementation so that nutpie runs it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from pytensor.compile.sharedvalue import shared

from bdtr.engine.compiled.likelihood_op import LogLikelihood, register
from bdtr.engine.crossproducts import CrossProducts, Responses
from bdtr.engine.density.gradient import likelihood_and_gradient
from bdtr.engine.parameters import Parameters
from bdtr.engine.system import make_room, pack, response, system, unpack

__all__ = ["marginal_data", "marginal_log_likelihood"]


@njit
def _evaluate(phi, data):
    own, y = unpack(data)
    p = own.precision.size
    phi = np.ascontiguousarray(phi)  # PyTensor may hand over a view
    return likelihood_and_gradient(phi, own, y, np.empty((p + 1, p + 1)), make_room(own))


class MarginalLogLikelihood(LogLikelihood):
    """The marginal log likelihood of Gaussian outcomes."""

    evaluate = _evaluate


register(MarginalLogLikelihood, "bdtr_")


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
