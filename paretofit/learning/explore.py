"""Molecular dynamics with a committee or one of its members, checked at intervals, and stopped if it is unphysical.

Each trajectory is a separate task. The dynamics of structures with periodic directions are at constant pressure, with
barostats along these directions only; those of other structures are at constant volume. The integrator is LAMMPS
(`md_lammps`) or ASE (`md_ase`), with the same checks and frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from ase import Atoms

from paretofit.core import Array, InputError
from paretofit.descriptors import format_lammps_error
from paretofit.learning.learn_settings import ExploreSettings
from paretofit.learning.md_ase import AseDynamics
from paretofit.learning.md_lammps import LammpsDynamics
from paretofit.learning.md_run import Dynamics, MdEngine, MdRun, MdSnapshot, Trajectory, describe_volume_problem
from paretofit.learning.sets import Stratum, get_stratum, is_always_training
from paretofit.structures import is_too_close

MAX_CHECK_INTERVAL_STEPS = 20  # largest number of steps between checks of temperature, volume and distances
TEMPERATURE_CHECKS = 5  # number of checks in the running mean of the temperature
EQUILIBRATION_FRAMES = 3  # number of frames that are recorded during the equilibration
# number of checks between computations of the extrapolation grade, which costs as much as many steps
GRADE_CHECK_INTERVAL = 5
# below this temperature, no trajectory is stopped as too hot, because strained or cut start structures heat up
MIN_STOP_TEMPERATURE_K = 3000.0
VOLUME_RANGE = 0.8, 1.25  # volume per atom of a strained start structure, relative to that of its input
MIN_MD_DISTANCE_RATIO = 0.4  # smallest distance of two atoms, relative to the sum of their covalent radii
GRADE_REASON = "the extrapolation grade reached"  # beginning of a reason; the structure becomes a frame


def select_start_structures(structures: Sequence[Atoms], max_atoms: int | None) -> tuple[list[Atoms], str]:
    """Select the structures from which molecular dynamics can start.

    These have at least two and at most `max_atoms` atoms. If they are strained, the ratio of their volume per atom to
    that of the unmodified input is within `VOLUME_RANGE`. Structures under larger strain would collapse and heat up;
    they are selected only if there are no other structures.

    Parameters
    ----------
    structures : sequence of ase.Atoms
        Structures with the info keys ``config_type`` and ``input``, if known.
    max_atoms : int, optional
        Largest number of atoms; by default there is no limit.

    Returns
    -------
    start_structures : list of ase.Atoms
    note : str
        Kinds of structures without a start structure, and the limit that excludes each kind; empty if every kind has
        one.

    Raises
    ------
    InputError
        If no structure has two to `max_atoms` atoms.
    """
    candidates = [atoms for atoms in structures if len(atoms) > 1]
    small_structures = [atoms for atoms in candidates if max_atoms is None or len(atoms) <= max_atoms]
    if not small_structures:
        raise InputError(
            f"no structure has {'at least 2' if max_atoms is None else f'2 to {max_atoms}'} atoms, so that no dynamics "
            "can start; add files to 'learning.explore.start_structures', or increase 'learning.explore.max_atoms'"
        )
    inputs = [atoms for atoms in structures if is_always_training(atoms)]
    volumes = {(atoms.info.get("input"), *atoms.pbc): _compute_volume(atoms) for atoms in inputs}
    start_structures = [atoms for atoms in small_structures if _is_near_input_volume(atoms, volumes)]
    start_structures = start_structures or small_structures
    notes = []
    for limit, structures_before, structures_after in (
        (f"more than {max_atoms} atoms ('learning.explore.max_atoms')", candidates, small_structures),
        ("volumes far from the input's", small_structures, start_structures),
    ):
        remaining_strata = {get_stratum(atoms) for atoms in structures_after}
        excluded_strata = sorted({get_stratum(atoms) for atoms in structures_before} - remaining_strata)
        if excluded_strata:
            names = ", ".join(" of ".join(filter(None, stratum)) for stratum in excluded_strata)
            notes.append(f"no dynamics starts from {names}: {limit}")
    return start_structures, "; ".join(notes)


def _compute_volume(atoms: Atoms) -> float:
    """Compute the volume per atom in Å³, or the area or length per atom if two or one directions are periodic.

    The result is 1 for structures without periodic directions.
    """
    vectors = np.array(atoms.cell[atoms.pbc]).reshape(-1, 3)
    # the Gram determinant is also defined for one or two vectors
    return float(np.sqrt(np.linalg.det(vectors @ vectors.T))) / len(atoms) if len(vectors) else 1.0


def _is_near_input_volume(atoms: Atoms, input_volumes: Mapping[tuple[Any, ...], float]) -> bool:
    """Check that a structure is not strained, or that its volume per atom is within `VOLUME_RANGE` of the input's.

    A key of `input_volumes` consists of the name of an input and three booleans, its periodicity. A structure without
    a known input passes.
    """
    input_volume = input_volumes.get((atoms.info.get("input"), *atoms.pbc))
    if input_volume is None or atoms.info.get("config_type") != "strained":
        return True
    return VOLUME_RANGE[0] < _compute_volume(atoms) / input_volume < VOLUME_RANGE[1]


def plan_runs(start_structures: Sequence[Atoms], settings: ExploreSettings, rng: np.random.Generator) -> list[MdRun]:
    """Draw the start structure, temperature, pressure and random seed of each trajectory of an iteration.

    Start structures are drawn from the strata (kinds of structures of each input) in turn; a structure is not drawn
    again before all others of its stratum. The values of a grid of temperatures or pressures are used in turn.
    """
    n_runs = settings.trajectories
    indices = _draw_stratified([get_stratum(atoms) for atoms in start_structures], n_runs, rng)
    temperatures = _draw_condition(settings.temperature_k, n_runs, rng)
    pressures = _draw_condition(settings.pressure_kbar, n_runs, rng)
    seeds = rng.integers(1, 2**31 - 1, n_runs)
    return [
        MdRun(
            number, start_structures[index], float(temperatures[number]), float(pressures[number]), int(seeds[number])
        )
        for number, index in enumerate(indices)
    ]


def _draw_stratified(strata: Sequence[Stratum], n_draws: int, rng: np.random.Generator) -> list[int]:
    """Draw `n_draws` indices from the strata in turn; none is drawn again before all others of its stratum.

    `strata` are the strata by index.
    """
    indices_by_stratum: dict[Stratum, list[int]] = {}
    for index in rng.permutation(len(strata)).tolist():
        indices_by_stratum.setdefault(strata[index], []).append(index)
    cycles: list[Any] = [cycle(indices_by_stratum[stratum]) for stratum in sorted(indices_by_stratum)]
    rng.shuffle(cycles)
    return [next(cycles[draw % len(cycles)]) for draw in range(n_draws)]


def _draw_condition(range_or_grid: Any, n_draws: int, rng: np.random.Generator) -> Array:
    """Draw temperatures or pressures ``(n_draws,)`` from a range, or repeat those of a grid (`RangeOrGridSettings`)."""
    if range_or_grid.grid:
        return np.resize(np.asarray(range_or_grid.grid, dtype=float), n_draws)
    return np.asarray(rng.uniform(range_or_grid.low, range_or_grid.high, n_draws))


def run_md(
    run: MdRun,
    engine: MdEngine,
    settings: ExploreSettings,
    grade_function: Callable[[Atoms], float] | None = None,
    on_frame: Callable[[MdSnapshot, float], str] | None = None,
) -> Trajectory:
    """Run one trajectory until its end, or until it becomes unphysical or extrapolates too far.

    A trajectory starts with an equilibration. It is stopped if atoms are lost or too close to each other, if the energy
    is not finite, if the volume or, after the equilibration, the running mean of the temperature or the extrapolation
    grade is out of bounds, or if `on_frame` requires it. Frames are recorded at regular intervals. If the trajectory is
    stopped, the last physical structure, or the structure whose grade is too high, becomes the last frame. The first
    `EQUILIBRATION_FRAMES` frames are from the equilibration; their times are negative or zero. An exception of the
    engine, or an element that the potential does not support, becomes the reason in the result.

    Parameters
    ----------
    run : MdRun
        Start structure and conditions.
    engine : MdEngine
        Source of the forces.
    settings : ExploreSettings
        Times, intervals and limits.
    grade_function : callable, optional
        Returns the highest extrapolation grade of the atoms of a structure; by default, grades are not checked.
    on_frame : callable, optional
        Receives each frame and its time in ps; returns the reason to stop the trajectory, or an empty string.

    Raises
    ------
    InputError
        If the integrator is LAMMPS and LAMMPS cannot be loaded.
    """
    if foreign_elements := sorted(set(run.atoms.get_chemical_symbols()) - set(engine.elements)):
        reason = f"the start structure contains {foreign_elements[0]}, which the potential does not support"
        return Trajectory([], [], reason)
    trajectory, reason = Trajectory([], [], ""), ""
    last_snapshot, last_time = None, 0.0  # last structure that may become a frame
    dynamics, temperatures = create_dynamics(run, engine, settings), deque[float](maxlen=TEMPERATURE_CHECKS)
    try:
        dynamics.start()
        for snapshot, time, is_frame, with_grade in _integrate(dynamics, settings):
            # the temperature is not checked in the equilibration, because velocities are rescaled there
            temperatures.append(snapshot.temperature if time > 0 else run.temperature)
            mean_temperature = float(np.mean(temperatures))
            reason = _find_md_problem(snapshot, mean_temperature, run, settings, grade_function if with_grade else None)
            if not reason or reason.startswith(GRADE_REASON):
                last_snapshot, last_time = snapshot, time
            if is_frame and not reason:
                reason = _append_frame(trajectory, snapshot, time, on_frame)
            if reason:
                break
    except Exception as error:  # noqa: BLE001  (LAMMPS raises Exception, and calculators may raise anything)
        reason = format_lammps_error(error)
    finally:
        dynamics.close()
    if reason:  # the last structure is the most important one to label
        _append_frame(trajectory, last_snapshot, last_time, on_frame)
    return Trajectory(trajectory.frames, trajectory.times, reason)


def _integrate(dynamics: Dynamics, settings: ExploreSettings) -> Iterator[tuple[MdSnapshot, float, bool, bool]]:
    """Equilibrate and integrate; yield ``(snapshot, time_ps, is_frame, with_grade)`` at each check.

    The time is zero at the end of the equilibration. `is_frame` tells whether the snapshot is a frame at the regular
    interval, and `with_grade` whether to check its extrapolation grade.
    """
    timestep_ps = settings.timestep_fs / 1000
    equilibration_steps = round(settings.equilibration_ps / timestep_ps / EQUILIBRATION_FRAMES)  # for each frame
    if equilibration_steps:
        for number in range(1, EQUILIBRATION_FRAMES + 1):
            time = (number - EQUILIBRATION_FRAMES) * equilibration_steps * timestep_ps
            yield dynamics.equilibrate(equilibration_steps), time, True, False
    dynamics.start_sampling()
    steps_per_frame = max(1, round(settings.interval_ps / timestep_ps))
    # rounded up, so that checks are at most `MAX_CHECK_INTERVAL_STEPS` apart
    checks_per_frame = -(-steps_per_frame // MAX_CHECK_INTERVAL_STEPS)
    steps_per_check = max(1, round(steps_per_frame / checks_per_frame))
    # 1e-9, because the quotient of two decimal fractions may be just below an integer
    n_checks = checks_per_frame * max(1, int(settings.time_ps / settings.interval_ps + 1e-9))
    for check in range(1, n_checks + 1):
        is_frame = check % checks_per_frame == 0
        with_grade = is_frame or check % GRADE_CHECK_INTERVAL == 0
        yield dynamics.advance(steps_per_check), check * steps_per_check * timestep_ps, is_frame, with_grade


def _append_frame(
    trajectory: Trajectory,
    snapshot: MdSnapshot | None,
    time: float,
    on_frame: Callable[[MdSnapshot, float], str] | None,
) -> str:
    """Append a frame to a trajectory in place, unless it is None or was appended before.

    Returns the reason to stop from `on_frame`, or an empty string.
    """
    if snapshot is None or (trajectory.times and time <= trajectory.times[-1]):
        return ""
    trajectory.frames.append(snapshot.atoms)
    trajectory.times.append(time)
    return "" if on_frame is None else on_frame(snapshot, time)


def create_dynamics(run: MdRun, engine: MdEngine, settings: ExploreSettings) -> Dynamics:
    """Create the dynamics of a run with the integrator of the settings.

    By default, LAMMPS integrates with a LAMMPS potential, and ASE with a calculator.

    Raises
    ------
    InputError
        If the integrator is LAMMPS and LAMMPS cannot be loaded.
    """
    integrator = settings.integrator or ("lammps" if engine.calculator_factory is None else "ase")
    dynamics_class = LammpsDynamics if integrator == "lammps" else AseDynamics
    # twice the stop temperature, which applies to the running mean: single steps may be hotter
    max_temperature = 2 * compute_stop_temperature(run, settings)
    return dynamics_class(run, engine, settings.timestep_fs / 1000, max_temperature)


def _find_md_problem(
    snapshot: MdSnapshot,
    mean_temperature: float,
    run: MdRun,
    settings: ExploreSettings,
    grade_function: Callable[[Atoms], float] | None,
) -> str:
    """Describe why a trajectory must be stopped; return an empty string if it can continue.

    `mean_temperature` is the running mean in K. Without `grade_function`, the extrapolation grade is not checked.
    """
    if not (np.isfinite(snapshot.temperature + snapshot.energy) and np.isfinite(snapshot.atoms.positions).all()):
        return "the energy is not finite"
    if mean_temperature > compute_stop_temperature(run, settings):
        return f"the temperature reached {mean_temperature:.0f} K"
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
