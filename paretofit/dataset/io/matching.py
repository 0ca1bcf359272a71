"""Which structures of several files are the same configuration: by id, by geometry, or by their order.

Geometries are found with a tree over quantities that do not change when atoms are moved by lattice vectors and that
change little under rounding, and then compared atom by atom: no rounding boundary can part two equal structures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from scipy.spatial import cKDTree

from paretofit.core import Array, InputError, suggest_match
from paretofit.dataset.io.structure_files import Frames

GEOMETRY_TOLERANCE = 1e-4  # Å; extended XYZ is often written with five to eight digits
NEAR = 3e-3  # Å, of the invariants: several times what differences below the tolerance can make
GOLDEN = 0.6180339887498949


@dataclass
class MatchResult:
    """Every configuration once, in order of first appearance.

    Attributes
    ----------
    atoms : list of ase.Atoms
    ids : list of int
    positions : list of list of int
        For each part and each of its frames the position in `atoms`.
    notes : list of str
    """

    atoms: list[Atoms]
    ids: list[int]
    positions: list[list[int]]
    notes: list[str]


def match_frames(parts: Sequence[Frames], match_by: str | None = None) -> MatchResult:
    """Find the configurations that several files share.

    Parameters
    ----------
    parts : sequence of Frames
    match_by : {"id", "geometry", "order"}, optional
        By default by id where all files have ids; else by order where all have as many structures of the same
        geometries; else by geometry.

    Raises
    ------
    InputError
        If they cannot be matched in that way, or the geometry of a configuration differs between files.
    """
    ways: dict[str, Callable[[], MatchResult]] = {
        "id": lambda: _by_id(parts),
        "order": lambda: _by_order(parts),
        "geometry": lambda: _by_geometry(parts, strict=False),
    }
    if match_by is not None and match_by not in ways:
        raise InputError(f"match must be one of {', '.join(ways)}; got '{match_by}'{suggest_match(match_by, ways)}")
    if not parts:
        raise InputError("no level to import; name at least one with its file")
    if match_by is not None:
        return ways[match_by]()
    if all(one.ids is not None for one in parts):
        return _by_id(parts)
    if all(one.ids is None for one in parts) and _same_order(parts):
        return _by_order(parts)
    return _by_geometry(parts, strict=True)


def _by_id(parts: Sequence[Frames]) -> MatchResult:
    known: dict[int, int] = {}
    atoms: list[Atoms] = []
    positions: list[list[int]] = []
    for part in parts:
        if part.ids is None:
            raise InputError(
                f"{part.path}: not every structure has an id; match by geometry, or add a config_id to each"
            )
        positions.append([known.setdefault(identity, len(known)) for identity in part.ids])
        for k, at in enumerate(positions[-1]):
            if at == len(atoms):
                atoms.append(part.atoms[k])
            else:
                _check_geometry(atoms[at], part, k)
    return MatchResult(atoms, list(known), positions, [])


def _by_order(parts: Sequence[Frames]) -> MatchResult:
    first = next((part for part in parts if part.ids is not None), parts[0])
    n = len(first.atoms)
    for part in parts:
        if len(part.atoms) != n:
            raise InputError(
                f"{part.path} has {len(part.atoms)} structures and {first.path} has {n}; they cannot be matched by "
                "order: match by geometry, or by id"
            )
        for k in range(n):
            _check_geometry(parts[0].atoms[k], part, k)
    ids = list(range(n)) if first.ids is None else first.ids
    return MatchResult(parts[0].atoms, ids, [list(range(n)) for _ in parts], [])


def _by_geometry(parts: Sequence[Frames], *, strict: bool) -> MatchResult:
    """Match by geometry; `strict` refuses what looks like one configuration in two geometries."""
    atoms = list(parts[0].atoms)
    owner: list[tuple[Frames, int]] = [(parts[0], k) for k in range(len(atoms))]
    positions = [list(range(len(atoms)))]
    notes: list[str] = []
    for part in parts[1:]:
        before = len(atoms)
        found = _find(atoms, part.atoms)
        new = [k for k, at in enumerate(found) if at is None]
        if strict:
            _check_found(parts[0], part, found, new)
        if new:
            notes.append(f"{part.path}: {len(new)} of {len(found)} structures are in no earlier file")
        for k in new:
            found[k] = len(atoms)
            atoms.append(part.atoms[k])
            owner.append((part, k))
        positions.append([at for at in found if at is not None])
        notes += _other_ids(part, positions[-1], owner, before)
    notes.insert(0, "structures were matched by geometry")
    return MatchResult(atoms, _ids(owner), positions, notes)


def _find(known: Sequence[Atoms], wanted: Sequence[Atoms]) -> list[int | None]:
    """For each wanted structure the position of the same one among the known, each at most once."""
    buckets: dict[bytes, list[int]] = {}
    for k, one in enumerate(known):
        buckets.setdefault(_kind(one), []).append(k)
    trees = {kind: cKDTree([_invariants(known[k]) for k in members]) for kind, members in buckets.items()}
    used: set[int] = set()
    found: list[int | None] = []
    for one in wanted:
        kind = _kind(one)
        near = sorted(trees[kind].query_ball_point(_invariants(one), NEAR)) if kind in trees else []
        candidates = (buckets[kind][k] for k in near)
        at = next((k for k in candidates if k not in used and is_same_geometry(known[k], one)), None)
        found.append(at)
        used.update([] if at is None else [at])
    return found


def _kind(atoms: Atoms) -> bytes:
    return bytes(atoms.numbers.astype(np.int16).tobytes())


def _invariants(atoms: Atoms) -> Array:
    """``(15,)`` Å: the right-handed cell, and along each of its vectors a weighted mean of the atoms' phases.

    The mean of w_i exp(2 pi i s_i), times h / (2 pi), with fractional coordinates s and the height h of the cell. It
    is the same whether or not a direction is called periodic; weights that differ tell atoms apart.
    """
    whole = atoms.cell.complete()[:]
    hand = -1.0 if np.linalg.det(whole) < 0 else 1.0
    inverse = np.linalg.pinv(hand * whole)
    heights = 1 / np.maximum(np.linalg.norm(inverse, axis=0), 1e-12)
    weights = (np.arange(1, len(atoms) + 1) * GOLDEN % 1)[:, np.newaxis]
    phase = (weights * np.exp(2j * np.pi * (atoms.positions @ inverse))).mean(axis=0) * heights / (2 * np.pi)
    return np.concatenate([hand * atoms.cell[:].ravel(), phase.real, phase.imag])


def _check_found(first: Frames, part: Frames, found: Sequence[int | None], new: Sequence[int]) -> None:
    if new and len(found) == len(first.atoms):
        raise InputError(
            f"{part.describe_frame(new[0])} has another geometry than every structure of {first.path}; correct it, or match "
            "by geometry to take it as a configuration of its own"
        )
    if len(new) == len(found):
        raise InputError(
            f"{part.path}: no structure has the geometry of one in {first.path}, and without configuration ids they "
            "cannot be matched otherwise; all levels must be labels of the same atoms"
        )


def _other_ids(part: Frames, positions: Sequence[int], owner: Sequence[tuple[Frames, int]], before: int) -> list[str]:
    """A note where a file's ids give way to those of an earlier file."""
    if part.ids is None:
        return []
    changed = 0
    for identity, at in zip(part.ids, positions, strict=True):
        other, k = owner[at]
        changed += at < before and other.ids is not None and other.ids[k] != identity
    return [f"{part.path}: {changed} structures have another id in an earlier file, which counts"] if changed else []


def _ids(owner: Sequence[tuple[Frames, int]]) -> list[int]:
    """The ids that files give; new ones, above all of those, where there is none or it is taken."""
    given = [part.ids[k] if part.ids is not None else None for part, k in owner]
    following = max((one for one in given if one is not None), default=-1) + 1
    taken: set[int] = set()
    ids = []
    for one in given:
        if one is None or one in taken:
            identity, following = following, following + 1
        else:
            identity = one
        taken.add(identity)
        ids.append(identity)
    return ids


def _same_order(parts: Sequence[Frames]) -> bool:
    first = parts[0].atoms
    return all(len(part.atoms) == len(first) and all(map(is_same_geometry, first, part.atoms)) for part in parts[1:])


def _check_geometry(first: Atoms, part: Frames, k: int) -> None:
    if not is_same_geometry(first, part.atoms[k]):
        raise InputError(
            f"{part.describe_frame(k)} has another geometry than the same configuration in an earlier file; all levels must be "
            "labels of the same atoms"
        )


def is_same_geometry(first: Atoms, second: Atoms) -> bool:
    """Whether two structures are the same atoms at the same places, up to periodic images and rounding in files.

    Plane-wave codes call a slab or a molecule in its box periodic, and turn a left-handed cell round: neither changes
    what was computed.
    """
    return bool(
        len(first) == len(second)
        and (first.numbers == second.numbers).all()
        and ((first.pbc == second.pbc).all() or first.pbc.all() or second.pbc.all())
        and any(np.allclose(first.cell[:], s * second.cell[:], rtol=0, atol=GEOMETRY_TOLERANCE) for s in (1, -1))
        and np.abs(_displacements(first, second)).max(initial=0.0) < GEOMETRY_TOLERANCE
    )


def _displacements(first: Atoms, second: Atoms) -> Array:
    """``(N, 3)`` Å: from the atoms of one structure to the same atoms, or their periodic images, in another."""
    difference, cell = second.positions - first.positions, np.array(first.cell[:])
    images = np.round(difference @ np.linalg.pinv(cell)) * (first.pbc | second.pbc)
    return np.asarray(difference - images @ cell)
