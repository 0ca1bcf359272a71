"""Constraints of ASE: no label, prediction or candidate depends on them."""

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLengths, FixCartesian, FixedLine, FixScaled, Hookean

from paretofit.commands import select_structures, validate_potential
from paretofit.dataset.io import read_frames
from paretofit.descriptors import SnapBasis
from paretofit.labelling import Level
from paretofit.labelling.engines import AseCalculator
from paretofit.potentials import LinearPotential
from paretofit.structures import AugmentSettings, generate_candidates

CONSTRAINTS = [
    FixAtoms([0, 1]),
    FixCartesian(0, [True, False, True]),
    FixedLine(1, [0, 0, 1]),
    FixScaled(2, [True, True, True]),
    FixBondLengths([(0, 1)]),
    Hookean(0, 1, 5.0, rt=1.0),
]


class UncopiedConstraint(FixAtoms):
    """A constraint that ASE cannot copy."""

    def __deepcopy__(self, memo):
        raise RuntimeError("this constraint cannot be copied")


def make_structure(constraint: object = None) -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    if constraint is not None:
        atoms.set_constraint(constraint)
    return atoms


def make_potential(n_members: int = 1) -> LinearPotential:
    basis = SnapBasis(elements=["Cu"], twojmax=2, rcutfac=4.0, quadratic=False)
    members = np.linspace(-1, 0.01, basis.n_features) * np.linspace(0.9, 1.1, n_members)[:, None]
    return LinearPotential(basis, members[0] if n_members == 1 else members)


@pytest.mark.parametrize("constraint", [*CONSTRAINTS, UncopiedConstraint([0])], ids=lambda item: type(item).__name__)
@pytest.mark.parametrize("n_members", [1, 3])
def test_calculator_computes_forces_of_constrained_atoms(constraint, n_members):
    potential, atoms = make_potential(n_members), make_structure(constraint)
    free = make_structure()
    free.calc = potential.calculator()  # its earlier name
    expected = free.get_forces()
    for structure in (atoms, free):
        structure.calc = potential.create_calculator(include_members=n_members > 1)
    np.testing.assert_allclose(atoms.get_forces(apply_constraint=False), expected, atol=1e-9)
    atoms.set_cell(atoms.cell[:] * 1.01, scale_atoms=True, apply_constraint=False)
    atoms.pbc = False
    assert np.abs(atoms.get_forces(apply_constraint=False)).min() > 0


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda item: type(item).__name__)
def test_label_does_not_depend_on_constraints(constraint, tmp_path):
    engine, level = AseCalculator(calculator="ase.calculators.emt.EMT"), Level(name="a")
    outcomes = [engine.compute(make_structure(item), level, 0, tmp_path) for item in (None, constraint)]
    assert outcomes[0].energy == outcomes[1].energy
    np.testing.assert_array_equal(outcomes[0].forces, outcomes[1].forces)
    np.testing.assert_array_equal(outcomes[0].stress, outcomes[1].stress)


@pytest.mark.parametrize(("name", "file_format"), [("POSCAR", "vasp"), ("a.extxyz", "extxyz"), ("a.traj", "traj")])
def test_constraints_of_files_are_dropped_with_a_note(name, file_format, tmp_path):
    ase.io.write(tmp_path / name, make_structure(FixAtoms([0])), format=file_format)
    frames = read_frames(tmp_path / name, None)
    assert not frames.atoms[0].constraints
    assert any("FixAtoms" in note and "dropped" in note for note in frames.notes)


def test_validation_relaxes_constrained_atoms_and_says_so(tmp_path):
    atoms = make_structure(FixAtoms([0, 1, 2, 3]))
    ase.io.write(tmp_path / "cu.vasp", atoms, format="vasp")
    result = validate_potential("ase.calculators.emt.EMT", tmp_path / "v", structures=[tmp_path / "cu.vasp"],
                                properties=["lattice"])  # fmt: skip
    row = result.table[result.table["quantity"] == "energy"].iloc[0]
    crystal = bulk("Cu", cubic=True, a=3.59)
    crystal.calc = EMT()
    assert row["potential"] == pytest.approx(crystal.get_potential_energy() / 4, abs=1e-4)
    for text in (result.text, Path(tmp_path / "v" / "validation.html").read_text()):
        assert "constraints of atoms (FixAtoms" in text


def test_candidates_do_not_depend_on_constraints():
    settings = AugmentSettings(n_candidates=6, seed=1)
    candidates = [
        list(generate_candidates([make_structure(item)], ["a"], settings))[-1].structures
        for item in (None, FixAtoms([0, 1, 2, 3]))
    ]
    for free, constrained in zip(*candidates, strict=True):
        np.testing.assert_array_equal(free.positions, constrained.positions)
        assert not constrained.constraints


def test_selection_says_that_constraints_are_dropped(tmp_path):
    structures = [make_structure(FixAtoms([0])) for _ in range(3)]
    for k, atoms in enumerate(structures):
        atoms.positions[1] += 0.05 * k
    ase.io.write(tmp_path / "a.extxyz", structures)
    selection = select_structures(
        tmp_path / "a.extxyz", 1, method="farthest-point", out=tmp_path / "o.extxyz", figures=False
    )
    assert any("dropped" in note for note in selection.notes)
