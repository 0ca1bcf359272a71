"""FitSNAP inputs of other people: units, dense cells, elements without data, stopped fits, and the W-Be example."""

import json
import os
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from conftest import ROOT
from helpers.command_line import call

from paretofit import InputError, SnapBasis
from paretofit.commands import fit_fitsnap, fitsnap_rows
from paretofit.core import ExecutionError
from paretofit.descriptors import ReferencePotential
from paretofit.potentials import LinearPotential, check_exported_files, linear_potential
from paretofit.potentials.snap_format import to_lammps_coefficients

ARCHIVE = Path(os.environ.get("PARETOFIT_SHARED", ROOT.parent / "shared")) / "data" / "fitsnap_wbe.tar.xz"
needs_archive = pytest.mark.skipif(not ARCHIVE.is_file(), reason="FitSNAP's W-Be example is not there")
ZBL = "hybrid/overlay zero 10.0 zbl 4.0 4.8\npair_coeff1 = * * zero\npair_coeff2 = * * zbl 4 4"
INPUT = """\
[BISPECTRUM]
type = {elements}
twojmax = 2
rcutfac = 4.8
[CALCULATOR]
stress = {stress}
[ESHIFT]
Be = {shift}
[SOLVER]
solver = SVD
[PATH]
dataPath = JSON
[REFERENCE]
atom_style = {atom_style}
pair_style = {pair_style}
[GROUPS]
group_sections = name training_size testing_size eweight fweight vweight
group_types = str float float float float float
{groups}
"""


def label(atoms, seed):
    """Made-up labels of a structure: energy in eV, forces in eV/Å, and stress in bar."""
    rng = np.random.default_rng(seed)
    return -3.0 * len(atoms) + rng.normal(), rng.normal(size=(len(atoms), 3)), np.diag(rng.normal(size=3)) * 1e4


def write_input(folder, structures, *, styles=None, factors=(1.0, 1.0, 1.0), groups=("small",), **changes):
    """An input with JSON files; labels are multiplied by `factors`, and `styles` name their units."""
    energy_factor, force_factor, stress_factor = factors
    for k, atoms in enumerate(structures):
        energy, forces, stress = label(atoms, k)
        frame = {
            "Positions": atoms.positions.tolist(), "Lattice": atoms.cell[:].tolist(), "NumAtoms": len(atoms),
            "AtomTypes": atoms.get_chemical_symbols(), "Energy": energy * energy_factor,
            "Spins": [[2.0, 0.0, 0.0, 1.0]] * len(atoms),
            "Forces": (forces * force_factor).tolist(), "Stress": (stress * stress_factor).tolist(),
        }  # fmt: skip
        group = folder / "JSON" / groups[k * len(groups) // len(structures)]
        group.mkdir(parents=True, exist_ok=True)
        (group / f"c{k}.json").write_text("#\n" + json.dumps({"Dataset": {"Data": [frame], **(styles or {})}}))
    lines = "\n".join(f"{name} = 1.0 0.0 100 1 1e-6" for name in groups)
    values = {"elements": "Be", "stress": 1, "shift": 0.0, "atom_style": "atomic", "pair_style": ZBL, "groups": lines}
    (folder / "fit.in").write_text(INPUT.format(**{**values, **changes}))
    return folder / "fit.in"


def cells(n=6, a=3.2):
    """Distorted fcc cells of beryllium."""
    structures = [bulk("Be", "fcc", a=a, cubic=True) for _ in range(n)]
    for k, atoms in enumerate(structures):
        atoms.rattle(0.02 * a, seed=k)
    return structures


def test_units_of_a_file_change_no_coefficient(tmp_path):
    """The labels of InP are in kB; ESHIFT is in the unit of the energies, as in FitSNAP."""
    fits = []
    for name, styles, factors, shift in (
        ("metal", {}, (1.0, 1.0, 1.0), 2.0),
        ("vasp", {"EnergyStyle": "electronvolt", "StressStyle": "kB", "ForcesStyle": "eV/ang"}, (1.0, 1.0, 1e-3), 2.0),
        (
            "atomic",
            {"EnergyStyle": "Ha", "ForcesStyle": "ha/au", "StressStyle": "kPa"},
            (1 / units.Hartree, units.Bohr / units.Hartree, 100.0),
            2.0 / units.Hartree,
        ),
    ):
        (tmp_path / name).mkdir()
        path = write_input(tmp_path / name, cells(), styles=styles, factors=factors, shift=repr(shift))
        fits.append(fit_fitsnap(path, tmp_path / name / "out").potential.coefficients)
    assert fits[1] == pytest.approx(fits[0], rel=1e-9)
    assert fits[2] == pytest.approx(fits[0], rel=1e-9)


class TestDenseCells:
    """At 0.8 atoms/Å³, an atom has 5,700 neighbours within 12 Å; LAMMPS's default limit is 2,000."""

    def test_a_fit_ends_with_the_comparison(self, tmp_path):
        result = fit_fitsnap(write_input(tmp_path, cells(a=1.71)), tmp_path / "out")
        assert result.check_problem == ""
        assert result.deviation < 1e-8

    def test_a_failed_comparison_does_not_hide_the_files(self, tmp_path, monkeypatch):
        def fail(*_):
            raise InputError("configuration 3: LAMMPS stopped with: Neighbor list overflow")

        monkeypatch.setattr("paretofit.potentials.check_exported_files", fail)
        result = fit_fitsnap(write_input(tmp_path, cells()), tmp_path / "out")
        assert str(result.files.coefficients) in result.text
        assert result.files.coefficients.is_file()
        assert "the check of the written potential failed; do not use its files" in result.text
        assert "Neighbor list overflow" not in result.text  # the error says it, once
        assert "LAMMPS reproduces" not in result.text
        with pytest.raises(ExecutionError, match="check of the written potential failed: .*Neighbor list overflow"):
            result.require_agreement()

    def test_errors_of_lammps_in_the_comparison_name_the_configuration(self, tmp_path, monkeypatch):
        basis = SnapBasis(elements=["Be"], twojmax=2, rcutfac=4.8, quadratic=False)
        zbl = ReferencePotential("hybrid/overlay zero 10.0 zbl 4.0 4.8", ("* * zero", "* * zbl 4 4"))
        potential = LinearPotential(basis, np.ones(basis.n_features), zbl)
        files = potential.write(tmp_path)
        create_calculator = linear_potential.lammps_calculator

        def make_failing_calculator(commands, elements):
            calculator = create_calculator(commands, elements)
            calculator.parameters.lmpcmds.append("pair_coeff * * none")
            return calculator

        monkeypatch.setattr(linear_potential, "lammps_calculator", make_failing_calculator)
        with pytest.raises(InputError, match="configuration .* LAMMPS stopped with: "):
            check_exported_files(files, potential, cells(n=1))


class TestElements:
    def test_without_a_reference_potential_they_are_refused(self, tmp_path):
        for style in ("zero 10.0", "hybrid/overlay zero 10.0\npair_coeff1 = * * zero"):
            path = write_input(tmp_path, cells(), elements="Be W H", pair_style=style)
            with pytest.raises(InputError, match="no training configuration .* contains W, H") as caught:
                fit_fitsnap(path, tmp_path / "out")
            assert str(path) in str(caught.value)
            assert not (tmp_path / "out").exists()

    def test_with_a_reference_potential_the_output_names_them(self, tmp_path):
        result = fit_fitsnap(write_input(tmp_path, cells(), elements="Be W"), tmp_path / "out")
        assert "note: no training configuration with a weight above 0 contains W" in result.text

    def test_groups_with_zero_weights_do_not_count(self, tmp_path):
        tungsten = [bulk("W", cubic=True) for _ in range(3)]
        path = write_input(tmp_path, [*cells(3), *tungsten], groups=("a", "b"), elements="Be W", pair_style="zero 10.0")
        path.write_text(path.read_text().replace("b = 1.0 0.0 100 1 1e-6", "b = 1.0 0.0 0 0 0"))
        with pytest.raises(InputError, match="contains W"):
            fit_fitsnap(path, tmp_path / "out")


def test_spins_are_ignored(tmp_path):
    plain, spin = (tmp_path / name for name in ("plain", "spin"))
    for folder in (plain, spin):
        folder.mkdir()
    expected = fit_fitsnap(write_input(plain, cells()), plain / "out")
    result = fit_fitsnap(write_input(spin, cells(), atom_style="spin"), spin / "out")
    assert "[REFERENCE] atom_style" in result.text
    assert np.array_equal(result.potential.coefficients, expected.potential.coefficients)


def test_a_stopped_fit_resumes(tmp_path, monkeypatch, capsys):
    path = write_input(tmp_path, cells(n=20))
    expected = fit_fitsnap(path, tmp_path / "whole").potential.coefficients
    compute, n_computed = fitsnap_rows._compute_batch, []

    def stop_in_third_batch(*arguments, **options):
        if len(n_computed) == 2:
            raise KeyboardInterrupt
        n_computed.append(1)
        return compute(*arguments, **options)

    monkeypatch.setattr(fitsnap_rows, "_compute_batch", stop_in_third_batch)
    with pytest.raises(KeyboardInterrupt):
        fit_fitsnap(path, tmp_path / "out")
    assert (tmp_path / "out" / "descriptors.partial").stat().st_size > 1000

    def count(*arguments, **options):
        n_computed.append(1)
        return compute(*arguments, **options)

    monkeypatch.setattr(fitsnap_rows, "_compute_batch", count)
    result = fit_fitsnap(path, tmp_path / "out", progress=True)
    assert len(n_computed) == 3
    assert np.array_equal(result.potential.coefficients, expected)
    assert "2 of 3 parts of a stopped run are in" in capsys.readouterr().err
    assert not (tmp_path / "out" / "descriptors.partial").exists()


def test_a_configuration_that_cannot_be_described_leaves_no_partial_file(tmp_path):
    structures = cells(n=20)
    structures[17].cell[2] = structures[17].cell[1]
    with pytest.raises(InputError, match="c17.* no volume"):
        fit_fitsnap(write_input(tmp_path, structures), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def read_metrics(path):
    """FitSNAP's table: (group, weighting, kind) to count, mae, rmse and rsq."""
    table = {}
    for line in path.read_text().splitlines():
        fields = [field.strip() for field in line.strip("|").split("|")]
        if match := re.fullmatch(r"\('(.+)', '(\w+)', '(\w+)'\)", fields[0]):
            table[match.groups()] = [float(value) for value in fields[1:]]
    return table


@needs_archive
class TestTungstenBeryllium:
    @pytest.mark.slow
    def test_its_densest_configurations(self, tmp_path):
        names = {"WBe-example.in", *(f"JSON/EOS_FCC/EOS_FCC_{k}.json" for k in (48, 49, 50, 51))}
        with tarfile.open(ARCHIVE) as archive:
            members = [member for member in archive if member.name.removeprefix("./") in names]
            archive.extractall(tmp_path, members, filter="data")
        assert len(members) == len(names)
        path = tmp_path / "WBe-example.in"
        lines = path.read_text().splitlines()
        first = lines.index("random_sampling = 0") + 1
        groups = [line for line in lines[first:] if line.startswith("EOS_FCC ")]
        last = next(k for k in range(first, len(lines)) if lines[k].startswith("["))
        path.write_text("\n".join([*lines[:first], *groups, *lines[last:]]).replace("twojmax = 8 8", "twojmax = 2 2"))
        result = fit_fitsnap(path, tmp_path / "out")
        assert result.deviation < 1e-8
        assert "contains W: its coefficients are zero" in result.text

    @pytest.mark.slow
    def test_the_whole_example_gives_its_standard(self, tmp_path):
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(tmp_path, filter="data")
        done = call("fit", "--fitsnap", tmp_path / "WBe-example.in", "-o", tmp_path / "out", "--no-progress")
        assert done.returncode == 0, done.stderr
        potential = LinearPotential.read(tmp_path / "out" / "WBe_pot.snapcoeff")
        actual = to_lammps_coefficients(potential.basis, potential.coefficients)
        standard = tmp_path / "20May21_Standard"
        lines = (standard / "WBe_pot.snapcoeff").read_text().splitlines()
        expected = np.array([float(line.split()[0]) for line in lines if "B[" in line]).reshape(actual.shape)
        assert actual == pytest.approx(expected, rel=1e-6, abs=1e-10)
        table, published = read_metrics(tmp_path / "out" / "WBe_metrics.md"), read_metrics(standard / "WBe_metrics.md")
        assert set(table) == set(published)
        for key, values in published.items():
            is_noise = values[2] < 1e-9  # the errors of forces that are zero by symmetry are rounding errors
            n_compared = 3 if is_noise else 4
            assert table[key][:n_compared] == pytest.approx(values[:n_compared], rel=1e-5, abs=1e-9), key
