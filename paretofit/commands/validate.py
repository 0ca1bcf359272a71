"""`paretofit validate`: physical properties of one or two potentials in tables, figures and an HTML page."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms

from paretofit import validation
from paretofit.commands.validation_result import ValidationResult, write_validation
from paretofit.commands.validation_tasks import ValidationPlan, measure_all, tabulate_values
from paretofit.core import InputError, check_new_paths, join_lines, remove_file, suggest_match
from paretofit.dataset.io import read_frames
from paretofit.execution import RunContext
from paretofit.pareto import read_table
from paretofit.potentials.mace import permit_unpickling
from paretofit.structures import check_empty_space

OUTPUT_FILES = ("validation.csv", "failures.csv", "validation.json", "validation.md", "validation.html")
JOURNAL_FILES = ("relaxations.partial", "properties.partial")  # results from which a stopped validation resumes


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

    A validation that was stopped resumes if it is started again with the same potentials, structures, properties and
    settings.

    Parameters
    ----------
    potential : str or Path
        Potential or calculator; see `paretofit.validation.subject.parse_potential`.
    out : path-like
        Folder of the results.
    against : str or Path, optional
        Reference: another potential, a calculator, or a ``.csv`` file with the columns ``property``, ``structure``,
        ``quantity`` and ``potential``, such as ``validation.csv`` of another validation.
    structures : sequence of path-like
        Files that ASE reads, of which the first structure is used; by default ASE's reference crystals of the
        potential's elements.
    properties : sequence of str
        Names among lattice, eos, elastic, phonons, defects, surfaces, interlayer, dimer and md; by default all that
        apply to a structure (`paretofit.validation.list_applicable_properties`). For example, surfaces apply only to
        crystals.
    settings : ValidationSettings, optional
        Sizes of cells, durations, prototypes, surfaces, interstitials and reference energies.
    jobs : int
        Number of processes that relax structures and compute properties; results do not depend on it.
    overwrite : bool
        Replace existing files.
    progress : bool
        Show a progress bar.
    allow_pickle : bool
        Accept MACE networks that were not trained by this user on this computer. Loading them can run any code.

    Raises
    ------
    InputError
        If a potential or a structure cannot be used, or an output exists. A property that fails does not raise an
        error; the failure is in the result.
    """
    validation.check_validate_extra()
    folder = Path(out)
    check_new_paths(
        [folder / name for name in OUTPUT_FILES], [folder / "figures", folder / "tables"], overwrite=overwrite
    )
    settings, context = settings or validation.ValidationSettings(), RunContext(jobs, progress)
    _check_names("property", properties, validation.PROPERTY_FUNCTIONS)
    _check_names("prototype", settings.prototypes, validation.PROTOTYPES)
    potentials, reference_table = _parse_potentials(str(potential), None if against is None else str(against))
    structures_by_name, notes = _load_structures(structures, potentials)
    _check_reference_energies(settings, structures_by_name)
    plan = ValidationPlan(potentials, structures_by_name, properties, settings)
    journals = [folder / name for name in JOURNAL_FILES]
    with permit_unpickling(allow_pickle):
        _check_structures(structures_by_name, potentials)
        measurements = measure_all(plan, context, *journals)
    reference_name = potentials[1].name if len(potentials) == 2 else str(against or "")
    result = ValidationResult(
        folder, tabulate_values(measurements, reference_table), measurements.failure_table,
        measurements.curve_tables, potentials[0].name, reference_name,
        [*notes, *plan.list_notes(), *dict.fromkeys(measurements.notes)],
    )  # fmt: skip
    write_validation(result, settings)
    for journal in journals:
        remove_file(journal)
    return result


def _parse_potentials(potential: str, against: str | None) -> tuple[list[validation.PotentialSpec], pd.DataFrame]:
    """Parse the potential and the reference; return the potentials, and the reference table.

    The table is empty unless the reference is a CSV file.
    """
    potentials = [validation.parse_potential(potential)]
    if against is None or against.endswith(".csv"):
        return potentials, pd.DataFrame() if against is None else _read_reference_table(Path(against))
    reference = validation.parse_potential(against)
    if reference.name == potentials[0].name:
        reference = replace(reference, name=f"{reference.name} (reference)")
    return [*potentials, reference], pd.DataFrame()


def _check_names(kind: str, names: Sequence[str], choices: Collection[str]) -> None:
    """Check that all names, such as those of properties, are among the choices; `kind` is for the error message."""
    for name in names:
        if name not in choices:
            raise InputError(f"unknown {kind} '{name}'; available: {', '.join(choices)}{suggest_match(name, choices)}")


def _check_reference_energies(settings: validation.ValidationSettings, structures: Mapping[str, Atoms]) -> None:
    """Check that each reference energy is that of an element of the structures, and that no element has several."""
    elements = sorted({symbol for atoms in structures.values() for symbol in atoms.get_chemical_symbols()})
    symbols = [symbol for symbol, _ in settings.reference_energies]
    for symbol in symbols:
        if symbol not in elements:
            raise InputError(
                f"'--reference-energy' has '{symbol}', but the structures contain {', '.join(elements)}; "
                "drop or correct it"
            )
        if symbols.count(symbol) > 1:
            raise InputError(f"'--reference-energy' has several values for {symbol}; specify one")


def _read_reference_table(path: Path) -> pd.DataFrame:
    """Read a table of reference values, and check that it has the columns and numbers of ``validation.csv``."""
    required_columns = {"property", "structure", "quantity", "potential"}
    table = read_table(path)
    missing_columns = sorted(required_columns - set(table.columns))
    if missing_columns:
        raise InputError(
            f"{path} has no column '{missing_columns[0]}'; required: {', '.join(sorted(required_columns))}"
        )
    try:
        return table.astype({"potential": float})
    except ValueError as error:
        raise InputError(f"{path}: the column 'potential' must contain numbers: {join_lines(error)}") from error


def _load_structures(
    paths: Sequence[Path | str], potentials: Sequence[validation.PotentialSpec]
) -> tuple[dict[str, Atoms], list[str]]:
    """Read the first structure of each file, or build crystals of the potential's elements, by name; also return notes.

    A structure is named after its file, or an element; an apostrophe is added to a name that occurs again.
    """
    structures: dict[str, Atoms] = {}
    notes: list[str] = []
    for path in map(Path, paths):
        name = path.stem
        while name in structures:
            name += "'"
        frames = read_frames(path, None)
        structures[name] = _orient_structure(frames.atoms[0], name)
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


def _orient_structure(atoms: Atoms, name: str) -> Atoms:
    """Check the cell of a structure, and put its periodic directions first; see `validation.orient_structure`."""
    try:
        oriented_structure = validation.orient_structure(atoms)
    except validation.PropertyError as error:
        raise InputError(f"structure '{name}' cannot be used: {error}; correct its cell") from error
    check_empty_space(oriented_structure, f"structure '{name}'")
    return oriented_structure


def _check_structures(structures: Mapping[str, Atoms], potentials: Sequence[validation.PotentialSpec]) -> None:
    """Check elements and energies of all structures with all potentials, so that invalid input fails early."""
    for name, atoms in structures.items():
        symbols = atoms.get_chemical_symbols()
        for potential in potentials:
            if foreign_elements := sorted(set(symbols) - set(potential.elements or symbols)):
                raise InputError(
                    f"structure '{name}' contains {foreign_elements[0]}, but {potential.name} supports only "
                    f"{', '.join(potential.elements)}; drop the structure, or choose another potential"
                )
            try:
                energy = validation.compute_energy(atoms, potential.create_calculator_for(atoms))
            except InputError:
                raise
            except Exception as error:  # a calculator may raise anything
                raise InputError(
                    f"{potential.name} cannot compute structure '{name}': {validation.describe_error(error)}"
                ) from error
            if not np.isfinite(energy):
                raise InputError(f"{potential.name}: the energy of '{name}' is not finite; check its geometry")
