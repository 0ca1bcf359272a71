"""Isolated atoms in a dataset; the energies of their labels are the reference energies of models."""

import math
import re
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce

from paretofit.dataset.dataset import Dataset

ISOLATED_NAMES = {"isolatedatom", "isolated"}  # values of config_type in lower case, letters only


class IsolatedAtom(NamedTuple):
    """Isolated atom of a dataset.

    Attributes
    ----------
    dataset_index : int
        Position of the configuration in the dataset.
    symbol : str
        Chemical symbol of the element.
    distance : float
        Distance to the nearest periodic image in Å; infinite as in `measure_isolation`.
    """

    dataset_index: int
    symbol: str
    distance: float


def measure_isolation(atoms: Atoms, cutoff: float) -> float:
    """Return the distance (Å) between an isolated atom and its nearest periodic image; 0 if `atoms` is not isolated.

    A structure is not isolated if it has several atoms, or a periodic image within the `cutoff` (Å) of a model. The
    distance is infinite without periodic images, and for ``config_type=IsolatedAtom``: plane-wave codes compute
    isolated atoms in periodic boxes, and many files mark them in this way.
    """
    if len(atoms) != 1:
        return 0.0
    name = re.sub(r"[^a-z]", "", str(atoms.info.get("config_type", "")).lower())
    if name in ISOLATED_NAMES or not atoms.pbc.any():
        return math.inf
    images = np.array([shift for shift in product((-1, 0, 1), repeat=3) if any(shift)]) * atoms.pbc
    cell = minkowski_reduce(atoms.cell, atoms.pbc)[0]  # in a reduced cell, the nearest image is an adjacent one
    distances = np.linalg.norm(images[images.any(axis=1)] @ cell, axis=1)
    return float(distances.min()) if distances.min() > cutoff else 0.0


def find_isolated_atoms(dataset: Dataset, cutoff: float) -> list[IsolatedAtom]:
    """Return the isolated atoms of a dataset, in ascending order of the distance to their images.

    An atom is isolated if it has no periodic image within the `cutoff` (Å); see `measure_isolation`.
    """
    indices = np.flatnonzero(dataset.n_atoms == 1)
    single_atoms = [
        IsolatedAtom(index, atoms.symbols[0], measure_isolation(atoms, cutoff))
        for index, atoms in zip(indices.tolist(), dataset.select(indices), strict=True)
    ]
    return sorted((atom for atom in single_atoms if atom.distance > 0), key=lambda atom: atom.distance)


def read_isolated_energies(
    dataset: Dataset, isolated_atoms: Sequence[IsolatedAtom], level: str, *, drop_unconverged: bool = True
) -> dict[str, float]:
    """Return the energy (eV) of the isolated atom of each element at a level, by chemical symbol.

    If an element has several isolated atoms, the last one is used; `find_isolated_atoms` lists the atom with the most
    distant images last. Failed labels and, with `drop_unconverged`, unconverged labels are ignored; an element without
    any other label has no entry.

    Raises
    ------
    InputError
        If the dataset lacks the level.
    """
    selection = dataset.select(np.array([atom.dataset_index for atom in isolated_atoms], dtype=int))
    labels = selection.labels(level)
    is_used = np.isfinite(labels.energy) & ~labels.is_failed
    if drop_unconverged:
        is_used &= ~selection.find_unconverged(level)
    rows = zip(isolated_atoms, labels.energy.tolist(), is_used.tolist(), strict=True)
    return {atom.symbol: energy for atom, energy, is_label_used in rows if is_label_used}
