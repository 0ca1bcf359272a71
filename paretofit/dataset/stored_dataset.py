"""Read-only access to the dataset file: configurations and their labels at several convergence levels.

The atoms of all configurations are concatenated; configuration k has the atoms ``offsets[k]:offsets[k + 1]``.
Structures are read in chunks of consecutive configurations, so that memory use does not grow with the size of the file.
Cell vectors are the rows of a cell (ASE's convention). `paretofit.dataset.writer` writes the file.
"""

import json
import operator
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, overload

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
    join_lines,
    raise_if_system_error,
    read_local_array,
    suggest_match,
)
from paretofit.dataset.checks import abbreviate, check_level_name, check_structure, parse_config_id
from paretofit.dataset.labelled import STATUS_CODES, Labels

SCHEMA_VERSION = 1
STORED_UNITS = {"length": "angstrom", "energy": "eV", "forces": "eV/angstrom", "stress": "eV/angstrom^3"}
MAX_CHUNK_CONFIGURATIONS = 512  # number of configurations that are read at once
INTEGER_KINDS, REAL_KINDS, TEXT_KINDS = "biu", "fiu", "OS"  # accepted values of numpy's dtype.kind
COLUMNS: dict[str, tuple[str, tuple[int, ...]]] = {  # accepted dtype kinds and the shape of a row, for each array
    **dict.fromkeys(("numbers", "offsets", "id", "status"), (INTEGER_KINDS, ())),
    **dict.fromkeys(("energy", "seconds"), (REAL_KINDS, ())),
    **dict.fromkeys(("positions", "forces"), (REAL_KINDS, (3,))),
    "cell": (REAL_KINDS, (3, 3)), "stress": (REAL_KINDS, (6,)), "pbc": (INTEGER_KINDS, (3,)), "info": (TEXT_KINDS, ()),
}  # fmt: skip


class StoredDataset:
    """A dataset file, opened read-only, or a selection of its configurations; see `Dataset`.

    Attributes
    ----------
    path : Path
    levels : list of str
        Convergence levels in order of cost; the last is the reference.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file = _open_file(self.path)
        try:
            self._load_index()
        except InputError:
            self._file.close()
            raise

    def _load_index(self) -> None:
        """Read and check the schema version, offsets, ids and level names.

        Raises
        ------
        InputError
            If the file is not a paretofit dataset, has a later schema version, or is corrupt.
        """
        version = self._read_attributes("/").get("schema_version")
        if version is None:
            raise InputError(f"{self.path} is not a paretofit dataset; create one with 'paretofit import'")
        if not isinstance(version, int | np.integer):
            problem = f"its schema_version must be a whole number; got {abbreviate(version)}"
            raise InputError(f"{self.path}: {problem}; restore the file from a copy or import it again")
        if version > SCHEMA_VERSION:
            raise InputError(
                f"{self.path} has schema version {version}, but this version of paretofit reads at most "
                f"{SCHEMA_VERSION}; update paretofit"
            )
        self._offsets = self._read_array("configurations/offsets", slice(None)).astype(np.int64)
        self._ids = self._read_array("configurations/id", slice(None)).astype(np.int64)
        self._check_offsets()
        if len(np.unique(self._ids)) < len(self._ids):
            raise self._create_corruption_error("configurations/id", "an id appears twice")
        self._index = np.arange(len(self._ids))  # positions, in the file, of the selected configurations; initially all
        # A corrupt file may have a scalar here, which becomes a list of one name. With dtype object, a name reaches
        # `check_level_name` unchanged; as numpy text it would lose trailing null characters.
        level_names = np.asarray(self._read_attributes("levels").get("order", []), dtype=object)
        self.levels: list[str] = np.atleast_1d(level_names).tolist()
        for name in self.levels:
            try:
                check_level_name(name)
            except InputError as error:
                raise self._create_corruption_error("levels", error) from error

    def _check_offsets(self) -> None:
        """Raise `InputError` unless the offsets are one more than the ids, ascend and begin with 0."""
        n_offsets, n_required = len(self._offsets), len(self._ids) + 1
        if n_offsets != n_required:
            problem = f"{len(self._ids)} ids require {n_required} offsets; got {n_offsets}"
        elif self._offsets[0] != 0:
            problem = f"the first offset must be 0; got {self._offsets[0]}"
        elif (is_wrong := np.diff(self._offsets) <= 0).any():
            k = int(np.argmax(is_wrong))
            problem = f"offsets must ascend; got {self._offsets[k + 1]} after {self._offsets[k]}"
        else:
            return
        raise self._create_corruption_error("configurations/offsets", problem)

    def close(self) -> None:
        """Close the file; selections from this dataset use the same file and can no longer be read."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception_details: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        return f"Dataset('{self.path}', {len(self)} configurations, levels {self.levels})"

    def __iter__(self) -> Iterator[Atoms]:
        for run in _split_into_runs(self._index):
            yield from self._read_atoms(run)

    @overload
    def __getitem__(self, k: int) -> Atoms: ...

    @overload
    def __getitem__(self, k: slice) -> Self: ...

    def __getitem__(self, k: int | slice) -> Atoms | Self:
        """Return the configuration at position `k` (not with id `k`) as ASE atoms, or a view of a slice.

        Raises
        ------
        IndexError
            If the dataset has no position `k`.
        """
        if isinstance(k, slice):
            return self.select(np.arange(len(self))[k])
        position = operator.index(k)
        if not -len(self) <= position < len(self):
            raise IndexError(
                f"{self.path} has no configuration at position {position}; it has {len(self)} configurations"
            )
        return next(self._read_atoms(self._index[[position]]))

    @property
    def ids(self) -> Array:
        """``(n,) int64``: ids of the configurations; an id never changes."""
        return np.asarray(self._ids[self._index])

    @property
    def n_atoms(self) -> Array:
        """``(n,) int64``: numbers of atoms."""
        return np.asarray(np.diff(self._offsets)[self._index])

    @property
    def info_records(self) -> list[dict[str, Any]]:
        """Metadata of each configuration (config_type, parent, trajectory, source, ...); read anew at every access."""
        return [
            self._parse_record(text, "configurations/info")
            for run in _split_into_runs(self._index)
            for text in self._read_array("configurations/info", _get_window(run))
        ]

    def select(self, positions: Sequence[int] | Array) -> Self:
        """Return a view of the configurations at the given positions, in this order, or where a mask is True.

        The view uses the same open file. Negative positions count from the end.

        Raises
        ------
        InputError
            If a position is outside the dataset or not a whole number, or the mask has a different length.
        """
        indices = np.asarray(positions)
        if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "biu"):
            raise InputError(f"{self.path}: positions must be whole numbers or a mask; got {abbreviate(positions)}")
        if indices.dtype == bool and len(indices) != len(self):
            raise InputError(f"{self.path}: a mask must have {len(self)} entries; got {len(indices)}")
        if indices.size and indices.dtype != bool and (indices.min() < -len(self) or indices.max() >= len(self)):
            limits = f"{indices.min()} to {indices.max()}"
            raise InputError(f"{self.path}: positions must be between 0 and {len(self) - 1}; got {limits}")
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        # numpy converts an empty list to a float array, which cannot be an index.
        view._index = self._index[indices if indices.size else indices.astype(int)]
        return view

    def select_ids(self, ids: Sequence[int] | Array) -> Self:
        """Return a view of the configurations with the given ids, in this order.

        Raises
        ------
        InputError
            If an id is not in this selection of the dataset, or not a whole number.
        """
        positions = {int(config_id): k for k, config_id in enumerate(self.ids)}
        try:
            return self.select(np.array([positions[parse_config_id(value)] for value in ids], dtype=int))
        except KeyError as error:
            raise InputError(f"{self.path} has no configuration with id {error}; correct the id") from error

    def labels(self, level: str) -> Labels:
        """Read the labels of this selection at one convergence level.

        The force on a single atom is zero by symmetry, so it is set to 0 if only the energy is labelled.

        Raises
        ------
        InputError
            If the dataset lacks the level, or cannot be read.
        """
        self._check_level(level)
        runs = list(_split_into_runs(self._index))

        def read_column(name: str, empty_array: Array, get_window: Callable[[Array], slice] = _get_window) -> Array:
            """Read the rows of one array that belong to this selection."""
            chunks = (self._read_array(f"levels/{level}/{name}", get_window(run)) for run in runs)
            return np.concatenate([empty_array, *chunks])  # the empty array gives the shape if there are no runs

        status = read_column("status", np.empty(0, np.int8))
        if not set(np.unique(status)) <= set(STATUS_CODES.values()):
            raise self._create_corruption_error(f"levels/{level}/status", f"values must be among {STATUS_CODES}")
        energy, offsets = read_column("energy", np.empty(0)), np.concatenate([[0], np.cumsum(self.n_atoms)])
        forces = read_column("forces", np.empty((0, 3)), self._get_atom_window)
        single_atoms = offsets[:-1][(self.n_atoms == 1) & np.isfinite(energy)]
        forces[single_atoms] = np.where(np.isnan(forces[single_atoms]), 0.0, forces[single_atoms])
        return Labels(
            energy=energy,
            forces=forces,
            stress=read_column("stress", np.empty((0, 6))),
            seconds=read_column("seconds", np.empty(0)),
            status=status,
            offsets=offsets,
        )

    def label_records(self, level: str) -> list[dict[str, Any]]:
        """Read the metadata of each label (k-point mesh, wall and CPU seconds, iterations, ...); empty without a label.

        Raises
        ------
        InputError
            If the dataset lacks the level, or cannot be read.
        """
        self._check_level(level)
        name = f"levels/{level}/info"
        texts = (text for run in _split_into_runs(self._index) for text in self._read_array(name, _get_window(run)))
        return [self._parse_record(text or "{}", name) for text in texts]

    def find_unconverged(self, level: str) -> Array:
        """Return ``(n,) bool``: whether the electronic loop of a label did not converge (``scf_converged: false``).

        Raises
        ------
        InputError
            If the dataset lacks the level, or cannot be read.
        """
        return np.array([record.get("scf_converged") is False for record in self.label_records(level)], dtype=bool)

    def settings(self, level: str) -> dict[str, Any]:
        """Read the settings of the calculations at a level.

        Raises
        ------
        InputError
            If the dataset lacks the level, or cannot be read.
        """
        self._check_level(level)
        return {key: _decode_setting(value) for key, value in self._read_attributes(f"levels/{level}").items()}

    def hash_structures(self) -> str:
        """Return the SHA-256 digest of the ids and geometries of this selection, but not of its labels."""
        geometries = ([atoms.numbers, atoms.pbc, atoms.cell[:].ravel(), atoms.positions.ravel()] for atoms in self)
        return hash_json([self.ids.tolist(), [hash_array(np.concatenate(arrays)) for arrays in geometries]])

    def _check_level(self, level: str) -> None:
        """Raise `InputError` if the dataset lacks a level."""
        if level not in self.levels:
            available_text = (", ".join(self.levels) or "none") + suggest_match(level, self.levels)
            raise InputError(f"{self.path} has no convergence level '{level}'; available: {available_text}")

    def _get_atom_window(self, run: Array) -> slice:
        """Return the range of the atoms of a run of consecutive configurations in the concatenated arrays."""
        return slice(int(self._offsets[run[0]]), int(self._offsets[run[-1] + 1]))

    def _read_atoms(self, run: Array) -> Iterator[Atoms]:
        """Yield the structures of a run of consecutive configurations, with their ids in the info as ``config_id``."""
        window, atom_window = _get_window(run), self._get_atom_window(run)
        numbers = self._read_array("configurations/numbers", atom_window)
        coordinates = self._read_array("configurations/positions", atom_window)
        cells = self._read_array("configurations/cell", window)
        pbc = self._read_array("configurations/pbc", window)
        texts = self._read_array("configurations/info", window)
        for k, position in enumerate(run):
            atom_slice = slice(*(self._offsets[position : position + 2] - atom_window.start))
            info = {**self._parse_record(texts[k], "configurations/info"), "config_id": int(self._ids[position])}
            atoms = Atoms(numbers[atom_slice], coordinates[atom_slice], cell=cells[k], pbc=pbc[k] != 0, info=info)
            check_structure(atoms, f"{self.path}: configuration {info['config_id']}")
            yield atoms

    def _read_array(self, name: str, window: slice) -> Array:
        """Read a range of rows of an array, and check its dtype and shape; `name` is its path in the file."""
        try:
            return read_local_array(self._file, name, window, *COLUMNS[name.rpartition("/")[2]])
        except CORRUPT_FILE_ERRORS as error:
            raise_if_system_error(error, self.path)
            raise self._create_corruption_error(name, error) from error

    def _read_attributes(self, name: str) -> dict[str, Any]:
        """Read the attributes of the group at path `name` in the file; those of the file itself for ``"/"``."""
        try:
            return dict((self._file if name == "/" else get_local_item(self._file, name)).attrs)
        except CORRUPT_FILE_ERRORS as error:
            raise_if_system_error(error, self.path)
            raise self._create_corruption_error(name, error) from error

    def _parse_record(self, text: Any, name: str) -> dict[str, Any]:
        """Parse a JSON object from the array `name`; raise `InputError` if it is corrupt."""
        try:
            record = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise self._create_corruption_error(name, error) from error
        if not isinstance(record, dict):
            raise self._create_corruption_error(name, f"it must be a JSON object, not {abbreviate(record)}")
        return record

    def _create_corruption_error(self, name: str, reason: object) -> InputError:
        """Return the error to raise if the object at path `name` in the file is corrupt."""
        advice = "the file is corrupt or incomplete: restore it from a copy or import it again"
        return InputError(f"{self.path}: '{name}' cannot be read ({join_lines(reason)}); {advice}")


def _open_file(path: Path) -> h5py.File:
    """Open an HDF5 file read-only; raise `InputError` if it is missing, not HDF5, or corrupt."""
    if not path.exists():
        raise InputError(f"no dataset at {path}; 'paretofit import' creates one from labelled structures")
    try:
        if path.is_file():
            path.open("rb").close()  # raises OSError; h5py.is_hdf5 only returns False
        if path.is_file() and h5py.is_hdf5(path):
            check_global_heaps(path)
            return h5py.File(path, "r")
    except CORRUPT_FILE_ERRORS as error:
        raise_if_system_error(error, path)
        reason = f"a corrupt or truncated HDF5 file ({join_lines(error)})"
        raise InputError(f"{path} is {reason}; restore it from a copy or import it again") from error
    raise InputError(f"{path} is not an HDF5 file; 'paretofit import' creates a dataset from other formats")


def _split_into_runs(positions: Array) -> Iterator[Array]:
    """Split positions, in their order, into runs of at most `MAX_CHUNK_CONFIGURATIONS` consecutive positions."""
    for run in np.split(positions, np.flatnonzero(np.diff(positions) != 1) + 1):
        for chunk_start in range(0, len(run), MAX_CHUNK_CONFIGURATIONS):
            yield run[chunk_start : chunk_start + MAX_CHUNK_CONFIGURATIONS]


def _get_window(run: Array) -> slice:
    """Return the range of a run of consecutive configurations in arrays with a row per configuration."""
    return slice(int(run[0]), int(run[-1]) + 1)


def _decode_setting(value: Any) -> Any:
    """Convert an HDF5 attribute to a setting; the writer stores lists, mappings and None as JSON text."""
    if isinstance(value, str) and (value[:1] in "[{" or value == "null"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):  # text that only looks like JSON
            return value
    return value.item() if isinstance(value, np.generic) else value
