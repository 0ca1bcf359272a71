"""A block of rows of a design, the unit in which a reduction reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from paretofit.core import Array
    from paretofit.linear.reduction.device import Device


class RowBlock(NamedTuple):
    """A block of rows of a design.

    Attributes
    ----------
    X : (n, p) float64
    Y : (n, n_levels) float64
    kind : (n,) int8
        `RowKind`.
    configuration : (n,) int64
        Numbered from 0.
    is_train : (n,) bool
        Training rows; the others are test rows.
    """

    X: Any
    Y: Any
    kind: Any
    configuration: Array
    is_train: Any

    def to(self, device: Device) -> RowBlock:
        """Copy all but the configurations to a device."""
        kind = device.put(np.asarray(self.kind, dtype=np.int64))
        return self._replace(X=device.put(self.X), Y=device.put(self.Y), kind=kind, is_train=device.put(self.is_train))
