"""Linear equality constraints of a linear model, which eliminate columns before a fit.

A constraint C β = d, with as many pivot columns P as equations, determines the coefficients β_P from the coefficients
β_F of the other columns F: β_P = C_P⁻¹ (d - C_F β_F). With M = -C_P⁻¹ C_F, the rows X become X_F + X_P M, and the
targets y become y - X_P C_P⁻¹ d. This reduced problem has no constraint, and its solution β_F gives the solution of the
constrained problem (Golub and Van Loan, Matrix Computations, section 6.2).
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
        """Build the constraint C β = d from its equations.

        Parameters
        ----------
        equations : (k, p) float64
            C.
        pivots : (k,) int
            Pivot columns P, in any order; the square matrix C_P must be invertible.
        values : mapping of level to (k,) float64
            d of each level.
        """
        eliminated_columns = np.sort(pivots)
        retained_columns = np.setdiff1d(np.arange(equations.shape[1]), eliminated_columns)
        pivot_matrix = equations[:, eliminated_columns]
        matrix = -np.linalg.solve(pivot_matrix, equations[:, retained_columns])
        offsets = {level: np.linalg.solve(pivot_matrix, level_values) for level, level_values in values.items()}
        return cls(eliminated_columns, retained_columns, matrix, offsets)

    def restrict_columns(self, p: int) -> Self:
        """Return the constraint on the leading `p` columns, without the equations whose pivot is a later column.

        The equations that are dropped must not depend on the leading columns.
        """
        row_mask, column_mask = self.eliminated_columns < p, self.retained_columns < p
        eliminated_columns, retained_columns = self.eliminated_columns[row_mask], self.retained_columns[column_mask]
        offsets = {level: values[row_mask] for level, values in self.offsets.items()}
        return type(self)(eliminated_columns, retained_columns, self.matrix[np.ix_(row_mask, column_mask)], offsets)

    def count_columns(self, n_retained: int) -> int:
        """Count the leading columns that include the first `n_retained` retained columns and all eliminated columns."""
        return int(max([*self.eliminated_columns, *self.retained_columns[:n_retained]], default=-1)) + 1

    def reduce_rows(self, rows: Array) -> Array:
        """Return X_F + X_P M, ``(n, p - k)``, for rows X, ``(n, p)``.

        X may consist of leading columns only, if they include all eliminated columns. The returned array is a view of X
        if M is zero and the columns F are contiguous.
        """
        columns = self.retained_columns[: np.searchsorted(self.retained_columns, rows.shape[1])]
        is_contiguous = len(columns) > 0 and columns[-1] - columns[0] + 1 == len(columns)
        retained_rows = rows[:, columns[0] : columns[-1] + 1] if is_contiguous else rows[:, columns]
        matrix = self.matrix[:, : len(columns)]
        return retained_rows + rows[:, self.eliminated_columns] @ matrix if matrix.any() else retained_rows

    def reduce_targets(self, rows: Array, targets: Array, level: str) -> Array:
        """Return y - X_P C_P⁻¹ d, ``(n,)``, for targets y of a level; rows X must include all eliminated columns."""
        return np.asarray(targets - rows[:, self.eliminated_columns] @ self.offsets[level])

    def expand(self, coefficients: Any, level: str) -> Array:
        """Return all coefficients β, ``(..., n + k)``, from those of the leading n retained columns, ``(..., n)``.

        The k eliminated columns must lie among the leading n + k columns.
        """
        beta_F = np.asarray(coefficients, dtype=np.float64)
        n = beta_F.shape[-1]
        beta = np.empty((*beta_F.shape[:-1], n + len(self.eliminated_columns)))
        beta[..., self.retained_columns[:n]] = beta_F
        beta[..., self.eliminated_columns] = self.offsets[level] + beta_F @ self.matrix[:, :n].T
        return beta
