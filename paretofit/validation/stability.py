"""Stability of molecular dynamics: survival time at a temperature, energy drift and radial distribution function.

The test has two parts: Langevin dynamics at the temperature, and microcanonical dynamics from the last state.
Potentials with LAMMPS commands run in LAMMPS, ASE calculators in ASE. Structures with vacuum are periodic in all
directions in LAMMPS, with so much vacuum that images do not interact. Both engines check the state every 20 steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from ase import Atoms, units
from ase.neighborlist import neighbor_list

from paretofit.core import get_shared_lammps
from paretofit.descriptors import format_lammps_error, transform_to_lammps_frame
from paretofit.validation.crystal import attach_calculator, find_overlap_distance
from paretofit.validation.lammps_crystal import create_lammps_crystal
from paretofit.validation.periodicity import count_periodic, measure_cell, widen_vacuum
from paretofit.validation.quantity import PropertyError, Quantity
from paretofit.validation.subject import PotentialSpec
from paretofit.validation.vacuum_calculator import LOCAL_VACUUM_A

MAX_TEMPERATURE_RATIO = 5.0  # ratio to the requested temperature; above it, the dynamics has become unstable
LIGHT_MASS_U = 6.0  # lighter atoms require a time step of 0.5 fs instead of 1 fs
THERMOSTAT_TIME_PS = 0.1  # relaxation time of the Langevin thermostat
SAMPLE_INTERVAL_STEPS = 20  # number of steps between two samples
MAX_DRIFT = 1.0  # meV/atom/ps, of the total energy without a thermostat
MAX_TEMPERATURE_SCATTERS = 3.0  # number of standard deviations between the mean and the requested temperature
RDF_BINS = 140  # number of bins of the radial distribution function
RDF_MAX_DISTANCE_A = 7.0  # upper limit of the radial distribution function
RDF_FRAMES = 25  # approximate number of frames for the mean radial distribution function


@dataclass(frozen=True)
class MdProtocol:
    """Durations, temperature and random seed of the dynamics.

    Attributes
    ----------
    temperature : float
        Temperature, K.
    nvt_time_ps, nve_time_ps : float
        Durations of the parts with and without a thermostat, ps.
    seed : int
        Random seed of the velocities and the thermostat.
    """

    temperature: float = 300.0
    nvt_time_ps: float = 10.0
    nve_time_ps: float = 5.0
    seed: int = 1


class Sample(NamedTuple):
    """State of the dynamics.

    Attributes
    ----------
    is_nve : bool
        Whether the state belongs to the microcanonical part.
    time : float
        Time since the start of the part, ps.
    atoms : ase.Atoms
        Positions and cell.
    potential_energy, kinetic_energy : float
        Energies of the cell, eV.
    """

    is_nve: bool
    time: float
    atoms: Atoms
    potential_energy: float
    kinetic_energy: float

    @property
    def temperature(self) -> float:
        """Temperature (K) of the 3N - 3 degrees of freedom at zero total momentum."""
        n_free_atoms = max(1, len(self.atoms) - 1)  # avoids a division by zero for a single atom
        return 2 * self.kinetic_energy / (3 * units.kB * n_free_atoms)


@dataclass(frozen=True)
class StabilityResult:
    """Result of a stability test.

    Attributes
    ----------
    survival_time_ps, requested_time_ps : float
        Actual and requested duration of the part with a thermostat, ps.
    reason : str
        Reason why the test ended early; empty if the test is complete.
    energy_drift : float
        Slope of the total energy in the microcanonical part, meV/atom/ps; NaN with fewer than three samples.
    temperature : float
        Mean temperature (K) of the microcanonical part or, if it was not reached, of the second half of the part with a
        thermostat; NaN without samples.
    requested_temperature : float
        Temperature of the thermostat, K.
    n_atoms : int
        Number of atoms of the cell; 1 without samples.
    energies : DataFrame
        ``time`` (ps) and total ``energy`` (meV/atom, relative to the first sample) of the microcanonical part.
    rdf : DataFrame
        Radial distribution function, averaged over the second half of the part with a thermostat: ``distance`` (Å) and
        ``g``; empty if that part has no samples.
    """

    survival_time_ps: float
    requested_time_ps: float
    reason: str
    energy_drift: float
    temperature: float
    requested_temperature: float
    n_atoms: int
    energies: pd.DataFrame = field(repr=False)
    rdf: pd.DataFrame = field(repr=False)

    @property
    def quantities(self) -> list[Quantity]:
        """Survival time, energy drift, mean temperature, and position of the highest peak of g(r)."""
        is_drifting = abs(self.energy_drift) > MAX_DRIFT
        drift_problem = f"the energy is not conserved within {MAX_DRIFT:g} meV/atom/ps" if is_drifting else ""
        peak = float("nan") if self.rdf.empty else float(self.rdf["distance"].iloc[int(self.rdf["g"].argmax())])
        return [
            Quantity("survival", "ps", self.survival_time_ps, self.reason),
            Quantity("requested survival", "ps", self.requested_time_ps),
            Quantity("energy drift", "meV/atom/ps", self.energy_drift, drift_problem),
            Quantity("mean temperature", "K", self.temperature, self._assess_temperature()),
            Quantity("highest peak of g(r)", "Å", peak),
        ]

    def _assess_temperature(self) -> str:
        """Describe how the mean temperature differs from the requested one; return an empty text if it agrees.

        A temperature that is NaN counts as different.

        In a harmonic crystal of N atoms, the total energy at the end of the canonical part at temperature T has a
        standard deviation of √(3N) kB T. The temperature of the microcanonical part is this energy divided by the heat
        capacity 3N kB, and thus has a standard deviation of T/√(3N).
        """
        scatter = self.requested_temperature / np.sqrt(3 * self.n_atoms)
        if abs(self.temperature - self.requested_temperature) <= MAX_TEMPERATURE_SCATTERS * scatter:
            return ""
        return (
            f"{self.requested_temperature:g} K was requested; with {self.n_atoms} atoms, the scatter is {scatter:.2g} K"
        )


def run_stability_test(potential: PotentialSpec, atoms: Atoms, protocol: MdProtocol) -> StabilityResult:
    """Run dynamics of a cell with and then without a thermostat, and check the state every 20 steps.

    The test ends early if two atoms come closer than half the sum of their covalent radii, the temperature exceeds five
    times the requested one, the energy is not finite, or an error occurs, for example because LAMMPS loses atoms. The
    shared LAMMPS instance of this process is cleared if the potential has LAMMPS commands.

    Parameters
    ----------
    potential : PotentialSpec
    atoms : ase.Atoms
        Cell in the orientation of `orient_structure`; it is not repeated.
    protocol : MdProtocol

    Raises
    ------
    PropertyError
        If an error occurs before the first sample.
    """
    timestep_ps = 1e-3 if atoms.get_masses().min() >= LIGHT_MASS_U else 5e-4
    iterate_samples = _iterate_lammps_samples if potential.commands else _iterate_ase_samples
    samples: list[Sample] = []
    reason = ""
    try:
        for sample in iterate_samples(potential, atoms, protocol, timestep_ps):
            if reason := _describe_md_problem(sample, protocol.temperature):
                break
            samples.append(sample)
    except Exception as error:  # LAMMPS and calculators may raise anything
        reason = format_lammps_error(error)
        if not samples:
            raise PropertyError(f"the dynamics cannot be started: {reason}") from error
    return _summarise_samples(samples, reason, protocol)


def compute_radial_distribution(
    frames: list[Atoms], *, max_distance: float = RDF_MAX_DISTANCE_A, n_bins: int = RDF_BINS
) -> pd.DataFrame:
    """Compute g(r) = n(r) / (N ρ S Δr), averaged over frames; it is 1 for an ideal gas.

    With N atoms, n(r) is the number of pairs (each counted twice) with a distance in a bin of width Δr at r. In
    crystals, ρ is the number of atoms per volume and S = 4πr². In sheets, ρ is the number per area and S = 2πr; in
    wires, ρ is the number per length and S = 2. Results thus do not depend on the vacuum, and g(r) approaches 1 at
    distances beyond the thickness. In molecules, ρ is the number of atoms per volume of a sphere of radius
    `max_distance`.

    Parameters
    ----------
    frames : list of ase.Atoms
        Structures in the orientation of `orient_structure`.
    max_distance : float
        Largest distance r, Å.
    n_bins : int
        Number of bins, of width Δr.

    Returns
    -------
    DataFrame
        ``distance`` (Å, centres of the bins) and ``g``; periodic images of an atom are included as neighbours.
    """
    edges = np.linspace(0, max_distance, n_bins + 1)
    distribution = np.zeros(n_bins)
    for atoms in frames:
        n_dimensions = count_periodic(atoms) or 3
        # integrals of S over each bin
        shell_sizes = {1: 2.0, 2: np.pi, 3: 4 / 3 * np.pi}[n_dimensions] * np.diff(edges**n_dimensions)
        cell_size = measure_cell(atoms) if atoms.pbc.any() else 4 / 3 * np.pi * max_distance**3
        counts, _ = np.histogram(neighbor_list("d", atoms, max_distance), edges)
        distribution += counts / (len(atoms) * len(atoms) / cell_size * shell_sizes)
    return pd.DataFrame({"distance": (edges[1:] + edges[:-1]) / 2, "g": distribution / max(1, len(frames))})


def _describe_md_problem(sample: Sample, temperature: float) -> str:
    """Describe why the dynamics at a requested temperature (K) must be stopped; empty if it can continue."""
    if not np.isfinite(sample.potential_energy + sample.kinetic_energy):
        return "the energy is not finite"
    if sample.temperature > MAX_TEMPERATURE_RATIO * temperature:
        return f"the temperature reached {sample.temperature:.0f} K"
    overlap_distance = find_overlap_distance(sample.atoms)
    return "" if overlap_distance is None else f"two atoms approached each other to {overlap_distance:.3g} Å"


def _summarise_samples(samples: list[Sample], reason: str, protocol: MdProtocol) -> StabilityResult:
    """Compute the result of a test from its samples, in order of time; parts without samples have NaN or no rows."""
    nvt_samples = [sample for sample in samples if not sample.is_nve]
    nve_samples = [sample for sample in samples if sample.is_nve]
    times = np.array([sample.time for sample in nve_samples])
    energies = np.array(
        [1e3 * (sample.potential_energy + sample.kinetic_energy) / len(sample.atoms) for sample in nve_samples]
    )
    equilibrated_samples = nvt_samples[len(nvt_samples) // 2 :]
    stride = max(1, len(equilibrated_samples) // RDF_FRAMES)
    frames = [sample.atoms for sample in equilibrated_samples[::stride]]
    temperatures = [sample.temperature for sample in nve_samples or equilibrated_samples or samples]
    survival_time = nvt_samples[-1].time if nvt_samples else 0.0
    drift = float(np.polyfit(times, energies, 1)[0]) if len(nve_samples) > 2 else float("nan")
    temperature = float(np.mean(temperatures or [np.nan]))
    first_energy = energies[0] if len(energies) else 0.0
    curve = pd.DataFrame({"time": times, "energy": energies - first_energy})
    rdf = compute_radial_distribution(frames) if frames else pd.DataFrame()
    n_atoms = len(samples[0].atoms) if samples else 1
    return StabilityResult(
        survival_time, protocol.nvt_time_ps, reason, drift, temperature, protocol.temperature, n_atoms, curve, rdf
    )


def _count_samples(protocol: MdProtocol, timestep_ps: float) -> list[tuple[bool, int]]:
    """Return, for each part of the test, whether it is microcanonical and its number of samples."""
    interval_ps = timestep_ps * SAMPLE_INTERVAL_STEPS
    durations = ((False, protocol.nvt_time_ps), (True, protocol.nve_time_ps))
    return [(is_nve, max(1, round(duration / interval_ps))) for is_nve, duration in durations]


def _iterate_lammps_samples(
    potential: PotentialSpec, atoms: Atoms, protocol: MdProtocol, timestep_ps: float
) -> Iterator[Sample]:
    """Run both parts of the test in LAMMPS, with the shared instance of this process, and yield the samples."""
    lammps = get_shared_lammps()
    cell, positions, _ = transform_to_lammps_frame(widen_vacuum(atoms, LOCAL_VACUUM_A), 1.0)
    create_lammps_crystal(lammps, potential.elements, atoms.get_chemical_symbols(), cell, positions)
    temperature, seed, interval = protocol.temperature, protocol.seed, SAMPLE_INTERVAL_STEPS
    lammps.commands_string("\n".join([*potential.commands, "neighbor 1.0 bin", "neigh_modify delay 0"]))
    # an escaped atom is an error, energies are totals, and velocities are as in `_iterate_ase_samples`
    lammps.commands_string(
        f"timestep {timestep_ps!r}\nthermo {interval}\nthermo_style custom step pe ke\n"
        "thermo_modify lost error norm no\n"
        f"velocity all create {2 * temperature!r} {seed} dist gaussian mom yes rot no\nfix motion all nve\n"
        f"fix heat all langevin {temperature!r} {temperature!r} {THERMOSTAT_TIME_PS} {seed + 1} zero yes"
    )
    for is_nve, n_samples in _count_samples(protocol, timestep_ps):
        if is_nve:
            lammps.command("unfix heat")
        lammps.command("run 0 post no")  # sets up the run, because 'pre no' below does not
        for number in range(1, n_samples + 1):
            lammps.command(f"run {interval} pre no post no")
            positions = np.array(lammps.gather_atoms("x", 1, 3)).reshape(-1, 3)
            frame = Atoms(atoms.numbers, cell=cell, positions=positions, pbc=atoms.pbc)
            energies = float(lammps.get_thermo("pe")), float(lammps.get_thermo("ke"))
            yield Sample(is_nve, number * interval * timestep_ps, frame, *energies)
    lammps.command("clear")


def _iterate_ase_samples(
    potential: PotentialSpec, atoms: Atoms, protocol: MdProtocol, timestep_ps: float
) -> Iterator[Sample]:
    """Run both parts of the test in ASE, and yield the samples."""
    from ase.md.langevin import Langevin  # noqa: PLC0415  (only where ASE runs the dynamics)
    from ase.md.verlet import VelocityVerlet  # noqa: PLC0415

    md_atoms = attach_calculator(atoms, potential.create_calculator_for(atoms))
    rng = np.random.default_rng(protocol.seed)
    # velocities for twice the temperature, because half of the kinetic energy becomes potential energy
    momentum_widths = np.sqrt(md_atoms.get_masses() * units.kB * 2 * protocol.temperature)
    momenta = rng.standard_normal((len(md_atoms), 3)) * momentum_widths[:, None]
    md_atoms.set_momenta(momenta - momenta.mean(axis=0))
    timestep = 1e3 * timestep_ps * units.fs
    friction = 1 / (1e3 * THERMOSTAT_TIME_PS * units.fs)
    # fixcm=True does not sample the canonical ensemble, and is deprecated since ASE 3.28
    thermostat: dict[str, Any] = {
        "temperature_K": protocol.temperature, "friction": friction, "rng": rng, "fixcm": False
    }  # fmt: skip
    for is_nve, n_samples in _count_samples(protocol, timestep_ps):
        dynamics: Any = VelocityVerlet(md_atoms, timestep) if is_nve else Langevin(md_atoms, timestep, **thermostat)
        for number in range(1, n_samples + 1):
            dynamics.run(SAMPLE_INTERVAL_STEPS)
            energies = float(md_atoms.get_potential_energy()), float(md_atoms.get_kinetic_energy())
            yield Sample(is_nve, number * SAMPLE_INTERVAL_STEPS * timestep_ps, md_atoms.copy(), *energies)
