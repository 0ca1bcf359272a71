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

MIN_DISTANCE_RATIO = 0.6  # distance of two atoms relative to the sum of their covalent radii
MAX_NET_FORCE = 0.01  # eV/Å per atom; plane-wave codes leave a few meV/Å
MIN_SINGULAR_VALUE = 1e-6  # singular value of the matrix of normalised cell vectors
MAX_DISTANCE_MATRIX_ATOMS = 64  # up to this size, computing all distances is faster than a neighbour list
TABLE_HEADER = "level      energies  forces stresses  failed      mean s         energy, eV/atom  max force, eV/Å"


@dataclass(frozen=True)
class LevelSummary:
    """Counts, mean cost (s) and ranges (eV/atom, eV/Å) of the labels of one level; NaN if there are no labels."""

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
    """Counts, ranges (volumes in Å³/atom) and warnings of a dataset; ``grid``: what limits a grid of levels."""

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
    their covalent radii, missing, failed or unconverged labels, negative costs, and forces that do not sum to
    zero. `paretofit.consistency.check_labels` checks units, signs and differences between levels.

    Parameters
    ----------
    dataset : Dataset

    Returns
    -------
    DatasetSummary
        The volume range covers configurations that are periodic in three directions and have a volume.
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
    """Counts and volumes (Å³/atom) of structures, and ids of duplicates, flat cells and atoms that are too close."""

    species: Counter[str] = field(default_factory=Counter)
    config_types: Counter[str] = field(default_factory=Counter)
    volumes: list[float] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    flat_ids: list[int] = field(default_factory=list)
    close_ids: list[int] = field(default_factory=list)


def _survey_structures(dataset: StoredDataset) -> _Survey:
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
    close_text = f"configurations have atoms closer than {MIN_DISTANCE_RATIO} times the sum of their covalent radii"
    flat_text = "configurations are periodic along vectors that span no volume"
    flat_advice = "; correct their cells, because nothing can be computed for them"
    return [
        *_list_ids(survey.duplicates, "duplicate configurations"),
        *_list_ids(survey.flat_ids, flat_text, flat_advice),
        *_list_ids(survey.close_ids, close_text),
    ]


def _list_ids(ids: Sequence[Any] | Array, problem: str, advice: str = "") -> list[str]:
    """Return a list with one warning, the number of affected configurations and their first ids; empty without ids."""
    return [f"{len(ids)} {problem}: {list_first(ids)}{advice}"] if len(ids) else []


def _summarize_level(name: str, settings: dict[str, Any], labels: Labels) -> LevelSummary:
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
    if not len(vectors) or (lengths < MIN_CELL_VECTOR_LENGTH).any():
        return not len(vectors)  # no vectors are independent; a vector of length 0 never is
    return bool(np.linalg.matrix_rank(vectors / lengths, tol=MIN_SINGULAR_VALUE) == len(vectors))


def has_close_atoms(atoms: Atoms, min_distance_ratio: float = MIN_DISTANCE_RATIO) -> bool:
    """Return whether two atoms, or an atom and its periodic image, are too close to each other.

    Parameters
    ----------
    atoms : ase.Atoms
    min_distance_ratio : float
        Minimum distance relative to the sum of the covalent radii.
    """
    structure = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    structure.cell[~atoms.pbc] = 0.0  # vectors along directions that are not periodic may be arbitrary
    radii = np.array(natural_cutoffs(atoms, mult=min_distance_ratio))
    if _is_crowded(structure, radii):
        return True
    if len(structure) > MAX_DISTANCE_MATRIX_ATOMS:
        return len(neighbor_list("i", structure, radii)) > 0
    is_close = structure.get_all_distances(mic=True) < radii[:, None] + radii
    np.fill_diagonal(is_close, val=False)  # the images of an atom are further away, as the structure is not crowded
    return bool(is_close.any())


def _is_crowded(atoms: Atoms, radii: Array) -> bool:
    """Return whether atoms are so close that a neighbour list could exhaust the memory.

    If not, lattice vectors and nearest-neighbour distances are long enough for the neighbour list to be short. The cell
    of `atoms` is reduced and the atoms are wrapped in place.
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
    missing_ids = ids[~labels.is_complete]
    if 2 * len(missing_ids) > len(ids) and not labels.is_failed.any():
        missing_ids = missing_ids[:0]  # most configurations were probably not meant to be labelled at this level
    problems = (("are missing or incomplete", missing_ids), ("have a negative cost", ids[labels.seconds < 0]))
    warnings = [
        f"level {name}: {text}"
        for problem, problem_ids in problems
        for text in _list_ids(problem_ids, f"labels {problem}")
    ]
    net_forces = np.stack([labels.sum_over_atoms(labels.forces[:, axis]) for axis in range(3)], axis=1)
    force_per_atom = np.linalg.norm(net_forces, axis=1) / np.diff(labels.offsets)
    n_unbalanced = int((force_per_atom > MAX_NET_FORCE).sum())
    if n_unbalanced:
        position = np.nanargmax(force_per_atom)
        warnings.append(
            f"level {name}: forces do not sum to zero in {n_unbalanced} labels (more than {MAX_NET_FORCE} eV/Å per "
            f"atom; the largest is {force_per_atom[position]:.3g} in configuration {ids[position]})"
        )
    return warnings


def apply_to_finite(function: Callable[[Array], Any], values: Array) -> float:
    """Apply a reduction such as the mean to the finite values; return NaN if there are none."""
    finite_values = values[np.isfinite(values)]
    return float(function(finite_values)) if finite_values.size else float("nan")


def fingerprint_geometry(atoms: Atoms) -> str:
    """Return a hash of a geometry, rounded to 1e-5 Å, that does not depend on a common translation of all atoms."""
    offsets = atoms.positions - atoms.positions[0]
    coordinates = np.round(np.concatenate([atoms.cell[:].ravel(), offsets.ravel()]), 5) + 0.0  # turns -0.0 into 0.0
    key = coordinates.tobytes() + atoms.numbers.tobytes() + np.asarray(atoms.pbc).tobytes()
    return hashlib.sha256(key).hexdigest()


def format_dataset_info(info: DatasetSummary) -> str:
    """Format a summary as plain text: a table of the levels, their settings, and the warnings."""
    lines = [
        f"{info.path}: {info.n_configurations} configurations, {info.n_atoms} atoms",
        f"atoms:    {info.atoms_range[0]} to {info.atoms_range[1]} in each",
        f"species:  {format_setting(info.species)}",
        f"types:    {format_setting(info.config_types)}",
        f"volume:   {info.volume_range[0]:.2f} to {info.volume_range[1]:.2f} Å³/atom",
        "",
        TABLE_HEADER,
    ]
    for level in info.levels:
        energies = f"{level.energy_range[0]:.3f} to {level.energy_range[1]:.3f}"
        counts = f"{level.n_energies:>9}{level.n_forces:>8}{level.n_stresses:>9}{level.n_failed:>8}"
        lines.append(f"{level.name:<10}{counts}{level.mean_seconds:>12.2f}{energies:>24}{level.max_force:>17.3f}")
    lines += ["", *_format_settings(info.levels), "", *(f"warning: {text}" for text in info.warnings or [])]
    lines += [] if info.warnings else ["no warnings"]
    lines += [info.grid] if info.grid else []
    return "\n".join([*lines, f"next: paretofit init {info.path} -o study.yaml"])


def _format_settings(levels: list[LevelSummary]) -> list[str]:
    """List settings that all levels share once, then the remaining settings of each level."""
    if not levels:
        return ["no levels"]
    first_settings = levels[0].settings if len(levels) > 1 else {}
    shared_keys = {
        key for key, value in first_settings.items() if all(level.settings.get(key) == value for level in levels)
    }
    lines = [f"all levels: {key}: {format_setting(first_settings[key])}" for key in sorted(shared_keys)]
    for level in levels:
        settings = {key: value for key, value in level.settings.items() if key not in shared_keys}
        lines += [f"level {level.name}: {format_setting(settings)}"] if settings else []
    return lines or ["no settings are recorded with the levels"]


def list_differing_keys(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the keys, in order of appearance, whose values are not the same in all mappings."""
    keys = dict.fromkeys(key for values in settings for key in values)
    return [key for key in keys if any(values.get(key) != settings[0].get(key) for values in settings)]


def format_setting(value: Any) -> str:
    """Format a setting as readable text; a mapping becomes a list of its keys and values."""
    return ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else str(value)
