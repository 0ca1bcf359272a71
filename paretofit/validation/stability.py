"""Does it stay together: survival at a temperature, energy drift without a thermostat, radial distribution function.

Two parts, one after the other: Langevin dynamics at the temperature, then microcanonical dynamics from where it ended.
LAMMPS runs what it can; an ASE calculator is run by ASE.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from ase import Atoms, units
from ase.data import atomic_masses, atomic_numbers
from ase.neighborlist import neighbor_list

from paretofit.core import get_shared_lammps
from paretofit.descriptors import format_lammps_error, transform_to_lammps_frame
from paretofit.validation.crystal import find_overlap_distance
from paretofit.validation.quantity import PropertyError, Quantity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paretofit.core import Array
    from paretofit.validation.subject import PotentialSpec

TOO_HOT = 5.0  # times the temperature asked for
LIGHT = 6.0  # u; below, a step of half a femtosecond
FRICTION = 0.1  # ps: the thermostat's time
EVERY = 20  # steps between looks
BINS = 140
REACH = 7.0  # Å, of the radial distribution function
FRAMES = 25  # that it is a mean over, about


@dataclass(frozen=True)
class MdProtocol:
    """How long, how hot.

    Attributes
    ----------
    temperature : float
        K.
    nvt_time_ps, nve_time_ps : float
        ps with and without thermostat.
    seed : int
        Of velocities and thermostat.
    """

    temperature: float = 300.0
    nvt_time_ps: float = 10.0
    nve_time_ps: float = 5.0
    seed: int = 1


class Sample(NamedTuple):
    """A look at the motion: time in its part (ps), atoms, potential and kinetic energy (eV)."""

    is_nve: bool
    time: float
    atoms: Atoms
    potential_energy: float
    kinetic_energy: float


@dataclass(frozen=True)
class StabilityResult:
    """What became of it.

    Attributes
    ----------
    survival_time_ps, requested_time_ps : float
        ps with the thermostat.
    reason : str
        Why it ended early; empty where it did not.
    energy_drift : float
        Slope of the total energy in the microcanonical part, meV/atom/ps; NaN where it was not reached.
    temperature : float
        Mean over the microcanonical part, or what there is of the other, K.
    energies : DataFrame
        ``time`` (ps), ``energy`` (meV/atom, total, from the first) of the microcanonical part.
    rdf : DataFrame
        ``distance`` (Å), ``g``: mean over the second half of the part with thermostat.
    """

    survival_time_ps: float
    requested_time_ps: float
    reason: str
    energy_drift: float
    temperature: float
    energies: pd.DataFrame = field(repr=False)
    rdf: pd.DataFrame = field(repr=False)

    @property
    def quantities(self) -> list[Quantity]:
        """Survival, drift, temperature, place of the first peak."""
        peak = float("nan") if self.rdf.empty else float(self.rdf["distance"].iloc[int(self.rdf["g"].argmax())])
        return [
            Quantity("survival", "ps", self.survival_time_ps),
            Quantity("survival asked for", "ps", self.requested_time_ps),
            Quantity("energy drift", "meV/atom/ps", self.energy_drift),
            Quantity("mean temperature", "K", self.temperature),
            Quantity("highest peak of g(r)", "Å", peak),
        ]


def run_stability_test(potential: PotentialSpec, atoms: Atoms, protocol: MdProtocol) -> StabilityResult:
    """Run a cell with and then without a thermostat, and look every 20 steps.

    It ends where two atoms come closer than half the sum of their covalent radii, the temperature passes five times
    the one asked for, the energy is not finite, or LAMMPS loses atoms.

    Parameters
    ----------
    potential : Subject
    atoms : ase.Atoms
        Periodic, large enough: it is run as it is.
    protocol : Protocol
    """
    step = 1e-3 if atoms.get_masses().min() >= LIGHT else 5e-4
    samples = _lammps_samples if potential.commands else _ase_samples
    kept: list[Sample] = []
    reason = ""
    try:
        for sample in samples(potential, atoms, protocol, step):
            reason = _trouble(sample, protocol.temperature)
            if reason:
                break
            kept.append(sample)
    except Exception as error:
        reason = format_lammps_error(error)
        if not kept:
            raise PropertyError(f"the dynamics does not start: {reason}") from error
    return _summarised(kept, reason, protocol)


def compute_radial_distribution(
    frames: list[Atoms], *, max_distance: float = REACH, n_bins: int = BINS
) -> pd.DataFrame:
    """g(r) = n(r) / (N ρ 4πr² Δr), mean over frames: 1 for an ideal gas of any density.

    Returns
    -------
    DataFrame
        ``distance`` (Å, of the bins' middles) and ``g``; images of the same atom count as others.
    """
    edges = np.linspace(0, max_distance, n_bins + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    total = np.zeros(n_bins)
    for atoms in frames:
        counts, _ = np.histogram(neighbor_list("d", atoms, max_distance), edges)
        total += counts / (len(atoms) * len(atoms) / atoms.get_volume() * shells)
    return pd.DataFrame({"distance": (edges[1:] + edges[:-1]) / 2, "g": total / max(1, len(frames))})


def _trouble(sample: Sample, temperature: float) -> str:
    if not np.isfinite(sample.potential_energy + sample.kinetic_energy):
        return "the energy is not finite"
    if _kelvin(sample) > TOO_HOT * temperature:
        return f"the temperature reached {_kelvin(sample):.0f} K"
    closest = find_overlap_distance(sample.atoms)
    return "" if closest is None else f"two atoms came as close as {closest:.3g} Å"


def _kelvin(sample: Sample) -> float:
    return 2 * sample.kinetic_energy / (3 * units.kB * max(1, len(sample.atoms) - 1))


def _summarised(samples: list[Sample], reason: str, protocol: MdProtocol) -> StabilityResult:
    held = [one for one in samples if not one.is_nve]
    free = [one for one in samples if one.is_nve]
    time = np.array([one.time for one in free])
    energy = np.array([1e3 * (one.potential_energy + one.kinetic_energy) / len(one.atoms) for one in free])
    drift = float(np.polyfit(time, energy, 1)[0]) if len(free) > 2 else float("nan")
    last = held[len(held) // 2 :]
    return StabilityResult(
        held[-1].time if held else 0.0,
        protocol.nvt_time_ps,
        reason,
        drift,
        float(np.mean([_kelvin(one) for one in free or last or samples] or [np.nan])),
        pd.DataFrame({"time": time, "energy": energy - energy[:1].sum()}),
        compute_radial_distribution([one.atoms for one in last[:: max(1, len(last) // FRAMES)]])
        if last
        else pd.DataFrame(),
    )


def _parts(protocol: MdProtocol, step: float) -> list[tuple[bool, int]]:
    """Whether without thermostat, and how many looks."""
    lengths = ((False, protocol.nvt_time_ps), (True, protocol.nve_time_ps))
    return [(free, max(1, round(length / (step * EVERY)))) for free, length in lengths]


def _lammps_samples(subject: PotentialSpec, atoms: Atoms, protocol: MdProtocol, step: float) -> Iterator[Sample]:
    lammps = get_shared_lammps()
    cell = _set_up(lammps, subject, atoms)
    heat, seed = protocol.temperature, protocol.seed
    lammps.commands_string(
        f"timestep {step!r}\nthermo {EVERY}\nthermo_style custom step pe ke\nthermo_modify lost error norm no\n"
        f"velocity all create {2 * heat!r} {seed} dist gaussian mom yes rot no\nfix motion all nve\n"
        f"fix heat all langevin {heat!r} {heat!r} {FRICTION} {seed + 1} zero yes"
    )
    for free, looks in _parts(protocol, step):
        if free:
            lammps.command("unfix heat")
        lammps.command("run 0 post no")
        for look in range(1, looks + 1):
            lammps.command(f"run {EVERY} pre no post no")
            positions = np.array(lammps.gather_atoms("x", 1, 3)).reshape(-1, 3)
            frame = Atoms(atoms.numbers, cell=cell, positions=positions, pbc=True)
            energies = float(lammps.get_thermo("pe")), float(lammps.get_thermo("ke"))
            yield Sample(free, look * EVERY * step, frame, *energies)
    lammps.command("clear")


def _set_up(lammps: Any, subject: PotentialSpec, atoms: Atoms) -> Array:
    """The atoms in LAMMPS; its cell."""
    cell, positions, _ = transform_to_lammps_frame(atoms, 1.0)
    (xx, _, _), (xy, yy, _), (xz, yz, zz) = cell.tolist()
    number = {symbol: k for k, symbol in enumerate(subject.elements, start=1)}
    lammps.command("clear")
    lammps.commands_string(
        "units metal\natom_style atomic\natom_modify map array\nbox tilt large\n"
        f"region cell prism 0 {xx!r} 0 {yy!r} 0 {zz!r} {xy!r} {xz!r} {yz!r}\ncreate_box {len(number)} cell"
    )
    types = [number[symbol] for symbol in atoms.get_chemical_symbols()]
    lammps.create_atoms(len(atoms), list(range(1, len(atoms) + 1)), types, positions.ravel().tolist())
    masses = [f"mass {k} {float(atomic_masses[atomic_numbers[symbol]])!r}" for symbol, k in number.items()]
    lammps.commands_string("\n".join([*masses, *subject.commands, "neighbor 1.0 bin", "neigh_modify delay 0"]))
    return cell


def _ase_samples(subject: PotentialSpec, atoms: Atoms, protocol: MdProtocol, step: float) -> Iterator[Sample]:
    from ase.md.langevin import Langevin  # noqa: PLC0415  (only where ASE runs the dynamics)
    from ase.md.verlet import VelocityVerlet  # noqa: PLC0415

    moving: Atoms = atoms.copy()
    moving.calc = subject.make_calculator(moving.get_chemical_symbols())
    rng = np.random.default_rng(protocol.seed)
    width = np.sqrt(moving.get_masses() * units.kB * 2 * protocol.temperature)  # half of it becomes potential energy
    momenta = rng.standard_normal((len(moving), 3)) * width[:, None]
    moving.set_momenta(momenta - momenta.mean(axis=0))
    timestep = 1e3 * step * units.fs
    for free, looks in _parts(protocol, step):
        friction = 1 / (1e3 * FRICTION * units.fs)
        heat: dict[str, Any] = {"temperature_K": protocol.temperature, "friction": friction, "rng": rng, "fixcm": False}
        dynamics: Any = VelocityVerlet(moving, timestep) if free else Langevin(moving, timestep, **heat)
        for look in range(1, looks + 1):
            dynamics.run(EVERY)
            energies = moving.get_potential_energy(), moving.get_kinetic_energy()
            yield Sample(free, look * EVERY * step, moving.copy(), *map(float, energies))
