"""Tables of confidence: settings are matched whether they come from memory or from files, ridge penalties included."""

import numpy as np
import pandas as pd

from paretofit.core import write_csv
from paretofit.study import split_confidence
from paretofit.sweep import SPLIT_ERROR_COLUMNS, SPLIT_SETTING_COLUMNS, SplitErrors


def make_tables(rng):
    """Errors of five further splits of a study with two penalties, and its results."""
    rows = [
        (twojmax, level, sampling, n_train, 1.0, 1.0, ridge)
        for twojmax in (2, 4)
        for level in "12"
        for sampling, n_train in (("random", 5), ("all", 9))
        for ridge in (0.0, "auto")
    ]
    settings = pd.DataFrame(rows, columns=SPLIT_SETTING_COLUMNS)
    shape = 5, 11, len(settings)
    errors = {name: np.exp(rng.normal(size=shape)).astype(np.float32) for name in SPLIT_ERROR_COLUMNS}
    values = [{name: np.exp(rng.normal(size=len(settings))) for name in SPLIT_ERROR_COLUMNS} for _ in range(3)]
    tables = [settings.assign(label_seconds=1.0, **columns) for columns in values]
    return SplitErrors(settings, errors), pd.concat(tables).assign(sampling="random")


def test_every_setting_with_a_ridge_has_an_interval_and_ties(tmp_path):
    split_errors, results = make_tables(np.random.default_rng(0))
    table = split_confidence.tabulate_confidence(split_errors, results, 9)
    assert len(table) == len(split_errors.settings)
    assert not table.isna().any(axis=None)
    assert ((table["ref_energy_low"] > 0) & (table["ref_energy_low"] < table["ref_energy_high"])).all()
    write_csv(table, tmp_path / "confidence.csv")
    split_confidence._write_split_errors(tmp_path, "key", split_errors)
    assert split_confidence.read_split_errors(tmp_path, "other key") is None
    front = table.head(2)[SPLIT_SETTING_COLUMNS].assign(ridge=["0", "auto"])
    front = split_confidence.add_front_confidence(front, {"basis": tmp_path})
    np.testing.assert_allclose(front["p_front"], table["p_front"].head(2), rtol=1e-6)
    assert set(front["tied_with"]) <= {"", "1", "2"}


def test_a_model_above_a_smaller_one_in_both_errors_at_every_level_is_never_a_choice():
    results = pd.DataFrame(
        [(twojmax, level, "random", n_train, 1.0, 1.0, energy, energy)
         for level in "12"
         for n_train, twojmax, energy in ((5, 2, 1.0), (5, 4, 2.0), (9, 2, 1.0), (9, 4, 0.5 if level == "2" else 2.0))],
        columns=[*SPLIT_SETTING_COLUMNS[:-1], "ref_energy", "ref_force"],
    )  # fmt: skip
    assert split_confidence.find_dominated_models(results) == [(5, 4)]
