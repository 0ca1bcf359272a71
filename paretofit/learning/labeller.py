"""Labelling stage of an iteration: missing labels are computed at the level with the best ratio of benefit to cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from paretofit.core import InputError, JsonLines
from paretofit.dataset import Dataset
from paretofit.execution import RunContext
from paretofit.labelling import (
    JOURNAL_FILE,
    LabelPlan,
    LabelSettings,
    Task,
    collect_failure_reasons,
    compute_cost_terms,
    compute_labels,
    fit_cost_model,
    plan_labels,
    write_labels,
)
from paretofit.learning.learn_settings import LevelSettings
from paretofit.learning.level_choice import LevelChoice, choose_level, compute_label_seconds, measure_level_noise
from paretofit.learning.loop_folder import IterationFolder, LearnFolder

N_TRIAL_LABELS = 3  # number of labels that are computed first, so that a loop with a broken engine ends early
FIRST_ERROR_RATIO = 0.3  # assumed ratio of the error of a first model to the spread of the labels


class LabelRequest(NamedTuple):
    """Structures to label, and the state of the previous model for the choice of the level.

    Attributes
    ----------
    iteration : IterationFolder
        Iteration whose structures are labelled.
    ids : list of int
        Ids of the structures.
    held_out_ids : set of int
        Ids in the validation and test sets; these are labelled at the best level, unless the level is fixed.
    model_error : (float, float) or None
        Validation errors of the previous model, eV/atom and eV/Å; None without a model.
    n_train : int
        Size of the training set of the previous model.
    exponent : float
        Exponent of the learning curve, fitted to the previous iterations.
    """

    iteration: IterationFolder
    ids: list[int]
    held_out_ids: set[int]
    model_error: tuple[float, float] | None
    n_train: int
    exponent: float


@dataclass(frozen=True)
class Labeller:
    """Labelling stage of a loop; every label is stored in a journal as soon as it is finished.

    Attributes
    ----------
    settings : LabelSettings
    level_settings : LevelSettings
    folder : LearnFolder
    journal : JsonLines
    context : RunContext
    """

    settings: LabelSettings
    level_settings: LevelSettings
    folder: LearnFolder
    journal: JsonLines
    context: RunContext

    @property
    def level_names(self) -> list[str]:
        """Names of the levels, with the best level last."""
        return [level.name for level in self.settings.selected_levels]

    def check(self, candidates: Path, *, will_compute: bool = True) -> None:
        """Check the engine, the levels, the structures and the labels of a dataset before anything is computed.

        Parameters
        ----------
        candidates : Path
            File of the candidates.
        will_compute : bool
            Whether labels will be computed; otherwise nothing is checked.

        Raises
        ------
        InputError
            See `paretofit.labelling.label_run.plan_labels`.
        """
        if will_compute:
            has_candidates = candidates.exists() and candidates.stat().st_size
            settings = self.settings.model_copy(update={"structures": [candidates] if has_candidates else []})
            plan_labels(settings, self.folder.dataset, [])

    def label(self, request: LabelRequest, rng: np.random.Generator) -> dict[str, Any]:
        """Label the structures of an iteration.

        Parameters
        ----------
        request : LabelRequest
        rng : numpy.random.Generator
            Draws the structures of the pilot.

        Returns
        -------
        dict
            ``level``, ``reason`` (for the level), ``levels`` (table of `LevelChoice`), ``labels`` (number of
            labels), ``failed`` (reasons by label) and ``seconds`` (cost of the labels).
        """
        ids_by_level, choice = self._plan_levels(request, rng)
        self._compute_trial_labels(request.iteration, ids_by_level)
        reasons = collect_failure_reasons(self._compute_labels(request.iteration, ids_by_level))
        with Dataset(self.folder.dataset) as data:
            is_requested = np.isin(data.ids, request.ids)
            labels = [data.labels(name) for name in data.levels]
            seconds = sum(float(np.nansum(level_labels.seconds[is_requested])) for level_labels in labels)
            n_labels = sum(int(level_labels.is_complete[is_requested].sum()) for level_labels in labels)
        return {
            "level": next(iter(ids_by_level)),  # the chosen level is the first key
            "reason": choice.description,
            "levels": choice.table,
            "labels": n_labels,
            "failed": {f"{level} {k}": reason for (level, k), reason in reasons.items() if k in set(request.ids)},
            "seconds": seconds,
        }

    def _plan_levels(self, request: LabelRequest, rng: np.random.Generator) -> tuple[dict[str, set[int]], LevelChoice]:
        """Choose the level of each label; if the errors of the levels are unknown, first label a pilot at all levels.

        Returns the ids to label by level, the chosen level first, and the choice with its reason.
        """
        levels, fixed_level, ids = self.level_names, self.level_settings.fixed, set(request.ids)
        if fixed_level is not None:
            return {fixed_level: ids}, LevelChoice(fixed_level, [], f"level {fixed_level}, which is fixed")
        if len(levels) == 1:
            return {levels[0]: ids}, LevelChoice(levels[0], [], f"level {levels[0]}")
        noise, seconds = self._measure_levels()
        if not noise:
            pilot_ids = set(rng.permutation(np.asarray(request.ids))[: self.level_settings.pilot_size].tolist())
            self._compute_labels(request.iteration, dict.fromkeys(levels, pilot_ids))
            noise, seconds = self._measure_levels()
        error, n_train = request.model_error or self._estimate_first_error(), max(request.n_train, 1)
        choice = choose_level(levels, noise, seconds, error, n_train, len(request.ids), request.exponent)
        ids_by_level = {choice.name: ids - request.held_out_ids}
        ids_by_level[levels[-1]] = ids_by_level.get(levels[-1], set()) | request.held_out_ids
        return ids_by_level, choice

    def _compute_trial_labels(self, iteration: IterationFolder, ids_by_level: Mapping[str, set[int]]) -> None:
        """Compute a few labels if the loop has none yet, to test the engine.

        Raises
        ------
        InputError
            If all of these labels fail; the message contains the reason for the first failure.
        """
        if self.folder.dataset.exists():
            return
        level, ids = next(iter(ids_by_level.items()))
        positions = np.linspace(0, len(ids) - 1, N_TRIAL_LABELS).astype(int)
        trial_ids = set(np.sort(list(ids))[positions].tolist()) if ids else set()
        reasons = collect_failure_reasons(self._compute_labels(iteration, {level: trial_ids}))
        if trial_ids and len(reasons) == len(trial_ids):
            raise InputError(
                f"the first {len(trial_ids)} labels all failed: {next(iter(reasons.values()))}; correct "
                "the section 'labelling' of the study"
            )

    def _measure_levels(self) -> tuple[dict[str, tuple[float, float]], dict[str, float]]:
        """Measure the label errors (eV/atom, eV/Å) and seconds per label by level; both are empty without a dataset."""
        if not self.folder.dataset.exists():
            return {}, {}
        with Dataset(self.folder.dataset) as data:
            return measure_level_noise(data, self.level_names), compute_label_seconds(data, self.level_names)

    def _estimate_first_error(self) -> tuple[float, float]:
        """Estimate the error of a first model (eV/atom, eV/Å) from the spread of the labels at the best level."""
        with Dataset(self.folder.dataset) as data:
            labels = data.labels(self.level_names[-1])
            forces = labels.forces[np.repeat(labels.is_complete, data.n_atoms)]
            energy = labels.energy[labels.is_complete] / data.n_atoms[labels.is_complete]
        energy_spread = float(np.std(energy)) if len(energy) > 1 else 1.0
        force_spread = float(np.sqrt(np.mean(forces**2))) if len(forces) else 1.0
        # the lower bounds keep relative errors finite if the labels hardly differ
        return FIRST_ERROR_RATIO * max(energy_spread, 1e-3), FIRST_ERROR_RATIO * max(force_spread, 1e-2)

    def _compute_labels(self, iteration: IterationFolder, ids_by_level: Mapping[str, set[int]]) -> LabelPlan:
        """Compute the requested labels that are missing, and write the dataset; return the plan."""
        settings = self.settings.model_copy(update={"structures": [iteration.structures], "levels": list(ids_by_level)})
        plan = plan_labels(settings, self.folder.dataset, self.journal.entries)
        tasks = [task for task in plan.tasks if task.config_id in ids_by_level[task.level.name]]
        task_keys = {
            name: {k: key for k, key in keys.items() if k in ids_by_level[name]}
            for name, keys in plan.task_keys.items()
        }
        plan = replace(plan, tasks=tasks, task_keys=task_keys)
        work = _estimate_work(tasks, settings)
        results = compute_labels(plan, settings, self.journal, self.folder.path / "labels", self.context.jobs)
        tracked_results = self.context.track(
            results, len(tasks), "labels", get_work=lambda result: work[result[0].key], total_work=sum(work.values())
        )
        try:
            for _, record in tracked_results if tasks else results:
                self.journal.entries.append(record)
        finally:
            results.close()
            write_labels(plan, self.settings, self.folder.dataset)
        return plan


def _estimate_work(tasks: Sequence[Task], settings: LabelSettings) -> dict[str, float]:
    """Estimate the relative cost of each label, by key, for the progress: levels differ by orders of magnitude."""
    # a model without measured costs suffices for relative costs
    model = fit_cost_model(np.empty((0, 5)), [])
    terms = [compute_cost_terms(task.atoms, task.level, settings.engine) for task in tasks]
    return {task.key: float(model.predict_seconds(row)) for task, row in zip(tasks, terms, strict=True)}


def journal_path(folder: LearnFolder) -> Path:
    """Return the path of the journal of finished labels."""
    return folder.path / "labels" / JOURNAL_FILE
