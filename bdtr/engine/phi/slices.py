"""Slice chains on the marginal density: slower than independence chains, right for any shape.

Univariate slice sampling with stepping out and shrinkage (Neal 2003, Ann. Statist. 31(3)) of each part
of phi in turn. Pilot chains on one response find where the mass is, how wide it is and how many sweeps
a chain needs; every response then has a chain of its own from there. SDs near zero need no special care:
the density is folded there, not unbounded. Relative SDs go with 1 / sigma where residuals all but vanish,
so a sweep ends with a move of sigma while all other SDs are held.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bdtr.engine.compiled.kernels import kernel
from bdtr.engine.compiled.streams import seeded, uniform
from bdtr.engine.density.elimination import eliminate
from bdtr.engine.density.marginal import reduced_density
from bdtr.engine.parameters import Parameters
from bdtr.engine.system import Response, Targets, make_room
from bdtr.results.threads import spread

__all__ = ["Pilot", "densest", "pilot", "slice_chains"]

_PILOT_CHAINS, _PILOT_SWEEPS = 4, (25, 60)
_LEAST_SWEEPS, _LEAST_THIN, _MOST_SWEEPS = 10, 2, 60
_STEPS_OUT = 8


@dataclass(frozen=True)
class Pilot:
    """Where the chains start, their slice widths, and the slowest lag-1 correlation per sweep."""

    start: np.ndarray
    width: np.ndarray
    correlation: float

    @property
    def sweeps(self) -> int:
        """Sweeps after which a chain has forgotten all but 1 % of its start."""
        return min(max(self._until(0.01), _LEAST_SWEEPS), _MOST_SWEEPS)

    @property
    def thin(self) -> int:
        """Sweeps between draws of one chain that correlate by a tenth, within limits."""
        return min(max(self._until(0.1), _LEAST_THIN), _MOST_SWEEPS // 2)

    def _until(self, left: float) -> int:
        if not self.correlation > 0.0:
            return 1
        correlation = min(self.correlation, 0.99)
        return math.ceil(math.log(left) / math.log(correlation))


def pilot(
    params: Parameters,
    first: Targets,
    start: np.ndarray,
    seed: np.random.SeedSequence,
) -> Pilot:
    """Chains on one response.

    One response and not the mean of them: a mean response has less residual and group variance than
    any single one, so its posterior lies elsewhere.

    Parameters
    ----------
    params
        The layout of phi.
    first
        The density of the response.
    start
        Where to start.
    seed
        Source of randomness.

    Returns
    -------
    Pilot
    """
    width = np.full(params.size, 0.5)
    width[0] = 2.5 / math.sqrt(2 * max(int(first.own.rows.sum()) - params.precision.size, 2))
    chains = _PILOT_CHAINS
    state, used = np.tile(start, (chains, 1)), np.zeros(chains, dtype=np.int64)
    targets = first.of(np.zeros(chains, dtype=np.int64))
    late, words = state[:, None], seed.generate_state(2 * chains, np.uint64).reshape(2, chains)
    for sweeps, own_words in zip(_PILOT_SWEEPS, words, strict=True):
        kept = np.empty((chains, sweeps, params.size))
        slice_chains(state, width, 1, own_words, targets, kept, used)
        late = params.folded(kept)[:, sweeps // 4 :]
        width = np.maximum(2.5 * late.std(axis=(0, 1)), 1e-6)
        state = kept[:, -1]
    centred = late - late.mean(axis=(0, 1))
    lag = (centred[:, 1:] * centred[:, :-1]).sum(axis=(0, 1))
    lag /= np.maximum((centred**2).sum(axis=(0, 1)), 1e-300)
    return Pilot(np.median(late, axis=(0, 1)), width, float(lag.max()))


def densest(starts: np.ndarray, targets: Targets) -> np.ndarray:
    """Of several starts for each response (start, response, phi) the one where its density is highest."""
    out = starts[0].copy()
    spread(_densest, out.shape[0], starts, out, *targets)
    return out


@kernel
def _densest(first, last, starts, out, own, priors, zty, hty, yty):
    p = own.precision.size
    room, reduced = make_room(own), np.empty((p + 1, p + 1))
    for s in range(first, last):
        y, best = Response(zty[s], hty[s], yty[s]), -np.inf
        for c in range(starts.shape[0]):
            logdet = eliminate(starts[c, s], own, y, reduced, room)
            density = reduced_density(starts[c, s], logdet, reduced, own, priors, room.small)
            if density > best:
                best = density
                out[s] = starts[c, s]


def slice_chains(
    start: np.ndarray,
    width: np.ndarray,
    thin: int,
    seeds: np.ndarray,
    targets: Targets,
    kept: np.ndarray,
    used: np.ndarray,
) -> None:
    """Slice chains, one per response; every ``thin`` sweeps a state is ``kept`` (response, draw, phi).

    ``width`` are the widths of first intervals (phi, or response and phi). A relative SD that starts beyond
    its width has its own size for one: an interval that is too wide costs a few evaluations, one that is too
    narrow is hardly left.
    ``used`` counts evaluations of the density. Every update has a random stream of its own, so that
    chains with the same seed on similar responses stay together.
    """
    sds = targets.sds
    width = np.broadcast_to(width, start.shape).copy()
    width[:, sds] = np.maximum(width[:, sds], np.abs(start[:, sds]))
    spread(_chains, len(start), start, width, thin, seeds, *targets, kept, used)


@kernel
def _chains(first, last, start, width, thin, seeds, own, priors, zty, hty, yty, kept, used):
    size, p, sds = start.shape[1], own.precision.size, priors.sd.shape[0] - 1
    strata, draws = own.rows.size, kept.shape[1]
    # One part of phi after the other, then sigma with all other SDs held.
    moves = size + 1 if sds + strata > 1 else size
    room = make_room(own)
    current, trial = np.empty((p + 1, p + 1)), np.empty((p + 1, p + 1))
    for s in range(first, last):
        y = Response(zty[s], hty[s], yty[s])
        phi = start[s].copy()
        logdet = eliminate(phi, own, y, current, room)
        density = reduced_density(phi, logdet, current, own, priors, room.small)
        used[s] += 1
        for d in range(draws):
            for t in range(thin):
                for move in range(moves):
                    rng = seeded(seeds[s], (d * thin + t) * moves + move + 1)
                    alone = move == size
                    i = 0 if alone else move
                    level = density + np.log(uniform(rng))
                    x0 = phi[i]
                    left = x0 - width[s, i] * uniform(rng)
                    right = left + width[s, i]
                    # Stepping out to the left, to the right, then shrinkage towards x0.
                    room_left = int(_STEPS_OUT * uniform(rng))
                    room_right = _STEPS_OUT - 1 - room_left
                    phase = 0
                    while True:
                        if phase == 0:
                            if room_left <= 0:
                                phase = 1
                                continue
                            x = left
                        elif phase == 1:
                            if room_right <= 0:
                                phase = 2
                                continue
                            x = right
                        else:
                            x = left + uniform(rng) * (right - left)
                        _put(phi, i, x, alone, sds, strata)
                        used[s] += 1
                        if move == 0:  # S0, r0, q0 do not depend on sigma
                            new_logdet = logdet
                            new = reduced_density(phi, logdet, current, own, priors, room.small)
                        else:
                            new_logdet = eliminate(phi, own, y, trial, room)
                            new = reduced_density(phi, new_logdet, trial, own, priors, room.small)
                        # d(relative SDs) / d(group SDs) = sigma^-sds where these are held.
                        above = new - (sds * (x - x0) if alone else 0.0) > level
                        if phase == 0:
                            if above:
                                left -= width[s, i]
                                room_left -= 1
                            else:
                                phase = 1
                        elif phase == 1:
                            if above:
                                right += width[s, i]
                                room_right -= 1
                            else:
                                phase = 2
                        elif above:
                            density = new
                            logdet = new_logdet
                            if move > 0:
                                current, trial = trial, current
                            break
                        else:
                            if x < x0:
                                left = x
                            else:
                                right = x
                            if right - left < 1e-14 * (1.0 + abs(x0)):
                                # The slice has shrunk to a point: stay.
                                _put(phi, i, x0, alone, sds, strata)
                                break
            for i in range(size):
                kept[s, d, i] = phi[i]


@kernel
def _put(phi, i, x, alone, sds, strata):
    """Move part i of phi to x; if sigma moves alone, group SDs and those of the other arms stay."""
    if alone:
        shrink = np.exp(phi[i] - x)
        for c in range(1, 1 + sds):
            phi[c] *= shrink
        for c in range(phi.size - strata + 1, phi.size):
            phi[c] += phi[i] - x
    phi[i] = x
