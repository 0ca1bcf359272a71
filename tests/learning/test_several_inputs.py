"""Loops that start from several structures: sets without leaks, represented kinds, and dynamics that live."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule, nanotube
from conftest import ROOT

from paretofit.commands.active_learning import load_learn_study
from paretofit.commands.learn_start import _number_structures, start_loop
from paretofit.execution import RunContext
from paretofit.learning import LearnFolder
from paretofit.learning.explore import plan_runs, run_md, select_start_structures
from paretofit.learning.learn_settings import ExploreSettings
from paretofit.learning.md_run import MdEngine
from paretofit.learning.set_balance import TEST, TRAIN, VALIDATE
from paretofit.learning.sets import assign_sets, describe_missing_categories, get_stratum, is_always_training
from paretofit.learning.trajectories import describe_early_ends
from paretofit.structures import AugmentSettings, generate_candidates

SHARES = {TRAIN: 0.8, VALIDATE: 0.1, TEST: 0.1}
KEYS = ["family", "trajectory"]
TERSOFF = MdEngine(("pair_style tersoff", "pair_coeff * * SiC.tersoff C"), ("C",))


def carbon() -> dict[str, Atoms]:
    sheet = graphene(vacuum=7.0)
    sheet.pbc = (True, True, False)
    tube = nanotube(5, 0, bond=1.42)
    tube.center(vacuum=7.0, axis=(0, 1))
    tube.pbc = (False, False, True)
    ball = molecule("C60")
    ball.center(vacuum=7.0)
    ball.pbc = False
    return {"diamond": bulk("C", "diamond", cubic=True), "sheet": sheet, "tube": tube, "C60": ball}


def alloy() -> dict[str, Atoms]:
    b2 = bulk("NiAl", "cesiumchloride", a=2.88)
    l12 = bulk("Ni", "fcc", a=3.57, cubic=True)
    l12.symbols[0] = "Al"
    slab = fcc111("Ni", (2, 2, 3), vacuum=7.0)
    slab.pbc = (True, True, False)
    return {"B2": b2, "L12": l12, "Ni": bulk("Ni"), "Al": bulk("Al"), "slab": slab}


def candidates(inputs: dict[str, Atoms], n: int = 120) -> list[Atoms]:
    settings = AugmentSettings.model_validate({"n_candidates": n, "min_length": 4.0, "max_atoms": 60})
    *_, result = generate_candidates(list(inputs.values()), list(inputs), settings)
    return _number_structures(result.structures, 1000, "augmented")


@pytest.mark.parametrize("inputs", [carbon, alloy, lambda: dict(list(alloy().items())[:2])])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_relatives_share_a_set_and_each_set_has_every_kind_and_input(inputs, seed):
    structures = candidates(inputs())
    sets = assign_sets(structures, {}, SHARES, KEYS, np.random.default_rng(seed))
    by_id = {atoms.info["config_id"]: atoms for atoms in structures}
    n_children = 0
    for atoms in structures:
        parent = atoms.info.get("parent")
        if parent in by_id and not is_always_training(by_id[parent]):
            n_children += 1
            assert sets[parent] == sets[atoms.info["config_id"]]
    assert n_children > 10
    kinds, names, kind_groups = defaultdict(set), defaultdict(set), defaultdict(set)
    for atoms in structures:
        kind, name = get_stratum(atoms)
        if is_always_training(atoms):
            assert sets[atoms.info["config_id"]] == TRAIN
            continue
        names[name].add(sets[atoms.info["config_id"]])
        for label in (kind, f"{atoms.pbc.sum()}D"):
            kinds[label].add(sets[atoms.info["config_id"]])
            kind_groups[label].add(atoms.info["family"])
    large_kinds = {kind for kind, groups in kind_groups.items() if len(groups) >= 3}
    assert {"distorted (3D)", "strained (3D)", "cluster (0D)", "distorted (2D)", "3D"} <= large_kinds
    assert all(kinds[kind] == {TRAIN, VALIDATE, TEST} for kind in large_kinds)
    assert all(set_names == {TRAIN, VALIDATE, TEST} for set_names in names.values())
    counts = Counter(sets.values())
    assert 0.08 < counts[VALIDATE] / len(sets) < 0.2
    assert 0.08 < counts[TEST] / len(sets) < 0.2


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("n", [30, 45, 60])
def test_sets_of_small_loops_keep_their_shares(n, seed):
    """Representing every kind leaves most of few candidates to training; a kind of one periodicity may be missing."""
    inputs = alloy()
    structures = candidates({"B2": inputs["B2"], "Ni": inputs["Ni"], "film": inputs["slab"]}, n)
    sets = assign_sets(structures, {}, SHARES, KEYS, np.random.default_rng(seed))
    counts = Counter(sets.values())
    assert counts[TRAIN] >= 0.6 * len(sets)
    assert min(counts[VALIDATE], counts[TEST]) >= 0.08 * len(sets)
    category_sets = defaultdict(set)
    for atoms in structures:
        if not is_always_training(atoms):
            for category in {atoms.info["config_type"], atoms.info.get("input"), f"{atoms.pbc.sum()}D"} - {None}:
                category_sets[category].add(sets[atoms.info["config_id"]])
    note = describe_missing_categories(structures, sets, KEYS)
    for category, set_names in category_sets.items():
        assert (set_names == {TRAIN, VALIDATE, TEST}) != (f"'{category}'" in note)
    if n > 30:  # the film has one or two groups, all other categories are in every set
        assert note.startswith("not in every set, because there are few groups: input 'film'")
        assert note.count("(") == 1


def test_kinds_with_too_few_groups_are_named():
    structures = candidates(carbon(), 40)
    sets = assign_sets(structures, {}, SHARES, KEYS, np.random.default_rng(0))
    only_two = [atoms for atoms in structures if atoms.info["config_type"] != "slab"]
    only_two += [atoms for atoms in structures if atoms.info["config_type"] == "slab"][:2]
    sets = assign_sets(only_two, {}, SHARES, KEYS, np.random.default_rng(0))
    note = describe_missing_categories(only_two, sets, KEYS)
    assert "kind 'slab' (2 groups)" in note
    assert "distorted" not in note


def test_ids_of_parents_follow_the_new_numbers():
    structures = candidates(carbon(), 60)
    vacancies = [atoms for atoms in structures if atoms.info["config_type"] == "vacancy"]
    by_id = {atoms.info["config_id"]: atoms for atoms in structures}
    assert vacancies
    for atoms in vacancies:
        parent = by_id[atoms.info["parent"]]
        assert len(parent) == len(atoms) + 2
        assert (parent.info["family"], parent.info["input"]) == (atoms.info["family"], atoms.info["input"])


def test_ids_of_another_loop_are_dropped():
    atoms = bulk("W")
    atoms.info = {"config_id": 3, "started_from": 1000}
    (copy,) = _number_structures([atoms], 50, "file")
    assert copy.info == {"config_id": 50, "iteration": 1}


def test_duplicates_in_another_order_and_orientation_share_a_set():
    rng = np.random.default_rng(0)
    structures = []
    for k in range(60):
        atoms = bulk("W", cubic=True).repeat(2)
        atoms.rattle(0.1, rng=rng)
        atoms.info = {"config_id": 2 * k, "config_type": "distorted", "family": f"a{k}"}
        copy = atoms[rng.permutation(len(atoms))]
        copy.rotate(37, "z", rotate_cell=True)
        copy.info = {"config_id": 2 * k + 1, "config_type": "distorted", "family": f"b{k}"}
        structures += [atoms, copy]
    sets = assign_sets(structures, {}, SHARES, KEYS, rng)
    assert all(sets[2 * k] == sets[2 * k + 1] for k in range(60))


def test_every_kind_of_every_input_starts_dynamics():
    structures = candidates(carbon())
    starts, note = select_start_structures(structures, None)
    strata = {get_stratum(atoms) for atoms in structures if len(atoms) > 1}
    drawn = plan_runs(starts, ExploreSettings(trajectories=len(strata)), np.random.default_rng(0))
    assert {get_stratum(run.atoms) for run in drawn} == strata
    assert note == ""
    _, note = select_start_structures(structures, 59)
    assert "molecule (0D) of C60" in note
    assert "'learning.explore.max_atoms'" in note


def test_dynamics_of_distorted_carbon_under_the_reference_itself_live():
    """Ten of ten trajectories live; without an equilibration, six of ten end because their atoms heat up."""
    from paretofit.core import lammps_calculator

    lammps_calculator(TERSOFF.commands, TERSOFF.elements)
    structures = candidates(carbon())
    starts = [atoms for atoms in structures if atoms.info["config_type"] in {"distorted", "vacancy"}]
    settings = ExploreSettings(trajectories=10, temperature_k=[100, 1000], time_ps=0.5, interval_ps=0.25)
    runs = plan_runs(starts, settings, np.random.default_rng(0))
    trajectories = [run_md(run, TERSOFF, settings) for run in runs]
    assert [trajectory.reason for trajectory in trajectories] == [""] * 10
    assert all(trajectory.times == pytest.approx([-0.2, -0.1, 0.0, 0.25, 0.5], abs=0.01) for trajectory in trajectories)


def test_many_early_ends_are_explained():
    records = [{"reason": "the temperature reached 5000 K"}] * 4 + [{"reason": ""}] * 3
    text = describe_early_ends(records)
    assert text.startswith("4 of 7 trajectories ended early, 4 because the temperature reached … K; ")
    assert "equilibration_ps" in text
    assert describe_early_ends(records[2:]) == ""


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path, id=path.stem, marks=[pytest.mark.slow] if path.stem in {"learn_carbon", "learn_alloy"} else []
        )
        for path in sorted((ROOT / "studies").glob("learn_*.yaml"))
    ],
)
def test_shipped_loops_do_not_leak(path, tmp_path):
    """No configuration of validation and test sets has a relative in training, frames of dynamics included."""
    settings = load_learn_study(path)
    structures = start_loop(settings, LearnFolder(tmp_path), RunContext())
    keys, shares = settings.learning.sets.group_by, settings.learning.sets
    shares = {TRAIN: shares.train, VALIDATE: shares.validation, TEST: shares.test}
    rng = np.random.default_rng(1)
    sets = assign_sets(structures, {}, shares, keys, rng)
    starts, note = select_start_structures(structures, settings.learning.explore.max_atoms)
    assert note == ""
    last_id = max(sets)
    frames = []
    for k, run in enumerate(plan_runs(starts, settings.learning.explore, rng)):
        frame = run.atoms.copy()
        frame.rattle(0.05, seed=k)
        frame.info = {key: run.atoms.info[key] for key in ("input", "family") if key in run.atoms.info}
        if is_always_training(run.atoms):
            frame.info.pop("family", None)
        frame.info |= {"config_id": last_id + 1 + k, "config_type": "md", "trajectory": f"01-{k:03d}",
                       "started_from": run.atoms.info["config_id"]}  # fmt: skip
        frames.append(frame)
    everything = structures + frames
    sets = assign_sets(everything, sets, shares, keys, rng)
    relatives = defaultdict(set)
    for atoms in everything:
        if not is_always_training(atoms):
            relatives[atoms.info.get("family", atoms.info.get("trajectory"))].add(sets[atoms.info["config_id"]])
    assert all(len(names) == 1 for names in relatives.values())
    for frame in frames:
        assert sets[frame.info["config_id"]] == sets[frame.info["started_from"]]
    assert {sets[frame.info["config_id"]] for frame in frames} >= {TRAIN}


@pytest.mark.parametrize(
    "atoms", [bulk("Fe", cubic=True), bulk("C", "diamond", cubic=True), bulk("Be"), bulk("NaCl", "rocksalt", a=5.6)]
)
def test_example_of_the_readme_works_with_small_inputs(atoms):
    """The thickest slab that fits is made, and one that cannot be made is named, with its reason."""
    settings = AugmentSettings.model_validate({"n_candidates": 60, "min_length": 3, "max_atoms": 8})
    *_, result = generate_candidates([atoms], ["input"], settings)
    assert len(result.structures) == 60
    n_slabs = sum(structure.info["config_type"] == "slab" for structure in result.structures)
    skipped = [reason for kind, reason in result.skipped.items() if kind.startswith("slab")]
    rejected = sum(count for (kind, _), count in result.rejected.items() if kind == "slab")
    assert n_slabs + len(skipped) + rejected == 3
    assert all("raise 'max_atoms'" in reason for reason in skipped)
