"""Kernels on threads: every part once, errors come through."""

from __future__ import annotations

import numpy as np
import pytest
from numba import get_num_threads, set_num_threads

from bdtr.results.threads import side_by_side, spread


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100])
def test_parts_make_up_the_range(count):
    seen = np.zeros(count)

    def kernel(first: int, last: int, into: np.ndarray) -> None:
        into[first:last] += 1

    threads = get_num_threads()
    spread(kernel, count, seen)
    set_num_threads(1)
    spread(kernel, count, seen)
    set_num_threads(threads)
    assert (seen == 2).all()


def test_errors_come_through():
    def kernel(first: int, last: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        spread(kernel, 10)


@pytest.mark.parametrize("in_turn", [False, True])
def test_jobs_that_are_done_are_counted_one_by_one(in_turn):
    counts: list[int] = []
    side_by_side(str, range(5), in_turn, counts.append)
    assert counts == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("in_turn", [False, True])
def test_jobs_side_by_side_keep_their_order_and_errors_come_through(in_turn):
    assert side_by_side(lambda i: i * i, range(20), in_turn) == [i * i for i in range(20)]
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda i: 1 // (i - 3), range(5), in_turn)


def test_linear_algebra_keeps_to_one_thread_beside_other_jobs():
    from threadpoolctl import threadpool_info, threadpool_limits

    def job(_: int) -> int:
        with threadpool_limits(1):
            np.ones((50, 50)) @ np.ones((50, 50))
        return max(own["num_threads"] for own in threadpool_info() if own["user_api"] == "blas")

    assert set(side_by_side(job, range(40))) == {1}
