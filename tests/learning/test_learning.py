"""The active-learning loop: its parts against hand computation, its stages, resumption and failures."""

import json
import os
import shutil
import signal
import time
from html import escape

import ase.io
import numpy as np
import pandas as pd
import pytest
import yaml
from ase import Atoms
from ase.build import bcc110, bulk
from conftest import ROOT, first_configurations
from helpers.faults import begin, flip, gone, litter, says, soon, stop
from helpers.pictures import rendered_pictures
from typer.testing import CliRunner

from paretofit import Dataset, InputError
from paretofit.cli import app
from paretofit.commands import learn
from paretofit.commands.active_learning import load_learn_study
from paretofit.core import RowKind
from paretofit.execution import RunContext
from paretofit.learning import VALIDATE, LearnFolder, LinearModel, SnapModelSettings, load_frames, write_learn_report
from paretofit.learning.explore import plan_runs, run_md
from paretofit.learning.learn_settings import ExploreSettings, SelectSettings
from paretofit.learning.level_choice import (
    choose_level,
    compute_label_seconds,
    fit_learning_exponent,
    measure_level_noise,
)
from paretofit.learning.loop_report import count_early_stops
from paretofit.learning.md_run import MdEngine, MdRun
from paretofit.learning.model import Committee
from paretofit.learning.selection import (
    build_configuration,
    calibrate,
    classify_frames,
    compute_point_weights,
    select_frames,
)
from paretofit.learning.set_balance import TEST, TRAIN
from paretofit.learning.sets import assign_sets
from paretofit.learning.training_data import assign_new_sets
from paretofit.learning.training_set import TrainingData
from paretofit.potentials import LinearPotential
from paretofit.report.figures import render_figure
from paretofit.report.page import ReportFigure
from paretofit.uncertainty import Assessment, score_detection
from paretofit.uncertainty.calibration import compute_committee_error, compute_disagreement

EAM = {
    "name": "ase",
    "calculator": "paretofit.lammps_calculator",
    "options": {"commands": ["pair_style eam/alloy", "pair_coeff * * W_zhou.eam.alloy W"], "elements": ["W"]},
}
UNREACHABLE = {"energy": 1e9, "forces": 1e9, "stress": 1e9}
ENGINE = MdEngine(("pair_style eam/alloy", "pair_coeff * * W_zhou.eam.alloy W"), ("W",))
SMALL = {
    "labelling": {"engine": EAM, "ladder": [{"name": "eam"}]},
    "augmentation": {
        "structures": ["W.cif"],
        "n_candidates": 24,
        "min_length": 5,
        "max_atoms": 16,
        "isolated_atoms": False,
        "clusters": {"count": 0},
        "slabs": {"miller_indices": []},
        "strained": {"compress": 0.05, "stretch": 0.1},
    },
    "learning": {
        "max_iterations": 2,
        "sets": {"train": 0.6, "validation": 0.2, "test": 0.2},
        "model": {"twojmax": 4, "members": 4},
        "explore": {"trajectories": 3, "temperature_k": [100, 600], "time_ps": 0.2, "interval_ps": 0.1},
        "select": {"tolerance": {"energy": 1.0, "forces": 20.0, "stress": 1.0}, "max_selected": 4},
    },
}


@pytest.fixture(autouse=True)
def _lammps_potentials():
    """LAMMPS finds the potentials that come with it, as it does for labels."""
    from paretofit.core import lammps_calculator

    lammps_calculator(ENGINE.commands, ENGINE.elements)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Skip the figures, which take most of a small loop's time; those of `finished_loop` are drawn."""
    monkeypatch.setattr(
        "paretofit.learning.loop_report.render_figure",
        lambda plan, *_: ReportFigure(plan.name, "", missing_reason="not drawn"),
    )


def study(folder, **changes):
    """A study file of the small loop, with sections of 'learning' or others changed."""
    content = json.loads(json.dumps(SMALL))
    for key, value in changes.items():
        section = content if key in {"labelling", "augmentation"} else content["learning"]
        section[key] = {**section.get(key, {}), **value} if isinstance(value, dict) else value
    content = {key: value for key, value in content.items() if value is not None}
    bulk("W", cubic=True).write(folder / "W.cif")
    ase.io.write(folder / "al.xyz", bulk("Al").repeat(2), format="extxyz")
    (folder / "s.yaml").write_text(yaml.safe_dump(content))
    return folder / "s.yaml"


@pytest.fixture(scope="module")
def finished_loop(tmp_path_factory):
    """A loop of two iterations."""
    folder = tmp_path_factory.mktemp("learn")
    return learn(study(folder), out=folder / "run", jobs=2)


@pytest.fixture
def trained_loop(finished_loop, tmp_path):
    """A copy of the loop as it was after the training of the first iteration, in the folder ``run``."""
    folder = shutil.copytree(finished_loop.folder, tmp_path / "run")
    shutil.rmtree(folder / "iterations" / "02")
    shutil.rmtree(folder / "iterations" / "01" / "trajectories")
    for name in ("explore.json", "select.json", "frames.csv"):
        (folder / "iterations" / "01" / name).unlink()
    return folder


class TestTheLoop:
    def test_loop_ends_with_all_files(self, finished_loop):
        assert finished_loop.stop_reason == "the maximum number of iterations"
        assert len(finished_loop.iterations) == 2
        assert finished_loop.report.read_text().startswith("<!doctype html>")
        names = {path.name for path in (finished_loop.folder / "figures").glob("*.png")}
        assert names == {f"{name}.png" for name in ("errors", "batch", "parity", "disagreement", "detection", "map")}
        assert len(LearnFolder(finished_loop.folder).list_iterations()) == 2
        potential = LinearPotential.read(finished_loop.potential)
        assert len(potential.coefficients) == 4
        table = pd.read_csv(finished_loop.folder / "iterations.csv")
        assert table["labels"].tolist() == [24, table["selected"][0]]
        assert 0 < table["selected"][0] <= 4
        assert (table["n_train"] + table["n_validate"] + table["n_test"]).tolist() == table["labels"].cumsum().tolist()

    def test_result_has_the_answers_of_the_page(self, finished_loop):
        page = finished_loop.report.read_text()
        assert "Is the potential good?" in finished_loop.answers
        assert all(escape(question) in page for question in finished_loop.answers)
        assert all(escape(answer) in finished_loop._repr_html_() for answer in finished_loop.answers.values())
        n_known = finished_loop.errors_by_kind.set_index("kind").loc["all", ["trained", "held_out"]].sum()
        assert n_known == finished_loop.iterations["labels"].sum()

    @pytest.mark.slow
    def test_figures_are_rendered(self, finished_loop, tmp_path, monkeypatch):
        folder = LearnFolder(shutil.copytree(finished_loop.folder, tmp_path / "run"))
        monkeypatch.setattr("paretofit.learning.loop_report.render_figure", render_figure)
        with rendered_pictures():
            write_learn_report(folder, finished_loop.iterations, finished_loop.stop_reason)
        assert all(path.stat().st_size > 5000 for path in (folder.path / "figures").iterdir())

    def test_errors_agree_with_the_committee(self, finished_loop):
        """RMSE of the test set, disagreement, error, slope and rates, computed from the files."""
        folder = LearnFolder(finished_loop.folder)
        potential = LinearPotential.read(folder.get_iteration(1).model_folder)
        errors = pd.read_csv(folder.get_iteration(1).path / "errors.csv")
        with Dataset(folder.dataset_path) as data:
            labels = data.labels("eam")
            spread, error, sums = [], [], []
            for _, row in errors.iterrows():
                k = int(np.flatnonzero(data.ids == row["id"])[0])
                members = potential.predict(data[k]).forces.reshape(4, -1)
                truth = labels.forces[labels.offsets[k] : labels.offsets[k + 1]].ravel()
                zeros = np.zeros(len(truth))
                spread.append(1000 * compute_disagreement(members, zeros)[0])
                error.append(1000 * compute_committee_error(members, truth, zeros)[0])
                sums.append((row["set"], ((members - truth) ** 2).sum(axis=1), len(truth)))
        assert errors["forces_std"].to_numpy() == pytest.approx(spread, rel=1e-5)
        assert errors["forces_committee_error"].to_numpy() == pytest.approx(error, rel=1e-5)
        test = [zeros for zeros in sums if zeros[0] == TEST]
        rmse = 1000 * np.sqrt(sum(zeros[1] for zeros in test) / sum(zeros[2] for zeros in test))
        first_row = finished_loop.iterations.iloc[0]
        assert first_row["test_forces_members"] == pytest.approx(rmse.mean(), rel=1e-6)
        assert first_row["test_forces_spread"] == pytest.approx(rmse.std(), rel=1e-6)
        assert first_row["test_forces"] < rmse.mean()  # the mean of the members is better than they are
        points = pd.read_csv(folder.get_iteration(1).path / "calibration.csv")
        held_out = points[points["source"] == "held out"]
        is_held_out = (errors["set"] != TRAIN).to_numpy()
        assert held_out["forces_committee_error"].to_numpy() == pytest.approx(np.array(error)[is_held_out], rel=1e-5)
        tau, epsilon = points["forces_std"].to_numpy(), points["forces_committee_error"].to_numpy()
        assert first_row["points_energy"] == len(points) == len(errors)  # every configuration counts
        rates = score_detection(tau, epsilon, first_row["threshold_forces"], 20.0)
        assert (first_row["tpr_forces"], first_row["ppv_forces"]) == pytest.approx(rates)
        has_forces = epsilon > 1e-3 * np.median(epsilon[epsilon > 0])  # they vanish by symmetry in strained crystals
        assert first_row["points_forces"] == has_forces.sum() < len(points)
        tau, epsilon = tau[has_forces], epsilon[has_forces]
        frames = pd.read_csv(folder.get_iteration(1).path / "frames.csv")
        near = np.exp(-0.5 * (np.log(tau / frames["forces_std"].median()) / 1.5) ** 2) + 0.02
        order = np.argsort(tau / epsilon)
        ranks = (np.cumsum(near[order]) - 0.5 * near[order]) / near.sum()
        median = np.exp(np.interp(0.5, ranks, np.log((tau / epsilon)[order])))
        assert first_row["slope_forces"] == pytest.approx(median, rel=1e-5)
        assert first_row["threshold_forces"] == pytest.approx(20.0 * first_row["slope_forces"])

    def test_stresses_are_in_gpa_everywhere(self, finished_loop):
        """The stress of one configuration in errors.csv, in the figure of parity and in the table of iterations."""
        iteration = LearnFolder(finished_loop.folder).get_iteration(1)
        errors, components = (pd.read_csv(iteration.path / f"{name}.csv") for name in ("errors", "components"))
        stresses = components[components["quantity"] == "stress"]
        direct = np.sqrt((stresses["error"] ** 2).groupby(stresses["configuration"]).mean())
        assert errors.loc[direct.index, "stress_error"].to_numpy() == pytest.approx(direct.to_numpy(), rel=1e-5)
        test_errors = errors.loc[errors["set"] == TEST, "stress_error"]
        rms = np.sqrt(np.mean(test_errors**2))
        assert finished_loop.iterations["test_stress"].iloc[0] == pytest.approx(rms, rel=1e-5)
        assert SelectSettings().tolerance.stress == pytest.approx(1e-3 * 160.2, rel=1e-2)  # 1 meV/Å³

    def test_cross_validation_uses_committees_without_the_group(self, finished_loop):
        """The points of the training set have larger errors than the committee that was trained on them."""
        path = LearnFolder(finished_loop.folder).get_iteration(1).path
        points = pd.read_csv(path / "calibration.csv").query("source == 'cross-validation'").set_index("id")
        errors = pd.read_csv(path / "errors.csv").query("set == 'train'").set_index("id").loc[points.index]
        assert len(points) == len(errors) > 10
        ratio = points["energy_committee_error"] / errors["energy_committee_error"]
        assert ratio.median() > 1.1

    def test_batch_compares_predicted_and_true_errors(self, finished_loop):
        """Predictions of the committee that chose the frames, and their labels, computed from the files."""
        folder = LearnFolder(finished_loop.folder)
        batch = pd.read_csv(folder.get_iteration(2).path / "batch_errors.csv").set_index("id")
        frames = pd.read_csv(folder.get_iteration(1).path / "frames.csv").query("verdict == 'chosen'")
        assert sorted(batch.index) == sorted(frames["config_id"])
        frames = frames.set_index("config_id").loc[batch.index]
        assert batch["forces_std"].to_numpy() == pytest.approx(frames["forces_std"].to_numpy(), rel=1e-5)
        assert batch["forces_expected"].to_numpy() == pytest.approx(frames["forces_expected"].to_numpy())
        potential = LinearPotential.read(folder.get_iteration(1).model_folder)
        with Dataset(folder.dataset_path) as data:
            labels = data.labels("eam")
            for config_id, row in batch.iterrows():
                k = int(np.flatnonzero(data.ids == config_id)[0])
                members = potential.predict(data[k]).energy / len(data[k])
                error = 1000 * np.sqrt(np.mean((members - labels.energy[k] / len(data[k])) ** 2))
                assert row["energy_committee_error"] == pytest.approx(error, rel=1e-5)
        second = finished_loop.iterations.iloc[1]
        ratio = (batch["energy_committee_error"] / batch["energy_expected"]).median()
        assert second["batch_ratio_energy"] == pytest.approx(ratio, rel=1e-5)
        inside = (batch["energy_committee_error"] <= batch["energy_bound"]).mean()
        assert second["batch_inside_energy"] == pytest.approx(inside)
        log = (finished_loop.folder / "learn.log").read_text()
        assert "median ratio of true to predicted error of the" in log
        later_points = pd.read_csv(folder.get_iteration(2).path / "calibration.csv")
        assert set(later_points.loc[later_points["source"] == "new batch", "id"]) == set(batch.index)

    def test_page_begins_with_answers(self, finished_loop):
        page = finished_loop.report.read_text()
        questions = ("What has the loop achieved?", "Is the potential good?", "For which kinds is it not?",
                     "What did it cost?", "How much would another iteration lower the errors?")  # fmt: skip
        positions = [page.index(question) for question in questions]
        assert positions == sorted(positions)
        assert positions[-1] < page.index("<img")
        assert page.count("<details>") == 5
        assert "meV/Å³" not in page

    def test_chosen_frames_are_labelled_next(self, finished_loop):
        folder = LearnFolder(finished_loop.folder)
        frames = pd.read_csv(folder.get_iteration(1).path / "frames.csv")
        chosen = frames[frames["verdict"] == "chosen"]
        structures = load_frames(folder.get_iteration(2).structures_path, "")
        assert [atoms.info["trajectory"] for atoms in structures] == chosen["trajectory"].tolist()
        assert (chosen["above"] != "").all()
        with Dataset(folder.dataset_path) as data:
            assert data.labels("eam").is_complete.all()
            new_records = [record for record in data.info_records if record.get("iteration") == 2]
        assert [record["trajectory"] for record in new_records] == [atoms.info["trajectory"] for atoms in structures]

    def test_configurations_stay_in_their_set(self, finished_loop):
        folder = LearnFolder(finished_loop.folder)
        first, second = (
            pd.read_csv(folder.get_iteration(k).path / "errors.csv").set_index("id")["set"] for k in (1, 2)
        )
        assert second.loc[first.index].equals(first)

    def test_finished_loop_is_not_repeated(self, finished_loop):
        before = {path: path.stat().st_mtime_ns for path in (finished_loop.folder / "iterations").rglob("*.json")}
        repeated = learn(finished_loop.folder.parent / "s.yaml", out=finished_loop.folder, jobs=1)
        assert repeated.stop_reason == finished_loop.stop_reason
        unchanged = {path: path.stat().st_mtime_ns for path in before if path.name != "stopped.json"}
        assert unchanged == {path: at for path, at in before.items() if path.name != "stopped.json"}

    def test_loop_stops_if_test_errors_are_below_tolerance(self, trained_loop, tmp_path):
        wide = {"tolerance": {"energy": 1e8, "forces": 1e8, "stress": 1e8}, "discard_above": UNREACHABLE}
        result = learn(study(tmp_path, select=wide), out=tmp_path / "run")
        assert result.stop_reason == "the errors on the test set are below tolerance"
        assert len(result.iterations) == 1
        assert not (tmp_path / "run" / "iterations" / "01" / "trajectories").exists()

    @pytest.mark.slow
    def test_loop_without_stresses_says_so_when_it_ends(self, tmp_path):
        """Clusters have no stress, so that the loop cannot end as accurate without a word about it."""
        messages = []
        wide = {"tolerance": {"energy": 1e5, "forces": 1e6, "stress": 1e6}, "discard_above": UNREACHABLE}
        clusters = {"n_candidates": 24, "min_length": 5, "max_atoms": 16, "isolated_atoms": False,
                    "clusters": {"count": 22, "min_atoms": 6, "max_atoms": 9, "distance": 2.5},
                    "slabs": {"miller_indices": []}, "strained": {"count": 0}, "distorted": {"count": 0}}  # fmt: skip
        path = study(tmp_path, select=wide, augmentation=clusters, max_iterations=1)
        result = learn(path, out=tmp_path / "run", notify=messages.append)
        assert result.stop_reason.startswith(
            "the errors on the test set are below tolerance; the stress was not evaluated"
        )
        assert any("no labels of the stress" in message for message in messages)
        assert "Nothing is known about the stress" in result.report.read_text()

    def test_loop_stops_if_no_frame_is_above_tolerance(self, finished_loop, tmp_path):
        """A test set with large errors, and a tolerance above the error of every frame."""
        shutil.copytree(finished_loop.folder, tmp_path / "run")
        for path in (tmp_path / "run" / "iterations" / "02").glob("*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        (tmp_path / "run" / "iterations" / "02").rmdir()
        iteration = LearnFolder(tmp_path / "run").get_iteration(1)
        record = iteration.read_record("train")
        record["rmse"][TEST]["energy"]["value"] = 1e9
        iteration.write_record("train", record)
        wide = {"tolerance": {"energy": 1e8, "forces": 1e8, "stress": 1e8}, "min_distance_ratio": 0.0,
                "discard_above": UNREACHABLE}  # fmt: skip
        result = learn(study(tmp_path, select=wide), out=tmp_path / "run")
        assert result.stop_reason == "no frame of the dynamics is above tolerance"
        assert result.iterations["selected"].iloc[0] == 0


class TestCorruptFiles:
    """A corrupt file in the folder of a loop is reported by its name with advice."""

    @pytest.mark.parametrize(
        ("name", "fault"),
        [*((name, fault) for fault in ("flipped", "cut") for name in (
            "sets.json", "start.json", "candidates.extxyz", "iterations/01/errors.csv", "iterations/01/train.json",
            "iterations/02/label.json", "iterations/02/train.json", "iterations/02/components.csv",
            "iterations/02/structures.extxyz", "iterations/02/model/potential.snapcoeff")),
         *((name, "gone") for name in ("sets.json", "candidates.extxyz", "iterations/01/errors.csv"))],
    )  # fmt: skip
    def test_corrupt_files_are_reported(self, finished_loop, tmp_path, name, fault):
        shutil.copytree(finished_loop.folder, tmp_path / "run")
        path = tmp_path / "run" / name
        content = path.read_bytes()
        if fault == "flipped":
            flip(path, content.rindex(b"3") if b"3" in content else 0.5)  # a digit becomes another one
        elif fault == "cut":
            path.write_bytes(content[: len(content) // 2])
        else:
            path.unlink()
        if name in {"sets.json", "iterations/02/structures.extxyz"}:  # a finished loop does not read them
            (tmp_path / "run" / "iterations" / "02" / "label.json").unlink()
        with pytest.raises(InputError, match=f"{name} is corrupt.*(remove|restore) .*(repeat|again|--out)"):
            learn(study(tmp_path), out=tmp_path / "run")

    def test_corrupt_run_record_is_rewritten(self, finished_loop, tmp_path):
        shutil.copytree(finished_loop.folder, tmp_path / "run")
        (tmp_path / "run" / "run.json").write_text('{"study": "s')
        assert learn(study(tmp_path), out=tmp_path / "run").stop_reason == finished_loop.stop_reason

    def test_advice_of_the_message_works(self, finished_loop, tmp_path):
        shutil.copytree(finished_loop.folder, tmp_path / "run")
        iteration_path = LearnFolder(tmp_path / "run").get_iteration(2).path
        (iteration_path / "errors.csv").write_text("id,set\n")
        with pytest.raises(InputError, match=f"remove {iteration_path / 'train.json'}"):
            learn(study(tmp_path), out=tmp_path / "run")
        (iteration_path / "train.json").unlink()
        learn(study(tmp_path), out=tmp_path / "run")
        assert (iteration_path / "errors.csv").read_bytes() == (
            finished_loop.folder / "iterations" / "02" / "errors.csv"
        ).read_bytes()

    @pytest.mark.slow
    @pytest.mark.parametrize("suffix", ["json", "extxyz"])
    def test_corrupt_trajectory_is_repeated(self, finished_loop, tmp_path, suffix):
        shutil.copytree(finished_loop.folder, tmp_path / "run")
        iteration = LearnFolder(tmp_path / "run").get_iteration(1)
        frames = {path.name: path.read_bytes() for path in iteration.trajectories_folder.glob("*.extxyz")}
        written = (iteration.trajectories_folder / "001.extxyz").stat().st_mtime_ns
        flip(iteration.trajectories_folder / f"000.{suffix}", 0.6)
        (iteration.path / "explore.json").unlink()
        learn(study(tmp_path), out=tmp_path / "run", stage="explore")
        assert {path.name: path.read_bytes() for path in iteration.trajectories_folder.glob("*.extxyz")} == frames
        assert (iteration.trajectories_folder / "001.extxyz").stat().st_mtime_ns == written

    def test_missing_stage_of_a_finished_iteration_is_repeated(self, finished_loop, tmp_path):
        shutil.copytree(finished_loop.folder, tmp_path / "run")
        iteration_path = LearnFolder(tmp_path / "run").get_iteration(1).path
        (iteration_path / "train.json").unlink()
        learn(study(tmp_path), out=tmp_path / "run")
        assert (iteration_path / "errors.csv").read_bytes() == (
            finished_loop.folder / "iterations" / "01" / "errors.csv"
        ).read_bytes()


class TestStages:
    @pytest.mark.parametrize(
        ("age_s", "expected"),
        [pytest.param(600, ["not yet"], marks=pytest.mark.slow), pytest.param(0, [], marks=pytest.mark.slow)],
    )
    def test_report_is_written_after_an_iteration_unless_it_is_recent(
        self, trained_loop, tmp_path, monkeypatch, age_s, expected
    ):
        written, written_at = [], time.time() - age_s
        os.utime(trained_loop / "report.html", (written_at, written_at))
        monkeypatch.setattr(
            "paretofit.learning.write_learn_report",
            lambda folder, _, reason: written.append(reason) or folder.path / "report.html",
        )
        learn(study(tmp_path), out=tmp_path / "run")
        assert written == [*expected, "the maximum number of iterations"]

    @pytest.mark.slow
    def test_single_stages_give_the_same_result_as_the_loop(self, finished_loop, tmp_path):
        path = study(tmp_path)
        with pytest.raises(InputError, match="stage 'train' of iteration 1 requires 'label'"):
            learn(path, out=tmp_path / "run", stage="train")
        for stage in ("label", "train", "explore", "select"):
            result = learn(path, out=tmp_path / "run", stage=stage)
            assert result.stop_reason == f"stage '{stage}' of iteration 1"
        columns = ["test_energy", "test_forces", "slope_forces", "selected", "frames"]
        first_row = result.iterations[columns].iloc[0].astype(float)
        assert first_row.to_numpy() == pytest.approx(
            finished_loop.iterations[columns].iloc[0].astype(float).to_numpy(), rel=1e-6
        )

    @pytest.mark.slow
    def test_labelled_dataset_needs_no_labels(self, tmp_path):
        (tmp_path / "s.yaml").write_text(
            yaml.safe_dump(
                {
                    "dataset": str(first_configurations()),
                    "labelling": {"engine": "gpaw", "levels": [5]},
                    "learning": {"model": {"twojmax": 4}, "max_iterations": 1},
                }
            )
        )
        result = learn(tmp_path / "s.yaml", out=tmp_path / "run")
        assert result.iterations["labels"].tolist() == [0]
        assert result.iterations["n_train"].iloc[0] > 140
        assert result.iterations["test_forces"].iloc[0] < 600

    @pytest.mark.parametrize("stage", ["label", "train", pytest.param("explore", marks=pytest.mark.slow), "select"])
    def test_incomplete_stage_is_repeated(self, finished_loop, tmp_path, stage):
        """Without its record and half of its files, the results are the same, and labels are not computed again."""
        shutil.copytree(finished_loop.folder, tmp_path / "run")
        iteration = LearnFolder(tmp_path / "run").get_iteration(2 if stage in {"label", "train"} else 1)
        if stage in {"explore", "select"}:
            shutil.rmtree(tmp_path / "run" / "iterations" / "02")
        for name in ("label", "train", "explore", "select")[("label", "train", "explore", "select").index(stage) :]:
            (iteration.path / f"{name}.json").unlink(missing_ok=True)
        if stage == "explore":
            (iteration.trajectories_folder / "001.json").unlink()
            (iteration.trajectories_folder / "001.extxyz").write_text("16\nhalf")
        journal = (tmp_path / "run" / "labels" / "labels.jsonl").read_bytes()
        resumed = learn(study(tmp_path), out=tmp_path / "run")
        assert (tmp_path / "run" / "labels" / "labels.jsonl").read_bytes() == journal
        columns = [
            column
            for column in finished_loop.iterations
            if "seconds" not in column and finished_loop.iterations[column].dtype != object
        ]
        pd.testing.assert_frame_equal(
            resumed.iterations[columns], finished_loop.iterations[columns], rtol=1e-6, check_dtype=False
        )

    def test_changed_settings_repeat_the_last_stage_only(self, finished_loop, tmp_path):
        shutil.copytree(finished_loop.folder, tmp_path / "run")
        before = (tmp_path / "run" / "iterations" / "01" / "train.json").stat().st_mtime_ns
        result = learn(study(tmp_path, model={"members": 5}), out=tmp_path / "run")
        assert len(LinearPotential.read(result.potential).coefficients) == 5
        assert (tmp_path / "run" / "iterations" / "01" / "train.json").stat().st_mtime_ns == before

    @pytest.mark.slow
    def test_killed_loop_resumes_without_repeating_labels(self, finished_loop, tmp_path):
        """Kill it in every stage of both iterations, according to the log, and at random times."""
        log, rng = tmp_path / "run" / "learn.log", np.random.default_rng(0)
        stages = [f"iteration {k}, {stage}:" for k in (1, 2) for stage in ("label", "train", "explore", "select")]
        arguments = ["learn", study(tmp_path), "--out", tmp_path / "run", "--jobs", 1]
        for before in ["study", *stages[:-2], *[None] * 6]:  # the second iteration ends with its training
            process = begin(*arguments)
            if before is None:
                time.sleep(rng.uniform(3, 12))
            else:
                assert soon(lambda process=process, before=before: says(log, before, 0) or process.poll() is not None)
                time.sleep(rng.uniform(0, 0.5))
            if process.poll() is None:
                _, process_ids = stop(process, signal.SIGKILL, group=True)
                assert soon(lambda process_ids=process_ids: gone(process_ids))
        result = learn(tmp_path / "s.yaml", out=tmp_path / "run")
        assert not litter(tmp_path / "run")
        columns = [
            column
            for column in finished_loop.iterations
            if "seconds" not in column and finished_loop.iterations[column].dtype != object
        ]
        pd.testing.assert_frame_equal(
            result.iterations[columns], finished_loop.iterations[columns], rtol=1e-6, check_dtype=False
        )
        keys = [json.loads(line)["key"] for line in (tmp_path / "run" / "labels" / "labels.jsonl").open()]
        assert len(keys) == len(set(keys)) == finished_loop.iterations["labels"].sum()


class TestFailures:
    def test_failed_labels_are_counted(self, tmp_path, monkeypatch):
        (tmp_path / "fragile.py").write_text(
            "from ase.calculators.calculator import CalculationFailed\n"
            "from ase.calculators.lj import LennardJones\n"
            "class Fragile(LennardJones):\n"
            "    def calculate(self, atoms=None, properties=None, system_changes=()):\n"
            "        if int(abs(atoms.positions.sum()) * 1e4) % 4 == 1:\n"
            "            raise CalculationFailed('no convergence')\n"
            "        super().calculate(atoms, properties, system_changes)\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        engine = {"name": "ase", "calculator": "fragile.Fragile", "options": {"sigma": 2.4, "epsilon": 0.5, "rc": 6.0}}
        path = study(tmp_path, labelling={"engine": engine}, max_iterations=1)
        result = learn(path, out=tmp_path / "run")
        failed = json.loads((tmp_path / "run" / "iterations" / "01" / "label.json").read_text())["failed"]
        assert 0 < len(failed) < 24
        assert result.iterations["failed"].tolist() == [len(failed)]
        assert result.iterations[["n_train", "n_validate", "n_test"]].sum(axis=1).tolist() == [24 - len(failed)]
        assert "no convergence" in result.report.read_text()

    def test_unphysical_dynamics_are_stopped(self):
        atoms = bulk("W", cubic=True).repeat(2)
        settings = ExploreSettings(equilibration_ps=0.0, time_ps=1.0, interval_ps=0.1)
        overlapping = atoms.copy()
        overlapping.positions[1] = overlapping.positions[0] + [1.3, 0, 0]
        exploded = run_md(MdRun(0, overlapping, 300.0, 0.0, 1), ENGINE, settings)
        assert exploded.reason.startswith(("the temperature reached", "atoms came closer"))
        assert len(exploded.frames) < 10
        graded = run_md(MdRun(0, atoms, 300.0, 0.0, 1), ENGINE, settings, lambda _: 99.0)
        assert graded.reason == "the extrapolation grade reached 99"
        assert len(graded.frames) == 1  # the structure with the high grade needs a label
        broken = run_md(MdRun(0, atoms, 300.0, 0.0, 1), MdEngine(("pair_style zero 5.0",), ("W",)), settings)
        assert "pair_coeff" in broken.reason or "coeffs" in broken.reason

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"augmentation": None}, "there are no structures to start from"),
            ({"structures": ["nowhere.xyz"]}, "'learning.structures': no file at .*nowhere.xyz"),
            (
                {"labelling": {"engine": {"name": "espresso", "command": "no-such-pw.x", "pseudopotentials": "."}}},
                "no-such-pw.x",
            ),
            ({"explore": {"temperature_k": [500, 100]}}, "the range goes from 500 to 100; write the lower end first"),
            ({"explore": {"temperature_k": [-5, 100]}}, "cannot be below zero; got -5"),
            ({"explore": {"time_ps": 1.0, "interval_ps": 2.0}}, "'interval_ps', 2, is longer than 'time_ps', 1"),
            ({"select": {"tolerance": {"energy": -1.0}}}, "tolerance.energy"),
            (
                {"select": {"tolerance": {"enrgy": 1.0}}},
                "unknown key 'learning.select.tolerance.enrgy'; did you mean 'energy'",
            ),
            ({"sets": {"train": 0.9}}, "must add up to 1; they add up to 1.3"),
            ({"level": {"fixed": "dft"}}, "'learning.level.fixed' is 'dft'; 'labelling' has the levels eam"),
            ({"model": {"members": 1}}, "learning.model.members"),
            ({"model": {"radelem": {"Xx": 0.4}}}, "'learning.model.radelem' has Xx; the structures have W"),
            ({"explore": {"max_atoms": 1}}, "no structure has 2 to 1 atoms, so that no dynamics can start"),
            (
                {"explore": {"start_structures": "al.xyz"}},
                "'learning.explore.start_structures' contains Al; the candidates contain only W",
            ),
            (
                {"explore": {"temperature_k": [100, 200, 300]}},
                r"a range must have two ends; write \{grid: \[100, 200, 300\]\}",
            ),
            ({"explore": {"temperature_k": {"low": 1, "high": 2, "grid": [3]}}}, "either a range or a grid, not both"),
            ({"explore": {"timestep_fs": 50}}, "timestep_fs"),
            (
                {"select": {"discard_above": {"energy": 0.5}}},
                "'discard_above.energy', 0.5, must be above 'tolerance.energy', 1",
            ),
            ({"level": {"pilot_size": 2}}, "pilot"),
            ({"select": {"cut_out": {"max_atoms": 2, "radius": 50}}}, "at least 4188 atoms, more than 'max_atoms', 2"),
            ({"n_initial": 4}, "the validation set has 1; a training requires at least 2 and a calibration at least 3"),
            (
                {
                    "labelling": {
                        "engine": {
                            **EAM,
                            "options": {
                                "commands": ["pair_style eam/alloy", "pair_coeff * * no.alloy W"],
                                "elements": ["W"],
                            },
                        }
                    }
                },
                "no.alloy",
            ),
        ],
    )
    def test_wrong_input_is_reported_before_any_label(self, tmp_path, changes, message):
        path = study(tmp_path, **changes)
        with pytest.raises(InputError, match=message):
            learn(path, out=tmp_path / "run")
        if message != "no.alloy":  # where the engine cannot do anything, a few labels are tried
            journal = tmp_path / "run" / "labels" / "labels.jsonl"
            assert not journal.exists() or not journal.read_text()

    def test_too_small_validation_set_is_reported(self, tmp_path):
        with pytest.raises(InputError, match="the validation set has 1; .* a calibration at least 3"):
            learn(study(tmp_path, augmentation={"n_candidates": 8}), out=tmp_path / "run")

    def test_unknown_stage_is_reported_with_the_choices(self, tmp_path):
        outcome = CliRunner().invoke(
            app, ["learn", str(study(tmp_path)), "--stage", "guess", "--out", str(tmp_path / "r")]
        )
        assert "stage must be one of label, train, explore, select; got 'guess'" in str(outcome.exception)


class TestDynamics:
    settings = ExploreSettings(equilibration_ps=0.0, time_ps=0.3, interval_ps=0.1)

    def test_crystal_keeps_its_orientation(self):
        atoms = bulk("W").repeat(4)
        atoms.rotate(33, (1, 2, 3), rotate_cell=True)
        trajectory = run_md(MdRun(0, atoms, 400.0, 0.0, 3), ENGINE, self.settings)
        assert (trajectory.reason, len(trajectory.frames), trajectory.times) == ("", 3, pytest.approx([0.1, 0.2, 0.3]))
        last = trajectory.frames[-1]
        assert last.cell.cellpar() == pytest.approx(atoms.cell.cellpar(), rel=0.03)
        assert (
            np.linalg.norm(last.cell[0] / np.linalg.norm(last.cell[0]) - atoms.cell[0] / np.linalg.norm(atoms.cell[0]))
            < 0.02
        )
        scaled = last.get_scaled_positions() - atoms.get_scaled_positions()
        moved = (scaled - np.round(scaled)) @ atoms.cell[:]
        assert 0.01 < np.abs(moved).max() < 1.0

    def test_barostat_acts_along_periodic_directions_only(self):
        slab = bcc110("W", (3, 3, 4), vacuum=8)
        slab.pbc = (True, True, False)
        order = slab.copy()
        order.set_cell(slab.cell[[2, 0, 1]])
        order.pbc = (False, True, True)
        for atoms, vacuum in ((slab, 2), (order, 0)):
            last = run_md(MdRun(0, atoms, 300.0, 0.0, 3), ENGINE, self.settings).frames[-1]
            assert np.array_equal(last.pbc, atoms.pbc)
            assert np.array_equal(last.cell[vacuum], atoms.cell[vacuum])
            plane = [k for k in range(3) if k != vacuum]
            assert not np.allclose(last.cell[plane], atoms.cell[plane], rtol=1e-6)
            assert last.positions[:, 2].std() == pytest.approx(atoms.positions[:, 2].std(), rel=0.2)

    def test_a_cluster_runs_at_constant_volume(self):
        cluster = bulk("W", cubic=True).repeat(2)
        cluster.pbc = False
        trajectory = run_md(MdRun(0, cluster, 300.0, 50.0, 3), ENGINE, self.settings)
        assert trajectory.reason == ""
        assert np.array_equal(trajectory.frames[-1].cell[:], cluster.cell[:])

    @pytest.mark.slow
    def test_pressure_reduces_the_volume(self):
        atoms = bulk("W", cubic=True).repeat(3)
        settings = ExploreSettings(time_ps=2.0, interval_ps=2.0)
        volumes = [
            run_md(MdRun(0, atoms, 100.0, p, 3), ENGINE, settings).frames[-1].get_volume() for p in (-100.0, 200.0)
        ]
        bulk_modulus = 310.0  # GPa, of tungsten; 300 kbar are 30 GPa
        assert 1 - volumes[1] / volumes[0] == pytest.approx(30 / bulk_modulus, rel=0.5)

    def test_runs_are_drawn_from_ranges_and_grids(self):
        starts = [bulk("W"), bulk("W").repeat(2)]
        settings = ExploreSettings(trajectories=6, temperature_k=[100, 200], pressure_kbar={"grid": [0, 10, 20]})
        runs = plan_runs(starts, settings, np.random.default_rng(0))
        assert [run.pressure for run in runs] == [0, 10, 20, 0, 10, 20]
        assert all(100 <= run.temperature <= 200 for run in runs)
        assert sorted(len(run.atoms) for run in runs) == [1, 1, 1, 8, 8, 8]
        repeated = plan_runs(starts, settings, np.random.default_rng(0))
        assert [run.seed for run in repeated] == [run.seed for run in runs]


class TestSets:
    def make_structures(self, records):
        structures = []
        for k, record in enumerate(records):
            atoms = bulk("W").repeat(2)
            atoms.rattle(0.1, seed=k)  # equal structures would be one group
            atoms.info = {"config_id": k, **record}
            structures.append(atoms)
        return structures

    def test_shares_groups_and_fixed_training_configurations(self):
        structures = self.make_structures([{"trajectory": f"t{k // 5}"} for k in range(200)])
        structures += self.make_structures([{"config_type": "isolated"}] * 3)[:0]
        structures[7].info["config_type"] = "input"
        structures[8] = Atoms("W", cell=[3, 3, 3], pbc=True, info={"config_id": 8, "trajectory": "t1"})
        shares = {TRAIN: 0.8, VALIDATE: 0.1, TEST: 0.1}
        sets = assign_sets(structures, {}, shares, ["parent", "trajectory"], np.random.default_rng(1))
        counts = pd.Series(sets).value_counts()
        assert counts[TRAIN] == pytest.approx(160, abs=6)
        assert counts[VALIDATE] == pytest.approx(20, abs=6)
        assert sets[7] == sets[8] == TRAIN
        for group in range(40):
            group_sets = {sets[5 * group + k] for k in range(5) if 5 * group + k not in (7, 8)}
            assert len(group_sets) == 1

    def test_known_sets_stay_and_groups_follow(self):
        structures = self.make_structures([{"trajectory": f"t{k // 2}"} for k in range(20)])
        known = dict.fromkeys(range(0, 20, 2), TEST)
        sets = assign_sets(
            structures, known, {TRAIN: 0.8, VALIDATE: 0.1, TEST: 0.1}, ["trajectory"], np.random.default_rng(1)
        )
        assert set(sets.values()) == {TEST}

    def test_new_frames_in_held_out_sets_only_are_said(self, finished_loop, tmp_path):
        folder = LearnFolder(shutil.copytree(finished_loop.folder, tmp_path / "loop"))
        sets = folder.read_set_assignment()["sets"]
        for held_out, is_said in ([VALIDATE, TEST], True), ([VALIDATE, TRAIN], False):
            starts = [next(int(k) for k, name in sets.items() if name == held_out[n]) for n in range(2)]
            frames = self.make_structures([{"trajectory": f"09-{k}", "started_from": k} for k in starts])
            for n, atoms in enumerate(frames):
                atoms.info["config_id"] = 90_000 + 2 * is_said + n
            settings = load_learn_study(finished_loop.folder.parent / "s.yaml").learning.sets
            _, note = assign_new_sets(folder, settings, frames, np.random.default_rng(0))
            assert ("raise 'learning.explore.trajectories'" in note) == is_said

    def test_frames_follow_their_start_structure(self):
        structures = self.make_structures([{}] * 10 + [{"trajectory": f"01-{k}", "started_from": k} for k in range(10)])
        shares = {TRAIN: 0.5, VALIDATE: 0.25, TEST: 0.25}
        known = assign_sets(structures[:10], {}, shares, ["trajectory"], np.random.default_rng(0))
        sets = assign_sets(structures, known, shares, ["trajectory"], np.random.default_rng(1))
        assert [sets[10 + k] for k in range(10)] == [known[k] for k in range(10)]


class TestSelection:
    def points(self, energy, forces, energy_error, forces_error):
        """Points of a calibration without stress labels."""
        return pd.DataFrame({
            "config_type": "md", "source": "held out", "energy_std": energy, "forces_std": forces,
            "energy_committee_error": energy_error, "forces_committee_error": forces_error,
            "stress_std": np.nan, "stress_committee_error": np.nan,
        })  # fmt: skip

    def test_outliers_do_not_affect_the_calibration(self):
        """Six points on a line and one far off; stresses without labels do not count."""
        settings = SelectSettings(tolerance={"energy": 1.0, "forces": 1.0})
        error = np.array([1.0, 2, 3, 4, 5, 6, 4000])
        spread = np.array([*(0.5 * error[:6]), 4000])
        calibration = calibrate(self.points(spread, np.ones(7), error, np.ones(7)), settings)
        assert calibration.thresholds["energy"] == pytest.approx(0.5)
        assert calibration.n_points == {"energy": 7, "forces": 7}

    def test_points_with_the_disagreement_of_the_frames_count_most(self):
        """Twice as large errors at small disagreements as at large ones, and frames with small disagreements."""
        spread = np.repeat([0.01, 1.0], [20, 60])
        error = np.where(spread < 0.1, 2.0, 1.0) * spread
        frames = pd.DataFrame({"energy": [0.01, 0.012], "forces": [1.0, 1.0], "stress": [np.nan, np.nan]})
        calibration = calibrate(self.points(spread, spread, error, error), SelectSettings(), frames)
        assert calibration.curves["energy"].slope == pytest.approx(0.5)
        assert calibration.curves["forces"].slope == pytest.approx(1.0)

    def test_earlier_batches_have_half_the_weight_of_all_other_points(self):
        source, spread = np.array(["held out"] * 30 + ["new batch"] * 7), np.linspace(0.1, 1, 37)
        for frames in (None, np.array([0.5])):
            weights = compute_point_weights(source, spread, frames)
            assert weights[30:].sum() == pytest.approx(0.5 * weights[:30].sum())
        assert compute_point_weights(source[:30], spread[:30], None).tolist() == [1.0] * 30

    @pytest.mark.parametrize("method", ["slope", "isotonic", "quantile"])
    def test_bounds_contain_nine_of_ten_errors(self, method):
        rng = np.random.default_rng(0)
        spread = np.exp(rng.normal(size=400))
        error = 3 * spread * np.exp(0.5 * rng.normal(size=400))
        points = self.points(spread, spread, error, error)
        calibration = calibrate(points[:300], SelectSettings(calibration=method))
        expected, bound = calibration.predict("energy", spread[300:])
        assert np.mean(error[300:] <= bound) == pytest.approx(0.9, abs=0.05)
        share_below = {"slope": 0.5, "isotonic": 0.5, "quantile": 0.9}[method]
        assert np.mean(error[300:] <= expected) == pytest.approx(share_below, abs=0.1)

    def test_bounds_from_few_points_contain_nine_of_ten_errors_on_average(self):
        rng = np.random.default_rng(0)
        n_inside = 0
        for _ in range(1000):
            error = np.exp(rng.normal(size=12))
            points = self.points(np.ones(11), np.ones(11), error[:11], error[:11])
            _, bound = calibrate(points, SelectSettings()).predict("energy", np.ones(1))
            n_inside += error[11] <= bound[0]
        assert n_inside / 1000 == pytest.approx(0.9, abs=0.02)  # 0.87 without the correction for few points

    def assessed(self, energy, forces, grade=0.5):
        n = 4
        return Assessment(0.0, np.zeros((n, 3)), np.zeros(6), energy, np.full((n, 3), forces), np.full(6, np.nan),
                          np.nan, np.full((n, 3), np.nan), np.full(6, np.nan), np.full(n, grade), 0.1)  # fmt: skip

    def frames(self, count):
        return [bulk("W").repeat((4, 1, 1)) for _ in range(count)]

    def test_verdicts_by_hand(self):
        settings = SelectSettings(
            tolerance={"energy": 10.0, "forces": 100.0}, discard_above={"energy": 500.0}, max_selected=2
        )
        points = self.points([1.0, 2, 3], [10.0, 20, 30], [2.0, 4, 6], [10.0, 20, 30])
        calibration = calibrate(points, settings)
        assert calibration.thresholds == {"energy": pytest.approx(5.0), "forces": pytest.approx(100.0)}
        assessed = [self.assessed(*spreads) for spreads in
                    [(0.004, 0.05), (0.006, 0.05), (0.004, 0.2), (0.6, 0.05), (0.007, 0.2), (0.007, 0.2)]]  # fmt: skip
        described = np.array([[1.0, 0], [2, 0], [3, 0], [4, 0], [5, 0], [5, 1e-5]])
        table = classify_frames(self.frames(6), assessed, calibration, settings, described, np.array([[9.0, 9]]))
        assert table["above"].tolist() == ["", "energy", "forces", "energy", "energy forces", "energy forces"]
        waiting = "not drawn"
        assert table["verdict"].tolist() == ["confident", waiting, waiting, "unphysical", waiting, "duplicate"]
        assert table["energy_expected"].tolist() == pytest.approx([8, 12, 8, 1200, 14, 14])
        drawn = {
            tuple(select_frames(table, described, described[:0], settings, np.random.default_rng(k))) for k in range(30)
        }
        assert drawn == {(1, 2), (1, 4), (2, 4)}

    def test_diverse_strategy_selects_frames_far_from_known_ones(self):
        settings = SelectSettings(strategy="diverse", max_selected=2)
        table = pd.DataFrame({"verdict": ["not drawn"] * 4})
        described = np.array([[1.0, 0.0, 0.0], [1.0, 0.01, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        selected = select_frames(table, described, np.array([[1.0, 0.0, 0.0]] * 5), settings, np.random.default_rng(0))
        assert selected.tolist() == [2, 3]

    def test_large_frames_are_cut_down_around_the_highest_grade(self):
        frame, grades = bulk("W", cubic=True).repeat(8), np.ones(1024)
        frame.rattle(0.1, seed=1)
        grades[77] = 3.0
        settings = SelectSettings.model_validate({"cut_out": {"max_atoms": 300, "radius": 5.0}})
        cell = build_configuration(frame, grades, 9, 2, settings)
        assert cell.info == {"config_id": 9, "iteration": 2, "config_type": "md", "cut_out": "atom 77 of 1024"}
        distances = [
            np.sort(atoms.get_distances(k, slice(None), mic=True))[:15] for atoms, k in ((cell, 0), (frame, 77))
        ]
        assert np.allclose(*distances)
        for settings in (SelectSettings(), SelectSettings.model_validate({"cut_out": {"max_atoms": 2000}})):
            assert len(build_configuration(frame, grades, 9, 2, settings)) == 1024

    def test_overlapping_atoms_are_unphysical(self):
        settings = SelectSettings()
        atoms = bulk("W").repeat((4, 1, 1))
        atoms.positions[1] = atoms.positions[0] + [1.0, 0, 0]
        calibration = calibrate(self.points(*[[1.0, 2, 3]] * 4), settings)
        table = classify_frames([atoms], [self.assessed(1.0, 1.0)], calibration, settings,
                             np.ones((1, 2)), np.zeros((0, 2)))  # fmt: skip
        assert table["verdict"].tolist() == ["unphysical"]


class TestLevels:
    def test_cheap_level_is_chosen_early_and_good_level_late(self):
        levels = ["cheap", "good"]
        noise, seconds = {"cheap": (0.02, 0.1)}, {"cheap": 1.0, "good": 10.0}
        early = choose_level(levels, noise, seconds, (0.2, 1.0), 20, 20)
        late = choose_level(levels, noise, seconds, (0.01, 0.05), 500, 20)
        assert (early.name, late.name) == ("cheap", "good")
        by_hand = np.sqrt(20 / 40 + 20 / 40 * 0.1**2)
        assert early.table[0]["error_ratio"] == pytest.approx(by_hand)
        assert early.table[0]["gain_per_hour"] == pytest.approx(3600 * (1 - by_hand) / 20)
        assert choose_level(levels, {}, seconds, (0.2, 1.0), 20, 20).name == "good"
        assert fit_learning_exponent([(10, 4.0), (40, 2.0)]) == pytest.approx(0.5)
        assert fit_learning_exponent([(10, 90.0), (20, 4.0), (40, 3.0), (80, 2.5)]) == pytest.approx(0.34, abs=0.02)
        energies = choose_level(levels, {"cheap": (0.3, 0.01)}, seconds, (0.2, 1.0), 20, 20)
        assert energies.name == "good"  # the cheap level's energies are worse than the model's
        assert fit_learning_exponent([(10, 4.0)]) == 0.5

    def test_noise_and_cost_are_measured_on_common_labels(self):
        with Dataset(first_configurations()) as data:
            noise, seconds = measure_level_noise(data, ["2", "3", "5"]), compute_label_seconds(data, ["2", "3", "5"])
            energy = (data.labels("3").energy - data.labels("5").energy) / data.n_atoms
            forces = data.labels("3").forces - data.labels("5").forces
        assert noise["3"] == pytest.approx((energy.std(), np.sqrt(np.mean(forces**2))))
        assert seconds["2"] < seconds["3"] < seconds["5"]

    @pytest.mark.slow
    def test_mixed_levels_have_an_offset_and_less_weight(self, tmp_path):
        """Half of the labels are shifted by 0.7 eV/atom: predictions are on the scale of the better level."""
        with Dataset(first_configurations()) as data:
            n = len(data)
            sets = np.array([VALIDATE if k % 5 == 0 else TRAIN for k in range(n)])
            level = np.array(["3" if k % 2 else "5" for k in range(n)], dtype=object)
            training_data = TrainingData(data, sets, level, np.arange(n), np.ones(n, dtype=int), ["3", "5"],
                                measure_level_noise(data, ["3", "5"]), (0.02, 0.1))  # fmt: skip
            model = LinearModel(SnapModelSettings(twojmax=4, members=4), ["Be"], tmp_path / "designs")
            (tmp_path / "designs").mkdir()
            trained = model.train(training_data, tmp_path / "model", seed=1, context=RunContext())
            labels3, labels5 = data.labels("3"), data.labels("5")
            shift = float(np.mean((labels3.energy - labels5.energy) / data.n_atoms))
            assert trained.offsets["3", "Be"] == pytest.approx(shift, abs=0.01)
            error = [trained.committee.assess(data[k]).energy / data.n_atoms[k] - labels5.energy[k] / data.n_atoms[k]
                     for k in range(0, n, 10)]  # fmt: skip
        assert abs(np.mean(error)) < 0.02
        alone = LinearModel(SnapModelSettings(twojmax=4, members=4), ["Be"], tmp_path / "designs")
        assert alone.load(tmp_path / "model").n_members == 4


def test_number_of_members_of_a_committee_and_of_a_single_potential():
    basis = SnapModelSettings(twojmax=4).build_basis(["Be"], 4)
    for shape, n_members in (((3, basis.n_features), 3), ((basis.n_features,), 1)):
        assert Committee(LinearPotential(basis, np.ones(shape))).n_members == n_members


def test_the_shipped_studies_load():
    for name in ("learn_quick", "learn_beryllium"):
        loaded = load_learn_study(ROOT / "studies" / f"{name}.yaml")
        assert loaded.learning.max_iterations >= 3


class TestRegressions:
    def test_the_report_counts_why_trajectories_ended(self, tmp_path):
        for k, heat in ((1, "3574"), (1, "1.2e+04"), (2, "9")):
            iteration = LearnFolder(tmp_path).get_iteration(k)
            events = (iteration.read_record("explore") or {"events": []})["events"]
            iteration.write_record("explore", {"events": [*events, f"trajectory 3: the temperature reached {heat} K"]})
        table = count_early_stops(LearnFolder(tmp_path))
        assert table.to_numpy().tolist() == [
            [1, "the temperature reached … K", 2],
            [2, "the temperature reached … K", 1],
        ]

    @pytest.mark.slow
    def test_single_stages_do_not_exceed_the_number_of_iterations(self, finished_loop, tmp_path):
        shutil.copytree(finished_loop.folder, tmp_path / "run")
        path = study(tmp_path)
        for stage in ("explore", "select"):
            learn(path, out=tmp_path / "run", stage=stage)
        journal = (tmp_path / "run" / "labels" / "labels.jsonl").read_bytes()
        assert learn(path, out=tmp_path / "run").stop_reason == "the maximum number of iterations"
        assert (tmp_path / "run" / "labels" / "labels.jsonl").read_bytes() == journal

    @pytest.mark.slow
    def test_trajectories_of_other_settings_are_repeated(self, finished_loop, tmp_path):
        shutil.copytree(finished_loop.folder, tmp_path / "run")
        shutil.rmtree(tmp_path / "run" / "iterations" / "02")
        for name in ("explore", "select"):
            (tmp_path / "run" / "iterations" / "01" / f"{name}.json").unlink()
        learn(
            study(tmp_path, explore={"temperature_k": [50, 60], "trajectories": 2}, max_iterations=1),
            out=tmp_path / "run",
        )
        learn(tmp_path / "s.yaml", out=tmp_path / "run", stage="explore")
        record = json.loads((tmp_path / "run" / "iterations" / "01" / "trajectories" / "000.json").read_text())
        assert 50 <= record["temperature_k"] <= 60

    def test_changed_candidates_need_another_folder(self, finished_loop, tmp_path):
        shutil.copytree(finished_loop.folder, tmp_path / "run")
        with pytest.raises(InputError, match="'augmentation' has changed since the candidates of .*run were generated"):
            learn(study(tmp_path, augmentation={"n_candidates": 30}), out=tmp_path / "run")

    def test_dataset_of_another_loop_is_accepted(self, finished_loop, tmp_path):
        result = learn(self.with_dataset(tmp_path, finished_loop.folder / "dataset.h5"), out=tmp_path / "run")
        assert result.iterations["labels"].tolist() == [0]
        total = result.iterations[["n_train", "n_validate", "n_test"]].sum(axis=1).tolist()
        assert total == [finished_loop.iterations["labels"].sum()]

    def with_dataset(self, folder, dataset):
        path = study(folder, augmentation=None, max_iterations=1)
        content = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**content, "dataset": str(dataset)}))
        return path

    def test_number_and_times_of_frames(self):
        atoms = bulk("W", cubic=True).repeat(2)
        for time_ps, interval_ps, count in ((0.1, 0.005, 20), (0.1, 0.03, 3), (0.05, 0.05, 1)):
            settings = ExploreSettings(equilibration_ps=0.0, time_ps=time_ps, interval_ps=interval_ps)
            trajectory = run_md(MdRun(0, atoms, 100.0, 0.0, 1), ENGINE, settings)
            assert len(trajectory.frames) == count
            assert trajectory.times[-1] == pytest.approx(count * interval_ps, rel=0.05)

    def test_expanding_box_is_stopped(self):
        atoms = bulk("W", cubic=True).repeat(2)
        atoms.set_cell(atoms.cell * 0.7, scale_atoms=True)
        settings = ExploreSettings(time_ps=5.0, interval_ps=0.1, stop_temperature_ratio=1e6)
        trajectory = run_md(MdRun(0, atoms, 100.0, -500.0, 1), ENGINE, settings)
        assert trajectory.reason

    @pytest.mark.slow
    def test_held_out_sets_are_labelled_at_the_best_level(self, tmp_path):
        """Two levels of one calculator, which differ in the length scale."""
        engine = {
            "name": "ase",
            "calculator": "ase.calculators.lj.LennardJones",
            "options": {"epsilon": 0.5, "rc": 7.0},
        }
        ladder = [{"name": "lo", "options": {"sigma": 2.45}}, {"name": "hi", "options": {"sigma": 2.46}}]
        path = study(
            tmp_path, labelling={"engine": engine, "ladder": ladder}, level={"pilot_size": 4}, max_iterations=1
        )
        result = learn(path, out=tmp_path / "run")
        errors = pd.read_csv(tmp_path / "run" / "iterations" / "01" / "errors.csv")
        held_out = errors[errors["set"] != TRAIN]
        assert (held_out["level"] == "hi").all()
        assert len(held_out) >= 8
        with Dataset(result.folder / "dataset.h5") as data:
            assert data.labels("lo").is_complete.sum() >= 4

    @pytest.mark.slow
    def test_unlabelled_candidates_keep_their_ids(self, tmp_path):
        """If not all candidates are labelled, frames get ids beyond all candidates, and the run can be resumed."""
        path = study(tmp_path, n_initial=20, max_iterations=1)
        learn(path, out=tmp_path / "run")
        result = learn(study(tmp_path, n_initial=20, max_iterations=2), out=tmp_path / "run")
        with Dataset(tmp_path / "run" / "dataset.h5") as data:
            assert sorted(data.ids.tolist())[20:] == list(range(24, 24 + int(result.iterations["labels"].iloc[1])))
        assert learn(tmp_path / "s.yaml", out=tmp_path / "run").stop_reason == "the maximum number of iterations"

    def test_vanishing_forces_allow_conformal_intervals(self):
        """Ten held-out groups, four of them crystals without forces."""
        from paretofit.uncertainty import CalibrationData, Uncertainty

        group = np.repeat(np.arange(10), 6)
        spread = np.where(group < 4, 1e-17, 0.1)
        residual = np.where(group < 4, 0.0, 0.2) * np.random.default_rng(0).normal(size=60)
        uncertainty = Uncertainty(
            "bootstrap", {RowKind.FORCE: CalibrationData(spread, residual, group, group)}, {}, None, 1.0, {}
        )
        assert uncertainty.fit_interval(RowKind.FORCE).factor > 0


@pytest.fixture(scope="module")
def second_loop(finished_loop, tmp_path_factory):
    """A loop from the dataset and the potential of another one, and its messages."""
    folder, messages = tmp_path_factory.mktemp("second"), []
    path = study(
        folder,
        augmentation={"n_candidates": 8, "seed": 5},
        max_iterations=1,
        initial_potential=str(finished_loop.potential),
        select={"tolerance": {"energy": 20.0, "forces": 300.0, "stress": 3.0}},
    )
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**content, "dataset": str(finished_loop.folder / "dataset.h5")}))
    return learn(path, out=folder / "run", notify=messages.append), messages


class TestInitialPotential:
    """Loops that explore with an existing potential before the first label."""

    @pytest.mark.slow
    def test_frames_above_tolerance_are_labelled_first(self, second_loop, finished_loop):
        result, messages = second_loop
        candidates = load_frames(result.folder / "candidates.extxyz", "")
        frames = [atoms for atoms in candidates if atoms.info["config_type"] == "md"]
        assert messages[0].startswith("initial exploration: 3 trajectories with the initial potential")
        assert len(frames) > 3
        above = [atoms.info["config_id"] for atoms in candidates if atoms.info["above_tolerance"]]
        assert 0 < len(above) < len(candidates)
        with Dataset(finished_loop.folder / "dataset.h5") as old, Dataset(result.folder / "dataset.h5") as data:
            assert sorted(set(data.ids.tolist()) - set(old.ids.tolist())) == sorted(above)

    def test_expected_errors_are_those_of_the_potential(self, second_loop, finished_loop):
        result, _ = second_loop
        potential = LinearPotential.read(finished_loop.potential)
        calibration = potential.uncertainty.fit_calibration(RowKind.FORCE)
        for atoms in load_frames(result.folder / "candidates.extxyz", "")[::5]:
            std = np.sqrt(np.mean(potential.assess(atoms).forces_std ** 2))
            is_above = 1000 * calibration.predict_error(std) > 300.0
            assert ("forces" in atoms.info["above_tolerance"].split()) == is_above

    def test_frames_are_in_the_set_of_their_start(self, second_loop):
        result, _ = second_loop
        sets = json.loads((result.folder / "sets.json").read_text())["sets"]
        for atoms in load_frames(result.folder / "iterations" / "01" / "structures.extxyz", ""):
            start = str(atoms.info.get("started_from", ""))
            if start in sets:
                assert sets[start] == sets[str(atoms.info["config_id"])]

    def test_groups_of_the_dataset_are_not_those_of_the_loop(self, second_loop):
        result, _ = second_loop
        with Dataset(result.folder / "dataset.h5") as data:
            is_new = np.array(["iteration" in info for info in data.info_records])
            families = np.array([str(info.get("family", k)) for k, info in enumerate(data.info_records)])
        assert is_new.any()
        assert not set(families[is_new]) & set(families[~is_new])

    def test_loop_resumes_without_repeating_the_exploration(self, second_loop, tmp_path):
        result, _ = second_loop
        shutil.copytree(result.folder, tmp_path / "run")
        messages, source = [], result.folder.parent / "s.yaml"
        assert learn(source, out=tmp_path / "run", notify=messages.append).stop_reason == result.stop_reason
        assert not any("initial" in message for message in messages)

    @pytest.mark.slow
    def test_cut_out_cells_are_labelled_but_have_no_predicted_errors(self, finished_loop, tmp_path):
        large = bulk("W", cubic=True).repeat(6)
        large.write(tmp_path / "large.extxyz")
        explore = {"start_structures": "large.extxyz", "trajectories": 1, "time_ps": 0.1, "temperature_k": [300, 400]}
        select = {"cut_out": {"max_atoms": 200, "radius": 4.0}, "max_selected": 2, "tolerance": {"energy": 0.01}}
        content = yaml.safe_load(study(tmp_path, explore=explore, select=select, augmentation=None).read_text())
        path = tmp_path / "s.yaml"
        path.write_text(yaml.safe_dump({**content, "dataset": str(finished_loop.folder / "dataset.h5")}))
        result = learn(path, out=tmp_path / "run")
        cells = load_frames(result.folder / "iterations" / "02" / "structures.extxyz", "")
        assert cells
        assert all(len(cell) < 432 and cell.info["cut_out"].endswith("of 432") for cell in cells)
        batch = pd.read_csv(result.folder / "iterations" / "02" / "batch_errors.csv")
        assert batch["n_atoms"].tolist() == [len(cell) for cell in cells]
        assert batch["energy_expected"].isna().all()
        assert batch["energy_committee_error"].notna().all()

    def test_other_elements_and_missing_potentials_are_reported(self, finished_loop, tmp_path):
        with pytest.raises(InputError, match="'learning.initial_potential': no file at .*none"):
            learn(study(tmp_path, initial_potential=str(tmp_path / "none")), out=tmp_path / "run")
        path = study(tmp_path, initial_potential=str(finished_loop.potential), structures=["al.xyz"])
        with pytest.raises(InputError, match="'learning.initial_potential' supports only W; the structures contain Al"):
            learn(path, out=tmp_path / "run")
