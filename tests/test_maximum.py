"""The draw-wise maximum and its warning."""

from __future__ import annotations

import numpy as np
import pytest

import bdtr
from bdtr.backward.passes import backward_pass
from bdtr.values.maximum import WARNING, draw_wise_maximum


def test_the_maximum_is_that_of_each_draw(clinic_fit):
    found = draw_wise_maximum(clinic_fit, margin=0.1)
    best = backward_pass(clinic_fit, "optimal")
    q, feasible = best.q_values(0, np.arange(480)), clinic_fit.data.stages[0].feasible
    assert feasible.all()
    assert np.allclose(found.draws["maximum"].to_numpy().ravel(), q.max(axis=0).mean(axis=0))
    recommended = bdtr.value(clinic_fit, bdtr.recommended()).table["mean"].iloc[0]
    assert found.table.loc["recommended", "mean"] == pytest.approx(recommended)
    assert found.table.loc["perfect_information", "mean"] > 0
    gap = np.abs(q[0] - q[1])
    assert found.unsure.loc["first", "within_margin"] == pytest.approx((gap <= 0.1).mean())
    assert found.unsure.loc["second", "units"] < 480  # responders have no choice
    assert WARNING in found.caption
    assert WARNING in found._repr_html_()


def test_a_margin_is_a_size(clinic_fit):
    with pytest.raises(ValueError, match="margin=-1: must be 0 or more"):
        draw_wise_maximum(clinic_fit, margin=-1)
