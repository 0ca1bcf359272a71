"""LAMMPS calculations of structures that are not periodic: energies and forces as in a large box, whatever the cell."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from paretofit import SnapBasis
from paretofit.core import lammps_calculator
from paretofit.potentials import LinearPotential, check_exported_files

LENNARD_JONES = ["pair_style lj/cut 6.0", "pair_coeff * * 0.2 2.2"]


def in_box(atoms, length=60.0):
    boxed = Atoms(atoms.symbols, atoms.positions, cell=[length] * 3, pbc=True)
    boxed.center()
    return boxed


def compute(atoms, calculator):
    copy = atoms.copy()
    copy.calc = calculator
    return copy.get_potential_energy(), copy.get_forces()


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms("Cu"),
        Atoms("Cu3", positions=[[0, 0, 0], [-2.4, 0, 0], [0, 2.6, -0.4]]),
        Atoms("Cu3", positions=[[0, 0, 0], [2.4, 0, 0], [9, 9, 9]], cell=[3.0, 3.0, 3.0]),
        Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.4]], cell=[[10, 0, 0], [0, 0, 0], [0, 0, 0]]),
    ],
    ids=["atom", "molecule", "outside of its cell", "flat cell"],
)
def test_molecules_have_the_energy_and_forces_of_a_large_box(atoms):
    energy, forces = compute(atoms, lammps_calculator(LENNARD_JONES, ["Cu"]))
    expected_energy, expected_forces = compute(in_box(atoms), lammps_calculator(LENNARD_JONES, ["Cu"]))
    assert energy == pytest.approx(expected_energy, abs=1e-10)
    np.testing.assert_allclose(forces, expected_forces, atol=1e-10)


def test_one_calculator_computes_molecules_slabs_and_crystals_in_any_order():
    slab = fcc111("Cu", (2, 2, 2))  # without a third cell vector
    slab.pbc = [True, True, False]
    slab.rattle(0.1, seed=1)
    slab_in_box = slab.copy()
    slab_in_box.center(vacuum=12, axis=2)
    slab_in_box.pbc = True
    crystal = bulk("Cu", cubic=True)
    crystal.rattle(0.1, seed=2)
    shared = lammps_calculator(LENNARD_JONES, ["Cu"])
    for atoms, reference in [(crystal, crystal), (Atoms("Cu"), Atoms("Cu", cell=[60] * 3, pbc=True)),
                             (slab, slab_in_box), (crystal, crystal)]:  # fmt: skip
        energy, forces = compute(atoms, shared)
        expected_energy, expected_forces = compute(reference, lammps_calculator(LENNARD_JONES, ["Cu"]))
        assert energy == pytest.approx(expected_energy, abs=1e-9)
        np.testing.assert_allclose(forces, expected_forces, atol=1e-9)


def test_exported_files_are_checked_on_atoms_and_molecules(tmp_path):
    basis = SnapBasis(elements=["H", "O"], twojmax=2, rcutfac=3.0)
    coefficients = np.random.default_rng(1).normal(size=basis.n_features)
    potential = LinearPotential(basis, coefficients)
    files = potential.write(tmp_path)
    structures = [Atoms("H"), molecule("H2O"), bulk("H", "sc", a=2.0), molecule("O2")]
    assert check_exported_files(files, potential, structures) < 1e-8
