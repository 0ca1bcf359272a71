"""Potentials with error bars: fit, file, calculator, evaluation and extrapolation."""

import ase.io
import h5py
import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from conftest import ROOT, first_configurations
from helpers.pictures import rendered_pictures
from typer.testing import CliRunner

from paretofit import Dataset, InputError, SnapBasis, fit_wls
from paretofit.cli import app
from paretofit.commands import evaluate_dataset, fit_dataset
from paretofit.core import RowKind, get_shared_lammps
from paretofit.dataset import LevelData, write_dataset
from paretofit.dataset.io import read_labels
from paretofit.descriptors import DesignMatrix, compute_atom_rows
from paretofit.descriptors.atoms import compute_energy_row
from paretofit.potentials import CommitteeSettings, LinearPotential
from paretofit.uncertainty import HELD_OUT, TRAIN, calibrate_conformal, hash_structure
from paretofit.uncertainty.calibration import compute_committee_error, compute_disagreement

FAR = ROOT / "data" / "beryllium_far.h5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("uncertainty")


@pytest.fixture(scope="module")
def fitted(folder):
    return fit_dataset(
        first_configurations(),
        folder / "p",
        level="5",
        twojmax=4,
        weight_ratio=12.25,
        committee=CommitteeSettings(8),
        keep_design=True,
    )


@pytest.fixture(scope="module")
def potential(fitted, folder):
    return LinearPotential.read(folder / "p")


@pytest.fixture(scope="module")
def far(potential, folder):
    with rendered_pictures():
        return evaluate_dataset(potential, FAR, folder / "far", tolerances={"energy": 20.0, "force": 200.0})


@pytest.fixture(scope="module")
def near(potential):
    """An evaluation of the structures of the fit."""
    return evaluate_dataset(potential, first_configurations())


def positions_of_role(potential, role):
    """Return the positions in the dataset of the structures with a role, training or held out."""
    with Dataset(first_configurations()) as data:
        return [
            k
            for k, atoms in enumerate(data)
            if potential.uncertainty.structure_roles.get(hash_structure(atoms)) == role
        ]


class TestFit:
    def test_the_mean_equals_the_plain_fit_of_the_training_set(self, fitted, potential, folder):
        with Dataset(first_configurations()) as data:
            design = DesignMatrix.open(folder / "p" / "design.h5").with_labels(data, ["5"])
        training_rows = np.isin(design.configuration, positions_of_role(potential, TRAIN))
        plain = fit_wls(
            design.read_all_rows()[training_rows],
            design.targets["5"][training_rows],
            design.kind[training_rows],
            energy_weight=12.25,
            force_weight=1.0,
        )
        assert potential.mean_coefficients == pytest.approx(plain.coefficients, rel=1e-7, abs=1e-9)
        assert len(positions_of_role(potential, TRAIN)) == fitted.n_train
        assert len(positions_of_role(potential, HELD_OUT)) == fitted.n_held_out
        assert fitted.errors["train energy"] == pytest.approx(1000 * plain.rmse["energy"], rel=1e-7)

    @pytest.mark.slow
    def test_a_fit_without_a_committee_uses_and_remembers_all_configurations(self, folder):
        alone = fit_dataset(first_configurations(), folder / "alone", level="5", twojmax=4)
        assert (alone.n_train, alone.n_held_out) == (197, 0)
        assert alone.errors["leave-one-out energy"] > alone.errors["train energy"]
        assert not (folder / "alone" / "design.h5").exists()
        again = LinearPotential.read(folder / "alone")
        assert again.uncertainty is None
        assert set(again.training_record.structure_roles.values()) == {TRAIN}
        evaluation = evaluate_dataset(folder / "alone", FAR)
        assert (evaluation.table["set"] == "new").all()
        assert evaluation.level == "5"

    @pytest.mark.slow
    def test_the_weights_lower_the_product_of_the_errors(self, folder):
        options = {"level": "5", "twojmax": 2, "cutoff": 5.0, "quadratic": True}
        chosen, fixed = (
            fit_dataset(first_configurations(), folder / f"w{ratio}", weight_ratio=ratio, **options).errors
            for ratio in (None, 1.0)
        )
        products = [errors["leave-one-out energy"] * errors["leave-one-out force"] for errors in (chosen, fixed)]
        assert products[0] < products[1]

    def test_options_and_reasons(self, folder):
        fit = fit_dataset(
            first_configurations(), folder / "o", twojmax=2, cutoff=4.5, quadratic=False, weight_ratio=30.0
        )
        assert (fit.potential.basis.cutoff, fit.potential.basis.quadratic) == (4.5, False)
        assert "set by --cutoff" in fit.text
        assert "set by --weight-ratio" in fit.text

    def test_the_calibration_has_spreads_and_residuals_of_held_out_labels(self, potential):
        position = positions_of_role(potential, HELD_OUT)[3]
        with Dataset(first_configurations()) as data:
            selection = data.select(np.array([position]))
            atoms, labels = selection[0], selection.labels("5")
        members = potential.predict(atoms)
        held = potential.uncertainty.calibration_data[RowKind.FORCE]
        force_rows = held.configuration == 3
        assert held.spread[force_rows] == pytest.approx(compute_disagreement(members.forces.reshape(8, -1)), rel=1e-6)
        assert held.residual[force_rows] == pytest.approx(
            labels.forces.ravel() - members.forces.mean(axis=0).ravel(), abs=1e-9
        )
        spread, error = held.aggregate_by_configuration()
        flat = members.forces.reshape(8, -1)
        assert error[3] == pytest.approx(
            compute_committee_error(flat, labels.forces.ravel(), np.zeros(flat.shape[1]))[0]
        )
        assert spread[3] == pytest.approx(compute_disagreement(flat, np.zeros(flat.shape[1]))[0])
        energy = potential.uncertainty.calibration_data[RowKind.ENERGY]
        assert energy.spread[3] == pytest.approx(members.energy.std() / len(atoms))  # per atom, never extensive

    @pytest.mark.slow
    @pytest.mark.parametrize("method", ["subset", "posterior", "pops"])
    def test_other_committee_methods(self, folder, potential, method):
        other = fit_dataset(
            first_configurations(),
            folder / method,
            level="5",
            twojmax=4,
            cutoff=potential.basis.cutoff,
            quadratic=True,
            weight_ratio=12.25,
            committee=CommitteeSettings(6, method),
        ).potential
        assert other.mean_coefficients == pytest.approx(potential.mean_coefficients, rel=1e-7, abs=1e-9)
        assert other.uncertainty.method == method
        assert len(other.coefficients) == 6
        interval = other.uncertainty.fit_interval(RowKind.FORCE)
        held = other.uncertainty.calibration_data[RowKind.FORCE]
        covered = np.abs(held.residual) <= interval.compute_half_width(held.spread)
        assert covered.mean() == pytest.approx(0.9, abs=0.05)

    @pytest.mark.slow
    def test_a_study_sets_the_basis_weights_level_and_split(self, folder):
        study = folder / "s.yaml"
        study.write_text(
            f"dataset: {first_configurations()}\nbasis: {{elements: [Be], quadratic: false}}\ntwojmax: [2, 4]\n"
            "weights: [5, 20, 100]\nlevels: [3, 5]\nsplit: {train_fraction: 0.75, seed: 4}\n"
        )
        fit = fit_dataset(study, folder / "s")
        assert (fit.potential.basis.twojmax, fit.potential.basis.quadratic) == (4, False)
        assert 5 / 3**0.5 < float(fit.description.split("w_E/w_F ")[1].split(",")[0]) < 100 * 3**0.5 + 1
        assert fit.n_train == round(0.75 * 197)


class TestCommitteeFile:
    def test_a_file_is_read_as_it_was_written(self, fitted, potential):
        assert np.array_equal(potential.coefficients, fitted.potential.coefficients)
        atoms = bulk("Be").repeat((2, 1, 1))
        atoms.rattle(0.1, seed=1)
        first, second = fitted.potential.assess(atoms), potential.assess(atoms)
        for name in vars(first):
            assert np.array_equal(getattr(first, name), getattr(second, name)), name

    def test_a_single_potential_of_the_same_name_removes_the_committee_file(self, potential, tmp_path):
        potential.write(tmp_path)
        assert (tmp_path / "potential.committee.h5").is_file()
        potential.get_member(2).write(tmp_path)
        assert not (tmp_path / "potential.committee.h5").exists()
        assert LinearPotential.read(tmp_path).coefficients == pytest.approx(potential.coefficients[2])

    def test_members_without_calibration_are_stored(self, potential, tmp_path):
        LinearPotential(potential.basis, potential.coefficients).write(tmp_path)
        again = LinearPotential.read(tmp_path)
        assert np.array_equal(again.coefficients, potential.coefficients)
        with pytest.raises(InputError, match="no calibrated committee"):
            again.assess(bulk("Be"))

    def test_the_file_of_another_potential_is_refused(self, potential, folder, tmp_path):
        potential.write(tmp_path)
        potential.get_member(1).write(tmp_path, "other")
        (tmp_path / "other.snapcoeff").rename(tmp_path / "potential.snapcoeff")
        with pytest.raises(InputError, match=r"potential.committee.h5 does not belong to the potential"):
            LinearPotential.read(tmp_path / "potential.mod")
        with h5py.File(tmp_path / "potential.committee.h5", "a") as file:
            del file["environments"]
        with pytest.raises(InputError, match="is not a complete committee file"):
            LinearPotential.read(tmp_path / "potential.mod")
        with pytest.raises(InputError, match="unknown member 8; the committee has members 0 to 7"):
            potential.get_member(8)


class TestCalculator:
    def test_error_bars_are_properties(self, potential):
        atoms = bulk("Be").repeat((2, 2, 1))
        atoms.rattle(0.05, seed=2)
        atoms.calc = potential.create_calculator()
        members = potential.predict(atoms)
        get = atoms.calc.get_property
        assert get("energy_std", atoms) == pytest.approx(members.energy.std() / len(atoms))
        assert get("forces_std", atoms) == pytest.approx(members.forces.std(axis=0))
        assert get("stress_std", atoms) == pytest.approx(members.stress.std(axis=0))
        assert atoms.get_potential_energy() == pytest.approx(members.energy.mean())
        factor = potential.uncertainty.fit_interval(RowKind.FORCE)
        assert get("forces_interval", atoms) == pytest.approx(factor.compute_half_width(members.forces.std(axis=0)))
        assert get("extrapolation_grade", atoms) == get("extrapolation_grades", atoms).max()
        before = get("energy_std", atoms)
        atoms.positions[0] += 0.2
        assert get("energy_std", atoms) != before

    def test_only_requested_properties_are_computed(self, potential):
        atoms = bulk("Be")
        calculator = potential.create_calculator()
        calculator.calculate(atoms, ["extrapolation_grade"])
        assert set(calculator.results) == {"extrapolation_grade", "extrapolation_grades"}
        everything = potential.create_calculator(include_members=True)
        everything.calculate(atoms, ["energy"])
        assert {"energy", "forces_std", "forces_members"} <= set(everything.results)

    def test_assessments_are_invariant_under_rotation_translation_and_permutation(self, potential):
        atoms = bulk("Be").repeat((2, 1, 1))
        atoms.rattle(0.1, seed=3)
        first = potential.assess(atoms)
        turned = atoms.copy()
        turned.rotate(37, (1, 2, 3), rotate_cell=True)
        turned.translate((0.3, 1.0, -0.2))
        turned = turned[[2, 0, 3, 1]]
        second = potential.assess(turned)
        assert second.energy_std == pytest.approx(first.energy_std, rel=1e-6)
        assert second.grades == pytest.approx(first.grades[[2, 0, 3, 1]], rel=1e-5)
        assert second.leverage == pytest.approx(first.leverage, rel=1e-5)
        along = np.linalg.norm(first.forces_std[[2, 0, 3, 1]], axis=1)
        assert np.linalg.norm(second.forces_std, axis=1) == pytest.approx(along, rel=1e-5)
        larger = potential.assess(atoms.repeat((1, 2, 1)))
        assert larger.energy_std == pytest.approx(first.energy_std, rel=1e-6)  # intensive
        assert larger.grade == pytest.approx(first.grade, rel=1e-5)


class TestExtrapolation:
    @pytest.mark.slow
    def test_training_structures_interpolate_and_distant_ones_do_not(self, potential, far):
        with Dataset(first_configurations()) as data:
            inside = [potential.compute_grades(data[k]).max() for k in positions_of_role(potential, TRAIN)[::6]]
        assert max(inside) <= 1.01
        assert (far.table["verdict"] == "strong extrapolation").mean() > 0.4
        errors = far.table.groupby("verdict")["force_error"].median()
        assert errors["strong extrapolation"] > 3 * errors["interpolation"]

    def test_grades_use_the_quadratic_features_of_the_model(self, potential):
        assert potential.uncertainty.environment_grades["Be"].quadratic
        dense = bulk("Be").repeat((2, 1, 1))
        dense.set_cell(dense.cell[:] * 0.75, scale_atoms=True)
        assert potential.compute_grades(dense).min() > 2

    @pytest.mark.parametrize("quadratic", [True, False])
    def test_the_mean_of_the_atom_rows_is_the_energy_row(self, quadratic):
        basis = SnapBasis(elements=["Be", "W"], twojmax=4, quadratic=quadratic, radelem=[0.5, 0.4], wj=[1.0, 0.9])
        atoms = bulk("Be").repeat((2, 1, 1))
        atoms.rattle(0.1, seed=4)
        atoms.symbols[1] = "W"
        rows = compute_atom_rows(get_shared_lammps(), basis, atoms)
        assert rows.mean(axis=0) == pytest.approx(
            compute_energy_row(get_shared_lammps(), basis, atoms), rel=1e-12, abs=1e-14
        )

    def test_atom_leverages_equal_their_definition(self, potential):
        """Equivalent atoms have the leverage of the configuration; others have x (XᵀX)⁻¹ xᵀ of their row."""
        assert potential.compute_atom_leverages(bulk("Be")) == pytest.approx(
            [potential.assess(bulk("Be")).leverage] * 2
        )
        atoms = bulk("Be").repeat((2, 1, 1))
        atoms.rattle(0.2, seed=5)
        row = 12.25 * compute_atom_rows(get_shared_lammps(), potential.basis, atoms)[2]
        training_leverage = potential.uncertainty.leverage
        solved = np.linalg.solve(training_leverage.R.T, row[training_leverage.retained_columns])
        assert potential.compute_atom_leverages(atoms)[2] == pytest.approx(solved @ solved, rel=1e-8)

    def test_an_untrained_element_has_an_infinite_grade(self, potential):
        uncertainty = potential.uncertainty
        assert np.isinf(uncertainty.compute_grades(bulk("Al"), np.ones((1, 5)))).all()


class TestEvaluation:
    def test_the_evaluation_table_equals_single_assessments(self, potential, far):
        with Dataset(FAR) as data:
            atoms, labels = data[7], data.labels("5")
            forces = labels.forces[labels.offsets[7] : labels.offsets[8]]
        assessment, row = potential.assess(atoms), far.table.iloc[7]
        assert row["energy_error"] == pytest.approx(1000 * (assessment.energy - labels.energy[7]) / len(atoms))
        assert row["force_error"] == pytest.approx(1000 * np.sqrt(np.mean((assessment.forces - forces) ** 2)))
        assert row["force_inside"] == np.mean(np.abs(assessment.forces - forces) <= assessment.forces_interval)
        assert row["extrapolation_grade"] == assessment.grade
        assert row["force_committee_error"] ** 2 == pytest.approx(row["force_error"] ** 2 + row["force_std"] ** 2)
        assert set(far.table["set"]) == {"new"}

    def test_files_and_figures(self, far, folder):
        names = {path.name for path in (folder / "far" / "figures").iterdir()}
        for name in ("parity", "disagreement", "detection", "coverage", "error_against_grade"):
            assert {f"{name}.png", f"{name}.svg"} <= names
        table = pd.read_csv(folder / "far" / "evaluation.csv")
        assert len(table) == 65
        frames = ase.io.read(folder / "far" / "evaluation.extxyz", index=":")
        assert frames[7].arrays["extrapolation_grade"].max() == pytest.approx(table["extrapolation_grade"][7], rel=1e-6)
        rates = pd.read_csv(folder / "far" / "tables" / "detection.csv")
        error, spread = table["energy_committee_error"], table["energy_std"]
        rate = rates[rates["quantity"] == "energy"].iloc[777]
        wrong = error > rate["error_limit"]
        assert rate["true_positive_rate"] == pytest.approx((spread[wrong] > rate["spread_limit"]).mean())

    def test_tolerances_become_thresholds(self, potential, far):
        line = potential.uncertainty.fit_calibration(RowKind.ENERGY)
        row = far.thresholds.set_index("quantity").loc["energy"]
        assert row["spread_limit"] == pytest.approx(20 * line.slope)
        flagged = far.table["flagged"].str.contains("energy")
        assert flagged.sum() == row["flagged"]
        assert (far.table["energy_std"] > row["spread_limit"]).equals(flagged)
        assert row["true_positive_rate"] > 0.5

    @pytest.mark.parametrize("calibration", ["isotonic", "quantile"])
    def test_other_calibrations(self, potential, calibration):
        other = evaluate_dataset(potential, FAR, tolerances={"force": 200.0}, calibration=calibration)
        assert other.thresholds["spread_limit"][0] > 0
        assert other.thresholds["true_positive_rate"][0] > 0.5

    @pytest.mark.slow
    def test_training_structures_are_recognised_for_any_number_of_jobs(self, potential, near):
        assert near.table["set"].value_counts().to_dict() == {"train": 158, "held out": 39}
        assert near.table.index[near.table["set"] == "train"].tolist() == positions_of_role(potential, TRAIN)
        parallel_evaluation = evaluate_dataset(potential, first_configurations(), jobs=2)
        pd.testing.assert_frame_equal(near.table, parallel_evaluation.table)

    def test_structures_without_labels(self, potential, folder):
        atoms = bulk("Be").repeat((2, 1, 1))
        ase.io.write(folder / "bare.extxyz", [atoms, atoms.repeat((1, 2, 1))])
        evaluation = evaluate_dataset(potential, folder / "bare.extxyz", folder / "bare", tolerances={"force": 1.0})
        assert evaluation.level == ""
        assert evaluation.table["energy_error"].isna().all()
        assert evaluation.table["energy_std"].notna().all()
        assert "no labels" in evaluation.text
        assert not (folder / "bare" / "figures" / "parity.png").exists()

    def test_higher_coverage_widens_the_intervals(self, potential, far):
        wide = evaluate_dataset(potential, FAR, coverage=0.95)
        assert (wide.table["force_interval"] > far.table["force_interval"]).all()
        held = potential.uncertainty.calibration_data[RowKind.ENERGY]
        direct = calibrate_conformal(held.spread, held.residual, 0.95, held.group)
        assert wide.table["energy_interval"].to_numpy() == pytest.approx(
            1000 * direct.compute_half_width(wide.table["energy_std"].to_numpy() / 1000)
        )


def run_cli(*arguments):
    """Run the command line and return its exception."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments]).exception


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "DATA", "--committee", 1], "at least two members; got 1"),
        (["fit", "DATA", "--committee", 8, "--held-out-fraction", 0.02], "requires 9 held-out configurations"),
        (
            ["fit", "DATA", "--committee", 8, "--committee-method", "bagging"],
            "must be one of bootstrap, subset, posterior, pops; got 'bagging'",
        ),
        (["fit", "DATA", "--committee-method", "pops"], "--committee-method pops requires --committee with"),
        (["fit", "DATA", "--committee", 8, "--coverage", 1.5], "coverage must lie between 0 and 1; got 1.5"),
        (["fit", "DATA", "--level", "9"], "has no level '9'"),
        (["fit", "DATA", "--held-out-fraction", 1], "at least 0 and below 1; got 1"),
        (["fit"], "fit requires either a dataset or study, or --fitsnap INPUT"),
        (["fit", "DATA", "--optimise-weights", "energy"], "--optimise-weights and --weight-front require --fitsnap"),
        (["evaluate", "POT"], "evaluate requires a dataset"),
        (
            ["evaluate", "POT", "DATA", "--max-energy", -1],
            "tolerance of the energy must be positive and finite; got -1",
        ),
        (
            ["evaluate", "POT", "DATA", "--max-energy", 1, "--calibration", "spline"],
            "must be one of slope, isotonic, quantile; got 'spline'",
        ),
        (["evaluate", "POT", "DATA", "--coverage", 0.99], "requires 99 held-out configurations"),
        (["evaluate", "POT", "DATA", "--level", "9"], "has no level '9'"),
        (["export", "DATA", "-o", "x", "--committee", 4], "--committee requires a run folder"),
    ],
)
def test_invalid_input_is_refused(fitted, folder, tmp_path, arguments, message):
    paths = {"DATA": first_configurations(), "POT": folder / "p"}
    output = ["-o", tmp_path / "w"] if "x" not in arguments else []
    error = run_cli(*(paths.get(argument, argument) for argument in arguments), *output)
    assert isinstance(error, InputError)
    assert message in str(error)
    assert not (tmp_path / "w").exists()


def test_members_that_are_identical_are_refused(tmp_path):
    """Labels without residuals give identical members."""
    from paretofit.execution import RunContext
    from paretofit.potentials import LabelledStructures, build_committee
    from paretofit.uncertainty import CommitteeFit, build_part

    rows = np.random.default_rng(0).normal(size=(60, 6))
    blocks, weights = build_part(rows, np.zeros(60), np.ones(60), np.arange(60))
    fit = CommitteeFit.from_parts(blocks, np.arange(60), weights, np.random.default_rng(0))
    with pytest.raises(InputError, match="all members of the committee are identical"):
        build_committee(None, fit, CommitteeSettings(4), [], LabelledStructures([], []), context=RunContext())


class TestRegressions:
    @pytest.mark.slow
    def test_labels_without_seconds_are_fitted(self, tmp_path):
        with Dataset(first_configurations()) as data:
            write_dataset(
                tmp_path / "d.h5", list(data), {"a": LevelData(read_labels_without_seconds(data, "5"))}, data.ids
            )
        fit = fit_dataset(tmp_path / "d.h5", tmp_path / "p", twojmax=2, cutoff=5.0)
        assert fit.n_train == 197

    @pytest.mark.slow
    def test_the_calibration_counts_groups_instead_of_configurations(self, tmp_path):
        """197 configurations in 12 groups cannot calibrate 90 % intervals: two or three groups are held out."""
        with Dataset(first_configurations()) as data:
            structures = list(data)
            for k, atoms in enumerate(structures):
                atoms.info["parent"] = f"p{k % 12}"
            write_dataset(tmp_path / "d.h5", structures, {"a": LevelData(read_labels(data, "5"))}, data.ids)
        options = {"twojmax": 2, "cutoff": 5.0, "quadratic": True}
        with pytest.raises(InputError, match=r"requires 9 held-out configurations or groups .* there are 2;"):
            fit_dataset(tmp_path / "d.h5", tmp_path / "p", committee=CommitteeSettings(4), **options)
        uncertainty = fit_dataset(
            tmp_path / "d.h5",
            tmp_path / "p",
            **options,
            committee=CommitteeSettings(4, coverage=0.6),
            held_out_fraction=0.3,
        ).potential.uncertainty
        held = uncertainty.calibration_data[RowKind.ENERGY]
        assert held.n_groups < 5 < len(held.spread)
        assert uncertainty.fit_interval(RowKind.ENERGY).coverage == 0.6

    def test_training_structures_interpolate(self, near):
        assert (near.table.loc[near.table["set"] == "train", "verdict"] == "interpolation").all()
        assert "only new configurations test them" in near.text

    def test_too_few_rows_are_refused_before_descriptors_are_computed(self, tmp_path):
        with pytest.raises(
            InputError, match="rows of the training set do not determine the 4278 coefficients at 2Jmax 10"
        ):
            fit_dataset(first_configurations(), tmp_path / "p", twojmax=10, committee=CommitteeSettings(4))
        assert not (tmp_path / "p").exists()

    def test_an_unknown_element_is_named(self, potential, folder):
        ase.io.write(folder / "al.extxyz", [bulk("Be"), bulk("Al")])
        with pytest.raises(
            InputError, match=r"al.extxyz: configuration 1 contains Al, but the potential supports only Be;"
        ):
            evaluate_dataset(potential, folder / "al.extxyz")

    @pytest.mark.parametrize(
        ("name", "values", "message"),
        [
            ("leverage/R", np.eye(3), "factor for leverages has shape"),
            ("held_out/energy/residual", np.ones(2), "held-out energy values are of different lengths"),
            ("environments/Be/graded", np.ones((3, 3)), "grades of Be are of different sizes"),
            ("held_out/force/spread", np.full(5, np.nan), "numbers that are not finite"),
            ("members", np.ones((4, 121)), "all members are identical"),
            ("members", np.ones((1, 121)), "at least two members"),
        ],
    )
    def test_corrupt_files_are_refused(self, potential, tmp_path, name, values, message):
        potential.write(tmp_path)
        path = tmp_path / "potential.committee.h5"
        with h5py.File(path, "a") as file:
            del file[name]
            file[name] = values
        with pytest.raises(InputError, match=message) as raised:
            LinearPotential.read(tmp_path)
        assert str(path) in str(raised.value)
        with h5py.File(path, "a") as file:
            file.attrs["committee_version"] = 99
        with pytest.raises(
            InputError, match=r"^\S+ is a committee of version 99, but this paretofit reads version 2; fit it again$"
        ):
            LinearPotential.read(tmp_path)


def read_labels_without_seconds(data, level):
    """Return the labels of a level without their cost."""
    return [None if label is None else {**label, "seconds": None} for label in read_labels(data, level)]
