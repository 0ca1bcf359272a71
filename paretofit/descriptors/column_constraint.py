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
    eliminated_columns : (k,) int64
        Pivot columns P, ascending.
    retained_columns : (p - k,) int64
        The other columns F, ascending.
    matrix : (k, p - k) float64
        M, so that β_P = offsets + M β_F.
    offsets : mapping of str to (k,) float64
        C_P⁻¹ d of each level.
    """

    eliminated_columns: Array
    retained_columns: Array
    matrix: Array
    offsets: Mapping[str, Array]

    @classmethod
    def from_equations(cls, equations: Array, pivots: Array, values: Mapping[str, Array]) -> Self:
        """Build the constraint from equations C ``(k, p)``, their pivot columns ``(k,)`` and their values by level.

        The square matrix C_P must be invertible.
        """
        eliminated_columns = np.sort(pivots)
        retained_columns = np.setdiff1d(np.arange(equations.shape[1]), eliminated_columns)
        pivot_matrix = equations[:, eliminated_columns]
        matrix = -np.linalg.solve(pivot_matrix, equations[:, retained_columns])
        offsets = {level: np.linalg.solve(pivot_matrix, value) for level, value in values.items()}
        return cls(eliminated_columns, retained_columns, matrix, offsets)

    def restrict_columns(self, p: int) -> Self:
        """Return the constraint on the leading `p` columns, without the equations whose pivot is a later column.

        Those equations must not depend on the leading columns.
        """
        row_mask, column_mask = self.eliminated_columns < p, self.retained_columns < p
        eliminated_columns, retained_columns = self.eliminated_columns[row_mask], self.retained_columns[column_mask]
        offsets = {level: values[row_mask] for level, values in self.offsets.items()}
        return type(self)(eliminated_columns, retained_columns, self.matrix[np.ix_(row_mask, column_mask)], offsets)

    def count_columns(self, n_retained: int) -> int:
        """Count the leading columns that contain the first `n_retained` retained ones and all eliminated ones."""
        return int(max([*self.eliminated_columns, *self.retained_columns[:n_retained]], default=-1)) + 1

    def reduce_rows(self, rows: Array) -> Array:
        """Return X_F + X_P M for rows X, ``(n, p)`` or with leading columns only.

        The result is a view of X if M is zero and the columns F are contiguous.
        """
        columns = self.retained_columns[: np.searchsorted(self.retained_columns, rows.shape[1])]
        is_contiguous = len(columns) > 0 and columns[-1] - columns[0] + 1 == len(columns)
        retained_rows = rows[:, columns[0] : columns[-1] + 1] if is_contiguous else rows[:, columns]
        matrix = self.matrix[:, : len(columns)]
        return retained_rows + rows[:, self.eliminated_columns] @ matrix if matrix.any() else retained_rows

    def reduce_targets(self, rows: Array, targets: Array, level: str) -> Array:
        """Return y - X_P C_P⁻¹ d for targets y ``(n,)`` of a level; `rows` X include all eliminated columns."""
        return np.asarray(targets - rows[:, self.eliminated_columns] @ self.offsets[level])

    def expand(self, coefficients: Any, level: str) -> Array:
        """Return all coefficients, ``(..., p)``, from those of the leading retained columns, ``(..., p - k)``."""
        retained_beta = np.asarray(coefficients, dtype=np.float64)
        n = retained_beta.shape[-1]
        beta = np.empty((*retained_beta.shape[:-1], n + len(self.eliminated_columns)))
        beta[..., self.retained_columns[:n]] = retained_beta
        beta[..., self.eliminated_columns] = self.offsets[level] + retained_beta @ self.matrix[:, :n].T
        return beta
