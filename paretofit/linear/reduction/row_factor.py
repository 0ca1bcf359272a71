"""The triangular factor of the rows of one kind: it grows by rows, and measures the residuals of any coefficients.

A factor represents the rows [U | Y] of some configurations by a triangle R with RᵀR = [U | Y]ᵀ[U | Y], whatever the
number of rows. A training subset, a test set, a fold and a bootstrap sample are the same object.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from paretofit.core import Array
from paretofit.linear.reduction import linalg
from paretofit.linear.reduction.linalg import CPU, Device, to_numpy

MIN_RELATIVE_REMAINDER = 1e-5  # ratio to a sum of squares before cancellation, so that ten of its digits remain


@dataclass
class RowFactor:
    """Factor of rows A ``(n, width)``, in one of three forms; the size of the last two does not depend on n.

    As long as the rows are fewer than the columns, the rows themselves are the factor. A triangle R, A = Q R, is stable
    at any condition number: ‖A v‖² = ‖R v‖² cannot cancel. Rows are added twice as fast to the Gram matrix G = AᵀA, but
    it squares the condition number.

    Attributes
    ----------
    width : int
        Number of columns.
    device : Device
    is_gram : bool
        Whether the factor is a Gram matrix.
    matrix : (width, width) float64 or None
        R, or the upper triangle of G; None for fewer rows than columns.
    n : int
        Number of rows.
    """

    width: int
    device: Device = CPU
    is_gram: bool = False
    matrix: Any = None
    n: int = 0
    _pending: list[Any] = field(default_factory=list)
    _triangle: Any = None

    @classmethod
    def from_rows(cls, rows: Array, n: int) -> RowFactor:
        """Restore a factor on the processor from its `content` and its number of rows."""
        is_matrix = len(rows) == rows.shape[1] < n
        matrix, pending = (np.asfortranarray(rows), []) if is_matrix else (None, [rows] if n else [])
        return cls(rows.shape[1], CPU, matrix=matrix, n=n, _pending=pending)

    @property
    def content(self) -> Any:
        """The matrix, or the rows if they are fewer than its columns."""
        if not self.n:
            return self.device.zeros(0, self.width)
        return self.matrix if self.is_gram else self.get_equivalent_rows()

    def to(self, device: Device) -> RowFactor:
        """Return a copy on a device."""
        matrix, pending = (None if A is None else device.put(to_numpy(A)) for A in (self.matrix, self._join_pending()))
        return replace(self, device=device, matrix=matrix, _pending=[] if pending is None else [pending])

    def grow(self, rows: Any, multiplicity: int = 1) -> None:
        """Add rows ``(n, width)``, each `multiplicity` times; they are buffered until there are many."""
        self.n += len(rows) * multiplicity
        self._append(rows if multiplicity == 1 else rows * float(np.sqrt(multiplicity)))  # √m, because AᵀA is quadratic

    def merge(self, factor: RowFactor) -> None:
        """Add the rows of another factor."""
        self.n += factor.n
        if factor.is_gram and factor.finish().matrix is not None:
            self.matrix = factor.matrix if self.finish().matrix is None else self.matrix + factor.matrix
        elif factor.n and not factor.is_gram:
            self._append(factor.get_equivalent_rows())
            self.finish(is_full=factor.matrix is not None)

    def _append(self, rows: Any) -> None:
        self._triangle = None
        self._pending.append(rows)
        min_rows = linalg.get_qr_batch_size(rows) if self.matrix is not None or self.is_gram else self.width
        if sum(map(len, self._pending)) > min_rows:
            self.finish(is_full=True)

    def _join_pending(self) -> Any:
        if len(self._pending) > 1:
            self._pending = [linalg.concatenate(self._pending, 0)]
        return self._pending[0] if self._pending else None

    def finish(self, *, is_full: bool = False) -> RowFactor:
        """Fold the buffered rows into the matrix, and return this factor.

        Without a matrix, rows remain buffered, unless `is_full` says that they are at least as many as the columns, or
        the factor is a Gram matrix.
        """
        if self._pending and (is_full or self.is_gram or self.matrix is not None):
            matrix = self.device.zeros(self.width, self.width) if self.matrix is None else self.matrix
            if self.is_gram:
                linalg.add_gram(matrix, self._join_pending())
            else:
                matrix = linalg.update_qr(matrix, self._join_pending())
            self.matrix, self._pending = matrix, []
        return self

    def convert_to_gram(self) -> None:
        """Replace the factor by the Gram matrix, which grows faster."""
        self.matrix, self.is_gram, self._pending = self.get_gram(), True, []

    def get_gram(self) -> Any:
        """Return the Gram matrix; on the processor, only its upper triangle is defined."""
        if self.is_gram and self.finish().matrix is not None:
            return self.matrix
        gram = self.device.zeros(self.width, self.width)
        if self.n:
            linalg.add_gram(gram, self.get_equivalent_rows())
        return gram

    def get_equivalent_rows(self) -> Any:
        """Return rows with the same Gram matrix as all rows: the triangle, or the rows themselves without a matrix."""
        return self._join_pending() if self.finish().matrix is None else self.matrix

    def get_triangle(self) -> Any:
        """Return the triangle R ``(width, width)``; with fewer rows than columns, it is cached for later calls."""
        if self.finish().matrix is not None:
            return self.matrix
        if self._triangle is None:
            self._triangle = linalg.update_qr(self.device.zeros(self.width, self.width), self.get_equivalent_rows())
        return self._triangle

    def compute_residuals(self, B: Array, targets: Array) -> Array:
        """Compute residuals with the sums of squares of U B − Y over all rows; the factor must not be a Gram matrix.

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
        """Subtract the mean from residuals of rows that begin with a one; of a triangle, drop the first row."""
        return residuals[1:] if self.matrix is not None else residuals - residuals.mean(axis=0)

    def sum_squared_residuals(self, B: Array, targets: Array) -> tuple[Array, Array]:
        """Compute the sums of squares of the residuals U B − Y of all rows; see `compute_residuals`.

        Returns
        -------
        squares : (m,) float64
        has_cancelled : (m,) bool
            Where so many digits of a Gram matrix cancelled that a triangle is needed.
        """
        if not self.is_gram:
            return linalg.sum_column_squares(self.compute_residuals(B, targets)), np.zeros(len(targets), dtype=bool)
        gram, v = self.get_gram(), self._stack_coefficients(B, targets)
        squares = to_numpy(linalg.sum_column_products(linalg.multiply_symmetric(gram, v), v))
        has_cancelled = squares < MIN_RELATIVE_REMAINDER * to_numpy(gram.diagonal())[targets]
        return np.maximum(squares, 0.0), has_cancelled

    def _stack_coefficients(self, B: Array, targets: Array) -> Any:
        """Stack B and −1 for each target, so that the rows [U | Y] times this matrix are the residuals U B − Y."""
        v = np.zeros((self.width, len(targets)), order="F")
        v[: len(B)], v[targets, np.arange(len(targets))] = B, -1.0
        return self.device.put(v)
