"""Whether errors of energies and forces rank settings as the errors of properties do."""

import numpy as np
import pandas as pd
import pytest

from paretofit.report import PairedErrors
from paretofit.report.findings import assess_properties

N_SETTINGS, N_SPLITS = 12, 3
RMSE = np.geomspace(1, 50, N_SETTINGS)


def make_results(**properties):
    """One fit for each of some sizes, with energy and force errors of `RMSE` and given errors of properties."""
    table = pd.DataFrame({
        "twojmax": 4, "level": "5", "sampling": "random", "n_train": np.arange(10, 10 + N_SETTINGS), "repeat": 0,
        "w_energy": 12.25, "w_force": 1.0, "ref_energy": RMSE, "ref_force": 10 * RMSE,
    })  # fmt: skip
    return table.assign(**{f"prop_{name}_error": values for name, values in properties.items()})


def make_splits(results, noise):
    """The same errors in three splits, those of properties with noise of some size."""
    rng, names = np.random.default_rng(1), [name for name in results if name.startswith(("ref_", "prop_"))]
    errors = {}
    for name in names:
        scale = noise if name.startswith("prop_") else 0.01
        errors[name] = results[name].to_numpy() * np.exp(scale * rng.normal(size=(N_SPLITS, 1, N_SETTINGS)))
    return PairedErrors(results.drop(columns=names), errors)


def test_properties_that_follow_do_not_follow_or_oppose():
    rng = np.random.default_rng(2)
    results = make_results(like=RMSE**2, opposite=1 / RMSE, random=np.exp(rng.normal(size=N_SETTINGS)))
    finding = assess_properties(results, make_splits(results, 0.2))
    ranks = finding.numbers.set_index("property")["rank_both"]
    assert ranks["like"] == pytest.approx(1)
    assert ranks["opposite"] == pytest.approx(-1)
    assert finding.status == "mixed"
    assert "clearly have lower errors of like" in finding.answer
    assert "clearly have higher errors of opposite" in finding.answer
    assert "no clearly lower or higher errors of random" in finding.answer
    row = finding.numbers.set_index("property").loc["opposite"]
    assert (row["error_of_lowest_errors"], row["lowest_error"]) == (pytest.approx(1), pytest.approx(1 / 50))


def test_without_splits_nothing_is_clear():
    finding = assess_properties(make_results(like=RMSE))
    assert finding.status == "no"
    assert "no correlation is clear" in finding.answer


def test_errors_that_are_not_defined_are_the_largest():
    errors = RMSE.copy()
    errors[-1] = np.inf
    results = make_results(volume=errors)
    finding = assess_properties(results, make_splits(results, 0.0))
    assert finding.numbers["rank_both"].item() == pytest.approx(1)


def test_no_properties_or_few_settings_have_no_finding():
    assert assess_properties(make_results()) is None
    assert assess_properties(make_results(like=RMSE)[:3]) is None
