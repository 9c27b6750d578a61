"""NUTS refits of one compiled model, a response after another, in parallel processes.

For stages that the direct sampler does not take, and the oracle for those that it does. A compiled model
cannot be sent between processes: every worker gets the specification, compiles once and then only
changes the data. Draws depend on the seed and on the response, not on the number of workers.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from bdtr.multilevel.randomness import children
from bdtr.outcome import OutcomeModel
from bdtr.sampling import SamplingError, compiled_marginal, compiled_plain

__all__ = ["Refits", "refits"]


@dataclass(frozen=True)
class Refits:
    """What is refitted: the model, how it is sampled, chains, draws and warm-up of each refit.

    ``sampler`` is ``"plain"`` (every parameter by NUTS) or ``"marginal"`` (Gaussian stages: standard
    deviations and correlations by NUTS, the rest from its exact normal).
    """

    model: OutcomeModel
    sampler: str = "plain"
    chains: int = 1
    draws: int = 200
    tune: int = 400


def refits(
    what: Refits,
    responses: np.ndarray,
    seed: np.random.SeedSequence,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[xr.Dataset]:
    """Fit the model to one response after another.

    Parameters
    ----------
    what
        Model and sampler.
    responses
        (row, response).
    seed
        Source of randomness.
    workers
        Number of processes; left out: one for each processor. 1 stays in this process.
    progress
        Called with (responses done, responses in all).

    Yields
    ------
    xarray.Dataset
        Posterior of each response in order, dims ``chain, draw``.

    Raises
    ------
    SamplingError
        If a refit was interrupted or returned draws that are not finite; it is not drawn again.
    """
    count = responses.shape[1]
    seeds = children(seed, count)
    tasks = ((i, np.ascontiguousarray(responses[:, i]), seeds[i]) for i in range(count))
    workers = min(workers or os.cpu_count() or 1, count)
    if workers == 1:
        _begin(what)
        for i, task in enumerate(tasks):
            yield _one(task)
            if progress:
                progress(i + 1, count)
        return
    # Spawned and not forked: numba's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin, (what,)) as pool:
        for i, posterior in enumerate(pool.map(_one, tasks)):
            yield posterior
            if progress:
                progress(i + 1, count)


_STATE: dict[str, Any] = {}  # of a worker: the specification and the compiled model


def _begin(what: Refits) -> None:
    if what.sampler not in ("plain", "marginal"):
        raise ValueError(f"sampler={what.sampler!r}: allowed are 'plain' and 'marginal'.")
    make = compiled_plain if what.sampler == "plain" else compiled_marginal
    _STATE["what"], _STATE["compiled"] = what, make(what.model)


def _one(task: tuple[int, np.ndarray, np.random.SeedSequence]) -> xr.Dataset:
    i, response, seed = task
    what = _STATE["what"]
    try:
        found = _STATE["compiled"].fit(response, seed, what.chains, what.draws, what.tune, False)
    except SamplingError as error:
        raise SamplingError(f"Response {i}: {error}") from None
    return found.posterior
