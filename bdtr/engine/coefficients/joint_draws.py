r"""Joint draws of coefficients and effects for several responses of the same units.

A draw from the normal of (b, u) given phi and y is a draw from the prior moved by what the data say of
the difference (conditioning by kriging; Hoffman and Ribak 1991, Astrophys. J. 380; Papandreou and Yuille
2010, NIPS 23): with b* ~ N(0, D), u* ~ N(0, Sigma), e* ~ N(0, V) and y* = X b* + Z u* + e*,

    (b, u) = (b*, u*) + E[(b, u) | y - y*].

Written so, draws for two responses are made jointly by correlating their e* as the residuals of the
responses are correlated, and their u* as the group effects are. Each alone remains an exact draw.

Only cross-products with e* are needed, and they are drawn as such: Z'e* block by block from N(0, Z'Z),
then H'e* given them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from bdtr.engine.coefficients.exact import empty_levels, solve
from bdtr.engine.compiled.kernels import kernel
from bdtr.engine.compiled.streams import children
from bdtr.engine.crossproducts import CrossProducts, Responses
from bdtr.engine.density.elimination import eliminate, relative_factors
from bdtr.engine.parameters import Parameters
from bdtr.engine.system import Response, make_room, system
from bdtr.results.threads import spread

__all__ = [
    "ALONE",
    "WIDE",
    "ErrorRoots",
    "Shared",
    "Streams",
    "error_roots",
    "perturbed_draws",
    "residual_sd_within",
    "stream_correlations",
    "stream_roots",
]

_NUMBERS = 4_000_000  # standard normal numbers in memory at once
WIDE = 1e3  # relative SD at which group effects explain all that they can
_LITTLE = 0.01  # share of the squares between groups below which their correlation is not looked at


class ErrorRoots(NamedTuple):
    """Roots of the covariance of [Z H]'e: ``blocks`` holds, as the cross-products do, a root of Z'Z and
    (Z'Z)^+ Z'H per block and stratum, ``corner`` a root of what is left of H'H per stratum."""

    blocks: np.ndarray
    corner: np.ndarray


@dataclass(frozen=True)
class Streams:
    """How each draw combines independent streams of normal numbers, (draw x stream) with rows of
    length 1: one combination for residuals, one for group effects."""

    residuals: np.ndarray
    effects: np.ndarray


class Shared(NamedTuple):
    """What draws share with others that are made with the same seed.

    ``streams`` say how each draw combines streams of normal numbers, left out: the first one alone. ``roots``
    are those of :func:`error_roots`, if they are at hand. ``common`` are standard normal numbers of u*
    (response x effect) that draws from other data, of the same levels, use as well: what both posteriors do
    not know of a level is then the same.
    """

    streams: Streams | None = None
    roots: ErrorRoots | None = None
    common: np.ndarray | None = None


ALONE = Shared()  # with nothing


def error_roots(products: CrossProducts) -> ErrorRoots:
    """Roots of the covariance of the cross-products with a unit residual."""
    where = products.layout
    blocks, corner = np.zeros_like(products.blocks), products.hth.copy()
    _block_roots(products.blocks, products.block_start, where.start, blocks, corner)
    return ErrorRoots(blocks, np.stack([_root(one) for one in corner]))


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0.0))


@kernel
def _block_roots(blocks, block_start, start, out, corner):
    wide = corner.shape[1]
    for a in range(blocks.shape[0]):
        for j in range(start.size - 1):
            m = start[j + 1] - start[j]
            if m == 0:
                continue
            at, to = block_start[j], block_start[j + 1]
            own = blocks[a, at:to].reshape((m, m + wide))
            into = out[a, at:to].reshape((m, m + wide))
            values, vectors = np.linalg.eigh(own[:, :m].copy())
            h = own[:, m:].copy()
            least = 1e-10 * max(values[-1], 1e-300)
            turned = np.dot(vectors.T.copy(), h)
            for k in range(m):
                if values[k] <= least:
                    turned[k] = 0.0
                    continue
                for i in range(m):
                    into[i, k] = vectors[i, k] * np.sqrt(values[k])
                for c in range(wide):
                    turned[k, c] /= values[k]
            solved = np.dot(vectors, turned)
            for i in range(m):
                for c in range(wide):
                    into[i, m + c] = solved[i, c]
            corner[a] -= np.dot(h.T.copy(), solved)


def perturbed_draws(
    products: CrossProducts,
    responses: Responses,
    params: Parameters,
    phi: np.ndarray,
    seed: np.random.SeedSequence,
    shared: Shared = ALONE,
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and group effects given phi, one draw for each response.

    Parameters
    ----------
    products, responses, params
        Cross-products, the responses shifted to zero prior means, and the layout of phi.
    phi
        Draws of phi (response x phi).
    seed
        Source of randomness, the same for responses that are drawn jointly.
    shared
        What the draws share with others.

    Returns
    -------
    coefficients, effects : numpy.ndarray
        (response x term) of centred columns, (response x effect).
    """
    count, p = len(phi), params.precision.size
    where, one = products.layout, np.ones((len(phi), 1))
    streams, roots, common = shared
    streams = Streams(one, one) if streams is None else streams
    roots = error_roots(products) if roots is None else roots
    used = streams.residuals.shape[1]
    sources = [np.random.default_rng(s) for s in children(seed, 2 * used)]
    own = system(products, params)
    cells = products.hth.shape[0] * (where.inner.size + products.hth.shape[1])
    empty_at, empty_factor = empty_levels(where)
    coefficients, effects = np.empty((count, p)), np.empty((count, where.effects))
    size = max(1, _NUMBERS // (cells + p + where.effects))
    for at in range(0, count, size):
        part = slice(at, min(at + size, count))
        rows = part.stop - at
        errors, priors = np.zeros((rows, cells)), np.zeros((rows, p + where.effects))
        for e in range(used):
            residual, effect = sources[2 * e], sources[2 * e + 1]
            errors += streams.residuals[part, e, None] * residual.standard_normal(errors.shape)
            priors += streams.effects[part, e, None] * effect.standard_normal(priors.shape)
        if common is not None:
            priors[:, p:] = common[part]
        zty, hty, yty = responses.each(np.arange(at, part.stop))
        spread(
            _perturb, rows, phi[part], errors, priors, own, roots, where.inner.target, where.border.target,
            empty_at, empty_factor, zty, hty, coefficients[part], effects[part],
        )  # fmt: skip
        solved = solve(phi[part], own, zty, hty, yty, params, where)
        coefficients[part] += solved[0]
        effects[part] += solved[1]
    return coefficients + params.mean, effects


@kernel
def _perturb(start, stop, phi, errors, priors, s, roots, target, border_target, empty_at,
             empty_factor, zty, hty, coefficients, effects):  # fmt: skip
    """Write b* and u*, and take y* out of the cross-products with the responses."""
    p, border, strata = s.precision.size, s.border, s.rows.size
    wide, inner = border + p, s.start[-1]
    for d in range(start, stop):
        factors = relative_factors(phi[d], s.terms, s.correlated)
        sigma = np.exp(phi[d, 0])
        z, u = priors[d], effects[d]
        v, h = np.empty(inner), np.empty(wide)
        for k in range(p):
            h[border + k] = z[k] / np.sqrt(s.precision[k])
            coefficients[d, k] = h[border + k]
        for g in range(s.group_start.size):
            at, f = s.group_start[g], s.group_factor[g]
            _scaled(factors[f], s.terms[f], sigma, z[p:], target[at], u)
            for a in range(s.terms[f]):
                v[at + a] = u[target[at + a]]
        for g in range(s.border_start.size):
            at, f = s.border_start[g], s.border_factor[g]
            _scaled(factors[f], s.terms[f], sigma, z[p:], border_target[at], u)
            for a in range(s.terms[f]):
                h[at + a] = u[border_target[at + a]]
        for e in range(empty_at.size):
            f = empty_factor[e]
            _scaled(factors[f], s.terms[f], sigma, z[p:], empty_at[e], u)
        for a in range(strata):
            scale = sigma
            if a > 0:
                scale *= np.exp(phi[d, phi.shape[1] - strata + a])
            e_inner = errors[d, a * (inner + wide) : a * (inner + wide) + inner]
            e_wide = errors[d, a * (inner + wide) + inner : (a + 1) * (inner + wide)]
            into = hty[d, a]
            for i in range(wide):
                for k in range(wide):
                    into[i] -= s.hth[a, i, k] * h[k] + scale * roots.corner[a, i, k] * e_wide[k]
            _perturb_blocks(s.blocks[a], roots.blocks[a], s.block_start, s.start, wide, v, h, e_inner,
                            scale, zty[d, a], into)  # fmt: skip


@kernel
def _scaled(factor, q, sigma, z, at, u):
    """Effects sigma T z of one level."""
    for a in range(q):
        value = 0.0
        for c in range(a + 1):
            value += factor[a, c] * z[at + c]
        u[at + a] = sigma * value


@kernel
def _perturb_blocks(blocks, roots, block_start, start, wide, v, h, errors, scale, zty, hty):
    for j in range(start.size - 1):
        first = start[j]
        m = start[j + 1] - first
        for i in range(m):
            row = block_start[j] + i * (m + wide)
            error = 0.0
            value = 0.0
            for k in range(m):
                error += roots[row + k] * errors[first + k]
                value += blocks[row + k] * v[first + k]
            error *= scale
            for c in range(wide):
                value += blocks[row + m + c] * h[c]
                hty[c] -= blocks[row + m + c] * v[first + i] + roots[row + m + c] * error
            zty[first + i] -= value + error


def stream_correlations(
    products: CrossProducts,
    responses: Sequence[Responses],
    crossed: np.ndarray,
    params: Parameters,
    phi: np.ndarray,
    floors: Sequence[float],
) -> tuple[np.ndarray, np.ndarray]:
    """Correlations between residuals, and between group effects, of several responses.

    With Q(y_d, y_e) the products left when group effects explain all that they can, and Q_0 those left
    when they are held at zero, residuals correlate as Q; and, expected squares taken as in an analysis of
    variance, group effects as Q_0 - Q df_0 / df.

    Parameters
    ----------
    products, params
        Cross-products of the columns and the layout of phi.
    responses
        Cross-products with the responses of each kind.
    crossed
        Products of responses with each other (kind, kind, stratum, response).
    phi
        Parameters of the first kind (response x phi): the strata are weighted as they say.
    floors
        SD of the noise that residuals of each kind are taken to hold.

    Returns
    -------
    residuals, effects : numpy.ndarray
        (response, kind, kind); responses without residuals are uncorrelated with all others.
    """
    within, free = phi.copy(), phi.copy()
    within[:, params.group_sds], free[:, params.group_sds] = WIDE, 0.0
    within[:, params.correlations] = 0.0
    n, p = int(products.rows.sum()), params.precision.size
    q = _forms(products, responses, crossed, params, within)
    some = np.diagonal(q, axis1=1, axis2=2) > n * np.square(floors)
    residuals = _as_correlations(q, some)
    if not params.sds:
        return residuals, residuals
    q0 = _forms(products, responses, crossed, params, free)
    left = max(n - _rank(products), 1)
    between = q0 - q * ((n - p) / left)
    size = np.diagonal(between, axis1=1, axis2=2)
    seen = some & (size > _LITTLE * np.diagonal(q0, axis1=1, axis2=2))
    both = seen[:, :, None] & seen[:, None, :]
    effects = np.where(both, _as_correlations(between, seen), residuals)
    return residuals, effects


def residual_sd_within(
    products: CrossProducts, responses: Responses, params: Parameters
) -> np.ndarray:
    """Residual SD of each response when group effects explain all that they can."""
    phi = np.zeros((responses.count, params.size))
    phi[:, params.group_sds] = WIDE
    left = np.diagonal(_forms(products, [responses], None, params, phi), axis1=1, axis2=2)[:, 0]
    freedom = max(int(products.rows.sum()) - _rank(products), 1)
    return np.sqrt(np.maximum(left, 0.0) / freedom)


def _as_correlations(form: np.ndarray, some: np.ndarray) -> np.ndarray:
    size = np.sqrt(np.where(some, np.diagonal(form, axis1=1, axis2=2), np.inf))
    out = np.clip(form / (size[:, :, None] * size[:, None, :]), -1.0, 1.0)
    out[:, np.arange(form.shape[1]), np.arange(form.shape[1])] = 1.0
    return out


def stream_roots(correlations: np.ndarray) -> np.ndarray:
    """Triangular roots of correlation matrices, made definite where they are not (.., kind, stream)."""
    values, vectors = np.linalg.eigh(correlations)
    # Responses that are equal give a singular matrix, estimates may give an indefinite one.
    definite = (vectors * np.maximum(values, 1e-6)[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    roots = np.linalg.cholesky(definite)
    return roots / np.linalg.norm(roots, axis=2, keepdims=True)


def _rank(products: CrossProducts) -> int:
    """Rank of [X Z]."""
    where, wide = products.layout, products.hth.shape[1]
    total = products.blocks.sum(axis=0)[None]
    out, corner = np.zeros_like(total), products.hth.sum(axis=0)[None].copy()
    _block_roots(total, products.block_start, where.start, out, corner)
    inner = _nonzero_columns(out[0], products.block_start, where.start, wide)
    values = np.linalg.eigvalsh(corner[0])
    return inner + int((values > 1e-9 * max(float(products.hth.max()), 1e-300)).sum())


@kernel
def _nonzero_columns(roots, block_start, start, wide):
    count = 0
    for j in range(start.size - 1):
        m = start[j + 1] - start[j]
        for k in range(m):
            size = 0.0
            for i in range(m):
                size += abs(roots[block_start[j] + i * (m + wide) + k])
            count += size > 0.0
    return count


def _forms(products, responses, crossed, params, phi) -> np.ndarray:
    """y_d'P y_e at given phi (response, kind, kind), by polarisation."""
    own, kinds = system(products, params), len(responses)
    form = np.empty((len(phi), kinds, kinds))
    for d in range(kinds):
        for e in range(d + 1):
            r = responses[d]
            if d != e:
                r = r + responses[e]
                r = replace(r, yty=r.yty + 2.0 * crossed[d, e])
            out = np.empty(len(phi))
            spread(_quadratic_forms, len(phi), phi, own, *r.each(np.arange(len(phi))), out)
            form[:, d, e] = out
    for d in range(kinds):
        for e in range(d):
            form[:, d, e] = 0.5 * (form[:, d, e] - form[:, d, d] - form[:, e, e])
            form[:, e, d] = form[:, d, e]
    return form


@kernel
def _quadratic_forms(first, last, phi, own, zty, hty, yty, out):
    """y'Py for each response, in units of its residual variance."""
    p = own.precision.size
    reduced, room = np.empty((p + 1, p + 1)), make_room(own)
    for s in range(first, last):
        eliminate(phi[s], own, Response(zty[s], hty[s], yty[s]), reduced, room)
        value = reduced[p, p]
        for k in range(p):
            pivot = reduced[k, k]
            if not pivot > 1e-12 * abs(own.hth[0, own.border + k, own.border + k]):
                continue  # a column that group effects explain
            value -= reduced[k, p] ** 2 / pivot
            for i in range(k + 1, p):
                c = reduced[k, i] / pivot
                for t in range(i, p + 1):
                    reduced[i, t] -= c * reduced[k, t]
        out[s] = value
