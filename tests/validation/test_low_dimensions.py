"""Sheets, wires and molecules against LAMMPS with free boundaries, analytic chains and molecules, and symmetry."""

import lammps
import numpy as np
import pandas as pd
import pytest
from ase import Atoms, units
from ase.build import bulk, graphene, molecule, nanotube
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from scipy.integrate import trapezoid

pytest.importorskip("phonopy")

from paretofit.commands import validate_potential
from paretofit.core import InputError, lammps_calculator
from paretofit.validation import (
    QUICK_EFFORT,
    ValidationSettings,
    crystal,
    defects,
    list_applicable_properties,
    orient_structure,
    parse_potential,
)
from paretofit.validation import stability as md_stability
from paretofit.validation.elastic import compute_elastic_constants
from paretofit.validation.periodicity import NEWTON, measure_cell, scale_measure
from paretofit.validation.phonon_bands import WAVENUMBER_PER_THZ, compute_phonons, compute_vibrations
from paretofit.validation.quantity import PropertyError
from paretofit.validation.stone_wales import find_rotatable_bonds, rotate_bond
from paretofit.validation.vacuum_calculator import VacuumCalculator
from paretofit.validation.volume_scan import compute_equation_of_state, fit_birch_murnaghan

TERSOFF = ["pair_style tersoff", "pair_coeff * * BNC.tersoff C"]
NEWTON_PER_METRE = 1 / units.J * 1e20  # of eV/Å²
ARGON = {"sigma": 3.4, "epsilon": 0.0103, "rc": 12.0}


def make_tersoff():
    return VacuumCalculator(lammps_calculator(TERSOFF, ["C"]), is_local=True)


def relax(atoms, calculator, fmax=1e-4):
    relaxed = crystal.relax_structure(calculator, orient_structure(atoms), relax_cell=True, fmax=fmax)
    return crystal.standardize_cell(relaxed)


@pytest.fixture(scope="module")
def sheet():
    """Graphene of Tersoff carbon, relaxed."""
    return relax(graphene(a=2.46, vacuum=6.0), make_tersoff())


def make_tube(axis=2):
    atoms = nanotube(6, 0, length=1)
    atoms.pbc = [False, False, True]
    atoms.center(vacuum=6.0, axis=(0, 1))
    order = np.roll(np.arange(3), axis - 2)
    return Atoms(atoms.numbers, atoms.positions[:, order], cell=atoms.cell[:][order][:, order], pbc=atoms.pbc[order])


def compute_lammps_energy(atoms, *, minimise=True):
    """Energy (eV) with free boundaries, of positions that LAMMPS relaxes itself, without paretofit."""
    lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    (xx, _, _), (xy, yy, _), (_, _, zz) = atoms.cell[:].tolist()
    boundary = " ".join("p" if periodic else "f" for periodic in atoms.pbc)
    lmp.commands_string(
        f"units metal\nboundary {boundary}\natom_modify map array\nbox tilt large\n"
        f"region cell prism 0 {xx!r} 0 {yy!r} 0 {zz!r} {xy!r} 0 0\ncreate_box 1 cell"
    )
    positions = atoms.copy()
    positions.wrap()
    lmp.create_atoms(len(atoms), None, [1] * len(atoms), positions.positions.ravel().tolist())
    lmp.commands_string("mass 1 12.011\n" + "\n".join(TERSOFF))
    lmp.command("minimize 0 1e-6 2000 20000" if minimise else "run 0")
    energy = lmp.get_thermo("pe")
    lmp.close()
    return energy


# --- orientation and vacuum


def test_periodic_directions_come_first_and_vacuum_is_kept_or_added():
    for axis in range(3):
        atoms = make_tube(axis)
        oriented = orient_structure(atoms)
        assert oriented.pbc.tolist() == [True, False, False]
        assert oriented.cell.lengths()[0] == pytest.approx(atoms.cell.lengths()[axis])
        assert np.ptp(oriented.positions[:, 1]) == pytest.approx(np.ptp(oriented.positions[:, 2]))
        assert oriented.cell.lengths()[1] == pytest.approx(np.ptp(oriented.positions[:, 1]) + 12)
    for vacuum, length in ((None, 20.0), (2.0, 20.0), (7.5, 15.0)):
        oriented = orient_structure(graphene(a=2.46, vacuum=vacuum))
        assert oriented.cell.lengths()[2] == pytest.approx(length)
    assert orient_structure(molecule("C60")).cell.rank == 3
    flat = Atoms("C", cell=[[2, 0, 0], [4, 0, 0], [0, 0, 10]], pbc=[True, True, False])
    with pytest.raises(PropertyError, match="linearly dependent"):
        orient_structure(flat)


def test_rotated_sheet_and_supercell_are_the_same_sheet(sheet):
    atoms = graphene(a=2.46, vacuum=6.0, size=(2, 3, 1))
    atoms.rotate(70, (1, 2, 3), rotate_cell=True)
    same = relax(atoms, make_tersoff())
    assert len(same) == 2
    assert same.cell.cellpar()[[0, 1, 5]] == pytest.approx(sheet.cell.cellpar()[[0, 1, 5]], abs=1e-4)
    assert sheet.cell.cellpar()[5] == pytest.approx(120)
    assert same.cell[:][0, 1:] == pytest.approx([0, 0])


def test_energy_does_not_depend_on_the_vacuum():
    atoms = orient_structure(make_tube())
    energies = []
    for shift in (0.0, 30.0):
        moved = atoms.copy()
        moved.cell[2, 2] += shift
        moved.positions[:, 2] += shift
        energies.append(crystal.compute_energy(moved, make_tersoff()))
    assert energies[0] == pytest.approx(energies[1], abs=1e-8)
    assert energies[0] == pytest.approx(compute_lammps_energy(atoms, minimise=False), abs=1e-8)


class EmtWithoutStress(EMT):
    implemented_properties = ("energy", "free_energy", "forces")

    def get_stress(self, atoms=None):
        raise PropertyNotImplementedError


class EmtWithStressOfAnotherVolume(EMT):
    """Stress that refers to another volume than that of the cell, as that of networks with an internal cell."""

    def calculate(self, *arguments, **options):
        super().calculate(*arguments, **options)
        self.results["stress"] = self.results["stress"] / 3


def test_calculators_without_valid_stress_use_energies():
    atoms = orient_structure(Atoms("Au", cell=[[2.8, 0, 0], [1.4, 2.42, 0], [0, 0, 20]], pbc=[True, True, False]))
    stresses = []
    for calculator in (EMT(), EmtWithoutStress(), EmtWithStressOfAnotherVolume()):
        copy = atoms.copy()
        copy.calc = VacuumCalculator(calculator, is_local=False)
        for _ in range(2):  # the second is not compared with energies
            copy.positions[0] += 0.1
            stresses.append(copy.get_stress()[[0, 1, 5]])
    assert np.ptp(stresses, axis=0).max() < 1e-4 * np.abs(stresses).max()
    copy.calc = EMT()
    assert stresses[0] == pytest.approx(copy.get_stress()[[0, 1, 5]], rel=1e-4, abs=1e-8)


# --- strain


@pytest.mark.parametrize("d", [1, 2, 3])
def test_moduli_are_derivatives_of_the_energy_with_respect_to_size(d):
    M0, c = 2.7, np.polynomial.Polynomial([-7.0, 0.0, 11.0, -4.0])  # of the Eulerian strain

    def energy(M):
        return c(((M0 / M) ** (2 / d) - 1) / 2)

    def pressure(M, h=1e-5):
        return -(energy(M + h) - energy(M - h)) / (2 * h)

    def modulus(M, h=1e-4):
        return -M * (pressure(M + h) - pressure(M - h)) / (2 * h)

    M = np.linspace(0.96, 1.04, 9) * M0
    size, E0, K, dK = fit_birch_murnaghan(M, energy(M), d)
    unit = {1: 1e-9 * NEWTON, 2: 1 / NEWTON_PER_METRE, 3: units.GPa}[d]
    assert (size, E0) == pytest.approx((M0, -7.0))
    assert K * unit == pytest.approx(modulus(M0), rel=1e-4)
    h = 2e-3
    derivative = (modulus(M0 + h) - modulus(M0 - h)) / (pressure(M0 + h) - pressure(M0 - h))
    assert dK == pytest.approx(derivative, rel=1e-3)
    kinked = np.where(M < M0, -(M0 - M) * -1, 3 * (M - M0))
    with pytest.raises(PropertyError, match="no equation of state fits"):
        fit_birch_murnaghan(M, kinked, d)


def test_in_plane_stiffness_of_graphene_is_the_curvature_of_lammps_energies(sheet):
    tensor = compute_elastic_constants(make_tersoff(), sheet)
    C = tensor.constants
    energies = []
    step = 0.004
    for strain in (-step, 0.0, step):
        strained = sheet.copy()
        strained.set_cell(sheet.cell[:] * [1 + strain, 1, 1], scale_atoms=True)
        energies.append(compute_lammps_energy(strained))
    curvature = (energies[0] - 2 * energies[1] + energies[2]) / step**2 / measure_cell(sheet) * NEWTON_PER_METRE
    assert C[0, 0] == pytest.approx(curvature, rel=0.01)
    assert C[0, 0] == pytest.approx(C[1, 1], rel=1e-3)  # isotropic
    assert C[2, 2] == pytest.approx((C[0, 0] - C[0, 1]) / 2, rel=2e-3)
    assert C.shape == (3, 3)
    by_name = {quantity.name: quantity for quantity in tensor.quantities}
    assert by_name["C66"].unit == "N/m"
    assert by_name["Young's modulus along x"].value == pytest.approx((C[0, 0] ** 2 - C[0, 1] ** 2) / C[0, 0], rel=1e-3)
    equation = compute_equation_of_state(make_tersoff(), sheet)
    assert equation.modulus == pytest.approx(by_name["layer modulus"].value, rel=2e-3)
    assert equation.size == pytest.approx(measure_cell(sheet) / 2, rel=1e-4)
    assert list(equation.curve) == ["area", "energy"]


def test_elastic_constants_do_not_depend_on_the_vacuum(sheet):
    taller = sheet.copy()
    taller.cell[2, 2] += 13.0
    taller.positions[:, 2] += 6.0
    thin, thick = (compute_elastic_constants(make_tersoff(), atoms).constants for atoms in (sheet, taller))
    assert thick == pytest.approx(thin, abs=1e-4)


def test_strain_leaves_the_vacuum_alone(sheet):
    for atoms in (sheet, orient_structure(make_tube())):
        strained = scale_measure(atoms, 1.1)
        assert measure_cell(strained) == pytest.approx(1.1 * measure_cell(atoms))
        n = int(atoms.pbc.sum())
        assert strained.cell[:][n:] == pytest.approx(atoms.cell[:][n:])
        assert strained.positions[:, n:] == pytest.approx(atoms.positions[:, n:])


def test_stiffness_of_a_chain_is_that_of_its_pair_potential():
    """A straight chain of argon: E(L) is a sum over its neighbours within the cutoff."""

    def energy(L):
        r = L * np.arange(1, int(ARGON["rc"] // L) + 1)
        return float(np.sum(4 * ARGON["epsilon"] * ((ARGON["sigma"] / r) ** 12 - (ARGON["sigma"] / r) ** 6)))

    calculator = VacuumCalculator(LennardJones(**ARGON), is_local=False)
    chain = relax(Atoms("Ar", cell=[0, 0, 3.8], pbc=[False, False, True]), calculator, fmax=1e-6)
    L = chain.cell.lengths()[0]
    h = 1e-3
    assert energy(L + 1e-4) - energy(L - 1e-4) == pytest.approx(0, abs=1e-8)
    stiffness = L * (energy(L + h) - 2 * energy(L) + energy(L - h)) / h**2 / (1e-9 * NEWTON)
    assert compute_elastic_constants(calculator, chain).constants == pytest.approx(np.array([[stiffness]]), rel=2e-3)
    equation = compute_equation_of_state(calculator, chain)
    assert equation.size == pytest.approx(L, rel=1e-4)
    assert equation.modulus == pytest.approx(stiffness, rel=0.01)
    assert [quantity.unit for quantity in equation.quantities] == ["Å/atom", "eV/atom", "nN", ""]


# --- phonons


def test_bending_of_a_sheet_has_a_quadratic_dispersion(sheet):
    phonons = compute_phonons(make_tersoff(), sheet, min_length=12.0)
    assert np.sort(np.abs(phonons.gamma_frequencies))[:3] == pytest.approx(0, abs=1e-4)
    assert phonons.special_points["label"].tolist() == ["G", "M", "K", "G"]
    first_segment = phonons.bands[phonons.bands["distance"] <= phonons.special_points["distance"][1]]
    modes = [first_segment[first_segment["mode"] == k].iloc[1:6] for k in range(3)]
    exponents = [np.polyfit(np.log(mode["distance"]), np.log(mode["frequency"]), 1)[0] for mode in modes]
    assert exponents == pytest.approx([2.0, 1.0, 1.0], abs=0.05)
    assert phonons.min_frequency > -0.02
    density = phonons.density_of_states
    assert trapezoid(density["density"], density["frequency"]) == pytest.approx(6, rel=0.02)


def test_sound_in_a_sheet_has_the_velocity_of_its_elastic_constants(sheet):
    C = compute_elastic_constants(make_tersoff(), sheet).constants
    bands = compute_phonons(make_tersoff(), sheet, min_length=12.0).bands
    density = 2 * 12.011 * 1.66053907e-27 / (measure_cell(sheet) * 1e-20)  # kg/m²
    for mode, constant in ((1, C[2, 2]), (2, C[0, 0])):
        point = bands[(bands["mode"] == mode) & (bands["segment"] == 0)].iloc[2]
        velocity = point["frequency"] * 1e12 / (point["distance"] * 1e10)
        assert velocity == pytest.approx(np.sqrt(constant / density), rel=0.01)


def test_wire_has_four_modes_without_frequency():
    tube = relax(make_tube(), make_tersoff(), fmax=1e-3)
    assert len(tube) == 24
    phonons = compute_phonons(make_tersoff(), tube, min_length=8.0)
    assert np.sort(np.abs(phonons.gamma_frequencies))[:3] == pytest.approx(0, abs=1e-4)
    assert np.sort(np.abs(phonons.gamma_frequencies))[3] < 0.05  # the twist
    assert np.sort(np.abs(phonons.gamma_frequencies))[4] > 1.0
    assert phonons.special_points["label"].tolist() == ["G", "X"]
    assert not phonons.has_imaginary_modes


def test_vibrations_of_argon_molecules_are_analytic():
    r = ARGON["sigma"] * 2 ** (1 / 6)
    k = 72 * ARGON["epsilon"] / (2 ** (1 / 3) * ARGON["sigma"] ** 2)
    m = Atoms("Ar").get_masses()[0]
    unit = units.s * 1e-12 / (2 * np.pi)
    calculator = VacuumCalculator(LennardJones(**{**ARGON, "rc": 40.0}), is_local=False)
    pair = orient_structure(Atoms("Ar2", [[0, 0, 0], [r / 2**0.5, r / 2**0.5, 0]]))
    triangle = orient_structure(Atoms("Ar3", [[0, 0, 0], [r, 0, 0], [r / 2, r * 3**0.5 / 2, 0]]))
    frequency = unit * np.sqrt(2 * k / m)
    vibrations = compute_vibrations(calculator, pair)
    assert vibrations.frequencies == pytest.approx([frequency], rel=1e-3)
    assert vibrations.quantities[2].value == pytest.approx(frequency * 33.35641, rel=1e-3)
    assert pytest.approx(33.35641) == WAVENUMBER_PER_THZ
    expected = unit * np.sqrt(np.array([1.5, 1.5, 3.0]) * k / m)
    assert compute_vibrations(calculator, triangle).frequencies == pytest.approx(expected, rel=1e-3)
    assert not len(compute_vibrations(calculator, orient_structure(Atoms("Ar"))).frequencies)


# --- defects


def test_stone_wales_bond_is_perpendicular_and_has_the_same_length():
    atoms = orient_structure(graphene(a=2.46, vacuum=6.0, size=(4, 4, 1)))
    (bond,) = find_rotatable_bonds(atoms)
    rotated = rotate_bond(atoms, bond)
    vector = rotated.get_distance(bond.first, bond.second, mic=True, vector=True)
    assert vector[:2] @ bond.vector[:2] == pytest.approx(0)
    assert np.hypot(*vector[:2]) == pytest.approx(2.46 / 3**0.5)
    assert bond.normal == pytest.approx([0, 0, 1]) or bond.normal == pytest.approx([0, 0, -1])
    assert len(find_rotatable_bonds(orient_structure(molecule("C60")))) == 2  # between hexagons, and beside pentagons
    assert not find_rotatable_bonds(bulk("C", cubic=True))
    assert not find_rotatable_bonds(molecule("C2H6"))
    black_phosphorus = Atoms("P4", [[0, 0, 0], [1.66, 1.5, 0], [1.66, 2.2, 2.1], [3.32, 3.7, 2.1]],
                             cell=[3.32, 4.4, 20], pbc=[True, True, False])  # fmt: skip
    assert not find_rotatable_bonds(black_phosphorus)


def test_defects_of_graphene_are_minima_of_lammps(sheet):
    cells = defects.relax_defect_cells(make_tersoff(), sheet, min_length=9.0)
    assert not cells.failures
    energies = defects.compute_formation_energies(make_tersoff(), cells)
    assert list(energies) == ["vacancy", "divacancy", "Stone-Wales"]
    perfect = compute_lammps_energy(cells.pristine)
    assert perfect == pytest.approx(crystal.compute_energy(cells.pristine, make_tersoff()), abs=1e-3)
    for name, cell in cells.cells.items():
        formation_energy = compute_lammps_energy(cell) - len(cell) / len(cells.pristine) * perfect
        assert energies[name] == pytest.approx(formation_energy, abs=0.03)
    assert 5.0 < energies["Stone-Wales"] < 8.0
    sizes = [len(cells.pristine) - len(cell) for cell in cells.cells.values()]
    assert sizes == [1, 2, 0]


def test_equivalent_sites_of_a_tube_and_a_fullerene_are_found_without_a_lattice():
    assert len(defects.find_inequivalent_sites(orient_structure(make_tube()))) == 1
    tube = nanotube(5, 0, length=1)  # five-fold, which no lattice is
    tube.pbc = [False, False, True]
    assert len(defects.find_inequivalent_sites(orient_structure(tube))) == 1
    assert len(defects.find_inequivalent_sites(orient_structure(molecule("C60")))) == 1
    with pytest.raises(PropertyError, match="three-coordinated"):
        defects.relax_defect_cells(EMT(), orient_structure(molecule("CO")), min_length=5.0)


# --- dynamics


@pytest.mark.parametrize("n_periodic", [1, 2])
def test_radial_distribution_of_a_flat_ideal_gas_is_one(n_periodic):
    rng = np.random.default_rng(5)
    n_atoms = 1000 if n_periodic == 1 else 3000
    positions = np.zeros((n_atoms, 3))
    positions[:, :n_periodic] = rng.uniform(0, 60, (n_atoms, n_periodic))
    for height in (10.0, 20.0):
        cell = [*[60.0] * n_periodic, *[height] * (3 - n_periodic)]
        gas = Atoms(f"Ar{n_atoms}", positions=positions, cell=cell, pbc=np.arange(3) < n_periodic)
        g = md_stability.compute_radial_distribution([gas], max_distance=5.0, n_bins=10)
        assert g["g"].iloc[1:].to_numpy() == pytest.approx(1.0, abs=0.06)


def test_fullerene_survives_dynamics_with_free_boundaries(tmp_path):
    (tmp_path / "carbon.lmp").write_text("\n".join(TERSOFF))
    fullerene = relax(molecule("C60"), make_tersoff(), fmax=1e-3)
    protocol = md_stability.MdProtocol(300.0, nvt_time_ps=0.2, nve_time_ps=0.2)
    result = md_stability.run_stability_test(parse_potential(str(tmp_path / "carbon.lmp")), fullerene, protocol)
    assert result.reason == ""
    assert abs(result.energy_drift) < 1.0
    assert result.rdf["distance"].iloc[result.rdf["g"].argmax()] == pytest.approx(1.45, abs=0.1)


# --- the command


def test_properties_depend_on_the_periodic_directions(sheet):
    assert "surfaces" not in list_applicable_properties(sheet)
    assert {"eos", "elastic", "defects"} <= set(list_applicable_properties(sheet))
    fullerene = orient_structure(molecule("C60"))
    assert list_applicable_properties(fullerene) == ["lattice", "phonons", "defects", "dimer", "md"]
    assert "defects" not in list_applicable_properties(molecule("CO"))
    assert list_applicable_properties(Atoms("C")) == ["lattice", "dimer"]


@pytest.mark.slow
def test_sheet_wire_and_molecule_are_validated_against_a_reference(tmp_path):
    (tmp_path / "carbon.lmp").write_text("\n".join(TERSOFF))
    (tmp_path / "other.lmp").write_text("pair_style tersoff\npair_coeff * * SiC.tersoff C\n")
    structures = {"sheet": graphene(a=2.46, vacuum=6.0), "tube": make_tube(), "c60": molecule("C60")}
    for name, atoms in structures.items():
        atoms.write(tmp_path / f"{name}.xyz", format="extxyz")
    result = validate_potential(
        tmp_path / "carbon.lmp", tmp_path / "out", against=tmp_path / "other.lmp",
        structures=[tmp_path / f"{name}.xyz" for name in structures],
        properties=("lattice", "eos", "elastic", "phonons"),
        settings=ValidationSettings(QUICK_EFFORT),
    )  # fmt: skip
    table = result.table.set_index(["structure", "property", "quantity"])
    assert table.loc[("sheet", "eos", "layer modulus"), "unit"] == "N/m"
    assert table.loc[("sheet", "lattice", "a"), "reference"] == pytest.approx(2.530, abs=1e-3)  # Tersoff (1988, 1989)
    assert table.loc[("tube", "eos", "stiffness"), "unit"] == "nN"
    assert table.loc[("c60", "phonons", "vibrations"), "potential"] == 174
    assert table[["potential", "reference"]].notna().all().all()
    failures = result.failures
    assert set(failures["structure"]) == {"c60"}
    assert set(failures["property"]) == {"eos", "elastic"}
    assert failures["reason"].str.contains("molecule").all()
    for name in ("eos_area", "eos_length", "vibrations", "phonons", "phonons_2"):
        assert (tmp_path / "out" / "figures" / f"{name}.png").exists()
    assert list(pd.read_csv(tmp_path / "out" / "tables" / "eos_area.csv"))[:2] == ["area", "energy"]
    page = (tmp_path / "out" / "validation.html").read_text()
    assert page.index("Equation of state") < page.index("area of sheets") < page.index("Elastic constants")


def test_vacuum_in_a_periodic_direction_is_refused(tmp_path):
    atoms = graphene(a=2.46, vacuum=6.0)
    atoms.pbc = True
    atoms.write(tmp_path / "sheet.xyz", format="extxyz")
    (tmp_path / "carbon.lmp").write_text("\n".join(TERSOFF))
    with pytest.raises(InputError, match=r"structure 'sheet' .* 12\.0 Å of empty space.*pbc=\"T T F\""):
        validate_potential(tmp_path / "carbon.lmp", tmp_path / "out", structures=[tmp_path / "sheet.xyz"])
