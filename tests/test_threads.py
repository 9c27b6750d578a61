"""Kernels on threads: every part once, errors come through."""

from __future__ import annotations

import numpy as np
import pytest
from numba import get_num_threads, set_num_threads

from bdtr.threads import spread


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
