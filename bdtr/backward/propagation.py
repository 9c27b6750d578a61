"""One stage drawn for propagated responses: one posterior draw for each, under one or more policies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from bdtr.backward.carried_effects import KnownEffects, joined_law
from bdtr.engine.coefficients.joint_draws import (
    Shared,
    Streams,
    error_roots,
    stream_correlations,
    stream_roots,
)
from bdtr.engine.crossproducts import (
    CrossProducts,
    ResponseProducts,
    Responses,
    Rows,
    cross_products,
)
from bdtr.engine.direct import (
    DirectDraws,
    draw_each,
    draw_given,
    residual_floor,
)
from bdtr.engine.further_responses import draw_beside, known_neighbours
from bdtr.engine.layout import Factor, layout
from bdtr.stages.outcome import OutcomeModel
from bdtr.stages.posterior import Propagated, engine_roots, labelled, new_site, new_site_seed

__all__ = ["Anchor", "Totals", "accumulate", "propagate"]


@dataclass(frozen=True)
class Totals:
    """Cross-products of a stage's rows with the responses under each policy.

    Responses are those less ``location``, divided by ``spread``. ``crossed`` (policy, policy, stratum,
    response) holds their products with each other; ``centre`` is the mean response under the first
    policy, ``mean`` that of each row.
    """

    products: CrossProducts
    responses: tuple[Responses, ...]
    crossed: np.ndarray
    centre: float
    location: float
    spread: float
    mean: np.ndarray


def accumulate(
    rows: Rows,
    factors: Sequence[Factor],
    blocks: Iterable[tuple[slice, Sequence[np.ndarray]]],
    units: tuple[float, float] | None = None,
    constant: bool = True,
) -> Totals:
    """Go through the responses once, block by block.

    Parameters
    ----------
    rows
        Coded rows of the stage's fit.
    factors
        Its grouping factors.
    blocks
        Places among the rows, and the responses (row, response) under each policy.
    units
        Location and spread of the responses, where they are known; left out, the mean of the first
        block is taken out before anything is squared, and responses are divided by their SD over rows and
        draws.
    constant
        Whether the columns have a constant; else nothing is taken out.

    Returns
    -------
    Totals
    """
    where = layout(factors, rows.codes)
    location = None if units is None else units[0]
    with threadpool_limits(1):  # the same bits on any number of threads
        products = cross_products(rows, where)
        totals: list[ResponseProducts] = []
        crossed, sums, of_rows = 0.0, 0.0, np.empty(len(rows.x))
        for at, values in blocks:
            if not totals:
                totals = [ResponseProducts(rows, where, y.shape[1]) for y in values]
                if location is None:
                    location = float(values[0].mean()) if constant else 0.0
            values = [y - location for y in values]
            for total, y in zip(totals, values, strict=True):
                total.add(at, y)
            crossed = crossed + _crossed(rows, at, values)
            sums = sums + values[0].sum(axis=0)
            of_rows[at] = values[0].mean(axis=1)
        n = len(rows.x)
        squares = totals[0].responses.yty.sum(axis=0)
        if rows.weight is not None:  # products are weighted; the spread is that of the rows
            squares = squares * n / rows.weight.sum()
        mean = sums / n
        variance = np.maximum(squares - n * np.square(mean), 0.0) / max(n - 1, 1)
    assert location is not None
    centre = location + float(np.mean(mean))
    # The same response for all units differs between draws, and its prior may not know better.
    seen = float(np.sqrt(np.mean(variance) + np.var(mean))) or 1.0
    spread = seen if units is None else units[1]
    found = tuple(t.responses.divided(spread) for t in totals)
    return Totals(
        products,
        found,
        np.asarray(crossed) / spread**2,
        centre,
        location,
        spread,
        of_rows + location,
    )


def _crossed(rows: Rows, at: slice, values: Sequence[np.ndarray]) -> np.ndarray:
    """Products of responses with each other (policy, policy, stratum, response)."""
    out = np.zeros((len(values), len(values), rows.strata, values[0].shape[1]))
    if len(values) == 1:
        return out
    count = len(values[0])
    weight = np.ones(count) if rows.weight is None else rows.weight[at]
    stratum = np.zeros(count, dtype=int) if rows.stratum is None else rows.stratum[at]
    for a in range(rows.strata):
        mine = stratum == a
        for d, y in enumerate(values):
            own = y[mine] * weight[mine][:, None]
            for e in range(d):
                out[d, e, a] = out[e, d, a] = np.einsum("is,is->s", own, values[e][mine])
    return out


@dataclass(frozen=True)
class Anchor:
    """phi of a policy that has been drawn before (draw x phi), and whether all of it came from independence
    chains: draws of other policies may then start from it."""

    phi: np.ndarray
    chains: bool


def propagate(
    model: OutcomeModel,
    totals: Totals,
    known: Sequence[KnownEffects | None],
    seed: np.random.SeedSequence,
    chains: int,
    anchor: Anchor | None = None,
    progress: Callable[[int, int], None] | None = None,
    common: np.ndarray | None = None,
) -> list[Propagated]:
    """One posterior draw of a stage for each propagated response, under each policy.

    Without ``anchor`` there is one policy. With it, the first policy has been drawn before and the
    others are drawn now, jointly: each from its own posterior, residuals and group effects of the
    policies correlated as those of their responses are, the random numbers of phi the same.

    Parameters
    ----------
    model
        The stage's model.
    totals
        From :func:`accumulate`.
    known
        Per policy the group effects that are known.
    seed
        Source of randomness, the same for all policies.
    chains
        Number of chains that the responses came from, stacked.
    anchor
        Draws of the first policy.
    progress
        Called with (responses done, responses in all).
    common
        As in :class:`bdtr.engine.coefficients.joint_draws.Shared`.

    Returns
    -------
    list of Propagated
        As many draws as responses, in their order, for each policy drawn now.
    """
    params, products = model.parameters, totals.products
    known_by_engine = [None if k is None else model.engine_effects(k.effects.T).T for k in known]
    new_seed = new_site_seed(seed)
    out = []
    with threadpool_limits(1):
        none = np.zeros(params.precision.size)
        rest = [
            r.without(products, none, k)
            for r, k in zip(totals.responses, known_by_engine, strict=True)
        ]
        floors = [residual_floor(products, r) for r in totals.responses]
        # Policies that do the same to everyone have the same responses, and are drawn once.
        twin = [next(e for e in range(d + 1) if _equal(rest[e], rest[d])) for d in range(len(rest))]
        streams: dict[int, Streams | None] = dict.fromkeys(twin)
        if anchor is not None:
            kinds = list(streams)
            crossed = _without_known(totals, rest, known_by_engine)[np.ix_(kinds, kinds)]
            both = stream_correlations(
                products,
                [rest[d] for d in kinds],
                crossed,
                params,
                anchor.phi,
                [floors[d] for d in kinds],
            )
            residuals, effects = (np.moveaxis(stream_roots(r), 1, 0) for r in both)
            streams = {d: Streams(residuals[i], effects[i]) for i, d in enumerate(kinds)}
        roots = error_roots(products)
        made: dict[int, DirectDraws] = {}
        near = None
        if anchor is not None and anchor.chains and len(streams) > 1:
            near = known_neighbours(products, rest[0], params, anchor.phi, floors[0])
        for d in range(0 if anchor is None else 1, len(rest)):
            kind = twin[d]
            if kind not in made and kind == 0 and anchor is not None:
                shared = Shared(streams[0], roots, common)
                made[kind] = draw_given(products, rest[0], params, anchor.phi, seed, shared)
            elif kind not in made:
                given = products, rest[d], params, seed, progress
                own = floors[d], Shared(streams[d], roots, common)
                beside = None if near is None else draw_beside(near, *given, *own)
                made[kind] = beside or draw_each(*given, *own)
            drawn = made[kind]
            law = _law(model, drawn.phi, drawn.effects, known[d])
            b = model.coefficients(drawn.coefficients)
            posterior = labelled(model, drawn.phi, b, law.effects, law.covariances, chains)
            engine = xr.Dataset(
                {"phi": (("chain", "draw", "phi_dim"), drawn.phi.reshape(chains, -1, params.size))},
                attrs={"sampler": "direct", "centre": totals.centre, "spread": totals.spread,
                       "location": totals.location, **drawn.report.attributes()},
            )  # fmt: skip
            used = streams[kind]
            shares = np.ones((len(drawn.phi), 1)) if used is None else used.effects
            of_groups = law.roots[: len(model.design.groups)]
            site = new_site(model, of_groups, shares, new_seed, chains, law.new)
            out.append(Propagated(posterior, engine, site))
    return out


@dataclass(frozen=True)
class _Law:
    """Group effects of a stage with those that are known, and what is known of their population.

    ``effects`` (draw, effect); ``covariances`` and ``roots`` per factor (draw, term, term), the roots of
    what is not known at a new site; ``new`` what is known there (term, draw).
    """

    effects: np.ndarray
    covariances: list[np.ndarray]
    roots: list[np.ndarray]
    new: Mapping[str, np.ndarray]


def _law(
    model: OutcomeModel, phi: np.ndarray, rest: np.ndarray, known: KnownEffects | None
) -> _Law:
    """Joined in the units of the engines, where terms are far from collinear; then as written."""
    roots = engine_roots(model, phi)
    covariances = [root @ np.swapaxes(root, 1, 2) for root in roots]
    total, new = rest, dict[str, np.ndarray]()
    if known is not None:
        effects = model.engine_effects(known.effects.T)
        total = rest + effects
    at = 0
    turns = model.turns
    for f, (factor, back) in enumerate(zip(model.factors, model.backs, strict=True)):
        own = slice(at, at + factor.levels * factor.terms)
        at = own.stop
        if known is None or factor.name not in known.covariances:
            continue
        shape = (len(phi), factor.levels, factor.terms)
        there = known.new.get(factor.name, np.zeros((factor.terms, len(phi))))
        covariances[f], roots[f], found = joined_law(
            effects[:, own].reshape(shape), rest[:, own].reshape(shape),
            back @ known.covariances[factor.name] @ back.T, roots[f], back @ there,
        )  # fmt: skip
        new[factor.name] = turns[f] @ found
    return _Law(
        model.effects(total),
        [t @ c @ t.T for t, c in zip(turns, covariances, strict=True)],
        [t @ r for t, r in zip(turns, roots, strict=True)],
        new,
    )


def _equal(a: Responses, b: Responses) -> bool:
    pairs = ((a.zty, b.zty), (a.hty, b.hty), (a.yty, b.yty))
    return all(np.array_equal(one, other) for one, other in pairs)


def _without_known(
    totals: Totals, rest: Sequence[Responses], known: Sequence[np.ndarray | None]
) -> np.ndarray:
    """Products of responses with each other after known effects have been taken out of them.

    From y_d'y_e, Z'y and what is left of them: (y_d - Zu_d)'(y_e - Zu_e) =
    y_d'y_e - u_d'Z'y_e - u_e'(Z'y_d - Z'Z u_d).
    """
    if all(u is None for u in known):
        return totals.crossed
    where = totals.products.layout
    inner, border = where.inner.target, where.border.target
    out = totals.crossed.copy()

    def against(u: np.ndarray | None, r: Responses) -> np.ndarray | float:
        if u is None:
            return 0.0
        value = np.einsum("ms,ams->as", u[inner], r.zty)
        return value + np.einsum("ms,ams->as", u[border], r.hty[:, : where.border.size])

    for d in range(len(rest)):
        for e in range(d):
            change = against(known[d], totals.responses[e]) + against(known[e], rest[d])
            out[d, e] -= change
            out[e, d] = out[d, e]
    return out
