"""A fit in words and tables."""

from __future__ import annotations

import numpy as np
import pytest


def test_the_state_is_the_first_line_everywhere(clinic_fit):
    state = str(clinic_fit.state)
    assert repr(clinic_fit).startswith(state)
    assert clinic_fit._repr_html_().startswith(f"<p>{state}")
    assert repr(clinic_fit.summary()).startswith(state)
    assert clinic_fit.summary()._repr_html_().startswith(f"<p>{state}")


def test_summaries_are_those_of_the_draws(clinic_fit):
    table = clinic_fit.summary(interval=0.9).table
    b = clinic_fit.tree["stage_1/posterior"].to_dataset()["b"].sel(term="x").to_numpy().ravel()
    row = table.loc[("first", "b[x]")]
    assert row["mean"] == pytest.approx(b.mean())
    assert row["lower"] == pytest.approx(np.quantile(b, 0.05))
    assert row["upper"] == pytest.approx(np.quantile(b, 0.95))


def test_each_correlation_has_one_row_and_constants_none(clinic_fit):
    names = clinic_fit.summary().table.loc["second"].index
    cor = [n for n in names if n.startswith("cor_")]
    assert len(cor) == 6  # of four terms, one of which comes from the first stage
    assert "cor_clinic[Intercept, second[more]]" in cor
    assert "sd_group[Intercept]" in names
    assert not any(n.startswith("u_") for n in names)


def test_draws_are_tidy(clinic_fit):
    draws = clinic_fit.draws("first")
    assert list(draws.columns) == ["stage", "chain", "draw", "parameter", "value"]
    one = draws[draws["parameter"] == "b[x]"]
    assert len(one) == clinic_fit.settings.propagated
    b = clinic_fit.tree["stage_1/posterior"].to_dataset()["b"].sel(term="x")
    first = one.set_index(["chain", "draw"])["value"]
    assert first.loc[(2, 7)] == float(b.sel(chain=2, draw=7))
    assert set(clinic_fit.draws()["stage"]) == {"first", "second"}
    with pytest.raises(ValueError, match="allowed are 'first', 'second'"):
        clinic_fit.draws("third")


def test_labels_are_escaped_in_html(clinic_fit):
    assert "<A>" not in clinic_fit._repr_html_()
