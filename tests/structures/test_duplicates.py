"""Duplicates are found in any order of atoms, orientation and cell, and stay on one side of a split."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from paretofit.commands import inspect_dataset
from paretofit.dataset import Dataset, LevelData, split_configurations, write_dataset
from paretofit.structures import assign_duplicates, group_configurations


def rattled(symbol, seed, cubic=True):
    atoms = bulk(symbol, cubic=cubic).repeat((2, 1, 1))
    atoms.set_cell(atoms.cell * (1 + 0.003 * seed), scale_atoms=True)
    atoms.rattle(0.05, seed=seed)
    return atoms


CHANGES = {
    "order of atoms": lambda atoms: atoms[np.random.default_rng(0).permutation(len(atoms))],
    "orientation": lambda atoms: (atoms.rotate(40, (1, 2, 3), rotate_cell=True), atoms)[1],
    "origin": lambda atoms: (atoms.translate((0.3, 1.0, 2.0)), atoms.wrap(), atoms)[2],
    "supercell": lambda atoms: atoms.repeat((1, 2, 1)),
    "digits": lambda atoms: (atoms.set_positions(atoms.positions.round(5)), atoms)[1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_of_crystals(change):
    structures = [rattled("Si", seed) for seed in range(4)]
    groups = assign_duplicates([*structures, CHANGES[change](structures[2].copy())])
    assert groups[4] == groups[2]
    assert len(set(groups.tolist())) == 4


def test_of_molecules_and_compounds():
    water, ammonia = molecule("H2O"), molecule("NH3")
    turned = water[[2, 0, 1]]
    turned.rotate(77, "x")
    bent = water.copy()
    bent.rattle(0.05, seed=3)
    groups = assign_duplicates([water, ammonia, turned, bent])
    assert groups[0] == groups[2]
    assert len(set(groups.tolist())) == 3


def test_twins_are_on_one_side_of_a_split(tmp_path):
    structures = [rattled("Cu", seed) for seed in range(20)]
    twins = [CHANGES["order of atoms"](atoms.copy()) for atoms in structures]
    labels = [{"energy": -1.0, "forces": np.zeros((len(atoms), 3))} for atoms in structures * 2]
    write_dataset(tmp_path / "d.h5", [*structures, *twins], {"a": LevelData(labels)})
    with Dataset(tmp_path / "d.h5") as data:
        groups = group_configurations(data, [])
    train = set(split_configurations(groups, 0.5, 1).train.tolist())
    assert all((k in train) == (k + 20 in train) for k in range(20))


def test_info_counts_them(tmp_path):
    structures = [rattled("Si", seed) for seed in range(3)]
    flat = Atoms("Si", cell=[[3, 0, 0], [0, 3, 0], [3, 3, 0]], pbc=True)
    copies = [structures[0].copy(), CHANGES["order of atoms"](structures[1])]
    copies.append(CHANGES["orientation"](structures[2].copy()))
    write_dataset(tmp_path / "d.h5", [*structures, flat, flat, *copies], {"a": LevelData([None] * 8)})
    warnings = inspect_dataset(tmp_path / "d.h5").warnings
    assert any("2 duplicate configurations: 4 = 3, 5 = 0" in text for text in warnings)
    (near,) = (text for text in warnings if "near-duplicate" in text)
    assert near.startswith("2 near-duplicate configurations")
    assert near.endswith("6 ~ 1, 7 ~ 2")


def test_each_element_is_in_the_training_set():
    elements = [{29}] * 9 + [{29, 47}]
    for seed in range(10):
        assert 9 in split_configurations(np.arange(10), 0.5, seed, elements).train
