"""Fitted models as potentials that other programs run."""

from paretofit.potentials.snap_files import SnapFiles, write_snap

__all__ = ["SnapFiles", "write_snap"]
