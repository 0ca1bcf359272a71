"""The design matrix: rows of a linear model, the kind and configuration of each row, and its labels.

A design matrix is computed by `compute_design` or built from a user's arrays (`DesignMatrix.from_arrays`, or
`from_blocks` for rows that do not fit into memory), so fits and studies accept any linear model. The product of a row
with the coefficients is an energy per atom in eV, a force component in eV/Å, or a stress component in GPa.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from ase import units

from paretofit.core import Array, InputError, RowKind, atomic_hdf5, get_available_memory, hash_json, require_memory
from paretofit.dataset import STATUS_CODES, Dataset
from paretofit.descriptors.column_constraint import ColumnConstraint
from paretofit.descriptors.design_checks import (
    index_configurations,
    validate_by_level,
    validate_design_columns,
    validate_design_kinds,
    validate_design_rows,
)
from paretofit.descriptors.design_file import (
    SCHEMA_VERSION,
    DesignBlock,
    open_design_file,
    read_design_index,
    write_array,
)

BLOCK_ROWS = 4096  # number of rows that are read from a file at once
MAX_ROWS_IN_MEMORY_BYTES = 2 << 30  # size above which a design is read from the file when needed


@dataclass(frozen=True)
class DesignMatrix:
    """Rows of a linear model, in memory or in an HDF5 file, with their labels.

    Attributes
    ----------
    kind : (n_rows,) int8
        `RowKind` of each row.
    configuration : (n_rows,) int64
        Position in `ids` of each row's configuration.
    ids : (n_configurations,) int64
        Configuration ids, by first appearance.
    column_levels : (n_features,) int64
        Smallest 2Jmax (or other order) at which each column appears, ascending; all 0 for a model that is not nested.
    column_names : list of str
    targets : mapping of level to (n_rows,) float64
        Labels: eV/atom, eV/Å, GPa; NaN where missing.
    seconds : mapping of level to (n_configurations,) float64
        Cost of each configuration's label.
    path : Path or None
        File that contains the rows; None if they are only in memory.
    attributes : mapping of str to str
        ``basis`` (JSON) and ``structures`` (a hash) from `compute_design`, and ``constant_columns`` (`n_constant`).
    row_weights : (n_rows,) float64, optional
        Factors by which rows are multiplied when they are read; see `with_row_weights`.
    constraint : ColumnConstraint, optional
        Constraint that eliminates columns when rows are read; see `with_constraint`.
    """

    kind: Array
    configuration: Array
    ids: Array
    column_levels: Array
    column_names: list[str]
    targets: Mapping[str, Array] = field(default_factory=dict)
    seconds: Mapping[str, Array] = field(default_factory=dict)
    path: Path | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    row_weights: Array | None = None
    constraint: ColumnConstraint | None = None
    _rows: Array | None = None

    @classmethod
    def from_arrays(
        cls,
        rows: Array,
        kind: Any,
        configuration: Any,
        *,
        targets: Mapping[str, Array] | None = None,
        seconds: Mapping[str, Array] | None = None,
        column_levels: Sequence[int] | Array | None = None,
        column_names: Sequence[str] | None = None,
        n_constant: int = 0,
    ) -> Self:
        """Build a design matrix from the rows of any linear model (ACE, UF3, the A and b of FitSNAP, ...).

        Parameters
        ----------
        rows : (n_rows, n_features) float64
            Unweighted; an energy row gives the energy per atom.
        kind : (n_rows,) str or int
            "energy", "force" or "stress" for each row, or `RowKind`.
        configuration : (n_rows,) int
            The id of each row's configuration.
        targets : mapping of level to (n_rows,) float64, optional
            Labels in eV/atom, eV/Å and GPa.
        seconds : mapping of level to (n_configurations,) float64, optional
            Cost of the labels, configurations in order of first appearance.
        column_levels : (n_features,) int, optional
            For nested models: the smallest 2Jmax (or other order) that includes each column, ascending; 0 by default.
        column_names : sequence of str, optional
        n_constant : int
            Number of leading columns whose coefficients are energies of atoms, which a ridge does not penalise.

        Raises
        ------
        InputError
            If shapes disagree, rows are not finite real numbers, column levels are not ascending whole
            numbers, or a level's name cannot be used (see `check_level_name`).
        """
        rows = validate_design_rows(rows)
        kinds = validate_design_kinds(kind, len(rows))
        positions, ids = index_configurations(configuration, len(rows))
        levels, names = validate_design_columns(column_levels, column_names, rows.shape[1])
        labels = validate_by_level(targets, len(rows), "targets")
        costs = validate_by_level(seconds, len(ids), "seconds")
        attributes = {"constant_columns": str(n_constant)}
        return cls(kinds, positions, ids, levels, names, labels, costs, attributes=attributes, _rows=rows)

    @classmethod
    def from_blocks(
        cls,
        blocks: Iterable[DesignBlock],
        path: Path | str,
        *,
        seconds: Mapping[str, Array] | None = None,
        column_levels: Sequence[int] | Array | None = None,
        column_names: Sequence[str] | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> Self:
        """Write rows, block by block, to an HDF5 file that appears when it is complete; return the design in it.

        Parameters
        ----------
        blocks : iterable of DesignBlock
            Blocks of rows, all with the same number of columns and the same levels.
        path : path-like
            The file to write.
        seconds, column_levels, column_names
            As in `from_arrays`.
        attributes : mapping of str to str, optional
            Stored as attributes of the file.

        Raises
        ------
        InputError
            As in `from_arrays`, and if there are no blocks or their columns or levels differ.
        """
        with atomic_hdf5(path) as (file, check_file):
            designs = _write_blocks(file, blocks, check_file)
            n_rows, n_columns = file["rows"].shape
            levels, names = validate_design_columns(column_levels, column_names, n_columns)
            row_ids = np.concatenate([design.ids[design.configuration] for design in designs])
            positions, ids = index_configurations(row_ids, n_rows)
            write_array(file, "kind", np.concatenate([design.kind for design in designs]))
            write_array(file, "configuration", positions)
            write_array(file, "ids", ids)
            write_array(file, "column_levels", levels)
            for level in designs[0].targets:
                write_array(file, f"targets/{level}", np.concatenate([design.targets[level] for design in designs]))
            for level, costs in validate_by_level(seconds, len(ids), "seconds").items():
                write_array(file, f"seconds/{level}", costs)
            check_file()
            file.create_dataset("column_names", data=np.array(names, object), dtype=h5py.string_dtype())
            file.attrs.update({**(attributes or {}), "design_version": SCHEMA_VERSION})
        return cls.open(path)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a design file; rows are read only when they are needed.

        Raises
        ------
        InputError
            If the file is missing, not HDF5, corrupt, or not a design matrix.
        """
        return cls(path=Path(path), **read_design_index(Path(path)))

    def save(self, path: Path | str) -> Self:
        """Write the design to an HDF5 file, and return a design that reads its rows from this file."""
        blocks = (
            DesignBlock(
                rows,
                self.kind[window],
                self.ids[self.configuration[window]],
                {level: values[window] for level, values in self.targets.items()},
            )
            for window, rows in self.iterate_blocks()
        )
        return self.from_blocks(blocks, path, seconds=self.seconds, column_levels=self.column_levels,
                                column_names=self.column_names, attributes=self.attributes)  # fmt: skip

    @property
    def n_constant(self) -> int:
        """Number of leading columns whose coefficients are energies of atoms; a ridge does not penalise them."""
        return int(self.attributes.get("constant_columns", 0))

    @property
    def n_rows(self) -> int:
        """Number of rows of all kinds."""
        return len(self.kind)

    @property
    def n_features(self) -> int:
        """Number of columns, including the constants."""
        return len(self.column_levels)

    @property
    def n_configurations(self) -> int:
        """Number of configurations that have rows."""
        return len(self.ids)

    def count_columns_up_to(self, twojmax: int) -> int:
        """Count the leading columns that form the model of a 2Jmax, or other order."""
        return int(np.searchsorted(self.column_levels, twojmax, side="right"))

    def read_all_rows(self) -> Array:
        """Return all rows, ``(n_rows, n_features) float64``, in memory."""
        if self._rows is not None:
            return self._transform(self._rows, slice(None))
        with open_design_file(self._get_file_path()) as file:
            return self._transform(np.asarray(file["rows"][()]), slice(None))

    def with_row_weights(self, weights: Array) -> Self:
        """Return the same design with rows and targets multiplied by a weight for each row.

        Parameters
        ----------
        weights : (n_rows,) float64
            Positive; a fit applies the weights of the row kinds in addition. The design must not have weights yet.
        """
        targets = {level: values * weights for level, values in self.targets.items()}
        return replace(self, targets=targets, row_weights=weights)

    def with_constraint(self, constraint: ColumnConstraint, name: str) -> Self:
        """Return a design without the columns that a constraint eliminates.

        The eliminated columns must be zero in the force and stress rows, as constant columns are, because only the
        targets of the energy rows are changed. The `name` of the constraint becomes part of the hash of the structures,
        because the rows differ from those of other designs of the same structures.
        """
        is_energy, columns = self.kind == RowKind.ENERGY, constraint.retained_columns
        energy_rows = self.read_rows(np.flatnonzero(is_energy), constraint.count_columns(0))
        targets = {level: values.copy() for level, values in self.targets.items()}
        for level, values in targets.items():
            values[is_energy] = constraint.reduce_targets(energy_rows, values[is_energy], level)
        n_constant = self.n_constant - int((constraint.eliminated_columns < self.n_constant).sum())
        structures = hash_json([self.attributes.get("structures", ""), name])
        attributes = {**self.attributes, "structures": structures, "constant_columns": str(n_constant)}
        names, levels = [self.column_names[k] for k in columns], self.column_levels[columns]
        return replace(self, targets=targets, constraint=constraint, attributes=attributes, column_names=names,
                       column_levels=levels)  # fmt: skip

    def expand_coefficients(self, coefficients: Any, level: str) -> Array:
        """Return the coefficients of all columns, ``(..., p)``, including the columns that a constraint eliminates."""
        beta = np.asarray(coefficients)
        return beta if self.constraint is None else self.constraint.expand(beta, level)

    def _transform(self, rows: Array, index: Any) -> Array:
        """Apply the constraint and the row weights to stored rows; `index` is the position of these rows."""
        rows = rows if self.constraint is None else self.constraint.reduce_rows(rows)
        return rows if self.row_weights is None else rows * self.row_weights[index, None]

    def load_into_memory(self, max_bytes: int = MAX_ROWS_IN_MEMORY_BYTES) -> Self:
        """Return a copy with the rows in memory, or this design if its rows are in memory already or too large.

        The largest size is `max_bytes`, or a quarter of the available memory if that is smaller.
        """
        free_bytes = get_available_memory()
        limit = max_bytes if free_bytes is None else min(max_bytes, free_bytes // 4)
        if self._rows is not None or 8 * self.n_rows * self.n_features > limit:
            return self
        # Rows are stored without weights and constraint, which `_transform` applies whenever rows are read.
        return replace(self, _rows=replace(self, row_weights=None, constraint=None).read_all_rows())

    def read_rows(self, indices: Array, n_columns: int | None = None, *, memory_copies: float = 2) -> Array:
        """Return selected rows, ``(n, n_columns) float64``.

        Parameters
        ----------
        indices : (n,) int
            Positions of the rows, ascending; contiguous rows of a file are read together.
        n_columns : int, optional
            Number of leading columns; by default all.
        memory_copies : float
            Number of copies of these rows that must fit into memory, including those that the caller makes.

        Raises
        ------
        InputError
            If the available memory is too small for these copies.
        """
        n_columns = self.n_features if n_columns is None else n_columns
        require_memory(
            8 * memory_copies * len(indices) * n_columns,
            f"{len(indices)} rows by {n_columns} columns",
            "lower 'twojmax', use fewer configurations ('sizes') or fewer --jobs",
        )
        n_stored = n_columns if self.constraint is None else self.constraint.count_columns(n_columns)
        if self._rows is not None:
            return self._transform(self._rows[indices, :n_stored], indices)
        breaks = np.flatnonzero(np.diff(indices) != 1) + 1
        with open_design_file(self._get_file_path()) as file:
            blocks = [file["rows"][run[0] : run[-1] + 1, :n_stored] for run in np.split(indices, breaks) if len(run)]
        return self._transform(np.concatenate([np.empty((0, n_stored)), *blocks]), indices)

    def iterate_blocks(self, size: int = BLOCK_ROWS, row_range: slice | None = None) -> Iterator[tuple[slice, Array]]:
        """Yield consecutive blocks of at most `size` rows, each with its slice, of all rows or those in `row_range`."""
        begin, end = (0, self.n_rows) if row_range is None else (row_range.start, row_range.stop)
        windows = [slice(start, min(start + size, end)) for start in range(begin, end, size)]
        if self._rows is not None:
            yield from ((window, self._transform(self._rows[window], window)) for window in windows)
            return
        with open_design_file(self._get_file_path()) as file:
            for window in windows:
                yield window, self._transform(file["rows"][window], window)

    def with_labels(self, dataset: Dataset, levels: Sequence[str]) -> Self:
        """Return the same rows with the labels of a dataset as targets; NaN where a label is missing or has failed.

        Rows must be in the order of `compute_design`: for each configuration the energy row, then the force rows,
        then the six stress rows if there are any.

        Raises
        ------
        InputError
            If the dataset lacks a level or a configuration, or its atoms do not match the rows.
        """
        configurations = dataset.select_ids(self.ids)
        n_atoms = configurations.n_atoms
        n_stress = 6 if (self.kind == RowKind.STRESS).any() else 0
        n_rows = 1 + 3 * n_atoms + n_stress
        row_kinds = [RowKind.ENERGY, RowKind.FORCE, RowKind.STRESS]
        n_rows_by_kind = np.column_stack([np.ones_like(n_atoms), 3 * n_atoms, np.full_like(n_atoms, n_stress)])
        if not np.array_equal(self.kind, np.repeat(np.tile(row_kinds, len(n_atoms)), n_rows_by_kind.ravel())):
            raise InputError(f"the rows of {self.path or 'the design'} belong to other atoms; compute the design again")
        targets, seconds = {}, {}
        for level in levels:
            labels = configurations.labels(level)
            values = np.empty(self.n_rows)
            values[self.kind == RowKind.ENERGY] = labels.energy / n_atoms
            values[self.kind == RowKind.FORCE] = labels.forces.ravel()
            if n_stress:
                values[self.kind == RowKind.STRESS] = labels.stress.ravel() / units.GPa
            values[np.repeat(labels.status == STATUS_CODES["failed"], n_rows)] = np.nan
            targets[level], seconds[level] = values, labels.seconds
        return replace(self, targets=targets, seconds=seconds)

    def find_missing_labels(self, level: str) -> Array:
        """Return whether any label of each configuration is missing at a level, ``(n_configurations,) bool``.

        Raises `InputError` if the design has no targets of this level.
        """
        if level not in self.targets:
            raise InputError(f"the design has no level '{level}'; available: {', '.join(self.targets) or 'none'}")
        is_missing = np.zeros(self.n_configurations, dtype=bool)
        is_missing[self.configuration[~np.isfinite(self.targets[level])]] = True
        return is_missing

    def _get_file_path(self) -> Path:
        """Return the path of the file; raise `InputError` if there is none."""
        if self.path is None:
            raise InputError("the design matrix has neither rows in memory nor a file")
        return self.path


def _write_blocks(file: h5py.File, blocks: Iterable[DesignBlock], check_file: Callable[[], None]) -> list[DesignMatrix]:
    """Append the rows of all blocks to the file; return the blocks as designs without rows and column names."""
    designs: list[DesignMatrix] = []
    rows: Any = None
    for block in blocks:
        design = DesignMatrix.from_arrays(block.rows, block.kind, block.configuration, targets=block.targets)
        n_columns = design.n_features
        if rows is None:
            # Chunks have at most 1 MiB and 1024 rows, but at least one row.
            chunk = (max(1, min(1024, (1 << 20) // (8 * n_columns))), n_columns)
            rows = file.create_dataset("rows", (0, n_columns), "f8", maxshape=(None, n_columns), chunks=chunk,
                                       fletcher32=True)  # fmt: skip
        first_levels = list(designs[0].targets if designs else design.targets)
        if n_columns != rows.shape[1] or set(design.targets) != set(first_levels):
            raise InputError(
                f"all blocks must have the same number of columns and the same levels; the first has {rows.shape[1]} "
                f"columns and levels {first_levels}, a later one {n_columns} columns and levels {list(design.targets)}"
            )
        rows.resize(len(rows) + design.n_rows, axis=0)
        rows[-design.n_rows :] = design.read_all_rows()
        check_file()
        designs.append(replace(design, column_names=[], _rows=None))
    if not designs:
        raise InputError("a design matrix requires at least one block of rows; got none")
    return designs
