"""Training of one network of a committee in a monitored subprocess that can be stopped, resumed or replaced.

mace_run_train neither stops early (its ``--patience`` only starts stage two) nor detects that a network has diverged.
paretofit does both, by reading the errors that mace_run_train logs after each epoch, and by restarting it from its
checkpoints with other options.
"""

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
from pathlib import Path
from typing import Any

from paretofit.core import (
    ExecutionError,
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
from paretofit.potentials.mace.mace_settings import MaceSettings
from paretofit.potentials.mace.model_trust import REMEDY, is_signed, sign_digests

MAX_RELATIVE_LOSS = 10.0  # maximum final loss of a pretrained network, relative to its initial loss
MAX_ATTEMPTS = 2  # maximum number of attempts for each member, each with a different seed
CHECKPOINT_SUFFIX = re.compile(r"_epoch-(\d+)(_swa)?\.pt$")
MODEL_NAME = "member"
LOGGED_ERRORS = ("loss", "rmse_e_per_atom", "rmse_f", "rmse_stress")  # in eV/atom, eV/Å and eV/Å³


@dataclass(frozen=True)
class TrainedMember:
    """A trained network and the record of its training.

    Attributes
    ----------
    model : Path
        File of the network.
    record : dict
        ``seed``, ``epochs``, ``best_epoch``, ``stage_two``, ``stopped_early``, ``warm_start``, ``seconds`` (of gradient
        steps and validations), ``validation`` (errors at the best epoch in eV/atom, eV/Å and eV/Å³), ``replaced``
        (reason why the first attempt failed, or an empty string), ``sha256`` and ``signature`` (signed digest of the
        network).
    """

    model: Path
    record: dict[str, Any]


@dataclass(eq=False)
class MemberTraining:
    """Training of one member: its subprocess, its log, and the decisions to stop, resume or replace the network.

    Attributes
    ----------
    settings : MaceSettings
    folder : Path
        Directory of the training; the network and its record are stored next to it, as ``.model`` and ``.json``.
    seeds : list of str
        Seed of each attempt.
    options : dict of str to str
        Options of mace_run_train that all members have in common.
    warm_start_model : Path or None
        Network from which the training starts; None for random parameters or a foundation model.
    input_digests : list of str
        Digests of the training files.
    option_arguments : list of str
        Further command-line arguments of mace_run_train.
    allow_pickle : bool
        Whether checkpoints and networks that were not trained by this user may be unpickled.
    failure : str
        Reason why the last attempt failed, or an empty string.
    is_done : bool
        Whether the training has ended, with a network or a failure.
    attempt : int
        Index of the current attempt.
    replacement_reason : str
        Reason why the previous attempt failed, or an empty string.
    history : dict of int to dict of str to float
        Validation errors by epoch, from the log of the current attempt.
    """

    settings: MaceSettings
    folder: Path
    seeds: list[str]
    options: dict[str, str]
    warm_start_model: Path | None
    input_digests: list[str]
    option_arguments: list[str] = field(default_factory=list)
    allow_pickle: bool = False
    failure: str = ""
    is_done: bool = False
    attempt: int = 0
    replacement_reason: str = ""
    history: dict[int, dict[str, float]] = field(default_factory=dict)
    _initial_loss: float = math.nan
    _training_seconds: float = 0.0
    _log_position: int = 0
    _n_reported_epochs: int = 0
    _is_finishing: bool = False
    _process: subprocess.Popen[bytes] | None = None
    _environment: dict[str, str] = field(default_factory=dict)

    @property
    def _model_path(self) -> Path:
        """File of the trained network."""
        return self.folder.with_suffix(".model")

    @property
    def _record_path(self) -> Path:
        """File of the record of the training."""
        return self.folder.with_suffix(".json")

    @property
    def _attempt_folder(self) -> Path:
        """Working directory of mace_run_train in the current attempt."""
        return self.folder / f"attempt_{self.attempt}"

    def _compute_digest(self) -> str:
        """Compute a digest of all inputs of the training, independent of the location of files."""
        options = {key: value for key, value in self.options.items() if not key.endswith("_file")}
        options["foundation_model"] = ""  # the digest of the file is used instead of its path
        if self.option_arguments:
            options["more"] = " ".join(self.option_arguments)
        models = [self.warm_start_model, None if self.settings.foundation is None else self.settings.foundation.file]
        model_digests = [None if model is None else hash_file(model) for model in models]
        return hash_json([options, self.seeds, self.input_digests, model_digests])

    def check_finished(self) -> bool:
        """Return whether a complete network exists for the same inputs.

        A training with other inputs in the same directory is deleted, with its network. The signed digest of the inputs
        is written to ``inputs.json`` for the next check.

        Raises
        ------
        InputError
            If the network or its checkpoints, which MACE unpickles, are not trusted.
        """
        digest = self._compute_digest()
        try:
            stored_inputs = json.loads((self.folder / "inputs.json").read_text())
        except (OSError, ValueError):
            stored_inputs = None
        if not isinstance(stored_inputs, dict):
            stored_inputs = {"digest": stored_inputs}  # an earlier version stored only the digest
        stored_digest = stored_inputs.get("digest")
        is_signed_by_user = is_signed([digest], stored_inputs.get("signature"))
        if stored_digest == digest and not (is_signed_by_user or self.allow_pickle):
            raise InputError(f"the networks in {self.folder} were not trained by this user on this computer; {REMEDY}")
        if stored_digest != digest:
            shutil.rmtree(self.folder, ignore_errors=True)
            remove_file(self._record_path)
            remove_file(self._model_path)
            self.folder.mkdir(parents=True)
        if not is_signed_by_user:
            inputs = {"digest": digest, "signature": sign_digests([digest])}
            write_text(self.folder / "inputs.json", json.dumps(inputs) + "\n")
        try:
            record, model_digest = self.read_result().record, hash_file(self._model_path)
            is_complete = record.get("sha256") in {None, model_digest}  # an earlier version stored no digest
            return is_complete and (self.allow_pickle or is_signed([model_digest], record.get("signature")))
        except ExecutionError:  # a problem of the system, such as a full disk
            raise
        except (InputError, OSError):  # a file is missing or corrupt
            return False

    def read_result(self) -> TrainedMember:
        """Return the trained network with its record; raise `InputError` if the record is corrupt."""
        record = read_json_with_digest(self._record_path, "remove it to train the member again")
        return TrainedMember(self._model_path, record)

    def start(self, environment: dict[str, str]) -> None:
        """Start the subprocess with further environment variables.

        After an interruption, the last attempt resumes from its last complete checkpoint.
        """
        self._environment = environment
        for attempt in range(1, MAX_ATTEMPTS):
            reason_file = self.folder / f"attempt_{attempt - 1}" / "failed.txt"
            if reason_file.is_file():
                self.attempt, self.replacement_reason = attempt, reason_file.read_text().strip()
        for path in self._list_checkpoints():
            if not zipfile.is_zipfile(path):  # truncated by a kill
                path.unlink()
        self._launch({})

    def _launch(self, changed_options: dict[str, str]) -> None:
        """Start mace_run_train for the current attempt; `changed_options` replace the common options."""
        folder = self._attempt_folder
        folder.mkdir(parents=True, exist_ok=True)
        options = {**self.options, "seed": self.seeds[self.attempt], "work_dir": str(folder.absolute())}
        options |= changed_options
        if self.warm_start_model is not None:
            options["foundation_model"] = str(self.warm_start_model.absolute())
        arguments = [f"--{key}={value}" for key, value in options.items()] + self.option_arguments
        # Without --keep_checkpoints, MACE deletes the last checkpoint before the next checkpoint is complete.
        arguments += ["--ema", "--restart_latest", "--keep_checkpoints"]
        command = [sys.executable, "-m", "paretofit.potentials.mace.training_worker", str(os.getpid()), *arguments]
        environment = {**os.environ, **SINGLE_THREAD_ENV, **self._environment, "PYTHONWARNINGS": "ignore"}
        with (folder / "output.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  (a module of paretofit, with options that MACE's parser has checked)
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )

    def stop(self) -> None:
        """Kill the subprocess if it is running."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def poll(self) -> int:
        """Read new lines of the log, and stop, replace or complete the training if they require this.

        Returns
        -------
        int
            Number of epochs that were completed since the last call. At the end of the training, all remaining epochs
            of the settings are counted as completed.
        """
        n_old_epochs = self._n_reported_epochs
        # This check precedes the reading of the log, so that the log is complete if the process has ended.
        has_ended = self._process is None or self._process.poll() is not None
        problem = self._read_log()
        if not self._is_finishing:
            self._n_reported_epochs = max([n_old_epochs, *(epoch + 1 for epoch in self.history)])
        if not problem and has_ended and (self._process is None or self._process.returncode != 0):
            problem = self._describe_exit()
        if problem:
            self._replace(problem)
        elif has_ended:
            self._complete()
        elif not self._is_finishing and self._can_stop():
            self.stop()
            self._write_best_network()
        else:
            self._prune_checkpoints()
        if self.is_done:
            self._n_reported_epochs = self.settings.epochs
        return max(0, self._n_reported_epochs - n_old_epochs)

    def _read_log(self) -> str:
        """Add new complete lines of the log to `history`, and update the initial loss and the training time.

        Return a message if a loss is not finite, or otherwise an empty string.
        """
        path = next(iter(sorted((self._attempt_folder / "results").glob("*_train.txt"))), None)
        if path is None:
            return ""
        with path.open("rb") as stream:
            stream.seek(self._log_position)
            content = stream.read()
        complete_lines = content[: content.rfind(b"\n") + 1]
        self._log_position += len(complete_lines)
        for line in complete_lines.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # truncated by a kill
                continue
            self._training_seconds += float(entry.get("time") or 0.0)
            loss, epoch = float(entry["loss"]), entry["epoch"]
            if not math.isfinite(loss):
                return f"the loss is not finite {'before training' if epoch is None else f'at epoch {epoch}'}"
            if entry["mode"] != "eval":
                continue
            if epoch is None:
                self._initial_loss = loss if math.isnan(self._initial_loss) else self._initial_loss
                continue
            # A resumed training repeats the epochs after its checkpoint; their earlier errors are removed.
            self.history = {old_epoch: errors for old_epoch, errors in self.history.items() if old_epoch < int(epoch)}
            self.history[int(epoch)] = {key: entry[key] for key in LOGGED_ERRORS if entry.get(key) is not None}
        return ""

    def _select_last_stage(self) -> dict[int, dict[str, float]]:
        """Return the errors by epoch of the stage whose network is used, which is stage two once it has started."""
        start_epoch = self.settings.stage_two_start if self.settings.stage_two is not None else 0
        return {epoch: errors for epoch, errors in self.history.items() if epoch >= start_epoch} or self.history

    def _find_best_epoch(self) -> int:
        """Return the epoch with the smallest validation loss in the stage whose network is used."""
        stage_errors = self._select_last_stage()
        return min(stage_errors, key=lambda epoch: stage_errors[epoch]["loss"])

    def _can_stop(self) -> bool:
        """Return whether the validation loss has not decreased for `patience` epochs of the last stage."""
        last_epoch = max(self._select_last_stage(), default=-1)
        if last_epoch < 0 or (self.settings.stage_two is not None and last_epoch < self.settings.stage_two_start):
            return False  # MACE itself ends the first stage
        return last_epoch - self._find_best_epoch() >= self.settings.patience

    def _list_checkpoints(self) -> list[Path]:
        """List the checkpoints of the current attempt in the order of their epochs."""
        return sorted((self._attempt_folder / "checkpoints").glob("*.pt"), key=_parse_epoch)

    def _write_best_network(self) -> None:
        """Make MACE write the network of the best epoch, by restarting it from this checkpoint without further epochs.

        Later checkpoints are deleted.
        """
        best_epoch = self._find_best_epoch()
        for path in self._list_checkpoints():
            if _parse_epoch(path) > best_epoch or not zipfile.is_zipfile(path):
                path.unlink()
        last_epoch = max((_parse_epoch(path) for path in self._list_checkpoints()), default=0)
        changed_options = {"max_num_epochs": str(last_epoch)}
        if self.settings.stage_two is not None:
            changed_options["start_swa"] = str(last_epoch - 1)  # otherwise, MACE assumes that stage two never began
        self._is_finishing = True
        self._launch(changed_options)

    def _prune_checkpoints(self) -> None:
        """Delete all checkpoints except the last two of each stage; the last one may be incomplete."""
        for is_stage_two in (False, True):
            paths = [path for path in self._list_checkpoints() if path.stem.endswith("_swa") is is_stage_two]
            for path in paths[:-2]:
                path.unlink(missing_ok=True)

    def _replace(self, reason: str) -> None:
        """Stop the attempt, and start the next one with another seed; after the last attempt, set `failure`.

        The reason is written to ``failed.txt``, from which an interrupted training learns the current attempt.
        """
        self.stop()
        seed_and_reason = f"seed {self.seeds[self.attempt]}: {reason}"
        write_text(self._attempt_folder / "failed.txt", f"{seed_and_reason}\n")
        if self.attempt + 1 >= MAX_ATTEMPTS:
            self.failure, self.is_done = f"{self.folder.name}: {reason}", True
            return
        self.replacement_reason, self.attempt = seed_and_reason, self.attempt + 1
        self.history, self._initial_loss, self._log_position, self._is_finishing = {}, math.nan, 0, False
        self._launch({})

    def _complete(self) -> None:
        """Store the network and its record, and delete the checkpoints; replace the member if its loss is too large.

        Without a stage two, the validation loss must not exceed the initial loss or, for a pretrained network,
        `MAX_RELATIVE_LOSS` times the initial loss.
        """
        if not self.history:
            self._replace("it ended before its first epoch")
            return
        best_epoch = self._find_best_epoch()
        loss = self.history[best_epoch]["loss"]
        is_pretrained = self.warm_start_model is not None or self.settings.foundation is not None
        max_relative_loss = MAX_RELATIVE_LOSS if is_pretrained else 1.0
        # Losses of different stages cannot be compared. The condition is false if the initial loss is unknown (NaN).
        if self.settings.stage_two is None and loss > self._initial_loss * max_relative_loss:
            factor_text = f"{max_relative_loss:g} times " if is_pretrained else ""
            self._replace(
                f"its error on the validation set, a loss of {loss:.3g}, is not below {factor_text}the "
                f"initial {self._initial_loss:.3g}"
            )
            return
        folder = self._attempt_folder
        stage_two_model = folder / f"{MODEL_NAME}_stagetwo.model"
        has_stage_two = stage_two_model.is_file()
        with atomic_path(self._model_path) as temporary_path:
            shutil.copyfile(stage_two_model if has_stage_two else folder / f"{MODEL_NAME}.model", temporary_path)
        record = {
            "seed": int(self.seeds[self.attempt]),
            "epochs": max(self.history) + 1,
            "best_epoch": best_epoch,
            "stage_two": has_stage_two,
            "stopped_early": self._is_finishing,
            "warm_start": self.warm_start_model is not None,
            "seconds": round(self._training_seconds, 2),
            "validation": self.history[best_epoch],
            "replaced": self.replacement_reason,
        }
        digest = hash_file(self._model_path)
        write_json_with_digest(self._record_path, {**record, "sha256": digest, "signature": sign_digests([digest])})
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        for path in folder.glob("*.model"):
            path.unlink()
        self.is_done = True

    def _describe_exit(self) -> str:
        """Describe the end of the subprocess by its exit code and the last line of its output."""
        lines = (self._attempt_folder / "output.log").read_text(encoding="utf-8", errors="replace").split("\n")
        last_line = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        return f"mace_run_train ended with {self._process.returncode if self._process else '?'}: {last_line}"


def _parse_epoch(path: Path) -> int:
    """Return the epoch in the name of a checkpoint, or -1 if the name has none."""
    match = CHECKPOINT_SUFFIX.search(path.name)
    return int(match.group(1)) if match else -1
