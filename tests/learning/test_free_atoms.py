"""Energies of free atoms in the SNAP models of a loop: against equality-constrained least squares, at mixed levels."""

import json

import numpy as np
import pytest
import scipy.linalg
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from paretofit import Dataset, InputError
from paretofit.commands import learn
from paretofit.commands.active_learning import load_learn_study
from paretofit.core import RowKind, lammps_calculator
from paretofit.dataset import LevelData, write_dataset
from paretofit.execution import RunContext
from paretofit.learning import LearnFolder, LinearModel, SnapModelSettings
from paretofit.learning.set_balance import TRAIN, VALIDATE
from paretofit.learning.training_set import TrainingData
from paretofit.potentials import LinearPotential

ELEMENTS = ["Al", "Cu"]
FREE = {"cheap": {"Cu": -1.25, "Al": -2.75}, "good": {"Cu": -1.5, "Al": -2.25}}
EMT_FREE = {"Cu": 3.51, "Al": 3.28}
SETTINGS = {
    "twojmax": 2,
    "members": 3,
    "quadratic": False,
    "rcutfac": 4.0,
    "downweight": {"energy": None, "forces": None},
}


def make_training_data(folder, isolated):
    """Alloys at two levels; `isolated` has the element and the level of each labelled isolated atom."""
    rng, structures = np.random.default_rng(3), []
    for k in range(60):
        atoms = bulk("Cu", cubic=True, a=3.6 + 0.005 * k)
        atoms.symbols[rng.permutation(4)[: k % 5]] = "Al"
        atoms.rattle(0.1, seed=k)
        structures.append(atoms)
    level = ["cheap" if k % 2 else "good" for k in range(60)] + [name for _, name in isolated]
    structures += [Atoms(symbol) for symbol, _ in isolated]
    labels = {name: [{} for _ in structures] for name in FREE}
    for k, atoms in enumerate(structures):
        copy = atoms.copy()
        copy.calc = EMT()
        energy = sum(FREE[level[k]][symbol] - EMT_FREE[symbol] for symbol in atoms.symbols)
        labels[level[k]][k] = {"energy": energy + copy.get_potential_energy(), "forces": copy.get_forces()}
    write_dataset(folder / "d.h5", structures, {name: LevelData(rows) for name, rows in labels.items()})
    n = len(structures)
    sets = np.array([VALIDATE if 40 <= k < 60 else TRAIN for k in range(n)])
    data = Dataset(folder / "d.h5")
    (folder / "designs").mkdir()
    return TrainingData(data, sets, np.array(level), np.arange(n), np.ones(n, dtype=int), list(FREE), {})


def train(folder, isolated, **settings):
    data = make_training_data(folder, isolated)
    model = LinearModel(SnapModelSettings(**SETTINGS, **settings), ELEMENTS, folder / "designs")
    return data, model, model.train(data, folder / "model", seed=1, context=RunContext())


def solve_by_hand(data, model, isolated):
    """Solve for the coefficients and the offsets of the cheap level, by an orthogonal basis of the null space."""
    ((_, design),) = model._load_or_compute_designs(data, RunContext())
    p, configuration = design.n_features, design.configuration
    is_cheap = data.level[configuration] == "cheap"
    is_energy = design.kind == RowKind.ENERGY
    X = np.hstack([design.read_all_rows(), design.read_all_rows()[:, :2] * (is_cheap & is_energy)[:, None]])
    y = np.where(is_cheap, design.targets["cheap"], design.targets["good"])
    w = np.where(is_energy, 12.25, 1.0)
    is_fitted = (data.sets[configuration] == TRAIN) & (configuration < 60)
    A = np.zeros((len(isolated), p + 2))
    for row, (symbol, level) in zip(A, isolated, strict=True):
        row[ELEMENTS.index(symbol)] = 1.0
        row[p + ELEMENTS.index(symbol)] = level == "cheap"
    b = np.array([FREE[level][symbol] for symbol, level in isolated])
    particular, null = scipy.linalg.lstsq(A, b)[0], scipy.linalg.null_space(A)
    X, y = (X * w[:, None])[is_fitted], (y * w)[is_fitted]
    return particular + null @ scipy.linalg.lstsq(X @ null, y - X @ particular)[0]


@pytest.mark.parametrize(
    "isolated",
    [
        [("Cu", "good"), ("Al", "good")],
        [("Cu", "cheap"), ("Al", "cheap")],
        [("Cu", "good"), ("Cu", "cheap"), ("Al", "good")],
        [("Al", "cheap")],
    ],
)
def test_models_are_the_equality_constrained_fits(tmp_path, isolated):
    data, model, result = train(tmp_path, isolated)
    expected = solve_by_hand(data, model, isolated)
    coefficients = result.committee.potential.mean_coefficients
    assert coefficients == pytest.approx(expected[:-2], rel=1e-8, abs=1e-8)
    offsets = [result.offsets["cheap", symbol] for symbol in ELEMENTS]
    assert offsets == pytest.approx(expected[-2:], abs=1e-8)
    potential = LinearPotential.read(tmp_path / "model")
    for symbol, level in isolated:
        energies = potential.predict(Atoms(symbol)).energy + (
            result.offsets["cheap", symbol] if level == "cheap" else 0
        )
        assert energies.mean() == pytest.approx(FREE[level][symbol], abs=1e-8)
        if (symbol, level) == ("Cu", "good"):
            assert np.ptp(energies) < 1e-9
            assert "exact energies of free atoms of Cu" in result.description
            assert potential.assess(Atoms("Cu")).grade <= 1 + 1e-6
    leverages = potential.compute_atom_leverages(bulk("Cu"))
    assert np.isfinite(leverages).all()


def test_fitted_energies_use_isolated_atoms_as_ordinary_rows(tmp_path):
    _, _, result = train(tmp_path, [("Cu", "good")], reference_energies="fitted")
    assert "exact" not in result.description
    assert abs(result.committee.potential.without_uncertainty().predict(Atoms("Cu")).energy + 1.5) > 1e-4


def test_energies_that_are_given_replace_labels(tmp_path):
    _, _, result = train(tmp_path, [("Cu", "good")], reference_energies={"Cu": -1.75})
    assert result.committee.potential.predict(Atoms("Cu")).energy == pytest.approx(np.full(3, -1.75), abs=1e-8)


def test_isolated_atoms_of_all_elements_can_be_required(tmp_path):
    with pytest.raises(
        InputError, match="'learning.model.reference_energies: isolated' .* isolated atom of Al; add it"
    ):
        train(tmp_path, [("Cu", "good")], reference_energies="isolated")


def write_loop(folder, **model):
    bulk("W", cubic=True).write(folder / "W.cif")
    commands = ["pair_style eam/alloy", "pair_coeff * * W_zhou.eam.alloy W"]
    engine = {"name": "ase", "calculator": "paretofit.lammps_calculator",
              "options": {"commands": commands, "elements": ["W"]}}  # fmt: skip
    content = {
        "labelling": {"engine": engine, "ladder": [{"name": "eam"}]},
        "augmentation": {"structures": ["W.cif"], "n_candidates": 24, "min_length": 5, "max_atoms": 16,
                         "clusters": {"count": 0}, "slabs": {"miller_indices": []}},
        "learning": {"max_iterations": 1, "model": {"twojmax": 4, "members": 4, **model},
                     "sets": {"train": 0.6, "validation": 0.2, "test": 0.2},
                     "explore": {"trajectories": 1, "time_ps": 0.1, "interval_ps": 0.1}},
    }  # fmt: skip
    (folder / "s.yaml").write_text(yaml.safe_dump(content))
    return folder / "s.yaml", lammps_calculator(commands, ["W"])


@pytest.mark.slow
def test_the_free_atom_of_a_loop_is_exact(tmp_path):
    path, reference = write_loop(tmp_path)
    result = learn(path, out=tmp_path / "run")
    atoms = Atoms("W", cell=[40.0] * 3, pbc=True, calculator=reference)
    expected = atoms.get_potential_energy()
    assert LinearPotential.read(result.potential).predict(Atoms("W")).energy == pytest.approx(np.full(4, expected))
    record = json.loads((LearnFolder(result.folder).get_iteration(1).path / "train.json").read_text())
    assert "exact energies of free atoms of W" in record["message"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"Cu": -1.0}, "'learning.model.reference_energies' has Cu; the structures have W"),
        ({"eam": {"W": -1.0}}, "reference_energies': must be energies of the best level by element"),
        ("isolatd", "must be auto, isolated, fitted, or energies in eV by element"),
    ],
)
def test_wrong_settings_of_a_loop_are_refused(tmp_path, setting, message):
    path, _ = write_loop(tmp_path, reference_energies=setting)
    with pytest.raises(InputError, match=message):
        learn(load_learn_study(path), out=tmp_path / "run")
