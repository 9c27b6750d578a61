"""NUTS refits of one compiled model, a response after another, in parallel processes.

For stages that the direct sampler does not take, and the oracle for those that it does. A compiled model
cannot be sent between processes: every worker gets the specification, compiles once and then only
changes the data. Draws depend on the seed and on the response, not on the number of workers.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import cloudpickle
import numpy as np
import xarray as xr

from bdtr.engine.compiled.streams import children
from bdtr.results.chains import rhat
from bdtr.results.errors import ArgumentError
from bdtr.stages.outcome import OutcomeModel
from bdtr.stages.posterior import Propagated
from bdtr.stages.sampling import SamplingError, compiled_marginal, compiled_plain
from bdtr.stages.stagemodel import OwnModel

__all__ = ["Refits", "propagate_by_refits", "refits"]

_UNSETTLED = 1.1  # R-hat between the halves of a refit's chains


@dataclass(frozen=True)
class Refits:
    """What is refitted: the model, how it is sampled, chains, draws and warm-up of each refit.

    ``sampler`` is ``"plain"`` (every parameter by NUTS) or ``"marginal"`` (Gaussian stages: standard
    deviations and correlations by NUTS, the rest from its exact normal). Models of the user's are
    always sampled as they are. ``last`` says to keep the last draw of each refit alone.
    """

    model: OutcomeModel | OwnModel
    sampler: str = "plain"
    chains: int = 1
    draws: int = 200
    tune: int = 400
    last: bool = False


def refits(
    what: Refits,
    responses: np.ndarray,
    seed: np.random.SeedSequence,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    copies: int = 1,
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
    copies
        Number of equal parts of the responses that use the same random numbers.

    Yields
    ------
    xarray.Dataset
        Posterior of each response in order, dims ``chain, draw``; attributes ``divergences`` and
        ``r_hat`` (the largest).

    Raises
    ------
    SamplingError
        If a refit was interrupted or returned draws that are not finite; it is not drawn again.
    """
    count = responses.shape[1]
    seeds = children(seed, count // copies) * copies
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
    # By value, so that a class written in a notebook reaches the workers.
    with ProcessPoolExecutor(workers, context, _unpack, (cloudpickle.dumps(what),)) as pool:
        with _main_left_alone():  # workers start when the first tasks come
            found = pool.map(_one, tasks)
        for i, posterior in enumerate(found):
            yield posterior
            if progress:
                progress(i + 1, count)


@contextlib.contextmanager
def _main_left_alone():
    """Let workers start without running the user's script, which would fit the trial once more."""
    main = sys.modules["__main__"]
    kept = {name: getattr(main, name, None) for name in ("__spec__", "__file__")}
    main.__spec__ = None
    main.__file__ = None
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(main, name, value)
        if kept["__file__"] is None:
            del main.__file__


_STATE: dict[str, Any] = {}  # of a worker: the specification and the compiled model


def _unpack(what: bytes) -> None:
    _begin(cloudpickle.loads(what))


def _begin(what: Refits) -> None:
    if what.sampler not in ("plain", "marginal"):
        raise ArgumentError(f"sampler={what.sampler!r}: allowed are 'plain' and 'marginal'.")
    if what.sampler == "plain" or isinstance(what.model, OwnModel):
        compiled = compiled_plain(what.model)
    else:
        compiled = compiled_marginal(what.model)
    _STATE["what"], _STATE["compiled"] = what, compiled


def _one(task: tuple[int, np.ndarray, np.random.SeedSequence]) -> xr.Dataset:
    i, response, seed = task
    what = _STATE["what"]
    try:
        found = _STATE["compiled"].fit(response, seed, what, False)
    except SamplingError as error:
        raise SamplingError(f"Response {i}: {error}") from None
    arrays = [v.to_numpy() for v in found.posterior.data_vars.values()]
    flat = [np.moveaxis(a.reshape(*a.shape[:2], -1), -1, 0) for a in arrays]
    largest = float(np.nanmax(rhat(np.concatenate(flat)), initial=1.0))
    divergences = int(found.stats["diverging"].sum())
    kept = found.posterior.isel(draw=slice(-1, None)) if what.last else found.posterior
    return kept.assign_attrs(divergences=divergences, r_hat=largest)


def propagate_by_refits(
    what: Refits,
    blocks: Iterable[tuple[slice, Sequence[np.ndarray]]],
    rows: int,
    seed: np.random.SeedSequence,
    chains: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Propagated]:
    """One posterior draw of a stage for each propagated response, by a NUTS refit for each.

    The draw is the last one of the refit. Policies share the seeds of their refits and no more: unlike
    draws of the exact engine, contrasts between policies are wider than those of a joint posterior.

    Parameters
    ----------
    what
        Model and sampler; one chain.
    blocks
        Places among the rows, and the responses (row, response) under each policy.
    rows
        Number of rows of the stage's fit.
    seed
        Source of randomness.
    chains
        Number of chains that the responses came from, stacked.
    progress
        Called with (refits done, refits in all).

    Returns
    -------
    list of Propagated
        For each policy as many draws as responses, in their order.
    """
    values: list[np.ndarray] = []
    for at, parts in blocks:
        if not values:
            values = [np.empty((rows, part.shape[1])) for part in parts]
        for whole, part in zip(values, parts, strict=True):
            whole[at] = part
    both = np.hstack(values)
    drawn = refits(replace(what, last=True), both, seed, progress=progress, copies=len(values))
    out = []
    for y in values:
        found = list(islice(drawn, y.shape[1]))
        posterior = _stacked([one.isel(chain=0, draw=-1) for one in found], chains)
        engine = xr.Dataset(
            attrs={
                "sampler": "refits",
                "refits": len(found),
                "draws": what.draws,
                "tune": what.tune,
                "divergences": sum(one.attrs["divergences"] for one in found),
                "unsettled": sum(one.attrs["r_hat"] > _UNSETTLED for one in found),
                "centre": float(y.mean()),
                "spread": float(y.std(axis=0).mean()),
            }
        )
        out.append(Propagated(posterior, engine, xr.Dataset()))
    return out


def _stacked(draws: Sequence[xr.Dataset], chains: int) -> xr.Dataset:
    """Single draws as a posterior with dims ``chain, draw``."""
    plain = [one.drop_vars(["chain", "draw"], errors="ignore").drop_attrs() for one in draws]
    per, out = len(draws) // chains, {}
    for name, first in plain[0].data_vars.items():
        values = np.stack([one[name].to_numpy() for one in plain])
        values = values.reshape(chains, per, *values.shape[1:])
        out[name] = (("chain", "draw", *first.dims), values)
    coords = {"chain": np.arange(chains), "draw": np.arange(per), **plain[0].coords}
    return xr.Dataset(out, coords=coords)
