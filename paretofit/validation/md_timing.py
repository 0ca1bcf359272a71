"""How fast LAMMPS runs a potential: measured, on a cell of the structure that it will be used for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase.build import make_supercell

from paretofit.core import InputError, get_shared_lammps
from paretofit.descriptors import transform_to_lammps_frame, translate_lammps_errors
from paretofit.potentials.mace import limit_torch_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from paretofit.potentials import MacePotential

ATOMS = 250  # about; less, and what is done once for each step begins to count
SECONDS = 1.0  # that a measurement should take
REPETITIONS = 3
REBUILD = 10  # steps between new neighbour lists


@dataclass(frozen=True)
class MdSpeed:
    """The speed of a potential on one core.

    Attributes
    ----------
    us_per_atom_step : float
        µs for each atom and step; the smallest of the repetitions, as everything else is the machine's doing.
    max_min_ratio : float
        Largest over smallest of the repetitions.
    n_atoms : int
        Of the cell.
    """

    us_per_atom_step: float
    max_min_ratio: float
    n_atoms: int

    @property
    def atom_steps_per_second(self) -> float:
        """atoms·steps/s."""
        return 1e6 / self.us_per_atom_step


def measure_md_speed(
    commands: Sequence[str], elements: Sequence[str], atoms: Atoms, *, seconds: float = SECONDS
) -> MdSpeed:
    """Time LAMMPS in microcanonical MD with a potential, on one core.

    The atoms hardly move (a step is 1e-9 ps), so that even a bad potential stays together; neighbour lists are
    built anew every ten steps, as in a run.

    Parameters
    ----------
    commands : sequence of str
        ``pair_style`` and ``pair_coeff`` lines, units metal.
    elements : sequence of str
        Of LAMMPS's atom types, in order.
    atoms : ase.Atoms
        Periodic; repeated to about 250 atoms.
    seconds : float
        How long each of three measurements should take.

    Raises
    ------
    InputError
        If the cell is not periodic, has an element that the potential lacks, or LAMMPS refuses the potential.
    """
    if not atoms.pbc.all():
        raise InputError("MD speed is measured on a cell that is periodic in three directions")
    foreign = sorted(set(atoms.get_chemical_symbols()) - set(elements))
    if foreign:
        raise InputError(f"the cell has {foreign[0]}, which the potential lacks; it has {', '.join(elements)}")
    cell = _larger(atoms)
    lammps = get_shared_lammps()
    with translate_lammps_errors(cell):
        _set_up(lammps, commands, elements, cell)
        lammps.command("run 5 post no")  # neighbour lists, and whatever is slow the first time
        steps = max(2, round(seconds / max(_timed(lammps, 2) / 2, 1e-6)))
        found = [_timed(lammps, steps) / (steps * len(cell)) for _ in range(REPETITIONS)]
        lammps.command("clear")
    return MdSpeed(1e6 * min(found), max(found) / min(found), len(cell))


def measure_calculator_speed(
    calculator: Calculator, atoms: Atoms, *, seconds: float = SECONDS, clock: Callable[[], float] = time.process_time
) -> MdSpeed:
    """Time energies and forces of an ASE calculator, which are what a step of MD costs, in this process.

    Parameters
    ----------
    calculator : ase Calculator
    atoms : ase.Atoms
        Periodic; repeated to about 250 atoms, which hardly move.
    seconds : float
        How long each of three measurements should take.
    clock : callable
        By default of this process alone, for other work does not count; `time.perf_counter` where a GPU computes.

    Raises
    ------
    InputError
        If the cell is not periodic.
    """
    if not atoms.pbc.all():
        raise InputError("MD speed is measured on a cell that is periodic in three directions")
    cell = _larger(atoms)
    cell.calc = calculator

    def timed(steps: int) -> float:
        start = clock()
        for _ in range(steps):
            cell.positions[0, 0] += 1e-9  # else it is not computed again
            cell.get_forces()
        return clock() - start

    timed(2)
    steps = max(2, round(seconds / max(timed(2) / 2, 1e-6)))
    found = [timed(steps) / (steps * len(cell)) for _ in range(REPETITIONS)]
    return MdSpeed(1e6 * min(found), max(found) / min(found), len(cell))


def measure_network_speed(potential: MacePotential, atoms: Atoms, *, seconds: float = SECONDS) -> MdSpeed:
    """`measure_calculator_speed` of one member of a MACE committee, on one core or its GPU."""
    clock = time.process_time if potential.device == "cpu" else time.perf_counter
    with limit_torch_threads():
        return measure_calculator_speed(potential.member(0).calculator_factory()(), atoms, seconds=seconds, clock=clock)


def _larger(atoms: Atoms) -> Atoms:
    """Repeated along its shortest vectors until it has about `ATOMS` atoms."""
    repeats = np.ones(3, dtype=int)
    lengths = atoms.cell.lengths()
    while len(atoms) * np.prod(repeats) < ATOMS:
        repeats[np.argmin(repeats * lengths)] += 1
    larger: Atoms = make_supercell(atoms, np.diag(repeats))
    return larger


def _set_up(lammps: object, commands: Sequence[str], elements: Sequence[str], atoms: Atoms) -> None:
    cell, positions, _ = transform_to_lammps_frame(atoms, 1.0)
    (xx, _, _), (xy, yy, _), (xz, yz, zz) = cell.tolist()
    number = {symbol: k for k, symbol in enumerate(elements, start=1)}
    types = [number[symbol] for symbol in atoms.get_chemical_symbols()]
    lammps.command("clear")  # type: ignore[attr-defined]
    lammps.commands_string(  # type: ignore[attr-defined]
        "units metal\natom_style atomic\natom_modify map array\nbox tilt large\n"
        f"region cell prism 0 {xx!r} 0 {yy!r} 0 {zz!r} {xy!r} {xz!r} {yz!r}\ncreate_box {len(elements)} cell"
    )
    ids = list(range(1, len(atoms) + 1))
    lammps.create_atoms(len(atoms), ids, types, positions.ravel().tolist())  # type: ignore[attr-defined]
    lines = ["mass * 1.0", *commands, "neighbor 1.0 bin", f"neigh_modify every {REBUILD} delay 0 check no"]
    lines += ["timestep 1.0e-9", "fix motion all nve", "thermo 1000000"]
    lammps.commands_string("\n".join(lines))  # type: ignore[attr-defined]


def _timed(lammps: object, steps: int) -> float:
    start = time.process_time()  # of this process alone: LAMMPS has one thread, and other work does not count
    lammps.command(f"run {steps} pre no post no")  # type: ignore[attr-defined]
    return time.process_time() - start
