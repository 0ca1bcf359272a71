"""Matching of structures from several files to configurations, by id, geometry or order.

To match geometries, a nearest-neighbour search over invariants finds candidates, which are then compared atom by atom.
Invariants do not change when atoms are translated by lattice vectors or listed in another order, and change little
under rounding. In contrast to hashes of rounded coordinates, this also finds equal structures whose coordinates lie on
different sides of a rounding boundary.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from paretofit.core import Array, InputError, check_choice
from paretofit.dataset.io.structure_files import Frames

GEOMETRY_TOLERANCE = 1e-4  # Å; extended XYZ is often written with five to eight digits
INVARIANT_TOLERANCE = 3e-3  # Å; several times the effect of a geometry difference of GEOMETRY_TOLERANCE
GOLDEN_RATIO = (
    0.6180339887498949  # its multiples by the atomic numbers, modulo 1, are different weights of the elements
)


@dataclass
class MatchResult:
    """Distinct configurations of all files, in order of first appearance.

    Attributes
    ----------
    atoms : list of ase.Atoms
        The configurations, each as in the first file that contains it.
    ids : list of int
        Id of each configuration.
    positions : list of list of int
        For each file, the position in `atoms` of each frame.
    atom_orders : list of dict of int to (N,) int64
        For each file, the frames whose atoms are in another order than in `atoms`, with the indices that reorder them.
    notes : list of str
        Messages for the user.
    """

    atoms: list[Atoms]
    ids: list[int]
    positions: list[list[int]]
    atom_orders: list[dict[int, Array]]
    notes: list[str]


def match_frames(files: Sequence[Frames], match_by: str | None = None) -> MatchResult:
    """Match the structures of several files, so that each configuration is listed once.

    Parameters
    ----------
    files : sequence of Frames
    match_by : {"id", "geometry", "order"}, optional
        The default is "id" if all files have ids, "order" if no file has ids and all files have the same geometries in
        the same order, and otherwise "geometry".

    Returns
    -------
    MatchResult

    Raises
    ------
    InputError
        If `match_by` is unknown, there are no files, the structures cannot be matched, or the geometry of a
        configuration differs between files.
    """
    if match_by is not None:
        check_choice("match", match_by, LOCATORS)
    if not files:
        raise InputError("no level to import; specify at least one level and its file")
    method = match_by or _choose_method(files)
    origins: list[tuple[Frames, int]] = []  # file and frame of each configuration
    match = MatchResult([], [], [], [], ["structures were matched by geometry"] if method == "geometry" else [])
    for frames in files:
        positions = LOCATORS[method](frames, origins)
        if method == "geometry" and origins:
            match.notes += _describe_geometry_match(frames, positions, origins, is_strict=match_by is None)
        match.positions.append(positions)
        match.atom_orders.append(_add_structures(frames, positions, origins))
    match.atoms = [frames.atoms[k] for frames, k in origins]
    if method == "order":  # the first file may lack ids that another one has
        file_with_ids = next((frames for frames in files if frames.ids is not None), files[0])
        origins = [(file_with_ids, k) for _, k in origins]
    match.ids = _assign_ids(origins)
    for frames, atom_orders in zip(files, match.atom_orders, strict=True):
        if atom_orders:
            match.notes.append(
                f"{frames.path}: the atoms of {len(atom_orders)} structures are in another order than in the first "
                "file with these structures; their forces were reordered"
            )
    return match


def _choose_method(files: Sequence[Frames]) -> str:
    """Return the default method of `match_frames`."""
    if all(frames.ids is not None for frames in files):
        return "id"
    return "order" if all(frames.ids is None for frames in files) and _have_same_order(files) else "geometry"


def _locate_by_id(frames: Frames, origins: Sequence[tuple[Frames, int]]) -> list[int]:
    """Return the positions, among all configurations, of those whose ids the structures of a file have.

    `origins` lists the configurations of earlier files; the positions of new ones follow.
    """
    if frames.ids is None:
        raise InputError(
            f"{frames.path}: not every structure has an id; match by geometry, or add config_id to the info"
        )
    positions = {(earlier_frames.ids or [])[k]: position for position, (earlier_frames, k) in enumerate(origins)}
    return [positions.setdefault(config_id, len(positions)) for config_id in frames.ids]


def _locate_by_order(frames: Frames, origins: Sequence[tuple[Frames, int]]) -> list[int]:
    """Return positions as `_locate_by_id` does, but by the order of the structures, whose number must not differ."""
    if origins and len(frames.atoms) != len(origins):
        raise InputError(
            f"{frames.path} has {len(frames.atoms)} structures and {origins[0][0].path} has {len(origins)}; they "
            "cannot be matched by order: match by geometry, or by id"
        )
    return list(range(len(frames.atoms)))


def _locate_by_geometry(frames: Frames, origins: Sequence[tuple[Frames, int]]) -> list[int]:
    """Return positions as `_locate_by_id` does, but by the geometry of the structures."""
    matches = _find_matches([earlier_frames.atoms[k] for earlier_frames, k in origins], frames.atoms)
    new_positions = itertools.count(len(origins))
    return [next(new_positions) if position is None else position for position in matches]


LOCATORS = {"id": _locate_by_id, "order": _locate_by_order, "geometry": _locate_by_geometry}


def _add_structures(frames: Frames, positions: Sequence[int], origins: list[tuple[Frames, int]]) -> dict[int, Array]:
    """Append the new structures of a file to `origins`, and check the geometries of all other structures of the file.

    Return the indices that reorder the atoms of frames whose atoms are in another order than in an earlier file.
    """
    atom_orders: dict[int, Array] = {}
    for k, position in enumerate(positions):
        if position == len(origins):
            origins.append((frames, k))
        else:
            atom_orders |= _check_geometry(origins[position], frames, k)
    return atom_orders


def _describe_geometry_match(
    frames: Frames, positions: Sequence[int], origins: Sequence[tuple[Frames, int]], *, is_strict: bool
) -> Iterator[str]:
    """Yield notes on structures that earlier files lack, and on ids that are replaced by those of earlier files.

    If `is_strict`, because the user did not choose to match by geometry, `_check_new_structures` may raise an
    `InputError`.
    """
    new_indices = [k for k, position in enumerate(positions) if position >= len(origins)]
    if is_strict:
        _check_new_structures(origins[0][0], frames, new_indices)
    if new_indices:
        yield f"{frames.path}: {len(new_indices)} of {len(positions)} structures are not in an earlier file"
    n_changed_ids = 0
    for config_id, position in zip(frames.ids or [], positions, strict=False):
        if position < len(origins):
            earlier_frames, k = origins[position]
            n_changed_ids += earlier_frames.ids is not None and earlier_frames.ids[k] != config_id
    if n_changed_ids:
        yield f"{frames.path}: the ids of {n_changed_ids} structures were replaced by their ids in an earlier file"


def _find_matches(structures: Sequence[Atoms], targets: Sequence[Atoms]) -> list[int | None]:
    """Return, for each target, the position of an equal structure or None; each structure is used at most once."""
    positions_by_formula: dict[bytes, list[int]] = {}  # a formula is the sorted atomic numbers
    for position, atoms in enumerate(structures):
        positions_by_formula.setdefault(np.sort(atoms.numbers).tobytes(), []).append(position)
    trees = {
        formula: cKDTree([_compute_invariants(structures[position]) for position in positions])
        for formula, positions in positions_by_formula.items()
    }
    matched_positions: set[int] = set()
    matches: list[int | None] = []
    for atoms in targets:
        formula = np.sort(atoms.numbers).tobytes()
        neighbours: list[int] = []
        if formula in trees:
            neighbours = trees[formula].query_ball_point(_compute_invariants(atoms), INVARIANT_TOLERANCE)
        positions = [positions_by_formula[formula][k] for k in sorted(neighbours)]
        candidates = [position for position in positions if position not in matched_positions]
        # Structures with the same order of the atoms have priority, because their labels need not be reordered.
        match = next((k for k in candidates if is_same_geometry(structures[k], atoms)), None)
        if match is None:
            match = next((k for k in candidates if find_atom_order(structures[k], atoms) is not None), None)
        matches.append(match)
        if match is not None:
            matched_positions.add(match)
    return matches


def _compute_invariants(atoms: Atoms) -> Array:
    """Return ``(15,)`` Å: the right-handed cell, and a weighted mean of the atoms' phases along each cell vector.

    The latter is h / (2 pi) times the mean of w_i exp(2 pi i s_i), with the fractional coordinates s, the height h of
    the cell, and a different weight w for each element. Invariants do not depend on ``pbc``.
    """
    cell = atoms.cell.complete()[:]
    handedness = -1.0 if np.linalg.det(cell) < 0 else 1.0
    inverse = np.linalg.pinv(handedness * cell)
    heights = 1 / np.maximum(np.linalg.norm(inverse, axis=0), 1e-12)  # avoids a division by 0 for a flat cell
    weights = (atoms.numbers * GOLDEN_RATIO % 1)[:, np.newaxis]
    phases = (weights * np.exp(2j * np.pi * (atoms.positions @ inverse))).mean(axis=0) * heights / (2 * np.pi)
    return np.concatenate([handedness * atoms.cell[:].ravel(), phases.real, phases.imag])


def _check_new_structures(first_frames: Frames, frames: Frames, new_indices: Sequence[int]) -> None:
    """Raise `InputError` if new structures were probably meant to be those of the first file.

    They probably were if all structures of a file are new, or if some are new although the file has as many structures
    as the first one. This is checked only if matching by geometry is the default (because a file has no ids), but not
    if the user chose it.

    Parameters
    ----------
    first_frames, frames : Frames
    new_indices : sequence of int
        Positions, in `frames`, of the structures that earlier files lack.
    """
    if new_indices and len(frames.atoms) == len(first_frames.atoms):
        raise InputError(
            f"{frames.describe_frame(new_indices[0])} differs in geometry from every structure of {first_frames.path}; "
            "correct the file, or import the structure as a separate configuration with --match geometry"
        )
    if len(new_indices) == len(frames.atoms):
        raise InputError(
            f"{frames.path}: no structure has the same geometry as a structure of {first_frames.path}, but all levels "
            "must label the same structures; correct the file, add config_id to the structures of every file to match "
            "by id, or import the structures as separate configurations with --match geometry"
        )


def _assign_ids(origins: Sequence[tuple[Frames, int]]) -> list[int]:
    """Return the id of each configuration in its file or, if it has none or a duplicate, a new id above all others."""
    file_ids = [frames.ids[k] if frames.ids is not None else None for frames, k in origins]
    new_ids = itertools.count(max((value for value in file_ids if value is not None), default=-1) + 1)
    ids: dict[int, None] = {}  # an ordered set
    for file_id in file_ids:
        ids[next(new_ids) if file_id is None or file_id in ids else file_id] = None
    return list(ids)


def _have_same_order(files: Sequence[Frames]) -> bool:
    """Return whether all files have the same geometries in the same order; the order of the atoms may differ."""
    first_structures = files[0].atoms
    return all(
        len(frames.atoms) == len(first_structures)
        and all(find_atom_order(*pair) is not None for pair in zip(first_structures, frames.atoms, strict=True))
        for frames in files[1:]
    )


def _check_geometry(origin: tuple[Frames, int], frames: Frames, k: int) -> dict[int, Array]:
    """Check that frame `k` has the geometry of an earlier frame; return ``{k: order}`` if its atoms are reordered."""
    earlier_atoms = origin[0].atoms[origin[1]]
    order = find_atom_order(earlier_atoms, frames.atoms[k])
    if order is None:
        raise InputError(
            f"{frames.describe_frame(k)} differs in geometry from the same configuration in an earlier file; all "
            "levels must be labels of the same atoms"
        )
    return {} if (order == np.arange(len(earlier_atoms))).all() else {k: order}


def find_atom_order(first: Atoms, second: Atoms) -> Array | None:
    """Find the order of the atoms of `second` in which it is the same structure as `first`.

    Returns
    -------
    (N,) int64, or None
        Indices with which ``second[order]`` has the geometry of `first` (see `is_same_geometry`); None if there are
        none.
    """
    if is_same_geometry(first, second):
        return np.arange(len(first))
    if len(first) != len(second) or (np.sort(first.numbers) != np.sort(second.numbers)).any():
        return None
    inverse, is_periodic = np.linalg.pinv(first.cell.complete()[:]), first.pbc | second.pbc
    # The tree measures distances in fractional coordinates, not in Å. The nearest atom is nevertheless the same, if it
    # is within the tolerance and no other atom is; displacements are checked in Å afterwards. The second `% 1` is
    # required because the result of the first can be rounded to exactly 1, which the tree rejects.
    fractional_positions = (first.positions @ inverse, second.positions @ inverse)
    points = [np.where(is_periodic, coordinates % 1 % 1, coordinates) for coordinates in fractional_positions]
    order = np.asarray(cKDTree(points[1], boxsize=is_periodic.astype(float)).query(points[0])[1])
    is_permutation = len(np.unique(order)) == len(first)
    return order if is_permutation and is_same_geometry(first, second[order]) else None


def is_same_geometry(first: Atoms, second: Atoms) -> bool:
    """Return whether two structures have the same atoms at the same positions, up to periodic images and rounding.

    Files of plane-wave codes may declare a slab or a molecule in a box as periodic, or invert a left-handed cell. Such
    differences are ignored, because the calculation is the same.
    """
    return bool(
        len(first) == len(second)
        and (first.numbers == second.numbers).all()
        and ((first.pbc == second.pbc).all() or first.pbc.all() or second.pbc.all())
        and any(np.allclose(first.cell[:], sign * second.cell[:], rtol=0, atol=GEOMETRY_TOLERANCE) for sign in (1, -1))
        and np.abs(_compute_displacements(first, second)).max(initial=0.0) < GEOMETRY_TOLERANCE
    )


def _compute_displacements(first: Atoms, second: Atoms) -> Array:
    """Return ``(N, 3)`` Å: displacements of the atoms between two structures, to the closest periodic image."""
    differences, cell = second.positions - first.positions, np.array(first.cell[:])
    images = np.round(differences @ np.linalg.pinv(cell)) * (first.pbc | second.pbc)
    return np.asarray(differences - images @ cell)
