"""Writing the dataset file, whole or not at all."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase import Atoms

from paretofit.core import Array, InputError, atomic_hdf5, one_line
from paretofit.dataset.checks import abbreviate, as_float_array, check_level_name, check_structure, parse_config_id
from paretofit.dataset.dataset import SCHEMA_VERSION, STORED_UNITS
from paretofit.dataset.labelled import STATUS_CODES

Label = Mapping[str, Any]


@dataclass
class LevelData:
    """The labels of one convergence level on their way into a file.

    Attributes
    ----------
    labels : list of mapping or None
        For each configuration None (missing) or a mapping with any of ``energy`` (eV, total),
        ``forces`` ((N, 3), eV/Å), ``stress`` ((6,), eV/Å³, ASE's Voigt order and sign), ``seconds``,
        ``status`` and ``info`` (anything JSON can hold).
    settings : mapping
        How the level was computed: cutoff, k-point spacing, smearing, ...
    """

    labels: list[Label | None]
    settings: Mapping[str, Any] = field(default_factory=dict)


def write_dataset(
    path: Path | str,
    configurations: Sequence[Atoms],
    levels: Mapping[str, LevelData],
    ids: Sequence[int] | None = None,
) -> None:
    """Write configurations and their labels to one HDF5 file.

    Parameters
    ----------
    path : path-like
        Replaced as a whole if it exists.
    configurations : sequence of ase.Atoms
        Their ``info`` is kept as JSON; labels are taken from `levels` only.
    levels : mapping of str to LevelData
        In order of cost, the reference last.
    ids : sequence of int, optional
        Unique; by default 0, 1, 2, ...

    Raises
    ------
    InputError
        If there are no configurations, ids repeat or are not whole numbers, a level's name cannot be
        used, a level's labels do not match the configurations in number or shape, or are not numbers, or
        the file cannot be written.
    """
    numbers = list(range(len(configurations))) if ids is None else [parse_config_id(identity) for identity in ids]
    _check(configurations, levels, numbers)
    with atomic_hdf5(path) as (file, _):
        from paretofit import __version__  # noqa: PLC0415  (the package's __init__ is still loading)

        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs["creator"] = f"paretofit {__version__}"
        for quantity, unit in STORED_UNITS.items():
            file.attrs[f"unit_{quantity}"] = unit
        _write_configurations(file.create_group("configurations"), configurations, numbers)
        group = file.create_group("levels")
        group.attrs["order"] = np.array(list(levels), dtype=h5py.string_dtype())
        sizes = [len(atoms) for atoms in configurations]
        for name, level in levels.items():
            _write_level(group.create_group(name), name, level, sizes, numbers)


def _check(configurations: Sequence[Atoms], levels: Mapping[str, LevelData], ids: list[int]) -> None:
    if not configurations:
        raise InputError("a dataset needs at least one configuration; got none")
    if len(set(ids)) != len(ids):
        repeated = next(identity for identity in ids if ids.count(identity) > 1)
        raise InputError(f"configuration ids must be unique; {repeated} appears more than once")
    if len(ids) != len(configurations):
        raise InputError(f"{len(configurations)} configurations need as many ids; got {len(ids)}")
    for atoms, identity in zip(configurations, ids, strict=True):
        check_structure(atoms, f"configuration {identity}")
    for name, level in levels.items():
        check_level_name(name)
        if len(level.labels) != len(configurations):
            raise InputError(f"level '{name}' has {len(level.labels)} labels for {len(configurations)} configurations")


def _write_configurations(group: h5py.Group, configurations: Sequence[Atoms], ids: list[int]) -> None:
    sizes = [len(atoms) for atoms in configurations]
    arrays: dict[str, Array] = {
        "numbers": np.concatenate([atoms.numbers for atoms in configurations]).astype(np.int16),
        "positions": np.concatenate([atoms.positions for atoms in configurations]),
        "offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        "cell": np.array([atoms.cell[:] for atoms in configurations]),
        "pbc": np.array([atoms.pbc for atoms in configurations]),
        "id": np.array(ids, dtype=np.int64),
    }
    for name, array in arrays.items():
        _create(group, name, array)
    _create_text(group, "info", [dump_json(atoms.info) for atoms in configurations])


def _write_level(group: h5py.Group, name: str, level: LevelData, sizes: list[int], ids: list[int]) -> None:
    n, offsets = len(sizes), np.concatenate([[0], np.cumsum(sizes)])
    arrays: dict[str, Array] = {
        "energy": np.full(n, np.nan),
        "forces": np.full((offsets[-1], 3), np.nan),
        "stress": np.full((n, 6), np.nan),
        "seconds": np.full(n, np.nan),
    }
    status = np.zeros(n, dtype=np.int8)
    texts = [""] * n
    for k, label in enumerate(level.labels):
        if label is None:
            continue
        where = f"level '{name}', configuration {ids[k]}"
        for quantity, array in arrays.items():
            window: Any = slice(offsets[k], offsets[k + 1]) if quantity == "forces" else k
            if label.get(quantity) is not None:
                array[window] = as_float_array(label[quantity], f"{where}: {quantity}", array[window].shape)
        state = label.get("status", "done")
        if state not in STATUS_CODES:
            raise InputError(f"{where}: status must be one of {', '.join(STATUS_CODES)}; got {state!r}")
        status[k] = STATUS_CODES[state]
        texts[k] = dump_json(label.get("info", {}))
    for quantity, array in arrays.items():
        _create(group, quantity, array)
    group.create_dataset("status", data=status, dtype=h5py.enum_dtype(STATUS_CODES, basetype="i1"))
    _create_text(group, "info", texts)
    for key, value in level.settings.items():
        try:
            group.attrs[str(key)] = _encode(value)
        except (ValueError, TypeError, OverflowError, OSError) as error:  # text with NUL, a huge number or text
            raise InputError(
                f"level '{name}': its setting '{key}' cannot be kept in HDF5: {one_line(error)}"
            ) from error


def _create(group: h5py.Group, name: str, array: Array) -> None:
    group.create_dataset(name, data=array, compression="gzip", shuffle=True, fletcher32=True)


def _create_text(group: h5py.Group, name: str, texts: list[str]) -> None:
    group.create_dataset(name, data=np.array(texts, dtype=object), dtype=h5py.string_dtype())


def _encode(value: Any) -> Any:
    """HDF5 attributes hold scalars; the rest is kept as JSON text."""
    return value if isinstance(value, str | int | float | bool) else dump_json(value)


def dump_json(value: Any) -> str:
    """JSON text of what comes out of ASE's ``info``: numpy scalars and arrays become plain."""
    try:
        return json.dumps(value, default=_plain, sort_keys=True)
    except (TypeError, ValueError) as error:  # a mapping whose keys cannot be sorted, or that holds itself
        raise InputError(f"{abbreviate(value)} cannot be kept as JSON: {error}; use text for keys") from error


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
