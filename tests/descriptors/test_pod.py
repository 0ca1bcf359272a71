"""Proper orthogonal descriptors: rows against LAMMPS and finite differences, nested sizes, and LAMMPS files."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from pydantic import ValidationError

from paretofit.core import InputError, get_shared_lammps, lammps_calculator
from paretofit.descriptors import (
    BAR_PER_EV_A3,
    GPA_PER_BAR,
    PodBasis,
    SnapBasis,
    compute_atom_rows,
    compute_configuration_rows,
    compute_configuration_rows_with_stress,
    compute_energy_rows,
    parse_basis,
)
from paretofit.potentials import (
    LinearPotential,
    check_exported_files,
    find_potential_files,
    read_pod,
    write_pod,
)

STEP = 2e-4  # Å
STENCIL = {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}


def make_alloy() -> Atoms:
    atoms = bulk("Be", cubic=False) * (2, 2, 1)
    atoms.rattle(0.1, seed=1)
    atoms.set_cell(atoms.cell @ np.array([[1, 0.05, 0.02], [0, 1.02, 0.1], [0, 0, 0.97]]), scale_atoms=True)
    atoms.symbols[[0, 3]] = "Cu"
    return atoms


def make_molecule() -> Atoms:
    return molecule("CH3CH2OH")


STRUCTURES = {"alloy": make_alloy(), "molecule": make_molecule()}


@pytest.fixture(params=STRUCTURES)
def atoms(request: pytest.FixtureRequest) -> Atoms:
    return STRUCTURES[request.param].copy()


def make_basis(atoms: Atoms, size: int = 6) -> PodBasis:
    return PodBasis(elements=sorted(set(atoms.get_chemical_symbols())), twojmax=size, rcut=4.0)


def test_force_rows_are_derivatives_of_the_energy_row(atoms: Atoms) -> None:
    basis = make_basis(atoms)
    _, force_rows = compute_configuration_rows(get_shared_lammps(), basis, atoms)
    for atom, direction in ((1, 0), (5, 2)):
        derivative = np.zeros(basis.n_features)
        for step, factor in STENCIL.items():
            moved = atoms.copy()
            moved.positions[atom, direction] += step * STEP
            derivative += factor / STEP * compute_energy_rows([moved], basis)[0] * len(atoms)
        np.testing.assert_allclose(
            force_rows[3 * atom + direction], -derivative, rtol=0, atol=1e-8 * np.abs(force_rows).max()
        )


@pytest.mark.parametrize("size", range(2, 8))
def test_small_sizes_are_leading_columns(atoms: Atoms, size: int) -> None:
    lammps, basis = get_shared_lammps(), make_basis(atoms, 8)
    small_basis, n = basis.resize(size), basis.count_columns_up_to(size)
    assert small_basis.n_features == n
    assert basis.column_names[:n] == small_basis.column_names
    for large, small in zip(
        compute_configuration_rows(lammps, basis, atoms),
        compute_configuration_rows(lammps, small_basis, atoms),
        strict=True,
    ):
        np.testing.assert_allclose(large[..., :n], small, rtol=0, atol=1e-12 * max(1.0, np.abs(small).max()))


def test_rows_of_atoms_and_configurations_agree(atoms: Atoms) -> None:
    lammps, basis = get_shared_lammps(), make_basis(atoms)
    energy_row, _ = compute_configuration_rows(lammps, basis, atoms)
    np.testing.assert_allclose(compute_atom_rows(lammps, basis, atoms).mean(axis=0), energy_row, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(compute_energy_rows([atoms], basis)[0], energy_row, rtol=1e-11, atol=1e-14)


def test_lammps_pair_style_has_the_energies_forces_and_stresses_of_the_rows(atoms: Atoms, tmp_path) -> None:
    """Oracle: LAMMPS's own ``pair_style pod`` with the written files, 1e-8."""
    basis = make_basis(atoms)
    coefficients = np.random.default_rng(3).normal(scale=0.01, size=basis.n_features)
    files = write_pod(tmp_path, "random", basis, coefficients)
    copy = atoms.copy()
    copy.calc = lammps_calculator(files.commands, files.elements)
    energy_row, force_rows = compute_configuration_rows(get_shared_lammps(), basis, atoms)
    assert copy.get_potential_energy() / len(atoms) == pytest.approx(energy_row @ coefficients, rel=1e-8)
    forces = (force_rows @ coefficients).reshape(-1, 3)
    np.testing.assert_allclose(copy.get_forces(), forces, rtol=0, atol=1e-8 * max(1.0, np.abs(forces).max()))
    if atoms.pbc.all():
        *_, stress_rows = compute_configuration_rows_with_stress(get_shared_lammps(), basis, atoms)
        stress = copy.get_stress() / units.bar * GPA_PER_BAR  # ASE's stress, with LAMMPS's pressure in bar
        np.testing.assert_allclose(stress_rows @ coefficients, stress, rtol=0, atol=1e-8 * GPA_PER_BAR * BAR_PER_EV_A3)


@pytest.mark.parametrize("size", [2, 5, 8])
def test_written_potential_is_read_back(tmp_path, size: int) -> None:
    basis = make_basis(STRUCTURES["alloy"], 8)
    coefficients = np.random.default_rng(3).normal(size=basis.count_columns_up_to(size))
    files = write_pod(tmp_path / "a b", "small", basis, coefficients)
    for path in (files.include, files.coefficients, files.parameters, tmp_path / "a b"):
        read_basis, read_coefficients, reference = read_pod(path)
        assert read_basis == basis.resize(size)
        np.testing.assert_array_equal(read_coefficients, coefficients)
        assert reference is None
    potential = LinearPotential.read(files.include)
    assert check_exported_files(find_potential_files(files.include), potential, [STRUCTURES["alloy"]]) < 1e-8


def test_basis_is_read_back_from_json() -> None:
    for basis in (PodBasis(elements=["Si"], twojmax=5, rcut=5.0), SnapBasis(elements=["Si"], twojmax=4)):
        assert parse_basis(basis.model_dump_json()) == basis


@pytest.mark.parametrize(
    ("line", "new_line", "words"),
    [
        ("fourbody_angular_degree 2", "fourbody_angular_degree 1", "must be 2"),
        ("rcut 4.0", "rcut x", "rcut"),
        ("species Be Cu", "", "no 'species'"),
        ("onebody 1", "onebody 0", "'onebody 0' is not supported"),
    ],
)
def test_other_parameters_are_refused(tmp_path, line: str, new_line: str, words: str) -> None:
    basis = make_basis(STRUCTURES["alloy"])
    files = write_pod(tmp_path, "be", basis, np.ones(basis.n_features))
    text = files.parameters.read_text()
    assert line in text
    files.parameters.write_text(text.replace(line, new_line))
    with pytest.raises(InputError, match=words):
        read_pod(files.include)


def test_damaged_coefficients_are_refused(tmp_path) -> None:
    basis = make_basis(STRUCTURES["alloy"])
    files = write_pod(tmp_path, "be", basis, np.ones(basis.n_features))
    lines = files.coefficients.read_text().splitlines()
    for content in (lines[:-1], [*lines[:-1], "x"], [*lines[:-1], "nan"], []):
        files.coefficients.write_text("\n".join(content))
        with pytest.raises(InputError, match=r"be\.podcoeff"):
            read_pod(files.include)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"rin": 5.0}, "rin must be smaller than rcut"),
        ({"rcut": 40.0}, "the cutoff, rcut, must lie between"),
        ({"twojmax": 1}, "greater than or equal to 2"),
        ({"twojmax": 13}, "less than or equal to 12"),
        ({"bessel_polynomial_degree": 1, "inverse_polynomial_degree": 2, "twojmax": 8}, "snapshots"),
        ({"rcutfac": 4.0}, "extra"),
        ({"elements": ["Be", "Be"]}, "appears twice"),
    ],
)
def test_invalid_bases_are_refused(keys: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PodBasis(**{"elements": ["Be"], **keys})
