"""Detection of structures with the same geometry, regardless of the order of atoms, the orientation and the cell."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from ase import Atoms
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from paretofit.core import Array, InputError, get_shared_lammps, list_first
from paretofit.dataset import Dataset, assign_groups
from paretofit.dataset.quality import fingerprint_geometry
from paretofit.descriptors import compute_atom_descriptors
from paretofit.structures.structure_vectors import DUPLICATE_TWOJMAX, make_comparison_basis

DUPLICATE_KEY = "duplicate of"  # key that is added to the records from which groups are assigned
TOLERANCE = 3e-4  # relative difference of the descriptors of duplicates
VOLUME_TOLERANCE = 3e-4  # relative difference of the volumes of duplicates


def assign_duplicates(structures: Sequence[Atoms]) -> Array:
    """Assign structures to groups of duplicates.

    The fingerprint of a structure consists of its composition, its volume per atom, and for each element the mean and
    the standard deviation over the atoms of SNAP's bispectrum components. It does not depend on the order of the atoms,
    on rotations and translations, or on the choice of the cell, supercells included.

    Parameters
    ----------
    structures : sequence of ase.Atoms

    Returns
    -------
    (n,) int64
        Number of the group of each structure. A structure without duplicate is a group of its own, and so is one whose
        descriptors LAMMPS cannot compute, because its cell has no volume or atoms overlap.
    """
    members_by_kind: dict[tuple[str, bytes], list[int]] = {}
    for k, atoms in enumerate(structures):
        formula = atoms.symbols.formula.reduce()[0].format("hill")
        members_by_kind.setdefault((formula, atoms.pbc.tobytes()), []).append(k)
    links = [np.empty((0, 2), dtype=int)]
    for members in members_by_kind.values():
        candidates = _find_equal_volumes(structures, np.array(members))
        fingerprints = _compute_fingerprints([structures[k] for k in candidates])
        has_fingerprint = np.array([fingerprint is not None for fingerprint in fingerprints], dtype=bool)
        if has_fingerprint.any():
            tree = cKDTree([fingerprint for fingerprint in fingerprints if fingerprint is not None])
            links.append(candidates[has_fingerprint][tree.query_pairs(TOLERANCE, output_type="ndarray")])
    pairs = np.concatenate(links)
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(structures), len(structures)))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def group_configurations(dataset: Dataset, keys: Sequence[str]) -> Array:
    """Assign configurations to groups by metadata, as `paretofit.dataset.assign_groups` does; duplicates share a group.

    Parameters
    ----------
    dataset : Dataset
    keys : sequence of str

    Returns
    -------
    (n,) int64
    """
    duplicates = _assign_stored_duplicates(dataset.path, dataset.hash_structures(), tuple(dataset.ids.tolist()))
    records = [
        {**record, DUPLICATE_KEY: int(number)} for record, number in zip(dataset.info_records, duplicates, strict=True)
    ]
    return assign_groups(dataset.ids, records, [*keys, DUPLICATE_KEY])


def describe_near_duplicates(dataset: Dataset) -> str:
    """Return a message about configurations that repeat an earlier one except for details, or an empty string.

    Details are the order of atoms, the orientation, the choice of the cell, and differences below the tolerance of
    `assign_duplicates`. Configurations whose cell and positions are equal to rounding are not counted.
    """
    numbers = _assign_stored_duplicates(dataset.path, dataset.hash_structures(), tuple(dataset.ids.tolist()))
    first_ids: dict[int, int] = {}
    fingerprints: set[str] = set()
    pairs = []
    for atoms, number in zip(dataset, numbers.tolist(), strict=True):
        config_id, fingerprint = atoms.info["config_id"], fingerprint_geometry(atoms)
        if first_ids.setdefault(number, config_id) != config_id and fingerprint not in fingerprints:
            pairs.append(f"{config_id} ~ {first_ids[number]}")
        fingerprints.add(fingerprint)
    if not pairs:
        return ""
    return (
        f"{len(pairs)} near-duplicate configurations, which differ from another one by the order of atoms, the "
        "orientation, the choice of the cell, or small displacements; a split keeps them together: "
        f"{list_first(pairs)}"
    )


@lru_cache(maxsize=8)
def _assign_stored_duplicates(path: Path, digest: str, ids: tuple[int, ...]) -> Array:
    """Assign configurations of a dataset to groups of duplicates; the digest of the geometries is a cache key only."""
    del digest
    with Dataset(path) as data:
        return assign_duplicates(list(data.select_ids(ids)))


def _find_equal_volumes(structures: Sequence[Atoms], members: Array) -> Array:
    """Return members whose volume per atom equals that of another, within the tolerance; all if not periodic."""
    selection = [structures[k] for k in members]
    volumes = np.array([atoms.cell.volume / len(atoms) if atoms.pbc.all() else 1.0 for atoms in selection])
    order = np.argsort(volumes, kind="stable")
    is_equal = np.diff(volumes[order]) <= VOLUME_TOLERANCE * volumes[order][1:]
    has_equal = np.append(is_equal, False) | np.insert(is_equal, 0, False)
    return members[np.sort(order[has_equal])]


def _compute_fingerprints(structures: Sequence[Atoms]) -> list[Array | None]:
    """Return normalized descriptors, ``(n_descriptors,)``, of structures with the same elements; None for failures."""
    if not structures:
        return []
    elements = sorted(set(structures[0].get_chemical_symbols()))
    basis, lammps = make_comparison_basis(elements, DUPLICATE_TWOJMAX), get_shared_lammps()
    fingerprints: list[Array | None] = []
    for atoms in structures:
        symbols = np.array(atoms.get_chemical_symbols())
        try:
            values = compute_atom_descriptors(lammps, basis, atoms)
        except InputError:
            fingerprints.append(None)
            continue
        statistics = [
            function(values[symbols == element], axis=0) for element in elements for function in (np.mean, np.std)
        ]
        fingerprint = np.concatenate(statistics)
        fingerprints.append(fingerprint / np.linalg.norm(fingerprint))
    return fingerprints
