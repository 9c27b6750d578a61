"""How much each row says of its linear predictor."""

from __future__ import annotations

import numpy as np

from bdtr.engine.compiled.kernels import kernel, link
from bdtr.engine.compiled.lanes import LANES
from bdtr.engine.laplace.forms import curves
from bdtr.engine.laplace.likelihoods import CODES, FORMS, prepare

__all__ = ["curvatures"]


def curvatures(
    family: str,
    y: np.ndarray,
    m: np.ndarray,
    stratum: np.ndarray,
    shape: np.ndarray,
    eta: np.ndarray,
) -> np.ndarray:
    """Minus the second derivative of each row's log likelihood: its information on the linear predictor.

    Parameters
    ----------
    family
        Name of a family of the engine.
    y, m, stratum
        Outcome, companion and stratum of each row.
    shape
        The part of phi that belongs to the outcome.
    eta
        Linear predictor of each row.
    """
    link("laplace_")
    more = (0, -len(y) % LANES)
    padded = [np.pad(np.asarray(v, float), more, constant_values=1.0) for v in (y, m)]
    bend = np.empty(len(y) + more[1])
    _write(
        CODES[family], *padded, np.pad(stratum.astype(np.int64), more), np.asarray(shape, float),
        np.pad(eta, more), bend,
    )  # fmt: skip
    return bend[: len(y)]


@kernel
def _write(family, y, m, stratum, shape, eta, bend):
    a, b, c, d = np.zeros(y.size), np.zeros(y.size), np.zeros(y.size), np.zeros(y.size)
    rows, one = (a, b, c, d), np.ones(y.size)
    prepare(family, y, m, one, stratum, shape, rows, np.empty(stratum.max() + 1))
    curves(FORMS[family], eta, rows, np.empty(y.size), np.empty(y.size), bend)
