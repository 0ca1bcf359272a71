"""Dynamics with an existing potential before the first iteration of a loop; its frames become candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from paretofit.descriptors import map_structures
from paretofit.execution import RunContext
from paretofit.learning.explore import plan_runs, select_start_structures
from paretofit.learning.frame_monitor import FrameMonitor
from paretofit.learning.learn_settings import LearnSettings, SelectSettings, ToleranceSettings
from paretofit.learning.loop_folder import load_frames
from paretofit.learning.model import Committee
from paretofit.learning.trajectories import describe_early_ends, run_trajectories
from paretofit.potentials import LinearPotential, MacePotential
from paretofit.structures import is_too_close

ABOVE_KEY = "above_tolerance"  # info key of a candidate: its properties with an expected error above tolerance
QUANTITIES = {"energy": "energy", "forces": "force", "stress": "stress"}  # quantities of a monitor, by property


def explore_with_initial_potential(
    potential: LinearPotential | MacePotential,
    candidates: Sequence[Atoms],
    start_structures: Sequence[Atoms],
    settings: LearnSettings,
    folder: Path,
    first_id: int,
    context: RunContext,
) -> tuple[list[Atoms], str]:
    """Run the dynamics of 'learning.explore' with an existing potential; return its frames as further candidates.

    A frame belongs to the group of its start structure; unphysical frames are discarded. If the potential is a
    calibrated committee, the info of each candidate and frame lists the properties whose expected error is above
    tolerance (`ABOVE_KEY`).

    Parameters
    ----------
    potential : LinearPotential or MacePotential
    candidates : sequence of ase.Atoms
        Candidates with a ``config_id``; their info is extended in place by a group ("family") and by `ABOVE_KEY`.
    start_structures : sequence of ase.Atoms
        Structures from which the dynamics can start.
    settings : LearnSettings
    folder : Path
        Folder to which trajectories are written; finished trajectories are not repeated.
    first_id : int
        ``config_id`` of the first frame.
    context : RunContext

    Returns
    -------
    frames : list of ase.Atoms
    message : str
        Numbers of trajectories and frames, and problems, as a phrase for the console.

    Raises
    ------
    InputError
        If no start structure has an allowed number of atoms, or a file of a trajectory is corrupt.
    """
    for atoms in candidates:
        atoms.info.setdefault("family", f"candidate:{atoms.info['config_id']}")
    selected_structures, _ = select_start_structures(start_structures, settings.explore.max_atoms)
    # the generator of the dynamics (3) in iteration 0, as in `LearningLoop`
    runs = plan_runs(selected_structures, settings.explore, np.random.default_rng([settings.seed, 0, 3]))
    committee, monitor = Committee(potential), FrameMonitor.for_potential(potential, {}, "")
    engine = committee.build_md_engine(None, folder.absolute() / "md")
    trajectories = folder.absolute() / "trajectories"
    records = run_trajectories(runs, engine, settings.explore, committee, trajectories, 0, context, monitor)
    frames: list[Atoms] = []
    n_frames = 0
    for record in records:
        path = trajectories / f"{record['number']:03d}.extxyz"
        rows = record.get("rows", [])
        for position, atoms in enumerate(load_frames(path, f"remove {path} to repeat the trajectory")):
            n_frames += 1
            atoms.arrays.pop("extrapolation_grade", None)  # grades of the initial potential, not of the loop's models
            # a frame without a row has no expected errors
            if _is_physical(atoms, rows[position] if position < len(rows) else {}, settings.select):
                atoms.info |= {"config_type": "md", "iteration": 1, "config_id": first_id + len(frames)}
                frames.append(atoms)
    n_early = sum(bool(record["reason"]) for record in records)
    phrases = [f"{len(runs)} trajectories with the initial potential, {n_frames} frames, {n_early} ended early"]
    if len(frames) < n_frames:
        phrases.append(f"{n_frames - len(frames)} of the frames discarded as unphysical")
    if monitor.calibrations:
        structures = [*candidates, *frames]
        assessments = map_structures(Committee.assess, committee, structures, "evaluate", context)
        for atoms, assessment in zip(structures, assessments, strict=True):
            properties_above = _list_properties_above(monitor.summarise(assessment), settings.select.tolerance)
            atoms.info[ABOVE_KEY] = " ".join(properties_above)
        n_above = sum(bool(atoms.info[ABOVE_KEY]) for atoms in structures)
        phrases.append(f"expected errors of {n_above} of {len(structures)} candidates and frames are above tolerance")
    return frames, "; ".join(filter(None, [*phrases, describe_early_ends(records)]))


def _is_physical(atoms: Atoms, row: Mapping[str, float], settings: SelectSettings) -> bool:
    """Check the distances of a frame, and the expected errors in its row, as in the selection of the loop."""
    return not (_list_properties_above(row, settings.discard_above) or is_too_close(atoms, settings.min_distance_ratio))


def _list_properties_above(row: Mapping[str, float], limits: ToleranceSettings) -> list[str]:
    """List the properties whose expected error in the row of a monitor is above its limit.

    Properties without an expected error are not listed.
    """
    return [
        name for name, quantity in QUANTITIES.items() if row.get(f"{quantity}_expected", 0.0) > getattr(limits, name)
    ]
