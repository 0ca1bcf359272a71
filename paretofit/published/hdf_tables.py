"""Import of the published beryllium dataset, and of datasets in the same format: pandas HDF files with pickles.

A directory contains ``<name>_structures.h5`` (with a column ``ASEatoms`` of ase.Atoms) and, for each level N,
``<name>_prec_N.h5`` (with columns ``index``, ``energy``, ``forces`` and ``stress``); rows are matched by index. These
files contain pickles. Opening a pickle can run any code, so no file is opened unless the caller allows it.
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

from paretofit.core import InputError, check_choice, check_new_paths, join_lines
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
STRESS_UNITS = {"kbar": 1e3 * units.bar, "GPa": units.GPa, "eV/Å³": 1.0}  # factors that convert to eV/Å³
STRESS_ASYMMETRY_TOLERANCE = 1e-3  # asymmetry of a tensor, relative to its largest component
NO_STRESS_NOTE = (
    "the stresses were omitted, because the files do not specify their unit and sign; import_published imports them "
    "with stress_unit ('kbar' as VASP writes it, 'GPa' or 'eV/Å³')"
)

PICKLE_MESSAGE = (
    "contain pickled Python objects, and opening them can run any code of their author; if you trust their source, add "
    "--allow-pickle (allow_pickle=True)"
)


@dataclass
class PublishedData:
    """Content of a published directory, in the form that `paretofit.dataset.write_dataset` requires.

    Attributes
    ----------
    atoms : list of ase.Atoms
        Structures without labels, in order of their ids.
    ids : list of int
        Id of each structure, in ascending order.
    levels : mapping of level to LevelData
        Labels of the levels in order of N: energies in eV (total), forces in eV/Å, stress in eV/Å³ with ASE's Voigt
        order and sign.
    notes : list of str
        Messages about omitted data.
    """

    atoms: list[Atoms]
    ids: list[int]
    levels: dict[str, LevelData]
    notes: list[str] = field(default_factory=list)


def import_published(
    output: Path | str,
    folder: Path | str,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> ImportSummary:
    """Import a published directory into a dataset file: ``paretofit import OUT.h5 --published FOLDER``.

    Parameters
    ----------
    output : path-like
        The dataset file to write.
    folder : path-like
        The published directory.
    settings : mapping of level to mapping, optional
        Settings of the calculations at each level, which are stored in the dataset.
    overwrite : bool
        Replace an existing `output`.
    **options
        Keyword arguments of `read_published_folder`, such as ``allow_pickle`` and ``stress_unit``.

    Returns
    -------
    ImportSummary
        Counts and notes; labels are not checked. Labels with a NaN are counted as missing.

    Raises
    ------
    InputError
        As in `read_published_folder`, or if `output` exists without `overwrite`, the settings contain an unknown level,
        or the file cannot be written.
    """
    check_new_paths([output], overwrite=overwrite)
    published_data = read_published_folder(folder, **options)
    _check_levels(settings or {}, published_data.levels, "settings")
    for level, level_settings in (settings or {}).items():
        published_data.levels[level].settings = dict(level_settings)
    write_dataset(output, published_data.atoms, published_data.levels, published_data.ids)
    return summarize_import(Path(output), published_data.notes)


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
        The published directory.
    allow_pickle : bool
        Open the files although they contain pickles. Only use this for files from a trusted source, because a pickle
        can run any code.
    seconds : mapping of level to float, optional
        Cost of a label at each level in s; no cost is recorded by default.
    stress_unit : {"kbar", "GPa", "eV/Å³"}, optional
        Unit of the 3 x 3 stresses. The files do not specify it, so stresses are omitted by default.
    stress_positive_in : {"compression", "tension"}
        Sign of the stresses in the files; VASP's is "compression". The dataset has ASE's sign, negative in compression.

    Returns
    -------
    PublishedData
        Structures and labels. The ids are the column ``index`` of the structures file, or else the index of its table.

    Raises
    ------
    InputError
        If pickles are not allowed, PyTables or a file is missing, a file has another format or invalid content, the
        seconds contain an unknown level, or the unit or sign of the stresses is unknown.
    """
    path = Path(folder)
    structures_file, level_files = _find_files(path)
    stress_factor = _get_stress_factor(stress_unit, stress_positive_in)
    _check_levels(seconds or {}, level_files, "seconds")
    if not allow_pickle:
        raise InputError(f"{structures_file} and the other files {PICKLE_MESSAGE}")
    structures = _read_structures(structures_file)
    published_data = PublishedData(list(structures.values()), list(structures), {})
    has_stresses = False
    for level, file in level_files.items():
        table = _read_hdf_table(file)
        labels = _convert_labels(file, table, structures, stress_factor, (seconds or {}).get(level))
        published_data.levels[level] = LevelData([labels.get(config_id) for config_id in published_data.ids])
        has_stresses |= "stress" in table.columns
    if has_stresses and stress_factor is None:
        published_data.notes.append(f"{path}: {NO_STRESS_NOTE}")
    return published_data


def _find_files(path: Path) -> tuple[Path, dict[str, Path]]:
    """Return the file of the structures, and the file of each level by its number N as text, in ascending order."""
    requirement = f"a directory with one NAME{STRUCTURES_SUFFIX} and NAME{LEVEL_INFIX}1.h5, ... is required"
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


def _get_stress_factor(unit: str | None, sign_convention: str) -> float | None:
    """Return the factor that converts a stress to eV/Å³ and ASE's sign, or None if stresses are omitted."""
    if unit is None:
        return None
    signs = {"compression": -1.0, "tension": 1.0}
    check_choice("stress_unit", unit, STRESS_UNITS)
    check_choice("stress_positive_in", sign_convention, signs)
    return STRESS_UNITS[unit] * signs[sign_convention]


def _check_levels(names: Iterable[str], levels: Mapping[str, Any], argument: str) -> None:
    """Check that the levels that the user named in an argument, such as ``"settings"``, exist."""
    for name in names:
        if name not in levels:
            raise InputError(f"unknown level '{name}' in the {argument}; available levels: {', '.join(levels)}")


def _read_hdf_table(path: Path) -> pd.DataFrame:
    """Read the table of a pandas HDF file; this opens pickles, so the caller must have the user's consent."""
    try:
        table = pd.read_hdf(path)
    except ImportError as error:
        if "tables" not in str(error):  # a class in the pickle is not installed
            raise InputError(f"{path} contains objects that cannot be loaded: {join_lines(error)}") from error
        raise InputError(f"{path} requires PyTables; install it with: pip install 'paretofit[published]'") from error
    except Exception as error:  # a pickle can raise any exception
        # PyTables begins some messages with a long back trace of HDF5.
        reason = join_lines(error).rpartition("End of HDF5 error back trace ")[2] or type(error).__name__
        raise InputError(f"{path} cannot be read as a pandas table: {reason}") from error
    if not isinstance(table, pd.DataFrame):
        raise InputError(f"{path} must contain one table; it contains a {type(table).__name__}")
    return table


def _read_structures(path: Path) -> dict[int, Atoms]:
    """Read the structures by index, in ascending order, without calculators."""
    table = _read_hdf_table(path)
    if ATOMS_COLUMN not in table.columns:
        raise InputError(f"{path} has no column '{ATOMS_COLUMN}'; available: {', '.join(map(str, table.columns))}")
    ids = _parse_index(path, table["index"] if "index" in table.columns else table.index)
    structures: dict[int, Atoms] = {}
    for config_id, atoms in sorted(zip(ids, table[ATOMS_COLUMN], strict=True), key=operator.itemgetter(0)):
        if not isinstance(atoms, Atoms):
            name = f"'{ATOMS_COLUMN}' of index {config_id}"
            raise InputError(f"{path}: {name} must be an ase.Atoms; got {abbreviate(atoms)}")
        atoms.calc = None
        structures[config_id] = atoms
    return structures


def _parse_index(path: Path, index: Any) -> list[int]:
    """Convert an index or a column of a table to ids, which must be unique whole numbers."""
    try:
        ids = [parse_config_id(value) for value in index]
    except InputError as error:
        raise InputError(f"{path}, index: {error}") from error
    if (duplicate_id := find_first_duplicate(ids)) is not None:
        raise InputError(f"{path}: the index {duplicate_id} appears more than once; indices must be unique")
    return ids


def _convert_labels(
    path: Path,
    table: pd.DataFrame,
    structures: Mapping[int, Atoms],
    stress_factor: float | None,
    seconds: float | None,
) -> dict[int, Label]:
    """Convert the table of one level to labels by index of the structure; without a factor, stresses are omitted."""
    missing_columns = [name for name in REQUIRED_COLUMNS if name not in table.columns]
    if missing_columns:
        columns = f"{', '.join(REQUIRED_COLUMNS)} and optionally stress"
        raise InputError(f"{path} must have the columns {columns}; it lacks {', '.join(missing_columns)}")
    ids = _parse_index(path, table["index"])
    unknown_ids = [config_id for config_id in ids if config_id not in structures]
    if unknown_ids:
        raise InputError(
            f"{path}: {len(unknown_ids)} rows have an index without a structure, such as {unknown_ids[0]}; labels and "
            "structures must belong to the same dataset"
        )
    has_stresses = stress_factor is not None and "stress" in table.columns
    stresses = table["stress"] if has_stresses else [None] * len(table)
    labels: dict[int, Label] = {}
    for config_id, energy, forces, stress in zip(ids, table["energy"], table["forces"], stresses, strict=True):
        context = f"{path}, index {config_id}"
        label: dict[str, Any] = {} if seconds is None else {"seconds": float(seconds)}
        if energy is not None:
            label["energy"] = float(as_float_array(energy, f"{context}: energy", ()))
        if not _is_missing(forces):
            label["forces"] = as_float_array(forces, f"{context}: forces", (len(structures[config_id]), 3))
        if stress_factor is not None and not _is_missing(stress):
            tensor = as_float_array(stress, f"{context}: stress", (3, 3))
            label["stress"] = stress_factor * convert_to_voigt(tensor, f"{context}: stress", STRESS_ASYMMETRY_TOLERANCE)
        labels[config_id] = label
    return labels


def _is_missing(value: Any) -> bool:
    """Return whether a cell of a table, which should hold an array, is None or NaN."""
    return value is None or (np.ndim(value) == 0 and bool(pd.isna(value)))
