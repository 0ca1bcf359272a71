"""Labels leave no program and no directory of a killed process, and a full disk is not a failure of a label."""

import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import ase.io
import pytest
from ase.build import bulk
from helpers.faults import LABELS, begin, call, gone, in_one_sentence, small_disk, soon, stop
from joblib.externals.loky.process_executor import ProcessPoolExecutor

from paretofit import Dataset
from paretofit.core import create_temporary_folder, remove_stale_folders
from paretofit.execution import run_tasks

STUDY = LABELS.replace("slow.Slow", "program.Program")
PROGRAM = """
import os, subprocess, time
from pathlib import Path
from ase.calculators.emt import EMT

class Program(EMT):
    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        if Path("pids").exists():
            process = subprocess.Popen(["sleep", "300"])
            Path("pids", str(process.pid)).touch()
            process.wait()
        elif Path("write").exists():
            Path(os.environ["TMPDIR"], f"of_{time.time_ns()}").write_bytes(bytes(1 << 20))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A study whose calculator starts a program or writes a megabyte, and a directory for temporary files."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "s.yaml").write_text(STUDY)
    (tmp_path / "tmp").mkdir()
    ase.io.write(tmp_path / "copper.extxyz", [bulk("Cu", a=3.5 + 0.02 * k) for k in range(6)])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return tmp_path


def running(folder):
    """Process ids of programs that labels have started, once there are two."""
    pid_folder = folder / "pids"
    assert soon(lambda: len(list(pid_folder.iterdir())) >= 2)
    return [int(path.name) for path in pid_folder.iterdir()]


@pytest.mark.parametrize(
    ("number", "more"),
    [
        pytest.param(signal.SIGKILL, "", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "cluster: {name: local, workers: 2}\n", marks=pytest.mark.slow),
    ],
)
def test_programs_end_with_the_command(folder, number, more):
    (folder / "s.yaml").write_text(STUDY + more)
    (folder / "pids").mkdir()
    process = begin("label", "s.yaml", "--jobs", 2, cwd=folder)
    programs = running(folder)
    stop(process, number, group=False)
    assert soon(lambda: gone(programs))
    for path in [*(folder / "pids").iterdir(), folder / "pids"]:
        path.unlink() if path.is_file() else path.rmdir()
    again = call("label", "s.yaml", "--jobs", 2, cwd=folder)
    assert again.returncode == 0, again.stderr
    assert not list((folder / "tmp").glob("paretofit-label*"))


def test_only_unused_directories_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with create_temporary_folder("label") as name:
        scratch = Path(name)
        left = scratch.with_name(scratch.name.replace(f"-{os.getpid()}-", f"-{ended.pid}-"))
        elsewhere = scratch.with_name(f"paretofit-label-another.machine-{ended.pid}-abcdefgh")
        for path in (left / "0", elsewhere):
            path.mkdir(parents=True)
        programs = [
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], cwd=path)
            for path in (left / "0", scratch)
        ]
        remove_stale_folders("label")
        assert programs[0].wait(10) == -signal.SIGKILL
        assert programs[1].poll() is None
        programs[1].kill()
        programs[1].wait()
        assert set(tmp_path.iterdir()) == {scratch, elsewhere}


@pytest.mark.slow
def test_a_full_disk_is_not_a_failure_of_a_label(folder):
    (folder / "write").touch()
    with small_disk(folder / "disk", 2560) as resize:
        os.environ["TMPDIR"] = str(folder / "disk")  # which the fixture sets back
        done = call("label", "s.yaml", "--jobs", 1, cwd=folder)
        assert done.returncode == 1
        assert f"{folder / 'disk'} on " in in_one_sentence(done)
        assert "is full" in done.stderr
        assert "set TMPDIR to another directory" in done.stderr
        (folder / "write").unlink()
        resize(16384)
        again = call("label", "s.yaml", "--jobs", 1, cwd=folder)
        assert again.returncode == 0, again.stderr
    with Dataset(folder / "copper.h5") as data:
        assert data.labels("emt").is_complete.all()


def test_a_task_is_submitted_again_if_a_process_has_just_died(monkeypatch):
    submit, count = ProcessPoolExecutor.submit, []

    def fail_sometimes(pool, function, task):
        count.append(task)
        if len(count) in {1, 3, 4}:
            raise BrokenProcessPool
        return submit(pool, function, task)

    monkeypatch.setattr(ProcessPoolExecutor, "submit", fail_sometimes)
    assert dict(run_tasks(abs, range(-6, 0), 2, lambda _: None)) == {-k: k for k in range(1, 7)}
