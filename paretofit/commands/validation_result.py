"""Result of a validation, and its tables, figures and page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from paretofit import validation
from paretofit.core import remove_file, write_csv, write_text
from paretofit.report import figures
from paretofit.report.page import PageSection, ReportFigure, render_sections

CURVES = (
    "eos", "eos_area", "eos_length", "phonon_bands", "phonon_labels", "phonon_density", "vibrations", "defects",
    "interlayer", "dimer", "md_energy", "md_rdf",
)  # fmt: skip
FIGURES: dict[str, tuple[Callable[..., Any], str]] = {
    "eos": (
        figures.plot_equations_of_state,
        "Energy as a function of volume; the equations of state are fitted within 6 % of the minimum.",
    ),
    "eos_area": (
        partial(figures.plot_equations_of_state, size="area"),
        "Energy as a function of the area of sheets, whose vacuum is left alone; fitted within 4 % of the minimum.",
    ),
    "eos_length": (
        partial(figures.plot_equations_of_state, size="length"),
        "Energy as a function of the length of wires, whose vacuum is left alone; fitted within 2 % of the minimum.",
    ),
    "vibrations": (figures.plot_vibrations, "Vibrations of molecules; imaginary frequencies are negative."),
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
    "lattice": "relaxed structure",
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


def write_validation(result: ValidationResult, settings: validation.ValidationSettings) -> None:
    """Write the tables, figures and page of a validation to its folder."""
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
        section_figures = [figure for figure in report_figures if _find_section(figure.name) == name]
        if len(table) or section_figures:
            yield PageSection(title.capitalize(), table.reset_index(drop=True), section_figures)


def _find_section(figure_name: str) -> str:
    """Return the property that a figure belongs to."""
    return "phonons" if figure_name == "vibrations" else figure_name.partition("_")[0]


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
