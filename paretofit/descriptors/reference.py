"""Reference potentials in LAMMPS, such as ZBL, whose energies, forces and stresses are subtracted before a fit."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from paretofit.core import Array
from paretofit.descriptors.lammps_frame import extract_per_atom, load_configuration, rotate_voigt
from paretofit.descriptors.linear_basis import LinearBasis
from paretofit.descriptors.rows import BAR_PER_EV_A3, GPA_PER_BAR

GPA_PER_EV_A3 = BAR_PER_EV_A3 * GPA_PER_BAR  # with LAMMPS's conversion factor, as in the stress rows
LAMMPS_TO_VOIGT = [0, 1, 2, 5, 4, 3]  # the order of LAMMPS's pressure is xx, yy, zz, xy, xz, yz


@dataclass(frozen=True)
class ReferencePotential:
    """Reference potential, defined by commands of a LAMMPS script.

    Attributes
    ----------
    pair_style : str
        Arguments of ``pair_style``, such as ``"hybrid/overlay zero 10.0 zbl 4.0 4.8"``.
    pair_coeffs : tuple of str
        Arguments of each ``pair_coeff``, such as ``"* * zbl 73 73"``.
    """

    pair_style: str
    pair_coeffs: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether the potential has no interactions: its only style is ``zero``."""
        words = self.pair_style.split()  # words that do not begin with a letter are arguments of a style
        is_hybrid = words[0].startswith("hybrid")
        return words[0] == "zero" or (is_hybrid and all(not word[0].isalpha() or word == "zero" for word in words[1:]))

    @property
    def commands(self) -> list[str]:
        """Complete ``pair_style`` and ``pair_coeff`` lines."""
        return [f"pair_style {self.pair_style}", *(f"pair_coeff {arguments}" for arguments in self.pair_coeffs)]


def compute_reference_labels(
    lammps: Any, basis: LinearBasis, reference: ReferencePotential, atoms: Atoms
) -> tuple[float, Array, Array]:
    """Total energy, forces and stress of a configuration in a reference potential.

    Parameters
    ----------
    lammps : lammps.lammps
        LAMMPS instance, which is cleared first.
    basis : LinearBasis
        Basis whose elements are LAMMPS's atom types.
    reference : ReferencePotential
    atoms : ase.Atoms

    Returns
    -------
    energy : float
        eV.
    forces : (N, 3) float64
        eV/Å, in the frame of `atoms`.
    stress : (6,) float64
        GPa, positive in tension, ASE's Voigt order; all NaN unless `atoms` is periodic in three directions.

    Raises
    ------
    InputError
        If LAMMPS rejects the potential or the configuration.
    """
    with load_configuration(lammps, basis, atoms) as (_, rotation):
        lammps.commands_string("\n".join([*reference.commands, "compute virial all pressure NULL virial"]))
        lammps.commands_string("thermo_style custom step pe c_virial[1]\nthermo_modify norm no\nrun 0 post no")
        energy = float(lammps.get_thermo("pe"))
        pressure = np.array(lammps.numpy.extract_compute("virial", 0, 1))[LAMMPS_TO_VOIGT]
        forces = extract_per_atom(lammps, lammps.numpy.extract_atom("f"), len(atoms))
    stress = -rotate_voigt(pressure * GPA_PER_BAR, rotation) if atoms.pbc.all() else np.full(6, np.nan)
    return energy, forces @ rotation.T, stress
