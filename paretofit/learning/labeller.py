"""Labelling stage of an iteration: it computes missing labels at the level with the best ratio of benefit to cost."""

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

N_TRIAL_LABELS = 3  # number of labels that a new loop computes first, so that it ends early if the engine is broken
FIRST_ERROR_RATIO = 0.3  # assumed ratio of the error of a first model to the spread of the labels


class LabelRequest(NamedTuple):
    """Structures to label, and what the choice of the level must know about the previous model.

    Attributes
    ----------
    iteration : IterationFolder
        Iteration whose structures are labelled.
    ids : list of int
        Ids of the structures.
    held_out_ids : set of int
        Ids of the structures in the validation and test sets, which are labelled at the best level unless the level is
        fixed.
    model_error : (float, float) or None
        Validation errors of the previous model, eV/atom and eV/Å; None if there is no model or its errors are unknown.
    n_train : int
        Size of the training set of the previous model; 0 if there is no model.
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
        Engine and levels of the labels.
    level_settings : LevelSettings
        Choice of the level of new labels.
    folder : LearnFolder
        Run folder of the loop, which contains the dataset.
    journal : JsonLines
        Journal of finished labels in `get_journal_path`, open for writing.
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
        """Check the engine, the levels, the candidates and the labels of the dataset before anything is computed.

        Parameters
        ----------
        candidates : Path
            File of the candidates; candidates are not checked if it is missing or empty.
        will_compute : bool
            Whether labels will be computed; if not, nothing is checked.

        Raises
        ------
        InputError
            If the engine, a level, a candidate or a label cannot be used; see `paretofit.labelling.plan_labels`.
        """
        if will_compute:
            has_candidates = candidates.exists() and candidates.stat().st_size
            settings = self.settings.model_copy(update={"structures": [candidates] if has_candidates else []})
            # Only the checks of `plan_labels` are needed, and the records of finished labels, here none, do not affect
            # them. Each iteration plans its own labels later.
            plan_labels(settings, self.folder.dataset_path, [])

    def label(self, request: LabelRequest, rng: np.random.Generator) -> dict[str, Any]:
        """Label the structures of an iteration, and write the labels to the dataset.

        Parameters
        ----------
        request : LabelRequest
        rng : numpy.random.Generator
            Generator that draws the structures of the pilot.

        Returns
        -------
        dict
            ``level``, ``reason`` (description of `LevelChoice`), ``levels`` (its table), ``labels`` (number of labels
            of the structures at all levels), ``failed`` (reasons of failures by ``"LEVEL ID"``) and ``seconds`` (CPU
            time of the labels).

        Raises
        ------
        InputError
            If all trial labels of a new loop fail, or `paretofit.labelling.plan_labels` raises it.
        """
        ids_by_level, choice = self._plan_levels(request, rng)
        self._compute_trial_labels(request.iteration, ids_by_level)
        reasons = collect_failure_reasons(self._compute_labels(request.iteration, ids_by_level))
        requested_ids = set(request.ids)
        with Dataset(self.folder.dataset_path) as dataset:
            is_requested = np.isin(dataset.ids, request.ids)
            labels_by_level = [dataset.labels(name) for name in dataset.levels]
            seconds = sum(float(np.nansum(labels.seconds[is_requested])) for labels in labels_by_level)
            n_labels = sum(int(labels.is_complete[is_requested].sum()) for labels in labels_by_level)
        return {
            "level": next(iter(ids_by_level)),  # the chosen level is the first key
            "reason": choice.description,
            "levels": choice.table,
            "labels": n_labels,
            "failed": {
                f"{level} {config_id}": reason
                for (level, config_id), reason in reasons.items()
                if config_id in requested_ids
            },
            "seconds": seconds,
        }

    def _plan_levels(self, request: LabelRequest, rng: np.random.Generator) -> tuple[dict[str, set[int]], LevelChoice]:
        """Choose the level of each label; if the errors of the levels are unknown, first label a pilot at all levels.

        Returns the ids to label by level, with the chosen level as first key, and the choice with its reason.
        """
        levels, fixed_level, ids = self.level_names, self.level_settings.fixed, set(request.ids)
        if fixed_level is not None:
            return {fixed_level: ids}, LevelChoice(fixed_level, [], f"level {fixed_level}, which is fixed")
        if len(levels) == 1:
            return {levels[0]: ids}, LevelChoice(levels[0], [], f"level {levels[0]}")
        noise, seconds_per_label = self._measure_levels()
        if not noise:
            pilot_ids = set(rng.permutation(np.asarray(request.ids))[: self.level_settings.pilot_size].tolist())
            self._compute_labels(request.iteration, dict.fromkeys(levels, pilot_ids))
            noise, seconds_per_label = self._measure_levels()
        model_error = request.model_error or self._estimate_first_error()
        n_train = max(request.n_train, 1)
        choice = choose_level(
            levels, noise, seconds_per_label, model_error, n_train, len(request.ids), request.exponent
        )
        ids_by_level = {choice.name: ids - request.held_out_ids}
        # the best level, which may be the chosen one, also labels the validation and test sets
        ids_by_level[levels[-1]] = ids_by_level.get(levels[-1], set()) | request.held_out_ids
        return ids_by_level, choice

    def _compute_trial_labels(self, iteration: IterationFolder, ids_by_level: Mapping[str, set[int]]) -> None:
        """Test the engine with a few of the labels, unless the loop has a dataset already.

        Raises
        ------
        InputError
            If all of these labels fail; the message contains the reason of the first failure.
        """
        if self.folder.dataset_path.exists():
            return
        level, ids = next(iter(ids_by_level.items()))
        # structures from the beginning, the middle and the end: the first ones may all be of one kind
        positions = np.linspace(0, len(ids) - 1, N_TRIAL_LABELS).astype(int)
        trial_ids = set(np.sort(list(ids))[positions].tolist()) if ids else set()
        reasons = collect_failure_reasons(self._compute_labels(iteration, {level: trial_ids}))
        if trial_ids and len(reasons) == len(trial_ids):
            raise InputError(
                f"the first {len(trial_ids)} labels all failed: {next(iter(reasons.values()))}; correct "
                "the section 'labelling' of the study"
            )

    def _measure_levels(self) -> tuple[dict[str, tuple[float, float]], dict[str, float]]:
        """Measure the label errors (eV/atom, eV/Å) and the seconds per label by level; both empty without a dataset."""
        if not self.folder.dataset_path.exists():
            return {}, {}
        with Dataset(self.folder.dataset_path) as dataset:
            return measure_level_noise(dataset, self.level_names), compute_label_seconds(dataset, self.level_names)

    def _estimate_first_error(self) -> tuple[float, float]:
        """Estimate the error of a first model (eV/atom, eV/Å) from the spread of the labels at the best level."""
        with Dataset(self.folder.dataset_path) as dataset:
            labels = dataset.labels(self.level_names[-1])
            forces = labels.forces[np.repeat(labels.is_complete, dataset.n_atoms)]
            energies_per_atom = labels.energy[labels.is_complete] / dataset.n_atoms[labels.is_complete]
        # without labels, spreads of 1 eV/atom and 1 eV/Å are assumed
        energy_spread = float(np.std(energies_per_atom)) if len(energies_per_atom) > 1 else 1.0
        force_spread = float(np.sqrt(np.mean(forces**2))) if len(forces) else 1.0
        # the lower bounds, in eV/atom and eV/Å, keep relative errors finite if the labels hardly differ
        return FIRST_ERROR_RATIO * max(energy_spread, 1e-3), FIRST_ERROR_RATIO * max(force_spread, 1e-2)

    def _compute_labels(self, iteration: IterationFolder, ids_by_level: Mapping[str, set[int]]) -> LabelPlan:
        """Compute the requested labels that are missing, and return their plan.

        Each finished label is added to the journal; the dataset is written even if the computation is interrupted.
        """
        settings = self.settings.model_copy(
            update={"structures": [iteration.structures_path], "levels": list(ids_by_level)}
        )
        plan = plan_labels(settings, self.folder.dataset_path, self.journal.entries)
        tasks = [task for task in plan.tasks if task.config_id in ids_by_level[task.level.name]]
        task_keys = {
            name: {config_id: key for config_id, key in keys.items() if config_id in ids_by_level[name]}
            for name, keys in plan.task_keys.items()
        }
        plan = replace(plan, tasks=tasks, task_keys=task_keys)
        work = _estimate_work(tasks, settings)
        new_labels = compute_labels(plan, settings, self.journal, self.folder.path / "labels", self.context.jobs)
        tracked_labels = self.context.track(
            new_labels, len(tasks), "labels", get_work=lambda label: work[label[0].key], total_work=sum(work.values())
        )
        try:
            # without tasks, there is no progress to report
            for _, record in tracked_labels if tasks else new_labels:
                self.journal.entries.append(record)  # `compute_labels` has written it to the file
        finally:
            new_labels.close()
            write_labels(plan, self.settings, self.folder.dataset_path)
        return plan


def _estimate_work(tasks: Sequence[Task], settings: LabelSettings) -> dict[str, float]:
    """Estimate the relative cost of each label, by key, to weight the progress: costs differ by orders of magnitude."""
    # a model without measured costs (no rows of 5 terms) suffices for relative costs
    model = fit_cost_model(np.empty((0, 5)), [])
    terms = [compute_cost_terms(task.atoms, task.level, settings.engine) for task in tasks]
    return {task.key: float(model.predict_seconds(row)) for task, row in zip(tasks, terms, strict=True)}


def get_journal_path(folder: LearnFolder) -> Path:
    """Return the path of the journal of finished labels."""
    return folder.path / "labels" / JOURNAL_FILE
