"""What findings claim: the published results are those of the published tables, and small differences are no claims."""

import re

import numpy as np
import pandas as pd
import pytest
from helpers.results import LEVELS, front_of, synthetic

from paretofit.report import FindingDots, PairedErrors
from paretofit.report.figures.finding_figures import plan_finding_figures, plot_dots
from paretofit.report.findings import (
    assess_error_decrease,
    assess_force_weight,
    assess_levels_on_front,
    assess_leverage_sampling,
    assess_models,
    assess_own_level,
    assess_savings,
    assess_sufficient_levels,
    collect_findings,
)
from paretofit.report.findings.sampling_finding import choose_equivalent_size, interpolate_size
from paretofit.report.findings.single_level_findings import collect_single_level_findings
from paretofit.report.page.sweep_page import assign_pictures
from paretofit.report.tables.table_text import format_cells


@pytest.fixture(scope="module")
def results():
    return synthetic()


def test_published_effect_of_the_weight_is_that_of_the_published_table(shared_data):
    table = pd.read_csv(shared_data / "published_pareto/energy_force_front_twojmax6.csv", index_col=0)
    errors = 1e3 * table.pivot_table("Testing Energy RMSE (6th precision)", "Energy Weight", "Train Precision")
    is_lower = errors.loc[12.25] < errors.loc[150]
    assert list(is_lower.index[is_lower]) == [1, 2]
    text = assess_force_weight(synthetic(repeats=2), LEVELS).published_result
    assert f"level 2: {errors.loc[12.25, 2]:.1f} and {errors.loc[150, 2]:.1f} meV/atom" in text


def test_the_cheapest_setting_is_on_every_front_with_costs(results):
    """So the paper's statement that its lowest levels are absent is not repeated next to the user's front."""
    finding = assess_levels_on_front(results, front_of(results), LEVELS)
    assert "level 1 (" in finding.answer
    assert "absent" not in finding.published_result


def test_larger_models_have_lower_errors_and_suffer_more_from_cheap_labels(results):
    """Label errors are the same for all models, so that the lowest errors grow most, by the ratio of medians."""
    size, sensitivity = assess_models(results, LEVELS)
    assert size.status in {"yes", "mixed"}
    assert (size.numbers["from"] < size.numbers["to"]).all()
    falls = size.numbers[size.numbers["force"] == "falls"]
    assert (falls["force_after"] < falls["force_before"]).all()
    medians = results[results["n_train"] == results["n_train"].max()].groupby(["twojmax", "level", "w_energy"])
    energy = medians["ref_energy"].median().reset_index().pivot_table("ref_energy", ["twojmax", "w_energy"], "level")
    factors = np.exp(np.log(energy["1"] / energy[LEVELS[-1]]).groupby("twojmax").mean())
    row = sensitivity.numbers.query("error == 'energy' and level == '1'").iloc[0]
    assert row["smallest"] == pytest.approx(factors.iloc[0])
    assert row["largest"] == pytest.approx(factors.iloc[-1])
    assert (sensitivity.status == "yes") == (set(sensitivity.numbers["change"]) - {"no clear difference"} == {"more"})


def test_a_model_size_alone_has_no_steps(results):
    alone = results[results["twojmax"] == 4]
    size, sensitivity = assess_models(alone, LEVELS)
    assert size is None
    assert sensitivity is None


def test_weights_that_differ_by_less_than_one_percent_have_no_clear_difference(results):
    reference = results[results["level"] == LEVELS[-1]]
    first, second = sorted(set(reference["w_energy"]))[:2]
    rows = reference[reference["w_energy"].isin([first, second])]
    is_second = rows["w_energy"] == second
    for factor, is_tied in ((1.005, True), (1.5, False)):
        same = rows[~is_second]
        other = same.assign(w_energy=second, ref_force=same["ref_force"] * factor)
        finding = collect_single_level_findings(pd.concat([same, other], ignore_index=True), LEVELS[-1])[1]
        assert ("no clear difference" in finding.answer.split("the lowest force error")[1]) == is_tied


def test_equivalent_numbers_of_configurations_agree_with_the_verdict():
    """Where random sampling is worse with more configurations, an equivalent number may be on the wrong side."""
    cells = pd.DataFrame({"n_train": [10, 20, 40], "random_configurations": [15.0, 12.0, 60.0]})
    assert choose_equivalent_size(cells, is_lower=True)["n_train"] in {10, 40}
    assert choose_equivalent_size(cells, is_lower=False) == {"n_train": 20, "random_configurations": 12.0}
    assert choose_equivalent_size(cells.assign(random_configurations=5.0), is_lower=True) == {}


def add_splits(results, changes):
    """Errors of the whole set in further splits; `changes` are the factors of the error of level 5 in them."""
    whole = results[(results["n_train"] == results["n_train"].max()) & (results["repeat"] == 0)]
    settings = whole[whole["sampling"] == "random"].reset_index(drop=True).assign(sampling="all")
    factors = np.where((settings["level"] == "5").to_numpy(), np.array(changes)[:, None], 1.0)[:, None]
    factors = factors * (1 + 0.01 * np.arange(len(changes)))[:, None, None]  # no two test sets are equally hard
    errors = {name: settings[name].to_numpy() * np.repeat(factors, 3, axis=1) for name in ("ref_energy", "ref_force")}
    return PairedErrors(settings, errors)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [([1.0, 1.0, 1.0, 1.0, 1.0], {"falls"}), ([1.0, 100.0, 1.0, 100.0, 1.0], {"no clear difference"})],
)
def test_a_fall_that_other_splits_do_not_have_is_no_clear_difference(results, changes, expected):
    steps = assess_error_decrease(results, LEVELS, add_splits(results, changes)).numbers
    last = steps[steps["to"] == "5"]
    assert set(last["energy"]) | set(last["force"]) == expected
    assert set(steps[steps["to"] != "5"]["energy"]) == {"falls"}, "levels without a change in the splits are as before"


def test_repetitions_that_disagree_are_no_clear_difference():
    results = synthetic(sizes=(20, 40), repeats=6, gain=1.0)
    steps = assess_error_decrease(results, LEVELS).numbers
    assert "falls" in set(steps.loc[steps["to"] == "5", "energy"])
    noisy = results.copy()
    is_last = noisy["level"] == "5"
    noisy.loc[is_last & (noisy["repeat"] % 2 == 0), "ref_energy"] *= 100
    steps = assess_error_decrease(noisy, LEVELS).numbers
    assert "falls" not in set(steps.loc[steps["to"] == "5", "energy"])


def test_a_weight_effect_that_other_splits_do_not_have_is_no_clear_difference():
    results = synthetic(force_weight_helps=True, repeats=2)
    paired = add_splits(results, [1.0] * 5)
    largest = (paired.settings["w_energy"] == 150.0).to_numpy()
    paired.errors["ref_energy"][0, :, largest] /= 10  # in one of five splits, the largest ratio has the lowest error
    finding = assess_force_weight(results, LEVELS, paired)
    low = finding.numbers[finding.numbers["level"].isin(["1", "2"])]
    assert set(low["answer"]) == {"no clear difference"}
    assert finding.status == "no"
    assert "no clear difference at 2Jmax 4 and 8" in finding.text


def test_a_subset_is_worth_the_random_configurations_with_its_error():
    curve = pd.Series({10: 8.0, 20: 4.0, 40: 5.0, 80: 1.0})
    assert interpolate_size(curve, 8.0) == pytest.approx(10)
    assert interpolate_size(curve, 2.0) == pytest.approx(40 * 2**0.5), "half way in the logarithms"
    assert interpolate_size(curve, 0.9) == np.inf
    assert interpolate_size(curve, 9.0) == 0
    assert np.isnan(interpolate_size(curve, np.nan))


def power_law(gain, exponent=-0.5):
    """Errors that fall with the size to a power; those of leverage sampling are `gain` times the random ones."""
    table = synthetic(levels=["5"], twojmax=(4,), ratios=(5.0, 50.0), sizes=(20, 40, 80, 140), gain=1.0)
    scatter = np.exp(0.01 * np.random.default_rng(1).normal(size=len(table)))
    subset_gain = np.where((table["sampling"] == "random") | (table["n_train"] == 140), 1.0, gain)
    error = 100 * table["n_train"] ** exponent * subset_gain * np.where(table["n_train"] == 140, 1.0, scatter)
    return table.assign(ref_energy=error, ref_force=error)


def test_what_sampling_is_worth_follows_the_learning_curve():
    finding = assess_leverage_sampling(power_law(0.8), ["5"])
    assert finding.status == "yes"
    rows = finding.numbers[finding.numbers["n_train"] == 40]
    assert rows["random_configurations"].to_numpy() == pytest.approx(40 / 0.8**2, rel=0.05)
    assert "40 configurations have the energy error of about 6" in finding.text


def test_subsets_that_do_not_determine_the_model_are_left_out():
    table = power_law(1.0)
    is_small = table["n_train"] == 20
    is_leverage = table["sampling"] != "random"
    errors = ["ref_energy", "ref_force"]
    table.loc[is_small & is_leverage, errors] *= 0.1
    assert assess_leverage_sampling(table, ["5"]).status == "yes"
    table.loc[is_small & ~is_leverage, "rank"] = table["n_features"] - 1
    finding = assess_leverage_sampling(table, ["5"])
    assert 20 not in set(finding.numbers["n_train"])
    assert "2 cells are left out in which a subset does not determine all coefficients" in finding.text


def test_a_gain_that_other_splits_do_not_have_is_no_clear_difference():
    table = power_law(0.8)
    settings = table[table["repeat"] == 0].reset_index(drop=True)
    same = np.stack([settings["ref_energy"]] * 4)[:, None]
    is_random = (settings["sampling"] == "random").to_numpy()
    reverse = same.copy()
    reverse[2:, :, is_random] *= 0.5
    for errors, status in ((same, "yes"), (reverse, "no")):
        paired = PairedErrors(settings, {"ref_energy": errors, "ref_force": errors})
        finding = assess_leverage_sampling(table, ["5"], paired)
        assert finding.status == status
        assert ("has no clear difference" in finding.text) == (status == "no")


def test_too_few_splits_for_a_test_leave_it_to_the_repetitions():
    table = power_law(0.8)
    settings = table[table["repeat"] == 0].drop(columns=["repeat"]).reset_index(drop=True)
    errors = {name: np.tile(settings[name].to_numpy(), (2, 3, 1)) for name in ("ref_energy", "ref_force")}
    finding = assess_leverage_sampling(table, ["5"], PairedErrors(settings, errors))
    assert finding.status == "yes"
    assert "over repetitions" in finding.text


def test_models_closer_to_the_reference_than_to_their_labels_are_counted(results):
    changed = results.assign(ref_energy=results["test_energy"] * 1.2, ref_force=results["test_force"])
    is_smooth = (changed["level"] == "2") & (changed["twojmax"] == 4)
    changed.loc[is_smooth, "ref_energy"] = 0.5 * changed["test_energy"]
    finding = assess_own_level(changed, LEVELS)
    assert "energy error against the reference is clearly lower in 5 of 10 at level 2;" in finding.text
    assert "force error against the reference is clearly lower in none" in finding.text
    assert set(finding.numbers["level"]) == {"1", "2", "3", "4"}
    assert assess_own_level(changed[changed["level"] == "5"], LEVELS) is None


@pytest.mark.parametrize(("ratio", "is_enough"), [(0.98, True), (1.03, True), (1.08, False), (1.3, False)])
def test_a_level_is_enough_if_its_whole_interval_is_below_ten_percent(ratio, is_enough):
    """The scatter of the paired samples is 3 %, so that the interval of 1.08 reaches above 1.1."""
    table = synthetic(samplings=("random",), noise=False, repeats=1)
    settings = table.drop(columns="repeat").reset_index(drop=True)
    rng = np.random.default_rng(5)
    common = np.exp(rng.normal(0, 0.5, (5, 40, 1)))  # a hard test set is hard for all settings
    levels = np.where(settings["level"] == "4", ratio, np.where(settings["level"] == "5", 1.0, 3.0))
    errors = {
        name: common * levels * settings[name].to_numpy() * np.exp(rng.normal(0, 0.02, (5, 40, len(settings))))
        for name in ("ref_energy", "ref_force")
    }
    for name in errors:
        table[name] *= levels
    finding = assess_sufficient_levels(table, LEVELS, PairedErrors(settings, errors))
    assert ("level 4 is enough at 2Jmax 4 and 8" in finding.answer.replace("Level", "level")) == is_enough
    assert ("at 2Jmax 4 and 8, no level below 5 is" in finding.answer.replace("At", "at")) != is_enough
    rows = finding.numbers[finding.numbers["level"] == "4"]
    assert (rows["is_enough"] == is_enough).all()
    assert rows["energy_ratio"].to_numpy() == pytest.approx(ratio, rel=0.2)
    assert set(finding.numbers["level"]) == {"1", "2", "3", "4"}


def test_repetitions_of_the_whole_training_set_do_not_show_that_a_level_is_enough(results):
    finding = assess_sufficient_levels(results, LEVELS)
    assert finding.answer.startswith("Which level is enough is not known; that requires 5 further splits")
    assert not finding.numbers["is_enough"].any()
    assert assess_sufficient_levels(results[results["level"] == "5"], LEVELS) is None


def test_savings_are_those_of_the_cheapest_setting_within_a_tolerance():
    table = synthetic(twojmax=(4,), ratios=(5.0,), samplings=("random",), sizes=(20, 40, 80), levels=["5"], repeats=1)
    table["ref_energy"], table["label_seconds"] = [11.9, 10.9, 10.0], [100.0, 400.0, 1000.0]
    finding = assess_savings(table, ["5"])
    savings = finding.numbers[finding.numbers["error"] == "energy"].set_index("tolerance")["saving"]
    assert savings.to_dict() == {0.05: 1.0, 0.1: 2.5, 0.2: 10.0, 0.5: 10.0}
    assert "an error that is 10 % larger costs 2.5 times less (level 5, 40 configurations" in finding.text
    assert assess_savings(table.assign(label_seconds=np.nan), ["5"]) is None


def test_a_value_and_its_interval_share_a_column():
    table = pd.DataFrame({"error_low": [24.0, np.nan], "n": [1, 2], "error": [28.06, 3.0], "error_high": [34.21, 4.0]})
    headings, rows = format_cells(table)
    assert headings == ["n", "error, 90 % interval"]
    assert rows == [[("1", 1), ("28.1 (24–34.2)", 28.06)], [("2", 2), ("3", 3.0)]]


def test_paired_ratios_have_the_interval_of_their_samples(results):
    """Factors 0.5 to 2 of the last level in five splits are the ends of the interval of the change."""
    paired = add_splits(results, [0.5, 1.0, 1.0, 1.0, 2.0])
    steps = assess_error_decrease(results, LEVELS, paired).numbers
    last, others = steps[steps["to"] == "5"], steps[steps["to"] != "5"]
    assert last["energy_factor_low"].to_numpy() == pytest.approx(0.5 * last["energy_factor"].to_numpy(), rel=0.2)
    assert last["energy_factor_high"].to_numpy() == pytest.approx(2.0 * last["energy_factor"].to_numpy(), rel=0.2)
    assert others["energy_factor_low"].to_numpy() == pytest.approx(others["energy_factor_high"].to_numpy())


def learning_table(exponent, scatter, repeats=8):
    """Errors of a single level that follow a power of the size, with a scatter that the repetitions do not share."""
    table = synthetic(levels=["5"], twojmax=(4,), ratios=(5.0,), samplings=("random",), repeats=repeats)
    noise = np.exp(scatter * np.random.default_rng(5).normal(size=len(table)))
    error = 100 * table["n_train"] ** exponent * noise
    return table.assign(ref_energy=error, ref_force=error)


@pytest.mark.parametrize(
    ("exponent", "scatter", "is_clear"), [(-0.5, 0.02, True), (-0.05, 0.5, False), (0.0, 1e-4, False)]
)
def test_the_gain_of_more_configurations_has_an_interval(exponent, scatter, is_clear):
    finding = collect_single_level_findings(learning_table(exponent, scatter), "5")[0]
    assert (", no clear gain)" not in finding.answer) == is_clear
    numbers = finding.numbers.iloc[1:]
    assert (numbers["energy_factor_low"] <= numbers["energy_factor_high"]).all()
    assert np.isnan(finding.numbers["energy_factor"].iloc[0])
    if is_clear:
        low, high = map(float, re.search(r"90 % interval ([\d.]+) to ([\d.]+)", finding.answer).groups())
        assert low < 2**-0.5 < high
        assert set(numbers["energy"]) == {"falls"}


def test_a_single_repetition_gives_no_interval_of_the_gain():
    finding = collect_single_level_findings(learning_table(-0.5, 0.02, repeats=1), "5")[0]
    assert "(no interval, no clear gain)" in finding.answer


def test_every_finding_has_a_picture_of_its_own(results):
    findings = collect_findings(results, front_of(results), LEVELS)
    dots = {plan.name for plan in plan_finding_figures(findings)}
    pictures = assign_pictures(findings, {"energy_force", "learning_curves", "front_at_budgets", *dots})
    assert len(set(pictures.values())) == len(pictures) == len(findings)


@pytest.mark.parametrize("reference", [0.0, 1.0])
def test_dots_show_every_value_and_are_hollow_without_a_clear_difference(reference):
    table = pd.DataFrame({
        "error": ["energy", "energy", "force"], "group": ["a", "a", "b$"], "value": [0.5, 1.2, 0.9],
        "low": [0.4, -0.1, np.nan], "high": [0.6, 1.3, np.nan],
    })  # fmt: skip
    axes = plot_dots(FindingDots(table, "ratio", reference))
    assert len(axes) == 2
    faces = {}
    for line in [line for ax in axes for line in ax.lines if line.get_marker() == "o"]:
        faces |= dict.fromkeys(line.get_xdata(), line.get_markerfacecolor())
    assert set(faces) == {0.5, 1.2, 0.9}
    assert faces[1.2] == "white"
    assert faces[0.5] == faces[0.9] != "white"
