"""Forces turn no molecule, and isolated atoms lie above solids by the cohesive energy."""

import re

import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron

from paretofit.consistency import check_labels, compare_labels
from paretofit.dataset import Dataset, LevelData, write_dataset


def label(atoms, energy_factor=1.0, change=lambda forces: forces):
    atoms.calc = EMT()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    atoms.calc = None
    return {"energy": energy * energy_factor, "forces": change(forces)}


@pytest.mark.parametrize(
    ("change", "n_found"),
    [(lambda f: f, 0), (lambda f: f + 0.002, 0), (lambda f: f[::-1], 4), (lambda f: f[:, [1, 2, 0]], 4)],
)
def test_a_torque_on_a_cluster(tmp_path, change, n_found):
    clusters = [Icosahedron("Cu", 2) for _ in range(4)]
    for seed, atoms in enumerate(clusters):
        atoms.rattle(0.1, seed=seed)
        atoms.pbc = False
    crystal = bulk("Cu", cubic=True)
    crystal.rattle(0.1, seed=1)
    structures = [*clusters, crystal]
    write_dataset(tmp_path / "d.h5", structures, {"a": LevelData([label(s, change=change) for s in structures])})
    with Dataset(tmp_path / "d.h5") as data:
        warnings = compare_labels(data)
    assert len(warnings) == bool(n_found)
    assert all(f"forces exert a torque on {n_found} of 4 molecules or clusters" in text for text in warnings)


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1.0, None),
        (units.mol / units.kcal, "energies look like kcal/mol"),
        (1 / units.Hartree, "energies look like .*hartree"),
        (-1.0, "energies have the opposite sign"),
    ],
)
def test_cohesive_energies(tmp_path, factor, message):
    """Total energies have another zero than EMT's, which only the isolated atom tells."""
    molecule = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.2]])
    structures = [Atoms("Cu", cell=[12, 12, 12], pbc=True), molecule, *(bulk("Cu", a=a) for a in (3.4, 3.6, 3.8))]
    labels = [label(atoms, factor) for atoms in structures]
    for atoms, values in zip(structures, labels, strict=True):
        values["energy"] += factor * -3000.0 * len(atoms)
    write_dataset(tmp_path / "d.h5", structures, {"a": LevelData(labels)})
    with Dataset(tmp_path / "d.h5") as data:
        warnings = check_labels(data)
    assert len(warnings) == (message is not None)
    assert all(re.search(message, text) for text in warnings)
