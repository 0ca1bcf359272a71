"""Units of FitSNAP's JSON files: every name that FitSNAP 3.1 knows, and common names that it does not know.

The names are those of ``fitsnap3lib/units``, in upper or lower case. The factors are ASE's: those of FitSNAP have 6 to
10 digits, and its factors for metres, centimetres, newtons, dynes and atomic units of pressure are wrong by orders of
magnitude.
"""

from collections.abc import Mapping
from typing import Any

from ase import units

from paretofit.core import InputError, suggest_match
from paretofit.dataset.checks import abbreviate

NEWTON = 1e-10 * units.J  # one newton (a joule per metre) in eV/Å
# Factors that convert each unit to eV, Å, eV/Å or eV/Å³.
ENERGIES = {
    **dict.fromkeys(("electronvolt", "ev", "metal"), 1.0),
    "mev": 1e-3,
    **dict.fromkeys(("hartree", "ha", "eh", "atomic"), units.Hartree),
    **dict.fromkeys(("rydberg", "ryd", "ry"), units.Rydberg),
    "kcal/mol": units.kcal / units.mol,
    "kj/mol": units.kJ / units.mol,
}
LENGTHS = {
    **dict.fromkeys(("angstrom", "angstroms", "ang", "a", "å", "metal"), 1.0),
    **dict.fromkeys(("bohr", "au", "atomic"), units.Bohr),
    **dict.fromkeys(("nanometer", "nanometers", "nm"), units.nm),
    **dict.fromkeys(("meter", "meters", "m"), 1e10),
    **dict.fromkeys(("centimeter", "centimeters", "cm"), 1e8),
}
FORCES = {
    **dict.fromkeys(("electronvolt/angstrom", "ev/angstrom", "metal"), 1.0),
    **dict.fromkeys(("hartree/bohr", "atomic"), units.Hartree / units.Bohr),
    "rydberg/bohr": units.Rydberg / units.Bohr,
    **dict.fromkeys(("newton", "newtons", "n", "kgm/s/s"), NEWTON),
    **dict.fromkeys(("dyne", "dynes"), 1e-5 * NEWTON),
}
STRESSES = {
    **dict.fromkeys(("bar", "bars", "metal"), units.bar),
    **dict.fromkeys(("kbar", "kbars", "kb"), 1e3 * units.bar),
    "atm": 1.01325 * units.bar,
    **dict.fromkeys(("pascal", "pa"), units.Pascal),
    "kpa": 1e3 * units.Pascal,
    "mpa": 1e6 * units.Pascal,
    "gpa": units.GPa,
    **dict.fromkeys(("hartree/bohr3", "atomic"), units.Hartree / units.Bohr**3),
    "ev/angstrom3": 1.0,
}
STYLES: dict[str, tuple[str, dict[str, float]]] = {  # FitSNAP's default unit, and the factors of all known units
    "Lattice": ("angstrom", LENGTHS),
    "Positions": ("angstrom", LENGTHS),
    "Energy": ("electronvolt", ENERGIES),
    "Forces": ("electronvolt/angstrom", FORCES),
    "Stress": ("bar", STRESSES),
    "AtomType": ("chemicalsymbol", {"chemicalsymbol": 1.0}),
}


def get_fitsnap_unit_factors(context: str, dataset: Mapping[str, Any]) -> dict[str, float]:
    """Return, for each quantity of `STYLES`, the factor that converts the unit of a file to ASE's unit.

    Parameters
    ----------
    context : str
        Beginning of error messages.
    dataset : mapping
        Content of ``Dataset`` with keys such as ``EnergyStyle``; a missing key means FitSNAP's default unit, that of
        LAMMPS's ``units metal``.

    Raises
    ------
    InputError
        If a unit is unknown.
    """
    factors: dict[str, float] = {}
    for quantity, (default_unit, unit_factors) in STYLES.items():
        style = dataset.get(f"{quantity}Style", default_unit)
        unit = _normalise_unit(style) if isinstance(style, str) else ""
        factor = unit_factors.get(unit, _compute_quotient(quantity, unit))
        if factor is None:
            raise InputError(
                f"{context}: '{quantity}Style' is {abbreviate(style)}, which cannot be converted; it must be one of "
                f"{', '.join(unit_factors)}{suggest_match(unit, unit_factors)}"
            )
        factors[quantity] = factor
    return factors


def _normalise_unit(name: str) -> str:
    """Return the name of a unit in lower case, with a slash for "per", without blanks and the characters ``_*^-``."""
    text = "".join(name.lower().split())
    for old, new in (("_per_", "/"), ("per", "/"), ("_", ""), ("*", ""), ("^", ""), ("-", "")):
        text = text.replace(old, new)
    return text


def _compute_quotient(quantity: str, name: str) -> float | None:
    """Return the factor of a unit that is an energy per length (forces) or per volume (stresses), such as ``ry/bohr``.

    Return None if the unit is unknown, or the quantity is another one.
    """
    power = {"Forces": 1, "Stress": 3}.get(quantity)
    if power is None:
        return None
    energy, _, length = name.rpartition("/")
    if power == 3 and length.endswith("3"):
        length = length.removesuffix("3")
    elif power == 3:  # a volume as three lengths: eh/bohr/bohr/bohr
        energy, divisors = energy.partition("/")[::2]
        length = length if divisors == f"{length}/{length}" else ""
    if energy not in ENERGIES or length not in LENGTHS:
        return None
    return float(ENERGIES[energy] / LENGTHS[length] ** power)
