"""Units and signs: the shipped data, corrupted in one way each, raise the alarm; as they are, none."""

import re

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from conftest import ROOT, first_configurations
from helpers.importing import import_dataset

from paretofit import Dataset
from paretofit.consistency.unit_checks import find_unit_warnings
from paretofit.dataset import LevelData, write_dataset
from paretofit.dataset.io import read_labels

KBAR = 0.1 * units.GPa


def changed(path, level, quantity, factor, count=None, source="beryllium"):
    """The shipped data with one kind of label of one level multiplied by a factor, or by one for each label."""
    file = first_configurations() if source == "beryllium" else ROOT / "data" / f"{source}.h5"
    with Dataset(file) as shipped:
        data = shipped[:count]
        levels = {name: read_labels(data, name) for name in data.levels}
        factors = np.broadcast_to(factor, len(data))
        levels[level] = [
            {**label, quantity: label[quantity] * label_factor}
            for label, label_factor in zip(levels[level], factors, strict=True)
        ]
        write_dataset(path, list(data), {name: LevelData(column) for name, column in levels.items()}, data.ids.tolist())
    with Dataset(path) as data:
        return find_unit_warnings(data)


@pytest.mark.parametrize("source", ["beryllium", "beryllium_far"])
def test_the_shipped_data_raise_no_alarm(source):
    """Level 1, with the Gamma point only, is off by eV and by the signs of forces: convergence, not units."""
    with Dataset(ROOT / "data" / f"{source}.h5") as data:
        assert find_unit_warnings(data) == []
        rng = np.random.default_rng(0)
        for count in [1, 3, *range(5, 20, 4)]:
            assert find_unit_warnings(data.select(rng.permutation(len(data))[:count])) == []


@pytest.mark.parametrize("source", ["beryllium", "beryllium_far"])
@pytest.mark.parametrize(
    ("quantity", "factor", "message"),
    [
        ("energy", 1 / units.Hartree, "level 3: its energies are .* as if level 3 were in hartree instead of eV"),
        ("energy", 1 / units.Rydberg, "in rydberg instead of eV"),
        ("energy", units.mol / units.kcal, "in kcal/mol instead of eV"),
        ("energy", -1, "level 3: its energies are .* opposite sign"),
        ("forces", units.Bohr / units.Hartree, "level 3 were in hartree/bohr instead of eV/Å"),
        ("forces", units.Bohr / units.Rydberg, "level 3 were in rydberg/bohr instead of eV/Å"),
        ("forces", -1, r"level 3: its forces are -\d.* opposite sign"),
        ("forces", -units.Bohr / units.Hartree, "hartree/bohr instead of eV/Å and of the opposite sign"),
        ("stress", 1 / units.GPa, "level 3 were in GPa instead of eV/Å³"),
        ("stress", -1 / KBAR, "level 3 were in kbar instead of eV/Å³ and of the opposite sign"),
        ("stress", -1, "level 3: its stresses are .* opposite sign"),
    ],
)
def test_one_level_that_differs_by_a_unit_or_a_sign(tmp_path, source, quantity, factor, message):
    texts = changed(tmp_path / "d.h5", "3", quantity, factor, source=source)
    assert any(re.search(message, text) for text in texts), texts


def test_where_the_reference_is_wrong_it_is_named(tmp_path):
    texts = changed(tmp_path / "d.h5", "5", "forces", units.Bohr / units.Hartree)
    assert any("level 4: its forces" in text and "as if level 5 were in hartree/bohr" in text for text in texts)


def test_energies_per_atom_are_noticed(tmp_path):
    with Dataset(first_configurations()) as data:
        texts = changed(tmp_path / "d.h5", "4", "energy", 1 / data.n_atoms)
    assert any("level 4: its energies look like energies per atom" in text for text in texts)


def test_too_few_labels_say_nothing(tmp_path):
    assert changed(tmp_path / "d.h5", "3", "forces", -1, count=4) == []


@pytest.mark.parametrize("level", ["2", "3", "4", "5"])
def test_a_stress_of_the_wrong_sign_shows_within_a_level(tmp_path, level):
    texts = changed(tmp_path / "d.h5", level, "stress", -1, source="beryllium_far")
    assert any(text.startswith(f"level {level}: compressed cells are under tension") for text in texts)


def curve(path, energy=1.0, stress=1.0):
    """Copper between 0.8 and 1.3 of its volume, slightly shaken, with one level of labels in given units."""
    configurations, labels = [], []
    for k, scale in enumerate(np.linspace(0.8, 1.3, 13) ** (1 / 3)):
        atoms = bulk("Cu", cubic=True, a=3.6 * scale)
        atoms.rattle(0.02, seed=k)
        atoms.calc = EMT()
        label = {"energy": atoms.get_potential_energy() * energy, "forces": atoms.get_forces()}
        labels.append({**label, "stress": atoms.get_stress() * stress})
        configurations.append(Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True))
    write_dataset(path, configurations, {"emt": LevelData(labels)})
    with Dataset(path) as data:
        return find_unit_warnings(data)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"stress": 1 / units.GPa}, "as if the stresses were in GPa instead of eV/Å³"),
        ({"stress": 1 / KBAR}, "in kbar instead of eV/Å³"),
        ({"stress": -1 / KBAR}, "in kbar instead of eV/Å³, and the stresses have the opposite of ASE's sign"),
        ({"stress": 1e-3}, "stresses in kbar had been converted as if they were in bar"),
        ({"stress": -1}, "the opposite of ASE's sign"),
        ({"energy": 1 / units.Hartree}, "the energies were in hartree instead of eV"),
    ],
)
def test_energy_and_stress_must_fit_along_a_volume_curve(tmp_path, factors, message):
    """dE = V tr(stress) / 3 dlnV needs no second level."""
    texts = curve(tmp_path / "d.h5", **factors)
    assert len(texts) == 1
    assert message in texts[0]
    assert curve(tmp_path / "right.h5") == []


def test_stresses_beyond_all_solids(tmp_path):
    rng = np.random.default_rng(1)
    label = {"energy": -1.0, "forces": np.zeros((1, 3)), "stress": [40.0, 40, 40, 0, 0, 0]}
    write_dataset(
        tmp_path / "d.h5", [Atoms("Be", cell=np.eye(3) * rng.uniform(2, 3), pbc=True)], {"a": LevelData([label])}
    )
    with Dataset(tmp_path / "d.h5") as data:
        assert "look like GPa, kbar or bar" in find_unit_warnings(data)[0]


def test_published_data(shared_data, tmp_path):
    """FitSNAP's tantalum is right up to 3 TPa; the stresses of its W-Be set are kbar and called bar."""
    import_dataset(tmp_path / "ta.h5", {"dft": shared_data / "fitsnap_ta_linear" / "JSON"})
    with Dataset(tmp_path / "ta.h5") as data:
        assert find_unit_warnings(data) == []
    import_dataset(tmp_path / "be.h5", {"dft": shared_data / "fitsnap_be_json"})
    with Dataset(tmp_path / "be.h5") as data:
        (warning,) = find_unit_warnings(data)
    assert "stresses in kbar had been converted" in warning
