"""Active-learning loop, which repeats the stages label, train, explore and select; they communicate through files.

Every stage of every iteration ends by writing a record, and a resumed run repeats the stages without a record. Labels
and trajectories are stored individually, so that a run that is killed loses only unfinished labels and trajectories.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
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
# purposes of random numbers; their order is part of the seed of their generators, and must not change
RNG_PURPOSES = ("pilot", "sets", "training", "dynamics", "selection")
# reasons why a loop ends
CONVERGED = "no frame of the dynamics is above tolerance"
ALL_KNOWN = "every frame above tolerance duplicates a labelled configuration"
ALL_UNPHYSICAL = "every frame above tolerance was discarded as unphysical or duplicates a labelled configuration"
ACCURATE = "the errors on the test set are below tolerance"
LAST_ITERATION = "the maximum number of iterations"
NO_FRAMES = "the dynamics gave no frames"
NOT_EVALUATED = "; the {} was not evaluated, because no configuration of the test set has such a label"
CSV_DIGITS = 8  # number of significant digits in the tables of an iteration


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
        Computes the mean descriptors, ``(d,)``, of a structure, which identify duplicates.
    max_reserved_id : int
        Highest ``config_id`` of a candidate, labelled or not; selected frames have higher ids.
    context : RunContext
    on_message : callable
        Receives a message after each stage; by default, messages are logged.
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
        """Run or resume the loop until it ends; return the reason why it ended, or the stage that `only_stage` ran.

        The folder of the first iteration must contain the structures to label.

        Parameters
        ----------
        only_stage : str, optional
            One of `STAGES`, of which only this one is run, in the current iteration; by default, all are run.
        on_iteration : callable, optional
            Receives the number of each iteration that did not end the loop.

        Raises
        ------
        InputError
            If `only_stage` requires a stage that is not finished, a file of a finished stage has changed, or there are
            too few structures or labels.
        """
        numbers = self.folder.list_iterations()
        number = next((number for number in numbers if not self._is_finished(number)), max(numbers))
        for started_number in numbers:  # the maximum number of iterations may have been raised since a loop ended
            remove_file(self.folder.get_iteration(started_number).path / "stopped.json")
        while number <= self.settings.max_iterations:
            iteration = self.folder.get_iteration(number)
            for stage in STAGES if only_stage is None else (only_stage,):
                if reason := self._run_stage(stage, number, iteration):
                    iteration.write_record("stopped", {"reason": reason})
                    return reason
            if only_stage is not None:
                return f"stage '{only_stage}' of iteration {number}"
            if on_iteration is not None:
                on_iteration(number)
            number += 1
        self.folder.get_iteration(number - 1).write_record("stopped", {"reason": LAST_ITERATION})
        return LAST_ITERATION

    def _is_finished(self, number: int) -> bool:
        """Check whether all stages of an iteration are finished."""
        return all(self.folder.get_iteration(number).read_record(stage) is not None for stage in STAGES)

    def _run_stage(self, stage: str, number: int, iteration: IterationFolder) -> str:
        """Run a stage of iteration `number` unless it is finished; return the reason to end the loop, or "".

        If the settings of a finished stage of the last iteration have changed, the stage and later ones are repeated.
        Raises an `InputError` if an earlier stage is not finished, or a file of this finished stage has changed.
        """
        record, digest = iteration.read_record(stage), self._hash_settings(stage)
        if record is not None and record["settings"] != digest and number == max(self.folder.list_iterations()):
            self.on_message(f"iteration {number}, {stage}: repeated, because its settings have changed")
            for invalid_stage in STAGES[STAGES.index(stage) :]:
                remove_file(iteration.path / f"{invalid_stage}.json")
            record = None
        if record is None:
            for required_stage in STAGES[: STAGES.index(stage)]:
                if iteration.read_record(required_stage) is None:
                    raise InputError(
                        f"stage '{stage}' of iteration {number} requires '{required_stage}'; run without --stage, or "
                        f"with --stage {required_stage} first"
                    )
            start_time = time.perf_counter()
            stage_record = getattr(self, f"_{stage}")(number, iteration)
            wall_seconds = round(time.perf_counter() - start_time, 2)
            record = iteration.write_record(stage, {**stage_record, "settings": digest, "wall_seconds": wall_seconds})
        else:
            iteration.check_files(stage)
        self.on_message(f"iteration {number}, {stage}: {record['message']}")
        if stage == "train":  # frames of the last iteration would not be labelled, so the loop ends with its training
            is_last = number >= self.settings.max_iterations
            return self._check_tolerance(record["rmse"][TEST]) or (LAST_ITERATION if is_last else "")
        return str(record.get("stop", ""))

    def _hash_settings(self, stage: str) -> str:
        """Hash the settings of a stage; the stage depends on these and on the files of earlier stages."""
        settings = self.settings
        sections = dict(zip(STAGES, (settings.level, settings.model, settings.explore, settings.select), strict=True))
        return hash_json([settings.seed, sections[stage].model_dump(mode="json")])

    def _create_rng(self, number: int, purpose: str) -> np.random.Generator:
        """Create the generator for one of `RNG_PURPOSES` in an iteration; a repeated stage draws the same numbers."""
        return np.random.default_rng([self.settings.seed, number, RNG_PURPOSES.index(purpose)])

    def _label(self, number: int, iteration: IterationFolder) -> dict[str, Any]:
        """Assign the structures of an iteration to sets and label them; return the record."""
        structures = self.folder.read_iteration_structures(number)
        sets, note = training_data.assign_new_sets(
            self.folder, self.settings.sets, structures, self._create_rng(number, "sets")
        )
        if note:
            self.on_message(f"iteration {number}, sets: {note}")
        model_error, n_train = None, 0
        if number > 1 and (train_record := self.folder.get_iteration(number - 1).read_record("train")) is not None:
            model_error = training_data.get_validation_error(train_record)
            n_train = int(train_record["counts"][TRAIN])
        ids = [int(atoms.info["config_id"]) for atoms in structures]
        held_out_ids = {config_id for config_id in ids if sets[config_id] != TRAIN}
        record: dict[str, Any] = {"level": "", "reason": "there are no structures to label", "labels": 0, "failed": {},
                                  "seconds": 0.0, "levels": []}  # fmt: skip
        if structures:
            exponent = training_data.fit_loop_exponent(self.folder, number)
            request = LabelRequest(iteration, ids, held_out_ids, model_error, n_train, exponent)
            record = self.labeller.label(request, self._create_rng(number, "pilot"))
        failures = f", {len(record['failed'])} failed" if record["failed"] else ""
        message = f"{record['labels']} labels{failures}, {record['seconds']:.1f} CPU seconds; {record['reason']}"
        return {**record, "message": message}

    def _train(self, number: int, iteration: IterationFolder) -> dict[str, Any]:
        """Train and evaluate a committee, and write its files; return the record."""
        labelled_data = training_data.load_training_data(self.folder, number, self.labeller.level_names)
        seed = int(self._create_rng(number, "training").integers(2**31))
        training = self.model.train(labelled_data, iteration.model_folder.absolute(), seed=seed, context=self.context)
        labelled = labelled_data.select_aligned(np.arange(len(labelled_data.dataset)), training.offsets)
        configuration_table = calibration_points.tabulate_configurations(labelled_data, training.configuration_weights)
        errors = evaluate_committee(training.committee, labelled, configuration_table, self.context)
        write_csv(errors.table, iteration.path / "errors.csv", CSV_DIGITS)
        write_csv(errors.components, iteration.path / "components.csv", CSV_DIGITS)
        batch_summary = self._evaluate_batch(
            number, labelled.select(labelled_data.iteration == number), configuration_table
        )
        points = calibration_points.collect_points(self.folder, number, training, labelled, errors, self.context)
        write_csv(points, iteration.path / "calibration.csv", CSV_DIGITS)
        counts = {name: int((labelled_data.sets == name).sum()) for name in SET_NAMES}
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
            "offsets": {f"{level} {symbol}": offset for (level, symbol), offset in training.offsets.items()},
        }

    def _evaluate_batch(
        self, number: int, labelled: LabelledStructures, configuration_table: pd.DataFrame
    ) -> dict[str, dict[str, float]]:
        """Write the true and predicted errors of the frames that the previous committee chose; return their summary.

        `labelled` contains the frames labelled in iteration `number`; the summary is empty if there are none.
        """
        path = self.folder.get_iteration(number).path / "batch_errors.csv"
        previous_iteration = self.folder.get_iteration(number - 1)
        remove_file(path)  # of an earlier training of this iteration
        if number == 1 or not labelled.structures:
            return {}
        batch_table = configuration_table[configuration_table["iteration"] == number]
        committee = self.model.load(previous_iteration.model_folder.absolute())
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
        return ACCURATE + (NOT_EVALUATED.format(" and ".join(unknown_properties)) if unknown_properties else "")

    def _explore(self, number: int, iteration: IterationFolder) -> dict[str, Any]:
        """Run the molecular dynamics of an iteration, and write the trajectories; return the record."""
        settings, rng = self.settings.explore, self._create_rng(number, "dynamics")
        committee = self.model.load(iteration.model_folder.absolute())
        start_structures, _ = select_start_structures(self.start_structures, settings.max_atoms)
        member = None  # the mean of the members drives the dynamics
        if settings.driver == "member":
            train_record = iteration.read_record("train") or {}
            member = int(rng.choice(find_typical_members(train_record["rmse"][TRAIN])))
        engine = committee.build_md_engine(member, iteration.path.absolute() / "md")
        runs = plan_runs(start_structures, settings, rng)
        folder = iteration.trajectories_folder.absolute()
        records = run_trajectories(runs, engine, settings, committee, folder, number, self.context)
        events = [f"trajectory {record['number']}: {record['reason']}" for record in records if record["reason"]]
        driver = "the mean" if member is None else f"member {member}"
        n_frames = sum(record["frames"] for record in records)
        message = f"{len(runs)} trajectories with {driver}, {n_frames} frames, {len(events)} ended early"
        if warning := describe_early_ends(records):
            message += f"; {warning}"
        elif events:
            message += f" ({events[0]})"
        return {
            "message": message,
            "warning": warning,
            "member": member,
            "frames": n_frames,
            "picoseconds": sum(record["picoseconds"] for record in records),
            "events": events,
        }

    def _select(self, number: int, iteration: IterationFolder) -> dict[str, Any]:
        """Select frames, write ``frames.csv`` and the structures of the next iteration, and return the record."""
        settings, committee = self.settings.select, self.model.load(iteration.model_folder.absolute())
        points = calibration_points.read_points(iteration)
        frames = self._load_trajectory_frames(iteration)
        assessments = map_structures(Committee.assess, committee, frames, "evaluate", self.context)
        calibration = selection.calibrate(points, settings, selection.tabulate_disagreements(assessments))
        calibration_record = selection.summarise_calibration(calibration, points, settings)
        record: dict[str, Any] = {"calibration": calibration_record, "verdicts": {}, "selected": 0}
        if not frames:
            return {**record, "message": NO_FRAMES, "stop": NO_FRAMES}
        known_descriptors, last_id = self._describe_labelled_structures(number)
        descriptors = np.array([self.descriptor_function(atoms) for atoms in frames])
        table = selection.classify_frames(frames, assessments, calibration, settings, descriptors, known_descriptors)
        rng = self._create_rng(number, "selection")
        selected_rows = selection.select_frames(table, descriptors, known_descriptors, settings, rng)
        table.loc[selected_rows, "verdict"] = selection.CHOSEN
        table.loc[selected_rows, "config_id"] = last_id + 1 + np.arange(len(selected_rows))
        configurations = [
            selection.build_configuration(frames[row], assessments[row].grades, config_id, number + 1, settings)
            for config_id, row in enumerate(selected_rows.tolist(), start=last_id + 1)
        ]
        table.loc[selected_rows, "atoms_to_label"] = [len(atoms) for atoms in configurations]
        origins = pd.DataFrame([{key: atoms.info.get(key) for key in ("trajectory", "time_ps")} for atoms in frames])
        origins["atoms"] = [len(atoms) for atoms in frames]
        write_csv(pd.concat([origins, table], axis=1), iteration.path / "frames.csv", CSV_DIGITS)
        verdicts = {str(name): int(count) for name, count in table["verdict"].value_counts().items()}
        message = ", ".join(f"{count} {name}" for name, count in verdicts.items())
        if n_cut := sum(selection.CUT_OUT_KEY in atoms.info for atoms in configurations):
            message += f"; {n_cut} of the chosen frames are cut down to the environment of an atom"
        record |= {"message": message, "verdicts": verdicts, "selected": len(selected_rows)}
        if not len(selected_rows):
            return {**record, "message": f"{message}; nothing to label", "stop": _name_stop_reason(verdicts)}
        path = self.folder.get_iteration(number + 1).structures_path
        write_frames(path, configurations)
        return {**record, "structures": hash_file(path)}

    def _load_trajectory_frames(self, iteration: IterationFolder) -> list[Atoms]:
        """Load the frames of all trajectories of an iteration, in the order of the trajectories."""
        remedy = f"remove {iteration.path / 'explore.json'} to repeat the dynamics"
        numbers = range(self.settings.explore.trajectories)
        paths = [iteration.trajectories_folder / f"{number:03d}.extxyz" for number in numbers]
        return [atoms for path in paths for atoms in load_frames(path, remedy)]

    def _describe_labelled_structures(self, number: int) -> tuple[Array, int]:
        """Compute the mean descriptors, ``(n, d)``, of the configurations up to iteration `number`.

        Also returns the highest ``config_id`` in use.
        """
        with Dataset(self.folder.dataset_path) as dataset:
            # if the stage is repeated, the dataset may contain configurations of later iterations
            is_previous = np.array([int(info.get("iteration", 1)) <= number for info in dataset.info_records])
            labelled_structures = dataset.select(np.flatnonzero(is_previous))
            descriptors = np.array([self.descriptor_function(atoms) for atoms in labelled_structures])
            return descriptors, max(int(dataset.ids[is_previous].max()), self.max_reserved_id)


def _name_stop_reason(verdicts: Mapping[str, int]) -> str:
    """Name the reason why no frame was selected, from the numbers of frames by verdict."""
    if selection.UNPHYSICAL in verdicts:
        return ALL_UNPHYSICAL
    return ALL_KNOWN if selection.DUPLICATE in verdicts else CONVERGED
