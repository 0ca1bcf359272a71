"""Dynamics with a trained potential: measured frames against independent computation, limits, resumption, bad input."""

import signal
from types import SimpleNamespace

import ase.io
import numpy as np
import pandas as pd
import pytest
from ase import Atoms, units
from ase.build import bcc110, bulk
from helpers.faults import begin, gone, litter, soon, stop
from typer.testing import CliRunner

from paretofit import InputError
from paretofit.cli import app
from paretofit.commands import explore_dynamics, fit_dataset
from paretofit.commands.start_structures import read_start_structures
from paretofit.core import RowKind, create_lammps, lammps_calculator
from paretofit.dataset import LevelData, write_dataset
from paretofit.learning.frame_monitor import compute_pressure
from paretofit.potentials import CommitteeSettings, LinearPotential

EAM = ("pair_style eam/alloy", "pair_coeff * * W_zhou.eam.alloy W")
SHORT = {"time_ps": 0.02, "interval_ps": 0.01, "equilibration_ps": 0.006, "stop_grade": 1e6}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A committee and a single potential of tungsten, fitted to labels of an EAM potential, and start structures."""
    folder = tmp_path_factory.mktemp("exploration")
    calculator, structures, labels = lammps_calculator(EAM, ("W",)), [], []
    for k in range(40):
        atoms = bulk("W", cubic=True) * (2, 1, 1)
        atoms.set_cell(atoms.cell * (1 + 0.005 * (k % 5 - 2)), scale_atoms=True)
        atoms.rattle(0.02 + 0.03 * (k % 4), seed=k)
        atoms.calc = calculator
        labels.append({"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(),
                       "stress": atoms.get_stress(), "seconds": 1.0})  # fmt: skip
        atoms.calc = None
        structures.append(atoms)
    write_dataset(folder / "w.h5", structures, {"eam": LevelData(labels)})
    options = {"twojmax": 4, "quadratic": False, "weight_ratio": 10.0}
    committee = CommitteeSettings(4, "bootstrap", 0.8, 1)
    fit_dataset(folder / "w.h5", folder / "potential", committee=committee, held_out_fraction=0.4, **options)
    fit_dataset(folder / "w.h5", folder / "single", **options)
    ase.io.write(folder / "bulk.extxyz", bulk("W", cubic=True) * 2)
    slab = bcc110("W", (2, 2, 3))
    slab.pbc = (True, True, False)
    ase.io.write(folder / "two.extxyz", [slab, Atoms("W4", bulk("W", cubic=True).repeat((2, 1, 1)).positions)])
    ase.io.write(folder / "atom.extxyz", [Atoms("W"), bulk("W", cubic=True)])
    ase.io.write(folder / "only_atom.extxyz", Atoms("W"))
    ase.io.write(folder / "al.extxyz", bulk("Al", cubic=True))
    ase.io.write(folder / "vacuum.extxyz", Atoms("W2", [[0, 0, 0], [0, 0, 2.5]], cell=[3, 3, 20], pbc=True))
    (folder / "empty.extxyz").write_text("")
    return folder


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def finished(work):
    files = [work / "bulk.extxyz", work / "two.extxyz"]
    return explore_dynamics(work / "potential", files, work / "finished", settings=SHORT, save_grade=1e-3, jobs=1)


@pytest.mark.slow
def test_frames_agree_with_an_evaluation_of_each(finished, work):
    """Energies, error bars, expected errors, grades, volumes and pressures, from the files."""
    potential = LinearPotential.read(work / "potential")
    table = pd.read_csv(work / "finished" / "frames.csv")
    frames = ase.io.read(work / "finished" / "trajectories.extxyz", ":")
    assert len(frames) == len(table) == finished.trajectories["frames"].sum() >= 12
    assert set(table["start"]) == {"bulk.extxyz", "two.extxyz:0", "two.extxyz:1"}
    slope = potential.uncertainty.fit_calibration(RowKind.FORCE).slope
    for atoms, (_, row) in zip(frames, table.iterrows(), strict=True):
        assessment = potential.assess(atoms)
        n = len(atoms)
        assert row["energy"] == pytest.approx(assessment.energy / n, abs=1e-6)
        assert row["extrapolation_grade"] == pytest.approx(assessment.grade, rel=1e-5)
        assert atoms.arrays["extrapolation_grade"] == pytest.approx(assessment.grades, rel=1e-5)
        std = 1000 * np.sqrt(np.mean(assessment.forces_std**2))
        assert row["force_std"] == pytest.approx(std, rel=1e-5)
        assert row["force_expected"] == pytest.approx(std / slope, rel=1e-5)
        interval = 1000 * np.sqrt(np.mean(assessment.forces_interval**2))
        assert row["force_interval"] == pytest.approx(interval, rel=1e-5)
        assert row["energy_interval"] == pytest.approx(1000 * assessment.energy_interval, rel=1e-5)
        assert "started_from" not in atoms.info
        if row["start"] == "bulk.extxyz":
            kinetic = (n - 1) * units.kB * row["temperature_k"] / atoms.get_volume()
            pressure = (kinetic - assessment.stress[:3].mean()) / (0.1 * units.GPa)
            assert row["pressure_kbar"] == pytest.approx(pressure, rel=1e-4)
            assert row["volume"] == pytest.approx(atoms.get_volume(), rel=1e-6)
        else:
            assert np.isnan([row["pressure_kbar"], row["volume"]]).all()


def test_pressure_is_that_of_lammps():
    atoms = bulk("W", cubic=True) * 2
    atoms.rattle(0.1, seed=1)
    lammps = create_lammps()
    lammps.commands_string(
        "units metal\natom_modify map array sort 0 0\nregion box block 0 6.33 0 6.33 0 6.33\ncreate_box 1 box\n"
    )
    scaled = atoms.get_scaled_positions() * 6.33
    lammps.create_atoms(len(atoms), None, [1] * len(atoms), scaled.ravel().tolist())
    lammps.commands_string("\n".join(EAM) + "\nmass 1 183.84\nvelocity all create 900 5 mom yes\nrun 0 post no")
    temperature, pressure = (lammps.get_thermo(name) for name in ("temp", "press"))
    lammps.close()
    copy = Atoms(atoms.numbers, scaled, cell=[6.33] * 3, pbc=True, calculator=lammps_calculator(EAM, ("W",)))
    computed = compute_pressure(copy.get_stress(), len(copy), temperature, copy.get_volume())
    assert computed / units.bar == pytest.approx(pressure, rel=1e-5)


def test_answer_counts_and_proposes_a_command(finished, work, tmp_path, monkeypatch):
    assert finished.n_extrapolating == len(finished.frames)  # all grades are above 0.001
    assert finished.answer == finished.text.splitlines()[-1]
    assert finished.answer.startswith("3 of 3 trajectories are complete; ")
    assert f"{len(finished.frames)} of {len(finished.frames)} frames extrapolate (grade above 0.001)" in finished.answer
    assert f"highest grade is {finished.frames['extrapolation_grade'].max():.3g}" in finished.answer
    command = finished.answer.rpartition(": paretofit ")[2].split()
    monkeypatch.chdir(tmp_path)
    selected = run(*command[:-1], 3, "--method", "random", "--no-figures", "-j", 1)
    assert selected.exit_code == 0, selected.exception
    chosen = ase.io.read("selected.extxyz", ":")
    assert [atoms.info["config_type"] for atoms in chosen] == ["md"] * 3
    assert not (work / "finished" / "trajectories.partial").exists()
    assert not litter(work / "finished")


@pytest.mark.slow
def test_limits_of_expected_errors_save_and_stop(work, finished):
    sampled = finished.frames[finished.frames["time_ps"] > 0]  # the equilibration is not stopped
    forces = sampled.groupby("trajectory")["force_expected"].max()
    limit = float(sampled["force_expected"].median())
    result = explore_dynamics(
        work / "potential", [work / "bulk.extxyz", work / "two.extxyz"], work / "stopped", settings=SHORT,
        save_errors={"force": limit}, save_grade=1e6, stop_errors={"force": limit},
    )  # fmt: skip
    is_stopped = result.trajectories["ended"].str.startswith("the expected force error reached")
    assert is_stopped.tolist() == (forces > limit).tolist()
    assert result.n_complete == (~is_stopped).sum()
    saved = result.frames[result.frames["above"] == "force"]
    last_frames = result.frames.groupby("trajectory").tail(1)[is_stopped.to_numpy()]
    assert set(last_frames.index) <= set(saved.index)
    assert len(saved) == (result.frames["force_expected"] > limit).sum() > 0
    frames = ase.io.read(work / "stopped" / "extrapolating.extxyz", ":")
    assert [atoms.info["time_ps"] for atoms in frames] == saved["time_ps"].tolist()


def test_single_potential_has_no_error_bars_and_says_so(work):
    result = explore_dynamics(work / "single", [work / "bulk.extxyz"], work / "no_bars", settings=SHORT)
    assert "has no committee" in result.text
    assert result.answer.startswith("1 of 1 trajectories are complete, with 5 frames")
    assert result.frames["pressure_kbar"].notna().all()
    assert not (work / "no_bars" / "extrapolating.extxyz").exists()
    with pytest.raises(InputError, match="require a committee"):
        explore_dynamics(work / "single", [work / "bulk.extxyz"], work / "x", stop_errors={"energy": 1.0})


@pytest.mark.slow
def test_single_atoms_are_skipped_with_a_note(work):
    result = explore_dynamics(work / "single", [work / "atom.extxyz"], work / "skipped", settings=SHORT)
    assert "1 of 2 structures have one atom and are skipped" in result.text
    assert result.trajectories["start"].tolist() == ["atom.extxyz:1"]


@pytest.mark.slow
def test_killed_command_resumes_with_the_same_numbers(work):
    arguments = ["explore", work / "potential", work / "bulk.extxyz", "--trajectories", 3, "--time", 0.6,
                 "--interval", 0.1, "--stop-grade", 1e9, "--seed", 4]  # fmt: skip
    process = begin(*arguments, "-o", work / "killed", "-j", 1)
    records = [work / "killed" / "trajectories.partial" / f"{k:03d}.json" for k in range(3)]
    assert soon(records[0].exists)
    done, processes = stop(process, signal.SIGTERM, group=False)
    assert done.returncode == 143
    assert "finished trajectories are kept" in done.stderr
    assert soon(lambda: gone(processes))
    assert 1 <= sum(path.exists() for path in records) < 3
    assert not (work / "killed" / "frames.csv").exists()
    for folder in ("killed", "whole"):
        result = run(*arguments, "-o", work / folder, "-j", 2)
        assert result.exit_code == 0, result.exception
    for name in ("frames.csv", "trajectories.csv", "trajectories.extxyz"):
        assert (work / "killed" / name).read_text() == (work / "whole" / name).read_text()


@pytest.mark.slow
def test_trajectories_of_other_input_are_repeated(work, monkeypatch):
    """Those of the same folder, whose record has the digest of everything that they depend on."""
    monkeypatch.setattr("paretofit.commands.exploration.shutil", SimpleNamespace(rmtree=lambda _: None))
    times = []
    for options in ({}, {}, {"seed": 2}, {"stop_errors": {"force": 1e9}}):
        explore_dynamics(work / "potential", [work / "bulk.extxyz"], work / "again", settings=SHORT, overwrite=True,
                         **options)  # fmt: skip
        times.append((work / "again" / "trajectories.partial" / "000.json").stat().st_mtime_ns)
    assert times[0] == times[1] < times[2] < times[3]


def test_structures_of_a_dataset_with_empty_space_are_skipped_and_named(tmp_path):
    slab = bulk("W", cubic=True)
    slab.center(vacuum=9.0, axis=2)
    potential = SimpleNamespace(elements=["W"])
    write_dataset(tmp_path / "d.h5", [bulk("W", cubic=True), slab], {}, [3, 57])
    structures, names, notes = read_start_structures(potential, [tmp_path / "d.h5"])
    assert len(structures) == 1
    assert names == ["d.h5:3"]
    (note,) = notes
    assert note.startswith(f"1 structure of 2 in {tmp_path / 'd.h5'} skipped")
    assert "disagree: 57 (the first: " in note
    write_dataset(tmp_path / "slab.h5", [slab], {}, [57])
    with pytest.raises(InputError, match="configuration 57 is periodic along its third cell vector"):
        read_start_structures(potential, [tmp_path / "slab.h5"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["potential", "al.extxyz"], "al.extxyz: configuration 0 contains Al, but the potential supports only W"),
        (["potential", "empty.extxyz"], "empty.extxyz"),
        (["potential", "none.extxyz"], "no file at none.extxyz"),
        (["none", "bulk.extxyz"], "none"),
        (["potential", "only_atom.extxyz"], "at least two atoms"),
        (["potential", "vacuum.extxyz"], "empty space"),
        (["potential", "bulk.extxyz", "--temperature", "hot"], "--temperature requires a number, or a range LOW,HIGH"),
        (["potential", "bulk.extxyz", "--temperature", "900,300"], "lower end first"),
        (["potential", "bulk.extxyz", "--pressure", "1,2,3"], "--pressure requires"),
        (["potential", "bulk.extxyz", "--interval", "20"], "'interval_ps', 20, is longer than 'time_ps'"),
        (["potential", "bulk.extxyz", "--time", "nan"], "time_ps"),
        (["potential", "bulk.extxyz", "--save-grade", "60"], "--save-grade or --stop-grade"),
        (["potential", "bulk.extxyz", "--max-force", "-1"], "must be positive"),
    ],
)
def test_bad_input_is_one_sentence_before_any_work(arguments, message, work, monkeypatch):
    monkeypatch.chdir(work)
    error = run("explore", *arguments, "-o", "bad", "-j", 1).exception
    assert isinstance(error, InputError), error
    assert message in str(error)
    assert not (work / "bad").exists()
