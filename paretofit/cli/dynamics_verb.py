"""Verb for molecular dynamics with a trained potential: explore."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from paretofit.cli import options
from paretofit.cli.options import app, print_result, split_names
from paretofit.core import InputError

StructuresArgument = Annotated[
    list[Path], Argument(help="Start structures: datasets (HDF5), or any files that ASE reads.")
]
TemperatureOption = Annotated[str, Option(help="Temperature (K), or a range to draw from: LOW,HIGH.")]
PressureOption = Annotated[
    str,
    Option(
        help="Pressure (kbar) on the material along periodic directions, or a range to draw from: LOW,HIGH. "
        "Structures without periodic directions keep their volume."
    ),
]
TrajectoriesOption = Annotated[
    int | None,
    Option(
        min=1,
        help="Number of trajectories; their start structures are drawn by kind and input in turn.",
        show_default="the number of structures",
    ),
]
SaveGradeOption = Annotated[float, Option(help="Extrapolation grade above which a frame is saved.")]
StopGradeOption = Annotated[float, Option(help="Extrapolation grade at which a trajectory is stopped.")]
MaxEnergyOption = Annotated[float | None, Option(help="Expected energy error above which a frame is saved (meV/atom).")]
MaxForceOption = Annotated[float | None, Option(help="Expected force error above which a frame is saved (meV/Å).")]
StopEnergyOption = Annotated[
    float | None, Option(help="Expected energy error of a frame at which a trajectory is stopped (meV/atom).")
]
StopForceOption = Annotated[
    float | None, Option(help="Expected force error of a frame at which a trajectory is stopped (meV/Å).")
]
TimeLimitOption = Annotated[
    float, Option(min=1.0, help="Wall time (s) after which a trajectory is killed and its frames are discarded.")
]


@app.command(
    epilog="Examples:  paretofit explore potential bulk.cif slab.extxyz --temperature 300,1500 --trajectories 8 -o md "
    "  |   paretofit explore potential bulk.cif --time 100 --interval 1 --stop-grade 10 --max-force 200"
)
def explore(
    potential: options.Potential,
    structures: StructuresArgument,
    *,
    out: Annotated[Path, Option("--out", "-o", help="Folder to write to.")] = Path("exploration"),
    temperature: TemperatureOption = "300",
    pressure: PressureOption = "0",
    time: Annotated[float, Option(help="Length of a trajectory (ps).")] = 10.0,
    interval: Annotated[float, Option(help="Time between frames (ps).")] = 0.1,
    timestep: Annotated[float, Option(help="Time step (fs).")] = 1.0,
    trajectories: TrajectoriesOption = None,
    save_grade: SaveGradeOption = 2.0,
    stop_grade: StopGradeOption = 50.0,
    max_energy: MaxEnergyOption = None,
    max_force: MaxForceOption = None,
    stop_energy: StopEnergyOption = None,
    stop_force: StopForceOption = None,
    time_limit: TimeLimitOption = 86400.0,
    seed: Annotated[int, Option(min=0, help="Random seed of start structures, conditions and velocities.")] = 1,
    allow_pickle: options.AllowPickle = False,
    jobs: options.Jobs,
    force: options.Force = False,
    progress: options.Progress = True,
    as_json: options.Json = False,
) -> None:
    """Run molecular dynamics with a potential; save the frames with a high extrapolation grade or expected error.

    Run the same command again to resume a stopped run.
    """
    from paretofit.commands import explore_dynamics

    settings: dict[str, Any] = {
                "temperature_k": _parse_condition("--temperature", temperature),
                "pressure_kbar": _parse_condition("--pressure", pressure), "time_ps": time, "interval_ps": interval,
                "timestep_fs": timestep, "stop_grade": stop_grade, "time_limit_s": time_limit}  # fmt: skip
    settings |= {} if trajectories is None else {"trajectories": trajectories}
    exploration = explore_dynamics(
        potential, structures, out, settings=settings, save_grade=save_grade,
        save_errors=_collect_limits(energy=max_energy, force=max_force),
        stop_errors=_collect_limits(energy=stop_energy, force=stop_force),
        seed=seed, overwrite=force, jobs=jobs, progress=progress, allow_pickle=allow_pickle,
    )  # fmt: skip
    print_result(exploration, exploration.text, as_json=as_json, exclude=("potential",))
    if not len(exploration.frames):  # no trajectory has recorded any frame, saved or not
        raise typer.Exit(1)


def _parse_condition(option: str, text: str) -> float | list[float]:
    """Parse one number, or the two ends of a range; `option` is the name of the option in the error message."""
    try:
        numbers = [float(number_text) for number_text in split_names(text)]
    except ValueError:
        numbers = []
    if len(numbers) not in {1, 2}:
        raise InputError(f"{option} requires a number, or a range LOW,HIGH; got '{text}'")
    return numbers if len(numbers) == 2 else numbers[0]


def _collect_limits(**limits: float | None) -> dict[str, float]:
    """Return the limits of errors by quantity, without those that are None."""
    return {quantity: limit for quantity, limit in limits.items() if limit is not None}
