"""Phonon dispersion and density of states by phonopy, from finite displacements."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from ase import Atoms

from paretofit.validation.crystal import compute_repeats
from paretofit.validation.quantity import Quantity

if TYPE_CHECKING:
    from paretofit.core import Array

DISPLACEMENT = 0.01  # Å
IMAGINARY = -0.1  # THz; above it is the noise of displacements around Γ
MESH = 100.0  # phonopy's length of a mesh, Å
PATH_POINTS = 40


@dataclass(frozen=True)
class PhononSpectrum:
    """Frequencies of a crystal, THz; imaginary ones negative.

    Attributes
    ----------
    bands : DataFrame
        A row per point of the path and mode: ``segment``, ``distance`` (1/Å, along the path),
        ``mode``, ``frequency``.
    labels : DataFrame
        ``distance`` and ``label`` of the special points.
    density_of_states : DataFrame
        ``frequency`` and ``density_of_states`` (1/THz for each primitive cell).
    gamma_frequencies : (3n,) float64
    min_frequency, max_frequency : float
        Over the path and the mesh.
    """

    bands: pd.DataFrame
    labels: pd.DataFrame
    density_of_states: pd.DataFrame
    gamma_frequencies: Array
    min_frequency: float
    max_frequency: float

    @property
    def has_imaginary_modes(self) -> bool:
        """Whether there is a mode below -0.1 THz: the crystal is not stable."""
        return self.min_frequency < IMAGINARY

    @property
    def quantities(self) -> list[Quantity]:
        """Extremes, the highest mode at Γ, and whether there are imaginary modes."""
        return [
            Quantity("lowest frequency", "THz", self.min_frequency),
            Quantity("highest frequency", "THz", self.max_frequency),
            Quantity("highest frequency at Γ", "THz", float(self.gamma_frequencies.max())),
            Quantity("imaginary modes", "1 = yes", float(self.has_imaginary_modes)),
        ]


def compute_phonons(calculator: Any, atoms: Atoms, *, min_length: float) -> PhononSpectrum:
    """Phonons of a relaxed crystal in the harmonic approximation.

    Parameters
    ----------
    calculator : ase calculator
    atoms : ase.Atoms
        Relaxed; phonopy finds the primitive cell.
    min_length : float
        Of the supercell, at least, between opposite faces, Å: twice the cutoff or more.
    """
    from phonopy import Phonopy  # noqa: PLC0415  (an extra)
    from phonopy.structure.atoms import PhonopyAtoms  # noqa: PLC0415

    cell = PhonopyAtoms(numbers=atoms.numbers, cell=atoms.cell[:], scaled_positions=atoms.get_scaled_positions())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # phonopy 4 says that 'auto' was not the default once
        phonopy: Any = Phonopy(
            cell, supercell_matrix=np.diag(compute_repeats(atoms, min_length)), primitive_matrix="auto", log_level=0
        )
    phonopy.generate_displacements(distance=DISPLACEMENT)
    phonopy.forces = np.array([_forces(calculator, one) for one in phonopy.supercells_with_displacements])
    phonopy.produce_force_constants()
    phonopy.symmetrize_force_constants()
    bands, labels = _dispersion(phonopy)
    phonopy.run_mesh(MESH)
    frequencies = np.asarray(phonopy.mesh.frequencies)
    phonopy.run_total_dos()
    dos = phonopy.total_dos
    phonopy.run_qpoints([[0.0, 0.0, 0.0]])
    return PhononSpectrum(
        bands,
        labels,
        pd.DataFrame({"frequency": np.asarray(dos.frequency_points), "density": np.asarray(dos.dos)}),
        np.asarray(phonopy.qpoints.frequencies[0]),
        float(min(frequencies.min(), bands["frequency"].min())),
        float(max(frequencies.max(), bands["frequency"].max())),
    )


def _forces(calculator: Any, cell: Any) -> Array:
    displaced = Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)
    displaced.calc = calculator
    return np.asarray(displaced.get_forces())


def _dispersion(phonopy: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Along ASE's path for the primitive cell, a segment at a time."""
    primitive = phonopy.primitive
    path = Atoms(primitive.symbols, cell=primitive.cell, pbc=True).cell.bandpath()
    reciprocal = path.cell.reciprocal()[:]
    rows, labels, start = [], [], 0.0
    for segment, part in enumerate(path.path.split(",")):
        names = _points(part)
        labels.append((start, names[0]))
        for first, second in pairwise(names):
            ends = path.special_points[first], path.special_points[second]
            step = np.linspace(0, 1, PATH_POINTS)
            points = ends[0] + step[:, None] * (ends[1] - ends[0])
            phonopy.run_qpoints(points)
            length = float(np.linalg.norm((ends[1] - ends[0]) @ reciprocal))
            for x, values in zip(start + step * length, phonopy.qpoints.frequencies, strict=True):
                rows += [(segment, x, mode, value) for mode, value in enumerate(values)]
            start += length
            labels.append((start, second))
    return (
        pd.DataFrame(rows, columns=["segment", "distance", "mode", "frequency"]),
        pd.DataFrame(labels, columns=["distance", "label"]),
    )


def _points(part: str) -> list[str]:
    """``"GX1K"`` as G, X1, K."""
    names: list[str] = []
    for letter in part:
        if letter.isalpha():
            names.append(letter)
        else:
            names[-1] += letter
    return names
