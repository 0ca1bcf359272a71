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

from paretofit.core import InputError, digest, file_digest, remove, write_sealed
from paretofit.dataset import Dataset
from paretofit.learning.evaluation import SETS, judge
from paretofit.learning.explore import plan_runs, possible_starts
from paretofit.learning.level_choice import learning_exponent, level_noise
from paretofit.learning.loop_folder import read_frames_of, write_csv, write_frames
from paretofit.learning.model import TrainingData, shifted_labels
from paretofit.learning.selection import (
    BROKEN,
    CHOSEN,
    DUPLICATE,
    FEWEST,
    PROPERTIES,
    Calibration,
    calibrate,
    choose,
    judge_frames,
)
from paretofit.learning.sets import TEST, TRAIN, VALIDATE, assign_sets, family_keys, family_numbers
from paretofit.learning.trajectories import run_all
from paretofit.potentials import of_each
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
CONVERGED, ALL_KNOWN, ALL_BROKEN, ACCURATE, LAST, EMPTY = (
    "nothing that the dynamics found is above tolerance",
    "all that the dynamics found above tolerance is like what is labelled already",
    "all that the dynamics found above tolerance is broken, or like what is labelled already",
    "the errors on the test set are below tolerance",
    "the maximum number of iterations",
    "the dynamics gave no frames",
)


@dataclass(frozen=True)
class Loop:
    """Active learning in a run folder.

    Attributes
    ----------
    folder : LearnFolder
    settings : LearnSettings
    labeller : Labeller
    model : Model
    starts : sequence of ase.Atoms
        What the dynamics may start from.
    describe : callable
        Mean descriptors of a structure, by which duplicates are found.
    reserved : int
        The highest id of a candidate, labelled or not.
    jobs : int
    progress : bool
    say : callable
        What is told of the progress.
    """

    folder: LearnFolder
    settings: LearnSettings
    labeller: Labeller
    model: Model
    starts: Sequence[Atoms]
    describe: Callable[[Atoms], Array]
    reserved: int = -1
    jobs: int = 1
    progress: bool = False
    say: Callable[[str], None] = log.info

    def run(self, *, only: str | None = None, finished: Callable[[int], object] | None = None) -> str:
        """Go on until it ends by itself; return why it did.

        Parameters
        ----------
        only : str, optional
            One of `STAGES`: do this stage of the present iteration, and no other.
        finished : callable, optional
            Told each iteration after which it goes on.

        Raises
        ------
        InputError
            If a stage alone lacks what the ones before it make, or there is nothing to label or calibrate.
        """
        begun = self.folder.iterations()
        k = next((one for one in begun if not self._finished(one)), max(begun))
        for one in begun:
            remove(self.folder.iteration(one).path / "stopped.json")  # it may go on
        while k <= self.settings.iterations:
            here = self.folder.iteration(k)
            for stage in STAGES:
                if only is not None and stage != only:
                    continue
                reason = self._stage(stage, k, here)
                if reason:
                    here.finish("stopped", {"reason": reason})
                    return reason
            if only is not None:
                return f"stage '{only}' of iteration {k}"
            if finished is not None:
                finished(k)
            k += 1
        self.folder.iteration(k - 1).finish("stopped", {"reason": LAST})
        return LAST

    def _finished(self, k: int) -> bool:
        return all(self.folder.iteration(k).record(stage) is not None for stage in STAGES)

    def _stage(self, stage: str, k: int, here: IterationFolder) -> str:
        """Do a stage unless it is finished; return why the loop ends, if it does."""
        record, settings = here.record(stage), self._settings(stage)
        if record is not None and record["settings"] != settings and k == max(self.folder.iterations()):
            self.say(f"iteration {k}, {stage}: its settings have changed, it is done again")
            for later in STAGES[STAGES.index(stage) :]:
                remove(here.path / f"{later}.json")
            record = None
        if record is None:
            before = STAGES[: STAGES.index(stage)]
            if missing := [one for one in before if here.record(one) is None]:
                raise InputError(
                    f"stage '{stage}' of iteration {k} needs '{missing[0]}' first: run without --stage, or with "
                    f"--stage {missing[0]}"
                )
            start = time.perf_counter()
            made = getattr(self, f"_{stage}")(k, here)
            spent = round(time.perf_counter() - start, 2)
            record = here.finish(stage, {**made, "settings": settings, "wall_seconds": spent})
        else:
            here.check(stage)
        self.say(f"iteration {k}, {stage}: {record['said']}")
        if stage == "train":
            good = self._good_enough(record["rmse"][TEST])
            return ACCURATE if good else LAST if k >= self.settings.iterations else ""
        return str(record.get("stop", ""))

    def _settings(self, stage: str) -> str:
        """Hash of what a stage's outcome depends on, besides what the stages before have made."""
        own = self.settings
        used: dict[str, Any] = {
            "label": self.labeller.level,
            "train": own.model,
            "explore": own.explore,
            "select": own.select,
        }
        return digest([own.seed, used[stage].model_dump(mode="json")])

    def _rng(self, k: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, k, purpose])

    def _label(self, k: int, here: IterationFolder) -> dict[str, Any]:
        structures = self.folder.structures(k)
        sets = self._assign(k, structures)
        before = self.folder.iteration(k - 1).record("train") if k > 1 else None
        error: tuple[float, float] | None = None
        n = 0
        if before is not None:
            error, n = _error_of(before), int(before["counts"][TRAIN])
        ids = [int(atoms.info["config_id"]) for atoms in structures]
        judges = {one for one in ids if sets[one] != TRAIN}
        made: dict[str, Any] = (
            self.labeller.label(here, ids, judges, error, n, learning_exponent(self._history(k)), self._rng(k, 0))
            if structures
            else {"level": "", "words": "all labelled already", "labels": 0, "failed": {}, "seconds": 0.0, "levels": []}
        )
        failed = f", {len(made['failed'])} failed" if made["failed"] else ""
        return {**made, "said": f"{made['labels']} labels{failed}, {made['seconds']:.1f} s of CPU; {made['words']}"}

    def _history(self, k: int) -> list[tuple[int, float]]:
        """Sizes of the training set and force errors of the iterations before with a model of the same size."""
        records = [self.folder.iteration(one).record("train") for one in range(1, k)]
        trained = [one for one in records if one]
        sizes = [
            (int(one["counts"][TRAIN]), one["rmse"][VALIDATE]["forces"]["value"])
            for one in trained
            if one["model"] == trained[-1]["model"]
        ]
        return [(n, error) for n, error in sizes if np.isfinite(error) and error > 0]

    def _assign(self, k: int, new: Sequence[Atoms]) -> dict[int, str]:
        """Give new configurations their set, for ever, before anything is paid for them."""
        known = self.folder.given_sets()
        own = self.settings.sets
        shares = {TRAIN: own.train, VALIDATE: own.validate_, TEST: own.test}
        structures = list(new)
        if self.folder.dataset.exists():
            there = {int(atoms.info["config_id"]) for atoms in new}
            with Dataset(self.folder.dataset) as data:
                structures = [atoms for atoms in data if int(atoms.info["config_id"]) not in there] + structures
        keys = known.get("group_by") or family_keys(structures, own.group_by)
        given = {int(one): str(name) for one, name in known.get("sets", {}).items()}
        sets = assign_sets(structures, given, shares, keys, self._rng(k, 1))
        counts = {name: sum(one == name for one in sets.values()) for name in shares}
        if counts[VALIDATE] < FEWEST or counts[TRAIN] < 2:
            raise InputError(
                f"of {len(sets)} configurations {counts[TRAIN]} train and the validation set has {counts[VALIDATE]}, "
                f"fewer than the {FEWEST} that a calibration needs; begin with more candidates, or raise "
                "'learning.sets.validate'"
            )
        write_sealed(self.folder.sets, {"group_by": keys, "sets": sets})
        return sets

    def data(self, k: int) -> TrainingData:
        """Labelled configurations up to an iteration; those whose labels failed are left out."""
        dataset = Dataset(self.folder.dataset)
        given = self.folder.given_sets()
        sets = given["sets"]
        ladder = [*(one for one in dataset.levels if one not in self.labeller.levels), *self.labeller.levels]
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
        before = self.folder.iteration(k - 1).record("train") if k > 1 else None
        error = None if before is None else _error_of(before)
        return TrainingData(
            own,
            np.array([sets[str(one)] for one in own.ids]),
            best[kept],
            family_numbers(list(own), given["group_by"]),
            iteration[kept],
            used,
            level_noise(dataset, used),
            error,
            self.folder.iteration(k - 1).model if before is not None else None,
        )

    def _train(self, k: int, here: IterationFolder) -> dict[str, Any]:
        data = self.data(k)
        seed = int(self._rng(k, 2).integers(2**31))
        trained = self.model.train(data, here.model.absolute(), seed=seed, jobs=self.jobs, progress=self.progress)
        whole = data.labelled(np.arange(len(data.dataset)))
        labels = shifted_labels(whole, data.level, trained.offsets)
        known = pd.DataFrame(
            {"id": data.dataset.ids, "set": data.sets, "iteration": data.iteration, "level": data.level}
        )
        judged = judge(trained.committee, whole.structures, labels, known, jobs=self.jobs, progress=self.progress)
        write_csv(judged.table, here.path / "errors.csv")
        write_csv(judged.components, here.path / "components.csv")
        counts = {name: int((data.sets == name).sum()) for name in SETS}
        test = judged.rmse[TEST]
        words = ", ".join(
            f"{name} {test[name]['value']:.3g}" for name in PROPERTIES if np.isfinite(test[name]["value"])
        )
        what = "; ".join([trained.words, *trained.events])
        return {
            "said": f"{counts[TRAIN]} train, {what}; test: {words or 'no labels'} (meV/atom, meV/Å, meV/Å³)",
            "events": list(trained.events),
            "members": list(trained.members),
            "counts": counts,
            "model": trained.words.split(",")[0],
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
        starts = possible_starts(self.starts, own.max_atoms)
        member = int(rng.integers(committee.n_members)) if own.driver == "member" else None
        engine = committee.md_engine(member, here.path.absolute() / "md")
        runs = plan_runs(starts, own, rng)
        records = run_all(
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
        calibration, said = self.calibration(here)
        again = f"remove {here.path / 'explore.json'}, and it runs again"
        frames = [
            atoms
            for number in range(self.settings.explore.trajectories)
            for atoms in read_frames_of(here.trajectories / f"{number:03d}.extxyz", again)
        ]
        if not frames:
            return {**said, "said": EMPTY, "stop": EMPTY, "verdicts": {}, "selected": 0}
        assessed = of_each(_assess, committee, frames, "evaluate", self.jobs, self.progress)
        with Dataset(self.folder.dataset) as data:
            before = np.array([int(one.get("iteration", 1)) <= k for one in data.info_records])  # not what came since
            known = np.array([self.describe(atoms) for atoms in data.select(np.flatnonzero(before))])
            highest = max(int(data.ids[before].max()), self.reserved)
        described = np.array([self.describe(atoms) for atoms in frames])
        table = judge_frames(frames, assessed, calibration, own, described, known)
        chosen = choose(table, described, known, own, self._rng(k, 4))
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
        return {**said, "said": words, "structures": file_digest(following.structures)}

    def calibration(self, here: IterationFolder) -> tuple[Calibration, dict[str, Any]]:
        """Thresholds from the validation set of an iteration, and what is to be recorded of them."""
        errors = pd.read_csv(here.path / "errors.csv")
        held = errors[errors["set"] == VALIDATE]
        spread, error = (
            held[[f"{name}_{what}" for name in PROPERTIES]].set_axis(list(PROPERTIES), axis=1)
            for what in ("std", "committee_error")
        )
        found = calibrate(spread, error, self.settings.select)
        lines: dict[str, Any] = {}
        for name, line in found.lines.items():
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
