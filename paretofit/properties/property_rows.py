"""Descriptor rows of properties, from which the properties of every fit of a study follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from ase import Atoms

from paretofit.core import Array, RowKind, get_shared_lammps, hash_array, hash_json
from paretofit.descriptors import (
    AnyBasis,
    DesignMatrix,
    compute_configuration_rows,
    compute_configuration_rows_with_stress,
    map_structures,
    parse_basis,
    require_descriptors,
)
from paretofit.execution import RunContext
from paretofit.properties.linear_property import LinearProperty
from paretofit.properties.property_references import index_structures

PROPERTY_PREFIX = "prop_"  # prefix of the columns of properties in the results table


def get_error_column(name: str) -> str:
    """Return the name of the results column with the error of a property."""
    return f"{PROPERTY_PREFIX}{name}_error"


def get_property_name(column: str) -> str:
    """Return the name of the property whose error is in a results column."""
    return column.removeprefix(PROPERTY_PREFIX).removesuffix("_error")


def is_property_error(column: str) -> bool:
    """Return whether a results column contains the error of a property."""
    return column.startswith(PROPERTY_PREFIX) and column.endswith("_error")


@dataclass(frozen=True)
class PropertyRows:
    """Properties, and their rows in the columns of a design matrix.

    Attributes
    ----------
    properties : sequence of LinearProperty
        Properties with their references.
    rows : (n, p) float64
        Rows F of all properties, stacked in order; for coefficients β, F β are the numbers v of the properties.
    """

    properties: Sequence[LinearProperty]
    rows: Array

    @classmethod
    def compute(cls, properties: Sequence[LinearProperty], design: DesignMatrix, context: RunContext) -> Self:
        """Compute the rows in the columns of a design matrix, reduced by its constraint on the energies of free atoms.

        The offsets that the constraint subtracts from labels need no correction: they cancel in balanced energy
        differences, and the other properties do not depend on them.

        Raises
        ------
        InputError
            If the design matrix has rows from a file, or the rows of a structure cannot be computed.
        """
        basis = require_descriptors(parse_basis(design.attributes["basis"]))
        structures: list[Atoms] = []
        positions = index_structures(properties, structures)
        terms = [term for linear_property in properties for term in linear_property.terms]
        stress_positions = {k for k, term in zip(positions, terms, strict=True) if RowKind.STRESS in term.weights}
        tasks = [(atoms, k in stress_positions) for k, atoms in enumerate(structures)]
        structure_rows = map_structures(_compute_rows, basis, tasks, "properties", context)
        term_rows = iter([structure_rows[k] for k in positions])  # in the order of the terms of all properties
        property_rows = [
            linear_property.apply([next(term_rows) for _ in linear_property.terms]) for linear_property in properties
        ]
        rows = np.concatenate(property_rows)
        rows = rows if design.constraint is None else design.constraint.reduce_rows(rows)
        return cls(properties, np.ascontiguousarray(rows[:, : design.n_features]))

    @property
    def columns(self) -> list[str]:
        """Names of the results columns: for each property that of its value, then that of its error."""
        names = [linear_property.name for linear_property in self.properties]
        return [column for name in names for column in (PROPERTY_PREFIX + name, get_error_column(name))]

    @property
    def error_columns(self) -> list[str]:
        """Names of the results columns with the errors of the properties."""
        return [get_error_column(linear_property.name) for linear_property in self.properties]

    def evaluate(self, numbers: Array) -> dict[str, Array]:
        """Evaluate all properties for each of several fits.

        Parameters
        ----------
        numbers : (n, n_fits) float64
            Products of `rows` and the coefficients of the fits.

        Returns
        -------
        dict of str to (n_fits,) float64
            Values and errors by results column; see `LinearProperty.evaluate`.
        """
        columns: dict[str, Array] = {}
        for linear_property, property_numbers in zip(self.properties, np.split(numbers, self._first_rows), strict=True):
            value, error = linear_property.evaluate(property_numbers)
            columns[PROPERTY_PREFIX + linear_property.name] = value
            columns[get_error_column(linear_property.name)] = error
        return columns

    def split_rows(self) -> list[Array]:
        """Return the rows of each property, an array ``(n, p)`` for each."""
        return np.split(self.rows, self._first_rows)

    @cached_property
    def _first_rows(self) -> Array:
        """Index of the first row of the second and each later property."""
        sizes = [linear_property.size for linear_property in self.properties]
        return np.cumsum(sizes[:-1])

    def compute_digest(self) -> str:
        """Compute a hash of the properties, their references and rows, which is the same in every process."""
        records = [
            (
                linear_property.name,
                linear_property.unit,
                # not the text of the function, which contains its address in memory
                "linear" if linear_property.is_linear else repr(linear_property.formula),
                np.asarray(linear_property.reference).tolist(),
            )
            for linear_property in self.properties
        ]
        return hash_json([records, hash_array(self.rows)])


def _compute_rows(basis: AnyBasis, task: tuple[Atoms, bool]) -> dict[RowKind, Any]:
    """Compute the rows of a structure by kind, in a worker process.

    A task is a structure, and whether its stress rows are needed.
    """
    atoms, with_stress = task
    compute = compute_configuration_rows_with_stress if with_stress else compute_configuration_rows
    energy_row, *other_rows = compute(get_shared_lammps(), basis, atoms)
    # not strict: without stress there are only energy and force rows
    return dict(zip(RowKind, [energy_row[None], *other_rows], strict=False))
