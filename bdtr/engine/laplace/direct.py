"""The direct sampler for outcomes that are not Gaussian: draws without Markov chain warm-up.

The mode of phi is found on Laplace's approximation, proposals are placed there and moved to where a pilot's
weights say that the posterior is, and independence chains over them have exact weights
(:mod:`bdtr.engine.laplace.proposals`). Where proposals do not reach all of the posterior, slice chains draw
phi from Laplace's density, and exact weights correct them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, ndtri

from bdtr.engine.compiled.kernels import link
from bdtr.engine.compiled.streams import children
from bdtr.engine.laplace.climb import make_room
from bdtr.engine.laplace.density import Posterior, laplace
from bdtr.engine.laplace.gradient import density_and_gradient
from bdtr.engine.laplace.likelihoods import FOLDED, ORDINAL, STUDENT_T
from bdtr.engine.laplace.modes import turned_effects
from bdtr.engine.laplace.proposals import Places, Proposed, completed, effects_of, propose
from bdtr.engine.laplace.slices import slice_draws
from bdtr.engine.layout import Layout
from bdtr.engine.phi.importance_weights import effective, khat_limit, pareto_k
from bdtr.engine.phi.independence import Kept, kept_by_chains
from bdtr.engine.report import Report

__all__ = [
    "LaplaceDraws",
    "LaplaceReport",
    "correct_draws",
    "draw_laplace",
    "first_places",
    "trusted",
]

_SD = 0.5  # of group terms and dispersions, where the search for the mode begins
_FREEDOM = 4.0  # and degrees of freedom
_TIGHT = 1e-16  # Newton decrement of climbs whose results are compared
_HEAVY, _LIGHT = 7, 20  # degrees of freedom of first and of adapted proposals
_MOST_FOLDED = 6
_FAR = 6.0  # SDs from zero from which an SD is not folded
_PILOTS = (300, 700, 1000)
_GOOD = 0.8  # effective share of a pilot from which on another one does not pay
_KEPT = 20_000_000  # group effects kept with proposals, 160 MB: more of them are drawn again
_NOISE = 0.25  # variance of the log of an estimate of the site integrals that is small enough
_LEAST_PAIRS, _MOST_PAIRS = 2, 32
_HOPELESS = 0.01  # effective share of pilots below which other samplers are faster
_ATTEMPTS = 2
_MOST_ERROR = 1.5  # SD of log(exact / Laplace) up to which corrected draws may be good enough
_LEAST_SHARE = 0.2  # effective share of corrected draws
_WARM, _THIN = 20, 2  # sweeps of slice chains
_REPORTS = 10  # of their progress
_TRIES = 4  # coefficients and effects tried for a phi that NUTS has drawn
# Share of its draws, and how many of them, for which a chain may stay where it stays longest: effects of
# groups are drawn along, of which one may be far out.
_STUCK, _STAYS = 0.01, 5
_MOST_THINNED, _CHEAP = 16, 4_000  # proposals for one draw, unless all are no more than so many


@dataclass(frozen=True)
class LaplaceReport(Report):
    """How draws were made.

    ``independence`` and ``slices`` count draws by independence and by slice chains, with ``sweeps`` from one
    draw to the next; ``effective_share`` and ``khat`` are the effective share and the Pareto k-hat of the
    weights of proposals, or of draws from Laplace's density; ``laplace_error`` is the SD of the log of exact
    over Laplace's likelihood of the group effects; ``pairs`` the pairs of draws for the integral of a block;
    ``evaluations`` the proposals, or densities, for each draw.
    """

    independence: int = 0
    slices: int = 0
    sweeps: int = 0
    effective_share: float = math.nan
    khat: float = math.nan
    laplace_error: float = math.nan
    pairs: int = 1
    evaluations: float = 0.0


@dataclass(frozen=True)
class LaplaceDraws:
    """Draws (first axis) of phi, of coefficients, and of group effects, factor after factor and level by
    level."""

    phi: np.ndarray
    coefficients: np.ndarray
    effects: np.ndarray
    report: LaplaceReport


def draw_laplace(
    posterior: Posterior,
    where: Layout,
    chains: int,
    draws: int,
    seed: np.random.SeedSequence,
    progress: Callable[[int, int], None] | None = None,
) -> LaplaceDraws | None:
    """Draws from the posterior, chain after chain.

    Parameters
    ----------
    posterior
        Model and data.
    where
        Layout of the group effects.
    chains, draws
        Number of independent chains and of draws kept from each.
    seed
        Source of randomness; the result does not depend on the number of threads.
    progress
        Called with (draws done, draws in all).

    Returns
    -------
    LaplaceDraws or None
        None where weights are not good enough: other samplers have to take over.
    """
    pilot_seed, level_seed, *chain_seeds, slice_seed = children(seed, 3 + _ATTEMPTS)
    places = first_places(posterior)
    if places is None:
        return None
    places, pairs, share = _adapted(posterior, places, pilot_seed)
    if share < _HOPELESS:
        return None
    count = chains * draws
    at_once = _MOST_THINNED // 4 * count * posterior.cells.first.size < _KEPT
    for source in chain_seeds:
        kept, every, word = _attempt(
            posterior, places, pairs, chains, draws, source, at_once, progress
        )
        if kept is not None:
            break
        # What all of these have shown is the pilot of the next attempt, from heavier tails.
        if not np.isfinite(every.weights).any():
            return None
        places = _moved(places, [(float(effective(every.weights)), every)], _HEAVY)
        pairs = min(_MOST_PAIRS, 2 * pairs)
    else:
        given = posterior, where, places, pairs, every
        return _by_slices(*given, chains, draws, slice_seed, progress)
    if at_once:
        v = every.effects[kept.which]
    else:
        distinct, again = np.unique(kept.which, return_inverse=True)
        v = effects_of(posterior, places, pairs, word, distinct)[again]
    phi, c = every.phi[kept.which], every.c[kept.which]
    effects = _effects(posterior, where, phi, v, c, level_seed)
    if progress:
        progress(count, count)
    report = LaplaceReport(
        independence=count,
        effective_share=kept.share,
        khat=kept.khat,
        laplace_error=_spread(every.ratio, every.weights),
        pairs=pairs,
        evaluations=float(kept.thin),
    )
    return LaplaceDraws(phi, c[:, posterior.cells.border :], effects, report)


def _attempt(
    posterior: Posterior,
    places: Places,
    pairs: int,
    chains: int,
    draws: int,
    seed: np.random.SeedSequence,
    effects: bool,
    progress: Callable[[int, int], None] | None,
) -> tuple[Kept | None, Proposed, np.uint64]:
    """What chains keep of proposals, if anything; all proposals; and the seed of their streams."""
    accept_seed, stream_seed = children(seed, 2)
    word, count = stream_seed.generate_state(1, np.uint64)[0], chains * draws
    made: list[Proposed] = []

    def more(first: int, wanted: int) -> np.ndarray:
        made.append(propose(posterior, places, pairs, word, first, wanted, effects))
        if progress:
            progress(min(count, (first + wanted) // 2), count)
        return made[-1].weights

    rng = np.random.default_rng(accept_seed)
    kept = kept_by_chains(
        more, chains, draws, rng, _MOST_THINNED, _CHEAP, max(_STUCK, _STAYS / draws)
    )
    return kept, Proposed(*(np.concatenate(parts) for parts in zip(*made, strict=True))), word


def _by_slices(
    posterior: Posterior,
    where: Layout,
    places: Places,
    pairs: int,
    every: Proposed,
    chains: int,
    draws: int,
    seed: np.random.SeedSequence,
    progress: Callable[[int, int], None] | None,
) -> LaplaceDraws | None:
    """Draws by slice chains, corrected by exact weights; None where these are not to be trusted either."""
    if not posterior.size or not _spread(every.ratio, every.weights) < _MOST_ERROR:
        return None
    word_seed, start_seed, correct_seed = children(seed, 3)
    shares = _shares(every.weights)
    width = 2.5 * np.sqrt(np.diag(_moments(every.phi, shares)[1]))
    start = np.random.default_rng(start_seed).choice(len(shares), chains, p=shares)
    edges = np.linspace(0, draws, _REPORTS + 1).astype(int)
    words = word_seed.generate_state((1 + _REPORTS) * chains, np.uint64).reshape(-1, chains)
    given, width = (posterior, places.mode), np.maximum(width, 1e-6)
    # A few sweeps on Laplace's density, as starts are of the exact one.
    state, used = slice_draws(*given, every.phi[start], width, 1, _WARM, words[0])
    parts = []
    for at, count, own in zip(edges[1:], np.diff(edges), words[1:], strict=True):
        if count:
            state, more = slice_draws(*given, state[:, -1], width, int(count), _THIN, own)
            parts.append(state)
            used += more
        if progress:
            progress(chains * int(at) // 2, chains * draws)
    flat = np.concatenate(parts, axis=1).reshape(chains * draws, -1)
    found = correct_draws(posterior, where, places, flat, chains, correct_seed, pairs)
    if found is None or not trusted(found.report.khat, found.report.effective_share, len(flat)):
        return None
    report = replace(found.report, slices=len(flat), sweeps=_THIN, evaluations=used / len(flat))
    return replace(found, report=report)


def trusted(khat: float, share: float, draws: int) -> bool:
    """Whether the weights that corrected draws from Laplace's density are good enough to trust."""
    return khat < khat_limit(draws) and share > _LEAST_SHARE


def correct_draws(
    posterior: Posterior,
    where: Layout,
    places: Places,
    phi: np.ndarray,
    chains: int,
    seed: np.random.SeedSequence,
    pairs: int = _LEAST_PAIRS,
) -> LaplaceDraws | None:
    """Draws of all parameters from draws of phi from Laplace's density, by resampling with exact weights.

    Each chain is resampled systematically in its own order, so that neighbours stay neighbours.

    Parameters
    ----------
    posterior, where, seed
        As in :func:`draw_laplace`.
    places
        From :func:`first_places`.
    phi
        Draws of phi, the first chain first.
    chains
        Number of chains.
    pairs
        Pairs of draws for the integral of a block.

    Returns
    -------
    LaplaceDraws or None
        None where no draw of a chain has a weight.
    """
    stream_seed, level_seed, pick_seed = children(seed, 3)
    word = stream_seed.generate_state(1, np.uint64)[0]
    made = completed(posterior, places, pairs, _TRIES, word, phi)
    per, rng = len(phi) // chains, np.random.default_rng(pick_seed)
    which = []
    for chain in range(chains):
        weights = made.weights[chain * per : (chain + 1) * per]
        if not np.isfinite(weights).any():
            return None
        edges = np.cumsum(_shares(np.nan_to_num(weights, nan=-np.inf)))
        at = np.searchsorted(edges, (np.arange(per) + rng.random()) / per)
        which.append(chain * per + np.minimum(at, per - 1))
    kept = np.concatenate(which)
    effects = _effects(posterior, where, phi[kept], made.effects[kept], made.c[kept], level_seed)
    report = LaplaceReport(
        effective_share=float(effective(made.weights)) / len(phi),
        khat=float(pareto_k(made.weights)),
        laplace_error=_spread(made.ratio, made.weights),
        pairs=pairs,
        evaluations=float(_TRIES),
    )
    coefficients = made.c[kept][:, posterior.cells.border :]
    return LaplaceDraws(phi[kept], coefficients, effects, report)


def _effects(
    posterior: Posterior,
    where: Layout,
    phi: np.ndarray,
    v: np.ndarray,
    c: np.ndarray,
    seed: np.random.SeedSequence,
) -> np.ndarray:
    """Effects u = T v (draw x effect) of all levels; those of levels without rows from their distribution."""
    full = np.random.default_rng(seed).standard_normal((len(phi), where.effects))
    full[:, where.inner.target] = v
    full[:, where.border.target] = c[:, : where.border.size]
    return turned_effects(posterior, where, phi, full)


def first_places(posterior: Posterior) -> Places | None:
    """Proposals at the mode of phi with the curvature there; None where the climb fails."""
    link("laplace_")
    room, size = make_room(posterior.cells), posterior.size

    def downhill(phi: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = density_and_gradient(phi, posterior, room, _TIGHT)
        return (-value, -gradient) if np.isfinite(value) else (1e300, np.zeros(size))

    centre, sides = _start(posterior), posterior.sides
    if size:
        centre = minimize(downhill, centre, jac=True, method="BFGS", options={"gtol": 1e-4}).x
        centre[sides] = np.abs(centre[sides])
    if not np.isfinite(laplace(centre, posterior, room, _TIGHT)):
        return None
    mode = room.w.copy()
    curvature, moves = np.zeros((size, size)), np.zeros((mode.size, size))
    for i in range(size):
        apart = np.zeros(size)
        apart[i] = 1e-4
        above = density_and_gradient(centre + apart, posterior, room, _TIGHT)[1]
        moves[:, i] = room.w
        below = density_and_gradient(centre - apart, posterior, room, _TIGHT)[1]
        moves[:, i] = (moves[:, i] - room.w) / 2e-4
        curvature[i] = (below - above) / 2e-4
    covariance = _inverse(0.5 * (curvature + curvature.T))
    sd = np.sqrt(np.diag(covariance))
    scale = np.where(sides, sd, 0.0)
    scale[len(posterior.sd) : len(posterior.sd) + posterior.alpha.size] = -1.0
    blank = Places(
        centre, covariance, covariance, np.zeros(0, np.int64), scale, _HEAVY, centre, mode,
        np.nan_to_num(moves), np.zeros(posterior.fixed), np.eye(posterior.fixed),
    )  # fmt: skip
    apart = 1e-6
    slope = (_drawn_as(blank, centre + apart) - _drawn_as(blank, centre - apart)) / (2 * apart)
    return _placed(blank, _drawn_as(blank, centre), covariance * np.outer(slope, slope), _HEAVY)


def _start(posterior: Posterior) -> np.ndarray:
    """Where the search for the mode of phi begins."""
    phi, at = np.zeros(posterior.size), len(posterior.sd) + posterior.alpha.size
    kind, first, second = posterior.sd.T
    scale = np.where(kind == 1, second, first)  # a half-t prior has its degrees of freedom first
    phi[: len(posterior.sd)] = _SD * np.minimum(scale, 1.0)
    if FOLDED[posterior.cells.family]:
        phi[at:] = _SD
    elif posterior.cells.family == ORDINAL:
        phi[at:] = posterior.shape[:, 0]
    elif posterior.cells.family == STUDENT_T:
        phi[-1] = np.log(_FREEDOM - 1.0)
    return phi


def _drawn_as(places: Places, phi: np.ndarray) -> np.ndarray:
    """phi (.., phi) as proposals are drawn."""
    sds = places.scale > 0
    out = np.where(sds, np.arcsinh(phi / np.where(sds, places.scale, 1.0)), phi)
    scores = -np.sign(phi) * ndtri(expit(-2.0 * np.abs(phi)))
    return np.where(places.scale < 0, scores, out)


def _inverse(curvature: np.ndarray) -> np.ndarray:
    """Covariance of a density with this curvature; directions that are flat or bent upwards are taken as
    wide as the widest of a prior."""
    if not curvature.size or not np.isfinite(curvature).all():
        return np.eye(len(curvature))
    values, vectors = np.linalg.eigh(curvature)
    return (vectors / np.maximum(values, 0.5)) @ vectors.T


def _placed(places: Places, centre: np.ndarray, covariance: np.ndarray, freedom: int) -> Places:
    """The same elsewhere."""
    if not centre.size:
        return places
    root = np.linalg.cholesky(covariance)
    sds = np.flatnonzero(places.scale > 0)
    ratio = centre[sds] / np.linalg.norm(root[sds], axis=1)
    near = sds[np.argsort(ratio)][: min(_MOST_FOLDED, int((ratio < _FAR).sum()))]
    return places._replace(
        centre=centre,
        root=root,
        inverse_root=np.linalg.inv(root),
        folds=np.sort(near),
        freedom=freedom,
    )


def _adapted(
    posterior: Posterior, places: Places, seed: np.random.SeedSequence
) -> tuple[Places, int, float]:
    """Proposals moved to the weighted moments of pilots', pairs of draws for the blocks' integrals, and the
    effective share of the best pilot's proposals."""
    pairs, best, share = _LEAST_PAIRS, places, -1.0
    pilots: list[tuple[float, Proposed]] = []
    for count, source in zip(_PILOTS, children(seed, len(_PILOTS)), strict=True):
        word = source.generate_state(1, np.uint64)[0]
        pilot = propose(posterior, places, pairs, word, 0, count)
        if not np.isfinite(pilot.weights).any():
            break
        noise = _spread(pilot.ratio, pilot.weights) ** 2
        if noise > _NOISE:
            pairs = min(_MOST_PAIRS, math.ceil(pairs * noise / _NOISE))
        size = float(effective(pilot.weights))
        if size > share * count:
            best, share = places, size / count
        if size > _GOOD * count:
            break
        pilots.append((size, pilot))
        places = _moved(places, pilots)
    return best, pairs, share


def _moved(
    places: Places, pilots: Sequence[tuple[float, Proposed]], freedom: int = _LIGHT
) -> Places:
    """Proposals with the weighted moments of all pilots', held towards what they were."""
    size = sum(effective for effective, _ in pilots)
    weights = np.concatenate([_shares(pilot.weights) * own / size for own, pilot in pilots])
    some = weights > 0  # proposals without a weight are not complete
    weights = weights[some]
    y = _drawn_as(places, np.concatenate([pilot.phi for _, pilot in pilots])[some])
    zeta = np.concatenate([pilot.zeta for _, pilot in pilots])[some]
    keep = size / (size + 2.0 * (places.centre.size + 1))
    centre, covariance = _moments(y, weights)
    before = places.root @ places.root.T
    covariance = keep * covariance * (freedom - 2) / freedom * 1.1 + (1.0 - keep) * before
    out = _placed(places, places.centre + keep * (centre - places.centre), covariance, freedom)
    trust = size / (size + 4.0 * (len(places.shift) + 1))
    shift, spread = _moments(zeta, weights)
    stretch = np.linalg.cholesky(trust * spread + (1.0 - trust) * np.eye(len(shift)))
    return out._replace(shift=trust * shift, stretch=stretch)


def _shares(weights: np.ndarray) -> np.ndarray:
    share = np.exp(weights - weights.max())
    return share / share.sum()


def _moments(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = weights @ values
    apart = values - mean
    return mean, (apart * weights[:, None]).T @ apart


def _spread(ratio: np.ndarray, weights: np.ndarray) -> float:
    """SD of the log ratios, over the posterior."""
    some = np.isfinite(weights) & np.isfinite(ratio)
    if not some.any():
        return math.inf
    share = np.exp(weights[some] - weights[some].max())
    mean = np.average(ratio[some], weights=share)
    return math.sqrt(float(np.average((ratio[some] - mean) ** 2, weights=share)))
