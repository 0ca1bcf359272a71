"""What killed processes, other versions and a failing system leave behind."""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from helpers.faults import call, command, in_one_sentence, litter

from paretofit import Dataset, InputError
from paretofit.commands import label_study, load_label_study
from paretofit.core import ExecutionError, atomic_path, create_temporary_folder, read_json_with_digest, write_text
from paretofit.dataset import LevelData, write_dataset
from paretofit.study import open_run_folder, run_folder

KILLED = """
import os, signal
from paretofit.core import atomic_path, create_temporary_folder
folder = create_temporary_folder("select")
print(folder.name, flush=True)
with atomic_path("out.csv") as path:
    path.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


# A module whose import takes minutes, in short sleeps: a signal just before a call of sleep is handled only after it.
SLOW_MODULE = """
import time
open("imported", "w").close()
for _ in range(30_000):
    time.sleep(0.01)
"""


@contextmanager
def few_open_files():
    """Allow no more open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class TestKilled:
    def test_the_next_call_removes_temporary_files_and_folders(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr(tempfile, "tempdir", None)
        done = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        folder = tmp_path / done.stdout.strip()
        assert folder.is_dir()
        assert len(litter(tmp_path)) == 1
        (tmp_path / ".out-mine.csv").write_text("no temporary file")
        write_text(tmp_path / "out.csv", "whole")
        assert [path.name for path in litter(tmp_path)] == [".out-mine.csv"]
        with create_temporary_folder("select") as other:
            assert not folder.exists()
            with create_temporary_folder("select"):
                assert Path(other).is_dir()

    def test_files_that_another_process_writes_are_kept(self, tmp_path):
        with atomic_path(tmp_path / "out.csv") as first:
            first.write_text("first")
            with atomic_path(tmp_path / "out.csv") as second:
                second.write_text("second")
                assert first.exists()
        assert (tmp_path / "out.csv").read_text() == "first"
        assert not litter(tmp_path)


class TestSystemErrors:
    def test_healthy_files_are_not_called_corrupt(self, tmp_path):
        atoms = bulk("Be")
        write_dataset(tmp_path / "d.h5", [atoms], {"a": LevelData([{"energy": -1.0, "forces": np.zeros((2, 3))}])})
        write_text(tmp_path / "r.json", "{}")
        for read in (lambda: Dataset(tmp_path / "d.h5"), lambda: read_json_with_digest(tmp_path / "r.json", "")):
            with few_open_files(), pytest.raises(ExecutionError, match=r"Too many open files; raise the limit"):
                read()
            read()

    @pytest.mark.parametrize(
        "arguments", [["info", "x" * 300], ["pareto", "t.csv", "--minimize", "a", "-o", "x" * 300]]
    )
    def test_names_that_are_too_long(self, arguments, tmp_path):
        (tmp_path / "t.csv").write_text("a\n1\n")
        done = call(*arguments, cwd=tmp_path)
        assert done.returncode in {1, 2}
        assert "too long" in in_one_sentence(done)

    @pytest.mark.parametrize("redirection", [">&-", "> /dev/full", pytest.param("| true", marks=pytest.mark.slow)])
    def test_output_that_cannot_be_written(self, redirection, tmp_path):
        (tmp_path / "t.csv").write_text("a\n" + "1\n" * 100_000)
        program = f"{sys.executable} -m paretofit.cli pareto t.csv --minimize a {redirection}"
        done = subprocess.run(
            ["/bin/bash", "-o", "pipefail", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode in {1, 2}
        assert "standard output" in in_one_sentence(done)
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("module", ["lazy_loader", "pandas"])  # the first import, and a late one
def test_a_signal_during_the_imports(number, code, module, tmp_path):
    (tmp_path / f"{module}.py").write_text(SLOW_MODULE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    process = subprocess.Popen(
        command("info", "d.h5"), cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  (no threads here)
    )  # fmt: skip
    while not (tmp_path / "imported").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == code
    assert len(errors.splitlines()) == 1
    assert "run the same command again" in errors


class TestRunFolders:
    def test_a_run_that_starts_now_is_at_work(self, tmp_path):
        """Its lock comes first: before it has a record, other files must not be called foreign."""
        with open_run_folder(tmp_path / "run", "study"):
            (tmp_path / "run" / "run.json").unlink()
            (tmp_path / "run" / "half-written").write_text("")
            with (
                pytest.raises(InputError, match="another run is at work"),
                open_run_folder(tmp_path / "run", "study"),
            ):
                pytest.fail("the second run began")

    def test_a_foreign_folder_stays_as_it_is(self, tmp_path):
        (tmp_path / "mine").write_text("")
        with pytest.raises(InputError, match="do not belong to a run"), open_run_folder(tmp_path, "study"):
            pytest.fail("the folder was accepted")
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]

    def test_versions_are_recorded_for_each_stage_and_named(self, tmp_path, monkeypatch):
        monkeypatch.setattr("paretofit.__version__", "1.0")
        with open_run_folder(tmp_path, "study") as folder:
            run_folder.record_version(folder, "describe")
            assert run_folder.describe_other_versions(folder) == []
        monkeypatch.setattr("paretofit.__version__", "2.0")
        with open_run_folder(tmp_path, "study") as folder:
            (warning,) = run_folder.describe_other_versions(folder)
            assert "continued by paretofit 2.0" in warning
            assert "describe by 1.0" in warning
            run_folder.record_version(folder, "describe")
            run_folder.record_version(folder, "sweep")
            assert run_folder.read_stage_versions(folder) == {"describe": ["1.0", "2.0"], "sweep": ["2.0"]}
            assert run_folder.read_record(folder)["study"] == "study"

    def test_the_record_of_an_older_version_counts_for_its_stages(self, tmp_path):
        record = {"study": "a", "versions": {"paretofit": "0.0.1"}, "seconds": {"describe": 1.0, "sweep": 2.0}}
        (tmp_path / "run.json").write_text(json.dumps(record))
        (warning,) = run_folder.describe_other_versions(tmp_path)
        assert "describe by 0.0.1; sweep by 0.0.1" in warning


FAILING = """
from pathlib import Path
from ase.calculators.emt import EMT

class Failing(EMT):
    def calculate(self, *args, **kwargs):
        with Path("calls").open("a") as stream:
            stream.write("x")
        n = len(Path("calls").read_text())
        if n > SUCCESSES:
            raise RuntimeError(f"no licence on server {n} in /tmp/x{n}/y")
        super().calculate(*args, **kwargs)
"""


@pytest.mark.parametrize(("successes", "expected"), [(0, 5), (2, 22)])
def test_labels_that_all_fail_alike_stop_the_run(tmp_path, monkeypatch, successes, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"failing{successes}.py").write_text(FAILING.replace("SUCCESSES", str(successes)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    ase.io.write(tmp_path / "cu.extxyz", [bulk("Cu", a=3.5 + 0.01 * k) for k in range(40)])
    (tmp_path / "s.yaml").write_text(
        "dataset: d.h5\nlabelling: {structures: [cu.extxyz], ladder: [{name: emt}], "
        f"engine: {{name: ase, calculator: failing{successes}.Failing}}}}\n"
    )
    with pytest.raises(ExecutionError, match=r"failed for the same reason.*no licence on server.*--retry-failed"):
        label_study(load_label_study(tmp_path / "s.yaml"))
    assert expected <= len((tmp_path / "calls").read_text()) <= expected + 4  # labels that were running
    with Dataset(tmp_path / "d.h5") as data:
        assert data.labels("emt").is_complete.sum() == successes
