"""Jobs of a real SLURM queue of one node: workers of dask, and a job for each label."""

import importlib.util
import signal
import time

import pytest
import yaml
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from conftest import first_configurations
from helpers.faults import STUDY, begin, call, in_one_sentence, no_report, soon, stop
from helpers.slurm import cancel, queue, running_slurm

from paretofit import Dataset, InputError, run_study
from paretofit.commands import load_label_study
from paretofit.execution import LabelJobSettings, use_cluster

pytest.importorskip("distributed", reason="needs the extra dask")
pytest.importorskip("executorlib", reason="needs the extra executorlib")

JOBS = {"name": "executorlib", "max_jobs": 2, "memory": "500M", "walltime": "00:05:00"}
SLEEPY = """
import os, time
from ase.calculators.emt import EMT

class Sleepy(EMT):
    def calculate(self, *args, **kwargs):
        time.sleep(float(os.environ.get("SLEEPY", "0")))
        super().calculate(*args, **kwargs)
"""


@pytest.fixture(scope="module", autouse=True)
def _slurm(tmp_path_factory):
    with running_slurm(tmp_path_factory.mktemp("slurm")), no_report():
        yield


def labels(folder, n=4, **cluster):
    write(folder / "cu.extxyz", [bulk("Cu", a=3.5 + 0.05 * k) for k in range(n)])
    (folder / "sleepy.py").write_text(SLEEPY)
    content = {
        "name": "s",
        "dataset": "cu.h5",
        "labelling": {
            "structures": "cu.extxyz",
            "engine": {"name": "ase", "calculator": "sleepy.Sleepy"},
            "ladder": [{"name": "emt"}],
        },
        "cluster": {**JOBS, **cluster},
    }
    (folder / "s.yaml").write_text(yaml.safe_dump(content))
    return folder / "s.yaml"


def check(folder, n=4):
    with Dataset(folder / "cu.h5") as data:
        assert data.labels("emt").is_complete.sum() == n
        for atoms, energy in zip(data, data.labels("emt").energy, strict=True):
            atoms.calc = EMT()
            assert energy == pytest.approx(atoms.get_potential_energy(force_consistent=True), abs=1e-10)


@pytest.mark.slow
def test_a_study_on_dask_workers_of_a_queue(tmp_path):
    text = STUDY.format(dataset=first_configurations(), repetitions=2)
    tables = []
    for name, more in (("local", ""), ("slurm", "cluster: {name: slurm, cores: 2, memory: 2GB, walltime: '00:10:00'}")):
        (tmp_path / f"{name}.yaml").write_text(f"{text}{more}\n")
        tables.append((run_study(tmp_path / f"{name}.yaml", out=tmp_path / name).folder / "results.csv").read_bytes())
    assert tables[0] == tables[1]
    assert soon(lambda: not queue())
    assert next((tmp_path / "slurm" / "jobs").glob("dask-worker-*.out"), None), "logs of jobs are in the run folder"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"queue": "nowhere"}, "the queue does not accept the jobs of the workers .*; correct 'cluster'"),
        ({"memory": "900GB"}, "the queue does not accept the jobs of the workers .*; correct 'cluster'"),
        ({"interface": "ib9"}, "'cluster: slurm' cannot be started: .*'ib9' is not a valid network interface"),
    ],
)
def test_impossible_jobs_of_workers_are_refused(tmp_path, wrong, message):
    text = STUDY.format(dataset=first_configurations(), repetitions=1)
    (tmp_path / "s.yaml").write_text(text + yaml.safe_dump({"cluster": {"name": "slurm", **wrong}}))
    with pytest.raises(InputError, match=message):
        run_study(tmp_path / "s.yaml", out=tmp_path / "run")


def test_each_label_runs_as_a_job(tmp_path):
    path = labels(tmp_path)
    done = call("label", path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check(tmp_path)
    assert not (tmp_path / "runs" / "s-labels" / "jobs").exists()


@pytest.mark.slow
def test_jobs_request_what_the_study_sets(tmp_path, monkeypatch):
    """The script of a job that cannot start yet has the options of sbatch."""
    monkeypatch.setenv("SLEEPY", "60")
    settings = {"cores": 2, "directives": ["--comment={{x}}", "--begin=now+1hour"], "prologue": ["export A={{b}}"]}
    process = begin("label", labels(tmp_path, 1, queue="main", **settings), cwd=tmp_path)
    assert soon(lambda: len(queue()) == 1)
    script = next((tmp_path / "runs" / "s-labels" / "jobs").glob("*/run_queue.sh")).read_text()
    stop(process, signal.SIGKILL, group=True)
    cancel("--user=root")
    for line in ("--ntasks=2", "--time=00:05:00", "--mem=500M", "--partition=main", "--comment={{x}}"):
        assert f"#SBATCH {line}\n" in script
    assert "export A={{b}}\n" in script


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_jobs_in_the_queue(tmp_path, monkeypatch):
    monkeypatch.setenv("SLEEPY", "8")
    path = labels(tmp_path, 2)
    process = begin("label", path, cwd=tmp_path)
    assert soon(lambda: len(queue()) == 2)
    stop(process, signal.SIGKILL, group=True)
    before = {line.split()[0] for line in queue()}
    assert len(before) == 2
    again = begin("label", path, cwd=tmp_path)
    time.sleep(3)
    assert {line.split()[0] for line in queue()} <= before, "nothing is submitted twice"
    assert again.wait(60) == 0
    check(tmp_path, 2)


@pytest.mark.slow
def test_a_killed_job_fails_only_its_label(tmp_path, monkeypatch):
    monkeypatch.setenv("SLEEPY", "3")
    path = labels(tmp_path, 3)
    process = begin("label", path, cwd=tmp_path)
    assert soon(lambda: any(" R " in line for line in queue()))
    cancel(queue()[0].split()[0])
    assert process.wait(120) == 1
    with Dataset(tmp_path / "cu.h5") as data:
        assert data.labels("emt").is_complete.sum() == 2
    monkeypatch.setenv("SLEEPY", "0")
    done = call("label", path, "--retry-failed", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check(tmp_path, 3)


def test_a_refused_job_is_an_error(tmp_path):
    done = call("label", labels(tmp_path, queue="nowhere"), cwd=tmp_path)
    assert done.returncode == 2
    assert "does not accept the job of a label (sbatch: error: invalid partition specified: nowhere" in in_one_sentence(
        done
    )
    assert not (tmp_path / "cu.h5").exists()


class TestMissingRequirements:
    def test_sbatch(self, monkeypatch):
        monkeypatch.setenv("PATH", "/nowhere")
        with (
            pytest.raises(InputError, match="requires SLURM's sbatch, which was not found"),
            use_cluster(LabelJobSettings(), 1),
        ):
            pass

    def test_executorlib(self, monkeypatch):
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pysqa" else find_spec(name))
        with (
            pytest.raises(InputError, match=r"pip install 'paretofit\[executorlib\]'"),
            use_cluster(LabelJobSettings(), 1),
        ):
            pass

    def test_unknown_keys(self, tmp_path):
        with pytest.raises(InputError, match="unknown key 'cluster.interface'"):
            load_label_study(labels(tmp_path, interface="ib0"))
