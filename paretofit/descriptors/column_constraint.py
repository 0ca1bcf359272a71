"""Linear equality constraints of a linear model, which eliminate columns before a fit.

A constraint C β = d with as many pivot columns P as equations expresses β_P by β_F, those of the other columns F:
β_P = C_P⁻¹ (d - C_F β_F). Rows and targets become X_F + X_P M and y - X_P C_P⁻¹ d, with M = -C_P⁻¹ C_F. Any solver of
the reduced problem, which has no constraint, then solves the constrained one (Golub and Van Loan, Matrix Computations,
section 6.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from paretofit.core import Array


@dataclass(frozen=True)
class ColumnConstraint:
    """Constraint that determines the coefficients of some columns.

    Attributes
    ----------
    eliminated : (k,) int64
        Pivot columns P, ascending.
    retained : (p - k,) int64
        The other columns F, ascending.
    matrix : (k, p - k) float64
        M, so that β_P = values + M β_F.
    values : mapping of str to (k,) float64
        C_P⁻¹ d of each level.
    """

    eliminated: Array
    retained: Array
    matrix: Array
    values: Mapping[str, Array]

    @classmethod
    def from_equations(cls, equations: Array, pivots: Array, values: Mapping[str, Array]) -> Self:
        """Build the constraint from equations C ``(k, p)``, their pivot columns ``(k,)`` and their values by level.

        The square matrix C_P must be invertible.
        """
        eliminated = np.sort(pivots)
        retained = np.setdiff1d(np.arange(equations.shape[1]), eliminated)
        pivot_matrix = equations[:, eliminated]
        matrix = -np.linalg.solve(pivot_matrix, equations[:, retained])
        solved = {level: np.linalg.solve(pivot_matrix, value) for level, value in values.items()}
        return cls(eliminated, retained, matrix, solved)

    def restrict_columns(self, p: int) -> Self:
        """Return the constraint on the leading `p` columns, without the equations whose pivot is a later column.

        Those equations must not depend on the leading columns.
        """
        rows, columns = self.eliminated < p, self.retained < p
        values = {level: value[rows] for level, value in self.values.items()}
        return type(self)(self.eliminated[rows], self.retained[columns], self.matrix[np.ix_(rows, columns)], values)

    def count_columns(self, n_retained: int) -> int:
        """Count the leading columns that contain the first `n_retained` retained ones and all eliminated ones."""
        return int(max([*self.eliminated, *self.retained[:n_retained]], default=-1)) + 1

    def reduce_rows(self, rows: Array) -> Array:
        """Return X_F + X_P M for rows X, ``(n, p)`` or with leading columns only.

        The result is a view of X if M is zero and the columns F are contiguous.
        """
        columns = self.retained[: np.searchsorted(self.retained, rows.shape[1])]
        is_contiguous = len(columns) > 0 and columns[-1] - columns[0] + 1 == len(columns)
        reduced = rows[:, columns[0] : columns[-1] + 1] if is_contiguous else rows[:, columns]
        matrix = self.matrix[:, : len(columns)]
        return reduced + rows[:, self.eliminated] @ matrix if matrix.any() else reduced

    def reduce_targets(self, rows: Array, targets: Array, level: str) -> Array:
        """Return y - X_P C_P⁻¹ d for targets y ``(n,)`` of a level; `rows` X include all eliminated columns."""
        return np.asarray(targets - rows[:, self.eliminated] @ self.values[level])

    def expand(self, coefficients: Any, level: str) -> Array:
        """Return all coefficients, ``(..., p)``, from those of the leading retained columns, ``(..., p - k)``."""
        reduced = np.asarray(coefficients, dtype=np.float64)
        n = reduced.shape[-1]
        expanded = np.empty((*reduced.shape[:-1], n + len(self.eliminated)))
        expanded[..., self.retained[:n]] = reduced
        expanded[..., self.eliminated] = self.values[level] + reduced @ self.matrix[:, :n].T
        return expanded
