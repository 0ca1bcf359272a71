"""The report of an active-learning loop: iterations, errors, calibration, where the structures lie, what went wrong."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from paretofit.core import write_text
from paretofit.dataset import Dataset
from paretofit.learning.selection import PROPERTIES
from paretofit.report.figures import (
    MIN_MAP_POINTS,
    MIN_RELATIVE_ERROR,
    UNITS,
    FigurePlan,
    embed_by_tsne,
    plot_detection,
    plot_disagreement_by_iteration,
    plot_errors_over_iterations,
    plot_map_by_iteration,
    plot_parity,
    render_figure,
    tabulate_candidates,
)
from paretofit.report.page import PageSection, render_sections
from paretofit.structures import make_mean_descriptor
from paretofit.uncertainty import detection_map

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.axes import Axes

    from paretofit.learning.loop_folder import LearnFolder

LIMITS = 30  # thresholds along each axis of the map of detection rates
QUANTITY = {"energy": "energy", "forces": "force", "stress": "stress"}
GPA = 0.1602176634  # GPa for meV/Å³


def write_learn_report(folder: LearnFolder, iterations: pd.DataFrame, stop_reason: str) -> Path:
    """Draw the figures and write ``report.html``.

    Parameters
    ----------
    folder : LearnFolder
    iterations : DataFrame
        As ``iterations.csv``.
    stop_reason : str
        Why the loop ended.

    Returns
    -------
    Path
        Of the page.
    """
    pictures = [render_figure(plan, folder.path / "figures") for plan in _plans(folder, iterations)]
    named = {one.name: one for one in pictures}
    failed = [f"label of {key}: {why}" for k in folder.list_iterations()
              for key, why in (folder.iteration(k).read_record("label") or {}).get("failed", {}).items()]  # fmt: skip
    failed += [f"iteration {k}: {event}" for k in folder.list_iterations()
               for event in (folder.iteration(k).read_record("train") or {}).get("events", [])]  # fmt: skip
    page = render_sections(
        title="Active learning",
        opening=_opening(folder, iterations, stop_reason),
        sections=[
            PageSection("Iterations", _shown(iterations), [named["errors"]]),
            PageSection("The last committee", _members(folder), [named["parity"]]),
            PageSection(
                "Disagreement and error", _calibration_shown(folder), [named["disagreement"], named["detection"]]
            ),
            PageSection("Where the structures lie", _verdicts(iterations), [named["map"]]),
            PageSection("Trajectories that ended early", count_early_stops(folder), []),
        ],
        failures=failed,
        closing="In full: iterations.csv, and errors.csv and frames.csv of each iteration; all labels: dataset.h5.",
    )
    path = folder.path / "report.html"
    write_text(path, page)
    return path


def _plans(folder: LearnFolder, iterations: pd.DataFrame) -> Iterator[FigurePlan]:
    trained = [k for k in folder.list_iterations() if folder.iteration(k).read_record("train")]
    for k in trained:
        folder.iteration(k).check_files("train", ".csv")
    last = folder.iteration(max(trained)).path
    table, components = pd.read_csv(last / "errors.csv"), pd.read_csv(last / "components.csv")
    every = pd.concat([pd.read_csv(folder.iteration(k).path / "errors.csv").assign(of=k) for k in trained])
    yield FigurePlan(
        "errors",
        partial(plot_errors_over_iterations, iterations[iterations["iteration"].isin(trained)]),
        partial(str, "Errors of the potential by iteration; bars: standard deviation of the errors of its members."),
    )
    yield FigurePlan(
        "parity",
        partial(plot_parity, table, components),
        partial(str, "Predictions of the last committee against labels, with histograms of the errors."),
    )
    yield FigurePlan(
        "disagreement",
        partial(plot_disagreement_by_iteration, every, _calibrations(folder)),
        partial(str, "Disagreement against error of what did not train; line: the last calibration."),
    )
    yield FigurePlan(
        "detection",
        partial(_detection, table),
        partial(str, "True-positive rate and positive predictive value of the last committee by both thresholds."),
    )
    yield FigurePlan(
        "map",
        partial(_map, folder),
        partial(str, "t-SNE of mean descriptors of all labelled configurations, by the iteration that added them."),
        wide=False,
    )


def _calibrations(folder: LearnFolder) -> pd.DataFrame:
    rows = [
        {"of": k, "property": name, **line}
        for k in folder.list_iterations()
        for name, line in (folder.iteration(k).read_record("select") or {}).get("calibration", {}).items()
    ]
    columns = ["of", "property", "slope", "confidence", "threshold", "true_positive_rate", "positive_predictive_value"]
    return pd.DataFrame(rows, columns=columns)


def _calibration_shown(folder: LearnFolder) -> pd.DataFrame:
    return _calibrations(folder).rename(columns={"of": "iteration"}).fillna(np.nan)


def _detection(table: pd.DataFrame) -> np.ndarray:
    """The maps of detection rates of what did not train."""
    apart, rows = table[table["set"] != "train"], []
    for name in PROPERTIES:
        size = apart[f"{name}_committee_error"]
        known = apart[size.gt(MIN_RELATIVE_ERROR * size.median()) & apart[f"{name}_std"].gt(0)]
        if len(known) < MIN_MAP_POINTS:
            continue
        factor = GPA if name == "stress" else 1.0  # as in the other figures of evaluations
        spread, error = (factor * known[f"{name}_{one}"].to_numpy() for one in ("std", "committee_error"))
        limits = [np.geomspace(one.min(), one.max(), LIMITS) for one in (spread, error)]
        found = detection_map(spread, error, *limits)
        rows += [[QUANTITY[name], limits[0][i], limits[1][j], found[0][i, j], found[1][i, j]]
                 for i, j in np.ndindex(found[0].shape)]  # fmt: skip
    columns = ["quantity", "spread_limit", "error_limit", "true_positive_rate", "positive_predictive_value"]
    return plot_detection(pd.DataFrame(rows, columns=columns))


def _map(folder: LearnFolder) -> Axes:
    with Dataset(folder.dataset) as data:
        structures = list(data)
        iteration = np.array([int(one.get("iteration", 1)) for one in data.info_records])
    elements = sorted({symbol for atoms in structures for symbol in atoms.get_chemical_symbols()})
    table = tabulate_candidates(structures, make_mean_descriptor(elements))
    return plot_map_by_iteration(embed_by_tsne(table), iteration, "t-SNE")


def _shown(iterations: pd.DataFrame) -> pd.DataFrame:
    errors = [f"{name}_{one}" for one in PROPERTIES for name in ("train", "test")]
    wanted = ["iteration", "n_train", "n_validate", "n_test", "labels", "failed", "level", "label_seconds"]
    wanted += [*errors, "frames", "selected", "ended"]
    names = {f"n_{one}": one for one in ("train", "validate", "test")}  # counts, by set
    names |= {f"{name}_{one}": f"{one}, {name} ({UNITS[one]})" for one in PROPERTIES for name in ("train", "test")}
    names |= {"label_seconds": "label cost (s)"}
    shown = iterations[[one for one in wanted if one in iterations]].rename(columns=names)
    return shown.astype({"level": str}) if "level" in shown else shown


def count_early_stops(folder: LearnFolder) -> pd.DataFrame:
    """Why trajectories were stopped, counted."""
    counts: Counter[tuple[int, str]] = Counter()
    for k in folder.list_iterations():
        for event in (folder.iteration(k).read_record("explore") or {}).get("events", []):
            counts[k, re.sub(r"\d[\d.e+-]*", "…", event.split(": ", 1)[1])] += 1
    return pd.DataFrame(
        [[k, why, n] for (k, why), n in counts.items()], columns=["iteration", "reason", "trajectories"]
    )


def _members(folder: LearnFolder) -> pd.DataFrame:
    """How the members of each iteration were trained, where there is something to say: networks."""
    rows = [
        {"iteration": k, **one}
        for k in folder.list_iterations()
        for one in (folder.iteration(k).read_record("train") or {}).get("members", [])
    ]
    names = {"energy": "energy, validate (meV/atom)", "forces": "forces, validate (meV/Å)"}
    table = pd.DataFrame(rows).rename(columns=names).drop(columns="seed", errors="ignore")
    for name in ("stage_two", "stopped_early", "warm_start"):
        if name in table:
            table[name] = table[name].map({True: "yes", False: "no"})
    return table


def _verdicts(iterations: pd.DataFrame) -> pd.DataFrame:
    wanted = ["iteration", "frames", "ended_early", "confident", "broken", "duplicate", "not_drawn", "chosen"]
    return iterations[[one for one in wanted if one in iterations]]


def _opening(folder: LearnFolder, iterations: pd.DataFrame, reason: str) -> str:
    labels, seconds = iterations["labels"].sum(), iterations["label_seconds"].sum()
    trained = [one["model"] for k in folder.list_iterations() if (one := folder.iteration(k).read_record("train"))]
    model = f"Model: {trained[-1]}. " if trained else ""
    return (
        f"{model}{len(iterations)} iterations, {labels:.0f} labels, {seconds:.3g} s of CPU for them. Ended: {reason}."
    )
