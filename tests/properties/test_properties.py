"""Properties as functionals: equal to measurements of the exported potential, and to fits from rows."""

from dataclasses import replace

import ase.io
import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from helpers.command_line import call
from helpers.studies import study_file, sweep_input

from paretofit import Dataset, InputError, fit_wls, lammps_calculator, run_study
from paretofit.core import get_shared_lammps
from paretofit.dataset import LevelData, write_dataset
from paretofit.descriptors import PodBasis, SnapBasis, compute_configuration_rows, parse_basis
from paretofit.execution import RunContext
from paretofit.potentials import write_linear_potential
from paretofit.properties import (
    PropertyRows,
    PropertySettings,
    add_references,
    build_properties,
    list_property_structures,
)
from paretofit.study.sweep_data import find_independent_columns
from paretofit.sweep import Mixture, SweepGrid, read_results, run_sweep
from paretofit.validation.elastic import compute_elastic_constants
from paretofit.validation.volume_scan import fit_birch_murnaghan

FCC, HCP, BCC = bulk("Be", "fcc", a=3.16), bulk("Be"), bulk("Be", "bcc", a=2.5)
VOLUMES = np.linspace(0.94, 1.06, 9)


BASES = {family: basis(elements=["Be"], twojmax=4) for family, basis in (("snap", SnapBasis), ("pod", PodBasis))}


@pytest.fixture(scope="module", params=BASES)
def data(request, beryllium, tmp_path_factory):
    return sweep_input(beryllium, tmp_path_factory.mktemp("properties"), BASES[request.param])


@pytest.fixture(scope="module")
def coefficients(data):
    design = data.design
    return fit_wls(design.read_all_rows(), design.targets["5"], design.kind, energy_weight=12.25).coefficients


@pytest.fixture(scope="module")
def calculator(data, coefficients, tmp_path_factory):
    folder = tmp_path_factory.mktemp("potential")
    files = write_linear_potential(
        folder, "potential", parse_basis(data.design.attributes["basis"]), np.asarray(coefficients)
    )
    return lammps_calculator(files.commands, ["Be"])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("structures")
    vacancy = make_supercell(FCC, 2 * np.eye(3))
    del vacancy[0]
    for name, atoms in {"fcc": FCC, "hcp": HCP, "bcc": BCC, "vacancy": vacancy}.items():
        ase.io.write(folder / f"{name}.extxyz", atoms)
    return folder


def evaluate(data, coefficients, dataset, *entries):
    """Values of properties for one fit."""
    properties = build_properties([PropertySettings(**entry) for entry in entries], dataset)
    rows = PropertyRows.compute(properties, data.design, RunContext())
    values = rows.evaluate((rows.rows @ coefficients)[:, None])
    return {item.name: values[f"prop_{item.name}"][0] for item in properties}


def measure_energy(calculator, atoms):
    return calculator.get_potential_energy(atoms.copy())


class TestMeasurements:
    def test_elastic_constants_of_a_crystal_with_one_atom(self, data, coefficients, calculator, beryllium, files):
        entry = {"kind": "elastic", "name": "fcc", "structure": str(files / "fcc.extxyz")}
        constants = ["C11", "C12", "C13", "C44", "C55", "C16"]
        values = evaluate(data, coefficients, beryllium, {**entry, "components": constants})
        measured = compute_elastic_constants(calculator, FCC).constants
        for name in constants:
            i, j = int(name[1]) - 1, int(name[2]) - 1
            assert values[f"fcc_{name}"] == pytest.approx(measured[i, j], rel=1e-6, abs=1e-6 * measured.max())

    def test_clamped_and_relaxed_atoms(self, data, coefficients, calculator, beryllium, files):
        entry = {"kind": "elastic", "name": "C11", "structure": str(files / "hcp.extxyz")}
        relaxed = evaluate(data, coefficients, beryllium, entry)["C11"]
        clamped = evaluate(data, coefficients, beryllium, {**entry, "ions": "clamped"})["C11"]
        measured = compute_elastic_constants(calculator, HCP).constants
        assert relaxed == pytest.approx(measured[0, 0], rel=2e-3)
        assert clamped > 1.02 * relaxed, "the atoms of a strained hcp crystal relax"

    def test_energy_differences(self, data, coefficients, calculator, beryllium, files):
        fcc, hcp, vacancy = (str(files / f"{name}.extxyz") for name in ("fcc", "hcp", "vacancy"))
        values = evaluate(
            data, coefficients, beryllium,
            {"kind": "energy_difference", "name": "fcc-hcp", "structures": [fcc, hcp]},
            {"kind": "energy_difference", "name": "vacancy", "structures": [vacancy, fcc], "per": "atom-balanced"},
        )  # fmt: skip
        energy = measure_energy(calculator, FCC)
        assert values["fcc-hcp"] == pytest.approx(1000 * (energy - measure_energy(calculator, HCP) / 2), abs=1e-6)
        vacancy_energy = measure_energy(calculator, ase.io.read(vacancy))
        assert values["vacancy"] == pytest.approx(vacancy_energy - 7 * energy, abs=1e-8)

    def test_equation_of_state(self, data, coefficients, calculator, beryllium, files):
        """The volumes of fcc are too small for a minimum of this potential, and larger ones are not."""
        entry = {"kind": "equation_of_state", "name": "eos"}
        values = evaluate(data, coefficients, beryllium, {**entry, "structure": str(files / "fcc.extxyz")})
        assert np.isnan([values["eos_V0"], values["eos_B"]]).all()
        expanded = scale(FCC, 1.06)
        ase.io.write(files / "expanded.extxyz", expanded)
        values = evaluate(data, coefficients, beryllium, {**entry, "structure": str(files / "expanded.extxyz")})
        cells = [scale(expanded, volume) for volume in VOLUMES]
        sizes, energies = [atoms.get_volume() for atoms in cells], [measure_energy(calculator, a) for a in cells]
        volume, _, modulus, _ = fit_birch_murnaghan(sizes, energies)
        assert values["eos_V0"] == pytest.approx(volume, rel=1e-6)
        assert values["eos_B"] == pytest.approx(modulus, rel=1e-6)

    def test_force_constants(self, data, coefficients, calculator, beryllium, files):
        entry = {"kind": "force_constants", "name": "phi", "structure": str(files / "hcp.extxyz")}
        values = evaluate(data, coefficients, beryllium, {**entry, "supercell": (2, 1, 1)})
        supercell, constants = HCP.repeat((2, 1, 1)), []
        for component in range(6):
            forces = []
            for sign in (1, -1):
                displaced = supercell.copy()
                displaced.positions[component // 3, component % 3] += 0.01 * sign
                forces.append(calculator.get_forces(displaced))
            constants.append((forces[1] - forces[0]) / 0.02)
        assert values["phi"] == pytest.approx(np.sqrt(np.mean(np.square(constants))), rel=1e-6)


def scale(atoms, volume):
    copy = atoms.copy()
    copy.set_cell(atoms.cell[:] * np.cbrt(volume), scale_atoms=True)
    return copy


class TestSweep:
    def test_engines_agree_and_errors_are_deviations(self, data, beryllium, files):
        entries = [
            {"kind": "elastic", "name": "C11", "structure": str(files / "hcp.extxyz"), "reference": 290.0},
            {"kind": "energy_difference", "name": "fcc-hcp", "reference": 80.0,
             "structures": [str(files / "fcc.extxyz"), str(files / "hcp.extxyz")]},
        ]  # fmt: skip
        settings = [PropertySettings(**entry) for entry in entries]
        values = {entry.name: entry.reference for entry in settings}
        properties = add_references(build_properties(settings, beryllium), values, [], "5")
        rows = PropertyRows.compute(properties, data.design, RunContext())
        with_rows = replace(data, properties=rows)
        grid = SweepGrid(["2", "5"], [2, 4], [(12.25, 1.0)], [20, 39], ["random"], 2)
        fast, plain = (run_sweep(with_rows, grid, engine=engine) for engine in ("fast", "plain"))
        for name in rows.columns:
            assert fast[name].to_numpy() == pytest.approx(plain[name].to_numpy(), rel=1e-6, abs=1e-6)
        assert fast["prop_C11_error"].to_numpy() == pytest.approx(np.abs(fast["prop_C11"] - 290).to_numpy())
        without_rows = run_sweep(data, grid)
        pd.testing.assert_frame_equal(fast[list(without_rows)], without_rows)

    def test_a_mixture_of_equal_sets_has_the_properties_of_its_top_level(self, data, beryllium, files):
        """With energy weight 0 and the forces of one level only, the mixture is a fit of that level."""
        entry = {"kind": "elastic", "name": "C44", "structure": str(files / "hcp.extxyz"), "reference": 1.0}
        properties = add_references(build_properties([PropertySettings(**entry)], beryllium), {"C44": 1.0}, [], "5")
        rows = PropertyRows.compute(properties, data.design, RunContext())
        design = data.design
        design = replace(design, targets={**design.targets, "2": design.targets["5"]})
        mixture = Mixture("2+5", ("2", "5"), (39,), (39,), "random", 1.0)
        grid = SweepGrid(["2", "5"], [4], [(12.25, 1.0)], [39], ["random"], 1, mixtures=[mixture])
        table = run_sweep(replace(data, design=design, properties=rows), grid).set_index("level")
        assert table.loc["2+5", "prop_C44"] == pytest.approx(table.loc["5", "prop_C44"], rel=1e-6)


class TestReferences:
    def test_labels_give_the_property_of_the_calculator(self, calculator, files, tmp_path):
        """Labels by a potential, through the file of structures, are its own elastic constants."""
        entry = PropertySettings(kind="elastic", name="C11", structure=str(files / "hcp.extxyz"))
        empty = tmp_path / "empty.h5"
        write_dataset(empty, [FCC], {"5": LevelData([{"energy": -1.0, "forces": np.zeros((1, 3))}])})
        properties = build_properties([entry], Dataset(empty))
        structures = list_property_structures(properties)
        assert len(structures) == 2 + 12, "strained cells in both directions, and displacements of two atoms"
        labels = [
            {"energy": calculator.get_potential_energy(atoms), "forces": calculator.get_forces(atoms),
             "stress": calculator.get_stress(atoms)}
            for atoms in structures
        ]  # fmt: skip
        write_dataset(tmp_path / "labels.h5", structures, {"5": LevelData(labels)})
        (item,) = add_references(properties, {}, [Dataset(tmp_path / "labels.h5")], "5")
        assert item.reference[0] == pytest.approx(compute_elastic_constants(calculator, HCP).constants[0, 0], rel=2e-3)

    def test_a_reference_that_is_not_defined_is_named(self, beryllium, calculator, tmp_path):
        """Volumes on one side of the minimum have no volume of lowest energy."""
        cells = [scale(HCP, volume) for volume in np.linspace(0.6, 0.7, 5)]
        labels = [{"energy": measure_energy(calculator, atoms), "forces": np.zeros((2, 3))}
                  for atoms in cells]  # fmt: skip
        write_dataset(tmp_path / "labels.h5", cells, {"5": LevelData(labels)})
        entry = PropertySettings(kind="equation_of_state", name="eos", structures=list(range(5)))
        with Dataset(tmp_path / "labels.h5") as data:
            properties = build_properties([entry], data)
            with pytest.raises(InputError, match="property 'eos_V0' is not defined by the labels at level '5'"):
                add_references(properties, {}, [data], "5")

    def test_a_missing_label_is_named(self, beryllium, files):
        entry = PropertySettings(kind="elastic", name="C11", structure=str(files / "hcp.extxyz"))
        with pytest.raises(
            InputError, match="property 'C11' has no reference.*not labelled at level '5'.*property_lab"
        ):
            add_references(build_properties([entry], beryllium), {}, [beryllium], "5")


@pytest.fixture(scope="module")
def run(files, tmp_path_factory):
    """A small study with two properties, one of which is an objective."""
    folder = tmp_path_factory.mktemp("run")
    properties = [
        {"name": "bcc-hcp", "kind": "energy_difference", "reference": 101,
         "structures": [str(files / "bcc.extxyz"), str(files / "hcp.extxyz")]},
        {"name": "hcp", "kind": "equation_of_state", "structure": str(files / "hcp.extxyz"),
         "reference": {"V0": 7.9, "B": 120}},
    ]  # fmt: skip
    path = study_file(folder, properties=properties, objectives=["ref_force", "bcc-hcp"])
    return run_study(path, out=folder / "run")


class TestStudy:
    def test_the_front_minimises_the_objectives(self, run):
        results, front = read_results(run.folder / "results.csv"), run.front
        assert {"prop_bcc-hcp", "prop_hcp_B_error", "prop_bcc-hcp_error_low"} <= set(results)
        assert results["prop_bcc-hcp_error"].to_numpy() == pytest.approx(
            np.abs(results["prop_bcc-hcp"] - 101).to_numpy(), abs=1e-6
        )
        assert {"ref_energy", "prop_hcp_B_error", "p_front"} <= set(front)
        for _, point in front.iterrows():
            others = front[front["twojmax"] == point["twojmax"]]
            dominating = (
                (others["prop_bcc-hcp_error"] <= point["prop_bcc-hcp_error"])
                & (others["ref_force"] <= point["ref_force"])
                & (others["label_seconds"] < point["label_seconds"])
            )
            assert not dominating.any()
        page = run.report.read_text()
        assert "The front over all 2Jmax in force error, bcc-hcp error and DFT cost has" in page

    @pytest.mark.slow
    def test_a_resumed_run_has_the_same_results(self, run):
        before = (run.folder / "results.csv").read_bytes()
        run_study(run.folder.parent / "study.yaml", out=run.folder)
        assert (run.folder / "results.csv").read_bytes() == before


def test_columns_of_alloys_that_depend_on_others_are_left_out():
    """Pairs of A around B and of B around A have the same sums, at every size of POD."""
    rng = np.random.default_rng(0)
    cells = [make_supercell(bulk("Cu", a=3.7), 2 * np.eye(3)) for _ in range(12)]
    for atoms in cells:
        atoms.symbols = rng.choice(["Cu", "Au"], len(atoms))
        atoms.rattle(0.1, rng=rng)
    basis, lammps = PodBasis(elements=["Cu", "Au"], twojmax=3), get_shared_lammps()
    X = np.vstack([np.vstack(compute_configuration_rows(lammps, basis, atoms)) for atoms in cells])
    columns = find_independent_columns(X)
    assert len(columns) == np.linalg.matrix_rank(X / np.linalg.norm(X, axis=0)) < X.shape[1]
    coefficients, *_ = np.linalg.lstsq(X[:, columns], X, rcond=None)
    assert X[:, columns] @ coefficients == pytest.approx(X, abs=1e-6 * np.abs(X).max())


class TestGroupWeights:
    """Weights of groups that are optimised for a property."""

    @pytest.fixture
    def keys(self, files):
        entries = [
            {"name": "bcc-hcp", "kind": "energy_difference", "reference": 101,
             "structures": [str(files / "bcc.extxyz"), str(files / "hcp.extxyz")]},
            {"name": "C33", "kind": "elastic", "structure": str(files / "hcp.extxyz"), "ions": "clamped",
             "reference": 390},
            {"name": "C11", "kind": "elastic", "structure": str(files / "hcp.extxyz"), "reference": 320},
        ]  # fmt: skip
        single_setting = {"twojmax": [4], "weights": [12.25], "sizes": ["all"], "sampling_methods": ["random"]}
        return {**single_setting, "levels": [5], "repetitions": 1, "confidence": {"splits": 0}, "properties": entries}

    @pytest.mark.slow
    def test_the_error_of_the_property_falls_and_an_export_has_the_same_fit(self, keys, tmp_path):
        names = ["bcc-hcp", "C33"]
        settings = {"group_weights": {"objectives": [*names, "force"], "regulariser": 0.001}}
        runs = [run_study(study_file(tmp_path, **keys, **more), out=tmp_path / str(k))
                for k, more in enumerate(({}, settings))]  # fmt: skip
        before, after = (item.results.iloc[0] for item in runs)
        products = [np.prod([row[f"prop_{name}_error"] for name in names]) for row in (before, after)]
        assert products[1] < 0.5 * products[0]
        done = call("export", tmp_path / "1", "--front", "-o", tmp_path / "potentials", "--md-time", "0.02")
        assert done.returncode == 0, done.stderr
        table = pd.read_csv(tmp_path / "potentials" / "index.csv")
        assert table["fit_ref_force"].iloc[0] == pytest.approx(after["ref_force"], rel=1e-6)

    def test_a_property_that_is_not_linear_is_refused(self, keys, tmp_path):
        path = study_file(tmp_path, **keys, group_weights={"objectives": ["energy", "C11"]})
        with pytest.raises(InputError, match="'C11' is not linear in the coefficients; possible are"):
            run_study(path, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "C77", "kind": "elastic", "structure": 3}, "property 'C77' needs 'components'"),
        ({"name": "C44", "kind": "elastic", "structure": 3, "reference": float("inf")}, "finite"),
        ({"name": "C44", "kind": "elastic", "structure": 3, "supercell": [2, 2, 2]}, "'supercell' of property 'C44'"),
        ({"name": "f", "kind": "force_constants", "structure": 3, "supercell": [99, 99, 99]}, "supercell has .* atoms"),
        ({"name": "C44", "kind": "elastic", "structure": 999}, "no configuration with id 999"),
        ({"name": "C44", "kind": "elastic", "structure": "none.cif"}, "property 'C44': no file at .*none.cif"),
        ({"name": "C44", "kind": "elastic"}, "property 'C44' needs a 'structure'"),
        ({"name": "hcp", "kind": "elastic", "structure": 3}, "property 'hcp' needs 'components'"),
        ({"name": "a b", "kind": "elastic", "structure": 3}, "name"),
        ({"name": "d", "kind": "energy_difference", "structure": 3}, "needs two or more 'structures'"),
        ({"name": "C44", "kind": "elastic", "structure": 3, "reference": {"C11": 1}}, "has 'C11'; available: C44"),
        ({"name": "e", "kind": "equation_of_state", "structure": 3, "reference": 1}, "values for V0, B"),
        ({"name": "f", "kind": "force_constants", "structure": 3, "reference": 1}, "no single 'reference'"),
        ({"name": "C44", "kind": "elastic", "structure": 3, "reference": 162, "ion": "x"}, "unknown key.*ion"),
    ],
)
def test_wrong_properties_are_refused_in_one_sentence(entry, message, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        run_study(study_file(tmp_path, properties=[entry]), out=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_wrong_lists_are_refused(tmp_path, files):
    entry = {"name": "C44", "kind": "elastic", "structure": str(files / "hcp.extxyz"), "reference": 162}
    with pytest.raises(InputError, match="'properties' contains 'C44' twice"):
        run_study(study_file(tmp_path, properties=[entry, entry]), out=tmp_path / "run")
    with pytest.raises(InputError, match="an entry of 'objectives' must be one of .*got 'C4'; did you mean 'C44'"):
        run_study(study_file(tmp_path, properties=[entry], objectives=["C4"]), out=tmp_path / "run")


def test_energies_that_cannot_be_balanced(beryllium, tmp_path):
    ase.io.write(tmp_path / "mixed.extxyz", Atoms("BeO", positions=[[0, 0, 0], [1.6, 0, 0]], cell=[4, 4, 4], pbc=True))
    ase.io.write(tmp_path / "pure.extxyz", HCP)
    paths = [str(tmp_path / "mixed.extxyz"), str(tmp_path / "pure.extxyz")]
    entry = PropertySettings(name="d", kind="energy_difference", structures=paths)
    with pytest.raises(InputError, match=r"property 'd': the atoms of BeO, Be2 cannot be balanced"):
        build_properties([entry], beryllium)


def test_structures_for_labels_from_the_command_line(tmp_path, files):
    entry = {"name": "C44", "kind": "elastic", "structure": str(files / "hcp.extxyz")}
    path = study_file(tmp_path, properties=[entry])
    done = call("properties", str(path), "-o", str(tmp_path / "out.extxyz"))
    assert done.returncode == 0, done.stderr
    assert "14 structures, 28 atoms" in done.stdout
    frames = ase.io.read(tmp_path / "out.extxyz", ":")
    assert len(frames) == 14
    labels = [{"energy": -7.0, "forces": np.zeros((2, 3)), "stress": np.zeros(6)}] * 14
    write_dataset(tmp_path / "labels.h5", frames, {"5": LevelData(labels)})
    labelled = study_file(tmp_path, properties=[entry], property_labels=str(tmp_path / "labels.h5"))
    done = call("properties", str(labelled), "-o", str(tmp_path / "none.extxyz"))
    assert "no structure has to be labelled" in done.stderr
    done = call("properties", str(study_file(tmp_path)), "-o", str(tmp_path / "none.extxyz"))
    assert "has no section 'properties'" in done.stderr
    path = study_file(tmp_path, properties=[entry])
    again = call("properties", str(path), "-o", str(tmp_path / "out.extxyz"))
    assert again.returncode == 2, "the file exists"
