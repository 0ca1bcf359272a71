"""Kills, signals, full disks, flipped bits and wrong clocks: no result is lost, and no wrong one is used."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import h5py
import numpy as np
import pytest
from ase.calculators.emt import EMT
from conftest import first_configurations
from helpers.faults import (
    LOOP,
    N_LABELS,
    STUDY,
    begin,
    call,
    flip,
    gone,
    in_one_sentence,
    label_study,
    litter,
    no_report,
    read_only,
    says,
    small_disk,
    soon,
    stop,
)
from joblib.externals.loky.process_executor import ProcessPoolExecutor, _ExecutorManagerThread

from paretofit import Dataset, InputError
from paretofit.cli import stopping
from paretofit.commands import export_potential, learn
from paretofit.commands.planning import read_results
from paretofit.core import JsonLines, read_json_lines
from paretofit.study import rebuild_report, run_study
from paretofit.sweep.results import FIT_KEY


def study(folder, repetitions=2, dataset=None):
    path = folder / "study.yaml"
    path.write_text(STUDY.format(dataset=dataset or first_configurations(), repetitions=repetitions))
    return path


@pytest.fixture(scope="module", autouse=True)
def _no_report():
    with no_report():
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return run_study(study(folder), out=folder / "run").folder


@pytest.fixture
def run(undisturbed, tmp_path):
    """A copy of a finished run, beside its study."""
    study(tmp_path)
    shutil.copytree(undisturbed, tmp_path / "run")
    return tmp_path / "run"


def results(folder):
    return (folder / "results.csv").read_bytes()


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A dataset with other labels, and the results of a run of it."""
    folder = tmp_path_factory.mktemp("changed")
    data = shutil.copy(first_configurations(), folder / "beryllium.h5")
    with h5py.File(data, "a") as file:
        file["levels/5/energy"][...] += np.linspace(0, 1, len(file["levels/5/energy"]))
    return data, results(run_study(study(folder, dataset=data), out=folder / "run").folder)


class TestUnwritablePaths:
    @pytest.mark.slow
    def test_a_read_only_folder(self, tmp_path):
        (tmp_path / "run").mkdir()
        with read_only(tmp_path / "run"):
            done = call("run", study(tmp_path), "--out", tmp_path / "run")
        assert done.returncode == 2
        assert "cannot be used: Read-only file system; choose another folder with --out" in in_one_sentence(done)

    @pytest.mark.slow
    def test_a_dataset_in_a_read_only_folder(self, undisturbed, tmp_path):
        data = tmp_path / "data"
        data.mkdir()
        path = study(tmp_path, dataset=shutil.copy(first_configurations(), data / "beryllium.h5"))
        with read_only(data):
            run_study(path, out=tmp_path / "run")
        assert results(tmp_path / "run") == results(undisturbed)

    @pytest.mark.parametrize(
        ("whole", "half"),
        [
            pytest.param([], "dataset.h5", marks=pytest.mark.slow),
            (["dataset.h5"], "design.h5"),
            pytest.param(["dataset.h5", "design.h5"], "split.csv", marks=pytest.mark.slow),
        ],
    )
    def test_a_disk_that_fills_up(self, undisturbed, tmp_path, whole, half):
        """In the dataset's copy, the design, or the tables; with free space, the same command resumes."""
        sizes = {path.name: path.stat().st_size for path in undisturbed.iterdir()}
        with small_disk(
            tmp_path / "disk", 14 * bool(whole) + (sum(map(sizes.get, whole)) + sizes[half] // 2) // 1000
        ) as resize:
            run = tmp_path / "disk" / "run"
            with pytest.raises(InputError, match="No space left on device; .*free disk space"):
                run_study(study(tmp_path), out=run)
            assert not litter(run)
            resize(40_000)
            run_study(tmp_path / "study.yaml", out=run)
            assert results(run) == results(undisturbed)

    def test_a_journal_on_a_full_disk_keeps_its_entries(self, tmp_path):
        with small_disk(tmp_path / "disk", 64):
            path, written = tmp_path / "disk" / "j.jsonl", []
            with pytest.raises(InputError, match="No space left on device; finished results are kept"):
                fill(path, written)
            assert len(written) > 10
            with JsonLines(path) as again:
                assert [entry["k"] for entry in again.entries] == written

    @pytest.mark.slow
    @pytest.mark.parametrize("place", ["", "read-only/copper.h5"])
    def test_labels_need_a_writable_dataset(self, tmp_path, place):
        label_study(tmp_path)
        (tmp_path / "read-only").mkdir()
        text = (tmp_path / "labels.yaml").read_text().replace("dataset: copper.h5", f"dataset: {tmp_path / place}")
        (tmp_path / "labels.yaml").write_text(text)
        with read_only(tmp_path / "read-only"):
            done = call("label", "labels.yaml", cwd=tmp_path)
        assert done.returncode == 2
        assert "cannot be written" in in_one_sentence(done)
        assert "choose another path" in done.stderr
        assert not (tmp_path / "runs" / "labels-labels" / "labels.jsonl").read_text(), "before the first label"

    @pytest.mark.slow
    def test_exports_on_a_full_disk(self, undisturbed, tmp_path):
        with small_disk(tmp_path / "disk", 8) as resize:
            done = call("export", undisturbed, "-o", tmp_path / "disk" / "p")
            assert done.returncode == 1, "the input is right"
            assert "No space left on device; free disk space" in in_one_sentence(done)
            assert not litter(tmp_path / "disk")
            resize(1000)
            again = export_potential(undisturbed, tmp_path / "disk" / "p", overwrite=True).potential
        assert again.coefficients == pytest.approx(export_potential(undisturbed, tmp_path / "q").potential.coefficients)


class TestConcurrentRuns:
    @pytest.mark.slow
    def test_the_second_is_refused_and_the_first_continues(self, undisturbed, tmp_path):
        path = study(tmp_path)
        first = begin("run", path, "--out", tmp_path / "run", "--jobs", 1)
        assert says(tmp_path / "run" / "run.log", "describe: started")
        first.send_signal(signal.SIGSTOP)  # so that it cannot finish before the second has looked
        second = call("run", path, "--out", tmp_path / "run")
        first.send_signal(signal.SIGCONT)
        assert second.returncode == 2
        assert "another run is at work" in in_one_sentence(second)
        assert soon((tmp_path / "run" / "results.csv").exists)
        stop(first, signal.SIGTERM, group=False)  # in its report
        assert results(tmp_path / "run") == results(undisturbed)

    @pytest.mark.slow
    def test_the_lock_of_a_killed_run_does_not_block(self, undisturbed, tmp_path):
        path = study(tmp_path)
        first = begin("run", path, "--out", tmp_path / "run", "--jobs", 1)
        assert says(tmp_path / "run" / "run.log", "describe: started")
        stop(first, signal.SIGKILL, group=True)
        assert (tmp_path / "run" / "run.lock").exists()
        run_study(path, out=tmp_path / "run")
        assert results(tmp_path / "run") == results(undisturbed)
        assert not litter(tmp_path / "run")

    def test_a_disk_without_locks_is_not_mistaken_for_another_run(self, tmp_path, monkeypatch):
        def refuse(*_):
            raise OSError(37, "No locks available")

        monkeypatch.setattr("fcntl.flock", refuse)
        with pytest.raises(InputError, match="cannot be locked: No locks available"):
            run_study(study(tmp_path), out=tmp_path / "run")


class TestSignals:
    """Exit code 130 after Ctrl-C, sent to the whole group, and 143 after SIGTERM, sent to one process or to all."""

    @pytest.mark.parametrize(
        ("stage", "number", "group", "jobs"),
        [
            pytest.param("describe", signal.SIGINT, True, 2, marks=pytest.mark.slow),
            pytest.param("describe", signal.SIGTERM, False, 1, marks=pytest.mark.slow),
            pytest.param("sweep", signal.SIGINT, False, 1, marks=pytest.mark.slow),
            ("sweep", signal.SIGTERM, True, 2),
        ],
    )
    def test_of_a_study(self, undisturbed, tmp_path, stage, number, group, jobs):
        run = tmp_path / "run"
        process = begin("run", study(tmp_path, 2 if stage == "describe" else 100), "--out", run, "--jobs", jobs)
        assert says(run / "run.log", f"{stage}: started")
        done, pids = stop(process, number, group=group)
        word, code = ("interrupted", 130) if number == signal.SIGINT else ("terminated", 143)
        assert done.returncode == code, done.stderr
        assert in_one_sentence(done) == f"paretofit: {word}; run the same command again to resume"
        assert not litter(run)
        assert not (run / "results.csv").exists()
        assert soon(lambda: gone(pids)), "no process is left"
        run_study(study(tmp_path), out=run)
        assert results(run) == results(undisturbed)

    @pytest.mark.slow
    def test_of_a_study_on_dask_whose_workers_ignore_it(self, undisturbed, tmp_path):
        pytest.importorskip("distributed", reason="needs the extra dask")
        run, path = tmp_path / "run", study(tmp_path, 100)
        path.write_text(f"{path.read_text()}cluster: {{name: local, workers: 2}}\n")
        process = begin("run", path, "--out", run)
        assert says(run / "run.log", "sweep: started")
        done, pids = stop(process, signal.SIGINT, group=True)
        assert done.returncode == 130, done.stderr
        assert done.stderr.splitlines()[-1:] == [in_one_sentence(done)], "nor do they say anything"
        assert not litter(run)
        assert soon(lambda: gone(pids)), "no process is left"
        run_study(study(tmp_path), out=run)
        assert results(run) == results(undisturbed)

    @pytest.mark.parametrize(
        ("number", "code"),
        [pytest.param(*pair, marks=pytest.mark.slow) for pair in ((signal.SIGINT, 130), (signal.SIGTERM, 143))],
    )
    def test_of_labels_and_the_dataset_has_the_finished_ones(self, tmp_path, number, code):
        label_study(tmp_path)
        process = begin("label", "labels.yaml", "--jobs", 2, cwd=tmp_path)
        journal = tmp_path / "runs" / "labels-labels" / "labels.jsonl"
        assert soon(lambda: journal.exists() and journal.read_text().count("\n") > 3)
        done, pids = stop(process, number, group=True)
        assert done.returncode == code, done.stderr
        assert "run the same command again to resume (finished labels are kept)" in in_one_sentence(done)
        assert (tmp_path / "copper.h5").exists()
        assert soon(lambda: gone(pids))
        text_before = journal.read_text()
        again = call("label", "labels.yaml", "--jobs", 2, cwd=tmp_path)
        assert again.returncode == 0, again.stderr
        assert journal.read_text().startswith(text_before)
        assert len(read_json_lines(journal)[0]) == N_LABELS
        assert not litter(tmp_path), "also of workers that the signal ended"

    def test_a_task_that_is_submitted_at_that_moment(self, monkeypatch):
        """loky's thread raises an error for a task that it reaches after shutdown: rare, unless it is slowed down."""
        look, looks, raised, printed = _ExecutorManagerThread.wait_result_broken_or_wakeup, [], [], []

        def slow(thread):
            looks.append(thread.name)
            result = look(thread)
            time.sleep(0.5)
            return result

        def end():
            with ProcessPoolExecutor(1) as pool:
                pool.submit(abs, 1)
                assert soon(lambda: looks)
                pool.submit(abs, 2)
                pool.shutdown(kill_workers=True)
            looks.clear()

        monkeypatch.setattr(_ExecutorManagerThread, "wait_result_broken_or_wakeup", slow)
        monkeypatch.setattr(threading, "excepthook", raised.append)
        end()
        assert [arguments.exc_type for arguments in raised] == [KeyError]
        monkeypatch.setattr(threading, "excepthook", printed.append)
        terminate = signal.getsignal(signal.SIGTERM)
        stopping.catch_sigterm()
        signal.signal(signal.SIGTERM, terminate)
        end()
        assert printed == []
        thread = threading.Thread(target=int, args=("what is wrong otherwise is said",))
        thread.start()
        thread.join()
        assert [arguments.exc_type for arguments in printed] == [ValueError]

    def test_at_exit_of_the_interpreter(self):
        script = (
            "import atexit, os, signal, sys\n"
            "atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))\n"
            "from paretofit.cli import main\n"
            "sys.argv = ['paretofit', '--version']\n"
            "main()\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("paretofit ")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_inside_a_finalizer_whose_exceptions_python_discards(self, number):
        script = (
            "import signal, time, typer\n"
            "from paretofit.cli.stopping import VerbGroup\n"
            "app = typer.Typer(cls=VerbGroup)\n"
            "class Signaller:\n"
            "    def __del__(self):\n"
            f"        signal.raise_signal({int(number)})\n"
            "@app.command()\n"
            "def wait():\n"
            "    Signaller()\n"
            "    time.sleep(60)\n"
            "@app.command()\n"
            "def other(): ...\n"
            "app()\n"
        )
        done = subprocess.run([sys.executable, "-c", script, "wait"], capture_output=True, text=True, check=False)
        word, code = ("interrupted", 130) if number == signal.SIGINT else ("terminated", 143)
        assert done.returncode == code, done.stderr
        assert done.stderr.startswith(f"paretofit: {word}; ")
        assert len(done.stderr.splitlines()) == 1

    @pytest.mark.slow
    def test_of_a_loop(self, tmp_path):
        (tmp_path / "s.yaml").write_text(LOOP.format(dataset=first_configurations()))
        process = begin("learn", "s.yaml", "--out", "run", "--jobs", 1, cwd=tmp_path)
        assert soon((tmp_path / "run" / "iterations" / "01").exists)
        done, pids = stop(process, signal.SIGTERM, group=False)
        assert done.returncode == 143, done.stderr
        assert in_one_sentence(done).endswith("run the same command again to resume")
        assert not litter(tmp_path / "run")
        assert soon(lambda: gone(pids))
        assert learn(tmp_path / "s.yaml", out=tmp_path / "run").report.exists()


class TestClocks:
    """Files are reused or made again according to their content, whatever the clock says."""

    @pytest.mark.parametrize("jump", [-10 * 365 * 86400, 10 * 365 * 86400])
    def test_files_are_identified_by_content(self, run, tmp_path, jump, monkeypatch):
        stamp = time.time() + jump
        for path in run.iterdir():
            os.utime(path, (stamp, stamp))
        before = results(run)
        monkeypatch.setattr(time, "time", lambda: stamp)
        with monkeypatch.context() as patch:
            patch.setattr("paretofit.study.pipeline.compute_design", lambda *_, **__: pytest.fail("described again"))
            run_study(tmp_path / "study.yaml", out=run)
        assert results(run) == before

    @pytest.mark.slow
    @pytest.mark.parametrize("jump", [-10 * 365 * 86400, 0, 10 * 365 * 86400])
    def test_changed_labels_are_noticed_with_any_date(self, undisturbed, run, changed, tmp_path, jump):
        data = shutil.copy(first_configurations(), tmp_path / "beryllium.h5")
        path = study(tmp_path, dataset=data)
        run_study(path, out=run)
        assert results(run) == results(undisturbed)
        before = data.stat()
        shutil.copy(changed[0], tmp_path / "other.h5").replace(data)
        os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns + jump * 10**9))
        run_study(path, out=run)
        assert results(run) == changed[1] != results(undisturbed)


class TestCorruption:
    """A flipped bit is repaired or reported; it never becomes a number of a report."""

    @pytest.mark.parametrize(
        "name", ["results.csv", "split.csv", "label_noise.csv", "dataset.h5", "study.yaml", "run.json"]
    )
    def test_a_flipped_bit_in_the_input_of_a_report(self, undisturbed, run, tmp_path, name):
        flip(run / name, digit(run / name) if name != "dataset.h5" else 0.5)
        for read in (rebuild_report, lambda folder: export_potential(folder, tmp_path / "p")):
            with pytest.raises(InputError, match=f"{name} is corrupt: it.* the run wrote.*; run "):
                read(run)
        run_study(tmp_path / "study.yaml", out=run)
        assert (run / name).read_bytes()[:64] == (undisturbed / name).read_bytes()[:64]
        assert results(run) == results(undisturbed)

    def test_a_plan_refuses_corrupt_results(self, run):
        flip(run / "results.csv", digit(run / "results.csv"))
        with pytest.raises(InputError, match=r"results\.csv is corrupt"):
            read_results(run)

    def test_a_truncated_record(self, undisturbed, run, tmp_path):
        (run / "run.json").write_bytes((run / "run.json").read_bytes()[:300])
        with pytest.raises(InputError, match=r"run\.json is corrupt"):
            rebuild_report(run)
        run_study(tmp_path / "study.yaml", out=run)
        assert results(run) == results(undisturbed)
        (run / "run.json").write_bytes(b"\x00" * 100)
        (run / "study.yaml").unlink()
        with pytest.raises(InputError, match=r"run\.json is corrupt; if the folder belongs to the study 'study'"):
            run_study(tmp_path / "study.yaml", out=run)

    def test_a_flipped_bit_in_the_rows(self, undisturbed, run, tmp_path):
        for at in (0.2, 0.4, 0.6, 0.8):
            shutil.copy(undisturbed / "design.h5", run)
            flip(run / "design.h5", at)
            with pytest.raises(InputError, match=r"design\.h5 is corrupt or truncated .*delete it and run again"):
                run_study(tmp_path / "study.yaml", out=run)
        (run / "design.h5").unlink()
        run_study(tmp_path / "study.yaml", out=run)
        assert results(run) == results(undisturbed)

    def test_every_array_of_a_design_has_a_checksum(self, undisturbed):
        with h5py.File(undisturbed / "design.h5") as file:
            assert all(file[name].fletcher32 for name in ("rows", "kind", "configuration", "ids", "column_levels"))

    def test_flipped_digits_in_the_journal_of_a_sweep(self, undisturbed, run, tmp_path):
        (journal,) = run.glob("sweep-*.jsonl")
        text = journal.read_text()
        fits = sum(len(line) for line in read_json_lines(journal)[0])
        for word in ('"test_force": ', '"rank": ', '"twojmax": '):
            place = text.index(word, len(text) // 3) + len(word)
            text = text[:place] + ("7" if text[place] != "7" else "3") + text[place + 1 :]
        journal.write_text(text)
        assert sum(len(line) for line in read_json_lines(journal)[0]) in range(fits - 3, fits)
        run_study(tmp_path / "study.yaml", out=run)
        assert results(run) == results(undisturbed)

    @pytest.mark.slow
    def test_a_flipped_bit_in_the_dataset_is_reported_if_it_matters(self, undisturbed, tmp_path):
        data = shutil.copy(first_configurations(), tmp_path / "beryllium.h5")
        path = study(tmp_path, dataset=data)
        size, n_errors = data.stat().st_size, 0
        for at in np.linspace(0.05, 0.95, 7):
            shutil.copy(first_configurations(), data)
            flip(data, int(at * size))
            try:
                run_study(path, out=tmp_path / f"run-{at}")
            except InputError as error:
                n_errors += "corrupt" in str(error)
            else:
                assert results(tmp_path / f"run-{at}") == results(undisturbed), "of a level that is not used"
        assert n_errors >= 2

    def test_a_line_that_is_nested_too_deeply(self, tmp_path):
        path = tmp_path / "j.jsonl"
        path.write_text("[" * 100_000 + '\n{"k": 1}\n')
        assert read_json_lines(path)[0] == [{"k": 1}]

    @pytest.mark.slow
    def test_a_file_in_place_of_the_directory_of_sweep_parts(self, undisturbed, run):
        (journal,) = run.glob("sweep-*.jsonl")
        journal.unlink()
        (run / "results.csv").unlink()
        journal.with_suffix(".parts").touch()
        done = call("run", undisturbed.parent / "study.yaml", "--out", run)
        assert done.returncode == 1
        assert "move the existing file away" in in_one_sentence(done)


class TestKills:
    """kill -9 of a command and all its workers, at any moment of any stage, again and again."""

    @pytest.mark.slow
    def test_of_a_study(self, tmp_path):
        path = study(tmp_path, 60)
        expected = results(run_study(path, out=tmp_path / "undisturbed").folder)
        run, rng = tmp_path / "run", np.random.default_rng(7)
        for _ in range(10):
            process = begin("run", path, "--out", run, "--jobs", 2)
            time.sleep(rng.uniform(1.0, 9.0))
            _, pids = stop(process, signal.SIGKILL, group=True)
            assert soon(lambda pids=pids: gone(pids))
            if (run / "results.csv").exists():
                assert results(run) == expected
            if rng.random() < 0.3:  # so that early stages are met again
                (run / "design.h5").unlink(missing_ok=True)
        assert call("run", path, "--out", run, "--jobs", 2).returncode == 0
        assert results(run) == expected
        assert not litter(run)
        (journal,) = run.glob("sweep-*.jsonl")
        keys = [(*map(row.get, FIT_KEY),) for line in read_json_lines(journal)[0] for row in line]
        assert len(keys) == len(set(keys)), "nothing is fitted twice"

    @pytest.mark.slow
    def test_of_labels(self, tmp_path):
        label_study(tmp_path)
        journal, rng = tmp_path / "runs" / "labels-labels" / "labels.jsonl", np.random.default_rng(8)
        text_before = ""
        for _ in range(10):
            process = begin("label", "labels.yaml", "--jobs", 2, cwd=tmp_path)
            time.sleep(rng.uniform(0.8, 3.5))
            _, pids = stop(process, signal.SIGKILL, group=True)
            assert soon(lambda pids=pids: gone(pids))
            whole = journal.read_text().rpartition("\n")[0] if journal.exists() else ""
            assert whole.startswith(text_before)
            text_before = whole
        assert call("label", "labels.yaml", "--jobs", 2, cwd=tmp_path).returncode == 0
        keys = [record["key"] for record in read_json_lines(journal)[0]]
        assert len(keys) == len(set(keys)) == N_LABELS
        with Dataset(tmp_path / "copper.h5") as data:
            assert data.labels("emt").is_complete.all()
            for atoms, energy in zip(data, data.labels("emt").energy, strict=True):
                atoms.calc = EMT()
                assert energy == pytest.approx(atoms.get_potential_energy(force_consistent=True), abs=1e-10)


def fill(path, written):
    with JsonLines(path) as journal:
        while True:
            journal.append({"k": len(written), "text": "x" * 1000})
            written.append(len(written))


def digit(path):
    """Where a digit after a point is, in the midst of a text."""
    content = path.read_bytes()
    return next(
        k
        for k in range(len(content) // 2, len(content))
        if chr(content[k]).isdigit() and content[k - 1 : k] in b".0123456789 "
    )


def test_a_disk_that_is_full_in_the_last_bytes_of_a_design(tmp_path):
    """HDF5 reads back what it has written; if that was lost, it must not crash on garbage."""
    script = f"""
import os, resource, sys
import numpy as np
from pathlib import Path
from paretofit.descriptors.design import DesignMatrix
from paretofit.descriptors.design_file import DesignBlock
from paretofit.core import InputError
rng, folder = np.random.default_rng(0), Path({str(tmp_path)!r})
blocks = [DesignBlock(rng.normal(size=(40, 60)), np.zeros(40, int), np.full(40, k)) for k in range(20)]
DesignMatrix.from_blocks(blocks, folder / "whole.h5")
size = os.path.getsize(folder / "whole.h5")
for limit in range(size - 1200, size, 50):
    if not os.fork():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            DesignMatrix.from_blocks(blocks, folder / "cut.h5")
        except InputError:
            os._exit(2)
        os._exit(0)
    if os.WIFSIGNALED(status := os.wait()[1]) or os.WEXITSTATUS(status) not in (0, 2):
        sys.exit(f"{{limit}} of {{size}} bytes: {{status}}")
print(sorted(path.name for path in folder.iterdir()))
"""
    process = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert ".design" not in process.stdout
