"""Saving and loading: the same answers, further passes, no pickled code, nothing half-written."""

from __future__ import annotations

import pandas as pd
import pytest
import xarray as xr

import bdtr
from bdtr.storage import StorageError


@pytest.fixture(scope="module")
def saved(clinic_fit, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("fits") / "fit.nc")
    clinic_fit.save(path)
    return path


def test_a_loaded_fit_gives_the_same_answers(clinic_fit, clinics, saved):
    loaded = bdtr.load(saved)
    assert loaded.trial == clinic_fit.trial
    assert loaded.settings == clinic_fit.settings
    assert loaded.state == clinic_fit.state
    assert loaded.notes == clinic_fit.notes
    assert loaded.data_hash == clinic_fit.data_hash == loaded.data.hash()
    pd.testing.assert_frame_equal(loaded.flow, clinic_fit.flow)
    pd.testing.assert_frame_equal(loaded.priors, clinic_fit.priors)
    pd.testing.assert_frame_equal(loaded.summary().table, clinic_fit.summary().table)
    ours, theirs = loaded.recommend(clinics), clinic_fit.recommend(clinics)
    pd.testing.assert_frame_equal(ours.table, theirs.table)


def test_further_passes_after_loading_are_the_same(clinic_fit, saved):
    regime = bdtr.Regime(
        "app, more",
        {"first": "app", "second": {"responder == 1": "keep", "responder == 0": "more"}},
    )
    ours = bdtr.value(bdtr.load(saved), regime).draws
    assert ours.equals(bdtr.value(clinic_fit, regime).draws)


def test_without_data_recommendations_work_and_passes_say_why_not(clinic_fit, clinics, tmp_path):
    path = str(tmp_path / "bare.nc")
    clinic_fit.save(path, data=False)
    loaded = bdtr.load(path)
    ours, theirs = loaded.recommend(clinics.head(20)), clinic_fit.recommend(clinics.head(20))
    pd.testing.assert_frame_equal(ours.table, theirs.table)
    with pytest.raises(bdtr.FitError, match="Save with data=True"):
        bdtr.value(loaded)
    with xr.open_datatree(path) as tree:
        assert "data" not in tree
        names = {str(n) for node in tree.subtree for n in node.variables}
    assert not names & {"m", "x", "y", "unit", "responder"}


@pytest.mark.parametrize(
    "formula",
    [
        "bs(x, df=4) * a",
        "poly(x, degree=2) * a + log(I(x ** 2 + 1))",
        "scale(x) * a + exp(x) + sqrt(I(x ** 2))",
        "a + center(x) : a",
    ],
)
def test_transforms_keep_what_they_learned(formula, tmp_path):
    from test_data import small

    trial = bdtr.Trial([bdtr.Stage("a", actions=["r", "s"], formula=formula)], outcome="y")
    frame = small(120)
    fit = bdtr.fit(trial, frame, sampler="direct", random_seed=1, progress=False)
    path = str(tmp_path / "fit.nc")
    fit.save(path, data=False)
    some = frame.iloc[3:9]
    pd.testing.assert_frame_equal(bdtr.load(path).recommend(some).table, fit.recommend(some).table)


def test_other_files_are_refused(tmp_path):
    path = str(tmp_path / "other.nc")
    xr.Dataset({"x": ("a", [1.0])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(StorageError, match="no fit saved by bdtr"):
        bdtr.load(path)


def test_nothing_is_left_when_writing_fails(clinic_fit, tmp_path, monkeypatch):
    def fail(self, path, **_):
        with open(path, "w") as file:
            file.write("half")
        raise OSError("disk full")

    monkeypatch.setattr(xr.DataTree, "to_netcdf", fail)
    with pytest.raises(OSError, match="disk full"):
        clinic_fit.save(str(tmp_path / "fit.nc"))
    assert not list(tmp_path.iterdir())


def test_column_names_may_hold_anything(tmp_path):
    from test_data import small

    frame = small(60).rename(columns={"y": "score/2", "id": "the id"})
    stage = bdtr.Stage("a", actions=["r", "s"], formula="x * a")
    trial = bdtr.Trial([stage], outcome="score/2", unit="the id")
    fit = bdtr.fit(trial, frame, sampler="direct", random_seed=1, progress=False)
    fit.save(str(tmp_path / "fit.nc"))
    assert bdtr.load(str(tmp_path / "fit.nc")).data.hash() == fit.data_hash
