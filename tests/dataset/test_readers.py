"""Formats and folders: units and signs as they are meant, and one bad file never costs the others.

There is no VASP here. `OUTCAR` and `VASPRUN` below are written by hand after the files that ASE ships with its own
tests (ase/test/testdata/vasp), shortened to the lines that are read; where ASE ships those, they are read as well.
"""

import gzip
from pathlib import Path

import ase
import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.neighborlist import neighbor_list
from helpers.file_texts import HEADER, STEP, VASPRUN, fitsnap, outcar
from helpers.importing import import_dataset

from paretofit import Dataset, InputError
from paretofit.dataset.io import get_fitsnap_unit_factors, read_frames

KBAR = 0.1 * units.GPa
STRESS = -np.array([100, 200, 300, 50, 60, 40]) * KBAR  # xx, yy, zz, yz, xz, xy; VASP writes xx yy zz xy yz zx


def save(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(("name", "text"), [("OUTCAR", outcar()), ("vasprun.xml", VASPRUN)])
def test_vasp_gives_the_force_consistent_energy_and_ases_stress(tmp_path, name, text):
    summary = import_dataset(tmp_path / "d.h5", {"a": save(tmp_path / name, text)})
    assert summary.notes == []
    with Dataset(tmp_path / "d.h5") as data:
        labels = data.labels("a")
        assert labels.energy.tolist() == [-7.5], "neither without entropy nor at sigma -> 0"
        assert labels.forces.tolist() == [[0.1, -0.2, 0.3], [-0.1, 0.2, -0.3]]
        np.testing.assert_allclose(labels.stress[0], STRESS)
        assert labels.seconds.tolist() == pytest.approx([30.0] if name == "OUTCAR" else [np.nan], nan_ok=True)
        assert data[0].cell[1].tolist() == [0.1, 3.3, 0]


def test_every_step_of_a_relaxation_is_taken_with_its_part_of_the_time(tmp_path):
    with gzip.open(tmp_path / "OUTCAR.gz", "wt") as stream:
        stream.write(outcar([-7.0, -7.2, -7.3]))
    import_dataset(tmp_path / "d.h5", {"a": tmp_path / "OUTCAR.gz"})
    with Dataset(tmp_path / "d.h5") as data:
        assert data.labels("a").energy.tolist() == [-7.0, -7.2, -7.3]
        assert data.labels("a").seconds.tolist() == [10.0] * 3
        assert [record["step"] for record in data.info_records] == [0, 1, 2]


def test_what_is_unfinished_or_not_converged_is_said(tmp_path):
    path = save(tmp_path / "OUTCAR", outcar([-7.0, -7.2], seconds=None) + STEP[:80].format(n=3, iterations=1, end=""))
    summary = import_dataset(tmp_path / "d.h5", {"a": path})
    assert summary.n_configurations == 2
    assert summary.notes == [f"{path}: unfinished calculations, whose complete steps were imported (1)"]
    save(path, outcar(iterations=60, end=""))
    summary = import_dataset(tmp_path / "d.h5", {"a": path})
    assert "did not converge" in summary.notes[0]
    with Dataset(tmp_path / "d.h5") as data:
        assert data.label_records("a")[0]["scf_converged"] is False
        assert data.find_unconverged("a").tolist() == [True]
    for text in (HEADER, outcar()[: len(HEADER) + 200]):
        with pytest.raises(InputError, match="OUTCAR is unfinished or corrupt: it contains no ionic step"):
            import_dataset(tmp_path / "d.h5", {"a": save(path, text)})
    xml = save(
        tmp_path / "vasprun.xml", VASPRUN[: VASPRUN.index('<energy><i name="e_fr_energy">-7.5</i><i name="e_wo')]
    )
    with pytest.raises(InputError, match=r"vasprun\.xml is unfinished or corrupt"):
        import_dataset(tmp_path / "d.h5", {"a": xml})


def test_the_files_that_ase_ships():
    folder = Path(ase.__file__).parent / "test" / "testdata" / "vasp"
    if not (folder / "OUTCAR_example_1").is_file():
        pytest.skip("this ASE comes without its test data")
    frames = read_frames(folder / "OUTCAR_example_1", None)
    assert frames.atoms[0].get_potential_energy(force_consistent=True) == -68.22868532
    assert frames.atoms[0].info["cpu_seconds"] == pytest.approx(512 * 124.972), "core time of 512 cores"
    stress = read_frames(folder / "vasprun_dfpt.xml", None).atoms[0].get_stress()
    assert stress[:3] == pytest.approx([-0.02252503] * 3, abs=1e-8)


def test_a_folder_of_calculations_has_its_ids_from_the_folders(tmp_path):
    for name in ("10", "9", "2"):
        save(tmp_path / "runs" / name / "OUTCAR", outcar([-float(name)], seconds=float(name)))
    save(tmp_path / "runs" / "9" / "vasprun.xml", VASPRUN.replace("-7.5", "-9.0"))
    save(tmp_path / "runs" / "11" / "OUTCAR", HEADER)
    save(tmp_path / "runs" / "12" / "INCAR", "ENCUT = 300")
    summary = import_dataset(tmp_path / "d.h5", {"5": tmp_path / "runs"})
    assert len(summary.skipped) == 2
    assert "11/OUTCAR is unfinished" in summary.skipped[0]
    assert summary.skipped[1].endswith("runs/12: no OUTCAR, vasprun.xml or output of pw.x")
    with Dataset(tmp_path / "d.h5") as data:
        assert data.ids.tolist() == [2, 9, 10]
        assert data.labels("5").energy.tolist() == [-2.0, -9.0, -10.0]
        assert data.labels("5").seconds.tolist() == [2.0, 9.0, 10.0], "the OUTCAR beside a vasprun.xml has the time"
        assert [record["source"] for record in data.info_records] == ["2/OUTCAR", "9/vasprun.xml", "10/OUTCAR"]


@pytest.mark.parametrize("comment", ["# a comment, with { in it\n", "", "file Be_1\n"])
def test_fitsnap_units_signs_and_order(tmp_path, comment):
    import_dataset(tmp_path / "d.h5", {"a": save(tmp_path / "one.json", fitsnap(comment=comment))})
    with Dataset(tmp_path / "d.h5") as data:
        assert data[0].get_chemical_symbols() == ["W", "Be"]
        assert data[0].cell[1].tolist() == [1.0, 3.3, 0.0], "rows are cell vectors"
        assert data[0].info == {"Charge": 0.5, "comment": "test", "config_id": 0}
        labels = data.labels("a")
        assert labels.energy.tolist() == [-10.0]
        assert labels.forces[0].tolist() == [0.1, -0.2, 0.3]
        np.testing.assert_allclose(labels.stress[0], STRESS, rtol=1e-12)


@pytest.mark.parametrize(
    ("style", "value", "quantity", "factor"),
    [
        ("EnergyStyle", "Hartree", "energy", units.Hartree),
        ("ForcesStyle", "hartreeperbohr", "forces", units.Hartree / units.Bohr),
        ("StressStyle", "GPa", "stress", 1e4),
        ("StressStyle", "kbar", "stress", 1e3),
        ("StressStyle", "kB", "stress", 1e3),
        ("StressStyle", "kPa", "stress", 0.01),
        ("StressStyle", "atm", "stress", 1.01325),
        ("StressStyle", "eV/Angstrom^3", "stress", 1 / units.bar),
        ("EnergyStyle", "Ry", "energy", units.Rydberg),
        ("ForcesStyle", "kcal/mol/Angstrom", "forces", units.kcal / units.mol),
    ],
)
def test_fitsnap_units_are_converted(tmp_path, style, value, quantity, factor):
    columns = []
    for k, text in enumerate((fitsnap(), fitsnap(**{style: value}))):
        import_dataset(tmp_path / "d.h5", {"a": save(tmp_path / f"{k}.json", text)})
        with Dataset(tmp_path / "d.h5") as data:
            columns.append(getattr(data.labels("a"), quantity))
    np.testing.assert_allclose(columns[1], columns[0] * factor)


WRONG_IN_FITSNAP = {"m", "meter", "meters", "cm", "centimeter", "centimeters", "newtons", "Newtons", "N", "dyne",
                    "dynes", "kg_m_per_s_per_s"}  # fmt: skip


@pytest.mark.parametrize("quantity", ["Energy", "Forces", "Positions", "Stress"])
def test_every_unit_that_fitsnap_knows_has_its_factor(quantity):
    name = {"Energy": "energy", "Forces": "force", "Positions": "length", "Stress": "pressure"}[quantity]
    module = pytest.importorskip(f"fitsnap3lib.units.{name}")
    metal = get_fitsnap_unit_factors("x", {f"{quantity}Style": "metal"})[quantity]
    for unit, factor in vars(module).items():
        if unit.startswith("__"):
            continue
        for text in (unit, unit.replace("_per_", "/")):
            actual = get_fitsnap_unit_factors("x", {f"{quantity}Style": text})[quantity] / metal
            is_wrong = unit in WRONG_IN_FITSNAP or (name, unit) == ("pressure", "atomic")
            assert is_wrong or actual == pytest.approx(factor, rel=1e-5), (unit, actual, factor)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (fitsnap(StressStyle="eV/Angstrom"), "'StressStyle' is 'eV/Angstrom', which cannot be converted"),
        (fitsnap(EnergyStyle="electronvolts"), "'EnergyStyle' is 'electronvolts', .* did you mean 'electronvolt'"),
        (fitsnap(PositionsStyle="fractional"), "'PositionsStyle' is 'fractional', which cannot be converted"),
        (fitsnap(NumAtoms=3), "'NumAtoms' is 3 but 'AtomTypes' has 2 entries"),
        (fitsnap(AtomTypes=["W", "Xx"]), "'AtomTypes' must be chemical symbols; got 'Xx'"),
        (fitsnap(Positions=[[0, 0, 0]]), r"'Positions' must have the shape \(2, 3\)"),
        (fitsnap(Stress=[[1, 2, 0], [0, 1, 0], [0, 0, 1]]), "'Stress' must be a symmetric 3 x 3 tensor"),
        (fitsnap(Energy="low"), "'Energy' must be a real number"),
        (fitsnap()[:200], "is not complete JSON"),
        ('{"Dataset": {"Data": []}}', "contains no structures"),
        ('{"Dataset": {"Data": [{"Energy": 1}]}}', "has no 'Lattice'"),
        ("", "is not complete JSON"),
        ('{"a": 1}', "cannot be read by ASE"),
    ],
)
def test_json_that_cannot_be_read(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        import_dataset(tmp_path / "d.h5", {"a": save(tmp_path / "one.json", text)})
    assert "one.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello\nworld\n", r"its content does not have the format 'extxyz'; correct the file, or convert .*\(.*hello"),
        (b"\x89PNG\xff\xfe\x00" * 30, "it is not text, as the format 'extxyz' requires; correct the file, or convert"),
    ],
)
def test_what_is_not_its_format_is_said_with_the_words_of_ase_in_brackets(tmp_path, content, message):
    (tmp_path / "structure.xyz").write_bytes(content)
    with pytest.raises(InputError, match=f"structure.xyz cannot be read by ASE: {message}"):
        import_dataset(tmp_path / "d.h5", {"a": tmp_path / "structure.xyz"})


def test_a_fitsnap_tree_survives_a_bad_file(tmp_path):
    for name in ("Bulk/Be_10", "Bulk/Be_9", "Liquid/deep/Be_1"):
        save(
            tmp_path / "JSON" / f"{name}.json",
            fitsnap(-float(name.rpartition("_")[2]), Stress=np.zeros((3, 3)).tolist()),
        )
    save(tmp_path / "JSON" / "Bulk" / "Be_7.json", fitsnap()[:100])
    (tmp_path / "JSON" / "Empty").mkdir()
    summary = import_dataset(tmp_path / "d.h5", {"a": tmp_path / "JSON"})
    assert summary.notes == [
        f"{tmp_path / 'JSON'}: stresses that are exactly zero were treated as not computed (3)",
        f"{tmp_path / 'JSON'}: keys that are not labels, stored as metadata: Charge (3)",
    ]
    assert len(summary.skipped) == 2
    assert "Be_7.json is not complete JSON" in summary.skipped[0]
    assert summary.skipped[1].endswith("JSON/Empty: no JSON file")
    with Dataset(tmp_path / "d.h5") as data:
        assert data.labels("a").energy.tolist() == [-9.0, -10.0, -1.0], "natural order, whatever the listing"
        assert [record["config_type"] for record in data.info_records] == ["Bulk", "Bulk", "Liquid/deep"]
        assert np.isnan(data.labels("a").stress).all()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "contains no structures"),
        ({"a/notes.txt": "x"}, "contains no structures"),
        (
            {"a/1.json": fitsnap()[:50], "a/2.json": "{}"},
            r"none of the 2 files in .* can be read; first error: .*1\.json",
        ),
        ({"a.json": fitsnap(), "b.xyz": "1\n\nBe 0 0 0\n"}, "JSON files and other structures"),
    ],
)
def test_folders_that_hold_nothing(tmp_path, files, message):
    (tmp_path / "folder").mkdir()
    for name, text in files.items():
        save(tmp_path / "folder" / name, text)
    with pytest.raises(InputError, match=message):
        import_dataset(tmp_path / "d.h5", {"a": tmp_path / "folder"})


def test_the_shared_fitsnap_data(shared_data):
    """Lattice rows are vectors: as columns, atoms of the sheared cells would overlap."""
    for folder, count, closest in (("fitsnap_be_json", 558, 1.1), ("fitsnap_ta_linear/JSON", 363, 1.5)):
        frames = read_frames(shared_data / folder, None)
        assert len(frames.atoms) == count
        assert frames.skipped == []
        assert min(neighbor_list("d", atoms, 3.0).min(initial=9.0) for atoms in frames.atoms[::7]) > closest
    squeezed = [atoms for atoms in frames.atoms if atoms.info["config_type"] == "Volume_BCC"]
    squeezed.sort(key=lambda atoms: atoms.cell.volume / len(atoms))
    assert squeezed[0].get_stress()[:3].max() < 0 < squeezed[-1].get_stress()[:3].min(), "ASE's sign"


@pytest.mark.parametrize("end", ["db", "json"])
def test_ase_databases_keep_row_ids_pairs_and_data(tmp_path, end):
    atoms = Atoms(
        "Cu4", cell=np.eye(3) * 3.6, pbc=True, scaled_positions=[[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    )
    with ase.db.connect(tmp_path / f"d.{end}") as database:
        for k in range(3):
            atoms.rattle(0.1, seed=k)
            atoms.calc = EMT()
            atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
            database.write(atoms, key_value_pairs={"config_type": "rattled", "seconds": 2.5}, data={"mesh": [1, 2, 3]})
        del database[2]
    import_dataset(tmp_path / "d.h5", {"emt": tmp_path / f"d.{end}"})
    with Dataset(tmp_path / "d.h5") as data:
        assert data.ids.tolist() == [1, 3]
        assert data.info_records == [{"config_type": "rattled", "mesh": [1, 2, 3]}] * 2
        labels = data.labels("emt")
        assert labels.energy[1] == pytest.approx(atoms.get_potential_energy(force_consistent=True), abs=1e-12)
        np.testing.assert_allclose(labels.stress[1], atoms.get_stress(), rtol=1e-12)
        assert labels.seconds.tolist() == [2.5, 2.5]


def keyed(path, prefix, calculator=None):
    frames = []
    for k in range(3):
        atoms = Atoms("Be2", positions=[[0, 0, 0], [2 + k / 10, 0, 0]], cell=np.eye(3) * 5, pbc=True)
        atoms.info.update({f"{prefix}energy": -1.0 - k, f"{prefix}stress": np.arange(9.0), "config_id": k})
        atoms.arrays[f"{prefix}forces"] = np.full((2, 3), k + 0.5)
        if calculator is not None:
            atoms.calc = SinglePointCalculator(atoms, energy=calculator, forces=np.zeros((2, 3)))
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")
    return path


@pytest.mark.parametrize("prefix", ["REF_", "dft_", "my_"])
def test_labels_under_mace_style_keys(tmp_path, prefix):
    """REF_ and its like are found and said; others must be named, one key being enough."""
    path = keyed(tmp_path / "m.xyz", prefix)
    if prefix == "my_":
        with pytest.raises(
            InputError,
            match="specify the key, for example with --energy-key a=my_energy for the energy and with --forces-key a=m",
        ):
            import_dataset(tmp_path / "d.h5", {"a": path})
    for options in ({"energy_key": f"{prefix}energy"}, {} if prefix != "my_" else {"energy_key": "{level}_energy"}):
        summary = import_dataset(tmp_path / "d.h5", {"my": path}, **options)
        assert f"{prefix}forces" in summary.notes[0]
        with Dataset(tmp_path / "d.h5") as data:
            assert data.labels("my").energy.tolist() == [-1.0, -2.0, -3.0]
            assert data.labels("my").forces[2].tolist() == [1.5] * 3
            assert data.labels("my").stress[0].tolist() == [0.0, 4.0, 8.0, 5.0, 2.0, 1.0]
            assert data[0].info == {"config_id": 0}


def test_named_keys_come_before_results_and_unknown_ones_are_refused(tmp_path):
    path = keyed(tmp_path / "m.xyz", "REF_", calculator=7.0)
    summary = import_dataset(tmp_path / "d.h5", {"a": path})
    assert "has 'REF_energy' and 'energy'; 'energy' was used" in summary.notes[0]
    with Dataset(tmp_path / "d.h5") as data:
        assert data.labels("a").energy.tolist() == [7.0] * 3
    import_dataset(tmp_path / "d.h5", {"a": path}, energy_key="REF_energy")
    with Dataset(tmp_path / "d.h5") as data:
        assert data.labels("a").energy.tolist() == [-1.0, -2.0, -3.0]
    with pytest.raises(
        InputError, match=r"m\.xyz: no structure has the energy key 'REF_enrgy'.* did you mean 'REF_energy'"
    ):
        import_dataset(tmp_path / "d.h5", {"a": path}, energy_key="REF_enrgy")
    with pytest.raises(
        InputError, match=r"no structure has the stress key 'T'; specify the key, .* --stress-key a=REF_st"
    ):
        import_dataset(tmp_path / "d.h5", {"a": path}, stress_key="T")
