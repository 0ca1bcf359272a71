"""MACE networks as committees: settings, training in subprocesses, and the trained potential."""

from paretofit.potentials.mace.settings import PRESETS, MaceSettings

__all__ = ["PRESETS", "MaceSettings"]
