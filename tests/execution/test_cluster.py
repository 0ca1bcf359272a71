"""Tasks on processes of this machine and of a dask cluster: the same results, also where workers die."""

import importlib.util
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager, suppress

import dask
import distributed
import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.faults import flip, no_report, says, soon
from typer.testing import CliRunner

from paretofit import InputError, run_study
from paretofit.cli import app
from paretofit.core import ExecutionError, hash_array
from paretofit.execution import get_active_client, map_in_parallel, run_tasks, share_function, use_cluster
from paretofit.execution.cluster import start_slurm_cluster
from paretofit.execution.cluster_settings import LocalClusterSettings, RunningClusterSettings, SlurmClusterSettings
from paretofit.study import load_study
from paretofit.sweep import FastEngine, run_sweep
from paretofit.sweep.results import FitInputs, FitJournal, PartialResults
from paretofit.sweep.sweep_run import build_journal_path

LABELS = {
    "engine": {"name": "ase", "calculator": "ase.calculators.emt.EMT"},
    "ladder": [{"name": "emt"}],
}


@pytest.fixture(scope="module", autouse=True)
def _no_report():
    with no_report():
        yield


@pytest.fixture(scope="module")
def scheduler():
    """A cluster that is running already."""
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as running:
        yield RunningClusterSettings(scheduler=running.scheduler_address)


def square(x):
    return x * x, os.getpid()


def slow_square(x):
    time.sleep(0.2)
    return square(x)


def logs_errors(logger):
    return logging.getLogger(logger).isEnabledFor(logging.ERROR)


def refuse_three(x):
    if x == 3:
        raise InputError("three is refused")
    return x


def kill_process_of_two(x):
    if x == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def kill_process_or_worker(task):
    """Kill the process on the first attempt (2) or always (5), or the worker beside it on the first attempt (3)."""
    x, folder = task
    if x == 5 or (x in {2, 3} and not (folder / str(x)).exists()):
        (folder / str(x)).touch()
        os.kill(os.getppid() if x == 3 else os.getpid(), signal.SIGKILL)
        time.sleep(60)
    return x * x


class TestTasks:
    def test_tasks_run_on_other_processes_in_order(self, scheduler):
        with use_cluster(scheduler, 1):
            results = list(map_in_parallel(square, range(20), 1))
            assert sorted(number for number, _ in map_in_parallel(square, range(9), 1, ordered=False)) == [
                k * k for k in range(9)
            ]
        assert [number for number, _ in results] == [k * k for k in range(20)]
        assert os.getpid() not in {pid for _, pid in results}
        assert get_active_client() is None

    @pytest.mark.parametrize("jobs", [1, 2])
    def test_errors_of_tasks_are_raised(self, jobs):
        with pytest.raises(InputError, match="three is refused"):
            list(map_in_parallel(refuse_three, range(6), jobs))

    @pytest.mark.slow
    def test_a_killed_process_is_an_error(self):
        with pytest.raises(ExecutionError, match="was killed or crashed .*, use fewer --jobs"):
            list(map_in_parallel(kill_process_of_two, range(6), 2))
        assert list(map_in_parallel(refuse_three, range(3), 2)) == [0, 1, 2]

    @pytest.mark.slow
    def test_a_task_that_always_kills_its_worker_is_an_error(self):
        with (
            dask.config.set({"distributed.scheduler.allowed-failures": 1}),  # by default 3, of some seconds each
            use_cluster(LocalClusterSettings(workers=1), 1),
            pytest.raises(ExecutionError, match="was killed or crashed"),
        ):
            list(map_in_parallel(kill_process_of_two, [2], 1))

    @pytest.mark.slow
    def test_a_cluster_without_workers_is_an_error(self, monkeypatch):
        monkeypatch.setattr("paretofit.execution.cluster.CLUSTER_TIMEOUT_S", 2.0)
        monkeypatch.setattr("paretofit.execution.dask_executor.WORKER_POLL_INTERVAL_S", 0.5)
        with (
            distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as running,
            use_cluster(RunningClusterSettings(scheduler=running.scheduler_address), 1),
        ):
            results = map_in_parallel(time.sleep, [0.1] * 1000, 1)
            next(results)
            running.scale(0)
            with pytest.raises(ExecutionError, match="has had no workers for 2 s; start some with 'dask worker"):
                list(results)

    def test_errors_of_tasks_on_a_cluster_are_raised(self, scheduler):
        with use_cluster(scheduler, 1), pytest.raises(InputError, match="three is refused"):
            list(map_in_parallel(refuse_three, range(6), 1))
        assert get_active_client() is None

    @pytest.mark.slow
    def test_tasks_whose_workers_die_are_repeated_and_finally_given_up(self, tmp_path):
        tasks = [(k, tmp_path) for k in (1, 2, 3, 5)]
        with use_cluster(LocalClusterSettings(workers=2), 1):
            results = {task[0]: result for task, result in run_tasks(kill_process_or_worker, tasks, 1, lambda _: -1)}
        assert results == {1: 1, 2: 4, 3: 9, 5: -1}

    @pytest.mark.slow
    def test_workers_that_join_later_get_tasks(self):
        """A queue starts workers one by one; counted once at the start, they would get two tasks at a time."""
        results, waiting = [], []

        def source():
            for k in range(40):
                waiting.append(k - len(results))
                yield k

        with (
            distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as running,
            use_cluster(RunningClusterSettings(scheduler=running.scheduler_address), 1),
        ):
            for result in run_tasks(slow_square, source(), 1, lambda _: None):
                results.append(result)
                if len(results) == 1:
                    running.scale(3)
        assert sorted((task, result) for task, (result, _) in results) == [(k, k * k) for k in range(40)]
        assert len({pid for _, (_, pid) in results}) == 3
        assert waiting[0] == 0
        assert max(waiting) == 5, "two for each"

    @pytest.mark.slow
    def test_a_later_worker_of_several_threads_is_refused(self):
        with (
            distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as running,
            use_cluster(RunningClusterSettings(scheduler=running.scheduler_address), 1),
        ):
            results = map_in_parallel(time.sleep, [0.1] * 1000, 1)
            next(results)
            running.worker_spec["late"] = {"cls": distributed.Nanny, "options": {"nthreads": 2}}
            running.sync(running._correct_state)
            with pytest.raises(InputError, match="has 2 threads; start workers with --nthreads 1"):
                list(results)

    def test_workers_must_see_the_run_folder(self, scheduler, tmp_path):
        with use_cluster(scheduler, 1), share_function(refuse_three, tmp_path) as run:
            assert list(map_in_parallel(run, range(3), 1)) == [0, 1, 2]
        with use_cluster(scheduler, 1), share_function(refuse_three, tmp_path) as run:
            next(tmp_path.glob(".tasks-*")).unlink()  # looks the same to a worker
            with pytest.raises(
                ExecutionError, match="cannot find .*; the run folder must have the same path on all machines"
            ):
                list(map_in_parallel(run, range(3), 1))
        assert not list(tmp_path.iterdir())

    @pytest.mark.slow
    def test_a_local_cluster_is_silent_and_leaves_nothing_behind(self):
        """The port of another dashboard is not used, workers do not print the log of dask, variables are restored.

        Their log has tracebacks because a closed scheduler does not answer; dask sets variables for its workers, such
        as OMP_NUM_THREADS, which would reach all later processes.
        """
        before = dict(os.environ)
        with socket.socket() as other, warnings.catch_warnings():
            with suppress(OSError):  # taken already, which will do as well
                other.bind(("", 8787))
                other.listen()
            warnings.simplefilter("error")
            with use_cluster(LocalClusterSettings(workers=1), 1):
                enabled = list(map_in_parallel(logs_errors, ["distributed.worker", "distributed.core", "paretofit"], 1))
        assert enabled == [False, False, True]
        assert dict(os.environ) == before

    def test_tasks_are_consumed_as_needed(self):
        taken = []

        def source():
            for k in range(100):
                taken.append(k)
                yield k

        results = map_in_parallel(refuse_three, source(), 1)
        assert next(results) == 0
        assert len(taken) < 10
        results.close()


@contextmanager
def running_cluster(folder):
    """A cluster whose scheduler and worker are separate processes, so that tests can kill them."""
    file = folder / "scheduler.json"
    dask, plain = [sys.executable, "-m"], ["--no-dashboard"]
    scheduler = [*dask, "distributed.cli.dask_scheduler", "--port", "0", *plain, "--scheduler-file", file]
    worker = [*dask, "distributed.cli.dask_worker", "--scheduler-file", file, "--nthreads", "1", "--no-nanny", *plain]
    processes = []
    try:
        processes.append(subprocess.Popen(scheduler, stderr=subprocess.DEVNULL))
        assert says(file, "tcp://")
        address = re.search(r"tcp://[\d.]+:\d+", file.read_text())[0]
        processes.append(subprocess.Popen(worker, stderr=subprocess.DEVNULL))
        with distributed.Client(address) as client:
            client.wait_for_workers(1, timeout=60)
        with use_cluster(RunningClusterSettings(scheduler=address), 1):
            yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_scheduler_that_ends_during_a_run(tmp_path):
    with running_cluster(tmp_path) as (scheduler, _):
        with pytest.raises(ExecutionError, match="cannot load .*No module named 'test_cluster'.* in this environment"):
            list(map_in_parallel(refuse_three, [1], 1))
        results = map_in_parallel(time.sleep, [1.0] * 100, 1)
        assert next(results) is None
        scheduler.kill()
        with pytest.raises(ExecutionError, match="the cluster is lost .*; start it again"):
            list(results)


@pytest.mark.slow
def test_a_scheduler_that_hangs(tmp_path, monkeypatch):
    with running_cluster(tmp_path) as (scheduler, _):
        results = map_in_parallel(abs, range(100), 1)
        assert next(results) == 0
        monkeypatch.setattr("paretofit.execution.dask_executor.SCHEDULER_TIMEOUT_S", 2.0)
        scheduler.send_signal(signal.SIGSTOP)
        with pytest.raises(ExecutionError, match="the scheduler of the cluster has not answered for 2 s"):
            list(results)
        scheduler.send_signal(signal.SIGCONT)  # else its client waits for it


def test_workers_of_another_version(tmp_path, monkeypatch):
    monkeypatch.setattr("paretofit.execution.dask_executor.__version__", "9.9")
    with (
        pytest.raises(
            InputError, match=r"the worker tcp://.* has paretofit .*, but this is 9\.9; start workers in this"
        ),
        running_cluster(tmp_path),
    ):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("ordered", [True, False])
def test_the_last_worker_ends_with_results_that_were_not_fetched(tmp_path, monkeypatch, ordered):
    monkeypatch.setattr("paretofit.execution.cluster.CLUSTER_TIMEOUT_S", 2.0)
    monkeypatch.setattr("paretofit.execution.dask_executor.WORKER_POLL_INTERVAL_S", 0.5)
    with running_cluster(tmp_path) as (_, worker):
        results = map_in_parallel(abs, range(4), 1, ordered=ordered)
        assert next(results) == 0
        assert soon(lambda: not any(get_active_client().processing().values())), "the second is done, too"
        worker.kill()
        with pytest.raises(ExecutionError, match="has had no workers for 2 s"):
            list(results)


@pytest.fixture(scope="module")
def expected(beryllium, tmp_path_factory):
    """The results of the study of `TestStudies` on one process."""
    studies = TestStudies()
    return studies.run(tmp_path_factory.mktemp("study") / "one", studies.content(beryllium)).read_bytes()


class TestStudies:
    def content(self, beryllium, **more):
        return {
            "name": "s",
            "dataset": str(beryllium.path),
            "basis": {"elements": ["Be"], "rcutfac": 5.0},
            "levels": ["1", "5"],
            "twojmax": [2, 4],
            "weights": [1, 12.25],
            "sizes": [20, "all"],
            "sampling_methods": ["random", "leverage"],
            "repetitions": 4,
            "cost": {"measure_md": False},
            **more,
        }

    def run(self, folder, content, jobs=1):
        folder.mkdir()
        (folder / "s.yaml").write_text(yaml.safe_dump(content))
        return run_study(folder / "s.yaml", out=folder / "run", jobs=jobs).folder / "results.csv"

    def test_results_are_identical_on_two_processes_and_a_cluster(self, expected, beryllium, scheduler, tmp_path):
        assert self.run(tmp_path / "two", self.content(beryllium), jobs=2).read_bytes() == expected
        content = self.content(beryllium, cluster=scheduler.model_dump())
        assert self.run(tmp_path / "dask", content).read_bytes() == expected

    @pytest.mark.slow
    def test_results_are_identical_if_workers_are_killed(self, expected, beryllium, tmp_path):
        with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as running:
            killed, over = [], threading.Event()

            def kill():
                while not over.wait(0.7) and len(killed) < 2:
                    workers = [
                        worker.process.process for worker in running.workers.values() if worker.process is not None
                    ]
                    living = [worker.pid for worker in workers if worker is not None and worker.is_alive()]
                    if living:
                        os.kill(living[0], signal.SIGKILL)
                        killed.append(living[0])

            threading.Thread(target=kill, daemon=True).start()
            content = self.content(beryllium, cluster={"name": "address", "scheduler": running.scheduler_address})
            table = self.run(tmp_path / "dask", content).read_bytes()
            over.set()
        assert killed
        assert table == expected

    @pytest.mark.slow
    def test_labels_are_identical_on_a_cluster(self, scheduler, tmp_path):
        from ase.build import bulk
        from ase.io import write

        write(tmp_path / "cu.extxyz", [bulk("Cu", a=3.5 + 0.05 * k) for k in range(6)])
        for name, more in (("local", {}), ("dask", {"cluster": scheduler.model_dump()})):
            content = {"name": "s", "dataset": f"{name}.h5", "labelling": {**LABELS, "structures": "cu.extxyz"}, **more}
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
            ran = CliRunner().invoke(
                app, ["label", str(tmp_path / f"{name}.yaml"), "--out", str(tmp_path / f"run_{name}"), "--jobs", "1"]
            )
            assert ran.exit_code == 0, ran.output
        summaries = [
            CliRunner().invoke(app, ["info", str(tmp_path / f"{name}.h5")]).output for name in ("local", "dask")
        ]
        assert "6" in summaries[0]
        from paretofit import Dataset

        energies = [Dataset(tmp_path / f"{name}.h5").labels("emt").energy for name in ("local", "dask")]
        assert (energies[0] == energies[1]).all()


class TestSettings:
    def study(self, beryllium, folder, cluster):
        (folder / "s.yaml").write_text(yaml.safe_dump(TestStudies().content(beryllium, cluster=cluster)))
        return folder / "s.yaml"

    def test_a_name_is_a_section_with_defaults(self, beryllium, tmp_path):
        assert load_study(self.study(beryllium, tmp_path, "local")).cluster == LocalClusterSettings()

    @pytest.mark.parametrize(
        ("cluster", "message"),
        [
            ("slrum", "'slrum' is not one of local, address, slurm, executorlib; did you mean 'slurm'"),
            ("address", "'cluster.scheduler' is missing"),
            ({"name": "slurm", "walltime": 3600}, "'cluster.walltime'"),
            ({"name": "slurm", "walltime": "1h"}, "must be hours, minutes and seconds"),
            ({"name": "local", "workers": 0}, "'cluster.workers'"),
            ({"name": "slurm", "cpus": 4}, "unknown key 'cluster.cpus'"),
            ({"name": "slurm", "walltime": "00:00:00"}, "must be longer than zero"),
            ({"name": "slurm", "memory": "lots"}, "must be a number above 0 with its unit, such as 16GB; got 'lots'"),
            ({"name": "slurm", "memory": "0GB"}, "must be a number above 0 with its unit"),
            ({"name": "address", "scheduler": "tcp://127.0.0.1:99999"}, "must be an address such as"),
            ({"name": "address", "scheduler": "here"}, "must be an address such as tcp://10.0.0.1:8786"),
            (3, "must be one of local, address, slurm, executorlib, or a section"),
        ],
    )
    def test_invalid_settings_are_refused(self, beryllium, tmp_path, cluster, message):
        with pytest.raises(InputError) as error:
            load_study(self.study(beryllium, tmp_path, cluster))
        assert message in str(error.value)
        assert str(error.value).count("; got ") <= 1

    def test_a_scheduler_that_does_not_answer(self, beryllium, tmp_path, monkeypatch):
        monkeypatch.setattr("paretofit.execution.cluster.CLUSTER_TIMEOUT_S", 1.0)
        path = self.study(beryllium, tmp_path, {"name": "address", "scheduler": "tcp://127.0.0.1:9"})
        with pytest.raises(InputError, match="no dask scheduler answers at tcp://127.0.0.1:9"):
            run_study(path, out=tmp_path / "run")

    def test_workers_of_several_threads_are_refused(self):
        with (
            distributed.LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as running,
            pytest.raises(InputError, match="has 2 threads; start workers with --nthreads 1"),
            use_cluster(RunningClusterSettings(scheduler=running.scheduler_address), 1),
        ):
            pass

    def test_missing_dask_is_an_error_with_the_command_to_install_it(self, monkeypatch):
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name == "distributed" else find_spec(name)
        )
        with (
            pytest.raises(InputError, match=r"pip install 'paretofit\[dask\]'"),
            use_cluster(LocalClusterSettings(), 1),
        ):
            pass

    def test_slurm_script_has_the_settings(self, tmp_path):
        """Without a queue, the script that would be submitted is read."""
        requested = {"queue": "long", "account": "be", "cores": 4, "memory": "16GB", "walltime": "02:00:00"}
        lines = {"directives": ["--constraint=cpu"], "prologue": ["module load gcc"]}
        settings = SlurmClusterSettings(max_jobs=3, **requested, **lines)
        pytest.importorskip("dask_jobqueue")
        cluster = start_slurm_cluster(settings, tmp_path, submit=False)
        try:
            script = cluster.job_script()
        finally:
            cluster.close()
        for line in ("-p long", "-A be", "-n 1", "--cpus-per-task=4", "-t 02:00:00", "--constraint=cpu"):
            assert f"#SBATCH {line}" in script
        assert "module load gcc" in script
        assert "--nthreads 1" in script
        assert "--nworkers 4" in script
        assert "--lifetime 6900s" in script


class TestFinishedWork:
    def test_a_label_is_on_disk_before_its_task_returns(self, tmp_path):
        """Labels that a killed run could not add to its journal are added by the next run."""
        from ase.build import bulk

        from paretofit.labelling import LabelSettings, Task, open_label_journal
        from paretofit.labelling.label_run import FINISHED_FOLDER
        from paretofit.labelling.tasks import compute_label, compute_task_key

        settings = LabelSettings.model_validate(LABELS)
        atoms, level = bulk("Cu"), settings.selected_levels[0]
        task = Task(3, atoms, level, compute_task_key(atoms, level, settings.engine))
        record = compute_label(task, settings.engine, 0, tmp_path / "failed", tmp_path / FINISHED_FOLDER)
        (tmp_path / FINISHED_FOLDER / "cut.json").write_text('{"key": "off')
        with open_label_journal(tmp_path) as journal:
            assert journal.entries == [record]
        assert list((tmp_path / FINISHED_FOLDER).iterdir()) == []
        with open_label_journal(tmp_path) as again:
            assert again.entries == [record]

    @pytest.mark.slow
    def test_active_learning_is_identical_on_a_cluster(self, scheduler, tmp_path):
        """Labels, committee, dynamics in processes beside the workers, selection."""
        from ase.build import bulk
        from ase.io import write

        from paretofit import learn

        write(tmp_path / "W.cif", bulk("W", "bcc", a=3.165, cubic=True))
        eam = {"commands": ["pair_style eam/alloy", "pair_coeff * * W_zhou.eam.alloy W"], "elements": ["W"]}
        engine = {"name": "ase", "calculator": "paretofit.lammps_calculator", "options": eam}
        content = {
            "name": "s",
            "labelling": {"engine": engine, "ladder": [{"name": "eam"}]},
            "augmentation": {"structures": ["W.cif"], "n_candidates": 24, "min_length": 2, "max_atoms": 4,
                             "isolated_atoms": False, "clusters": {"count": 0}, "slabs": {"miller_indices": []}},
            "learning": {
                "max_iterations": 2,
                "model": {"twojmax": 2, "members": 3},
                "explore": {"trajectories": 3, "time_ps": 0.2, "interval_ps": 0.1},
                "select": {"max_selected": 4},
            },
        }  # fmt: skip
        tables = []
        for name, more in (("local", {}), ("dask", {"cluster": scheduler.model_dump()})):
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**content, **more}))
            result = learn(tmp_path / f"{name}.yaml", out=tmp_path / name, jobs=1)
            tables.append(
                [(result.folder / f"iterations/{name}").read_bytes() for name in ("01/frames.csv", "01/errors.csv")]
            )
        assert tables[0] == tables[1]


class TestFinishedSubsets:
    """Subsets that a task has finished are stored before it continues, and fitted once."""

    @pytest.fixture
    def chain(self, beryllium, tmp_path):
        from paretofit import SnapBasis, compute_design
        from paretofit.dataset import split_configurations
        from paretofit.sweep import SweepGrid, SweepInput, list_draws, make_engine
        from paretofit.sweep.cells import list_pending_fits

        design = compute_design(beryllium, SnapBasis(elements=["Be"], twojmax=4), tmp_path / "design.h5")
        split = split_configurations(np.arange(len(beryllium)), 0.7, 1)
        data = SweepInput(design.with_labels(beryllium, ["5"]), split.train, split.test)
        grid = SweepGrid(["5"], [2, 4], [(5.0, 1.0), (50.0, 1.0)], [30, 60, 90, 138], ["random"], 1)
        engine = make_engine(data, grid)
        tasks = engine.build_tasks(list_pending_fits(grid, list_draws(data, grid, engine.scores), {}))
        return engine, max(tasks, key=len), data, grid

    def test_a_killed_chain_resumes_after_its_last_subset(self, chain, tmp_path, monkeypatch):
        engine, task, data, _ = chain
        finished = PartialResults(tmp_path / "parts", FitInputs(data.hash_labels(["5"]), ""))
        finished.folder.mkdir()
        expected = engine.run(task, finished)
        assert len(list(finished.folder.iterdir())) == len(task) == 3
        finished.remove(task[1:])
        fitted, fit = [], FastEngine._fit
        monkeypatch.setattr(
            FastEngine, "_fit", lambda self, m, cells: fitted.append(cells.subset_key) or fit(self, m, cells)
        )
        assert engine.run(task, finished) == expected, "to the last bit"
        assert fitted == [cells.subset_key for cells in task[1:]]

    def test_the_next_run_resumes(self, chain, tmp_path, monkeypatch):
        engine, task, data, grid = chain
        whole = run_sweep(data, grid)
        inputs = FitInputs(data.hash_labels(["5"]), hash_array(data.get_loo_groups()))
        folder = build_journal_path(tmp_path, data.hash_inputs(grid, "fast")).with_suffix(".parts")
        folder.mkdir()
        engine.run(task[:2], PartialResults(folder, inputs))
        fitted, fit = [], FastEngine._fit
        monkeypatch.setattr(
            FastEngine, "_fit", lambda self, m, cells: fitted.append(cells.subset_key) or fit(self, m, cells)
        )
        table = run_sweep(data, grid, journal=tmp_path)
        pd.testing.assert_frame_equal(table, whole, rtol=0, atol=0)
        assert len(fitted) == 2, "the third subset, and the whole training set"
        assert not folder.exists()

    @pytest.mark.parametrize("at", [0.1, 0.5, 0.9, 0.999])
    def test_a_corrupt_file_is_fitted_again(self, chain, tmp_path, at):
        engine, task, data, _ = chain
        finished = PartialResults(tmp_path / "parts", FitInputs(data.hash_labels(["5"]), ""))
        finished.folder.mkdir()
        expected = engine.run(task, finished)
        for path in finished.folder.iterdir():
            flip(path, at)
        assert engine.run(task, finished) == expected

    @pytest.mark.slow
    def test_other_labels_are_fitted_again(self, chain, tmp_path):
        engine, task, data, _ = chain
        finished = PartialResults(tmp_path / "parts", FitInputs({"5": "old"}, ""))
        finished.folder.mkdir()
        engine.run(task, finished)
        journal = FitJournal(None, FitInputs(data.hash_labels(["5"]), ""))
        PartialResults(finished.folder, journal.inputs).merge_into(journal)
        assert not journal.fits
        assert not finished.folder.exists()
