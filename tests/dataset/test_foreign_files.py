"""Files as other programs write them: keys in any case, several names of a label, links, aborted loops, text ids."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from paretofit import Dataset, InputError
from paretofit.dataset import import_dataset
from paretofit.dataset.io.dft_outputs import add_output_details

CELL = 'Lattice="0 2.7 2.7 2.7 0 2.7 2.7 2.7 0"'
VOLUME = 2 * 2.7**3


def frame(header="energy=-10.8", columns="forces:R:3", *, cell=CELL, pbc='pbc="T T T"', shift=0.0):
    """Two Si atoms as extended XYZ, the second moved by `shift` Å."""
    rows = [f"Si {x} {x} {x} 0.1 0.2 0.3\n" for x in (0.0, 1.35 + shift)]
    return f"2\n{cell} Properties=species:S:1:pos:R:3:{columns} {header} {pbc}\n" + "".join(rows)


def imported(folder, text, **options):
    (folder / "a.xyz").write_text(text)
    return import_dataset(folder / "d.h5", {"a": folder / "a.xyz"}, **options)


def read_labels(folder):
    with Dataset(folder / "d.h5") as data:
        return data.labels("a")


@pytest.mark.parametrize("pbc", ["", 'PBC="T T T"', 'Pbc="T T T"'])
@pytest.mark.parametrize("change", [str.lower, str.upper])
def test_keys_of_the_cell_are_read_in_any_case(tmp_path, change, pbc):
    text = (
        frame(pbc=pbc).replace("Lattice=", f"{change('Lattice')}=").replace("Properties=", f"{change('Properties')}=")
    )
    imported(tmp_path, text.replace("species:S:1:pos", "Species:S:1:Pos"))
    with Dataset(tmp_path / "d.h5") as data:
        assert data[0].pbc.all()
        assert data[0].cell.volume == pytest.approx(VOLUME)


def test_a_quoted_text_that_looks_like_a_key_is_not_changed(tmp_path):
    imported(tmp_path, frame('energy=-10.8 note="lattice=fcc pbc=no"'))
    with Dataset(tmp_path / "d.h5") as data:
        assert data[0].info["note"] == "lattice=fcc pbc=no"


def test_a_cell_under_another_key_is_refused(tmp_path):
    with pytest.raises(InputError, match="has 'cell' but no 'Lattice'; if 'cell' is its cell, rename it"):
        imported(tmp_path, frame(cell=CELL.replace("Lattice", "cell")))


def test_a_crystal_without_a_cell_is_said(tmp_path):
    notes = imported(tmp_path, frame(cell="")).notes
    assert any("structures are periodic along zero or dependent cell vectors" in note for note in notes)


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        (frame(), frame(columns="force:R:3", shift=0.1), ["forces (1 structures)", "force (1 structures)"]),
        (
            frame("REF_energy=-10.8", "REF_forces:R:3"),
            frame(shift=0.1),
            ["REF_energy (1 structures)", "energy (1 structures)"],
        ),
        (
            frame('energy=-10.8 stress="1 0 0 0 1 0 0 0 1"'),
            frame(f'energy=-10.8 virial="{-VOLUME} 0 0 0 {-VOLUME} 0 0 0 {-VOLUME}"', shift=0.1),
            ["stress (1 structures)", "virial (1 structures)"],
        ),
    ],
)
@pytest.mark.parametrize("is_folder", [False, True])
def test_known_names_are_resolved_in_each_structure(tmp_path, first, second, names, is_folder):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "1.xyz").write_text(first)
    (tmp_path / "files" / "2.xyz").write_text(second)
    (tmp_path / "all.xyz").write_text(first + second)
    summary = import_dataset(tmp_path / "d.h5", {"a": tmp_path / ("files" if is_folder else "all.xyz")})
    assert summary.n_labels == {"a": 2}
    note = next(note for note in summary.notes if "labels were taken from" in note)
    assert all(name in note for name in names)
    if "stress" in names[0]:
        np.testing.assert_allclose(read_labels(tmp_path).stress, [[1, 1, 1, 0, 0, 0]] * 2, rtol=1e-9)


def test_a_structure_takes_all_labels_from_one_family(tmp_path):
    """An atom with two energies has the energy of the family that the other structures have."""
    mixed = frame("energy=-1 REF_energy=-10.8", "REF_forces:R:3")
    atom = f"1\n{CELL} Properties=species:S:1:pos:R:3 energy=-0.1 REF_energy=-0.8\nSi 0 0 0\n"
    imported(tmp_path, atom + mixed)
    assert read_labels(tmp_path).energy.tolist() == [-0.8, -10.8]


def test_hints_do_not_lead_in_circles(tmp_path):
    notes = imported(tmp_path, frame() + frame(columns="force:R:3", shift=0.1), forces_key="force").notes
    assert not any("--forces-key a=" in note for note in notes)
    assert any("'forces' (1 structures) was not read, because --forces-key chose 'force'" in note for note in notes)


def test_the_energy_that_the_user_chose_is_read_although_others_are_free_energies(tmp_path):
    text = frame("energy=-10.7 free_energy=-10.9") + frame("energy=-10.8", shift=0.1)
    assert imported(tmp_path, text, energy_key="energy").n_labels == {"a": 2}
    assert read_labels(tmp_path).energy.tolist() == [-10.7, -10.8]


@pytest.mark.parametrize(
    ("text", "option", "quantity", "value"),
    [
        (frame("energy_per_atom=-5.4"), "--energy-key a=energy_per_atom", "energy", -10.8),
        (frame("E=-10.8"), "--energy-key a=E", "energy", -10.8),
        (frame("E_pa=-5.4"), "--energy-key a=E_pa", "energy", -10.8),
        (frame("etot=-10.8"), "--energy-key a=etot", "energy", -10.8),
        (frame(columns="f:R:3"), "--forces-key a=f", "forces", 0.1),
        (frame(columns="gradient:R:3"), "--forces-key a=gradient", "forces", -0.1),
        (frame(columns="fx:R:1:fy:R:1:fz:R:1"), "--forces-key a=fx_fy_fz", "forces", 0.1),
    ],
)
def test_probable_labels_are_named_with_a_remedy_that_works(tmp_path, text, option, quantity, value):
    notes = imported(tmp_path, text).notes
    assert any(f"add {option}" in note for note in notes)
    key = option.rpartition("=")[2]
    summary = imported(tmp_path, text, overwrite=True, **{f"{quantity}_key": key})
    assert summary.n_labels == {"a": 1}
    assert np.ravel(getattr(read_labels(tmp_path), quantity))[0] == pytest.approx(value)
    is_converted = key in {"energy_per_atom", "E_pa", "gradient"}
    assert any(f"'{key}' was read as" in note for note in summary.notes) == is_converted


def test_six_numbers_of_a_virial_are_read_only_if_asked_and_those_of_a_stress_always(tmp_path):
    virial = frame('energy=-10.8 virial="1 2 3 4 5 6"')
    notes = imported(tmp_path, virial).notes
    assert any("(xx, yy, zz, yz, xz, xy of six numbers), add --stress-key a=virial" in note for note in notes)
    assert np.isnan(read_labels(tmp_path).stress).all()
    imported(tmp_path, virial, stress_key="virial", overwrite=True)
    np.testing.assert_allclose(read_labels(tmp_path).stress[0], -np.arange(1, 7) / VOLUME)
    notes = imported(tmp_path, frame('energy=-10.8 stress="1 2 3 4 5 6"'), overwrite=True).notes
    assert read_labels(tmp_path).stress[0].tolist() == [1, 2, 3, 4, 5, 6]
    assert any("'stress' were read in the order xx, yy, zz, yz, xz, xy" in note for note in notes)


def test_the_virial_of_a_slab_is_said_to_be_unused(tmp_path):
    notes = imported(tmp_path, frame('energy=-10.8 virial="1 0 0 0 1 0 0 0 1"', pbc='pbc="T T F"')).notes
    assert any("'virial' of 1 structures was not used: they are not periodic" in note for note in notes)
    assert not any("taken from" in note or "--stress-key" in note for note in notes)


@pytest.mark.parametrize("key", ["config_id", "id"])
def test_ids_that_are_text_are_stored_and_structures_matched_by_geometry(tmp_path, key):
    frames = [frame(f"energy=-10.8 {key}=bulk_{k}", shift=0.1 * k) for k in range(3)]
    (tmp_path / "b.xyz").write_text("".join(frames[:0:-1]))
    (tmp_path / "a.xyz").write_text("".join(frames))
    summary = import_dataset(tmp_path / "d.h5", {"a": tmp_path / "a.xyz", "b": tmp_path / "b.xyz"})
    assert summary.n_labels == {"a": 3, "b": 2}
    assert any(f"'{key}' has text, such as 'bulk_0'" in note for note in summary.notes)
    with Dataset(tmp_path / "d.h5") as data:
        assert [record["config_name"] for record in data.info_records] == ["bulk_0", "bulk_1", "bulk_2"]


def test_links_to_directories_are_followed_once(tmp_path):
    store, level = tmp_path / "store", tmp_path / "level"
    for folder in (store / "run1", store / "run2", level / "sub"):
        folder.mkdir(parents=True)
    (store / "run1" / "a.xyz").write_text(frame())
    (store / "run2" / "a.xyz").write_text(frame(shift=0.1))
    (store / "run2" / "previous").symlink_to("../run1")
    (level / "first").symlink_to(store / "run1")
    (level / "second").symlink_to(Path("../store/run2"))
    (level / "sub" / "up").symlink_to(level)
    (level / "broken").symlink_to("nowhere")
    summary = import_dataset(tmp_path / "d.h5", {"a": level})
    assert summary.n_labels == {"a": 2}
    assert any("under another name were not followed: second/previous, sub/up" in note for note in summary.notes)


def test_many_files_that_are_no_structures_are_counted_by_suffix(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.xyz").write_text(frame())
    for k in range(7):
        (tmp_path / "files" / f"{k}.{'cif' if k else 'tar.gz'}").write_text("")
    notes = import_dataset(tmp_path / "d.h5", {"a": tmp_path / "files"}).notes
    assert any("7 files" in note and "1 .tar.gz, 6 .cif" in note for note in notes)


@pytest.mark.parametrize(
    ("end", "is_converged"),
    [
        ("aborting loop because EDIFF is reached", True),
        ("aborting loop EDIFF was not reached (unconverged)", False),
        ("aborting loop because hard stop was set", False),
    ],
)
@pytest.mark.parametrize("limit", ["   NELM   =     60;   NELMIN=  2\n", ""])
def test_outcar_says_why_a_loop_ended(tmp_path, end, is_converged, limit):
    from collections import Counter

    step = "------ {end} -------\n  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n"
    text = limit + step.format(end=end) + step.format(end="aborting loop because EDIFF is reached")
    (tmp_path / "OUTCAR").write_text(text)
    structures, notes = [Atoms("H"), Atoms("H")], Counter()
    add_output_details(tmp_path / "OUTCAR", "vasp-out", structures, notes)
    assert [atoms.info.get("scf_converged", True) for atoms in structures] == [is_converged, True]
