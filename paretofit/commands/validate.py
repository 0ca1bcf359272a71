"""`paretofit validate`: physical properties of one or two potentials in tables, figures and a page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms

from paretofit import validation
from paretofit.commands.validation_result import ValidationResult, write_validation
from paretofit.core import InputError, check_new_paths, one_line, suggest_match
from paretofit.dataset.io import read_frames
from paretofit.execution import RunContext
from paretofit.pareto import read_table
from paretofit.potentials.mace import permit_unpickling

OUTPUT_FILES = ("validation.csv", "failures.csv", "validation.json", "validation.md", "validation.html")
KEY_COLUMNS = ["property", "structure", "quantity", "unit"]


def validate_potential(
    potential: str | Path,
    out: Path | str,
    *,
    against: str | Path | None = None,
    structures: Sequence[Path | str] = (),
    properties: Sequence[str] = (),
    settings: validation.ValidationSettings | None = None,
    jobs: int = 1,
    overwrite: bool = False,
    progress: bool = False,
    allow_pickle: bool = False,
) -> ValidationResult:
    """Compute properties of a potential, optionally with a reference, and write tables, figures and an HTML page.

    Parameters
    ----------
    potential : str or Path
        See `paretofit.validation.subject.parse_potential`.
    out : path-like
        Folder of the results.
    against : str or Path, optional
        Another potential, a reference calculator, or a ``.csv`` with the columns ``property``, ``structure``,
        ``quantity`` and ``potential``, such as another validation's ``validation.csv``.
    structures : sequence of path-like
        Files that ASE reads, whose first structures are validated; by default ASE's reference crystals of the
        potential's elements.
    properties : sequence of str
        Names among lattice, eos, elastic, phonons, defects, surfaces, interlayer, dimer, md; by default all, with
        interlayer only for layered structures.
    settings : ValidationSettings, optional
        Sizes, prototypes, surfaces and interstitials.
    jobs : int
        Number of processes that relax crystals and compute properties; results do not depend on it.
    overwrite : bool
        Replace existing files.
    progress : bool
        Show a progress bar.
    allow_pickle : bool
        Accept MACE networks that were not trained by this user on this computer. Loading them can run any code.

    Raises
    ------
    InputError
        If a potential or a structure cannot be used, or an output exists. The failure of a
        property is recorded instead of raised.
    """
    validation.check_validate_extra()
    check_new_paths(
        [Path(out) / name for name in OUTPUT_FILES],
        [Path(out) / name for name in ("figures", "tables")],
        overwrite=overwrite,
    )
    settings, context = settings or validation.ValidationSettings(), RunContext(jobs, progress)
    _check_names("property", properties, validation.PROPERTY_FUNCTIONS)
    _check_names("prototype", settings.prototypes, validation.PROTOTYPES)
    potentials, reference_table = _parse_potentials(str(potential), None if against is None else str(against))
    atoms_by_name, notes = _load_structures(structures, potentials)
    with permit_unpickling(allow_pickle):
        _check_structures(atoms_by_name, potentials)
        values, failures, curves = _measure_all(potentials, atoms_by_name, list(properties), settings, context)
    reference_name = potentials[1].name if len(potentials) == 2 else str(against or "")
    table = _tabulate_values(values, reference_table)
    result = ValidationResult(Path(out), table, failures, curves, potentials[0].name, reference_name, notes)
    write_validation(result, settings)
    return result


def _parse_potentials(potential: str, against: str | None) -> tuple[list[validation.PotentialSpec], pd.DataFrame]:
    """Parse one or two potentials, or read the table of the reference."""
    potentials = [validation.parse_potential(potential)]
    if against is None or against.endswith(".csv"):
        return potentials, pd.DataFrame() if against is None else _read_reference_table(Path(against))
    reference = validation.parse_potential(against)
    if reference.name == potentials[0].name:
        reference = replace(reference, name=f"{reference.name} (reference)")
    return [*potentials, reference], pd.DataFrame()


def _check_names(kind: str, names: Sequence[str], choices: Collection[str]) -> None:
    for name in names:
        if name not in choices:
            raise InputError(f"unknown {kind} '{name}'; available: {', '.join(choices)}{suggest_match(name, choices)}")


def _read_reference_table(path: Path) -> pd.DataFrame:
    columns = {"property", "structure", "quantity", "potential"}
    table = read_table(path)
    missing_columns = sorted(columns - set(table.columns))
    if missing_columns:
        raise InputError(f"{path} has no column '{missing_columns[0]}'; required: {', '.join(sorted(columns))}")
    try:
        return table.astype({"potential": float})
    except ValueError as error:
        raise InputError(f"{path}: the column 'potential' must contain numbers: {one_line(error)}") from error


def _load_structures(
    paths: Sequence[Path | str], potentials: Sequence[validation.PotentialSpec]
) -> tuple[dict[str, Atoms], list[str]]:
    """Read structures by name, or build the crystals of the potential's elements; also return notes for the user."""
    structures: dict[str, Atoms] = {}
    notes: list[str] = []
    for path in map(Path, paths):
        name = path.stem
        while name in structures:
            name += "'"
        frames = read_frames(path, None)
        structures[name] = frames.atoms[0]
        notes += frames.notes
    if structures:
        return structures, notes
    elements = next((potential.elements for potential in potentials if potential.elements), ())
    if not elements:
        raise InputError("the elements of a calculator are unknown; specify a structure with --structure")
    crystals = {symbol: validation.build_reference_crystal(symbol) for symbol in elements}
    structures = {symbol: atoms for symbol, atoms in crystals.items() if atoms is not None}
    if not structures:
        raise InputError(f"ASE has no reference crystal of {', '.join(elements)}; specify a structure with --structure")
    return structures, notes


def _check_structures(structures: Mapping[str, Atoms], potentials: Sequence[validation.PotentialSpec]) -> None:
    """Compute the energy of each structure with each potential, so that invalid input fails before expensive steps."""
    for name, atoms in structures.items():
        if not atoms.pbc.all():
            raise InputError(
                f"structure '{name}' is not periodic in all directions; make it periodic, with vacuum where needed"
            )
        symbols = atoms.get_chemical_symbols()
        for potential in potentials:
            if foreign_elements := sorted(set(symbols) - set(potential.elements or symbols)):
                raise InputError(
                    f"structure '{name}' contains {foreign_elements[0]}, but {potential.name} supports only "
                    f"{', '.join(potential.elements)}"
                )
            try:
                energy = validation.compute_energy(atoms, potential.make_calculator(symbols))
            except InputError:
                raise
            except Exception as error:
                raise InputError(
                    f"{potential.name} cannot compute structure '{name}': {validation.describe_error(error)}"
                ) from error
            if not np.isfinite(energy):
                raise InputError(f"{potential.name}: the energy of '{name}' is not finite; check its geometry")


PropertyTask = tuple[str, str, int]  # property, structure, index of the potential
# property, structure, index of the potential, quantity, unit, value
Values = list[tuple[str, str, int, str, str, float]]


def _measure_all(
    potentials: Sequence[validation.PotentialSpec],
    structures: Mapping[str, Atoms],
    properties: list[str],
    settings: validation.ValidationSettings,
    context: RunContext,
) -> tuple[Values, pd.DataFrame, dict[str, pd.DataFrame]]:
    """Compute all properties of all structures with all potentials; return values, failures and curves."""
    tasks: list[PropertyTask] = [
        (name, structure, k)
        for structure, atoms in structures.items()
        for name in properties or validation.PROPERTY_FUNCTIONS
        if properties or name != "interlayer" or len(validation.find_layer_gaps(atoms)[1])
        for k in range(len(potentials))
    ]
    crystals = _relax_crystals(potentials, structures, tasks, context)
    measure = partial(_measure, potentials, structures, crystals, settings)
    values: Values = []
    failures: list[tuple[str, str, str, str]] = []
    curves: dict[str, list[pd.DataFrame]] = {}
    results = context.map_and_track(measure, tasks, "properties")
    for (name, structure, k), result in zip(tasks, results, strict=True):
        values += [(name, label, j, *quantity) for label, j, quantity in result.values]
        failures += [(name, structure, potentials[k].name, reason) for reason in result.failures]
        for kind, table in result.curves.items():
            curves.setdefault(kind, []).append(table)
    failure_table = pd.DataFrame(failures, columns=["property", "structure", "potential", "reason"])
    return values, failure_table, {kind: pd.concat(tables, ignore_index=True) for kind, tables in curves.items()}


def _relax_crystals(
    potentials: Sequence[validation.PotentialSpec],
    structures: Mapping[str, Atoms],
    tasks: Sequence[PropertyTask],
    context: RunContext,
) -> dict[tuple[str, int], Atoms | str]:
    """Relax each structure with each potential whose properties need it; the value is the reason if this fails."""
    keys = list(
        dict.fromkeys(
            (structure, k) for name, structure, k in tasks if name not in validation.PROPERTIES_WITHOUT_RELAXATION
        )
    )
    relax = partial(_relax_or_explain, potentials, structures)
    return dict(zip(keys, context.map_and_track(relax, keys, "relaxations"), strict=True))


def _relax_or_explain(
    potentials: Sequence[validation.PotentialSpec], structures: Mapping[str, Atoms], key: tuple[str, int]
) -> Atoms | str:
    """Relax a crystal, or return the reason why all properties that need it fail."""
    structure, k = key
    try:
        relaxed: Atoms = validation.relax_crystal(potentials[k], structures[structure]).copy()  # without its calculator
    except Exception as error:  # noqa: BLE001  (a calculator may raise anything; other properties are computed)
        return f"the relaxation of the crystal failed: {validation.describe_error(error)}"
    return relaxed


def _measure(
    potentials: Sequence[validation.PotentialSpec],
    structures: Mapping[str, Atoms],
    crystals: Mapping[tuple[str, int], Atoms | str],
    settings: validation.ValidationSettings,
    task: PropertyTask,
) -> validation.PropertyResult:
    """Compute one property of one structure with one potential, in a worker."""
    name, structure, k = task
    crystal = crystals.get((structure, k), structures[structure])
    if name in validation.PROPERTIES_WITHOUT_RELAXATION:
        crystal = structures[structure]
    if isinstance(crystal, str):
        return validation.PropertyResult(failures=[crystal])
    return validation.measure_property(
        name, validation.ValidationCase(potentials, k, structure, structures[structure], crystal, settings)
    )


def _tabulate_values(values: Values, reference_table: pd.DataFrame) -> pd.DataFrame:
    """Tabulate each quantity of the potential next to that of the second potential or of the reference table."""
    rows: dict[tuple[str, str, str, str], dict[int, float]] = {}
    for name, structure, k, quantity, unit, value in values:
        rows.setdefault((name, structure, quantity, unit), {})[k] = float(value)
    table = pd.DataFrame([[*key, row.get(0), row.get(1)] for key, row in rows.items()])
    table = table.reindex(columns=range(6)).set_axis([*KEY_COLUMNS, "potential", "reference"], axis=1)
    if not reference_table.empty:
        reference_values = reference_table.drop_duplicates(KEY_COLUMNS[:3]).set_index(KEY_COLUMNS[:3])["potential"]
        table["reference"] = reference_values.reindex(pd.MultiIndex.from_frame(table[KEY_COLUMNS[:3]])).to_numpy()
    table = table.astype({"potential": float, "reference": float})
    table["difference"] = table["potential"] - table["reference"]
    return table
