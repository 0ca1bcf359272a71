"""Labels that contradict their structures are found, named, and told from labels that are right."""

import re

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from helpers.corruptions import CORRUPTIONS, LabelSet, choose_targets

from paretofit.commands import import_labels, inspect_dataset
from paretofit.consistency import check_labels
from paretofit.consistency.hypotheses import list_ratio_hypotheses
from paretofit.consistency.label_fit import LabelFit
from paretofit.consistency.slopes import explain_slope
from paretofit.dataset import Dataset, LevelData, import_dataset, write_dataset

SHIPPED = "data/beryllium.h5"
QUICK = (
    "energies in Ry",
    "energies per atom",
    "forces of opposite sign",
    "positions in bohr",
    "forces in random order",
    "axes of the forces permuted",
    "labels of two configurations swapped",
    "5 eV more on one energy",
    "a third of the forces zero",
    "constant energies",
)


@pytest.fixture(scope="module")
def labels():
    """Level 5 of 150 shipped configurations."""
    with Dataset(SHIPPED) as data:
        view = data.select(np.arange(0, 420)[::3][:140])
        stored = view.labels("5")
        forces = [stored.forces[slice(*stored.offsets[k : k + 2])] for k in range(len(view))]
        structures = list(view)
        return LabelSet(structures, stored.energy, forces, stored.stress, choose_targets(structures, forces))


def write(path, *levels):
    write_dataset(
        path,
        levels[0].structures,
        {
            f"level{k}": LevelData(
                [
                    {"energy": energy, "forces": forces, "stress": stress}
                    for energy, forces, stress in zip(level.energies, level.forces, level.stresses, strict=True)
                ]
            )
            for k, level in enumerate(levels)
        },
    )
    return path


def test_right_labels_cause_no_warning(labels, tmp_path):
    with Dataset(write(tmp_path / "d.h5", labels)) as data:
        assert check_labels(data) == []


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in CORRUPTIONS]
)
def test_wrong_labels_are_named(labels, tmp_path, name):
    corruption = CORRUPTIONS[name]
    warnings = inspect_dataset(write(tmp_path / "d.h5", corruption.apply(labels))).warnings
    assert re.search(corruption.pattern, "\n".join(warnings)), warnings


@pytest.mark.parametrize(
    ("factor", "cause"),
    [(1.0, None), (-1.0, "opposite sign"), (units.Bohr / units.Hartree, "forces look like hartree/bohr")],
)
def test_the_slope_of_energies_against_forces(labels, factor, cause):
    fit = LabelFit(labels.structures)
    energies, forces = labels.energies / fit.n_atoms, [factor * values for values in labels.forces]
    force_errors = fit.compute_errors(energies, forces, energy_weight=0.0)
    finding = explain_slope(fit, energies, force_errors, list(list_ratio_hypotheses(fit, is_stretched=False)))
    assert (finding is None) == (cause is None)
    assert finding is None or cause in finding.causes[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["forces in hartree/bohr", "forces in Ry/bohr", "forces in eV/bohr"])
def test_energies_of_extreme_pressures_hide_no_wrong_unit(shared_data, tmp_path, name):
    """FitSNAP's tantalum reaches 3 TPa: its energies dominate a fit to energies and forces."""
    import_dataset(tmp_path / "ta.h5", {"dft": shared_data / "fitsnap_ta_linear" / "JSON"})
    with Dataset(tmp_path / "ta.h5") as data:
        stored, structures = data.labels("dft"), list(data)
    forces = [stored.forces[slice(*stored.offsets[k : k + 2])] for k in range(len(structures))]
    right = LabelSet(structures, stored.energy, forces, stored.stress, (0, 1))
    with Dataset(write(tmp_path / "d.h5", CORRUPTIONS[name].apply(right))) as data:
        (warning,) = check_labels(data)
    assert re.search(CORRUPTIONS[name].pattern, warning)


def test_alloys_of_many_compositions_cause_no_warning(tmp_path):
    """Forces do not determine the energies of the elements, by which these cells differ most."""
    rng, structures, labels = np.random.default_rng(0), [], []
    for k in range(60):
        atoms = bulk("Cu", "fcc", a=3.6 + 0.125 * (k % 5), cubic=True) * ((2, 1, 1) if k % 3 == 0 else (1, 1, 1))
        atoms.symbols = np.where(rng.random(len(atoms)) > (4 - k // 3 % 5) / 4, "Au", "Cu")
        atoms.set_cell(atoms.cell @ (np.eye(3) + 0.05 * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.1, rng=rng)
        atoms.calc = EMT()
        labels.append({"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()})
        structures.append(atoms.copy())
    write_dataset(tmp_path / "alloy.h5", structures, {"emt": LevelData(labels)})
    with Dataset(tmp_path / "alloy.h5") as data:
        assert not check_labels(data)


def test_the_same_labels_at_two_levels(labels, tmp_path):
    (warning,) = inspect_dataset(write(tmp_path / "d.h5", labels, labels)).warnings
    assert "levels level0 and level1" in warning
    assert "identical" in warning


def test_an_import_checks_its_labels(labels, tmp_path):
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write as write_file

    structures = [atoms.copy() for atoms in labels.structures[:40]]
    for atoms, energy, forces in zip(structures, labels.energies, labels.forces, strict=False):
        atoms.calc = SinglePointCalculator(atoms, energy=energy / 13.6057, forces=forces)
    write_file(tmp_path / "a.extxyz", structures)
    summary = import_labels(tmp_path / "d.h5", {"a": tmp_path / "a.extxyz"})
    assert any("rydberg: multiply them by 13.6057" in text for text in summary.warnings)


def test_flat_cells_are_not_checked(labels, tmp_path):
    structures = [atoms.copy() for atoms in labels.structures[:40]]
    structures[0].cell[0] = 0.0
    records = [
        {"energy": energy, "forces": forces}
        for energy, forces in zip(labels.energies[:40], labels.forces[:40], strict=True)
    ]
    write_dataset(tmp_path / "d.h5", structures, {"a": LevelData(records)})
    (warning,) = inspect_dataset(tmp_path / "d.h5").warnings
    assert warning.startswith("1 configuration is periodic along vectors that span no volume: 0; correct")


def test_a_few_labels_are_not_judged(labels, tmp_path):
    few = LabelSet(labels.structures[:8], -labels.energies[:8], labels.forces[:8], labels.stresses[:8], labels.targets)
    with Dataset(write(tmp_path / "d.h5", few)) as data:
        assert check_labels(data) == []


@pytest.fixture
def alloy():
    """24 cells of eight atoms of an alloy, of similar energies."""
    rng, structures = np.random.default_rng(0), []
    for seed in range(24):
        atoms = bulk("Cu", "fcc", 3.7 + 0.02 * rng.normal(), cubic=True) * (2, 1, 1)
        atoms.symbols[rng.choice(8, rng.integers(0, 5), replace=False)] = "Au"
        atoms.rattle(0.08, seed=seed)
        atoms.calc = EMT()
        structures.append(atoms)
    energies = [atoms.get_potential_energy() for atoms in structures]
    forces = [atoms.get_forces() for atoms in structures]
    return LabelSet([atoms.copy() for atoms in structures], np.array(energies), forces, np.zeros((24, 6)), {})


def test_one_extreme_label_is_not_a_wrong_unit_of_all(alloy, tmp_path):
    alloy.forces[5] *= 200
    with Dataset(write(tmp_path / "d.h5", alloy)) as data:
        (warning,) = check_labels(data)
    assert "configuration 5 (" in warning
    assert "is far from the others" in warning


def test_energies_per_atom_of_cells_of_one_size_are_named(alloy, tmp_path):
    alloy.energies[:] /= 8
    with Dataset(write(tmp_path / "d.h5", alloy)) as data:
        (warning,) = check_labels(data)
    assert "energies per atom: multiply each by its number of atoms" in warning
