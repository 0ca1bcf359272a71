"""Report of an active-learning loop: iterations, errors, calibration, map of the structures, and failures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from paretofit.core import write_text
from paretofit.dataset import Dataset
from paretofit.learning.loop_folder import LearnFolder
from paretofit.learning.loop_summary import build_facts, read_last_errors, tabulate_errors_by_kind
from paretofit.learning.selection import BOUND_COVERAGE, NEW_BATCH, PROPERTIES, UNITS
from paretofit.report import figures
from paretofit.report.figures import CLOSE_RATIO, FigurePlan, render_figure
from paretofit.report.page import PAGE_DPI, PageSection, ReportFigure, render_sections
from paretofit.structures import build_mean_descriptor_function, list_elements
from paretofit.uncertainty import map_detection_scores

N_MAP_LIMITS = 30  # number of thresholds along each axis of a map of detection rates
DISAGREEMENT_CAPTION = (
    "Disagreement against error of configurations that the committee was not trained on: validation and test sets, and "
    "the training set by cross-validation. Line: last calibration."
)
REPORT_FILE = "report.html"
SET_TITLES = {"first_test": "first test set", "train": "training set", "test": "growing test set"}
QUANTITY_NAMES = {"energy": "energy", "forces": "force", "stress": "stress"}


def write_learn_report(folder: LearnFolder, iterations: pd.DataFrame, stop_reason: str) -> Path:
    """Draw the figures into the folder ``figures``, and write ``report.html``.

    At least one iteration must have trained a committee.

    Parameters
    ----------
    folder : LearnFolder
    iterations : DataFrame
        Table of ``iterations.csv``.
    stop_reason : str
        Reason why the loop ended.

    Returns
    -------
    Path
        Path of ``report.html``.

    Raises
    ------
    InputError
        If a record is corrupt, or a table that a training has written has changed.
    """
    report_figures = {
        plan.name: render_figure(plan, folder.path / "figures", ("png",), PAGE_DPI)
        for plan in _plan_figures(folder, iterations)
    }
    failures = [
        f"label of {key}: {reason}"
        for _, record in folder.read_records("label")
        for key, reason in record.get("failed", {}).items()
    ]
    failures += [
        f"iteration {number}: {event}"
        for number, record in folder.read_records("train")
        for event in record.get("events", [])
    ]
    failures += [
        f"iteration {number}: {record['warning']}"
        for number, record in folder.read_records("explore")
        if record.get("warning")
    ]
    errors = read_last_errors(folder)
    page = render_sections(
        title="Active learning",
        opening=_format_opening(folder, iterations, stop_reason),
        facts=build_facts(folder, iterations),
        sections=list(_build_sections(folder, iterations, errors, report_figures)),
        failures=failures,
        closing="Complete tables: iterations.csv, and errors.csv, calibration.csv, batch_errors.csv and frames.csv of "
        "each iteration. Labels: dataset.h5.",
    )
    path = folder.path / REPORT_FILE
    write_text(path, page)
    return path


def _build_sections(
    folder: LearnFolder, iterations: pd.DataFrame, errors: pd.DataFrame, report_figures: dict[str, ReportFigure]
) -> Iterator[PageSection]:
    """Yield the sections of the page: first those that answer questions of users, then folded sections with details.

    `errors` is the table of ``errors.csv`` of the last committee.
    """
    calibrations = _tabulate_calibrations(folder).fillna(np.nan)  # None, of curves without a slope, becomes NaN
    yield PageSection(
        "Errors by iteration", pd.DataFrame(), [report_figures["errors"]],
        "Read progress on the first test set only: it stays the same. The validation set and the growing test set "
        "receive frames of the dynamics in each iteration, which are harder than the earlier ones, so that errors on "
        "them may rise while the potential improves. Errors on the first test set have the weights of the training, in "
        "which structures far above equilibrium count less. The potential is the mean of the members of the "
        "committee, whose own errors are shown beside it.",
    )  # fmt: skip
    yield PageSection(
        "Errors by kind of structure", _format_kinds(tabulate_errors_by_kind(errors)), [],
        "Root mean square errors of the last committee on configurations outside its training set.",
    )  # fmt: skip
    yield PageSection(
        "Predicted and true errors of new frames", _tabulate_batches(folder), [report_figures["batch"]],
        "Errors of the committee that chose the frames, as it predicted them and as the labels showed later. The band "
        f"is a factor of {CLOSE_RATIO:g}; {100 * BOUND_COVERAGE:.0f} % of the errors should be below their bound.",
    )  # fmt: skip
    folded_sections: tuple[tuple[str, pd.DataFrame, list[str]], ...] = (
        ("Iterations in numbers", _format_iterations(iterations), []),
        ("The last committee", _tabulate_members(folder), ["parity"]),
        ("Calibration of the disagreement", calibrations, ["disagreement", "detection"]),
        ("Map of the structures", _tabulate_verdicts(iterations), ["map"]),
        ("Trajectories that ended early", count_early_stops(folder), []),
    )
    for title, table, figure_names in folded_sections:
        yield PageSection(title, table, [report_figures[name] for name in figure_names], is_folded=True)


def _read_tables(folder: LearnFolder, name: str) -> pd.DataFrame:
    """Join the tables in the files `name` of all iterations with a committee; iterations without the file are omitted.

    The column ``of`` is the iteration of the file; it replaces a column of this name in the file.
    """
    paths = {number: folder.get_iteration(number).path / name for number, _ in folder.read_records("train")}
    tables = [pd.read_csv(path).assign(of=number) for number, path in paths.items() if path.is_file()]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _plan_figures(folder: LearnFolder, iterations: pd.DataFrame) -> Iterator[FigurePlan]:
    """Check that the tables of all iterations with a committee are unchanged; yield the plans of the figures."""
    iteration_numbers = [number for number, _ in folder.read_records("train")]
    for number in iteration_numbers:
        folder.get_iteration(number).check_files("train", ".csv")
    errors = read_last_errors(folder)
    components = pd.read_csv(folder.get_iteration(max(iteration_numbers)).path / "components.csv")
    points = _read_tables(folder, "calibration.csv")
    # the figure "batch" shows the new batches; an empty table has no columns
    points = points[points["source"] != NEW_BATCH] if len(points) else points
    last_points = points[points["of"] == max(iteration_numbers)] if len(points) else points
    trained_iterations = iterations[iterations["iteration"].isin(iteration_numbers)]
    plots: dict[str, tuple[Any, str]] = {
        "errors": (
            partial(figures.plot_errors_over_iterations, trained_iterations),
            "Errors of the potential by iteration. Hollow symbols: mean and standard deviation of the members' errors.",
        ),
        "batch": (
            partial(figures.plot_batch_errors, _read_tables(folder, "batch_errors.csv")),
            "True against predicted errors of newly labelled frames, by the iteration that labelled them.",
        ),
        "parity": (
            partial(figures.plot_parity, errors, components),
            "Predictions of the last committee against labels, with histograms of the errors.",
        ),
        "disagreement": (
            partial(figures.plot_disagreement_by_iteration, points, _tabulate_calibrations(folder)),
            DISAGREEMENT_CAPTION,
        ),
        "detection": (
            partial(_plot_detection_map, last_points),
            "True-positive rate and positive predictive value of the last committee as functions of both thresholds.",
        ),
        "map": (
            partial(_plot_structure_map, folder),
            "t-SNE of mean descriptors of all labelled configurations, by the iteration that added them.",
        ),
    }
    for name, (draw, caption) in plots.items():  # the caption of a plan is a function
        yield FigurePlan(name, draw, partial(str, caption), is_wide=name != "map")


def _tabulate_calibrations(folder: LearnFolder) -> pd.DataFrame:
    """Tabulate the calibration of each property in each iteration."""
    rows = [
        {"iteration": iteration, "property": name, **calibration}
        for iteration, record in folder.read_records("select")
        for name, calibration in record.get("calibration", {}).items()
    ]
    columns = ["iteration", "property", "points", "slope", "confidence", "bound_factor", "threshold",
               "true_positive_rate", "positive_predictive_value"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _tabulate_batches(folder: LearnFolder) -> pd.DataFrame:
    """Tabulate predicted against true errors of the frames labelled in each iteration."""
    rows = [
        {
            "iteration": number,
            "property": name,
            "labels": summary["labels"],
            "true / predicted, median": summary["ratio"],
            f"below the {100 * BOUND_COVERAGE:.0f} % bound (%)": 100 * summary["inside"],
        }
        for number, record in folder.read_records("train")
        for name, summary in record.get("batch", {}).items()
    ]
    return pd.DataFrame(rows)


def _format_kinds(table: pd.DataFrame) -> pd.DataFrame:
    """Rename the columns of `tabulate_errors_by_kind` for the page."""
    titles = {"trained": "training set", "held_out": "held out", "stress_labels": "held out with stress"}
    return table.rename(columns=titles | {name: f"{name} ({UNITS[name]})" for name in PROPERTIES})


def _plot_detection_map(points: pd.DataFrame) -> np.ndarray:
    """Draw the detection rates of calibration points as functions of both thresholds; return the array of axes.

    Properties with fewer than `MIN_MAP_POINTS` points are omitted.
    """
    rows = []
    for name, quantity in QUANTITY_NAMES.items():
        columns = [f"{name}_std", f"{name}_committee_error"]
        if not set(columns) <= set(points):
            continue
        all_disagreements, all_errors = (points[column] for column in columns)
        # errors that vanish by symmetry are not shown
        is_shown = all_errors.gt(figures.MIN_RELATIVE_ERROR * all_errors.median()) & all_disagreements.gt(0)
        if is_shown.sum() < figures.MIN_MAP_POINTS:
            continue
        disagreement, error = all_disagreements[is_shown].to_numpy(), all_errors[is_shown].to_numpy()
        disagreement_limits, error_limits = (
            np.geomspace(axis_values.min(), axis_values.max(), N_MAP_LIMITS) for axis_values in (disagreement, error)
        )
        true_positive_rates, predictive_values = map_detection_scores(
            disagreement, error, disagreement_limits, error_limits
        )
        rows += [
            [quantity, disagreement_limits[i], error_limits[j], true_positive_rates[i, j], predictive_values[i, j]]
            for i, j in np.ndindex(true_positive_rates.shape)
        ]
    columns = ["quantity", "spread_limit", "error_limit", "true_positive_rate", "positive_predictive_value"]
    return figures.plot_detection(pd.DataFrame(rows, columns=columns))


def _plot_structure_map(folder: LearnFolder) -> Axes:
    """Draw a t-SNE map of all labelled configurations, coloured by the iteration that added them."""
    with Dataset(folder.dataset_path) as dataset:
        structures = list(dataset)
        iteration_numbers = np.array([int(info.get("iteration", 1)) for info in dataset.info_records])
    table = figures.tabulate_candidates(structures, build_mean_descriptor_function(list_elements(structures)))
    return figures.plot_map_by_iteration(figures.embed_by_tsne(table), iteration_numbers, "t-SNE")


def _format_iterations(iterations: pd.DataFrame) -> pd.DataFrame:
    """Select, order and rename the columns of ``iterations.csv`` for the page."""
    titles = {
        "iteration": "iteration",
        "n_train": "training set",
        "n_validate": "validation set",
        "n_test": "growing test set",
        "labels": "labels",
        "failed": "failed",
        "level": "level",
        "label_seconds": "label cost (s)",
    }
    for name in PROPERTIES:
        titles |= {f"{set_name}_{name}": f"{name}, {title} ({UNITS[name]})" for set_name, title in SET_TITLES.items()}
    titles |= {"frames": "frames", "selected": "selected", "ended": "end of the loop"}
    table = iterations[[name for name in titles if name in iterations]].rename(columns=titles)
    # a level whose name is a number was read as a number
    return table.astype({"level": str}) if "level" in table else table


def count_early_stops(folder: LearnFolder) -> pd.DataFrame:
    """Count the reasons why trajectories ended early: columns ``iteration, reason, trajectories``.

    Numbers in a reason are replaced by "…", so that equal reasons are counted together.
    """
    counts = Counter(
        # an event is "trajectory NUMBER: REASON"
        (number, re.sub(r"\d[\d.e+-]*", "…", event.split(": ", 1)[1]))
        for number, record in folder.read_records("explore")
        for event in record.get("events", [])
    )
    rows = [[number, reason, count] for (number, reason), count in counts.items()]
    return pd.DataFrame(rows, columns=["iteration", "reason", "trajectories"])


def _tabulate_members(folder: LearnFolder) -> pd.DataFrame:
    """Tabulate the training of the members in each iteration, with their RMS errors on the validation set.

    The table is empty for models without training records.
    """
    rows = [
        {"iteration": number, **row}
        for number, record in folder.read_records("train")
        for row in record.get("members", [])
    ]
    titles = {"energy": "energy, validation set (meV/atom)", "forces": "forces, validation set (meV/Å)"}
    table = pd.DataFrame(rows).rename(columns=titles).drop(columns="seed", errors="ignore")
    for name in table.columns.intersection(["stage_two", "stopped_early", "warm_start"]):
        table[name] = table[name].map({True: "yes", False: "no"})
    return table


def _tabulate_verdicts(iterations: pd.DataFrame) -> pd.DataFrame:
    """Select the columns of ``iterations.csv`` that count trajectories and frames, as far as they exist."""
    columns = ["iteration", "frames", "ended_early", "confident", "unphysical", "duplicate", "not_drawn", "chosen"]
    return iterations[[name for name in columns if name in iterations]]


def _format_opening(folder: LearnFolder, iterations: pd.DataFrame, stop_reason: str) -> str:
    """Format the sentences at the top of the page: the last model, the cost, and the reason why the loop ended."""
    n_labels, seconds = iterations["labels"].sum(), iterations["label_seconds"].sum()
    models = [record["model"] for _, record in folder.read_records("train")]
    model = f"Model: {models[-1]}. " if models else ""
    counts = f"{len(iterations)} iterations, {n_labels:.0f} labels, {seconds:.3g} CPU seconds for labels"
    return f"{model}{counts}. The loop ended: {stop_reason}."
