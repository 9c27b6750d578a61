"""Fits that several test files look at, made once."""

from __future__ import annotations

import pytest
from simulate import clinic_study, clinic_trial

import bdtr


@pytest.fixture(scope="session")
def star():
    """The bundled extract."""
    return bdtr.datasets.star()


@pytest.fixture(scope="session")
def clinics():
    """Data of a small two-stage study."""
    return clinic_study()


@pytest.fixture(scope="session")
def clinic_fit(clinics):
    """The small study fitted by the direct sampler."""
    return bdtr.fit(
        clinic_trial(), clinics, missing="exclude", sampler="direct", random_seed=3, progress=False
    )


@pytest.fixture(scope="session")
def clinic_fit_pymc(clinics):
    """The same with PyMC on the marginal density: one of the few compiled models of the tests."""
    return bdtr.fit(clinic_trial(), clinics, missing="exclude", random_seed=3, progress=False)


@pytest.fixture(scope="session")
def clinic_fit_plain(clinics):
    """The same with every parameter sampled by NUTS, coefficients and effects included."""
    return bdtr.fit(
        clinic_trial(), clinics, missing="exclude", sampler="plain", random_seed=3, progress=False
    )
