"""`paretofit validate`: the properties that people check, of one or two potentials, in tables, figures and a page."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from ase.build import bulk

from paretofit.core import InputError, one_line, remove_file, suggest_match, track, write_text
from paretofit.dataset.io import read_frames
from paretofit.pareto import read_table
from paretofit.report.figures import (
    FigurePlan,
    plot_defects,
    plot_dimers,
    plot_energy_drift,
    plot_equations_of_state,
    plot_interlayer,
    plot_phonon_dispersion,
    plot_radial_distribution,
    render_figure,
)
from paretofit.report.page import PageSection, render_sections
from paretofit.validation import (
    KNOWN_PROTOTYPES,
    PROPERTIES_WITHOUT_RELAXATION,
    PROPERTY_FUNCTIONS,
    PotentialSpec,
    PropertyResult,
    ValidationCase,
    ValidationSettings,
    check_validate_extra,
    describe_error,
    find_layer_gaps,
    measure_property,
    parse_potential,
    relax_crystal,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ase import Atoms

    from paretofit.report.page import ReportFigure

KEYS = ["property", "structure", "quantity", "unit"]
CURVES = (
    "eos", "phonon_bands", "phonon_labels", "phonon_density", "defects", "interlayer", "dimer", "md_energy", "md_rdf",
)  # fmt: skip
TITLES = {
    "lattice": "relaxed crystal",
    "eos": "equation of state",
    "elastic": "elastic constants",
    "phonons": "phonons",
    "defects": "formation energies of defects",
    "surfaces": "surface energies",
    "interlayer": "distance of layers",
    "dimer": "two atoms",
    "md": "molecular dynamics",
}


@dataclass(frozen=True)
class ValidationResult:
    """What a validation found.

    Attributes
    ----------
    folder : Path
        With ``validation.csv``, ``validation.md``, ``validation.html``, ``figures/`` and ``tables/``.
    table : DataFrame
        ``property``, ``structure``, ``quantity``, ``unit``, ``potential``, ``reference``, ``difference``.
    failures : DataFrame
        ``property``, ``structure``, ``potential``, ``describe_error``.
    curves : dict of str to DataFrame
        What the figures show.
    potential, reference : str
        Names; the second empty where there is none.
    """

    folder: Path
    table: pd.DataFrame
    failures: pd.DataFrame
    curves: dict[str, pd.DataFrame]
    potential: str
    reference: str

    @property
    def text(self) -> str:
        """The table and what failed, as plain text."""
        shown = self.table if self.reference else self.table.drop(columns=["reference", "difference"])
        lines = [shown.to_string(index=False, float_format=lambda value: f"{value:.5g}", na_rep="–")]
        lines += _failed(self)
        return "\n".join([*lines, f"{self.folder / 'validation.html'}"])


def validate_potential(
    potential: str | Path,
    out: Path | str,
    *,
    against: str | Path | None = None,
    structures: Sequence[Path | str] = (),
    properties: Sequence[str] = (),
    settings: ValidationSettings | None = None,
    progress: bool = False,
) -> ValidationResult:
    """Measure properties of a potential, perhaps beside another one, and write tables, figures and a page.

    Parameters
    ----------
    potential : str or Path
        See `paretofit.validation.subject.parse_potential`.
    out : path-like
        Where everything is written.
    against : str or Path, optional
        Another potential, a reference calculator, or a ``.csv`` with the columns ``property``, ``structure``,
        ``quantity`` and ``potential``, such as another validation's ``validation.csv``.
    structures : sequence of path-like
        Files that ASE reads, the first structure of each; by default the crystals that ASE knows of the potential's
        elements.
    properties : sequence of str
        Some of lattice, eos, elastic, phonons, defects, surfaces, interlayer, dimer, md; all by default, interlayer
        for what is layered.
    settings : Settings, optional
        Sizes, prototypes, surfaces, interstitials.
    progress : bool
        Draw a bar.

    Raises
    ------
    InputError
        If a potential or a structure cannot be used. A property that fails is recorded, and the others go on.
    """
    check_validate_extra()
    settings = settings or ValidationSettings()
    _check_names(properties, settings)
    subjects, known = _compared(str(potential), None if against is None else str(against))
    given = _structures(structures, subjects)
    _check_structures(given, subjects)
    values, failures, curves = _collected(subjects, given, list(properties), settings, progress=progress)
    rows = pd.DataFrame(failures, columns=["property", "structure", "potential", "reason"])
    reference = subjects[1].name if len(subjects) == 2 else str(against or "")
    result = ValidationResult(Path(out), _table(values, known), rows, curves, subjects[0].name, reference)
    _write(result, settings)
    return result


def _compared(potential: str, against: str | None) -> tuple[list[PotentialSpec], pd.DataFrame]:
    """One or two potentials, and the numbers of a reference table."""
    subjects = [parse_potential(potential)]
    if against is None or against.endswith(".csv"):
        return subjects, pd.DataFrame() if against is None else _read_table(Path(against))
    return [*subjects, _other(parse_potential(against), subjects[0])], pd.DataFrame()


def _other(second: PotentialSpec, first: PotentialSpec) -> PotentialSpec:
    """With another name where both are called the same."""
    return replace(second, name=f"{second.name} (reference)") if second.name == first.name else second


def _check_names(properties: Sequence[str], settings: ValidationSettings) -> None:
    for names, known, what in (
        (properties, PROPERTY_FUNCTIONS, "property"),
        (settings.prototypes, KNOWN_PROTOTYPES, "prototype"),
    ):
        for name in names:
            if name not in known:
                raise InputError(
                    f"there is no {what} '{name}'{suggest_match(name, known)}; there are {', '.join(known)}"
                )


def _read_table(path: Path) -> pd.DataFrame:
    needed = {"property", "structure", "quantity", "potential"}
    table = read_table(path)
    missing = sorted(needed - set(table.columns))
    if missing:
        raise InputError(f"{path} has no column '{missing[0]}'; a reference table has {', '.join(sorted(needed))}")
    try:
        return table.astype({"potential": float})
    except ValueError as error:
        raise InputError(f"{path}: the column 'potential' must be numbers: {one_line(error)}") from error


def _structures(paths: Sequence[Path | str], subjects: Sequence[PotentialSpec]) -> dict[str, Atoms]:
    if paths:
        found: dict[str, Atoms] = {}
        for path in map(Path, paths):
            name = path.stem
            while name in found:
                name += "'"
            found[name] = read_frames(path, None).atoms[0]
        return found
    elements = subjects[0].elements or (subjects[1].elements if len(subjects) > 1 else ())
    if not elements:
        raise InputError("a calculator does not say which elements it is for; name a structure with --structure")
    found = {}
    for symbol in elements:
        try:
            found[symbol] = bulk(symbol)
        except (ValueError, KeyError, RuntimeError):
            continue
    if not found:
        raise InputError(f"ASE knows no crystal of {', '.join(elements)}; name a structure with --structure")
    return found


def _check_structures(given: Mapping[str, Atoms], subjects: Sequence[PotentialSpec]) -> None:
    """Everything that would fail at once fails before anything long has started."""
    for name, atoms in given.items():
        symbols = atoms.get_chemical_symbols()
        if not atoms.pbc.all():
            raise InputError(
                f"structure '{name}' is not periodic in three directions; give it a cell, and vacuum there"
            )
        for subject in subjects:
            foreign = sorted(set(symbols) - set(subject.elements)) if subject.elements else []
            if foreign:
                raise InputError(
                    f"structure '{name}' has {foreign[0]}, which {subject.name} lacks; it has "
                    f"{', '.join(subject.elements)}"
                )
            copy = atoms.copy()
            try:
                copy.calc = subject.make_calculator(symbols)
                energy = float(copy.get_potential_energy())
            except InputError:
                raise
            except Exception as error:
                raise InputError(
                    f"{subject.name} cannot compute structure '{name}': {describe_error(error)}"
                ) from error
            if not np.isfinite(energy):
                raise InputError(f"{subject.name} gives structure '{name}' no finite energy; is its geometry right?")


Values = list[tuple[str, str, int, str, str, float]]
Failures = list[tuple[str, str, str, str]]


def _collected(
    subjects: Sequence[PotentialSpec],
    given: Mapping[str, Atoms],
    properties: list[str],
    settings: ValidationSettings,
    *,
    progress: bool,
) -> tuple[Values, Failures, dict[str, pd.DataFrame]]:
    """All properties of all structures with all potentials."""
    wanted = [
        (name, structure)
        for structure, atoms in given.items()
        for name in properties or PROPERTY_FUNCTIONS
        if properties or name != "interlayer" or len(find_layer_gaps(atoms)[1])
    ]
    tasks = [(name, structure, k) for name, structure in wanted for k in range(len(subjects))]
    values: Values = []
    failures: Failures = []
    curves: dict[str, list[pd.DataFrame]] = {}
    crystals: dict[tuple[str, int], Atoms | str] = {}
    for name, structure, k in track(tasks, len(tasks), "properties", enabled=progress):
        done = _measured(name, structure, k, subjects, given[structure], settings, crystals)
        values += [(name, place, j, *quantity) for place, j, quantity in done.values]
        failures += [(name, structure, subjects[k].name, text) for text in done.failures]
        for kind, table in done.curves.items():
            curves.setdefault(kind, []).append(table)
    return values, failures, {kind: pd.concat(parts, ignore_index=True) for kind, parts in curves.items()}


def _measured(
    name: str,
    structure: str,
    k: int,
    subjects: Sequence[PotentialSpec],
    atoms: Atoms,
    settings: ValidationSettings,
    crystals: dict[tuple[str, int], Atoms | str],
) -> PropertyResult:
    """One property; the relaxed crystal is made once, and its failure is that of all that need it."""
    if name in PROPERTIES_WITHOUT_RELAXATION:
        return measure_property(name, ValidationCase(subjects, k, structure, atoms, atoms, settings))
    if (structure, k) not in crystals:
        try:
            crystals[structure, k] = relax_crystal(subjects[k], atoms)
        except Exception as error:  # noqa: BLE001  (a calculator may raise anything; what needs no crystal goes on)
            crystals[structure, k] = f"there is no relaxed crystal: {describe_error(error)}"
    crystal = crystals[structure, k]
    if isinstance(crystal, str):
        return PropertyResult(failures=[crystal])
    return measure_property(name, ValidationCase(subjects, k, structure, atoms, crystal, settings))


def _table(values: Values, known: pd.DataFrame) -> pd.DataFrame:
    """A row for each quantity, the two potentials side by side."""
    rows: dict[tuple[str, str, str, str], dict[int, float]] = {}
    for name, structure, k, quantity, unit, value in values:
        rows.setdefault((name, structure, quantity, unit), {})[k] = float(value)
    table = pd.DataFrame([[*key, own.get(0), own.get(1)] for key, own in rows.items()])
    table = table.reindex(columns=range(6)).set_axis([*KEYS, "potential", "reference"], axis=1)
    if not known.empty:
        look = known.drop_duplicates(KEYS[:3]).set_index(KEYS[:3])["potential"]
        table["reference"] = look.reindex(pd.MultiIndex.from_frame(table[KEYS[:3]])).to_numpy()
    table = table.astype({"potential": float, "reference": float})
    table["difference"] = table["potential"] - table["reference"]
    return table


def _write(result: ValidationResult, settings: ValidationSettings) -> None:
    folder = result.folder
    for name in CURVES:
        if name in result.curves:
            write_text(folder / "tables" / f"{name}.csv", result.curves[name].to_csv(index=False))
        else:
            remove_file(folder / "tables" / f"{name}.csv")
    pictures = [render_figure(plan, folder / "figures") for plan in _plans(result.curves)]
    write_text(folder / "validation.csv", result.table.to_csv(index=False))
    write_text(folder / "failures.csv", result.failures.to_csv(index=False))
    settings_text = {"potential": result.potential, "reference": result.reference, "settings": asdict(settings)}
    write_text(folder / "validation.json", json.dumps(settings_text, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / "validation.md", _markdown(result, pictures))
    write_text(folder / "validation.html", _page(result, pictures))


def _plans(curves: Mapping[str, pd.DataFrame]) -> Iterator[FigurePlan]:
    """The figures that there are curves for."""
    single = (
        (
            "eos",
            plot_equations_of_state,
            "Energy against volume; fitted by Birch and Murnaghan's equation of state.",
        ),
        (
            "defects",
            plot_defects,
            "Formation energies of defects, relaxed with one and evaluated with any potential.",
        ),
        ("interlayer", plot_interlayer, "Energy against the distance of layers, without and with dispersion."),
        ("dimer", plot_dimers, "Two atoms down to short distance; logarithmic beyond 1 eV."),
        ("md_rdf", plot_radial_distribution, "Radial distribution function in dynamics with a thermostat."),
        ("md_energy", plot_energy_drift, "Total energy in dynamics without a thermostat."),
    )
    for name, draw, caption in single:
        if name in curves:
            yield FigurePlan(name, partial(draw, curves[name]), partial(str, caption), wide=False)
    bands = curves.get("phonon_bands", pd.DataFrame({"structure": []}))
    for number, structure in enumerate(dict.fromkeys(bands["structure"])):
        parts = [curves[f"phonon_{part}"] for part in ("bands", "labels", "density")]
        tables = [part[part["structure"] == structure] for part in parts]
        yield FigurePlan(
            "phonons" if number == 0 else f"phonons_{number + 1}",
            partial(plot_phonon_dispersion, *tables),
            partial(str, f"Phonons of {structure}: dispersion and density of states; imaginary ones below zero."),
        )


def _sections(result: ValidationResult, pictures: Sequence[ReportFigure]) -> Iterator[PageSection]:
    left_out = [] if result.reference else ["reference", "difference"]
    for name, title in TITLES.items():
        table = result.table[result.table["property"] == name].drop(columns=["property", *left_out])
        own = [one for one in pictures if one.name.split("_")[0] == name]
        if len(table) or own:
            yield PageSection(title.capitalize(), table.reset_index(drop=True), own)


def _failed(result: ValidationResult) -> list[str]:
    """A line for each failure."""
    return [f"{one.property}, {one.structure}, {one.potential}: {one.reason}" for one in _rows(result.failures)]


def _page(result: ValidationResult, pictures: Sequence[ReportFigure]) -> str:
    return render_sections(
        title=f"Validation of {result.potential}",
        opening=_opening(result),
        sections=list(_sections(result, pictures)),
        failures=_failed(result),
    )


def _opening(result: ValidationResult) -> str:
    beside = f" beside {result.reference}" if result.reference else ""
    counted = f"{len(result.table)} numbers, {len(result.failures)} failures"
    return f"Properties of {result.potential}{beside}: {counted}."


def _markdown(result: ValidationResult, pictures: Sequence[ReportFigure]) -> str:
    parts = [f"# Validation of {result.potential}\n\n{_opening(result)}\n"]
    if len(result.failures):
        parts.append("## What failed\n\n" + "".join(f"- {line}\n" for line in _failed(result)))
    for section in _sections(result, pictures):
        parts.append(f"## {section.title}\n\n{section.markdown}")
        parts += [f"![{one.caption}](figures/{one.name}.png)\n" for one in section.figures if not one.missing_reason]
    return "\n".join(parts)


def _rows(table: pd.DataFrame) -> list[pd.Series]:
    return [row for _, row in table.iterrows()]
