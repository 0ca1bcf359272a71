"""`paretofit explore`: molecular dynamics with a trained potential, with error bars and grades of each frame.

Each trajectory is a task of its own. Its files are in ``trajectories.partial``, from which a stopped command resumes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from pydantic import ValidationError

from paretofit import learning
from paretofit.commands.start_structures import read_start_structures
from paretofit.core import (
    InputError,
    check_new_paths,
    format_validation_error,
    hash_file,
    hash_json,
    remove_file,
    write_csv,
)
from paretofit.dataset.io import format_extxyz
from paretofit.execution import RunContext
from paretofit.potentials import (
    DISPLAY_UNITS,
    KINDS,
    LinearPotential,
    MacePotential,
    compute_spread_limits,
    read_potential,
)
from paretofit.uncertainty import COMMITTEE_SUFFIX

PARTIAL_FOLDER = "trajectories.partial"
TABLES, FRAMES_FILE, EXTRAPOLATING_FILE = ("frames", "trajectories"), "trajectories.extxyz", "extrapolating.extxyz"
CSV_DIGITS = 8  # significant digits
DEFAULT_CONDITIONS = {"temperature_k": 300.0, "pressure_kbar": 0.0}
DEFAULT_SAVE_GRADE = 2.0  # grade above which extrapolation is strong
MAX_SHOWN_TRAJECTORIES = 20  # number of rows in the text
MAXIMUM_COLUMNS = {  # column of trajectories: column of frames, whose maximum it contains
    "grade": "extrapolation_grade",
    "energy_expected": "energy_expected",
    "force_expected": "force_expected",
}
PROPOSED_SELECTION = 20  # largest number of frames in the proposed command


@dataclass(frozen=True)
class Exploration:
    """Result of molecular dynamics with a potential.

    Attributes
    ----------
    frames : DataFrame
        A row for each frame: ``trajectory``, ``start`` (file and number of the start structure), ``time_ps``,
        ``temperature_k``, ``pressure_kbar``, ``energy`` (eV/atom), ``volume`` (Å³); for a committee
        ``extrapolation_grade`` and for each quantity ``*_std``, ``*_interval`` and ``*_expected`` (meV/atom, meV/Å,
        GPa); ``above``: names of the limits that the frame exceeds, separated by spaces. Frames at times up to zero
        belong to the equilibration.
    trajectories : DataFrame
        A row for each trajectory: ``trajectory``, ``start``, target ``temperature_k`` and ``pressure_kbar`` (NaN for
        molecules), time of the last frame (``picoseconds``), number of ``frames``, highest ``grade``, largest
        ``energy_expected`` (meV/atom) and ``force_expected`` (meV/Å), and ``ended`` (why the trajectory is incomplete;
        empty if it is complete).
    limits : dict of str to float
        Limits above which frames are saved: the "grade", and the expected errors "energy" (meV/atom), "force" (meV/Å)
        and "stress" (GPa).
    folder : Path
        Folder of the tables and frames.
    potential : LinearPotential or MacePotential
    notes : list of str
        Notes on skipped structures, and on error bars that the potential does not have.
    """

    frames: pd.DataFrame
    trajectories: pd.DataFrame
    limits: dict[str, float]
    folder: Path
    potential: LinearPotential | MacePotential
    notes: list[str] = field(default_factory=list)

    @property
    def n_complete(self) -> int:
        """Number of trajectories that were not stopped early."""
        return int((self.trajectories["ended"] == "").sum())

    @property
    def n_extrapolating(self) -> int:
        """Number of frames that exceed a limit."""
        return int((self.frames["above"] != "").sum())

    @property
    def highest_grade(self) -> float:
        """Highest extrapolation grade of all frames; NaN without grades."""
        grades = self.frames.get("extrapolation_grade")
        return float("nan") if grades is None else float(grades.max())

    @property
    def answer(self) -> str:
        """Counts of complete trajectories and extrapolating frames, and the next step."""
        completion_text = f"{self.n_complete} of {len(self.trajectories)} trajectories are complete"
        if not len(self.frames):
            return f"{completion_text}, and there are no frames; correct the start structures or the potential"
        if self.potential.uncertainty is None:
            return f"{completion_text}, with {len(self.frames)} frames, in {self.folder / FRAMES_FILE}"
        limit_text = " or ".join(_describe_limit(name, limit) for name, limit in self.limits.items())
        text = f"{completion_text}; {self.n_extrapolating} of {len(self.frames)} frames extrapolate ({limit_text}); "
        text += f"the highest grade is {self.highest_grade:.3g}; "
        if not self.n_extrapolating:
            return f"{text}explore further with a higher --temperature or a longer --time"
        count = min(self.n_extrapolating, PROPOSED_SELECTION)
        return f"{text}select frames to label: paretofit select {self.folder / EXTRAPOLATING_FILE} -n {count}"

    @property
    def text(self) -> str:
        """Table of the trajectories, notes and answer, as plain text."""
        table = self.trajectories.head(MAX_SHOWN_TRAJECTORIES).dropna(axis="columns", how="all")
        units = {"temperature_k": "K", "pressure_kbar": "kbar", "picoseconds": "ps"}
        units |= {"energy_expected": "meV/atom", "force_expected": "meV/Å"}
        lines = [table.rename(columns=units).to_string(index=False, float_format="{:.4g}".format, na_rep="–")]
        if len(self.trajectories) > len(table):
            lines.append(f"... and {len(self.trajectories) - len(table)} others, in {self.folder}/trajectories.csv")
        return "\n".join([*lines, *self.notes, self.answer])


def explore_dynamics(
    potential: Path | str,
    structures: Sequence[Path | str],
    out: Path | str,
    *,
    settings: learning.ExploreSettings | Mapping[str, Any] | None = None,
    save_grade: float = DEFAULT_SAVE_GRADE,
    save_errors: Mapping[str, float] | None = None,
    stop_errors: Mapping[str, float] | None = None,
    seed: int = 1,
    overwrite: bool = False,
    jobs: int = 1,
    progress: bool = False,
    allow_pickle: bool = False,
) -> Exploration:
    """Run molecular dynamics with a potential; measure grades and expected errors, and save frames that extrapolate.

    The temperature, volume, distances and extrapolation grade are checked during the dynamics (see
    `paretofit.learning.explore.run_md`); expected errors are computed for each frame. A stopped command resumes if it
    is started again with the same input: finished trajectories are not repeated.

    Parameters
    ----------
    potential : path-like
        Files or folder of a SNAP potential or committee, or folder of a MACE committee.
    structures : sequence of path-like
        Datasets or files that ASE reads, with start structures.
    out : path-like
        Folder for ``frames.csv``, ``trajectories.csv``, ``trajectories.extxyz`` (all frames) and
        ``extrapolating.extxyz`` (frames above a limit, with the grades of their atoms).
    settings : ExploreSettings or mapping, optional
        Conditions of the dynamics and ``stop_grade``, with keys as in 'learning.explore' of a study; by default 300 K
        and zero pressure. By default, ``trajectories`` is the number of start structures. The keys ``driver`` and
        ``start_structures`` have no effect: the mean of a committee drives the dynamics.
    save_grade : float
        Extrapolation grade above which a frame is saved; at most ``stop_grade``.
    save_errors, stop_errors : mapping of str to float, optional
        Expected errors above which a frame is saved, and above which a trajectory is stopped: "energy" (meV/atom),
        "force" (meV/Å), "stress" (GPa).
    seed : int
        Random seed of the start structures, conditions and velocities of the trajectories.
    overwrite : bool
        Replace existing files.
    jobs, progress
        Number of processes, and whether to show a progress bar.
    allow_pickle : bool
        Accept MACE networks that were not trained by this user on this computer. Loading them can run any code.

    Raises
    ------
    InputError
        If a file or setting cannot be used, a structure has an element that the potential lacks, an output exists, or a
        limit is not possible or requires a calibrated committee.
    """
    folder, settings = Path(out), _validate_settings(settings)
    outputs = [*(folder / f"{name}.csv" for name in TABLES), folder / FRAMES_FILE, folder / EXTRAPOLATING_FILE]
    check_new_paths(outputs, overwrite=overwrite)
    model = read_potential(potential, allow_pickle=allow_pickle)
    stop_errors, save_errors = dict(stop_errors or {}), dict(save_errors or {})
    _check_limits(model, settings, save_grade, save_errors, stop_errors)
    start_structures, names, notes = read_start_structures(model, structures)
    if "trajectories" not in settings.model_fields_set:
        settings = settings.model_copy(update={"trajectories": len(start_structures)})
    partial_folder = (folder / PARTIAL_FOLDER).absolute()
    committee = learning.Committee(model)
    engine = committee.build_md_engine(None, partial_folder / "potential")  # None: the mean of the committee
    # Trajectories of another seed, structure or committee in the partial folder are repeated.
    digest = hash_json([seed, [format_extxyz(atoms) for atoms in start_structures], _hash_committee(Path(potential))])
    monitor = learning.FrameMonitor.for_potential(model, stop_errors, digest)
    runs = learning.plan_runs(start_structures, settings, np.random.default_rng(seed))
    context, iteration = RunContext(jobs, progress), 0  # this command has no iterations
    records = learning.run_trajectories(runs, engine, settings, committee, partial_folder, iteration, context, monitor)
    frames = [atoms for record in records for atoms in _load_trajectory(partial_folder, record, names)]
    limits = {"grade": save_grade, **save_errors}
    frame_table = _tabulate_frames(records, names, limits)
    trajectories = _tabulate_trajectories(records, runs, names, frame_table)
    notes += _describe_error_bars(model, monitor)
    exploration = Exploration(frame_table, trajectories, limits, folder, model, notes)
    _write_exploration(exploration, frames)
    shutil.rmtree(partial_folder)
    return exploration


def _validate_settings(settings: learning.ExploreSettings | Mapping[str, Any] | None) -> learning.ExploreSettings:
    """Return valid settings; keys that a mapping lacks have the values of `DEFAULT_CONDITIONS`, if any."""
    if isinstance(settings, learning.ExploreSettings):
        return settings
    try:
        return learning.ExploreSettings.model_validate({**DEFAULT_CONDITIONS, **(settings or {})})
    except ValidationError as error:
        reason = format_validation_error(error, learning.ExploreSettings)
        raise InputError(f"the settings of the dynamics are not valid: {reason}") from error


def _check_limits(
    potential: LinearPotential | MacePotential,
    settings: learning.ExploreSettings,
    save_grade: float,
    save_errors: dict[str, float],
    stop_errors: dict[str, float],
) -> None:
    """Check that the limits are possible and that the potential supports them, before anything is computed."""
    if not 0 < save_grade <= settings.stop_grade:
        raise InputError(
            f"the grade above which frames are saved, {save_grade:g}, must be above zero and at most the grade that "
            f"stops a trajectory, {settings.stop_grade:g}; change --save-grade or --stop-grade"
        )
    if potential.uncertainty is None and (save_errors or stop_errors):
        raise InputError(
            "limits of expected errors (--max-energy, --stop-energy, ...) require a committee; fit the potential with "
            "--committee"
        )
    for limits in (save_errors, stop_errors):
        compute_spread_limits(potential.uncertainty, limits, "slope")  # raises for an impossible limit


def _hash_committee(path: Path) -> dict[str, str]:
    """Return the digest of each committee file of a potential by file name; grades and error bars depend on them."""
    files = sorted((path if path.is_dir() else path.parent).glob(f"*{COMMITTEE_SUFFIX}"))
    return {file.name: hash_file(file) for file in files}


def _load_trajectory(folder: Path, record: Mapping[str, Any], names: Sequence[str]) -> list[Atoms]:
    """Load the frames of a finished trajectory, with the start structure's name and the highest grade in their info."""
    path = folder / f"{record['number']:03d}.extxyz"
    frames = learning.load_frames(path, f"remove {path} to repeat the trajectory")
    for atoms in frames:
        atoms.info["start"] = names[atoms.info.pop("started_from")]  # an id of this command means nothing elsewhere
        atoms.info["config_type"] = "md"
        if "extrapolation_grade" in atoms.arrays:
            atoms.info["extrapolation_grade_max"] = float(atoms.arrays["extrapolation_grade"].max())
    return frames


def _tabulate_frames(
    records: Sequence[Mapping[str, Any]], names: Sequence[str], limits: Mapping[str, float]
) -> pd.DataFrame:
    """Tabulate the frames of all trajectories; the column ``above`` names the limits that a frame exceeds.

    A grade or expected error that is missing or NaN exceeds no limit.
    """
    rows = [
        {"trajectory": record["number"], "start": names[record["started_from"]], **row}
        for record in records
        for row in record.get("rows", [])
    ]
    # without frames, there are no rows from which pandas could take the columns
    table = pd.DataFrame(rows, columns=None if rows else ["trajectory", "start", "time_ps"])
    limited_columns = {name: "extrapolation_grade" if name == "grade" else f"{name}_expected" for name in limits}
    exceeded_limits = [
        [name for name, column in limited_columns.items() if row.get(column, 0.0) > limits[name]] for row in rows
    ]
    table["above"] = [" ".join(limit_names) for limit_names in exceeded_limits]
    return table


def _tabulate_trajectories(
    records: Sequence[Mapping[str, Any]], runs: Sequence[Any], names: Sequence[str], frames: pd.DataFrame
) -> pd.DataFrame:
    """Tabulate the trajectories, each with the highest grade and the largest expected errors of its frames."""
    rows = []
    for record, run in zip(records, runs, strict=True):
        row = {
            "trajectory": record["number"],
            "start": names[int(run.atoms.info["config_id"])],
            "temperature_k": run.temperature,
            "pressure_kbar": run.pressure if run.atoms.pbc.any() else float("nan"),
            "picoseconds": record["picoseconds"],
            "frames": record["frames"],
        }
        trajectory_frames = frames[frames["trajectory"] == record["number"]]
        for name, column in MAXIMUM_COLUMNS.items():
            row[name] = trajectory_frames[column].max() if column in trajectory_frames else float("nan")
        rows.append({**row, "ended": record["reason"]})
    return pd.DataFrame(rows)


def _describe_error_bars(potential: LinearPotential | MacePotential, monitor: learning.FrameMonitor) -> list[str]:
    """Return a list with a note on the error bars that a potential does not have; empty if it has all."""
    if potential.uncertainty is None:
        note = (
            "the potential has no committee, so that there are neither grades nor expected errors; fit one with "
            "'paretofit fit DATASET --committee 8', or train it with 'paretofit learn'"
        )
        return [note]
    uncalibrated_quantities = [quantity for quantity in KINDS if quantity not in monitor.calibrations]
    note = (
        f"the committee is not calibrated for {' and '.join(uncalibrated_quantities)}: it has standard deviations and "
        "grades, but no expected errors; fit it with held-out configurations that have these labels"
    )
    return [note] if uncalibrated_quantities else []


def _describe_limit(name: str, limit: float) -> str:
    """Describe a limit with its unit, such as "grade above 2"."""
    if name == "grade":
        return f"grade above {limit:g}"
    return f"expected {name} error above {limit:g} {DISPLAY_UNITS[KINDS[name]][1]}"


def _write_exploration(exploration: Exploration, frames: Sequence[Atoms]) -> None:
    """Write all frames, the extrapolating frames and the tables.

    If no frame extrapolates, remove the file of extrapolating frames of an earlier run.
    """
    learning.write_frames(exploration.folder / FRAMES_FILE, frames)
    extrapolating_frames = [
        atoms for atoms, exceeded_limits in zip(frames, exploration.frames["above"], strict=True) if exceeded_limits
    ]
    if extrapolating_frames:
        learning.write_frames(exploration.folder / EXTRAPOLATING_FILE, extrapolating_frames)
    else:
        remove_file(exploration.folder / EXTRAPOLATING_FILE)
    for name, table in zip(TABLES, (exploration.frames, exploration.trajectories), strict=True):
        write_csv(table, exploration.folder / f"{name}.csv", CSV_DIGITS)
