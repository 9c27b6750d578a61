"""P(optimal) over history and blips along a variable agree with what they are made of."""

from __future__ import annotations

import numpy as np
import pytest
from simulate import TwoStage

import bdtr
from bdtr.decisions.tailoring import blips_along, over_history, tailoring_columns


@pytest.fixture(scope="module")
def fit():
    frame = TwoStage(sites=20, per_site=30).draw(3)
    frame["sex"] = np.where(np.arange(600) % 3 == 0, "f", "m")
    stages = [
        bdtr.Stage("a1", actions=[0, 1], formula="o1 * a1 + (1 + a1 | site)"),
        bdtr.Stage("a2", actions=[0, 1], formula="o1 + a1 + sex + m * a2 + (1 + a2 | site)"),
    ]
    trial = bdtr.Trial(stages, outcome="y", site="site")
    return bdtr.fit(
        trial, frame, sampler="direct", draws=125, propagated=500, random_seed=2, progress=False
    )


def test_columns_that_interact_with_the_action(fit):
    assert tailoring_columns(fit, "a1") == ("o1",)
    assert tailoring_columns(fit, "a2") == ("m",)


def test_cells_average_the_recommendations(fit):
    known = bdtr.recommend(fit, fit.data.frame).table
    own = known[(known["stage"] == "a2") & (known["action"] == "1")]
    sex = fit.data.frame["sex"].astype(str).to_numpy()
    table = over_history(fit, "a2", "sex").table
    for label in ("f", "m"):
        rows = table.loc[(label, "1")]
        mine = own[sex == label]
        assert rows["units"] == len(mine)
        assert rows["p_optimal"] == pytest.approx(mine["p_optimal"].mean())
        assert rows["recommended"] == pytest.approx(mine["recommended"].mean())
    both = over_history(fit, "a2", ["m", "sex"], bins=4).table
    assert both["units"].groupby(level="action").sum().to_list() == [600, 600]
    assert both["p_optimal"].groupby(level=["m", "sex"]).sum().to_numpy() == pytest.approx(1.0)


def test_a_new_site_has_no_effects_of_its_own(fit):
    average = over_history(fit, "a2", "m", sites="average").table
    assert not np.allclose(average["p_optimal"], over_history(fit, "a2", "m").table["p_optimal"])


def test_blips_of_a_linear_model(fit):
    """Mean blip = b[a2] + b[m:a2] m + mean site effect over the units."""
    found = blips_along(fit, "a2", "m", points=5)
    posterior = fit.posterior(1)
    b = posterior["b"]
    u = posterior["u_site"].sel(site_term="a2[1]")
    weights = fit.data.frame["site"].astype(str).value_counts(normalize=True)
    mean_u = (u * weights.loc[list(u["site"].to_numpy())].to_numpy()).sum("site")
    interaction = next(t for t in b["term"].to_numpy() if "a2" in t and ":" in t)
    for value in found.draws["m"].to_numpy():
        expected = b.sel(term="a2[1]") + b.sel(term=interaction) * value + mean_u
        own = found.draws.sel(action="1", m=value)
        assert own.to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-9)
    assert (found.draws.sel(action="0") == 0).all()
    assert found.table["p_best"].groupby("m").sum().to_numpy() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda fit: over_history(fit, "a2", "y"), "no history of stage a2"),
        (lambda fit: over_history(fit, "a3", "m"), "stage='a3'"),
        (lambda fit: over_history(fit, "a2", ["m", "m"]), "different columns"),
        (lambda fit: blips_along(fit, "a2", "sex"), "must be a number.*o1"),
        (lambda fit: blips_along(fit, "a1", "m"), "must be a number"),
    ],
)
def test_what_is_no_history_is_refused(fit, call, message):
    with pytest.raises(ValueError, match=message):
        call(fit)
