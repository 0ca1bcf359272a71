"""Detection of structures that are equal except for the order of atoms, the orientation and the choice of the cell."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from ase import Atoms
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from paretofit.core import Array, InputError, format_count, get_shared_lammps, list_first
from paretofit.dataset import Dataset, assign_groups
from paretofit.dataset.quality import fingerprint_geometry
from paretofit.descriptors import compute_atom_descriptors
from paretofit.structures.structure_vectors import DUPLICATE_TWOJMAX, build_comparison_basis

DUPLICATE_KEY = "duplicate of"  # key that is added to the records from which groups are assigned
FINGERPRINT_TOLERANCE = 3e-4  # maximum distance of the normalised fingerprints of duplicates
VOLUME_TOLERANCE = 3e-4  # maximum relative difference of the volumes per atom of duplicates


def assign_duplicates(structures: Sequence[Atoms]) -> Array:
    """Assign structures to groups of duplicates.

    Duplicates have the same composition and periodic directions, and equal volumes per atom and fingerprints within
    tolerances. The fingerprint consists, for each element, of the mean and the standard deviation over its atoms of
    SNAP's bispectrum components. It does not depend on the order of the atoms, on rotations and translations, or on the
    choice of the cell, including supercells. If a is a duplicate of b, and b of c, all three are in one group.

    Parameters
    ----------
    structures : sequence of ase.Atoms

    Returns
    -------
    (n,) int64
        Number of the group of each structure. A structure without a duplicate is a separate group. So is a structure
        whose descriptors LAMMPS cannot compute, because its cell has no volume or atoms overlap.
    """
    members_by_kind: dict[tuple[str, bytes], list[int]] = {}
    for k, atoms in enumerate(structures):
        formula = atoms.symbols.formula.reduce()[0].format("hill")
        members_by_kind.setdefault((formula, atoms.pbc.tobytes()), []).append(k)
    duplicate_pairs = [np.empty((0, 2), dtype=int)]
    for members in members_by_kind.values():
        candidates = _find_equal_volumes(structures, np.array(members))
        fingerprints = _compute_fingerprints([structures[k] for k in candidates])
        has_fingerprint = np.array([fingerprint is not None for fingerprint in fingerprints], dtype=bool)
        if has_fingerprint.any():
            tree = cKDTree([fingerprint for fingerprint in fingerprints if fingerprint is not None])
            close_pairs = tree.query_pairs(FINGERPRINT_TOLERANCE, output_type="ndarray")
            duplicate_pairs.append(candidates[has_fingerprint][close_pairs])
    pairs = np.concatenate(duplicate_pairs)
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(structures), len(structures)))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def group_configurations(dataset: Dataset, keys: Sequence[str]) -> Array:
    """Assign configurations to groups by metadata, as `paretofit.dataset.assign_groups` does; duplicates share a group.

    Parameters
    ----------
    dataset : Dataset
    keys : sequence of str
        Keys of the metadata; configurations with equal values are in the same group.

    Returns
    -------
    (n,) int64
        Number of the group of each configuration.
    """
    duplicates = _assign_stored_duplicates(dataset.path, dataset.hash_structures(), tuple(dataset.ids.tolist()))
    records = [
        {**record, DUPLICATE_KEY: int(number)} for record, number in zip(dataset.info_records, duplicates, strict=True)
    ]
    return assign_groups(dataset.ids, records, [*keys, DUPLICATE_KEY])


def describe_near_duplicates(dataset: Dataset) -> str:
    """Describe configurations that are near-duplicates of earlier ones; return an empty string if there are none.

    A near-duplicate is in the same group of `assign_duplicates` as an earlier configuration, but its cell and positions
    differ from all earlier ones by more than rounding.
    """
    group_numbers = _assign_stored_duplicates(dataset.path, dataset.hash_structures(), tuple(dataset.ids.tolist()))
    first_ids: dict[int, int] = {}  # id of the first configuration of each group
    fingerprints: set[str] = set()
    pairs = []
    for atoms, number in zip(dataset, group_numbers.tolist(), strict=True):
        config_id, fingerprint = atoms.info["config_id"], fingerprint_geometry(atoms)
        if first_ids.setdefault(number, config_id) != config_id and fingerprint not in fingerprints:
            pairs.append(f"{config_id} ~ {first_ids[number]}")
        fingerprints.add(fingerprint)
    if not pairs:
        return ""
    return (
        f"{format_count(len(pairs), 'near-duplicate configuration')}, which differ from another one by the order of "
        "atoms, the orientation, the choice of the cell, or small displacements; a split keeps them together: "
        f"{list_first(pairs)}"
    )


@lru_cache(maxsize=8)
def _assign_stored_duplicates(path: Path, digest: str, ids: tuple[int, ...]) -> Array:
    """Assign the configurations with these ids in a dataset file to groups of duplicates.

    Results are cached, and must not be changed. The digest of the structures is only part of the key of the cache.
    """
    del digest
    with Dataset(path) as dataset:
        return assign_duplicates(list(dataset.select_ids(ids)))


def _find_equal_volumes(structures: Sequence[Atoms], members: Array) -> Array:
    """Return the members whose volume per atom equals that of another member, within `VOLUME_TOLERANCE`.

    `members`, ``(n,) int``, are indices of structures with the same periodic directions; the result is in the same
    order. Structures that are not periodic in three directions have no volume, so that all of them are returned.
    """
    member_structures = [structures[k] for k in members]
    volumes = np.array([atoms.cell.volume / len(atoms) if atoms.pbc.all() else 1.0 for atoms in member_structures])
    order = np.argsort(volumes, kind="stable")
    is_equal = np.diff(volumes[order]) <= VOLUME_TOLERANCE * volumes[order][1:]
    has_equal = np.append(is_equal, False) | np.insert(is_equal, 0, False)
    return members[np.sort(order[has_equal])]


def _compute_fingerprints(structures: Sequence[Atoms]) -> list[Array | None]:
    """Compute the normalised fingerprint, ``(n_statistics,) float64``, of each structure; see `assign_duplicates`.

    All structures must have the same elements. The fingerprint is None if LAMMPS cannot compute the descriptors.
    """
    if not structures:
        return []
    elements = sorted(set(structures[0].get_chemical_symbols()))
    basis, lammps = build_comparison_basis(elements, DUPLICATE_TWOJMAX), get_shared_lammps()
    fingerprints: list[Array | None] = []
    for atoms in structures:
        symbols = np.array(atoms.get_chemical_symbols())
        try:
            descriptors = compute_atom_descriptors(lammps, basis, atoms)
        except InputError:
            fingerprints.append(None)
            continue
        statistics = [
            function(descriptors[symbols == element], axis=0) for element in elements for function in (np.mean, np.std)
        ]
        fingerprint = np.concatenate(statistics)
        fingerprints.append(fingerprint / np.linalg.norm(fingerprint))
    return fingerprints
