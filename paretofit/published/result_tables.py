"""The published results tables under the project's names and units, with what their labels cost.

I. Baghishov et al., Digital Discovery (2025), doi 10.1039/d5dd00294j; the tables are those of the authors' repository
DFTprecisionMLIP. A table says by its columns which of their three scripts wrote it; nothing is taken from its name.

What each published column is here (RMSE; eV/atom and eV/Å there, meV/atom and meV/Å here):

============================  =======================================================================================
weights (all configurations)  ``train_*``: Training … (train precision); ``test_*``: Testing … (train precision);
                              ``ref_*``: Testing … (6th precision). One fit each, to all 10,000 configurations.
samplings                     Everything is measured against "Error Precision": ``train_*``: Subsampled …, ``test_*``:
                              Testing …, both where that is the level trained on; ``ref_*``: Testing …, where it is the
                              reference; NaN elsewhere. Training … is over all 10,000 and has no place here.
samplings and weights         ``train_*``: Subsampled … (train precision); the rest as for weights. All are leverage
                              sampled, which the file does not say. The authors' folder ``3D_pareto``.
============================  =======================================================================================

The paper says 10,000 configurations train. The authors' fits to a subset of 9,990 have the numbers of the fits to
all, to nine digits, so that 9,990 may be meant: one part in a thousand of the cost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from paretofit.core import InputError, suggest_match
from paretofit.pareto import extract_numbers, read_table

SECONDS_PER_CONFIGURATION: Mapping[str, float] = MappingProxyType(
    {"1": 8.33, "2": 10.02, "3": 14.80, "4": 19.18, "5": 91.99, "6": 996.14}
)
N_CONFIGURATIONS = 10_000
ERROR_COLUMNS = ("train_energy", "train_force", "test_energy", "test_force", "ref_energy", "ref_force")
COLUMNS = [
    "twojmax", "level", "sampling", "n_train", "repeat", "w_energy", "w_force", *ERROR_COLUMNS, "label_seconds",
]  # fmt: skip
FIT_COLUMNS = ["twojmax", "level", "sampling", "n_train", "w_energy", "w_force"]
_SAMPLINGS = {"Random": "random", "Leverage": "leverage", "Block Leverage": "block-leverage"}
_MILLI = 1e3


@dataclass(frozen=True)
class _Form:
    """One of the published tables: its name, and where each error is, with {} for "Energy" or "Force"."""

    name: str
    keys: tuple[str, ...]
    train: str
    test: str
    reference: str

    @property
    def errors(self) -> dict[str, str]:
        """Our name of each error to theirs."""
        kinds = {"train": self.train, "test": self.test, "ref": self.reference}
        quantities = ("Energy", "Force")
        return {f"{kind}_{one.lower()}": text.format(one) for kind, text in kinds.items() for one in quantities}

    @property
    def columns(self) -> list[str]:
        """Every column that is read."""
        return list(dict.fromkeys([*self.keys, *self.errors.values()]))


_FIT_KEYS = ("Energy Weight", "2Jmax", "Train Precision")
_OWN, _TOP = "{} RMSE (train precision)", "Testing {} RMSE (6th precision)"
_WEIGHTS = _Form("weights", _FIT_KEYS, f"Training {_OWN}", f"Testing {_OWN}", _TOP)
_SAMPLING = _Form(
    "samplings",
    ("Subsample size", *_FIT_KEYS, "Error Precision", "Sampling Method"),
    "Subsampled {} RMSE",
    "Testing {} RMSE",
    "Testing {} RMSE",
)
_BOTH = _Form("samplings and weights", ("Subsample size", *_FIT_KEYS), f"Subsampled {_OWN}", f"Testing {_OWN}", _TOP)
FORMS = (_BOTH, _SAMPLING, _WEIGHTS)  # the first that fits: the last has only columns that the first has, too


def read_published(
    paths: Sequence[Path | str],
    cost_per_configuration: Mapping[str, float] = SECONDS_PER_CONFIGURATION,
) -> pd.DataFrame:
    """Read published tables, of one form or several, into one results table.

    Parameters
    ----------
    paths : sequence of path-like
        CSV files; of each the form is told by its columns.
    cost_per_configuration : mapping of level to float
        Seconds of one label at each level, cheapest first; the last level is the reference. By default Table 1 of
        the paper: seconds on one A100 GPU.

    Returns
    -------
    DataFrame, a row per fit
        The columns `COLUMNS`: levels as text, errors in meV/atom and meV/Å, NaN where the table does not have them,
        ``label_seconds`` = ``n_train`` times the cost. ``repeat`` counts rows of the same settings from 0.

    Raises
    ------
    InputError
        A file cannot be read, is none of the published tables, is named twice, has a level without a cost, a
        sampling that is not known, or numbers that cannot be; or there is no file.
    """
    files = [Path(path) for path in paths]
    if not files:
        raise InputError("there is no table; name at least one of the published CSV files")
    for position, file in enumerate(files):
        if file.resolve() in [one.resolve() for one in files[:position]]:
            raise InputError(f"{file} is named twice; its rows would count as more repetitions")
    costs = _checked_costs(cost_per_configuration)
    table = pd.concat([_read(file, costs) for file in files], ignore_index=True)
    table["repeat"] = table.groupby([*FIT_COLUMNS, "_against"], dropna=False).cumcount()
    return table[COLUMNS]


def _checked_costs(given: Mapping[str, float]) -> dict[str, float]:
    costs = {str(level): float(seconds) for level, seconds in given.items()}
    for level, seconds in costs.items():
        if not 0 < seconds < np.inf:
            raise InputError(f"the seconds of level '{level}' must be a positive number; got {seconds:g}")
    if not costs:
        raise InputError("the cost per configuration names no level; give the seconds of each, the reference last")
    return costs


def _read(path: Path, costs: Mapping[str, float]) -> pd.DataFrame:
    frame = read_table(path)
    form = _form(path, frame)
    if frame.empty:
        raise InputError(f"{path}: has no rows; a published table with at least one is needed")
    try:
        numbers = extract_numbers(frame, [name for name in form.columns if name != "Sampling Method"])
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None
    level = _levels(path, numbers["Train Precision"], costs, "Train Precision")
    n_train = _counts(path, numbers, "Subsample size") if "Subsample size" in numbers else N_CONFIGURATIONS
    table = pd.DataFrame({
        "twojmax": _counts(path, numbers, "2Jmax"),
        "level": level,
        "sampling": _samplings(path, frame, form),
        "n_train": n_train,
        "w_energy": numbers["Energy Weight"].astype(float),
        "w_force": 1.0,
        **{ours: _MILLI * numbers[theirs].astype(float) for ours, theirs in form.errors.items()},
    })  # fmt: skip
    table["label_seconds"] = table["n_train"] * table["level"].map(dict(costs)).astype(float)
    table["_against"] = level
    if form is _SAMPLING:
        against = _levels(path, numbers["Error Precision"], costs, "Error Precision")
        own = ["train_energy", "train_force", "test_energy", "test_force"]
        table.loc[against != level, own] = np.nan
        table.loc[against != list(costs)[-1], ["ref_energy", "ref_force"]] = np.nan
        table["_against"] = against
    return table


def _form(path: Path, frame: pd.DataFrame) -> _Form:
    """The form that a table has."""
    lacking = {form: [name for name in form.columns if name not in frame.columns] for form in FORMS}
    for form, missing in lacking.items():
        if not missing:
            return form
    nearest = min(FORMS, key=lambda form: len(lacking[form]))
    raise InputError(
        f"{path}: is none of the published tables; for that of {nearest.name} it lacks the columns "
        f"{', '.join(repr(name) for name in lacking[nearest])}"
    )


def _counts(path: Path, numbers: pd.DataFrame, name: str) -> pd.Series:
    """A column of whole positive numbers as int64."""
    values = numbers[name].to_numpy(dtype=float)
    wrong = ~(np.isfinite(values) & (values > 0) & (values == np.round(values)))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise InputError(
            f"{path}: '{name}' must be a whole positive number; got {values[first]:g} in data row {first + 1}"
        )
    return pd.Series(values.astype(np.int64), index=numbers.index)


def _levels(path: Path, column: pd.Series, costs: Mapping[str, float], name: str) -> pd.Series:
    """Names of levels, each with a cost."""
    names = pd.Series([f"{value:g}" for value in column.to_numpy(dtype=float)], index=column.index, dtype=object)
    unknown = sorted(set(names) - set(costs))
    if unknown:
        raise InputError(f"{path}: '{name}' has level {unknown[0]}, for which no cost is given; costs are given for "
                         f"{', '.join(costs)}")  # fmt: skip
    return names


def _samplings(path: Path, frame: pd.DataFrame, form: _Form) -> pd.Series | str:
    """Our names of the samplings. Where all configurations train, random stands for every sampling."""
    if form is not _SAMPLING:
        return "leverage" if form is _BOTH else "random"
    names = frame["Sampling Method"].astype(str)
    unknown = sorted(set(names) - set(_SAMPLINGS))
    if unknown:
        raise InputError(
            f"{path}: 'Sampling Method' must be one of {', '.join(_SAMPLINGS)}; got '{unknown[0]}'"
            f"{suggest_match(unknown[0], _SAMPLINGS)}"
        )
    return names.map(_SAMPLINGS)
