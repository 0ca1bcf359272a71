"""Molecular dynamics in LAMMPS with one member of a committee, watched, and stopped where it goes wrong.

A trajectory is a task of one process and a file of its own. Bulk runs at constant pressure, with the barostat on
periodic directions only; what is not periodic at all at constant volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers

from paretofit.descriptors.rows import lammps_message, with_vacuum_cell
from paretofit.errors import InputError
from paretofit.lammps_library import lammps_instance
from paretofit.structures.filters import is_too_close

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from paretofit.descriptors.basis import Array
    from paretofit.learning.settings import ExploreSettings

LOOK = 20  # steps, at most, between looks at temperature and distances
SWOLLEN = 3.0  # times the volume of the start, or a share of it, at which a trajectory is stopped
GRADE = 5  # looks between grades
VACUUM = 12.0  # Å beside what is not periodic
THERMOSTAT, BAROSTAT = 0.1, 1.0  # ps
COLDEST = 1.0  # K: what "0 K" is run at
FEWEST_KELVIN = 3000.0  # what a temperature may reach in any case: a cut or distorted start heats itself
AXES = "xyz"
GRADE_REASON = "the extrapolation grade reached"


@dataclass(frozen=True)
class MdEngine:
    """What LAMMPS computes forces by.

    Attributes
    ----------
    commands : tuple of str
        ``pair_style`` and ``pair_coeff`` lines, units metal.
    elements : tuple of str
        Of the atom types, in order.
    """

    commands: tuple[str, ...]
    elements: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One trajectory to run.

    Attributes
    ----------
    number : int
    atoms : ase.Atoms
    temperature : float
        K.
    pressure : float
        kbar.
    seed : int
    """

    number: int
    atoms: Atoms
    temperature: float
    pressure: float
    seed: int


@dataclass(frozen=True)
class Trajectory:
    """What became of a run.

    Attributes
    ----------
    frames : list of ase.Atoms
        In the frame and with the periodicity of the start.
    times : list of float
        ps.
    reason : str
        Why it ended early; empty where it did not.
    """

    frames: list[Atoms]
    times: list[float]
    reason: str


def possible_starts(structures: Sequence[Atoms], max_atoms: int) -> list[Atoms]:
    """What the dynamics can start from.

    Raises
    ------
    InputError
        If that is nothing.
    """
    found = [atoms for atoms in structures if 1 < len(atoms) <= max_atoms]
    if not found:
        raise InputError(
            f"no structure of 2 to {max_atoms} atoms to start the dynamics from; name some under "
            "'learning.explore.start', or raise 'learning.explore.max_atoms'"
        )
    return found


def plan_runs(starts: Sequence[Atoms], settings: ExploreSettings, rng: np.random.Generator) -> list[Run]:
    """Starts, temperatures and pressures of the trajectories of an iteration.

    Starts are drawn without repetition as long as there are enough; grids are gone through in turn.
    """
    count = settings.trajectories
    order = np.concatenate([rng.permutation(len(starts)) for _ in range(count // len(starts) + 1)])[:count]
    temperatures, pressures = (_drawn(one, count, rng) for one in (settings.temperature_k, settings.pressure_kbar))
    seeds = rng.integers(1, 2**31 - 1, count)
    return [
        Run(k, starts[int(order[k])], float(temperatures[k]), float(pressures[k]), int(seeds[k])) for k in range(count)
    ]


def _drawn(values: Any, count: int, rng: np.random.Generator) -> Array:
    if values.grid:
        return np.resize(np.asarray(values.grid, dtype=float), count)
    return np.asarray(rng.uniform(values.low, values.high, count))


def run_md(
    run: Run, engine: MdEngine, settings: ExploreSettings, grade: Callable[[Atoms], float] | None = None
) -> Trajectory:
    """Run one trajectory; it is stopped where atoms are lost or too close, it is too hot, or the grade is too high.

    Besides the frames at the interval it then keeps the last structure before that happened, or at which the grade was
    too high.

    Parameters
    ----------
    run : Run
    engine : MdEngine
    settings : ExploreSettings
    grade : callable, optional
        The highest extrapolation grade of an atom of a structure.
    """
    if foreign := sorted(set(run.atoms.get_chemical_symbols()) - set(engine.elements)):
        return Trajectory([], [], f"the start has {foreign[0]}, which the potential has not")
    lammps = lammps_instance()
    frames: list[Atoms] = []
    times: list[float] = []
    step = settings.timestep_fs / 1000
    per_frame = max(1, round(settings.interval_ps / step))
    each = -(-per_frame // LOOK)  # looks for each frame
    stride = max(1, round(per_frame / each))
    looks = each * max(1, int(settings.time_ps / settings.interval_ps + 1e-9))

    def keep(seen: tuple[Atoms, int] | None) -> None:
        if seen is not None and (not times or seen[1] * stride * step > times[-1]):
            frames.append(seen[0])
            times.append(seen[1] * stride * step)

    reason, before = "", None
    try:
        view = _set_up(lammps, run, engine, settings)
        for look in range(1, looks + 1):
            lammps.command(f"run {stride} pre {'yes' if look == 1 else 'no'} post no")
            atoms = view.look(lammps)
            reason = _trouble(lammps, atoms, run, settings, grade if look % GRADE == 0 or look % each == 0 else None)
            if reason:  # what came before is what most needs a label
                keep((atoms, look) if reason.startswith(GRADE_REASON) else before)
                break
            before = atoms, look
            if look % each == 0:
                keep(before)
    except Exception as error:  # noqa: BLE001  (LAMMPS raises a bare Exception; it becomes the reason)
        reason = lammps_message(error)
        keep(before)
    finally:
        lammps.close()
    return Trajectory(frames, times, reason)


def _trouble(
    lammps: Any, atoms: Atoms, run: Run, settings: ExploreSettings, grade: Callable[[Atoms], float] | None
) -> str:
    temperature, energy = float(lammps.get_thermo("temp")), float(lammps.get_thermo("pe"))
    if not (np.isfinite(temperature + energy) and np.isfinite(atoms.positions).all()):
        return "the energy is not finite"
    if temperature > hottest_of(run, settings):
        return f"the temperature reached {temperature:.0f} K"
    periodic = run.atoms.pbc.all()
    swollen = atoms.cell.volume / run.atoms.cell.volume if periodic else 1.0
    if not 1 / SWOLLEN < swollen < SWOLLEN:
        return f"the volume reached {swollen:.2g} times that of the start"
    if is_too_close(atoms, 0.4):
        return "atoms came closer than 0.4 of the sum of their covalent radii"
    if grade is not None and (highest := grade(atoms)) > settings.stop_grade:
        return f"{GRADE_REASON} {highest:.3g}"
    return ""


@dataclass
class _View:
    """From LAMMPS's box back to the frame of the start."""

    start: Atoms
    order: list[int]
    rotation: Array
    shift: Array
    last: Array

    def look(self, lammps: Any) -> Atoms:
        """The atoms as they are now; along directions that are not periodic they are followed across the box."""
        low, high, xy, yz, xz, _, _ = lammps.extract_box()
        lengths = np.array(high) - np.array(low)
        box = np.array([[lengths[0], 0, 0], [xy, lengths[1], 0], [xz, yz, lengths[2]]])
        x = np.array(lammps.gather_atoms("x", 1, 3)).reshape(-1, 3) - np.array(low)
        moved = np.linalg.solve(box.T, (x - self.last).T).T
        x = self.last + (moved - np.round(moved)) @ box
        self.last = x
        cell = np.array(self.start.cell[:])
        turned = box @ self.rotation.T
        for place, axis in enumerate(self.order):
            if self.start.pbc[axis]:
                cell[axis] = turned[place]
        made = Atoms(self.start.numbers, (x - self.shift) @ self.rotation.T, cell=cell, pbc=self.start.pbc)
        made.wrap()
        return made


def hottest_of(run: Run, settings: ExploreSettings) -> float:
    """The temperature (K) at which a trajectory is stopped."""
    return max(settings.stop_temperature * run.temperature, FEWEST_KELVIN)


def _set_up(lammps: Any, run: Run, engine: MdEngine, settings: ExploreSettings) -> _View:
    """The atoms in a box whose first axes are the periodic ones, with thermostat and barostat."""
    atoms = run.atoms
    order = [*np.flatnonzero(atoms.pbc).tolist(), *np.flatnonzero(~np.asarray(atoms.pbc)).tolist()]
    cell = with_vacuum_cell(atoms, VACUUM)[order]
    if np.linalg.det(cell) < 0:  # right-handed: turn the last axis round, which is vacuum or any
        cell[2] *= -1
    q, r = np.linalg.qr(cell.T)
    signs = np.sign(np.diag(r))
    rotation, box = q * signs, r.T * signs
    x = atoms.positions @ rotation
    shift = 0.5 * box.sum(axis=0) - x.mean(axis=0)
    x = x + shift
    (xx, _, _), (xy, yy, _), (xz, yz, zz) = box.tolist()
    number = {symbol: k for k, symbol in enumerate(engine.elements, start=1)}
    lammps.commands_string(
        "units metal\natom_style atomic\natom_modify map array\nbox tilt large\n"
        f"region cell prism 0 {xx!r} 0 {yy!r} 0 {zz!r} {xy!r} {xz!r} {yz!r}\ncreate_box {len(number)} cell"
    )
    types = [number[symbol] for symbol in atoms.get_chemical_symbols()]
    lammps.create_atoms(len(atoms), list(range(1, len(atoms) + 1)), types, x.ravel().tolist())
    masses = [f"mass {k} {float(atomic_masses[atomic_numbers[symbol]])!r}" for symbol, k in number.items()]
    heat = max(run.temperature, COLDEST)
    hottest = 2 * hottest_of(run, settings)  # at once, for what flies apart in a step writes over LAMMPS's memory
    lammps.commands_string(
        "\n".join(
            [
                *masses,
                *engine.commands,
                "neighbor 1.0 bin",
                "neigh_modify delay 0",
                f"timestep {settings.timestep_fs / 1000!r}",
            ]
        )
        + "\nthermo 1\nthermo_style custom step temp pe\nthermo_modify lost error norm no\n"
        f"variable hot equal temp\nfix halt all halt 1 v_hot > {hottest!r} error soft message no\n"
        f"velocity all create {heat!r} {run.seed} dist gaussian mom yes rot no\n{_ensemble(atoms, run, heat)}"
    )
    return _View(atoms, order, rotation, shift, x)


def _ensemble(atoms: Atoms, run: Run, heat: float) -> str:
    """NPT along the periodic directions, which are the box's first; NVT where there is none."""
    periodic = int(np.sum(atoms.pbc))
    temperature = f"temp {heat!r} {heat!r} {THERMOSTAT}"
    if not periodic:
        return f"fix motion all nvt {temperature}"
    bar = run.pressure * 1000
    along = " ".join(f"{axis} {bar!r} {bar!r} {BAROSTAT}" for axis in AXES[:periodic])
    return f"fix motion all npt {temperature} {along}"
