"""Cells cut out of large structures: the environment is preserved, and the faces fit together."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule, nanotube
from ase.neighborlist import neighbor_list

from paretofit import InputError
from paretofit.structures import cut_out_environment, find_nearest_distance

RADIUS = 5.0


def large_structures() -> dict[str, Atoms]:
    sheet = graphene(size=(10, 10, 1), vacuum=7.0)
    sheet.pbc = (True, True, False)
    slab = fcc111("Al", (8, 8, 5), vacuum=8.0)
    slab.pbc = (True, True, False)
    tube = nanotube(6, 0, length=12)
    tube.center(vacuum=6.0, axis=(0, 1))
    tube.pbc = (False, False, True)
    cells = {
        "bcc": bulk("W", cubic=True).repeat(8),
        "B2": bulk("NiAl", "cesiumchloride", a=2.88).repeat(8),
        "diamond": bulk("Si", cubic=True).repeat(5),
        "rhombohedral": bulk("Cu").repeat(10),
        "hcp": bulk("Be", a=2.286, c=3.58).repeat((8, 8, 6)),
    }
    return {**cells, "sheet": sheet, "slab": slab, "tube": tube}


def environment(atoms: Atoms, index: int) -> np.ndarray:
    """Sorted relative positions and numbers of the neighbours of an atom."""
    first, second, vectors = neighbor_list("ijD", atoms, RADIUS)
    rows = np.column_stack([atoms.numbers[second], np.round(vectors, 7)])[first == index]
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("name", large_structures())
def test_environment_is_preserved_and_no_pair_is_closer(name):
    atoms = large_structures()[name]
    atoms.rattle(0.08, seed=3)
    index = len(atoms) // 3
    cell = cut_out_environment(atoms, index, RADIUS)
    assert len(cell) < len(atoms)
    assert (cell.pbc == atoms.pbc).all()
    assert np.allclose(environment(cell, 0), environment(atoms, index))
    assert find_nearest_distance(cell) >= 0.9 * find_nearest_distance(atoms) - 1e-9
    assert set(cell.symbols) == set(atoms.symbols)
    outside = ~np.asarray(cell.pbc)
    assert np.allclose(cell.cell.lengths()[outside], atoms.cell.lengths()[outside])
    if atoms.pbc.all():
        assert len(cell) / cell.get_volume() == pytest.approx(len(atoms) / atoms.get_volume(), rel=0.03)


@pytest.mark.parametrize("name", ["bcc", "diamond", "sheet"])
def test_perfect_lattices_repeat(name):
    """Where a lattice repeats, all environments of the cell are those of the lattice."""
    atoms = large_structures()[name]
    cell = cut_out_environment(atoms, 0, RADIUS)
    bond = 1.1 * find_nearest_distance(atoms)
    coordination = np.bincount(neighbor_list("i", atoms, bond), minlength=len(atoms))
    assert (np.bincount(neighbor_list("i", cell, bond), minlength=len(cell)) == coordination[0]).all()


def test_small_structures_are_not_cut():
    atoms = bulk("W", cubic=True).repeat(3)
    assert cut_out_environment(atoms, 0, 6.0) == atoms


def test_molecules_are_refused():
    with pytest.raises(InputError, match="only along periodic directions"):
        cut_out_environment(molecule("C60"), 0, RADIUS)
