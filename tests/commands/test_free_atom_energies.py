"""Energies of free atoms in `fit`, `run`, `export` and `evaluate`: exact in LAMMPS, and in no error statistics."""

import json

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from helpers.command_line import call
from ruamel.yaml import YAML

from paretofit import Dataset, InputError, run_study
from paretofit.commands import evaluate_dataset, export_potential, fit_dataset
from paretofit.core import lammps_calculator
from paretofit.dataset import LevelData, write_dataset
from paretofit.execution import RunContext
from paretofit.potentials import CommitteeSettings, LinearPotential
from paretofit.potentials.mace import MaceSettings
from paretofit.study import build_sweep_input, load_or_compute_design, load_study, prepare_study, write_template
from paretofit.study.networks import _set_atomic_energies
from paretofit.sweep import make_engine, run_sweep

CUTOFF = 3.9
FREE = {"Cu": -1.5, "Al": -2.25}
OFFSET = {"Cu": 0.25, "Al": -0.5}  # of the cheap level
STUDY = {
    "dataset": "metals.h5",
    "basis": {"elements": ["Cu", "Al"], "rcutfac": CUTOFF},
    "levels": ["cheap", "good"],
    "twojmax": [2, 4],
    "weights": [12.25],
    "sizes": [40, "all"],
    "repetitions": 2,
    "cost": {"measure_md": False},
    "missing_labels": "drop",
}


def build_structures():
    """Bulk, alloys and clusters, then an isolated atom of each element in a box, and one more Cu in a small box."""
    rng, structures = np.random.default_rng(3), []
    for k in range(80):
        atoms = bulk("Cu", cubic=True, a=3.6 + 0.005 * k)
        atoms.symbols[rng.permutation(4)[: k % 5]] = "Al"
        atoms.rattle(0.1, seed=k)
        atoms.pbc = k % 4 > 0
        structures.append(atoms)
    structures += [Atoms(symbol, cell=[length] * 3, pbc=True) for symbol, length in (("Cu", 9), ("Al", 12), ("Cu", 5))]
    return structures


def label(atoms, offsets):
    energies = {symbol: FREE[symbol] + offsets.get(symbol, 0.0) for symbol in FREE}
    if len(atoms) == 1:  # without forces, and with a wrong energy in the small box
        return {"energy": energies[atoms.symbols[0]] + (atoms.cell[0, 0] == 5), "seconds": 1.0}
    copy = atoms.copy()
    copy.calc = EMT()
    free = sum(energies[symbol] - {"Cu": 3.51, "Al": 3.28}[symbol] for symbol in copy.symbols)
    return {"energy": copy.get_potential_energy() + free, "forces": copy.get_forces(), "seconds": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The dataset ``metals.h5``, whose isolated atoms have labels at the good level only."""
    folder = tmp_path_factory.mktemp("metals")
    structures = build_structures()
    good = [label(atoms, {}) for atoms in structures]
    cheap = [label(atoms, OFFSET) if len(atoms) > 1 else {} for atoms in structures]
    write_dataset(folder / "metals.h5", structures, {"cheap": LevelData(cheap), "good": LevelData(good)})
    return folder


def write_study(folder, path=None, **changes):
    path = path or folder / "study.yaml"
    content = {**STUDY, "dataset": str(folder / "metals.h5"), **changes}
    with path.open("w") as stream:
        YAML().dump(content, stream)
    return path


def load_sweep_input(prepared, folder):
    design = load_or_compute_design(prepared.dataset, prepared.study.basis, folder / "design.h5", RunContext())
    return build_sweep_input(prepared, design)


def compute_lammps_energy(files, atoms):
    """The energy that LAMMPS computes with the exported files, in a large periodic box."""
    copy = atoms.copy()
    copy.set_cell([40.0] * 3)
    copy.center()
    copy.pbc = True
    copy.calc = lammps_calculator(files.commands, files.elements)
    return copy.get_potential_energy()


def test_free_atoms_and_dissociated_dimers_are_exact_in_lammps(folder, tmp_path):
    fit = fit_dataset(folder / "metals.h5", tmp_path / "p", twojmax=4, cutoff=CUTOFF, weight_ratio=10.0)
    assert fit.n_train == 80
    assert "energies of free atoms: Cu -1.5 eV (isolated atom), Al -2.25 eV (isolated atom)" in fit.text
    assert "isolated atoms, not counted in errors: 82, 80, 81" in fit.text
    for symbols, expected in (("Cu", -1.5), ("Al", -2.25), ("Cu2", -3.0), ("AlCu", -3.75), ("Al2", -4.5)):
        atoms = Atoms(symbols, positions=[[0, 0, 0], [CUTOFF + 0.01, 0, 0]][: len(Atoms(symbols))])
        assert compute_lammps_energy(fit.files, atoms) == pytest.approx(expected, abs=1e-6)
        assert fit.potential.predict(atoms).energy == pytest.approx(expected, abs=1e-6)
    inside = Atoms("Cu2", positions=[[0, 0, 0], [2.5, 0, 0]])
    assert abs(compute_lammps_energy(fit.files, inside) + 3.0) > 0.1


def test_fitted_energies_are_those_of_ordinary_rows(folder, tmp_path):
    fit = fit_dataset(
        folder / "metals.h5", tmp_path / "p", twojmax=4, cutoff=CUTOFF, weight_ratio=10.0, reference_energies="fitted"
    )
    assert fit.n_train == 83
    assert "energies of free atoms: Cu (fitted), Al (fitted)" in fit.text
    assert abs(fit.potential.predict(Atoms("Cu")).energy - FREE["Cu"]) > 1e-3


@pytest.mark.parametrize(
    "method", ["bootstrap", *(pytest.param(name, marks=pytest.mark.slow) for name in ("subset", "posterior", "pops"))]
)
def test_members_of_committees_agree_on_free_atoms(folder, tmp_path, method):
    committee = CommitteeSettings(4, method)
    fit = fit_dataset(folder / "metals.h5", tmp_path / "p", twojmax=2, cutoff=CUTOFF, committee=committee)
    potential = LinearPotential.read(tmp_path / "p")
    assert potential.predict(Atoms("Cu")).energy == pytest.approx(np.full(4, -1.5), abs=1e-8)
    assessment = potential.assess(Atoms("Cu"))
    assert assessment.energy_std < 1e-9
    assert assessment.grade <= 1.0 + 1e-6
    assert potential.compute_atom_leverages(Atoms("Cu")) == pytest.approx([0.0], abs=1e-9)
    crystal = bulk("Cu", cubic=True, a=3.7)
    assert potential.compute_atom_leverages(crystal)[0] > 1e-6
    evaluation = evaluate_dataset(potential, folder / "metals.h5").table
    assert evaluation["set"].value_counts().to_dict() == {"train": fit.n_train + 3, "held out": fit.n_held_out}
    assert (evaluation.set_index("id").loc[[80, 81], "set"] == "train").all()


def test_a_single_potential_knows_its_free_atoms(folder, tmp_path):
    fit_dataset(folder / "metals.h5", tmp_path / "p", twojmax=2, cutoff=CUTOFF, held_out_fraction=0.2)
    table = evaluate_dataset(tmp_path / "p", folder / "metals.h5").table.set_index("id")
    assert (table.loc[[80, 81, 82], "set"] == "train").all()
    assert table.loc[[80, 81], "energy_error"].to_numpy() == pytest.approx(0.0, abs=1e-6)


class TestOfAStudy:
    def test_other_levels_have_the_offset_of_their_labels(self, folder):
        prepared = prepare_study(load_study(write_study(folder)))
        assert len(prepared.dataset) == 80
        assert prepared.dropped_ids == []
        energies = prepared.reference_energies.energies
        assert energies["good"] == FREE
        assert energies["cheap"] == pytest.approx({symbol: FREE[symbol] + OFFSET[symbol] for symbol in FREE})
        text = prepared.reference_energies.describe("cheap")
        assert text.startswith("Cu -1.25 eV (isolated atom at level good, plus the offset of the labels), Al -2.75 eV")

    def test_isolated_atoms_without_a_label_at_the_levels_are_ordinary(self, folder):
        prepared = prepare_study(load_study(write_study(folder, levels=["cheap"])))
        assert prepared.dropped_ids == [80, 81, 82]
        assert prepared.reference_energies.isolated_atoms == []
        assert prepared.reference_energies.describe("cheap") == "Cu (fitted), Al (fitted)"

    def test_energies_may_be_given_for_elements_and_levels(self, folder):
        setting = {"Cu": -7.0, "cheap": {"Al": -4.0}}
        prepared = prepare_study(load_study(write_study(folder, reference_energies=setting)))
        energies = prepared.reference_energies.energies
        assert energies["good"] == {"Cu": -7.0, "Al": -2.25}
        assert energies["cheap"] == pytest.approx({"Cu": -7.0 + OFFSET["Cu"], "Al": -4.0})
        assert prepared.reference_energies.describe("good") == "Cu -7 eV (given), Al -2.25 eV (isolated atom)"

    def test_networks_have_the_same_energies(self, folder):
        prepared = prepare_study(load_study(write_study(folder)))
        model = _set_atomic_energies(MaceSettings(isolated_atoms={"Cu": -9.0}), prepared, "good")
        assert model.isolated_atoms == {"Cu": -9.0, "Al": -2.25}

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ({"Ag": -1.0}, "'reference_energies' has Ag; the basis has Cu, Al"),
            ({"chaep": {"Cu": -1.0}}, "'reference_energies' has the level 'chaep'; .* did you mean 'cheap'"),
            ("islated", "'reference_energies': must be auto, isolated, fitted, or energies in eV by element"),
            ({"Cu": "x"}, "'reference_energies': the energy of Cu must be a finite number of eV"),
            ({"Xx": 1.0}, "'reference_energies': 'Xx' is not a chemical symbol"),
        ],
    )
    def test_wrong_settings_are_refused(self, folder, setting, message):
        with pytest.raises(InputError, match=message):
            prepare_study(load_study(write_study(folder, reference_energies=setting)))

    def test_an_isolated_atom_is_no_reference_configuration(self, folder):
        with pytest.raises(InputError, match="'reference_configuration' is 81, an isolated atom"):
            prepare_study(load_study(write_study(folder, reference_configuration=81)))

    def test_isolated_atoms_are_required_for_every_element(self, tmp_path):
        structures = [atoms for atoms in build_structures() if len(atoms) > 1 or atoms.symbols[0] == "Cu"]
        labels = [{**label(atoms, {}), "forces": np.zeros((len(atoms), 3))} for atoms in structures]
        write_dataset(tmp_path / "metals.h5", structures, {"good": LevelData(labels)})
        changes = {"levels": ["good"], "reference_energies": "isolated"}
        with pytest.raises(InputError, match="requires a labelled isolated atom of Al in .* within 3.9 Å; label one"):
            prepare_study(load_study(write_study(tmp_path, **changes)))
        prepared = prepare_study(load_study(write_study(tmp_path, **{**changes, "reference_energies": "auto"})))
        assert prepared.reference_energies.describe("good") == "Cu -1.5 eV (isolated atom), Al (fitted)"

    def test_engines_agree(self, folder, tmp_path):
        basis = {**STUDY["basis"], "bzeroflag": False}
        prepared = prepare_study(load_study(write_study(folder, basis=basis, leave_one_out=True)))
        data = load_sweep_input(prepared, tmp_path)
        fast, plain = (run_sweep(data, prepared.grid, engine=make_engine(data, prepared.grid, name))
                       for name in ("fast", "plain"))  # fmt: skip
        errors = [name for name in fast if name.startswith(("train_", "test_", "ref_", "loo_"))]
        assert len(errors) >= 11
        pd.testing.assert_frame_equal(fast[errors], plain[errors], rtol=1e-6)
        assert (fast["rank"] == fast["n_features"]).all()
        assert set(fast["n_features"]) == {40, 238}

    def test_an_edit_of_the_energies_repeats_the_fits(self, folder, tmp_path):
        """Energies of zero change the rows, but not the labels."""
        tables = []
        for setting in ({"Cu": 0.0, "Al": 0.0}, {"Cu": 0.0, "Al": 1.0}, "fitted", {"Cu": 0.0, "Al": 0.0}):
            prepared = prepare_study(load_study(write_study(folder, reference_energies=setting, twojmax=[2])))
            data = load_sweep_input(prepared, tmp_path)
            tables.append(run_sweep(data, prepared.grid, journal=tmp_path))
        for other in tables[1:3]:
            assert not np.isclose(tables[0]["train_energy"], other["train_energy"], rtol=1e-3).any()
        pd.testing.assert_frame_equal(tables[0], tables[3])
        assert len(list(tmp_path.glob("sweep-*.jsonl"))) == 3

    def test_exports_are_exact_and_the_report_says_so(self, folder, tmp_path):
        run = run_study(write_study(folder, twojmax=[2]), out=tmp_path / "run")
        for level, offset in (("good", 0.0), ("cheap", OFFSET["Cu"])):
            exported = export_potential(run.folder, tmp_path / level, level=level, twojmax=2)
            assert compute_lammps_energy(exported.files, Atoms("Cu")) == pytest.approx(-1.5 + offset, abs=1e-6)
        assert any("Isolated atoms (3, the first with id 82) are in neither the" in text for text in run.warnings)
        report = run.report.read_text()
        assert "Cu -1.5 eV (isolated atom), Al -2.25 eV (isolated atom)" in report
        assert len(pd.read_csv(run.folder / "split.csv")) == 80
        record = json.loads((run.folder / "run.json").read_text())
        assert record["summary"]["Energies of free atoms"].startswith("Cu -1.5 eV")

    @pytest.mark.slow
    def test_a_fit_of_another_level_has_the_energies_of_that_level(self, folder, tmp_path):
        path = write_study(folder, reference_energies={"Cu": -7.0, "Al": -8.0})
        fit = fit_dataset(path, tmp_path / "p", level="cheap", twojmax=2)
        assert fit.potential.predict(Atoms("Cu")).energy == pytest.approx(-7.0 + OFFSET["Cu"], abs=1e-6)
        fit = fit_dataset(path, tmp_path / "q", level="cheap", twojmax=2, reference_energies={"Cu": -3.0})
        assert fit.potential.predict(Atoms("Cu")).energy == pytest.approx(-3.0, abs=1e-6)

    def test_the_template_names_the_energies(self, folder, tmp_path):
        text = write_template(folder / "metals.h5", tmp_path / "s.yaml").read_text()
        assert "reference_energies: auto    # or fitted" in text
        assert "Cu -1.5 eV (isolated atom), Al -2.25 eV (isolated atom)" in text


def test_the_template_without_isolated_atoms_has_no_such_key(tmp_path):
    structures = [atoms for atoms in build_structures() if len(atoms) > 1]
    write_dataset(tmp_path / "d.h5", structures, {"good": LevelData([label(atoms, {}) for atoms in structures])})
    assert "reference_energies" not in write_template(tmp_path / "d.h5", tmp_path / "s.yaml").read_text()


@pytest.mark.slow
def test_the_option_of_the_command_line(folder, tmp_path):
    fit = ["fit", folder / "metals.h5", "--twojmax", "2", "-o", tmp_path / "p", "--no-progress"]
    result = call(*fit, "--reference-energies", "Cu=-3.5")
    assert result.returncode == 0, result.stderr
    assert "energies of free atoms: Cu -3.5 eV (given), Al -2.25 eV (isolated atom)" in result.stdout
    result = call(*fit, "--force", "--reference-energies", "Cu")
    assert result.returncode == 2
    assert "--reference-energies must be" in result.stderr


def test_clusters_whose_atoms_are_outside_their_cell_are_checked(tmp_path):
    """LAMMPS lost such atoms in the comparison of an exported potential with its model."""
    structures = [atoms for atoms in build_structures() if len(atoms) > 1]
    for atoms in structures:
        atoms.pbc = False
        atoms.positions -= 0.3
    write_dataset(tmp_path / "d.h5", structures, {"good": LevelData([label(atoms, {}) for atoms in structures])})
    fit = fit_dataset(tmp_path / "d.h5", tmp_path / "p", twojmax=2)
    assert fit.check_problem == ""
    assert fit.deviation < 1e-8


def test_isolated_atoms_are_in_the_dataset_of_a_study_with_fitted_energies(folder):
    changes = {"levels": ["good"], "reference_energies": "fitted"}
    prepared = prepare_study(load_study(write_study(folder, **changes)))
    with Dataset(folder / "metals.h5") as data:
        assert len(prepared.dataset) == len(data) == 83
    assert prepared.reference_energies.isolated_atoms == []
