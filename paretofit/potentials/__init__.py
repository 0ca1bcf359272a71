"""Fitted models as potentials that other programs run."""

from paretofit.potentials.linear import LinearPotential
from paretofit.potentials.snap_files import SnapFiles, read_snap, write_snap

__all__ = ["LinearPotential", "SnapFiles", "read_snap", "write_snap"]
