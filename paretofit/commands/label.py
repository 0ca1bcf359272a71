"""`paretofit label`: compute the labels of the section 'labelling' of a study and write them to its dataset."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from paretofit.commands.study_sections import LabelStudy, load_label_study
from paretofit.core import Array, InputError, check_new_paths, check_writable, read_json_lines, track_cost
from paretofit.dataset import Dataset
from paretofit.execution import RunContext, use_cluster
from paretofit.labelling import (
    JOURNAL_FILE,
    CostModel,
    CostTracker,
    LabelPlan,
    Record,
    Task,
    choose_probe_labels,
    collect_failure_reasons,
    compute_cost_terms,
    compute_labels,
    fit_cost_model,
    is_record,
    open_label_journal,
    plan_labels,
    read_output,
    select_engine_labels,
    write_labels,
)
from paretofit.study import describe_other_versions, log_to_file, open_run_folder, record_version

log = logging.getLogger(__name__)

MPI_LAUNCHERS = {"mpirun", "mpiexec", "srun", "aprun", "orterun", "jsrun"}
MAX_PROBES = 8  # number of cheap labels that are computed to estimate the cost of all labels
MAX_PROBE_SECONDS = 60.0  # CPU time of all probes together, as estimated by a cost model that is fitted to no labels


@dataclass(frozen=True)
class LabelResult:
    """Result of a labelling run.

    Attributes
    ----------
    dataset : Path
        Dataset that contains the labels.
    folder : Path
        Run folder, with the journal, the log, and the engine's files of failed labels.
    n_computed, n_failed, n_remaining, n_complete : int
        Numbers of labels: computed in this run (including failures), failed in this run, still missing, and complete in
        the dataset.
    cpu_seconds : float
        CPU time of this run.
    failures : dict
        Reason for each failed label of the plan, by (level, configuration id).
    """

    dataset: Path
    folder: Path
    n_computed: int
    n_failed: int
    n_remaining: int
    n_complete: int
    cpu_seconds: float
    failures: dict[tuple[str, int], str]


def label_study(
    study: LabelStudy | Path | str,
    *,
    out: Path | str | None = None,
    jobs: int = 1,
    progress: bool = False,
    retry_failed: bool = False,
) -> LabelResult:
    """Compute the labels of a study that its dataset lacks, then write the dataset.

    Every label is stored in ``labels.jsonl`` of the run folder as soon as it is finished, so that a run that was killed
    resumes with the missing labels. The dataset is written at the end, and also if the run is interrupted.

    Parameters
    ----------
    study : LabelStudy or path-like
        Sections of a study, or its YAML file.
    out : path-like, optional
        Run folder; by default ``runs/<name>-labels`` in the working directory.
    jobs : int
        Number of processes, each with one thread.
    progress : bool
        Show the numbers and the costs of the finished and the missing labels.
    retry_failed : bool
        Compute the labels that failed in an earlier run again.

    Raises
    ------
    InputError
        If the study, its structures or its engine cannot be used; raised before anything is computed.
    """
    settings = _load_settings(study)
    labelling, dataset = settings.labelling, settings.dataset
    with (
        open_run_folder(_get_folder(settings, out), settings.name) as folder,
        log_to_file(folder / "label.log"),
        open_label_journal(folder) as journal,
        use_cluster(settings.cluster, jobs, folder),
    ):
        check_writable(dataset)
        for warning in describe_other_versions(folder):
            log.warning("%s", warning)
        record_version(folder, "label")
        plan = plan_labels(labelling, dataset, journal.entries, retry_failed=retry_failed)
        n_tasks, n_journal = len(plan.tasks), len(plan.finished_records)
        log.info("study %s: %d labels to compute, %d in the journal", settings.name, n_tasks, n_journal)
        tracker = CostTracker(_estimate_seconds(plan, settings), jobs)
        n_failed = n_computed = 0
        finished_labels = compute_labels(plan, labelling, journal, folder, jobs)
        try:
            for record in _track_cost(finished_labels, plan, tracker, RunContext(jobs, progress)):
                n_computed += 1
                n_failed += record["status"] == "failed"
        finally:  # also after Ctrl-C, so that the dataset contains all finished labels
            finished_labels.close()
            plan = _write_dataset(settings, plan.finished_records)
        seconds = tracker.spent_seconds
        log.info("%d labels computed, %d of them failed, %.1f CPU seconds", n_computed, n_failed, seconds)
    return _build_result(settings, folder, plan, n_computed, n_failed, seconds)


def choose_label_jobs(study: LabelStudy | Path | str, cores: int) -> int:
    """Choose the number of labels to compute at the same time on `cores` cores: 1 under MPI, otherwise `cores`.

    Raises
    ------
    InputError
        If the study cannot be read.
    """
    words = (getattr(_load_settings(study).labelling.engine, "command", None) or "").split()
    is_mpi_command = bool(words) and Path(words[0]).name in MPI_LAUNCHERS
    return 1 if is_mpi_command else cores


def collect_labels(study: LabelStudy | Path | str, *, out: Path | str | None = None) -> LabelResult:
    """Write the labels that are finished so far to the dataset; another process may be computing more of them.

    Parameters
    ----------
    study, out
        As in `label_study`.

    Raises
    ------
    InputError
        If the study cannot be used, or no label is finished and the dataset does not exist.
    """
    settings = _load_settings(study)
    folder = _get_folder(settings, out)
    plan = _write_dataset(settings, _read_finished_records(folder))
    if not settings.dataset.exists():
        raise InputError(f"{settings.dataset} does not exist yet, as no label is finished; run 'paretofit label' first")
    return _build_result(settings, folder, plan)


def estimate_label_cost(
    study: LabelStudy | Path | str, *, out: Path | str | None = None, jobs: int = 1, progress: bool = False
) -> tuple[pd.DataFrame, CostModel]:
    """Estimate the cost of the missing labels.

    If fewer than `MAX_PROBES` labels are finished, up to `MAX_PROBES` cheap ones are first computed in the run folder.

    Parameters
    ----------
    study, out, jobs, progress
        As in `label_study`.

    Returns
    -------
    table : pandas.DataFrame
        A row for each ``level``, in order of cost: number of missing labels (``to_do``), their total ``cpu_hours``, and
        the ``mean_seconds`` and ``largest_seconds`` of a label.
    model : CostModel
        Cost model that was fitted to the finished labels.

    Raises
    ------
    InputError
        If the study, its structures or its engine cannot be used.
    """
    settings = _load_settings(study)
    folder = _get_folder(settings, out)
    plan = _plan_missing_labels(settings, folder)
    if plan.tasks and _fit_cost_model(plan, settings).n_labels < MAX_PROBES:
        _compute_probes(plan, settings, folder, RunContext(jobs, progress))
        plan = _plan_missing_labels(settings, folder)
    seconds = _estimate_seconds(plan, settings)
    rows = pd.DataFrame({"level": [task.level.name for task in plan.tasks], "seconds": list(seconds.values())})
    seconds_by_level = rows.groupby("level", sort=False)["seconds"]
    table = seconds_by_level.agg(to_do="count", cpu_hours="sum", mean_seconds="mean", largest_seconds="max")
    table["cpu_hours"] /= 3600  # the column contained seconds
    order = [level.name for level in settings.labelling.ladder if level.name in table.index]
    return table.loc[order].reset_index(), _fit_cost_model(plan, settings)


def _compute_probes(plan: LabelPlan, settings: LabelStudy, folder: Path, context: RunContext) -> None:
    """Compute a few of the cheapest missing labels, and store them in the journal."""
    with (
        open_run_folder(folder, settings.name),
        open_label_journal(folder) as journal,
        use_cluster(settings.cluster, context.jobs, folder),
    ):
        indices = choose_probe_labels(_compute_terms(plan.tasks, settings), MAX_PROBES, MAX_PROBE_SECONDS)
        # Probes are at most a quarter of the missing labels, but three labels are always allowed.
        n_allowed = max(3, len(plan.tasks) // 4)
        tasks = [plan.tasks[k] for k in indices[:n_allowed]]
        probe_plan = LabelPlan(plan.collected_data, tasks, plan.finished_records, plan.task_keys)
        tracker = CostTracker(_estimate_seconds(probe_plan, settings), context.jobs)
        finished_labels = compute_labels(probe_plan, settings.labelling, journal, folder, context.jobs)
        for _ in _track_cost(finished_labels, probe_plan, tracker, context):
            pass


def write_label_inputs(
    study: LabelStudy | Path | str, inputs_folder: Path | str, *, out: Path | str | None = None, overwrite: bool = False
) -> str:
    """Write the engine's input files of all missing labels, for a computation outside of paretofit.

    Structures that the dataset lacks are added to it under the ids of their folders.

    Parameters
    ----------
    study : LabelStudy or path-like
        As in `label_study`.
    inputs_folder : path-like
        Folder to write to, with a folder ``<level>/<configuration id>`` for each label.
    out : path-like, optional
        Run folder, as in `label_study`; labels that are finished there are not missing.
    overwrite : bool
        Replace inputs of the same labels.

    Returns
    -------
    str
        Message with the number of inputs, the files that the user must add, and the command that reads the outputs.

    Raises
    ------
    InputError
        If the study cannot be used, its engine has no input files, or a folder exists or cannot be written.
    """
    settings = _load_settings(study)
    plan = _plan_missing_labels(settings, _get_folder(settings, out), require_engine=False)
    missing_files: dict[str, None] = {}
    folders = [Path(inputs_folder) / task.level.name / str(task.config_id) for task in plan.tasks]
    check_new_paths([], folders, overwrite=overwrite)
    for task, folder in zip(plan.tasks, folders, strict=True):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            missing_files |= dict.fromkeys(settings.labelling.engine.write_inputs(task.atoms, task.level, folder))
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error.strerror}; choose another folder") from error
    if not plan.tasks:
        return "nothing to do: no label is missing"
    if plan.collected_data.configurations.keys() - _read_ids(settings.dataset):
        write_labels(plan, settings.labelling, settings.dataset)  # stores the structures under the ids of the folders
    lines = [f"{inputs_folder}: inputs of {len(plan.tasks)} labels, each in a folder <level>/<id>"]
    if missing_files:
        lines.append(f"files that you must add: {'; '.join(missing_files)}")
    lines.append(f"after the computation: paretofit label STUDY.yaml --read-outputs {inputs_folder}")
    return "\n".join(lines)


def read_label_outputs(
    study: LabelStudy | Path | str, outputs_folder: Path | str, *, out: Path | str | None = None
) -> LabelResult:
    """Add labels to the dataset that were computed outside of paretofit in the folders of `write_label_inputs`.

    Parameters
    ----------
    study, out
        As in `label_study`.
    outputs_folder : path-like
        Folder with a folder ``<level>/<configuration id>`` for each label. A label that was not computed remains
        missing; one that failed or did not converge is recorded as failed, with the reason.

    Raises
    ------
    InputError
        If the study cannot be used, the folder does not exist, or the engine does not write output files.
    """
    settings = _load_settings(study)
    engine = settings.labelling.engine
    if not Path(outputs_folder).is_dir():
        raise InputError(f"no folder at {outputs_folder}; specify the folder of 'paretofit label --write-inputs'")
    with open_run_folder(_get_folder(settings, out), settings.name) as folder, open_label_journal(folder) as journal:
        plan = plan_labels(
            settings.labelling, settings.dataset, journal.entries, retry_failed=True, require_engine=False
        )
        records = [record for task in plan.tasks if (record := read_output(task, engine, Path(outputs_folder)))]
        for record in records:
            journal.append(record)
            plan.finished_records[record["key"]] = record
        remaining_plan = _write_dataset(settings, plan.finished_records, require_engine=False)
    seconds = sum(record["seconds"] or 0.0 for record in records)
    n_failed = sum(record["status"] == "failed" for record in records)
    return _build_result(settings, folder, remaining_plan, len(records), n_failed, seconds)


def _build_result(
    settings: LabelStudy, folder: Path, plan: LabelPlan, n_computed: int = 0, n_failed: int = 0, seconds: float = 0.0
) -> LabelResult:
    """Build the result of a run, with the number of complete labels in the dataset and the failures of the plan."""
    n_complete = 0
    if settings.dataset.exists():
        with Dataset(settings.dataset) as data:
            n_complete = sum(int(data.labels(level).is_complete.sum()) for level in data.levels)
    failures = collect_failure_reasons(plan)
    return LabelResult(settings.dataset, folder, n_computed, n_failed, len(plan.tasks), n_complete, seconds, failures)


def _read_ids(dataset: Path) -> set[int]:
    """Read the ids of a dataset's configurations; empty if the dataset does not exist."""
    if not dataset.exists():
        return set()
    with Dataset(dataset) as data:
        return set(data.ids.tolist())


def _load_settings(study: LabelStudy | Path | str) -> LabelStudy:
    """Return the sections of a study, which are read if `study` is a path."""
    return study if isinstance(study, LabelStudy) else load_label_study(study)


def _get_folder(settings: LabelStudy, out: Path | str | None) -> Path:
    """Return the path of the run folder: `out`, or the default if it is None."""
    return Path(out) if out is not None else Path("runs") / f"{settings.name}-labels"


def _read_finished_records(folder: Path) -> dict[str, Record]:
    """Read the records of finished labels, failed ones included, from the journal of a run folder, by task key."""
    path = folder / JOURNAL_FILE
    entries, _ = read_json_lines(path) if path.exists() else ([], 0)
    return {record["key"]: record for record in entries if is_record(record)}


def _plan_missing_labels(settings: LabelStudy, folder: Path, **options: Any) -> LabelPlan:
    """Plan the labels that neither the dataset nor the journal of the run folder has; options are for `plan_labels`."""
    return plan_labels(settings.labelling, settings.dataset, _read_finished_records(folder).values(), **options)


def _write_dataset(settings: LabelStudy, records: dict[str, Record], *, require_engine: bool = True) -> LabelPlan:
    """Write finished labels to the dataset; return a plan of the labels that are still missing.

    The dataset is read again, because another command may have changed it.
    """
    labelling, dataset = settings.labelling, settings.dataset
    # retry_failed: a new record of a label that failed in the dataset replaces the failure
    plan = plan_labels(labelling, dataset, records.values(), retry_failed=True, require_engine=require_engine)
    planned_keys = {key for keys_by_id in plan.task_keys.values() for key in keys_by_id.values()}
    if not planned_keys.isdisjoint(plan.finished_records):
        write_labels(plan, labelling, dataset)
    return plan_labels(labelling, dataset, records.values(), require_engine=require_engine)


def _track_cost(
    finished_labels: Iterator[tuple[Task, Record]], plan: LabelPlan, tracker: CostTracker, context: RunContext
) -> Iterator[Record]:
    """Yield the records of labels as they finish, add their cost to the tracker, and show the progress."""
    for task, record in track_cost(finished_labels, len(plan.tasks), tracker.report_progress, enabled=context.progress):
        tracker.add(task.key, record["seconds"] or 0.0)
        yield record


def _compute_terms(tasks: list[Task], settings: LabelStudy) -> Array:
    """Compute the terms of the cost model for each task, ``(n_tasks, n_terms)``."""
    engine = settings.labelling.engine
    return np.array([compute_cost_terms(task.atoms, task.level, engine) for task in tasks])


def _fit_cost_model(plan: LabelPlan, settings: LabelStudy) -> CostModel:
    """Fit the cost model to the labels that the engine has finished, in the journal and in the dataset."""
    engine = settings.labelling.engine
    terms, seconds = [], []
    for level in settings.labelling.selected_levels:
        for config_id, label in select_engine_labels(plan, level.name, engine).items():
            if label.get("status") == "done" and (label.get("seconds") or 0) > 0:
                terms.append(compute_cost_terms(plan.collected_data.configurations[config_id], level, engine))
                seconds.append(label["seconds"])
    return fit_cost_model(np.array(terms), seconds)


def _estimate_seconds(plan: LabelPlan, settings: LabelStudy) -> dict[str, float]:
    """Estimate the CPU time (s) of each label to compute, by task key, in the order of the plan."""
    if not plan.tasks:
        return {}
    estimates = _fit_cost_model(plan, settings).predict_seconds(_compute_terms(plan.tasks, settings))
    return {task.key: float(seconds) for task, seconds in zip(plan.tasks, estimates, strict=True)}
