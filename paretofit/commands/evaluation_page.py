"""HTML page of an evaluation: errors with their intervals, the worst configurations, figures, and tables."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from paretofit import potentials
from paretofit.commands.evaluation_result import (
    PAGE_FILE,
    VIEW_FILE,
    Evaluation,
    estimate_rmse,
    list_worst,
    select_worst,
)
from paretofit.core import write_text
from paretofit.report import capitalise_sentence, format_count, format_number, join_items
from paretofit.report.page import PageSection, ReportFigure, StructureView, render_sections, select_view

N_LISTED = 5  # number of worst configurations in the table, for each quantity
BOOTSTRAP_SEED = 1  # fixed, so that the same evaluation always has the same intervals
TRAINING_NOTE = " All of these configurations were used in training, so that the errors on others may be larger."
ERROR_TITLES = {
    f"{name}_error": f"{name} ({potentials.DISPLAY_UNITS[kind][1]})" for name, kind in potentials.KINDS.items()
}
COLUMN_TITLES = {"config_type": "kind", "n_atoms": "atoms", "extrapolation_grade": "extrapolation grade"}
RANKED = {  # title of a column of the map: what its largest values are
    "energy error (meV/atom)": "largest energy errors",
    "force error (meV/Å)": "largest force errors",
    "stress error (GPa)": "largest stress errors",
    "label error, energy (meV/atom)": "largest label errors of the energy",
    "label error, force (meV/Å)": "largest label errors of the forces",
    "extrapolation grade": "largest extrapolation grades",
    "leverage": "largest leverages",
}


def build_view(table: pd.DataFrame, structures: Sequence[object], label_errors: pd.DataFrame) -> StructureView | None:
    """Select the configurations with the largest errors, label errors, grades and leverages for an interactive map.

    Parameters
    ----------
    table : DataFrame
        Table of the evaluation.
    structures : sequence of ase.Atoms
        Structures in the order of the table.
    label_errors : DataFrame
        ``energy_error`` (meV/atom) and ``force_rmsd`` (meV/Å) of the labels against the reference level, by
        configuration id; empty if they are not known.

    Returns
    -------
    StructureView or None
        As `paretofit.report.page.select_view`; None without errors, grades and leverages, or for fewer than three
        configurations.
    """
    titles = COLUMN_TITLES | {name: title.replace(" (", " error (") for name, title in ERROR_TITLES.items()}
    shown_columns = ["id", "config_type", "n_atoms", "set", *(f"{name}_error" for name in potentials.KINDS)]
    shown_columns += [name for name in ("leverage", "extrapolation_grade") if name in table]
    shown_table = table[shown_columns].rename(columns=titles)
    if len(label_errors):
        aligned_errors = label_errors.reindex(table["id"])
        shown_table["label error, energy (meV/atom)"] = aligned_errors["energy_error"].to_numpy()
        shown_table["label error, force (meV/Å)"] = aligned_errors["force_rmsd"].to_numpy()
    shown_table["energy error (meV/atom)"] = shown_table["energy error (meV/atom)"].abs()
    return select_view("Structures of the evaluation", structures, shown_table, RANKED)  # type: ignore[arg-type]


def write_evaluation_page(evaluation: Evaluation, folder: Path, report_figures: Sequence[ReportFigure]) -> None:
    """Write ``evaluation.html`` and, if chemiscope is installed, the map ``structures.html`` to a folder."""
    has_view = evaluation.view is not None and evaluation.view.write(folder / VIEW_FILE)
    labels_text = f", labels: {evaluation.level}" if evaluation.level else ", without labels"
    page = render_sections(
        title="Evaluation of a potential",
        opening=f"{format_count(len(evaluation.table), 'configuration')}{labels_text}.",
        facts=list(_list_facts(evaluation)),
        links=[(VIEW_FILE, "Look at these structures on a map")] if has_view else [],
        sections=list(_build_sections(evaluation, report_figures)),
        failures=[],
        closing="Complete tables: evaluation.csv and summary.csv. Predictions for each atom: evaluation.extxyz.",
    )
    write_text(folder / PAGE_FILE, page)


def _list_facts(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    """Yield the questions and answers at the top of the page; errors are those outside the training set, if any."""
    table = evaluation.table
    is_unseen = table["set"] != "train"
    rows, note = (table[is_unseen], "") if is_unseen.any() else (table, TRAINING_NOTE)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    texts = []
    for quantity, kind in potentials.KINDS.items():
        rmse, low, high = estimate_rmse(rows, quantity, rng)
        if np.isfinite(rmse):
            unit = potentials.DISPLAY_UNITS[kind][1]
            texts.append(f"{quantity} {format_number(rmse)} {unit} ({format_number(low)} to {format_number(high)})")
    if texts:
        names = join_items(sorted(set(rows["set"])))
        count = format_count(len(rows), "configuration")
        yield "How large are its errors?", f"Root mean square on {count} ({names}): {'; '.join(texts)}.{note}"
    yield "How sure is that?", _describe_confidence(evaluation, has_errors=bool(texts))
    if worst_rows := list_worst(table):
        yield "Which configurations are worst?", " ".join(map(capitalise_sentence, worst_rows))


def _describe_confidence(evaluation: Evaluation, *, has_errors: bool) -> str:
    """Describe the intervals of the errors, and how often the intervals of the predictions contain the labels.

    The labels are those of new configurations or, if there are none, of the held-out set.
    """
    text = "Ranges are 90 % intervals of a bootstrap over these configurations. " if has_errors else ""
    coverage_columns = [name for name in evaluation.summary if str(name).endswith("_inside")]
    unseen_rows = evaluation.summary[(evaluation.summary["set"] != "train") & evaluation.summary["verdict"].eq("")]
    shares = [
        f"{100 * unseen_rows[name].iloc[0]:.0f} % of the {str(name).removesuffix('_inside')} labels"
        for name in coverage_columns if len(unseen_rows) and np.isfinite(unseen_rows[name].iloc[0])
    ]  # fmt: skip
    if shares:
        return (
            f"{text}The committee's intervals contain {join_items(shares)}, and should contain "
            f"{evaluation.coverage:.0%}."
        )
    return f"{text}Single predictions have no intervals; a committee that is calibrated (--committee) gives them."


def _build_sections(evaluation: Evaluation, report_figures: Sequence[ReportFigure]) -> Iterator[PageSection]:
    """Yield the sections of the page: worst configurations, figures, and the tables."""
    worst_rows = select_worst(evaluation.table, N_LISTED)
    if len(worst_rows):
        note = "Check their labels first: an error far above the median is often an error of the label."
        yield PageSection("Worst configurations", worst_rows.rename(columns=COLUMN_TITLES | ERROR_TITLES), [], note)
    yield PageSection("Pictures", pd.DataFrame(), [figure for figure in report_figures if figure.image])
    summary = evaluation.summary.dropna(axis="columns", how="all")
    yield PageSection("Errors by set and grade", summary, [], "meV/atom, meV/Å and GPa.", is_folded=True)
    if len(evaluation.thresholds):
        yield PageSection("Configurations above the tolerances", evaluation.thresholds, [], is_folded=True)
