"""Labels of a dataset at one convergence level, as arrays."""

from dataclasses import dataclass

import numpy as np

from paretofit.core import Array

STATUS_CODES = {"missing": 0, "done": 1, "failed": 2}  # the stored numbers of `Labels.status`


@dataclass(frozen=True)
class Labels:
    """Labels of configurations at one convergence level; NaN where a label is missing.

    Attributes
    ----------
    energy : (n,) float64
        Total force-consistent energies in eV.
    forces : (n_atoms, 3) float64
        Forces in eV/Å, with the atoms of all configurations concatenated.
    stress : (n, 6) float64
        Stresses in eV/Å³, with ASE's Voigt order (xx, yy, zz, yz, xz, xy) and sign.
    seconds : (n,) float64
        Computing time that each label cost, in s.
    status : (n,) int8
        0 for missing, 1 for done, 2 for failed.
    offsets : (n + 1,) int64
        The forces of configuration k are ``forces[offsets[k]:offsets[k + 1]]``.
    """

    energy: Array
    forces: Array
    stress: Array
    seconds: Array
    status: Array
    offsets: Array

    @property
    def is_complete(self) -> Array:
        """``(n,) bool``: whether the energy and all forces are finite, and the calculation did not fail."""
        return ~self.is_failed & np.isfinite(self.energy) & self.has_forces

    @property
    def is_failed(self) -> Array:
        """``(n,) bool``: whether the calculation failed."""
        return np.asarray(self.status == STATUS_CODES["failed"])

    @property
    def has_forces(self) -> Array:
        """``(n,) bool``: whether all forces are finite."""
        is_force_missing = np.asarray(~np.isfinite(self.forces).all(axis=-1))
        return np.asarray(self.sum_over_atoms(is_force_missing) == 0)

    def sum_over_atoms(self, values: Array) -> Array:
        """Sum ``(n_atoms,)`` values over the atoms of each configuration; return ``(n,)`` sums."""
        if not len(self.energy):
            return np.zeros(0)  # reduceat raises an error without any offsets
        # The appended 0 converts a mask to integers, because np.add combines booleans by a logical "or".
        return np.asarray(np.add.reduceat(np.append(values, 0), self.offsets[:-1]))
