"""FitSNAP inputs: what its own examples ask for is read in full, and nothing in a file is passed over in silence.

The inputs below are written after FitSNAP's public examples (Ta_Linear_JCP2014, Ta_Quadratic_JCP2018, WBe_PRB2019,
InP_JPCA2020, Ta_XYZ, Ta_PACE_RIDGE).
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.file_texts import SECTIONS
from hypothesis import given
from hypothesis import strategies as st

from paretofit import InputError
from paretofit.fitsnap import Group, list_group_files, read_fitsnap_input, split_group

SHARED = Path(os.environ.get("PARETOFIT_SHARED", Path(__file__).parents[3] / "shared"))
TANTALUM = SHARED / "data" / "fitsnap_ta_linear"
LISTED = "group_sections = name size eweight fweight\ngroup_types = str float float float\n"


def write(folder, text=None, **sections):
    """An input file: SECTIONS with some of them replaced, or None to leave one out."""
    path = folder / "in.in"
    merged = {**SECTIONS, **sections}
    body = "\n".join(f"[{name}]\n{content}" for name, content in merged.items() if content is not None)
    path.write_text(body if text is None else text, encoding="utf-8")
    return path


def read(folder, **sections):
    return read_fitsnap_input(write(folder, **sections))


def refused(folder, *texts, text=None, **sections):
    """The input is refused, in one line that names the file and each of `words`."""
    path = write(folder, text, **sections)
    with pytest.raises(InputError) as caught:
        read_fitsnap_input(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *texts):
        assert word in message
    return message


def group(training, testing=0):
    return Group("g", training, testing, 1.0, 1.0, 1.0)


@pytest.mark.skipif(not TANTALUM.is_dir(), reason="FitSNAP's tantalum example is not there")
class TestTantalum:
    def test_everything_is_read(self):
        settings = read_fitsnap_input(TANTALUM / "Ta-example.in")
        basis = settings.bispectrum
        assert (basis.elements, basis.twojmax, basis.rcutfac, basis.rfac0, basis.rmin0) == (
            *(("Ta",), 6, 4.67637, 0.99363, 0.0),
        )
        assert (basis.wj, basis.radelem) == ((1.0,), (0.5,))
        assert not any((basis.bzeroflag, basis.chemflag, basis.quadraticflag, basis.wselfallflag, basis.bnormflag))
        assert basis.switchflag
        assert (settings.calculator.energy, settings.calculator.force, settings.calculator.stress) == (True,) * 3
        assert settings.eshift == {"Ta": 0.0}
        assert (settings.solver.name, settings.scraper) == ("SVD", "JSON")
        assert settings.reference.commands == [
            "pair_style hybrid/overlay zero 10.0 zbl 4.0 4.8",
            "pair_coeff * * zero",
            "pair_coeff * * zbl 73 73",
        ]
        assert not settings.smartweights
        assert not settings.random_sampling
        assert settings.groups[0] == Group("Displaced_A15", 1.0, 0.0, 100.0, 1.0, 1e-8)
        assert settings.groups[7] == Group("Liquid", 1.0, 0.0, 467.0, 1.0, 1e-8)
        assert len(settings.groups) == 12
        assert (settings.metrics_file, settings.potential_file) == ("Ta_metrics.md", "Ta_pot")
        assert "[EXTRAS] dump_truth" in settings.ignored_keys
        assert "[SOLVER] compute_testerrs" in settings.ignored_keys

    def test_all_files_of_all_groups_are_for_training(self):
        settings = read_fitsnap_input(TANTALUM / "Ta-example.in")
        files = list_group_files(settings)
        assert sum(len(entry) for entry in files.values()) == 363
        assert [entry.name for entry in files["Elastic_BCC"][9:11]] == ["BCC_deformed_9.json", "BCC_deformed_10.json"]
        for entry in settings.groups:
            split = split_group(files[entry.name], entry)
            assert (split.training, split.testing, split.note) == (files[entry.name], [], "")


def test_what_a_file_does_not_say_is_as_in_fitsnap(tmp_path):
    settings = read(tmp_path, BISPECTRUM="type = Be", CALCULATOR=None, PATH="# nothing")
    basis = settings.bispectrum
    assert (basis.twojmax, basis.rcutfac, basis.rfac0, basis.rmin0, basis.wj, basis.radelem) == (
        *(6, 4.67637, 0.99363, 0.0, (1.0,), (0.5,)),
    )
    assert basis.switchflag
    assert not any((basis.bzeroflag, basis.chemflag, basis.quadraticflag, basis.switchinnerflag))
    assert settings.calculator.energy
    assert settings.calculator.stress
    assert settings.eshift == {"Be": 0.0}
    assert settings.reference.commands == ["pair_style zero 10.0", "pair_coeff * *"]
    assert (settings.solver.name, settings.solver.alpha, settings.scraper) == ("SVD", 0.0, "JSON")
    assert settings.data_path == tmp_path / "JSON"
    assert settings.ignored_keys == ()


def test_quadratic(tmp_path):
    body = "numTypes = 1\ntype = Ta\ntwojmax = 8\nrcutfac = 5.594\nbzeroflag = 1\nquadraticflag = yes\nalloyflag = 0"
    basis = read(tmp_path, BISPECTRUM=body).bispectrum
    assert (basis.twojmax, basis.rcutfac, basis.bzeroflag, basis.quadraticflag) == (8, 5.594, True, True)


def test_two_elements_with_a_reference_for_each_pair(tmp_path):
    settings = read(
        tmp_path,
        BISPECTRUM="numTypes = 2\ntwojmax = 8 8\nwj = 1.0 0.9590493408\nradelem = 0.5 0.417932464\ntype = W Be",
        ESHIFT="Be = -1.5",
        REFERENCE="pair_style = hybrid/overlay zero 10.0 zbl 4.0 4.8  # Å\npair_coeff1 = * * zero\n"
        "pair_coeff2 = 1 1 zbl 74 74\npair_coeff3 = 1 2 zbl 74 4\npair_coeff4 = 2 2 zbl 4 4",
    )
    assert settings.bispectrum.elements == ("W", "Be")
    assert settings.bispectrum.twojmax == 8
    assert settings.bispectrum.radelem == (0.5, 0.417932464)
    assert settings.eshift == {"W": 0.0, "Be": -1.5}
    assert settings.reference.pair_coeffs == ("* * zero", "1 1 zbl 74 74", "1 2 zbl 74 4", "2 2 zbl 4 4")


def test_explicit_elements_and_an_inner_switch(tmp_path):
    body = (
        "numTypes = 2\ntwojmax = 6 6\nrcutfac = 1.0\nwj = 1.0 0.9293160905266721\ntype = In P\n"
        "radelem = 3.812045629514403 3.829453817954964\nwselfallflag = 1\nchemflag = 1\nbnormflag = 1\nbzeroflag = 1\n"
        "switchinnerflag = 1\nsinner = 1.2 1.3"
    )
    basis = read(tmp_path, BISPECTRUM=body).bispectrum
    assert (basis.wselfallflag, basis.chemflag, basis.bnormflag, basis.bzeroflag) == (True,) * 4
    assert (basis.sinner, basis.dinner) == ((1.2, 1.3), (0.1, 0.1))


def test_ridge(tmp_path):
    solver = read(tmp_path, SOLVER="solver = ridge", RIDGE="local_solver = 1\nalpha = 1.e-4").solver
    assert (solver.name, solver.alpha) == ("RIDGE", 1e-4)
    assert read(tmp_path, SOLVER="solver = RIDGE").solver.alpha == 1e-8


def test_xyz_files_stand_beside_each_other(tmp_path):
    settings = read(tmp_path, SCRAPER="scraper = xyz", PATH="dataPath = XYZ")
    folder = tmp_path / "XYZ"
    folder.mkdir()
    with pytest.raises(InputError, match="'Liquid' has no file"):
        list_group_files(settings)
    (folder / "Liquid.xyz").touch()
    assert list_group_files(settings) == {"Liquid": [folder / "Liquid.xyz"]}
    (folder / "Liquid.extxyz").touch()
    assert list_group_files(settings) == {"Liquid": [folder / "Liquid.extxyz"]}


def test_values_can_be_substituted(tmp_path):
    assert read(tmp_path, PATH="dataPath = %(root)s/JSON", DEFAULT="root = a").data_path == tmp_path / "a" / "JSON"
    refused(tmp_path, "[PATH] dataPath", "%(name)s", PATH="dataPath = %(nowhere)s/JSON")


def test_columns_stand_in_any_order_and_a_missing_weight_is_one(tmp_path):
    body = "group_sections = name vweight testing_size eweight training_size\ngroup_types = str float int float float\n"
    settings = read(tmp_path, GROUPS=body + "A = 1e-8 3 50 20.0")
    assert settings.groups == (Group("A", 20, 3, 50.0, 1.0, 1e-8),)
    assert isinstance(settings.groups[0].training_size, int)


def test_a_group_file_replaces_the_section(tmp_path):
    (tmp_path / "grouplist.in").write_text("# name size eweight fweight vweight\n\nSurface 1.0 100 1 1e-12 # slabs\n")
    settings = read(tmp_path, PATH="dataPath = ../JSON\ngroupFile = grouplist.in", GROUPS="random_sampling = 1")
    assert settings.groups == (Group("Surface", 1.0, None, 100.0, 1.0, 1e-12),)
    assert settings.random_sampling
    assert settings.data_path == tmp_path / ".." / "JSON"
    (tmp_path / "grouplist.in").write_text("Surface 1.0 100\n")
    with pytest.raises(InputError, match=r"grouplist.in, line 1: Surface has 2 values.*has 4"):
        read_fitsnap_input(write(tmp_path, PATH="groupFile = grouplist.in", GROUPS=None))
    refused(tmp_path, "groupFile", "there is no file at", PATH="groupFile = nowhere.in")


def test_smartweights_and_a_seed(tmp_path):
    settings = read(tmp_path, GROUPS=SECTIONS["GROUPS"] + "smartweights = 1\nrandom_sampling = 1\nrandom_seed = 7")
    assert (settings.smartweights, settings.random_sampling, settings.random_seed) == (True, True, 7)
    assert [entry.name for entry in settings.groups] == ["Liquid"]


class TestRefused:
    def test_unknown_sections(self, tmp_path):
        refused(tmp_path, "[SOLVR]", "did you mean 'SOLVER'", SOLVR="solver = SVD")
        refused(tmp_path, "[groups]", "did you mean 'GROUPS'", groups="a = 1")

    def test_sections_of_other_models(self, tmp_path):
        refused(tmp_path, "[ACE]", "not supported", "LAMMPSSNAP", ACE="numTypes = 1")
        refused(tmp_path, "[ARD]", "SVD or RIDGE", ARD="alphabig = 1")
        refused(tmp_path, "[TRAINSHIFT]", "[ESHIFT]", TRAINSHIFT="Ta = 1")

    @pytest.mark.parametrize(
        ("section", "line", "texts"),
        [
            ("BISPECTRUM", "rcutfacc = 4", ["rcutfacc", "did you mean 'rcutfac'"]),
            ("BISPECTRUM", "TWOJMAX = 4", ["TWOJMAX", "did you mean 'twojmax'"]),
            ("BISPECTRUM", "wj1 = 1.0", ["wj1", "one line 'wj = ...'"]),
            ("CALCULATOR", "bzeroflag = 1", ["bzeroflag", "[BISPECTRUM]"]),
            ("PATH", "jsonPath = JSON", ["jsonPath", "dataPath"]),
            ("SOLVER", "solvr = SVD", ["solvr", "did you mean 'solver'"]),
            ("REFERENCE", "pair_stile = zero 10.0", ["pair_stile", "did you mean 'pair_style'"]),
            ("ESHIFT", "Be = 1.0", ["Be", "Ta"]),
            ("EXTRAS", "dump_trth = 1", ["dump_trth", "did you mean 'dump_truth'"]),
        ],
    )
    def test_unknown_keys(self, tmp_path, section, line, texts):
        refused(tmp_path, f"[{section}]", *texts, **{section: SECTIONS.get(section, "") + "\n" + line})

    @pytest.mark.parametrize(
        ("section", "line"),
        [
            ("BISPECTRUM", "bikflag = 1"),
            ("BISPECTRUM", "dgradflag = 1"),
            ("BISPECTRUM", "alloyflag = 1"),
            ("CALCULATOR", "nonlinear = 1"),
            ("CALCULATOR", "per_atom_energy = True"),
            ("CALCULATOR", "per_atom_scalar = yes"),
            ("EXTRAS", "only_test = 1"),
            ("GROUPS", "BOLTZT = 300"),
            ("SCRAPER", "property_array = Stress=pressure GPa"),
            ("SCRAPER", "read_group_scrape = scrape.txt"),
        ],
    )
    def test_options_that_change_the_fit_and_are_not_supported(self, tmp_path, section, line):
        key, value = line.split(" = ")
        body = SECTIONS.get(section, "") + "\n"
        refused(tmp_path, f"[{section}] {key} = {value}", "not supported", **{section: body + line})
        off = "None" if section == "SCRAPER" else "0"
        assert read(tmp_path, **{section: f"{body}{key} = {off}"}).groups[0].name == "Liquid"

    def test_solvers_calculators_and_scrapers(self, tmp_path):
        refused(tmp_path, "solver = LASSO", "not supported", "SVD or RIDGE", SOLVER="solver = LASSO")
        refused(tmp_path, "solver = RIGDE", "unknown", "did you mean 'RIDGE'", SOLVER="solver = RIGDE")
        refused(tmp_path, "LAMMPSPACE is not supported", "LAMMPSSNAP", CALCULATOR="calculator = LAMMPSPACE")
        refused(tmp_path, "VASP is not supported", "JSON or XYZ", SCRAPER="scraper = VASP")
        refused(tmp_path, "[RIDGE]", "[SOLVER] is SVD", RIDGE="alpha = 1")
        refused(tmp_path, "alpha", "'-1'", SOLVER="solver = RIDGE", RIDGE="alpha = -1")
        refused(tmp_path, "apply_transpose", SOLVER="solver = RIDGE", EXTRAS="apply_transpose = 1")
        refused(tmp_path, "all 0", CALCULATOR="energy = 0\nforce = 0\nstress = 0")

    def test_one_twojmax_for_all_elements(self, tmp_path):
        refused(tmp_path, "twojmax must be the same", "'8 6'", BISPECTRUM="type = W Be\ntwojmax = 8 6")
        refused(tmp_path, "twojmax", "'8 8 8'", BISPECTRUM="type = W Be\ntwojmax = 8 8 8")
        refused(tmp_path, "twojmax", "'6.5'", BISPECTRUM="type = W\ntwojmax = 6.5")

    @pytest.mark.parametrize(
        ("body", "texts"),
        [
            ("type = Ta\nrcutfac = 4,6", ["rcutfac", "real number", "'4,6'"]),
            ("type = Ta\nrmin0 = nan", ["rmin0", "'nan'"]),
            ("type = Ta\nrcutfac =", ["rcutfac", "empty"]),
            ("type = Ta\nbzeroflag = 2", ["bzeroflag", "0 or 1"]),
            ("type = W Be\nwj = 1.0", ["wj", "one for each element"]),
            ("type = W Be\nradelem = 0.5 half", ["radelem", "half"]),
            ("type = W Be\nnumTypes = 1", ["numTypes", "must be 2"]),
            ("type = W W", ["type", "'W W'"]),
            ("type = Tantalum", ["type", "chemical symbols"]),
            ("twojmax = 6", ["type"]),
        ],
    )
    def test_values_of_the_descriptors(self, tmp_path, body, texts):
        refused(tmp_path, "[BISPECTRUM]", *texts, BISPECTRUM=body)

    def test_units_and_atom_style(self, tmp_path):
        refused(tmp_path, "units", "metal", "'real'", REFERENCE="units = real")
        refused(tmp_path, "atom_style", "atomic", "'sphere'", REFERENCE="atom_style = sphere")

    @pytest.mark.parametrize("style", ["spin", "charge"])
    def test_spins_and_charges_are_ignored_unless_the_reference_needs_them(self, tmp_path, style):
        settings = read(tmp_path, REFERENCE=f"atom_style = {style}\npair_style = zbl 4.0 4.8\npair_coeff = * * 73 73")
        assert "[REFERENCE] atom_style" in settings.ignored_keys
        needy = {"spin": "spin/exchange/biquadratic 5.0", "charge": "coul/cut 8.0"}[style]
        body = f"atom_style = {style}\npair_style = hybrid/overlay zero 10.0 {needy}"
        refused(tmp_path, "pair_style", needy.split()[0], "charges or spins", REFERENCE=body)

    def test_missing_sections(self, tmp_path):
        refused(tmp_path, "[PATH]", "dataPath", PATH=None)
        refused(tmp_path, "[BISPECTRUM]", BISPECTRUM=None)
        refused(tmp_path, "[GROUPS] has no groups", GROUPS=None)

    @pytest.mark.parametrize(
        ("body", "texts"),
        [
            (LISTED + "A = 1.0 100", ["A has 2 values", "has 3", "size eweight fweight"]),
            (LISTED + "A = 1.0 1 1\nsmartweight = 1", ["smartweight", "did you mean 'smartweights'"]),
            (LISTED + "A = 1.0 much 1", ["A", "eweight", "'much'"]),
            (LISTED + "A = 1.0 -1 1", ["A", "eweight", "'-1'"]),
            (LISTED + "A = 1.5 1 1", ["A", "size", "'1.5'"]),
            (LISTED + "A = -0.5 1 1", ["A", "size", "'-0.5'"]),
            ("group_sections = name size\ngroup_types = str int\nA = 0.5", ["A", "size is declared int", "'0.5'"]),
            ("group_sections = name size eweigth\nA = 1 1", ["eweigth", "did you mean 'eweight'"]),
            ("group_sections = name size size\nA = 1 1", ["twice", "size"]),
            ("group_sections = size name\nA = 1", ["must begin with 'name'"]),
            ("group_sections = name eweight\nA = 1", ["training_size"]),
            ("group_sections = name size training_size\nA = 1 1", ["training_size"]),
            ("group_sections = name size\nA = 1", ["group_types", "2 types"]),
            ("group_sections = name size\ngroup_types = str str\nA = 1", ["group_types", "float or int"]),
            (LISTED + "random_seed = 0.5\nA = 1 1 1", ["random_seed", "whole number"]),
        ],
    )
    def test_groups(self, tmp_path, body, texts):
        refused(tmp_path, "[GROUPS]", *texts, GROUPS=body)

    def test_files_that_are_no_inputs(self, tmp_path):
        refused(tmp_path, "is not a FitSNAP input", text="type = Ta\n")
        refused(tmp_path, "is not a FitSNAP input", "line", text="[PATH]\ndataPath JSON\n")
        refused(tmp_path, "is not a FitSNAP input", "'dataPath'", text="[PATH]\ndataPath = a\ndataPath = b\n")
        with pytest.raises(InputError, match="no file at"):
            read_fitsnap_input(tmp_path / "nowhere.in")
        with pytest.raises(InputError, match="cannot be read"):
            read_fitsnap_input(tmp_path)
        (tmp_path / "binary.in").write_bytes(b"\xff\xfe\x00\xd8")
        with pytest.raises(InputError, match="not UTF-8"):
            read_fitsnap_input(tmp_path / "binary.in")


def test_groups_without_a_folder_or_files_are_named(tmp_path):
    settings = read(tmp_path)
    with pytest.raises(InputError, match=r"\[PATH\] dataPath: no directory"):
        list_group_files(settings)
    (tmp_path / "JSON" / "Liquids").mkdir(parents=True)
    with pytest.raises(InputError, match=r"'Liquid' has no directory.*did you mean 'Liquids'"):
        list_group_files(settings)
    settings = replace(settings, groups=(replace(settings.groups[0], name="Liquids"),))
    (tmp_path / "JSON" / "Liquids" / "._a.json").touch()
    with pytest.raises(InputError, match=r"'Liquids' has no files"):
        list_group_files(settings)


class TestSplit:
    @pytest.mark.parametrize(
        ("training", "testing", "n", "expected"),
        [
            (1.0, 0.0, 7, (7, 0)),
            (1, 0, 7, (1, 0)),  # declared int: one configuration
            (0.5, 0.5, 7, (4, 3)),  # 3.5 is rounded up, testing is cut to what there is
            (0.5, 0.2, 5, (3, 1)),
            (0.01, 0.01, 5, (1, 1)),  # at least one
            (0.0, 1.0, 5, (0, 5)),
            (0.6, None, 5, (3, 2)),
            (0, None, 5, (0, 5)),
            (3, 1, 5, (3, 1)),
            (20, 5, 5, (5, 0)),
        ],
    )
    def test_sizes_are_those_of_fitsnap(self, training, testing, n, expected):
        split = split_group(range(n), group(training, testing))
        assert (len(split.training), len(split.testing)) == expected
        assert split.training + split.testing == list(range(sum(expected)))

    def test_what_is_not_as_asked_is_said(self):
        assert split_group(range(4), group(0.5, 0.5)).note == ""
        assert "2 of 4 configurations are in neither" in split_group(range(4), group(1, 1)).note
        assert "used: 4 and 0" in split_group(range(4), group(9, 1)).note

    @given(
        n=st.integers(0, 40),
        training=st.one_of(st.floats(0, 1), st.integers(0, 50)),
        testing=st.one_of(st.none(), st.floats(0, 1), st.integers(0, 50)),
    )
    def test_nothing_is_in_both_and_shuffling_keeps_the_sizes(self, n, training, testing):
        plain = split_group(range(n), group(training, testing))
        shuffled = split_group(range(n), group(training, testing), np.random.default_rng(0))
        for split in (plain, shuffled):
            together = split.training + split.testing
            assert len(set(together)) == len(together) <= n
            assert bool(split.note) >= (len(together) < n)
        assert len(plain.training) == len(shuffled.training)
        assert len(plain.testing) == len(shuffled.testing)
