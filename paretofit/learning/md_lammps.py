"""Molecular dynamics in LAMMPS, with pair styles or an ASE calculator through ``fix external``.

With a calculator, the pair style is ``zero``, or the dispersion that is added to the calculator.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from paretofit.core import Array, create_lammps
from paretofit.learning import md_run
from paretofit.learning.md_run import Dynamics, MdBox, MdSnapshot
from paretofit.validation import create_lammps_crystal

# temperature between two rescalings, above which the equilibration is stopped before atoms fly apart
MAX_EQUILIBRATION_TEMPERATURE_K = 1e6
# potential without forces, for dynamics with a calculator; LAMMPS does not run without a pair style
EMPTY_POTENTIAL = ("pair_style zero 1.0", "pair_coeff * *")
LAMMPS_VIRIAL_ORDER = [0, 1, 2, 5, 4, 3]  # indices of LAMMPS's xx, yy, zz, xy, xz, yz in ASE's xx, yy, zz, yz, xz, xy


@dataclass
class LammpsDynamics(Dynamics):
    """Trajectory that LAMMPS integrates; the methods are described in `Dynamics`.

    Attributes
    ----------
    lammps : lammps.lammps
        Instance of LAMMPS, which is created with the object.

    Raises
    ------
    InputError
        If LAMMPS cannot be loaded.
    """

    lammps: Any = field(default_factory=create_lammps)

    def start(self) -> None:
        """Set up atoms, potential and initial velocities with the requested temperature and zero total momentum."""
        self._box = MdBox.from_structure(self.run.atoms)
        self._is_sampling = False
        symbols = self.run.atoms.get_chemical_symbols()
        create_lammps_crystal(self.lammps, self.engine.elements, symbols, self._box.cell, self._box.positions)
        potential = self.engine.commands or EMPTY_POTENTIAL
        commands = [
            *potential,
            "neighbor 1.0 bin",
            "neigh_modify delay 0",
            f"timestep {self.timestep!r}",
            "thermo 1",
            "thermo_style custom step temp pe",
            "thermo_modify lost error norm no",
            f"velocity all create {self.temperature!r} {self.run.seed} dist gaussian mom yes rot no",
            "fix motion all nve",
            "variable hot equal temp",
            _format_halt_command(MAX_EQUILIBRATION_TEMPERATURE_K),
        ]
        self.lammps.commands_string("\n".join(commands))
        self._callback = None
        if self.engine.calculator_factory is not None:
            self.lammps.commands_string("fix ext all external pf/callback 1 1\nfix_modify ext energy yes virial yes")
            self._callback = _ForceCallback(self.lammps, self._box, self.engine.calculator_factory())
            self.lammps.set_fix_external_callback("ext", self._callback.compute, self.lammps)

    def equilibrate(self, steps: int) -> MdSnapshot:
        """Integrate a number of steps at constant volume, with velocities rescaled to the requested temperature.

        The number is rounded up to whole rescaling intervals, because LAMMPS rescales at the end of each interval.
        """
        n_steps = -(-steps // md_run.RESCALING_STEPS) * md_run.RESCALING_STEPS
        rescaling = f'every {md_run.RESCALING_STEPS} "velocity all scale {self.temperature!r}"'
        return self._run(f"{n_steps} post no {rescaling}")

    def start_sampling(self) -> None:
        """Set up the dynamics after the equilibration: NPT, or NVT for structures without periodic directions."""
        pressure = self._box.scale_pressure(self.run.pressure)
        self.lammps.commands_string(
            "unfix motion\nunfix halt\n"
            f"{_format_ensemble_command(pressure, self._box.n_periodic, self.temperature)}\n"
            f"{_format_halt_command(self.max_temperature)}"
        )

    def advance(self, steps: int) -> MdSnapshot:
        """Integrate a number of steps, or fewer if the temperature is out of bounds."""
        # only the first run with a new ensemble needs LAMMPS's setup; without it, the trajectory continues exactly
        snapshot = self._run(f"{steps} pre {'no' if self._is_sampling else 'yes'} post no")
        self._is_sampling = True
        return snapshot

    def _run(self, arguments: str) -> MdSnapshot:
        """Run LAMMPS and return the state at the end; raise the exception of the calculator if it failed."""
        self.lammps.command(f"run {arguments}")
        if self._callback is not None and self._callback.error is not None:
            raise self._callback.error
        corner, cell = _read_box(self.lammps)
        positions = np.array(self.lammps.gather_atoms("x", 1, 3)).reshape(-1, 3) - corner
        temperature, energy = (float(self.lammps.get_thermo(name)) for name in ("temp", "pe"))
        volume_ratio = self._box.compute_volume_ratio(cell)
        return MdSnapshot(self._box.restore_orientation(positions, cell), temperature, energy, volume_ratio)

    def close(self) -> None:
        """Close LAMMPS."""
        self.lammps.close()


@dataclass
class _ForceCallback:
    """Callback of ``fix external`` that computes forces, energy and virial with an ASE calculator.

    `error` is the first exception of the calculator, or None.
    """

    lammps: Any
    box: MdBox
    calculator: Any
    error: Exception | None = None

    def __post_init__(self) -> None:
        numbers = self.box.start_structure.numbers
        self.atoms = Atoms(numbers, self.box.positions, cell=self.box.cell, pbc=True, calculator=self.calculator)

    def compute(self, _caller: Any, _step: int, _count: int, tags: Array, x: Array, forces: Array) -> None:
        """Write the forces on LAMMPS's atoms, (N, 3) eV/Å, into `forces`.

        `tags` are the numbers, from 1, of the atoms in LAMMPS's order, and x their positions, (N, 3) Å. An exception
        must not be raised, because ctypes would print and ignore it. It is stored in `error` instead, and LAMMPS
        integrates without forces until the run ends and `LammpsDynamics` raises the exception.
        """
        forces[:] = 0.0
        if self.error is None:
            try:
                forces[:] = self._compute_forces(tags - 1, x)
            except Exception as error:  # noqa: BLE001  (a calculator may raise anything; see above)
                self.error = error

    def _compute_forces(self, indices: Array, x: Array) -> Array:
        """Compute the forces on the atoms with these indices and positions; pass the energy and virial to LAMMPS.

        Raises an `ArithmeticError` if the volume is unphysical or a force is not finite.
        """
        corner, cell = _read_box(self.lammps)
        # the neighbour lists of a collapsed box would not fit into memory
        if reason := md_run.describe_volume_problem(self.box.compute_volume_ratio(cell)):
            raise ArithmeticError(reason)
        self.atoms.positions[indices] = x - corner
        self.atoms.cell[:] = cell
        forces = self.atoms.get_forces()
        if not np.isfinite(forces).all():
            raise ArithmeticError("the forces are not finite")
        self.lammps.fix_external_set_energy_global("ext", float(self.atoms.get_potential_energy()))
        if self.box.n_periodic:
            virial = -self.atoms.get_stress() * self.atoms.cell.volume
            self.lammps.fix_external_set_virial_global("ext", virial[LAMMPS_VIRIAL_ORDER].tolist())
        return np.asarray(forces[indices])


def _read_box(lammps: Any) -> tuple[Array, Array]:
    """Return the lower corner, ``(3,)``, and the cell vectors as rows, ``(3, 3)``, of LAMMPS's box in Å."""
    low, high, xy, yz, xz, _, _ = lammps.extract_box()
    lengths = np.array(high) - np.array(low)
    return np.array(low), np.array([[lengths[0], 0, 0], [xy, lengths[1], 0], [xz, yz, lengths[2]]])


def _format_halt_command(max_temperature: float) -> str:
    """Format the command of a fix that ends a run above a temperature in K; the variable ``hot`` must be defined.

    The fix checks every step, because LAMMPS corrupts its memory if atoms fly apart within one step.
    """
    return f"fix halt all halt 1 v_hot > {max_temperature!r} error soft message no"


def _format_ensemble_command(pressure_kbar: float, n_periodic: int, temperature: float) -> str:
    """Format the command for NPT along the periodic directions, or for NVT if there are none.

    The periodic directions are the first axes of the box.
    """
    thermostat = f"temp {temperature!r} {temperature!r} {md_run.THERMOSTAT_TIME_PS}"
    if not n_periodic:
        return f"fix motion all nvt {thermostat}"
    pressure_bar = 1000 * pressure_kbar
    barostats = " ".join(
        f"{axis} {pressure_bar!r} {pressure_bar!r} {md_run.BAROSTAT_TIME_PS}" for axis in "xyz"[:n_periodic]
    )
    return f"fix motion all npt {thermostat} {barostats}"
