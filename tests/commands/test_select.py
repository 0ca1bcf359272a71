"""Choosing before paying: against brute force, against the leverages of the rows themselves, and end to end."""

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from helpers.command_line import call
from helpers.pictures import rendered_pictures
from hypothesis import given, settings
from hypothesis import strategies as st

from paretofit import DesignMatrix, InputError, SnapBasis, compute_design
from paretofit.commands import select_structures
from paretofit.commands.select import SELECTION_METHODS
from paretofit.dataset import Dataset, write_dataset
from paretofit.descriptors import compute_atom_descriptors_and_gradient, compute_configuration_rows, compute_energy_rows
from paretofit.linear import compute_column_scales, leverage_scores, select_d_optimal, select_farthest_points
from paretofit.linear.design_selection import RELATIVE_PRIOR_RIDGE


def brute_force(rows, n, existing):
    """The best next row by determinants, one after the other."""
    scale = compute_column_scales(np.vstack([rows, existing]))
    X, Y = rows / scale, existing / scale
    M = Y.T @ Y + RELATIVE_PRIOR_RIDGE * max(1.0, len(X) / len(scale)) * np.eye(len(scale))
    chosen, gains = [], []
    for _ in range(n):
        before = np.linalg.slogdet(M)[1]
        rises = [np.linalg.slogdet(M + np.outer(x, x))[1] - before for x in X]
        best = max((k for k in range(len(X)) if k not in chosen), key=lambda k: rises[k])
        chosen.append(best)
        gains.append(rises[best])
        M = M + np.outer(X[best], X[best])
    return chosen, gains


@given(seed=st.integers(0, 10**6), p=st.integers(1, 6), n_given=st.integers(0, 8))
@settings(max_examples=30)
def test_d_optimal_is_the_greedy_maximum_of_determinants(seed, p, n_given):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(20, p)) * rng.uniform(0.1, 10, p)
    existing = rng.normal(size=(n_given, p))
    chosen, gains = select_d_optimal(rows, 8, existing)
    expected, rises = brute_force(rows, 8, existing)
    assert chosen.tolist() == expected
    assert gains == pytest.approx(rises, rel=1e-6, abs=1e-8)
    assert (np.diff(gains) <= 1e-9).all()


@pytest.mark.parametrize("choose", [select_d_optimal, select_farthest_points])
@given(seed=st.integers(0, 10**6), n=st.integers(1, 15))
@settings(max_examples=20)
def test_a_smaller_choice_is_a_prefix_and_nothing_is_chosen_twice(choose, seed, n):
    rows = np.random.default_rng(seed).normal(size=(15, 3))
    everyone, scores = choose(rows, 15)
    sample, less = choose(rows, n)
    assert sorted(everyone.tolist()) == list(range(15))
    assert np.array_equal(sample, everyone[:n])
    assert np.array_equal(less, scores[:n])


@pytest.mark.parametrize("choose", [select_d_optimal, select_farthest_points])
def test_what_is_there_already_is_not_chosen_again(choose):
    rows = np.concatenate([np.eye(4)[[0, 1, 2]] * 3, np.eye(4)])  # the last three bring something new only once
    first, scores = choose(rows, 1, rows[:3])
    assert first[0] == 6
    assert scores[0] > 0


@given(seed=st.integers(0, 10**6), n_given=st.integers(0, 4))
@settings(max_examples=20)
def test_farthest_point_is_the_farthest_in_standard_deviations(seed, n_given):
    rng = np.random.default_rng(seed)
    points, existing = rng.normal(size=(12, 3)), rng.normal(size=(n_given, 3))
    chosen, distances = select_farthest_points(points, 6, existing)
    combined = np.vstack([points, existing])
    scaled, known = points / combined.std(axis=0), list(existing / combined.std(axis=0))
    if not n_given:
        assert chosen[0] == np.argmax(np.linalg.norm(scaled - scaled.mean(axis=0), axis=1))
        known.append(scaled[chosen[0]])
    for k, distance in list(zip(chosen.tolist(), distances, strict=True))[0 if n_given else 1 :]:
        nearest = np.linalg.norm(scaled[:, None] - np.array(known)[None], axis=-1).min(axis=1)
        assert nearest.max() == pytest.approx(distance)
        assert nearest[k] == pytest.approx(distance)
        known.append(scaled[k])


@pytest.mark.parametrize(
    ("rows", "n", "existing", "message"),
    [
        (np.zeros((3, 2)), 4, None, "number of candidates, 3; got 4"),
        (np.zeros((3, 2)), 0, None, "got 0"),
        (np.full((3, 2), np.nan), 1, None, "finite"),
        (np.zeros((3, 2)), 1, np.zeros((1, 5)), "shape"),
        (np.zeros(3), 1, np.zeros((1, 3)), "shape"),
    ],
)
@pytest.mark.parametrize("choose", [select_d_optimal, select_farthest_points])
def test_rows_that_cannot_be_chosen_from(choose, rows, n, existing, message):
    with pytest.raises(InputError, match=message):
        choose(rows, n, existing)


@pytest.mark.parametrize("choose", [select_d_optimal, select_farthest_points])
def test_columns_that_say_nothing_do_no_harm(choose):
    rng = np.random.default_rng(0)
    rows = np.hstack([np.ones((9, 1)), rng.normal(size=(9, 2)), np.zeros((9, 1))])
    chosen, scores = choose(rows, 9)
    assert sorted(chosen.tolist()) == list(range(9))
    assert np.isfinite(scores).all()


def cells(n=14, elements=("Be",), seed=0):
    """Small distorted cells with kinds."""
    rng = np.random.default_rng(seed)
    result = []
    for k in range(n):
        atoms = bulk("Be", "hcp", a=2.2 + 0.03 * (k % 5), c=3.6)
        atoms.positions += rng.normal(scale=0.05 + 0.02 * (k % 3), size=(2, 3))
        atoms.symbols = rng.choice(elements, 2)
        atoms.info = {"config_id": 100 + k, "config_type": "even" if k % 2 == 0 else "odd"}
        result.append(atoms)
    return result


@pytest.mark.parametrize("quadratic", [True, False])
@pytest.mark.parametrize("elements", [("Be",), ("Be", "W")])
def test_energy_rows_are_those_of_the_whole_configuration(lammps, quadratic, elements):
    basis = SnapBasis(elements=list(elements), twojmax=4, quadratic=quadratic, wj=[1.0, 0.6][: len(elements)])
    result = [*cells(3, elements), Atoms("Be2", [[0, 0, 0], [0, 0, 2.1]]), Atoms("Be", cell=[3, 3, 9], pbc=[1, 1, 0])]
    rows = compute_energy_rows(result, basis)
    assert rows.shape == (5, basis.n_features)
    for row, atoms in zip(rows, result, strict=True):
        assert row == pytest.approx(compute_configuration_rows(lammps, basis, atoms)[0], rel=1e-10, abs=1e-10)
    assert np.array_equal(rows, compute_energy_rows(result, basis, jobs=2))


def test_the_gradient_of_atoms_is_the_derivative_in_a_turned_cell(lammps):
    basis = SnapBasis(elements=["Be"], twojmax=4, quadratic=False)
    atoms = cells(1)[0] * (2, 1, 1)
    atoms.rotate(33, (1, 2, 3), rotate_cell=True)
    _, gradient = compute_atom_descriptors_and_gradient(lammps, basis, atoms)
    for j, axis in [(0, 0), (2, 1), (3, 2)]:
        plus, minus = atoms.copy(), atoms.copy()
        plus.positions[j, axis] += 1e-5
        minus.positions[j, axis] -= 1e-5
        values = [compute_atom_descriptors_and_gradient(lammps, basis, item)[0] for item in (plus, minus)]
        assert gradient[j, axis] == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-5)


@pytest.fixture
def pool(tmp_path):
    write(tmp_path / "candidates.extxyz", cells())
    write(tmp_path / "labelled.extxyz", cells(4, seed=9))
    return tmp_path


@pytest.mark.parametrize("twojmax", [1, 4])  # full rank, and more features than rows
def test_leverage_is_that_of_the_rows(pool, twojmax, monkeypatch):
    monkeypatch.setattr("paretofit.sweep.row_stream.BLOCK_BYTES", 1 << 12)  # so that rows come in several blocks
    basis = SnapBasis(elements=["Be"], twojmax=twojmax)
    combined = [*read(pool / "candidates.extxyz", ":"), *read(pool / "labelled.extxyz", ":")]
    write_dataset(pool / "d.h5", combined, {})
    with Dataset(pool / "d.h5") as data:
        design: DesignMatrix = compute_design(data, basis, pool / "design.h5")
    expected = leverage_scores(design.read_all_rows(), design.kind, design.configuration, energy_weight=50.0)
    for method, scores in [("leverage", expected.regular), ("block-leverage", expected.block)]:
        actual = select_structures(
            pool / "candidates.extxyz",
            5,
            method=method,
            already_labelled=pool / "labelled.extxyz",
            basis=basis,
            energy_weight=50.0,
            draw=False,
            out=pool / "s.extxyz",
            figures=False,
            overwrite=True,
        )
        assert actual.table["score"].to_numpy() == pytest.approx(scores[:14], rel=1e-6)
        ranks = actual.table.dropna(subset="rank").sort_values("rank")
        assert ranks["score"].is_monotonic_decreasing
        assert ranks["score"].iloc[-1] >= actual.table.loc[actual.table["rank"].isna(), "score"].max()


@pytest.mark.parametrize("method", SELECTION_METHODS)
def test_choices_are_written_in_order_with_scores(pool, method):
    actual = [
        select_structures(
            pool / "candidates.extxyz",
            n,
            method=method,
            twojmax=2,
            out=pool / f"s{n}.extxyz",
            figures=False,
            overwrite=True,
        )
        for n in (3, 6)
    ]
    few, many = (read(pool / f"s{n}.extxyz", ":") for n in (3, 6))
    assert [item.info["config_id"] for item in few] == [item.info["config_id"] for item in many][:3]
    assert [item.info["selected_rank"] for item in many] == [1, 2, 3, 4, 5, 6]
    assert {item.info["selected_by"] for item in many} == {method}
    table = pd.read_csv(pool / "s6_scores.csv")
    assert len(table) == 14
    assert table.dropna(subset="rank").sort_values("rank")["config_id"].tolist() == [
        item.info["config_id"] for item in many
    ]
    assert actual[1].table["kind"].tolist() == ["even", "odd"] * 7


def test_draws_by_score_depend_on_the_seed_and_on_nothing_else(pool):
    def chosen(seed, jobs=1):
        actual = select_structures(
            pool / "candidates.extxyz",
            7,
            method="leverage",
            twojmax=2,
            draw=True,
            seed=seed,
            jobs=jobs,
            out=pool / "s.extxyz",
            figures=False,
            overwrite=True,
        )
        return actual.table["rank"].fillna(0).tolist()

    assert chosen(1) == chosen(1, jobs=2)
    assert chosen(1) != chosen(2)


def test_the_command_line_end_to_end_with_figures(pool):
    arguments = ["select", "candidates.extxyz", "-n", "5", "--already-labelled", "labelled.extxyz", "--jobs", "1"]
    with rendered_pictures():
        done = call(*arguments, cwd=pool)
    assert done.returncode == 0, done.stderr
    assert "5 of 14 candidates" in done.stdout
    assert (pool / "selected_figures" / "map.png").stat().st_size > 5000
    assert len(read(pool / "selected.extxyz", ":")) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 15}, "number of candidates, 14; got 15"),
        ({"n": 0}, "number of candidates, 14; got 0"),
        ({"method": "leverge"}, "did you mean 'leverage'"),
        ({"candidates": "none.extxyz"}, "no file at .*none.extxyz"),
        ({"already_labelled": "none.h5"}, "no dataset at .*none.h5"),
        ({"out": "candidates.extxyz"}, "is one of the input files; choose another file name"),
        (
            {"out": "labelled.extxyz", "already_labelled": "labelled.extxyz"},
            "is one of the input files; choose another file name",
        ),
        ({"out": "selected"}, "so its name must end in .extxyz"),
        ({"twojmax": 20}, "features, more than the maximum of 20000; reduce --twojmax"),
        ({"candidates": "empty.extxyz"}, "empty.extxyz"),
        ({"draw": False, "method": "random"}, "require a leverage method; got 'random'"),
        ({"energy_weight": 0.0}, "energy weight must be positive; got 0.0"),
        (
            {"candidates": "overlap.extxyz"},
            "1 of overlap.extxyz has two atoms closer than 0.3 times the sum",
        ),
        ({"basis": SnapBasis(elements=["W"])}, "has Be, an element that the basis lacks"),
    ],
)
def test_wrong_input_is_one_sentence(pool, changes, message, monkeypatch):
    monkeypatch.chdir(pool)
    (pool / "empty.extxyz").write_text("")
    write(pool / "overlap.extxyz", [Atoms("Be2", [[0, 0, 0], [0, 0, z]]) for z in (2.0, 0.01, 3.0)])
    before = (pool / "candidates.extxyz").read_bytes()
    with pytest.raises(InputError, match=message) as caught:
        select_structures(**{"candidates": "candidates.extxyz", "n": 2, "figures": False, **changes})
    assert "\n" not in str(caught.value)
    assert (pool / "candidates.extxyz").read_bytes() == before
    assert not (pool / "selected.extxyz").exists()


def test_what_is_labelled_already_is_left_out_and_counted(pool):
    combined = [*read(pool / "candidates.extxyz", ":"), *read(pool / "labelled.extxyz", ":2")]
    for atoms in combined:
        atoms.info.pop("config_id", None)
    write(pool / "both.extxyz", combined)
    names = {"already_labelled": pool / "labelled.extxyz", "out": pool / "s.extxyz", "overwrite": True}
    actual = select_structures(pool / "both.extxyz", 3, figures=False, **names)
    assert (actual.n_already_labelled, len(actual.table)) == (2, 14)
    with pytest.raises(InputError, match=r"14 \(2 more are labelled already\); got 15"):
        select_structures(pool / "both.extxyz", 15, **names)


def test_the_command_line_ends_with_2(pool):
    done = call("select", "candidates.extxyz", "-n", "15", cwd=pool)
    assert done.returncode == 2
    assert "n must be at least 1 and at most the number of candidates, 14; got 15" in done.stderr
    assert "Traceback" not in done.stderr
