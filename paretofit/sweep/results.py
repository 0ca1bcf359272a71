"""The results table: its columns, its order, and the journal that makes a sweep resumable."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd

from paretofit.core import InputError, JsonLines, atomic_path

SWEEP_COLUMNS = [
    "twojmax",
    "level",
    "sampling",
    "n_train",
    "repeat",
    "w_energy",
    "w_force",
    "n_features",
    "rank",
    "condition",
    "solver",
    "train_energy",
    "train_force",
    "test_energy",
    "test_force",
    "ref_energy",
    "ref_force",
    "ref_energy_shifted",
    "label_seconds",
    "md_us_per_atom_step",
]
SWEEP_TEXT_COLUMNS = ("level", "sampling", "solver")  # the other columns are numbers
FIT_KEY = ("subset", "twojmax", "level", "w_energy", "w_force", "ridge")

Row = dict[str, Any]
Key = tuple[Any, ...]


def fit_key(row: Mapping[str, Any]) -> Key:
    """What identifies a fit: its configurations, whoever drew them, its level, model and weights."""
    return tuple(row[name] for name in FIT_KEY)


@dataclass(frozen=True)
class FitInputs:
    """What a fit depends on besides its key and what its journal is for.

    Attributes
    ----------
    label_digests : mapping of level to str
        Hash of each level's labels; a fit to other labels is computed again.
    groups_digest : str
        Hash of what leave-one-out leaves out together, on which the penalty "auto" depends.
    """

    label_digests: Mapping[str, str]
    groups_digest: str

    def to_records(self, fits: list[Row]) -> list[Row]:
        """Fits as they are written."""
        return [{**row, "inputs": self._of(row)} for row in fits]

    def select_valid(self, entries: Iterable[Any]) -> dict[Key, Row]:
        """The fits of what was written that are still of these inputs."""
        found: dict[Key, Row] = {}
        for entry in entries:
            with suppress(ValueError, TypeError, KeyError, AttributeError):  # a line that is none of ours
                rows = [(fit_key(row), row.pop("inputs"), row) for row in entry]
                found |= {key: row for key, inputs, row in rows if inputs == self._of(row)}
        return found

    def _of(self, row: Row) -> str:
        labels = self.label_digests.get(row["level"], "")
        return f"{labels} {self.groups_digest}" if row["ridge"] == "auto" else labels


class FitJournal:
    """Finished fits, appended to a file as they come, so that none is lost or computed twice.

    Every line is a list of fits. Without a path, finished fits are kept in memory only.

    Parameters
    ----------
    path : path-like or None
    inputs : Inputs
    """

    def __init__(self, path: Path | str | None, inputs: FitInputs) -> None:
        self.inputs = inputs
        self._lines = None if path is None else JsonLines(path)
        self.fits = inputs.select_valid(self._lines.entries if self._lines else [])

    def append(self, fits: list[Row]) -> None:
        """Add finished fits; on return they are on disk."""
        self.fits.update({fit_key(row): row for row in fits})
        if self._lines is not None:
            self._lines.append(self.inputs.to_records(fits))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lines is not None:
            self._lines.close()


def write_results(table: pd.DataFrame, path: Path | str) -> None:
    """Write the table as CSV with ten significant digits, and as Parquet where pyarrow is there."""
    path = Path(path)
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")
    if find_spec("pyarrow") is None:
        return
    with atomic_path(path.with_suffix(".parquet")) as temporary:
        table.to_parquet(temporary, index=False)


def read_results(path: Path | str) -> pd.DataFrame:
    """Read a results table; levels are names, so they stay text.

    Raises
    ------
    InputError
        If there is no such table or a column is missing.
    """
    try:
        table = pd.read_csv(path, dtype={"level": str, "ridge": str})
    except FileNotFoundError as error:
        raise InputError(f"no results table at {path}; 'paretofit run' makes one") from error
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a CSV table: {' '.join(str(error).split())}") from error
    missing = [name for name in SWEEP_COLUMNS if name not in table]
    if missing:
        raise InputError(f"{path} lacks the column '{missing[0]}' of a results table")
    return table


def build_results_table(rows: Iterable[Row], extra_columns: Iterable[str]) -> pd.DataFrame:
    """A table with the standard columns and those extra ones that the study asks for."""
    return pd.DataFrame(rows, columns=[*SWEEP_COLUMNS, *extra_columns])
