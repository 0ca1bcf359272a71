"""`paretofit label`: from a study's section 'labelling' to a dataset with all its labels."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from paretofit.core import InputError, check_writable, read_json_lines, track_cost
from paretofit.dataset import Dataset
from paretofit.execution import use_cluster
from paretofit.labelling import (
    JOURNAL_FILE,
    CostModel,
    CostTracker,
    LabelPlan,
    choose_probe_labels,
    collect_failure_reasons,
    compute_labels,
    cost_terms,
    fit_cost_model,
    format_seconds,
    format_wall_time,
    is_record,
    open_label_journal,
    plan_labels,
    read_output,
    select_engine_labels,
    write_labels,
)
from paretofit.study import LabelStudy, load_label_study, log_to_file, open_run_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paretofit.core import Array
    from paretofit.labelling import Record, Task

log = logging.getLogger(__name__)

LAUNCHERS = {"mpirun", "mpiexec", "srun", "aprun", "orterun", "jsrun"}
PROBES = 8
PROBE_SECONDS = 60.0  # CPU, by the prior of the cost model, for all probes together


@dataclass(frozen=True)
class LabelResult:
    """What a labelling run did.

    Attributes
    ----------
    dataset : Path
    folder : Path
        With the journal, the log, and the engine's files of failed labels.
    n_computed, n_failed, n_remaining, n_complete : int
        Labels of this run, how many of them failed, labels that are still to be computed, and complete labels that
        the dataset holds now.
    cpu_seconds : float
        What this run spent.
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
    """Compute the labels that a study asks for and its dataset lacks, then write the dataset.

    Every finished label is on disk at once, in ``labels.jsonl`` of the run folder; a run that was killed goes on
    with what is left. The dataset is written at the end, and also where the run is interrupted from the keyboard.

    Parameters
    ----------
    study : LabelStudy or path-like
    out : path-like, optional
        The run folder; by default ``runs/<name>-labels`` in the working folder.
    jobs : int
        Processes, each with one thread.
    progress : bool
        Show what is done, what it has cost, and what is left.
    retry_failed : bool
        Compute again what failed in an earlier run.

    Returns
    -------
    LabelResult

    Raises
    ------
    InputError
        If the study, its structures or its engine cannot be used; nothing has been computed then.
    """
    settings = _settings(study)
    labelling, dataset = settings.labelling, settings.dataset
    with (
        open_run_folder(_folder(settings, out), settings.name) as folder,
        log_to_file(folder / "label.log"),
        open_label_journal(folder) as journal,
        use_cluster(settings.cluster, jobs, folder),
    ):
        check_writable(dataset)
        plan = plan_labels(labelling, dataset, journal.entries, retry_failed=retry_failed)
        log.info(
            "study %s: %d labels to compute, %d in the journal",
            settings.name,
            len(plan.tasks),
            len(plan.finished_records),
        )
        account = CostTracker(_estimates(plan, settings), jobs)
        n_failed = computed = 0
        results = compute_labels(plan, labelling, journal, folder, jobs)
        try:
            for task, record in _shown(results, plan, account, progress):
                computed += 1
                n_failed += record["status"] == "failed"
                account.add(task.key, record["seconds"] or 0.0)
        finally:  # also after Ctrl-C: what is finished is in the dataset, too
            results.close()
            plan = _write(settings, plan.finished_records)
        log.info("%d labels computed, %d of them failed, %.1f CPU seconds", computed, n_failed, account.spent_seconds)
    return _result(settings, folder, plan, (computed, n_failed, account.spent_seconds))


def choose_label_jobs(study: LabelStudy | Path | str, cores: int) -> int:
    """Labels at a time where nobody says: one for each core, but one alone where each is run by MPI."""
    command = getattr(_settings(study).labelling.engine, "command", None) or ""
    return 1 if command.split()[:1] and Path(command.split()[0]).name in LAUNCHERS else cores


def collect_labels(study: LabelStudy | Path | str, *, out: Path | str | None = None) -> LabelResult:
    """Write the dataset with the labels that are finished so far; another process may be computing more."""
    settings = _settings(study)
    folder = _folder(settings, out)
    plan = _write(settings, _finished(folder))
    if not settings.dataset.exists():
        raise InputError(f"no label is finished yet, so that there is no {settings.dataset}; run 'paretofit label'")
    return _result(settings, folder, plan, (0, 0, 0.0))


def estimate_label_cost(
    study: LabelStudy | Path | str,
    *,
    out: Path | str | None = None,
    jobs: int = 1,
    progress: bool = False,
    probe: bool = True,
) -> tuple[pd.DataFrame, CostModel]:
    """Say what the missing labels will cost, from a few that are computed (and kept) as a probe.

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
    settings = _settings(study)
    folder = _folder(settings, out)
    plan = plan_labels(settings.labelling, settings.dataset, _finished(folder).values())
    if probe and plan.tasks and _cost_model(plan, settings).n_labels < PROBES:
        with (
            open_run_folder(folder, settings.name),
            open_label_journal(folder) as journal,
            use_cluster(settings.cluster, jobs, folder),
        ):
            chosen = choose_probe_labels(_terms(plan.tasks, settings), PROBES, PROBE_SECONDS)[
                : max(3, len(plan.tasks) // 4)
            ]
            probes = LabelPlan(plan.collected, [plan.tasks[k] for k in chosen], plan.finished_records, plan.task_keys)
            account = CostTracker(_estimates(probes, settings), jobs)
            for task, record in _shown(
                compute_labels(probes, settings.labelling, journal, folder, jobs), probes, account, progress
            ):
                account.add(task.key, record["seconds"] or 0.0)
        plan = plan_labels(settings.labelling, settings.dataset, _finished(folder).values())
    seconds = _estimates(plan, settings)
    rows = pd.DataFrame({"level": [task.level.name for task in plan.tasks], "seconds": list(seconds.values())})
    grouped = rows.groupby("level", sort=False)["seconds"]
    table = pd.DataFrame({"to_do": grouped.count(), "cpu_hours": grouped.sum() / 3600})
    table = table.assign(mean_seconds=grouped.mean(), largest_seconds=grouped.max())
    order = [level.name for level in settings.labelling.ladder if level.name in table.index]
    return table.loc[order].reset_index(), _cost_model(plan, settings)


def write_label_inputs(
    study: LabelStudy | Path | str, inputs_folder: Path | str, *, out: Path | str | None = None
) -> str:
    """Write the engine's input files of all missing labels, to be computed elsewhere and imported later.

    Parameters
    ----------
    study : LabelStudy or path-like
    inputs_folder : path-like
        Gets a folder ``<level>/<configuration id>`` for each label.
    out : path-like, optional
        The run folder, as in `label_study`: what is finished there is not written.

    Returns
    -------
    str
        How many there are, what the user has to add to them, and how the results are imported.

    Raises
    ------
    InputError
        If the engine has no input files, or one of them cannot be written.
    """
    settings = _settings(study)
    plan = plan_labels(
        settings.labelling, settings.dataset, _finished(_folder(settings, out)).values(), require_engine=False
    )
    missing: dict[str, None] = {}
    for task in plan.tasks:
        place = Path(inputs_folder) / task.level.name / str(task.config_id)
        try:
            place.mkdir(parents=True, exist_ok=True)
            missing |= dict.fromkeys(settings.labelling.engine.write_inputs(task.atoms, task.level, place))
        except OSError as error:
            raise InputError(f"{place} cannot be written: {error.strerror}; name another folder") from error
    if not plan.tasks:
        return "nothing to do: every label is there"
    if plan.collected.configurations.keys() - _ids(settings.dataset):
        write_labels(plan, settings.labelling, settings.dataset)  # the structures, with the ids that the folders bear
    lines = [f"{inputs_folder}: inputs of {len(plan.tasks)} labels, a folder <level>/<id> for each"]
    if missing:
        lines.append(f"to be added: {'; '.join(missing)}")
    lines.append(f"when they have run: paretofit label STUDY.yaml --read-outputs {inputs_folder}")
    return "\n".join(lines)


def read_label_outputs(
    study: LabelStudy | Path | str, outputs_folder: Path | str, *, out: Path | str | None = None
) -> LabelResult:
    """Take in what has run elsewhere, from the folders that `write_label_inputs` has made.

    Parameters
    ----------
    study : LabelStudy or path-like
    outputs_folder : path-like
        With a folder ``<level>/<configuration id>`` for each label. What has not run yet stays to be computed; what
        did not converge, or failed, is recorded as failed with its reason.
    out : path-like, optional
        The run folder, as in `label_study`.

    Raises
    ------
    InputError
        If there is no such folder, or the engine has no output files.
    """
    settings = _settings(study)
    engine = settings.labelling.engine
    if not Path(outputs_folder).is_dir():
        raise InputError(f"no folder at {outputs_folder}; name the one that 'paretofit label --write-inputs' has made")
    with open_run_folder(_folder(settings, out), settings.name) as folder, open_label_journal(folder) as journal:
        plan = plan_labels(
            settings.labelling, settings.dataset, journal.entries, retry_failed=True, require_engine=False
        )
        taken = [record for task in plan.tasks if (record := read_output(task, engine, Path(outputs_folder)))]
        for record in taken:
            journal.append(record)
            plan.finished_records[record["key"]] = record
        after = _write(settings, plan.finished_records, compute=False)
    seconds = sum(record["seconds"] or 0.0 for record in taken)
    failed = sum(record["status"] == "failed" for record in taken)
    return _result(settings, folder, after, (len(taken), failed, seconds))


def _result(settings: LabelStudy, folder: Path, plan: LabelPlan, done: tuple[int, int, float]) -> LabelResult:
    """The result of a run that computed so many labels, of which so many failed, in so many seconds."""
    held = 0
    if settings.dataset.exists():
        with Dataset(settings.dataset) as data:
            held = sum(int(data.labels(level).complete.sum()) for level in data.levels)
    computed, failed, seconds = done
    return LabelResult(
        settings.dataset, folder, computed, failed, len(plan.tasks), held, seconds, collect_failure_reasons(plan)
    )


def _ids(dataset: Path) -> set[int]:
    if not dataset.exists():
        return set()
    with Dataset(dataset) as data:
        return set(data.ids.tolist())


def format_labels(result: LabelResult) -> str:
    """What a run did, as plain text: failed labels counted by reason."""
    done = (
        f"{result.n_complete} labels, {result.n_computed} of them new in {format_seconds(result.cpu_seconds, 'CPU ')}"
    )
    left = f", {result.n_remaining} still to compute" if result.n_remaining else ", none is left to compute"
    lines = [f"{result.dataset}: {done}{left}"]
    counts = Counter((level, why) for (level, _), why in result.failures.items())
    first = {(level, why): identity for (level, identity), why in reversed(result.failures.items())}
    for (level, why), count in counts.items():
        lines.append(f"level {level}: {count} failed, such as configuration {first[level, why]}: {why}")
    if counts:
        lines.append(f"what the engine wrote is in {result.folder / 'failed'}; --retry-failed computes them again")
    return "\n".join(lines)


def format_estimate(table: pd.DataFrame, model: CostModel, jobs: int) -> str:
    """The estimate as plain text: a line for each level, the sum, and what it rests on."""
    if table.empty:
        return "nothing to do: every label is there"
    lines = [f"{'level':<10}{'labels':>8}{'CPU hours':>12}{'mean s':>10}{'largest s':>12}"]
    for row in table.to_dict("records"):
        numbers = f"{row['cpu_hours']:>12.3g}{row['mean_seconds']:>10.3g}{row['largest_seconds']:>12.3g}"
        lines.append(f"{row['level']:<10}{row['to_do']:>8}{numbers}")
    total = float(table["cpu_hours"].sum())
    lines.append(f"{'all':<10}{table['to_do'].sum():>8}{total:>12.3g}")
    width = min(jobs, int(table["to_do"].sum()))
    lines.append(f"about {format_wall_time(3600 * total, width)}")
    if model.n_labels:
        factor = np.exp(model.rms_log_residual)
        lines.append(f"from {model.n_labels} finished labels, which the model meets within a factor of {factor:.2f}")
    else:
        lines.append("no label is finished yet: orders of magnitude only")
    return "\n".join(lines)


def _settings(study: LabelStudy | Path | str) -> LabelStudy:
    return study if isinstance(study, LabelStudy) else load_label_study(study)


def _folder(settings: LabelStudy, out: Path | str | None) -> Path:
    return Path(out) if out is not None else Path("runs") / f"{settings.name}-labels"


def _finished(folder: Path) -> dict[str, Record]:
    path = folder / JOURNAL_FILE
    entries = read_json_lines(path)[0] if path.exists() else []
    return {record["key"]: record for record in entries if is_record(record)}


def _write(settings: LabelStudy, finished: dict[str, Record], *, compute: bool = True) -> LabelPlan:
    """Write the dataset from what stands there now: another command may have added to it in the meantime."""
    there = plan_labels(
        settings.labelling, settings.dataset, finished.values(), retry_failed=True, require_engine=compute
    )
    if any(key in there.finished_records for keys in there.task_keys.values() for key in keys.values()):
        write_labels(there, settings.labelling, settings.dataset)
    return plan_labels(settings.labelling, settings.dataset, finished.values(), require_engine=compute)


def _shown(
    results: Iterator[tuple[Task, Record]], plan: LabelPlan, account: CostTracker, progress: bool
) -> Iterator[tuple[Task, Record]]:
    return track_cost(results, len(plan.tasks), account.report_progress) if progress else results


def _terms(tasks: list[Task], settings: LabelStudy) -> Array:
    engine = settings.labelling.engine
    return np.array([cost_terms(task.atoms, task.level, engine) for task in tasks])


def _cost_model(plan: LabelPlan, settings: LabelStudy) -> CostModel:
    """The cost of labels, from those of this engine that are finished: in the journal and in the dataset."""
    engine = settings.labelling.engine
    terms, seconds = [], []
    for level in settings.labelling.selected_levels:
        for identity, label in select_engine_labels(plan, level.name, engine).items():
            if label.get("status") == "done" and (label.get("seconds") or 0) > 0:
                terms.append(cost_terms(plan.collected.configurations[identity], level, engine))
                seconds.append(label["seconds"])
    return fit_cost_model(np.array(terms), seconds)


def _estimates(plan: LabelPlan, settings: LabelStudy) -> dict[str, float]:
    if not plan.tasks:
        return {}
    seconds = _cost_model(plan, settings).predict_seconds(_terms(plan.tasks, settings))
    return {task.key: float(one) for task, one in zip(plan.tasks, seconds, strict=True)}
