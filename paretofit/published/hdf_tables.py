"""The published beryllium dataset and others of its form: pandas HDF files with pickled structures.

A folder holds ``<name>_structures.h5`` (a column ``ASEatoms`` of ase.Atoms) and for each level ``<name>_prec_N.h5``
(columns ``index``, ``energy``, ``forces``, ``stress``), matched by index. Such files are pickles, and opening a
pickle runs what its author put in: nothing is opened before the caller has said that this is wanted.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from ase import Atoms, units

from paretofit.core import Array, InputError, one_line, suggest_match
from paretofit.dataset import (
    Dataset,
    ImportSummary,
    Label,
    LevelData,
    abbreviate,
    as_float_array,
    parse_config_id,
    write_dataset,
)
from paretofit.dataset.io import find_first_duplicate
from paretofit.dataset.quality import find_unit_warnings

STRUCTURES, LEVEL = "_structures.h5", "_prec_"
ATOMS = "ASEatoms"
NEEDED = ("index", "energy", "forces")
STRESS_UNITS = {"kbar": 1e3 * units.bar, "GPa": units.GPa, "eV/Å³": 1.0}
SYMMETRIC = 1e-3  # most of |s - s^T| / max |s|
NO_STRESS = (
    "the stresses were left out, as the files do not say their unit and sign; import_published takes them with "
    "stress_unit ('kbar' as VASP writes it, 'GPa' or 'eV/Å³')"
)


@dataclass
class PublishedData:
    """What such a folder holds, ready for `paretofit.dataset.write_dataset`.

    Attributes
    ----------
    atoms : list of ase.Atoms
        Without labels, in order of their ids.
    ids : list of int
        The structures' index.
    levels : mapping of level to LevelData
        In order of N: energies in eV (total), forces in eV/Å, stress in eV/Å³ in ASE's order and sign.
    notes : list of str
        What was left out.
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
    """Import a folder of the published form into a dataset file: ``paretofit import OUT.h5 --published FOLDER``.

    Parameters
    ----------
    output : path-like
        The dataset to write; replaced as a whole.
    folder, allow_pickle, seconds, stress_unit, stress_positive_in
        As in `read_published_folder`.
    settings : mapping of level to mapping, optional
        How each level was computed, kept with its labels.

    Returns
    -------
    ImportSummary
        A label that is NaN is counted as missing, as one that is not there.

    Raises
    ------
    InputError
        As `read_published_folder`, or the settings or seconds are of a level that is not there.
    """
    data = read_published_folder(
        folder,
        allow_pickle=allow_pickle,
        seconds=seconds,
        stress_unit=stress_unit,
        stress_positive_in=stress_positive_in,
    )
    _check_levels(settings or {}, data.levels, "settings")
    for level, given in (settings or {}).items():
        data.levels[level].settings = dict(given)
    write_dataset(output, data.atoms, data.levels, data.ids)
    return _summary(Path(output), data.notes)


def read_published_folder(
    folder: Path | str,
    *,
    allow_pickle: bool = False,
    seconds: Mapping[str, float] | None = None,
    stress_unit: str | None = None,
    stress_positive_in: Literal["compression", "tension"] = "compression",
) -> PublishedData:
    """Read ``<name>_structures.h5`` and every ``<name>_prec_N.h5`` of a folder.

    Parameters
    ----------
    folder : path-like
    allow_pickle : bool
        Open the files although they are pickles. Only for files from somebody you trust: a pickle can run any code.
    seconds : mapping of level to float, optional
        What one configuration's label cost at each level; not recorded by default.
    stress_unit : {"kbar", "GPa", "eV/Å³"}, optional
        The unit of the 3 x 3 stresses. The files do not say it, so that by default stresses are left out.
    stress_positive_in : {"compression", "tension"}
        Their sign, where a unit is given: "compression" as VASP prints them; kept is ASE's, negative in compression.

    Returns
    -------
    PublishedData
        The ids are the structures' index: their column ``index`` where they have one, else that of the table.
        Energies are taken as total energies in eV, forces in eV/Å, which is how the authors' scripts use them.

    Raises
    ------
    InputError
        If pickles are not allowed, PyTables is not installed, a file is missing or not of this form, an index repeats
        or has no structure, or a label has not the shape that its structure needs.
    """
    path = Path(folder)
    structures, levels = _files(path)
    factor = _stress_factor(stress_unit, stress_positive_in)
    _check_levels(seconds or {}, levels, "seconds")
    _check_allowed(structures, allow_pickle)
    by_id = _read_structures(structures)
    data = PublishedData(list(by_id.values()), list(by_id), {})
    stresses = False
    for level, file in levels.items():
        table = _read(file)
        labels = _read_labels(file, table, by_id, factor, (seconds or {}).get(level))
        data.levels[level] = LevelData([labels.get(one) for one in data.ids])
        stresses |= "stress" in table.columns
    if stresses and factor is None:
        data.notes.append(f"{path}: {NO_STRESS}")
    return data


def _summary(path: Path, notes: list[str]) -> ImportSummary:
    with Dataset(path) as written:
        complete = {level: written.labels(level).complete for level in written.levels}
        return ImportSummary(
            path=path,
            n_configurations=len(written),
            n_labels={level: int(have.sum()) for level, have in complete.items()},
            missing_ids={level: written.ids[~have].tolist() for level, have in complete.items()},
            notes=notes,
            warnings=find_unit_warnings(written),
        )


def _files(path: Path) -> tuple[Path, dict[str, Path]]:
    """The file of the structures, and those of the levels in order of their number."""
    wanted = f"a folder with one *{STRUCTURES} (Be{STRUCTURES}) and *{LEVEL}N.h5 (Be{LEVEL}1.h5, ...) is needed"
    if not path.is_dir():
        raise InputError(f"no folder at {path}; {wanted}")
    found = sorted(path.glob(f"*{STRUCTURES}"))
    if len(found) != 1:
        raise InputError(f"{path} has {len(found)} files *{STRUCTURES}; {wanted}")
    prefix = found[0].name.removesuffix(STRUCTURES)
    pattern = re.compile(re.escape(prefix + LEVEL) + r"(\d+)\.h5")
    numbered = {int(match[1]): one for one in path.iterdir() if (match := pattern.fullmatch(one.name))}
    if not numbered:
        raise InputError(f"{path} has no file {prefix}{LEVEL}N.h5 beside {found[0].name}; {wanted}")
    return found[0], {str(number): numbered[number] for number in sorted(numbered)}


def _stress_factor(unit: str | None, positive_in: str) -> float | None:
    """What takes a stress to eV/Å³ and ASE's sign; None to leave stresses out."""
    if unit is None:
        return None
    if unit not in STRESS_UNITS:
        near = suggest_match(unit, STRESS_UNITS)
        raise InputError(f"stress_unit must be one of {', '.join(STRESS_UNITS)}; got '{unit}'{near}")
    if positive_in not in ("compression", "tension"):
        raise InputError(f"stress_positive_in must be 'compression' or 'tension'; got '{positive_in}'")
    return STRESS_UNITS[unit] * (-1.0 if positive_in == "compression" else 1.0)


def _check_allowed(path: Path, allow_pickle: bool) -> None:
    if not allow_pickle:
        raise InputError(
            f"{path} and the files beside it hold pickled Python objects, and opening them runs whatever code their "
            "author put in; if you trust where they come from, say --allow-pickle (allow_pickle=True)"
        )


def _check_levels(given: Mapping[str, Any], levels: Mapping[str, Any], what: str) -> None:
    for name in given:
        if name not in levels:
            raise InputError(f"the {what} name level '{name}'; the levels of the folder are {', '.join(levels)}")


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_hdf(path)
    except ImportError as error:
        if "tables" not in str(error):  # a pickle of a class that is not installed
            raise InputError(f"{path} holds objects that cannot be opened here: {one_line(error)}") from error
        raise InputError(
            f"{path} needs PyTables, which is not installed: pip install 'paretofit[published]'"
        ) from error
    except Exception as error:  # whatever a pickle of anything raises
        reason = one_line(error).rpartition("End of HDF5 error back trace ")[2] or type(error).__name__
        raise InputError(f"{path} cannot be read as a table that pandas wrote: {reason}") from error
    if not isinstance(table, pd.DataFrame):
        raise InputError(f"{path} must hold one table; it holds a {type(table).__name__}")
    return table


def _read_structures(path: Path) -> dict[int, Atoms]:
    """Structures by index, ascending, without calculators."""
    table = _read(path)
    if ATOMS not in table.columns:
        raise InputError(f"{path} has no column '{ATOMS}'; it has {', '.join(map(str, table.columns))}")
    ids = _ids(path, table["index"] if "index" in table.columns else table.index)
    structures: dict[int, Atoms] = {}
    for identity, atoms in sorted(zip(ids, table[ATOMS], strict=True), key=lambda one: one[0]):
        if not isinstance(atoms, Atoms):
            raise InputError(f"{path}: '{ATOMS}' of index {identity} must be an ase.Atoms; got {abbreviate(atoms)}")
        atoms.calc = None
        structures[identity] = atoms
    return structures


def _ids(path: Path, index: Any) -> list[int]:
    try:
        ids = [parse_config_id(one) for one in index]
    except InputError as error:
        raise InputError(f"{path}, index: {error}") from error
    repeated = find_first_duplicate(ids)
    if repeated is not None:
        raise InputError(f"{path}: the index {repeated} appears more than once; each configuration needs its own")
    return ids


def _read_labels(
    path: Path, table: pd.DataFrame, structures: Mapping[int, Atoms], factor: float | None, seconds: float | None
) -> dict[int, Label]:
    """The labels of one level by index."""
    lacking = [name for name in NEEDED if name not in table.columns]
    if lacking:
        raise InputError(
            f"{path} must have the columns {', '.join(NEEDED)} and perhaps stress; it lacks {', '.join(lacking)}"
        )
    ids = _ids(path, table["index"])
    unknown = [one for one in ids if one not in structures]
    if unknown:
        raise InputError(
            f"{path}: {len(unknown)} of its rows have an index without a structure, the first is {unknown[0]}; labels "
            "and structures must be of the same dataset"
        )
    stresses = table["stress"] if factor is not None and "stress" in table.columns else [None] * len(table)
    labels: dict[int, Label] = {}
    for identity, energy, forces, stress in zip(ids, table["energy"], table["forces"], stresses, strict=True):
        where = f"{path}, index {identity}"
        label: dict[str, Any] = {} if seconds is None else {"seconds": float(seconds)}
        if energy is not None:
            label["energy"] = float(as_float_array(energy, f"{where}: energy", ()))
        if not _absent(forces):
            label["forces"] = as_float_array(forces, f"{where}: forces", (len(structures[identity]), 3))
        if factor is not None and not _absent(stress):
            label["stress"] = factor * _voigt(as_float_array(stress, f"{where}: stress", (3, 3)), where)
        labels[identity] = label
    return labels


def _absent(value: Any) -> bool:
    """Whether pandas says that there is no value: None, or NaN where an array should be."""
    return value is None or (np.ndim(value) == 0 and bool(pd.isna(value)))


def _voigt(stress: Array, where: str) -> Array:
    """``(6,)``: a symmetric tensor in ASE's Voigt order; NaN stays NaN."""
    if np.abs(stress - stress.T).max() > SYMMETRIC * np.abs(stress).max():
        raise InputError(f"{where}: stress must be a symmetric 3 x 3 tensor; got {abbreviate(stress.tolist())}")
    mean = (stress + stress.T) / 2
    return np.asarray(mean.ravel()[[0, 4, 8, 5, 2, 1]])
