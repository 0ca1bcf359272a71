"""Defects of compounds: energies by hand, the convention of the reservoirs, and what does not depend on it."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

pytest.importorskip("spglib")

from paretofit.commands import validate_potential
from paretofit.core import InputError, lammps_calculator
from paretofit.validation import QUICK_EFFORT, ValidationSettings, crystal, defects, orient_structure
from paretofit.validation.reservoirs import compute_reservoir_energies
from paretofit.validation.vacuum_calculator import VacuumCalculator

NICKEL_ALUMINIUM = ["pair_style eam/alloy", "pair_coeff * * NiAlH_jea.eam.alloy Ni Al"]


@pytest.fixture(scope="module")
def compound():
    """NiAl of an embedded-atom potential, its calculator and its defects."""
    calculator = lammps_calculator(NICKEL_ALUMINIUM, ["Ni", "Al"])
    atoms = bulk("NiAl", "cesiumchloride", a=2.88)
    relaxed = crystal.standardize_cell(crystal.relax_structure(calculator, atoms, relax_cell=True))
    return relaxed, calculator, defects.relax_defect_cells(calculator, relaxed, min_length=7.0)


def test_vacancy_and_antisite_of_each_species(compound):
    _, _, cells = compound
    expected = {"vacancy Ni", "vacancy Al", "antisite Al on Ni", "antisite Ni on Al", "divacancy Al-Ni"}
    assert set(cells.cells) == expected
    n = len(cells.pristine) // 2
    counts = {name: tuple(cell.symbols.count(s) - n for s in ("Ni", "Al")) for name, cell in cells.cells.items()}
    assert counts == {
        "vacancy Ni": (-1, 0), "vacancy Al": (0, -1), "antisite Al on Ni": (-1, 1), "antisite Ni on Al": (1, -1),
        "divacancy Al-Ni": (-1, -1),
    }  # fmt: skip


def test_formation_energies_refer_to_the_crystals_of_the_elements(compound):
    relaxed, calculator, cells = compound
    reservoirs = compute_reservoir_energies(calculator, relaxed, {})
    for symbol in ("Ni", "Al"):
        element = crystal.relax_structure(calculator, bulk(symbol), relax_cell=True)
        assert reservoirs.energies[symbol] == pytest.approx(element.get_potential_energy())
    energies = defects.compute_formation_energies(calculator, cells, reservoirs.energies)
    pristine, vacancy = (
        crystal.compute_energy(atoms, calculator) for atoms in (cells.pristine, cells.cells["vacancy Ni"])
    )
    assert energies["vacancy Ni"] == pytest.approx(vacancy - pristine + reservoirs.energies["Ni"])


def test_pairs_of_antisites_do_not_depend_on_the_reservoirs(compound):
    relaxed, calculator, cells = compound
    sums, vacancies = [], []
    for stated in ({}, {"Ni": -5.0}, {"Ni": -5.0, "Al": -3.0}):
        reservoirs = compute_reservoir_energies(calculator, relaxed, stated)
        assert {symbol: reservoirs.reservoirs[symbol] for symbol in stated} == dict.fromkeys(stated, "as stated")
        energies = defects.compute_formation_energies(calculator, cells, reservoirs.energies)
        sums.append(energies["antisite Al on Ni"] + energies["antisite Ni on Al"])
        vacancies.append(energies["vacancy Ni"])
    assert np.ptp(sums) < 1e-9
    assert vacancies[0] - vacancies[1] == pytest.approx(
        5.0 + compute_reservoir_energies(calculator, relaxed, {}).energies["Ni"]
    )


def test_one_element_without_a_crystal_is_in_equilibrium_with_the_compound():
    """ASE has no crystal of nitrogen; boron nitride has one more species, boron, whose energy is stated here."""
    calculator = VacuumCalculator(
        lammps_calculator(["pair_style tersoff", "pair_coeff * * BNC.tersoff B N"], ["B", "N"]), is_local=True
    )
    atoms = orient_structure(Atoms("BN", [[0, 0, 0], [0, 1.45, 0]], pbc=[True, True, False],
                                   cell=[[2.5, 0, 0], [-1.25, 2.165, 0], [0, 0, 0]]))  # fmt: skip
    relaxed = crystal.standardize_cell(crystal.relax_structure(calculator, atoms, relax_cell=True))
    reservoirs = compute_reservoir_energies(calculator, relaxed, {"B": -5.0})
    assert reservoirs.energies["N"] == pytest.approx(crystal.compute_energy(relaxed, calculator) + 5.0)
    assert reservoirs.reservoirs == {"B": "as stated", "N": "in equilibrium with the compound"}
    cells = defects.relax_defect_cells(calculator, relaxed, min_length=7.0)
    energies = defects.compute_formation_energies(calculator, cells, reservoirs.energies)
    assert {
        "vacancy B",
        "vacancy N",
        "antisite B on N",
        "antisite N on B",
        "Stone-Wales",
    } <= energies.keys() | cells.failures.keys()
    shared = compute_reservoir_energies(calculator, relaxed, {})  # ASE has no crystal of boron either
    assert (
        shared.energies["B"] == shared.energies["N"] == pytest.approx(crystal.compute_energy(relaxed, calculator) / 2)
    )
    assert shared.reservoirs["B"] == "in equilibrium with the compound, whose energy B and N share equally"


def test_command_states_the_convention(tmp_path, compound):
    compound[0].write(tmp_path / "nial.xyz", format="extxyz")
    (tmp_path / "eam.lmp").write_text("\n".join(NICKEL_ALUMINIUM))
    tables = []
    for stated in ((), (("Ni", -5.0), ("Al", -3.0))):
        result = validate_potential(
            tmp_path / "eam.lmp", tmp_path / f"out{len(stated)}", structures=[tmp_path / "nial.xyz"],
            properties=["defects"], settings=ValidationSettings(QUICK_EFFORT, reference_energies=stated),
        )  # fmt: skip
        tables.append(result.table.set_index("quantity")["potential"])
    assert "Al (crystal of Al), Ni (crystal of Ni)" not in result.notes[0]
    assert "Al (as stated), Ni (as stated)" in result.notes[0]
    assert result.notes[0] in (tmp_path / "out2" / "validation.md").read_text()
    name = "vacancy Ni, relaxed by itself"
    energy = tables[0]["reference energy of Ni"]
    assert energy == pytest.approx(-4.45, abs=0.01)  # of the potential's authors
    assert tables[0][name] - tables[1][name] == pytest.approx(energy + 5.0)
    for symbol in ("Nickel", "Fe"):
        with pytest.raises(InputError, match=f"'--reference-energy' has '{symbol}', but .* contain Al, Ni"):
            validate_potential(
                tmp_path / "eam.lmp", tmp_path / "out", structures=[tmp_path / "nial.xyz"],
                settings=ValidationSettings(QUICK_EFFORT, reference_energies=((symbol, 1.0),)),
            )  # fmt: skip
