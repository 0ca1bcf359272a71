"""Work that does not fit into memory is refused before it begins, with numbers and what to change."""

import numpy as np
import pytest
from conftest import first_configurations
from helpers.faults import STUDY

from paretofit import DesignMatrix, InputError
from paretofit.core import memory
from paretofit.study import run_study
from paretofit.sweep.sweep_run import _check_memory

GB = 10**9


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 8 GB available, in a control group of version 2 without a limit."""
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemFree: 1000 kB\nMemAvailable: 8000000 kB\n")
    (tmp_path / "cgroup").write_text("0::/job/step\n")
    monkeypatch.setattr(memory, "MEMINFO_FILE", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP_FILE", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "CGROUP_ROOT", tmp_path / "groups")
    group(tmp_path / "groups" / "job" / "step", "memory.max", "max", "memory.current", "inactive_file")
    return tmp_path


def group(path, limit, most, usage, cached):
    path.mkdir(parents=True, exist_ok=True)
    (path / limit).write_text(f"{most}\n")
    (path / usage).write_text(f"{3 * GB}\n")
    (path / "memory.stat").write_text(f"anon 5\n{cached} {GB}\n")


class TestWhatIsAvailable:
    def test_of_the_machine(self, machine):
        assert memory.get_available_memory() == 8_192_000_000

    def test_of_the_job_above(self, machine):
        """4 GB may be used and 3 are, one of them for files that can be read again."""
        group(machine / "groups" / "job", "memory.max", 4 * GB, "memory.current", "inactive_file")
        assert memory.get_available_memory() == 2 * GB

    def test_of_a_job_of_version_1(self, machine):
        (machine / "cgroup").write_text("9:cpu:/job\n4:memory:/slurm/job\n0::/\n")
        folder = machine / "groups" / "memory" / "slurm"
        group(folder, "memory.limit_in_bytes", 5 * GB, "memory.usage_in_bytes", "total_inactive_file")
        assert memory.get_available_memory() == 3 * GB

    def test_of_a_system_that_does_not_tell(self, machine):
        (machine / "meminfo").unlink()
        (machine / "cgroup").unlink()
        assert memory.get_available_memory() is None
        memory.require_memory(1e18, "arrays", "nothing")

    def test_here(self):
        n_bytes = memory.get_available_memory()
        assert n_bytes is None or n_bytes > 0


def test_the_sentence_has_both_numbers_and_the_setting(machine):
    memory.require_memory(8e9, "the rows", "lower 'twojmax'")
    with pytest.raises(InputError, match=r"^the rows need about 9 GB of memory, and 8.19 GB are available; lower 'two"):
        memory.require_memory(9e9, "the rows", "lower 'twojmax'")


def test_processes_are_counted(machine):
    _check_memory(2e9, 4)
    with pytest.raises(InputError, match="fits in 5 processes need about 10 GB .*; use --jobs 4$"):
        _check_memory(2e9, 5)
    with pytest.raises(InputError, match="fits in 2 processes .*lower 'twojmax', or use fewer configurations"):
        _check_memory(9e9, 2)


def test_a_process_that_needs_nothing_is_no_division_by_zero(machine):
    _check_memory(0.0, 3)


@pytest.mark.parametrize(("engine", "message"), [("fast", "factors of 120 columns"), ("plain", "rows by 120 columns")])
def test_a_study_says_what_to_lower(tmp_path, monkeypatch, engine, message):
    monkeypatch.setattr(memory, "MIN_CHECKED_BYTES", 0)
    monkeypatch.setattr("paretofit.core.memory.get_available_memory", lambda: 10**6)
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.format(dataset=first_configurations(), repetitions=1) + f"engine: {engine}\n")
    with pytest.raises(
        InputError, match=f"{message} need about .* GB of memory, and 0.001 GB are available; lower 'two"
    ):
        run_study(path, out=tmp_path / "run")
    monkeypatch.undo()
    described = (tmp_path / "run" / "design.h5").exists()
    assert described == (engine == "plain"), "moments are counted before the descriptors; what was paid for stands"


def test_rows_stay_in_the_file_where_memory_is_short(tmp_path, monkeypatch):
    rows = np.random.default_rng(0).normal(size=(1000, 10))
    design = DesignMatrix.from_arrays(rows, ["force"] * 1000, np.arange(1000)).save(tmp_path / "d.h5")
    monkeypatch.setattr("paretofit.descriptors.design.get_available_memory", lambda: 4 * rows.nbytes - 1)
    assert design.load_into_memory() is design
    monkeypatch.setattr("paretofit.descriptors.design.get_available_memory", lambda: 4 * rows.nbytes)
    assert design.load_into_memory() is not design
