"""The results table, and the files that make a sweep resumable: the journal, and those of finished subsets."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import pandas as pd

from paretofit.core import (
    InputError,
    JsonLines,
    atomic_path,
    hash_json,
    join_lines,
    raise_if_system_error,
    read_json_lines,
    restore_formulas,
    write_csv,
)
from paretofit.pareto import TEXT_COLUMNS
from paretofit.properties import PROPERTY_PREFIX
from paretofit.sweep.cells import PendingModel

ERROR_COLUMNS: list[str] = ["train_energy", "train_force", "test_energy", "test_force", "ref_energy", "ref_force"]
# errors of the training subset against the reference level
TRAIN_REFERENCE_COLUMNS = ["train_ref_energy", "train_ref_force"]
SWEEP_COLUMNS = [
    *("twojmax", "level", "sampling", "n_train", "repeat", "w_energy", "w_force"),
    *("n_features", "rank", "condition", "solver"),
    *(*ERROR_COLUMNS, "ref_energy_shifted", *TRAIN_REFERENCE_COLUMNS),
    *("label_seconds", "md_us_per_atom_step"),
]
SWEEP_TEXT_COLUMNS = ("level", "sampling", "solver")  # the other columns are numbers
ERROR_DECIMALS = 8  # decimals in meV/atom and meV/Å; further ones depend on the processor and on the place in memory
FIT_KEY = ("subset", "twojmax", "level", "w_energy", "w_force", "ridge")

Row = dict[str, Any]
Key = tuple[Any, ...]


class Pending(Protocol):
    """Pending fits to one training set: `PendingFits`, or those of a mixture."""

    @property
    def subset_key(self) -> str:
        """Key of the training set."""

    @property
    def models(self) -> list[PendingModel]:
        """Models to fit."""


P = TypeVar("P", bound=Pending)


def get_fit_key(row: Mapping[str, Any]) -> Key:
    """Return the key of a fit: its level, model and weights, and its configurations, whatever their sampling method."""
    return tuple(row[name] for name in FIT_KEY)


@dataclass(frozen=True)
class FitInputs:
    """Inputs of a fit that are contained neither in its key nor in the name of its journal.

    Attributes
    ----------
    label_digests : mapping of str to str
        Hash of the labels of each level or mixture; fits to other labels are computed again.
    groups_digest : str
        Hash of the leave-one-out groups, on which the penalty "auto" depends.
    """

    label_digests: Mapping[str, str]
    groups_digest: str

    def to_records(self, fits: list[Row]) -> list[Row]:
        """Return the fits with the digests of their inputs, for a file."""
        return [{**row, "inputs": self._get_digest(row)} for row in fits]

    def select_valid(self, entries: Iterable[Any]) -> dict[Key, Row]:
        """Select the fits in a file's entries that were computed from these inputs; corrupt entries are ignored."""
        fits: dict[Key, Row] = {}
        for entry in entries:
            with suppress(ValueError, TypeError, KeyError, AttributeError):  # a line that is not a list of fits
                rows = [(get_fit_key(row), row.pop("inputs"), row) for row in entry]
                fits |= {key: row for key, inputs, row in rows if inputs == self._get_digest(row)}
        return fits

    def _get_digest(self, row: Row) -> str:
        labels = self.label_digests.get(row["level"], "")
        return f"{labels} {self.groups_digest}" if row["ridge"] == "auto" else labels


class FitJournal:
    """Finished fits, which are appended to a file after each task, so that none is lost or computed twice.

    Every line of the file is a list of fits. Without a path, finished fits are stored only in memory.

    Parameters
    ----------
    path : path-like or None
    inputs : FitInputs
        Only fits of these inputs are read.

    Attributes
    ----------
    fits : dict of tuple to dict
        Rows of the finished fits by their keys, see `get_fit_key`.
    """

    def __init__(self, path: Path | str | None, inputs: FitInputs) -> None:
        self.inputs = inputs
        self._lines = None if path is None else JsonLines(path)
        self.fits = inputs.select_valid(self._lines.entries if self._lines else [])

    def append(self, fits: list[Row]) -> None:
        """Add finished fits; with a path, they are on disk on return."""
        self.fits.update({get_fit_key(row): row for row in fits})
        if self._lines is not None:
            self._lines.append(self.inputs.to_records(fits))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lines is not None:
            self._lines.close()


@dataclass(frozen=True)
class PartialResults:
    """Files with the fits of single subsets of a task, so that a worker that is killed loses only one subset.

    The process that distributes tasks adds these fits to its journal, when it receives the result of the task or when
    it is started again.

    Attributes
    ----------
    folder : Path or None
        Folder of the files; without it, no files are written.
    inputs : FitInputs
    """

    folder: Path | None
    inputs: FitInputs

    def load_or_fit(self, pending_fits: P, fit: Callable[[P], Iterable[Row]]) -> list[Row]:
        """Read the fits of one subset from the file of an interrupted task, or compute them and write the file.

        The rows have the key of the subset as ``subset``.
        """
        if not pending_fits.models:
            return []
        path = self._get_path(pending_fits)
        if path is not None and path.exists() and (stored_rows := self._read_complete(path)) is not None:
            return stored_rows
        rows = [{"subset": pending_fits.subset_key, **row} for row in fit(pending_fits)]
        if path is not None:
            with atomic_path(path) as temporary_path, JsonLines(temporary_path) as lines:
                lines.append(self.inputs.to_records(rows))
                lines.append({"rows": len(rows)})
        return rows

    def _read_complete(self, path: Path) -> list[Row] | None:
        """Read the fits of a file; None if some of them are missing or corrupt."""
        entries = read_json_lines(path)[0]
        rows = list(self.inputs.select_valid(entries[:-1]).values())
        return rows if entries and entries[-1] == {"rows": len(rows)} else None

    def remove(self, task: Sequence[Pending]) -> None:
        """Remove the files of a task after its fits have been added to the journal."""
        for pending in task:
            if (path := self._get_path(pending)) is not None:
                path.unlink(missing_ok=True)

    def merge_into(self, journal: FitJournal) -> None:
        """Move the fits of an interrupted run into the journal, and remove the folder."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob("*.jsonl")):
            with suppress(FileNotFoundError):  # a worker of a killed run may still be running, and replace its files
                if rows := list(self.inputs.select_valid(read_json_lines(path)[0]).values()):
                    journal.append(rows)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _get_path(self, pending_fits: Pending) -> Path | None:
        if self.folder is None:
            return None
        inputs = [pending_fits.models, dict(self.inputs.label_digests), self.inputs.groups_digest]
        return self.folder / f"{pending_fits.subset_key}-{hash_json(inputs)[:12]}.jsonl"


def write_results(table: pd.DataFrame, path: Path | str) -> None:
    """Write the table as CSV with ten significant digits, and as Parquet if pyarrow is installed.

    The Parquet file has the same name with the suffix ``.parquet``. In the CSV file, errors are rounded to
    `ERROR_DECIMALS`, so that it does not depend on rounding of the smallest errors.
    """
    path = Path(path)
    prefixes = ("train_", "test_", "ref_", "loo_", PROPERTY_PREFIX)
    errors = [name for name in map(str, table) if name.startswith(prefixes)]
    write_csv(table.round(dict.fromkeys(errors, ERROR_DECIMALS)), path, digits=10)
    if find_spec("pyarrow") is not None:
        with atomic_path(path.with_suffix(".parquet")) as temporary_path:
            table.to_parquet(temporary_path, index=False)


def read_results(path: Path | str) -> pd.DataFrame:
    """Read a results table, with levels and ridges as text, because "auto" and the names of levels are not numbers.

    Raises
    ------
    InputError
        If the file is missing or not a CSV table, or a column is missing.
    """
    try:
        table = restore_formulas(pd.read_csv(path, dtype=TEXT_COLUMNS))
    except FileNotFoundError as error:
        raise InputError(f"there is no results table at {path}; 'paretofit run' writes one") from error
    except (ValueError, OSError) as error:
        raise_if_system_error(error, path)
        raise InputError(f"{path} cannot be read as a CSV table: {join_lines(error)}") from error
    missing_columns = [name for name in SWEEP_COLUMNS if name not in table]
    if missing_columns:
        raise InputError(
            f"{path} lacks the column '{missing_columns[0]}' of a results table; choose the results.csv of a run"
        )
    return table


def build_results_table(rows: Iterable[Row], extra_columns: Iterable[str]) -> pd.DataFrame:
    """Build a table with the columns `SWEEP_COLUMNS` and some extra ones; other entries of the rows are omitted."""
    return pd.DataFrame(rows, columns=[*SWEEP_COLUMNS, *extra_columns])
