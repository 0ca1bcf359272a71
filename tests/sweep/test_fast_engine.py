"""The fast engine against the plain fit, for real and for degenerate data."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from helpers.faults import flip
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from paretofit import DesignMatrix, InputError, SnapBasis, compute_design, fit_wls, leverage_scores
from paretofit.core import RowKind
from paretofit.dataset import split_configurations
from paretofit.descriptors import constrain_free_atoms
from paretofit.linear import Reduction, choose_ridge, compute_reduced_leverage, leave_one_out
from paretofit.linear.reduction import (
    RawFactors,
    RowBlock,
    RowFactors,
    ThreadMapper,
    iterate_blocks,
    prefetch,
    split_rows,
)
from paretofit.sweep import SweepGrid, SweepInput, list_draws, make_engine, run_sweep
from paretofit.sweep.cells import list_pending_fits
from paretofit.sweep.results import TRAIN_REFERENCE_COLUMNS

ERRORS = ["train_energy", "train_force", "test_energy", "test_force", "ref_energy", "ref_force", "ref_energy_shifted"]
ERRORS += TRAIN_REFERENCE_COLUMNS
LOO = ["loo_energy", "loo_force", "loo_ref_energy", "loo_ref_force"]


@pytest.fixture(scope="module")
def real(beryllium, tmp_path_factory):
    """Return the shipped data at 2Jmax up to 8."""
    path = tmp_path_factory.mktemp("fast") / "design.h5"
    design = compute_design(beryllium, SnapBasis(elements=["Be"], twojmax=8), path)
    split = split_configurations(np.arange(len(beryllium)), 0.7, 1)
    return SweepInput(design.with_labels(beryllium, beryllium.levels).load_into_memory(), split.train, split.test)


def make_parts(data, levels, size=500):
    train = np.isin(data.design.configuration, data.train)
    Y = data.stack_targets(levels)

    def blocks(part):
        for window, X in data.design.iterate_blocks(size, part):
            yield RowBlock(X, Y[window], data.design.kind[window], data.design.configuration[window], train[window])

    return [partial(blocks, part) for part in split_rows(data.design.n_rows, data.design.n_features)]


def compare(data, grid, tight=1e-8, loose=1e-6, columns=ERRORS):
    """Check the largest relative difference of every error, for fits of full rank and for the others."""
    fast, plain = run_sweep(data, grid), run_sweep(data, grid, engine="plain")
    assert fast[["level", "n_train", "sampling", "n_features"]].equals(
        plain[["level", "n_train", "sampling", "n_features"]]
    )
    condition = np.maximum(plain["condition"], fast["condition"]).to_numpy()
    is_determined = condition < 1e12  # above it, the rank is in doubt
    full_rank = (fast["solver"] == "factor").to_numpy()
    # Few configurations leave directions undetermined, in which all fits are sensitive to rounding: against a fit in
    # extended precision, both engines err by 2e-6 at a condition number of 1e11. Of rank-deficient fits at 3e11, the
    # fast engine errs by 3e-6 and the plain one by 1e-5. The residuals of a fit that reproduces all rows are pure
    # rounding, and the plain fit itself is accurate only to about 1e-12 eV.
    few = (fast["n_train"] < 20).to_numpy()
    rounding = np.where(few, 1e-15, np.where(full_rank, 0.0, 1e-16)) * condition
    tolerance = np.maximum(np.where(full_rank, tight, loose), rounding)
    noise = np.where(few, 1e-6, np.where(full_rank, 1e-9, 1e-8))
    for column in columns:
        ours, theirs = fast[column].to_numpy(), plain[column].to_numpy()
        assert (np.isnan(ours) == np.isnan(theirs)).all()
        difference = np.maximum(np.abs(ours - theirs) - noise, 0) / np.where(theirs > 0, theirs, 1)
        assert (np.isnan(ours) | (difference < tolerance) | ~is_determined).all(), column
    certain = full_rank & is_determined
    assert (fast.loc[certain, "rank"] == plain.loc[certain, "rank"]).all()
    return fast, plain


@pytest.mark.parametrize(
    ("weights", "sizes", "samplings"),
    [
        ([1.0, 1000.0], [20, 60, 138], ["random"]),
        pytest.param(
            [1.0, 12.25, 150.0, 1000.0], [20, 45, 100, 138], ["random", "block-leverage"], marks=pytest.mark.slow
        ),
    ],
)
def test_engines_agree_on_real_data_for_weights_1_to_1000(real, weights, sizes, samplings):
    grid = SweepGrid(list("12345"), [4, 6, 8], [(w, 1.0) for w in weights], sizes, samplings, 1)
    fast, _ = compare(replace(real, n_leverage_columns=120), grid)
    solvers = fast.groupby("solver").size()
    assert set(solvers.index) == {"factor", "rank-revealing"}, "small subsets of large models have fewer rows"
    assert solvers["factor"] > 0.4 * len(fast)


def test_subsets_that_grow_by_gram_matrices_agree_with_the_plain_engine(real):
    data = replace(real, n_leverage_columns=120)
    grid = SweepGrid(list("135"), [2, 4], [(w, 1.0) for w in (1.0, 12.25, 1000.0)], [40, 80, 110, 130], ["random"], 1)
    engine, draws = make_engine(data, grid), list_draws(data, grid, None)
    (chain,) = engine.build_tasks(list_pending_fits(grid, draws, {}))
    with threadpool_limits(1):
        is_gram = [factors.by_kind[RowKind.FORCE].is_gram for _, factors in engine.grow_chain(chain)]
    assert not is_gram[0]
    assert is_gram[-1]
    compare(data, grid)


def test_a_subset_whose_gram_matrix_is_not_accurate_is_folded_again(real, monkeypatch):
    data = replace(real, n_leverage_columns=120)
    grid = SweepGrid(["5"], [4], [(12.25, 1.0)], [80, 110, 130], ["random"], 1)
    monkeypatch.setattr(RowFactors, "is_accurate", lambda factors: False)
    folded_again = run_sweep(data, grid)
    monkeypatch.setattr(RowFactors, "convert_to_gram", lambda factors: None)
    pd.testing.assert_frame_equal(run_sweep(data, grid), folded_again, check_exact=True)


@pytest.mark.slow
def test_the_smallest_errors_against_extended_precision(real):
    """Training errors far below a meV, where the plain fit's residuals are mostly rounding."""
    grid = SweepGrid(list("12345"), [8], [(1000.0, 1.0)], [138], ["random"], 1)
    data = replace(real, n_leverage_columns=120)
    ours = run_sweep(data, grid)
    assert (ours["solver"] == "factor").all()
    assert ours["train_energy"].min() < 1e-3
    rows = data.find_row_indices(data.train)
    kind = data.design.kind[rows]
    w = np.where(kind == 0, 1000.0, 1.0)[:, None].astype(np.longdouble)
    X = data.design.read_rows(rows, data.design.count_columns_up_to(8)).astype(np.longdouble)
    Y = data.stack_targets(list(grid.levels))[rows].astype(np.longdouble)
    scale = np.sqrt(((X * w) ** 2).sum(axis=0))
    A = X * w / scale
    Q, R = np.linalg.qr(A.astype(float))
    beta = np.zeros((A.shape[1], Y.shape[1]), dtype=np.longdouble)
    for _ in range(5):  # refined with residuals in extended precision
        beta += np.linalg.solve(R, Q.T @ (Y * w - A @ beta).astype(float))
    exact = 1000 * np.sqrt((((Y - X / scale @ beta)[kind == 0]) ** 2).mean(axis=0))
    assert ours["train_energy"].to_numpy() == pytest.approx(exact.astype(float), rel=1e-8)


@pytest.mark.parametrize("size", [45, pytest.param(120, marks=pytest.mark.slow)])
def test_ill_conditioned_subsets_against_extended_precision(real, size):
    """Where the plain fit's own rounding is the limit: condition numbers of the rows up to 1e10."""
    grid = SweepGrid(["3", "5"], [6], [(1.0, 1.0), (1000.0, 1.0)], [size], ["random"], 1)
    data = replace(real, n_leverage_columns=120)
    table = run_sweep(data, grid)
    (draw,) = list_draws(data, grid, None)
    rows, p = data.find_row_indices(draw.configurations), data.design.count_columns_up_to(6)
    test = data.find_row_indices(data.test)
    X, T = (data.design.read_rows(index, p).astype(np.longdouble) for index in (rows, test))
    Y, Y_test = (data.stack_targets(["3", "5"])[index].astype(np.longdouble) for index in (rows, test))
    for weight, fits in table.groupby("w_energy"):
        w = np.where(data.design.kind[rows] == 0, weight, 1.0)[:, None].astype(np.longdouble)
        beta = solve_in_extended_precision(X * w, Y * w)
        residual = (T @ beta - Y_test)[data.design.kind[test] == 1]
        exact = 1000 * np.sqrt((residual**2).mean(axis=0)).astype(float)
        assert fits["test_force"].to_numpy() == pytest.approx(exact, rel=1e-8)


def solve_in_extended_precision(A, Y):
    """Least squares by Householder reflections in extended precision, in columns of unit norm."""
    scale = np.sqrt((A**2).sum(axis=0))
    R, C = A / scale, Y.copy()
    for k in range(R.shape[1]):
        v = R[k:, k].copy()
        v[0] += np.copysign(np.sqrt(v @ v), v[0])
        v /= np.sqrt(v @ v)
        R[k:, k:] -= 2 * np.outer(v, v @ R[k:, k:])
        C[k:] -= 2 * np.outer(v, v @ C[k:])
    x = np.zeros_like(C[: R.shape[1]])
    for k in range(R.shape[1] - 1, -1, -1):
        x[k] = (C[k] - R[k, k + 1 :] @ x[k + 1 :]) / R[k, k]
    return x / scale[:, None]


def test_folds_and_bootstrap_samples_are_factors(real):
    """A test factor of a fold, and a fit in which configurations count several times, equal fits of their rows."""
    data = replace(real, n_leverage_columns=120)
    grid = SweepGrid(["3", "5"], [4], [(12.25, 1.0)], [138], ["random"], 1)
    engine, (train, fold) = make_engine(data, grid), np.split(data.train, [100])
    counts = np.random.default_rng(3).integers(0, 4, len(train))
    index, weights = engine.get_size_index(4), np.array([12.25, 1.0, 1.0])
    Y, design = data.stack_targets(["3", "5"]), data.design
    for multiplicity in (None, counts):
        factors = engine.grow(engine.reduction.create_factors(), train, multiplicity)
        held_out = engine.grow(engine.reduction.create_factors(), fold)
        fit = factors.apply_weights(weights).fit(index)
        members = np.repeat(train, 1 if multiplicity is None else multiplicity)
        rows = np.concatenate([data.find_row_indices([member]) for member in members])
        plain = fit_wls(design.read_rows(rows, 120), Y[rows], design.kind[rows], energy_weight=12.25)
        rms, test_rms = factors.compute_rms(fit.delta), held_out.compute_rms(fit.delta)
        others = data.find_row_indices(fold)
        residual, kind = design.read_rows(others, 120) @ plain.coefficients - Y[others], design.kind[others]
        for row_kind, name in ((0, "energy"), (1, "force")):
            assert rms[row_kind].own_level == pytest.approx(plain.rmse[name], rel=1e-8)
            expected = np.sqrt((residual[kind == row_kind] ** 2).mean(axis=0))
            assert test_rms[row_kind].own_level == pytest.approx(expected, rel=1e-8)


def test_exact_free_atoms_give_the_same_errors_in_both_engines(real):
    """Without the constant columns, the whitening and the leading blocks begin at the first descriptor."""
    energies = {level: {"Be": value} for level, value in (("3", -1.7), ("5", -2.1))}
    design = constrain_free_atoms(replace(real.design, targets={k: real.design.targets[k] for k in energies}), energies)
    data = replace(real, design=design, n_leverage_columns=design.count_columns_up_to(4))
    fast, _ = compare(data, SweepGrid(["3", "5"], [2, 4], [(12.25, 1.0)], [40, 100], ["random", "block-leverage"], 1))
    assert set(fast["n_features"]) == {design.count_columns_up_to(twojmax) for twojmax in (2, 4)}
    free = run_sweep(real, SweepGrid(["3", "5"], [2, 4], [(12.25, 1.0)], [100], ["random"], 1))
    assert set(free["n_features"]).isdisjoint(set(fast["n_features"]))


def test_rows_that_are_not_stored_give_the_same_bits(real, tmp_path, monkeypatch):
    """In memory, in files, or whitened when they are needed."""
    data, grid = replace(real, n_leverage_columns=120), SweepGrid(["5"], [6], [(5.0, 1.0)], [20, 100], ["random"], 1)
    tables = [run_sweep(data, grid)]
    monkeypatch.setattr("paretofit.sweep.row_stream.MAX_STORED_BYTES", 0)
    tables += [run_sweep(data, grid), run_sweep(data, grid, journal=tmp_path)]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], rtol=0, atol=0)
    assert not list(tmp_path.glob(".whitened*")), "the files are removed"


def test_engines_agree_from_one_configuration_on(real):
    few = replace(real, train=real.train[:9], n_leverage_columns=21)
    compare(
        few,
        SweepGrid(["2", "5"], [2, 4, 6], [(1.0, 1.0), (50.0, 1.0)], [1, 2, 9], ["random", "leverage"], 2),
    )


@pytest.fixture(scope="module")
def degenerate():
    """Columns that are zero, duplicate, sums of others, or zero in the training rows only."""
    rng = np.random.default_rng(11)
    n, p = 60, 6
    base = rng.normal(size=(4 * n, p)) * 10.0 ** np.arange(0, -2 * p, -2)
    hidden = np.where(np.arange(4 * n) // 4 >= 40, rng.normal(size=4 * n), 0.0)
    rows = np.column_stack(
        [base[:, :2], base[:, 0], np.zeros(4 * n), base[:, 2:4], base[:, 1] - 3 * base[:, 3], base[:, 4:], hidden]
    )
    names = ["a", "b", "a again", "nothing", "c", "d", "b - 3 d", "e", "f", "hidden"]
    kind = ["energy", "force", "force", "force"] * n
    targets = {
        "low": rows @ rng.normal(size=10) + rng.normal(size=4 * n),
        "high": rows @ rng.normal(size=10) + 0.1 * rng.normal(size=4 * n),
    }
    levels = [0, 0, 0, 0, 2, 2, 2, 4, 4, 4]
    design = DesignMatrix.from_arrays(
        rows, kind, np.arange(4 * n) // 4, targets=targets, column_levels=levels, column_names=names
    )
    return SweepInput(design, np.arange(40), np.arange(40, n))


def test_dependent_columns_are_dropped_without_changing_the_errors(degenerate):
    grid = SweepGrid(
        ["low", "high"], [0, 2, 4], [(1.0, 1.0), (30.0, 1.0)], [3, 10, 40], ["random", "block-leverage"], 2
    )
    compare(degenerate, grid)
    engine = make_engine(degenerate, grid)
    assert engine.dropped_columns == ["a again", "nothing", "b - 3 d"], "not 'hidden', which the test rows have"


def make_nearly_dependent(exponents):
    """Energies, forces and stresses; the last six columns differ from the first six by 10^-exponent."""
    rng = np.random.default_rng(5)
    n, kinds = 60, ["energy", "force", "force", "force", *["stress"] * 6]
    base = rng.normal(size=(10 * n, 12))
    rows = base + np.outer(base[:, 0], np.ones(12))
    rows[:, 6:] = rows[:, :6] + 10.0 ** -np.array(exponents) * base[:, 6:]
    targets = {level: rng.normal(size=10 * n) for level in ("low", "high")}
    design = DesignMatrix.from_arrays(
        rows, kinds * n, np.arange(10 * n) // 10, targets=targets, column_levels=[0] * 6 + [2] * 2 + [4] * 4
    )
    return SweepInput(design, np.arange(40), np.arange(40, n))


WEIGHTS = [(1.0, 1.0), (1000.0, 1.0)]


def test_engines_agree_with_stress_rows():
    data = make_nearly_dependent([3, 5, 6, 6, 7, 7])
    fast, _ = compare(data, SweepGrid(["low", "high"], [0, 2, 4], WEIGHTS, [20, 40], ["random", "leverage"], 2))
    assert (fast["solver"] == "factor").all()
    assert fast["condition"].max() > 1e7


def test_stress_rows_of_nearly_dependent_columns_against_extended_precision():
    """At condition numbers of 1e10 the errors of random labels have the digits that rounding leaves to any fit."""
    data = make_nearly_dependent([3, 5, 7, 8, 9, 10])
    grid = SweepGrid(["low", "high"], [4], WEIGHTS, [20], ["random"], 1)
    table, (draw,) = run_sweep(data, grid), list_draws(data, grid, None)
    rows, test = data.find_row_indices(draw.configurations), data.find_row_indices(data.test)
    X, T = (data.design.read_rows(index, 12).astype(np.longdouble) for index in (rows, test))
    Y = data.stack_targets(list(grid.levels)).astype(np.longdouble)
    for weight, fits in table.groupby("w_energy"):
        w = np.where(data.design.kind[rows] == 0, weight, 1.0)[:, None].astype(np.longdouble)
        residual = (T @ solve_in_extended_precision(X * w, Y[rows] * w) - Y[test])[data.design.kind[test] == 1]
        exact = 1000 * np.sqrt((residual**2).mean(axis=0)).astype(float)
        assert fits["condition"].min() > 1e10
        assert np.abs(fits["test_force"].to_numpy() / exact - 1).max() < 1e-17 * fits["condition"].max()


def test_columns_that_are_all_zero_are_refused(degenerate):
    rows = np.zeros((degenerate.design.n_rows, 2))
    design = DesignMatrix.from_arrays(
        rows, degenerate.design.kind, degenerate.design.configuration, targets=degenerate.design.targets
    )
    with pytest.raises(InputError, match="all columns of the design are zero"):
        make_engine(replace(degenerate, design=design), SweepGrid(["low", "high"], [0], [(1.0, 1.0)], [3]))


def test_reduced_leverages_equal_direct_leverages_at_every_2jmax(real):
    parts = make_parts(real, ["5"])
    sizes = [real.design.count_columns_up_to(twojmax) for twojmax in (2, 4, 6, 8)]
    reduction = Reduction.from_parts(parts, sizes, energy_weight=12.25)
    reduced_leverages = compute_reduced_leverage(
        reduction, parts, np.array([150.0, 1.0, 1.0]), real.design.n_configurations
    )
    rows = real.find_row_indices(real.train)
    owner = np.searchsorted(real.train, real.design.configuration[rows])
    for p, ours in zip(sizes, reduced_leverages, strict=True):
        theirs = leverage_scores(
            real.design.read_rows(rows), real.design.kind[rows], owner, energy_weight=150, n_columns=p
        )
        assert ours.rows == pytest.approx(theirs.rows, abs=1e-8)
        assert ours.regular[real.train] == pytest.approx(theirs.regular, abs=1e-8)
        assert ours.block[real.train] == pytest.approx(theirs.block, abs=1e-7)
        assert ours.rank == theirs.rank == p


@pytest.mark.parametrize("size", [37, 500, 5000])
def test_the_reduction_does_not_depend_on_blocks_or_threads(real, size):
    sizes = [120, 496]
    first = Reduction.from_parts(make_parts(real, ["2", "5"], 500), sizes, energy_weight=12.25)
    second = Reduction.from_parts(
        make_parts(real, ["2", "5"], size), sizes, energy_weight=12.25, mapper=ThreadMapper(2)
    )
    w = np.array([5.0, 1.0, 1.0])
    ours, theirs = (
        r.compute_test_rms(r.train.apply_weights(w).fit(1).delta)[0].reference_level for r in (first, second)
    )
    assert ours == pytest.approx(theirs, rel=1e-10)
    if size == 500:
        assert (first.train_factors[1].matrix == second.train_factors[1].matrix).all(), "threads do not change a bit"


def test_a_design_on_disk_gives_the_same_as_one_in_memory(real, tmp_path, monkeypatch):
    data, grid = (
        replace(real, n_leverage_columns=120),
        SweepGrid(["2", "5"], [4, 6], [(5.0, 1.0)], [20, 100], ["random"], 2),
    )
    whole = run_sweep(data, grid)
    on_disk = replace(data, design=real.design.save(tmp_path / "design.h5"))
    monkeypatch.setattr(DesignMatrix, "load_into_memory", lambda self, *_: self)
    streamed = run_sweep(on_disk, grid)
    pd.testing.assert_frame_equal(whole, streamed, rtol=1e-9)


@pytest.mark.parametrize("engine", ["fast", "plain"])
@pytest.mark.parametrize("ridge", [0.0, 1e-6, 1e-3])
def test_leave_one_out_equals_refitting(real, engine, ridge):
    """By configuration, with the column scale of the full fit, at 2Jmax 2 and 4."""
    members = real.train[:60]
    data = replace(real, train=members, n_leverage_columns=21)
    grid = SweepGrid(["3", "5"], [2, 4], [(12.25, 1.0)], [60], ["random"], 1, ridge=[ridge], leave_one_out=True)
    table = run_sweep(data, grid, engine=engine)
    rows = data.find_row_indices(members)
    owner, kind = data.design.configuration[rows], data.design.kind[rows]
    w = np.where(kind == 0, 12.25, 1.0)[:, None]
    Y = data.stack_targets(["3", "5"])[rows]
    for twojmax in (2, 4):
        X = data.design.read_rows(rows, data.design.count_columns_up_to(twojmax))
        scale = np.linalg.norm(X * w, axis=0)
        A = X * w / scale
        residuals = np.empty_like(Y)
        for member in members:
            others = owner != member
            free = np.eye(A.shape[1])[1:]  # the atomic reference energy is not penalised
            penalised = np.vstack([A[others], np.sqrt(ridge) * free])
            padded = np.vstack([(Y * w)[others], np.zeros((len(free), 2))])
            beta = np.linalg.lstsq(penalised, padded)[0]
            residuals[~others] = Y[~others] - X[~others] / scale @ beta
        ours = table[table["twojmax"] == twojmax]
        for column, mask in (("loo_energy", kind == 0), ("loo_force", kind == 1)):
            assert ours[column].to_numpy() == pytest.approx(
                1000 * np.sqrt(np.mean(residuals[mask] ** 2, axis=0)), rel=1e-7
            )


def test_leave_one_out_omits_whole_groups(real):
    """With two copies of each configuration, residuals are too small unless both copies are left out together."""
    rows = real.find_row_indices(real.train[:40])
    X, y = np.tile(real.design.read_rows(rows, 120), (2, 1)), np.tile(real.design.targets["5"][rows], 2)
    kind, owner = np.tile(real.design.kind[rows], 2), real.design.configuration[rows]
    alone = leave_one_out(X, y, kind, np.concatenate([owner, owner + 1000]), energy_weight=5)
    together = leave_one_out(X, y, kind, np.tile(owner, 2), energy_weight=5)
    honest = leave_one_out(X[: len(rows)], y[: len(rows)], kind[: len(rows)], owner, energy_weight=5)
    assert together[: len(rows)] == pytest.approx(honest, rel=1e-6, abs=1e-9)
    assert np.sqrt(np.nanmean(alone**2)) < np.sqrt(np.nanmean(honest**2))


def test_undetermined_leave_one_out_residuals_are_nan():
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    residuals = leave_one_out(rows, np.array([1.0, 2.0, 3.0]), ["energy"] * 3, np.arange(3))
    assert residuals == pytest.approx([-1.0, 1.0, np.nan], nan_ok=True)


def test_ridge_agrees_between_engines(real):
    grid = SweepGrid(
        ["2", "5"],
        [4, 6],
        [(1.0, 1.0), (50.0, 1.0)],
        [20, 60, 138],
        ["random"],
        1,
        ridge=[0.0, 1e-8, 1e-3],
        leave_one_out=True,
    )
    fast, _ = compare(replace(real, n_leverage_columns=120), grid, tight=1e-7, columns=ERRORS)
    assert list(fast.columns[-6:]) == ["ridge", "ridge_lambda", *LOO]


def test_automatic_ridge_agrees_between_engines_and_improves_small_fits(real):
    grid = SweepGrid(
        ["2", "5"], [4, 6], [(12.25, 1.0)], [20, 60], ["random"], 2, ridge=[0.0, "auto"], leave_one_out=True
    )
    data = replace(real, n_leverage_columns=120)
    fast, plain = run_sweep(data, grid), run_sweep(data, grid, engine="plain")
    chosen = fast["ridge"] == "auto"
    assert (fast["ridge_lambda"] == plain["ridge_lambda"]).all()
    assert fast.loc[chosen, "ref_force"].to_numpy() == pytest.approx(
        plain.loc[chosen, "ref_force"].to_numpy(), rel=1e-6
    )
    few = (fast["n_train"] == 20) & (fast["twojmax"] == 6)
    median = fast[few].groupby("ridge")["ref_force"].median()
    assert median["auto"] < 0.5 * median[0.0], "few labels and a rich model: ridge makes the fit usable"


def test_ridge_fit_equals_its_normal_equations_in_scaled_columns(real):
    rows = real.find_row_indices(real.train[:50])
    X, y, kind = real.design.read_rows(rows, 120), real.design.targets["5"][rows], real.design.kind[rows]
    group = real.design.configuration[rows]
    choice = choose_ridge(X, y, kind, group, energy_weight=5.0)
    fit = fit_wls(X, y, kind, energy_weight=5.0, ridge=choice.penalty[0])
    assert X @ choice.coefficients[:, 0] == pytest.approx(X @ fit.coefficients, abs=1e-8)
    left_out = leave_one_out(X, y, kind, group, energy_weight=5.0, ridge=choice.penalty[0])
    assert choice.loo_residuals[:, 0] == pytest.approx(left_out, abs=1e-8)
    with pytest.raises(InputError, match="ridge must be a finite, non-negative number; got -1"):
        fit_wls(X, y, kind, ridge=-1)


@pytest.mark.parametrize("engine", ["fast", "plain"])
def test_ridge_errors_do_not_depend_on_the_energy_zero(real, engine):
    """Codes differ by keV in the energy of an atom; errors must not depend on it."""
    grid = SweepGrid(["3", "5"], [4], [(12.25, 1.0)], [20, 60], ["random"], 1, ridge=[1e-4, "auto"], leave_one_out=True)
    data = replace(real, n_leverage_columns=120)
    energy = real.design.kind == 0
    shifted = {level: np.where(energy, values - 400.0, values) for level, values in real.design.targets.items()}
    before = run_sweep(data, grid, engine=engine)
    after = run_sweep(replace(data, design=replace(real.design, targets=shifted)), grid, engine=engine)
    assert (after["ridge_lambda"] == before["ridge_lambda"]).all()
    for column in [*ERRORS, *LOO]:
        assert after[column].to_numpy() == pytest.approx(before[column].to_numpy(), rel=1e-5), column


def test_nearly_dependent_columns_are_retained(degenerate):
    """A column that differs from another by 1e-10 of its size is not dropped: its direction may carry the signal."""
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(240, 5))
    rows = np.column_stack([rows, rows[:, 1] + 1e-10 * rng.normal(size=240)])
    targets = {
        "a": rows @ np.ones(6) + 1e9 * (rows[:, 5] - rows[:, 1]) + 0.1 * rng.normal(size=240),
        "b": rng.normal(size=240),
    }
    design = DesignMatrix.from_arrays(rows, degenerate.design.kind, degenerate.design.configuration, targets=targets)
    data, grid = replace(degenerate, design=design), SweepGrid(["b", "a"], [0], [(3.0, 1.0)], [30, 40], ["random"], 1)
    assert make_engine(data, grid).dropped_columns == []
    fast, plain = run_sweep(data, grid), run_sweep(data, grid, engine="plain")
    assert fast["rank"].tolist() == plain["rank"].tolist() == [6] * 4
    assert fast["test_force"].to_numpy() == pytest.approx(plain["test_force"].to_numpy(), rel=1e-4)


def test_engines_agree_on_ridge_fits_with_dependent_columns(degenerate):
    """Two equal columns share a coefficient, so that the penalty is half that of a single column."""
    grid = SweepGrid(["low", "high"], [0, 4], [(3.0, 1.0)], [10, 40], ["random"], 1, ridge=[0.0, 1e-2, "auto"])
    compare(degenerate, grid, loose=1e-6)


def test_forces_without_energies_allow_random_sampling_only(degenerate):
    force_rows = np.flatnonzero(degenerate.design.kind == 1)
    design = degenerate.design
    forces = DesignMatrix.from_arrays(
        design.read_all_rows()[force_rows],
        design.kind[force_rows],
        design.configuration[force_rows],
        targets={k: v[force_rows] for k, v in design.targets.items()},
    )
    data, grid = (
        replace(degenerate, design=forces),
        SweepGrid(["low", "high"], [0], [(1.0, 1.0)], [20, 40], ["random"], 2),
    )
    fast = run_sweep(data, grid)
    assert fast["test_energy"].isna().all()
    assert fast["test_force"].to_numpy() == pytest.approx(
        run_sweep(data, grid, engine="plain")["test_force"].to_numpy()
    )
    with pytest.raises(InputError, match="leverage sampling requires an energy row"):
        run_sweep(data, replace(grid, sampling_methods=["leverage"]))


def test_automatic_ridge_takes_the_largest_of_equivalent_penalties(real):
    """With all configurations in one group, all penalties are equivalent, and rounding must not decide."""
    one_group = replace(real, group=np.zeros(real.design.n_configurations, dtype=int), n_leverage_columns=21)
    grid = SweepGrid(["3", "5"], [2, 4], [(12.25, 1.0)], [20], ["random"], 2, ridge=["auto"])
    assert set(run_sweep(one_group, grid)["ridge_lambda"]) == {0.1}


def test_a_reduction_refuses_non_finite_values_and_too_many_columns(real):
    parts = make_parts(real, ["5"])

    def iterate_non_finite_blocks(field):
        for block in iterate_blocks(parts):
            arrays = block._asdict()
            arrays[field] = arrays[field].copy()
            arrays[field][3, 0] = np.nan
            yield RowBlock(**arrays)

    for field in ("X", "Y"):
        with pytest.raises(InputError, match="must be finite"):
            Reduction.from_parts(lambda field=field: iterate_non_finite_blocks(field), [21])
    with pytest.raises(InputError, match="at most the number of columns, 0"):
        Reduction.from_parts(lambda: iter([]), [21])
    with pytest.raises(InputError, match="at most the number of columns, 1596; got 2000"):
        Reduction.from_parts(parts, [21, 2000])


class TestStoredReductions:
    """An expensive reduction is stored in the run folder, and reused if its inputs are the same."""

    @pytest.fixture
    def real(self, real):
        return replace(real, n_leverage_columns=120)

    @pytest.fixture
    def stored(self, real, tmp_path, monkeypatch):
        monkeypatch.setattr("paretofit.sweep.stored_reduction.MIN_REDUCTION_TIME_S", 0.0)
        grid = SweepGrid(["2", "5"], [4], [(5.0, 1.0)], [30], ["random", "leverage"], 1)
        table = run_sweep(real, grid, journal=tmp_path)
        assert (tmp_path / "reduction.h5").exists()
        for journal in tmp_path.glob("*.jsonl"):
            journal.unlink()
        return tmp_path, grid, table

    @pytest.fixture
    def calls(self, monkeypatch):
        """A list with an entry for each reduction that is computed."""
        calls, from_parts = [], RawFactors.from_parts
        monkeypatch.setattr(
            RawFactors, "from_parts", lambda *parts, **more: calls.append(1) or from_parts(*parts, **more)
        )
        return calls

    def test_results_are_the_same_to_the_last_bit(self, real, stored, calls):
        folder, grid, table = stored
        pd.testing.assert_frame_equal(run_sweep(real, grid, journal=folder), table, rtol=0, atol=0)
        assert not calls
        other = run_sweep(real, replace(grid, weights=[(7.0, 1.0)], repetitions=2), journal=folder)
        assert len(other) == 8
        assert not calls, "the reduction does not depend on the fits of the grid"

    @pytest.mark.parametrize("change", ["labels", "levels", "split", "twojmax", "leverage"])
    def test_other_inputs_are_reduced_again(self, real, stored, calls, change):
        folder, grid, _ = stored
        targets = {level: values + (level == "2") for level, values in real.design.targets.items()}
        data = {
            "labels": replace(real, design=replace(real.design, targets=targets)),
            "split": replace(real, train=real.train[:-1]),
            "leverage": replace(real, leverage_weights=(3.0, 1.0)),
        }.get(change, real)
        more = {"levels": {"levels": ["3", "5"]}, "twojmax": {"twojmax": [2, 4]}}.get(change, {})
        run_sweep(data, replace(grid, **more), journal=folder)
        assert calls

    @pytest.mark.parametrize("position", [0.001, 0.2, 0.5, 0.8, 0.99])
    def test_a_corrupt_file_is_replaced(self, real, stored, calls, position):
        folder, grid, table = stored
        flip(folder / "reduction.h5", position)
        resumed = run_sweep(real, grid, journal=folder)
        pd.testing.assert_frame_equal(resumed, table, rtol=0, atol=0)

    def test_a_truncated_file_is_replaced(self, real, stored, calls):
        folder, grid, table = stored
        content = (folder / "reduction.h5").read_bytes()
        (folder / "reduction.h5").write_bytes(content[: len(content) // 2])
        pd.testing.assert_frame_equal(run_sweep(real, grid, journal=folder), table, rtol=0, atol=0)
        assert calls

    def test_a_cheap_reduction_is_not_stored(self, real, tmp_path):
        run_sweep(real, SweepGrid(["5"], [2], [(5.0, 1.0)], [30]), journal=tmp_path)
        assert not (tmp_path / "reduction.h5").exists()


@given(st.integers(1, 10**7), st.integers(1, 5000))
def test_parts_cover_every_row_once(n_rows, columns):
    parts = split_rows(n_rows, columns)
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == n_rows
    assert all(part.stop > part.start for part in parts)
    assert len(parts) <= max(4, n_rows // (16 * columns))


def test_threads_return_results_in_order_and_limit_pending_parts():
    parts = [partial(iter, [k]) for k in range(20)]
    assert list(ThreadMapper(3)(lambda part: next(part()), parts)) == list(range(20))
    taken = []
    running = ThreadMapper(2)(lambda part: taken.append(next(part())), parts)
    next(running)
    assert len(taken) <= 4, "what waits to be merged does not pile up"
    running.close()


def test_prefetched_blocks_are_in_order_and_errors_are_raised():
    assert list(prefetch(iter(range(10)))) == list(range(10))

    def failing():
        yield 1
        raise InputError("no more")

    blocks = prefetch(failing())
    assert next(blocks) == 1
    with pytest.raises(InputError, match="no more"):
        next(blocks)
