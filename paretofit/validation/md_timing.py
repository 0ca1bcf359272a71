"""Measurement of the speed of molecular dynamics with a potential, for a given structure."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from ase.calculators.calculator import Calculator

from paretofit.core import InputError, get_shared_lammps
from paretofit.descriptors import transform_to_lammps_frame, translate_lammps_errors
from paretofit.potentials import MacePotential
from paretofit.potentials.mace import limit_torch_threads
from paretofit.validation.lammps_crystal import create_lammps_crystal

MIN_ATOMS = 250  # number of atoms; in smaller cells, the constant cost of a step is not negligible
REPETITION_SECONDS = 1.0  # approximate duration of a repetition
REPETITIONS = 3  # number of timed runs, of which the fastest counts
NEIGHBOUR_LIST_STEPS = 10  # steps between rebuilds of the neighbour lists


@dataclass(frozen=True)
class MdSpeed:
    """Speed of a potential on one core or one GPU.

    Attributes
    ----------
    us_per_atom_step : float
        Time per atom and step (µs) of the fastest repetition, because other processes can only slow a repetition down.
    slowest_to_fastest_ratio : float
        Ratio of the slowest to the fastest repetition.
    n_atoms : int
        Number of atoms of the cell.
    """

    us_per_atom_step: float
    slowest_to_fastest_ratio: float
    n_atoms: int

    @property
    def atom_steps_per_second(self) -> float:
        """Speed in atoms·steps/s."""
        return 1e6 / self.us_per_atom_step


def measure_md_speed(
    commands: Sequence[str], elements: Sequence[str], atoms: Atoms, *, seconds: float = REPETITION_SECONDS
) -> MdSpeed:
    """Measure the speed of microcanonical MD in LAMMPS with a potential on one core.

    The atoms hardly move (a time step is 1e-9 ps), so that inaccurate potentials can also be measured. Neighbour lists
    are rebuilt every ten steps, as in a typical run. The shared LAMMPS instance of this process is cleared.

    Parameters
    ----------
    commands : sequence of str
        ``pair_style`` and ``pair_coeff`` lines, units metal.
    elements : sequence of str
        Elements of LAMMPS's atom types, in order.
    atoms : ase.Atoms
        Periodic cell; it is repeated to at least 250 atoms.
    seconds : float
        Approximate duration of each of three repetitions, s.

    Raises
    ------
    InputError
        If the cell is not periodic in three directions or contains an element that the potential lacks, or LAMMPS
        cannot be loaded or rejects the potential.
    """
    supercell = _repeat_cell(atoms)
    if foreign_elements := sorted(set(atoms.get_chemical_symbols()) - set(elements)):
        raise InputError(f"the cell contains {foreign_elements[0]}; the potential supports only {', '.join(elements)}")
    lammps = get_shared_lammps()

    def run_steps(n_steps: int) -> None:
        """Continue the run without setting it up again."""
        lammps.command(f"run {n_steps} pre no post no")

    with translate_lammps_errors(supercell):
        cell, positions, _ = transform_to_lammps_frame(supercell, 1.0)
        create_lammps_crystal(lammps, elements, supercell.get_chemical_symbols(), cell, positions)
        lines = [*commands, "neighbor 1.0 bin", f"neigh_modify every {NEIGHBOUR_LIST_STEPS} delay 0 check no"]
        lines += ["timestep 1.0e-9", "fix motion all nve", "thermo 1000000"]
        lammps.commands_string("\n".join(lines))
        lammps.command("run 5 post no")  # build neighbour lists, and exclude initialisation from the timing
        speed = _repeat_timing(run_steps, len(supercell), seconds, time.process_time)
        lammps.command("clear")
    return speed


def measure_calculator_speed(
    calculator: Calculator,
    atoms: Atoms,
    *,
    seconds: float = REPETITION_SECONDS,
    clock: Callable[[], float] = time.process_time,
) -> MdSpeed:
    """Measure the speed of MD with an ASE calculator, as the time that energies and forces take in this process.

    Parameters
    ----------
    calculator : ase calculator
    atoms : ase.Atoms
        Periodic cell; it is repeated to at least 250 atoms.
    seconds : float
        Approximate duration of each of three repetitions, s.
    clock : callable
        Function that returns a time in s. The default is the CPU time of this process, which other processes hardly
        affect; use `time.perf_counter` for a GPU.

    Raises
    ------
    InputError
        If the cell is not periodic in three directions.
    """
    supercell = _repeat_cell(atoms)
    supercell.calc = calculator

    def run_steps(n_steps: int) -> None:
        """Compute the forces of slightly different structures."""
        for _ in range(n_steps):
            supercell.positions[0, 0] += 1e-9  # otherwise the calculator would return its last result
            supercell.get_forces()

    run_steps(2)  # exclude initialisation from the timing
    return _repeat_timing(run_steps, len(supercell), seconds, clock)


def measure_network_speed(potential: MacePotential, atoms: Atoms, *, seconds: float = REPETITION_SECONDS) -> MdSpeed:
    """Measure the speed of MD with the first network of a committee, on one core or on the GPU of the potential.

    `atoms` and `seconds` are as in `measure_calculator_speed`.

    Raises
    ------
    InputError
        If the cell is not periodic in three directions, or the packages of the network are not installed.
    """
    clock = time.process_time if potential.device == "cpu" else time.perf_counter
    # created before `limit_torch_threads` imports torch, because the error of the factory says what to install
    calculator = potential.get_member(0).get_calculator_factory()()
    with limit_torch_threads():
        return measure_calculator_speed(calculator, atoms, seconds=seconds, clock=clock)


def _repeat_timing(
    run_steps: Callable[[int], None], n_atoms: int, seconds: float, clock: Callable[[], float]
) -> MdSpeed:
    """Time three runs of equal length; the number of steps is such that each run takes about `seconds`."""

    def time_run(n_steps: int) -> float:
        """Measure the duration (s) of a run."""
        start_time = clock()
        run_steps(n_steps)
        return clock() - start_time

    # the limit of 1e-6 s avoids a division by zero if two steps are faster than the resolution of the clock
    n_steps = max(2, round(seconds / max(time_run(2) / 2, 1e-6)))
    times_per_atom_step = [time_run(n_steps) / (n_steps * n_atoms) for _ in range(REPETITIONS)]
    fastest, slowest = min(times_per_atom_step), max(times_per_atom_step)
    return MdSpeed(1e6 * fastest, slowest / fastest, n_atoms)


def _repeat_cell(atoms: Atoms) -> Atoms:
    """Repeat a cell, always along the vector that is then shortest, until it has at least `MIN_ATOMS` atoms.

    Raises
    ------
    InputError
        If the cell is not periodic in three directions.
    """
    if not atoms.pbc.all():
        raise InputError(
            "a measurement of the MD speed requires a cell that is periodic in three directions; "
            "choose another structure"
        )
    repeats = np.ones(3, dtype=int)
    lengths = atoms.cell.lengths()
    while len(atoms) * np.prod(repeats) < MIN_ATOMS:
        repeats[np.argmin(repeats * lengths)] += 1
    supercell: Atoms = make_supercell(atoms, np.diag(repeats))
    return supercell
