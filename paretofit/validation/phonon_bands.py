"""Phonon dispersion and density of states from finite displacements, with phonopy.

Wave vectors of sheets and wires lie along their periodic directions. Molecules have vibrations instead of phonons.
"""

import re
import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms, units

from paretofit.core import Array
from paretofit.validation.crystal import compute_cell_heights, compute_repeats
from paretofit.validation.quantity import Quantity

DISPLACEMENT_A = 0.01  # displacement of an atom in crystals
# Displacement of an atom in other structures. The frequency of the twist of a wire vanishes only in the limit of small
# displacements: for a (6,0) carbon nanotube, it is imaginary, of 0.12 THz with 0.01 Å and of 0.02 THz with 0.002 Å.
LOW_DIMENSIONAL_DISPLACEMENT_A = 0.002
MAX_IMAGINARY_THZ = -0.1  # frequencies between this value and zero are numerical noise around Γ
MESH_LENGTH_A = 100.0  # phonopy's parameter for the density of a mesh of wave vectors
POINTS_PER_SEGMENT = 40  # number of wave vectors between two special points of a path
# frequency for an eigenvalue of 1 eV/(Å² u) of a dynamical matrix, whose square roots are angular frequencies
THZ_PER_ROOT_EIGENVALUE = 1e-12 * units.s / (2 * np.pi)
WAVENUMBER_PER_THZ = 1e12 / (100 * 299792458.0)  # 1/cm, with the speed of light in m/s


@dataclass(frozen=True)
class PhononSpectrum:
    """Phonon frequencies of a crystal, a sheet or a wire, THz; imaginary frequencies are negative.

    Attributes
    ----------
    bands : DataFrame
        A row for each mode at each point of the path: ``segment`` (part without a jump, from 0), ``distance`` (1/Å,
        along the path), ``mode`` (from 0), ``frequency`` (THz).
    special_points : DataFrame
        ``distance`` (1/Å) and name, ``label``, of the special points of the path.
    density_of_states : DataFrame
        ``frequency`` (THz) and ``density`` (1/THz per primitive cell).
    gamma_frequencies : (3n,) float64
        Frequencies at Γ (THz), with n atoms in the primitive cell.
    min_frequency, max_frequency : float
        Lowest and highest frequency of the path and the mesh, THz.
    """

    bands: pd.DataFrame
    special_points: pd.DataFrame
    density_of_states: pd.DataFrame
    gamma_frequencies: Array
    min_frequency: float
    max_frequency: float

    @property
    def has_imaginary_modes(self) -> bool:
        """Whether a frequency is below -0.1 THz, so that the structure is dynamically unstable."""
        return self.min_frequency < MAX_IMAGINARY_THZ

    @property
    def quantities(self) -> list[Quantity]:
        """Lowest and highest frequency, highest frequency at Γ, and presence of imaginary modes."""
        return [
            Quantity("lowest frequency", "THz", self.min_frequency),
            Quantity("highest frequency", "THz", self.max_frequency),
            Quantity("highest frequency at Γ", "THz", float(self.gamma_frequencies.max())),
            Quantity(
                "imaginary modes", "1 = yes", float(self.has_imaginary_modes), _describe_modes(self.has_imaginary_modes)
            ),
        ]


def compute_phonons(calculator: Any, atoms: Atoms, *, min_length: float) -> PhononSpectrum:
    """Compute phonons of a relaxed crystal, sheet or wire in the harmonic approximation.

    Parameters
    ----------
    calculator : ase calculator
    atoms : ase.Atoms
        Relaxed crystal (phonopy finds its primitive cell), or relaxed primitive cell of a sheet or a wire.
    min_length : float
        Smallest distance between opposite faces of the supercell, Å; it should be at least twice the cutoff.
    """
    phonopy = _compute_force_constants(calculator, atoms, min_length)
    bands, special_points = _compute_bands(phonopy, atoms.pbc)
    phonopy.run_mesh(_choose_mesh(atoms), is_gamma_center=True)
    frequencies = np.append(phonopy.mesh.frequencies, bands["frequency"])
    phonopy.run_total_dos()
    total_dos = phonopy.total_dos
    density = pd.DataFrame({"frequency": np.asarray(total_dos.frequency_points), "density": np.asarray(total_dos.dos)})
    phonopy.run_qpoints([[0.0, 0.0, 0.0]])
    gamma_frequencies = np.asarray(phonopy.qpoints.frequencies[0])
    min_frequency, max_frequency = float(frequencies.min()), float(frequencies.max())
    return PhononSpectrum(bands, special_points, density, gamma_frequencies, min_frequency, max_frequency)


@dataclass(frozen=True)
class MolecularVibrations:
    """Harmonic vibrations of a molecule, without its translations and rotations.

    Attributes
    ----------
    frequencies : (n_vibrations,) float64
        Frequencies, THz, in ascending order; imaginary frequencies are negative.
    """

    frequencies: Array

    @property
    def quantities(self) -> list[Quantity]:
        """Extreme frequencies, highest wavenumber, number of vibrations, imaginary modes; empty for a single atom."""
        if not len(self.frequencies):
            return []
        lowest_frequency, highest_frequency = float(self.frequencies[0]), float(self.frequencies[-1])
        has_imaginary_modes = lowest_frequency < MAX_IMAGINARY_THZ
        return [
            Quantity("lowest frequency", "THz", lowest_frequency),
            Quantity("highest frequency", "THz", highest_frequency),
            Quantity("highest wavenumber", "1/cm", highest_frequency * WAVENUMBER_PER_THZ),
            Quantity("vibrations", "", float(len(self.frequencies))),
            Quantity("imaginary modes", "1 = yes", float(has_imaginary_modes), _describe_modes(has_imaginary_modes)),
        ]

    @property
    def table(self) -> pd.DataFrame:
        """Table with the ``mode`` (from 1), ``frequency`` (THz) and ``wavenumber`` (1/cm) of each vibration."""
        mode_numbers, wavenumbers = range(1, len(self.frequencies) + 1), self.frequencies * WAVENUMBER_PER_THZ
        return pd.DataFrame({"mode": mode_numbers, "frequency": self.frequencies, "wavenumber": wavenumbers})


def compute_vibrations(calculator: Any, atoms: Atoms) -> MolecularVibrations:
    """Compute the vibrations of a relaxed molecule in the harmonic approximation.

    Translations and rotations of the n atoms are projected out of the dynamical matrix D, because remaining forces
    would give them frequencies that look like vibrations.
    """
    phonopy = _compute_force_constants(calculator, atoms, 0.0)
    n = len(atoms)
    root_masses = np.sqrt(np.repeat(atoms.get_masses(), 3))
    D = phonopy.force_constants.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n) / np.outer(root_masses, root_masses)
    arms = atoms.positions - atoms.get_center_of_mass()
    rigid_motions = [np.tile(axis, (n, 1)) for axis in np.eye(3)] + [np.cross(axis, arms) for axis in np.eye(3)]
    basis, scales, _ = np.linalg.svd(np.array([motion.ravel() * root_masses for motion in rigid_motions]).T)
    n_rigid = int((scales > 1e-3 * scales[0]).sum())  # 6, but 5 for linear molecules and 3 for an atom
    vibration_basis = basis[:, n_rigid:]  # orthogonal to the rigid motions
    eigenvalues = np.linalg.eigvalsh(vibration_basis.T @ D @ vibration_basis)
    frequencies = np.sign(eigenvalues) * np.sqrt(np.abs(eigenvalues)) * THZ_PER_ROOT_EIGENVALUE
    return MolecularVibrations(frequencies)


def _compute_force_constants(calculator: Any, atoms: Atoms, min_length: float) -> Any:
    """Compute the force constants of a supercell; return the Phonopy object that contains them."""
    from phonopy import Phonopy  # noqa: PLC0415  (an extra)
    from phonopy.structure.atoms import PhonopyAtoms  # noqa: PLC0415

    cell = PhonopyAtoms(numbers=atoms.numbers, cell=atoms.cell[:], scaled_positions=atoms.get_scaled_positions())
    # the vectors of phonopy's own primitive cell may have another order, in which the vacuum does not come last
    primitive_matrix: Any = "auto" if atoms.pbc.all() else np.eye(3)
    supercell_matrix = np.diag(compute_repeats(atoms, min_length))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # phonopy 4 warns that 'auto' has become the default
        phonopy: Any = Phonopy(cell, supercell_matrix=supercell_matrix, primitive_matrix=primitive_matrix, log_level=0)
    phonopy.generate_displacements(distance=DISPLACEMENT_A if atoms.pbc.all() else LOW_DIMENSIONAL_DISPLACEMENT_A)
    displaced_cells = phonopy.supercells_with_displacements
    phonopy.forces = np.array(
        [_compute_forces(calculator, displaced_cell, atoms.pbc) for displaced_cell in displaced_cells]
    )
    phonopy.produce_force_constants()
    phonopy.symmetrize_force_constants()
    return phonopy


def _choose_mesh(atoms: Atoms) -> Any:
    """Choose the mesh for phonopy: a length (Å) for crystals, otherwise three numbers of points, 1 along the vacuum."""
    if atoms.pbc.all():
        return MESH_LENGTH_A
    points = np.maximum(1, np.rint(MESH_LENGTH_A / compute_cell_heights(atoms))).astype(int)
    return np.where(atoms.pbc, points, 1).tolist()


def _compute_forces(calculator: Any, cell: Any, pbc: Array) -> Array:
    """Compute the forces, ``(n_atoms, 3)`` eV/Å, in a cell of phonopy with the given periodic directions."""
    atoms = Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=pbc, calculator=calculator)
    return np.asarray(atoms.get_forces())


def _compute_bands(phonopy: Any, pbc: Array) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compute frequencies (THz) along ASE's path for the primitive cell; return the bands and special points."""
    primitive_cell = phonopy.primitive
    cell = Atoms(primitive_cell.symbols, cell=primitive_cell.cell).cell
    path = cell.bandpath(pbc=pbc)
    reciprocal = cell.reciprocal()[:]
    fractions = np.linspace(0, 1, POINTS_PER_SEGMENT)
    rows, special_points, path_length = [], [], 0.0
    for segment, path_section in enumerate(path.path.split(",")):
        names = re.findall(r"[A-Za-z]\d*", path_section)  # "GX1K" is G, X1, K
        special_points.append((path_length, names[0]))
        for start_name, end_name in pairwise(names):
            difference = path.special_points[end_name] - path.special_points[start_name]
            phonopy.run_qpoints(path.special_points[start_name] + fractions[:, None] * difference)
            length = float(np.linalg.norm(difference @ reciprocal))
            distances = path_length + fractions * length
            for distance, frequencies in zip(distances, phonopy.qpoints.frequencies, strict=True):
                rows += [(segment, distance, mode, frequency) for mode, frequency in enumerate(frequencies)]
            path_length += length
            special_points.append((path_length, end_name))
    bands = pd.DataFrame(rows, columns=["segment", "distance", "mode", "frequency"])
    return bands, pd.DataFrame(special_points, columns=["distance", "label"])


def _describe_modes(has_imaginary_modes: bool) -> str:
    """Describe the problem of a structure with imaginary modes; return an empty text if there are none."""
    return "a displacement lowers the energy: the structure is not stable" if has_imaginary_modes else ""
