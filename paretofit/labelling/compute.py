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

from paretofit.core import InputError, JsonLines, remove
from paretofit.dataset import Label, LevelData, write_dataset
from paretofit.execution import execute
from paretofit.labelling.cost import PRIOR, cost_terms
from paretofit.labelling.engines.base import Engine
from paretofit.labelling.gather import Gathered, gather
from paretofit.labelling.label_settings import LabelSettings
from paretofit.labelling.ladder import Level
from paretofit.labelling.scratch import clear_up
from paretofit.labelling.tasks import Record, Task, compute_label, is_record, make_record, task_key

log = logging.getLogger(__name__)

JOURNAL = "labels.jsonl"
DONE = "done"  # folder of labels that are finished and not in the journal yet
PLANE_WAVES = 0.00230  # for each Å³ and eV^{3/2}: (2m)^{3/2} / (6π² ħ³)
MOST_POINTS, MOST_WAVES = 200_000, 1e7


@dataclass(frozen=True)
class LabelPlan:
    """What is there and what is to do.

    Attributes
    ----------
    found : Gathered
    tasks : list of Task
        Labels to compute, in the order in which they are started.
    finished : dict
        Records of this and earlier runs by task key.
    wanted : dict
        By level the keys of all its tasks by configuration id.
    """

    found: Gathered
    tasks: list[Task]
    finished: dict[str, Record]
    wanted: dict[str, dict[int, str]]


def plan_labels(
    settings: LabelSettings,
    dataset: Path,
    records: Iterable[Record],
    *,
    retry_failed: bool = False,
    compute: bool = True,
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
    compute : bool
        Whether the engine is to compute here, so that it must be installed.

    Raises
    ------
    InputError
        If the engine is not installed or lacks an element, or the structures cannot be used (see `gather`).
    """
    found = gather(settings, dataset)
    engine = settings.engine
    if compute:
        engine.check(found.elements)
    for level in settings.chosen:
        engine.check_level(level)
        if engine.needs_cell:
            _check_meshes(found, level)
    finished = {record["key"]: record for record in records if is_record(record)}
    by_level: dict[str, list[Task]] = {}
    wanted: dict[str, dict[int, str]] = {}
    for level in settings.chosen:
        chosen = _selected(found, level, settings)
        missing = [identity for identity in chosen if _lacks(found, level.name, identity, retry_failed)]
        tasks = [
            Task(identity, atoms := found.atoms[identity], level, task_key(atoms, level, engine))
            for identity in missing
        ]
        wanted[level.name] = {task.identity: task.key for task in tasks}
        by_level[level.name] = [task for task in tasks if _unfinished(finished.get(task.key), retry_failed)]
    return LabelPlan(found, _ordered(by_level, settings.order), finished, wanted)


def label_journal(folder: Path) -> JsonLines:
    """Open the journal of a run folder, and take in what tasks had finished when the run that began them was killed."""
    journal = JsonLines(folder / JOURNAL)
    known = {record["key"] for record in journal.entries if is_record(record)}
    for path in sorted((folder / DONE).glob("*.json")):
        with suppress(OSError, ValueError, RecursionError):  # what is cut off is computed again
            record = json.loads(path.read_text(encoding="utf-8"))
            if is_record(record) and record["key"] not in known:
                journal.append(record)
                journal.entries.append(record)
        remove(path)
    return journal


def _check_meshes(found: Gathered, level: Level) -> None:
    """Refuse what nobody means: a spacing or a cutoff of the wrong unit, or a mesh that was forgotten."""
    if level.kspacing_per_angstrom is None and "kspacing_per_angstrom" not in level.model_fields_set:
        raise InputError(
            f"level '{level.name}' has no 'kspacing_per_angstrom'; give one in 1/Å, or null for the Gamma point only"
        )
    for identity, atoms in found.atoms.items():
        points = math.prod(level.kpoints(atoms))
        waves = abs(atoms.cell.volume) * (level.cutoff_ev or 0.0) ** 1.5 * PLANE_WAVES
        if points > MOST_POINTS or waves > MOST_WAVES:
            raise InputError(
                f"level '{level.name}' gives configuration {identity} {points} k-points and {waves:.2g} plane waves, "
                "more than it can need; look at the units of 'kspacing_per_angstrom' (1/Å) and 'cutoff_ev' (eV)"
            )


def _selected(found: Gathered, level: Level, settings: LabelSettings) -> list[int]:
    """Which configurations get a label at a level; of a limited number those that have one, then the cheapest."""
    chosen, ids = settings.only.get(level.name), list(found.atoms)
    if chosen is None:
        return ids
    if chosen.max_atoms is not None:
        ids = [identity for identity in ids if len(found.atoms[identity]) <= chosen.max_atoms]
    if chosen.limit is None or chosen.limit >= len(ids):
        return ids
    there = found.labels.get(level.name, {})
    cost = {k: float(cost_terms(found.atoms[k], level, settings.engine) @ PRIOR) for k in ids}
    kept = set(sorted(ids, key=lambda k: (k not in there, cost[k]))[: chosen.limit])
    return [identity for identity in ids if identity in kept]


def _lacks(found: Gathered, level: str, identity: int, retry_failed: bool) -> bool:
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
        place.setdefault(task.identity, len(place))
    return sorted(tasks, key=lambda task: place[task.identity])  # stable: levels stay in the ladder's order


def compute_labels(
    plan: LabelPlan, settings: LabelSettings, journal: JsonLines, folder: Path, jobs: int
) -> Generator[tuple[Task, Record], None, None]:
    """Compute the labels of a plan; each is in the journal before it is yielded."""
    call = partial(
        compute_label,
        engine=settings.engine,
        retries=settings.retries,
        failures=folder.absolute() / "failed",
        done=folder.absolute() / DONE,
    )
    program = settings.engine.description([]).split(",", maxsplit=1)[0]
    try:
        with closing(execute(call, plan.tasks, jobs, _died, own_job=True)) as found:
            for task, record in found:
                record["info"]["engine"] = program
                journal.append(record)
                remove(folder / DONE / f"{task.key}.json")
                plan.finished[task.key] = record
                if record["status"] == "failed":
                    log.warning("configuration %d, level %s failed: %s", task.identity, task.level.name, reason(record))
                yield task, record
    finally:
        clear_up()


def reason(record: Mapping[str, Any]) -> str:
    """Why a label failed, as its last attempt said it."""
    reasons = record.get("info", {}).get("reasons") or ["no reason was recorded"]
    return str(reasons[-1])


def failures(plan: LabelPlan) -> dict[tuple[str, int], str]:
    """Reasons of the labels that failed, in this run or an earlier one, by level and configuration id."""
    there = {name: {**labels, **_finished(plan, name)} for name, labels in plan.found.labels.items()}
    there |= {name: _finished(plan, name) for name in plan.wanted if name not in there}
    return {
        (name, identity): reason(label)
        for name, labels in there.items()
        for identity, label in labels.items()
        if label["status"] == "failed"
    }


def known_labels(plan: LabelPlan, level: str, engine: Engine) -> dict[int, Label]:
    """Labels of a level that this engine computed, in whatever version, by configuration id."""
    recorded = str(plan.found.settings.get(level, {}).get("engine", ""))
    mine = recorded.split()[:1] == [engine.program]
    return {**(plan.found.labels.get(level, {}) if mine else {}), **_finished(plan, level)}


def _finished(plan: LabelPlan, level: str) -> dict[int, Label]:
    wanted = plan.wanted.get(level, {})
    return {identity: plan.finished[key] for identity, key in wanted.items() if key in plan.finished}


def _died(task: Task) -> Record:
    why = "the process died (out of memory, or a crash of the engine)"
    return make_record(task, None, {"kpts": list(task.level.kpoints(task.atoms)), "attempts": 1, "reasons": [why]})


def write_labels(plan: LabelPlan, settings: LabelSettings, dataset: Path) -> None:
    """Write the dataset with all labels that are there: those it had, and those of the plan that are finished."""
    found = plan.found
    levels: dict[str, LevelData] = {}
    for name in _level_order(list(found.settings), [level.name for level in settings.chosen]):
        new = _finished(plan, name)
        labels: dict[int, Label] = {**found.labels.get(name, {}), **new}
        if labels or name in found.settings:
            column = [labels.get(identity) for identity in found.atoms]
            recorded = _recorded(settings, name, found.elements) if new else {}
            levels[name] = LevelData(column, {**recorded, **found.settings.get(name, {})})
    write_dataset(dataset, list(found.atoms.values()), levels, list(found.atoms))


def _recorded(settings: LabelSettings, name: str, elements: list[str]) -> dict[str, Any]:
    """What is kept with the labels of a level: how they were computed, and by what."""
    level = next(level for level in settings.ladder if level.name == name)
    own = settings.engine.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
    engine = {"engine": settings.engine.description(elements), **({"engine_settings": own} if own else {})}
    return {**settings.engine.recorded(level), **engine}


def _level_order(there: list[str], ladder: list[str]) -> list[str]:
    """Levels that a dataset has, in its order, with new ones of the ladder each after the one that it follows."""
    order = list(there)
    for k, name in enumerate(ladder):
        if name not in order:
            before = [other for other in ladder[:k] if other in order]
            order.insert(order.index(before[-1]) + 1 if before else 0, name)
    return order
