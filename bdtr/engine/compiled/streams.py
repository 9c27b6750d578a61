"""Random streams: children of a seed, and numbers inside compiled kernels, the same on any thread."""

from __future__ import annotations

import numpy as np

from bdtr.engine.compiled.kernels import kernel

__all__ = ["children", "normal", "seeded", "uniform"]


def children(seed: np.random.SeedSequence, count: int) -> list[np.random.SeedSequence]:
    """The children of a seed, the same ones at every call, unlike those of ``seed.spawn``."""
    key = tuple(seed.spawn_key)
    return [np.random.SeedSequence(seed.entropy, spawn_key=(*key, i)) for i in range(count)]


@kernel
def seeded(seed, key):
    """State of the stream number ``key`` of a seed."""
    state = np.empty(1, dtype=np.uint64)
    state[0] = seed ^ (np.uint64(key) * np.uint64(0xD1B54A32D192ED03))
    uniform(state)
    return state


@kernel
def uniform(state):
    """Next uniform in (0, 1): splitmix64 (Steele, Lea and Flood 2014)."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    x = state[0]
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return (float(x >> np.uint64(11)) + 0.5) / 9007199254740992.0


@kernel
def normal(state):
    """Next standard normal number: Box and Muller, the cosine half."""
    radius = np.sqrt(-2.0 * np.log(uniform(state)))
    return radius * np.cos(2.0 * np.pi * uniform(state))
