"""The report of a run, from the files that its stages have left: written at its end, and again whenever asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from paretofit.core import InputError
from paretofit.dataset.quality import LevelErrors, level_errors
from paretofit.report import Finding, write_report
from paretofit.report.figures import (
    models_together,
    more_plans,
    network_finding,
    network_plans,
    network_sheets,
    network_warnings,
    noise_sheet,
    noise_words,
)
from paretofit.report.page import (
    More,
    Picture,
    Sheet,
    budget_words,
    front_sheets,
    level_plans,
    level_sheets,
    level_words,
)
from paretofit.report.tables import error_sheets, model_sheet
from paretofit.study.analysis import MD_FILE, NOISE_FILE, NOISE_POINTS_FILE, read_or_empty, two_weights, write_csv
from paretofit.study.run_folder import (
    CALIBRATION,
    FRONT,
    KNEES,
    NETWORKS,
    PATHS,
    RECORD,
    RESULTS,
    check_digests,
    read_record,
    run_folder,
)
from paretofit.study.schema import load_study
from paretofit.study.study_front import judged_by_leave_one_out, ridge_table, study_front
from paretofit.sweep import COLUMNS, WORDS

if TYPE_CHECKING:
    from paretofit.study.preparation import Prepared

DESIGN, VALIDATION = "design.h5", "validation"
KEPT = (
    DESIGN,
    MD_FILE,
    NOISE_FILE,
    NOISE_POINTS_FILE,
    PATHS,
    KNEES,
    NETWORKS,
    CALIBRATION,
)  # a run that has written them needs them
STAGES = {"study.yaml": "start", "dataset.h5": "start", "split.csv": "reduce", RESULTS: "sweep"}


@dataclass(frozen=True)
class Written:
    """A report that was written: where it is, the front in it, and its warnings."""

    report: Path
    front: pd.DataFrame
    warnings: list[str]


def rebuild_report(folder: Path | str) -> Written:
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
    from paretofit.study.preparation import prepare  # noqa: PLC0415  (which writes reports, too)

    study = load_study(folder / "study.yaml").model_copy(update={"dataset": folder / "dataset.h5"})
    prepared = prepare(study)
    with prepared.dataset, run_folder(folder, record["study"]):
        errors = level_errors(prepared.dataset, list(prepared.grid.levels), bulk=study.bulk)
        return write_run_report(folder, prepared, errors, record["summary"], record["warnings"])


def write_run_report(
    folder: Path,
    prepared: Prepared,
    errors: LevelErrors,
    summary: dict[str, str],
    warnings: list[str],
) -> Written:
    """Write front, figures, tables and page of a run from the tables that are in its folder."""
    results = _results(folder, prepared)
    warnings = list(warnings)
    shown = results if len(prepared.split.test) else judged_by_leave_one_out(results, warnings)
    n_train, levels = len(prepared.split.train), list(prepared.grid.levels)
    warnings += network_warnings(read_or_empty(folder / NETWORKS))
    front = study_front(shown, n_train)
    write_csv(front, folder / FRONT)
    page_front, page_warnings = front, warnings
    extra: dict[str, pd.DataFrame] = {}
    if len(knees := read_or_empty(folder / KNEES)):
        extra["Best weight ratios of the whole training set"] = knees
    if "ridge" in shown:
        first = str(prepared.grid.ridge[0])
        extra["What a ridge penalty changes"] = ridge_table(shown, front)
        page_warnings = [*warnings, f"Figures and findings are those of ridge = {first}; the table shows the others."]
        shown = shown[shown["ridge"].astype(str) == first]
        page_front = study_front(shown.drop(columns="ridge"), n_train)
    paths = read_or_empty(folder / PATHS)
    drawn = paths if len(paths) and n_train in prepared.grid.sizes else None
    report = write_report(
        folder, shown, page_front, levels, title=prepared.study.name, summary=summary, warnings=page_warnings,
        extra_tables=extra, paths=drawn, study=_settings(folder, prepared),
        more=_more(folder, prepared, shown, page_front, errors, drawn),
    )  # fmt: skip
    return Written(report, front, warnings)


def _results(folder: Path, prepared: Prepared) -> pd.DataFrame:
    """The results table, whole."""
    n_fits = prepared.grid.n_fits()
    try:
        results = pd.read_csv(folder / RESULTS, dtype={"level": str, "ridge": str})
        whole = (
            len(results) == n_fits
            and set(COLUMNS) <= set(results)
            and not results[["level", "n_train", "w_force"]].isna().any(axis=None)
        )
        whole &= (folder / RESULTS).read_bytes().endswith(b"\n")
        whole &= all(is_numeric_dtype(results[name]) for name in COLUMNS if name not in WORDS)
    except (ValueError, KeyError):  # pandas: a line with too many fields, an empty file
        whole = False
    if not whole:
        raise InputError(
            f"{folder / RESULTS} is damaged: it must have {n_fits} complete rows; run the same paretofit run again, "
            "which writes it from what is finished"
        )
    return results


def _more(
    folder: Path,
    prepared: Prepared,
    results: pd.DataFrame,
    front: pd.DataFrame,
    errors: LevelErrors,
    paths: pd.DataFrame | None,
) -> More:
    """What the report says of labels, noise, models and budgets."""
    levels, weights = list(prepared.grid.levels), two_weights(prepared.grid.weights)
    noise, points = (read_or_empty(folder / name) for name in (NOISE_FILE, NOISE_POINTS_FILE))
    md = read_or_empty(folder / MD_FILE, ["twojmax", "md_us_per_atom_step", "spread", "atoms"])
    findings, plans, sheets = [], [], []
    if len(levels) > 1:
        findings.append(_measured("labels", "How far are the labels of the cheaper levels off?", level_words(errors)))
        plans, sheets = list(level_plans(errors, levels)), list(level_sheets(errors, levels))
    if len(noise):
        findings.append(_measured("noise", "How much of these errors do models ignore?", noise_words(noise)))
        sheets.append(noise_sheet(noise))
    findings.append(_measured("budget", "Which level does a budget favour?", budget_words(results, levels)))
    sheets += [
        *error_sheets(results, levels, weights),
        model_sheet(results, levels, md),
        *front_sheets(results, front, levels),
    ]
    later = list(more_plans(results, levels, paths, points, noise))
    networks = read_or_empty(folder / NETWORKS)
    if len(networks):
        together = models_together(results, networks, levels)
        findings += [one for one in [network_finding(together)] if one]
        sheets += network_sheets(networks, read_or_empty(folder / CALIBRATION))
        plans += network_plans(together, levels)
    table, pictures = _validation(folder / VALIDATION)
    sheets += [] if table is None else [table]
    return More(findings, plans, sheets, later, pictures)


def _validation(folder: Path) -> tuple[Sheet | None, list[Picture]]:
    """What ``paretofit validate -o RUN/validation`` has left in the run folder, if anything."""
    table = read_or_empty(folder / "validation.csv")
    if table.empty:
        return None, []
    note = "A potential checked on physics by paretofit validate; what failed is in validation/failures.csv."
    pictures = [
        Picture(
            f"validation_{one.stem}",
            f"Validation: {one.stem.replace('_', ' ')}.",
            one.read_bytes(),
            place=f"{VALIDATION}/figures/{one.stem}",
        )
        for one in sorted((folder / "figures").glob("*.svg"))
    ]
    return Sheet("Validation on physics", note, "validation", table), pictures


def _measured(name: str, question: str, answer: str) -> Finding:
    return Finding(name, question, "measured", answer, "")


def _settings(folder: Path, prepared: Prepared) -> dict[str, Any]:
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
    if not (folder / RECORD).exists():
        raise InputError(f"{folder} is no run folder: it has no {RECORD}; name one that paretofit run has made")
    for name, stage in STAGES.items():
        if not (folder / name).exists():
            raise InputError(
                f"{folder} is not finished: the stage '{stage}' is missing (no {name}); run the same paretofit run "
                "again, it goes on where it stopped"
            )
    record = read_record(folder)
    for name in record.get("files", ()):
        if not (folder / name).exists():
            stage = "describe" if name == DESIGN else "analyse"
            raise InputError(
                f"{folder} is not complete: {name} is missing, of the stage '{stage}'; run the same paretofit run again"
            )
    if "summary" not in record:
        raise InputError(
            f"{folder} is not finished: the stage 'report' is missing ({RECORD} has no summary); run the same "
            "paretofit run again, it goes on where it stopped"
        )
    check_digests(folder, record)
    return record
