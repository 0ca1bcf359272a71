"""Report of a run, built from the files of its stages at the end of the run, or later without new fits."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from paretofit.core import InputError, restore_formulas, write_csv
from paretofit.dataset.quality import LevelErrors, compute_level_errors
from paretofit.pareto import BASIS_COLUMN, TEXT_COLUMNS
from paretofit.properties import get_property_name
from paretofit.report import (
    Answer,
    Finding,
    FindingDots,
    JoinedBases,
    PairedErrors,
    find_answer_or_reason,
    join_items,
    page,
    write_report,
)
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
from paretofit.report.findings import assess_bases, assess_grid
from paretofit.report.tables import build_error_tables, build_model_table, select_single_levels
from paretofit.study import run_folder
from paretofit.study.analysis import (
    MD_COLUMNS,
    MD_FILE,
    NOISE_FILES,
    RESIDUALS_FILE,
    read_table_or_empty,
    select_paper_weights,
)
from paretofit.study.basis_settings import FIRST_BASIS
from paretofit.study.further_bases import BASES_FILE, derive_studies, get_basis_folder
from paretofit.study.grid_labels import compute_grid_errors
from paretofit.study.preparation import PreparedStudy
from paretofit.study.result import describe_outcome
from paretofit.study.run_view import VIEW_FILE, build_run_view
from paretofit.study.schema import Study, load_study
from paretofit.study.split_confidence import add_front_confidence, read_split_errors
from paretofit.study.study_front import find_study_front, substitute_loo_errors, tabulate_ridge_effect
from paretofit.sweep import SWEEP_COLUMNS, SWEEP_TEXT_COLUMNS

DESIGN_FILE, VALIDATION_FOLDER = "design.h5", "validation"
# Files that are not part of every run; a report requires those that its run wrote.
OPTIONAL_FILES = (
    DESIGN_FILE,
    MD_FILE,
    *NOISE_FILES,
    RESIDUALS_FILE,
    *run_folder.WEIGHT_FILES,
    *run_folder.NETWORK_FILES,
    *run_folder.CONFIDENCE_FILES,
    BASES_FILE,
)
BASES_NOTE = (
    f"The answer, the front and the explorer are those of all bases; most findings and figures are those of "
    f"'{FIRST_BASIS}', and the pages of further bases have theirs."
)
STAGE_BY_FILE = {"study.yaml": "start", "dataset.h5": "start", "split.csv": "reduce", run_folder.RESULTS_FILE: "sweep"}


@dataclass(frozen=True)
class RunReport:
    """Path, front, warnings and answer of a report; `answer` is None if no setting can be recommended."""

    path: Path
    front: pd.DataFrame
    warnings: list[str]
    answer: Answer | None = None

    @property
    def text(self) -> str:
        """Warnings, answer, path of the report and next commands, as text for the terminal."""
        return describe_outcome(self.path, self.warnings, self.answer)

    def to_dict(self) -> dict[str, Any]:
        """Convert the report to a mapping of its attributes, with the answer as a mapping or None."""
        answer = None if self.answer is None else self.answer.to_dict()
        return {"path": self.path, "front": self.front, "warnings": self.warnings, "answer": answer}


def rebuild_report(folder: Path | str, *, svg: bool = False, all_figures: bool = False) -> RunReport:
    """Rewrite the report of a finished run from its files, without fitting.

    Parameters
    ----------
    folder : path-like
        Run folder.
    svg : bool
        Whether to write the figures also as SVG.
    all_figures : bool
        Whether to draw also the figures that take long, such as parity plots of the labels.

    Raises
    ------
    InputError
        If the folder is not a run folder or is in use, a file has changed, or the run is not finished; the message then
        contains the missing stage.
    """
    folder = Path(folder)
    record = check_finished(folder)
    from paretofit.study.preparation import prepare_study  # noqa: PLC0415  (loads the numerics)

    study = load_study(folder / "study.yaml").model_copy(update={"dataset": folder / "dataset.h5"})
    prepared = prepare_study(study)
    with prepared.dataset, run_folder.open_run_folder(folder, record["study"]):
        errors = compute_level_errors(
            prepared.dataset, list(prepared.grid.levels), reference_configuration=study.reference_configuration
        )
        return write_run_report(
            folder, prepared, errors, record["summary"], record["warnings"], svg=svg, all_figures=all_figures
        )


def write_run_report(
    folder: Path,
    prepared: PreparedStudy,
    errors: LevelErrors,
    summary: dict[str, str],
    warnings: list[str],
    *,
    svg: bool = False,
    all_figures: bool = False,
) -> RunReport:
    """Write the front, figures, tables and page of a run to its folder, from the tables that its stages wrote there.

    `summary` is the section "How this was computed" by heading, and `warnings` are those of the stages, to which the
    report adds others; `svg` and `all_figures` are those of `rebuild_report`. Findings and figures are for the first
    ridge penalty. Without a test set, leave-one-out errors take the place of test errors.

    Raises
    ------
    InputError
        If the results table is incomplete, or contains no fit that the report can show.
    """
    results = _read_complete_results(folder, prepared)
    warnings = list(warnings)
    has_bases = (folder / BASES_FILE).exists()
    all_results = _read_results(folder / BASES_FILE) if has_bases else results
    if not len(prepared.split.test):
        results = substitute_loo_errors(results, warnings)
        all_results = substitute_loo_errors(all_results, []) if has_bases else results
    view = build_run_view(folder, prepared, errors)
    has_view = view is not None and view.write(folder / VIEW_FILE)
    n_train, levels = len(prepared.split.train), prepared.grid.level_names
    warnings += collect_network_warnings(read_table_or_empty(folder / run_folder.NETWORKS_FILE))
    objectives = prepared.study.objective_columns
    warnings += [BASES_NOTE, *_list_missing_objectives(all_results, objectives)] if has_bases else []
    front = find_study_front(all_results, n_train, objectives)
    front = add_front_confidence(front, _get_basis_folders(folder, prepared), objectives)
    write_csv(front, folder / run_folder.FRONT_FILE)
    joined, page_warnings = _join_bases(folder, prepared, all_results, front), warnings
    extra_tables: dict[str, pd.DataFrame] = {}
    weight_paths, knees = (read_table_or_empty(folder / name) for name in run_folder.WEIGHT_FILES)
    if len(knees):
        extra_tables["Best weight ratios of the whole training set"] = knees
    if "ridge" in results:
        extra_tables["Effect of a ridge penalty"] = tabulate_ridge_effect(results, front)
        first_ridge = prepared.grid.ridge[0]
        warning = f"Figures and findings are for ridge = {first_ridge}; the table shows the other penalties."
        page_warnings, results = [*warnings, warning], _select_first_ridge(results, prepared)
    page_front = _find_error_front(results, prepared)
    weight_path = weight_paths if len(weight_paths) and n_train in prepared.grid.sizes else None
    settings = _read_settings(folder, prepared.study)
    answer, _ = find_answer_or_reason(joined.results, settings, joined.split_errors, joined.studies)
    report = write_report(
        folder, results, page_front, levels, title=prepared.study.name, summary=summary, warnings=page_warnings,
        extra_tables=extra_tables, path_table=weight_path, study=settings,
        extra_content=_collect_content(folder, prepared, results, joined, errors, weight_path, answer),
        answer=answer, joined=joined, formats=("png", "svg") if svg else ("png",), all_figures=all_figures,
        links=_list_links(folder, prepared, has_view=has_view),
    )  # fmt: skip
    return RunReport(report, front, warnings, answer)


def _join_bases(folder: Path, prepared: PreparedStudy, results: pd.DataFrame, front: pd.DataFrame) -> JoinedBases:
    """Collect results, front, errors in further splits and settings of all bases, at the first ridge penalty."""
    if "ridge" in results:
        results = _select_first_ridge(results, prepared)
        objectives = prepared.study.objective_columns
        front = find_study_front(results.drop(columns="ridge"), len(prepared.split.train), objectives)
    folders = _get_basis_folders(folder, prepared)
    errors_by_basis = {name: _read_paired_errors(path, prepared) for name, path in folders.items()}
    has_further_bases = len(errors_by_basis) > 1
    split_errors = PairedErrors.join_bases(errors_by_basis) if has_further_bases else errors_by_basis[FIRST_BASIS]
    studies = {name: _read_settings(folder, study) for name, study in derive_studies(prepared.study).items()}
    return JoinedBases(results, front, split_errors, studies, prepared.study.objectives)


def _find_error_front(results: pd.DataFrame, prepared: PreparedStudy) -> pd.DataFrame:
    """Find the front of energy error, force error and cost, on which findings are based whatever the objectives are."""
    return find_study_front(results.drop(columns="ridge", errors="ignore"), len(prepared.split.train))


def _list_missing_objectives(results: pd.DataFrame, objectives: Sequence[str]) -> Iterator[str]:
    """Yield a warning for each basis that lacks an objective, as given rows lack all properties."""
    for name, basis_results in results.groupby(BASIS_COLUMN):
        if missing := [get_property_name(column) for column in objectives if basis_results[column].isna().all()]:
            yield f"Basis '{name}' has no {join_items(missing)}, which is an objective, so it is not on the front."


def _get_basis_folders(folder: Path, prepared: PreparedStudy) -> dict[str, Path]:
    """Return the run folders of all bases, by name, the first basis first."""
    return {name: get_basis_folder(folder, name) for name in (FIRST_BASIS, *derive_studies(prepared.study))}


def _select_first_ridge(results: pd.DataFrame, prepared: PreparedStudy) -> pd.DataFrame:
    """Select the results with the first ridge penalty of the study."""
    return results[results["ridge"].astype(str) == str(prepared.grid.ridge[0])]


def _read_complete_results(folder: Path, prepared: PreparedStudy) -> pd.DataFrame:
    """Read the results table; raise InputError if it is incomplete or corrupt."""
    n_fits = prepared.grid.count_fits()
    try:
        results = _read_results(folder / run_folder.RESULTS_FILE)
        is_complete = (
            len(results) == n_fits
            and set(SWEEP_COLUMNS) <= set(results)
            and not results[["level", "n_train", "w_force"]].isna().any(axis=None)
        )
        # without the last line end, the last number may be cut off
        is_complete &= (folder / run_folder.RESULTS_FILE).read_bytes().endswith(b"\n")
        is_complete &= all(is_numeric_dtype(results[name]) for name in SWEEP_COLUMNS if name not in SWEEP_TEXT_COLUMNS)
    except (ValueError, KeyError):  # pandas raises these for a line with too many fields, or an empty file
        is_complete = False
    if not is_complete:
        raise InputError(
            f"{folder / run_folder.RESULTS_FILE} is corrupt: it must have {n_fits} complete rows; run the same command "
            "again to write it from the finished fits"
        )
    return results


def _read_results(path: Path) -> pd.DataFrame:
    """Read a results table, with names of levels and bases as text."""
    return restore_formulas(pd.read_csv(path, dtype=TEXT_COLUMNS))


def _collect_content(
    folder: Path,
    prepared: PreparedStudy,
    results: pd.DataFrame,
    joined: JoinedBases,
    errors: LevelErrors,
    weight_path: pd.DataFrame | None,
    answer: Answer | None,
) -> page.ExtraContent:
    """Collect findings, figures and tables about labels, noise, models, bases, networks, budgets and validation.

    `weight_path` is None if the figure of the noise has no curve over the weight ratio.
    """
    results = select_single_levels(results)
    levels, weights = list(prepared.grid.levels), select_paper_weights(prepared.grid.weights)
    noise, points = (read_table_or_empty(folder / name) for name in NOISE_FILES)
    md_costs = read_table_or_empty(folder / MD_FILE, MD_COLUMNS)
    findings, figures, tables = [], [], []
    if len(levels) > 1:
        question, text = "How large are the errors of the cheaper levels?", page.describe_level_errors(errors)
        findings.append(Finding("labels", question, "measured", text))
        figures, tables = list(page.plan_level_figures(errors, levels)), list(page.build_level_tables(errors, levels))
    grid_errors = compute_grid_errors(prepared.study, errors)
    findings += filter(None, [assess_grid(grid_errors)])
    figures += [] if grid_errors is errors else page.plan_grid_figures(grid_errors)
    if len(noise):
        text = describe_label_noise(noise)
        correlations = noise.rename(columns={"kind": "error"})
        groups = "level " + correlations["level"].astype(str)
        label = "correlation of residuals and label errors"
        dots = FindingDots.collect(correlations, groups, {"": "correlation"}, label, reference=0.0)
        findings.append(Finding("noise", "How much of these errors do models ignore?", "measured", text, dots=dots))
        tables.append(build_label_noise_table(noise))
    tables += build_error_tables(results, levels, weights) if len(levels) > 1 else []
    tables.append(build_model_table(results, levels, md_costs))
    if len(levels) > 1:
        front = _find_error_front(joined.results, prepared)
        tables += page.build_front_tables(joined.results, front, prepared.grid.level_names, answer)
    noise_figures = list(plan_noise_figures(results, levels, weight_path, points, noise))
    if prepared.study.bases:
        findings += filter(None, [_assess_bases(folder, prepared, joined.results)])
    networks, calibration = (read_table_or_empty(folder / name) for name in run_folder.NETWORK_FILES)
    if len(networks):
        models = combine_models(results, networks, levels)
        findings += filter(None, [assess_networks(models)])
        tables += build_network_tables(networks, calibration)
        figures += plan_network_figures(models, levels)
    validation_tables, validation_figures = _read_validation(folder / VALIDATION_FOLDER)
    split_errors = _read_paired_errors(folder, prepared)
    scope = f"basis '{FIRST_BASIS}'" if prepared.study.bases else ""
    return page.ExtraContent(
        findings, figures, tables + validation_tables, noise_figures, validation_figures, split_errors, scope
    )


def _assess_bases(folder: Path, prepared: PreparedStudy, results: pd.DataFrame) -> Finding | None:
    """Compare the bases of a study by their errors in further splits; None if they cannot be compared."""
    by_basis = {name: _read_paired_errors(get_basis_folder(folder, name), prepared) for name in set(results["basis"])}
    return assess_bases(results, prepared.grid.levels[-1], by_basis)


def _list_links(folder: Path, prepared: PreparedStudy, *, has_view: bool) -> list[tuple[str, str]]:
    """List path and title of the pages to which the report links: structures, and reports of further bases."""
    links = [(VIEW_FILE, "Structures")] if has_view else []
    for entry in prepared.study.bases:
        path = get_basis_folder(folder, entry.name) / "report.html"
        links += [(str(path.relative_to(folder)), f"Basis {entry.name}")] if path.exists() else []
    return links


def _read_paired_errors(folder: Path, prepared: PreparedStudy) -> PairedErrors | None:
    """Read the errors of a run in further splits, at the first ridge penalty; None if the run has no further splits."""
    split_errors = read_split_errors(folder)
    if split_errors is None:
        return None
    is_first = (split_errors.settings["ridge"].astype(str) == str(prepared.grid.ridge[0])).to_numpy()
    first_errors = {name: errors[..., is_first] for name, errors in split_errors.errors.items()}
    return PairedErrors(split_errors.settings[is_first], first_errors)


def _read_validation(folder: Path) -> tuple[list[page.ReportTable], list[page.ReportFigure]]:
    """Read the table and the figures that ``paretofit validate -o RUN/validation`` wrote, if there are any."""
    table = read_table_or_empty(folder / "validation.csv")
    if table.empty:
        return [], []
    note = "Properties of a potential from paretofit validate; failed properties are in validation/failures.csv."
    figures = []
    for path in sorted((folder / "figures").glob("*.svg")):
        caption, location = f"Validation: {path.stem.replace('_', ' ')}.", f"{VALIDATION_FOLDER}/figures/{path.stem}"
        figures.append(page.ReportFigure(f"validation_{path.stem}", caption, path.read_bytes(), location=location))
    return [page.ReportTable("Physical properties", note, "validation", table)], figures


def _read_settings(folder: Path, study: Study) -> dict[str, Any]:
    """Return the settings of a study that differ from the defaults, and the 2Jmax.

    The dataset is the original one, whose path is in the study file of the run folder, not the copy in that folder.
    """
    settings: dict[str, Any] = json.loads(study.model_dump_json(by_alias=True, exclude_defaults=True))
    return {
        **settings,
        "dataset": str(load_study(folder / "study.yaml").dataset),
        "twojmax": list(study.twojmax),
    }


def read_run_settings(folder: Path | str, basis: str = FIRST_BASIS) -> dict[str, Any]:
    """Read the settings of one basis of a run, by key of a study file, without defaults except that of the 2Jmax."""
    study = load_study(Path(folder) / "study.yaml")
    return _read_settings(Path(folder), study if basis == FIRST_BASIS else derive_studies(study)[basis])


def check_finished(folder: Path) -> dict[str, Any]:
    """Check that a run is finished and its files are unchanged; return its record.

    Raises
    ------
    InputError
        If the folder is not a run folder, a file has changed, or the run is not finished; the message then contains the
        missing stage.
    """
    record = run_folder.check_stages(folder, STAGE_BY_FILE)
    for name in record.get("files", ()):
        if not (folder / name).exists():
            stage = "describe" if name == DESIGN_FILE else "analyse"
            problem = f"{name} of the stage '{stage}' is missing"
            raise InputError(f"{folder} is not complete: {problem}; {run_folder.RESUME_ADVICE}")
    if "summary" not in record:
        problem = f"the stage 'report' is missing ({run_folder.RECORD_FILE} has no summary)"
        raise InputError(f"{folder} is not finished: {problem}; {run_folder.RESUME_ADVICE}")
    run_folder.check_digests(folder, record)
    return record
