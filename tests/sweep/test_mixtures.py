"""Mixtures of levels in a sweep: fits by hand, the same bytes after a resume, confidence, answer, plan and export."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.command_line import call
from helpers.studies import study_file, sweep_input

from paretofit import InputError, run_study
from paretofit.commands import export_potential, fit_dataset, plan
from paretofit.commands.planning import list_label_ids
from paretofit.pareto import find_mixtures
from paretofit.potentials import CommitteeSettings
from paretofit.report import find_answer, format_setting_keys
from paretofit.study import load_study, prepare_study
from paretofit.sweep import (
    Mixture,
    SweepGrid,
    fit_mixture_rows,
    list_mixture_draws,
    run_sweep,
    write_results,
)

MIXTURES = [
    {"base": 2, "top": 5, "top_sizes": [10, 20], "base_energy_weight": [0, 0.25, 1]},
    {"base": 2, "middle": 4, "middle_sizes": [30], "top": 5, "top_sizes": [10], "base_sizes": [60]},
]


@pytest.fixture(scope="module")
def data(beryllium, tmp_path_factory):
    return sweep_input(beryllium, tmp_path_factory.mktemp("mixtures"))


@pytest.fixture
def grid():
    mixtures = [
        Mixture("2+5", ("2", "5"), (39,), (3, 10), "block-leverage", 1.0),
        Mixture("2(w=0)+5", ("2", "5"), (39,), (10,), "block-leverage", 0.0),
        Mixture("2+3+5", ("2", "3", "5"), (30, 20), (5, 10), "random", 0.25),
    ]
    return SweepGrid(["2", "3", "5"], [2, 4], [(1.0, 1.0), (12.25, 1.0)], [20, 39], ["random"], 2, mixtures=mixtures)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return run_study(study_file(folder, mixtures=MIXTURES), out=folder / "run")


def test_mixtures_equal_fits_of_stacked_rows(data, grid):
    results = run_sweep(data, grid)
    assert len(results) == grid.count_fits()
    mixtures = results[find_mixtures(results)]
    assert len(mixtures) == 2 * 2 * 2 * 5, "draws, 2Jmax, weights, training sets"
    draws = {
        (draw.mixture.name, draw.repeat, draw.n_train): draw
        for draw in list_mixture_draws(data, grid, data.compute_leverage_scores())
    }
    design = data.design
    test = np.flatnonzero(np.isin(design.configuration, data.test) & (design.kind == 1))
    for row in mixtures.itertuples():
        draw = draws[row.level, row.repeat, row.n_train]
        p = design.count_columns_up_to(row.twojmax)
        fit = fit_mixture_rows(design, draw, p, (row.w_energy, row.w_force))
        residuals = design.read_rows(test, p) @ fit.coefficients - design.targets["5"][test]
        assert row.ref_force == pytest.approx(1000 * np.sqrt(np.mean(residuals**2)), rel=1e-8)
        assert row.train_energy == pytest.approx(1000 * fit.rmse["energy"], rel=1e-6, abs=1e-4)
        seconds = [
            design.seconds[level][rows].sum()
            for level, rows in zip(draw.mixture.levels, draw.configurations, strict=True)
        ]
        assert row.label_seconds == pytest.approx(sum(seconds))
        assert [len(rows) for rows in draw.configurations] == [*draw.mixture.lower_sizes, row.n_train]


def test_bytes_depend_neither_on_processes_nor_on_a_resume(data, grid, tmp_path):
    write_results(run_sweep(data, grid, jobs=2), tmp_path / "two.csv")
    run_sweep(data, SweepGrid(**{**vars(grid), "mixtures": grid.mixtures[:1]}), journal=tmp_path)
    write_results(run_sweep(data, grid, journal=tmp_path), tmp_path / "resumed.csv")
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "resumed.csv").read_bytes()


def test_new_labels_of_the_base_change_only_its_fits(data, grid, tmp_path):
    before = run_sweep(data, grid, journal=tmp_path)
    data.design.targets["2"] = data.design.targets["2"] * 1.01
    after = run_sweep(data, grid, journal=tmp_path)
    data.design.targets["2"] = data.design.targets["2"] / 1.01
    changed = before["ref_force"].ne(after["ref_force"])
    assert set(before.loc[changed, "level"]) == {"2", *(mixture.name for mixture in grid.mixtures)}


def test_a_run_answers_whether_mixing_pays(finished_run):
    results = finished_run.results
    assert set(results.loc[find_mixtures(results), "level"]) == {
        "2(w=0)+5", "2(w=0.25)+5", "2+5", "2(n=60)+4(n=30)+5",
    }  # fmt: skip
    assert results["ref_force_low"].notna().all(), "further splits have mixtures, too"
    front = finished_run.front
    assert front.loc[find_mixtures(front), "p_front"].notna().all()
    numbers = pd.read_csv(finished_run.folder / "tables" / "finding_mixtures.csv")
    assert {"lower", "higher", "no clear difference"} >= set(numbers["verdict"])
    assert (numbers["share"] > 0.95).equals(numbers["verdict"] == "lower")
    for kind in ("energy", "force"):
        shown = numbers[f"mixture_{kind}"] / numbers[f"single_{kind}"]
        assert numbers[f"mixture_{kind}_ratio"].to_numpy() == pytest.approx(shown.to_numpy(), rel=0.35)
    page = finished_run.report.read_text(encoding="utf-8")
    assert "Do mixtures of levels pay" in page
    answer = find_answer(results)
    assert answer.reference == "5", "mixtures have errors equal to those against the reference, but are not it"


def test_a_setting_of_the_plan_runs(finished_run, tmp_path):
    is_mixture = find_mixtures(finished_run.results)
    answer = find_answer(finished_run.results[is_mixture | (finished_run.results["level"] == "5")])
    option = answer.options[find_mixtures(answer.options)].iloc[0]
    keys = format_setting_keys(option, "5")
    path = study_file(tmp_path, levels=None, twojmax=None, weights=None, sizes=None, sampling_methods=None)
    path.write_text(path.read_text() + keys)
    (mixture,) = prepare_study(load_study(path)).grid.mixtures
    assert (mixture.name, mixture.top_sizes) == (option["level"], (option["n_train"],))


def test_the_labels_of_a_planned_mixture_are_listed(finished_run):
    option = find_answer(finished_run.results).options[find_mixtures].iloc[0]
    ids = list_label_ids(finished_run.folder, option)
    assert {level: len(values) for level, values in ids.items()} == {
        option["base_level"]: option["n_base"], option["top_level"]: option["n_train"],
    }  # fmt: skip
    split = pd.read_csv(finished_run.folder / "split.csv").set_index("id")
    assert (split.loc[ids[option["top_level"]], "set"] == "train").all()


def test_a_mixture_is_exported(finished_run, tmp_path):
    outcome = call("export", finished_run.folder, "--level", "2(n=60)+4(n=30)+5", "-o", tmp_path)
    assert "60 configurations at level 2, 30 at level 4 and 10 at level 5" in outcome.stdout
    assert "LAMMPS reproduces the model" in outcome.stdout
    with pytest.raises(InputError, match="committee of a mixture"):
        export_potential(finished_run.folder, tmp_path / "c", level="2+5", committee=CommitteeSettings(4))


def test_the_reference_level_is_exported_by_default(finished_run, tmp_path):
    assert export_potential(finished_run.folder, tmp_path).row["level"] == "5"


def test_fit_repeats_the_mixture_of_a_plan_from_its_study(finished_run, tmp_path):
    option = find_answer(finished_run.results).options[find_mixtures].iloc[0]
    limited = plan(finished_run.folder, budget=1e9)
    text = replace(limited, choice=option, label_ids=list_label_ids(finished_run.folder, option)).study_text
    path = tmp_path / "setting.yaml"
    path.write_text(text)
    fit = fit_dataset(path, tmp_path / "potential")
    results = finished_run.results
    is_same = results["repeat"].eq(0)
    for name in ("level", "n_train", "twojmax", "w_energy", "w_force"):
        is_same &= results[name].eq(option[name])
    row = results[is_same].squeeze()
    expected = {f"train {kind}": row[f"train_{kind}"] for kind in ("energy", "force")}
    expected |= {f"held out {kind}": row[f"ref_{kind}"] for kind in ("energy", "force")}
    assert {name: fit.errors[name] for name in expected} == pytest.approx(expected, rel=1e-7)


def test_a_mixture_with_the_name_of_a_level_is_refused(data):
    grid = SweepGrid(["2", "5"], [4], [(1.0, 1.0)], [20], mixtures=[
        Mixture("2", ("2", "5"), (39,), (3,), "random", 1.0),
    ])  # fmt: skip
    with pytest.raises(InputError, match="would be called '2', like a level of the study"):
        run_sweep(data, grid)


@pytest.mark.slow
def test_a_pilot_leaves_mixtures_out(tmp_path):
    path = study_file(tmp_path, mixtures=MIXTURES, twojmax=[2])
    outcome = call("plan", path, "--budget", "10min", "--pilot-size", "40", "-o", tmp_path / "pilot")
    assert outcome.returncode == 0, outcome.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixtures": [{"base": 5, "top": 5, "top_sizes": [5]}]}, "different levels; got 5 \\+ 5"),
        ({"mixtures": [{"base": 5, "top": 2, "top_sizes": [5]}]}, "in order of cost"),
        ({"mixtures": [{"base": 3, "top": 5, "top_sizes": [5]}]}, "level '3'; available: 2, 4, 5"),
        ({"mixtures": [{"base": 2, "top": 5, "top_sizes": [5000]}]}, "at most 13"),
        ({"mixtures": [{"base": 2, "top": 5, "top_sizes": [5], "middle": 4}]}, "'middle_sizes' must be set together"),
        ({"mixtures": [{"base": 2, "top": 5, "top_sizes": [5]}], "ridge": ["auto"]}, "neither 'ridge' nor"),
        ({"mixtures": [{"base": 2, "top": 5, "top_sizes": [5], "top_sampling": "best"}]}, "'best' is not one of"),
        ({"mixtures": [{"base": 2, "top": 5, "top_sizes": [5]}] * 2}, "same entry twice; got 2\\+5"),
        ({"mixtures": [{"base": 2, "top": 5, "top_sizes": [5]}], "engine": "plain"}, "require 'engine: fast'"),
        ({"mixtures": [{"base": 2, "top": 5, "top_sizes": [5]}], "leave_one_out": True}, "neither 'ridge' nor"),
    ],
)
def test_invalid_mixtures_get_one_sentence(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run_study(study_file(tmp_path, **changes), out=tmp_path / "run")
