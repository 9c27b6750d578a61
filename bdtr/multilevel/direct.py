"""The direct sampler: posterior draws of a Gaussian multilevel stage without Markov chain warm-up.

phi is drawn from its marginal density, by importance sampling where the weights are good and by short
slice chains where they are not; coefficients and group effects follow from their exact normal. How each
response was drawn is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np

from bdtr.multilevel.crossproducts import CrossProducts, Responses
from bdtr.multilevel.exact import exact_draws
from bdtr.multilevel.importance import (
    find_peaks,
    importance_draws,
    learn_shape,
    proposals,
    reshaped,
)
from bdtr.multilevel.parameters import Parameters
from bdtr.multilevel.perturbed import ErrorRoots, Streams, error_roots, perturbed_draws
from bdtr.multilevel.randomness import children
from bdtr.multilevel.slices import pilot, slice_chains
from bdtr.multilevel.system import Priors, system
from bdtr.multilevel.weights import effective, khat_limit, pareto_k

__all__ = [
    "DirectDraws",
    "DirectReport",
    "draw_each",
    "draw_given",
    "draw_posterior",
    "residual_floor",
]

_LEARNERS = 8  # responses to learn the shape of the density from
_CHUNK = 128  # responses between two reports of progress
_MOST_THINNED = 8  # proposals for one draw of a posterior beyond which slice chains are better
_LUCK = 0.5  # share of good responses below which these are good by luck, not by their shape
_STUCK = 0.02  # share of a chain's draws for which it may stay where the weight is largest
_CHECKED, _LEAST_CHECKED = 12, 8  # responses whose slice chains are checked
_LONG = 10  # length of their chains against a short one
_STICKY = 0.08  # lag-1 correlation that kept draws of an independence chain may have


@dataclass(frozen=True)
class DirectReport:
    """How draws of phi were made.

    ``importance``, ``slices`` and ``linear`` count draws by importance sampling, by slice chains and
    for responses without residuals; ``effective`` and ``khat`` are the smallest effective number of
    proposals and the largest Pareto k-hat among the draws by importance sampling; ``sweeps`` and
    ``correlation`` the sweeps of a slice chain and its slowest lag-1 correlation per sweep; ``ranks``
    the p-value of their check, that last states of short chains have middling ranks, on average,
    within long chains on the same responses (smallest of all parameters, times their number);
    ``evaluations`` the evaluations of the density per draw.
    """

    importance: int = 0
    slices: int = 0
    linear: int = 0
    effective: float = math.nan
    khat: float = math.nan
    sweeps: int = 0
    correlation: float = math.nan
    ranks: float = math.nan
    evaluations: float = 0.0

    def attributes(self) -> dict[str, float]:
        """The figures that apply, as plain numbers."""
        return {
            k: v for k, v in asdict(self).items() if not (isinstance(v, float) and math.isnan(v))
        }


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
    streams: Streams | None = None,
    floor: float | None = None,
    roots: ErrorRoots | None = None,
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
    streams
        How each draw combines streams of normal numbers, for draws that are joint with others made
        with the same seed.
    floor
        Smallest residual SD that is looked at; left out: 1e-4 of the size of the responses.
    roots
        From :func:`bdtr.multilevel.perturbed.error_roots`, if they are at hand.

    Returns
    -------
    DirectDraws
        One draw per response.
    """
    floor = residual_floor(products, responses) if floor is None else floor
    responses = responses.without(products, params.mean)
    shape_seed, peak_seed, slice_seed, normal_seed = children(seed, 4)
    own, priors = system(products, params), Priors(params.sd_prior, params.alpha, floor)
    count = responses.count
    phi = np.empty((count, params.size))
    ess, khat, good = np.empty(count), np.empty(count), np.zeros(count, dtype=np.bool_)
    used = np.zeros(count, dtype=np.int64)
    linear = _linear(products, responses, floor)
    todo = np.flatnonzero(~linear)
    _no_residuals(phi, linear, floor)
    if todo.size:
        start, scale = _start(products, responses, params, floor, int(todo[0]))
        peaks, found = find_peaks(start, scale, own, priors, responses.each(todo[:1]))
        if found[0]:
            start, scale = peaks.mode[0], peaks.root[0] @ peaks.root[0].T
        learners = np.unique(todo[np.linspace(0, todo.size - 1, _LEARNERS).astype(int)])
        shape = learn_shape(start, scale, own, priors, responses.each(learners), shape_seed)
        seeds = peak_seed.generate_state(count, np.uint64)
        for at in _chunks(todo):
            drawn = importance_draws(
                start, scale, shape, seeds[at], own, priors, responses.each(at)
            )
            phi[at], ess[at], khat[at], good[at], used[at] = drawn
            if progress:
                progress(int(at[-1]) + 1, count)
    if good.sum() < _LUCK * todo.size:
        good[:] = False
    left = np.flatnonzero(~linear & ~good)
    report = DirectReport(
        int(good.sum()),
        left.size,
        int(linear.sum()),
        float(ess[good].min()) if good.any() else math.nan,
        float(khat[good].max()) if good.any() else math.nan,
    )
    if left.size:
        found = _slices(responses, params, own, priors, phi, left, used, slice_seed, progress)
        report = replace(report, sweeps=found.sweeps, correlation=found.correlation)
        if streams is None:  # once per fit: passes under further policies are like the first
            p = _rank_check(found, responses, params, own, priors, phi, left, slice_seed)
            report = replace(report, ranks=p)
    roots = error_roots(products) if roots is None else roots
    drawn = perturbed_draws(products, responses, params, roots, phi, normal_seed, streams)
    return DirectDraws(phi, *drawn, replace(report, evaluations=float(used.mean())))


def draw_given(
    products: CrossProducts,
    responses: Responses,
    params: Parameters,
    phi: np.ndarray,
    seed: np.random.SeedSequence,
    streams: Streams | None = None,
    roots: ErrorRoots | None = None,
) -> DirectDraws:
    """Coefficients and group effects as :func:`draw_each` draws them, phi having been drawn already.

    Parameters
    ----------
    products, responses, params, seed, streams, roots
        As in :func:`draw_each`.
    phi
        Draws of phi (response x phi).

    Returns
    -------
    DirectDraws
    """
    responses = responses.without(products, params.mean)
    seed = children(seed, 4)[-1]
    roots = error_roots(products) if roots is None else roots
    drawn = perturbed_draws(products, responses, params, roots, phi, seed, streams)
    return DirectDraws(phi, *drawn, DirectReport())


def _slices(responses, params, own, priors, phi, left, used, seed, progress):
    """Slice chains, from the importance draws, for the responses where these are not good enough."""
    pilot_seed, chain_seed, _ = children(seed, 3)
    phi[left] = _inside(phi[left], params, priors)
    found = pilot(own, priors, params, responses.each(left[:1]), phi[left[0]], pilot_seed)
    seeds = chain_seed.generate_state(responses.count, np.uint64)
    for at in _chunks(left):
        kept = np.empty((at.size, 1, params.size))
        evaluations = np.zeros(at.size, dtype=np.int64)
        zty, hty, yty = responses.each(at)
        slice_chains(
            phi[at], found.width, found.sweeps, 1, seeds[at], own, priors, zty, hty, yty,
            kept, evaluations,
        )  # fmt: skip
        phi[at] = kept[:, 0]
        used[at] += evaluations
        if progress:
            progress(int(at[-1]) + 1, responses.count)
    return found


def _rank_check(found, responses, params, own, priors, phi, left, seed) -> float:
    """Whether the last states of short chains could be states of long ones on the same responses.

    The long chains start elsewhere, where the pilot chains had their middle. If short chains have not
    forgotten their start, their states lie to one side. One rank in (0, 1) for each of a few
    responses; their mean is normal with variance 1/12 over their number.
    """
    # With fewer than eight no p-value could be small.
    checked = min(_CHECKED, max(_LEAST_CHECKED, left.size // 16))
    at = np.unique(left[np.linspace(0, left.size - 1, checked).astype(int)])
    thin = max(1, found.sweeps // 4)
    draws = _LONG * found.sweeps // thin
    kept, used = np.empty((at.size, draws, params.size)), np.zeros(at.size, dtype=np.int64)
    words = children(seed, 3)[-1].generate_state(at.size, np.uint64)
    start = _inside(np.tile(found.start, (at.size, 1)), params, priors)
    zty, hty, yty = responses.each(at)
    slice_chains(start, found.width, thin, draws, words, own, priors, zty, hty, yty, kept, used)
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
) -> DirectDraws:
    """Draws from the posterior of one response, chain after chain.

    Where weights are good the chains are independence Metropolis chains (Tierney 1994, Ann. Statist.
    22(4)) with the importance proposals, thinned until neighbours are nearly independent; else they
    are slice chains.

    Parameters
    ----------
    products, responses, params
        As in :func:`draw_each`; ``responses`` holds one response.
    chains, draws
        Number of independent chains and of draws kept from each.
    seed, progress
        As in :func:`draw_each`.

    Returns
    -------
    DirectDraws
        ``chains * draws`` draws, the first chain first.
    """
    floor = residual_floor(products, responses)
    responses = responses.without(products, params.mean)
    shape_seed, peak_seed, slice_seed, normal_seed = children(seed, 4)
    own, priors = system(products, params), Priors(params.sd_prior, params.alpha, floor)
    start, scale = _start(products, responses, params, floor, 0)
    one = responses.each(np.zeros(1, dtype=np.int64))
    peaks, found = find_peaks(start, scale, own, priors, one)
    made = None
    if found[0]:
        scale = peaks.root[0] @ peaks.root[0].T
        shape = learn_shape(peaks.mode[0], scale, own, priors, one, shape_seed)
        turned = reshaped(peaks, shape, params.sds)
        made = _independence_chains(turned, own, priors, one, chains, draws, peak_seed)
    if made is None:
        start = _inside(peaks.mode[0], params, priors)
        made = _posterior_slices(responses, params, own, priors, start, chains, draws, slice_seed)
    phi, report = made
    which = np.zeros(len(phi), dtype=np.int64)
    if progress:
        progress(chains * draws, chains * draws)
    drawn = exact_draws(products, responses, params, phi, which, normal_seed)
    return DirectDraws(phi, *drawn, report)


def _independence_chains(peaks, own, priors, one, chains, draws, seed):
    """Independence Metropolis chains, or None where the weights are not good enough."""
    accept_seed, stream_seed = children(seed, 2)
    count, rng = chains * draws, np.random.default_rng(accept_seed)
    word = stream_seed.generate_state(1, np.uint64)
    made = proposals(peaks, word, 1, np.array([count]), own, priors, one)
    phi, weights = made[0][0], made[1][0]
    khat = float(pareto_k(weights))
    if not khat < khat_limit(count):
        return None
    report = DirectReport(count, effective=float(effective(weights)), khat=khat)
    # Neighbours of an independence chain are as correlated as moves are rejected.
    accepted = np.exp(np.minimum(rng.permutation(weights) - weights, 0.0))
    share = np.exp(weights - weights.max())
    rejected = float(np.clip(1.0 - accepted @ share / share.sum(), 1e-9, 0.999))
    stuck = math.ceil(_longest_stay(weights) / (_STUCK * draws))
    thin = max(stuck, math.ceil(math.log(_STICKY) / math.log(rejected)))
    if thin > _MOST_THINNED:
        return None
    if thin > 1:
        more = proposals(peaks, word, 1 + count, np.array([count * (thin - 1)]), own, priors, one)
        phi = np.concatenate([phi, more[0][0]])
        weights = np.concatenate([weights, more[1][0]])
        if _longest_stay(weights) > 2.0 * _STUCK * draws * thin:  # a larger weight has turned up
            return None
    phi, weights = phi.reshape(chains, draws * thin, -1), weights.reshape(chains, draws * thin)
    kept = _metropolis(weights, rng)[:, thin - 1 :: thin]
    out = np.take_along_axis(phi, kept[:, :, None], axis=1).reshape(count, -1)
    return out, replace(report, evaluations=float(thin))


def _longest_stay(weights: np.ndarray) -> float:
    """Expected steps that an independence chain stays at the proposal with the largest weight."""
    return float(1.0 / np.exp(weights - weights.max()).mean())


def _metropolis(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Places (chain x step) of the proposals where independence chains stand after each step.

    Each chain starts at a draw by resampling from its first proposals, where it belongs.
    """
    chains, steps = weights.shape
    first = weights[:, : min(steps, 100)]
    at = (first + rng.gumbel(size=first.shape)).argmax(axis=1)
    level = np.log(rng.random((chains, steps)))
    kept, rows = np.empty((chains, steps), dtype=np.int64), np.arange(chains)
    for i in range(steps):
        at = np.where(level[:, i] < weights[:, i] - weights[rows, at], i, at)
        kept[:, i] = at
    return kept


def _posterior_slices(responses, params, own, priors, start, chains, draws, seed):
    pilot_seed, warm_seed, chain_seed = children(seed, 3)
    first = responses.each(np.zeros(1, dtype=np.int64))
    found = pilot(own, priors, params, first, start, pilot_seed)
    thin = found.thin
    zty, hty, yty = responses.each(np.zeros(chains, dtype=np.int64))
    used = np.zeros(chains, dtype=np.int64)
    warm, kept = np.empty((chains, 1, params.size)), np.empty((chains, draws, params.size))
    words = warm_seed.generate_state(chains, np.uint64)
    state = np.tile(found.start, (chains, 1))
    slice_chains(
        state, found.width, 5 * thin + 20, 1, words, own, priors, zty, hty, yty, warm, used
    )
    words = chain_seed.generate_state(chains, np.uint64)
    slice_chains(
        warm[:, 0].copy(), found.width, thin, draws, words, own, priors, zty, hty, yty, kept, used
    )
    report = DirectReport(
        slices=chains * draws,
        sweeps=thin,
        correlation=found.correlation,
        evaluations=float(used.sum() / (chains * draws)),
    )
    return kept.reshape(chains * draws, -1), report


def _chunks(which: np.ndarray):
    for at in range(0, which.size, _CHUNK):
        yield which[at : at + _CHUNK]


def _inside(phi: np.ndarray, params: Parameters, priors: Priors) -> np.ndarray:
    """The same with residual SDs above the floor, where chains can start."""
    out = phi.copy()
    out[..., 0] = np.maximum(out[..., 0], math.log(2.0 * max(priors.floor, 1e-300)))
    lowest = math.log(2.0 * max(priors.floor, 1e-300)) - out[..., :1]
    out[..., params.ratios] = np.maximum(out[..., params.ratios], lowest)
    return out


def _start(products, responses, params, floor, which) -> tuple[np.ndarray, np.ndarray]:
    """Where the first climb starts: residual SD of least squares, moderate group SDs."""
    xty = responses.total_xty(products)[:, which]
    p, n = xty.size, int(products.rows.sum())
    xtx = products.xtx
    ridge = xtx + 1e-8 * np.trace(xtx) / max(p, 1) * np.eye(p)
    squares = float(responses.yty[:, which].sum() - xty @ np.linalg.solve(ridge, xty))
    start, scale = np.full(params.size, 0.3), np.full(params.size, 0.01)
    start[0] = 0.5 * math.log(max(squares / max(n - p, 1), 4.0 * floor**2, 1e-300))
    start[params.correlations.start :] = 0.0
    scale[0] = 1.0 / (2 * max(n - p, 2))
    return start, np.diag(scale)


def _linear(products, responses, floor) -> np.ndarray:
    """Responses that the common columns reproduce without residuals."""
    xty = responses.total_xty(products)
    p = xty.shape[0]
    if not p:
        return responses.yty.sum(axis=0) <= 0.0
    xtx = products.xtx
    ridge = xtx + 1e-12 * np.trace(xtx) / p * np.eye(p)
    squares = responses.yty.sum(axis=0) - np.einsum("ps,ps->s", xty, np.linalg.solve(ridge, xty))
    return squares <= products.rows.sum() * floor**2


def _no_residuals(phi: np.ndarray, which: np.ndarray, floor: float) -> None:
    """phi of responses without residuals: nothing varies but by the floor."""
    phi[which] = 0.0
    phi[which, 0] = math.log(max(floor, 1e-300))


def residual_floor(products: CrossProducts, responses: Responses) -> float:
    """Smallest residual SD that is looked at: 1e-4 of the size of the responses.

    A response that is an exact function of the columns would drive the residual SD to zero and the
    density to infinity; held at the floor it is reproduced to four digits.
    """
    size = float(responses.yty.sum(axis=0).mean())
    return 1e-4 * math.sqrt(max(size, 1e-300) / max(int(products.rows.sum()), 1))
