"""Molecular dynamics with one member of a committee, monitored, and stopped when it becomes unphysical.

Each trajectory is a task of its own. Structures that are periodic in some direction run at constant pressure, with
barostats along the periodic directions only, others at constant volume. LAMMPS or ASE integrates (`md_lammps`,
`md_ase`); checks and frames are the same.
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
GRADE_CHECK_INTERVAL = 5  # checks between evaluations of the extrapolation grade, which cost as much as many steps
MIN_STOP_TEMPERATURE_K = 3000.0  # never stop below: a strained or cut start structure heats itself
MIN_MD_DISTANCE_RATIO = 0.4  # of the sum of the covalent radii
GRADE_REASON = "the extrapolation grade reached"


def select_start_structures(structures: Sequence[Atoms], max_atoms: int) -> list[Atoms]:
    """Select the structures that molecular dynamics can start from: 2 to `max_atoms` atoms.

    Raises
    ------
    InputError
        If there is none.
    """
    start_structures = [atoms for atoms in structures if 1 < len(atoms) <= max_atoms]
    if not start_structures:
        raise InputError(
            f"no structure of 2 to {max_atoms} atoms to start the dynamics from; name some under "
            "'learning.explore.start_structures', or raise 'learning.explore.max_atoms'"
        )
    return start_structures


def plan_runs(start_structures: Sequence[Atoms], settings: ExploreSettings, rng: np.random.Generator) -> list[MdRun]:
    """Draw start structures, temperatures and pressures of the trajectories of an iteration.

    Each start structure is drawn once before any is drawn again; values of a grid are used in turn.
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
    if values.grid:
        return np.resize(np.asarray(values.grid, dtype=float), count)
    return np.asarray(rng.uniform(values.low, values.high, count))


def run_md(
    run: MdRun, engine: MdEngine, settings: ExploreSettings, grade_function: Callable[[Atoms], float] | None = None
) -> Trajectory:
    """Run one trajectory until its end, or until it becomes unphysical or extrapolates too far.

    A trajectory is stopped if atoms are lost or too close to each other, or if the temperature, the volume or the
    extrapolation grade is out of bounds. Its last frame is then the last physical structure, or the one whose grade is
    too high, in addition to the frames at the regular interval.

    Parameters
    ----------
    run : MdRun
    engine : MdEngine
    settings : ExploreSettings
    grade_function : callable, optional
        Returns the highest extrapolation grade of the atoms of a structure.
    """
    if foreign := sorted(set(run.atoms.get_chemical_symbols()) - set(engine.elements)):
        return Trajectory([], [], f"the start structure contains {foreign[0]}, which the potential does not support")
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
    except Exception as error:  # noqa: BLE001  (LAMMPS raises a bare Exception, calculators any; it is the reason)
        reason = format_lammps_error(error)
    finally:
        dynamics.close()
    if reason:  # the last structure is the one that most needs a label
        _append_frame(trajectory, last_atoms, last_time)
    return Trajectory(trajectory.frames, trajectory.times, reason)


def _append_frame(trajectory: Trajectory, atoms: Atoms | None, time: float) -> None:
    """Append a frame, unless there is none or it is already the last one."""
    if atoms is not None and (not trajectory.times or time > trajectory.times[-1]):
        trajectory.frames.append(atoms)
        trajectory.times.append(time)


def create_dynamics(run: MdRun, engine: MdEngine, settings: ExploreSettings) -> Dynamics:
    """Create the requested MD engine, or the default for the potential, without starting it.

    Raises
    ------
    InputError
        If LAMMPS is needed and cannot be loaded.
    """
    integrator = settings.integrator or ("lammps" if engine.calculator_factory is None else "ase")
    dynamics_class = LammpsDynamics if integrator == "lammps" else AseDynamics
    return dynamics_class(run, engine, settings.timestep_fs / 1000, 2 * compute_stop_temperature(run, settings))


def _find_md_problem(
    snapshot: MdSnapshot, run: MdRun, settings: ExploreSettings, grade_function: Callable[[Atoms], float] | None
) -> str:
    """Describe why a trajectory must be stopped; an empty string if it can continue."""
    if not (np.isfinite(snapshot.temperature + snapshot.energy) and np.isfinite(snapshot.atoms.positions).all()):
        return "the energy is not finite"
    if snapshot.temperature > compute_stop_temperature(run, settings):
        return f"the temperature reached {snapshot.temperature:.0f} K"
    if reason := describe_volume_problem(snapshot.volume_ratio):
        return reason
    if is_too_close(snapshot.atoms, MIN_MD_DISTANCE_RATIO):
        return f"atoms came closer than {MIN_MD_DISTANCE_RATIO:g} of the sum of their covalent radii"
    if grade_function is not None and (grade := grade_function(snapshot.atoms)) > settings.stop_grade:
        return f"{GRADE_REASON} {grade:.3g}"
    return ""


def compute_stop_temperature(run: MdRun, settings: ExploreSettings) -> float:
    """Compute the temperature (K) above which a trajectory is stopped."""
    return max(settings.stop_temperature_ratio * run.temperature, MIN_STOP_TEMPERATURE_K)
