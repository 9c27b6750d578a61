r"""Proposals for phi, for coefficients given phi, and for group effects given both, with exact weights.

phi comes from a mixture of a multivariate t distribution and a wider one. SDs are drawn as y = asinh(SD / s)
and folded at zero: next to zero this is the SD itself, whose density is smooth there, and far from zero its
logarithm, whose density is less skew. Partial correlations are drawn as y = Phi^-1((1 + c) / 2), which is
normal where c is uniform: of an SD next to zero they are as the prior has them. Given phi, Laplace's
approximation of c = (border effects, b) is normal, with mode c-hat and precision S = R R'; proposals are
c = c-hat + R'^-1 (m + K e), e from a mixture of N(0, I) and a wider normal, m and K what pilot proposals
have shown of c. Group effects follow as in :mod:`bdtr.engine.laplace.sites`. The weight of a proposal

    p(phi) p(c) [unbiased estimate of p(y | phi, c)] / (q(phi) q(c | phi))

is exact: it does not depend on how well the approximations hold or the climbs have converged.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from bdtr.engine.compiled.kernels import kernel
from bdtr.engine.compiled.streams import normal, seeded, uniform
from bdtr.engine.laplace.climb import make_room, solve_envelope_transposed
from bdtr.engine.laplace.density import Posterior, climbed, log_prior, set_up
from bdtr.engine.laplace.likelihoods import FORMS
from bdtr.engine.laplace.sites import integrate_sites, make_site_room
from bdtr.results.threads import spread

__all__ = ["Places", "Proposed", "completed", "effects_of", "propose"]

_NEAR = 1e-2  # decrement at which climbs of proposals end,
_TIGHT = 1e-10  # and those whose density is that of the draws
_WIDE = 0.1  # share of proposals from the wider distribution
_WIDER = 1.6  # scale of that of phi against the narrow one


class Places(NamedTuple):
    """Where proposals come from.

    ``centre`` and the triangular ``root`` of the t distribution of phi, SDs as asinh(SD / s), of ``freedom``
    degrees; ``scale`` is s, 0 for parts of phi that are no SD and -1 for partial correlations; ``folds`` the
    places of SDs that are folded. ``mode`` is the mode of all effects and coefficients at ``origin``, a phi,
    ``moves`` its derivative (position x phi); ``shift`` and ``stretch`` are m and K.
    """

    centre: np.ndarray
    root: np.ndarray
    inverse_root: np.ndarray
    folds: np.ndarray
    scale: np.ndarray
    freedom: int
    origin: np.ndarray
    mode: np.ndarray
    moves: np.ndarray
    shift: np.ndarray
    stretch: np.ndarray


class Proposed(NamedTuple):
    """Proposals (first axis) with their log weights.

    ``zeta`` is R'(c - c-hat); ``ratio`` the log of the exact over Laplace's likelihood given phi and c;
    ``effects`` are group effects v (proposal x inner position), or there are none.
    """

    phi: np.ndarray
    c: np.ndarray
    zeta: np.ndarray
    weights: np.ndarray
    ratio: np.ndarray
    effects: np.ndarray


def propose(
    posterior: Posterior,
    places: Places,
    pairs: int,
    word: np.uint64,
    first: int,
    count: int,
    effects: bool = False,
) -> Proposed:
    """Proposals number ``first`` on, each from a stream of its own.

    Parameters
    ----------
    posterior
        Model and data.
    places
        Where they come from.
    pairs
        Pairs of draws that the integral of a block is estimated from.
    word
        Seed of the streams.
    first, count
        Number of the first proposal, and how many.
    effects
        Whether to keep their group effects.

    Returns
    -------
    Proposed
    """
    out = _room_for(count, posterior, effects)
    spread(_weigh, count, first + np.arange(count), posterior, places, pairs, word, out)
    return out


def effects_of(
    posterior: Posterior, places: Places, pairs: int, word: np.uint64, numbers: np.ndarray
) -> np.ndarray:
    """Group effects v (proposal x inner position) of proposals with these numbers."""
    out = _room_for(len(numbers), posterior, True)
    spread(_weigh, len(numbers), numbers, posterior, places, pairs, word, out)
    return out.effects


def _room_for(count: int, posterior: Posterior, effects: bool) -> Proposed:
    return Proposed(
        np.empty((count, posterior.size)),
        np.empty((count, posterior.fixed)),
        np.empty((count, posterior.fixed)),
        np.empty(count),
        np.empty(count),
        np.empty((count if effects else 0, posterior.cells.first.size)),
    )


def completed(
    posterior: Posterior, places: Places, pairs: int, tries: int, word: np.uint64, phi: np.ndarray
) -> Proposed:
    """Coefficients and group effects for phi that are known, with weights that correct Laplace's density.

    Parameters
    ----------
    posterior, places, pairs, word
        As in :func:`propose`; of the places what belongs to phi is not used.
    tries
        Proposals for each phi, of which one is chosen by its weight.
    phi
        Draws from Laplace's density (draw x phi).

    Returns
    -------
    Proposed
        Log weights are exact over Laplace's density, estimated without bias.
    """
    out = _room_for(len(phi), posterior, True)
    out.phi[:] = phi
    spread(_complete, len(phi), posterior, places, pairs, tries, word, out)
    return out


@kernel
def _weigh(first, last, numbers, posterior, places, pairs, word, out):
    """Proposals first to last; their effects where there is room for them."""
    cells = posterior.cells
    room, site = make_room(cells), make_site_room(cells)
    for k in range(first, last):
        rng = seeded(word, numbers[k])
        phi = out.phi[k]
        out.weights[k], out.ratio[k] = -np.inf, np.nan
        proposed = _propose_phi(places, rng, phi)
        if not np.isfinite(proposed):
            continue
        constant, laplace = _climb_from(phi, posterior, places, room, _NEAR)
        if not np.isfinite(laplace):
            continue
        c, zeta = out.c[k], out.zeta[k]
        weight, out.ratio[k] = _weigh_rest(posterior, places, pairs, rng, room, site, zeta, c)
        out.weights[k] = weight + constant + log_prior(phi, posterior) - proposed
        if out.effects.shape[0] > 0:
            out.effects[k] = site.chosen


@kernel
def _complete(first, last, posterior, places, pairs, tries, word, out):
    """Draws first to last of phi, completed; of the tries of each, one is chosen."""
    cells = posterior.cells
    room, site = make_room(cells), make_site_room(cells)
    rest = posterior.cells.border + posterior.precision.size
    zeta, c = np.empty(rest), np.empty(rest)
    for k in range(first, last):
        rng = seeded(word, k)
        constant, laplace = _climb_from(out.phi[k], posterior, places, room, _TIGHT)
        best, total = -np.inf, 0.0
        out.weights[k], out.ratio[k] = -np.inf, np.nan
        out.c[k], out.zeta[k], out.effects[k] = np.nan, np.nan, np.nan
        if not np.isfinite(laplace):
            continue
        for _ in range(tries):
            weight, ratio = _weigh_rest(posterior, places, pairs, rng, room, site, zeta, c)
            pick = uniform(rng)
            if not np.isfinite(weight):
                continue
            total = total * np.exp(min(best - weight, 0.0)) + np.exp(min(weight - best, 0.0))
            best = max(best, weight)
            if pick * total < np.exp(weight - best):
                out.c[k], out.zeta[k], out.effects[k] = c, zeta, site.chosen
                out.ratio[k] = ratio
        if np.isfinite(best):
            out.weights[k] = best + np.log(total / tries) + constant - laplace


@kernel
def _climb_from(phi, posterior, places, room, tolerance):
    """The mode of effects and coefficients at phi, from where the derivative of that at the origin points.

    Returns the part of the log likelihood that phi alone decides, and Laplace's log likelihood.
    """
    room.w[:] = places.mode
    for i in range(phi.size):
        for j in range(room.w.size):
            room.w[j] += places.moves[j, i] * (phi[i] - places.origin[i])
    constant = set_up(phi, posterior, room)
    return constant, constant + climbed(posterior, room, tolerance)


@kernel
def _weigh_rest(posterior, places, pairs, rng, room, site, zeta, c):
    """Propose border effects, coefficients and group effects where a climb has ended.

    Returns the log of their prior times likelihood, but for the constant, over the density of the proposal;
    and that of exact over Laplace's likelihood given c. Effects are left in ``site.chosen``.
    """
    cells = posterior.cells
    inner, rest = room.across.shape
    proposed = _propose_rest(places, room, rng, zeta, c)
    # Where the blocks are, given c: the climb's end, moved along the normal approximation.
    site.v[:] = 0.0
    for i in range(inner):
        for j in range(rest):
            site.v[i] -= room.across[i, j] * (c[j] - room.w[inner + j] - room.step[inner + j])
    solve_envelope_transposed(cells.first, cells.place, room.envelope, 0, inner, site.v)
    for i in range(inner):
        site.v[i] += room.w[i] + room.step[i]
    exact, laplace = integrate_sites(cells, FORMS[cells.family], c, pairs, rng, room, site)
    return exact + _log_normal(posterior, c) - proposed, exact - laplace


@kernel
def _propose_phi(places, rng, out):
    """Write a proposal; its log density, minus infinity beyond zero in an SD that is not folded."""
    size = out.size
    if size == 0:
        return 0.0
    chi2 = 0.0
    for _ in range(places.freedom):
        chi2 += normal(rng) ** 2
    scale = np.sqrt(places.freedom / chi2) * (_WIDER if uniform(rng) < _WIDE else 1.0)
    own, y = np.empty(size), np.empty(size)
    for i in range(size):
        own[i] = normal(rng) * scale
    for i in range(size):
        y[i] = places.centre[i]
        for j in range(i + 1):
            y[i] += places.root[i, j] * own[j]
    for i in places.folds:
        y[i] = abs(y[i])
    total = 0.0
    own[:], power = y, -0.5 * (places.freedom + size)
    for pattern in range(1 << places.folds.size):
        for b in range(places.folds.size):
            i = places.folds[b]
            own[i] = -y[i] if pattern >> b & 1 else y[i]
        distance = 0.0
        for i in range(size):
            value = 0.0
            for j in range(i + 1):
                value += places.inverse_root[i, j] * (own[j] - places.centre[j])
            distance += value * value
        distance /= places.freedom
        total += (1.0 - _WIDE) * (1.0 + distance) ** power
        total += _WIDE * _WIDER**-size * (1.0 + distance / _WIDER**2) ** power
    density = np.log(total) + math.lgamma(-power)
    density -= math.lgamma(0.5 * places.freedom) + 0.5 * size * np.log(places.freedom * np.pi)
    for i in range(size):
        density += np.log(places.inverse_root[i, i])
        out[i] = y[i]
        if places.scale[i] > 0.0:
            if y[i] < 0.0:
                return -np.inf
            out[i] = places.scale[i] * np.sinh(y[i])
            # On the whole line SDs have half of their density on either side.
            density -= np.log(2.0 * places.scale[i] * np.cosh(y[i]))
        elif places.scale[i] < 0.0:
            left = math.erfc(abs(y[i]) / np.sqrt(2.0))  # 1 - |c|
            if left < 1e-300:
                return -np.inf
            z = 0.5 * (np.log(2.0 - left) - np.log(left))
            out[i] = z if y[i] >= 0.0 else -z
            # dz/dy = 2 Phi'(y) / (1 - c^2)
            density += np.log(left) + np.log(2.0 - left) + 0.5 * y[i] ** 2
            density += 0.5 * np.log(2.0 * np.pi) - np.log(2.0)
    return density


@kernel
def _propose_rest(places, room, rng, zeta, c):
    """Write zeta and c; the log density of c."""
    inner, size = room.across.shape
    if size == 0:
        return 0.0
    wide = 1.0 + 1.0 / np.sqrt(size)
    scale = wide if uniform(rng) < _WIDE else 1.0
    e = np.empty(size)
    squares = 0.0
    for i in range(size):
        e[i] = scale * normal(rng)
        squares += e[i] * e[i]
    narrow = np.log(1.0 - _WIDE) - 0.5 * squares
    broad = np.log(_WIDE) - 0.5 * squares / wide**2 - size * np.log(wide)
    density = max(narrow, broad) + np.log1p(np.exp(-abs(narrow - broad)))
    density -= 0.5 * size * np.log(2.0 * np.pi)
    for i in range(size):
        zeta[i] = places.shift[i]
        for j in range(i + 1):
            zeta[i] += places.stretch[i, j] * e[j]
        density += np.log(room.corner[i, i]) - np.log(places.stretch[i, i])
    c[:] = zeta
    for i in range(size - 1, -1, -1):
        c[i] /= room.corner[i, i]
        for j in range(i):
            c[j] -= room.corner[i, j] * c[i]
        c[i] += room.w[inner + i] + room.step[inner + i]
    return density


@kernel
def _log_normal(posterior, c):
    """Log prior density of border effects and coefficients."""
    out = -0.5 * c.size * np.log(2.0 * np.pi)
    border = posterior.cells.border
    for j in range(border):
        out -= 0.5 * c[j] * c[j]
    for j in range(posterior.precision.size):
        precision = posterior.precision[j]
        out += 0.5 * (np.log(precision) - precision * (c[border + j] - posterior.mean[j]) ** 2)
    return out
