"""Labelled structures from any file that ASE reads, into a dataset file.

Energies are taken as they are labelled, never recomputed. Configurations of several files are matched
by id where they carry one, else by their order; either way their geometry must agree.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

from paretofit.dataset.checks import Array, whole_number
from paretofit.dataset.dataset import Dataset
from paretofit.dataset.extract import SECONDS_KEYS, check_costs, label_of, prefixed_labels
from paretofit.dataset.writer import Label, LevelData, write_dataset
from paretofit.errors import InputError
from paretofit.files import one_line, read_yaml

ID_KEYS = ("config_id", "id", "configuration_id")
GEOMETRY_TOLERANCE = 1e-4  # Å; extended XYZ is often written with five to eight digits


@dataclass
class ImportSummary:
    """What an import found: configurations, complete labels for each level, and the ids of all others.

    A label is complete where its energy and all of its forces are finite.
    """

    path: Path
    n_configurations: int
    labels: dict[str, int]
    missing: dict[str, list[int]] = field(default_factory=dict)


@dataclass
class Frames:
    """One file's structures, with their ids where all of them carry one."""

    path: Path
    atoms: list[Atoms]
    ids: list[int] | None

    def pairs(self) -> Iterator[tuple[Atoms, int]]:
        """Each frame with its id, or with its number where there are none."""
        return zip(self.atoms, range(len(self.atoms)) if self.ids is None else self.ids, strict=True)

    def where(self, k: int) -> str:
        """Frame `k` as it is called in messages."""
        return f"{self.path}: structure {k}" + ("" if self.ids is None else f" (configuration {self.ids[k]})")


def import_dataset(
    output: Path | str,
    sources: Mapping[str, Path | str] | Path | str,
    *,
    levels: Sequence[str] | None = None,
    energy_key: str = "{level}_energy",
    forces_key: str = "{level}_forces",
    stress_key: str = "{level}_stress",
    id_key: str | None = None,
    seconds_key: str | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> ImportSummary:
    """Import labelled structures into one dataset file.

    Parameters
    ----------
    output : path-like
        The dataset to write; replaced as a whole.
    sources : mapping of level to file, or one file
        One file for each level, in order of cost; or one file with every level's labels under prefixed
        keys, for which `levels` names the levels.
    levels : sequence of str, optional
        With one file: the levels, in order of cost.
    energy_key, forces_key, stress_key : str
        With one file: the keys of a level's labels, ``{level}`` standing for its name. Energies in eV
        (total), forces in eV/Å, stress in eV/Å³ (six in ASE's Voigt order, or nine).
    id_key : str, optional
        The key of the configurations' ids; by default the first of ``config_id``, ``id`` and
        ``configuration_id`` that all frames carry.
    seconds_key : str, optional
        The key of a label's cost; by default the first of ``seconds``, ``cpu_seconds`` and
        ``wall_seconds``. With one file ``{level}`` stands for the level's name.
    settings : mapping of level to mapping, optional
        How each level was computed, see `read_settings`.

    Returns
    -------
    ImportSummary

    Raises
    ------
    InputError
        If a file cannot be read, holds no structures or no labels, a label is not numbers, ids repeat, or
        the geometry of a configuration differs between files (atoms may be wrapped into the cell).
    """
    if isinstance(sources, Mapping):
        frames = {str(level): read_frames(Path(path), id_key) for level, path in sources.items()}
        base, extracted = _merge_files(frames, seconds_key)
    else:
        keys = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
        base = read_frames(Path(sources), id_key)
        names = [str(level) for level in levels or ()]
        extracted = prefixed_labels(base.path, base.atoms, names, keys, seconds_key, base.where)
    check_costs(extracted, seconds_key)
    ids = base.ids if base.ids is not None else list(range(len(base.atoms)))
    _check_settings(settings, extracted)
    data = {level: LevelData(labels, (settings or {}).get(level, {})) for level, labels in extracted.items()}
    write_dataset(output, base.atoms, data, ids)
    return _summary(Path(output))


def _summary(path: Path) -> ImportSummary:
    with Dataset(path) as data:
        complete = {level: data.labels(level).complete for level in data.levels}
        return ImportSummary(
            path=path,
            n_configurations=len(data),
            labels={level: int(have.sum()) for level, have in complete.items()},
            missing={level: data.ids[~have].tolist() for level, have in complete.items()},
        )


def read_settings(path: Path | str) -> dict[str, dict[str, Any]]:
    """Read how each level was computed from a YAML file.

    ``levels`` is a list of mappings that have a ``name``; everything beside ``levels`` is common to all.

    Raises
    ------
    InputError
        If the file cannot be read or has no such list.
    """
    content = read_yaml(path)
    listed = content.get("levels") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not all(isinstance(one, dict) and "name" in one for one in listed):
        raise InputError(f"{path} must have a list 'levels' whose entries each have a 'name'")
    common = {key: value for key, value in content.items() if key != "levels"}
    return {
        str(one["name"]): {**common, **{key: value for key, value in one.items() if key != "name"}} for one in listed
    }


def _check_settings(settings: Mapping[str, Any] | None, levels: Mapping[str, Any]) -> None:
    unknown = [name for name in settings or {} if name not in levels]
    if unknown:
        raise InputError(
            f"the settings describe level '{unknown[0]}', which is not imported; the levels are {', '.join(levels)}"
        )


def read_frames(path: Path, id_key: str | None) -> Frames:
    """Read all structures of a file that ASE reads, and take their ids out of their info.

    Raises
    ------
    InputError
        If the file cannot be read or holds no structures, or ids repeat or are not whole numbers.
    """
    if not path.is_file():
        raise InputError(f"no file at {path}")
    try:
        read = ase.io.read(path, index=":")
    except Exception as error:  # ASE's readers raise whatever their format's parser meets
        raise InputError(f"{path} cannot be read by ASE: {one_line(error) or type(error).__name__}") from error
    atoms = list(read) if isinstance(read, list) else [read]
    if not atoms:
        raise InputError(f"{path} holds no structures")
    keys = ID_KEYS if id_key is None else (id_key,)
    key = next((key for key in keys if all(key in one.info for one in atoms)), None)
    if key is None:
        if id_key is not None:
            raise InputError(f"{path}: not every structure has the id key '{id_key}'")
        return Frames(path, atoms, None)
    try:
        ids = [whole_number(one.info[key]) for one in atoms]
    except InputError as error:
        raise InputError(f"{path}, key '{key}': {error}") from error
    seen: set[int] = set()
    for identity in ids:
        if identity in seen:
            raise InputError(f"{path}: the id {identity} appears more than once; ids must be unique")
        seen.add(identity)
    for one in atoms:
        del one.info[key]
    return Frames(path, atoms, ids)


def _merge_files(
    frames: Mapping[str, Frames], seconds_key: str | None
) -> tuple[Frames, dict[str, list[Label | None]]]:
    """The union of all files' configurations, and each level's labels in that order."""
    _check_matchable(list(frames.values()))
    base, positions = _union(list(frames.values()))
    shared = _shared_info(frames, positions, len(base.atoms))
    labels: dict[str, list[Label | None]] = {}
    for level, one in frames.items():
        column: list[Label | None] = [None] * len(base.atoms)
        for k, (atoms, identity) in enumerate(one.pairs()):
            column[positions[identity]] = label_of(atoms, shared[positions[identity]], seconds_key, one.where(k))
        if not any(column):
            raise InputError(f"{one.path}: no structure has an energy or forces")
        labels[level] = column
    for atoms, keys in zip(base.atoms, shared, strict=True):
        atoms.info = {key: value for key, value in atoms.info.items() if key in keys}
    return base, labels


def _check_matchable(files: list[Frames]) -> None:
    """Configurations are matched by id, or by order where no file has ids and all are of one length."""
    if not files:
        raise InputError("no level to import; name at least one with its file")
    bare = [one.path for one in files if one.ids is None]
    if bare and len(bare) < len(files):
        raise InputError(f"{bare[0]} has no configuration ids but other levels have; give all of them, or none")
    for one in files:
        if bare and len(one.atoms) != len(files[0].atoms):
            raise InputError(
                f"{one.path} has {len(one.atoms)} structures and {files[0].path} has {len(files[0].atoms)}; without "
                "configuration ids they cannot be matched: add a config_id to each"
            )


def _union(files: list[Frames]) -> tuple[Frames, dict[int, int]]:
    """Every configuration once, in order of first appearance, and where each id stands."""
    positions: dict[int, int] = {}
    base = Frames(files[0].path, [], [])
    for one in files:
        for k, (atoms, identity) in enumerate(one.pairs()):
            at = positions.setdefault(identity, len(base.atoms))
            if at < len(base.atoms):
                _check_geometry(base.atoms[at], atoms, identity, one.path, k)
            else:
                base.atoms.append(atoms)
    base.ids = list(positions)
    return base, positions


def _shared_info(frames: Mapping[str, Frames], positions: Mapping[int, int], n: int) -> list[set[str]]:
    """For each configuration the info keys that say the same in every file; the rest is the label's."""
    if len(frames) == 1:
        only = next(iter(frames.values()))
        return [set(atoms.info) - set(SECONDS_KEYS) for atoms in only.atoms]
    values: list[dict[str, Any]] = [{} for _ in range(n)]
    differ: list[set[str]] = [set(SECONDS_KEYS) for _ in range(n)]
    for one in frames.values():
        for atoms, identity in one.pairs():
            at = positions[identity]
            for key, value in atoms.info.items():
                if not np.array_equal(np.asarray(values[at].setdefault(key, value)), np.asarray(value)):
                    differ[at].add(key)
    varying = set().union(*(one - set(SECONDS_KEYS) for one in differ))
    return [set(known) - set(SECONDS_KEYS) - varying for known in values]


def _check_geometry(first: Atoms, second: Atoms, identity: int, path: Path, k: int) -> None:
    if not same_geometry(first, second):
        raise InputError(
            f"{path}: structure {k} (configuration {identity}) has another geometry than the same "
            "configuration in an earlier file; all levels must be labels of the same atoms"
        )


def same_geometry(first: Atoms, second: Atoms) -> bool:
    """Whether two structures are the same atoms at the same places, up to periodic images and rounding in files."""
    return bool(
        len(first) == len(second)
        and (first.numbers == second.numbers).all()
        and (first.pbc == second.pbc).all()
        and np.allclose(first.cell[:], second.cell[:], rtol=0, atol=GEOMETRY_TOLERANCE)
        and np.abs(_displacements(first, second)).max(initial=0.0) < GEOMETRY_TOLERANCE
    )


def _displacements(first: Atoms, second: Atoms) -> Array:
    """``(N, 3)`` Å: from the atoms of one structure to the same atoms, or their periodic images, in another."""
    difference, cell = second.positions - first.positions, np.array(first.cell[:])
    images = np.round(difference @ np.linalg.pinv(cell)) * first.pbc
    return np.asarray(difference - images @ cell)
