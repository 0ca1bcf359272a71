"""Reading of a potential of any kind from its files."""

from pathlib import Path

from paretofit.potentials.linear_potential import LinearPotential
from paretofit.potentials.mace.mace_potential import MacePotential, is_mace


def read_potential(path: Path | str, *, allow_pickle: bool = False) -> LinearPotential | MacePotential:
    """Read a linear potential, a committee of linear models or a committee of MACE networks from its files.

    Parameters
    ----------
    path : path-like
        One of the files of the potential, or their directory.
    allow_pickle : bool
        Accept networks that were not trained by this user on this computer. Loading them can run any code.

    Raises
    ------
    InputError
        If a file is missing or corrupt, or networks are not trusted (see `allow_pickle`).
    """
    if is_mace(Path(path)):
        return MacePotential.read(path, allow_pickle=allow_pickle)
    return LinearPotential.read(path)
