"""Errors on a fixed set of rows from triangular factors, without the rows and without cancellation.

[1 | U | Y] = Q R, blockwise: the sum of squares of U δ − y is that of the same combination of R's columns, since Q
does not change lengths. The column of ones comes first, so that R's first row holds the mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from paretofit.linear.reduction.device import (
    CPU,
    Device,
    column_squares,
    concatenate,
    get_array_device,
    qr_update_batch_size,
    to_numpy,
    update_qr,
)

if TYPE_CHECKING:
    from paretofit.core import Array


@dataclass
class ResidualFactor:
    """The triangular factor of the augmented rows [1 | U | Y] of one kind.

    Attributes
    ----------
    P : int
        Columns of U.
    n : int
        Rows so far.
    """

    P: int
    n: int = 0
    _R: Any = None
    _pending: list[Any] = field(default_factory=list)

    def add(self, U: Any, Y: Any) -> None:
        """Add rows, which are buffered until an update of the factor is efficient."""
        self._append(concatenate([get_array_device(U).zeros(len(U), 1) + 1.0, U, Y], 1))
        self.n += len(U)

    def merge(self, other: ResidualFactor) -> None:
        """Add the rows of another factor."""
        if other.n:
            self._append(other.R)
            self.n += other.n

    def _append(self, rows: Any) -> None:
        self._pending.append(rows)
        if sum(map(len, self._pending)) > qr_update_batch_size(rows):
            self.finish()

    def finish(self) -> None:
        """Update the factor with the buffered rows."""
        if self._pending:
            rows = concatenate(self._pending, 0)
            width = rows.shape[1]
            self._R = update_qr(get_array_device(rows).zeros(width, width) if self._R is None else self._R, rows)
            self._pending = []

    @property
    def R(self) -> Any:
        """The factor, upper triangular; with fewer rows than columns its last rows are zero."""
        self.finish()
        return self._R if self._R is not None else CPU.zeros(0, self.P + 1)

    def to(self, device: Device) -> ResidualFactor:
        """Copy to a device."""
        return ResidualFactor(self.P, self.n, device.put(to_numpy(self.R)))

    def sum_squared_residuals(self, delta: Any, columns: Array) -> tuple[Array, Array]:
        """Sums of squares of U δ − y, about zero and about their mean.

        Parameters
        ----------
        delta : (p, n) float64
        columns : (n,) int64
            Target column for each column of `delta`.
        """
        R = self.R
        combined = R[:, 1 : 1 + len(delta)] @ delta - R[:, 1 + self.P + columns]
        return to_numpy(column_squares(combined)), to_numpy(column_squares(combined[1:]))
