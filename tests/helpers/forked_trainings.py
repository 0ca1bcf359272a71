"""MACE trainings as forks of a process that has imported MACE, which takes most of the time of a tiny training."""

import multiprocessing
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

CONTEXT = multiprocessing.get_context("forkserver")


class ForkedTraining:
    """What `MemberTraining` uses of the `subprocess.Popen` of a training."""

    def __init__(self, command, *, stdin, stdout, stderr, env):
        del stdin, stderr  # nothing is read, and the log has both streams
        options = command[command.index("paretofit.potentials.mace.training_worker") + 2 :]
        self._process = CONTEXT.Process(target=_train, args=(options, env, stdout.name), daemon=True)
        self._process.start()
        self.poll = lambda: self._process.exitcode

    @property
    def returncode(self):
        return self._process.exitcode

    def send_signal(self, number):
        os.kill(self._process.pid, number)

    def wait(self):
        self._process.join()


def _train(options, environment, log):
    with Path(log).open("ab", buffering=0) as stream:
        for number in (1, 2):
            os.dup2(stream.fileno(), number)
    os.environ.update(environment)
    sys.argv = ["mace_run_train", *options]
    import torch
    from mace.cli.run_train import main

    torch.set_num_threads(1)
    main()


@contextmanager
def forked_trainings():
    """Replace the processes of trainings by forks."""
    from paretofit.potentials.mace import training_member

    CONTEXT.set_forkserver_preload(["mace.cli.run_train"])
    constants = {name: getattr(subprocess, name) for name in ("DEVNULL", "STDOUT")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_member, "subprocess", SimpleNamespace(Popen=ForkedTraining, **constants))
        yield
