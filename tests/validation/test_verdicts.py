"""Verdicts: implausible values and deviations are flagged, and lead the page."""

import numpy as np
import pandas as pd
import pytest

from paretofit.commands.validation_result import ValidationResult, write_validation
from paretofit.validation import FLAG, ValidationSettings, add_verdicts
from paretofit.validation.dimer import DimerCurve
from paretofit.validation.periodicity import MEASURES
from paretofit.validation.stability import StabilityResult
from paretofit.validation.volume_scan import BirchMurnaghanCurve

SIZES = np.linspace(7, 11, 9)


def find_problems(result):
    return {quantity.name: quantity.problem for quantity in result.quantities if quantity.problem}


def make_equation(derivative=3.4, energies=None):
    energies = (SIZES - 9) ** 2 if energies is None else energies
    curve = pd.DataFrame({"volume": SIZES, "energy": energies})
    return BirchMurnaghanCurve(9.0, 0.0, 100.0, derivative, curve, MEASURES[3], [])


def make_dynamics(temperature=310.0, drift=0.1, n_atoms=36, reason=""):
    empty = pd.DataFrame()
    return StabilityResult(10.0, 10.0, reason, drift, temperature, 300.0, n_atoms, empty, empty)


def tabulate(*rows):
    columns = ["property", "structure", "quantity", "unit", "potential", "reference", "problem"]
    table = pd.DataFrame([[name, "Be", *row] for name, *row in rows], columns=columns)
    return table.assign(difference=table["potential"] - table["reference"])


def test_a_usable_potential_has_no_problem():
    assert find_problems(make_equation()) == {}
    assert find_problems(make_dynamics()) == {}


@pytest.mark.parametrize("derivative", [15.7, -2.0])
def test_a_derivative_that_no_solid_has_is_a_problem(derivative):
    assert list(find_problems(make_equation(derivative))) == ["B'"]


@pytest.mark.parametrize(("k", "side"), [(-1, "above 10.5"), (0, "below 7.5")])
def test_a_curve_that_falls_again_is_bad(k, side):
    energies = (SIZES - 9) ** 2
    energies[k] = 0.1
    assert f"falls again {side} Å³/atom" in find_problems(make_equation(energies=energies))["E0"]


def test_a_wrong_temperature_is_a_problem_unless_the_cell_is_so_small_that_it_scatters():
    assert "300 K was requested" in find_problems(make_dynamics(450.0))["mean temperature"]
    assert find_problems(make_dynamics(450.0, n_atoms=4)) == {}
    assert list(find_problems(make_dynamics(drift=-3.0))) == ["energy drift"]
    assert find_problems(make_dynamics(reason="atoms were lost")) == {"survival": "atoms were lost"}


def test_attraction_at_short_distances_is_a_problem_with_its_barrier():
    distance = np.linspace(0.3, 6, 115)
    energy = 4 * ((1.5 / distance) ** 4 - (1.5 / distance) ** 2)
    assert find_problems(DimerCurve(pd.DataFrame({"distance": distance, "energy": energy}), 1.92)) == {}
    energy[distance < 0.9] = -5.0
    problem = find_problems(DimerCurve(pd.DataFrame({"distance": distance, "energy": energy}), 1.92))
    assert "eV collapse" in problem["inner turning distance"]


def test_deviations_have_verdicts_where_they_have_a_meaning():
    table = add_verdicts(tabulate(
        ("lattice", "a", "Å", 2.29, 2.28, ""), ("lattice", "c", "Å", 3.68, 3.58, ""),
        ("lattice", "energy", "eV/atom", -3.0, -50.0, ""), ("lattice", "gamma", "°", 118.0, 120.0, ""),
        ("md", "mean temperature", "K", 290.0, 310.0, ""), ("phonons", "lowest frequency", "THz", 0.01, 0.0, ""),
        ("eos", "B'", "", 15.7, np.nan, "too large"),
    )).set_index("quantity")  # fmt: skip
    assert table.loc["a", "deviation_percent"] == pytest.approx(100 * 0.01 / 2.28)
    assert table.loc["a", "verdict"] == "agrees"
    assert table.loc["B'", "verdict"] == f"{FLAG}: too large"
    flagged = table["verdict"].str.startswith(FLAG)
    assert set(table.index[flagged]) == {"c", "gamma", "B'"}
    assert table.loc[["energy", "mean temperature", "lowest frequency"], "verdict"].eq("").all()


def test_flagged_values_lead_the_page_and_end_the_text(tmp_path):
    rows = ("eos", "B'", "", 15.7, np.nan, "too large"), ("lattice", "a", "Å", 2.29, 2.28, "")
    table = add_verdicts(tabulate(*rows))
    failures = pd.DataFrame(columns=["property", "structure", "potential", "reason"])
    result = ValidationResult(tmp_path, table, failures, {}, "Be.mod", "dft.csv")
    write_validation(result, ValidationSettings())
    page = (tmp_path / "validation.html").read_text()
    assert page.index("What is wrong?") < page.index("of Be = 15.7: too large.") < page.index("Equation of state")
    assert 'class="flag">flagged: too large' in page
    assert "1 of 2 values flagged, 1 agree with dft.csv, 0 properties failed" in page
    assert "B' of Be = 15.7: flagged: too large" in result.text.splitlines()
