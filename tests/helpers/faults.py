"""Commands that are stopped, directories that cannot be written, and flipped bits."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from paretofit.study.run_report import RunReport

STUDY = """
dataset: {dataset}
basis: {{elements: [Be]}}
levels: [4, 5]
twojmax: [2, 4]
weights: [1, 12.25]
sizes: [20, 60]
sampling_methods: [random]
repetitions: {repetitions}
confidence: {{splits: 2, bootstrap: 20}}
cost: {{measure_md: false}}
"""


@contextmanager
def no_report():
    """Do not write report pages, which take most of the time of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "paretofit.study.pipeline.write_run_report",
            lambda folder, *more: RunReport(folder / "report.html", pd.DataFrame(), more[-1]),
        )
        yield


def command(*arguments):
    return [sys.executable, "-m", "paretofit.cli", *map(str, arguments)]


def call(*arguments, cwd=None):
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, cwd=cwd)


def in_one_sentence(done):
    """The error message of a command: one line that begins with its name, and no traceback."""
    assert "Traceback" not in done.stderr, done.stderr
    messages = [line for line in done.stderr.splitlines() if line.startswith("paretofit: ")]
    assert len(messages) == 1, done.stderr
    return messages[0]


def begin(*arguments, cwd=None):
    """Start a command in a process group of its own."""
    if (
        signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    ):  # tests in a shell's background, which children would take over
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        command(*arguments), cwd=cwd, start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def stop(process, number, *, group):
    """Send a signal to a process or its group; return the process when it has ended, and its descendants."""
    pids = descendants(process.pid)
    (os.killpg if group else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err), pids


def descendants(parent):
    pids = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        if int(fields[1]) == parent:
            pids += [int(status.parent.name), *descendants(int(status.parent.name))]
    return pids


def gone(processes):
    return not any(Path(f"/proc/{pid}").exists() for pid in processes)


def soon(condition, seconds=300):
    """Wait for a condition; return whether it was met in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def says(path, text, seconds=300):
    """Whether a file contains a text, now or soon."""
    return soon(lambda: path.exists() and text in path.read_text(), seconds)


def litter(folder):
    """Temporary files: those of `paretofit.core.files.atomic_path` have names that begin with a dot."""
    return [path for path in folder.rglob(".*") if not path.name.startswith(".nfs")]


def flip(path, at):
    """Flip one bit of a file, at a fraction of its length or at a byte."""
    content = bytearray(path.read_bytes())
    position = int(at * len(content)) if isinstance(at, float) else at
    content[position] ^= 4
    path.unlink()  # the other names of a hard link must not change
    path.write_bytes(content)


@contextmanager
def small_disk(folder, size):
    """Mount a file system in memory of a size in kB; yield a function that makes it larger."""
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={size}k", "tmpfs", folder)
    try:
        yield lambda larger: _mount("-o", f"remount,size={larger}k", folder)
    finally:
        _unmount(folder)


@contextmanager
def read_only(folder):
    """Make a directory read-only, also for root."""
    _mount("--bind", folder, folder)
    try:
        _mount("-o", "remount,bind,ro", folder)
        yield
    finally:
        _unmount(folder)


def _mount(*arguments):
    program = shutil.which("mount")
    if program is None:
        pytest.skip("there is no mount")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mount is not allowed: {done.stderr.strip()}")


def _unmount(folder):
    subprocess.run([shutil.which("umount"), "-l", str(folder)], check=True)


N_LABELS = 30
LABELS = """
dataset: copper.h5
labelling:
  structures: [copper.extxyz]
  engine: {name: ase, calculator: slow.Slow}
  ladder: [{name: emt}]
"""
SLOW = """
import time
from ase.calculators.emt import EMT

class Slow(EMT):
    def calculate(self, *args, **kwargs):
        time.sleep(0.1)
        super().calculate(*args, **kwargs)
"""
LOOP = """
dataset: {dataset}
labelling: {{engine: gpaw, levels: [5]}}
learning: {{model: {{twojmax: 4}}, max_iterations: 1}}
"""


def label_study(folder):
    """Write a study of labels with a slow calculator."""
    import ase.io
    from ase.build import bulk

    (folder / "slow.py").write_text(SLOW)
    (folder / "labels.yaml").write_text(LABELS)
    ase.io.write(folder / "copper.extxyz", [bulk("Cu", "fcc", a=3.5 + 0.02 * k) for k in range(N_LABELS)])
