"""Fits that several test files look at, made once."""

from __future__ import annotations

import pytest

import bdtr


@pytest.fixture(scope="session")
def star():
    """The bundled extract."""
    return bdtr.datasets.star()
