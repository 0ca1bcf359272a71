"""The report agrees with its numbers: planted effects are reported, in either direction."""

import html
import re

import numpy as np
import pandas as pd
import pytest
from helpers.results import LEVELS, POOL, SECONDS, front_of, synthetic
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from paretofit.core import InputError
from paretofit.report import collect_findings, wording, write_report
from paretofit.report.figures import axes as axes_tools
from paretofit.report.figures import front_figures, style
from paretofit.report.figures import sweep_figures as figures
from paretofit.report.findings import (
    assess_error_decrease,
    assess_force_weight,
    assess_levels_on_front,
    assess_leverage_sampling,
)
from paretofit.report.findings.front_finding import find_best_levels, tabulate_front_levels
from paretofit.report.findings.weight_finding import select_lowest_levels
from paretofit.report.tables import OBJECTIVES, build_model_table, compute_fronts_by_twojmax, compute_medians
from paretofit.report.tables import table_text as tables

BARE = {"title": "t", "summary": {}}


@pytest.fixture(scope="module")
def results():
    return synthetic()


# Findings: planted effects are reported in either direction.


def test_falling_errors_are_reported(results):
    finding = assess_error_decrease(results, LEVELS)
    assert finding.status == "yes"
    assert (finding.numbers["energy"] == "falls").all()
    assert len(finding.numbers) == 2 * 5 * 4  # 2Jmax, weights, steps
    assert "meV/atom" in finding.text
    assert "meV/Å" in finding.text


def test_a_single_fall_is_not_reported_as_one_of_all_errors(results):
    """All levels have the errors of the reference, except that those of the lowest level are higher for one model."""
    same = pd.concat([results[results["level"] == "5"].assign(level=level) for level in LEVELS], ignore_index=True)
    is_lowest = (same["level"] == LEVELS[0]) & (same["twojmax"] == 8) & (same["w_energy"] == 5.0)
    same.loc[is_lowest, ["ref_energy", "ref_force"]] *= 10
    finding = assess_error_decrease(same, LEVELS)
    assert (finding.numbers["energy"] == "falls").sum() == 1
    assert finding.status == "mixed"


def test_a_rise_from_one_level_to_the_next_is_reported(results):
    worse = results.copy()
    worse.loc[(worse["level"] == "4") & (worse["twojmax"] == 8), "ref_energy"] *= 10
    finding = assess_error_decrease(worse, LEVELS)
    assert finding.status == "mixed"
    rises = finding.numbers[finding.numbers["energy"] == "rises"]
    assert set(zip(rises["from"], rises["to"], rises["twojmax"], strict=True)) == {("3", "4", 8)}
    assert "from 3 to 4 at 2Jmax 8" in finding.text


def test_levels_that_all_get_worse_give_no(results):
    finding = assess_error_decrease(results, LEVELS[::-1])
    assert finding.status == "no"


@pytest.mark.parametrize(("planted", "status"), [(True, "yes"), (False, "no")])
def test_force_weight_effect_is_reported_in_either_direction(planted, status):
    finding = assess_force_weight(synthetic(force_weight_helps=planted, repeats=5), LEVELS)
    assert finding.status == status
    low = finding.numbers[finding.numbers["level"].isin(["1", "2"])]
    assert set(low["answer"]) == {status}
    assert (low["best_ratio"] == (1.0 if planted else 150.0)).all()


def test_the_lowest_levels_are_those_of_the_paper():
    assert select_lowest_levels(list("123456")) == ["1", "2", "3"]
    assert select_lowest_levels(LEVELS) == ["1", "2"]
    assert select_lowest_levels(["5"]) == []


@pytest.mark.parametrize(("gain", "status"), [(0.6, "yes"), (1.7, "no"), (1.0, "no")])
def test_sampling_status_follows_the_planted_gain(gain, status):
    finding = assess_leverage_sampling(synthetic(gain=gain, ratios=(5.0, 50.0)), LEVELS)
    assert finding.status == status
    outcomes = {0.6: "significantly lower", 1.7: "significantly higher", 1.0: "no clear difference"}
    assert outcomes[gain] in finding.text


def test_sampling_ratios_are_those_of_the_table(results):
    numbers = assess_leverage_sampling(results, LEVELS).numbers
    row = numbers[(numbers["sampling"] == "leverage") & (numbers["error"] == "force")].iloc[0]
    cell = results[
        (results["level"] == "5")
        & (results["twojmax"] == row["twojmax"])
        & (results["n_train"] == row["n_train"])
        & (results["w_energy"] == row["weight_ratio"])
    ]
    errors = {name: part["ref_force"] for name, part in cell.groupby("sampling")}
    assert row["ratio_of_medians"] == pytest.approx(errors["leverage"].median() / errors["random"].median())
    spread = {name: np.subtract(*np.quantile(values, [0.9, 0.1])) for name, values in errors.items()}
    assert row["ratio_of_spreads"] == pytest.approx(spread["leverage"] / spread["random"])


def test_the_whole_training_set_does_not_count_for_sampling(results):
    finding = assess_leverage_sampling(results, LEVELS)
    assert POOL not in set(finding.numbers["n_train"])
    assert "Subsets of 140 configurations are left out" in finding.text
    smaller = results[results["n_train"] < POOL]
    assert "are left out: they are the whole" not in assess_leverage_sampling(smaller, LEVELS).text


def test_false_positives_are_rare():
    """Eight tables without a difference: the rank test over repetitions must not find one.

    Cells that share repetitions are not independent; a test over cells would fail here.
    """
    claims = 0
    for seed in range(8):
        table = synthetic(gain=1.0, seed=seed, twojmax=(4,), levels=["5"], ratios=(5.0, 50.0), sizes=(20, 40))
        common = np.random.default_rng(seed).normal(size=(3, 6))  # one fluctuation per sampling and repetition
        names = ["random", "leverage", "block-leverage"]
        shift = common[table["sampling"].map(names.index), table["repeat"]]
        for column in ("ref_energy", "ref_force"):
            table[column] *= np.exp(shift)
        claims += assess_leverage_sampling(table, ["5"]).status == "yes"
    assert claims <= 1


def test_front_finding_counts_points_and_costs(results):
    front = front_of(results)
    finding = assess_levels_on_front(results, front, LEVELS)
    rows = finding.numbers[finding.numbers["twojmax"] == "all"].set_index("level")
    # The whole training set is on the front once for each sampling, and is one fit.
    fits = front.drop_duplicates(["twojmax", "level", "n_train", "w_energy", *OBJECTIVES])
    assert len(fits) < len(front)
    for level in LEVELS:
        points = fits[fits["level"] == level]
        assert rows.loc[level, "points"] == len(points)
        assert rows.loc[level, "cheapest_s"] == points["label_seconds"].min()
    assert finding.status in ("yes", "mixed")


def test_cheaper_levels_are_worth_using_only_if_they_are_no_worse(results):
    perfect = results.copy()
    errors = ["ref_energy", "ref_force"]
    reference = (perfect["level"] == "5").to_numpy()
    perfect.loc[perfect["level"] == "4", errors] = perfect.loc[reference, errors].to_numpy()
    assert assess_levels_on_front(perfect, front_of(perfect), LEVELS).status == "yes"
    useless = results.copy()
    useless.loc[~reference, errors] *= 1e4
    finding = assess_levels_on_front(useless, front_of(useless), LEVELS)
    assert finding.status == "no"
    assert "never in energy and never in force" in finding.text


def test_best_levels_by_hand():
    front = pd.DataFrame(
        {
            "level": ["1", "1", "2", "3"],
            "label_seconds": [1.0, 2.0, 5.0, 9.0],
            "ref_energy": [9.0, 8.0, 4.0, 6.0],
        }
    )
    assert find_best_levels(front, "ref_energy") == [("1", 1.0, 5.0), ("2", 5.0, np.inf)]


@pytest.mark.parametrize(
    ("change", "names", "reason"),
    [
        ({"levels": ["5"]}, {"levels", "weights", "front"}, "only level 5"),
        ({"samplings": ("random",)}, {"sampling"}, "no fits with leverage sampling"),
        ({"samplings": ("leverage",)}, {"sampling"}, "no fits with random sampling"),
        ({"ratios": (5.0,)}, {"weights"}, "the same energy/force weight"),
        ({"repeats": 1}, {"sampling"}, "but 4 are required"),
        ({"sizes": (POOL,)}, {"sampling"}, "below the whole training set"),
        ({"seconds": dict.fromkeys(LEVELS, 0.0)}, {"front"}, "no setting has a label cost above zero"),
        ({"seconds": dict.fromkeys(LEVELS, np.nan)}, {"front"}, "no setting has finite errors and a known label cost"),
    ],
)
def test_a_finding_that_cannot_be_tested_gives_the_reason(change, names, reason):
    table = synthetic(**{"repeats": 4, "sizes": (20, POOL)} | change)
    findings = {finding.name: finding for finding in collect_findings(table, front_of(table), LEVELS)}
    assert {name for name, finding in findings.items() if finding.status == "not tested"} == names
    assert any(reason in findings[name].text for name in names)
    assert all("In the paper" in finding.text for finding in findings.values() if finding.status != "measured")


def test_columns_of_the_front_finding_begin_with_the_setting(results):
    numbers = assess_levels_on_front(results, front_of(results), LEVELS).numbers
    assert list(numbers.columns) == [
        "twojmax", "level", "points", "cheapest_s", "most_expensive_s", "lowest_energy", "lowest_force",
        "energy_from_s", "energy_to_s", "force_from_s", "force_to_s",
    ]  # fmt: skip
    front = pd.DataFrame({"level": list("1213"), "label_seconds": [1.0, 2.0, 3.0, 4.0]})
    front = front.assign(ref_energy=[9.0, 8.0, 7.0, 6.0], ref_force=[1.0, 2.0, 2.0, 2.0])
    table = tabulate_front_levels(front, "all", ["1", "2", "3"]).set_index("level")
    assert table.loc["1", ["energy_from_s", "energy_to_s"]].tolist() == [1.0, 4.0], "from the first time to the last"
    assert np.isnan(table.loc["3", "force_from_s"])


def test_sampling_text_explains_its_averages(results):
    text = assess_leverage_sampling(results, LEVELS).text
    assert re.search(r"significantly lower, 0\.\d\d times that of random sampling, .* configurations, p = ", text)
    assert "in the geometric mean over cells" in text
    assert "median 0." not in text
    shown = figures.select_learning_rows(results, LEVELS)["twojmax"].iloc[0]
    assert text.startswith(f"At 2Jmax = {shown} with"), "the first sentence is about the figure below it"


# Figures.


@pytest.fixture(scope="module")
def drawn(results):
    fronts = compute_fronts_by_twojmax(compute_medians(results, LEVELS))
    return {
        "tradeoff": np.array([figures.plot_energy_force_tradeoff(results, LEVELS)]),
        "by_twojmax": figures.plot_energy_force_by_twojmax(results, LEVELS),
        "learning": figures.plot_learning_curves(results, LEVELS),
        "front": front_figures.plot_front_by_cost(fronts, LEVELS),
        "cost": front_figures.plot_force_error_against_cost(fronts, LEVELS),
    }


def test_every_axis_has_a_label_with_its_unit(drawn):
    for ax in np.concatenate(list(drawn.values())):
        for label in (ax.get_xlabel(), ax.get_ylabel()):
            assert label == "training configurations" or re.search(r"\((meV/atom|meV/Å|s|min|h)\)", label), label


def test_a_level_has_one_colour_and_marker_in_every_line(drawn):
    for ax in [*drawn["tradeoff"], *drawn["by_twojmax"]]:
        for line in ax.get_lines():
            level = line.get_label().split()[0]
            assert line.get_color() == style.get_level_colour(level, LEVELS)
            assert line.get_marker() == style.get_level_marker(level, LEVELS)


def test_a_level_has_the_same_colour_on_the_fronts(drawn):
    for ax in [*drawn["front"], *drawn["cost"]]:
        for points in ax.collections:
            level = points.get_label().split()[-1]
            assert np.allclose(points.get_edgecolors()[0], to_rgba(style.get_level_colour(level, LEVELS)))


def test_a_level_has_the_same_colour_in_every_legend(drawn):
    for first in (panels[0] for panels in drawn.values()):
        (legend,) = first.figure.legends
        shown = {text.get_text(): handle for text, handle in zip(legend.texts, legend.legend_handles, strict=True)}
        for level in LEVELS:
            handle = shown.get(f"level {level}")
            assert handle is None or handle.get_color() == style.get_level_colour(level, LEVELS)


def test_a_level_outside_of_every_panel_is_not_in_the_legend(results, drawn):
    def entries(legend):
        return [text.get_text() for text in legend.texts]

    for name in ("tradeoff", "by_twojmax", "front"):
        assert entries(drawn[name][0].figure.legends[0])[0] == "level 2"
    assert entries(drawn["cost"][0].figure.legends[0])[0] == "level 1"  # its force errors are shown
    ax = figures.plot_energy_force_tradeoff(results, LEVELS, ax=Figure().subplots())
    assert entries(ax.get_legend())[0] == "level 2"


@pytest.mark.parametrize("count", [3, 5])
def test_the_empty_position_of_an_odd_number_of_panels_has_the_legend(count):
    table = synthetic(twojmax=tuple([2, 4, 6, 8, 10][:count]), repeats=1, sizes=(20, 40))
    for axes in (
        figures.plot_energy_force_by_twojmax(table, LEVELS),
        front_figures.plot_front_by_cost(compute_fronts_by_twojmax(compute_medians(table, LEVELS)), LEVELS),
    ):
        figure = axes[0].figure
        (spare,) = [ax for ax in figure.axes if ax.get_label() == style.LEGEND_AXES_LABEL]
        assert len(axes) == count
        assert "level 5" in [text.get_text() for text in spare.get_legend().texts]
        assert not figure.legends


def test_colours_and_markers_differ_for_many_levels():
    levels = [str(i) for i in range(40)]
    pairs = {(style.get_level_colour(level, levels), style.get_level_marker(level, levels)) for level in levels}
    assert len(pairs) == 40
    assert len({style.get_level_colour(level, levels) for level in levels[:9]}) == 9


def test_figures_draw_into_given_axes(results):
    ax = Figure().subplots()
    assert figures.plot_energy_force_tradeoff(results, LEVELS, twojmax=4, ax=ax) is ax
    assert ax.get_title(loc="left") == "2Jmax = 4"
    pair = Figure().subplots(1, 2)
    assert figures.plot_learning_curves(results, LEVELS, twojmax=8, weight_ratio=50, axes=pair) is pair
    assert "50" in pair[0].get_title(loc="left")


def test_points_outside_are_counted_not_silently_dropped(results):
    ax = figures.plot_energy_force_tradeoff(results, LEVELS)
    assert ax.get_title(loc="right") == "10 points outside: level 1"  # 5 weights, on own level and reference
    assert ax.get_xlim()[1] < 1000


def test_learning_curve_draws_medians(results):
    ax = figures.plot_learning_curves(results, LEVELS, twojmax=4, weight_ratio=12.25)[1]
    line = next(line for line in ax.get_lines() if line.get_label() == "random")
    cell = results.query("level == '5' and twojmax == 4 and sampling == 'random' and w_energy == 12.25")
    expected = cell.groupby("n_train")["ref_force"].median()
    assert np.array_equal(line.get_xdata(), expected.index)
    assert np.allclose(line.get_ydata(), expected)


def test_axes_of_points_that_cannot_be_shown():
    values = np.array([1.0, 2.0, 0.0, np.nan, np.inf, 1000.0])
    assert axes_tools.find_inliers(values).tolist() == [True, True, False, False, False, False]
    assert not axes_tools.find_inliers(np.array([0.0, np.nan])).any()
    assert axes_tools.find_inliers(np.array([10.0, 11.0, 12.0, 13.0, 14.0, 100.0])).tolist() == [True] * 5 + [False]


def test_the_same_figure_gives_the_same_bytes(tmp_path, results):
    for folder in ("a", "b"):
        ax = figures.plot_energy_force_tradeoff(results, LEVELS)
        style.save_figure(ax.figure, tmp_path / folder, "x")
    for kind in ("svg", "png"):
        assert (tmp_path / f"a/x.{kind}").read_bytes() == (tmp_path / f"b/x.{kind}").read_bytes()


def test_dollar_signs_in_level_names_are_not_mathematics(tmp_path):
    table = synthetic(levels=["$a", "b_$"], repeats=1, seconds={"$a": 1.0, "b_$": 2.0}, noise=False)
    ax = figures.plot_energy_force_tradeoff(table, ["$a", "b_$"])
    assert len(style.save_figure(ax.figure, tmp_path, "x")) == 2


# The page and its folder.


def test_the_report_is_complete_and_leaves_no_other_files(tmp_path, results):
    page = write_report(
        tmp_path, results, front_of(results), LEVELS, title="Be", summary={"split": "70 %"},
        warnings=["two configurations are equal"], extra_tables={"Errors": pd.DataFrame({"a|b": [1]})},
    )  # fmt: skip
    assert page == tmp_path / "report.html"
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    shown = ("answer", "energy_force", "learning_curves", "front_at_budgets", "finding_levels", "finding_model_size")
    shown += ("finding_label_sensitivity", "finding_own_level", "finding_savings", "finding_sufficient_level")
    listed = ("errors", "front", "costs", "models", "extra_errors")
    findings = ("finding_levels", "finding_weights", "finding_sampling", "finding_front")
    findings += (
        "finding_own_level",
        "finding_savings",
        "finding_sufficient_level",
        "finding_model_size",
        "finding_label_sensitivity",
    )
    expected = {f"figures/{name}.png" for name in shown}
    expected |= {f"tables/{name}.{kind}" for name in (*listed, *findings) for kind in ("csv", "md")}
    assert names == expected | {"report.html"}
    text = page.read_text()
    assert "two configurations are equal" in text
    assert text.count("data:image/png;base64,") == len(shown), "no figure is shown twice"
    assert "--all-figures</code> also draws energy_force_by_twojmax." in text
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text)  # nothing is loaded from elsewhere
    assert (tmp_path / "tables/extra_errors.md").read_text().startswith("| a\\|b |")


def test_names_from_data_are_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    table = synthetic(levels=[evil, "b"], repeats=1, sizes=(20, 40), seconds={evil: 1.0, "b": 2.0}, noise=False)
    page = write_report(
        tmp_path, table, front_of(table), [evil, "b"], title=evil, summary={evil: evil}, warnings=[evil],
        extra_tables={evil: pd.DataFrame({evil: [evil]})},
    )  # fmt: skip
    text = page.read_text()
    assert evil not in text
    assert html.escape(evil) in text


def test_a_figure_that_cannot_be_drawn_removes_an_older_one(tmp_path):
    table = synthetic(twojmax=(4,), repeats=1, sizes=(20, 40), ratios=(5.0, 50.0))
    write_report(tmp_path, table, front_of(table), LEVELS, **BARE)
    assert (tmp_path / "figures/energy_force.png").exists()
    assert (tmp_path / "tables/finding_weights.csv").exists()
    single = table[table["w_energy"] == 5.0]
    page = write_report(tmp_path, single, front_of(single), LEVELS, **BARE)
    assert not (tmp_path / "figures/energy_force.png").exists()
    assert not (tmp_path / "tables/finding_weights.csv").exists()
    assert "All fits have the same energy/force weight" in page.read_text()
    assert "Not tested: all fits have the same energy/force weight" in page.read_text()


@pytest.mark.parametrize(
    "change",
    [
        {
            "levels": ["5"],
            "samplings": ("random",),
            "twojmax": (4,),
            "ratios": (5.0,),
            "sizes": (20,),
            "repeats": 1,
        },
        {"samplings": ("leverage", "top-leverage"), "twojmax": (4,)},
        {"seconds": {"1": 0.0, "2": np.nan, "3": 0.0, "4": 1.0, "5": 2.0}},
    ],
)
def test_a_report_of_very_few_results(tmp_path, change):
    table = synthetic(**{"repeats": 2, "ratios": (5.0, 50.0), "sizes": (20, POOL)} | change)
    page = write_report(tmp_path, table, front_of(table), LEVELS, **BARE)
    assert "nan" not in re.sub(
        r"data-key=\"nan\"|data:image[^\"]*", "", page.read_text().split("<body>")[1].split("<script>")[0]
    )


def test_huge_and_infinite_errors_do_not_stop_the_report(tmp_path, results):
    table = results[results["twojmax"] == 4].copy()
    table.loc[table["n_train"] == 20, ["ref_energy", "ref_force"]] = np.inf
    table.loc[table["level"] == "1", "ref_energy"] = np.nan
    assert write_report(tmp_path, table, front_of(table), LEVELS, **BARE).exists()


def test_levels_read_as_numbers_become_text(tmp_path):
    table = synthetic(twojmax=(4,), repeats=1, sizes=(20, 40), ratios=(5.0, 50.0))
    front = front_of(table)
    pages = [
        write_report(tmp_path / kind, table.astype({"level": kind}), front.astype({"level": kind}), LEVELS, **BARE)
        for kind in ("int", "str")
    ]
    first, second = (page.read_text().replace(str(page.parent), "RUN") for page in pages)
    assert first == second


def test_a_folder_where_a_figure_should_be_is_named(tmp_path):
    table = synthetic(twojmax=(4,), repeats=1, sizes=(20, 40))
    (tmp_path / "figures" / "answer.png").mkdir(parents=True)
    with pytest.raises(InputError, match=r"answer\.png cannot be removed: Is a directory; remove it"):
        write_report(tmp_path, table, front_of(table), LEVELS, **BARE)


def test_invalid_tables_raise_a_clear_message(tmp_path, results):
    front = front_of(results)
    with pytest.raises(InputError, match="lacks ref_force"):
        write_report(tmp_path, results.drop(columns="ref_force"), front, LEVELS, **BARE)
    with pytest.raises(InputError, match="'5', which is not among"):
        write_report(tmp_path, results, front, LEVELS[:4], **BARE)
    with pytest.raises(InputError, match="no rows"):
        write_report(tmp_path, results.iloc[:0], front, LEVELS, **BARE)
    assert not list(tmp_path.rglob("*.html"))


# Tables.


def test_errors_table_holds_the_medians(results):
    table = tables.tabulate_errors(results, LEVELS)
    row = table.query("twojmax == 8 and level == '3' and weight_ratio == 50").iloc[0]
    fits = results.query("twojmax == 8 and level == '3' and w_energy == 50 and n_train == 140")
    assert row["ref_energy_shifted"] == pytest.approx(fits["ref_energy_shifted"].median())
    assert list(table["level"][:5]) == LEVELS


def test_cost_of_a_level_is_what_was_planted(results):
    table = tables.tabulate_costs(results, LEVELS)
    assert table["seconds_per_configuration"].to_list() == pytest.approx([SECONDS[level] for level in LEVELS])
    assert table["relative_cost"].iloc[-1] == 1.0


def test_models_show_md_cost_only_where_it_is_known(results):
    assert "md_us_per_atom_step" not in build_model_table(results, LEVELS, pd.DataFrame()).table
    timed = results.assign(md_us_per_atom_step=results["twojmax"] * 1.5)
    table = build_model_table(timed, LEVELS, pd.DataFrame()).table
    assert table["md_us_per_atom_step"].to_list() == [6.0, 12.0]


def test_wording():
    assert wording.format_duration_range(600, 7560) == "from 10 min to 2.1 h"
    assert wording.format_duration_range(5, 5) == "at 5 s"
    assert wording.join_items(["a"]) == "a"
    assert wording.join_items([]) == ""
    assert wording.capitalise_sentence("at 2Jmax 8") == "At 2Jmax 8."
