"""Compiled kernels on several threads: parts of a range, the same result for any number of threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from typing import Any

from numba import get_num_threads
from threadpoolctl import threadpool_limits

__all__ = ["side_by_side", "spread"]

_PARTS = 4  # per thread, so that none waits long for the last


@lru_cache(maxsize=8)
def _pool(threads: int) -> ThreadPoolExecutor:
    """The threads of kernels, made once: a fit calls some hundred kernels.

    Kernels ask for no further threads, so none can wait for another; jobs of :func:`side_by_side` do, and
    have threads of their own.
    """
    return ThreadPoolExecutor(threads, thread_name_prefix="bdtr-kernels")


if hasattr(os, "register_at_fork"):  # a forked process has none of them
    os.register_at_fork(after_in_child=_pool.cache_clear)


def spread(kernel: Callable[..., None], count: int, *arguments: Any) -> None:
    """Call ``kernel(first, last, *arguments)`` for parts that make up ``range(count)``.

    The kernel is compiled with ``nogil`` and writes what belongs to its part alone. Numba's own parallel
    loops would compile every kernel twice, and some of its thread pools cannot be used from threads of
    other libraries.

    Parameters
    ----------
    kernel
        A compiled function.
    count
        Length of the range.
    arguments
        What else the kernel takes.
    """
    threads = min(get_num_threads(), count)
    if threads <= 1:
        if count:
            kernel(0, count, *arguments)
        return
    parts = min(count, _PARTS * threads)
    edges = [count * i // parts for i in range(parts + 1)]
    pool = _pool(get_num_threads())
    tasks = [pool.submit(kernel, edges[i], edges[i + 1], *arguments) for i in range(parts)]
    try:
        wait(tasks)  # all of them, as they write to arrays of the caller
    except BaseException:  # an interrupt: others must not queue behind what nobody waits for
        for task in tasks:
            task.cancel()
        wait(tasks)
        raise
    for task in tasks:
        task.result()


def side_by_side[T, R](
    function: Callable[[T], R],
    items: Iterable[T],
    in_turn: bool = False,
    done: Callable[[int], None] | None = None,
) -> list[R]:
    """Results of independent jobs that spend much of their time in kernels, some jobs at a time.

    What one does in Python runs beside the kernels of the others. Linear algebra of libraries keeps to one
    thread all the while: a job that set this for itself would end it for the others.

    Parameters
    ----------
    function
        What to do; it must not change what jobs share.
    items
        One for each job.
    in_turn
        One job after the other, for those that cannot share a process with others.
    done
        Called with how many jobs are done, from the first on.

    Returns
    -------
    list
        In the order of the items.
    """

    def collected(results: Iterable[R]) -> list[R]:
        found = []
        for result in results:
            found.append(result)
            if done:
                done(len(found))
        return found

    if in_turn:
        return collected(map(function, items))
    with threadpool_limits(1), ThreadPoolExecutor(get_num_threads()) as pool:
        return collected(pool.map(function, items))
