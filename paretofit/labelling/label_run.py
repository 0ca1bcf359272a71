"""Computation of the missing labels of a dataset in parallel; each label is stored as soon as it is finished."""

import json
import logging
import math
import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from paretofit.core import ExecutionError, InputError, JsonLines, join_lines, remove_file, remove_stale_folders
from paretofit.dataset import Label, LevelData, write_dataset
from paretofit.execution import run_tasks
from paretofit.labelling.cost import PRIOR_COEFFICIENTS, compute_cost_terms
from paretofit.labelling.engines.base import Engine
from paretofit.labelling.gather import CollectedData, collect_configurations
from paretofit.labelling.label_settings import LabelSettings
from paretofit.labelling.ladder import Level
from paretofit.labelling.tasks import Record, Task, build_record, compute_label, compute_task_key, is_record

log = logging.getLogger(__name__)

JOURNAL_FILE = "labels.jsonl"
FINISHED_FOLDER = "done"  # directory of the records of finished labels that are not yet in the journal
PLANE_WAVE_DENSITY = 0.00230  # number of plane waves per Å³ and eV^{3/2}: (2m)^{3/2} / (6π² ħ³)
# number of consecutive failures for the same reason that stops a run, before and after the first success
MAX_FAILURES_BEFORE_SUCCESS, MAX_FAILURES_IN_A_ROW = 5, 20
MAX_KPOINTS, MAX_PLANE_WAVES = 200_000, 1e7  # of a label; above these numbers, a unit is probably wrong


@dataclass(frozen=True)
class LabelPlan:
    """Finished labels and labels to compute.

    Attributes
    ----------
    collected_data : CollectedData
        Configurations and existing labels.
    tasks : list of Task
        Labels to compute, in the order in which they are started.
    finished_records : dict of str to dict
        Records of this and earlier runs, by task key; `compute_labels` adds records.
    task_keys : dict of str to dict of int to str
        Keys of the labels that the dataset lacks, finished ones included, by level and configuration id.
    """

    collected_data: CollectedData
    tasks: list[Task]
    finished_records: dict[str, Record]
    task_keys: dict[str, dict[int, str]]

    def get_finished_labels(self, level: str) -> dict[int, Label]:
        """Return the records of the finished tasks of a level, failed ones included, by configuration id."""
        records, keys = self.finished_records, self.task_keys.get(level, {})
        return {config_id: records[key] for config_id, key in keys.items() if key in records}


def plan_labels(
    settings: LabelSettings,
    dataset: Path,
    records: Iterable[Record],
    *,
    retry_failed: bool = False,
    require_engine: bool = True,
) -> LabelPlan:
    """Determine the labels to compute, and check configurations, levels and engine before the first calculation.

    Parameters
    ----------
    settings : LabelSettings
    dataset : Path
        Path of the dataset, which need not exist; labels that it contains are not computed again.
    records : iterable of dict
        Records of labels that earlier runs finished.
    retry_failed : bool
        Whether to compute failed labels again.
    require_engine : bool
        Whether to check that the engine is installed on this machine, and has its files, such as pseudopotentials, for
        all elements. Levels are always checked.

    Raises
    ------
    InputError
        - If `levels` or `subsets` in the settings has a level that the ladder lacks.
        - If the configurations are not valid (see `collect_configurations`).
        - If `subsets` has the id of a configuration that does not exist.
        - If the engine is not installed, or has no pseudopotential or other required file for an element.
        - If the engine does not support a setting of a level.
        - If a level does not set its k-point spacing, or its spacing or cutoff is probably in a wrong unit (only for
          engines that need a cell).
    """
    try:
        settings.check_levels()
    except ValueError as error:
        raise InputError(f"'labelling': {error}; add a 'ladder' with this level") from error
    collected_data, engine = collect_configurations(settings, dataset), settings.engine
    if require_engine:
        engine.check(collected_data.elements)
    for level in settings.selected_levels:
        engine.check_level(level)
        if engine.needs_cell:
            _check_meshes(collected_data, level)
    finished_records = {record["key"]: record for record in records if is_record(record)}
    tasks: list[Task] = []
    task_keys: dict[str, dict[int, str]] = {}
    for level in settings.selected_levels:
        labels = collected_data.labels.get(level.name, {})
        level_tasks: list[Task] = []
        for config_id in _select_configurations(collected_data, level, settings):
            if _must_compute(labels.get(config_id), retry_failed):
                atoms = collected_data.configurations[config_id]
                level_tasks.append(Task(config_id, atoms, level, compute_task_key(atoms, level, engine)))
        task_keys[level.name] = {task.config_id: task.key for task in level_tasks}
        tasks += [task for task in level_tasks if _must_compute(finished_records.get(task.key), retry_failed)]
    if settings.order == "configurations":
        # in reverse order, so that the index of the first task of each configuration remains
        first_index_by_id = {task.config_id: index for index, task in reversed(list(enumerate(tasks)))}
        tasks.sort(key=lambda task: first_index_by_id[task.config_id])  # stable, so the levels stay in order
    return LabelPlan(collected_data, tasks, finished_records, task_keys)


def open_label_journal(folder: Path) -> JsonLines:
    """Open the journal of a run directory.

    Records that a killed run left in files of `FINISHED_FOLDER` are moved to the journal; truncated files are removed.
    """
    journal = JsonLines(folder / JOURNAL_FILE)
    journal_keys = {record["key"] for record in journal.entries if is_record(record)}
    for path in sorted((folder / FINISHED_FOLDER).glob("*.json")):
        with suppress(OSError, ValueError, RecursionError):  # a truncated file: its label is computed again
            record = json.loads(path.read_text(encoding="utf-8"))
            if is_record(record) and record["key"] not in journal_keys:
                journal.append(record)  # to the file only
                journal.entries.append(record)
        remove_file(path)
    return journal


def _check_meshes(collected_data: CollectedData, level: Level) -> None:
    """Raise `InputError` if a level does not set its k-point spacing, or its spacing or cutoff is in a wrong unit.

    A spacing of null (Gamma only) must be set explicitly. A unit is probably wrong if a configuration would have more
    than `MAX_KPOINTS` k-points or `MAX_PLANE_WAVES` plane waves.
    """
    if level.kspacing_per_angstrom is None and "kspacing_per_angstrom" not in level.model_fields_set:
        raise InputError(
            f"level '{level.name}' has no 'kspacing_per_angstrom'; specify a value in 1/Å, or null for Gamma only"
        )
    for config_id, atoms in collected_data.configurations.items():
        n_kpoints = math.prod(level.get_kpoint_mesh(atoms))
        n_waves = abs(atoms.cell.volume) * (level.cutoff_ev or 0.0) ** 1.5 * PLANE_WAVE_DENSITY
        if n_kpoints > MAX_KPOINTS or n_waves > MAX_PLANE_WAVES:
            raise InputError(
                f"at level '{level.name}', configuration {config_id} would have {n_kpoints} k-points and {n_waves:.2g} "
                "plane waves; check the units of 'kspacing_per_angstrom' (1/Å) and 'cutoff_ev' (eV)"
            )


def _select_configurations(collected_data: CollectedData, level: Level, settings: LabelSettings) -> list[int]:
    """Select the configurations to label at a level; return their ids in order of appearance.

    If their number is limited, configurations that are already labelled are selected first, and then the cheapest ones.
    An unknown id in the settings raises `InputError`.
    """
    subset, structures = settings.subsets.get(level.name), collected_data.configurations
    if subset is None:
        return list(structures)
    requested_ids = set(structures if subset.ids is None else subset.ids)
    if unknown_ids := requested_ids - set(structures):
        raise InputError(
            f"'labelling.subsets' of level '{level.name}' has id {min(unknown_ids)}, which no configuration has"
        )
    ids = [
        config_id
        for config_id, atoms in structures.items()
        if config_id in requested_ids and (subset.max_atoms is None or len(atoms) <= subset.max_atoms)
    ]
    if subset.max_configurations is None or subset.max_configurations >= len(ids):
        return ids
    labels = collected_data.labels.get(level.name, {})
    terms = {config_id: compute_cost_terms(structures[config_id], level, settings.engine) for config_id in ids}
    costs = {config_id: float(terms[config_id] @ PRIOR_COEFFICIENTS) for config_id in ids}
    sorted_ids = sorted(ids, key=lambda config_id: (config_id not in labels, costs[config_id]))
    selected_ids = set(sorted_ids[: subset.max_configurations])
    return [config_id for config_id in ids if config_id in selected_ids]


def _must_compute(label: Mapping[str, Any] | None, retry_failed: bool) -> bool:
    """Check whether a label is missing (None), or has failed and is to be computed again."""
    return label is None or (retry_failed and label["status"] == "failed")


def compute_labels(
    plan: LabelPlan, settings: LabelSettings, journal: JsonLines, folder: Path, jobs: int
) -> Generator[tuple[Task, Record], None, None]:
    """Compute the labels of a plan in parallel, and yield each as soon as it is stored in the journal.

    The name and version of the program are added to each record, which is also stored in ``plan.finished_records``. The
    files of failed labels are stored in ``folder/failed``.

    Parameters
    ----------
    plan : LabelPlan
    settings : LabelSettings
    journal : JsonLines
        Journal of the run directory, see `open_label_journal`.
    folder : Path
        Run directory.
    jobs : int
        Number of labels that are computed at the same time.

    Yields
    ------
    Task, dict
        A task and its record, in order of completion; failed labels are yielded, too.

    Raises
    ------
    ExecutionError
        If too many labels in succession fail for the same reason (see `FailureCounter`), or the disk is full.
    InputError
        If an input file of the engine cannot be written or read.
    """
    compute_task = partial(
        compute_label,
        engine=settings.engine,
        retries=settings.retries,
        failed_folder=folder.absolute() / "failed",
        finished_folder=folder.absolute() / FINISHED_FOLDER,
    )
    program = settings.engine.describe_version([]).split(",", maxsplit=1)[0]  # program and version, without the data
    failures = FailureCounter()
    try:
        with closing(run_tasks(compute_task, plan.tasks, jobs, _build_crash_record, job_per_task=True)) as records:
            for task, record in records:
                record["info"]["engine"] = program
                journal.append(record)
                remove_file(folder / FINISHED_FOLDER / f"{task.key}.json")
                plan.finished_records[task.key] = record
                if record["status"] == "failed":
                    reason = get_failure_reason(record)
                    log.warning("configuration %d, level %s failed: %s", task.config_id, task.level.name, reason)
                yield task, record
                failures.add(record)
    finally:
        remove_stale_folders("label")  # scratch directories of killed `compute_label` processes


@dataclass
class FailureCounter:
    """Counter of consecutive labels that failed for the same reason, which then probably affects all labels.

    Attributes
    ----------
    reason : str
        Reason of the last failure, with paths and numbers replaced by "#", because they differ between labels; empty
        after a success.
    count : int
        Number of consecutive failures for this reason.
    has_success : bool
        Whether a label of this run has succeeded.
    """

    reason: str = ""
    count: int = 0
    has_success: bool = False

    def add(self, record: Mapping[str, Any]) -> None:
        """Count the record of a failed label; reset the count after a success.

        Raises
        ------
        ExecutionError
            After `MAX_FAILURES_IN_A_ROW` failures for the same reason, or `MAX_FAILURES_BEFORE_SUCCESS` if no label has
            succeeded.
        """
        if record["status"] != "failed":
            self.reason, self.count, self.has_success = "", 0, True
            return
        full_reason = get_failure_reason(record)
        reason = re.sub(r"\S*/\S*|[-+.\d]*\d[-+.\de]*", "#", full_reason)
        self.count = self.count + 1 if reason == self.reason else 1
        self.reason = reason
        if self.count >= (MAX_FAILURES_IN_A_ROW if self.has_success else MAX_FAILURES_BEFORE_SUCCESS):
            raise ExecutionError(
                f"{self.count} labels in succession failed for the same reason, so no further labels are computed: "
                f"{join_lines(full_reason)}; correct the cause, then run 'paretofit label' with --retry-failed"
            )


def _build_crash_record(task: Task) -> Record:
    """Build the record of a label whose process ended without a record."""
    reason = "the process ended unexpectedly (out of memory, or a crash of the engine)"
    return build_record(
        task, None, {"kpts": list(task.level.get_kpoint_mesh(task.atoms)), "attempts": 1, "reasons": [reason]}
    )


def get_failure_reason(record: Mapping[str, Any]) -> str:
    """Return the reason why the last attempt to compute a label failed, from the record of the label."""
    reasons = record.get("info", {}).get("reasons") or ["no reason was recorded"]
    return str(reasons[-1])


def collect_failure_reasons(plan: LabelPlan) -> dict[tuple[str, int], str]:
    """Collect the reason of each failed label of the dataset, this run and earlier runs, by level and id."""
    reasons: dict[tuple[str, int], str] = {}
    for level in plan.collected_data.labels | plan.task_keys:
        labels = {**plan.collected_data.labels.get(level, {}), **plan.get_finished_labels(level)}
        failed_labels = {config_id: label for config_id, label in labels.items() if label["status"] == "failed"}
        reasons |= {(level, config_id): get_failure_reason(label) for config_id, label in failed_labels.items()}
    return reasons


def select_engine_labels(plan: LabelPlan, level: str, engine: Engine) -> dict[int, Label]:
    """Select the labels of a level that any version of `engine` computed, failed ones included, by configuration id."""
    stored_engine = str(plan.collected_data.level_settings.get(level, {}).get("engine", ""))
    is_same_engine = stored_engine.split()[:1] == [engine.program]
    stored_labels = plan.collected_data.labels.get(level, {}) if is_same_engine else {}
    return {**stored_labels, **plan.get_finished_labels(level)}


def write_labels(plan: LabelPlan, settings: LabelSettings, dataset: Path) -> None:
    """Write all configurations to `dataset`, with their existing labels and the finished labels of the plan.

    An existing file is replaced. Finished labels take precedence over existing ones, and the stored settings of a level
    over those of the plan.
    """
    collected_data = plan.collected_data
    levels: dict[str, LevelData] = {}
    for name in _order_levels(list(collected_data.level_settings), [level.name for level in settings.selected_levels]):
        new_labels = plan.get_finished_labels(name)
        labels: dict[int, Label] = {**collected_data.labels.get(name, {}), **new_labels}
        if labels or name in collected_data.level_settings:
            level_labels = [labels.get(config_id) for config_id in collected_data.configurations]
            metadata = _collect_metadata(settings, name, collected_data.elements) if new_labels else {}
            levels[name] = LevelData(level_labels, {**metadata, **collected_data.level_settings.get(name, {})})
    write_dataset(dataset, list(collected_data.configurations.values()), levels, list(collected_data.configurations))


def _collect_metadata(settings: LabelSettings, name: str, elements: list[str]) -> dict[str, Any]:
    """Collect the settings of a level and of the engine, for storage with the labels."""
    level = next(level for level in settings.ladder if level.name == name)
    engine_settings = settings.engine.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
    metadata = {**settings.engine.make_level_metadata(level), "engine": settings.engine.describe_version(elements)}
    return {**metadata, **({"engine_settings": engine_settings} if engine_settings else {})}


def _order_levels(stored_levels: list[str], ladder: list[str]) -> list[str]:
    """Insert the new levels of a ladder into the stored levels, each after its nearest predecessor, or else first."""
    order = list(stored_levels)
    for k, name in enumerate(ladder):
        if name not in order:
            predecessors = [level for level in ladder[:k] if level in order]
            order.insert(order.index(predecessors[-1]) + 1 if predecessors else 0, name)
    return order
