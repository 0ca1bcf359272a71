"""Labels of a convergence level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paretofit.core import Array

STATUS_CODES = {"missing": 0, "done": 1, "failed": 2}


@dataclass(frozen=True)
class Labels:
    """Labels of configurations at one convergence level; NaN where a label is missing.

    Attributes
    ----------
    energy : (n,) float64
        Total force-consistent energies in eV.
    forces : (n_atoms, 3) float64
        eV/Å, the atoms of all configurations concatenated.
    stress : (n, 6) float64
        eV/Å³, in ASE's Voigt order (xx, yy, zz, yz, xz, xy) and sign.
    seconds : (n,) float64
        Cost of each label.
    status : (n,) int8
        0 missing, 1 done, 2 failed.
    offsets : (n + 1,) int64
        Configuration k has ``forces[offsets[k]:offsets[k + 1]]``.
    """

    energy: Array
    forces: Array
    stress: Array
    seconds: Array
    status: Array
    offsets: Array

    @property
    def complete(self) -> Array:
        """``(n,) bool``: configurations that did not fail and whose energy and forces are all finite."""
        return ~self.failed & np.isfinite(self.energy) & self.forces_complete

    @property
    def failed(self) -> Array:
        """``(n,) bool``: configurations whose calculation failed."""
        return np.asarray(self.status == STATUS_CODES["failed"])

    @property
    def forces_complete(self) -> Array:
        """``(n,) bool``: configurations whose forces are all finite."""
        is_incomplete = np.asarray(~np.isfinite(self.forces).all(axis=-1))
        return np.asarray(self.sum_over_atoms(is_incomplete) == 0)

    def sum_over_atoms(self, values: Array) -> Array:
        """Sum ``(n_atoms,)`` values over the atoms of each configuration: ``(n,)``."""
        if not len(self.energy):
            return np.zeros(0)
        return np.asarray(np.add.reduceat(np.append(values, 0), self.offsets[:-1]))
