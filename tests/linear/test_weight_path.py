"""The weight path: at every ratio the curve is a fit, and its knee is where a known curve bends."""

import numpy as np
import pytest

from paretofit import InputError, SnapBasis, compute_design
from paretofit.dataset import split_configurations
from paretofit.linear import WeightPath, compute_weight_path
from paretofit.sweep import SweepGrid, SweepInput, compute_weight_paths, make_engine, run_sweep

RATIOS = [0.5, 3.0, 40.0, 800.0]


@pytest.fixture(scope="module")
def engine_and_table(beryllium, tmp_path_factory):
    path = tmp_path_factory.mktemp("path") / "design.h5"
    design = compute_design(beryllium, SnapBasis(elements=["Be"], twojmax=6), path).with_labels(beryllium, ["3", "5"])
    split = split_configurations(np.arange(len(beryllium)), 0.7, 1)
    data = SweepInput(design, split.train, split.test)
    grid = SweepGrid(["3", "5"], [4, 6], [(ratio, 1.0) for ratio in RATIOS], [138], ["random"], 1)
    engine = make_engine(data, grid)
    return engine, grid, run_sweep(data, grid, engine="plain")


@pytest.mark.parametrize("twojmax", [4, 6])
@pytest.mark.parametrize("ratio", RATIOS)
def test_every_point_of_the_path_is_a_fit(engine_and_table, twojmax, ratio):
    engine, _, table = engine_and_table
    limits = (ratio, 900.0) if ratio < 100 else (0.4, ratio)
    path = compute_weight_path(
        engine.reduction,
        engine.reduction.train,
        engine.get_size_index(twojmax),
        ratio_limits=limits,
        n_points=5,
    )
    position = 0 if ratio < 100 else -1
    fits = table[(table["twojmax"] == twojmax) & (table["w_energy"] == ratio)]
    for error_type, column in (("train", "train"), ("test", "test"), ("reference", "ref")):
        assert 1000 * path.energy[error_type][position] == pytest.approx(fits[f"{column}_energy"].to_numpy(), rel=1e-8)
        assert 1000 * path.force[error_type][position] == pytest.approx(fits[f"{column}_force"].to_numpy(), rel=1e-8)


def test_more_energy_weight_never_raises_the_energy_error_in_training(engine_and_table):
    engine, grid, _ = engine_and_table
    paths, knees = compute_weight_paths(engine, grid)
    for _, curve in paths.groupby(["twojmax", "level"]):
        assert (np.diff(curve["weight_ratio"]) > 0).all()
        assert (np.diff(curve["train_energy"]) <= 1e-9).all()
        assert (np.diff(curve["train_force"]) >= -1e-9).all()
    assert len(knees) == 4
    low = np.minimum(knees["ratio_of_lowest_energy"], knees["ratio_of_lowest_force"])
    high = np.maximum(knees["ratio_of_lowest_energy"], knees["ratio_of_lowest_force"])
    assert knees["knee_ratio"].between(low, high).all()


def hyperbola(ratio):
    """Energy error falls as 1/ratio to a floor, force error rises with it from one: they bend at ratio 1."""
    return WeightPath(ratio, {"reference": (1 + 1 / ratio)[:, None]}, {"reference": (1 + ratio)[:, None]})


def test_knee_and_preference_of_a_known_curve():
    path = hyperbola(np.geomspace(1e-3, 1e3, 601))
    assert path.find_knee_ratio(0) == pytest.approx(1.0, rel=0.02)
    for preference in (0.25, 1.0, 9.0):  # minimum of 1/r + r/preference
        assert path.find_best_ratio(0, preference) == pytest.approx(np.sqrt(preference), rel=0.02)


def test_wrong_input_to_the_path(engine_and_table):
    engine, _, _ = engine_and_table
    with pytest.raises(InputError, match="ratio_limits must be positive and ascending"):
        compute_weight_path(engine.reduction, engine.reduction.train, 0, ratio_limits=(10.0, 1.0))
    with pytest.raises(InputError, match="requires energy rows and force rows"):
        compute_weight_path(engine.reduction, engine.reduction.create_factors(), 0)
    with pytest.raises(InputError, match="force_per_energy must be a positive number"):
        hyperbola(np.array([1.0, 2.0])).find_best_ratio(0, 0.0)
