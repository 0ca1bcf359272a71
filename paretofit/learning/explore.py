"""Molecular dynamics with one member of a committee, watched, and stopped where it goes wrong.

A trajectory is a task of one process and a file of its own. Bulk runs at constant pressure, with the barostat on
periodic directions only; what is not periodic at all at constant volume. LAMMPS or ASE integrates (`md_lammps`,
`md_ase`); what is watched and kept is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from paretofit.core import InputError
from paretofit.descriptors import format_lammps_error
from paretofit.learning.md_ase import AseDynamics
from paretofit.learning.md_frame import describe_volume_problem
from paretofit.learning.md_lammps import LammpsDynamics
from paretofit.learning.md_run import MdEngine, MdRun, Trajectory
from paretofit.structures import is_too_close

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ase import Atoms

    from paretofit.core import Array
    from paretofit.learning.learn_settings import ExploreSettings
    from paretofit.learning.md_frame import Dynamics, MdSnapshot

LOOK = 20  # steps, at most, between looks at temperature and distances
GRADE = 5  # looks between grades
FEWEST_KELVIN = 3000.0  # what a temperature may reach in any case: a cut or distorted start heats itself
GRADE_REASON = "the extrapolation grade reached"


def select_start_structures(structures: Sequence[Atoms], max_atoms: int) -> list[Atoms]:
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
            "'learning.explore.start_structures', or raise 'learning.explore.max_atoms'"
        )
    return found


def plan_runs(starts: Sequence[Atoms], settings: ExploreSettings, rng: np.random.Generator) -> list[MdRun]:
    """Starts, temperatures and pressures of the trajectories of an iteration.

    Starts are drawn without repetition as long as there are enough; grids are gone through in turn.
    """
    count = settings.trajectories
    order = np.concatenate([rng.permutation(len(starts)) for _ in range(count // len(starts) + 1)])[:count]
    temperatures, pressures = (_drawn(one, count, rng) for one in (settings.temperature_k, settings.pressure_kbar))
    seeds = rng.integers(1, 2**31 - 1, count)
    return [
        MdRun(k, starts[int(order[k])], float(temperatures[k]), float(pressures[k]), int(seeds[k]))
        for k in range(count)
    ]


def _drawn(values: Any, count: int, rng: np.random.Generator) -> Array:
    if values.grid:
        return np.resize(np.asarray(values.grid, dtype=float), count)
    return np.asarray(rng.uniform(values.low, values.high, count))


def run_md(
    run: MdRun, engine: MdEngine, settings: ExploreSettings, grade_function: Callable[[Atoms], float] | None = None
) -> Trajectory:
    """Run one trajectory; it is stopped where atoms are lost or too close, it is too hot, or the grade is too high.

    Besides the frames at the interval it then keeps the last structure before that happened, or at which the grade was
    too high.

    Parameters
    ----------
    run : Run
    engine : MdEngine
    settings : ExploreSettings
    grade_function : callable, optional
        The highest extrapolation grade of an atom of a structure.
    """
    if foreign := sorted(set(run.atoms.get_chemical_symbols()) - set(engine.elements)):
        return Trajectory([], [], f"the start has {foreign[0]}, which the potential has not")
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
    dynamics = create_dynamics(run, engine, settings)
    try:
        dynamics.start()
        for look in range(1, looks + 1):
            now = dynamics.advance(stride)
            reason = _trouble(now, run, settings, grade_function if look % GRADE == 0 or look % each == 0 else None)
            if reason:  # what came before is what most needs a label
                keep((now.atoms, look) if reason.startswith(GRADE_REASON) else before)
                break
            before = now.atoms, look
            if look % each == 0:
                keep(before)
    except Exception as error:  # noqa: BLE001  (LAMMPS raises a bare Exception, calculators any; it is the reason)
        reason = format_lammps_error(error)
        keep(before)
    finally:
        dynamics.close()
    return Trajectory(frames, times, reason)


def create_dynamics(run: MdRun, engine: MdEngine, settings: ExploreSettings) -> Dynamics:
    """The engine that is asked for, or that suits what computes; not started yet.

    Raises
    ------
    InputError
        If LAMMPS is needed and cannot be loaded.
    """
    integrator = settings.integrator or ("lammps" if engine.calculator_factory is None else "ase")
    kind = LammpsDynamics if integrator == "lammps" else AseDynamics
    return kind(run, engine, settings.timestep_fs / 1000, 2 * hottest_of(run, settings))


def _trouble(now: MdSnapshot, run: MdRun, settings: ExploreSettings, grade: Callable[[Atoms], float] | None) -> str:
    if not (np.isfinite(now.temperature + now.energy) and np.isfinite(now.atoms.positions).all()):
        return "the energy is not finite"
    if now.temperature > hottest_of(run, settings):
        return f"the temperature reached {now.temperature:.0f} K"
    if reason := describe_volume_problem(now.volume_ratio):
        return reason
    if is_too_close(now.atoms, 0.4):
        return "atoms came closer than 0.4 of the sum of their covalent radii"
    if grade is not None and (highest := grade(now.atoms)) > settings.stop_grade:
        return f"{GRADE_REASON} {highest:.3g}"
    return ""


def hottest_of(run: MdRun, settings: ExploreSettings) -> float:
    """The temperature (K) at which a trajectory is stopped."""
    return max(settings.stop_temperature_ratio * run.temperature, FEWEST_KELVIN)
