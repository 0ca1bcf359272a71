"""Files of SNAP potentials: names that LAMMPS can read, and files that no potential can have."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from paretofit.commands import evaluate_md_speed, export_potential, fit_dataset
from paretofit.core import InputError, create_lammps
from paretofit.descriptors import ReferencePotential, SnapBasis
from paretofit.potentials import LinearPotential, check_exported_files, find_potential_files, read_snap
from paretofit.validation import parse_potential

READABLE_NAMES = [
    "my pot",
    "a#b",
    "#",
    "a & b",
    "amp&",
    "a;b",
    "a*b?",
    "%s{x}",
    " lead",
    "trail ",
    "-x",
    "(a)",
    "~",
    "v1.2",
]
UNREADABLE_NAMES = ["it's", 'say "x"', '"', "$x", "${x}", "Bé", "Be–pot", "Be\u00a0x", "鉄", "a\nb", "a\tb", "a\\b",
                    "a/b", "../a", "", ".", "..", ".hidden", "x" * 300, "\ud800"]  # fmt: skip
INVALID_PARAMETERS = {
    "rcutfac 4.0": ["rcutfac -1", "rcutfac nan", "rcutfac inf", "rcutfac 0", "rcutfac 1e6", "rcutfac",
                    "rcutfac 4.0 5.0", "rcutfac four", "rcutfac 4.0\nrcutfac 5.0", ""],
    "twojmax 2": ["twojmax -2", "twojmax 200", "twojmax 2.5", "twojmax nan", "twojmax inf", "twojmax 8"],
    "rfac0 0.99363": ["rfac0 0", "rfac0 nan", "rfac0 2"],
    "rmin0 0.0": ["rmin0 -1", "rmin0 nan", "rmin0 9"],
    "quadraticflag 0": ["quadraticflag 7", "quadraticflag -1", "quadraticflag 0.5", "quadraticflag nan",
                        "quadraticflag 1"],
    "bzeroflag 1": ["bzeroflag 2", "diagonalstyle 2", "switchinnerflag 1", "unknown 1"],
}  # fmt: skip
INVALID_COEFFICIENTS = {
    "1 6": ["1 5", "1 7", "2 6", "0 6", "-1 6", "1 -6", "1.5 6", "1 999999999999", "999999999999 6", "1",
            "1 6 7", "nan 6"],
    "Cu 0.5 1.0": ["Xx 0.5 1.0", "X 0.5 1.0", "cu 0.5 1.0", "Cu -0.5 1.0", "Cu nan 1.0", "Cu 0.5 nan", "Cu 0.5",
                   "Cu 0.5 1 1"],
    "0.125": ["nan", "inf", "-inf", "x", "", "0.125 0.125", "0.125\n0.125"],
}  # fmt: skip


def make_potential(reference: ReferencePotential | None = None) -> LinearPotential:
    basis = SnapBasis(elements=["Cu"], twojmax=2, rcutfac=4.0, quadratic=False)
    return LinearPotential(basis, np.array([-1.0, 0.125, 0.25, 0.01, 0.02, 0.03]), reference)


def make_structure() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    return atoms


@pytest.mark.parametrize("name", READABLE_NAMES)
@pytest.mark.parametrize("reference", [None, ReferencePotential("hybrid/overlay zbl 4.0 4.8", ("* * zbl 29 29",))])
def test_lammps_includes_files_with_any_accepted_name(name, reference, tmp_path):
    folder = tmp_path / 'it\'s a "folder" #1 é'  # LAMMPS runs in it
    potential = make_potential(reference)
    files = potential.write(folder, name)
    check_exported_files(files, potential, [make_structure()])
    again = LinearPotential.read(files.include)
    np.testing.assert_array_equal(again.coefficients, potential.coefficients)
    assert again.reference == reference


@pytest.mark.parametrize("name", UNREADABLE_NAMES)
def test_names_that_lammps_cannot_read_are_refused_before_any_work(name, tmp_path):
    for write in (make_potential().write, lambda out, name: fit_dataset("no dataset", out, name=name),
                  lambda out, name: export_potential("no run", out, name=name)):  # fmt: skip
        with pytest.raises(InputError, match="the files of a potential cannot have the name"):
            write(tmp_path / "out", name)
    assert not list(tmp_path.iterdir())


def test_the_include_file_is_what_is_compared(tmp_path):
    potential = make_potential()
    files = potential.write(tmp_path, "a")
    text = files.include.read_text()
    files.include.write_text(text.replace("a.snapcoeff", "b.snapcoeff"))
    with pytest.raises(InputError, match="a.mod"):
        check_exported_files(files, potential, [make_structure()])
    files.include.write_text(text)
    other = LinearPotential(potential.basis, 1.01 * potential.coefficients)
    with pytest.raises(InputError, match="deviates"):
        check_exported_files(files, other, [make_structure()])


@pytest.mark.parametrize("folder", ["a folder", "it's", 'say "x"', "#1", "$x"])
def test_potentials_in_any_folder_are_read_by_lammps(folder, tmp_path):
    make_potential().write(tmp_path / folder, "my pot")
    atoms = make_structure()
    atoms.calc = parse_potential(str(tmp_path / folder)).create_calculator()
    assert atoms.get_potential_energy() == pytest.approx(make_potential().predict(atoms).energy)


def test_folders_with_other_characters_are_relative_or_refused(tmp_path, monkeypatch):
    make_potential().write(tmp_path / "José" / "ü", "a")
    with pytest.raises(InputError, match="LAMMPS cannot read the path"):
        _ = find_potential_files(tmp_path / "José" / "ü").commands
    monkeypatch.chdir(tmp_path / "José" / "ü")
    instance = create_lammps()
    instance.commands_string("units metal\nregion b block 0 9 0 9 0 9\ncreate_box 1 b\nmass 1 1.0")
    instance.commands_string("\n".join(find_potential_files(Path.cwd()).commands))


def test_scripts_may_quote_their_files(tmp_path):
    files = make_potential().write(tmp_path, "my pot #1")
    script = tmp_path / "in script"
    script.write_text('pair_style snap\npair_coeff * * "my pot #1.snapcoeff" \'my pot #1.snapparam\' Cu  # "comment\n')
    assert parse_potential(str(script)).commands == tuple(files.commands)


@pytest.mark.parametrize(
    ("line", "text"), [(line, text) for line, texts in INVALID_PARAMETERS.items() for text in texts]
)
def test_parameters_that_no_potential_has_are_refused(line, text, tmp_path):
    files = make_potential().write(tmp_path, "a")
    content = files.parameters.read_text()
    assert f"{line}\n" in content
    files.parameters.write_text(content.replace(f"{line}\n", f"{text}\n"))
    with pytest.raises(InputError, match=r"a\.snap"):
        read_snap(files.include)


@pytest.mark.parametrize(
    ("line", "text"), [(line, text) for line, texts in INVALID_COEFFICIENTS.items() for text in texts]
)
def test_coefficients_that_no_potential_has_are_refused(line, text, tmp_path):
    files = make_potential().write(tmp_path, "a")
    content = files.coefficients.read_text()
    assert f"{line}\n" in content
    files.coefficients.write_text(content.replace(f"{line}\n", f"{text}\n", 1))
    with pytest.raises(InputError, match=r"a\.snapcoeff"):
        read_snap(files.include)


def test_files_that_are_no_text_are_refused(tmp_path):
    files = make_potential().write(tmp_path, "a")
    files.parameters.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"a\.snapparam"):
        read_snap(files.include)


def test_older_list_of_components_is_accepted_also_by_lammps(tmp_path):
    files = make_potential().write(tmp_path, "a")
    with files.parameters.open("a") as stream:
        stream.write("diagonalstyle 3\n")
    np.testing.assert_array_equal(LinearPotential.read(tmp_path).coefficients, make_potential().coefficients)
    atoms = make_structure()
    atoms.calc = parse_potential(str(tmp_path)).create_calculator()
    assert atoms.get_potential_energy() == pytest.approx(make_potential().predict(atoms).energy)
    assert evaluate_md_speed(tmp_path).us_per_atom_step > 0
