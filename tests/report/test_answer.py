"""The answer: what the planner recommends, in a sentence, a table, a picture, YAML and on terminals of any width."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from helpers.results import LEVELS, POOL, synthetic
from rich.cells import cell_len
from ruamel.yaml import YAML

from paretofit.commands import plan
from paretofit.core import InputError
from paretofit.pareto import drop_similar_ranges
from paretofit.report import WIDE_INTERVAL, PairedErrors, find_answer, find_answer_or_reason, render_answer
from paretofit.report.answer import format_answer_table
from paretofit.report.budgets import MAX_SCORE_RATIO, choose_budgets, format_budget
from paretofit.report.figures import answer_figures, style
from paretofit.report.paired_errors import ErrorComparison
from paretofit.study import Study

STUDY = {"name": "be", "dataset": "be.h5", "basis": {"elements": ["Be"]}, "twojmax": [4, 8]}


@pytest.fixture(scope="module")
def results():
    return synthetic()


@pytest.fixture(scope="module")
def answer(results):
    return find_answer(results, STUDY)


def test_every_budget_has_the_setting_of_plan(results, answer):
    assert 3 <= len(answer.table) <= 5
    for _, row in answer.table.iterrows():
        choice = plan(results, budget=row["budget"]).choice
        pd.testing.assert_series_equal(row[choice.index], choice, check_names=False)


def test_the_curve_is_the_lowest_score_of_all_options_within_a_budget(answer):
    score = np.sqrt(answer.options["energy"] * answer.options["force"])
    for budget in answer.table["budget"]:
        steps = answer.curve[answer.curve["budget_from"] <= budget]
        assert steps["score"].iloc[-1] == score[answer.options["label_seconds"] <= budget].min()
    assert (np.diff(answer.curve["score"]) < 0).all()
    assert answer.curve["score"].iloc[0] > answer.curve["score"].iloc[-1]
    assert answer.knee in set(answer.curve["budget_from"])


def test_the_sentence_names_levels_in_the_order_of_the_curve(answer):
    words = answer.sentence.rstrip(".").replace(",", "").split()
    levels = [words[k + 1] for k, word in enumerate(words) if word == "level"]
    assert levels == sorted(set(levels))
    assert levels[-1] == answer.curve["level"].iloc[-1]
    for _, row in answer.table.iterrows():
        assert row["level"] in levels


def test_a_single_level_is_answered_by_the_best_twojmax(results):
    single = find_answer(results[results["level"] == "5"])
    assert single.sentence.startswith("All labels are of level 5: ")
    assert "2Jmax 8" in single.sentence
    assert (single.rivals["twojmax"] != single.table["twojmax"].iloc[: len(single.rivals)]).all()


@pytest.mark.parametrize("width", [60, 80, 110])
def test_several_bases_at_a_single_level_are_compared_as_models(results, width):
    table = results[results["level"] == LEVELS[-1]]
    errors = table[["ref_energy", "ref_force"]] * 0.8
    bases = pd.concat([table.assign(basis="snap"), table.assign(basis="pod", **errors)], ignore_index=True)
    answer = find_answer(bases, STUDY)
    assert answer.compared == "model"
    assert "2Jmax" not in answer.sentence + answer.certainty
    assert "from then on pod " in answer.sentence or "take pod " in answer.sentence
    assert "other model" in answer.certainty
    sizes = {f"{name} {size}" for name in ("snap", "pod") for size in set(table["twojmax"])}
    assert set(answer.rivals["model"]) <= sizes
    shown = format_answer_table(answer)
    for row, ties in zip(shown["model"], answer.table["ties"], strict=True):
        assert row.split(" or ")[0] in sizes
        assert set(ties) <= sizes - {row.split(" or ")[0]}
    text = render_answer(answer, width)
    assert all(row.split(" or ")[0] in text for row in shown["model"])
    assert "…" not in text
    figure = answer_figures.plot_answer(answer, [LEVELS[-1]])[0].figure
    models = list(dict.fromkeys(answer.curve["model"]))
    colours = {style.get_level_colour(name, models) for name in models}
    assert {line.get_color() for line in figure.axes[0].get_lines()} >= colours - {None}


def test_without_costs_the_budget_is_a_number_of_configurations(results):
    answer = find_answer(results.assign(label_seconds=np.nan))
    assert not answer.has_cost
    assert (answer.table["n_train"] <= answer.table["budget"]).all()
    assert "configurations" in answer.sentence or "any budget" in answer.sentence
    assert any("cost of labels is not known" in note for note in answer.notes)


def test_without_usable_results_there_is_a_reason(results):
    with pytest.raises(InputError, match="no row"):
        find_answer(results.assign(ref_energy=np.nan))
    answer, reason = find_answer_or_reason(results.assign(ref_energy=np.nan))
    assert answer is None
    assert "no row of the results table has finite errors" in reason


def test_rivals_are_all_other_levels_and_not_better(answer):
    best = answer.table.set_index("budget")
    for budget, rivals in answer.rivals.groupby("budget"):
        affordable = answer.options[answer.options["label_seconds"] <= budget]
        assert {*rivals["level"], best.loc[budget, "level"]} == set(affordable["level"])
        assert (rivals["label_seconds"] <= budget).all()
        assert (rivals["excess"] >= 0).all()


def split_errors_with(results, factor, spread):
    """Errors in five splits: those of the study times a common factor of each split, and level 4 times `factor`."""
    settings = results.drop_duplicates(["twojmax", "level", "sampling", "n_train", "w_energy", "w_force"])
    rng = np.random.default_rng(3)
    split = np.exp(rng.normal(0, 0.5, (5, 1, 1)))
    scatter = np.exp(rng.normal(0, spread, (5, 20, len(settings))))
    ratio = np.where(settings["level"] == "4", factor, 1.0)
    errors = {name: settings[name].to_numpy() * ratio * split * scatter for name in ("ref_energy", "ref_force")}
    return PairedErrors(settings, errors)


def test_paired_errors_decide_whether_a_level_is_clearly_worse(results):
    # the scatter of the splits is the same for all levels, so that it does not hide the difference
    two_levels = results[results["level"].isin(["4", "5"])].assign(label_seconds=lambda t: t["n_train"] * 1.0)
    same = two_levels[two_levels["level"] == "5"]
    two_levels = pd.concat([same.assign(level="4", ref_energy=same["ref_energy"] * 1.02), same], ignore_index=True)
    clear = find_answer(two_levels, STUDY, split_errors_with(two_levels, 1.1, 0.001))
    assert clear.rivals["is_clear"].all()
    assert "Every other level is clearly worse" in clear.certainty
    assert set(format_answer_table(clear)["level"]) == {"5"}
    tied = find_answer(two_levels, STUDY, split_errors_with(two_levels, 1.0, 0.1))
    assert not tied.rivals["is_clear"].any()
    assert "This is not certain at each of these budgets" in tied.certainty
    assert set(format_answer_table(tied)["level"]) == {"5 or 4"}
    assert any("not clearly worse" in note for note in tied.notes)
    assert tied.rivals["share_above"].between(0.3, 0.8).all()


def test_two_splits_that_agree_make_nothing_certain(results):
    """Two splits have the same sign of a difference by chance in half of the cases; the whole set has no others."""
    whole_set = results[results["n_train"] == results["n_train"].max()]
    errors = split_errors_with(whole_set, 10.0, 0.001)
    few = PairedErrors(errors.settings, {name: values[:2] for name, values in errors.errors.items()})
    first, second = (whole_set[whole_set["level"] == level].iloc[0].to_dict() for level in "45")
    first["weight_ratio"] = second["weight_ratio"] = first["w_energy"] / first["w_force"]
    shares = [ErrorComparison(whole_set, table).compute_share_above(["ref_energy"], first, second)
              for table in (errors, few)]  # fmt: skip
    assert shares == pytest.approx([1.0, np.nan], nan_ok=True)


def test_paired_samples_are_scaled_to_the_recommended_sizes():
    """Errors that do not scatter leave no doubt about a rival with larger expected errors at any size."""
    results = synthetic(sizes=(20, POOL))
    medians = results.groupby(["twojmax", "level", "sampling", "n_train", "w_energy"])
    errors = {name: medians[name].transform("median") for name in ("ref_energy", "ref_force")}
    table = results.assign(**errors)
    rivals = find_answer(table, STUDY, split_errors_with(table, 1.0, 1e-4)).rivals
    assert (rivals["excess"] > 0.05).any()
    assert rivals.loc[rivals["excess"] > 0.05, "is_clear"].all()


def test_a_setting_with_a_wide_interval_is_pointed_out(results):
    wide = results["n_train"] < results["n_train"].max()
    columns = {f"ref_{kind}_{end}": results[f"ref_{kind}"] * np.where(wide, 100.0, 1.1) ** sign
               for kind in ("energy", "force") for end, sign in (("low", -1), ("high", 1))}  # fmt: skip
    answer = find_answer(results.assign(**columns, further_splits=5), STUDY)
    assert "hardly known" in answer.certainty
    sentence = next(text for text in answer.certainty.split(". ") if "hardly known" in text)
    is_named = [answer.format_budget(budget) in sentence for budget in answer.table["budget"]]
    ratios = [answer.table[f"{kind}_high"] / answer.table[f"{kind}_low"] for kind in ("energy", "force")]
    assert is_named == np.any([ratio > 10 for ratio in ratios], axis=0).tolist()
    assert set(is_named) == {True, False}
    assert "hardly known" not in find_answer(results, STUDY).certainty
    row = answer.table.iloc[0]
    assert WIDE_INTERVAL in plan(results.assign(**columns, further_splits=5), budget=float(row["budget"])).notes


def test_a_single_repetition_makes_nothing_certain():
    single = synthetic(repeats=1)
    for results in (single, single.drop(columns="repeat")):
        answer = find_answer(results, STUDY)
        assert not answer.rivals["is_clear"].any()
        assert answer.certainty.startswith("It is not known how certain this is")
    with pytest.raises(InputError, match="a column 'level'"):
        find_answer(single.drop(columns="level"), STUDY)


def test_the_sentence_omits_a_range_of_a_second():
    """A label of level 4 costs almost as much as one of level 5, so that hardly any budget is better spent on it."""
    results = synthetic(levels=["4", "5"], sizes=(POOL,), seconds={"4": 9.99, "5": 10.0})
    results.loc[results["level"] == "4", ["ref_energy", "ref_force"]] *= 1.5
    answer = find_answer(results, STUDY)
    assert {"4", "5"} <= set(answer.curve["level"])
    assert answer.sentence == "Take level 5 for any budget."


@pytest.mark.parametrize("position", [0, -1])
def test_the_yaml_is_a_study_of_the_setting(answer, position):
    content = YAML(typ="safe").load(answer.studies[position])
    study, row = Study.model_validate(content), answer.table.iloc[position]
    assert study.levels == list(dict.fromkeys([row["level"], "5"]))
    assert study.sizes == (["all"] if row["beyond"] else [row["n_train"]])
    assert study.twojmax == [row["twojmax"]]
    assert study.weights == [(row["w_energy"], row["w_force"])]
    assert set(content) <= {
        *STUDY,
        "levels",
        "weights",
        "sizes",
        "sampling_methods",
        "leverage",
    }  # nothing of the defaults


@pytest.mark.parametrize("width", [40, 60, 80, 110])
def test_the_text_fits_into_the_terminal_and_has_every_number(answer, width):
    text = render_answer(answer, width)
    assert max(map(cell_len, text.splitlines())) <= width
    joined = " ".join(text.split()).replace(" *", "*")
    assert " ".join(answer.sentence.split()) in joined
    for _, row in format_answer_table(answer).iterrows():
        for column in ("budget", "configurations", "2Jmax", "w_E/w_F", "meV/atom", "meV/Å"):
            assert row[column].replace(" *", "*") in joined


def test_budgets_are_round_and_within_the_useful_part_of_the_curve(answer):
    budgets = list(answer.table["budget"])
    useful = answer.curve[answer.curve["score"] <= MAX_SCORE_RATIO * answer.curve["score"].iloc[-1]]
    assert useful["budget_from"].iloc[0] <= budgets[0]
    assert budgets[-1] <= answer.curve["budget_from"].iloc[-1]
    curve = pd.DataFrame({"score": [4.0, 2.0, 1.0], "budget_from": [50.0, 700.0, 4e4]})
    assert choose_budgets(curve, 2, has_cost=True) == [60.0, 36_000.0]
    assert {600.0, 3600.0} <= set(choose_budgets(curve, 5, has_cost=True))
    assert choose_budgets(curve.assign(budget_from=[31.0, 32.0, 33.0]), 5, has_cost=True) == [33.0]


def test_budgets_are_written_with_their_unit():
    assert format_budget(1.0, has_cost=False) == "1 configuration"
    assert format_budget(86_400.0, has_cost=True) == "1 day"


def test_the_steps_of_the_picture_have_the_colours_of_their_levels(answer):
    axes = answer_figures.plot_answer(answer, LEVELS)
    for ax, kind in zip(axes, ("energy", "force"), strict=True):
        *steps, circles = ax.get_lines()
        assert list(circles.get_xdata()) == list(answer.table["budget"])
        assert list(circles.get_ydata()) == list(answer.table[kind])
        drawn = {line.get_color() for line in steps}
        start = answer.ranges["budget_from"].iloc[0]
        assert ax.get_xlim()[0] == start, "the axis begins where the sentence begins"
        shown = answer.curve[answer.curve["budget_from"] >= start]
        assert drawn == {style.get_level_colour(level, LEVELS) for level in shown["level"]}


@pytest.mark.parametrize("seconds", [(300, 600, 1200, 3600, 18_000), (60, 120, 180, 240, 300)])
def test_the_texts_of_the_picture_do_not_touch(answer, seconds):
    table = pd.concat([answer.table.iloc[:1]] * len(seconds)).assign(budget=np.array(seconds, dtype=float))
    with style.use_publication_style():
        axes = answer_figures.plot_answer(replace(answer, table=table), LEVELS)
        style.get_parent_figure(axes).draw_without_rendering()
        for ax in axes:
            labels = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()]
            strip = [text.get_window_extent() for text in ax.texts]
            assert len(labels) >= 2
            assert strip
            for boxes in (labels, strip):
                assert all(left.x1 < right.x0 for left, right in pairwise(sorted(boxes, key=lambda box: box.x0)))
        assert axes[0].get_window_extent().x1 < axes[1].yaxis.label.get_window_extent().x0


def test_the_fronts_at_equal_budget_fall_and_get_better(answer):
    lines = answer_figures.plot_front_at_budgets(answer).get_lines()
    assert 1 < len(lines) <= 4
    for line in lines:
        assert (np.diff(line.get_xdata()) > 0).all()
        assert (np.diff(line.get_ydata()) < 0).all()
    lowest = [line.get_ydata().min() for line in lines]
    assert lowest == sorted(lowest, reverse=True)


def test_a_range_is_left_out_only_where_the_setting_before_it_serves():
    """Of six ranges, that of "b" gains 5 %, and that of "d" a factor of 4; the others are kept."""
    scores = {"a": 100.0, "b": 95.0, "c": 60.0, "d": 15.0, "e": 11.0, "f": 8.0}
    ranges = pd.DataFrame({"level": list(scores), "score": list(scores.values()), "budget_from": 2.0 ** np.arange(6)})
    assert drop_similar_ranges(ranges, "level", 5, 1.25)["level"].tolist() == list("acdef")
    assert drop_similar_ranges(ranges, "level", 2, 1.25)["level"].tolist() == list("acdef"), "errors would be too large"
    merged = drop_similar_ranges(ranges.assign(level=list("abacde")), "level", 4, 1.25)
    assert merged["level"].tolist() == list("acde")
    assert merged["budget_from"].tolist() == [1.0, 8.0, 16.0, 32.0]


def test_budgets_that_the_sentence_leaves_out_are_said(answer):
    is_shorter = answer.ranges["budget_from"].iloc[0] > answer.curve["budget_from"].iloc[0]
    assert any(note.startswith("The sentence begins at ") for note in answer.notes) == is_shorter
