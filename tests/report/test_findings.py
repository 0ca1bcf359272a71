"""What findings claim: the published results are those of the published tables, and small differences are no claims."""

import pandas as pd
import pytest
from helpers.results import LEVELS, front_of, synthetic

from paretofit.report.findings import assess_force_weight, assess_levels_on_front


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
