"""Molecular dynamics in ASE, for calculators: the equations, masses and chains of LAMMPS's ``fix nvt`` and ``fix npt``.

That is Nosé-Hoover chains, and the barostats of Martyna, Tobias and Klein, J. Chem. Phys. 101, 4177 (1994). ASE counts
3N degrees of freedom, where the momentum of the whole is zero and only 3N - 3 are there: 8 atoms would run 14 % too
hot. It also puts barostats along the vectors of the cell, which cannot strain a skewed cell evenly. Both are set right
here; the integrators are ASE's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms, units
from ase.calculators.mixing import SumCalculator
from ase.md.nose_hoover_chain import MaskedMTKNPT, NoseHooverChainNVT, NoseHooverChainThermostat
from ase.md.velocitydistribution import Stationary, thermalize_momenta

from paretofit.core import lammps_calculator
from paretofit.learning.md_frame import (
    BAROSTAT_TIME_PS,
    MIN_TEMPERATURE_K,
    THERMOSTAT_TIME_PS,
    MdFrame,
    MdSnapshot,
    describe_volume_problem,
)

if TYPE_CHECKING:
    from paretofit.learning.md_run import MdEngine, MdRun

PS = 1000 * units.fs
KBAR = 0.1 * units.GPa
SUBSTEPS = 5  # of the chains in a step: with 1 they overflow where the start is 1000 times hotter than asked for


@dataclass
class AseDynamics:
    """A trajectory in ASE.

    Attributes
    ----------
    run : Run
    engine : MdEngine
    timestep : float
        ps.
    max_temperature : float
        K, at which it stops between two looks.
    """

    run: MdRun
    engine: MdEngine
    timestep: float
    max_temperature: float

    def start(self) -> None:
        """Atoms, potential and ensemble."""
        self._held: list[Any] = []
        self._frame = MdFrame.from_structure(self.run.atoms)
        heat = max(self.run.temperature, MIN_TEMPERATURE_K)
        self._atoms = Atoms(self.run.atoms.numbers, self._frame.positions, cell=self._frame.cell, pbc=True)
        self._atoms.calc = self._calculator()
        thermalize_momenta(self._atoms, temperature_K=heat, rng=np.random.default_rng(self.run.seed))
        Stationary(self._atoms, preserve_temperature=False)
        self._atoms.set_momenta(self._atoms.get_momenta() * np.sqrt(heat / _temperature(self._atoms)))
        along = np.arange(3) < self._frame.n_periodic
        common = {"timestep": self.timestep * PS, "temperature_K": heat, "tdamp": THERMOSTAT_TIME_PS * PS}
        self._dynamics = (
            _Npt(
                self._atoms,
                mask=along,
                pressure_au=self.run.pressure * KBAR,
                pdamp=BAROSTAT_TIME_PS * PS,
                ploop=SUBSTEPS,
                **common,
            )
            if along.any()
            else _Nvt(self._atoms, **common)
        )

    def _calculator(self) -> Any:
        """The calculator, the LAMMPS lines as one, or their sum."""
        parts = [] if self.engine.calculator_factory is None else [self.engine.calculator_factory()]
        if self.engine.commands:
            self._held.append(lammps_calculator(self.engine.commands, self.engine.elements))
        parts += self._held
        return parts[0] if len(parts) == 1 else SumCalculator(parts)

    def advance(self, steps: int) -> MdSnapshot:
        """Go on by some steps; fewer where it becomes far too hot or the box too small or large."""
        for _ in range(steps):
            self._dynamics.step()
            swelling = self._frame.compute_volume_ratio(self._atoms.cell[:])
            temperature = _temperature(self._atoms)
            if describe_volume_problem(swelling) or not temperature < self.max_temperature:
                break
        energy = float(self._atoms.get_potential_energy())
        return MdSnapshot(
            self._frame.to_start_frame(self._atoms.positions, self._atoms.cell[:]), temperature, energy, swelling
        )

    def close(self) -> None:
        """Close LAMMPS where it was taken for a part of the potential."""
        for calculator in self._held:
            calculator.clean()


def _temperature(atoms: Atoms) -> float:
    """K, of what moves freely when nothing drifts."""
    return float(2 * atoms.get_kinetic_energy() / ((3 * len(atoms) - 3) * units.kB))


def _thermostat(dynamics: Any, heat: float, damping: float) -> NoseHooverChainThermostat:
    """One for 3N - 3 degrees of freedom."""
    return NoseHooverChainThermostat(
        num_atoms_global=len(dynamics.atoms) - 1,
        masses=dynamics.masses,
        temperature_K=heat,
        tdamp=damping,
        tloop=SUBSTEPS,
    )


class _Nvt(NoseHooverChainNVT):
    """A Nosé-Hoover chain of 3N - 3 degrees of freedom."""

    def __init__(self, atoms: Atoms, **settings: Any) -> None:
        super().__init__(atoms, **settings)
        self._thermostat = _thermostat(self, settings["temperature_K"], settings["tdamp"])


class _Npt(MaskedMTKNPT):
    """Chains of 3N - 3 degrees of freedom, with a barostat along each of some of x, y and z.

    The mask is an array: a tuple, which ASE asks for, would index nothing as soon as one of it is false.
    """

    def __init__(self, atoms: Atoms, **settings: Any) -> None:
        super().__init__(atoms, **settings)
        self._num_atoms_global = len(atoms) - 1
        self._thermostat = _thermostat(self, settings["temperature_K"], settings["tdamp"])

    def _init_cell_momenta(self) -> None:
        super()._init_cell_momenta()
        self._h0_basis = np.eye(3)
