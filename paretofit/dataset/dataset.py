"""The dataset file, read-only: configurations, and their labels at several convergence levels.

Atoms of all configurations lie one after the other ("ragged"); configuration k owns the atoms
``offsets[k]:offsets[k + 1]``. Everything is read in chunks of consecutive configurations, so that
memory does not grow with the file. Cell vectors are rows (ASE's convention). Writing is done in
`paretofit.dataset.writer`.
"""

from __future__ import annotations

import json
import operator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import h5py
import numpy as np
from ase import Atoms

from paretofit.core import (
    CORRUPT_FILE_ERRORS,
    Array,
    InputError,
    check_global_heaps,
    get_local_item,
    hash_array,
    hash_json,
    one_line,
    read_local_array,
    suggest_match,
)
from paretofit.dataset.checks import abbreviate, check_level_name, check_structure, parse_config_id
from paretofit.dataset.dataset_html import render_dataset
from paretofit.dataset.labelled import STATUS_CODES, Labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType


SCHEMA_VERSION = 1
STORED_UNITS = {"length": "angstrom", "energy": "eV", "forces": "eV/angstrom", "stress": "eV/angstrom^3"}
MAX_CHUNK_CONFIGURATIONS = 512
WHOLE, REAL, TEXT = "biu", "fiu", "OS"  # kinds of numpy types that do for whole numbers, real numbers, texts
COLUMNS: dict[str, tuple[str, tuple[int, ...]]] = {  # the kind of each array, and the shape of what it has for each
    **dict.fromkeys(("numbers", "offsets", "id", "status"), (WHOLE, ())),
    **dict.fromkeys(("energy", "seconds"), (REAL, ())),
    **dict.fromkeys(("positions", "forces"), (REAL, (3,))),
    "cell": (REAL, (3, 3)), "stress": (REAL, (6,)), "pbc": (WHOLE, (3,)), "info": (TEXT, ()),
}  # fmt: skip


class Dataset:
    """A dataset file, opened read-only, or a selection of its configurations.

    Parameters
    ----------
    path : path-like
        An HDF5 file as `write_dataset` makes it.

    Raises
    ------
    InputError
        If the file is absent, not HDF5, damaged, or not a paretofit dataset.

    Examples
    --------
    >>> from paretofit import Dataset
    >>> with Dataset("data/beryllium.h5") as data:  # doctest: +SKIP
    ...     print(len(data), data.levels)
    ...     atoms = data[0]
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file = _open(self.path)
        try:
            self._load_index()
        except InputError:
            self._file.close()
            raise

    def _load_index(self) -> None:
        version = self._attributes("/").get("schema_version")
        if version is None:
            raise InputError(
                f"{self.path} is an HDF5 file but not a paretofit dataset; make one with 'paretofit import'"
            )
        if not isinstance(version, int | np.integer):
            raise InputError(
                f"{self.path}: its schema_version must be a whole number; got {abbreviate(version)}; restore the "
                "file from a copy or import it again"
            )
        if version > SCHEMA_VERSION:
            raise InputError(
                f"{self.path} has schema version {version}, newer than {SCHEMA_VERSION}, the newest that "
                "this paretofit reads; update paretofit"
            )
        self._offsets = self._read("configurations/offsets", slice(None)).astype(np.int64)
        self._ids = self._read("configurations/id", slice(None)).astype(np.int64)
        ascending = bool((self._offsets[1:] > self._offsets[:-1]).all())
        if len(self._offsets) != len(self._ids) + 1 or self._offsets[0] != 0 or not ascending:
            raise self._damaged("configurations/offsets", "they do not fit the ids")
        if len(np.unique(self._ids)) < len(self._ids):
            raise self._damaged("configurations/id", "one of them is there twice")
        self._index = np.arange(len(self._ids))
        self.levels: list[str] = np.atleast_1d(np.asarray(self._attributes("levels").get("order", []), object)).tolist()
        for name in self.levels:
            try:
                check_level_name(name)
            except InputError as error:
                raise self._damaged("levels", error) from error

    def close(self) -> None:
        """Close the file, also for all selections made from it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        return f"Dataset('{self.path}', {len(self)} configurations, levels {self.levels})"

    def _repr_html_(self) -> str:
        return render_dataset(self)

    def __iter__(self) -> Iterator[Atoms]:
        for positions in _runs(self._index):
            yield from self._atoms(positions)

    @overload
    def __getitem__(self, k: int) -> Atoms: ...

    @overload
    def __getitem__(self, k: slice) -> Dataset: ...

    def __getitem__(self, k: int | slice) -> Atoms | Dataset:
        """Configuration number `k` of this selection (a position, not an id) as ASE atoms; of a slice, a view."""
        if isinstance(k, slice):
            return self.select(np.arange(len(self))[k])
        position = operator.index(k)
        if not -len(self) <= position < len(self):
            raise IndexError(f"{self.path}: there is no configuration number {position}; it has {len(self)}")
        return next(self._atoms(self._index[[position]]))

    @property
    def ids(self) -> Array:
        """``(n,) int64``: the ids of the configurations, the same from import to report."""
        return np.asarray(self._ids[self._index])

    @property
    def n_atoms(self) -> Array:
        """``(n,) int64``: atoms in each configuration."""
        return np.asarray(np.diff(self._offsets)[self._index])

    @property
    def info_records(self) -> list[dict[str, Any]]:
        """What is known of each configuration (config_type, parent, trajectory, source, ...)."""
        return [
            self._record(text)
            for positions in _runs(self._index)
            for text in self._read("configurations/info", _slice(positions))
        ]

    def select(self, positions: Sequence[int] | Array) -> Dataset:
        """A view of some configurations, by position or by boolean mask, in the order given.

        Raises
        ------
        InputError
            If a position is outside the dataset or not a whole number, or a mask has another length.
        """
        wanted = np.asarray(positions)
        if wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "biu"):
            raise InputError(
                f"{self.path}: positions must be a list of whole numbers or a mask; got {abbreviate(positions)}"
            )
        if wanted.dtype == bool and len(wanted) != len(self):
            raise InputError(f"{self.path}: a mask must have {len(self)} entries; got {len(wanted)}")
        if wanted.size and wanted.dtype != bool and (wanted.min() < -len(self) or wanted.max() >= len(self)):
            raise InputError(
                f"{self.path}: positions must lie between 0 and {len(self) - 1}; got {wanted.min()} to {wanted.max()}"
            )
        view = object.__new__(Dataset)
        view.__dict__.update(self.__dict__)
        view._index = self._index[wanted if wanted.size else wanted.astype(int)]
        return view

    def select_ids(self, ids: Sequence[int] | Array) -> Dataset:
        """A view of the configurations with these ids, in this order.

        Raises
        ------
        InputError
            If an id is not in the dataset.
        """
        where = {int(identity): k for k, identity in enumerate(self.ids)}
        wanted = [parse_config_id(identity) for identity in ids]
        unknown = [identity for identity in wanted if identity not in where]
        if unknown:
            raise InputError(f"{self.path} has no configuration with id {unknown[0]}")
        return self.select(np.array([where[identity] for identity in wanted], dtype=int))

    def labels(self, level: str) -> Labels:
        """Labels of this selection at one convergence level.

        Raises
        ------
        InputError
            If the dataset lacks the level.
        """
        self._check_level(level)
        runs = list(_runs(self._index))

        def column(name: str, empty: Array, window: Callable[[Array], slice] = _slice) -> Array:
            return np.concatenate([empty, *(self._read(f"levels/{level}/{name}", window(run)) for run in runs)])

        status = column("status", np.empty(0, np.int8))
        if not set(np.unique(status)) <= set(STATUS_CODES.values()):
            raise self._damaged(f"levels/{level}/status", f"it must be one of {STATUS_CODES}")
        return Labels(
            energy=column("energy", np.empty(0)),
            forces=column("forces", np.empty((0, 3)), self._atom_window),
            stress=column("stress", np.empty((0, 6))),
            seconds=column("seconds", np.empty(0)),
            status=status,
            offsets=np.concatenate([[0], np.cumsum(self.n_atoms)]),
        )

    def label_records(self, level: str) -> list[dict[str, Any]]:
        """What is known of each label of a level: k-point mesh, wall and CPU seconds, iterations, ...

        Raises
        ------
        InputError
            If the dataset lacks the level.
        """
        self._check_level(level)
        name = f"levels/{level}/info"
        texts = (text for run in _runs(self._index) for text in self._read(name, _slice(run)))
        return [self._record(text or "{}", name) for text in texts]

    def settings(self, level: str) -> dict[str, Any]:
        """The settings that the labels of a level were computed with."""
        self._check_level(level)
        return {key: _decode(value) for key, value in self._attributes(f"levels/{level}").items()}

    def hash_structures(self) -> str:
        """SHA-256 of the ids and geometries of this selection, whatever its labels."""
        numbers = (
            hash_array(np.concatenate([atoms.numbers, atoms.pbc, atoms.cell[:].ravel(), atoms.positions.ravel()]))
            for atoms in self
        )
        return hash_json([self.ids.tolist(), list(numbers)])

    def _check_level(self, level: str) -> None:
        if level not in self.levels:
            raise InputError(
                f"{self.path} has no convergence level '{level}'; it has {', '.join(self.levels) or 'none'}"
                + suggest_match(level, self.levels)
            )

    def _atom_window(self, positions: Array) -> slice:
        return slice(int(self._offsets[positions[0]]), int(self._offsets[positions[-1] + 1]))

    def _atoms(self, positions: Array) -> Iterator[Atoms]:
        window, atoms = _slice(positions), self._atom_window(positions)
        numbers = self._read("configurations/numbers", atoms)
        coordinates = self._read("configurations/positions", atoms)
        cells = self._read("configurations/cell", window)
        periodic = self._read("configurations/pbc", window)
        info = self._read("configurations/info", window)
        for k, position in enumerate(positions):
            own = slice(*(self._offsets[position : position + 2] - atoms.start))
            record = {**self._record(info[k]), "config_id": int(self._ids[position])}
            made = Atoms(numbers[own], coordinates[own], cell=cells[k], pbc=periodic[k] != 0, info=record)
            check_structure(made, f"{self.path}: configuration {record['config_id']}")
            yield made

    def _read(self, name: str, window: slice) -> Array:
        try:
            return read_local_array(self._file, name, window, *COLUMNS[name.rpartition("/")[2]])
        except CORRUPT_FILE_ERRORS as error:
            raise self._damaged(name, error) from error

    def _attributes(self, name: str) -> dict[str, Any]:
        try:
            return dict((self._file if name == "/" else get_local_item(self._file, name)).attrs)
        except CORRUPT_FILE_ERRORS as error:
            raise self._damaged(name, error) from error

    def _record(self, text: Any, name: str = "configurations/info") -> dict[str, Any]:
        try:
            record = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise self._damaged(name, error) from error
        if not isinstance(record, dict):
            raise self._damaged(name, f"it must hold keys and values, not {abbreviate(record)}")
        return record

    def _damaged(self, name: str, reason: object) -> InputError:
        return InputError(
            f"{self.path}: '{name}' cannot be read ({one_line(reason)}); the file is damaged or incomplete: restore "
            "it from a copy or import it again"
        )


def _open(path: Path) -> h5py.File:
    if not path.exists():
        raise InputError(f"no dataset at {path}; 'paretofit import' makes one from labelled structures")
    if path.is_dir() or not h5py.is_hdf5(path):
        raise InputError(f"{path} is not an HDF5 file; 'paretofit import' makes a dataset from other formats")
    try:
        check_global_heaps(path)
        return h5py.File(path, "r")
    except CORRUPT_FILE_ERRORS as error:
        raise InputError(
            f"{path} is a damaged or truncated HDF5 file ({one_line(error)}); restore it from a copy or import it again"
        ) from error


def _runs(positions: Array) -> Iterator[Array]:
    """Split positions into runs of consecutive ones, at most CHUNK long, keeping their order."""
    start = 0
    for k in range(1, len(positions) + 1):
        if k == len(positions) or positions[k] != positions[k - 1] + 1 or k - start == MAX_CHUNK_CONFIGURATIONS:
            yield positions[start:k]
            start = k


def _slice(run: Array) -> slice:
    return slice(int(run[0]), int(run[-1]) + 1)


def _decode(value: Any) -> Any:
    """Undo `writer._encode`: lists, mappings and None are kept as JSON text."""
    if isinstance(value, str) and (value[:1] in "[{" or value == "null"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value.item() if isinstance(value, np.generic) else value
