"""Structures, groups and weighted rows of a FitSNAP input, computed as in FitSNAP."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms, units
from threadpoolctl import threadpool_limits

from paretofit import descriptors
from paretofit.core import (
    FIT_COPIES,
    InputError,
    RowKind,
    get_shared_lammps,
    hash_array,
    hash_json,
    list_first,
    require_memory,
)
from paretofit.dataset.io import get_fitsnap_unit_factors, load_json, parse_fitsnap_structures, read_frames
from paretofit.execution import RunContext, map_with_journal
from paretofit.fitsnap import FitRows, FitsnapInput, Group, list_group_files, split_group

BATCH_SIZE = 8  # number of structures per task
MIN_CELL_VOLUME = 1e-9  # Å³; with a smaller volume, there is no cell to rotate


class GroupedStructures(NamedTuple):
    """Structures in the order of their groups, with the group of each, and whether each is in the training set."""

    structures: list[Atoms]
    groups: list[Group]
    is_training: list[bool]


def read_grouped_structures(settings: FitsnapInput) -> tuple[GroupedStructures, list[str]]:
    """Read the structures of all groups and split each group into training and testing; also return notes.

    Raises
    ------
    InputError
        If a file cannot be read, or no group has a training configuration.
    """
    files = list_group_files(settings)
    grouped_structures = GroupedStructures([], [], [])
    note_counts: Counter[str] = Counter()
    notes = []
    rng = np.random.default_rng(settings.random_seed or None) if settings.random_sampling else None  # 0: no fixed seed
    for group in settings.groups:
        members = [atoms for file in files[group.name] for atoms in _read_structures(file, settings, note_counts)]
        split = split_group(members, group, rng)
        notes += [split.note] if split.note else []
        for structures, is_training in ((split.training, True), (split.testing, False)):
            grouped_structures.structures.extend(structures)
            grouped_structures.groups.extend([group] * len(structures))
            grouped_structures.is_training.extend([is_training] * len(structures))
    notes += [f"{count} structures: {note}" for note, count in note_counts.items()]
    if not any(grouped_structures.is_training):
        raise InputError(f"{settings.path}: no group has training configurations; set a training_size")
    return grouped_structures, notes


def _read_structures(file: Path, settings: FitsnapInput, note_counts: Counter[str]) -> list[Atoms]:
    """Read the structures of a file, rotate them to LAMMPS's frame, and add ESHIFT to their energies.

    Notes on the file are counted in `note_counts`.
    """
    shift_unit = 1.0  # in eV
    if settings.scraper == "JSON":
        content = load_json(file)
        frames = parse_fitsnap_structures(file, content, note_counts, keep_zero_stress=True)
        # FitSNAP adds ESHIFT before it converts units, so the shift is in the energy unit of the file.
        shift_unit = get_fitsnap_unit_factors(str(file), content["Dataset"])["Energy"]
    else:
        frames = read_frames(file, None).atoms
        for atoms in frames:  # FitSNAP's XYZ has stress in bar, positive in compression
            if atoms.calc is not None and "stress" in atoms.calc.results:
                atoms.calc.results["stress"] = -np.asarray(atoms.calc.results["stress"]) * units.bar
    for k, atoms in enumerate(frames):
        atoms.info["config_id"] = str(file) if len(frames) == 1 else f"{file}:{k}"
        _rotate_to_lammps_frame(atoms)
        if atoms.calc is not None and "energy" in atoms.calc.results:
            shifts = [settings.eshift.get(symbol, 0.0) for symbol in atoms.get_chemical_symbols()]
            atoms.calc.results["energy"] += shift_unit * sum(shifts)
    return frames


def _rotate_to_lammps_frame(atoms: Atoms) -> None:
    """Rotate cell, positions and labels in place as FitSNAP does: a fit of stress components depends on the frame."""
    if abs(atoms.cell.volume) < MIN_CELL_VOLUME:
        return
    cell, rotation = atoms.cell.standard_form()
    atoms.positions = atoms.positions @ rotation.T
    atoms.set_cell(cell, scale_atoms=False)
    results = {} if atoms.calc is None else atoms.calc.results
    if "forces" in results:
        results["forces"] = results["forces"] @ rotation.T
    if "stress" in results:
        results["stress"] = descriptors.rotate_voigt(np.asarray(results["stress"]), rotation)


def compute_fit_rows(
    settings: FitsnapInput,
    basis: descriptors.AnyBasis,
    reference: descriptors.ReferencePotential,
    grouped_structures: GroupedStructures,
    context: RunContext,
    journal: Path,
) -> FitRows:
    """Compute the weighted rows of all structures, with labels from which the reference potential is subtracted.

    Finished rows are stored in the file `journal`, from which a stopped computation resumes; the caller removes it.

    Raises
    ------
    InputError
        If a structure lacks a label or its rows cannot be computed, or the fits require too much memory.
    """
    structures, groups, is_training = grouped_structures
    kinds = _list_kinds(settings)
    _check_labels(settings, structures, kinds)
    batches = [structures[k : k + BATCH_SIZE] for k in range(0, len(structures), BATCH_SIZE)]
    compute = partial(_compute_batch, basis_json=basis.model_dump_json(), reference=reference, kinds=kinds)
    digest = hash_json([basis.model_dump_json(), reference.commands, kinds, list(map(_hash_structure, structures))])
    n_rows = sum(1 + 3 * len(atoms) + 6 for atoms in structures)  # upper bound: energy, forces and stress
    require_memory(
        8 * FIT_COPIES * n_rows * basis.n_features,
        f"{settings.path}: the fits of {n_rows} rows by {basis.n_features} columns",
        "lower 'twojmax', or use fewer or smaller groups",
    )
    try:
        batch_rows = map_with_journal(context, compute, batches, "descriptors", journal, digest)
        X, y, kind, row_counts = (np.concatenate(arrays) for arrays in zip(*batch_rows, strict=True))
    except InputError as error:
        raise type(error)(f"{settings.path}: {error}") from error
    kinds_by_structure = np.split(kind, np.cumsum(row_counts)[:-1])
    set_keys = [(group.name, in_training) for group, in_training in zip(groups, is_training, strict=True)]
    set_sizes = Counter(set_keys)  # number of structures in the training and the testing set of each group
    weights = [
        _weight_rows(settings, group, atoms, row_kinds, set_sizes[key])
        for group, key, atoms, row_kinds in zip(groups, set_keys, structures, kinds_by_structure, strict=True)
    ]
    group_names = np.repeat([group.name for group in groups], row_counts)
    configuration = np.repeat(np.arange(len(structures)), row_counts)
    file_names = tuple(Path(str(atoms.info["config_id"])).stem for atoms in structures)
    is_training_row, weight = np.repeat(is_training, row_counts), np.concatenate(weights)
    return FitRows(X, y, kind, group_names, configuration, weight, is_training_row, file_names)


def _hash_structure(atoms: Atoms) -> str:
    """Return a digest of everything in a structure that determines its rows and labels."""
    results: dict[str, Any] = {} if atoms.calc is None else atoms.calc.results
    labels = [np.asarray(results[name], dtype=float).ravel() for name in sorted(results)]
    arrays = [atoms.numbers, atoms.pbc, atoms.cell[:].ravel(), atoms.positions.ravel(), *labels]
    return hash_array(np.concatenate(arrays).astype(float)) + ",".join(sorted(results))


def check_fitted_elements(settings: FitsnapInput, grouped_structures: GroupedStructures) -> list[str]:
    """Return a list with a note on elements that only the reference potential acts on; empty without such elements.

    These are elements of the input that no training configuration with a weight above 0 contains.

    Raises
    ------
    InputError
        If there are such elements, and the input has no reference potential.
    """
    kinds = _list_kinds(settings)
    trained_symbols: set[str] = set()
    for atoms, group, is_training in zip(*grouped_structures, strict=True):
        weights = group.energy_weight, group.force_weight, group.stress_weight  # in the order of `RowKind`
        if is_training and any(weights[kind] for kind in kinds):
            trained_symbols.update(atoms.get_chemical_symbols())
    missing_elements = [symbol for symbol in settings.bispectrum.elements if symbol not in trained_symbols]
    if not missing_elements:
        return []
    problem = f"no training configuration with a weight above 0 contains {list_first(missing_elements, 5)}"
    if settings.reference.is_empty:
        raise InputError(
            f"{settings.path}: {problem}, so that its coefficients would be zero; add such configurations, or remove "
            "the element from [BISPECTRUM] type"
        )
    return [f"{problem}: its coefficients are zero, and only the reference potential acts on it"]


def _list_kinds(settings: FitsnapInput) -> list[RowKind]:
    """List the kinds of rows that the input fits."""
    calculator = settings.calculator
    flags = (calculator.energy, calculator.force, calculator.stress)
    kinds = [kind for kind, is_enabled in zip(RowKind, flags, strict=True) if is_enabled]
    if not kinds:
        raise InputError(f"{settings.path}: [CALCULATOR] has no energy, force or stress; set at least one of them to 1")
    return kinds


def _check_labels(settings: FitsnapInput, structures: Sequence[Atoms], kinds: Sequence[RowKind]) -> None:
    """Check that all structures have the energies and forces that are fitted; stresses may be missing."""
    names = {RowKind.ENERGY: "energy", RowKind.FORCE: "forces", RowKind.STRESS: "stress"}
    for kind in kinds:
        unlabelled_structures = [
            atoms for atoms in structures if atoms.calc is None or names[kind] not in atoms.calc.results
        ]
        if unlabelled_structures and kind != RowKind.STRESS:
            raise InputError(
                f"{len(unlabelled_structures)} structures have no {names[kind]}, such as "
                f"{unlabelled_structures[0].info['config_id']}; add the labels, or set [CALCULATOR] "
                f"{kind.name.lower()} = 0 in {settings.path}"
            )


def _compute_batch(
    structures: Sequence[Atoms], basis_json: str, reference: descriptors.ReferencePotential, kinds: Sequence[RowKind]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Compute the rows X and labels y of some structures, in a worker process; a missing stress label has no rows.

    Return X ``(n, p)``, y ``(n,)``, the `RowKind` of each row, and the number of rows of each structure.
    """
    basis, batch = descriptors.require_descriptors(descriptors.parse_basis(basis_json)), []
    with threadpool_limits(1):
        for atoms in structures:
            results: dict[str, Any] = atoms.calc.results
            has_stress = RowKind.STRESS in kinds and "stress" in results
            compute = (
                descriptors.compute_configuration_rows_with_stress
                if has_stress
                else descriptors.compute_configuration_rows
            )
            energy_row, force_rows, *stress_rows = compute(get_shared_lammps(), basis, atoms)
            energy, forces, stress = descriptors.compute_reference_labels(get_shared_lammps(), basis, reference, atoms)
            blocks = []  # rows, labels and kind
            if RowKind.ENERGY in kinds:
                blocks.append((energy_row[None], [(results["energy"] - energy) / len(atoms)], RowKind.ENERGY))
            if RowKind.FORCE in kinds:
                blocks.append((force_rows, (results["forces"] - forces).ravel(), RowKind.FORCE))
            if has_stress:
                blocks.append((stress_rows[0], results["stress"] / units.GPa - stress, RowKind.STRESS))
            rows, labels, block_kinds = zip(*blocks, strict=True)
            kind = np.repeat(list(map(int, block_kinds)), list(map(len, rows))).astype(np.int8)
            batch.append((np.concatenate(rows), np.concatenate(labels), kind))
    X, y, row_kinds = (np.concatenate(arrays) for arrays in zip(*batch, strict=True))
    return X, y, row_kinds, np.array([len(structure_rows) for structure_rows, _, _ in batch])


def _weight_rows(settings: FitsnapInput, group: Group, atoms: Atoms, kind: np.ndarray, set_size: int) -> np.ndarray:
    """Compute the weight of each row of a structure; FitSNAP's stress weights, which are for bar, are converted to GPa.

    `set_size` is the number of structures in the training or testing set of the group; smart weights are divided by it.
    """
    energy, force, stress = group.energy_weight, group.force_weight, group.stress_weight
    if settings.smartweights:
        energy, force, stress = energy / set_size, force / set_size / (3 * len(atoms)), stress / set_size
        if RowKind.STRESS in _list_kinds(settings):
            force /= 6  # as in FitSNAP, which divides no other weight by 6
    return np.asarray(np.array([energy, force, stress / descriptors.GPA_PER_BAR])[kind])
