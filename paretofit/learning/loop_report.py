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
from paretofit.learning.selection import PROPERTIES
from paretofit.report import figures
from paretofit.report.figures import FigurePlan, render_figure
from paretofit.report.page import PageSection, render_sections
from paretofit.structures import list_elements, make_mean_descriptor
from paretofit.uncertainty import map_detection_scores

N_MAP_LIMITS = 30  # number of thresholds along each axis of the map of detection rates
QUANTITY_NAMES = {"energy": "energy", "forces": "force", "stress": "stress"}
GPA_PER_MEV_A3 = 0.1602176634


def write_learn_report(folder: LearnFolder, iterations: pd.DataFrame, stop_reason: str) -> Path:
    """Draw the figures and write ``report.html``.

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
    """
    report_figures = {
        plan.name: render_figure(plan, folder.path / "figures") for plan in _plan_figures(folder, iterations)
    }
    failures = [
        f"label of {key}: {reason}"
        for _, record in folder.read_records("label")
        for key, reason in record.get("failed", {}).items()
    ]
    failures += [
        f"iteration {k}: {event}" for k, record in folder.read_records("train") for event in record.get("events", [])
    ]
    calibrations = _tabulate_calibrations(folder).rename(columns={"of": "iteration"}).fillna(np.nan)
    sections: tuple[tuple[str, pd.DataFrame, list[str]], ...] = (
        ("Iterations", _format_iterations(iterations), ["errors"]),
        ("The last committee", _tabulate_members(folder), ["parity"]),
        ("Disagreement and error", calibrations, ["disagreement", "detection"]),
        ("Map of the structures", _tabulate_verdicts(iterations), ["map"]),
        ("Trajectories that ended early", count_early_stops(folder), []),
    )
    page = render_sections(
        title="Active learning",
        opening=_format_opening(folder, iterations, stop_reason),
        sections=[
            PageSection(title, table, [report_figures[name] for name in names]) for title, table, names in sections
        ],
        failures=failures,
        closing="Complete tables: iterations.csv, and errors.csv and frames.csv of each iteration. Labels: dataset.h5.",
    )
    path = folder.path / "report.html"
    write_text(path, page)
    return path


def _plan_figures(folder: LearnFolder, iterations: pd.DataFrame) -> Iterator[FigurePlan]:
    """Plan the figures of all iterations with a committee."""
    iteration_numbers = [k for k, _ in folder.read_records("train")]
    for k in iteration_numbers:
        folder.iteration(k).check_files("train", ".csv")
    errors = {k: pd.read_csv(folder.iteration(k).path / "errors.csv") for k in iteration_numbers}
    last_errors = errors[max(iteration_numbers)]
    components = pd.read_csv(folder.iteration(max(iteration_numbers)).path / "components.csv")
    all_errors = pd.concat([table.assign(of=k) for k, table in errors.items()])
    trained_iterations = iterations[iterations["iteration"].isin(iteration_numbers)]
    plots: dict[str, tuple[Any, str]] = {
        "errors": (
            partial(figures.plot_errors_over_iterations, trained_iterations),
            "Errors of the potential by iteration. Bars: standard deviation of the errors of its members.",
        ),
        "parity": (
            partial(figures.plot_parity, last_errors, components),
            "Predictions of the last committee against labels, with histograms of the errors.",
        ),
        "disagreement": (
            partial(figures.plot_disagreement_by_iteration, all_errors, _tabulate_calibrations(folder)),
            "Disagreement against error on the validation and test sets. Line: last calibration.",
        ),
        "detection": (
            partial(_plot_detection_map, last_errors),
            "True-positive rate and positive predictive value of the last committee as functions of both thresholds.",
        ),
        "map": (
            partial(_plot_structure_map, folder),
            "t-SNE of mean descriptors of all labelled configurations, by the iteration that added them.",
        ),
    }
    for name, (draw, caption) in plots.items():
        yield FigurePlan(name, draw, partial(str, caption), wide=name != "map")


def _tabulate_calibrations(folder: LearnFolder) -> pd.DataFrame:
    rows = [
        {"of": k, "property": name, **curve}
        for k, record in folder.read_records("select")
        for name, curve in record.get("calibration", {}).items()
    ]
    columns = ["of", "property", "slope", "confidence", "threshold", "true_positive_rate", "positive_predictive_value"]
    return pd.DataFrame(rows, columns=columns)


def _plot_detection_map(errors: pd.DataFrame) -> np.ndarray:
    """Draw the maps of detection rates of the validation and test sets."""
    held_out, rows = errors[errors["set"] != "train"], []
    for name, quantity in QUANTITY_NAMES.items():
        columns = [f"{name}_std", f"{name}_committee_error"]
        spread, error = held_out[columns[0]], held_out[columns[1]]
        points = held_out[error.gt(figures.MIN_RELATIVE_ERROR * error.median()) & spread.gt(0)]
        if len(points) < figures.MIN_MAP_POINTS:
            continue
        factor = GPA_PER_MEV_A3 if name == "stress" else 1.0  # the figure has stresses in GPa
        values = [factor * points[column].to_numpy() for column in columns]
        limits = [np.geomspace(array.min(), array.max(), N_MAP_LIMITS) for array in values]
        rates = map_detection_scores(*values, *limits)
        rows += [
            [quantity, limits[0][i], limits[1][j], rates[0][i, j], rates[1][i, j]]
            for i, j in np.ndindex(rates[0].shape)
        ]
    columns = ["quantity", "spread_limit", "error_limit", "true_positive_rate", "positive_predictive_value"]
    return figures.plot_detection(pd.DataFrame(rows, columns=columns))


def _plot_structure_map(folder: LearnFolder) -> Axes:
    with Dataset(folder.dataset) as data:
        structures = list(data)
        iteration = np.array([int(info.get("iteration", 1)) for info in data.info_records])
    table = figures.tabulate_candidates(structures, make_mean_descriptor(list_elements(structures)))
    return figures.plot_map_by_iteration(figures.embed_by_tsne(table), iteration, "t-SNE")


def _format_iterations(iterations: pd.DataFrame) -> pd.DataFrame:
    titles = {name: name for name in ("iteration", "n_train", "n_validate", "n_test", "labels", "failed", "level")}
    titles |= {f"n_{name}": name for name in ("train", "validate", "test")} | {"label_seconds": "label cost (s)"}
    for name in PROPERTIES:
        titles |= {
            f"{set_name}_{name}": f"{name}, {set_name} ({figures.UNITS[name]})" for set_name in ("train", "test")
        }
    titles |= {name: name for name in ("frames", "selected", "ended")}
    table = iterations[[name for name in titles if name in iterations]].rename(columns=titles)
    return table.astype({"level": str}) if "level" in table else table


def count_early_stops(folder: LearnFolder) -> pd.DataFrame:
    """Count the reasons for early ends of trajectories by iteration; numbers in a reason are replaced by "…"."""
    counts = Counter(
        (k, re.sub(r"\d[\d.e+-]*", "…", event.split(": ", 1)[1]))
        for k, record in folder.read_records("explore")
        for event in record.get("events", [])
    )
    rows = [[k, reason, count] for (k, reason), count in counts.items()]
    return pd.DataFrame(rows, columns=["iteration", "reason", "trajectories"])


def _tabulate_members(folder: LearnFolder) -> pd.DataFrame:
    """Tabulate the training of the members in each iteration; empty for models without training records."""
    rows = [{"iteration": k, **row} for k, record in folder.read_records("train") for row in record.get("members", [])]
    titles = {"energy": "energy, validate (meV/atom)", "forces": "forces, validate (meV/Å)"}
    table = pd.DataFrame(rows).rename(columns=titles).drop(columns="seed", errors="ignore")
    for name in table.columns.intersection(["stage_two", "stopped_early", "warm_start"]):
        table[name] = table[name].map({True: "yes", False: "no"})
    return table


def _tabulate_verdicts(iterations: pd.DataFrame) -> pd.DataFrame:
    columns = ["iteration", "frames", "ended_early", "confident", "broken", "duplicate", "not_drawn", "chosen"]
    return iterations[[name for name in columns if name in iterations]]


def _format_opening(folder: LearnFolder, iterations: pd.DataFrame, stop_reason: str) -> str:
    labels, seconds = iterations["labels"].sum(), iterations["label_seconds"].sum()
    models = [record["model"] for _, record in folder.read_records("train")]
    model = f"Model: {models[-1]}. " if models else ""
    counts = f"{len(iterations)} iterations, {labels:.0f} labels, {seconds:.3g} CPU seconds for labels"
    return f"{model}{counts}. The loop ended: {stop_reason}."
