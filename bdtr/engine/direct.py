"""The direct sampler: posterior draws of a Gaussian multilevel stage without Markov chain warm-up.

phi is drawn from its marginal density, by independence chains where importance weights are good and by short
slice chains where they are not; coefficients and group effects follow from their exact normal. How each
response was drawn is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from bdtr.engine.coefficients.exact import exact_draws, solve
from bdtr.engine.coefficients.joint_draws import (
    ALONE,
    WIDE,
    Shared,
    perturbed_draws,
    residual_sd_within,
)
from bdtr.engine.compiled.streams import children
from bdtr.engine.crossproducts import CrossProducts, Responses, chunks, evenly
from bdtr.engine.density.modes import find_peaks
from bdtr.engine.parameters import Parameters
from bdtr.engine.phi.independence import LEAST_JUDGED, one_draw_each, posterior_chains
from bdtr.engine.phi.proposal_places import gained, learn_gains, learn_shape, learners, shaped
from bdtr.engine.phi.proposals import Ellipses
from bdtr.engine.phi.slices import Pilot, densest, pilot, slice_chains
from bdtr.engine.report import Report
from bdtr.engine.system import Posteriors, Targets

__all__ = [
    "MOST_WAYS",
    "DirectDraws",
    "DirectReport",
    "draw_each",
    "draw_given",
    "draw_posterior",
    "modes",
    "residual_floor",
    "without_residuals",
]

MOST_WAYS = 3  # to place the proposals of a response
_TEACHERS = 8  # responses to learn the shape of the density from
_LUCK = 0.5  # share of good responses below which these are good by luck, not by their place
_CHECKED, _LEAST_CHECKED = 12, 8  # responses whose slice chains are checked
_FEW = 0.05  # share of responses that slice chains have to make before they are checked
_LONG = 10  # length of their chains against a short one
_NEARLY = 0.1  # residual SD within groups, against that without, from which on they say nearly all


@dataclass(frozen=True)
class DirectReport(Report):
    """How draws of phi were made.

    ``independence``, ``slices`` and ``linear`` count draws by independence chains, by slice chains and
    for responses without residuals; ``effective_share`` and ``khat`` are the smallest effective share of
    proposals and the largest Pareto k-hat among the draws by independence chains; ``sweeps`` and
    ``correlation`` the sweeps of a slice chain and its slowest lag-1 correlation per sweep; ``ranks``
    the p-value of their check, that last states of short chains have middling ranks, on average,
    within long chains on the same responses (smallest of all parameters, times their number);
    ``evaluations`` the evaluations of the density per draw.
    """

    independence: int = 0
    slices: int = 0
    linear: int = 0
    effective_share: float = math.nan
    khat: float = math.nan
    sweeps: int = 0
    correlation: float = math.nan
    ranks: float = math.nan
    evaluations: float = 0.0


@dataclass(frozen=True)
class DirectDraws:
    """Draws of the parameters of one stage, first axis the draw.

    ``coefficients`` (draw x term) are those of the centred columns; ``effects`` (draw x effect) are
    the group effects, factor after factor, level-major; ``phi`` is as in the marginal density.
    """

    phi: np.ndarray
    coefficients: np.ndarray
    effects: np.ndarray
    report: DirectReport


def draw_each(
    products: CrossProducts,
    responses: Responses,
    params: Parameters,
    seed: np.random.SeedSequence,
    progress: Callable[[int, int], None] | None = None,
    floor: float | None = None,
    shared: Shared = ALONE,
) -> DirectDraws:
    """One posterior draw for each response: a new data set, its own posterior, one draw from it.

    Parameters
    ----------
    products
        Cross-products of the columns.
    responses
        Cross-products with the responses.
    params
        Meaning and priors of phi.
    seed
        Source of randomness; the result does not depend on the number of threads. Draws made with
        the same seed for similar responses are alike.
    progress
        Called with (responses done, responses in all).
    floor
        SD of the noise that residuals are taken to hold beside what they are; left out: 1e-4 of the size of
        the responses.
    shared
        What the draws share with others that are made with the same seed.

    Returns
    -------
    DirectDraws
        One draw per response.
    """
    floor = residual_floor(products, responses) if floor is None else floor
    posteriors = Posteriors.given(products, responses, params, floor)
    place_seed, chain_seed, slice_seed, normal_seed = children(seed, 4)
    count = responses.count
    phi, share, khat = np.empty((count, params.size)), np.empty(count), np.empty(count)
    good, used = np.zeros(count, dtype=np.bool_), np.zeros(count, dtype=np.int64)
    linear = without_residuals(posteriors)
    todo = np.flatnonzero(~linear)
    _no_residuals(phi, linear, floor)
    left, sources = todo, children(chain_seed, MOST_WAYS)
    ways = _ways(posteriors, todo, place_seed)
    for way, source in zip(ways, sources, strict=False):
        if not 0 < left.size <= way.most * todo.size:
            break
        seeds = source.generate_state(count, np.uint64)
        for at in chunks(left):
            targets = posteriors.of(at)
            drawn = one_draw_each(*way.place(targets), way.judged, seeds[at], targets)
            phi[at], share[at], good[at] = drawn.phi, drawn.share, drawn.good
            used[at] += drawn.used
            khat[at] = drawn.khat
            if progress:
                progress(int(at[-1]) + 1, count)
        if good[left].sum() < _LUCK * left.size:
            good[left] = False
        left = left[~good[left]]
    report = DirectReport(
        int(good.sum()),
        left.size,
        int(linear.sum()),
        float(share[good].min()) if good.any() else math.nan,
        float(khat[good].max()) if good.any() else math.nan,
    )
    if left.size:
        found = _slices(posteriors, phi, left, used, slice_seed, progress)
        report = replace(report, sweeps=found.sweeps, correlation=found.correlation)
        # Once per fit, as passes under further policies are like the first, and where it matters.
        if shared.streams is None and left.size > _FEW * todo.size:
            p = _rank_check(found, posteriors, phi, left, slice_seed)
            report = replace(report, ranks=p)
    drawn = perturbed_draws(products, posteriors.responses, params, phi, normal_seed, shared)
    return DirectDraws(phi, *drawn, replace(report, evaluations=float(used.mean())))


class _Way(NamedTuple):
    """A way to place the proposals of some responses.

    ``place`` takes densities and returns ellipses, and for which of the densities these are known; ``judged``
    is the number of proposals to judge them by, ``most`` the largest share of all responses that it pays for.
    """

    place: Callable[[Targets], tuple[Ellipses, np.ndarray]]
    judged: int
    most: float


def _ways(posteriors: Posteriors, todo: np.ndarray, seed: np.random.SeedSequence) -> Iterator[_Way]:
    """Ways to place proposals: by gains; by climbs; by climbs, of few hard responses, with more proposals.

    The last costs what a slice chain does, but no setting up of these.
    """
    if not todo.size:
        return
    shape_seed, gain_seed = children(seed, 2)
    start, scale = _start(posteriors, int(todo[0]))
    mode, root, found = find_peaks(start, scale, posteriors.of(todo[:1]))
    if found[0]:
        start, scale = mode[0], root[0] @ root[0].T
    teachers = evenly(todo, _TEACHERS)
    taught = posteriors.of(teachers)
    shape = learn_shape(*find_peaks(start, scale, taught), taught, shape_seed)

    def climbed(targets):
        mode, root, found = find_peaks(start, scale, targets)
        return shaped(mode, root, shape, targets), found

    which = learners(todo, posteriors.params.size)
    if which is not None:
        taught = posteriors.of(which)
        gains = learn_gains(*climbed(taught), taught, gain_seed)
        if gains is not None:
            known = gains

            def moved(targets):
                return gained(known, targets), np.ones(targets.count, dtype=np.bool_)

            yield _Way(moved, LEAST_JUDGED, 1.0)
    yield _Way(climbed, 256, 1.0)
    yield _Way(climbed, 1024, 0.05)


def draw_given(
    products: CrossProducts,
    responses: Responses,
    params: Parameters,
    phi: np.ndarray,
    seed: np.random.SeedSequence,
    shared: Shared = ALONE,
) -> DirectDraws:
    """Coefficients and group effects as :func:`draw_each` draws them, phi having been drawn already.

    Parameters
    ----------
    products, responses, params, seed, shared
        As in :func:`draw_each`.
    phi
        Draws of phi (response x phi).

    Returns
    -------
    DirectDraws
    """
    responses = responses.without(products, params.mean)
    seed = children(seed, 4)[-1]
    drawn = perturbed_draws(products, responses, params, phi, seed, shared)
    return DirectDraws(phi, *drawn, DirectReport())


def _slices(posteriors: Posteriors, phi, left, used, seed, progress) -> Pilot:
    """Slice chains for the responses where weights are not good enough.

    They start from the draws there are or, where that is denser, from the middle of the pilot chains, with
    other SDs of their own or not, and reach as far as these are apart: poor proposals may lie where short
    chains with widths of the pilot's would not find back from.
    """
    pilot_seed, chain_seed, _ = children(seed, 3)
    params = posteriors.params
    found = pilot(params, posteriors.of(left[:1]), phi[left[0]], pilot_seed)
    seeds = chain_seed.generate_state(len(phi), np.uint64)
    for at in chunks(left):
        kept = np.empty((at.size, 1, params.size))
        evaluations = np.zeros(at.size, dtype=np.int64)
        targets = posteriors.of(at)
        middle = np.tile(found.start, (at.size, 1))
        width = np.maximum(found.width, np.abs(phi[at] - middle))
        moved = _at_sigma(phi[at], middle[:, :1], params)
        start = densest(np.stack([phi[at], moved, middle]), targets)
        slice_chains(start, width, found.sweeps, seeds[at], targets, kept, evaluations)
        phi[at] = kept[:, 0]
        used[at] += evaluations
        if progress:
            progress(int(at[-1]) + 1, len(phi))
    return found


def _rank_check(found: Pilot, posteriors: Posteriors, phi, left, seed) -> float:
    """Whether the last states of short chains could be states of long ones on the same responses.

    The long chains start elsewhere, where the pilot chains had their middle. If short chains have not
    forgotten their start, their states lie to one side. One rank in (0, 1) for each of a few
    responses; their mean is normal with variance 1/12 over their number.
    """
    # With fewer than eight no p-value could be small.
    params = posteriors.params
    checked = min(_CHECKED, max(_LEAST_CHECKED, left.size // 16))
    at = evenly(left, checked)
    thin = max(1, found.sweeps // 4)
    draws = _LONG * found.sweeps // thin
    kept, used = np.empty((at.size, draws, params.size)), np.zeros(at.size, dtype=np.int64)
    words = children(seed, 3)[-1].generate_state(at.size, np.uint64)
    start = np.tile(found.start, (at.size, 1))
    slice_chains(start, found.width, thin, words, posteriors.of(at), kept, used)
    late = params.folded(kept)[:, draws // 5 :]
    ranks = (late < params.folded(phi[at])[:, None]).mean(axis=1)
    z = np.abs(ranks.mean(axis=0) - 0.5) * math.sqrt(12 * at.size)
    return min(1.0, params.size * math.erfc(float(z.max()) / math.sqrt(2.0)))


def draw_posterior(
    products: CrossProducts,
    responses: Responses,
    params: Parameters,
    chains: int,
    draws: int,
    seed: np.random.SeedSequence,
    progress: Callable[[int, int], None] | None = None,
    common: np.ndarray | None = None,
) -> DirectDraws:
    """Draws from the posterior of one response, chain after chain.

    Where weights are good the chains are independence chains, thinned until neighbours are little
    alike; else they are slice chains.

    Parameters
    ----------
    products, responses, params
        As in :func:`draw_each`; ``responses`` holds one response.
    chains, draws
        Number of independent chains and of draws kept from each.
    seed, progress
        As in :func:`draw_each`.
    common
        As in :class:`bdtr.engine.coefficients.joint_draws.Shared`.

    Returns
    -------
    DirectDraws
        ``chains * draws`` draws, the first chain first.
    """
    floor = residual_floor(products, responses)
    posteriors = Posteriors.given(products, responses, params, floor)
    shape_seed, peak_seed, slice_seed, normal_seed = children(seed, 4)
    start, scale = _start(posteriors, 0)
    one = posteriors.of(np.zeros(1, dtype=np.int64))
    mode, root, found = find_peaks(start, scale, one)
    made = None
    if found[0]:
        shape = learn_shape(mode, root, found, one, shape_seed)
        made = posterior_chains(shaped(mode, root, shape, one), one, chains, draws, peak_seed)
    if made is None:
        phi, report = _posterior_slices(posteriors, mode[0], chains, draws, slice_seed)
    else:
        phi = made.phi
        report = DirectReport(
            chains * draws,
            effective_share=made.share,
            khat=made.khat,
            evaluations=float(made.thin),
        )
    which = np.zeros(len(phi), dtype=np.int64)
    if progress:
        progress(chains * draws, chains * draws)
    shifted = posteriors.responses
    if common is None:
        drawn = exact_draws(products, shifted, params, phi, which, normal_seed)
    else:
        again, shared = shifted.repeated(len(phi)), Shared(common=common)
        drawn = perturbed_draws(products, again, params, phi, normal_seed, shared)
    return DirectDraws(phi, *drawn, report)


def _posterior_slices(
    posteriors: Posteriors, start: np.ndarray, chains: int, draws: int, seed: np.random.SeedSequence
) -> tuple[np.ndarray, DirectReport]:
    params = posteriors.params
    pilot_seed, warm_seed, chain_seed = children(seed, 3)
    each = posteriors.of(np.zeros(chains, dtype=np.int64))
    found = pilot(params, each.of(np.arange(1)), start, pilot_seed)
    thin = found.thin
    used = np.zeros(chains, dtype=np.int64)
    warm, kept = np.empty((chains, 1, params.size)), np.empty((chains, draws, params.size))
    words = warm_seed.generate_state(chains, np.uint64)
    state = np.tile(found.start, (chains, 1))
    slice_chains(state, found.width, 5 * thin + 20, words, each, warm, used)
    words = chain_seed.generate_state(chains, np.uint64)
    slice_chains(warm[:, 0].copy(), found.width, thin, words, each, kept, used)
    report = DirectReport(
        slices=chains * draws,
        sweeps=thin,
        correlation=found.correlation,
        evaluations=float(used.sum() / (chains * draws)),
    )
    return kept.reshape(chains * draws, -1), report


def modes(
    products: CrossProducts, responses: Responses, params: Parameters, floor: float
) -> np.ndarray:
    """Modes of phi of a few responses (response, phi); where none is found, about where it should be.

    Parameters
    ----------
    products, responses, params, floor
        As in :func:`draw_each`.
    """
    posteriors = Posteriors.given(products, responses, params, floor)
    linear, every = without_residuals(posteriors), np.arange(responses.count)
    phi = np.empty((responses.count, params.size))
    _no_residuals(phi, linear, floor)
    for which in every[~linear]:
        start, scale = _start(posteriors, int(which))
        mode, _, found = find_peaks(start, scale, posteriors.of(np.array([which])))
        phi[which] = mode[0] if found[0] else start
    return phi


def _at_sigma(phi: np.ndarray, log_sigma: np.ndarray, params: Parameters) -> np.ndarray:
    """phi with another residual SD of the first stratum, all other SDs as they are."""
    out, less = phi.copy(), phi[..., :1] - log_sigma
    out[..., :1] = log_sigma
    out[..., params.group_sds] *= np.exp(less)
    out[..., params.ratios] += less
    return out


def _start(posteriors: Posteriors, which: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the first climb starts, and a guess of the scale there.

    The residual SD of least squares and moderate group SDs; or, where groups reproduce a response nearly, the
    residual SD within them and the SDs of their unshrunk effects.
    """
    products, responses, params = posteriors.products, posteriors.responses, posteriors.params
    xty = responses.total_xty(products)[:, which]
    p, n = xty.size, int(products.rows.sum())
    xtx = products.xtx
    ridge = xtx + 1e-8 * np.trace(xtx) / max(p, 1) * np.eye(p)
    squares = float(responses.yty[:, which].sum() - xty @ np.linalg.solve(ridge, xty))
    start, scale = np.full(params.size, 0.3), np.full(params.size, 0.01)
    sigma = math.sqrt(max(squares / max(n - p, 1), 4.0 * posteriors.floor**2, 1e-300))
    start[params.correlations.start :] = 0.0
    scale[0] = 1.0 / (2 * max(n - p, 2))
    if params.sds:
        within = float(residual_sd_within(products, responses.only(which), params)[0])
        if 0.0 < within < _NEARLY * sigma:
            relative = np.maximum(_group_sds(posteriors, which) / within, 0.3)
            sigma, start[params.group_sds] = within, relative
            scale[params.group_sds] = (0.1 * relative) ** 2
    start[0] = math.log(sigma)
    return start, np.diag(scale)


def _group_sds(posteriors: Posteriors, which: int) -> np.ndarray:
    """SDs of group effects that explain all that they can, in units of a residual SD of 1."""
    params, where = posteriors.params, posteriors.products.layout
    one, phi = posteriors.of(np.array([which])), np.zeros((1, params.size))
    phi[:, params.group_sds] = WIDE
    effects = solve(phi, one.own, one.zty, one.hty, one.yty, params, where)[1][0]
    found = []
    for factor, at in zip(where.factors, where.offset, strict=False):
        own = effects[at : at + factor.levels * factor.terms].reshape(factor.levels, factor.terms)
        found.append(np.sqrt(np.square(own).mean(axis=0)))
    return np.concatenate(found)


def without_residuals(posteriors: Posteriors) -> np.ndarray:
    """Responses that the common columns reproduce without residuals."""
    products, responses = posteriors.products, posteriors.responses
    xty = responses.total_xty(products)
    p = xty.shape[0]
    if not p:
        return responses.yty.sum(axis=0) <= 0.0
    xtx = products.xtx
    ridge = xtx + 1e-12 * np.trace(xtx) / p * np.eye(p)
    squares = responses.yty.sum(axis=0) - np.einsum("ps,ps->s", xty, np.linalg.solve(ridge, xty))
    return squares <= 2.0 * products.rows.sum() * posteriors.floor**2


def _no_residuals(phi: np.ndarray, which: np.ndarray, floor: float) -> None:
    """phi of responses without residuals: nothing varies but by the floor."""
    phi[which] = 0.0
    phi[which, 0] = math.log(max(floor, 1e-300))


def residual_floor(products: CrossProducts, responses: Responses) -> float:
    """SD of the noise that residuals are taken to hold: 1e-4 of the size of the responses.

    A response that is an exact function of the columns is then reproduced to four digits.
    """
    size = float(responses.yty.sum(axis=0).mean())
    return 1e-4 * math.sqrt(max(size, 1e-300) / max(int(products.rows.sum()), 1))
