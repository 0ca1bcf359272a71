"""Monitored molecular dynamics with a committee or one of its members, stopped when it becomes unphysical.

Each trajectory is a separate task. Structures with periodic directions run at constant pressure, with barostats along
these directions only; other structures run at constant volume. The integrator is LAMMPS (`md_lammps`) or ASE
(`md_ase`), with the same checks and frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from paretofit.core import Array, InputError
from paretofit.descriptors import format_lammps_error
from paretofit.learning.learn_settings import ExploreSettings
from paretofit.learning.md_ase import AseDynamics
from paretofit.learning.md_lammps import LammpsDynamics
from paretofit.learning.md_run import Dynamics, MdEngine, MdRun, MdSnapshot, Trajectory, describe_volume_problem
from paretofit.structures import is_too_close

MAX_CHECK_INTERVAL_STEPS = 20  # between checks of temperature, volume and distances
GRADE_CHECK_INTERVAL = 5  # the extrapolation grade, which costs as much as many steps, is part of every fifth check
MIN_STOP_TEMPERATURE_K = 3000.0  # lower temperatures are allowed, because strained or cut start structures heat up
MIN_MD_DISTANCE_RATIO = 0.4  # of a distance to the sum of the covalent radii
GRADE_REASON = "the extrapolation grade reached"


def select_start_structures(structures: Sequence[Atoms], max_atoms: int) -> list[Atoms]:
    """Select the structures of 2 to `max_atoms` atoms, from which molecular dynamics can start.

    Raises
    ------
    InputError
        If there is no such structure.
    """
    start_structures = [atoms for atoms in structures if 1 < len(atoms) <= max_atoms]
    if not start_structures:
        raise InputError(
            f"no structure of 2 to {max_atoms} atoms to start the dynamics from; add files to "
            "'learning.explore.start_structures', or increase 'learning.explore.max_atoms'"
        )
    return start_structures


def plan_runs(start_structures: Sequence[Atoms], settings: ExploreSettings, rng: np.random.Generator) -> list[MdRun]:
    """Draw start structures, temperatures and pressures of the trajectories of an iteration.

    All start structures are drawn once before one is drawn again; the values of a grid are used in turn.
    """
    count, n_starts = settings.trajectories, len(start_structures)
    order = np.concatenate([rng.permutation(n_starts) for _ in range(count // n_starts + 1)])[:count]
    temperatures = _draw_condition(settings.temperature_k, count, rng)
    pressures = _draw_condition(settings.pressure_kbar, count, rng)
    seeds = rng.integers(1, 2**31 - 1, count)
    return [
        MdRun(k, start_structures[int(order[k])], float(temperatures[k]), float(pressures[k]), int(seeds[k]))
        for k in range(count)
    ]


def _draw_condition(values: Any, count: int, rng: np.random.Generator) -> Array:
    """Draw values from a range, or repeat the values of a grid (`RangeOrGridSettings`), ``(count,)``."""
    if values.grid:
        return np.resize(np.asarray(values.grid, dtype=float), count)
    return np.asarray(rng.uniform(values.low, values.high, count))


def run_md(
    run: MdRun, engine: MdEngine, settings: ExploreSettings, grade_function: Callable[[Atoms], float] | None = None
) -> Trajectory:
    """Run one trajectory until its end, or until it becomes unphysical or extrapolates too far.

    A trajectory is stopped if atoms are lost or too close to each other, or if the temperature, the volume or the
    extrapolation grade is out of bounds. In addition to the frames at the regular interval, its last frame is then the
    last physical structure, or the structure whose grade is too high.

    Parameters
    ----------
    run : MdRun
    engine : MdEngine
    settings : ExploreSettings
    grade_function : callable, optional
        Returns the highest extrapolation grade of the atoms of a structure.
    """
    if foreign_elements := sorted(set(run.atoms.get_chemical_symbols()) - set(engine.elements)):
        reason = f"the start structure contains {foreign_elements[0]}, which the potential does not support"
        return Trajectory([], [], reason)
    timestep = settings.timestep_fs / 1000
    steps_per_frame = max(1, round(settings.interval_ps / timestep))
    checks_per_frame = -(-steps_per_frame // MAX_CHECK_INTERVAL_STEPS)
    steps_per_check = max(1, round(steps_per_frame / checks_per_frame))
    n_checks = checks_per_frame * max(1, int(settings.time_ps / settings.interval_ps + 1e-9))
    trajectory, last_atoms, last_time, reason = Trajectory([], [], ""), None, 0.0, ""
    dynamics = create_dynamics(run, engine, settings)
    try:
        dynamics.start()
        for check in range(1, n_checks + 1):
            snapshot = dynamics.advance(steps_per_check)
            is_frame = check % checks_per_frame == 0
            with_grade = is_frame or check % GRADE_CHECK_INTERVAL == 0
            reason = _find_md_problem(snapshot, run, settings, grade_function if with_grade else None)
            if not reason or reason.startswith(GRADE_REASON):
                last_atoms, last_time = snapshot.atoms, check * steps_per_check * timestep
            if reason:
                break
            if is_frame:
                _append_frame(trajectory, last_atoms, last_time)
    except Exception as error:  # noqa: BLE001  (LAMMPS raises Exception, and calculators may raise anything)
        reason = format_lammps_error(error)
    finally:
        dynamics.close()
    if reason:  # the last structure is the most important one to label
        _append_frame(trajectory, last_atoms, last_time)
    return Trajectory(trajectory.frames, trajectory.times, reason)


def _append_frame(trajectory: Trajectory, atoms: Atoms | None, time: float) -> None:
    """Append a frame, unless it is None or already the last frame."""
    if atoms is not None and (not trajectory.times or time > trajectory.times[-1]):
        trajectory.frames.append(atoms)
        trajectory.times.append(time)


def create_dynamics(run: MdRun, engine: MdEngine, settings: ExploreSettings) -> Dynamics:
    """Create the requested MD engine, or the default engine for the potential, without starting it.

    Raises
    ------
    InputError
        If the engine is LAMMPS and LAMMPS cannot be loaded.
    """
    integrator = settings.integrator or ("lammps" if engine.calculator_factory is None else "ase")
    dynamics_class = LammpsDynamics if integrator == "lammps" else AseDynamics
    return dynamics_class(run, engine, settings.timestep_fs / 1000, 2 * compute_stop_temperature(run, settings))


def _find_md_problem(
    snapshot: MdSnapshot, run: MdRun, settings: ExploreSettings, grade_function: Callable[[Atoms], float] | None
) -> str:
    """Describe why a trajectory must be stopped; return an empty string if it can continue."""
    if not (np.isfinite(snapshot.temperature + snapshot.energy) and np.isfinite(snapshot.atoms.positions).all()):
        return "the energy is not finite"
    if snapshot.temperature > compute_stop_temperature(run, settings):
        return f"the temperature reached {snapshot.temperature:.0f} K"
    if reason := describe_volume_problem(snapshot.volume_ratio):
        return reason
    if is_too_close(snapshot.atoms, MIN_MD_DISTANCE_RATIO):
        return f"atoms came closer than {MIN_MD_DISTANCE_RATIO:g} times the sum of their covalent radii"
    if grade_function is not None and (grade := grade_function(snapshot.atoms)) > settings.stop_grade:
        return f"{GRADE_REASON} {grade:.3g}"
    return ""


def compute_stop_temperature(run: MdRun, settings: ExploreSettings) -> float:
    """Compute the temperature (K) above which a trajectory is stopped."""
    return max(settings.stop_temperature_ratio * run.temperature, MIN_STOP_TEMPERATURE_K)
