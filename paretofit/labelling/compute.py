"""Label a dataset: what is missing is computed, in parallel, each label safe on disk the moment it is there."""

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
FINISHED_FOLDER = "done"  # folder of labels that are finished and not in the journal yet
PLANE_WAVES = 0.00230  # for each Å³ and eV^{3/2}: (2m)^{3/2} / (6π² ħ³)
MOST_POINTS, MOST_WAVES = 200_000, 1e7


@dataclass(frozen=True)
class LabelPlan:
    """What is there and what is to do.

    Attributes
    ----------
    collected : Gathered
    tasks : list of Task
        Labels to compute, in the order in which they are started.
    finished_records : dict
        Records of this and earlier runs by task key.
    task_keys : dict
        By level the keys of all its tasks by configuration id.
    """

    collected: CollectedData
    tasks: list[Task]
    finished_records: dict[str, Record]
    task_keys: dict[str, dict[int, str]]


def plan_labels(
    settings: LabelSettings,
    dataset: Path,
    records: Iterable[Record],
    *,
    retry_failed: bool = False,
    require_engine: bool = True,
) -> LabelPlan:
    """Find out what is to be labelled, and check all of it before anything is computed.

    Parameters
    ----------
    settings : LabelSettings
    dataset : Path
        Its labels are not computed again.
    records : iterable of dict
        What earlier runs finished.
    retry_failed : bool
        Whether a label that failed is one to compute.
    require_engine : bool
        Whether the engine is to compute here, so that it must be installed.

    Raises
    ------
    InputError
        If the engine is not installed or lacks an element, or the structures cannot be used (see `collect_configurations`).
    """
    found = collect_configurations(settings, dataset)
    engine = settings.engine
    if require_engine:
        engine.check(found.elements)
    for level in settings.selected_levels:
        engine.check_level(level)
        if engine.needs_cell:
            _check_meshes(found, level)
    finished = {record["key"]: record for record in records if is_record(record)}
    by_level: dict[str, list[Task]] = {}
    wanted: dict[str, dict[int, str]] = {}
    for level in settings.selected_levels:
        chosen = _selected(found, level, settings)
        missing = [identity for identity in chosen if _lacks(found, level.name, identity, retry_failed)]
        tasks = [
            Task(identity, atoms := found.configurations[identity], level, task_key(atoms, level, engine))
            for identity in missing
        ]
        wanted[level.name] = {task.config_id: task.key for task in tasks}
        by_level[level.name] = [task for task in tasks if _unfinished(finished.get(task.key), retry_failed)]
    return LabelPlan(found, _ordered(by_level, settings.order), finished, wanted)


def open_label_journal(folder: Path) -> JsonLines:
    """Open the journal of a run folder, and take in what tasks had finished when the run that began them was killed."""
    journal = JsonLines(folder / JOURNAL_FILE)
    known = {record["key"] for record in journal.entries if is_record(record)}
    for path in sorted((folder / FINISHED_FOLDER).glob("*.json")):
        with suppress(OSError, ValueError, RecursionError):  # what is cut off is computed again
            record = json.loads(path.read_text(encoding="utf-8"))
            if is_record(record) and record["key"] not in known:
                journal.append(record)
                journal.entries.append(record)
        remove_file(path)
    return journal


def _check_meshes(found: CollectedData, level: Level) -> None:
    """Refuse what nobody means: a spacing or a cutoff of the wrong unit, or a mesh that was forgotten."""
    if level.kspacing_per_angstrom is None and "kspacing_per_angstrom" not in level.model_fields_set:
        raise InputError(
            f"level '{level.name}' has no 'kspacing_per_angstrom'; give one in 1/Å, or null for the Gamma point only"
        )
    for identity, atoms in found.configurations.items():
        points = math.prod(level.kpoints(atoms))
        waves = abs(atoms.cell.volume) * (level.cutoff_ev or 0.0) ** 1.5 * PLANE_WAVES
        if points > MOST_POINTS or waves > MOST_WAVES:
            raise InputError(
                f"level '{level.name}' gives configuration {identity} {points} k-points and {waves:.2g} plane waves, "
                "more than it can need; look at the units of 'kspacing_per_angstrom' (1/Å) and 'cutoff_ev' (eV)"
            )


def _selected(found: CollectedData, level: Level, settings: LabelSettings) -> list[int]:
    """Which configurations get a label at a level; of a limited number those that have one, then the cheapest."""
    chosen, ids = settings.subsets.get(level.name), list(found.configurations)
    if chosen is None:
        return ids
    if chosen.max_atoms is not None:
        ids = [identity for identity in ids if len(found.configurations[identity]) <= chosen.max_atoms]
    if chosen.max_configurations is None or chosen.max_configurations >= len(ids):
        return ids
    there = found.labels.get(level.name, {})
    cost = {k: float(cost_terms(found.configurations[k], level, settings.engine) @ PRIOR_COEFFICIENTS) for k in ids}
    kept = set(sorted(ids, key=lambda k: (k not in there, cost[k]))[: chosen.max_configurations])
    return [identity for identity in ids if identity in kept]


def _lacks(found: CollectedData, level: str, identity: int, retry_failed: bool) -> bool:
    label = found.labels.get(level, {}).get(identity)
    return label is None or (retry_failed and label["status"] == "failed")


def _unfinished(record: Record | None, retry_failed: bool) -> bool:
    return record is None or (retry_failed and record["status"] == "failed")


def _ordered(by_level: Mapping[str, list[Task]], order: str) -> list[Task]:
    tasks = [task for one in by_level.values() for task in one]
    if order == "levels":
        return tasks
    place: dict[int, int] = {}
    for task in tasks:
        place.setdefault(task.config_id, len(place))
    return sorted(tasks, key=lambda task: place[task.config_id])  # stable: levels stay in the ladder's order


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
        with closing(run_tasks(call, plan.tasks, jobs, _died, job_per_task=True)) as found:
            for task, record in found:
                record["info"]["engine"] = program
                journal.append(record)
                remove_file(folder / FINISHED_FOLDER / f"{task.key}.json")
                plan.finished_records[task.key] = record
                if record["status"] == "failed":
                    log.warning(
                        "configuration %d, level %s failed: %s", task.config_id, task.level.name, reason(record)
                    )
                yield task, record
    finally:
        remove_stale_scratch()


def reason(record: Mapping[str, Any]) -> str:
    """Why a label failed, as its last attempt said it."""
    reasons = record.get("info", {}).get("reasons") or ["no reason was recorded"]
    return str(reasons[-1])


def collect_failure_reasons(plan: LabelPlan) -> dict[tuple[str, int], str]:
    """Reasons of the labels that failed, in this run or an earlier one, by level and configuration id."""
    there = {name: {**labels, **_finished(plan, name)} for name, labels in plan.collected.labels.items()}
    there |= {name: _finished(plan, name) for name in plan.task_keys if name not in there}
    return {
        (name, identity): reason(label)
        for name, labels in there.items()
        for identity, label in labels.items()
        if label["status"] == "failed"
    }


def select_engine_labels(plan: LabelPlan, level: str, engine: Engine) -> dict[int, Label]:
    """Labels of a level that this engine computed, in whatever version, by configuration id."""
    recorded = str(plan.collected.level_settings.get(level, {}).get("engine", ""))
    mine = recorded.split()[:1] == [engine.program]
    return {**(plan.collected.labels.get(level, {}) if mine else {}), **_finished(plan, level)}


def _finished(plan: LabelPlan, level: str) -> dict[int, Label]:
    wanted = plan.task_keys.get(level, {})
    return {identity: plan.finished_records[key] for identity, key in wanted.items() if key in plan.finished_records}


def _died(task: Task) -> Record:
    why = "the process died (out of memory, or a crash of the engine)"
    return make_record(task, None, {"kpts": list(task.level.kpoints(task.atoms)), "attempts": 1, "reasons": [why]})


def write_labels(plan: LabelPlan, settings: LabelSettings, dataset: Path) -> None:
    """Write the dataset with all labels that are there: those it had, and those of the plan that are finished."""
    found = plan.collected
    levels: dict[str, LevelData] = {}
    for name in _level_order(list(found.level_settings), [level.name for level in settings.selected_levels]):
        new = _finished(plan, name)
        labels: dict[int, Label] = {**found.labels.get(name, {}), **new}
        if labels or name in found.level_settings:
            column = [labels.get(identity) for identity in found.configurations]
            recorded = _recorded(settings, name, found.elements) if new else {}
            levels[name] = LevelData(column, {**recorded, **found.level_settings.get(name, {})})
    write_dataset(dataset, list(found.configurations.values()), levels, list(found.configurations))


def _recorded(settings: LabelSettings, name: str, elements: list[str]) -> dict[str, Any]:
    """What is kept with the labels of a level: how they were computed, and by what."""
    level = next(level for level in settings.ladder if level.name == name)
    own = settings.engine.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
    engine = {"engine": settings.engine.describe_version(elements), **({"engine_settings": own} if own else {})}
    return {**settings.engine.make_level_metadata(level), **engine}


def _level_order(there: list[str], ladder: list[str]) -> list[str]:
    """Levels that a dataset has, in its order, with new ones of the ladder each after the one that it follows."""
    order = list(there)
    for k, name in enumerate(ladder):
        if name not in order:
            before = [other for other in ladder[:k] if other in order]
            order.insert(order.index(before[-1]) + 1 if before else 0, name)
    return order
