"""The loop: label, train, explore, select, and again, from file to file.

Every stage of every iteration ends with a record of its own; running again does what has none. Labels and trajectories
are files of their own, so that a kill at any moment costs what was running, and nothing else.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from paretofit.core import InputError, hash_file, hash_json, remove_file, write_json_with_digest
from paretofit.dataset import Dataset
from paretofit.descriptors import map_structures
from paretofit.learning.evaluation import SET_NAMES, evaluate_committee
from paretofit.learning.explore import plan_runs, select_start_structures
from paretofit.learning.level_choice import fit_learning_exponent, measure_level_noise
from paretofit.learning.loop_folder import load_frames, write_csv, write_frames
from paretofit.learning.model import TrainingData, align_labels
from paretofit.learning.selection import (
    BROKEN,
    CHOSEN,
    DUPLICATE,
    MIN_CALIBRATION_POINTS,
    PROPERTIES,
    Calibration,
    calibrate,
    classify_frames,
    select_frames,
)
from paretofit.learning.sets import TEST, TRAIN, VALIDATE, assign_group_numbers, assign_sets, choose_group_keys
from paretofit.learning.trajectories import run_trajectories
from paretofit.uncertainty import detection_rates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ase import Atoms

    from paretofit.core import Array
    from paretofit.learning.labeller import Labeller
    from paretofit.learning.learn_settings import LearnSettings
    from paretofit.learning.loop_folder import IterationFolder, LearnFolder
    from paretofit.learning.model import Committee, Model
    from paretofit.uncertainty import Assessment

log = logging.getLogger(__name__)

STAGES = ("label", "train", "explore", "select")
CONVERGED, ALL_KNOWN, ALL_BROKEN, ACCURATE, LAST, NO_FRAMES = (
    "nothing that the dynamics found is above tolerance",
    "all that the dynamics found above tolerance is like what is labelled already",
    "all that the dynamics found above tolerance is broken, or like what is labelled already",
    "the errors on the test set are below tolerance",
    "the maximum number of iterations",
    "the dynamics gave no frames",
)


@dataclass(frozen=True)
class LearningLoop:
    """Active learning in a run folder.

    Attributes
    ----------
    folder : LearnFolder
    settings : LearnSettings
    labeller : Labeller
    model : Model
    start_structures : sequence of ase.Atoms
        What the dynamics may start from.
    descriptor_function : callable
        Mean descriptors of a structure, by which duplicates are found.
    max_reserved_id : int
        The highest id of a candidate, labelled or not.
    jobs : int
    progress : bool
    on_message : callable
        What is told of the progress.
    """

    folder: LearnFolder
    settings: LearnSettings
    labeller: Labeller
    model: Model
    start_structures: Sequence[Atoms]
    descriptor_function: Callable[[Atoms], Array]
    max_reserved_id: int = -1
    jobs: int = 1
    progress: bool = False
    on_message: Callable[[str], None] = log.info

    def run(self, *, only_stage: str | None = None, on_iteration: Callable[[int], object] | None = None) -> str:
        """Go on until it ends by itself; return why it did.

        Parameters
        ----------
        only_stage : str, optional
            One of `STAGES`: do this stage of the present iteration, and no other.
        on_iteration : callable, optional
            Told each iteration after which it goes on.

        Raises
        ------
        InputError
            If a stage alone lacks what the ones before it make, or there is nothing to label or calibrate.
        """
        begun = self.folder.list_iterations()
        k = next((one for one in begun if not self._finished(one)), max(begun))
        for one in begun:
            remove_file(self.folder.iteration(one).path / "stopped.json")  # it may go on
        while k <= self.settings.max_iterations:
            here = self.folder.iteration(k)
            for stage in STAGES:
                if only_stage is not None and stage != only_stage:
                    continue
                reason = self._stage(stage, k, here)
                if reason:
                    here.write_record("stopped", {"reason": reason})
                    return reason
            if only_stage is not None:
                return f"stage '{only_stage}' of iteration {k}"
            if on_iteration is not None:
                on_iteration(k)
            k += 1
        self.folder.iteration(k - 1).write_record("stopped", {"reason": LAST})
        return LAST

    def _finished(self, k: int) -> bool:
        return all(self.folder.iteration(k).read_record(stage) is not None for stage in STAGES)

    def _stage(self, stage: str, k: int, here: IterationFolder) -> str:
        """Do a stage unless it is finished; return why the loop ends, if it does."""
        record, settings = here.read_record(stage), self._settings(stage)
        if record is not None and record["settings"] != settings and k == max(self.folder.list_iterations()):
            self.on_message(f"iteration {k}, {stage}: its settings have changed, it is done again")
            for later in STAGES[STAGES.index(stage) :]:
                remove_file(here.path / f"{later}.json")
            record = None
        if record is None:
            before = STAGES[: STAGES.index(stage)]
            if missing := [one for one in before if here.read_record(one) is None]:
                raise InputError(
                    f"stage '{stage}' of iteration {k} needs '{missing[0]}' first: run without --stage, or with "
                    f"--stage {missing[0]}"
                )
            start = time.perf_counter()
            made = getattr(self, f"_{stage}")(k, here)
            spent = round(time.perf_counter() - start, 2)
            record = here.write_record(stage, {**made, "settings": settings, "wall_seconds": spent})
        else:
            here.check_files(stage)
        self.on_message(f"iteration {k}, {stage}: {record['said']}")
        if stage == "train":
            good = self._good_enough(record["rmse"][TEST])
            return ACCURATE if good else LAST if k >= self.settings.max_iterations else ""
        return str(record.get("stop", ""))

    def _settings(self, stage: str) -> str:
        """Hash of what a stage's outcome depends on, besides what the stages before have made."""
        own = self.settings
        used: dict[str, Any] = {
            "label": self.labeller.level_settings,
            "train": own.model,
            "explore": own.explore,
            "select": own.select,
        }
        return hash_json([own.seed, used[stage].model_dump(mode="json")])

    def _rng(self, k: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, k, purpose])

    def _label(self, k: int, here: IterationFolder) -> dict[str, Any]:
        structures = self.folder.read_iteration_structures(k)
        sets = self._assign(k, structures)
        before = self.folder.iteration(k - 1).read_record("train") if k > 1 else None
        error: tuple[float, float] | None = None
        n = 0
        if before is not None:
            error, n = _error_of(before), int(before["counts"][TRAIN])
        ids = [int(atoms.info["config_id"]) for atoms in structures]
        judges = {one for one in ids if sets[one] != TRAIN}
        made: dict[str, Any] = (
            self.labeller.label(here, ids, judges, error, n, fit_learning_exponent(self._history(k)), self._rng(k, 0))
            if structures
            else {"level": "", "words": "all labelled already", "labels": 0, "failed": {}, "seconds": 0.0, "levels": []}
        )
        failed = f", {len(made['failed'])} failed" if made["failed"] else ""
        return {**made, "said": f"{made['labels']} labels{failed}, {made['seconds']:.1f} s of CPU; {made['words']}"}

    def _history(self, k: int) -> list[tuple[int, float]]:
        """Sizes of the training set and force errors of the iterations before with a model of the same size."""
        records = [self.folder.iteration(one).read_record("train") for one in range(1, k)]
        trained = [one for one in records if one]
        sizes = [
            (int(one["counts"][TRAIN]), one["rmse"][VALIDATE]["forces"]["value"])
            for one in trained
            if one["model"] == trained[-1]["model"]
        ]
        return [(n, error) for n, error in sizes if np.isfinite(error) and error > 0]

    def _assign(self, k: int, new: Sequence[Atoms]) -> dict[int, str]:
        """Give new configurations their set, for ever, before anything is paid for them."""
        known = self.folder.read_set_assignment()
        own = self.settings.sets
        shares = {TRAIN: own.train, VALIDATE: own.validation, TEST: own.test}
        structures = list(new)
        if self.folder.dataset.exists():
            there = {int(atoms.info["config_id"]) for atoms in new}
            with Dataset(self.folder.dataset) as data:
                structures = [atoms for atoms in data if int(atoms.info["config_id"]) not in there] + structures
        keys = known.get("group_by") or choose_group_keys(structures, own.group_by)
        given = {int(one): str(name) for one, name in known.get("sets", {}).items()}
        sets = assign_sets(structures, given, shares, keys, self._rng(k, 1))
        counts = {name: sum(one == name for one in sets.values()) for name in shares}
        if counts[VALIDATE] < MIN_CALIBRATION_POINTS or counts[TRAIN] < 2:
            raise InputError(
                f"of {len(sets)} configurations {counts[TRAIN]} train and the validation set has {counts[VALIDATE]}, "
                f"fewer than the {MIN_CALIBRATION_POINTS} that a calibration needs; begin with more candidates, or raise "
                "'learning.sets.validate'"
            )
        write_json_with_digest(self.folder.sets, {"group_by": keys, "sets": sets})
        return sets

    def load_training_data(self, k: int) -> TrainingData:
        """Labelled configurations up to an iteration; those whose labels failed are left out."""
        dataset = Dataset(self.folder.dataset)
        given = self.folder.read_set_assignment()
        sets = given["sets"]
        ladder = [*(one for one in dataset.levels if one not in self.labeller.level_names), *self.labeller.level_names]
        levels = [one for one in ladder if one in dataset.levels]
        best = np.full(len(dataset), "", dtype=object)
        for name in levels:
            best[dataset.labels(name).complete] = name
        iteration = np.array([int(one.get("iteration", 1)) for one in dataset.info_records])
        kept = np.flatnonzero((best != "") & (iteration <= k))
        if not len(kept):
            raise InputError("no configuration has a label; look at what failed in iterations/01/label.json")
        own = dataset.select(kept)
        used = [one for one in levels if (best[kept] == one).any() or one == levels[-1]]
        before = self.folder.iteration(k - 1).read_record("train") if k > 1 else None
        error = None if before is None else _error_of(before)
        return TrainingData(
            own,
            np.array([sets[str(one)] for one in own.ids]),
            best[kept],
            assign_group_numbers(list(own), given["group_by"]),
            iteration[kept],
            used,
            measure_level_noise(dataset, used),
            error,
            self.folder.iteration(k - 1).model if before is not None else None,
        )

    def _train(self, k: int, here: IterationFolder) -> dict[str, Any]:
        data = self.load_training_data(k)
        seed = int(self._rng(k, 2).integers(2**31))
        trained = self.model.train(data, here.model.absolute(), seed=seed, jobs=self.jobs, progress=self.progress)
        whole = data.select_labelled(np.arange(len(data.dataset)))
        labels = align_labels(whole, data.level, trained.offsets)
        known = pd.DataFrame(
            {"id": data.dataset.ids, "set": data.sets, "iteration": data.iteration, "level": data.level}
        )
        judged = evaluate_committee(
            trained.committee, whole.structures, labels, known, jobs=self.jobs, progress=self.progress
        )
        write_csv(judged.table, here.path / "errors.csv")
        write_csv(judged.components, here.path / "components.csv")
        counts = {name: int((data.sets == name).sum()) for name in SET_NAMES}
        test = judged.rmse[TEST]
        words = ", ".join(
            f"{name} {test[name]['value']:.3g}" for name in PROPERTIES if np.isfinite(test[name]["value"])
        )
        what = "; ".join([trained.description, *trained.events])
        return {
            "said": f"{counts[TRAIN]} train, {what}; test: {words or 'no labels'} (meV/atom, meV/Å, meV/Å³)",
            "events": list(trained.events),
            "members": list(trained.member_records),
            "counts": counts,
            "model": trained.description.split(",")[0],
            "rmse": judged.rmse,
            "offsets": {f"{level} {symbol}": value for (level, symbol), value in trained.offsets.items()},
        }

    def _good_enough(self, test: dict[str, dict[str, float]]) -> bool:
        own = [test[name]["value"] <= getattr(self.settings.select.tolerance, name)
               for name in PROPERTIES if np.isfinite(test[name]["value"])]  # fmt: skip
        return bool(own) and all(own)

    def _explore(self, k: int, here: IterationFolder) -> dict[str, Any]:
        own, rng = self.settings.explore, self._rng(k, 3)
        committee = self.model.load(here.model.absolute())
        starts = select_start_structures(self.start_structures, own.max_atoms)
        member = int(rng.integers(committee.n_members)) if own.driver == "member" else None
        engine = committee.build_md_engine(member, here.path.absolute() / "md")
        runs = plan_runs(starts, own, rng)
        records = run_trajectories(
            runs, engine, own, committee, here.trajectories.absolute(), k, jobs=self.jobs, progress=self.progress
        )
        events = [f"trajectory {one['number']}: {one['reason']}" for one in records if one["reason"]]
        driver = "the mean" if member is None else f"member {member}"
        n_frames = sum(one["frames"] for one in records)
        return {
            "said": f"{len(runs)} trajectories with {driver}, {n_frames} frames, {len(events)} ended early",
            "member": member,
            "frames": n_frames,
            "picoseconds": sum(one["picoseconds"] for one in records),
            "events": events,
        }

    def _select(self, k: int, here: IterationFolder) -> dict[str, Any]:
        own, committee = self.settings.select, self.model.load(here.model.absolute())
        calibration, said = self.calibrate_thresholds(here)
        again = f"remove {here.path / 'explore.json'}, and it runs again"
        frames = [
            atoms
            for number in range(self.settings.explore.trajectories)
            for atoms in load_frames(here.trajectories / f"{number:03d}.extxyz", again)
        ]
        if not frames:
            return {**said, "said": NO_FRAMES, "stop": NO_FRAMES, "verdicts": {}, "selected": 0}
        assessed = map_structures(_assess, committee, frames, "evaluate", self.jobs, self.progress)
        with Dataset(self.folder.dataset) as data:
            before = np.array([int(one.get("iteration", 1)) <= k for one in data.info_records])  # not what came since
            known = np.array([self.descriptor_function(atoms) for atoms in data.select(np.flatnonzero(before))])
            highest = max(int(data.ids[before].max()), self.max_reserved_id)
        described = np.array([self.descriptor_function(atoms) for atoms in frames])
        table = classify_frames(frames, assessed, calibration, own, described, known)
        chosen = select_frames(table, described, known, own, self._rng(k, 4))
        table.loc[chosen, "verdict"] = CHOSEN
        places = pd.DataFrame([{key: atoms.info.get(key) for key in ("trajectory", "time_ps")} for atoms in frames])
        write_csv(pd.concat([places, table], axis=1), here.path / "frames.csv")
        verdicts = {str(name): int(count) for name, count in table["verdict"].value_counts().items()}
        said = {**said, "verdicts": verdicts, "selected": len(chosen)}
        words = ", ".join(f"{count} {name}" for name, count in verdicts.items())
        if not len(chosen):
            stop = ALL_BROKEN if BROKEN in verdicts else ALL_KNOWN if DUPLICATE in verdicts else CONVERGED
            return {**said, "said": f"{words}; nothing to label", "stop": stop}
        following = self.folder.iteration(k + 1)
        write_frames(following.structures, [
            _new(frames[at], highest + 1 + place, k + 1) for place, at in enumerate(chosen.tolist())])  # fmt: skip
        return {**said, "said": words, "structures": hash_file(following.structures)}

    def calibrate_thresholds(self, iteration: IterationFolder) -> tuple[Calibration, dict[str, Any]]:
        """Thresholds from the validation set of an iteration, and what is to be recorded of them."""
        errors = pd.read_csv(iteration.path / "errors.csv")
        held = errors[errors["set"] == VALIDATE]
        spread, error = (
            held[[f"{name}_{what}" for name in PROPERTIES]].set_axis(list(PROPERTIES), axis=1)
            for what in ("std", "committee_error")
        )
        found = calibrate(spread, error, self.settings.select)
        lines: dict[str, Any] = {}
        for name, line in found.curves.items():
            both = spread[name].notna() & error[name].notna()
            tolerance = getattr(self.settings.select.tolerance, name)
            limit = found.thresholds[name]
            rate, predictive = detection_rates(
                spread[name][both].to_numpy(), error[name][both].to_numpy(), limit, tolerance
            )
            lines[name] = {
                "threshold": limit,
                "slope": getattr(line, "slope", None),
                "confidence": getattr(line, "confidence", None),
                "true_positive_rate": None if np.isnan(rate) else rate,
                "positive_predictive_value": None if np.isnan(predictive) else predictive,
            }
        return found, {"calibration": lines}


def _error_of(trained: dict[str, Any]) -> tuple[float, float] | None:
    """Errors of a committee on the validation set, eV/atom and eV/Å; None if that has no labels."""
    own = trained["rmse"][VALIDATE]
    found = own["energy"]["value"] / 1000, own["forces"]["value"] / 1000
    return found if np.isfinite(found).all() and min(found) > 0 else None


def _new(atoms: Atoms, identity: int, iteration: int) -> Atoms:
    """A frame as a configuration to label."""
    made: Atoms = atoms.copy()
    made.calc = None
    made.info = {**atoms.info, "config_id": identity, "iteration": iteration, "config_type": "md"}
    return made


def _assess(committee: Committee, atoms: Atoms) -> Assessment:
    return committee.assess(atoms)
