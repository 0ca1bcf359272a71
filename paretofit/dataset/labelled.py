"""Labels of a convergence level, and what checks and summaries need of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ase import Atoms

    from paretofit.core import Array

STATUS_CODES = {"missing": 0, "done": 1, "failed": 2}


@dataclass(frozen=True)
class Labels:
    """Labels of some configurations at one convergence level; NaN where one is missing.

    Attributes
    ----------
    energy : (n,) float64
        Total energies in eV, the force-consistent ones.
    forces : (n_atoms, 3) float64
        eV/Å, the atoms of all configurations one after the other.
    stress : (n, 6) float64
        eV/Å³, in ASE's Voigt order (xx, yy, zz, yz, xz, xy) and sign.
    seconds : (n,) float64
        What each label cost.
    status : (n,) int8
        0 missing, 1 done, 2 failed.
    offsets : (n + 1,) int64
        Configuration k owns ``forces[offsets[k]:offsets[k + 1]]``.
    """

    energy: Array
    forces: Array
    stress: Array
    seconds: Array
    status: Array
    offsets: Array

    @property
    def complete(self) -> Array:
        """``(n,) bool``: configurations whose energy and all of whose forces are finite, if they did not fail."""
        done = np.asarray(self.status != STATUS_CODES["failed"])
        return done & np.isfinite(self.energy) & self.forces_complete

    @property
    def forces_complete(self) -> Array:
        """``(n,) bool``: configurations all of whose forces are finite."""
        bad = np.asarray(~np.isfinite(self.forces).all(axis=-1))
        return np.asarray(self.sum_over_atoms(bad) == 0)

    def sum_over_atoms(self, values: Array) -> Array:
        """Sum ``(n_atoms,)`` values over the atoms of each configuration: ``(n,)``."""
        if not len(self.energy):
            return np.zeros(0)
        return np.asarray(np.add.reduceat(np.append(values, 0), self.offsets[:-1]))


class LabelledStructures(Protocol):
    """Structures with labels at some levels: a `Dataset`, for what it is built on."""

    path: Path
    levels: list[str]

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Atoms]: ...

    def __getitem__(self, k: int) -> Atoms: ...

    @property
    def ids(self) -> Array:
        """``(n,)`` whole numbers."""

    @property
    def n_atoms(self) -> Array:
        """``(n,)`` atoms of each configuration."""

    def labels(self, level: str) -> Labels:
        """Labels at a level."""

    def label_records(self, level: str) -> list[dict[str, Any]]:
        """What is known of each label beside its numbers."""

    def settings(self, level: str) -> dict[str, Any]:
        """Settings of a level."""

    def select_ids(self, ids: Sequence[int] | Array) -> Self:
        """The configurations with these ids."""
