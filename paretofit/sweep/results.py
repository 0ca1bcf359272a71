"""The results table: its columns, its order, and the journal that makes a sweep resumable."""

import json
import os
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pandas as pd

from paretofit.errors import InputError
from paretofit.files import replacing
from paretofit.sweep.grid import SweepGrid

FACTORS = ["twojmax", "level", "sampling", "n_train", "repeat", "w_energy", "w_force"]
COLUMNS = [
    *FACTORS,
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

Row = dict[str, Any]
Key = tuple[Any, ...]


def key_of(row: Mapping[str, Any]) -> Key:
    """The factors of a row, which identify it."""
    return tuple(row[name] for name in FACTORS)


class Journal:
    """Finished fits, appended to a file as they come, so that none is lost or computed twice.

    The first line says what the numbers depend on; a journal of other inputs is set aside. Every other
    line is a list of rows. A last line that a kill cut short is dropped. Without a path, finished fits are
    kept in memory only.

    Parameters
    ----------
    path : path-like or None
    inputs : str
        Hash of what all fits depend on.
    labels : mapping of level to str
        Hash of each level's labels; a row of other labels is computed again.
    """

    def __init__(self, path: Path | str | None, inputs: str, labels: Mapping[str, str]) -> None:
        self.rows: dict[Key, Row] = {}
        self._labels = dict(labels)
        self._stream: IO[str] | None = None
        if path is None:
            return
        path = Path(path)
        whole = self._load(path, inputs)
        if whole is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"inputs": inputs}) + "\n")
        elif whole < path.stat().st_size:
            os.truncate(path, whole)
        self._stream = path.open("a")

    def _load(self, path: Path, inputs: str) -> int | None:
        """Read what stands in the file; return the length of its whole lines, or None if it is of no use."""
        if not path.exists():
            return None
        content = path.read_bytes()
        lines = content.split(b"\n")[:-1]
        if not lines:
            return None
        length = 0
        for number, line in enumerate(lines):
            try:
                entry = json.loads(line)
            except ValueError:
                break
            if number == 0:
                if not isinstance(entry, dict) or entry.get("inputs") != inputs:
                    path.replace(path.with_suffix(".old.jsonl"))
                    return None
            else:
                self._keep(row for row in entry if row.pop("labels", None) == self._labels.get(row["level"]))
            length += len(line) + 1
        return length or None

    def append(self, rows: list[Row]) -> None:
        """Add finished rows; on return they are on disk."""
        self._keep(rows)
        if self._stream is None:
            return
        self._stream.write(json.dumps([{**row, "labels": self._labels[row["level"]]} for row in rows]) + "\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def _keep(self, rows: Iterable[Row]) -> None:
        self.rows.update({key_of(row): row for row in rows})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()


def table_of(rows: Mapping[Key, Row], grid: SweepGrid) -> pd.DataFrame:
    """The rows that the grid asks for, in its order."""
    keys = [
        (twojmax, level, sampling, size, repeat, *weights)
        for twojmax in grid.twojmax
        for level in grid.levels
        for sampling in grid.samplings
        for size in grid.sizes
        for repeat in range(grid.repeats_of(sampling))
        for weights in grid.weights
    ]
    table = pd.DataFrame([rows[key] for key in keys], columns=COLUMNS)
    table["md_us_per_atom_step"] = table["twojmax"].map(dict(grid.md_cost)).astype(float)
    return table


def write_results(table: pd.DataFrame, path: Path | str) -> None:
    """Write the table as CSV with ten significant digits, and as Parquet where pyarrow is there."""
    path = Path(path)
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")
    if find_spec("pyarrow") is None:
        return
    with replacing(path.with_suffix(".parquet")) as temporary:
        table.to_parquet(temporary, index=False)


def read_results(path: Path | str) -> pd.DataFrame:
    """Read a results table; levels are names, so they stay text.

    Raises
    ------
    InputError
        If there is no such table or a column is missing.
    """
    try:
        table = pd.read_csv(path, dtype={"level": str})
    except FileNotFoundError as error:
        raise InputError(f"no results table at {path}; 'paretofit run' makes one") from error
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a CSV table: {' '.join(str(error).split())}") from error
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise InputError(f"{path} lacks the column '{missing[0]}' of a results table")
    return table
