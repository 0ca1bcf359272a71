"""`paretofit label`: from the section 'labelling' of a study to a dataset with all its labels."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from paretofit.commands.study_sections import LabelStudy, load_label_study
from paretofit.core import Array, InputError, check_writable, read_json_lines, track_cost
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
    compute_labels,
    cost_terms,
    fit_cost_model,
    is_record,
    open_label_journal,
    plan_labels,
    read_output,
    select_engine_labels,
    write_labels,
)
from paretofit.study import log_to_file, open_run_folder

log = logging.getLogger(__name__)

LAUNCHERS = {"mpirun", "mpiexec", "srun", "aprun", "orterun", "jsrun"}
MAX_PROBES = 8
MAX_PROBE_SECONDS = 60.0  # CPU time of all probes together, by the prior of the cost model


@dataclass(frozen=True)
class LabelResult:
    """Result of a labelling run.

    Attributes
    ----------
    dataset : Path
    folder : Path
        With the journal, the log, and the engine's files of failed labels.
    n_computed, n_failed, n_remaining, n_complete : int
        Labels computed in this run, failed labels among them, labels that are still missing, and complete labels in
        the dataset.
    cpu_seconds : float
        CPU time of this run.
    failures : dict
        Reason by (level, configuration id), of all failed labels of the plan.
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

    Every finished label is stored at once, in ``labels.jsonl`` of the run folder; a run that was killed resumes with
    the missing labels. The dataset is written at the end, and also where the run is interrupted from the keyboard.

    Parameters
    ----------
    study : LabelStudy or path-like
    out : path-like, optional
        The run folder; by default ``runs/<name>-labels`` in the working directory.
    jobs : int
        Number of processes, each with one thread.
    progress : bool
        Show the number of labels and their cost, finished and missing.
    retry_failed : bool
        Compute labels again that failed in an earlier run.

    Returns
    -------
    LabelResult

    Raises
    ------
    InputError
        If the study, its structures or its engine cannot be used; nothing has been computed then.
    """
    settings = _load(study)
    labelling, dataset = settings.labelling, settings.dataset
    with (
        open_run_folder(_get_folder(settings, out), settings.name) as folder,
        log_to_file(folder / "label.log"),
        open_label_journal(folder) as journal,
        use_cluster(settings.cluster, jobs, folder),
    ):
        check_writable(dataset)
        plan = plan_labels(labelling, dataset, journal.entries, retry_failed=retry_failed)
        n_tasks, n_journal = len(plan.tasks), len(plan.finished_records)
        log.info("study %s: %d labels to compute, %d in the journal", settings.name, n_tasks, n_journal)
        tracker = CostTracker(_estimate_seconds(plan, settings), jobs)
        n_failed = n_computed = 0
        results = compute_labels(plan, labelling, journal, folder, jobs)
        try:
            for record in _track(results, plan, tracker, RunContext(jobs, progress)):
                n_computed += 1
                n_failed += record["status"] == "failed"
        finally:  # also after Ctrl-C, so that the dataset has all finished labels
            results.close()
            plan = _write_dataset(settings, plan.finished_records)
        seconds = tracker.spent_seconds
        log.info("%d labels computed, %d of them failed, %.1f CPU seconds", n_computed, n_failed, seconds)
    return _make_result(settings, folder, plan, n_computed, n_failed, seconds)


def choose_label_jobs(study: LabelStudy | Path | str, cores: int) -> int:
    """Default number of labels at a time: one for each core, but one alone where labels run by MPI."""
    command = getattr(_load(study).labelling.engine, "command", None) or ""
    return 1 if command.split()[:1] and Path(command.split()[0]).name in LAUNCHERS else cores


def collect_labels(study: LabelStudy | Path | str, *, out: Path | str | None = None) -> LabelResult:
    """Write the labels that are finished so far to the dataset; another process may be computing more."""
    settings = _load(study)
    folder = _get_folder(settings, out)
    plan = _write_dataset(settings, _read_finished(folder))
    if not settings.dataset.exists():
        raise InputError(f"no label is finished yet, so that there is no {settings.dataset}; run 'paretofit label'")
    return _make_result(settings, folder, plan)


def estimate_label_cost(
    study: LabelStudy | Path | str,
    *,
    out: Path | str | None = None,
    jobs: int = 1,
    progress: bool = False,
    probe: bool = True,
) -> tuple[pd.DataFrame, CostModel]:
    """Estimate the cost of the missing labels; a few are computed first, as probes, and stored.

    Parameters
    ----------
    study : LabelStudy or path-like
    out, jobs, progress
        As in `label_study`.
    probe : bool
        Compute up to eight cheap labels first, unless as many are finished already.

    Returns
    -------
    table : pandas.DataFrame
        By level: labels ``to_do``, ``cpu_hours`` of all of them, ``mean_seconds`` and ``largest_seconds`` of one.
    model : CostModel
        With the spread of the finished labels around it.
    """
    settings = _load(study)
    folder = _get_folder(settings, out)
    plan = _plan(settings, folder)
    if probe and plan.tasks and _fit_cost_model(plan, settings).n_labels < MAX_PROBES:
        _compute_probes(plan, settings, folder, RunContext(jobs, progress))
        plan = _plan(settings, folder)
    seconds = _estimate_seconds(plan, settings)
    rows = pd.DataFrame({"level": [task.level.name for task in plan.tasks], "seconds": list(seconds.values())})
    groups = rows.groupby("level", sort=False)["seconds"]
    table = pd.DataFrame(
        {
            "to_do": groups.count(),
            "cpu_hours": groups.sum() / 3600,
            "mean_seconds": groups.mean(),
            "largest_seconds": groups.max(),
        }
    )
    order = [level.name for level in settings.labelling.ladder if level.name in table.index]
    return table.loc[order].reset_index(), _fit_cost_model(plan, settings)


def _compute_probes(plan: LabelPlan, settings: LabelStudy, folder: Path, context: RunContext) -> None:
    with (
        open_run_folder(folder, settings.name),
        open_label_journal(folder) as journal,
        use_cluster(settings.cluster, context.jobs, folder),
    ):
        cheapest = choose_probe_labels(_compute_terms(plan.tasks, settings), MAX_PROBES, MAX_PROBE_SECONDS)
        tasks = [plan.tasks[k] for k in cheapest[: max(3, len(plan.tasks) // 4)]]
        probes = LabelPlan(plan.collected, tasks, plan.finished_records, plan.task_keys)
        tracker = CostTracker(_estimate_seconds(probes, settings), context.jobs)
        results = compute_labels(probes, settings.labelling, journal, folder, context.jobs)
        for _ in _track(results, probes, tracker, context):
            pass


def write_label_inputs(
    study: LabelStudy | Path | str, inputs_folder: Path | str, *, out: Path | str | None = None
) -> str:
    """Write the engine's input files of all missing labels, to be computed elsewhere and read later.

    Parameters
    ----------
    study : LabelStudy or path-like
    inputs_folder : path-like
        Gets a folder ``<level>/<configuration id>`` for each label.
    out : path-like, optional
        The run folder, as in `label_study`: inputs of labels that are finished there are not written.

    Returns
    -------
    str
        The number of inputs, the files that the user has to add to them, and how to read the results.

    Raises
    ------
    InputError
        If the engine has no input files, or one of them cannot be written.
    """
    settings = _load(study)
    plan = _plan(settings, _get_folder(settings, out), require_engine=False)
    missing_files: dict[str, None] = {}
    for task in plan.tasks:
        folder = Path(inputs_folder) / task.level.name / str(task.config_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            missing_files |= dict.fromkeys(settings.labelling.engine.write_inputs(task.atoms, task.level, folder))
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error.strerror}; name another folder") from error
    if not plan.tasks:
        return "nothing to do: no label is missing"
    if plan.collected.configurations.keys() - _read_ids(settings.dataset):
        write_labels(plan, settings.labelling, settings.dataset)  # the structures, with the ids of the folders
    lines = [f"{inputs_folder}: inputs of {len(plan.tasks)} labels, a folder <level>/<id> for each"]
    if missing_files:
        lines.append(f"files to add: {'; '.join(missing_files)}")
    lines.append(f"after the computation: paretofit label STUDY.yaml --read-outputs {inputs_folder}")
    return "\n".join(lines)


def read_label_outputs(
    study: LabelStudy | Path | str, outputs_folder: Path | str, *, out: Path | str | None = None
) -> LabelResult:
    """Read labels that were computed elsewhere, in the folders of `write_label_inputs`.

    Parameters
    ----------
    study : LabelStudy or path-like
    outputs_folder : path-like
        With a folder ``<level>/<configuration id>`` for each label. Labels that have not run remain missing; those
        that did not converge, or failed, are recorded as failed with the reason.
    out : path-like, optional
        The run folder, as in `label_study`.

    Raises
    ------
    InputError
        If there is no such folder, or the engine has no output files.
    """
    settings = _load(study)
    engine = settings.labelling.engine
    if not Path(outputs_folder).is_dir():
        raise InputError(f"no folder at {outputs_folder}; name the one that 'paretofit label --write-inputs' has made")
    with open_run_folder(_get_folder(settings, out), settings.name) as folder, open_label_journal(folder) as journal:
        plan = plan_labels(
            settings.labelling, settings.dataset, journal.entries, retry_failed=True, require_engine=False
        )
        records = [record for task in plan.tasks if (record := read_output(task, engine, Path(outputs_folder)))]
        for record in records:
            journal.append(record)
            plan.finished_records[record["key"]] = record
        remaining = _write_dataset(settings, plan.finished_records, require_engine=False)
    seconds = sum(record["seconds"] or 0.0 for record in records)
    n_failed = sum(record["status"] == "failed" for record in records)
    return _make_result(settings, folder, remaining, len(records), n_failed, seconds)


def _make_result(
    settings: LabelStudy, folder: Path, plan: LabelPlan, n_computed: int = 0, n_failed: int = 0, seconds: float = 0.0
) -> LabelResult:
    n_complete = 0
    if settings.dataset.exists():
        with Dataset(settings.dataset) as data:
            n_complete = sum(int(data.labels(level).complete.sum()) for level in data.levels)
    failures = collect_failure_reasons(plan)
    return LabelResult(settings.dataset, folder, n_computed, n_failed, len(plan.tasks), n_complete, seconds, failures)


def _read_ids(dataset: Path) -> set[int]:
    if not dataset.exists():
        return set()
    with Dataset(dataset) as data:
        return set(data.ids.tolist())


def _load(study: LabelStudy | Path | str) -> LabelStudy:
    return study if isinstance(study, LabelStudy) else load_label_study(study)


def _get_folder(settings: LabelStudy, out: Path | str | None) -> Path:
    return Path(out) if out is not None else Path("runs") / f"{settings.name}-labels"


def _read_finished(folder: Path) -> dict[str, Record]:
    path = folder / JOURNAL_FILE
    entries = read_json_lines(path)[0] if path.exists() else []
    return {record["key"]: record for record in entries if is_record(record)}


def _plan(settings: LabelStudy, folder: Path, **options: Any) -> LabelPlan:
    return plan_labels(settings.labelling, settings.dataset, _read_finished(folder).values(), **options)


def _write_dataset(settings: LabelStudy, finished: dict[str, Record], *, require_engine: bool = True) -> LabelPlan:
    """Write the labels to the dataset as it is now: another command may have added to it; return a new plan."""
    labelling, dataset = settings.labelling, settings.dataset
    plan = plan_labels(labelling, dataset, finished.values(), retry_failed=True, require_engine=require_engine)
    if any(key in plan.finished_records for keys in plan.task_keys.values() for key in keys.values()):
        write_labels(plan, labelling, dataset)
    return plan_labels(labelling, dataset, finished.values(), require_engine=require_engine)


def _track(
    results: Iterator[tuple[Task, Record]], plan: LabelPlan, tracker: CostTracker, context: RunContext
) -> Iterator[Record]:
    """Yield the records of finished labels, add their cost to the tracker, and show the progress."""
    shown = track_cost(results, len(plan.tasks), tracker.report_progress) if context.progress else results
    for task, record in shown:
        tracker.add(task.key, record["seconds"] or 0.0)
        yield record


def _compute_terms(tasks: list[Task], settings: LabelStudy) -> Array:
    engine = settings.labelling.engine
    return np.array([cost_terms(task.atoms, task.level, engine) for task in tasks])


def _fit_cost_model(plan: LabelPlan, settings: LabelStudy) -> CostModel:
    """Fit the cost of labels to the finished ones of this engine, from the journal and the dataset."""
    engine = settings.labelling.engine
    terms, seconds = [], []
    for level in settings.labelling.selected_levels:
        for config_id, label in select_engine_labels(plan, level.name, engine).items():
            if label.get("status") == "done" and (label.get("seconds") or 0) > 0:
                terms.append(cost_terms(plan.collected.configurations[config_id], level, engine))
                seconds.append(label["seconds"])
    return fit_cost_model(np.array(terms), seconds)


def _estimate_seconds(plan: LabelPlan, settings: LabelStudy) -> dict[str, float]:
    if not plan.tasks:
        return {}
    seconds = _fit_cost_model(plan, settings).predict_seconds(_compute_terms(plan.tasks, settings))
    return {task.key: float(value) for task, value in zip(plan.tasks, seconds, strict=True)}
