"""One network of a committee: the subprocess that trains it, watched, stopped, resumed and replaced.

mace_run_train is used from outside, by its options, its checkpoints and the errors that it logs for each epoch. By
itself it neither stops early (its ``--patience`` only begins stage two) nor notices that a network has diverged.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from paretofit.core import (
    InputError,
    atomic_path,
    hash_file,
    hash_json,
    read_json_with_digest,
    remove_file,
    write_json_with_digest,
    write_text,
)
from paretofit.execution import SINGLE_THREAD_ENV

if TYPE_CHECKING:
    from pathlib import Path

    from paretofit.potentials.mace.mace_settings import MaceSettings

WORSE = 10.0  # times the error that it began with, at which a network that was trained before has diverged
MAX_ATTEMPTS = 2  # for each member
CHECKPOINT = re.compile(r"_epoch-(\d+)(_swa)?\.pt$")
MODEL_NAME = "member"


@dataclass(frozen=True)
class TrainedMember:
    """A network, and how it came about.

    Attributes
    ----------
    model : Path
    record : dict
        ``seed, epochs, best_epoch, stage_two, stopped_early, seconds`` (of its gradient steps and validations),
        ``validation`` (errors at the best epoch: eV/atom, eV/Å, eV/Å³) and ``replaced`` (why the first attempt failed).
    """

    model: Path
    record: dict[str, Any]


@dataclass(eq=False)
class MemberTraining:
    """One member: its subprocess, what that has logged, and what is to be done about it."""

    settings: MaceSettings
    folder: Path
    seeds: list[str]
    options: dict[str, str]
    warm_start_model: Path | None
    input_digests: list[str]
    option_arguments: list[str] = field(default_factory=list)
    failure: str = ""
    is_done: bool = False
    attempt: int = 0
    replacement_reason: str = ""
    history: dict[int, dict[str, float]] = field(default_factory=dict)
    _initial: float = math.nan
    _seconds: float = 0.0
    _read: int = 0
    _ticks: int = 0
    _finishing: bool = False
    _process: subprocess.Popen[bytes] | None = None
    _environment: dict[str, str] = field(default_factory=dict)

    def _digest(self) -> str:
        """Of all that the network depends on, wherever the files are."""
        kept = {key: value for key, value in self.options.items() if not key.endswith("_file")}
        models = [self.warm_start_model, None if self.settings.foundation is None else self.settings.foundation.file]
        kept["foundation_model"] = ""
        kept |= {"more": " ".join(self.option_arguments)} if self.option_arguments else {}
        return hash_json(
            [kept, self.seeds, self.input_digests, [None if one is None else hash_file(one) for one in models]]
        )

    @property
    def _record(self) -> Path:
        return self.folder.with_suffix(".json")

    def check_finished(self) -> bool:
        """Whether it stands, made from the same inputs; what was made from others is taken away."""
        try:
            known = json.loads((self.folder / "inputs.json").read_text())
        except (OSError, ValueError):
            known = None
        own = self._digest()
        if known != own:
            shutil.rmtree(self.folder, ignore_errors=True)
            remove_file(self._record)
            remove_file(self._model)
            self.folder.mkdir(parents=True)
            write_text(self.folder / "inputs.json", json.dumps(own) + "\n")
        try:
            return self.read_result().record.get("sha256") in {None, hash_file(self._model)}
        except (InputError, OSError):  # not there yet, or damaged
            return False

    @property
    def _model(self) -> Path:
        return self.folder.with_suffix(".model")

    def read_result(self) -> TrainedMember:
        """The network and its record."""
        return TrainedMember(self._model, read_json_with_digest(self._record, "remove it, and it is trained again"))

    @property
    def _work(self) -> Path:
        return self.folder / f"attempt_{self.attempt}"

    def start(self, environment: dict[str, str]) -> None:
        """Begin, or go on from the last whole checkpoint."""
        self._environment = environment
        for attempt in range(1, MAX_ATTEMPTS):
            why = self.folder / f"attempt_{attempt - 1}" / "failed.txt"
            if why.is_file():
                self.attempt, self.replacement_reason = attempt, why.read_text().strip()
        self._work.mkdir(parents=True, exist_ok=True)
        for path in self._checkpoints():
            if not zipfile.is_zipfile(path):  # cut off while it was written
                path.unlink()
        self._launch({})

    def _launch(self, more: dict[str, str]) -> None:
        options = {**self.options, "seed": self.seeds[self.attempt], "work_dir": str(self._work.absolute()), **more}
        if self.warm_start_model is not None:
            options["foundation_model"] = str(self.warm_start_model.absolute())
        words = [f"--{key}={value}" for key, value in options.items()] + [
            *self.option_arguments,
            "--ema",
            "--restart_latest",
        ]
        words += ["--keep_checkpoints"]  # it takes the old one away before the new one stands
        command = [sys.executable, "-m", "paretofit.potentials.mace.training_worker", str(os.getpid()), *words]
        environment = {**os.environ, **SINGLE_THREAD_ENV, **self._environment, "PYTHONWARNINGS": "ignore"}
        with (self._work / "output.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    def stop(self) -> None:
        """End the subprocess."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def poll(self) -> int:
        """Read what is new, act on it, and return how many epochs have been done since the last look."""
        before = self._ticks
        ended = self._process is None or self._process.poll() is not None  # before reading: nothing comes after
        trouble = self._read_log()
        if not self._finishing:
            self._ticks = max([self._ticks, *(epoch + 1 for epoch in self.history)])
        if trouble:
            self._give_up(trouble)
        elif ended and (self._process is None or self._process.returncode != 0):
            self._give_up(self._last_words())
        elif ended:
            self._conclude()
        elif not self._finishing and self._is_enough():
            self.stop()
            self._finish()
        else:
            self._prune()
        if self.is_done:
            self._ticks = self.settings.epochs
        return max(0, self._ticks - before)

    def _read_log(self) -> str:
        """Take in the lines that are whole; return what is wrong with the training, if anything."""
        path = next(iter(sorted((self._work / "results").glob("*_train.txt"))), None)
        if path is None:
            return ""
        with path.open("rb") as stream:
            stream.seek(self._read)
            content = stream.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # cut off by a kill
                continue
            self._seconds += float(entry.get("time") or 0.0)
            loss = float(entry["loss"])
            if not math.isfinite(loss):
                when = "before training" if entry["epoch"] is None else f"at epoch {entry['epoch']}"
                return f"the loss is not finite {when}"
            if entry["mode"] != "eval":
                continue
            if entry["epoch"] is None:
                self._initial = loss if math.isnan(self._initial) else self._initial
                continue
            epoch = int(entry["epoch"])  # what a run before did beyond its checkpoint is done again
            self.history = {k: one for k, one in self.history.items() if k < epoch}
            self.history[epoch] = {key: entry[key] for key in ("loss", "rmse_e_per_atom", "rmse_f", "rmse_stress")
                                   if entry.get(key) is not None}  # fmt: skip
        return ""

    def _stage(self) -> dict[int, dict[str, float]]:
        """Epochs of the last stage, whose network is used."""
        start = self.settings.stage_two_start if self.settings.stage_two is not None else 0
        late = {epoch: one for epoch, one in self.history.items() if epoch >= start}
        return late or self.history

    def _best(self) -> int:
        own = self._stage()
        return min(own, key=lambda epoch: own[epoch]["loss"])

    def _is_enough(self) -> bool:
        own = self._stage()
        if not own or (self.settings.stage_two is not None and max(own) < self.settings.stage_two_start):
            return False  # MACE itself goes on to stage two
        return max(own) - self._best() >= self.settings.patience

    def _checkpoints(self) -> list[Path]:
        return sorted((self._work / "checkpoints").glob("*.pt"), key=_epoch)

    def _finish(self) -> None:
        """Let MACE write the network of the best epoch: nothing is left to train."""
        best = self._best()
        for path in self._checkpoints():
            if _epoch(path) > best or not zipfile.is_zipfile(path):
                path.unlink()
        last = max((_epoch(path) for path in self._checkpoints()), default=0)
        more = {"max_num_epochs": str(last)}
        if self.settings.stage_two is not None:
            more["start_swa"] = str(last - 1)  # else MACE takes it that there was none
        self._finishing = True
        self._launch(more)

    def _prune(self) -> None:
        """Leave the last two checkpoints of each stage."""
        paths = self._checkpoints()
        for late in (False, True):
            own = [path for path in paths if path.stem.endswith("_swa") is late]
            for path in own[:-2]:
                path.unlink(missing_ok=True)

    def _give_up(self, reason: str) -> None:
        """Try once more with another seed, or fail."""
        self.stop()
        write_text(self._work / "failed.txt", f"seed {self.seeds[self.attempt]}: {reason}\n")
        if self.attempt + 1 >= MAX_ATTEMPTS:
            self.failure, self.is_done = f"{self.folder.name}: {reason}", True
            return
        self.replacement_reason, self.attempt = f"seed {self.seeds[self.attempt]}: {reason}", self.attempt + 1
        self.history, self._initial, self._read, self._finishing = {}, math.nan, 0, False
        self._work.mkdir(parents=True, exist_ok=True)
        self._launch({})

    def _conclude(self) -> None:
        """Keep the network and its record."""
        if not self.history:
            self._give_up("it ended before its first epoch")
            return
        best = self._best()
        worst = WORSE if self.warm_start_model is not None or self.settings.foundation is not None else 1.0
        first_stage = self.settings.stage_two is None  # the losses of the stages differ
        if first_stage and self.history[best]["loss"] > worst * self._initial:
            self._give_up(
                f"its error on the validation set, a loss of {self.history[best]['loss']:.3g}, is not below the "
                f"{self._initial:.3g} that it began with"
            )
            return
        two = self._work / f"{MODEL_NAME}_stagetwo.model"
        with atomic_path(self._model) as temporary:
            shutil.copyfile(two if two.is_file() else self._work / f"{MODEL_NAME}.model", temporary)
        record = {
            "seed": int(self.seeds[self.attempt]),
            "epochs": max(self.history) + 1,
            "best_epoch": best,
            "stage_two": two.is_file(),
            "stopped_early": self._finishing,
            "warm_start": self.warm_start_model is not None,
            "seconds": round(self._seconds, 2),
            "validation": self.history[best],
            "replaced": self.replacement_reason,
        }
        write_json_with_digest(self._record, {**record, "sha256": hash_file(self._model)})
        shutil.rmtree(self._work / "checkpoints", ignore_errors=True)
        for path in self._work.glob("*.model"):
            path.unlink()
        self.is_done = True

    def _last_words(self) -> str:
        """The last line of what a subprocess that failed has said."""
        lines = (self._work / "output.log").read_text(encoding="utf-8", errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        return f"mace_run_train ended with {self._process.returncode if self._process else '?'}: {said}"


def _epoch(path: Path) -> int:
    found = CHECKPOINT.search(path.name)
    return int(found.group(1)) if found else -1
