"""Start structures of molecular dynamics for `paretofit explore`, and checks of their cells."""

from collections.abc import Sequence
from pathlib import Path

from ase import Atoms

from paretofit import learning
from paretofit.commands.evaluate import DATASET_SUFFIXES, check_elements
from paretofit.commands.select import read_structures
from paretofit.core import InputError, build_vacuum_cell, format_count, list_first
from paretofit.potentials import LinearPotential, MacePotential
from paretofit.structures import check_empty_space

FREE_CELL_A = 1.0  # Å, width of the vacuum; arbitrary, because only periodic cell vectors are checked


def read_start_structures(
    potential: LinearPotential | MacePotential, paths: Sequence[Path | str]
) -> tuple[list[Atoms], list[str], list[str]]:
    """Read and check the start structures; structures of a single atom are skipped.

    Parameters
    ----------
    potential : LinearPotential or MacePotential
    paths : sequence of path-like
        Datasets or files that ASE reads.

    Returns
    -------
    start_structures : list of ase.Atoms
        The ``config_id`` of a structure is the index of its name.
    names : list of str
        Names of all structures in the files.
    notes : list of str

    Raises
    ------
    InputError
        If a file cannot be read, a structure has an element that the potential lacks, or an invalid cell in a file
        other than a dataset, or no structure can be used.
    """
    structures: list[Atoms] = []
    names: list[str] = []
    notes: list[str] = []
    for path in map(Path, paths):
        frames, file_notes = read_structures(path)
        for k, atoms in enumerate(frames):
            atoms.info.setdefault("config_id", k)
        check_elements(potential, frames, path)
        has_single_structure = len(frames) == 1
        frames, cell_notes = _select_valid_cells(frames, path)
        names += [path.name if has_single_structure else f"{path.name}:{atoms.info['config_id']}" for atoms in frames]
        structures += frames
        notes += file_notes + cell_notes
    for k, atoms in enumerate(structures):
        atoms.info["config_id"] = k
        atoms.calc = None
    movable_structures = [atoms for atoms in structures if len(atoms) > 1]
    if not movable_structures:
        raise InputError(
            f"no structure of {', '.join(map(str, paths)) or 'the command'} has at least two atoms, so that nothing "
            "can move; repeat the cell, or specify other structures"
        )
    if n_skipped := len(structures) - len(movable_structures):
        notes.append(f"{n_skipped} of {len(structures)} structures have one atom and are skipped")
    start_structures, note = learning.select_start_structures(movable_structures, None)
    return start_structures, names, [*notes, *([note] if note else [])]


def _select_valid_cells(structures: Sequence[Atoms], path: Path) -> tuple[list[Atoms], list[str]]:
    """Return the structures whose cells agree with their periodic directions, and a note on skipped ones of a dataset.

    Raise `InputError` for a structure of another file, which the user can correct, or if none of a dataset is left.
    """
    valid_structures, skipped_ids, errors = [], [], list[InputError]()
    for atoms in structures:
        try:
            _check_cell(atoms, path)
            valid_structures.append(atoms)
        except InputError as error:
            if path.suffix not in DATASET_SUFFIXES:
                raise
            skipped_ids.append(atoms.info["config_id"])
            errors.append(error)
    if not errors:
        return valid_structures, []
    if not valid_structures:
        raise errors[0]
    note = (
        f"{format_count(len(errors), 'structure')} of {len(structures)} in {path} skipped, because cell and periodic "
        f"directions disagree: {list_first(skipped_ids)} (the first: {errors[0]})"
    )
    return valid_structures, [note]


def _check_cell(atoms: Atoms, path: Path) -> None:
    """Raise `InputError` if a structure is periodic along a vector of length zero, or across empty space."""
    try:
        build_vacuum_cell(atoms, FREE_CELL_A)
    except InputError as error:
        raise InputError(f"{path}: {error}; correct its cell, or its periodic directions") from error
    check_empty_space(atoms, f"{path}: configuration {atoms.info['config_id']}")
