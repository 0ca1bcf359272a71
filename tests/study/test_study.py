"""Studies: from YAML to report, resuming after kills, and one sentence for whatever is wrong."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, first_configurations
from helpers.faults import no_report
from helpers.studies import study_file

from paretofit import Dataset, InputError, pareto_front, run_study
from paretofit.study import load_study, open_run_folder, write_template
from paretofit.study.run_summary import _warn_about_elements
from paretofit.study.study_front import FRONT_GROUPS, FRONT_OBJECTIVES

RESULTS = ("results.csv", "front.csv", "split.csv")


def journalled(folder):
    """Fits in all journals of a run folder."""
    return sum(len(json.loads(line)) for path in folder.glob("sweep-*.jsonl") for line in path.read_text().splitlines())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small study, run with one process."""
    folder = tmp_path_factory.mktemp("study")
    return study_file(folder), run_study(study_file(folder), out=folder / "run")


@pytest.fixture
def _no_page():
    with no_report():
        yield


SHORT = {"repetitions": 1, "sampling_methods": ["random"], "confidence": {"splits": 0}}


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("short")
    with no_report():
        return run_study(study_file(folder, **SHORT), out=folder / "run").folder


@pytest.fixture
def copied_run(short_run, tmp_path_factory):
    """A copy of a finished run of the study `SHORT`."""
    return shutil.copytree(short_run, tmp_path_factory.mktemp("copy") / "run")


def test_a_run_leaves_every_file(finished):
    _, result = finished
    names = {path.name for path in result.folder.iterdir()}
    assert names >= {"study.yaml", "dataset.h5", "design.h5", "split.csv", "results.csv", "front.csv", "report.html"}
    assert names >= {"figures", "tables", "run.json", "run.log"}
    assert not [name for name in names if name.startswith(".")], "no temporary file is left"
    assert {path.suffix for path in (result.folder / "figures").iterdir()} == {".png"}
    record = json.loads((result.folder / "run.json").read_text())
    assert record["versions"]["lammps"]
    assert record["seeds"] == {"split": 1, "sampling": 1}
    resolved = load_study(result.folder / "study.yaml")
    assert resolved.weights == [(1.0, 1.0), (12.25, 1.0)]


def test_the_front_is_that_of_the_results(finished):
    _, result = finished
    table = pd.read_csv(result.folder / "results.csv", dtype={"level": str})
    assert len(table) == 3 * 2 * 2 * 3 * 3 * 3
    front = pd.read_csv(result.folder / "front.csv", dtype={"level": str})
    table.loc[table["n_train"] == 138, "sampling"] = "all"  # there the samplings coincide
    expected = pareto_front(table[table["twojmax"] == 4], FRONT_OBJECTIVES, group_by=FRONT_GROUPS)
    ours = front[front["twojmax"] == 4]
    assert ours[FRONT_OBJECTIVES].to_numpy() == pytest.approx(expected[FRONT_OBJECTIVES].to_numpy(), rel=1e-9)
    assert front["overall"].any()


@pytest.mark.slow
def test_bytes_are_the_same_with_two_processes(finished, tmp_path):
    study, result = finished
    again = run_study(study, out=tmp_path / "run", jobs=2)
    for name in RESULTS:
        assert (again.folder / name).read_bytes() == (result.folder / name).read_bytes(), name


def test_the_split_is_saved_and_honest(finished):
    _, result = finished
    split = pd.read_csv(result.folder / "split.csv")
    assert split["set"].value_counts().to_dict() == {"train": 138, "test": 59}
    assert split.loc[split["set"] == "train", "leverage"].between(0, 1).all()
    assert split.loc[split["set"] == "train", "leverage"].sum() <= 120


@pytest.mark.usefixtures("_no_page")
def test_running_again_computes_nothing_again(finished, monkeypatch):
    study, result = finished
    before = (result.folder / "results.csv").read_bytes()
    lines = journalled(result.folder)
    monkeypatch.setattr("paretofit.study.pipeline.compute_design", lambda *_, **__: pytest.fail("described again"))
    run_study(study, out=result.folder)
    assert (result.folder / "results.csv").read_bytes() == before
    assert journalled(result.folder) == lines


@pytest.mark.usefixtures("_no_page")
def test_an_edit_recomputes_only_what_it_touches(copied_run, tmp_path):
    lines = journalled(copied_run)
    stamp = (copied_run / "design.h5").stat().st_mtime_ns
    run_study(study_file(tmp_path, **SHORT, weights=[1, 12.25, 50]), out=copied_run)
    assert journalled(copied_run) - lines == 3 * 2 * 3, "three sizes, two models and three levels at the new weight"
    assert (copied_run / "design.h5").stat().st_mtime_ns == stamp


@pytest.mark.slow
@pytest.mark.usefixtures("_no_page")
def test_a_damaged_design_is_made_again(copied_run, tmp_path):
    before = (copied_run / "results.csv").read_bytes()
    (copied_run / "design.h5").write_bytes((copied_run / "design.h5").read_bytes()[:2000])
    run_study(study_file(tmp_path, **SHORT), out=copied_run)
    assert (copied_run / "results.csv").read_bytes() == before


@pytest.mark.parametrize("delay", [pytest.param(2.0, marks=pytest.mark.slow), 3.5])
def test_kill_and_repeat_gives_the_same_bytes(finished, tmp_path, delay):
    study, result = finished
    command = [sys.executable, "-m", "paretofit.cli", "run", str(study), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run_study(study, out=tmp_path / "run")
    for name in RESULTS:
        assert (tmp_path / "run" / name).read_bytes() == (result.folder / name).read_bytes(), name


@pytest.mark.usefixtures("_no_page")
def test_files_of_others_are_left_alone(copied_run, tmp_path):
    """A folder that is not a run, another study's run, and a file where a folder should be."""
    study = study_file(tmp_path, **SHORT)
    with pytest.raises(InputError, match=r"contains files that do not belong to a run \(such as study.yaml\)"):
        run_study(study, out=tmp_path)
    mine = tmp_path / "notes"
    mine.mkdir()
    (mine / "dataset.h5").write_text("precious")
    with pytest.raises(InputError, match="such as dataset.h5"):
        run_study(study, out=mine)
    assert (mine / "dataset.h5").read_text() == "precious"
    other = study_file(tmp_path, name="other", **SHORT)
    with pytest.raises(InputError, match="contains a run of the study 'study', not of 'other'"):
        run_study(other, out=copied_run)
    with pytest.raises(InputError, match="cannot be used"):
        run_study(study, out=study)


@pytest.mark.usefixtures("_no_page")
def test_two_runs_never_share_a_folder(copied_run, tmp_path):
    study = study_file(tmp_path, **SHORT)
    with open_run_folder(copied_run, "study"), pytest.raises(InputError, match="another run is at work"):
        run_study(study, out=copied_run)
    assert len(run_study(study, out=copied_run).results)


@pytest.mark.usefixtures("_no_page")
def test_litter_of_a_kill_is_removed(finished):
    """Of all folders, and not what others have hidden there, or the files of another run."""
    study, result = finished
    litter = [
        ".design-abcd1234.h5",
        "figures/.front-ab_d1234.png",
        "deep/down/.002-i8e33ndr.extxyz",
        "deep/.x-abcd1234",
    ]
    others = [".nfs0000000000000001", "deep/.ipynb_checkpoints/a-checkpoint.ipynb", "deep/other/run.lock"]
    others += ["deep/other/.design-abcd1234.h5", "deep/.x-abcd123.h5", "deep/x-abcd1234.h5"]
    for name in (*litter, *others):
        (result.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (result.folder / name).write_text("half")
    run_study(study, out=result.folder)
    assert not [name for name in litter if (result.folder / name).exists()]
    assert all((result.folder / name).exists() for name in others)
    shutil.rmtree(result.folder / "deep")


@pytest.mark.slow
def test_ridge_is_one_more_factor_and_the_report_shows_what_it_changes(tmp_path):
    study = study_file(
        tmp_path, ridge=[0.0, "auto"], leave_one_out=True, repetitions=2, sampling_methods=["random"], sizes=[20, "all"]
    )
    result = run_study(study, out=tmp_path / "run")
    assert set(result.results["ridge"]) == {0.0, "auto"}
    assert result.results.loc[result.results["ridge"] == "auto", "ridge_lambda"].gt(0).all()
    assert result.results["loo_force"].notna().any()
    assert {"ridge", "overall"} <= set(result.front.columns)
    page = result.report.read_text()
    assert "Effect of a ridge penalty" in page


@pytest.mark.slow
def test_a_study_with_few_labels_needs_no_test_set(tmp_path):
    study = study_file(
        tmp_path,
        split={"train_fraction": 1},
        leave_one_out=True,
        ridge=["auto"],
        repetitions=2,
        sampling_methods=["random"],
        sizes=[15, 40],
    )
    result = run_study(study, out=tmp_path / "run")
    assert result.results["test_energy"].isna().all()
    assert result.results["loo_ref_force"].gt(0).all()
    assert (pd.read_csv(result.folder / "split.csv")["set"] == "train").all()
    assert result.front["ref_force"].gt(0).all()
    assert any("no test set" in warning for warning in result.warnings)
    reference = result.results[result.results["level"] == "5"]
    assert reference["loo_energy"].to_numpy() == pytest.approx(reference["loo_ref_energy"].to_numpy())


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_run(tmp_path):
    study = study_file(tmp_path, repetitions=60, twojmax=[2, 4, 6], sizes=[20, 60, 100])
    command = [sys.executable, "-m", "paretofit.cli", "run", str(study), "--out", str(tmp_path / "run"), "-j", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert _soon(lambda: journalled(tmp_path / "run") > 0), "the sweep has begun"
        workers = _children(process.pid)
        assert len(workers) >= 2
    finally:
        process.kill()
        process.wait()
    assert _soon(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def _children(parent):
    actual = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = status.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        if int(after_name[1]) == parent:
            actual.append(int(status.parent.name))
    return actual


def _soon(condition, seconds=60):
    """Wait for something that happens in its own time."""
    for _ in range(10 * seconds):
        if condition():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.usefixtures("_no_page")
def test_weights_of_groups_are_in_both_engines(tmp_path):
    with Dataset(first_configurations()) as data:
        kinds = sorted({record["config_type"] for record in data.info_records})
    chosen = {"energy": {kinds[0]: 5.0}, "force": {kinds[0]: 0.2, kinds[1]: 3.0}}
    keys = {"repetitions": 1, "confidence": {"splits": 0}, "sampling_methods": ["random"], "group_weights": chosen}
    tables = {}
    for engine in ("fast", "plain"):
        study = study_file(tmp_path, **keys, engine=engine)
        tables[engine] = run_study(study, out=tmp_path / engine).results
    errors = ["train_energy", "train_force", "test_energy", "test_force", "ref_energy", "ref_force"]
    assert tables["fast"][errors].to_numpy() == pytest.approx(tables["plain"][errors].to_numpy(), rel=1e-7)
    plain = run_study(study_file(tmp_path, **{**keys, "group_weights": None}), out=tmp_path / "without").results
    assert not np.allclose(tables["fast"]["test_energy"], plain["test_energy"], rtol=1e-3)
    wrong = study_file(tmp_path, **{**keys, "group_weights": {"energy": {"liqiud": 2.0}}})
    with pytest.raises(InputError, match="'group_weights' contains the group 'liqiud', but no configuration"):
        run_study(wrong, out=tmp_path / "wrong")


@pytest.mark.slow
@pytest.mark.usefixtures("_no_page")
def test_weights_of_groups_may_be_searched_for(tmp_path):
    keys = {
        "repetitions": 1,
        "confidence": {"splits": 0},
        "sampling_methods": ["random"],
        "twojmax": [2],
        "weights": [12.25],
        "sizes": ["all"],
    }
    plain = run_study(study_file(tmp_path, **keys), out=tmp_path / "plain").results
    requested = {"objectives": ["energy", "force"], "regulariser": 0.003}
    study = study_file(tmp_path, **keys, group_weights=requested)
    actual, again = (run_study(study, out=tmp_path / name) for name in ("found", "again"))
    assert actual.results.equals(again.results)
    assert any("weights of groups were optimised" in warning for warning in actual.warnings)
    errors = ["ref_energy", "ref_force"]
    assert not np.allclose(actual.results[errors], plain[errors], rtol=1e-3)
    with pytest.raises(InputError, match="'group_weights.objectives' at 2Jmax = 2: 'speed' is not an objective"):
        run_study(study_file(tmp_path, **keys, group_weights={"objectives": ["speed"]}), out=tmp_path / "wrong")


@pytest.mark.slow
@pytest.mark.usefixtures("_no_page")
def test_given_costs_replace_recorded_ones(tmp_path):
    cost = {"measure_md": False, "label_seconds": {2: 1.0, 4: 5.0, 5: 50.0}, "md_us_per_atom_step": {4: 2.5}}
    result = run_study(
        study_file(tmp_path, repetitions=1, confidence={"splits": 0}, sampling_methods=["random"], cost=cost),
        out=tmp_path / "run",
    )
    table = result.results
    assert (
        table.loc[table["level"] == "5", "label_seconds"] == 50.0 * table.loc[table["level"] == "5", "n_train"]
    ).all()
    assert table.loc[table["twojmax"] == 4, "md_us_per_atom_step"].eq(2.5).all()
    assert table.loc[table["twojmax"] == 2, "md_us_per_atom_step"].isna().all()


@pytest.mark.slow
def test_missing_labels_are_an_error_or_dropped_and_counted(tmp_path):
    data = tmp_path / "holes.h5"
    data.write_bytes(first_configurations().read_bytes())
    with h5py.File(data, "a") as file:
        file["levels/4/energy"][[3, 8]] = np.nan
    with pytest.raises(InputError, match="2 configurations lack a label .* the first with id 3.*missing_labels: drop"):
        run_study(study_file(tmp_path, dataset=str(data)), out=tmp_path / "run")
    assert not (tmp_path / "run").exists(), "nothing is made before the check"
    result = run_study(
        study_file(
            tmp_path,
            dataset=str(data),
            missing_labels="drop",
            repetitions=1,
            confidence={"splits": 0},
            sampling_methods=["random"],
        ),
        out=tmp_path / "run",
    )
    assert any("2 configurations were excluded" in warning for warning in result.warnings)
    assert len(pd.read_csv(result.folder / "split.csv")) == 195
    assert "2 configurations were excluded" in result.report.read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("_no_page")
def test_saturated_leverage_is_said(tmp_path):
    basis = {"elements": ["Be"], "twojmax": 6}
    leverage = {"energy_weight": 1e5, "twojmax": 6}
    saturated = study_file(
        tmp_path, repetitions=1, confidence={"splits": 0}, sizes=[20], basis=basis, leverage=leverage
    )
    result = run_study(saturated, out=tmp_path / "run")
    assert any("are nearly uniform" in warning for warning in result.warnings)


def test_elements_of_the_basis_that_occur_nowhere_are_said():
    prepared = SimpleNamespace(study=SimpleNamespace(basis=SimpleNamespace(elements=["Be", "W"])))
    (warning,) = _warn_about_elements(prepared, {"Be": 7})
    assert warning.startswith("No configuration contains W, listed in 'basis.elements'")
    assert not list(_warn_about_elements(prepared, {"Be": 7, "W": 1}))


WRONG = [
    ({"weigths": [1]}, "unknown key 'weigths'; did you mean 'weights'?"),
    ({"basis": {"elements": ["Be"], "rcutfacc": 4}}, "unknown key 'basis.rcutfacc'; did you mean 'rcutfac'?"),
    ({"split": {"fraction": 0.5}}, "unknown key 'split.fraction'"),
    ({"levels": [2, 9]}, "no convergence level '9'; available: 1, 2, 3, 4, 5"),
    ({"weights": [0]}, "greater than or equal to 0.000001; got 0"),
    ({"weights": [[12, -1]]}, "greater than or equal to 0.000001; got -1"),
    ({"weights": [1, 1.0]}, "twice"),
    ({"weights": ["heavy"]}, "'weights': each weight must be a ratio w_E/w_F or a pair"),
    ({"weights": [[1, 2, 3]]}, "got [1, 2, 3]"),
    ({"weights": [True]}, "got True"),
    ({"weights": [1.0e300]}, "less than or equal to 1000000"),
    ({"weights": [12, float("nan")]}, "'weights': each weight must be a positive finite number; got nan"),
    ({"sizes": [True]}, "entry 1 of 'sizes': must be a whole number, or 'all'; got True"),
    ({"sizes": 20}, "must be a list; got 20; write [20]"),
    ({"basis": "Be"}, "'basis': must be a mapping of keys to values; got 'Be'"),
    ({"basis": {"elements": ["Be"], "rcutfac": 0.01}}, "0.01"),
    ({"basis": {"elements": ["Be"], "wj": float("nan")}}, "wj"),
    ({"cost": {"label_seconds": 5}}, "'cost.label_seconds': must be 'recorded', or seconds per configuration by level"),
    ({"cost": {"label_seconds": {2: 0, 4: 1, 5: 2}}}, "the seconds of level '2' must be a positive number; got 0"),
    ({"cost": {"label_seconds": {2: 1.0, 4: 1.0, 5: 2.0, 7: 3.0}}}, "'7', which is not a level of this study"),
    ({"split": {"group_by": ["config_tipe"]}}, "has 'config_tipe' in its info"),
    ({"repetitions": 10**20}, "less than or equal to 100000"),
    ({"ridge": [-1.0]}, "'ridge': each penalty must be 'auto' or a number from 0 up to 1e6; got -1"),
    ({"ridge": ["best"]}, "'ridge': each penalty must be 'auto' or a number from 0 up to 1e6; got best"),
    ({"ridge": []}, "'ridge': must be a list of penalties, such as [0, auto]"),
    ({"split": {"train_fraction": 1}}, "leaves no test set; set 'leave_one_out: true'"),
    ({"leverage": {"twojmax": True}}, "'leverage.twojmax'"),
    ({"sizes": [20, 5000]}, "number of training configurations, 138; got 5000"),
    ({"sizes": [20, "most"]}, "entry 2 of 'sizes': must be a whole number, or 'all'; got 'most'"),
    ({"twojmax": [-1]}, "study.yaml: entry 1 of 'twojmax': must be greater than or equal to 0; got -1"),
    ({"twojmax": [40]}, "entry 1 of 'twojmax': must be less than or equal to 20; got 40"),
    ({"twojmax": []}, "'twojmax': must have at least 1 entry; got []"),
    ({"basis": {"elements": ["Be"], "family": "pod"}, "twojmax": [13]}, "'twojmax': must be less than or equal to 12"),
    ({"leave_one_out": "maybe"}, "'leave_one_out': must be true or false; got 'maybe'"),
    ({"bases": [{"name": "short", "rcutfacc": 4}]}, "unknown key 'rcutfacc' in entry 1 of 'bases'; did you mean"),
    ({"group_weights": {"energy": {"slob": 0}}}, "the factor 0; use at least 1e-6, or remove it from the dataset"),
    (
        {"group_weights": {"energy": {"slob": 2}, "group_key": "x"}},
        "study.yaml: 'group_weights' contains the group 'slob'",
    ),
    ({"cost": {"md_us_per_atom_step": {4: -1}}}, "'cost.md_us_per_atom_step.4'"),
    ({"cost": {"label_seconds": {2: "recorded"}}}, "'recorded' is for all levels: write 'label_seconds: recorded'"),
    ({"cost": {"label_seconds": {2: 1.0, 4: 1.0, "good": 2.0}}}, "'good', which is not a level of this study"),
    ({"basis": {"elements": ["W"]}}, "has Be, an element that the basis lacks"),
    ({"basis": {"elements": ["Xx"]}}, "'Xx' is not a chemical symbol"),
    ({"dataset": None}, "the key 'dataset' is missing"),
    ({"dataset": "nowhere.h5"}, "no dataset at"),
    ({"dataset": __file__}, "not an HDF5 file"),
    ({"sampling_methods": ["levrage"]}, "did you mean 'leverage'?"),
    ({"split": {"train_fraction": 1.5}}, "less than or equal to 1; got 1.5"),
    ({"cost": {"label_seconds": {2: 1.0}}}, "no seconds for level '4'"),
    ({"basis": {"elements": ["Be"], "twojmax": 2}}, "smaller than the largest 'twojmax', 4"),
    ({"repetitions": 0}, "'repetitions'"),
    ({"name": "../escape"}, "'name'"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_studies_get_one_sentence_before_anything_is_made(tmp_path, change, message):
    path = study_file(tmp_path, **change)
    with pytest.raises(InputError) as caught:
        run_study(path, out=tmp_path / "run")
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert not (tmp_path / "run" / "results.csv").exists()


def test_yaml_that_is_none(tmp_path):
    path = tmp_path / "s.yaml"
    for content, message in (
        ("a: b: c", "line 1 is not valid YAML"),
        ("- 1", "must contain keys"),
        ("name: a\nname: b\n", "not valid YAML"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            load_study(path)
    with pytest.raises(InputError, match="no file at"):
        load_study(tmp_path / "none.yaml")


def test_empty_dataset(tmp_path):
    data = tmp_path / "empty.h5"
    data.write_bytes(first_configurations().read_bytes())
    with h5py.File(data, "a") as file:
        for name, empty in (("id", np.empty(0, int)), ("offsets", np.zeros(1, int))):
            del file[f"configurations/{name}"]
            file[f"configurations/{name}"] = empty
    with pytest.raises(InputError, match="contains no configurations"):
        run_study(study_file(tmp_path, dataset=str(data)))


@pytest.mark.slow
def test_a_template_runs_as_it_is_written(tmp_path, small_dataset):
    path = write_template(small_dataset, tmp_path / "s.yaml")
    study = load_study(path)
    assert study.levels == ["cheap", "good"]
    with pytest.raises(InputError, match="already exists"):
        write_template(small_dataset, path)
    result = run_study(path, out=tmp_path / "run")
    assert len(result.results) > 0
    assert result.report.exists()


@pytest.mark.parametrize("name", ["quick", "beryllium", "few_labels"])
def test_shipped_studies_load(name):
    study = load_study(ROOT / "studies" / f"{name}.yaml")
    with Dataset(study.dataset) as data:
        assert set(study.levels) <= set(data.levels)


@pytest.mark.slow
def test_the_shipped_quick_study_runs(tmp_path):
    result = run_study(ROOT / "studies" / "quick.yaml", out=tmp_path / "run", jobs=2)
    assert len(result.results) == 5 * 3 * 4 * 6 * 30
