r"""Quasi-likelihood of bounded or positive responses on their link scale, for many responses at once.

    E[y_i] = mu_i = g^{-1}(eta_i),   Var y_i = sigma_a^2 v(mu_i) / c_i,   eta = X b + Z u,

with g the logit and v(mu) = mu (1 - mu), or g the logarithm and v(mu) = mu, sigma_a the dispersion of the
row's stratum and c_i a known weight (Wedderburn 1974, Biometrika 61(3); McCullagh and Nelder 1989,
Generalized Linear Models, ch. 9; with group effects Breslow and Clayton 1993, JASA 88(421)). These links are
canonical, d mu / d eta = v(mu), so that the working response about eta with any weights w > 0

    t = eta + (y - mu) / w,   residual variance sigma_a^2 / (c_i w_i),

has the normal equations X'W(t - X b - Z u) = X'(y - mu) where eta = X b + Z u: at such a fixed point b and u
solve the estimating equations of the quasi-likelihood, whatever the weights. A fixed point is found for each
response; the weights are those of the mean of a few responses, the same for all, as is all that the exact
engine needs to know of the columns. Weights then enter the spread of draws about their mode alone, in which
they are right on average over responses.

The posterior is skew on the scale of the link: its mean is not at its mode theta but, to second order (as in
Tierney and Kadane 1986, JASA 81(393)), at theta + 1/2 V sum_i l'''_i h_i x_i, with V its covariance, h_i =
x_i'Vx_i the variance of eta_i and l''' the third derivative of the quasi-likelihood. A shift of the working
responses by -1/2 h_i d log v / d eta, at the end, does that; for the logarithm it makes the mean of exp(eta)
what its mode says.

Fixed points are found for a typical phi, that of a few responses. Draws with another phi differ from it in
how much group effects are shrunk, and in eta - as the working response is a tangent - at second order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import expit, logit
from threadpoolctl import threadpool_limits

from bdtr.engine.coefficients.exact import exact_draws, solve
from bdtr.engine.compiled.kernels import kernel
from bdtr.engine.crossproducts import (
    CrossProducts,
    ResponseProducts,
    Responses,
    Rows,
    cross_products,
    response_products,
    row_values,
    weighted,
)
from bdtr.engine.direct import modes, residual_floor
from bdtr.engine.layout import Layout
from bdtr.engine.parameters import Parameters
from bdtr.engine.system import system

__all__ = [
    "Blocks",
    "Link",
    "QuasiModel",
    "Settled",
    "Tangent",
    "first_guess",
    "settle",
    "skewness_shift",
    "tangent",
    "working",
]

type State = tuple[np.ndarray, np.ndarray]  # coefficients and effects
type Blocks = Callable[[], Iterable[tuple[slice, Sequence[np.ndarray]]]]

_SHARE = 0.1  # of the mean response in the first guess of each: none is then at a bound
_LEAST = 1e-12  # weight, relative to the largest
_FEW_STEPS, _STEPS, _MANY_STEPS = 12, 30, 150
_NEAR = 5e-4  # root mean square change of eta after which a response has settled
_BACK = 0.5  # a step back of so much of the last one says that this went too far
_DRAWS, _CELLS = 512, 2_000_000  # from which variances of eta are taken; in memory at once
_FARTHEST = 1.0  # change of a row in one step
_ALIKE = 16  # responses far from the others that are settled together
_LOOKED_AT = 256  # rows at which the change is measured


@dataclass(frozen=True)
class Link:
    """The logit (``bounded``) or the logarithm."""

    bounded: bool

    def mean(self, eta: np.ndarray) -> np.ndarray:
        """Mean at a linear predictor."""
        return expit(eta) if self.bounded else np.exp(eta)

    def linear(self, mean: np.ndarray) -> np.ndarray:
        """The linear predictor of a mean."""
        return logit(mean) if self.bounded else np.log(mean)

    def bend(self, mean: np.ndarray) -> np.ndarray:
        """d log slope / d eta at a mean."""
        return 1.0 - 2.0 * mean if self.bounded else np.ones_like(mean)

    def slope(self, mean: np.ndarray) -> np.ndarray:
        """d mean / d eta, and the variance up to the dispersion, at a mean."""
        return mean * (1.0 - mean) if self.bounded else mean


@dataclass(frozen=True)
class Tangent:
    """What working responses of a stage have in common: weights of its rows, and the phi and the intercept
    at which fixed points are found."""

    weight: np.ndarray
    phi: np.ndarray
    location: float


@dataclass(frozen=True)
class Settled:
    """Fixed points: coefficients (term, response) and effects (effect, response), the location taken out;
    steps that were made, and the last change of eta of each response."""

    coefficients: np.ndarray
    effects: np.ndarray
    steps: int
    change: np.ndarray


@dataclass(frozen=True)
class QuasiModel:
    """Rows of a stage with their known weights, layout of group effects, link, layout and priors of phi."""

    rows: Rows
    where: Layout
    link: Link
    params: Parameters

    @cached_property
    def columns(self) -> tuple[np.ndarray, ...]:
        """Columns of the rows, and the positions that those of groups meet, without weights."""
        return row_values(replace(self.rows, weight=None), self.where)[:5]

    def predictor(self, rows, coefficients: np.ndarray, effects: np.ndarray) -> np.ndarray:
        """Linear predictors of some rows (row, response), without the location."""
        x, z, at, c, c_at = self.columns
        out = x[rows] @ coefficients
        if self.where.inner.size:
            _add(z[rows], at[rows], self.where.inner.target, effects, out)
        if self.where.border.size:
            _add(c[rows], c_at[rows], self.where.border.target, effects, out)
        return out

    def solved(
        self,
        phi: np.ndarray,
        products: CrossProducts,
        responses: Responses,
        known: np.ndarray | None,
    ) -> State:
        """Posterior means of coefficients (term, response) and of effects (effect, response) given phi."""
        params = self.params
        rest = responses.without(products, params.mean, known)
        parts = rest.each(np.arange(rest.count))
        b, u = solve(phi, system(products, params), *parts, params, self.where)
        effects = u.T if known is None else u.T + known
        return np.ascontiguousarray(b.T) + params.mean[:, None], np.ascontiguousarray(effects)


@kernel
def _add(z, at, target, effects, out):
    for i in range(z.shape[0]):
        for a in range(z.shape[1]):
            value = z[i, a]
            if value == 0.0:
                continue
            own = effects[target[at[i, a]]]
            for s in range(own.size):
                out[i, s] += value * own[s]


def first_guess(link: Link, mean: np.ndarray) -> np.ndarray:
    """Linear predictors to start from, of mean responses: away from the bounds."""
    return link.linear((1.0 - _SHARE) * mean + _SHARE * mean.mean())


def tangent(
    model: QuasiModel,
    some: np.ndarray,
    eta: np.ndarray,
    location: float,
    known: np.ndarray | None = None,
) -> Tangent:
    """Weights and phi of a stage, from a few of its responses.

    Parameters
    ----------
    model
        The stage.
    some
        Responses (row, response).
    eta
        Where to start (row).
    location
        What the engine takes out of eta.
    known
        Known effects (effect, response).

    Returns
    -------
    Tangent
    """
    link, params = model.link, model.params
    none = np.zeros(params.precision.size)
    eta = np.repeat(eta[:, None], some.shape[1], axis=1)
    weight, phi = np.ones(len(some)), np.zeros((some.shape[1], params.size))
    with threadpool_limits(1):
        for _ in range(_FEW_STEPS):
            mean = link.mean(eta)
            weight = _positive(link.slope(mean).mean(axis=1))
            products, responses = _products(model, weight, eta, some, mean, location)
            rest = responses.without(products, none, known)
            phi = modes(products, rest, params, residual_floor(products, responses))
            new = location + model.predictor(
                slice(None), *model.solved(phi, products, responses, known)
            )
            change, eta = float(_sizes(new - eta)[0].max()), new
            if change < _NEAR:
                break
    return Tangent(weight, params.folded(phi).mean(axis=0), location)


def _products(
    model: QuasiModel,
    weight: np.ndarray,
    eta: np.ndarray,
    y: np.ndarray,
    mean: np.ndarray,
    location: float,
) -> tuple[CrossProducts, Responses]:
    """Cross-products with these weights of the columns, and of working responses about eta."""
    own = weighted(model.rows, weight)
    t = eta + (y - mean) / weight[:, None] - location
    return cross_products(own, model.where), response_products(own, model.where, t)


def _positive(weight: np.ndarray) -> np.ndarray:
    return np.maximum(weight, _LEAST * weight.max())


def _sizes(away: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square and largest change of the rows, for each response."""
    return np.sqrt(np.square(away).mean(axis=0)), np.abs(away).max(axis=0)


def _too_far(last: np.ndarray, away: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Whether the way ahead leads back from where the last step went, and is not much shorter."""
    return ((last * away).sum(axis=0) < 0.0) & (_sizes(away)[0] > _BACK * change)


def settle(
    model: QuasiModel,
    at: Tangent,
    eta: np.ndarray,
    blocks: Blocks,
    known: Sequence[np.ndarray | None],
    near: float = _NEAR,
) -> list[Settled]:
    """Fixed points of responses that come in blocks of rows, under one or more policies.

    Parameters
    ----------
    model
        The stage.
    at
        Weights and phi.
    eta
        Where to start (row).
    blocks
        Goes through the responses: places among the rows, and responses (row, response) of each policy.
    known
        Known effects (effect, response) of each policy.
    near
        Root mean square change of eta after which a response has settled.

    Returns
    -------
    list of Settled
        For each policy.
    """
    with threadpool_limits(1):
        own = weighted(model.rows, at.weight)
        products = cross_products(own, model.where)
        look = np.linspace(0, len(eta) - 1, min(_LOOKED_AT, len(eta))).astype(int)
        guess = response_products(own, model.where, (eta - at.location)[:, None])
        phi = at.phi[None]
        here = [model.solved(phi, products, guess, None)] * len(known)
        change, share = [np.array(np.inf)] * len(known), [np.array(1.0)] * len(known)
        last = [np.zeros((look.size, 1))] * len(known)
        steps = 0
        while steps < _STEPS and max(float(c.max()) for c in change) > near:
            steps += 1
            for d, total in enumerate(_totals(model, own, at, here, blocks)):
                each = np.repeat(phi, total.count, axis=0)
                found = model.solved(each, products, total, known[d])
                away = [new - old for new, old in zip(found, here[d], strict=True)]
                seen = model.predictor(look, *away)
                moved, largest = _sizes(seen)
                share[d] = np.where(_too_far(last[d], seen, change[d]), 0.5 * share[d], share[d])
                change[d], last[d] = moved, seen
                step = np.minimum(share[d], _FARTHEST / np.maximum(largest, _FARTHEST))
                here[d] = (here[d][0] + step * away[0], here[d][1] + step * away[1])
        for d, (b, u) in enumerate(here):
            left = np.flatnonzero(~(change[d] <= near))
            # Those that are alike together: weights of their own are then right for all of them.
            order = left[np.argsort(model.predictor(look, b[:, left], u[:, left]).mean(axis=0))]
            for first in range(0, order.size, _ALIKE):
                some = order[first : first + _ALIKE]
                y = _responses(blocks, d, some, len(eta))
                held = known[d]
                given = None if held is None else np.ascontiguousarray(held[:, some])
                (b[:, some], u[:, some]), change[d][some] = _apart(model, at, eta, y, given, near)
    return [Settled(*h, steps, c) for h, c in zip(here, change, strict=True)]


def _totals(
    model: QuasiModel, own: Rows, at: Tangent, here: Sequence[State], blocks: Blocks
) -> list[Responses]:
    """Cross-products with the working responses of each policy."""
    totals: list[ResponseProducts] = []
    for part, values in working(model, at, here, blocks):
        if not totals:
            totals = [ResponseProducts(own, model.where, t.shape[1]) for t in values]
        for total, t in zip(totals, values, strict=True):
            total.add(part, t - at.location)
    return [total.responses for total in totals]


def _responses(blocks: Blocks, policy: int, which: np.ndarray, rows: int) -> np.ndarray:
    """Some of the responses under a policy (row, response)."""
    out = np.empty((rows, which.size))
    for part, values in blocks():
        out[part] = values[policy][:, which]
    return out


def _apart(
    model: QuasiModel,
    at: Tangent,
    eta: np.ndarray,
    y: np.ndarray,
    known: np.ndarray | None,
    near: float,
) -> tuple[State, np.ndarray]:
    """Fixed points of responses that are far from the others, with weights of their own at each step, and
    the last changes; one by one where they do not settle together."""
    count = y.shape[1]
    here = np.repeat(eta[:, None], count, axis=1)
    last, moved, share = np.zeros_like(here), np.full(count, np.inf), np.ones(count)
    phi, found = np.repeat(at.phi[None], count, axis=0), None
    for _ in range(_MANY_STEPS if count == 1 else _STEPS):
        mean = model.link.mean(here)
        weight = _positive(model.link.slope(mean).mean(axis=1))
        found = model.solved(phi, *_products(model, weight, here, y, mean, at.location), known)
        away = at.location + model.predictor(slice(None), *found) - here
        share = np.where(_too_far(last, away, moved), 0.5 * share, np.minimum(1.0, 1.5 * share))
        moved, largest = _sizes(away)
        here, last = (
            here + np.minimum(share, _FARTHEST / np.maximum(largest, _FARTHEST)) * away,
            away,
        )
        if moved.max() < near:
            break
    assert found is not None
    if count > 1:
        for s in np.flatnonzero(~(moved < near)):
            given = None if known is None else np.ascontiguousarray(known[:, s : s + 1])
            one, moved[s : s + 1] = _apart(model, at, eta, y[:, s : s + 1], given, near)
            found[0][:, s], found[1][:, s] = one[0][:, 0], one[1][:, 0]
    return found, moved


def skewness_shift(model: QuasiModel, at: Tangent) -> np.ndarray:
    """h / 2 of each row: half the variance of its eta given phi and its response."""
    with threadpool_limits(1):
        own = weighted(model.rows, at.weight)
        products = cross_products(own, model.where)
        responses = response_products(own, model.where, np.zeros((len(at.weight), 1)))
        phi = np.repeat(at.phi[None], _DRAWS, axis=0)
        given = products, responses, model.params, phi, np.zeros(_DRAWS, dtype=np.int64)
        b, u = (np.ascontiguousarray(x.T) for x in exact_draws(*given, np.random.SeedSequence(0)))
        size = max(1, _CELLS // _DRAWS)
        half = np.empty(len(at.weight))
        for first in range(0, len(half), size):
            part = slice(first, first + size)
            half[part] = 0.5 * model.predictor(part, b, u).var(axis=1)
    return half


def working(
    model: QuasiModel,
    at: Tangent,
    here: Sequence[State],
    blocks: Blocks,
    shift: np.ndarray | None = None,
) -> Iterator[tuple[slice, list[np.ndarray]]]:
    """Working responses about given coefficients and effects of each policy, block by block.

    Parameters
    ----------
    model, at, blocks
        As in :func:`settle`.
    here
        Coefficients (term, response) and effects (effect, response) of each policy, of one response for all
        or of each.
    shift
        From :func:`skewness_shift`, to have draws about the mean and not the mode.
    """
    for part, values in blocks():
        out = []
        for state, y in zip(here, values, strict=True):
            eta = at.location + model.predictor(part, *state)
            mean = model.link.mean(eta)
            t = eta + (y - mean) / at.weight[part, None]
            out.append(t if shift is None else t - shift[part, None] * model.link.bend(mean))
        yield part, out
