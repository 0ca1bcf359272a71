"""Writing of the dataset file, which appears under its name only when it is complete."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase import Atoms

from paretofit.core import Array, InputError, atomic_hdf5, check_choice, join_lines
from paretofit.dataset.checks import (
    abbreviate,
    as_float_array,
    check_level_name,
    check_structure,
    find_first_duplicate,
    parse_config_id,
)
from paretofit.dataset.labelled import STATUS_CODES
from paretofit.dataset.stored_dataset import SCHEMA_VERSION, STORED_UNITS

Label = Mapping[str, Any]
"""Label of one configuration at one level, with the keys of `LevelData.labels`."""


@dataclass
class LevelData:
    """Labels and settings of one convergence level, to be written to a file.

    Attributes
    ----------
    labels : list of mapping or None
        For each configuration None (missing) or a mapping with any of ``energy`` (eV, total), ``forces`` ((N, 3),
        eV/Å), ``stress`` ((6,), eV/Å³, ASE's Voigt order and sign), ``seconds`` (cost), ``status`` (one of
        `STATUS_CODES`, by default ``done``) and ``info`` (metadata, a JSON object).
    settings : mapping
        Settings of the calculations, such as the cutoff, k-point spacing and smearing; by default empty.
    """

    labels: list[Label | None]
    settings: Mapping[str, Any] = field(default_factory=dict)


def write_dataset(
    path: Path | str,
    configurations: Sequence[Atoms],
    levels: Mapping[str, LevelData],
    ids: Sequence[int] | None = None,
) -> None:
    """Write configurations and their labels to an HDF5 file.

    Parameters
    ----------
    path : path-like
        The dataset file; an existing file is replaced.
    configurations : sequence of ase.Atoms
        Structures, whose ``info`` is stored as JSON; labels are taken from `levels` only.
    levels : mapping of str to LevelData
        Levels in order of cost, ending with the reference.
    ids : sequence of int, optional
        Unique ids of the configurations; by default 0, 1, 2, ...

    Raises
    ------
    InputError
        If there are no configurations, a structure is invalid, ids are repeated, too few or not whole numbers, the name
        of a level is invalid, the labels do not match the configurations in number or shape or are not numeric, a
        status is unknown, info or a setting cannot be stored, or the file cannot be written.
    """
    config_ids = list(range(len(configurations))) if ids is None else [parse_config_id(value) for value in ids]
    _check_input(configurations, levels, config_ids)
    with atomic_hdf5(path) as (file, _):
        from paretofit import __version__  # noqa: PLC0415  (the package's __init__ may still be loading)

        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs["creator"] = f"paretofit {__version__}"
        for quantity, unit in STORED_UNITS.items():
            file.attrs[f"unit_{quantity}"] = unit
        _write_configurations(file.create_group("configurations"), configurations, config_ids)
        group = file.create_group("levels")
        group.attrs["order"] = np.array(list(levels), dtype=h5py.string_dtype())
        n_atoms = [len(atoms) for atoms in configurations]
        for name, level in levels.items():
            _write_level(group.create_group(name), name, level, n_atoms, config_ids)


def _check_input(configurations: Sequence[Atoms], levels: Mapping[str, LevelData], ids: list[int]) -> None:
    """Check structures, ids, names of levels and numbers of labels; labels are checked when they are written."""
    if not configurations:
        raise InputError("a dataset requires at least one configuration; got none")
    if (duplicate_id := find_first_duplicate(ids)) is not None:
        raise InputError(f"configuration ids must be unique; {duplicate_id} appears more than once")
    if len(ids) != len(configurations):
        raise InputError(f"{len(configurations)} configurations need as many ids; got {len(ids)}")
    for atoms, config_id in zip(configurations, ids, strict=True):
        check_structure(atoms, f"configuration {config_id}")
    for name, level in levels.items():
        check_level_name(name)
        if len(level.labels) != len(configurations):
            raise InputError(
                f"level '{name}' has {len(level.labels)} labels for {len(configurations)} configurations; "
                "each configuration must have one entry"
            )


def _write_configurations(group: h5py.Group, configurations: Sequence[Atoms], ids: list[int]) -> None:
    """Write the structures, with the atoms of all configurations concatenated, and their ids and info."""
    n_atoms = [len(atoms) for atoms in configurations]
    arrays: dict[str, Array] = {
        "numbers": np.concatenate([atoms.numbers for atoms in configurations]).astype(np.int16),
        "positions": np.concatenate([atoms.positions for atoms in configurations]),
        "offsets": np.concatenate([[0], np.cumsum(n_atoms)]).astype(np.int64),
        "cell": np.array([atoms.cell[:] for atoms in configurations]),
        "pbc": np.array([atoms.pbc for atoms in configurations]),
        "id": np.array(ids, dtype=np.int64),
    }
    _write_arrays(group, arrays)
    _write_texts(group, "info", [dump_json(atoms.info) for atoms in configurations])


def _write_level(group: h5py.Group, name: str, level: LevelData, n_atoms: list[int], ids: list[int]) -> None:
    """Write the labels of a level as arrays with NaN where a number is missing, and its settings as attributes."""
    n, offsets = len(n_atoms), np.concatenate([[0], np.cumsum(n_atoms)])
    shapes = {"energy": (n,), "forces": (offsets[-1], 3), "stress": (n, 6), "seconds": (n,)}
    arrays: dict[str, Array] = {quantity: np.full(shape, np.nan) for quantity, shape in shapes.items()}
    status = np.zeros(n, dtype=np.int8)
    texts = [""] * n
    for k, label in enumerate(level.labels):
        if label is None:
            continue
        context = f"level '{name}', configuration {ids[k]}"
        for quantity, array in arrays.items():
            window: Any = slice(offsets[k], offsets[k + 1]) if quantity == "forces" else k
            if label.get(quantity) is not None:
                array[window] = as_float_array(label[quantity], f"{context}: {quantity}", array[window].shape)
        check_choice(f"{context}: status", label.get("status", "done"), STATUS_CODES)
        status[k] = STATUS_CODES[label.get("status", "done")]
        texts[k] = dump_json(label.get("info", {}))
    _write_arrays(group, arrays)
    group.create_dataset("status", data=status, dtype=h5py.enum_dtype(STATUS_CODES, basetype="i1"))
    _write_texts(group, "info", texts)
    for key, value in level.settings.items():
        try:
            group.attrs[str(key)] = _encode_setting(value)
        except (ValueError, TypeError, OverflowError, OSError) as error:  # a NUL character, or a huge number or text
            raise InputError(f"level '{name}': the setting '{key}' cannot be stored: {join_lines(error)}") from error


def _write_arrays(group: h5py.Group, arrays: Mapping[str, Array]) -> None:
    """Write compressed arrays with checksums, so that corrupt files are detected."""
    for name, array in arrays.items():
        group.create_dataset(name, data=array, compression="gzip", shuffle=True, fletcher32=True)


def _write_texts(group: h5py.Group, name: str, texts: list[str]) -> None:
    """Write an array of strings of variable length."""
    group.create_dataset(name, data=np.array(texts, dtype=object), dtype=h5py.string_dtype())


def _encode_setting(value: Any) -> Any:
    """Return text, numbers and booleans unchanged, and lists, mappings and None, which HDF5 cannot store, as JSON."""
    return value if isinstance(value, str | int | float | bool) else dump_json(value)


def dump_json(value: Any) -> str:
    """Convert a value of ASE's ``info`` to JSON text; numpy values become numbers or lists, other objects strings.

    Raises
    ------
    InputError
        If keys of a mapping are not text, or the value contains itself.
    """
    try:
        return json.dumps(value, default=_convert_to_plain, sort_keys=True)
    except (TypeError, ValueError) as error:  # keys that cannot be sorted, or a value that contains itself
        raise InputError(f"{abbreviate(value)} cannot be stored as JSON: {error}; use only text as keys") from error


def _convert_to_plain(value: Any) -> Any:
    """Convert an object that JSON cannot store; numpy arrays and numbers have ``tolist``."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
