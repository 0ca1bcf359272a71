"""Summary of a dataset: counts, ranges, and warnings about suspicious structures and labels."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from paretofit.core import Array, format_count, list_first
from paretofit.dataset.checks import MIN_CELL_VECTOR_LENGTH
from paretofit.dataset.labelled import Labels
from paretofit.dataset.quality.close_atoms import MIN_DISTANCE_RATIO, has_close_atoms, measure_shortest_distance
from paretofit.dataset.stored_dataset import StoredDataset

MAX_NET_FORCE = 0.01  # eV/Å per atom; the forces of plane-wave codes sum to a few meV/Å per atom
MIN_SINGULAR_VALUE = 1e-6  # of the matrix of normalised cell vectors; below it, they count as linearly dependent
MAX_TYPICAL_FORCE = 100.0  # eV/Å; median over configurations of the largest force, far above that of usual data
MAX_DUPLICATE_ENERGY_DIFFERENCE = 1e-3  # eV/atom, between labels of the same structure at one level
MAX_DUPLICATE_FORCE_DIFFERENCE = 0.01  # eV/Å
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
    their covalent radii, missing, failed or unconverged labels, negative costs, forces that do not sum to zero or are
    far too large, and contradictory labels of duplicates.
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
    warnings = _find_structure_warnings(survey, dataset.ids)
    levels = []
    for name in dataset.levels:  # only the labels of one level are in memory at a time
        labels = dataset.labels(name)
        levels.append(_summarize_level(name, dataset.settings(name), labels))
        texts = _find_label_warnings(labels, dataset.ids)
        texts += _compare_duplicates(labels, dataset.ids, survey.duplicates)
        texts += [] if survey.close_ids else _find_large_forces(labels)
        warnings += [f"level {name}: {text}" for text in texts]
        unconverged_ids = dataset.ids[dataset.find_unconverged(name)]
        if len(unconverged_ids):
            id_list = list_first(unconverged_ids)
            warnings.append(
                f"level {name}: the electronic loop of {format_count(len(unconverged_ids), 'label')} did not converge: "
                f"{id_list}; a study excludes them, unless it has 'unconverged_labels: keep'"
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

    ``duplicates`` contains the positions of a duplicate and of the first equal structure in the dataset,
    ``shortest_distance`` the shortest distance (Å) of all structures whose atoms are too close, and its id.
    """

    species: Counter[str] = field(default_factory=Counter)
    config_types: Counter[str] = field(default_factory=Counter)
    volumes: list[float] = field(default_factory=list)
    duplicates: list[tuple[int, int]] = field(default_factory=list)
    flat_ids: list[int] = field(default_factory=list)
    close_ids: list[int] = field(default_factory=list)
    shortest_distance: tuple[float, int] = (np.inf, -1)


def _survey_structures(dataset: StoredDataset) -> _Survey:
    """Check every structure of a dataset in one pass; volumes and distances are not measured in flat cells."""
    survey = _Survey()
    first_positions: dict[str, int] = {}
    for position, atoms in enumerate(dataset):
        config_id = atoms.info["config_id"]
        survey.species.update(atoms.get_chemical_symbols())
        survey.config_types[str(atoms.info.get("config_type", "-"))] += 1
        first_position = first_positions.setdefault(fingerprint_geometry(atoms), position)
        if first_position != position:
            survey.duplicates.append((position, first_position))
        if not _are_independent(atoms.cell[atoms.pbc]):
            survey.flat_ids.append(config_id)
            continue
        if atoms.pbc.all():
            survey.volumes.append(atoms.cell.volume / len(atoms))
        if has_close_atoms(atoms):
            survey.close_ids.append(config_id)
            survey.shortest_distance = min(survey.shortest_distance, (measure_shortest_distance(atoms), config_id))
    return survey


def _find_structure_warnings(survey: _Survey, ids: Array) -> list[str]:
    """Return a warning for each kind of suspicious structures: duplicates, flat cells and close atoms."""
    duplicates = [f"{ids[position]} = {ids[first_position]}" for position, first_position in survey.duplicates]
    flat_text = "configuration is periodic along vectors that span no volume"
    flat_texts = flat_text, flat_text.replace("configuration is", "configurations are")
    close_text = f"atoms closer than {MIN_DISTANCE_RATIO} times the sum of their covalent radii"
    distance, closest_id = survey.shortest_distance
    distance_text = f"; the smallest distance is {distance:.3g} Å, in configuration {closest_id}"
    return [
        *_list_ids(duplicates, "duplicate configuration", "duplicate configurations"),
        *_list_ids(survey.flat_ids, *flat_texts, "; correct their cells, because nothing can be computed for them"),
        *_list_ids(
            survey.close_ids, f"configuration has {close_text}", f"configurations have {close_text}", distance_text
        ),
    ]


def _list_ids(ids: Sequence[Any] | Array, problem: str, plural: str, advice: str = "") -> list[str]:
    """Return a list of one warning with the number of ids and the first of them, or an empty list without ids."""
    return [f"{format_count(len(ids), problem, plural)}: {list_first(ids)}{advice}"] if len(ids) else []


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


def _find_label_warnings(labels: Labels, ids: Array) -> list[str]:
    """Return warnings about missing or failed labels, negative costs and net forces at one level."""
    missing_ids = ids[~labels.is_complete]
    if 2 * len(missing_ids) > len(ids) and not labels.is_failed.any():
        missing_ids = missing_ids[:0]  # most configurations were probably not meant to be labelled at this level
    texts = [] if labels.is_complete.any() or labels.is_failed.any() else ["no label has both an energy and forces"]
    texts += _list_ids(missing_ids, "label is missing or incomplete", "labels are missing or incomplete")
    texts += _list_ids(ids[labels.seconds < 0], "label has a negative cost", "labels have a negative cost")
    net_forces = np.stack([labels.sum_over_atoms(labels.forces[:, axis]) for axis in range(3)], axis=1)
    net_force_per_atom = np.linalg.norm(net_forces, axis=1) / np.diff(labels.offsets)
    n_unbalanced = int((net_force_per_atom > MAX_NET_FORCE).sum())
    if n_unbalanced:
        position = np.nanargmax(net_force_per_atom)
        texts.append(
            f"forces do not sum to zero in {format_count(n_unbalanced, 'label')} (more than {MAX_NET_FORCE} eV/Å per "
            f"atom; the largest is {net_force_per_atom[position]:.3g} in configuration {ids[position]})"
        )
    return texts


def _compare_duplicates(labels: Labels, ids: Array, duplicates: Sequence[tuple[int, int]]) -> list[str]:
    """Return a warning if labels of equal structures differ at one level, with the largest differences."""
    energy_limit, force_limit = MAX_DUPLICATE_ENERGY_DIFFERENCE, MAX_DUPLICATE_FORCE_DIFFERENCE
    largest_energy_difference, largest_force_difference, pairs = 0.0, 0.0, list[str]()
    for k, first in duplicates:
        forces, first_forces = (labels.forces[slice(*labels.offsets[m : m + 2])] for m in (k, first))
        with np.errstate(invalid="ignore"):  # a stored label may be infinite
            energy_change, force_change = (labels.energy[k] - labels.energy[first]) / len(forces), forces - first_forces
        energy_difference, force_difference = (
            float(np.abs(np.nan_to_num(change, posinf=0.0, neginf=0.0)).max())
            for change in (energy_change, force_change)
        )
        if energy_difference > energy_limit or force_difference > force_limit:
            pairs.append(f"{ids[k]} = {ids[first]}")
            largest_energy_difference = max(largest_energy_difference, energy_difference)
            largest_force_difference = max(largest_force_difference, force_difference)
    if not pairs:
        return []
    differences = f"{1000 * largest_energy_difference:.4g} meV/atom and {1000 * largest_force_difference:.4g} meV/Å"
    duplicate_text = f"the labels of {format_count(len(pairs), 'duplicate')} contradict those of the same structure"
    return [f"{duplicate_text}, by up to {differences}: {list_first(pairs)}; remove the wrong labels"]


def _find_large_forces(labels: Labels) -> list[str]:
    """Return a warning if the largest forces of most configurations are far above those of usual data."""
    magnitudes = np.linalg.norm(labels.forces, axis=1)
    largest_forces = np.maximum.reduceat(magnitudes, labels.offsets[:-1]) if len(labels.energy) else magnitudes
    typical_force = apply_to_finite(np.median, largest_forces)
    if not typical_force > MAX_TYPICAL_FORCE:
        return []
    problem = f"the largest force of a configuration is {typical_force:.4g} eV/Å in the median, although no atoms are"
    return [f"{problem} very close: the labels may be in meV or another unit; convert them to eV and eV/Å"]


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
    smallest, largest = summary.volume_range
    volumes = "–" if np.isnan(smallest) else f"{smallest:.2f} to {largest:.2f} Å³/atom"
    n_configurations = format_count(summary.n_configurations, "configuration")
    lines = [
        f"{summary.path}: {n_configurations}, {format_count(summary.n_atoms, 'atom')}",
        f"atoms:    {summary.atoms_range[0]} to {summary.atoms_range[1]} in each",
        f"species:  {format_setting(summary.species)}",
        f"types:    {format_setting(summary.config_types)}",
        f"volume:   {volumes}",
        "",
        TABLE_HEADER,
    ]
    for level in summary.levels:
        low, high = level.energy_range
        energies = "–" if np.isnan(low) else f"{low:.3f} to {high:.3f}"
        seconds, force = _format_decimals(level.mean_seconds, 2), _format_decimals(level.max_force, 3)
        counts = f"{level.n_energies:>9}{level.n_forces:>8}{level.n_stresses:>9}{level.n_failed:>8}"
        lines.append(f"{level.name:<10}{counts}{seconds:>12}{energies:>24}{force:>17}")
    lines += ["", *_format_settings(summary.levels), ""]
    lines += [f"warning: {text}" for text in summary.warnings] or ["no warnings"]
    lines += [summary.grid] if summary.grid else []
    return "\n".join([*lines, f"next: paretofit init {summary.path} -o study.yaml"])


def _format_decimals(value: float, n_decimals: int) -> str:
    """Format a number with a fixed number of decimals, and NaN as a dash."""
    return "–" if np.isnan(value) else f"{value:.{n_decimals}f}"


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
