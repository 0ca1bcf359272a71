"""Relaxations and properties of a validation as tasks whose finished results are stored, so that it can be resumed."""

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

KEY_COLUMNS = ["property", "structure", "quantity", "unit"]


class PropertyTask(NamedTuple):
    """Name of a property and of a structure, and the index of the potential."""

    name: str
    structure: str
    potential_index: int


@dataclass(frozen=True)
class ValidationPlan:
    """Potentials, structures by name, properties (by default all that a structure has), and settings."""

    potentials: Sequence[validation.PotentialSpec]
    structures: Mapping[str, Atoms]
    properties: Sequence[str]
    settings: validation.ValidationSettings

    def list_tasks(self) -> list[PropertyTask]:
        """List all properties of all structures with all potentials, in order."""
        return [
            PropertyTask(name, structure, k)
            for structure, atoms in self.structures.items()
            for name in self.properties or validation.list_applicable_properties(atoms)
            for k in range(len(self.potentials))
        ]

    def list_notes(self) -> Iterator[str]:
        """Yield a note for each sheet, wire and molecule that lists the properties that are not computed for it.

        There are no notes if the user has chosen the properties.
        """
        for name, atoms in self.structures.items():
            if not self.properties and not atoms.pbc.all():
                kind = validation.KINDS[validation.count_periodic(atoms)]
                applicable = validation.list_applicable_properties(atoms)
                excluded_names = [name for name in validation.PROPERTY_FUNCTIONS if name not in applicable]
                yield f"{name} is a {kind}, for which these properties are not computed: {', '.join(excluded_names)}"

    def compute_digest(self) -> str:
        """Return a digest of everything that the results depend on."""
        structures = {
            name: [atoms.pbc.tolist(), hash_array(atoms.cell[:]),
                   {key: hash_array(values) for key, values in sorted(atoms.arrays.items())}]
            for name, atoms in self.structures.items()
        }  # fmt: skip
        potentials = [potential.compute_digest() for potential in self.potentials]
        tasks = [list(task) for task in self.list_tasks()]
        return hash_json([__version__, potentials, structures, tasks, asdict(self.settings)])


@dataclass
class Measurements:
    """Results of a validation.

    Attributes
    ----------
    values : list of (property, structure, index of the potential, Quantity)
    failures : list of (property, structure, name of the potential, reason)
    curves : dict of str to list of DataFrame
    notes : list of str
    """

    values: list[tuple[str, str, int, validation.Quantity]] = field(default_factory=list)
    failures: list[tuple[str, str, str, str]] = field(default_factory=list)
    curves: dict[str, list[pd.DataFrame]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, task: PropertyTask, potential: str, result: validation.PropertyResult) -> None:
        """Add the result of a task."""
        self.values += [(task.name, label, index, quantity) for label, index, quantity in result.values]
        self.failures += [(task.name, task.structure, potential, reason) for reason in result.failures]
        self.notes += result.notes
        for kind, table in result.curves.items():
            self.curves.setdefault(kind, []).append(table)

    @property
    def failure_table(self) -> pd.DataFrame:
        """``property``, ``structure``, ``potential`` and ``reason`` of each failure."""
        return pd.DataFrame(self.failures, columns=["property", "structure", "potential", "reason"])

    @property
    def curve_tables(self) -> dict[str, pd.DataFrame]:
        """Tables of curves by name."""
        return {kind: pd.concat(tables, ignore_index=True) for kind, tables in self.curves.items()}


def measure_all(plan: ValidationPlan, context: RunContext, relaxation_journal: Path, journal: Path) -> Measurements:
    """Compute all properties of all structures with all potentials; a stopped validation resumes.

    Parameters
    ----------
    plan : ValidationPlan
    context : RunContext
    relaxation_journal, journal : Path
        Files of finished relaxations and properties, which the caller removes when the results are written.
    """
    tasks, digest = plan.list_tasks(), plan.compute_digest()
    crystals = _relax_structures(plan, tasks, context, relaxation_journal, digest)
    measure = partial(_measure, plan, crystals)
    measurements = Measurements()
    results = map_with_journal(context, measure, tasks, "properties", journal, digest)
    for task, arrays in zip(tasks, results, strict=True):
        measurements.add(task, plan.potentials[task.potential_index].name, validation.unpack_result(arrays))
    return measurements


def _relax_structures(
    plan: ValidationPlan, tasks: Sequence[PropertyTask], context: RunContext, journal: Path, digest: str
) -> dict[tuple[str, int], Atoms | str]:
    """Relax each structure with each potential if a property needs it; return a result for each such pair.

    The result of a relaxation that failed is the reason, as text.
    """
    dependent_tasks = [task for task in tasks if task.name not in validation.PROPERTIES_WITHOUT_RELAXATION]
    keys = list(dict.fromkeys((task.structure, task.potential_index) for task in dependent_tasks))
    packed_structures = map_with_journal(context, partial(_relax_structure, plan), keys, "relaxations", journal, digest)
    return dict(zip(keys, map(validation.unpack_structure, packed_structures), strict=True))


def _relax_structure(plan: ValidationPlan, key: tuple[str, int]) -> list[Array]:
    """Relax a structure in a worker process; return it, or the reason why properties that need it fail, as arrays."""
    structure, potential_index = key
    try:
        relaxed_structure = validation.relax_crystal(plan.potentials[potential_index], plan.structures[structure])
    except Exception as error:  # noqa: BLE001  (a calculator may raise anything; other properties are computed)
        return validation.pack_structure(f"the relaxation failed: {validation.describe_error(error)}")
    return validation.pack_structure(relaxed_structure)


def _measure(plan: ValidationPlan, crystals: Mapping[tuple[str, int], Atoms | str], task: PropertyTask) -> list[Array]:
    """Compute one property of one structure with one potential, in a worker process; return the result as arrays."""
    structure = plan.structures[task.structure]
    crystal = crystals.get((task.structure, task.potential_index), structure)
    if task.name in validation.PROPERTIES_WITHOUT_RELAXATION:
        crystal = structure
    if isinstance(crystal, str):
        return validation.pack_result(validation.PropertyResult(failures=[crystal]))
    case = validation.ValidationCase(
        plan.potentials, task.potential_index, task.structure, structure, crystal, plan.settings
    )
    return validation.pack_result(validation.measure_property(task.name, case))


def tabulate_values(measurements: Measurements, reference_table: pd.DataFrame) -> pd.DataFrame:
    """Tabulate each quantity of the potential, of its reference (second potential or table), and the verdict."""
    rows: dict[tuple[str, str, str, str], dict[int, validation.Quantity]] = {}
    for name, structure, k, quantity in measurements.values:
        rows.setdefault((name, structure, quantity.name, quantity.unit), {})[k] = quantity
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
    # A table without rows has no columns before `reindex`.
    columns = [*KEY_COLUMNS, "potential", "reference", "problem"]
    table = pd.DataFrame(cells).reindex(columns=range(7)).set_axis(columns, axis=1)
    if not reference_table.empty:
        reference_values = reference_table.drop_duplicates(KEY_COLUMNS[:3]).set_index(KEY_COLUMNS[:3])["potential"]
        table["reference"] = reference_values.reindex(pd.MultiIndex.from_frame(table[KEY_COLUMNS[:3]])).to_numpy()
    table = table.astype({"potential": float, "reference": float})
    table["difference"] = table["potential"] - table["reference"]
    return validation.add_verdicts(table)
