"""Phonon dispersion and density of states from finite displacements, with phonopy."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms

from paretofit.core import Array
from paretofit.validation.crystal import compute_repeats
from paretofit.validation.quantity import Quantity

DISPLACEMENT_A = 0.01
MAX_IMAGINARY_THZ = -0.1  # frequencies between this value and zero are numerical noise around Γ
MESH_LENGTH_A = 100.0  # phonopy's parameter for the density of a mesh
POINTS_PER_SEGMENT = 40


@dataclass(frozen=True)
class PhononSpectrum:
    """Phonon frequencies of a crystal, THz; imaginary frequencies are negative.

    Attributes
    ----------
    bands : DataFrame
        A row per point of the path and mode: ``segment``, ``distance`` (1/Å, along the path), ``mode``,
        ``frequency``.
    labels : DataFrame
        ``distance`` and ``label`` of the special points.
    density_of_states : DataFrame
        ``frequency`` and ``density`` (1/THz per primitive cell).
    gamma_frequencies : (3n,) float64
        Frequencies at Γ.
    min_frequency, max_frequency : float
        Lowest and highest frequency of the path and the mesh.
    """

    bands: pd.DataFrame
    labels: pd.DataFrame
    density_of_states: pd.DataFrame
    gamma_frequencies: Array
    min_frequency: float
    max_frequency: float

    @property
    def has_imaginary_modes(self) -> bool:
        """Whether a frequency is below -0.1 THz, so that the crystal is dynamically unstable."""
        return self.min_frequency < MAX_IMAGINARY_THZ

    @property
    def quantities(self) -> list[Quantity]:
        """Lowest and highest frequency, highest frequency at Γ, and presence of imaginary modes."""
        return [
            Quantity("lowest frequency", "THz", self.min_frequency),
            Quantity("highest frequency", "THz", self.max_frequency),
            Quantity("highest frequency at Γ", "THz", float(self.gamma_frequencies.max())),
            Quantity("imaginary modes", "1 = yes", float(self.has_imaginary_modes)),
        ]


def compute_phonons(calculator: Any, atoms: Atoms, *, min_length: float) -> PhononSpectrum:
    """Compute phonons of a relaxed crystal in the harmonic approximation.

    Parameters
    ----------
    calculator : ase calculator
    atoms : ase.Atoms
        Relaxed crystal; phonopy finds the primitive cell.
    min_length : float
        Smallest distance between opposite faces of the supercell, Å; at least twice the cutoff.
    """
    from phonopy import Phonopy  # noqa: PLC0415  (an extra)
    from phonopy.structure.atoms import PhonopyAtoms  # noqa: PLC0415

    cell = PhonopyAtoms(numbers=atoms.numbers, cell=atoms.cell[:], scaled_positions=atoms.get_scaled_positions())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # phonopy 4 warns that 'auto' has become the default
        phonopy: Any = Phonopy(
            cell, supercell_matrix=np.diag(compute_repeats(atoms, min_length)), primitive_matrix="auto", log_level=0
        )
    phonopy.generate_displacements(distance=DISPLACEMENT_A)
    phonopy.forces = np.array([_compute_forces(calculator, cell) for cell in phonopy.supercells_with_displacements])
    phonopy.produce_force_constants()
    phonopy.symmetrize_force_constants()
    bands, labels = _compute_bands(phonopy)
    phonopy.run_mesh(MESH_LENGTH_A)
    frequencies = np.append(phonopy.mesh.frequencies, bands["frequency"])
    phonopy.run_total_dos()
    dos = phonopy.total_dos
    phonopy.run_qpoints([[0.0, 0.0, 0.0]])
    return PhononSpectrum(
        bands,
        labels,
        pd.DataFrame({"frequency": np.asarray(dos.frequency_points), "density": np.asarray(dos.dos)}),
        np.asarray(phonopy.qpoints.frequencies[0]),
        float(frequencies.min()),
        float(frequencies.max()),
    )


def _compute_forces(calculator: Any, cell: Any) -> Array:
    atoms = Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True, calculator=calculator)
    return np.asarray(atoms.get_forces())


def _compute_bands(phonopy: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compute frequencies along ASE's path for the primitive cell; return the tables of bands and special points."""
    primitive = phonopy.primitive
    path = Atoms(primitive.symbols, cell=primitive.cell, pbc=True).cell.bandpath()
    reciprocal = path.cell.reciprocal()[:]
    fractions = np.linspace(0, 1, POINTS_PER_SEGMENT)
    rows, labels, start = [], [], 0.0
    for segment, part in enumerate(path.path.split(",")):
        names = re.findall(r"[A-Za-z]\d*", part)  # "GX1K" is G, X1, K
        labels.append((start, names[0]))
        for first, second in pairwise(names):
            difference = path.special_points[second] - path.special_points[first]
            phonopy.run_qpoints(path.special_points[first] + fractions[:, None] * difference)
            length = float(np.linalg.norm(difference @ reciprocal))
            for x, frequencies in zip(start + fractions * length, phonopy.qpoints.frequencies, strict=True):
                rows += [(segment, x, mode, frequency) for mode, frequency in enumerate(frequencies)]
            start += length
            labels.append((start, second))
    return (
        pd.DataFrame(rows, columns=["segment", "distance", "mode", "frequency"]),
        pd.DataFrame(labels, columns=["distance", "label"]),
    )
