"""The sweep: every cell equals a fit made by hand, and neither processes nor kills change a byte."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from helpers.studies import sweep_input

from paretofit import DesignMatrix, InputError, fit_wls
from paretofit.dataset import split_configurations
from paretofit.sweep import SWEEP_COLUMNS, SweepGrid, SweepInput, read_results, run_sweep, write_results


@pytest.fixture(scope="module")
def data(beryllium, tmp_path_factory):
    return sweep_input(beryllium, tmp_path_factory.mktemp("sweep"))


@pytest.fixture
def grid():
    return SweepGrid(
        ["2", "3", "5"],
        [2, 4],
        [(1.0, 1.0), (12.25, 1.0)],
        [5, 20, 40],
        ["random", "leverage", "block-leverage", "top-leverage"],
        3,
    )


def test_every_cell_equals_a_fit_by_hand(data, grid):
    results = run_sweep(data, grid)
    assert list(results.columns) == SWEEP_COLUMNS
    assert len(results) == grid.count_fits() == 3 * 2 * 2 * 3 * (3 * 3 + 1)
    design, scores = data.design, data.compute_leverage_scores()
    subsets = {
        (s.sampling, s.repeat, s.n_train): np.array(s.positions) for s in grid.draw_subsets(scores, len(data.train))
    }
    X = design.read_all_rows()
    test = np.isin(design.configuration, data.test)
    for row in results.sample(25, random_state=1).itertuples():
        members = data.train[subsets[row.sampling, row.repeat, row.n_train]]
        rows = np.isin(design.configuration, members)
        p = design.count_columns_up_to(row.twojmax)
        fit = fit_wls(X[rows, :p], design.targets[row.level][rows], design.kind[rows], energy_weight=row.w_energy)
        reference = (X[test, :p] @ fit.coefficients - design.targets["5"][test])[design.kind[test] == 0]
        own_level = (X[test, :p] @ fit.coefficients - design.targets[row.level][test])[design.kind[test] == 1]
        assert row.ref_energy == pytest.approx(1000 * np.sqrt(np.mean(reference**2)), rel=1e-7)
        assert row.ref_energy_shifted == pytest.approx(1000 * np.std(reference), rel=1e-7)
        assert row.test_force == pytest.approx(1000 * np.sqrt(np.mean(own_level**2)), rel=1e-7)
        assert row.train_force == pytest.approx(1000 * fit.rmse["force"], rel=1e-6, abs=1e-3)
        train = (X[rows, :p] @ fit.coefficients - design.targets["5"][rows])[design.kind[rows] == 1]
        assert row.train_ref_force == pytest.approx(1000 * np.sqrt(np.mean(train**2)), rel=1e-7)
        assert row.label_seconds == pytest.approx(design.seconds[row.level][members].sum())
        assert (row.rank, row.n_features) == (fit.rank, p)


def test_a_part_of_the_grid_gives_the_same_rows(data, grid):
    whole = run_sweep(data, grid)
    part = run_sweep(data, SweepGrid(["3", "5"], [4], [(12.25, 1.0)], [20], ["leverage"], 2))
    keys = ["twojmax", "level", "sampling", "n_train", "repeat", "w_energy"]
    merged = part.merge(whole, on=keys, suffixes=("", "_whole"))
    assert len(merged) == len(part)
    assert merged["ref_force"].to_numpy() == pytest.approx(merged["ref_force_whole"].to_numpy(), rel=1e-9)


def test_bytes_do_not_depend_on_processes(data, grid, tmp_path):
    for jobs in (1, 2):
        write_results(run_sweep(data, grid, jobs=jobs), tmp_path / f"{jobs}.csv")
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()
    assert len(read_results(tmp_path / "1.csv")) == grid.count_fits()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.77, 1.0])
def test_a_journal_cut_anywhere_gives_the_same_bytes(data, grid, tmp_path, share):
    write_results(run_sweep(data, grid, journal=tmp_path), tmp_path / "whole.csv")
    journal = next(tmp_path.glob("sweep-*.jsonl"))
    content = journal.read_bytes()
    journal.write_bytes(content[: int(share * len(content))])
    write_results(run_sweep(data, grid, journal=tmp_path), tmp_path / "resumed.csv")
    assert (tmp_path / "whole.csv").read_bytes() == (tmp_path / "resumed.csv").read_bytes()


def count_journalled_fits(folder):
    """Number of fits in all journals of a folder."""
    return sum(len(json.loads(line)) for path in folder.glob("sweep-*.jsonl") for line in path.read_text().splitlines())


def test_only_what_is_new_is_computed(data, tmp_path):
    small = SweepGrid(["2", "5"], [2], [(1.0, 1.0)], [5, 20], ["random"], 2, seed=1)
    run_sweep(data, small, journal=tmp_path)
    assert count_journalled_fits(tmp_path) == 2 * 4
    run_sweep(data, small, journal=tmp_path)
    assert count_journalled_fits(tmp_path) == 2 * 4, "nothing new"
    run_sweep(data, replace(small, weights=[(1.0, 1.0), (3.0, 1.0)]), journal=tmp_path)
    assert count_journalled_fits(tmp_path) == 2 * 4 * 2, "four subsets at the new weight"
    run_sweep(data, replace(small, twojmax=[2, 4]), journal=tmp_path)
    assert count_journalled_fits(tmp_path) == 2 * 4 * 3, "the larger model only"
    run_sweep(data, replace(small, seed=2), journal=tmp_path)
    run_sweep(replace(data, leverage_weights=(5.0, 1.0)), small, journal=tmp_path)
    assert count_journalled_fits(tmp_path) == 2 * 4 * 4, "other draws; the old ones are found again"
    run_sweep(replace(data, test=data.test[1:]), small, journal=tmp_path)
    assert len(list(tmp_path.glob("sweep-*.jsonl"))) == 2, "another test set has a journal of its own"


def test_costs_are_not_part_of_a_fit(data, tmp_path):
    grid = SweepGrid(["2", "5"], [2], [(1.0, 1.0)], [20], ["random"], 1)
    before = run_sweep(data, grid, journal=tmp_path)
    dearer = replace(data.design, seconds={level: 2 * values for level, values in data.design.seconds.items()})
    after = run_sweep(replace(data, design=dearer), grid, journal=tmp_path)
    assert count_journalled_fits(tmp_path) == 2
    assert after["label_seconds"].to_numpy() == pytest.approx(2 * before["label_seconds"].to_numpy())


def test_changed_labels_of_one_level_recompute_that_level_only(data, tmp_path):
    grid = SweepGrid(["2", "3", "5"], [2], [(1.0, 1.0)], [20], ["random"], 1)
    before = run_sweep(data, grid, journal=tmp_path).set_index("level")
    targets = dict(data.design.targets)
    targets["3"] = targets["3"] * 1.01
    changed = replace(data, design=replace(data.design, targets=targets))
    after = run_sweep(changed, grid, journal=tmp_path).set_index("level")
    assert after.loc["2"].equals(before.loc["2"])
    assert after.loc["3", "test_force"] != before.loc["3", "test_force"]


@pytest.mark.parametrize("junk", [b'{"a": 1}\n', b"[1]\n", b"null\n", b"\x00\xff\n", b'[{"level": "2"}]\n'])
def test_a_corrupt_journal_is_cut_at_the_corrupt_line(data, tmp_path, junk):
    grid = SweepGrid(["2", "5"], [2], [(1.0, 1.0)], [5, 20], ["random"], 2)
    write_results(run_sweep(data, grid, journal=tmp_path), tmp_path / "whole.csv")
    journal = next(tmp_path.glob("sweep-*.jsonl"))
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + junk + b"".join(lines[1:]))
    write_results(run_sweep(data, grid, journal=tmp_path), tmp_path / "again.csv")
    assert (tmp_path / "whole.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()


def test_subsets_are_nested_and_independent_of_the_rest_of_the_grid(data, grid):
    scores, n = data.compute_leverage_scores(), len(data.train)
    by_draw = {}
    for subset in grid.draw_subsets(scores, n):
        by_draw.setdefault((subset.sampling, subset.repeat), []).append(set(subset.positions))
    for sets in by_draw.values():
        assert all(small < large for small, large in pairwise(sets))
    alone = SweepGrid(grid.levels, grid.twojmax, grid.weights, [20], ["leverage"], 1)
    assert set(next(alone.draw_subsets(scores, n)).positions) == by_draw["leverage", 0][1]
    assert by_draw["leverage", 0][0] != by_draw["leverage", 1][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": [5, 400]}, "number of training configurations, 40; got 400"),
        ({"sizes": [0]}, "got 0"),
        ({"weights": [(0.0, 1.0)]}, "positive numbers; got 0"),
        ({"weights": [(1.0, -2.0)]}, "positive numbers"),
        ({"levels": ["2", "9"]}, "no labels of level '9'"),
        ({"sampling_methods": ["leverag"]}, "did you mean 'leverage'"),
        ({"ridge": [-1.0]}, "'ridge' must be non-negative numbers or 'auto'; got -1"),
        ({"twojmax": []}, "'twojmax' must have at least one entry"),
        ({"levels": ["5", "5"]}, "the same entry twice"),
    ],
)
def test_wrong_grids(data, change, message):
    arguments = {"levels": ["2", "5"], "twojmax": [2], "weights": [(1.0, 1.0)], "sizes": [5]} | change
    with pytest.raises(InputError, match=message):
        run_sweep(data, SweepGrid(**arguments))


def test_missing_labels_are_an_error_that_names_one(data):
    targets = {level: values.copy() for level, values in data.design.targets.items()}
    targets["3"][np.flatnonzero(data.design.configuration == data.train[4])[2]] = np.nan
    broken = SweepInput(replace(data.design, targets=targets), data.train, data.test)
    with pytest.raises(InputError, match=f"level '3' has 1 .* id {data.design.ids[data.train[4]]}"):
        run_sweep(broken, SweepGrid(["3", "5"], [2], [(1.0, 1.0)], [5]))


def test_any_linear_model_can_be_swept():
    """No atoms, no LAMMPS, no seconds: rows from elsewhere, not nested."""
    rng = np.random.default_rng(0)
    rows, owner = rng.normal(size=(120, 4)), np.arange(120) // 4
    kind = ["energy", "force", "force", "force"] * 30
    truth = rows @ [1.0, 2.0, 3.0, 4.0]
    design = DesignMatrix.from_arrays(
        rows, kind, owner, targets={"noisy": truth + rng.normal(size=120) * 0.1, "exact": truth}
    )
    split = split_configurations(np.arange(30), 0.5, 0)
    results = run_sweep(
        SweepInput(design, split.train, split.test),
        SweepGrid(["noisy", "exact"], [0], [(1.0, 1.0)], [4, 15], ["random"], 3),
    )
    exact = results[results["level"] == "exact"]
    assert (exact["ref_energy"] < 1e-9).all()
    assert results["label_seconds"].isna().all()


@pytest.mark.parametrize("change", ["kind", "configuration", "column_levels", "rows"])
def test_a_journal_of_other_rows_is_not_used(tmp_path, change):
    rng = np.random.default_rng(0)
    arrays = {
        "rows": rng.normal(size=(120, 4)),
        "kind": np.array([0, 1, 1, 1] * 30),
        "configuration": np.arange(120) // 4,
    }
    levels = np.array([0, 0, 2, 2])
    targets = {"a": rng.normal(size=120), "b": rng.normal(size=120)}
    grid = SweepGrid(["a", "b"], [0, 2], [(2.0, 1.0)], [5, 15], ["random"], 2)

    def sweep(journal):
        design = DesignMatrix.from_arrays(**arrays, targets=targets, column_levels=levels)
        return run_sweep(SweepInput(design, np.arange(15), np.arange(15, 30)), grid, journal=journal)

    sweep(tmp_path)
    if change == "kind":
        arrays["kind"][1], arrays["kind"][0] = 0, 1
    elif change == "configuration":
        arrays["configuration"][[3, 4]] = arrays["configuration"][[4, 3]]
    elif change == "column_levels":
        levels[1] = 2
    else:
        arrays["rows"][7] += 1
    pd.testing.assert_frame_equal(sweep(tmp_path), sweep(None))


def test_read_results_names_what_is_missing(tmp_path):
    with pytest.raises(InputError, match="no results table"):
        read_results(tmp_path / "none.csv")
    pd.DataFrame({"twojmax": [2]}).to_csv(tmp_path / "r.csv")
    with pytest.raises(InputError, match="lacks the column 'level'"):
        read_results(tmp_path / "r.csv")
