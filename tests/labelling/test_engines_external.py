"""ABINIT and pw.x as they are installed, against GPAW's shipped labels and against their own energies; VASP's files."""

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.vasp.create_input import GenerateVaspInput
from ase.io.abinit import read_abinit_in
from ase.units import GPa
from scipy.spatial.transform import Rotation

from paretofit import Dataset, InputError
from paretofit.commands import LabelStudy, read_label_outputs, write_label_inputs
from paretofit.dataset import import_dataset
from paretofit.labelling import PAPER_LADDER, LabelSettings, Level, ScfSettings, SmearingSettings
from paretofit.labelling.engines import Abinit, EngineError, Espresso, Gpaw, NotConvergedError, Vasp

LEVELS = {level.name: level for level in PAPER_LADDER}
SHEAR = np.array([[0, 0.03, 0], [0.02, 0, 0.01], [0, 0, 0.04]])
UPF = Path("/usr/share/espresso/pseudo")

UPF_1 = """   0                   Version Number
  B                    Element
   US                  Ultrasoft pseudopotential
    T                  Nonlinear Core Correction
 SLA  PW   PBE  PBE     PBE  Exchange-Correlation functional
    3.00000000000      Z valence
"""

needs_abinit = pytest.mark.skipif(
    shutil.which("abinit") is None or find_spec("gpaw_data") is None,
    reason="ABINIT (apt install abinit) or gpaw-data is not installed",
)
needs_espresso = pytest.mark.skipif(
    shutil.which("pw.x") is None or not (UPF / "Al.pz-vbc.UPF").exists(),
    reason="pw.x or its example pseudopotentials (apt install quantum-espresso-data) are not installed",
)
for_each_program = pytest.mark.parametrize(
    "case", [pytest.param("abinit", marks=needs_abinit), pytest.param("espresso", marks=needs_espresso)], indirect=True
)


def skewed(symbol, crystal, a):
    """Two atoms, shaken, in a cell without right angles or symmetry."""
    atoms = bulk(symbol, crystal, a=a) * (1, 1, 2)
    atoms.rattle(0.1, seed=1)
    atoms.set_cell(atoms.cell[:] @ (np.eye(3) + SHEAR), scale_atoms=True)
    return atoms


@pytest.fixture
def case(request):
    """An engine, a configuration that it has pseudopotentials for, and a coarse level."""
    if request.param == "abinit":
        return Abinit(), skewed("Be", "fcc", 3.2), LEVELS["2"]
    return (
        Espresso(pseudopotentials=UPF),
        skewed("Al", "fcc", 4.0),
        LEVELS["2"].model_copy(update={"functional": "LDA"}),
    )


def against_gpaw(beryllium, tmp_path, chosen):
    """Largest differences of forces, stress and energies per atom, the latter less their common zero."""
    ids = beryllium.ids.tolist()
    energies, forces, stress = [], [], []
    for level, identity in chosen:
        configuration = beryllium.select([ids.index(identity)])
        stored, folder = configuration.labels(level), tmp_path / f"{level}-{identity}"
        folder.mkdir()
        outcome = Abinit().compute(configuration[0], LEVELS[level], 0, folder)
        energies.append((outcome.energy - stored.energy[0]) / len(configuration[0]))
        forces.append(np.abs(outcome.forces - stored.forces).max())
        stress.append(np.abs(outcome.stress - stored.stress[0]).max())
    return max(forces), max(stress), np.ptp(energies)


@needs_abinit
def test_abinit_and_gpaw_agree_on_the_same_paw_data(beryllium, tmp_path):
    """Within what two codes of one method differ by; the zero of energy is not the same."""
    chosen = [("2", 0), ("3", 23), ("2", 27), ("3", 27)]  # two and eight atoms
    forces, stress, energy = against_gpaw(beryllium, tmp_path, chosen)
    assert forces < 0.006
    assert stress < 0.3 * GPa
    assert energy < 0.002


@needs_abinit
@pytest.mark.slow
def test_abinit_and_gpaw_agree_on_eight_atoms_far_from_equilibrium(beryllium, tmp_path):
    forces, stress, energy = against_gpaw(beryllium, tmp_path, [("3", 37), ("3", 40), ("4", 46)])  # forces to 3 eV/Å
    assert forces < 0.006
    assert stress < 0.3 * GPa
    assert energy < 0.002


@for_each_program
def test_forces_are_the_derivative_of_the_energy(case, tmp_path):
    """With so wide a smearing E and F = E - TS have clearly different slopes."""
    engine, atoms, level = case
    level = level.model_copy(update={"smearing": SmearingSettings(method="fermi-dirac", width_ev=0.8)})
    step = 0.02
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[0, 1] += sign * step
        energies.append(engine.compute(moved, level, 0, tmp_path).energy)
    outcome = engine.compute(atoms, level, 0, tmp_path)
    assert outcome.forces[0, 1] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=0.003)
    assert abs(outcome.forces[0, 1]) > 0.05
    assert outcome.info["iterations"] > 2
    assert 0 < outcome.info["fermi_ev"] < 15


@for_each_program
def test_a_rotated_or_left_handed_cell_is_the_same_crystal(case, tmp_path):
    engine, atoms, level = case
    outcome = engine.compute(atoms, level, 0, tmp_path)
    turn = Rotation.from_rotvec([0.3, -0.5, 0.8]).as_matrix()
    rotated = Atoms(atoms.numbers, atoms.positions @ turn.T, cell=atoms.cell[:] @ turn.T, pbc=True)
    other = engine.compute(rotated, level, 0, tmp_path)
    assert other.energy == pytest.approx(outcome.energy, abs=1e-4)
    assert other.forces == pytest.approx(outcome.forces @ turn.T, abs=1e-3)
    left = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell[[1, 0, 2]], pbc=True)
    assert left.cell.handedness == -atoms.cell.handedness
    other = engine.compute(left, level, 0, tmp_path)
    assert other.energy == pytest.approx(outcome.energy, abs=1e-4)
    assert other.forces == pytest.approx(outcome.forces, abs=1e-3)
    assert other.stress == pytest.approx(outcome.stress, abs=0.05 * GPa)


@for_each_program
def test_unconverged_results_are_refused_and_gentler_mixing_gives_the_same_label(case, tmp_path):
    engine, atoms, level = case
    hasty = level.model_copy(update={"scf": ScfSettings(max_iterations=1)})
    with pytest.raises(NotConvergedError, match="onverge"):
        engine.compute(atoms, hasty, 0, tmp_path)
    first, third = (engine.compute(atoms, level, attempt, tmp_path) for attempt in (0, 2))
    assert third.energy == pytest.approx(first.energy, abs=1e-4)
    assert third.forces == pytest.approx(first.forces, abs=2e-3)


@for_each_program
def test_an_error_has_the_message_of_the_program(case, tmp_path):
    engine, atoms, level = case
    key, value, message = {"abinit": ("foo", 1, "FOO"), "espresso": ("mixing_mode", "foo", "mixing foo")}[engine.name]
    with pytest.raises(EngineError, match=message):
        engine.compute(atoms, level.model_copy(update={"options": {key: value}}), 0, tmp_path)
    with pytest.raises(EngineError, match="vacuum"):
        engine.compute(Atoms("H"), level, 0, tmp_path)


@for_each_program
def test_versions_files_and_valence_are_recorded(case):
    engine, atoms, _ = case
    engine.check(["Be"] if engine.name == "abinit" else ["Al"])
    assert engine.count_electrons(atoms) == {"abinit": 2 * 2, "espresso": 2 * 3}[engine.name]
    text = engine.describe_version(atoms.get_chemical_symbols()[:1])
    assert any(name in text for name in ("Be.PBE.gz (", "Al.pz-vbc.UPF ("))
    assert "unknown" not in text


@for_each_program
def test_written_inputs_are_complete(case, tmp_path):
    engine, atoms, level = case
    assert engine.write_inputs(atoms, level, tmp_path / "here") == []
    inputs = next(path for path in (tmp_path / "here").iterdir() if path.name in {"abinit.in", "espresso.pwi"})
    text = inputs.read_text()
    assert str(tmp_path) not in text
    assert "/usr" not in text
    if engine.name == "abinit":
        with inputs.open() as stream:
            same = read_abinit_in(stream)
    else:
        same = ase.io.read(inputs, format="espresso-in")
    assert same.positions == pytest.approx(atoms.positions, abs=1e-8)
    assert " ".join(map(str, level.get_kpoint_mesh(atoms))) in " ".join(text.split())


@needs_abinit
def test_abinit_takes_norm_conserving_files_too(tmp_path):
    folder = Path("/usr/share/abinit/psp")
    if not (folder / "13_Al_psml.psp8").exists():
        pytest.skip("no example pseudopotentials (apt install abinit-data)")
    engine = Abinit(pseudopotentials=folder, files={"Al": "13_Al_psml.psp8"})
    outcome = engine.compute(skewed("Al", "fcc", 4.0), LEVELS["2"], 0, tmp_path)
    assert outcome.forces.sum(axis=0) == pytest.approx(np.zeros(3), abs=1e-3)
    with pytest.raises(InputError, match="functional PBEsol"):
        engine.compute(bulk("Al"), LEVELS["2"].model_copy(update={"functional": "PBEsol"}), 0, tmp_path)


@pytest.mark.parametrize("text", ["", "Be\n", "Be\n4.0 two\n8 11\n"])
def test_a_file_that_is_no_psp8_file_is_named(text, tmp_path):
    (tmp_path / "Be.psp8").write_text(text)
    with pytest.raises(InputError, match=r"Be\.psp8 has no 'zatom zion'"):
        Abinit(pseudopotentials=tmp_path).find_pseudopotential("Be")


def test_missing_files_and_programs_are_named(tmp_path):
    (tmp_path / "Be.one.UPF").write_text('<PP_HEADER z_valence="2.0" is_paw="T" functional="PBE"/>')
    (tmp_path / "B.UPF").write_text(f"<PP_HEADER>\n{UPF_1}</PP_HEADER>")
    engine = Espresso(command="python3", pseudopotentials=tmp_path)
    assert engine.count_electrons(Atoms("Be2B")) == 7
    assert engine.find_pseudopotential("Be").kind == "paw"
    assert engine.find_pseudopotential("B").kind == "ultrasoft"
    assert engine.find_pseudopotential("B").functional == "SLA  PW   PBE  PBE"
    with pytest.raises(InputError, match=r"no file O\*.UPF in"):
        engine.check(["Be", "O"])
    (tmp_path / "Be_two.upf").touch()
    with pytest.raises(InputError, match="files: {Be: Be.one.UPF}"):
        engine.check(["Be"])
    engine.model_copy(update={"files": {"Be": "Be.one.UPF"}}).check(["Be"])
    with pytest.raises(InputError, match="apt install quantum-espresso"):
        Espresso(command="no-such-program").check(["Be"])
    with pytest.raises(InputError, match="apt install abinit"):
        Abinit(command="no-such-program").check(["Be"])
    with pytest.raises(InputError, match="'pseudopotentials'"):
        Espresso(command="python3").check(["Be"])
    with pytest.raises(InputError, match="not a directory"):
        Abinit(command="python3", pseudopotentials=tmp_path / "none").check(["Be"])


def test_settings_that_an_engine_cannot_follow_are_refused(tmp_path):
    (tmp_path / "Be.UPF").write_text('<PP_HEADER z_valence="2.0" functional="SLA PW PBX PBC"/>')
    engine, atoms, level = Espresso(pseudopotentials=tmp_path), bulk("Be"), LEVELS["1"]
    engine.write_inputs(atoms, level, tmp_path / "fine")
    for change, message in (
        ({"functional": "LDA"}, "functional LDA"),
        ({"cutoff_ev": None}, "cutoff_ev"),
        ({"options": {"ecut": 3}}, "no option 'ecut'"),
    ):
        with pytest.raises(InputError, match=message):
            engine.write_inputs(atoms, level.model_copy(update=change), tmp_path / "wrong")
    for change, message in (({"smearing": SmearingSettings(order=2)}, "order 2"), ({"cutoff_ev": None}, "cutoff_ev")):
        with pytest.raises(InputError, match=message):
            engine.check_level(level.model_copy(update=change))
    with pytest.raises(InputError, match="no input files"):
        Gpaw().write_inputs(atoms, level, tmp_path / "gpaw")


def test_engines_are_chosen_by_name():
    assert LabelSettings.model_validate({"engine": "abinit"}).engine == Abinit()
    chosen = {"name": "espresso", "pseudopotentials": "pp", "files": {"Be": "Be.UPF"}, "options": {"nbnd": 12}}
    assert LabelSettings.model_validate({"engine": chosen}).engine == Espresso(
        pseudopotentials=Path("pp"), files={"Be": "Be.UPF"}, options={"nbnd": 12}
    )


@pytest.fixture
def compound():
    """Elements in turns, in a skewed cell."""
    cell = [[4, 0.2, 0], [0, 4, 0.1], [0, 0.3, 5]]
    return Atoms("BeOBe2", positions=[[0, 0, 0], [1, 1, 1], [2, 2, 0], [0, 2, 2.0]], cell=cell, pbc=True)


def test_vasp_gets_the_levels_settings_and_the_atoms_in_their_order(compound, tmp_path, monkeypatch):
    monkeypatch.delenv("VASP_PP_PATH", raising=False)
    level = LEVELS["5"]
    engine = Vasp(files={"Be": "Be_sv"}, options={"NCORE": 4})
    assert engine.write_inputs(compound, level, tmp_path / "5" / "0") == ["POTCAR of Be_sv, O, Be_sv"]
    folder = tmp_path / "5" / "0"
    same = ase.io.read(folder / "POSCAR", format="vasp")
    assert (same.numbers == compound.numbers).all()
    assert same.positions == pytest.approx(compound.positions, abs=1e-12)
    assert same.cell[:] == pytest.approx(compound.cell[:], abs=1e-12)
    written = GenerateVaspInput()
    written.read_incar(folder / "INCAR")
    written.read_kpoints(folder / "KPOINTS")
    assert written.float_params["encut"] == 700
    assert written.float_params["sigma"] == 0.2
    assert written.int_params["ismear"] == 1
    assert written.int_params["nelm"] == 200
    assert written.int_params["ncore"] == 4
    assert written.exp_params["ediff"] == 1e-5
    assert written.string_params["gga"] == "PE"
    assert not written.bool_params["lreal"]
    assert written.input_params["gamma"]
    assert tuple(written.input_params["kpts"]) == level.get_kpoint_mesh(compound)
    assert not (folder / "POTCAR").exists()
    assert (folder / "POTCAR.spec").read_text().split() == ["Be_sv", "O", "Be_sv"]


def test_vasp_potcars_follow_the_poscar_and_give_the_valence(compound, tmp_path, monkeypatch):
    monkeypatch.setenv("VASP_PP_PATH", str(tmp_path))
    for name, valence in (("Be", 2), ("O", 6)):
        (tmp_path / "potpaw_PBE" / name).mkdir(parents=True)
        text = f" PAW_PBE {name}\n   POMASS =   9.000; ZVAL   =    {valence}.000    mass and valenz\n"
        (tmp_path / "potpaw_PBE" / name / "POTCAR").write_text(text)
    assert Vasp().count_electrons(compound) == 3 * 2 + 6
    assert Vasp().describe_version(["Be", "O"]).startswith("VASP, Be (")
    assert Vasp().write_inputs(compound, LEVELS["1"], tmp_path / "run") == []
    titles = [line for line in (tmp_path / "run" / "POTCAR").read_text().splitlines() if "PAW" in line]
    assert titles == [" PAW_PBE Be", " PAW_PBE O", " PAW_PBE Be"]
    with pytest.raises(InputError, match="potpaw_PBE/Li/POTCAR"):
        Vasp(command="python3").check(["Li"])
    with pytest.raises(InputError, match="'command'"):
        Vasp().check(["Be"])
    with pytest.raises(InputError, match="'functional'"):
        Vasp().write_inputs(compound, LEVELS["1"].model_copy(update={"functional": "none"}), tmp_path / "run")


def test_vasp_mixes_more_gently_with_each_attempt(compound, tmp_path):
    mixing = []
    for attempt in range(3):
        Vasp().write(compound, Level(name="one", cutoff_ev=300.0), attempt, tmp_path)
        incar = dict(line.split(" = ") for line in (tmp_path / "INCAR").read_text().splitlines() if " = " in line)
        mixing.append((float(incar.get("AMIX", 0.4)), int(incar["NELM"])))
    assert mixing == [(0.4, 200), (0.1, 400), (0.05, 800)]


@needs_abinit
def test_outputs_of_another_machine_become_labels(tmp_path):
    """Inputs for two labels, one of which runs: it is read as it would have been computed, the other stays to do."""
    ase.io.write(tmp_path / "be.extxyz", [bulk("Be"), bulk("Be", a=2.3, c=3.6)])
    settings = LabelSettings(structures=[tmp_path / "be.extxyz"], engine=Abinit(), levels=["1"])
    study = LabelStudy(name="be", dataset=tmp_path / "be.h5", labelling=settings)
    write_label_inputs(study, tmp_path / "inputs", out=tmp_path / "run")
    label_folder = tmp_path / "inputs" / "1" / "0"
    subprocess.run([shutil.which("abinit"), "abinit.in"], cwd=label_folder, check=True, capture_output=True)
    result = read_label_outputs(study, tmp_path / "inputs", out=tmp_path / "run")
    assert (result.n_computed, result.n_failed, result.n_remaining) == (1, 0, 1)
    direct = Abinit().compute(bulk("Be"), LEVELS["1"], 0, tmp_path)
    with Dataset(tmp_path / "be.h5") as data:
        labels = data.labels("1")
        assert labels.energy[0] == pytest.approx(direct.energy, abs=1e-6)
        assert labels.stress[0] == pytest.approx(direct.stress, abs=1e-6)
        assert labels.seconds[0] > 0
        assert not labels.is_complete[1]


@needs_espresso
def test_outputs_of_pw_are_imported_from_folders_and_unfinished_ones_named(tmp_path):
    engine, atoms = Espresso(pseudopotentials=UPF), skewed("Al", "fcc", 4.0)
    level = LEVELS["2"].model_copy(update={"functional": "LDA"})
    (tmp_path / "run").mkdir()
    outcome = engine.compute(atoms, level, 0, tmp_path / "run")
    text = (tmp_path / "run" / engine.log_name).read_text()
    for name, content in (("a/pw.out", text), ("b/scf.pwo", text.partition("JOB DONE")[0])):
        (tmp_path / "tree" / name).parent.mkdir(parents=True)
        (tmp_path / "tree" / name).write_text(content)
    summary = import_dataset(tmp_path / "d.h5", {"a": str(tmp_path / "tree")})
    assert any("scf.pwo is the output of an unfinished pw.x run" in text for text in summary.skipped)
    with Dataset(tmp_path / "d.h5") as data:
        labels = data.labels("a")
    assert labels.energy == pytest.approx([outcome.energy], abs=1e-6)
    assert labels.forces == pytest.approx(outcome.forces, abs=1e-6)
