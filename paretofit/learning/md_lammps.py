"""Molecular dynamics in LAMMPS: by its own pair styles, or by an ASE calculator through ``fix external``.

LAMMPS does the ensemble in both cases; where a calculator computes, the pair style is what is added to it (dispersion)
or ``zero``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers

from paretofit.core import create_lammps
from paretofit.learning.md_frame import (
    BAROSTAT_TIME_PS,
    MIN_TEMPERATURE_K,
    THERMOSTAT_TIME_PS,
    MdFrame,
    MdSnapshot,
    describe_volume_problem,
)

if TYPE_CHECKING:
    from paretofit.core import Array
    from paretofit.learning.md_run import MdEngine, MdRun

NOTHING = ("pair_style zero 1.0", "pair_coeff * *")  # LAMMPS does not run without a pair style
AXES = "xyz"
LAMMPS_VIRIAL = [0, 1, 2, 5, 4, 3]  # ASE's xx, yy, zz, yz, xz, xy as LAMMPS's xx, yy, zz, xy, xz, yz


@dataclass
class LammpsDynamics:
    """A trajectory in LAMMPS.

    Attributes
    ----------
    run : Run
    engine : MdEngine
    timestep : float
        ps.
    max_temperature : float
        K, at which it stops between two looks.
    lammps : lammps.lammps

    Raises
    ------
    InputError
        If LAMMPS cannot be loaded.
    """

    run: MdRun
    engine: MdEngine
    timestep: float
    max_temperature: float
    lammps: Any = field(default_factory=create_lammps)

    def start(self) -> None:
        """Atoms, potential and ensemble."""
        self._frame = MdFrame.from_structure(self.run.atoms)
        self._begun = False
        number = {symbol: k for k, symbol in enumerate(self.engine.elements, start=1)}
        self._create_atoms(number)
        masses = [f"mass {k} {float(atomic_masses[atomic_numbers[symbol]])!r}" for symbol, k in number.items()]
        heat = max(self.run.temperature, MIN_TEMPERATURE_K)
        potential = self.engine.commands or NOTHING
        lines = [*masses, *potential, "neighbor 1.0 bin", "neigh_modify delay 0", f"timestep {self.timestep!r}"]
        self.lammps.commands_string(
            "\n".join(lines) + "\nthermo 1\nthermo_style custom step temp pe\nthermo_modify lost error norm no\n"
            # at once, for what flies apart in a step writes over LAMMPS's memory
            f"variable hot equal temp\nfix halt all halt 1 v_hot > {self.max_temperature!r} error soft message no\n"
            f"velocity all create {heat!r} {self.run.seed} dist gaussian mom yes rot no\n"
            f"{_ensemble(self.run.pressure, self._frame.n_periodic, heat)}"
        )
        self._external = (
            self._with(self.engine.calculator_factory()) if self.engine.calculator_factory is not None else None
        )

    def _create_atoms(self, number: dict[str, int]) -> None:
        (xx, _, _), (xy, yy, _), (xz, yz, zz) = self._frame.cell.tolist()
        self.lammps.commands_string(
            "units metal\natom_style atomic\natom_modify map array\nbox tilt large\n"
            f"region cell prism 0 {xx!r} 0 {yy!r} 0 {zz!r} {xy!r} {xz!r} {yz!r}\ncreate_box {len(number)} cell"
        )
        types = [number[symbol] for symbol in self.run.atoms.get_chemical_symbols()]
        self.lammps.create_atoms(
            len(types), list(range(1, len(types) + 1)), types, self._frame.positions.ravel().tolist()
        )

    def _with(self, calculator: Any) -> _External:
        self.lammps.commands_string("fix ext all external pf/callback 1 1\nfix_modify ext energy yes virial yes")
        external = _External(self.lammps, self._frame, calculator)
        self.lammps.set_fix_external_callback("ext", external.compute, self.lammps)
        return external

    def advance(self, steps: int) -> MdSnapshot:
        """Go on by some steps; fewer where it becomes far too hot."""
        self.lammps.command(f"run {steps} pre {'no' if self._begun else 'yes'} post no")
        self._begun = True
        if self._external is not None and self._external.error is not None:
            raise self._external.error
        low, cell = _box(self.lammps)
        positions = np.array(self.lammps.gather_atoms("x", 1, 3)).reshape(-1, 3) - low
        temperature, energy = (float(self.lammps.get_thermo(name)) for name in ("temp", "pe"))
        return MdSnapshot(
            self._frame.to_start_frame(positions, cell), temperature, energy, self._frame.compute_volume_ratio(cell)
        )

    def close(self) -> None:
        """Close LAMMPS."""
        self.lammps.close()


@dataclass
class _External:
    """What ``fix external`` calls for forces, energy and virial."""

    lammps: Any
    frame: MdFrame
    calculator: Any
    error: Exception | None = None

    def __post_init__(self) -> None:
        numbers = self.frame.start_structure.numbers
        self.atoms = Atoms(numbers, self.frame.positions, cell=self.frame.cell, pbc=True, calculator=self.calculator)

    def compute(self, _caller: Any, _step: int, _count: int, tags: Array, x: Array, forces: Array) -> None:
        """Fill in the forces (eV/Å) of LAMMPS's atoms, which come in any order.

        ctypes would print an exception and go on: it is kept, and LAMMPS moves on without forces up to the next look.
        """
        forces[:] = 0.0
        if self.error is None:
            try:
                forces[:] = self._forces(tags - 1, x)
            except Exception as error:  # noqa: BLE001  (see above)
                self.error = error

    def _forces(self, places: Array, x: Array) -> Array:
        low, cell = _box(self.lammps)
        if reason := describe_volume_problem(
            self.frame.compute_volume_ratio(cell)
        ):  # a collapsed box has more neighbours than there is memory
            raise ArithmeticError(reason)
        self.atoms.positions[places] = x - low
        self.atoms.cell[:] = cell
        found = self.atoms.get_forces()
        if not np.isfinite(found).all():
            raise ArithmeticError("the forces are not finite")
        self.lammps.fix_external_set_energy_global("ext", float(self.atoms.get_potential_energy()))
        if self.frame.n_periodic:
            virial = -self.atoms.get_stress() * self.atoms.cell.volume
            self.lammps.fix_external_set_virial_global("ext", virial[LAMMPS_VIRIAL].tolist())
        return np.asarray(found[places])


def _box(lammps: Any) -> tuple[Array, Array]:
    """The box's corner (3,) and its vectors (3, 3), a row each, Å."""
    low, high, xy, yz, xz, _, _ = lammps.extract_box()
    lengths = np.array(high) - np.array(low)
    return np.array(low), np.array([[lengths[0], 0, 0], [xy, lengths[1], 0], [xz, yz, lengths[2]]])


def _ensemble(pressure: float, periodic: int, heat: float) -> str:
    """NPT along the periodic directions, which are the box's first; NVT where there is none."""
    temperature = f"temp {heat!r} {heat!r} {THERMOSTAT_TIME_PS}"
    if not periodic:
        return f"fix motion all nvt {temperature}"
    bar = pressure * 1000
    along = " ".join(f"{axis} {bar!r} {bar!r} {BAROSTAT_TIME_PS}" for axis in AXES[:periodic])
    return f"fix motion all npt {temperature} {along}"
