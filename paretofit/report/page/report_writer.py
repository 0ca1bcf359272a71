"""`write_report`: everything that a results table gives, in one folder.

It puts the parts together and holds the captions; what is drawn and said is made elsewhere in this room.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from paretofit.core import InputError, remove, write_text
from paretofit.report.figures import front_figures
from paretofit.report.figures import sweep_figures as figures
from paretofit.report.figures.axes import OUTSIDE
from paretofit.report.figures.drawing import FigurePlan, draw_picture
from paretofit.report.findings.catalogue import all_findings
from paretofit.report.findings.finding import Finding
from paretofit.report.page.explorer import explorer_data
from paretofit.report.page.sweep_page import Picture, Sheet, render
from paretofit.report.tables import table_text as tables
from paretofit.report.tables.summaries import (
    FRONT_COLUMNS,
    at_largest_subset,
    check_columns,
    fronts_by_twojmax,
    medians,
    ordered_samplings,
    overall_front,
    prepared,
    subset_words,
)
from paretofit.report.wording import counted, duration_range, listed, named_levels, number, ratio_text


@dataclass(frozen=True)
class More:
    """What a study's report has beyond its results table.

    Attributes
    ----------
    findings, plans, sheets : sequences
        Come before those of the results.
    later_plans : sequence of FigurePlan
        Come after the figures of the results.
    pictures : sequence of Picture
        Drawn already; come last.
    """

    findings: Sequence[Finding] = ()
    plans: Sequence[FigurePlan] = ()
    sheets: Sequence[Sheet] = ()
    later_plans: Sequence[FigurePlan] = ()
    pictures: Sequence[Picture] = ()


def write_report(
    folder: Path | str,
    results: pd.DataFrame,
    front: pd.DataFrame,
    levels: Sequence[str],
    *,
    title: str,
    summary: Mapping[str, str],
    warnings: Sequence[str] = (),
    extra_tables: Mapping[str, pd.DataFrame] | None = None,
    paths: pd.DataFrame | None = None,
    study: Mapping[str, Any] | None = None,
    more: More | None = None,
) -> Path:
    """Write ``figures/*.png|svg``, ``tables/*.csv|md`` and ``report.html`` into a folder.

    A figure that the data cannot fill is left out, and the page says why.

    Parameters
    ----------
    folder : where to write; created if needed
    results : DataFrame, a row per fit, with the columns of ``results.csv`` (meV/atom, meV/Å, s)
    front : DataFrame, a row per point that is not dominated, with the columns `FRONT_COLUMNS`
    levels : names of the convergence levels by cost, the last is the reference
    title : heading of the page
    summary : how the results were computed, an entry per line of the page's last section
    warnings : sentences that the reader must see
    extra_tables : more tables for the page, by title
    paths : the continuous energy/force curves of the largest subset, drawn under the points of the figures
    study : settings as in the study's YAML file, so that the page can give the YAML of a single point
    more : findings, figures and tables that go beyond the results table

    Returns
    -------
    Path of ``report.html``, which is written last.

    Raises
    ------
    InputError
        A table lacks a column or has no rows, or `results` has a level that `levels` does not list.
    """
    folder, levels = Path(folder), [str(level) for level in levels]
    results = _checked(results, front, levels)
    front = front.assign(level=front["level"].astype(str))
    more = more or More()
    findings = [*more.findings, *all_findings(results, front, levels)]
    _write_numbers(folder / "tables", findings)
    text = render(
        title=title,
        opening=_opening(results, front, levels),
        findings=findings,
        pictures=[
            *(draw_picture(plan, folder / "figures") for plan in (*more.plans, *_plans(results, levels, paths, more))),
            *more.pictures,
        ],
        sheets=list(_sheets(results, front, levels, extra_tables or {}, more.sheets, folder / "tables")),
        summary=summary,
        warnings=warnings,
        explorer=explorer_data(medians(results, levels), levels, study),
    )
    write_text(folder / "report.html", text)
    return folder / "report.html"


def _write_numbers(folder: Path, findings: Sequence[Finding]) -> None:
    """The tables behind the findings; one that an earlier report left is removed where there is none now."""
    for finding in findings:
        name = f"finding_{finding.name}"
        if len(finding.numbers):
            tables.write_table(folder, name, finding.numbers)
        else:
            for kind in ("csv", "md"):
                remove(folder / f"{name}.{kind}")


def _checked(results: pd.DataFrame, front: pd.DataFrame, levels: Sequence[str]) -> pd.DataFrame:
    if not levels:
        raise InputError("levels must name at least one convergence level, got none")
    check_columns(front, FRONT_COLUMNS, "front")
    frame = prepared(results, levels)
    if frame.empty:
        raise InputError("the results table has no rows; a report needs at least one fit")
    return frame


def _opening(results: pd.DataFrame, front: pd.DataFrame, levels: Sequence[str]) -> str:
    """What was swept, and the best of it, in one paragraph."""
    ratios, sizes = results["weight_ratio"], results["n_train"]
    used = [level for level in levels if level in set(results["level"])]
    swept = (
        f"{counted(len(results), 'fit')}: convergence {named_levels(used)}, "
        f"2Jmax {listed(sorted(set(results['twojmax'])))}, w_E/w_F {_span(ratios.min(), ratios.max())}, "
        f"{_span(sizes.min(), sizes.max())} training configurations, "
        f"{listed(ordered_samplings(results))} sampling, up to "
        f"{counted(results['repeat'].nunique(), 'repetition')}."
    )
    points = overall_front(front)
    costs = points["label_seconds"]
    price = f"; its labels cost {duration_range(costs.min(), costs.max())}" if len(costs) else ""
    return (
        f"{swept} Errors are medians over repetitions of the RMSE on the test set; the reference is level "
        f"{levels[-1]}. {_lowest(medians(results, levels))}The front over all 2Jmax has "
        f"{counted(len(points), 'point')}{price}."
    )


def _lowest(table: pd.DataFrame) -> str:
    """The settings with the lowest median energy and force errors, as one sentence."""
    best = []
    for column, unit in (("ref_energy", "meV/atom"), ("ref_force", "meV/Å")):
        for _, row in table.dropna(subset=[column]).nsmallest(1, column).iterrows():
            best.append(
                f"{number(row[column])} {unit} (level {row['level']}, 2Jmax = {row['twojmax']}, "
                f"w_E/w_F = {ratio_text(row['weight_ratio'])}, {row['n_train']:,} configurations)"
            )
    return f"The lowest median errors are {listed(best)}. " if best else ""


def _span(low: float, high: float) -> str:
    return ratio_text(low) if low == high else f"{ratio_text(low)} to {ratio_text(high)}"


def _plans(
    results: pd.DataFrame, levels: Sequence[str], paths: pd.DataFrame | None, more: More
) -> Iterator[FigurePlan]:
    table = medians(results, levels)
    largest = at_largest_subset(table)
    fronts = fronts_by_twojmax(table)
    reference = levels[-1]
    curve = "" if paths is None or paths.empty else "The lines are fits at every ratio between. "

    def tradeoff_caption() -> str:
        return (
            "Energy against force RMSE on the test set for w_E/w_F "
            f"{_span(largest['weight_ratio'].min(), largest['weight_ratio'].max())}, trained on "
            f"{subset_words(largest)}. Solid, filled: against level {reference}; dotted, hollow: against the "
            f"level trained on. The ends of a line are the smallest and largest w_E/w_F. {curve}{OUTSIDE}"
        )

    def learning_caption() -> str:
        rows = figures.learning_rows(results, levels)
        return (
            "RMSE against the number of training configurations by sampling method, at level "
            f"{reference}, 2Jmax = {rows['twojmax'].iloc[0]} and w_E/w_F = "
            f"{ratio_text(rows['weight_ratio'].iloc[0])}: median and 10–90 % band over "
            f"{counted(rows['repeat'].nunique(), 'repetition')}; a band may leave the axes. This is the largest 2Jmax "
            f"of which most of these subsets determine all features. {OUTSIDE}"
        )

    yield FigurePlan(
        "energy_force", lambda: figures.energy_force_tradeoff(results, levels, paths=paths),
        lambda: f"The largest model, 2Jmax = {largest['twojmax'].max()}. {tradeoff_caption()}", wide=False,
    )  # fmt: skip
    yield FigurePlan(
        "energy_force_by_twojmax",
        lambda: _several(results, levels, paths),
        lambda: f"Every 2Jmax. {tradeoff_caption()}",
    )
    yield FigurePlan("learning_curves", lambda: figures.learning_curves(results, levels), learning_caption)
    yield FigurePlan(
        "front", lambda: front_figures.front_by_cost(fronts, levels),
        lambda: "The front in energy error, force error and DFT cost, for each 2Jmax on its own: test "
        f"errors against level {reference}, face colour by DFT cost of the training labels, shape and rim by "
        f"level. {OUTSIDE}",
    )  # fmt: skip
    yield FigurePlan(
        "error_against_cost", lambda: front_figures.error_against_cost(fronts, levels),
        lambda: "The same fronts as force RMSE against DFT cost of the training labels, face colour by "
        f"energy RMSE, shape and rim by level. {OUTSIDE}",
    )  # fmt: skip
    yield from more.later_plans


def _several(results: pd.DataFrame, levels: Sequence[str], paths: pd.DataFrame | None) -> np.ndarray:
    if results["twojmax"].nunique() < 2:
        raise figures.CannotDrawError("All fits have the same 2Jmax, which the figure before shows.")
    return figures.energy_force_by_twojmax(results, levels, paths=paths)


def _sheets(
    results: pd.DataFrame, front: pd.DataFrame, levels: Sequence[str],
    extra: Mapping[str, pd.DataFrame], first: Sequence[Sheet], folder: Path,
) -> Iterator[Sheet]:  # fmt: skip
    errors = tables.errors_by_level(results, levels)
    tables.write_table(folder, "errors", errors)
    top = errors["twojmax"].max()
    shown = errors[errors["twojmax"] == top]
    note = (
        f"Median RMSE at 2Jmax = {top}, trained on {listed(sorted(set(shown['n_train'])))} configurations; the "
        "other models are in the file."
    )
    yield Sheet("Errors by level and weight", note, "errors", shown.drop(columns=["twojmax", "n_train"]))
    points = Sheet("The front", "Click on a heading to sort.", "front", tables.front_table(front))
    costs = Sheet(
        "DFT cost of a level", "Median over subsets of their cost per configuration.", "costs",
        tables.costs_by_level(results, levels),
    )  # fmt: skip
    models = Sheet("Models", "Features of each 2Jmax.", "models", tables.models(results, levels))
    taken = {"errors", "front", "costs", "models", *(sheet.file for sheet in first)}
    for sheet in (*first, points, costs, models, *_extra_sheets(extra, taken)):
        if sheet is models and "models" in {one.file for one in first}:
            continue
        tables.write_table(folder, sheet.file, sheet.table)
        yield sheet


def _extra_sheets(extra: Mapping[str, pd.DataFrame], taken: set[str]) -> Iterator[Sheet]:
    for title, table in extra.items():
        name = re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_") or "table"
        while name in taken or name.startswith("finding_"):
            name = f"extra_{name}"
        taken.add(name)
        yield Sheet(title, "", name, table)
