"""Reader of the published results tables, which converts them to paretofit's names and units, and adds label costs.

The paper is I. Baghishov et al., Digital Discovery (2025), doi 10.1039/d5dd00294j; the tables are in the authors'
repository DFTprecisionMLIP. Three scripts wrote tables in three formats; the columns of a table, not its name, identify
the format.

Meaning of the published columns (RMSE in eV/atom and eV/Å, converted to meV/atom and meV/Å):

============================  =======================================================================================
weights (all configurations)  ``train_*``: Training … (train precision); ``test_*``: Testing … (train precision);
                              ``ref_*``: Testing … (6th precision). Each row is a fit to all 10,000 configurations.
samplings                     Errors are measured at the level "Error Precision". If this is the training level:
                              ``train_*``: Subsampled …, ``test_*``: Testing …; if it is the reference level: ``ref_*``:
                              Testing …; NaN otherwise. Training … refers to all 10,000 configurations and is not read.
samplings and weights         ``train_*``: Subsampled … (train precision); other columns as for weights. All subsets
                              were drawn by leverage, although the file does not record this. These tables are in the
                              authors' directory ``3D_pareto``.
============================  =======================================================================================

Each fit counts once, although several tables may contain it. According to the paper, the training set has 10,000
configurations, but the authors' table of its leverage scores has 9,990 rows, and fits to subsets of 9,990 are fits to
the whole training set: their errors on the subset and on the training set are equal to 14 digits, and the errors of all
36 such fits agree within 1.1e-9 (relative) with those of the table of weights, whereas the errors of a fit to 7,500
configurations differ by 2 % (w_E 5, level 6). Rows of different tables whose errors agree within 1e-6 are therefore
merged. Of such rows, the one with the largest number of configurations remains: 10,000, as in the paper, for which the
cost is 0.1 % higher.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from paretofit.core import InputError, check_choice
from paretofit.dataset import find_first_duplicate
from paretofit.pareto import extract_numbers, read_table

# Computing time of a label at each level on an A100 GPU, s: Table 1 of the paper.
_SECONDS = {"1": 8.33, "2": 10.02, "3": 14.80, "4": 19.18, "5": 91.99, "6": 996.14}
SECONDS_PER_CONFIGURATION: Mapping[str, float] = MappingProxyType(_SECONDS)
N_CONFIGURATIONS = 10_000  # size of the training set
ERROR_COLUMNS = ("train_energy", "train_force", "test_energy", "test_force", "ref_energy", "ref_force")
COLUMNS = [
    "twojmax", "level", "sampling", "n_train", "repeat", "w_energy", "w_force", *ERROR_COLUMNS, "label_seconds",
]  # fmt: skip
FIT_COLUMNS = ["twojmax", "level", "sampling", "n_train", "w_energy", "w_force"]
_SAMPLING_METHODS = {"Random": "random", "Leverage": "leverage", "Block Leverage": "block-leverage"}
_MEV_PER_EV = 1e3
EQUAL_ERRORS_TOLERANCE = 1e-6  # relative difference of errors up to which two rows describe the same fit


@dataclass(frozen=True)
class _TableFormat:
    """Columns of a published table.

    Attributes
    ----------
    name : str
        Name of the format, for messages.
    keys : tuple of str
        Columns of the settings of a fit.
    train, test, reference : str
        Columns of the errors; ``{}`` is replaced by "Energy" or "Force".
    """

    name: str
    keys: tuple[str, ...]
    train: str
    test: str
    reference: str

    @property
    def errors(self) -> dict[str, str]:
        """Mapping of `ERROR_COLUMNS` to the columns of the published table."""
        patterns = {"train": self.train, "test": self.test, "ref": self.reference}
        return {
            f"{prefix}_{quantity.lower()}": pattern.format(quantity)
            for prefix, pattern in patterns.items()
            for quantity in ("Energy", "Force")
        }

    @property
    def columns(self) -> list[str]:
        """Names of all columns that are read."""
        return list(dict.fromkeys([*self.keys, *self.errors.values()]))


_FIT_KEYS = ("Energy Weight", "2Jmax", "Train Precision")
_SUBSET_KEYS = ("Subsample size", *_FIT_KEYS)
_TEST_COLUMNS = ("Testing {} RMSE (train precision)", "Testing {} RMSE (6th precision)")
_WEIGHTS_FORMAT = _TableFormat("weights", _FIT_KEYS, "Training {} RMSE (train precision)", *_TEST_COLUMNS)
_WEIGHTED_SAMPLING_FORMAT = _TableFormat(
    "samplings and weights", _SUBSET_KEYS, "Subsampled {} RMSE (train precision)", *_TEST_COLUMNS
)
_SAMPLING_FORMAT = _TableFormat(
    "samplings",
    (*_SUBSET_KEYS, "Error Precision", "Sampling Method"),
    *("Subsampled {} RMSE", "Testing {} RMSE", "Testing {} RMSE"),
)
# In order of priority, because the first format has all columns of the last.
TABLE_FORMATS = (_WEIGHTED_SAMPLING_FORMAT, _SAMPLING_FORMAT, _WEIGHTS_FORMAT)


def read_published(
    paths: Sequence[Path | str],
    cost_per_configuration: Mapping[str, float] = SECONDS_PER_CONFIGURATION,
) -> pd.DataFrame:
    """Read published tables, which may have different formats, into one results table.

    Parameters
    ----------
    paths : sequence of path-like
        CSV files; the columns of a file determine its format.
    cost_per_configuration : mapping of level to float
        Seconds of a label at each level, in order of cost; the last level is the reference. The default values are
        those of Table 1 of the paper, which were measured on an A100 GPU.

    Returns
    -------
    DataFrame, a row per fit
        The columns `COLUMNS`: levels are text, errors are in meV/atom and meV/Å (NaN if the table lacks them), and
        ``label_seconds`` is ``n_train`` times the cost. ``repeat`` numbers rows with the same settings from 0.
        ``attrs["merged_rows"]`` is the number of rows that were dropped, because they describe a fit of another table.

    Raises
    ------
    InputError
        If no file is given; a file cannot be read, does not have the columns of a published table, is given twice, or
        has no rows, a level without a cost, an unknown sampling method or invalid numbers; or a cost is not positive.
    """
    files = [Path(path) for path in paths]
    if not files:
        raise InputError("no table was given; specify at least one of the published CSV files")
    if duplicate_file := find_first_duplicate(file.resolve() for file in files):
        raise InputError(f"{duplicate_file} is given twice, so its rows would count as repetitions; remove one")
    costs = _parse_costs(cost_per_configuration)
    tables = [_read_result_table(file, costs).assign(_table=number) for number, file in enumerate(files)]
    table = pd.concat(tables, ignore_index=True)
    is_repeated = _mark_repeated_fits(table)
    table = table[~is_repeated].reset_index(drop=True)
    table["repeat"] = table.groupby([*FIT_COLUMNS, "_error_level"], dropna=False).cumcount()
    table = table[COLUMNS]
    table.attrs["merged_rows"] = int(is_repeated.sum())
    return table


def _mark_repeated_fits(table: pd.DataFrame) -> np.ndarray:
    """Return ``(n_rows,) bool``: whether a row describes the same fit as a row of another table, and is to be dropped.

    Two rows describe the same fit if 2Jmax, level and weights are equal and all errors agree. The row with fewer
    configurations is dropped or, if the numbers are equal, the later one.
    """
    errors = table[list(ERROR_COLUMNS)].to_numpy(dtype=float)
    has_error = np.isfinite(errors) & (errors > 0)
    # A missing error gets a logarithm that no measured error has, so that it agrees with missing errors only.
    logarithms = np.log(errors, out=np.full(errors.shape, -1e3), where=has_error)
    settings = table.groupby(["twojmax", "level", "w_energy", "w_force", "_error_level"]).ngroup()
    order = np.argsort(-table["n_train"].to_numpy(), kind="stable")
    order = order[has_error.any(axis=1)[order]]
    points = np.column_stack([settings, logarithms])[order]  # numbers of different settings differ by 1 or more
    # In each pair, the second row follows the first in `order`, so that it has at most as many configurations.
    pairs = cKDTree(points).query_pairs(EQUAL_ERRORS_TOLERANCE, p=np.inf, output_type="ndarray")
    first_rows, second_rows = order[pairs].T
    table_numbers = table["_table"].to_numpy()
    is_repeated = np.zeros(len(table), dtype=bool)
    is_repeated[second_rows[table_numbers[first_rows] != table_numbers[second_rows]]] = True
    return is_repeated


def _parse_costs(cost_per_configuration: Mapping[str, float]) -> dict[str, float]:
    """Convert levels to text and costs to numbers; raise `InputError` for costs that are not positive and finite."""
    costs = {str(level): float(seconds) for level, seconds in cost_per_configuration.items()}
    for level, seconds in costs.items():
        if not 0 < seconds < np.inf:
            raise InputError(f"the seconds of level '{level}' must be a positive number; got {seconds:g}")
    if not costs:
        raise InputError("cost_per_configuration is empty; specify the seconds of each level, the reference last")
    return costs


def _read_result_table(path: Path, costs: Mapping[str, float]) -> pd.DataFrame:
    """Read a table as `COLUMNS` without ``repeat``, with the column ``_error_level``: the level of the test errors."""
    published_table = read_table(path)
    table_format = _detect_format(path, published_table)
    if published_table.empty:
        raise InputError(f"{path}: the table has no rows; at least one is needed")
    try:
        numbers = extract_numbers(published_table, [name for name in table_format.columns if name != "Sampling Method"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    level = _parse_levels(path, numbers["Train Precision"], costs, "Train Precision")
    has_subsets = "Subsample size" in numbers
    table = pd.DataFrame({
        "twojmax": _parse_counts(path, numbers, "2Jmax"),
        "level": level,
        "sampling": _parse_sampling_methods(path, published_table, table_format),
        "n_train": _parse_counts(path, numbers, "Subsample size") if has_subsets else N_CONFIGURATIONS,
        "w_energy": numbers["Energy Weight"].astype(float),
        "w_force": 1.0,
        **{name: _MEV_PER_EV * numbers[column].astype(float) for name, column in table_format.errors.items()},
    })  # fmt: skip
    table["label_seconds"] = table["n_train"] * table["level"].map(dict(costs)).astype(float)
    table["_error_level"] = level
    if table_format is _SAMPLING_FORMAT:  # a row has errors at one level only
        table["_error_level"] = _parse_levels(path, numbers["Error Precision"], costs, "Error Precision")
        table.loc[table["_error_level"] != level, ["train_energy", "train_force", "test_energy", "test_force"]] = np.nan
        table.loc[table["_error_level"] != list(costs)[-1], ["ref_energy", "ref_force"]] = np.nan
    return table


def _detect_format(path: Path, published_table: pd.DataFrame) -> _TableFormat:
    """Return the format whose columns the table has; an error lists the missing columns of the most similar format."""
    missing_columns = {
        entry: [name for name in entry.columns if name not in published_table.columns] for entry in TABLE_FORMATS
    }
    table_format = min(TABLE_FORMATS, key=lambda entry: len(missing_columns[entry]))
    if missing_columns[table_format]:
        raise InputError(
            f"{path} is not a published table; it lacks the columns "
            f"{', '.join(map(repr, missing_columns[table_format]))} of the table of {table_format.name}"
        )
    return table_format


def _parse_counts(path: Path, numbers: pd.DataFrame, name: str) -> pd.Series:
    """Convert a column of positive whole numbers to int64; raise `InputError` for any other number."""
    values = numbers[name].to_numpy(dtype=float)
    is_invalid = ~(np.isfinite(values) & (values > 0) & (values == np.round(values)))
    if is_invalid.any():
        first_position = int(np.argmax(is_invalid))
        row = f"data row {first_position + 1}"
        raise InputError(f"{path}: '{name}' must be a positive whole number; got {values[first_position]:g} in {row}")
    return pd.Series(values.astype(np.int64), index=numbers.index)


def _parse_levels(path: Path, column: pd.Series, costs: Mapping[str, float], name: str) -> pd.Series:
    """Convert a column of numbers to names of levels, and check that each has a cost."""
    names = pd.Series([f"{value:g}" for value in column.to_numpy(dtype=float)], index=column.index, dtype=object)
    unknown_levels = sorted(set(names) - set(costs))
    if unknown_levels:
        problem = f"'{name}' has level {unknown_levels[0]}, which has no cost"
        raise InputError(f"{path}: {problem}; levels with a cost: {', '.join(costs)}")
    return names


def _parse_sampling_methods(path: Path, published_table: pd.DataFrame, table_format: _TableFormat) -> pd.Series | str:
    """Return the column of paretofit's names of the sampling methods, or one name for a table without such a column."""
    if table_format is not _SAMPLING_FORMAT:
        return "leverage" if table_format is _WEIGHTED_SAMPLING_FORMAT else "random"
    names = published_table["Sampling Method"].astype(str)
    for name in sorted(set(names)):
        check_choice(f"{path}: 'Sampling Method'", name, _SAMPLING_METHODS)
    return names.map(_SAMPLING_METHODS)
