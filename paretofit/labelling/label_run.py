"""Labels of a dataset: missing ones are computed in parallel, and each is on disk as soon as it is finished."""

import json
import logging
import math
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from paretofit.core import InputError, JsonLines, remove_file
from paretofit.dataset import Label, LevelData, write_dataset
from paretofit.execution import run_tasks
from paretofit.labelling.cost import PRIOR_COEFFICIENTS, cost_terms
from paretofit.labelling.engines.base import Engine
from paretofit.labelling.gather import CollectedData, collect_configurations
from paretofit.labelling.label_settings import LabelSettings
from paretofit.labelling.ladder import Level
from paretofit.labelling.scratch import remove_stale_scratch
from paretofit.labelling.tasks import Record, Task, compute_label, is_record, make_record, task_key

log = logging.getLogger(__name__)

JOURNAL_FILE = "labels.jsonl"
FINISHED_FOLDER = "done"  # directory of labels that are finished and not in the journal yet
PLANE_WAVE_DENSITY = 0.00230  # per Å³ and eV^{3/2}: (2m)^{3/2} / (6π² ħ³)
MAX_KPOINTS, MAX_PLANE_WAVES = 200_000, 1e7


@dataclass(frozen=True)
class LabelPlan:
    """Labels that are finished and labels to compute.

    Attributes
    ----------
    collected : CollectedData
    tasks : list of Task
        Labels to compute, in the order in which they are started.
    finished_records : dict
        Records of this and earlier runs by task key.
    task_keys : dict
        By level, the keys of all its tasks by configuration id.
    """

    collected: CollectedData
    tasks: list[Task]
    finished_records: dict[str, Record]
    task_keys: dict[str, dict[int, str]]

    def list_finished(self, level: str) -> dict[int, Label]:
        """Labels of a level that the plan's tasks have computed, by configuration id."""
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
    """Find the labels to compute, and check all of them before anything is computed.

    Parameters
    ----------
    settings : LabelSettings
    dataset : Path
        Its labels are not computed again.
    records : iterable of dict
        Records of labels that earlier runs finished.
    retry_failed : bool
        Whether to compute labels again that have failed.
    require_engine : bool
        Whether the engine must be installed on this machine.

    Raises
    ------
    InputError
        If the engine is not installed or lacks an element, or the structures are unusable (`collect_configurations`).
    """
    collected, engine = collect_configurations(settings, dataset), settings.engine
    if require_engine:
        engine.check(collected.elements)
    for level in settings.selected_levels:
        engine.check_level(level)
        if engine.needs_cell:
            _check_meshes(collected, level)
    finished = {record["key"]: record for record in records if is_record(record)}
    tasks: list[Task] = []
    task_keys: dict[str, dict[int, str]] = {}
    for level in settings.selected_levels:
        labels = collected.labels.get(level.name, {})
        missing: list[Task] = []
        for config_id in _select_configurations(collected, level, settings):
            if _must_compute(labels.get(config_id), retry_failed):
                atoms = collected.configurations[config_id]
                missing.append(Task(config_id, atoms, level, task_key(atoms, level, engine)))
        task_keys[level.name] = {task.config_id: task.key for task in missing}
        tasks += [task for task in missing if _must_compute(finished.get(task.key), retry_failed)]
    if settings.order == "configurations":
        first_index = {task.config_id: index for index, task in reversed(list(enumerate(tasks)))}
        tasks.sort(key=lambda task: first_index[task.config_id])  # stable: levels stay in the order of the ladder
    return LabelPlan(collected, tasks, finished, task_keys)


def open_label_journal(folder: Path) -> JsonLines:
    """Open the journal of a run folder, and add labels that were finished when the run that started them was killed."""
    journal = JsonLines(folder / JOURNAL_FILE)
    known = {record["key"] for record in journal.entries if is_record(record)}
    for path in sorted((folder / FINISHED_FOLDER).glob("*.json")):
        with suppress(OSError, ValueError, RecursionError):  # truncated files are computed again
            record = json.loads(path.read_text(encoding="utf-8"))
            if is_record(record) and record["key"] not in known:
                journal.append(record)
                journal.entries.append(record)
        remove_file(path)
    return journal


def _check_meshes(collected: CollectedData, level: Level) -> None:
    """Refuse probable mistakes: a spacing or a cutoff in the wrong unit, or a missing spacing."""
    if level.kspacing_per_angstrom is None and "kspacing_per_angstrom" not in level.model_fields_set:
        raise InputError(
            f"level '{level.name}' has no 'kspacing_per_angstrom'; give one in 1/Å, or null for the Gamma point only"
        )
    for config_id, atoms in collected.configurations.items():
        n_kpoints = math.prod(level.kpoints(atoms))
        n_waves = abs(atoms.cell.volume) * (level.cutoff_ev or 0.0) ** 1.5 * PLANE_WAVE_DENSITY
        if n_kpoints > MAX_KPOINTS or n_waves > MAX_PLANE_WAVES:
            raise InputError(
                f"level '{level.name}' gives configuration {config_id} {n_kpoints} k-points and {n_waves:.2g} plane "
                "waves, more than it can need; check the units of 'kspacing_per_angstrom' (1/Å) and 'cutoff_ev' (eV)"
            )


def _select_configurations(collected: CollectedData, level: Level, settings: LabelSettings) -> list[int]:
    """Ids of the configurations to label at a level; a limited number are those with a label, then the cheapest."""
    subset, structures = settings.subsets.get(level.name), collected.configurations
    if subset is None:
        return list(structures)
    ids = [k for k, atoms in structures.items() if subset.max_atoms is None or len(atoms) <= subset.max_atoms]
    if subset.max_configurations is None or subset.max_configurations >= len(ids):
        return ids
    labels = collected.labels.get(level.name, {})
    costs = {k: float(cost_terms(structures[k], level, settings.engine) @ PRIOR_COEFFICIENTS) for k in ids}
    selected = set(sorted(ids, key=lambda k: (k not in labels, costs[k]))[: subset.max_configurations])
    return [k for k in ids if k in selected]


def _must_compute(label: Mapping[str, Any] | None, retry_failed: bool) -> bool:
    return label is None or (retry_failed and label["status"] == "failed")


def compute_labels(
    plan: LabelPlan, settings: LabelSettings, journal: JsonLines, folder: Path, jobs: int
) -> Generator[tuple[Task, Record], None, None]:
    """Compute the labels of a plan; each is in the journal before it is yielded."""
    call = partial(
        compute_label,
        engine=settings.engine,
        retries=settings.retries,
        failed_folder=folder.absolute() / "failed",
        finished_folder=folder.absolute() / FINISHED_FOLDER,
    )
    program = settings.engine.describe_version([]).split(",", maxsplit=1)[0]
    try:
        with closing(run_tasks(call, plan.tasks, jobs, _make_crash_record, job_per_task=True)) as results:
            for task, record in results:
                record["info"]["engine"] = program
                journal.append(record)
                remove_file(folder / FINISHED_FOLDER / f"{task.key}.json")
                plan.finished_records[task.key] = record
                if record["status"] == "failed":
                    reason = get_failure_reason(record)
                    log.warning("configuration %d, level %s failed: %s", task.config_id, task.level.name, reason)
                yield task, record
    finally:
        remove_stale_scratch()


def _make_crash_record(task: Task) -> Record:
    reason = "the process died (out of memory, or a crash of the engine)"
    return make_record(task, None, {"kpts": list(task.level.kpoints(task.atoms)), "attempts": 1, "reasons": [reason]})


def get_failure_reason(record: Mapping[str, Any]) -> str:
    """Reason why a label failed, from its last attempt."""
    reasons = record.get("info", {}).get("reasons") or ["no reason was recorded"]
    return str(reasons[-1])


def collect_failure_reasons(plan: LabelPlan) -> dict[tuple[str, int], str]:
    """Reasons of the labels that failed, in this run or an earlier one, by level and configuration id."""
    return {
        (level, config_id): get_failure_reason(label)
        for level in plan.collected.labels | plan.task_keys
        for config_id, label in {**plan.collected.labels.get(level, {}), **plan.list_finished(level)}.items()
        if label["status"] == "failed"
    }


def select_engine_labels(plan: LabelPlan, level: str, engine: Engine) -> dict[int, Label]:
    """Labels of a level that this engine computed, in any version, by configuration id."""
    recorded = str(plan.collected.level_settings.get(level, {}).get("engine", ""))
    is_same = recorded.split()[:1] == [engine.program]
    return {**(plan.collected.labels.get(level, {}) if is_same else {}), **plan.list_finished(level)}


def write_labels(plan: LabelPlan, settings: LabelSettings, dataset: Path) -> None:
    """Write the dataset with the labels that it had and those of the plan that are finished."""
    collected = plan.collected
    levels: dict[str, LevelData] = {}
    for name in _order_levels(list(collected.level_settings), [level.name for level in settings.selected_levels]):
        new = plan.list_finished(name)
        labels: dict[int, Label] = {**collected.labels.get(name, {}), **new}
        if labels or name in collected.level_settings:
            column = [labels.get(config_id) for config_id in collected.configurations]
            metadata = _make_metadata(settings, name, collected.elements) if new else {}
            levels[name] = LevelData(column, {**metadata, **collected.level_settings.get(name, {})})
    write_dataset(dataset, list(collected.configurations.values()), levels, list(collected.configurations))


def _make_metadata(settings: LabelSettings, name: str, elements: list[str]) -> dict[str, Any]:
    """Settings and engine of a level, as they are stored with its labels."""
    level = next(level for level in settings.ladder if level.name == name)
    engine_settings = settings.engine.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
    metadata = {**settings.engine.make_level_metadata(level), "engine": settings.engine.describe_version(elements)}
    return {**metadata, **({"engine_settings": engine_settings} if engine_settings else {})}


def _order_levels(recorded: list[str], ladder: list[str]) -> list[str]:
    """Order the levels of a dataset as they are, with each new level after the one that it follows in the ladder."""
    order = list(recorded)
    for k, name in enumerate(ladder):
        if name not in order:
            before = [other for other in ladder[:k] if other in order]
            order.insert(order.index(before[-1]) + 1 if before else 0, name)
    return order
