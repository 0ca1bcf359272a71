"""Recognition of training structures in another description, and the record of a single potential."""

import json

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from conftest import ROOT

from paretofit import Dataset, InputError
from paretofit.commands import evaluate_dataset, fit_dataset
from paretofit.dataset import LevelData, write_dataset
from paretofit.potentials import LinearPotential
from paretofit.uncertainty import TRAIN, find_role, hash_structure

BERYLLIUM = ROOT / "data" / "beryllium.h5"


@pytest.fixture(scope="module")
def structures():
    with Dataset(BERYLLIUM) as data:
        return list(data.select(np.arange(40)))


@pytest.fixture(scope="module")
def roles(structures):
    return {hash_structure(atoms): TRAIN for atoms in structures}


def redescribe(atoms, rng):
    """Return the same structure in another orientation, origin and order of the atoms, with eight decimal places."""
    copy = atoms.copy()
    copy.rotate(37, (1, 2, 3), rotate_cell=True)
    copy.positions += rng.normal(size=3)
    copy = copy[rng.permutation(len(copy))]
    copy.wrap()
    copy.positions = np.round(copy.positions, 8)
    copy.cell = np.round(copy.cell[:], 8)
    return copy


def test_a_structure_is_recognised_in_any_description(structures, roles):
    rng = np.random.default_rng(1)
    assert all(find_role(roles, redescribe(atoms, rng)) == TRAIN for atoms in structures)


def test_a_displaced_atom_is_another_structure(structures, roles):
    for atoms in structures:
        copy = atoms.copy()
        copy.positions[0, 0] += 0.01
        assert find_role(roles, copy) is None


def test_exchanged_elements_are_another_structure():
    alloy = bulk("NaCl", "rocksalt", a=5.6) * (2, 1, 1)
    alloy.rattle(0.1, seed=1)
    exchanged = alloy.copy()
    exchanged.numbers = exchanged.numbers[[1, 0, 2, 3]]
    assert find_role({hash_structure(alloy): TRAIN}, alloy) == TRAIN
    assert find_role({hash_structure(alloy): TRAIN}, exchanged) is None


class TestRecord:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory, structures):
        folder = tmp_path_factory.mktemp("record")
        with Dataset(BERYLLIUM) as data:
            selected = data.select(np.arange(40))
            labels = selected.labels("5")
            forces = np.split(labels.forces, labels.offsets[1:-1])
            records = [{"energy": e, "forces": f} for e, f in zip(labels.energy, forces, strict=True)]
            write_dataset(folder / "d.h5", structures, {"dft": LevelData(records)})
        fit_dataset(folder / "d.h5", folder / "p", twojmax=2, held_out_fraction=0.25)
        return folder

    def test_errors_of_training_and_unseen_configurations_are_apart(self, folder, structures):
        rng = np.random.default_rng(2)
        with Dataset(BERYLLIUM) as data:
            others = list(data.select(np.arange(40, 45)))
        frames = [*others, *(redescribe(atoms, rng) for atoms in reversed(structures))]
        ase.io.write(folder / "other.extxyz", frames)
        table = evaluate_dataset(folder / "p", folder / "other.extxyz").table
        assert table["set"].value_counts().to_dict() == {"train": 30, "held out": 10, "new": 5}

    def test_a_record_of_another_potential_is_refused(self, folder):
        path = folder / "p" / "potential.training.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"coefficients": "0"}))
        with pytest.raises(InputError, match="belongs to another potential of the same name"):
            LinearPotential.read(folder / "p")
        path.unlink()
        evaluation = evaluate_dataset(folder / "p", folder / "d.h5")
        assert set(evaluation.table["set"]) == {"unknown"}
        assert "no record of its training set" in evaluation.text

    def test_outliers_are_named_with_their_unit(self, folder, tmp_path):
        with Dataset(folder / "d.h5") as data:
            labels = data.labels("dft")
            forces = np.split(labels.forces, labels.offsets[1:-1])
            records = [
                {"energy": np.nan if k == 3 else e + 50 * (k == 7), "forces": f}
                for k, (e, f) in enumerate(zip(labels.energy, forces, strict=True))
            ]
            write_dataset(tmp_path / "d.h5", list(data), {"dft": LevelData(records)})
        text = evaluate_dataset(folder / "p", tmp_path / "d.h5").text
        assert "energy_rmse meV/atom" in text
        assert "the energy error omits labels that are missing, NaN or infinite, in 1 of " in text
        assert "the force error omits" not in text
        line = next(line for line in text.splitlines() if line.startswith("largest energy errors (meV/atom; median"))
        assert "above 5 times the median): configurations 7 (" in line


@pytest.mark.parametrize(("missing", "words"), [("forces", "energies but no forces"), ("energy", "but no energies")])
def test_a_level_without_forces_or_energies_is_named(tmp_path, structures, missing, words):
    record = {"energy": -1.0, "forces": None}
    records = [
        {key: value for key, value in {**record, "forces": np.zeros((len(atoms), 3))}.items() if key != missing}
        for atoms in structures
    ]
    write_dataset(tmp_path / "d.h5", structures, {"dft": LevelData(records)})
    with pytest.raises(InputError, match=words):
        fit_dataset(tmp_path / "d.h5", tmp_path / "p")


def test_a_choice_without_leave_one_out_errors_is_said_to_be_one(tmp_path):
    with Dataset(BERYLLIUM) as data:
        selected = data.select(np.arange(1))
        labels = selected.labels("5")
        record = {"energy": labels.energy[0], "forces": labels.forces}
        write_dataset(tmp_path / "d.h5", list(selected), {"dft": LevelData([record])})
    text = fit_dataset(tmp_path / "d.h5", tmp_path / "p").text
    assert "leave-one-out errors are not determined" in text
    assert "ridge penalty" not in text
