"""Earlier path of `estimate_atomic_energies` in `training_files`, for data in their earlier form."""

from types import SimpleNamespace
from typing import Any

from paretofit.potentials.mace.mace_settings import MaceSettings
from paretofit.potentials.mace.training_files import estimate_atomic_energies


def atomic_energies(settings: MaceSettings, data: Any) -> dict[str, float]:
    """Estimate the energy of an isolated atom of each element in eV from ``data.train`` and ``data.elements``."""
    return estimate_atomic_energies(settings, SimpleNamespace(training_set=data.train, elements=data.elements))  # type: ignore[arg-type]
