"""Periodic crystals in LAMMPS, in units metal."""

from collections.abc import Sequence
from typing import Any

from ase.data import atomic_masses, atomic_numbers

from paretofit.core import NEIGHBOUR_LIMITS, Array


def create_lammps_crystal(
    lammps: Any, elements: Sequence[str], symbols: Sequence[str], cell: Array, positions: Array
) -> None:
    """Clear LAMMPS, create a periodic triclinic box with atoms and masses, and enlarge neighbour lists for dense cells.

    Parameters
    ----------
    lammps : lammps.lammps
        Instance of LAMMPS, whose earlier contents are lost.
    elements : sequence of str
        Elements of the atom types, in order.
    symbols : sequence of str
        Element of each atom; each must be one of `elements`.
    cell : (3, 3) float64
        Cell vectors as rows, lower triangular, Å.
    positions : (N, 3) float64
        Positions relative to the corner of the box, Å.
    """
    # commands contain numbers in the form of repr (!r), which keeps all digits
    (xx, _, _), (xy, yy, _), (xz, yz, zz) = cell.tolist()
    type_numbers = {symbol: number for number, symbol in enumerate(elements, start=1)}
    lammps.command("clear")
    # without "box tilt large", LAMMPS rejects strongly skewed cells
    lammps.commands_string(
        "units metal\natom_style atomic\natom_modify map array\nbox tilt large\n"
        f"region cell prism 0 {xx!r} 0 {yy!r} 0 {zz!r} {xy!r} {xz!r} {yz!r}\ncreate_box {len(type_numbers)} cell"
    )
    ids = list(range(1, len(symbols) + 1))
    lammps.create_atoms(len(ids), ids, [type_numbers[symbol] for symbol in symbols], positions.ravel().tolist())
    mass_commands = (
        f"mass {number} {float(atomic_masses[atomic_numbers[symbol]])!r}" for symbol, number in type_numbers.items()
    )
    lammps.commands_string("\n".join([*mass_commands, NEIGHBOUR_LIMITS]))
