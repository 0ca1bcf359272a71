"""Fitted models as potentials that other programs run."""

from pathlib import Path

from paretofit.potentials.linear import LinearPotential
from paretofit.potentials.mace.potential import MacePotential, is_mace
from paretofit.potentials.snap_files import SnapFiles, read_snap, write_snap

__all__ = ["LinearPotential", "MacePotential", "SnapFiles", "read_potential", "read_snap", "write_snap"]


def read_potential(path: Path | str) -> LinearPotential | MacePotential:
    """Read a potential or a committee, of linear models or of MACE networks, from its files or their folder.

    Raises
    ------
    InputError
        If a file is missing or damaged.
    """
    place = Path(path)
    return MacePotential.read(place) if is_mace(place) else LinearPotential.read(place)
