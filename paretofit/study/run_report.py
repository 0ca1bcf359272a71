"""The report of a run, from the files that its stages have left: written at its end, and again whenever asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from paretofit.core import InputError
from paretofit.dataset.quality import LevelErrors, compute_level_errors
from paretofit.report import Finding, write_report
from paretofit.report.figures import (
    assess_networks,
    build_label_noise_table,
    build_network_tables,
    collect_network_warnings,
    combine_models,
    describe_label_noise,
    plan_network_figures,
    plan_noise_figures,
)
from paretofit.report.page import (
    ExtraContent,
    ReportFigure,
    ReportTable,
    build_front_tables,
    build_level_tables,
    describe_budget,
    describe_level_errors,
    plan_level_figures,
)
from paretofit.report.tables import build_error_tables, build_model_table
from paretofit.study.analysis import (
    MD_FILE,
    NOISE_FILE,
    NOISE_POINTS_FILE,
    read_table_or_empty,
    select_paper_weights,
    write_csv,
)
from paretofit.study.run_folder import (
    FRONT_FILE,
    NETWORK_CALIBRATION_FILE,
    NETWORKS_FILE,
    RECORD_FILE,
    RESULTS_FILE,
    WEIGHT_KNEES_FILE,
    WEIGHT_PATH_FILE,
    check_digests,
    open_run_folder,
    read_record,
)
from paretofit.study.schema import load_study
from paretofit.study.study_front import find_study_front, substitute_loo_errors, tabulate_ridge_effect
from paretofit.sweep import SWEEP_COLUMNS, SWEEP_TEXT_COLUMNS

if TYPE_CHECKING:
    from paretofit.study.preparation import PreparedStudy

DESIGN_FILE, VALIDATION = "design.h5", "validation"
OPTIONAL_FILES = (
    DESIGN_FILE,
    MD_FILE,
    NOISE_FILE,
    NOISE_POINTS_FILE,
    WEIGHT_PATH_FILE,
    WEIGHT_KNEES_FILE,
    NETWORKS_FILE,
    NETWORK_CALIBRATION_FILE,
)  # a run that has written them needs them
STAGE_BY_FILE = {"study.yaml": "start", "dataset.h5": "start", "split.csv": "reduce", RESULTS_FILE: "sweep"}


@dataclass(frozen=True)
class RunReport:
    """A report that was written: where it is, the front in it, and its warnings."""

    path: Path
    front: pd.DataFrame
    warnings: list[str]


def rebuild_report(folder: Path | str) -> RunReport:
    """Write the report of a finished run again, from its files; nothing is fitted.

    Parameters
    ----------
    folder : path-like
        A run folder.

    Raises
    ------
    InputError
        If it is no run folder, or the run is not finished: says which stage is missing.
    """
    folder = Path(folder)
    record = check_finished(folder)
    from paretofit.study.preparation import prepare_study  # noqa: PLC0415  (which writes reports, too)

    study = load_study(folder / "study.yaml").model_copy(update={"dataset": folder / "dataset.h5"})
    prepared = prepare_study(study)
    with prepared.dataset, open_run_folder(folder, record["study"]):
        errors = compute_level_errors(
            prepared.dataset, list(prepared.grid.levels), reference_configuration=study.reference_configuration
        )
        return write_run_report(folder, prepared, errors, record["summary"], record["warnings"])


def write_run_report(
    folder: Path,
    prepared: PreparedStudy,
    errors: LevelErrors,
    summary: dict[str, str],
    warnings: list[str],
) -> RunReport:
    """Write front, figures, tables and page of a run from the tables that are in its folder."""
    results = _results(folder, prepared)
    warnings = list(warnings)
    shown = results if len(prepared.split.test) else substitute_loo_errors(results, warnings)
    n_train, levels = len(prepared.split.train), list(prepared.grid.levels)
    warnings += collect_network_warnings(read_table_or_empty(folder / NETWORKS_FILE))
    front = find_study_front(shown, n_train)
    write_csv(front, folder / FRONT_FILE)
    page_front, page_warnings = front, warnings
    extra: dict[str, pd.DataFrame] = {}
    if len(knees := read_table_or_empty(folder / WEIGHT_KNEES_FILE)):
        extra["Best weight ratios of the whole training set"] = knees
    if "ridge" in shown:
        first = str(prepared.grid.ridge[0])
        extra["What a ridge penalty changes"] = tabulate_ridge_effect(shown, front)
        page_warnings = [*warnings, f"Figures and findings are those of ridge = {first}; the table shows the others."]
        shown = shown[shown["ridge"].astype(str) == first]
        page_front = find_study_front(shown.drop(columns="ridge"), n_train)
    paths = read_table_or_empty(folder / WEIGHT_PATH_FILE)
    drawn = paths if len(paths) and n_train in prepared.grid.sizes else None
    report = write_report(
        folder, shown, page_front, levels, title=prepared.study.name, summary=summary, warnings=page_warnings,
        extra_tables=extra, path_table=drawn, study=_settings(folder, prepared),
        extra_content=_more(folder, prepared, shown, page_front, errors, drawn),
    )  # fmt: skip
    return RunReport(report, front, warnings)


def _results(folder: Path, prepared: PreparedStudy) -> pd.DataFrame:
    """The results table, whole."""
    n_fits = prepared.grid.count_fits()
    try:
        results = pd.read_csv(folder / RESULTS_FILE, dtype={"level": str, "ridge": str})
        whole = (
            len(results) == n_fits
            and set(SWEEP_COLUMNS) <= set(results)
            and not results[["level", "n_train", "w_force"]].isna().any(axis=None)
        )
        whole &= (folder / RESULTS_FILE).read_bytes().endswith(b"\n")
        whole &= all(is_numeric_dtype(results[name]) for name in SWEEP_COLUMNS if name not in SWEEP_TEXT_COLUMNS)
    except (ValueError, KeyError):  # pandas: a line with too many fields, an empty file
        whole = False
    if not whole:
        raise InputError(
            f"{folder / RESULTS_FILE} is damaged: it must have {n_fits} complete rows; run the same paretofit run again, "
            "which writes it from what is finished"
        )
    return results


def _more(
    folder: Path,
    prepared: PreparedStudy,
    results: pd.DataFrame,
    front: pd.DataFrame,
    errors: LevelErrors,
    paths: pd.DataFrame | None,
) -> ExtraContent:
    """What the report says of labels, noise, models and budgets."""
    levels, weights = list(prepared.grid.levels), select_paper_weights(prepared.grid.weights)
    noise, points = (read_table_or_empty(folder / name) for name in (NOISE_FILE, NOISE_POINTS_FILE))
    md = read_table_or_empty(folder / MD_FILE, ["twojmax", "md_us_per_atom_step", "spread", "atoms"])
    findings, plans, sheets = [], [], []
    if len(levels) > 1:
        findings.append(
            _measured("labels", "How far are the labels of the cheaper levels off?", describe_level_errors(errors))
        )
        plans, sheets = list(plan_level_figures(errors, levels)), list(build_level_tables(errors, levels))
    if len(noise):
        findings.append(_measured("noise", "How much of these errors do models ignore?", describe_label_noise(noise)))
        sheets.append(build_label_noise_table(noise))
    findings.append(_measured("budget", "Which level does a budget favour?", describe_budget(results, levels)))
    sheets += [
        *build_error_tables(results, levels, weights),
        build_model_table(results, levels, md),
        *build_front_tables(results, front, levels),
    ]
    later = list(plan_noise_figures(results, levels, paths, points, noise))
    networks = read_table_or_empty(folder / NETWORKS_FILE)
    if len(networks):
        together = combine_models(results, networks, levels)
        findings += [one for one in [assess_networks(together)] if one]
        sheets += build_network_tables(networks, read_table_or_empty(folder / NETWORK_CALIBRATION_FILE))
        plans += plan_network_figures(together, levels)
    table, pictures = _validation(folder / VALIDATION)
    sheets += [] if table is None else [table]
    return ExtraContent(findings, plans, sheets, later, pictures)


def _validation(folder: Path) -> tuple[ReportTable | None, list[ReportFigure]]:
    """What ``paretofit validate -o RUN/validation`` has left in the run folder, if anything."""
    table = read_table_or_empty(folder / "validation.csv")
    if table.empty:
        return None, []
    note = "A potential checked on physics by paretofit validate; what failed is in validation/failures.csv."
    pictures = [
        ReportFigure(
            f"validation_{one.stem}",
            f"Validation: {one.stem.replace('_', ' ')}.",
            one.read_bytes(),
            location=f"{VALIDATION}/figures/{one.stem}",
        )
        for one in sorted((folder / "figures").glob("*.svg"))
    ]
    return ReportTable("Validation on physics", note, "validation", table), pictures


def _measured(name: str, question: str, answer: str) -> Finding:
    return Finding(name, question, "measured", answer, "")


def _settings(folder: Path, prepared: PreparedStudy) -> dict[str, Any]:
    """The study with the dataset that it names, not the copy in the run folder."""
    settings: dict[str, Any] = json.loads(prepared.study.model_dump_json(by_alias=True))
    return {**settings, "dataset": str(load_study(folder / "study.yaml").dataset)}


def check_finished(folder: Path) -> dict[str, Any]:
    """What a finished run says about itself.

    Raises
    ------
    InputError
        If it is no run folder, or the run is not finished: says which stage is missing.
    """
    if not (folder / RECORD_FILE).exists():
        raise InputError(f"{folder} is no run folder: it has no {RECORD_FILE}; name one that paretofit run has made")
    for name, stage in STAGE_BY_FILE.items():
        if not (folder / name).exists():
            raise InputError(
                f"{folder} is not finished: the stage '{stage}' is missing (no {name}); run the same paretofit run "
                "again, it goes on where it stopped"
            )
    record = read_record(folder)
    for name in record.get("files", ()):
        if not (folder / name).exists():
            stage = "describe" if name == DESIGN_FILE else "analyse"
            raise InputError(
                f"{folder} is not complete: {name} is missing, of the stage '{stage}'; run the same paretofit run again"
            )
    if "summary" not in record:
        raise InputError(
            f"{folder} is not finished: the stage 'report' is missing ({RECORD_FILE} has no summary); run the same "
            "paretofit run again, it goes on where it stopped"
        )
    check_digests(folder, record)
    return record
