"""Tasks of a validation: relaxations and properties, whose results are stored so that a stopped validation resumes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from ase import Atoms

from paretofit import __version__, validation
from paretofit.core import Array, hash_array, hash_json
from paretofit.execution import RunContext, map_with_journal

# columns that identify a quantity; the first three identify it in a table of reference values
KEY_COLUMNS = ["property", "structure", "quantity", "unit"]


class PropertyTask(NamedTuple):
    """Property to compute: its name, the name of the structure, and the index of the potential."""

    name: str
    structure: str
    potential_index: int


@dataclass(frozen=True)
class ValidationPlan:
    """Input of a validation.

    Attributes
    ----------
    potentials : sequence of PotentialSpec
        The potential, and the reference if it is a potential or a calculator.
    structures : mapping of str to ase.Atoms
        Structures by name.
    properties : sequence of str
        Names of the properties; if empty, all that apply to a structure.
    settings : ValidationSettings
    """

    potentials: Sequence[validation.PotentialSpec]
    structures: Mapping[str, Atoms]
    properties: Sequence[str]
    settings: validation.ValidationSettings

    def list_tasks(self) -> list[PropertyTask]:
        """List all properties of all structures with all potentials; the potential varies fastest."""
        return [
            PropertyTask(name, structure, potential_index)
            for structure, atoms in self.structures.items()
            for name in self.properties or validation.list_applicable_properties(atoms)
            for potential_index in range(len(self.potentials))
        ]

    def list_notes(self) -> Iterator[str]:
        """Yield a note for each sheet, wire and molecule on the properties that are not computed for it.

        There are no notes if the user has chosen the properties.
        """
        for name, atoms in self.structures.items():
            if not self.properties and not atoms.pbc.all():
                kind = validation.KINDS[validation.count_periodic(atoms)]
                applicable = validation.list_applicable_properties(atoms)
                excluded_names = [name for name in validation.PROPERTY_FUNCTIONS if name not in applicable]
                yield f"{name} is a {kind}, for which these properties are not computed: {', '.join(excluded_names)}"

    def compute_digest(self) -> str:
        """Return a digest of everything that the results depend on, including the version of paretofit."""
        structures = {
            name: [atoms.pbc.tolist(), hash_array(atoms.cell[:]),
                   {key: hash_array(array) for key, array in sorted(atoms.arrays.items())}]
            for name, atoms in self.structures.items()
        }  # fmt: skip
        potentials = [potential.compute_digest() for potential in self.potentials]
        tasks = [list(task) for task in self.list_tasks()]
        return hash_json([__version__, potentials, structures, tasks, asdict(self.settings)])


@dataclass
class Measurements:
    """Measured quantities and failures of a validation, which are collected task by task.

    Attributes
    ----------
    values : list of (property, structure, index of the potential, Quantity)
    failures : list of (property, structure, name of the potential, reason)
    curves : dict of str to list of DataFrame
        Tables of each kind of curve, one for each task that measured it.
    notes : list of str
    """

    values: list[tuple[str, str, int, validation.Quantity]] = field(default_factory=list)
    failures: list[tuple[str, str, str, str]] = field(default_factory=list)
    curves: dict[str, list[pd.DataFrame]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, task: PropertyTask, potential: str, result: validation.PropertyResult) -> None:
        """Add the result of a task; `potential` is the name of its potential."""
        self.values += [
            (task.name, structure, potential_index, quantity) for structure, potential_index, quantity in result.values
        ]
        self.failures += [(task.name, task.structure, potential, reason) for reason in result.failures]
        self.notes += result.notes
        for kind, table in result.curves.items():
            self.curves.setdefault(kind, []).append(table)

    @property
    def failure_table(self) -> pd.DataFrame:
        """Table of the failures: ``property``, ``structure``, ``potential`` and ``reason``."""
        return pd.DataFrame(self.failures, columns=["property", "structure", "potential", "reason"])

    @property
    def curve_tables(self) -> dict[str, pd.DataFrame]:
        """One table for each kind of curve, with the rows of all tasks."""
        return {kind: pd.concat(tables, ignore_index=True) for kind, tables in self.curves.items()}


def measure_all(plan: ValidationPlan, context: RunContext, relaxation_journal: Path, journal: Path) -> Measurements:
    """Compute all properties of all structures with all potentials; a stopped validation resumes.

    Parameters
    ----------
    plan : ValidationPlan
    context : RunContext
    relaxation_journal, journal : Path
        Files that store finished relaxations and finished properties. The caller removes them after it has written the
        tables.
    """
    tasks, digest = plan.list_tasks(), plan.compute_digest()
    relaxed_structures = _relax_structures(plan, tasks, context, relaxation_journal, digest)
    measure = partial(_measure_property, plan, relaxed_structures)
    measurements = Measurements()
    results = map_with_journal(context, measure, tasks, "properties", journal, digest)
    for task, arrays in zip(tasks, results, strict=True):
        measurements.add(task, plan.potentials[task.potential_index].name, validation.unpack_result(arrays))
    return measurements


def _relax_structures(
    plan: ValidationPlan, tasks: Sequence[PropertyTask], context: RunContext, journal: Path, digest: str
) -> dict[tuple[str, int], Atoms | str]:
    """Relax each structure with each potential, where a property requires it.

    Return the relaxed structure by the name of the structure and the index of the potential; if the relaxation failed,
    the reason as text.
    """
    dependent_tasks = [task for task in tasks if task.name not in validation.PROPERTIES_WITHOUT_RELAXATION]
    keys = list(dict.fromkeys((task.structure, task.potential_index) for task in dependent_tasks))
    packed_structures = map_with_journal(context, partial(_relax_structure, plan), keys, "relaxations", journal, digest)
    return dict(zip(keys, map(validation.unpack_structure, packed_structures), strict=True))


def _relax_structure(plan: ValidationPlan, key: tuple[str, int]) -> list[Array]:
    """Relax a structure in a worker process; return the relaxed structure or the reason for a failure, as arrays."""
    structure, potential_index = key
    try:
        potential = plan.potentials[potential_index]
        relaxed_structure = validation.relax_to_standard_cell(potential, plan.structures[structure])
    except Exception as error:  # noqa: BLE001  (a calculator may raise anything; other properties are computed)
        return validation.pack_structure(f"the relaxation failed: {validation.describe_error(error)}")
    return validation.pack_structure(relaxed_structure)


def _measure_property(
    plan: ValidationPlan, relaxed_structures: Mapping[tuple[str, int], Atoms | str], task: PropertyTask
) -> list[Array]:
    """Compute one property of one structure with one potential, in a worker process; return the result as arrays.

    `relaxed_structures` is the result of `_relax_structures`. If the relaxation failed, so does the property.
    """
    structure = plan.structures[task.structure]
    if task.name in validation.PROPERTIES_WITHOUT_RELAXATION:
        relaxed_structure: Atoms | str = structure
    else:
        relaxed_structure = relaxed_structures[task.structure, task.potential_index]
    if isinstance(relaxed_structure, str):
        return validation.pack_result(validation.PropertyResult(failures=[relaxed_structure]))
    case = validation.ValidationCase(
        plan.potentials, task.potential_index, task.structure, structure, relaxed_structure, plan.settings
    )
    return validation.pack_result(validation.measure_property(task.name, case))


def tabulate_values(measurements: Measurements, reference_table: pd.DataFrame) -> pd.DataFrame:
    """Tabulate each quantity with the values of the potential and of the reference, their difference, and the verdict.

    Parameters
    ----------
    measurements : Measurements
    reference_table : DataFrame
        Reference values in the column ``potential``, by property, structure and quantity. If the table is empty, the
        reference is the second potential, if any.

    Returns
    -------
    DataFrame
        See `paretofit.commands.validation_result.ValidationResult.table`.
    """
    rows: dict[tuple[str, str, str, str], dict[int, validation.Quantity]] = {}
    for name, structure, potential_index, quantity in measurements.values:
        rows.setdefault((name, structure, quantity.name, quantity.unit), {})[potential_index] = quantity
    missing_quantity = validation.Quantity("", "", float("nan"))
    cells = [
        [
            *key,
            row.get(0, missing_quantity).value,
            row.get(1, missing_quantity).value,
            row.get(0, missing_quantity).problem,
        ]
        for key, row in rows.items()
    ]
    # `reindex` gives a table without rows its columns.
    columns = [*KEY_COLUMNS, "potential", "reference", "problem"]
    table = pd.DataFrame(cells).reindex(columns=range(len(columns))).set_axis(columns, axis=1)
    if not reference_table.empty:
        reference_values = reference_table.drop_duplicates(KEY_COLUMNS[:3]).set_index(KEY_COLUMNS[:3])["potential"]
        table["reference"] = reference_values.reindex(pd.MultiIndex.from_frame(table[KEY_COLUMNS[:3]])).to_numpy()
    table = table.astype({"potential": float, "reference": float})
    table["difference"] = table["potential"] - table["reference"]
    return validation.add_verdicts(table)
