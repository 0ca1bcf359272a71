"""Import of the published beryllium dataset and others in its format: pandas HDF files with pickled structures.

A directory holds ``<name>_structures.h5`` (a column ``ASEatoms`` of ase.Atoms) and for each level ``<name>_prec_N.h5``
(columns ``index``, ``energy``, ``forces``, ``stress``), matched by index. Such files are pickles, and opening a
pickle runs the code of its author: no file is opened unless the caller allows it.
"""

import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from ase import Atoms, units

from paretofit.core import InputError, check_choice, one_line
from paretofit.dataset import (
    ImportSummary,
    Label,
    LevelData,
    abbreviate,
    as_float_array,
    convert_to_voigt,
    find_first_duplicate,
    parse_config_id,
    summarize_import,
    write_dataset,
)

STRUCTURES_SUFFIX, LEVEL_INFIX = "_structures.h5", "_prec_"
ATOMS_COLUMN = "ASEatoms"
REQUIRED_COLUMNS = ("index", "energy", "forces")
STRESS_UNITS = {"kbar": 1e3 * units.bar, "GPa": units.GPa, "eV/Å³": 1.0}
STRESS_ASYMMETRY_TOLERANCE = 1e-3  # of |s - s^T| / max |s|
NO_STRESS_NOTE = (
    "the stresses were left out, because the files do not give their unit and sign; import_published imports them with "
    "stress_unit ('kbar' as VASP writes it, 'GPa' or 'eV/Å³')"
)


@dataclass
class PublishedData:
    """Content of a published directory, in the form of `paretofit.dataset.write_dataset`.

    Attributes
    ----------
    atoms : list of ase.Atoms
        Without labels, in order of their ids.
    ids : list of int
        Index of the structures.
    levels : mapping of level to LevelData
        In order of N: energies in eV (total), forces in eV/Å, stress in eV/Å³ in ASE's order and sign.
    notes : list of str
        What was omitted.
    """

    atoms: list[Atoms]
    ids: list[int]
    levels: dict[str, LevelData]
    notes: list[str] = field(default_factory=list)


def import_published(
    output: Path | str,
    folder: Path | str,
    *,
    allow_pickle: bool = False,
    seconds: Mapping[str, float] | None = None,
    stress_unit: str | None = None,
    stress_positive_in: Literal["compression", "tension"] = "compression",
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> ImportSummary:
    """Import a published directory into a dataset file: ``paretofit import OUT.h5 --published FOLDER``.

    Parameters
    ----------
    output : path-like
        The dataset file to write; an existing file is replaced.
    folder, allow_pickle, seconds, stress_unit, stress_positive_in
        As in `read_published_folder`.
    settings : mapping of level to mapping, optional
        Settings of each level, stored with its labels.

    Returns
    -------
    ImportSummary
        A label that is NaN counts as missing.

    Raises
    ------
    InputError
        As for `read_published_folder`, or if the settings or seconds name an unknown level.
    """
    data = read_published_folder(
        folder,
        allow_pickle=allow_pickle,
        seconds=seconds,
        stress_unit=stress_unit,
        stress_positive_in=stress_positive_in,
    )
    _check_levels(settings or {}, data.levels, "settings")
    for level, level_settings in (settings or {}).items():
        data.levels[level].settings = dict(level_settings)
    write_dataset(output, data.atoms, data.levels, data.ids)
    return summarize_import(Path(output), data.notes)


def read_published_folder(
    folder: Path | str,
    *,
    allow_pickle: bool = False,
    seconds: Mapping[str, float] | None = None,
    stress_unit: str | None = None,
    stress_positive_in: Literal["compression", "tension"] = "compression",
) -> PublishedData:
    """Read ``<name>_structures.h5`` and every ``<name>_prec_N.h5`` of a directory.

    Parameters
    ----------
    folder : path-like
    allow_pickle : bool
        Open the files although they are pickles. Only for files from a trusted source: a pickle can run any code.
    seconds : mapping of level to float, optional
        Cost of a label at each level; not recorded by default.
    stress_unit : {"kbar", "GPa", "eV/Å³"}, optional
        Unit of the 3 x 3 stresses. The files do not give it, so that stresses are omitted by default.
    stress_positive_in : {"compression", "tension"}
        Their sign in the files: "compression" is that of VASP; the dataset has ASE's sign, negative in compression.

    Returns
    -------
    PublishedData
        The ids are the column ``index`` of the structures, or the index of their table. Energies are total energies
        in eV, forces are in eV/Å, as in the scripts of the authors.

    Raises
    ------
    InputError
        If pickles are not allowed, PyTables is not installed, a file is missing or has another format, an index
        repeats or has no structure, or a label has the wrong shape.
    """
    path = Path(folder)
    structures_file, level_files = _find_files(path)
    factor = _get_stress_factor(stress_unit, stress_positive_in)
    _check_levels(seconds or {}, level_files, "seconds")
    if not allow_pickle:
        raise InputError(
            f"{structures_file} and the other files of this format hold pickled Python objects, and opening them runs "
            "the code of their author; if you trust their source, add --allow-pickle (allow_pickle=True)"
        )
    structures = _read_structures(structures_file)
    data = PublishedData(list(structures.values()), list(structures), {})
    has_stresses = False
    for level, file in level_files.items():
        table = _read_hdf_table(file)
        labels = _read_labels(file, table, structures, factor, (seconds or {}).get(level))
        data.levels[level] = LevelData([labels.get(config_id) for config_id in data.ids])
        has_stresses |= "stress" in table.columns
    if has_stresses and factor is None:
        data.notes.append(f"{path}: {NO_STRESS_NOTE}")
    return data


def _find_files(path: Path) -> tuple[Path, dict[str, Path]]:
    """Return the file of the structures, and the files of the levels in order of their number."""
    requirement = (
        f"a directory with one *{STRUCTURES_SUFFIX} (Be{STRUCTURES_SUFFIX}) and *{LEVEL_INFIX}N.h5 "
        f"(Be{LEVEL_INFIX}1.h5, ...) is needed"
    )
    if not path.is_dir():
        raise InputError(f"no directory at {path}; {requirement}")
    files = sorted(path.glob(f"*{STRUCTURES_SUFFIX}"))
    if len(files) != 1:
        raise InputError(f"{path} has {len(files)} files *{STRUCTURES_SUFFIX}; {requirement}")
    prefix = files[0].name.removesuffix(STRUCTURES_SUFFIX) + LEVEL_INFIX
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.h5")
    level_files = {int(match[1]): file for file in path.iterdir() if (match := pattern.fullmatch(file.name))}
    if not level_files:
        raise InputError(f"{path} has {files[0].name} but no file {prefix}N.h5; {requirement}")
    return files[0], {str(number): level_files[number] for number in sorted(level_files)}


def _get_stress_factor(unit: str | None, positive_in: str) -> float | None:
    """Return the factor that converts a stress to eV/Å³ and ASE's sign; None if stresses are omitted."""
    if unit is None:
        return None
    signs = {"compression": -1.0, "tension": 1.0}
    check_choice("stress_unit", unit, STRESS_UNITS)
    check_choice("stress_positive_in", positive_in, signs)
    return STRESS_UNITS[unit] * signs[positive_in]


def _check_levels(names: Iterable[str], levels: Mapping[str, Any], argument: str) -> None:
    for name in names:
        if name not in levels:
            raise InputError(f"the {argument} name level '{name}'; the levels of the directory are {', '.join(levels)}")


def _read_hdf_table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_hdf(path)
    except ImportError as error:
        if "tables" not in str(error):  # a class in the pickle is not installed
            raise InputError(f"{path} holds objects that cannot be loaded: {one_line(error)}") from error
        raise InputError(
            f"{path} needs PyTables, which is not installed: pip install 'paretofit[published]'"
        ) from error
    except Exception as error:  # a pickle can raise any exception
        reason = one_line(error).rpartition("End of HDF5 error back trace ")[2] or type(error).__name__
        raise InputError(f"{path} cannot be read as a pandas table: {reason}") from error
    if not isinstance(table, pd.DataFrame):
        raise InputError(f"{path} must hold one table; it holds a {type(table).__name__}")
    return table


def _read_structures(path: Path) -> dict[int, Atoms]:
    """Read the structures in ascending order of their index, without calculators."""
    table = _read_hdf_table(path)
    if ATOMS_COLUMN not in table.columns:
        raise InputError(f"{path} has no column '{ATOMS_COLUMN}'; it has {', '.join(map(str, table.columns))}")
    ids = _parse_index(path, table["index"] if "index" in table.columns else table.index)
    structures: dict[int, Atoms] = {}
    for config_id, atoms in sorted(zip(ids, table[ATOMS_COLUMN], strict=True), key=operator.itemgetter(0)):
        if not isinstance(atoms, Atoms):
            raise InputError(
                f"{path}: '{ATOMS_COLUMN}' of index {config_id} must be an ase.Atoms; got {abbreviate(atoms)}"
            )
        atoms.calc = None
        structures[config_id] = atoms
    return structures


def _parse_index(path: Path, index: Any) -> list[int]:
    try:
        ids = [parse_config_id(value) for value in index]
    except InputError as error:
        raise InputError(f"{path}, index: {error}") from error
    repeated = find_first_duplicate(ids)
    if repeated is not None:
        raise InputError(
            f"{path}: the index {repeated} appears more than once; each configuration needs a different one"
        )
    return ids


def _read_labels(
    path: Path, table: pd.DataFrame, structures: Mapping[int, Atoms], factor: float | None, seconds: float | None
) -> dict[int, Label]:
    """Parse the labels of one level by index."""
    missing = [name for name in REQUIRED_COLUMNS if name not in table.columns]
    if missing:
        raise InputError(
            f"{path} must have the columns {', '.join(REQUIRED_COLUMNS)} and optionally stress; it lacks "
            f"{', '.join(missing)}"
        )
    ids = _parse_index(path, table["index"])
    unknown = [config_id for config_id in ids if config_id not in structures]
    if unknown:
        raise InputError(
            f"{path}: {len(unknown)} of its rows have an index without a structure, the first is {unknown[0]}; labels "
            "and structures must be of the same dataset"
        )
    stresses = table["stress"] if factor is not None and "stress" in table.columns else [None] * len(table)
    labels: dict[int, Label] = {}
    for config_id, energy, forces, stress in zip(ids, table["energy"], table["forces"], stresses, strict=True):
        context = f"{path}, index {config_id}"
        label: dict[str, Any] = {} if seconds is None else {"seconds": float(seconds)}
        if energy is not None:
            label["energy"] = float(as_float_array(energy, f"{context}: energy", ()))
        if not _is_missing(forces):
            label["forces"] = as_float_array(forces, f"{context}: forces", (len(structures[config_id]), 3))
        if factor is not None and not _is_missing(stress):
            tensor = as_float_array(stress, f"{context}: stress", (3, 3))
            label["stress"] = factor * convert_to_voigt(tensor, f"{context}: stress", STRESS_ASYMMETRY_TOLERANCE)
        labels[config_id] = label
    return labels


def _is_missing(value: Any) -> bool:
    """Return whether a value of a pandas table is missing: None, or NaN instead of an array."""
    return value is None or (np.ndim(value) == 0 and bool(pd.isna(value)))
