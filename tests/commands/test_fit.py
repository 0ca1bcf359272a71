"""FitSNAP inputs fitted as they are, stress rows, rotated cells, exported files, and weights of groups."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ase.io import write
from conftest import ROOT
from helpers.command_line import call
from scipy.spatial.transform import Rotation

from paretofit import Dataset, InputError, SnapBasis, compute_design
from paretofit.commands import fit_fitsnap
from paretofit.core import RowKind, get_shared_lammps, lammps_calculator
from paretofit.dataset import LevelData, write_dataset
from paretofit.descriptors import (
    ReferencePotential,
    compute_configuration_rows,
    compute_configuration_rows_with_stress,
    compute_reference_labels,
    rotate_voigt,
)
from paretofit.potentials import CommitteeSettings, LinearPotential, check_exported_files, read_snap
from paretofit.potentials.snap_format import to_lammps_coefficients

TANTALUM = Path(os.environ.get("PARETOFIT_SHARED", ROOT.parent / "shared")) / "data" / "fitsnap_ta_linear"
needs_tantalum = pytest.mark.skipif(not TANTALUM.is_dir(), reason="FitSNAP's tantalum example is not there")
ZBL = ReferencePotential("hybrid/overlay zero 10.0 zbl 4.0 4.8", ("* * zero", "* * zbl 4 4"))


@pytest.fixture(scope="module")
def tantalum(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ta")
    return fit_fitsnap(TANTALUM / "Ta-example.in", folder / "pot"), folder / "pot"


def published_metrics():
    """Lines of FitSNAP's own table: (group, weighting, kind) to count, mae, rmse, rsq as they are printed."""
    actual = {}
    for line in (TANTALUM / "Ta_metrics.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if match := re.fullmatch(r"\('(.+)', '(\w+)', '(\w+)'\)", cells[0]):
            actual[match.groups()] = cells[1:]
    return actual


@needs_tantalum
class TestTantalum:
    def test_all_coefficients_are_the_published_ones(self, tantalum):
        result, folder = tantalum
        published = [
            float(line.split("#")[0])
            for line in (TANTALUM / "Ta_pot.snapcoeff").read_text().splitlines()
            if "B[" in line
        ]
        selected = to_lammps_coefficients(result.potential.basis, result.potential.coefficients)[0]
        assert len(published) == 31
        assert selected == pytest.approx(published, rel=1e-9)
        basis, coefficients, reference = read_snap(folder / "Ta_pot.mod")
        assert basis == result.potential.basis
        assert np.array_equal(coefficients, result.potential.coefficients)
        assert reference == result.potential.reference

    def test_every_line_of_the_table_of_errors(self, tantalum):
        result, _ = tantalum
        table = result.metrics[result.metrics["set"] == "training"].set_index(["group", "weighting", "kind"])
        published = published_metrics()
        assert len(published) == len(table) == 78
        for key, (count, *values) in published.items():
            row = table.loc[key]
            assert int(count) == row["ncount"]
            for name, text in zip(("mae", "rmse", "rsq"), values, strict=True):
                shown = float(f"{row[name]:.6g}")
                # forces that are zero by symmetry differ by rounding: there the published numbers are noise
                noise = abs(row["rmse"]) < 1e-9 and name != "rsq"
                exact = shown == pytest.approx(float(text), rel=2e-6, abs=1e-9 if noise else 0.0)
                assert exact or (name == "rsq" and abs(row["rmse"]) < 1e-9), (key, name, row[name], text)

    def test_lammps_agrees_with_the_exported_files(self, tantalum):
        result, _ = tantalum
        assert result.deviation < 1e-8

    @pytest.mark.slow
    def test_optimised_weights_lower_held_out_errors(self, tantalum, tmp_path):
        result = fit_fitsnap(TANTALUM / "Ta-example.in", tmp_path, objectives=["energy", "force"])
        assert result.optimised_weights.objective[1] < result.optimised_weights.objective[0] - 0.1
        assert result.unseen_error_ratio < 1.0  # on configurations that the search never saw
        table = pd.read_csv(tmp_path / "weights.csv")
        assert set(table["kind"]) == {"energy", "force", "stress"}
        assert (table["weight"] > 0).all()

    @pytest.mark.slow
    def test_the_command_line(self, tmp_path):
        done = call("fit", "--fitsnap", TANTALUM / "Ta-example.in", "-o", tmp_path / "p", "--jobs", "1")
        assert done.returncode == 0, done.stderr
        assert re.search(r"training\s+Energy\s+363\s+0.112787 0.379769 0.994191", done.stdout)
        again = call("evaluate", tmp_path / "p", "--md-speed")
        assert again.returncode == 0, again.stderr
        assert "atoms·steps/s on one core" in again.stdout


INPUT = """\
[BISPECTRUM]
numTypes = 1
twojmax = 4
rcutfac = 4.8
rfac0 = 0.99363
rmin0 = 0.0
wj = 1.0
radelem = 0.5
type = Be
bzeroflag = {bzero}
quadraticflag = {quadratic}
[CALCULATOR]
calculator = LAMMPSSNAP
energy = 1
force = 1
stress = 1
[ESHIFT]
Be = {eshift}
[SOLVER]
solver = SVD
[SCRAPER]
scraper = JSON
[PATH]
dataPath = JSON
[REFERENCE]
units = metal
atom_style = atomic
pair_style = hybrid/overlay zero 10.0 zbl 4.0 4.8
pair_coeff1 = * * zero
pair_coeff2 = * * zbl 4 4
[GROUPS]
group_sections = name training_size testing_size eweight fweight vweight
group_types = str float float float float float
random_sampling = 0
smartweights = 0
small = {train} 0.0 100 1 1e-6
large = {train} 0.0 30 1 1e-6
"""


def labelled(seed=0, n=14, turn=None):
    """Distorted beryllium cells labelled by a SNAP model on top of ZBL: something that can be fitted exactly."""
    rng = np.random.default_rng(seed)
    basis = SnapBasis(elements=["Be"], twojmax=4, rcutfac=4.8, quadratic=False)
    truth = LinearPotential(basis, rng.normal(size=basis.n_features) / (5 + np.arange(basis.n_features)), ZBL)
    actual = []
    for k in range(n):
        atoms = bulk("Be", "hcp", a=2.3, c=3.6) * ((1, 1, 1) if k < n // 2 else (2, 2, 1))
        atoms.set_cell(atoms.cell @ (np.eye(3) + 0.05 * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape)
        value = truth.predict(atoms)
        results = {"energy": value.energy, "forces": value.forces, "stress": value.stress}
        if turn is not None:
            matrix = turn.as_matrix()
            atoms.set_cell(atoms.cell @ matrix.T, scale_atoms=True)
            results["forces"] = results["forces"] @ matrix.T
            results["stress"] = rotate_voigt(results["stress"], matrix)
        actual.append((atoms, results))
    return truth, actual


def fitsnap_folder(folder, structures, **changes):
    """A FitSNAP input with its JSON files."""
    bar = 1.6021766208e6  # ASE's
    for k, (atoms, results) in enumerate(structures):
        group = "small" if k < len(structures) // 2 else "large"
        xx, yy, zz, yz, xz, xy = -np.asarray(results["stress"]) * bar
        data = {
            "Positions": atoms.positions.tolist(), "Lattice": np.asarray(atoms.cell).tolist(),
            "Energy": results["energy"], "Forces": results["forces"].tolist(),
            "Stress": [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]], "AtomTypes": ["Be"] * len(atoms),
            "NumAtoms": len(atoms),
        }  # fmt: skip
        (folder / "JSON" / group).mkdir(parents=True, exist_ok=True)
        (folder / "JSON" / group / f"c{k}.json").write_text("# comment\n" + json.dumps({"Dataset": {"Data": [data]}}))
    values = {"bzero": 0, "quadratic": 0, "eshift": 0.0, "train": "1.0", **changes}
    (folder / "fit.in").write_text(INPUT.format(**values))
    return folder / "fit.in"


class TestFit:
    def test_a_model_that_can_be_had_is_found(self, tmp_path):
        truth, structures = labelled()
        result = fit_fitsnap(fitsnap_folder(tmp_path, structures), tmp_path / "pot")
        whole = result.metrics[(result.metrics["group"] == "*ALL") & (result.metrics["weighting"] == "Unweighted")]
        errors = whole.set_index("kind")["rmse"]
        assert errors["Energy"] < 1e-6
        assert errors["Force"] < 1e-6
        assert errors["Stress"] < 1.0  # bar; ASE's and LAMMPS's factors differ by 8e-8
        assert truth.basis.n_features == result.potential.basis.n_features

    @pytest.mark.parametrize("noise", [0.0, 0.1])
    def test_rotated_cells_give_the_same_fit(self, tmp_path, noise):
        """Stress components are each counted once, which depends on the frame: it is LAMMPS's, as in FitSNAP."""
        fits = []
        for name, turn in (("a", None), ("b", Rotation.from_rotvec([0.4, -1.1, 0.7]))):
            (tmp_path / name).mkdir()
            _, structures = labelled(turn=turn)
            rng = np.random.default_rng(3)
            noisy = [
                (atoms, {**selected, "energy": selected["energy"] + noise * rng.normal()})
                for atoms, selected in structures
            ]
            path = fitsnap_folder(tmp_path / name, noisy)
            path.write_text(path.read_text().replace("1e-6", "1e-4"))
            fits.append(fit_fitsnap(path, tmp_path / name / "pot"))
        assert fits[1].potential.coefficients == pytest.approx(fits[0].potential.coefficients, rel=1e-6, abs=1e-9)

    def test_energies_per_atom_may_be_shifted(self, tmp_path):
        _, structures = labelled()
        plain, shifted = (
            fit_fitsnap(fitsnap_folder(tmp_path, structures, eshift=shift), tmp_path / f"p{shift}").potential
            for shift in (0.0, 2.5)
        )
        assert shifted.coefficients[0] - plain.coefficients[0] == pytest.approx(2.5, abs=1e-6)

    def test_quadratic_without_constants_and_a_testing_part(self, tmp_path):
        _, structures = labelled(n=40)
        path = fitsnap_folder(tmp_path, structures, bzero=1, quadratic=1, train="0.7")
        path.write_text(re.sub(r"(small|large) = 0.7 0.0", r"\1 = 0.7 0.3", path.read_text()))
        result = fit_fitsnap(path, tmp_path / "pot")
        assert result.potential.coefficients[0] == 0.0
        counts = result.metrics[result.metrics["kind"] == "Energy"].groupby(["set", "group"])["ncount"].first()
        assert counts["training", "*ALL"] == 28
        assert counts["testing", "*ALL"] == 12

    @pytest.mark.slow
    def test_a_committee_around_it_is_calibrated_on_the_testing_part(self, tmp_path):
        _, structures = labelled(n=40)
        path = fitsnap_folder(tmp_path, structures, bzero=1, train="0.7")
        path.write_text(re.sub(r"(small|large) = 0.7 0.0", r"\1 = 0.7 0.3", path.read_text()))
        plain = fit_fitsnap(path, tmp_path / "plain")
        created = fit_fitsnap(path, tmp_path / "pot", committee=CommitteeSettings(5, method="posterior"))
        again = LinearPotential.read(tmp_path / "pot")
        assert again.coefficients.shape == (5, len(plain.potential.coefficients))
        assert again.mean_coefficients == pytest.approx(plain.potential.coefficients, rel=1e-9, abs=1e-12)
        assert (again.coefficients[:, 0] == 0).all()
        assert again.uncertainty.calibration_data[RowKind.ENERGY].n_groups == 12
        assert created.potential.assess(structures[0][0]).grade > 0
        with pytest.raises(InputError, match="requires 19 held-out configurations"):
            fit_fitsnap(path, tmp_path / "pot", committee=CommitteeSettings(5, coverage=0.95), overwrite=True)
        replace(tmp_path, "solver = SVD", "solver = RIDGE")
        with pytest.raises(InputError, match="a committee of a RIDGE fit is not supported"):
            fit_fitsnap(path, tmp_path / "pot", committee=CommitteeSettings(5), overwrite=True)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (
                lambda folder: (folder / "JSON" / "small" / "c1.json").write_text("# x\n{"),
                "c1.json is not complete JSON",
            ),
            (lambda folder: [item.unlink() for item in (folder / "JSON" / "large").iterdir()], "large"),
            (
                lambda folder: (
                    replace(folder, "type = Be", "type = W"),
                    replace(folder, "Be = 0.0", "W = 0.0"),
                    replace(folder, "zbl 4 4", "zbl 74 74"),
                ),
                "has Be, an element that the basis lacks",
            ),
            (lambda folder: replace(folder, "solver = SVD", "solver = MAGIC"), "MAGIC"),
            (lambda folder: replace(folder, "bzeroflag", "bzeroflg"), "bzeroflag"),
            (lambda folder: replace(folder, "rcutfac = 4.8", "rcutfac = 480"), "cutoff"),
            (lambda folder: replace(folder, "zbl 4 4", "zbl 4"), "LAMMPS stopped with"),
        ],
    )
    def test_wrong_input_is_one_sentence(self, tmp_path, damage, message):
        _, structures = labelled(n=4)
        path = fitsnap_folder(tmp_path, structures)
        damage(tmp_path)
        with pytest.raises(InputError, match=message) as caught:
            fit_fitsnap(path, tmp_path / "pot")
        assert "\n" not in str(caught.value)

    def test_smart_weights_count_those_that_train(self, tmp_path):
        _, structures = labelled(n=20)
        path = fitsnap_folder(tmp_path, structures, train="0.5")
        text = re.sub(r"(small|large) = 0.5 0.0", r"\1 = 0.5 0.3", path.read_text())
        path.write_text(text.replace("smartweights = 0", "smartweights = 1"))
        rows = fit_fitsnap(path, tmp_path / "pot").rows
        energy = rows.kind == 0
        assert set(rows.weight[energy & rows.is_training & (rows.group == "small")]) == {100 / 5}
        assert set(rows.weight[energy & ~rows.is_training & (rows.group == "small")]) == {100 / 3}

    def test_stresses_of_zero_are_labels_as_in_fitsnap(self, tmp_path):
        _, structures = labelled(n=6)
        flat = [(atoms, {**selected, "stress": np.zeros(6)}) for atoms, selected in structures]
        metrics = fit_fitsnap(fitsnap_folder(tmp_path, flat), tmp_path / "pot").metrics
        whole = metrics[(metrics["group"] == "*ALL") & (metrics["kind"] == "Stress")]
        assert set(whole["ncount"]) == {36}

    def test_the_difference_of_two_structures_may_be_what_counts(self, tmp_path):
        _, structures = labelled(n=24)
        rng = np.random.default_rng(5)
        noisy = [
            (atoms, {**selected, "energy": selected["energy"] + 0.3 * rng.normal()}) for atoms, selected in structures
        ]
        path = fitsnap_folder(tmp_path, noisy)
        actual = fit_fitsnap(
            path, tmp_path / "pot", objectives=["difference:c3/c20"], regulariser=1e-3
        ).optimised_weights
        part = ("difference:c3/c20", RowKind.ENERGY)
        assert actual.final_errors[part] < actual.initial_errors[part]
        for wrong in ("difference:c3", "difference:c3/none"):
            with pytest.raises(InputError, match="must name two structures by their files"):
                fit_fitsnap(path, tmp_path / "pot", objectives=[wrong], overwrite=True)

    def test_a_group_without_weight_stays_out_of_the_search(self, tmp_path):
        _, structures = labelled(n=24)
        path = fitsnap_folder(tmp_path, structures)
        path.write_text(path.read_text().replace("large = 1.0 0.0 30 1 1e-6", "large = 1.0 0.0 0 0 0"))
        actual = fit_fitsnap(path, tmp_path / "pot", objectives=["energy"]).optimised_weights
        assert {group for group, _ in actual.weights} == {"small"}

    def test_objectives_that_are_none(self, tmp_path):
        _, structures = labelled()
        path = fitsnap_folder(tmp_path, structures)
        with pytest.raises(InputError, match="'forces' is not an objective"):
            fit_fitsnap(path, tmp_path / "pot", objectives=["forces"])
        with pytest.raises(InputError, match="a front requires two objectives"):
            fit_fitsnap(path, tmp_path / "pot", objectives=["energy"], front=True)
        with pytest.raises(InputError, match="available groups: small, large"):
            fit_fitsnap(path, tmp_path / "pot", objectives=["medium:force"])


def replace(folder, old, new):
    path = folder / "fit.in"
    path.write_text(path.read_text().replace(old, new))


class TestRows:
    @pytest.mark.parametrize("quadratic", [False, True])
    def test_stress_rows_are_the_strain_derivative_of_the_energy(self, quadratic):
        basis = SnapBasis(elements=["Be"], twojmax=4, quadratic=quadratic)
        rng = np.random.default_rng(0)
        beta = rng.normal(size=basis.n_features) / (3 + np.arange(basis.n_features))
        atoms = bulk("Be", "hcp", a=2.3, c=3.6) * (2, 1, 1)
        atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape)
        atoms.rotate(37, (1, 2, 3), rotate_cell=True)
        selected = compute_configuration_rows_with_stress(get_shared_lammps(), basis, atoms)[2] @ beta
        for k, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
            energies = []
            for sign in (1, -1):
                strain = np.zeros((3, 3))
                strain[i, j] += sign * 1e-5 / 2
                strain[j, i] += sign * 1e-5 / 2
                moved = atoms.copy()
                moved.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
                energies.append(compute_configuration_rows(get_shared_lammps(), basis, moved)[0] @ beta * len(atoms))
            # with both of a pair strained by half, dE/dγ is one component
            slope = (energies[0] - energies[1]) / 2e-5 / atoms.cell.volume * 160.21765
            assert selected[k] == pytest.approx(slope, rel=1e-5, abs=1e-4)

    def test_energy_and_force_rows_are_those_without_stress(self):
        basis = SnapBasis(elements=["Be"], twojmax=4)
        atoms = bulk("Be", "hcp", a=2.3, c=3.6) * (2, 2, 1)
        atoms.rattle(0.1, seed=1)
        plain, more = (
            make(get_shared_lammps(), basis, atoms)
            for make in (compute_configuration_rows, compute_configuration_rows_with_stress)
        )
        assert more[0] == pytest.approx(plain[0], rel=1e-12)
        assert more[1] == pytest.approx(plain[1], rel=1e-9, abs=1e-9)

    def test_a_design_with_stress_takes_its_labels(self, tmp_path):
        truth, structures = labelled(n=6)
        records = [{**results, "seconds": 1.0} for _, results in structures]
        write_dataset(tmp_path / "d.h5", [atoms for atoms, _ in structures], {"a": LevelData(records)})
        with Dataset(tmp_path / "d.h5") as data:
            design = compute_design(data, truth.basis, tmp_path / "x.h5", stress=True).with_labels(data, ["a"])
        ref = np.concatenate(
            [
                np.concatenate([[energy / len(atoms)], forces.ravel(), stress])
                for atoms, _ in structures
                for energy, forces, stress in [compute_reference_labels(get_shared_lammps(), truth.basis, ZBL, atoms)]
            ]
        )
        predicted = design.read_all_rows() @ truth.coefficients + ref
        assert predicted == pytest.approx(design.targets["a"], rel=1e-6, abs=1e-6)

    def test_a_reference_is_what_lammps_gives(self):
        atoms = bulk("Be", "hcp", a=1.6, c=2.5) * (2, 2, 1)
        atoms.rattle(0.05, seed=1)
        atoms.rotate(20, "x", rotate_cell=True)
        energy, forces, stress = compute_reference_labels(get_shared_lammps(), SnapBasis(elements=["Be"]), ZBL, atoms)
        copy = atoms.copy()
        copy.calc = lammps_calculator(ZBL.commands, ["Be"])
        assert energy == pytest.approx(copy.get_potential_energy(), rel=1e-10)
        assert forces == pytest.approx(copy.get_forces(), rel=1e-8, abs=1e-9)
        assert stress == pytest.approx(copy.get_stress() * 160.21766208, rel=1e-6, abs=1e-6)
        assert energy > 1.0


class TestCalculator:
    def test_energy_forces_stress_and_members(self, tmp_path):
        truth, structures = labelled(n=4)
        atoms = structures[-1][0]
        committee = LinearPotential(truth.basis, np.stack([truth.coefficients * f for f in (0.9, 1.0, 1.1)]), ZBL)
        atoms.calc = committee.create_calculator(include_members=True)
        single = truth.predict(atoms)
        assert atoms.get_potential_energy() == pytest.approx(single.energy, rel=1e-9)
        assert atoms.get_forces() == pytest.approx(single.forces, abs=1e-8)
        assert atoms.get_stress() == pytest.approx(single.stress, rel=1e-6, abs=1e-9)
        assert atoms.calc.results["forces_members"].shape == (3, len(atoms), 3)
        assert atoms.calc.results["energies_members"].mean() == pytest.approx(single.energy, rel=1e-9)
        assert atoms.calc.results["stress_members"].mean(axis=0) == pytest.approx(single.stress, rel=1e-9, abs=1e-12)

    def test_what_is_not_periodic_has_no_stress_and_no_walls(self):
        truth, structures = labelled(n=4)
        atoms = structures[-1][0].copy()
        for pbc, cell in ((False, None), (False, atoms.cell[:]), ((True, True, False), atoms.cell[:])):
            free = atoms.copy()
            free.pbc = pbc
            free.set_cell(np.zeros((3, 3)) if cell is None else cell)
            selected = truth.predict(free)
            free.calc = truth.create_calculator()
            assert free.get_potential_energy() == pytest.approx(selected.energy, rel=1e-9)
            assert free.get_forces() == pytest.approx(selected.forces, abs=1e-8)
            assert "stress" not in free.calc.results
        atoms.numbers[0] = 74
        atoms.calc = truth.create_calculator()
        with pytest.raises(InputError, match="the potential does not contain W; available elements: Be"):
            atoms.get_potential_energy()

    def test_forces_are_the_derivative_in_an_md_step(self):
        truth, structures = labelled(n=4)
        atoms = structures[-1][0].copy()
        atoms.calc = truth.create_calculator()
        forces, energies = atoms.get_forces(), []
        for sign in (1, -1):
            atoms.positions[0, 1] += sign * 1e-4
            energies.append(atoms.get_potential_energy())
            atoms.positions[0, 1] -= sign * 1e-4
        assert -(energies[0] - energies[1]) / 2e-4 == pytest.approx(forces[0, 1], rel=1e-5, abs=1e-6)

    def test_files_that_do_not_fit_are_found(self, tmp_path):
        truth, structures = labelled(n=4)
        files = truth.write(tmp_path, "be")
        check_exported_files(files, truth, [atoms for atoms, _ in structures])
        text = files.coefficients.read_text().splitlines()
        text[5] = str(float(text[5]) + 1e-3)
        files.coefficients.write_text("\n".join(text))
        with pytest.raises(InputError, match="LAMMPS with .* deviates from the model by"):
            check_exported_files(files, truth, [atoms for atoms, _ in structures])

    def test_potentials_that_cannot_be_read(self, tmp_path):
        truth, _ = labelled(n=2)
        files = truth.write(tmp_path, "be")
        write(tmp_path / "be.xyz", bulk("Be"))
        for name, message in (("none", "is not a SNAP or POD potential"), ("be.xyz", "is not a SNAP or POD potential")):
            with pytest.raises(InputError, match=message):
                LinearPotential.read(tmp_path / name)
        files.coefficients.write_text("\n".join(files.coefficients.read_text().splitlines()[:-3]))
        with pytest.raises(InputError, match="not a complete .snapcoeff"):
            LinearPotential.read(tmp_path)
        files.parameters.unlink()
        with pytest.raises(InputError, match=r"no file at .*be.snapparam"):
            LinearPotential.read(files.include)
