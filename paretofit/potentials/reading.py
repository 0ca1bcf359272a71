"""Reading of a potential of any kind from its files."""

from pathlib import Path

from paretofit.potentials.linear_potential import LinearPotential
from paretofit.potentials.mace.mace_potential import MacePotential, is_mace


def read_potential(path: Path | str) -> LinearPotential | MacePotential:
    """Read a potential or a committee of linear models or MACE networks from its files or their directory.

    Raises
    ------
    InputError
        If a file is missing or corrupt.
    """
    return MacePotential.read(path) if is_mace(Path(path)) else LinearPotential.read(path)
