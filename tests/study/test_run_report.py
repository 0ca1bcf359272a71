"""Reports rebuilt from a finished run, exported potentials against LAMMPS, MD speed, and what models ignore."""

import json
import shutil
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from conftest import first_configurations
from helpers.command_line import call
from helpers.pictures import rendered_pictures
from helpers.studies import SMALL, study_file

from paretofit import Dataset, DesignMatrix, InputError, SnapBasis, compute_design, fit_wls, run_study
from paretofit.commands import export_potential
from paretofit.core import RowKind, lammps_calculator
from paretofit.dataset import write_dataset
from paretofit.potentials import CommitteeSettings, LinearPotential, write_snap
from paretofit.study import rebuild_report
from paretofit.study.analysis import select_paper_weights
from paretofit.validation import measure_md_speed

TIMED = {"repetitions": 2, "sampling_methods": ["random"], "cost": {"measure_md": True}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("timed")
    return run_study(study_file(folder, **TIMED), out=folder / "run")


@pytest.fixture(scope="module")
def design(tmp_path_factory):
    with Dataset(first_configurations()) as data:
        sample = data.select(np.arange(40))
        result = compute_design(sample, SnapBasis(elements=["Be"], twojmax=6), tmp_path_factory.mktemp("d") / "d.h5")
        return result.with_labels(sample, ["4", "5"]), list(sample)


@pytest.mark.slow
def test_a_fit_of_a_run_is_exported_with_a_committee(finished, tmp_path):
    """Around the fit of the table, drawn from its subset, calibrated on the run's test set."""
    plain = export_potential(finished.folder, tmp_path / "plain", twojmax=2)
    result = export_potential(finished.folder, tmp_path / "p", twojmax=2, committee=CommitteeSettings(6))
    again = LinearPotential.read(tmp_path / "p")
    assert again.mean_coefficients == pytest.approx(plain.potential.coefficients, rel=1e-9, abs=1e-12)
    split = pd.read_csv(finished.folder / "split.csv")
    assert again.uncertainty.calibration_data[RowKind.ENERGY].n_groups == (split["set"] == "test").sum()
    assert "committee of 6 by bootstrap" in result.text


def test_structures_to_look_at_have_the_residuals_of_the_run(finished):
    """The errors of test configurations are those of the table, and the page is linked where the viewer is there."""
    residuals = pd.read_csv(finished.folder / "test_residuals.csv")
    row = finished.results.query("level == '5' and twojmax == 4 and n_train == n_train.max() and w_energy == 1").iloc[0]
    assert np.sqrt(np.mean(residuals["energy"] ** 2)) == pytest.approx(row["test_energy"], rel=1e-5)
    split = pd.read_csv(finished.folder / "split.csv")
    assert set(residuals["id"]) == set(split.loc[split["set"] == "test", "id"])
    has_viewer = find_spec("chemiscope") is not None
    assert (finished.folder / "structures.html").exists() == has_viewer
    assert ('href="structures.html"' in (finished.folder / "report.html").read_text()) == has_viewer


class TestRebuilding:
    def test_it_writes_the_same_report_without_fitting(self, finished, tmp_path):
        folder = tmp_path / "run"
        shutil.copytree(finished.folder, folder)
        remaining = {path: path.read_bytes() for path in (folder / "tables").glob("*")}
        front, page = (folder / "front.csv").read_bytes(), (folder / "report.html").read_text()
        for path in [*(folder / "tables").glob("*"), folder / "front.csv", folder / "report.html"]:
            path.unlink()
        for journal in folder.glob("sweep-*.jsonl"):
            journal.unlink()
        rebuild_report(folder)
        assert (folder / "front.csv").read_bytes() == front
        assert {path: path.read_bytes() for path in (folder / "tables").glob("*")} == remaining
        # the commands on the page name the run folder
        assert (folder / "report.html").read_text() == page.replace(str(finished.folder), str(folder))

    @pytest.mark.slow
    def test_the_command_line(self, finished):
        done = call("report", finished.folder)
        assert done.returncode == 0, done.stderr
        assert str(finished.folder / "report.html") in done.stdout

    @pytest.mark.parametrize(
        ("missing", "message"),
        [
            ("run.json", "is not a run folder"),
            ("results.csv", "the stage 'sweep' is missing .no results.csv."),
            ("split.csv", "the stage 'reduce' is missing .no split.csv."),
            ("md_speed.csv", "md_speed.csv of the stage 'analyse' is missing"),
            ("design.h5", "design.h5 of the stage 'describe' is missing"),
        ],
    )
    def test_an_unfinished_run_says_which_stage_is_missing(self, finished, tmp_path, missing, message):
        folder = tmp_path / "run"
        shutil.copytree(finished.folder, folder)
        (folder / missing).unlink()
        with pytest.raises(InputError, match=message):
            rebuild_report(folder)
        assert not (folder / missing).exists()

    @pytest.mark.parametrize("cut", [40, 2000, -7])
    def test_a_damaged_table_is_named(self, finished, tmp_path, cut):
        folder = tmp_path / "run"
        shutil.copytree(finished.folder, folder)
        text = (folder / "results.csv").read_text()
        (folder / "results.csv").write_text(text[:cut])
        with pytest.raises(InputError, match=r"results.csv is corrupt: .*run the same command again"):
            rebuild_report(folder)

    @pytest.mark.parametrize("change", [{"sampling": "samplings"}, {"ref_force": "force"}, "x"])
    def test_a_table_of_a_run_without_digests_has_its_columns_and_numbers(self, finished, tmp_path, change):
        folder = tmp_path / "run"
        shutil.copytree(finished.folder, folder)
        record = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps({k: v for k, v in record.items() if k not in {"sha256", "digest"}}))
        table = pd.read_csv(folder / "results.csv", dtype={"level": str})
        if isinstance(change, str):
            table["test_force"] = table["test_force"].astype(str) + change
        else:
            table = table.rename(columns=change)
        table.to_csv(folder / "results.csv", index=False)
        with pytest.raises(InputError, match=r"results.csv is corrupt"):
            rebuild_report(folder)

    def test_a_run_that_was_stopped_before_its_report(self, finished, tmp_path):
        folder = tmp_path / "run"
        shutil.copytree(finished.folder, folder)
        (folder / "run.json").write_text(json.dumps({"study": "study"}))
        with pytest.raises(InputError, match="the stage 'report' is missing"):
            rebuild_report(folder)

    @pytest.mark.slow
    def test_a_validation_in_the_run_folder_is_a_section_of_the_report(self, finished, tmp_path):
        folder = tmp_path / "run"
        shutil.copytree(finished.folder, folder)
        (folder / "validation" / "figures").mkdir(parents=True)
        (folder / "validation" / "validation.csv").write_text("property,structure,quantity,unit\neos,hcp,B,GPa\n")
        (folder / "validation" / "figures" / "eos.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
        rebuild_report(folder)
        page = (folder / "report.html").read_text()
        assert "Physical properties" in page
        assert 'id="validation_eos"' in page

    def test_the_page_has_every_table_and_figure(self, finished, tmp_path):
        folder = tmp_path / "run"
        shutil.copytree(finished.folder, folder)
        with rendered_pictures():
            rebuild_report(folder, all_figures=True)
        page = (folder / "report.html").read_text()
        for name in (
            "level_energies",
            "level_forces",
            "level_distributions",
            "label_noise_energy",
            "training_tradeoff",
        ):
            assert f'id="{name}"' in page, name
            assert (folder / "figures" / f"{name}.png").stat().st_size > 5000
        for text in ("DFT errors of the levels", "Best level by budget"):
            assert text in page


class TestPotentials:
    @pytest.mark.parametrize("twojmax", [2, 4, 6])
    @pytest.mark.parametrize("quadratic", [True, False])
    def test_exported_files_give_the_models_energies_and_forces_in_lammps(self, tmp_path, twojmax, quadratic):
        basis = SnapBasis(elements=["Be"], twojmax=6, quadratic=quadratic)
        with Dataset(first_configurations()) as data:
            sample = data.select(np.arange(12))
            result = compute_design(sample, basis, tmp_path / "d.h5").with_labels(sample, ["5"])
            structures = list(sample)
        p = result.count_columns_up_to(twojmax)
        X = result.read_all_rows()[:, :p]
        fit = fit_wls(X, result.targets["5"], result.kind, energy_weight=12.25, force_weight=1)
        files = write_snap(tmp_path, "be", basis, fit.coefficients)
        self.check(files, structures, result, X @ fit.coefficients)

    @pytest.mark.parametrize(("chemflag", "quadratic"), [(False, True), (True, False), (True, True)])
    def test_two_elements(self, tmp_path, chemflag, quadratic):
        rng = np.random.default_rng(0)
        with Dataset(first_configurations()) as data:
            structures = list(data.select(np.arange(20)))
        for atoms in structures:
            atoms.numbers = np.where(rng.random(len(atoms)) < 0.5, 4, 74)
        write_dataset(tmp_path / "two.h5", structures, {})
        basis = SnapBasis(elements=["Be", "W"], twojmax=2 if chemflag else 4, radelem=[0.4, 0.5], wj=[1.0, 0.7],
                          chemflag=chemflag, quadratic=quadratic)  # fmt: skip
        with Dataset(tmp_path / "two.h5") as data:
            result = compute_design(data, basis, tmp_path / "d.h5")
        coefficients = rng.normal(size=basis.n_features) / (1 + np.arange(basis.n_features))
        files = write_snap(tmp_path, "two", basis, coefficients)
        self.check(files, structures, result, result.read_all_rows() @ coefficients)

    @staticmethod
    def check(files, structures, result, predicted):
        calculator = lammps_calculator(files.commands, files.elements)
        for k, atoms in enumerate(structures):
            if not atoms.pbc.all():
                continue
            atoms.calc = calculator
            selected = np.flatnonzero(result.configuration == k)
            energy, forces = predicted[selected[0]], predicted[selected[1:]].reshape(-1, 3)
            assert result.kind[selected[0]] == RowKind.ENERGY
            scale = max(1.0, float(np.abs(forces).max()))
            assert atoms.get_potential_energy() / len(atoms) == pytest.approx(energy, abs=1e-9 * scale)
            assert atoms.get_forces() == pytest.approx(forces, abs=1e-8 * scale)

    def test_what_cannot_be_written(self, tmp_path):
        basis = SnapBasis(elements=["Be"], twojmax=4)
        with pytest.raises(InputError, match="no 2Jmax of the basis has 7 coefficients"):
            write_snap(tmp_path, "x", basis, np.zeros(7))
        with pytest.raises(InputError, match="not finite"):
            write_snap(tmp_path, "x", basis, np.full(basis.n_features, np.nan))


class TestMdSpeed:
    @pytest.mark.slow
    def test_a_richer_model_is_slower_and_a_run_records_it_once(self, finished):
        table = pd.read_csv(finished.folder / "md_speed.csv").set_index("twojmax")["md_us_per_atom_step"]
        assert 0 < table[2] < table[4]
        results = pd.read_csv(finished.folder / "results.csv")
        assert results.groupby("twojmax")["md_us_per_atom_step"].first().to_dict() == pytest.approx(table.to_dict())
        again = run_study(study_file(finished.folder.parent, **TIMED), out=finished.folder)
        assert pd.read_csv(again.folder / "md_speed.csv").set_index("twojmax")["md_us_per_atom_step"].equals(table)
        assert "overall_with_md" in again.front

    def test_what_cannot_be_timed(self, tmp_path, design):
        basis = SnapBasis(elements=["Be"], twojmax=2)
        files = write_snap(tmp_path, "be", basis, np.ones(basis.n_features))
        atoms = design[1][0].copy()
        atoms.pbc = (True, True, False)
        with pytest.raises(InputError, match="periodic in three directions"):
            measure_md_speed(files.commands, files.elements, atoms)
        atoms.pbc = True
        atoms.numbers[:] = 74
        with pytest.raises(InputError, match="the cell contains W; the potential supports only"):
            measure_md_speed(files.commands, files.elements, atoms)


def test_residuals_against_label_errors_are_those_of_a_plain_fit(finished):
    """Against a fit of the training rows by `fit_wls`, level by level."""
    table = pd.read_csv(finished.folder / "label_noise.csv", dtype={"level": str})
    split = pd.read_csv(finished.folder / "split.csv")
    design = DesignMatrix.open(finished.folder / "design.h5")
    with Dataset(finished.folder / "dataset.h5") as data:
        result = design.with_labels(data, ["2", "4", "5"])
    train = (split["set"] == "train").to_numpy()[result.configuration]
    p = result.count_columns_up_to(int(table["twojmax"].iloc[0]))
    X, kind = result.read_all_rows()[:, :p], result.kind
    assert len(table) == 2 * 2 * 2
    for _, row in table.iterrows():
        y = result.targets[row["level"]]
        fit = fit_wls(X[train], y[train], kind[train], energy_weight=row["weight_ratio"], force_weight=1.0)
        selected = ~train & (kind == (RowKind.ENERGY if row["kind"] == "energy" else RowKind.FORCE))
        residual, error = (y - X @ fit.coefficients)[selected], (y - result.targets["5"])[selected]
        assert row["correlation"] == pytest.approx(np.corrcoef(error, residual)[0, 1], abs=1e-6)
        assert row["slope"] == pytest.approx(np.polyfit(error, residual, 1)[0], rel=1e-5)
        assert row["label_error"] == pytest.approx(1e3 * error.std(), rel=1e-8)
        assert row["n"] == selected.sum()
        assert row["configurations"] == len(set(result.configuration[selected]))


def test_the_two_weightings():
    assert select_paper_weights([(w, 1.0) for w in (1, 3, 5, 12.25, 50, 150)]) == [(12.25, 1.0), (150, 1.0)]
    assert select_paper_weights([(1.0, 1.0), (2.0, 1.0)]) == [(1.0, 1.0), (2.0, 1.0)]
    assert select_paper_weights([(3.0, 1.0)]) == [(3.0, 1.0)]
    assert SMALL["cost"] == {"measure_md": False}
