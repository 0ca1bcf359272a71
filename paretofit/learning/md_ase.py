"""Molecular dynamics in ASE with the equations of motion of LAMMPS's ``fix nvt`` and ``fix npt``.

These fixes use Nosé-Hoover chains and the barostats of Martyna, Tobias and Klein, J. Chem. Phys. 101, 4177 (1994); the
masses of the chains and barostats are those of LAMMPS. ASE's integrators are used with two corrections. First, ASE
counts 3N degrees of freedom, but there are only 3N - 3 at zero total momentum: 8 atoms would be 14 % too hot. Second,
ASE applies barostats along the cell vectors, which cannot strain a skewed cell isotropically.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.mixing import SumCalculator
from ase.md.nose_hoover_chain import MaskedMTKNPT, NoseHooverChainNVT, NoseHooverChainThermostat
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from paretofit.core import lammps_calculator
from paretofit.learning import md_run
from paretofit.learning.md_run import Dynamics, MdBox, MdSnapshot

PS = 1000 * units.fs  # 1 ps in ASE's unit of time
KBAR = 0.1 * units.GPa  # 1 kbar in eV/Å³
# number of substeps of a chain in each time step; with 1, the variables of a chain overflow if the structure is
# 1000 times hotter than the requested temperature
CHAIN_SUBSTEPS = 5


class AseDynamics(Dynamics):
    """Trajectory that ASE integrates; the methods are described in `Dynamics`."""

    def start(self) -> None:
        """Set up atoms, potential and initial velocities with the requested temperature and zero total momentum."""
        self._lammps_calculators: list[Any] = []
        self._box = MdBox.from_structure(self.run.atoms)
        self._atoms = Atoms(self.run.atoms.numbers, self._box.positions, cell=self._box.cell, pbc=True)
        self._atoms.calc = self._create_calculator()
        thermalize_momenta(self._atoms, temperature_K=self.temperature, rng=np.random.default_rng(self.run.seed))
        Stationary(self._atoms, preserve_temperature=False)
        self._rescale_velocities()

    def start_sampling(self) -> None:
        """Set up the dynamics after the equilibration: NPT, or NVT for structures without periodic directions."""
        settings = {
            "timestep": self.timestep * PS,
            "temperature_K": self.temperature,
            "tdamp": md_run.THERMOSTAT_TIME_PS * PS,
        }
        if not self._box.n_periodic:
            self._integrator: Any = _Nvt(self._atoms, **settings)
            return
        settings |= {
            "pressure_au": self._box.scale_pressure(self.run.pressure) * KBAR,
            "pdamp": md_run.BAROSTAT_TIME_PS * PS,
            "ploop": CHAIN_SUBSTEPS,
        }
        self._integrator = _Npt(self._atoms, mask=np.arange(3) < self._box.n_periodic, **settings)

    def _create_calculator(self) -> Any:
        """Create the ASE calculator, a calculator for the LAMMPS commands, or the sum of the two."""
        calculators = [] if self.engine.calculator_factory is None else [self.engine.calculator_factory()]
        if self.engine.commands:
            self._lammps_calculators.append(lammps_calculator(self.engine.commands, self.engine.elements))
        calculators += self._lammps_calculators
        return calculators[0] if len(calculators) == 1 else SumCalculator(calculators)

    def equilibrate(self, steps: int) -> MdSnapshot:
        """Integrate a number of steps at constant volume, with velocities rescaled to the requested temperature."""
        integrator = VelocityVerlet(self._atoms, timestep=self.timestep * PS)
        for step in range(1, steps + 1):
            integrator.step()
            if step % md_run.RESCALING_STEPS == 0:
                self._rescale_velocities()
        return self._take_snapshot()

    def _rescale_velocities(self) -> None:
        """Rescale the velocities to the requested temperature."""
        factor = np.sqrt(self.temperature / _compute_temperature(self._atoms))
        self._atoms.set_momenta(self._atoms.get_momenta() * factor)

    def advance(self, steps: int) -> MdSnapshot:
        """Integrate a number of steps, or fewer if the temperature or the volume is out of bounds."""
        for _ in range(steps):
            self._integrator.step()
            volume_ratio = self._box.compute_volume_ratio(self._atoms.cell[:])
            temperature = _compute_temperature(self._atoms)
            # `not <` is also true for NaN
            if md_run.describe_volume_problem(volume_ratio) or not temperature < self.max_temperature:
                break
        return self._take_snapshot()

    def _take_snapshot(self) -> MdSnapshot:
        """Return the current state in the coordinate frame of the start structure."""
        volume_ratio = self._box.compute_volume_ratio(self._atoms.cell[:])
        energy = float(self._atoms.get_potential_energy())
        atoms = self._box.restore_orientation(self._atoms.positions, self._atoms.cell[:])
        return MdSnapshot(atoms, _compute_temperature(self._atoms), energy, volume_ratio)

    def close(self) -> None:
        """Close the LAMMPS instances of the potential."""
        for calculator in self._lammps_calculators:
            calculator.clean()


def _compute_temperature(atoms: Atoms) -> float:
    """Compute the temperature (K) of the 3N - 3 degrees of freedom at zero total momentum."""
    return float(2 * atoms.get_kinetic_energy() / ((3 * len(atoms) - 3) * units.kB))


def _create_thermostat(dynamics: Any, settings: dict[str, Any]) -> NoseHooverChainThermostat:
    """Create a Nosé-Hoover chain for 3N - 3 degrees of freedom, from the settings of ASE's dynamics."""
    return NoseHooverChainThermostat(
        num_atoms_global=len(dynamics.atoms) - 1,  # ASE counts 3 degrees of freedom for each atom
        masses=dynamics.masses,
        temperature_K=settings["temperature_K"],
        tdamp=settings["tdamp"],
        tloop=CHAIN_SUBSTEPS,
    )


class _Nvt(NoseHooverChainNVT):
    """Dynamics at constant volume, with a Nosé-Hoover chain for 3N - 3 degrees of freedom."""

    def __init__(self, atoms: Atoms, **settings: Any) -> None:
        super().__init__(atoms, **settings)
        self._thermostat = _create_thermostat(self, settings)


class _Npt(MaskedMTKNPT):
    """Dynamics at constant pressure, with chains for 3N - 3 degrees of freedom and barostats along x, y and z.

    The argument `mask` selects the axes with a barostat, and must be an array. A tuple, as documented by ASE, would
    select no axis if one of its values is false.
    """

    def __init__(self, atoms: Atoms, **settings: Any) -> None:
        super().__init__(atoms, **settings)
        self._num_atoms_global = len(atoms) - 1  # ASE counts 3 degrees of freedom for each atom
        self._thermostat = _create_thermostat(self, settings)

    def _init_cell_momenta(self) -> None:
        """Initialise the momenta of the cell as ASE does, and set the axes of the barostats."""
        super()._init_cell_momenta()
        self._h0_basis = np.eye(3)  # barostats along x, y and z, instead of the cell vectors
