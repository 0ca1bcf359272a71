"""Units in which programs or users may have written labels by mistake."""

from ase import units

# Values of 1 eV, 1 eV/Å and 1 eV/Å³ in other units.
ENERGY_UNITS = {
    "rydberg": 1 / units.Rydberg, "hartree": 1 / units.Hartree, "kcal/mol": units.mol / units.kcal,
    "kJ/mol": units.mol / units.kJ, "meV": 1e3,
}  # fmt: skip
FORCE_UNITS = {
    "rydberg/bohr": units.Bohr / units.Rydberg, "hartree/bohr": units.Bohr / units.Hartree, "eV/bohr": units.Bohr,
    "kcal/mol/Å": units.mol / units.kcal, "meV/Å": 1e3,
}  # fmt: skip
STRESS_UNITS = {"GPa": 1 / units.GPa, "kbar": 1e-3 / units.bar, "bar": 1 / units.bar}
