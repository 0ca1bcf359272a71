"""Active-learning loop: label, train, explore, select, repeat; the stages communicate through files.

Every stage of every iteration ends by writing a record, and a resumed run repeats the stages without a record. Labels
and trajectories are stored individually, so that a run that is killed loses only unfinished ones.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms

from paretofit.core import Array, InputError, hash_file, hash_json, remove_file, write_csv
from paretofit.dataset import Dataset
from paretofit.descriptors import map_structures
from paretofit.execution import RunContext
from paretofit.learning import calibration_points, selection, training_data
from paretofit.learning.evaluation import SET_NAMES, evaluate_committee, find_typical_members
from paretofit.learning.explore import plan_runs, select_start_structures
from paretofit.learning.labeller import Labeller, LabelRequest
from paretofit.learning.learn_settings import LearnSettings
from paretofit.learning.loop_folder import IterationFolder, LearnFolder, load_frames, write_frames
from paretofit.learning.model import Committee, Model
from paretofit.learning.set_balance import TEST, TRAIN
from paretofit.learning.trajectories import describe_early_ends, run_trajectories
from paretofit.potentials import LabelledStructures

log = logging.getLogger(__name__)

STAGES = ("label", "train", "explore", "select")
# reasons for the end of a loop
CONVERGED = "no frame of the dynamics is above tolerance"
ALL_KNOWN = "every frame above tolerance duplicates a labelled configuration"
ALL_UNPHYSICAL = "every frame above tolerance was discarded as unphysical or duplicates a labelled configuration"
ACCURATE = "the errors on the test set are below tolerance"
NOT_EVALUATED = "; the {} was not evaluated, because no configuration of the test set has such a label"
LAST_ITERATION = "the maximum number of iterations"
NO_FRAMES = "the dynamics gave no frames"
CSV_DIGITS = 8  # number of significant digits


@dataclass(frozen=True)
class LearningLoop:
    """Active-learning loop in a run folder.

    Attributes
    ----------
    folder : LearnFolder
    settings : LearnSettings
    labeller : Labeller
    model : Model
    start_structures : sequence of ase.Atoms
        Structures from which the dynamics can start.
    descriptor_function : callable
        Computes the mean descriptors of a structure, which identify duplicates.
    max_reserved_id : int
        Highest id of a candidate, labelled or not.
    context : RunContext
    on_message : callable
        Receives a message after each stage.
    """

    folder: LearnFolder
    settings: LearnSettings
    labeller: Labeller
    model: Model
    start_structures: Sequence[Atoms]
    descriptor_function: Callable[[Atoms], Array]
    max_reserved_id: int
    context: RunContext
    on_message: Callable[[str], None] = log.info

    def run(self, *, only_stage: str | None = None, on_iteration: Callable[[int], object] | None = None) -> str:
        """Run or resume the loop until it ends; return the reason for the end.

        Parameters
        ----------
        only_stage : str, optional
            One of `STAGES`: run only this stage of the current iteration.
        on_iteration : callable, optional
            Receives the number of each iteration that did not end the loop.

        Raises
        ------
        InputError
            If `only_stage` requires a stage that is not finished, or there are too few structures or labels.
        """
        iterations = self.folder.list_iterations()
        k = next((k for k in iterations if not self._is_finished(k)), max(iterations))
        for number in iterations:
            remove_file(self.folder.iteration(number).path / "stopped.json")  # the maximum number may have been raised
        while k <= self.settings.max_iterations:
            iteration = self.folder.iteration(k)
            for stage in STAGES if only_stage is None else (only_stage,):
                if reason := self._run_stage(stage, k, iteration):
                    iteration.write_record("stopped", {"reason": reason})
                    return reason
            if only_stage is not None:
                return f"stage '{only_stage}' of iteration {k}"
            if on_iteration is not None:
                on_iteration(k)
            k += 1
        self.folder.iteration(k - 1).write_record("stopped", {"reason": LAST_ITERATION})
        return LAST_ITERATION

    def _is_finished(self, k: int) -> bool:
        return all(self.folder.iteration(k).read_record(stage) is not None for stage in STAGES)

    def _run_stage(self, stage: str, k: int, iteration: IterationFolder) -> str:
        """Run a stage unless it is finished; return the reason to end the loop, or an empty string.

        If the settings of a finished stage of the last iteration have changed, the stage and later ones are repeated.
        """
        record, digest = iteration.read_record(stage), self._hash_settings(stage)
        if record is not None and record["settings"] != digest and k == max(self.folder.list_iterations()):
            self.on_message(f"iteration {k}, {stage}: repeated, because its settings have changed")
            for invalid_stage in STAGES[STAGES.index(stage) :]:
                remove_file(iteration.path / f"{invalid_stage}.json")
            record = None
        if record is None:
            for required_stage in STAGES[: STAGES.index(stage)]:
                if iteration.read_record(required_stage) is None:
                    raise InputError(
                        f"stage '{stage}' of iteration {k} requires '{required_stage}'; run without --stage, or with "
                        f"--stage {required_stage} first"
                    )
            start = time.perf_counter()
            result = getattr(self, f"_{stage}")(k, iteration)
            wall_seconds = round(time.perf_counter() - start, 2)
            record = iteration.write_record(stage, {**result, "settings": digest, "wall_seconds": wall_seconds})
        else:
            iteration.check_files(stage)
        self.on_message(f"iteration {k}, {stage}: {record['message']}")
        if stage == "train":
            is_last = k >= self.settings.max_iterations
            return self._check_tolerance(record["rmse"][TEST]) or (LAST_ITERATION if is_last else "")
        return str(record.get("stop", ""))

    def _hash_settings(self, stage: str) -> str:
        """Hash the settings on which the result of a stage depends, in addition to the results of earlier stages."""
        settings = self.settings
        sections = dict(zip(STAGES, (settings.level, settings.model, settings.explore, settings.select), strict=True))
        return hash_json([settings.seed, sections[stage].model_dump(mode="json")])

    def _create_rng(self, k: int, purpose: int) -> np.random.Generator:
        """Create the generator for one purpose in iteration `k`; a repeated stage draws the same numbers again."""
        return np.random.default_rng([self.settings.seed, k, purpose])

    def _label(self, k: int, iteration: IterationFolder) -> dict[str, Any]:
        """Assign the structures of an iteration to sets and label them; return the record."""
        structures = self.folder.read_iteration_structures(k)
        sets, note = training_data.assign_new_sets(self.folder, self.settings.sets, structures, self._create_rng(k, 1))
        if note:
            self.on_message(f"iteration {k}, sets: {note}")
        model_error, n_train = None, 0
        if k > 1 and (record := self.folder.iteration(k - 1).read_record("train")) is not None:
            model_error, n_train = training_data.get_validation_error(record), record["counts"][TRAIN]
        ids = [int(atoms.info["config_id"]) for atoms in structures]
        held_out_ids = {config_id for config_id in ids if sets[config_id] != TRAIN}
        result: dict[str, Any] = {"level": "", "reason": "there are no structures to label", "labels": 0, "failed": {},
                                  "seconds": 0.0, "levels": []}  # fmt: skip
        if structures:
            exponent = training_data.fit_loop_exponent(self.folder, k)
            request = LabelRequest(iteration, ids, held_out_ids, model_error, int(n_train), exponent)
            result = self.labeller.label(request, self._create_rng(k, 0))
        failures = f", {len(result['failed'])} failed" if result["failed"] else ""
        message = f"{result['labels']} labels{failures}, {result['seconds']:.1f} CPU seconds; {result['reason']}"
        return {**result, "message": message}

    def _train(self, k: int, iteration: IterationFolder) -> dict[str, Any]:
        """Train and evaluate a committee; return the record."""
        data = training_data.load_training_data(self.folder, k, self.labeller.level_names)
        seed = int(self._create_rng(k, 2).integers(2**31))
        training = self.model.train(data, iteration.model.absolute(), seed=seed, context=self.context)
        indices = np.arange(len(data.dataset))
        labelled = data.select_aligned(indices, training.offsets)
        configuration_table = calibration_points.tabulate_configurations(data, training.configuration_weights)
        errors = evaluate_committee(training.committee, labelled, configuration_table, self.context)
        write_csv(errors.table, iteration.path / "errors.csv", CSV_DIGITS)
        write_csv(errors.components, iteration.path / "components.csv", CSV_DIGITS)
        batch_summary = self._evaluate_batch(k, labelled.select(data.iteration == k), configuration_table)
        points = calibration_points.collect_points(self.folder, k, training, labelled, errors, self.context)
        write_csv(points, iteration.path / "calibration.csv", CSV_DIGITS)
        counts = {name: int((data.sets == name).sum()) for name in SET_NAMES}
        description = "; ".join([training.description, *training.events])
        return {
            "message": f"training set of {counts[TRAIN]} configurations, {description}; errors on the test set: "
            f"{calibration_points.format_test_errors(errors.rmse[TEST])}"
            f"{calibration_points.format_batch(batch_summary)}",
            "batch": batch_summary,
            "events": list(training.events),
            "members": list(training.member_records),
            "counts": counts,
            "model": training.description.split(",")[0],
            "rmse": errors.rmse,
            "offsets": {f"{level} {symbol}": value for (level, symbol), value in training.offsets.items()},
        }

    def _evaluate_batch(
        self, k: int, labelled: LabelledStructures, configuration_table: pd.DataFrame
    ) -> dict[str, dict[str, float]]:
        """Write the true and predicted errors of the frames that the previous committee chose; return their summary."""
        path, previous_iteration = self.folder.iteration(k).path / "batch_errors.csv", self.folder.iteration(k - 1)
        remove_file(path)
        if k == 1 or not labelled.structures:
            return {}
        batch_table = configuration_table[configuration_table["iteration"] == k]
        committee = self.model.load(previous_iteration.model.absolute())
        batch = calibration_points.evaluate_batch(committee, previous_iteration, labelled, batch_table, self.context)
        write_csv(batch, path, CSV_DIGITS)
        return calibration_points.summarise_batch(batch)

    def _check_tolerance(self, rmse: dict[str, dict[str, float]]) -> str:
        """Return the reason to end the loop if all known test errors are within tolerance, otherwise an empty string.

        The reason names the properties without labels in the test set, because their errors are unknown.
        """
        tolerance, errors = self.settings.select.tolerance, {name: rmse[name]["value"] for name in selection.PROPERTIES}
        known_errors = {name: error for name, error in errors.items() if np.isfinite(error)}
        if not known_errors or not all(error <= getattr(tolerance, name) for name, error in known_errors.items()):
            return ""
        unknown_properties = [name for name in errors if name not in known_errors]
        return f"{ACCURATE}{NOT_EVALUATED.format(' and '.join(unknown_properties)) if unknown_properties else ''}"

    def _explore(self, k: int, iteration: IterationFolder) -> dict[str, Any]:
        """Run the molecular dynamics of an iteration; return the record."""
        settings, rng = self.settings.explore, self._create_rng(k, 3)
        committee = self.model.load(iteration.model.absolute())
        start_structures, _ = select_start_structures(self.start_structures, settings.max_atoms)
        train_record = iteration.read_record("train") or {}
        member = (
            None if settings.driver == "mean" else int(rng.choice(find_typical_members(train_record["rmse"][TRAIN])))
        )
        engine = committee.build_md_engine(member, iteration.path.absolute() / "md")
        runs = plan_runs(start_structures, settings, rng)
        folder = iteration.trajectories.absolute()
        records = run_trajectories(runs, engine, settings, committee, folder, k, self.context)
        events = [f"trajectory {record['number']}: {record['reason']}" for record in records if record["reason"]]
        driver = "the mean" if member is None else f"member {member}"
        n_frames = sum(record["frames"] for record in records)
        warning = describe_early_ends(records)
        return {
            "message": f"{len(runs)} trajectories with {driver}, {n_frames} frames, {len(events)} ended early"
            + (f"; {warning}" if warning else f" ({events[0]})" if events else ""),
            "warning": warning,
            "member": member,
            "frames": n_frames,
            "picoseconds": sum(record["picoseconds"] for record in records),
            "events": events,
        }

    def _select(self, k: int, iteration: IterationFolder) -> dict[str, Any]:
        """Select frames and write them as structures of the next iteration; return the record."""
        settings, committee = self.settings.select, self.model.load(iteration.model.absolute())
        points = calibration_points.read_points(iteration)
        remedy = f"remove {iteration.path / 'explore.json'} to repeat the dynamics"
        numbers = range(self.settings.explore.trajectories)
        paths = [iteration.trajectories / f"{number:03d}.extxyz" for number in numbers]
        frames = [atoms for path in paths for atoms in load_frames(path, remedy)]
        assessments = map_structures(Committee.assess, committee, frames, "evaluate", self.context)
        calibration = selection.calibrate(points, settings, selection.tabulate_disagreements(assessments))
        calibration_record = selection.summarise_calibration(calibration, points, settings)
        result: dict[str, Any] = {"calibration": calibration_record, "verdicts": {}, "selected": 0}
        if not frames:
            return {**result, "message": NO_FRAMES, "stop": NO_FRAMES}
        with Dataset(self.folder.dataset) as data:
            # if the stage is repeated, the dataset may contain configurations of later iterations
            is_previous = np.array([int(info.get("iteration", 1)) <= k for info in data.info_records])
            labelled_structures = data.select(np.flatnonzero(is_previous))
            known_descriptors = np.array([self.descriptor_function(atoms) for atoms in labelled_structures])
            last_id = max(int(data.ids[is_previous].max()), self.max_reserved_id)
        descriptors = np.array([self.descriptor_function(atoms) for atoms in frames])
        table = selection.classify_frames(frames, assessments, calibration, settings, descriptors, known_descriptors)
        selected_rows = selection.select_frames(table, descriptors, known_descriptors, settings, self._create_rng(k, 4))
        table.loc[selected_rows, "verdict"] = selection.CHOSEN
        table.loc[selected_rows, "config_id"] = last_id + 1 + np.arange(len(selected_rows))
        configurations = [
            selection.make_configuration(frames[row], assessments[row].grades, last_id + number, k + 1, settings)
            for number, row in enumerate(selected_rows.tolist(), start=1)
        ]
        table.loc[selected_rows, "atoms_to_label"] = [len(atoms) for atoms in configurations]
        origins = pd.DataFrame([{key: atoms.info.get(key) for key in ("trajectory", "time_ps")} for atoms in frames])
        origins["atoms"] = [len(atoms) for atoms in frames]
        write_csv(pd.concat([origins, table], axis=1), iteration.path / "frames.csv", CSV_DIGITS)
        verdicts = {str(name): int(count) for name, count in table["verdict"].value_counts().items()}
        message = ", ".join(f"{count} {name}" for name, count in verdicts.items())
        if n_cut := sum(selection.CUT_OUT_KEY in atoms.info for atoms in configurations):
            message += f"; {n_cut} of the chosen frames are cut down to the environment of an atom"
        result |= {"message": message, "verdicts": verdicts, "selected": len(selected_rows)}
        if not len(selected_rows):
            reason = (
                ALL_UNPHYSICAL
                if selection.UNPHYSICAL in verdicts
                else ALL_KNOWN
                if selection.DUPLICATE in verdicts
                else CONVERGED
            )
            return {**result, "message": f"{message}; nothing to label", "stop": reason}
        path = self.folder.iteration(k + 1).structures
        write_frames(path, configurations)
        return {**result, "structures": hash_file(path)}
