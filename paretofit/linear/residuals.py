"""Errors on a fixed set of rows from triangular factors: no rows are needed, and no squares cancel.

[1 | U | Y] = Q R, blockwise: the sum of squares of U δ − y is that of R's columns combined alike, since Q
does not change lengths. The column of ones comes first, so that what lies in R's first row is the mean.
"""

from dataclasses import dataclass, field
from typing import Any

from paretofit.linear.device import PROCESSOR, Device, column_squares, columns_first, device_of, host, stack, triangle
from paretofit.linear.factor import Array


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
        """Add rows; they are factorised as soon as there are a few times as many as columns."""
        rows = stack([device_of(U).zeros(len(U), 1) + 1.0, U, Y], 1)
        self.n += len(rows)
        self._pending.append(rows)
        if sum(map(len, self._pending)) > 3 * rows.shape[1]:
            self._flush()

    def merge(self, other: "ResidualFactor") -> None:
        """Add the rows that another factor stands for."""
        self.n += other.n
        if other.n:
            self._pending.append(other.R)

    def _flush(self) -> None:
        stacked = [self._R, *self._pending] if self._R is not None else self._pending
        A = stack(stacked, 0)
        self._R, self._pending = (triangle(A) if len(A) >= A.shape[1] else columns_first(A)), []

    def finish(self) -> None:
        """Factorise what is pending, once and not in every copy."""
        if self._pending:
            self._flush()

    @property
    def R(self) -> Any:
        """The factor: upper triangular, or the rows themselves where they are fewer than the columns."""
        self.finish()
        return self._R if self._R is not None else PROCESSOR.zeros(0, self.P + 1)

    def to(self, device: Device) -> "ResidualFactor":
        """The same on a device."""
        return ResidualFactor(self.P, self.n, device.put(host(self.R)))

    def squares(self, delta: Any, columns: Array) -> tuple[Array, Array]:
        """Sums of squares of U δ − y, as they are and about their mean.

        Parameters
        ----------
        delta : (p, n) float64
        columns : (n,) int64
            Target column for each column of `delta`.
        """
        R = self.R
        combined = R[:, 1 : 1 + len(delta)] @ delta - R[:, 1 + self.P + columns]
        squares = host(column_squares(combined))
        if len(R) < R.shape[1]:  # not triangular: the first row is a row, not the mean
            return squares, host(column_squares(combined - combined.mean(axis=0)))
        return squares, host(column_squares(combined[1:]))
