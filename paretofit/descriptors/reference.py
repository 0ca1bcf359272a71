"""A reference potential of LAMMPS that a fit is made on top of, such as ZBL: what it gives for a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from paretofit.descriptors.rows import (
    BAR_PER_EV_A3,
    GPA_PER_BAR,
    assign_types,
    create_lammps_atoms,
    rotate_voigt,
    translate_lammps_errors,
)

if TYPE_CHECKING:
    from ase import Atoms

    from paretofit.core import Array
    from paretofit.descriptors.basis import SnapBasis

VOIGT = [0, 1, 2, 5, 4, 3]  # LAMMPS's pressure is xx, yy, zz, xy, xz, yz


@dataclass(frozen=True)
class ReferencePotential:
    """Lines of a LAMMPS script.

    Attributes
    ----------
    pair_style : str
        Without the keyword, such as ``"hybrid/overlay zero 10.0 zbl 4.0 4.8"``.
    pair_coeffs : tuple of str
        Without the keyword, such as ``"* * zbl 73 73"``.
    """

    pair_style: str
    pair_coeffs: tuple[str, ...]

    @property
    def commands(self) -> list[str]:
        """The lines with their keywords."""
        return [f"pair_style {self.pair_style}", *(f"pair_coeff {one}" for one in self.pair_coeffs)]


def compute_reference_labels(
    lammps: Any, basis: SnapBasis, reference: ReferencePotential, atoms: Atoms
) -> tuple[float, Array, Array]:
    """Energy, forces and stress of a configuration under a reference potential.

    Parameters
    ----------
    lammps : lammps.lammps
        An instance; it is cleared first.
    basis : SnapBasis
        Its elements are LAMMPS's atom types.
    reference : ReferencePotential
    atoms : ase.Atoms

    Returns
    -------
    energy : float
        eV.
    forces : (N, 3) float64
        eV/Å, in the frame of `atoms`.
    stress : (6,) float64
        GPa, positive in tension, ASE's Voigt order; NaN where `atoms` is not periodic in three directions.

    Raises
    ------
    InputError
        If LAMMPS refuses the potential or the configuration.
    """
    types = assign_types(basis, atoms)
    with translate_lammps_errors(atoms):
        rotation = create_lammps_atoms(lammps, basis, atoms, types)
        lammps.commands_string("\n".join([*reference.commands, "compute push all pressure NULL virial"]))
        lammps.commands_string("thermo_style custom step pe c_push[1]\nthermo_modify norm no\nrun 0 post no")
        energy = float(lammps.get_thermo("pe"))
        pressure = np.array(lammps.numpy.extract_compute("push", 0, 1))[VOIGT]
        order = np.argsort(np.array(lammps.numpy.extract_atom("id"))[: len(atoms)])
        forces = np.array(lammps.numpy.extract_atom("f"))[: len(atoms)][order]
    stress = -rotate_voigt(pressure * GPA_PER_BAR, rotation) if atoms.pbc.all() else np.full(6, np.nan)
    return energy, forces @ rotation.T, stress


GPA_PER_EV_A3 = BAR_PER_EV_A3 * GPA_PER_BAR  # GPa for eV/Å³, as LAMMPS has it
