"""Tables, figures and words on errors, budgets, fronts and label noise: each against direct computation."""

import re

import numpy as np
import pandas as pd
import pytest

from paretofit import SnapBasis, compute_design
from paretofit.dataset import split_configurations
from paretofit.pareto import pareto_front
from paretofit.report import find_answer, find_answer_or_reason, format_number
from paretofit.report.figures import (
    CannotDrawError,
    build_label_noise_table,
    describe_label_noise,
    plan_noise_figures,
    render_figure,
    style,
)
from paretofit.report.figures.noise_figures import (
    plot_label_noise,
    plot_training_tradeoff,
)
from paretofit.report.page import build_front_tables
from paretofit.report.tables import (
    OBJECTIVES,
    build_error_tables,
    build_model_table,
    compute_medians,
)
from paretofit.report.tables.error_tables import MD_SPEED_HEADING
from paretofit.report.tables.table_text import format_markdown
from paretofit.study.study_front import find_study_front
from paretofit.sweep import SweepGrid, SweepInput, compute_weight_paths, correlate_label_noise, make_engine, run_sweep

LEVELS = ["2", "3", "5"]
WEIGHTS = [(12.25, 1.0), (150.0, 1.0)]
SECONDS = {"2": 1.0, "3": 4.0, "5": 40.0}
FLOOR = {"2": 60.0, "3": 20.0, "5": 5.0}  # meV/atom that no number of labels gets below
NO_MD = pd.DataFrame(columns=["twojmax", "md_us_per_atom_step", "spread", "atoms"])
PURE_WORDS = re.compile(r"\bnan\b|\binf\b|None|\(\)|  ", re.IGNORECASE)


def handmade(levels=LEVELS, twojmax=(4, 6), ratios=(12.25, 150.0), sizes=(10, 40, 160), repeats=3):
    """A results table with a floor per level, errors that fall with size, and repetitions around their median."""
    factors = {
        "twojmax": twojmax, "level": levels, "sampling": ["random"], "n_train": sizes, "w_energy": ratios,
        "repeat": range(repeats),
    }  # fmt: skip
    frame = pd.MultiIndex.from_product(factors.values(), names=list(factors)).to_frame(index=False)
    floor, size, ratio = frame["level"].map(FLOOR), frame["n_train"], frame["w_energy"]
    scatter, excess = frame["repeat"] - 1, 400 / size * (4 / frame["twojmax"])
    energy = floor + excess + ratio / 1000 + scatter
    force = 5 * floor + 10 * excess + ratio / 10 + scatter
    return frame.assign(
        w_force=1.0, n_features=30 * frame["twojmax"], rank=30 * frame["twojmax"], condition=10.0, solver="whitened",
        train_energy=0.8 * energy, train_force=0.8 * force, test_energy=1.1 * energy, test_force=1.1 * force,
        ref_energy=energy, ref_force=force, ref_energy_shifted=0.9 * energy,
        label_seconds=size * frame["level"].map(SECONDS), md_us_per_atom_step=np.nan,
    )  # fmt: skip


@pytest.fixture(scope="module")
def real(beryllium, tmp_path_factory):
    """A small study of the shipped data: results, label noise with its points, and weight paths."""
    path = tmp_path_factory.mktemp("pages") / "design.h5"
    design = compute_design(beryllium, SnapBasis(elements=["Be"], twojmax=4), path).with_labels(beryllium, LEVELS)
    split = split_configurations(np.arange(len(beryllium)), 0.7, 1)
    data = SweepInput(design, split.train, split.test)
    grid = SweepGrid(LEVELS, [2, 4], WEIGHTS, [20, 50, len(split.train)], ["random", "leverage"], 3)
    engine = make_engine(data, grid)
    noise, points = correlate_label_noise(engine, grid, WEIGHTS)
    return run_sweep(data, grid), noise, points, compute_weight_paths(engine, grid)[0]


@pytest.fixture(params=["handmade", "real"])
def results(request, real):
    return handmade() if request.param == "handmade" else real[0]


def front_of(results, n_train=None):
    finite = results[np.isfinite(results[OBJECTIVES]).all(axis=1)]
    columns = ["twojmax", "level", "sampling", "n_train", "w_energy", "w_force", *OBJECTIVES, "n_repeats", "overall"]
    return find_study_front(finite, n_train) if len(finite) else pd.DataFrame(columns=columns)


def sheets_of(results, levels=LEVELS, answer=None):
    return {sheet.file_stem: sheet for sheet in build_front_tables(results, front_of(results), levels, answer)}


def test_errors_are_the_medians_of_the_largest_model_and_subset(results):
    energy, force = build_error_tables(results, LEVELS, WEIGHTS)
    assert list(energy.table["level"]) == list(force.table["level"]) == LEVELS
    n_more = 2 * ("train_ref_energy" in results)
    assert energy.table.shape[1] == 9 + n_more
    assert force.table.shape[1] == 7 + n_more
    at = results[(results["twojmax"] == results["twojmax"].max()) & (results["sampling"] == "random")]
    at = at[at["n_train"] == at["n_train"].max()]
    columns = {
        "training": "train", "training, level 5": "train_ref", "own level": "test", "level 5": "ref",
        "level 5, shifted": "ref",
    }  # fmt: skip
    for sheet, kind, unit in ((energy, "energy", "meV/atom"), (force, "force", "meV/Å")):
        for ratio, text in ((12.25, "12.25"), (150.0, "150")):
            for heading, prefix in columns.items():
                column = f"{prefix}_{kind}" + ("_shifted" if "shifted" in heading else "")
                if column in at:
                    direct = at[at["w_energy"] == ratio].groupby("level")[column].median()
                    shown = sheet.table.set_index("level")[f"w_E/w_F = {text}: {heading} ({unit})"]
                    assert shown.to_dict() == pytest.approx(direct.to_dict())


def test_notes_of_the_error_tables_say_what_the_table_holds():
    results = handmade()
    energy, force = build_error_tables(results, LEVELS, WEIGHTS)
    cells = energy.table.set_index("level")["w_E/w_F = 150: level 5 (meV/atom)"]
    assert (
        f"{format_number(cells['2'] / cells['5'])} and {format_number(cells['3'] / cells['5'])} times that error"
        in energy.note
    )
    assert "the force error of the model of level 5 is" in force.note
    # 0.9 times the error against the reference is below 1.1 times, at every level but the reference
    assert "of levels 2 and 3 at w_E/w_F = 12.25 and of levels 2 and 3 at w_E/w_F = 150" in energy.note
    assert "lowers the energy error of no level" not in energy.note
    single = next(iter(build_error_tables(results, LEVELS, WEIGHTS[:1])))
    assert "higher force weight" not in single.note


def test_weights_that_were_not_swept_are_left_out():
    results = handmade(ratios=(12.25,))
    energy, _ = build_error_tables(results, LEVELS, WEIGHTS)
    assert energy.table.shape[1] == 5
    assert list(build_error_tables(results, LEVELS, [(7.0, 1.0)])) == []
    same, _ = build_error_tables(results, LEVELS, [(12.25, 1.0), (24.5, 2.0)])  # the same ratio twice
    assert same.table.shape[1] == 5


def test_models_have_features_and_speed():
    md = pd.DataFrame(
        {"twojmax": [4, 6], "md_us_per_atom_step": [2.0, 50.0], "spread": [1.07, np.nan], "atoms": [250, 0]}
    )
    sheet = build_model_table(handmade(), LEVELS, md)
    assert sheet.table["n_features"].tolist() == [120, 180]
    assert sheet.table[MD_SPEED_HEADING].tolist() == pytest.approx([500_000.0, 20_000.0])
    assert sheet.table["speed is"].tolist() == ["measured", "given"]
    assert "1.5 times as many features, and a step costs 25 times as much" in sheet.note
    assert "factor of 1.07" in sheet.note
    for nothing in (NO_MD, pd.DataFrame()):
        bare = build_model_table(handmade(), LEVELS, nothing)
        assert bare.table.columns.tolist() == ["twojmax", "n_features"]
    from_results = build_model_table(handmade().assign(md_us_per_atom_step=4.0), LEVELS, pd.DataFrame())
    assert from_results.table[MD_SPEED_HEADING].tolist() == [250_000.0, 250_000.0]
    partly = build_model_table(handmade(), LEVELS, md.iloc[:1])
    assert partly.table["speed is"].tolist() == ["measured", "–"]
    assert not PURE_WORDS.search(partly.note)


def test_best_level_by_budget_is_that_of_the_answer(results):
    """A range has the setting that the planner chooses at its end, unless a short range in between was left out."""
    answer = find_answer(results)
    table = sheets_of(results, answer=answer)["best_by_budget"].table
    assert list(table["budget from (s)"].iloc[1:]) == list(table["budget to (s)"].iloc[:-1])
    for row in table.to_dict("records"):
        assert f"level {row['level']}" in answer.sentence
        inside = answer.curve[answer.curve["budget_from"].between(row["budget from (s)"], 0.999 * row["budget to (s)"])]
        assert row["level"] in set(inside["level"])
        shown = np.sqrt(row["ref_energy"] * row["ref_force"])
        assert np.isclose(inside["score"], shown).any()
        assert row["ref_energy_low"] <= row["ref_energy"] <= row["ref_energy_high"] or np.isnan(row["ref_energy_low"])
    assert answer.format_budget(answer.knee) in sheets_of(results, answer=answer)["best_by_budget"].note


def test_there_is_one_rule_for_the_best_budget(results):
    assert "knee_points" not in sheets_of(results, answer=find_answer(results))
    assert "best_by_budget" not in sheets_of(results)


def test_shares_of_the_front_add_up(results):
    table = sheets_of(results)["front_shares"].table.set_index("group")
    front = front_of(results)
    overall = front[front["overall"]].drop_duplicates(["twojmax", "level", "n_train", "w_energy", *OBJECTIVES])
    for kind, column in (("level", "level"), ("2Jmax", "twojmax")):
        selected = table[table.index.str.startswith(kind)]
        assert selected["points"].sum() == len(overall)
        assert selected["points (%)"].sum() == pytest.approx(100)
        counts = overall[column].astype(str).value_counts()
        assert {name.split()[-1]: points for name, points in selected["points"].items()} == counts.to_dict()
    assert table["volume lost (%)"].between(0, 100).all()
    assert not any("MD" in column for column in table.columns)


def test_md_cost_is_a_fourth_objective(results):
    costs = dict(zip(sorted(set(results["twojmax"])), (1.0, 10.0), strict=True))
    timed = results.assign(md_us_per_atom_step=results["twojmax"].map(costs))
    sheet = sheets_of(timed)["front_shares"]
    front = pareto_front(compute_medians(timed, LEVELS), [*OBJECTIVES, "md_us_per_atom_step"])
    front = front.drop_duplicates(["twojmax", "level", "n_train", "weight_ratio", *OBJECTIVES])
    selected = sheet.table[sheet.table["group"].str.startswith("level")]
    assert selected["with MD cost: points"].sum() == len(front)
    assert f"the front has {len(front)} points" in sheet.note


BAD = {
    "one level": (lambda: handmade(levels=["5"]), ["5"]),
    "one weight": (lambda: handmade(ratios=(12.25,)), LEVELS),
    "one 2Jmax": (lambda: handmade(twojmax=(4,)), LEVELS),
    "one fit": (lambda: handmade(["5"], (4,), (12.25,), (10,), 1), ["5"]),
    "no reference": (lambda: handmade(levels=["2", "3"]), LEVELS),
    "cost unknown": (lambda: handmade().assign(label_seconds=np.nan), LEVELS),
    "cost zero": (lambda: handmade().assign(label_seconds=0.0), LEVELS),
    "NaN errors": (lambda: spoilt(np.nan), LEVELS),
    "infinite errors": (lambda: spoilt(np.inf), LEVELS),
    "nothing finite": (lambda: handmade().assign(ref_energy=np.nan, ref_energy_shifted=np.nan), LEVELS),
}


def spoilt(value):
    results = handmade()
    errors = [column for column in results if column.split("_")[0] in ("train", "test", "ref")]
    results.loc[results["level"] == "2", errors] = value
    return results


@pytest.mark.parametrize("case", BAD)
def test_poor_results_give_what_they_can(case, tmp_path):
    make, levels = BAD[case]
    results = make()
    sheets = [
        *build_error_tables(results, levels, WEIGHTS),
        build_model_table(results, levels, NO_MD),
        *build_front_tables(results, front_of(results), levels, find_answer_or_reason(results)[0]),
    ]
    for sheet in sheets:
        assert len(sheet.table)
        assert not PURE_WORDS.search(sheet.note), sheet.note
        format_markdown(sheet.table)
    files = {sheet.file_stem for sheet in sheets}
    unknown = "cost" in case or case == "nothing finite"
    assert ("best_by_budget" in files) != unknown
    assert ("front_shares" in files) == (case != "nothing finite")
    for plan in plan_noise_figures(results, levels, None, pd.DataFrame(), pd.DataFrame()):
        picture = render_figure(plan, tmp_path)
        assert picture.image or picture.missing_reason


def test_noise_table_is_the_correlation_of_the_points(real):
    _, noise, points, _ = real
    for row in noise[noise["n"] <= 1500].to_dict("records"):
        selected = points[
            (points["kind"] == row["kind"])
            & (points["level"] == row["level"])
            & (points["weight_ratio"] == row["weight_ratio"])
        ]
        assert row["correlation"] == pytest.approx(np.corrcoef(selected["error"], selected["residual"])[0, 1])
        assert row["slope"] == pytest.approx(np.polyfit(selected["error"], selected["residual"], 1)[0])


@pytest.mark.parametrize("kind", ["energy", "force"])
def test_noise_figure_has_a_panel_per_level_and_weighting(real, kind):
    _, noise, points, _ = real
    axes = plot_label_noise(points, noise, LEVELS, kind)
    assert axes.shape == (2, 2)
    for row, level in zip(axes, LEVELS, strict=False):
        for ax, (ratio, _) in zip(row, WEIGHTS, strict=True):
            (cloud,) = ax.collections
            selected = points[(points["kind"] == kind) & (points["level"] == level) & (points["weight_ratio"] == ratio)]
            assert np.asarray(cloud.get_offsets()) == pytest.approx(selected[["error", "residual"]].to_numpy(float))
            assert cloud.get_facecolor()[0][:3] == pytest.approx(_rgb(style.get_level_colour(level, LEVELS)))
            ignored, learned, fit = ax.lines
            assert ignored.get_xdata() == pytest.approx(ignored.get_ydata())
            assert not np.any(learned.get_ydata())
            messages = noise[(noise["kind"] == kind) & (noise["level"] == level) & (noise["weight_ratio"] == ratio)]
            assert np.diff(fit.get_ydata()) / np.diff(fit.get_xdata()) == pytest.approx(messages["slope"].iloc[0])
            assert f"{messages['correlation'].iloc[0]:.2f}".replace("-", "−") in ax.texts[0].get_text()


def _rgb(colour):
    return [int(colour[folder : folder + 2], 16) / 255 for folder in (1, 3, 5)]


def noise_rows(correlation, slope=0.5, residual=10.0):
    rows = [
        {"twojmax": 4, "weight_ratio": ratio, "level": level, "kind": kind, "n": 100, "correlation": correlation,
         "slope": slope, "label_error": 5.0, "residual": residual}
        for ratio in (12.25, 150.0) for level in ("2", "3") for kind in ("energy", "force")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_noise_in_words_follows_the_numbers():
    strong = noise_rows(0.9, slope=0.8)
    strong.loc[strong["weight_ratio"] == 150.0, "correlation"] = 0.5
    words = describe_label_noise(strong)
    assert "in 8 of 8 cases, in which models ignore part of the label errors: the slope is 0.8 to 0.8 (0: none" in words
    assert "is higher in 4 of 4 cases" in words
    assert "more than 3 times" not in words
    assert "in none" in describe_label_noise(noise_rows(0.1))
    assert "more than 3 times as large" in describe_label_noise(noise_rows(0.9, residual=16.0))
    assert "No residual" in describe_label_noise(noise_rows(np.nan))
    partly = noise_rows(0.9)
    partly.loc[0, ["correlation", "slope"]] = np.nan
    assert "in 7 of 7 cases" in describe_label_noise(partly)
    forces = strong["kind"] == "force"
    few = noise_rows(0.2).assign(n=np.where(forces, 2000, 100))  # 0.2 is between 3/√2000 and 3/√100
    assert "n = 100 configurations) in none" in describe_label_noise(few)
    assert "in none" in describe_label_noise(few.assign(configurations=100))
    assert "in 4 of 8 cases" in describe_label_noise(few.assign(configurations=np.where(forces, 2000, 100)))
    for table in (strong, partly, noise_rows(np.nan)):
        sheet = build_label_noise_table(table)
        assert len(sheet.table) == 8
        assert not PURE_WORDS.search(sheet.note)


def test_noise_figure_without_points_says_so():
    points = pd.DataFrame(columns=["weight_ratio", "level", "kind", "error", "residual"])
    with pytest.raises(CannotDrawError, match="no residuals of the forces"):
        plot_label_noise(points, noise_rows(0.5), LEVELS, "force")
    item = pd.DataFrame({"weight_ratio": 12.25, "level": "2", "kind": "energy", "error": [0.0, 0.0], "residual": 0.0})
    assert plot_label_noise(item, noise_rows(np.nan), LEVELS, "energy").shape == (1, 1)


def test_training_errors_are_drawn_for_each_level(real):
    results, _, _, paths = real
    rows = compute_medians(results, LEVELS)
    rows = rows[(rows["twojmax"] == 4) & (rows["n_train"] == rows["n_train"].max()) & (rows["sampling"] == "random")]
    for curves in (None, paths):
        ax = plot_training_tradeoff(results, LEVELS, curves)
        marked = [line for line in ax.lines if line.get_marker() != "None"]
        for level, line in zip(LEVELS, marked, strict=True):
            selected = rows[rows["level"] == level].sort_values("weight_ratio")
            assert line.get_xdata() == pytest.approx(selected["train_energy"].to_numpy())
            assert line.get_ydata() == pytest.approx(selected["train_force"].to_numpy())
        assert len(ax.lines) == (3 if curves is None else 6)
        for level, line in zip(LEVELS, [line for line in ax.lines if line not in marked], strict=False):
            selected = paths[(paths["twojmax"] == 4) & (paths["level"] == level)]
            assert set(line.get_xdata()) <= set(selected["train_energy"])
            assert set(line.get_ydata()) <= set(selected["train_force"])
    with pytest.raises(CannotDrawError, match="same energy/force weight"):
        plot_training_tradeoff(handmade(ratios=(5.0,)), LEVELS)


@pytest.mark.usefixtures("rendered_figures")
def test_every_plan_gives_a_picture(real, tmp_path):
    results, noise, points, paths = real
    pictures = {
        plan.name: render_figure(plan, tmp_path) for plan in plan_noise_figures(results, LEVELS, paths, points, noise)
    }
    assert list(pictures) == ["training_tradeoff", "label_noise_energy", "label_noise_force"]
    for name, picture in pictures.items():
        assert picture.image, picture.missing_reason
        assert not PURE_WORDS.search(picture.caption)
        assert (tmp_path / f"{name}.png").exists()
