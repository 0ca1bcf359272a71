"""Result of a validation, and its output as tables, figures, Markdown and an HTML page."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from paretofit import validation
from paretofit.core import remove_file, write_csv, write_text
from paretofit.report import figures, format_count, format_number
from paretofit.report.page import PageSection, ReportFigure, render_sections

CURVES = (  # names of the tables with data of figures
    "eos", "eos_area", "eos_length", "phonon_bands", "phonon_labels", "phonon_density", "vibrations", "defects",
    "interlayer", "dimer", "md_energy", "md_rdf",
)  # fmt: skip
# function that draws each figure from the table of the same name; phonons are drawn from three tables
FIGURES: dict[str, Callable[..., Any]] = {
    "eos": figures.plot_equations_of_state,
    "eos_area": partial(figures.plot_equations_of_state, size="area"),
    "eos_length": partial(figures.plot_equations_of_state, size="length"),
    "vibrations": figures.plot_vibrations,
    "defects": figures.plot_defects,
    "interlayer": figures.plot_interlayer,
    "dimer": figures.plot_dimers,
    "md_rdf": figures.plot_radial_distribution,
    "md_energy": figures.plot_energy_drift,
}
CAPTIONS = {
    "eos": "Energy as a function of volume; the equations of state are fitted within 6 % of the minimum.",
    "eos_area": "Energy as a function of the area of sheets, whose vacuum is left alone; fitted within 4 % of the "
    "minimum.",
    "eos_length": "Energy as a function of the length of wires, whose vacuum is left alone; fitted within 2 % of the "
    "minimum.",
    "vibrations": "Vibrations of molecules; imaginary frequencies are negative.",
    "defects": "Formation energies of defects, relaxed with one potential and evaluated with each.",
    "interlayer": "Energy as a function of the interlayer distance, without and with dispersion.",
    "dimer": "Energy of two atoms down to short distances; the scale is logarithmic above 1 eV.",
    "md_rdf": "Radial distribution function of the dynamics with a thermostat.",
    "md_energy": "Total energy of the dynamics without a thermostat.",
}
REFERENCE_COLUMNS = ["reference", "difference", "deviation_percent"]
MAX_NAMED_FLAGS = 6  # number of flagged values in the summary of the page
FLAG_NOTE = "Implausible values, and values that deviate from the reference by more than the tolerance."
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
        A row for each quantity: ``property``, ``structure``, ``quantity``, ``unit``; the values of the ``potential``
        and of the ``reference``, their ``difference``, ``deviation_percent`` and ``verdict`` (see
        `paretofit.validation.add_verdicts`).
    failures : DataFrame
        A row for each property that failed: ``property``, ``structure``, ``potential``, ``reason``.
    curves : dict of str to DataFrame
        Tables with data of figures, by name.
    potential, reference : str
        Names of the potential and of the reference; without a reference, its name is empty.
    notes : list of str
        Notes on changes to the input, such as dropped constraints, and on properties that are not computed.
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
        """Table, notes, failures, flagged values, answer and path of the page, as plain text."""
        table = self.table.drop(columns=["verdict", *([] if self.reference else REFERENCE_COLUMNS)])
        lines = [table.to_string(index=False, float_format=lambda value: f"{value:.5g}", na_rep="–")]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"failed: {line}" for line in self.failure_lines]
        lines += [f"{_format_value(row)}: {row.verdict}" for row in self.flagged.itertuples()]
        lines += [self.answer, f"page: {self.folder / 'validation.html'}"]
        if not self.reference:
            lines.append("next: paretofit validate ... --against REFERENCE, to compare with a calculator or a table")
        return "\n".join(lines)

    @property
    def flagged(self) -> pd.DataFrame:
        """Rows of `table` whose value is flagged: implausible, or too far from the reference."""
        return self.table[self.table["verdict"].str.startswith(validation.FLAG)]

    @property
    def answer(self) -> str:
        """Sentence with the numbers of flagged values, of values that agree with the reference, and of failures."""
        counts = [f"{len(self.flagged)} of {format_count(len(self.table), 'value')} flagged"]
        if self.reference:
            n_agreeing = int(self.table["verdict"].eq("agrees").sum())
            counts.append(f"{n_agreeing} agree with {self.reference}")
        counts.append(f"{format_count(len(self.failures), 'property', 'properties')} failed")
        return f"{self.potential}: {', '.join(counts)}"

    @property
    def failure_lines(self) -> list[str]:
        """Lines of text, one for each failure."""
        return [f"{row.property}, {row.structure}, {row.potential}: {row.reason}" for row in self.failures.itertuples()]


def write_validation(result: ValidationResult, settings: validation.ValidationSettings) -> None:
    """Write the tables, figures and pages of a validation to its folder; remove earlier tables that it lacks."""
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
        title=f"Validation of {result.potential}", opening=_format_opening(result), facts=_list_facts(result),
        sections=sections, failures=result.failure_lines,
    )  # fmt: skip
    write_text(folder / "validation.html", page)


def _plan_figures(curves: Mapping[str, pd.DataFrame]) -> Iterator[figures.FigurePlan]:
    """Yield the plans of the figures for which there are curves; each structure with phonons has its own figure."""
    for name, draw in FIGURES.items():
        if name in curves:
            yield figures.FigurePlan(name, partial(draw, curves[name]), partial(str, CAPTIONS[name]), is_wide=False)
    bands = curves.get("phonon_bands", pd.DataFrame({"structure": []}))
    for number, structure in enumerate(bands["structure"].unique(), start=1):
        tables = [curves[f"phonon_{part}"] for part in ("bands", "labels", "density")]
        caption = f"Phonons of {structure}: dispersion and density of states; imaginary frequencies are negative."
        yield figures.FigurePlan(
            "phonons" if number == 1 else f"phonons_{number}",
            partial(figures.plot_phonon_dispersion, *(table[table["structure"] == structure] for table in tables)),
            partial(str, caption),
        )


def _list_facts(result: ValidationResult) -> list[tuple[str, str]]:
    """List the questions and answers of the page: which values are flagged, and how large the deviations are."""
    reasons = result.flagged["verdict"].str.removeprefix(f"{validation.FLAG}: ")
    flags = [
        f"{_format_value(row)}: {reason}" for row, reason in zip(result.flagged.itertuples(), reasons, strict=True)
    ]
    remainder_text = f"; and {len(flags) - MAX_NAMED_FLAGS} more" if len(flags) > MAX_NAMED_FLAGS else ""
    text = "; ".join(flags[:MAX_NAMED_FLAGS]) + remainder_text if flags else "No value is implausible"
    facts = [("What is wrong?", f"{text}.")]
    deviations = result.table["deviation_percent"].abs().dropna()
    if len(deviations):
        worst_row = next(result.table.loc[[deviations.idxmax()]].itertuples())
        median_deviation, largest_deviation = format_number(deviations.median()), format_number(deviations.max())
        count = format_count(len(deviations), "value")
        answer = (
            f"The median deviation of {count} is {median_deviation} %, the largest {largest_deviation} % "
            f"({_format_value(worst_row)})."
        )
        facts.append((f"How close is it to {result.reference}?", answer))
    return facts


def _format_value(row: Any) -> str:
    """Format the value of a row with its structure and its unit, such as ``"B' of fcc Be = 15.7"``."""
    return f"{row.quantity} of {row.structure} = {format_number(row.potential)} {row.unit}".rstrip()


def _build_sections(result: ValidationResult, report_figures: Sequence[ReportFigure]) -> Iterator[PageSection]:
    """Yield a section with the flagged values, and one with the values and figures of each property."""
    empty_columns = [] if result.reference else REFERENCE_COLUMNS
    if len(result.flagged):
        table = result.flagged.drop(columns=empty_columns).reset_index(drop=True)
        yield PageSection("Flagged values", table, [], FLAG_NOTE)
    for name, title in TITLES.items():
        table = result.table[result.table["property"] == name].drop(columns=["property", *empty_columns])
        section_figures = [figure for figure in report_figures if _find_section(figure.name) == name]
        if len(table) or section_figures:
            yield PageSection(title.capitalize(), table.reset_index(drop=True), section_figures)


def _find_section(figure_name: str) -> str:
    """Return the property whose section contains a figure."""
    return "phonons" if figure_name == "vibrations" else figure_name.partition("_")[0]


def _format_opening(result: ValidationResult) -> str:
    """Format the answer and the notes as the first paragraph of the page."""
    notes = "".join(f" Note: {note}." for note in result.notes)
    return f"{result.answer}.{notes}"


def _format_markdown(result: ValidationResult, sections: Sequence[PageSection]) -> str:
    """Format the result as Markdown: opening, failures, and sections with links to the figures."""
    blocks = [f"# Validation of {result.potential}\n\n{_format_opening(result)}\n"]
    if len(result.failures):
        blocks.append("## Failures\n\n" + "".join(f"- {line}\n" for line in result.failure_lines))
    for section in sections:
        blocks.append(f"## {section.title}\n\n{section.markdown}")
        blocks += [f"![{figure.caption}](figures/{figure.name}.png)\n" for figure in section.figures
                  if not figure.missing_reason]  # fmt: skip
    return "\n".join(blocks)
