"""MACE committees: what runs without the extra, and, with it, tiny networks trained for real."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pandas as pd
import pytest
import yaml
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from helpers.forked_trainings import forked_trainings
from typer.testing import CliRunner

from paretofit import InputError, learn, run_study
from paretofit.cli import app
from paretofit.commands import explore_dynamics
from paretofit.core import RowKind
from paretofit.execution import RunContext
from paretofit.learning import MaceModel
from paretofit.learning.explore import create_dynamics
from paretofit.learning.learn_settings import ExploreSettings
from paretofit.learning.md_run import MdRun
from paretofit.potentials import LabelledStructures, MacePotential, StructureLabels, read_potential
from paretofit.potentials.mace import PRESETS, MaceData, MaceSettings, check_mace, train_mace_committee
from paretofit.potentials.mace import training_member as member_module
from paretofit.potentials.mace.training import train_members
from paretofit.potentials.mace.training_files import VOIGT_TO_TENSOR, build_mace_frame, estimate_atomic_energies
from paretofit.potentials.mace.training_member import MemberTraining
from paretofit.report.figures import assess_networks
from paretofit.study import networks as networks_module
from paretofit.uncertainty import hash_structure

MISSING = importlib.util.find_spec("mace") is None
needs_mace = pytest.mark.skipif(MISSING, reason="the extra 'mace' is not installed: pip install 'paretofit[mace]'")
TINY = {"name": "mace", "channels": 2, "max_l": 0, "max_ell": 1, "correlation": 1, "layers": 1, "r_max": 4.0,
        "epochs": 2, "patience": 5, "batch_size": 4, "dtype": "float32", "members": 2}  # fmt: skip


def tiny(**changes):
    return MaceSettings(**{**TINY, **changes})


def labelled(n, seed, symbols="Cu", stress=True):
    """Rattled fcc cells with labels of EMT."""
    rng = np.random.default_rng(seed)
    structures, labels = [], []
    for k in range(n):
        atoms = bulk(symbols if isinstance(symbols, str) else symbols[k % len(symbols)], "fcc", a=3.7).repeat((2, 1, 1))
        atoms.set_cell(atoms.cell[:] * rng.uniform(0.96, 1.04), scale_atoms=True)
        atoms.rattle(0.1, rng=rng)
        if not isinstance(symbols, str):
            atoms.symbols[0] = symbols[0]
        atoms.calc = EMT()
        values = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress() if stress else np.full(6, np.nan)
        atoms.calc = None
        structures.append(atoms)
        labels.append(StructureLabels(*values))
    return LabelledStructures(structures, labels)


def of(structures, energies):
    return LabelledStructures(structures, [StructureLabels(e, np.zeros((len(a), 3)), np.full(6, np.nan)) for a, e in
                                 zip(structures, energies, strict=True)])  # fmt: skip


@pytest.fixture(scope="module")
def forks():
    with forked_trainings():
        yield


@pytest.fixture(scope="module")
def committee(tmp_path_factory, forks):
    """Two tiny networks, trained once."""
    folder = tmp_path_factory.mktemp("mace")
    data = MaceData(labelled(12, 0), labelled(4, 1))
    return train_mace_committee(
        tiny(epochs=4), data, folder, calibration_set=labelled(12, 2), seed=3, context=RunContext(jobs=2)
    )


class TestSettings:
    def test_published_defaults(self):
        settings = MaceSettings()
        assert (settings.r_max, settings.layers, settings.batch_size, settings.epochs) == (4.5, 2, 1, 500)
        assert (settings.channels, settings.max_l, settings.correlation) == (128, 1, 3)  # MACE's own

    @pytest.mark.parametrize("preset", PRESETS)
    def test_presets_fill_what_is_not_given(self, preset):
        settings = MaceSettings(preset=preset, channels=7)
        assert settings.channels == 7
        assert all(getattr(settings, key) == value for key, value in PRESETS[preset].items() if key != "channels")
        assert settings.description.startswith("MACE like")
        assert MaceSettings(preset=preset, members=3).description.startswith(f"MACE {preset}:")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"foundation": {"file": "a.model", "mode": "multihead"}}, "requires 'replay'"),
            ({"foundation": {"file": "a.model", "replay": "b.xyz"}}, "only used with 'mode: multihead'"),
            ({"epochs": 10, "stage_two": {"start": 10}}, "must be smaller than 'epochs'"),
            ({"options": {"lr": 0.1}}, "use the key 'learning_rate'"),
            ({"options": {"seed": 1}}, "remove it"),
            ({"preset": "huge"}, "'published', 'medium', 'small' or 'tiny'"),
            ({"members": 1}, "greater than or equal to 2"),
        ],
    )
    def test_what_cannot_be_is_said(self, changes, message):
        with pytest.raises(ValueError, match=message.replace("(", r"\(")):
            MaceSettings(**changes)


class TestFiles:
    def test_stress_is_a_tensor_row_by_row(self):
        voigt = np.arange(6.0)
        tensor = voigt[VOIGT_TO_TENSOR].reshape(3, 3)
        assert np.array_equal(tensor, tensor.T)
        assert [tensor[0, 0], tensor[1, 1], tensor[2, 2], tensor[1, 2], tensor[0, 2], tensor[0, 1]] == voigt.tolist()

    def test_what_is_written_is_what_mace_reads(self, tmp_path):
        data = MaceData(labelled(3, 0), labelled(2, 1), np.array([[1, 1], [0.25, 0.5], [1, 1]]))
        train, validate = data.write(tmp_path, 4.0)
        frames = ase.io.read(train, index=":")
        assert [item.info["config_energy_weight"] for item in frames] == [1, 0.25, 1]
        assert [item.info["config_stress_weight"] for item in frames] == [1, 0.5, 1]
        for frame, label in zip(frames, data.training_set.labels, strict=True):
            assert frame.info["REF_energy"] == pytest.approx(label.energy, abs=1e-7)
            assert np.allclose(frame.arrays["REF_forces"], label.forces, atol=1e-7)
            assert np.allclose(np.ravel(frame.info["REF_stress"]), label.stress[VOIGT_TO_TENSOR], atol=1e-7)
        assert len(ase.io.read(validate, index=":")) == 2

    def test_nothing_of_the_info_goes_to_mace(self):
        atoms = bulk("Cu")
        atoms.info = {"charge": 3, "config_type": "IsolatedAtom"}
        assert "charge" not in build_mace_frame(atoms, StructureLabels(1.0, np.zeros((1, 3)), np.full(6, np.nan))).info

    def test_isolated_atoms_give_their_energy_and_stay_out(self, tmp_path):
        rattled = labelled(3, 0)
        whole = LabelledStructures(
            [Atoms("Cu"), *rattled.structures],
            [StructureLabels(-1.5, np.zeros((1, 3)), np.full(6, np.nan)), *rattled.labels],
        )
        data = MaceData(whole, rattled)
        assert estimate_atomic_energies(tiny(), data) == {"Cu": -1.5}
        assert estimate_atomic_energies(tiny(isolated_atoms={"Cu": -2.0}), data) == {"Cu": -2.0}
        assert len(ase.io.read(data.write(tmp_path, 4.0)[0], index=":")) == 3

    @pytest.mark.parametrize(
        ("cell", "pbc", "config_type", "is_isolated"),
        [
            ([15] * 3, True, "IsolatedAtom", True),
            ([3.0] * 3, True, "isolated_atom", True),
            ([15, 16, 17], True, "", True),
            ([5.0] * 3, True, "", True),
            ([3.9] * 3, True, "", False),
            ([3.0, 3.0, 20], [True, True, False], "", False),
            ([20, 20, 3.0], [True, True, False], "", True),
            ([0, 0, 0], False, "", True),
            ([[30, 0, 0], [29, 3, 0], [0, 0, 30]], True, "", False),
        ],
    )
    def test_isolated_atoms_in_boxes_give_their_energy_and_stay_out(
        self, cell, pbc, config_type, is_isolated, tmp_path
    ):
        rattled, atom = labelled(3, 0), Atoms("Cu", cell=cell, pbc=pbc, info={"config_type": config_type})
        labels = [StructureLabels(-1.5, np.zeros((1, 3)), np.full(6, np.nan)), *rattled.labels]
        data = MaceData(LabelledStructures([atom, *rattled.structures], labels), rattled)
        assert (estimate_atomic_energies(tiny(), data)["Cu"] == -1.5) == is_isolated
        assert len(ase.io.read(data.write(tmp_path, 4.0)[0], index=":")) == 4 - is_isolated

    def test_the_largest_box_gives_the_energy_of_an_atom(self):
        boxes = [Atoms("Cu", cell=[length] * 3, pbc=True) for length in (20, 6, 12)]
        data = MaceData(of([*boxes, bulk("Cu")], [-1.0, -2.0, -3.0, -4.0]), of([bulk("Cu")], [-4.0]))
        assert estimate_atomic_energies(tiny(), data)["Cu"] == -1.0

    def test_regression_of_energies_on_composition(self):
        cells = [bulk("NaCl", "rocksalt", a=5.6), bulk("Na", cubic=True), bulk("Cl", "fcc", a=4.0)]
        energies = [-3.0 - 5.0, 2 * -3.0, -5.0]
        energies_by_element = estimate_atomic_energies(tiny(), MaceData(of(cells, energies), of(cells, energies)))
        assert energies_by_element == pytest.approx({"Na": -3.0, "Cl": -5.0})
        energies_by_element = estimate_atomic_energies(
            tiny(isolated_atoms={"Cl": -4.0}), MaceData(of(cells, energies), of(cells, energies))
        )
        assert energies_by_element["Cl"] == -4.0
        assert energies_by_element["Na"] == pytest.approx((1.0 * -3.0 + 0.5 * (-4.0 + 0.5 * 4.0)) / (1.0 + 0.25))

    def test_something_must_be_there(self):
        with pytest.raises(InputError, match="at least two atoms to validate a network"):
            MaceData(
                labelled(2, 0),
                LabelledStructures([Atoms("Cu")], [StructureLabels(0.0, np.zeros((1, 3)), np.full(6, np.nan))]),
            ).check()


class TestWithoutTheExtra:
    def test_it_says_which_extra(self, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(InputError, match=r"pip install 'paretofit\[mace\]'"):
            check_mace()

    @pytest.mark.skipif(not MISSING, reason="the extra 'mace' is installed")
    def test_the_command_line_says_so_too(self, tmp_path):
        result = CliRunner().invoke(app, ["learn", "studies/learn_mace_quick.yaml", "--out", str(tmp_path / "run")])
        assert result.exit_code != 0
        assert "paretofit[mace]" in str(result.exception or result.output)
        assert not (tmp_path / "run").exists()


class TestWatching:
    """What is made of mace_run_train's log; no network is trained."""

    @pytest.fixture
    def member(self, tmp_path):
        training = MemberTraining(tiny(epochs=50, patience=3), tmp_path / "member_0", ["1", "2"], {}, None, [])
        assert not training.check_finished()
        (training._attempt_folder / "results").mkdir(parents=True)
        return training

    @staticmethod
    def log(member, *entries):
        with (member._attempt_folder / "results" / "member_run-1_train.txt").open("a") as stream:
            for entry in entries:
                stream.write(entry if isinstance(entry, str) else json.dumps(entry) + "\n")

    @staticmethod
    def epoch(number, loss):
        return {"mode": "eval", "epoch": number, "loss": loss, "time": 0.5, "rmse_f": loss}

    def test_enough_after_patience(self, member):
        self.log(member, self.epoch(None, 9.0), *(self.epoch(k, item) for k, item in enumerate([5, 3, 4, 4])))
        assert member._read_log() == ""
        assert (member._find_best_epoch(), member._can_stop()) == (1, False)
        self.log(member, self.epoch(4, 3.5))
        member._read_log()
        assert member._can_stop()

    def test_not_finite_is_said(self, member):
        self.log(member, self.epoch(None, 9.0), {"mode": "opt", "epoch": 2, "loss": float("nan"), "time": 0.1})
        assert member._read_log() == "the loss is not finite at epoch 2"

    def test_half_a_line_waits_and_a_cut_one_is_left_out(self, member):
        whole = json.dumps(self.epoch(0, 5.0))
        self.log(member, self.epoch(None, 9.0), whole[:20])
        member._read_log()
        assert member.history == {}
        self.log(member, whole[20:] + "\n", whole[:10] + json.dumps(self.epoch(1, 4.0)) + "\n", self.epoch(2, 3.0))
        member._read_log()
        assert sorted(member.history) == [0, 2]

    def test_epochs_that_are_done_again_count_once(self, member):
        self.log(member, self.epoch(None, 9.0), *(self.epoch(k, 5 - k) for k in range(4)))
        self.log(member, self.epoch(None, 3.0), self.epoch(2, 3.5))
        member._read_log()
        assert sorted(member.history) == [0, 1, 2]
        assert member._initial_loss == 9.0

    def test_the_last_two_checkpoints_of_each_stage_stay(self, member):
        folder = member._attempt_folder / "checkpoints"
        folder.mkdir()
        for name in ("epoch-1", "epoch-9", "epoch-10", "epoch-20_swa", "epoch-21_swa", "epoch-100_swa"):
            (folder / f"member_run-1_{name}.pt").touch()
        member._prune_checkpoints()
        assert sorted(item.name.split("epoch-")[1] for item in folder.iterdir()) == [
            "10.pt", "100_swa.pt", "21_swa.pt", "9.pt"]  # fmt: skip

    def test_a_network_that_learns_nothing_is_replaced(self, member, monkeypatch):
        monkeypatch.setattr(member, "_launch", lambda more: None)
        self.log(member, self.epoch(None, 1.0), self.epoch(0, 2.0))
        member._read_log()
        member._complete()
        assert (member.attempt, member.is_done) == (1, False)
        assert "not below the initial 1" in member.replacement_reason
        member.history = {0: {"loss": 2.0}}
        member._initial_loss = 1.0
        member._complete()
        assert member.is_done
        assert member.failure.startswith("member_0: its error")


@needs_mace
class TestTrained:
    def test_members_differ_and_their_mean_is_the_potential(self, committee):
        atoms = labelled(1, 9).structures[0]
        result, members = committee.assess_and_predict(atoms)
        assert members.energy.shape == (2,)
        assert members.energy[0] != members.energy[1]
        assert result.energy == pytest.approx(members.energy.mean())
        assert np.allclose(result.forces_std, members.forces.std(axis=0))
        assert np.isfinite([result.energy_interval, *result.forces_interval.ravel(), *result.stress_interval]).all()

    def test_ase_gives_the_same(self, committee):
        atoms = labelled(1, 9).structures[0]
        expected = committee.get_member(1).predict(atoms)
        atoms.calc = committee.get_member(1).create_calculator()
        assert atoms.get_potential_energy() == pytest.approx(expected.energy[0], abs=1e-6)
        assert np.allclose(atoms.get_forces(), expected.forces[0], atol=1e-6)
        assert np.allclose(atoms.get_stress(), expected.stress[0], atol=1e-7)

    def test_forces_and_stress_are_derivatives(self, committee):
        atoms = labelled(1, 9).structures[0]
        exact = MacePotential(committee.models, committee.elements, "cpu", "float64")
        prediction, step = exact.predict(atoms), 1e-4
        for sign, store in ((1, "up"), (-1, "down")):
            moved = atoms.copy()
            moved.positions[0, 1] += sign * step
            strained = atoms.copy()
            strained.set_cell(atoms.cell[:] @ (np.eye(3) + sign * step * np.diag([1, 0, 0])), scale_atoms=True)
            setattr(self, store, (exact.predict(moved).energy, exact.predict(strained).energy))
        slopes = [(a - b) / (2 * step) for a, b in zip(self.up, self.down, strict=True)]
        assert np.allclose(-slopes[0], prediction.forces[:, 0, 1], atol=1e-6)
        assert np.allclose(slopes[1] / atoms.get_volume(), prediction.stress[:, 0], atol=1e-7)

    def test_rotations_change_nothing(self, committee):
        atoms = labelled(1, 9).structures[0]
        turned = atoms.copy()
        turned.rotate(37, (1, 2, 3), rotate_cell=True)
        first, second = committee.predict(atoms), committee.predict(turned)
        assert np.allclose(first.energy, second.energy, atol=1e-4)
        assert np.allclose(committee.compute_descriptors(atoms), committee.compute_descriptors(turned), atol=1e-4)
        assert committee.compute_grades(turned) == pytest.approx(committee.compute_grades(atoms), abs=1e-3)

    def test_what_trained_is_inside_and_what_is_far_is_not(self, committee):
        known = labelled(12, 0).structures
        assert max(committee.compute_grades(atoms).max() for atoms in known) < 1.01
        squeezed = known[0].copy()
        squeezed.set_cell(squeezed.cell[:] * 0.7, scale_atoms=True)
        assert committee.compute_grades(squeezed).max() > 2

    def test_a_molecule_has_no_stress(self, committee):
        assert np.isnan(committee.predict(Atoms("Cu2", [[0, 0, 0], [0, 0, 2.3]])).stress).all()

    def test_foreign_elements_are_named(self, committee):
        with pytest.raises(InputError, match="the potential does not contain H; available elements: Cu"):
            committee.predict(molecule("H2O"))

    def test_read_again_it_is_the_same(self, committee):
        again = read_potential(committee.models[0].parent)
        atoms = labelled(1, 9).structures[0]
        assert again.assess(atoms).energy_interval == committee.assess(atoms).energy_interval
        assert again.n_parameters == committee.n_parameters > 100
        assert again.uncertainty.fit_interval(RowKind.FORCE).compute_half_width(np.array([0.1])) > 0

    def test_what_is_missing_or_damaged_is_named(self, committee, tmp_path):
        folder = committee.models[0].parent
        for path in folder.glob("*"):
            if path.is_file():
                (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / "member_1.model").unlink()
        with pytest.raises(InputError, match=r"member_1.model, which is listed in .*, does not exist"):
            read_potential(tmp_path)
        (tmp_path / "member_1.model").write_bytes(b"no model")
        with pytest.raises(InputError, match=r"other digests than its networks.*--allow-pickle"):
            read_potential(tmp_path)
        with pytest.raises(InputError, match="cannot be loaded as a MACE model"):
            read_potential(tmp_path, allow_pickle=True).get_member(1).predict(bulk("Cu"))
        (tmp_path / "mace.json").write_text("{")
        with pytest.raises(InputError, match="not a complete MACE committee"):
            read_potential(tmp_path)

    def test_training_again_keeps_what_stands(self, committee, monkeypatch):
        monkeypatch.setattr(member_module.subprocess, "Popen", lambda *_, **__: pytest.fail("it trains again"))
        folder = committee.models[0].parent
        data = MaceData(labelled(12, 0), labelled(4, 1))
        again = train_mace_committee(
            tiny(epochs=4), data, folder, calibration_set=labelled(12, 2), seed=3, context=RunContext()
        )
        assert again.digest == committee.digest

    def test_evaluate_and_speed(self, committee, tmp_path):
        test_set = labelled(6, 5)
        frames = [build_mace_frame(a, item) for a, item in zip(test_set.structures, test_set.labels, strict=True)]
        for frame, item in zip(frames, test_set.labels, strict=True):
            frame.info = {"energy": item.energy}
            frame.arrays["forces"] = frame.arrays.pop("REF_forces")
        ase.io.write(tmp_path / "own.extxyz", frames)
        folder = committee.models[0].parent
        arguments = ["evaluate", str(folder), str(tmp_path / "own.extxyz"), "-o", str(tmp_path / "out"), "--md-speed"]
        result = CliRunner().invoke(app, [*arguments, "--jobs", "1"])
        assert result.exit_code == 0, result.output
        assert "µs per atom and step" in result.output
        table = pd.read_csv(tmp_path / "out" / "evaluation.csv")
        assert table["force_std"].gt(0).all()
        assert table["verdict"].notna().all()

    def test_dtype_of_the_mean_does_not_depend_on_threads(self, committee):
        import torch

        atoms, before = labelled(1, 9).structures[0], torch.get_num_threads()
        energies = set()
        for threads in (1, 2):
            torch.set_num_threads(threads)
            energies.add(float(committee.predict(atoms).energy[0]))
            assert torch.get_num_threads() == threads
        torch.set_num_threads(before)
        assert len(energies) == 1


@needs_mace
@pytest.mark.usefixtures("forks")
class TestTraining:
    data = MaceData(labelled(8, 0), labelled(3, 1))

    def test_early_stopping_takes_the_best_epoch(self, tmp_path):
        members = train_members(
            tiny(epochs=40, patience=1, learning_rate=0.5), self.data, tmp_path, seed=1, context=RunContext(jobs=2)
        )
        for member in members:
            assert member.record["epochs"] < 40
            assert member.record["stopped_early"]
            log = next((tmp_path / member.model.stem).glob("attempt_*/results/*.txt")).read_text().splitlines()
            losses = {e["epoch"]: e["loss"] for e in map(json.loads, log) if e["mode"] == "eval"}
            losses.pop(None)
            assert member.record["best_epoch"] == min(losses, key=losses.get)

    @pytest.mark.slow
    def test_diverging_members_are_replaced_once_and_then_fail(self, tmp_path):
        settings = tiny(learning_rate=1e18, options={"clip_grad": 1e30})
        with pytest.raises(
            InputError, match=r"the training of 2 of 2 networks failed twice: member_0: .*not finite|not below"
        ):
            train_members(settings, self.data, tmp_path, seed=1, context=RunContext(jobs=2))
        assert (tmp_path / "member_0" / "attempt_1" / "failed.txt").is_file()

    @pytest.mark.slow
    def test_one_that_diverges_is_replaced_and_said(self, tmp_path, monkeypatch):
        launch = MemberTraining._launch

        def poisoned(self, more):
            wrong = self.folder.name == "member_1" and self.attempt == 0
            self.options["lr"] = "1e30" if wrong else "0.01"
            launch(self, {**more, **({"clip_grad": "1e30"} if wrong else {})})

        monkeypatch.setattr(MemberTraining, "_launch", poisoned)
        members = train_members(tiny(), self.data, tmp_path, seed=1, context=RunContext(jobs=2))
        assert [bool(member.record["replaced"]) for member in members] == [False, True]
        assert "not finite" in members[1].record["replaced"] or "not below" in members[1].record["replaced"]
        assert members[1].record["seed"] != members[0].record["seed"]

    @pytest.mark.slow
    def test_what_mace_refuses_is_said_in_its_words(self, tmp_path):
        with pytest.raises(InputError, match="mace_run_train ended with"):
            train_members(
                tiny(options={"lr_params_factors": "nonsense"}), self.data, tmp_path, seed=1, context=RunContext(jobs=2)
            )

    @pytest.mark.slow
    def test_stage_two_is_what_is_used(self, tmp_path):
        members = train_members(
            tiny(epochs=4, stage_two={"start": 2}), self.data, tmp_path, seed=1, context=RunContext(jobs=2)
        )
        assert all(member.record["stage_two"] and member.record["best_epoch"] >= 2 for member in members)

    @pytest.mark.slow
    def test_stage_two_begins_early_and_stops_early(self, tmp_path):
        """At such learning rates nothing gets better for long."""
        stage_two = {"start": 2000, "learning_rate": 0.5}
        settings = tiny(epochs=4000, patience=2, learning_rate=0.5, stage_two=stage_two)
        (member, _) = train_members(settings, self.data, tmp_path, seed=1, context=RunContext(jobs=2))
        assert member.record["stage_two"]
        assert member.record["best_epoch"] >= 2000
        assert member.record["stopped_early"]
        assert member.record["epochs"] < 4000

    @pytest.mark.slow
    def test_killed_it_goes_on_from_its_checkpoint(self, tmp_path):
        script = (
            "from pathlib import Path\nimport sys\nsys.path.insert(0, 'potentials')\nfrom test_mace import *\n"
            f"train_members(tiny(epochs=120, patience=120), TestTraining.data, Path({str(tmp_path)!r}), seed=1, "
            "context=RunContext(jobs=2))"
        )
        process = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[1])
        folders = [tmp_path / f"member_{k}" / "attempt_0" for k in range(2)]
        while process.poll() is None and not all(_epochs(member / "results") > 4 for member in folders):
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(3)  # the members notice that it is gone
        assert not any((tmp_path / f"member_{k}.json").exists() for k in range(2))
        (folders[0] / "checkpoints" / "member_run-1_epoch-9999.pt").write_bytes(b"cut off")
        members = train_members(tiny(epochs=120, patience=120), self.data, tmp_path, seed=1, context=RunContext(jobs=2))
        for member, folder in zip(members, folders, strict=True):
            assert member.record["epochs"] == 120
            assert member.record["replaced"] == ""
            log = next((folder / "results").glob("*.txt")).read_text().splitlines()
            validated = [e["epoch"] for e in map(json.loads, log) if e["mode"] == "eval"]
            assert validated.count(None) == 2  # two processes,
            assert validated.count(0) == 1  # and the second did not begin at the beginning

    @pytest.mark.slow
    def test_warm_start_begins_where_the_last_one_ended(self, committee, tmp_path):
        settings = tiny(epochs=1, isolated_atoms=committee.record["isolated_atoms"])
        data = MaceData(labelled(12, 0), labelled(4, 1))
        cold = train_members(settings, data, tmp_path / "cold", seed=1, context=RunContext(jobs=2))
        warm = train_members(
            settings, data, tmp_path / "warm", seed=1, warm_start_models=committee.models, context=RunContext(jobs=2)
        )
        assert [member.record["warm_start"] for member in (*cold, *warm)] == [False, False, True, True]
        first = [_first_loss(tmp_path / name / "member_0" / "attempt_0") for name in ("cold", "warm")]
        last = committee.record["members"][0]["validation"]["loss"]
        assert first[1] == pytest.approx(last, rel=0.05)
        assert first[0] > 1.5 * first[1]

    @pytest.mark.parametrize("mode", ["naive", pytest.param("multihead", marks=pytest.mark.slow)])
    def test_fine_tuning_from_a_file(self, tmp_path, mode):
        """From a model of two elements, on one whose energies have another zero."""
        base = MaceData(labelled(12, 0, ["Cu", "Au"]), labelled(4, 1, ["Cu", "Au"]))
        base_committee = train_mace_committee(
            tiny(epochs=6), base, tmp_path / "base", calibration_set=labelled(3, 2), seed=1, context=RunContext(jobs=2)
        )
        replay = {}
        if mode == "multihead":
            rows = zip(base.training_set.structures, base.training_set.labels, strict=True)
            ase.io.write(tmp_path / "replay.extxyz", [build_mace_frame(*item) for item in rows])
            replay = {"replay": tmp_path / "replay.extxyz"}
        shifted = [[item._replace(energy=item.energy + 3.0 * 2) for item in part.labels] for part in
                   (labelled(8, 5), labelled(3, 6))]  # fmt: skip
        data = MaceData(
            LabelledStructures(labelled(8, 5).structures, shifted[0]),
            LabelledStructures(labelled(3, 6).structures, shifted[1]),
        )
        settings = tiny(epochs=2, foundation={"file": base_committee.models[0], "mode": mode, **replay})
        tuned = train_mace_committee(
            settings, data, tmp_path / "fine", calibration_set=data.validation_set, seed=1, context=RunContext(jobs=2)
        )
        assert tuned.record["isolated_atoms"]["Cu"] == pytest.approx(
            base_committee.record["isolated_atoms"]["Cu"] + 3.0, abs=0.5
        )
        errors = [tuned.predict(a).energy.mean() - item.energy for a, item in
                  zip(data.validation_set.structures, data.validation_set.labels, strict=True)]  # fmt: skip
        assert np.sqrt(np.mean(np.square(errors))) < 0.5
        assert tuned.predict(data.validation_set.structures[0]).energy.shape == (2,)

    def test_a_foundation_that_has_not_seen_an_element_is_named(self, committee, tmp_path):
        data = MaceData(labelled(4, 0, "Au"), labelled(3, 1, "Au"))
        settings = tiny(foundation={"file": committee.models[0]})
        with pytest.raises(InputError, match="does not contain Au; available elements: Cu"):
            train_members(settings, data, tmp_path, seed=1, context=RunContext())

    def test_options_of_mace_are_handed_on_and_checked(self):
        check_mace("cpu", {"num_radial_basis": 10, "amsgrad": True})
        with pytest.raises(
            InputError, match=r"'options.num_radial_bases' is not an option .*did you mean 'num_radial_basis'"
        ):
            check_mace("cpu", {"num_radial_bases": 1})
        with pytest.raises(InputError, match="'options.num_radial_basis': mace_run_train rejects 'ten'"):
            check_mace("cpu", {"num_radial_basis": "ten"})

    def test_cuda_where_there_is_none(self):
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
        with pytest.raises(InputError, match="'device: cuda' requires a GPU, but .*; set 'device: cpu'"):
            check_mace("cuda")

    def test_on_a_gpu(self, tmp_path):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("torch finds no CUDA device on this machine")
        settings = tiny(device="cuda", dtype="float64")
        potential = train_mace_committee(
            settings, self.data, tmp_path, calibration_set=self.data.validation_set, seed=1, context=RunContext()
        )
        atoms = self.data.validation_set.structures[0]
        cpu_prediction = MacePotential(potential.models, potential.elements, "cpu", "float64").predict(atoms)
        assert np.allclose(potential.predict(atoms).forces, cpu_prediction.forces, atol=1e-8)


def _epochs(folder):
    return sum(item.read_text().count('"mode": "eval"') for item in folder.glob("*.txt"))


def _first_loss(folder):
    entries = map(json.loads, next((folder / "results").glob("*.txt")).read_text().splitlines())
    return next(item["loss"] for item in entries if item["mode"] == "eval" and item["epoch"] is None)


ROOT = Path(__file__).parents[2]
SMALL = {key: value for key, value in TINY.items() if key != "name"}


@pytest.fixture(scope="module")
def looped(tmp_path_factory, forks):
    folder = tmp_path_factory.mktemp("loop")
    ase.io.write(folder / "W.cif", bulk("W", "bcc", a=3.165, cubic=True))
    content = {
        "name": "s",
        "labelling": {
            "engine": {
                "name": "ase",
                "calculator": "paretofit.lammps_calculator",
                "options": {
                    "commands": ["pair_style eam/alloy", "pair_coeff * * W_zhou.eam.alloy W"],
                    "elements": ["W"],
                },
            },
            "ladder": [{"name": "eam"}],
        },
        "augmentation": {"structures": ["W.cif"], "n_candidates": 30, "min_length": 2, "max_atoms": 4,
                         "isolated_atoms": False, "clusters": {"count": 0}, "slabs": {"miller_indices": []}},
        "learning": {
            "max_iterations": 2,
            "model": {**TINY, "epochs": 3},
            "explore": {"trajectories": 2, "time_ps": 0.04, "interval_ps": 0.02, "temperature_k": [100, 500],
                        "stop_grade": 1e9, "stop_temperature_ratio": 1e3},
            "select": {"max_selected": 5, "discard_above": dict.fromkeys(["energy", "forces", "stress"], 1e9),
                       "min_distance_ratio": 0.1},
        },
    }  # fmt: skip
    (folder / "s.yaml").write_text(yaml.safe_dump(content))
    return learn(folder / "s.yaml", out=folder / "run")


def content_of(beryllium, **more):
    mace_section = {"models": {"small_one": {"preset": "tiny", **SMALL}}, "sizes": [40], **more}
    return {
        "name": "s",
        "dataset": str(beryllium.path),
        "basis": {"elements": ["Be"], "rcutfac": 5.0, "quadratic": True},
        "levels": ["3", "5"],
        "twojmax": [2, 4],
        "weights": [12.25],
        "sizes": [40, "all"],
        "repetitions": 2,
        "cost": {"measure_md": True},
        "mace": mace_section,
    }


@pytest.fixture(scope="module")
def front_run(beryllium, tmp_path_factory, forks):
    folder = tmp_path_factory.mktemp("front")
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump(content_of(beryllium)))
    return run_study(path, out=folder / "run"), path


@needs_mace
class TestInTheDynamics:
    def test_frames_have_the_error_bars_of_the_networks(self, committee, tmp_path):
        bulk("Cu", "fcc", a=3.7).repeat(2).write(tmp_path / "cu.extxyz")
        settings = {"time_ps": 0.004, "interval_ps": 0.002, "equilibration_ps": 0.006, "stop_grade": 1e9}
        folder = committee.models[0].parent
        result = explore_dynamics(folder, [tmp_path / "cu.extxyz"], tmp_path / "md", settings=settings)
        assert result.n_complete == 1, result.text
        frames = ase.io.read(tmp_path / "md" / "trajectories.extxyz", ":")
        for atoms, (_, row) in zip(frames, result.frames.iterrows(), strict=True):
            assessment = committee.assess(atoms)
            assert row["energy"] == pytest.approx(assessment.energy / len(atoms), abs=1e-4)  # float32
            assert row["energy_std"] == pytest.approx(1000 * assessment.energy_std, rel=0.02)
            assert row["extrapolation_grade"] == pytest.approx(assessment.grade, rel=1e-3)


@needs_mace
@pytest.mark.slow
class TestInTheLoop:
    def test_two_iterations(self, looped):
        assert looped.stop_reason == "the maximum number of iterations"
        assert looped.iterations["iteration"].tolist() == [1, 2]
        assert np.isfinite(looped.iterations[["test_energy", "test_forces", "test_stress"]].to_numpy()).all()
        assert looped.report.stat().st_size > 10_000

    def test_the_second_goes_on_from_the_first(self, looped):
        records = [MacePotential.read(looped.folder / f"iterations/0{k}/model").record for k in (1, 2)]
        assert [records[k]["members"][0]["warm_start"] for k in (0, 1)] == [False, True]
        assert records[0]["isolated_atoms"] == records[1]["isolated_atoms"]

    def test_its_potential_is_whole_and_without_the_training(self, looped):
        potential = read_potential(looped.potential)
        assert potential.n_members == 2
        assert not (looped.potential / "training").exists()
        assert set(potential.uncertainty.calibration_data) >= {RowKind.ENERGY, RowKind.FORCE}

    @pytest.mark.parametrize("integrator", ["ase", "lammps"])
    def test_both_integrators_move_atoms_by_its_forces(self, looped, integrator):
        """At the first step the energy is that of the network; then the atoms move."""
        committee = MaceModel(tiny(), ["W"]).load(looped.potential)
        atoms = bulk("W", "bcc", a=3.165, cubic=True)
        settings = ExploreSettings(time_ps=0.01, interval_ps=0.005, trajectories=1, integrator=integrator)
        engine = committee.build_md_engine(0, looped.folder)
        dynamics = create_dynamics(MdRun(0, atoms, 300.0, 0.0, 1), engine, settings)
        dynamics.start()
        dynamics.start_sampling()
        try:
            moment = dynamics.advance(5)
        finally:
            dynamics.close()
        exact = committee.potential.get_member(0).predict(moment.atoms)
        assert moment.energy == pytest.approx(float(exact.energy[0]), abs=1e-4)
        assert np.abs(moment.atoms.get_scaled_positions() - atoms.get_scaled_positions()).max() > 1e-5


@needs_mace
class TestOnTheFront:
    def test_errors_are_those_of_the_committee_on_the_same_test_set(self, front_run, beryllium):
        result, _ = front_run
        row = pd.read_csv(result.folder / "mace.csv", dtype={"level": str}).iloc[0]
        assert (row["model"], row["level"], row["n_train"], row["members"]) == ("small_one", "5", 40, 2)
        split = pd.read_csv(result.folder / "split.csv")
        test = beryllium.select(np.flatnonzero(split["set"] == "test"))
        labels = test.labels("5")
        potential = read_potential(result.folder / row["folder"])
        predictions = [potential.predict(atoms) for atoms in test]
        energy = [
            1000 * (item.energy.mean() - e) / len(a)
            for item, e, a in zip(predictions, labels.energy, test, strict=True)
        ]
        forces = np.concatenate([item.forces.mean(axis=0) for item in predictions]) - labels.forces
        assert row["ref_energy"] == row["test_energy"] == pytest.approx(np.sqrt(np.mean(np.square(energy))), rel=1e-6)
        assert row["ref_force"] == pytest.approx(1000 * np.sqrt(np.mean(forces**2)), rel=1e-6)
        assert row["ref_energy_shifted"] == pytest.approx(np.std(energy), rel=1e-6)
        assert row["md_us_per_atom_step"] > 1

    def test_it_trains_on_the_first_draw(self, front_run, beryllium):
        """Less the share that training is watched on, and nothing of the test set; labels cost the whole draw."""
        result, _ = front_run
        row = pd.read_csv(result.folder / "mace.csv").iloc[0]
        known = read_potential(result.folder / row["folder"]).uncertainty.structure_roles
        split = pd.read_csv(result.folder / "split.csv")
        where = {hash_structure(atoms): k for k, atoms in enumerate(beryllium)}
        members = sorted(where[key] for key in known)
        assert len(members) == 40
        assert set(split["set"].to_numpy()[members]) == {"train"}
        assert sum(role == "held out" for role in known.values()) == 4
        assert row["label_seconds"] == pytest.approx(beryllium.labels("5").seconds[members].sum())
        linear = result.results.query("level == '5' and n_train == 40 and repeat == 0")["label_seconds"]
        assert np.allclose(linear, row["label_seconds"])

    def test_committees_stand_next_to_each_other(self, front_run):
        table = pd.read_csv(front_run[0].folder / "mace_calibration.csv")
        assert table["model"].unique().tolist() == ["MACE small_one", "qSNAP 2Jmax 4"]
        assert table["inside"].between(0.6, 1).all()
        text = (front_run[0].folder / "report.html").read_text()
        assert "Are networks better than linear models, and at what cost?" in text
        assert "Comparison of committees" in text
        assert (front_run[0].folder / "figures" / "networks.png").exists()

    @pytest.mark.slow
    def test_what_is_trained_is_kept_and_only_what_is_new_is_trained(self, front_run, beryllium, monkeypatch):
        result, path = front_run
        trained = []
        original = networks_module.train_mace_committee
        monkeypatch.setattr(networks_module, "train_mace_committee",
                            lambda *args, **more: trained.append(more["level"]) or original(*args, **more))  # fmt: skip
        before = (result.folder / "mace.csv").read_bytes()
        run_study(path, out=result.folder)
        assert (trained, (result.folder / "mace.csv").read_bytes()) == ([], before)
        path.write_text(yaml.safe_dump(content_of(beryllium, levels=["3", "5"])))
        run_study(path, out=result.folder, jobs=2)
        assert trained == ["3"]
        table = pd.read_csv(result.folder / "mace.csv")
        assert table["level"].tolist() == [3, 5]
        path.write_text(yaml.safe_dump({k: v for k, v in content_of(beryllium).items() if k != "mace"}))
        run_study(path, out=result.folder)
        assert not (result.folder / "mace.csv").exists()


class TestAskedWrongly:
    """Before anything is spent."""

    @pytest.mark.parametrize(
        ("mace_section", "message"),
        [
            ({"models": ["huge"]}, "'mace.models.huge.preset': must be 'published', 'medium', 'small' or 'tiny'"),
            ({"models": [{"preset": "tiny"}]}, "a list must contain names of presets"),
            ({"models": {"a": {"chanels": 3}}}, "did you mean 'channels'"),
            ({"levels": ["7"]}, "'mace.levels' contains '7', which is not a level of this study"),
            ({"sizes": [41]}, "'mace.sizes' contains 41, which is not one of 'sizes'"),
            (
                {"models": {"a": {"foundation": {"file": "no.model"}}}},
                "'mace.models.a.foundation.file': no file",
            ),
        ],
    )
    def test_it_is_said_in_a_sentence(self, beryllium, tmp_path, monkeypatch, mace_section, message):
        monkeypatch.setattr(networks_module, "check_mace", lambda *_: None)
        path = tmp_path / "s.yaml"
        path.write_text(yaml.safe_dump(content_of(beryllium, **mace_section)))
        with pytest.raises(InputError, match=message.replace("(", r"\(")):
            run_study(path, out=tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_the_words_of_the_figure(self):
        linear = pd.DataFrame({"model_type": "linear", "model": "2Jmax 6", "level": "5", "n_train": 100,
                               "ref_force": [100.0, 200.0], "ref_energy": [10.0, 30.0],
                               "md_us_per_atom_step": [50.0, 10.0], "label_seconds": [1000.0, 1000.0]})  # fmt: skip
        network = linear.iloc[:1].assign(model_type="MACE", model="small", ref_force=60.0, ref_energy=12.0,
                                         md_us_per_atom_step=200.0, label_seconds=400.0, n_train=40)  # fmt: skip
        words = assess_networks(pd.concat([linear, network])).answer
        assert "60 meV/Å (small, level 5, 40 configurations), lower than that of the linear models" in words
        assert "12 meV/atom (small, level 5, 40 configurations), higher than that of the linear models" in words
        assert "at 4 times the MD cost of the linear model" in words
        assert "is reached by small with labels of 6.67 min (level 5, 40 configurations)" in words
        assert "1 of 1 network and 2 of 2 linear models are on the front" in words
        assert assess_networks(linear) is None
