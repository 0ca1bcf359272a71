"""Isolated atoms of a dataset, whose labels are the reference energies of models."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce

from paretofit.dataset.dataset import Dataset

ISOLATED_NAMES = {"isolatedatom", "isolated"}  # of config_type, in lower case and without other signs


class IsolatedAtom(NamedTuple):
    """Isolated atom in a dataset: its position there, its element, and the distance (Å) to its next image."""

    position: int
    symbol: str
    distance: float


def measure_isolation(atoms: Atoms, cutoff: float) -> float:
    """Return the distance (Å) of a single atom to its next image, infinite without images or if it is named isolated.

    The result is 0 for several atoms, and for an atom with an image within the cutoff (Å) of a model. Plane-wave codes
    compute isolated atoms in periodic boxes, and files name them by ``config_type=IsolatedAtom``.
    """
    if len(atoms) != 1:
        return 0.0
    name = re.sub(r"[^a-z]", "", str(atoms.info.get("config_type", "")).lower())
    if name in ISOLATED_NAMES or not atoms.pbc.any():
        return math.inf
    images = np.array([shift for shift in product((-1, 0, 1), repeat=3) if any(shift)]) * atoms.pbc
    cell = minkowski_reduce(atoms.cell, atoms.pbc)[0]
    distances = np.linalg.norm(images[images.any(axis=1)] @ cell, axis=1)
    return float(distances.min()) if distances.min() > cutoff else 0.0


def find_isolated_atoms(dataset: Dataset, cutoff: float) -> list[IsolatedAtom]:
    """Find the isolated atoms of a dataset, those with the most distant images last; see `measure_isolation`."""
    positions = np.flatnonzero(dataset.n_atoms == 1)
    pairs = zip(positions.tolist(), dataset.select(positions), strict=True)
    single_atoms = [IsolatedAtom(k, atoms.symbols[0], measure_isolation(atoms, cutoff)) for k, atoms in pairs]
    return sorted((atom for atom in single_atoms if atom.distance), key=lambda atom: atom.distance)


def read_isolated_energies(
    dataset: Dataset, isolated_atoms: Sequence[IsolatedAtom], level: str, *, drop_unconverged: bool = True
) -> dict[str, float]:
    """Return the energies (eV) of isolated atoms at a level by element, those with the most distant images if several.

    Labels of failed and, with `drop_unconverged`, of unconverged calculations are not used.
    """
    selection = dataset.select(np.array([atom.position for atom in isolated_atoms], dtype=int))
    labels = selection.labels(level)
    is_used = np.isfinite(labels.energy) & ~labels.failed
    if drop_unconverged:
        is_used &= ~selection.find_unconverged(level)
    rows = zip(isolated_atoms, labels.energy.tolist(), is_used.tolist(), strict=True)
    return {atom.symbol: energy for atom, energy, is_row_used in rows if is_row_used}
