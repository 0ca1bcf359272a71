"""Weights of configurations, the core repulsion, and which members and pressures drive the dynamics."""

import numpy as np
import pandas as pd
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT

from paretofit import Dataset
from paretofit.core import lammps_calculator
from paretofit.dataset import LevelData, write_dataset
from paretofit.execution import RunContext
from paretofit.learning import LinearModel, PodModelSettings, SnapModelSettings, describe_progress
from paretofit.learning.evaluation import _compute_rmse, find_typical_members
from paretofit.learning.learn_settings import DownweightSettings, ToleranceSettings
from paretofit.learning.loop_summary import _describe_kinds, _describe_next, tabulate_errors_by_kind
from paretofit.learning.md_run import SURFACE_THICKNESS_A, MdBox
from paretofit.learning.set_balance import TRAIN, VALIDATE
from paretofit.learning.training_rows import build_core_repulsion, compute_configuration_weights
from paretofit.learning.training_set import TrainingData
from paretofit.potentials import check_exported_files, find_potential_files


@pytest.fixture(scope="module")
def training_data(tmp_path_factory):
    """Cu-Al alloys labelled by EMT, of which every fifth is compressed until the core repulsion acts."""
    folder, rng = tmp_path_factory.mktemp("alloy"), np.random.default_rng(0)
    structures = []
    for k in range(80):
        atoms = bulk("Cu", cubic=True, a=2.75 if k % 5 == 4 else 3.5 + 0.005 * k)
        atoms.symbols[rng.permutation(4)[: k % 5]] = "Al"
        atoms.rattle(0.08, seed=k)
        structures.append(atoms)
    rows = []
    for atoms in structures:
        atoms.calc = EMT()
        rows.append({"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()})
        atoms.calc = None
    write_dataset(folder / "d.h5", structures, {"emt": LevelData(rows)})
    sets = np.array([VALIDATE if k % 6 == 0 else TRAIN for k in range(80)])
    return TrainingData(
        Dataset(folder / "d.h5"), sets, np.full(80, "emt"), np.arange(80), np.ones(80, int), ["emt"], {}
    )


def test_weights_fall_with_the_energy_above_the_composition_and_with_forces(training_data):
    train = np.flatnonzero(training_data.sets == TRAIN)
    weights = compute_configuration_weights(training_data, train, DownweightSettings(energy=0.5, forces=2.0))
    labels = training_data.dataset.labels("emt")
    n = training_data.dataset.n_atoms
    al = np.array([np.mean(atoms.symbols == "Al") for atoms in training_data.dataset])
    energy = labels.energy / n
    line = np.polyfit(al[train], energy[train], 1)
    excess = energy - np.polyval(line, al)
    excess = np.maximum(excess - excess[train].min(), 0.0)
    rms = np.array([np.sqrt(np.mean(part**2)) for part in np.split(labels.forces, labels.offsets[1:-1])])
    expected = 1 / np.sqrt(1 + (excess / 0.5) ** 2 + (rms / 2.0) ** 2)
    assert weights == pytest.approx(expected, rel=1e-10)
    equal = compute_configuration_weights(training_data, train, DownweightSettings(energy=None, forces=None))
    assert (equal == 1).all()


@pytest.mark.parametrize(
    ("kind", "keys"),
    [(SnapModelSettings, {"quadratic": False}), pytest.param(PodModelSettings, {}, marks=pytest.mark.slow)],
    ids=["snap", "pod"],
)
def test_models_with_a_core_repulsion_fit_the_same_labels_and_repel(training_data, tmp_path, kind, keys):
    errors = {}
    for repels in (True, False):
        folder = tmp_path / str(repels)
        folder.mkdir()
        settings = kind(twojmax=4, members=4, core_repulsion=repels, **keys)
        model = LinearModel(settings, ["Al", "Cu"], folder)
        trained = model.train(training_data, folder / "model", seed=1, context=RunContext())
        potential = trained.committee.potential
        labels = training_data.dataset.labels("emt")
        deviations = [
            potential.predict(atoms).energy.mean() / len(atoms) - labels.energy[k] / len(atoms)
            for k, atoms in enumerate(training_data.dataset)
            if k % 5 != 4
        ]
        errors[repels] = np.sqrt(np.mean(np.square(deviations)))
    assert errors[True] < 1.5 * errors[False] + 1e-3
    folder = tmp_path / "True" / "model"
    potential = LinearModel(kind(core_repulsion=True), ["Al", "Cu"], tmp_path).load(folder)
    files = find_potential_files(folder / "potential.mod")
    assert check_exported_files(files, potential.potential, [training_data.dataset[0]]) < 1e-8
    if kind is PodModelSettings:  # its functions diverge as inverse powers of the distance, with a fitted sign
        return
    distances = [0.2, 0.4, 0.6, 0.8]
    energies = [potential.potential.predict(Atoms("CuAl", [[0, 0, 0], [0, 0, d]])).energy.mean() for d in distances]
    assert np.all(np.diff(energies) < 0)


def test_core_repulsion_is_the_zbl_potential_and_ends_below_bonds():
    reference = build_core_repulsion(["Ni", "Al"])
    calculator = lammps_calculator(reference.commands, ["Ni", "Al"])
    energies = []
    for distance in (0.5, 2.4):
        atoms = Atoms("NiAl", [[0, 0, 0], [distance, 0, 0]], cell=[30, 30, 30], pbc=True)
        atoms.calc = calculator
        energies.append(atoms.get_potential_energy())
    x = 0.5 / (0.46850 / (28**0.23 + 13**0.23))  # J. F. Ziegler, J. P. Biersack, U. Littmark (1985)
    screening = sum(
        c * np.exp(-d * x) for c, d in ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
    )
    coulomb = 28 * 13 * units._e / (4 * np.pi * units._eps0) * 1e10 / 0.5  # eV
    assert energies[0] == pytest.approx(coulomb * screening, rel=0.02)  # LAMMPS shifts it to end at the cutoff
    assert energies[1] == 0


def test_pressure_on_a_slab_acts_on_the_material_and_not_on_the_vacuum():
    slab = fcc111("Ni", (2, 2, 5), vacuum=10.0)
    slab.pbc = (True, True, False)
    thickness = np.ptp(slab.positions[:, 2])
    box = MdBox.from_structure(slab)
    expected = 50.0 * (thickness + SURFACE_THICKNESS_A) / box.cell[2, 2]
    assert box.scale_pressure(50.0) == pytest.approx(expected, rel=1e-6)
    assert MdBox.from_structure(bulk("Ni", cubic=True)).scale_pressure(50.0) == 50.0


def test_members_with_large_training_errors_do_not_drive():
    rmse = {"energy": {"by_member": [10.0, 12.0, 3000.0, 11.0]}, "forces": {"by_member": [100.0, 900.0, 120.0, 110.0]}}
    assert find_typical_members(rmse) == [0, 3]
    without_energies = {"energy": {"by_member": [np.nan] * 2}, "forces": {"by_member": [100.0, 500.0]}}
    assert find_typical_members(without_energies) == [0]


def test_errors_are_weighted_as_in_the_training():
    """Two configurations with errors 3 and 4 of an energy, and weights 1 and 0.5, by hand."""
    squares = np.full((2, 1, 3), np.nan)
    squares[:, 0, 0] = 9.0, 16.0
    errors, counts = np.sqrt(squares[:, 0]), np.array([[1, 0, 0], [1, 0, 0]])
    rmse = _compute_rmse(squares, errors, counts, np.array([1.0, 0.5]))
    assert rmse["energy"]["value"] == pytest.approx(np.sqrt(12.5))
    assert rmse["energy"]["weighted"] == pytest.approx(np.sqrt((9 + 16 / 4) / (1 + 1 / 4)))
    assert np.isnan(rmse["forces"]["weighted"])


def test_kinds_far_above_tolerance_are_named_also_with_one_label():
    rows = {
        "set": ["train", "test", "test", "test", "test", "validate"],
        "config_type": ["cluster", "cluster", "md", "md", "md", "vacancy"],
        "periodic": [0, 0, 2, 2, 2, 3],
        "n_atoms": 4,
        "energy_error": [1.0, 1400.0, 6.0, 6.0, 6.0, 1.0],
        "forces_error": [1.0, 2e4, 10.0, 10.0, 10.0, 1.0],
        "stress_error": np.nan,
    }
    table = tabulate_errors_by_kind(pd.DataFrame(rows).assign(input=""))
    text = _describe_kinds(table, ToleranceSettings(energy=5.0, forces=100.0))
    assert text.index("cluster (0D) (energy 1,400") < text.index("md (2D) (energy 6")
    assert "Not known, with fewer than 3 held-out configurations: vacancy (3D)" in text


def records(errors):
    """Records of a loop with these errors of every property on the first test set."""
    values = [{name: {"value": error} for name in ("energy", "forces", "stress")} for error in errors]
    return [(k, {"counts": {"train": 50 * k}, "rmse": {"first_test": rmse}}) for k, rmse in enumerate(values, 1)]


@pytest.mark.parametrize(
    ("errors", "text"),
    [
        ([20.0, 30.0, 10.0], "the energy error halved (from 20 to 10 meV/atom)"),
        ([20.0, 15.0], "the energy error fell by 25 % (from 20 to 15 meV/atom)"),
        ([20.0, 4.0], "the energy error fell by a factor of 5 (from 20 to 4 meV/atom)"),
        ([20.0, 22.0], "the energy error rose by 10 % (from 20 to 22 meV/atom)"),
        ([20.0, 20.1], "the energy error did not change"),
    ],
)
def test_progress_is_that_on_the_test_set_that_stays_the_same(errors, text):
    history = records(errors)
    for k, (_, record) in enumerate(history):  # the growing set reads as worse and does not count
        record["rmse"]["test"] = {"energy": {"value": 20.0 * (k + 1)}}
    assert describe_progress(history).startswith(f"On the first test set, which is the same in all iterations, {text}")
    assert describe_progress(history[:1]) == ""


def test_errors_on_new_frames_lead_where_errors_on_the_first_test_set_rise():
    history = records([20.0, 22.0, 24.0])
    for (_, record), error in zip(history[1:], (100.0, 25.0), strict=True):
        record["batch"] = {"energy": {"error": error}}
    text = describe_progress(history)
    assert text.startswith(
        "On new frames of its dynamics, before the training on them, the energy error fell by a factor of 4"
    )
    assert "On the first test set, which is the same in all iterations, the energy error rose by 20 %" in text
    falling = records([20.0, 15.0, 10.0])
    for (_, record), (_, source) in zip(falling, history, strict=True):
        record |= {"batch": source.get("batch")}
    assert describe_progress(falling).startswith("On the first test set")
    assert "On new frames of its dynamics" in describe_progress(falling)


def test_next_iteration_is_extrapolated_only_from_falling_errors():
    iterations = pd.DataFrame({"labels": [60, 50, 50]})
    assert "fewer than 3 iterations" in _describe_next(records([20.0, 10.0]), iterations)
    assert "have not fallen" in _describe_next(records([20.0, 10.0, 25.0]), iterations)
    assert "energy 8.66 instead of 10 meV/atom" in _describe_next(records([30.0, 15.0, 10.0]), iterations)
