"""FitSNAP as a descriptor engine: its linear descriptors as rows of a design matrix.

FitSNAP runs in a separate process (`descriptor_worker`), which receives one configuration at a time in LAMMPS's frame;
the returned rows are transformed to the frame of the configuration, and to paretofit's units and order of columns.
FitSNAP only computes rows: labels come from the dataset, and weights, shifts and solvers of its input have no effect.
"""

import importlib.util
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from pydantic import ValidationError

from paretofit.core import (
    Array,
    InputError,
    RowKind,
    create_temporary_folder,
    join_lines,
    suggest_match,
    track,
)
from paretofit.dataset import Dataset
from paretofit.descriptors import (
    GPA_PER_BAR,
    DesignBlock,
    DesignMatrix,
    SnapBasis,
    name_configuration,
    rotate_voigt,
    transform_to_lammps_frame,
)
from paretofit.execution import LostTaskError, TaskExecutor, open_isolated_processes
from paretofit.fitsnap.descriptor_worker import DESCRIPTOR_SECTIONS, LOG_FILE, compute_fitsnap_rows, describe_columns
from paretofit.fitsnap.ini import FALSE_VALUES, SUPPORTED_KEYS, UNSUPPORTED_SECTIONS, IniFile, create_parser
from paretofit.fitsnap.input_file import OTHER_CALCULATORS, read_reference

REFERENCE = "reference"  # name of the level whose labels are the values of the reference potential
FORBIDDEN_OPTIONS = {  # options with which rows do not belong to configurations or to a linear model
    "CALCULATOR": ("nonlinear", "per_atom_energy", "per_atom_scalar"),
    "BISPECTRUM": ("bikflag", "dgradflag"),
    "ACE": ("bikflag", "dgradflag"),
}


def compute_fitsnap_design(
    dataset: Dataset,
    settings: Mapping[str, Mapping[str, Any]] | Path | str,
    path: Path | str,
    *,
    stress: bool = False,
    progress: bool = False,
) -> DesignMatrix:
    """Compute descriptors of every configuration with FitSNAP and write the rows to a design file.

    Parameters
    ----------
    dataset : Dataset
        Configurations. Their labels are not used here; attach them with `DesignMatrix.with_labels`.
    settings : mapping of section to mapping of key to value, or path-like
        Sections of a FitSNAP input, or the path of an input file. Only ``calculator`` of CALCULATOR, the section of its
        descriptors and REFERENCE are used; switches for energy, force and stress rows are ignored. Calculators are
        LAMMPSSNAP (section BISPECTRUM), LAMMPSCUSTOM (CUSTOM; the pair descriptors of FitSNAP's networks) and
        LAMMPSPACE (ACE).
    path, stress, progress
        As in `compute_design`.

    Returns
    -------
    DesignMatrix
        Rows as in `compute_design`. With ``bzeroflag = 0``, FitSNAP has a constant column for each element; these
        columns come first. The other columns are in nested order for LAMMPSSNAP, and otherwise in FitSNAP's order. If
        ``pair_style`` in REFERENCE is not zero, the level "reference" contains the values of that potential; see
        `with_labels_above_reference`.

    Raises
    ------
    InputError
        If FitSNAP is not installed or rejects a setting or a configuration, the dataset is empty, or the file cannot be
        written.
    """
    if importlib.util.find_spec("fitsnap3lib") is None:
        raise InputError("FitSNAP is not installed; install it with: pip install 'paretofit[fitsnap]'")
    if len(dataset) == 0:
        raise InputError(f"{dataset.path} contains no configurations; import configurations first")
    ini = _open_settings(settings)
    request = _build_request(ini, stress=stress)
    with create_temporary_folder("fitsnap") as temporary_folder, open_isolated_processes(1) as executor:
        process = _FitsnapProcess(executor, temporary_folder, request)
        metadata = process.call(describe_columns, f"{ini.path}: FitSNAP")
        _check_structures(dataset, metadata["elements"], stress=stress)
        columns = _order_columns(metadata, ini.path)
        structures = track(dataset, len(dataset), "descriptors", enabled=progress)
        return DesignMatrix.from_blocks(
            (_compute_block(process, columns, atoms, has_reference=request["has_reference"]) for atoms in structures),
            path,
            column_levels=columns.column_levels,
            column_names=columns.names,
            attributes={
                "fitsnap": json.dumps(request["sections"], sort_keys=True),
                "structures": dataset.hash_structures(),
                "constant_columns": str(metadata["n_constant_columns"]),
            },
        )


def with_labels_above_reference(design: DesignMatrix, dataset: Dataset, levels: Sequence[str]) -> DesignMatrix:
    """Return the design with the labels of a dataset minus those of the reference potential, as in FitSNAP's fits.

    Parameters
    ----------
    design : DesignMatrix
        Design of `compute_fitsnap_design`.
    dataset : Dataset
    levels : sequence of str
        Levels of the labels.

    Raises
    ------
    InputError
        As in `DesignMatrix.with_labels`, or if the design has no reference potential.
    """
    if REFERENCE not in design.targets:
        raise InputError("the design has no reference potential; use with_labels")
    labelled_design = design.with_labels(dataset, levels)
    reference = design.targets[REFERENCE]
    return replace(
        labelled_design, targets={level: column - reference for level, column in labelled_design.targets.items()}
    )


def _open_settings(settings: Mapping[str, Mapping[str, Any]] | Path | str) -> IniFile:
    """Open an input file, or convert a mapping of sections to an `IniFile`.

    Raises
    ------
    InputError
        If the file is not a FitSNAP input, or the settings are not a mapping of mappings.
    """
    if isinstance(settings, Path | str):
        return IniFile(Path(settings))
    if not isinstance(settings, Mapping):
        raise InputError(f"settings must be a mapping of FitSNAP's sections or a path; got {type(settings).__name__}")
    parser = create_parser(interpolation=None)
    for name, section in settings.items():
        if not isinstance(section, Mapping):
            raise InputError(f"FitSNAP settings: [{name}] must be a mapping of keys to values; got {section!r}")
        parser[str(name)] = {str(key): _format_value(value) for key, value in section.items()}
    return IniFile(Path("FitSNAP settings"), parser)


def _format_value(value: Any) -> str:
    """Format a value as FitSNAP reads it; items of a list are separated by spaces."""
    if isinstance(value, list | tuple | np.ndarray):
        return " ".join(map(_format_value, value))
    return str(int(value)) if isinstance(value, bool | np.bool_) else str(value)


def _build_request(ini: IniFile, *, stress: bool) -> dict[str, Any]:
    """Check the input, and build the request for `descriptor_worker`.

    Returns
    -------
    dict
        ``sections`` (of FitSNAP), ``has_default_pair_style``, ``has_reference``, and ``folder``, that of the input.

    Raises
    ------
    InputError
        If a section or the calculator is unknown, the section of the descriptors is missing, an option is incompatible
        with rows of a linear model, or LAMMPSCUSTOM has a reference potential.
    """
    section_names = {*SUPPORTED_KEYS, *UNSUPPORTED_SECTIONS}
    for name in ini.sections:
        if name not in section_names:
            raise InputError(f"{ini.path}: unknown section [{name}]{suggest_match(name, section_names)}")
    calculator = ini.get_choice("CALCULATOR", "calculator", list(DESCRIPTOR_SECTIONS), OTHER_CALCULATORS)
    descriptors = DESCRIPTOR_SECTIONS[calculator]
    if descriptors not in ini.sections:
        raise InputError(f"{ini.path} has no section [{descriptors}] with the descriptors of {calculator}")
    for name, keys in FORBIDDEN_OPTIONS.items():
        for key in keys:
            if ini.get_text(name, key, "0").lower() not in FALSE_VALUES:
                raise InputError(f"{ini.path}: [{name}] {key} must be 0, because rows must belong to a linear model")
    reference = read_reference(ini)
    has_reference = reference.pair_style.split()[0] != "zero"
    if calculator == "LAMMPSCUSTOM" and has_reference:
        raise InputError(f"{ini.path}: LAMMPSCUSTOM does not support a reference potential; remove [REFERENCE]")
    request_sections = {
        descriptors: {key: ini.get_text(descriptors, key, "") for key in ini.list_keys(descriptors)},
        "CALCULATOR": {"calculator": calculator, "energy": "1", "force": "1", "stress": str(int(stress))},
        "REFERENCE": {
            "units": "metal",
            "atom_style": "atomic",  # a dataset has no charges or spins, and no descriptor depends on them
            "pair_style": reference.pair_style,
            **{f"pair_coeff{k}": arguments for k, arguments in enumerate(reference.pair_coeffs, start=1)},
        },
        "SOLVER": {"solver": "SVD"},
        "MEMORY": {"override": "1"},
    }
    return {
        # IniFile has already substituted %(name)s; percent signs are escaped, because FitSNAP substitutes again.
        "sections": {
            name: {key: value.replace("%", "%%") for key, value in section.items()}
            for name, section in request_sections.items()
        },
        "has_default_pair_style": "pair_style" not in ini.list_keys("REFERENCE"),
        "has_reference": has_reference,
        "folder": str(ini.path.parent.absolute()),
    }


def _check_structures(dataset: Dataset, elements: Sequence[str], *, stress: bool) -> None:
    """Raise `InputError` if a structure has an element without settings, or cannot have the requested stress."""
    for atoms in dataset:
        name = f"{dataset.path}: {name_configuration(atoms)}"
        if unknown_elements := set(atoms.get_chemical_symbols()) - set(elements):
            raise InputError(
                f"{name} contains {min(unknown_elements)}, but FitSNAP's settings contain only {', '.join(elements)}; "
                "add the element to 'type'"
            )
        if stress and not atoms.pbc.all():
            raise InputError(
                f"{name} has no stress, because it is not periodic in three directions; "
                "remove the configuration, or compute the design with stress=False"
            )


@dataclass(frozen=True)
class _Columns:
    """Columns of the design, in its order.

    Attributes
    ----------
    names : list of str
    column_levels : (p,) int64
        Smallest 2Jmax whose model has the column; 0 for descriptors other than SNAP's.
    indices : (p,) int64
        Index of each column in FitSNAP's rows.
    cutoff : float
        Cutoff of the descriptors in Å.
    """

    names: list[str]
    column_levels: Array
    indices: Array
    cutoff: float


def _order_columns(metadata: dict[str, Any], source: Path) -> _Columns:
    """Order the columns: constants first, then descriptors (for LAMMPSSNAP in nested order, else in FitSNAP's order).

    Raises
    ------
    InputError
        If SNAP's settings are invalid, or FitSNAP has more or fewer columns than expected. `source` is the path of the
        input, for the message.
    """
    n_constants, elements = metadata["n_constant_columns"], metadata["elements"]
    n_descriptors = metadata["n_columns"] - n_constants
    n_element_descriptors = n_descriptors // len(elements)  # number of descriptors of each element
    if "snap" not in metadata:
        names, order = metadata["names"], np.arange(n_descriptors)
        column_levels = np.zeros(n_descriptors, dtype=int)
    else:
        try:
            basis = SnapBasis(elements=elements, **metadata["snap"])
        except ValidationError as error:
            raise InputError(f"{source}: [BISPECTRUM] {join_lines(error.errors()[0]['msg'])}") from error
        names, column_levels = basis.column_names[len(elements) :], basis.column_levels[len(elements) :]
        order = basis.lammps_columns
    if len(order) != n_descriptors:
        raise InputError(f"FitSNAP has {n_descriptors} columns instead of {len(order)}; check that its version is 3.1")
    if n_constants:  # each constant precedes the columns of its element in FitSNAP's rows
        order = order + 1 + order // n_element_descriptors
    return _Columns(
        [*(f"1[{symbol}]" for symbol in elements[:n_constants]), *names],
        np.concatenate([np.zeros(n_constants, dtype=int), column_levels]),
        np.concatenate([np.arange(n_constants) * (n_element_descriptors + 1), order]),
        metadata["cutoff"],
    )


class _FitsnapProcess:
    """Separate process in which FitSNAP runs.

    Its working directory is a temporary directory, because FitSNAP writes files to the working directory.
    """

    def __init__(self, executor: TaskExecutor, folder: str, request: dict[str, Any]) -> None:
        self._executor, self._folder, self._request = executor, folder, json.dumps(request)

    def call(self, function: Callable[..., Any], subject: str, *arguments: Any) -> Any:
        """Call a function of `descriptor_worker` in the process, and return its result.

        Raises
        ------
        InputError
            If the function raises an error, or the process ends; the message begins with `subject`.
        """
        call = partial(function, self._folder, self._request)
        try:
            return self._executor.get_result(self._executor.submit(lambda values: call(*values), arguments))
        except InputError as error:
            raise InputError(f"{subject} failed: {error}") from error
        except LostTaskError as error:
            exit_codes = re.findall(r"\((-?\d+)\)", str(error))  # loky's message ends with codes such as SIGSEGV(-11)
            log_file = Path(self._folder, LOG_FILE)
            lines = log_file.read_text(errors="replace").strip().splitlines() if log_file.exists() else []
            last_line = f": {join_lines(lines[-1])}" if lines else ""
            raise InputError(f"{subject} ended with exit code {exit_codes[-1]}{last_line}") from error


def _compute_block(process: _FitsnapProcess, columns: _Columns, atoms: Atoms, *, has_reference: bool) -> DesignBlock:
    """Compute the rows of one configuration in paretofit's units and order of columns, in the frame of the dataset.

    Raises
    ------
    InputError
        If FitSNAP fails, or a descriptor is not finite.
    """
    cell, positions, rotation = transform_to_lammps_frame(atoms, columns.cutoff)
    n, name = len(atoms), name_configuration(atoms)
    configuration = {"name": name, "cell": cell, "positions": positions, "symbols": atoms.get_chemical_symbols()}
    fitsnap_rows = process.call(compute_fitsnap_rows, f"{name}: FitSNAP", configuration)
    rows = fitsnap_rows[:, [*columns.indices, -1]]  # the last column belongs to the reference potential
    force_rows = rows[1 : 1 + 3 * n]
    force_rows[:] = np.einsum("ab,nbk->nak", rotation, force_rows.reshape(n, 3, -1)).reshape(3 * n, -1)
    n_stress = len(rows) - 1 - 3 * n
    if n_stress:  # FitSNAP's stresses are in bar and positive in compression
        rows[1 + 3 * n :] = -rotate_voigt(rows[1 + 3 * n :] * GPA_PER_BAR, rotation)
    if not np.isfinite(rows).all():
        raise InputError(f"{name}: its descriptors are not finite; check whether atoms overlap")
    kinds = np.repeat([RowKind.ENERGY, RowKind.FORCE, RowKind.STRESS], [1, 3 * n, n_stress])
    targets = {REFERENCE: rows[:, -1]} if has_reference else {}
    return DesignBlock(rows[:, :-1], kinds, np.full(len(rows), atoms.info["config_id"]), targets)
