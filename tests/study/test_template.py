"""`init` writes studies that `run` accepts, for incomplete data too, and says what they cost."""

import logging
import time

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from helpers.command_line import call

from paretofit import Dataset
from paretofit.core import RemainingTime, track
from paretofit.dataset import LevelData, write_dataset
from paretofit.study import estimate_study_cost, load_study, prepare_study, run_study, write_template
from paretofit.study.independent_rows import count_independent_rows


def write_levels(path, *, n=24, seconds=(1.0, 4.0), missing=(), unconverged=(), info=None):
    """Write a dataset with the levels cheap and good; `missing` and `unconverged` are positions at level cheap."""
    rng = np.random.default_rng(3)
    atoms = [
        Atoms("Si4", scaled_positions=rng.random((4, 3)) * 0.1 + np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5],
              [0.5, 0.5, 0]]), cell=4.5 * np.eye(3), pbc=True)
        for _ in range(n)
    ]  # fmt: skip
    for k, structure in enumerate(atoms):
        structure.info.update((info or (lambda k: {}))(k))
    levels = {}
    for name, cost in zip(("cheap", "good"), seconds, strict=True):
        labels = []
        for k in range(n):
            label = {"energy": -4.0 - 0.1 * rng.random(), "forces": rng.normal(size=(4, 3)), "info": {}}
            label["seconds"] = cost(k) if callable(cost) else cost
            if name == "cheap" and k in unconverged:
                label["info"] = {"scf_converged": False}
            labels.append(None if name == "cheap" and k in missing else label)
        levels[name] = LevelData(labels, {})
    write_dataset(path, atoms, levels, list(range(n)))
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"seconds": (None, None)},
        {"seconds": (1.0, None)},
        {"seconds": (lambda k: 2.0 if k % 2 else None, 4.0)},
        {"seconds": (0.0, 0.0)},
        {"missing": range(12)},
        {"missing": range(6), "unconverged": range(6, 12)},
        {"unconverged": range(20)},
        {"missing": range(16)},
        {"info": lambda k: {"parent": 0}},
        {"info": lambda k: {"parent": 0, "trajectory": k // 20}},
        {"n": 5},
    ],
)
def test_a_template_is_accepted_as_it_is_written(tmp_path, options):
    path = write_template(write_levels(tmp_path / "d.h5", **options), tmp_path / "s.yaml")
    study = load_study(path)
    prepared = prepare_study(study)
    with prepared.dataset:
        assert max([0, *(size for size in study.sizes if size != "all")]) < len(prepared.split.train)
        n_rows = len(prepared.split.train) + 3 * int(prepared.dataset.n_atoms[prepared.split.train].sum())
        assert study.twojmax == [2] or study.basis.count_columns_up_to(max(study.twojmax)) <= n_rows


def test_made_up_costs_are_marked_and_partial_ones_are_not_made_up(tmp_path):
    partial = write_template(
        write_levels(tmp_path / "p.h5", seconds=(lambda k: 2.0 if k % 2 else None, 4.0)), tmp_path / "p.yaml"
    )
    assert load_study(partial).cost.label_seconds == {"cheap": 2.0, "good": 4.0}
    assert load_study(partial).cost.assumed_levels == []
    assert "level cheap 12 of 24" in partial.read_text()
    half = load_study(write_template(write_levels(tmp_path / "h.h5", seconds=(3.0, None)), tmp_path / "h.yaml"))
    assert half.cost.label_seconds == {"cheap": 3.0, "good": 6.0}
    assert half.cost.assumed_levels == ["good"]


def test_assumed_costs_are_said_in_results_report_and_plan(tmp_path):
    write_levels(tmp_path / "d.h5", seconds=(None, None))
    done = call("init", "d.h5", "-o", "s.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "estimated cost: " in done.stdout
    text = (tmp_path / "s.yaml").read_text()
    assert 'assumed_levels: ["cheap", "good"]' in text
    small = text.replace("[random, leverage, block-leverage]", "[random]").replace("repetitions: 5", "repetitions: 1")
    (tmp_path / "s.yaml").write_text(small)
    dry = call("run", "s.yaml", "--dry-run", "-j", "1", cwd=tmp_path)
    assert dry.stdout.startswith("estimated cost: ")
    assert not (tmp_path / "runs").exists()
    run = call("run", "s.yaml", "-o", "run", "-j", "1", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stderr.startswith("estimated cost: ")  # before the first stage
    assert "The cost of labels of levels cheap and good is assumed" in run.stdout
    assert "cost_is_assumed" in (tmp_path / "run/results.csv").read_text().splitlines()[0]
    assert "(assumed by the study, not measured)" in (tmp_path / "run/report.html").read_text()
    plan = call("plan", "run", "--budget", "10min", cwd=tmp_path)
    assert "s each (assumed)" in plan.stdout
    assert "note: the cost of labels of levels cheap and good is assumed by the study" in plan.stdout
    assert "estimated cost" in (tmp_path / "run/run.log").read_text()


def test_estimated_cost_grows_with_the_study(tmp_path):
    study = load_study(write_template(write_levels(tmp_path / "d.h5"), tmp_path / "s.yaml"))
    cost = estimate_study_cost(study)
    more = estimate_study_cost(study.model_copy(update={"repetitions": 50}))
    assert more.n_fits > 5 * cost.n_fits
    assert more.stage_seconds["fits"] > 3 * cost.stage_seconds["fits"]
    assert more.disk_bytes > cost.disk_bytes


def test_remaining_time_counts_work_and_running_tasks(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    remaining = RemainingTime(10.0, n_parallel=2)
    assert np.isnan(remaining.seconds)
    now[0] = 10.0  # of which most is the start of the processes
    remaining.add(1.0)
    remaining.add(1.0)
    assert remaining.seconds == pytest.approx(10.0 / 2.5 * 7.5)  # another task is about half finished
    for k in range(1, 5):
        now[0] = 10.0 + k
        remaining.add(1.0)
    assert remaining.seconds == pytest.approx(4.0 / 4.0 * 3.5)
    for _ in range(4):
        remaining.add(1.0)
    assert remaining.seconds == 0.0


def test_progress_is_logged_and_printed_where_there_is_no_terminal(monkeypatch, caplog, capfd):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def work():
        for k in range(100):
            now[0] += 2.0
            yield k

    with caplog.at_level(logging.INFO, "paretofit"):
        assert list(track(work(), 100, "fits", enabled=True)) == list(range(100))
    assert 3 <= len(caplog.messages) <= 6  # 200 s: one after ten seconds, one a minute, and the last
    assert "fits: 5 of 100, about 3.2 min left" in caplog.messages[0]
    assert capfd.readouterr().err.splitlines() == caplog.messages


def test_a_study_with_one_level_has_a_page_of_its_own(tmp_path):
    write_levels(tmp_path / "d.h5", missing=range(16))
    study = load_study(write_template(tmp_path / "d.h5", tmp_path / "s.yaml"))
    small = {"repetitions": 1, "sampling_methods": ["random"], "twojmax": [2, 4], "leverage": {"twojmax": 2}}
    basis = study.basis.model_dump() | {"twojmax": 4}
    result = run_study(study.model_validate(study.model_dump() | small | {"basis": basis}), out=tmp_path / "run")
    page = result.report.read_text()
    for question in (
        "What do more configurations gain?",
        "Which energy-to-force weight ratio",
        "Which 2Jmax, at which MD speed?",
    ):
        assert question in page
    for text in (
        ">not tested<",
        "Not tested",
        "In the paper",
        "The paper”",
        "two levels are required",
        "Which level does a budget",
    ):
        assert text not in page
    text = " ".join(result.text.split())
    assert "All labels are of level" in text
    assert "paretofit plan" in text
    assert "doubling their number changes" in page


def test_a_dataset_of_excluded_levels_keeps_its_labels(tmp_path):
    path = write_levels(tmp_path / "d.h5", missing=range(16))
    study = load_study(write_template(path, tmp_path / "s.yaml"))
    assert study.levels == ["good"]
    with Dataset(path) as data:
        assert int(data.labels("cheap").is_complete.sum()) == 8


def write_trajectory(path, displacement, random_share, n=12):
    """Write steps of one trajectory of 32 atoms, whose forces are parallel except for a share of random ones."""
    rng = np.random.default_rng(5)
    start = bulk("Si", cubic=True).repeat((2, 2, 1))
    start.rattle(0.1, seed=1)
    direction = rng.normal(size=(32, 3))
    atoms, labels = [], []
    for _ in range(n):
        step = start.copy()
        step.positions += displacement * rng.normal(size=(32, 3))
        step.info["trajectory"] = "relaxation"
        atoms.append(step)
        forces = (1 - random_share) * direction + random_share * rng.normal(size=(32, 3))
        labels.append({"energy": -100.0, "forces": forces})
    write_dataset(path, atoms, {"a": LevelData(labels)})
    return path


@pytest.mark.parametrize(
    ("displacement", "random_share", "n_configurations"), [(0.1, 1.0, 12), (0.1, 0.0, 1), (1e-4, 1.0, 1)]
)
def test_related_rows_count_once(tmp_path, displacement, random_share, n_configurations):
    """Independent forces count in full; parallel forces, and forces of near-duplicates, like those of one structure."""
    with Dataset(write_trajectory(tmp_path / "d.h5", displacement, random_share)) as data:
        n_rows = count_independent_rows(data, np.arange(12), "a")
    assert n_rows == pytest.approx(96 * n_configurations, rel=0.2)


def test_a_relaxation_gets_a_small_model(tmp_path):
    md = load_study(write_template(write_trajectory(tmp_path / "m.h5", 0.1, 1.0), tmp_path / "m.yaml"))
    relaxation = load_study(write_template(write_trajectory(tmp_path / "r.h5", 0.1, 0.0), tmp_path / "r.yaml"))
    assert md.twojmax == [2, 4]
    assert relaxation.twojmax == [2]


def test_further_bases_are_proposed_on_request(tmp_path):
    write_levels(tmp_path / "d.h5")
    study = load_study(write_template(tmp_path / "d.h5", tmp_path / "s.yaml", with_bases=True))
    short, longer, linear, pod = study.bases
    assert pod.family == "pod"
    assert short.rcutfac < study.basis.rcutfac < longer.rcutfac
    assert (linear.quadratic, linear.twojmax) == (False, [*study.twojmax, max(study.twojmax) + 2])
    assert not load_study(write_template(tmp_path / "d.h5", tmp_path / "t.yaml")).bases
    copper = [bulk("Cu", cubic=True) * (2, 1, 1) for _ in range(12)]
    for k, atoms in enumerate(copper):
        atoms.rattle(0.05, seed=k)
    labels = [{"energy": -1.0, "forces": np.zeros((8, 3)), "seconds": 1.0} for _ in copper]
    write_dataset(tmp_path / "cu.h5", copper, {"a": LevelData(labels)})
    path = write_template(tmp_path / "cu.h5", tmp_path / "cu.yaml", with_bases=True)
    short, longer, *_ = load_study(path).bases
    second, third, fourth, fifth = 3.61 * np.sqrt([1.0, 1.5, 2.0, 2.5])
    assert second < short.rcutfac < third < 4.8 < fourth < longer.rcutfac < fifth
    assert path.read_text().count("# between shells of neighbours") == 2
