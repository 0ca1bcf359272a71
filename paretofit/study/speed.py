"""`paretofit evaluate --md-speed`: how fast LAMMPS is with a potential."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ase.build import bulk

from paretofit.dataset.importer import read_frames
from paretofit.errors import InputError
from paretofit.potentials.snap_files import snap_files
from paretofit.validation import MdSpeed, md_speed

if TYPE_CHECKING:
    from ase import Atoms


def evaluate_speed(potential: Path | str, cell: Path | str | None = None) -> MdSpeed:
    """Time LAMMPS with a potential, on one core.

    Parameters
    ----------
    potential : path-like
        A SNAP potential's files.
    cell : path-like, optional
        The structure to time it on, repeated to some 250 atoms; by default the first element's crystal.

    Raises
    ------
    InputError
        If a file cannot be used, or the element has no crystal that ASE knows.
    """
    files = snap_files(Path(potential))
    atoms = _crystal(files.elements[0]) if cell is None else read_frames(Path(cell), None).atoms[0]
    return md_speed(files.commands, files.elements, atoms)


def _crystal(symbol: str) -> Atoms:
    try:
        atoms: Atoms = bulk(symbol)
    except (ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"ASE knows no crystal of {symbol}; name a structure with --cell") from error
    return atoms
