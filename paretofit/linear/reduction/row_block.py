"""Rows of a design on their way through the reduction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from paretofit.core import Array
    from paretofit.linear.reduction.device import Device


class RowBlock(NamedTuple):
    """Some rows of the design on their way through the reduction.

    Attributes
    ----------
    X : (n, p) float64
    Y : (n, n_levels) float64
    kind : (n,) int8
        `RowKind`.
    configuration : (n,) int64
        Numbered from 0.
    is_train : (n,) bool
        Rows that may train; the others test.
    """

    X: Any
    Y: Any
    kind: Any
    configuration: Array
    is_train: Any

    def to(self, device: Device) -> RowBlock:
        """The same on a device; configurations stay where they are."""
        return self._replace(
            **{name: device.put(getattr(self, name)) for name in ("X", "Y", "is_train")},
            kind=device.put(np.asarray(self.kind, dtype=np.int64)),
        )
