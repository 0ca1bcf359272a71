"""Learning curves, the planner against brute force, the pilot, and what a front is made of."""

import json
import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from helpers.command_line import call
from hypothesis import given, settings
from hypothesis import strategies as st

from paretofit import InputError, plan
from paretofit.commands.planning import parse_duration
from paretofit.commands.property_limits import convert_property_limits, parse_property_limits
from paretofit.pareto import (
    Limits,
    choose_option,
    compute_front_shares,
    find_knee,
    merge_adjacent_ranges,
    pareto_front,
    select_best_by_budget,
    tabulate_options,
)
from paretofit.pareto.learning_curve import LearningCurve
from paretofit.pareto.planner import compute_score

SIZES = (10, 20, 40, 80, 160)
COST = {"a": 1.0, "b": 8.0, "c": 60.0}
FLOOR = {"a": 60.0, "b": 20.0, "c": 2.0}


def table(repeats=7, noise=0.1, seed=0, sizes=SIZES):
    """A results table: cheap levels have a floor, large models fall further and begin higher."""
    rng = np.random.default_rng(seed)
    rows = []
    for level, floor in FLOOR.items():
        for twojmax in (2, 6):
            for weight in (1.0, 12.25, 150.0):
                for n in sizes:
                    for repeat in range(repeats):
                        error = np.hypot(floor, 3 + 40 * (6 / (twojmax + 1)) ** 0.5 + 30 * twojmax / n**0.7)
                        noisy = error * np.exp(noise * rng.normal(size=2))
                        rows.append(
                            {
                                "level": level, "twojmax": twojmax, "sampling": "random", "n_train": n,
                                "repeat": repeat, "w_energy": weight, "w_force": 1.0,
                                "ref_energy": noisy[0] * (1 + 1 / weight), "ref_force": 5 * noisy[1] * weight**0.1,
                                "label_seconds": COST[level] * n, "md_us_per_atom_step": 10.0 * (twojmax + 1),
                            }
                        )  # fmt: skip
    return pd.DataFrame(rows)


def curve(errors, sizes=SIZES, **more):
    return LearningCurve(np.array(sizes, float), tuple(np.atleast_1d(item).astype(float) for item in errors), **more)


class TestLearningCurve:
    def test_between_sizes_it_is_straight_in_logarithms(self):
        selected = curve([[100.0 / n**0.5] for n in SIZES])
        actual = selected.predict(np.array([10, 15, 100]))
        assert actual.errors == pytest.approx(100 / np.sqrt([10, 15, 100]))
        assert not actual.is_extrapolated.any()

    @pytest.mark.parametrize("exponent", [0.5, 0.7, 1.0])
    def test_beyond_it_follows_a_power_law_down_to_its_floor(self, exponent):
        truth = lambda n: 5 + 300 * n**-exponent  # noqa: E731  (one line, used twice)
        selected = curve([[truth(n)] * 3 for n in map(float, SIZES)], training_errors=np.array([1.0]))
        actual = selected.predict(np.array([320.0, 1600.0]))
        assert actual.errors == pytest.approx(truth(np.array([320.0, 1600.0])), rel=1e-6)
        assert actual.is_extrapolated.all()
        assert (actual.low < actual.errors).all()
        assert (actual.errors < actual.high).all()

    def test_it_never_falls_below_the_training_error(self):
        errors = [[100.0 * n**-0.5] for n in SIZES]
        free, bound = curve(errors), curve(errors, training_errors=np.array([7.0]))
        assert free.predict(np.array([1e6])).errors[0] < 1
        assert 7.0 <= bound.predict(np.array([1e6])).errors[0] < 7.9

    def test_a_cheaper_level_keeps_what_its_labels_add(self):
        reference = curve([[5 + 300 / n] for n in SIZES], training_errors=np.array([5.0]))
        selected = curve([[np.hypot(5 + 300 / n, 20.0)] for n in SIZES], reference_curve=reference)
        assert selected.predict(np.array([1e5])).errors[0] == pytest.approx(np.hypot(5, 20), rel=1e-3)
        held = curve([[5 + 300 / n] for n in SIZES], reference_curve=reference, label_error=16.0)
        assert held.predict(np.array([1e5])).errors[0] > 0.9 * np.hypot(5, 8.0) * 6.875 / np.hypot(6.875, 8.0)

    def test_a_peak_at_small_sizes_is_not_fitted_and_no_slope_promises_nothing(self):
        peaked = curve([[30.0], [90.0], [50.0], [30.0], [20.0]])
        assert peaked.predict(np.array([320.0])).errors[0] < 20.0
        rising = curve([[10.0], [11.0], [12.0], [13.0], [14.0]])
        assert rising.predict(np.array([320.0])).errors[0] == pytest.approx(14.0)

    def test_the_range_holds_four_draws_of_five_and_one_subset_borrows_it(self):
        draws = np.exp(0.2 * np.random.default_rng(0).normal(size=(5, 4000)))
        selected = curve([*draws[:4], np.full(10, 1.0)])
        actual = selected.predict(np.array(SIZES, float))
        for k in range(4):
            inside = (actual.low[k] <= draws[k]) & (draws[k] <= actual.high[k])
            assert inside.mean() == pytest.approx(0.8, abs=0.01)
        assert actual.high[4] == pytest.approx(actual.high[3] ** np.sqrt(0.5) * actual.errors[4], rel=0.05)

    def test_folds_are_joined_by_their_root_mean_square(self):
        errors = [np.array([3.0, 4.0, 12.0]) / n for n in SIZES]
        selected = curve(errors, has_folds=True)
        assert selected.central_errors == pytest.approx([np.sqrt(169 / 3) / n for n in SIZES])

    @given(
        st.lists(st.floats(0.1, 1e4), min_size=1, max_size=6),
        st.floats(1.0, 50.0),
        st.lists(st.floats(0.1, 1e4), min_size=6, max_size=6),
    )
    @settings(max_examples=60)
    def test_estimates_are_finite_positive_and_never_rise_beyond_what_was_measured(self, repeats, factor, levels):
        sizes = np.arange(1, 7) * 5.0
        selected = curve([level * np.array(repeats) for level in levels], sizes)
        actual = selected.predict(np.array([7.0, 30.0 * factor]))
        known = np.isfinite(actual.low)  # a single fit has no spread, but what is foretold beyond has
        assert known.all() == (len(set(repeats)) > 1) or known[1]
        assert (actual.low[known] > 0).all()
        assert (actual.low[known] <= actual.errors[known] * (1 + 1e-9)).all()
        assert np.isfinite(actual.high[known]).all()
        assert actual.errors[1] <= selected.central_errors[-1] * (1 + 1e-9)


def brute_force(results, budget, prefer):
    """Every setting at every whole number of configurations, interpolated afresh."""
    best = (np.inf, None)
    for key, rows in results.groupby(["level", "twojmax", "w_energy"]):
        grouped = rows.groupby("n_train")[["ref_energy", "ref_force"]].median()
        for n in range(SIZES[0], SIZES[-1] + 1):
            if n * COST[key[0]] > budget:
                continue
            energy, force = (np.exp(np.interp(np.log(n), np.log(SIZES), np.log(grouped[c]))) for c in grouped)
            value = {"both": np.sqrt(energy * force), "energy": energy, "force": force}[prefer]
            if value < best[0] - 1e-12:
                best = value, (*key, n)
    return best


class TestPlanner:
    @pytest.mark.parametrize("prefer", ["both", "energy", "force"])
    @pytest.mark.parametrize("budget", [40, 200, 900, 5000, 1e6])
    def test_it_finds_what_brute_force_finds(self, budget, prefer):
        results = table()
        actual = tabulate_options(results, budget=budget, extrapolation_factor=1)
        chosen = choose_option(actual, Limits(budget), prefer)
        value, key = brute_force(results, budget, prefer)
        selected = float(compute_score(pd.DataFrame([chosen]), prefer).iloc[0])
        assert selected == pytest.approx(value, rel=2e-3)  # the planner looks at some forty sizes, not at all
        assert (chosen["level"], chosen["twojmax"], chosen["w_energy"]) == key[:3]
        assert chosen["label_seconds"] <= budget
        assert not chosen["beyond"]

    def test_the_cheapest_that_is_good_enough(self):
        results = table(noise=0.0)
        result = plan(results, max_energy=60.0, extrapolation_factor=1)
        actual = tabulate_options(results, extrapolation_factor=1)
        fit = actual[actual["energy"] <= 60.0]
        assert result.choice["label_seconds"] == fit["label_seconds"].min()
        assert result.choice["energy"] <= 60.0

    def test_more_money_never_makes_it_worse_and_doubling_says_by_how_much(self):
        results = table()
        scores = [
            float(np.sqrt(result.choice["energy"] * result.choice["force"]))
            for result in (plan(results, budget=budget) for budget in (50, 100, 200, 400, 800))
        ]
        assert all(after <= before * (1 + 1e-3) for before, after in pairwise(scores))
        once, twice = plan(results, budget=400), plan(results, budget=800)
        assert once.doubled_budget_choice["energy"] == twice.choice["energy"]
        assert once.doubled_budget_choice["label_seconds"] <= 800

    def test_an_md_speed_rules_out_slow_models(self):
        result = plan(table(), budget=2000, min_md_speed=30_000)
        assert result.choice["twojmax"] == 2
        assert set(result.by_twojmax["twojmax"]) == {2}
        assert result.doubled_budget_choice["twojmax"] == 2
        results = table()
        results.loc[results["twojmax"] == 4, "md_us_per_atom_step"] = np.nan  # an unknown cost is not the lowest
        for costs in (table(), results):
            with pytest.raises(InputError, match="the fastest, 2Jmax = 2, needs 30"):
                plan(costs, budget=2000, min_md_speed=40_000)

    def test_extrapolation_is_said_and_limited(self):
        within, beyond = (
            plan(table(), budget=1e6, extrapolation_factor=1),
            plan(table(), budget=1e6, extrapolation_factor=3),
        )
        assert within.choice["n_train"] == 160
        assert not within.choice["beyond"]
        assert 160 < beyond.choice["n_train"] <= 480
        assert beyond.choice["beyond"]
        assert "EXTRAPOLATED" in beyond.text
        assert "EXTRAPOLATED" not in within.text
        assert any("raise the extrapolation factor" in note for note in within.notes)

    def test_what_it_says_is_in_the_table(self):
        results = table()
        result = plan(results, budget=300, extrapolation_factor=1)
        row = result.choice
        selected = results[
            (results[["level", "twojmax", "w_energy"]] == row[["level", "twojmax", "w_energy"]]).all(axis=1)
        ]
        for _, near in result.measurements.iterrows():
            part = selected[selected["n_train"] == near["n_train"]]
            assert near["ref_energy"] == part["ref_energy"].median()
            assert near["repetitions"] == len(part)
        assert set(result.by_level["level"]) <= set("abc")
        assert result.by_level["energy"].iloc[0] == row["energy"]

    def test_one_fit_has_no_spread(self):
        result = plan(table(repeats=1), budget=300, extrapolation_factor=1)
        assert np.isnan(result.choice["energy_low"])
        assert "a single fit, of unknown spread" in result.text
        assert result.to_dict()["plan"]["energy_low"] is None

    def test_a_study_without_a_test_set_is_planned_by_leave_one_out(self):
        results = table()
        hidden = results.rename(columns={"ref_energy": "loo_ref_energy", "ref_force": "loo_ref_force"})
        hidden = hidden.assign(ref_energy=np.nan, ref_force=np.nan, loo_energy=1.0, loo_force=1.0)
        pd.testing.assert_series_equal(plan(hidden, budget=300).choice, plan(results, budget=300).choice)

    def test_the_keys_of_a_study_keep_the_reference(self):
        result = plan(table(), budget=100)
        assert result.reference == "c"
        assert f"levels: [{result.choice['level']}, c]" in result.study_text

    def test_json_html_and_the_keys_of_a_study(self):
        result = plan(table(), budget="10 min")
        messages = json.loads(json.dumps(result.to_dict()))
        assert messages["plan"]["level"] == result.choice["level"]
        assert messages["limits"]["budget"] == 600
        assert "sizes: [" in result.study_text
        assert "<table" in result._repr_html_()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"budget": 5}, "a budget of 5 s is too small: the cheapest setting costs 10 s"),
            ({}, "requires a budget"),
            ({"budget": "5 parsecs"}, "a budget must be a positive number of seconds"),
            ({"budget": -3}, "a budget must be a positive number"),
            ({"budget": 900, "max_energy": 0.1}, "reaches an energy error of 0.1 meV/atom .the lowest is"),
            ({"budget": 900, "max_force": 0.1}, "reaches a force error of 0.1 meV/Å .the lowest is"),
            ({"budget": 20, "max_energy": 70}, "cheapest setting that does so costs .* s: level"),
            ({"budget": 900, "max_force": float("nan")}, "'max_force' must be a positive number"),
            ({"budget": 900, "prefer": "forces"}, "did you mean 'force'"),
            ({"budget": 900, "extrapolation_factor": 0.5}, "'extrapolation_factor' must be at least 1"),
        ],
    )
    def test_what_cannot_be_is_one_sentence(self, changes, message):
        with pytest.raises(InputError, match=message) as caught:
            plan(table(), **changes)
        assert "\n" not in str(caught.value)

    def test_tables_that_cannot_be_planned_from(self):
        with pytest.raises(InputError, match="lacks 'label_seconds'"):
            plan(table().drop(columns="label_seconds"), budget=100)
        with pytest.raises(InputError, match="no row of the results table"):
            plan(table().assign(ref_energy=np.nan), budget=100)
        with pytest.raises(InputError, match="no MD cost"):
            plan(table().assign(md_us_per_atom_step=np.nan), budget=100, min_md_speed=1e4)

    def test_the_command_line(self, tmp_path):
        table().to_csv(tmp_path / "results.csv", index=False)
        done = call("plan", "results.csv", "--budget", "5min", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "why: the lowest product of both errors of 18 settings" in done.stdout
        messages = json.loads(call("plan", "results.csv", "--budget", "5min", "--json", cwd=tmp_path).stdout)
        assert messages["plan"]["label_seconds"] <= 300
        assert "twojmax: [" in call("plan", "results.csv", "--max-energy", "70", "--study", cwd=tmp_path).stdout
        for arguments, text in (
            (("nothing", "--budget", "1h"), "nothing"),
            ((".", "--budget", "1h"), "not a run folder"),
            (("results.csv",), "requires a budget"),
        ):
            wrong = call("plan", *arguments, cwd=tmp_path)
            assert wrong.returncode == 2
            assert text in wrong.stderr
            assert "Traceback" not in wrong.stderr

    @pytest.mark.parametrize(
        ("text", "seconds"), [("600", 600), ("90 min", 5400), ("20h", 72000), ("3 d", 259200), (12.5, 12.5)]
    )
    def test_durations(self, text, seconds):
        assert parse_duration(text) == seconds


class TestAnatomy:
    def test_the_knee_of_a_bent_line_is_its_bend(self):
        x = np.array([1.0, 2.0, 3.0, 30.0, 300.0])
        y = np.array([1000.0, 100.0, 3.0, 2.0, 1.0])
        assert find_knee(pd.DataFrame({"x": x, "y": y}), ["x", "y"]) == 2
        order = np.array([3, 1, 4, 0, 2])
        assert order[find_knee(pd.DataFrame({"x": x[order], "y": 7 * y[order]}), ["x", "y"])] == 2

    def test_shares_of_a_known_front(self):
        front = pd.DataFrame({"x": [1.0, 10.0, 100.0], "y": [100.0, 10.0, 1.0], "who": ["a", "b", "b"]})
        shares = compute_front_shares(front, ["x", "y"], "who").set_index("who")
        # scaled points (0, 1), (½, ½), (1, 0) under the corner 1.05: union of three boxes, in hundredths
        boxes = 1.05 * 0.05 + 0.55 * (0.55 - 0.05) + 0.05 * (1.05 - 0.55)
        without_a = 0.55 * 0.55 + 0.05 * (1.05 - 0.55)
        assert shares.loc["a", "volume_lost"] == pytest.approx(1 - without_a / boxes)
        assert shares.loc["b", "points"] == 2
        assert shares["share"].sum() == pytest.approx(1.0)

    @given(st.lists(st.tuples(st.floats(1, 1e3), st.floats(1, 1e3)), min_size=1, max_size=30), st.floats(1, 1e3))
    @settings(max_examples=80)
    def test_the_staircase_gives_the_best_of_what_is_affordable(self, points, budget):
        frame = pd.DataFrame(points, columns=["cost", "error"])
        stairs = select_best_by_budget(frame, "error", "cost")
        step = stairs[(stairs["budget_from"] <= budget) & (budget < stairs["budget_to"])]
        affordable = frame[frame["cost"] <= budget]
        assert len(step) == (len(affordable) > 0)
        if len(step):
            assert step["error"].iloc[0] == affordable["error"].min()

    def test_the_command_line_says_what_a_front_is_made_of(self, tmp_path):
        table(noise=0.0).to_csv(tmp_path / "t.csv", index=False)
        arguments = ("t.csv", "--minimize", "ref_energy,label_seconds", "--group-by", "level,twojmax,n_train")
        done = call("pareto", *arguments, "--summarise", "level,twojmax", "--out", "front.csv", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        for text in ("hypervolume 0.", "knee: level ", "volume_lost", "rows on the front"):
            assert text in done.stdout
        wrong = call("pareto", *arguments, "--summarise", "levels", cwd=tmp_path)
        assert wrong.returncode == 2
        assert "unknown column 'levels'; available: level" in wrong.stderr

    def test_runs_of_one_level_are_merged(self):
        frame = pd.DataFrame({"cost": [1, 2, 3, 4.0], "error": [9, 8, 7, 6.0], "level": ["a", "a", "b", "b"]})
        runs = merge_adjacent_ranges(select_best_by_budget(frame, "error", "cost"), "level")
        assert runs["level"].tolist() == ["a", "b"]
        assert runs["budget_from"].tolist() == [1, 3]
        assert runs["budget_to"].tolist() == [3, np.inf]
        assert runs["error"].tolist() == [8, 6]

    def test_every_chosen_point_is_on_the_front(self):
        results = table(noise=0.0)
        medians = results.groupby(["level", "twojmax", "w_energy", "n_train"], as_index=False).median(numeric_only=True)
        front = pareto_front(medians, ["ref_energy", "ref_force", "label_seconds"])
        stairs = select_best_by_budget(medians, "ref_energy", "label_seconds")
        best = front.groupby("label_seconds")["ref_energy"].min()
        assert (stairs["ref_energy"].to_numpy() >= best.cummin().reindex(stairs["label_seconds"]).to_numpy()).all()
        assert set(stairs["label_seconds"]) <= set(front["label_seconds"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("C44=5meV", "the unit of 'C44' is GPa; got 5meV; give the limit in GPa"),
        ("C45=5", "the results have no property 'C45'; available: C44; did you mean 'C44'"),
        ("C44=.", "the limit of 'C44' must be a positive number, such as C44=5; got ."),
        ("C44=0", "the limit of 'C44' must be a positive number, such as C44=5; got 0"),
        ("C44", "a limit of a property must be a name and a number, such as C44=5; got 'C44'"),
    ],
)
def test_limits_of_properties_are_checked_with_their_units(text, message):
    results = pd.DataFrame({"prop_C44_error": [1.0]})
    with pytest.raises(InputError, match=re.escape(message)):
        convert_property_limits(parse_property_limits([text]), results, {"C44": "GPa"})
    for right in ("C44=5", "C44=5GPa", "C44 = 5 gpa"):
        assert convert_property_limits(parse_property_limits([right]), results, {"C44": "GPa"}) == {"prop_C44_error": 5}
