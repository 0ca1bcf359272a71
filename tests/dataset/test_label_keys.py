"""Every key of a file is read as a label, stored, or named with what to do; nothing is passed over."""

import bz2
import gzip
import json
import lzma

import numpy as np
import pytest

from paretofit import Dataset, InputError
from paretofit.commands import import_labels, inspect_dataset
from paretofit.dataset import format_import_summary, import_dataset
from paretofit.dataset.io.dft_outputs import add_output_details

CELL = 'Lattice="0 2.7 2.7 2.7 0 2.7 2.7 2.7 0"'
VOLUME = 2 * 2.7**3


def frame(header="energy=-10.8", column="forces", n=2, pbc="T T T"):
    """A cell of two Si atoms as extended XYZ; `n` of 1 is a single atom."""
    properties = "species:S:1:pos:R:3" + (f":{column}:R:3" if column else "")
    force = " 0.1 0.2 0.3" if column else ""
    rows = [f"Si {1.35 * k} {1.35 * k} {1.35 * k}{force}\n" for k in range(n)]
    return f'{n}\n{CELL} Properties={properties} {header} pbc="{pbc}"\n' + "".join(rows)


def imported(folder, *frames, **options):
    (folder / "a.extxyz").write_text("".join(frames))
    return import_dataset(folder / "d.h5", {"a": folder / "a.extxyz"}, **options)


@pytest.mark.parametrize("key", ["virial", "virials", "REF_virials", "dft_virial"])
def test_virials_become_stresses(tmp_path, key):
    prefix = key.rpartition("_")[0]
    energy, column = (f"{prefix}_energy", f"{prefix}_forces") if prefix else ("energy", "forces")
    imported(tmp_path, frame(f'{energy}=-10.8 {key}="1 0.1 0.2 0.1 2 0.3 0.2 0.3 3"', column))
    with Dataset(tmp_path / "d.h5") as data:
        np.testing.assert_allclose(data.labels("a").stress[0], np.array([-1, -2, -3, -0.3, -0.2, -0.1]) / VOLUME)


def test_a_stress_comes_before_a_virial_which_is_named(tmp_path):
    summary = imported(tmp_path, frame('energy=-10.8 stress="1 0 0 0 1 0 0 0 1" virial="9 0 0 0 9 0 0 0 9"'))
    with Dataset(tmp_path / "d.h5") as data:
        assert data.labels("a").stress[0, 0] == 1.0
    assert any(
        "'virial' (1 structures) was not read" in note and "--stress-key a=virial" in note for note in summary.notes
    )


@pytest.mark.parametrize(
    ("header", "column"),
    [("energy=-10.8", "force"), ("dft_energy=-10.8", "dft_force"), ("energy_dft=-10.8", "forces_dft"),
     ("Energy=-10.8", "Forces"), ("REF_energy=-10.8", "REF_forces"), ("QM_energy=-10.8", "qm_force")],
)  # fmt: skip
def test_usual_names_are_read_and_said(tmp_path, header, column):
    summary = imported(tmp_path, frame(header, column))
    with Dataset(tmp_path / "d.h5") as data:
        assert data.labels("a").is_complete.all()
        np.testing.assert_allclose(data.labels("a").forces[0], [0.1, 0.2, 0.3])
    assert any(column in note for note in summary.notes)


def test_labels_that_are_not_read_are_named_with_their_count_and_unit(tmp_path):
    text = frame("energy=-10.8 energy_Ha=-0.4 total_energy=-11 temperature=300 config_type=bulk", "forces")
    notes = imported(tmp_path, text, text).notes
    assert any("'energy_Ha' (2 structures)" in note and "says Ha: convert it" in note for note in notes)
    assert any("'total_energy' (2 structures)" in note and "--energy-key a=total_energy" in note for note in notes)
    assert any("stored as metadata: temperature (2)" in note for note in notes)
    assert not any("config_type" in note for note in notes)


def test_columns_that_are_not_stored_are_named(tmp_path):
    text = frame().replace("forces:R:3", "forces:R:3:local_charge:R:1").replace("0.3\n", "0.3 0.5\n")
    notes = imported(tmp_path, text).notes
    assert any("not stored: local_charge (1)" in note for note in notes)


def test_free_energies_and_energies_are_never_mixed(tmp_path):
    energy_only = frame("energy=-10.7")
    notes = imported(tmp_path, frame("energy=-10.8 free_energy=-10.9"), energy_only).notes
    assert any("1 of 2 structures have a free_energy, 2 an energy: 'energy' was used for all" in note for note in notes)
    with Dataset(tmp_path / "d.h5") as data:
        assert data.labels("a").energy.tolist() == [-10.8, -10.7]
    with pytest.raises(InputError, match="must not be mixed: choose one with --energy-key"):
        imported(tmp_path, frame("free_energy=-10.9"), energy_only, overwrite=True)


def test_kinds_of_energy_that_differ_between_levels_are_said(tmp_path):
    files = {"a": "energy=-10.7", "b": "energy=-10.8 free_energy=-10.9", "c": "energy=-10.8 free_energy=-10.8"}
    for level, header in files.items():
        (tmp_path / f"{level}.extxyz").write_text(frame(header))
    paths = {level: tmp_path / f"{level}.extxyz" for level in files}
    (warning,) = import_labels(tmp_path / "d.h5", paths, match_by="order").warnings
    assert "the energies of level b are free energies" in warning
    assert "those of level a are 'energy'" in warning
    assert warning in inspect_dataset(tmp_path / "d.h5").warnings
    with pytest.raises(
        InputError, match="the energies of level 'b' are 'energy', but those in the dataset are 'free_energy'"
    ):
        import_dataset(tmp_path / "d.h5", {"b": paths["a"]}, match_by="order", append=True)
    del paths["b"]  # energies and free energies of level c are equal: there is no smearing
    assert import_labels(tmp_path / "d.h5", paths, match_by="order", overwrite=True).warnings == []


@pytest.mark.parametrize("pbc", ["T T T", "F F F"])
def test_a_single_atom_needs_no_forces(tmp_path, pbc):
    summary = imported(tmp_path, frame("energy=-0.8", "", n=1, pbc=pbc), frame())
    assert summary.n_labels == {"a": 2}


def test_energies_without_forces_are_said(tmp_path):
    text = format_import_summary(imported(tmp_path, frame(column=""), frame()))
    assert "1 of 2 structures have energy but no forces; if they are under another key, add --forces-key" in text
    assert "next: paretofit info" in text
    text = format_import_summary(imported(tmp_path, frame(column=""), overwrite=True))
    assert "no configuration has both an energy and forces" in text
    assert "paretofit init" not in text


def test_keys_of_each_level(tmp_path):
    (tmp_path / "a.xyz").write_text(frame("e_low=-10.8", "f_low"))
    (tmp_path / "b.xyz").write_text(frame("e_high=-10.9", "f_high"))
    import_dataset(
        tmp_path / "d.h5",
        {"a": tmp_path / "a.xyz", "b": tmp_path / "b.xyz"},
        energy_key={"a": "e_low", "b": "e_high"},
        forces_key={"a": "f_low", "b": "f_high"},
    )
    with Dataset(tmp_path / "d.h5") as data:
        assert [data.labels(level).energy[0] for level in "ab"] == [-10.8, -10.9]


@pytest.mark.parametrize(("suffix", "opener"), [("gz", gzip.open), ("bz2", bz2.open), ("xz", lzma.open)])
def test_compressed_members_of_a_folder_are_read_and_others_named(tmp_path, suffix, opener):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.extxyz").write_text(frame())
    with opener(folder / f"b.extxyz.{suffix}", "wt") as stream:
        stream.write(frame("energy=-10.7").replace("2.7 2.7", "2.8 2.7"))
    (folder / "c.cif.zip").write_text("")
    summary = import_dataset(tmp_path / "d.h5", {"a": folder})
    assert summary.n_configurations == 2
    assert any(
        "1 files are not structures by their names and were not read: c.cif.zip" in note for note in summary.notes
    )


def pymatgen_record(**changes):
    lattice = {"matrix": [[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0]]}
    sites = [{"species": [{"element": "Mo", "occu": 1}], "abc": [x, x, x], "xyz": [3 * x] * 3} for x in (0.0, 0.5)]
    outputs = {"energy": -20.0, "forces": [[0.1, 0, 0], [-0.1, 0, 0]], "virial_stress": [10, 20, 30, 1, 2, 3]}
    structure = {"@class": "Structure", "lattice": lattice, "sites": sites}
    return {"structure": structure, "outputs": outputs, "group": "Elastic", "num_atoms": 2, **changes}


def test_pymatgen_json_is_read_with_its_groups(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps([pymatgen_record(), pymatgen_record(group="Surface")]))
    import_dataset(tmp_path / "d.h5", {"a": tmp_path / "t.json"})
    with Dataset(tmp_path / "d.h5") as data:
        assert [record["config_type"] for record in data.info_records] == ["Elastic", "Surface"]
        np.testing.assert_allclose(data[0].positions[1], [1.5, 1.5, 1.5])
        gpa = np.array([-1.0, -2.0, -3.0, -0.2, -0.3, -0.1])  # of 10 kbar each, xx yy zz xy yz zx, compressive
        np.testing.assert_allclose(data.labels("a").stress[0], gpa / 160.21766208, rtol=1e-6)


def test_nested_pymatgen_json_and_partial_occupancies(tmp_path):
    record = pymatgen_record()
    flat = {"structure": record["structure"], "uncorrected_total_energy": -20.0, "force": [[0, 0, 0.1], [0, 0, -0.1]]}
    (tmp_path / "t.json").write_text(json.dumps({"mp-1": {"mp-1-0": flat, "mp-1-1": flat}}))
    assert import_dataset(tmp_path / "d.h5", {"a": tmp_path / "t.json"}).n_labels == {"a": 2}
    record["structure"]["sites"][0]["species"][0]["occu"] = 0.5
    (tmp_path / "t.json").write_text(json.dumps([record]))
    with pytest.raises(InputError, match="structure 0: each site must have one element with occupancy 1"):
        import_dataset(tmp_path / "e.h5", {"a": tmp_path / "t.json"})


@pytest.mark.parametrize(
    ("file_format", "text", "converged"),
    [
        (
            "espresso-out",
            "convergence has been achieved in 9 iterations\nconvergence NOT achieved after 100\n",
            [True, False],
        ),
        ("abinit-out", "scprqt: WARNING -\n nstep= 5 was not enough SCF cycles to converge;\n", [True, False]),
        ("gpaw-out", "Converged in 9 steps\nConverged in 8 steps\n", [True, True]),
        (
            "vasp-xml",
            '<i name="NELM"> 2</i><i name="EDIFF"> 1e-4</i>\n'
            + "".join(
                f'<scstep>\n<i name="e_fr_energy"> -1.0</i>\n</scstep>\n<scstep>\n<i name="e_fr_energy"> {last}</i>\n'
                "</scstep>\n</calculation>\n"
                for last in (-1.00001, -1.5)
            ),
            [True, False],
        ),
    ],
)
def test_loops_that_reached_their_limit_are_flagged(tmp_path, file_format, text, converged):
    from collections import Counter

    from ase import Atoms

    path, structures, notes = tmp_path / "output", [Atoms("H"), Atoms("H")], Counter()
    path.write_text(text)
    add_output_details(path, file_format, structures, notes)
    assert ["scf_converged" not in atoms.info for atoms in structures] == converged
    assert sum(notes.values()) == converged.count(False)


@pytest.mark.parametrize(
    ("file_format", "text", "seconds", "cores"),
    [
        ("vasp-out", "running on  576 total cores\nLOOP+: cpu time 9: real time 10\nLOOP+: cpu time 9: real time 20\n",
         [5760.0, 11520.0], 576),
        ("vasp-out", "running on  4 total cores\nLOOP+: cpu time 9.0: real time 10.0\n", [40.0, None], 4),
        ("vasp-out", "running on  4 total cores\nTotal CPU time used (sec):  30.000\n", [60.0, 60.0], 4),
        ("espresso-out", "Parallel version (MPI), running on  8 processors\n PWSCF : 1m 2.00s CPU 1m 5.00s WALL\n",
         [260.0, 260.0], 8),
        ("abinit-out", "+Overall time at end (sec) : cpu= 50.0 wall= 13.0\n", [25.0, 25.0], 1),
    ],
)  # fmt: skip
def test_costs_are_core_time(tmp_path, file_format, text, seconds, cores):
    from collections import Counter

    from ase import Atoms

    path, structures = tmp_path / "output", [Atoms("H"), Atoms("H")]
    path.write_text(text)
    add_output_details(path, file_format, structures, Counter())
    assert [atoms.info.get("cpu_seconds") for atoms in structures] == seconds
    assert structures[0].info["cores"] == cores
