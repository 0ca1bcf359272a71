"""`paretofit validate`: physical properties of one or two potentials in tables, figures and a page."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms

from paretofit import validation
from paretofit.core import InputError, check_new_paths, one_line, remove_file, suggest_match, write_csv, write_text
from paretofit.dataset.io import read_frames
from paretofit.execution import RunContext
from paretofit.pareto import read_table
from paretofit.potentials.mace import permit_unpickling
from paretofit.report import figures
from paretofit.report.page import PageSection, ReportFigure, render_sections

OUTPUT_FILES = ("validation.csv", "failures.csv", "validation.json", "validation.md", "validation.html")
KEY_COLUMNS = ["property", "structure", "quantity", "unit"]
CURVES = (
    "eos", "phonon_bands", "phonon_labels", "phonon_density", "defects", "interlayer", "dimer", "md_energy", "md_rdf",
)  # fmt: skip
FIGURES = {
    "eos": (
        figures.plot_equations_of_state,
        "Energy as a function of volume, with fitted Birch-Murnaghan equations of state.",
    ),
    "defects": (
        figures.plot_defects,
        "Formation energies of defects, relaxed with one potential and evaluated with each.",
    ),
    "interlayer": (
        figures.plot_interlayer,
        "Energy as a function of the interlayer distance, without and with dispersion.",
    ),
    "dimer": (figures.plot_dimers, "Energy of two atoms down to short distances; the scale is logarithmic above 1 eV."),
    "md_rdf": (
        figures.plot_radial_distribution,
        "Radial distribution function of the dynamics with a thermostat.",
    ),
    "md_energy": (figures.plot_energy_drift, "Total energy of the dynamics without a thermostat."),
}
TITLES = {
    "lattice": "relaxed crystal",
    "eos": "equation of state",
    "elastic": "elastic constants",
    "phonons": "phonons",
    "defects": "formation energies of defects",
    "surfaces": "surface energies",
    "interlayer": "interlayer distance",
    "dimer": "two atoms",
    "md": "molecular dynamics",
}


@dataclass(frozen=True)
class ValidationResult:
    """Result of a validation.

    Attributes
    ----------
    folder : Path
        Folder with ``validation.csv``, ``validation.md``, ``validation.html``, ``figures/`` and ``tables/``.
    table : DataFrame
        Values, with the columns ``property``, ``structure``, ``quantity``, ``unit``, ``potential``, ``reference``,
        ``difference``.
    failures : DataFrame
        Properties that failed, with the columns ``property``, ``structure``, ``potential``, ``reason``.
    curves : dict of str to DataFrame
        Data of the figures.
    potential, reference : str
        Names of the potential and of the reference; the latter is empty without a reference.
    notes : list of str
        What was changed in the input, such as dropped constraints.
    """

    folder: Path
    table: pd.DataFrame
    failures: pd.DataFrame
    curves: dict[str, pd.DataFrame]
    potential: str
    reference: str
    notes: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Table, failures and path of the page as plain text."""
        table = self.table if self.reference else self.table.drop(columns=["reference", "difference"])
        lines = [table.to_string(index=False, float_format=lambda value: f"{value:.5g}", na_rep="–")]
        return "\n".join(
            [
                *lines,
                *self.failure_lines,
                *(f"note: {note}" for note in self.notes),
                f"{self.folder / 'validation.html'}",
            ]
        )

    @property
    def failure_lines(self) -> list[str]:
        """Failures as lines of text."""
        return [f"{row.property}, {row.structure}, {row.potential}: {row.reason}" for row in self.failures.itertuples()]


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
    _write_result(result, settings)
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


def _write_result(result: ValidationResult, settings: validation.ValidationSettings) -> None:
    folder = result.folder
    for name in CURVES:
        path = folder / "tables" / f"{name}.csv"
        if name in result.curves:
            write_csv(result.curves[name], path, digits=None)
        else:
            remove_file(path)
    report_figures = [figures.render_figure(plan, folder / "figures") for plan in _plan_figures(result.curves)]
    write_csv(result.table, folder / "validation.csv", digits=None)
    write_csv(result.failures, folder / "failures.csv", digits=None)
    record = {"potential": result.potential, "reference": result.reference, "settings": asdict(settings)}
    write_text(folder / "validation.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    sections = list(_build_sections(result, report_figures))
    write_text(folder / "validation.md", _format_markdown(result, sections))
    page = render_sections(
        title=f"Validation of {result.potential}",
        opening=_format_opening(result),
        sections=sections,
        failures=result.failure_lines,
    )
    write_text(folder / "validation.html", page)


def _plan_figures(curves: Mapping[str, pd.DataFrame]) -> Iterator[figures.FigurePlan]:
    """Plan the figures for which curves exist."""
    for name, (draw, caption) in FIGURES.items():
        if name in curves:
            yield figures.FigurePlan(name, partial(draw, curves[name]), partial(str, caption), wide=False)
    bands = curves.get("phonon_bands", pd.DataFrame({"structure": []}))
    for number, structure in enumerate(bands["structure"].unique(), start=1):
        tables = [curves[f"phonon_{part}"] for part in ("bands", "labels", "density")]
        caption = f"Phonons of {structure}: dispersion and density of states; imaginary frequencies are negative."
        yield figures.FigurePlan(
            "phonons" if number == 1 else f"phonons_{number}",
            partial(figures.plot_phonon_dispersion, *(table[table["structure"] == structure] for table in tables)),
            partial(str, caption),
        )


def _build_sections(result: ValidationResult, report_figures: Sequence[ReportFigure]) -> Iterator[PageSection]:
    empty_columns = [] if result.reference else ["reference", "difference"]
    for name, title in TITLES.items():
        table = result.table[result.table["property"] == name].drop(columns=["property", *empty_columns])
        section_figures = [figure for figure in report_figures if figure.name.split("_")[0] == name]
        if len(table) or section_figures:
            yield PageSection(title.capitalize(), table.reset_index(drop=True), section_figures)


def _format_opening(result: ValidationResult) -> str:
    comparison = f" compared with {result.reference}" if result.reference else ""
    counts = f"{len(result.table)} numbers, {len(result.failures)} failures"
    notes = "".join(f" Note: {note}." for note in result.notes)
    return f"Properties of {result.potential}{comparison}: {counts}.{notes}"


def _format_markdown(result: ValidationResult, sections: Sequence[PageSection]) -> str:
    parts = [f"# Validation of {result.potential}\n\n{_format_opening(result)}\n"]
    if len(result.failures):
        parts.append("## Failures\n\n" + "".join(f"- {line}\n" for line in result.failure_lines))
    for section in sections:
        parts.append(f"## {section.title}\n\n{section.markdown}")
        parts += [f"![{figure.caption}](figures/{figure.name}.png)\n" for figure in section.figures
                  if not figure.missing_reason]  # fmt: skip
    return "\n".join(parts)
