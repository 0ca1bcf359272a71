"""Summary of a dataset: counts, ranges, and warnings about suspicious structures and labels."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from ase.neighborlist import natural_cutoffs, neighbor_list
from scipy.spatial import cKDTree

from paretofit.core import Array, list_first
from paretofit.dataset.checks import MIN_CELL_VECTOR_LENGTH
from paretofit.dataset.labelled import Labels
from paretofit.dataset.stored_dataset import StoredDataset

MIN_DISTANCE_RATIO = 0.6  # distance between two atoms, relative to the sum of their covalent radii
MAX_NET_FORCE = 0.01  # eV/Å per atom; the forces of plane-wave codes sum to a few meV/Å per atom
MIN_SINGULAR_VALUE = 1e-6  # of the matrix of normalised cell vectors; below it, they count as linearly dependent
MAX_DISTANCE_MATRIX_ATOMS = 64  # up to this size, computing all distances is faster than a neighbour list
TABLE_HEADER = "level      energies  forces stresses  failed      mean s         energy, eV/atom  max force, eV/Å"


@dataclass(frozen=True)
class LevelSummary:
    """Counts, cost and ranges of the labels of one level.

    Attributes
    ----------
    name : str
    settings : dict
        Settings of the calculations.
    n_energies, n_forces, n_stresses : int
        Numbers of configurations whose energy, forces or stress are all finite.
    n_failed : int
        Number of failed calculations.
    mean_seconds : float
        Mean cost of a label in s; NaN if no cost is recorded.
    energy_range : (float, float)
        Lowest and highest energy in eV/atom; NaN without energies.
    max_force : float
        Largest magnitude of the force on an atom in eV/Å; NaN without forces.
    """

    name: str
    settings: dict[str, Any]
    n_energies: int
    n_forces: int
    n_stresses: int
    n_failed: int
    mean_seconds: float
    energy_range: tuple[float, float]
    max_force: float


@dataclass(frozen=True)
class DatasetSummary:
    """Counts, ranges and warnings of a dataset.

    Attributes
    ----------
    path : str
    n_configurations, n_atoms : int
    atoms_range : (int, int)
        Smallest and largest number of atoms of a configuration.
    species : dict of str to int
        Number of atoms of each element.
    config_types : dict of str to int
        Number of configurations of each type, the most common first; ``"-"`` for configurations without a type.
    volume_range : (float, float)
        Smallest and largest volume in Å³/atom, see `describe_dataset`.
    levels : list of LevelSummary
    warnings : list of str
    grid : str
        Sentence about the errors that limit a grid of cutoffs and k-point spacings; empty if it was not determined.
    """

    path: str
    n_configurations: int
    n_atoms: int
    atoms_range: tuple[int, int]
    species: dict[str, int]
    config_types: dict[str, int]
    volume_range: tuple[float, float]
    levels: list[LevelSummary]
    warnings: list[str]
    grid: str = ""


def describe_dataset(dataset: StoredDataset) -> DatasetSummary:
    """Summarize a dataset and check its structures and labels.

    Warnings report duplicate configurations, periodic cells without volume, atoms closer than 0.6 times the sum of
    their covalent radii, missing, failed or unconverged labels, negative costs, and forces that do not sum to zero.
    Missing labels are not reported if more than half of a level are missing and none has failed. Units, signs and
    differences between levels are not checked; `paretofit.consistency.check_labels` does that.

    Parameters
    ----------
    dataset : Dataset

    Returns
    -------
    DatasetSummary
        The volume range covers the configurations that are periodic in three directions and have a volume, and is NaN
        without them; ``grid`` is empty.

    Raises
    ------
    InputError
        If the dataset cannot be read (closed or corrupt).
    """
    survey = _survey_structures(dataset)
    warnings = _find_structure_warnings(survey)
    levels = []
    for name in dataset.levels:  # only the labels of one level are in memory at a time
        labels = dataset.labels(name)
        levels.append(_summarize_level(name, dataset.settings(name), labels))
        warnings += _find_label_warnings(name, labels, dataset.ids)
        unconverged_ids = dataset.ids[dataset.find_unconverged(name)]
        if len(unconverged_ids):
            id_list = list_first(unconverged_ids)
            warnings.append(
                f"level {name}: the electronic loop of {len(unconverged_ids)} labels did not converge: {id_list}; a "
                "study excludes them, unless it has 'unconverged_labels: keep'"
            )
    n_atoms, volumes = dataset.n_atoms, survey.volumes
    return DatasetSummary(
        path=str(dataset.path),
        n_configurations=len(dataset),
        n_atoms=int(n_atoms.sum()),
        atoms_range=(int(n_atoms.min()), int(n_atoms.max())) if len(n_atoms) else (0, 0),
        species=dict(survey.species),
        config_types=dict(survey.config_types.most_common()),
        volume_range=(min(volumes, default=np.nan), max(volumes, default=np.nan)),
        levels=levels,
        warnings=warnings,
    )


@dataclass
class _Survey:
    """Counts and volumes (Å³/atom) of structures, and ids of structures with flat cells or atoms that are too close.

    ``duplicates`` contains texts such as ``"7 = 3"``, the id of a duplicate and that of the first equal structure.
    """

    species: Counter[str] = field(default_factory=Counter)
    config_types: Counter[str] = field(default_factory=Counter)
    volumes: list[float] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    flat_ids: list[int] = field(default_factory=list)
    close_ids: list[int] = field(default_factory=list)


def _survey_structures(dataset: StoredDataset) -> _Survey:
    """Check every structure of a dataset in one pass; volumes and distances are not measured in flat cells."""
    survey = _Survey()
    first_ids: dict[str, int] = {}
    for atoms in dataset:
        config_id = atoms.info["config_id"]
        survey.species.update(atoms.get_chemical_symbols())
        survey.config_types[str(atoms.info.get("config_type", "-"))] += 1
        first_id = first_ids.setdefault(fingerprint_geometry(atoms), config_id)
        if first_id != config_id:
            survey.duplicates.append(f"{config_id} = {first_id}")
        if not _are_independent(atoms.cell[atoms.pbc]):
            survey.flat_ids.append(config_id)
            continue
        if atoms.pbc.all():
            survey.volumes.append(atoms.cell.volume / len(atoms))
        if has_close_atoms(atoms):
            survey.close_ids.append(config_id)
    return survey


def _find_structure_warnings(survey: _Survey) -> list[str]:
    """Return a warning for each kind of suspicious structures: duplicates, flat cells and close atoms."""
    close_text = f"configurations have atoms closer than {MIN_DISTANCE_RATIO} times the sum of their covalent radii"
    flat_text = "configurations are periodic along vectors that span no volume"
    flat_advice = "; correct their cells, because nothing can be computed for them"
    return [
        *_list_ids(survey.duplicates, "duplicate configurations"),
        *_list_ids(survey.flat_ids, flat_text, flat_advice),
        *_list_ids(survey.close_ids, close_text),
    ]


def _list_ids(ids: Sequence[Any] | Array, problem: str, advice: str = "") -> list[str]:
    """Return a list of one warning with the number of ids and the first of them, or an empty list without ids."""
    return [f"{len(ids)} {problem}: {list_first(ids)}{advice}"] if len(ids) else []


def _summarize_level(name: str, settings: dict[str, Any], labels: Labels) -> LevelSummary:
    """Compute the counts, mean cost and ranges of the labels of one level."""
    n_atoms = np.diff(labels.offsets)
    energy_per_atom = labels.energy / n_atoms
    return LevelSummary(
        name=name,
        settings=settings,
        n_energies=int(np.isfinite(labels.energy).sum()),
        n_forces=int(labels.has_forces.sum()),
        n_stresses=int(np.isfinite(labels.stress).all(axis=1).sum()),
        n_failed=int(labels.is_failed.sum()),
        mean_seconds=apply_to_finite(np.mean, labels.seconds),
        energy_range=(apply_to_finite(np.min, energy_per_atom), apply_to_finite(np.max, energy_per_atom)),
        max_force=apply_to_finite(np.max, np.linalg.norm(labels.forces, axis=1)),
    )


def _are_independent(vectors: Array) -> bool:
    """Return whether ``(n, 3)`` cell vectors span n dimensions."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not len(vectors):
        return True
    if (lengths < MIN_CELL_VECTOR_LENGTH).any():
        return False  # a vector of length 0 cannot be normalised
    return bool(np.linalg.matrix_rank(vectors / lengths, tol=MIN_SINGULAR_VALUE) == len(vectors))


def has_close_atoms(atoms: Atoms, min_distance_ratio: float = MIN_DISTANCE_RATIO) -> bool:
    """Return whether two atoms, or an atom and its periodic image, are too close to each other.

    Parameters
    ----------
    atoms : ase.Atoms
    min_distance_ratio : float
        Ratio of a distance to the sum of the covalent radii below which the atoms are too close.
    """
    structure = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    structure.cell[~atoms.pbc] = 0.0  # vectors along directions that are not periodic may be arbitrary
    radii = np.array(natural_cutoffs(atoms, mult=min_distance_ratio))
    if _is_crowded(structure, radii):
        return True
    if len(structure) > MAX_DISTANCE_MATRIX_ATOMS:
        return len(neighbor_list("i", structure, radii)) > 0  # pairs that are closer than the sum of their radii
    is_close = structure.get_all_distances(mic=True) < radii[:, None] + radii
    np.fill_diagonal(is_close, val=False)  # the images of an atom are too distant, because the structure is not crowded
    return bool(is_close.any())


def _is_crowded(atoms: Atoms, radii: Array) -> bool:
    """Return whether atoms are so close that a neighbour list could exhaust the memory, or the cell is flat.

    Atoms closer than the sum of their `radii`, ``(N,)``, Å, are too close. If false is returned, lattice vectors and
    nearest-neighbour distances are long enough for a short neighbour list, and the cell of `atoms` has been reduced and
    the atoms wrapped in place.
    """
    if atoms.pbc.any():
        try:
            cell = minkowski_reduce(atoms.cell, atoms.pbc)[0]
        except RuntimeError:  # the reduction does not converge for a cell that is numerically flat
            return True
        if np.linalg.norm(cell[atoms.pbc], axis=1).min() < 2 * radii.max(initial=0.0):
            return True
        atoms.set_cell(cell)
        atoms.wrap()
    distances = cKDTree(atoms.positions).query(atoms.positions, k=2)[0][:, 1]
    return bool(distances.min(initial=np.inf) < 2 * radii.min(initial=np.inf))


def _find_label_warnings(name: str, labels: Labels, ids: Array) -> list[str]:
    """Return warnings about missing or failed labels, negative costs and net forces at one level."""
    missing_ids = ids[~labels.is_complete]
    if 2 * len(missing_ids) > len(ids) and not labels.is_failed.any():
        missing_ids = missing_ids[:0]  # most configurations were probably not meant to be labelled at this level
    texts = _list_ids(missing_ids, "labels are missing or incomplete")
    texts += _list_ids(ids[labels.seconds < 0], "labels have a negative cost")
    net_forces = np.stack([labels.sum_over_atoms(labels.forces[:, axis]) for axis in range(3)], axis=1)
    net_force_per_atom = np.linalg.norm(net_forces, axis=1) / np.diff(labels.offsets)
    n_unbalanced = int((net_force_per_atom > MAX_NET_FORCE).sum())
    if n_unbalanced:
        position = np.nanargmax(net_force_per_atom)
        texts.append(
            f"forces do not sum to zero in {n_unbalanced} labels (more than {MAX_NET_FORCE} eV/Å per "
            f"atom; the largest is {net_force_per_atom[position]:.3g} in configuration {ids[position]})"
        )
    return [f"level {name}: {text}" for text in texts]


def apply_to_finite(function: Callable[[Array], Any], values: Array) -> float:
    """Apply a reduction such as the mean to the finite values; return NaN if there are none."""
    finite_values = values[np.isfinite(values)]
    return float(function(finite_values)) if finite_values.size else float("nan")


def fingerprint_geometry(atoms: Atoms) -> str:
    """Return a hash of a geometry, rounded to 1e-5 Å.

    The hash is the same after a common translation of all atoms. It changes with the order of the atoms, and if an atom
    is replaced by one of its periodic images.
    """
    offsets = atoms.positions - atoms.positions[0]
    coordinates = np.round(np.concatenate([atoms.cell[:].ravel(), offsets.ravel()]), 5) + 0.0  # turns -0.0 into 0.0
    key = coordinates.tobytes() + atoms.numbers.tobytes() + np.asarray(atoms.pbc).tobytes()
    return hashlib.sha256(key).hexdigest()


def format_dataset_info(summary: DatasetSummary) -> str:
    """Format a summary as plain text: counts, a table of the levels, their settings, the warnings and the next step."""
    lines = [
        f"{summary.path}: {summary.n_configurations} configurations, {summary.n_atoms} atoms",
        f"atoms:    {summary.atoms_range[0]} to {summary.atoms_range[1]} in each",
        f"species:  {format_setting(summary.species)}",
        f"types:    {format_setting(summary.config_types)}",
        f"volume:   {summary.volume_range[0]:.2f} to {summary.volume_range[1]:.2f} Å³/atom",
        "",
        TABLE_HEADER,
    ]
    for level in summary.levels:
        energies = f"{level.energy_range[0]:.3f} to {level.energy_range[1]:.3f}"
        counts = f"{level.n_energies:>9}{level.n_forces:>8}{level.n_stresses:>9}{level.n_failed:>8}"
        lines.append(f"{level.name:<10}{counts}{level.mean_seconds:>12.2f}{energies:>24}{level.max_force:>17.3f}")
    lines += ["", *_format_settings(summary.levels), ""]
    lines += [f"warning: {text}" for text in summary.warnings] or ["no warnings"]
    lines += [summary.grid] if summary.grid else []
    return "\n".join([*lines, f"next: paretofit init {summary.path} -o study.yaml"])


def _format_settings(levels: list[LevelSummary]) -> list[str]:
    """List the settings that all levels share, then the other settings of each level."""
    if not levels:
        return ["no levels"]
    first_settings = levels[0].settings if len(levels) > 1 else {}  # a single level shares no settings
    shared_keys = {
        key for key, value in first_settings.items() if all(level.settings.get(key) == value for level in levels)
    }
    lines = [f"all levels: {key}: {format_setting(first_settings[key])}" for key in sorted(shared_keys)]
    for level in levels:
        settings = {key: value for key, value in level.settings.items() if key not in shared_keys}
        lines += [f"level {level.name}: {format_setting(settings)}"] if settings else []
    return lines or ["no settings are recorded with the levels"]


def list_differing_keys(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the keys, in order of appearance, whose values differ between mappings; a missing key counts as None."""
    keys = dict.fromkeys(key for level_settings in settings for key in level_settings)
    return [key for key in keys if any(entry.get(key) != settings[0].get(key) for entry in settings)]


def format_setting(value: Any) -> str:
    """Format a setting as text; a mapping becomes a list of its keys and values, such as ``"Be 12, O 3"``."""
    return ", ".join(f"{key} {entry}" for key, entry in value.items()) if isinstance(value, dict) else str(value)
