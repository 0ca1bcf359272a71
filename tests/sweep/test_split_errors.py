"""Errors of further splits: those of fits by hand, and of bootstrap samples of groups of test configurations."""

import numpy as np
import pytest

from paretofit import SnapBasis, compute_design, fit_wls
from paretofit.dataset import split_configurations
from paretofit.execution import RunContext
from paretofit.sweep import FurtherSplit, SweepGrid, SweepInput, compute_split_errors, list_draws, make_engine

SEED = 7
OMITTED = [(6, 4)]  # sizes and 2Jmax


@pytest.fixture(scope="module")
def computed(beryllium, tmp_path_factory):
    """The input, the grid and the errors of two further splits."""
    subset = beryllium.select(np.arange(0, 197, 3))
    path = tmp_path_factory.mktemp("splits") / "design.h5"
    design = compute_design(subset, SnapBasis(elements=["Be"], twojmax=4), path).with_labels(subset, subset.levels)
    groups = np.arange(len(subset)) // 2
    split, *further = (split_configurations(groups, 0.6, seed) for seed in (3, 4, 5))
    data = SweepInput(design, split.train, split.test, (150.0, 1.0), group=groups)
    grid = SweepGrid(["2", "5"], [2, 4], [(1.0, 1.0), (12.25, 1.0)], [6, 20, len(split.train)],
                     ["random", "block-leverage"], 2)  # fmt: skip
    splits = [FurtherSplit(one_split.train, one_split.test, SEED) for one_split in further]
    engine = make_engine(data, grid)
    return data, grid, splits, engine, compute_split_errors(engine, data, grid, splits, 30, RunContext(), OMITTED)


def test_errors_equal_those_of_fits_by_hand(computed):
    data, grid, splits, _, split_errors = computed
    design, X = data.design, data.design.read_all_rows()
    assert len(split_errors.settings) == 2 * 2 * 2 * (2 * 2 + 1) - 2 * 2 * 2
    split_data = SweepInput(design, splits[1].train, splits[1].test, (150.0, 1.0))
    sizes = [6, 20, len(splits[1].train)]
    split_grid = SweepGrid(grid.levels, grid.twojmax, grid.weights, sizes, grid.sampling_methods, 1, SEED)
    draws = list_draws(split_data, split_grid, split_data.compute_leverage_scores())
    subsets = {(draw.sampling, sizes.index(draw.n_train)): draw.configurations for draw in draws}
    test = np.isin(design.configuration, splits[1].test)
    for k, setting in split_errors.settings.iterrows():
        sampling = "random" if setting["sampling"] == "all" else setting["sampling"]
        members = subsets[sampling, list(grid.sizes).index(setting["n_train"])]
        rows, p = np.isin(design.configuration, members), design.count_columns_up_to(setting["twojmax"])
        y = design.targets[setting["level"]]
        fit = fit_wls(X[rows, :p], y[rows], design.kind[rows], energy_weight=setting["w_energy"])
        prediction = X[test, :p] @ fit.coefficients
        for label, name in (("5", "ref"), (setting["level"], "test")):
            residuals = 1000 * (prediction - design.targets[label][test])
            for number, kind in enumerate(("energy", "force")):
                rms = np.sqrt(np.mean(residuals[design.kind[test] == number] ** 2))
                assert split_errors.errors[f"{name}_{kind}"][1, 0, k] == pytest.approx(rms, rel=1e-5)


def test_samples_are_those_of_whole_groups(computed):
    """Each sample's mean squared error is a mean over groups with whole numbers as weights."""
    data, _, splits, engine, split_errors = computed
    groups = np.unique(data.group[splits[0].test])
    values = split_errors.errors["ref_force"][0].astype(float)
    assert len(np.unique(values[:, 0])) > 20
    spread = np.log(values[1:]).std(axis=0)
    assert 0.2 / np.sqrt(len(groups)) < np.median(spread) < 2 / np.sqrt(len(groups))
    two = compute_split_errors(engine, data, computed[1], splits, 30, RunContext(2), OMITTED)
    for name, array in two.errors.items():
        np.testing.assert_array_equal(array, split_errors.errors[name])
