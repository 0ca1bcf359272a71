"""The labelling stage of an iteration: what is missing is computed, at the level that is worth it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from paretofit.core import InputError, track
from paretofit.dataset import Dataset
from paretofit.labelling import (
    JOURNAL_FILE,
    LabelPlan,
    collect_failure_reasons,
    compute_labels,
    plan_labels,
    write_labels,
)
from paretofit.learning.level_choice import LevelChoice, choose_level, compute_label_seconds, measure_level_noise

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from paretofit.core import JsonLines
    from paretofit.labelling import LabelSettings
    from paretofit.learning.learn_settings import LevelSettings
    from paretofit.learning.loop_folder import IterationFolder, LearnFolder

TRIED = 3  # labels, before all the others
FIRST_ERROR = 0.3  # of the spread of the labels: what a first model is taken to be off


@dataclass(frozen=True)
class Labeller:
    """Computes labels, keeps each in a journal the moment it is there, and knows what they cost.

    Attributes
    ----------
    settings : LabelSettings
    level_settings : LevelSettings
    folder : LearnFolder
    journal : JsonLines
    jobs : int
    progress : bool
    """

    settings: LabelSettings
    level_settings: LevelSettings
    folder: LearnFolder
    journal: JsonLines
    jobs: int
    progress: bool

    @property
    def level_names(self) -> list[str]:
        """Names of the levels, the best last."""
        return [one.name for one in self.settings.selected_levels]

    def check(self, candidates: Path, *, will_compute: bool = True) -> None:
        """Refuse what cannot be labelled, before anything is spent: engine, levels, structures, a dataset's labels.

        Parameters
        ----------
        candidates : Path
            Their file.
        will_compute : bool
            Whether labels will be computed; without, there is nothing to check.

        Raises
        ------
        InputError
            See `paretofit.labelling.compute.plan_labels`.
        """
        if not will_compute:
            return
        there = candidates.exists() and candidates.stat().st_size
        settings = self.settings.model_copy(update={"structures": [candidates] if there else []})
        plan_labels(settings, self.folder.dataset, [])

    def label(
        self,
        iteration: IterationFolder,
        ids: Sequence[int],
        evaluation_ids: set[int],
        model_error: tuple[float, float] | None,
        n_train: int,
        exponent: float,
        rng: np.random.Generator,
    ) -> dict[str, Any]:
        """Label the structures of an iteration; return what it took.

        Parameters
        ----------
        iteration : IterationFolder
        ids : sequence of int
            Of its structures.
        evaluation_ids : set of int
            Those that calibrate or test: where the level is chosen, they are labelled at the best.
        model_error : (float, float) or None
            Of the model before: eV/atom and eV/Å.
        n_train : int
            Labels that train now.
        exponent : float
            Of the learning curve so far.
        rng : numpy.random.Generator
            Of the pilot.
        """
        wanted = {name: set(ids) for name in self.level_names[-1:]}
        words = f"level {self.level_names[-1]}"
        choice: LevelChoice | None = None
        if self.level_settings.fixed is not None:
            wanted, words = {self.level_settings.fixed: set(ids)}, f"level {self.level_settings.fixed}, as fixed"
        elif len(self.level_names) > 1:
            if not self._known_levels():
                pilot = set(rng.permutation(np.asarray(ids))[: self.level_settings.pilot_size].tolist())
                self._compute(iteration, dict.fromkeys(self.level_names, pilot))
            choice = self._choose(model_error or self._spread(), n_train, len(ids), exponent)
            wanted, words = {choice.name: set(ids) - evaluation_ids}, choice.description
            wanted[self.level_names[-1]] = wanted.get(self.level_names[-1], set()) | evaluation_ids
        self._try_a_few(iteration, wanted)
        plan = self._compute(iteration, wanted)
        failed = {f"{level} {k}": why for (level, k), why in collect_failure_reasons(plan).items() if k in set(ids)}
        with Dataset(self.folder.dataset) as data:
            here = np.isin(data.ids, list(ids))
            spent = sum(float(np.nansum(data.labels(name).seconds[here])) for name in data.levels)
            done = sum(int(data.labels(name).complete[here].sum()) for name in data.levels)
        return {
            "level": next(iter(wanted)),
            "words": words,
            "levels": [] if choice is None else choice.table,
            "labels": done,
            "failed": failed,
            "seconds": spent,
        }

    def _try_a_few(self, iteration: IterationFolder, wanted: dict[str, set[int]]) -> None:
        """Refuse an engine that cannot do any of the first labels, before all of them are tried.

        Raises
        ------
        InputError
            With the reason of the first.
        """
        if self.folder.dataset.exists():
            return
        name = next(iter(wanted))
        order = sorted(wanted[name])
        few = {order[k] for k in np.linspace(0, len(order) - 1, TRIED).astype(int)} if order else set()
        reasons = collect_failure_reasons(self._compute(iteration, {name: few}))
        if few and len(reasons) == len(few):
            raise InputError(
                f"the first {len(few)} labels all failed: {next(iter(reasons.values()))}; mend 'labelling'"
            )

    def _known_levels(self) -> bool:
        """Whether it is known what the levels are off."""
        if not self.folder.dataset.exists():
            return False
        with Dataset(self.folder.dataset) as data:
            return bool(measure_level_noise(data, self.level_names))

    def _choose(self, error: tuple[float, float], n: int, wanted: int, exponent: float) -> LevelChoice:
        with Dataset(self.folder.dataset) as data:
            noise, seconds = measure_level_noise(data, self.level_names), compute_label_seconds(data, self.level_names)
        return choose_level(self.level_names, noise, seconds, error, max(n, 1), wanted, exponent)

    def _spread(self) -> tuple[float, float]:
        """What the pilot's best labels say of how far off a first model will be."""
        with Dataset(self.folder.dataset) as data:
            labels = data.labels(self.level_names[-1])
            known = labels.complete
            forces = labels.forces[np.repeat(known, data.n_atoms)]
            energy = labels.energy[known] / data.n_atoms[known]
        scale = np.std(energy) if len(energy) > 1 else 1.0, np.sqrt(np.mean(forces**2)) if len(forces) else 1.0
        return FIRST_ERROR * max(float(scale[0]), 1e-3), FIRST_ERROR * max(float(scale[1]), 1e-2)

    def _compute(self, iteration: IterationFolder, wanted: dict[str, set[int]]) -> LabelPlan:
        """Compute these labels, as far as they are not there, and write the dataset."""
        settings = self.settings.model_copy(update={"structures": [iteration.structures], "levels": list(wanted)})
        plan = plan_labels(settings, self.folder.dataset, self.journal.entries)
        tasks = [task for task in plan.tasks if task.config_id in wanted[task.level.name]]
        kept = {name: {k: key for k, key in keys.items() if k in wanted[name]} for name, keys in plan.task_keys.items()}
        plan = replace(plan, tasks=tasks, task_keys=kept)
        computing = compute_labels(plan, settings, self.journal, self.folder.path / "labels", self.jobs)
        try:
            for _, record in track(computing, len(tasks), "labels", enabled=self.progress and bool(tasks)):
                self.journal.entries.append(record)
        finally:
            computing.close()
            write_labels(plan, self.settings, self.folder.dataset)
        return plan


def journal_path(folder: LearnFolder) -> Path:
    """Where finished labels are."""
    return folder.path / "labels" / JOURNAL_FILE
