"""The made-up dataset of the published size, and the formulas that take measured runs to the whole study."""

import sys
from pathlib import Path

import numpy as np
import pytest

from paretofit.core import InputError
from paretofit.dataset import Dataset
from paretofit.structures import find_nearest_distance

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import bench_published as bench
import published_plans as plans
import published_size
import published_whole as whole

ATOMS, N = 16, 220


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "made.h5"
    published_size.make_dataset(path, N, atoms=ATOMS)
    with Dataset(path) as data:
        yield data


@pytest.mark.slow
def test_errors_of_the_levels_are_the_published_ones(dataset):
    first = dataset.select(np.arange(published_size.SCALED_ON))
    for data, tolerance in ((first, 1e-9), (dataset, 0.05)):
        for level, *values in published_size.statistics(data):
            published = published_size.LEVELS[level]
            assert values == pytest.approx([published.energy, published.centred, published.force], rel=tolerance)
    assert dataset.levels == list(published_size.LEVELS)
    assert np.unique(dataset.labels("5").seconds) == [91.99]


@pytest.fixture(scope="module")
def raws():
    return [published_size.raw_labels(published_size.packing(number, ATOMS, 3)) for number in range(40)]


def test_energies_that_vary_too_much_are_refused(raws, monkeypatch):
    monkeypatch.setattr(published_size, "QUIET", 1e-6)
    with pytest.raises(InputError, match="more atoms"):
        published_size.scaled_errors(raws, np.random.default_rng(0))


def test_forces_of_every_level_are_the_derivative_of_its_energy(raws):
    errors = published_size.scaled_errors(raws, np.random.default_rng(0))
    centre, step = raws[0], 1e-4
    energies = []
    for sign in (1, -1):
        moved = centre.atoms.copy()
        moved.positions[4, 1] += sign * step
        raw = published_size.raw_labels(moved)
        energies.append(np.append(errors.of(raw)[0], raw.energy))
    slopes = (energies[0] - energies[1]) / (2 * step)
    forces = np.append(errors.of(centre)[1][:, 4, 1], centre.forces[4, 1])
    np.testing.assert_allclose(-slopes, forces, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_structures_are_dense_and_none_of_their_atoms_too_close(dataset):
    for atoms in list(dataset)[:50]:
        assert find_nearest_distance(atoms) >= published_size.CLOSEST
        assert published_size.VOLUME[0] <= atoms.cell.volume / len(atoms) <= published_size.VOLUME[1]


@pytest.mark.slow
def test_a_short_dataset_is_the_beginning_of_a_long_one(tmp_path, monkeypatch):
    monkeypatch.setattr(published_size, "SCALED_ON", 40)
    published_size.make_dataset(tmp_path / "long.h5", 42, atoms=ATOMS)
    published_size.make_dataset(tmp_path / "short.h5", 3, atoms=ATOMS, jobs=2)
    with Dataset(tmp_path / "short.h5") as short, Dataset(tmp_path / "long.h5") as long:
        assert (len(short), len(long)) == (3, 42)
        for level in short.levels:
            np.testing.assert_array_equal(short.labels(level).energy, long.labels(level).energy[:3])
            np.testing.assert_array_equal(short.labels(level).forces, long[:3].labels(level).forces)
        np.testing.assert_array_equal(short[2].positions, long[2].positions)


def test_the_whole_is_what_the_paper_says():
    assert plans.WHOLE_PLAN.sizes == list(plans.SIZES)
    assert (plans.WHOLE.columns, plans.WHOLE.fits) == (4278, 259_200)
    assert plans.WHOLE.grown == 150 * 7500 * 151


@pytest.mark.parametrize("n_train", [15, 250, 1111, 3333])
def test_subset_sizes_reach_from_the_smallest_to_all(n_train):
    sizes = plans.scaled_sizes(n_train)
    assert sizes == sorted(sizes)
    assert sizes[-1] == n_train
    assert sizes[0] == min(100, n_train // 3)


def test_rates_are_found_again():
    sizes = [plan.size(151 * plan.n) for plan in plans.PLANS.values()]
    true = np.array([2e-11, 3e-11, 1e-3])
    seconds = [true @ size.sweep for size in sizes]
    np.testing.assert_allclose(whole.sweep_rates(sizes, seconds), true, rtol=1e-6)


def test_exponent_memory_and_limit():
    assert whole.exponent(10, 30, 5, 45) == pytest.approx(2)
    assert whole.memory_of_whole((100, 10.0), (200, 20.0), (50, 40.0), 150) == pytest.approx(50)
    assert whole.memory_of_whole((100, 30.0), (200, 20.0), (50, 40.0), 150) == 40
    assert "the limit is disk" in whole.binding((2e9, 1e9), (1e9, 2e9), 3)
    assert "the limit is disk and memory" in whole.binding((2e9, 1e9), (3e9, 2e9), 3)
    assert "the limit is time" in whole.binding((1e9, 2e9), (1e9, 2e9), 3)


def measured(plan):
    """A run that keeps to the formulas: the whole describes itself in 20,000 s and reduces itself in 5,000 s."""
    rows = 151 * plan.n
    size = plan.size(rows)
    seconds = {
        "describe": 1.0 * plan.n,
        "reduce": 5000 * size.reduction / plans.WHOLE.reduction,
        "sweep": float(np.array([2e-11, 3e-11, 1e-3]) @ size.sweep),
        "analyse": 7.0,
        "report": 9.0,
    }
    cpu = {name: 1.5 * value for name, value in seconds.items()}
    memory = dict.fromkeys(plans.STAGES, 1000.0)
    files = {"design": 8 * rows * size.columns, "reduction": 0, "journal": 400 * size.fits, "whole": 10**12}
    return plans.Measured(plan, 2, rows, size.fits, seconds, cpu, memory, {}, files, {"whitened": [size.fits, plan.n]})


def test_runs_that_keep_to_the_formulas_give_the_whole():
    done = {name: measured(plan) for name, plan in plans.PLANS.items()}
    (table,) = whole.extrapolated(done, 1e11, 1e12)
    hours = {row[0]: float(row[1]) for row in table.rows}
    real = measured(plans.WHOLE_PLAN)
    for stage, seconds in real.seconds.items():
        assert hours[stage] == pytest.approx(seconds / 3600, rel=0.05), stage
    rows = {row[0]: row for row in table.rows}
    assert rows["describe"][4] == f"{8 * 151 * 20_000 * 4278 / 1e9:.3g}"
    assert rows["reduce"][5:8] == ["1.00", "1.00", "2.00"]
    assert float(rows["all"][2]) == pytest.approx(1.5 * float(rows["all"][1]), rel=0.1)
    assert "the limit is disk" in table.notes[-1]
    assert len({len(row) for row in [*table.rows, table.header]}) == 1


def test_memory_grows_with_rows_that_stay_in_the_file():
    done = {name: measured(plans.PLANS[name]) for name in ("A1", "A3", "A9", "B1")}
    for run in done.values():
        held = run.files["design"] if run.files["design"] <= whole.MAX_ROWS_IN_MEMORY_BYTES else 0
        run.memory_of_all["sweep"] = 500 + 1e-4 * run.rows + held / 1e6
    (table,) = whole.extrapolated(done, 1e12, 1e12)
    memory = {row[0]: float(row[3]) for row in table.rows}
    assert memory["sweep"] == pytest.approx((500 + 1e-4 * plans.WHOLE.rows) / 1000, rel=0.06)


def test_tables_of_some_runs_only():
    runs = {name: measured(plans.PLANS[name]) for name in ("A9", "C1")}
    assert whole.extrapolated(runs, 1e12, 1e12) == []
    assert len(bench.times(runs).rows) == len(bench.memory_and_disk(runs).rows) == 2
