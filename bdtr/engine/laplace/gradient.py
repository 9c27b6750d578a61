r"""Gradient of Laplace's approximation with respect to phi, by the adjoint method.

L(phi) = F(w; phi) - 1/2 log|H(w; phi)| at the mode w. With J_i = (T'z_i, h_i) the columns of row i,
f_i', f_i'', f_i''' its derivatives in eta, leverages q_i = J_i' H^-1 J_i and

    lambda = -H^-1 sum_i 1/2 q_i f_i''' J_i,

which is what the mode's own movement amounts to, (Margossian, Vehtari, Simpson and Agrawal 2020, *Hamiltonian
Monte Carlo using an adjoint-differentiated Laplace approximation*)

    dL/dT      = sum_i z_i [f_i' (v - lambda_v) + f_i'' ((H^-1 J_i)_v - (J_i'lambda) v) + 1/2 q_i f_i''' v]',
    dL/dkappa  = sum_i [f_i,kappa + 1/2 q_i f_i'',kappa - (J_i'lambda) f_i',kappa]

for a dispersion or gap kappa. Derivatives with respect to kappa are central differences of the rows' curves,
exact to ten digits. Of A^-1 the entries within the envelope are needed alone; they are computed from the last
position to the first (Takahashi, Fagan and Chen 1973).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from bdtr.engine.compiled.kernels import caller, exported, kernel, link, loader
from bdtr.engine.density.gradient import sd_prior_slope, to_phi
from bdtr.engine.laplace.cells import SMOOTH
from bdtr.engine.laplace.climb import (
    ROOM,
    Room,
    make_room,
    solve_envelope,
    solve_envelope_transposed,
)
from bdtr.engine.laplace.density import POSTERIOR, Posterior, laplace, log_prior, shape_at
from bdtr.engine.laplace.forms import curves, third
from bdtr.engine.laplace.likelihoods import FOLDED, FORMS, ORDINAL, STUDENT_T, prepare

__all__ = ["density_and_gradient", "likelihood_and_gradient", "value_and_gradient"]

_APART = 1e-5  # of central differences with respect to dispersions and gaps


def value_and_gradient(phi: np.ndarray, posterior: Posterior) -> tuple[float, np.ndarray]:
    """Log density of phi as in :func:`bdtr.engine.laplace.density.log_density`, and its gradient.

    Parameters
    ----------
    phi, posterior
        As there.

    Returns
    -------
    value : float
    gradient : numpy.ndarray
    """
    link("laplace_")
    return _alone(np.asarray(phi, float), posterior)


@kernel
def _alone(phi, posterior):
    return density_and_gradient(phi, posterior, make_room(posterior.cells), 1e-16)


@kernel
def density_and_gradient(phi, posterior, room, tolerance):
    """Log density of phi, priors included, and its gradient, climbing from where the room stands."""
    value, gradient = likelihood_and_gradient(phi, posterior, room, tolerance)
    _prior_slopes(phi, posterior, gradient)
    return value + log_prior(phi, posterior), gradient


@kernel
def likelihood_and_gradient(phi, posterior, room, tolerance):
    """Log likelihood of phi and its gradient, climbing from where the room stands."""
    gradient = np.zeros(phi.size)
    value = _call(_Question(phi, posterior, room, tolerance, gradient))
    return value, gradient


class _Question(NamedTuple):
    phi: np.ndarray
    posterior: Posterior
    room: Room
    tolerance: float
    gradient: np.ndarray


_NUMBERS = types.float64[::1]
_QUESTION = types.NamedTuple((_NUMBERS, POSTERIOR, ROOM, types.float64, _NUMBERS), _Question)
_load = loader(_QUESTION)
_call = caller("laplace_and_gradient", _QUESTION)


@exported("laplace_and_gradient")
def _likelihood(address):
    """Log likelihood of phi; writes its gradient."""
    q = _load(address)
    phi, posterior, room, gradient = q.phi, q.posterior, q.room, q.gradient
    cells = posterior.cells
    value = laplace(phi, posterior, room, q.tolerance)
    if not np.isfinite(value):
        gradient[:] = np.nan
        return value
    inner, form = cells.first.size, FORMS[cells.family]
    rows = (room.a, room.b, room.c, room.d)
    bent = np.empty(cells.count.size)
    third(form, room.eta, rows, bent)
    curves(form, room.eta, rows, room.value, room.slope, room.bend)
    # From here on across holds A^-1 B and corner S^-1.
    inverse = _inverse_in_envelope(cells, room.envelope)
    column = np.empty(inner)
    for j in range(room.across.shape[1]):
        for i in range(inner):
            column[i] = room.across[i, j]
        solve_envelope_transposed(cells.first, cells.place, room.envelope, 0, inner, column)
        for i in range(inner):
            room.across[i, j] = column[i]
    _invert_root(room.corner)
    leverage = np.empty(cells.count.size)
    own = np.empty(room.zt.shape)
    _leverages(cells, room, inverse, leverage, own)
    movement = _movement(cells, room, leverage, bent)
    bars = _bars(cells, room, posterior, leverage, own, bent, movement)
    full, out = np.zeros(phi.size + 1), np.zeros(phi.size + 1)
    full[1:] = phi
    to_phi(full, posterior.terms, posterior.correlated, bars, out)
    gradient[:] = out[1:]
    _shape_slopes(phi, posterior, room, leverage, movement, gradient)
    return value


@kernel
def _inverse_in_envelope(cells, envelope):
    """Entries of (L L')^-1 within the envelope of L."""
    out = np.zeros(envelope.size)
    first, place, size = cells.first, cells.place, cells.first.size
    last = np.zeros(size, np.int64)  # the last row whose envelope holds each column
    for i in range(size):
        for k in range(first[i], i + 1):
            last[k] = i
    for j in range(size - 1, -1, -1):
        scale = 1.0 / envelope[place[j] + j]
        for i in range(last[j], j - 1, -1):
            if first[i] > j:
                continue
            value = scale if i == j else 0.0
            for k in range(j + 1, last[j] + 1):
                if first[k] > j:
                    continue
                entry = envelope[place[k] + j]
                if entry != 0.0:
                    value -= entry * out[place[max(i, k)] + min(i, k)]
            out[place[i] + j] = value * scale
    return out


@kernel
def _invert_root(root):
    """(R R')^-1 in place of the lower triangular R, in full."""
    size = root.shape[0]
    inverse = np.zeros((size, size))
    for j in range(size):
        for i in range(j, size):
            value = 1.0 if i == j else 0.0
            for k in range(j, i):
                value -= root[i, k] * inverse[k, j]
            inverse[i, j] = value / root[i, i]
    for i in range(size):
        for j in range(i + 1):
            value = 0.0
            for k in range(i, size):
                value += inverse[k, i] * inverse[k, j]
            root[i, j] = root[j, i] = value


@kernel
def _leverages(cells, room, inverse, leverage, own):
    """q_i, and (H^-1 J_i) at the positions of each row's own effects (column x row).

    H^-1 = [A^-1 + E S^-1 E', -E S^-1; -S^-1 E', S^-1] with E = A^-1 B.
    """
    columns, rows = room.zt.shape
    rest, border, p = room.corner.shape[0], cells.border, cells.x.shape[1]
    left, turned = np.empty(rest), np.empty(rest)
    for i in range(rows):
        if cells.count[i] == 0.0:
            leverage[i] = 0.0
            own[:, i] = 0.0
            continue
        left[:border] = 0.0
        for j in range(p):
            left[border + j] = cells.x[i, j]
        for s in range(columns):
            z = room.zt[s, i]
            if cells.outer[s]:
                left[cells.at[s, i]] += z
            elif z != 0.0:
                e = room.across[cells.at[s, i]]
                for j in range(rest):
                    left[j] -= z * e[j]
        total = 0.0
        for j in range(rest):
            value = 0.0
            for k in range(rest):
                value += room.corner[j, k] * left[k]
            turned[j] = value
            total += value * left[j]
        for s in range(columns):
            at = cells.at[s, i]
            if cells.outer[s]:
                own[s, i] = turned[at]
                continue
            value = 0.0
            for t in range(columns):
                if not cells.outer[t]:
                    other = cells.at[t, i]
                    entry = inverse[cells.place[max(at, other)] + min(at, other)]
                    value += entry * room.zt[t, i]
            total += value * room.zt[s, i]
            for j in range(rest):
                value -= room.across[at, j] * turned[j]
            own[s, i] = value
        leverage[i] = total


@kernel
def _movement(cells, room, leverage, bent):
    """lambda, inner positions first."""
    inner, rest = room.across.shape
    out = np.zeros(inner + rest)
    weight = 0.5 * leverage * bent
    for s in range(room.zt.shape[0]):
        shift = inner if cells.outer[s] else 0
        for i in range(weight.size):
            out[shift + cells.at[s, i]] -= weight[i] * room.zt[s, i]
    for j in range(cells.x.shape[1]):
        out[inner + cells.border + j] = -np.dot(cells.xt[j], weight)
    v, c = out[:inner], out[inner:]
    for i in range(inner):
        for j in range(rest):
            c[j] -= room.across[i, j] * v[i]
    moved = np.dot(room.corner, c)
    solve_envelope(cells.first, cells.place, room.envelope, 0, inner, v)  # A^-1 v
    solve_envelope_transposed(cells.first, cells.place, room.envelope, 0, inner, v)
    for i in range(inner):
        for j in range(rest):
            v[i] -= room.across[i, j] * moved[j]
    c[:] = moved
    return out


@kernel
def _along(cells, room, movement, i):
    """J_i'lambda."""
    inner = cells.first.size
    out = 0.0
    for s in range(room.zt.shape[0]):
        shift = inner if cells.outer[s] else 0
        out += room.zt[s, i] * movement[shift + cells.at[s, i]]
    for j in range(cells.x.shape[1]):
        out += cells.x[i, j] * movement[inner + cells.border + j]
    return out


@kernel
def _bars(cells, room, posterior, leverage, own, bent, movement):
    """Derivative of L with respect to the factors T (factor x term x term)."""
    factors, most = posterior.terms.size, 1
    for terms in posterior.terms:
        most = max(most, terms)
    out, inner = np.zeros((factors, most, most)), cells.first.size
    for i in range(cells.count.size):
        if cells.count[i] == 0.0:
            continue
        along = _along(cells, room, movement, i)
        of_v = room.slope[i] + 0.5 * leverage[i] * bent[i] + along * room.bend[i]
        for s in range(room.zt.shape[0]):
            at = cells.at[s, i] + (inner if cells.outer[s] else 0)
            value = of_v * room.w[at] - room.bend[i] * own[s, i] - room.slope[i] * movement[at]
            f = cells.of[s]
            for t in range(room.zt.shape[0]):
                own_level = s == t or cells.outer[s] != SMOOTH
                if cells.of[t] == f and cells.term[t] >= cells.term[s] and own_level:
                    out[f, cells.term[t], cells.term[s]] += value * cells.z[t, i]
    return out


@kernel
def _shape_slopes(phi, posterior, room, leverage, movement, gradient):
    """Add the derivatives with respect to dispersions, which move together as a row knows one, and to gaps
    and log(nu - 1), one at a time."""
    cells, at = posterior.cells, shape_at(posterior)
    size, form = phi.size - at, FORMS[cells.family]
    if size == 0:
        return
    rows = (room.a, room.b, room.c, room.d)
    along = np.empty(cells.count.size)
    for i in range(along.size):
        along[i] = _along(cells, room, movement, i)
    strata = size  # dispersions
    if cells.family == ORDINAL:
        strata = 0
    elif cells.family == STUDENT_T:
        strata = size - 1
    shape = np.empty(size)
    of, rest = np.empty((2, along.size)), np.empty((2, room.rest.size))
    begin = 0
    while begin < size:
        together = begin < strata
        end = strata if together else begin + 1
        for side in range(2):
            shape[:] = phi[at:]
            shape[begin:end] += _APART * (1 - 2 * side)
            prepare(
                cells.family, cells.y, cells.m, cells.count, cells.stratum, shape, rows, room.rest
            )
            curves(form, room.eta, rows, room.value, room.slope, room.bend)
            rest[side] = room.rest
            for i in range(along.size):
                of[side, i] = room.value[i] - 0.5 * leverage[i] * room.bend[i]
                of[side, i] -= along[i] * room.slope[i]
        for k in range(room.rest.size):
            place = at + begin + (k if together else 0)
            gradient[place] += (rest[0, k] - rest[1, k]) / (2.0 * _APART)
        for i in range(along.size):
            if cells.count[i] > 0.0:
                place = at + begin + (cells.stratum[i] if together else 0)
                gradient[place] += (of[0, i] - of[1, i]) / (2.0 * _APART)
        begin = end


@kernel
def _prior_slopes(phi, posterior, gradient):
    """Add the gradient of the log prior density of phi."""
    at, family = 0, posterior.cells.family
    for i in range(posterior.sd.shape[0]):
        side = 1.0 if phi[at] >= 0.0 else -1.0
        gradient[at] += side * sd_prior_slope(abs(phi[at]), posterior.sd[i])
        at += 1
    for alpha in posterior.alpha:
        gradient[at] -= 2.0 * alpha * np.tanh(phi[at])
        at += 1
    for i in range(posterior.shape.shape[0]):
        row = posterior.shape[i]
        if family == ORDINAL:
            gradient[at] -= (phi[at] - row[0]) / row[1] ** 2
        elif FOLDED[family]:
            side = 1.0 if phi[at] >= 0.0 else -1.0
            gradient[at] += side * sd_prior_slope(abs(phi[at]), row)
        elif family == STUDENT_T and at == phi.size - 1:
            gradient[at] += row[0] - row[1] * np.exp(phi[at])
        else:
            own = np.exp(phi[at])
            gradient[at] += 1.0 + own * sd_prior_slope(own, row)
        at += 1
