"""Descriptor rows of properties, which give the properties of every fit of a study."""

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

PROPERTY_PREFIX = "prop_"  # of the columns of results


def get_error_column(name: str) -> str:
    """Return the column of results with the error of a property."""
    return f"{PROPERTY_PREFIX}{name}_error"


def get_property_name(column: str) -> str:
    """Return the name of the property whose error a column of results has."""
    return column.removeprefix(PROPERTY_PREFIX).removesuffix("_error")


def is_property_error(column: str) -> bool:
    """Return whether a column of results is the error of a property."""
    return column.startswith(PROPERTY_PREFIX) and column.endswith("_error")


@dataclass(frozen=True)
class PropertyRows:
    """Properties, and their rows in the columns of a design.

    Attributes
    ----------
    properties : sequence of LinearProperty
        With references.
    rows : (n, p) float64
        Rows of all properties, one below the other; the numbers of a property are their products with coefficients.
    """

    properties: Sequence[LinearProperty]
    rows: Array

    @classmethod
    def compute(cls, properties: Sequence[LinearProperty], design: DesignMatrix, context: RunContext) -> Self:
        """Compute the rows in the columns of a design, whose constraint on free atoms they obey.

        The constant columns of balanced energies cancel, so that a constraint does not change the numbers otherwise.
        """
        basis = require_descriptors(parse_basis(design.attributes["basis"]))
        structures: list[Atoms] = []
        positions = index_structures(properties, structures)
        terms = [term for item in properties for term in item.terms]
        with_stress = {k for k, term in zip(positions, terms, strict=True) if RowKind.STRESS in term.weights}
        tasks = [(atoms, k in with_stress) for k, atoms in enumerate(structures)]
        computed = map_structures(_compute_rows, basis, tasks, "properties", context)
        labels = iter([computed[k] for k in positions])
        rows = np.concatenate([item.apply([next(labels) for _ in item.terms]) for item in properties])
        rows = rows if design.constraint is None else design.constraint.reduce_rows(rows)
        return cls(properties, np.ascontiguousarray(rows[:, : design.n_features]))

    @property
    def columns(self) -> list[str]:
        """Names of the columns of results: the value and the error of each property."""
        return [name for item in self.properties for name in (PROPERTY_PREFIX + item.name, get_error_column(item.name))]

    @property
    def error_columns(self) -> list[str]:
        """Names of the columns of results with errors."""
        return [get_error_column(item.name) for item in self.properties]

    def evaluate(self, numbers: Array) -> dict[str, Array]:
        """Evaluate all properties from the products of rows and coefficients, ``(n, n_fits)``; return columns."""
        values: dict[str, Array] = {}
        for item, part in zip(self.properties, np.split(numbers, self._ends), strict=True):
            pair = item.evaluate(part)
            values |= dict(zip((PROPERTY_PREFIX + item.name, get_error_column(item.name)), pair, strict=True))
        return values

    def split_rows(self) -> list[Array]:
        """Return the rows of each property, ``(n, p)``."""
        return np.split(self.rows, self._ends)

    @cached_property
    def _ends(self) -> Array:
        """Positions of the first rows of all properties but the first."""
        sizes = [item.size for item in self.properties]
        return np.cumsum(sizes[:-1])

    def compute_digest(self) -> str:
        """Compute a hash of the properties, their references and rows."""
        names = [(item.name, item.unit, repr(item.formula), np.asarray(item.reference).tolist())
                 for item in self.properties]  # fmt: skip
        return hash_json([names, hash_array(self.rows)])


def _compute_rows(basis: AnyBasis, task: tuple[Atoms, bool]) -> dict[RowKind, Any]:
    """Compute the rows of a structure in a worker, by kind; those of stress only where they are needed."""
    atoms, with_stress = task
    function = compute_configuration_rows_with_stress if with_stress else compute_configuration_rows
    energy_row, *others = function(get_shared_lammps(), basis, atoms)
    return dict(zip(RowKind, [energy_row[None], *others], strict=False))
