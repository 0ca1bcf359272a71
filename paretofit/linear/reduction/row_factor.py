"""The triangular factor of the rows of one kind: it grows by rows, and measures the residuals of any coefficients.

A factor represents the rows [U | Y] of some configurations by a triangle R with RᵀR = [U | Y]ᵀ[U | Y], whatever the
number of rows. A training subset, a test set, a fold and a bootstrap sample are the same object.

Rows are folded into the triangle, which is stable at any condition number, or added to the Gram matrix G = RᵀR, which
is three times as fast but squares the condition number. A factor therefore changes to its Gram matrix only where this
is accurate, and the Cholesky factor of G takes the place of the folded triangle.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from paretofit.core import Array
from paretofit.linear.reduction import linalg
from paretofit.linear.reduction.conditioning import estimate_gram_condition
from paretofit.linear.reduction.linalg import CPU, Device, to_numpy

# Condition number of Gram matrices with a unit diagonal. On real data, errors of fits from the Cholesky factor differ
# from those of folded triangles by at most 5e-17 times this number, so by 5e-9.
MAX_GRAM_CONDITION = 1e8
CONVERSION_MARGIN = 4.0  # a factor changes to its Gram matrix at this fraction of the limit, as more rows may worsen it
MIN_RELATIVE_REMAINDER = 1e-5  # residual sum of squares relative to that of the targets, so that ten digits remain


@dataclass
class RowFactor:
    """Factor of rows A ``(n, width)``, whose size does not depend on n.

    As long as the rows are not more than the columns, the rows themselves are the factor.

    Attributes
    ----------
    width : int
        Number of columns.
    device : Device
    n_targets : int
        Number of trailing columns that are targets; only factors that change to Gram matrices need it.
    is_gram : bool
        Whether rows are added to the Gram matrix.
    matrix : (width, width) float64 or None
        R, or G, of which the processor defines only the upper triangle; None for fewer rows than columns.
    n : int
        Number of rows.
    """

    width: int
    device: Device = CPU
    n_targets: int = 0
    is_gram: bool = False
    matrix: Any = None
    n: int = 0
    _pending: list[Any] = field(default_factory=list)
    _triangle: Any = None

    @classmethod
    def from_rows(cls, rows: Array, n: int) -> RowFactor:
        """Restore a factor on the processor from its equivalent rows and its number of rows."""
        # A square array that represents more rows than it has is the triangle.
        is_matrix = len(rows) == rows.shape[1] < n
        matrix, pending = (np.asfortranarray(rows), []) if is_matrix else (None, [rows] if n else [])
        return cls(rows.shape[1], CPU, matrix=matrix, n=n, _pending=pending)

    def to(self, device: Device) -> RowFactor:
        """Return a copy on a device."""
        matrix, pending = (None if A is None else device.put(to_numpy(A)) for A in (self.matrix, self._join_pending()))
        pending_rows = [] if pending is None else [pending]
        return replace(self, device=device, matrix=matrix, _pending=pending_rows, _triangle=None)

    def grow(self, rows: Any, multiplicity: int = 1) -> None:
        """Add rows ``(n, width)``, each `multiplicity` times; they are buffered until there are many."""
        self.n += len(rows) * multiplicity
        self._append(rows if multiplicity == 1 else rows * float(np.sqrt(multiplicity)))  # √m, because AᵀA is quadratic

    def merge(self, factor: RowFactor) -> None:
        """Add the rows of another factor."""
        self.n += factor.n
        if factor.n:
            self._append(factor.get_equivalent_rows())
            self.finish(is_full=factor.matrix is not None)

    def _append(self, rows: Any) -> None:
        """Buffer rows, and fold the buffered rows when there are many."""
        self._triangle = None
        self._pending.append(rows)
        # A Gram matrix, too, is updated by many rows at once, because each update reads all of it from memory.
        has_matrix = self.matrix is not None or self.is_gram
        max_pending_rows = linalg.get_qr_batch_size(rows) if has_matrix else self.width
        if sum(map(len, self._pending)) > max_pending_rows:
            self.finish(is_full=True)

    def _join_pending(self) -> Any:
        """Return the buffered rows as one array; None if there are none."""
        if len(self._pending) > 1:
            self._pending = [linalg.concatenate(self._pending, 0)]
        return self._pending[0] if self._pending else None

    def finish(self, *, is_full: bool = False) -> RowFactor:
        """Fold the buffered rows into the matrix, and return this factor.

        Without a matrix, rows remain buffered, unless the factor is a Gram matrix, or `is_full` says that the rows
        are more than the columns.
        """
        if self._pending and (is_full or self.is_gram or self.matrix is not None):
            matrix = self.device.zeros(self.width, self.width) if self.matrix is None else self.matrix
            if self.is_gram:
                linalg.add_gram(matrix, self._join_pending())
            else:
                matrix = linalg.update_qr(matrix, self._join_pending())
            self.matrix, self._pending = matrix, []
        return self

    def convert_to_gram(self, *, is_checked: bool = True) -> None:
        """Change to the Gram matrix if it is accurate; without this check if `is_checked` is False."""
        if self.is_gram or (is_checked and not self.is_accurate(MAX_GRAM_CONDITION / CONVERSION_MARGIN)):
            return
        gram = self.device.zeros(self.width, self.width)
        if self.n:
            linalg.add_gram(gram, self.get_equivalent_rows())
        self.matrix, self.is_gram, self._pending, self._triangle = gram, True, [], None

    def is_accurate(self, max_condition: float = MAX_GRAM_CONDITION) -> bool:
        """Return whether fits from the Gram matrix of these rows agree with those from the rows.

        There must be a matrix, and the columns that are not zero must be well-conditioned. They must explain the
        targets only in part, because sums of squared residuals are differences of large sums.
        """
        if not self.n or self.finish().matrix is None:
            return False
        triangle = self._factorise_gram() if self.is_gram else self.matrix
        if triangle is None:
            return False
        p, squares = self.width - self.n_targets, linalg.sum_column_squares(triangle)
        residual_squares = linalg.sum_column_squares(triangle[p:, p:])
        has_residuals = bool((residual_squares >= MIN_RELATIVE_REMAINDER * squares[p:]).all())
        columns = np.flatnonzero(to_numpy(squares)[:p])
        block = to_numpy(triangle)[np.ix_(columns, columns)]
        return has_residuals and estimate_gram_condition(block) <= max_condition

    def _factorise_gram(self) -> Any:
        """Return the Cholesky factor of the Gram matrix, with empty rows for zero columns; None if it does not exist.

        The last block is a factor of the products of the residuals, which may be linearly dependent: levels can have
        equal targets.
        """
        if self._triangle is None:
            gram, p = self.matrix, self.width - self.n_targets
            columns = np.flatnonzero(to_numpy(gram.diagonal())[:p])
            cholesky, valid_size = linalg.factorise_cholesky(gram[np.ix_(columns, columns)])
            if valid_size < len(columns):
                return None
            rhs = linalg.solve_rows(cholesky, gram[columns, p:].T)
            upper = np.triu(to_numpy(gram[p:, p:]))
            products = upper + np.triu(upper, 1).T - to_numpy(rhs @ rhs.T)
            eigenvalues, vectors = np.linalg.eigh(products)
            residual_triangle = np.linalg.qr(np.sqrt(np.maximum(eigenvalues, 0.0))[:, None] * vectors.T, mode="r")
            triangle = self.device.zeros(self.width, self.width)
            triangle[np.ix_(columns, columns)], triangle[columns, p:] = cholesky, rhs.T
            triangle[p:, p:] = self.device.put(np.asarray(residual_triangle))
            self._triangle = triangle
        return self._triangle

    def get_equivalent_rows(self) -> Any:
        """Return rows with the same Gram matrix as all rows: the triangle, or without a matrix the rows themselves."""
        if not self.n:
            return self.device.zeros(0, self.width)
        return self._join_pending() if self.finish().matrix is None else self.get_triangle()

    def get_triangle(self) -> Any:
        """Return the triangle R ``(width, width)``.

        Raises
        ------
        ArithmeticError
            If the Gram matrix is not positive definite; `is_accurate` is then False.
        """
        if self.finish().matrix is None and self._triangle is None:
            self._triangle = linalg.update_qr(self.device.zeros(self.width, self.width), self.get_equivalent_rows())
        if not self.is_gram:
            return self._triangle if self.matrix is None else self.matrix
        triangle = self._factorise_gram()
        if triangle is None:
            raise ArithmeticError("the Gram matrix of these rows is not positive definite; fold the rows instead")
        return triangle

    def compute_residuals(self, B: Array, targets: Array) -> Array:
        """Compute an array whose columns have the same norms as the residuals U B − Y of all rows.

        Parameters
        ----------
        B : (p, m) float64
            Coefficients of the leading columns.
        targets : (m,) int64
            Column of the rows that is the target of each column of B.
        """
        v = self._stack_coefficients(B, targets)
        rows = self.get_equivalent_rows()
        return to_numpy(rows @ v if self.matrix is None else linalg.multiply_triangle(rows, v))

    def centre(self, residuals: Array) -> Array:
        """Remove the mean from `compute_residuals` of rows that begin with a one.

        In the residuals of a triangle, only the first row contains the mean; it is dropped.
        """
        return residuals[1:] if self.matrix is not None else residuals - residuals.mean(axis=0)

    def _stack_coefficients(self, B: Array, targets: Array) -> Any:
        """Stack B and −1 for each target, so that the rows [U | Y] times this matrix are the residuals U B − Y."""
        v = np.zeros((self.width, len(targets)), order="F")
        v[: len(B)], v[targets, np.arange(len(targets))] = B, -1.0
        return self.device.put(v)
