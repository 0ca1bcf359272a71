"""Dispersion correction of any potential: Grimme's D2 (``pair_style momb``) or D3 (``dispersion/d3``) in LAMMPS.

D2 is E = -s6 Σ C6 / r⁶ / (1 + exp(-d (r/R - 1))), a sum over pairs of atoms at distances r, where C6 is the geometric
mean of the coefficients of the two atoms, and R the sum of their radii: S. Grimme, J. Comput. Chem. 27, 1787 (2006),
table 1. Bidoggia et al. (2025) add D2 in this form.
"""

from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np
from ase.data import chemical_symbols

from paretofit.core import NEIGHBOUR_LIMITS, InputError, check_choice

DISPERSION_METHODS = ("d2", "d3")
D2_S6 = 0.75  # s6 for PBE
D2_STEEPNESS = 20.0  # d in the equation
D2_CUTOFF_A = 30.0  # Å; the energy of two carbon atoms at this distance is 1e-8 eV
D3_CUTOFFS_A = "30.0 20.0"  # Å; cutoffs of the energy and of coordination numbers
EV_A6_PER_J_NM6 = 1e6 / 96485.33212  # converts C6 from J nm⁶/mol to eV Å⁶

# C6 in J nm⁶/mol and radii in Å, from hydrogen to xenon; the d elements of a period have equal values.
_S_AND_P_ELEMENTS = [*chemical_symbols[1:21], *chemical_symbols[31:39], *chemical_symbols[49:55]]
_C6 = (
    0.14, 0.08, 1.61, 1.61, 3.13, 1.75, 1.23, 0.70, 0.75, 0.63, 5.71, 5.71, 10.79, 9.23, 7.84, 5.57, 5.07, 4.61,
    10.80, 10.80, 16.99, 17.10, 16.37, 12.64, 12.47, 12.01, 24.67, 24.67, 37.32, 38.71, 38.44, 31.74, 31.50, 29.99,
)  # fmt: skip
_RADII = (
    1.001, 1.012, 0.825, 1.408, 1.485, 1.452, 1.397, 1.342, 1.287, 1.243, 1.144, 1.364, 1.639, 1.716, 1.705, 1.683,
    1.639, 1.595, 1.485, 1.474, 1.650, 1.727, 1.760, 1.771, 1.749, 1.727, 1.628, 1.606, 1.672, 1.804, 1.881, 1.892,
    1.892, 1.881,
)  # fmt: skip
D2_PARAMETERS = dict(zip(_S_AND_P_ELEMENTS, zip(_C6, _RADII, strict=True), strict=True))
D2_PARAMETERS |= dict.fromkeys(chemical_symbols[21:31], (10.80, 1.562))
D2_PARAMETERS |= dict.fromkeys(chemical_symbols[39:49], (24.67, 1.639))


def format_dispersion_commands(method: str, elements: Sequence[str]) -> list[str]:
    """Format the LAMMPS commands of the dispersion correction for PBE; the first command is ``pair_style``.

    Parameters
    ----------
    method : {"d2", "d3"}
        Dispersion method; D3 is used with Becke-Johnson damping.
    elements : sequence of str
        Element of each LAMMPS atom type, in order.

    Raises
    ------
    InputError
        If the method is unknown, or an element is beyond xenon, for which D2 has no parameters here.
    """
    check_choice("dispersion", method, DISPERSION_METHODS)
    if method == "d3":
        coefficients = f"pair_coeff * * {' '.join(elements)}"
        return [f"pair_style dispersion/d3 bj pbe {D3_CUTOFFS_A}", coefficients, NEIGHBOUR_LIMITS]
    unknown_elements = [symbol for symbol in elements if symbol not in D2_PARAMETERS]
    if unknown_elements:
        raise InputError(f"Grimme's D2 has no parameters for {unknown_elements[0]}; use d3")
    lines = [f"pair_style momb {D2_CUTOFF_A} {D2_S6} {D2_STEEPNESS}"]
    for (i, first_element), (j, second_element) in combinations_with_replacement(enumerate(elements, start=1), 2):
        first_c6, first_radius = D2_PARAMETERS[first_element]
        second_c6, second_radius = D2_PARAMETERS[second_element]
        c6 = float(np.sqrt(first_c6 * second_c6)) * EV_A6_PER_J_NM6
        lines.append(  # the depth of 0.0 switches off the Morse term of momb
            f"pair_coeff {i} {j} 0.0 1.0 1.0 {c6:.8g} {first_radius + second_radius:.6g}"
        )
    return [*lines, NEIGHBOUR_LIMITS]


def overlay_commands(commands: Sequence[str], added_commands: Sequence[str]) -> list[str]:
    """Combine the commands of two potentials into those of a ``hybrid/overlay`` potential.

    Parameters
    ----------
    commands : sequence of str
        Commands of the first potential, with a simple or a ``hybrid/overlay`` style; commands other than ``pair_style``
        and ``pair_coeff`` are not changed.
    added_commands : sequence of str
        Commands of the second potential, with a simple style; the first command must be its ``pair_style``.

    Raises
    ------
    InputError
        If the first potential has no ``pair_style``, or a hybrid style other than ``hybrid/overlay``.
    """
    style = next((line.split(None, 1)[1] for line in commands if line.split()[:1] == ["pair_style"]), None)
    if style is None:
        raise InputError("a potential without a pair_style line cannot be overlaid; add the line")
    is_simple = not style.startswith("hybrid")
    if not is_simple and not style.startswith("hybrid/overlay"):
        raise InputError(f"a potential of style {style.split()[0]} cannot be overlaid; write it as hybrid/overlay")
    combined_style = f"hybrid/overlay {style}" if is_simple else style
    added_style = added_commands[0].split(None, 1)[1]
    lines = []
    for line in commands:
        if line.split()[:1] == ["pair_style"]:
            lines.append(f"pair_style {combined_style} {added_style}")
        else:
            lines.append(_insert_style(line, style.split()[0]) if is_simple else line)
    return lines + [_insert_style(line, added_style.split()[0]) for line in added_commands[1:]]


def _insert_style(line: str, style: str) -> str:
    """Insert the name of a style after the two types of a ``pair_coeff`` line; return other lines unchanged."""
    words = line.split(None, 3)
    return " ".join([*words[:3], style, *words[3:]]) if words[:1] == ["pair_coeff"] else line
