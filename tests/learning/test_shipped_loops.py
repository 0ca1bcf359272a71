"""The shipped loops of carbon and of an alloy run as printed, and improve on dynamics of the reference itself."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from paretofit.commands import learn
from paretofit.commands.active_learning import load_learn_study
from paretofit.core import lammps_calculator
from paretofit.learning import STAGES, LearnFolder, load_frames, plan_runs, select_start_structures
from paretofit.learning.explore import run_md
from paretofit.learning.learn_settings import ExploreSettings
from paretofit.learning.md_run import MdEngine
from paretofit.learning.selection import SCALES
from paretofit.learning.sets import is_always_training
from paretofit.potentials import LinearPotential

REFERENCE_RUNS = {"trajectories": 10, "temperature_k": [100, 2000], "pressure_kbar": [-20, 100], "time_ps": 1.0}
LOOP_ENDS = ("the maximum number of iterations", "no frame of the dynamics is above tolerance", "every frame above")


@pytest.fixture(scope="module", params=["learn_carbon", "learn_alloy"])
def loop(request, tmp_path_factory):
    """A finished loop, its folder and its study."""
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copytree(ROOT / "studies", folder / "studies")
    path = folder / "studies" / f"{request.param}.yaml"
    return learn(path, out=folder / "run", jobs=2), LearnFolder(folder / "run"), load_learn_study(path)


def reference_frames(folder, options):
    """Frames of dynamics of the labelling potential, from structures as in the loop, with its labels."""
    engine = MdEngine(tuple(options["commands"]), tuple(options["elements"]))
    settings = ExploreSettings.model_validate({**REFERENCE_RUNS, "interval_ps": 0.25})
    starts, _ = select_start_structures(load_frames(folder.path / "candidates.extxyz", ""), None)
    runs = plan_runs(starts, settings, np.random.default_rng(99))
    frames = [atoms for run in runs for atoms in run_md(run, engine, settings).frames[3:]]  # without the equilibration
    for atoms in frames:
        atoms.calc = lammps_calculator(**options)
    return frames


def measure_errors(potential, frames):
    """Root mean square errors of energies, forces and stresses: meV/atom, meV/Å, GPa."""
    squares = [[], [], []]
    for atoms in frames:
        prediction = potential.predict(atoms)
        squares[0].append([(float(np.mean(prediction.energy)) - atoms.get_potential_energy()) / len(atoms)])
        squares[1].append(
            np.ravel(np.reshape(prediction.forces, (-1, len(atoms), 3)).mean(axis=0) - atoms.get_forces())
        )
        if atoms.pbc.all():
            squares[2].append(np.reshape(prediction.stress, (-1, 6)).mean(axis=0) - atoms.get_stress())
    return SCALES * [np.sqrt(np.mean(np.concatenate(parts) ** 2)) for parts in squares]


@pytest.mark.slow
def test_shipped_loop_ends_with_stable_dynamics_and_lower_errors(loop):
    result, folder, study = loop
    assert result.stop_reason.startswith(LOOP_ENDS)
    explored = [k for k, _ in folder.read_records(STAGES[2])]
    trajectories = study.learning.explore.trajectories
    assert len(folder.get_iteration(max(explored)).read_record("explore")["events"]) <= 0.2 * trajectories
    frames = reference_frames(folder, study.labelling.engine.options)
    trained = [k for k, _ in folder.read_records("train")]
    first, last = (
        measure_errors(LinearPotential.read(folder.get_iteration(k).model_folder), frames)
        for k in (trained[0], trained[-1])
    )
    print(f"{study.name}: meV/atom, meV/Å, GPa, first and last iteration: {first.round(2)} {last.round(2)}")  # noqa: T201  (read after the run)
    assert (last < first).all()


@pytest.mark.slow
def test_every_kind_is_in_every_set(loop):
    _, folder, _ = loop
    sets = json.loads(folder.sets_path.read_text())["sets"]
    drawn = [atoms for atoms in load_frames(folder.path / "candidates.extxyz", "") if not is_always_training(atoms)]
    table = pd.DataFrame({"kind": [atoms.info["config_type"] for atoms in drawn],
                          "set": [sets[str(atoms.info["config_id"])] for atoms in drawn]})  # fmt: skip
    assert (pd.crosstab(table["kind"], table["set"]) > 0).all(axis=None)


@pytest.mark.slow
def test_errors_of_new_frames_are_predicted(loop):
    _, folder, _ = loop
    batches = [record["batch"] for k, record in folder.read_records("train") if k > 2]
    ratios = np.array([[batch[name]["ratio"] for name in ("energy", "forces")] for batch in batches])
    inside = np.array([[batch[name]["inside"] for name in ("energy", "forces")] for batch in batches])
    print(f"true / predicted: {ratios.round(2).tolist()}, below the bound: {inside.round(2).tolist()}")  # noqa: T201  (read after the run)
    assert np.abs(np.log(ratios)).max() < np.log(3.0)
    assert (np.exp(np.abs(np.log(np.median(ratios, axis=0)))) < 1.5).all()
    assert inside.mean() > 0.8
