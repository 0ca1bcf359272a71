"""The whole front as potentials: every point, with the errors of the run, tested in dynamics, resumable."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers.command_line import call
from helpers.studies import study_file

from paretofit import Dataset, InputError, run_study
from paretofit.commands import export_front, front_export
from paretofit.commands.run_fits import RunFits
from paretofit.potentials import LinearPotential
from paretofit.validation import MdProtocol

SHORT = MdProtocol(nvt_time_ps=0.02, nve_time_ps=0.06)
SETTINGS = {"levels": [2, 5], "sampling_methods": ["random"], "sizes": [60, "all"], "weights": [12.25], "twojmax": [2]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("front")
    return run_study(study_file(folder, **SETTINGS), out=folder / "run")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return export_front(run.folder, tmp_path_factory.mktemp("exported") / "front", protocol=SHORT)


@pytest.mark.slow
def test_every_point_of_the_front_is_a_potential_with_the_errors_of_its_fit(run, exported):
    index = pd.read_csv(exported.folder / "index.csv", dtype={"level": str}, keep_default_na=False)
    front = run.front[run.front["overall"]]
    assert len(index) == len(front)
    assert sorted(index["ref_force"]) == pytest.approx(sorted(front["ref_force"]))
    assert index["label_seconds"].is_monotonic_increasing
    split = pd.read_csv(run.folder / "split.csv")
    row = index.iloc[-1]
    with Dataset(run.folder / "dataset.h5") as data:
        potential = LinearPotential.read(exported.folder / row["folder"])
        labels = data.labels("5")
        errors = [1e3 * (potential.predict(data[k]).energy - labels.energy[k]) / len(data[k])
                  for k in np.flatnonzero(split["set"] == "test")]  # fmt: skip
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(row["fit_ref_energy"], rel=1e-6)


def test_the_fit_is_the_repetition_closest_to_the_median(run, exported):
    results = run.results.assign(score=np.sqrt(run.results["ref_energy"] * run.results["ref_force"]))
    for _, row in exported.index.iterrows():
        same = results[(results["level"] == row["level"]) & (results["twojmax"] == row["twojmax"])
                       & (results["n_train"] == row["n_train"])]  # fmt: skip
        score = np.sqrt(row["fit_ref_energy"] * row["fit_ref_force"])
        assert score == pytest.approx(np.sort(same["score"])[(len(same) - 1) // 2])


def test_dynamics_have_a_survival_a_drift_and_a_speed(exported):
    index = exported.index
    survived = index[index["md_problem"].eq("")]
    assert len(survived)
    assert survived["md_survival_ps"].to_numpy() == pytest.approx(SHORT.nvt_time_ps)
    assert np.isfinite(survived["md_drift"]).all()
    assert (survived["md_us_per_atom_step"] > 0).all()  # measured, because the run did not
    lines = exported.text.splitlines()
    assert f"{len(survived)} of {len(index)} potentials survived" in exported.text
    assert lines[-1].startswith("next: paretofit validate ")
    assert (exported.folder / lines[-1].split()[3].split("/")[-1] / "potential.mod").is_file()


@pytest.mark.slow
def test_a_stopped_export_resumes(run, exported, tmp_path, monkeypatch):
    def stop_after_two(fits, points, *rest):
        yield from original(fits, points[:2], *rest)
        raise InputError("stopped")

    original, fitted, repeat_fit = front_export._write_potentials, [], RunFits.repeat_fit
    monkeypatch.setattr(RunFits, "repeat_fit", lambda self, row: fitted.append(row) or repeat_fit(self, row))
    with monkeypatch.context() as patch:
        patch.setattr(front_export, "_write_potentials", stop_after_two)
        with pytest.raises(InputError, match="stopped"):
            export_front(run.folder, tmp_path / "front", protocol=SHORT)
    n_stored = len((tmp_path / "front" / "index.partial").read_text().splitlines())
    fitted.clear()
    again = export_front(run.folder, tmp_path / "front", protocol=SHORT)
    assert len(fitted) == len(exported.index) - n_stored
    assert not (tmp_path / "front" / "index.partial").exists()
    timed = "md_us_per_atom_step"
    pd.testing.assert_frame_equal(again.index.drop(columns=timed), exported.index.drop(columns=timed))


def test_intervals_of_the_front_are_in_the_index_and_shown(run, exported):
    """The index has the intervals of front.csv."""
    assert (exported.index["ref_force_low"] < exported.index["ref_force_high"]).all()
    points = front_export._select_points(
        run.front.assign(ref_force_low=1.0, ref_force_high=2.0), run.results, run.results["n_train"].max()
    )
    table = exported.index.drop(columns=["ref_force_low", "ref_force_high"])
    records = {row["folder"]: row.to_dict() for _, row in table.iterrows()}
    index = front_export._build_index(points, records)
    assert (index["ref_force_low"] == 1).all()
    assert "(1–2)" in front_export.FrontExport(exported.folder, index, SHORT).text


def test_a_crash_of_one_potential_is_recorded(run, exported):
    point = front_export._select_points(run.front, run.results, run.results["n_train"].max())[0]
    record = front_export._record_crash(front_export._MdTask(point, exported.folder, None, SHORT, 1.0, {}))
    assert record["md_problem"] == "LAMMPS crashed"
    assert np.isnan(record["md_survival_ps"])


@pytest.mark.slow
def test_the_command_line(run, exported, tmp_path):
    done = call("export", run.folder, "--front", "-o", tmp_path / "front", "--md-time", 0.02, "--json", "--jobs", 1)
    assert done.returncode == 0, done.stderr
    assert [row["folder"] for row in json.loads(done.stdout)["index"]] == exported.index["folder"].tolist()
    for arguments, message in (
        (("--front",), "would be overwritten"),
        (("--front", "--level", "5"), "cannot be combined"),
        (("--md-time", 1), "are for the dynamics of --front"),
    ):
        done = call("export", run.folder, "-o", tmp_path / "front", *arguments)
        assert done.returncode == 2
        assert message in done.stderr
    assert "--front -o front" in call("export", "--help").stdout
